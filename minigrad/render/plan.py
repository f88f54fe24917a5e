"""A layered plan of one step: ranks, order and places for its boxes, channels for the lines that pass them.

The order and a first guess of the places may come from a layout program; ranks, ports, lanes and the final
places are always computed here, so that a picture looks the same whoever ordered it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

RISER = 7.0
"""Pixels between two parameter lines that climb to the same box."""
TAP = 12.0
_PAD = 4.0
_PAD_LINE = 3.0
_LANE = 8.0


def spread(height: float, count: int) -> float:
    """Return how far apart wires meet the side of a box: two states that stand before a block reach it straight."""
    return min(36.0, (height - 8.0) / max(count - 1, 1))


@dataclass(frozen=True)
class Cell:
    """A box to be placed: its size, and where its author would like it among its neighbours."""

    width: float
    height: float
    hint: tuple[float, ...] = ()
    band: int = -1
    margin: float = 0.0
    """Room that it needs at both sides, for lines that lead from it back to it."""


@dataclass(frozen=True)
class Link:
    """An edge inside the step; `label` is the size of the text that must fit on it."""

    source: int
    target: int
    label: tuple[float, float] | None = None


@dataclass(frozen=True)
class Problem:
    """One step, by local numbers: equal problems get the same plan.

    `risers` are (target, how many parameter lines, pixels between them, from the gap below which band). `entries` are
    (wire, target, whether it would enter at the side, whether it comes from the right) of what comes from other steps.
    `tops` are (box, width of its lines) of those whose results leave through the ceiling, `outs` are those whose result
    goes to other steps, and whether to the left one.

    Boxes of a higher band (a layer, a direction) stand above those of lower ones, with a gap of `gaps[band]` pixels
    below, for the parameters of that band.
    """

    cells: tuple[Cell, ...]
    links: tuple[Link, ...]
    risers: tuple[tuple[int, int, float, int], ...] = ()
    entries: tuple[tuple[int, int, bool, bool], ...] = ()
    tops: tuple[tuple[int, float], ...] = ()
    outs: tuple[tuple[int, bool], ...] = ()
    gaps: tuple[float, ...] = ()
    apart: float = 14.0
    """Pixels between one rank and the next, where nothing needs more."""


@dataclass
class Plan:
    """Where everything is: x to the right, y upwards from the bottom of the lowest rank."""

    width: float
    height: float
    centre: list[tuple[float, float]]
    rank: list[int]
    routes: list[list[tuple[float, float]]]
    labels: dict[int, tuple[float, float]]
    risers: dict[int, list[tuple[float, float]]]
    entries: dict[tuple[int, int], tuple[bool, float, float]]
    tops: dict[int, list[tuple[float, float]]]
    exits: dict[tuple[int, bool], tuple[bool, float]]
    bands: tuple[float, ...] = ()
    """Where the gap below each band begins."""
    rows: tuple[float, ...] = ()
    """Where each rank begins."""
    who: str = "own"

    def lifted(self, lifts: Sequence[tuple[float, float]]) -> Plan:
        """Return the plan with all at or above each height moved up by so much; what leads there grows longer."""
        if not any(by for _, by in lifts):
            return self

        def up(y: float) -> float:
            return y + max((by for height, by in lifts if y >= height - 0.01), default=0.0)

        def line(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
            return [(x, up(y)) for x, y in points]

        return replace(
            self,
            height=up(self.height),
            centre=line(self.centre),
            routes=[line(route) for route in self.routes],
            labels={k: (x, up(y)) for k, (x, y) in self.labels.items()},
            risers={k: line(way) for k, way in self.risers.items()},
            entries={k: (side, up(y), x) for k, (side, y, x) in self.entries.items()},
            tops={k: line(way) for k, way in self.tops.items()},
            exits={k: (side, up(y)) for k, (side, y) in self.exits.items()},
            bands=tuple(map(up, self.bands)),
            rows=tuple(map(up, self.rows)),
        )


@dataclass
class Layers:
    """The problem with every line cut at the ranks it passes: links go from one rank to the next only."""

    width: list[float] = field(default_factory=list)
    height: list[float] = field(default_factory=list)
    pad: list[float] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    links: list[tuple[int, int, float]] = field(default_factory=list)

    def add(self, row: int, width: float, height: float, pad: float) -> int:
        """Append an item to a row and return its number."""
        while len(self.rows) <= row:
            self.rows.append([])
        self.width.append(width)
        self.height.append(height)
        self.pad.append(pad)
        self.row.append(row)
        self.rows[row].append(len(self.row) - 1)
        return len(self.row) - 1

    def apart(self, left: int, right: int) -> float:
        """Return how far the centres of two neighbours must be from each other."""
        return (self.width[left] + self.width[right]) / 2 + self.pad[left] + self.pad[right]


Arrange = Callable[[Layers], tuple[str, list[float]] | None]
"""A layout program: gives its name and an x for every item of the layers, or None if it cannot."""


def solve(problem: Problem, arrange: Arrange | None = None) -> Plan:
    """Return the plan of one step; `arrange` orders the ranks, our own barycentre sweeps do if it is None."""
    rank, base = _ranks(problem)
    layers = Layers()
    top = max(rank, default=0)
    for i, cell in enumerate(problem.cells):
        layers.add(rank[i], cell.width, cell.height, _PAD + cell.margin)
    while len(layers.rows) <= top:
        layers.rows.append([])
    chains, label_item = _cut_links(problem, rank, base, layers)
    riser_chain = {}
    for target, count, pitch, band in problem.risers:
        wide, pad = max(count - 1, 0) * pitch, max(_PAD, pitch / 2)  # what is written beside them needs the room
        chain = [layers.add(r, wide, 0.0, pad) for r in range(base[band], rank[target])]
        riser_chain[target] = chain
        _tie(layers, [*chain, target], 12.0)
    top_chain = {}
    for source, wide in problem.tops:
        chain = [layers.add(r, wide, 0.0, _PAD) for r in range(rank[source] + 1, top + 1)]
        top_chain[source] = chain
        _tie(layers, [source, *chain], 8.0)

    _first_order(problem, layers, chains, riser_chain, top_chain)
    wished = [list(row) for row in layers.rows]
    who, guess = "own", None
    if arrange is not None and (found := arrange(layers)) is not None:
        who, guess = found
        if _mirrored(problem, wished, guess):
            guess = [-v for v in guess]
        for row in layers.rows:
            row.sort(key=lambda i: (guess[i], i))
    else:
        _sweep(problem, layers)
    return _finish(problem, rank, base, layers, chains, label_item, riser_chain, top_chain, guess, who)


def _ranks(problem: Problem) -> tuple[list[int], list[int]]:
    """Return the rank of every box, and the lowest rank of every band."""
    count = len(problem.cells)
    above: list[list[Link]] = [[] for _ in range(count)]
    below: list[list[Link]] = [[] for _ in range(count)]
    for link in problem.links:
        above[link.source].append(link)
        below[link.target].append(link)
    under, over = _piles(problem, below)
    band = [cell.band for cell in problem.cells]
    base = [0] * max(len(problem.gaps), 1)
    rank = [0] * count

    def settle() -> None:
        for i in range(count):  # cells come in creation order, which is a topological order
            rank[i] = max((rank[e.source] + _span(e) for e in below[i]), default=0)
            if i in under:
                rank[i] = max(rank[i], rank[under[i]] + 1)
            rank[i] = max(rank[i], base[band[i]] if band[i] >= 0 else 0)

    settle()
    for b in range(1, len(base)):
        base[b] = 1 + max((rank[i] for i in range(count) if 0 <= band[i] < b), default=-1)
        settle()
    for i in reversed(range(count)):
        if not below[i] and above[i]:
            rank[i] = min(rank[e.target] - _span(e) for e in above[i])
            if i in over:
                rank[i] = min(rank[i], rank[over[i]] - 1)
    low = min(rank, default=0)
    return [r - low for r in rank], [max(b - low, 0) for b in base]


def _piles(problem: Problem, below: Sequence[Sequence[Link]]) -> tuple[dict[int, int], dict[int, int]]:
    """Return what stands right below, and right above, of boxes that are read together and have parameter lines.

    The two products of a gate stand one above the other: side by side those of four gates are wider than a page.
    """
    climbed = {target for target, *_ in problem.risers}
    under: dict[int, int] = {}
    for links in below:
        pile = sorted({e.source for e in links} & climbed)
        under.update((b, a) for a, b in itertools.pairwise(pile) if b not in under)
    return under, {a: b for b, a in under.items()}


def _span(link: Link) -> int:
    return 2 if link.label else 1


def _cut_links(
    problem: Problem, rank: list[int], base: list[int], layers: Layers
) -> tuple[list[list[int]], dict[int, int]]:
    chains = []
    label_item = {}
    # lines from one box to several of a higher band are one line as far as that band
    trunks: dict[tuple[int, int, int], int] = {}
    tied: set[int] = set()
    for k, link in enumerate(problem.links):
        chain: list[int] = []
        band = problem.cells[link.target].band
        shared = base[band] if band > 0 else 0
        for r in range(rank[link.source] + 1, rank[link.target]):
            if r < shared and not (link.label and r == rank[link.target] - 1):
                trunk = (link.source, band, r)
                if trunk not in trunks:
                    trunks[trunk] = layers.add(r, 0.0, 0.0, _PAD_LINE)
                item = trunks[trunk]
            elif link.label and r == rank[link.target] - 1:
                item = layers.add(r, link.label[0], link.label[1], 2.0)
                label_item[k] = item
            else:
                item = layers.add(r, 0.0, 0.0, _PAD_LINE)
            chain.append(item)
        chains.append(chain)
        known = sum(item in tied for item in chain)  # a trunk is tied by the first link that takes it
        tied.update(chain)
        _tie(layers, [link.source, *chain, link.target][known:], 1.0 if not chain else 3.0)
    return chains, label_item


def _tie(layers: Layers, items: list[int], weight: float) -> None:
    for a, b in itertools.pairwise(items):
        layers.links.append((a, b, weight))


def _first_order(
    problem: Problem,
    layers: Layers,
    chains: list[list[int]],
    riser_chain: dict[int, list[int]],
    top_chain: dict[int, list[int]],
) -> None:
    hint: list[tuple[float, ...]] = [(*c.hint, float(i)) for i, c in enumerate(problem.cells)]
    fed = (
        {link.target for link in problem.links} | {t for t, *_ in problem.risers} | {t for _, t, *_ in problem.entries}
    )
    for link in problem.links:
        if link.source not in fed:  # room is to the left: the lines that climb past a step do so at its right
            beside = min(other.source for other in problem.links if other.target == link.target)
            hint[link.source] = (*problem.cells[link.source].hint, beside - 0.5)
    hint += [()] * (len(layers.row) - len(hint))
    for link, chain in zip(problem.links, chains, strict=True):
        for item in chain:
            hint[item] = (*hint[link.source], 0.5)
    for target, chain in riser_chain.items():
        for item in chain:
            hint[item] = (*hint[target], 0.7)
    for source, chain in top_chain.items():
        for item in chain:
            hint[item] = (*hint[source], 0.9)
    for row in layers.rows:
        row.sort(key=lambda i: (hint[i], i))


def _mirrored(problem: Problem, wished: list[list[int]], guess: Sequence[float]) -> bool:
    """Whether a layout program put left what belongs right: it cannot know where time comes from."""
    count = len(problem.cells)
    for_it = 0
    for row in wished:
        boxes = [i for i in row if i < count and problem.cells[i].hint]
        for k, a in enumerate(boxes):
            for b in boxes[k + 1 :]:
                if problem.cells[a].hint != problem.cells[b].hint:
                    for_it += 1 if guess[a] > guess[b] else -1
    return for_it > 0


def _sweep(problem: Problem, layers: Layers) -> None:
    """Order the rows by barycentre sweeps and keep the order with the fewest crossings."""
    down: list[list[int]] = [[] for _ in layers.row]
    up: list[list[int]] = [[] for _ in layers.row]
    for a, b, _ in layers.links:
        up[a].append(b)
        down[b].append(a)
    from_left = {t for _, t, side, right in problem.entries if side and not right}
    from_right = {t for _, t, side, right in problem.entries if side and right}
    place = [0.0] * len(layers.row)

    def number(row: list[int]) -> None:
        for k, i in enumerate(row):
            place[i] = float(k)

    for row in layers.rows:
        number(row)
    best, fewest = [list(r) for r in layers.rows], _crossings(layers, up)
    rounds = 12 if len(layers.row) < 2000 else 3
    for turn in range(rounds):
        if not fewest:
            break
        rows = layers.rows[1:] if turn % 2 == 0 else layers.rows[-2::-1]
        near = down if turn % 2 == 0 else up
        for row in rows:
            wish = {}
            for k, i in enumerate(row):
                centre = sum(place[j] for j in near[i]) / len(near[i]) if near[i] else float(k)
                wish[i] = centre
                if turn % 2 == 0 and i in from_left | from_right:
                    wish[i] = -1.0 if i in from_left else 1e6
            row.sort(key=lambda i: wish[i])
            number(row)
            _swap_neighbours(row, near, place)
        crossed = _crossings(layers, up)
        if crossed < fewest - 1:  # for one crossing less no gate should look unlike the others
            best, fewest = [list(r) for r in layers.rows], crossed
    layers.rows[:] = best


def _swap_neighbours(row: list[int], near: list[list[int]], place: list[float]) -> None:
    for k in range(len(row) - 1):
        a, b = row[k], row[k + 1]
        as_is = sum(place[p] > place[q] for p in near[a] for q in near[b])
        swapped = sum(place[p] < place[q] for p in near[a] for q in near[b])
        if swapped < as_is:
            row[k], row[k + 1] = b, a
            place[a], place[b] = place[b], place[a]


def _crossings(layers: Layers, up: list[list[int]]) -> int:
    total = 0
    for low, high in zip(layers.rows, layers.rows[1:], strict=False):
        at = {i: k for k, i in enumerate(high)}
        seen: list[int] = []
        for i in low:
            ends = sorted(at[j] for j in up[i])
            total += sum(len(seen) - bisect_right(seen, e) for e in ends)
            for e in ends:
                insort(seen, e)
    return total


def _finish(
    problem: Problem,
    rank: list[int],
    base: list[int],
    layers: Layers,
    chains: list[list[int]],
    label_item: dict[int, int],
    riser_chain: dict[int, list[int]],
    top_chain: dict[int, list[int]],
    guess: Sequence[float] | None,
    who: str,
) -> Plan:
    order = [0] * len(layers.row)
    for row in layers.rows:
        for k, i in enumerate(row):
            order[i] = k
    count = len(problem.cells)

    def open_side(i: int, right: bool) -> bool:
        row = layers.rows[layers.row[i]]
        others = row[order[i] + 1 :] if right else row[: order[i]]
        return all(j >= count for j in others)

    beside = [(w, t, right) for w, t, side, right in problem.entries if side and open_side(t, right)]
    # ports along the bottom of each box, in the order of where their lines come from
    ports: dict[int, list[tuple[float, int, str, int, float]]] = {i: [] for i in range(count)}
    for k, link in enumerate(problem.links):
        previous = chains[k][-1] if chains[k] else link.source
        ports[link.target].append((order[previous], k, "link", k, 10.0))
    for target, lines, pitch, _ in problem.risers:
        chain = riser_chain[target]
        at = order[chain[-1]] if chain else 0.0
        ports[target].append((at, -1, "riser", target, max(lines - 1, 0) * pitch + 8.0))
    for w, t, _, right in problem.entries:
        if (w, t, right) not in beside:
            ports[t].append((1e6 if right else -1.0, w, "entry", w, TAP))
    offset: dict[tuple[str, int, int], float] = {}
    for i, slots in ports.items():
        slots.sort(key=lambda s: s[:2])
        total = sum(s[4] for s in slots)
        scale = min(1.0, (problem.cells[i].width - 4) / total) if total else 1.0
        slot = -total * scale / 2
        for _, _, kind, key, room in slots:
            offset[kind, key, i] = slot + room * scale / 2
            slot += room * scale

    bend: dict[tuple[int, int], float] = {}
    for k, link in enumerate(problem.links):
        bend[(chains[k][-1] if chains[k] else link.source), link.target] = offset["link", k, link.target]
    for target, chain in riser_chain.items():
        if chain:
            bend[chain[-1], target] = offset["riser", target, target]
    fed = {link.target for link in problem.links}
    banded = {target for target, _, _, band in problem.risers if band}
    climbers = {target: chain[-1] for target, chain in riser_chain.items() if chain and target in fed & banded}
    x = _coordinates(layers, bend, guess, climbers)
    for target, chain in riser_chain.items():
        port = x[target] + offset["riser", target, target]
        place = _straighten(layers, order, x, chain, [port])
        least, most = _room(layers, order, x, [target])
        if least <= x[target] + place - port <= most:
            x[target] += place - port
    for source, chain in top_chain.items():
        _straighten(layers, order, x, chain, [x[source]])
    uses = Counter(item for chain in chains for item in chain)
    for k, link in enumerate(problem.links):
        port = x[link.target] + offset["link", k, link.target]
        trunk = [item for item in chains[k] if uses[item] > 1]
        _straighten(layers, order, x, trunk, [x[link.source]])
        _straighten(layers, order, x, chains[k][len(trunk) :], [port, x[link.source]])
    margin = [cell.margin for cell in problem.cells] + [0.0] * (len(x) - count)
    left = min((x[i] - layers.width[i] / 2 - margin[i] for i in range(len(x))), default=0.0)
    x = [v - left for v in x]
    width = max((x[i] + layers.width[i] / 2 + margin[i] for i in range(len(x))), default=0.0)

    # rows from the bottom up; a gap is as high as its lanes and its slanted lines need
    lanes: dict[int, list[int]] = {}
    for w, t, _, right in problem.entries:
        if (w, t, right) not in beside and w not in lanes.setdefault(rank[t], []):
            lanes[rank[t]].append(w)
    reach = [0.0] * (len(layers.rows) + 1)
    for a, b, _ in layers.links:
        dx = abs(x[a] - x[b] - bend.get((a, b), 0.0))
        reach[layers.row[b]] = max(reach[layers.row[b]], dx)
    low: list[float] = []
    high: list[float] = []
    y = 0.0
    texts = frozenset(label_item.values())
    bands = [0.0] * len(problem.gaps)
    starts: dict[int, list[int]] = {}
    for b in range(1, len(problem.gaps)):
        starts.setdefault(base[b], []).append(b)
    for r, row in enumerate(layers.rows):
        gap = 0.0 if r == 0 else problem.apart + min(0.09 * reach[r], 2.0 * problem.apart)
        if r and (texts.intersection(row) or texts.intersection(layers.rows[r - 1])):
            gap = 9.0 + min(0.1 * reach[r], 30.0)
        if lanes.get(r):
            gap = max(gap, (gap / 2 if r else 4.0) + _LANE * len(lanes[r]) + 6.0)
        for b in starts.get(r, ()):
            y += 10.0
            bands[b] = y
            y += problem.gaps[b]
        y += gap
        low.append(y)
        y += max((layers.height[i] for i in row), default=0.0)
        high.append(y)

    centre = [(x[i], (low[rank[i]] + high[rank[i]]) / 2) for i in range(count)]

    def through(items: list[int]) -> list[tuple[float, float]]:
        points = []
        for i in items:
            points += [(x[i], low[layers.row[i]]), (x[i], high[layers.row[i]])]
        return points

    def bottom(i: int, kind: str, key: int) -> list[tuple[float, float]]:
        px = x[i] + offset[kind, key, i]
        return [(px, low[rank[i]]), (px, centre[i][1] - problem.cells[i].height / 2)]

    def start(i: int) -> list[tuple[float, float]]:
        return [(x[i], centre[i][1] + problem.cells[i].height / 2), (x[i], high[rank[i]])]

    routes = [
        _slim([*start(e.source), *through(chains[k]), *bottom(e.target, "link", k)])
        for k, e in enumerate(problem.links)
    ]
    labels = {k: (x[i], (low[layers.row[i]] + high[layers.row[i]]) / 2) for k, i in label_item.items()}
    from_band = {t: band for t, _, _, band in problem.risers}
    risers = {
        t: _slim(
            [
                (
                    through(c)[0][0] if c else x[t] + offset["riser", t, t],
                    bands[from_band[t]] + problem.gaps[from_band[t]] if from_band[t] else 0.0,
                ),
                *through(c),
                *bottom(t, "riser", t),
            ]
        )
        for t, c in riser_chain.items()
    }
    entries = {}
    for w, t, _, right in problem.entries:
        if (w, t, right) in beside:
            others = [v for v, u, r in beside if u == t and r == right]
            room = spread(problem.cells[t].height, len(others))
            shift = room * (others.index(w) - (len(others) - 1) / 2)
            half = problem.cells[t].width / 2
            entries[w, t] = (True, centre[t][1] - shift, x[t] + (half if right else -half))
        else:
            lane = low[rank[t]] - 11.0 - _LANE * lanes[rank[t]].index(w)
            entries[w, t] = (False, lane, x[t] + offset["entry", w, t])
    tops = {
        s: _slim([*start(s), *through(c), ((through(c)[-1] if c else start(s)[-1])[0], y)])
        for s, c in top_chain.items()
    }
    exits: dict[tuple[int, bool], tuple[bool, float]] = {}
    above: dict[int, int] = {}
    for i, leftwards in problem.outs:
        if open_side(i, not leftwards):
            exits[i, leftwards] = (True, centre[i][1])
        else:
            above[rank[i]] = above.get(rank[i], 0) + 1
            exits[i, leftwards] = (False, high[rank[i]] + 2.0 + 5.0 * above[rank[i]])
    return Plan(width, y, centre, rank, routes, labels, risers, entries, tops, exits, tuple(bands), tuple(low), who)


def _coordinates(
    layers: Layers, bend: dict[tuple[int, int], float], guess: Sequence[float] | None, climbers: Mapping[int, int]
) -> list[float]:
    x = [0.0] * len(layers.row)
    for row in layers.rows:
        at = 0.0
        for k, i in enumerate(row):
            at += layers.apart(row[k - 1], i) if k else 0.0
            x[i] = at
        for i in row:
            x[i] -= at / 2
    if guess is not None:
        for row in layers.rows:
            _settle(layers, row, x, [guess[i] for i in row], [1.0] * len(row))
    down: list[list[tuple[int, float, float]]] = [[] for _ in x]
    up: list[list[tuple[int, float, float]]] = [[] for _ in x]
    for a, b, weight in layers.links:
        d = bend.get((a, b), 0.0)
        up[a].append((b, weight, d))
        # what climbs from a higher rail can do so anywhere: it follows its box, and holds it back like any line
        down[b].append((a, 1.0 if climbers.get(b) == a else weight, -d))
    rounds = 16 if len(x) < 2000 else 4
    for turn in range(rounds):
        late = turn >= rounds - 5
        rows = layers.rows if turn % 2 == 0 else layers.rows[::-1]
        for row in rows:
            wish, weights = [], []
            for i in row:
                near = down[i] + up[i] if late else (down[i] if turn % 2 == 0 else up[i])
                total = sum(w for _, w, _ in near)
                wish.append(sum(w * (x[j] + d) for j, w, d in near) / total if total else x[i])
                weights.append(total or 0.05)
            _settle(layers, row, x, wish, weights)
    return x


def _settle(layers: Layers, row: list[int], x: list[float], wish: list[float], weight: list[float]) -> None:
    """Put a row as near to its wishes as its widths allow, by pooling adjacent violators."""
    shift = 0.0
    shifts = []
    blocks: list[list[float]] = []  # mean, weight, how many
    for k, i in enumerate(row):
        shift += layers.apart(row[k - 1], i) if k else 0.0
        shifts.append(shift)
        blocks.append([wish[k] - shift, weight[k], 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            m, w, n = blocks.pop()
            mean, mass, size = blocks[-1]
            blocks[-1] = [(mean * mass + m * w) / (mass + w), mass + w, size + n]
    k = 0
    for mean, _, n in blocks:
        for _ in range(int(n)):
            x[row[k]] = mean + shifts[k]
            k += 1


def _straighten(layers: Layers, order: list[int], x: list[float], chain: list[int], wishes: list[float]) -> float:
    """Make a chain one vertical line, as near to the first wish as its neighbours let it; return the place."""
    low, high = _room(layers, order, x, chain)
    if not chain or low > high:
        return wishes[0]
    inside = [w for w in wishes if low <= w <= high]
    place = inside[0] if inside else min(max(wishes[0], low), high)
    for i in chain:
        x[i] = place
    return place


def _room(layers: Layers, order: list[int], x: list[float], items: list[int]) -> tuple[float, float]:
    """Return between which places all these items can stand without touching their neighbours."""
    low, high = -1e9, 1e9
    for i in items:
        row, k = layers.rows[layers.row[i]], order[i]
        if k:
            low = max(low, x[row[k - 1]] + layers.apart(row[k - 1], i))
        if k + 1 < len(row):
            high = min(high, x[row[k + 1]] - layers.apart(i, row[k + 1]))
    return low, high


def _slim(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Drop points that repeat or lie on the line between their neighbours."""
    kept: list[tuple[float, float]] = []
    for p in points:
        if kept and abs(kept[-1][0] - p[0]) < 0.01 and abs(kept[-1][1] - p[1]) < 0.01:
            continue
        if len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2], kept[-1]
            if abs((bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)) < 0.01 * (abs(p[0] - ax) + abs(p[1] - ay)):
                kept.pop()
        kept.append(p)
    return kept
