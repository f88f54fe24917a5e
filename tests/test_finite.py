"""The first producer of a NaN or an infinity, planted where it is known."""

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import UsageError
from minigrad.graph import finite
from minigrad.graph.finite import NonFiniteError, provenance, watch_finite

STEPS, I, H, N = 7, 2, 5, 3


def rolled(dtype, spoil=None, bad=np.nan, root=None):
    """Roll out a net of three lines; at step `spoil` its input holds `bad`, at step `root` a root of 0 is added."""
    draw = np.random.default_rng(3)
    W = mg.tensor(draw.normal(size=(H, H)).astype(dtype) / 3, requires_grad=True, name="W")
    U = mg.tensor(draw.normal(size=(I, H)).astype(dtype), requires_grad=True, name="U")
    xs = draw.normal(size=(STEPS, N, I)).astype(dtype)
    h = mg.tensor(draw.normal(size=(N, H)).astype(dtype))
    losses = []
    for t in range(STEPS):
        with mg.scope(f"t={t}"):
            x = mg.tensor(xs[t])
            if t == spoil:
                x = mg.log(x - x) if bad == "log" else mg.tensor(np.where(xs[t] > 0, xs[t], bad).astype(dtype))
            h = mg.tanh(h @ W + x @ U)
            if t == root:
                h = h + mg.sqrt(h - h) * 0.5
            h.name = f"h[{t}]"
            loss = (h * h).sum()
            loss.name = f"E[{t}]"
        losses.append(loss)
    return losses, W, U


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", [0, 4])
def test_forward_operation(dtype, step):
    with mg.Tape() as tape, np.errstate(all="ignore"):
        losses, _, _ = rolled(dtype, spoil=step, bad="log")
    found = provenance(tape, losses)
    origin = found.forward
    assert (origin.op, origin.time, origin.what, origin.key) == ("log", step, "infinity", "forward")
    assert (origin.count, origin.size) == (N * I, N * I)
    assert (origin.operands[0].zeros, origin.operands[0].odd) == (N * I, 0)
    # -inf @ U holds NaN or infinities; tanh would hide infinities, the product's NaN goes on
    assert origin.route[0].startswith("matmul#")
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert f"log made the first infinity in t={step}" in str(found)


def test_forward_leaf_and_long_route():
    with mg.Tape() as tape:
        losses, _, _ = rolled("float64", spoil=1)
    found = provenance(tape, losses)
    origin = found.forward
    assert (origin.key, origin.op, origin.time, origin.what) == ("leaf", "input", 1, "NaN")
    assert len(origin.route) > finite.LONGEST
    assert "more places." in str(origin)
    assert str(origin).startswith("Forward, the input brought the first NaN in t=1: ")


def test_a_mask_of_infinities_is_no_origin():
    scores = mg.tensor(np.array([[0.5, -1.0, 2.0]]), requires_grad=True)
    with mg.Tape() as tape:
        masked = mg.where(mg.tensor(np.array([[True, False, True]])), scores, -np.inf)
        loss = (mg.softmax(masked) * mg.tensor(np.array([[1.0, 2.0, 3.0]]))).sum()
    assert not provenance(tape, loss)
    assert str(provenance(tape)) == finite.WORDS["fine"]


@pytest.mark.parametrize("step", [2, 5])
def test_backward_operation(step):
    with mg.Tape() as tape:
        losses, W, _ = rolled("float64", root=step)
    before = [None if n.grad is None else n.grad.copy() for n in tape.nodes]
    with np.errstate(all="ignore"):
        found = provenance(tape, losses)
    assert found.forward is None
    origin = found.backward
    assert (origin.op, origin.time, origin.what, origin.operand) == ("sqrt", step, "infinity", "x")
    assert (origin.count, origin.size) == (N * H, N * H)
    by_name = {x.name: x for x in origin.operands}
    assert by_name["x"].zeros == N * H
    assert by_name["g"].odd == 0
    assert origin.route[-1] in ("W", "U")
    assert W.grad is None
    assert all(
        (a is None and n.grad is None) or np.array_equal(a, n.grad) for a, n in zip(before, tape.nodes, strict=True)
    )


class Spoils(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * mg.tensor(np.array([1.0, np.nan, 1.0]))


def test_backward_of_a_function():
    x = mg.tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True, name="x")
    with mg.Tape() as tape, mg.scope("t=6"):
        loss = Spoils.apply(x * 3).sum()
    origin = provenance(tape).backward
    assert (origin.op, origin.time, origin.what, origin.count) == ("Spoils", 6, "NaN", 1)
    assert origin.route[-1] == "x"
    assert "Backward, Spoils made the first NaN in t=6" in str(origin)
    assert loss.requires_grad


def test_a_sum_of_finite_gradients_that_overflows():
    x = mg.tensor(np.array([1.0], np.float32), requires_grad=True, name="x")
    with mg.Tape() as tape:
        y = x * 1.0
        loss = (y * 3e38).sum() * 1e-3 + (y * 3e38).sum() * 1e-3
        total = loss * 1e3
    with np.errstate(all="ignore"):
        origin = provenance(tape, total).backward
    assert (origin.key, origin.op, origin.what) == ("seed", "mul", "infinity")
    assert "are each finite, and their sum is not." in str(origin)


def test_a_loop_is_watched():
    w = mg.tensor(np.array([4.0, 1.0]), requires_grad=True, name="w")
    runs = []

    def compute():
        runs.append(1)
        return mg.sqrt(w * mg.rand(2, dtype="float64")).sum()

    with watch_finite([w]) as watch:
        for _ in range(3):
            loss = watch(compute)
            loss.backward()
            watch.check()
            w.grad = None
        assert len(runs) == 3  # nothing ran twice
        with mg.no_grad():
            w[1] = 0.0
        loss = watch(compute)
        with np.errstate(all="ignore"):
            loss.backward()
            with pytest.raises(NonFiniteError, match="sqrt made the first infinity") as caught:
                watch.check()
    assert len(runs) == 5
    assert caught.value.provenance.backward.node.value[0] + 0.0 == pytest.approx(float(loss.detach().numpy()))


def test_leaving_checks_the_last_step_and_a_run_that_does_not_repeat():
    values = iter([np.nan, 1.0])
    w = mg.tensor(np.array([2.0]), requires_grad=True)
    with pytest.raises(NonFiniteError, match="does not compute the same twice") as caught, watch_finite([w]) as watch:
        watch(lambda: (w * next(values)).sum())
    assert caught.value.provenance is None


def test_large_finite_gradients_pass():
    w = mg.tensor(np.array([3e38, 3e38], np.float32), requires_grad=True)
    with watch_finite([w]) as watch:
        watch(lambda: (w * 0.5)[0] * 1.0)
        w.grad = mg.tensor(np.array([3e38, 3e38], np.float32))
        watch.check()


def test_wrong_calls():
    with pytest.raises(UsageError, match="nothing to check"):
        watch_finite().check()
    with pytest.raises(UsageError, match="returns a loss"):
        watch_finite()(lambda: 3.0)


def test_every_sentence_is_said():
    """The tests above match these words; here they are counted, so that a new one needs a test."""
    assert set(finite.WORDS) == {"forward", "leaf", "backward", "seed", "operand", "route", "fine", "not again"}
