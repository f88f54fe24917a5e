"""The linear page: products, shapes and joins, each with its transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from .._core import data_of
from ..backend import array_lane, as_dtype, lane_for_device
from ..errors import DTypeError, ShapeError, UsageError
from ..op import general, helper, lane_of, linear
from ._axes import Shape, as_shape, axes_of, one_axis, plain_axis, shape_of

# --- shapes -----------------------------------------------------------------------------------------------------------


def _reshape(xp: Any, x: Any, shape: Any) -> Any:
    return xp.reshape(x, as_shape(shape))


def _squeeze(xp: Any, x: Any, axis: Any) -> Any:
    ones = [d for d, length in enumerate(x.shape) if length == 1]
    gone = ones if axis is None else axes_of(axis, len(x.shape))
    for d in gone:
        if x.shape[d] != 1:
            raise ShapeError(f"axis {d} has length {x.shape[d]}; only axes of length 1 can be dropped")
    return xp.reshape(x, tuple(length for d, length in enumerate(x.shape) if d not in gone))


def _expand_dims(xp: Any, x: Any, axis: Any) -> Any:
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    ndim = len(x.shape) + len(axes)
    new, lengths = axes_of(axes, ndim), iter(x.shape)
    return xp.reshape(x, tuple(1 if d in new else next(lengths) for d in range(ndim)))


def _sum_to(xp: Any, x: Any, shape: Any) -> Any:
    shape = as_shape(shape)
    if shape == tuple(x.shape):
        return x
    extra = len(x.shape) - len(shape)
    pairs = list(enumerate(zip(x.shape[extra:], shape, strict=True), extra)) if extra >= 0 else []
    if extra < 0 or any(wanted not in (1, length) for _, (length, wanted) in pairs):
        raise ShapeError(f"an array of shape {shape} does not broadcast to {tuple(x.shape)}")
    gone = tuple(range(extra)) + tuple(d for d, (length, wanted) in pairs if wanted != length)
    return xp.reshape(xp.sum(x, axis=gone, dtype=x.dtype), shape)


def _permute(xp: Any, x: Any, axes: Any) -> Any:
    ndim = len(x.shape)
    order = tuple(reversed(range(ndim))) if axes is None else axes_of(axes, ndim)
    if len(order) != ndim:
        raise ShapeError(f"axes {tuple(axes)} do not name each of the {ndim} axes once")
    return xp.permute_dims(x, order)


reshape = linear(
    "reshape(x; shape)",
    value=_reshape,
    transpose_x="reshape(g, x_shape)",
    shapes="(…) -> shape",
    doc="Same elements, other shape; one length may be -1.",
)
squeeze = linear(
    "squeeze(x; axis=None)",
    value=_squeeze,
    transpose_x="reshape(g, x_shape)",
    shapes="(…) -> (…) without axis",
    doc="Drop axes of length 1: all, or the named ones.",
)
expand_dims = linear(
    "expand_dims(x; axis)",
    value=_expand_dims,
    transpose_x="reshape(g, x_shape)",
    shapes="(…) -> (…) with 1 at axis",
    doc="Insert axes of length 1.",
)
broadcast_to = linear(
    "broadcast_to(x; shape)",
    value=lambda xp, x, shape: xp.broadcast_to(x, as_shape(shape)),
    transpose_x="sum_to(g, x_shape)",
    shapes="(…) -> shape",
    doc="Repeat along axes of length 1 and new leading axes, without a copy.",
)
sum_to = linear(
    "sum_to(x; shape)",
    value=_sum_to,
    transpose_x="broadcast_to(g, x_shape)",
    shapes="(…) -> shape",
    doc="Sum over the axes that broadcasting from `shape` repeats: the transpose of broadcast_to.",
)
permute = linear(
    "permute(x; axes=None)",
    value=_permute,
    transpose_x="permute(g, inverse(axes))",
    numpy="transpose",
    shapes="(…) -> (…) in the order of axes",
    doc="Reorder the axes; reverse them by default.",
)
mT = linear(  # noqa: N816
    "mT(x)",
    value=lambda xp, x: xp.matrix_transpose(x),
    transpose_x="mT(g)",
    numpy="matrix_transpose",
    shapes="(…, m, n) -> (…, n, m)",
    doc="Swap the last two axes.",
)
flip = linear(
    "flip(x; axis=None)",
    value=lambda xp, x, axis: xp.flip(x, axis=plain_axis(axis, len(x.shape))),
    transpose_x="flip(g, axis)",
    shapes="(…) -> (…)",
    doc="Reverse the order along axes, by default all.",
)
cumsum = linear(
    "cumsum(x; axis)",
    value=lambda xp, x, axis: xp.cumulative_sum(x, axis=one_axis(axis, len(x.shape))),
    transpose_x="flip(cumsum(flip(g, axis), axis), axis)",
    shapes="(…) -> (…)",
    doc="Running sum along one axis.",
)


# --- products ---------------------------------------------------------------------------------------------------------


@helper
def rows(x: Any) -> Any:
    """View an array as a matrix whose rows run along the last axis."""
    shape = tuple(x.shape)
    return x if len(shape) == 2 else reshape(x, (math.prod(shape[:-1]), shape[-1]))


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    if not a.shape or not b.shape:
        raise ShapeError("a scalar has no rows or columns; multiply it with *")
    place = -2 if len(b.shape) > 1 else -1
    if a.shape[-1] != b.shape[place]:
        raise ShapeError(
            f"axis -1 of a has length {a.shape[-1]}, axis {place} of b {b.shape[place]}: they must be equal"
        )
    return xp.matmul(a, b)


# A vector on the left is a matrix of one row, on the right of one column; g gets the axis that was dropped.


def _matmul_a(g: Any, b: Any, a_shape: Shape) -> Any:
    if len(b.shape) == 1:
        b, g = expand_dims(b, -1), expand_dims(g, -1)
    if len(a_shape) == 1:
        part = expand_dims(g, -2) @ mT(b)
        return reshape(sum_to(part, (1, *a_shape)), a_shape)
    return sum_to(g @ mT(b), a_shape) if len(b.shape) > 2 else g @ mT(b)


def _matmul_b(g: Any, a: Any, b_shape: Shape) -> Any:
    if len(b_shape) == 1:
        g = expand_dims(g, -1)
    if len(a.shape) == 1:
        a, g = expand_dims(a, -2), expand_dims(g, -2)
    if len(b_shape) > 2:
        return sum_to(mT(a) @ g, b_shape)
    # One product over all rows of the batch, instead of a product for each matrix and a sum.
    part = mT(rows(a)) @ rows(g)
    return part if len(b_shape) == 2 else reshape(part, b_shape)


matmul = linear(
    "matmul(a, b)",
    value=_matmul,
    transpose_a=_matmul_a,
    transpose_b=_matmul_b,
    says={"a": "g @ mT(b)", "b": "mT(a) @ g"},
    shapes="(…, n, k), (…, k, m) -> (…, n, m); leading axes broadcast, a vector has no n or no m",
    doc="Matrix product with NumPy's rules for vectors and batches.",
)


def _affine(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    if len(weight.shape) != 2 or tuple(bias.shape) != (weight.shape[0],):
        raise ShapeError("weight has shape (outputs, inputs) and bias (outputs,)")
    if not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"the last axis of x must have the length of axis 1 of weight, {weight.shape[1]}")
    return xp.matmul(x, xp.matrix_transpose(weight)) + bias


affine = general(
    "affine(x, weight, bias)",
    value=_affine,
    vjp_x="g @ weight",
    vjp_weight="mT(rows(g)) @ rows(x)",
    vjp_bias="sum_to(g, bias_shape)",
    jvp_x="t @ mT(weight)",
    jvp_weight="x @ mT(t)",
    jvp_bias="broadcast_to(t, y_shape)",
    says={"y": "x @ mT(weight) + bias"},
    shapes="(…, i), (o, i), (o) -> (…, o)",
    doc="x @ mT(weight) + bias: the linear layer, for x of any leading shape.",
)


@cache
def _terms(subscripts: str, ranks: tuple[int, ...]) -> tuple[tuple[str, ...], str]:
    """Split einsum's subscripts into the labels of each operand and of the result, ellipses spelled out."""
    text = "".join(subscripts.split())
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise UsageError(f"{subscripts!r} has {len(terms)} terms for {len(ranks)} operands")
    fresh = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in text]
    wide = 0
    for k, rank in enumerate(ranks):
        if "..." in terms[k]:
            rest = rank - len(terms[k]) + 3
            if not 0 <= rest <= len(fresh):
                raise ShapeError(f"term {terms[k]!r} of {subscripts!r} does not fit an operand with {rank} axes")
            terms[k] = terms[k].replace("...", "".join(reversed(fresh[:rest])))
            wide = max(wide, rest)
        if not terms[k].isascii() or not (terms[k].isalpha() or not terms[k]):
            raise UsageError(f"{subscripts!r}: labels are the letters a-z and A-Z")
        if len(terms[k]) != rank:
            raise ShapeError(f"term {terms[k]!r} of {subscripts!r} does not fit an operand with {rank} axes")
        if len(set(terms[k])) < rank:
            raise UsageError(f"term {terms[k]!r} of {subscripts!r} repeats a label; diagonals are not supported")
    batch, used = "".join(reversed(fresh[:wide])), "".join(terms)
    if not arrow:
        out = batch + "".join(sorted(c for c in set(used) if used.count(c) == 1 and c not in batch))
    out = out.replace("...", batch)
    if len(set(out)) < len(out) or not set(out) <= set(used):
        raise UsageError(f"{subscripts!r}: each label of the result occurs in it once, and in an operand")
    return tuple(terms), out


