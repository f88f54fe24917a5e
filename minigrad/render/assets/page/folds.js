// Folding in place: a lid over a step or a cell. A folded step is squeezed, and what stands to its right moves up.
const LID = 74, MARGIN = 9; // width of a folded step, and how far inside its outline wires may come
const groups = []; // { kind, label, nodes, box, squeezed, folded, lid, handle }
const inGroup = new Map(); // node -> its groups, the innermost first

// Where every mark was drawn, measured once: whatever is folded, it is the same.
const boxes = new Map();
const boxOf = (n) => boxes.get(n) ?? n.mark.getBBox();
function measure() {
  for (const n of [...all, ...drawnFolds]) if (n.mark) boxes.set(n, n.mark.getBBox());
}
function boxAround(members, margin) {
  const there = members.map(boxOf);
  const x = Math.min(...there.map((b) => b.x)) - margin, y = Math.min(...there.map((b) => b.y)) - margin;
  return {
    x, y, w: Math.max(...there.map((b) => b.x + b.width)) + margin - x,
    h: Math.max(...there.map((b) => b.y + b.height)) + margin - y,
  };
}
function middleOf(n) {
  const b = boxOf(n);
  return { x: b.x + b.width / 2, y: b.y + b.height / 2 };
}
const within = (box, p) => p.x >= box.x && p.x <= box.x + box.w && p.y >= box.y && p.y <= box.y + box.h;

function findGroups() {
  const drawnNodes = [...all, ...drawnFolds].filter((n) => n.mark);
  const centres = new Map(drawnNodes.map((n) => [n, middleOf(n)]));
  const frames = [...svg.querySelectorAll(".frames > rect")].map((rect) => {
    const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
    return { rect, box: { x, y, w, h } };
  });
  const framed = new Set(), steps = [];
  for (const frame of frames) {
    const members = drawnNodes.filter((n) => within(frame.box, centres.get(n)));
    for (const n of members) framed.add(n);
    const step = members.map((n) => n.step).find((t) => t !== undefined && t !== null);
    if (members.length < 2 || step === undefined) continue;
    const cells = new Map();
    for (const n of members) {
      const at = n.scope.findIndex((part) => part.startsWith("t="));
      if (n.kind !== "op" || at < 1) continue;
      const key = n.scope.slice(0, at + 1).join("/");
      cells.set(key, [...(cells.get(key) ?? []), n]);
    }
    for (const [key, inside] of cells) {
      if (inside.length < 3) continue;
      const label = key.split("/").slice(0, -1).join(" ") + " cell";
      const cell = addGroup({ kind: "cell", label, step, nodes: inside, box: boxAround(inside, 7), squeezed: false });
      cell.corner = cornerOf(cell);
    }
    steps.push(addGroup({ kind: "step", label: "t = " + step, step, nodes: members, box: frame.box, squeezed: true }));
  }
  // what stands above or below the frames keeps its width when a step under it is narrowed
  const outside = drawnNodes.filter((n) => !framed.has(n)).map(boxOf);
  for (const g of steps) g.knots = narrowed(g.box, outside);
}
function addGroup(group) {
  group.folded = false;
  groups.push(group);
  for (const n of group.nodes) inGroup.set(n, [...(inGroup.get(n) ?? []), group]);
  return group;
}
const foldOf = (n) => (inGroup.get(n) ?? []).findLast((g) => g.folded) ?? null;
const lidOver = (n) => foldOf(n)?.lid ?? null;

