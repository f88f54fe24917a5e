"""Checking gradients: autodiff against numeric differences, and when they disagree, the operation that is to blame.

f, inputs ──► float64 ──► central differences (a ladder of steps) ─┐
                 └──────► reverse sweeps, forward pushes ──────────┴─► entries ──► all agree: done
                                                                           └─────► every recorded node by itself
"""

from __future__ import annotations

import contextlib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from . import _core
from ._core import Recording, Tape, TensorBase
from .backend import array_lane, get_default_dtype, is_array, set_default_dtype
from .errors import DTypeError, GradcheckError, UsageError
from .function import FunctionOp
from .grad import _Checkpoint, flatten
from .graph.rounding import noise
from .op import Op
from .tensor import as_tensor

__all__ = ["Entry", "Guilt", "Report", "check_model", "gradcheck"]

ATOL, RTOL = 1e-10, 1e-6
MODES = ("reverse", "forward")
FULL = 256
"""Up to so many elements, inputs (and outputs, in reverse) are checked one by one; beyond, along random directions."""

DIRECTIONS = 3
REFINED = 4096
"""Up to this many elements, a guilty argument that random directions found is searched for its worst element."""

DUALITY = 1e-12
DOUBT = 2e-4
"""How far doubt about the differences may widen a tolerance, in shares of the largest derivative: a fifth of 0.1 %."""

WIDTH = 80
EPS = float(np.finfo(np.float64).eps)

Array = np.ndarray[Any, Any]


# --- what people read ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One comparison: the derivative in one input, in one mode, of all outputs.

    Attributes:
        input: the input's name; "all inputs" for duality.
        shape: the input's shape.
        order: 1, or 2 for the derivative of the gradient.
        mode: "reverse", "forward", "duality", or at order 2 "reverse over reverse" and so on, the outer mode first.
        how: "every element" or the number of random directions.
        compared: how many numbers were compared.
        kinks: how many of them stand at a kink, where any slope between the one-sided ones is accepted.
        error, tolerance: of the worst number, where error / tolerance is largest.
        element: index of the worst number in the input; None along a random direction.
        output: name and index of the output of the worst number; None for a random combination of outputs.
        autodiff, numeric: the two values of the worst number.
        doubt: the estimated error of `numeric`.
        ok: whether every number is within its tolerance.
    """

    input: str
    shape: tuple[int, ...]
    order: int
    mode: str
    how: str
    compared: int
    kinks: int
    error: float
    tolerance: float
    element: tuple[int, ...] | None
    output: str | None
    autodiff: float
    numeric: float
    doubt: float
    ok: bool

    def text(self) -> str:
        """Return one line; where the check failed, a second one with both numbers."""
        kinks = f", {_count(self.kinks, 'kink')}" if self.kinks else ""
        line = f"{'ok  ' if self.ok else 'FAIL'} {self.input} {self.shape}, {self.mode}: error {self.error:.2g}"
        line += f" (allowed {self.tolerance:.2g}), {self.how}{kinks}"
        if self.ok:
            return line
        place = f"element {self.element}" if self.element is not None else "along a random direction"
        of = f" of {self.output}" if self.output else ""
        dual = self.mode.startswith("duality")
        other = "forward" if dual else "numeric"
        own = "reverse" if dual else "autodiff"
        return f"{line}\n{place}{of}: {_two(self.autodiff, self.numeric, own, other)}{_unsure(self)}"


@dataclass(frozen=True)
class Guilt:
    """An operation whose own derivative is wrong, found by checking every recorded node by itself.

    Attributes:
        op, argument: the operation and the argument whose derivative is wrong.
        scope, time: where on the tape; `time` is the step, None outside of steps.
        node: position of the operation on the tape.
        order, mode: of the check that failed first.
        element: index of the worst element in the argument; None if only a random direction is known.
        autodiff, numeric: both numbers.
    """

    op: str
    argument: str
    scope: str
    time: int | None
    node: int
    order: int
    mode: str
    element: tuple[int, ...] | None
    autodiff: float
    numeric: float

    @property
    def ratio(self) -> float:
        """Autodiff over numeric: 1.01 says that the rule is 1 % too large."""
        if self.numeric == 0:
            return math.nan if self.autodiff == 0 else math.copysign(math.inf, self.autodiff)
        return self.autodiff / self.numeric

    def text(self) -> str:
        """Return one line: the operation, the argument, the place, the element and both numbers."""
        place = f", in {self.scope}" if self.scope else ""
        mode = "" if self.mode == "reverse" else f" [{self.mode}]"
        element = f"element {self.element}" if self.element is not None else "a random direction"
        numbers = _two(self.autodiff, self.numeric)
        return f"{self.op}, argument '{self.argument}'{place}{mode}: {element}: {numbers} (ratio {self.ratio:.4f})"


@dataclass
class Report:
    """What :func:`gradcheck` found.

    Attributes:
        entries: every comparison.
        guilty: operations that are wrong by themselves; looked for only when a comparison failed.
        notes: what was decided on the way: lifted dtypes, random directions, modes left out, where gradients end.
        orders: the orders that were checked.
    """

    entries: list[Entry] = field(default_factory=list)
    guilty: list[Guilt] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    orders: tuple[int, ...] = (1,)

    @property
    def ok(self) -> bool:
        """Whether every comparison held."""
        return all(entry.ok for entry in self.entries)

    @property
    def kinks(self) -> int:
        """The number of derivatives at kinks, in the check that met most of them."""
        return max((entry.kinks for entry in self.entries), default=0)

    @property
    def worst(self) -> Entry:
        """The comparison whose error is largest against its tolerance."""
        return max(self.entries, key=lambda entry: (not entry.ok, entry.error / entry.tolerance))

    def summary(self) -> str:
        """Return one line: inputs, orders, the worst error."""
        shapes = {entry.input: entry.shape for entry in self.entries if not entry.mode.startswith("duality")}
        inputs = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        orders = "order 1" if self.orders == (1,) else "orders 1 and 2"
        worst = self.worst
        kinks = f", {_count(self.kinks, 'kink')}" if self.kinks else ""
        state = "ok" if self.ok else "FAILED"
        return f"{state}: {inputs}; {orders}; worst error {worst.error:.2g} (allowed {worst.tolerance:.2g}){kinks}"

    def text(self) -> str:
        """Return everything as text of at most 80 columns; long lists of guilty operations are cut after ten."""
        failed = sum(not entry.ok for entry in self.entries)
        total = _count(len(self.entries), "check")
        lines = [f"gradcheck: all of {total} hold" if self.ok else f"gradcheck: {failed} of {total} failed"]
        for order in self.orders:
            if len(self.orders) > 1:
                lines.append(f"order {order}")
            for entry in self.entries:
                if entry.order == order:
                    head, *more = entry.text().split("\n")
                    lines += _wrapped(head, "  ", "       ")
                    for line in more:
                        lines += _wrapped(line, "       ", "         ")
        if self.guilty:
            lines.append("wrong by themselves:")
            for guilt in self.guilty[:10]:
                lines += _wrapped(guilt.text(), "  ", "    ")
            if len(self.guilty) > 10:
                lines.append(f"  and {len(self.guilty) - 10} more")
        for note in self.notes:
            lines += _wrapped(note, "note: ", "      ")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON; numbers that are not finite become None."""
        found = {
            "ok": self.ok,
            "orders": list(self.orders),
            "kinks": self.kinks,
            "entries": [asdict(entry) for entry in self.entries],
            "guilty": [{**asdict(guilt), "ratio": guilt.ratio} for guilt in self.guilty],
            "notes": list(self.notes),
        }
        plain: dict[str, Any] = _plain(found)
        return plain

    def __str__(self) -> str:
        return self.text()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _two(a: float, b: float, own: str = "autodiff", other: str = "numeric") -> str:
    """Print two numbers with the digits that it takes to see the difference."""
    apart = abs(a - b) / max(abs(a), abs(b)) if a != b and math.isfinite(a - b) else 1.0
    digits = min(17, max(4, 2 - math.floor(math.log10(apart))))
    first, second = (f"{number:#.{digits}g}".rstrip(".") for number in (a, b))
    return f"{own} {first}, {other} {second}"


