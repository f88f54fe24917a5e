"""What the pages mean: axes, broadcasting, ties, joins, indices and losses, against NumPy and differences."""

import math
from functools import partial

import numpy as np
import pytest

from minigrad import _core, losses, ops
from minigrad.backend import compiled_lane
from minigrad.errors import DTypeError, MinigradError, ShapeError, UsageError
from minigrad.op import PAGE
from minigrad.tensor import Tensor, tensor

RNG = np.random.default_rng(20)
INF = math.inf


def draw(*shape):
    return RNG.standard_normal(shape)


def leaf(x):
    return tensor(np.asarray(x), requires_grad=True)


def run(f, xs):
    """Return the results of f on fresh leaves, as a list, and the leaves."""
    leaves = [leaf(x) for x in xs]
    y = f(*leaves)
    return list(y) if isinstance(y, tuple) else [y], leaves


def values(f, xs):
    return [y.detach().numpy() for y in run(f, xs)[0]]


def gradients(f, xs, gs):
    """Return the recorded gradients of ⟨g, f⟩ and the leaves."""
    ys, leaves = run(f, xs)
    given = [tensor(g) for g in gs]
    return _core.sweep(ys, given, leaves, True, True), leaves


def plain(grads, xs):
    return [np.zeros(np.shape(x)) if g is None else g.detach().numpy() for g, x in zip(grads, xs, strict=True)]


def difference(f, xs, ts, step=1e-5):
    """Return the central difference of arrays f(xs) in the direction ts."""
    above, below = (f([x + sign * t for x, t in zip(xs, ts, strict=True)]) for sign in (step, -step))
    return [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]


def dot(xs, ys):
    return sum(float(np.sum(x * y)) for x, y in zip(xs, ys, strict=True))


