"""The flow report against central differences, NumPy's singular values, and nets whose verdict is known."""

import json
import math
import re
from functools import partial

import numpy as np
import pytest

import minigrad as mg
from minigrad import cli, nn
from minigrad.errors import GraphError, UsageError
from minigrad.graph import flow as room
from minigrad.graph.flow import compare, flow

I, H, N, STEPS = 2, 5, 3, 7
SAID: set[str] = set()


@pytest.fixture(autouse=True)
def what_is_said(monkeypatch):
    """Collect the keys of every sentence, and look at every report's width and its JSON."""
    whole = room.flow

    def listening(*args, **kwargs):
        report = whole(*args, **kwargs)
        for layer in report.layers:
            SAID.update(key for key, _ in layer.sentences)
        assert max(map(len, str(report).splitlines())) <= 80
        assert json.loads(report.to_json()) == report.to_dict()
        return report

    monkeypatch.setattr(room, "flow", listening)
    monkeypatch.setitem(globals(), "flow", listening)


# --- a reference that shares nothing with the library ----------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(p, x, h, c):
    """One step with diagonal or full peepholes; also returns gates. Rows are samples."""
    a = x @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h @ p["weight_hh_l0"].T + p["bias_hh_l0"]
    ai, af, ag, ao = np.split(a, 4, axis=-1)
    see = lambda c, k: 0.0  # noqa: E731
    if "weight_ph_l0" in p:
        parts = np.split(p["weight_ph_l0"], 3)
        see = lambda c, k: c * parts[k] if parts[k].ndim == 1 else c @ parts[k].T  # noqa: E731
    i, f, g = sigmoid(ai + see(c, 0)), sigmoid(af + see(c, 1)), np.tanh(ag)
    c_new = f * c + i * g
    return sigmoid(ao + see(c_new, 2)) * np.tanh(c_new), c_new


def differences(f, x, step=1e-6):
    """Return the Jacobian of f: (units,) -> (units,) by central differences."""
    columns = []
    for k in range(x.size):
        d = np.zeros_like(x)
        d[k] = step
        columns.append((f(x + d) - f(x - d)) / (2 * step))
    return np.stack(columns, axis=-1)


def lstm(dtype="float64", seed=0, **options):
    mg.manual_seed(seed)
    return nn.LSTM(I, H, dtype=dtype, **options)


def run(net, steps=STEPS, batch=N, seed=5, each=True, scale=1.0):
    """Return (losses, tape, xs): a loss for each step, or one of the last."""
    draw = np.random.default_rng(seed)
    dtype = next(net.parameters()).dtype
    xs = (scale * draw.normal(size=(steps, batch, I))).astype(dtype)
    goal = mg.tensor(draw.normal(size=(batch, net.hidden_size)).astype(dtype))
    with mg.Tape() as tape:
        out = net(mg.tensor(xs))[0]
        losses = []
        for t in range(steps) if each else [steps - 1]:
            with mg.scope(f"t={t}"):
                losses.append((out[t] * goal).sum())
    return losses, tape, xs


