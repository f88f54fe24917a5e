"""The binary adder: backpropagation through time written out by hand, and that it learns to add."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

PATH = Path(__file__).parents[1] / "examples" / "binary_adder.py"


@pytest.fixture(scope="module")
def adder():
    spec = importlib.util.spec_from_file_location("binary_adder", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sigma(a):
    return 1 / (1 + np.exp(-a))


def by_hand(x_tni, d_tno, h_nh, V, U, b_h, W, b_y):
    """Forward and backward through time; returns the error and the gradients, that of the initial state last."""
    h, y, error = [h_nh], [], 0.0
    for x_t, d_t in zip(x_tni, d_tno, strict=True):
        h.append(sigma(x_t @ V + h[-1] @ U + b_h))
        y.append(sigma(h[-1] @ W + b_y))
        error += ((y[-1] - d_t) ** 2).sum() / 2
    dV, dU, db_h, dW, db_y = (np.zeros_like(p) for p in (V, U, b_h, W, b_y))
    delta_h = np.zeros_like(h_nh)  # of step t + 1
    for t in reversed(range(len(y))):
        h_t, before = h[t + 1], h[t]
        delta_y = (y[t] - d_tno[t]) * y[t] * (1 - y[t])
        delta_h = (delta_y @ W.T + delta_h @ U.T) * h_t * (1 - h_t)
        dW += h_t.T @ delta_y
        dU += before.T @ delta_h
        dV += x_tni[t].T @ delta_h
        db_y += delta_y.sum(axis=0)
        db_h += delta_h.sum(axis=0)
    return error, [dV, dU, db_h, dW, db_y, delta_h @ U.T]


def test_gradients_of_one_addition_are_those_of_the_formulas(adder, float64):
    mg.manual_seed(3)
    model = adder.Adder(hidden=11)
    with mg.no_grad():
        model.b_h.copy_(mg.randn(11))
        model.b_y.copy_(mg.randn(1))
    a, b = [37, 90, 101], [90, 11, 19]
    x, d = adder.question(a, b), adder.answer(a, b)
    h = mg.randn(3, 11, requires_grad=True)
    written, errors = adder.unroll(model, x, d, h)
    mg.stack(*errors).sum().backward()
    parameters = [model.V, model.U, model.b_h, model.W, model.b_y]
    error, expected = by_hand(x.numpy(), d.numpy(), h.numpy().copy(), *(p.numpy() for p in parameters))
    assert len(written) == 8
    np.testing.assert_allclose(sum(e.item() for e in errors), error, rtol=1e-13)
    for tensor, gradient in zip([*parameters, h], expected, strict=True):
        assert np.abs(gradient).max() > 1e-4
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-12, atol=1e-14)


def test_questions_and_answers_are_bits_from_the_least_significant(adder):
    x, d = adder.question([6, 1], [3, 127]).numpy(), adder.answer([6, 1], [3, 127]).numpy()
    assert x.shape == (8, 2, 2)
    assert d.shape == (8, 2, 1)
    assert x[:, 0, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert x[:, 0, 1].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert d[:, 0, 0].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert d[:, 1, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_loss_shows_eight_named_steps(adder):
    with mg.Tape() as tape:
        error = adder.loss()
    assert error.shape == ()
    assert sorted({node.time for node in tape.nodes if node.time is not None}) == list(range(8))
    names = {node.name for node in tape.nodes}
    assert {"V", "U", "W", "b_h", "b_y", "h[-1]"} <= names
    assert {f"{word}[{t}]" for word in "xdhyE" for t in range(8)} <= names
    assert tape.of(error).scope == ""


def test_it_learns_to_add(adder, capsys):
    model = adder.train(n_sums=6_000, report=3_000)
    assert adder.correct(model, seed=12345) == 1.0
    assert adder.add(model, [105, 64], [58, 63]).tolist() == [163, 127]
    assert capsys.readouterr().out.count("fresh sums right") == 2


def test_an_untrained_network_does_not_add(adder):
    assert adder.correct(adder.Adder(), seed=12345) < 0.1
