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
// Charts bundle: there the identities are classes.
const markOf = (key) => byId(key) ?? document.getElementsByClassName(key)[0] ?? null;
for (const n of [...data.nodes, ...data.folds]) {
  const shape = walk?.shapes[n.key] ?? n.shape ?? [];
  nodes.set(n.key, {
    ...n, shape, scope: n.scope ?? [], size: shape.reduce((a, b) => a * b, 1), into: [], out: [], mark: markOf("n-" + n.key),
    numbers: run(numbers, walk?.values[n.key]), gradient: run(numbers, walk?.gradients[n.key]), under: null,
  });
}
const keyOf = (id) => (id >= 0 ? String(id) : "fold-" + (-1 - id));
const order = (n) => (n.id >= 0 ? n.id : -1 - n.id);
const all = data.nodes.map((n) => nodes.get(n.key)).sort((a, b) => order(a) - order(b));
for (const { key, members } of data.folds) {
  for (const [first, last] of members) for (let id = first; id <= last; id++) nodes.get(String(id)).under = nodes.get(key);
}
const drawnFolds = data.folds.map((n) => nodes.get(n.key));
const edges = data.edges.map((e) => {
  const edge = {
    name: "", argument: 0, ...e, from: nodes.get(keyOf(e.source)), to: nodes.get(keyOf(e.target)),
    mark: markOf(e.key ?? ["e", e.source, e.target, e.argument ?? 0].join("-")), contribution: null, local: null, flows: false,
  };
  edge.from.out.push(edge);
  edge.to.into.push(edge);
  return edge;
});
for (const n of all) n.into.sort((a, b) => a.argument - b.argument);

for (const flow of walk?.flows ?? []) {
  const [target, argument] = flow.edge;
  const edge = nodes.get(String(target))?.into.find((e) => e.argument === argument);
  edge.flows = true;
  edge.contribution = run(numbers, flow.contribution);
  if (flow.local) {
    const [rows, columns, values] = flow.local;
    edge.local = { rows: run(places, rows), columns: run(places, columns), values: run(numbers, values) };
  }
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
