"""The array lane over array-api-strict's second device: no function beyond the standard, no hidden copy to the host.

An array there refuses to become NumPy's, and refuses to meet one of another device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import array_api_strict as standard
import numpy as np

from minigrad import backend
from minigrad.op import LANES

DEVICE = standard.Device("device1")
MAKERS = {"arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros"}


class Namespace:
    """The standard's namespace, whose new arrays live on the second device."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(standard, name)
        return functools.partial(found, device=DEVICE) if name in MAKERS else found

    def asarray(self, x: Any, **options: Any) -> Any:
        """Make an array; one of the standard's stays on its device."""
        if not hasattr(x, "__array_namespace__") or isinstance(x, np.ndarray):
            options["device"] = DEVICE
        return standard.asarray(x, **options)


class StrictLane(backend.ArrayLane):
    """Scattering and reading are what the standard leaves to each library."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return standard.zeros(shape, dtype=_own(dtype), device=DEVICE)

    def cast(self, value: Any, dtype: Any) -> Any:
        return super().cast(value, None if dtype is None else _own(dtype))

    def index_add(self, out: Any, index: Any, values: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        places = tuple(self.to_numpy(part) if hasattr(part, "dtype") else part for part in parts)
        total, more = self.to_numpy(out).copy(), self.to_numpy(values)
        np.add.at(total, places, more)
        return self.asarray(total)

    def take(self, array: Any, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if all(not hasattr(part, "dtype") for part in parts):
            wanted = parts if Ellipsis in parts else (*parts, Ellipsis)
            return array[wanted]
        if all(hasattr(part, "dtype") and part.dtype != standard.bool for part in parts) and len(parts) == array.ndim:
            return array[parts]
        places = tuple(self.to_numpy(part) if hasattr(part, "dtype") else part for part in parts)
        return self.asarray(np.asarray(self.to_numpy(array)[places]))

    def to_numpy(self, array: Any) -> Any:
        return np.asarray(array.to_device(standard.Device("CPU_DEVICE")))


def _own(dtype: Any) -> Any:
    return dtype if isinstance(dtype, type(standard.float32)) else getattr(standard, np.dtype(dtype).name)


@contextmanager
def entered() -> Iterator[None]:
    """Let ``device="strict"`` name the lane while the block runs."""
    kind = type(standard.asarray(0.0))
    backend.DEVICES["strict"] = LANES[kind] = StrictLane(Namespace(), "strict")
    try:
        yield
    finally:
        del backend.DEVICES["strict"], LANES[kind]
