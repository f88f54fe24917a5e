// The time ledger: ‖∂E_t/∂W through the uses of W in step k‖ as a heat map; a cell lights the routes it stands for.
const GRADES = ["#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878", "#440154"];

const DARK = document.documentElement.dataset.scheme === "dark";

// Equal ratios look equally far apart: a logarithmic scale, the largest stands out from the paper.
function grade(v, most, decades) {
  const down = Math.floor(Math.min(Math.log10(most / v) / decades, 0.999) * GRADES.length);
  const k = DARK ? down : GRADES.length - 1 - down;
  return { fill: GRADES[k], ink: k > 4 ? "#fff" : "#111" };
}
// The cells that are shown: up to 40 columns one by one; of more, neighbours share a cell, which shows the largest of them.
const MOST_CELLS = 40;
function gathered(count) {
  const size = Math.ceil(count / MOST_CELLS);
  return Array.from({ length: Math.ceil(count / size) }, (_, k) => [k * size, Math.min((k + 1) * size, count)]);
}
const span = (labels, [a, b]) => (b - a === 1 ? String(labels[a]) : `${labels[a]}–${labels[b - 1]}`);
function ledgerTable(ledger, pick) {
  const { norms, times, columns } = ledger, [down, along] = [gathered(times.length), gathered(columns.length)];
  const cells = down.map(([a, b]) => along.map(([c, d]) => {
    let best = null;
    for (let i = a; i < b; i++) for (let j = c; j < Math.min(d, norms[i].length); j++) if (norms[i][j] && !(best && norms[i][j] <= norms[best[0]][best[1]])) best = [i, j];
    return best;
  }));
  const sizes = cells.flat().filter(Boolean).map(([i, j]) => norms[i][j]), most = Math.max(...sizes);
  const decades = Math.min(Math.max(Math.log10(most / Math.min(...sizes)), 1), 6);
  const written = columns.length <= 6, every = Math.ceil(along.length / 12); // so many headings have room
  const head = make("tr", [make("th", "t\\k"), ...along.map(([c], k) => make("th", written || k % every === 0 ? String(columns[c]) : "", { scope: "col" }))]);
  const rows = cells.map((row, r) => make("tr", [make("th", r % Math.ceil(down.length / 12) === 0 || written ? String(times[down[r][0]]) : "", { scope: "row" }), ...row.map((place, k) => {
    if (!place) return make("td");
    const [i, j] = place, v = norms[i][j], { fill, ink } = grade(v, most, decades);
    const label = `loss ${times[i]} through step ${columns[j]}: ${figure(v, 5)}`, crowd = down[r][1] - down[r][0] > 1 || along[k][1] - along[k][0] > 1;
    const title = crowd ? `the largest of losses ${span(times, down[r])}, steps ${span(columns, along[k])}: ${label}` : label;
    const button = make("button", written ? figure(v, 2) : null, { type: "button", title, "aria-label": label, "data-norm": v, tabindex: -1 });
    button.style.background = fill;
    button.style.color = ink;
    button.addEventListener("click", () => pick(i, j, button));
    return make("td", button);
  })]));
  const table = make("table", [make("thead", head), make("tbody", rows)], { class: written ? "ledger written" : "ledger" });
  table.querySelector("button")?.setAttribute("tabindex", 0);
  table.addEventListener("keydown", (event) => acrossCells(event, table));
  return table;
}
// One stop for the tabulator in the table, too: arrows go from cell to cell.
function acrossCells(event, table) {
  const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key], cell = event.target.closest("td");
  if (!by || !cell) return;
  event.preventDefault();
  event.stopPropagation();
  const rows = [...table.tBodies[0].rows];
  let [r, k] = [rows.indexOf(cell.parentNode), cell.cellIndex], next = null;
  while (!next && rows[r += by[0]] && rows[r].cells[k += by[1]]) next = rows[r].cells[k].querySelector("button");
  if (!next) return;
  event.target.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
}
const ledgerRows = (walk?.rows ?? []).map((id) => nodes.get(String(id)));
for (const ledger of walk?.ledgers ?? []) ledger.norms = ledger.norms.map((place) => run(numbers, place));
function showLedger(index) {
  const ledger = walk.ledgers[index], parameter = nodes.get(String(ledger.node));
  const select = make("select", walk.ledgers.map((l, k) => {
    const option = make("option", l.wrt ?? "parameter " + l.node, { value: k });
    option.selected = k === index;
    return option;
  }), { "aria-label": "parameter" });
  select.addEventListener("change", () => showLedger(Number(select.value)));
  const detail = make("div", make("p", "A cell is the part of one loss's gradient that passes through one step's use of the parameter. Choose one.", { class: "soft" }), { class: "cell-detail" });
  const table = ledgerTable(ledger, (i, j, button) => {
    const loss = ledgerRows[i], step = ledger.columns[j], routes = routesOfCell(loss, parameter, step);
    for (const other of table.querySelectorAll("button")) other.classList.toggle("on", other === button);
    detail.replaceChildren(...ledgerOf(routes, step === "outside" ? "through uses outside of all steps." : `through the uses in step ${step}.`),
      make("p", ["The ledger's norm of this cell is ", make("b", figure(ledger.norms[i][j], 5), { "data-cell": ledger.norms[i][j] }), "."]));
    choose0();
    light(routes);
    revealAll(routes.nodes.filter((n) => n.kind === "op" && n.tap === undefined));
    mark("chosen", [standIn(loss), standIn(parameter)]);
  });
  panel.time.replaceChildren(make("h2", "time ledger"), make("p", ["of ", select]),
    make("p", `Row t: which loss. Column k: in which step the route uses the parameter. The ${DARK ? "brighter" : "darker"}, the larger, on a logarithmic scale; empty is nothing.${ledger.columns.length > MOST_CELLS ? " Each cell shows the largest of its neighbourhood." : ""}`, { class: "soft" }),
    make("div", table, { class: "scroll" }),
    make("p", `Each row sums to its loss's gradient, all cells to ${ledgerRows.length < losses.length ? `that of the ${ledgerRows.length} losses with a row` : "the whole"}, of norm ${figure(ledger.total_norm, 5)}; the sums hold to within ${figure(ledger.residual, 1)} of their size.`, { class: "stated" }),
    detail);
}
// Nothing chosen, without leaving the tab.
function choose0() {
  chosen = null;
  pairing = null;
  walkTo(way, -1, false);
}
