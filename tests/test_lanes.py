"""The compiled lane and the array lane give the same numbers, on the samples and on random shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ops_checks import LANES, differences, lane, lane_errors, random_graph
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
    shapes = [
        ("matmul", (m, k), (k, n)),
        ("affine", (m, k), (n, k), (n,)),
        ("matmul", (2, m, k), (k, n)),
        ("matmul", (k,), (k, n)),
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
