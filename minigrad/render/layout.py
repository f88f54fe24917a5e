"""From a view to a scene: every box, wire, rail and word of the picture with its place, whatever draws it.

One step is planned and the plan repeated, so the work grows with the number of steps and never faster.
Parameters stand once, on rails below the steps; what one step hands to the next runs in the corridor between
their frames.
"""

from __future__ import annotations

import heapq
import math
import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

from minigrad.graph.view import Summary, View, ViewEdge, ViewNode, columns, pretty
from minigrad.render.labels import (
    GATES,
    band_of,
    counted,
    edge_key,
    edge_text,
    gate_style,
    is_block,
    node_style,
    node_title,
    number,
    shape_text,
    symbols,
)
from minigrad.render.overlay import APART, overlay
from minigrad.render.plan import RISER, Arrange, Cell, Link, Plan, Problem, solve, spread
from minigrad.render.scene import SMALL, Box, Frame, Point, Rail, Scene, Wire, Words
from minigrad.render.text import width

LABEL = 11.5
TINY = 8.5
_TITLE = 15.0
NOTE = 9.5
_LONGEST_NOTE = 48
_LONGEST_WORDS = 512.0
"""Pixels that what stands on an edge stays below."""
_LOOP = 40.0
"""Pixels beside a block for each value that it hands to itself."""
_JOG = 6.0
"""Pixels up or down that a wire between two steps does without."""
_MARGIN = 14.0
_HEADER = 16.0
_HEAD = 14.0
_LEADING = 1.18
"""Height of a line for each pixel of its letters."""
_LEVEL = {"cell": 0, "data": 1, "hidden": 2, "parameter": 3}
"""Which wire enters or leaves a block above which."""
_OVERLAID = (
    ("backward", "gradient, on its way back"),
    ("cut", "cut: no gradient passes"),
    ("route", "the routes that were asked for"),
)
_MEANT = (("y", "y the result"), ("N", "N what a mean divides by"))
"""Letters of the page that stand in derivatives beside the names of the model."""
_MANY_USES = 2
"""A parameter that feeds more boxes than this is drawn on a rail even where there are no steps."""


@dataclass(frozen=True)
class Spacing:
    """How much air a picture has, in pixels: what can be given up where a page has little room. Letters stay."""

    apart: float = 14.0
    """Between the ranks of a step."""
    pad: float = 6.0
    """What a box is higher than its lines."""
    rails: float = 3.0
    """Between the parameters on their rails."""
    frame: float = 10.0
    """Between a frame and what is in it."""
    block: tuple[float, float] = (150.0, 100.0)
    """Width and height, at least, of what stands for a whole cell or layer."""
    flat: bool = False
    """Whether what stands before and above the steps is written on one line."""


AIRY = Spacing()
NARROW = Spacing(frame=7.0, block=(112.0, 100.0))
LOW = Spacing(apart=9.0, pad=3.0, rails=1.0, block=(150.0, 52.0))
TIGHT = replace(LOW, frame=NARROW.frame, block=(NARROW.block[0], LOW.block[1]))
FLAT = replace(TIGHT, flat=True)


def lay_out(
    view: View,
    *,
    show: Sequence[str] = ("shape",),
    arrange: Arrange | None = None,
    title: str | None = None,
    backward: bool = False,
    flow: str | None = None,
    spacing: Spacing = AIRY,
) -> Scene:
    """Return the scene of a view: the steps side by side if it has any, one plan otherwise.

    Args:
        view: what to draw.
        show: what stands on nodes and edges.
        arrange: who orders the steps; we do if None.
        title: a line above the picture.
        backward: whether the reverse sweep is drawn along the edges that carry a gradient.
        flow: "width" or "color" of the edges follows the contribution that they carry.
        spacing: how much room there is between things.
    """
    return _Builder(view, tuple(show), arrange, backward, flow, spacing).build(title or "")


@dataclass
class _Column:
    """One step, or what comes after the steps: the nodes it holds and, once planned, where they are."""

    time: int | None
    ids: list[int]
    frame: bool
    plan: Plan = field(init=False)
    local: dict[int, int] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)
    risers: dict[int, list[int]] = field(default_factory=dict)
    entries: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    x: float = 0.0


