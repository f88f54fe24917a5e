"""The chart of "LSTM: A Search Space Odyssey": the cell in the centre, the block input below, three gates around it.

::

                      h ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┐
                      │                   ╎     What comes from the step before is dashed: the block's output, led
        x ──► o ─────►⊙                   ╎     around to the gates, and the cell on its way to the forget gate's
      ┌╌╌╌╌►  ▲      tanh                 ╎     product and to the peepholes of i and f.
      ╎       └──────[c]◄──── ⊙           ╎
      ╎       ┌╌╌╌╌╌╌ ▲ └╌╌┐  ▲           ╎
        x ──► i ─────►⊙    └╌►f ◄╌╌╌╌╌╌╌╌╌┤
      ├╌╌╌╌►          g       ▲           ╎
      └╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┴╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┘

Rows and columns are as far apart as their words need; all else is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minigrad.errors import UsageError
from minigrad.render.block import Block, Link
from minigrad.render.chart import LEADING, MARGIN, NAME, ROUND, TERM, Chart, Lines, fitted, measure
from minigrad.render.scene import Scene

_LEGEND = {
    "forward": "feed-forward",
    "lag": "from the step before",
    "peephole": "peephole",
    "lag peephole": "peephole, from the step before",
    "backward": "gradient on its way back",
}
_GAP = 20.0
_PORT = 13.0
"""How far from a gate's middle its inputs enter."""


def to_odyssey(
    block: Block, *, show: Sequence[str] = ("shape",), backward: bool = False, title: str | None = None
) -> Scene:
    """Return the chart of one step.

    Args:
        block: the step of an LSTM, read by `minigrad.render.block.read`.
        show: any of shape, value, grad, local, gain, flow.
        backward: whether to draw the reverse sweep as well, with the sum of what comes back to each state.
        title: the line above the chart.

    Raises:
        UsageError: the block is no LSTM, or does things for which this chart has no place.
    """
    if block.unit.kind != "lstm":
        raise UsageError(f"the odyssey is a chart of the LSTM, and this is a {block.unit.kind}: use style='circuit'")
    odd = [name for name in ("x*", "h*", "c*", "norm") if name in block]
    odd += ["out*"] if ("h-", "out*") in block.links else []
    if odd:
        signs = ", ".join(sorted({block.parts[name].sign for name in odd}))
        raise UsageError(f"the odyssey has no place for what this step does besides ({signs}): use style='circuit'")
    return fitted(lambda most: _Odyssey(Chart(block, show, backward, most)).draw(title))


