// What the panel says of a node and of the routes between two, with heat maps of arrays.
const panel = { node: byId("node"), routes: byId("routes"), time: byId("time") };
let tab = "node";
function turnTo(name) {
  tab = name;
  for (const key of Object.keys(panel)) {
    panel[key].hidden = key !== name;
    byId("tab-" + key).setAttribute("aria-selected", String(key === name));
    byId("tab-" + key).setAttribute("tabindex", key === name ? 0 : -1);
  }
}

// ---- arrays ------------------------------------------------------------------------------------------------------
// Blue below zero, orange above: a pair that every kind of colour sight tells apart, pale at zero.
function shade(v, most) {
  if (!Number.isFinite(v)) return { fill: "#000", ink: "#fff" };
  const part = most ? Math.min(Math.abs(v) / most, 1) : 0, to = v < 0 ? [33, 102, 172] : [230, 97, 1];
  return { fill: `rgb(${to.map((c) => Math.round(247 + (c - 247) * part)).join(",")})`, ink: part > 0.55 ? "#fff" : "#111" };
}
function heat(values, shape, what) {
  const columns = shape.length ? shape[shape.length - 1] : 1, rows = values.length / columns;
  let most = 0;
  for (const v of values) if (Number.isFinite(v)) most = Math.max(most, Math.abs(v));
  const said = `${what}, ${rows} by ${columns}`;
  if (values.length > 512) {
    const canvas = make("canvas", null, { class: "heat", role: "img", "aria-label": said, width: columns, height: rows });
    const pen = canvas.getContext("2d");
    values.forEach((v, k) => {
      pen.fillStyle = shade(v, most).fill;
      pen.fillRect(k % columns, Math.floor(k / columns), 1, 1);
    });
    return canvas;
  }
  const written = columns <= 6, digits = columns > 3 ? 2 : 3;
  const cells = Array.from(values, (v, k) => {
    const cell = make("i", written ? figure(v, digits) : null, { title: `[${Math.floor(k / columns)}, ${k % columns}] ${figure(v, 7)}` });
    const { fill, ink } = shade(v, most);
    cell.style.background = fill;
    cell.style.color = ink;
    return cell;
  });
  const grid = make("div", cells, { class: written ? "heat written" : "heat", role: "img", "aria-label": said });
  grid.style.gridTemplateColumns = `repeat(${columns}, ${written ? "minmax(44px, max-content)" : "minmax(6px, 16px)"})`;
  return grid;
}
const extent = (s) => ["min", "max", "mean", "norm"].map((k) => k + " " + figure(Number(s[k] ?? 0))).join(", ");
// An array as far as the page carries it: every number, or its extent and norm.
function array(title, values, summary, n) {
  if (!values && !summary) return [];
  const head = make("h3", title);
  if (values?.length === 1) return [head, make("p", figure(values[0], 7), { class: "number", "data-array": title })];
  if (values) return [head, make("div", heat(values, n.shape, title), { "data-array": title }), values.length ? make("p", extent(extentOf(values)), { class: "soft" }) : null];
  return [head, make("p", `${counted(n.size, "number")}: too large to carry, so only its extent: ${extent(summary)}`, { class: "soft" })];
}

