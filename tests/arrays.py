"""Numbers that tests compute with: never zero, never square, the same in every run."""

import numpy as np


def numbers(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    """Return normally distributed numbers that depend on the seed and the shape alone."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)
