"""Recurrent layers beside PyTorch (oneDNN on and off), JAX and NumPy: training, inference, other cells, memory.

Training is forward and backward of one layer with all weight gradients, the loss the sum of the outputs; inference is
the forward pass without recording. The count of floating-point operations is that of the products alone.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .measure import best, in_turn, ratio

Clock = Callable[[], list[Any]]

SHAPES = [  # batch, steps, input, hidden
    (1, 100, 32, 32),
    (1, 100, 64, 128),
    (8, 50, 32, 32),
    (8, 100, 32, 64),
    (16, 50, 64, 128),
    (32, 100, 128, 256),
    (32, 100, 256, 512),
    (64, 50, 512, 1024),
]
ODD = [(8, 50, 37, 37), (16, 50, 100, 100), (16, 50, 64, 129)]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Case(NamedTuple):
    """One layer, one shape, one way to run it."""

    cell: str
    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    training: bool = True

    @property
    def flops(self) -> float:
        """Multiplications and additions of the matrix products."""
        n, t, i, h = self.shape
        per_gate = (i + h) + ((i + h) + h if self.training else 0)
        return 2.0 * GATES[self.cell] * n * t * h * per_gate


def numbers(case: Case) -> dict[str, Any]:
    """Return the input (T, N, I) and PyTorch's parameters of one layer."""
    n, t, i, h = case.shape
    rows = GATES[case.cell] * h
    rng = np.random.default_rng(1)
    shapes = {"weight_ih_l0": (rows, i), "weight_hh_l0": (rows, h), "bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
    bound = 1 / np.sqrt(h)
    held = {name: rng.uniform(-bound, bound, size).astype(case.dtype) for name, size in shapes.items()}
    return {**held, "x": rng.standard_normal((t, n, i)).astype(case.dtype)}


def with_minigrad(case: Case, data: dict[str, Any]) -> Clock:
    import minigrad as mg

    _, _, i, h = case.shape
    layer = getattr(mg.nn, case.cell)(i, h, dtype=case.dtype)
    layer.load_state_dict({k: v for k, v in data.items() if k != "x"})
    x, parameters = mg.as_tensor(data["x"]), list(layer.parameters())

    def train() -> list[Any]:
        for p in parameters:
            p.grad = None
        layer(x)[0].sum().backward()
        return [p.grad.numpy() for p in parameters]

    def infer() -> list[Any]:
        with mg.no_grad():
            return [layer(x)[0].numpy()]

    return train if case.training else infer


def with_torch(case: Case, data: dict[str, Any], onednn: bool = True) -> Clock:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    _, _, i, h = case.shape
    layer = getattr(torch.nn, case.cell)(i, h, dtype=getattr(torch, case.dtype))
    layer.load_state_dict({k: torch.from_numpy(v) for k, v in data.items() if k != "x"})
    x, parameters = torch.from_numpy(data["x"]), list(layer.parameters())

    def train() -> list[Any]:
        for p in parameters:
            p.grad = None
        layer(x)[0].sum().backward()
        return [p.grad.numpy() for p in parameters]

    def infer() -> list[Any]:
        with torch.no_grad():
            return [layer(x)[0].numpy()]

    run = train if case.training else infer
    if onednn:
        return run

    def without() -> list[Any]:
        with torch.backends.mkldnn.flags(enabled=False):
            return run()

    return without


def with_jax(case: Case, data: dict[str, Any]) -> Clock:
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # read when jax is imported
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", case.dtype == "float64")
    *names, _ = data
    x = jnp.asarray(data["x"])
    start = jnp.zeros((case.shape[0], case.shape[3]), x.dtype)

    def lstm(carry: Any, gates: Any, _: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(carry: Any, from_x: Any, from_h: Any) -> Any:
        (h,) = carry
        (xr, xz, xn), (hr, hz, hn) = jnp.split(from_x, 3, axis=-1), jnp.split(from_h, 3, axis=-1)
        z = jax.nn.sigmoid(xz + hz)
        h = (1 - z) * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn) + z * h
        return (h,), h

    def outputs(p: Any, x: Any) -> Any:
        w_ih, w_hh, b_ih, b_hh = p

        def step(carry: Any, from_x: Any) -> Any:
            from_h = carry[0] @ w_hh.T + b_hh
            if case.cell == "GRU":
                return gru(carry, from_x, from_h)
            if case.cell == "LSTM":
                return lstm(carry, from_x + from_h, None)
            h = jnp.tanh(from_x + from_h)
            return (h,), h

        carry = (start, start) if case.cell == "LSTM" else (start,)
        return jax.lax.scan(step, carry, x @ w_ih.T + b_ih)[1]

    if case.training:
        run = jax.jit(jax.grad(lambda p, x: outputs(p, x).sum()))
    else:
        run = jax.jit(lambda p, x: [outputs(p, x)])
    p = [jnp.asarray(data[name]) for name in names]
    return lambda: [np.asarray(a) for a in run(p, x)]


def with_numpy(case: Case, data: dict[str, Any]) -> Clock:
    """Write an LSTM's passes out by hand: one product for the input, one a step for the state."""
    x, w, u = data["x"], data["weight_ih_l0"], data["weight_hh_l0"]
    n, steps, _, h = case.shape

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    def run() -> list[Any]:
        from_x = x @ w.T + (data["bias_ih_l0"] + data["bias_hh_l0"])
        gates = np.empty((steps, n, 4, h), x.dtype)
        hs, cs = np.zeros((steps + 1, n, h), x.dtype), np.zeros((steps + 1, n, h), x.dtype)
        for t in range(steps):
            a = (from_x[t] + hs[t] @ u.T).reshape(n, 4, h)
            gates[t] = sigmoid(a)
            gates[t, :, 2] = np.tanh(a[:, 2])
            i, f, g, o = (gates[t, :, k] for k in range(4))
            cs[t + 1] = f * cs[t] + i * g
            hs[t + 1] = o * np.tanh(cs[t + 1])
        if not case.training:
            return [hs[1:]]
        d = np.empty_like(gates)
        dh, dc = np.zeros((n, h), x.dtype), np.zeros((n, h), x.dtype)
        for t in reversed(range(steps)):
            i, f, g, o = (gates[t, :, k] for k in range(4))
            th = np.tanh(cs[t + 1])
            dh = dh + 1
            dc = dc + dh * o * (1 - th * th)
            d[t, :, 0], d[t, :, 1] = dc * g * i * (1 - i), dc * cs[t] * f * (1 - f)
            d[t, :, 2], d[t, :, 3] = dc * i * (1 - g * g), dh * th * o * (1 - o)
            dh, dc = d[t].reshape(n, 4 * h) @ u, dc * f
        rows = d.reshape(steps * n, 4 * h)
        bias = rows.sum(0)
        return [rows.T @ x.reshape(steps * n, -1), rows.T @ hs[:-1].reshape(steps * n, h), bias, bias]

    return run


PEERS: dict[str, tuple[str, Callable[[Case, dict[str, Any]], Clock]]] = {
    "minigrad": ("minigrad", with_minigrad),
    "torch": ("torch", with_torch),
    "torch, no oneDNN": ("torch", functools.partial(with_torch, onednn=False)),
    "jax, jit": ("jax", with_jax),
    "numpy": ("numpy", with_numpy),
}


def contestants(case: Case, names: list[str]) -> dict[str, Clock]:
    """Return those of the peers that are installed, after a comparison of their numbers."""
    data = numbers(case)
    found = {}
    for name in names:
        module, make = PEERS[name]
        if importlib.util.find_spec(module) is not None and not (name == "numpy" and case.cell != "LSTM"):
            found[name] = make(case, data)
    reference = found["torch"]() if "torch" in found else found["minigrad"]()
    close = {"float32": 2e-3, "float64": 1e-9}[case.dtype]
    for name, run in found.items():
        for ours, theirs in zip(run(), reference, strict=True):
            size = float(np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=close, atol=close * size, err_msg=f"{name}, {case}")
    return found


def measured(cases: list[Case], names: list[str], title: str) -> None:
    """Print one table: our time, speed and share of the peak, and the ratios to the peers."""
    from minigrad import _cpu

    names = [name for name in names if importlib.util.find_spec(PEERS[name][0]) is not None]
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    print(f"\n{title}, {threads} thread{'s' * (threads > 1)}")
    heads = "".join(f"{'/ ' + name:>19}" for name in names[1:])
    print(f"{'cell':<6}{'(batch, steps, I, H)':<24}{'dtype':<9}{'ms':>9}{'GFLOP/s':>9}{'peak':>6}{heads}")
    for case in cases:
        times = in_turn(contestants(case, names), rounds=7 if case.flops > 1e10 else 15, budget=0.1)
        peak = threads * _cpu.fma_peak(case.dtype)
        t = best(times["minigrad"])
        speed = case.flops / t
        shares = "".join(f"{ratio(times, 'minigrad', n):>19.3f}" if n in times else f"{'':>19}" for n in names[1:])
        line = f"{case.cell:<6}{case.shape!s:<24}{case.dtype:<9}{t * 1e3:>9.3f}{speed / 1e9:>9.1f}{speed / peak:>6.0%}"
        print(line + shares, flush=True)


def lstm() -> None:
    """Print the LSTM's tables: training, then inference."""
    names = ["minigrad", "torch", "torch, no oneDNN", "jax, jit", "numpy"]
    measured([Case("LSTM", s) for s in SHAPES], names, "Training an LSTM layer: forward + backward")
    measured([Case("LSTM", s, training=False) for s in SHAPES], names[:2], "Inference: forward without recording")


def cells() -> None:
    """Print the tables of other cells, of float64, and of sizes that fill no vector."""
    names = ["minigrad", "torch"]
    measured([Case(cell, s) for cell in ("GRU", "RNN") for s in SHAPES], names, "GRU and RNN, forward + backward")
    measured([Case("LSTM", s, "float64") for s in SHAPES], names, "LSTM in float64, forward + backward")
    measured([Case("LSTM", s) for s in ODD], names, "Sizes that fill no vector, forward + backward")


LENGTH = (8, 32, 64)  # batch, input, hidden of the long sequences


def steps() -> None:
    """Print how time grows with the number of steps, and the peak memory beside PyTorch's."""
    n, i, h = LENGTH
    print(f"\nTime and memory by the number of steps, LSTM, batch {n}, input {i}, hidden {h}, forward + backward")
    runs = {t: with_minigrad(c, numbers(c)) for t in (1000, 2000, 4000, 8000) for c in [Case("LSTM", (n, t, i, h))]}
    times = in_turn({str(t): run for t, run in runs.items()}, rounds=11, budget=0.1)
    print(f"{'steps':<8}{'ms':>9}{'/ 1000 steps':>14}")
    for t in runs:
        print(f"{t:<8}{best(times[str(t)]) * 1e3:>9.2f}{ratio(times, str(t), '1000'):>14.2f}")
    print("\nPeak of resident memory, less what it was before the first step, MB")
    print(f"{'(batch, steps, I, H)':<24}{'minigrad':>10}{'torch':>10}")
    for shape in [(n, 8000, i, h), *SHAPES[-3:]]:
        print(f"{shape!s:<24}" + "".join(f"{peak_memory(name, shape):>10.1f}" for name in ("minigrad", "torch")))


def peak_memory(name: str, shape: tuple[int, int, int, int]) -> float:
    """Return how far three training steps raise a fresh process's peak of resident memory, in MB."""
    call = f"from benchmarks.recurrent import climb; climb({name!r}, {shape!r})"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    return float(done.stdout)


def climb(name: str, shape: tuple[int, int, int, int]) -> None:
    """Print the rise of this process's own peak."""
    small = Case("LSTM", (2, 3, 5, 7))
    PEERS[name][1](small, numbers(small))()  # code and libraries are loaded before the first reading
    case = Case("LSTM", shape)
    data = numbers(case)
    before = peak_now(reset=True)
    run = PEERS[name][1](case, data)
    for _ in range(3):
        run()
    print((peak_now() - before) / 1e3)


def peak_now(reset: bool = False) -> float:
    """Return this process's peak of resident memory in kB, after bringing it down to what is resident now (Linux)."""
    # The peak that getrusage tells starts at the parent's.
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return float(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def main() -> None:
    """Print all tables."""
    for table in (lstm, cells, steps):
        table()
