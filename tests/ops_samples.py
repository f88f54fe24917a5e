"""Samples of every record of the page: operands, parameters, and references that share no code with the page."""

from __future__ import annotations

import itertools
import math
import operator
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from minigrad._core import TensorBase
from minigrad.op import PAGE, Op
from minigrad.tensor import tensor

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

# --- references: element-wise, over arrays of any precision ---------------------------------------


def by_mpmath(function: Callable[..., Any]) -> Callable[[Array], Array]:
    """Lift a function of one mpmath number to arrays; a zero keeps the sign of its argument."""

    def number(x: Any) -> float:
        with mpmath.workdps(40):
            return float(function(mpmath.mpf(float(x))))

    def lifted(x: Array) -> Array:
        out = np.array([number(v) for v in x.flat], dtype=np.longdouble).reshape(x.shape)
        return np.where(out == 0, np.copysign(0, x), out)

    return lifted


def softplus(x: Array) -> Array:
    return np.logaddexp(np.zeros_like(x), x)


def gelu(x: Array) -> Array:
    # The normal distribution's lower tail by erfc: nothing cancels.
    half = by_mpmath(lambda v: mpmath.erfc(-v / mpmath.sqrt(2)) / 2)
    return x * np.abs(half(np.clip(x, -1e3, 1e3)))


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "clone": np.positive,
    "neg": np.negative,
    "reciprocal": lambda x: 1 / x,
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "sign": lambda x: np.where(np.isnan(x), x, (x > 0) * 1.0 - (x < 0) * 1.0),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": softplus,
    "relu": lambda x: np.where(np.isnan(x), x, np.fmax(x, 0)),
    "leaky_relu": lambda x, slope: np.maximum(x, slope * x),
    "elu": lambda x, alpha: np.piecewise(x, [x > 0, x <= 0], [np.positive, lambda v: alpha * np.expm1(v), np.nan]),
    "thresholded_relu": lambda x, alpha: np.where(np.isnan(x) | ~(x < alpha), x, 0),
    "hard_sigmoid": lambda x, alpha, beta: np.clip(beta + x * alpha, 0, 1),
    "softsign": lambda x: x / (1 + np.maximum(x, -x)),
    "scaled_tanh": lambda x, alpha, beta: np.tanh(x * beta) * alpha,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": gelu,
    "sin": np.sin,
    "cos": np.cos,
    "erf": by_mpmath(mpmath.erf),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": lambda condition, a, b: np.choose((condition != 0).astype(int), (b, a)),
    "clip": lambda x, low=-np.inf, high=np.inf: np.where(x < low, low, np.where(x > high, high, x)),
    "bce_with_logits": lambda x, target, pos_weight: pos_weight * target * softplus(-x) + (1 - target) * softplus(x),
}

# --- references: whole arrays, element by element -------------------------------------------------


def build(shape: Shape, element: Callable[..., Any]) -> Array:
    """Make an array of what a function says of each index."""
    return np.array([element(*index) for index in np.ndindex(*shape)]).reshape(shape)


def normal_axes(axis: Any, ndim: int) -> Shape:
    axes = range(ndim) if axis is None else (axis if isinstance(axis, tuple | list) else (axis,))
    return tuple(a % ndim for a in axes)


def over(row: Callable[[list[float]], Any]) -> Callable[..., Array]:
    """Make a reduction of a function that takes one group as a list of numbers."""

    def reduction(x: Array, axis: Any = None, keepdims: bool = False, **params: Any) -> Array:
        axes = normal_axes(axis, x.ndim)
        rest = [d for d in range(x.ndim) if d not in axes]
        groups = x.transpose(*rest, *axes).reshape(*[x.shape[d] for d in rest], -1)
        out = build(groups.shape[:-1], lambda *i: row(groups[i].tolist(), **params))
        return np.expand_dims(out, axes) if keepdims else out

    return reduction


def variance(row: list[float], correction: float = 0) -> float:
    middle = math.fsum(row) / len(row)
    return math.fsum((v - middle) ** 2 for v in row) / (len(row) - correction)


def log_sum_exp(row: list[float]) -> float:
    return max(row) + math.log(math.fsum(math.exp(v - max(row)) for v in row))


def log_softmax(x: Array, axis: Any = -1) -> Array:
    return x - over(log_sum_exp)(x, axis=axis, keepdims=True)


