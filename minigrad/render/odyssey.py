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
from minigrad.render.chart import MARGIN, NAME, ROUND, TERM, Chart, Lines, fitted, measure
from minigrad.render.scene import Scene

_LEGEND = {
    "forward": "feed-forward",
    "lag": "{step}",
    "peephole": "peephole",
    "lag peephole": "peephole, {step}",
    "backward": "gradient on its way back",
}
_GAP = 10.0
"""Between what stands on the way up, and the words beside the wire."""
_STAGE = 26.0
"""The height of a box on a wire."""
_MARGIN = 12.0
"""Between the frame and the ring."""
_STUB = 28.0
"""How long the wires are on which a gate sees the gates of the step before."""
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
        UsageError: the block is no LSTM.
    """
    if block.unit.kind != "lstm":
        raise UsageError(f"the odyssey is a chart of the LSTM, and this is a {block.unit.kind}: use style='circuit'")
    return fitted(lambda most: _Odyssey(Chart(block, show, backward, most)).draw(title))


class _Odyssey:
    def __init__(self, chart: Chart) -> None:
        self.chart, self.block = chart, chart.block
        self.x, self.h = ("x*" if "x*" in self.block else "x"), ("h*" if "h*" in self.block else "h-")
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
        lines = c.state(c.kept, c.c)
        signs = [self.block.parts[name].sign for name in ("clip", "c*") if name in self.block]
        if signs:
            lines.insert(1, [(", ".join(signs), 10.0, "sans", "s")])
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
        self._say()
        self._columns()
        self._rows()
        c = self.chart
        # what stands above the ring on its left: the output gate and, of FGR, what enters it from above
        above = self.y_o - self.r - (_STUB + 28.0 if self.remembers else 0.0)
        self.top = min(self.y_out, above if "o" in self.gates else self.y_out) - _MARGIN
        shift = c.heading(title, self.x_c) + 44.0 - self.top
        if c.heading_right > self.left:
            # the words of the heading stand left of the way out; the frame begins below them
            shift = max(shift, c.heading_bottom - self.top)
        self._shift(shift)
        c.frame(self.left, self.top, self.right, self.bottom, stepped=False)
        self._cell()
        self._input()
        self._forget()
        self._output()
        self._peepholes()
        self._ring()
        self._inputs()
        self._remembered()
        return self._around()

    def _say(self) -> None:
        """Say what stands beside the wires."""
        c, block = self.chart, self.block
        target = "ig" if "ig" in block else "+"
        self.boxes = [name for name in ("norm", "squash") if name in block]
        self.seen = next(name for name in (*self.boxes, "oh", "out*") if name in block)
        self.source = "ig" if "ig" in block else "g"
        changed = "c*" in block
        self.into = (self.front(c.cell, self.seen, named=True) if changed else [], self.back(c.cell, self.seen))
        last = self.boxes[-1] if self.boxes else ""
        self.out = (self.front(last, "oh"), self.back(last, "oh")) if last else ([], [])
        self.normed = self.back("norm", "squash")
        self.ramp = (self.front(self.source, "+", named=self.source == "g"), self.back(self.source, "+"))
        self.given = (self.front("g", target, named=True), self.back("g", target)) if self.source == "ig" else ([], [])
        self.f_out = (self.front("f", "fc", named=True), self.back("f", "fc"))
        self.halved = self.back("i", "f") if self.coupled("f") else []
        self.peeps = {k: self.weights(c.cell if k == "o" else "c-", k) for k in "ifo"}
        self.gate_out = {
            k: self.front(k, "ig" if k == "i" else "oh", named=True) + self.back(k, "ig" if k == "i" else "oh")
            for k in "io"
        }
        self.raw = self.back(c.last(c.cell, "squash", "oh"), "out*") if "out*" in block else []
        self.loop = self.back("c-", "fc" if "fc" in block else "+")
        self.kept = [line for link in self.links("c-", "c*") for line in c.sent(link)]
        self.mixed = [line for link in self.links("h-", "out*") for line in c.sent(link)]
        self.product = self.front("fc", "+") + self.back("fc", "+")
        self.remembers = "gates-" in block

    def _columns(self) -> None:
        """Set the places of everything from the left."""
        c, block, r = self.chart, self.block, self.r
        side, ramp, given, f_out = c.beside, self.ramp, self.given, self.f_out
        inputs = [measure(self.weights(w, k))[0] for k in "io" if k in self.gates for w in (self.x, self.h)]
        self.x_r1 = 0.0
        self.x_l = max([0.0, *inputs]) + r + 28.0
        words = [measure(self.gate_out[k])[0] + r + ROUND + 26.0 for k in "io" if k in self.gates]
        words += [side + measure(self.peeps[k])[0] + self.R + 22.0 for k in "io"]
        words += [measure(pair[0])[0] + side + r + 16.0 for pair in (ramp, given, self.out, self.into)]
        if "i" in self.gates:
            words.append(self._start_of_i() + measure(self.gate_out["i"])[0] + 12.0 + measure(ramp[0])[0] + 8.0)
        if self.remembers:
            kept = r + 24.0 + side + max(measure(c.sent(k))[0] for g in "ifo" for k in self.links(g, "gates"))
            # where sequences have ended, what is kept of the gates enters beside what the gate sees of them
            seen = side + measure(self.weights("gates-", "i"))[0] if ("gates-", "gates") in block.links else 0.0
            self.branch = max(r + 24.0, seen + 30.0)
            room = max(kept + self.branch - r - 24.0, self.branch + 40.0) + 20.0
            words += [room + measure(pair[0])[0] for pair in (given, self.out)]
        stub = 96.0 if self.remembers else 0.0
        self.x_c = self.x_l + max(words) + stub * 0.3 if {"i", "o"} & set(self.gates) else max(words) + r
        self.x_c = max(self.x_c, self.x_r1 + r + _PORT + side + measure(self.weights(self.h, "g"))[0] + 20.0)
        loop = max(measure(c.state("c-"))[0], measure(self.loop)[0])
        right = side + max(measure(ramp[1])[0], measure(given[1])[0])
        self.x_m = self.x_c + max(self.R * 0.85, right, 0.0 if "ig" in block else r) + 14.0
        ways = max(measure(lines)[0] for lines in (self.into[1], self.out[1], self.normed))
        self.x_r = self.x_c + max(self.R, side + ways) + loop + 34.0
        if "c*" in block:
            self.x_r = max(self.x_r, self.x_c + self.R + 14.0 + side + measure(self.kept)[0] + 10.0 + ROUND)
        if "f" in self.gates:
            room = side + measure(self.peeps["f"])[0] + 22.0 if self.peeps["f"] else 8.0
            self.x_r = max(self.x_r, self.x_m + room + r, self.x_c + right + r + 24.0)
        elif "f" in block:
            self.x_r = max(self.x_r, self.x_c + right + ROUND + 24.0)
        ring = [side + max(measure(k)[0] for k in f_out) + 16.0, ROUND + measure(self.product)[0] + 20.0]
        if "f" in self.gates:
            ring.append(r + measure(self.weights(self.h, "f"))[0] + 28.0)
            ring.append(_PORT + side + measure(self.weights(self.x, "f"))[0] + 14.0)
            ring.append(_PORT + side + measure(self.weights("gates-", "f"))[0] + stub)
        half = self._stage_size("h*")[0] / 2 if "h*" in block else 0.0
        self.x_r2 = self.x_r + max(ring) + max(half - 10.0, 0.0)
        self.x_r2 = max(self.x_r2, self.x_c + _PORT + side + measure(self.weights(self.h, "g"))[0] + 20.0)
        if "out*" in block:
            self.x_j = self.x_c + self._stage_size("out*")[0] / 2 + 34.0
            state = measure(c.state("h-"))[0] + 9.0 if ("h-", "out*") in block.links else 0.0
            self.x_r2 = max(self.x_r2, self.x_j + side + measure(self.mixed)[0] + 16.0 + state)
        shift = MARGIN + max(measure(c.state("gates-"))[0] if self.remembers else 0.0, 30.0) + 40.0
        for name in ("x_r1", "x_l", "x_c", "x_m", "x_r", "x_r2", "x_j"):
            if hasattr(self, name):
                setattr(self, name, getattr(self, name) + shift)
        self.left, self.right = self.x_r1 - _MARGIN, self.x_r2 + max(_MARGIN, half + 8.0)

    def _rows(self) -> None:
        """Set rows from the top, from 0."""
        c, block, r = self.chart, self.block, self.r
        stage = self._stage_size("out*")[1] + 20.0 if "out*" in block else 0.0
        self.y_out = 0.0
        self.y_o = stage + max(measure(self.raw)[1], 6.0) + ROUND + 14.0
        if "o" in self.gates:
            extra = _STUB + 32.0 if self.remembers else 0.0
            self.y_o = max(self.y_o, measure(self.gate_out["o"])[1] + c.beside - 10.0, r - 24.0 + extra)
            wide, high = measure(self.gate_out["o"])
            if "out*" in block:
                box = self._stage_size("out*")
                if (self.x_l + r + self.x_c - ROUND + wide) / 2 > self.x_c - box[0] / 2 - 6.0:
                    self.y_o = max(self.y_o, 10.0 + box[1] + high + c.beside + 2.0)
        # upwards from the cell: what it goes through, to the product with the output gate
        self.y_c = self.y_o + ROUND
        self.y_box: dict[str, float] = {}
        gaps = [self.out, ([], self.normed) if len(self.boxes) > 1 else self.into, self.into]
        for name, gap in zip(reversed(self.boxes), gaps, strict=False):
            half = self.rs if name == "squash" else self._stage_size(name)[1] / 2
            self.y_c += max(_tall(*gap), 14.0) + _GAP
            self.y_box[name] = self.y_c + half
            self.y_c += 2 * half
        self.y_c += max(_tall(*self.into), 14.0 if self.boxes else 24.0) + _GAP + self.R
        # on the right the state of the step before stands below the ring, and the cell of it above its way back
        state, cell = measure(c.state("h-")), measure(c.state("c-") + self.loop)
        self.foot_h = 8.0 + state[1]
        if "h*" in block:
            self.y_h = self.foot_h + 14.0 + self._stage_size("h*")[1] / 2
            self.foot_h = self.y_h + self._stage_size("h*")[1] / 2
        if self.x_r2 - 9.0 - max(state[0], self._stage_size("h*")[0] / 2 if "h*" in block else 0.0) < self.x_r + 4.0:
            self.y_c = max(self.y_c, self.foot_h + cell[1] + self._lift() + 22.0)
        elif "f" in block and self.product:
            self.y_c = max(self.y_c, self.foot_h + measure(self.product)[1] / 2 + 12.0)
        self.dip = self.R * 0.55
        if "o" in self.gates:
            self.y_c = max(self.y_c, self.y_o + r + max(measure(self.peeps["o"])[1] + 10.0, 30.0) + self.dip)
        self.y_i = self.y_c + self.R + max(_tall(*self.ramp), 16.0) + _GAP + ROUND
        below = [measure(self.peeps["i"])[1] + 14.0 + self.dip] if "i" in self.gates else []
        if "f" in block:
            room = max(_tall(*self.f_out), 20.0) + 8.0
            if self.product and self.f_out[1]:  # both stand right of the forget gate's line, one below the other
                spare = r - ROUND if self.coupled("f") else 0.0  # a small circle stands for it
                room = max(room, measure(self.product)[1] + measure(self.f_out[1])[1] + 4.0 - 2.0 * ROUND - spare)
            below.append(ROUND + room + (30.0 if "gates" in block else 0.0))
        self.y_i = max([self.y_i, *(self.y_c + b + r + 4.0 for b in below)])
        self.y_low = self.y_i + ROUND + 12.0 + measure(self.halved)[1]
        if "ig" in block:
            start = self.y_low - self.y_i if self.coupled("f") else ROUND
            self.y_g = self.y_i + start + max(_tall(*self.given), 14.0) + _GAP + r
        else:
            self.y_g = self.y_c + self.R + max(_tall(*self.ramp), 16.0) + _GAP + r
        feet = {k: max(measure(self.weights(w, k))[1] for w in (self.x, self.h, "gates-")) for k in self.gates}
        self.y_ring = self.y_g + r + feet["g"] + 26.0
        for k in ("i", "f"):
            if k in self.gates:
                more = _STUB + 12.0 if self.remembers else 0.0
                self.y_ring = max(self.y_ring, self.y_i + r + feet[k] + 26.0 + more)
        self.bottom = self.y_ring + _MARGIN
        if "x*" in block:
            self.y_x = self.y_ring + 16.0 + self._stage_size("x*")[1] / 2
            self.bottom = self.y_x + self._stage_size("x*")[1] / 2 + 10.0

    def _start_of_i(self) -> float:
        """Return how far right of the input gate's middle the words above its wire begin."""
        return max(self.r + 8.0, self.chart.beside + measure(self.peeps["i"])[0] + 8.0 if "i" in self.peeps else 0.0)

    def _shift(self, by: float) -> None:
        for name in ("top", "y_out", "y_h", "y_o", "y_c", "y_i", "y_low", "y_g", "y_ring", "y_x", "bottom"):
            if hasattr(self, name):
                setattr(self, name, getattr(self, name) + by)
        self.y_box = {name: y + by for name, y in self.y_box.items()}

    def _stage_lines(self, name: str) -> Lines:
        return [[(self.block.parts[name].sign, 11.0, "sans", "t")]]

    def _stage_size(self, name: str) -> tuple[float, float]:
        return self.chart.size(self._stage_lines(name), low=_STAGE)

    def _stage(self, name: str, x: float, y: float) -> tuple[float, float]:
        """Draw a stage; return where it begins and ends from the top."""
        box = self.chart.box(name, x, y, self._stage_lines(name), "op", high=_STAGE).box
        return box[1], box[3]

    # the parts

    def _beside(self, words: tuple[Lines, Lines], x: float, y: float) -> None:
        """Write what a vertical wire carries left of it, and what comes back right of it."""
        c = self.chart
        c.words(words[0], x - 7.0, y - measure(words[0])[1] / 2, "end")
        c.words(words[1], x + c.beside, y - measure(words[1])[1] / 2)

    def _up(self, x: float, low: float, high: float, net: str, links: list[Link]) -> None:
        self.chart.wire([(x, low), (x, high)], "forward", net, links)
        self.chart.reverse((x, low), (x, high), links)

    def _cell(self) -> None:
        c, block = self.chart, self.block
        parts = [name for name in ("+", "clip", "c*") if name in block]
        c.disc(c.kept, self.x_c, self.y_c, self.R, self.cell, "core", parts)
        c.drawn.update((a, b) for a in parts for b in parts if (a, b) in block.links)
        lift = self._lift()
        c.terminal_of("c-", self.x_r - 6.0, self.y_c - lift - (13.0 if c.backward else 6.0), "end", self.loop)
        start = (self.x_c + _edge(self.R, lift), self.y_c - lift)
        c.entrance("c-", (start[0] + self.x_r) / 2, start[1])
        if "fc" in block:
            c.dot("fc", self.x_r, self.y_c, "mul")
            into, out = self.links("c-", "fc"), self.links("fc", "+")
            c.wire([start, (self.x_r, start[1]), (self.x_r, self.y_c - ROUND)], "lag", "c-", into)
            c.reverse((start[0] + 12.0, start[1]), (self.x_r - 6.0, start[1]), into)
            c.wire([(self.x_r - ROUND, self.y_c), (self.x_c + self.R, self.y_c)], "forward", "fc", out)
            c.reverse((self.x_r - ROUND, self.y_c), (self.x_c + self.R, self.y_c), out, -1.0)
            c.words(self.product, self.x_r + ROUND + 6.0, self.y_c - measure(self.product)[1] / 2)
        else:
            path = [start, (self.x_r, start[1]), (self.x_r, self.y_c), (self.x_c + self.R, self.y_c)]
            c.wire(path, "lag", "c-", self.links("c-", "+"))
            c.reverse((self.x_r, self.y_c), (self.x_c + self.R, self.y_c), self.links("c-", "+"), -1.0)
        keeps = self.links("c-", "c*")
        if keeps:  # what zoneout, or the end of a sequence, keeps of the cell
            x, y = self.x_c + self.R + 14.0, self.y_c - 0.45 * lift
            c.junction(x, start[1], "lag")
            end = (self.x_c + _edge(self.R, 0.45 * lift), y)
            c.wire([(x, start[1]), (x, y), end], "lag", "c-", keeps)
            c.words(self.kept, x + c.beside, self.y_c - 0.6 * lift - measure(self.kept)[1] / 2)

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
        c.reverse(start, end, self.links(gate, target))
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
            c.reverse((self.x_r - 70.0, self.y_low), (self.x_r - 8.0, self.y_low), self.links("i", "f"), -1.0)
            c.words(self.halved, self.x_r + 8.0, self.y_low - measure(self.halved)[1] - 2.0)
        else:
            c.disc("f", self.x_r, self.y_i, r, self.lines["f"], "forget")
        out, room = self.links("f", "fc"), 30.0 if "gates" in block else 0.0
        c.wire([(self.x_r, self.y_i - r), (self.x_r, self.y_c + ROUND)], "forward", "f", out)
        c.reverse((self.x_r, self.y_i - r - room), (self.x_r, self.y_c + ROUND), out)
        self._beside(self.f_out, self.x_r, (self.y_i - r - room + self.y_c + ROUND) / 2)

    def _output(self) -> None:
        c, block = self.chart, self.block
        source, y, words = c.cell, self.y_c - self.R, self.into
        for name in self.boxes:
            at = self.y_box[name]
            if name == "squash":
                c.disc(name, self.x_c, at, self.rs, self.squash, "squash")
                top, low = at - self.rs, at + self.rs
            else:
                top, low = self._stage(name, self.x_c, at)
            self._up(self.x_c, y, low, source, self.links(source, name))
            self._beside(words, self.x_c, (y + low) / 2)
            source, y, words = name, top, ([], self.normed) if name == "norm" and len(self.boxes) > 1 else self.out
        if "oh" in block:
            c.dot("oh", self.x_c, self.y_o, "mul")
            self._up(self.x_c, y, self.y_o + ROUND, source, self.links(source, "oh"))
            self._beside(words, self.x_c, (y + self.y_o + ROUND) / 2)
            self._across("o", "oh", self.y_o)
            source, y, words = "oh", self.y_o - ROUND, ([], self.raw)
        elif not self.boxes:
            self._beside(words, self.x_c, (y + self.y_out) / 2)
        if "out*" in block:
            middle = self.y_out + 10.0 + self._stage_size("out*")[1] / 2
            top, low = self._stage("out*", self.x_c, middle)
            self._up(self.x_c, y, low, source, self.links(source, "out*"))
            c.words(self.raw, self.x_c + c.beside, (y + low - measure(self.raw)[1]) / 2)
            source, y = "out*", top
            old = self.links("h-", "out*")
            if old:
                c.junction(self.x_j, self.y_out, "lag")
                end = (self.x_c + self._stage_size("out*")[0] / 2, middle)
                c.wire([(self.x_j, self.y_out), (self.x_j, middle), end], "lag", "h-", old)
                c.words(self.mixed, self.x_j + c.beside, self.y_out + 6.0)
                c.reverse((self.x_j, self.y_out), (self.x_j, middle), old)
        name, tip = c.output, self.top - 18.0
        c.wire([(self.x_c, y), (self.x_c, tip)], "forward", name)
        c.reverse((self.x_c, y), (self.x_c, tip), name)
        lines = c.state(name, c.h)
        head = measure(lines[:1])[1]
        if name in ("oh", "out*", "squash", "norm"):
            c.words(lines[:1], self.x_c, tip - 4.0 - head, "middle")
            x = self.x_c + max(c.beside, measure(lines[:1])[0] / 2 + 6.0)
            c.words(lines[1:], x, self.top - 5.0 - measure(lines[1:])[1])

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
            c.reverse((self.x_l, start[1] + sign * 8.0), end, link)
            c.words(words, self.x_l + c.beside, (start[1] + end[1]) / 2 - measure(words)[1] / 2)
        link = self.links("c-", "f") if "f" in self.gates else []
        if link:
            dip = self.R * 0.5
            points = [(self.x_c + _edge(self.R, dip), self.y_c + dip), (self.x_m, self.y_c + dip), (self.x_m, self.y_i)]
            c.wire([*points, (self.x_r - r, self.y_i)], "lag peephole", "peep-f", link)
            words = self.peeps["f"]
            c.reverse((self.x_m, self.y_c + dip + 8.0), (self.x_m, self.y_i - 4.0), link)
            c.words(words, self.x_m + c.beside, self.y_i - 12.0 - measure(words)[1])

    def _ring(self) -> None:
        """Lead the block's output around to the gates."""
        c, r = self.chart, self.r
        gates = [k for k in "ogif" if k in self.gates]
        last = "o" if "o" in gates else "i" if "i" in gates else "g"
        c.junction(self.x_c, self.y_out, "lag")
        corner = [(self.x_c, self.y_out), (self.x_r2, self.y_out)]
        lines = c.state("h-")
        c.place("h-", self.x_r2 - 9.0, self.y_out + 8.0 + measure(lines)[1] / 2, lines, "end")
        c.entrance("h-", (self.x_r + self.x_r2) / 2, self.y_out)
        if "h*" in self.block:
            top, low = self._stage("h*", self.x_r2, self.y_h)
            link = self.links("h-", "h*")
            c.wire([*corner, (self.x_r2, top)], "lag", "h-", link)
            c.reverse((self.x_r2, self.y_out + 10.0), (self.x_r2, top), link)
            corner = [(self.x_r2, low)]
        corner.append((self.x_r2, self.y_ring))
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
            path, link = ends[k], self.links(self.h, k)
            if k == last:
                path = [*corner, *path]
            elif k == "i":
                path = path[1:]
            c.wire(path, "lag", self.h, link)
            if k != last:
                c.junction(*path[0], "lag")
            a, b = path[-2], path[-1]
            words = self.weights(self.h, k)
            c.reverse(a, b, link, -1.0)
            if k == "g":
                c.words(words, foot - c.beside, b[1] + 10.0, "end")
            else:
                x = self.x_r1 + 8.0 if k in "io" else self.x_r + r + 14.0
                c.words(words, x, a[1] + c.beside - 2.0)

    def _inputs(self) -> None:
        """Lead the input to the gates."""
        c, r, block = self.chart, self.r, self.block
        symbol: Lines = [[(c.letters[self.x], TERM, "oblique", "t")]]
        high = measure(symbol)[1]
        far = self.left - 12.0
        for k in self.gates:
            words, link = self.weights(self.x, k), self.links(self.x, k)
            if k in "io":
                y = (self.y_o if k == "o" else self.y_i) - _PORT
                start, end = (far, y), (self.x_l - _edge(r, _PORT), y)
                c.words(symbol, far - 6.0, y - high / 2, "end")
                gap = c.beside if c.learns(link) else 7.0
                c.words(words, self.x_r1 + 8.0, y - gap + 2.0 - measure(words)[1])
                c.wire([start, end], "forward", self.x, link)
                c.reverse((self.x_r1 + 4.0, y), end, link)
                continue
            shift = _PORT if k == "g" or not self.remembers else -_PORT
            x = (self.x_c if k == "g" else self.x_r) + (shift if k == "g" or self.remembers else 0.0)
            y = self.bottom + 9.0
            end = (x, (self.y_g if k == "g" else self.y_i) + _edge(r, x - (self.x_c if k == "g" else self.x_r)))
            if k == "g" and "x*" in block:
                top, low = self._stage("x*", x, self.y_x)
                c.wire([(x, y), (x, low)], "forward", "x", self.links("x", "x*"))
                c.wire([(x, top), end], "forward", "x*", link)
            else:
                c.wire([(x, y), end], "forward", self.x, link)
            c.reverse((x, self.y_ring - 4.0), end, link, -1.0 if shift < 0 else 1.0)
            if shift < 0:
                c.words(words, x - c.beside, end[1] + 10.0, "end")
            else:
                c.words(words, x + c.beside, end[1] + 10.0)
            if k == "g":
                lines = c.state("x")
                head, rest = lines[:1], lines[1:]
                c.place("x", x, y + 4.0 + high / 2, head, "middle")
                c.words(rest, x + measure(head)[0] / 2 + 8.0, y + 6.0)
            else:
                c.words(symbol, x, y + 4.0, "middle")

    def _remembered(self) -> None:
        """Draw what the gates see of all gates: of the step before, and what is remembered for the next one."""
        c, r, block = self.chart, self.r, self.block
        if "gates-" not in block:
            return
        symbol: Lines = [[(c.letters["gates-"], NAME, "oblique", "t")]]
        for k in self.gates:
            link = self.links("gates-", k)
            if not link:
                continue
            words = self.weights("gates-", k)
            if k == "o":
                end = (self.x_l, self.y_o - r)
                start = (self.x_l, end[1] - _STUB - 4.0)
                c.words(symbol, start[0], start[1] - 4.0 - measure(symbol)[1], "middle")
                c.words(words, start[0] + c.beside, start[1] + 2.0)
            else:
                x, y = (self.x_l, self.y_i) if k == "i" else (self.x_r + _PORT, self.y_i)
                end = (x, y + _edge(r, x - (self.x_l if k == "i" else self.x_r)))
                start = (x, end[1] + max(_STUB, measure(words)[1] + 10.0))
                if k == "i":
                    lines = c.state("gates-")
                    c.place("gates-", x, start[1] + 4.0 + measure(lines)[1] / 2, lines, "middle")
                else:
                    c.words(symbol, x - 6.0, start[1] + 4.0)
                c.words(words, x + c.beside, end[1] + 6.0)
            c.wire([start, end], "lag", f"gates-{k}", link)
            c.reverse(start, end, link)
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
                start = (self.x_l + (self.branch if k == "i" else r + 24.0), self.y_i if k == "i" else self.y_o)
                end = (start[0], start[1] + 28.0)
                if k == "i":
                    c.place("gates", end[0], end[1] + 2.0 + measure(kept)[1] / 2, kept, "middle")
                    old = self.links("gates-", "gates")
                    if old:  # sequences that have ended keep theirs
                        low = end[1] + 4.0 + measure(kept)[1]
                        c.wire([(end[0], low + 24.0), (end[0], low)], "lag", "gates-kept", old)
                        c.reverse((end[0], low + 24.0), (end[0], low), old)
                        c.words(symbol, end[0], low + 26.0, "middle")
                else:
                    c.words(kept, end[0], end[1] + 2.0, "middle")
                c.words(words, end[0] + c.beside, start[1] + 10.0)
            c.junction(*start, "forward")
            c.wire([start, end], "forward", k, link)
            c.reverse(start, end, link, -1.0 if k == "f" else 1.0)

    def _around(self) -> Scene:
        c = self.chart
        x, y = self.right + 18.0, self.y_out + 6.0
        far, y = c.legend(c.lines(_LEGEND), x, y)
        edge, y = c.key_to_signs(x, y + 4.0)
        far = max(far, edge)
        y += 6.0
        for ledger in c.ledgers():
            c.write(ledger, x, y)
            far, y = max(far, x + ledger.size[0]), y + ledger.size[1] + 14.0
        high, rest = measure(c.state("x")[:1])[1], measure(c.state("x")[1:])[1] + 2.0
        return c.finish(far, max(self.bottom + 13.0 + max(high, rest), y))


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
