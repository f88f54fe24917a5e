"""The indexing page: taking elements out of arrays, and its transpose, adding them into zeros."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

from .._core import clean_index
from ..backend import as_index
from ..errors import DTypeError, ShapeError, UsageError
from ..op import IndexError_, lane_of, linear
from ._axes import as_shape, layer, one_axis, pytorch_words, shape_of


def _getitem(xp: Any, x: Any, index: Any) -> Any:
    lane = lane_of(x)
    return lane.take(x, as_index(lane, index))


def _put(xp: Any, x: Any, index: Any, shape: Any) -> Any:
    lane = lane_of(x)
    out, index = lane.zeros(as_shape(shape), x.dtype), as_index(lane, index)
    place = tuple(lane.take(out, index).shape)
    if place != tuple(x.shape):
        raise ShapeError(f"the index selects a part of shape {place}")
    return lane.index_add(out, index, x)


getitem = linear(
    "getitem(x; index)",
    value=_getitem,
    transpose_x="put(g, index, x_shape)",
    prepare=lambda operands, index: {"index": clean_index(index)},
    shapes="(…) -> as NumPy indexes",
    doc="x[index], with slices, integers, None, Ellipsis, and arrays of integers or booleans.",
)
put = linear(
    "put(x; index, shape)",
    value=_put,
    transpose_x="getitem(g, index)",
    prepare=lambda operands, index, shape: {"index": clean_index(index), "shape": shape},
    shapes="as NumPy indexes shape -> shape",
    doc="Zeros of `shape` with x added at [index], a place named twice gets both: the transpose of getitem.",
)


def _embedding(xp: Any, weight: Any, index: Any) -> Any:
    if lane_of(index).kind(index) != "i":
        raise DTypeError(f"the index has elements of type {index.dtype}; integers are needed")
    if not weight.shape:
        raise ShapeError("weight needs an axis to take rows from")
    rows, lane = weight.shape[0], lane_of(weight)
    if index.size:
        low, high = xp.min(index), xp.max(index)

        def outside() -> Exception:
            bad = int(low) if int(low) < 0 else int(high)
            return IndexError_(f"index {bad} is outside of the rows of weight, 0 to {rows - 1}")

        lane.demand((low < 0) | (high >= rows), outside)
    picked = xp.take(weight, xp.reshape(index, (-1,)), axis=0)
    return xp.reshape(picked, (*index.shape, *weight.shape[1:]))


embedding = linear(
    "embedding(weight, index)",
    value=_embedding,
    transpose_weight="put(g, index, weight_shape)",
    indices=("index",),
    shapes="(v, d), (…) -> (…, d)",
    doc="Rows of weight: weight[index] for integers 0 to rows - 1.",
)


@pytorch_words
def split(x: Any, size: int | list[int] | tuple[int, ...], axis: int = 0) -> tuple[Any, ...]:
    """Cut along an axis, into parts of one size (the last may be smaller) or of listed sizes, as PyTorch.

    Raises:
        UsageError: a size that is not positive, or sizes that do not add up to the length of the axis.
    """
    shape = shape_of(x)
    axis = one_axis(axis, len(shape))
    length = shape[axis]
    try:
        given = as_shape(size)
    except TypeError:
        raise UsageError(f"split: a size, or a list of sizes, not {size!r}") from None
    if isinstance(size, list | tuple):
        sizes = list(given)
        if sum(sizes) != length or any(part < 0 for part in sizes):
            raise UsageError(f"split: sizes {sizes} do not add up to {length}, the length of axis {axis}")
    else:
        (size,) = given
        if size < 1:
            raise UsageError(f"split: parts of size {size}")
        sizes = [min(size, length - start) for start in range(0, length, size)] or [0]
    parts, start = [], 0
    for part in sizes:
        parts.append(getitem(x, (slice(None),) * axis + (slice(start, start + part),)))
        start += part
    return tuple(parts)


@pytorch_words
def chunk(x: Any, n: int, axis: int = 0) -> tuple[Any, ...]:
    """Cut along an axis into at most n parts of equal size, the last may be smaller (PyTorch's chunk)."""
    if not isinstance(n, SupportsIndex) or operator.index(n) < 1:
        raise UsageError(f"chunk: {n!r} parts; their number is a positive integer")
    shape = shape_of(x)
    length = shape[one_axis(axis, len(shape))]
    return split(x, max(-(-length // n), 1), axis)


@pytorch_words
def unbind(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """Return the slices along an axis, without it."""
    shape = shape_of(x)
    axis = one_axis(axis, len(shape))
    return tuple(getitem(x, layer(k, axis)) for k in range(shape[axis]))


__all__ = ["chunk", "embedding", "getitem", "split", "unbind"]