def _ordered(xp: Any, x: Any, labels: str, wanted: str) -> Any:
    """Sum over the labels that are not wanted, and bring the others into the wanted order."""
    gone = tuple(d for d, label in enumerate(labels) if label not in wanted)
    if gone:
        x = xp.sum(x, axis=gone, dtype=x.dtype)
        labels = "".join(label for label in labels if label in wanted)
    return x if labels == wanted else xp.permute_dims(x, tuple(labels.index(label) for label in wanted))


def _contract(xp: Any, a: Any, of_a: str, b: Any, of_b: str, later: str, size: dict[str, int]) -> tuple[Any, str]:
    """Multiply two operands and sum over what is not needed later, as one batched matrix product."""

    def block(labels: str) -> int:
        return math.prod(size[label] for label in labels)

    batch = "".join(c for c in of_a if c in of_b and c in later)
    inner = "".join(c for c in of_a if c in of_b and c not in later)
    left = "".join(c for c in of_a if c not in of_b and c in later)
    right = "".join(c for c in of_b if c not in of_a and c in later)
    a = xp.reshape(_ordered(xp, a, of_a, batch + left + inner), (block(batch), block(left), block(inner)))
    b = xp.reshape(_ordered(xp, b, of_b, batch + inner + right), (block(batch), block(inner), block(right)))
    out = xp.matmul(a, b) if inner else a * b
    labels = batch + left + right
    return xp.reshape(out, tuple(size[label] for label in labels)), labels


