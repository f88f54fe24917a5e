"""The gradient checker, checked: its differences against closed forms, and its verdicts against rules made wrong."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import testing
from minigrad.backend import compiled_lane
from minigrad.errors import GradcheckError, MinigradError, UsageError
from minigrad.op import PAGE, Op, Rule
from minigrad.testing import check_model, gradcheck

Array = np.ndarray[Any, Any]
EPS = np.finfo(np.float64).eps


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@contextmanager
def wrong(name: str, operand: str, rule: str, table: str = "rules") -> Iterator[None]:
    """Replace one rule of a record; with the compiled lane off, so that the rule is what runs."""
    rules = getattr(PAGE.records[name], table)
    right = rules[operand]
    rules[operand] = Rule(rule)
    try:
        with compiled_lane(False):
            yield
    finally:
        rules[operand] = right


# --- the differences, against closed forms -------------------------------------------------------------------


def numeric(f: Callable[[Array], Array], x: Array, scale: float = 1.0, eps: float = EPS) -> testing._Slope:
    """Return the columns of f's Jacobian as differences give them."""
    centre = f(x)
    columns = []
    for k in range(x.size):
        e = np.eye(x.size)[k].reshape(x.shape) * scale
        columns.append(testing._slope(lambda s, e=e: f(x + s * e), centre, np.full(centre.shape, eps)))
    parts = zip(*[c.parts() for c in columns], strict=True)
    return testing._Slope(*(np.array(part).T / scale for part in parts))


A = normal(5, 7, seed=1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


CLOSED = {
    "linear": (lambda x: A @ x, lambda x: A, normal(7)),
    "softmax": (softmax, lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)), normal(7)),
    "sine of product": (lambda x: np.sin(A @ x), lambda x: np.cos(A @ x)[:, None] * A, normal(7)),
    "steep": (lambda x: np.tanh(300 * x), lambda x: np.diag(300 / np.cosh(300 * x) ** 2), normal(3) / 300),
    "wild": (lambda x: np.sin(97 * x), lambda x: np.diag(97 * np.cos(97 * x)), normal(5)),
    "on a pedestal": (lambda x: 1e6 + x**2, lambda x: np.diag(2 * x), normal(5)),
    "cubic": (lambda x: x**3 - x, lambda x: np.diag(3 * x**2 - 1), normal(5)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_differences_agree_with_closed_jacobians(name: str) -> None:
    f, jacobian, x = CLOSED[name]
    found, want = numeric(f, x), jacobian(x)
    apart = abs(found.value - want)
    assert (apart <= 3 * found.error + 1e-13 * abs(want).max()).all()
    # The pedestal costs six of sixteen digits, and the step two.
    assert apart.max() <= (1e-7 if name == "on a pedestal" else 1e-11) * abs(want).max()
    assert (found.gap == 0).all()


@pytest.mark.parametrize(("name", "runs"), [("softmax", 8), ("on a pedestal", 8), ("steep", 14)])
def test_no_more_steps_are_taken_than_needed(name: str, runs: int) -> None:
    f, _, x = CLOSED[name]
    steps: list[float] = []
    e = np.eye(x.size)[1]

    def phi(s: float) -> Array:
        steps.append(s)
        return f(x + s * e)

    testing._slope(phi, f(x), np.full(f(x).shape, EPS))
    assert len(steps) == runs


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e5])
def test_differences_scale_with_the_size_of_the_input(size: float) -> None:
    x = np.array([0.7, 2.3, 1.9]) * size
    report = gradcheck(mg.log, x)
    assert all(e.numeric == pytest.approx(1 / x[e.element[0]], rel=1e-9) for e in report.entries if e.element)


def test_the_caller_may_choose_the_coarsest_step() -> None:
    seen: list[float] = []

    def f(x: Any) -> Any:
        seen.append(float(abs(x.detach().numpy() - 2.0).max()))
        return mg.sin(x)

    for eps in (1e-4, 0.1):
        seen.clear()
        assert gradcheck(f, np.full(3, 2.0), eps=eps).ok
        assert max(seen) == pytest.approx(eps)


