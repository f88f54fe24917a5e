// Formulas as MathML: the page of calculus gives a template for each operation, with a slot for each operand;
// slots are filled with symbols, or with the numbers of this computation.
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const COLUMNS_SHOWN = 5, ROWS_SHOWN = 6;

// Four digits, a real minus sign, powers of ten as people write them.
function figure(v, digits = 4) {
  if (Number.isNaN(v)) return "NaN";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  const round = Number(v.toPrecision(digits)), small = round !== 0 && Math.abs(round) < 1e-3;
  const [mantissa, exponent] = (small ? round.toExponential() : String(round)).split("e");
  const power = exponent && "·10" + [...exponent.replace("+", "")].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[c])).join("");
  return (mantissa + (power ?? "")).replace("-", "−");
}
const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const counted = (count, word) => grouped(count) + " " + word + (count === 1 || count === 1n ? "" : "s");

// ---- symbols -----------------------------------------------------------------------------------------------------
const mi = (word) => `<mi${word.length > 1 ? ' mathvariant="normal"' : ""}>${escaped(word)}</mi>`;
const paren = (inside) => `<mrow><mo>(</mo>${inside}<mo>)</mo></mrow>`;
const sub = (word, index) => `<msub>${mi(word)}<mtext>${escaped(index.replace("-", "−"))}</mtext></msub>`;
function named(name) {
  const found = /^(.+?)\[([^\][]+)\]$/.exec(name) ?? /^([A-Za-z])_?(\d+)$/.exec(name);
  return found ? sub(found[1], found[2]) : mi(name);
}
// The picture's own short words: "U_f h + b"
function worded(symbol) {
  return symbol.split(/( \+ | )/).map((part) => {
    if (part === " + ") return "<mo>+</mo>";
    if (part === " ") return '<mspace width="0.22em"/>';
    const [stem, index] = part.split("_");
    return index ? sub(stem, index) : mi(part);
  }).join("");
}
const placed = (n) => (n.id >= 0 ? sub(n.op, String(n.id)) : mi(n.symbol));
const short = (n) => Boolean(n.name) || n.kind !== "op" || n.tap !== undefined;
function symbol(n, operand = false) {
  if (n.math) return operand && n.symbol.includes(" ") ? paren(worded(n.symbol)) : worded(n.symbol);
  if (n.name) return named(n.name);
  if (n.kind !== "op") return /^-?[\d.]/.test(n.symbol) ? `<mn>${escaped(n.symbol)}</mn>` : mi(n.symbol);
  const f = formulaOf(n);
  if (!f?.value || !f.elementwise || !n.into.length || !n.into.every((e) => short(e.from))) return placed(n);
  const inside = filled(n, f.value, (m) => symbol(m, true));
  return operand && loose(inside, "+−·⊙\u2062") ? paren(inside) : inside;
}
// What stands left of "=": a name, the picture's own word, or the operation with its number on the tape.
const left = (n) => (n.name || n.math ? symbol(n) : placed(n));
// The same as plain text, for lists and tips.
function spoken(n) {
  if (n.name && n.tap === undefined) return n.name.replace(/\[(-?\d+)\]$/, (_, k) =>
    [...k].map((c) => (c === "-" ? "₋" : "₀₁₂₃₄₅₆₇₈₉"[c])).join(""));
  return n.kind === "op" && !n.math ? n.op + " #" + n.id : n.symbol.replace("_", "");
}

function parsed(markup) {
  const template = make("template");
  template.innerHTML = `<math>${markup.replace(DOUBLE, "$1")}</math>`;
  const found = template.content.firstChild;
  for (const mo of found.querySelectorAll("mo")) {
    // parentheses grow with fractions and matrices, not with an index
    if ("()".includes(mo.textContent) && !mo.parentNode.querySelector("mfrac, mtable")) mo.setAttribute("stretchy", "false");
  }
  return found;
}
// The parentheses of a call around numbers that bring their own.
const DOUBLE = /<mrow><mo>\(<\/mo>(<mrow class="matrix"[^>]*>(?:(?!<mtable).)*?<mtable>(?:(?!<mtable).)*?<\/mtable><mo>\)<\/mo><\/mrow>|<mrow><mo>\(<\/mo><mn[^>]*>[^<]*<\/mn><mo>\)<\/mo><\/mrow>)<mo>\)<\/mo><\/mrow>/g;
// Whether a formula falls apart beside a sign that binds tighter than those given.
const loose = (markup, signs = "+−") =>
  [...parsed(markup).children].some((c) => c.localName === "mo" && signs.includes(c.textContent));

