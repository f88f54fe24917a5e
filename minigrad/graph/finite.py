"""Where the first NaN or infinity was made, forward and backward, and how it travelled from there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from minigrad import _core
from minigrad._core import Opened, Recording, Tape, TapeNode, TensorBase, sweep
from minigrad.backend import array_lane, host, random_states, set_random_states
from minigrad.errors import GraphError, UsageError
from minigrad.graph.words import Shown, number

__all__ = ["NonFiniteError", "Operand", "Origin", "Provenance", "provenance", "watch_finite"]

Array = np.ndarray[Any, Any]

WORDS = {
    "forward": "Forward, {op}{name} made the first {what}{place}: {count} of {size} elements.",
    "leaf": "Forward, the {kind}{name} brought the first {what}{place}: {count} of {size} elements.",
    "backward": "Backward, {op}{name} made the first {what}{place}, in the gradient of its operand {operand}: {count} "
    "of {size} elements.",
    "seed": "Backward, the gradients that arrive at {op}{name}{place} are each finite, and their sum is not.",
    "operand": "{name} {shape}: {low} to {high}, {odd} not finite, {zeros} zeros",
    "route": "It went on through {route}.",
    "fine": "Every value and every gradient is finite.",
    "not again": "The loss or a gradient is not finite, but running the step again under a tape made finite ones: it "
    "does not compute the same twice.",
}
"""Every sentence that a report can say."""

LONGEST = 12
"""Routes name this many of their first places."""


class NonFiniteError(GraphError):
    """A loss or gradient that is NaN or infinite; ``provenance`` says what made it, None if that did not repeat."""

    def __init__(self, message: str, provenance: Provenance | None = None) -> None:
        super().__init__(message)
        self.provenance = provenance


@dataclass(frozen=True)
class Operand:
    """What is known of an array: its name, its shape, its finite range, how much of it is not finite, and zero."""

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    odd: int
    zeros: int

    def __str__(self) -> str:
        return WORDS["operand"].format(
            name=self.name,
            shape=self.shape,
            low=number(self.low),
            high=number(self.high),
            odd=self.odd,
            zeros=self.zeros,
        )


@dataclass(frozen=True)
class Origin:
    """The first producer of something that is not finite.

    Attributes:
        key: of the sentence in WORDS: "forward", "leaf", "backward" or "seed".
        node: on the tape.
        what: "NaN" or "infinity".
        operand: whose gradient it is; None forward.
        count, size: how many elements of the array are not finite, of how many.
        operands: statistics of the node's operands; backward also of the gradient that arrives, "g".
        route: the places that it went on through, by name, or operation and place on the tape.
    """

    key: str
    node: TapeNode
    what: str
    operand: str | None
    count: int
    size: int
    operands: tuple[Operand, ...]
    route: tuple[str, ...]

    @property
    def op(self) -> str:
        """Name of the operation, or "parameter", "input", "constant"."""
        return self.node.op

    @property
    def time(self) -> int | None:
        """The step, None outside of steps."""
        return self.node.time

    @property
    def scope(self) -> str:
        """Where the operation was recorded."""
        return self.node.scope

    def __str__(self) -> str:
        name = f" {self.node.name}" if self.node.name else ""
        lines = [
            WORDS[self.key].format(
                op=self.op,
                kind=self.node.kind,
                name=name,
                what=self.what,
                place=f" in {self.scope}" if self.scope else "",
                operand=self.operand,
                count=self.count,
                size=self.size,
            ),
            *(f"  {operand}" for operand in self.operands),
        ]
        if self.route:
            told = ", ".join(self.route[:LONGEST])
            rest = len(self.route) - LONGEST
            lines.append(WORDS["route"].format(route=told + (f" and {rest} more places" if rest > 0 else "")))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; ranges without a finite element are strings."""
        return {
            "node": self.node.id,
            "op": self.op,
            "name": self.node.name,
            "scope": self.scope,
            "time": self.time,
            "what": self.what,
            "operand": self.operand,
            "count": self.count,
            "size": self.size,
            "operands": [
                {
                    "name": x.name,
                    "shape": list(x.shape),
                    "low": x.low if math.isfinite(x.low) else str(x.low),
                    "high": x.high if math.isfinite(x.high) else str(x.high),
                    "odd": x.odd,
                    "zeros": x.zeros,
                }
                for x in self.operands
            ],
            "route": list(self.route),
        }


