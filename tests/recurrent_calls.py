"""The recurrent kernels as C sees them, called on NumPy arrays: no part of minigrad in between."""

import ctypes
import os

import numpy as np

from minigrad import _cpu

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}
CELLS = ["tanh", "relu", "lstm", "gru"]
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "w_ph")
GRADIENTS = ("h_0", "c_0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "w_ph")
SIZE = ctypes.c_ssize_t


def strided(name):
    return [(name, ctypes.c_void_p), (f"{name}_t", SIZE), (f"{name}_n", SIZE)]


class Direction(ctypes.Structure):
    _fields_ = [
        ("reverse", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in (*WEIGHTS, "h_0", "c_0")),
        *strided("y"),
        *strided("cells"),
        ("h_n", ctypes.c_void_p),
        ("c_n", ctypes.c_void_p),
        *strided("gy"),
        *strided("gcells"),
        ("gh_n", ctypes.c_void_p),
        ("gc_n", ctypes.c_void_p),
        *((f"d{name}", ctypes.c_void_p) for name in GRADIENTS),
        ("adds", ctypes.c_uint),
    ]


class Layer(ctypes.Structure):
    _fields_ = [
        ("cell", ctypes.c_int),
        ("directions", ctypes.c_int),
        ("keep", ctypes.c_int),
        *((name, SIZE) for name in ("recompute", "steps", "batch", "input", "hidden", "output")),
        ("lengths", ctypes.c_void_p),
        *strided("x"),
        *strided("dx"),
        ("dx_adds", ctypes.c_int),
        ("reserve", ctypes.c_void_p),
        ("way", Direction * 2),
    ]


# Another build of the same sources, such as one with sanitizers.
library = ctypes.CDLL(os.environ.get("MINIGRAD_KERNELS", _cpu.__file__))
library.mg_cpu_kernels.restype = ctypes.c_void_p


def available(isa):
    """Say whether this CPU has an instruction set."""
    before = os.environ.get("MINIGRAD_ISA")
    os.environ["MINIGRAD_ISA"] = isa
    try:
        return library.mg_cpu_kernels() is not None
    finally:
        if before is None:
            del os.environ["MINIGRAD_ISA"]
        else:
            os.environ["MINIGRAD_ISA"] = before


def put(structure, name, array):
    """Point a field at an array whose rows are contiguous; None is NULL."""
    if array is None:
        return
    assert array.strides[-1] == array.itemsize or array.shape[-1] <= 1 or array.size == 0, name
    setattr(structure, name, array.ctypes.data)
    if hasattr(structure, f"{name}_t"):
        setattr(structure, f"{name}_t", array.strides[0] // array.itemsize)
        setattr(structure, f"{name}_n", array.strides[1] // array.itemsize)


class Run:
    """One layer: results go to the arrays that were given. Each way is a dict of arrays named as in recurrent.h."""

    def __init__(self, cell, isa, x, ways, lengths=None, keep=True, recompute=0):
        self.suffix = f"f{x.itemsize * 8}_{isa}"
        self.held = [x, ways, lengths]
        self.layer = layer = Layer()
        layer.cell, layer.directions, layer.keep, layer.recompute = CELLS.index(cell), len(ways), keep, recompute
        layer.steps, layer.batch, layer.input = x.shape
        layer.hidden = ways[0]["w_hh"].shape[0] // GATES[cell]
        layer.output = ways[0]["w_hh"].shape[1]
        put(layer, "x", x)
        if lengths is not None:
            layer.lengths = lengths.ctypes.data
        for way, arrays in zip(layer.way, ways, strict=False):
            way.reverse = arrays.get("reverse", 0)
            for name, array in arrays.items():
                if name not in ("reverse", "adds"):
                    put(way, name, array)

    def function(self, name):
        found = getattr(library, f"mg_recurrent_{name}_{self.suffix}")
        found.restype = ctypes.c_size_t if name == "reserve" else ctypes.c_int
        return found

    def forward(self):
        size = self.function("reserve")(ctypes.byref(self.layer))
        self.reserve = np.full(size + 64, 0xFF, np.uint8)  # NaN wherever nothing is written
        self.layer.reserve = (self.reserve.ctypes.data + 63) // 64 * 64
        assert self.function("forward")(ctypes.byref(self.layer)) == 0
        return self

    def backward(self, ways, dx=None, dx_adds=0):
        """Each way holds the cotangents and the arrays for gradients, and the names of those to add to."""
        before = self.reserve.copy()
        self.held.append((ways, dx))
        put(self.layer, "dx", dx)
        self.layer.dx_adds = dx_adds
        for way, arrays in zip(self.layer.way, ways, strict=False):
            for name, array in arrays.items():
                if name == "adds":
                    way.adds = sum(1 << GRADIENTS.index(one) for one in array)
                else:
                    put(way, name, array)
        assert self.function("backward")(ctypes.byref(self.layer)) == 0
        assert (self.reserve == before).all()
        return self