@pytest.mark.parametrize("peepholes", [None, "diagonal", "full"])
def test_jacobians_and_routes_against_central_differences(peepholes):
    net = lstm(peepholes=peepholes)
    losses, tape, xs = run(net)
    p = {name: value.numpy() for name, value in net.state_dict().items()}
    layer = flow(losses, tape).worst
    h, c, states = np.zeros((N, H)), np.zeros((N, H)), []
    for x in xs:
        states.append((h, c))
        h, c = lstm_step(p, x, h, c)
    sizes = {"h": [], "c": []}
    for t in range(1, STEPS):
        h_1, c_1 = states[t]
        h_2, _c_2 = states[t - 1]
        at_h, at_c, routes = layer.jacobian("h", t), layer.jacobian("c", t), layer.routes(t)
        a = xs[t - 1] @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h_2 @ p["weight_hh_l0"].T + p["bias_hh_l0"]
        parts = np.split(p["weight_ph_l0"], 3) if peepholes else None
        peep = (lambda c: 0.0) if parts is None else partial(looks, parts[2])
        f = tape_value(tape, f"f[{t}]")
        for n in range(N):
            h_of = partial(state_of, a[n, 3 * H :], peep)  # h[t-1] of c[t-1], everything earlier held
            after = partial(both_states, p, xs[t][n])
            np.testing.assert_allclose(at_h[n], differences(partial(after, c_1[n], 0), h_1[n]), atol=1e-8)
            np.testing.assert_allclose(at_c[n], differences(partial(whole_step, after, h_of), c_1[n]), atol=1e-8)
            through_h = differences(partial(after, c_1[n], 1), h_1[n]) @ differences(h_of, c_1[n])
            got = sum(routes[name][n] for name in routes if name.startswith("h "))
            np.testing.assert_allclose(got, through_h, atol=1e-8)
            held = differences(partial(held_step, after, h_1[n]), c_1[n])  # straight on and peepholes
            rest = sum(routes[name][n] for name in routes if not name.startswith("h "))
            np.testing.assert_allclose(rest, held, atol=1e-8)
            np.testing.assert_allclose(routes["direct"][n], np.diag(f[n]), atol=1e-13)
        for word, J in (("h", at_h), ("c", at_c)):
            sizes[word].append(np.linalg.svd(J, compute_uv=False))
    for word, values in sizes.items():
        spectra = getattr(layer, f"{word}_jacobians")
        assert spectra.steps == tuple(range(1, STEPS))
        np.testing.assert_allclose(spectra.largest, np.max(values, axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(spectra.smallest, np.min(values, axis=(1, 2)), rtol=1e-12)
    names = {"direct", "h i", "h f", "h g"} | ({"peephole i", "peephole f"} if peepholes else set())
    assert set(layer.c_routes.names) == names
    np.testing.assert_allclose(layer.c_routes.shares.sum(axis=1), 1, atol=1e-13)
    assert layer.c_routes.residual < 1e-14


def looks(weight, c):
    return c * weight if weight.ndim == 1 else weight @ c


def state_of(a, peep, c):
    return sigmoid(a + peep(c)) * np.tanh(c)


def both_states(p, x, c, which, h):
    return lstm_step(p, x[None], h[None], c[None])[which][0]


def whole_step(after, h_of, c):
    return after(c, 1, h_of(c))


def held_step(after, h, c):
    return after(c, 1, h)


def tape_value(tape, name):
    return next(node.value for node in tape.nodes if node.name == name)


def gate_parts(layer, tape, t):
    """Return by formula what single gates carry of ∂c_t/∂c_{t-1} through the peepholes, (samples, units)."""
    c, i, f, g = (tape_value(tape, f"{w}[{k}]") for w, k in (("c", t - 1), ("i", t), ("f", t), ("g", t)))
    return {"peephole i": g * i * (1 - i), "peephole f": c * f * (1 - f)}


def test_single_routes_by_formula():
    net = lstm(peepholes="diagonal")
    losses, tape, _ = run(net)
    layer = flow(losses, tape).worst
    weight = net.weight_ph_l0.detach().numpy()
    for t in (1, STEPS - 1):
        routes = layer.routes(t)
        for k, (name, slope) in enumerate(gate_parts(layer, tape, t).items()):
            rows = slope * weight[k * H : (k + 1) * H]
            np.testing.assert_allclose(routes[name], np.stack([np.diag(row) for row in rows]), atol=1e-13)


@pytest.mark.parametrize("variant", ["NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR"])
def test_routes_add_up_in_every_variant(variant):
    net = lstm(variant=variant, peepholes=None if variant == "NP" else "full")
    losses, tape, _ = run(net)
    routes = flow(losses, tape).c_routes
    np.testing.assert_allclose(routes.shares.sum(axis=1), 1, atol=1e-12)
    assert ("gates i" in routes.names) == (variant == "FGR")
    assert not (variant == "CIFG" and "h f" in routes.names)  # whatever reaches f has passed i before


def test_norms_are_gradients_of_the_states_and_nothing_changes():
    net = lstm()
    losses, tape, _ = run(net)
    losses[3].backward()
    before = {n.id: n.grad.copy() for n in tape.nodes if n.grad is not None}
    report = flow(losses, tape)
    report.truncation(2, 3)
    assert {n.id for n in tape.nodes if n.grad is not None} == set(before)
    for n in tape.nodes:
        if n.id in before:
            np.testing.assert_array_equal(n.grad, before[n.id])
    at = {n.name: n.grad for n in tape.nodes}
    for k in range(4):
        assert report.h_norms[3, k] == pytest.approx(np.linalg.norm(at[f"h[{k}]"]))
        assert report.c_norms[3, k] == pytest.approx(np.linalg.norm(at[f"c[{k}]"]))
    assert not report.h_norms[3, 4:].any()


def test_units_too_many_for_a_jacobian():
    net = lstm()
    losses, tape, _ = run(net)
    exact, estimate = flow(losses, tape), flow(losses, tape, whole=H - 1)
    assert (exact.c_jacobians.exact, estimate.c_jacobians.exact) == (True, False)
    for word in ("h_jacobians", "c_jacobians"):  # as many iterations as units: the iteration is exact
        np.testing.assert_allclose(getattr(estimate, word).largest, getattr(exact, word).largest, rtol=1e-10)
        np.testing.assert_allclose(getattr(estimate, word).smallest, getattr(exact, word).smallest, rtol=1e-8)
    np.testing.assert_allclose(estimate.c_routes.shares.sum(axis=1), 1, atol=1e-12)
    k, j = (r.c_routes.names.index("direct") for r in (exact, estimate))
    np.testing.assert_allclose(estimate.c_routes.shares[:, j], exact.c_routes.shares[:, k], atol=0.1)


# --- verdicts on nets that are known ----------------------------------------------------------------------------


def orthogonal(radius, steps=20, inputs=1e-3, hidden=5, bias=0.0):
    """Return a simple net whose recurrent weights are `radius` times an orthogonal matrix, nearly linear."""
    net = nn.RNN(I, hidden, dtype="float64")
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(hidden, hidden)))[0]
    net.load_state_dict({
        "weight_ih_l0": inputs * np.arange(1, hidden * I + 1).reshape(hidden, I) / hidden,
        "weight_hh_l0": radius * Q,
        "bias_ih_l0": np.full(hidden, bias),
        "bias_hh_l0": np.zeros(hidden),
    })  # fmt: skip
    return net


