"""The flow report: how much of a loss's gradient arrives at each step, what a step does to it, and what would help.

::

    E_t ──► h[t] ──► c[t] ──┬── straight on, ⊙ f[t] ──────────────► c[t-1]
                            ├── gate i, f, g ──► h[t-1] ──────────► c[t-1]
                            └── gate i, f ──► peephole ───────────► c[t-1]

Layers are found by the names of their states on the tape, ``h[k]`` and ``c[k]``, and by their scopes without the step.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import _core
from minigrad._core import Opened, Recording, Tape, TapeNode, TensorBase, sweep
from minigrad.backend import array_lane, host
from minigrad.errors import GraphError, UsageError
from minigrad.graph.words import WIDTH, Shown, Table, number, percent, plain

__all__ = ["Change", "Comparison", "FlowReport", "LayerFlow", "Routes", "Saturation", "Spectra", "Truncation"]
__all__ += ["compare", "flow"]

Array = np.ndarray[Any, Any]
Key = tuple[str, int]

STATES = ("h", "c", "gates")
GATES = "ifgorzn"
KINDS = ("not finite", "exploding", "vanishing", "healthy", "too short")  # the worst first
TOLERANCE = 1000.0
"""Allowed residual in units of the dtype's rounding, relative to the norms that are added up."""
LANCZOS = 32  # steps of the iteration for units that are too many for a whole Jacobian
PROBES = 16  # random cotangents that stand for all of them when routes are measured there
WIDEST, TALLEST = 64, 16  # cells of a heat map in the terminal

WORDS = {
    "healthy": "healthy: over {span} steps {left} of the gradient's norm is left.",
    "grows": "healthy: over {span} steps the gradient's norm grows {times} times.",
    "vanishing": "vanishing: the gradient's norm halves every {half} steps; 1 % is left after {horizon} steps.",
    "nothing": "vanishing: no gradient passes a step.",
    "exploding": "exploding: the gradient's norm doubles every {double} steps; over {span} steps it grows {times} "
    "times.",
    "too short": "too short: with fewer than two steps under a loss nothing is passed on.",
    "not finite": "not finite: the gradient holds NaN or infinities; provenance(tape) names what made the first.",
    "weights": "recurrent weights: spectral radius {radius}, largest singular value {norm}.",
    "slope": "activation of the state: slope {slope} on average, {saturated} of its values saturated.",
    "forget": "forget gate: {mean} on average, {low} of its values within 5 % of 0, {high} within 5 % of 1.",
    "update": "update gate: {mean} on average, {low} of its values within 5 % of 0, {high} within 5 % of 1.",
    "routes": "∂c[t]/∂c[t-1] goes {routes}.",
    "cause small weights": "The cause: the recurrent weights' spectral radius lies below 1.",
    "cause large weights": "The cause: the recurrent weights stretch the state; their largest singular value lies "
    "above 1.",
    "cause slope": "The cause: the activation is saturated, and its slope near 0.",
    "cause forget": "The cause: the forget gate is near 0, and the cell hands on little of itself.",
    "cause update": "The cause: the update gate is near 0, and the state hands on little of itself.",
    "cause routes": "The cause: the routes {route}.",
    "cause unknown": "The cause: no single factor on the tape explains the rate.",
    "change bias": "What would change it: add {amount} to the {gate} gate's bias{forget}.",
    "change no bias": "What would change it: give the {gate} gate a bias, and start it at {amount}.",
    "change scale": "What would change it: multiply the recurrent weights by {amount}, or initialise them "
    "orthogonally.",
    "change calm": "What would change it: multiply the weights and biases into the activation by {amount}, so that "
    "its arguments are near 1.",
    "change clip": "While training: clip the gradient's norm at {theta}, what it has without routes through time.",
}  # fmt: skip
"""Every sentence that a report can say."""

ROUTES = {
    "direct": "straight on",
    "h": "through h[t-1]",
    "gates": "through the gates of t-1",
    "peephole": "through the peephole",
}


# --- the states of a tape -----------------------------------------------------------------------------------

_NAME = re.compile(r"^(\w+)\[(-?\d+)\]$")
_STEP = re.compile(r"(?:^|/)t=-?\d+(?:/.*)?$")


def _named(tape: Tape) -> dict[Key, dict[tuple[str, int], TapeNode]]:
    """Return for each layer (its scope, and which pass over it) the nodes that are named by step."""
    found: dict[Key, dict[tuple[str, int], TapeNode]] = {}
    seen: dict[tuple[str, str, int], int] = {}
    for node in tape.nodes:
        match = _NAME.match(node.name or "")
        if match is None or not node.requires_grad or node.record is None:
            continue
        word, k = match[1], int(match[2])
        place = _STEP.sub("", node.scope)
        turn = seen[place, word, k] = seen.get((place, word, k), -1) + 1
        found.setdefault((place, turn), {})[word, k] = node
    return found