// ---- squeezing ---------------------------------------------------------------------------------------------------
// Where an x goes: pieces of a line between knots [x, how far it has moved to the left].
let knots = [];
function across(x) {
  let low = 0, high = knots.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (knots[middle][0] <= x) low = middle + 1;
    else high = middle;
  }
  if (!low) return x;
  const [from, shift] = knots[low - 1];
  if (low === knots.length) return x - shift;
  const [to, next] = knots[low];
  return x - shift - ((next - shift) * (x - from)) / (to - from);
}
// The knots of a folded step: [x, shift] from its left to its right. What stands outside of it is not made narrower.
function narrowed(box, outside) {
  const left = box.x, right = box.x + box.w, inner = [left + MARGIN, right - MARGIN];
  const wide = outside.map((b) => [Math.max(b.x - 7, inner[0]), Math.min(b.x + b.width + 7, inner[1])]).filter(([a, b]) => a < b);
  const kept = [];
  for (const [a, b] of wide.sort((p, q) => p[0] - q[0])) {
    const last = kept[kept.length - 1];
    if (last && a <= last[1]) last[1] = Math.max(last[1], b);
    else kept.push([a, b]);
  }
  const fixed = kept.reduce((sum, [a, b]) => sum + b - a, 0), loose = inner[1] - inner[0] - fixed;
  const room = Math.min(Math.max(LID - 2 * MARGIN - fixed, 12), loose), found = [[left, 0], [inner[0], 0]];
  const shed = loose > 0 ? 1 - room / loose : 0; // how much of a loose piece goes
  let at = inner[0], shift = 0;
  for (const [a, b] of [...kept, [inner[1], inner[1]]]) {
    shift += (a - at) * shed;
    found.push([a, shift]);
    if (b > a) found.push([b, shift]);
    at = b;
  }
  return [...found, [right, shift]];
}
// How many numbers a path's letter takes, and which of them are x.
const NUMBERS_OF = { M: [2, 0], L: [2, 0], H: [1, 0], V: [1], Q: [4, 0, 2], C: [6, 0, 2, 4], A: [7, 5], Z: [1] };
const numbersIn = (text) => (text.match(/-?\d*\.?\d+/g) ?? []).map(Number);
const pieces = new WeakMap(); // path -> its letters with their numbers, as they were drawn
function squeezed(path) {
  if (!pieces.has(path)) {
    pieces.set(path, [...kept(path, "d").matchAll(/([A-Z])([^A-Z]*)/g)].map(([, letter, rest]) => [letter, numbersIn(rest)]));
  }
  return pieces.get(path).map(([letter, values]) => {
    const [size, ...xs] = NUMBERS_OF[letter];
    return letter + values.map((v, k) => (xs.includes(k % size) ? across(v).toFixed(1) : v)).join(" ");
  }).join("");
}
const original = new WeakMap(); // element -> its attributes as they were drawn
function kept(element, name) {
  const own = original.get(element) ?? {};
  if (!(name in own)) own[name] = element.getAttribute(name);
  original.set(element, own);
  return own[name];
}

// Put everything where it stands with the steps that are folded now.
function arrange() {
  const before = String(knots);
  knots = [];
  let shift = 0;
  for (const g of groups.filter((g) => g.folded && g.squeezed).sort((a, b) => a.box.x - b.box.x)) {
    for (const [x, own] of g.knots) knots.push([x, shift + own]);
    shift = knots[knots.length - 1][1];
  }
  if (String(knots) !== before) move();
  const folded = groups.filter((g) => g.folded);
  const covered = (x, y) => folded.some((g) => within({ ...g.box, y: g.box.y + 24, h: g.box.h - 24 }, { x, y }));
  for (const text of svg.querySelectorAll(".words > text, .words > rect")) {
    const x = Number(kept(text, "x")), y = Number(kept(text, "y"));
    if (y >= band.top && y <= band.bottom) text.classList.toggle("away", covered(x, y));
  }
  for (const n of [...all, ...drawnFolds]) {
    if (!n.mark) continue;
    const fold = foldOf(n);
    n.mark.classList.toggle("away", Boolean(fold));
  }
  for (const e of edges) {
    if (!e.mark) continue;
    const a = foldOf(e.from), b = foldOf(e.to);
    e.mark.classList.toggle("away", Boolean(a && a === b));
    e.mark.classList.toggle("under", Boolean(b && a !== b));
  }
  for (const g of groups) cover(g);
  rove();
  byId("fold-all").textContent = anyOpen() ? "fold" : "unfold";
}
function move() {
  full.w = across(fullWidth);
  const put = (element, name, x) => {
    const as = kept(element, name); // nothing folded: to the letter as it was drawn
    element.setAttribute(name, knots.length || as === null ? x.toFixed(1) : as);
  };
  for (const path of svg.querySelectorAll(".edges path, .rails path")) path.setAttribute("d", knots.length ? squeezed(path) : kept(path, "d"));
  for (const dot of svg.querySelectorAll(".dots circle")) put(dot, "cx", across(Number(kept(dot, "cx"))));
  for (const dot of svg.querySelectorAll(".dots rect")) put(dot, "x", across(Number(kept(dot, "x")) + 4) - 4);
  for (const rect of svg.querySelectorAll(".frames > rect, rect.paper")) {
    const x = Number(kept(rect, "x") ?? 0), w = Number(kept(rect, "width"));
    put(rect, "x", across(x));
    put(rect, "width", across(x + w) - across(x));
  }
  let edge = 0, narrow = false, title = null;
  for (const part of svg.querySelectorAll(".frames > *")) {
    if (part.localName === "rect") {
      edge = Number(kept(part, "x"));
      narrow = groups.some((g) => g.folded && g.squeezed && g.box.x === edge);
      title = null;
      continue;
    }
    title ??= part; // what else is written into a frame has no room in a narrow one
    part.classList.toggle("away", narrow && part !== title);
    moveBy(part, across(edge) - edge);
  }
  for (const text of svg.querySelectorAll(".words > text, .words > rect")) {
    const x = Number(kept(text, "x")), y = Number(kept(text, "y"));
    if (y >= band.top && y <= band.bottom) moveBy(text, across(x) - x); // the title and the legend stay
  }
  for (const n of [...all, ...drawnFolds]) {
    if (!n.mark) continue;
    const c = middleOf(n);
    moveBy(n.mark, across(c.x) - c.x);
  }
}
const anyOpen = () => groups.some((g) => g.kind === "step" && !g.folded);
function moveBy(element, shift) {
  element.style.translate = Math.abs(shift) > 0.05 ? shift.toFixed(1) + "px 0" : "";
}

