"""The page of connectionist temporal classification: how likely a label sequence is when any alignment will do.

A target of S labels becomes 2 S + 1 states: its labels, with a blank before, between and after them. An alignment walks
through the states, one frame a step: it stays, moves on by one, or skips the blank between two different labels.
Walks start on the first blank and leave from the last one, before the first and after the last frame, when nothing is
emitted yet; so an empty target and a sequence without frames are no special cases.

Graves, Fernández, Gomez and Schmidhuber: Connectionist temporal classification, ICML 2006.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core import data_of, tensor
from ..errors import DTypeError, ShapeError, UsageError
from ..op import IndexError_, general, helper, lane_of
from ._axes import shape_of
from ._lengths import as_lengths, within
from .elementwise import exp, neg, where
from .index import getitem, put
from .linear import concatenate, flip, pad, stack
from .reduce import _logsumexp, logsumexp

NEVER = -1e30
"""The log-probability of what cannot happen: finite, so that differences of such numbers are no NaN."""
IMPOSSIBLE = NEVER / 2
"""Less than this, and some step of the likeliest walk cannot happen."""


class Lattice(NamedTuple):
    """The states of each target, as arrays beside the log-probabilities (T frames, N sequences, L = 2 S + 1 states).

    Attributes:
        picked: index of (T, N, C) that picks each state's label: (T, N, L).
        labels: (N, L) the label of each state.
        starts, ends: (N, L) log-probability to be there before the first frame, and after the last one.
        alive: (T, N, 1) whether the frame lies inside of the sequence.
        exits: index of (N, L) that picks the last blank of each target: (N,).
    """

    picked: Any
    labels: Any
    starts: Any
    ends: Any
    alive: Any
    exits: Any


def _lattice(
    xp: Any, log_probs: Any, targets: Any, input_lengths: tuple[int, ...], target_lengths: tuple[int, ...], blank: int
) -> Lattice:
    frames, number, _ = log_probs.shape
    room = targets.shape[1]
    states = 2 * room + 1
    on = lane_of(log_probs)
    inside = on.asarray(within(target_lengths, room))
    targets = xp.astype(targets, xp.int64)  # small integers may not hold the blank
    symbols = xp.where(inside, targets, xp.full_like(targets, blank))
    pairs = xp.stack([xp.full_like(symbols, blank), symbols], axis=2)
    last_blank = xp.full((number, 1), blank, dtype=targets.dtype)
    labels = xp.concat([xp.reshape(pairs, (number, states - 1)), last_blank], axis=1)

    rows, place = xp.arange(number), xp.arange(states)
    exits = 2 * on.asarray(np.asarray(target_lengths, dtype=np.int64))
    never = xp.full((number, states), NEVER, dtype=log_probs.dtype)
    nothing = xp.zeros_like(never)
    return Lattice(
        picked=(xp.reshape(xp.arange(frames), (frames, 1, 1)), xp.reshape(rows, (1, number, 1)), labels[None, :, :]),
        labels=labels,
        starts=xp.where(place[None, :] == 0, nothing, never),
        ends=xp.where(place[None, :] == exits[:, None], nothing, never),
        alive=on.asarray(within(input_lengths, frames)).T[:, :, None],
        exits=(rows, exits),
    )


def _skips(xp: Any, labels: Any, blank: int) -> Any:
    """Return which states may be entered from two states before: labels that differ from the one before."""
    before = xp.concat([xp.full((labels.shape[0], 2), blank, dtype=labels.dtype), labels], axis=1)
    return (labels != blank) & (labels != before[:, : labels.shape[1]])


# --- the value, over arrays -------------------------------------------------------------------------------------------


def _check(xp: Any, log_probs: Any, targets: Any, target_lengths: tuple[int, ...], blank: int) -> None:
    """Refuse labels that are no class, or the blank, by the place of the first one."""
    classes = log_probs.shape[2]
    if lane_of(targets).kind(targets) != "i":
        raise DTypeError(f"targets holds integers, the numbers of classes, not elements of type {targets.dtype}")
    inside = lane_of(targets).asarray(within(target_lengths, targets.shape[1]))
    for wrong, error, reason in (
        ((targets < 0) | (targets >= classes), IndexError_, f"none of the classes 0 to {classes - 1}"),
        (targets == blank, UsageError, "the blank, which is no label"),
    ):
        lane_of(targets).demand(
            xp.any(wrong & inside), functools.partial(_first, xp, targets, wrong & inside, error, reason)
        )


def _first(xp: Any, targets: Any, wrong: Any, error: Callable[[str], Exception], reason: str) -> Exception:
    n, s = (int(place[0]) for place in xp.nonzero(wrong))
    return error(f"targets[{n}, {s}] is {int(targets[n, s])}: {reason}")


def _ctc(
    xp: Any, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int, zero_infinity: bool
) -> Any:
    _check(xp, log_probs, targets, target_lengths, blank)
    lattice = _lattice(xp, log_probs, targets, input_lengths, target_lengths, blank)
    skips = _skips(xp, lattice.labels, blank)
    emissions = log_probs[lattice.picked]
    never = xp.full_like(lattice.starts, NEVER)
    beyond = xp.full((skips.shape[0], 2), NEVER, dtype=log_probs.dtype)

    def arrive(at: Any) -> Any:
        wide = xp.concat([beyond, at], axis=1)
        ways = [at, wide[:, 1:-1], xp.where(skips, wide[:, :-2], never)]
        return _logsumexp(xp, xp.stack(ways), 0, False)

    at = lattice.starts
    for t in range(emissions.shape[0]):
        at = xp.where(lattice.alive[t, :, :], arrive(at) + emissions[t, :, :], at)
    total = arrive(at)[lattice.exits]
    return xp.where(total < IMPOSSIBLE, 0.0 if zero_infinity else math.inf, -total)


# --- the derivative, over the page ------------------------------------------------------------------------------------


def _like(log_probs: Any, array: Any) -> Any:
    """Return a constant of the log-probabilities' dtype, which compiled kernels take as it is."""
    like = data_of(log_probs)
    return tensor(lane_of(like).cast(array, like.dtype))


