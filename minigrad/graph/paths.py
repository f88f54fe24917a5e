"""The path ledger: a gradient as the sum over its routes, counted, grouped and listed, and the sum is checked.

::

    of ──► … ──► node ──► … ──► wrt          a route: one edge after the other, against the direction of time
                  │ ∂⁺ on the edge           its contribution: what arrives at wrt if only this route is open

Counts and groups never enumerate routes. One reverse sweep carries, for each state that a route can be in ("left wrt in
step 3", say), how many routes are in it and the sum of what they carry. Only the strongest routes are walked singly.
"""

from __future__ import annotations

import difflib
import heapq
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minigrad import _core
from minigrad._core import Tape, TapeNode, TensorBase
from minigrad.backend import array_lane, host
from minigrad.errors import GradcheckError, GraphError, UsageError
from minigrad.graph.rounding import noise
from minigrad.graph.words import (
    Report,
    Table,
    Words,
    counted,
    grouped,
    latex_name,
    number,
    percent,
    plain,
    share_of,
    value_of,
)
from minigrad.op import PAGE

__all__ = ["EVERYTHING", "Edge", "Group", "PathLedger", "Route", "paths"]

EVERYTHING: Any = type("Everything", (), {"__repr__": lambda self: "EVERYTHING"})()
"""In place of a group's key: all groups. (None is a key.)"""

EXPANSIONS = 10_000
"""After this many partial routes the search for the strongest stops proving that nothing stronger is left."""
HELD = 1 << 25
"""So it does when its open routes hold this many numbers."""
PROBES = 4096
"""Rules of results up to this size are probed element by element for the bound of the search."""
NUMBERS_KEPT = 64
"""Arrays up to this many elements stand in `to_dict` element by element."""

_MULTILINEAR = ("affine", "einsum", "matmul")

_LOWERED = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉−", "-0123456789-")

Index = tuple[int, ...]
T = TypeVar("T")


# --- the graph between two tensors --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Edge:
    """Argument number `argument` of operation `target` is the value of `source`; ∂⁺ stands on it.

    Attributes:
        source, target: tape nodes; the gradient runs from target to source.
        operand: the argument's name on the page.
        op, scope, time, name: of the target.
        formula, formula_latex: the local derivative in the model's names; for operations that are not element-wise,
            what the operand receives of the gradient that arrives.
    """

    source: TapeNode
    target: TapeNode
    argument: int
    operand: str
    formula: str
    formula_latex: str

    @property
    def op(self) -> str:
        """Name of the operation."""
        return self.target.op

    @property
    def scope(self) -> str:
        """Where the operation was recorded."""
        return self.target.scope

    @property
    def time(self) -> int | None:
        """The step in which the operation was recorded."""
        return self.target.time

    @property
    def name(self) -> str | None:
        """Name of the operation's value, if the model gave it one."""
        return self.target.name


class Arrow(NamedTuple):
    """An edge between two of the engine's nodes."""

    target: Any
    k: int
    source: Any


