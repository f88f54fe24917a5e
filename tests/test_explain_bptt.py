"""The time ledger against gradients with W untied into one copy per step, and against its own sums."""

import csv
import json
import sys

import numpy as np
import pytest
from arrays import numbers

import minigrad as mg
from minigrad import nn
from minigrad.errors import GraphError, MissingExtraError, ShapeError, UsageError
from minigrad.graph import bptt as module
from minigrad.graph.bptt import OUTSIDE, bptt
from minigrad.graph.rounding import noise
from minigrad.op import PAGE, Rule

T, N, I, H = 5, 3, 2, 7


def leaf(array, name=None):
    return mg.tensor(array, requires_grad=True, name=name)


def close(got, want, tol=1e-10):
    assert got.shape == want.shape
    assert np.abs(want).max() > 0, "an oracle of zeros proves nothing"
    assert np.abs(got - want).max() <= tol * max(1.0, np.abs(want).max())


# --- the oracle: one copy of every parameter per step -------------------------------------------------------


def product(x, w):
    return mg.matmul(x, mg.swapaxes(w, 0, 1))


def rnn(x, state, w):
    (h,) = state
    return (mg.tanh(product(x, w["weight_ih"]) + w["bias_ih"] + product(h, w["weight_hh"]) + w["bias_hh"]),)


def lstm(x, state, w):
    h, c = state
    a = product(x, w["weight_ih"]) + w["bias_ih"] + product(h, w["weight_hh"]) + w["bias_hh"]
    i, f, g, o = (a[:, k * H : (k + 1) * H] for k in range(4))
    p_i, p_f, p_o = (w["weight_ph"][k * H : (k + 1) * H] for k in range(3)) if "weight_ph" in w else (0.0, 0.0, 0.0)
    c_new = mg.sigmoid(f + p_f * c) * c + mg.sigmoid(i + p_i * c) * mg.tanh(g)
    return mg.sigmoid(o + p_o * c_new) * mg.tanh(c_new), c_new


def gru(x, state, w):
    (h,) = state
    a, b = product(x, w["weight_ih"]) + w["bias_ih"], product(h, w["weight_hh"]) + w["bias_hh"]
    r, z = mg.sigmoid(a[:, :H] + b[:, :H]), mg.sigmoid(a[:, H : 2 * H] + b[:, H : 2 * H])
    n = mg.tanh(a[:, 2 * H :] + r * b[:, 2 * H :])
    return ((1 - z) * n + z * h,)


def loss_of(h, t):
    return (mg.sin(h) * numbers(*h.shape, seed=90 + t)).sum()


def untied(losses, copies):
    """Return terms[t, k]: what every loss gives to every copy, by plain backward passes."""
    table = []
    for loss in losses:
        for copy in copies:
            copy.grad = None
        loss.backward(retain_graph=True)
        table.append([np.zeros(c.shape) if c.grad is None else c.grad.numpy().copy() for c in copies])
    return np.array(table)


