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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from minigrad._core import Tape, TensorBase
from minigrad.backend import host, is_array
from minigrad.errors import UsageError
from minigrad.formula import to_latex
from minigrad.graph.carried import carried, gain
from minigrad.graph.highlight import Said, lit_edges
from minigrad.graph.immediate import immediate, set_short
from minigrad.graph.loops import Kind, steps_of_loops
from minigrad.graph.paths import unwatched

SHOW = ("shape", "value", "grad", "local", "gain", "flow")
"""What a view can carry, and a picture can print, beyond the operations themselves: of a node its shape and the sizes
of its value and gradient; of an edge ∂⁺ as a formula (local), its size (gain), and the gradient it carries (flow)."""

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
_RAISED = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉", "-0123456789")
_SHAPERS = frozenset({"getitem", "mT", "transpose", "permute", "reshape", "squeeze", "expand_dims", "split"})
_LETTERS = re.compile(r"[A-Za-z]+")
_CELL = re.compile(r"(rnn|lstm|gru)(_\w+)?")
_SLICE = re.compile(r"^(.+)\[(\w)\]$")
_ELIDED = "⋯"
"""What the label of a fold begins with that leaves out steps, or a part of a long row."""
_LINES_APART = 8
"""Up to so many edges from a fold into one operation stay apart."""
_FORMULA_INSIDE = 10
"""A value without a name is called by its formula up to this many characters: tanh(c₃)."""

Key = tuple[int, int, int]
"""An edge of the tape: source, target, argument."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a picture needs to know of one array: its extent in numbers, and the numbers when they are few."""

    min: float
    max: float
    mean: float
    norm: float
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ViewNode:
    """One operation, leaf or fold; `time` is the step it was recorded in, `step` the one it is drawn in.

    Of a fold, `members` says which nodes of the tape it stands for (first and last of each run), `span` which steps if
    they are several, and `lit` whether an edge inside of it lies on a route that was asked for.
    """

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
    lit: bool = False

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


@dataclass(frozen=True, slots=True)
class ViewEdge:
    """Argument number `argument` of node `target` is the result of node `source`.

    Where an operation has several results, `result` says which one. `local` is ∂⁺ in the model's names, `gain` its
    size. `contribution` is what the reverse sweep sends back along this edge: its share of the gradient of `source`,
    the gradient of `target` times the local derivative. The shares of all edges that leave a result add up to its
    gradient. A `cut` edge lets no gradient pass, and a `lit` one lies on a route that was asked for.
    """

    source: int
    target: int
    argument: int
    result: int = 0
    name: str = ""
    local: str | None = None
    local_latex: str | None = None
    carries: str | None = None
    role: str = "data"
    cut: bool = False
    gain: float | None = None
    contribution: Summary | None = None
    lit: bool = False
    parts: tuple[Key, ...] = field(default=(), compare=False, repr=False)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The edges of the tape that this one stands for: itself, or several where a fold bundles them."""
        return self.parts or ((self.source, self.target, self.argument),)


@dataclass(frozen=True)
class View:
    """Nodes in creation order and edges in (target, argument) order; what it shows is in `show`."""

    nodes: tuple[ViewNode, ...]
    edges: tuple[ViewEdge, ...]
    show: tuple[str, ...] = ("shape",)
    notes: tuple[tuple[int, str], ...] = ()
    """(step, words) that stand in the frame of a step: what it reads, or its share of a gradient."""

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

    def by_step(self) -> tuple[list[ViewNode], dict[int, list[ViewNode]]]:
        """Return the nodes of no step, and those of each step, the steps in order."""
        loose: list[ViewNode] = []
        inside: dict[int, list[ViewNode]] = {t: [] for t in self.steps}
        for node in self.nodes:
            (loose if node.step is None else inside[node.step]).append(node)
        return loose, inside

    @property
    def steps(self) -> tuple[int, ...]:
        """The time steps that are drawn, in order; a fold counts as its first step."""
        return tuple(sorted({n.step for n in self.nodes if n.step is not None}))

    def as_dict(self) -> dict[str, Any]:
        """Return the view as dictionaries, lists, strings and numbers, without the fields that hold defaults."""
        return {
            "format": FORMAT,
            "show": list(self.show),
            **({"notes": [list(note) for note in self.notes]} if self.notes else {}),
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
            edges = tuple(_read_edge(e) for e in data["edges"])
            notes = tuple((int(t), str(words)) for t, words in data.get("notes", ()))
            return cls(nodes, edges, tuple(data["show"]), notes)
        except (KeyError, TypeError, ValueError) as error:
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


def gate_name(letter: str) -> str:
    """Return the name of a gate of one letter.

    >>> gate_name("f"), gate_name("z")
    ('forget', 'update')
    """
    return next(name for name, short in _GATE_LETTER.items() if short == letter)


def view_of(
    tape: Any,
    *,
    show: Iterable[str] = SHOW[:4],
    notes: Mapping[int, str] | None = None,
    highlight: Any = None,
    fold_with: Callable[[View], View] | None = None,
    contributions: bool = False,
    repeats: bool = False,
) -> View:
    """Return the plain-data picture of a tape.

    Args:
        tape: anything with `.nodes` in creation order, as `minigrad.Tape` has; or a tensor, whose graph then is
            drawn with what the engine kept of it (no names of intermediate values, few values).
        show: which of `SHOW` to carry; summaries of values and gradients cost a pass over each array, gain and flow
            an evaluation of each rule.
        notes: for steps, what is written into their frames.
        highlight: what is lit, as `minigrad.render` takes it.
        fold_with: folds the structure before any array is looked at, so that elided nodes cost nothing.
        contributions: whether edges carry what a backward pass sent along them; costs about one more such pass. Edges
            that no gradient reached, or whose saved values a sweep has freed, carry none.
        repeats: keep every node of the tape. Otherwise a piece of a parameter that each step reads anew is one node.

    Raises:
        UsageError: `show` has an unknown word, `tape` is no tape, or there is no such route to light.
    """
    tape = tape_of(tape)
    view, said = structure_of(tape, notes=notes, highlight=highlight, repeats=repeats)
    if fold_with is not None:
        view = fold_with(view)
    return with_numbers(view, tape, show, contributions=contributions, said=said)


def structure_of(
    tape: Any, *, notes: Mapping[int, str] | None = None, highlight: Any = None, repeats: bool = False
) -> tuple[View, Said | None]:
    """Return what `view_of` does without any number, and what there is to say of steps where routes are lit.

    Folded as it may be, `with_numbers` makes of both the view that is drawn.
    """
    recorded = list(tape.nodes)
    view = _structure(recorded, ())
    if not repeats:
        view = once(view)
    if notes:
        view = replace(view, notes=tuple(sorted((int(t), str(words)) for t, words in notes.items())))
    said: Said | None = None
    if highlight is not None:
        announced = any(n.time is not None for n in view.nodes)
        steps = {} if announced else {n.id: n.step for n in view.nodes if n.kind == "op" and n.step is not None}
        keys, said = lit_edges(tape, highlight, steps)
        view = light(view, keys)
    return view, said


def tape_of(tape: Any) -> Any:
    """Return a tape: the one given, or that of a tensor's graph.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(tape, TensorBase):
        return Tape.from_graph(tape)
    if not hasattr(tape, "nodes"):
        raise UsageError(f"neither a tape, a tensor nor a view: {type(tape).__name__}; record with minigrad.Tape()")
    return tape


