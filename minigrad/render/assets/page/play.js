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
    paint();
    return;
  }
  address(n ? `step=${way[0]}${step + 1}` : "");
  if (n) {
    choose(n, false, way === "forward" ? "value" : "gradient");
    reveal(n);
  } else choose(null);
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
    note(flows.length > 12 ? [] : flows.filter((e) => e.contribution).map((e) =>
      [e, (e.contribution.length > 1 ? "‖·‖ " + figure(norm(e.contribution), 3) : figure(e.contribution[0], 3))]));
  }
  mark("now", [standIn(n)]);
}

function pause() {
  clearInterval(timer);
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
  timer = setInterval(() => walkTo(way, step + 1), 1100 / Number(byId("speed").value));
  showPlaying();
}
function showPlaying() {
  const button = byId("play");
  button.querySelector("use").setAttribute("href", timer ? "#i-pause" : "#i-play");
  button.setAttribute("aria-label", timer ? "pause" : "play");
  document.body.classList.toggle("playing", Boolean(timer));
}
