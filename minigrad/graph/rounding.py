"""How far rounding alone moves a gradient: what a sum of parts may miss it by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["noise"]

SCALES = (3, 5, 7, 11)
"""Of the seed, in square roots of the dtype's rounding above 1: other last bits everywhere, and little else."""
SPREAD = 16.0
"""What a few samples of rounding may fall short of the worst."""


def noise(gradient: Callable[[float], Any], dtype: Any) -> float:
    """Return a bound of the rounding in a gradient: how far it moves when its seed is scaled, and it is scaled back.

    The chain rule is linear in the seed, so all of that is rounding. It tells where large numbers cancelled each other
    on the way (in a normalisation over few elements, for one), which the size of the parts does not. A wrong rule is
    linear as well and moves nothing.

    Args:
        gradient: gives the gradient for a seed that is scaled by a number.
        dtype: of the computation.
    """
    step = math.sqrt(float(np.finfo(str(dtype)).eps))
    plain = np.asarray(gradient(1.0), np.float64)
    moved = [np.asarray(gradient(s), np.float64) / s - plain for s in (1 + k * step for k in SCALES)]
    return SPREAD * max(float(np.linalg.norm(m)) for m in moved)