def with_numbers(
    view: View, tape: Any, show: Iterable[str], *, contributions: bool = False, said: Said | None = None
) -> View:
    """Return the view of a tape with what `show` asks for read off the tape, and with what is said of its steps."""
    show = checked_show(show)
    view = replace(view, show=show)
    if said is not None:
        view = _with_words(view, said)
    numbers = bool({"value", "grad"}.intersection(show))
    measures = contributions or bool({"local", "gain", "flow"}.intersection(show))
    if not numbers and not measures:
        return view
    recorded = list(tape.nodes)
    position = {node.id: i for i, node in enumerate(recorded)}
    if numbers:
        view = replace(view, nodes=tuple(_summarised(n, recorded, position, show) for n in view.nodes))
    if measures:
        view = replace(view, edges=unwatched(lambda: _measured(view, recorded, position, contributions)))
    return view


class _Draft:
    """What is known of a node of the tape while steps and roles are still being found."""

    __slots__ = (
        "arguments",
        "gate",
        "id",
        "kind",
        "name",
        "op",
        "operands",
        "parents",
        "scope",
        "shape",
        "step",
        "tap",
        "time",
    )

    def __init__(self, node: Any, scope: tuple[str, ...], gate: str | None, operands: list[tuple[int, int]]) -> None:
        self.id, self.op, self.kind, self.name = node.id, node.op, node.kind, node.name
        self.shape, self.arguments = node.shape, node.arguments
        self.operands = operands
        """Argument number and node."""
        self.parents = [parent for _, parent in operands]
        self.scope = scope
        self.time = node.time
        self.tap: int | None = None
        leaf = node.kind != "op"  # it lies where it was first used
        self.step: int | None = None if leaf else node.time
        self.gate: str | None = None if leaf else gate


def _structure(recorded: Sequence[Any], show: tuple[str, ...]) -> View:
    """Return the view of everything on a tape, without numbers; each record is written once, when all is known."""
    scopes: dict[str, tuple[tuple[str, ...], str | None]] = {}
    drafts: dict[int, _Draft] = {}
    children: dict[int, list[int]] = {}
    for node in recorded:
        words = node.scope or ""
        if words not in scopes:
            scope = tuple(part for part in words.split("/") if part)
            scopes[words] = scope, _gate(scope)
        # an operand from before the tape began to watch has nothing to be drawn with
        operands = [(k, parent.id) for k, parent in enumerate(node.inputs) if parent.id in children]
        drafts[node.id] = _Draft(node, *scopes[words], operands)
        children[node.id] = []
        for _, parent in operands:
            children[parent].append(node.id)
    _find_taps(drafts, children)
    _find_steps(drafts, children)
    role = _roles(drafts, children)
    nodes = []
    dtypes: dict[Any, str] = {}  # NumPy takes ten microseconds to spell one
    learns: dict[int, bool] = {}
    for node, n in zip(recorded, drafts.values(), strict=True):
        kind = getattr(node.value, "dtype", None)
        if kind is None or kind not in dtypes:
            dtypes[kind] = str(node.dtype)
        learns[n.id] = bool(node.requires_grad)
        nodes.append(
            ViewNode(
                id=n.id,
                op=n.op,
                kind=n.kind,
                label=_label(node),
                name=n.name,
                scope=n.scope,
                time=n.time,
                step=n.step,
                gate=n.gate,
                shape=n.shape,
                dtype=dtypes[kind],
                equation=node.equation or "",
                params={str(k): _plain(v) for k, v in node.params.items()} if node.params else {},
                requires_grad=learns[n.id],
                shared=n.kind == "parameter" and len(children[n.id]) > 1,
                tap=n.tap,
            )
        )
    edges = []
    for node, n in zip(recorded, drafts.values(), strict=True):
        results = getattr(node, "outs", ())
        for argument, parent in n.operands:
            result = results[argument] if results else 0
            carries = node.inputs[argument].outputs[result].name if result else drafts[parent].name
            edges.append(
                ViewEdge(
                    source=parent,
                    target=n.id,
                    argument=argument,
                    result=result,
                    name=_at(n.arguments, argument) or "",
                    carries=carries,
                    role=role(parent, n.id, argument, carries),
                    cut=learns[parent] and not learns[n.id],
                )
            )
    return View(tuple(nodes), tuple(edges), show)