class Between:
    """Everything that lies on some route from one tensor to another, in falling creation number.

    Args:
        of, wrt: tensors, names, or nodes of a tape.
        tape: who knows names and scopes; what it did not see is read from the engine's graph.
    """

    def __init__(self, of: Any, wrt: Any, tape: Tape | None) -> None:
        if tape is None and not isinstance(of, TensorBase):
            raise UsageError("without a tape, `of` is a tensor: pass tape= to use names")
        # Routes lead through operations: composed ones are opened, and what was asked for is looked up in the copy.
        self._opened = _core.Opened([of, wrt], tape)
        of, wrt, tape = self._opened.tensor(of), self._opened.tensor(wrt), self._opened.tape
        self.tape = tape
        self.faces: dict[int, TapeNode] = {}
        self._named: dict[str, list[TapeNode]] = {}
        self._names: dict[int, str] = {}
        self._strangers: set[int] = set()
        if tape is not None:
            self._add(tape.nodes)
        self.of, self.of_out = self.engine_node(of, "of")
        root = of if isinstance(of, TensorBase) else self.face(self.of).tensor
        if any(id(node) not in self.faces for node in _under(self.of)):
            missing = [node for node in self._opened.graph(root).nodes if id(node.node) not in self.faces]
            self._strangers = {id(node) for node in missing} if tape is not None else set()
            self._add(missing)
        self.wrt, self.wrt_out = self.engine_node(wrt, "wrt")
        given = {id(x.node): x.name for x in (of, wrt) if isinstance(x, TensorBase) and x.name}
        self.words = Words(self._names | given, frozenset(self._strangers))
        self.root: Any = root if isinstance(root, TensorBase) else self.tensor(self.of, self.of_out)
        self.leaf: Any = wrt if isinstance(wrt, TensorBase) else self.tensor(self.wrt, self.wrt_out)
        self._connect()

    def _add(self, nodes: Iterable[TapeNode]) -> None:
        for node in nodes:
            if node.node is not None:
                if node.kind == "op" or node.node.is_leaf:
                    self.faces[id(node.node)] = node
                elif node.name:  # the tape saw the result of an operation that it did not see
                    self._names[id(node.node)] = node.name
            if node.name:
                self._named.setdefault(node.name, []).append(node)

    def tensor(self, node: Any, out: int = 0) -> Any:
        """Return a tensor of one of a node's results; its values may be unknown, its shape and place are right."""
        face = self.faces[id(node)]
        if face.outputs:
            return face.outputs[out]
        return _core.result_of(node, out, np.zeros(face.shape, face.dtype) if face.value is None else face.value)

    def face(self, node: Any) -> TapeNode:
        """Return the tape node of an engine's node."""
        return self.faces[id(node)]

    def engine_node(self, what: Any, role: str) -> tuple[Any, int]:
        """Return the engine's node, and which of its results, of a tensor, a name or a tape node."""
        if isinstance(what, str):
            what = self._by_name(what, role)
        if isinstance(what, TapeNode):
            what = self._opened.node(what)
            if what.node is None:
                raise UsageError(f"{role}: no gradient flows through {what!r}")
            return what.node, what.tensor.out if what.tensor is not None else 0
        if not isinstance(what, TensorBase):
            raise UsageError(f"{role} is a tensor, a name or a node of a tape, not {type(what).__name__}")
        what = self._opened.tensor(what)
        if what.node is None:
            raise UsageError(f"{role}: the tensor{f' {what.name!r}' if what.name else ''} requires no gradient")
        return what.node, what.out

    def _by_name(self, name: str, role: str) -> TapeNode:
        place = re.fullmatch(r".*#(\d+)", name)
        if place and self.tape is not None and int(place[1]) < len(self.tape.nodes):
            return self.tape.nodes[int(place[1])]
        found = self._named.get(name) or [
            node for other, nodes in self._named.items() if _spelt(other) == _spelt(name) for node in nodes
        ]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"#{node.id} in {node.scope or 'no scope'}" for node in found[:4])
            raise UsageError(
                f"{role}: {len(found)} values are named {name!r} ({listed}): write '#id', or pass a tensor"
            )
        near = difflib.get_close_matches(name, self._named, 3, 0.5)
        some = [n for n, nodes in self._named.items() if any(node.requires_grad for node in nodes)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(some[:8])}"
        raise UsageError(f"{role}: nothing on the tape is named {name!r}; {hint}")

    def _connect(self) -> None:
        nodes = sorted(_under(self.of), key=lambda node: -node.number)
        reaching = {id(self.wrt)}
        for node in reversed(nodes):
            if node is not self.wrt and any(p is not None and id(p) in reaching for p in node.inputs):
                reaching.add(id(node))
        self.nodes = [node for node in nodes if id(node) in reaching]
        self.arrows: dict[int, list[Arrow]] = {
            id(node): [
                Arrow(node, k, p)
                for k, p in enumerate(node.inputs)
                if node is not self.wrt and p is not None and id(p) in reaching
            ]
            for node in self.nodes
        }
        for arrow in itertools.chain.from_iterable(self.arrows.values()):
            if arrow.source.n_out > 1:
                raise UsageError(
                    f"{self.face(arrow.source).op} gives several results at once; routes through it cannot be told "
                    "apart"
                )
            if arrow.target.freed:
                raise GraphError(
                    f"{self.face(arrow.target).op}: what its derivative needs was freed by backward(); record under "
                    "minigrad.Tape(), or call backward(retain_graph=True)"
                )
        if self.of is not self.wrt and not self.arrows.get(id(self.of)):
            raise UsageError(f"{self.symbol(self.of)} does not depend on {self.symbol(self.wrt)}: there is no route")

    def symbol(self, node: Any, latex: bool = False) -> str:
        """Return what a node is called."""
        if id(node) not in self.faces:
            return self.words.names.get(id(node), "a value from elsewhere")
        return self.words.label(self.face(node), latex)

    def edge(self, arrow: Arrow) -> Edge:
        """Return an edge with its words."""
        source, target = self.face(arrow.source), self.face(arrow.target)
        of = self.words.label(self.face(self.of)), self.words.label(self.face(self.of), True)
        return Edge(
            source,
            target,
            arrow.k,
            target.arguments[arrow.k],
            self.words.local(target, arrow.k, of=of[0]),
            self.words.local(target, arrow.k, latex=True, of=of[1]),
        )

    def via(self, arrow: Arrow) -> str:
        """Say where an edge leads: the next value with a name, as long as there is only one way to go."""
        node = arrow.target
        while not self.words.name(self.face(node)) and len(self._users.get(id(node), ())) == 1:
            (node,) = self._users[id(node)]
        return self.words.name(self.face(node)) or self.symbol(arrow.target)

    @cached_property
    def _users(self) -> dict[int, set[Any]]:
        found: dict[int, set[Any]] = {}
        for arrow in itertools.chain.from_iterable(self.arrows.values()):
            found.setdefault(id(arrow.source), set()).add(arrow.target)
        return found

    @property
    def below_all_steps(self) -> set[int]:
        """The nodes from which no route to `wrt` meets an operation of a step."""
        found: set[int] = set()
        for node in reversed(self.nodes):
            timed = node is not self.wrt and self.face(node).time is not None
            if not timed and all(id(arrow.source) in found for arrow in self.arrows[id(node)]):
                found.add(id(node))
        return found

    # -- derivatives -------------------------------------------------------------------------------

    def seed(self, at: Index | None, scale: float = 1.0) -> Any:
        """Return what arrives at `of`: a 1, or another number, at one element, or at all of them."""
        data = _core.data_of(self.root)
        xp = array_lane(data).xp
        if at is None:
            return _core.tensor(xp.full_like(data, scale))
        seed = xp.zeros_like(data)
        seed[at] = scale
        return _core.tensor(seed)

    def like(self, array: Any) -> Any:
        """Return a tensor of an array's numbers, of the dtype and on the device of the graph."""
        data = _core.data_of(self.leaf)
        lane = array_lane(data)
        return _core.tensor(lane.cast(lane.asarray(array), data.dtype))

    def received(self, node: Any, g: Any, wanted: Iterable[int]) -> list[Any]:
        """Return what each operand receives of a gradient, by the rules of the page: tensors, or None."""
        chosen = set(wanted)
        gs = [None] * node.n_out
        gs[self.of_out if node is self.of else 0] = g
        parts: list[Any] = node.op.contributions(node, gs, [k in chosen for k in range(node.n_in)])
        return parts

    def gradient(self, at: Index | None, others: Sequence[Any] = (), scale: float = 1.0) -> list[Any]:
        """Return the engine's own gradient of `wrt` and of other tensors, as arrays; zeros where it has none."""
        targets = [self.leaf, *others]
        found = _core.sweep([self.root], [self.seed(at, scale)], targets, False, True)
        return [
            np.zeros(t.shape, str(t.dtype)) if g is None else as_array(g) for g, t in zip(found, targets, strict=True)
        ]


