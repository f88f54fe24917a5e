"""Every record of the page, on both lanes: values, two derivatives, broadcasting, layouts, shared operands."""

import functools
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ops_checks import (
    LANES,
    STENCIL,
    STEP,
    differences,
    duality_errors,
    first_order_errors,
    jacobian_errors,
    lane,
    leaves,
    random_graph,
    second_order_errors,
    value_errors,
)
from ops_samples import CHOICES, ELEMENTWISE, Array, Sample, draw, samples, scatter, sum_to, with_shapes

import minigrad as mg
from minigrad import _core
from minigrad.op import PAGE

RECORDS = list(PAGE.records)
SMOOTH = [name for name in RECORDS if PAGE.records[name].rules or PAGE.records[name].vjp]
SEVERAL = [name for name in ELEMENTWISE if len(PAGE.records[name].operands) > 1]


@pytest.fixture(params=LANES, autouse=True)
def on_lane(request: pytest.FixtureRequest) -> Iterator[str]:
    with lane(request.param), np.errstate(all="ignore"):
        yield request.param


def all_errors(check: Callable[..., list[str]], name: str, *args: Any) -> list[str]:
    return [line for one in samples(name) for line in check(one, *args)]


# --- every record, by its samples -----------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_samples_reach_every_operand_and_every_parameter(name: str) -> None:
    op = PAGE.records[name]
    assert samples(name), f"add samples and a reference of {name} to ops_samples.py"
    assert op.kind != "elementwise" or name in ELEMENTWISE, f"{name} misses the tests of edges and broadcasting"
    moved = {op.operand_name(k) for one in samples(name) for k in one.moving}
    ruled = set(op.operands) - set(op.indices) if op.vjp else set(op.rules)
    assert moved == ruled - set(op.indices)
    assert {key for one in samples(name) for key in one.params} == set(op.params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDS)
def test_value(name: str, dtype: str) -> None:
    assert not all_errors(value_errors, name, dtype)


@pytest.mark.parametrize("name", SMOOTH)
def test_jacobian_of_vjp_and_jvp(name: str) -> None:
    assert not all_errors(first_order_errors, name)


@pytest.mark.parametrize("name", SMOOTH)
def test_duality_of_vjp_and_jvp(name: str) -> None:
    assert not all_errors(duality_errors, name)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_order(name: str) -> None:
    assert not all_errors(second_order_errors, name)


@pytest.mark.parametrize("name", [name for name in RECORDS if name not in SMOOTH])
def test_what_has_no_derivative_ends_the_graph(name: str) -> None:
    one = samples(name)[0]
    operands = [x if x.dtype.kind != "f" else mg.tensor(x, requires_grad=True) for x in one.operands]
    assert not one.op(*operands, **one.params).requires_grad


# --- edges of the number line ---------------------------------------------------------------------

EITHER_ZERO = {"maximum", "minimum", "relu", "clip", "elu", "sign"}
"""Built on the larger or smaller of two numbers: IEEE 754 leaves the sign open that a zero has then."""


def allowed(name: str, x: Array, want: Array) -> Array:
    """Return how far a value may be off: 4 units in its last place, but for two products of x with a small factor."""
    if name == "gelu":  # 1 + erf cancels for negative x
        return 2 * np.finfo(x.dtype).eps * np.abs(x)
    denormal = np.abs(x) * np.finfo(x.dtype).smallest_subnormal if name == "silu" else 0
    return np.nan_to_num(4 * np.spacing(np.abs(want)) + denormal)


def edges(dtype: str) -> Array:
    info = np.finfo(dtype)
    low, tiny = float(info.smallest_subnormal), float(info.smallest_normal)
    positive = [0.0, low, 3 * low, tiny, float(info.eps)]
    positive += [0.25, 0.5, 1.0, 1.5, 7.25, 19.0, 60.5, 88.5, 103.0, 709.5, 745.0]
    positive += [float(info.max) ** 0.5, float(info.max), math.inf]
    return np.array([*positive, *(-x for x in positive), math.nan], dtype)


