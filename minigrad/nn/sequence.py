"""One layer of a recurrent network over a sequence: step by step, and as one operation of the page.

::

      x (T, N, I) ──► [ lstm ] ──► y (T, N, D·P)       a record of its own, with a kernel; opened, it is its twin:
    h_0, c_0 ───────► [      ] ──► h_n, c_n
    weight_ih, … ───► [      ]                         x[t] ──► [gates] ──► c[t], h[t] ──► x[t+1] ──► …

The records `lstm`, `gru` and `rnn` are whole layers, `lstm_cell`, `gru_cell` and `rnn_cell` one step of them. What they
compute is said by the units alone (:mod:`minigrad.nn.units`): the twin of a record runs the unit step by step.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core, _cpu, ops
from ..backend import array_lane
from ..grad import Composed
from ..op import PAGE
from ..ops._lengths import within
from ..tensor import Tensor, zeros_like
from .units import QUIET, ElmanUnit, GRUUnit, LSTMUnit, Quiet, State, Step, Told, Unit, Weights

__all__ = ["CELLS", "LAYERS", "Way", "fused_options", "joined", "masks", "run", "scopes", "words"]

Bind = Callable[[Weights, State], Step]


# --- step by step -------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """One direction of a layer: its scope ("" where there is only one), its parameters, what gives its first state."""

    word: str
    reverse: bool
    weights: Weights
    start: Callable[[], State]


@contextlib.contextmanager
def scopes(watched: bool, *words: str) -> Iterator[None]:
    """Open scopes inside each other while a tape watches; empty words are left out."""
    with contextlib.ExitStack() as stack:
        for word in words:
            if watched and word:
                stack.enter_context(_core.scope(word))
        yield


def masks(inside: np.ndarray[Any, Any], like: Tensor) -> list[Any]:
    """Return for each step which sequences go on in it, (N, 1): None for all, False for none of them.

    Args:
        inside: which steps lie inside of each sequence, (T, N).
        like: tells the device.
    """
    on = array_lane(_core.data_of(like))
    return [None if now.all() else _core.tensor(on.asarray(now[:, None])) if now.any() else False for now in inside]


def run(
    states: Sequence[str],
    ways: Sequence[Way],
    xs: list[Any],
    cut: Callable[[int], Tensor],
    running: Sequence[Any],
    bind: Bind,
    watched: bool,
    cells: bool,
) -> tuple[list[list[Tensor]], list[list[Tensor]], list[State]]:
    """Run one layer.

    Args:
        states: the unit's names of them.
        ways: its directions.
        xs: the inputs of all steps; None for those that are to be cut out of a sequence, and are put in here.
        cut: gives the input of a step.
        running: as :func:`masks` says.
        bind: gives one step of a direction.
        watched: whether to open scopes and give names.
        cells: whether the cells are wanted.

    Returns:
        For each direction the outputs of all steps, its cells, and its final state.
    """
    steps = len(xs)
    hows = [Told(t) if watched else QUIET for t in range(-1, steps + 1)]  # hows[t + 1] speaks of step t
    outputs, memories, final = [], [], []
    for way in ways:
        with scopes(watched, way.word):
            start = hows[-1 if way.reverse else 0]
            # A leaf has its own name already, if it has one.
            state = tuple(
                s if s.requires_grad and s.is_leaf else start.name(s, word)
                for word, s in zip(states, way.start(), strict=True)
            )
            step = bind(way.weights, state)
            hs: list[Any] = [None] * steps
            cs: list[Any] = [None] * steps
            for t in reversed(range(steps)) if way.reverse else range(steps):
                how, now = hows[t + 1], running[t]
                if xs[t] is None or now is not False:
                    with how.scope(f"t={t}"):
                        if xs[t] is None:
                            xs[t] = how.name(cut(t), "x")
                        if now is None:
                            state = step(xs[t], state, how)
                        elif now is not False:
                            state = _partly(states, step, xs[t], state, how, now)
                hs[t] = state[0]
                if cells:
                    cs[t] = state[1]
        outputs.append(hs)
        memories.append(cs)
        final.append(state)
    return outputs, memories, final


def _partly(states: Sequence[str], step: Step, x: Tensor, state: State, how: Quiet, now: Tensor) -> State:
    """Take a step with the sequences that go on; the others keep their states."""
    after = step(x, state, how)
    return tuple(
        how.name(ops.where(now, how.name(new, f"{word} new"), s), word)
        for word, s, new in zip(states, state, after, strict=True)
    )


def joined(sides: list[list[Tensor]], watched: bool) -> list[Tensor]:
    """Join the directions at each step."""
    if len(sides) == 1:
        return sides[0]
    found = []
    for t, parts in enumerate(zip(*sides, strict=True)):
        with scopes(watched, f"t={t}"):
            y = ops.concatenate(*parts, axis=-1)
            found.append(Told(t).name(y, "y") if watched else y)
    return found


def stacked(sides: list[list[Tensor]], axis: int) -> Tensor:
    """Stack the steps of each direction, and join the directions: fewer operations than joining each step."""
    parts = [ops.stack(*side, axis=axis) for side in sides]
    return parts[0] if len(parts) == 1 else ops.concatenate(*parts, axis=-1)


# --- as one operation ---------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A unit that has kernels.

    Attributes:
        name: of its records.
        unit: makes it from a record's parameters.
        gates: how many it has.
        states: their names.
        params: what its records have beside `bias`, with defaults; those of its layers only are `own`.
    """

    name: str
    unit: Callable[[dict[str, Any]], Unit]
    gates: int
    states: tuple[str, ...]
    params: dict[str, Any]
    own: dict[str, Any]