UNITS = {
    "RNN": (lambda: nn.RNN(I, H, dtype="float64"), rnn, 1),
    "GRU": (lambda: nn.GRU(I, H, dtype="float64"), gru, 1),
    "LSTM": (lambda: nn.LSTM(I, H, dtype="float64"), lstm, 2),
    "peepholes": (lambda: nn.LSTM(I, H, dtype="float64", peepholes="diagonal"), lstm, 2),
}
CASES = [(unit, name) for unit in UNITS for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def layer_losses(unit):
    """Run the layer under a tape; return it, its values, the losses of all steps, and the tape."""
    layer = UNITS[unit][0]()
    values = {}
    for k, (name, parameter) in enumerate(layer.named_parameters()):
        values[name.removesuffix("_l0")] = 0.6 * numbers(*parameter.shape, seed=10 + k)
        with mg.no_grad():
            parameter.copy_(mg.tensor(values[name.removesuffix("_l0")]))
    states = [mg.tensor(numbers(1, N, H, seed=s)) for s in range(UNITS[unit][2])]
    with mg.Tape() as tape:
        out, _ = layer(mg.tensor(numbers(T, N, I)), states[0] if len(states) == 1 else tuple(states))
        losses = [loss_of(out[t], t) for t in range(T)]
    return layer, values, losses, tape


@pytest.mark.parametrize(("unit", "name"), [*CASES, ("peepholes", "weight_ph")])
def test_terms_are_the_gradients_of_untied_copies(unit, name):
    _, values, losses, tape = layer_losses(unit)
    ledger = bptt(losses, f"{name}_l0", tape)
    _, step, n_states = UNITS[unit]
    copies = [{k: leaf(v.copy()) for k, v in values.items()} for _ in range(T)]
    state, x = tuple(mg.tensor(numbers(1, N, H, seed=s)[0]) for s in range(n_states)), numbers(T, N, I)
    apart = []
    for t in range(T):
        state = step(mg.tensor(x[t]), state, copies[t])
        apart.append(loss_of(state[0], t))
    want = untied(apart, [copy[name] for copy in copies])
    assert ledger.times == ledger.columns == tuple(range(T))
    got = np.array([[ledger.terms[t, k] for k in range(T)] for t in range(T)])
    close(got, want)
    close(ledger.norms, np.sqrt((want**2).sum(axis=tuple(range(2, want.ndim)))))
    total = want.sum(axis=(0, 1))
    close(ledger.total, total)
    cosines = (want * total).reshape(T, T, -1).sum(-1) / np.linalg.norm(total)
    below = np.tril_indices(T)
    assert (ledger.norms[below] > 0).all()
    close(ledger.cosines[below], cosines[below] / ledger.norms[below])
    assert 0 < ledger.residual < 1e-13
    # Causality: a later use does not act on an earlier loss.
    assert not got[np.triu_indices(T, 1)].any()
    assert np.isnan(ledger.cosines[np.triu_indices(T, 1)]).all()


@pytest.mark.needs("torch")
def test_pytorch_with_untied_weights():
    torch = pytest.importorskip("torch")
    layer, values, losses, _ = layer_losses("LSTM")
    ledger = bptt(losses, layer.weight_hh_l0)
    v = {k: torch.tensor(a) for k, a in values.items()}
    copies = [v["weight_hh"].clone().requires_grad_() for _ in range(T)]
    h, c = torch.tensor(numbers(1, N, H)[0]), torch.tensor(numbers(1, N, H, seed=1)[0])
    for t in range(T):
        x = torch.tensor(numbers(T, N, I)[t])
        i, f, g, o = (x @ v["weight_ih"].T + v["bias_ih"] + h @ copies[t].T + v["bias_hh"]).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        loss = (torch.sin(h) * torch.tensor(numbers(N, H, seed=90 + t))).sum()
        for k, part in enumerate(torch.autograd.grad(loss, copies[: t + 1], retain_graph=True)):
            close(ledger.terms[t, k], part.numpy())


@pytest.mark.parametrize(("layer", "way"), [(0, ""), (0, "_reverse"), (1, ""), (1, "_reverse")])
def test_stacked_and_bidirectional(layer, way):
    net = nn.RNN(I, H, num_layers=2, bidirectional=True, dtype="float64")
    x = numbers(T, N, I)
    with mg.Tape():
        out, _ = net(mg.tensor(x))
        losses = [loss_of(out[t], t) for t in range(T)]
    name = f"weight_hh_l{layer}{way}"
    ledger = bptt(losses, dict(net.named_parameters())[name])

    copies = [leaf(dict(net.named_parameters())[name].numpy().copy()) for _ in range(T)]
    below = [mg.tensor(x[t]) for t in range(T)]
    for depth in range(2):
        sides = []
        for side in ("", "_reverse"):
            words = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            w = {k: dict(net.named_parameters())[f"{k}_l{depth}{side}"].detach() for k in words}
            state, hs = (mg.tensor(np.zeros((N, H))),), {}
            for t in reversed(range(T)) if side else range(T):
                mine = w | {"weight_hh": copies[t]} if (depth, side) == (layer, way) else w
                state = rnn(below[t], state, mine)
                hs[t] = state[0]
            sides.append(hs)
        below = [mg.concatenate(sides[0][t], sides[1][t], axis=-1) for t in range(T)]
    want = untied([loss_of(below[t], t) for t in range(T)], copies)
    close(np.array([row for _, row in ledger.rows()]), want)
    if layer == 1:  # the last layer's second direction goes back in time, and only there
        assert not ledger.norms[np.tril_indices(T, -1) if way else np.triu_indices(T, 1)].any()


FAMILY = [
    lambda: nn.LSTM(I, H, variant="FGR", peepholes="full", dtype="float64"),
    lambda: nn.LSTM(I, H, variant="CIFG", proj_size=3, num_layers=2, dtype="float64"),
    lambda: nn.LSTM(I, H, layer_norm=True, bidirectional=True, dtype="float64"),
    lambda: nn.LSTM(I, H, weight_drop=0.3, recurrent_dropout=0.2, zoneout=(0.1, 0.2), dtype="float64"),
    lambda: nn.LSTM(I, H, input_forget=True, clip=0.5, cell_clip=0.7, bias=False, dtype="float64"),
    lambda: nn.GRU(I, H, reset_after=False, num_layers=2, dropout=0.3, dtype="float64"),
    lambda: nn.RNN(I, H, layer_norm=True, dtype="float64"),
]


@pytest.mark.parametrize("make", FAMILY)
def test_every_parameter_of_the_family_is_used_in_steps_alone(make):
    mg.manual_seed(1)
    net = make()
    with mg.Tape():
        out = net(mg.tensor(numbers(T, N, I)))[0]
        losses = [loss_of(out[t], t) for t in range(T)]
    for name, parameter in net.named_parameters():
        ledger = bptt(losses, parameter)
        assert ledger.columns == tuple(range(T)), name
        parameter.grad = None
        sum(losses[1:], losses[0]).backward(retain_graph=True)
        close(sum(row.sum(axis=0) for _, row in ledger.rows()), parameter.grad.numpy(), 1e-12)


# --- loops of one's own -------------------------------------------------------------------------------------

TOKENS = np.array([3, 1, 3, 0, 2])


def loop(tables, weights, heads, prepare=lambda w: w, h=None):
    """Embed tokens, run a simple recurrence, read it out; every parameter comes as one tensor per step."""
    losses, h = [], mg.tensor(numbers(1, H)) if h is None else h
    prepared = {id(w): prepare(w) for w in weights}
    for t in range(len(weights)):
        with mg.scope(f"t={t}"):
            h = mg.tanh(mg.embedding(tables[t], TOKENS[t : t + 1]) + mg.matmul(h, prepared[id(weights[t])]))
            losses.append(loss_of(mg.matmul(h, heads[t]), t))
    return losses


@pytest.mark.parametrize("which", ["embedding", "recurrent", "head"])
def test_a_loop_in_scopes_needs_no_tape(which):
    arrays = {"embedding": numbers(4, H, seed=1), "recurrent": 0.5 * numbers(H, H, seed=2), "head": numbers(H, 3)}
    one = {k: leaf(v) for k, v in arrays.items()}
    ledger = bptt(loop(*[[w] * T for w in one.values()]), one[which])
    apart = {k: [leaf(v.copy()) for _ in range(T)] for k, v in arrays.items()}
    close(np.array([row for _, row in ledger.rows()]), untied(loop(*apart.values()), apart[which]))
    if which == "embedding":
        assert not ledger.terms[4, 0][[0, 1, 2]].any()
        assert ledger.terms[4, 0][3].any()


@pytest.mark.parametrize(
    ("prepare", "windows"),
    [
        (lambda w: mg.swapaxes(w, 0, 1), 1),
        (lambda w: mg.reshape(w, (H * H,))[::-1].reshape(H, H) * 1.5, 1),
        (lambda w: w * numbers(H, H, seed=4), 0),
        (lambda w: mg.tanh(w) @ w, 0),
        (lambda w: mg.concatenate(w[3:], w[:3]), 2),
        (lambda w: w[np.arange(H)[::-1]], 0),
    ],
)
def test_what_is_prepared_before_the_steps_counts_where_it_is_used(prepare, windows):
    table, w, head = numbers(4, H, seed=1), 0.4 * numbers(H, H, seed=2), numbers(H, 3)
    one = leaf(w)
    ledger = bptt(loop([leaf(table)] * T, [one] * T, [leaf(head)] * T, prepare), one)
    assert ledger.columns == tuple(range(T))
    assert len(ledger._split.windows) >= 1 + windows
    copies = [leaf(w.copy()) for _ in range(T)]
    close(
        np.array([row for _, row in ledger.rows()]),
        untied(loop([leaf(table)] * T, copies, [leaf(head)] * T, prepare), copies),
    )


def test_inputs_multiplied_ahead_of_the_loop():
    x, w, u = numbers(T, N, I), numbers(H, I), 0.5 * numbers(H, H)

    def run(ws):
        shares = mg.matmul(mg.tensor(x), mg.mT(ws[0])) if len(ws) == 1 else None
        h, losses = mg.tensor(numbers(N, H)), []
        for t in range(T):
            with mg.scope(f"t={t}"):
                share = shares[t] if len(ws) == 1 else mg.matmul(mg.tensor(x[t]), mg.mT(ws[t]))
                h = mg.tanh(share + mg.matmul(h, mg.tensor(u)))
                losses.append(loss_of(h, t))
        return losses

    one, copies = leaf(w), [leaf(w.copy()) for _ in range(T)]
    ledger = bptt(run([one]), one)
    close(np.array([row for _, row in ledger.rows()]), untied(run(copies), copies))


def test_uses_outside_of_steps_have_a_column(tmp_path):
    w, x = leaf(numbers(H, H)), mg.tensor(numbers(1, H))
    h, losses = x, []
    for t in range(3):
        with mg.scope(f"t={t}"):
            h = mg.tanh(mg.matmul(h, w))
    read_out = (mg.matmul(h, w) * numbers(1, H, seed=5)).sum()  # a use after the steps
    losses = [read_out, read_out + 0.3 * (w * w).sum(), (w * w * w).sum()]
    ledger = bptt(losses, w)
    assert ledger.columns == (0, 1, 2, OUTSIDE)
    assert ledger.times == (0, 1, 2)
    first = ledger.terms[0, OUTSIDE]
    close(first, h.detach().numpy().T @ numbers(1, H, seed=5))
    close(ledger.terms[1, OUTSIDE], first + 0.6 * w.detach().numpy())
    close(ledger.terms[2, OUTSIDE], 3 * w.detach().numpy() ** 2)
    assert not ledger.norms[2, :3].any()
    assert (ledger.norms[:2, :3] > 0).all()
    ledger.to_csv(tmp_path / "ledger.csv")
    assert [line[1] for line in lines_of(tmp_path / "ledger.csv")[1:5]] == ["0", "1", "2", OUTSIDE]
    assert "0, 1, 2, outside" in str(ledger)


def test_a_use_between_two_steps_belongs_to_neither():
    w, h = leaf(0.5 * numbers(H, H)), leaf(numbers(1, H))
    with mg.scope("t=0"):
        h = mg.tanh(h)
    between = mg.matmul(h, w)
    with mg.scope("t=1"):
        loss = loss_of(between, 0) + loss_of(mg.matmul(between, w), 1)
    ledger = bptt(loss, w)
    assert ledger.columns == (1, OUTSIDE)
    a, b = leaf(w.detach().numpy().copy()), leaf(w.detach().numpy().copy())
    between = mg.matmul(h, a)
    (want,) = untied([loss_of(between, 0) + loss_of(mg.matmul(between, b), 1)], [b, a])
    close(np.array([ledger.terms[1, 1], ledger.terms[1, OUTSIDE]]), want)


def test_what_is_prepared_may_be_used_twice_in_a_step():
    def run(ws):
        prepared = {id(w): w * numbers(H, H, seed=4) for w in ws}
        h, losses = mg.tensor(numbers(1, H)), []
        for t, w in enumerate(ws):
            with mg.scope(f"t={t}"):
                h = mg.tanh(mg.matmul(mg.tanh(mg.matmul(h, prepared[id(w)])), prepared[id(w)]))
                losses.append(loss_of(h, t))
        return losses

    one, copies = leaf(numbers(H, H)), [leaf(numbers(H, H)) for _ in range(T)]
    close(np.array([row for _, row in bptt(run([one] * T), one).rows()]), untied(run(copies), copies))


def test_a_use_of_several_results():
    class Both(mg.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x * w, x + w

        @staticmethod
        def backward(ctx, g, e):
            x, w = ctx.saved_tensors
            return (None if g is None else g * w), (g * x if e is None else e if g is None else g * x + e)

    def run(ws):
        h, losses = mg.tensor(numbers(N, H)), []
        for t in range(T):
            with mg.scope(f"t={t}"):
                a, b = Both.apply(mg.tensor(numbers(N, H, seed=t)), ws[t])
                h = mg.tanh(h * a + (b if t % 2 else 0.0))
                losses.append(loss_of(h, t))
        return losses

    one, copies = leaf(numbers(N, H)), [leaf(numbers(N, H)) for _ in range(T)]
    ledger = bptt(run([one] * T), one)
    close(np.array([row for _, row in ledger.rows()]), untied(run(copies), copies))

    def prepared_twice():
        a, b = Both.apply(mg.tensor(numbers(N, H)), one)
        with mg.scope("t=0"):
            return (mg.tanh(a) + mg.tanh(b)).sum()

    with pytest.raises(GraphError, match="Both makes several results of the parameter before the first step"):
        bptt(prepared_twice(), one)


# --- sums, and what must not change -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kept", [0, 1 << 25])
def test_rows_sum_to_the_plain_gradient(monkeypatch, dtype, kept):
    monkeypatch.setattr(module, "KEPT_BYTES", kept)
    net = nn.GRU(I, H, num_layers=2, dtype=dtype)
    with mg.Tape():
        out, _ = net(mg.tensor(numbers(T, N, I, dtype=dtype)))
        losses = [(out[t] * out[t]).sum() for t in range(T)]
    eps = float(np.finfo(dtype).eps)
    for name in ("weight_hh_l0", "weight_ih_l1", "bias_hh_l1"):
        parameter = dict(net.named_parameters())[name]
        ledger = bptt(losses, parameter)
        assert ledger.total.dtype == dtype
        assert 0 < ledger.residual < 100 * eps
        for t in (3, 1, 4, 1):
            parameter.grad = None
            losses[t].backward(retain_graph=True)
            close(ledger.row(t), parameter.grad.numpy(), 100 * eps)
            close(sum(ledger.terms[t, k] for k in range(T)), parameter.grad.numpy(), 100 * eps)
        for t, row in ledger.rows():
            assert np.array_equal(row, np.array([ledger.terms[t, k] for k in range(T)]))
        parameter.grad = None
        sum(losses[1:], losses[0]).backward(retain_graph=True)
        close(ledger.total, parameter.grad.numpy(), 100 * eps)


def test_gradients_of_before_stay():
    layer, _, losses, tape = layer_losses("LSTM")
    losses[3].backward()
    before = [None if n.grad is None else n.grad.copy() for n in tape.nodes]
    assert sum(g is not None for g in before) > 50
    ledger = bptt(losses, layer.weight_ih_l0)
    ledger.row(2)
    for node, grad in zip(tape.nodes, before, strict=True):
        assert (node.grad is None) == (grad is None)
        assert grad is None or np.array_equal(node.grad, grad)
    n = len(tape)
    ledger.gate("f")
    assert len(tape) == n


def test_a_wrong_rule_is_an_error(monkeypatch):
    layer, _, losses, _ = layer_losses("GRU")
    assert bptt(losses, layer.weight_hh_l0).residual < 1e-13
    wrong = Rule(lambda g, x: PAGE.mT(PAGE.rows(g)) @ PAGE.rows(x) * 1.000001)
    monkeypatch.setitem(PAGE.records["affine"].rules, "weight", wrong)
    with pytest.raises(GraphError, match="the terms of loss 0 do not add up to the gradient of weight_hh_l0"):
        bptt(losses, layer.weight_hh_l0)


def test_a_forgotten_use_is_an_error(monkeypatch):
    layer, _, losses, _ = layer_losses("RNN")
    whole = module._Split.__post_init__

    def forgetful(self):
        whole(self)
        del self.uses[-1]

    monkeypatch.setattr(module._Split, "__post_init__", forgetful)
    with pytest.raises(GraphError, match="the terms of loss 4 do not add up"):
        bptt(losses, layer.weight_hh_l0)


def test_tiny_terms_do_not_vanish():
    w, h, losses = leaf(np.array(1e-90)), mg.tensor(np.array(1.0)), []
    for t in range(3):
        with mg.scope(f"t={t}"):
            h = w * h
            losses.append(h * 1.0)
    np.testing.assert_allclose(bptt(losses, w).norms[2], 1e-180, rtol=1e-12)


# --- shapes of tasks ----------------------------------------------------------------------------------------


def test_only_the_last_loss():
    layer, _, losses, _ = layer_losses("LSTM")
    whole, last = bptt(losses, layer.weight_hh_l0), bptt(losses[-1], layer.weight_hh_l0)
    assert (last.times, last.norms.shape) == ((4,), (1, T))
    for k in range(T):
        close(last.terms[4, k], whole.terms[4, k])
    close(last.total, whole.row(4))


def test_one_step():
    layer = nn.LSTM(I, H, dtype="float64")
    state = mg.tensor(numbers(1, N, H)), mg.tensor(numbers(1, N, H, seed=1))
    with mg.Tape():
        out, _ = layer(mg.tensor(numbers(1, N, I)), state)
    loss = loss_of(out, 0)
    ledger = bptt([loss], layer.weight_hh_l0)
    loss.backward()
    assert (ledger.times, ledger.columns) == ((0,), (0,))
    close(ledger.terms[0, 0], layer.weight_hh_l0.grad.numpy())
    np.testing.assert_allclose(ledger.cosines, 1.0)


def test_losses_are_labelled_by_their_steps():
    w, h, losses = leaf(numbers(H, H)), mg.tensor(numbers(1, H)), []
    for t in (10, 20, 30):
        with mg.scope(f"t={t}"):
            h = mg.tanh(mg.matmul(h, w))
        losses.append(loss_of(h, t))  # outside of the step
    ledger = bptt(losses[1:], w)
    assert (ledger.times, ledger.columns) == ((20, 30), (10, 20, 30))
    with pytest.raises(UsageError, match="no loss 10: there are 20, 30"):
        ledger.row(10)
    with pytest.raises(UsageError, match="the parameter is not used in step 11: it is used in 10, 20, 30"):
        ledger.terms[20, 11]


def test_sequences_of_several_lengths():
    layer = nn.RNN(I, H, dtype="float64")
    with mg.Tape():
        out, _ = layer(mg.tensor(numbers(T, 2, I)), lengths=np.array([2, 5]))
        short = [loss_of(out[t, 0], t) for t in range(T)]
    ledger = bptt(short, layer.weight_ih_l0)
    assert (ledger.norms[:2] > 0).tolist() == [[True, False, False, False, False], [True, True, False, False, False]]
    assert not ledger.norms[2:].any()


# --- gates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "name", "letters"), [
    ("LSTM", "weight_hh_l0", "ifgo"), ("LSTM", "bias_ih_l0", "ifgo"), ("GRU", "weight_ih_l0", "rzn"),
    ("peepholes", "weight_ph_l0", "ifo"),
])  # fmt: skip
def test_gates_are_rows(unit, name, letters):
    layer, _, losses, _ = layer_losses(unit)
    parameter = dict(layer.named_parameters())[name]
    whole = bptt(losses, parameter)
    assert whole.gates == tuple(sorted(letters))
    for k, letter in enumerate(letters):
        here = slice(k * H, (k + 1) * H)
        for part in (whole.gate(letter), bptt(losses, parameter, rows=letter), whole.gate(here)):
            close(part.total, whole.total[here])
            close(part.row(3), whole.row(3)[here])
            for t, rows in part.rows():
                want = np.array([whole.terms[t, k][here] for k in range(T)])
                close(rows, want)
                close(part.norms[t], np.sqrt((want**2).reshape(T, -1).sum(-1)))
    with pytest.raises(
        UsageError, match=rf"{name} has no gate 'q' \(gates with rows of their own: {letters[0]}|{name}"
    ):
        whole.gate("q")
    with pytest.raises(UsageError, match="select nothing"):
        whole.gate(slice(900, 901))
    with pytest.raises(UsageError, match="not int"):
        whole.gate(3)