def differentiates(f, *xs, tol=2e-8):
    """Demand that f's reverse, forward and second derivatives are what differences say, on both lanes."""
    shapes = [y.shape for y in values(f, xs)]
    gs, ts = [draw(*s) for s in shapes], [draw(*np.shape(x)) for x in xs]
    moved = difference(lambda points: values(f, points), xs, ts)
    bent = difference(lambda points: plain(gradients(f, points, gs)[0], points), xs, ts)
    for on in (True, False):
        with compiled_lane(on):
            grads, leaves = gradients(f, xs, gs)
            np.testing.assert_allclose(dot(plain(grads, xs), ts), dot(gs, moved), rtol=tol, atol=tol)
            for one, other in zip(plain(grads, xs), single_gradients(f, xs, gs), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
            ys, leaves = run(f, xs)
            pushed = _core.push(leaves, [tensor(t) for t in ts], ys)
            for got, wanted in zip(pushed, moved, strict=True):
                np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-7)
            grads, leaves = gradients(f, xs, gs)
            known = [(g, t) for g, t in zip(grads, ts, strict=True) if g is not None and g.requires_grad]
            again = [None] * len(xs)
            if known:
                again = _core.sweep([g for g, _ in known], [tensor(t) for _, t in known], leaves, False, True)
            for got, wanted in zip(plain(again, xs), bent, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def single_gradients(f, xs, gs):
    """Return the gradient of ⟨g, f⟩ element by element, from central differences of the values."""
    out = []
    for k, x in enumerate(xs):
        slope = np.zeros(np.shape(x))
        for place in np.ndindex(slope.shape):
            ts = [np.zeros(np.shape(other)) for other in xs]
            ts[k][place] = 1.0
            slope[place] = dot(gs, difference(lambda points: values(f, points), xs, ts))
        out.append(slope)
    return out


def same(f, reference, *xs, tol=1e-13):
    """Demand f's values on both lanes, in float64 and float32."""
    for on in (True, False):
        with compiled_lane(on):
            for dtype, eps in (("float64", tol), ("float32", 1e-5)):
                cast = [np.asarray(x).astype(dtype) for x in xs]
                y = f(*[tensor(x) for x in cast])
                assert str(y.dtype) == dtype
                wanted = np.asarray(reference(*cast))
                assert y.shape == wanted.shape
                np.testing.assert_allclose(y.numpy(), wanted, rtol=eps, atol=eps)


# --- products -------------------------------------------------------------------------------------

MATMUL = [
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((3, 5), (5,)),
    ((3, 5), (5, 7)),
    ((2, 3, 5), (5, 7)),
    ((2, 3, 5), (5,)),
    ((5,), (2, 5, 3)),
    ((3, 5), (2, 5, 7)),
    ((2, 3, 5), (2, 5, 3)),
    ((3, 1, 2, 5), (2, 5, 3)),
]


@pytest.mark.parametrize(("a", "b"), MATMUL)
def test_matmul_has_numpys_semantics(a, b):
    xs = draw(*a), draw(*b)
    same(ops.matmul, np.matmul, *xs)
    differentiates(ops.matmul, *xs)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_affine(shape):
    xs = draw(*shape), draw(7, 5), draw(7)
    same(ops.affine, lambda x, w, b: np.einsum("...i,oi->...o", x, w) + b, *xs)
    differentiates(ops.affine, *xs)


EINSUM = [
    ("ij,jk->ik", (2, 3), (3, 5)),
    ("ij,jk", (2, 3), (3, 5)),
    ("ba", (2, 3)),
    ("i,i", (3,), (3,)),
    ("i,j->ji", (2,), (3,)),
    ("ij->i", (2, 3)),
    ("ij->", (2, 3)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij,k->k", (2, 3), (5,)),
    ("bij,bjk->kb", (2, 3, 5), (2, 5, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 5), (5, 2)),
    ("ij,j,i->", (2, 3), (3,), (2,)),
    ("...ij,...jk->...ik", (2, 3, 5), (2, 5, 3)),
    ("i ... , i ... -> ...", (3, 2, 5), (3, 2, 5)),
    ("...i->...", (2, 3)),
]


@pytest.mark.parametrize("case", EINSUM, ids=lambda case: case[0])
def test_einsum(case):
    subscripts, *shapes = case
    xs = [draw(*shape) for shape in shapes]
    same(lambda *xs: ops.einsum(subscripts, *xs), lambda *xs: np.einsum(subscripts, *xs), *xs)
    differentiates(lambda *xs: ops.einsum(subscripts, *xs), *xs)


def test_what_is_said_of_a_callable_is_what_it_computes():
    generic = {"matmul": {"a": draw(3, 5), "b": draw(5, 7), "g": draw(3, 7)}}
    spoken = [(op, name) for op in PAGE for name, rule in op.rules.items() if rule.expr is None]
    assert {op.name for op, _ in spoken} == set(generic)
    for op, name in spoken:
        rule = op.rules[name]
        known = {key: tensor(x) for key, x in generic[op.name].items()}
        known.update({f"{key}_shape": x.shape for key, x in generic[op.name].items()})
        said = rule.said.compile(rule.said.names)(PAGE, *[known[key] for key in rule.said.names])
        np.testing.assert_allclose(said.numpy(), rule(known.__getitem__).numpy(), rtol=1e-13)


def test_rules_call_only_what_the_page_has():
    for op in PAGE:
        for rule in [*op.rules.values(), *op.jvps.values()]:
            for function in rule.said.functions:
                known = function in PAGE.records or function in PAGE.helpers
                assert known or op.kind == "elementwise", (op, rule.text)


def test_every_differentiable_operand_has_a_rule_each_way():
    for op in PAGE:
        if op.kind == "general":
            assert set(op.rules) == set(op.jvps), op


# --- shapes and joins -----------------------------------------------------------------------------

SHAPES = {
    "mT": (ops.mT, lambda x: np.swapaxes(x, -1, -2), (2, 3, 5)),
    "permute": (lambda x: ops.permute(x, (2, 0, -2)), lambda x: x.transpose(2, 0, 1), (2, 3, 5)),
    "permute reverses": (ops.permute, np.transpose, (2, 3, 5)),
    "transpose": (lambda x: ops.transpose(x, 0, -1), lambda x: np.swapaxes(x, 0, 2), (2, 3, 5)),
    "moveaxis": (lambda x: ops.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), (2, 3, 5)),
    "moveaxis two": (
        lambda x: ops.moveaxis(x, (0, 1), (-1, 0)),
        lambda x: np.moveaxis(x, (0, 1), (-1, 0)),
        (2, 3, 5),
    ),
    "reshape": (lambda x: ops.reshape(x, (5, -1)), lambda x: x.reshape(5, -1), (2, 3, 5)),
    "flatten": (lambda x: ops.flatten(x, 1), lambda x: x.reshape(2, 15), (2, 3, 5)),
    "flatten a scalar": (ops.flatten, lambda x: x.reshape(1), ()),
    "squeeze": (ops.squeeze, np.squeeze, (2, 1, 3, 1)),
    "squeeze one": (lambda x: ops.squeeze(x, -1), lambda x: np.squeeze(x, -1), (2, 1, 3, 1)),
    "expand_dims": (lambda x: ops.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1)), (2, 3)),
    "broadcast_to": (
        lambda x: ops.broadcast_to(x, (3, 2, 5, 3)),
        lambda x: np.broadcast_to(x, (3, 2, 5, 3)),
        (2, 1, 3),
    ),
    "sum_to": (
        lambda x: ops.sum_to(x, (3, 1)),
        lambda x: x.sum(axis=(0, 2)).reshape(3, 1),
        (2, 3, 5),
    ),
    "flip": (lambda x: ops.flip(x, (0, -1)), lambda x: x[::-1, :, ::-1], (2, 3, 5)),
    "flip all": (ops.flip, np.flip, (2, 3)),
    "cumsum": (lambda x: ops.cumsum(x, axis=-2), lambda x: np.cumsum(x, axis=1), (2, 3, 5)),
    "pad": (
        lambda x: ops.pad(x, ((1, 2), (0, 3)), value=2.5),
        lambda x: np.pad(x, ((1, 2), (0, 3)), constant_values=2.5),
        (2, 3),
    ),
    "pad all": (lambda x: ops.pad(x, 1), lambda x: np.pad(x, 1), (2, 3)),
    "clone": (ops.clone, np.copy, (2, 3)),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES.keys())
