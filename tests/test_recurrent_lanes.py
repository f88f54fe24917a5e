"""Recurrent layers on the GPU's lane against the CPU's: fused and op by op, first and second derivatives.

The GPU is a real one where there is one, else the stand-in of ``fake_cupy.py``.
"""

from collections.abc import Iterator
from typing import Any

import fake_cupy
import numpy as np
import pytest
from ops_checks import host
from test_array_lanes import REAL

import minigrad as mg

T, N, I, H = 5, 3, 7, 11
ROOM = {"float32": 1e-5, "float64": 1e-10}
LAYERS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    ("GRU", {"num_layers": 2, "batch_first": True}),
    ("GRU", {"bias": False, "bidirectional": True}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    ("LSTM", {"peepholes": "diagonal", "batch_first": True}),
    ("LSTM", {"peepholes": "full"}),
    ("LSTM", {"variant": "CIFG"}),
    ("LSTM", {"variant": "FGR"}),
]


@pytest.fixture(scope="module", autouse=True)
def there() -> Iterator[None]:
    if REAL:
        yield
    else:
        with fake_cupy.pretended():
            yield


def run(
    device: str, kind: str, options: dict[str, Any], dtype: str, lengths: Any = None, way: str = "fused"
) -> list[Any]:
    """Return outputs, final states, and the gradients of the input and of all parameters."""
    mg.manual_seed(3)
    layer = getattr(mg.nn, kind)(I, H, dtype=dtype, **options).to(device)
    layer.eval()  # backward works there as well
    shape = (N, T, I) if options.get("batch_first") else (T, N, I)
    numbers = np.random.default_rng(5).standard_normal(shape).astype(dtype)
    x = mg.tensor(numbers, device=device, requires_grad=True)
    if way == "watched":
        with mg.Tape():
            y, state = layer(x, lengths=lengths)
    else:
        y, state = layer(x, lengths=lengths)
    states = list(state) if isinstance(state, tuple) else [state]
    loss = sum(((s * s * (k + 1)).sum() for k, s in enumerate(states)), (mg.sin(y) * y).sum())
    if way == "second order":
        inputs = [x, *layer.parameters()]
        (g,) = mg._core.sweep([loss], [mg.ones_like(loss)], [x], True, True)
        more = mg._core.sweep([(g * g).sum()], [mg.ones_like(loss)], inputs, False, False)
        return [host(t) for t in [g, *(m for m in more if m is not None)]]
    loss.backward()
    return [host(t) for t in [y, *states, x.grad, *(p.grad for p in layer.parameters())]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["fused", "watched", "lengths", "second order"])
@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=[f"{k}-{'-'.join(map(str, o))}" for k, o in LAYERS])
def test_a_layer_gives_what_it_gives_on_the_cpu(kind: str, options: dict[str, Any], way: str, dtype: str) -> None:
    lengths = [4, 5, 2] if way == "lengths" else None
    near, far = (run(device, kind, options, dtype, lengths, way) for device in ("cpu", "cuda"))
    for k, (a, b) in enumerate(zip(near, far, strict=True)):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(b, a, rtol=ROOM[dtype], atol=ROOM[dtype] * (1 + np.abs(a).max()), err_msg=str(k))