def _einsum(xp: Any, *xs: Any, subscripts: str) -> Any:
    terms, wanted = _terms(subscripts, tuple(len(x.shape) for x in xs))
    size: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for label, length in zip(term, x.shape, strict=True):
            if size.setdefault(label, length) != length:
                raise ShapeError(f"label {label!r} of {subscripts!r} has length {size[label]} and {length}")
    total, labels = xs[0], terms[0]
    for k in range(1, len(xs)):
        later = wanted + "".join(terms[k + 1 :])
        total, labels = _contract(xp, total, labels, xs[k], terms[k], later, size)
    return _ordered(xp, total, labels, wanted)


@helper
def contract_others(g: Any, xs: Sequence[Any], k: int, subscripts: str) -> Any:
    """Contract the cotangent of an einsum with all operands but the k-th: its transpose."""
    terms, wanted = _terms(subscripts, tuple(len(x.shape) for x in xs))
    others = [j for j in range(len(xs)) if j != k]
    known = set(wanted).union(*(terms[j] for j in others))
    mine = "".join(label for label in terms[k] if label in known)
    ins = ",".join([wanted, *(terms[j] for j in others)])
    part = _einsum_record(g, *(xs[j] for j in others), subscripts=f"{ins}->{mine}")
    if mine == terms[k]:
        return part
    # A label of this operand alone was summed over: its cotangent does not depend on it.
    thin = tuple(n if label in known else 1 for label, n in zip(terms[k], xs[k].shape, strict=True))
    return broadcast_to(reshape(part, thin), tuple(xs[k].shape))


