"""Shape arithmetic that the pages share: axes, lengths, and where the parts of a joined array lie."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core import data_of
from ..errors import ShapeError
from ..op import helper

Shape = tuple[int, ...]
Axis = int | Sequence[int] | None


def shape_of(x: Any) -> Shape:
    """Return the shape of a tensor, an array, a number or nested lists."""
    data = data_of(x)
    return tuple(data.shape) if hasattr(data, "shape") else np.shape(data)


def one_axis(axis: int, ndim: int) -> int:
    """Return an axis counted from the front.

    Raises:
        ShapeError: there is no such axis.
    """
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} of an array with {ndim} axes")
    return axis % ndim


def axes_of(axis: Axis, ndim: int) -> Shape:
    """Return axes counted from the front, in the given order; None means all of them.

    Raises:
        ShapeError: there is no such axis, or one is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(one_axis(a, ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"axis {axis} names one axis twice")
    return axes


def plain_axis(axis: Axis, ndim: int) -> int | Shape | None:
    """Return an axis argument of an array as array namespaces take it: a list becomes a tuple.

    Raises:
        ShapeError: an axis of an array that has none, which NumPy would let pass in some functions.
    """
    if not ndim:
        axes_of(() if axis is None else axis, 0)
    return tuple(axis) if isinstance(axis, list) else axis  # type: ignore[return-value]


def as_shape(shape: int | Sequence[int]) -> Shape:
    """Return a shape as a tuple of Python integers."""
    lengths = shape if isinstance(shape, tuple | list) else (shape,)
    return tuple(operator.index(length) for length in lengths)


def kept(shape: Shape, axis: Axis) -> Shape:
    """Return the shape after a reduction over `axis` that keeps axes of length 1."""
    gone = axes_of(axis, len(shape))
    return tuple(1 if d in gone else length for d, length in enumerate(shape))


@helper
def count(shape: Shape, axis: Axis) -> int:
    """Return how many elements a reduction over `axis` takes together."""
    return math.prod(shape[d] for d in axes_of(axis, len(shape)))


@helper
def inverse(axes: Sequence[int] | None) -> Shape | None:
    """Return the permutation that undoes `axes`; None, the reversal, undoes itself."""
    if axes is None:
        return None
    front = axes_of(axes, len(axes))
    return tuple(front.index(d) for d in range(len(front)))


@helper
def ndim(shape: Shape) -> int:
    """Return the number of axes."""
    return len(shape)


@helper
def slab(ends: Sequence[int], k: int, axis: int, ndim: int) -> tuple[slice, ...]:
    """Return the index of operand k inside a concatenation, from where each operand ends along the axis."""
    return (slice(None),) * one_axis(axis, ndim) + (slice(ends[k - 1] if k else 0, ends[k]),)


@helper
def layer(k: int, axis: int) -> tuple[Any, ...]:
    """Return the index of operand k inside a stack along `axis`."""
    whole = slice(None)
    return (whole,) * axis + (k,) if axis >= 0 else (Ellipsis, k) + (whole,) * (-axis - 1)


@helper
def inside(widths: Sequence[tuple[int, int]], shape: Shape) -> tuple[slice, ...]:
    """Return the index of an array of this shape inside its padded one."""
    return tuple(slice(before, before + length) for (before, _), length in zip(widths, shape, strict=True))


def pytorch_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a plain function take PyTorch's ``dim`` and ``keepdim`` beside NumPy's words, as records do."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for theirs, ours in (("dim", "axis"), ("keepdim", "keepdims")):
            if theirs in kwargs:
                kwargs[ours] = kwargs.pop(theirs)
        return function(*args, **kwargs)

    return call
