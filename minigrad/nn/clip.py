"""Gradient clipping by norm and by value, in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .. import _core
from ..backend import array_lane, is_number, shared_lane
from ..errors import GraphError, UsageError
from ..ops.update import scaled_update
from ..tensor import Tensor, tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    """Return the arrays of the gradients that are there."""
    each = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(each, Iterable):
        raise UsageError(f"gradients are clipped of a tensor, or of several in a list, not of {type(each).__name__}")
    return [_core.data_of(p.grad) for p in each if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale gradients in place so that the norm of all of them together is at most `max_norm` (Pascanu et al. 2013).

    Args:
        parameters: one tensor or several; those without a gradient are left out.
        max_norm: the largest norm allowed.
        norm_type: p of the p-norm, positive, or infinity for the largest absolute value.
        error_if_nonfinite: whether a NaN or infinite norm is an error; otherwise it spoils the
            gradients, as in PyTorch.

    Returns:
        The norm before clipping, a scalar tensor in the gradients' dtype.

    Raises:
        UsageError: a negative `max_norm`, or a `norm_type` that is not positive. GraphError: a norm that is not finite,
            if asked for.
    """
    if not is_number(max_norm) or not max_norm >= 0:
        raise UsageError(f"clip_grad_norm_: max_norm={max_norm!r} is no bound; it must be a number, at least 0")
    if not is_number(norm_type) or not norm_type > 0:
        raise UsageError(f"clip_grad_norm_: norm_type={norm_type!r}; it must be positive, or infinity")
    gradients = _gradients(parameters)
    if not gradients:
        return tensor(0.0)
    total = norm_of(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(float(total)):
        raise GraphError(f"clip_grad_norm_: the norm of the gradients is {float(total)}; nothing was clipped")
    factor = clip_factor(total, max_norm)
    lane = array_lane(gradients[0])
    if not isinstance(factor, float) or factor != 1:
        with lane.together():
            for g in gradients:
                scaled_update((g,), (factor,))
                _core.mark_changed(g)
    return _core.tensor(lane.cast(total, gradients[0].dtype))


def clip_factor(total: Any, max_norm: float) -> Any:
    """Return what gradients of norm `total` are multiplied by to stay within `max_norm`: 1 where they do.

    A number, or an array without axes if `total` is one: on a GPU nobody waits for it.
    """
    # The small number is PyTorch's; an infinite norm makes the factor 0, a NaN one makes it NaN.
    factor = max_norm / (total + 1e-6)
    if isinstance(factor, float):
        return 1.0 if factor >= 1 else factor
    return array_lane(factor).xp.where(factor >= 1, 1.0, factor)


def norm_of(arrays: Sequence[Any], p: float = 2.0) -> Any:
    """Return the p-norm of all elements of several arrays together, a number or an array without axes.

    Raises:
        DeviceError: gradients on two devices.
    """
    lane = shared_lane("the norm of the gradients", arrays)
    return 0.0 if lane is None else lane.norm(arrays, p)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Hold every element of the gradients between ``-clip_value`` and ``clip_value``, in place.

    Raises:
        UsageError: a negative `clip_value`.
    """
    if not is_number(clip_value) or not clip_value >= 0:
        raise UsageError(f"clip_grad_value_: clip_value={clip_value!r} is no bound; it must be a number, at least 0")
    for g in _gradients(parameters):
        array_lane(g).xp.clip(g, -clip_value, clip_value, out=g)
        _core.mark_changed(g)