def _emissions(log_probs: Any, lattice: Lattice) -> Any:
    """Return what each state emits at each frame: (T, N, L)."""
    emissions = getitem(log_probs, lattice.picked)
    # The derivative of logsumexp is NaN where all three ways into a state are -inf.
    return where(_like(log_probs, data_of(emissions) < NEVER), NEVER, emissions)


def _walk(emissions: Any, alive: Any, skips: Any, at: Any) -> tuple[list[Any], list[Any], Any]:
    """Walk through the states in operations of the page.

    Returns the log-probabilities to arrive in each state before it emits, and to be there afterwards, for each frame;
    and those to arrive after the last frame.
    """
    arrivals, presences = [], []
    for t in range(emissions.shape[0]):
        arrivals.append(_arrive(at, skips))
        at = where(alive[t, ...], arrivals[-1] + emissions[t, ...], at)
        presences.append(at)
    return arrivals, presences, _arrive(at, skips)


def _arrive(at: Any, skips: Any) -> Any:
    wide = pad(at, ((0, 0), (2, 0)), NEVER)
    ways = [at, getitem(wide, (slice(None), slice(1, -1)))]
    ways.append(where(skips, getitem(wide, (slice(None), slice(None, -2))), NEVER))
    return logsumexp(stack(ways), axis=0)


@helper
def occupancy(
    log_probs: Any,
    targets: Any,
    input_lengths: tuple[int, ...],
    target_lengths: tuple[int, ...],
    blank: int,
    zero_infinity: bool,
) -> Any:
    """Return how probable each class is at each frame, given that the target was emitted: (T, N, C).

    Zero beyond the end of a sequence. A target that cannot be emitted leaves no answer, NaN; 0 with `zero_infinity`.
    """
    if 0 in log_probs.shape:
        return log_probs
    like = data_of(log_probs)
    xp, number = lane_of(like).xp, like.shape[1]
    lattice = _lattice(xp, like, data_of(targets), input_lengths, target_lengths, blank)
    # A walk back from the end is one through the states of the reversed target: both are one walk of 2 N sequences.
    emissions = _emissions(log_probs, lattice)
    labels = xp.concat([lattice.labels, xp.flip(lattice.labels, axis=1)])
    arrivals, presences, last = _walk(
        concatenate(emissions, flip(emissions, (0, 2)), axis=1),
        _like(like, xp.concat([lattice.alive, xp.flip(lattice.alive, axis=0)], axis=1)),
        _like(like, _skips(xp, labels, blank)),
        tensor(xp.concat([lattice.starts, xp.flip(lattice.ends, axis=1)])),
    )
    total = getitem(last, lattice.exits)
    impossible = data_of(total) < IMPOSSIBLE
    through = stack(arrivals)[:, :number, :] + flip(stack(presences)[:, number:, :], (0, 2))
    shares = exp(through - where(impossible, 0, total)[None, :, None])
    if not zero_infinity:
        shares = where(impossible[None, :, None], math.nan, shares)
    return put(where(lattice.alive, shares, 0), lattice.picked, log_probs.shape)


def _in_operations(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, zero_infinity: bool = False
) -> Any:
    like = data_of(log_probs)
    xp = lane_of(like).xp
    lattice = _lattice(xp, like, data_of(targets), input_lengths, target_lengths, blank)
    skips, alive = _like(like, _skips(xp, lattice.labels, blank)), _like(like, lattice.alive)
    _, _, last = _walk(_emissions(log_probs, lattice), alive, skips, tensor(lattice.starts))
    total = getitem(last, lattice.exits)
    return where(data_of(total) < IMPOSSIBLE, 0 if zero_infinity else math.inf, neg(total))


def _prepared(
    operands: tuple[Any, ...], input_lengths: Any, target_lengths: Any, blank: int, zero_infinity: bool
) -> dict[str, Any]:
    shape, targets = (shape_of(operand) for operand in operands)
    if len(shape) != 3 or len(targets) != 2 or targets[0] != shape[1]:
        raise ShapeError(f"ctc: log_probs has shape (T, N, C) and targets (N, S), not {shape} and {targets}")
    if not 0 <= blank < shape[2]:
        raise IndexError_(f"ctc: blank={blank} is none of the classes 0 to {shape[2] - 1}")
    return {
        "input_lengths": as_lengths("ctc: input_lengths", input_lengths, shape[1], shape[0]),
        "target_lengths": as_lengths("ctc: target_lengths", target_lengths, shape[1], targets[1]),
        "blank": blank,
        "zero_infinity": bool(zero_infinity),
    }


_OCCUPANCY = "occupancy(log_probs, targets, input_lengths, target_lengths, blank, zero_infinity)"

ctc = general(
    "ctc(log_probs, targets; input_lengths, target_lengths, blank=0, zero_infinity=False)",
    value=_ctc,
    vjp_log_probs=f"-expand_dims(g, (0, 2)) * {_OCCUPANCY}",
    jvp_log_probs=f"-sum(t * {_OCCUPANCY}, axis=(0, 2))",
    indices=("targets",),
    prepare=_prepared,
    twin=_in_operations,
    floats=True,
    shapes="(t, n, c), (n, s) -> (n)",
    doc="-log of the probability of each target (N, S) summed over all alignments with log_probs (T, N, C).",
)

__all__ = ["ctc"]