def reference_at(name: str, operands: list[Array], params: dict[str, Any]) -> Array:
    wide = [x.astype(np.longdouble) if x.dtype.kind == "f" else x for x in operands]
    return np.asarray(ELEMENTWISE[name](*wide, **params))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if name != "bce_with_logits"])
def test_edge_values(name: str, dtype: str) -> None:
    one = samples(name)[0]
    x = edges(dtype)
    floating = [k for k, operand in enumerate(one.operands) if operand.dtype.kind == "f"]
    grids = iter(np.meshgrid(*[x] * len(floating)))
    operands = [
        next(grids) if k in floating else np.resize(CHOICES, (len(x), len(x))) for k in range(len(one.operands))
    ]
    want = reference_at(name, operands, one.params).astype(dtype)
    got = one.op(*operands, **one.params).numpy()
    assert got.dtype == dtype
    assert not differences(f"{name} in {dtype}", got, want, allowed(name, operands[-1], want))
    if name not in EITHER_ZERO:
        zero = want == 0
        assert not differences(f"sign of zero of {name}", np.signbit(got)[zero], np.signbit(want)[zero], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edge_values_of_binary_cross_entropy(dtype: str) -> None:
    x = edges(dtype)[np.isfinite(edges(dtype))]
    operands = [x[:, None], np.array([0.0, 0.25, 1.0], dtype), np.array(1.0, dtype)]
    want = reference_at("bce_with_logits", operands, {})
    got = mg.bce_with_logits(*operands).numpy()
    assert not differences("bce_with_logits", got, want.astype(dtype), 8 * np.spacing(np.abs(want.astype(dtype))))


INF, NAN = math.inf, math.nan
DERIVATIVES = [
    ("abs", {}, {-0.0: 0, INF: 1, -INF: -1}),
    ("sign", {}, {0.0: 0, 3.0: 0, -INF: 0}),
    ("relu", {}, {-0.0: 0, 1e-30: 1, -1e-30: 0, INF: 1, -INF: 0}),
    ("leaky_relu", {"slope": 0.25}, {0.0: 0.25, 2.0: 1, -INF: 0.25}),
    ("thresholded_relu", {"alpha": 1.5}, {1.5: 1, 1.4: 0, INF: 1, -INF: 0}),
    ("hard_sigmoid", {"alpha": 0.5, "beta": 0.5}, {-1.0: 0, 1.0: 0, 0.0: 0.5, INF: 0, -INF: 0}),
    ("softsign", {}, {0.0: 1, INF: 0, -INF: 0}),
    ("scaled_tanh", {"alpha": 3.0, "beta": 2.0}, {0.0: 6, INF: 0, -INF: 0}),
    ("elu", {"alpha": 0.5}, {0.0: 0.5, INF: 1, -INF: 0, -800.0: 0}),
    ("clip", {"low": -1.0, "high": 2.0}, {-1.0: 1, 2.0: 1, 2.5: 0, -INF: 0, 0.0: 1}),
    ("tanh", {}, {0.0: 1, INF: 0, -INF: 0, 400.0: 0}),
    ("sigmoid", {}, {0.0: 0.25, INF: 0, -INF: 0, -800.0: 0}),
    ("softplus", {}, {0.0: 0.5, INF: 1, -INF: 0, 800.0: 1}),
    ("erf", {}, {0.0: 2 / math.sqrt(math.pi), INF: 0, -INF: 0}),
    ("exp", {}, {0.0: 1, -INF: 0, INF: INF}),
    ("expm1", {}, {0.0: 1, -INF: 0, INF: INF}),
    ("log", {}, {0.0: INF, INF: 0}),
    ("log1p", {}, {-1.0: INF, 0.0: 1, INF: 0}),
    ("sqrt", {}, {0.0: INF, 4.0: 0.25, INF: 0}),
    ("reciprocal", {}, {2.0: -0.25, INF: 0, 0.0: -INF}),
    ("square", {}, {0.0: 0, INF: INF, -3.0: -6}),
    ("silu", {}, {0.0: 0.5, 800.0: 1, -800.0: 0}),
    ("gelu", {}, {0.0: 0.5, 50.0: 1, -50.0: 0}),
]


@pytest.mark.parametrize(("name", "params", "table"), DERIVATIVES, ids=[row[0] for row in DERIVATIVES])
def test_derivatives_at_kinks_and_limits(name: str, params: dict[str, Any], table: dict[float, float]) -> None:
    x = mg.tensor(np.array(list(table)), requires_grad=True)
    y = PAGE.records[name](x, **params)
    (t,) = _core.push([x], [mg.ones_like(x)], [y])
    y.backward(mg.ones_like(y))
    want = np.array(list(table.values()), dtype="float64")
    assert not differences(f"gradient of {name}", x.grad.numpy(), want, 1e-15)
    assert not differences(f"tangent of {name}", t.numpy(), want, 1e-15)


@pytest.mark.parametrize(
    ("name", "a", "b", "wanted"),
    [
        ("maximum", 3.0, 3.0, (0.5, 0.5)),
        ("minimum", -2.0, -2.0, (0.5, 0.5)),
        ("maximum", INF, INF, (0.5, 0.5)),
        ("maximum", 1.0, 2.0, (0, 1)),
        ("minimum", 1.0, 2.0, (1, 0)),
        ("pow", 0.0, 2.0, (0, 0)),
        ("pow", 0.0, 0.0, (0, 0)),
        ("pow", 0.0, 1.0, (1, 0)),
        ("pow", -3.0, 2.0, (-6, NAN)),
        ("pow", 5.0, 0.0, (0, math.log(5))),
        ("mul", 0.0, 4.0, (4, 0)),
        ("div", 0.0, 4.0, (0.25, 0)),
    ],
)
def test_derivatives_of_two_operands_at_kinks(name: str, a: float, b: float, wanted: tuple[float, float]) -> None:
    places = leaves([np.array([a]), np.array([b])])
    PAGE.records[name](*places).backward(mg.tensor(np.ones(1)))
    got = [x.grad.item() for x in places]
    assert not differences(f"gradients of {name}({a}, {b})", got, wanted, 1e-15)


# --- broadcasting ---------------------------------------------------------------------------------

PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()),
    ((), (5,)),
    ((1,), ()),
    ((1,), (7,)),
    ((1,), (1, 1)),
    ((5,), (5,)),
    ((5, 1), (1, 7)),
    ((5, 7), (7,)),
    ((5, 7), (5, 1)),
    ((3, 5, 7), (5, 1)),
    ((3, 1, 7), (5, 1)),
    ((7,), (2, 3, 1)),
    ((1, 1, 3), (2, 5, 1)),
    ((1, 1, 1, 1, 2), (3, 1)),
    ((0,), (1,)),
    ((0,), ()),
    ((3, 0), (3, 1)),
    ((2, 1, 0), (5, 1)),
]