_einsum_record = linear(
    "einsum(*xs; subscripts)",
    value=_einsum,
    transpose_xs="contract_others(g, xs, k, subscripts)",
    shapes="as the subscripts say",
    doc="Products summed over the labels that the result lacks; no operand repeats a label.",
)


def einsum(subscripts: str, *xs: Any) -> Any:
    """Multiply operands and sum over labels, in NumPy's notation: ``einsum("ij,jk->ik", a, b)``.

    Args:
        subscripts: one letter an axis, one term an operand; without ``->`` the result has the labels that
            occur once, sorted. ``...`` stands for axes of equal lengths in all operands that have it.
        xs: operands of one floating dtype.

    Raises:
        UsageError: subscripts that cannot be read, or a label twice in one term (a diagonal).
        ShapeError: one label with two lengths.
    """
    if not isinstance(subscripts, str):
        raise UsageError('einsum takes the subscripts first: einsum("ij,jk->ik", a, b)')
    return _einsum_record(*xs, subscripts=subscripts)


# --- joins and margins ------------------------------------------------------------------------------------------------


def _with_shapes(operands: tuple[Any, ...], axis: int) -> dict[str, Any]:
    if axis is None:
        raise UsageError("axis=None is not supported: flatten the tensors, then join them")
    return {"axis": axis, "shapes": tuple(shape_of(x) for x in operands)}


def _with_ends(operands: tuple[Any, ...], axis: int) -> dict[str, Any]:
    params = _with_shapes(operands, axis)
    lengths = [shape[axis] if -len(shape) <= axis < len(shape) else 0 for shape in params["shapes"]]
    return {**params, "ends": tuple(accumulate(lengths))}


concatenate = linear(
    "concatenate(*xs; axis=0)",
    value=lambda xp, *xs, axis, shapes, ends: xp.concat(xs, axis=axis),
    transpose_xs="getitem(g, slab(ends, k, axis, ndim(y_shape)))",
    joint=True,
    prepare=_with_ends,
    adds=("shapes", "ends"),
    shapes="(…), (…), … -> joined along axis",
    doc="Join along an axis.",
)
stack = linear(
    "stack(*xs; axis=0)",
    value=lambda xp, *xs, axis, shapes: xp.stack(xs, axis=axis),
    transpose_xs="getitem(g, layer(k, axis))",
    joint=True,
    prepare=_with_shapes,
    adds=("shapes",),
    shapes="(…), (…), … -> their number at axis",
    doc="Join along a new axis.",
)


def _widths(operands: tuple[Any, ...], widths: Any, value: float) -> dict[str, Any]:
    ndim = len(shape_of(operands[0]))
    given = np.asarray(widths)
    if given.dtype.kind not in "iu" or given.ndim > 2 or given.size == 0 or given.min() < 0:
        raise UsageError(
            f"pad: widths are integers >= 0, (before, after), or one such pair for each axis; got {widths!r}"
        )
    try:
        pairs = np.broadcast_to(given, (ndim, 2))
    except ValueError:
        raise ShapeError(f"pad: widths {widths!r} do not fit an array with {ndim} axes") from None
    return {"widths": tuple((int(before), int(after)) for before, after in pairs), "value": value}