KINDS = (
    Kind("rnn", lambda p: ElmanUnit(p["nonlinearity"]), 1, ("h",), {"nonlinearity": "tanh"}, {}),
    Kind("gru", lambda p: GRUUnit(), 3, ("h",), {}, {}),
    Kind(
        "lstm",
        lambda p: LSTMUnit(peepholes="diagonal" if p["peepholes"] else None),
        4,
        ("h", "c"),
        {"projection": False, "peepholes": False},
        {"cells": False},
    ),
)
SEQUENCE = {"states": True, "bidirectional": False, "batch_first": False, "lengths": None, "recompute": 0}
"""What every record of a layer has beside. Without `states` they start at zeros and are no operands; `lengths` are
integers (N,); with `recompute`, k > 0, no step's activations are kept but the states of every k-th, from which backward
computes the rest again."""


def fields(p: dict[str, Any]) -> tuple[str, ...]:
    """Return which parameters of a unit a record with these parameters has among its operands, in order."""
    found = ["weight_ih", "weight_hh"]
    if p["bias"]:
        found += ["bias_ih", "bias_hh"]
    if p.get("projection"):
        found.append("weight_hr")
    if p.get("peepholes"):
        found.append("weight_ph")
    return tuple(found)


def words(states: Sequence[str], p: dict[str, Any]) -> list[str]:
    """Return the names of a record's operands."""
    one = [*(f"{s}_0" for s in states if p.get("states")), *fields(p)]
    if "bidirectional" not in p:
        return ["x", *states, *fields(p)]
    return ["x", *one, *([f"{word}_reverse" for word in one] if p["bidirectional"] else [])]


def _weights(p: dict[str, Any], given: Sequence[Tensor]) -> Weights:
    return Weights(**dict(zip(fields(p), given, strict=True)))