def _spelt(name: str) -> str:
    """Return a name without the signs that set its index apart: h[3] is h₃ in pictures, and h3 or h_3 to who types."""
    return re.sub(r"[][_ ]", "", name.translate(_LOWERED))


def _under(root: Any) -> list[Any]:
    """Return the engine's nodes that one depends on, itself included."""
    found, seen = [root], {id(root)}
    for node in found:
        for parent in node.inputs:
            if parent is not None and id(parent) not in seen:
                seen.add(id(parent))
                found.append(parent)
    return found


def as_array(tensor: Any) -> Any:
    """Return a tensor's values as a NumPy array in double precision, in which ledgers add up."""
    data = _core.data_of(tensor)
    return np.asarray(host(data), dtype=np.float64)


def unwatched(work: Callable[[], T]) -> T:
    """Do something that nobody records, not even a tape that is watching this thread."""
    with _core.Recording(False, False):
        return work()


def element(at: Any, shape: tuple[int, ...], role: str) -> Index | None:
    """Return an index of one element, checked, with negative numbers counted from the end."""
    if at is None:
        return None
    index = (at,) if isinstance(at, int | np.integer) else tuple(at)
    if len(index) != len(shape) or not all(isinstance(i, int | np.integer) for i in index):
        raise UsageError(f"at: an element of {role}, shape {shape}, has {len(shape)} indices, not {index}")
    if not all(-n <= i < n for i, n in zip(index, shape, strict=True)):
        raise UsageError(f"at: {role} has shape {shape} and no element {index}")
    return tuple(int(i) % n for i, n in zip(index, shape, strict=True))


def elements(at: Any, of: tuple[int, ...], wrt: tuple[int, ...]) -> tuple[Index | None, Index | None]:
    """Read `at`: an element of wrt, or a pair (element of `of`, element of wrt)."""
    pair = isinstance(at, tuple | list) and len(at) == 2 and any(isinstance(i, tuple | list) or i is None for i in at)
    first, second = at if pair else (None, at)
    return element(first, of, "of"), element(second, wrt, "wrt")


# --- groups -------------------------------------------------------------------------------------------------

State = Any
Step = Callable[[State, Arrow], State]
"""How a route's state changes with one more edge, on its way from `of` to `wrt`."""


def _gate(scope: str) -> str | None:
    for part in reversed(scope.split("/")):
        if part.endswith(" gate"):
            return part.removesuffix(" gate")
    return None


class _Grouping(NamedTuple):
    """States of routes, and the key of a group from the last state."""

    start: State
    step: Step
    key: Callable[[State], Any]


def _grouping(by: Any, net: Between) -> _Grouping:
    """Return the states of a grouping. The edge nearest to wrt has the last word, so it decides where several could."""

    def same(state: State) -> Any:
        return state

    if by is None:
        return _Grouping(None, lambda state, arrow: None, same)
    if by == "time":

        def time(state: State, arrow: Arrow) -> State:
            t = net.face(arrow.target).time
            return state if t is None else t

        return _Grouping(None, time, same)
    if by == "gate":

        def gate(state: State, arrow: Arrow) -> State:
            return _gate(net.face(arrow.target).scope) or state

        return _Grouping(None, gate, same)
    if by == "scope":

        def scope(state: State, arrow: Arrow) -> State:
            # Cutting a parameter into gates happens outside of all steps; the use is what counts.
            timed, _ = state
            face = net.face(arrow.target)
            return (True, face.scope) if face.time is not None else state if timed else (False, face.scope)

        return _Grouping((False, ""), scope, lambda state: state[1])
    if by == "delay":
        settled = net.below_all_steps

        def delay(state: State, arrow: Arrow) -> State:
            t, (last, first) = net.face(arrow.target).time, state
            if t is not None:
                last, first = t if last is None else last, t
            if last is None or id(arrow.source) not in settled:
                return last, first
            return last - first, 0  # no more steps to come: equal delays are one state, and a sweep carries fewer

        return _Grouping((None, None), delay, lambda state: None if state[0] is None else state[0] - state[1])
    if by == "route":

        def hop(state: State, arrow: Arrow) -> State:
            return (id(arrow.target), arrow.k) if arrow.source is net.wrt else None

        first = [arrow for arrows in net.arrows.values() for arrow in arrows if arrow.source is net.wrt]
        words = [net.via(arrow) for arrow in first]
        names = {
            (id(a.target), a.k): w if words.count(w) == 1 else f"{w} by {net.symbol(a.target)}, {net.edge(a).operand}"
            for a, w in zip(first, words, strict=True)
        }
        return _Grouping(None, hop, lambda state: names.get(state))
    if callable(by):

        def own(state: State, arrow: Arrow) -> State:
            key = by(net.edge(arrow))
            if not isinstance(key, Hashable):
                raise UsageError(f"by: the key of an edge must be hashable, not a {type(key).__name__}")
            return state if key is None else key

        return _Grouping(None, own, same)
    known = "time, gate, scope, delay, route"
    raise UsageError(f"by is one of {known}, or a function of an edge, not {by!r}")