def test_shapes(case):
    f, reference, shape = case
    x = draw(*shape)
    same(f, reference, x)
    differentiates(f, x)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate_and_stack(axis):
    parts = [draw(2, 3, 5) for _ in range(3)]
    uneven = [draw(*(n if d == axis % 3 else m for d, m in enumerate((2, 3, 5)))) for n in (1, 2, 3)]
    same(lambda *xs: ops.stack(*xs, axis=axis), lambda *xs: np.stack(xs, axis), *parts)
    same(lambda *xs: ops.concatenate(xs, axis=axis), lambda *xs: np.concatenate(xs, axis), *uneven)
    few = [part[:, :2, :1] for part in parts]
    differentiates(lambda *xs: ops.stack(*xs, axis=axis), *few)
    differentiates(lambda a, b: ops.concatenate(a, few[2], b, axis=axis), *few[:2])


def test_joining_many_and_the_same_operand_twice():
    x = leaf(draw(3))
    y = ops.stack([x] * 11)
    g = draw(11, 3)
    y.backward(tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), g.sum(axis=0), rtol=1e-13)


def test_split_chunk_unbind_follow_pytorch():
    x = draw(2, 7)
    assert [p.shape for p in ops.split(tensor(x), 3, axis=1)] == [(2, 3), (2, 3), (2, 1)]
    assert [p.shape for p in ops.split(tensor(x), [1, 4, 2], dim=1)] == [(2, 1), (2, 4), (2, 2)]
    assert [p.shape for p in ops.chunk(tensor(x), 5, axis=-1)] == [(2, 2), (2, 2), (2, 2), (2, 1)]
    for parts in (ops.split(tensor(x), [1, 4, 2], 1), ops.chunk(tensor(x), 4, 1)):
        np.testing.assert_array_equal(np.concatenate([p.numpy() for p in parts], axis=1), x)
    for k, part in enumerate(ops.unbind(tensor(x), dim=-1)):
        np.testing.assert_array_equal(part.numpy(), x[:, k])
    differentiates(lambda x: ops.split(x, 3, axis=1), x)
    differentiates(lambda x: ops.unbind(x, 1), x[:, :3])


# --- indexing -------------------------------------------------------------------------------------

