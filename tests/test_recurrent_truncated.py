"""Truncated back-propagation against gradients written by hand for a network of one number, and against whole ones."""

from collections import namedtuple

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import UsageError

pytestmark = pytest.mark.usefixtures("float64")

T = 11


def by_hand(w, v, x, h, k1, k2):
    """The gradient in w and v of the sum of h_t², h_t = tanh(w h_{t-1} + v x_t), with every route cut after k2 steps.

    Of each loss E_t, t in a chunk that ends before step e, the routes that count use w and v at steps e - k2 to t.
    """
    hs = [h]
    for x_t in x:
        hs.append(np.tanh(w * hs[-1] + v * x_t))
    slope = [1 - s * s for s in hs[1:]]
    g_w = g_v = 0.0
    for t in range(len(x)):
        end = min((t // k1 + 1) * k1, len(x))
        route = 2 * hs[t + 1]
        for k in range(t, max(end - k2, 0) - 1, -1):
            route = route * slope[k]
            g_w += route * hs[k]
            g_v += route * x[k]
            route = route * w
    return g_w, g_v


@pytest.mark.parametrize("k2", [1, 2, 3, 5, 11, 17])
@pytest.mark.parametrize("k1", [1, 2, 3, 4, 11, 13])
def test_every_cut_is_where_it_should_be(k1, k2):
    x = np.random.default_rng(5).standard_normal(T)
    w, v = mg.tensor([0.9], requires_grad=True), mg.tensor([-1.3], requires_grad=True)

    def step(x_t, h):
        h = mg.tanh(w * h + v * x_t)
        return h * h, h

    chunks = list(nn.truncated_bptt(step, x, mg.tensor([0.4]), k1=k1, k2=k2))
    np.testing.assert_allclose((w.grad.item(), v.grad.item()), by_hand(0.9, -1.3, x, 0.4, k1, k2), rtol=1e-12)
    assert [(c.start, c.stop) for c in chunks] == [(s, min(s + k1, T)) for s in range(0, T, k1)]
    h, total = 0.4, 0.0
    for x_t in x:
        h = np.tanh(0.9 * h - 1.3 * x_t)
        total += h * h
    np.testing.assert_allclose(sum(c.loss for c in chunks), total, rtol=1e-12)
    np.testing.assert_allclose(chunks[-1].state.item(), h, rtol=1e-12)
    assert not chunks[-1].state.requires_grad


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_windows_of_the_whole_length_are_the_full_gradient(kind):
    cell, x = getattr(nn, kind)(3, 5), mg.tensor(np.random.default_rng(1).standard_normal((T, 2, 3)))
    start = tuple(mg.randn(2, 5, requires_grad=True) for _ in cell.unit.states)

    def step(x_t, state):
        state = cell(x_t, state if len(state) > 1 else state[0])
        state = state if isinstance(state, tuple) else (state,)
        return (state[0] * state[0]).sum(), state

    total, state = 0.0, start
    for t in range(T):
        loss, state = step(x[t], state)
        total = total + loss
    total.backward()
    leaves = [*cell.parameters(), *start]
    want = [p.grad.numpy().copy() for p in leaves]
    for p in leaves:
        p.grad = None
    for _ in nn.truncated_bptt(step, x, start, k1=T, k2=T):
        pass
    for p, gradient in zip(leaves, want, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("k1", "k2"), [(2, 5), (5, 2), (3, 3)])
def test_an_optimiser_may_step_between_chunks(k1, k2):
    cell = nn.LSTMCell(3, 5, variant="FGR", peepholes="diagonal")
    x, state = mg.randn(T, 2, 3), (mg.zeros(2, 5), mg.zeros(2, 5), mg.zeros(2, 15))
    optimizer = mg.optim.SGD(cell.parameters(), lr=0.2)

    def step(x_t, state):
        state = cell(x_t, state)
        return mg.losses.mse(state[0], mg.full((2, 5), 0.5)), state

    before = [p.numpy().copy() for p in cell.parameters()]
    first = None
    for _ in range(15):
        total = 0.0
        for chunk in nn.truncated_bptt(step, x, state, k1=k1, k2=k2):
            optimizer.step()
            optimizer.zero_grad()
            total += chunk.loss
        first = total if first is None else first
    assert total < 0.6 * first
    assert all((p.numpy() != b).any() for p, b in zip(cell.parameters(), before, strict=True))


def test_chunks_without_losses():
    w = mg.tensor(0.5, requires_grad=True)

    def step(x_t, h):
        h = mg.tanh(w * h + x_t)
        return (h if x_t == 1.0 else None), h

    chunks = nn.truncated_bptt(step, [0.1, 0.2, 0.3, 1.0], mg.tensor(0.7), k1=2, k2=2)
    assert next(chunks).loss == 0
    assert w.grad is None
    h = next(chunks).state
    h1 = np.tanh(0.5 * 0.7 + 0.1)
    h2 = np.tanh(0.5 * h1 + 0.2)
    h3 = np.tanh(0.5 * h2 + 0.3)
    h4 = np.tanh(0.5 * h3 + 1.0)
    np.testing.assert_allclose(h.item(), h4)
    np.testing.assert_allclose(w.grad.item(), (1 - h4**2) * (h3 + 0.5 * (1 - h3**2) * h2), rtol=1e-12)


def test_detach():
    pair = namedtuple("pair", "h c")
    h = mg.ones(2, requires_grad=True) * 2
    state = {"a": pair(h, None), "b": [h, (h, 3.5)]}
    out = nn.detach(state)
    assert type(out["a"]) is pair
    assert out["a"].c is None
    assert out["b"][1][1] == 3.5
    assert isinstance(out["b"], list)
    for t in (out["a"].h, out["b"][0], out["b"][1][0]):
        assert not t.requires_grad
        np.testing.assert_array_equal(t.numpy(), h.numpy())


def test_misuse():
    w = mg.tensor(0.5, requires_grad=True)

    def step(x_t, h):
        return h * w, h

    for k in (0, -1, 2.0, True):
        with pytest.raises(UsageError, match="k1"):
            nn.truncated_bptt(step, [1.0], mg.tensor(1.0), k1=k, k2=1)
        with pytest.raises(UsageError, match="k2"):
            nn.truncated_bptt(step, [1.0], mg.tensor(1.0), k1=1, k2=k)
    with pytest.raises(UsageError, match=r"nn\.detach\(state\)"):
        nn.truncated_bptt(step, [1.0], {"h": (w * 2,)}, k1=1, k2=1)
    with pytest.raises(UsageError, match=r"\(loss, next state\), not Tensor"):
        next(nn.truncated_bptt(lambda x_t, h: h, [1.0], mg.tensor(1.0), k1=1, k2=1))
    with pytest.raises(UsageError, match="shape"):
        next(nn.truncated_bptt(lambda x_t, h: (mg.ones(2), h), [1.0], mg.tensor(1.0), k1=1, k2=1))