def _spread(net: Between, seed: Any, start: State, step: Step) -> dict[State, tuple[Any, int]]:
    """Sweep from `of` to `wrt` and return, for each state at the end, the sum of what routes carry and their number."""
    carried: dict[int, dict[State, tuple[Any, int]]] = {id(net.of): {start: (seed, 1)}}
    for node in net.nodes:
        if node is net.wrt:
            continue
        arrows = net.arrows[id(node)]
        for state, (g, count) in carried.pop(id(node), {}).items():
            parts = net.received(node, g, [a.k for a in arrows]) if g is not None else [None] * node.n_in
            for arrow in arrows:
                after, part = step(state, arrow), parts[arrow.k]
                states = carried.setdefault(id(arrow.source), {})
                total, n = states.get(after, (None, 0))
                # None is a sum of nothing: a rule may say that its operand receives no gradient.
                states[after] = (part if total is None else total if part is None else total + part, n + count)
    return carried.get(id(net.wrt), {})


# --- single routes ------------------------------------------------------------------------------------------


class _Link(NamedTuple):
    """The last edge of a route that is being walked, and what came before."""

    arrow: Arrow
    before: _Link | None
    norm: float


class _Search:
    """Best-first search for the routes with the largest contribution, with a bound that is never too small.

    From a node on, a route can at best multiply the size of element i of what it carries by ``reach[node][i]``: the
    largest over the ways to wrt of the product of absolute derivatives. In graphs of single numbers that is exact.
    """

    def __init__(self, net: Between, kept: Callable[[Arrow], bool], seed: Any, at: Index | None) -> None:
        self.net, self.at, self.proven = net, at, True
        self.arrows = {key: [a for a in arrows if kept(a)] for key, arrows in net.arrows.items()}
        self.reach = self._reach()
        self.heap: list[tuple[float, int, Any, Any, _Link | None]] = []  # −bound, order, node, carried, route
        self.order, self.work, self.held = itertools.count(), 0, 0
        if id(net.of) in self.reach:
            self._open([self._entry(net.of, seed, None)])

    def _reach(self) -> dict[int, Any]:
        data = _core.data_of(self.net.leaf)
        xp = array_lane(data).xp
        start = xp.ones_like(data)
        if self.at is not None:
            start = xp.zeros_like(data)
            start[self.at] = 1
        reach: dict[int, Any] = {id(self.net.wrt): _core.tensor(start)}
        for node in reversed(self.net.nodes):
            for arrow in self.arrows[id(node)]:
                below = reach.get(id(arrow.source))
                if below is None:
                    continue
                more = self._held_down(self._pushed(arrow, below))
                best = reach.get(id(node))
                reach[id(node)] = more if best is None else PAGE.maximum(best, more)
        return reach

    def _held_down(self, bound: Any) -> Any:
        """Keep a bound finite; one that is cut off proves nothing any more."""
        top = math.sqrt(float(np.finfo(str(bound.dtype)).max))
        array = as_array(bound)
        if np.all(array <= top):
            return bound
        self.proven = False
        return PAGE.clip(PAGE.where(PAGE.isnan(bound), _core.tensor(_core.data_of(bound) * 0 + top), bound), high=top)

    def _pushed(self, arrow: Arrow, bound: Any) -> Any:
        """Return |J| · bound, J the derivative of a node's result in one operand."""
        node, k, _ = arrow
        record = node.op
        kind = getattr(record, "kind", "function")
        if record.name in _MULTILINEAR and not (record.name == "affine" and k == 2):
            factors = 2 if record.name == "affine" else node.n_in
            sizes = [bound if j == k else abs(node.operand(j)) for j in range(factors)]
            if record.name == "affine":
                return PAGE.matmul(sizes[0], PAGE.mT(sizes[1]))
            return record(*sizes, **{name: node.params[name] for name in record.params})
        if record.name == "affine":
            return PAGE.broadcast_to(bound, node.result_shape())
        if kind in ("elementwise", "linear"):
            # Element by element nothing can cancel, and the linear operations left have no negative coefficients.
            return abs(record.tangents(node, [bound if j == k else None for j in range(node.n_in)])[0])
        return self._probed(arrow, bound)

    def _probed(self, arrow: Arrow, bound: Any) -> Any:
        node, k, _ = arrow
        shape = node.result_shape(self.net.of_out if node is self.net.of else 0)
        data = _core.data_of(bound)
        xp = array_lane(data).xp
        size = math.prod(shape)
        if size > PROBES:
            self.proven = False
            return _core.tensor(xp.full(shape, float(as_array(bound).max()), dtype=data.dtype))
        rows = []
        for i in range(size):
            unit = xp.zeros(size, dtype=data.dtype)
            unit[i] = 1
            part = self.net.received(node, _core.tensor(xp.reshape(unit, shape)), [k])[k]
            rows.append(0.0 if part is None else float(np.sum(np.abs(as_array(part)) * as_array(bound))))
        return _core.tensor(xp.reshape(xp.asarray(rows, dtype=data.dtype), shape))

    def _entry(self, node: Any, carried: Any, link: _Link | None) -> tuple[float, int, Any, Any, _Link | None]:
        sizes = np.abs(as_array(carried))
        if node is not self.net.wrt:
            most = float(np.sum(sizes * as_array(self.reach[id(node)])))
        else:  # a complete route, of known size
            most = float(sizes[self.at]) if self.at is not None else float(np.linalg.norm(sizes))
        return -most, next(self.order), node, carried, link

    def _open(self, entries: Iterable[tuple[float, int, Any, Any, _Link | None]]) -> None:
        for entry in entries:
            self.held += entry[3].size
            heapq.heappush(self.heap, entry)

    def _further(self, node: Any, carried: Any, link: _Link | None) -> list[Any]:
        """Return a partial route with one more edge, in all ways."""
        self.work += 1
        arrows = [a for a in self.arrows[id(node)] if id(a.source) in self.reach]
        parts = self.net.received(node, carried, [a.k for a in arrows])
        entries = []
        for arrow in arrows:
            part = parts[arrow.k]
            if part is None:
                part = _core.tensor(_core.data_of(self.reach[id(arrow.source)]) * 0)
            entries.append(self._entry(arrow.source, part, _Link(arrow, link, float(np.linalg.norm(as_array(part))))))
        return entries

    def next(self) -> tuple[list[Arrow], list[float], Any] | None:
        """Return the next strongest route as (edges, norms after each, contribution); None when there are no more."""
        while self.heap:
            _, _, node, carried, link = heapq.heappop(self.heap)
            self.held -= carried.size
            while node is not self.net.wrt:
                entries = self._further(node, carried, link)
                if self.work <= EXPANSIONS and self.held <= HELD:
                    self._open(entries)
                    break
                # Out of breath: this route goes on along its best edge instead of the best route along one more edge.
                self.proven = False
                entries.sort()
                self._open(entries[1:])
                _, _, node, carried, link = entries[0]
            else:
                return (*_unrolled(link), as_array(carried))
        return None