PLACES, MASK = np.array([[0, 2], [2, 1]]), np.array([True, False, True])
INDICES = [
    1,
    -1,
    slice(None, None, -2),
    (slice(None), 2),
    (Ellipsis, 0),
    (None, 1),
    (),
    np.int64(2),
    np.array(2),
    PLACES,
    MASK,
    (slice(None), PLACES),
    (PLACES[0], PLACES[1]),
    (MASK, slice(None), 3),
    (0, slice(None), [1, 1, 4]),
    [0, 0, 2],
    (PLACES, None),
    np.array([[True, False, False], [False, True, True], [False, False, True]]),
    [],
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_getitem_and_its_transpose(index):
    x = draw(3, 3, 5)
    same(lambda x: x[index], lambda x: x[index], x)
    differentiates(lambda x: x[index], x)
    g = draw(*x[index].shape)
    wanted = np.zeros_like(x)
    np.add.at(wanted, index if isinstance(index, tuple) else (index,), g)
    (got,), _ = gradients(lambda x: ops.getitem(x, index), [x], [g])
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-13)


def test_tensors_index():
    x = draw(3, 5)
    np.testing.assert_array_equal(tensor(x)[tensor(PLACES), tensor([[1, 3]])].numpy(), x[PLACES, [[1, 3]]])
    np.testing.assert_array_equal(tensor(x)[tensor(x) > 0].numpy(), x[x > 0])


@pytest.mark.parametrize("index", [2, PLACES, (slice(1, None), PLACES[0])], ids=repr)
def test_put_adds_into_zeros(index):
    x = draw(*np.zeros((3, 5))[index].shape)
    wanted = np.zeros((3, 5))
    np.add.at(wanted, index, x)
    np.testing.assert_allclose(ops.put(tensor(x), index, (3, 5)).numpy(), wanted, rtol=1e-13)
    differentiates(lambda x: ops.put(x, index, (3, 5)), x)


def test_put_refuses_to_broadcast():
    with pytest.raises(ShapeError, match=r"part of shape \(\)"):
        ops.put(tensor([1.0, 2.0]), 0, (3,))


def test_embedding():
    index = np.array([[0, 3, 3], [1, 0, 3]])
    weight = draw(5, 2)
    same(lambda w: ops.embedding(w, index), lambda w: w[index], weight)
    same(lambda w: ops.embedding(w, tensor(index[:0])), lambda w: w[index[:0]], weight)
    differentiates(lambda w: ops.embedding(w, tensor(index)), weight)
    for wrong in (5, -1):
        with pytest.raises(IndexError, match=f"index {wrong} is outside"):
            ops.embedding(tensor(weight), np.array([0, wrong, 2]))
    with pytest.raises(DTypeError, match="integers are needed"):
        ops.embedding(tensor(weight), np.array([0.0]))


# --- reductions -----------------------------------------------------------------------------------

AXES = [None, 0, -1, (0, 2), (2, 0), ()]
REDUCTIONS = {
    "sum": (ops.sum, np.sum),
    "mean": (ops.mean, np.mean),
    "var": (ops.var, np.var),
    "max": (ops.max, np.max),
    "min": (ops.min, np.min),
    "prod": (ops.prod, np.prod),
    "logsumexp": (
        ops.logsumexp,
        lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
    ),
    "norm": (ops.norm, lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))),
    "norm 3": (
        lambda x, axis, keepdims: ops.norm(x, 3, axis, keepdims),
        lambda x, axis, keepdims: np.cbrt(np.sum(np.abs(x) ** 3, axis=axis, keepdims=keepdims)),
    ),
    "norm 1": (
        lambda x, axis, keepdims: ops.norm(x, 1, axis=axis, keepdims=keepdims),
        lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    ),
    "norm inf": (
        lambda x, axis, keepdims: ops.norm(x, INF, dim=axis, keepdim=keepdims),
        lambda x, axis, keepdims: np.max(np.abs(x), axis=axis, keepdims=keepdims),
    ),
}


@pytest.mark.parametrize("axis", AXES, ids=repr)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, axis):
    ours, reference = REDUCTIONS[name]
    # Distinct magnitudes: no two elements tie, not even in absolute value.
    x = RNG.permutation(np.linspace(0.3, 1.7, 30)).reshape(2, 3, 5) * RNG.choice([-1, 1], (2, 3, 5))
    for keepdims in (False, True):
        options = {"axis": axis, "keepdims": keepdims}
        same(partial(ours, **options), partial(reference, **options), x)
        if name != "var" or axis != ():
            differentiates(partial(ours, **options), x, tol=1e-7)


