"""The chart of the electronic circuit type: one block as wires, time to the right, the state a straight line on top.

::

                                            h
    c- ──●──────⊙─────────────+──●─────●────│── c      the highway and its two on-ramps
         ├ p_i  │       ┌──⊙──┘  p_o  tanh  │
         └ p_f  f    i ─┘  g     └─ o ─ ⊙ ──●── h      the gates hang below it
    x  ─────────┴────┴─────┴───────┤                   the input comes from below
    h- ╌╌╌╌╌╌╌╌╌┴╌╌╌╌┴╌╌╌╌╌┴╌╌╌╌╌╌╌╌┘                   what comes from the step before is dashed

Columns are as wide, and rows as high, as their words need; all else is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minigrad.render.block import Block, Link
from minigrad.render.chart import BACK, MARGIN, ROUND, Chart, Lines, fitted, measure
from minigrad.render.scene import Scene

_LEGEND = {
    "highway": "state",
    "forward": "feed-forward",
    "lag": "{step}",
    "peephole": "peephole",
    "backward": "gradient on its way back",
}
_OUTSIDE = 26.0
"""How far wires stand out of the frame."""

_DROP = 17.0
"""Between a gate and the line on its left that comes down to it."""

_STAGE = 11.0
_LEGEND_WIDTH = 370.0


def to_circuit(
    block: Block, *, show: Sequence[str] = ("shape",), backward: bool = False, title: str | None = None
) -> Scene:
    """Return the chart of one step.

    Args:
        block: the step, read by `minigrad.render.block.read`.
        show: any of shape, value, grad, local.
        backward: whether to draw the reverse sweep as well, with the sum of what comes back to each state.
        title: the line above the chart; the kind of the block if not given.
    """
    kind = {"lstm": _LSTM, "gru": _GRU, "rnn": _RNN}[block.unit.kind]
    return fitted(lambda most: kind(Chart(block, show, backward, most)).draw(title))


@dataclass
class _Column:
    """A gate, with the words beside the wire that leaves it and beside those that enter it."""

    gate: str
    lines: Lines
    out: Lines
    left: Lines
    right: Lines
    between: Lines = field(default_factory=list)
    peephole: Lines = field(default_factory=list)
    sees: bool = False
    x: float = 0.0
    floor: float = 0.0


class _Circuit:
    """What all blocks share: columns of gates above the lines of input and state, and what enters and leaves."""

    order = ""

    def __init__(self, chart: Chart) -> None:
        self.chart = c = chart
        self.block = block = chart.block
        self.x, self.h = ("x*" if "x*" in block else "x"), ("h*" if "h*" in block else "h-")
        self.columns: list[_Column] = []
        for gate in self.order:
            if (self.x, gate) in block.links or (self.h, gate) in block.links:
                left, right, between = (c.weight(source, gate) for source in (self.h, self.x, "gates-"))
                column = _Column(gate, c.weighted(gate), self.leaving(gate), left, right, between)
                seen = next((link.source for link in block.into(gate) if link.peephole), None)
                if seen is not None:
                    column.peephole, column.sees = c.weight(seen, gate), True
                self.columns.append(column)
        self.at = {column.gate: column for column in self.columns}
        sizes = [c.size(column.lines, 70.0) for column in self.columns]
        self.wide, self.high = max(w for w, _ in sizes), max(h for _, h in sizes)
        self.port = 22.0 if "gates-" in block else 14.0
        self.stub = 16.0 if "gates" in block else 0.0
        self.enter = 30.0
        """From the frame to the line of the input."""
        self.left = self.right = self.lowest = self.extent = self.margin_right = self.exit_o = 0.0
        self.y_x = self.y_h = self.y_gates = 0.0

    def draw(self, title: str | None) -> Scene:
        """Return the finished chart."""
        raise NotImplementedError

    # words

    def links(self, source: str, target: str) -> list[Link]:
        link = self.block.links.get((source, target))
        return [link] if link else []

    def leaving(self, gate: str) -> Lines:
        links = [
            k for (source, _), k in self.block.links.items() if source == gate and k.target not in ("gates", "f", "1-")
        ]
        return self.chart.carried(links[0], named=True) if links else []

    def carried(self, source: str, target: str) -> Lines:
        return [line for link in self.links(source, target) for line in self.chart.carried(link, named=False)]

    def returned(self, source: str, target: str) -> Lines:
        """Return what comes back along a wire, where what it carries stands elsewhere."""
        return [line for link in self.links(source, target) for line in self.chart.sent(link) + self.chart.factor(link)]

    # sizes

    def stage_size(self, name: str) -> tuple[float, float]:
        return self.chart.size([[(self.block.parts[name].sign, _STAGE, "sans", "t")]])

    def entry(self) -> float:
        """Return the room that input and state need before the first gate's inputs."""
        stages = [self.stage_size(name)[0] for name in ("x*", "h*") if name in self.block]
        return self.enter + 14.0 + (max(stages) + 28.0 if stages else 0.0)

    def first(self) -> float:
        """Return how far from the frame the first gate's middle stands."""
        column = self.columns[0]
        lower = self.entry() + measure(column.left)[0] + self.chart.beside + self.port
        words = 8.0 + measure(column.peephole)[0] + self.chart.beside + _DROP if column.sees else 0.0
        return max(lower, self.wide / 2 + max(self.entry() + (_DROP + 8.0 if column.sees else 0.0), words))

    def apart(self, a: _Column, b: _Column, above: float = 0.0) -> float:
        """Return how far two gates must stand from each other; `above` is the width of what else stands between."""
        side = self.chart.beside
        drop = self.wide / 2 + (_DROP + 10.0 + (BACK if self.chart.backward else 0.0) if b.sees else 12.0)
        upper = side + max(measure(a.out)[0], above) + drop
        lower = 2 * (self.port + side) + self.right_of(a) - self.port - side + measure(b.left)[0] + 14.0
        return max(upper, lower, self.wide + (_DROP + 16.0 if b.sees else 24.0) + self.stub)

    def right_of(self, column: _Column) -> float:
        """Return how far right of a gate's middle the words beside its input reach, and the stub of FGR with them."""
        side = self.chart.beside
        words = self.port + side + measure(column.right)[0]
        return (
            max(words + 8.0, side + measure(column.between)[0] + 8.0, self.wide / 2 + self.stub) if self.stub else words
        )

    def below(self) -> float:
        """Return how high the words beside the inputs of gates are."""
        return max(measure(lines)[1] for column in self.columns for lines in (column.left, column.right))

    # drawing

    def stage(self, name: str, x: float, y: float) -> tuple[float, float]:
        """Draw a stage in the middle of a wire; return its left and its right side."""
        box = self.chart.box(name, x, y, [[(self.block.parts[name].sign, _STAGE, "sans", "t")]], "op")
        return box.box[0], box.box[2]

    def gates(self, y: float) -> None:
        for column in self.columns:
            gate = self.block.node(column.gate).gate
            self.chart.box(column.gate, column.x, y, column.lines, gate or "squash", least=self.wide, high=self.high)
            column.floor = y + self.high / 2

    def feed(self, word: str, path: list[tuple[float, float]], style: str, side: int) -> float:
        """Lead an input along all gates and up into each of them.

        Args:
            word: the part that enters: x, h- or gates-.
            path: where its wire begins, up to the corner from which it runs to the right.
            style: of the wire.
            side: at which port of a gate it enters, -1, 0 or 1.

        Returns:
            Where the wire ends on the right.
        """
        c, y = self.chart, path[-1][1]
        source = {"x": self.x, "h-": self.h}.get(word, word)
        if source != word:
            middle = self.left + self.enter + 20.0 + self.stage_size(source)[0] / 2
            start, end = self.stage(source, middle, y)
            c.wire([*path, (start, y)], style, word, self.links(word, source))
            c.reverse((path[-1][0], y), (start, y), self.links(word, source))
            path = [(end, y)]
        fed = [column for column in self.columns if (source, column.gate) in self.block.links]
        for k, column in enumerate(fed):
            x = column.x + side * self.port
            link = self.links(source, column.gate)
            if k == len(fed) - 1:
                c.wire([*path, (x, y), (x, column.floor)], style, source, link)
            else:
                c.wire([(x, y), (x, column.floor)], style, source, link)
                c.junction(x, y, style)
            if side:
                words, anchor = (column.right, "start") if side > 0 else (column.left, "end")
                c.reverse((x, y), (x, column.floor), link, side)
                gap = c.beside if c.learns(link) else 7.0
                c.words(words, x + side * gap, column.floor + 9.0, anchor)
            else:
                c.reverse((x, y), (x, self.y_h + 2.0), link)
                c.words(column.between, x + c.beside, self.y_h + 8.0)
        return max((column.x + side * self.port for column in fed), default=path[-1][0])

    def rise(self, column: _Column, to: float, link: list[Link], turn: float | None = None) -> None:
        """Lead a gate's result up, and at the end to the right if `turn` says so; write what it carries beside it."""
        c, top = self.chart, column.floor - self.high
        points = [(column.x, top), (column.x, to)] + ([(turn, to)] if turn is not None else [])
        c.wire(points, "forward", column.gate, link)
        c.reverse((column.x, top), (column.x, to + (14.0 if turn is not None else 0.0)), link)
        c.words(column.out, column.x + c.beside, top - 8.0 - measure(column.out)[1])

    def terminal(self, name: str, symbol: str, y: float, right: bool, numbers: bool = True) -> None:
        """Write what enters on the left, or leaves on the right."""
        x = self.right + _OUTSIDE + 6.0 if right else self.left - _OUTSIDE - 6.0
        lines = self.chart.state(name, symbol, numbers=numbers)
        # the symbol stands at the wire's height, its numbers below
        high, head = measure(lines)[1], measure(lines[:1])[1]
        if not right:
            self.chart.entrance(name, self.left - _OUTSIDE / 2, y)
        self.chart.place(name, x, y + (high - head) / 2, lines, "start" if right else "end")
        self.lowest = max(self.lowest, y + high - head / 2)

    def exits(self, x: float, y: float, top: float, level: float) -> None:
        """Lead h up out of the block, and to the right."""
        c, name = self.chart, self.chart.output
        c.junction(x, y, "forward")
        c.wire([(x, y), (x, top)], "forward", name)
        c.wire([(x, y), (x, level), (self.right + _OUTSIDE, level)], "forward", name)
        c.reverse((x, y - 12.0), (x, top + 8.0), c.leaving(name, later=False))
        c.reverse((x, level), (self.right + _OUTSIDE, level), c.leaving(name, later=True))
        c.words([[(c.h, 17.0, "oblique", "t")]], x, top - 24.0, "middle")
        self.terminal(name, c.h, level, right=True)

    def rows(self, base: float) -> None:
        """Set the heights of the lines of x, of h and, of FGR, of the gates of the step before."""
        gap = 46.0 if "x*" in self.block and "h*" in self.block else 34.0 if self.x != "x" or self.h != "h-" else 22.0
        self.y_x = base + 9.0 + self.below() + 10.0
        self.y_h = self.y_x + gap
        self.y_gates = self.y_h
        if "gates-" in self.block:
            height = measure(self.chart.state("h-"))[1]
            words = max(measure(column.between)[1] for column in self.columns)
            self.y_gates = self.y_h + max(24.0, height + 8.0, words + 16.0)

    def around(self, top: float, bottom: float) -> None:
        """Draw frame, input, legend and the sums of what comes back."""
        c = self.chart
        c.frame(self.left, top, self.right, bottom)
        x = self.left + self.enter
        lines = c.state("x")
        wide, high = measure(lines)
        c.place("x", x, bottom + _OUTSIDE + 5.0 + high / 2, lines, "middle")
        low = bottom + _OUTSIDE + 5.0 + high
        start = max(x + wide / 2 + 24.0, self.left + 90.0)
        edge = self.right + _OUTSIDE + 6.0 + self.margin_right
        sums = c.ledgers()
        entries = c.lines(_LEGEND)
        if sums:
            end = start + sum(ledger.size[0] + 16.0 for ledger in sums)
            end += 8.0 + _LEGEND_WIDTH
            y = bottom + 18.0 if end < self.right + 6.0 else max(bottom + 18.0, self.lowest + 10.0)
            for ledger in sums:
                c.write(ledger, start, y)
                start += ledger.size[0] + 16.0
                low = max(low, y + ledger.size[1])
            y += 10.0
            right, end = c.legend(entries, start + 8.0, y)
            right_2, end_2 = c.key_to_signs(right + 24.0, y)
            self.extent, self.lowest = max(edge, right, right_2), max(low, end, end_2, self.lowest)
            return
        right, end = c.legend(entries, start, max(bottom + _OUTSIDE + 20.0, self.lowest + 6.0), across=True)
        right_2, end = c.key_to_signs(start, end, across=True)
        self.extent, self.lowest = max(edge, right, right_2), max(low, end)


