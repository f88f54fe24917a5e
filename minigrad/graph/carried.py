"""What an edge does to a gradient, in numbers: the size of its ∂⁺ and what it carries in the last backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad import _core
from minigrad.backend import array_lane, host

__all__ = ["carried", "gain"]

ROUNDS = 24
"""Of the power iteration; what is printed has three digits."""


def carried(node: Any, wanted: list[bool]) -> list[Any]:
    """Return what each operand receives of the gradient that arrived at a tape node, as arrays; None where unknown."""
    engine = getattr(node, "node", None)
    nothing = [None] * len(node.inputs)
    if engine is None or engine.is_leaf or engine.freed:
        return nothing
    arrived = [t.grad for t in node.outputs] if node.outputs else [node.grad]
    gs = [g if g is None or isinstance(g, _core.TensorBase) else _core.tensor(g) for g in arrived]
    if all(g is None for g in gs):
        return nothing
    wanted = [yes and parent is not None for yes, parent in zip(wanted, engine.inputs, strict=True)]
    with _core.Recording(False):
        parts = engine.op.contributions(engine, gs, wanted)
    return [None if part is None else host(_core.data_of(part)) for part in parts]


def gain(node: Any, k: int) -> float | None:
    """Return ‖∂⁺‖, the largest factor by which operand k's edge can stretch a gradient, or a number's only factor.

    The operator norm of the local Jacobian: its only element (with its sign) where both ends hold one number, the
    largest |∂⁺| of an element-wise operation, the largest singular value of a matrix.
    """
    engine = getattr(node, "node", None)
    if engine is None or engine.is_leaf or engine.freed or engine.n_out > 1:
        return None
    wanted = [j == k for j in range(engine.n_in)]
    shape, source = tuple(node.shape), tuple(node.inputs[k].shape)
    data = _core.data_of(node.tensor) if node.tensor is not None else node.value
    if data is None:
        return None
    lane = array_lane(data)

    def pulled(g: Any) -> Any:
        part = engine.op.contributions(engine, [_core.tensor(g)], wanted)[k]
        return None if part is None else part

    with _core.Recording(False):
        ones = pulled(lane.xp.ones_like(data))
        if ones is None:
            return None
        one = _array(ones)
        if shape == source and getattr(engine.op, "kind", "") == "elementwise":
            return float(one.reshape(())) if one.size == 1 else float(np.abs(one).max(initial=0.0))
        if one.size == 1 and np.prod(shape) == 1:
            return float(one.reshape(()))
        return _largest(engine, k, pulled, lane, data)


def _largest(engine: Any, k: int, pulled: Any, lane: Any, data: Any) -> float | None:
    """Power iteration on J Jᵀ, from a start that is at no right angle to anything usual."""
    size = int(np.prod(data.shape, dtype=int))
    start = 1.0 + 0.5 * np.cos(np.arange(1, size + 1))
    g = lane.cast(lane.asarray(start.reshape(data.shape)), data.dtype)
    found = 0.0
    for _ in range(ROUNDS):
        length = float(np.linalg.norm(host(g).astype(np.float64)))
        if not length or not np.isfinite(length):
            return length
        back = pulled(lane.asarray(g / length))
        if back is None:
            return None
        found = float(np.linalg.norm(_array(back)))
        moved = engine.op.tangents(engine, [back if j == k else None for j in range(engine.n_in)])[0]
        if moved is None:
            return found
        g = _core.data_of(moved)
    return found


def _array(tensor: Any) -> Any:
    return host(_core.data_of(tensor)).astype(np.float64)
