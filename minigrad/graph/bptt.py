"""The time ledger: which part of every loss's gradient leaves a parameter at which step's use of it.

::

                 t=0         t=1         t=2
        W ───────┬───────────┬───────────┐            terms[t, k]   k=0   k=1   k=2
                 ▼           ▼           ▼               E_0         ■     0     0
        h ──► [ use ] ──► [ use ] ──► [ use ]            E_1         ■     ■     0
                 │           │           │               E_2         ■     ■     ■
                E_0         E_1         E_2              a row sums to ∂E_t/∂W, all of it to ∂E/∂W

One reverse sweep per loss brings both the plain gradient and the cotangent g of every result that a step computes
from W; the page's rule of that one operation then gives the term. What is computed from W before any step (the rows
of a gate, a transpose, embedded inputs) counts where a step uses it.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import _core
from minigrad._core import Node, Opened, Recording, Tape, TensorBase, data_of, result_of, sweep
from minigrad.backend import array_lane, host
from minigrad.errors import GraphError, MissingExtraError, ShapeError, UsageError
from minigrad.files import write_whole
from minigrad.graph.rounding import noise
from minigrad.graph.view import gate_letter
from minigrad.graph.words import Shown, counted
from minigrad.tensor import ones_like

__all__ = ["OUTSIDE", "TimeLedger", "bptt"]

Array = np.ndarray[Any, Any]

OUTSIDE = "outside"
"""The column of uses that lie in no step."""

FORMAT = "minigrad-time-ledger/1"
KEPT_BYTES = 1 << 25
"""Ledgers whose terms fit in here hold them; of larger ones a row at a time is computed again."""

TOLERANCE = 1000.0
"""Allowed residual in units of the dtype's rounding, relative to the norms that are added up."""

SHADES = ((0.1, "█"), (0.01, "▓"), (0.001, "▒"), (0.0, "░"))
WIDEST, TALLEST = 64, 32  # cells of a heat map in the terminal


# --- how a gradient comes apart -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Use:
    """An operation in a step (or after one) that has W, or what was prepared of it, among its operands."""

    node: Node
    operands: tuple[int, ...]
    step: int | None
    gate: str | None
    results: tuple[TensorBase, ...]


