"""The recurrent kernels against sums in NumPy: every cell, option, size around a block, scalar and instruction set."""

import itertools

import numpy as np
import pytest
import recurrent_calls as calls
import recurrent_sums as sums

SCALARS = {32: np.float32, 64: np.float64}
PATHS = [(isa, bits) for isa in ("base", "avx2", "avx512") for bits in (32, 64)]


@pytest.fixture(params=PATHS, ids=lambda path: f"{path[0]}-f{path[1]}")
def path(request):
    isa, bits = request.param
    if not calls.available(isa):
        pytest.skip(f"this CPU has no {isa}")
    return isa, SCALARS[bits]


@pytest.fixture
def threads():
    before = calls.library.mg_threads()
    yield calls.library.mg_set_threads
    calls.library.mg_set_threads(before)


class Problem:
    """A layer with random parameters, states and cotangents, and room for all results."""

    def __init__(self, cell, steps, batch, inputs, hidden, path, seed=0, **options):
        """Take as options lengths, ways ("f", "r", "fr"), projection, peepholes, bias, states, cotangents, recompute,

        layout: "plain" (T, N, .); "first" (N, T, .); "gaps": rows lie apart and begin off any boundary;
        adds: names of gradients that are added to what is there.
        """
        self.cell, self.options, (self.isa, self.dtype) = cell, options, path
        self.rng = np.random.default_rng(seed)
        self.steps, self.batch, self.inputs, self.hidden = steps, batch, inputs, hidden
        outputs = self.outputs = options.get("projection") or hidden
        ways, gates, lstm = options.get("ways", "f"), calls.GATES[cell], cell == "lstm"
        self.lengths = options.get("lengths")
        if self.lengths is not None:
            self.lengths = np.array(self.lengths, np.intp)
        self.x, self.dx = self.sequence(inputs), self.sequence(inputs)
        for n, length in enumerate(() if self.lengths is None else self.lengths):
            self.x[length:, n] = 0
        y, gy = self.sequence(outputs * len(ways)), self.sequence(outputs * len(ways))
        self.ways, self.backs = [], []
        self.adds = options.get("adds", ())
        for k, direction in enumerate(ways):
            own = np.s_[:, :, k * outputs : (k + 1) * outputs]
            shapes = {"w_ih": (gates * hidden, inputs), "w_hh": (gates * hidden, outputs)}
            if options.get("bias", True):
                shapes |= {"b_ih": (gates * hidden,), "b_hh": (gates * hidden,)}
            if outputs != hidden or options.get("projection"):
                shapes["w_hr"] = (outputs, hidden)
            if options.get("peepholes"):
                shapes["w_ph"] = (3 * hidden,)
            if options.get("states", True):
                shapes |= {"h_0": (batch, outputs)} | ({"c_0": (batch, hidden)} if lstm else {})
            way = {name: self.array(*shape) for name, shape in shapes.items()}
            way |= {"y": y[own], "h_n": self.array(batch, outputs), "reverse": int(direction == "r")}
            if lstm:
                way |= {"cells": self.sequence(hidden), "c_n": self.array(batch, hidden)}
            back = {"gy": gy[own]}
            if options.get("cotangents", True):
                back["gh_n"] = self.array(batch, outputs)
                if lstm:
                    back |= {"gc_n": self.array(batch, hidden), "gcells": self.sequence(hidden)}
            shapes |= {"h_0": (batch, outputs)} | ({"c_0": (batch, hidden)} if lstm else {})
            back |= {f"d{name}": self.array(*shape) for name, shape in shapes.items()}
            self.ways.append(way)
            self.backs.append(back | {"adds": [name for name in self.adds if name in shapes]})

    def array(self, *shape):
        """Values that keep sums near one whatever the size."""
        scale = 1 / np.sqrt(max(1, shape[-1])) if len(shape) == 2 and shape[0] != self.batch else 0.5
        return (self.rng.uniform(-1, 1, shape) * scale * 1.5).astype(self.dtype)

    def sequence(self, n):
        layout = self.options.get("layout", "plain")
        if layout == "first":
            return self.array(self.batch, self.steps, n).swapaxes(0, 1)
        if layout == "gaps":
            whole = np.full((self.steps + 1, self.batch + 1, n + 3), np.nan, self.dtype)
            whole[1:, 1:, 1 : n + 1] = self.array(self.steps, self.batch, n)
            return whole[1:, 1:, 1 : n + 1]
        return self.array(self.steps, self.batch, n)

    def run(self, keep=True):
        recompute = self.options.get("recompute", 0)
        return calls.Run(self.cell, self.isa, self.x, self.ways, self.lengths, keep, recompute).forward()

    def results(self):
        names = ("y", "h_n", "cells", "c_n")
        return [way[name].copy() for way in self.ways for name in names if name in way]

    def gradients(self):
        return [self.dx.copy()] + [back[k].copy() for back in self.backs for k in sorted(back) if k[0] == "d"]

    def check(self, values_only=False, between=None):
        """Run both ways, calling something in between, and compare with the sums, which are in float64."""
        before = [{name: array.copy() for name, array in back.items() if name[0] == "d"} for back in self.backs]
        dx_before = self.dx.copy() if "x" in self.adds else 0
        run = self.run(keep=not values_only)
        tapes = []
        for k, way in enumerate(self.ways):
            *wanted, tape = sums.forward(self.cell, self.x, way, self.lengths)
            tapes.append(tape)
            for name, want in zip(("y", "cells", "h_n", "c_n"), wanted, strict=True):
                if name in way:
                    self.compare(f"{name} of way {k}", way[name], want)
        if values_only:
            return
        if between:
            between()
        run.backward(self.backs, self.dx, int("x" in self.adds))
        dx = dx_before
        for way, back, tape, old in zip(self.ways, self.backs, tapes, before, strict=True):
            cotangents = {name: array for name, array in back.items() if name[0] == "g"}
            wanted = sums.backward(self.cell, self.x, way, tape, **cotangents)
            dx = dx + wanted.pop("x")
            for name, want in wanted.items():
                if f"d{name}" in back:
                    self.compare(f"d{name}", back[f"d{name}"], want + (old[f"d{name}"] if name in back["adds"] else 0))
        self.compare("dx", self.dx, dx)

    def compare(self, name, got, want):
        assert got.shape == want.shape, name
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=name)
        finite = np.isfinite(want)
        np.testing.assert_array_equal(got[~finite], want[~finite].astype(got.dtype), err_msg=name)
        scale = max(1.0, np.abs(want[finite]).max(initial=0))
        worst = np.abs(got - want, where=finite, out=np.zeros(want.shape)).max(initial=0)
        # Rounding grows with the number of steps that it passes through.
        assert worst <= 12 * (4 + self.steps) * np.finfo(self.dtype).eps * scale, f"{name}: off by {worst}"