class _Odyssey:
    def __init__(self, chart: Chart) -> None:
        self.chart, self.block = chart, chart.block
        self.gates = [k for k in "ifgo" if k in self.block and not self.coupled(k)]
        self.lines = {k: chart.weighted(k) for k in self.gates}
        self.r = max(_radius(lines) for lines in self.lines.values())
        self.cell = self._cell_lines()
        self.R = max(_radius(self.cell), 40.0)
        sign = self.block.parts["squash"].sign if "squash" in self.block else ""
        self.squash: Lines = [[(sign, 14.0, "sans", "t")]] if sign else []
        self.rs = max(_radius(self.squash), 24.0) if sign else 0.0

    def coupled(self, gate: str) -> bool:
        return gate == "f" and ("i", "f") in self.block.links

    def _cell_lines(self) -> Lines:
        c = self.chart
        lines = c.state(c.cell, c.c)
        if "clip" in self.block:
            lines.insert(1, [(self.block.parts["clip"].sign, 10.0, "sans", "s")])
        return lines

    # words

    def links(self, source: str, target: str) -> list[Link]:
        link = self.block.links.get((source, target))
        return [link] if link else []

    def front(self, source: str, target: str, *, named: bool = False) -> Lines:
        """Return what a wire carries."""
        c = self.chart
        found = self.links(source, target)
        if not found:
            return []
        lines = c.carried(found[0], named=named)
        return lines[: len(lines) - len(self.back(source, target))]

    def back(self, source: str, target: str) -> Lines:
        """Return what comes back along a wire, and the local derivative."""
        c = self.chart
        return [line for link in self.links(source, target) for line in c.sent(link) + c.factor(link)]

    def weights(self, source: str, gate: str) -> Lines:
        return self.chart.weight(source, gate) if gate in self.gates else []

    # the plan

    def draw(self, title: str | None) -> Scene:
        self._plan()
        c = self.chart
        high = self.y_o - self.r - (64.0 if "gates-" in self.block and "o" in self.gates else 0.0)
        left_top = min(high, self.y_out)
        top = c.heading(title, self.x_c)
        if c.heading_right > self.x_l - self.r:
            # the words of the heading stand left of the way out; the output gate begins below them
            top = max(top, MARGIN + 48.0 + (self.y_out - 24.0 - left_top))
        self._shift(top + 50.0 - self.y_out)
        self._cell()
        self._input()
        self._forget()
        self._output()
        self._peepholes()
        self._ring()
        self._remembered()
        return self._around()

    def _plan(self) -> None:
        """Set rows from the top, from 0, and columns from the left."""
        c, block, r = self.chart, self.block, self.r
        side = c.beside
        target = "ig" if "ig" in block else "+"
        self.seen = "squash" if "squash" in block else "oh" if "oh" in block else "out*"
        source = "ig" if "ig" in block else "g"
        into, out = self.back(c.cell, self.seen), (self.front("squash", "oh"), self.back("squash", "oh"))
        ramp = (self.front(source, "+", named=source == "g"), self.back(source, "+"))
        given = (self.front("g", target, named=True), self.back("g", target)) if source == "ig" else ([], [])
        f_out = (self.front("f", "fc", named=True), self.back("f", "fc"))
        halved = self.back("i", "f") if self.coupled("f") else []
        peeps = {k: self.weights(c.cell if k == "o" else "c-", k) for k in "ifo"}
        gate = {
            k: self.front(k, "ig" if k == "i" else "oh", named=True) + self.back(k, "ig" if k == "i" else "oh")
            for k in "io"
        }
        self.into, self.out, self.ramp, self.given, self.f_out, self.halved = into, out, ramp, given, f_out, halved
        self.peeps, self.gate_out = peeps, gate
        stage = c.size(self._stage_lines())[1] + 26.0 if "out*" in block else 0.0
        raw = self.back(c.last(c.cell, "squash", "oh"), "out*") if "out*" in block else []
        self.raw = raw
        self.loop = self.back("c-", "fc" if "fc" in block else "+")
        # rows
        self.y_out = 0.0
        extra = 70.0 if "gates-" in block else 0.0
        self.y_o = stage + max(measure(raw)[1], 6.0) + ROUND + 14.0
        if "o" in self.gates:
            self.y_o = max(self.y_o, measure(gate["o"])[1] + side - 10.0, r - 24.0 + extra)
        self.y_s = self.y_o + ROUND + max(_tall(*out), 14.0) + 14.0 + self.rs
        self.y_c = self.y_s + self.rs + max(measure(into)[1], 14.0) + 14.0 + self.R
        if "squash" not in block:
            self.y_c = self.y_o + ROUND + max(measure(into)[1], 24.0) + 14.0 + self.R
        # on the right the state of the step before stands below the ring, and the cell of it above its way back
        self.y_c = max(
            self.y_c, measure(c.state("h-"))[1] + measure(c.state("c-") + self.loop)[1] + self._lift() + 30.0
        )
        self.dip = self.R * 0.55
        if "o" in self.gates:
            self.y_c = max(self.y_c, self.y_o + r + max(measure(peeps["o"])[1] + 10.0, 30.0) + self.dip)
        self.y_i = self.y_c + self.R + max(_tall(*ramp), 16.0) + 14.0 + ROUND
        below = [measure(peeps["i"])[1] + 14.0 + self.dip] if "i" in self.gates else []
        below += [ROUND + max(_tall(*f_out), 20.0) + 8.0 + (30.0 if "gates" in block else 0.0)] if "f" in block else []
        self.y_i = max([self.y_i, *(self.y_c + b + r + 4.0 for b in below)])
        self.y_low = self.y_i + ROUND + 12.0 + measure(halved)[1]
        if "ig" in block:
            start = self.y_low - self.y_i if self.coupled("f") else ROUND
            self.y_g = self.y_i + start + max(_tall(*given), 14.0) + 14.0 + r
        else:
            self.y_g = self.y_c + self.R + max(_tall(*ramp), 16.0) + 14.0 + r
        feet = {k: max(measure(self.weights(w, k))[1] for w in ("x", "h-", "gates-")) for k in self.gates}
        self.y_ring = self.y_g + r + feet["g"] + 26.0
        for k in ("i", "f"):
            if k in self.gates:
                more = 48.0 if "gates-" in block else 0.0
                self.y_ring = max(self.y_ring, self.y_i + r + feet[k] + 26.0 + more)
        # columns
        inputs = [measure(self.weights(w, k))[0] for k in "io" if k in self.gates for w in ("x", "h-")]
        self.x_r1 = 0.0
        self.x_l = max([0.0, *inputs]) + r + 28.0
        words = [measure(gate[k])[0] + r + ROUND + 26.0 for k in "io" if k in self.gates]
        words += [side + measure(peeps[k])[0] + self.R + 22.0 for k in "io"]
        words += [measure(block_in)[0] + side + r + 16.0 for block_in in (ramp[0], given[0], out[0])]
        if "i" in self.gates:
            words.append(self._start_of_i() + measure(gate["i"])[0] + 12.0 + measure(ramp[0])[0] + 8.0)
        if "gates-" in block:
            kept = r + 24.0 + side + max(measure(self.chart.sent(k))[0] for g in "ifo" for k in self.links(g, "gates"))
            words += [max(kept, r + 64.0) + 12.0 + measure(k[0])[0] + 8.0 for k in (given, out)]
        stub = 96.0 if "gates-" in block else 0.0
        self.x_c = self.x_l + max(words) + stub * 0.3 if {"i", "o"} & set(self.gates) else max(words) + r
        self.x_c = max(self.x_c, self.x_r1 + r + _PORT + side + measure(self.weights("h-", "g"))[0] + 20.0)
        loop = max(measure(c.state("c-"))[0], measure(self.loop)[0])
        right = side + max(measure(ramp[1])[0], measure(given[1])[0])
        self.x_m = self.x_c + max(self.R * 0.85, right, 0.0 if "ig" in block else r) + 14.0
        self.x_r = self.x_c + max(self.R, side + measure(into)[0], side + measure(out[1])[0]) + loop + 34.0
        if "f" in self.gates:
            room = side + measure(peeps["f"])[0] + 22.0 if peeps["f"] else 8.0
            self.x_r = max(self.x_r, self.x_m + room + r, self.x_c + right + r + 24.0)
        elif "f" in block:
            self.x_r = max(self.x_r, self.x_c + right + ROUND + 24.0)
        self.x_r2 = (
            self.x_r
            + max(side + measure(f_out[1])[0] if c.backward else 0.0, side + max(measure(k)[0] for k in f_out))
            + 16.0
        )
        if "f" in self.gates:
            self.x_r2 = max(self.x_r2, self.x_r + r + measure(self.weights("h-", "f"))[0] + 28.0)
            self.x_r2 = max(self.x_r2, self.x_r + _PORT + side + measure(self.weights("x", "f"))[0] + 14.0)
            self.x_r2 = max(self.x_r2, self.x_r + _PORT + side + measure(self.weights("gates-", "f"))[0] + stub)
        product = self.front("fc", "+") + self.back("fc", "+")
        self.x_r2 = max(self.x_r2, self.x_r + ROUND + measure(product)[0] + 20.0)
        g_in = _PORT + side + measure(self.weights("h-", "g"))[0]
        self.x_r2 = max(self.x_r2, self.x_c + g_in + 20.0)
        left = max(measure(c.state("gates-"))[0] if "gates-" in block else 0.0, 30.0) + 40.0
        for name in ("x_r1", "x_l", "x_c", "x_m", "x_r", "x_r2"):
            setattr(self, name, getattr(self, name) + MARGIN + left)

    def _start_of_i(self) -> float:
        """Return how far right of the input gate's middle the words above its wire begin."""
        return max(self.r + 8.0, self.chart.beside + measure(self.peeps["i"])[0] + 8.0 if "i" in self.peeps else 0.0)

    def _shift(self, by: float) -> None:
        for name in ("y_out", "y_o", "y_s", "y_c", "y_i", "y_low", "y_g", "y_ring"):
            setattr(self, name, getattr(self, name) + by)

    def _stage_lines(self) -> Lines:
        return [[(self.block.parts["out*"].sign, 11.0, "sans", "t")]]

    # the parts

    def _beside(self, words: tuple[Lines, Lines], x: float, y: float) -> None:
        """Write what a vertical wire carries left of it, and what comes back right of it."""
        c = self.chart
        c.words(words[0], x - 7.0, y - measure(words[0])[1] / 2, "end")
        c.words(words[1], x + c.beside, y - measure(words[1])[1] / 2)

    def _up(self, x: float, low: float, high: float, net: str, links: list[Link]) -> None:
        self.chart.wire([(x, low), (x, high)], "forward", net, links)
        self.chart.reverse((x, low), (x, high))

    def _cell(self) -> None:
        c, block = self.chart, self.block
        parts = [name for name in ("+", "clip") if name in block]
        c.disc(c.cell, self.x_c, self.y_c, self.R, self.cell, "core", parts)
        if len(parts) > 1:
            c.drawn.add(("+", "clip"))
        c.terminal_of("c-", self.x_r - 6.0, self.y_c - self._lift() - (13.0 if c.backward else 6.0), "end", self.loop)
        start = (self.x_c + _edge(self.R, self._lift()), self.y_c - self._lift())
        if "fc" in block:
            c.dot("fc", self.x_r, self.y_c, "mul")
            c.wire([start, (self.x_r, start[1]), (self.x_r, self.y_c - ROUND)], "lag", "c-", self.links("c-", "fc"))
            c.reverse((start[0] + 12.0, start[1]), (self.x_r - 6.0, start[1]))
            c.wire(
                [(self.x_r - ROUND, self.y_c), (self.x_c + self.R, self.y_c)], "forward", "fc", self.links("fc", "+")
            )
            c.reverse((self.x_r - ROUND, self.y_c), (self.x_c + self.R, self.y_c), -1.0)
            words = self.front("fc", "+") + self.back("fc", "+")
            c.words(words, self.x_r + ROUND + 6.0, self.y_c - measure(words)[1] / 2)
        else:
            path = [start, (self.x_r, start[1]), (self.x_r, self.y_c), (self.x_c + self.R, self.y_c)]
            c.wire(path, "lag", "c-", self.links("c-", "+"))
            c.reverse((self.x_r, self.y_c), (self.x_c + self.R, self.y_c), -1.0)

    def _lift(self) -> float:
        """Return how high above the cell's middle its way back to itself begins."""
        return max(self.R * 0.8, ROUND + 14.0)

    def _input(self) -> None:
        c, r = self.chart, self.r
        c.disc("g", self.x_c, self.y_g, r, self.lines["g"], "cell")
        if "ig" in self.block:
            c.dot("ig", self.x_c, self.y_i, "mul")
            self._up(self.x_c, self.y_g - r, self.y_i + ROUND, "g", self.links("g", "ig"))
            low = self.y_low + 2.0 if self.coupled("f") else self.y_i + ROUND
            self._beside(self.given, self.x_c, (self.y_g - r + low) / 2)
            self._up(self.x_c, self.y_i - ROUND, self.y_c + self.R, "ig", self.links("ig", "+"))
            self._beside(self.ramp, self.x_c, (self.y_i - ROUND + self.y_c + self.R) / 2)
            self._across("i", "ig", self.y_i)
        else:
            self._up(self.x_c, self.y_g - r, self.y_c + self.R, "g", self.links("g", "+"))
            self._beside(self.ramp, self.x_c, (self.y_g - r + self.y_c + self.R) / 2)

    def _across(self, gate: str, target: str, y: float) -> None:
        """Draw a gate on the left and its way to the product in the middle."""
        c = self.chart
        c.disc(gate, self.x_l, y, self.r, self.lines[gate], "input" if gate == "i" else "output")
        start, end = (self.x_l + self.r, y), (self.x_c - ROUND, y)
        c.wire([start, end], "forward", gate, self.links(gate, target))
        c.reverse(start, end)
        words = self.gate_out[gate]
        top = y - c.beside - measure(words)[1]
        if gate == "i":
            c.words(words, self.x_l + self._start_of_i(), top)
        else:
            c.words(words, (start[0] + end[0]) / 2, top, "middle")

    def _forget(self) -> None:
        c, block = self.chart, self.block
        if "fc" not in block:
            return
        r = self.r
        if self.coupled("f"):
            r = ROUND + 1
            c.dot("f", self.x_r, self.y_i, "forget", r)
            x = self.x_l + self.r + 14.0
            c.junction(x, self.y_i, "forward")
            path = [(x, self.y_i), (x, self.y_low), (self.x_r, self.y_low), (self.x_r, self.y_i + r)]
            c.wire(path, "forward", "i", self.links("i", "f"))
            c.reverse((self.x_r - 70.0, self.y_low), (self.x_r - 8.0, self.y_low), -1.0)
            c.words(self.halved, self.x_r + 8.0, self.y_low - measure(self.halved)[1] - 2.0)
        else:
            c.disc("f", self.x_r, self.y_i, r, self.lines["f"], "forget")
        self._up(self.x_r, self.y_i - r, self.y_c + ROUND, "f", self.links("f", "fc"))
        room = 30.0 if "gates" in block else 0.0
        self._beside(self.f_out, self.x_r, (self.y_i - r - room + self.y_c + ROUND) / 2)

    def _output(self) -> None:
        c, block = self.chart, self.block
        source, y = c.cell, self.y_c - self.R
        if "squash" in block:
            c.disc("squash", self.x_c, self.y_s, self.rs, self.squash, "squash")
            self._up(self.x_c, y, self.y_s + self.rs, source, self.links(source, "squash"))
            words = self.into
            c.words(words, self.x_c + c.beside, (y + self.y_s + self.rs) / 2 - measure(words)[1] / 2)
            source, y = "squash", self.y_s - self.rs
        if "oh" in block:
            c.dot("oh", self.x_c, self.y_o, "mul")
            self._up(self.x_c, y, self.y_o + ROUND, source, self.links(source, "oh"))
            self._beside(self.out if source == "squash" else ([], self.into), self.x_c, (y + self.y_o + ROUND) / 2)
            self._across("o", "oh", self.y_o)
            source, y = "oh", self.y_o - ROUND
        if "out*" in block:
            lines = self._stage_lines()
            high = c.size(lines)[1]
            middle = self.y_out + 16.0 + high / 2
            c.box("out*", self.x_c, middle, lines, "op")
            self._up(self.x_c, y, middle + high / 2, source, self.links(source, "out*"))
            c.words(self.raw, self.x_c + c.beside, (y + middle + high / 2 - measure(self.raw)[1]) / 2)
            source, y = "out*", middle - high / 2
        name = c.output
        c.wire([(self.x_c, y), (self.x_c, self.y_out - 26.0)], "forward", name)
        c.reverse((self.x_c, y), (self.x_c, self.y_out - 26.0))
        lines = c.state(name, c.h)
        head = measure(lines[:1])[1]
        if name in ("oh", "out*", "squash"):
            c.words(lines[:1], self.x_c, self.y_out - 30.0 - head, "middle")
            x = self.x_c + max(c.beside, measure(lines[:1])[0] / 2 + 6.0)
            c.words(lines[1:], x, self.y_out - 6.0 - measure(lines[1:])[1])

    def _peepholes(self) -> None:
        c, r = self.chart, self.r
        for gate, sign in (("i", 1.0), ("o", -1.0)):
            source = c.cell if gate == "o" else "c-"
            link = self.links(source, gate)
            if gate not in self.gates or not link:
                continue
            y_gate = self.y_i if gate == "i" else self.y_o
            start = (self.x_c - _edge(self.R, self.dip), self.y_c + sign * self.dip)
            end = (self.x_l, y_gate - sign * r)
            c.wire(
                [start, (self.x_l, start[1]), end], "lag peephole" if gate == "i" else "peephole", f"peep-{gate}", link
            )
            words = self.peeps[gate]
            c.reverse((self.x_l, start[1] + sign * 8.0), end)
            c.words(words, self.x_l + c.beside, (start[1] + end[1]) / 2 - measure(words)[1] / 2)
        link = self.links("c-", "f") if "f" in self.gates else []
        if link:
            dip = self.R * 0.5
            points = [(self.x_c + _edge(self.R, dip), self.y_c + dip), (self.x_m, self.y_c + dip), (self.x_m, self.y_i)]
            c.wire([*points, (self.x_r - r, self.y_i)], "lag peephole", "peep-f", link)
            words = self.peeps["f"]
            c.reverse((self.x_m, self.y_c + dip + 8.0), (self.x_m, self.y_i - 4.0))
            c.words(words, self.x_m + c.beside, self.y_i - 12.0 - measure(words)[1])

    def _ring(self) -> None:
        """Lead the block's output around to the gates, and the input in."""
        c, r = self.chart, self.r
        gates = [k for k in "ogif" if k in self.gates]
        last = "o" if "o" in gates else "i" if "i" in gates else "g"
        c.junction(self.x_c, self.y_out, "lag")
        corner = [(self.x_c, self.y_out), (self.x_r2, self.y_out), (self.x_r2, self.y_ring)]
        lines = c.state("h-")
        c.place("h-", self.x_r2 - 9.0, self.y_out + 8.0 + measure(lines)[1] / 2, lines, "end")
        foot = self.x_c - _PORT
        ends = {
            "o": [
                (self.x_r1, self.y_ring),
                (self.x_r1, self.y_o + _PORT),
                (self.x_l - _edge(r, _PORT), self.y_o + _PORT),
            ],
            "i": [
                (self.x_r1, self.y_ring),
                (self.x_r1, self.y_i + _PORT),
                (self.x_l - _edge(r, _PORT), self.y_i + _PORT),
            ],
            "g": [(foot, self.y_ring), (foot, self.y_g + _edge(r, _PORT))],
            "f": [(self.x_r2, self.y_i), (self.x_r + r, self.y_i)],
        }
        for k in gates:
            path = ends[k]
            if k == last:
                path = [*corner, *path]
            elif k == "i":
                path = path[1:]
            c.wire(path, "lag", "h-", self.links("h-", k))
            if k != last:
                c.junction(*path[0], "lag")
            a, b = path[-2], path[-1]
            words = self.weights("h-", k)
            if k == "g":
                c.reverse(a, b, -1.0)
                c.words(words, foot - c.beside, b[1] + 10.0, "end")
            else:
                c.reverse(a, b, -1.0)
                x = self.x_r1 + 8.0 if k in "io" else self.x_r + r + 14.0
                c.words(words, x, a[1] + c.beside - 2.0)
        far = self.x_r1 - 24.0
        for k in gates:
            words = self.weights("x", k)
            if k in "io":
                y = (self.y_o if k == "o" else self.y_i) - _PORT
                start, end = (far, y), (self.x_l - _edge(r, _PORT), y)
                c.words([[(c.letters["x"], TERM, "oblique", "t")]], far - 6.0, y - TERM * LEADING / 2, "end")
                c.words(words, self.x_r1 + 8.0, y - c.beside + 2.0 - measure(words)[1])
                c.wire([start, end], "forward", "x", self.links("x", k))
                c.reverse((self.x_r1 + 4.0, y), end)
                continue
            shift = _PORT if k == "g" or "gates-" not in self.block else -_PORT
            x, y = (
                (self.x_c if k == "g" else self.x_r) + (shift if k == "g" or "gates-" in self.block else 0.0),
                self.y_ring + 26.0,
            )
            end = (x, (self.y_g if k == "g" else self.y_i) + _edge(r, x - (self.x_c if k == "g" else self.x_r)))
            c.wire([(x, y), end], "forward", "x", self.links("x", k))
            c.reverse((x, self.y_ring - 4.0), end, -1.0 if shift < 0 else 1.0)
            if shift < 0:
                c.words(words, x - c.beside, end[1] + 10.0, "end")
            else:
                c.words(words, x + c.beside, end[1] + 10.0)
            if k == "g":
                lines = c.state("x")
                c.place("x", x, y + 4.0 + measure(lines)[1] / 2, lines, "middle")
            else:
                c.words([[(c.letters["x"], TERM, "oblique", "t")]], x, y + 4.0, "middle")

    def _remembered(self) -> None:
        """Draw what the gates see of all gates: of the step before, and what is remembered for the next one."""
        c, r, block = self.chart, self.r, self.block
        if "gates-" not in block:
            return
        symbol: Lines = [[(c.letters["gates-"], NAME, "oblique", "t")]]
        stub = 34.0
        for k in self.gates:
            link = self.links("gates-", k)
            if not link:
                continue
            words = self.weights("gates-", k)
            if k == "o":
                end = (self.x_l, self.y_o - r)
                start = (self.x_l, end[1] - stub - 6.0)
                c.words(symbol, start[0], start[1] - 4.0 - measure(symbol)[1], "middle")
                c.words(words, start[0] + c.beside, start[1] + 2.0)
            else:
                x, y = (self.x_l, self.y_i) if k == "i" else (self.x_r + _PORT, self.y_i)
                end = (x, y + _edge(r, x - (self.x_l if k == "i" else self.x_r)))
                start = (x, end[1] + max(stub, measure(words)[1] + 10.0))
                if k == "i":
                    lines = c.state("gates-")
                    c.place("gates-", x, start[1] + 4.0 + measure(lines)[1] / 2, lines, "middle")
                else:
                    c.words(symbol, x - 6.0, start[1] + 4.0)
                c.words(words, x + c.beside, end[1] + 6.0)
            c.wire([start, end], "lag", f"gates-{k}", link)
            c.reverse(start, end)
        kept: Lines = [[(c.letters["gates"], NAME, "oblique", "t")]]
        for k in "ifo":
            link = self.links(k, "gates")
            if not link:
                continue
            words = c.sent(link[0])
            if k == "f":
                start = (self.x_r, self.y_i - (r if k in self.gates else ROUND + 1) - 16.0)
                end = (start[0] + 30.0, start[1])
                c.words(kept, end[0] + 4.0, end[1] - measure(kept)[1] / 2)
                c.words(words, end[0] + 8.0 + measure(kept)[0], end[1] - measure(words)[1] / 2)
            else:
                start = (self.x_l + r + 24.0, self.y_i if k == "i" else self.y_o)
                end = (start[0], start[1] + 28.0)
                if k == "i":
                    c.place("gates", end[0], end[1] + 2.0 + measure(kept)[1] / 2, kept, "middle")
                else:
                    c.words(kept, end[0], end[1] + 2.0, "middle")
                c.words(words, end[0] + c.beside, start[1] + 10.0)
            c.junction(*start, "forward")
            c.wire([start, end], "forward", k, link)
            c.reverse(start, end, -1.0 if k == "f" else 1.0)

    def _around(self) -> Scene:
        c = self.chart
        right = self.x_r2 + 14.0
        x = right + 14.0
        y = self.y_out + 6.0
        styles = {wire.style for wire in c.scene.wires}
        entries = [(style, text) for style, text in _LEGEND.items() if style in styles]
        far, y = c.legend(entries, x, y)
        edge, y = c.key_to_signs(x, y + 4.0)
        far = max(far, edge)
        y += 6.0
        if c.backward:
            for name, symbol in ((c.cell, c.c), (c.output, c.h)):
                ledger = c.ledger(name, symbol)
                if ledger is not None:
                    c.write(ledger, x, y)
                    far, y = max(far, x + ledger.size[0]), y + ledger.size[1] + 14.0
        low = self.y_ring + 26.0 + 4.0 + measure(c.state("x"))[1]
        return c.finish(far, max(low, y))


def _edge(r: float, off: float) -> float:
    """Return how far from the middle a line at some distance from it leaves a circle."""
    return math.sqrt(max(r * r - off * off, 0.0))


def _radius(lines: Lines) -> float:
    """Return the radius of a circle around lines."""
    total = measure(lines)[1]
    y, r = -total / 2, 0.0
    for line in lines:
        wide, high = measure([line])
        r = max(r, math.hypot(wide / 2, max(abs(y), abs(y + high)) - 2.0))
        y += high
    return math.ceil(r + 4.0)


def _tall(*words: Lines) -> float:
    return max(measure(lines)[1] for lines in words)