def test_spread_is_the_transpose_of_sum():
    x = draw(2, 5)
    wanted = np.broadcast_to(x[:, None, :], (2, 3, 5))
    same(lambda x: PAGE.spread(x, 1, False, (2, 3, 5)), lambda x: np.broadcast_to(x[:, None, :], (2, 3, 5)), x)
    np.testing.assert_array_equal(PAGE.spread(tensor(x[:, None]), -2, True, (2, 3, 5)).numpy(), wanted)
    differentiates(lambda x: PAGE.spread(x, 1, False, (2, 3, 5)), x)


def test_pytorch_and_numpy_words():
    x = tensor(draw(2, 3))
    assert ops.sum(x, dim=1, keepdim=True).shape == ops.sum(x, axis=[1], keepdims=True).shape == (2, 1)
    with pytest.raises(MinigradError):
        ops.sum(x, axis=2)
    with pytest.raises(ShapeError, match="twice"):
        ops.logsumexp(x, axis=(0, -2))


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_variance_corrects(correction):
    x = draw(3, 5)
    same(lambda x: ops.var(x, axis=1, correction=correction), lambda x: np.var(x, axis=1, ddof=correction), x)
    differentiates(lambda x: ops.var(x, axis=1, correction=correction), x)


@pytest.mark.parametrize("op", [ops.max, ops.min])
def test_ties_share(op):
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]) * (1 if op is ops.max else -1)
    (got,), _ = gradients(lambda x: op(x, axis=1), [x], [np.array([2.0, 3.0])])
    np.testing.assert_array_equal(got.detach().numpy(), [[0, 1, 1], [1, 1, 1]])
    ys, leaves = run(lambda x: op(x, axis=1), [x])
    (moved,) = _core.push(leaves, [tensor([[5.0, 1.0, 2.0], [3.0, 6.0, 0.0]], dtype="float64")], ys)
    np.testing.assert_array_equal(moved.numpy(), [1.5, 3.0])


@pytest.mark.parametrize("zeros", [(), (1,), (1, 3), (0, 1, 2, 3, 4)])
def test_products_are_exact_at_zeros(zeros):
    x = draw(2, 5)
    x[1, list(zeros)] = 0.0
    wanted = [[np.prod(np.delete(row, k)) for k in range(5)] for row in x]
    (got,), _ = gradients(lambda x: ops.prod(x, axis=1), [x], [np.ones(2)])
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-13)
    differentiates(lambda x: ops.prod(x, axis=1), x)
    differentiates(lambda x: ops.prod(x.reshape(2, 5, 1), axis=(2, 0)), x)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None], ids=repr)
def test_softmax(axis):
    x = draw(2, 3, 5)

    def soft(x):
        return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)

    same(lambda x: ops.softmax(x, axis=axis), soft, x)
    same(lambda x: ops.log_softmax(x, axis=axis), lambda x: np.log(soft(x)), x)
    differentiates(lambda x: ops.softmax(x, axis=axis), x[:, :2, :3])
    differentiates(lambda x: ops.log_softmax(x, axis=axis), x[:, :2, :3])


def test_softmax_family_far_out():
    x = tensor(np.array([[1e4, 1e4 - 1], [-1e4, -1e4 - 1], [-INF, 3.0]]))
    e = math.exp(-1)
    big = math.log1p(e)
    np.testing.assert_allclose(ops.softmax(x).numpy(), [[1 / (1 + e), e / (1 + e)]] * 2 + [[0, 1]], rtol=1e-12)
    np.testing.assert_allclose(ops.log_softmax(x).numpy(), [[-big, -1 - big]] * 2 + [[-INF, 0]], rtol=1e-12)
    np.testing.assert_allclose(ops.logsumexp(x, axis=1).numpy(), [1e4 + big, -1e4 + big, 3], rtol=1e-12)
    rows = np.array([[INF, 1e3], [-INF, -INF], [INF, INF], [INF, -INF]])
    np.testing.assert_array_equal(ops.logsumexp(tensor(rows), axis=1).numpy(), [INF, -INF, INF, INF])
    assert np.isnan(ops.logsumexp(tensor([math.nan, 1.0])).item())


