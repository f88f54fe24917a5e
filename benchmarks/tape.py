"""The cost of a recorded operation: an LSTM written op by op, and single operations, beside other tapes.

25 nodes a step: for each of the four gates two products, two additions and an activation; then f * c, i * g, their
sum, tanh(c), o * tanh(c). Forward and backward with the gradients of all twelve parameters; the loss is the sum of the
last h.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .measure import best, in_turn, ratio

SHAPE = (8, 50, 32, 32)  # batch, steps, input, hidden


def weights(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return input and parameters as float32 arrays: x (T, N, I), per gate W (I, H), U (H, H), b (H,)."""
    n, t, i, h = shape
    rng = np.random.default_rng(1)

    def normal(*size: int) -> Any:
        return (0.3 * rng.standard_normal(size)).astype("float32")

    return {
        "x": normal(t, n, i),
        "h": normal(n, h),
        "c": normal(n, h),
        "parameters": [normal(*s) for _ in range(4) for s in ((i, h), (h, h), (h,))],
    }


def lstm(x: Any, h: Any, c: Any, p: list[Any], sigmoid: Callable[..., Any], tanh: Callable[..., Any]) -> Any:
    """Run the recurrence with any library's arrays; gates in the order i, f, g, o."""
    for t in range(len(x)):
        x_t = x[t]
        i = sigmoid(x_t @ p[0] + h @ p[1] + p[2])
        f = sigmoid(x_t @ p[3] + h @ p[4] + p[5])
        g = tanh(x_t @ p[6] + h @ p[7] + p[8])
        o = sigmoid(x_t @ p[9] + h @ p[10] + p[11])
        c = f * c + i * g
        h = o * tanh(c)
    return h


def with_minigrad(data: dict[str, Any]) -> Callable[[], list[Any]]:
    import minigrad as mg

    x, h, c = (mg.as_tensor(data[k]) for k in "xhc")
    p = [mg.tensor(w, requires_grad=True) for w in data["parameters"]]

    def step() -> list[Any]:
        for w in p:
            w.grad = None
        lstm(x, h, c, p, mg.sigmoid, mg.tanh).sum().backward()
        return [w.grad.numpy() for w in p]

    return step


def with_torch(data: dict[str, Any]) -> Callable[[], list[Any]]:
    import torch

    torch.set_num_threads(1)
    x, h, c = (torch.from_numpy(data[k]) for k in "xhc")
    p = [torch.from_numpy(w.copy()).requires_grad_() for w in data["parameters"]]

    def step() -> list[Any]:
        for w in p:
            w.grad = None
        lstm(x, h, c, p, torch.sigmoid, torch.tanh).sum().backward()
        return [w.grad.numpy() for w in p]

    return step


def with_autograd(data: dict[str, Any]) -> Callable[[], list[Any]]:
    import autograd.numpy as anp
    from autograd import grad

    def loss(p: list[Any]) -> Any:
        return anp.sum(lstm(data["x"], data["h"], data["c"], p, lambda a: 1 / (1 + anp.exp(-a)), anp.tanh))

    return lambda: grad(loss)(data["parameters"])


def with_mygrad(data: dict[str, Any]) -> Callable[[], list[Any]]:
    import mygrad
    from mygrad.nnet.activations import sigmoid

    x, h, c = (data[k] for k in "xhc")
    p = [mygrad.tensor(w) for w in data["parameters"]]

    def step() -> list[Any]:
        lstm(x, h, c, p, sigmoid, mygrad.tanh).sum().backward()
        return [w.grad for w in p]

    return step