def _unrolled(link: _Link | None) -> tuple[list[Arrow], list[float]]:
    arrows, norms = [], []
    while link is not None:
        arrows.append(link.arrow)
        norms.append(link.norm)
        link = link.before
    return arrows[::-1], norms[::-1]


# --- the ledger ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Route(Report):
    """One route from `of` to `wrt`.

    Attributes:
        edges: in the order of the chain rule, from `of` down.
        locals: ∂⁺ of each edge as a number: where both ends hold one number; under `at`, at that element, where an
            element-wise operation has the shape of `wrt` on both ends; else None.
        norms: size (Euclidean norm) of what the route carries below each edge.
        contribution: what arrives at `wrt`, an array of its shape.
        value: the number that stands for it: with its sign the element, or the norm of an array.
        share, running: its part of the total, and the part of all routes up to this one; parts of 1, None if the
            total is 0.
    """

    edges: tuple[Edge, ...]
    locals: tuple[float | None, ...]
    norms: tuple[float, ...]
    contribution: Any
    value: float
    share: float | None
    running: float | None
    words: Words

    def waypoints(self, latex: bool = False) -> list[str]:
        """Return the values that the route passes, from `of` down to `wrt`: those with names, if any, and both ends."""
        if not self.edges:
            return []
        passed = [self.edges[0].target, *[edge.source for edge in self.edges]]
        named = [n for n in passed[1:-1] if self.words.name(n)] or passed[1:-1]
        return [self.words.label(n, latex) for n in (passed[0], *named, passed[-1])]

    def parts(self) -> list[str | Table]:
        """Return what it contributes, and a line for each edge."""
        rows = tuple(
            (
                edge.op,
                number(local),
                number(norm),
                edge.scope,
                f"{self.words.label(edge.target)} -> {self.words.label(edge.source)}: {edge.formula}",
            )
            for edge, local, norm in zip(self.edges, self.locals, self.norms, strict=True)
        )
        heads = ("operation", "∂⁺", "‖carried‖", "scope", "edge: ∂⁺ as a formula")
        share = f", {percent(self.share)} of the total" if self.share is not None else ""
        return [
            f"{counted(len(rows), 'edge')}, contribution {number(self.value)}{share}",
            Table(heads, rows, frozenset({1, 2})),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the route as data for JSON."""
        edges = [
            {
                "source": self.words.label(edge.source),
                "target": self.words.label(edge.target),
                "argument": edge.argument,
                "operand": edge.operand,
                "op": edge.op,
                "scope": edge.scope,
                "time": edge.time,
                "formula": edge.formula,
                "local": None if local is None else plain(local),
                "norm": plain(norm),
            }
            for edge, local, norm in zip(self.edges, self.locals, self.norms, strict=True)
        ]
        return {"edges": edges, **_amount(self)}


@dataclass(frozen=True, eq=False)
class Group:
    """All routes with one key: how many, the sum of their contributions, and its number and share (see Route)."""

    key: Any
    count: int
    contribution: Any
    value: float
    share: float | None


def _amount(part: Any) -> dict[str, Any]:
    found = {"value": plain(part.value), "share": part.share}
    if isinstance(part, Route):
        found["running"] = part.running
    if part.contribution.size <= NUMBERS_KEPT:
        found["contribution"] = plain(part.contribution)
    return found


class PathLedger(Report):
    """The gradient of one tensor in another as the sum over its routes; made by :func:`paths`.

    Attributes:
        of, wrt: what they are called.
        at: the element of `wrt` that numbers are about, or None.
        count: how many routes there are (of those asked for), exactly.
        gradient: the engine's gradient, the sum over all routes.
        total: the sum over the routes asked for: the same array unless `through` or `avoiding` leave some out.
        paths: the strongest routes, a tuple of :class:`Route`.
        proven: whether it is certain that no route that is not listed is stronger than one that is.
        remainder: the routes that are not listed, as one :class:`Group`.
        by: the grouping.
        groups: key -> :class:`Group`, in order; empty without a grouping.
        residual, tolerance: norm of the difference between the gradient and the sum of all parts, and its bound.
    """

    def __init__(
        self, net: Between, seeds: tuple[Index | None, Index | None], by: Any, top: int, passing: _Passing
    ) -> None:
        self._net, self._passing = net, passing
        self._of_at, self.at = seeds
        self.of, self.wrt, self.by = net.symbol(net.of), net.symbol(net.wrt), by
        self._seed = net.seed(self._of_at)
        (self.gradient,) = net.gradient(self._of_at)
        if not np.all(np.isfinite(self.gradient)):
            raise GraphError(
                f"∂{self.of}/∂{self.wrt} is not finite, so no parts add up to it; "
                "minigrad.explain.provenance says where that came from"
            )
        self._count_and_group()
        self.proven, found = True, []
        if top:
            search = self._new_search()
            found = sorted(itertools.islice(self._routes(search), top), key=lambda route: -abs(route.value))
            self.proven = search.proven or len(found) == self.count
        self.paths = tuple(self._running(found))
        self._close()

    def _count_and_group(self) -> None:
        grouping = _grouping(self.by, self._net)

        def step(state: tuple[bool, State], arrow: Arrow) -> tuple[bool, State]:
            asked, rest = state
            if not (asked and self._passing.open(arrow)):
                return False, None  # routes that were not asked for are one sum: with it all must make the gradient
            return True, grouping.step(rest, arrow)

        asked = self._passing.ends
        start = (asked, grouping.start if asked else None)
        ends = _spread(self._net, self._seed, start, step)
        self._states = start, step, grouping.key
        nothing = np.zeros_like(self.gradient)
        sums: dict[Any, tuple[Any, int]] = {}
        everything, gross = nothing, float(np.linalg.norm(self.gradient))
        for (asked, state), (carried, count) in ends.items():
            part = nothing if carried is None else as_array(carried)
            everything = everything + part
            gross += float(np.linalg.norm(part))
            if asked:
                key = grouping.key(state)
                total, n = sums.get(key, (nothing, 0))
                sums[key] = total + part, n + count
        self.residual = float(np.linalg.norm(everything - self.gradient))
        epsilon = float(np.finfo(str(self._net.leaf.dtype)).eps)
        self.tolerance = 64 * epsilon * math.sqrt(len(self._net.nodes)) * gross
        if not self.residual <= self.tolerance:
            self.tolerance += noise(lambda scale: self._net.gradient(self._of_at, scale=scale)[0], self._net.leaf.dtype)
        if not self.residual <= self.tolerance:
            raise GradcheckError(
                f"∂{self.of}/∂{self.wrt}: the routes add up to something else than the gradient, by "
                f"{self.residual:.3g} where {self.tolerance:.3g} is rounding: some operation's two ways of computing "
                "its derivative disagree, or a hook changes gradients; minigrad.testing.gradcheck says which"
            )
        self.count = sum(n for _, n in sums.values())
        self.total = sum((total for total, _ in sums.values()), nothing)
        self.groups = (
            {key: self._group(key, n, total) for key, (total, n) in sorted(sums.items(), key=_in_order)}
            if self.by
            else {}
        )

    def _group(self, key: Any, count: int, part: Any) -> Group:
        return Group(key, count, part, value_of(part, self.at), share_of(part, self.total, self.at))

    def _close(self) -> None:
        """Balance the listed routes against the total."""
        listed = sum((route.contribution for route in self.paths), np.zeros_like(self.total))
        self.remainder = self._group(None, self.count - len(self.paths), self.total - listed)
        off = float(np.linalg.norm(self.remainder.contribution))
        gross = sum(float(np.linalg.norm(route.contribution)) for route in self.paths)
        if self.remainder.count == 0 and off > max(self.tolerance, self.tolerance * gross):
            raise GradcheckError(f"∂{self.of}/∂{self.wrt}: all routes are listed, and {off:.3g} is missing")

    def _route(self, arrows: list[Arrow], norms: list[float], contribution: Any) -> Route:
        edges = tuple(self._net.edge(arrow) for arrow in arrows)
        return Route(
            edges,
            tuple(self._local(arrow) for arrow in arrows),
            tuple(norms),
            contribution,
            value_of(contribution, self.at),
            share_of(contribution, self.total, self.at),
            None,
            self._net.words,
        )

    def _local(self, arrow: Arrow) -> float | None:
        shape = self._net.face(arrow.source).shape
        result = self._net.face(arrow.target).shape
        one = math.prod(shape) == 1 and math.prod(result) == 1
        same = shape == result == self.gradient.shape and getattr(arrow.target.op, "kind", "") == "elementwise"
        if not one and not (same and self.at is not None):
            return None
        data = _core.data_of(self._net.leaf)
        xp = array_lane(data).xp
        (part,) = (
            p
            for p in self._net.received(arrow.target, _core.tensor(xp.ones(result, dtype=data.dtype)), [arrow.k])
            if p is not None
        )
        return float(as_array(part).reshape(()) if one else as_array(part)[self.at])

    def _running(self, routes: Iterable[Route]) -> Iterator[Route]:
        total: float | None = 0.0
        for route in routes:
            total = None if total is None or route.share is None else total + route.share
            yield replace(route, running=total)

    def _new_search(self) -> _Search:
        return _Search(self._net, self._passing.open, self._seed, self.at)

    def _routes(self, search: _Search) -> Iterator[Route]:
        while True:
            found = unwatched(search.next)
            if found is None:
                return
            yield unwatched(partial(self._route, *found))

    def edges(self, key: Any = EVERYTHING) -> list[Edge]:
        """Return the edges that lie on some route that was asked for, or on one of a group, nearest to `of` first."""
        start, step, key_of = self._states
        came: dict[tuple[int, State], list[tuple[State, Arrow]]] = {(id(self._net.of), start): []}
        states: dict[int, list[State]] = {id(self._net.of): [start]}
        for node in self._net.nodes:
            for state in states.get(id(node), ()) if node is not self._net.wrt else ():
                for arrow in self._net.arrows[id(node)]:
                    after = step(state, arrow)
                    if not after[0]:
                        continue
                    place = (id(arrow.source), after)
                    if place not in came:
                        came[place] = []
                        states.setdefault(place[0], []).append(after)
                    came[place].append((state, arrow))
        goal = id(self._net.wrt)
        todo = [(goal, s) for s in states.get(goal, ()) if s[0] and (key is EVERYTHING or key_of(s[1]) == key)]
        seen, found = set(todo), {}
        while todo:
            for state, arrow in came[todo.pop()]:
                found[id(arrow.target), arrow.k] = arrow
                place = (id(arrow.target), state)
                if place not in seen:
                    seen.add(place)
                    todo.append(place)
        return [self._net.edge(a) for a in sorted(found.values(), key=lambda a: (-a.target.number, a.k))]

    def walk(self) -> Iterator[Route]:
        """Yield all routes one at a time: the strongest first, for as long as the search can prove it (see `paths`)."""
        yield from self._running(self._routes(unwatched(self._new_search)))

    # -- what people read --------------------------------------------------------------------------

    @property
    def _symbol(self) -> str:
        return f"∂{self.of}/∂{grouped(self.wrt)}"

    def parts(self) -> list[str | Table]:
        """Return the gradient, the groups, the listed routes and what is left, and the residual."""
        shape = self.gradient.shape
        what = (
            f"element {list(self.at)} of {shape}" if self.at is not None else "norm" if self.gradient.size > 1 else ""
        )
        value = number(value_of(self.total, self.at)) + (f" ({what})" if what else "")
        kind = "" if self._passing.everything else f", {self._passing.told}"
        found: list[str | Table] = [f"{self._symbol} = {value}: {counted(self.count, 'route')}{kind}"]
        heads = ("routes", "value", "share")
        if self.groups:
            word = self.by if isinstance(self.by, str) else "key"
            rows = tuple(
                (counted(g.count, "route").rpartition(" ")[0], number(g.value), percent(g.share), _said(g.key))
                for g in self.groups.values()
            )
            found += ["", Table((*heads, word), rows, frozenset({0, 1, 2}))]
        if self.paths or not self.groups:
            listed = [
                (str(i), number(r.value), percent(r.share), percent(r.running), _shortened(r.waypoints()))
                for i, r in enumerate(self.paths, 1)
            ]
            left = self.remainder
            if left.count:
                words = f"all others: {counted(left.count, 'route')}"
                listed.append(("", number(left.value), percent(left.share), "", words))
            order = "route, strongest first" if self.proven else "route, the strongest found"
            found += ["", Table(("", "value", "share", "running", order), tuple(listed), frozenset({0, 1, 2, 3}))]
        found += ["", f"residual {self.residual:.2g} (rounding: up to {self.tolerance:.2g})"]
        return found

    def to_latex(self) -> str:
        """Return the sum as LaTeX (amsmath): its groups if there are any, else the listed routes as products."""
        of, wrt = (self._net.symbol(node, latex=True) for node in (self._net.of, self._net.wrt))
        head = rf"\frac{{\partial {of}}}{{\partial {wrt}}}"
        if self.groups:
            word = self.by if isinstance(self.by, str) else "key"
            terms = [rf"\underbrace{{{number(g.value)}}}_{{{_group_latex(word, g.key)}}}" for g in self.groups.values()]
        else:
            terms = [rf"\underbrace{{{_product(route)}}}_{{{number(route.value)}}}" for route in self.paths]
            if self.remainder.count:
                rest = counted(self.remainder.count, "route").replace(" ", r"\,").replace(r"\,route", " more route")
                terms.append(rf"\underbrace{{\cdots}}_{{\text{{{rest}: }}{number(self.remainder.value)}}}")
        body = " \\\\\n&\\quad + ".join(terms) or "0"
        return f"\\begin{{aligned}}\n{head} &= {body}\n\\end{{aligned}}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as data for JSON; arrays of up to 64 elements stand in it element by element."""
        found: dict[str, Any] = {
            "of": self.of,
            "wrt": self.wrt,
            "shape": list(self.gradient.shape),
            "at": None if self.at is None else list(self.at),
            "count": self.count,
            "value": plain(value_of(self.total, self.at)),
            "proven": self.proven,
            "routes": [route.to_dict() for route in self.paths],
            "remainder": {"count": self.remainder.count, **_amount(self.remainder)},
            "residual": self.residual,
            "tolerance": self.tolerance,
        }
        if self.gradient.size <= NUMBERS_KEPT:
            found["gradient"] = plain(self.gradient)
        if self.groups:
            found["by"] = self.by if isinstance(self.by, str) else "key"
            found["groups"] = [{"key": _plain_key(g.key), "count": g.count, **_amount(g)} for g in self.groups.values()]
        if not self._passing.everything:
            found["only"] = self._passing.told
        return found


def _in_order(item: tuple[Any, Any]) -> tuple[int, Any]:
    key = item[0]
    if key is None:
        return 2, ""
    if isinstance(key, int | float):
        return 0, key
    # Steps in a scope go by their number: t=2 before t=10.
    return 1, [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(key))]


