"""A view as text for a terminal: a box a step, a line a value, wires for what one step hands to the next.

::

        ║ c₋₁    ┊ h₋₁
    ┌─ t=0 ─▼────────▼───────────────────────────────────┐
    │ f₀  1×8  σ(W_f x₀ + b_f + U_f h₋₁ + bU_f)   forget │
    │ …                                                  │
    └───────╥────────┬───────────────────────────────────┘
            ║ c₀     ┊ h₀
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from minigrad.graph.view import View, ViewEdge, ViewNode, columns, gate_letter, pretty
from minigrad.render.labels import number, parameter_letter, shape_text, step_title, symbols

WIDTH = 80
_LONGEST_FORMULA = 60
"""Cells of a formula beyond which a part of it gets a line of its own."""
_MOST_ARGUMENTS = 5
_TIE = "\x1f"
"""A space at which no line ends."""

_INFIX = {"add": (1, " + "), "sub": (1, " − "), "mul": (2, " ⊙ "), "div": (2, " ÷ "), "matmul": (2, " × ")}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉", "-0123456789")
_ASCII = {
    "σ": "sigmoid", "Σ": "sum", "Π": "prod", "√": "sqrt", "ℒ": "loss", "⊙": "*", "−": "-", "÷": "/", "×": "x",
    "·": ".", "‖": "|", "∂": "d", "…": "...", "⋯": "...", "′": "'", "²": "^2", "ⁿ": "^n", "ᵀ": "^T", "γ": "gain",
    **{chr(digit): f"^{value}" for value, digit in zip("0123456789", _SUPERSCRIPTS.values(), strict=True)},
}  # fmt: skip
_WIRES = {"cell": ("║", "╥", "╨"), "hidden": ("┊", "┬", "┴"), "data": ("│", "┬", "┴")}
_ASCII_LINES = str.maketrans("─│┌┐└┘├┤┄║┊╥╨┬┴▼▲", "-|++++++.#:++++v^")


@dataclass(frozen=True)
class _Row:
    """One value of a section: what stands in its columns."""

    name: str
    shape: str
    numbers: tuple[str, ...]
    formula: str
    gate: str
    part: str


@dataclass(frozen=True)
class _Wire:
    role: str
    label: str
    up: bool


def to_text(
    view: View,
    *,
    show: Sequence[str] = ("shape",),
    title: str | None = None,
    description: str = "",
    ascii: bool = False,
) -> str:
    """Return the view as lines of at most `WIDTH` cells, time downwards; steps like the one before are one line.

    Args:
        view: what to draw.
        show: shape, value and grad become columns.
        title, description: lines above the drawing.
        ascii: use nothing beyond ASCII: ``h[3]`` for h₃, ``sigmoid`` for σ.
    """
    return "\n".join(_Writer(view, show, ascii).lines(title, description)) + "\n"


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    >>> cells("h₃"), cells("漢字")
    (2, 4)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


class _Writer:
    def __init__(self, view: View, show: Sequence[str], ascii: bool) -> None:
        self.view, self.show, self.ascii = view, show, ascii
        self.by_id = {n.id: n for n in view.nodes}
        self.feeds: dict[int, list[ViewEdge]] = {n.id: [] for n in view.nodes}
        self.uses: dict[int, list[ViewEdge]] = {n.id: [] for n in view.nodes}
        for e in view.edges:
            self.feeds[e.target].append(e)
            self.uses[e.source].append(e)
        late = columns(view)
        self.section: dict[int, int | str] = {
            n.id: n.step if n.step is not None else "before" if late[n.id] is None else "after" for n in view.nodes
        }
        self.steps = view.steps
        self.order: list[int | str] = ["before", *self.steps, "after"]
        self.inside: dict[int | str, list[ViewNode]] = {s: [] for s in self.order}
        for n in view.nodes:
            self.inside[self.section[n.id]].append(n)
        self.handed: dict[tuple[int | str, int | str], list[ViewEdge]] = {}
        """What goes from one section to another, but for parameters, in the order of the edges."""
        for e in view.edges:
            ends = (self.section[e.source], self.section[e.target])
            if e.role != "parameter" and ends[0] != ends[1]:
                self.handed.setdefault(ends, []).append(e)
        self.label = symbols(view)
        self.layered = any("layer 1" in n.scope or (n.name or "").endswith("_l1") for n in view.nodes)
        self.name = self._names()
        self.formula: dict[int, tuple[str, int]] = {}
        self.rows: dict[int | str, list[tuple[int, _Row]]] = {}
        for n in view.nodes:
            self._enter(n)

    # --- words ----------------------------------------------------------------------------------------------

    def say(self, text: str) -> str:
        """Return a text as this terminal can show it, without what would move its cursor."""
        text = "".join(c if c.isprintable() else "�" for c in text)
        if not self.ascii:
            return text
        text = re.sub("[₋₀-₉]+", lambda found: f"[{found[0].translate(_SUBSCRIPTS)}]", text)
        return "".join(_ASCII.get(c, c) for c in text).encode("ascii", "backslashreplace").decode()

    def _names(self) -> dict[int, str]:
        layered = self.layered
        taken = Counter(n.name for n in self.view.nodes if n.name)
        out: dict[int, str] = {}
        for n in self.view.nodes:
            if n.kind == "parameter":
                out[n.id] = _letter(n.name, layered) or n.label
            elif n.tap is not None:
                _, mark, index = self.label[n.id][0].rpartition("_")
                out[n.id] = out[n.tap] + mark + (index if mark else "")
            elif n.name and n.kind != "fold":
                out[n.id] = _raised(n, layered) if taken[n.name] > 1 else pretty(n.name) or n.name
            else:
                out[n.id] = f"#{n.key}" if n.kind == "op" else self.label[n.id][0]
        shared = Counter(out.values())
        for n in self.view.nodes:  # h_0 that is given is not the h₀ of the first step
            if shared[out[n.id]] > 1 and n.kind != "op" and n.name and n.name != out[n.id] == pretty(n.name):
                out[n.id] = n.name
        shared = Counter(out.values())
        return {
            i: f"{name}#{i}" if shared[name] > 1 and self.by_id[i].name and self._own_line(self.by_id[i]) else name
            for i, name in out.items()
        }

    def _own_line(self, n: ViewNode) -> bool:
        return n.kind != "parameter" and n.tap is None

    def _refer(self, e: ViewEdge) -> str:
        source = self.by_id[e.source]
        if source.kind == "fold":
            return pretty(e.carries) or source.label
        if e.role == "cell" and source.kind == "op" and (source.name or "").startswith("h["):
            # a whole cell is called by its first result, and this is its second
            return _raised(replace(source, name="c" + (source.name or "")[1:]), self.layered)
        return self.formula[e.source][0]

    # --- formulas -------------------------------------------------------------------------------------------

    def _enter(self, n: ViewNode) -> None:
        """Write down the formula of a node: as a line of its section, or within the formula that uses it."""
        used = self.uses[n.id]
        if n.kind == "parameter" or n.tap is not None:
            self.formula[n.id] = (self.name[n.id], 3)
            return
        formula, rank = self._formula(n)
        alone = len(used) == 1 and self.by_id[used[0].target].kind != "fold"
        inside = alone and self.section[used[0].target] == self.section[n.id] and not n.name and n.kind != "fold"
        if (inside and cells(formula) <= _LONGEST_FORMULA) or (n.kind == "constant" and not n.name):
            self.formula[n.id] = (formula, rank)
            return
        self.formula[n.id] = (self.name[n.id], 3)
        numbers = tuple(
            number(s.norm) if s else "" for s, word in ((n.value, "value"), (n.grad, "grad")) if word in self.show
        )
        shape = shape_text(n.shape) if "shape" in self.show and n.kind != "fold" else ""
        name = n.label if n.kind == "fold" else self.name[n.id]
        gate = (n.gate or "") if n.kind in ("op", "fold") else ""
        said = self.say
        row = _Row(said(name), said(shape), tuple(map(said, numbers)), said(formula), said(gate), said(_part(n)))
        self.rows.setdefault(self.section[n.id], []).append((n.id, row))

    def _formula(self, n: ViewNode) -> tuple[str, int]:
        edges = self.feeds[n.id]
        if n.kind == "fold":
            return f"{n.count} operations", 3
        if n.kind != "op":
            return (self.label[n.id][0] if n.kind == "constant" and not n.name else n.kind), 3
        words = [self._refer(e) for e in edges]
        ranks = [self.formula[e.source][1] for e in edges]

        def wrapped(k: int, least: int) -> str:
            return words[k] if ranks[k] >= least else f"({words[k]})"

        if n.op == "matmul" and len(words) == 2 and self._turned(edges[1]):
            return f"{wrapped(1, 3)} {wrapped(0, 3)}", 2
        if n.op in _INFIX and len(words) == 2:
            rank, sign = _INFIX[n.op]
            return sign.join((wrapped(0, rank), wrapped(1, rank + (n.op in ("sub", "div"))))), rank
        if n.op == "affine" and len(words) in (2, 3):
            product = f"{wrapped(1, 3)} {wrapped(0, 3)}"
            return (f"{product} + {words[2]}", 1) if len(words) == 3 else (product, 2)
        if n.op == "neg":
            return f"−{wrapped(0, 2)}", 2
        index = n.params.get("index")
        if n.op == "getitem" and isinstance(index, int | str) and words:
            return f"{wrapped(0, 3)}[{index}]", 3
        if n.op == "getitem" and words:
            return f"{wrapped(0, 3)}[{gate_letter(n.gate) or '…'}]", 3
        if len(words) > _MOST_ARGUMENTS:
            words = [*words[: _MOST_ARGUMENTS - 2], "…", words[-1]]
        called = n.label if n.label in "σΣΠ√ℒ" and not self.ascii else n.op
        return f"{called}({', '.join(words)})" if words else called, 3

    def _turned(self, e: ViewEdge) -> bool:
        """Whether an operand is a transposed parameter: x @ mT(W) is W x of textbooks."""
        return e.role == "parameter" and self.by_id[e.source].op == "mT"

    # --- lines ----------------------------------------------------------------------------------------------

    def lines(self, title: str | None, description: str) -> Iterator[str]:
        for text in filter(None, (title, description)):
            yield from _wrapped(self.say(text), WIDTH)
        if title or description:
            yield ""
        yield from self._parameters()
        told: dict[object, str] = {}
        before = self.rows.get("before", [])
        entering = [i for i, row in before if self._is_wire(i)]
        if len(entering) < len(before):
            entering = []  # there is a box for all of them
        else:
            self.rows.pop("before", None)
        present = [s for s in self.order if self.rows.get(s)]
        self._measure()
        above: list[_Wire] = []
        for k, s in enumerate(present):
            initial = self._leaves(entering, s, first=True)
            if initial:
                above = above + initial
                yield self._gap(above)
            below = self._between(s, present[k + 1]) if k + 1 < len(present) else []
            below = below + self._leaves(entering, s, first=False)
            yield from self._box(s, above, below, told)
            if below:
                yield self._gap(below)
            above = below
        yield from self._legend()

    def _is_wire(self, i: int) -> bool:
        """Whether a value of before all steps only enters one of them: an initial state."""
        targets = {self.section[e.target] for e in self.uses[i]}
        return self.by_id[i].kind != "op" and len(targets) == 1 and isinstance(next(iter(targets)), int)

    def _leaves(self, entering: Iterable[int], s: int | str, first: bool) -> list[_Wire]:
        steps = self.steps
        if not steps or s != steps[0 if first else -1] or (not first and len(steps) == 1):
            return []
        found = [self.uses[i][0] for i in entering if self.section[self.uses[i][0].target] == s]
        return sorted((_Wire(_role(e), self.say(self._refer(e)), up=not first) for e in found), key=lambda w: w.role)

    def _between(self, s: int | str, after: int | str) -> list[_Wire]:
        if after == "after":
            return []
        wires: dict[_Wire, None] = {}
        for ends in ((s, after), (after, s)):
            for e in self.handed.get(ends, ()):
                wires[_Wire(_role(e), self.say(self._refer(e)), up=ends[0] == after)] = None
        return sorted(wires, key=lambda wire: (wire.up, wire.role))

    def _parameters(self) -> Iterator[str]:
        rows = []
        for n in self.view.nodes:
            if n.kind == "parameter":
                taps = [
                    self.name[m.id] for m in self.view.nodes if m.tap == n.id and self.feeds[m.id][0].source == n.id
                ]
                letters = " ".join(taps) or self.name[n.id]
                numbers = [f"‖·‖ {number(n.value.norm)}"] if n.value and "value" in self.show else []
                numbers += [f"‖∂‖ {number(n.grad.norm)}"] if n.grad and "grad" in self.show else []
                shape = shape_text(n.shape) if "shape" in self.show else ""
                shown = "" if letters == n.name else letters
                rows.append([self.say(w) for w in (n.name or n.label, shape, *numbers, shown)])
        if not rows:
            return
        widths = [max(cells(r[k]) for r in rows if k < len(r)) for k in range(max(map(len, rows)))]
        widths[0] = min(widths[0], 36)
        yield self.say("parameters")
        for row in rows:
            head = "  ".join(_filled(word, w) for word, w in zip(row[:-1], widths, strict=False))
            pad = cells(head) + 4
            first, *rest = _wrapped(row[-1], WIDTH - pad) or [""]
            yield f"  {head}  {first}".rstrip()
            yield from (" " * pad + more for more in rest)
        yield ""

    def _legend(self) -> Iterator[str]:
        roles = {e.role for e in self.view.edges}
        words = [f"{self._lines(_WIRES[role][0])} {role} state" for role in ("cell", "hidden") if role in roles]
        words += [self.say(f"{sign} norm of the {words}") for sign, words in self._signs()]
        if words:
            yield "   ".join(words)

    def _signs(self) -> list[tuple[str, str]]:
        signs = {"value": ("‖·‖", "value"), "grad": ("‖∂‖", "gradient")}
        return [sign for word, sign in signs.items() if word in self.show]

    def _measure(self) -> None:
        rows = [row for listed in self.rows.values() for _, row in listed]
        names, shapes = ([cells(r.name) for r in rows], [cells(r.shape) for r in rows])
        self.wide = (min(max(names, default=1), 24), min(max(shapes, default=0), 18))
        count = max((len(r.numbers) for r in rows), default=0)
        self.wide_numbers = tuple(max([3, *(cells(r.numbers[k]) for r in rows)]) for k in range(count))
        self.wide_gate = max((cells(r.gate) for r in rows), default=0)

    def _box(self, s: int | str, above: list[_Wire], below: list[_Wire], told: dict[object, str]) -> Iterator[str]:
        listed = self.rows[s]
        title = step_title([self.by_id[i] for i, _ in listed]) if isinstance(s, int) else str(s)
        title = self.say(title) if self.steps else ""
        yield self._border("┌", "┐", title, above, top=True)
        like = self._like(s)
        if like in told and not self.wide_numbers:
            words = f"as {told[like]}: " + " ".join(row.name for _, row in listed)
            yield from (self._inside(self.say(line)) for line in _wrapped(words, WIDTH - 4))
        else:
            told.setdefault(like, title)
            parts = {row.part for _, row in listed} - {""}
            last = ""
            if self.wide_numbers:
                yield from self._row(_Row("", "", tuple(self.say(sign) for sign, _ in self._signs()), "", "", ""))
            for _, row in listed:
                if len(parts) > 1 and row.part != last:
                    words = f"{row.part} ".lstrip()
                    yield self._inside(words + self._lines("┄") * (WIDTH - 4 - cells(words)))
                last = row.part
                yield from self._row(row)
        yield self._border("└", "┘", "", below, top=False)

    def _row(self, row: _Row) -> Iterator[str]:
        name, shape = self.wide
        mark = "~" if self.ascii else "…"
        heads = [_filled(row.name if cells(row.name) <= name else _cut(row.name, name - 1) + mark, name)]
        heads += [_filled(_cut(row.shape, shape), shape)] if shape else []
        heads += [_filled(word, w, right=True) for word, w in zip(row.numbers, self.wide_numbers, strict=False)]
        head = "  ".join(heads)
        tail = f"  {_filled(row.gate, self.wide_gate)}" if self.wide_gate and cells(head) < WIDTH // 2 else ""
        room = WIDTH - 4 - cells(head) - 2 - cells(tail)
        whole = re.sub(r"(?<=[\w\])]) (?=[\w(])", _TIE, row.formula)  # no line ends within W x
        first, *rest = (line.replace(_TIE, " ") for line in _wrapped(whole, room) or [""])
        yield self._inside(f"{head}  {_filled(first, room)}{tail}")
        yield from (self._inside(" " * (cells(head) + 2) + line) for line in rest)

    def _like(self, s: int | str) -> object:
        """What two steps have in common that do the same: operations, shapes, names but for their index, wiring."""
        nodes = self.inside[s]
        place = {n.id: k for k, n in enumerate(nodes)}

        def source(e: ViewEdge) -> object:
            if e.source in place:
                return ("here", place[e.source])
            if e.role == "parameter":
                return (e.role, e.source)
            index = re.search(r"-?\d+", e.carries or "")
            at = int(index.group()) if index else self.by_id[e.source].step
            return (e.role, _stem(e.carries), at if at is None or not isinstance(s, int) else at - s)

        def wiring(n: ViewNode) -> object:
            sources = tuple(map(source, self.feeds[n.id]))
            return sources if n.kind != "fold" else tuple(sorted(sources, key=repr))

        return tuple(
            (n.op, n.kind, n.shape, n.gate, _stem(n.name), n.span, wiring(n)) if isinstance(s, int) else (s, n.id)
            for n in nodes
        )

    # --- strokes --------------------------------------------------------------------------------------------

    def _lines(self, text: str) -> str:
        return text.translate(_ASCII_LINES) if self.ascii else text

    def _inside(self, text: str) -> str:
        side = self._lines("│")
        return f"{side} {_filled(text, WIDTH - 4)} {side}"

    def _placed(self, wires: Sequence[_Wire]) -> tuple[list[tuple[int, _Wire]], int]:
        """Return each wire's column, and how many found no room."""
        placed, column = [], 18
        for wire in wires:
            if column + cells(wire.label) + 8 > WIDTH:
                break
            placed.append((column, wire))
            column += cells(wire.label) + 5
        return placed, len(wires) - len(placed)

    def _border(self, left: str, right: str, title: str, wires: Sequence[_Wire], *, top: bool) -> str:
        line = list(left + "─" * (WIDTH - 2) + right)
        for column, wire in self._placed(wires)[0]:
            arrives = top != wire.up
            line[column] = ("▼" if top else "▲") if arrives else _WIRES[wire.role][2 if top else 1]
        drawn = self._lines("".join(line))
        return f"{drawn[:2]} {title} {drawn[4 + len(title) :]}" if title else drawn

    def _gap(self, wires: Sequence[_Wire]) -> str:
        text = ""
        placed, more = self._placed(wires)
        for column, wire in placed:
            text = _filled(text, column) + self._lines(_WIRES[wire.role][0]) + " " + wire.label
        return f"{text}   +{more}" if more else text


