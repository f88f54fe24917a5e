"""What an edge does to a gradient, in numbers: the size of its ∂⁺ and what it carries in the last backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import _core
from minigrad.backend import array_lane, host

__all__ = ["carried", "gain"]

ROUNDS = 24
"""Of the search for the largest singular value."""
SETTLED = 1e-5
"""It ends where a round changes less than this part; what is printed has three digits."""


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
    shape = tuple(node.shape)
    data = _core.data_of(node.tensor) if node.tensor is not None else node.value
    if data is None:
        return None
    lane = array_lane(data)

    def pulled(g: Any) -> Any:
        part = engine.op.contributions(engine, [_core.tensor(g)], wanted)[k]
        return None if part is None else _array(part)

    with _core.Recording(False):
        one = pulled(lane.xp.ones_like(data))
        if one is None:
            return None
        if shape == one.shape and getattr(engine.op, "kind", "") == "elementwise":
            return float(one.reshape(())) if one.size == 1 else float(np.abs(one).max(initial=0.0))
        if one.size == 1 and np.prod(shape) == 1:
            return float(one.reshape(()))

        def pushed(v: Any) -> Any:
            t = _core.tensor(lane.cast(lane.asarray(v), data.dtype))
            moved = engine.op.tangents(engine, [t if j == k else None for j in range(engine.n_in)])[0]
            return None if moved is None else _array(moved).reshape(-1)

        def back(u: Any) -> Any:
            return pulled(lane.cast(lane.asarray(u.reshape(data.shape)), data.dtype)).reshape(-1)

        return _largest(back, lambda v: pushed(v.reshape(one.shape)), math.prod(shape))


def _largest(back: Callable[[Any], Any], forward: Callable[[Any], Any], size: int) -> float:
    """Return the largest singular value by Golub's and Kahan's bidiagonalisation, with all vectors kept orthogonal.

    It starts from a vector that is at no right angle to anything usual and ends where another round changes nothing
    that is printed. After as many rounds as the smaller end has elements it is exact.

    Args:
        back, forward: the matrix, transposed and as it is, times a vector.
        size: of the vectors that `back` takes.
    """
    u = 1.0 + 0.5 * np.cos(np.arange(1, size + 1))
    lefts: list[Any] = [u / np.linalg.norm(u)]
    rights: list[Any] = []
    rows: list[list[float]] = []
    found = 0.0
    while len(rows) < ROUNDS:
        v = back(lefts[-1])
        if not np.isfinite(v).all():
            return math.nan
        rows.append([float(np.dot(right, v)) for right in rights])
        v, length = _apart(v, rights)
        rows[-1].append(length)
        matrix = np.array([row + [0.0] * (len(rows) - len(row)) for row in rows])
        before, found = found, float(np.linalg.norm(matrix, 2))
        if max(found - before, 0.0) <= SETTLED * found or length <= SETTLED * found:
            break
        rights.append(v)
        on = forward(v)
        if on is None:
            break
        on, length = _apart(on, lefts)
        if length <= SETTLED * found:
            break
        lefts.append(on)
    return found


def _apart(vector: Any, others: list[Any]) -> tuple[Any, float]:
    """Return the direction of what is at right angles to all others, and its length."""
    for _ in range(2):  # once is not enough where the numbers nearly cancel
        for other in others:
            vector = vector - np.dot(other, vector) * other
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector, length


def _array(tensor: Any) -> Any:
    return host(_core.data_of(tensor)).astype(np.float64)