@pytest.mark.parametrize("ord", [1, 1.5, 2, 3, INF])
def test_norm_has_no_slope_at_zero(ord):
    x = np.array([[0.0, 0.0, 0.0], [3.0, -4.0, 1.0]])
    (got,), _ = gradients(lambda x: ops.norm(x, ord, axis=1), [x], [np.array([7.0, 1.0])])
    got = got.detach().numpy()
    assert not got[0].any()
    assert np.isfinite(got[1]).all()
    assert got[1].any()


def test_norm_refuses_other_orders():
    for ord in (0, -1, -INF):
        with pytest.raises(UsageError, match="orders are positive"):
            ops.norm(tensor([1.0]), ord)


def test_positions():
    x = np.array([[1.0, 5.0, 5.0], [2.0, -1.0, -1.0]])
    for ours, reference in ((ops.argmax, np.argmax), (ops.argmin, np.argmin)):
        for axis in (None, 0, -1):
            y = ours(leaf(x), axis=axis, keepdims=True)
            assert not y.requires_grad
            np.testing.assert_array_equal(y.numpy(), reference(x, axis=axis, keepdims=True))


def test_nothing_to_reduce():
    x = np.zeros((0, 3))
    np.testing.assert_array_equal(ops.sum(tensor(x), axis=0).numpy(), np.zeros(3))
    np.testing.assert_array_equal(ops.prod(tensor(x), axis=0).numpy(), np.ones(3))
    np.testing.assert_array_equal(ops.logsumexp(tensor(x), axis=0).numpy(), np.full(3, -INF))
    assert ops.softmax(tensor(x), axis=0).shape == (0, 3)
    for op in (ops.max, ops.min, ops.argmax, ops.argmin):
        with pytest.raises(ShapeError, match=f"{op.name}\\(x\\): x \\(0, 3\\)"):
            op(tensor(x), axis=0)
    for op in (ops.sum, ops.prod, ops.logsumexp):
        (got,), _ = gradients(lambda x, op=op: op(x, axis=0), [x], [np.ones(3)])
        assert got.shape == (0, 3)


# --- comparisons and kinds ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["less", "less_equal", "equal", "not_equal", "greater", "greater_equal"])
def test_comparisons(name):
    a, b = np.array([[1.0], [2.0], [3.0]]), np.array([2.0, 3.0])
    y = getattr(ops, name)(leaf(a), tensor(b))
    assert not y.requires_grad
    assert y.dtype == np.bool_
    np.testing.assert_array_equal(y.numpy(), getattr(np, name)(a, b))
    np.testing.assert_array_equal(getattr(ops, name)(tensor(b), 2).numpy(), getattr(np, name)(b, 2))
    np.testing.assert_array_equal(getattr(ops, name)(tensor([1, 2, 3]), 2).numpy(), getattr(np, name)([1, 2, 3], 2))


def test_questions():
    x = np.array([0.0, math.nan, INF, -2.0])
    for name in ("isnan", "isfinite", "logical_not"):
        np.testing.assert_array_equal(getattr(ops, name)(tensor(x)).numpy(), getattr(np, name)(x))
    np.testing.assert_array_equal(ops.logical_not(tensor(x > 0)).numpy(), ~(x > 0))


def test_astype_carries_gradients_between_floats_only():
    x = tensor(np.array([1.5, -2.5], dtype=np.float32), requires_grad=True)
    ops.sum(ops.astype(x, "float64") * np.array([3.0, 5.0])).backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [3, 5])
    whole = ops.astype(x, np.int32)
    assert not whole.requires_grad
    np.testing.assert_array_equal(whole.numpy(), [1, -2])
    assert ops.astype(whole, float).dtype == np.float64
    with pytest.raises(DTypeError, match="float16"):
        ops.astype(x, np.float16)


def test_detach_shares_memory():
    x = leaf(draw(3))
    y = ops.detach(x)
    assert not y.requires_grad
    assert np.shares_memory(y.numpy(), x.detach().numpy())


# --- losses ---------------------------------------------------------------------------------------

CLASSES = [((5,), ()), ((3, 5), (3,)), ((2, 5, 3), (2, 3))]