def _letter(name: str | None, layered: bool) -> str:
    """Return what a parameter is called in formulas: W, U, b and bU, with its layer and direction if there are more."""
    owner, _, own = (name or "").rpartition(".")
    letter = "bU" if own.startswith("bias_hh") else parameter_letter(name) if name else ""
    if letter == own:
        return name or ""
    layer = re.search(r"_l(\d+)(_reverse)?$", own)
    raised = layer.group(1).translate(_SUPERSCRIPTS) if layer and layered else ""
    return (f"{owner}." if owner else "") + letter + raised + ("′" if layer and layer.group(2) else "")


def _raised(node: ViewNode, layered: bool) -> str:
    """Return the name of a value that several layers have: h¹₃ of layer 1, h′₃ of the direction read backwards."""
    layer = next((part[6:] for part in node.scope if part.startswith("layer ")), "") if layered else ""
    mark = layer.translate(_SUPERSCRIPTS) + ("′" if "reverse" in node.scope else "")
    shown = pretty(node.name) or ""
    stem = re.match(r"[^\W\d_₋₀-₉]+(?=[₋₀-₉]*$)", shown)
    return stem.group() + mark + shown[stem.end() :] if stem and mark else shown


def _role(edge: ViewEdge) -> str:
    return edge.role if edge.role in _WIRES else "data"


def _stem(name: str | None) -> str:
    return re.sub(r"-?\d+", "#", name or "")


def _part(node: ViewNode) -> str:
    """The layer, and direction, that a value belongs to, in words."""
    inside = next((k for k, part in enumerate(node.scope) if part.startswith("t=")), 0)
    return " ".join(node.scope[:inside])


def _filled(text: str, width: int, right: bool = False) -> str:
    pad = " " * (width - cells(text))
    return pad + text if right else text + pad


def _cut(text: str, width: int) -> str:
    while cells(text) > width:
        text = text[:-1]
    return text


def _wrapped(text: str, width: int) -> list[str]:
    """Break at spaces, and within what is too long for a line."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while cells(line) > width:
            head = _cut(line, max(width, 2))
            lines.append(head)
            line = line[len(head) :]
    return [*lines, line] if line else lines