// ---- one node ----------------------------------------------------------------------------------------------------
const shapeOf = (n) => (n.shape.length ? n.shape.join(" × ") : "scalar");
function link(n) {
  const button = make("button", parsed(symbol(n)), { type: "button", class: "link", "aria-label": spoken(n) });
  button.addEventListener("click", () => {
    choose(n, true);
    if (chosen === n) address("node=" + n.key); // else it was the second of a pair
  });
  return button;
}
function heading(n) {
  const title = make("h2", parsed(left(n)), { "aria-label": spoken(n) });
  const where = n.scope.filter((part) => !part.startsWith("t=")), facts = [n.kind === "op" ? n.op : n.kind];
  if (n.kind !== "fold") facts[0] += " #" + n.id;
  if (n.name && n.tap !== undefined) facts.unshift(n.name);
  if (n.time !== undefined) facts.push("t = " + n.time);
  if (where.length) facts.push(where.join(" / "));
  if (n.kind !== "fold") facts.push(shapeOf(n) + " " + n.dtype);
  else facts.push(counted(n.members.reduce((s, [a, b]) => s + b - a + 1, 0), "node"));
  const options = Object.entries(n.params ?? {}).filter(([, v]) => v !== null && typeof v !== "object");
  return [title, make("p", facts.map((fact) => make("span", fact, { class: "chip" }))),
    formulaOf(n)?.doc ? make("p", formulaOf(n).doc, { class: "soft" }) : null,
    options.length ? make("p", options.map(([k, v]) => `${k} = ${v}`).join(", "), { class: "soft" }) : null];
}
// The value: equation with symbols, then with numbers, then the array.
function valuePart(n) {
  const said = equations(n);
  return [...(said.length ? [make("h3", "equation"), ...said] : []),
    n.kind === "fold" ? null : array("value", n.numbers, n.value, n),
    n.into.length ? [make("h3", "reads"), make("p", n.into.map((e) => [link(e.from), " "]))] : null];
}
// The gradient: one term for each edge that leaves the node, their sum, and what the engine has.
function gradientPart(n) {
  const flows = n.out.filter((e) => e.flows), root = roots.has(n);
  if (!walk) return array("gradient", null, n.grad, n);
  if (!n.gradient && !flows.length) {
    return [make("h3", "gradient"), make("p", n.requires_grad ? "Nothing that is differentiated depends on it." : "No gradient flows here.", { class: "soft" })];
  }
  const head = make("h3", [flows.length > 1 ? `gradient: ${flows.length} routes out, added up` : "gradient"]);
  const terms = flows.map((e, k) => {
    const [symbols, reckoned] = term(e), local = localOf(e);
    const item = make("li", [
      make("span", [`${flows.length > 1 ? k + 1 + ". " : ""}through `, link(e.to), e.name && e.to.into.length > 1 ? ` as ${e.name}` : ""], { class: "via" }),
      math(symbols, "term"), math(reckoned, "term-numbers"),
    ], { "data-edge": e.key, style: `--k:${Math.min(k, 8)}` });
    if (local !== null) item.firstChild.append(make("span", parsed(`<msup><mo>∂</mo><mo>+</mo></msup><mo>=</mo>${local}`), { class: "local" }));
    else if (e.local && e.from.size * e.to.size <= 400) item.append(jacobian(e));
    item.addEventListener("pointerenter", () => mark("near", [e.mark]));
    item.addEventListener("pointerleave", () => mark("near", []));
    return item;
  });
  const sum = [...(root ? ["<mn>1</mn>"] : []), ...flows.map((e) => (e.contribution ? matrix(e.contribution, n.shape, "c" + along(e), true) : "<mi>⋯</mi>"))];
  const few = sum.length > 4 ? [...sum.slice(0, 3), "<mo>⋯</mo>"] : sum;
  const whole = n.gradient ? matrix(n.gradient, n.shape, "g" + n.key) : "<mtext>(too large)</mtext>";
  const equation = math(`${partial(n)}<mo>=</mo>${sum.length > 1 ? few.join("<mo>+</mo>") + "<mo>=</mo>" : ""}${whole}`, "sum");
  const off = walk.residual ? `, to within ${figure(walk.residual, 1)} of their size` : "";
  const stated = root && !flows.length ? "This is what is differentiated: its gradient is 1."
    : n.gradient && !n.gradient.every(Number.isFinite) ? "The gradient is not finite, so no parts add up to it."
    : flows.length > 1 ? `${flows.length} contributions add up to the gradient${off}.` : null;
  return [head, make("ol", terms, { class: "terms" }), equation, stated && make("p", stated, { class: "stated" }),
    n.size > 1 ? array("gradient in numbers", n.gradient, n.grad, n) : null];
}
// ∂⁺ of an operation that is not element-wise: a matrix, a row for each entry of the result.
function jacobian(e) {
  const values = new Float64Array(e.from.size * e.to.size), { rows, columns } = e.local;
  e.local.values.forEach((v, k) => { values[rows[k] * e.from.size + columns[k]] = v; });
  const title = `∂⁺ as a matrix, ${e.to.size} × ${e.from.size}`;
  return make("details", [make("summary", title), heat(values, [e.to.size, e.from.size], title)]);
}
function pairButton(n) {
  const button = make("button", pairing === n ? "choose the second node …" : "routes between this node and …", { type: "button", class: "pair" });
  button.addEventListener("click", () => {
    pairing = pairing === n ? null : n;
    describe(n);
  });
  return button;
}
// What was drawn as one: its nodes have their own values and gradients.
function membersPart(n) {
  const members = all.filter((m) => m.under === n), listed = members.length > 24 ? [...members.slice(0, 12), null, ...members.slice(-11)] : members;
  const said = (m) => [link(m), m.time === undefined ? "" : ` in t = ${m.time}`, ", "];
  return [make("h3", `stands for ${counted(members.length, "node")}`), make("p", listed.flatMap((m) => (m ? said(m) : ["… "])).slice(0, -1))];
}
let scrolled = false; // to say so costs nothing when it happens, and a layout of the page when it is asked
panel.node.addEventListener("scroll", () => { scrolled = panel.node.scrollTop > 0; });
function describe(n, part = "both") {
  const value = () => make("div", valuePart(n), { class: "value-part" });
  const gradient = () => make("div", walk && n.kind === "fold" ? membersPart(n) : gradientPart(n), { class: "gradient-part" });
  const parts = part === "value" ? [value()] : part === "gradient" ? [gradient(), value()] : [value(), gradient()];
  if (scrolled) panel.node.scrollTop = 0;
  panel.node.replaceChildren(...heading(n).filter(Boolean), ...parts, ...(walk && n.kind !== "fold" ? [pairButton(n)] : []));
}
// What this computation is, in numbers, before anything is chosen.
function summary() {
  const ops = all.filter((n) => n.kind === "op"), parameters = all.filter((n) => n.kind === "parameter"), times = new Set(ops.map((n) => n.time ?? n.step));
  times.delete(undefined);
  const parts = [counted(ops.length, "operation")];
  if (times.size > 1) parts.push(`${grouped(times.size)} steps`);
  if (parameters.length) parts.push(`${counted(parameters.length, "parameter")} of ${counted(parameters.reduce((sum, n) => sum + n.size, 0), "number")}`);
  return make("p", parts.join(", ") + ".");
}
// What is differentiated, with its value.
function objective() {
  if (!roots.size) return null;
  const value = [...roots].reduce((sum, n) => sum + (n.numbers?.length === 1 ? n.numbers[0] : NaN), 0);
  const ends = `${total()}<mo>=</mo>${losses.length > 1 && losses.length <= 6 ? losses.map((n) => left(n)).join("<mo>+</mo>") + "<mo>=</mo>" : ""}`;
  return Number.isNaN(value) ? null : make("p", [math(`${ends}<mn>${figure(value, 5)}</mn>`, "objective")]);
}
function welcome() {
  const begin = (to, text) => {
    const button = make("button", text, { type: "button" });
    button.addEventListener("click", () => {
      pause();
      walkTo(to, -1);
      play();
    });
    return button;
  };
  const lines = [
    ["click a node", "for its equation, its value, its gradient and the routes that bring it"],
    walk && ["shift-click a second one", "for all routes between the two: how many, and their sum"],
    groups.length && ["click the − on a frame", "to fold a step or a cell"],
    ["press ?", "for all keys"],
  ];
  panel.node.replaceChildren(...[make("h2", "Walk the chain rule"), summary(), objective(),
    make("div", [forward.length ? begin("forward", "▶ play forward") : null, backward.length ? begin("backward", "◀ play backward") : null], { class: "begin" }),
    make("p", "Forward lights each operation and shows its equation in symbols and in numbers. Backward lets the gradient arrive on every edge and adds up what comes together.", { class: "soft" }),
    make("dl", lines.filter(Boolean).map(([key, what]) => [make("dt", key), make("dd", what)])),
    ...(walk?.notes ?? []).map((text) => make("p", text, { class: "soft noted" })),
    walk ? null : make("p", "This page shows structure and summaries: it was drawn from a view, or from more operations than a page walks through.", { class: "soft" })].filter(Boolean));
  say("");
}