def test_radius_a_half():
    losses, tape, _ = run(orthogonal(0.5), 20, each=False)
    report = flow(losses[0], tape)
    assert report.kind == "vanishing"
    assert report.half_life == pytest.approx(1, rel=1e-3)
    assert report.horizon == pytest.approx(math.log(100) / math.log(2), rel=1e-3)
    np.testing.assert_allclose(report.h_jacobians.largest, 0.5, rtol=1e-4)
    assert "spectral radius 0.5, largest singular value 0.5" in report.verdict
    assert "The cause: the recurrent weights' spectral radius lies below 1." in report.verdict
    assert "multiply the recurrent weights by 2" in report.verdict


def test_radius_one():
    losses, tape, _ = run(orthogonal(1.0), 20, each=False)
    report = flow(losses, tape)
    assert report.kind == "healthy"
    assert report.rate == pytest.approx(1, abs=1e-3)
    assert "cause" not in report.verdict


def test_radius_two():
    net = orthogonal(2.0, inputs=1e-9)
    losses, tape, _ = run(net, 20, each=False)
    report = flow(losses, tape)
    assert report.kind == "exploding"
    assert (report.rate, report.half_life) == (pytest.approx(2, rel=1e-3), math.inf)
    assert "doubles every 1 steps" in report.verdict
    theta = float(re.search(r"clip the gradient's norm at ([-+.\de]+),", report.verdict)[1])
    losses[-1].backward()
    # W of the last step only: ∂⁺E/∂W = gᵀ h[t-1], and so on, by hand
    g = np.random.default_rng(5)
    xs = 1.0 * g.normal(size=(20, N, I))
    goal = g.normal(size=(N, 5))
    h = tape_value(tape, "h[18]")
    parts = [goal.T @ xs[-1], goal.T @ h, goal.sum(0), goal.sum(0)]
    assert theta == pytest.approx(math.sqrt(sum(float((p * p).sum()) for p in parts)), rel=1e-3)
    after = report.tried(lambda: again(net, 20))
    assert after.kind == "healthy"
    np.testing.assert_allclose(np.linalg.norm(net.weight_hh_l0.detach().numpy(), 2), 2)


