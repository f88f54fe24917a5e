"""Which edges of a tape a request lights: a route, a group of routes, a row of the time ledger, or words for one.

The words are ``OF -> WRT`` and then, in any order::

    by time|gate|scope|delay|route [KEY]     all routes, told apart; with a key those of one group: by time 2
    top N                                    the N strongest routes (one, if neither by nor top is said)
    at I,J                                   about this element of WRT
    through A,B    avoiding A,B              only routes through all, or none, of these values

OF and WRT are names on the tape, or ``#12`` for node 12; ``loss`` is the last single number if nothing has that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.errors import UsageError
from minigrad.graph.paths import EVERYTHING, Between, PathLedger, Route, paths, unwatched
from minigrad.graph.words import percent

__all__ = ["lit_edges"]

Key = tuple[int, int, int]
_GROUPINGS = ("time", "gate", "scope", "delay", "route")
_CLAUSE = re.compile(r"\b(by|top|at|through|avoiding)\s+")
_SYNTAX = 'write it like "loss -> weight_hh_l0 by time", or "h[3] -> h[0] top 2"'


def lit_edges(tape: Any, what: Any, steps: Mapping[int, int] = {}) -> tuple[set[Key], dict[int, str]]:
    """Return the edges (source, target, argument) that a request lights, and what it writes into the frames of steps.

    Args:
        tape: the tape that saw the computation.
        what: words as above; a route, or several, of a path ledger; a path ledger: its listed routes, or if it is
            grouped all routes; a pair (path ledger, key of a group); a pair (time ledger, t), its row t.
        steps: the steps of operations, by place on the tape, where no scope says them.

    Raises:
        UsageError: words that cannot be read, names that the tape does not have, no such route or group.
    """
    if isinstance(what, str):
        return _asked(tape, what, steps)
    if isinstance(what, Route):
        return _of_routes([what]), {}
    if isinstance(what, PathLedger):
        return _of_ledger(what)
    if isinstance(what, tuple) and len(what) == 2 and isinstance(what[0], PathLedger):
        return _of_ledger(*what)
    if isinstance(what, tuple) and len(what) == 2 and hasattr(what[0], "ends"):
        return _of_row(tape, *what)
    if isinstance(what, Iterable):
        routes = list(what)
        if routes and all(isinstance(route, Route) for route in routes):
            return _of_routes(routes), {}
    raise UsageError(
        f"highlight: a route or a path ledger, (time ledger, t), or words; {_SYNTAX}; not {type(what).__name__}"
    )


def _asked(tape: Any, text: str, steps: Mapping[int, int]) -> tuple[set[Key], dict[int, str]]:
    head, *rest = _CLAUSE.split(text)
    ends = [end.strip() for end in head.split("->")]
    if len(ends) != 2 or not all(ends):
        raise UsageError(f"highlight: {text!r} does not say from where to where; {_SYNTAX}")
    given: dict[str, str] = {}
    for word, value in zip(rest[::2], rest[1::2], strict=True):
        if word in given:
            raise UsageError(f"highlight: {text!r} says {word!r} twice")
        given[word] = value.strip().strip(",").strip()
        if not given[word]:
            raise UsageError(f"highlight: {word!r} needs a value; {_SYNTAX}")
    by, _, key = given.get("by", "").partition(" ")
    if by and by not in _GROUPINGS:
        raise UsageError(f"highlight: routes are told apart by {', '.join(_GROUPINGS)}, not by {by!r}")
    top = given.get("top", "0" if by else "1")
    if not top.isdecimal() or (top == "0" and not by):
        raise UsageError(f"highlight: top is how many routes, not {top!r}")
    at = given.get("at")
    if at is not None and not re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*", at):
        raise UsageError(f"highlight: an element is written like 0,2, not {at!r}")
    ledger = paths(
        _root(tape, ends[0]),
        ends[1],
        at=None if at is None else tuple(int(i) for i in at.split(",")),
        by=(lambda edge: steps.get(edge.target.id)) if by == "time" and steps else by or None,
        top=int(top),
        tape=tape,
        through=_names(given.get("through")),
        avoiding=_names(given.get("avoiding")),
    )
    if not by:
        return _of_ledger(ledger)
    if not key:
        timed = by == "time"
        if "top" in given:
            return _of_routes(ledger.paths), _shares(ledger, timed=timed)
        return _of_ledger(ledger, timed=timed)
    known = {str(k): k for k in ledger.groups}
    if key.strip("= ") not in known:
        raise UsageError(f"highlight: no routes have the {by} {key!r}; there are {', '.join(known)}")
    return _of_ledger(ledger, known[key.strip("= ")], timed=by == "time")


def _root(tape: Any, name: str) -> Any:
    named = any(node.name == name for node in tape.nodes)
    if name != "loss" or named:
        return name
    ends = [n for n in tape.nodes if n.kind == "op" and n.requires_grad and all(size == 1 for size in n.shape)]
    if not ends:
        raise UsageError("highlight: no operation on the tape gave a single number, so there is no loss")
    return ends[-1]


def _names(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _of_routes(routes: Iterable[Route]) -> set[Key]:
    return {(e.source.id, e.target.id, e.argument) for route in routes for e in route.edges}


def _of_ledger(ledger: PathLedger, key: Any = EVERYTHING, timed: bool | None = None) -> tuple[set[Key], dict[int, str]]:
    if key is EVERYTHING and not ledger.groups:
        return _of_routes(ledger.paths), {}
    keys = {(e.source.id, e.target.id, e.argument) for e in ledger.edges(key)}
    return keys, _shares(ledger, key, ledger.by == "time" if timed is None else timed)


def _shares(ledger: PathLedger, only: Any = EVERYTHING, timed: bool = True) -> dict[int, str]:
    """Return, for a ledger by time, how much of the gradient leaves through each step."""
    if not timed:
        return {}
    return {
        t: f"{percent(group.share)} of ∂{ledger.of}/∂{ledger.wrt}"
        for t, group in ledger.groups.items()
        if isinstance(t, int) and group.share is not None and (only is EVERYTHING or t == only)
    }


def _of_row(tape: Any, ledger: Any, t: Any) -> tuple[set[Key], dict[int, str]]:
    loss, leaf = ledger.ends(t)
    net = unwatched(lambda: Between(loss, leaf, tape))
    keys = {(net.face(a.source).id, net.face(a.target).id, a.k) for arrows in net.arrows.values() for a in arrows}
    row = ledger.norms[list(ledger.times).index(t)]
    norms: Mapping[Any, float] = dict(zip(ledger.columns, row, strict=True))
    return keys, {k: f"‖∂‖ {n:.3g}" for k, n in norms.items() if isinstance(k, int) and n}
