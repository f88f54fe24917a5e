"""A whole training step of a character model beside PyTorch: embedding, LSTM, linear, cross entropy, clipping, Adam."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .measure import best, in_turn, ratio

BATCH, STEPS, SYMBOLS, EMBEDDING, HIDDEN = 32, 64, 65, 64, 128


def texts() -> tuple[Any, Any]:
    """Return inputs and targets (T, N): each target is the next input."""
    text = np.random.default_rng(1).integers(0, SYMBOLS, (STEPS + 1, BATCH))
    return text[:-1], text[1:]


def start() -> dict[str, Any]:
    """Return the parameters, under names that both libraries use."""
    rng = np.random.default_rng(2)
    shapes = {
        "embedding.weight": (SYMBOLS, EMBEDDING),
        "lstm.weight_ih_l0": (4 * HIDDEN, EMBEDDING),
        "lstm.weight_hh_l0": (4 * HIDDEN, HIDDEN),
        "lstm.bias_ih_l0": (4 * HIDDEN,),
        "lstm.bias_hh_l0": (4 * HIDDEN,),
        "linear.weight": (SYMBOLS, HIDDEN),
        "linear.bias": (SYMBOLS,),
    }
    return {name: (0.1 * rng.standard_normal(size)).astype("float32") for name, size in shapes.items()}


def with_minigrad() -> Callable[[], float]:
    import minigrad as mg

    class Model(mg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = mg.nn.Embedding(SYMBOLS, EMBEDDING)
            self.lstm = mg.nn.LSTM(EMBEDDING, HIDDEN)
            self.linear = mg.nn.Linear(HIDDEN, SYMBOLS)

        def forward(self, text: Any) -> Any:
            return self.linear(self.lstm(self.embedding(text))[0])

    model = Model()
    model.load_state_dict(start())
    optimizer = mg.optim.Adam(model.parameters(), lr=1e-3)
    text, target = (mg.as_tensor(a) for a in texts())
    target = target.reshape(-1)

    def step() -> float:
        optimizer.zero_grad()
        loss = mg.losses.cross_entropy(model(text).reshape(-1, SYMBOLS), target)
        loss.backward()
        mg.nn.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def with_torch() -> Callable[[], float]:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(SYMBOLS, EMBEDDING)
            self.lstm = torch.nn.LSTM(EMBEDDING, HIDDEN)
            self.linear = torch.nn.Linear(HIDDEN, SYMBOLS)

        def forward(self, text: Any) -> Any:
            return self.linear(self.lstm(self.embedding(text))[0])

    model = Model()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in start().items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    text, target = (torch.from_numpy(a) for a in texts())
    target = target.reshape(-1)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(text).reshape(-1, SYMBOLS), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def main() -> None:
    """Print the times of a step, after the losses of ten steps have been compared."""
    steps = {"minigrad": with_minigrad()}
    if importlib.util.find_spec("torch") is not None:
        steps["torch"] = with_torch()
    losses = {name: [step() for _ in range(10)] for name, step in steps.items()}
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["minigrad"], rtol=1e-4, err_msg=name)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    print(f"\nA training step of a character model, float32, {threads} thread{'s' * (threads > 1)}")
    print(
        f"batch {BATCH}, {STEPS} steps, {SYMBOLS} symbols, embedding {EMBEDDING}, LSTM {HIDDEN}, linear, cross entropy,"
    )
    print("gradient norm clipped, Adam")
    times = in_turn(steps, rounds=25, budget=0.1)
    for name in steps:
        share = "" if name == "minigrad" else f"   minigrad / {name}: {ratio(times, 'minigrad', name):.3f}"
        print(f"{name:<10}{best(times[name]) * 1e3:>9.2f} ms{share}")
