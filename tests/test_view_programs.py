"""Views of recurrent programs of all shapes, held to what the tape recorded and to numeric derivatives."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from programs import PROGRAMS

import minigrad as mg
from minigrad.graph import SHOW, View, elide, fold, view_of
from minigrad.graph.view import past_stacks, pretty, roll, unroll
from minigrad.render import render

SEEDS = (0, 1)
FOLDS = {
    "not": lambda view: view,
    "time": lambda view: fold(view, "time", keep=view.steps[:1]),
    "cell": lambda view: fold(view, "cell"),
    "layer": lambda view: fold(view, "layer"),
    "gate": lambda view: fold(view, "gate"),
    "every third": lambda view: fold(view, lambda n: str(n.id % 3) if n.kind == "op" else None),
    "operation": lambda view: fold(view, lambda n: n.op),
    "all": lambda view: fold(view, lambda n: "all"),
    "gates, then steps": lambda view: fold(fold(view, "gate"), "time", keep=view.steps[:1]),
    "steps, then all steps": lambda view: fold(
        fold(view, "time", keep=view.steps[1:2]), lambda n: None if n.step is None else "steps"
    ),
    "middle": lambda view: elide(view, limit=5, keep=2),
}


@pytest.fixture(
    scope="module", params=[(p, seed) for p in PROGRAMS for seed in SEEDS], ids=lambda p: f"{p[0].__name__}{p[1]}"
)
def tape(request):
    program, seed = request.param
    return program(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def view(tape):
    return view_of(tape, show=SHOW)


def recorded_edges(tape):
    return Counter((parent.id, node.id, k) for node in tape.nodes for k, parent in enumerate(node.inputs))


def home(view):
    """Return in which node of a view each recorded one is; fail where one is in two."""
    found = {}
    for n in view.nodes:
        for first, last in n.members or ((n.id, n.id),):
            for i in range(first, last + 1):
                assert i not in found
                found[i] = n.id
    return found


def test_the_whole_view_is_the_tape(tape):
    view = view_of(tape, show=(), repeats=True)
    assert [n.id for n in view.nodes] == [n.id for n in tape.nodes]
    assert Counter((e.source, e.target, e.argument) for e in view.edges) == recorded_edges(tape)
    by_id = {n.id: n for n in tape.nodes}
    assert all(n.name == by_id[n.id].name and n.op == by_id[n.id].op for n in view.nodes)


@pytest.mark.parametrize("by", FOLDS)
def test_folding_loses_nothing(tape, view, by):
    folded = FOLDS[by](view)
    inside = home(folded)
    assert inside.keys() == {n.id for n in tape.nodes}
    crossing = {key: n for key, n in recorded_edges(tape).items() if inside[key[0]] != inside[key[1]]}
    assert Counter(key for e in folded.edges for key in e.keys) == crossing
    assert all((inside[s], inside[t]) == (e.source, e.target) for e in folded.edges for s, t, _ in e.keys)
    assert len({(e.target, e.argument) for e in folded.edges}) == len(folded.edges)
    assert all(view.node(n.id) == n for n in folded.nodes if n.id >= 0)
    assert sum(n.count for n in folded.nodes) == len(tape.nodes)
    assert View.from_json(folded.to_json()) == folded


def test_pictures_lose_no_node(tape):
    for shape in (past_stacks, lambda v: unroll(past_stacks(v)), lambda v: roll(past_stacks(v))):
        assert home(view_of(tape, show=(), fold_with=shape)).keys() == {n.id for n in tape.nodes}


@pytest.mark.parametrize("style", ["graph", "unrolled", "rolled"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_every_style_draws_every_program(program, style):
    tape = program(np.random.default_rng(0))
    made = render(tape, style=style, backward=True, flow="width", show=("local",)).data
    lines = {back: set(re.findall(rf'<path class="e [^"]*" id="{back}(e-[^"]*)"', made)) for back in ("", "back-")}
    assert lines["back-"] < lines[""]


@pytest.mark.parametrize("program", PROGRAMS[::3], ids=lambda program: program.__name__)
def test_pictures_of_a_view_from_text_are_the_same_bytes(program):
    view = view_of(program(np.random.default_rng(0)), show=("shape", "value", "local", "flow"))
    for kind in ("svg", "dot", "mermaid", "text"):
        assert render(View.from_json(view.to_json()), format=kind).data == render(view, format=kind).data


def test_sizes_are_numpys(tape, view):
    by_id = {n.id: n for n in tape.nodes}
    for n in view.nodes:
        for seen, array in ((n.value, by_id[n.id].value), (n.grad, by_id[n.id].grad)) if n.id >= 0 else ():
            assert (seen is None) == (array is None)
            if seen is None:
                continue
            array = np.asarray(array)
            assert n.shape == by_id[n.id].shape
            found = (seen.min, seen.max, seen.mean, seen.norm)
            wanted = (array.min(), array.max(), array.mean(), np.sqrt(np.sum(array.astype(float) ** 2)))
            assert found == pytest.approx(wanted, rel=6e-6, abs=1e-9)
            assert seen.numbers == (tuple(array.reshape(-1).tolist()) if array.size <= 64 else None)


# --- derivatives --------------------------------------------------------------------------------------------


def one_rule(node):
    """Say whether an operation is one formula of the page; the others run no second time from their operands alone."""
    return node.record is not None and node.record.kind in ("elementwise", "linear", "general")


def values_of(node):
    """Return what an operation was computed from, whichever results of its inputs that is."""
    return [np.asarray(x.numpy()) for x in node.operands()]


def again(node, k, moved):
    """Return the result of an operation with another operand k; only its forward formula runs."""
    operands = [mg.tensor(value) for value in values_of(node)]
    operands[k] = mg.tensor(moved)
    params = {name: value for name, value in (node.params or {}).items() if name in node.record.params}
    with mg.no_grad():
        return node.record(*operands, **params).numpy()


def pushed(node, k, direction, step=1e-6):
    """Return the central difference of an operation's result along a direction of operand k."""
    x = values_of(node)[k]
    return (again(node, k, x + step * direction) - again(node, k, x - step * direction)) / (2 * step)


