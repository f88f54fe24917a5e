"""Losses with checked arguments: squared errors and cross entropies of predictions and targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from ._core import data_of
from .errors import ShapeError, UsageError
from .op import PAGE, lane_of

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "half_squared_error", "mse"]


def mse(x: Any, target: Any, reduction: str = "mean") -> Any:
    """Return the squared error ``(x - target) ** 2``.

    Args:
        x, target: tensors of one shape and one floating dtype.
        reduction: "mean" or "sum" over all elements, or "none" for the error of each.

    Raises:
        ShapeError: two shapes: nothing is broadcast.
        UsageError: an unknown reduction.

    >>> import minigrad as mg
    >>> mg.losses.mse(mg.tensor([1.0, 4.0]), mg.tensor([2.0, 2.0])).item()
    2.5
    """
    return PAGE.mse(x, target, reduction=reduction)


def half_squared_error(x: Any, target: Any) -> Any:
    """Return ``sum((x - target) ** 2) / 2``, whose derivative with respect to x is the error ``x - target``.

    Args:
        x, target: tensors of one shape and one floating dtype.

    Raises:
        ShapeError: two shapes: nothing is broadcast.

    >>> import minigrad as mg
    >>> mg.losses.half_squared_error(mg.tensor([1.0, 4.0]), mg.tensor([2.0, 2.0])).item()
    2.5
    """
    return PAGE.half_squared_error(x, target)


def cross_entropy(
    x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """Return the cross entropy of targets relative to ``softmax(x)``, with PyTorch's meaning of every argument.

    Args:
        x: unnormalised log-probabilities: (C,), (N, C) or (N, C, d1, …), classes on axis 1.
        target: class numbers 0 to C - 1: integers of shape (), (N,) or (N, d1, …). Or the probabilities of the classes (a one-hot
            array is a special case): the shape of x.
        weight: one factor for each class, shape (C,); no gradient flows to it.
        ignore_index: a class number whose targets cost nothing and do not count.
        reduction: "mean" divides the sum by the weights of the targets that count (by the number of predictions, for probabilities),
            "sum", or "none" for a loss of each prediction. The mean of no target is NaN.

    Raises:
        ShapeError: a target or weight that does not fit x.
        IndexError: a class number outside of 0 to C - 1 that is not `ignore_index`.
        UsageError: an unknown reduction, a weight that requires a gradient, or `ignore_index` with probabilities.

    >>> import minigrad as mg
    >>> x = mg.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> round(mg.losses.cross_entropy(x, mg.tensor([0, 1])).item(), 4)
    0.6931
    """
    if getattr(weight, "requires_grad", False):
        raise UsageError("cross_entropy: no gradient flows to weight; pass weight.detach()")
    goal = data_of(target)
    goal = goal if hasattr(goal, "shape") else np.asarray(goal)
    shape = tuple(data_of(x).shape) if hasattr(data_of(x), "shape") else np.shape(x)
    if tuple(goal.shape) != shape:
        if goal.dtype.kind not in "iu":
            raise ShapeError(
                f"cross_entropy: targets are class numbers, so integers, or probabilities of the shape of x, {shape}; "
                f"got elements of type {goal.dtype} and shape {tuple(goal.shape)}"
            )
        return PAGE.cross_entropy(x, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
    if ignore_index != -100:
        raise UsageError("cross_entropy: ignore_index is a class number; it has no meaning for probabilities")
    if weight is not None:
        target = target * _per_class(x, weight, shape)
    return PAGE.soft_cross_entropy(x, target, reduction=reduction)


def _per_class(x: Any, weight: Any, shape: tuple[int, ...]) -> Any:
    """Return class weights as an array that broadcasts against x."""
    axis = 1 if len(shape) > 1 else 0
    lane, like = lane_of(data_of(x)), data_of(x)
    array = lane.cast(lane.asarray(data_of(weight)), like.dtype)
    if not shape or tuple(array.shape) != (shape[axis],):
        raise ShapeError(
            f"cross_entropy: weight has one number for each class of x {shape}, not shape {tuple(array.shape)}"
        )
    return lane.xp.reshape(array, (-1,) + (1,) * (len(shape) - axis - 1))


def binary_cross_entropy_with_logits(
    x: Any, target: Any, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Return the cross entropy of ``sigmoid(x)`` for targets between 0 and 1, exact for x of any size.

    Args:
        x, target: tensors of one shape; targets are probabilities, or 0 and 1.
        reduction: "mean" or "sum" over all elements, or "none" for the loss of each.
        pos_weight: how many times a positive target weighs: a number, or an array that broadcasts to the shape of x.

    Raises:
        ShapeError: two shapes, or a `pos_weight` that does not broadcast.
        UsageError: an unknown reduction.

    >>> import minigrad as mg
    >>> round(mg.losses.binary_cross_entropy_with_logits(mg.tensor([0.0, 100.0]), mg.tensor([1.0, 1.0])).item(), 4)
    0.3466
    """
    if reduction not in ("none", "mean", "sum"):
        raise UsageError(
            f"binary_cross_entropy_with_logits: reduction is 'none', 'mean' or 'sum', not {reduction!r}"
        )
    shapes = [
        tuple(data.shape) if hasattr(data, "shape") else np.shape(data)
        for data in (data_of(x), data_of(target))
    ]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"binary_cross_entropy_with_logits: x {shapes[0]} and target {shapes[1]} must have one shape"
        )
    losses = PAGE.bce_with_logits(x, target, 1.0 if pos_weight is None else pos_weight)
    if tuple(losses.shape) != shapes[0]:
        raise ShapeError(
            f"binary_cross_entropy_with_logits: pos_weight does not broadcast to the shape of x, {shapes[0]}"
        )
    if reduction == "none":
        return losses
    return ops.mean(losses) if reduction == "mean" else ops.sum(losses)