def _pad(xp: Any, x: Any, widths: tuple[tuple[int, int], ...], value: float) -> Any:
    if lane_of(x).kind(x) != "f" and value % 1 != 0:  # neither do infinities fit
        raise DTypeError(f"an array of {x.dtype} cannot hold the value {value}")
    shape = tuple(before + n + after for n, (before, after) in zip(x.shape, widths, strict=True))
    out = xp.full(shape, value, dtype=x.dtype)
    out[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
    return out


pad = general(
    "pad(x; widths, value=0.0)",
    value=_pad,
    vjp_x="getitem(g, inside(widths, x_shape))",
    jvp_x="pad(t, widths)",
    prepare=_widths,
    shapes="(…) -> (…) longer by widths",
    doc="Surround with a constant; widths as NumPy takes them: n, (before, after), or a pair for each axis.",
)


# --- kinds of elements, and the way out of the graph ------------------------------------------------------------------


def _with_source(operands: tuple[Any, ...], dtype: Any) -> dict[str, Any]:
    name = as_dtype(dtype).name
    return {"dtype": name, "source": as_dtype(getattr(data_of(operands[0]), "dtype", name)).name}


_astype = linear(
    "astype(x; dtype)",
    value=lambda xp, x, dtype, source: xp.astype(x, getattr(xp, dtype)),
    transpose_x="astype(g, source)",
    prepare=_with_source,
    adds=("source",),
    shapes="(…) -> (…)",
    doc="Convert the elements; a gradient goes back in the dtype that it came from.",
)
detach = general("detach(x)", value=lambda xp, x: x, shapes="(…) -> (…)", doc="The same memory, cut from the graph.")


def astype(x: Any, dtype: Any) -> Any:
    """Convert to a dtype; gradients flow between floating dtypes, and end at integers and booleans.

    Raises:
        DTypeError: a dtype that no operation supports.
    """
    found = as_dtype(dtype)
    return _astype(x if found.kind == "f" else detach(x), dtype=found.name)


_to_device = linear(
    "to_device(x; device)",
    value=lambda xp, x, device, source: lane_for_device(device).asarray(lane_of(x).to_numpy(x)),
    transpose_x="to_device(g, source)",
    prepare=lambda operands, device: {"device": device, "source": array_lane(data_of(operands[0])).device},
    adds=("source",),
    shapes="(…) -> (…)",
    doc="Move to another device's memory; a gradient goes back to where it came from.",
)


# --- compositions -----------------------------------------------------------------------------------------------------


def transpose(x: Any, axis0: int, axis1: int) -> Any:
    """Swap two axes (PyTorch's transpose, NumPy's swapaxes)."""
    order = list(range(len(shape_of(x))))
    a, b = one_axis(axis0, len(order)), one_axis(axis1, len(order))
    order[a], order[b] = order[b], order[a]
    return permute(x, tuple(order))


swapaxes = transpose


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Move axes to other places; the rest keep their order."""
    ndim = len(shape_of(x))
    old, new = axes_of(source, ndim), axes_of(destination, ndim)
    if len(old) != len(new):
        raise UsageError(f"moveaxis: {len(old)} axes for {len(new)} places")
    order = [d for d in range(ndim) if d not in old]
    for place, axis in sorted(zip(new, old, strict=True)):
        order.insert(place, axis)
    return permute(x, tuple(order))


def flatten(x: Any, start: int = 0, end: int = -1) -> Any:
    """Merge the axes from `start` to `end`, both included, into one; a scalar becomes a vector."""
    shape = shape_of(x)
    if not shape:
        return reshape(x, (1,))
    first, last = one_axis(start, len(shape)), one_axis(end, len(shape))
    if first > last:
        raise UsageError(f"flatten: axis {start} comes after axis {end}")
    return reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


__all__ = [
    "affine",
    "astype",
    "broadcast_to",
    "concatenate",
    "cumsum",
    "detach",
    "einsum",
    "expand_dims",
    "flatten",
    "flip",
    "mT",
    "matmul",
    "moveaxis",
    "pad",
    "permute",
    "reshape",
    "squeeze",
    "stack",
    "sum_to",
    "swapaxes",
    "transpose",
]