def test_differences_that_rounding_spoils_excuse_nothing_and_say_so() -> None:
    def f(x: Any) -> Any:
        return ((x + 300).to("float32").to("float64") - 300) * 3

    with pytest.raises(GradcheckError) as caught:
        gradcheck(f, normal(3))
    assert "the differences are unsure by" in " ".join(str(caught.value).split())
    with wrong("tanh", "x", "1.001 * (1 - y) * (1 + y)"), pytest.raises(GradcheckError):
        gradcheck(lambda x: (mg.tanh(x) + 300).to("float32"), normal(3))


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-6])
def test_differences_do_not_see_a_kink_beside_them(distance: float) -> None:
    found = numeric(lambda x: np.maximum(x, 0) + 0.3 * np.minimum(x, 0), np.array([distance, -distance]))
    assert np.allclose(found.value, [[1, 0], [0, 0.3]], rtol=0, atol=1e-6)
    assert (found.gap == 0).all()


KINKS = {
    "relu": (lambda x: np.maximum(x, 0), 1),
    "abs": (np.abs, 2),
    "leaky, with curvature": (lambda x: np.where(x > 0, x, 0.99 * x) + 3 * x**2, 0.01),
    "relu on a slope": (lambda x: np.maximum(x, 0) + np.sin(5 * x), 1),
}


@pytest.mark.parametrize("name", KINKS)
def test_differences_know_a_kink_and_its_gap(name: str) -> None:
    f, gap = KINKS[name]
    found = numeric(f, np.array([0.0]))
    assert found.gap == pytest.approx(gap, rel=1e-6)


def test_differences_know_a_jump() -> None:
    for f in (np.sign, lambda x: np.where(x > 0, 1.0, 0.0), lambda x: np.where(x > 0, 1.0, 0.0) + x):
        assert numeric(f, np.array([0.0])).gap[0, 0] > 1e6


def test_a_staircase_of_rounding_is_neither_a_kink_nor_flat() -> None:
    def noisy(x: Array) -> Array:
        return (np.sin(x).astype(np.float32) * 3).astype(np.float64)

    for seed in range(20):
        x = normal(7, seed=seed)
        found = numeric(noisy, x, eps=np.finfo(np.float32).eps)
        assert (found.gap == 0).all()
        assert (numeric(noisy, x).gap == 0).all()  # also where nobody said how coarse the rounding is
        assert abs(found.value - np.diag(3 * np.cos(x))).max() < 1e-3
    report = gradcheck(lambda x: mg.tanh(x.to("float32")).to("float64"), normal(7))
    assert report.notes == ["f casts to float32 inside: its differences are good to few digits"]
    with wrong("tanh", "x", "1.001 * (1 - y) * (1 + y)"), pytest.raises(GradcheckError):
        gradcheck(lambda x: mg.tanh(x.to("float32")).to("float64"), normal(7))


# --- what is right passes ------------------------------------------------------------------------------------


def test_a_module_with_all_its_parameters_in_float32() -> None:
    lstm = mg.nn.LSTM(3, 5)
    before = {name: (p, p.numpy(), p.numpy().copy()) for name, p in lstm.named_parameters()}
    report = gradcheck(lambda x, state: lstm(x, state)[0], (normal(2, 3).astype("f4"), tuple(
        normal(1, 5, seed=k).astype("f4") for k in (1, 2)
    )))  # fmt: skip
    assert report.ok
    assert {e.input for e in report.entries} >= {"x", "state[0]", "state[1]", "weight_ih_l0", "bias_hh_l0"}
    assert "lifted from float32 to float64: x, state[0], state[1], weight_ih_l0" in " ".join(report.notes)
    for p, array, values in before.values():
        assert p.numpy() is array
        assert (array == values).all()
    assert mg.get_default_dtype() == np.float32