def expected(one: Sample, g: Array) -> tuple[Array, list[Array]]:
    """Return value and gradients by the reference and differences of it, summed back to the operands' shapes."""
    wide = [x.astype(np.longdouble) if x.dtype.kind == "f" else x for x in one.operands]
    full = [np.array(x) for x in np.broadcast_arrays(*wide)]
    gradients = []
    for k in one.moving:
        slope: Any = 0.0
        for steps, factor in STENCIL:
            moved = [x + steps * STEP if j == k else x for j, x in enumerate(full)]
            slope = slope + factor / STEP * one.reference(*moved)
        gradients.append(sum_to((slope * g).astype("float64"), one.operands[k].shape))
    return np.asarray(one.reference(*full), dtype="float64"), gradients


def elementwise_errors(one: Sample, lay_out: Callable[[Array], Array] = np.asarray) -> list[str]:
    operands = [lay_out(x) if x.ndim else x for x in one.operands]
    tensors = [mg.from_numpy(x).requires_grad_() if k in one.moving else x for k, x in enumerate(operands)]
    y = one.op(*tensors, **one.params)
    g = np.cos(np.arange(y.size)).reshape(y.shape)
    value, gradients = expected(one, g)
    y.backward(mg.from_numpy(lay_out(g) if g.ndim else g))
    errors = differences(f"value of {one}", y.numpy(), value, 1e-13)
    for k, want in zip(one.moving, gradients, strict=True):
        errors += differences(f"gradient {k} of {one}", tensors[k].grad.numpy(), want, 1e-8)
    return errors


