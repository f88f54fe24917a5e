"""The walk's plain data against NumPy, differences, ledgers and the tape; formulas as MathML; the page's text."""

import json
import math
import re
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import pytest
import tapes
from hypothesis import given
from test_formula import close, formulas, value

import minigrad as mg
from minigrad import models, ops
from minigrad.errors import GradcheckError, UsageError
from minigrad.explain import bptt, paths
from minigrad.formula import parse, to_mathml
from minigrad.graph import view_of
from minigrad.graph.walk import walk_of
from minigrad.op import PAGE
from minigrad.render import render

OPTIONS = ("csv", "steps", "weights", "layers", "bidirectional", "variant", "peepholes")


@cache
def recorded(kind="lstm", text="hell", hidden=3, **more):
    options = dict.fromkeys(OPTIONS) | {"bidirectional": False, "seed": 5}
    model = models.build(kind, text=text, hidden=hidden, **options | more)
    with mg.Tape() as tape:
        loss = model.loss()
    loss.backward()
    return tape


def dense(flow, source, target):
    found = np.zeros((math.prod(target.shape), math.prod(source.shape)))
    found[list(flow.local.rows), list(flow.local.columns)] = flow.local.values
    return found


# --- the walk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_values_gradients_and_sums_are_those_of_the_tape(kind):
    tape = recorded(kind)
    walk = walk_of(tape)
    sums = {i: np.zeros(len(g)) for i, g in walk.gradients.items()}
    sums[walk.roots[0]] += 1
    for flow in walk.flows:
        sums[flow.source] += flow.contribution
    for node in tape.nodes:
        assert np.array_equal(np.asarray(walk.values[node.id]), node.value.ravel())
        if node.requires_grad:
            np.testing.assert_allclose(walk.gradients[node.id], node.grad.ravel(), rtol=1e-5, atol=1e-8)
            np.testing.assert_allclose(sums[node.id], node.grad.ravel(), rtol=1e-4, atol=1e-7)
    assert set(walk.gradients) == {n.id for n in tape.nodes if n.requires_grad} == set(walk.backward)
    assert walk.residual < 1e-6
    assert walk.notes == ()


def test_backward_comes_to_a_node_when_its_sum_is_complete():
    tape = recorded("gru")
    walk = walk_of(tape)
    place = {i: k for k, i in enumerate(walk.backward)}
    assert place[walk.roots[0]] == 0
    for flow in walk.flows:
        assert place[flow.target] < place[flow.source]


def test_contributions_are_the_gradient_times_the_local_derivative():
    tape = recorded("lstm")
    walk = walk_of(tape)
    for flow in walk.flows:
        source, target = tape.nodes[flow.source], tape.nodes[flow.target]
        product = np.asarray(walk.gradients[flow.target]) @ dense(flow, source, target)
        np.testing.assert_allclose(product, flow.contribution, rtol=1e-5, atol=1e-8)


def test_local_derivatives_are_differences():
    rng = np.random.default_rng(3)
    with mg.Tape() as tape:
        x = mg.tensor(rng.uniform(0.5, 1.5, (2, 3)), requires_grad=True)
        w = mg.tensor(rng.uniform(0.5, 1.5, (5, 3)), requires_grad=True)
        b = mg.tensor(rng.uniform(0.5, 1.5, 5), requires_grad=True)
        row = mg.tensor(rng.uniform(0.5, 1.5, (1, 5)), requires_grad=True)
        y = ops.affine(x, w, b) * row / b
        z = ops.softmax(ops.concatenate([y, mg.tanh(y[:, 1:4])], axis=1), axis=1)
        z.sum(axis=0)[2]
    walk = walk_of(tape)
    checked = set()
    for flow in walk.flows:
        source, target = tape.nodes[flow.source], tape.nodes[flow.target]

        def again(change, source=source, target=target, flow=flow):
            arrays = [mg.tensor(n.value) for n in target.inputs]
            arrays[flow.argument] = mg.tensor(source.value + change)
            params = {k: v for k, v in (target.params or {}).items() if k in target.record.params}
            return target.record(*([arrays] if target.record.variadic else arrays), **params).numpy()

        for j in range(source.value.size):
            step = np.zeros(source.value.size)
            step[j] = 1e-6
            step = step.reshape(source.shape)
            slope = (again(step) - again(-step)).ravel() / 2e-6
            np.testing.assert_allclose(dense(flow, source, target)[:, j], slope, rtol=1e-6, atol=1e-8)
        checked.add(target.op)
    assert {"affine", "mul", "div", "softmax", "concatenate", "tanh", "getitem", "sum"} <= checked


