"""Steps of a loop that nobody announced: where a tape has no ``t=…``, recurrence shows which operations are one step.

::

    for x in xs:                      h ── cell ── h ── cell ── h        the same operations on the same parameters,
        h = cell(x, h)                      │W          │W              each depending on the one before: a recurrence
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

_TRIED = 16
"""How many repeated operations are tested for a recurrence."""

Kind = tuple[Any, ...]


def steps_of_loops(
    ops: Sequence[int],
    kind: Mapping[int, Kind],
    parents: Mapping[int, Sequence[int]],
    anchors: Mapping[int, Kind],
    small: Mapping[int, bool],
) -> dict[int, int]:
    """Return the step of each operation that belongs to a step of a loop.

    Args:
        ops: the operations, in creation order.
        kind: what makes two operations the same operation in two steps.
        parents: what each node reads.
        anchors: the operations that use parameters, with a kind that includes which ones and how.
        small: whether a node holds one number; a running sum of those is no part of a step.

    A loop is found where an anchor occurs at least twice and each occurrence depends on the one before. Its steps begin
    at the earliest anchor that occurs as often; a second loop goes on counting where it starts from the last step of
    the first, and starts again with it where it runs beside it (a layer above a layer).
    """
    step: dict[int, int] = {}
    left = dict(anchors)
    place = {i: k for k, i in enumerate(ops)}
    while left:
        found = _loop(ops, place, left, parents)
        if found is None:
            break
        starts, end = found
        windows = [ops[place[a] : place[b]] for a, b in pairwise(starts)]
        windows.append(ops[place[starts[-1]] : end])
        windows[-1] = _like(windows[-1], windows[-2], kind)
        first = _first_step(windows, step, parents)
        sums = _running_sums(windows, kind, parents, small)
        for t, window in enumerate(windows, first):
            for i in window:
                left.pop(i, None)
                if i not in sums:
                    step.setdefault(i, t)
        for i in [i for i in left if place[i] < place[windows[-1][-1]] and place[i] >= place[starts[0]]]:
            del left[i]
    return step


def _loop(
    ops: Sequence[int], place: Mapping[int, int], anchors: Mapping[int, Kind], parents: Mapping[int, Sequence[int]]
) -> tuple[list[int], int] | None:
    """Return where the steps of the first loop begin, and where its last one ends at most."""
    groups: dict[Kind, list[int]] = {}
    for i, what in anchors.items():
        groups.setdefault(what, []).append(i)
    repeated = [ids for ids in groups.values() if len(ids) > 1]
    chain = next((ids for ids in repeated[:_TRIED] if _recurrent(ids, ops, parents)), None)
    if chain is None:
        return None
    for ids in repeated:
        if len(ids) == len(chain) and all(
            place[a] <= place[c] for a, c in zip(ids, chain, strict=True)
        ) and all(place[c] < place[a] for c, a in zip(chain, ids[1:], strict=False)):  # fmt: skip
            return ids, len(ops)
    return chain, len(ops)


def _recurrent(ids: Sequence[int], ops: Sequence[int], parents: Mapping[int, Sequence[int]]) -> bool:
    """Whether each of these depends on the one before."""
    number = {i: k for k, i in enumerate(ids, 1)}
    latest: dict[int, int] = {}
    for i in ops:
        above = max((latest.get(p, 0) for p in parents[i]), default=0)
        if i in number:
            if above != number[i] - 1:
                return False
            above = number[i]
        latest[i] = above
    return True


def _like(window: Sequence[int], model: Sequence[int], kind: Mapping[int, Kind]) -> Sequence[int]:
    """Cut the last window where it stops doing what the one before did."""
    size = 0
    while size < min(len(window), len(model)) and kind[window[size]] == kind[model[size]]:
        size += 1
    return window[: max(size, 1)]


def _first_step(windows: Sequence[Sequence[int]], step: Mapping[int, int], parents: Mapping[int, Sequence[int]]) -> int:
    seen = [step[p] for i in windows[0] for p in parents[i] if p in step]
    later = [step[p] for i in windows[-1] for p in parents[i] if p in step]
    if not seen:
        return 0
    beside = bool(later) and max(later) > max(seen)
    return max(seen) if beside else max(step.values()) + 1 if max(seen) == max(step.values()) else 0


def _running_sums(
    windows: Sequence[Sequence[int]], kind: Mapping[int, Kind], parents: Mapping[int, Sequence[int]],
    small: Mapping[int, bool],
) -> set[int]:  # fmt: skip
    """Return the operations that only add up what the steps give, in all steps."""
    before: dict[tuple[Kind, int], int] = {}
    sums: set[tuple[Kind, int]] = set()
    named: dict[int, tuple[Kind, int]] = {}
    for window in windows:
        seen: Counter[Kind] = Counter()
        here = {}
        for i in window:
            name = (kind[i], seen[kind[i]])
            seen[kind[i]] += 1
            named[i] = name
            if small[i] and before.get(name) in parents[i]:
                sums.add(name)
            here[name] = i
        before = here
    return {i for i, name in named.items() if name in sums}