def _measured(
    view: View, recorded: list[Any], position: Mapping[int, int], contributions: bool
) -> tuple[ViewEdge, ...]:
    """Write on the edges what they do to a gradient; what a fold bundles is added up before it is measured."""
    contributions |= "flow" in view.show
    flowing = _flowing(view, recorded, position) if contributions else {}
    taken = {n.name for n in recorded if n.name} if "local" in view.show else set()
    home = {i: n.id for n in view.nodes for a, b in n.members or ((n.id, n.id),) for i in range(a, b + 1)}

    def share(e: ViewEdge, key: Key) -> tuple[tuple[int, int], Any]:
        """Return whose gradient, and what part of it, an edge of the tape carries that is drawn as part of e."""
        source, target, k = key
        node, part = recorded[position[target]], flowing[key]
        if home[source] == e.source:
            return (source, node.outs[k] if node.outs else 0), part
        # read past a stack: of what flows back into the stack, the piece that was read
        stack, index = recorded[position[source]], node.params["index"]
        piece = int(index[0] if isinstance(index, tuple) else index) % len(stack.inputs)
        return (stack.inputs[piece].id, stack.outs[piece] if stack.outs else 0), part[index]

    edges = []
    for e in view.edges:
        found: dict[str, Any] = {}
        if e.target >= 0:
            node = recorded[position[e.target]]
            if "local" in view.show:
                found["local"], found["local_latex"] = _immediate(node, e.argument, taken)
            if "gain" in view.show and node.requires_grad and node.inputs[e.argument].requires_grad:
                found["gain"] = _rounded(gain(node, e.argument))
        if contributions:
            found["contribution"] = _bundled([share(e, key) for key in e.keys if key in flowing])
        edges.append(replace(e, **found) if found else e)
    return tuple(edges)


def _flowing(view: View, recorded: list[Any], position: Mapping[int, int]) -> dict[Key, Any]:
    """Return what the last backward pass sent along the edges of the tape that are drawn."""
    wanted: dict[int, list[int]] = {}
    for e in view.edges:
        for _, target, argument in e.keys:
            wanted.setdefault(target, []).append(argument)
    flowing: dict[Key, Any] = {}
    for target, arguments in wanted.items():
        node = recorded[position[target]]
        parts = carried(node, [k in arguments for k in range(len(node.inputs))])
        for k in arguments:
            if parts[k] is not None:
                flowing[node.inputs[k].id, target, k] = parts[k]
    return flowing


def _bundled(parts: list[tuple[tuple[int, int], Any]]) -> Summary | None:
    """Add up what flows to the same value, and measure all values together."""
    sums: dict[tuple[int, int], Any] = {}
    for value, part in parts:
        total = sums.get(value)
        sums[value] = part if total is None else total + part
    arrays = list(sums.values())
    if not arrays:
        return None
    whole = arrays[0] if len(arrays) == 1 else np.concatenate([array.reshape(-1) for array in arrays])
    return _summary(whole, str(whole.dtype))


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")


def _immediate(node: Any, k: int, taken: Collection[str]) -> tuple[str | None, str | None]:
    """Return ∂⁺ of an edge in the model's names, as text and as LaTeX.

    Where a name has to come from the page (the result y, an operand a), and a value of the model has that name as well,
    it is the operation and its place on the tape instead, as in explanations: ``mul#12``.
    """
    record = getattr(node, "record", None)
    if record is None:
        return _at(node.local, k), _at(getattr(node, "local_latex", None) or (), k)
    names: dict[str, str] = {}
    latex: dict[str, str] = {}
    numbers = {word: value for word, value in (node.params or {}).items() if type(value) in (int, float)}
    if (node.params or {}).get("reduction", "mean") != "mean" and node.params.get("weight") is None:
        numbers["N"] = 1
    if not getattr(record, "variadic", True):  # a user's Function takes any number of operands as well
        results = node.outs or (0,) * len(node.inputs)
        for word, parent, result in zip(record.operands, node.inputs, results, strict=False):
            if result:
                own = _plainly(parent.outputs[result].name)
                called = (own, _as_latex(own)) if own else None
            else:
                called = _called(parent)
            if not called and (value := _alone(parent)) is not None and not parent.requires_grad:
                called = (f"{value:.3g}",) * 2
                if math.isfinite(value):
                    numbers[word] = value
            if not called and word in taken:
                called = _by_place(parent)
            if called:
                names[word], latex[word] = called
    own = _plainly(node.name)
    if own or "y" in taken:
        names["y"], latex["y"] = (own, _as_latex(own)) if own else _by_place(node)
    text = immediate(record, k, names, numbers)
    return text, None if text is None else immediate(record, k, latex, numbers, latex=True)


