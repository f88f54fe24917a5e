// The walk: forward node by node, backward in the order in which gradients are complete.
// A chart of one step shows a part of what was recorded: the walk goes through that part.
const forward = all.filter((n) => (n.kind === "op" || n.kind === "fold") && standIn(n));
const backward = walk
  ? walk.backward.map((id) => nodes.get(String(id))).filter(standIn)
  : [...forward].reverse().filter((n) => n.requires_grad);
let way = "forward", step = -1, timer = null;
const steps = () => (way === "forward" ? forward : backward);

// The address follows, but not faster than browsers allow: they count, and refuse.
let wanted = null, waiting = null;
function address(text) {
  document.body.dataset.at = text;
  if (location.protocol === "about:") return; // a frame in a notebook has no address of its own
  wanted = text ? "#" + text : location.pathname + location.search;
  waiting ??= setTimeout(() => {
    waiting = null;
    history.replaceState(null, "", wanted);
  }, 250);
}
// Go to a step (−1: before the first); `tell` also describes it and puts it into the address.
function walkTo(direction, to, tell = true) {
  way = direction;
  step = Math.max(-1, Math.min(to, steps().length - 1));
  if (step >= steps().length - 1) pause();
  const n = steps()[step] ?? null;
  for (const radio of document.querySelectorAll("input[name=way]")) radio.checked = radio.value === way;
  byId("scrub").max = steps().length;
  byId("scrub").value = step + 1;
  byId("where").textContent = n ? `${step + 1} / ${steps().length}` : `${steps().length} steps`;
  if (!tell) {
    say("");
    paint();
    return;
  }
  address(n ? `step=${way[0]}${step + 1}` : "");
  if (n) {
    choose(n, false, way === "forward" ? "value" : "gradient");
    reveal(n);
    say(happening(n) + (lidOver(n) ? " (in a folded part: its + opens it)" : ""));
  } else choose(null);
}
// What this step does, in one line.
const said = byId("said");
const say = (text) => { said.textContent = text; };
function happening(n) {
  const when = n.time === undefined ? "" : `t = ${n.time}: `;
  if (way === "forward") return `${when}${spoken(n)} is computed${n.into.length ? " from " + several(n.into.map((e) => spoken(e.from))) : ""}`;
  const flows = n.out.filter((e) => e.flows);
  if (!flows.length) return `${when}${spoken(n)} is what is differentiated: its gradient is 1`;
  const froms = flows.map((e) => spoken(e.to));
  return flows.length === 1 ? `${when}the gradient of ${spoken(n)} arrives from ${froms[0]}`
    : `${when}the gradient of ${spoken(n)}: ${flows.length} contributions add up, from ${several(froms)}`;
}
function several(words) {
  const once = [...new Set(words)], listed = once.length > 5 ? [...once.slice(0, 4), `${once.length - 4} more`] : once;
  return listed.length > 1 ? listed.slice(0, -1).join(", ") + " and " + listed[listed.length - 1] : listed[0];
}
// Light what the walk has reached. Lids are lit with what they hide.
function paint() {
  const n = steps()[step];
  svg.classList.toggle("walking", step >= 0);
  svg.classList.toggle("back", way === "backward");
  if (!n) {
    for (const name of ["done", "now", "arrives"]) mark(name, []);
    note([]);
    return;
  }
  const seen = new Set(steps().slice(0, step + 1));
  if (way === "forward") {
    for (const m of all) if (m.kind !== "op" && m.kind !== "fold") seen.add(m);
    mark("done", [...[...seen].map(standIn), ...edges.filter((e) => seen.has(e.to)).map((e) => e.mark)]);
    mark("arrives", n.into.map((e) => e.mark));
    note([]);
  } else {
    const flows = n.out.filter((e) => e.flows);
    mark("done", [...[...seen].map(standIn), ...edges.filter((e) => e.flows && seen.has(e.from)).map((e) => e.mark)]);
    mark("arrives", flows.map((e) => e.mark));
    note(flows.length > 12 ? [] : flows.filter((e) => e.contribution).map((e) => [e, ...badge(e)]));
  }
  mark("now", [standIn(n)]);
}

// What an edge brings: where all is scalar, ∂E/∂y · ∂⁺y/∂x and the product; of arrays the norm.
function badge(e) {
  if (e.contribution.length > 1) return ["‖·‖ " + figure(norm(e.contribution), 3)];
  const brings = figure(e.contribution[0], 3);
  if (e.to.size > 1 || !e.local || e.local.values.length > 1 || !e.to.gradient) return [brings];
  const local = e.local.values.length ? e.local.values[0] : 0, factor = figure(local, 3);
  return [`${figure(e.to.gradient[0], 3)} · ${local < 0 ? `(${factor})` : factor} = ${brings}`, brings];
}

function pause() {
  clearTimeout(timer);
  timer = null;
  showPlaying();
}
function play() {
  if (timer) {
    pause();
    return;
  }
  // At the end of the way forward the way back begins.
  if (step >= steps().length - 1) walkTo(way === "forward" ? "backward" : "forward", 0);
  else walkTo(way, step + 1);
  later();
  showPlaying();
}
// Pieces of parameters pass quickly: there are many before the first step, and nothing happens to them.
function later() {
  const n = steps()[step], pace = n?.tap === undefined ? 1100 : 220;
  timer = setTimeout(() => {
    walkTo(way, step + 1);
    if (timer) later();
  }, pace / Number(byId("speed").value));
}
function showPlaying() {
  const button = byId("play");
  button.querySelector("use").setAttribute("href", timer ? "#i-pause" : "#i-play");
  button.setAttribute("aria-label", timer ? "pause" : "play");
  document.body.classList.toggle("playing", Boolean(timer));
}
