"""An LSTM layer on the GPU beside PyTorch's, which is cuDNN's: one process, in turn, timed by CUDA events.

Forward and backward with all weight gradients, the loss the sum of the outputs, float32; without TF32 and with it, on
both sides. A launch is a kernel, or a whole CUDA graph: both are counted while one step runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SHAPES = [(1, 100, 128, 128), (32, 100, 256, 256), (64, 200, 512, 512), (128, 100, 1024, 1024)]
"""Batch, steps, input, hidden."""
ROUNDS = 25
Step = Callable[[], Any]


def flops(shape: tuple[int, int, int, int]) -> float:
    """Multiplications and additions of the matrix products of one step of training."""
    n, t, i, h = shape
    return 2.0 * 4 * n * t * h * (3 * (i + h))


def numbers(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return the input (T, N, I) and PyTorch's parameters of one layer."""
    n, t, i, h = shape
    rng, bound = np.random.default_rng(1), 1 / np.sqrt(h)
    sizes = {"weight_ih_l0": (4 * h, i), "weight_hh_l0": (4 * h, h), "bias_ih_l0": (4 * h,), "bias_hh_l0": (4 * h,)}
    held = {name: rng.uniform(-bound, bound, size).astype("float32") for name, size in sizes.items()}
    return {**held, "x": rng.standard_normal((t, n, i)).astype("float32")}


def with_minigrad(shape: tuple[int, int, int, int], data: dict[str, Any]) -> Step:
    """Return one step of training; it returns the gradients of the parameters, on the GPU."""
    import minigrad as mg

    layer = mg.nn.LSTM(shape[2], shape[3], device="cuda")
    layer.load_state_dict({k: v for k, v in data.items() if k != "x"})
    x, parameters = mg.tensor(data["x"], device="cuda"), list(layer.parameters())

    def step() -> list[Any]:
        for p in parameters:
            p.grad = None
        layer(x)[0].sum().backward()
        return [p.grad for p in parameters]

    return step


def with_torch(shape: tuple[int, int, int, int], data: dict[str, Any]) -> Step:
    """Return the same step of PyTorch's layer."""
    import torch

    layer = torch.nn.LSTM(shape[2], shape[3]).cuda()
    layer.load_state_dict({k: torch.from_numpy(v) for k, v in data.items() if k != "x"})
    layer.flatten_parameters()
    x = torch.from_numpy(data["x"]).cuda()

    def step() -> list[Any]:
        for p in layer.parameters():
            p.grad = None
        layer(x)[0].sum().backward()
        return [p.grad for p in layer.parameters()]

    return step


@contextlib.contextmanager
def tf32(on: bool, cuda: Any, torch: Any) -> Iterator[None]:
    """Allow TF32 on both sides, or forbid it."""

    def allow(value: bool) -> None:
        cuda.allow_tf32(value)
        if torch is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = value

    allow(on)
    try:
        yield
    finally:
        allow(False)


def milliseconds(cupy: Any, step: Step, torch: Any) -> float:
    """Return the time of one call between two events of the stream that it works on."""
    if torch is None:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        step()
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


LAUNCHES = ("cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchKernel", "cudaLaunchKernelExC", "cudaGraphLaunch")


def launches(step: Step) -> int | None:
    """Count what one call launches, by PyTorch's profiler, which sees every library of the process."""
    if importlib.util.find_spec("torch") is None:
        return None
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        import torch

        torch.cuda.synchronize()
    return sum(event.count for event in seen.key_averages() if event.key.startswith(LAUNCHES))


def difference(ours: list[Any], theirs: list[Any]) -> float:
    """Return the largest difference of gradients, in units of the largest of them."""
    pairs = [(a.cpu().numpy(), b.cpu().numpy()) for a, b in zip(ours, theirs, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main() -> None:
    """Print a table of all shapes.

    Raises:
        SystemExit: there is no GPU, or the gradients of the two libraries are not the same.
    """
    try:
        import minigrad as mg

        mg.zeros(1, device="cuda")
    except mg.errors.MinigradError as error:
        sys.exit(f"bench-gpu: {error}")
    import cupy

    from minigrad import _cuda

    torch = None
    if importlib.util.find_spec("torch") is not None:
        import torch as found

        torch = found if found.cuda.is_available() else None
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, {_cuda.isa()}, CuPy {cupy.__version__},", f"PyTorch {torch.__version__}" if torch else "no PyTorch")
    print(" batch steps input hidden TF32        ms  TFLOP/s launches  cuDNN ms  ratio")
    for shape in SHAPES:
        data = numbers(shape)
        for fast in (False, True):
            with tf32(fast, _cuda, torch):
                ours = with_minigrad(shape, data)
                theirs = with_torch(shape, data) if torch else None
                for _ in range(4):  # plans, graphs, and the choice of algorithms
                    mine = ours()
                    other = theirs() if theirs else None
                if other is not None and difference(mine, other) > (2e-2 if fast else 1e-4):
                    sys.exit(f"bench-gpu: gradients differ by {difference(mine, other):.1e} at {shape}")
                times, peers = [], []
                for _ in range(ROUNDS):
                    times.append(milliseconds(cupy, ours, None))
                    if theirs:
                        peers.append(milliseconds(cupy, theirs, torch))
                count = launches(ours)
            own = statistics.median(times)
            row = "{:6} {:5} {:5} {:6} ".format(*shape) + f"{'yes' if fast else 'no':>4} {own:9.3f}"
            row += f" {flops(shape) / own / 1e9:8.2f} {'?' if count is None else count:>8}"
            if peers:
                ratio = statistics.median(a / b for a, b in zip(times, peers, strict=True))
                row += f" {statistics.median(peers):9.3f} {ratio:6.2f}"
            print(row)