def _called(node: Any) -> tuple[str, str] | None:
    """Return what a value is called in a formula, as text and as LaTeX: its letter, its name, or a short formula."""
    piece = _SLICE.match(node.name or "")
    gate = piece[2] if piece and not piece[2].isdecimal() else None
    if node.kind == "parameter" or (gate and node.op == "getitem"):
        letter = parameter_letter(piece[1] if piece else node.name)
        return (f"{letter}_{gate}", f"{_as_latex(letter)}_{{{gate}}}") if gate else (letter, _as_latex(letter))
    own = _plainly(node.name)
    if own:
        return own, _as_latex(own)
    if node.op == "mT" and node.inputs[0].op in ("parameter", "getitem"):
        return _called(node.inputs[0])  # turned round for a product: W h is what is written
    if node.op == "affine" and len(node.inputs) > 1:
        weight, x = _called(node.inputs[1]), _called(node.inputs[0])
        if not weight or not x:
            return None
        alone = re.fullmatch(r"[\w₋₀-₉]+", x[0])
        text, latex = x if alone else (f"({x[0]})", rf"\left({x[1]}\right)")
        plus = ("+b", " + b") if len(node.inputs) > 2 else ("", "")
        return f"{weight[0]} {text}{plus[0]}", rf"{weight[1]} {latex}{plus[1]}"
    if node.kind != "op" or getattr(node.record, "kind", "") != "elementwise":
        return None
    inside = {word: _plainly(x.name) or _number(x) for word, x in zip(node.arguments, node.inputs, strict=True)}
    if not all(inside.values()):
        return None
    names = {word: name for word, name in inside.items() if name}
    text = set_short(node.record.value_expr, names)
    if len(text) > _FORMULA_INSIDE:
        return None
    return text, to_latex(node.record.value_expr, {word: _as_latex(name) for word, name in names.items()})


def _by_place(node: Any) -> tuple[str, str]:
    word = node.op.replace("_", r"\_")
    return f"{node.op}#{node.id}", rf"\mathrm{{{word}}}_{{{node.id}}}"


def _number(node: Any) -> str | None:
    value = _alone(node)
    return None if value is None else f"{value:.3g}"


def _alone(node: Any) -> float | None:
    """Return the number that a leaf of one element holds."""
    if node.kind == "op" or node.value is None or node.value.size != 1:
        return None
    return float(host(node.value).reshape(-1)[0])


def _plainly(name: str | None) -> str | None:
    shown = pretty(name)
    return shown if shown and "_" not in shown else None


def _as_latex(name: str) -> str:
    low = re.sub("[₋₀-₉]+", lambda found: "_{" + found[0].translate(_RAISED) + "}", name)
    return re.sub(r"[A-Za-z]{2,}", lambda found: rf"\mathrm{{{found[0]}}}", low)


_PARAMETERS = (("weight_hh", "U"), ("weight_ph", "p"), ("weight_gg", "G"), ("weight_hr", "V"), ("gain", "γ"))


def parameter_letter(name: str | None) -> str:
    """Return a textbook's letter for a parameter: W for input weights, U recurrent ones, p peepholes, b biases.

    V is a projection, γ the gain of a layer normalisation, and G between gates.
    """
    text = (name or "").rsplit(".", 1)[-1]
    for start, letter in _PARAMETERS:
        if text.startswith(start):
            return letter
    if text.startswith("weight"):
        return "W"
    if text.startswith("bias"):
        return "b"
    return text if text and "_" not in text else "W"


def light(view: View, keys: Iterable[Key]) -> View:
    """Return the view with the edges lit that stand for these edges of the tape."""
    wanted = frozenset(keys)
    return replace(view, edges=tuple(replace(e, lit=True) if wanted.intersection(e.keys) else e for e in view.edges))


