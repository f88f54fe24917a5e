"""Time two or more functions in turn and report the median of their pairwise ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], object]


def seconds(function: Clock, number: int) -> float:
    """Return the mean time of one call out of `number`, in seconds, with the cyclic collector off as in ``timeit``."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(number):
            function()
        return (time.perf_counter() - start) / number
    finally:
        if collecting:
            gc.enable()


def in_turn(functions: Mapping[str, Clock], *, rounds: int = 25, budget: float = 0.02) -> dict[str, list[float]]:
    """Return each function's times over `rounds` rounds of A B C A B C …, each of them about `budget` seconds long."""
    numbers = {}
    for name, function in functions.items():
        function()  # warm-up: first calls allocate and compile
        once = seconds(function, 1)
        numbers[name] = max(1, int(budget / max(once, 1e-9)))
        seconds(function, numbers[name])
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function, numbers[name]))
    return times


def ratio(times: Mapping[str, list[float]], ours: str, peer: str) -> float:
    """Return the median over rounds of ours / peer."""
    return statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))


def best(times: list[float]) -> float:
    """Return the median time."""
    return statistics.median(times)