def test_products_of_local_derivatives_are_the_ledgers_routes():
    tape = recorded("lstm")
    walk = walk_of(tape)
    of, wrt = (next(n for n in tape.nodes if n.name == name) for name in ("h[2]", "c[0]"))
    carried, count = {of.id: np.ones(of.value.size)}, {of.id: 1}
    for flow in sorted(walk.flows, key=lambda f: -f.target):
        if flow.target in carried and flow.source >= wrt.id:
            source = tape.nodes[flow.source]
            part = carried[flow.target] @ dense(flow, source, tape.nodes[flow.target])
            carried[flow.source] = carried.get(flow.source, 0) + part
            count[flow.source] = count.get(flow.source, 0) + count[flow.target]
    ledger = paths("h[2]", "c[0]", tape=tape)
    assert count[wrt.id] == ledger.count > 5
    np.testing.assert_allclose(carried[wrt.id], ledger.total.ravel(), rtol=1e-5)


def test_losses_are_what_the_last_number_is_the_sum_of():
    tape = recorded("rnn")
    walk = walk_of(tape)
    names = [tape.nodes[i].name for i in walk.losses]
    assert names == ["E[0]", "E[1]", "E[2]", "E[3]"]
    assert [ledger["wrt"] for ledger in walk.ledgers] == [n.name for n in tape.nodes if n.kind == "parameter"]
    for ledger in walk.ledgers:
        node = tape.nodes[ledger["node"]]
        direct = bptt([tape.nodes[i].tensor for i in walk.losses], node.tensor)
        assert ledger["norms"] == direct.norms.tolist()


def test_added_losses_and_a_mean():
    with mg.Tape() as tape:
        w = mg.tensor(2.0, requires_grad=True)
        parts = [(w * k) ** 2 for k in (1.0, 2.0, 3.0)]
        _ = parts[0] + parts[1] + parts[2]
    assert [tape.nodes[i].value for i in walk_of(tape).losses] == [4.0, 16.0, 36.0]
    with mg.Tape() as tape:
        _ = ops.mean(ops.stack(*[(w * k) ** 2 for k in (1.0, 2.0)]))
    walk = walk_of(tape)
    assert walk.losses == walk.roots


def test_losses_that_nobody_added_up():
    with mg.Tape() as tape:
        w = mg.tensor(3.0, requires_grad=True, name="w")
        losses = [w * w, w * 5.0]
    walk = walk_of(tape, losses=losses)
    assert walk.roots == walk.losses == tuple(tape.of(loss).id for loss in losses)
    assert walk.gradients[tape.of(w).id] == (11.0,)


def test_without_anything_to_differentiate():
    with mg.Tape() as tape:
        x = mg.tensor([1.0, 2.0])
        _ = x * 3.0
    walk = walk_of(tape)
    assert (walk.roots, walk.backward, walk.flows, walk.gradients) == ((), (), (), {})
    assert len(walk.values) == 3
    assert "nothing flows back" in walk.notes[0]
    assert walk_of(tapes.rnn(2)) is None


def test_a_tensor_and_a_freed_graph():
    x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x * x).sum()
    walk = walk_of(y)
    assert walk.gradients[0] == (2.0, 4.0, 6.0)
    y.backward()
    assert "freed" in walk_of(y).notes[0]
    assert "freed" in render(y, format="html").data


