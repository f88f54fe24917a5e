(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const picture = byId("picture"), svg = picture.querySelector("svg"), panel = byId("panel"), tip = byId("tip");

  // ---- the graph -----------------------------------------------------------------------------------------------
  const keyOf = (id) => (id >= 0 ? String(id) : "fold-" + (-1 - id));
  const nodes = new Map();
  for (const n of data.nodes) {
    const key = keyOf(n.id);
    nodes.set(key, { ...n, key, label: data.labels[key], into: [], out: [], mark: byId("n-" + key) });
  }
  data.edges.forEach((e, k) => {
    const edge = { argument: 0, ...e, from: nodes.get(keyOf(e.source)), to: nodes.get(keyOf(e.target)) };
    edge.mark = byId(data.edgeKeys[k]);
    edge.from.out.push(edge);
    edge.to.into.push(edge);
  });
  const all = [...nodes.values()];
  const subscripts = "₀₁₂₃₄₅₆₇₈₉";
  const pretty = (name) => name && name.replace(/^([A-Za-z]+)[[_]?(\d+)\]?$/,
    (_, stem, index) => stem + [...index].map((d) => subscripts[d]).join(""));
  const called = (n) => (n.name && n.kind === "op" ? pretty(n.name) + " = " + n.label : pretty(n.name) || n.label);

  // ---- zoom and pan --------------------------------------------------------------------------------------------
  const whole = svg.viewBox.baseVal;
  const full = { x: whole.x, y: whole.y, w: whole.width, h: whole.height };
  let box = { ...full };
  const show = () => svg.setAttribute("viewBox", [box.x, box.y, box.w, box.h].join(" "));
  const perPixel = () => 1 / svg.getScreenCTM().a;
  function at(event) {
    const m = svg.getScreenCTM();
    return { x: (event.clientX - m.e) / m.a, y: (event.clientY - m.f) / m.d };
  }
  function zoom(factor, p = { x: box.x + box.w / 2, y: box.y + box.h / 2 }) {
    const f = Math.min(Math.max(factor, 40 / box.w), (8 * full.w) / box.w);
    box = { x: p.x - (p.x - box.x) * f, y: p.y - (p.y - box.y) * f, w: box.w * f, h: box.h * f };
    show();
  }
  function fit() { box = { ...full }; show(); }
  function reveal(n) {
    if (!n.mark) return;
    const b = n.mark.getBBox(), x = b.x + b.width / 2, y = b.y + b.height / 2;
    if (x < box.x || x > box.x + box.w || y < box.y || y > box.y + box.h) {
      box.x = x - box.w / 2;
      box.y = y - box.h / 2;
      show();
    }
  }
  const fingers = new Map();
  let moved = 0;
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.0015), at(event));
  }, { passive: false });
  picture.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    moved = 0;
  });
  addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    moved += Math.abs(dx) + Math.abs(dy);
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
      const gap = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
      zoom(gap(before) / gap(event), at(other));
    } else {
      const s = perPixel();
      box.x -= dx * s;
      box.y -= dy * s;
      show();
    }
    fingers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => fingers.delete(event.pointerId));

  // ---- the panel -----------------------------------------------------------------------------------------------
  const make = (tag, content, attributes = {}) => {
    const element = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
    for (const part of [content].flat()) if (part !== null && part !== undefined) element.append(part);
    return element;
  };
  const figure = (v) => (typeof v === "number" ? Number(v.toPrecision(5)).toString().replace("-", "−") : String(v));
  const shape = (n) => (n.shape && n.shape.length ? "(" + n.shape.join(", ") + ")" : "scalar");
  // blue to orange, which every kind of colour sight tells apart
  const heatColour = (v, most) => {
    if (!Number.isFinite(v)) return "#d0d";
    const part = most ? Math.min(Math.abs(v) / most, 1) : 0, [r, g, b] = v < 0 ? [33, 102, 172] : [224, 130, 20];
    return "rgb(" + [r, g, b].map((c) => Math.round(247 + (c - 247) * part)).join(",") + ")";
  };
  function numbers(title, summary, n) {
    if (!summary) return [];
    const parts = [make("h3", title)];
    const values = summary.numbers && summary.numbers.map(Number);
    if (values && values.length === 1) return [...parts, make("div", figure(values[0]))];
    if (values && values.length) {
      const columns = n.shape[n.shape.length - 1], most = Math.max(...values.filter(Number.isFinite).map(Math.abs), 0);
      const cells = values.map((v) => {
        const cell = make("i", null, { title: figure(v) });
        cell.style.background = heatColour(v, most);
        return cell;
      });
      const grid = make("div", cells, { class: "heat", role: "img", "aria-label": values.map(figure).join(", ") });
      grid.style.gridTemplateColumns = "repeat(" + columns + ", 18px)";
      parts.push(grid);
    }
    const said = ["min", "max", "mean", "norm"].map((k) => k + " " + figure(summary[k])).join(", ");
    return [...parts, make("div", said)];
  }
  function link(n) {
    const button = make("button", called(n), { type: "button" });
    button.addEventListener("click", () => choose(n, true));
    return button;
  }
  const local = (e) => (e.local ? make("code", "  ∂⁺ = " + e.local) : null);
  function describe(n) {
    const facts = [["operation", n.op]];
    if (n.scope) facts.push(["scope", n.scope.join(" / ")]);
    if (n.equation) facts.push(["equation", n.equation]);
    for (const [k, v] of Object.entries(n.params || {})) facts.push([k, JSON.stringify(v)]);
    if (n.kind !== "fold") facts.push(["shape", shape(n)], ["type", n.dtype]);
    if (n.members) facts.push(["folded", n.members.reduce((s, [a, b]) => s + b - a + 1, 0) + " operations"]);
    panel.replaceChildren(
      make("h2", called(n)),
      make("dl", facts.flatMap(([k, v]) => [make("dt", k), make("dd", v)])),
      ...numbers("value", n.value, n),
      ...numbers("gradient", n.grad, n),
      ...(n.into.length ? [make("h3", "reads"), make("ul", n.into.map((e) =>
        make("li", [e.name ? e.name + ": " : null, link(e.from), local(e)])))] : []),
      ...(n.out.length ? [make("h3", "is read by, with the local derivative"), make("ul", n.out.map((e) =>
        make("li", [link(e.to), e.name ? " as " + e.name : null, local(e)])))] : []),
    );
    panel.hidden = false;
  }
  let chosen = null;
  function choose(n, centre = false) {
    for (const e of chosen ? [...chosen.into, ...chosen.out] : []) e.mark?.classList.remove("near");
    chosen?.mark?.classList.remove("chosen");
    chosen = n;
    if (!n) {
      panel.hidden = true;
      return;
    }
    n.mark?.classList.add("chosen");
    for (const e of [...n.into, ...n.out]) e.mark?.classList.add("near");
    describe(n);
    if (centre) reveal(n);
  }

  // ---- walking -------------------------------------------------------------------------------------------------
  const ops = all.filter((n) => n.kind === "op" || n.kind === "fold").sort((a, b) => order(a) - order(b));
  function order(n) { return n.id >= 0 ? n.id : -1 - n.id; }
  const back = [...ops].reverse().filter((n) => n.requires_grad)
    .concat(all.filter((n) => n.kind === "parameter" || (n.kind === "input" && n.requires_grad)));
  let way = "forward", step = -1;
  const list = () => (way === "forward" ? ops : back);
  function walk(to) {
    const steps = list();
    step = Math.max(-1, Math.min(to, steps.length - 1));
    document.body.classList.toggle("walking", step >= 0);
    document.body.classList.toggle("back", way === "backward");
    const lit = new Set(steps.slice(0, step + 1));
    if (way === "forward") for (const n of all) if (n.kind !== "op" && n.kind !== "fold") lit.add(n);
    for (const n of all) {
      n.mark?.classList.toggle("lit", lit.has(n));
      n.mark?.classList.toggle("now", n === steps[step]);
      for (const e of n.into) e.mark?.classList.toggle("lit", lit.has(way === "forward" ? e.to : e.from) && lit.has(
        way === "forward" ? e.from : e.to));
    }
    byId("where").textContent = way + " " + (step + 1) + "/" + steps.length;
    if (step >= 0) choose(steps[step], true);
    const mark = step < 0 ? "" : "#step=" + (way === "forward" ? "f" : "b") + (step + 1);
    if (location.hash !== mark) history.replaceState(null, "", mark || location.pathname + location.search);
  }
  function turn(to) {
    way = to;
    for (const radio of document.querySelectorAll("input[name=way]")) radio.checked = radio.value === to;
    walk(-1);
  }

  // ---- wiring --------------------------------------------------------------------------------------------------
  for (const n of all) {
    if (!n.mark) continue;
    n.mark.setAttribute("tabindex", "0");
    n.mark.setAttribute("role", "button");
    n.mark.addEventListener("click", () => { if (moved < 6) choose(n); });
    n.mark.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(n); });
    n.mark.addEventListener("pointermove", (event) => {
      tip.textContent = [called(n), n.kind === "fold" ? null : shape(n), n.value && "‖value‖ " + figure(n.value.norm),
        n.grad && "‖gradient‖ " + figure(n.grad.norm)].filter(Boolean).join(", ");
      tip.style.left = Math.min(event.clientX + 14, innerWidth - 330) + "px";
      tip.style.top = event.clientY + 16 + "px";
      tip.hidden = false;
    });
    n.mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  const actions = {
    first: () => walk(0), prev: () => walk(step - 1), next: () => walk(step + 1), last: () => walk(Infinity),
    fit, "zoom-in": () => zoom(0.8), "zoom-out": () => zoom(1.25),
  };
  for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
  for (const radio of document.querySelectorAll("input[name=way]")) {
    radio.addEventListener("change", () => turn(radio.value));
  }
  const keys = {
    Home: actions.first, ArrowLeft: actions.prev, ArrowRight: actions.next, End: actions.last, 0: fit,
    "+": actions["zoom-in"], "-": actions["zoom-out"], f: () => turn("forward"), b: () => turn("backward"),
    Escape: () => { choose(null); walk(-1); },
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input")) return;
    if (Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  document.body.classList.add("live");
  byId("bar").hidden = false;
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  svg.querySelectorAll(".n > title").forEach((t) => t.remove()); // our own tips instead of the browser's
  const opened = /^#step=([fb])(\d+)$/.exec(location.hash);
  if (opened) {
    turn(opened[1] === "b" ? "backward" : "forward");
    walk(Number(opened[2]) - 1);
  } else walk(-1);
})();