@dataclass(frozen=True)
class Provenance(Shown):
    """What made the first NaN or infinity, forward and backward; None where everything is finite."""

    forward: Origin | None
    backward: Origin | None

    def __bool__(self) -> bool:
        return self.forward is not None or self.backward is not None

    def __str__(self) -> str:
        return "\n".join(str(origin) for origin in (self.forward, self.backward) if origin) or WORDS["fine"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "forward": self.forward.to_dict() if self.forward else None,
            "backward": self.backward.to_dict() if self.backward else None,
        }


def provenance(tape: Tape, losses: Any = None) -> Provenance:
    """Find what made the first NaN or infinity of a computation that a tape saw.

    Forward: the oldest value that is not finite and from which values that are not finite lead to a result of the tape;
    a mask's -inf that ends in a finite softmax is none. Backward: the first edge in the order of the sweep that
    hands on a gradient that is not finite.

    Args:
        tape: what watched the forward computation.
        losses: where the sweep starts; by default every result of one element that nothing else reads.

    Returns:
        Both origins; it is false if everything is finite. The gradients that the tape shows are left alone.

    >>> import minigrad as mg
    >>> x = mg.tensor([4.0, 0.0], requires_grad=True, name="x")
    >>> with mg.Tape() as tape:
    ...     loss = mg.sqrt(x).sum()
    >>> found = provenance(tape)
    >>> found.forward, found.backward.op, found.backward.what
    (None, 'sqrt', 'infinity')
    """
    listed = losses if isinstance(losses, list | tuple) else [losses]
    opened = Opened(listed, tape)
    assert opened.tape is not None
    tape = opened.tape
    read = {x.id for node in tape.nodes for x in node.inputs}
    if losses is None:
        roots = [n for n in tape.nodes if n.id not in read and n.requires_grad and math.prod(n.shape) == 1]
    else:
        roots = [tape.of(opened.tensor(loss)) for loss in listed]
    sinks = [n for n in tape.nodes if n.id not in read] if losses is None else roots
    return Provenance(_forward(tape, sinks), _backward(tape, [n for n in roots if n.requires_grad]))


def _forward(tape: Tape, sinks: list[TapeNode]) -> Origin | None:
    odd: dict[int, TapeNode] = {}
    todo = [n for n in sinks if not _finite(n)]
    while todo:
        node = todo.pop()
        if node.id not in odd:
            odd[node.id] = node
            todo += [x for x in node.inputs if not _finite(x)]
    if not odd:
        return None
    first = odd[min(odd)]
    longest: dict[int, tuple[int, TapeNode]] = {}  # how many places are still to come, and which is next
    for place in sorted(odd, reverse=True):
        for x in odd[place].inputs:
            ahead = 1 + longest.get(place, (0, first))[0]
            if ahead > longest.get(x.id, (0, first))[0]:
                longest[x.id] = ahead, odd[place]
    route, at = [], first
    while at.id in longest:
        at = longest[at.id][1]
        route.append(_called(at))
    values = _values(first)
    operands = tuple(_operand(word, x.value) for word, x in zip(first.arguments, first.inputs, strict=True))
    key = "leaf" if first.record is None else "forward"
    return Origin(key, first, _what(values), None, _odd(values), values.size, operands, tuple(route))


def _backward(tape: Tape, roots: list[TapeNode]) -> Origin | None:
    if not roots:
        return None
    places = {id(n.node): n for n in tape.nodes if n.node is not None}
    with Recording(False):
        seeds = [_core.tensor(array_lane(n.value).xp.ones_like(n.value)) for n in roots]
        grads, edges = sweep(
            [n.tensor for n in roots], seeds, [n.tensor for n in tape.nodes], keep_graph=True, edges=True
        )
    assert grads is not None
    arriving = {id(n.node): _core.data_of(g) for n, g in zip(tape.nodes, grads, strict=True) if g is not None}
    broken = [(node, k, _core.data_of(g)) for node, k, g in edges if not _all_finite(_core.data_of(g))]
    # A leaf's sum, and a loss that nobody differentiates further, are no edges: only operations hand on.
    for node, k, values in broken:
        origin = places.get(id(node))
        if origin is None:
            continue
        g = arriving.get(id(node))
        operands = [_operand(word, x.value) for word, x in zip(origin.arguments, origin.inputs, strict=True)]
        summed = g is not None and not _all_finite(g)
        if g is not None:
            operands.append(_operand("g", g))
        route, at = [], node.inputs[k]
        while at is not None and id(at) in places:
            route.append(_called(places[id(at)]))
            at = next((n.inputs[j] for n, j, _ in broken if n is at), None)
        values = host(g if summed else values)
        key = "seed" if summed else "backward"
        operand = None if summed else origin.arguments[k]
        return Origin(key, origin, _what(values), operand, _odd(values), values.size, tuple(operands), tuple(route))
    return None