def test_too_large_is_said(monkeypatch):
    with mg.Tape() as tape:
        x = mg.tensor(np.ones((7, 11)), requires_grad=True, name="x")
        y = ops.softmax(mg.tanh(x), axis=1)
        (y * y).sum()
    monkeypatch.setattr("minigrad.graph.walk.PROBED", 50)
    walk = walk_of(tape)
    missing = {tape.nodes[f.target].op for f in walk.flows if f.local is None}
    assert missing == {"softmax"}  # element-wise operations and sums need no probing of 77 entries
    assert "softmax" in walk.notes[0]
    monkeypatch.setattr("minigrad.graph.walk.NUMBERS_CARRIED", 100)
    walk = walk_of(tape)
    assert 0 not in walk.values
    assert all(f.contribution is None for f in walk.flows if tape.nodes[f.source].value.size == 77)
    assert "Arrays of 77 numbers and more" in " ".join(walk.notes)
    assert walk.residual < 1e-12  # the sums are checked all the same


@cache
def whole_cells(detail="cells"):
    rng = np.random.default_rng(7)
    mg.manual_seed(7)
    lstm = mg.nn.LSTM(3, 2)
    x = mg.tensor(rng.standard_normal((5, 2, 3)).astype(np.float32), name="x")
    with mg.Tape(detail=detail) as tape:
        out, _ = lstm(x)
        loss = (out * out).sum()
        loss.name = "E"
    loss.backward()
    return tape


@pytest.mark.parametrize("detail", ["cells", "layers"])
def test_operations_with_several_results(detail):
    tape = whole_cells(detail)
    walk = walk_of(tape)
    assert walk.shapes
    for i, shape in walk.shapes.items():
        outputs = tape.nodes[i].outputs
        assert len(outputs) > 1
        flat = np.concatenate([o.numpy().ravel() for o in outputs])
        assert np.array_equal(np.asarray(walk.values[i], np.float32), flat)
        assert math.prod(shape) == len(flat) == len(walk.gradients[i])
        assert walk.gradients[i][: outputs[0].size] == pytest.approx(
            outputs[0].grad.numpy().ravel(), rel=1e-4, abs=1e-7
        )
    for flow in walk.flows:
        local = np.zeros((len(walk.gradients[flow.target]), len(walk.gradients[flow.source])))
        local[list(flow.local.rows), list(flow.local.columns)] = flow.local.values
        product = np.asarray(walk.gradients[flow.target]) @ local
        np.testing.assert_allclose(product, flow.contribution, rtol=1e-4, atol=1e-6)


def test_a_hook_that_changes_a_gradient_is_noticed():
    with mg.Tape() as tape:
        x = mg.tensor(2.0, requires_grad=True)
        y = x * x
        y.register_hook(lambda g: g * 1.5)
        _ = y * 3.0
    with pytest.raises(GradcheckError, match="hook"):
        walk_of(tape)


