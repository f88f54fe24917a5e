"""Matrix products of recurrent training, float32, beside NumPy's BLAS and PyTorch's, as shares of the FMA peak."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad import _cpu, get_num_threads, matmul, no_grad, tensor

from .measure import in_turn, ratio
from .recurrent import SHAPES

LAYERS = [shape for shape in SHAPES if shape not in {(8, 50, 32, 32), (64, 50, 512, 1024)}]
"""As small as another one, and too large to be measured beside the others."""


def shapes() -> list[tuple[str, int, int, int]]:
    """Return what one LSTM layer multiplies: (which of them is transposed, m, n, k)."""
    found = []
    for n, t, i, h in LAYERS:
        found += [("A Bᵀ", n * t, 4 * h, i), ("Aᵀ B", 4 * h, h, n * t), ("A B", n * t, i, 4 * h)]
    return [*found, ("A B", 8, 32, 32), ("A B", 512, 512, 512), ("A B", 1024, 1024, 1024), ("A B", 129, 100, 516)]


def with_minigrad(a: Any, b: Any) -> Callable[[], Any]:
    x, y = tensor(a), tensor(b)  # a transposed view stays one

    def product() -> Any:
        with no_grad():
            return matmul(x, y).numpy()

    return product


def with_torch(a: Any, b: Any) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(get_num_threads())
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    return lambda: torch.matmul(x, y).numpy()


def main() -> None:
    """Print the table."""
    peak = _cpu.fma_peak("float32") * get_num_threads()
    peers = {"NumPy": lambda a, b: lambda: a @ b}
    if importlib.util.find_spec("torch"):
        peers["PyTorch"] = with_torch
    print(f"{get_num_threads()} thread(s), FMA peak {peak / 1e9:.0f} GFLOP/s, {_cpu.isa()}")
    print(f"{'':<6}{'(m, n, k)':<20}{'GFLOP/s':>8}{'peak':>6}" + "".join(f"{f'/ {name}':>10}" for name in peers))
    rng = np.random.default_rng(1)
    for kind, m, n, k in shapes():
        a = rng.standard_normal((k, m) if kind[1] == "ᵀ" else (m, k)).astype("float32")
        b = rng.standard_normal((n, k) if kind[-1] == "ᵀ" else (k, n)).astype("float32")
        a, b = a.T if kind[1] == "ᵀ" else a, b.T if kind[-1] == "ᵀ" else b
        functions = {"minigrad": with_minigrad(a, b), **{name: make(a, b) for name, make in peers.items()}}
        for name, function in functions.items():
            np.testing.assert_allclose(function(), a @ b, rtol=1e-3, atol=1e-3, err_msg=name)
        times = in_turn(functions, rounds=15, budget=0.01)
        speed = 2 * m * n * k / min(times["minigrad"])  # the peak is the best of its runs as well
        ratios = "".join(f"{ratio(times, 'minigrad', name):>10.2f}" for name in peers)
        print(f"{kind:<6}{(m, n, k)!s:<20}{speed / 1e9:>8.1f}{speed / peak:>6.0%}{ratios}")