def checkable(tape, view):
    """Yield the edges of single operations: (edge, its operation, which operand)."""
    by_id = {n.id: n for n in tape.nodes}
    for e in view.edges:
        for _, target, k in e.keys if len(e.keys) == 1 else ():
            if one_rule(by_id[target]) and all(x.outputs for x in by_id[target].inputs):  # rebuilt ones have none
                yield e, by_id[target], k


def test_what_edges_carry_is_the_numeric_derivative(tape, view):
    rng = np.random.default_rng(7)
    for e, node, k in checkable(tape, view):
        if e.contribution is None:
            assert node.grad is None or not node.inputs[k].requires_grad or node.op == "detach"
            continue
        assert node.inputs[k].requires_grad
        direction = rng.normal(size=values_of(node)[k].shape)
        wanted = np.sum(pushed(node, k, direction) * np.asarray(node.grad))
        if e.contribution.numbers is not None:
            assert np.dot(e.contribution.numbers, direction.reshape(-1)) == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_contributions_add_up(tape):
    parts = {}
    for e in view_of(tape, contributions=True, repeats=True).edges:
        if e.contribution is not None:
            parts.setdefault((e.source, e.result), []).append(e.contribution)
    by_id = {n.id: n for n in tape.nodes}
    for (i, result), found in parts.items():
        if all(part.numbers is not None for part in found):
            whole = by_id[i].outputs[result].grad.numpy() if by_id[i].outputs else by_id[i].grad
            total = np.sum([part.numbers for part in found], axis=0)
            np.testing.assert_allclose(total, np.asarray(whole).reshape(-1), rtol=1e-10, atol=1e-13)


def test_gain_is_the_norm_of_the_jacobian(tape, view):
    for e, node, k in checkable(tape, view):
        shape = values_of(node)[k].shape
        size = math.prod(shape)
        if e.gain is None or size > 30:
            continue
        units = np.eye(size).reshape(size, *shape)
        jacobian = np.stack([pushed(node, k, unit).reshape(-1) for unit in units])
        wanted = jacobian.item() if jacobian.size == 1 else np.linalg.norm(jacobian, 2)
        assert e.gain == pytest.approx(wanted, rel=1e-3, abs=1e-8), (node.op, k)


_FUNCTIONS = {
    "tanh": np.tanh, "exp": np.exp, "log": np.log, "sign": np.sign, "σ": lambda x: 1 / (1 + np.exp(-x)), "√": np.sqrt,
    "holds": lambda x: np.asarray(x, float),
}  # fmt: skip
_SIGNS = {"²": "**2", "−": "-", "·": "*", "^": "**", "≥": ">=", "≤": "<=", "[": "holds(", "]": ")"}


def evaluated(text, values):
    """Return the value of a formula as it is printed: by its own small reading of it, and nothing of the engine's."""
    tokens = re.findall(r"\d+\.?\d*|[A-Za-z_]+#\d+|[A-Za-z_σ√][A-Za-z_₋₀-₉]*|\S", text)
    names, code, before = {}, [], ""
    for token in tokens:
        value = before and (before in ")]²" or re.match(r"\w", before)) and before not in _FUNCTIONS
        if value and token != "²" and (token in "([" or re.match(r"[\w√]", token)):
            code.append("*")
        if re.match(r"[A-Za-z_]", token) and token not in _FUNCTIONS:
            names[f"v{len(names)}"] = values[token]
            code.append(f"v{len(names) - 1}")
        else:
            code.append({"σ": "sigma", "√": "root"}.get(token) or _SIGNS.get(token, token))
        before = token
    known = {**_FUNCTIONS, "sigma": _FUNCTIONS["σ"], "root": np.sqrt, **names}
    return eval("".join(code), {"__builtins__": {}, "abs": np.abs}, known)


def test_printed_derivatives_are_the_numeric_ones(tape, view):
    for e, node, k in checkable(tape, view):
        if node.record.kind != "elementwise" or e.local is None or e.local.endswith("′"):
            continue
        operands = values_of(node)
        own = dict(zip(node.arguments, operands, strict=True)) | {"y": np.asarray(node.value)}
        wanted = pushed(node, k, np.ones(operands[k].shape))
        # an operand without a name is called by the product that it is
        text = re.sub(r"\(?[WU](_\w)? [\w₋₀-₉]+\+b\)?", lambda found: "(PRODUCT)", e.local)
        own["PRODUCT"] = operands[1 - k] if node.op == "mul" else operands[0]
        own |= {f"{x.op}#{x.id}": np.asarray(x.value) for x in (node, *node.inputs) if x.kind == "op"}
        near = [node, *node.inputs, *(x for parent in node.inputs for x in parent.inputs)]
        known = {pretty(x.name): np.asarray(x.value) for x in near if x.name}
        found = np.broadcast_to(evaluated(text, own | known), wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8, err_msg=f"{node.op} {e.local}")