def test_trees_integers_and_plain_objects() -> None:
    def f(d: dict[str, Any], index: Any, power: int) -> dict[str, Any]:
        return {"a": (d["w"] @ d["v"][0])[index], "b": [d["v"][1] ** power], "c": mg.argmax(d["w"])}

    report = gradcheck(f, ({"w": normal(2, 3), "v": (normal(3, 5), 2.5)}, np.array([1, 0, 1]), 3), order=2)
    assert {e.input for e in report.entries} == {"d['v'][0]", "d['v'][1]", "d['w']", "all inputs"}
    assert report.orders == (1, 2)
    modes = {e.mode for e in report.entries if e.order == 2}
    assert modes >= {"reverse over reverse", "forward over reverse", "reverse over forward", "forward over forward"}


def test_names_come_from_tensors_parameters_or_the_caller() -> None:
    def f(x: Any, y: Any) -> Any:
        return x * y

    inputs = (normal(3), mg.tensor(normal(3), name="scale"))
    assert {e.input for e in gradcheck(f, inputs).entries} == {"x", "scale", "all inputs"}
    assert {e.input for e in gradcheck(f, inputs, names=["p", "q"]).entries} == {"p", "q", "all inputs"}


def test_large_inputs_are_checked_along_seeded_directions() -> None:
    x = normal(17, 31)
    report = gradcheck(lambda x: mg.tanh(x) * x, x)
    assert report.notes == ["x (17, 31): 3 random directions (seed 0)"]
    assert "3 random directions" in report.text()
    assert report.to_dict() == gradcheck(lambda x: mg.tanh(x) * x, x).to_dict()
    assert report.to_dict() != gradcheck(lambda x: mg.tanh(x) * x, x, seed=1).to_dict()
    full = gradcheck(lambda x: mg.tanh(x).sum(), x, directions="full")
    assert full.entries[0].compared == 17 * 31
    some = gradcheck(lambda x: mg.tanh(x).sum(), normal(3), directions=2)
    assert some.entries[0].how == "2 random directions"


def test_checkpoints_are_checked_where_the_parameters_stand() -> None:
    W = mg.tensor(normal(3, 5).astype("f4"), requires_grad=True, name="W")
    report = gradcheck(lambda x: mg.checkpoint(lambda z: mg.tanh(z @ W) * z.sum(), x), normal(2, 3).astype("f4"))
    assert {e.input for e in report.entries} == {"x", "W", "all inputs"}


def test_wrt_inputs_leaves_parameters_out() -> None:
    W = mg.tensor(normal(3, 5), requires_grad=True)
    assert {e.input for e in gradcheck(lambda x: x @ W, normal(2, 3), wrt="inputs").entries} == {"x", "all inputs"}


# --- kinks ---------------------------------------------------------------------------------------------------


def test_kinks_are_counted_and_not_failed() -> None:
    x = np.array([[0.0, 1.5, -2.0], [0.0, -0.3, 0.7]])
    for f in (mg.relu, mg.abs, lambda x: mg.clip(x, 0.0, 1.0), lambda x: mg.maximum(x, 0.0)):
        report = gradcheck(f, x)
        assert report.ok
        assert report.kinks == 2
        assert "2 kinks" in " ".join(report.text().split())
    ties = gradcheck(lambda x: mg.max(x, axis=0), np.array([[1.0, 2.0, 3.0], [1.0, 0.0, 5.0]]))
    assert ties.kinks == 2
    assert gradcheck(lambda x: mg.sign(x) * 3, x).kinks == 2


@pytest.mark.parametrize("x", [1.7, 1e-2, 1e-4])
def test_a_wrong_rule_is_not_excused_by_a_kink_nearby(x: float) -> None:
    with wrong("relu", "x", "where(x > 0, 1.001, 0)"), pytest.raises(GradcheckError, match=r"relu, argument 'x'"):
        gradcheck(mg.relu, np.array([x, -1.3, 2.1]))


def test_a_kink_in_one_element_does_not_excuse_another() -> None:
    with wrong("relu", "x", "where(x > 0, 1.001, 0)"):
        report = gradcheck(mg.relu, np.array([0.0, 1.3, 0.0]), raise_on_failure=False)
    assert not report.ok
    assert report.guilty[0].element == (1,)
    assert report.kinks == 2


