"""The reduction page: sums, means, extremes, products, norms and the softmax family, over any axes."""

from __future__ import annotations

import math
from typing import Any

from ..backend import is_number
from ..errors import UsageError
from ..op import general, helper, linear
from ._axes import Axis, as_shape, axes_of, count, inverse, kept, plain_axis, pytorch_words
from .elementwise import abs, where
from .linear import _astype, flip, pad, permute, reshape

# --- sums -------------------------------------------------------------------------------------------------------------

sum = linear(
    "sum(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.sum(x, axis=plain_axis(axis, len(x.shape)), keepdims=keepdims),
    transpose_x="spread(g, axis, keepdims, x_shape)",
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Sum over axes, by default all.",
)
spread = linear(
    "spread(x; axis, keepdims, shape)",
    value=lambda xp, x, axis, keepdims, shape: xp.broadcast_to(
        xp.reshape(x, kept(as_shape(shape), axis)), as_shape(shape)
    ),
    transpose_x="sum(g, axis=axis, keepdims=keepdims)",
    shapes="without axis -> shape",
    doc="Repeat over the axes that a sum took together, to the shape before it: the transpose of sum.",
)
mean = linear(
    "mean(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.mean(x, axis=plain_axis(axis, len(x.shape)), keepdims=keepdims),
    transpose_x="spread(g, axis, keepdims, x_shape) / count(x_shape, axis)",
    floats=True,
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Mean over axes, by default all.",
)


def _var(xp: Any, x: Any, axis: Axis, keepdims: bool, correction: float) -> Any:
    axis = plain_axis(axis, len(x.shape))
    away = x - xp.mean(x, axis=axis, keepdims=True)
    return xp.sum(away * away, axis=axis, keepdims=keepdims) / float(count(tuple(x.shape), axis) - correction)


var = general(
    "var(x; axis=None, keepdims=False, correction=0)",
    value=_var,
    vjp_x="2 * spread(g, axis, keepdims, x_shape) * (x - mean(x, axis=axis, keepdims=True))"
    " / (count(x_shape, axis) - correction)",
    jvp_x="2 * sum(t * (x - mean(x, axis=axis, keepdims=True)), axis=axis, keepdims=keepdims)"
    " / (count(x_shape, axis) - correction)",
    floats=True,
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Mean squared deviation from the mean over axes; the divisor is their number minus `correction`.",
)

# --- extremes ---------------------------------------------------------------------------------------------------------


@helper
def ties(x: Any, y: Any, axis: Axis, keepdims: bool) -> Any:
    """Return 1 where x is the extreme y of its group, divided by how many elements are: a constant."""
    same = _astype(x == spread(y, axis, keepdims, x.shape), dtype=x.dtype)
    return same / sum(same, axis=axis, keepdims=True)


def _extreme(name: str, doc: str) -> Any:
    return general(
        f"{name}(x; axis=None, keepdims=False)",
        value=lambda xp, x, axis, keepdims: getattr(xp, name)(
            x, axis=plain_axis(axis, len(x.shape)), keepdims=keepdims
        ),
        vjp_x="spread(g, axis, keepdims, x_shape) * ties(x, y, axis, keepdims)",
        jvp_x="sum(t * ties(x, y, axis, keepdims), axis=axis, keepdims=keepdims)",
        shapes="(…) -> (…) without axis; with keepdims 1 stays there",
        doc=doc,
    )


max = _extreme("max", "Largest element over axes; ties share the derivative equally.")
min = _extreme("min", "Smallest element over axes; ties share the derivative equally.")
argmax = general(
    "argmax(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.argmax(x, axis=axis, keepdims=keepdims),
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Position of the first largest element, along one axis or in the flattened array; no derivative.",
)
argmin = general(
    "argmin(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.argmin(x, axis=axis, keepdims=keepdims),
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Position of the first smallest element, along one axis or in the flattened array; no derivative.",
)

# --- products ---------------------------------------------------------------------------------------------------------


@helper
def others(x: Any, axis: Axis) -> Any:
    """Return, for each element, the product of all other elements of its group: exact where some are 0."""
    shape = tuple(x.shape)
    gone = axes_of(axis, len(shape))
    order = tuple(d for d in range(len(shape)) if d not in gone) + gone
    moved = permute(x, order)
    flat = reshape(moved, (math.prod(shape[d] for d in order if d not in gone), count(shape, gone)))
    out = _products_before(flat) * flip(_products_before(flip(flat, 1)), 1)
    return permute(reshape(out, tuple(moved.shape)), inverse(order))


def _products_before(x: Any) -> Any:
    """Return the product of all elements to the left in each row, by doubling: log2(n) recorded products."""
    n = x.shape[1]
    total, reach = _shifted(x, 1), 1
    while reach < n:
        total = total * _shifted(total, reach)
        reach *= 2
    return total


def _shifted(x: Any, by: int) -> Any:
    """Move each row to the right and fill up with ones."""
    n = x.shape[1]
    return x if n == 0 else pad(x[:, : n - by], ((0, 0), (by, 0)), 1)