def _said(key: Any) -> str:
    return "(none)" if key is None else str(key) or "(no scope)"


def _plain_key(key: Any) -> Any:
    return key if key is None or isinstance(key, bool | int | float | str) else str(key)


def _shortened(waypoints: list[str]) -> str:
    if len(waypoints) > 14:
        waypoints = [*waypoints[:7], f"… {len(waypoints) - 13} more …", *waypoints[-6:]]
    return " <- ".join(waypoints)


def _product(route: Route) -> str:
    names = route.waypoints(latex=True)
    return " ".join(rf"\frac{{\partial {a}}}{{\partial {b}}}" for a, b in itertools.pairwise(names)) or "1"


def _group_latex(word: str, key: Any) -> str:
    if key is None:
        return r"\text{none}"
    if word == "route":
        return rf"\text{{via }} {latex_name(str(key))}"
    return {"time": "t = ", "delay": r"\Delta t = "}.get(word, "") + (
        str(key) if isinstance(key, int) else rf"\text{{{key}}}"
    )


class _Passing:
    """Which routes were asked for: through all of some nodes, and through none of others."""

    def __init__(self, net: Between, through: Sequence[Any], avoiding: Sequence[Any]) -> None:
        needed = [net.engine_node(what, "through")[0] for what in through]
        barred = [net.engine_node(what, "avoiding")[0] for what in avoiding]
        for node in (*needed, *barred):
            if id(node) not in net.faces:
                raise UsageError(f"through, avoiding: {net.symbol(net.of)} does not depend on {node!r}")
        for node in barred:
            if node is net.of or node is net.wrt:
                raise UsageError(f"avoiding: every route passes {net.symbol(node)}")
        self._barred = {id(node) for node in barred}
        known = {id(node) for node in net.nodes}
        # Creation numbers fall along a route: it misses a node exactly if one of its edges jumps over its number.
        self._needed = sorted(node.number for node in needed)
        self.ends = all(id(node) in known for node in needed)
        self.everything = not needed and not barred
        words = [("through", needed), ("avoiding", barred)]
        self.told = ", ".join(
            f"{word} {' and '.join(net.symbol(node) for node in nodes)}" for word, nodes in words if nodes
        )

    def open(self, arrow: Arrow) -> bool:
        """Say whether a route that was asked for can take an edge."""
        if not self.ends or id(arrow.source) in self._barred:
            return False
        return not any(arrow.source.number < n < arrow.target.number for n in self._needed)


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple | set | frozenset) else [given]


