"""The loss page: squared errors and cross entropies, one record each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import data_of, tensor
from ..errors import ShapeError, UsageError
from ..op import IndexError_, elementwise, general, helper, lane_of
from ._axes import Shape
from .linear import expand_dims
from .reduce import finite_max

REDUCTIONS = ("none", "mean", "sum")


def known_reduction(name: str, reduction: str) -> str:
    """Return a reduction.

    Raises:
        UsageError: it is none of "none", "mean", "sum".
    """
    if reduction not in REDUCTIONS:
        raise UsageError(f"{name}: reduction is 'none', 'mean' or 'sum', not {reduction!r}")
    return reduction


def _reduce(xp: Any, losses: Any, reduction: str, number: int) -> Any:
    if reduction == "none":
        return losses
    return xp.sum(losses) / number


def _same_shape(x: Any, target: Any) -> None:
    if tuple(x.shape) != tuple(target.shape):
        raise ShapeError("x and target must have one shape: a loss does not broadcast")


def as_array(weight: Any) -> Any:
    """Return class weights as an array; a plain list keeps double precision until it is cast to x's dtype.

    Raises:
        UsageError: something that is no list of numbers.
    """
    weight = data_of(weight)
    try:
        return weight if hasattr(weight, "shape") else np.asarray(weight, dtype=np.float64)
    except (ValueError, TypeError):
        raise UsageError(f"weight holds one number for each class, not {weight!r}") from None


# --- squared errors ---------------------------------------------------------------------------------------------------


@helper
def over(reduction: str) -> tuple[int, ...] | None:
    """Return the axes that a reduction sums."""
    return () if reduction == "none" else None


@helper
def share(shape: Shape, reduction: str) -> int:
    """Return how many elements a reduction divides its sum by."""
    return math.prod(shape) if reduction == "mean" else 1


def _mse(xp: Any, x: Any, target: Any, reduction: str) -> Any:
    _same_shape(x, target)
    away = x - target
    return _reduce(xp, away * away, reduction, share(tuple(x.shape), reduction))


def _half_squared_error(xp: Any, x: Any, target: Any) -> Any:
    _same_shape(x, target)
    away = x - target
    return 0.5 * xp.sum(away * away)


mse = general(
    'mse(x, target; reduction="mean")',
    value=_mse,
    vjp_x="2 * g * (x - target) / share(x_shape, reduction)",
    vjp_target="2 * g * (target - x) / share(x_shape, reduction)",
    jvp_x="2 * sum(t * (x - target), axis=over(reduction)) / share(x_shape, reduction)",
    jvp_target="2 * sum(t * (target - x), axis=over(reduction)) / share(x_shape, reduction)",
    prepare=lambda operands, reduction: {"reduction": known_reduction("mse", reduction)},
    floats=True,
    shapes="(…), (…) -> (); (…) unreduced",
    doc="Squared error, averaged, summed, or for each element.",
)
half_squared_error = general(
    "half_squared_error(x, target)",
    value=_half_squared_error,
    vjp_x="g * (x - target)",
    vjp_target="g * (target - x)",
    jvp_x="sum(t * (x - target))",
    jvp_target="sum(t * (target - x))",
    floats=True,
    shapes="(…), (…) -> ()",
    doc="Half the sum of squared errors, whose derivative is the error itself.",
)

# --- cross entropy ----------------------------------------------------------------------------------------------------


@helper
def class_axis(shape: Shape) -> int:
    """Return the axis of the classes: the second one, or the only one."""
    return 1 if len(shape) > 1 else 0


@helper
def loss_axes(shape: Shape, reduction: str) -> int | None:
    """Return the axes that a cross entropy sums: the classes, or all."""
    return class_axis(shape) if reduction == "none" else None


@helper
def lift(g: Any, shape: Shape, reduction: str) -> Any:
    """Give the cotangent of unreduced losses an axis for the classes."""
    return expand_dims(g, class_axis(shape)) if reduction == "none" else g


@helper
def items(shape: Shape, reduction: str) -> int:
    """Return how many predictions a mean of cross entropies is over."""
    axis = class_axis(shape)
    return math.prod(shape[:axis] + shape[axis + 1 :]) if reduction == "mean" else 1


@helper
def one_hot(target: Any, x: Any) -> Any:
    """Return 1 at each target's class and 0 elsewhere, like x: a constant."""
    like, index = data_of(x), data_of(target)
    xp, axis = lane_of(like).xp, class_axis(like.shape)
    line = [1] * len(like.shape)
    line[axis] = like.shape[axis]
    classes = xp.reshape(xp.arange(like.shape[axis], dtype=index.dtype), tuple(line))
    return tensor(xp.astype(xp.expand_dims(index, axis=axis) == classes, like.dtype))