// ---- numbers -----------------------------------------------------------------------------------------------------
function scalar(v, operand, of) {
  const text = `<mn data-of="${of}">${figure(v)}</mn>`;
  return operand && v < 0 ? paren(text) : text;
}
// Which of many rows or columns to show: all, or the first ones and the last; −1 stands for dots.
function shown(count, most) {
  if (count <= most) return [...Array(count).keys()];
  return [...Array(most - 2).keys(), -1, count - 1];
}
// `of` says what the numbers are: v17 a value, g17 a gradient, c17-19-0 a contribution, l17-19-0 a local derivative.
function matrix(values, shape, of, operand = false) {
  if (!values) return "<mtext>(too large)</mtext>";
  if (values.length === 1) return scalar(values[0], operand, of);
  const across = shape.length ? shape[shape.length - 1] : 1, columns = shown(across, COLUMNS_SHOWN);
  const digits = columns.length > 3 ? 3 : 4;
  // below a minus sign stands room for one, so that points stand below points
  const plus = values.length > across && values.some((v) => v < 0) ? ' class="plus"' : "";
  const rows = shown(values.length / across, ROWS_SHOWN).map((r) => columns.map((c) =>
    `<mtd><mn${values[r * across + c] >= 0 ? plus : ""}>${r < 0 ? (c < 0 ? "⋱" : "⋮") : c < 0 ? "⋯" : figure(values[r * across + c], digits)}</mn></mtd>`).join(""));
  return `<mrow class="matrix" data-of="${of}"><mo>(</mo><mtable>${rows.map((row) => `<mtr>${row}</mtr>`).join("")}</mtable><mo>)</mo></mrow>`;
}

// ---- templates ---------------------------------------------------------------------------------------------------
// `of` gives the markup of an operand's node; `more` fills further slots.
function filled(n, template, of, more = {}) {
  const variadic = formulaOf(n).variadic;
  const text = template.replace(/<mi data-slot="(\w+)"><\/mi>/g, (_, slot) => {
    if (slot in more) return more[slot];
    const found = n.into.filter((e) => variadic || e.name === slot);
    return found.length ? found.map((e) => of(e.from)).join("<mo>,</mo>") : mi(slot);
  });
  return n.size > 1 ? text.replace(/(?<!<\/mn>)<mo>·<\/mo>(?!<mn>)/g, "<mo>⊙</mo>") : text;
}
const valueOf = (n) => (n.numbers && n.numbers.length <= 4096 ? matrix(n.numbers, n.shape, "v" + n.key, true) : symbol(n, true));
// A formula as one line that may break before its outermost operators: a <math> of its own for each part.
function math(inside, label) {
  const box = make("div", null, { class: "eq", "data-eq": label });
  for (const child of [...parsed(inside).children]) {
    const breaks = child.localName === "mo" && "=⊙·+−∑\u2062".includes(child.textContent);
    if (breaks || !box.lastChild) box.append(" ", document.createElementNS("http://www.w3.org/1998/Math/MathML", "math"));
    if (breaks && box.childElementCount > 1) for (const [k, v] of [["form", "infix"], ["lspace", "0"], ["rspace", "0.25em"]]) child.setAttribute(k, v);
    box.lastChild.append(child);
  }
  for (const part of box.children) part.setAttribute("displaystyle", "true");
  return box;
}

function equations(n) {
  const f = formulaOf(n);
  if (n.kind !== "op" || !f) return [];
  const equals = left(n) + "<mo>=</mo>", result = n.numbers ? "<mo>=</mo>" + matrix(n.numbers, n.shape, "v" + n.key) : "";
  if (!f.value) return [math(equals + `<mtext>${escaped(n.equation ?? n.op)}</mtext>` + result, "numbers")];
  const said = filled(n, f.value, (m) => symbol(m, true), { y: symbol(n, true) });
  const reckoned = filled(n, f.value, valueOf, { y: valueOf(n) });
  return [math(equals + said, "symbols"), math(equals + reckoned + result, "numbers")];
}

// ---- gradients ---------------------------------------------------------------------------------------------------
const total = () => (roots.size === 1 ? left([...roots][0]) : "<mi>E</mi>");
const partial = (n) => `<mfrac><mrow><mo>∂</mo>${total()}</mrow><mrow><mo>∂</mo>${symbol(n, true)}</mrow></mfrac>`;
// ∂⁺ of an element-wise operation as markup: with symbols, or with its numbers.
function localOf(e) {
  const f = formulaOf(e.to), template = f?.elementwise ? f.local[e.name] : null;
  return template ? filled(e.to, template, (m) => symbol(m, true), { y: symbol(e.to, true) }) : null;
}
const along = (e) => [e.from.key, e.to.key, e.argument].join("-");
// One term of the chain rule: what an edge brings back, with symbols and with numbers.
function term(e) {
  const n = e.to, f = formulaOf(n), local = localOf(e), times = n.size > 1 ? "<mo>⊙</mo>" : "<mo>·</mo>";
  const arriving = n.gradient ? matrix(n.gradient, n.shape, "g" + n.key, true) : partial(n);
  const brings = e.contribution ? "<mo>=</mo>" + matrix(e.contribution, e.from.shape, "c" + along(e)) : "";
  if (local !== null) {
    const summed = e.from.size === n.size ? "" : "<mo>∑</mo>"; // over the axes along which the operand was repeated
    const one = local === "<mn>1</mn>", factor = loose(local) ? paren(local) : local;
    const values = e.local ? matrix(e.local.values, n.shape, "l" + along(e), true) : factor;
    return [summed + partial(n) + (one ? "" : times + factor), summed + arriving + times + values + brings];
  }
  const template = f?.local[f.variadic ? Object.keys(f.local)[0] : e.name];
  if (!template) {
    const rule = `<mtext>${escaped(n.op)}.backward</mtext>`;
    return [rule + paren(partial(n)), rule + paren(arriving) + brings];
  }
  const k = `<mn>${e.argument}</mn>`;
  return [
    filled(n, template, (m) => symbol(m, true), { y: symbol(n, true), g: partial(n), k }),
    filled(n, template, valueOf, { y: valueOf(n), g: arriving, k }) + brings,
  ];
}
