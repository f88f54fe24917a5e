"""Which edges of a tape a request lights: a route, a group of routes, a row of the time ledger, or words for one.

The words are ``OF -> WRT`` and then, in any order::

    by time|gate|scope|delay|route [KEY]     all routes, told apart; with a key those of one group: by time 2
    top N                                    the N strongest routes (one, if neither by nor top is said)
    at I,J                                   about this element of WRT
    through A,B    avoiding A,B              only routes through all, or none, of these values

OF and WRT are names on the tape, or ``#12`` for node 12; ``loss`` is the last single number if nothing has that name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.errors import UsageError
from minigrad.graph.paths import EVERYTHING, Between, PathLedger, Route, paths, unwatched
from minigrad.graph.words import percent

__all__ = ["lit_edges"]

Key = tuple[int, int, int]
_GROUPINGS = ("time", "gate", "scope", "delay", "route")
_CLAUSE = re.compile(r"(?<=\s)(by|top|at|through|avoiding)(?:\s+|$)")
_LISTED = 12
"""An error lists up to so many groups."""

Said = Callable[[Collection[int]], str]
"""What stands in the frame of these steps: nothing, the share of a gradient that leaves in them, or its norm."""
_SYNTAX = 'write it like "loss -> weight_hh_l0 by time", or "h[3] -> h[0] top 2"'


def lit_edges(tape: Any, what: Any, steps: Mapping[int, int] = {}) -> tuple[set[Key], Said]:
    """Return the edges (source, target, argument) that a request lights, and what it says in the frames of steps.

    Args:
        tape: the tape that saw the computation.
        what: words as above; a route, or several, of a path ledger; a path ledger: its listed routes, or if it is
            grouped all routes; a pair (path ledger, key of a group); a pair (time ledger, t), its row t.
        steps: the steps of operations, by place on the tape, where no scope says them.

    Raises:
        UsageError: words that cannot be read, names that the tape does not have, no such route or group.
    """
    keys, said = _found(tape, what, steps)
    if not keys:
        raise UsageError("highlight: no route is left to light: none goes where this one has to, or it has no edges")
    return keys, said


def _found(tape: Any, what: Any, steps: Mapping[int, int]) -> tuple[set[Key], Said]:
    if isinstance(what, str):
        try:
            return _asked(tape, what, steps)
        except UsageError as error:
            words = str(error)
            raise UsageError(words if words.startswith("highlight: ") else f"highlight: {words}") from None
    if isinstance(what, Route):
        return _of_routes([what]), _nothing
    if isinstance(what, PathLedger):
        return _of_ledger(what)
    if isinstance(what, tuple) and len(what) == 2 and isinstance(what[0], PathLedger):
        return _of_ledger(*what)
    if isinstance(what, tuple) and len(what) == 2 and hasattr(what[0], "ends"):
        return _of_row(tape, *what)
    if isinstance(what, Iterable):
        routes = list(what)
        if routes and all(isinstance(route, Route) for route in routes):
            return _of_routes(routes), _nothing
    raise UsageError(
        f"highlight: a route or a path ledger, (time ledger, t), or words; {_SYNTAX}; not {type(what).__name__}"
    )


def _nothing(steps: Collection[int]) -> str:
    return ""


def _asked(tape: Any, text: str, steps: Mapping[int, int]) -> tuple[set[Key], Said]:
    head, *rest = _CLAUSE.split(text)
    ends = [end.strip() for end in re.split("->|→", head)]
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
        _end(tape, ends[0]),
        _end(tape, ends[1]),
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
            return _of_routes(ledger.paths), _shares(ledger) if timed else _nothing
        return _of_ledger(ledger, timed=timed)
    known = {str(k): k for k in ledger.groups}
    wanted = key.strip("= ")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, 3, 0.5) if by not in ("time", "delay") else []
        some = list(known) if len(known) <= _LISTED else [*list(known)[: _LISTED - 1], "…", list(known)[-1]]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(some)}"
        raise UsageError(f"highlight: no routes have the {by} {key!r}; {hint}")
    return _of_ledger(ledger, known[wanted], timed=by == "time")


def _end(tape: Any, name: str) -> Any:
    """Return what `loss` stands for if nothing has that name, and other names as they are."""
    named = {node.name for node in tape.nodes}
    if name in named:
        return name
    if name != "loss":
        if difflib.get_close_matches(name.lower(), ["loss"], 1, 0.7):
            raise UsageError(f"highlight: nothing on the tape is named {name!r}; did you mean loss?")
        return name
    ends = [n for n in tape.nodes if n.kind == "op" and n.requires_grad and all(size == 1 for size in n.shape)]
    if not ends:
        raise UsageError("highlight: no operation on the tape gave a single number, so there is no loss")
    return ends[-1]


def _names(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _of_routes(routes: Iterable[Route]) -> set[Key]:
    return {(e.source.id, e.target.id, e.argument) for route in routes for e in route.edges}


def _of_ledger(ledger: PathLedger, key: Any = EVERYTHING, timed: bool | None = None) -> tuple[set[Key], Said]:
    if key is EVERYTHING and not ledger.groups:
        return _of_routes(ledger.paths), _nothing
    keys = {(e.source.id, e.target.id, e.argument) for e in ledger.edges(key)}
    by_time = ledger.by == "time" if timed is None else timed
    return keys, _shares(ledger, key) if by_time else _nothing


def _shares(ledger: PathLedger, only: Any = EVERYTHING) -> Said:
    """Return, for a ledger by time, how much of the gradient leaves through the steps of a frame.

    Shares are signed and add up to one: those of steps that work against the sum are negative.
    """
    shares = {
        t: group.share
        for t, group in ledger.groups.items()
        if isinstance(t, int) and group.share is not None and (only is EVERYTHING or t == only)
    }
    element = "" if ledger.at is None else f"[{','.join(map(str, ledger.at))}]"
    whole = f"∂{ledger.of}/∂{ledger.wrt}{element}"
    if not np.allclose(ledger.total, ledger.gradient, rtol=0, atol=ledger.tolerance):
        whole += " by these routes"  # through= or avoiding= leave the others out

    def said(steps: Collection[int]) -> str:
        found = [shares[t] for t in steps if t in shares]
        return f"{percent(sum(found)).replace('-', '−')} of {whole}" if found else ""

    return said


def _of_row(tape: Any, ledger: Any, t: Any) -> tuple[set[Key], Said]:
    loss, leaf = ledger.ends(t)
    net = unwatched(lambda: Between(loss, leaf, tape))
    keys = {(net.face(a.source).id, net.face(a.target).id, a.k) for arrows in net.arrows.values() for a in arrows}
    columns = {k for k in ledger.columns if isinstance(k, int)}

    def said(steps: Collection[int]) -> str:
        norm = np.linalg.norm(sum((ledger.terms[t, k] for k in steps if k in columns), np.zeros(())))
        return f"‖∂‖ {norm:.3g}" if norm else ""

    return keys, said
