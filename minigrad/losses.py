"""Losses with checked arguments: squared errors and cross entropies of predictions and targets."""

from __future__ import annotations

from typing import Any

from . import ops
from ._core import data_of
from .errors import ShapeError, UsageError
from .op import PAGE, lane_of
from .ops.loss import as_array, known_reduction
from .tensor import as_tensor

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


def cross_entropy(x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Return the cross entropy of targets relative to ``softmax(x)``, its arguments as in PyTorch.

    Args:
        x: unnormalised log-probabilities: (C,), (N, C) or (N, C, d1, …), classes on axis 1.
        target: class numbers 0 to C - 1: integers of shape (), (N,) or (N, d1, …). Or the probabilities of
            the classes (a one-hot array is a special case): the shape of x.
        weight: one factor for each class, shape (C,); no gradient flows to it.
        ignore_index: a class number whose targets cost nothing and do not count.
        reduction: "mean" divides the sum by the weights of the targets that count (for probabilities by the
            number of predictions), "sum", or "none" for a loss of each. The mean of no target is NaN.

    Raises:
        ShapeError: a target or weight that does not fit x.
        IndexError: a class number outside of 0 to C - 1 that is not `ignore_index`.
        UsageError: an unknown reduction, a weight with a gradient, or `ignore_index` with probabilities.

    >>> import minigrad as mg
    >>> x = mg.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> round(mg.losses.cross_entropy(x, mg.tensor([0, 1])).item(), 4)
    0.6931
    """
    x, target = as_tensor(x), as_tensor(target)
    if getattr(weight, "requires_grad", False):
        raise UsageError("cross_entropy: no gradient flows to weight; pass weight.detach()")
    if target.shape != x.shape:
        if lane_of(data_of(target)).kind(data_of(target)) != "i":
            raise ShapeError(
                f"cross_entropy: target has shape {target.shape} and elements of type {target.dtype}; "
                f"it holds integers, the numbers of classes, or probabilities of the shape of x, {x.shape}"
            )
        return PAGE.cross_entropy(x, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
    if ignore_index != -100:
        raise UsageError("cross_entropy: ignore_index is a class number; it has no meaning for probabilities")
    if weight is not None:
        target = target * _per_class(x, weight)
    return PAGE.soft_cross_entropy(x, target, reduction=reduction)


def _per_class(x: Any, weight: Any) -> Any:
    """Return class weights as a tensor that broadcasts against x."""
    classes = x.shape[1 if len(x.shape) > 1 else 0 :]
    weight = ops.astype(as_array(weight), x.dtype)
    if weight.shape != classes[:1]:
        raise ShapeError(
            f"cross_entropy: weight has one number for each class of x {x.shape}, not shape {weight.shape}"
        )
    return ops.reshape(weight, (-1,) + (1,) * (len(classes) - 1))


def binary_cross_entropy_with_logits(x: Any, target: Any, reduction: str = "mean", pos_weight: Any = None) -> Any:
    """Return the cross entropy of ``sigmoid(x)`` for targets between 0 and 1, exact for x of any size.

    Args:
        x, target: tensors of one shape; targets are probabilities, or 0 and 1.
        reduction: "mean" or "sum" over all elements, or "none" for the loss of each.
        pos_weight: how many times a positive target weighs: a number, or an array that broadcasts to x.

    Raises:
        ShapeError: two shapes, or a `pos_weight` that does not broadcast.
        UsageError: an unknown reduction.

    >>> import minigrad as mg
    >>> x, target = mg.tensor([0.0, 100.0]), mg.tensor([1.0, 1.0])
    >>> round(mg.losses.binary_cross_entropy_with_logits(x, target).item(), 4)
    0.3466
    """
    x, target = as_tensor(x), as_tensor(target)
    name = "binary_cross_entropy_with_logits"
    known_reduction(name, reduction)
    if target.shape != x.shape:
        raise ShapeError(f"{name}: x {x.shape} and target {target.shape} must have one shape")
    losses = PAGE.bce_with_logits(x, target, 1.0 if pos_weight is None else pos_weight)
    if losses.shape != x.shape:
        raise ShapeError(f"{name}: pos_weight does not broadcast to the shape of x, {x.shape}")
    if reduction == "none":
        return losses
    return ops.mean(losses) if reduction == "mean" else ops.sum(losses)