@contextlib.contextmanager
def _replacing(nodes: Sequence[TapeNode], by: Callable[[TapeNode, Any], Any]) -> Iterator[None]:
    """Replace what arrives at nodes while sweeps run: routes that pass them are cut, or start there."""
    handles = [node.tensor.register_hook(lambda g, node=node: by(node, g)) for node in nodes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeros(g: Any) -> Any:
    data = _core.data_of(g)
    return _core.tensor(array_lane(data).xp.zeros_like(data))


def _host(x: Any) -> Array:
    data = _core.data_of(x)
    return np.asarray(host(data), dtype=np.float64)


def _like(values: Array, node: TapeNode) -> Any:
    data = node.value
    return _core.tensor(array_lane(data).asarray(np.asarray(values, dtype=str(node.dtype), order="C")))


def _pull(roots: Sequence[TapeNode], seeds: Sequence[Any], targets: Sequence[TapeNode]) -> list[Any]:
    found = sweep([n.tensor for n in roots], list(seeds), [n.tensor for n in targets], keep_graph=True)
    return list(found)


def _rows(x: Any, node: TapeNode) -> Array:
    """Return a gradient as (samples, units), zeros where nothing arrived."""
    values = np.zeros(node.shape) if x is None else _host(x)
    return values.reshape(-1, values.shape[-1])


# --- one step -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectra:
    """Singular values of one step's derivative, ∂s_t/∂s_{t-1}, per step from the second one on.

    Attributes:
        steps: the step t.
        largest: the largest over the samples of the batch.
        smallest: the smallest over the samples; an upper bound of it where `exact` is False.
        exact: whether they come from whole Jacobians, or from the Lanczos iteration.
    """

    steps: tuple[int, ...]
    largest: Array
    smallest: Array
    exact: bool


@dataclass(frozen=True)
class Routes:
    """∂c_t/∂c_{t-1} as a sum over groups of routes, per step from the second one on.

    Attributes:
        steps: the step t.
        names: "direct" (times f_t), "h i" (through gate i, then h_{t-1}), "peephole f", …
        norms: Frobenius norms, (steps, routes).
        shares: ⟨route, whole⟩ / ⟨whole, whole⟩, (steps, routes); they add up to 1, and one that works against the
            whole is negative.
        residual: the largest difference between the whole and the sum of the routes.
    """

    steps: tuple[int, ...]
    names: tuple[str, ...]
    norms: Array
    shares: Array
    residual: float


@dataclass(frozen=True)
class Saturation:
    """Shares of a batch where an activation is flat, (steps, units) each.

    Attributes:
        low: within 5 % of 0 for a gate; below -0.95 for a tanh.
        high: within 5 % of 1; above 0.95.
        mean: the mean value.
    """

    low: Array
    high: Array
    mean: Array


def _seeds(shape: tuple[int, ...], whole: bool) -> Iterator[Array]:
    """Yield cotangents of a state: unit vectors for every sample at once, or random signs of the same mean square."""
    units = shape[-1]
    if whole:
        for j in range(units):
            seed = np.zeros(shape)
            seed[..., j] = 1
            yield seed
        return
    generator = np.random.default_rng(0)
    for _ in range(PROBES):
        yield generator.choice([-1.0, 1.0], size=shape) / math.sqrt(PROBES)


def _jacobian(after: TapeNode, before: TapeNode) -> Array:
    """Return ∂after/∂before, one for every sample: (samples, units after, units before)."""
    rows = [_rows(_pull([after], [_like(s, after)], [before])[0], before) for s in _seeds(after.shape, True)]
    return np.stack(rows, axis=1)


def _check_samples(after: TapeNode, before: TapeNode) -> None:
    """Refuse batches whose samples depend on each other: their rows would not be Jacobians."""
    seed = np.zeros(after.shape)
    flat = seed.reshape(-1, after.shape[-1])
    if len(flat) < 2:
        return
    flat[0] = np.arange(1, flat.shape[1] + 1)
    rows = _rows(_pull([after], [_like(seed, after)], [before])[0], before)
    if np.any(rows[1:][np.isfinite(rows[1:])]):
        raise UsageError(
            f"flow: the samples of the batch depend on each other between {before.name} and {after.name}; "
            "run one sample at a time"
        )


def _extremes(after: TapeNode, before: TapeNode, whole: bool) -> tuple[float, float]:
    if whole:
        jacobian = _jacobian(after, before)
        if not np.isfinite(jacobian).all():
            return math.nan, math.nan
        values = np.linalg.svd(jacobian, compute_uv=False)
        return float(values.max()), float(values.min())
    return _lanczos(after, before)


def _lanczos(after: TapeNode, before: TapeNode) -> tuple[float, float]:
    """Golub-Kahan bidiagonalisation with full reorthogonalisation, all samples side by side (Golub and Kahan 1965)."""
    generator = np.random.default_rng(0)
    v = generator.standard_normal(before.shape).reshape(-1, before.shape[-1])
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    vs: list[Array] = [v]
    us: list[Array] = []
    steps = min(LANCZOS, before.shape[-1], after.shape[-1])
    alphas, betas = [], []
    for k in range(steps):
        pushed = _core.push([before.tensor], [_like(vs[-1].reshape(before.shape), before)], [after.tensor])[0]
        u = _rows(pushed, after)
        u, alpha = _orthogonal(u, us)
        us.append(u)
        alphas.append(alpha)
        if k == steps - 1:
            break
        pulled = _pull([after], [_like(u.reshape(after.shape), after)], [before])[0]
        v, beta = _orthogonal(_rows(pulled, before), vs)
        vs.append(v)
        betas.append(beta)
    samples = len(vs[0])
    small = np.zeros((samples, steps, steps))
    small[:, range(steps), range(steps)] = np.stack(alphas, -1)
    if betas:
        small[:, range(steps - 1), range(1, steps)] = np.stack(betas, -1)
    values = np.linalg.svd(small, compute_uv=False) if np.isfinite(small).all() else np.full((1, 1), math.nan)
    return float(values.max()), float(values.min())


def _orthogonal(x: Array, others: list[Array]) -> tuple[Array, Array]:
    for _ in range(2):  # once is not enough where most of x cancels
        for other in others:
            x = x - np.sum(x * other, axis=-1, keepdims=True) * other
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0), length[..., 0]


def _between(after: TapeNode, before: TapeNode) -> dict[int, TapeNode]:
    """Return the nodes on routes from `before` to `after`, both left out, by place on the tape."""
    above: dict[int, TapeNode] = {}
    todo = [after]
    while todo:
        for x in todo.pop().inputs:
            if x.id > before.id and x.id not in above:
                above[x.id] = x
                todo.append(x)
    on: dict[int, TapeNode] = {}
    for place in sorted(above):
        if any(x is before or x.id in on for x in above[place].inputs):
            on[place] = above[place]
    return on


