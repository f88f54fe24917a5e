// The time ledger: ‖∂E_t/∂W through the uses of W in step k‖ as a heat map; a cell lights the routes it stands for.
const GRADES = ["#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878", "#440154"];

const DARK = document.documentElement.dataset.scheme === "dark";

// Equal ratios look equally far apart: a logarithmic scale, the largest stands out from the paper.
function grade(v, most, decades) {
  const down = Math.floor(Math.min(Math.log10(most / v) / decades, 0.999) * GRADES.length);
  const k = DARK ? down : GRADES.length - 1 - down;
  return { fill: GRADES[k], ink: k > 4 ? "#fff" : "#111" };
}
function ledgerTable(ledger, pick) {
  const sizes = ledger.norms.flat().filter(Boolean), most = Math.max(...sizes);
  const decades = Math.min(Math.max(Math.log10(most / Math.min(...sizes)), 1), 6);
  const written = ledger.columns.length <= 6;
  const head = make("tr", [make("th", "t \\ k"), ...ledger.columns.map((k) => make("th", String(k), { scope: "col" }))]);
  const rows = ledger.norms.map((row, i) => make("tr", [make("th", String(ledger.times[i]), { scope: "row" }), ...row.map((v, j) => {
    if (!v) return make("td");
    const { fill, ink } = grade(v, most, decades), label = `loss ${ledger.times[i]} through step ${ledger.columns[j]}: ${figure(v, 5)}`;
    const button = make("button", written ? figure(v, 2) : null, { type: "button", title: label, "aria-label": label, "data-norm": v });
    button.style.background = fill;
    button.style.color = ink;
    button.addEventListener("click", () => pick(i, j, button));
    return make("td", button);
  })]));
  return make("table", [make("thead", head), make("tbody", rows)], { class: written ? "ledger written" : "ledger" });
}
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
    const loss = losses[i], step = ledger.columns[j], routes = routesOfCell(loss, parameter, step);
    for (const other of table.querySelectorAll("button")) other.classList.toggle("on", other === button);
    detail.replaceChildren(...ledgerOf(routes, step === "outside" ? "through uses outside of all steps." : `through the uses in step ${step}.`),
      make("p", ["The ledger's norm of this cell is ", make("b", figure(ledger.norms[i][j], 5), { "data-cell": ledger.norms[i][j] }), "."]));
    choose0();
    light(routes);
    revealAll(routes.nodes.filter((n) => n.kind === "op" && n.tap === undefined));
    mark("chosen", [standIn(loss), standIn(parameter)]);
  });
  panel.time.replaceChildren(make("h2", "time ledger"), make("p", ["of ", select]),
    make("p", `Row t: which loss. Column k: in which step the route uses the parameter. The ${DARK ? "brighter" : "darker"}, the larger, on a logarithmic scale; empty is nothing.`, { class: "soft" }),
    make("div", table, { class: "scroll" }),
    make("p", `Each row sums to its loss's gradient, all cells to the whole, of norm ${figure(ledger.total_norm, 5)}; the sums hold to within ${figure(ledger.residual, 1)} of their size.`, { class: "stated" }),
    detail);
}
// Nothing chosen, without leaving the tab.
function choose0() {
  chosen = null;
  pairing = null;
  walkTo(way, -1, false);
}