def cross_entropy_by_hand(x, target, weight, ignored, reduction):
    """Return the cross entropy of class numbers, one prediction at a time."""
    axis = 1 if x.ndim > 1 else 0
    rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    parts, weights = [], []
    for row, goal in zip(rows, target.ravel(), strict=True):
        w = 0.0 if goal == ignored else 1.0 if weight is None else weight[goal]
        probability = np.exp(row[goal if goal != ignored else 0]) / np.exp(row).sum()
        parts.append(-w * np.log(probability))
        weights.append(w)
    if reduction == "none":
        return np.reshape(parts, target.shape)
    return np.sum(parts) / (np.sum(weights) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "goals"), CLASSES)
def test_cross_entropy_of_class_numbers(shape, goals, weighted, reduction):
    x = draw(*shape)
    target = np.asarray(RNG.integers(0, 5, goals))
    if goals:
        target[0] = 2
        target[-1] = 4
    weight = np.linspace(0.5, 1.7, 5) if weighted else None
    ignored = 2 if goals else -100

    def f(x):
        return losses.cross_entropy(x, target, weight, ignore_index=ignored, reduction=reduction)

    wanted = cross_entropy_by_hand(x, target, weight, ignored, reduction)
    np.testing.assert_allclose(f(tensor(x)).numpy(), wanted, rtol=1e-12)
    differentiates(f, x)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [shape for shape, _ in CLASSES])
def test_cross_entropy_of_probabilities(shape, weighted, reduction):
    x, target = draw(*shape), RNG.random(shape)
    weight = np.linspace(0.5, 1.7, 5) if weighted else None
    axis = 1 if len(shape) > 1 else 0

    def f(x, target):
        return losses.cross_entropy(x, target, weight, reduction=reduction)

    scale = 1 if weight is None else weight.reshape((-1,) + (1,) * (len(shape) - axis - 1))
    parts = -np.sum(scale * target * np.log(np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)), axis=axis)
    wanted = {"none": parts, "sum": parts.sum(), "mean": parts.mean()}[reduction]
    np.testing.assert_allclose(f(tensor(x), tensor(target)).numpy(), wanted, rtol=1e-12)
    differentiates(f, x, target)


def test_one_hot_targets_are_class_numbers():
    x, target = draw(3, 5), np.array([4, 0, 2])
    numbers = losses.cross_entropy(tensor(x), target).item()
    assert losses.cross_entropy(tensor(x), np.eye(5)[target]).item() == pytest.approx(numbers, rel=1e-13)
    assert losses.cross_entropy(tensor(x), np.eye(5, dtype=int)[target]).item() == pytest.approx(numbers, rel=1e-13)


def test_cross_entropy_at_the_ends():
    sure = losses.cross_entropy(tensor([[1e5, -1e5], [-INF, 0.0]]), [1, 1], reduction="none")
    np.testing.assert_array_equal(sure.numpy(), [2e5, 0])
    assert losses.cross_entropy(tensor([[-INF, 0.0]]), tensor([[0.0, 1.0]])).item() == 0.0
    x = leaf(draw(3, 5))
    nothing = losses.cross_entropy(x, np.full(3, -100))
    assert math.isnan(nothing.item())
    single = tensor(draw(3, 5).astype(np.float32))
    assert losses.cross_entropy(single, [1, 2, 0], weight=np.linspace(1, 2, 5)).dtype == np.float32