class _LSTM(_Circuit):
    order = "figo"

    def draw(self, title: str | None) -> Scene:
        c = self.chart
        self._words()
        self._rows()
        self._columns()
        self._shift(c.heading(title, self.x_h) + 50.0 - self.top)
        self.bottom = max(self.y_gates, self.y_out) + 22.0

        self.gates(self.y_gate)
        self._highway()
        self._ramps()
        self._peepholes()
        self._way_out()
        self._way_in()
        self.around(self.top, self.bottom)
        return c.finish(self.extent, self.lowest)

    def _shift(self, by: float) -> None:
        """Move all rows down, the highway from 0."""
        for row in ("y0", "y_peep", "y_mid", "y_gate", "y_x", "y_h", "y_gates", "y_out", "top"):
            setattr(self, row, getattr(self, row) + by)

    def _words(self) -> None:
        """Say what stands beside the wires."""
        c, block = self.chart, self.block
        self.coupled = ("i", "f") in block.links
        self.forget, self.inward = "fc" in block, "ig" in block
        self.target = "ig" if self.inward else "+"
        self.product = self.carried("fc", "+")
        self.ramp = self.carried("ig", "+") if self.inward else []
        self.back_c = self.returned("c-", "fc" if self.forget else "+")
        self.seen = "norm" if "norm" in block else "squash" if "squash" in block else "oh" if "oh" in block else "out*"
        self.into = self.returned(c.cell, self.seen)
        self.squashed = self.carried("squash", "oh") if "squash" in block else []
        self.f_out = self.leaving("f") if self.coupled else []
        self.halved = self.returned("i", "f") if self.coupled else []

    def _rows(self) -> None:
        """Set the heights of everything, the highway at 0."""
        self.y0 = 0.0
        c, block = self.chart, self.block
        band = max([26.0, *(measure(lines)[1] for lines in (self.ramp, self.f_out))]) + 14.0
        self.y_peep = ROUND + 15.0
        self.y_mid = 2 * ROUND + band + 8.0
        outs = max(measure(column.out)[1] for column in self.columns if column.gate != "o") + 16.0
        peep = max((measure(col.peephole)[1] for col in self.columns if col.gate in "fi"), default=0.0)
        over = [self.y_mid + (ROUND if self.inward else 0.0) + outs, self.y_peep + 12.0 + peep + outs]
        if self.coupled:
            over.append(self.y_mid + ROUND + 22.0 + peep)
        gate_top = max(over)
        self.boxes = [name for name in ("norm", "squash") if name in block]
        self.sizes = {name: self.activation_size(name) for name in self.boxes}
        down = (
            16.0
            + measure(self.into)[1]
            + sum(h + 22.0 for _, h in self.sizes.values())
            + measure(self.squashed)[1]
            + 8.0
            + ROUND
        )
        self.y_gate = max(gate_top + self.high / 2, down)
        base = self.y_gate + self.high / 2
        self.rows(base)
        self.y_out = self.y_gates
        if "gates" in block:
            self.remembered = [self.returned(gate, "gates") for gate in "ifo" if (gate, "gates") in block.links]
            self.y_out = self.y_gates + max(26.0, *(measure(lines)[1] + 18.0 for lines in self.remembered))
            self.y_out = max(self.y_out, self.y_h + measure(c.state(c.output))[1] + 10.0)
            if ("gates-", "gates") in block.links:
                self.y_out = max(self.y_out, self.y_gates + self.stage_size("gates")[1] / 2 + 18.0)
        self.over_line = BACK + 6.0 if c.backward else 8.0
        above = max(measure(self.product)[1], measure(self.back_c)[1]) + self.over_line
        self.bypass = "c*" in block and ("c-", "c*") in block.links
        self.top = -(max(above, ROUND) + 20.0 + (36.0 if self.bypass else 0.0))

    def _columns(self) -> None:
        """Set the places of everything from the left."""
        c, block = self.chart, self.block
        side = c.beside
        lefts = [measure(c.state(name))[0] for name in ("c-", "h-", "gates-") if name in block]
        self.left = MARGIN + max(lefts) + _OUTSIDE + 12.0
        need = measure(self.back_c)[0] + 36.0 + ROUND
        x = self.x_f = self.left + max(self.first(), need if self.forget and not self.coupled else 0.0)
        if self.coupled:
            self.x_f = self.left + need
            self.reach_f = side + measure(self.f_out)[0]  # right of the way up; then what comes back to the other gate
            x = max(x, self.x_f + max(self.reach_f, ROUND) + measure(self.halved)[0] + 30.0)
            if self.at["i"].sees:
                x = max(x, self.x_f + ROUND + 8.0 + measure(self.at["i"].peephole)[0] + side + _DROP + self.wide / 2)
        for k, column in enumerate(self.columns):
            if k:
                before = self.columns[k - 1]
                extra = measure(self.ramp)[0] if before.gate == "g" else 0.0
                if column.sees and column.gate == "i":
                    extra = max(extra, measure(column.peephole)[0] + 4.0)
                x += self.apart(before, column, extra)
                if before.gate == "g" and "clip" in block:
                    x += self.stage_size("clip")[0] + 10.0
            column.x = x
        self.x_g = self.at["g"].x
        if self.forget and self.product:
            lack = (
                measure(self.product)[0]
                + 2 * ROUND
                + 24.0
                - (self.x_g - (self.at["f"].x if "f" in self.at else self.x_f))
            )
            if lack > 0:
                for column in self.columns:
                    column.x += lack if column.x >= self.x_g else 0.0
        self.x_g = self.at["g"].x
        self.x_f = self.at["f"].x if "f" in self.at else self.x_f
        if "o" in self.at:
            out = self.at["o"]
            self.exit_o = max(self.wide / 2, self.right_of(out) + 8.0 if self.stub else 0.0)
            self.x_t = out.x + self.exit_o + max(measure(out.out)[0] + 26.0, 44.0) + ROUND
            if self.stub:
                box = c.size([[(block.parts["gates"].sign, _STAGE, "sans", "t")]])[0] / 2
                self.x_t = max(
                    self.x_t,
                    out.x + self.right_of(out) + side + max(measure(k)[0] for k in self.remembered) + 12.0 + box,
                )
            if out.sees:
                self.x_t = max(
                    self.x_t,
                    out.x - self.wide / 2 - _DROP + side + measure(out.peephole)[0] + 26.0 + self.activation_half(),
                )
        else:
            self.x_t = (
                self.x_g
                + max(side + max(measure(self.at["g"].out)[0], measure(self.ramp)[0]) + 24.0, self.wide / 2 + 24.0)
                + self.activation_half()
            )
            self.x_t = max(self.x_t, self.x_g + self.right_of(self.at["g"]) + 24.0)
            self.x_t += self.stage_size("clip")[0] + 10.0 if "clip" in block else 0.0
        reach = side + max(measure(self.into)[0], measure(self.squashed)[0]) + 16.0
        self.x_h = self.x_t + max(reach, self.activation_half() + 16.0, 40.0)
        if "out*" in block:
            wide = self.stage_size("out*")[0]
            self.raw = self.carried(c.last("+", "clip", "squash", "oh"), "out*")
            self.x_stage = self.x_t + max(ROUND + 22.0 + measure(self.raw)[0], reach - wide / 2) + wide / 2
            self.x_h = self.x_stage + wide / 2 + 24.0
        if "c*" in block:
            self.x_c = self.x_t + 24.0 + self.stage_size("c*")[0] / 2
            self.x_h = max(self.x_h, self.x_c + self.stage_size("c*")[0] / 2 + 22.0)
        self.right = self.x_h + 24.0
        rights = [(c.kept, c.c), (c.output, c.h)] + ([("gates", c.letters["gates"])] if "gates" in block else [])
        self.margin_right = max(measure(c.state(name, symbol))[0] for name, symbol in rights)

    def _highway(self) -> None:
        """Draw the cell from the step before to the next one."""
        c, block = self.chart, self.block
        self.entrance = self.left - _OUTSIDE
        self.terminal("c-", c.letters["c-"], self.y0, right=False)
        here = self.entrance
        if self.forget:
            c.dot("fc", self.x_f, self.y0, "mul")
            c.wire([(here, self.y0), (self.x_f - ROUND, self.y0)], "highway", "c-", self.links("c-", "fc"))
            c.reverse((self.left, self.y0), (self.x_f - ROUND, self.y0), self.links("c-", "fc"))
            c.words(
                self.back_c,
                (self.left + self.x_f - ROUND) / 2,
                self.y0 - self.over_line - measure(self.back_c)[1],
                "middle",
            )
            here = self.x_f + ROUND
        c.dot("+", self.x_g, self.y0, "add")
        old = "fc" if self.forget else "c-"
        c.wire([(here, self.y0), (self.x_g - ROUND, self.y0)], "highway", old, self.links(old, "+"))
        c.reverse((max(here, self.left), self.y0), (self.x_g - ROUND, self.y0), self.links(old, "+"))
        words = self.product if self.forget else self.back_c
        c.words(
            words, (max(here, self.left) + self.x_g - ROUND) / 2, self.y0 - self.over_line - measure(words)[1], "middle"
        )
        here = self.x_g + ROUND
        if "clip" in block:
            left, right = self.stage("clip", here + 16.0 + self.stage_size("clip")[0] / 2, self.y0)
            c.wire([(here, self.y0), (left, self.y0)], "highway", "+", self.links("+", "clip"))
            c.reverse((here, self.y0), (left, self.y0), self.links("+", "clip"))
            here = right
        if "c*" in block:
            left, right = self.stage("c*", self.x_c, self.y0)
            c.wire([(here, self.y0), (left, self.y0)], "highway", c.cell, self.links(c.cell, "c*"))
            c.reverse((here, self.y0), (left, self.y0), self.links(c.cell, "c*"))
            here = right
            if self.bypass:
                y_by = self.top + 27.0
                c.wire(
                    [
                        (self.left + 12.0, self.y0),
                        (self.left + 12.0, y_by),
                        (self.x_c, y_by),
                        (self.x_c, self.y0 - 17.0),
                    ],
                    "lag",
                    "c-",
                    self.links("c-", "c*"),
                )
                c.junction(self.left + 12.0, self.y0, "highway")
        c.wire([(here, self.y0), (self.right + _OUTSIDE, self.y0)], "highway", c.kept)
        later = c.leaving(c.kept, later=True)
        far = self.right + 6.0 if later or "c*" in block else self.x_t
        c.reverse((here, self.y0), (far, self.y0), later if "c*" in block else c.cell)
        self.terminal(c.kept, c.c, self.y0, right=True)

    def _ramps(self) -> None:
        """Lead the gates to the highway."""
        c = self.chart
        side = c.beside
        if "f" in self.at:
            self.rise(self.at["f"], self.y0 + ROUND, self.links("f", "fc"))
        if self.inward:
            c.dot("ig", self.x_g, self.y_mid, "mul")
            self.rise(self.at["i"], self.y_mid, self.links("i", "ig"), self.x_g - ROUND)
            c.wire(
                [(self.x_g, self.y_mid - ROUND), (self.x_g, self.y0 + ROUND)], "forward", "ig", self.links("ig", "+")
            )
            c.reverse((self.x_g, self.y_mid - ROUND), (self.x_g, self.y0 + ROUND), self.links("ig", "+"))
            c.words(self.ramp, self.x_g + side, (self.y0 + self.y_mid) / 2 - measure(self.ramp)[1] / 2)
        self.rise(self.at["g"], self.y_mid + ROUND if self.inward else self.y0 + ROUND, self.links("g", self.target))
        if self.coupled:
            c.dot("f", self.x_f, self.y_mid, "forget", ROUND + 1)
            x_i = self.at["i"].x
            c.wire([(x_i, self.y_mid), (self.x_f + ROUND + 1, self.y_mid)], "forward", "i", self.links("i", "f"))
            c.junction(x_i, self.y_mid, "forward")
            c.reverse((x_i, self.y_mid), (self.x_f + ROUND + 1, self.y_mid), self.links("i", "f"))
            c.words(
                self.halved,
                (x_i + self.x_f + max(self.reach_f, ROUND)) / 2,
                self.y_mid - side - measure(self.halved)[1],
                "middle",
            )
            c.wire(
                [(self.x_f, self.y_mid - ROUND - 1), (self.x_f, self.y0 + ROUND)], "forward", "f", self.links("f", "fc")
            )
            c.reverse((self.x_f, self.y_mid - ROUND - 1), (self.x_f, self.y0 + ROUND), self.links("f", "fc"))
            c.words(self.f_out, self.x_f + side, (self.y0 + self.y_mid) / 2 - measure(self.f_out)[1] / 2)

    def _peepholes(self) -> None:
        """Lead the cell to the gates that see it."""
        c = self.chart
        side = c.beside
        lookers = [column for column in self.columns if column.sees and column.gate in "fi"]
        drops = [(column, column.x - self.wide / 2 - _DROP) for column in lookers]
        for k, (column, drop) in enumerate(drops):
            points = [(drop, self.y_gate), (column.x - self.wide / 2, self.y_gate)]
            first = min(drops[0][1], (self.x_f if self.forget else self.x_g) - ROUND - 28.0)
            bend = self.y_mid + ROUND + 14.0 if self.coupled else self.y_peep
            if drop > first + 0.5:
                points = [(first, self.y_peep if k else self.y0), (first, bend), (drop, bend), *points]
            else:
                points = [(drop, self.y0), *points]
            if not k:
                c.junction(first, self.y0, "peephole")
            else:
                c.junction(first, self.y_peep, "peephole")
            c.wire(points, "peephole", "peep", self.links("c-", column.gate))
            words_top = bend + 6.0 if column.gate == "i" else self.y_gate - 14.0 - measure(column.peephole)[1]
            c.words(column.peephole, drop - side, words_top, "end")
            c.reverse((drop, bend + 4.0), (drop, self.y_gate), self.links("c-", column.gate), -1.0)
        if "o" in self.at and self.at["o"].sees:
            out = self.at["o"]
            drop = out.x - self.wide / 2 - _DROP
            c.junction(drop, self.y0, "peephole")
            c.wire(
                [(drop, self.y0), (drop, self.y_gate), (out.x - self.wide / 2, self.y_gate)],
                "peephole",
                "peep-o",
                self.links(c.cell, "o"),
            )
            c.words(out.peephole, drop + side, self.y_peep, "start")
            c.reverse((drop, self.y0 + 6.0), (drop, self.y_gate), self.links(c.cell, "o"))

    def _way_out(self) -> None:
        """Lead the cell through activation and output gate out of the block."""
        c, block = self.chart, self.block
        side = c.beside
        y = self.y0
        source = c.cell
        c.junction(self.x_t, self.y0, "highway")
        end = self.y_gate - ROUND if "oh" in block else self.y_gate
        steps = [*self.boxes]
        words_at = {0: self.into}
        for k, name in enumerate(steps):
            wide, high = self.sizes[name]
            room = (
                (end - self.y0)
                - sum(h for _, h in self.sizes.values())
                - measure(self.into)[1]
                - measure(self.squashed)[1]
            )
            gap = room / (len(steps) + 1)
            start = y
            stop = start + gap + (measure(self.into)[1] if k == 0 else 0.0)
            c.wire([(self.x_t, start), (self.x_t, stop)], "forward", source if k else "cell", self.links(source, name))
            c.reverse((self.x_t, start), (self.x_t, stop), self.links(source, name))
            c.words(words_at.get(k, []), self.x_t + side, (start + stop) / 2 - measure(words_at.get(k, []))[1] / 2)
            c.box(
                name,
                self.x_t,
                stop + high / 2,
                [[(block.parts[name].sign, 14.0, "sans", "t")]],
                "squash" if name == "squash" else "op",
                least=wide,
            )
            y, source = stop + high, name
        if "oh" in block:
            c.wire([(self.x_t, y), (self.x_t, end)], "forward", source if steps else "cell", self.links(source, "oh"))
            c.reverse((self.x_t, y), (self.x_t, end), self.links(source, "oh"))
            words = self.squashed if steps else self.into
            c.words(words, self.x_t + side, (y + end) / 2 - measure(words)[1] / 2)
            c.dot("oh", self.x_t, self.y_gate, "mul")
            out = self.at["o"]
            c.wire(
                [(out.x + self.wide / 2, self.y_gate), (self.x_t - ROUND, self.y_gate)],
                "forward",
                "o",
                self.links("o", "oh"),
            )
            c.reverse((out.x + self.exit_o, self.y_gate), (self.x_t - ROUND, self.y_gate), self.links("o", "oh"))
            middle = (out.x + self.exit_o + self.x_t - ROUND) / 2
            c.words(out.out, middle, self.y_gate - side - measure(out.out)[1], "middle")
            y, path, source = self.y_gate, [(self.x_t + ROUND, self.y_gate)], "oh"
        else:
            path = [(self.x_t, y), (self.x_t, self.y_gate)]
        if "out*" in block:
            left, right = self.stage("out*", self.x_stage, self.y_gate)
            c.wire([*path, (left, self.y_gate)], "forward", source, self.links(source, "out*"))
            c.reverse((path[-1][0], self.y_gate), (left, self.y_gate), self.links(source, "out*"))
            c.words(self.raw, path[-1][0] + 6.0, self.y_gate + side, "start")
            path = [(right, self.y_gate)]
        c.wire([*path, (self.x_h, self.y_gate)], "forward", c.output, arrow=False)
        c.reverse((path[-1][0], self.y_gate), (self.x_h, self.y_gate), c.output)
        self.exits(self.x_h, self.y_gate, self.top - 24.0, self.y_h)

    def _way_in(self) -> None:
        """Lead input and state to the gates."""
        c, block = self.chart, self.block
        self.terminal("h-", c.letters["h-"], self.y_h, right=False)
        self.feed(
            "x", [(self.left + self.enter, self.bottom + _OUTSIDE), (self.left + self.enter, self.y_x)], "forward", 1
        )
        reach = self.feed("h-", [(self.entrance, self.y_h)], "lag", -1)
        if ("h-", "out*") in block.links:
            c.wire(
                [(reach, self.y_h), (self.x_stage, self.y_h), (self.x_stage, self.y_gate + 17.0)],
                "lag",
                self.h,
                self.links("h-", "out*"),
            )
        if "gates-" in block:
            self.terminal("gates-", c.letters["gates-"], self.y_gates, right=False)
            reach = self.feed("gates-", [(self.entrance, self.y_gates)], "lag", 0)
            self.collect(self.y_gate, self.y_out, self.x_t)
            old = self.links("gates-", "gates")
            if old:  # sequences that have ended keep theirs
                top = self.y_out - self.stage_size("gates")[1] / 2
                c.wire([(reach, self.y_gates), (self.x_t, self.y_gates), (self.x_t, top)], "lag", "gates-", old)
                c.junction(reach, self.y_gates, "lag")

    def activation_size(self, name: str) -> tuple[float, float]:
        return self.chart.size([[(self.block.parts[name].sign, 14.0, "sans", "t")]], 52.0)

    def activation_half(self) -> float:
        return max([self.activation_size(n)[0] / 2 for n in ("norm", "squash") if n in self.block] + [ROUND])

    def collect(self, y_gate: float, y_out: float, x: float) -> None:
        """Lead the three gates together, to be remembered."""
        c = self.chart
        lines: Lines = [[(self.block.parts["gates"].sign, _STAGE, "sans", "t")]]
        half = c.size(lines)[0] / 2
        c.box("gates", x, y_out, lines, "op")
        given = [column for column in self.columns if (column.gate, "gates") in self.block.links]
        for k, column in enumerate(given):
            start, down = column.x + self.wide / 2, column.x + self.right_of(column)
            points = [(start, y_gate), (down, y_gate), (down, y_out)]
            if k == 0:
                points.append((x - half, y_out))
            else:
                c.junction(down, y_out, "forward")
            c.wire(
                points,
                "forward",
                "gates-sum" if column.gate != "o" else "o",
                self.links(column.gate, "gates"),
                arrow=k == 0,
            )
            if column.gate == "o":
                c.junction(down, y_gate, "forward")
            lines = self.returned(column.gate, "gates")
            c.words(lines, down + c.beside, y_out - 9.0 - measure(lines)[1])
            c.reverse((down, y_out - 12.0 - measure(lines)[1]), (down, y_out), self.links(column.gate, "gates"))
        c.wire([(x + half, y_out), (self.right + _OUTSIDE, y_out)], "forward", "gates")
        self.terminal("gates", c.letters["gates"], y_out, right=True)