def again(net, steps, each=False, scale=1.0):
    """Compute the losses once more, under the tape that is there."""
    draw = np.random.default_rng(5)
    xs = mg.tensor((scale * draw.normal(size=(steps, N, I))).astype(next(net.parameters()).dtype))
    out = net(xs)[0]
    return [out[t].sum() for t in (range(steps) if each else [steps - 1])]


def test_growth_that_is_no_explosion():
    losses, tape, _ = run(orthogonal(1.1, inputs=1e-9), 7, each=False)
    assert "healthy: over 6 steps the gradient's norm grows 1.77" in flow(losses, tape).verdict


@pytest.mark.parametrize(("bias", "kind"), [(-5.0, "vanishing"), (5.0, "healthy")])
def test_forget_bias(bias, kind):
    net = lstm(forget_bias=bias)
    losses, tape, _ = run(net, 13)
    report = flow(losses, tape)
    assert report.kind == kind
    mean = float(re.search(r"forget gate: ([.\de-]+) on average", report.verdict)[1])
    assert mean == pytest.approx(sigmoid(bias), rel=0.2)
    forget = report.saturation["f"]
    values = np.stack([tape_value(tape, f"f[{t}]") for t in range(13)])
    np.testing.assert_array_equal(forget.low, (values < 0.05).mean(axis=1))
    np.testing.assert_array_equal(forget.high, (values > 0.95).mean(axis=1))
    if kind == "vanishing":
        assert "The cause: the forget gate is near 0" in report.verdict
        assert "forget_bias=" in report.verdict
        state = {k: v.numpy().copy() for k, v in net.state_dict().items()}
        after = report.tried(lambda: again(net, 13, each=True))
        assert after.kind == "healthy"
        assert after.half_life > 20 * report.half_life
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), state[name])


def test_a_change_of_ones_own():
    net = lstm(forget_bias=-5.0)
    losses, tape, _ = run(net, 13)
    report = flow(losses, tape)

    def change(parameters):
        parameters["bias_ih_l0"][H : 2 * H] = 5.0

    assert report.tried(lambda: again(net, 13, each=True), change).kind == "healthy"
    with pytest.raises(UsageError, match="makes parameters of its own"):
        report.tried(lambda: again(lstm(), 13, each=True))
    fine = flow(*run(lstm(forget_bias=5.0))[:2])
    with pytest.raises(UsageError, match="no change of the parameters"):
        fine.tried(lambda: None)


def test_without_a_bias():
    net = lstm(bias=False)
    net.weight_ih_l0.data[H : 2 * H] = -9.0
    losses, tape, _ = run(net, 13, scale=0.0)
    assert flow(losses, tape).kind == "vanishing"  # forget gates at a half
    assert "change no bias" in {key for key, _ in flow(losses, tape).worst.sentences}


def test_saturated_tanh():
    net = orthogonal(1.0, bias=4.0)
    losses, tape, _ = run(net, 11)
    report = flow(losses, tape)
    assert report.kind == "vanishing"
    assert "The cause: the activation is saturated" in report.verdict
    assert report.saturation["h"].high.mean() == 1.0
    assert "100.0 % of its values saturated" in report.verdict
    assert report.tried(lambda: again(net, 11, each=True)).rate > 3 * report.rate


def test_saturation_of_tanh_counts_both_ends():
    losses, tape, _ = run(orthogonal(1.0, inputs=1.0), scale=1.3)
    found = flow(losses, tape).saturation["h"]
    values = np.stack([tape_value(tape, f"h[{t}]") for t in range(STEPS)])
    assert ((np.abs(values) > 0.9) & (np.abs(values) < 0.95)).any()
    np.testing.assert_array_equal(found.low, (values < -0.95).mean(axis=1))
    np.testing.assert_array_equal(found.high, (values > 0.95).mean(axis=1))
    np.testing.assert_allclose(found.mean, values.mean(axis=1))
    assert found.low.any()
    assert found.high.any()


def test_gru_update_gate():
    mg.manual_seed(1)
    net = nn.GRU(I, H, dtype="float64")
    net.bias_ih_l0.data[H : 2 * H] = -6.0
    net.weight_hh_l0.data[2 * H :] = 0.0
    losses, tape, _ = run(net, 11)
    report = flow(losses, tape)
    assert report.c_norms is None
    assert report.kind == "vanishing"
    assert "The cause: the update gate is near 0" in report.verdict
    assert report.tried(lambda: again(net, 11, each=True)).kind == "healthy"


