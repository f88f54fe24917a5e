"""Starting values: fill tensors in place with numbers from the generator that `manual_seed` restarts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _core
from ..backend import array_lane
from ..errors import ShapeError
from ..tensor import Tensor, generator, no_grad

__all__ = ["constant_", "normal_", "orthogonal_", "uniform_", "xavier_normal_", "xavier_uniform_"]


def _fill(tensor: Tensor, values: Any) -> Tensor:
    # Numbers are drawn in float64 and rounded, so that one seed starts a model the same in either precision.
    with no_grad():
        return tensor.copy_(array_lane(_core.data_of(tensor)).asarray(np.asarray(values).astype(tensor.dtype)))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with numbers uniform in [a, b)."""
    return _fill(tensor, generator().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with normal numbers."""
    return _fill(tensor, generator().normal(mean, std, tensor.shape))


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one number."""
    return _fill(tensor, np.full(tensor.shape, value))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill a matrix (outputs, inputs) with numbers uniform within ``gain * sqrt(6 / (inputs + outputs))``.

    Glorot and Bengio 2010.
    """
    bound = gain * math.sqrt(6 / sum(_matrix(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill a matrix (outputs, inputs) with normal numbers of deviation ``gain * sqrt(2 / (inputs + outputs))``.

    Glorot and Bengio 2010.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_matrix(tensor))))


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill a matrix with orthonormal rows, or columns where it is tall, times `gain` (Saxe et al. 2014)."""
    rows, columns = _matrix(tensor)
    q, r = np.linalg.qr(generator().standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # without this the distribution is not uniform over rotations
    return _fill(tensor, gain * (q if rows >= columns else q.T))


def _matrix(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim != 2:
        raise ShapeError(f"this initialisation takes a matrix, not a tensor of shape {tensor.shape}")
    return tensor.shape[0], tensor.shape[1]
