"""A tape as plain data: what every picture is drawn from.

::

        tape                         View                             Plan, Scene (render)
     nodes with arrays   view_of    ViewNode 17: "⊙" h₂ (1, 8)  fold
     and scopes        ---------->  ViewNode 18: "W x + b"     ------>  "⋯ 988 steps"  ---->  SVG, DOT, page
                                    ViewEdge 17 -> 18, "x", ∂⁺

Nothing in a view is an array, a tensor or a live node: it can be written to JSON, read back and compared.
Node identities are the positions on the tape; folding removes nodes and adds counted ones but renames nobody.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from minigrad import _core
from minigrad._core import Tape, TensorBase
from minigrad.backend import host, is_array
from minigrad.errors import UsageError
from minigrad.graph.paths import unwatched

SHOW = ("shape", "value", "grad", "local")
"""What a view can carry, and a picture can print, beyond the operations themselves."""

FORMAT = "minigrad-view/1"
NUMBERS_KEPT = 64
"""Arrays up to this many elements travel whole; larger ones as their summary only."""

_SYMBOLS = {
    "mul": "⊙", "add": "+", "sub": "−", "div": "÷", "neg": "−", "matmul": "×", "pow": "xⁿ", "square": "x²",
    "sigmoid": "σ", "sqrt": "√", "sum": "Σ", "prod": "Π", "mean": "mean", "exp": "exp", "log": "log",
    "affine": "W x + b", "cross_entropy": "ℒ", "getitem": "[ ]", "concatenate": "concat",
    "embedding": "embed",
    "transpose": "ᵀ", "reciprocal": "1/x", "abs": "|x|",
}  # fmt: skip
_LOSSES = ("cross_entropy", "mse", "half_squared_error", "nll", "ctc")
_GATE = re.compile(r"^(\w+) (?:gate|input)$")
_GATE_LETTER = {
    "forget": "f", "input": "i", "cell": "g", "block": "g", "output": "o", "reset": "r", "update": "z",
    "new": "n", "candidate": "n",
}  # fmt: skip
_INDEXED = re.compile(r"^([A-Za-z]+)[\[_]?(-?\d+)\]?$")
_SUBSCRIPTS = str.maketrans("-0123456789", "₋₀₁₂₃₄₅₆₇₈₉")
_SHAPERS = frozenset({"getitem", "transpose", "permute", "reshape", "squeeze", "expand_dims", "split"})


@dataclass(frozen=True)
class Summary:
    """What a picture needs to know of one array: its extent in numbers, and the numbers when they are few."""

    min: float
    max: float
    mean: float
    norm: float
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ViewNode:
    """One operation, leaf or fold; `time` is the step it was recorded in, `step` the one it is drawn in."""

    id: int
    op: str
    kind: str
    label: str
    name: str | None = None
    scope: tuple[str, ...] = ()
    time: int | None = None
    step: int | None = None
    gate: str | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    equation: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    requires_grad: bool = False
    shared: bool = False
    tap: int | None = None
    value: Summary | None = None
    grad: Summary | None = None
    members: tuple[tuple[int, int], ...] = ()
    span: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """The identity as documents spell it: ``17``, or ``fold-17`` for a fold whose first member is 17."""
        return str(self.id) if self.id >= 0 else f"fold-{-1 - self.id}"

    @property
    def display_name(self) -> str | None:
        """The name with its index lowered: ``h[3]`` is h₃."""
        return pretty(self.name)

    @property
    def count(self) -> int:
        """How many recorded nodes this one stands for."""
        return sum(last - first + 1 for first, last in self.members) or 1


@dataclass(frozen=True)
class ViewEdge:
    """Argument number `argument` of node `target` is the result of node `source`.

    `contribution` is what the reverse sweep sends back along this edge: its share of the gradient of `source`, the
    gradient of `target` times the local derivative. The shares of all edges that leave a node add up to its gradient.
    """

    source: int
    target: int
    argument: int
    name: str = ""
    local: str | None = None
    local_latex: str | None = None
    carries: str | None = None
    role: str = "data"
    contribution: Summary | None = None


@dataclass(frozen=True)
class View:
    """Nodes in creation order and edges in (target, argument) order; what it shows is in `show`."""

    nodes: tuple[ViewNode, ...]
    edges: tuple[ViewEdge, ...]
    show: tuple[str, ...] = ("shape",)

    def __len__(self) -> int:
        return len(self.nodes)

    def node(self, id: int) -> ViewNode:
        """Return the node with this identity.

        Raises:
            UsageError: no node of the view has it (it may be inside a fold).
        """
        for node in self.nodes:
            if node.id == id:
                return node
        raise UsageError(f"the view has no node {id}")

    @property
    def steps(self) -> tuple[int, ...]:
        """The time steps that are drawn, in order; a fold counts as its first step."""
        return tuple(sorted({n.step for n in self.nodes if n.step is not None}))

    def as_dict(self) -> dict[str, Any]:
        """Return the view as dictionaries, lists, strings and numbers, without the fields that hold defaults."""
        return {
            "format": FORMAT,
            "show": list(self.show),
            "nodes": [_record(n) for n in self.nodes],
            "edges": [_record(e) for e in self.edges],
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return the view as JSON text: the same view, the same bytes. Infinities and NaN are strings."""
        separators = (",", ":") if indent is None else (",", ": ")
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=indent, separators=separators, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> View:
        """Read what `to_json` wrote.

        Raises:
            UsageError: the text is not JSON, or not a view of this format.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UsageError(f"not a view: {error}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UsageError(f"not a view: the format field must say {FORMAT!r}")
        try:
            nodes = tuple(_read_node(n) for n in data["nodes"])
            edges = tuple(
                ViewEdge(**{**e, "contribution": _read_summary(e.get("contribution"))}) for e in data["edges"]
            )
            return cls(nodes, edges, tuple(data["show"]))
        except (KeyError, TypeError) as error:
            raise UsageError(f"not a view: a record is malformed ({error})") from None


def pretty(name: str | None) -> str | None:
    """Return a name with its trailing index as a subscript.

    >>> pretty("x[12]"), pretty("h_3"), pretty("weight_ih_l0")
    ('x₁₂', 'h₃', 'weight_ih_l0')
    """
    match = _INDEXED.match(name) if name else None
    return match.group(1) + match.group(2).translate(_SUBSCRIPTS) if match else name


def gate_letter(gate: str | None) -> str | None:
    """Return the one-letter name of a gate (f, i, g, o; r, z, n), or None where there is none."""
    return _GATE_LETTER.get(gate or "")


def view_of(
    tape: Any,
    *,
    show: Iterable[str] = SHOW,
    fold_with: Callable[[View], View] | None = None,
    contributions: bool = False,
) -> View:
    """Return the plain-data picture of a tape.

    Args:
        tape: anything with `.nodes` in creation order, as `minigrad.Tape` has; or a tensor, whose graph then is
            drawn with what the engine kept of it (no names of intermediate values, few values).
        show: which of `SHOW` to carry; summaries of values and gradients cost a pass over each array.
        fold_with: folds the structure before any array is looked at, so that elided nodes cost nothing.
        contributions: whether edges carry what a backward pass sent along them; costs about one more such pass. Edges
            that no gradient reached, or whose saved values a sweep has freed, carry none.

    Raises:
        UsageError: `show` has an unknown word, or `tape` is no tape.
    """
    show = checked_show(show)
    if isinstance(tape, TensorBase):
        tape = Tape.from_graph(tape)
    elif not hasattr(tape, "nodes"):
        raise UsageError(f"neither a tape, a tensor nor a view: {type(tape).__name__}; record with minigrad.Tape()")
    recorded = list(tape.nodes)
    position = {node.id: i for i, node in enumerate(recorded)}
    consumers = Counter(parent.id for node in recorded for parent in node.inputs)
    nodes = []
    for node in recorded:
        scope = tuple(part for part in (node.scope or "").split("/") if part)
        nodes.append(
            ViewNode(
                id=node.id,
                op=node.op,
                kind=node.kind,
                label=_label(node),
                name=node.name,
                scope=scope,
                time=node.time,
                step=node.time if node.kind == "op" else None,
                gate=_gate(scope),
                shape=tuple(int(n) for n in node.shape),
                dtype=str(node.dtype),
                equation=node.equation or "",
                params={str(k): _plain(v) for k, v in (node.params or {}).items()},
                requires_grad=bool(node.requires_grad),
                shared=node.kind == "parameter" and consumers[node.id] > 1,
            )
        )
    local = "local" in show
    edges = []
    for node in recorded:
        latex = getattr(node, "local_latex", None) or ()
        for argument, parent in enumerate(node.inputs):
            if parent.id not in position:
                continue  # recorded before the tape began to watch: there is nothing to draw it with
            edges.append(
                ViewEdge(
                    source=parent.id,
                    target=node.id,
                    argument=argument,
                    name=_at(node.arguments, argument) or "",
                    local=_at(node.local, argument) if local else None,
                    local_latex=_at(latex, argument) if local else None,
                    carries=parent.name,
                )
            )
    view = _with_roles(_with_steps(View(tuple(nodes), tuple(edges), show)))
    if fold_with is not None:
        view = fold_with(view)
    if "value" in show or "grad" in show:
        view = replace(view, nodes=tuple(_summarised(n, recorded, position, show) for n in view.nodes))
    return unwatched(lambda: _with_contributions(view, recorded, position)) if contributions else view


def checked_show(show: Iterable[str]) -> tuple[str, ...]:
    """Return the words of `show` in the order of `SHOW`; raise UsageError on a word that is not there."""
    words = [show] if isinstance(show, str) else list(show)
    for word in words:
        if word not in SHOW:
            raise UsageError(f"unknown show option {word!r}: choose from {', '.join(SHOW)}")
    return tuple(word for word in SHOW if word in words)


def fold(
    view: View, by: str | Callable[[ViewNode], str | None] = "time", *, keep: Collection[int] | None = None
) -> View:
    """Return the view with groups of nodes replaced by counted nodes.

    Args:
        view: what to fold; it stays as it is.
        by: ``"time"`` folds the steps that are not in `keep` (neighbouring ones into one node), ``"layer"``
            what was recorded in one layer, ``"gate"`` each gate of each step, and a function what it gives one
            name.
        keep: with ``"time"`` the steps to leave as they are (the first three and the last two if not given);
            otherwise the node ids to leave as they are.

    Raises:
        UsageError: `by` is neither a function nor one of the three words.
    """
    if by == "time":
        group = _group_by_time(view, keep)
    elif callable(by) or by in _NAMED_FOLDS:
        name = by if callable(by) else _NAMED_FOLDS[by]
        kept = frozenset(keep or ())
        group = {n.id: key for n in view.nodes if n.id not in kept and (key := name(n)) is not None}
    else:
        raise UsageError(f"cannot fold by {by!r}: choose time, layer, gate or a function of a node")
    return _quotient(view, group)


def unroll(view: View) -> View:
    """Return the view with each layer of each step as one block: the recurrent net as textbooks unroll it."""
    group: dict[int, str] = {}
    label: dict[str, str] = {}
    for n in view.nodes:
        inside = next((k for k, part in enumerate(n.scope) if part.startswith("t=")), 0)
        if n.step is not None and inside and n.kind != "fold":
            group[n.id] = key = "/".join(n.scope[: inside + 1])
            label[key] = " ".join(n.scope[:inside])
    return _quotient(view, group, label)


def columns(view: View) -> dict[int, int | None]:
    """Return every node's step or, if it has none, the latest step it depends on (None before all steps)."""
    column: dict[int, int | None] = {n.id: n.step for n in view.nodes}
    parents: dict[int, list[int]] = {n.id: [] for n in view.nodes}
    for e in view.edges:
        parents[e.target].append(e.source)
    for n in view.nodes:
        if n.step is None:
            seen = [t for p in parents[n.id] if (t := column[p]) is not None]
            column[n.id] = max(seen, default=None)
    return column


