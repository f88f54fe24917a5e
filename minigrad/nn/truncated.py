"""Truncated back-propagation through time: long sequences in short windows, with the state carried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .. import ops
from ..errors import UsageError
from ..tensor import Tensor, no_grad

__all__ = ["Chunk", "detach", "truncated_bptt"]


def detach(state: Any) -> Any:
    """Return a state outside of the graph: tensors inside of tuples, named tuples, lists and dictionaries are detached.

    Anything else, None among it, is returned as it is.

    >>> import minigrad as mg
    >>> h = mg.ones(2, requires_grad=True) * 3
    >>> inner, [(again, nothing)] = detach((h, [(h, None)]))
    >>> inner.requires_grad, again.requires_grad, nothing
    (False, False, None)
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*map(detach, state))
    if isinstance(state, tuple | list):
        return type(state)(map(detach, state))
    if isinstance(state, dict):
        return {key: detach(value) for key, value in state.items()}
    return state


class Chunk(NamedTuple):
    """Steps whose losses have just been back-propagated.

    Attributes:
        start, stop: the steps are start to stop - 1.
        loss: sum of their losses, outside of the graph; 0.0 if they have none.
        state: the state after them, outside of the graph.
    """

    start: int
    stop: int
    loss: float
    state: Any


def truncated_bptt(
    step: Callable[[Any, Any], tuple[Tensor | None, Any]], sequence: Iterable[Any], state: Any, *, k1: int, k2: int
) -> Iterator[Chunk]:
    """Back-propagate the losses of every k1 steps through the k2 steps that end with them (Williams and Peng 1990).

    Gradients are added to ``.grad`` chunk by chunk while the result is iterated; an optimiser may step in between.
    Each chunk's window is computed afresh from the state before it, which is detached: no gradient passes it,
    no node is used twice, and changed parameters never meet what was computed with their old values. With k2 > k1 the
    steps that windows share are therefore computed more than once (and draw new random masks); with k2 < k1 the losses
    of the first k1 - k2 steps of a chunk are computed but have no gradient. With k1 = k2 = T it is the full gradient.

    Args:
        step: ``(input, state) -> (loss, next state)`` of one step; the loss is a tensor of one element, or None.
        sequence: the inputs of all steps; of a tensor, its first axis.
        state: the first state, tensors in any nesting; leaves that require a gradient get theirs.
        k1: how many steps lie between two back-propagations; the last chunk may be shorter.
        k2: how many steps each goes back.

    Yields:
        A :class:`Chunk` after each back-propagation.

    Raises:
        UsageError: k1 or k2 below 1, a first state that other computations led to (pass ``nn.detach(state)``), or a
            step that returns no pair.

    >>> import minigrad as mg
    >>> cell, head = mg.nn.RNNCell(2, 3), mg.nn.Linear(3, 1)
    >>> optimizer = mg.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.1)
    >>> def step(x, h):
    ...     h = cell(x, h)
    ...     return mg.losses.mse(head(h), mg.ones(7, 1)), h
    >>> for chunk in mg.nn.truncated_bptt(step, mg.ones(10, 7, 2), mg.zeros(7, 3), k1=4, k2=6):
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     print(chunk.start, chunk.stop)
    0 4
    4 8
    8 10
    """
    for name, k in (("k1", k1), ("k2", k2)):
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise UsageError(f"truncated_bptt: {name} is a positive number of steps, not {k!r}")
    if any(s.requires_grad and not s.is_leaf for s in _tensors(state)):
        raise UsageError(
            "truncated_bptt: the first state hangs on a graph that would be walked once for each chunk; "
            "pass nn.detach(state)"
        )
    return _chunks(step, list(sequence), state, k1, k2)


def _chunks(step: Callable[[Any, Any], Any], inputs: list[Any], state: Any, k1: int, k2: int) -> Iterator[Chunk]:
    before = {0: state}  # the state before each step from which a window may still start
    for start in range(0, len(inputs), k1):
        stop = min(start + k1, len(inputs))
        first = max(stop - k2, 0)
        losses: list[Tensor] = []
        if first > start:
            with no_grad():  # these steps lie before the window: their losses reach nothing inside of it
                for t in range(start, first):
                    loss, after = _one(step, inputs[t], before[t])
                    losses += [] if loss is None else [loss]
                    before[t + 1] = detach(after)
        now = before[first]
        reached: list[Tensor] = []
        for t in range(first, stop):
            loss, now = _one(step, inputs[t], now)
            before[t + 1] = detach(now)
            if t >= start and loss is not None:
                losses.append(loss.detach())
                reached.append(ops.reshape(loss, ()))
        total = sum(loss.item() for loss in losses)
        if reached:
            ops.sum(ops.stack(*reached)).backward()
        oldest = max(min(stop + k1, len(inputs)) - k2, 0)
        before = {t: s for t, s in before.items() if min(oldest, stop) <= t <= stop}
        yield Chunk(start, stop, float(total), before[stop])


def _one(step: Callable[[Any, Any], Any], x: Any, state: Any) -> tuple[Tensor | None, Any]:
    result = step(x, state)
    if not isinstance(result, tuple) or len(result) != 2:
        raise UsageError(f"truncated_bptt: a step returns (loss, next state), not {type(result).__name__}")
    loss, after = result
    if loss is not None and (not isinstance(loss, Tensor) or loss.size != 1):
        found = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UsageError(f"truncated_bptt: a step's loss is a tensor of one element or None, not {found}")
    return loss, after


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _tensors(part)
    elif isinstance(state, dict):
        yield from _tensors(tuple(state.values()))