def _split(
    after: TapeNode, before: TapeNode, gates: dict[str, TapeNode], doors: dict[str, TapeNode], whole: bool
) -> tuple[Array, dict[str, Array]]:
    """Return ∂c_t/∂c_{t-1} (samples, rows, units) and the same by routes, each found by itself.

    A gate counts if no other gate lies before it, so that every route passes at most one of them.
    """
    on = _between(after, before)
    doors = {word: node for word, node in doors.items() if node.id in on}
    first: dict[str, TapeNode] = {}
    for word, gate in sorted(gates.items(), key=lambda item: item[1].id):
        if gate.id in on and not any(other.id in _between(gate, before) for other in first.values()):
            first[word] = gate
    behind = {word: _jacobian(door, before) for word, door in doors.items()}
    caught: dict[int, Any] = {}

    def catch(node: TapeNode, g: Any) -> Any:
        caught[node.id] = g
        return _zeros(g)

    total: list[Array] = []
    parts: dict[str, dict[int, Array]] = {}

    def add(name: str, rows: Array) -> None:
        if rows.any():
            parts.setdefault(name, {})[len(total) - 1] = rows

    def through_doors(word: str) -> None:
        for door, node in doors.items():
            if node.id in caught:
                rows = _rows(caught.pop(node.id), node)
                add(f"{door} {word}".strip(), np.einsum("nj,njk->nk", rows, behind[door]))

    for values in _seeds(after.shape, whole):
        seed = _like(values, after)
        total.append(_rows(_pull([after], [seed], [before])[0], before))
        with _replacing([*first.values(), *doors.values()], catch):
            add("direct", _rows(_pull([after], [seed], [before])[0], before))
        at_gates = {word: caught.pop(gate.id) for word, gate in first.items() if gate.id in caught}
        through_doors("")
        for word, arriving in at_gates.items():
            with _replacing(list(doors.values()), catch):
                add(f"peephole {word}", _rows(_pull([first[word]], [arriving], [before])[0], before))
            through_doors(word)
    nothing = np.zeros_like(total[0])
    whole_of = {w: np.stack([rows.get(k, nothing) for k in range(len(total))], axis=1) for w, rows in parts.items()}
    return np.stack(total, axis=1), whole_of


