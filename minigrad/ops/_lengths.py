"""Lengths of the sequences in a padded batch: checked, and as a mask of the steps that count."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import data_of
from ..errors import DTypeError, ShapeError
from ..op import lane_of


def as_lengths(name: str, lengths: Any, number: int, most: int) -> tuple[int, ...]:
    """Return the lengths of `number` sequences as Python integers.

    Args:
        name: how an error names them.
        lengths: integers: a sequence, an array or a tensor of shape (number,); one number for a single sequence.
        number: how many sequences there are.
        most: how many steps there are.

    Raises:
        DTypeError: they are no integers.
        ShapeError: too many or too few of them, or one outside of 0 to `most`.
    """
    data = data_of(lengths)
    lane = lane_of(data)
    found = np.asarray(data) if lane is None else lane.to_numpy(data)
    if found.size and found.dtype.kind not in "iu":
        raise DTypeError(f"{name} holds integers, not elements of type {found.dtype}")
    if found.ndim > 1 or found.size != number:
        raise ShapeError(f"{name} has one length for each of {number} sequences, not shape {found.shape}")
    out = tuple(int(length) for length in found.reshape(-1))
    for k, length in enumerate(out):
        if not 0 <= length <= most:
            raise ShapeError(f"{name}[{k}] is {length}; a length lies between 0 and {most}")
    return out


def within(lengths: tuple[int, ...], steps: int) -> Any:
    """Return which steps lie inside of each sequence: booleans on the host, (N, steps)."""
    return np.arange(steps) < np.asarray(lengths, dtype=np.int64).reshape(-1, 1)