@pytest.mark.parametrize(
    ("target", "more", "error", "message"),
    [
        ([0, 5], {}, IndexError, "target 5 is none of the classes 0 to 4"),
        ([0, -1], {}, IndexError, "target -1 is none"),
        ([0, 1, 2], {}, ShapeError, r"without its axis 1, the classes: \(2,\)"),
        ([0.0, 1.0], {}, ShapeError, "integers, the numbers of classes"),
        ([0, 1], {"weight": [1.0, 2.0]}, ShapeError, "each of the 5 classes"),
        ([[0.2] * 5] * 2, {"weight": [1.0, 2.0]}, ShapeError, "each class of x"),
        ([0, 1], {"reduction": "average"}, UsageError, "'average'"),
        ([[0.2] * 5] * 2, {"ignore_index": 3}, UsageError, "no meaning for probabilities"),
    ],
)
def test_cross_entropy_refuses(target, more, error, message):
    x = tensor(np.ones((2, 5), dtype=np.float32))
    with pytest.raises(error, match=message):
        losses.cross_entropy(x, target, **more)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_squared_errors(reduction):
    x, target = draw(3, 5), draw(3, 5)
    square = (x - target) ** 2
    wanted = {"none": square, "mean": square.mean(), "sum": square.sum()}[reduction]
    np.testing.assert_allclose(losses.mse(tensor(x), tensor(target), reduction).numpy(), wanted, rtol=1e-13)
    differentiates(lambda x, target: losses.mse(x, target, reduction), x, target)
    np.testing.assert_allclose(
        losses.half_squared_error(tensor(x), tensor(target)).item(), square.sum() / 2, rtol=1e-13
    )
    differentiates(losses.half_squared_error, x, target)


def test_losses_do_not_broadcast():
    x, target = tensor([[1.0, 2.0]]), tensor([1.0, 2.0])
    for loss in (losses.mse, losses.half_squared_error, losses.binary_cross_entropy_with_logits):
        with pytest.raises(ShapeError, match="must have one shape"):
            loss(x, target)
    for loss in (losses.mse, losses.binary_cross_entropy_with_logits):
        with pytest.raises(UsageError, match="'avg'"):
            loss(x, x, reduction="avg")


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_binary_cross_entropy(reduction):
    x, target, factor = draw(3, 5), RNG.random((3, 5)), np.linspace(0.5, 1.7, 5)
    p = 1 / (1 + np.exp(-x))
    for pos_weight in (None, factor):
        parts = -(1 if pos_weight is None else pos_weight) * target * np.log(p) - (1 - target) * np.log1p(-p)
        wanted = {"none": parts, "mean": parts.mean(), "sum": parts.sum()}[reduction]
        got = losses.binary_cross_entropy_with_logits(tensor(x), tensor(target), reduction, pos_weight)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)
    differentiates(
        lambda x, target, factor: losses.binary_cross_entropy_with_logits(x, target, reduction, factor),
        x,
        target,
        factor,
    )
    with pytest.raises(ShapeError, match="pos_weight does not broadcast"):
        losses.binary_cross_entropy_with_logits(tensor([1.0]), tensor([1.0]), pos_weight=[1.0, 2.0])


def test_binary_cross_entropy_far_out():
    x, target = np.array([1e4, -1e4, 50.0, -1e4]), np.array([1.0, 0.0, 1.0, 1.0])
    got = losses.binary_cross_entropy_with_logits(tensor(x), tensor(target), "none")
    np.testing.assert_allclose(got.numpy(), [0, 0, math.exp(-50), 1e4], rtol=1e-13)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
def test_losses_are_pytorchs():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional
    goals = np.array([[4, 2, -100], [0, 1, 3]])
    x, weight, soft = draw(2, 5, 3), np.linspace(0.5, 1.7, 5), RNG.random((2, 5, 3))
    cases = [
        (losses.cross_entropy, theirs.cross_entropy, goals, {"weight": weight}),
        (losses.cross_entropy, theirs.cross_entropy, goals * 0 - 100, {"weight": weight}),
        (losses.cross_entropy, theirs.cross_entropy, soft, {"weight": weight}),
        (losses.mse, theirs.mse_loss, soft, {}),
        (
            losses.binary_cross_entropy_with_logits,
            theirs.binary_cross_entropy_with_logits,
            soft,
            {"pos_weight": weight[:3]},
        ),
    ]
    for ours, reference, target, options in cases:
        for reduction in ("none", "mean", "sum"):
            a, b = leaf(x), torch.tensor(x, requires_grad=True)
            y = ours(a, target, reduction=reduction, **options)
            given = {key: torch.tensor(value) for key, value in options.items()}
            z = reference(b, torch.tensor(target), reduction=reduction, **given)
            np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-14)
            y.backward(tensor(np.ones(y.shape)))
            z.backward(torch.ones_like(z))
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_operations_return_tensors():
    for name in ops.__all__:
        assert callable(getattr(ops, name)), name
    assert isinstance(ops.sum(np.ones(3)), Tensor)
