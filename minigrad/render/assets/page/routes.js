// Routes between two values: how many there are, what they add up to, and which are the strongest.
// The same reckoning as minigrad.explain.paths: the gradient runs from `of` against the edges to `wrt`.

// All that lies on some route, in falling order; `kept` says which edges are open, `passes` which carry anything at all.
function between(of, wrt, kept = () => true, passes = (e) => e.flows) {
  const taken = (e) => passes(e) && kept(e), below = new Set([of]);
  for (const n of [...all].reverse()) {
    if (below.has(n)) for (const e of n.into) if (taken(e) && n !== wrt) below.add(e.from);
  }
  const reaching = new Set([wrt]);
  for (const n of all) if (below.has(n) && n.into.some((e) => taken(e) && reaching.has(e.from))) reaching.add(n);
  if (!below.has(wrt)) return { nodes: [], edges: [] };
  const inside = [...all].reverse().filter((n) => below.has(n) && reaching.has(n));
  const ways = inside.flatMap((n) => (n === wrt ? [] : n.into.filter((e) => taken(e) && reaching.has(e.from))));
  return { nodes: inside, edges: ways };
}

// g of the operand += ∂⁺ᵀ · g of the result
function pulled(edge, g, into) {
  const { rows, columns, values } = edge.local;
  for (let i = 0; i < values.length; i++) into[columns[i]] += values[i] * g[rows[i]];
  return into;
}

// Exact count of the routes, and the sum of what they carry (null where an edge's ∂⁺ is too large to be here).
function routesBetween(of, wrt, kept) {
  const net = between(of, wrt, kept);
  const count = new Map([[of, 1n]]), carried = new Map([[of, new Float64Array(of.size).fill(1)]]);
  let known = true;
  for (const e of net.edges) {
    count.set(e.from, (count.get(e.from) ?? 0n) + count.get(e.to));
    if (!e.local) known = false;
    if (!known) continue;
    if (!carried.has(e.from)) carried.set(e.from, new Float64Array(e.from.size));
    pulled(e, carried.get(e.to), carried.get(e.from));
  }
  const found = net.nodes.length > 0;
  return { of, wrt, ...net, count: found ? count.get(wrt) ?? 0n : 0n, sum: found && known ? carried.get(wrt) : null };
}

const stands = (values) => (values.length === 1 ? values[0] : norm(values));

// Best first, with a bound that is never too small: what stands first in the list is the strongest there is.
// Gives up proving after `most` partial routes, and says so.
function strongest(routes, top = 8, most = 6000) {
  const { of, wrt, nodes: inside } = routes;
  if (routes.sum === null || !inside.length) return { listed: [], proven: false };
  const open = new Map(inside.map((n) => [n, routes.edges.filter((e) => e.to === n)]));
  const reach = new Map([[wrt, new Float64Array(wrt.size).fill(1)]]);
  for (const n of [...inside].reverse()) {
    if (n === wrt) continue;
    const best = new Float64Array(n.size);
    for (const e of open.get(n)) {
      const more = new Float64Array(n.size), below = reach.get(e.from);
      const { rows, columns, values } = e.local;
      for (let i = 0; i < values.length; i++) more[rows[i]] += Math.abs(values[i]) * below[columns[i]];
      for (let i = 0; i < more.length; i++) best[i] = Math.max(best[i], more[i]);
    }
    reach.set(n, best);
  }
  const bound = (n, g) => (n === wrt ? norm(g) : g.reduce((sum, v, i) => sum + Math.abs(v) * reach.get(n)[i], 0));
  const heap = [], start = new Float64Array(of.size).fill(1);
  push(heap, { most: bound(of, start), at: of, g: start, last: null });
  const listed = [];
  let work = 0;
  while (heap.length && listed.length < top && work < most) {
    const route = pop(heap);
    if (route.at === wrt) {
      const taken = [];
      for (let r = route; r.last; r = r.last.before) taken.push(r.last.edge);
      listed.push({ edges: taken.reverse(), contribution: route.g });
      continue;
    }
    work += 1;
    for (const e of open.get(route.at)) {
      const g = pulled(e, route.g, new Float64Array(e.from.size));
      push(heap, { most: bound(e.from, g), at: e.from, g, last: { edge: e, before: route } });
    }
  }
  return { listed, proven: listed.length === top || !heap.length };
}

function push(heap, item) {
  let k = heap.push(item) - 1;
  for (let up; k && heap[(up = (k - 1) >> 1)].most < item.most; k = up) heap[k] = heap[up];
  heap[k] = item;
}
function pop(heap) {
  const top = heap[0], item = heap.pop();
  if (!heap.length) return top;
  let k = 0;
  for (let down; (down = 2 * k + 1) < heap.length; k = down) {
    if (down + 1 < heap.length && heap[down + 1].most > heap[down].most) down += 1;
    if (heap[down].most <= item.most) break;
    heap[k] = heap[down];
  }
  heap[k] = item;
  return top;
}

// The uses of a parameter, as the time ledger counts them: edges out of the parameter, or out of what was computed
// from it before any step, into an operation of a step (or after one). Returns edge -> step, "outside" for none.
function usesOf(parameter) {
  const stepped = new Set(), prepared = new Set([parameter]), uses = new Map();
  for (const n of all) {
    if (n.kind !== "op") continue;
    const time = n.time ?? null, touched = n.into.filter((e) => prepared.has(e.from));
    const early = time === null && !n.into.some((e) => stepped.has(e.from));
    if (!early) stepped.add(n);
    if (early && touched.length) prepared.add(n);
    else for (const e of touched) uses.set(e, time ?? "outside");
  }
  return uses;
}

// The routes that one cell of the time ledger stands for: from a loss through the uses in one step.
function routesOfCell(loss, parameter, step) {
  const uses = usesOf(parameter);
  return routesBetween(loss, parameter, (e) => !uses.has(e) || uses.get(e) === step);
}