def test_functions_without_a_formula():
    class Cube(mg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    with mg.Tape() as tape:
        x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        Cube.apply(x).sum()
    walk = walk_of(tape)
    assert walk.formulas["Cube"].value is None
    (flow,) = [f for f in walk.flows if f.source == tape.of(x).id]
    assert np.diag([3.0, 12.0, 27.0]).tolist() == dense(flow, x, x).tolist()


# --- formulas -----------------------------------------------------------------------------------------------

MATHS = {
    "−": "-",
    "·": "*",
    "≤": "<=",
    "≥": ">=",
    "=": "==",
    "≠": "!=",
    "\u2061": "",
    "\u2062": "@",
    "⌊": "floor(",
    "⌋": ")",
}


IF = "if\u00a0"


def python_from_mathml(markup: str) -> str:
    """Read MathML back, by the meaning of its elements alone."""

    def read(e) -> str:
        parts = [read(child) for child in e]
        match e.tag:
            case "mo":
                return MATHS.get(e.text, e.text) or ""
            case "mi" | "mn":
                return {"σ": "sigmoid", "π": "pi"}.get(e.text, e.text)
            case "mfrac":
                return f"(({parts[0]}) / ({parts[1]}))"
            case "msup":
                return f"(({parts[0]})**({parts[1]}))"
            case "msqrt":
                return f"sqrt({''.join(parts)})"
            case "mtable":
                (chosen, test), (other, _) = ([read(cell) for cell in row] for row in e)
                return f"where({test.removeprefix(IF)}, {chosen}, {other})"
            case "mtext":
                return e.text
            case "msub":
                return "_".join(parts)
        bars = [k for k, part in enumerate(parts) if part == "|"]
        if bars:
            return f"abs({''.join(parts[1:-1])})"
        if parts and parts[0] == "{":
            return "".join(parts[1:])
        return "".join(parts)

    return read(ET.fromstring(f"<mrow>{markup.replace('&#x2061;', '').replace('&#x2062;', '@')}</mrow>"))


@given(formulas)
def test_mathml_means_the_formula(text):
    expected = value(text)
    assert close(value(python_from_mathml(to_mathml(parse(text)))), expected)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("x @ mT(w) + b", "x@((w)**(⊤))+b"),
        ("a - (b - c)", "a-(b-c)"),
        ("-(-a)", "-(-a)"),
        ("put(g, x_shape, axis=0)", "put(g,shape(x),axis==0)"),
        ("a_0 * alpha", "a_0*α"),
    ],
)
def test_mathml_of_rules(formula, expected):
    assert python_from_mathml(to_mathml(parse(formula))) == expected


def test_every_rule_of_the_page_is_well_formed():
    for op in PAGE:
        for said in [op.value_said, *(rule.said for rule in op.rules.values())]:
            if said is not None:
                ET.fromstring(f"<math>{to_mathml(said, dict.fromkeys(said.names, '<mi>x</mi>'))}</math>")


def test_what_affine_says_is_what_it_computes():
    rng = np.random.default_rng(1)
    x, weight, bias = (mg.tensor(rng.standard_normal(s)) for s in ((2, 3), (5, 3), (5,)))
    said = PAGE.affine.value_said.compile(["x", "weight", "bias"])(PAGE, x, weight, bias)
    np.testing.assert_allclose(said.numpy(), ops.affine(x, weight, bias).numpy(), rtol=1e-13)


# --- the page's text ----------------------------------------------------------------------------------------


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


def test_page_is_self_contained():
    tape = tapes.lstm(3)
    tape.nodes[7].name = "</script><script>alert(1)</script><!--"
    page = render(tape, format="html", engine="own").data
    data = embedded(page)
    assert data["nodes"][7]["name"] == tape.nodes[7].name
    assert page.count("<script") == page.count("</script>") == 2
    others = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert others == {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}  # names, not addresses
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "<svg" in page.split("<script")[0]
    assert "fetch(" not in page
    assert "XMLHttpRequest" not in page


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_page_is_small_beside_its_data(kind):
    page = render(recorded(kind), format="html", engine="own").data
    picture = re.search(r"<svg xmlns.*?</svg>", page, re.S).group(0)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    assert len(page.encode()) - len(data.encode()) - len(picture.encode()) < 200_000
    assert len(page.encode()) - len(data.encode()) < 300_000


def test_page_of_a_view_has_no_walk_and_says_so():
    tape = recorded("rnn")
    page = render(view_of(tape), format="html", engine="own").data
    assert embedded(page)["walk"] is None
    assert embedded(render(tape, format="html", engine="own").data)["walk"]["roots"] == [len(tape.nodes) - 1]


def test_the_same_program_gives_the_same_page():
    assert render(recorded("rnn"), format="html").data == render(recorded("rnn"), format="html").data


def test_losses_of_another_tape_are_an_error():
    other = mg.tensor(1.0, requires_grad=True) * 2.0
    with pytest.raises(UsageError):
        render(recorded("rnn"), format="html", losses=[other])