def paths(
    of: Any,
    wrt: Any,
    at: Any = None,
    by: str | Callable[[Edge], Hashable | None] | None = None,
    top: int = 10,
    tape: Tape | None = None,
    through: Any = (),
    avoiding: Any = (),
) -> PathLedger:
    """Explain the gradient of `of` in `wrt` as the sum over all routes of the product of their local derivatives.

    Args:
        of: what is differentiated: a tensor, the name of one on the tape, or a tape node. An array stands for the sum
            of its elements.
        wrt: what it is differentiated by, given likewise; it may be the result of an operation.
        at: the element of `wrt` to explain, as an index; or a pair of indices, of an element of `of` and one of `wrt`
            (either may be None). Without it, numbers about arrays are Euclidean norms.
        by: how to group all routes: ``"time"``, the step in which the route leaves `wrt` (of its first use);
            ``"gate"``, the gate through which it enters the cell first; ``"scope"``, the scope of its first use;
            ``"delay"``, the steps between its first use and `of`; ``"route"``, its first edge, named by the value that
            it leads to; or a function of an :class:`Edge`: a route's key is the function's value at the edge nearest to
            `wrt` where that is not None. Routes that never meet a step, gate or key are the group None.
        top: how many single routes to list.
        tape: the tape that saw the computation, for names and scopes; it must be given to use names. Without it the
            engine's graph is read.
        through, avoiding: a node or several, given like `wrt`: only routes through all of the first and none of the
            second count.

    Returns:
        A :class:`PathLedger`. Counts are exact. Groups are exact, by one sweep that carries a sum for each group. Parts
        add up to the engine's own gradient: the residual was checked.

        Strongest means: largest absolute contribution to the element, or largest norm of the contribution. The search
        goes best first, with a bound that is never too small, so that the listed routes are the strongest there are if
        ``proven`` is true; for graphs of single numbers, like ``a * a + a``, the bound is exact and the search goes
        straight to them. It stops proving after 10 000 partial routes; what it lists then are real routes with exact
        contributions, though a stronger one may be among the others.

    Raises:
        UsageError: unknown names, an element outside of its tensor, no route from `of` to `wrt`.
        GraphError: what derivatives need has been freed, or the gradient is not finite.
        GradcheckError: the parts do not add up to the gradient within rounding.

    >>> import minigrad as mg
    >>> with mg.Tape() as tape:
    ...     a = mg.tensor(3.0, requires_grad=True, name="a")
    ...     y = a * a + a
    >>> ledger = paths(y, a, tape=tape)
    >>> ledger.count, [route.value for route in ledger.paths]
    (3, [3.0, 3.0, 1.0])
    """
    if not isinstance(top, int) or top < 0:
        raise UsageError(f"top is how many routes to list, not {top!r}")

    def made() -> PathLedger:
        net = Between(of, wrt, tape)
        seeds = elements(at, tuple(net.root.shape), tuple(net.leaf.shape))
        return PathLedger(net, seeds, by, top, _Passing(net, _several(through), _several(avoiding)))

    return unwatched(made)