def product_of_matrices(a: Array, b: Array) -> Array:
    left, right = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    one = np.vectorize(lambda m, n: (m[:, :, None] * n[None, :, :]).sum(1), signature="(i,k),(k,j)->(i,j)")
    out = one(left, right)
    out = out[..., 0] if b.ndim == 1 else out
    return (out[..., 0] if b.ndim == 1 else out[..., 0, :]) if a.ndim == 1 else out


def permuted(x: Array, axes: Any = None) -> Array:
    order = tuple(reversed(range(x.ndim))) if axes is None else normal_axes(axes, x.ndim)
    return build(tuple(x.shape[d] for d in order), lambda *i: x[tuple(i[order.index(d)] for d in range(x.ndim))])


def sum_to(x: Array, shape: Shape) -> Array:
    out = np.zeros(shape, x.dtype)
    for index in np.ndindex(*x.shape):
        out[tuple(i if n > 1 else 0 for i, n in zip(index[x.ndim - len(shape) :], shape, strict=True))] += x[index]
    return out


def scatter(x: Array, index: Any, shape: Shape) -> Array:
    out = np.zeros(shape, x.dtype)
    for place, value in zip(np.arange(math.prod(shape)).reshape(shape)[index].flat, x.flat, strict=True):
        out.flat[place] += value
    return out


def padded(x: Array, widths: Any, value: float = 0.0) -> Array:
    pairs = np.broadcast_to(widths, (x.ndim, 2)).tolist()
    out = np.full([n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True)], value, x.dtype)
    for index in np.ndindex(*x.shape):
        out[tuple(i + before for i, (before, _) in zip(index, pairs, strict=True))] = x[index]
    return out


def joined(*xs: Array, axis: int = 0) -> Array:
    parts = [part for x in xs for part in np.moveaxis(x, axis, 0)]
    return np.moveaxis(np.array(parts), 0, axis)


def reduced(losses: Array, reduction: str, number: float) -> Any:
    if reduction == "none":
        return losses
    return math.fsum(losses.ravel().tolist()) / (number if reduction == "mean" else 1)


