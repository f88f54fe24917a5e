"""What the two charts of one block share: words with their numbers, wires that leap over each other, the sum of δ.

A chart is a pure function: a block, which is view data, becomes a scene.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

from minigrad.graph.view import Summary, ViewEdge, ViewNode, gate_letter, gate_name
from minigrad.render.block import LINEAR, Block, Link, leads, untimed
from minigrad.render.labels import edge_key, node_title, number, pretty_local, shape_text
from minigrad.render.overlay import flows
from minigrad.render.scene import Box, Frame, Point, Scene, Wire, Words
from minigrad.render.text import width

TERM, SIGN, NAME, FIGURE = 17.0, 16.0, 13.0, 9.5
"""Font sizes: states and inputs; what a box does; what a wire carries; everything else."""

LEADING = 1.28
_SPACE = 5.0
_LEGEND_ROW = 17.0
_LETTER = 13.2
"""Letters of weights: their subscripts are as large as everything else."""

MARGIN = 16.0
ROUND = 17.0
"""The radius of a pointwise operation."""

_LONG = 560.0
"""The longest line of a heading that stands above everything."""

BACK = 7.0
"""How far a gradient's arrow runs beside its wire."""

_ONE_HOT = 4
"""Arrays of so many single digits are written out in any case."""

SHOWN_NUMBERS = 2
"""Arrays of more numbers than this are written as their norm."""

_LONGEST_RESULT = 10
"""Longer names of results are not put into their derivatives: there they are y."""

PAGE = (1123, 720)
"""What both A4 landscape at 96 pixels an inch and a slide have room for. A chart with more to say writes norms instead
of vectors, and then everything smaller, down to `LEAST`."""

LEAST = 7.9
"""Pixels of the smallest letters."""

_STEPPED = re.compile(r"(\b[a-z]+)(₋?[₀-₉]+)")
_LEVEL = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉", "-0123456789")

Run = tuple[str, float, str, str]
"""A piece of a line: its text, font size, face and style."""

Lines = list[list[Run]]


def figure(summary: Summary, most: int = SHOWN_NUMBERS, sign: str = "", equals: str = "") -> str:
    """Return an array in a few signs: its numbers if they are at most so many, otherwise its norm.

    >>> pair = Summary(-0.5, 0.25, -0.125, 0.559, (-0.5, 0.25))
    >>> figure(pair), figure(pair, sign="∂"), figure(pair, most=1, sign="∂")
    ('−0.5, 0.25', '∂ −0.5, 0.25', '‖∂‖ 0.559')
    >>> figure(Summary(0.0, 1.0, 1 / 3, 1.0, (0.0, 1.0, 0.0)))
    '0, 1, 0'
    """
    values = summary.numbers
    digits = values is not None and len(values) <= _ONE_HOT and all(0 <= v < 10 and v == int(v) for v in values)
    if values is not None and (0 < len(values) <= most or (digits and values)):
        plain = [v + 0.0 for v in values]  # no sign on a zero
        text = number(plain[0]) if len(plain) == 1 else ", ".join(f"{v:.2g}".replace("-", "−") for v in plain)
    else:
        text, sign = number(summary.norm), f"‖{sign or '·'}‖"
    return " ".join(word for word in (sign, equals, text) if word)