class _GRU(_Circuit):
    order = "zrun"

    def draw(self, title: str | None) -> Scene:
        c, block = self.chart, self.block
        side, late = c.beside, "u" in block
        self.at["n"].sees = True  # the product with r comes to it from the left
        kept, ramp, shrunk = self.carried("zh", "+"), self.carried("zn", "+"), self.carried("1-", "zn")
        back_h, back_z, back_r = self.returned("h-", "zh"), self.returned("z", "1-"), self.returned("r", "rh")
        reset, held = self.carried("rh", "n"), self.returned(self.h, "rh")
        # rows
        band = max(26.0, measure(ramp)[1]) + 14.0
        y_mid = 2 * ROUND + max(band, measure(shrunk)[1] + side, measure(back_z)[1] + side)
        y_reset = y_mid + 2 * ROUND + max(16.0, measure(reset)[1] + 8.0)
        outs = max(measure(column.out)[1] for column in self.columns) + 16.0
        y_gate = y_reset + max(ROUND + outs, measure(back_r)[1] + 24.0) + self.high / 2
        self.rows(y_gate + self.high / 2)
        over_line = BACK + 6.0 if c.backward else 8.0
        bypass = ("h-", "out*") in block.links
        above = max(measure(kept)[1], measure(back_h)[1]) + over_line
        top = -(max(above, ROUND) + 20.0 + (36.0 if bypass else 0.0))
        # columns
        self.left = MARGIN + measure(c.state("h-"))[0] + _OUTSIDE + 12.0
        z, r, n = self.at["z"], self.at["r"], self.at["n"]
        z.x = self.left + max(self.first(), measure(back_h)[0] + 36.0 + ROUND)
        r.x = z.x + self.apart(z, r)
        if late:
            u = self.at["u"]
            u.x = x_reset = r.x + max(self.apart(r, u), side + measure(r.out)[0] + 20.0 + ROUND)
            n.x = u.x + max(self.apart(u, n), ROUND + measure(reset)[0] + 24.0)
        else:
            room = max(self.right_of(r), side + measure(r.out)[0], self.wide / 2) + 22.0
            x_reset = r.x + room + 12.0
            n.x = x_reset + max(
                ROUND + measure(reset)[0] + 24.0,
                side + measure(held)[0] + 16.0 + self.wide / 2 + _DROP,
                ROUND + 14.0 + self.wide / 2 + _DROP,
            )
        x_minus = (z.x + n.x) / 2
        need = max(measure(shrunk)[0], measure(back_z)[0]) + 3 * ROUND + 24.0
        n.x += max(0.0, 2 * (need - (x_minus - z.x)), measure(kept)[0] + 2 * ROUND + 24.0 - (n.x - z.x))
        x_minus = (z.x + n.x) / 2
        end = n.x + max(
            side + max(measure(ramp)[0], measure(n.out)[0]) + 14.0, self.right_of(n) + 14.0, self.wide / 2 + 16.0
        )
        x_out = n.x + ROUND + 18.0 + self.stage_size("out*")[0] / 2 if "out*" in block else 0.0
        x_h = max(end, x_out + self.stage_size("out*")[0] / 2 + 20.0 if "out*" in block else 0.0)
        self.right = x_h + 24.0
        self.margin_right = measure(c.state(c.output, c.h))[0]

        y0 = c.heading(title, x_h) + 50.0 - top
        y_mid, y_reset, y_gate, top = y_mid + y0, y_reset + y0, y_gate + y0, top + y0
        self.y_x, self.y_h = self.y_x + y0, self.y_h + y0
        bottom = self.y_h + 22.0
        self.gates(y_gate)
        # the highway
        self.terminal("h-", c.letters["h-"], y0, right=False)
        c.dot("zh", z.x, y0, "mul")
        c.dot("+", n.x, y0, "add")
        c.wire([(self.left - _OUTSIDE, y0), (z.x - ROUND, y0)], "highway", "h-", self.links("h-", "zh"))
        c.reverse((self.left, y0), (z.x - ROUND, y0), self.links("h-", "zh"))
        c.words(back_h, (self.left + 14.0 + z.x - ROUND) / 2, y0 - over_line - measure(back_h)[1], "middle")
        c.wire([(z.x + ROUND, y0), (n.x - ROUND, y0)], "highway", "zh", self.links("zh", "+"))
        c.reverse((z.x + ROUND, y0), (n.x - ROUND, y0), self.links("zh", "+"))
        c.words(kept, (z.x + n.x) / 2, y0 - over_line - measure(kept)[1], "middle")
        here = n.x + ROUND
        if "out*" in block:
            left, right = self.stage("out*", x_out, y0)
            c.wire([(here, y0), (left, y0)], "highway", "+", self.links("+", "out*"))
            c.reverse((here, y0), (left, y0), self.links("+", "out*"))
            here = right
            if bypass:
                start, y_by = self.left + 12.0, top + 27.0
                c.wire(
                    [(start, y0), (start, y_by), (x_out, y_by), (x_out, y0 - 17.0)],
                    "lag",
                    "h-",
                    self.links("h-", "out*"),
                )
        c.wire([(here, y0), (self.right + _OUTSIDE, y0)], "highway", c.output)
        far = self.right + _OUTSIDE - 6.0 if c.leaving(c.output, later=True) else x_h
        c.reverse((here, y0), (far, y0), c.output)
        self.terminal(c.output, c.h, y0, right=True)
        c.junction(x_h, y0, "highway")
        c.wire([(x_h, y0), (x_h, top - 24.0)], "forward", c.output)
        c.reverse((x_h, y0 - 12.0), (x_h, top - 16.0), c.leaving(c.output, later=False))
        c.words([[(c.h, 17.0, "oblique", "t")]], x_h, top - 48.0, "middle")
        # the gates' ways
        self.rise(z, y0 + ROUND, self.links("z", "zh"))
        c.dot("1-", x_minus, y_mid, "op")
        c.dot("zn", n.x, y_mid, "mul")
        c.junction(z.x, y_mid, "forward")
        c.wire([(z.x, y_mid), (x_minus - ROUND, y_mid)], "forward", "z", self.links("z", "1-"))
        c.reverse((z.x + (BACK + 2.0 if c.backward else 0.0), y_mid), (x_minus - ROUND, y_mid), self.links("z", "1-"))
        c.words(back_z, (z.x + x_minus - ROUND) / 2, y_mid - side - measure(back_z)[1], "middle")
        c.wire([(x_minus + ROUND, y_mid), (n.x - ROUND, y_mid)], "forward", "1-", self.links("1-", "zn"))
        c.reverse((x_minus + ROUND, y_mid), (n.x - ROUND, y_mid), self.links("1-", "zn"))
        c.words(shrunk, (x_minus + n.x) / 2, y_mid - side - measure(shrunk)[1], "middle")
        c.wire([(n.x, y_mid - ROUND), (n.x, y0 + ROUND)], "forward", "zn", self.links("zn", "+"))
        c.reverse((n.x, y_mid - ROUND), (n.x, y0 + ROUND), self.links("zn", "+"))
        c.words(ramp, n.x + side, (y0 + y_mid) / 2 - measure(ramp)[1] / 2)
        self.rise(n, y_mid + ROUND, self.links("n", "zn"))
        self.rise(r, y_reset, self.links("r", "rh"), x_reset - ROUND)
        c.dot("rh", x_reset, y_reset, "mul")
        drop = n.x - self.wide / 2 - _DROP
        c.wire(
            [(x_reset + ROUND, y_reset), (drop, y_reset), (drop, y_gate), (n.x - self.wide / 2, y_gate)],
            "forward", "rh", self.links("rh", "n"),
        )  # fmt: skip
        c.reverse((drop, y_reset + 12.0), (drop, y_gate), self.links("rh", "n"), -1.0)
        c.words(reset, x_reset + ROUND + 8.0, y_reset - 8.0 - measure(reset)[1])
        # what comes in
        self.feed("x", [(self.left + self.enter, bottom + _OUTSIDE), (self.left + self.enter, self.y_x)], "forward", 1)
        corner = self.left + 12.0
        c.junction(corner, y0, "highway")
        if late:
            self.rise(self.at["u"], y_reset + ROUND, self.links("u", "rh"))
        else:
            self.columns.insert(2, _Column("rh", [], [], [], [], x=x_reset + self.port, floor=y_reset + ROUND))
            c.words(held, x_reset + 8.0, y_reset + ROUND + 9.0)
        self.feed("h-", [(corner, y0), (corner, self.y_h)], "lag", -1)
        self.around(top, bottom)
        return c.finish(self.extent, self.lowest)