// ---- help --------------------------------------------------------------------------------------------------------
const HELP = [
  ["walk", [["→ ←", "next and previous step"], ["Home End", "first and last step"], ["space", "play and pause"], ["f b", "forward and backward"]]],
  ["picture", [["+ − 0", "zoom in, zoom out, show everything; wheel or two fingers zoom too"], ["shift + arrows", "move; dragging moves too"], ["u", "fold or unfold all steps"]]],
  ["ask", [["Tab, then ↑ ↓", "go from mark to mark in the picture"], ["Enter", "choose it; on a frame, fold it"], ["shift + Enter", "the routes between it and the one chosen before"], ["Escape", "nothing chosen"], ["?", "this list"]]],
];
function showHelp() {
  const dialog = byId("help");
  const close = make("form", make("button", "close", { autofocus: "" }), { method: "dialog" });
  const keysOf = (keys) => keys.split(" ").map((key, k) => [k ? " " : "", /^(\+|then|,)$/.test(key) && k && keys !== "+ − 0" ? key : make("kbd", key.replace(",", ""))]);
  dialog.replaceChildren(make("div", [close, make("h2", "Keys, and how to read the page", { id: "help-title" }),
    ...HELP.map(([title, rows]) => [make("h3", title), make("table", rows.map(([keys, what]) => make("tr", [make("td", keysOf(keys)), make("td", what)])))]),
    make("h3", "reading"),
    make("p", ["On an edge from x to y stands what it brings back: ", parsed("<mfrac><mrow><mo>∂</mo><mi>E</mi></mrow><mrow><mo>∂</mo><mi>y</mi></mrow></mfrac><mo>·</mo><mfrac><mrow><msup><mo>∂</mo><mo>+</mo></msup><mi>y</mi></mrow><mrow><mo>∂</mo><mi>x</mi></mrow></mfrac>"),
      ". ∂⁺ is the immediate derivative: it holds every other operand of that one operation fixed. ‖·‖ is the norm of an array. ⊙ multiplies element by element."])]));
  dialog.showModal();
}