def elide(view: View, limit: int = 400, keep: int = 60) -> View:
    """Return the view with its middle folded into one node if it has more than `limit` nodes.

    For long computations without time steps; the first and the last `keep` operations stay, as do all leaves.
    """
    ops = [n.id for n in view.nodes if n.kind not in ("parameter", "input")]
    if len(view) <= limit or len(ops) <= 2 * keep:
        return view
    middle = frozenset(ops[keep:-keep])
    folded = _quotient(view, dict.fromkeys(middle, "middle"))
    used = frozenset(e.source for e in folded.edges) | frozenset(e.target for e in folded.edges)
    return folded if len(used) <= limit else _quotient(view, {n.id: "all" for n in view.nodes[keep:-keep]})


def _label(node: Any) -> str:
    if node.kind == "op":
        if node.op in _LOSSES:
            return "ℒ"
        return _SYMBOLS.get(node.op, node.op)
    if node.name:
        return pretty(node.name) or node.name
    if node.value is not None and node.value.size == 1:
        return f"{float(host(node.value).reshape(-1)[0]):.3g}"
    return "const" if node.kind == "constant" else node.kind


def _gate(scope: tuple[str, ...]) -> str | None:
    for part in reversed(scope):
        match = _GATE.match(part)
        if match:
            return match.group(1)
    return None


