// The data of the page: nodes and edges with their marks in the picture, and the numbers of the walk.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const walk = data.walk;

function unpacked(text, type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new type(bytes.buffer);
}
const numbers = walk && unpacked(walk.numbers, walk.dtype === "float32" ? Float32Array : Float64Array);
const places = walk && unpacked(walk.places, Uint32Array);
const run = (pool, place) => (place ? pool.subarray(place[0], place[0] + place[1]) : null);

// Everything that was computed, by key: the id on the tape, or "fold-17". A mark is what the picture shows of it.
const nodes = new Map();
// The picture's marks by identity: an id, or, where charts bundle, a class.
const marks = new Map();
const drawing = document.querySelector("#picture svg.mg");
for (const element of drawing.querySelectorAll("[id]")) marks.set(element.id, element);
for (const element of drawing.querySelectorAll(".n, .e")) for (const name of element.classList) if (/^[ne]-/.test(name) && !marks.has(name)) marks.set(name, element);
const keyOf = (id) => (id >= 0 ? String(id) : "fold-" + (-1 - id));
// What a picture needs to know of an array; norms without overflow.
function extentOf(values) {
  let [min, max, sum, most] = [Infinity, -Infinity, 0, 0];
  for (const v of values) {
    [min, max, most] = [Math.min(min, v), Math.max(max, v), Math.max(most, Math.abs(v))];
    sum += v;
  }
  return { min, max, mean: sum / values.length, norm: norm(values) };
}
function norm(values) {
  let most = 0, sum = 0;
  for (const v of values) most = Math.max(most, Math.abs(v));
  if (!most || !Number.isFinite(most)) return most;
  for (const v of values) sum += (v / most) ** 2;
  return most * Math.sqrt(sum);
}
for (const n of [...data.nodes, ...data.folds]) {
  const key = keyOf(n.id), shape = walk?.shapes[key] ?? n.shape ?? [], scope = data.scopes[n.scope] ?? [];
  nodes.set(key, {
    ...n, key, shape, scope, size: shape.reduce((a, b) => a * b, 1), into: [], out: [], mark: marks.get("n-" + key) ?? null,
    numbers: run(numbers, walk?.values[key]), gradient: run(numbers, walk?.gradients[key]), under: null,
  });
}
const order = (n) => (n.id >= 0 ? n.id : -1 - n.id);
const all = data.nodes.map((n) => nodes.get(keyOf(n.id))).sort((a, b) => order(a) - order(b));
const drawnFolds = data.folds.map((n) => nodes.get(keyOf(n.id)));
for (const fold of drawnFolds) {
  for (const [first, last] of fold.members) for (let id = first; id <= last; id++) nodes.get(String(id)).under = fold;
}
const edges = data.edges.map(([source, target, argument, name, key = ["e", source, target, argument].join("-")]) => {
  const edge = {
    key, name, argument, from: nodes.get(keyOf(source)), to: nodes.get(keyOf(target)), mark: marks.get(key) ?? null,
    contribution: null, local: null, flows: false,
  };
  edge.from.out.push(edge);
  edge.to.into.push(edge);
  return edge;
});
for (const n of all) n.into.sort((a, b) => a.argument - b.argument);

for (const flow of walk?.flows ?? []) {
  const [target, argument, contribution, rows, columns, values, count] = flow;
  const edge = nodes.get(String(target)).into.find((e) => e.argument === argument);
  edge.flows = true;
  if (contribution !== null) edge.contribution = run(numbers, [contribution, edge.from.size]);
  if (count !== undefined) edge.local = { rows: run(places, [rows, count]), columns: run(places, [columns, count]), values: run(numbers, [values, count]) };
}
const roots = new Set((walk?.roots ?? []).map((id) => nodes.get(String(id))).filter(Boolean));
const losses = (walk?.losses ?? []).map((id) => nodes.get(String(id))).filter(Boolean);
const formulaOf = (n) => walk?.formulas[n.op] ?? null;

function make(tag, content = null, attributes = {}) {
  const element = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) if (v !== null) element.setAttribute(k, v);
  for (const part of [content].flat(Infinity)) if (part !== null && part !== undefined) element.append(part);
  return element;
}
function drawn(tag, attributes = {}, content = []) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
  element.append(...[content].flat());
  return element;
}