def test_a_slope_outside_of_the_kink_is_wrong() -> None:
    with wrong("abs", "x", "where(x == 0, 7, sign(x))"):
        report = gradcheck(mg.abs, np.array([0.0, 1.3, -0.7]), raise_on_failure=False)
    assert [g.element for g in report.guilty] == [(0,)]


def test_kinks_among_many_outputs_do_not_hide_a_wrong_rule() -> None:
    x = normal(17, 19)
    x[3, 5] = 0.0
    assert gradcheck(lambda x: mg.relu(x) * 2, x).kinks == 3  # each of the three directions passes through it
    with wrong("relu", "x", "where(x > 0, 1.001, 0)"):
        for directions in (None, "full"):
            report = gradcheck(lambda x: mg.relu(x) * 2, x, directions=directions, raise_on_failure=False)
            assert not [e for e in report.entries if e.mode in MODES and e.ok]


MODES = ("reverse", "forward")


# --- what is wrong fails, and is named -----------------------------------------------------------------------


def cell(x: Any) -> Any:
    """Two steps of a small recurrence: three tanh in scopes of their own."""
    h = mg.sigmoid(x)
    for t in range(2):
        with mg.scope(f"lstm/layer 0/t={t}"):
            gate = mg.sigmoid(h * x)
            with mg.scope("cell gate"):
                h = gate * mg.tanh(h + x) + 0.5 * h
    return h


@pytest.mark.parametrize("factor", [1.01, 1.001, 0.99])
def test_a_wrong_rule_is_named_with_argument_scope_and_element(factor: float) -> None:
    with wrong("tanh", "x", f"{factor} * (1 - y) * (1 + y)"), pytest.raises(GradcheckError) as caught:
        gradcheck(cell, normal(2, 5))
    report = caught.value.report
    assert not report.ok
    assert [(g.op, g.argument, g.scope, g.time) for g in report.guilty] == [
        ("tanh", "x", f"lstm/layer 0/t={t}/cell gate", t) for t in range(2)
    ]
    assert all(g.ratio == pytest.approx(factor, rel=1e-8) and len(g.element) == 2 for g in report.guilty)
    text = " ".join(str(caught.value).split())
    assert "tanh, argument 'x', in lstm/layer 0/t=1/cell gate: element (" in text
    assert f"(ratio {factor:.4f})" in text
    assert max(map(len, str(caught.value).splitlines())) <= 80


FORMULAS = [
    (op, operand)
    for op in PAGE.records.values()
    if op.kind == "elementwise"
    for operand, rule in op.rules.items()
    if isinstance(rule.source, str) and rule.source != "0"
]


@pytest.mark.parametrize("factor", [1.01, 1.001])
@pytest.mark.parametrize(("op", "operand"), FORMULAS, ids=[f"{op.name}-{operand}" for op, operand in FORMULAS])
def test_every_formula_made_wrong_is_named(op: Op, operand: str, factor: float) -> None:
    rng = np.random.default_rng(5)
    inputs = []
    for name in op.operands:
        low, high = op.domain.get(name, (-2.0, 2.0))
        inputs.append(np.array([True, False, True]) if name in op.indices else rng.uniform(low, high, (2, 3)))
    params = {"low": -1.0, "high": 1.0} if op.name == "clip" else {}
    with wrong(op.name, operand, f"{factor} * ({op.rules[operand].source})"):
        report = gradcheck(lambda *xs: mg.sin(op(*xs, **params)), tuple(inputs), raise_on_failure=False)
    assert {(g.op, g.argument) for g in report.guilty} == {(op.name, operand)}
    assert all(g.ratio == pytest.approx(factor, rel=1e-5) for g in report.guilty)


def test_a_wrong_formula_in_a_large_function_is_found_along_directions() -> None:
    with wrong("tanh", "x", "1.001 * (1 - y) * (1 + y)"):
        report = gradcheck(lambda x: (mg.tanh(x) * x).sum(), normal(29, 31), raise_on_failure=False)
    assert [g.op for g in report.guilty] == ["tanh"]
    assert report.guilty[0].ratio == pytest.approx(1.001)
    assert len(report.guilty[0].element) == 2  # searched for, element by element