// ---- choosing ----------------------------------------------------------------------------------------------------
let chosen = null, pairing = null;
function choose(n, centre = false, part = "both") {
  if (n && pairing && pairing !== n) {
    showRoutes(pairing, n);
    return;
  }
  chosen = n;
  pairing = null;
  light(null);
  remark();
  if (!n) {
    welcome();
    return;
  }
  turnTo("node");
  describe(n, part);
  if (centre) reveal(n);
}
// Put the classes of what is chosen where it can be seen: on the node, or on the lid over it.
function remark() {
  mark("chosen", chosen ? [standIn(chosen)] : []);
  if (lit) light(lit);
  paint();
}

// ---- routes ------------------------------------------------------------------------------------------------------
let lit = null; // { nodes, edges }
function light(set) {
  lit = set;
  svg.classList.toggle("routing", Boolean(set));
  mark("way", set ? [...set.edges.map((e) => e.mark), ...set.nodes.map(standIn)] : []);
}
const onRoute = (taken) => ({ edges: taken, nodes: [...new Set(taken.flatMap((e) => [e.from, e.to]))] });
const waypoints = (taken) => {
  const passed = [taken[0].to, ...taken.map((e) => e.from)], between = passed.slice(1, -1).filter((n) => n.name);
  const listed = [passed[0], ...between, passed[passed.length - 1]].map(spoken);
  return listed.length > 9 ? [...listed.slice(0, 4), "…", ...listed.slice(-4)].join(" ← ") : listed.join(" ← ");
};
// Count, sum and strongest routes of a set, as a list of elements.
function ledgerOf(routes, subject) {
  const { of, wrt, count, sum } = routes;
  const head = make("h2", parsed(`<mfrac><mrow><mo>∂</mo>${left(of)}</mrow><mrow><mo>∂</mo>${symbol(wrt, true)}</mrow></mfrac>`));
  const parts = [head, make("p", [make("b", counted(count, "route"), { "data-count": String(count) }), ` ${subject}`])];
  const whole = roots.size === 1 && roots.has(of) && wrt.gradient;
  if (sum) {
    const values = Array.from(sum), many = of.size > 1 ? ` (of the sum of all ${of.size} elements)` : "";
    parts.push(make("p", [values.length === 1 ? "They add up to " : "They add up to an array of norm ", make("b", figure(stands(values)), { "data-sum": stands(values) }), many + "."]));
    if (values.length > 1) parts.push(heat(values, wrt.shape, "sum of the routes"));
  } else if (whole && !subject.includes("through")) {
    parts.push(make("p", ["They add up to the gradient, ", wrt.size === 1 ? "" : "of norm ", make("b", figure(stands(wrt.gradient)), { "data-sum": stands(wrt.gradient) }), "."]));
  } else parts.push(make("p", "Their sum is not shown: some local derivative on the way has too many entries to carry. minigrad explain computes it.", { class: "soft" }));
  if (sum && !sum.every(Number.isFinite)) {
    return [...parts, make("p", "That is not finite, so no parts add up to it; minigrad.explain.provenance says where it came from.", { class: "soft" })];
  }
  const { listed, proven } = strongest(routes);
  if (listed.length) {
    const most = Math.max(...listed.map((r) => norm(r.contribution)), 1e-300);
    const everything = make("button", "show all of them", { type: "button", class: "link" });
    everything.addEventListener("click", () => light(routes));
    const rows = listed.map((r, k) => {
      const value = r.contribution.length === 1 ? r.contribution[0] : norm(r.contribution);
      const button = make("button", [make("span", `#${k + 1}`, { class: "rank" }), make("span", figure(value), { class: "amount", "data-value": value }),
        make("span", `${r.edges.length} edges`, { class: "soft" }), make("span", waypoints(r.edges), { class: "way" })], { type: "button" });
      button.style.setProperty("--part", (100 * norm(r.contribution)) / most + "%");
      button.classList.toggle("negative", value < 0);
      button.addEventListener("click", () => {
        light(onRoute(r.edges));
        for (const other of button.closest("ol").querySelectorAll("button")) other.classList.toggle("on", other === button);
      });
      return make("li", button);
    });
    parts.push(make("h3", [proven ? "the strongest" : "strong ones (the search ended before it could prove that there are none stronger)", " ", everything]), make("ol", rows, { class: "ways" }));
  }
  return parts;
}
function showRoutes(a, b) {
  const [of, wrt] = order(a) > order(b) ? [a, b] : [b, a];
  pairing = null;
  chosen = null;
  walkTo(way, -1, false);
  const routes = routesBetween(of, wrt);
  turnTo("routes");
  if (!routes.nodes.length) {
    const cause = between(of, wrt, () => true, () => true).nodes.length
      ? "what leads from the one to the other passes no gradient on (detached, not differentiable, or outside of what was differentiated)"
      : "neither depends on the other";
    const why = walk ? `No gradient flows from ${spoken(of)} to ${spoken(wrt)}: ${cause}.` : "Routes need a page that was made from a tape.";
    panel.routes.replaceChildren(make("h2", "no route"), make("p", why));
    light(null);
  } else {
    const whole = [...new Set(routes.nodes.filter((n) => n !== wrt && formulaOf(n)?.composed).map((n) => n.op))];
    panel.routes.replaceChildren(...ledgerOf(routes, "lead from the one to the other."),
      ...(whole.length ? [make("p", `${whole.join(" and ")} counts as one operation here; minigrad.explain.paths opens it and counts the routes inside.`, { class: "soft" })] : []));
    light(routes);
    revealAll(routes.nodes);
  }
  mark("chosen", [standIn(of), standIn(wrt)]);
  address(`routes=${of.key},${wrt.key}`);
}
function askForRoutes() {
  panel.routes.replaceChildren(make("h2", "routes"), make("p", "Choose a node, then a second one with shift-click (or with the button in its description): all routes between them are counted, added up and lit."));
}