SIZES = [  # steps, batch, inputs, hidden: ones, primes, around vectors of 2 to 16 and blocks of 3 to 8 rows
    (1, 1, 1, 1),
    (3, 2, 5, 7),
    (5, 7, 3, 17),
    (2, 13, 11, 15),
    (3, 9, 2, 33),
    (4, 5, 19, 2),
    (2, 17, 1, 4),
    (3, 1, 31, 67),
]


@pytest.mark.parametrize("cell", calls.CELLS)
def test_sizes(cell, path):
    for size in SIZES:
        Problem(cell, *size, path).check()


@pytest.mark.parametrize("columns", range(1, 84, 6))
def test_every_width_and_number_of_rows(columns, path):
    for batch in range(1, 10):
        Problem("relu" if columns % 4 else "gru", 2, batch, 3, columns + batch % 6, path).check()


OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "states from zero": {"states": False},
    "cotangents of outputs alone": {"cotangents": False},
    "reverse": {"ways": "r"},
    "two ways": {"ways": "fr"},
    "lengths": {"lengths": (3, 5, 0, 1, 5, 4, 2)},
    "lengths, reverse": {"lengths": (3, 5, 0, 1, 5, 4, 2), "ways": "r"},
    "lengths, two ways, short": {"lengths": (2, 0, 0, 0, 0, 1, 0), "ways": "fr"},
    "all empty": {"lengths": (0,) * 7, "ways": "fr"},
    "again every step": {"recompute": 1},
    "again every 2, reverse": {"recompute": 2, "ways": "r"},
    "again every 3, two ways, lengths": {"recompute": 3, "ways": "fr", "lengths": (5, 1, 3, 4, 0, 2, 5)},
    "again every 99": {"recompute": 99},
    "batch first": {"layout": "first", "ways": "fr"},
    "gaps": {"layout": "gaps", "ways": "fr", "lengths": (5, 1, 3, 4, 0, 2, 5)},
    "adds": {"adds": ("x", *calls.GRADIENTS), "ways": "fr"},
    "adds some": {"adds": ("w_hh", "b_ih", "c_0")},
}
LSTM_OPTIONS = [{}, {"peepholes": True}, {"projection": 5}, {"projection": 23, "peepholes": True}]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", calls.CELLS)
def test_options(cell, options, path):
    for more in LSTM_OPTIONS if cell == "lstm" else LSTM_OPTIONS[:1]:
        Problem(cell, 5, 7, 3, 18, path, **options, **more).check()


@pytest.mark.parametrize("cell", calls.CELLS)
def test_without_keeping_anything(cell, path):
    for options in OPTIONS.values():
        Problem(cell, 5, 7, 3, 18, path, **options).check(values_only=True)


