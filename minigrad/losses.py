"""Losses with checked arguments: squared errors, cross entropies, CTC, and losses of padded sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops
from ._core import data_of
from .backend import is_number
from .errors import DTypeError, ShapeError, UsageError
from .op import PAGE, lane_of
from .ops._lengths import as_lengths, within
from .ops.loss import as_array, class_axis, known_reduction, target_factors
from .tensor import as_tensor

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "ctc", "half_squared_error", "masked", "mse"]


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
    x: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Return the cross entropy of targets relative to ``softmax(x)``, its arguments as in PyTorch.

    Args:
        x: unnormalised log-probabilities: (C,), (N, C) or (N, C, d1, …), classes on axis 1.
        target: class numbers 0 to C - 1: integers of shape (), (N,) or (N, d1, …). Or the probabilities of
            the classes (a one-hot array is a special case): the shape of x.
        weight: one factor for each class, shape (C,); no gradient flows to it.
        ignore_index: a class number whose targets cost nothing and do not count.
        reduction: "mean" divides the sum by the weights of the targets that count (for probabilities by the
            number of predictions), "sum", or "none" for a loss of each. The mean of no target is NaN.
        label_smoothing: from 0 to 1, how much of each target's probability is spread evenly over all classes
            (Szegedy et al. 2016).

    Raises:
        ShapeError: a target or weight that does not fit x.
        IndexError: a class number outside of 0 to C - 1 that is not `ignore_index`.
        UsageError: an unknown reduction, a weight with a gradient, `ignore_index` with probabilities, or a
            `label_smoothing` outside of its range.

    >>> import minigrad as mg
    >>> x = mg.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> round(mg.losses.cross_entropy(x, mg.tensor([0, 1])).item(), 4)
    0.6931
    """
    x, target = as_tensor(x), as_tensor(target)
    if getattr(weight, "requires_grad", False):
        raise UsageError("cross_entropy: no gradient flows to weight; pass weight.detach()")
    if not is_number(label_smoothing) or not 0 <= label_smoothing <= 1:
        raise UsageError(f"cross_entropy: label_smoothing is a number from 0 to 1, not {label_smoothing!r}")
    if target.shape != x.shape:
        if lane_of(data_of(target)).kind(data_of(target)) != "i":
            raise ShapeError(
                f"cross_entropy: target has shape {target.shape} and elements of type {target.dtype}; "
                f"it holds integers, the numbers of classes, or probabilities of the shape of x, {x.shape}"
            )
        if weight is not None:
            weight = as_array(weight)
        chosen = PAGE.cross_entropy(x, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
        if not label_smoothing:
            return chosen
        even = _even(x, target, weight, ignore_index, reduction)
        return (1 - label_smoothing) * chosen + label_smoothing * even
    if ignore_index != -100:
        raise UsageError("cross_entropy: ignore_index is a class number; it has no meaning for probabilities")
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / x.shape[class_axis(x.shape)]
    if weight is not None:
        target = target * _per_class(x, weight)
    return PAGE.soft_cross_entropy(x, target, reduction=reduction)


def _even(x: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """Return the cross entropy of even probabilities, where targets count, in the reduction of the targets' own."""
    like, index = data_of(x), data_of(target)
    xp, axis = lane_of(like).xp, class_axis(x.shape)
    counts = xp.astype(xp.expand_dims(index != ignore_index, axis=axis), like.dtype)
    even = xp.broadcast_to(counts, like.shape) / like.shape[axis]
    if weight is not None:
        even = even * data_of(_per_class(x, weight))
    if reduction == "mean":
        total = xp.sum(target_factors(xp, like, index, weight, ignore_index))
        even = even / xp.where(total == 0, 1, total)
    return PAGE.soft_cross_entropy(x, even, reduction="none" if reduction == "none" else "sum")


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


def ctc(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """Return -log of the probability of label sequences, summed over all their alignments; arguments as in PyTorch.

    An alignment has one class for each frame; merging its repeats and then taking its blanks out leaves the
    target (Graves et al.: Connectionist temporal classification, ICML 2006).

    Args:
        log_probs: log-probabilities of the classes at each frame, the result of ``log_softmax``: (T, N, C), or
            (T, C) for one sequence.
        targets: class numbers without the blank: (N, S), of which whatever is beyond a target's length is
            ignored, or the targets one after the other, (sum of target_lengths,). For one sequence (S,).
        input_lengths: how many frames each sequence has: N integers from 0 to T.
        target_lengths: how many labels each target has: N integers.
        blank: the class of the blank.
        reduction: "mean" divides each loss by the length of its target (an empty one counts as 1) and takes the
            mean over the sequences; "sum"; or "none" for a loss of each, (N,), or () for one sequence.
        zero_infinity: whether a target that no alignment leaves (it is too long for its frames) costs 0, without
            gradient, instead of infinity with a gradient of NaN.

    The gradient is the derivative by `log_probs` itself: minus the probability of each class at each frame, given the
    target. PyTorch's already has ``exp(log_probs)`` added; a ``log_softmax`` before makes the two the same.

    Raises:
        ShapeError: shapes that do not fit together, or a length outside of its range.
        IndexError: a label or a blank that is no class.
        UsageError: an unknown reduction, or a label that is the blank.
        DTypeError: labels or lengths that are no integers.

    >>> import minigrad as mg
    >>> even = mg.log_softmax(mg.zeros(3, 1, 2))                  # 3 frames, 1 sequence, a blank and one label
    >>> loss = mg.losses.ctc(even, mg.tensor([[1]]), [3], [1])    # 6 of the 8 alignments leave the label once
    >>> round(mg.exp(-loss).item(), 4)
    0.75
    """
    known_reduction("ctc", reduction)
    log_probs, targets = as_tensor(log_probs), as_tensor(targets)
    single = len(log_probs.shape) == 2
    if single:
        log_probs = ops.expand_dims(log_probs, 1)
        targets = ops.expand_dims(targets, 0) if len(targets.shape) == 1 else targets
    if targets.size == 0:
        targets = ops.astype(targets, "int64")  # an empty list does not say what it holds
    if len(targets.shape) == 1 and len(log_probs.shape) == 3:
        targets, target_lengths = _side_by_side(targets, target_lengths, log_probs.shape[1])
    losses = PAGE.ctc(
        log_probs,
        targets,
        input_lengths=input_lengths,
        target_lengths=target_lengths,
        blank=blank,
        zero_infinity=zero_infinity,
    )
    if reduction == "sum":
        return ops.sum(losses)
    if reduction == "mean":
        lengths = as_lengths("ctc: target_lengths", target_lengths, losses.shape[0], targets.shape[1])
        lane = lane_of(data_of(losses))
        return ops.mean(losses / lane.asarray(np.maximum(lengths, 1).astype(losses.dtype)))
    return ops.reshape(losses, ()) if single else losses


def _side_by_side(targets: Any, target_lengths: Any, number: int) -> tuple[Any, tuple[int, ...]]:
    """Return targets that were given one after the other as the rows of an array, and their lengths."""
    total = targets.shape[0]
    lengths = as_lengths("ctc: target_lengths", target_lengths, number, total)
    if sum(lengths) != total:
        raise ShapeError(f"ctc: target_lengths add up to {sum(lengths)}; there are {total} labels one after the other")
    inside = within(lengths, max(lengths, default=0))
    place = np.zeros(inside.shape, dtype=np.int64)
    place[inside] = np.arange(total)
    return (ops.embedding(targets, place) if total else ops.reshape(targets, inside.shape)), lengths


def masked(
    loss: Callable[..., Any],
    x: Any,
    target: Any,
    mask: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    reduction: str = "mean",
    **options: Any,
) -> Any:
    """Return a loss of the elements that count: padding costs nothing and gets a gradient of 0, even where it is NaN.

    The loss never sees the padding, so a mean is over the elements that count.

    Args:
        loss: a function of (x, target) with the argument ``reduction``, such as :func:`mse` or
            :func:`cross_entropy`.
        x, target: what it takes, with the axes of `mask` in front: for :func:`cross_entropy` x is (T, N, C)
            and target (T, N).
        mask: True where an element counts: booleans of the shape of the first axes of x and target.
        lengths: in place of a mask, how many steps each of N sequences has; x and target are (T, N, …).
        batch_first: whether they are (N, T, …).
        reduction: "mean" or "sum" over what counts, or "none" for the loss of each element, 0 at padding.
        **options: more arguments of `loss`.

    Raises:
        UsageError: both a mask and lengths, or none of them, or the mean of nothing.
        ShapeError: a mask that does not fit x and target, or a length outside of its range.
        DTypeError: a mask that holds no booleans, or lengths that are no integers.

    >>> import minigrad as mg
    >>> x = mg.tensor([[1.0, 5.0], [2.0, float("nan")]], requires_grad=True)    # T = 2 steps of N = 2 sequences
    >>> loss = mg.losses.masked(mg.losses.mse, x, mg.zeros(2, 2), lengths=[2, 1])
    >>> loss.item()
    10.0
    >>> loss.backward()
    >>> (3 * x.grad).numpy().round(3).tolist()
    [[2.0, 10.0], [4.0, 0.0]]
    """
    known_reduction("masked", reduction)
    x, target = as_tensor(x), as_tensor(target)
    if (mask is None) == (lengths is None):
        raise UsageError("masked: give either mask or lengths")
    if mask is None:
        if len(x.shape) < 2:
            raise ShapeError(f"masked: lengths need x of shape (T, N, …), not {x.shape}; give a mask")
        number, steps = x.shape[:2] if batch_first else x.shape[1::-1]
        mask = within(as_lengths("masked: lengths", lengths, number, steps), steps)
        mask = mask if batch_first else mask.T
    mask = lane_of(data_of(x)).asarray(data_of(mask))
    if lane_of(mask).kind(mask) != "b":
        raise DTypeError(f"masked: a mask holds booleans, not elements of type {mask.dtype}")
    shape = tuple(mask.shape)
    if x.shape[: len(shape)] != shape or target.shape[: len(shape)] != shape:
        raise ShapeError(f"masked: mask {shape} has the first axes of x {x.shape} and target {target.shape}")
    if reduction == "mean" and not mask.any():
        raise UsageError("masked: the mask selects nothing, which has no mean")
    losses = loss(x[mask], target[mask], reduction=reduction, **options)
    if reduction != "none":
        return losses
    return ops.put(losses, index=mask, shape=shape + losses.shape[1:])