def test_a_simple_network_has_no_gates():
    layer, _, losses, _ = layer_losses("RNN")
    with pytest.raises(UsageError, match=r"no gate 'f' \(no gate has rows of its own\); a slice selects any rows"):
        bptt(losses, layer.weight_hh_l0, rows="f")


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_wrong_inputs():
    layer, _, losses, tape = layer_losses("RNN")
    w = layer.weight_hh_l0
    other = leaf(numbers(2), "other")
    with pytest.raises(GraphError, match="no loss depends on other"):
        bptt(losses, other)
    with pytest.raises(UsageError, match=r"shape \(5, 3, 2\), is no parameter"):
        bptt(losses, mg.tensor(numbers(T, N, I)))
    with pytest.raises(UsageError, match="is no parameter: a leaf"):
        bptt(losses, w * 2)
    with pytest.raises(UsageError, match="wrt is a parameter or its name, not ndarray"):
        bptt(losses, w.detach().numpy())
    with pytest.raises(UsageError, match="pass tape="):
        bptt(losses, "weight_hh_l0")
    with pytest.raises(UsageError, match=r"no parameter is named 'weight_hh' on the tape.*Names: bias_hh_l0, bias_ih"):
        bptt(losses, "weight_hh", tape)
    with pytest.raises(UsageError, match="the list of losses is empty"):
        bptt([], w)
    with pytest.raises(UsageError, match="loss 1 is no tensor but float"):
        bptt([losses[0], 0.5], w)
    with pytest.raises(ShapeError, match=r"loss 0 has shape \(7,\); a loss is one number"):
        bptt([w[0]], w)
    with pytest.raises(GraphError, match="loss 0 does not require a gradient"):
        bptt([losses[0].detach()], w)
    with mg.Tape(), pytest.raises(GraphError, match="ask after its `with` block"):
        bptt(losses, w)