@pytest.mark.parametrize("name", SEVERAL)
def test_broadcasting(name: str) -> None:
    turned = [pair[::-1] for pair in PAIRS if pair[0] != pair[1]]
    assert not [line for pair in PAIRS + turned for line in elementwise_errors(with_shapes(name, pair))]


def test_broadcasting_of_three_operands_to_a_shape_that_none_has() -> None:
    shapes = ((5, 1, 1), (3, 1), (2,))
    for name in ("where", "bce_with_logits"):
        assert not elementwise_errors(with_shapes(name, shapes))


def test_shapes_that_do_not_broadcast_name_the_operation_and_both_shapes() -> None:
    a, b = mg.tensor(np.ones((5, 3))), mg.tensor(np.ones((5, 2)))
    for name in ("add", "mul", "pow", "maximum", "less"):
        with pytest.raises(mg.errors.ShapeError, match=rf"{name}\(a, b\).*\(5, 3\).*\(5, 2\)"):
            PAGE.records[name](a, b)


def test_many_axes() -> None:
    shape = (1, 2) * 12
    assert not elementwise_errors(with_shapes("mul", (shape[:16], (1,) * 32)))


# --- layouts --------------------------------------------------------------------------------------


def strided(x: Array) -> Array:
    out = np.empty([2 * n for n in x.shape], x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    out[...] = x
    return out


def reversed_axes(x: Array) -> Array:
    index = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[index]).reshape(x.shape)[index]


