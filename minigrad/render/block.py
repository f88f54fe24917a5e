"""One recorded step of a recurrent unit, taken apart: which nodes are which gate, state, product and sum.

::

    view of a whole tape     units     one unit, one step     read     Block: parts and the links between them
     t=0 … t=4, layers   ---------->    (“lstm”, t=2)      -------->    f, i, g, o, +, tanh …   c- -> f⊙c -> + …

Nothing is known but the view: gates by their scopes, states by their names, the rest by what reads what. Every
operation of the step belongs to exactly one part, so that nothing that was computed can be missing from a chart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from minigrad.errors import UsageError
from minigrad.graph.view import View, ViewEdge, ViewNode, gate_letter

LINEAR = ("affine", "matmul", "einsum")
_STATE = {word: re.compile(rf"{word}( new)?(\[-?\d+\])?$") for word in ("h", "c", "gates")}
_LAYER = re.compile(r"layer (\d+)$")
_GATE_SCOPE = re.compile(r"\w+ (gate|input)$")


@dataclass(frozen=True)
class Unit:
    """A recurrent unit on a tape: the scopes that lead to it, its kind, and the steps in which it was recorded.

    A layer that was called several times is several units: `call` counts them from 1, `calls` is how many there are,
    and `spans` has, for each step, between which nodes it lies, the second included.
    """

    path: tuple[str, ...]
    kind: str
    layer: int
    direction: str
    steps: tuple[int | None, ...]
    call: int = 1
    calls: int = 1
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """The scopes as one word."""
        return "/".join(self.path) or self.kind


@dataclass(frozen=True)
class Part:
    """Some operations that a chart draws as one: `out` is the one whose result leaves it, `sign` what it does.

    A gate's `weighted` is the node of the weighted sum that its activation squashes.
    """

    name: str
    out: int
    members: tuple[int, ...]
    sign: str = ""
    weighted: int | None = None


@dataclass(frozen=True)
class Link:
    """All edges from one part to another; `peephole` is diagonal or full where a gate sees a cell."""

    source: str
    target: str
    edges: tuple[ViewEdge, ...]
    peephole: str = ""


@dataclass(frozen=True)
class Block:
    """One step of one unit.

    Parts of all kinds: ``x``, ``h-`` (and ``c-``, ``gates-``) come from outside; one part a gate, by its letter; ``h``
    is what the step hands on, and so are ``c`` and ``gates``. ``x*`` and ``h*`` are what happens to input and state
    before the gates see them (dropout, normalisation). LSTM: ``fc``, ``ig``, ``+``, ``clip`` between the sum and
    ``cell``, ``c*`` between that and the cell that is handed on, ``norm`` and ``squash`` of the cell, ``oh``, ``out*``
    between that and h. GRU: ``1-``, ``zn``, ``zh``, ``rh``, ``u`` (the product that r multiplies), ``+``, ``out*``.
    """

    unit: Unit
    time: int | None
    parts: Mapping[str, Part]
    links: Mapping[tuple[str, str], Link]
    nodes: Mapping[int, ViewNode]
    readers: Mapping[int, tuple[ViewEdge, ...]]
    operands: Mapping[int, tuple[ViewEdge, ...]]
    home: Mapping[int, str] = field(default_factory=dict)
    """The part of each node."""

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    def into(self, name: str) -> list[Link]:
        """Return the links that end in a part."""
        return [link for (_, target), link in self.links.items() if target == name]

    def node(self, name: str) -> ViewNode:
        """Return the node whose result leaves a part."""
        return self.nodes[self.parts[name].out]


# --- which units and steps there are ------------------------------------------------------------------------


def units(view: View) -> tuple[Unit, ...]:
    """Return the recurrent units of a view in the order in which they were recorded."""
    steps: dict[tuple[str, ...], dict[int | None, None]] = {}
    letters: dict[tuple[str, ...], set[str]] = {}
    simple: dict[tuple[str, ...], dict[int | None, None]] = {}
    for n in view.nodes:
        if n.kind != "op" or n.tap is not None:
            continue
        place = _gate_place(n)
        if place is not None:
            path = untimed(n.scope[:place])
            steps.setdefault(path, {})[n.step] = None
            letters.setdefault(path, set()).add(gate_letter(n.gate) or "")
        elif n.step is not None and _is_state(n, "h"):
            simple.setdefault(untimed(n.scope), {})[n.step] = None
    for path, times in simple.items():
        if path not in letters:
            steps[path] = times
    found: list[Unit] = []
    numbers: dict[str, int] = {}
    for path, times in steps.items():
        known = letters.get(path, set())
        kind = "gru" if known & {"r", "z"} else "lstm" if known else "rnn"
        number = next((int(m[1]) for part in reversed(path) if (m := _LAYER.match(part))), None)
        direction = "reverse" if "reverse" in path else "forward"
        if number is None:
            number = numbers.get(direction, 0)
        numbers[direction] = numbers.get(direction, 0) + 1
        calls = _calls(view, path, times)
        if len(calls) < 2:
            order = sorted(times, key=lambda t: -1 if t is None else t)
            found.append(Unit(path, kind, number, direction, tuple(order)))
            continue
        for call, ends in enumerate(calls, 1):
            # a step of this call begins after the same step of the one before
            spans = {t: (max((c[t] for c in calls[: call - 1] if t in c), default=-1), i) for t, i in ends.items()}
            order = sorted(ends, key=lambda t: -1 if t is None else t)
            inside = tuple(spans[t] for t in order)
            found.append(Unit(path, kind, number, direction, tuple(order), call, len(calls), inside))
    return tuple(found)


def _calls(view: View, path: tuple[str, ...], steps: Collection[int | None]) -> list[dict[int | None, int]]:
    """Return for each call of a unit its steps, and the last node of each.

    A call is over when a step comes again. Steps that come twice in a row, among others, are no calls but several cells
    in one scope, which nothing tells apart.
    """
    ends: list[ViewNode] = []
    states: set[str] = set()
    for n in view.nodes:
        if n.kind == "op" and n.gate is None and n.step in steps and _is_final(n) and leads(n.scope, path):
            state = (n.name or "")[:1]
            if ends and ends[-1].step == n.step and state not in states:
                ends[-1] = n
            else:
                ends.append(n)
                states = set()
            states.add(state)
    if len({n.step for n in ends}) > 1 and any(a.step == b.step for a, b in pairwise(ends)):
        return []
    calls: list[dict[int | None, int]] = []
    for n in ends:
        if not calls or n.step in calls[-1]:
            calls.append({})
        calls[-1][n.step] = n.id
    return calls


def _is_final(node: ViewNode) -> bool:
    return any(_is_state(node, word) for word in _STATE) and " new" not in (node.name or "")


def leads(scope: Iterable[str], path: tuple[str, ...]) -> bool:
    """Whether a scope lies in a unit."""
    return untimed(scope)[: len(path)] == path


def choose(
    view: View,
    step: int | None = None,
    layer: int | str | None = None,
    direction: str | None = None,
    call: int | None = None,
) -> tuple[Unit, int | None]:
    """Return the unit and the step that is meant.

    Args:
        view: with every operation of that step.
        step: the recorded time; the middle one if not given.
        layer: its number, or words of its scope (``"decoder/layer 0"``) where numbers repeat; 0 if not given.
        direction: forward (if not given) or reverse.
        call: which call of a layer that was called several times, the first (1) if not given.

    Raises:
        UsageError: there is no such unit or step, or no recurrent step at all.
    """
    found = units(view)
    if not found:
        folded = any(n.kind == "fold" and n.gate for n in view.nodes)
        why = "its gates are folded away" if folded else "it has no steps of a recurrent unit"
        raise UsageError(
            f"nothing to draw one step of: {why}. This style reads a tape (mg.Tape) of mg.nn.LSTM, GRU, RNN or their "
            "cells, with its scopes; style='graph' draws any other graph"
        )
    if direction not in (None, "forward", "reverse"):
        raise UsageError(f"direction is forward or reverse, not {direction!r}")
    wanted = "forward" if direction is None else direction
    if isinstance(layer, str) and not layer.isdecimal():
        near = [u for u in found if f"/{layer}/" in f"/{u.name}/"]
        near = [u for u in near if u.direction == wanted] or ([] if direction else near)
    else:
        near = [u for u in found if u.layer == int(layer or 0) and u.direction == wanted]
    if not near:
        there = "; ".join(f"layer {u.layer} {u.direction} ({u.name})" for u in found if u.call == 1)
        raise UsageError(f"there is no layer {layer or 0} {wanted} on this tape; there are: {there}")
    near = [u for u in near if u.path == near[0].path]
    if call is not None and not 1 <= call <= len(near):
        raise UsageError(f"there is no call {call} of {near[0].name}; it was called {_times(len(near))}")
    unit = near[(call or 1) - 1]
    if step is None:
        return unit, unit.steps[len(unit.steps) // 2]
    if step not in unit.steps:
        times = [t for t in unit.steps if t is not None]
        there = f"steps {times[0]} to {times[-1]}" if times else "no steps: open mg.scope('t=0') around each of them"
        raise UsageError(f"there is no step {step} of {unit.name}; there are {there}")
    return unit, step


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def excerpt(view: View, unit: Unit, time: int | None) -> View:
    """Return the part of a view that one step consists of, with what it reads and who reads its results."""
    block = read(view, unit, time)
    given = frozenset(block.parts[p].out for p in _TERMINALS if p in block.parts)
    inside = frozenset(block.home) - given
    edges = {
        (e.target, e.argument): e
        for e in view.edges
        if e.target in inside or e.source in inside or (e.target in given and e.cut)
    }
    by_target: dict[int, list[ViewEdge]] = {}
    for e in view.edges:
        by_target.setdefault(e.target, []).append(e)
    # weights with all that was done to them, so that they can be told apart by their parameters' names
    todo = [e.source for e in edges.values() if e.target in inside and e.source not in inside | given]
    while todo:
        for e in by_target.get(todo.pop(), ()):
            if (e.target, e.argument) not in edges:
                edges[e.target, e.argument] = e
                todo.append(e.source)
    kept = frozenset(e.source for e in edges.values()) | frozenset(e.target for e in edges.values()) | inside
    nodes = tuple(n for n in view.nodes if n.id in kept)
    return replace(view, nodes=nodes, edges=tuple(edges[k] for k in sorted(edges)))


_SHARES = {"weight_ih": "W x", "weight_hh": "U h"}


def chooses(operands: Iterable[ViewEdge], old: Callable[[int], bool]) -> str:
    """Say what chooses between an old state and a new one: zoneout puts the old one first, the end of a sequence last.

    Args:
        operands: what an operation `where` reads.
        old: whether a node is an old state.
    """
    return "zoneout" if any(e.argument == 1 and old(e.source) for e in operands) else "mask"


_TERMINALS = ("x", "h-", "c-", "gates-")


def _gate_place(node: ViewNode) -> int | None:
    """Return which part of the scope names the gate."""
    if node.gate is None:
        return None
    return next((k for k in reversed(range(len(node.scope))) if _GATE_SCOPE.match(node.scope[k])), None)


def untimed(scope: Iterable[str]) -> tuple[str, ...]:
    """Return a scope without its steps."""
    return tuple(part for part in scope if not part.startswith("t="))


def _is_state(node: ViewNode, word: str) -> bool:
    return bool(node.name and _STATE[word].match(node.name))


# --- one step -----------------------------------------------------------------------------------------------


def read(view: View, unit: Unit, time: int | None) -> Block:
    """Take one step of a unit apart.

    Raises:
        UsageError: the step is folded or incomplete, or is computed in a way that no chart knows.
    """
    return _Reader(view, unit, time).read()


class _Reader:
    def __init__(self, view: View, unit: Unit, time: int | None) -> None:
        self.view, self.unit, self.time = view, unit, time
        self.nodes = {n.id: n for n in view.nodes}
        self.into: dict[int, list[ViewEdge]] = {n.id: [] for n in view.nodes}
        readers: dict[int, list[ViewEdge]] = {n.id: [] for n in view.nodes}
        for e in view.edges:
            self.into[e.target].append(e)
            readers[e.source].append(e)
        self.readers = {i: tuple(edges) for i, edges in readers.items()}
        self.parts: dict[str, Part] = {}
        self.home: dict[int, str] = {}

    def fail(self, what: str) -> UsageError:
        at = f" at t={self.time}" if self.time is not None else ""
        return UsageError(
            f"{self.unit.name}{at} is no step that this style can draw: {what}; style='graph' draws every operation"
        )

    def read(self) -> Block:
        self._collect()
        {"lstm": self._lstm, "gru": self._gru, "rnn": self._rnn}[self.unit.kind]()
        missing = [i for i in self.members if i not in self.home]
        if missing:
            odd = ", ".join(f"#{i} {self.nodes[i].op}" for i in missing[:3])
            raise self.fail(f"{len(missing)} of its operations have no place in it ({odd})")
        operands = {i: tuple(edges) for i, edges in self.into.items()}
        return Block(self.unit, self.time, self.parts, self._links(), self.nodes, self.readers, operands, self.home)

    # what belongs to the step

    def _collect(self) -> None:
        def near(n: ViewNode) -> bool:
            if n.kind != "op" or n.tap is not None or n.step != self.time:
                return False
            place = _gate_place(n)
            return leads(n.scope if place is None else n.scope[:place], self.unit.path)

        candidates = {n.id for n in self.view.nodes if near(n)}
        if self.unit.spans:
            start, last = self.unit.spans[self.unit.steps.index(self.time)]
            candidates = {i for i in candidates if start < i <= last}
        self.gates: dict[str, list[int]] = {}
        for i in sorted(candidates):
            letter = gate_letter(self.nodes[i].gate)
            if letter:
                self.gates.setdefault(letter, []).append(i)
        outs = {}
        for word in ("h", "c", "gates"):
            named = [i for i in sorted(candidates) if _is_state(self.nodes[i], word)]
            final = [i for i in named if " new" not in (self.nodes[i].name or "") and not self.nodes[i].gate]
            if len(final) > 1:
                raise self.fail(
                    f"{len(final)} steps of it share one scope; open mg.scope('t=0'), mg.scope('t=1') … around them, "
                    "and a scope of its own around each cell"
                )
            if final:
                outs[word] = final[0]
        if "h" not in outs or (self.unit.kind == "lstm" and "c" not in outs):
            raise self.fail("its new state has no name, so it is folded, incomplete, or not made by mg.nn")
        self.outs = outs
        self.members = self._before(outs.values(), candidates)
        self.gates = {k: [i for i in ids if i in self.members] for k, ids in self.gates.items()}
        self.gates = {k: ids for k, ids in self.gates.items() if ids}
        self.gated = {i: k for k, ids in self.gates.items() for i in ids}
        self._states()

    def _before(self, ends: Iterable[int], within: Collection[int]) -> set[int]:
        """Return the nodes of a set that some nodes depend on, themselves included."""
        found = {i for i in ends if i in within}
        todo = list(found)
        while todo:
            for e in self.into[todo.pop()]:
                if e.source in within and e.source not in found:
                    found.add(e.source)
                    todo.append(e.source)
        return found

    def _after(self, starts: Iterable[int]) -> set[int]:
        """Return the members that depend on some nodes, without those nodes."""
        found: set[int] = set()
        todo = list(starts)
        while todo:
            for e in self.readers[todo.pop()]:
                if e.target in self.members and e.target not in found:
                    found.add(e.target)
                    todo.append(e.target)
        return found

    def _weight(self, i: int) -> str:
        """Return the first words of the name of the parameter that a linear operation multiplies with."""
        for e in self.into[i]:
            if e.argument == 0:
                continue
            at = e.source
            while self.nodes[at].kind != "parameter" and self.into[at] and at not in self.members:
                at = self.into[at][0].source
            name = (self.nodes[at].name or self.nodes[e.source].name or "").rsplit(".", 1)[-1]
            return "_".join(name.split("_")[:2])
        return ""

    def _states(self) -> None:
        """Find what the step reads from outside: input and states."""
        by_weight: dict[str, list[int]] = {}
        behind = self._after(i for ids in self.gates.values() for i in ids)
        groups = list(self.gates.values()) or [sorted(self.members)]
        for ids in groups:
            unknown = []
            for i in ids:
                if self.nodes[i].op not in LINEAR:
                    continue
                weight = self._weight(i)
                if weight in ("weight_ih", "weight_hh", "weight_ph", "weight_gg", "weight_hr"):
                    by_weight.setdefault(weight, []).append(i)
                else:
                    unknown.append(i)
            for i, weight in zip(unknown, ("weight_ih", "weight_hh"), strict=False):
                by_weight.setdefault(weight, []).append(i)
        ahead = self._before(self.gated, self.members)
        pre = [i for i in sorted(ahead) if i not in self.gated and i not in behind]
        for i in pre:  # normalised before the gates take their rows
            if self.nodes[i].op in LINEAR and self._weight(i) in ("weight_ih", "weight_hh"):
                by_weight.setdefault(self._weight(i), []).append(i)
        self.by_weight = by_weight
        self.sources: dict[str, int] = {}
        for word, weight in (("x", "weight_ih"), ("h-", "weight_hh"), ("gates-", "weight_gg")):
            for i in by_weight.get(weight, ())[:1]:
                self.sources[word] = self._origin(self.into[i][0].source, word)
        if "x" not in self.sources or "h-" not in self.sources:
            raise self.fail(
                "no products of weights with its input and its state were found; if its cells are one operation each, "
                "record it with mg.Tape(detail='ops')"
            )
        self.members -= self._before([self.sources["x"]], self.members)
        self.members -= {self.sources["h-"]}
        self.pre = [i for i in pre if i in self.members]

    def _origin(self, i: int, word: str) -> int:
        """Go back from what a product reads to what came from outside."""
        if word == "x":
            return i
        while i in self.members:
            inside = [e.source for e in self.into[i] if self.nodes[e.source].kind != "parameter"]
            states = [s for s in inside if _is_state(self.nodes[s], "h")]
            i = (states or [s for s in inside if s in self.members] or inside)[0]
        return i

    # parts

    def _part(
        self, name: str, members: Iterable[int], sign: str, out: int | None = None, weighted: int | None = None
    ) -> None:
        ids = tuple(sorted(members))
        if not ids:
            return
        self.parts[name] = Part(name, max(ids) if out is None else out, ids, sign, weighted)
        for i in ids:
            self.home[i] = name

    def _stage(self, name: str, members: Iterable[int]) -> None:
        ids = sorted(i for i in members if i not in self.home)
        if ids:
            self._part(name, ids, self._stage_sign(ids))

    def _stage_sign(self, ids: list[int]) -> str:
        """Say what the operations of a stage do, in the order in which they do it."""
        signs: dict[str, None] = {}
        for i in ids:
            n = self.nodes[i]
            normed = "layer norm" in n.scope
            if n.op in LINEAR and self._weight(i) in _SHARES:
                signs[f"norm({_SHARES[self._weight(i)]})" if normed else _SHARES[self._weight(i)]] = None
            elif normed:
                if not any(sign.startswith("norm") for sign in signs):
                    signs["norm"] = None
            elif n.op in LINEAR:
                signs["project"] = None
            elif n.op == "clip":
                signs["clip"] = None
            elif n.op == "where":
                signs[chooses(self.into[i], lambda k: k not in self.members)] = None
            elif n.op == "mul" and any(self.nodes[k].op == "add" and self._reads(k, i) for k in ids):
                signs["zoneout"] = None  # outside of training its mean: p times the old state, and the rest of the new
            elif n.op == "mul":
                signs["drop"] = None
        return ", ".join(signs) or f"{len(ids)} ops"

    def _gate(self, letter: str, ids: list[int]) -> None:
        """Make a part of a gate; its sign is what comes after the sum of its terms."""
        taken = [i for i in ids if i not in self.home]
        linear = [i for i in taken if self._is_term(i)]
        if not linear:
            self._part(letter, taken, "1 −" if any(self.nodes[i].op == "sub" for i in taken) else "·")
            return
        total = max((i for i in taken if self.nodes[i].op == "add" and self._sums(i, taken)), default=max(linear))
        after = [i for i in taken if i > total]
        sign = " ".join(self.nodes[i].label for i in after if self.nodes[i].kind == "op")
        if len(after) > 2:
            sign = "f"
        self._part(letter, taken, sign or "Σ", weighted=total)

    def _is_term(self, i: int) -> bool:
        return (
            self.nodes[i].op in LINEAR
            or self.nodes[i].op == "getitem"
            or any(e.role == "parameter" for e in self.into[i])
        )

    def _sums(self, i: int, ids: list[int]) -> bool:
        """Whether both operands of an addition come from terms of the gate, none from a constant of an activation."""
        sources = [e.source for e in self.into[i]]
        return all(s in self.members or s in self.home for s in sources)

    def _pre(self) -> None:
        from_h = self._after([self.sources["h-"]])
        self._stage("x*", [i for i in self.pre if i not in from_h])
        self._stage("h*", [i for i in self.pre if i in from_h])

    def _ends(self) -> None:
        """Make parts of what came from outside."""
        for word, i in self.sources.items():
            self.parts[word] = Part(word, i, (i,))
            self.home[i] = word

    def _reads(self, i: int, source: int | None) -> bool:
        return any(e.source == source for e in self.into[i])

    def _product(self, a: int | None, b: int | None = None) -> int | None:
        """Return the pointwise product outside of gates that reads one node, or two."""
        free = (i for i in sorted(self.members) if i not in self.gated and i not in self.home)
        for i in free:
            if self.nodes[i].op == "mul" and self._reads(i, a) and (b is None or self._reads(i, b)):
                return i
        return None

    def _other(self, i: int, source: int) -> int:
        others = [e.source for e in self.into[i] if e.source != source]
        if len(others) != 1:
            raise self.fail(f"#{i} {self.nodes[i].op} multiplies a gate with nothing else")
        return others[0]

    def _between(self, start: int, end: int) -> list[int]:
        """Return the members on the way from one node to another, the second included, the first not."""
        back = self._before([end], self.members)
        return sorted(i for i in self._after([start]) & back if i not in self.gated)

    def _upto(self, end: int, start: int) -> list[int]:
        """Return the members that one node needs and another one does not."""
        return sorted(self._before([end], self.members) - self._before([start], self.members) - {start})

    def _lstm(self) -> None:
        gate = {k: max(ids) for k, ids in self.gates.items()}
        i, f, g, o = (gate.get(k) for k in "ifgo")
        if g is None:
            raise self.fail("it has no cell gate")
        self._pre()
        for letter, ids in self.gates.items():
            self._gate(letter, ids)
        ig = None if i is None else self._product(i, g)
        if i is not None and ig is None:
            raise self.fail("no product of input gate and block input was found")
        if ig is not None:
            self._part("ig", [ig], "⊙")
        new = g if ig is None else ig
        fc = None
        if f is not None:
            fc = self._product(f)
            if fc is None:
                raise self.fail("the forget gate multiplies nothing")
            self._part("fc", [fc], "⊙")
            self.sources["c-"] = self._other(fc, f)
        plus = next(
            (
                k
                for k in sorted(self.members)
                if self.nodes[k].op == "add" and self._reads(k, new) and k not in self.home
            ),
            None,
        )
        if plus is None:
            raise self.fail("no sum of old and new cell was found")
        self._part("+", [plus], "+")
        if fc is None:
            self.sources["c-"] = self._other(plus, new)
        h, c = self.outs["h"], self.outs["c"]
        oh = None if o is None else self._product(o)
        behind = self._before([h if oh is None else oh], self.members)
        cells = [k for k in behind if k == plus or (_is_state(self.nodes[k], "c") and k in self._after([plus]))]
        cell = max(cells)
        self._stage("clip", self._between(plus, cell))
        self._stage("c*", self._upto(c, cell))
        if oh is not None and o is not None:
            self._part("oh", [oh], "⊙")
            y = self._other(oh, o)
            self._squash(cell, y)
            self._stage("out*", self._upto(h, oh))
        else:
            raw = [k for k in self._between(cell, h) if k not in self.home]
            # without an output gate the activation is the first of what comes after the cell, or nothing
            y = next((k for k in raw if " new" in (self.nodes[k].name or "")), h)
            post = [
                k
                for k in self._between(cell, y)
                if self.nodes[k].op in LINEAR and "layer norm" not in self.nodes[k].scope
            ]
            if post:
                y = self.into[post[0]][0].source
            if y != cell:
                self._squash(cell, y)
            self._stage("out*", self._upto(h, y))
        if "gates" in self.outs:
            end = self.outs["gates"]
            self._part("gates", [k for k in self._before([end], self.members) if k not in self.home], "[i f o]")
        self.cell = cell
        self._ends()

    def _squash(self, cell: int, y: int) -> None:
        chain = [] if y == cell else [k for k in self._between(cell, y) if k not in self.home]
        self._stage("norm", [k for k in chain if "layer norm" in self.nodes[k].scope])
        rest = [k for k in chain if k not in self.home]
        sign = " ".join(self.nodes[k].label for k in rest) if len(rest) < 3 else "f"
        self._part("squash", rest, sign)

    def _gru(self) -> None:
        gate = {k: max(ids) for k, ids in self.gates.items()}
        if not {"r", "z", "n"} <= gate.keys():
            raise self.fail("it lacks a reset, update or new gate")
        r, z, n = (gate[k] for k in "rzn")
        self._pre()
        rh = next((i for i in self.gates["n"] if self.nodes[i].op == "mul" and self._reads(i, r)), None)
        if rh is None:
            raise self.fail("the reset gate multiplies nothing")
        self._part("u", [i for i in self._before([rh], self.members) if i in self.gates["n"] and i != rh], "U h + b")
        self._part("rh", [rh], "⊙")
        for letter, ids in self.gates.items():
            self._gate(letter, ids)
        rest = [i for i in sorted(self.members) if i not in self.home]
        keep = next((i for i in rest if self.nodes[i].op == "sub" and self._reads(i, z)), None)
        zn, zh = self._product(n), self._product(z)
        if keep is None or zn is None or zh is None:
            raise self.fail("no mean of old and new state was found")
        self._part("1-", [keep], "1 −")
        self._part("zn", [zn], "⊙")
        self._part("zh", [zh], "⊙")
        plus = next(i for i in rest if self.nodes[i].op == "add" and self._reads(i, zn) and self._reads(i, zh))
        self._part("+", [plus], "+")
        self._stage("out*", self._upto(self.outs["h"], plus))
        self._ends()

    def _rnn(self) -> None:
        h = self.outs["h"]
        self.pre = [
            i for i in self.members if i < self.by_weight["weight_hh"][0] and self._reads(i, self.sources["h-"])
        ]
        self._pre()
        terms = [self.by_weight[w][0] for w in ("weight_ih", "weight_hh")]
        # the activation comes before anything that mixes the new state with the old one
        raw = next((i for i in sorted(self.members) if " new" in (self.nodes[i].name or "")), h)
        self._stage("out*", self._upto(h, raw))
        ids = [i for i in sorted(self.members) if i not in self.home]
        sums = [i for i in ids if self.nodes[i].op == "add" and all(self._reads(i, t) for t in terms)]
        if not sums:
            raise self.fail("no sum of the shares of input and state was found")
        after = [i for i in ids if i > sums[0]]
        normed = [i for i in after if "layer norm" in self.nodes[i].scope]
        squash = [self.nodes[i].label for i in after if i not in normed]
        sign = " ".join((["norm"] if normed else []) + (squash if len(squash) < 3 else ["f"])) or "Σ"
        self._part("a", ids, sign, weighted=max([sums[0], *normed]))
        self._ends()

    # links

    def _links(self) -> dict[tuple[str, str], Link]:
        edges: dict[tuple[str, str], list[ViewEdge]] = {}
        for e in self.view.edges:
            a, b = self.home.get(e.source), self.home.get(e.target)
            if a is not None and b is not None and a != b and b not in _TERMINALS:
                edges.setdefault((a, b), []).append(e)
        found = {}
        for (a, b), some in edges.items():
            cells = a == "c-" or (self.unit.kind == "lstm" and a in ("+", "clip") and b == "o")
            peephole = ""
            if cells and b in self.gates:
                peephole = "full" if self.nodes[some[0].target].op in LINEAR else "diagonal"
            found[a, b] = Link(a, b, tuple(some), peephole)
        return found