def test_two_parameters_of_one_name():
    a, b = leaf(numbers(2), "w"), leaf(numbers(2), "w")
    with mg.Tape() as tape, mg.scope("t=0"):
        loss = (a * b).sum()
    with pytest.raises(UsageError, match="several parameters are named 'w'"):
        bptt(loss, "w", tape)


def test_layers_without_a_tape_that_run_by_operations_have_no_steps():
    layer = nn.RNN(I, H, clip=3.0)
    out, _ = layer(mg.tensor(numbers(T, N, I, dtype="float32")))
    with pytest.raises(GraphError, match=r"nothing was recorded in steps: run the layers under mg.Tape\(\)"):
        bptt(out.sum(), layer.weight_hh_l0)


def test_a_freed_graph_and_a_gradient_that_is_not_finite():
    w = leaf(np.array([0.0, 2.0]), "w")
    with mg.scope("t=0"):
        gone, infinite = (mg.tanh(w) * w).sum(), mg.log(w).sum()
    gone.backward()
    with pytest.raises(GraphError, match="retain_graph=True"):
        bptt(gone, w)
    with np.errstate(divide="ignore"), pytest.raises(GraphError, match="the gradient of w is not finite"):
        bptt(infinite, w)


# --- ways out -----------------------------------------------------------------------------------------------