def cross_entropy(
    x: Array, target: Array, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    logs = log_softmax(x, axis=min(1, x.ndim - 1))
    factor = np.ones(x.shape[min(1, x.ndim - 1)]) if weight is None else np.asarray(weight)
    counts = build(target.shape, lambda *i: 0.0 if target[i] == ignore_index else factor[target[i]])

    def loss(*i: int) -> float:
        return -counts[i] * logs[(*i[:1], target[i], *i[1:])] if counts[i] else 0.0

    return reduced(build(target.shape, loss), reduction, counts.sum())


def soft_cross_entropy(x: Array, target: Array, reduction: str = "mean") -> Any:
    axis = min(1, x.ndim - 1)
    losses = over(math.fsum)(-target * log_softmax(x, axis=axis), axis=axis)
    return reduced(losses, reduction, losses.size)


def ctc(
    log_probs: Array,
    targets: Array,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Array:
    """Add up the probabilities of every path of classes that leaves the target."""

    def loss(n: int) -> float:
        frames = range(input_lengths[n])
        wanted = targets[n, : target_lengths[n]].tolist()
        paths = (
            math.exp(math.fsum(log_probs[t, n, c] for t, c in zip(frames, path, strict=True)))
            for path in itertools.product(range(log_probs.shape[2]), repeat=len(frames))
            if [c for c, _ in itertools.groupby(path) if c != blank] == wanted
        )
        total = math.fsum(paths)
        return -math.log(total) if total else 0.0 if zero_infinity else math.inf

    return build(targets.shape[:1], loss)


def compared(question: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    return lambda a, b: build(
        np.broadcast_shapes(a.shape, b.shape),
        lambda *i: question(*(x[i] for x in np.broadcast_arrays(a, b))),
    )


REFERENCES: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    "reshape": lambda x, shape: np.array(x.ravel().tolist()).reshape(shape),
    "squeeze": np.squeeze,
    "expand_dims": lambda x, axis: np.expand_dims(x, tuple(axis) if isinstance(axis, list) else axis),
    "broadcast_to": lambda x, shape: x + np.zeros(shape),
    "sum_to": sum_to,
    "permute": permuted,
    "mT": lambda x: build((*x.shape[:-2], x.shape[-1], x.shape[-2]), lambda *i: x[(*i[:-2], i[-1], i[-2])]),
    "flip": lambda x, axis=None: build(
        x.shape, lambda *i: x[tuple(-1 - k if d in normal_axes(axis, x.ndim) else k for d, k in enumerate(i))]
    ),
    "cumsum": lambda x, axis: np.add.accumulate(x, axis=axis),
    "matmul": product_of_matrices,
    "affine": lambda x, weight, bias: build(
        (*x.shape[:-1], len(bias)),
        lambda *i: math.fsum([*(x[i[:-1]] * weight[i[-1]]).tolist(), bias[i[-1]].item()]),
    ),
    "einsum": lambda *xs, subscripts: np.einsum(subscripts, *xs),
    "concatenate": joined,
    "stack": lambda *xs, axis=0: np.moveaxis(np.array(xs), 0, axis),
    "pad": padded,
    "astype": lambda x, dtype: np.array(x.tolist(), dtype=dtype),
    "detach": lambda x: np.array(x.tolist(), x.dtype),
    "to_device": lambda x, device: np.array(x.tolist(), x.dtype),
    "getitem": lambda x, index: x.ravel()[np.arange(x.size).reshape(x.shape)[index]],
    "put": scatter,
    "embedding": lambda weight, index: build(
        (*index.shape, *weight.shape[1:]), lambda *i: weight[(index[i[: index.ndim]], *i[index.ndim :])]
    ),
    "sum": over(math.fsum),
    "spread": lambda x, axis, keepdims, shape: (
        np.zeros(shape) + (x if keepdims else np.expand_dims(x, normal_axes(axis, len(shape))))
    ),
    "mean": over(lambda row: math.fsum(row) / len(row)),
    "var": over(variance),
    "max": over(max),
    "min": over(min),
    "argmax": over(lambda row: row.index(max(row))),
    "argmin": over(lambda row: row.index(min(row))),
    "prod": over(math.prod),
    "logsumexp": over(log_sum_exp),
    "softmax": lambda x, axis=-1: np.exp(log_softmax(x, axis)),
    "log_softmax": log_softmax,
    "norm": over(lambda row: math.hypot(*row)),
    "less": compared(operator.lt),
    "less_equal": compared(operator.le),
    "equal": compared(operator.eq),
    "not_equal": compared(operator.ne),
    "greater": compared(operator.gt),
    "greater_equal": compared(operator.ge),
    "isnan": np.vectorize(math.isnan, otypes=[bool]),
    "isfinite": np.vectorize(math.isfinite, otypes=[bool]),
    "logical_not": np.vectorize(operator.not_, otypes=[bool]),
    "mse": lambda x, target, reduction="mean": reduced((x - target) ** 2, reduction, x.size),
    "half_squared_error": lambda x, target: math.dist(x.ravel(), target.ravel()) ** 2 / 2,
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": soft_cross_entropy,
    "ctc": ctc,
}

# --- samples --------------------------------------------------------------------------------------

CHOICES = np.array([[True, False, True], [False, False, True]])
WITH_TIES = np.array([[3.0, 1.0, 3.0], [-2.0, 0.5, -2.0]])
ODD = np.array([[0.0, -1.5, np.nan], [np.inf, 2.0, -np.inf]])
TARGETS = np.array([4, 0, -100])
CLASS_WEIGHTS = np.array([0.5, 2.0, 1.25, 0.75, 3.0])

# Operands are shapes to be drawn, or arrays as they are; parameters come last.
SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "add": [((2, 3), (2, 3), {}), ((2, 1), (3,), {})],
    "sub": [((2, 3), (2, 3), {}), ((3,), (2, 1), {})],
    "mul": [((2, 3), (2, 3), {}), ((), (2, 3), {})],
    "div": [((2, 3), (2, 3), {}), ((2, 3), (), {})],
    "pow": [((2, 3), (2, 3), {}), ((2, 3), np.array(3.0), {})],
    "maximum": [((2, 3), (2, 3), {}), ((2, 1), (3,), {})],
    "minimum": [((2, 3), (2, 3), {}), ((2, 1), (3,), {})],
    "where": [
        (CHOICES, (2, 3), (2, 3), {}),
        (CHOICES, (3,), (2, 1), {}),
        (CHOICES[:, :1], (), (1, 3), {}),
        (np.array([0.0, 2.5, -1.0]), (2, 3), (2, 3), {}),
    ],
    "bce_with_logits": [((2, 3), (2, 3), (), {}), ((2, 3), (2, 3), (3,), {})],
    "clip": [((3, 5), {"low": -0.7, "high": 0.9}), ((3, 5), {"low": 0.1}), ((3, 5), {"high": 0.1})],
    "leaky_relu": [((2, 5), {"slope": 0.01}), ((2, 5), {"slope": 0.3})],
    "elu": [((2, 5), {"alpha": 1.0}), ((2, 5), {"alpha": 0.7})],
    "thresholded_relu": [((3, 5), {"alpha": 0.3}), ((3, 5), {"alpha": -0.4})],
    "hard_sigmoid": [((3, 5), {"alpha": 0.9, "beta": 0.5}), ((3, 5), {"alpha": -0.7, "beta": 0.3})],
    "scaled_tanh": [((2, 5), {"alpha": 1.7, "beta": 0.6}), ((2, 5), {"alpha": -0.8, "beta": 1.3})],
    "reshape": [((2, 3), {"shape": (3, 2)}), ((2, 3), {"shape": -1}), ((), {"shape": (1, 1)})],
    "squeeze": [((1, 3, 1, 2), {}), ((1, 3, 1, 2), {"axis": -2}), ((1, 3, 1), {"axis": (0, 2)})],
    "expand_dims": [((2, 3), {"axis": 1}), ((2, 3), {"axis": (0, -1)}), ((), {"axis": 0})],
    "broadcast_to": [((2, 1), {"shape": (2, 3)}), ((3,), {"shape": (2, 1, 3)}), ((), {"shape": (2,)})],
    "sum_to": [((2, 3), {"shape": (2, 1)}), ((2, 3, 2), {"shape": (3, 1)}), ((2, 3), {"shape": ()})],
    "permute": [((2, 3), {}), ((2, 3, 5), {"axes": (1, 2, 0)}), ((2, 3, 1), {"axes": (-1, 0, 1)})],
    "mT": [((2, 3), {}), ((2, 3, 2), {})],
    "flip": [((2, 3), {}), ((2, 3), {"axis": 1}), ((2, 3, 2), {"axis": (0, -1)})],
    "cumsum": [((2, 3), {"axis": 0}), ((2, 3), {"axis": -1})],
    "matmul": [
        ((2, 3), (3, 5), {}),
        ((3,), (3,), {}),
        ((3,), (3, 2), {}),
        ((2, 3), (3,), {}),
        ((2, 2, 3), (3, 2), {}),
        ((2, 3), (2, 3, 2), {}),
        ((2, 1, 2, 3), (3, 3, 2), {}),
        ((3,), (2, 3, 2), {}),
        ((2, 2, 3), (3,), {}),
    ],
    "affine": [((2, 3), (5, 3), (5,), {}), ((3,), (2, 3), (2,), {}), ((2, 1, 3), (2, 3), (2,), {})],
    "einsum": [
        ((2, 3), (3, 2), {"subscripts": "ij,jk->ik"}),
        ((2, 3), {"subscripts": "ij->ji"}),
        ((2, 3), {"subscripts": "ij->j"}),
        ((2, 3), (2, 3), {"subscripts": "ij,ij->"}),
        ((2, 3), (2, 3), {"subscripts": "ij,kj->ik"}),
        ((2, 1, 3), (3, 2), {"subscripts": "...j,jk"}),
        ((2,), (3,), {"subscripts": "i,j"}),
        ((2, 3), (3,), (2, 2), {"subscripts": "ij,j,ki->kj"}),
        ((2, 3), (5,), {"subscripts": "ij,k->i"}),
    ],
    "concatenate": [
        ((2, 3), (1, 3), {}),
        ((2, 3), (2, 2), (2, 1), {"axis": -1}),
        ((3,), {}),
        *[((1, 2),) * 11 + ({},)],
    ],
    "stack": [((2, 3), (2, 3), {}), ((2,), (2,), (2,), {"axis": -1}), ((2, 3), (2, 3), {"axis": 1}), ((), (), {})],
    "pad": [((2, 3), {"widths": 1}), ((3,), {"widths": (2, 1), "value": -1.5}), ((2, 3), {"widths": ((0, 1), (2, 0))})],
    "astype": [((2, 3), {"dtype": "float64"})],
    "detach": [((2, 3), {})],
    "clone": [((2, 3), {})],
    "to_device": [((2, 3), {"device": "cpu"})],
    "getitem": [
        ((5, 3), {"index": 2}),
        ((5, 3), {"index": (slice(None, None, -2), -1)}),
        ((5, 3), {"index": (slice(1, 4), None, slice(0, 2))}),
        ((5, 3), {"index": (Ellipsis, slice(None, 1))}),
        ((5, 3), {"index": np.array([4, 0, 4])}),
        ((5, 3), {"index": [1, 1, -2]}),
        ((5, 3), {"index": (np.array([[0], [3]]), np.array([2, 0]))}),
        ((5, 3), {"index": np.array([True, False, True, False, True])}),
        ((2, 3), {"index": CHOICES}),
        ((2, 3, 2), {"index": (np.array([1, 0, 1]), slice(None), 0)}),
        ((2, 3, 2), {"index": (slice(None), np.array([2, 2]), slice(None))}),
        ((5, 3), {"index": (slice(2, 2),)}),
    ],
    "put": [
        ((3,), {"index": 1, "shape": (2, 3)}),
        ((2, 3), {"index": np.array([1, 1]), "shape": (2, 3)}),
        ((3,), {"index": CHOICES, "shape": (2, 3)}),
    ],
    "embedding": [
        ((5, 3), np.array([[0, 4], [4, 1], [2, 4]]), {}),
        ((5, 2), np.array(3), {}),
        ((3,), np.array([2, 2]), {}),
    ],
    "sum": [((2, 3), {}), ((2, 3, 2), {"axis": 1}), ((2, 3, 2), {"axis": (0, -1), "keepdims": True}), ((), {})],
    "spread": [
        ((2,), {"axis": 1, "keepdims": False, "shape": (2, 3)}),
        ((1, 3), {"axis": 0, "keepdims": True, "shape": (2, 3)}),
        ((), {"axis": None, "keepdims": False, "shape": (2, 3)}),
    ],
    "mean": [((2, 3), {}), ((2, 3, 2), {"axis": 1}), ((2, 3, 2), {"axis": (0, -1), "keepdims": True})],
    "var": [((2, 3), {}), ((2, 3), {"axis": 1, "correction": 1}), ((2, 3, 2), {"axis": (0, 1), "keepdims": True})],
    "max": [((2, 3), {}), ((2, 3, 2), {"axis": 1}), ((2, 3, 2), {"axis": (0, 2), "keepdims": True})],
    "min": [((2, 3), {}), ((2, 3, 2), {"axis": 1}), ((2, 3, 2), {"axis": (0, 2), "keepdims": True})],
    "argmax": [((2, 3), {}), ((2, 3), {"axis": 1}), (WITH_TIES, {"axis": -1, "keepdims": True})],
    "argmin": [((2, 3), {}), ((2, 3), {"axis": 0}), (WITH_TIES, {"axis": -1, "keepdims": True})],
    "prod": [
        ((2, 3), {}),
        ((2, 5), {"axis": 1}),
        ((2, 3, 2), {"axis": (0, 2), "keepdims": True}),
        (np.array([[0.0, 2.0, -3.0], [0.0, 0.0, 1.5], [0.7, 1.2, -1.1]]), {"axis": 1}),
    ],
    "logsumexp": [((2, 3), {}), ((2, 3), {"axis": 0, "keepdims": True}), ((2, 3, 2), {"axis": (0, 2)})],
    "softmax": [((2, 3), {}), ((2, 3), {"axis": 0}), ((2, 3, 2), {"axis": (0, 2)})],
    "log_softmax": [((2, 3), {}), ((2, 3), {"axis": 0}), ((2, 3, 2), {"axis": (0, 2)})],
    "norm": [((2, 3), {}), ((2, 3), {"axis": 1, "keepdims": True}), ((2, 3, 2), {"axis": (0, 2)})],
    **{
        name: [((2, 3), (3,), {}), (WITH_TIES, WITH_TIES[:, :1], {}), (ODD, ODD.T[:2, :1], {})]
        for name in ("less", "less_equal", "equal", "not_equal", "greater", "greater_equal")
    },
    "isnan": [(ODD, {})],
    "isfinite": [(ODD, {})],
    "logical_not": [(CHOICES, {}), (ODD, {}), (np.array([0, 3, -1]), {})],
    "mse": [((2, 3), (2, 3), {"reduction": reduction}) for reduction in ("mean", "sum", "none")],
    "half_squared_error": [((2, 3), (2, 3), {})],
    "cross_entropy": [
        ((3, 5), TARGETS, {"weight": weight, "reduction": reduction})
        for weight in (None, CLASS_WEIGHTS)
        for reduction in ("mean", "sum", "none")
    ]
    + [
        ((5,), np.array(3), {}),
        ((2, 3, 2), np.array([[0, 2], [1, 1]]), {"ignore_index": 1}),
        ((2, 3, 2), np.array([[0, 2], [1, 1]]), {"reduction": "none", "weight": CLASS_WEIGHTS[:3]}),
    ],
    "soft_cross_entropy": [((2, 3), (2, 3), {"reduction": reduction}) for reduction in ("mean", "sum", "none")]
    + [((3,), (3,), {}), ((2, 3, 2), (2, 3, 2), {"reduction": "none"})],
    "ctc": [
        (shape, np.array(targets), {"input_lengths": frames, "target_lengths": labels, **params})
        for shape, targets, frames, labels, params in [
            ((3, 2, 3), [[1, 2], [2, 0]], (3, 2), (2, 1), {}),
            ((5, 1, 2), [[1, 1]], (5,), (2,), {}),
            ((3, 2, 3), [[0, 1], [1, 1]], (3, 2), (2, 2), {"blank": 2, "zero_infinity": True}),
        ]
    ],
}


@dataclass(frozen=True, eq=False)
class Sample:
    """One call of a record; `moving` are the places of the operands that gradients are asked for."""

    name: str
    op: Op
    operands: tuple[Array, ...]
    params: dict[str, Any]
    moving: tuple[int, ...]

    def __str__(self) -> str:
        shapes = ", ".join(str(x.shape) for x in self.operands)
        params = "".join(f", {key}={value!r}" for key, value in self.params.items())
        return f"{self.name}({shapes}{params})"

    def reference(self, *operands: Array) -> Any:
        return REFERENCES[self.name](*operands, **self.params)

    def __call__(self, *moved: Any) -> Any:
        """Apply the record to tensors in the moving places, and the sample's arrays in the others."""
        operands: list[Any] = list(self.operands)
        for place, x in zip(self.moving, moved, strict=True):
            operands[place] = x
        if moved:  # constants live where the others do
            device = moved[0].device
            operands = [x if isinstance(x, TensorBase) else tensor(x, device=device) for x in operands]
        return self.op(*operands, **self.params)

    @property
    def inputs(self) -> list[Array]:
        return [self.operands[place] for place in self.moving]

    def cast(self, dtype: str) -> Sample:
        operands = tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in self.operands)
        return Sample(self.name, self.op, operands, self.params, self.moving)