def test_an_lstm_that_explodes():
    net = lstm()
    net.weight_hh_l0.data[2 * H : 3 * H] = 30 * np.linalg.qr(np.random.default_rng(1).normal(size=(H, H)))[0]
    net.weight_ih_l0.data[...] = 0.0
    net.bias_ih_l0.data[...] = 0.0
    net.bias_hh_l0.data[...] = 0.0
    losses, tape, _ = run(net, 9)
    report = flow(losses, tape)
    assert report.kind == "exploding"
    assert "The cause: the routes through h[t-1] and gate g." in report.verdict
    assert report.tried(lambda: again(net, 9, each=True)).kind != "exploding"


def test_no_single_factor_nothing_passes_too_short_and_not_finite():
    def loop(step, steps=9, start=0.5):
        h = mg.tensor(np.full((N, H), start), requires_grad=True)
        with mg.Tape() as tape:
            for t in range(steps):
                h = step(h)
                h.name = f"h[{t}]"
            loss = h.sum()
        return flow(loss, tape)

    shrinking = loop(lambda h: h * 0.25 + 0.0 * h * h)
    assert shrinking.kind == "vanishing"
    assert "no single factor" in shrinking.verdict
    assert shrinking.rate == pytest.approx(0.25)
    assert "no single factor" in loop(lambda h: h * 3.0 + 0.0 * h * h).verdict
    assert "no gradient passes a step" in loop(lambda h: h * 0.0 + 1.0).verdict
    assert loop(lambda h: h * 2.0, steps=1).kind == "too short"
    with np.errstate(all="ignore"):
        bad = loop(lambda h: mg.sqrt(h * 0.0))
    assert bad.kind == "not finite"


# --- other tapes -----------------------------------------------------------------------------------------------


def test_layers_and_directions_float32():
    net = lstm("float32", num_layers=2, bidirectional=True)
    net_losses, tape, _ = run(net_of_sum(net))
    report = flow(net_losses, tape)
    names = [layer.name for layer in report.layers]
    assert [name.split("/", 1)[1] for name in names] == [
        f"layer {k}/{way}" for k in (0, 1) for way in ("forward", "reverse")
    ]
    assert [layer.backwards for layer in report.layers] == [False, True] * 2
    forward, reverse = report.layers[2:]
    assert not forward.h_norms[np.triu_indices(STEPS, 1)].any()
    assert not reverse.h_norms[np.tril_indices(STEPS, -1)].any()
    assert reverse.h_norms[0].all()
    with pytest.raises(UsageError, match="reads from the end"):
        report.truncation(2, 3)


class net_of_sum:  # noqa: N801
    """A bidirectional layer whose halves are added up."""

    def __init__(self, net):
        self.net, self.hidden_size = net, net.hidden_size

    def parameters(self):
        return self.net.parameters()

    def __call__(self, x):
        out = self.net(x)[0]
        return (out[..., : self.hidden_size] + out[..., self.hidden_size :],)


def test_a_loop_of_ones_own_and_a_second_pass():
    W = mg.tensor(np.random.default_rng(4).normal(size=(H, H)) / 3, requires_grad=True, name="W")
    with mg.Tape() as tape:
        for _ in range(2):
            h, losses = mg.tensor(np.ones((N, H))), []
            for t in range(STEPS):
                h = mg.tanh(h @ W)
                h.name = f"h[{t}]"
                losses.append(h.sum())
    report = flow(losses, tape)
    assert [layer.name for layer in report.layers] == ["", " (pass 2)"]
    assert report.layers[0].kind == "too short"
    h = tape_value(tape, "h[3]")
    after = next(n.value for n in tape.nodes if n.name == "h[4]")
    expected = (1 - after[0] ** 2)[:, None] * W.detach().numpy().T
    np.testing.assert_allclose(report.layers[1].jacobian("h", 4)[0], expected, atol=1e-13)
    assert h.shape == (N, H)