prod = general(
    "prod(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.prod(x, axis=plain_axis(axis, len(x.shape)), keepdims=keepdims),
    vjp_x="spread(g, axis, keepdims, x_shape) * others(x, axis)",
    jvp_x="sum(t * others(x, axis), axis=axis, keepdims=keepdims)",
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Product over axes, by default all; derivatives are exact where elements are 0.",
)

# --- the softmax family -----------------------------------------------------------------------------------------------


def finite_max(xp: Any, x: Any, axis: Any) -> Any:
    """Return the largest element over `axis`, kept and held finite: what exponentials are relative to."""
    most = xp.finfo(x.dtype).max
    return xp.clip(xp.max(x, axis=axis, keepdims=True), -most, most)


def _logsumexp(xp: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    axis = axes_of(axis, len(x.shape))
    shape = kept(tuple(x.shape), axis)
    if count(tuple(x.shape), axis) == 0:
        out = xp.full(shape, -math.inf, dtype=x.dtype)
    else:
        most = finite_max(xp, x, axis)
        total = xp.sum(xp.exp(x - most), axis=axis, keepdims=True)
        # Nothing but -inf adds up to 0, whose logarithm is -inf as well, but with a warning.
        out = xp.where(total == 0, -math.inf, xp.log(xp.where(total == 0, 1, total)) + most)
    return out if keepdims else xp.squeeze(out, axis=axis)


def _softmax(xp: Any, x: Any, axis: Axis) -> Any:
    axis = axes_of(axis, len(x.shape))
    if count(tuple(x.shape), axis) == 0:
        return x
    weights = xp.exp(x - finite_max(xp, x, axis))
    return weights / xp.sum(weights, axis=axis, keepdims=True)


def _log_softmax(xp: Any, x: Any, axis: Axis) -> Any:
    axis = axes_of(axis, len(x.shape))
    if count(tuple(x.shape), axis) == 0:
        return x
    lowered = x - finite_max(xp, x, axis)
    return lowered - xp.log(xp.sum(xp.exp(lowered), axis=axis, keepdims=True))


logsumexp = general(
    "logsumexp(x; axis=None, keepdims=False)",
    value=_logsumexp,
    vjp_x="spread(g, axis, keepdims, x_shape) * softmax(x, axis=axis)",
    jvp_x="sum(t * softmax(x, axis=axis), axis=axis, keepdims=keepdims)",
    floats=True,
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="log(sum(exp(x))) over axes, without overflow.",
)
softmax = general(
    "softmax(x; axis=-1)",
    value=_softmax,
    vjp_x="y * (g - sum(g * y, axis=axis, keepdims=True))",
    jvp_x="y * (t - sum(t * y, axis=axis, keepdims=True))",
    floats=True,
    shapes="(…) -> (…)",
    doc="exp(x) / sum(exp(x)) over axes, without overflow; NaN for a row of -inf, and beside +inf.",
)
log_softmax = general(
    "log_softmax(x; axis=-1)",
    value=_log_softmax,
    vjp_x="g - exp(y) * sum(g, axis=axis, keepdims=True)",
    jvp_x="t - sum(t * exp(y), axis=axis, keepdims=True)",
    floats=True,
    shapes="(…) -> (…)",
    doc="Logarithm of softmax, without overflow.",
)

# --- norms ------------------------------------------------------------------------------------------------------------

_norm = general(
    "norm(x; axis=None, keepdims=False)",
    value=lambda xp, x, axis, keepdims: xp.sqrt(xp.sum(x * x, axis=plain_axis(axis, len(x.shape)), keepdims=keepdims)),
    vjp_x="x * spread(g / where(y == 0, 1, y), axis, keepdims, x_shape)",
    jvp_x="sum(x * t, axis=axis, keepdims=keepdims) / where(y == 0, 1, y)",
    floats=True,
    shapes="(…) -> (…) without axis; with keepdims 1 stays there",
    doc="Euclidean length over axes; derivative 0 at the zero vector.",
)


@pytorch_words
def norm(x: Any, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the p-norm of vectors, ``sum(abs(x) ** p) ** (1 / p)``; derivative 0 at the zero vector.

    Args:
        x: any shape; over two axes this is still a vector norm.
        ord: p > 0, or ``math.inf`` for the largest absolute value.
        axis, keepdims: the axes that a vector runs along, by default all; whether they stay, with length 1.

    Raises:
        UsageError: an `ord` that is not positive.
    """
    if not is_number(ord) or not ord > 0:
        raise UsageError(f"norm: ord={ord!r}; orders are positive numbers and infinity, and axes come as axis=")
    if ord == 2:
        return _norm(x, axis=axis, keepdims=keepdims)
    size = abs(x)
    if ord == 1:
        return sum(size, axis=axis, keepdims=keepdims)
    if ord == math.inf:
        return max(size, axis=axis, keepdims=keepdims)
    total = sum(size**ord, axis=axis, keepdims=keepdims)
    # The root has an infinite slope at 0: it is taken elsewhere, and its branch is not chosen there.
    empty = total == 0
    return where(empty, 0, where(empty, 1, total) ** (1 / ord))


__all__ = [
    "argmax",
    "argmin",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "softmax",
    "spread",
    "sum",
    "var",
]