@dataclass
class _Split:
    """The uses of one leaf under some losses, and the way back from each of them to the leaf.

    Attributes:
        nodes: everything under the losses, oldest first.
        prepared: what is computed from the leaf and from nothing that belongs to a step, oldest first.
        windows: for the leaf and those prepared nodes that are windows on it (slices, transposes), how to look
            through them at an array of the leaf's shape.
        latest: the last step that a node depends on.
    """

    leaf: TensorBase
    nodes: list[Node]
    prepared: dict[Node, None] = field(default_factory=dict)
    windows: dict[Node, Callable[[Array], Array]] = field(default_factory=dict)
    uses: list[_Use] = field(default_factory=list)
    latest: dict[Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        leaf = self.leaf.node
        assert leaf is not None
        probe = np.zeros(leaf.shape, _dtype(self.leaf))
        self.windows[leaf] = lambda array: array
        stepped: set[Node | None] = set()
        for node in self.nodes:
            if node.is_leaf:
                continue
            parents, step = node.inputs, _step(node.scope)
            steps = [self.latest[p] for p in parents if p is not None and p in self.latest]
            if step is not None or steps:
                self.latest[node] = max(steps if step is None else [*steps, step])
            early = step is None and stepped.isdisjoint(parents)
            if not early:
                stepped.add(node)
            touched = tuple(k for k, p in enumerate(parents) if p is leaf or p in self.prepared)
            if touched and early:
                self._prepare(node, parents[touched[0]], probe)
            elif touched:
                results = tuple(result_of(node, j, None) for j in range(node.n_out))
                self.uses.append(_Use(node, touched, step, _gate(node.scope), results))

    def _prepare(self, node: Node, parent: Node | None, probe: Array) -> None:
        if node.n_out > 1:
            raise GraphError(
                f"{node.op.name} makes several results of {_name(self.leaf)} before the first step, and the graph does "
                "not say which of them a step uses; apply it inside the steps"
            )
        self.prepared[node] = None
        outer = self.windows.get(parent) if parent is not None and node.n_in == 1 else None
        if outer is None or getattr(node.op, "kind", None) != "linear":
            return

        def window(array: Array) -> Array:
            part: Array = node.op.forward([outer(array)], node.params)
            return part

        # A linear operation whose result is a writable view picks elements: its transpose adds into the same ones.
        part = window(probe)
        if isinstance(part, np.ndarray) and part.flags.writeable and np.may_share_memory(part, probe):
            self.windows[node] = window

    def terms(self, loss: TensorBase) -> tuple[Array, Iterator[tuple[int | None, Array]]]:
        """Return dE/dW by the plain sweep, and the terms by column: (step, array); the array is used again."""
        uses, leaf = self.uses, self.leaf.node
        targets = [self.leaf, *(result for use in uses for result in use.results)]
        found = sweep([loss], [ones_like(loss)], targets, keep_graph=True)  # type: ignore[arg-type]
        whole = np.zeros(leaf.shape, _dtype(self.leaf)) if found[0] is None else _array(found[0])  # type: ignore[union-attr]
        arriving: dict[int | None, list[tuple[_Use, list[Any]]]] = {}
        place = 1
        for use in uses:
            gs = found[place : place + len(use.results)]
            place += len(gs)
            if any(g is not None and _array(g).any() for g in gs):
                arriving.setdefault(use.step, []).append((use, gs))
        root = loss.node
        if root is leaf or root in self.prepared:
            arriving.setdefault(None, [])

        def each() -> Iterator[tuple[int | None, Array]]:
            term = np.empty(whole.shape, whole.dtype)
            views = {node: window(term) for node, window in self.windows.items()}
            for step, here in arriving.items():
                term.fill(0)
                rest: dict[Node, Array] = {}
                if step is None and (root is leaf or root in self.prepared):
                    _add(root, np.ones(data_of(loss).shape, whole.dtype), views, rest)
                for use, gs in here:
                    _through(use.node, gs, use.operands, views, rest)
                for node in reversed(self.prepared):
                    if node in rest:
                        g = [_core.tensor(rest.pop(node))]
                        known = [k for k, p in enumerate(node.inputs) if p in self.windows or p in self.prepared]
                        _through(node, g, known, views, rest)
                yield step, term

        return whole, each()

    def gates(self) -> dict[str, Array]:
        """Return which rows of the leaf each gate uses, ascending, by letter; gates that use all rows have none."""
        shape = self.leaf.node.shape  # type: ignore[union-attr]
        if not shape:
            return {}
        windows: dict[str, set[Node]] = {}
        for use in self.uses:
            parents = {p for k in use.operands if (p := use.node.inputs[k]) in self.windows}
            if use.gate and parents:
                windows[use.gate] = windows.get(use.gate, set()) | parents
        numbered = np.empty(shape, np.intp)
        numbered[...] = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        rows = {
            g: np.unique(np.concatenate([self.windows[p](numbered).ravel() for p in ps])) for g, ps in windows.items()
        }
        return {g: found for g, found in sorted(rows.items()) if len(found) < shape[0]}


def _under(losses: Sequence[TensorBase]) -> list[Node]:
    """Return all nodes that losses depend on, oldest first."""
    todo = [loss.node for loss in losses if loss.node is not None]
    seen = set(todo)
    while todo:
        for parent in todo.pop().inputs:
            if parent is not None and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return sorted(seen, key=lambda node: node.number)


def _through(
    node: Node, gs: list[Any], operands: Sequence[int], views: dict[Node, Array], rest: dict[Node, Array]
) -> None:
    """Apply a node's rule for some operands, and add up what it gives where they come from."""
    with Recording(False):
        parts = node.op.contributions(node, gs, [k in operands for k in range(node.n_in)])
    parents = node.inputs
    for k in operands:
        if parts[k] is not None:
            _add(parents[k], _array(parts[k]), views, rest)


def _add(node: Node | None, part: Array, views: dict[Node, Array], rest: dict[Node, Array]) -> None:
    assert node is not None
    if node in views:
        np.add(views[node], part, out=views[node])
    else:
        rest[node] = rest[node] + part if node in rest else part


def _step(scope: str) -> int | None:
    steps = _core.STEP.findall(scope)
    return int(steps[-1]) if steps else None


def _gate(scope: str) -> str | None:
    """Return the letter of the gate that a scope lies in."""
    for part in reversed(scope.split("/")):
        word, _, kind = part.rpartition(" ")
        if kind == "gate":
            return gate_letter(word)
    return None


def _dtype(tensor: TensorBase) -> np.dtype[Any]:
    return np.dtype(str(data_of(tensor).dtype).rpartition(".")[2])


def _array(tensor: Any) -> Array:
    out: Array = host(data_of(tensor))
    return out


def _name(tensor: TensorBase) -> str:
    return tensor.name or "the parameter"


def _norm(array: Array) -> float:
    """Return the Euclidean norm in float64, also where its square would underflow."""
    flat = array.ravel().astype(np.float64, copy=False)
    square = float(flat @ flat)
    if 1e-280 < square < 1e280 or not flat.size:
        return math.sqrt(square)
    peak = float(np.abs(flat).max())
    return peak * math.sqrt(float(np.square(flat / peak).sum())) if 0 < peak < math.inf else peak


def _dot(a: Array, b: Array) -> float:
    return float(a.ravel().astype(np.float64, copy=False) @ b.ravel().astype(np.float64, copy=False))


# --- the ledger ---------------------------------------------------------------------------------------------


class Terms:
    """The terms of a ledger: ``terms[t, k]`` is an array of the shape of the parameter (of its selected rows)."""

    def __init__(self, ledger: TimeLedger) -> None:
        self._ledger = ledger

    def __getitem__(self, at: tuple[int, int | str]) -> Array:
        t, k = at
        ledger = self._ledger
        place, column = ledger._place(t), ledger._column(k)
        if ledger.norms[place, column] == 0:
            return np.zeros(ledger.total.shape, ledger.total.dtype)
        return ledger._terms_at(place)[column].copy()


class TimeLedger(Shown):
    """∂E_t/∂W for some losses, each split by the steps that use W; :func:`bptt` makes it.

    Attributes:
        wrt: name of the parameter W; None if it has none.
        times: the losses' labels, one per row: the step that a loss lies in, else the last step that it depends
            on; 0, 1, … where that does not tell losses apart.
        columns: the steps that use W, ascending; last ``"outside"``, if uses in no step contribute.
        norms: Euclidean norms of the terms, float64, (rows, columns).
        cosines: cosines between each term and the total, (rows, columns); NaN where one of them is zero.
        total: ∂E/∂W of all losses together, by the plain sweep.
        residual: the largest distance found between a sum of terms and the plain gradient, relative to the norms
            that were added up.
        terms: ``terms[t, k]`` by labels, each an array shaped as W.
        gates: letters of the gates that use rows of W of their own.
    """

    def __init__(self, split: _Split, losses: Sequence[TensorBase], rows: Any = None) -> None:
        self._split, self._losses, self._selected = split, tuple(losses), rows
        self.wrt = split.leaf.name
        self.times = _labels(split, losses)
        steps = sorted({use.step for use in split.uses if use.step is not None})
        self.columns: tuple[int | str, ...] = (*steps, OUTSIDE)
        self.gates = tuple(split.gates())
        self.terms = Terms(self)
        self.residual = 0.0
        self._kept: dict[int, Array] = {}
        found = sweep(list(losses), [ones_like(loss) for loss in losses], [split.leaf], keep_graph=True)  # type: ignore[arg-type]
        assert found is not None
        whole = _array(found[0])
        if not np.isfinite(whole).all():
            raise GraphError(f"the gradient of {_name(split.leaf)} is not finite: it has no parts to tell apart")
        self.total = self._select(whole)
        self._measure(whole)

    def _measure(self, whole: Array) -> None:
        """Go over all terms once: norms, cosines, and the check of every sum."""
        shape = len(self._losses), len(self.columns)
        self.norms, self.cosines = np.zeros(shape), np.full(shape, np.nan)
        keep = math.prod(shape) * self.total.nbytes <= KEPT_BYTES
        long, added, weight = _norm(self.total), np.zeros(whole.shape, whole.dtype), 0.0
        for place in range(shape[0]):
            row, held = np.zeros(whole.shape, whole.dtype), 0.0
            if keep:
                self._kept[place] = np.zeros((shape[1], *self.total.shape), whole.dtype)
            plain, terms = self._split.terms(self._losses[place])
            for step, term in terms:
                column = self._column(OUTSIDE if step is None else step)
                np.add(row, term, out=row)
                part = self._select(term)
                self.norms[place, column] = size = _norm(part)
                held += size if part is term else _norm(term)
                if size and long:
                    self.cosines[place, column] = _dot(part, self.total) / size / long
                if keep:
                    self._kept[place][column] = part
            self._check(row - plain, held, f"the terms of loss {self.times[place]}", self._losses[place])
            np.add(added, row, out=added)
            weight += held
        self._check(added - whole, weight, "the terms of all losses", *self._losses)
        if not self.norms[:, -1].any():
            self.columns = self.columns[:-1]
            self.norms, self.cosines = self.norms[:, :-1], self.cosines[:, :-1]
            self._kept = {place: row[:-1] for place, row in self._kept.items()}

    def _check(self, difference: Array, weight: float, what: str, *losses: TensorBase) -> None:
        """Raise unless a difference is rounding beside the norms of the terms, or that of the gradient itself."""

        def gradient(scale: float) -> Array:
            values = [data_of(loss) for loss in losses]
            seeds = [_core.tensor(array_lane(v).xp.full_like(v, scale)) for v in values]
            found = sweep(list(losses), seeds, [self._split.leaf], keep_graph=True)
            return np.zeros(()) if found is None or found[0] is None else self._select(_array(found[0]))

        size, limit = _norm(difference), TOLERANCE * float(np.finfo(difference.dtype).eps)
        off = size / weight if weight else math.inf if size else 0.0
        if not off <= limit and weight:
            limit += noise(gradient, difference.dtype) / weight
        if not off <= limit:
            raise GraphError(
                f"{what} do not add up to the gradient of {_name(self._split.leaf)}: they are off by {off:.1e} of "
                f"their size, and rounding explains {limit:.1e}; a rule disagrees with its compiled twin, or a hook "
                "changes gradients on their way"
            )
        self.residual = max(self.residual, off)

    def _select(self, array: Array) -> Array:
        return array if self._selected is None else array[self._selected]

    def _place(self, t: int) -> int:
        if t not in self.times:
            raise UsageError(f"no loss {t!r}: there are {_range(self.times)}")
        return self.times.index(t)

    def _column(self, k: int | str) -> int:
        if k not in self.columns:
            raise UsageError(
                f"{_name(self._split.leaf)} is not used in step {k!r}: it is used in {_range(self.columns)}"
            )
        return self.columns.index(k)

    def _terms_at(self, place: int) -> Array:
        """Return one row of terms, (columns, *W), computed again if it is not at hand."""
        if place not in self._kept:
            row = np.zeros((len(self.columns), *self.total.shape), self.total.dtype)
            plain, terms = self._split.terms(self._losses[place])
            for step, term in terms:
                if step is not None or OUTSIDE in self.columns:
                    row[self._column(OUTSIDE if step is None else step)] = self._select(term)
            weight = sum(_norm(term) for term in row)
            loss = self._losses[place]
            self._check(row.sum(axis=0) - self._select(plain), weight, f"the terms of loss {self.times[place]}", loss)
            self._kept = {place: row}
        return self._kept[place]

    def rows(self) -> Iterator[tuple[int, Array]]:
        """Yield t and the terms of E_t, an array of columns times the shape of W; no more than one of them is held."""
        for place, t in enumerate(self.times):
            yield t, self._terms_at(place).copy()

    def row(self, t: int) -> Array:
        """Return ∂E_t/∂W, the sum of a row of terms.

        Raises:
            UsageError: there is no loss of that label.
        """
        out: Array = self._terms_at(self._place(t)).sum(axis=0)
        return out

    def ends(self, t: int) -> tuple[TensorBase, TensorBase]:
        """Return the loss of row t and the parameter: what its routes lead from, and to."""
        return self._losses[self._place(t)], self._split.leaf

    def gate(self, which: str | slice) -> TimeLedger:
        """Return the ledger of some rows of W alone.

        Args:
            which: the letter of a gate (``"f"``), or a slice of W's first axis.

        Raises:
            UsageError: no step uses rows of W in such a gate, or the slice selects nothing.
        """
        return TimeLedger(self._split, self._losses, _selection(self._split, which))

    def to_dict(self) -> dict[str, Any]:
        """Return labels and measures as plain data for JSON; None stands where there is no cosine."""
        return {
            "format": FORMAT,
            "wrt": self.wrt,
            "shape": list(self.total.shape),
            "dtype": str(self.total.dtype),
            "times": list(self.times),
            "columns": list(self.columns),
            "norms": self.norms.tolist(),
            "cosines": [[None if math.isnan(c) else c for c in row] for row in self.cosines.tolist()],
            "total_norm": _norm(self.total),
            "residual": self.residual,
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line ``t,k,norm,cosine`` for each cell, all digits, completely or not at all.

        Raises:
            UsageError: the place cannot be written.
        """
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["t", "k", "norm", "cosine"])
        for t, norms, cosines in zip(self.times, self.norms.tolist(), self.cosines.tolist(), strict=True):
            for k, norm, cosine in zip(self.columns, norms, cosines, strict=True):
                lines.writerow([t, k, norm, "" if math.isnan(cosine) else cosine])
        write_whole(path, out.getvalue().encode())

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the norms as a heat map on a logarithmic scale; return Matplotlib's figure.

        Args:
            path: where to write it as well; the suffix says in which format.

        Raises:
            MissingExtraError: Matplotlib is not installed.
            UsageError: a suffix that Matplotlib does not know, or a place that cannot be written.
        """
        try:
            Figure = importlib.import_module("matplotlib.figure").Figure
            LogNorm = importlib.import_module("matplotlib.colors").LogNorm
        except ImportError:
            raise MissingExtraError("A heat map", "plot") from None
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        axes = figure.subplots()
        some = self.norms[self.norms > 0]
        scale = LogNorm(some.min(), some.max()) if some.size and some.min() < some.max() else None
        image = axes.imshow(np.ma.masked_equal(self.norms, 0), norm=scale, aspect="auto", interpolation="nearest")
        for axis, labels in ((axes.xaxis, self.columns), (axes.yaxis, self.times)):
            at = range(0, len(labels), max(1, -(-len(labels) // 12)))
            axis.set_ticks(list(at), [str(labels[k]) for k in at])
        axes.set(title=f"time ledger of {_name(self._split.leaf)}", xlabel="use in step k", ylabel="loss t")
        figure.colorbar(image, label="‖terms[t, k]‖")
        if path is not None:
            buffer, suffix = io.BytesIO(), Path(path).suffix[1:]
            try:
                figure.savefig(buffer, format=suffix or "png")
            except ValueError as error:
                raise UsageError(f"cannot draw {str(path)!r}: {error}") from None
            write_whole(path, buffer.getvalue())
        return figure

    def to_latex(self) -> str:
        """Return the sum that the ledger proves and the norms of its terms, as LaTeX (amsmath)."""
        name = rf"\mathtt{{{self.wrt.replace('_', chr(92) + '_')}}}" if self.wrt else "W"
        heads = " & ".join(["t"] + [rf"\text{{{k}}}" if k == OUTSIDE else f"k = {k}" for k in self.columns])
        rows = [" & ".join([str(t)] + [f"{v:.4g}" for v in row]) for t, row in zip(self.times, self.norms, strict=True)]
        body = r" \\ ".join([heads + r" \\ \hline", *rows])
        return (
            rf"\frac{{\partial E}}{{\partial {name}}} = \sum_t \sum_k \left(\frac{{\partial E_t}}"
            rf"{{\partial {name}}}\right)_k \qquad "
            rf"\begin{{array}}{{r|{'r' * len(self.columns)}}} {body} \end{{array}}"
        )

    def __str__(self) -> str:
        across, down = -(-len(self.columns) // WIDEST), -(-len(self.times) // TALLEST)
        most = float(self.norms.max())
        place, column = np.unravel_index(int(self.norms.argmax()), self.norms.shape)
        labels = [str(t) for t in self.times[::down]]
        wide = max(len(label) for label in [*labels, "t"])
        heading = f"time ledger of {_name(self._split.leaf)} {self.total.shape}"
        inside = [f"{self._size()}, k = {_range(self.columns)}"]
        if across * down > 1:
            inside.append(f"a cell shows the largest of {down} by {across} terms")
        out = [heading[:80], *inside, ""]
        for k, label in enumerate(labels):
            block = self.norms[k * down : (k + 1) * down].max(axis=0)
            cells = [float(block[j : j + across].max()) for j in range(0, len(block), across)]
            out.append(f"{label:>{wide}} {''.join(_shade(cell, most) for cell in cells)}".rstrip())
        shades = "  ".join(f"{shade} > 1/{round(1 / bound)}" if bound else f"{shade} less" for bound, shade in SHADES)
        return "\n".join(
            [
                *out,
                "",
                f"largest norm {most:.4g} at t={self.times[place]}, k={self.columns[column]};  {shades}",
                f"norm of the sum {_norm(self.total):.6g}, residual {self.residual:.1e}",
            ]
        )

    def __repr__(self) -> str:
        return f"<time ledger of {_name(self._split.leaf)}: {self._size()}>"

    def _size(self) -> str:
        return f"{counted(len(self.times), 'loss')} by {counted(len(self.columns), 'column')}"


def _shade(norm: float, most: float) -> str:
    return next(shade for bound, shade in SHADES if norm >= bound * most) if norm else " "


def _range(labels: Sequence[int | str]) -> str:
    """Say labels in few words: ``0 … 4, outside``."""
    numbers = [label for label in labels if not isinstance(label, str)]
    words = [str(label) for label in labels if isinstance(label, str)]
    if len(numbers) > 3 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return ", ".join([f"{numbers[0]} … {numbers[-1]}", *words])
    said = [str(n) for n in numbers]
    return ", ".join([*(said if len(said) <= 8 else [*said[:4], "…", said[-1]]), *words])


def _labels(split: _Split, losses: Sequence[TensorBase]) -> tuple[int, ...]:
    found = []
    for loss in losses:
        own = _step(loss.node.scope) if loss.node is not None else None
        found.append(own if own is not None else split.latest.get(loss.node))  # type: ignore[arg-type]
    labels = [label for label in found if label is not None]
    return tuple(labels) if len(set(labels)) == len(losses) else tuple(range(len(losses)))


def _selection(split: _Split, which: str | slice) -> Any:
    """Return the index of a gate's rows, or the given slice."""
    shape = split.leaf.node.shape  # type: ignore[union-attr]
    if isinstance(which, slice):
        if not shape or not len(range(shape[0])[which]):
            raise UsageError(f"rows {which} select nothing of {_name(split.leaf)}, which has shape {shape}")
        return which
    if not isinstance(which, str):
        raise UsageError(f"rows are the letter of a gate or a slice, not {type(which).__name__}")
    gates = split.gates()
    if which not in gates:
        known = f"gates with rows of their own: {', '.join(gates)}" if gates else "no gate has rows of its own"
        raise UsageError(f"{_name(split.leaf)} has no gate {which!r} ({known}); a slice selects any rows")
    rows = gates[which]
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


# --- the door -----------------------------------------------------------------------------------------------


def bptt(
    losses: TensorBase | Sequence[TensorBase],
    wrt: TensorBase | str,
    tape: Tape | None = None,
    rows: str | slice | None = None,
) -> TimeLedger:
    """Split the gradient of every loss by the step in which it leaves a parameter: the terms of BPTT.

    ``terms[t, k]`` is the part of ∂E_t/∂W that goes through the uses of W in step k; a row sums to ∂E_t/∂W, all of
    them to ∂E/∂W, and both sums are checked against the plain gradient. A step is a scope ``t=k``: recurrent layers
    have them inside, watched or not (those that run operation by operation only while a tape watches), and loops open
    them with ``with mg.scope(f"t={k}"):``. Gradients that were collected before stay as they are.

    Args:
        losses: scalar tensors E_t, one per step or only the last one.
        wrt: the parameter W, a leaf; or its name on `tape`.
        tape: where to look the name up.
        rows: restrict W to rows of its first axis: a gate's letter (``"f"``) or a slice.

    Raises:
        UsageError: losses or `wrt` that are no such tensors, or rows that there are not.
        ShapeError: a loss with several elements.
        GraphError: no loss depends on W, nothing was recorded in steps, the graph was freed, a tape is still watching,
            the gradient is not finite, or the sums do not hold.

    >>> import minigrad as mg
    >>> w, h, losses = mg.tensor(0.5, requires_grad=True), mg.tensor(1.0), []
    >>> for t in range(3):
    ...     with mg.scope(f"t={t}"):
    ...         h = w * h
    ...         losses.append(h * 1.0)
    >>> bptt(losses, w).norms.tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.25]]
    """
    if _core.is_watched():
        raise GraphError("a tape is watching, and would record the explanation: ask after its `with` block")
    listed = _checked_losses(losses)
    leaf = _checked_parameter(wrt, tape)
    opened = Opened(listed)  # steps are inside of recurrent layers
    listed = [opened.tensor(loss) for loss in listed]
    nodes = _under(listed)
    if leaf.node not in nodes:
        raise GraphError(f"no loss depends on {_name(leaf)}")
    split = _Split(leaf, nodes)
    if not split.latest:
        raise GraphError(
            "nothing was recorded in steps: run the layers under mg.Tape(), and your own loops in mg.scope('t=…')"
        )
    if rows is None:
        return TimeLedger(split, listed)
    return TimeLedger(split, listed, _selection(split, rows))


def _checked_losses(losses: Any) -> list[Any]:
    if not isinstance(losses, Iterable):
        raise UsageError(f"losses are a tensor, or a list of them, not {type(losses).__name__}")
    listed = [losses] if isinstance(losses, TensorBase) else list(losses)
    if not listed:
        raise UsageError("the list of losses is empty")
    for k, loss in enumerate(listed):
        if not isinstance(loss, TensorBase):
            raise UsageError(f"loss {k} is no tensor but {type(loss).__name__}")
        shape = tuple(data_of(loss).shape)
        if math.prod(shape) != 1:
            raise ShapeError(f"loss {k} has shape {shape}; a loss is one number: take its sum or its mean")
        if loss.node is None:
            raise GraphError(f"loss {k} does not require a gradient: nothing was recorded for it")
    return listed


def _checked_parameter(wrt: Any, tape: Tape | None) -> TensorBase:
    if isinstance(wrt, str):
        if tape is None:
            raise UsageError(f"wrt={wrt!r} is a name, and names are on tapes: pass tape=, or the tensor itself")
        known = [node for node in tape.nodes if node.kind == "parameter" and node.tensor is not None]
        found = [node.tensor for node in known if node.name == wrt]
        if len(found) != 1:
            names = ", ".join(sorted({node.name for node in known if node.name})) or "none"
            what = "several parameters are" if found else "no parameter is"
            raise UsageError(f"{what} named {wrt!r} on the tape; pass the tensor itself. Names: {names}")
        wrt = found[0]
    if not isinstance(wrt, TensorBase):
        raise UsageError(f"wrt is a parameter or its name, not {type(wrt).__name__}")
    if wrt.node is None or not wrt.is_leaf:
        raise UsageError(f"wrt, of shape {tuple(data_of(wrt).shape)}, is no parameter: a leaf that requires a gradient")
    return wrt