# --- a layer ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What would change a flow: edits of parts of parameters.

    Attributes:
        words: the sentence that says it.
        edits: (parameter, part of it as an index, "add" or "multiply", amount).
    """

    words: str
    edits: tuple[tuple[TensorBase, Any, str, float], ...]


@dataclass(eq=False)
class LayerFlow:
    """The flow through one recurrent layer in one direction.

    Attributes:
        name: the layer's scope.
        steps: its steps, ascending.
        backwards: whether it reads its input from the end.
        h_norms, c_norms: ‖dE_t/dh_k‖, a row for each loss, a column for each step; None without that state.
        h_jacobians, c_jacobians: singular values of ∂h_t/∂h_{t-1} (c_{t-1} held) and of ∂c_t/∂c_{t-1} (in total, also
            through h_{t-1}).
        c_routes: ∂c_t/∂c_{t-1} by routes.
        saturation: for each gate and activation by its letter.
        rate: by which factor the norm changes per step back in time, fitted to the logarithms of the norms of c, or
            of h in a layer without cells.
        half_life: after how many steps back half is left; infinite if the norm does not fall.
        horizon: after how many steps back 1 % is left.
        kind: "healthy", "vanishing", "exploding", "not finite" or "too short".
        sentences: (key of WORDS, text): verdict, evidence, cause, changes.
        changes: what :meth:`FlowReport.tried` can try.
    """

    name: str
    steps: tuple[int, ...]
    backwards: bool
    nodes: dict[tuple[str, int], TapeNode] = field(repr=False)
    h_norms: Array | None = None
    c_norms: Array | None = None
    h_jacobians: Spectra | None = None
    c_jacobians: Spectra | None = None
    c_routes: Routes | None = None
    saturation: dict[str, Saturation] = field(default_factory=dict)
    rate: float = math.nan
    half_life: float = math.inf
    horizon: float = math.inf
    kind: str = "too short"
    sentences: list[tuple[str, str]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """What flows, why, and what would change it."""
        return " ".join(text for _, text in self.sentences)

    def pairs(self, word: str) -> list[tuple[int, TapeNode, TapeNode]]:
        """Return (t, state of t, state of the step before), ascending by t."""
        order = self.steps[::-1] if self.backwards else self.steps
        found = [
            (t, self.nodes[word, t], self.nodes[word, before])
            for before, t in itertools.pairwise(order)
            if (word, t) in self.nodes and (word, before) in self.nodes
        ]
        return sorted(found, key=lambda pair: pair[0])

    def jacobian(self, word: str, t: int) -> Array:
        """Return ∂s_t/∂s_{t-1} of state "h" or "c", one for each sample: (samples, units, units)."""
        _, after, before = self._pair(word, t)
        with Recording(False):
            return _jacobian(after, before)

    def routes(self, t: int) -> dict[str, Array]:
        """Return ∂c_t/∂c_{t-1} by routes, each (samples, units, units)."""
        _, after, before = self._pair("c", t)
        with Recording(False):
            return _split(after, before, self._gates(t), self._doors(t), True)[1]

    def _pair(self, word: str, t: int) -> tuple[int, TapeNode, TapeNode]:
        for pair in self.pairs(word):
            if pair[0] == t:
                return pair
        known = [pair[0] for pair in self.pairs(word)]
        raise UsageError(f"flow: there is no {word}[{t}] with a step before it; there are {known}")

    def _gates(self, t: int) -> dict[str, TapeNode]:
        return {word: self.nodes[word, t] for word in GATES if (word, t) in self.nodes}

    def _doors(self, t: int) -> dict[str, TapeNode]:
        index = self.steps.index(t) + (1 if self.backwards else -1)
        before = self.steps[index]
        return {word: self.nodes[word, before] for word in ("h", "gates") if (word, before) in self.nodes}

    def _measure(self, whole: int) -> None:
        for word in ("h", "c"):
            pairs = self.pairs(word)
            if not pairs:
                continue
            exact = pairs[0][1].shape[-1] <= whole
            _check_samples(*pairs[0][1:])
            found = [_extremes(after, before, exact) for _, after, before in pairs]
            largest, smallest = (np.array([pair[k] for pair in found]) for k in (0, 1))
            setattr(self, f"{word}_jacobians", Spectra(tuple(t for t, _, _ in pairs), largest, smallest, exact))
        if self.pairs("c"):
            self.c_routes = self._measured_routes(whole)
        for word in dict.fromkeys(word for word, _ in self.nodes):
            found_here = self._saturation(word)
            if found_here is not None:
                self.saturation[word] = found_here

    def _measured_routes(self, whole: int) -> Routes:
        norms, shares, worst = [], [], 0.0
        names: dict[str, None] = {}
        for t, after, before in self.pairs("c"):
            total, parts = _split(after, before, self._gates(t), self._doors(t), after.shape[-1] <= whole)
            scale = sum(float(np.linalg.norm(part)) for part in parts.values())
            residual = float(np.linalg.norm(total - sum(parts.values())))
            if residual > TOLERANCE * float(np.finfo(after.dtype).eps) * max(scale, float(np.linalg.norm(total))):
                raise GraphError(
                    f"flow: the routes of ∂{after.name}/∂{before.name} miss their sum by {residual:.3g} of {scale:.3g}"
                )
            worst = max(worst, residual)
            square = float(np.sum(total * total))
            names.update(dict.fromkeys(parts))
            norms.append({word: float(np.linalg.norm(part)) for word, part in parts.items()})
            shares.append({w: float(np.sum(p * total)) / square if square else math.nan for w, p in parts.items()})

        def table(rows: list[dict[str, float]]) -> Array:
            return np.array([[row.get(word, 0.0) for word in names] for row in rows])

        return Routes(tuple(t for t, _, _ in self.pairs("c")), tuple(names), table(norms), table(shares), worst)

    def _saturation(self, word: str) -> Saturation | None:
        nodes = [self.nodes[word, t] for t in self.steps if (word, t) in self.nodes]
        if len(nodes) != len(self.steps) or word not in ("h", *GATES):
            return None
        values = np.stack([_rows(node.tensor, node) for node in nodes])
        if all(node.op == "tanh" for node in nodes):
            low, high = values < -0.95, values > 0.95
        elif word != "h" and values.min() >= 0 and values.max() <= 1:
            low, high = values < 0.05, values > 0.95
        else:
            return None
        return Saturation(low.mean(1), high.mean(1), values.mean(1))

    # -- the verdict ---------------------------------------------------------------------------------------

    def _judge(self, own: list[int], vanish: float, explode: float, theta: Callable[[], float]) -> None:
        norms = self.c_norms if self.c_norms is not None else self.h_norms
        assert norms is not None
        sign = -1 if self.backwards else 1
        rows, far = [], 0
        cut = False
        for row, place in zip(norms, own, strict=True):
            distance = sign * (place - np.arange(len(row)))
            reached = distance >= 0
            d, n = distance[reached], row[reached]
            if not np.isfinite(row).all():
                self.kind = "not finite"
                self._say("not finite")
                return
            if len(d) < 2 or not n.any():
                continue
            far = max(far, int(d.max()))
            some = n > 0
            cut |= not some.all()
            if some.sum() >= 2:
                rows.append((d[some] - d[some].mean(), np.log(n[some]) - np.log(n[some]).mean()))
        if far == 0:
            self._say("too short")
            return
        if rows:
            slope = sum(float(x @ y) for x, y in rows) / sum(float(x @ x) for x, _ in rows)
            self.rate = math.exp(slope)
        else:
            self.rate, slope = 0.0, -math.inf
        if slope < 0:
            self.half_life, self.horizon = math.log(0.5) / slope, math.log(0.01) / slope
        change = slope * far
        if change < math.log(vanish):
            self.kind = "vanishing"
            if rows:
                self._say("vanishing", half=number(self.half_life), horizon=number(self.horizon))
            else:
                self._say("nothing")
        elif change > math.log(explode):
            self.kind = "exploding"
            self._say("exploding", double=number(math.log(2) / slope), span=far, times=_times(change))
        else:
            self.kind = "healthy"
            if change <= 0:
                self._say("healthy", span=far, left=percent(math.exp(change)))
            else:
                self._say("grows", span=far, times=_times(change))
        self._explain(far, theta)

    def _say(self, key: str, **values: Any) -> str:
        text = WORDS[key].format(**values)
        self.sentences.append((key, text))
        return text

    def _explain(self, span: int, theta: Callable[[], float]) -> None:
        weights = self._weights()
        radius = norm = math.nan
        if weights:
            square = [w for _, _, w in weights if w.shape[0] == w.shape[1]]
            radius = max((float(np.abs(np.linalg.eigvals(w)).max()) for w in square), default=math.nan)
            norm = max(float(np.linalg.norm(w, 2)) for _, _, w in weights)
            self._say("weights", radius=number(radius), norm=number(norm))
        slope = None if "c" in {word for word, _ in self.nodes} else self._slope()
        if slope is not None:
            flat = self.saturation.get("h")
            share = 0.0 if flat is None else float((flat.low + flat.high).mean())
            self._say("slope", slope=number(slope), saturated=percent(share))
        gate = "f" if self.c_norms is not None else "z"
        fate = self.saturation.get(gate)
        mean = math.nan
        if fate is not None:
            mean = float(fate.mean.mean())
            key = "forget" if gate == "f" else "update"
            self._say(
                key, mean=number(mean), low=percent(float(fate.low.mean())), high=percent(float(fate.high.mean()))
            )
        strongest = self._say_routes()
        if self.kind == "vanishing":
            if fate is not None and mean < 0.9:
                self._say(f"cause {'forget' if gate == 'f' else 'update'}")
                self._raise(gate, span)
            elif slope is not None and slope < 0.5 and not slope > radius:
                self._say("cause slope")
                self._calm(weights, radius)
            elif radius < 1:
                self._say("cause small weights")
                self._scale(weights, 1 / radius if radius else 1.0)
            else:
                self._say("cause unknown")
        elif self.kind == "exploding":
            if strongest and strongest != "direct":
                self._say("cause routes", route=_route(strongest))
                self._scale(weights, 1 / max(norm, 1.0))
            elif weights and norm > 1:
                self._say("cause large weights")
                self._scale(weights, 1 / (radius if radius > 1 else norm))
            else:
                self._say("cause unknown")
            self._say("change clip", theta=number(theta()))

    def _say_routes(self) -> str | None:
        if self.c_routes is None or not self.c_routes.names:
            return None
        shares = np.nan_to_num(self.c_routes.shares).mean(axis=0)
        order = np.argsort(-np.abs(shares), kind="stable")
        told = [f"{percent(float(shares[k]))} {_route(self.c_routes.names[k])}" for k in order]
        self._say("routes", routes=", ".join(told))
        return self.c_routes.names[int(order[0])]

    def _weights(self) -> list[tuple[TensorBase, Any, Array]]:
        """Return the matrices that multiply h_{t-1}: parameter, part of it, and values (outputs, inputs)."""
        found: dict[int, tuple[TensorBase, Any, Array]] = {}
        for _, after, before in self.pairs("h")[-1:]:
            for node in _between(after, before).values():
                if node.op in ("affine", "matmul") and node.inputs[0] is before:
                    source = _source(node.inputs[1])
                    values = _host(node.inputs[1].tensor)
                    if source is not None and values.ndim == 2:
                        found[node.inputs[1].id] = (*source, values if node.op == "affine" else values.T)
        return list(found.values())

    def _slope(self) -> float | None:
        """Return the root mean square of the slope of the state's activation."""
        nodes = [self.nodes["h", t] for t in self.steps if ("h", t) in self.nodes]
        if any(len(n.inputs) != 1 or getattr(n.record, "kind", "") != "elementwise" for n in nodes):
            return None
        slopes = [_host(_pull([n], [_like(np.ones(n.shape), n)], [n.inputs[0]])[0]) for n in nodes]
        return math.sqrt(float(np.mean(np.square(slopes))))

    def _raise(self, gate: str, span: int) -> None:
        nodes = [self.nodes[gate, t] for t in self.steps if (gate, t) in self.nodes]
        values = np.clip(np.stack([_host(n.tensor) for n in nodes]), 1e-12, 1 - 1e-12)
        wanted = 0.5 ** (1 / span)
        now = float(np.mean(np.log(values / (1 - values))))
        amount = float(f"{math.log(wanted / (1 - wanted)) - now:.3g}")
        word = "forget" if gate == "f" else "update"
        biases = [place for x in nodes[0].inputs[:1] for place in _leaves(x) if len(_core.data_of(place[0]).shape) == 1]
        if not biases:
            self._say("change no bias", gate=word, amount=number(amount))
            return
        hint = f" (nn.LSTM: forget_bias={number(float(f'{now + amount:.2g}'))})" if gate == "f" else ""
        words = self._say("change bias", gate=word, amount=number(amount), forget=hint)
        self.changes.append(Change(words, ((*biases[-1], "add", amount),)))

    def _scale(self, weights: list[tuple[TensorBase, Any, Array]], amount: float) -> None:
        if weights:
            words = self._say("change scale", amount=number(amount))
            self.changes.append(Change(words, tuple((p, index, "multiply", amount) for p, index, _ in weights)))

    def _calm(self, weights: list[tuple[TensorBase, Any, Array]], radius: float) -> None:
        node = self.nodes["h", self.steps[-1]].inputs[0]
        values = np.concatenate([_host(self.nodes["h", t].inputs[0].tensor).ravel() for t in self.steps])
        amount = 1 / max(float(np.sqrt(np.mean(values * values))), 1.0)
        words = self._say("change calm", amount=number(amount))
        recurrent = {id(p.node) for p, _, _ in weights}
        edits = [(p, i, "multiply", amount) for p, i in _leaves(node) if id(p.node) not in recurrent]
        if radius > 1:
            edits += [(p, i, "multiply", 1 / radius) for p, i, _ in weights]
        self.changes.append(Change(words, tuple(edits)))

    # -- as data and as text -------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""

        def spectra(s: Spectra | None) -> Any:
            if s is None:
                return None
            return {"steps": s.steps, "largest": plain(s.largest), "smallest": plain(s.smallest), "exact": s.exact}

        routes = self.c_routes
        data = {
            "name": self.name,
            "steps": self.steps,
            "backwards": self.backwards,
            "kind": self.kind,
            "verdict": [text for _, text in self.sentences],
            "rate": plain(self.rate),
            "half_life": plain(self.half_life),
            "horizon": plain(self.horizon),
            "h_norms": None if self.h_norms is None else plain(self.h_norms),
            "c_norms": None if self.c_norms is None else plain(self.c_norms),
            "h_jacobians": spectra(self.h_jacobians),
            "c_jacobians": spectra(self.c_jacobians),
            "c_routes": None
            if routes is None
            else {
                "steps": routes.steps,
                "names": routes.names,
                "norms": plain(routes.norms),
                "shares": plain(routes.shares),
                "residual": plain(routes.residual),
            },
            "saturation": {
                word: {part: plain(getattr(s, part)) for part in ("low", "high", "mean")}
                for word, s in self.saturation.items()
            },
        }
        out: dict[str, Any] = json.loads(json.dumps(data))  # tuples become lists, as they do in a file
        return out

    def lines(self) -> list[str]:
        """Return the layer's part of the report, in lines of at most 80 characters."""
        lines = [self.name or "the recurrent layer"]
        for _, text in self.sentences:
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
        for word in ("h", "c"):
            norms = getattr(self, f"{word}_norms")
            if norms is not None:
                lines += [f"  ‖dE_t/d{word}_k‖, losses down, steps across:", *_heat(norms)]
        for word in ("h", "c"):
            spectra = getattr(self, f"{word}_jacobians")
            if spectra is not None:
                for part in ("largest", "smallest"):
                    values = getattr(spectra, part)
                    low, high = number(float(values.min())), number(float(values.max()))
                    lines.append(f"  ∂{word}_t/∂{word}_t-1, {part:8} singular value {low} to {high}")
                    lines.append(f"    {_spark(values)}")
        return lines


