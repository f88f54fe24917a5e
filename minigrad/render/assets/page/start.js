// Wiring: pointers, keys, buttons, and the address the page was opened with.
function onNode(n) {
  n.mark.setAttribute("role", "button");
  n.mark.setAttribute("aria-label", spoken(n));
  const pick = (event) => {
    pause();
    const single = n.kind !== "fold";
    if (event.shiftKey && single && chosen && chosen !== n && chosen.kind !== "fold") showRoutes(chosen, n);
    else if (pairing && single) choose(n);
    else {
      walkTo(way, -1, false);
      choose(n);
      address("node=" + n.key);
    }
  };
  onPress(n.mark, pick);
  n.mark.addEventListener("focus", () => {
    if (!n.mark.matches(":focus-visible")) return;
    reveal(n);
    rove(n.mark);
  });
  n.mark.addEventListener("pointermove", (event) => {
    const said = (label, numbers, summary) => (numbers ? `${numbers.length > 1 ? "‖" + label + "‖" : label} ${figure(stands(numbers))}`
      : summary ? `‖${label}‖ ${figure(Number(summary.norm))}` : null);
    point(event, [spoken(n), n.kind === "fold" ? null : shapeOf(n), said("value", n.numbers, n.value), said("gradient", n.gradient, n.grad)]);
  });
  n.mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
// An edge says what it carries both ways.
function onEdge(e) {
  e.mark.addEventListener("pointermove", (event) => {
    const rule = parsed(localOf(e) ?? "").textContent, brings = e.contribution;
    point(event, [`${spoken(e.from)} → ${spoken(e.to)}`, rule && `∂⁺ = ${rule}`,
      brings && (brings.length > 1 ? `‖contribution‖ ${figure(norm(brings))}` : `contribution ${figure(brings[0])}`)]);
  });
  e.mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
function point(event, facts) {
  if (event.pointerType !== "touch") tell(event, facts.filter(Boolean).join(", "));
}
function tell(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + "px";
}

const turn = (to) => { if (way !== to) walkTo(to, step < 0 ? -1 : 0); };
const actions = {
  first: () => walkTo(way, 0), prev: () => walkTo(way, step - 1), next: () => walkTo(way, step + 1),
  last: () => walkTo(way, Infinity), play, fit, "zoom-in": () => zoom(1.25), "zoom-out": () => zoom(0.8),
  "fold-all": () => {
    foldAll(anyOpen());
    fit();
  },
  ask: showHelp,
};
const keys = {
  Home: "first", ArrowLeft: "prev", ArrowRight: "next", End: "last", " ": "play", 0: "fit", "+": "zoom-in", "=": "zoom-in",
  "-": "zoom-out", u: "fold-all", "?": "ask",
};
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || event.target.matches?.("select, input[type=range]")) return;
  if (event.key === " " && event.target.matches?.("button, input")) return;
  const [x, y] = (event.shiftKey && { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]) || [0, 0];
  if (x || y) {
    event.preventDefault();
    pan(x * 80, y * 80);
  } else if (event.target.closest?.("#picture") && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
    event.preventDefault();
    stepFocus(event.key === "ArrowUp" ? -1 : 1);
  } else if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    if (event.key !== " ") pause();
    actions[keys[event.key]]();
  } else if (event.key === "f" || event.key === "b") turn(event.key === "f" ? "forward" : "backward");
  else if (event.key === "Escape") {
    pause();
    walkTo(way, -1);
  }
}
// #step=f12 and #step=b3, #node=17, #routes=48,22
function follow() {
  const [what, value] = location.hash.slice(1).split("="), pair = (value ?? "").split(",").map((key) => nodes.get(key));
  if (what === "step" && /^[fb]\d+$/.test(value)) walkTo(value[0] === "b" ? "backward" : "forward", Number(value.slice(1)) - 1);
  else if (what === "node" && nodes.has(value)) {
    walkTo(way, -1, false);
    choose(nodes.get(value), true);
    address("node=" + value);
  } else if (what === "routes" && pair.length === 2 && pair[0] !== pair[1] && pair.every((n) => n && n.kind !== "fold")) showRoutes(...pair);
  else walkTo("forward", -1);
}

document.body.classList.add("live");
byId("bar").hidden = byId("panel").hidden = said.hidden = false;
svg.removeAttribute("width");
svg.removeAttribute("height");
svg.querySelectorAll("title").forEach((t) => { if (!t.id) t.remove(); }); // our own tips instead
const faces = new Map(); // mark -> who answers for it: the node it is named after, else the last one it stands for
for (const n of [...all, ...drawnFolds]) {
  if (n.mark && faces.get(n.mark)?.mark.id !== "n-" + faces.get(n.mark)?.key) faces.set(n.mark, n);
}
faces.forEach(onNode);
for (const e of edges) if (e.mark) onEdge(e);
prepareFolds();
takeHold();
byId("fold-all").hidden = !groups.length;
for (const [id, act] of Object.entries(actions)) {
  byId(id).addEventListener("click", () => {
    if (id !== "play") pause();
    act();
  });
}
for (const radio of document.querySelectorAll("input[name=way]")) radio.addEventListener("change", () => turn(radio.value));
byId("scrub").addEventListener("input", (event) => {
  pause();
  walkTo(way, Number(event.target.value) - 1);
});
byId("speed").addEventListener("change", () => {
  if (!timer) return;
  pause();
  play();
});
const tabs = Object.keys(panel).map((name) => byId("tab-" + name));
for (const [k, name] of Object.keys(panel).entries()) {
  tabs[k].addEventListener("click", () => turnTo(name));
  tabs[k].addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], there = tabs.filter((t) => !t.hidden);
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const next = there[(there.indexOf(tabs[k]) + by + there.length) % there.length];
    next.focus();
    next.click();
  });
}
if (walk?.ledgers.length) {
  byId("tab-time").hidden = false;
  showLedger(Math.max(0, walk.ledgers.findIndex((l) => /weight_hh/.test(l.wrt))));
}
askForRoutes();
// Small squares have no room for their number: it is said where one is touched.
document.querySelector("main").addEventListener("click", (event) => {
  if (event.target.matches(".heat i")) tell(event, event.target.title);
});
addEventListener("pointerdown", () => { tip.hidden = true; });
addEventListener("keydown", onKey);
addEventListener("hashchange", follow);
byId("help").addEventListener("click", (event) => { if (event.target === byId("help")) byId("help").close(); }); // beside it
open();
follow();
document.body.dataset.ready = "1";