def halves(steps):
    w, h, losses = leaf(np.array(0.5), "w"), mg.tensor(np.array(1.0)), []
    for t in range(steps):
        with mg.scope(f"t={t}"):
            h = w * h
            losses.append(h * 1.0)
    return bptt(losses, w)


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_tables(tmp_path):
    ledger = halves(3)
    path = tmp_path / "ledger.csv"
    ledger.to_csv(path)
    lines = lines_of(path)
    assert lines[0] == ["t", "k", "norm", "cosine"]
    assert lines[1:4] == [["0", "0", "1.0", "1.0"], ["0", "1", "0.0", ""], ["0", "2", "0.0", ""]]
    assert lines[7:] == [["2", "0", "0.25", "1.0"], ["2", "1", "0.25", "1.0"], ["2", "2", "0.25", "1.0"]]
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.csv"]
    data = json.loads(ledger.to_json())
    assert data == ledger.to_dict()
    assert data["cosines"][0] == [1.0, None, None]
    assert (data["wrt"], data["total_norm"], data["columns"]) == ("w", 1 + 1 + 0.75, [0, 1, 2])
    with pytest.raises(UsageError, match="cannot write"):
        ledger.to_csv(tmp_path / "nowhere" / "ledger.csv")


def test_the_map_in_the_terminal():
    lines = str(halves(12)).splitlines()
    assert lines[:3] == ["time ledger of w ()", "12 losses by 12 columns, k = 0 … 11", ""]
    assert lines[3:5] == [" 0 █", " 1 ██"]
    assert lines[14] == "11 " + "░" * 12
    assert lines[16] == "largest norm 1 at t=0, k=0;  █ > 1/10  ▓ > 1/100  ▒ > 1/1000  ░ less"
    assert lines[17].startswith("norm of the sum 3.9")
    wide = str(halves(150)).splitlines()
    assert wide[2] == "a cell shows the largest of 5 by 3 terms"
    assert (wide[3], wide[4], len(wide[4:-3])) == ("", "  0 ██", 30)
    assert max(map(len, wide)) <= 80
    assert repr(halves(3)) == "<time ledger of w: 3 losses by 3 columns>"
    assert repr(halves(1)) == "<time ledger of w: 1 loss by 1 column>"