def _times(change: float) -> str:
    return number(math.exp(change)) if change < 700 else f"e^{number(change)}"


def _route(name: str) -> str:
    door, _, gate = name.partition(" ")
    return ROUTES[door] + (f" and gate {gate}" if gate else "")


def _source(node: TapeNode) -> tuple[TensorBase, Any] | None:
    """Return the parameter that a value is a part of, and which part."""
    index: Any = ...
    while node.record is not None:
        if node.op == "getitem" and index is ...:
            index = node.params["index"]
        elif node.op not in ("mT", "transpose", "reshape", "clone"):
            return None
        node = node.inputs[0]
    return (node.tensor, index) if node.kind == "parameter" else None


def _leaves(node: TapeNode) -> list[tuple[TensorBase, Any]]:
    """Return the parameters that are added up or multiplied into a sum."""
    found: dict[tuple[int, str], tuple[TensorBase, Any]] = {}
    todo = [node]
    while todo:
        x = todo.pop()
        source = _source(x)
        if source is not None:
            found[id(source[0].node), repr(source[1])] = source
        elif x.op in ("add", "sub", "clip", "sigmoid", "tanh"):
            todo += x.inputs
        elif x.op in ("affine", "matmul"):
            todo += x.inputs[1:]
    return [found[key] for key in found]


def _spark(values: Array) -> str:
    marks = "▁▂▃▄▅▆▇█"
    values = _fewer(np.asarray(values, float)[None], 1, WIDEST)[0]
    if not np.isfinite(values).all():
        return "?" * len(values)
    spread = values.max() - values.min()
    return "".join(marks[int(7 * (v - values.min()) / spread) if spread > 0 else 3] for v in values)


