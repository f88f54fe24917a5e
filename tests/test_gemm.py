"""The matrix product in C: against integers, whose sums are exact in every order; bit for bit between layouts and
numbers of threads; under sanitizers. Caches and shares are made small, so that every loop runs.
"""

import ctypes
import itertools
import os
import subprocess

import numpy as np
import pytest
from c_kernels import (
    ADDRESS,
    HERE,
    ISAS,
    KERNELS,
    SCALARS,
    Kernels,
    compile_c,
    has_sanitizers,
    needs_compiler,
    skip_missing,
)

pytestmark = needs_compiler

LIMITS = {"PANEL_BYTES": 4096, "SLAB_BYTES": 8192, "STRIP_BYTES": 8192, "FAR_BYTES": 2048, "SHARE": 512}
SMALL = [f"-DMG_{name}={value}" for name, value in LIMITS.items()]
FLAVOURS = {
    "shipped": (["-O2", "-Wall", "-Wextra"], "pool.c"),
    "small": (["-O1", *SMALL], "pool.c"),
    "no memory": (["-O1", *SMALL], "no_pool.c"),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Return a function that compiles the driver once for each flavour."""
    folder, found = tmp_path_factory.mktemp("gemm"), {}

    def load(flavour):
        if flavour not in found:
            options, pool = FLAVOURS[flavour]
            target = folder / f"{flavour}.so"
            pool = (KERNELS if pool == "pool.c" else HERE / "c") / pool
            done = compile_c("driver.c", target, *options, "-fPIC", "-shared", pool=pool)
            assert done.returncode == 0, done.stderr
            assert "-Wall" not in options or done.stderr == ""
            found[flavour] = ctypes.CDLL(str(target))
        return found[flavour]

    return load


CASES = [(isa, bits) for isa in ISAS for bits in SCALARS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-float{case[1]}")
def kernels(request, library, monkeypatch):
    """Return a function that gives one instruction set and scalar of a flavour."""
    isa, bits = request.param
    monkeypatch.delenv("MINIGRAD_ISA", raising=False)

    def of(flavour, threads=1):
        skip_missing(library(flavour), isa)
        library(flavour).mg_set_threads(threads)
        return Kernels(library(flavour), isa, bits)

    return of


SIZES = [0, 1, 2, 3, 5, 7, 8, 11, 13, 16, 17, 31, 32, 33, 67]
FEW = [(8, 32, 32), (32, 8, 32), (1, 131, 259), (2, 37, 521), (37, 1, 521), (1, 1, 523), (131, 5, 41), (53, 67, 61)]
DRAWN = [tuple(shape) for shape in np.random.default_rng(13).choice(SIZES, (120, 3)).tolist()]
WIDE = [(61, 257, 43), (67, 131, 271), (19, 293, 29), (137, 149, 53), (3, 151, 103), (127, 33, 17), (31, 211, 1)]
LARGE = [(613, 307, 269), (389, 131, 521)]  # more than a slab and a strip of the caches that are shipped


class Framed:
    """A matrix of small integers whose rows lie further apart than they are long, with NaN elsewhere."""

    def __init__(self, rng, rows, columns, gap, dtype):
        self.buffer = np.full(rows * (columns + gap) + 32, np.nan, dtype)
        self.frame = self.buffer[16:-16].reshape(rows, columns + gap)
        self.values = self.frame[:, :columns]
        self.values[...] = rng.integers(-9, 10, (rows, columns))

    def doubles(self):
        return self.values.astype(np.float64)

    def with_values(self, values):
        """The buffer as it should be with these values: nothing around them touched."""
        twin = self.buffer.copy()
        twin[16:-16].reshape(self.frame.shape)[:, : self.values.shape[1]] = values
        return twin


def check_exact(kernels, shapes, gap):
    rng = np.random.default_rng(17)
    for (m, n, k), ta, tb, accumulate in itertools.product(shapes, *[(False, True)] * 3):
        a = Framed(rng, *((k, m) if ta else (m, k)), gap, kernels.dtype)
        b = Framed(rng, *((n, k) if tb else (k, n)), gap, kernels.dtype)
        c = Framed(rng, m, n, gap, kernels.dtype)
        left, right = a.doubles().T if ta else a.doubles(), b.doubles().T if tb else b.doubles()
        want = c.with_values(left @ right + accumulate * c.doubles())
        kernels.gemm(a.values, b.values, c.values, accumulate, ta, tb)
        np.testing.assert_array_equal(c.buffer, want, err_msg=f"{m=} {n=} {k=} {ta=} {tb=} {accumulate=}")


@pytest.mark.parametrize("gap", [0, 3])
def test_product_is_exact_and_stays_inside(kernels, gap):
    check_exact(kernels("shipped"), FEW + DRAWN, gap)


@pytest.mark.parametrize("flavour", ["small", "no memory"])
@pytest.mark.parametrize("gap", [0, 5])
def test_product_through_every_loop(kernels, flavour, gap):
    check_exact(kernels(flavour), FEW + DRAWN + WIDE, gap)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_product_shared_among_threads(kernels, threads):
    check_exact(kernels("small", threads), WIDE + FEW + DRAWN[:40], 1)


def test_large_product(kernels):
    check_exact(kernels("shipped", 2), LARGE, 0)


@pytest.mark.parametrize("flavour", ["shipped", "small"])
@pytest.mark.parametrize(("m", "n", "k"), [(8, 32, 32), (1, 33, 19), (33, 1, 19), (5, 3, 7), (67, 137, 41)])
def test_product_propagates_infinity_times_zero(kernels, flavour, m, n, k):
    for ta, tb in itertools.product((False, True), repeat=2):
        dtype = kernels(flavour).dtype
        a, b = np.ones((k, m) if ta else (m, k), dtype), np.zeros((n, k) if tb else (k, n), dtype)
        (a.T if ta else a)[m // 2, k // 2] = np.inf
        c = np.ones((m, n), dtype)
        kernels(flavour).gemm(a, b, c, False, ta, tb)
        want = np.zeros((m, n))
        want[m // 2] = np.nan
        np.testing.assert_array_equal(c, want)


def bits_of(kernels, values, shift, gap, ta, tb):
    """The result's bytes with the operands `shift` elements into their buffers and rows `gap` further apart."""
    moved = []
    for value in values:
        rows, columns = value.shape
        room = np.empty(rows * (columns + gap) + shift, kernels.dtype)[shift:].reshape(rows, columns + gap)
        room[:, :columns] = value
        moved.append(room[:, :columns])
    kernels.gemm(*moved, False, ta, tb)
    return moved[2].tobytes()


@pytest.mark.parametrize("flavour", ["shipped", "small"])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(8, 32, 32), (1, 37, 53), (37, 1, 53), (19, 37, 53), (61, 167, 43), (139, 67, 37)]
)
def test_product_has_same_bits_wherever_operands_lie(kernels, flavour, m, n, k):
    rng = np.random.default_rng(19)
    for ta, tb in itertools.product((False, True), repeat=2):
        shapes = ((k, m) if ta else (m, k)), ((n, k) if tb else (k, n)), (m, n)
        values = [rng.normal(size=shape) for shape in shapes]
        places = itertools.product((1, 2, 5), (0, 1, 2), (0, 3))
        found = {bits_of(kernels(flavour, t), values, shift, gap, ta, tb) for t, shift, gap in places}
        assert len(found) == 1


def test_sanitizers_find_nothing(tmp_path):
    if not has_sanitizers(tmp_path, ADDRESS):
        pytest.skip("the compiler has no address sanitizer")
    done = compile_c("sweep.c", tmp_path / "sweep", *ADDRESS, *SMALL)
    assert done.returncode == 0, done.stderr
    environment = {name: value for name, value in os.environ.items() if name != "MINIGRAD_ISA"}
    environment["OMP_NUM_THREADS"] = "3"
    done = subprocess.run([tmp_path / "sweep"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