def test_a_wrong_forward_rule_alone_is_named() -> None:
    with wrong("softmax", "x", "1.001 * y * t", "jvps"):
        report = gradcheck(lambda x: mg.sin(mg.softmax(x)), normal(3, 5), raise_on_failure=False)
        assert gradcheck(lambda x: mg.sin(mg.softmax(x)), normal(3, 5), modes=("reverse",)).ok
    assert [e.mode for e in report.entries if not e.ok] == ["forward", "duality"]
    assert [(g.op, g.mode) for g in report.guilty] == [("softmax", "forward")]
    assert "[forward]" in report.text()


class Cube(mg.Function):
    """A cube whose backward is right, or off by a factor, or cut from its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Any, factor: float, cut: bool) -> Any:
        ctx.factor, ctx.cut = factor, cut
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        x = x.detach() if ctx.cut else x
        return ctx.factor * 3 * g * x * x, None, None

    @staticmethod
    def jvp(ctx: Any, t: Any, *_: Any) -> Any:
        (x,) = ctx.saved_tensors
        x = x.detach() if ctx.cut else x
        return ctx.factor * 3 * t * x * x


class Half(mg.Function):
    """A Function without a forward-mode rule."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 0.5

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 0.5


def test_a_right_function_passes_to_the_second_order() -> None:
    assert gradcheck(lambda x: Cube.apply(mg.sin(x), 1.0, False), normal(2, 3), order=2).ok


def test_a_wrong_function_is_named() -> None:
    def f(x: Any) -> Any:
        with mg.scope("t=7"):
            return mg.sin(Cube.apply(mg.sin(x), 1.001, False))

    report = gradcheck(f, normal(2, 3), raise_on_failure=False)
    assert [(g.op, g.argument, g.time, round(g.ratio, 6)) for g in report.guilty] == [("Cube", "x", 7, 1.001)]


def test_a_wrong_second_order_alone_is_named() -> None:
    def f(x: Any) -> Any:
        return mg.sin(Cube.apply(x, 1.0, True))

    x = normal(2, 3)
    assert gradcheck(f, x).ok
    report = gradcheck(f, x, order=2, raise_on_failure=False)
    assert {e.order for e in report.entries if not e.ok} == {2}
    assert [(g.op, g.order) for g in report.guilty] == [("Cube", 2)]


def test_a_function_without_forward_rule_is_noted() -> None:
    report = gradcheck(lambda x: Half.apply(x) * x, normal(2, 3))
    assert [e.mode for e in report.entries] == ["reverse"]
    assert report.notes == ["forward mode was not checked: Half has no staticmethod jvp(ctx, *tangents)"]
    with pytest.raises(GradcheckError, match="Half has no staticmethod jvp"):
        gradcheck(lambda x: Half.apply(x) * x, normal(2, 3), modes=("forward",))


def test_where_gradients_end_is_told() -> None:
    def f(x: Any) -> Any:
        with mg.scope("t=2"):
            return mg.tanh(x) * x.detach()

    with pytest.raises(GradcheckError, match=r"note: a gradient ends at detach, in t=2"):
        gradcheck(f, normal(2, 3))
    with pytest.raises(GradcheckError, match=r"through \.numpy\(\)"):
        gradcheck(lambda x: mg.tanh(x) * float(x.sum().item()), normal(2, 3))


def test_slopes_at_kinks_that_do_not_add_up_are_told() -> None:
    with pytest.raises(GradcheckError, match="f stands on kinks"):
        gradcheck(lambda x: mg.relu(x) - mg.relu(-x), np.array([0.0, 1.3]))


# --- what cannot be checked ----------------------------------------------------------------------------------