def _fewer(values: Array, tall: int, wide: int) -> Array:
    """Return the largest values of blocks, so that at most tall × wide are left."""
    for axis, most in ((0, tall), (1, wide)):
        size = values.shape[axis]
        if size > most:
            starts = (np.arange(most) * size) // most
            values = np.maximum.reduceat(values, starts, axis=axis)
    return values


def _heat(norms: Array) -> list[str]:
    shades = " ░▒▓█"
    values = _fewer(norms, TALLEST, WIDEST)
    most = float(np.nanmax(values, initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.clip(4 + np.log10(values / most), 0, 4)  # a shade for each power of ten

    def mark(value: float, shade: float) -> str:
        if not math.isfinite(value):
            return "?"
        return shades[math.ceil(shade)] if value > 0 else "·"

    lines = ["    " + "".join(map(mark, *row)) for row in zip(values, level, strict=True)]
    return [*lines, f"    █ up to {number(most)}, each lighter shade ten times less, · nothing"]


# --- the report ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truncation(Shown):
    """Truncated against exact gradient of all parameters on the tape.

    Attributes:
        k1, k2: every k1 steps the losses of k1 steps go back k2 steps.
        cosine: of the two gradients.
        ratio: norm of the truncated one over that of the exact one.
        error: norm of their difference over that of the exact one.
        lost: for each distance in steps between a loss and a use of the parameters: (cells of the time ledger that
            are lost, all cells, norm of the sum of the lost ones).
        smallest: the smallest k2, at k1 = 1, with an error of at most 1 %.
        residual: how far the sum over all distances misses the exact gradient, relative to it.
    """

    k1: int
    k2: int
    cosine: float
    ratio: float
    error: float
    lost: tuple[tuple[int, int, float], ...]
    smallest: int
    residual: float

    def __str__(self) -> str:
        cells, all_cells = (sum(row[k] for row in self.lost) for k in (0, 1))
        lines = [
            f"truncated, k1 = {self.k1}, k2 = {self.k2}: cosine {number(self.cosine)}, norm {percent(self.ratio)} of "
            f"the exact one, {cells} of {all_cells} cells lost; k2 = {self.smallest} keeps 99 %."
        ]
        rows = tuple((str(d), f"{n} of {of}", number(norm)) for d, (n, of, norm) in enumerate(self.lost) if n)
        out = textwrap.wrap(lines[0], WIDTH)
        if rows:
            out.append(Table(("steps", "cells lost", "norm"), rows, frozenset({0, 1, 2})).text())
        return "\n".join(out)


@dataclass(eq=False)
class FlowReport(Shown):
    """The flow through every recurrent layer under some losses.

    Attributes such as `h_norms`, `c_jacobians`, `half_life` or `verdict` are those of :attr:`worst`.

    Attributes:
        layers: one :class:`LayerFlow` for each layer and direction.
    """

    layers: tuple[LayerFlow, ...]
    losses: tuple[TensorBase, ...] = field(repr=False)
    tape: Tape = field(repr=False)
    options: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def worst(self) -> LayerFlow:
        """The layer with the worst verdict."""
        return min(self.layers, key=lambda layer: KINDS.index(layer.kind))

    @property
    def kind(self) -> str:
        """The worst verdict in a word or two."""
        return self.worst.kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name not in LayerFlow.__dataclass_fields__ and name != "verdict"):
            raise AttributeError(f"a flow report has no attribute {name!r}")
        return getattr(self.worst, name)

    def __str__(self) -> str:
        return "\n\n".join("\n".join(layer.lines()) for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data; infinities and NaN are strings."""
        return {"kind": self.kind, "layers": [layer.to_dict() for layer in self.layers]}

    def to_latex(self) -> str:
        """Return how each layer's gradient falls or grows with the steps it goes back, as LaTeX (amsmath)."""
        lines = [
            rf"\text{{{layer.name}: {layer.kind}}} && \left\lVert\frac{{\partial E_t}}{{\partial h_{{t-n}}}}"
            rf"\right\rVert &\propto {number(layer.rate)}^{{n}}"
            for layer in self.layers
        ]
        return r"\begin{aligned} " + r" \\ ".join(lines) + r" \end{aligned}"

    def to_json(self, indent: int | None = None) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def tried(
        self,
        run: Callable[[], Any],
        change: Callable[[dict[str, Array]], None] | Change | None = None,
    ) -> FlowReport:
        """Return the same report after a change of the parameters, which get their own values back.

        Args:
            run: computes the losses again, with the parameters of this tape.
            change: a function that changes copies of the parameters in place, given by name (and by ``#place`` on the
                tape where they have none or share it); one of :attr:`LayerFlow.changes`; None for all changes
                that the worst layer proposes.

        Raises:
            UsageError: nothing is proposed, or `run` does not use the parameters of this tape.
        """
        leaves = [node for node in self.tape.nodes if node.kind == "parameter"]
        copies = {id(n.node): np.array(_host(n.tensor), dtype=str(n.dtype)) for n in leaves}
        if callable(change):
            names = [n.name for n in leaves]
            change({
                n.name if n.name and names.count(n.name) == 1 else f"#{n.id}": copies[id(n.node)] for n in leaves
            })  # fmt: skip
        else:
            changes = self.worst.changes if change is None else [change]
            if not changes:
                raise UsageError("flow: there is no change of the parameters to try; pass one")
            for parameter, index, how, amount in (edit for one in changes for edit in one.edits):
                part = copies[id(parameter.node)][index]
                copies[id(parameter.node)][index] = part + amount if how == "add" else part * amount
        before = [(n.tensor, _core.data_of(n.tensor)) for n in leaves]
        try:
            for tensor, old in before:
                _core.set_data(tensor, array_lane(old).asarray(copies[id(tensor.node)]))
            with Tape() as tape:
                losses = run()
            used = {id(n.node) for n in tape.nodes if n.kind == "parameter"}
            if not used & {id(tensor.node) for tensor, _ in before}:
                raise UsageError("flow: the run makes parameters of its own; change those, and call flow again")
            return flow(losses, tape, **self.options)
        finally:
            for tensor, old in before:
                _core.set_data(tensor, old)

    # -- truncation ----------------------------------------------------------------------------------------

    def truncation(self, k1: int, k2: int) -> Truncation:
        """Compare the exact gradient of all parameters with that of truncated back-propagation through time.

        Every k1 steps the losses of k1 steps go back through the k2 steps that end with them, as in
        ``nn.truncated_bptt``. Takes the losses of the steps apart, or one loss of the last state. Holds dE_t/dh_k for
        all t and k while it works.

        Raises:
            UsageError: k1 or k2 below 1, a layer that reads backwards, a single loss that reads several steps.
            GraphError: a state crosses steps that is not named h, c or gates.
        """
        for name, k in (("k1", k1), ("k2", k2)):
            if not isinstance(k, int) or isinstance(k, bool) or k < 1:
                raise UsageError(f"truncation: {name} is a positive number of steps, not {k!r}")
        if any(layer.backwards for layer in self.layers):
            raise UsageError("truncation: a layer that reads from the end of the sequence cannot be cut into windows")
        with Recording(False):
            return self._truncation(k1, k2)

    def _truncation(self, k1: int, k2: int) -> Truncation:
        steps = sorted({t for layer in self.layers for t in layer.steps})
        place = {t: k for k, t in enumerate(steps)}
        at: dict[int, int] = {}
        states: list[TapeNode] = []
        for layer in self.layers:
            for (word, t), node in layer.nodes.items():
                if word in STATES and t in place:
                    at[node.id] = place[t]
                    states.append(node)
        _check_crossings(states, at, place)
        losses = [self.tape.of(loss) for loss in self.losses]
        own = [steps[k] for k in _places(losses, steps)]
        own = [place[t] for t in own]
        seeds = [_like(np.ones(n.shape), n) for n in losses]
        leaves = [n for n in self.tape.nodes if n.kind == "parameter"]

        def gradient(roots: Sequence[TapeNode], given: Sequence[Any]) -> Array:
            found = _pull(roots, given, leaves) if roots else [None] * len(leaves)
            return np.concatenate([
                np.zeros(math.prod(n.shape)) if g is None else _host(g).ravel()
                for n, g in zip(leaves, found, strict=True)
            ])  # fmt: skip

        touched: dict[int, Any] = {}

        def catch(node: TapeNode, g: Any) -> Any:
            touched[node.id] = g
            return _zeros(g)

        with _replacing(states, catch):
            head = gradient(losses, seeds)
            for loss, seed, mine in zip(losses, seeds, own, strict=True):
                touched.clear()
                _pull([loss], [seed], leaves)
                others = {steps[at[i]] for i, g in touched.items() if at[i] != mine and np.any(_host(g))}
                if others:
                    raise UsageError(
                        f"truncation: the loss of step {steps[mine]} reads the states of {len(others)} other steps "
                        "directly; pass a list with one loss for each step"
                    )
        exact = gradient(losses, seeds)
        rows = [_pull([loss], [seed], states) for loss, seed in zip(losses, seeds, strict=True)]

        def at_distance(d: int, chosen: Sequence[bool]) -> Array:
            given: dict[int, Any] = {}
            for row, mine, wanted in zip(rows, own, chosen, strict=True):
                for node, g in zip(states, row, strict=True):
                    if wanted and g is not None and at[node.id] == mine - d:
                        given[node.id] = _host(g) + given.get(node.id, 0)
            roots = [n for n in states if n.id in given]
            fixed = {n.id: _like(given[n.id], n) for n in roots}
            with _replacing(states, lambda node, g: fixed.get(node.id, _zeros(g))):
                return gradient(roots, [fixed[n.id] for n in roots])

        total = len(steps)
        first = [max(min((mine // k1 + 1) * k1, total) - k2, 0) for mine in own]
        truncated = np.zeros_like(exact)
        for start in sorted(set(first)):
            inside = [k for k in range(len(losses)) if first[k] == start and own[k] >= start]
            with _replacing([n for n in states if at[n.id] == start - 1], lambda node, g: _zeros(g)):
                truncated += gradient([losses[k] for k in inside], [seeds[k] for k in inside])
        size = float(np.linalg.norm(exact))
        kept, smallest, lost = head, 0, []
        for d in range(total):
            there = [mine >= d for mine in own]
            gone = [mine - d < f and mine >= d for mine, f in zip(own, first, strict=True)]
            kept = kept + at_distance(d, there)
            if not smallest and float(np.linalg.norm(kept - exact)) <= 0.01 * size:
                smallest = d + 1
            norm = float(np.linalg.norm(at_distance(d, gone))) if any(gone) else 0.0
            lost.append((sum(gone), sum(there), norm))
        residual = float(np.linalg.norm(kept - exact)) / size if size else 0.0
        if residual > TOLERANCE * float(np.finfo(losses[0].dtype).eps):
            raise GraphError(
                f"truncation: the steps' parts miss the gradient by {percent(residual)}: a state that is not named "
                "h[t], c[t] or gates[t] crosses from step to step"
            )
        short = float(np.linalg.norm(truncated))
        return Truncation(
            k1,
            k2,
            float(truncated @ exact) / (short * size) if short * size else math.nan,
            short / size if size else math.nan,
            float(np.linalg.norm(truncated - exact)) / size if size else math.nan,
            tuple(lost),
            smallest,
            residual,
        )


def _check_crossings(states: Sequence[TapeNode], at: Mapping[int, int], place: Mapping[int, int]) -> None:
    """Refuse steps that reach further back than to the states of the step before: windows would not cut that."""
    for state in states:
        here, seen, todo = at[state.id], {state.id}, [state]
        while todo:
            for x in todo.pop().inputs:
                if x.id in seen or not x.requires_grad:
                    continue
                seen.add(x.id)
                step = at.get(x.id)
                known = step is None and x.record is not None and x.time in place
                if (step is not None and step < here - 1) or (known and place[x.time or 0] < here):
                    raise GraphError(
                        f"truncation: {state.name} reads {x.name or x.op} of an earlier step, past the states named "
                        "h[t], c[t] or gates[t] that a window would cut"
                    )
                if step is None:
                    todo.append(x)


def _places(losses: Sequence[TapeNode], steps: Sequence[int]) -> list[int]:
    """Return the place of each loss among the steps: by its scope, its name, its order, or else the last."""
    found = []
    for k, loss in enumerate(losses):
        named = _NAME.match(loss.name or "")
        t = loss.time if loss.time is not None else int(named[2]) if named else None
        if t is not None and t in steps:
            found.append(list(steps).index(t))
        else:
            found.append(k if len(losses) == len(steps) else len(steps) - 1)
    return found


def flow(losses: Any, tape: Tape, *, vanish: float = 0.01, explode: float = 100.0, whole: int = 128) -> FlowReport:
    """Say how gradients flow back through the recurrent layers that a tape saw.

    Args:
        losses: scalar tensors that the tape saw, one for each step, or a single one.
        tape: what watched the forward computation; also after backward.
        vanish: "vanishing" is a norm that falls below this share over the steps there are.
        explode: "exploding" is one that grows more than this many times.
        whole: Jacobians of up to this many units are computed whole; above, singular values come from a Lanczos
            iteration and shares of routes from random cotangents.

    Returns:
        A report; nothing that the tape shows is changed.

    Raises:
        UsageError: no losses, losses the tape did not see, no states named ``h[k]`` or ``c[k]``, samples of a batch
            that depend on each other. GraphError: routes that miss their sum.

    >>> import minigrad as mg
    >>> net = mg.nn.LSTM(2, 3, forget_bias=5.0)
    >>> with mg.Tape() as tape:
    ...     out, _ = net(mg.ones(7, 1, 2))
    ...     loss = out[6].sum()
    >>> flow(loss, tape).kind
    'healthy'
    """
    many = tuple(losses) if isinstance(losses, list | tuple) else (losses,)
    if not many:
        raise UsageError("flow: there are no losses")
    if not isinstance(tape, Tape):
        raise UsageError(f"flow takes the tape that watched, from `with mg.Tape() as tape:`, not {type(tape).__name__}")
    opened = Opened(many, tape)  # states are inside of recurrent layers
    assert opened.tape is not None
    tape, many = opened.tape, tuple(opened.tensor(loss) for loss in many)
    nodes = []
    for loss in many:
        if not isinstance(loss, TensorBase) or math.prod(loss.shape) != 1:  # type: ignore[attr-defined]
            raise UsageError("flow: a loss is a tensor of one element")
        try:
            nodes.append(tape.of(loss))
        except KeyError:
            raise UsageError("flow: the tape did not see this loss; compute it inside of `with mg.Tape()`") from None
        if not loss.requires_grad:
            raise UsageError("flow: a loss depends on nothing that requires a gradient")
    layers = _layers(tape)
    if not layers:
        raise UsageError("flow: no states on the tape: layers name them h[0], h[1], …; so can a loop of your own")
    options = {"vanish": vanish, "explode": explode, "whole": whole}
    report = FlowReport(layers, many, tape, options)
    with Recording(False), np.errstate(over="ignore", invalid="ignore"):
        targets = [(layer, word, t) for layer in layers for word in ("h", "c") for t in layer.steps]
        targets = [(layer, word, t) for layer, word, t in targets if (word, t) in layer.nodes]
        for layer in layers:
            for word in ("h", "c"):
                if any(w == word for w, _ in layer.nodes):
                    setattr(layer, f"{word}_norms", np.zeros((len(many), len(layer.steps))))
        for row, node in enumerate(nodes):
            found = _pull([node], [_like(np.ones(node.shape), node)], [la.nodes[w, t] for la, w, t in targets])
            for (layer, word, t), g in zip(targets, found, strict=True):
                if g is not None:
                    getattr(layer, f"{word}_norms")[row, layer.steps.index(t)] = np.linalg.norm(_host(g))
        for layer in layers:
            layer._measure(whole)
            layer._judge(_places(nodes, layer.steps), vanish, explode, lambda: _local_norm(report, nodes))
    return report


def _layers(tape: Tape) -> tuple[LayerFlow, ...]:
    found = []
    for (place, turn), nodes in _named(tape).items():
        states = {key: node for key, node in nodes.items() if key[0] in STATES}
        timed = any(node.time is not None for node in states.values())
        kept = {key: n for key, n in nodes.items() if key[0] not in STATES or not timed or n.time is not None}
        order = [key[1] for key, n in sorted(kept.items(), key=lambda item: item[1].id) if key[0] in ("h", "c")]
        if order:
            steps = tuple(sorted(set(order)))
            name = place + (f" (pass {turn + 1})" if turn else "")
            found.append(LayerFlow(name, steps, order[0] > order[-1], kept))
    return tuple(found)


def _local_norm(report: FlowReport, losses: Sequence[TapeNode]) -> float:
    """Return the norm of the parameters' gradient without the routes that pass from step to step."""
    by_step: dict[int, list[TapeNode]] = {}
    for layer in report.layers:
        for (word, t), node in layer.nodes.items():
            if word in STATES:
                by_step.setdefault(t, []).append(node)
    steps = sorted(by_step)
    leaves = [n for n in report.tape.nodes if n.kind == "parameter"]
    total = [np.zeros(n.shape) for n in leaves]
    for loss, place in zip(losses, _places(losses, steps), strict=True):
        others = [node for t in steps if t != steps[place] for node in by_step[t]]
        with _replacing(others, lambda node, g: _zeros(g)):
            found = _pull([loss], [_like(np.ones(loss.shape), loss)], leaves)
        for x, g in zip(total, found, strict=True):
            if g is not None:
                x += _host(g)
    return math.sqrt(sum(float(np.sum(x * x)) for x in total))


# --- models side by side ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison(Shown):
    """Flow reports side by side, by name."""

    reports: dict[str, FlowReport]

    def __getitem__(self, name: str) -> FlowReport:
        return self.reports[name]

    def to_dict(self) -> dict[str, Any]:
        """Return all reports as plain data."""
        return {name: report.to_dict() for name, report in self.reports.items()}

    def __str__(self) -> str:
        heads = ("model", "per step", "half-life", "horizon", "verdict")
        rows = tuple(
            (name, number(r.worst.rate), number(r.worst.half_life), number(r.worst.horizon), r.kind)
            for name, r in self.reports.items()
        )
        return Table(heads, rows, frozenset({1, 2, 3})).text()


def compare(runs: Mapping[str, Callable[[], Any]], **options: Any) -> Comparison:
    """Run several models, each under a tape of its own, and report on the flow in each of them.

    Args:
        runs: functions that return losses, by name: ``{"rnn": …, "lstm": …}``.
        options: of :func:`flow`.
    """
    reports = {}
    for name, run in runs.items():
        with Tape() as tape:
            losses = run()
        reports[name] = flow(losses, tape, **options)
    return Comparison(reports)
