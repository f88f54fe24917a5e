"""ONNX's operators as compositions of the page's operations; sources are the operators' specification texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ... import ops
from ...errors import FormatError, UsageError
from ...tensor import Tensor, from_numpy
from ._graph import DTYPES
from ._table import floats, ints, node, tensor, within

__all__: list[str] = []  # importing the page fills the table


def _numbers(x: Tensor) -> list[int]:
    """Return the integers in a tensor that says lengths, axes or places."""
    if x.dtype.kind not in "iu" or x.ndim > 1:
        raise UsageError(f"a list of integers is needed here, not {x.dtype} of shape {x.shape}")
    return [int(value) for value in x.numpy().reshape(-1)]


def _new(array: Any) -> Tensor:
    return from_numpy(np.asarray(array))


def _met(*xs: Tensor) -> tuple[int, ...]:
    """Return the common shape of operands that broadcast, if it is not too large."""
    return within(*np.broadcast_shapes(*(x.shape for x in xs)))


# --- element by element ---------------------------------------------------------------------------------------


def _unary(op: str, function: Callable[[Tensor], Tensor]) -> None:
    node(op)(lambda x: function(x))


UNARY: dict[str, Callable[..., Tensor]] = {
    "Neg": ops.neg,
    "Abs": ops.abs,
    "Sign": ops.sign,
    "Sqrt": ops.sqrt,
    "Reciprocal": ops.reciprocal,
    "Exp": ops.exp,
    "Log": ops.log,
    "Sin": ops.sin,
    "Cos": ops.cos,
    "Erf": ops.erf,
    "Tanh": ops.tanh,
    "Sigmoid": ops.sigmoid,
    "Relu": ops.relu,
    "Softplus": ops.softplus,
    "Softsign": ops.softsign,
    "Not": ops.logical_not,
    "IsNaN": ops.isnan,
    "Identity": lambda x: x,
}
for _op, _function in UNARY.items():
    _unary(_op, _function)


@node("LeakyRelu")
def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return ops.leaky_relu(x, alpha)


@node("ThresholdedRelu")
def _thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    # Not the page's, which is x at alpha, as the recurrent operators say: this operator is 0 there.
    return ops.where(x > alpha, x, 0)


@node("Elu")
def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return ops.elu(x, alpha)


@node("HardSigmoid")
def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return ops.hard_sigmoid(x, alpha, beta)


@node("Gelu", 20)
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return ops.gelu(x)
    if approximate != "tanh":
        raise UsageError(f"approximate is 'none' or 'tanh', not {approximate!r}")
    return 0.5 * x * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@node("Dropout")
def _dropout(x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int = 0) -> Tensor:
    if training_mode is not None and bool(training_mode):
        raise UsageError("training_mode is on; models are run for inference")
    return x


def _binary(op: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    def call(a: Tensor, b: Tensor) -> Tensor:
        _met(a, b)
        return function(a, b)

    node(op)(call)


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.kind == "f":
        return a / b
    top, bottom = a.numpy(), b.numpy()
    if not bottom.all():
        raise UsageError("an integer is divided by zero")
    # Towards zero, where NumPy's // rounds down.
    return _new(np.sign(top) * np.sign(bottom) * (np.abs(top) // np.abs(bottom)))


def _power(a: Tensor, b: Tensor) -> Tensor:
    return ops.pow(a, b).to(a.dtype)


BINARY: dict[str, Callable[..., Tensor]] = {
    "Add": ops.add,
    "Sub": ops.sub,
    "Mul": ops.mul,
    "Div": _quotient,
    "Pow": _power,
    "Equal": ops.equal,
    "Less": ops.less,
    "LessOrEqual": ops.less_equal,
    "Greater": ops.greater,
    "GreaterOrEqual": ops.greater_equal,
    "And": lambda a, b: _new(np.logical_and(a.numpy(), b.numpy())),
    "Or": lambda a, b: _new(np.logical_or(a.numpy(), b.numpy())),
}
for _op, _pair in BINARY.items():
    _binary(_op, _pair)


def _fold(op: str, function: Callable[[Tensor, Tensor], Tensor], mean: bool = False) -> None:
    def call(*xs: Tensor) -> Tensor:
        _met(*xs)
        total = reduce(function, xs)
        return total / len(xs) if mean else total

    node(op)(call)


_fold("Sum", ops.add)
_fold("Mean", ops.add, mean=True)
_fold("Max", ops.maximum)
_fold("Min", ops.minimum)


@node("Where")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    _met(condition, a, b)
    return ops.where(condition, a, b)


@node("Clip")
def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    for bound in (low, high):
        if bound is not None and bound.ndim:
            raise UsageError(f"a bound has shape {bound.shape}; it must be a scalar")
    x = x if low is None else ops.maximum(x, low)
    return x if high is None else ops.minimum(x, high)


@node("Cast")
def _cast(x: Tensor, *, to: int) -> Tensor:
    if to not in DTYPES:
        raise FormatError(f"elements of ONNX's type {to} are not supported")
    return x.to(DTYPES[to])


@node("Cast", 19)
def _cast_19(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    return _cast(x, to=to)  # saturate is about 8-bit floats, which are refused


@node("Cast", 24)
def _cast_24(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return _cast(x, to=to)  # and so is round_mode


# --- products -------------------------------------------------------------------------------------------------


@node("MatMul")
def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim and b.ndim:
        within(*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))
    return ops.matmul(a, b)


@node("Gemm")
def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    if a.ndim != 2 or b.ndim != 2:
        raise UsageError(f"matrices are needed, not shapes {a.shape} and {b.shape}")
    product = _matmul(ops.mT(a) if transA else a, ops.mT(b) if transB else b)
    product = product if alpha == 1 else alpha * product
    if c is None:
        return product
    if np.broadcast_shapes(c.shape, product.shape) != product.shape:
        raise UsageError(f"the sum has shape {product.shape}, and C {c.shape}")
    return product + (c if beta == 1 else beta * c)


@node("Einsum")
def _einsum(*xs: Tensor, equation: str) -> Tensor:
    lengths: dict[str, int] = {}
    for term, x in zip(equation.partition("->")[0].replace(" ", "").split(","), xs, strict=False):
        if "." in term:
            raise UsageError(f"{equation!r}: ellipses are not supported")
        for label, length in zip(term, x.shape, strict=False):
            lengths[label] = max(lengths.get(label, 0), length)
    within(*lengths.values())  # more than any of the intermediate products has
    return ops.einsum(equation, *xs)


# --- shapes ---------------------------------------------------------------------------------------------------


@node("Shape")
def _shape(x: Tensor) -> Tensor:
    return _new(np.array(x.shape, np.int64))


@node("Shape", 15)
def _shape_15(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return _new(np.array(x.shape[start:end], np.int64))


@node("Size")
def _size(x: Tensor) -> Tensor:
    return _new(np.array(x.size, np.int64))


@node("Transpose")
def _transpose(x: Tensor, *, perm: ints | None = None) -> Tensor:
    return ops.permute(x, perm)


@node("Reshape")
def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    return _reshape_14(x, shape)


@node("Reshape", 14)
def _reshape_14(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    wanted = _numbers(shape)
    if not allowzero:
        if any(length == 0 and k >= x.ndim for k, length in enumerate(wanted)):
            raise UsageError(f"shape {wanted} takes lengths over that {x.shape} does not have")
        wanted = [x.shape[k] if length == 0 else length for k, length in enumerate(wanted)]
    return ops.reshape(x, tuple(wanted))


@node("Squeeze")
def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return ops.squeeze(x, None if axes is None else tuple(_numbers(axes)))


@node("Unsqueeze")
def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    return ops.expand_dims(x, tuple(_numbers(axes)))


@node("Flatten")
def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    if not -x.ndim <= axis <= x.ndim:
        raise UsageError(f"axis {axis} of an array with {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@node("Expand")
def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return ops.broadcast_to(x, within(*np.broadcast_shapes(x.shape, tuple(_numbers(shape)))))


@node("Concat")
def _concat(*xs: Tensor, axis: int) -> Tensor:
    within(sum(x.size for x in xs))
    return ops.concatenate(xs, axis)


def _split_into(x: Tensor, sizes: list[int], axis: int, present: tuple[bool, ...]) -> tuple[Tensor, ...]:
    if len(sizes) != len(present):
        raise UsageError(f"{len(present)} outputs for parts of sizes {sizes}")
    return ops.split(x, sizes, axis)


def _length(x: Tensor, axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise UsageError(f"axis {axis} of an array with {x.ndim} axes")
    return x.shape[axis]


@node("Split")
def _split(x: Tensor, split: Tensor | None = None, *, axis: int = 0, present: tuple[bool, ...]) -> tuple[Tensor, ...]:
    if split is not None:
        return _split_into(x, _numbers(split), axis, present)
    size, rest = divmod(_length(x, axis), len(present))
    if rest:
        raise UsageError(f"axis {axis} of {x.shape} has no {len(present)} equal parts")
    return _split_into(x, [size] * len(present), axis, present)


@node("Split", 18)
def _split_18(
    x: Tensor,
    split: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    present: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    if (split is None) == (num_outputs is None):
        raise UsageError("exactly one of split and num_outputs is given")
    if split is not None:
        return _split_into(x, _numbers(split), axis, present)
    length = _length(x, axis)
    size = -(-length // len(present))
    sizes = [min(size, length - k * size) for k in range(len(present))]
    if num_outputs != len(present) or sizes[-1] < 0:
        raise UsageError(f"num_outputs is {num_outputs}, for {len(present)} outputs and axis {axis} of {x.shape}")
    return _split_into(x, sizes, axis, present)


@node("Slice")
def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = _numbers(starts), _numbers(ends)
    places = list(range(len(first))) if axes is None else _numbers(axes)
    strides = [1] * len(first) if steps is None else _numbers(steps)
    index = [slice(None)] * x.ndim
    cut = list(zip(places, first, last, strides, strict=True))
    if len({axis % x.ndim for axis in places if x.ndim}) != len(places):
        raise UsageError(f"axes {places} of an array with {x.ndim} axes")
    for axis, start, end, stride in cut:
        _length(x, axis)
        index[axis] = slice(start, end, stride)
    return x[tuple(index)]


@node("Gather")
def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    _length(x, axis)
    axis %= x.ndim
    within(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if indices.dtype.kind not in "iu":
        raise UsageError(f"indices are {indices.dtype}; they must be integers")
    place = int(indices) if not indices.ndim else indices.numpy()
    return x[(slice(None),) * axis + (place,)]


@node("Pad")
def _pad(x: Tensor, pads: Tensor, constant_value: Tensor | None = None, *, mode: str = "constant") -> Tensor:
    return _pad_18(x, pads, constant_value, mode=mode)


@node("Pad", 18)
def _pad_18(
    x: Tensor,
    pads: Tensor,
    constant_value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    if mode != "constant":
        raise UsageError(f"mode {mode!r} is not supported; only 'constant' is")
    places = list(range(x.ndim)) if axes is None else _numbers(axes)
    given = _numbers(pads)
    if len(given) != 2 * len(places):
        raise UsageError(f"pads {given} for axes {places}")
    widths = [(0, 0)] * x.ndim
    for k, axis in enumerate(places):
        _length(x, axis)
        widths[axis] = (given[k], given[len(places) + k])
    within(*(max(0, before + n + after) for n, (before, after) in zip(x.shape, widths, strict=True)))
    # Negative widths take elements away.
    kept = tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(x.shape, widths, strict=True))
    value = 0.0 if constant_value is None else constant_value.item()
    return ops.pad(x[kept], tuple((max(0, b), max(0, a)) for b, a in widths), value)


@node("Constant")
def _constant(
    *,
    value: tensor | None = None,
    value_float: float | None = None,
    value_floats: floats | None = None,
    value_int: int | None = None,
    value_ints: ints | None = None,
) -> Tensor:
    given: list[Any] = [np.asarray(v, np.float32) for v in (value_float, value_floats) if v is not None]
    given += [np.asarray(v, np.int64) for v in (value_int, value_ints) if v is not None]
    given += [value] if value is not None else []
    if len(given) != 1:
        raise UsageError(f"a constant has one value, not {len(given)}")
    return _new(given[0])


@node("ConstantOfShape")
def _constant_of_shape(shape: Tensor, *, value: tensor | None = None) -> Tensor:
    if value is not None and value.size != 1:
        raise UsageError(f"the value has {value.size} elements")
    lengths = _numbers(shape)
    if any(length < 0 for length in lengths):
        raise UsageError(f"shape {lengths}")
    fill = np.zeros(1, np.float32) if value is None else value.reshape(1)
    return _new(np.full(within(*lengths), fill[0], fill.dtype))


# --- reductions -----------------------------------------------------------------------------------------------

Reduction = Callable[..., Tensor]


def _reduction(op: str, function: Reduction, since: int = 18, alone: bool = True) -> None:
    """Enter a reduction whose axes are an input from a version on, and an attribute before.

    Args:
        op, function: its name, and what it is here.
        since: the version.
        alone: whether a group of one element is that element, which ``noop_with_empty_axes`` asks for.
    """

    def by_attribute(x: Tensor, *, axes: ints | None = None, keepdims: int = 1) -> Tensor:
        return function(x, axis=axes or None, keepdims=bool(keepdims)).to(x.dtype)

    def by_input(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        places = () if axes is None else tuple(_numbers(axes))
        if noop_with_empty_axes and not places:
            if not alone:
                raise UsageError("noop_with_empty_axes is not supported for this operator")
            return x
        return by_attribute(x, axes=places, keepdims=keepdims)

    if since > 13:
        node(op)(by_attribute)
    node(op, since)(by_input)


_reduction("ReduceSum", ops.sum, since=13)
_reduction("ReduceMean", ops.mean)
_reduction("ReduceMax", ops.max)
_reduction("ReduceMin", ops.min)
_reduction("ReduceProd", ops.prod)
_reduction("ReduceL2", ops.norm, alone=False)
_reduction("ReduceLogSumExp", ops.logsumexp, alone=False)
_reduction("ReduceSumSquare", lambda x, **how: ops.sum(ops.square(x), **how), alone=False)


def _place(op: str, function: Reduction) -> None:
    def call(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if not select_last_index:
            return function(x, axis=axis, keepdims=bool(keepdims))
        from_the_end = function(ops.flip(x, axis), axis=axis, keepdims=bool(keepdims))
        return _length(x, axis) - 1 - from_the_end

    node(op)(call)


_place("ArgMax", ops.argmax)
_place("ArgMin", ops.argmin)


@node("Softmax")
def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return ops.softmax(x, axis=axis)


@node("LogSoftmax")
def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return ops.log_softmax(x, axis=axis)


@node("CumSum")
def _cumsum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    along = int(axis)
    x = ops.flip(x, along) if reverse else x
    total = ops.cumsum(x, along).to(x.dtype)
    total = total - x if exclusive else total
    return ops.flip(total, along) if reverse else total