def unaligned(x: Array) -> Array:
    out = np.zeros(x.shape, dtype=[("gap", "i1"), ("x", x.dtype)])["x"]
    out[...] = x
    return out


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "fortran": np.asfortranarray,
    "strided": strided,
    "reversed": reversed_axes,
    "unaligned": unaligned,
    "half": lambda x: np.stack([x, x], axis=-1)[..., 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_layouts(name: str, layout: str) -> None:
    n = len(PAGE.records[name].operands)
    for shapes in (((3, 5),) * n, ((3, 5), (5,), ())[:n], ((2, 3, 5),) * n):
        assert not elementwise_errors(with_shapes(name, shapes), LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["matmul", "affine", "getitem", "sum", "softmax", "concatenate"])
def test_layouts_of_other_records(name: str, layout: str) -> None:
    for one in samples(name):
        operands = tuple(LAYOUTS[layout](x) if x.dtype.kind == "f" and x.ndim else x for x in one.operands)
        laid_out = Sample(one.name, one.op, operands, one.params, one.moving)
        tensors = [mg.from_numpy(x).requires_grad_() for x in laid_out.inputs]
        plain = leaves(one.inputs)
        y, want = laid_out(*tensors), one(*plain)
        g = np.cos(np.arange(y.size)).reshape(y.shape)
        y.backward(mg.from_numpy(LAYOUTS[layout](g) if g.ndim else g))
        want.backward(mg.tensor(g))
        assert not differences(f"value of {one}", y.numpy(), want.numpy(), 1e-13)
        for a, b in zip(tensors, plain, strict=True):
            assert not differences(f"gradient of {one}", a.grad.numpy(), b.grad.numpy(), 1e-13)


def test_broadcast_views_are_read_but_never_written() -> None:
    row = np.array([0.5, -1.5, 2.5])
    x = mg.from_numpy(np.broadcast_to(row, (5, 3))).requires_grad_()
    y = mg.tanh(x) * x
    y.backward(mg.from_numpy(np.broadcast_to(np.array([1.0, 2.0, 3.0]), (5, 3))))
    want = np.array([1, 2, 3]) * (np.tanh(row) + row / np.cosh(row) ** 2)
    assert not differences("gradient", x.grad.numpy(), np.tile(want, (5, 1)), 1e-14)
    assert not differences("operand", x.numpy()[0], row, 0)


def test_gradients_are_memory_of_their_own() -> None:
    x, z = leaves(draw("own", [(3, 5), (3, 5)]))
    seed = mg.tensor(np.ones((3, 5)))
    (x + z).backward(seed)
    x.grad.zero_()
    assert not differences("other gradient", z.grad.numpy(), np.ones((3, 5)), 0)
    assert not differences("seed", seed.numpy(), np.ones((3, 5)), 0)


# --- one operand in several places ----------------------------------------------------------------

TWICE: dict[str, Callable[[Any], Any]] = {
    "a + a": lambda a: a + a,
    "a - a": lambda a: a - a,
    "a * a": lambda a: a * a,
    "a / a": lambda a: a / a,
    "a ** a": lambda a: a**a,
    "a * a * a": lambda a: a * a * a,
    "where": lambda a: mg.where(CHOICES, a, a),
    "maximum": lambda a: mg.maximum(a, a),
    "bce": lambda a: mg.bce_with_logits(a, a, a),
    "concatenate": lambda a: mg.concatenate([a, a, a], axis=1),
    "stack": lambda a: mg.stack([a, a]),
    "einsum": lambda a: mg.einsum("ij,kj->ik", a, a),
    "matmul": lambda a: a.mT @ a,
    "square matmul": lambda a: a[:, :2] @ a[:, :2],
    "affine": lambda a: mg.affine(a, a, a[:, 0]),
    "mse": lambda a: mg.mse(a, a),
    "soft_cross_entropy": lambda a: mg.soft_cross_entropy(a, a),
    "row by column": lambda a: a[0] * a[:, :1],
    "overlapping parts": lambda a: a[:, 1:] * a[:, :-1] + a[:, 1:],
    "elements": lambda a: a[0, 1] * a[1, 2] + a[0, 1],
    "one axis after another": lambda a: a.sum() * a.sum(axis=0) * a,
}


@pytest.mark.parametrize("name", TWICE)
def test_one_operand_in_several_places(name: str) -> None:
    (a,) = draw(f"{name} twice", [(2, 3)], (0.5, 2.0))
    assert not jacobian_errors(name, TWICE[name], [a], 1e-8)


@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "matmul", "concatenate"])
def test_an_operand_given_twice_has_two_edges(name: str) -> None:
    (a,) = leaves(draw("two edges", [(3, 3)], (0.5, 2.0)))
    y = PAGE.records[name](a, a)
    g = mg.tensor(np.cos(np.arange(y.size)).reshape(y.shape))
    (total,), found = _core.sweep([y], [g], [a], False, True, edges=True)
    assert [(node is y.node, k) for node, k, _ in found] == [(True, 0), (True, 1)]
    places = leaves([a.numpy(), a.numpy()])
    apart = _core.sweep([PAGE.records[name](*places)], [g], places, False, True)
    for (_, _, got), want in zip(found, apart, strict=True):
        assert not differences(f"contribution to {name}", got.numpy(), want.numpy(), 1e-14)
    assert not differences("sum", total.numpy(), sum(part.numpy() for part in apart), 1e-14)


@pytest.mark.parametrize("seed", range(12))
def test_contributions_of_edges_sum_to_the_gradients(seed: int) -> None:
    pool = random_graph(seed)
    y = pool[-1]
    g = mg.tensor(np.random.default_rng(seed).standard_normal(y.shape))
    plain = _core.sweep([y], [g], pool, False, True)
    totals, edges = _core.sweep([y], [g], pool, False, True, edges=True)
    for x, want, total in zip(pool, plain, totals, strict=True):
        arriving = [part.numpy() for node, k, part in edges if node.inputs[k] is x.node]
        if want is None:
            assert total is None
            assert not arriving
            continue
        seed_of = g.numpy() if x is y else 0.0
        assert not differences("total", total.numpy(), want.numpy(), 1e-12)
        assert not differences("sum of contributions", sum(arriving, seed_of), want.numpy(), 1e-12)
    order = [node.number for node, _, _ in edges]
    assert all(a >= b for a, b in pairwise(order)), "edges come in the order of the sweep"


