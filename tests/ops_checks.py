"""Checks of one sample of a record: each returns what is wrong as text, so that tests can demand a failure too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ops_samples import CHOICES, Array, Sample, draw

import minigrad as mg
from minigrad import _core, backend

Function = Callable[..., Any]
LANES = ("compiled", "array")
_device = ["cpu"]


@contextmanager
def lane(name: str) -> Iterator[None]:
    """Run operations on one lane: "compiled" is how users run, "array" is every formula over NumPy, else a device."""
    before, _device[0] = _device[0], "cpu" if name in LANES else name
    try:
        with backend.compiled_lane(name != "array"):
            yield
    finally:
        _device[0] = before


def tensor(x: Any, **options: Any) -> Any:
    """Make a tensor where the lane computes."""
    return mg.tensor(x, device=_device[0], **options)


def host(x: Any) -> Array:
    """Return the values of a tensor, of an array of any lane, or of a number."""
    found: Array = backend.host(_core.data_of(x))
    return found


# --- comparing ------------------------------------------------------------------------------------


def differences(what: str, got: Any, want: Any, tolerance: Any) -> list[str]:
    """Compare shapes and values; `tolerance` is absolute, a number or an array."""
    got, want = (np.asarray(x) for x in (got, want))
    got, want = (x.astype(int) if x.dtype.kind == "b" else x for x in (got, want))
    if got.shape != want.shape:
        return [f"{what}: shape {got.shape} instead of {want.shape}"]
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~((np.abs(got - want) <= tolerance) | (got == want) | (np.isnan(got) & np.isnan(want)))
    if not wrong.any():
        return []
    worst = tuple(int(i) for i in np.argwhere(wrong)[0])
    return [f"{what}: {got[worst]!r} instead of {want[worst]!r} at {worst}, {wrong.sum()} of {wrong.size} wrong"]


def scaled(tolerance: float, *arrays: Array) -> float:
    """Make a tolerance relative to the largest number of what is compared."""
    return tolerance * max([1.0, *(float(np.abs(x).max(initial=0.0)) for x in arrays)])


# --- derivatives by differences -------------------------------------------------------------------

STEP = 1e-3
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
"""Central differences of fourth order: at this step both their errors are near 1e-12."""


def outputs_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def vector(parts: Sequence[Any]) -> Array:
    return np.concatenate([np.zeros(0), *(np.ravel(host(part)) for part in parts)])


def numeric_jacobian(f: Function, xs: Sequence[Array]) -> Array:
    """Return the Jacobian of all results of f, one below the other, by all its inputs, side by side."""
    columns = []
    for k, x in enumerate(xs):
        for place in range(x.size):
            column: Any = 0.0
            for steps, factor in STENCIL:
                moved = x.copy()
                moved.flat[place] += steps * STEP
                values = [tensor(moved if j == k else other) for j, other in enumerate(xs)]
                column = column + factor / STEP * vector(outputs_of(f(*values)))
            columns.append(column)
    return np.stack(columns, axis=1)


# --- derivatives by the engine --------------------------------------------------------------------


def leaves(xs: Sequence[Array]) -> list[Any]:
    return [tensor(x, requires_grad=True) for x in xs]


def unit_vectors(like: Any) -> Iterator[Any]:
    for place in range(like.size):
        unit = np.zeros(like.shape, host(like).dtype)
        unit.flat[place] = 1
        yield tensor(unit)


def filled(parts: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    return [mg.zeros_like(x) if part is None else part for part, x in zip(parts, like, strict=True)]


def reverse_jacobian(f: Function, xs: Sequence[Array]) -> Array:
    """Return what `numeric_jacobian` does, one sweep a row."""
    places = leaves(xs)
    rows = []
    for y in outputs_of(f(*places)):
        for unit in unit_vectors(y):
            found = _core.sweep([y], [unit], places, False, True) if y.requires_grad else [None] * len(places)
            rows.append(vector(filled(found, places)))
    return np.array(rows).reshape(len(rows), sum(x.size for x in places))


def forward_jacobian(f: Function, xs: Sequence[Array]) -> Array:
    """Return what `numeric_jacobian` does, one push a column."""
    places = leaves(xs)
    ys = outputs_of(f(*places))
    live = [y for y in ys if y.requires_grad]
    columns = []
    for x in places:
        for unit in unit_vectors(x):
            moved = iter(_core.push([x], [unit], live))
            columns.append(vector(filled([next(moved) if y.requires_grad else None for y in ys], ys)))
    return np.stack(columns, axis=1)


def vjp_of(f: Function, n: int) -> Function:
    """Return the function of (inputs, cotangent) that sweeps f, recorded, so that it can be differentiated again."""

    def gradients(*args: Any) -> list[Any]:
        xs = [x if x.requires_grad else tensor(x, requires_grad=True) for x in args[:n]]
        y = f(*xs)
        return filled(_core.sweep([y], [args[n]], xs, True, True), xs)

    return gradients


def jvp_of(f: Function, n: int) -> Function:
    """Return the function of (inputs, tangents) that pushes along f, recorded."""

    def tangent(*args: Any) -> Any:
        xs = [x if x.requires_grad else tensor(x, requires_grad=True) for x in args[:n]]
        y = f(*xs)
        return filled(_core.push(xs, list(args[n:]), [y], True), [y])[0]

    return tangent


# --- the checks -----------------------------------------------------------------------------------


def value_of(sample: Sample) -> Array:
    return host(sample.op(*map(tensor, sample.operands), **sample.params))


def value_errors(sample: Sample, dtype: str = "float64") -> list[str]:
    """Compare the value with the reference, evaluated in double precision."""
    rounded = sample.cast(dtype)
    want = np.asarray(sample.reference(*rounded.cast("float64").operands))
    got = value_of(rounded)
    if want.dtype.kind != "f":
        return differences(f"value of {sample}", got, want, 0)
    tolerance = scaled(8 * np.finfo(dtype).eps, want)
    return differences(f"value of {sample} in {dtype}", got, want, tolerance)


def jacobian_errors(what: str, f: Function, xs: Sequence[Array], tolerance: float) -> list[str]:
    """Compare both modes of the engine with central differences."""
    want = numeric_jacobian(f, xs)
    bound = scaled(tolerance, want)
    return [
        *differences(f"vjp of {what}", reverse_jacobian(f, xs), want, bound),
        *differences(f"jvp of {what}", forward_jacobian(f, xs), want, bound),
    ]


def first_order_errors(sample: Sample) -> list[str]:
    """Compare the full Jacobian, row by row and column by column, with central differences."""
    return jacobian_errors(str(sample), sample, sample.inputs, 1e-8)


def duality_errors(sample: Sample) -> list[str]:
    """Demand <vjp(g), t> = <g, jvp(t)>: exact algebra, so only rounding may part them."""
    places = leaves(sample.inputs)
    y = sample(*places)
    rng = np.random.default_rng(17)
    g = rng.standard_normal(y.shape)
    ts = [rng.standard_normal(x.shape) for x in sample.inputs]
    (moved,) = _core.push(places, [tensor(t) for t in ts], [y])
    grads = _core.sweep([y], [tensor(g)], places, False, True)
    left = vector([host(part) * t for part, t in zip(filled(grads, places), ts, strict=True)])
    right = vector([g * host(filled([moved], [y])[0])])
    return differences(f"duality of {sample}", left.sum(), right.sum(), 1e-12 * max(1.0, np.abs(left).sum()))


def second_order_errors(sample: Sample) -> list[str]:
    """Differentiate the vjp and the jvp again, by inputs and by cotangent or tangents, in both modes."""
    n = len(sample.inputs)
    rng = np.random.default_rng(19)
    g = rng.standard_normal(value_of(sample).shape)
    ts = [rng.standard_normal(x.shape) for x in sample.inputs]
    return [
        *jacobian_errors(f"the vjp of {sample}", vjp_of(sample, n), [*sample.inputs, g], 1e-7),
        *jacobian_errors(f"the jvp of {sample}", jvp_of(sample, n), [*sample.inputs, *ts], 1e-7),
    ]


def lane_errors(sample: Sample, ulps: float = 16, lanes: Sequence[str] = LANES) -> list[str]:
    """Compare value and gradients of one lane with those of another."""
    dtype = sample.inputs[0].dtype if sample.inputs else np.dtype("float64")
    g = None
    found = []
    for name in lanes:
        with lane(name):
            places = leaves(sample.inputs)
            y = sample(*places)
            if g is None:
                g = np.random.default_rng(23).uniform(0.5, 1.5, y.shape).astype(host(y).dtype)
            grads = _core.sweep([y], [tensor(g)], places, False, False) if y.requires_grad else []
            found.append([host(y), *(host(part) for part in filled(grads, places[: len(grads)]))])
    errors = []
    for k, (compiled, array) in enumerate(zip(*found, strict=True)):
        what = f"lanes of {sample}: " + (f"gradient {k - 1}" if k else "value")
        if compiled.dtype != array.dtype:
            errors.append(f"{what}: {compiled.dtype} and {array.dtype}")
        bound = ulps * np.finfo(dtype).eps * np.maximum(np.abs(array), 1) if array.dtype.kind == "f" else 0
        errors += differences(what, compiled, array, bound)
    return errors


# --- random graphs ----------------------------------------------------------------------------------

STEPS: list[Function] = [
    lambda a, b: a * b,
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: mg.maximum(a, b),
    lambda a, b: mg.tanh(a) / (2 + mg.sin(b)),
    lambda a, b: mg.where(tensor(CHOICES), a, b),
    lambda a, b: a[..., ::-1] * b[..., 1:2] + a[..., :1],
    lambda a, b: a.sum() * b,
    lambda a, b: mg.broadcast_to(a, (2, 3)).mT.reshape(2, 3) - b,
    lambda a, b: mg.concatenate([mg.broadcast_to(a, (2, 3)), mg.broadcast_to(b, (2, 3))])[1:3],
    lambda a, b: mg.matmul(mg.broadcast_to(a, (2, 3)).mT, mg.broadcast_to(b, (2, 3))).sum(axis=0),
    lambda a, b: (
        mg.affine(mg.broadcast_to(a, (2, 3)), mg.broadcast_to(b, (2, 3)), mg.broadcast_to(a, (2, 3))[:, 1])[:, :1] * b
    ),
]


def random_graph(seed: int, n: int = 13) -> list[Any]:
    """Return three leaves of shapes that broadcast, and n tensors computed of earlier ones, often of the same."""
    rng = np.random.default_rng(seed)
    pool = leaves(draw(f"graph {seed}", [(2, 3), (3,), (1, 3)]))
    for _ in range(n):
        a, b = rng.integers(max(0, len(pool) - 5), len(pool), size=2)
        pool.append(mg.tanh(STEPS[rng.integers(len(STEPS))](pool[a], pool[b])))
    return pool
