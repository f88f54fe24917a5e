"""The compiled lane and the array lane give the same numbers, on the samples and on random shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ops_checks import LANES, differences, lane, lane_errors, random_graph, scaled
from ops_samples import ELEMENTWISE, Sample, sample, samples, with_shapes

import minigrad as mg
from minigrad import _core
from minigrad.op import PAGE

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(PAGE.records))
def test_samples(name: str, dtype: str) -> None:
    with np.errstate(invalid="ignore"):
        assert not [line for one in samples(name) for line in lane_errors(one.cast(dtype))]


@st.composite
def broadcastable(draw: st.DrawFn, name: str) -> Sample:
    n = len(PAGE.records[name].operands)
    shapes = hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=4, max_side=5, min_side=0)
    return with_shapes(name, draw(shapes).input_shapes).cast(draw(st.sampled_from(DTYPES)))


@st.composite
def products(draw: st.DrawFn) -> Sample:
    m, k, n = (draw(st.integers(0, 19)) for _ in range(3))
    s, t = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    shapes = [
        ("matmul", (m, k), (k, n)),
        ("matmul", (s, t, m, k), (k, n)),
        ("matmul", (m, k), (s, t, k, n)),
        ("matmul", (s, t, m, k), (t, k, n)),
        ("matmul", (s, 1, m, k), (t, k, n)),
        ("matmul", (t, m, k), (s, 1, k, n)),
        ("matmul", (k,), (k,)),
        ("matmul", (k,), (k, n)),
        ("matmul", (m, k), (k,)),
        ("matmul", (k,), (s, k, n)),
        ("matmul", (s, t, m, k), (k,)),
        ("affine", (k,), (n, k), (n,)),
        ("affine", (m, k), (n, k), (n,)),
        ("affine", (s, t, m, k), (n, k), (n,)),
    ]
    return sample(*draw(st.sampled_from(shapes))).cast(draw(st.sampled_from(DTYPES)))


@st.composite
def parts(draw: st.DrawFn) -> Sample:
    shape = draw(hnp.array_shapes(max_dims=3, max_side=5))
    return sample("getitem", shape, index=draw(hnp.basic_indices(shape, allow_newaxis=True)))


@pytest.mark.parametrize("name", list(ELEMENTWISE))
def test_random_broadcasting(name: str) -> None:
    @settings(few, max_examples=15)
    @given(broadcastable(name))
    def agree(one: Sample) -> None:
        assert not lane_errors(one)

    agree()


@few
@given(products())
def test_random_products(one: Sample) -> None:
    assert not lane_errors(one)


@few
@given(parts())
def test_random_parts(one: Sample) -> None:
    assert not lane_errors(one)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int, edges: bool) -> None:
    found = []
    for name in LANES:
        with lane(name):
            pool = random_graph(seed)
            g = mg.tensor(np.cos(np.arange(pool[-1].size)).reshape(pool[-1].shape))
            result = _core.sweep([pool[-1]], [g], pool, False, True, edges=edges)
            grads = result[0] if edges else result
            found.append([*pool, *(mg.zeros_like(x) if g is None else g for x, g in zip(pool, grads, strict=True))])
    for k, (compiled, array) in enumerate(zip(*found, strict=True)):
        assert not differences(f"tensor {k}", compiled.numpy(), array.numpy(), 1e-12)


STRIDES = [
    ("matmul", lambda a, b: (a[::2], b)),
    ("matmul", lambda a, b: (a[:, ::3], b[::3])),
    ("matmul", lambda a, b: (a[::-1], b[:, ::-1])),
    ("matmul", lambda a, b: (b.T, a.T)),
    ("matmul", lambda a, b: (a[0, ::2], b[::2])),
    ("matmul", lambda a, b: (a, b[:, 3])),
    ("matmul", lambda a, b: (a.reshape(1, 12, 2, 17).swapaxes(1, 2), b)),
    ("matmul", lambda a, b: (np.broadcast_to(a, (3, *a.shape)), b)),
    ("matmul", lambda a, b: (np.broadcast_to(a[:1], a.shape), b)),
    ("affine", lambda a, b: (a.reshape(3, 8, 17)[:, 1:5], b.T, b[0])),
    ("affine", lambda a, b: (a.reshape(3, 8, 17).swapaxes(0, 1), b.T[::2], b[0, ::2])),
    ("affine", lambda a, b: (a[:, ::-1], b[::-1].T, b[0, ::-1])),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", range(len(STRIDES)))
@pytest.mark.parametrize("moving", ["all", "first", "second"])
def test_products_of_views(case: int, moving: str, dtype: str) -> None:
    name, views = STRIDES[case]
    rng = np.random.default_rng(case)
    operands = views(rng.normal(size=(24, 17)).astype(dtype), rng.normal(size=(17, 11)).astype(dtype))
    found = []
    for one in LANES:
        with lane(one):
            xs = [mg.from_numpy(x) for x in operands]  # they share the views, strides and all
            for x in {"all": xs, "first": xs[:1], "second": xs[1:2]}[moving]:
                x.requires_grad_()
            y = getattr(mg, name)(*xs)
            y.backward(mg.tensor(np.cos(np.arange(y.size)).reshape(y.shape[::-1]).T.astype(dtype)))
            found.append([y.numpy(), *(x.grad.numpy() for x in xs if x.requires_grad)])
    for compiled, array in zip(*found, strict=True):
        assert not differences(name, compiled, array, 1e-12 if dtype == "float64" else 1e-5)


def compare_lanes(name: str, make: Callable[[], tuple[mg.Tensor, ...]], dtype: str) -> None:
    """Demand of the compiled lane what the array lane computes; `make` returns a result and leaves."""
    found = []
    for one in LANES:
        with lane(one), np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            y, *leaves = make()
            y.backward(mg.tensor(np.cos(np.arange(y.size)).reshape(y.shape).astype(dtype)))
            found.append([y.numpy(), *(x.grad.numpy() for x in leaves if x.grad is not None)])
    for compiled, array in zip(*found, strict=True):
        assert not differences(name, compiled, array, scaled(1e-12 if dtype == "float64" else 1e-5, array))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("classes", [1, 2, 7, 16, 17, 31, 97])
def test_cross_entropy_of_rows(classes: int, reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(classes)
    logits = (20 * rng.normal(size=(13, classes))).astype(dtype)
    target = rng.integers(0, classes, 13)
    target[[2, 5]] = 101  # the number to be ignored
    weight = rng.uniform(0.5, 2.0, classes)

    def loss(options: dict[str, Any]) -> Callable[[], tuple[mg.Tensor, ...]]:
        def make() -> tuple[mg.Tensor, ...]:
            x = mg.tensor(logits, requires_grad=True)
            twice = mg.losses.cross_entropy(x, mg.tensor(target), ignore_index=101, reduction=reduction, **options)
            return twice + mg.losses.cross_entropy(x, mg.tensor(target), ignore_index=101, reduction=reduction), x

        return make

    compare_lanes("cross_entropy", loss({}), dtype)
    compare_lanes("cross_entropy", loss({"weight": weight}), dtype)
    target[:] = 101
    compare_lanes("cross_entropy", loss({}), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_what_is_not_finite(dtype: str) -> None:
    logits = np.linspace(-3.0, 3.0, 5 * 19).reshape(5, 19).astype(dtype)
    logits[0, 18], logits[1, 3], logits[2, 4], logits[3] = np.nan, np.inf, -np.inf, -np.inf

    def make() -> tuple[mg.Tensor, ...]:
        x = mg.tensor(logits, requires_grad=True)
        return mg.losses.cross_entropy(x, mg.tensor([1, 3, 2, 5, 18]), reduction="none"), x

    compare_lanes("cross_entropy", make, dtype)


def test_targets_outside_of_the_classes() -> None:
    for target in ([0, 3], [-1, 2], [0, -100000]):
        with pytest.raises(IndexError, match="none of the classes"):
            mg.losses.cross_entropy(mg.zeros(2, 3), mg.tensor(target))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (13,), (5, 7)])
def test_embedding_adds_rows_that_are_named_twice(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(3)
    rows, index = rng.normal(size=(5, 17)).astype(dtype), rng.integers(0, 5, shape)

    def make() -> tuple[mg.Tensor, ...]:
        weight = mg.tensor(rows, requires_grad=True)
        return mg.embedding(weight, mg.tensor(index)) * mg.embedding(weight, mg.tensor(index // 2)), weight

    compare_lanes("embedding", make, dtype)