def _values(node: TapeNode) -> Array:
    return host(node.value)


def _all_finite(data: Any) -> bool:
    lane = array_lane(data)
    return lane.kind(data) != "f" or bool(lane.xp.all(lane.xp.isfinite(data)))


def _finite(node: TapeNode) -> bool:
    return all(_all_finite(_core.data_of(out)) for out in node.outputs)


def _odd(values: Array) -> int:
    return int(np.size(values) - np.count_nonzero(np.isfinite(values)))


def _what(values: Array) -> str:
    return "NaN" if np.isnan(values).any() else "infinity"


def _operand(name: str, data: Any) -> Operand:
    values = host(data)
    finite = values[np.isfinite(values)].astype(float)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    return Operand(name, tuple(values.shape), low, high, _odd(values), int(np.count_nonzero(values == 0)))


def _called(node: TapeNode) -> str:
    return node.name or f"{node.op}#{node.id}"


class watch_finite:  # noqa: N801  written as a verb: with watch_finite(parameters) as watch
    """Watch a training loop for losses and gradients that are not finite, and name what made them.

    A step costs one look at the loss and one sum for each parameter. Only when something is not finite, the
    step's forward computation runs again, under a tape and with the same random numbers, and the error says
    which operation it was.

    Args:
        parameters: whose ``.grad`` is looked at; their values must be those of the forward computation, so check
            before the optimiser's step.

    >>> import minigrad as mg
    >>> w = mg.tensor([0.0], requires_grad=True, name="w")
    >>> with watch_finite([w]) as watch:
    ...     loss = watch(lambda: mg.sqrt(w).sum())
    ...     loss.backward()
    ...     watch.check()
    Traceback (most recent call last):
    minigrad.graph.finite.NonFiniteError: Backward, sqrt made the first infinity, in the gradient of its operand x: 1 of 1 elements.
      x (1,): 0 to 0, 0 not finite, 1 zeros
      g (1,): 1 to 1, 0 not finite, 0 zeros
    It went on through w.
    """  # noqa: E501

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        self._parameters = list(parameters)
        self._compute: Callable[[], Any] | None = None
        self._random: Any = None
        self._losses: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._compute is not None:
            self.check()
        self._forget()

    def _forget(self) -> None:
        self._compute, self._random, self._losses = None, None, []

    def __call__(self, compute: Callable[[], Any]) -> Any:
        """Run a step's forward computation and return what it returns: a loss or a list of losses."""
        self._compute, self._random = compute, random_states()
        result = compute()
        self._losses = list(result) if isinstance(result, list | tuple) else [result]
        if not all(isinstance(loss, TensorBase) for loss in self._losses):
            raise UsageError("watch_finite: the computation returns a loss or a list of losses")
        return result

    def check(self) -> None:
        """Raise if the last step's loss or a gradient is not finite.

        Raises:
            NonFiniteError: with the first producers as its text and as ``.provenance``. UsageError: no step was run.
        """
        if self._compute is None:
            raise UsageError("watch_finite: nothing to check; run the step as watch(lambda: …)")
        grads = [p.grad for p in self._parameters if p.grad is not None]
        if all(_sums_up(_core.data_of(x)) for x in (*self._losses, *grads)):
            self._forget()
            return
        now = random_states()
        try:
            set_random_states(self._random)
            with Recording(True), Tape() as tape:
                result = self._compute()
        finally:
            set_random_states(now)
            self._forget()
        found = provenance(tape, result)
        raise NonFiniteError(str(found) if found else WORDS["not again"], found or None)


def _sums_up(data: Any) -> bool:
    """Say whether everything is finite, in one pass where it is; finite numbers may still overflow their sum."""
    xp = array_lane(data).xp
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(xp.isfinite(xp.sum(data))) or bool(xp.all(xp.isfinite(data)))