// ---- lids and handles --------------------------------------------------------------------------------------------
const lids = drawn("g", { class: "lids" }), handles = drawn("g", { class: "handles" });
function cover(g) {
  const outer = g.kind === "cell" && (inGroup.get(g.nodes[0]) ?? []).some((other) => other.kind === "step" && other.folded);
  const left = across(g.box.x), right = across(g.box.x + g.box.w), w = right - left, stands = String([outer, g.folded, left, right]);
  if (g.stands === stands) return;
  g.stands = stands;
  g.lid?.remove();
  g.handle?.remove();
  if (outer) return;
  const counts = g.nodes.filter((n) => n.kind === "op").length;
  if (g.folded) {
    const top = g.kind === "step" ? g.box.y + 24 : g.box.y, h = g.box.y + g.box.h - top - (g.kind === "step" ? 6 : 0);
    const inset = g.kind === "step" ? 6 : 0, x = left + inset, middle = { x: left + w / 2, y: top + h / 2 };
    const turn = g.kind === "step" ? `rotate(-90 ${middle.x.toFixed(1)} ${middle.y.toFixed(1)})` : "";
    const words = drawn("text", { x: middle.x.toFixed(1), y: (middle.y + 5).toFixed(1), "text-anchor": "middle", transform: turn },
      `${g.label}: ${counts} operations`);
    g.lid = drawn("g", { class: "n lid", role: "button", "aria-label": `${g.label}, ${counts} operations, folded: unfold` }, [
      drawn("rect", { class: "b", x: x.toFixed(1), y: top.toFixed(1), width: (w - 2 * inset).toFixed(1), height: h.toFixed(1), rx: 8 }), words]);
    onPress(g.lid, () => fold(g, false));
    lids.append(g.lid);
  } else g.lid = null;
  const [x, y] = g.kind === "step" ? [right - 22, g.box.y + 5] : [left + g.corner[0], g.corner[1]];
  const verb = g.folded ? "unfold" : "fold";
  const reach = drawn("rect", { class: "reach", x: (left - x).toFixed(1), y: (g.box.y - y).toFixed(1), width: w.toFixed(1), height: g.box.h, rx: 8 });
  g.handle = drawn("g", { class: "handle", role: "button", "aria-label": `${verb} ${g.label}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` }, [
    drawn("title", {}, `${verb} ${g.label}${g.kind === "step" && !g.folded ? " (u: all steps)" : ""}`),
    reach,
    drawn("rect", { width: 16, height: 16, rx: 4 }),
    drawn("path", { d: g.folded ? "M4 8h8M8 4v8" : "M4 8h8" })]);
  onPress(g.handle, () => fold(g, !g.folded));
  handles.append(g.handle);
}
// A corner of a cell where the handle covers no node: how far from its left, and at which height.
function cornerOf({ box }) {
  const there = [...boxes.values()], { x: left, y: top, w } = box, low = top + box.h - 20;
  const free = (x, y) => !there.some((b) => left + x + 20 > b.x && left + x < b.x + b.width + 4 && y + 20 > b.y && y < b.y + b.height + 4);
  return [[w - 22, top + 4], [4, top + 4], [w - 22, low], [4, low]].find(([x, y]) => free(x, y)) ?? [w - 8, top - 8];
}
function onPress(element, act) {
  element.addEventListener("click", (event) => { if (moved < 6) act(event); });
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    act(event);
  });
}
function fold(group, folded) {
  group.folded = folded;
  arrange();
  settle();
  remark();
}
function foldAll(folded) {
  for (const g of groups) g.folded = folded && g.kind === "step";
  arrange();
  settle();
  remark();
}
const fullWidth = full.w, band = { top: 0, bottom: 0 }; // from the top of the frames to their bottom
function prepareFolds() {
  measure();
  if (data.foldable) findGroups();
  band.top = Math.min(...groups.map((g) => g.box.y));
  band.bottom = Math.max(...groups.map((g) => g.box.y + g.box.h));
  svg.querySelector(".nodes").before(lids);
  svg.append(handles);
  for (const g of groups) if (g.kind === "step" && data.folded.includes(g.step)) g.folded = true;
  arrange();
}
