"""Every record of the page on the array lanes of other libraries: the standard's second device, and CuPy.

CuPy is the real one where it finds a GPU, or where MINIGRAD_TEST_CUPY=real asks for it; elsewhere the stand-in of
``fake_cupy.py``, which runs the same kernels on the CPU.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import fake_cupy
import numpy as np
import pytest
import strict_lane
from ops_checks import (
    differences,
    duality_errors,
    first_order_errors,
    host,
    lane,
    lane_errors,
    random_graph,
    second_order_errors,
    tensor,
    value_errors,
)
from ops_samples import samples

import minigrad as mg
from conftest import cuda_device
from minigrad import _core
from minigrad.op import PAGE

# A table of element types meets those of both libraries.
pytestmark = pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype")

RECORDS = list(PAGE.records)
SMOOTH = [name for name in RECORDS if PAGE.records[name].rules or PAGE.records[name].vjp]
REAL = os.environ.get("MINIGRAD_TEST_CUPY") == "real" or cuda_device()


@pytest.fixture(scope="module", params=["strict", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "strict":
        with strict_lane.entered():
            yield "strict"
    elif REAL:
        yield "cuda"
    else:
        with fake_cupy.pretended():
            yield "cuda"


@pytest.fixture(autouse=True)
def there(device: str) -> Iterator[None]:
    with lane(device), np.errstate(all="ignore"):
        yield


def all_errors(check: Callable[..., list[str]], name: str, *args: Any, most: int | None = None) -> list[str]:
    return [line for one in samples(name)[:most] for line in check(one, *args)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDS)
def test_value(name: str, dtype: str) -> None:
    assert not all_errors(value_errors, name, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDS)
def test_what_the_cpu_gives(name: str, dtype: str, device: str) -> None:
    assert not [line for one in samples(name) for line in lane_errors(one.cast(dtype), lanes=("array", device))]


@pytest.mark.parametrize("name", SMOOTH)
def test_jacobian_of_vjp_and_jvp(name: str) -> None:
    assert not all_errors(first_order_errors, name, most=4)


@pytest.mark.parametrize("name", SMOOTH)
def test_duality_of_vjp_and_jvp(name: str) -> None:
    assert not all_errors(duality_errors, name)


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "ctc"])  # it takes longer than all others together
def test_second_order(name: str) -> None:
    assert not all_errors(second_order_errors, name, most=1)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, device: str) -> None:
    found = []
    for name in ("array", device):
        with lane(name):
            pool = random_graph(seed)
            g = tensor(np.cos(np.arange(pool[-1].size)).reshape(pool[-1].shape))
            grads = _core.sweep([pool[-1]], [g], pool, False, True)
            found.append([*pool, *(mg.zeros_like(x) if g is None else g for x, g in zip(pool, grads, strict=True))])
    for k, (near, far) in enumerate(zip(*found, strict=True)):
        assert not differences(f"tensor {k}", host(far), host(near), 1e-12)