def test_wrong_calls():
    losses, tape, _ = run(lstm())
    with pytest.raises(UsageError, match="no losses"):
        flow([], tape)
    with pytest.raises(UsageError, match="one element"):
        flow(tape.nodes[-1].inputs[0].tensor, tape)
    with pytest.raises(UsageError, match="did not see"):
        flow(mg.tensor(1.0, requires_grad=True) * 2, tape)
    with mg.Tape() as empty:
        loss = (mg.tensor([1.0, 2.0], requires_grad=True) * 2).sum()
    with pytest.raises(UsageError, match="no states"):
        flow(loss, empty)
    report = flow(losses, tape)
    with pytest.raises(UsageError, match="no c\\[0\\] with a step before"):
        report.worst.jacobian("c", 0)
    with pytest.raises(UsageError, match="k2 is a positive"):
        report.truncation(1, 0)
    with pytest.raises(AttributeError):
        report.nonsense  # noqa: B018


def test_samples_that_depend_on_each_other():
    W = mg.tensor(np.random.default_rng(4).normal(size=(H, H)) / 3, requires_grad=True)
    h = mg.tensor(np.random.default_rng(6).normal(size=(N, H)))
    with mg.Tape() as tape:
        for t in range(3):
            h = mg.tanh(h @ W)
            h = h - mg.mean(h, axis=0, keepdims=True)
            h.name = f"h[{t}]"
        loss = (h * h).sum()
    with pytest.raises(UsageError, match="samples of the batch depend"):
        flow(loss, tape)


