"""From a view to a scene: every box, wire, rail and word of the picture with its place, whatever draws it.

One step is planned and the plan repeated, so the work grows with the number of steps and never faster.
Parameters stand once, on rails below the steps; what one step hands to the next runs in the corridor between
their frames.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from minigrad.graph.view import Summary, View, ViewEdge, ViewNode, columns, pretty
from minigrad.render.labels import (
    GATES,
    counted,
    edge_key,
    gate_style,
    is_block,
    node_style,
    node_title,
    number,
    pretty_local,
    shape_text,
    symbols,
)
from minigrad.render.overlay import overlay
from minigrad.render.plan import RISER, Arrange, Cell, Link, Plan, Problem, solve
from minigrad.render.scene import SMALL, Box, Frame, Point, Rail, Scene, Wire, Words
from minigrad.render.text import width

LABEL = 11.5
TINY = 7.5
NOTE = 9.5
_LONGEST_NOTE = 48
_LOOP = 40.0
"""Pixels beside a block for each value that it hands to itself."""
_MARGIN = 14.0
_FRAME_PAD = 14.0
_HEADER = 20.0
_HEAD = 15.0
_LEVEL = {"cell": 0, "data": 1, "hidden": 2, "parameter": 3}
"""Which wire enters or leaves a block above which."""
_LONGEST_LOCAL = 30
"""Longer derivatives, which only other programs write into a view, end in an ellipsis."""
_OVERLAID = (
    ("backward", "gradient, on its way back"),
    ("cut", "cut: no gradient passes"),
    ("route", "the routes that were asked for"),
)
_MANY_USES = 2
"""A parameter that feeds more boxes than this is drawn on a rail even where there are no steps."""


def lay_out(
    view: View,
    *,
    show: Sequence[str] = ("shape",),
    arrange: Arrange | None = None,
    title: str | None = None,
    backward: bool = False,
    flow: str | None = None,
) -> Scene:
    """Return the scene of a view: the steps side by side if it has any, one plan otherwise.

    Args:
        view: what to draw.
        show: what stands on nodes and edges.
        arrange: who orders the steps; we do if None.
        title: a line above the picture.
        backward: whether the reverse sweep is drawn along the edges that carry a gradient.
        flow: "width" or "color" of the edges follows the contribution that they carry.
    """
    return _Builder(view, tuple(show), arrange, backward, flow).build(title or "")


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
        self, view: View, show: tuple[str, ...], arrange: Arrange | None, backward: bool, flow: str | None
    ) -> None:
        self.view, self.show, self.arrange, self.backward, self.flow = view, show, arrange, backward, flow
        self.labelled = bool({"local", "gain", "flow"}.intersection(show))
        # two lines side by side need room for what runs back between them
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

    # who goes where

    def _sort_out(self) -> None:
        column = columns(self.view)
        steps = self.view.steps
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
                self.nodes[s].step is not None or s in on_top for s in (self.edges[k].source for k in self.into[n.id])
            ):
                on_top.add(n.id)
                self.ceiling.append(n.id)
            else:
                after.append(n.id)
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
        if "shape" in self.show and (node.kind != "fold" or not is_block(node)):
            below.append(shape_text(node.shape))
        if node.kind == "fold":
            below.append(counted(node))
        if below:
            lines.append(("  ".join(below), SMALL, "sans", False, "s"))
        if "value" in self.show and node.value:
            lines.append((_figure(node, node.value, "", "‖·‖ "), SMALL, "sans", False, "v"))
        if "grad" in self.show and node.grad:
            lines.append((_figure(node, node.grad, "∂ ", "‖∂‖ "), SMALL, "sans", False, "d"))
        return lines

    def _size(self, id: int) -> tuple[float, float]:
        if id not in self.sized:
            lines = self._lines(self.nodes[id])
            w = max(width(t, s, f, m) for t, s, f, m, _ in lines) + 12
            h = sum(s * 1.22 for _, s, *_ in lines) + 8
            self.sized[id] = (max(round(w), 26.0), float(round(h)))
        return self.sized[id]

    def _box(self, id: int, x: float, y: float, size: tuple[float, float] | None = None) -> None:
        node = self.nodes[id]
        w, h = size or self._size(id)
        lines = self._lines(node)
        total = sum(s * 1.22 for _, s, *_ in lines)
        at = y - total / 2
        words = []
        for text, s, face, math, style in lines:
            words.append(Words(text, x, at + s * 0.61, s, face, "middle", style, math))
            at += s * 1.22
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
        return (e.source, (e.carries or e.role) if self.nodes[e.source].kind == "fold" else "")

    def _readers(self, id: int) -> list[int]:
        return [self.edges[k].target for k in self.out[id]]

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
        entries: list[tuple[int, int, bool]] = []
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
                entries.append((wire, local[e.target], beside))
        pitch = self.pitch
        links = []
        for k in inside:
            e = self.edges[k]
            text = self._local(k)
            size = (round(width(text, TINY, math=True) + 6), 12.0) if text else None
            links.append(Link(local[e.source], local[e.target], size))
        loops_at: dict[int, set[str | None]] = {}
        for k in column.loops:
            loops_at.setdefault(self.edges[k].source, set()).add(self.edges[k].carries)
        taps_in: dict[int, int] = {}
        for _, t, _ in entries:
            taps_in[t] = taps_in.get(t, 0) + 1
        cells = []
        for i in column.ids:
            n = self.nodes[i]
            w, h = self._size(i)
            climbing = column.risers.get(i, [])
            lines_in = max(self._riser_lines(i, climbing), default=-1) + 1
            arguments = len(self.into[i]) - len(climbing)
            need = 9.0 * min(arguments, 12) + (max(lines_in - 1, 0) * pitch + 10 if lines_in else 0) + 6
            hint = (float(GATES.index(n.gate)),) if n.gate in GATES else (1.5,)
            if is_block(n):
                w, h = max(w, 150.0), max(h, 100.0)
            self.sized[i] = (max(w, need), h)
            cells.append(Cell(*self.sized[i], hint, _LOOP * len(loops_at.get(i, ()))))
        problem = Problem(
            tuple(cells), tuple(links),
            tuple((local[t], max(self._riser_lines(t, ks)) + 1, pitch) for t, ks in column.risers.items()),
            tuple(dict.fromkeys(entries)),
            tuple(local[i] for i in column.ids if any(t in self.ceiling_set for t in self._readers(i))),
            tuple(local[i] for i in column.ids if any(self.home.get(t, index) != index for t in self._readers(i))),
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
        self._even_out()
        for index in range(len(self.columns)):
            self._plan(index)
        self._gather_corridors()
        self._place_columns(title)
        self._draw_rails()
        self._draw_columns()
        self._draw_ceiling()
        self._draw_before()
        self._draw_corridors()
        overlay(scene, self.view, backward=self.backward, flow=self.flow)
        self._finish()
        return scene

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
                    if origin == index - 1 or (origin == -1 and index == 0) or run.over:
                        self.corridor[index].append(run)
                    else:
                        self.far.append(run)
        self.fold_wires: dict[int, list[str]] = {}
        leaving = {wire: self.edges[ks[0]].role for column in self.columns for wire, ks in column.entries.items()}
        for (source, carried), _ in sorted(leaving.items(), key=lambda item: _LEVEL[item[1]]):
            if carried:
                self.fold_wires.setdefault(source, []).append(carried)
        self.far_lane: dict[int, int] = {}
        self.far_x: dict[int, float | None] = {}
        lane_ends: list[int] = []
        for source in dict.fromkeys(r.source for r in sorted(self.far, key=lambda r: (r.origin, r.index))):
            runs = [r for r in self.far if r.source == source]
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
        top = _MARGIN + (26.0 if title else 0.0)
        ceiling_height = max((self._size(i)[1] for i in self.ceiling), default=0.0) + 20.0
        if self.labelled:
            readers = (sum(t in self.ceiling_set for t in self._readers(i)) for i in self.nodes)
            ceiling_height += 5.0 + 9.0 * max(readers, default=0)
        self.ceiling_y = [top + ceiling_height * (self.rows_above - r - 0.5) for r in range(self.rows_above)]
        self.frame_top = top + ceiling_height * self.rows_above + (4 if self.rows_above else 0)
        head = _HEADER if self.timed else 0.0
        self.base = self.frame_top + head + tallest + (_FRAME_PAD - 2)
        self.frame_bottom = self.base + (_FRAME_PAD - 2 if self.timed else 0.0)
        lanes = 10.0 + 12.0 * self.far_lanes if self.far_lanes else 0.0
        self.far_y = self.frame_bottom + 16.0
        locals_room = 0.0
        if self.labelled:
            texts = [self._local(k) for c in self.columns for ks in c.risers.values() for k in ks]
            locals_room = max((width(t, TINY, math=True) for t in texts), default=0.0) + 8
        self.locals_room = locals_room
        self.rail_top = self.frame_bottom + lanes + 18.0 + locals_room
        # the left-hand region: chains that lead to a rail, the heads of the rails, then the taps along them
        self._left_region()
        x = self.left_end
        for k, column in enumerate(self.columns):
            x += self._corridor_width(k)
            column.x = x + (_FRAME_PAD if column.frame else 4.0)
            header = self._header_width(column) if column.frame else 0
            x += max(column.plan.width + 2 * (_FRAME_PAD if column.frame else 4.0), header)
        self.right = x + (self._corridor_width(len(self.columns)) if self.corridor[-1] else 0.0)

    def _note_text(self, column: _Column) -> str:
        """What else stands in a frame's headline; a fold of steps has no note of its own."""
        if any(self.nodes[i].span for i in column.ids):
            return ""
        text = self.notes.get(column.time, "") if column.time is not None else ""
        return text if len(text) <= _LONGEST_NOTE else text[: _LONGEST_NOTE - 1] + "…"

    def _header_width(self, column: _Column) -> float:
        note = self._note_text(column)
        return width(self._frame_text(column), 11) + 20 + (width(note, NOTE) + 14 if note else 0)

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
        label = max((width(self._carried(r), SMALL, "oblique") for r in runs), default=0.0)
        return 24.0 + label + 9.0 * len({r.wire for r in runs})

    def _carried(self, run: _Run) -> str:
        node = self.nodes[run.source]
        if node.kind == "fold" and run.ends:
            return pretty(self.edges[run.ends[0][0]].carries) or ""
        return node.display_name or ""

    # left of the steps

    def _left_region(self) -> None:
        """Give every rail a row, with the chain of operations that makes its data to the left of its head."""
        before = set(self.before)
        self.row_of: dict[int, float] = {}
        self.depth: dict[int, int] = {}
        row = 0

        def place(id: int, depth: int) -> None:
            nonlocal row
            self.row_of[id] = row
            self.depth[id] = depth
            first = True
            for k in self.into[id]:
                s = self.edges[k].source
                if s in before and s not in self.row_of:
                    if not first:
                        row += 1
                    place(s, depth + 1)
                    first = False

        for rail in self.rails:
            place(rail, 0)
            row += 1
        self.state = [i for i in self.before if i not in self.row_of and any(
            self.home.get(self.edges[k].target) == 0 for k in self.out[i])]  # fmt: skip
        rail_rows = row
        self.state_row: dict[int, int] = {}
        for s in self.state:
            place(s, 0)
            row += 1
        for i in self.before:
            if i not in self.row_of:
                place(i, 0)
                row += 1
        members = [i for i in self.row_of if self.row_of[i] < rail_rows]
        boxed = [i for i in members if self.nodes[i].kind != "parameter" or self.depth[i]]
        self.rail_y: dict[int, float] = {}
        y = self.rail_top
        by_row: dict[float, list[int]] = {}
        for i in members:
            by_row.setdefault(self.row_of[i], []).append(i)
        for r in sorted(by_row):
            high = max((self._size(i)[1] if i in boxed else self._head(i)[1]) for i in by_row[r])
            high += 10 if any(i in boxed for i in by_row[r]) else 4
            y += high / 2
            for i in by_row[r]:
                self.rail_y[i] = y
            y += high / 2
        self.rail_bottom = y
        widths: dict[int, float] = {}
        for i in self.row_of:
            w = self._head(i)[0] if self.nodes[i].kind == "parameter" and not self.depth[i] else self._size(i)[0]
            widths[self.depth[i]] = max(widths.get(self.depth[i], 0.0), w)
        self.depth_width = widths
        deepest = max(widths, default=-1)
        self.head_right = _MARGIN + sum(widths.values()) + 18.0 * max(deepest, 0)
        self.tap_x: dict[int, float] = {}
        end = self.head_right
        for rail in self.rails:
            x = self.head_right + 12
            for t in self.taps:
                if self.taps[t] == rail:
                    w = self._tap_size(t)[0]
                    self.tap_x[t] = x + w / 2
                    x += w + 6
            end = max(end, x)
        self.left_end = end + 2 if self.row_of else _MARGIN

    def _head(self, id: int) -> tuple[float, float]:
        node = self.nodes[id]
        text = self._head_text(node)
        return (round(width(text, 9.5, "oblique") + 16), _HEAD + 1)

    def _head_text(self, node: ViewNode) -> str:
        text = node.display_name if node.kind != "parameter" else node.name
        text = text or node.label
        if "shape" in self.show and node.kind == "parameter":
            text += f"  {shape_text(node.shape)}"
        for word, summary, mark in (("value", node.value, "‖·‖"), ("grad", node.grad, "‖∂‖")):
            if word in self.show and summary:
                text += f"  {mark} {number(summary.norm)}"
        return text

    def _tap_size(self, id: int) -> tuple[float, float]:
        label, math = self.symbol[id]
        return (round(width(label, 9, "oblique", math) + 8), 13.0)

    def _depth_x(self, id: int) -> float:
        """The right edge of the place of a node in the left-hand region: depth 0 stands next to the steps."""
        x = self.head_right
        for d in range(self.depth[id]):
            x -= self.depth_width[d] + 18.0
        return x

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
        self.exit: dict[int, tuple[bool, float, float, float]] = {}
        self.top_at: dict[int, list[Point]] = {}
        for column in self.columns:
            plan, x0 = column.plan, column.x
            if column.frame:
                text = self._frame_text(column)
                left = x0 - _FRAME_PAD
                w = max(plan.width + 2 * _FRAME_PAD, self._header_width(column))
                words = Words(text, left + 9, self.frame_top + 12, 11, "sans", "start", "f")
                note = self._note_text(column)
                beside = (Words(note, left + 23 + width(text, 11), words.y, NOTE, "sans", "start", "note"),)
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
                        beside if note else (),
                    )
                )

            def put(p: Point, x0: float = x0) -> Point:
                return (x0 + p[0], self.base - p[1])

            for i, k in column.local.items():
                x, y = put(plan.centre[k])
                self._box(i, x, y, self.sized[i])
                if k in plan.exits:
                    right, lane = plan.exits[k]
                    w, h = self.sized[i]
                    self.exit[i] = (right, x + w / 2 if right else x, self.base - lane, y - h / 2)
            for n, k in enumerate(column.links):
                note = self._note(k, *put(plan.labels[n]), anchor="middle") if n in plan.labels else ()
                self._wire(k, map(put, plan.routes[n]), "data", square=False, words=note)
            self._draw_loops(column)
            pitch = self.pitch
            for target, ks in column.risers.items():
                path = [put(p) for p in plan.risers[column.local[target]]]
                lines = self._riser_lines(target, ks)
                for n, k in zip(lines, ks, strict=True):
                    self._riser(k, path, (n - max(lines) / 2) * pitch)
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
                out = x + w / 2 + _LOOP * (len(values) - j) - 26
                top = y - h / 2 + h * (j + 0.7) / (2 * len(values) + 0.4)
                for k in ks:
                    e = self.edges[k]
                    (tx, ty), (tw, th) = self.at[e.target], self.sized[e.target]
                    n = entered[e.target] = entered.get(e.target, 0) + 1
                    low = ty + th / 2 - th * (n - 0.3) / (2 * len(values) + 0.4) if e.target == source else ty
                    style = e.role if e.role in ("cell", "hidden") else "data"
                    label = pretty(carried) or ""
                    words = (Words(label, out + 7, (top + low) / 2, SMALL + 1, "oblique", "start", f"w {style}"),)
                    points = ((x + w / 2, top), (out, top), (out, low), (tx + tw / 2, low))
                    self._wire(k, points, style, words=words if label else ())
                    self.scene.dots.append((out, (top + low) / 2, "delay"))

    def _riser(self, k: int, path: list[Point], shift: float) -> None:
        e = self.edges[k]
        root = self._root(e.source)
        y = self.rail_y[root]
        style = self.rail_style[root]
        points = [(x + shift, py) for x, py in path]
        x = points[0][0]
        words = self._note(k, x + 5.0, self.frame_bottom + self.locals_room + 2, turn=90)
        kind = "data" if style.endswith("data") else style.replace("rail", "parameter")
        self._wire(k, ((x, y), *points), kind, square=False, words=words)
        self.scene.dots.append((x, y, kind))
        self.rail_reach[root] = max(self.rail_reach[root], x)

    def _local(self, k: int) -> str:
        """What is printed on an edge: ∂⁺, how far it can stretch a gradient, and the gradient that it carries."""
        e = self.edges[k]
        said = []
        if "local" in self.show and e.local:
            text = pretty_local(e.local)
            said.append(text if len(text) <= _LONGEST_LOCAL else text[: _LONGEST_LOCAL - 1] + "…")
        if "gain" in self.show and e.gain is not None:
            said.append(f"×{number(e.gain)}")
        if "flow" in self.show and e.contribution is not None:
            said.append(f"δ {number(e.contribution.norm)}")
        return "  ".join(said)

    def _note(self, k: int, x: float, y: float, anchor: str = "start", turn: int = 0) -> tuple[Words, ...]:
        text = self._local(k)
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
        spans: list[list[tuple[float, float]]] = []
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
            r = 0
            while r < len(spans) and any(a < high and low < b for a, b in spans[r]):
                r += 1
            spans[r : r + 1] = [(spans[r] if r < len(spans) else []) + [(low, high)]]
            self.ceiling_row[i] = r
        return len(spans)

    def _draw_ceiling(self) -> None:
        taken: dict[int, list[tuple[int, float, float]]] = {}
        for i in sorted(self.ceiling, key=lambda i: (self.ceiling_row[i], i)):
            c, r = self.column_of[i], self.ceiling_row[i]
            column = self.columns[c]
            sources = [self.edges[k].source for k in self.into[i]]
            own = [self.top_at[s][-1][0] for s in sources if self.home.get(s) == c]
            w, h = self._size(i)
            x = own[0] if own else column.x + column.plan.width / 2
            beside = [right for row, _, right in taken.get(c, ()) if row == r]
            below = [right for row, left, right in taken.get(c, ()) if row < r and own and left < x < right]
            x = max([x, *(right + 16 + w / 2 for right in beside), *(right + w / 2 - 2 for right in below)])
            taken.setdefault(c, []).append((r, x - w / 2 - 6, x + w / 2 + 6))
            y = self.ceiling_y[r]
            self._box(i, x, y)
            self.exit[i] = (True, x + w / 2, y, y - h / 2)
        noted: dict[int, int] = {}
        for i in self.ceiling:
            (x, y), (w, h) = self.at[i], self._size(i)
            for k in self.into[i]:
                source = self.edges[k].source
                if source in self.ceiling_set:
                    _, sx, sy, _ = self.exit[source]
                    points = [(sx, sy), (x - w / 2, y)] if sy == y else [
                        (sx, sy), (x - w / 2 - 12, sy), (x - w / 2 - 12, y), (x - w / 2, y)]  # fmt: skip
                    words = self._note(k, sx + 5, sy - 7)
                else:
                    path = list(self.top_at[source])
                    tx, above = path[-1][0], noted.get(source, 0)
                    words = self._note(k, tx + 5, self.frame_top - 7 - 9 * above)
                    noted[source] = above + 1
                    # round the boxes of lower rows, close above the frame
                    boxes = taken.get(self.home[source], ())
                    free = tx
                    for row, left, right in sorted(boxes):
                        free = right + 2 if row < self.ceiling_row[i] and left < free < right else free
                    if free != tx:
                        path += [(tx, self.frame_top - 2), (free, self.frame_top - 2)]
                    under = self.home[source] == self.column_of[i] and abs(free - x) < w / 2 - 2
                    points = [*path, (free, y + h / 2)] if under else [*path, (free, y), (x - w / 2, y)]
                self._wire(k, points, "data", words=words)

    # before the steps

    def _draw_before(self) -> None:
        entry_y: dict[int, float] = {}
        for run in self.corridor[0]:
            if run.source in self.state:
                entry_y.setdefault(run.source, self.base - run.y)
        floor = self.frame_top + 10
        order = sorted(self.state, key=lambda s: (entry_y.get(s, 0.0), s))
        chains = {s: [i for i in self.row_of if self._leads_to(i, s)] for s in order}
        high = {s: max(self._size(i)[1] for i in chains[s]) for s in order}
        rows = {s: 1 + max(self.row_of[i] for i in chains[s]) - self.row_of[s] for s in order}
        tall = {s: rows[s] * (high[s] + 6) for s in order}
        place: dict[int, float] = {}
        for s in order:
            place[s] = max(entry_y.get(s, floor), floor + high[s] / 2)
            floor = place[s] - high[s] / 2 + tall[s]
        ceiling = self.rail_top - 6
        for s in reversed(order):  # and up again where the rails leave no room
            place[s] = min(place[s], ceiling - tall[s] + high[s] / 2)
            ceiling = place[s] - high[s] / 2
        for s in order:
            for i in chains[s]:
                w, _ = self._size(i)
                right = self._depth_x(i) if self.depth[i] else self.left_end - 2
                self._box(i, right - w / 2, place[s] + (self.row_of[i] - self.row_of[s]) * (high[s] + 6))
        for i in self.before:
            if i not in self.at:
                w, h = self._size(i)
                if i in self.rail_y:
                    self._box(i, self._depth_x(i) - w / 2, self.rail_y[i])
                else:
                    floor += h / 2
                    self._box(i, self._depth_x(i) - w / 2, floor)
                    floor += h / 2 + 4
        size = {b.key: b for b in self.scene.boxes}
        for i in [*self.before, *self.taps]:
            target = size.get(f"n-{self.keys[i]}")
            for k in self.into[i]:
                source = size.get(f"n-{self.keys[self.edges[k].source]}")
                if i in self.taps or target is None or source is None:
                    continue
                a, b = (source.x + source.width / 2, source.y), (target.x - target.width / 2, target.y)
                if a[0] >= b[0] - 4:
                    # a parameter that also makes the data: round the left of all, up, and in from below
                    points = [(source.box[0], source.y), (6.0, source.y), (6.0, target.box[3] + 6),
                              (target.x, target.box[3] + 6), (target.x, target.box[3])]  # fmt: skip
                elif abs(a[1] - b[1]) < 0.5:
                    points = [a, b]
                else:
                    x = b[0] - 9
                    points = [a, (x, a[1]), (x, b[1]), b]
                style = self.rail_style.get(self.edges[k].source, "rail r5") if source.shape == "note" else "data"
                self._wire(k, points, style.replace("rail", "parameter"))

    def _leads_to(self, id: int, state: int) -> bool:
        seen, todo = set(), [state]
        while todo:
            i = todo.pop()
            if i == id:
                return True
            for k in self.into[i]:
                s = self.edges[k].source
                if s in self.row_of and s not in seen and s not in self.rail_set:
                    seen.add(s)
                    todo.append(s)
        return False

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
                ends.setdefault(run.wire, []).append((self._start_y(run), self._end_y(run)))
            movers = [w for w, spans in ends.items() if any(abs(a - b) > 0.5 for a, b in spans)]
            first = right - 9.0 * len(movers)
            slot = {w: first + 9.0 * k for k, w in enumerate(_best_slots(movers, ends))}
            plans.append((index, left, runs, ends, slot))
            # where a wire leaves for a far step must be known before it arrives, perhaps to its left
            self.far_x.update((run.source, slot.get(run.wire)) for run in runs if run.leaving)
        for index, left, runs, ends, slot in plans:
            labelled: set[tuple[int, str]] = set()
            for run in runs:
                if run.leaving:
                    continue
                y1, y2 = self._start_y(run), self._end_y(run)
                x = slot.get(run.wire)
                self._draw_run(run, y1, y2, x, _hops(run.wire, x, y1, y2, ends, slot))
                text = self._carried(run)
                if text and index and run.wire not in labelled:
                    labelled.add(run.wire)
                    style = f"w {self._run_style(run)}"
                    self.scene.words.append(Words(text, left + 5, y1 - 7, SMALL + 1, "oblique", "start", style))

    def _column_width(self, index: int) -> float:
        column = self.columns[index]
        if not column.frame:
            return column.plan.width + 4
        return max(column.plan.width + 2 * _FRAME_PAD, self._header_width(column)) - _FRAME_PAD

    def _start_y(self, run: _Run) -> float:
        if run.far and not run.leaving:
            return self.far_y + 12.0 * self.far_lane[run.source]
        return self._start_points(run)[-1][1]

    def _end_y(self, run: _Run) -> float:
        if run.leaving:
            return self.far_y + 12.0 * self.far_lane[run.source]
        return self.base - run.y

    def _run_style(self, run: _Run) -> str:
        if not run.ends:
            return "data"
        role = self.edges[run.ends[0][0]].role
        return role if role in ("cell", "hidden") else "data"

    def _draw_run(self, run: _Run, y1: float, y2: float, x: float | None, hops: list[Point]) -> None:
        start = self._start_points(run)
        style = self._run_style(run)
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
                words = self._note(k, tx - 14, y2 - 7, anchor="end")
            else:
                target = self.edges[k].target
                bottom = self.at[target][1] + self.sized[target][1] / 2
                points += [(tx, y2), (tx, bottom)]
                if len(run.ends) > 1:
                    self.scene.dots.append((tx, y2, style))
                words = self._note(k, tx - 4, y2 - 7, anchor="end")
            self._wire(k, points, style, hops=hops, words=words)

    def _start_points(self, run: _Run) -> list[Point]:
        if run.source in self.exit:
            right, x, y, top = self.exit[run.source]
            wires = self.fold_wires.get(run.source, [])
            if len(wires) > 1:
                y += 24.0 * (wires.index(run.carried) - (len(wires) - 1) / 2)
            return [(x, y)] if right else [(x, top), (x, y)]
        box = next(b for b in self.scene.boxes if b.key == f"n-{self.keys[run.source]}")
        return [(box.x + box.width / 2, box.y)]

    # last things

    def _finish(self) -> None:
        scene = self.scene
        for rail in self.rails:
            scene.rails.append(
                Rail(
                    f"rail-{self.keys[rail]}",
                    self.head_right,
                    self.rail_reach[rail],
                    self.rail_y[rail],
                    self.rail_style[rail],
                )
            )
        if scene.title:
            scene.words.append(Words(scene.title, _MARGIN, _MARGIN + 8, 15, "bold", "start", "h"))
        bottom = max(self.frame_bottom, self.rail_bottom, *(b.box[3] for b in scene.boxes)) + 10
        self._legend(bottom)
        right = max((b.box[2] for b in scene.boxes), default=0.0)
        right = max(right, self.right, *(w.box[2] for w in scene.words), *(x + w for _, _, x, w in self.legend_extent))
        scene.width = round(right + _MARGIN)
        scene.height = round(self.legend_bottom + _MARGIN - 4)

    def _legend(self, y: float) -> None:
        scene = self.scene
        drawn = {w.style.split()[0] for w in scene.wires}
        entries = [("line", "data", "data")]
        entries += [("line", s, t) for s, t in (("cell", "cell state"), ("hidden", "hidden state")) if s in drawn]
        if "parameter" in drawn:
            entries.append(("line", "parameter r0", "parameter, drawn once"))
        overlaid = {word for w in scene.wires for word in w.style.split()}
        entries += [("line", s, t) for s, t in _OVERLAID if s in overlaid]
        if scene.flow is not None:
            how, low, high = scene.flow
            what = "gradient that flows: norm"
            entries += [
                ("line", f"data {how}9", f"{what} {number(high)}"),
                ("line", f"data {how}0", f"{number(low)} or less"),
            ]
        if any(style == "delay" for *_, style in scene.dots):
            entries.append(("delay", "delay", "one step later"))
        styles = {b.style.split()[0] for b in scene.boxes}
        for gate in ("forget", "input", "cell", "output", "reset", "update", "new"):
            gated = any(n.gate == gate for n in self.view.nodes)
            if gate in styles and gated:
                entries.append(("box", gate, f"{gate} gate"))
        notes = []
        if "shape" in self.show:
            notes.append("1×5: shape")
        if "value" in self.show:
            notes.append("‖·‖: norm of the value")
        if "grad" in self.show:
            notes.append("∂: gradient of the loss, ‖∂‖: its norm")
        if self.labelled:
            notes.append("on an edge: ∂⁺, the local derivative")
        self.legend_extent: list[tuple[str, str, float, float]] = []
        limit = max(self.right, 420.0)
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
    def far(self) -> bool:
        """Whether it passes below other steps on its way."""
        return self.leaving or not (
            self.over or self.origin == self.index - 1 or (self.origin == -1 and self.index == 0)
        )


def _figure(node: ViewNode, summary: Summary, one: str, many: str) -> str:
    if summary.numbers is not None and len(summary.numbers) == 1:
        return one + number(summary.numbers[0])
    return many + number(summary.norm)


def _topological(ids: list[int], edges: Sequence[ViewEdge], into: dict[int, list[int]]) -> list[int]:
    """Order nodes after what they read; among equals, and where a fold made a loop, as in the view."""
    place = {i: k for k, i in enumerate(ids)}
    waiting = {i: sum(edges[k].source in place for k in into[i]) for i in ids}
    readers: dict[int, list[int]] = {i: [] for i in ids}
    for i in ids:
        for k in into[i]:
            if edges[k].source in place:
                readers[edges[k].source].append(i)
    ready = [place[i] for i in ids if not waiting[i]]
    heapq.heapify(ready)
    done: list[int] = []
    taken: set[int] = set()
    for i in ids:
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
        if len(done) < len(ids) and i not in taken:
            heapq.heappush(ready, place[i])
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