def draw(seed: str, shapes: Sequence[Shape], domain: tuple[float, float] = (-2.0, 2.0)) -> list[Array]:
    """Draw arrays of irregular numbers of which no two are close and none is close to 0: away from every kink."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    grid = (rng.permutation(total) + rng.uniform(0.3, 0.7, total)) / total
    values = domain[0] + (domain[1] - domain[0]) * grid
    values = np.where(np.abs(values) < 0.05, 0.07, values)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def sample(name: str, *operands: Any, **params: Any) -> Sample:
    """Make a sample of a record; shapes are drawn inside the record's domain."""
    op = PAGE.records[name]
    names = [op.operand_name(k) for k in range(len(operands))]
    arrays = list(operands)
    domains = {k: op.domain.get(names[k], (-2.0, 2.0)) for k, x in enumerate(operands) if isinstance(x, tuple)}
    for domain in sorted(set(domains.values())):
        places = [k for k in domains if domains[k] == domain]
        seed = f"{name} {operands} {params} {domain}"
        for k, x in zip(places, draw(seed, [operands[k] for k in places], domain), strict=True):
            arrays[k] = x
    moving = tuple(
        k for k, x in enumerate(arrays) if x.dtype.kind == "f" and (names[k] in op.rules or op.vjp is not None)
    )
    return Sample(name, op, tuple(arrays), params, moving)


def samples(name: str) -> list[Sample]:
    """Return the samples of a record: its table's, or a few shapes for an element-wise function of one operand."""
    op = PAGE.records[name]
    table = SAMPLES.get(name)
    if table is None and op.kind == "elementwise" and len(op.operands) == 1 and not op.params:
        table = [((2, 3), {}), ((), {})]
    return [sample(name, *row[:-1], **row[-1]) for row in table or []]


def with_shapes(name: str, shapes: tuple[tuple[int, ...], ...]) -> Sample:
    """Make a sample of an element-wise record whose operands take turns through these shapes."""
    op = PAGE.records[name]
    operands: list[Any] = [shapes[k % len(shapes)] for k in range(len(op.operands))]
    if name == "where":
        operands[0] = np.resize(CHOICES, operands[0])
    return sample(name, *operands, **samples(name)[0].params)
