"""The kernels as plain C: compile a driver of tests/c, and call its functions on NumPy arrays."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parent / "minigrad" / "kernels"
FLAGS = ["-std=c11", "-fno-math-errno", "-fno-trapping-math", f"-I{KERNELS}", f"-I{HERE / 'c'}"]
ISAS = ["base", "avx2", "avx512"]
SCALARS = {32: np.float32, 64: np.float64}
COMPILER = shutil.which(os.environ.get("CC", "cc"))

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the kernels' C tests need a C compiler (cc or $CC)")


def compile_c(source, target, *options, pool=KERNELS / "pool.c"):
    """Compile one file of tests/c with the pool; return the finished process, whose output says what went wrong."""
    sources = [str(HERE / "c" / source), str(pool)]
    command = [COMPILER, *FLAGS, *options, *sources, "-o", str(target), "-lm", "-pthread"]
    return subprocess.run(command, capture_output=True, text=True)


class Kernels:
    """The driver's functions for one instruction set and scalar, on NumPy arrays."""

    def __init__(self, library, isa, bits):
        self.library, self.suffix, self.dtype = library, f"_f{bits}_{isa}", SCALARS[bits]
        self.isa, self.bits = isa, bits
        self.lanes = self.function("lanes")()

    def function(self, name):
        return getattr(self.library, name + self.suffix)

    def map(self, name, x, y=None):
        """Apply an elementwise function to vectors, with NaN around the result to see stray writes."""
        x = np.ascontiguousarray(x, self.dtype)
        y = x if y is None else np.ascontiguousarray(y, self.dtype)
        guarded = np.full(len(x) + 2 * self.lanes, np.nan, self.dtype)
        out = guarded[self.lanes : self.lanes + len(x)]
        self.function(name)(*map(pointer, (x, y, out)), ctypes.c_ssize_t(len(x)))
        assert np.isnan(guarded[: self.lanes]).all()
        assert np.isnan(guarded[self.lanes + len(x) :]).all()
        return out

    def gemm(self, a, b, c, accumulate, ta=False, tb=False):
        """C (+)= op(A) op(B) in place; every array has contiguous rows, any distance apart."""
        (m, n), k = c.shape, a.shape[0 if ta else 1]
        sizes = map(ctypes.c_ssize_t, (m, n, k))
        operands = [argument for x in (a, b, c) for argument in (pointer(x), ctypes.c_ssize_t(row_distance(x)))]
        self.function("gemm")(int(ta), int(tb), *sizes, *operands, int(accumulate))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def row_distance(matrix):
    return matrix.strides[0] // matrix.itemsize


def skip_missing(library, isa):
    """Skip where this CPU lacks an instruction set; the environment must not choose one."""
    if ISAS.index(isa) > library.isa_detect():
        pytest.skip(f"this CPU has no {isa}")


def has_sanitizers(folder, sanitizers):
    """Say whether the compiler can make a program with these options, and the machine run it."""
    source, program = folder / "probe.c", folder / "probe"
    source.write_text("int main(void) { return 0; }\n")
    command = [COMPILER, *sanitizers, str(source), "-o", str(program)]
    return not subprocess.run(command, capture_output=True).returncode and not subprocess.run([program]).returncode


ADDRESS = ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