UNCHECKABLE: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "chance": (lambda x: x * normal(3, seed=None), normal(2, 3), "not deterministic"),  # type: ignore[arg-type]
    "infinite input": (mg.tanh, np.array([1.0, np.inf]), "x .* is not finite"),
    "infinite value": (mg.log, np.array([[0.3, 0.0]]), r"the output \(1, 2\) is -inf at element \(0, 1\)"),
    "infinite gradient": (mg.sqrt, np.array([2.0, 0.0]), r"not finite at element \(1,\).* sqrt, argument 'x'"),
    "no tensor": (lambda x: 3.0, normal(3), "returned float"),
    "array": (lambda x: x.numpy(), normal(3), "returned ndarray"),
    "nothing": (lambda x: None, normal(3), "no floating tensor"),
    "integers": (mg.argmax, normal(3), "no floating tensor .*int64"),
    "independent": (lambda x: mg.tensor([1.0, 2.0]), normal(3), "does not depend on x"),
    "no input": (lambda i: mg.tensor([1.0, 2.0])[i], np.array([0]), "nothing to differentiate"),
    "float32 inside": (lambda x: x * mg.tensor(np.ones(3, "f4")), normal(3).astype("f4"), "checked in float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_what_cannot_be_checked_says_why(name: str) -> None:
    f, x, why = UNCHECKABLE[name]
    with pytest.raises(GradcheckError, match=why):
        gradcheck(f, (x,), names=["x"], raise_on_failure=False)


@pytest.mark.parametrize(
    "options",
    [
        {"order": 3}, {"modes": ()}, {"modes": "sideways"}, {"wrt": "some"}, {"eps": 0.0}, {"directions": 0},
        {"directions": "few"}, {"names": ["a", "b"]}, {"rtol": -1.0}, {"atol": 0.0, "rtol": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        gradcheck(mg.tanh, normal(3), **options)


def test_parameters_come_back_when_f_raises() -> None:
    W = mg.tensor(normal(3, 5).astype("f4"), requires_grad=True)
    array, values = W.numpy(), W.numpy().copy()
    runs = []

    def f(x: Any) -> Any:
        runs.append(1)
        if len(runs) == 7:
            raise ZeroDivisionError
        return mg.tanh(x @ W)

    with pytest.raises(ZeroDivisionError):
        gradcheck(f, normal(2, 3).astype("f4"))
    assert W.numpy() is array
    assert (array == values).all()
    assert W.grad is None
    assert mg.get_default_dtype() == np.float32


def test_a_parameter_made_in_every_run_is_noted() -> None:
    report = gradcheck(lambda x: x @ mg.tensor(A[:3], requires_grad=True), normal(2, 3))
    assert "not checked: 1 parameter that f makes anew in every run (shapes (3, 7))" in report.notes[0]
    assert {e.input for e in report.entries} == {"x", "all inputs"}


# --- models --------------------------------------------------------------------------------------------------


def test_a_model_that_closes_over_its_parameters_is_run_again() -> None:
    rnn = mg.nn.RNN(3, 5)
    x = mg.tensor(normal(2, 3).astype("f4"))

    def model() -> list[Any]:
        y, _ = rnn(x)
        return [y[0].sum(), (y[1] * y[1]).sum()]

    report = check_model(model)
    assert report.ok
    assert {"weight_ih_l0", "weight_hh_l0"} <= {e.input for e in report.entries}
    assert "applied again" not in " ".join(report.notes)
    with wrong("tanh", "x", "1.01 * (1 - y) * (1 + y)"):
        assert {g.op for g in check_model(model).guilty} == {"tanh"}
    with wrong("tanh", "x", "1.01 * (1 - y) * (1 + y)"), pytest.raises(GradcheckError):
        check_model(model, raise_on_failure=True)


def test_a_model_that_makes_its_parameters_is_replayed() -> None:
    def model() -> Any:
        W = mg.randn(3, 5, requires_grad=True, name="W")
        with mg.scope("t=3"):
            return mg.tanh(Cube.apply(mg.tensor(normal(2, 3).astype("f4")) @ W, 1.0, False)).sum()

    report = check_model(model, order=2)
    assert report.ok
    assert report.entries[0].input == "W"
    assert "the model makes its parameters itself" in report.notes[0]
    with wrong("tanh", "x", "1.001 * (1 - y) * (1 + y)"):
        assert [(g.op, g.scope, g.time) for g in check_model(model).guilty] == [("tanh", "t=3", 3)]


def test_a_model_with_float32_arrays_of_its_own_is_replayed() -> None:
    W = mg.tensor(normal(3, 5).astype("f4"), requires_grad=True, name="W")
    report = check_model(lambda: mg.tanh(mg.tensor(normal(2, 3).astype("f4")) @ W).sum())
    assert report.ok
    assert "float32 arrays of its own" in report.notes[0]
    assert W.dtype == np.float32


@pytest.mark.parametrize("model", [lambda: 1.0, list, lambda: mg.tensor(2.0)], ids=["number", "none", "constant"])
def test_a_model_without_a_loss_is_refused(model: Callable[[], Any]) -> None:
    with pytest.raises(MinigradError):
        check_model(model)


# --- the report ----------------------------------------------------------------------------------------------


def test_the_report_is_plain_data_and_fits_the_page() -> None:
    with wrong("tanh", "x", "1.01 * (1 - y) * (1 + y)"):
        report = gradcheck(cell, normal(2, 5), order=2, raise_on_failure=False)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["ok"] is False
    assert data["guilty"][0]["op"] == "tanh"
    assert data["guilty"][0]["ratio"] == pytest.approx(1.01)
    assert len(data["entries"]) == len(report.entries)
    for text in (report.text(), gradcheck(cell, normal(2, 5), order=2).text()):
        assert max(map(len, text.splitlines())) <= 80
    assert report.summary().startswith("FAILED: x (2, 5); orders 1 and 2; worst error ")


def test_a_report_that_is_not_finite_is_still_json() -> None:
    class Lost(mg.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return mg.sqrt(x) * 0 + x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    # Negative numbers are one step away: no differences can be taken on the left of 0.
    report = gradcheck(Lost.apply, np.array([0.0, 2.0]), raise_on_failure=False)
    assert not report.ok
    assert "not finite around this point" in " ".join(report.text().split())
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["entries"][0]["numeric"] is None


# --- numbers that rounding spoils --------------------------------------------------------------------------------


def test_nobody_is_blamed_on_differences_that_disagree() -> None:
    """Far below 0 the rounding of 1 + erf(x) makes GELU a staircase, and sine swings within the finest step."""

    class Planted(mg.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return mg.tanh(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 1.5 * g * (1 - mg.square(mg.tanh(x)))

    far = mg.tensor(np.array([1e9 + 0.7, 3e9]), requires_grad=True, name="far")

    def f(x: Any) -> Any:
        return mg.gelu(x - 6.6).sum() + Planted.apply(x).sum() + mg.sin(far).sum()

    report = gradcheck(f, np.array([0.07, -0.03]), raise_on_failure=False)
    assert not report.ok
    assert {guilt.op for guilt in report.guilty} == {"Planted"}


def test_scalar_operands_stay_scalars_while_the_guilty_one_is_looked_for() -> None:
    constant = mg.tensor(2.0, dtype="float64")
    with wrong("tanh", "x", "1.5 * (1 - y) * (1 + y)"):
        report = gradcheck(lambda x: mg.stack(mg.tanh(x), constant).sum(), np.array(0.3), raise_on_failure=False)
    assert [guilt.op for guilt in report.guilty] == ["tanh"]


def test_cancelled_gradients_are_dual(monkeypatch: pytest.MonkeyPatch) -> None:
    """The elements of a softmax add up to 1: what flows back from their sum is rounding alone, in both modes."""

    def f(x: Any) -> Any:
        return mg.softmax(mg.tanh(x), 0).sum(0)

    assert gradcheck(f, normal(5, 3)).ok
    monkeypatch.setattr(testing, "noise", lambda *_: 0.0)
    assert not gradcheck(f, normal(5, 3), raise_on_failure=False).ok