def _layer(kind: Kind, p: dict[str, Any], made: Any, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """Run one layer as its unit says: the twin of a layer's record."""
    axis = 1 if p["batch_first"] and len(x.shape) == 3 else 0
    steps, watched, both, cells = x.shape[axis], _core.is_watched(), p["bidirectional"], p.get("cells", False)
    number = len(rest) // (2 if both else 1)
    n = len(kind.states) if p["states"] else 0
    ways = [
        _way(kind, word, _weights(p, part[n:]), part[:n], x, axis)
        for word, part in zip(("forward", "reverse") if both else ("",), (rest[:number], rest[number:]), strict=False)
    ]
    lengths = p["lengths"]
    running = [None] * steps if lengths is None else masks(within(lengths, steps).T, x)
    unit = kind.unit(p)
    # Where a layer below was opened as well its steps are at hand: nothing is stacked only to be cut again.
    part = made(x) if made is not None else None
    if part is not None and part.op == "stack" and part.params["axis"] == axis:
        xs = part.operands()
    else:
        xs = [None] * steps
    outputs, memories, final = run(
        kind.states,
        ways,
        xs,
        lambda t: x[:, t] if axis else x[t],
        running,
        lambda w, start: unit.bind(w, start, watched, False),
        watched,
        cells,
    )
    results = []
    for sides in (outputs, memories) if cells else (outputs,):
        sides = [[_within(y, now) for y, now in zip(side, running, strict=True)] for side in sides]
        results.append(ops.stack(*joined(sides, watched), axis=axis) if watched else stacked(sides, axis))
    ends = [ops.stack(*parts) for parts in zip(*final, strict=True)]
    named = zip(("output", "cells"), results, strict=False), zip([f"{s}_n" for s in kind.states], ends, strict=True)
    if watched:
        for word, y in [pair for pairs in named for pair in pairs]:
            y.name = word
    return (results[0], *ends, *results[1:])


def _way(kind: Kind, word: str, w: Weights, start: State, x: Tensor, axis: int) -> Way:
    """Return a direction; it starts at zeros where no state is given."""

    def zero() -> State:
        batch = x.shape[1 - axis : 2 - axis] if len(x.shape) == 3 else ()
        outputs, hidden = w.weight_hh.shape[1], w.weight_hh.shape[0] // kind.gates
        lane, dtype = array_lane(_core.data_of(x)), _core.data_of(x).dtype
        return tuple(_core.tensor(lane.zeros((*batch, size), dtype)) for size in (outputs, hidden)[: len(kind.states)])

    return Way(word, word == "reverse", w, functools.partial(tuple, start) if start else zero)


def _within(y: Tensor, now: Any) -> Tensor:
    """Return a step's output, zero for the sequences that have ended."""
    return y if now is None else zeros_like(y) if now is False else ops.where(now, y, 0)


def _cell(kind: Kind, p: dict[str, Any], made: Any, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """Take one step as its unit says: the twin of a cell's record."""
    n, watched = len(kind.states), _core.is_watched()
    time = _core.STEP.findall(_core.here()) if watched else ()
    step = kind.unit(p).bind(_weights(p, rest[n:]), rest[:n], watched, False)
    return step(x, rest[:n], Told(int(time[-1]) if time else None) if watched else QUIET)


def _record(kind: Kind, name: str, twin: Callable[..., Any], params: dict[str, Any], shapes: str, doc: str) -> Composed:
    listed = ", ".join(f"{word}={value!r}" for word, value in params.items())
    return Composed(
        f"{name}(*xs; {listed})",
        twin=lambda x, *rest, made=None, **given: twin(kind, {**params, **given}, made, x, *rest),
        words=lambda p: words(kind.states, p),
        shapes=shapes,
        doc=doc,
    )


def _records(kind: Kind) -> tuple[Composed, Composed]:
    name, params, both = kind.name, {**kind.params, "bias": True}, len(kind.states) == 2
    g = "" if kind.gates == 1 else kind.gates
    p = "P" if both else "H"  # a projection is an LSTM's
    states = f"(N, {p}), (N, H)" if both else "(N, H)"
    weights = f"({g}H, I), ({g}H, {p}), ({g}H), ({g}H)"
    layer = _record(
        kind,
        name,
        _layer,
        {**params, **kind.own, **SEQUENCE},
        f"(T, N, I), each direction's {states}, {weights}, … -> (T, N, D {p}), (D, N, {p})" + ", (D, N, H)" * both,
        f"A layer of a recurrent network over a sequence: what nn.{name.upper()} runs.",
    )
    cell = _record(
        kind,
        f"{name}_cell",
        _cell,
        params,
        f"(N, I), {states}, {weights}, … -> {states}",
        f"A step of a recurrent network: what nn.{name.upper()}Cell runs.",
    )
    layer.compiled, cell.compiled = _cpu.recurrent_kernel(name, True), _cpu.recurrent_kernel(name, False)
    return layer, cell


LAYERS: dict[type[Unit], Composed] = {}
CELLS: dict[type[Unit], Composed] = {}
for _kind in KINDS:
    _unit = type(_kind.unit({**_kind.params, "bias": True}))
    LAYERS[_unit], CELLS[_unit] = _records(_kind)


def fused_options(unit: Unit) -> dict[str, Any] | None:
    """Return the parameters with which a record computes what a unit does; None if it has no record."""
    if unit.clip is not None or unit.layer_norm or any(unit.zoneout):
        return None
    if isinstance(unit, LSTMUnit):
        plain = unit.variant in ("V", "NP") and unit.cell_clip is None and not unit.input_forget
        if not plain or unit.peepholes == "full" or unit.activations != (PAGE.sigmoid, PAGE.tanh, PAGE.tanh):
            return None
        return {"projection": False, "peepholes": unit.peepholes is not None}
    if isinstance(unit, GRUUnit):
        return {} if unit.reset_after and unit.activations == (PAGE.sigmoid, PAGE.tanh) else None
    if isinstance(unit, ElmanUnit):
        for word in ("tanh", "relu"):
            if unit.activation is getattr(PAGE, word):
                return {"nonlinearity": word}
    return None