@helper
def target_weights(target: Any, x: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """Return the factor of each target's loss in the result, with an axis for the classes: a constant."""
    like, index = data_of(x), data_of(target)
    xp = lane_of(like).xp
    factors = target_factors(xp, like, index, weight, ignore_index)
    if reduction == "mean":
        total = xp.sum(factors)
        factors = factors / xp.where(total == 0, 1, total)
    return tensor(xp.expand_dims(factors, axis=class_axis(like.shape)))


def target_factors(xp: Any, x: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """Return the weight of each target's class, 0 where the target is to be ignored."""
    keep = target != ignore_index
    if weight is None:
        return xp.astype(keep, x.dtype)
    index = xp.where(keep, target, xp.zeros_like(target))
    weight = xp.astype(lane_of(x).asarray(weight), x.dtype)
    factors = xp.reshape(xp.take(weight, xp.reshape(index, (-1,)), axis=0), target.shape)
    return xp.where(keep, factors, xp.zeros_like(factors))


def _check_classes(xp: Any, x: Any, target: Any, weight: Any, ignore_index: int) -> None:
    shape = tuple(x.shape)
    if not shape:
        raise ShapeError("x needs an axis of classes")
    axis = class_axis(shape)
    classes = shape[axis]
    wanted = shape[:axis] + shape[axis + 1 :]
    if tuple(target.shape) != wanted:
        raise ShapeError(f"targets of class numbers have the shape of x without its axis {axis}, the classes: {wanted}")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"weight has one number for each of the {classes} classes, not shape {tuple(weight.shape)}")
    outside = ((target < 0) | (target >= classes)) & (target != ignore_index)

    def stranger() -> Exception:
        worst = int(xp.max(xp.where(outside, target, xp.full_like(target, xp.iinfo(target.dtype).min))))
        return IndexError_(f"target {worst} is none of the classes 0 to {classes - 1}, nor ignore_index={ignore_index}")

    lane_of(x).demand(xp.any(outside), stranger)


def _cross_entropy(xp: Any, x: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    _check_classes(xp, x, target, weight, ignore_index)
    axis = class_axis(x.shape)
    keep = target != ignore_index
    index = xp.expand_dims(xp.where(keep, target, xp.zeros_like(target)), axis=axis)
    lowered = x - finite_max(xp, x, axis)
    chosen = xp.squeeze(xp.take_along_axis(lowered, index, axis=axis), axis=axis)
    losses = xp.log(xp.sum(xp.exp(lowered), axis=axis)) - chosen
    factors = target_factors(xp, x, target, weight, ignore_index)
    losses = xp.where(keep, losses * factors, xp.zeros_like(losses))
    if reduction == "none":
        return losses
    total = xp.sum(losses)
    if reduction == "sum":
        return total
    number = xp.sum(factors)
    none = number == 0
    return xp.where(none, math.nan, total / xp.where(none, 1, number))


def _class_weights(operands: tuple[Any, ...], weight: Any, ignore_index: int, reduction: str) -> dict[str, Any]:
    known_reduction("cross_entropy", reduction)
    weight = None if weight is None else as_array(weight)
    return {"weight": weight, "ignore_index": ignore_index, "reduction": reduction}


cross_entropy = general(
    'cross_entropy(x, target; weight=None, ignore_index=-100, reduction="mean")',
    value=_cross_entropy,
    vjp_x="lift(g, x_shape, reduction) * target_weights(target, x, weight, ignore_index, reduction)"
    " * (softmax(x, axis=class_axis(x_shape)) - one_hot(target, x))",
    jvp_x="sum(t * target_weights(target, x, weight, ignore_index, reduction)"
    " * (softmax(x, axis=class_axis(x_shape)) - one_hot(target, x)), axis=loss_axes(x_shape, reduction))",
    indices=("target",),
    prepare=_class_weights,
    says={"x": "g * (softmax(x) - one_hot(target)) / N"},
    floats=True,
    shapes="(n, c, …), (n, …) -> (); (n, …) unreduced",
    doc="-log_softmax(x)[target] for class numbers, classes on axis 1; a mean is weighted by class weights. "
    "N: what the mean divides by, over the weight of the item's class; 1 in a sum.",
)


def _soft_cross_entropy(xp: Any, x: Any, target: Any, reduction: str) -> Any:
    _same_shape(x, target)
    if not x.shape:
        raise ShapeError("x needs an axis of classes")
    axis = class_axis(x.shape)
    lowered = x - finite_max(xp, x, axis)
    logs = lowered - xp.log(xp.sum(xp.exp(lowered), axis=axis, keepdims=True))
    # An impossible class that nobody expects costs nothing, as 0 log 0 = 0.
    parts = target * xp.where(target == 0, xp.zeros_like(logs), logs)
    return _reduce(xp, -xp.sum(parts, axis=axis), reduction, items(tuple(x.shape), reduction))


soft_cross_entropy = general(
    'soft_cross_entropy(x, target; reduction="mean")',
    value=_soft_cross_entropy,
    vjp_x="lift(g, x_shape, reduction) * (softmax(x, axis=class_axis(x_shape))"
    " * sum(target, axis=class_axis(x_shape), keepdims=True) - target) / items(x_shape, reduction)",
    vjp_target="-lift(g, x_shape, reduction) * log_softmax(x, axis=class_axis(x_shape)) / items(x_shape, reduction)",
    jvp_x="sum(t * (softmax(x, axis=class_axis(x_shape))"
    " * sum(target, axis=class_axis(x_shape), keepdims=True) - target),"
    " axis=loss_axes(x_shape, reduction)) / items(x_shape, reduction)",
    jvp_target="-sum(t * log_softmax(x, axis=class_axis(x_shape)), axis=loss_axes(x_shape, reduction))"
    " / items(x_shape, reduction)",
    prepare=lambda operands, reduction: {"reduction": known_reduction("soft_cross_entropy", reduction)},
    floats=True,
    shapes="(n, c, …), (n, c, …) -> (); (n, …) unreduced",
    doc="-sum(target * log_softmax(x)) over the classes, for targets that are probabilities or one-hot.",
)

# softplus(-x) = -log sigmoid(x): no term overflows, and none cancels another.
bce_with_logits = elementwise(
    "bce_with_logits(x, target, pos_weight)",
    value="pos_weight * target * softplus(-x) + (1 - target) * softplus(x)",
    d_x="(1 - target) * sigmoid(x) - pos_weight * target * sigmoid(-x)",
    d_target="pos_weight * softplus(-x) - softplus(x)",
    d_pos_weight="target * softplus(-x)",
    domain={"target": (0.1, 0.9), "pos_weight": (0.5, 2.0)},
    floats=True,
    doc="-log of the probability that sigmoid(x) gives to target; where it is 1 it weighs pos_weight times.",
)

__all__ = ["bce_with_logits", "cross_entropy", "half_squared_error", "mse", "soft_cross_entropy"]