def _with_words(view: View, said: Said) -> View:
    """Write into the frame of each step, or of all steps that a fold stands for, what is to be said of them."""
    frames = {t: range(t, t + 1) for t in view.steps}
    for n in view.nodes:
        if n.step is not None and n.span is not None:
            frames[n.step] = range(n.span[0], n.span[1] + 1)
    if len(frames) == 1 and len(next(iter(frames.values()))) > 1:
        return view  # all steps in one frame have nothing to be told apart by
    notes = dict(view.notes)
    for t, steps in frames.items():
        if words := said(steps):
            notes[t] = f"{notes[t]} · {words}" if t in notes else words
    return replace(view, notes=tuple(sorted(notes.items())))


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
        by: ``"time"`` folds the steps that are not in `keep` (neighbouring ones into one node), ``"cell"`` each
            layer of each step, ``"layer"`` what was recorded in one layer, ``"gate"`` each gate of each step, and a
            function what it gives one name, which the fold then has. A single node stays as it is. What is left and
            entered again makes a loop: the order of nodes is then that of their first members.
        keep: with ``"time"`` the steps to leave as they are (the first three and the last two if not given);
            otherwise the node ids to leave as they are.

    Edges that become one carry no contribution any more: what flows to one value has to be added up before it is
    measured. `view_of` does that with a fold that it is given (``fold_with``).

    Raises:
        UsageError: `by` is neither a function nor one of these words.
    """
    if by == "cell":
        return unroll(view, keep or ())
    if by == "time":
        group = _group_by_time(view, keep)
    elif callable(by) or by in _NAMED_FOLDS:
        name = by if callable(by) else _NAMED_FOLDS[by]
        kept = frozenset(keep or ())
        group = {n.id: key for n in view.nodes if n.id not in kept and (key := name(n)) is not None}
        sizes = Counter(group.values())
        group = {i: key for i, key in group.items() if sizes[key] > 1}
        if by != "gate":  # a gate is called by what it is
            return _quotient(view, group, {key: key.replace("/", " ") for key in group.values()})
    else:
        raise UsageError(f"cannot fold by {by!r}: choose {', '.join(FOLDS)} or a function of a node")
    return _quotient(view, group)


def unroll(view: View, keep: Collection[int] = ()) -> View:
    """Return the view with each layer of each step as one block: the recurrent net as textbooks unroll it.

    The nodes whose ids are in `keep` stay as they are.
    """
    inside = _recurrent_inside(view)
    group: dict[int, str] = {}
    label: dict[str, str] = {}
    for n in view.nodes:
        if n.step is None or n.kind == "fold" or n.tap is not None or _is_read(n) or n.op == "detach":
            continue
        before = _before_step(n.scope)
        if before:
            key, words = f"{'/'.join(before)}/t={n.step}", " ".join(before)
        elif n.time is not None:
            continue  # in a step and in no layer: what the model does with its states
        elif n.id in inside:
            # steps that were found and not announced: the module is all that is known, if it was one
            key, words = f"{n.scope[:1]}/t={n.step}", n.scope[0] if n.scope else "cell"
        else:
            continue
        if n.id not in keep:
            group[n.id], label[key] = key, words
    readers: dict[int, set[int]] = {}
    for e in view.edges:
        readers.setdefault(e.source, set()).add(e.target)
    for n in view.nodes:  # a number that only one block needs, the 1 of 1 - z, is part of its formula
        read = readers.get(n.id, set())
        if n.kind == "constant" and not n.shape and not n.name and n.id not in keep and len(read) == 1:
            whose = group.get(next(iter(read)))
            if whose is not None:
                group[n.id] = whose
    sizes = Counter(group.values())
    return _quotient(view, {i: key for i, key in group.items() if sizes[key] > 1}, label)


def _before_step(scope: tuple[str, ...]) -> tuple[str, ...]:
    return scope[: next((k for k, part in enumerate(scope) if part.startswith("t=")), 0)]


def _is_read(node: ViewNode) -> bool:
    """Whether a node is a piece of a sequence, x₃: an input of its step and no part of a layer."""
    return node.kind != "op" or (node.op in _SHAPERS and node.name is not None)


def _recurrent_inside(view: View) -> set[int]:
    """Return what lies between the state that a step receives and the one it hands on.

    The last step hands on nothing: what is the same operation as one inside of another step is inside as well.
    """
    step = {n.id: n.step for n in view.nodes}
    within = [e for e in view.edges if step[e.target] is not None and step[e.source] == step[e.target]]
    passed = [e for e in view.edges if e.role in ("cell", "hidden") and step[e.source] != step[e.target]]
    before = {e.source for e in passed if step[e.source] is not None}
    for e in reversed(within):
        if e.target in before:
            before.add(e.source)
    alike = _alike({n.id: n for n in view.nodes}, ((e.target, e.argument, e.source) for e in view.edges))
    kinds = {alike[i] for i in before if i in alike}
    return {i for i, kind in alike.items() if kind in kinds}


def _alike(nodes: Mapping[int, _Draft | ViewNode], reads: Iterable[tuple[int, int, int]]) -> dict[int, Kind]:
    """Return what an operation is within its step: the same for the same operation of every step.

    `reads` are (target, argument, source) in this order.
    """
    roots: dict[int, list[tuple[int, int]]] = {}
    for target, argument, source in reads:
        root = _root(nodes[source])
        if root is not None:
            roots.setdefault(target, []).append((argument, root))
    seen: Counter[Kind] = Counter()
    untimed: dict[tuple[str, ...], tuple[str, ...]] = {}
    alike: dict[int, Kind] = {}
    for n in nodes.values():
        if n.kind == "op" and n.step is not None and n.tap is None:
            if n.scope not in untimed:
                untimed[n.scope] = tuple(p for p in n.scope if not p.startswith("t="))
            kind = (n.op, untimed[n.scope], tuple(roots.get(n.id, ())))
            seen[n.step, kind] += 1
            alike[n.id] = (kind, seen[n.step, kind])
    return alike


def roll(view: View) -> View:
    """Return the view with all steps as one: a block for each layer, and its states led back to it as loops.

    What is the same in all steps is one node that stands for all of them; `span` says for which.
    """
    view = unroll(view)
    steps = view.steps
    if not steps:
        return view
    group: dict[int, str] = {}
    label: dict[str, str] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for n in view.nodes:
        if n.step is None or n.tap is not None:
            continue
        stem = rolled_name(n.name)
        kind = (n.label if n.kind == "fold" else n.op, n.kind, _before_step(n.scope), stem)
        seen[(n.step, *kind)] += 1
        key = repr((*kind, seen[(n.step, *kind)]))
        group[n.id], label[key] = key, n.label if n.kind in ("fold", "op") and n.op not in _SHAPERS else stem or n.label
    sizes = Counter(group.values())
    group = {i: key for i, key in group.items() if sizes[key] > 1}
    step = {n.id: n.step for n in view.nodes}
    rolled = _quotient(view, group, label, lambda e: step[e.source] != step[e.target], lambda e: rolled_name(e.carries))
    nodes = (
        n if n.step is None else replace(n, step=steps[0], span=(steps[0], steps[-1]) if n.kind == "fold" else None)
        for n in rolled.nodes
    )
    # all of a sequence goes into one operation as one line
    lines: dict[tuple[int, int, str | None], list[ViewEdge]] = {}
    for e in rolled.edges:
        lines.setdefault(
            (e.source, e.target, e.carries) if e.source < 0 else (e.source, e.target, repr(e.keys)), []
        ).append(e)
    whole = (
        together[0] if len(together) == 1 else replace(together[0], parts=tuple(k for e in together for k in e.keys))
        for together in lines.values()
    )
    return replace(rolled, nodes=tuple(nodes), edges=tuple(whole), notes=())


def gather(view: View) -> View:
    """Return the view with the parameters that only one block, or its like in each step, reads as one node."""
    by_id = {n.id: n for n in view.nodes}
    read: dict[int, dict[str, bool]] = {n.id: {} for n in view.nodes if n.kind == "parameter"}
    for e in view.edges:
        source, target = by_id[e.source], by_id[e.target]
        root = source.tap if source.tap is not None else source.id
        if root in read and target.tap is None and not target.label.startswith(_ELIDED):
            block = target.op == "fold"
            words = target.label if block else "/".join((*_before_step(target.scope), target.op))
            read[root][words] = block
    group = {i: repr(sorted(words)) for i, words in read.items() if words}
    sizes = Counter(group.values())
    group = {i: key for i, key in group.items() if sizes[key] > 1}
    names: dict[str, str] = {}
    for key in dict.fromkeys(group.values()):
        roots = [i for i, other in group.items() if other == key]
        blocks = [words for words, block in read[roots[0]].items() if block]
        modules = {(by_id[i].name or "").rpartition(".")[0] for i in roots}
        whose = blocks[0] if len(blocks) == 1 else modules.pop() if len(modules) == 1 else ""
        names[key] = f"{whose}: {len(roots)} parameters" if whose else f"{len(roots)} parameters"
    group.update({n.id: group[n.tap] for n in view.nodes if n.tap is not None and n.tap in group})
    edges = tuple(replace(e, carries=None) if e.source in group else e for e in view.edges)
    gathered = _quotient(replace(view, edges=edges), group, names)
    labels = set(names.values())
    return replace(
        gathered,
        nodes=tuple(
            replace(n, kind="parameter", op="parameter", name=n.label, gate=None, shared=True)
            if n.id < 0 and n.label in labels
            else n
            for n in gathered.nodes
        ),
    )


def rolled_name(name: str | None) -> str | None:
    """Return the name of a value in no step in particular: ``h[3]`` is hₜ."""
    found = _INDEXED.match(name) if name else None
    return f"{found[1]}ₜ" if found else name


def once(view: View) -> View:
    """Return the view with slices of parameters that are cut again and again as one node each."""
    group: dict[int, str] = {}
    names = {n.id: i for i, n in enumerate(view.nodes)}
    sources = {e.target: e.source for e in view.edges}
    for n in view.nodes:
        if n.tap is not None:
            source = sources.get(n.id, n.tap)
            group[n.id] = repr((group.get(source, source), n.op, sorted(n.params.items(), key=str), n.name))
    counts = Counter(group.values())
    group = {i: key for i, key in group.items() if counts[key] > 1}
    if not group:
        return view
    merged = _quotient(view, group)
    nodes = []
    for n in merged.nodes:
        if n.kind == "fold" and (first := view.nodes[names[-1 - n.id]]).tap is not None:
            n = replace(first, id=n.id, kind="fold", members=n.members, step=None, scope=n.scope)
        nodes.append(n)
    return replace(merged, nodes=tuple(nodes))


def past_stacks(view: View) -> View:
    """Return the view with every piece of a stack read from where it came: ``stack(y₀, y₁)[1]`` is y₁.

    A layer gives back the outputs of all steps as one array, of which a model then reads one a step; drawn as computed,
    each step would wait for the last one.
    """
    by_id = {n.id: n for n in view.nodes}
    pieces: dict[int, dict[int, ViewEdge]] = {}
    for e in view.edges:
        if by_id[e.target].op == "stack" and by_id[e.target].params.get("axis", 0) == 0:
            pieces.setdefault(e.target, {})[e.argument] = e
    if not pieces:
        return view
    edges = []
    for e in view.edges:
        index = by_id[e.target].params.get("index") if by_id[e.target].op == "getitem" else None
        if isinstance(index, list) and len(index) == 1:
            index = index[0]
        of = pieces.get(e.source, {})
        if isinstance(index, int) and not isinstance(index, bool) and of:
            piece = of.get(index % by_id[e.source].shape[0])  # where steps are folded not all pieces are there
            if piece is not None:
                e = replace(e, source=piece.source, result=piece.result, carries=piece.carries, parts=e.keys)
        edges.append(e)
    return replace(view, edges=tuple(edges))


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


def _find_taps(drafts: dict[int, _Draft], children: Mapping[int, list[int]]) -> None:
    """Find what only rearranges one parameter: it is drawn on its rail, with the gate of what reads it."""
    for n in drafts.values():
        if n.kind == "op" and n.op in _SHAPERS and len(n.parents) == 1:
            source = drafts[n.parents[0]]
            n.tap = source.id if source.kind == "parameter" else source.tap
    for n in reversed(list(drafts.values())):
        if n.tap is not None:
            gates = {drafts[c].gate for c in children[n.id]}
            n.gate = gates.pop() if len(gates) == 1 else None


def _find_steps(drafts: Mapping[int, _Draft], children: Mapping[int, list[int]]) -> None:
    """Give every step the untimed nodes that repeat with it: slices of a sequence, logits, losses, targets."""
    if all(n.step is None for n in drafts.values()):
        for i, t in _found_steps(drafts).items():
            drafts[i].step = t
    steps = {n.step for n in drafts.values() if n.step is not None}
    if not steps:
        return
    loose = [n for n in drafts.values() if n.step is None and n.kind != "parameter" and n.tap is None]
    initial = _initial_states(drafts)
    for n in loose:
        # a leaf is recorded where it is first used, which makes it part of that step only if nobody else reads it
        users = {drafts[c].step for c in children[n.id]}
        if n.kind != "op" and len(users) == 1 and n.id not in initial and not _is_initial(n):
            (n.step,) = users
    loose = [n for n in loose if n.id not in initial]

    def sort(n: _Draft) -> tuple[Any, ...]:
        return (n.op, n.kind, n.shape, _stem(n.name))

    def adopt(candidates: list[tuple[_Draft, int]]) -> bool:
        # one a step and the same thing in each: only then is it part of what a step does
        seen: dict[tuple[Any, ...], set[int]] = {}
        for n, t in candidates:
            seen.setdefault(sort(n), set()).add(t)
        moved = False
        for n, t in candidates:
            several = len(seen[sort(n)])
            if (several == len(steps) or (several > 1 and n.kind != "op")) and not (len(steps) == 1 and _is_initial(n)):
                n.step = t
                moved = True
        return moved

    def only_step(ids: Iterable[int]) -> int | None:
        times = {drafts[i].step for i in ids}
        return times.pop() if len(times) == 1 else None

    def after(n: _Draft) -> int | None:
        read = [p for p in n.parents if drafts[p].kind != "parameter" and drafts[p].tap is None]
        # leaves made for this operation alone (a target) come along with it
        return only_step(
            p for p in read if drafts[p].kind == "op" or drafts[p].step is not None or children[p] != [n.id]
        )

    moved = True
    while moved:
        loose = [n for n in loose if n.step is None]
        moved = adopt([(n, at) for n in loose if n.kind == "op" and (at := after(n)) is not None])
        free = [n for n in reversed(loose) if n.step is None and len(n.parents) < 2]
        moved |= adopt([(n, at) for n in free if (at := only_step(children[n.id])) is not None])


def _initial_states(drafts: Mapping[int, _Draft]) -> set[int]:
    """Return the leaves that stand where later steps read what an earlier one computed: h₀, c₀ by whatever name."""
    reads = [(n.id, k, p) for n in drafts.values() for k, p in n.operands]
    alike = _alike(drafts, reads)
    # such a place is initial in the first step of its kind, and in the last one for what reads backwards; a leaf that
    # stands there in between is what a program put in its place (teacher forcing)
    ends: dict[Kind, tuple[int, int]] = {}
    for i, kind in alike.items():
        t = drafts[i].step
        assert t is not None
        low, high = ends.get(kind, (t, t))
        ends[kind] = min(low, t), max(high, t)
    handed: set[tuple[Kind, int, int]] = set()
    for target, argument, source in reads:
        before, now = drafts[source].step, drafts[target].step
        if target in alike and before is not None and now is not None and before != now:
            handed.add((alike[target], argument, ends[alike[target]][before > now]))
    leaves = ((t, k, p) for t, k, p in reads if drafts[p].kind in ("input", "constant") and t in alike)
    return {source for target, k, source in leaves if (alike[target], k, drafts[target].step) in handed}


def _found_steps(drafts: Mapping[int, _Draft]) -> dict[int, int]:
    """Return the steps of loops that opened no scopes: cells called again and again, each after the one before."""
    ops = [n for n in drafts.values() if n.kind == "op" and n.tap is None]
    kind = {n.id: (n.op, n.scope) for n in ops}
    anchors = {}
    for n in ops:
        roots = tuple((k, root) for k, p in n.operands if (root := _root(drafts[p])) is not None)
        if roots:
            anchors[n.id] = (*kind[n.id], roots)
    if not anchors:
        return {}
    small = {n.id: math.prod(n.shape) == 1 for n in ops}
    return steps_of_loops([n.id for n in ops], kind, {n.id: n.parents for n in ops}, anchors, small)


def _roles(
    drafts: Mapping[int, _Draft], children: Mapping[int, list[int]]
) -> Callable[[int, int, int, str | None], str]:
    """Return what says, of an edge (source, target, argument, what it carries), its role: parameter, data, a state."""
    named: dict[int, str | None] = {}
    for n in drafts.values():  # a state that was cut off is still that state
        named[n.id] = named[n.parents[0]] if n.op == "detach" and n.name is None else n.name
    first = min((n.step for n in drafts.values() if n.step is not None), default=None)

    def enters(n: _Draft) -> bool:
        """Whether it is an initial state: read by the first step only."""
        return n.step is None and all(drafts[c].step == first for c in children[n.id])

    def role(parent: int, child: int, argument: int, carries: str | None) -> str:
        source, target = drafts[parent], drafts[child]
        if _root(source) is not None:
            return "parameter"
        if target.step is None or source.step == target.step:
            return "data"
        word = _at(target.arguments, argument)
        if _CELL.fullmatch(target.op) and word:
            # a fused cell hands on several states under one name; its operands say which is which
            return {"c": "cell", "h": "hidden"}.get(word[0], "data")
        stem = _LETTERS.match(carries or named[parent] or "")
        if stem and stem[0] in ("c", "h"):
            return "cell" if stem[0] == "c" else "hidden"
        if source.step is None and not enters(source):
            return "data"
        # without names: what is multiplied elementwise is a memory, what goes through a matrix an output
        if target.op == "mul":
            return "cell" if source.op == "add" or source.step is None else "data"
        return "hidden" if target.op in ("affine", "matmul", "einsum") else "data"

    return role


def _root(node: _Draft | ViewNode) -> int | None:
    """Return the parameter that a node is, or is a piece of."""
    return node.id if node.kind == "parameter" else node.tap


def _is_initial(node: _Draft) -> bool:
    match = _INDEXED.match(node.name or "")
    return bool(match and match.group(1) in ("h", "c")) or (node.kind != "op" and node.name in ("h0", "c0", None))


def _stem(name: str | None) -> str:
    return re.sub(r"\d+", "#", name) if name else ""


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
    # one layer alone has no number
    return "/".join(_before_step(node.scope)) or None


def _gate_of(node: ViewNode) -> str | None:
    return "/".join(node.scope) if node.gate and node.tap is None else None


_NAMED_FOLDS: dict[str, Callable[[ViewNode], str | None]] = {"layer": _layer_of, "gate": _gate_of}
FOLDS = ("time", "cell", *_NAMED_FOLDS)
"""What `fold` can be told by name."""


def _quotient(
    view: View,
    group: Mapping[int, str],
    label: Mapping[str, str] | None = None,
    loops: Callable[[ViewEdge], bool] = lambda edge: False,
    carries: Callable[[ViewEdge], str | None] = lambda edge: edge.carries,
) -> View:
    """Return the view with groups of nodes, {node: group}, as one node each, and the edges between two as one.

    Args:
        view: what to fold.
        group: the group of each node that is to be in one.
        label: what a group is called.
        loops: whether an edge from a group to itself stays.
        carries: what an edge carries in the new view; edges that differ in it stay apart.
    """
    members: dict[str, list[ViewNode]] = {}
    for n in view.nodes:
        if n.id in group:
            members.setdefault(group[n.id], []).append(n)
    stands_for = {i: _fold_id(members[key][0]) for i, key in group.items()}
    nodes: list[ViewNode] = []
    for n in view.nodes:
        key = group.get(n.id)
        if key is None:
            nodes.append(n)
        elif members[key][0] is n:
            nodes.append(_folded(_fold_id(n), members[key], (label or {}).get(key)))
    edges: list[ViewEdge] = []
    inside: set[int] = set()
    bundle: dict[tuple[int, int, str | None], list[ViewEdge]] = {}
    for e in view.edges:
        source, target = stands_for.get(e.source, e.source), stands_for.get(e.target, e.target)
        if source == target and e.source != e.target and not loops(e):
            if e.lit:
                inside.add(source)
            continue
        word = carries(e)
        if target >= 0:
            same = source == e.source and word == e.carries
            edges.append(e if same else replace(e, source=source, carries=word, parts=e.keys))
            continue
        together = bundle.setdefault((source, target, word), [])
        if not together:
            edges.append(ViewEdge(source, target, -1, carries=word, role=e.role))
        together.append(e)
    arguments: Counter[int] = Counter()
    for k, e in enumerate(edges):
        if e.argument < 0:
            parts = bundle[e.source, e.target, e.carries]
            edges[k] = replace(
                e,
                argument=arguments[e.target],
                parts=tuple(key for part in parts for key in part.keys),
                name=parts[0].name if len({part.name for part in parts}) == 1 else "",
                cut=all(part.cut for part in parts),
                lit=any(part.lit for part in parts),
            )
            arguments[e.target] += 1
    whole = tuple(replace(n, lit=True) if n.id in inside else n for n in nodes)
    spans = [n.span for n in nodes if n.span]
    notes = tuple((t, words) for t, words in view.notes if not any(first <= t <= last for first, last in spans))
    return replace(view, nodes=whole, edges=tuple(_together(edges)), notes=notes)


def _together(edges: list[ViewEdge]) -> Iterator[ViewEdge]:
    """Yield edges, but a single one for very many from one fold into one operation: the losses of a thousand steps."""
    lines: dict[tuple[int, int], list[ViewEdge]] = {}
    for e in edges:
        if e.source < 0 <= e.target:
            lines.setdefault((e.source, e.target), []).append(e)
    for e in edges:
        same = lines.get((e.source, e.target), [])
        if len(same) <= _LINES_APART:
            yield e
        elif e is same[0]:
            keys = tuple(key for part in same for key in part.keys)
            yield replace(
                e, carries=None, parts=keys, cut=all(part.cut for part in same), lit=any(part.lit for part in same)
            )


def _fold_id(first: ViewNode) -> int:
    """Return the identity of a fold by its first member; a fold of folds is called as the first of them."""
    return first.id if first.id < 0 else -1 - first.id


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
        label = f"{_ELIDED} {len(steps)} steps"
    else:
        label = f"{_ELIDED} {count} operations"
    alike = {(n.op, n.kind, n.shape) for n in members}
    op, _, shape = alike.pop() if len(alike) == 1 else ("fold", "", ())
    return ViewNode(
        id=id,
        op=op,
        kind="fold",
        label=label,
        scope=_common([n.scope for n in members]),
        time=None,
        step=steps[0] if steps else None,
        gate=gate,
        shape=shape,
        requires_grad=any(n.requires_grad for n in members),
        lit=any(n.lit for n in members),
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
    cls: {f.name: f.default if f.default_factory is not dict else {} for f in fields(cls) if f.compare}
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


def _read_edge(record: dict[str, Any]) -> ViewEdge:
    data = dict(record)
    data["contribution"] = _read_summary(data.get("contribution"))
    if data.get("gain") is not None:
        data["gain"] = float(data["gain"])
    return ViewEdge(**data)


def _read_node(record: dict[str, Any]) -> ViewNode:
    data = dict(record)
    for name in ("scope", "shape"):
        data[name] = tuple(data.get(name, ()))
    data["members"] = tuple((a, b) for a, b in data.get("members", ()))
    if "span" in data:
        data["span"] = tuple(data["span"])
    data["value"], data["grad"] = _read_summary(data.get("value")), _read_summary(data.get("grad"))
    return ViewNode(**data)