# --- operations made of records -------------------------------------------------------------------


def test_split_chunk_and_unbind_are_parts() -> None:
    (x,) = draw("split", [(7, 3)])
    for f, want in [
        (lambda a: mg.split(a, 3), np.split(x, [3, 6])),
        (lambda a: mg.split(a, [2, 0, 5]), np.split(x, [2, 2])),
        (lambda a: mg.split(a, 2, axis=-1), np.split(x, [2], axis=1)),
        (lambda a: mg.chunk(a, 3), np.split(x, [3, 6])),
        (lambda a: mg.unbind(a, 1), [x[:, 0], x[:, 1], x[:, 2]]),
    ]:
        got = f(mg.tensor(x))
        assert len(got) == len(want)
        assert not [line for a, b in zip(got, want, strict=True) for line in differences("part", a.numpy(), b, 0)]
        assert not jacobian_errors("parts", f, [x], 1e-8)


@pytest.mark.parametrize("order", [1, 2, 3, 1.5, math.inf])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_norms(order: float, axis: Any) -> None:
    (x,) = draw(f"norm {order} {axis}", [(3, 5)])
    axes = (0, 1) if axis is None else axis
    powers = np.abs(x).max(axis=axes) if order == math.inf else (np.abs(x) ** order).sum(axis=axes) ** (1 / order)
    f = functools.partial(mg.norm, ord=order, axis=axis)
    assert not differences("norm", f(mg.tensor(x)).numpy(), powers, 1e-13)
    assert not jacobian_errors("norm", f, [x], 1e-8)


@pytest.mark.parametrize("order", [1, 2, 3, 1.5, math.inf])
def test_the_zero_vector_has_a_norm_without_slope(order: float) -> None:
    x = mg.tensor(np.zeros((2, 3)), requires_grad=True)
    mg.norm(x, ord=order, axis=1).sum().backward()
    assert not differences("gradient", x.grad.numpy(), np.zeros((2, 3)), 0)


SHAPES_BY_WORDS: list[tuple[Callable[[Any], Any], Callable[[Array], Array]]] = [
    (lambda a: mg.transpose(a, 0, -1), lambda x: np.swapaxes(x, 0, 2)),
    (lambda a: mg.swapaxes(a, 1, 2), lambda x: np.swapaxes(x, 1, 2)),
    (lambda a: mg.moveaxis(a, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    (lambda a: mg.moveaxis(a, (0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0))),
    (lambda a: mg.flatten(a), np.ravel),
    (lambda a: mg.flatten(a, 1), lambda x: x.reshape(2, 15)),
    (lambda a: a.T, lambda x: x.transpose()),
    (lambda a: a.unsqueeze(1), lambda x: x[:, None]),
    (lambda a: a.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    (lambda a: a.expand(7, -1, -1, 5), lambda x: np.stack([x] * 7)),
]


@pytest.mark.parametrize("row", range(len(SHAPES_BY_WORDS)))
def test_shapes_by_other_words(row: int) -> None:
    ours, theirs = SHAPES_BY_WORDS[row]
    (x,) = draw("words", [(2, 3, 5)])
    assert not differences("value", ours(mg.tensor(x)).numpy(), theirs(x), 0)
    a = mg.tensor(x, requires_grad=True)
    y = ours(a)
    g = np.cos(np.arange(y.size))
    y.backward(mg.tensor(g.reshape(y.shape)))
    places = theirs(np.arange(x.size).reshape(x.shape)).ravel()
    assert not differences("gradient", a.grad.numpy().ravel(), scatter(g, places, (x.size,)), 1e-14)


def test_embedding_rows_that_are_looked_up_often_collect_every_gradient() -> None:
    weight = mg.tensor(np.arange(15.0).reshape(5, 3), requires_grad=True)
    mg.embedding(weight, np.array([[4, 0], [4, 4]])).sum().backward()
    assert not differences("gradient", weight.grad.numpy(), np.outer([1, 0, 0, 0, 3], np.ones(3)), 0)