def test_a_heat_map_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"minigrad-tape\[plot\]"):
        halves(2).plot()


def test_heat_maps(tmp_path):
    pytest.importorskip("matplotlib")
    ledger = halves(30)
    figure = ledger.plot(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown.filled(0), ledger.norms)
    halves(1).plot(tmp_path / "map.svg")
    assert {p.name for p in tmp_path.iterdir()} == {"map.png", "map.svg"}
    with pytest.raises(UsageError, match="cannot draw"):
        ledger.plot(tmp_path / "map.word")


# --- what rounding explains ---------------------------------------------------------------------------------


SEEDS = range(24)


def of_two_units(seed, dtype):
    """Normalising over two units leaves their signs: nearly all of what flows back cancels."""
    mg.manual_seed(seed)
    net = nn.RNN(I, 2, layer_norm=True, dtype=dtype)
    with mg.Tape():
        y, _ = net(mg.randn(T, N, I, dtype=dtype))
        losses = [(y[t] * y[t]).sum() for t in range(T)]
    return losses, net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_that_cancel_are_no_error(dtype, monkeypatch):
    for seed in SEEDS:
        losses, net = of_two_units(seed, dtype)
        for weight in net.parameters():
            bptt(losses, weight)
    monkeypatch.setattr(module, "noise", lambda *_: 0.0)
    refused = 0
    for seed in SEEDS:
        losses, net = of_two_units(seed, dtype)
        for weight in net.parameters():
            try:
                bptt(losses, weight)
            except GraphError:
                refused += 1
    assert refused, "the size of the terms alone would do"


def test_noise_sees_rounding_and_neither_wrong_rules_nor_hooks():
    big = numbers(1000, seed=3) * 1e6
    limit = noise(lambda scale: (scale * big).sum(), "float64")
    assert 1e-12 < limit < 1e-5
    assert noise(lambda scale: scale * np.pi, "float64") < 1e-13
    assert noise(lambda scale: min(scale, 0.1), "float64") < 1e-4  # a hook that clips