class _Builder:
    def __init__(
        self,
        view: View,
        show: tuple[str, ...],
        arrange: Arrange | None,
        backward: bool,
        flow: str | None,
        spacing: Spacing,
    ) -> None:
        self.spacing, self.frame_pad = spacing, spacing.frame
        self.view, self.show, self.arrange, self.backward, self.flow = view, show, arrange, backward, flow
        self.labelled = bool({"local", "gain", "flow"}.intersection(show))
        # two lines side by side need room for what runs back between them
        self.back = APART if backward else 0.0
        self.pitch = RISER + (4 if self.labelled else 0) + (5 if backward else 0)
        self.nodes = {n.id: n for n in view.nodes}
        self.keys = {n.id: n.key for n in view.nodes}
        self.symbol = symbols(view)
        self.edges = view.edges
        self.into: dict[int, list[int]] = {n.id: [] for n in view.nodes}
        self.out: dict[int, list[int]] = {n.id: [] for n in view.nodes}
        for k, e in enumerate(view.edges):
            self.into[e.target].append(k)
            self.out[e.source].append(k)
        self.scene = Scene()
        self.cache: dict[Problem, Plan] = {}
        self.sized: dict[int, tuple[float, float]] = {}
        self.at: dict[int, Point] = {}
        self.home: dict[int, int] = {}
        self.column_of: dict[int, int] = {}
        self.ceiling: list[int] = []
        self.before: list[int] = []
        self.data_rails: list[int] = []
        self.depth: dict[int, int] = {}

    # who goes where

    def _sort_out(self) -> None:
        column = columns(self.view)
        # a whole layer as one node has all steps in it: what comes after it stands above it, whatever its step
        whole = any(n.kind == "op" and n.step is None and is_block(n) for n in self.view.nodes)
        steps = () if whole else self.view.steps
        self.notes = dict(self.view.notes)
        self.timed = bool(steps)
        self.taps = {n.id: n.tap for n in self.view.nodes if n.tap is not None} if steps else {}
        parameters = [n.id for n in self.view.nodes if n.kind == "parameter"]
        if not steps:
            rails = {p for p in parameters if len(self.out[p]) > _MANY_USES}
            self.rails = [p for p in parameters if p in rails]
            self.columns = [_Column(None, [n.id for n in self.view.nodes if n.id not in rails], False)]
            self.home.update(dict.fromkeys(self.columns[0].ids, 0))
            return
        number_of = {t: k for k, t in enumerate(steps)}
        self.columns = [_Column(t, [], True) for t in steps]
        after, early = [], []
        on_top: set[int] = set()
        for n in self.view.nodes:
            if n.kind == "parameter" or n.id in self.taps:
                continue
            if n.step is not None:
                self.home[n.id] = number_of[n.step]
                self.columns[number_of[n.step]].ids.append(n.id)
            elif column[n.id] is None:
                early.append(n.id)
            elif all(
                self.nodes[s].step is not None or s in on_top or self._is_start(s)
                for s in (self.edges[k].source for k in self.into[n.id])
            ):
                starts = [s for s in (self.edges[k].source for k in self.into[n.id]) if self._is_start(s)]
                on_top.update(starts)
                self.ceiling += starts
                column.update(dict.fromkeys(starts, column[n.id]))
                on_top.add(n.id)
                self.ceiling.append(n.id)
            else:
                after.append(n.id)
        early = [i for i in early if i not in on_top]
        later = set(after)
        for i in reversed(early):
            targets = [self.edges[k].target for k in self.out[i]]
            if targets and all(t in later for t in targets):
                later.add(i)
        self.column_of = {i: number_of[t] for i in self.ceiling if (t := column[i]) is not None}
        last = [n.id for n in self.view.nodes if n.id in later]
        if last:
            self.columns.append(_Column(None, last, False))
            self.home.update((i, len(self.columns) - 1) for i in last)
        self.before = [i for i in early if i not in later]
        feeds = {
            i: {self.home[t] for t in (self.edges[k].target for k in self.out[i]) if t in self.home}
            for i in self.before
        }
        self.data_rails = [i for i in self.before if feeds[i] - {0}]
        shared = []
        for p in parameters:
            users = [self.edges[k].target for t in self._with_taps(p) for k in self.out[t]]
            if any(u in self.home or u in self.ceiling for u in users) or not users or len(users) > 1:
                shared.append(p)
            else:
                self.before.append(p)
        self.rails = [*self.data_rails, *shared]

    def _is_start(self, id: int) -> bool:
        """Whether a node is a plain number that one operation reads: the 0 that a sum starts from."""
        node = self.nodes[id]
        return node.kind in ("constant", "input") and math.prod(node.shape) == 1 and len(self.out[id]) == 1

    def _with_taps(self, parameter: int) -> list[int]:
        return [parameter, *(t for t, root in self.taps.items() if root == parameter)]

    def _root(self, id: int) -> int:
        return self.taps.get(id, id)

    # what stands in a box

    def _lines(self, node: ViewNode) -> list[tuple[str, float, str, bool, str]]:
        label, math = self.symbol[node.id]
        size = 9.5 if node.kind == "parameter" else LABEL
        lines = [(label, size, "oblique" if node.kind in ("input", "parameter") else "sans", math, "t")]
        below = []
        if node.kind == "op" and node.name and label != node.display_name:
            below.append(node.display_name or "")
        if "shape" in self.show and node.op != "fold":
            below.append(shape_text(node.shape))
        if node.kind == "fold":
            below += [counted(node)] if counted(node) else []
        if below:
            lines.append(("  ".join(below), SMALL, "sans", False, "s"))
        if "value" in self.show and node.value:
            lines.append((_figure(node, node.value, "", "‖·‖ "), SMALL, "sans", False, "v"))
        if "grad" in self.show and node.grad:
            lines.append((_figure(node, node.grad, "∂ ", "‖∂‖ "), SMALL, "sans", False, "d"))
        if self.spacing.flat and (node.id in self.ceiling_set or node.id in self.early):
            face = "oblique" if node.kind == "input" else "sans"
            return [("  ".join(text for text, *_ in lines), NOTE, face, math, "t")]
        return lines

    def _size(self, id: int) -> tuple[float, float]:
        if id not in self.sized:
            lines = self._lines(self.nodes[id])
            w = max(width(t, s, f, m) for t, s, f, m, _ in lines) + 12
            h = sum(s * _LEADING for _, s, *_ in lines) + self.spacing.pad
            self.sized[id] = (max(round(w), 26.0), float(round(h)))
        return self.sized[id]

    def _box(self, id: int, x: float, y: float, size: tuple[float, float] | None = None) -> None:
        node = self.nodes[id]
        w, h = size or self._size(id)
        lines = self._lines(node)
        total = sum(s * _LEADING for _, s, *_ in lines)
        at = y - total / 2
        words = []
        for text, s, face, low, style in lines:
            words.append(Words(text, x, at + s * _LEADING / 2, s, face, "middle", style, low))
            at += s * _LEADING
        shape = "note" if node.kind == "parameter" else "double" if node_style(node) == "loss" else "round"
        title = node_title(node, self.symbol[id][0])
        style = f"{node_style(node)}{'' if node.requires_grad or node.kind != 'op' else ' still'}"
        self.scene.boxes.append(Box(f"n-{node.key}", x, y, w, h, tuple(words), style, shape, title))
        self.at[id] = (x, y)

    # planning

    def _even_out(self) -> None:
        """Give what stands in the same place of equal steps the same size, whatever numbers are in it."""
        alike: dict[tuple[tuple[str, ...], ...], list[_Column]] = {}
        for column in self.columns:
            column.ids = _topological(column.ids, self.edges, self.into)
            kinds = tuple((n.op, n.kind, n.gate or "") for n in (self.nodes[i] for i in column.ids))
            alike.setdefault(kinds, []).append(column)
        for group in alike.values():
            for ids in zip(*(column.ids for column in group), strict=True):
                sizes = [self._size(i) for i in ids]
                size = (max(w for w, _ in sizes), max(h for _, h in sizes))
                self.sized.update(dict.fromkeys(ids, size))

    def _wire_of(self, e: ViewEdge) -> tuple[int, str]:
        """One wire a result; a fold hands on several results, each on a wire of its own."""
        node = self.nodes[e.source]
        if node.kind != "fold" and not is_block(node):
            return (e.source, "")
        return (e.source, (e.carries or "") if node.kind == "fold" else e.role)

    def _readers(self, id: int) -> list[int]:
        return [self.edges[k].target for k in self.out[id]]

    def _rail(self, k: int) -> int:
        """The rail that an edge comes from."""
        return self._root(self.edges[k].source)

    def _elsewhere(self, id: int, index: int) -> set[int]:
        """In which other columns a node's result is read."""
        return {self.home[t] for t in self._readers(id) if t in self.home} - {index}

    def _riser_lines(self, target: int, ks: list[int]) -> list[int]:
        """On which of the parallel lines of a box each parameter climbs; a fold has one line a rail."""
        if self.nodes[target].kind != "fold":
            return list(range(len(ks)))
        roots = list(dict.fromkeys(self._root(self.edges[k].source) for k in ks))
        return [roots.index(self._root(self.edges[k].source)) for k in ks]

    def _plan(self, index: int) -> None:
        column = self.columns[index]
        local = column.local = {i: k for k, i in enumerate(column.ids)}
        inside: list[int] = []
        entries: list[tuple[int, int, bool, bool]] = []
        for i in column.ids:
            for k in self.into[i]:
                e = self.edges[k]
                if e.source in local:
                    (inside if local[e.source] < local[i] else column.loops).append(k)
                elif self._root(e.source) in self.rail_set:
                    column.risers.setdefault(i, []).append(k)
                else:
                    column.entries.setdefault(self._wire_of(e), []).append(k)
        column.links = inside
        rail_order = {r: k for k, r in enumerate(self.rails)}
        for lines in column.risers.values():
            lines.sort(key=lambda k: (rail_order[self._root(self.edges[k].source)], k))
        by_role = sorted(column.entries.items(), key=lambda entry: _LEVEL[self.edges[entry[1][0]].role])
        column.entries = dict(by_role)
        for wire, ks in enumerate(column.entries.values()):
            for k in ks:
                e = self.edges[k]
                block = is_block(self.nodes[e.target])
                beside = e.role != "hidden" or block
                entries.append((wire, local[e.target], beside, self.home.get(e.source) == index + 1))
        pitch = self.pitch
        links = []
        for k in inside:
            e = self.edges[k]
            text = self._local(k)
            size = (round(width(text, TINY, math=True) + 6 + self.back), 12.0) if text else None
            links.append(Link(local[e.source], local[e.target], size))
        loops_at: dict[int, set[str | None]] = {}
        for k in column.loops:
            loops_at.setdefault(self.edges[k].source, set()).add(self.edges[k].carries)
        # what comes along a lane has its label below the box; neighbours must be as far apart as the longest of them
        entered = (
            {self.edges[k].target: self._local(k) for ks in column.entries.values() for k in ks}
            if self.labelled
            else {}
        )
        widest = max((width(text, TINY, math=True) + 18 for text in entered.values() if text), default=0.0)
        cells = []
        for i in column.ids:
            n = self.nodes[i]
            w, h = self._size(i)
            climbing = column.risers.get(i, [])
            lines_in = max(self._riser_lines(i, climbing), default=-1) + 1
            arguments = len(self.into[i]) - len(climbing)
            need = 9.0 * min(arguments, 12) + (max(lines_in - 1, 0) * pitch + 10 if lines_in else 0) + 6
            hint = (float(GATES.index(n.gate) if n.gate in GATES else len(GATES) if climbing else 1.5),)
            if is_block(n):
                w, h = max(w, self.spacing.block[0]), max(h, self.spacing.block[1])
            self.sized[i] = (max(w, need), h)
            if i in entered:
                need = max(need, widest)
            band = self.band.get(i, -1)
            cells.append(Cell(*self.sized[i], hint, band, _LOOP * len(loops_at.get(i, ()))))
        problem = Problem(
            tuple(cells), tuple(links),
            tuple(
                (local[t], max(self._riser_lines(t, ks)) + 1, pitch, min(self.rail_band[self._rail(k)] for k in ks))
                for t, ks in column.risers.items()
            ),
            tuple(dict.fromkeys(entries)),
            tuple(
                (local[i], 2 * max(self._shifts(i).values()))
                for i in column.ids
                if any(t in self.ceiling_set for t in self._readers(i))
            ),
            tuple(
                (local[i], leftwards)
                for i in column.ids
                for leftwards in (False, True)
                if leftwards in {at == index - 1 for at in self._elsewhere(i, index)}
            ),
            tuple(self.gaps),
            self.spacing.apart,
        )  # fmt: skip
        if problem not in self.cache:
            self.cache[problem] = solve(problem, self.arrange)
            if self.cache[problem].who != "own":
                self.scene.engine = self.cache[problem].who
        column.plan = self.cache[problem]

    # the picture

    def build(self, title: str) -> Scene:
        scene = self.scene
        scene.title = title
        self._sort_out()
        self.rail_set = set(self.rails)
        self.ceiling_set = set(self.ceiling)
        self.early = set(self.before) - self.rail_set
        self._even_out()
        self._sort_bands()
        for index in range(len(self.columns)):
            self._plan(index)
        self._align()
        self._lift_folds()
        self._gather_corridors()
        self._place_columns(title)
        self._draw_rails()
        self._draw_columns()
        self._draw_ceiling()
        self._draw_before()
        self._draw_corridors()
        self._lay_rails()
        overlay(scene, self.view, backward=self.backward, flow=self.flow)
        self._finish()
        return scene

    def _sort_bands(self) -> None:
        """Number the layers and directions from the bottom up, and give each the rails that nobody else uses."""
        framed = [i for c in self.columns if c.frame for i in c.ids]
        found = {i: band for i in framed if (band := band_of(self.nodes[i])) is not None}
        keys = sorted(set(found.values()))
        self.band = {i: keys.index(band) for i, band in found.items()}
        if len(keys) > 1:
            # what is computed from the highest layer alone stands above it, with rails of its own
            for i in framed:
                read = [s for k in self.into[i] if self.home.get(s := self.edges[k].source) == self.home[i]]
                if i not in self.band and max((self.band.get(s, -1) for s in read), default=-1) >= len(keys) - 1:
                    self.band[i] = len(keys)
            keys = [*keys, (len(keys), 0)]
        users: dict[int, set[int]] = {rail: set() for rail in self.rails}
        climbed: dict[int, set[int]] = {}
        for e in self.edges:
            root = self._root(e.source)
            if root not in users or e.target in self.taps:
                continue
            if self.nodes[e.target].span and e.target not in self.band and e.target in self.home:
                climbed.setdefault(e.target, set()).add(root)  # whole steps use what each of their layers does
            else:
                users[root].add(self.band.get(e.target, 0) if e.target in self.home else 0)
        self.rail_band = {rail: max(bands, default=0) if len(bands) == 1 else 0 for rail, bands in users.items()}
        self.band.update((i, max(self.rail_band[rail] for rail in read)) for i, read in climbed.items())
        # what stands on the lines that climb from the rails, below each band
        self.locals_room = [0.0] * max(len(keys), 1)
        for k, e in enumerate(self.edges):
            if self.labelled and (root := self._root(e.source)) in users and (text := self._local(k)):
                at = self.rail_band[root]
                self.locals_room[at] = max(self.locals_room[at], width(text, TINY, math=True) + 8.0)
        self.gaps = [0.0] * max(len(keys), 1)
        for rail, above in self.rail_band.items():
            if above:
                self.gaps[above] += self._rail_height(rail)
        self.gaps = [gap + 12.0 + room if gap else 0.0 for gap, room in zip(self.gaps, self.locals_room, strict=True)]

    def _rail_height(self, rail: int) -> float:
        if self.nodes[rail].kind == "parameter":
            return self._head(rail)[1] + self.spacing.rails
        return self._size(rail)[1] + 10.0

    def _align(self) -> None:
        """Bring each band and its blocks to one height in all steps, with room for the states the first step reads."""
        framed = [c for c in self.columns if c.frame]
        self.band_y = [0.0]
        states = self._state_room()
        for b in range(len(self.gaps)):
            if b and framed:
                least = self.band_y[-1] + self.gaps[b - 1] + states[b - 1]
                levels = [(c, c.plan.bands[b], c.plan.bands[b]) for c in framed]
                self.band_y.append(_lift_to_one_height(levels, least))
            rows: list[list[tuple[_Column, int]]] = []  # of each row of blocks in the band
            for c in framed:
                end = c.plan.bands[b + 1] if b + 1 < len(self.gaps) else math.inf
                stand = {
                    c.plan.rank[k]: k for i, k in c.local.items() if is_block(self.nodes[i]) and not self.nodes[i].span
                }
                among = [r for r in sorted(stand) if c.plan.bands[b] <= c.plan.rows[r] < end]
                for n, r in enumerate(among):
                    rows[n:] = rows[n:] or [[]]
                    rows[n].append((c, stand[r]))
            for row in rows:
                _lift_to_one_height([(c, c.plan.rows[c.plan.rank[k]], c.plan.centre[k][1]) for c, k in row])

    def _state_room(self) -> list[float]:
        """Return how high the first states of each band are, one above the other."""
        room = [0.0] * len(self.gaps)
        for i in self.before:
            read = [t for t in self._readers(i) if self.home.get(t) == 0]
            if read and i not in self.rail_set:
                room[min(self.band.get(t, 0) for t in read)] += self._size(i)[1] + 6.0
        return [high + 8.0 if high else 0.0 for high in room]

    def _lift_folds(self) -> None:
        """Bring what stands for whole steps to the height of what it reads and hands on, if no rail is in its way."""
        tallest = max((c.plan.height for c in self.columns), default=0.0)
        for index, column in enumerate(self.columns):
            if len(column.ids) != 1 or not is_block(self.nodes[column.ids[0]]) or any(self.rail_band.values()):
                continue
            fold, levels = column.ids[0], []
            for source, _ in column.entries:
                if (home := self.home.get(source)) in (index - 1, index + 1):
                    other = self.columns[home]
                    levels.append(other.plan.exits[other.local[source], home > index][1])
            for other in self.columns[max(index - 1, 0) : index + 2]:
                for wire, ((source, _), ks) in enumerate(other.entries.items()):
                    if source == fold:
                        levels.append(other.plan.entries[wire, other.local[self.edges[ks[0]].target]][1])
            if levels:
                lift = sum(levels) / len(levels) - column.plan.centre[0][1]
                lift = min(max(lift, 0.0), tallest - column.plan.height)
                column.plan = column.plan.lifted([(0.0, lift)])

    def _gather_corridors(self) -> None:
        """Find what runs between columns; corridor k lies to the left of column k."""
        count = len(self.columns)
        self.corridor: list[list[_Run]] = [[] for _ in range(count + 1)]
        self.far: list[_Run] = []
        for index, column in enumerate(self.columns):
            for number_of, ((source, carried), ks) in enumerate(column.entries.items()):
                wires: dict[tuple[bool, float], list[tuple[int, float]]] = {}
                for k in ks:
                    side, y, x = column.plan.entries[number_of, column.local[self.edges[k].target]]
                    wires.setdefault((side, y), []).append((k, x))
                for (side, y), ends in wires.items():
                    run = _Run(source, index, side, y, ends, carried)
                    origin = self.home.get(source, self.column_of.get(source, -1))
                    run.origin = origin
                    run.over = source in self.ceiling_set
                    if run.leftward:
                        self.corridor[index + 1].append(run)
                    elif origin == index - 1 or (origin == -1 and index == 0) or run.over:
                        self.corridor[index].append(run)
                    else:
                        self.far.append(run)
        self.fold_wires: dict[int, list[str]] = {}
        leaving = {wire: self.edges[ks[0]].role for column in self.columns for wire, ks in column.entries.items()}
        for (source, carried), _ in sorted(leaving.items(), key=lambda item: _LEVEL[item[1]]):
            self.fold_wires.setdefault(source, []).append(carried)
        self.far_lane: dict[int, int] = {}
        self.far_x: dict[int, float | None] = {}
        lane_ends: list[int] = []
        far: dict[int, list[_Run]] = {}
        for run in self.far:
            far.setdefault(run.source, []).append(run)
        for source in dict.fromkeys(r.source for r in sorted(self.far, key=lambda r: (r.origin, r.index))):
            runs = far[source]
            low = min(min(r.origin + 1, r.index) for r in runs)
            high = max(max(r.origin + 1, r.index) for r in runs)
            lane = next((k for k, e in enumerate(lane_ends) if e < low), len(lane_ends))
            lane_ends[lane : lane + 1] = [high]
            self.far_lane[source] = lane
        self.far_lanes = len(lane_ends)
        for run in self.far:
            self.corridor[run.index].append(run)
            leave = _Run(run.source, run.origin + 1, True, 0.0, [], run.carried, leaving=True, origin=run.origin)
            if not any(r.leaving and r.wire == run.wire for r in self.corridor[run.origin + 1]):
                self.corridor[run.origin + 1].append(leave)

    def _place_columns(self, title: str) -> None:
        plans = [c.plan for c in self.columns]
        tallest = max((p.height for p in plans), default=0.0)
        self.rows_above = self._ceiling_rows()
        # the left-hand region: chains that lead to a rail, the heads of the rails, then the taps along them
        self._left_region()
        x = self.left_end
        for k, column in enumerate(self.columns):
            x += self._corridor_width(k)
            column.x = x + (self.frame_pad if column.frame else 4.0)
            header = self._header_width(column) if column.frame else 0
            x += max(column.plan.width + 2 * (self.frame_pad if column.frame else 4.0), header)
        self.right = x + (self._corridor_width(len(self.columns)) if self.corridor[-1] else 0.0)
        self.title_room = self._title_room(title)
        top = _MARGIN + self.title_room
        ceiling_height = max((self._size(i)[1] for i in self.ceiling), default=0.0) + 12.0
        if self.rows_above:
            top -= 6.0  # half of what is between two rows
        self.ceiling_y = [top + ceiling_height * (self.rows_above - r - 0.5) for r in range(self.rows_above)]
        self.frame_top = top + ceiling_height * self.rows_above + (5 if self.rows_above else 0)
        if self.labelled and self.rows_above:  # what stands on the ways up, right above the frames
            readers = sum(t in self.ceiling_set for i in self.nodes for t in self._readers(i))
            self.frame_top += 5.0 + 10.0 * min(readers, 3)
        head = self._headroom(tallest) if self.timed else 0.0
        self.base = self.frame_top + head + tallest + (self.frame_pad - 2)
        self.frame_bottom = self.base + (self.frame_pad - 2 if self.timed else 0.0)
        lanes = 10.0 + 12.0 * self.far_lanes if self.far_lanes else 0.0
        self.far_y = self.frame_bottom + 16.0
        self.rail_top = self.frame_bottom + lanes + 14.0 + self.locals_room[0]
        self._place_rails()

    def _title_room(self, title: str) -> float:
        """Return how much higher the picture is for its title: nothing if what stands at the top leaves it a corner."""
        if not title:
            return 0.0
        end = _MARGIN + width(title, _TITLE, "bold") + 12.0
        ways = (c.x + way[-1][0] - 8.0 for c in self.columns for way in c.plan.tops.values())
        starts = [c.x - self.frame_pad for c in self.columns if c.frame or not self.timed]
        corner = min(ways, default=0.0) if self.rows_above else min(starts, default=0.0)
        # chains left of the rails may stand as high as the first frame
        return 0.0 if end < corner and max(self.depth.values(), default=0) == 0 else 26.0

    def _headroom(self, tallest: float) -> float:
        """Return how far below a frame's outline its boxes begin: its headline may stand beside the highest of them."""
        for column in self.columns:
            if not column.frame:
                continue
            end = self._header(column)[2] + 8.0 - self.frame_pad
            low = tallest - 15.0
            for i, k in column.local.items():
                (x, y), (w, h) = column.plan.centre[k], self.sized[i]
                if y + h / 2 > low and x - w / 2 < end:
                    return _HEADER
            lines = [*column.plan.routes, *column.plan.tops.values(), *column.plan.risers.values()]
            if any(y > low and x < end for line in lines for x, y in line[:-1]):
                return _HEADER
        return 3.0

    def _note_text(self, column: _Column) -> str:
        """What else stands in a frame's headline."""
        text = self.notes.get(column.time, "") if column.time is not None else ""
        return text if len(text) <= _LONGEST_NOTE else text[: _LONGEST_NOTE - 1] + "…"

    def _header(self, column: _Column) -> tuple[float, float, float]:
        """Return where a frame's title and its note begin, beside what leads up and out, and where both end."""
        ways = sorted(
            way[-1][0] + self.frame_pad + shift
            for source, way in column.plan.tops.items()
            for shift in self._shifts(column.ids[source]).values()
        )
        starts, end = [], 9.0 - 14.0
        for text, size in ((self._frame_text(column), 11.0), (self._note_text(column), NOTE)):
            start, wide = end + 14.0, width(text, size)
            for way in ways if text else ():
                if start - 4.0 < way < start + wide + 4.0:
                    start = way + 6.0
            starts.append(start)
            end = start + wide if text else end
        return starts[0], starts[1], end

    def _header_width(self, column: _Column) -> float:
        return self._header(column)[2] + 11.0

    def _frame_text(self, column: _Column) -> str:
        for i in column.ids:
            span = self.nodes[i].span
            if span:
                return f"t = {span[0]} … {span[1]}"
        return f"t = {column.time}"

    def _corridor_width(self, k: int) -> float:
        runs = self.corridor[k]
        if not runs:
            return 26.0 if k else 4.0
        label = max((width(self._carried(r), SMALL, "oblique") for r in runs if k), default=0.0)
        return (20.0 if self.labelled else 11.0) + label + 9.0 * len({r.wire for r in runs})

    def _carried(self, run: _Run) -> str:
        node = self.nodes[run.source]
        if node.kind == "fold" and run.ends:
            return pretty(self.edges[run.ends[0][0]].carries) or ""
        if run.carried and run.ends and node.name and node.name.endswith("]"):
            return pretty(self.edges[run.ends[0][0]].name + node.name[node.name.rindex("[") :]) or ""
        return node.display_name or ""

    # left of the steps

    def _left_region(self) -> None:
        """Put the heads of rails and the first states next to the steps, and what makes them in columns to the left."""
        before = set(self.before)
        self.state = [
            i for i in self.before if i not in self.rail_set and any(self.home.get(t) == 0 for t in self._readers(i))
        ]
        first = {*self.rails, *self.state}
        self.depth = dict.fromkeys(first, 0)
        for i in reversed(self.before):
            if i not in first:
                made = [self.depth[t] for t in self._readers(i) if t in before and t in self.depth]
                self.depth[i] = 1 + max(made, default=-1)
        widths: dict[int, float] = {}
        crowd: Counter[int] = Counter()
        for i, d in self.depth.items():
            w = self._head(i)[0] if self.nodes[i].kind == "parameter" and i in self.rail_set else self._size(i)[0]
            widths[d] = max(widths.get(d, 0.0), w)
            crowd[d] += 1
        # between two columns every box has a line of its own to climb on
        self.depth_right = {0: 0.0}
        for d in range(1, max(widths, default=0) + 1):
            room = 14.0 + 4.0 * min(crowd[d], 6)
            self.depth_right[d] = self.depth_right[d - 1] - widths[d - 1] - room
        deepest = max(widths, default=0)
        self.head_right = _MARGIN + widths.get(deepest, 0.0) - self.depth_right[deepest]
        self.tap_x: dict[int, float] = {}
        end = self.head_right
        for rail in self.rails:
            x = self.head_right + 12
            for t in self.taps:
                if self.taps[t] == rail:
                    w = self._tap_size(t)[0]
                    self.tap_x[t] = x + w / 2
                    x += w + 4
            end = max(end, x)
        self.left_end = end + 2 if self.depth else _MARGIN
        if self.depth and not any(self.rail_band.values()):
            # no rail is as high as the frames: they may begin above the taps, if no parameter climbs through those
            ways = [way[0][0] - self.pitch * 2 for way in self.columns[0].plan.risers.values()]
            inset = self.frame_pad + self._corridor_width(0) + min(ways, default=0.0)
            self.left_end = max(self.left_end - max(inset - 8.0, 0.0), self.head_right + 2.0)

    def _place_rails(self) -> None:
        """Give every rail its height: below the steps, or below the band that alone uses it."""
        below = [self.rail_top] + [
            self.base - place - gap + 4.0 + room
            for place, gap, room in zip(self.band_y[1:], self.gaps[1:], self.locals_room[1:], strict=True)
        ]
        self.rail_y: dict[int, float] = {}
        for rail in self.rails:
            band, high = self.rail_band[rail], self._rail_height(rail)
            self.rail_y[rail] = below[band] + high / 2
            below[band] += high
        self.rail_bottom = below[0]

    def _head(self, id: int) -> tuple[float, float]:
        node = self.nodes[id]
        text = self._head_text(node)
        return (round(width(text, 9.5, "oblique") + 16), _HEAD)

    def _head_text(self, node: ViewNode) -> str:
        text = node.display_name if node.kind != "parameter" else node.name
        text = text or node.label
        if "shape" in self.show and node.kind == "parameter" and not node.members:
            text += f"  {shape_text(node.shape)}"
        for word, summary, mark in (("value", node.value, "‖·‖"), ("grad", node.grad, "‖∂‖")):
            if word in self.show and summary:
                text += f"  {mark} {number(summary.norm)}"
        return text

    def _tap_size(self, id: int) -> tuple[float, float]:
        label, math = self.symbol[id]
        return (round(width(label, 9, "oblique", math) + 6), 13.0)

    def _draw_rails(self) -> None:
        scene = self.scene
        self.rail_style: dict[int, str] = {}
        hue = 0
        for rail in self.rails:
            node = self.nodes[rail]
            y = self.rail_y[rail]
            if node.kind == "parameter":
                style = f"rail r{hue % 6}"
                hue += 1
                w, h = self._head(rail)
                x = self.head_right - w / 2
                words = (Words(self._head_text(node), x - 2, y, 9.5, "oblique", "middle", "t"),)
                title = node_title(node, self.symbol[rail][0])
                scene.boxes.append(Box(f"n-{node.key}", x, y, w, h, words, "parameter", "note", title))
                self.at[rail] = (x, y)
            else:
                style = "rail data"
                w, _ = self._size(rail)
                self._box(rail, self.head_right - w / 2, y)
            self.rail_style[rail] = style
        self.rail_reach = dict.fromkeys(self.rails, self.head_right)
        for t, root in self.taps.items():
            if root not in self.rail_y:
                continue
            node = self.nodes[t]
            label, math = self.symbol[t]
            w, h = self._tap_size(t)
            words = (Words(label, self.tap_x[t], self.rail_y[root], 9, "oblique", "middle", "t", math),)
            style = f"tap {gate_style(node.gate) or 'parameter'}"
            box = Box(
                f"n-{node.key}",
                self.tap_x[t],
                self.rail_y[root],
                w,
                h,
                words,
                style,
                "round",
                node_title(node, label),
            )
            scene.boxes.append(box)
            self.at[t] = (box.x, box.y)
            style = self.rail_style[root].replace("rail", "parameter")
            for k in self.into[t]:
                self._wire(k, [(self.rail_reach[root], box.y), (box.x - w / 2, box.y)], style)
            self.rail_reach[root] = max(self.rail_reach[root], box.x + w / 2)

    # the steps

    def _draw_columns(self) -> None:
        scene = self.scene
        self.exit: dict[tuple[int, bool], tuple[bool, float, float, float]] = {}
        self.top_at: dict[int, list[Point]] = {}
        for column in self.columns:
            plan, x0 = column.plan, column.x
            if column.frame:
                text = self._frame_text(column)
                left = x0 - self.frame_pad
                w = max(plan.width + 2 * self.frame_pad, self._header_width(column))
                head, beside, _ = self._header(column)
                words = Words(text, left + head, self.frame_top + 12, 11, "sans", "start", "f")
                note = self._note_text(column)
                noted = (Words(note, left + beside, words.y, NOTE, "sans", "start", "note"),)
                folded = any(self.nodes[i].span for i in column.ids)
                height = self.frame_bottom - self.frame_top
                scene.frames.append(
                    Frame(
                        left,
                        self.frame_top,
                        w,
                        height,
                        words,
                        "frame folded" if folded else "frame",
                        noted if note else (),
                    )
                )

            def put(p: Point, x0: float = x0) -> Point:
                return (x0 + p[0], self.base - p[1])

            for i, k in column.local.items():
                x, y = put(plan.centre[k])
                self._box(i, x, y, self.sized[i])
                for leftwards in (False, True):
                    if (k, leftwards) in plan.exits:
                        side, lane = plan.exits[k, leftwards]
                        w, h = self.sized[i]
                        edge = x + (-w if leftwards else w) / 2 if side else x
                        self.exit[i, leftwards] = (side, edge, self.base - lane, y - h / 2)
            for n, k in enumerate(column.links):
                label: tuple[Words, ...] = ()
                if n in plan.labels:
                    x, y = put(plan.labels[n])
                    label = self._note(k, x + self.back / 2, y, anchor="middle")
                self._wire(k, map(put, plan.routes[n]), "data", square=False, words=label)
            self._draw_loops(column)
            pitch = self.pitch
            for target, ks in column.risers.items():
                path = [put(p) for p in plan.risers[column.local[target]]]
                lines = self._riser_lines(target, ks)
                for n, k in zip(lines, ks, strict=True):
                    together = [j for m, j in zip(lines, ks, strict=True) if m == n]
                    self._riser(k, path, (n - max(lines) / 2) * pitch, together if k == together[0] else [])
            for source, way in plan.tops.items():
                self.top_at[column.ids[source]] = [put(p) for p in way]

    def _draw_loops(self, column: _Column) -> None:
        """Lead what a block hands to itself, one step later, round its right side; one way for each value."""
        ways: dict[int, dict[str | None, list[int]]] = {}
        for k in sorted(column.loops, key=lambda k: (_LEVEL[self.edges[k].role], k)):
            e = self.edges[k]
            ways.setdefault(e.source, {}).setdefault(e.carries, []).append(k)
        entered: dict[int, int] = {}
        for source, values in ways.items():
            (x, y), (w, h) = self.at[source], self.sized[source]
            for j, (carried, ks) in enumerate(values.items()):
                out = x + w / 2 + _LOOP * (len(values) - j) - 20
                top = y - h / 2 + h * (j + 0.6) / (2 * len(values) + 0.8)
                for k in ks:
                    e = self.edges[k]
                    (tx, ty), (tw, th) = self.at[e.target], self.sized[e.target]
                    n = entered[e.target] = entered.get(e.target, 0) + 1
                    low = ty + th / 2 - th * (n - 0.4) / (2 * len(values) + 0.8) if e.target == source else ty
                    style = e.role if e.role in ("cell", "hidden") else "data"
                    label = pretty(carried) or ""
                    beside = (Words(label, out + 7, (top + low) / 2, SMALL + 1, "oblique", "start", f"w {style}"),)
                    points = ((x + w / 2, top), (out, top), (out, low), (tx + tw / 2, low))
                    self._wire(k, points, style, words=beside if label else ())
                    self.scene.dots.append((out, (top + low) / 2, "delay"))

    def _riser(self, k: int, path: list[Point], shift: float, together: list[int]) -> None:
        e = self.edges[k]
        root = self._root(e.source)
        y = self.rail_y[root]
        style = self.rail_style[root]
        points = [(x + shift, py) for x, py in path]
        while len(points) > 1 and points[1][1] > y:  # it comes from a rail that is higher than where the others begin
            points = points[1:]
        x = points[0][0]
        if points[0][1] > y:
            (ax, ay), (bx, by) = points[:2]
            x = ax + (bx - ax) * (ay - y) / (ay - by)
            points = points[1:]
        band = self.rail_band[root]
        under = self.base - self.band_y[band] - self.gaps[band] - 2.0 if band else self.frame_bottom + 2.0
        words = self._note(
            k, x + (10.0 if self.back else 5.5), under + self.locals_room[band], turn=90, together=together
        )
        kind = "data" if style.endswith("data") else style.replace("rail", "parameter")
        self._wire(k, ((x, y), *points), kind, square=False, words=words)
        self.scene.dots.append((x, y, kind))
        self.rail_reach[root] = max(self.rail_reach[root], x)

    def _local(self, k: int) -> str:
        """What is printed on an edge."""
        return edge_text(self.edges[k], self.show)

    def _note(
        self, k: int, x: float, y: float, anchor: str = "start", turn: int = 0, together: Sequence[int] | None = None
    ) -> tuple[Words, ...]:
        """Words beside a wire; edges that share a line have one label, of all the gradient that flows there."""
        text = self._local(k)
        if together is not None and len(together) != 1:
            flows = [c.norm for j in together if (c := self.edges[j].contribution) is not None]
            text = f"δ {number(math.hypot(*flows))}" if flows and "flow" in self.show else ""
        return (Words(text, x, y, TINY, "sans", anchor, "l", True, turn),) if text else ()

    def _wire(
        self,
        k: int,
        points: Iterable[Point],
        style: str,
        *,
        square: bool = True,
        hops: Iterable[Point] = (),
        words: tuple[Words, ...] = (),
    ) -> None:
        e = self.edges[k]
        source, target = self.nodes[e.source], self.nodes[e.target]
        said = [
            f"{source.display_name or self.symbol[e.source][0]} → {target.display_name or self.symbol[e.target][0]}"
        ]
        if e.name:
            said.append(f"argument {e.name}")
        if source.kind != "fold":
            said.append(f"shape {tuple(source.shape)}".replace(",)", ")") if source.shape else "scalar")
        if e.local:
            said.append(f"∂⁺ {e.local}")
        if e.gain is not None:
            said.append(f"stretches a gradient at most {number(e.gain)} times")
        if e.contribution is not None:
            said.append(f"norm of the gradient that flows {number(e.contribution.norm)}")
        if e.cut:
            said.append("no gradient passes")
        corners = tuple((round(x, 2), round(y, 2)) for x, y in points)
        self.scene.wires.append(
            Wire(edge_key(e, self.keys), corners, style, ", ".join(said), tuple(hops), square, words)
        )

    # above the steps

    def _ceiling_rows(self) -> int:
        """Give what gathers the steps (a running sum of losses, a stack) rows above them; count the rows."""
        spans: list[list[tuple[float, float]]] = []  # of each row, from left to right; none meet
        self.ceiling_row: dict[int, int] = {}
        order: dict[int, float] = {}
        crowd: dict[int, int] = {}
        for i in self.ceiling:
            c = self.column_of[i]
            order[i] = c + 0.01 * crowd.get(c, 0)
            crowd[c] = crowd.get(c, 0) + 1
        for i in self.ceiling:
            # a box ends a little right of its column: the next of a chain starts there, all others must not
            sources = [self.edges[k].source for k in self.into[i]]
            starts = [order[s] + 0.005 if s in order else float(self.home.get(s, 0)) for s in sources]
            low, high = min(starts, default=order[i]), order[i] + 0.005
            r = max((self.ceiling_row[s] for s in sources if s in self.ceiling_row), default=0)
            while r < len(spans) and (at := bisect_left(spans[r], (high,))) and low < spans[r][at - 1][1]:
                r += 1
            if r == len(spans):
                spans.append([])
            insort(spans[r], (low, high))
            self.ceiling_row[i] = r
        return len(spans)

    def _way_up(self, k: int) -> list[Point]:
        """The way from a box through the ceiling; what a block hands on besides has a line of its own."""
        source = self.edges[k].source
        shift = self._shifts(source)[self.edges[k].carries]
        return [(x + shift, y) for x, y in self.top_at[source]]

    def _shifts(self, source: int) -> dict[str | None, float]:
        """Return how far from its middle each value that a box hands upwards leaves it."""
        up = [self.edges[j].carries for j in self.out[source] if self.edges[j].target in self.ceiling_set]
        carried = list(dict.fromkeys(up))
        apart = 10.0 if is_block(self.nodes[source]) else 0.0
        return {word: apart * (k - (len(carried) - 1) / 2) for k, word in enumerate(carried)}

    def _draw_ceiling(self) -> None:
        ways = {k: self._way_up(k) for i in self.ceiling for k in self.into[i] if self.edges[k].source in self.top_at}
        upright = sorted((way[-1][0], self.ceiling_row[self.edges[k].target]) for k, way in ways.items())
        placed: list[list[tuple[float, float]]] = [[] for _ in self.ceiling_y]
        widest = max((self._size(i)[0] for i in self.ceiling), default=0.0)

        def near(by_x: Sequence[Any], low: float, high: float) -> Sequence[Any]:
            return by_x[bisect_left(by_x, (low,)) : bisect_left(by_x, (high,))]

        for i in sorted(self.ceiling, key=lambda i: (self.ceiling_row[i], i)):
            c, r = self.column_of[i], self.ceiling_row[i]
            column = self.columns[c]
            w, h = self._size(i)
            own = [ways[k][-1][0] for k in self.into[i] if k in ways and self.home[self.edges[k].source] == c]
            middle = column.x + column.plan.width / 2
            x = max(own, default=0.0 if any(self.edges[k].source in self.ceiling_set for k in self.into[i]) else middle)
            for k in self.into[i]:
                if (s := self.edges[k].source) in self.ceiling_set:
                    room = 18.0 + width(self._local(k), TINY, math=True)
                    x = max(x, self.at[s][0] + self._size(s)[0] / 2 + room + w / 2)
            # to the right of what stands in its row, and of what has to climb past it to a higher one
            while True:
                reach = w / 2 + 8.0
                at = [left for left, row in near(upright, x - reach, x + reach) if row > r and x - reach < left]
                at += [left for left in own if x - reach < left < x - reach + 12.0]
                at += [
                    right + 8.0
                    for left, right in near(placed[r], x - reach - widest, x + reach + 8.0)
                    if x - reach < right
                ]
                if not at:
                    break
                x = max(at) + reach + 0.1
            insort(placed[r], (x - w / 2, x + w / 2))
            y = self.ceiling_y[r]
            self._box(i, x, y)
            self.exit[i, False] = (True, x + w / 2, y, y - h / 2)
        noted: dict[int, list[Words]] = {}  # around which place: only neighbours can meet
        for i in self.ceiling:
            (x, y), (w, h) = self.at[i], self._size(i)
            for k in self.into[i]:
                source = self.edges[k].source
                if source in self.ceiling_set:
                    _, sx, sy, _ = self.exit[source, False]
                    same = [j for j in self.into[i] if self.edges[j].source == source]  # a ⊙ a is two lines
                    off = (10.0 if self.backward else 5.0) * (same.index(k) - (len(same) - 1) / 2)
                    points = [(sx, sy + off), (x - w / 2, y + off)] if sy == y else [
                        (sx, sy + off), (x - w / 2 - 12 - off, sy + off), (x - w / 2 - 12 - off, y + off),
                        (x - w / 2, y + off)]  # fmt: skip
                    above = k == same[0] or len({self._local(j) for j in same}) == 1
                    words = self._note(k, sx + 5, sy + off + (-7 if above else 7)) if k == same[0] or not above else ()
                else:
                    tx = ways[k][-1][0]
                    words = self._note(k, tx + 5 + self.back, self.frame_top - 7)
                    part = int(tx // _LONGEST_WORDS)
                    others = [w for p in (part - 1, part, part + 1) for w in noted.get(p, ())]
                    while words and any(_meet(words[0].box, other.box) for other in others):
                        words = (replace(words[0], y=words[0].y - 10.0),)
                    noted.setdefault(part, []).extend(words)
                    under = self.home[source] == self.column_of[i] and abs(tx - x) < w / 2 - 2
                    points = [*ways[k], (tx, y + h / 2)] if under else [*ways[k], (tx, y), (x - w / 2, y)]
                self._wire(k, points, "data", words=words)

    # before the steps

    def _draw_before(self) -> None:
        for i, y in self._state_places().items():
            self._box(i, self.left_end - 2 - self._size(i)[0] / 2, y)
        low = self.rail_bottom + 6.0
        top = _MARGIN + self.title_room
        for d in range(max(self.depth.values(), default=0) + 1):
            column = [i for i in self.before if self.depth[i] == d and i not in self.at]
            wish = {}
            for i in column:
                read = [self.at[t][1] for t in self._readers(i) if t in self.at and t in self.depth]
                wish[i] = sum(read) / len(read) if read else low
            floor = low if d == 0 else top
            for i in sorted(column, key=lambda i: (wish[i], i)):
                w, h = self._size(i)
                y = max(wish[i], floor + h / 2)
                floor = y + h / 2 + 6.0
                self._box(i, self.head_right + self.depth_right[d] - w / 2, y)
        size = {b.key: b for b in self.scene.boxes}
        lane: Counter[int] = Counter()
        climb: dict[int, float] = {}
        for i in self.before:
            if self.depth[i]:
                climb[i] = self.head_right + self.depth_right[self.depth[i]] + 5.0 + 4.0 * (lane[self.depth[i]] % 6)
                lane[self.depth[i]] += 1
        for i in self.before:
            target = size[f"n-{self.keys[i]}"]
            for k in self.into[i]:
                origin = self.edges[k].source
                source = size[f"n-{self.keys[origin]}"]
                a, b = (source.x + source.width / 2, source.y), (target.x - target.width / 2, target.y)
                if a[0] >= b[0] - 4:
                    # a parameter that also makes the data: round the left of all, up, and in from below
                    points = [(source.box[0], source.y), (6.0, source.y), (6.0, target.box[3] + 6),
                              (target.x, target.box[3] + 6), (target.x, target.box[3])]  # fmt: skip
                elif abs(a[1] - b[1]) < 0.5:
                    points = [a, b]
                else:
                    x = climb.get(origin, b[0] - 9)
                    points = [a, (x, a[1]), (x, b[1]), b]
                style = self.rail_style.get(origin, "rail r5") if source.shape == "note" else "data"
                self._wire(k, points, style.replace("rail", "parameter"))

    def _state_places(self) -> dict[int, float]:
        """Return the heights of the first states: where their wires enter the first step, but never on rails."""
        entry = {r.source: self.base - r.y for r in reversed(self.corridor[0]) if r.source in self.state}
        tops = [self.base - place + 2.0 for place in self.band_y[1:]]
        zones = [(a, b) for a, b in zip(
            [*tops, self.frame_top + 10.0],
            [self.rail_top - 6.0, *(top - gap - 4.0 for top, gap in zip(tops, self.gaps[1:], strict=True))],
            strict=True,
        )]  # fmt: skip
        inside: dict[int, list[int]] = {}
        for s in sorted(self.state, key=lambda s: (entry.get(s, 0.0), s)):
            y = entry.get(s, 0.0)
            inside.setdefault(min(range(len(zones)), key=lambda z: _outside(y, zones[z])), []).append(s)
        place: dict[int, float] = {}
        for z, states in inside.items():
            floor, ceiling = zones[z]
            for s in states:
                h = self._size(s)[1]
                place[s] = max(entry.get(s, floor), floor + h / 2)
                floor = place[s] + h / 2 + 6.0
            for s in reversed(states):  # and up again where the rails leave no room
                h = self._size(s)[1]
                place[s] = min(place[s], ceiling - h / 2)
                ceiling = place[s] - h / 2 - 6.0
        return place

    # between the steps

    def _draw_corridors(self) -> None:
        plans = []
        for index, runs in enumerate(self.corridor):
            if not runs:
                continue
            left = self.columns[index - 1].x + self._column_width(index - 1) if index else self.left_end
            right = left + self._corridor_width(index)
            ends: _Ends = {}
            for run in runs:
                self._snap(run)
                across = (self._start_y(run), self._end_y(run))
                ends.setdefault(run.wire, []).append(across[::-1] if run.leftward else across)
            movers = [w for w, spans in ends.items() if any(abs(a - b) > 0.5 for a, b in spans)]
            first = right - 9.0 * len(movers)
            slot = {w: first + 9.0 * k for k, w in enumerate(_best_slots(movers, ends))}
            plans.append((index, left, runs, ends, slot))
            # where a wire leaves for a far step must be known before it arrives, perhaps to its left
            self.far_x.update((run.source, slot.get(run.wire)) for run in runs if run.leaving)
        for index, left, runs, ends, slot in plans:
            before = len(self.scene.wires)
            named: dict[tuple[int, str], tuple[str, float, str]] = {}
            for run in runs:
                if run.leaving:
                    continue
                y1, y2 = self._start_y(run), self._end_y(run)
                x = slot.get(run.wire)
                self._draw_run(run, y1, y2, x, _hops(run.wire, x, y1, y2, ends, slot))
                text = self._carried(run)
                if text and index:
                    named.setdefault(run.wire, (text, y2 if run.leftward else y1, self._run_style(run)))
            taken = [words for wire in self.scene.wires[before:] for words in wire.words]
            for text, y, style in named.values():
                words = Words(text, left + 5, y - 7, SMALL + 1, "oblique", "start", f"w {style}")
                if any(_meet(words.box, other.box) for other in taken):
                    words = replace(words, y=y + 8)
                taken.append(words)
                self.scene.words.append(words)

    def _column_width(self, index: int) -> float:
        column = self.columns[index]
        if not column.frame:
            return column.plan.width + 4
        return max(column.plan.width + 2 * self.frame_pad, self._header_width(column)) - self.frame_pad

    def _start_y(self, run: _Run) -> float:
        if run.far and not run.leaving:
            return self.far_y + 12.0 * self.far_lane[run.source]
        return self._start_points(run)[-1][1]

    def _end_y(self, run: _Run) -> float:
        if run.leaving:
            return self.far_y + 12.0 * self.far_lane[run.source]
        return self.base - run.y

    def _snap(self, run: _Run) -> None:
        """Let a wire that would jog by a few pixels meet the side of its box a little higher or lower instead."""
        start = self._start_y(run)
        if run.side and not run.leaving and abs(start - self._end_y(run)) <= _JOG:
            run.y = self.base - start

    def _run_style(self, run: _Run) -> str:
        if not run.ends:
            return "data"
        role = self.edges[run.ends[0][0]].role
        return role if role in ("cell", "hidden") else "data"

    def _draw_run(self, run: _Run, y1: float, y2: float, x: float | None, hops: list[Point]) -> None:
        start = self._start_points(run)
        style = self._run_style(run)
        if run.over and x is not None and x < start[0][0] + 6.0:
            # a box above the steps that reaches beyond the way down: out at its left side, or from below
            (cx, cy), (w, h) = self.at[run.source], self._size(run.source)
            start = [(cx - w / 2, cy)] if x < cx - w / 2 - 4 else [(x, cy + h / 2)]
            y1 = start[0][1]
        for k, tx in run.ends:
            tx += self.columns[run.index].x
            points = [*start]
            if run.far:
                out = self.far_x.get(run.source)
                out = start[-1][0] + 10 if out is None else out
                points += [(out, start[-1][1]), (out, y1)]
            if x is not None and abs(y1 - y2) > 0.5:
                points += [(x, y1), (x, y2)]
            if run.side:
                points.append((tx, y2))
                # under its line: what the line carries is called above it
                words = self._note(k, tx + 14, y2 + 7) if run.leftward else self._note(k, tx - 14, y2 + 7, anchor="end")
            else:
                target = self.edges[k].target
                bottom = self.at[target][1] + self.sized[target][1] / 2
                points += [(tx, y2), (tx, bottom)]
                if len(run.ends) > 1:
                    self.scene.dots.append((tx, y2, style))
                words = self._note(k, tx + 4, y2 - 7) if run.leftward else self._note(k, tx - 4, y2 - 7, anchor="end")
            self._wire(k, points, style, hops=hops, words=words)

    def _start_points(self, run: _Run) -> list[Point]:
        if (run.source, run.leftward) in self.exit:
            right, x, y, top = self.exit[run.source, run.leftward]
            wires = self.fold_wires.get(run.source, [])
            if len(wires) > 1:
                apart = spread(self.sized[run.source][1], len(wires))
                y += apart * (wires.index(run.carried) - (len(wires) - 1) / 2)
            return [(x, y)] if right else [(x, top), (x, y)]
        box = next(b for b in self.scene.boxes if b.key == f"n-{self.keys[run.source]}")
        return [(box.x + box.width / 2, box.y)]

    # last things

    def _lay_rails(self) -> None:
        for rail in self.rails:
            self.scene.rails.append(
                Rail(
                    f"rail-{self.keys[rail]}",
                    self.head_right,
                    self.rail_reach[rail],
                    self.rail_y[rail],
                    self.rail_style[rail],
                )
            )

    def _finish(self) -> None:
        scene = self.scene
        if scene.title:
            scene.words.append(Words(scene.title, _MARGIN, _MARGIN + 8, _TITLE, "bold", "start", "h"))
        bottom = max(self.frame_bottom, self.rail_bottom, *(b.box[3] for b in scene.boxes)) + 6
        self._legend(bottom)
        right = max((b.box[2] for b in scene.boxes), default=0.0)
        right = max(right, self.right, *(w.box[2] for w in scene.words), *(x + w for _, _, x, w in self.legend_extent))
        scene.width = round(right + _MARGIN)
        scene.height = round(self.legend_bottom + _MARGIN - 6)

    def _legend(self, y: float) -> None:
        scene = self.scene
        drawn = {w.style.split()[0] for w in scene.wires}
        entries = [("line", "data", "data")]
        entries += [("line", s, t) for s, t in (("cell", "cell state"), ("hidden", "hidden state")) if s in drawn]
        if "parameter" in drawn:
            entries.append(("line", "parameter r0", "parameter, drawn once"))
        overlaid = {word for w in scene.wires for word in w.style.split()}
        coloured = {"route": "color9 route"} if self.flow == "color" else {}
        entries += [("line", coloured.get(s, s), t) for s, t in _OVERLAID if s in overlaid]
        if scene.flow is not None:
            how, low, high = scene.flow
            what = "gradient that flows: norm"
            entries += [
                ("line", f"data {how}9", f"{what} {number(high)}"),
                ("line", f"data {how}0", f"{number(low)} or less"),
            ]
        if any(style == "delay" for *_, style in scene.dots):
            entries.append(("delay", "delay", "handed on to the next step"))
        styles = {word for b in scene.boxes for word in b.style.split()}
        gates = {gate_style(n.gate) for n in self.view.nodes}
        for gate in ("forget", "input", "cell", "output", "reset", "update", "new"):
            if gate in styles and gate in gates:
                entries.append(("box", gate, f"{gate} gate"))
        notes = []
        if "shape" in self.show:
            notes.append("1×5: shape")
        if "value" in self.show:
            notes.append("‖·‖: norm of the value")
        if "grad" in self.show:
            notes.append("∂: gradient of the loss, ‖∂‖: its norm")
        if "local" in self.show:
            said = " ".join(e.local for e in self.edges if e.local)
            meant = [f", {text}" for letter, text in _MEANT if re.search(rf"(?<![\w#]){letter}(?![\w₋₀-₉])", said)]
            notes.append("on an edge: ∂⁺, the local derivative" + "".join(meant))
        if "gain" in self.show:
            notes.append("×0.2: the most by which ∂⁺ stretches a gradient")
        if "flow" in self.show:
            notes.append("δ: norm of the gradient that flows along an edge")
        self.legend_extent: list[tuple[str, str, float, float]] = []
        limit = max(self.right, 640.0)
        x, y = _MARGIN, y + 8
        for kind, style, text in [*entries, *(("note", "", n) for n in notes)]:
            w = width(text, 9.5) + (32 if kind == "line" else 20 if kind in ("box", "delay") else 0)
            if x + w > limit and x > _MARGIN:
                x, y = _MARGIN, y + 16
            scene.legend.append((kind, style, x, y))
            scene.words.append(Words(text, x + (w - width(text, 9.5)), y, 9.5, "sans", "start", "g"))
            self.legend_extent.append((kind, style, x, w))
            x += w + 20
        self.legend_bottom = y + 8


@dataclass
class _Run:
    """One wire of a corridor, from `source` into column `index` at height `y` of its plan, to `ends` (edge, x)."""

    source: int
    index: int
    side: bool
    y: float
    ends: list[tuple[int, float]]
    carried: str = ""
    leaving: bool = False
    over: bool = False
    origin: int = -1

    @property
    def wire(self) -> tuple[int, str]:
        """What it carries: runs of one wire share their way until they part."""
        return (self.source, self.carried)

    @property
    def leftward(self) -> bool:
        """Whether it comes from the next step: the way of a layer that reads backwards."""
        return self.origin == self.index + 1 and not self.leaving

    @property
    def far(self) -> bool:
        """Whether it passes below other steps on its way."""
        return self.leaving or not (
            self.over or self.leftward or self.origin == self.index - 1 or (self.origin == -1 and self.index == 0)
        )


def _lift_to_one_height(levels: Sequence[tuple[_Column, float, float]], least: float = 0.0) -> float:
    """Lift what begins at a height of each column until all places named stand as high as the highest; return that."""
    place = max(least, *(y for *_, y in levels))
    for column, begin, y in levels:
        column.plan = column.plan.lifted([(begin, place - y)])
    return place


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _outside(y: float, zone: tuple[float, float]) -> float:
    return max(zone[0] - y, y - zone[1], 0.0)


def _figure(node: ViewNode, summary: Summary, one: str, many: str) -> str:
    if summary.numbers is not None and len(summary.numbers) == 1:
        return one + number(summary.numbers[0])
    return many + number(summary.norm)


def _topological(ids: list[int], edges: Sequence[ViewEdge], into: dict[int, list[int]]) -> list[int]:
    """Order nodes after what they read; among equals, and where a fold made a loop, as in the view."""
    place = {i: k for k, i in enumerate(ids)}
    readers: dict[int, list[int]] = {i: [] for i in ids}
    waiting = dict.fromkeys(ids, 0)
    for i in ids:
        for k in into[i]:
            if edges[k].source in place and edges[k].source != i:
                readers[edges[k].source].append(i)
                waiting[i] += 1
    ready = [place[i] for i in ids if not waiting[i]]
    heapq.heapify(ready)
    done: list[int] = []
    taken: set[int] = set()
    for first in (None, *ids):
        if first is not None and first not in taken:
            heapq.heappush(ready, place[first])
        while ready:
            k = heapq.heappop(ready)
            if ids[k] in taken:
                continue
            taken.add(ids[k])
            done.append(ids[k])
            for reader in readers[ids[k]]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(ready, place[reader])
    return done


_Ends = dict[tuple[int, str], list[tuple[float, float]]]


def _hops(
    wire: tuple[int, str],
    x: float | None,
    y1: float,
    y2: float,
    ends: _Ends,
    slot: dict[tuple[int, str], float],
) -> list[Point]:
    """Return where the vertical part of a wire crosses the level parts of the others in its corridor."""
    if x is None:
        return []
    hops: dict[Point, None] = {}
    for other, spans in ends.items():
        for a, b in spans if other != wire else ():
            y = b if slot.get(other, x) < x else a  # left of us it has already changed its level
            if min(y1, y2) + 6 < y < max(y1, y2) - 6:
                hops[x, y] = None
    return list(hops)


def _best_slots(movers: list[tuple[int, str]], ends: _Ends) -> list[tuple[int, str]]:
    """Order the vertical parts in a corridor so that few cross; small corridors get the best order."""

    def crossings(wires: Iterable[tuple[int, str]]) -> int:
        order, total = list(wires), 0
        for k, a in enumerate(order):
            for b in order[k + 1 :]:
                for a1, a2 in ends[a]:
                    for b1, b2 in ends[b]:
                        total += min(b1, b2) < a2 < max(b1, b2)
                        total += min(a1, a2) < b1 < max(a1, a2)
        return total

    if len(movers) <= 5:
        return list(min(permutations(movers), key=crossings))
    return sorted(movers, key=lambda s: (max(a - b for a, b in ends[s]), s))