def _packed(words: Iterable[str], joint: str, room: float, size: float, face: str = "sans") -> list[str]:
    """Put words into lines as long as there is room for; a word is never broken."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{joint}{word}" if lines else word
        if lines and width(longer, size, face) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _bare(text: str) -> str:
    return text[1:-1] if re.fullmatch(r"\([^()]*\)", text) else text


def measure(lines: Lines) -> tuple[float, float]:
    """Return the width and height of lines under each other."""
    return max((_line_width(line) for line in lines), default=0.0), sum(_line_height(line) for line in lines)


def _line_width(line: Sequence[Run]) -> float:
    return sum(_run_width(run) for run in line) + _SPACE * (len(line) - 1)


def _run_width(run: Run) -> float:
    text, size, face, _ = run
    return width(text, size, face, _lowered(text))


def _lowered(text: str) -> bool:
    """Whether a text has subscripts: a letter after a single one, as in ``W_f``."""
    return re.search(r"\b\w_\w\b", text) is not None


def _line_height(line: Sequence[Run]) -> float:
    return max(size for _, size, _, _ in line) * LEADING


class Chart:
    """A chart while it is drawn: the words that belong to each part, and the scene that grows."""

    def __init__(self, block: Block, show: Sequence[str], backward: bool, most: int = SHOWN_NUMBERS) -> None:
        self.block, self.show, self.backward, self.most = block, tuple(show), backward, most
        self.scene = Scene(engine="none")
        self.keys = {i: n.key for i, n in block.nodes.items()}
        self.nets: dict[str, str] = {}
        self.drawn: set[tuple[str, str]] = set()
        self.used: set[str] = set()
        self.measured = any(e.contribution is not None for edges in block.readers.values() for e in edges)
        t = "ₜ"
        before = "ₜ₊₁" if block.unit.direction == "reverse" else "ₜ₋₁"
        self.letters: dict[str, str] = {
            "x": f"x{t}", "h-": f"h{before}", "c-": f"c{before}", "gates-": f"[i f o]{before}", "gates": f"[i f o]{t}",
            "fc": f"f{t} ⊙ c{before}", "ig": f"i{t} ⊙ g{t}", "u": f"U h{before} + b",
            "1-": f"1 − z{t}", "zn": f"(1 − z{t}) ⊙ n{t}", "zh": f"z{t} ⊙ h{before}",
            "rh": f"r{t} ⊙ h{before}" if "u" not in block else f"r{t} ⊙ (U h{before} + b)",
            **{letter: f"{letter}{t}" for letter in "figorzn"},
        }  # fmt: skip
        self.letters["a"] = f"h{t}"
        if block.unit.kind == "lstm":
            self.letters |= {"+": f"c{t}", "clip": f"c{t}", "c*": f"c{t}"}
            if "c*" in block:
                self.letters |= {"+": f"c̃{t}", "clip": f"c̃{t}"}
            cell = self.letters[self.cell]
            self.letters["norm"] = f"norm {cell}"
            squash = block.parts["squash"].sign if "squash" in block else ""
            inner = f"({self.letters['norm']})" if "norm" in block else f" {cell}"
            self.letters["squash"] = f"{squash}{inner}".strip()
            seen = self.letters["squash"] if squash else self.letters["norm"] if "norm" in block else cell
            self.letters["oh"] = f"o{t} ⊙ {seen}" if "out*" in block else f"h{t}"
        else:
            self.letters["+"] = f"h{t}"
        self.letters |= {"out*": f"h{t}", "h*": f"h{before}′", "x*": f"x{t}′"}
        self.h, self.c, self.before, self.t = f"h{t}", f"c{t}", before, t

    # words

    def last(self, *names: str) -> str:
        """Return the last of some parts that the block has."""
        return next(name for name in reversed(names) if name in self.block)

    @property
    def output(self) -> str:
        """The part whose result is h."""
        if self.block.unit.kind == "lstm":
            return self.last("+", "clip", "norm", "squash", "oh", "out*")
        return self.last("a", "+", "out*")

    @property
    def cell(self) -> str:
        """The part whose result the output reads: the cell."""
        return self.last("+", "clip")

    @property
    def kept(self) -> str:
        """The part whose result is the cell that is handed on."""
        return self.last("+", "clip", "c*")

    def weight(self, source: str, gate: str) -> Lines:
        """Return the lines beside an input of a gate: the letter of its weights, and what comes back."""
        link = self.block.links.get((source, gate))
        if link is None:
            return []
        index = "" if gate == "a" else f"_{'n' if gate == 'u' else gate}"
        linear = any(self.block.nodes[e.target].op in LINEAR for e in link.edges)
        if link.peephole:
            letter = "P" if link.peephole == "full" else "p"
        else:
            letter = {"x": "W", "gates-": "G"}.get(source, "U") if linear else ""
        lines: Lines = [[(letter + index, _LETTER, "oblique", "p" if link.peephole else "t")]] if letter else []
        return lines + self.sent(link)

    def figures(self, node: ViewNode, *, total: bool = True) -> Lines:
        """Return the lines with the numbers of a node's value and, if asked for, of its whole gradient."""
        lines: Lines = []
        if "value" in self.show and node.value is not None:
            lines.append([(self.figure(node.value, equals="="), FIGURE, "sans", "v")])
        if total and "grad" in self.show and node.grad is not None:
            lines.append([(self.figure(node.grad, "∂"), FIGURE, "sans", "d")])
        return lines

    def figure(self, summary: Summary, sign: str = "", equals: str = "") -> str:
        """Return an array in as many signs as there is room for."""
        return figure(summary, self.most, sign, equals)

    def shape(self, node: ViewNode) -> list[Run]:
        """Return a node's shape as a piece of a line, if it is asked for."""
        return [(shape_text(node.shape), FIGURE, "sans", "s")] if "shape" in self.show else []

    def state(self, name: str, symbol: str | None = None, *, numbers: bool = True) -> Lines:
        """Return the lines of something that enters or leaves the block."""
        node = self.block.node(name)
        head: list[Run] = [(symbol or self.letters[name], TERM, "oblique", "t")]
        if not numbers:
            return [head]
        lines: Lines = [head]
        if "shape" in self.show:
            lines.append(self.shape(node))
        lines += self.figures(node)
        if self.backward and "grad" not in self.show and node.grad is not None:
            lines.append([(self.figure(node.grad, "∂"), FIGURE, "sans", "d")])
        return lines

    def sent(self, link: Link) -> Lines:
        """Return the line with what the reverse sweep sends back along a link."""
        if not self.backward and "flow" not in self.show:
            return []
        parts = [e.contribution for e in link.edges]
        if len(parts) == 1 and parts[0] is not None:
            return [[(self.figure(parts[0], "δ"), FIGURE, "sans", "k")]]
        return []

    def factor(self, link: Link) -> Lines:
        """Return the line with the local derivative of a link: of the one operation that it enters."""
        if len(link.edges) != 1:
            return []
        (edge,) = link.edges
        words = [f"∂⁺ {self.local(edge)}"] if "local" in self.show and edge.local else []
        words += [f"‖∂⁺‖ {number(edge.gain)}"] if "gain" in self.show and edge.gain is not None else []
        return [[(text, FIGURE, "sans", "s")] for text in words]

    def local(self, edge: ViewEdge) -> str:
        """Return an edge's local derivative, steps counted from this one: cₜ₋₁ for c₃ at t = 4."""
        operands = self.block.operands[edge.target]
        if self.block.nodes[edge.target].op == "mul" and len(operands) == 2:
            return _bare(self.called(operands[1 - edge.argument].source, edge.local or ""))
        text = re.sub(r"\b([A-Z])_[a-z]", r"\1", pretty_local(edge.local or ""))
        for e in operands:  # what has no name of its own on the tape
            unnamed = rf"\(?\b{self.block.nodes[e.source].op}#{e.source}\b\)?"
            text = re.sub(unnamed, self.called(e.source), text)
        text = _STEPPED.sub(self._counted, text)
        words = {e.name: self.called(e.source) for e in operands}
        if "condition" in text:
            chosen = "kept" if "zoneout" in self.block.parts[self.block.home[edge.target]].sign else "runs"
            text = text.replace("condition", chosen)
        result = _bare(self.called(edge.target))
        if len(result) < _LONGEST_RESULT:
            words["y"] = result
        return re.sub(r"(?<![\w₀-₉])[aby](?![\w(])", lambda m: words.get(m[0], m[0]), text)

    def _counted(self, found: re.Match[str]) -> str:
        step = int(found[2].translate(_LEVEL))
        if self.block.time is None or abs(step - self.block.time) > 1:
            return found[0]
        index = {0: self.t, -1: "ₜ₋₁", 1: "ₜ₊₁"}[step - self.block.time]
        return f"{found[1]}{index}"

    def called(self, node: int, otherwise: str = "y") -> str:
        """Return what the result of a part, or the weighted sum in a gate, is called in formulas."""
        name = self.block.home.get(node, "")
        if name and node == self.block.parts[name].weighted:
            return self.bar(name)
        text = self.letters.get(name, otherwise)
        return f"({text})" if " " in text else text

    def carried(self, link: Link, *, named: bool) -> Lines:
        """Return the lines beside a wire: what it carries, its numbers, what comes back, the local derivative.

        `named` wires have their symbol even where no numbers stand below it.
        """
        node = self.block.node(link.source)
        alone = sum(e.source == node.id for edges in self.block.readers.values() for e in edges) == 1
        lines = self.figures(node, total=not (self.backward and alone)) + self.sent(link) + self.factor(link)
        if named or lines:
            shape = self.shape(node) if named else []
            lines.insert(0, [(self.letters[link.source], NAME, "oblique", "t"), *shape])
        return lines

    def bar(self, name: str) -> str:
        """Return the name of the weighted sum in a gate."""
        return f"{name}̄{self.t}" if name != "a" else f"a{self.t}"

    def weighted(self, name: str) -> Lines:
        """Return the lines in a gate's box: its name, its activation, the weighted sum and that one's gradient."""
        part = self.block.parts[name]
        lines: Lines = [[(part.sign, SIGN, "sans", "t")]]
        gate = self.block.node(name).gate
        if gate and part.weighted is not None:
            lines.append([(f"{gate} gate", FIGURE, "sans", "s")])
        if part.weighted is None:
            return lines
        node = self.block.nodes[part.weighted]
        bar = self.bar(name)
        if "value" in self.show and node.value is not None:
            lines.append([(self.figure(node.value, bar, "="), FIGURE, "sans", "v")])
        if ("grad" in self.show or self.backward) and node.grad is not None:
            lines.append([(self.figure(node.grad, f"δ{bar}"), FIGURE, "sans", "k" if self.backward else "d")])
        if "local" in self.show and part.out != part.weighted:
            edge = next((e for e in self.block.operands[part.out] if e.source == part.weighted), None)
            if edge is not None and (text := self.local(edge)):
                lines.append([(f"∂⁺ {text}", FIGURE, "sans", "s")])
        return lines

    # shapes

    def words(self, lines: Lines, x: float, y: float, anchor: str = "start") -> tuple[float, float, float, float]:
        """Write lines, the first one's top at y; return the box that they fill."""
        wide, high = measure(lines)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
        self.scene.words += self._set(lines, x, y, anchor)
        return (left, y, left + wide, y + high)

    def _set(self, lines: Lines, x: float, y: float, anchor: str) -> list[Words]:
        found = []
        for line in lines:
            high, wide = _line_height(line), _line_width(line)
            at = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
            for run in line:
                text, size, face, style = run
                found.append(Words(text, at, y + high / 2, size, face, "start", style, _lowered(text)))
                at += _run_width(run) + _SPACE
            y += high
        return found

    def size(self, lines: Lines, least: float = 40.0, low: float = 34.0) -> tuple[float, float]:
        """Return the size of a box around lines; `least` is its width, `low` its height at least."""
        wide, high = measure(lines)
        return max(round(wide) + 16.0, least), max(float(round(high)) + 10.0, low)

    def box(
        self, name: str, x: float, y: float, lines: Lines, style: str, least: float = 40.0, high: float = 0.0
    ) -> Box:
        """Draw a part as a box around its centre."""
        size = self.size(lines, least, high or 34.0)
        return self._add(name, x, y, size[0], size[1], lines, style, "round")

    def dot(self, name: str, x: float, y: float, style: str = "op", radius: float = ROUND) -> Box:
        """Draw a pointwise operation as a small circle."""
        part = self.block.parts[name]
        size = SIGN if len(part.sign) == 1 else 11.0
        lines: Lines = [[(part.sign, size, "sans", "t")]]
        return self._add(name, x, y, 2 * radius, 2 * radius, lines, style, "circle")

    def disc(
        self, name: str, x: float, y: float, radius: float, lines: Lines, style: str, parts: Sequence[str] = ()
    ) -> Box:
        """Draw a part, or several as one, as a circle with lines in it."""
        more = [i for part in parts for i in self.block.parts[part].members]
        return self._add(name, x, y, 2 * radius, 2 * radius, lines, style, "circle", more=more)

    def terminal_of(self, name: str, x: float, y: float, anchor: str, more: Lines | None = None) -> Box:
        """Write what comes from the step before above a place, or beside it where it is anchored at its start."""
        lines = self.state(name) + (more or [])
        high = measure(lines)[1]
        return self.place(name, x, y if anchor == "start" else y - high / 2, lines, anchor)

    def place(self, name: str, x: float, y: float, lines: Lines, anchor: str) -> Box:
        """Draw what enters or leaves as words without an outline; x is the side that the anchor names."""
        wide, high = measure(lines)
        centre = {"start": x + wide / 2, "middle": x, "end": x - wide / 2}[anchor]
        return self._add(name, centre, y, wide + 4, high, lines, "terminal", "bare", anchor)

    def _add(
        self,
        name: str,
        x: float,
        y: float,
        wide: float,
        high: float,
        lines: Lines,
        style: str,
        shape: str,
        anchor: str = "middle",
        more: Sequence[int] = (),
    ) -> Box:
        part = self.block.parts[name]
        at = {"start": x - wide / 2 + 2, "middle": x, "end": x + wide / 2 - 2}[anchor]
        words = tuple(self._set(lines, at, y - measure(lines)[1] / 2, anchor))
        node = self.block.nodes[part.out]
        titles = [node_title(self.block.nodes[i], self.letters.get(name, name)) for i in part.members]
        if len(titles) > 4:
            titles = [*titles[:3], f"and {len(titles) - 4} more", titles[-1]]
        key = f"n-{node.key}"
        classes = tuple(f"n-{self.keys[i]}" for i in (*part.members, *more))
        if key in self.used:
            key, classes = self._fresh(key), (f"n-{node.key}", *classes)
        self.used.add(key)
        box = Box(key, x, y, wide, high, words, style, shape, "; ".join(titles), classes)
        self.scene.boxes.append(box)
        return box

    def _fresh(self, key: str) -> str:
        return next(k for n in range(2, 99) if (k := f"{key}-{n}") not in self.used)

    def wire(
        self, points: Iterable[Point], style: str, net: str, links: Sequence[Link] = (), *, arrow: bool = True
    ) -> None:
        """Draw a wire; wires of one net branch and never leap over each other."""
        edges = [e for link in links for e in link.edges]
        keys = [edge_key(e, self.keys) for e in edges]
        key = keys[0] if keys else f"w-{net}-{len(self.scene.wires)}"
        key = self._fresh(key) if key in self.used else key
        self.used.add(key)
        self.nets[key] = net
        self.drawn.update((link.source, link.target) for link in links)
        said = "; ".join(self._said(e) for e in edges) or f"{self.letters.get(net, 'a gate')} on its way out"
        self.scene.wires.append(Wire(key, tuple(points), style, said, arrow=arrow, classes=tuple(keys)))

    def _said(self, edge: ViewEdge) -> str:
        source, target = self.block.nodes[edge.source], self.block.nodes[edge.target]
        text = f"{source.display_name or source.label} to {target.display_name or target.label}"
        local = f", local derivative {pretty_local(edge.local)}" if edge.local else ""
        back = f", sends back {self.figure(edge.contribution)}" if edge.contribution else ""
        return text + local + back

    def junction(self, x: float, y: float, style: str) -> None:
        """Mark where a wire branches."""
        self.scene.dots.append((x, y, style))

    def reverse(self, p: Point, q: Point, of: Sequence[Link] | str, side: float = 1.0, gap: float = 4.0) -> None:
        """Draw a gradient's arrow from q back to p, beside the wire from p to q.

        Args:
            p, q: the ends of a straight piece of the wire.
            of: the links that the wire stands for, or the part whose result it carries; without a gradient no arrow.
            side: 1 is right of the wire, or above it.
            gap: how far the arrow stays away from both ends.
        """
        if not self.backward or not self.learns(of):
            return
        (ax, ay), (bx, by) = p, q
        length = math.dist(p, q) or 1.0
        ux, uy = (bx - ax) / length, (by - ay) / length
        shift = (side * BACK, 0.0) if abs(uy) > abs(ux) else (0.0, -side * BACK)
        start = (bx - ux * gap + shift[0], by - uy * gap + shift[1])
        end = (ax + ux * gap + shift[0], ay + uy * gap + shift[1])
        key = f"w-back-{len(self.scene.wires)}"
        self.nets[key] = "back"
        self.scene.wires.append(Wire(key, (start, end), "backward", "the gradient on its way back"))

    def learns(self, of: Sequence[Link] | str) -> bool:
        """Whether a gradient comes back along some links, or to a part."""
        if isinstance(of, str):
            node = self.block.node(of)
            if not self.measured:
                return node.requires_grad
            return node.grad is not None and node.grad.norm != 0
        edges = [e for link in of for e in link.edges]
        if self.measured:
            return any(map(flows, edges))
        nodes = self.block.nodes
        return any(nodes[e.source].requires_grad and nodes[e.target].requires_grad and not e.cut for e in edges)

    def leaving(self, name: str, *, later: bool) -> list[Link]:
        """Return what reads the block's result outside of it, in other steps or besides, as a link."""
        block = self.block
        given = block.readers[block.parts[name].out]
        edges = [e for e in given if e.target not in block.home and is_later(block, block.nodes[e.target]) == later]
        return [Link(name, "", tuple(edges))] if edges else []

    def entrance(self, name: str, x: float, y: float) -> None:
        """Mark the wire of what enters at a place if no gradient passes there: the state was detached."""
        if any(e.cut for e in self.block.operands[self.block.parts[name].out]):
            self.scene.dots.append((x, y, "cut"))

    @property
    def beside(self) -> float:
        """How far from a wire its words begin."""
        return BACK + 7.0 if self.backward else 7.0

    def leap(self) -> None:
        """Let wires leap over what they cross: solid lines over dashed ones, and upright ones over level ones."""
        parts = [
            (k, p, q)
            for k, wire in enumerate(self.scene.wires)
            if wire.style != "backward"
            for p, q in pairwise(wire.points)
        ]
        hops: dict[int, dict[Point, None]] = {}
        for (upright, p, q), (level, r, s) in product(parts, parts):
            crossing = (p[0], r[1])
            if not (
                abs(p[0] - q[0]) < 0.05
                and abs(r[1] - s[1]) < 0.05
                and min(p[1], q[1]) < crossing[1] < max(p[1], q[1])
                and min(r[0], s[0]) < crossing[0] < max(r[0], s[0])
            ):
                continue
            up, flat = self.scene.wires[upright], self.scene.wires[level]
            if self.nets[up.key] != self.nets[flat.key]:
                yields = "lag" in up.style and flat.style in ("forward", "peephole")
                hops.setdefault(level if yields else upright, {})[crossing] = None
        for k, places in hops.items():
            self.scene.wires[k] = replace(self.scene.wires[k], hops=tuple(places))

    # what stands around the block

    def frame(self, left: float, top: float, right: float, bottom: float, *, stepped: bool = True) -> None:
        """Draw the outline of the block, with its step if there is room for it."""
        step = f"t = {self.block.time}" if stepped and self.block.time is not None else ""
        words = Words(step, left + 20, top + 13.0, FIGURE + 1, "sans", "start", "f")
        self.scene.frames.append(Frame(left, top, right - left, bottom - top, words, "chart"))

    def heading(self, title: str | None, x: float) -> float:
        """Write title and caption; return where what stands at x, the highest thing of the chart, may begin."""
        what = {"lstm": "LSTM block", "gru": "GRU block", "rnn": "Simple recurrent block"}[self.block.unit.kind]
        self.scene.title = title or what
        caption = self.caption()
        self.scene.description = f"{self.scene.title}. {' · '.join(caption)}."
        room = x - 41 - MARGIN
        heads, lines = _packed(self.scene.title.split(), " ", room, 14.0, "bold"), _packed(caption, " · ", room, 10.0)
        beside = len(heads) + len(lines) <= 3
        if not beside:  # above everything, then
            heads = _packed(self.scene.title.split(), " ", _LONG, 14.0, "bold")
            lines = _packed(caption, " · ", _LONG, 10.0)
        y = MARGIN - 10
        self.heading_right = 0.0
        for text, size, face, style in [(t, 14.0, "bold", "t") for t in heads] + [
            (t, 10.0, "sans", "s") for t in lines
        ]:
            y += 14 if text in lines[1:] else 18
            self.scene.words.append(Words(text, MARGIN, y, size, face, "start", style))
            self.heading_right = max(self.heading_right, MARGIN + width(text, size, face))
        self.heading_bottom = y + 10
        return MARGIN + 4 if beside and self.heading_right < x - 40 else self.heading_bottom + 4

    def caption(self) -> list[str]:
        """Say which step of which unit is drawn, and what sets it apart."""
        block = self.block
        words = [block.unit.name]
        unit = block.unit
        if unit.calls > 1:
            words.append(f"call {unit.call} of {unit.calls}")
        if block.time is not None or unit.calls == 1:
            words.append(f"step t = {block.time}" if block.time is not None else "one call")
        words += peculiarities(block)
        return words

    def finish(self, right: float, bottom: float) -> Scene:
        """Set the size, move everything in, and let wires leap."""
        self.leap()
        self.scene.details = self.spoken()
        right = max(right, self.heading_right)
        self.scene.width, self.scene.height = math.ceil(right + MARGIN), math.ceil(bottom + MARGIN)
        return self.scene

    def legend(
        self, entries: Sequence[tuple[str, str]], x: float, y: float, *, across: bool = False
    ) -> tuple[float, float]:
        """Draw line samples with their names, under each other or in a row; return the right end and the next line."""
        right = x
        for style, text in entries:
            if style == "cut":
                self.scene.dots.append((x + 11, y, "cut"))
            self.scene.legend.append(("line", "lag" if style == "cut" else style, x, y))
            self.scene.words.append(Words(text, x + 30, y, 10.0, "sans", "start", "s"))
            right = max(right, x + 30 + width(text, 10.0))
            x, y = (right + 18, y) if across else (x, y + _LEGEND_ROW)
        return right, y + (_LEGEND_ROW if across else 0.0)

    def lines(self, known: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the styles of lines that are drawn, with their names, for the legend."""
        styles = {wire.style for wire in self.scene.wires}
        step = "from the step " + ("before" if self.before == "ₜ₋₁" else "after")
        found = [(style, text.format(step=step)) for style, text in known.items() if style in styles]
        cut = any(style == "cut" for *_, style in self.scene.dots)
        return found + ([("cut", "cut: no gradient passes")] if cut else [])

    def signs(self) -> list[tuple[str, str]]:
        """Return what the numbers mean, as style and words, for the legend."""
        found = []
        if "value" in self.show:
            found.append(("v", "= value"))
        if "grad" in self.show or self.backward:
            found.append(("d", "∂ gradient of the loss"))
        if self.backward or "flow" in self.show:
            found.append(("k", "δ what comes back along a wire"))
        if {"local", "gain"} & set(self.show):
            found.append(("s", "∂⁺ local derivative" + (", ‖∂⁺‖ its size" if "gain" in self.show else "")))
        if any("‖" in words.text for words in self.scene.texts):
            found.append(("s", "‖·‖ norm of several numbers"))
        return found

    def key_to_signs(self, x: float, y: float, *, across: bool = False) -> tuple[float, float]:
        """Write what the numbers mean, likewise."""
        right, start = x, x
        for style, text in self.signs():
            self.scene.words.append(Words(text, x, y, 10.0, "sans", "start", style))
            right = max(right, x + width(text, 10.0))
            x, y = (right + 18, y) if across else (start, y + _LEGEND_ROW)
        return right, y

    # the sum of what comes back

    def ledgers(self) -> list[Ledger]:
        """Return the sums of what comes back to the states, if the reverse sweep is drawn."""
        if not self.backward:
            return []
        states = [(self.output, self.h)]
        if self.block.unit.kind == "lstm":
            cells = [(self.kept, self.c)]
            if self.cell != self.kept:
                cells.insert(0, (self.cell, self.letters[self.cell]))
            states = cells + states
            states += [("gates", self.letters["gates"])] if "gates" in self.block else []
        return [found for name, symbol in states if (found := self.ledger(name, symbol))]

    def ledger(self, name: str, symbol: str) -> Ledger | None:
        """Return the routes on which a gradient comes back to a state, and their sum."""
        rows = routes(self.block, self.block.parts[name].out, self.t, self.before)
        grad = self.block.node(name).grad
        if not rows or grad is None:
            return None
        figures, what = addends([*(share for _, share in rows), grad])
        count = "one route" if len(rows) == 1 else f"{len(rows)} routes"
        head = [(f"δ{symbol}", NAME, "oblique", "k"), (f"the sum of {count}{what}", FIGURE, "sans", "s")]
        return Ledger(name, head, [*(text for text, _ in rows), f"δ{symbol}"], figures)

    def spoken(self) -> str:
        """Return what else there is to see, for those who cannot: the gates, and the sums row by row."""
        gates = [gate_name(name) for name in self.block.parts if name in set("fiorzgn")]
        said = [f"Gates: {', '.join(gates)}."] if gates else []
        for ledger in self.ledgers():
            *rows, (symbol, total) = zip(ledger.names, ledger.figures, strict=True)
            terms = "; ".join(f"{name}: {figure}" for name, figure in rows)
            said.append(f"{symbol} is {total}, the sum of {terms}.")
        return " ".join(said)

    def write(self, ledger: Ledger, x: float, y: float) -> None:
        """Draw a ledger with its upper left corner at a place."""
        wide, high = ledger.size
        self.scene.frames.append(Frame(x, y, wide, high, Words("", x + wide / 2, y + high / 2, FIGURE), "panel"))
        self.words([ledger.head], x + 10, y + 5)
        last = len(ledger.names) - 1
        for k, (text, value) in enumerate(zip(ledger.names, ledger.figures, strict=True)):
            at = y + 32.0 + 14.5 * k + (4.0 if k == last else 0.0)
            sign = "=" if k == last else "+" if k else ""
            if sign:
                self.scene.words.append(Words(sign, x + 10, at, 10.0, "sans", "start", "t"))
            self.scene.words.append(Words(text, x + 24, at, 10.0, "sans", "start", "t"))
            self.scene.words.append(Words(value, x + wide - 10, at, 10.0, "sans", "end", "k"))
        rule, figures = y + 32.0 + 14.5 * (last - 0.5) + 2, max(width(f, 10.0) for f in ledger.figures)
        key = f"w-rule-{ledger.name}"
        self.nets[key] = "rule"
        ends = ((x + wide - 14 - figures, rule), (x + wide - 6, rule))
        self.scene.wires.append(Wire(key, ends, "rule", arrow=False))


@dataclass(frozen=True)
class Ledger:
    """The sum of what comes back to a state, in words and figures; the last row is the sum."""

    name: str
    head: list[Run]
    names: list[str]
    figures: list[str]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        rows = max(width(n, 10.0) for n in self.names) + 36 + max(width(f, 10.0) for f in self.figures)
        return max(rows, _line_width(self.head)) + 20, 34.0 + 14.5 * len(self.names)


def fitted(draw: Callable[[int], Scene]) -> Scene:
    """Draw with as many numbers of each array as a page has room for, and if need be in smaller letters."""
    for most in range(SHOWN_NUMBERS, 0, -1):
        scene = draw(most)
        if scene.width <= PAGE[0] and scene.height <= PAGE[1]:
            return scene
    smallest = min(words.least for words in scene.texts if words.text)
    scene.zoom = max(min(PAGE[0] / scene.width, PAGE[1] / scene.height), min(LEAST / smallest, 1.0))
    return scene


def peculiarities(block: Block) -> list[str]:
    """Say what sets a block apart from the common one, as it was recorded."""
    words = []
    if block.unit.kind == "lstm":
        words += [f"no {gate_name(k)} gate" for k in "ifo" if k not in block]
        if "f" in block and ("i", "f") in block.links:
            words.append("forget gate = 1 − input gate")
        if "g" in block and block.parts["g"].sign == "Σ":
            words.append("no activation of the block input")
        if "squash" not in block:
            words.append("no activation of the cell")
        kinds = {link.peephole for link in block.links.values() if link.peephole}
        words.append(f"{kinds.pop()} peepholes" if kinds else "no peepholes")
        if "gates-" in block:
            words.append("gates see the gates of the step before")
    elif block.unit.kind == "gru":
        words.append("reset after the product" if "u" in block else "reset before the product")
    if "out*" in block and "project" in block.parts["out*"].sign:
        words.append("projected output")
    signs = " ".join(part.sign for part in block.parts.values())
    if "norm" in signs:
        words.append("layer normalisation")
    if "drop" in signs:
        words.append("dropout of h")
    if "zoneout" in signs:
        words.append("zoneout")
    if "mask" in signs:
        words.append("mask of ended sequences")
    return words


def routes(block: Block, node: int, t: str, before: str) -> list[tuple[str, Summary]]:
    """Return who sends gradient back to a node, in words, and how much."""
    after = "ₜ₊₁" if before == "ₜ₋₁" else "ₜ₋₁"
    edges = [e for e in block.readers[node] if e.contribution is not None]
    # of several products of the next step with a state, zoneout's is the last
    later = [block.nodes[e.target] for e in edges if e.target not in block.home]
    products = [n.id for n in later if n.op == "mul" and not n.gate and untimed(n.scope) == block.unit.path]
    mixed = [i for name in ("c*", "out*") if name in block for i in block.parts[name].members]
    mean = products[-1] if products and any(block.nodes[i].op == "mul" for i in mixed) else None
    found = []
    for e in edges:
        target = block.nodes[e.target]
        inside = e.target in block.home
        step = t if inside else after
        text = _route(block, e, target, block.home.get(e.target, ""), step, e.target == mean)
        if not text:
            where = "/".join(p for p in target.scope if not p.startswith("t="))
            text = f"to {target.display_name or target.label} " + (f"({where})" if where else "outside")
        found.append((text, e.contribution))
    return [(text, share) for text, share in found if share is not None]


def is_later(block: Block, node: ViewNode) -> bool:
    """Whether a node outside of a block belongs to another step: by its time, or as another call of the unit."""
    return node.step not in (None, block.time) or leads(node.scope, block.unit.path)


def _route(block: Block, edge: ViewEdge, target: ViewNode, home: str, step: str, mean: bool) -> str:
    """Say on which way one edge leads to a state of its step; "" where it leaves the unit."""
    cell = _is_cell(block, edge.source)
    state = "c" if cell else "h"
    gate, linear = gate_letter(target.gate), target.op in LINEAR
    if block.home.get(edge.source) == "gates":
        return f"G to {gate}{step}" if gate and linear else f"mask to [i f o]{step}"
    if gate and cell:
        return f"peephole {'P' if linear else 'p'} to {gate}{step}"
    if gate:
        return f"U to {gate}{step}" if linear else f"{target.label} in {gate}{step}"
    if home in ("norm", "squash") and "layer norm" in target.scope:
        return f"{target.label} in norm, to h{step}"
    if home:
        return f"{block.parts[home].sign} to {'c' if home in ('+', 'clip', 'c*') else 'h'}{step}"
    if not is_later(block, target):
        return ""
    if target.op == "where":
        return f"{'zoneout' if edge.argument == 1 else 'mask'} to {state}{step}"
    if "layer norm" in target.scope:
        return f"U in norm{step}"
    if target.op == "mul" and (mean or "kept" in (target.name or "")):
        return f"zoneout to {state}{step}" if mean else "drop to h′"
    if target.op == "mul" and untimed(target.scope) == block.unit.path:
        return f"⊙ {'f' if cell else 'z'}{step} to {state}{step}"
    if target.op == "add" and cell:
        return f"to c{step}"
    return f"U to h{step}" if linear and untimed(target.scope) == block.unit.path else ""


def _is_cell(block: Block, node: int) -> bool:
    return block.unit.kind == "lstm" and block.home.get(node) in ("+", "clip", "c*", "c-")


def addends(parts: Sequence[Summary]) -> tuple[list[str], str]:
    """Return arrays as texts that add up, and what they are of an array: its numbers if they are few, or its mean."""
    few = all(p.numbers is not None and len(p.numbers) <= SHOWN_NUMBERS for p in parts)
    rows = [list(p.numbers or ()) if few else [p.mean] for p in parts]
    # digits enough for the sum, which may be much smaller than what it is the sum of, and two more for small shares
    sizes = [max((abs(v) for v in row if math.isfinite(v)), default=0.0) for row in rows]
    largest, least = sizes[-1] or max(sizes), min((size for size in sizes if size), default=0.0)
    digits = max(2 - math.floor(math.log10(largest)), 0) if largest else 2
    digits = max(digits, min(-math.floor(math.log10(least)), digits + 2) if least else 0)
    known = 6 - math.floor(math.log10(max(sizes))) if max(sizes) else 6  # float32 knows seven digits
    digits = max(min(digits, known, 9), 0)
    texts = [", ".join(_fixed(v, digits) for v in row) for row in rows]
    return texts, "" if few else ", means"


def _fixed(value: float, digits: int) -> str:
    """Return a number with so many digits after its point, and no sign on a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