def _unsure(entry: Entry) -> str:
    if math.isnan(entry.numeric):
        return "; f is not finite around this point, so no differences could be taken"
    unsure = not entry.mode.startswith("duality") and entry.doubt > DOUBT * abs(entry.numeric)
    return f" (the differences are unsure by {entry.doubt:.2g})" if unsure else ""


# --- functions of arrays ------------------------------------------------------------------------------------


class _Map:
    """A function of float64 arrays that can be run plainly or recorded.

    Attributes:
        names: of its inputs.
        arrays: the point, one array per input.
        eps: relative rounding of what it computes with inside.
    """

    names: list[str]
    arrays: list[Array]
    eps = EPS

    def record(self, arrays: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        """Run it at `arrays`, recorded; return the inputs as leaves and the floating outputs, as tensors."""
        raise NotImplementedError

    def values(self, arrays: Sequence[Array]) -> list[Any]:
        """Run it at `arrays` and return its outputs, unrecorded."""
        raise NotImplementedError

    def rest(self) -> None:
        """Bring everything that `values` moved back to the point."""

    def output_name(self, k: int, n: int) -> str:
        """Return what people call output k of n."""
        return f"output {k}" if n > 1 else "the output"

    def flat(self, arrays: Sequence[Array]) -> Array:
        """Return all outputs as one vector."""
        with np.errstate(all="ignore"):
            return _vector(self.values(arrays))


def _host(t: Any) -> Array:
    """Return a tensor's values as a NumPy array."""
    data = _core.data_of(t)
    found: Array = array_lane(data).to_numpy(data)
    return found


def _vector(outputs: Sequence[Any]) -> Array:
    return np.concatenate([_host(y).astype(np.float64).ravel() for y in outputs])


def _zeros(like: Any) -> Any:
    data = _core.data_of(like)
    return _core.tensor(array_lane(data).zeros(tuple(like.shape), data.dtype))


def _seed(y: Any, values: Array) -> Any:
    """Return `values` as a tensor on y's device, of y's shape and dtype."""
    data = _core.data_of(y)
    return _core.tensor(array_lane(data).asarray(values.reshape(y.shape).astype(str(data.dtype))))


def _signs(rng: np.random.Generator, size: int) -> Array:
    """Return random numbers that are never near 0, so that no element escapes a random direction."""
    return rng.uniform(0.5, 1.0, size) * rng.choice([-1.0, 1.0], size)


class _Gradient(_Map):
    """The gradient of a fixed combination of another map's outputs."""

    def __init__(self, inner: _Map, rng: np.random.Generator) -> None:
        self.inner, self.names, self.arrays, self.eps = inner, inner.names, inner.arrays, inner.eps
        outputs = inner.values(inner.arrays)
        alone = len(outputs) == 1 and outputs[0].size == 1
        self.weights = [np.ones(1) if alone else _signs(rng, y.size) for y in outputs]

    def _sweep(self, arrays: Sequence[Array], create_graph: bool) -> tuple[list[Any], list[Any]]:
        inputs, outputs = self.inner.record(arrays)
        live = [(y, _seed(y, w)) for y, w in zip(outputs, self.weights, strict=True) if y.requires_grad]
        grads: list[Any] = [None] * len(inputs)
        if live:
            grads = _core.sweep([y for y, _ in live], [g for _, g in live], inputs, create_graph, True)
        return inputs, [_zeros(x) if g is None else g for g, x in zip(grads, inputs, strict=True)]

    def record(self, arrays: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        return self._sweep(arrays, True)

    def values(self, arrays: Sequence[Array]) -> list[Any]:
        return self._sweep(arrays, False)[1]

    def rest(self) -> None:
        self.inner.rest()

    def output_name(self, k: int, n: int) -> str:
        return f"the gradient of {self.names[k]}"


class _Tangent(_Map):
    """The derivative of another map along a fixed direction."""

    def __init__(self, inner: _Map, rng: np.random.Generator) -> None:
        self.inner, self.names, self.arrays, self.eps = inner, inner.names, inner.arrays, inner.eps
        self.moves = [_signs(rng, x.size) for x in inner.arrays]

    def _push(self, arrays: Sequence[Array], create_graph: bool) -> tuple[list[Any], list[Any]]:
        inputs, outputs = self.inner.record(arrays)
        live = [y for y in outputs if y.requires_grad]
        moves = [_seed(x, t) for x, t in zip(inputs, self.moves, strict=True)]
        moved = iter(_core.push(inputs, moves, live, create_graph) if live else [])
        found = [next(moved) if y.requires_grad else None for y in outputs]
        return inputs, [_zeros(y) if t is None else t for t, y in zip(found, outputs, strict=True)]

    def record(self, arrays: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        return self._push(arrays, True)

    def values(self, arrays: Sequence[Array]) -> list[Any]:
        return self._push(arrays, False)[1]

    def rest(self) -> None:
        self.inner.rest()

    def output_name(self, k: int, n: int) -> str:
        return f"the tangent of {self.inner.output_name(k, n)}"


# --- numeric slopes -----------------------------------------------------------------------------------------

LADDER = [1e-2 * 4.0**-k for k in range(13)]
STOPS = (4, 7, 10, 13)


@dataclass
class _Slope:
    """Numeric derivatives of a vector along one direction, element by element.

    ``error`` estimates what extrapolation and rounding left; ``noise`` is what rounding to float64 alone costs; ``gap``
    is the difference between the slopes on both sides of a kink (the slope itself at a jump), 0 where all is smooth;
    ``undecided`` by how much coarse and fine steps disagree where both seem to be right.
    """

    value: Array
    error: Array
    noise: Array
    gap: Array
    undecided: Array

    def parts(self) -> tuple[Array, ...]:
        """Return all of them, in order."""
        return self.value, self.error, self.noise, self.gap, self.undecided


def _slope(phi: Callable[[float], Array], centre: Array, eps: Array) -> _Slope:
    """Differentiate ``phi`` at 0.

    Central differences D(h) = (φ(h) - φ(-h)) / 2h over falling steps are extrapolated to h = 0 (Richardson; taking
    the tableau's entry with the least estimated error is Ridders' idea, Adv. Eng. Software 4 (1982) 75). The gap
    between the one-sided slopes, (φ(h) - 2φ(0) + φ(-h)) / h, has odd powers of h only and is extrapolated likewise:
    it vanishes for smooth functions and stays constant at a kink; at a jump D(h) grows as 1 / h. Finer steps are taken
    only while some element is unsettled. None of this looks at autodiff: no wrong derivative can make a kink.
    """
    value, error = np.full_like(centre, np.nan), np.full_like(centre, np.inf)
    noise = np.zeros_like(centre)
    row: list[Array] = []
    gap_row: list[Array] = []
    gaps: list[Array] = []
    firsts: list[Array] = []
    stages: list[tuple[Array, Array]] = []
    rough = noise
    settled = np.zeros(centre.shape, bool)
    with np.errstate(all="ignore"):
        for k, h in enumerate(LADDER):
            up, down = phi(h), phi(-h)
            first = (up - down) / (2 * h)
            rough = 2 * eps * (np.maximum(abs(up), abs(down)) + abs(first)) / h
            before, row = row, [first]
            for j, coarse in enumerate(before[:4]):
                row.append(row[j] + (row[j] - coarse) / (16.0 ** (j + 1) - 1))
                doubt = np.maximum(abs(row[j + 1] - row[j]), abs(row[j + 1] - coarse)) + rough
                better = doubt < error
                value, error = np.where(better, row[j + 1], value), np.where(better, doubt, error)
                noise = np.where(better, rough * (EPS / eps), noise)
            gap_before, gap_row = gap_row, [(up - 2 * centre + down) / h]
            for j, coarse in enumerate(gap_before[:2]):
                gap_row.append(gap_row[j] + (gap_row[j] - coarse) / (4.0 ** (2 * j + 1) - 1))
            gaps.append(gap_row[-1])
            firsts.append(first)
            if k + 1 in STOPS:
                stages.append((value, error))
                flat = abs(gaps[-1]) <= 1e-6 * abs(value) + 50 * rough
                settled = flat & (error <= 1e-8 * abs(value) + 8 * noise)
                if settled.all():
                    break
        gap = np.zeros_like(centre)
        if not settled.all():
            # At a kink the gap between the sides stays; at a jump the central slope itself grows, the gap need not
            # (sign at 0 has equal slopes on both sides).
            for side, growth in ((gaps, 1.0), (firsts, 4.0)):
                last = abs(side[-1])
                # Rounding to float32 is a staircase: a jump has to matter at the coarsest step, not only at the finest.
                least = 1e-6 * abs(value) if growth == 1 else 1e-2 * abs(value) * growth ** (len(side) - 1)
                found = ~settled & (last > least + 50 * rough) & _steady(side, growth)
                gap = np.where(found, np.maximum(gap, last), gap)
    undecided = _undecided(value, stages, firsts[-1], rough, settled)
    return _Slope(value, np.where(gap > 0, 0.0, error), noise, gap, undecided)


UNKNOWN = 1e300  # finite: combinations leave elements out by multiplying with 0


def _undecided(value: Array, stages: list[tuple[Array, Array]], last: Array, rough: Array, settled: Array) -> Array:
    """Return by how much steps disagree where coarse and fine ones tell different slopes, else 0; UNKNOWN for no slope.

    Rounding inside of a function that its value does not show (1 + erf(x) for x far below 0) makes it a staircase:
    coarse steps converge, and so do fine ones, on the slope of a stair. Of a function that swings within the finest
    step, coarse ones say nothing at all.
    """
    gap = np.zeros_like(value)
    for before, error in stages[:-1]:
        apart = abs(before - value)
        gap = np.where((error <= 1e-3 * abs(before)) & (apart > 16 * error), np.maximum(gap, apart), gap)
    apart = abs(last - value)
    swings = ~settled & (apart > 50 * rough + 0.5 * np.maximum(abs(last), abs(value)))
    found: Array = np.where(swings, UNKNOWN, gap)
    return found


def _steady(side: list[Array], growth: float) -> Array:
    """Say where a sequence over falling steps keeps its sign and grows by `growth` at each of the last three."""
    ratios = [side[k + 1] / side[k] / growth for k in range(len(side) - 4, len(side) - 1)]
    steady: Array = np.logical_and.reduce([(r > 0.75) & (r < 1.34) for r in ratios])
    return steady


# --- comparing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    orders: tuple[int, ...]
    modes: tuple[str, ...]
    atol: float
    rtol: float
    eps: float | None
    directions: int | str | None
    seed: int

    def random_directions(self, size: int) -> int:
        """Return how many random directions stand for an input of `size` elements; 0 for every element."""
        if self.directions is None:
            return 0 if size <= FULL else DIRECTIONS
        return 0 if self.directions == "full" else int(self.directions)


class _Check:
    """The comparison of one map's derivatives with differences, at one order."""

    def __init__(
        self, subject: _Map, options: _Options, rng: np.random.Generator, order: int, label: str, strict: bool
    ) -> None:
        self.map, self.options, self.rng, self.order, self.label = subject, options, rng, order, label
        self.strict = strict
        self.inputs, self.outputs = subject.record(subject.arrays)
        self.live = [k for k, y in enumerate(self.outputs) if y.requires_grad]
        self.sizes = [y.size for y in self.outputs]
        self.total = sum(self.sizes)
        self.ends = np.cumsum([0, *self.sizes])
        self.centre = subject.flat(subject.arrays)
        precision = [np.finfo(str(_core.data_of(y).dtype)).eps for y in self.outputs]
        self.eps = np.maximum(np.repeat(precision, self.sizes), subject.eps)

    def pull(self, cotangent: Array) -> list[Array]:
        """Return the vector-Jacobian product for every input, flat."""
        with np.errstate(all="ignore"):
            # An output that the cotangent leaves out is left out of the sweep: row by row this saves most of the work.
            chosen = [k for k in self.live if cotangent[self.ends[k] : self.ends[k + 1]].any()]
            ys = [self.outputs[k] for k in chosen]
            gs = [_seed(self.outputs[k], cotangent[self.ends[k] : self.ends[k + 1]]) for k in chosen]
            grads = _core.sweep(ys, gs, self.inputs, False, True) if ys else [None] * len(self.inputs)
        return [
            np.zeros(x.size) if g is None else _host(g).astype(np.float64).ravel()
            for g, x in zip(grads, self.inputs, strict=True)
        ]

    def push(self, tangents: dict[int, Array]) -> Array:
        """Return the Jacobian-vector product of all outputs, flat, for tangents of some inputs."""
        out = np.zeros(self.total)
        if not self.live:
            return out
        with np.errstate(all="ignore"):
            xs = [self.inputs[p] for p in tangents]
            ts = [_seed(self.inputs[p], t) for p, t in tangents.items()]
            moved = _core.push(xs, ts, [self.outputs[k] for k in self.live], False)
        for k, t in zip(self.live, moved, strict=True):
            if t is not None:
                out[self.ends[k] : self.ends[k + 1]] = _host(t).ravel()
        return out

    def along(self, p: int, directions: Array | None) -> tuple[Array, _Slope]:
        """Return directions in input p (rows; None: unit vectors) and the numeric derivatives along them (columns)."""
        x = self.map.arrays[p]
        size = abs(x.ravel())
        typical = math.sqrt(float(np.mean(size**2))) if size.size else 0.0
        scale = np.maximum(size, 0.1 * typical) if typical else np.ones_like(size)
        if self.options.eps is not None:
            # The caller's step is the ladder's coarsest.
            scale = np.full_like(size, self.options.eps / LADDER[0])
        rows = np.eye(x.size) if directions is None else directions
        slopes = []
        for row in rows:
            v = row * scale

            def phi(s: float, v: Array = v) -> Array:
                moved = [a + (s * v).reshape(a.shape) if k == p else a for k, a in enumerate(self.map.arrays)]
                return self.map.flat(moved)

            found = _slope(phi, self.centre, self.eps)
            unit = scale[row != 0][0] if directions is None else 1.0
            slopes.append([part / unit for part in found.parts()])
        self.map.rest()
        columns = [np.array(part).reshape(len(rows), self.total).T for part in zip(*slopes, strict=True)]
        if not slopes:
            columns = [np.zeros((self.total, 0))] * len(_Slope.__annotations__)
        return rows if directions is None else rows * scale, _Slope(*columns)

    def entries(self) -> Iterator[Entry]:
        """Yield the comparisons of every input in every mode."""
        modes = self.options.modes
        combined = self.total > FULL
        rows = np.array([_signs(self.rng, self.total) for _ in range(DIRECTIONS)]) if combined else np.eye(self.total)
        pulled = [self.pull(g) for g in rows] if "reverse" in modes else []
        for p, (name, x) in enumerate(zip(self.map.names, self.map.arrays, strict=True)):
            count = self.options.random_directions(x.size)
            wanted = np.array([_signs(self.rng, x.size) for _ in range(count)]) if count else None
            directions, slope = self.along(p, wanted)
            how = _count(count, "random direction") if count else "every element"
            kinks = int((slope.gap > 0).sum())
            if "reverse" in modes:
                auto = np.array([one[p] for one in pulled]).reshape(len(rows), x.size)
                numeric = slope
                if combined:
                    # A kink in one output must not blur the combination of the others.
                    smooth = rows * (slope.gap == 0).all(axis=1)
                    auto = auto if not kinks else np.array([self.pull(g)[p] for g in smooth])
                    numeric = self.mix(slope, smooth)
                self.refuse_infinite(auto, p)
                auto = auto if wanted is None else auto @ directions.T
                told = f"{how}, outputs combined" if combined else how
                yield self.judge(name, p, "reverse", told, auto, numeric, kinks, wanted is None, not combined)
            if "forward" in modes:
                auto = np.array([self.push({p: v}) for v in directions]).reshape(len(directions), self.total).T
                self.refuse_infinite(auto, p)
                yield self.judge(name, p, "forward", how, auto, slope, kinks, wanted is None, True)
        if "reverse" in modes and "forward" in modes:
            yield self.duality()

    @staticmethod
    def mix(slope: _Slope, rows: Array) -> _Slope:
        """Return the slopes of combinations of the outputs; outputs with weight 0 have no say, whatever their slope."""
        used = rows.any(axis=0).reshape(-1, 1)
        value, error, noise = (np.where(used, part, 0.0) for part in (slope.value, slope.error, slope.noise))
        undecided = abs(rows) @ np.where(used, slope.undecided, 0.0)
        return _Slope(rows @ value, abs(rows) @ error, abs(rows) @ noise, np.zeros_like(undecided), undecided)

    def mode(self, outer: str) -> str:
        return f"{outer} over {self.label}" if self.label else outer

    def refuse_infinite(self, auto: Array, p: int) -> None:
        """Check that derivatives are finite; a node's own ones may be not, which the comparison then fails."""
        if not self.strict or np.isfinite(auto).all():
            return
        x = self.map.arrays[p]
        name = self.map.names[p]
        where = ""
        if auto.shape[1:] == (x.size,):
            element = _index(int(np.argwhere(~np.isfinite(auto))[0][1]), x.shape)
            where = f" at element {element}"
        what = "gradient" if self.order == 1 else "second derivative"
        raise GradcheckError(f"the {what} of {name} {x.shape} is not finite{where}{self.first_infinite()}")

    def first_infinite(self) -> str:
        """Return the first recorded operation whose contribution is not finite, as the end of a sentence."""
        ys = [self.outputs[k] for k in self.live]
        with np.errstate(all="ignore"):
            gs = [_seed(y, np.ones(y.size)) for y in ys]
            _, edges = _core.sweep(ys, gs, self.inputs, False, True, True)
        for node, k, contribution in edges:
            if not np.isfinite(_host(contribution)).all():
                scope = f", in {node.scope}" if node.scope else ""
                return f"; it is first not finite at {node.op.name}, argument '{_argument(node.op, k)}'{scope}"
        return ""

    def judge(
        self,
        name: str,
        p: int,
        mode: str,
        how: str,
        auto: Array,
        slope: _Slope,
        kinks: int,
        elements: bool,
        outputs: bool,
    ) -> Entry:
        """Compare derivatives with numeric ones: rows are outputs or combinations, columns elements or directions."""
        o = self.options
        numeric = slope.value
        kinked = slope.gap > 0
        with np.errstate(all="ignore"):
            size = np.maximum(abs(auto), np.nan_to_num(abs(numeric)))
            block = float(np.max(np.where(kinked | ~np.isfinite(size), 0.0, size), initial=0.0))
            allowed = o.atol + o.rtol * size + 1e-12 * block
            allowed = allowed + 4 * slope.noise + np.minimum(4 * slope.error, DOUBT * block)
            # At a kink any slope within one gap of the one-sided slopes will do: several kinks may meet.
            allowed = allowed + 1.5 * slope.gap
            if not self.strict:
                # Something is wrong, and the question is what: nobody is blamed on differences that disagree.
                allowed = allowed + 1.5 * slope.undecided
            apart = abs(auto - numeric)
            apart = np.where(np.isnan(apart), np.inf, apart)
            excess = apart / allowed
        excess = np.where(kinked & (excess <= 1), -1.0, excess)
        shape = self.map.arrays[p].shape
        common = (name, shape, self.order, self.mode(mode), how, int(auto.size), kinks)
        if not auto.size:
            return Entry(*common, 0.0, o.atol, None, None, 0.0, 0.0, 0.0, True)
        r, c = np.unravel_index(int(np.argmax(excess)), excess.shape)
        at_kink = bool(kinked[r, c]) and excess[r, c] <= 1
        return Entry(
            *common,
            error=0.0 if at_kink else float(apart[r, c]),
            tolerance=float(allowed[r, c]),
            element=_index(int(c), shape) if elements else None,
            output=self.output_text(int(r)) if outputs else None,
            autodiff=float(auto[r, c]),
            numeric=float(numeric[r, c]),
            doubt=float(slope.error[r, c]),
            ok=bool(excess[r, c] <= 1),
        )

    def output_text(self, row: int) -> str:
        k = int(np.searchsorted(self.ends, row, side="right")) - 1
        shape = tuple(self.outputs[k].shape)
        element = f" at {_index(row - int(self.ends[k]), shape)}" if shape else ""
        return f"{self.map.output_name(k, len(self.outputs))}{element}"

    def duality(self) -> Entry:
        """Compare <vjp(g), t> with <g, jvp(t)>, which agree to rounding whatever f is."""
        g = _signs(self.rng, self.total)
        ts = {p: _signs(self.rng, x.size) for p, x in enumerate(self.map.arrays)}
        pulled, pushed = self.pull(g), self.push(ts)
        products = [pulled[p] * t for p, t in ts.items()]
        back, ahead = sum(float(part.sum()) for part in products), float(g @ pushed)
        size = sum(float(abs(part).sum()) for part in products) + float(abs(g) @ abs(pushed))
        precision = float(self.eps.max(initial=0.0)) / EPS
        allowed = DUALITY * precision * size + np.finfo(np.float64).tiny
        apart = abs(back - ahead)
        if apart > allowed:  # large numbers may have cancelled on the way, where `size` does not see them
            allowed += noise(lambda s: sum(float(part @ ts[p]) for p, part in enumerate(self.pull(s * g))), "float64")
            allowed += noise(lambda s: float(g @ self.push({p: s * t for p, t in ts.items()})), "float64")
        shape = (sum(x.size for x in self.map.arrays),)
        return Entry(
            "all inputs", shape, self.order, self.mode("duality"), "one random pair", 1, 0, apart, allowed, None, None,
            back, ahead, 0.0, bool(apart <= allowed),
        )  # fmt: skip


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _checks(subject: _Map, options: _Options, strict: bool) -> Iterator[_Check]:
    """Yield the checks of a map, of all orders asked for; what is not finite is refused (strict) or fails."""
    rng = np.random.default_rng(options.seed)
    yield _Check(subject, options, rng, 1, "", strict)
    if 2 in options.orders:
        for mode in options.modes:
            inner = _Gradient(subject, rng) if mode == "reverse" else _Tangent(subject, rng)
            yield _Check(inner, options, rng, 2, mode, strict)


# --- the user's function ------------------------------------------------------------------------------------


@dataclass
class _Call:
    """One operation as it was recorded, with copies of its operands, ready to be applied again."""

    record: Any
    operands: list[Any]
    arrays: list[Array]
    params: dict[str, Any]
    args: tuple[Any, ...]
    outputs: tuple[Any, ...]
    scope: str
    time: int | None
    node: int

    def apply(self, operands: list[Any]) -> list[Any]:
        """Apply the same operation to other operands; returns its outputs."""
        if isinstance(self.record, FunctionOp):
            args = list(self.args)
            for place, x in zip(self.params["call"].places, operands, strict=True):
                args[place] = x
            out = self.record.function.apply(*args)
        else:
            given = {name: _lifted(value) for name, value in self.params.items() if name in self.record.params}
            out = self.record(operands, **given) if self.record.variadic else self.record(*operands, **given)
        return list(out) if isinstance(out, tuple) else [out]


def _lifted(value: Any) -> Any:
    """Return float32 values in float64; anything else as it is."""
    data = _core.data_of(value)
    if is_array(data) and data.dtype == np.float32:
        wide = array_lane(data).cast(data, array_lane(data).xp.float64)
        return _core.tensor(wide) if isinstance(value, TensorBase) else wide
    return value


class _Watch(Tape):
    """A tape that also keeps what it takes to apply every operation again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def _observe(self, record: Any, xs: list[Any], datas: list[Any], params: Any, outputs: tuple[Any, ...]) -> None:
        super()._observe(record, xs, datas, params, outputs)
        node = self.nodes[-1]
        # A Function's plain arguments are dropped as soon as its forward is over: this is the time to take them.
        args = params["call"].args if isinstance(record, FunctionOp) else ()
        # A recomputed part names the leaves it closes over by tensors without data.
        arrays = [np.zeros(x.node.shape) if data is None else _copy(data) for x, data in zip(xs, datas, strict=True)]
        self.calls.append(_Call(record, xs, arrays, params or {}, args, outputs, node.scope, node.time, node.id))

    def leaves(self, outputs: Sequence[Any]) -> list[Any]:
        """Return the leaf tensors that `outputs` depend on, in the order of their first use."""
        live = [y for y in outputs if isinstance(y, TensorBase) and y.requires_grad]
        reached = {id(node): node for node in _core.other_leaves(live, [])} if live else {}
        found: dict[int, Any] = {}
        for x in self._operands():
            if x.requires_grad and id(x.node) in reached:
                found.setdefault(id(x.node), x)
        return list(found.values())

    def constants(self) -> list[Any]:
        """Return the float32 tensors that came from outside without a gradient."""
        made = {id(y) for call in self.calls for y in call.outputs}
        found = {id(x): x for x in self._operands() if not x.requires_grad and id(x) not in made}
        return [x for x in found.values() if _core.data_of(x).dtype == np.float32]

    def _operands(self) -> Iterator[Any]:
        for call in self.calls:
            for x in call.operands:
                if isinstance(x, TensorBase) and _core.data_of(x) is not None:
                    yield x


def _copy(data: Any) -> Array:
    return np.array(array_lane(data).to_numpy(data) if is_array(data) else data, copy=True)


class _LiftingError(GradcheckError):
    """A function that cannot be run in float64."""


_LiftingError.__name__ = _LiftingError.__qualname__ = "GradcheckError"


class _Subject(_Map):
    """The user's function over its floating inputs and the leaves it closes over."""

    def __init__(self, f: Callable[..., Any], inputs: Any, names: Sequence[str] | None, wrt: str) -> None:
        self.f = f
        args = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
        self.leaves, self.rebuild = flatten(args)
        labels = [name for name, _ in _named(args, _argument_names(f, len(args), names))]
        self.places = [k for k, leaf in enumerate(self.leaves) if _is_float(leaf)]
        self.notes: list[str] = []
        self.names, self.arrays = [], []
        self.narrow: list[str] = []
        self.widened: set[int] = set()
        for k in self.places:
            leaf = self.leaves[k]
            if not isinstance(leaf, float | np.floating):
                self._take(leaf, (getattr(leaf, "name", None) if names is None else None) or labels[k])
            else:
                self.names.append(labels[k])
                self.arrays.append(np.array(float(leaf)))
        for name, x in zip(self.names, self.arrays, strict=True):
            if not np.isfinite(x).all():
                raise GradcheckError(f"{name} {x.shape} is not finite: gradients are checked at finite points")
        self.closed: list[Any] = []
        self._find_closed(wrt)

    def _take(self, x: Any, name: str) -> None:
        # What f closes over is lifted already.
        if _core.data_of(x).dtype == np.float32 or id(x) in self.widened:
            self.narrow.append(name)
        self.names.append(name)
        self.arrays.append(np.asarray(_host(as_tensor(x)), dtype=np.float64).copy())

    def _find_closed(self, wrt: str) -> None:
        """Run f as it stands, watched, and take the leaves and float32 constants that it closes over."""
        with Recording(True), _Watch() as watch:
            inputs = {k: _core.tensor(_core.data_of(as_tensor(self.leaves[k])), True) for k in self.places}
            outputs = self._outputs(self.f(*self._arguments(inputs)))
        own = {id(x.node) for x in inputs.values()}
        self.watch = watch
        self.all_closed = [x for x in watch.leaves(outputs) if id(x.node) not in own]
        given = {id(leaf) for leaf in self.leaves}
        self.constants = [x for x in watch.constants() if id(x) not in given]
        if wrt == "all":
            self.closed = list(self.all_closed)

    def _arguments(self, inputs: dict[int, Any]) -> Any:
        return self.rebuild([inputs[k] if k in inputs else _passed(leaf) for k, leaf in enumerate(self.leaves)])

    def _outputs(self, result: Any) -> list[Any]:
        """Return the floating tensors of a result.

        Raises:
            GradcheckError: there is none, or something else is among them.
        """
        outputs, _ = flatten(result)
        for y in outputs:
            if not isinstance(y, TensorBase):
                raise GradcheckError(f"f returned {type(y).__name__}, not a tensor computed from its inputs")
        floats = [y for y in outputs if y.dtype.kind == "f"]
        if not floats:
            kinds = ", ".join(sorted({str(y.dtype) for y in outputs})) or "nothing"
            raise GradcheckError(f"f returned no floating tensor ({kinds}): there is nothing to differentiate")
        return floats

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let f compute in float64: closed-over tensors get other arrays, and their own ones back whatever happens."""
        held = [(x, _core.data_of(x)) for x in (*self.all_closed, *self.constants)]
        default = get_default_dtype()
        try:
            set_default_dtype("float64")
            for x, data in held:
                if data.dtype == np.float32:
                    _core.set_data(x, _core.data_of(_lifted(data)))
                    self.widened.add(id(x))
            yield
        finally:
            set_default_dtype(default)
            for x, data in held:
                _core.set_data(x, data)

    def settle(self) -> None:
        """Check, inside :meth:`lifted`, that f can be checked at all, and take the closed-over leaves as inputs.

        Raises:
            GradcheckError: f cannot run in float64, is not deterministic, not finite, or depends on none of the inputs.
        """
        with Recording(True), _Watch() as watch:
            inputs = {k: self._tensor(self.leaves[k], x, True) for k, x in zip(self.places, self.arrays, strict=True)}
            try:
                outputs = self._outputs(self.f(*self._arguments(inputs)))
            except DTypeError as error:
                raise _LiftingError(
                    f"f cannot be checked in float64: {error}. An array or cast inside of it is float32: make it "
                    "float64, or hand it in as an input"
                ) from error
        if any(y.dtype == np.float32 for call in watch.calls for y in call.outputs):
            self.eps = float(np.finfo(np.float32).eps)
            self.notes.append("f casts to float32 inside: its differences are good to few digits")
        again = {id(x.node) for x in watch.leaves(outputs)}
        fresh = [x for x in self.all_closed if id(x.node) not in again]
        if fresh:
            self.notes.append(
                f"not checked: {_count(len(fresh), 'parameter')} that f makes anew in every run (shapes "
                f"{', '.join(str(tuple(x.shape)) for x in fresh[:3])}); hand them in, or make them outside of f"
            )
        self.closed = [x for x in self.closed if id(x.node) in again]
        self.own = [inputs[k] for k in self.places]
        for n, x in enumerate(self.closed):
            self._take(x, x.name or f"leaf {n}")
        for n, x in enumerate(self.closed):
            if not np.isfinite(self.arrays[len(self.places) + n]).all():
                raise GradcheckError(f"{x.name or f'leaf {n}'} is not finite: gradients are checked at finite points")
        if not self.arrays:
            raise GradcheckError("there is nothing to differentiate: no floating input, and f closes over no parameter")
        self._refuse_infinite(outputs)
        live = [y for y in outputs if y.requires_grad]
        ones = [_seed(y, np.ones(y.size)) for y in live]
        with np.errstate(all="ignore"):
            grads = _core.sweep(live, ones, [*self.own, *self.closed], False, True) if live else [None]
        if all(g is None for g in grads):
            raise GradcheckError(f"what f returned does not depend on {', '.join(self.names)}: no gradient flows there")
        for name, g in zip(self.names, grads, strict=True):
            if g is None:
                self.notes.append(f"no gradient flows to {name}")
        self._refuse_chance(outputs)

    def _refuse_infinite(self, outputs: Sequence[Any]) -> None:
        for k, y in enumerate(outputs):
            bad = np.argwhere(~np.isfinite(_host(y)))
            if len(bad):
                element = tuple(int(i) for i in bad[0])
                raise GradcheckError(
                    f"{self.output_name(k, len(outputs))} {tuple(y.shape)} is {_host(y)[element]} at element "
                    f"{element}: gradients are checked where f is finite"
                )

    def _refuse_chance(self, outputs: Sequence[Any]) -> None:
        again = self.values(self.arrays)
        if [tuple(y.shape) for y in again] != [tuple(y.shape) for y in outputs]:
            raise GradcheckError("f is not deterministic: two runs on the same inputs gave outputs of different shapes")
        a, b = _vector(outputs), _vector(again)
        with np.errstate(all="ignore"):
            apart = abs(a - b)
            worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart))) if a.size else 0
        # Not 0: sums over memory that is aligned in another way may differ in the last digit.
        if a.size and not apart[worst] <= 1e-13 * float(abs(a).max()):
            raise GradcheckError(
                f"f is not deterministic: two runs on the same inputs gave {a[worst]:.6g} and "
                f"{b[worst]:.6g}. Switch dropout off, or draw the random numbers outside of f"
            )

    def _tensor(self, given: Any, x: Array, on: bool) -> Any:
        lane = array_lane(_core.data_of(as_tensor(given)))
        name = getattr(given, "name", None)
        return _core.tensor(lane.asarray(x), on, name)

    def _put(self, arrays: Sequence[Array]) -> None:
        for t, x in zip(self.closed, arrays[len(self.places) :], strict=True):
            _core.set_data(t, array_lane(_core.data_of(t)).asarray(x))

    def rest(self) -> None:
        # A checkpoint runs again in the sweep and reads the leaves as they are then.
        self._put(self.arrays)

    def _run(self, arrays: Sequence[Array], on: bool) -> tuple[list[Any], list[Any]]:
        inputs = {k: self._tensor(self.leaves[k], x, on) for k, x in zip(self.places, arrays, strict=False)}
        self._put(arrays)
        with Recording(on):
            outputs = self._outputs(self.f(*self._arguments(inputs)))
        return [*inputs.values(), *self.closed], outputs

    def record(self, arrays: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        return self._run(arrays, True)

    def values(self, arrays: Sequence[Array]) -> list[Any]:
        return self._run(arrays, False)[1]


def _is_float(leaf: Any) -> bool:
    data = _core.data_of(leaf)
    return isinstance(data, float | np.floating) or (is_array(data) and data.dtype.kind == "f")


def _passed(leaf: Any) -> Any:
    """Return an input that is not differentiated as f takes it: arrays as tensors, anything else as it is."""
    return as_tensor(leaf) if is_array(leaf) else leaf


def _argument_names(f: Callable[..., Any], n: int, names: Sequence[str] | None) -> list[str]:
    if names is not None:
        if len(names) != n:
            raise UsageError(f"names has {len(names)} entries for {n} arguments")
        return list(names)
    if isinstance(f, Op) and not f.variadic:
        return list(f.operands[:n])
    found: list[str] = []
    # Callables written in C have no signature.
    with contextlib.suppress(TypeError, ValueError):
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        found = [p.name for p in inspect.signature(f).parameters.values() if p.kind in kinds]
    return [found[k] if k < len(found) else f"input {k}" for k in range(n)]


def _named(args: list[Any], names: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of all arguments with names like ``x[0]['w']``, in the order of `flatten`."""

    def walk(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(tree, dict):
            for key in sorted(tree, key=str):
                yield from walk(tree[key], f"{name}[{key!r}]")
        elif isinstance(tree, tuple | list):
            for k, part in enumerate(tree):
                yield from walk(part, f"{name}[{k}]")
        elif tree is not None:
            yield name, tree

    for tree, name in zip(args, names, strict=True):
        yield from walk(tree, name)


# --- every node by itself -----------------------------------------------------------------------------------


class _Step(_Map):
    """One recorded operation as a function of those operands that a gradient flows to."""

    def __init__(self, call: _Call) -> None:
        self.call = call
        self.places = [
            k
            for k, (x, a) in enumerate(zip(call.operands, call.arrays, strict=True))
            if isinstance(x, TensorBase) and x.requires_grad and a.dtype.kind == "f"
        ]
        self.names = [_argument(call.record, k) for k in self.places]
        self.operands = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in call.arrays]
        self.arrays = [self.operands[k] for k in self.places]

    def _run(self, arrays: Sequence[Array], on: bool) -> tuple[list[Any], list[Any]]:
        operands = [_core.tensor(a) for a in self.operands]
        inputs = [_core.tensor(np.asarray(a, order="C"), on) for a in arrays]
        for k, x in zip(self.places, inputs, strict=True):
            operands[k] = x
        with Recording(on):
            outputs = self.call.apply(operands)
        return inputs, [y for y in outputs if y.dtype.kind == "f"]

    def record(self, arrays: Sequence[Array]) -> tuple[list[Any], list[Any]]:
        return self._run(arrays, True)

    def values(self, arrays: Sequence[Array]) -> list[Any]:
        return self._run(arrays, False)[1]


def _argument(record: Any, k: int) -> str:
    """Return the name of operand k as the operation's author wrote it."""
    if isinstance(record, FunctionOp):
        parameters = list(inspect.signature(record.function.forward).parameters.values())[1:]
        named = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
        return named[k] if len(named) == len(parameters) and k < len(named) else str(record.operand_name(k))
    name = str(record.operand_name(k))
    return f"{name}[{k}]" if record.variadic else name


def _without_forward(record: Any) -> bool:
    return isinstance(record, FunctionOp) and getattr(record.function, "jvp", None) is None


def _is_cut(call: _Call) -> bool:
    """Say whether a gradient ends at this operation although its result is floating."""
    asked = any(isinstance(x, TensorBase) and x.requires_grad for x in call.operands)
    return asked and all(y.dtype.kind == "f" and not y.requires_grad for y in call.outputs)


def _accuse(subject: _Subject, options: _Options, report: Report) -> None:
    """Check every node that f records by itself; add the guilty ones, and what else can be said, to the report."""
    with Recording(True), _Watch() as watch:
        subject.record(subject.arrays)
    kinks: dict[str, int] = {}
    checked = hidden = 0
    for call in watch.calls:
        if isinstance(call.record, FunctionOp) and call.record.function is _Checkpoint:
            hidden += 1
            continue
        if not any(y.requires_grad for y in call.outputs):
            continue
        checked += 1
        modes = tuple(mode for mode in options.modes if mode != "forward" or not _without_forward(call.record))
        step = _Step(call)
        failed: dict[str, Entry] = {}
        for entry in _node_entries(step, replace(options, modes=modes, directions=None)):
            if entry.kinks:
                kinks[call.record.name] = kinks.get(call.record.name, 0) + entry.kinks
            if not entry.ok and not entry.mode.startswith("duality"):
                failed.setdefault(entry.input, entry)
        for entry in failed.values():
            place = (call.record.name, entry.input, call.scope, call.time, call.node)
            report.guilty.append(Guilt(*place, entry.order, entry.mode, entry.element, entry.autodiff, entry.numeric))
    cuts = [call for call in watch.calls if _is_cut(call)]
    for call in cuts[:5]:
        report.notes.append(f"a gradient ends at {call.record.name}{f', in {call.scope}' if call.scope else ''}")
    if len(cuts) > 5:
        report.notes.append(f"and at {len(cuts) - 5} more operations")
    if hidden:
        report.notes.append(f"{_count(hidden, 'checkpoint')} checked by the operations inside")
    if report.guilty:
        return
    report.notes.append(f"each of the {_count(checked, 'recorded node')} is right by itself")
    if kinks:
        where = ", ".join(f"{name} ({n})" for name, n in kinks.items())
        report.notes.append(f"f stands on kinks here, whose slopes need not add up: {where}; move the inputs a little")
    elif not cuts:
        report.notes.append("a value may leave the graph on its way, through .numpy(), .item() or an array of its own")


def _node_entries(step: _Step, options: _Options) -> Iterator[Entry]:
    for check in _checks(step, options, False):
        found = list(check.entries())
        vague = any(not entry.ok and entry.element is None for entry in found)
        if vague and max(x.size for x in step.arrays) <= REFINED:
            check.options = replace(options, directions="full")
            found = list(check.entries())
        yield from found


# --- the doors ----------------------------------------------------------------------------------------------


def gradcheck(
    f: Callable[..., Any],
    inputs: Any,
    *,
    order: int = 1,
    modes: Sequence[str] = MODES,
    atol: float = ATOL,
    rtol: float = RTOL,
    eps: float | None = None,
    directions: int | str | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    wrt: str = "all",
    raise_on_failure: bool = True,
) -> Report:
    """Check f's derivatives against numeric differences, and find the operation to blame when they disagree.

    Everything is computed in float64: float32 inputs, closed-over parameters and constants are lifted for the time of
    the check and get their own arrays back. Where one-sided differences disagree at every step (relu at 0) a derivative
    is counted as a kink, and anything near the one-sided slopes is accepted.

    Args:
        f: takes tensors, or tuples, lists and dicts of them, and returns a tensor or a tree of tensors.
        inputs: a tuple or list of f's arguments; anything else is its only argument. Floating arrays, tensors and
            Python floats are differentiated; integers, booleans and other objects are passed on.
        order: 1, or 2 to check the derivative of the gradient as well, with every mode over every mode.
        modes: "reverse", "forward" or both; both are also compared with each other.
        atol, rtol: how far apart two derivatives may be, beside the estimated error of the differences.
        eps: the coarsest step of the differences; default: 1 % of an element's size. Finer steps follow from it.
        directions: "full" checks every element, a number that many random directions per input; default: every element
            of inputs of up to 256 elements.
        seed: of the random directions.
        names: what to call f's arguments; default: the tensors' names, or those of f's parameters.
        wrt: "all" checks the parameters that f closes over as well, "inputs" does not.
        raise_on_failure: raise when a comparison failed; otherwise the report says so.

    Returns:
        A :class:`Report`.

    Raises:
        GradcheckError: a comparison failed (its ``report`` has all of it), or f cannot be checked: it is not
            deterministic, not finite, returned no tensor or nothing that depends on its inputs.
        UsageError: an argument makes no sense.

    >>> import minigrad as mg
    >>> mg.testing.gradcheck(lambda x, a: mg.tanh(a * x), (mg.tensor([0.3, -1.2, 2.0]), 0.7)).ok
    True
    """
    options = _options(order, modes, atol, rtol, eps, directions, seed)
    if wrt not in ("all", "inputs"):
        raise UsageError(f"wrt is 'all' or 'inputs', not {wrt!r}")
    if not callable(f):
        raise UsageError(f"{f!r} is not a function")
    subject = _Subject(f, inputs, names, wrt)
    return _finished(subject, options, raise_on_failure)


def _options(
    order: int,
    modes: Sequence[str],
    atol: float,
    rtol: float,
    eps: float | None,
    directions: int | str | None,
    seed: int,
) -> _Options:
    if order not in (1, 2):
        raise UsageError(f"order is 1 or 2, not {order!r}")
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if not modes or any(mode not in MODES for mode in modes):
        raise UsageError(f"modes are 'reverse' and 'forward', not {modes!r}")
    if not (atol >= 0 and rtol >= 0 and atol + rtol > 0):
        raise UsageError(f"tolerances are positive numbers, not atol={atol!r} and rtol={rtol!r}")
    if eps is not None and not 0 < eps < math.inf:
        raise UsageError(f"eps is a positive number, not {eps!r}")
    if not (directions is None or directions == "full" or (isinstance(directions, int) and directions >= 1)):
        raise UsageError(f"directions is a positive number, 'full' or None, not {directions!r}")
    # A tolerance of 0 would divide by 0 where both derivatives vanish.
    return _Options(tuple(range(1, order + 1)), modes, max(atol, 1e-300), rtol, eps, directions, seed)


def _finished(subject: _Subject, options: _Options, raise_on_failure: bool) -> Report:
    blind = sorted({call.record.name for call in subject.watch.calls if _without_forward(call.record)})
    missing = f"{', '.join(blind)} has no staticmethod jvp(ctx, *tangents)"
    if blind and "forward" in options.modes:
        if options.modes == ("forward",):
            raise GradcheckError(f"forward mode cannot be checked: {missing}")
        subject.notes.append(f"forward mode was not checked: {missing}")
        options = replace(options, modes=("reverse",))
    with subject.lifted():
        subject.settle()
        if subject.narrow:
            subject.notes.append(f"lifted from float32 to float64: {', '.join(subject.narrow)}")
        report = Report(notes=subject.notes, orders=options.orders)
        for check in _checks(subject, options, True):
            report.entries.extend(check.entries())
        for name, x in zip(subject.names, subject.arrays, strict=True):
            count = options.random_directions(x.size)
            if count:
                report.notes.append(f"{name} {x.shape}: {_count(count, 'random direction')} (seed {options.seed})")
        if not report.ok:
            _accuse(subject, options, report)
    if not report.ok and raise_on_failure:
        error = GradcheckError(report.text())
        error.report = report  # type: ignore[attr-defined]
        raise error
    return report


def check_model(
    loss_function: Callable[[], Any],
    *,
    order: int = 1,
    modes: Sequence[str] = MODES,
    atol: float = ATOL,
    rtol: float = RTOL,
    directions: int | str | None = None,
    seed: int = 0,
    raise_on_failure: bool = False,
) -> Report:
    """Check the gradients of a model's loss in every leaf that it reaches.

    Args:
        loss_function: takes no arguments and returns a loss or a list of losses, whose sum is checked. A function that
            closes over its parameters is run again for each difference; one that makes them itself, or that computes
            with float32 arrays of its own, has its recorded operations applied again instead, and the report says so.
        order, modes, atol, rtol, directions, seed, raise_on_failure: as in :func:`gradcheck`.

    Returns:
        A :class:`Report`.

    Raises:
        GradcheckError: the function cannot be checked; with `raise_on_failure` also when a comparison failed.
    """
    options = _options(order, modes, atol, rtol, None, directions, seed)

    def total() -> Any:
        losses, _ = flatten(loss_function())
        for loss in losses:
            if not isinstance(loss, TensorBase):
                raise GradcheckError(f"the model returned {type(loss).__name__}, not a loss computed as a tensor")
        if not losses:
            raise GradcheckError("the model returned no loss")
        parts = [loss.sum() if loss.shape else loss for loss in losses]
        return sum(parts[1:], parts[0])

    runs = []
    for _ in range(2):
        with Recording(True), _Watch() as watch:
            loss = total()
        runs.append((watch, loss, watch.leaves([loss])))
    same = [x.node for x in runs[0][2]] == [x.node for x in runs[1][2]]
    why = "the model makes its parameters itself"
    if same:
        try:
            return _finished(_Subject(total, (), None, "all"), options, raise_on_failure)
        except _LiftingError:
            why = "the model computes with float32 arrays of its own"
    watch, loss, leaves = runs[0]
    if not leaves:
        raise GradcheckError("the loss does not depend on any tensor that requires a gradient")
    replay = _Replay(watch, loss, leaves)
    names = [x.name or f"leaf {n}" for n, x in enumerate(leaves)]
    subject = _Subject(replay, tuple(x.detach() for x in leaves), names, "inputs")
    subject.notes.append(f"{why}: its {len(watch.calls)} recorded operations were applied again")
    return _finished(subject, options, raise_on_failure)


class _Replay:
    """A recorded computation as a function of its leaves."""

    def __init__(self, watch: _Watch, output: Any, leaves: list[Any]) -> None:
        self.calls = [call for call in watch.calls if any(y.requires_grad for y in call.outputs)]
        for call in self.calls:
            if isinstance(call.record, FunctionOp) and call.record.function is _Checkpoint:
                raise GradcheckError("a model with mg.checkpoint can be checked only if it closes over its parameters")
        self.output, self.leaves = output, leaves

    @staticmethod
    def place(t: Any) -> tuple[int, int]:
        return id(t.node), t.out

    def __call__(self, *leaves: Any) -> Any:
        known = {self.place(x): new for x, new in zip(self.leaves, leaves, strict=True)}
        for call in self.calls:
            operands = []
            for x, array in zip(call.operands, call.arrays, strict=True):
                held = array.astype(leaves[0].dtype) if array.dtype.kind == "f" else array
                new = known.get(self.place(x)) if isinstance(x, TensorBase) and x.requires_grad else None
                operands.append(_core.tensor(held) if new is None else new)
            with _core.scope(call.scope) if call.scope else contextlib.nullcontext():
                outputs = call.apply(operands)
            known.update({self.place(y): new for y, new in zip(call.outputs, outputs, strict=True) if y.requires_grad})
        return known[self.place(self.output)]