# --- truncation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 3), (2, 3), (3, 3), (3, 2), (7, 7)])
def test_truncation_against_truncated_training(k1, k2):
    mg.manual_seed(3)
    cell = nn.LSTMCell(I, H, dtype="float64")
    draw = np.random.default_rng(5)
    xs = [mg.tensor(x) for x in draw.normal(size=(STEPS, N, I))]
    goal = mg.tensor(draw.normal(size=(N, H)))
    zeros = (mg.zeros(N, H, dtype="float64"), mg.zeros(N, H, dtype="float64"))
    state, losses = zeros, []
    with mg.Tape() as tape:
        for t, x in enumerate(xs):
            with mg.scope(f"t={t}"):
                state = cell(x, state)
                state[0].name, state[1].name = f"h[{t}]", f"c[{t}]"
                losses.append((state[0] * goal).sum())
    found = flow(losses, tape).truncation(k1, k2)

    def gradient(k1, k2):
        for p in cell.parameters():
            p.grad = None

        def step(x, state):
            state = cell(x, state)
            return (state[0] * goal).sum(), state

        for _ in nn.truncated_bptt(step, xs, zeros, k1=k1, k2=k2):
            pass
        return np.concatenate([p.grad.numpy().ravel() for p in cell.parameters()])

    exact, cut = gradient(STEPS, STEPS), gradient(k1, k2)
    size = np.linalg.norm(exact)
    assert found.cosine == pytest.approx(exact @ cut / size / np.linalg.norm(cut), abs=1e-12)
    assert found.ratio == pytest.approx(np.linalg.norm(cut) / size)
    assert found.error == pytest.approx(np.linalg.norm(cut - exact) / size, abs=1e-12)
    errors = [np.linalg.norm(gradient(1, k) - exact) / size for k in range(1, STEPS + 1)]
    assert found.smallest == 1 + next(k for k, error in enumerate(errors) if error <= 0.01)
    gone = [0] * STEPS
    for t in range(STEPS):
        first = max(min((t // k1 + 1) * k1, STEPS) - k2, 0)
        for k in range(t + 1):
            gone[t - k] += k < first
    assert [row[0] for row in found.lost] == gone
    assert [row[1] for row in found.lost] == list(range(STEPS, 0, -1))
    if (k1, k2) == (1, 1):
        two = gradient(1, 2)
        assert found.lost[1][2] == pytest.approx(np.linalg.norm(two - cut))
    assert max(map(len, str(found).splitlines())) <= 80


def test_truncation_of_one_loss():
    net = lstm()
    losses, tape, _ = run(net, each=False)
    assert flow(losses, tape).truncation(1, STEPS).error == pytest.approx(0, abs=1e-12)
    with mg.Tape() as tape:
        total = net(mg.ones(STEPS, N, I, dtype="float64"))[0].sum()
    with pytest.raises(UsageError, match="reads the states of 6 other steps"):
        flow(total, tape).truncation(1, 2)


def test_truncation_refuses_states_that_skip_a_step():
    before = h = mg.tensor(np.ones((N, H)), requires_grad=True)
    with mg.Tape() as tape:
        for t in range(4):
            before, h = h, mg.tanh(h * 0.5 + before)
            h.name = f"h[{t}]"
        loss = h.sum()
    with pytest.raises(GraphError, match=r"h\[2\] reads h\[0\] of an earlier step"):
        flow(loss, tape).truncation(1, 2)


def test_truncation_needs_the_names_of_all_states():
    W = mg.tensor(np.random.default_rng(4).normal(size=(H, H)) / 3, requires_grad=True)
    h = hidden = mg.tensor(np.random.default_rng(6).normal(size=(N, H)))
    with mg.Tape() as tape:
        for t in range(4):
            with mg.scope(f"t={t}"):
                h, hidden = mg.tanh(h @ W + hidden), mg.tanh(hidden @ W)
            h.name = f"h[{t}]"
        loss = h.sum()
    with pytest.raises(GraphError, match=r"h\[1\] reads tanh of an earlier step"):
        flow(loss, tape).truncation(1, 2)


# --- side by side, the command line, and the words -----------------------------------------------------------------


def test_rnn_beside_lstm():
    both = compare({
        "rnn": lambda: again(orthogonal(0.5), 20, each=True),
        "lstm": lambda: again(lstm(forget_bias=5.0), 20, each=True),
    })  # fmt: skip
    assert (both["rnn"].kind, both["lstm"].kind) == ("vanishing", "healthy")
    assert [line.split()[0] for line in str(both).splitlines()] == ["model", "rnn", "lstm"]
    assert json.loads(json.dumps(both.to_dict())) == both.to_dict()


def test_pictures_of_numbers():
    lines = room._heat(np.array([[1.0, 0.02, 0.002, 0.0003, 1e-9, 0.0, np.nan]]))
    assert lines[0] == "    █▓▒░ ·?"
    assert room._spark(np.array([1.0, 2.0, 8.0])) == "▁▂█"
    assert room._spark(np.array([3.0, 3.0])) == "▄▄"
    assert room._spark(np.array([3.0, np.nan])) == "??"
    wide = np.zeros((40, 300))
    wide[39, 299] = 7.0
    lines = room._heat(wide)
    assert len(lines) == room.TALLEST + 1
    assert [len(line) for line in lines[:-1]] == [room.WIDEST + 4] * room.TALLEST
    assert lines[-2][-1] == "█"


def test_help_fits_and_its_examples_run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["flow", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "import minigrad as mg\nnet = mg.nn.RNN(2, 3)\ndef loss():\n    return net(mg.ones(4, 1, 2))[0][3].sum()\n"
    )
    for line in re.findall(r"^  minigrad (.*)$", cli._FLOW, re.MULTILINE):
        assert cli.main(line.split()) == 0


def test_command_line(capsys):
    assert cli.main(["flow", "rnn", "--steps", "20", "--truncate", "5,10", "--try"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "After the changes:" in out
    assert "k2 = " in out
    assert cli.main(["flow", "rnn", "--steps", "20", "--fail-on", "vanishing,exploding", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "vanishing"
    assert cli.main(["flow", "rnn", "--steps", "20", "--fail-on", "exploding"]) == 0
    assert cli.main(["flow", "rnn", "--fail-on", "boredom"]) == 2
    assert cli.main(["flow", "rnn", "--truncate", "5"]) == 2


def test_every_sentence_is_said():
    """Runs after the others of this file; alone it says what it needs by calling them."""
    if not set(room.WORDS) <= SAID:
        for test in (
            test_radius_a_half, test_radius_one, test_radius_two, test_growth_that_is_no_explosion, test_without_a_bias,
            test_saturated_tanh, test_gru_update_gate, test_an_lstm_that_explodes,
            test_no_single_factor_nothing_passes_too_short_and_not_finite,
        ):  # fmt: skip
            test()
        for case in ((-5.0, "vanishing"), (5.0, "healthy")):
            test_forget_bias(*case)
    assert set(room.WORDS) == SAID