def _at(items: Any, index: int) -> str | None:
    return items[index] if items and index < len(items) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, slice):
        parts = ["" if p is None else str(p) for p in (value.start, value.stop, value.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is Ellipsis:
        return "..."
    if is_array(value):
        return f"array of shape {tuple(int(n) for n in value.shape)}"
    return type(value).__name__


def _finite(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _summary(array: Any, dtype: str) -> Summary:
    data = host(array)
    flat = data.reshape(-1).astype(np.float64)
    if not flat.size:
        return Summary(0.0, 0.0, 0.0, 0.0, ())
    if flat.size <= NUMBERS_KEPT:
        # exact sums, so that the text does not depend on how the machine's vector unit adds
        low, high = float(np.min(flat)), float(np.max(flat))
        listed = flat.tolist()
        finite = all(math.isfinite(v) for v in listed)
        mean = math.fsum(listed) / len(listed) if finite else float(flat.mean())
        norm = math.hypot(*listed)
        short = data.dtype == np.float32
        numbers = tuple(float(str(v)) if short else float(v) for v in data.reshape(-1))
    else:
        low, high, mean = float(flat.min()), float(flat.max()), float(flat.mean())
        norm, numbers = float(np.linalg.norm(flat)), None
    low, high, mean, norm = (float(f"{v:.6g}") for v in (low, high, mean, norm))
    return Summary(low, high, mean, norm, numbers)


def _summarised(node: ViewNode, recorded: list[Any], position: dict[int, int], show: tuple[str, ...]) -> ViewNode:
    if node.id < 0:
        return node
    source = recorded[position[node.id]]
    value = source.value if "value" in show else None
    grad = source.grad if "grad" in show else None
    return replace(
        node,
        value=None if value is None else _summary(value, node.dtype),
        grad=None if grad is None else _summary(grad, node.dtype),
    )


def _with_contributions(view: View, recorded: list[Any], position: dict[int, int]) -> View:
    parts: dict[int, list[Any]] = {}

    def share(edge: ViewEdge) -> Summary | None:
        if edge.target < 0:
            return None
        if edge.target not in parts:
            parts[edge.target] = _shares(recorded[position[edge.target]])
        found = parts[edge.target]
        part = found[edge.argument] if edge.argument < len(found) else None
        return None if part is None else _summary(_core.data_of(part), str(part.dtype))

    return replace(view, edges=tuple(replace(e, contribution=share(e)) for e in view.edges))


def _shares(node: Any) -> list[Any]:
    """Return what each operand of a recorded operation gets of its gradient, by the rules of the page."""
    made = getattr(node, "node", None)
    if made is None or made.op is None or made.freed:
        return []
    gs = [out.grad for out in node.outputs]
    if all(g is None for g in gs):
        return []
    wanted = [parent is not None for parent in made.inputs]
    parts: list[Any] = made.op.contributions(made, gs, wanted)
    return parts


def _with_steps(view: View) -> View:
    """Give every step the untimed nodes that repeat with it: slices of a sequence, logits, losses, targets."""
    step = {n.id: n.step for n in view.nodes}
    by_id = {n.id: n for n in view.nodes}
    steps = {t for t in step.values() if t is not None}
    parents: dict[int, list[int]] = {n.id: [] for n in view.nodes}
    children: dict[int, list[int]] = {n.id: [] for n in view.nodes}
    for e in view.edges:
        parents[e.target].append(e.source)
        children[e.source].append(e.target)
    tap = _taps(view, parents)
    if not steps:
        return replace(view, nodes=tuple(replace(n, tap=tap.get(n.id)) for n in view.nodes))
    loose = [n.id for n in view.nodes if n.step is None and n.kind != "parameter" and n.id not in tap]
    for i in loose:
        # a leaf is recorded where it is first used, which makes it part of that step only if nobody else reads it
        t = by_id[i].time
        if t is not None and all(step[c] == t for c in children[i]) and not _is_initial(by_id[i]):
            step[i] = t
    fixed = frozenset(i for i in by_id if by_id[i].kind == "parameter" or i in tap)

    def sort(i: int) -> tuple[Any, ...]:
        return (by_id[i].op, by_id[i].kind, by_id[i].shape, _stem(by_id[i].name))

    def adopt(candidates: dict[int, int]) -> bool:
        # one a step and the same thing in each: only then is it part of what a step does
        seen: dict[tuple[Any, ...], set[int]] = {}
        for i, t in candidates.items():
            seen.setdefault(sort(i), set()).add(t)
        adopted = {
            i: t
            for i, t in candidates.items()
            if len(seen[sort(i)]) == len(steps) and not (len(steps) == 1 and _is_initial(by_id[i]))
        }
        step.update(adopted)
        return bool(adopted)

    def only_step(ids: list[int]) -> int | None:
        times = {step[i] for i in ids}
        return times.pop() if len(times) == 1 else None

    moved = True
    while moved:
        after: dict[int, int] = {}
        for i in loose:
            if step[i] is None and by_id[i].kind == "op":
                read = [p for p in parents[i] if p not in fixed]
                # leaves made for this operation alone (a target) come along with it
                own = [p for p in read if by_id[p].kind != "op" and step[p] is None and children[p] == [i]]
                t = only_step([p for p in read if p not in own])
                if t is not None:
                    after[i] = t
        moved = adopt(after)
        before: dict[int, int] = {}
        for i in reversed(loose):
            t = only_step(children[i])
            if step[i] is None and t is not None and len(parents[i]) <= 1:
                before[i] = t
        moved |= adopt(before)
    return replace(view, nodes=tuple(replace(n, step=step[n.id], tap=tap.get(n.id)) for n in view.nodes))


def _is_initial(node: ViewNode) -> bool:
    match = _INDEXED.match(node.name or "")
    return bool(match and match.group(1) in ("h", "c")) or (node.kind != "op" and node.name in ("h0", "c0", None))


def _stem(name: str | None) -> str:
    return re.sub(r"\d+", "#", name) if name else ""


def _taps(view: View, parents: dict[int, list[int]]) -> dict[int, int]:
    """Return which untimed nodes only rearrange one parameter, and which one: they are drawn on its rail."""
    tap: dict[int, int] = {}
    parameter = {n.id for n in view.nodes if n.kind == "parameter"}
    for n in view.nodes:
        if n.kind == "op" and n.time is None and n.op in _SHAPERS and len(parents[n.id]) == 1:
            root = tap.get(parents[n.id][0], parents[n.id][0])
            if root in parameter:
                tap[n.id] = root
    return tap


def _with_roles(view: View) -> View:
    by_id = {n.id: n for n in view.nodes}
    first = min(view.steps, default=None)
    reached: dict[int, set[int | None]] = {}
    for e in view.edges:
        reached.setdefault(e.source, set()).add(by_id[e.target].step)
    initial = {i for i, steps in reached.items() if by_id[i].step is None and steps == {first}}
    return replace(view, edges=tuple(replace(e, role=_role(e, by_id, initial)) for e in view.edges))


def _role(edge: ViewEdge, by_id: Mapping[int, ViewNode], initial: Collection[int]) -> str:
    source, target = by_id[edge.source], by_id[edge.target]
    if source.kind == "parameter" or source.tap is not None:
        return "parameter"
    if target.step is None or source.step == target.step:
        return "data"
    stem = re.match(r"[A-Za-z]+", source.name or "")
    if stem and stem.group() in ("c", "h"):
        return "cell" if stem.group() == "c" else "hidden"
    if source.step is None and source.id not in initial:
        return "data"
    # without names: what is multiplied elementwise is a memory, what goes through a matrix an output
    if target.op == "mul":
        return "cell" if source.op == "add" or source.step is None else "data"
    return "hidden" if target.op in ("affine", "matmul", "einsum") else "data"


def _group_by_time(view: View, keep: Collection[int] | None) -> dict[int, str]:
    steps = view.steps
    if keep is None:
        keep = steps[:3] + steps[-2:]
    kept = frozenset(keep)
    run: dict[int, str] = {}
    name: str | None = None
    for t in steps:
        name = None if t in kept else name or f"t={t}"
        if name:
            run[t] = name
    # a running sum over the steps has no step of its own: it goes with the last step that it has seen
    column = columns(view)
    group = {}
    for n in view.nodes:
        at = column[n.id]
        if at in run and not n.members and n.tap is None and (n.step is not None or n.kind == "op"):
            group[n.id] = run[at]
    counts = Counter(group.values())
    return {i: key for i, key in group.items() if counts[key] > 1}


def _layer_of(node: ViewNode) -> str | None:
    for i, part in enumerate(node.scope):
        if re.match(r"layer \d+", part):
            return "/".join(node.scope[: i + 1])
    return None


def _gate_of(node: ViewNode) -> str | None:
    return "/".join(node.scope) if node.gate else None


_NAMED_FOLDS: dict[str, Callable[[ViewNode], str | None]] = {"layer": _layer_of, "gate": _gate_of}


def _quotient(view: View, group: Mapping[int, str], label: Mapping[str, str] | None = None) -> View:
    members: dict[str, list[ViewNode]] = {}
    for n in view.nodes:
        if n.id in group:
            members.setdefault(group[n.id], []).append(n)
    stands_for = {i: -1 - members[key][0].id for i, key in group.items()}
    nodes: list[ViewNode] = []
    for n in view.nodes:
        key = group.get(n.id)
        if key is None:
            nodes.append(n)
        elif members[key][0] is n:
            nodes.append(_folded(-1 - n.id, members[key], (label or {}).get(key)))
    edges: list[ViewEdge] = []
    seen: set[tuple[int, int, str | None]] = set()  # asked, never listed
    arguments: Counter[int] = Counter()
    for e in view.edges:
        source, target = stands_for.get(e.source, e.source), stands_for.get(e.target, e.target)
        if source == target:
            continue
        if target >= 0:
            edges.append(replace(e, source=source, target=target))
        elif (source, target, e.carries) not in seen:
            seen.add((source, target, e.carries))
            edges.append(ViewEdge(source, target, arguments[target], carries=e.carries, role=e.role))
            arguments[target] += 1
    return replace(view, nodes=tuple(nodes), edges=tuple(edges))


def _folded(id: int, members: list[ViewNode], label: str | None = None) -> ViewNode:
    steps = sorted({n.step for n in members if n.step is not None})
    gates = {n.gate for n in members}
    runs: list[list[int]] = []
    for n in members:
        for first, last in n.members or ((n.id, n.id),):
            if runs and runs[-1][1] + 1 == first:
                runs[-1][1] = last
            else:
                runs.append([first, last])
    count = sum(last - first + 1 for first, last in runs)
    gate = gates.pop() if len(gates) == 1 else None
    if label:
        pass
    elif gate:
        label = f"{gate} gate"
    elif len(steps) > 1:
        label = f"⋯ {len(steps)} steps"
    else:
        label = f"⋯ {count} operations"
    return ViewNode(
        id=id,
        op="fold",
        kind="fold",
        label=label,
        scope=_common([n.scope for n in members]),
        time=None,
        step=steps[0] if steps else None,
        gate=gate,
        requires_grad=any(n.requires_grad for n in members),
        members=tuple((a, b) for a, b in runs),
        span=(steps[0], steps[-1]) if len(steps) > 1 else None,
    )


def _common(scopes: list[tuple[str, ...]]) -> tuple[str, ...]:
    first, last = min(scopes), max(scopes)
    size = 0
    while size < min(len(first), len(last)) and first[size] == last[size]:
        size += 1
    return first[:size]


_DEFAULTS: dict[type, dict[str, Any]] = {
    cls: {f.name: f.default if f.default_factory is not dict else {} for f in fields(cls) if f.init}
    for cls in (ViewNode, ViewEdge, Summary)
}


def _record(item: Any) -> dict[str, Any]:
    defaults = _DEFAULTS[type(item)]
    record: dict[str, Any] = {}
    for name, default in defaults.items():
        value = getattr(item, name)
        if value == default:
            continue
        if isinstance(value, Summary):
            value = _record(value)
        elif isinstance(value, tuple):
            value = [_finite(v) if isinstance(v, float) else list(v) if isinstance(v, tuple) else v for v in value]
        elif isinstance(value, float):
            value = _finite(value)
        record[name] = value
    return record


def _read_summary(record: dict[str, Any] | None) -> Summary | None:
    if record is None:
        return None
    values = {k: float(v) for k, v in record.items() if k != "numbers"}
    numbers = record.get("numbers")
    return Summary(**values, numbers=None if numbers is None else tuple(float(v) for v in numbers))


def _read_node(record: dict[str, Any]) -> ViewNode:
    data = dict(record)
    for name in ("scope", "shape"):
        data[name] = tuple(data.get(name, ()))
    data["members"] = tuple((a, b) for a, b in data.get("members", ()))
    if "span" in data:
        data["span"] = tuple(data["span"])
    data["value"], data["grad"] = _read_summary(data.get("value")), _read_summary(data.get("grad"))
    return ViewNode(**data)