def with_numpy(data: dict[str, Any]) -> Callable[[], list[Any]]:
    """Write forward and backward out by hand, without any recording."""
    x, p = data["x"], data["parameters"]
    w = np.concatenate([p[0], p[3], p[6], p[9]], axis=1)
    u = np.concatenate([p[1], p[4], p[7], p[10]], axis=1)
    b = np.concatenate([p[2], p[5], p[8], p[11]])
    hidden = p[2].shape[0]

    def step() -> list[Any]:
        h, c = data["h"], data["c"]
        kept = []
        for x_t in x:
            a = x_t @ w + h @ u + b
            i, f, o = (1 / (1 + np.exp(-a[:, k * hidden : (k + 1) * hidden])) for k in (0, 1, 3))
            g = np.tanh(a[:, 2 * hidden : 3 * hidden])
            before, c = c, f * c + i * g
            th = np.tanh(c)
            kept.append((x_t, h, before, i, f, g, o, th))
            h = o * th
        dw, du, db = np.zeros_like(w), np.zeros_like(u), np.zeros_like(b)
        dh, dc = np.ones_like(h), np.zeros_like(c)
        for x_t, h, before, i, f, g, o, th in reversed(kept):
            dc = dc + dh * o * (1 - th * th)
            da = np.concatenate(
                [
                    dc * g * i * (1 - i),
                    dc * before * f * (1 - f),
                    dc * i * (1 - g * g),
                    dh * th * o * (1 - o),
                ],
                axis=1,
            )
            dw += x_t.T @ da
            du += h.T @ da
            db += da.sum(0)
            dh, dc = da @ u.T, dc * f
        out = []
        for k in range(4):
            cut = slice(k * hidden, (k + 1) * hidden)
            out += [dw[:, cut], du[:, cut], db[cut]]
        return out

    return step


PEERS = {
    "minigrad": with_minigrad,
    "torch": with_torch,
    "autograd": with_autograd,
    "mygrad": with_mygrad,
    "numpy": with_numpy,
}


def installed(name: str) -> bool:
    """Say whether a peer can be imported."""
    return importlib.util.find_spec(name) is not None


def import_ratio(rounds: int = 15) -> tuple[float, float, float]:
    """Return seconds to import minigrad, numpy, and the median ratio, each in fresh interpreters in turn.

    The interpreter's own start is part of neither: each child measures its import.
    """
    code = "import time; a = time.perf_counter(); import {0}; print(time.perf_counter() - a)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # an installed package has its bytecode
    times: dict[str, list[float]] = {"minigrad": [], "numpy": []}
    for _ in range(rounds):
        for name, held in times.items():
            done = subprocess.run(
                [sys.executable, "-c", code.format(name)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            held.append(float(done.stdout))
    return best(times["minigrad"]), best(times["numpy"]), ratio(times, "minigrad", "numpy")


def main() -> None:
    """Print the table."""
    data = weights(SHAPE)
    steps = {name: make(data) for name, make in PEERS.items() if installed(name)}
    reference = steps["numpy"]()
    for name, step in steps.items():  # the same numbers, before anything is timed
        for ours, theirs in zip(step(), reference, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4, err_msg=name)
    times = in_turn(steps)
    nodes = 25 * SHAPE[1]
    print(f"LSTM op by op, forward + backward, {nodes} nodes, float32, one thread")
    print(f"(batch, steps, input, hidden) = {SHAPE}")
    print(f"{'library':<12}{'ms':>9}{'us/node':>10}{'ours / theirs':>16}")
    for name in steps:
        share = "" if name == "minigrad" else f"{ratio(times, 'minigrad', name):.3f}"
        t = best(times[name])
        print(f"{name:<12}{t * 1e3:>9.3f}{t / nodes * 1e6:>10.2f}{share:>16}")

    import minigrad as mg

    a, b = (np.random.default_rng(k).standard_normal((8, 32)).astype("float32") for k in (2, 3))
    ta, tb = mg.tensor(a, requires_grad=True), mg.tensor(b, requires_grad=True)
    single: dict[str, Callable[[], Any]] = {"minigrad, recorded": lambda: ta + tb, "numpy": lambda: a + b}
    if installed("torch"):
        import torch

        pa, pb = torch.from_numpy(a).requires_grad_(), torch.from_numpy(b).requires_grad_()
        single["torch, recorded"] = lambda: pa + pb
    times = in_turn(single, rounds=41, budget=0.01)
    empty = best(in_turn({"nothing": lambda: None})["nothing"])  # the cost of calling the lambda itself
    print("\na + b on (8, 32), float32")
    for name in single:
        share = "" if name.startswith("minigrad") else f"{ratio(times, 'minigrad, recorded', name):>10.3f}"
        print(f"{name:<20}{(best(times[name]) - empty) * 1e9:>8.0f} ns{share}")
    ours, numpy_time, share_of = import_ratio()
    print(f"\nimport minigrad {ours * 1e3:.0f} ms, import numpy {numpy_time * 1e3:.0f} ms, ratio {share_of:.2f}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