class _RNN(_Circuit):
    order = "a"

    def draw(self, title: str | None) -> Scene:
        c, block = self.chart, self.block
        column, side = self.columns[0], c.beside
        y_gate = max(self.high / 2, 17.0, measure(column.out)[1] + side)
        self.rows(y_gate + self.high / 2)
        top = -34.0
        self.left = MARGIN + measure(c.state("h-"))[0] + _OUTSIDE + 12.0
        column.x = self.left + self.first()
        x_h = column.x + max(self.wide / 2, self.right_of(column)) + 44.0
        if "out*" in block:
            wide = self.stage_size("out*")[0]
            x_out = column.x + self.wide / 2 + measure(column.out)[0] + 34.0 + wide / 2
            x_out = max(x_out, column.x + self.right_of(column) + 14.0)
            x_h = max(x_h, x_out + wide / 2 + 26.0)
        self.right = x_h + 26.0
        self.margin_right = measure(c.state(c.output, c.h))[0]

        y0 = c.heading(title, x_h) + 50.0 - top
        y_gate, top = y_gate + y0, top + y0
        self.y_x, self.y_h = self.y_x + y0, self.y_h + y0
        bottom = self.y_h + 22.0
        self.gates(y_gate)
        start = column.x + self.wide / 2
        if "out*" in block:
            left, right = self.stage("out*", x_out, y_gate)
            c.wire([(start, y_gate), (left, y_gate)], "forward", "a", self.links("a", "out*"))
            c.reverse((start, y_gate), (left, y_gate), self.links("a", "out*"))
            c.words(column.out, (start + left) / 2, y_gate - side - measure(column.out)[1], "middle")
            start = right
        c.wire([(start, y_gate), (x_h, y_gate)], "forward", c.output, arrow=False)
        c.reverse((start, y_gate), (x_h, y_gate), c.output)
        self.exits(x_h, y_gate, top - 24.0, self.y_h)
        self.terminal("h-", c.letters["h-"], self.y_h, right=False)
        self.feed("x", [(self.left + self.enter, bottom + _OUTSIDE), (self.left + self.enter, self.y_x)], "forward", 1)
        reach = self.feed("h-", [(self.left - _OUTSIDE, self.y_h)], "lag", -1)
        if ("h-", "out*") in block.links:
            c.wire(
                [(reach, self.y_h), (x_out, self.y_h), (x_out, y_gate + 17.0)], "lag", self.h, self.links("h-", "out*")
            )
        self.around(top, bottom)
        return c.finish(self.extent, self.lowest)