@pytest.mark.parametrize("cell", calls.CELLS)
@pytest.mark.parametrize(
    "options",
    [{}, {"ways": "r", "lengths": (421,), "recompute": 400}, {"layout": "first", "ways": "fr"}, {"recompute": 150}],
    ids=str,
)
def test_chunks(cell, options):
    """More steps than stay in cache at once: chunks of a few hundred rows follow each other."""
    path = ("base", np.float64)
    batch = 1 if "lengths" in options else 3
    problem = Problem(cell, 430, batch, 2, 150, path, **options)
    problem.check()


def test_recomputed_steps_have_the_same_bits(path):
    """So what flows back through the states has too; sums over other chunks of steps round differently."""
    runs = []
    for recompute in (0, 4):
        problem = Problem("lstm", 11, 3, 5, 19, path, recompute=recompute, ways="fr", peepholes=True)
        problem.run().backward(problem.backs, problem.dx)
        runs.append(problem.results() + [back[name] for back in problem.backs for name in ("dh_0", "dc_0")])
    for plain, again in zip(*runs, strict=True):
        np.testing.assert_array_equal(plain, again)


@pytest.mark.parametrize("cell", calls.CELLS)
def test_backward_again_gives_the_same(cell, path):
    problem = Problem(cell, 4, 5, 3, 9, path, ways="fr")
    run = problem.run()
    run.backward(problem.backs, problem.dx)
    first = problem.gradients()
    run.backward(problem.backs, problem.dx)
    for one, two in zip(first, problem.gradients(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden"), [(0, 3, 2, 5), (3, 0, 2, 5), (3, 2, 0, 5), (0, 0, 0, 1)]
)
@pytest.mark.parametrize("cell", calls.CELLS)
def test_empty(cell, steps, batch, inputs, hidden, path):
    for options in ({}, {"adds": ("x", *calls.GRADIENTS)}, {"ways": "fr", "recompute": 2}):
        Problem(cell, steps, batch, inputs, hidden, path, **options).check()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cell", calls.CELLS)
def test_values_that_are_not_finite(cell, value, path):
    """They go where IEEE arithmetic takes them, and to no other unit, row or step."""
    with np.errstate(invalid="ignore", over="ignore"):
        for name, at in {"x": (2, 3, 1), "h_0": (4, 16), "w_hh": (5, 2), "b_ih": (17,)}.items():
            problem = Problem(cell, 4, 7, 3, 18, path)
            (problem.x if name == "x" else problem.ways[0][name])[at] = value
            problem.check()


@pytest.mark.parametrize("cell", calls.CELLS)
def test_a_row_does_not_see_its_neighbours(cell, path):
    clean = Problem(cell, 4, 7, 3, 18, path)
    dirty = Problem(cell, 4, 7, 3, 18, path)
    dirty.x[1, 2] = np.nan
    clean.run()
    dirty.run()
    got, want = dirty.ways[0]["y"], clean.ways[0]["y"]
    np.testing.assert_array_equal(np.delete(got, 2, 1), np.delete(want, 2, 1))
    np.testing.assert_array_equal(got[0], want[0])
    assert np.isnan(got[1:, 2]).all()


def test_nothing_else_is_written(path):
    problem = Problem("lstm", 3, 5, 3, 18, path, layout="gaps", ways="fr", projection=5)
    problem.run().backward(problem.backs, problem.dx)
    arrays = [problem.dx, problem.ways[0]["y"].base, *(way["cells"] for way in problem.ways)]
    for array in arrays:
        whole = array if array.base is None else array.base
        inside = np.zeros(whole.shape, bool)
        inside[1:, 1:, 1:-2] = True
        assert np.isnan(whole[~inside]).all()
        assert np.isfinite(whole[inside]).all()


@pytest.mark.parametrize("cell", calls.CELLS)
@pytest.mark.parametrize("ways", ["f", "fr"])
def test_threads(cell, ways, threads):
    """Slices of the batch and directions on threads of their own: the same numbers, and the same bits every time."""
    path = ("base", np.float32)
    steps = 40 if cell in ("tanh", "relu") else 20
    for count, lengths in itertools.product((2, 3, 5), (None, np.arange(23) % steps)):
        bits = []
        for _ in range(2):
            threads(count)
            problem = Problem(cell, steps, 23, 30, 31, path, ways=ways, lengths=lengths, adds=("x", "w_hh"))
            problem.run().backward(problem.backs, problem.dx, 1)
            bits.append(problem.results() + problem.gradients())
        for one, two in zip(*bits, strict=True):
            np.testing.assert_array_equal(one, two)
        problem = Problem(cell, steps, 23, 30, 31, path, ways=ways, lengths=lengths, adds=("x", "w_hh"))
        problem.check(between=lambda: threads(1))
