// The picture: zoom, pan, marks on nodes and edges, numbers beside edges. One pixel of the drawing is `scale` on screen.
const picture = byId("picture"), svg = picture.querySelector("svg.mg"), tip = byId("tip");
for (const name of ["on", "back"]) { // arrow heads of what is computed now, and of gradients: these go against the edges
  svg.append(drawn("marker", { id: "a-" + name, viewBox: "0 0 10 8", refX: 9.5, refY: 4, markerWidth: 10, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" },
    drawn("path", { d: "M0 .6L10 4L0 7.4Z" })));
}
const full = { w: svg.viewBox.baseVal.width, h: svg.viewBox.baseVal.height };
const sight = { x: 0, y: 0, scale: 1 };
const READABLE = 11; // pixels of the screen, for what an operation is called

// How large the window on the drawing is: asked of the browser when it changes, for each question would make it lay out the page.
let roomNow = null;
const room = () => (roomNow ??= { w: Math.max(picture.clientWidth, 50), h: Math.max(picture.clientHeight, 50) });
let onPaper = false;
function show() {
  const { w, h } = room(), view = onPaper ? [0, 0, full.w, full.h] : [sight.x, sight.y, w / sight.scale, h / sight.scale];
  svg.setAttribute("viewBox", view.map((v) => v.toFixed(2)).join(" "));
}
// Keep some of the drawing in sight; what is smaller than the window stands in its middle.
function settle() {
  const { w, h } = room();
  for (const [axis, size, have] of [["x", full.w, w / sight.scale], ["y", full.h, h / sight.scale]]) {
    if (size <= have) sight[axis] = (size - have) / 2;
    else sight[axis] = Math.min(Math.max(sight[axis], -0.25 * have), size - 0.75 * have);
  }
  show();
}
function pointAt(clientX, clientY) {
  const frame = picture.getBoundingClientRect();
  return { x: sight.x + (clientX - frame.left) / sight.scale, y: sight.y + (clientY - frame.top) / sight.scale };
}
let scaleBefore = null; // what revealAll took away; given back where a single node is looked at next
function zoom(factor, at) {
  scaleBefore = null;
  const { w, h } = room(), p = at ?? { x: sight.x + w / 2 / sight.scale, y: sight.y + h / 2 / sight.scale };
  const smallest = Math.min(w / full.w, h / full.h, 1) * 0.8, scale = Math.min(Math.max(sight.scale * factor, smallest), 6);
  sight.x = p.x - ((p.x - sight.x) * sight.scale) / scale;
  sight.y = p.y - ((p.y - sight.y) * sight.scale) / scale;
  sight.scale = scale;
  settle();
}
function fit() {
  scaleBefore = null;
  const { w, h } = room();
  sight.scale = Math.min(w / full.w, h / full.h, 2);
  settle();
}
// Everything if that can be read, else the first step, from where its computation begins, at a size that can be read.
function open() {
  const { w, h } = room(), begin = forward.find((n) => n.step !== undefined && n.tap === undefined) ?? forward[0];
  const words = begin && standIn(begin).querySelector("text"), size = words ? parseFloat(getComputedStyle(words).fontSize) : READABLE;
  const whole = Math.min(w / full.w, h / full.h), readable = Math.min(READABLE / size, 1.5);
  sight.scale = whole >= readable ? Math.min(whole, 1.5) : Math.max(readable, Math.min(1, h / full.h));
  const frame = groups.find((g) => g.kind === "step")?.box, seen = { w: w / sight.scale, h: h / sight.scale };
  sight.x = frame ? frame.x - (frame.w + 90 < seen.w ? 90 : 12) : 0;
  if (full.h > seen.h) sight.y = frame ? (frame.h + 28 < seen.h ? frame.y - 14 : frame.y + frame.h + 14 - seen.h) : 0;
  settle();
  if (begin) reveal(begin);
}
// Where a node is now: under its lid, or where the folds to its left have moved it.
function placeOf(n) {
  const lid = (lidOver(n) ?? (n.mark ? null : standIn(n)))?.getBBox();
  if (lid) return { x: lid.x + lid.width / 2, y: lid.y + lid.height / 2 };
  const p = middleOf(n);
  return { x: across(p.x), y: p.y };
}
// Move by pixels of the screen.
function pan(right, down) {
  sight.x += right / sight.scale;
  sight.y += down / sight.scale;
  settle();
}
// Bring a node into sight, with a margin, and without moving more than that takes.
function reveal(n) {
  if (!standIn(n)) return;
  sight.scale = scaleBefore ?? sight.scale;
  scaleBefore = null;
  const c = placeOf(n), { w, h } = room(), margin = Math.min(90 / sight.scale, w / sight.scale / 4, h / sight.scale / 4);
  const into = (low, have, at) => (at < low + margin || at > low + have - margin ? at - have / 2 : low);
  const inside = (low, have, size) => (size > have ? Math.min(Math.max(low, 0), size - have) : low);
  sight.x = inside(into(sight.x, w / sight.scale, c.x), w / sight.scale, full.w);
  sight.y = inside(into(sight.y, h / sight.scale, c.y), h / sight.scale, full.h);
  settle();
}

// Bring a set of nodes into sight, as large as it fits without becoming unreadable.
function revealAll(set) {
  const places = set.filter(standIn).map(placeOf), { w, h } = room();
  if (!places.length) return;
  const [left, right] = [Math.min(...places.map((p) => p.x)) - 60, Math.max(...places.map((p) => p.x)) + 60];
  const [top, bottom] = [Math.min(...places.map((p) => p.y)) - 50, Math.max(...places.map((p) => p.y)) + 50];
  scaleBefore ??= sight.scale;
  sight.scale = Math.min(sight.scale, Math.max(Math.min(w / (right - left), h / (bottom - top)), 0.35));
  sight.x = (left + right - w / sight.scale) / 2;
  sight.y = (top + bottom - h / sight.scale) / 2;
  settle();
}

// ---- fingers, mouse and wheel ------------------------------------------------------------------------------------
const fingers = new Map();
let moved = 0;
function takeHold() {
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) pan(event.deltaY || event.deltaX, 0);
    else zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.008 : 0.0015)), pointAt(event.clientX, event.clientY));
  }, { passive: false });
  picture.addEventListener("pointerdown", (event) => {
    if (!fingers.size) moved = 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  addEventListener("pointermove", (event) => {
    const was = fingers.get(event.pointerId);
    if (!was) return;
    const now = { x: event.clientX, y: event.clientY }, other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    moved += Math.hypot(now.x - was.x, now.y - was.y);
    fingers.set(event.pointerId, now);
    if (moved < 5) return;
    sight.x -= (now.x - was.x) / sight.scale / (other ? 2 : 1);
    sight.y -= (now.y - was.y) / sight.scale / (other ? 2 : 1);
    if (other) {
      const apart = (p) => Math.hypot(p.x - other.x, p.y - other.y);
      zoom(apart(now) / Math.max(apart(was), 1), pointAt((now.x + other.x) / 2, (now.y + other.y) / 2));
    } else settle();
    tip.hidden = true;
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => fingers.delete(event.pointerId));
  new ResizeObserver(() => {
    roomNow = null;
    if (!onPaper) settle();
  }).observe(picture);
  // on paper everything stands, whatever is in sight on the screen
  addEventListener("beforeprint", () => {
    onPaper = true;
    show();
  });
  addEventListener("afterprint", () => {
    onPaper = false;
    roomNow = null;
    show();
  });
}

// ---- marks -------------------------------------------------------------------------------------------------------
const marked = new Map(); // class -> elements
function mark(name, elements) {
  const before = marked.get(name), set = new Set([...elements].filter(Boolean));
  for (const element of before ?? []) if (!set.has(element)) element.classList.remove(name);
  for (const element of set) if (!before?.has(element)) element.classList.add(name);
  marked.set(name, set);
}
// What stands for a node in the picture: its own mark, the lid that hides it, or the fold that was drawn for it.
const standIn = (n) => lidOver(n) ?? n.mark ?? n.under?.mark ?? null;

// One stop for the tabulator in the graph: from there ↑ and ↓ go from mark to mark, in the order of computation.
let focus = null;
const stops = () => [...svg.querySelectorAll(".nodes > .n[role], .lids > .n, .handles > .handle")].filter((e) => !e.classList.contains("away"));
function rove(to = focus) {
  const all = stops();
  focus = all.includes(to) ? to : all[0] ?? null;
  for (const stop of all) stop.setAttribute("tabindex", stop === focus ? 0 : -1);
  return all;
}
function stepFocus(by) {
  const all = rove(document.activeElement), next = all[all.indexOf(focus) + by];
  if (!next) return;
  rove(next);
  next.focus();
}

// Numbers beside edges: [[edge, text, shorter text], …], where they cover neither a node nor each other, if there is such a place.
let badges = null;
// An edge as it is drawn now: the corners of its path, reckoned here, for the browser would lay out the page to tell.
function cornersOf(path) {
  const found = [];
  for (const [, letter, rest] of path.getAttribute("d").matchAll(/([A-Z])([^A-Z]*)/g)) {
    const v = numbersIn(rest), [x, y] = found[found.length - 1] ?? [0, 0];
    if (letter === "H") for (const to of v) found.push([to, y]);
    else if (letter === "V") for (const to of v) found.push([x, to]);
    else if (letter === "Q") found.push([(x + 2 * v[0] + v[2]) / 4, (y + 2 * v[1] + v[3]) / 4], [v[2], v[3]]);
    else if (letter === "C") found.push([(x + 3 * v[0] + 3 * v[2] + v[4]) / 8, (y + 3 * v[1] + 3 * v[3] + v[5]) / 8], [v[4], v[5]]);
    else if (letter === "A") found.push([v[5], v[6]]);
    else for (let k = 0; k + 1 < v.length; k += 2) found.push([v[k], v[k + 1]]);
  }
  return found;
}
// The length of an edge, and the points at some parts of it.
function pointsOf(path, parts) {
  const corners = cornersOf(path), lengths = corners.slice(1).map(([x, y], k) => Math.hypot(x - corners[k][0], y - corners[k][1]));
  const length = lengths.reduce((a, b) => a + b, 0);
  const points = (typeof parts === "function" ? parts(length) : parts).map((part) => {
    let left = part * length, k = 0;
    while (k < lengths.length - 1 && left > lengths[k]) left -= lengths[k++];
    const [[ax, ay], [bx, by]] = [corners[k], corners[k + 1] ?? corners[k]], f = lengths[k] ? left / lengths[k] : 0;
    return { x: ax + f * (bx - ax), y: ay + f * (by - ay) };
  });
  return { length, points };
}
function every8(length) {
  const count = Math.min(Math.ceil(length / 8), 60);
  return Array.from({ length: count }, (_, k) => (k + 0.5) / count);
}
const PLACES = [0.5, 0.38, 0.62, 0.26, 0.74]; // along an edge
function note(list) {
  badges?.remove();
  badges = drawn("g", { class: "badges", "aria-hidden": "true" });
  const taken = list.length ? [...boxes].filter(([n]) => !n.mark.classList.contains("away")).map(([, b]) => ({ x: across(b.x + b.width / 2) - b.width / 2, y: b.y, w: b.width, h: b.height })) : [];
  for (const [edge, ...texts] of list) {
    const path = edge.mark;
    if (!path || path.classList.contains("away")) continue;
    const { length, points } = pointsOf(path, PLACES);
    const tried = texts.flatMap((text) => {
      const w = 7.2 * text.length, at = (left) => points.map(({ x, y }) => ({ text, x: x + left, y: y - 7, w, h: 14 }));
      return [...(length < 60 ? [] : at(-w / 2)), ...at(9), ...at(-9 - w)]; // there is no room on a short edge
    });
    const others = list.filter(([e]) => e !== edge && e.mark).flatMap(([e]) => pointsOf(e.mark, every8).points);
    const free = (a) => !others.some((p) => p.x > a.x - 4 && p.x < a.x + a.w + 4 && p.y > a.y && p.y < a.y + a.h) && !taken.some((b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h);
    const place = tried.find(free) ?? tried[0];
    taken.push(place);
    badges.append(drawn("text", { x: (place.x + place.w / 2).toFixed(1), y: (place.y + 11).toFixed(1) }, place.text));
  }
  svg.append(badges);
}
