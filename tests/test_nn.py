"""Modules, layers and recurrent units against equations in NumPy, central differences, and PyTorch if installed."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from arrays import numbers

import minigrad as mg
from minigrad import nn
from minigrad.errors import DTypeError, GraphError, MinigradError, ShapeError, UsageError

pytestmark = pytest.mark.usefixtures("float64")

N, T, I, H, P = 3, 5, 7, 11, 2
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


# --- the equations once more, in NumPy ----------------------------------------------------------------------


def sigma(a):
    return 1 / (1 + np.exp(-a))


def rnn_step(x, state, w, squash=np.tanh):
    (h,) = state
    return (squash(x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]),)


def lstm_step(x, state, w):
    h, c = state
    a = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    h = sigma(o) * np.tanh(c)
    return (h @ w["weight_hr"].T if "weight_hr" in w else h), c


def gru_step(x, state, w):
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ w["weight_hh"].T + w["bias_hh"], 3, axis=-1)
    r, z = sigma(x_r + h_r), sigma(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


STEPS = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step}


def weights_of(parameters, suffix):
    w = {k.removesuffix(suffix): v for k, v in parameters.items() if k.removesuffix(suffix) + suffix == k}
    w = {k: v for k, v in w.items() if k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")}
    return {"bias_ih": 0.0, "bias_hh": 0.0, **w}


def by_equations(kind, x, states, parameters, options):
    """Outputs and final states of a whole network, direction by direction."""
    layers, both = options.get("num_layers", 1), options.get("bidirectional", False)
    x = np.moveaxis(x, 1, 0) if options.get("batch_first") and x.ndim == 3 else x
    extra = {"squash": lambda a: np.maximum(a, 0)} if options.get("nonlinearity") == "relu" else {}
    final = []
    for layer in range(layers):
        sides = []
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 1 + both]:
            w = weights_of(parameters, suffix)
            state = tuple(s[len(final)] for s in states)
            hs = []
            for x_t in x[::-1] if suffix.endswith("reverse") else x:
                state = STEPS[kind](x_t, state, w, **extra)
                hs.append(state[0])
            sides.append(np.stack(hs[::-1] if suffix.endswith("reverse") else hs))
            final.append(state)
        x = np.concatenate(sides, axis=-1)
    y = np.moveaxis(x, 0, 1) if options.get("batch_first") and x.ndim == 3 else x
    return [y, *(np.stack(part) for part in zip(*final, strict=True))]


OPTIONS = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
]
CASES = [
    *itertools.product(GATES, OPTIONS),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"proj_size": P}),
    ("LSTM", {"proj_size": P, "num_layers": 2, "bidirectional": True}),
]
LABELS = ["-".join([kind, *(f"{k}={v}" for k, v in options.items())]) for kind, options in CASES]
each_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=LABELS)
each_form = pytest.mark.parametrize("form", ["batch", "unbatched", "zero states"])


def problem(kind, options, form="batch"):
    """A network, and arrays for its input and states (none where they are left to be zeros)."""
    module = getattr(nn, kind)(I, H, **options)
    batch = () if form == "unbatched" else (N,)
    x = numbers(*((N, T) if options.get("batch_first") and batch else (T, *batch)), I)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size") or H, H)[: 2 if kind == "LSTM" else 1]
    states = [numbers(count, *batch, size, seed=5 + k) for k, size in enumerate(sizes)]
    return module, x, [0 * s for s in states] if form == "zero states" else states


def run(module, x, states):
    """Outputs and final states in one list."""
    given = None if states is None else states[0] if len(states) == 1 else tuple(states)
    y, final = module(x, given)
    return [y, *(final if isinstance(final, tuple) else (final,))]


def mixed(outputs, functions):
    """A scalar that depends on each output by other factors."""
    total = 0.0
    for k, y in enumerate(outputs):
        total = total + (functions(numbers(*y.shape, seed=20 + k)) * y * y + 0.1 * (k + 1) * y).sum()
    return total


@each_form
@each_case
def test_forward_is_the_equations(kind, options, form):
    module, x, states = problem(kind, options, form)
    got = run(module, mg.tensor(x), None if form == "zero states" else [mg.tensor(s) for s in states])
    expected = by_equations(kind, x, states, {k: v.numpy() for k, v in module.state_dict().items()}, options)
    for y, e in zip(got, expected, strict=True):
        assert y.shape == e.shape
        np.testing.assert_allclose(y.numpy(), e, rtol=1e-12, atol=1e-14)


@each_case
def test_gradients_are_the_slopes_of_the_equations(kind, options):
    """Along one random direction per tensor: the gradient's share against a central difference of the NumPy twin."""
    module, x, states = problem(kind, options)
    tensors = [mg.tensor(a, requires_grad=True) for a in (x, *states)]
    mixed(run(module, tensors[0], tensors[1:]), mg.tensor).backward()
    arrays = {"x": x, **{f"state {k}": s for k, s in enumerate(states)}}
    gradients = dict(zip(arrays, (t.grad.numpy() for t in tensors), strict=True))
    for name, parameter in module.named_parameters():
        arrays[name], gradients[name] = parameter.numpy().copy(), parameter.grad.numpy()

    def loss(values):
        outputs = by_equations(kind, values["x"], [values[k] for k in values if k[:5] == "state"], values, options)
        return mixed(outputs, np.asarray)

    step = 1e-5
    for name, array in arrays.items():
        direction = numbers(*array.shape, seed=31)
        ahead, behind = (loss({**arrays, name: array + s * direction}) for s in (step, -step))
        slope, share = (ahead - behind) / (2 * step), (gradients[name] * direction).sum()
        np.testing.assert_allclose(share, slope, rtol=2e-7, atol=1e-8, err_msg=name)


@each_form
@each_case
def test_a_tape_changes_no_number(kind, options, form):
    module, x, states = problem(kind, options, form)

    def everything():
        module.zero_grad()
        tensors = [mg.tensor(a, requires_grad=True) for a in (x, *states)]
        outputs = run(module, tensors[0], tensors[1:])
        mixed(outputs, mg.tensor).backward()
        return [t.numpy() for t in outputs] + [t.grad.numpy() for t in (*tensors, *module.parameters())]

    quiet = everything()
    with mg.Tape():
        told = everything()
    for a, b in zip(quiet, told, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.needs("torch")
@each_form
@each_case
def test_agrees_with_pytorch(kind, options, form):
    torch = pytest.importorskip("torch")
    module, x, states = problem(kind, options, form)
    twin = getattr(torch.nn, kind)(I, H, dtype=torch.float64, **options)
    own = module.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    assert list(own) == list(twin.state_dict())
    module.load_state_dict(twin.state_dict())

    def everything(network, make):
        tensors = [make(a, requires_grad=True) for a in (x, *states)]
        outputs = run(network, tensors[0], None if form == "zero states" else tensors[1:])
        mixed(outputs, make).backward()
        used = tensors[: None if form != "zero states" else 1]
        return [t.detach().numpy() for t in outputs] + [t.grad.numpy() for t in (*used, *network.parameters())]

    for a, b in zip(everything(module, mg.tensor), everything(twin, torch.tensor), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(N,), ()])
@pytest.mark.parametrize("watched", [True, False])
def test_cells_are_one_step_of_layers(kind, bias, batch, watched):
    cell, layer = getattr(nn, f"{kind}Cell")(I, H, bias=bias), getattr(nn, kind)(I, H, bias=bias)
    layer.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    x = numbers(*batch, I)
    states = [numbers(*batch, H, seed=k) for k in range(2 if kind == "LSTM" else 1)]
    for given in (states, None):
        first = None if given is None else tuple(given) if kind == "LSTM" else given[0]
        if watched:
            with mg.Tape():
                got = cell(x, first)
        else:
            got = cell(x, first)
        expected = run(layer, x[None], None if given is None else [s[None] for s in given])[1:]
        for a, b in zip(got if kind == "LSTM" else [got], expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy()[0], rtol=1e-13, atol=1e-15)


def test_relu_cell():
    cell = nn.RNNCell(I, H, nonlinearity="relu")
    x, h = numbers(N, I), numbers(N, H)
    expected = rnn_step(
        x, (h,), weights_of({k: v.numpy() for k, v in cell.state_dict().items()}, ""), lambda a: a * (a > 0)
    )
    np.testing.assert_allclose(cell(x, h).numpy(), expected[0], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kind", GATES)
def test_second_order(kind):
    """Slope of a gradient's share against the derivative of that share."""
    module, x, states = problem(kind, {})
    states = [mg.tensor(s) for s in states]
    direction = mg.tensor(numbers(*x.shape, seed=9))

    def share(values):
        gradient = mg.grad(lambda v: mixed(run(module, v, states), mg.tensor))(mg.as_tensor(values))
        return (mg.as_tensor(gradient) * direction).sum()

    curved = mg.grad(share)(mg.tensor(x)).numpy()
    step, other = 1e-5, numbers(*x.shape, seed=10)
    slope = (share(mg.tensor(x + step * other)).item() - share(mg.tensor(x - step * other)).item()) / (2 * step)
    np.testing.assert_allclose((curved * other).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize("kind", GATES)
def test_starting_values_are_uniform_within_one_over_root_hidden(kind):
    module = getattr(nn, kind)(13, 49, num_layers=2, bidirectional=True)
    values = np.concatenate([p.numpy().ravel() for p in module.parameters()])
    assert np.abs(values).max() <= 1 / 7
    assert np.abs(values).max() > 0.99 / 7
    np.testing.assert_allclose(np.quantile(values, [0.25, 0.75]), [-0.5 / 7, 0.5 / 7], rtol=0.05)
    mg.manual_seed(1)
    again = getattr(nn, kind)(13, 49, num_layers=2, bidirectional=True, dtype="float32")
    for a, b in zip(module.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy().astype("float32"), b.numpy())


def test_forget_everything_and_remember_everything():
    cell = nn.LSTMCell(I, H)
    x, h, c = numbers(N, I), numbers(N, H), numbers(N, H, seed=1)
    for bias, kept in ((-1e3, 0), (1e3, 1)):
        with mg.no_grad():
            cell.bias_ih[0:H] = -1e3
            cell.bias_ih[H : 2 * H] = bias
        np.testing.assert_array_equal(cell(x, (h, c))[1].numpy(), kept * c)


# --- what a tape sees ---------------------------------------------------------------------------------------


def told(tape, scope):
    return [node for node in tape.nodes if node.scope == scope]


def ops_under(tape, scope):
    return [n.op for n in tape.nodes if n.record is not None and f"{n.scope}/".startswith(f"{scope}/")]


def test_a_recorded_lstm_cell_has_the_structure_that_books_count():
    lstm = nn.LSTM(I, H)
    with mg.Tape() as tape:
        lstm(mg.tensor(numbers(T, N, I)))
    cut = [
        n for n in told(tape, "lstm/layer 0") if n.op == "getitem" and "[" in n.name and n.inputs[0].op == "parameter"
    ]
    assert sorted(n.name for n in cut) == sorted(
        f"{w}_l0[{g}]" for w in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for g in "ifgo"
    )
    for t in range(T):
        step = f"lstm/layer 0/t={t}"
        inside = ops_under(tape, step)
        gates = {g: ops_under(tape, f"{step}/{g} gate") for g in ("input", "forget", "cell", "output")}
        for g, found in gates.items():
            assert found == ["affine", "affine", "add", "tanh" if g == "cell" else "sigmoid"]
        own = [n.op for n in told(tape, step) if n.record is not None]
        assert sorted(own) == ["add", "getitem", "mul", "mul", "mul", "tanh"]
        assert len(inside) == 4 * 4 + 6
        assert {n.time for n in tape.nodes if n.scope.startswith(step)} == {t}
    names = {n.name: n for n in tape.nodes if n.name}
    for t in range(T):
        x, i, f, g, o, c, h = (names[f"{word}[{t}]"] for word in "xifgoch")
        assert [x.op, i.op, f.op, g.op, o.op, c.op, h.op] == [
            "getitem",
            *["sigmoid"] * 2,
            "tanh",
            "sigmoid",
            "add",
            "mul",
        ]
        kept, added = c.inputs
        assert kept.inputs == (f, names[f"c[{t - 1}]"])
        assert added.inputs == (i, g)
        assert h.inputs[0] is o
        assert h.inputs[1].inputs == (c,)
        for gate in (i, f, g, o):
            from_x, from_h = gate.inputs[0].inputs
            assert from_x.inputs[0] is x
            assert from_h.inputs[0] is names[f"h[{t - 1}]"]
    assert names["output"].op == "stack"
    assert names["output"].scope == names["h_n"].scope == names["c_n"].scope == "lstm"
    assert names["output"].inputs == tuple(names[f"h[{t}]"] for t in range(T))


def test_a_recorded_rnn_and_gru():
    rnn, gru = nn.RNN(I, H), nn.GRU(I, H, bias=False)
    with mg.Tape() as tape:
        rnn(mg.tensor(numbers(T, N, I)))
        gru(mg.tensor(numbers(T, N, I)))
    assert ops_under(tape, "rnn/layer 0/t=3") == ["getitem", "affine", "affine", "add", "tanh"]
    gates = {g: ops_under(tape, f"gru/layer 0/t=3/{g} gate") for g in ("reset", "update", "new")}
    assert gates["reset"] == gates["update"] == ["matmul", "matmul", "add", "sigmoid"]
    assert gates["new"] == ["matmul", "matmul", "mul", "add", "tanh"]
    assert ops_under(tape, "gru/layer 0").count("mT") == 6
    assert {n.op for n in tape.nodes if n.name == "h[3]"} == {"tanh", "add"}


def test_scopes_of_layers_and_directions():
    lstm = nn.LSTM(I, H, num_layers=2, bidirectional=True, proj_size=P)
    with mg.Tape() as tape:
        lstm(mg.tensor(numbers(T, N, I)))
    for layer, way in itertools.product((0, 1), ("forward", "reverse")):
        assert len(ops_under(tape, f"lstm/layer {layer}/{way}/t=2/forget gate")) == 4
    last = [n for n in tape.nodes if n.scope == "lstm/layer 0/reverse/t=4" and n.name == "h[4]"]
    assert last[0].op == "matmul"
    assert last[0].inputs[0].name == "m[4]"
    start = [n for n in tape.nodes if n.scope == "lstm/layer 1/reverse" and n.name == f"c[{T}]"]
    assert start[0].op == "getitem"
    assert [n.op for n in told(tape, "lstm/layer 0/t=2")] == ["concatenate"]


def test_attribute_names_are_scopes():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(13, I)
            self.memory = nn.GRU(I, H)
            self.head = nn.Sequential(nn.Linear(H, 5), nn.Tanh())

        def forward(self, x):
            return self.head(self.memory(self.embed(x))[0])

    model = Model()
    with mg.Tape() as tape:
        model(np.array([1, 12, 3]))
        nn.Linear(I, H)(mg.ones(I))
    scopes = {n.scope for n in tape.nodes if n.record is not None}
    assert {"embed", "memory", "memory/layer 0/t=2/new gate", "head/0", "head/1", "linear"} <= scopes
    assert not any(s.startswith("model") for s in scopes)
    assert mg.zeros(1).node is None
    assert _scope_now() == ""


def _scope_now():
    from minigrad import _core

    return _core.here()


def test_nobody_watching_leaves_no_names():
    h = nn.LSTMCell(I, H)(mg.ones(N, I))[0]
    assert h.name is None
    assert h.node.scope == ""


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.LSTM(0, 3), "input_size"),
        (lambda: nn.LSTM(2, 3.5), "hidden_size"),
        (lambda: nn.GRU(2, 3, num_layers=0), "num_layers"),
        (lambda: nn.RNN(2, 3, nonlinearity="sine"), "sine"),
        (lambda: nn.LSTM(2, 3, proj_size=3), "proj_size=3"),
        (lambda: nn.LSTM(2, 3, dropout=0.5), "between layers"),
        (lambda: nn.LSTM(2, 3, num_layers=2, dropout=1.5), "probability"),
        (lambda: nn.Linear(2, True), "out_features"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx=3"),
        (lambda: nn.Dropout(-0.1), "probability"),
        (lambda: nn.Sequential(mg.tanh), "argument 0"),
    ],
)
def test_refused_arguments(build, words):
    with pytest.raises(UsageError, match=words):
        build()


@pytest.mark.parametrize(
    ("kind", "x", "states", "words"),
    [
        ("LSTM", (T, N, I + 1), None, rf"shape \(5, 3, 8\); it must be \(T, N, I\).*I = {I}"),
        ("GRU", (T, N, I, 1), None, "shape"),
        ("RNN", (0, N, I), None, "no steps"),
        ("GRU", (T, N, I), [(1, N, H + 1)], rf"h_0 has shape \(1, 3, 12\); here it must be \(1, 3, {H}\)"),
        ("LSTM", (T, N, I), [(1, N, H), (1, N + 1, H)], "c_0"),
        ("LSTM", (T, I), [(1, N, H), (1, N, H)], "h_0"),
        ("RNNCell", (N, I + 1), None, "RNNCell: the input"),
        ("LSTMCell", (N, I), [(N, H), (N, I)], "c_0"),
    ],
)
def test_refused_shapes(kind, x, states, words):
    module = getattr(nn, kind)(I, H)
    given = None if states is None else tuple(mg.ones(s) for s in states)
    with pytest.raises(ShapeError, match=words):
        module(mg.ones(x), given[0] if given and len(given) == 1 else given)


def test_states_of_an_lstm_come_in_pairs():
    with pytest.raises(UsageError, match=r"\(h_0, c_0\), not Tensor"):
        nn.LSTM(I, H)(mg.ones(T, N, I), mg.ones(1, N, H))
    with pytest.raises(UsageError, match="c_0 is None; give zeros"):
        nn.LSTM(I, H)(mg.ones(T, N, I), (mg.ones(1, N, H), None))


def test_two_dtypes_are_refused():
    with pytest.raises(DTypeError):
        nn.LSTM(I, H)(mg.ones(T, N, I, dtype="float32"))


# --- other layers -------------------------------------------------------------------------------------------


def test_linear():
    for bias in (True, False):
        layer = nn.Linear(I, H, bias=bias)
        x = mg.tensor(numbers(N, T, I), requires_grad=True)
        y = layer(x)
        g = numbers(N, T, H)
        (y * g).sum().backward()
        w = layer.weight.numpy()
        b = layer.bias.numpy() if bias else 0
        np.testing.assert_allclose(y.numpy(), np.einsum("nti,hi->nth", x.numpy(), w) + b, rtol=1e-12)
        np.testing.assert_allclose(x.grad.numpy(), np.einsum("nth,hi->nti", g, w), rtol=1e-12)
        np.testing.assert_allclose(layer.weight.grad.numpy(), np.einsum("nth,nti->hi", g, x.numpy()), rtol=1e-12)
        assert np.abs(w).max() <= 1 / np.sqrt(I)
        if bias:
            np.testing.assert_allclose(layer.bias.grad.numpy(), g.sum(axis=(0, 1)), rtol=1e-12)


def test_embedding():
    table = nn.Embedding(13, I, padding_idx=-2)
    assert not table.weight.numpy()[11].any()
    with mg.no_grad():
        table.weight[11] = 5.0
    index = np.array([[3, 11, 3], [0, 12, 11]])
    y = table(index)
    np.testing.assert_array_equal(y.numpy(), table.weight.numpy()[index])
    g = numbers(2, 3, I)
    (y * g).sum().backward()
    expected = np.zeros((13, I))
    np.add.at(expected, index, g)
    expected[11] = 0
    np.testing.assert_array_equal(table.weight.grad.numpy(), expected)
    plain = nn.Embedding(13, I)
    plain(mg.tensor([11, 11])).sum().backward()
    assert plain.weight.grad.numpy()[11].tolist() == [2.0] * I


def test_dropout():
    layer = nn.Dropout(0.25)
    x = mg.tensor(np.full((97, 101), 3.0), requires_grad=True)
    y = layer(x)
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y.numpy()[kept], 4.0)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), kept / 0.75)
    assert layer.eval()(x) is x
    assert not nn.Dropout(1.0)(x).numpy().any()
    assert nn.Dropout(0.5)(mg.ones(3, dtype="float32")).dtype == "float32"


@pytest.mark.parametrize("watched", [True, False])
def test_dropout_between_layers(watched):
    gru = nn.GRU(I, H, num_layers=2, dropout=0.5, bidirectional=True)
    x = mg.tensor(numbers(T, N, I))

    def outputs():
        mg.manual_seed(7)
        if watched:
            with mg.Tape():
                return gru(x)[0].numpy()
        return gru(x)[0].numpy()

    train = outputs()
    assert np.abs(train - gru.eval()(x)[0].numpy()).max() > 1e-3
    # Dropping everything leaves the second layer without input.
    gru.train().dropout = 1.0
    options = {"bidirectional": True}
    second = {k.replace("_l1", "_l0"): v.numpy() for k, v in gru.state_dict().items() if "_l1" in k}
    expected = by_equations("GRU", np.zeros((T, N, 2 * H)), [np.zeros((2, N, H))], second, options)[0]
    np.testing.assert_allclose(outputs(), expected, rtol=1e-12)


def test_dropout_does_not_depend_on_a_tape():
    lstm = nn.LSTM(I, H, num_layers=3, dropout=0.3)
    x = mg.tensor(numbers(T, N, I))
    mg.manual_seed(7)
    quiet = lstm(x)[0].numpy()
    mg.manual_seed(7)
    with mg.Tape():
        np.testing.assert_allclose(lstm(x)[0].numpy(), quiet, rtol=1e-12)


def test_sequential_and_activations():
    model = nn.Sequential(nn.Linear(I, H), nn.ReLU(), nn.Linear(H, 2), nn.Sigmoid(), nn.Tanh())
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = numbers(N, I)
    w = {k: v.numpy() for k, v in model.state_dict().items()}
    inner = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0)
    expected = np.tanh(sigma(inner @ w["2.weight"].T + w["2.bias"]))
    np.testing.assert_allclose(model(x).numpy(), expected, rtol=1e-12)
    assert len(model) == 5
    assert model[1] is list(model)[1]


def test_starting_values():
    w = mg.zeros(211, 97)
    nn.init.orthogonal_(w, gain=2.0)
    np.testing.assert_allclose(w.numpy().T @ w.numpy(), 4 * np.eye(97), atol=1e-12)
    nn.init.orthogonal_(wide := mg.zeros(5, 7))
    np.testing.assert_allclose(wide.numpy() @ wide.numpy().T, np.eye(5), atol=1e-14)
    bound = np.sqrt(6 / (211 + 97))
    assert 0.99 * bound < np.abs(nn.init.xavier_uniform_(w).numpy()).max() <= bound
    np.testing.assert_allclose(nn.init.xavier_normal_(w, gain=3.0).numpy().std(), 3 * bound / np.sqrt(3), rtol=0.02)
    drawn = nn.init.normal_(w, 5.0, 0.5).numpy()
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [5, 0.5], rtol=0.02)
    assert (nn.init.constant_(w, 1.5).numpy() == 1.5).all()
    assert w.version == 5
    with pytest.raises(ShapeError, match="matrix"):
        nn.init.orthogonal_(mg.zeros(3))


# --- modules ------------------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.scale = nn.Parameter(mg.ones(3))
        self.second = self.first
        self.register_buffer("mean", mg.tensor([4.0, 5.0]))
        self.register_buffer("scratch", mg.zeros(1), persistent=False)
        self.register_buffer("steps", mg.tensor([7]))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.second(self.drop(self.first(x - self.mean) * self.scale)[..., :2])


def test_registration():
    model = Model()
    assert [k for k, _ in model.named_parameters()] == ["scale", "first.weight", "first.bias"]
    assert len(list(model.parameters())) == 3
    assert [k for k, _ in model.named_buffers()] == ["mean", "scratch", "steps"]
    assert [k for k, _ in model.named_modules()] == ["", "first", "drop"]
    assert [p.name for p in model.parameters()] == ["scale", "weight", "bias"]
    assert {"first", "scale", "mean", "forward"} <= set(dir(model))
    model.scale = None
    assert model.scale is None
    assert len(list(model.parameters())) == 2
    with pytest.raises(UsageError, match="'scale' is a parameter"):
        model.scale = 3.0
    model.mean = mg.tensor([1.0, 1.0])
    assert model.state_dict()["mean"].tolist() == [1.0, 1.0]
    model.second = nn.Linear(3, 1)
    assert model.second is not model.first
    del model.second
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'second'"):
        _ = model.second
    model.first = "a word"
    assert model.first == "a word"
    assert [k for k, _ in model.named_modules()] == ["", "drop"]
    del model.first
    assert "first" not in dir(model)


def test_parameters_before_super():
    class Hasty(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(mg.ones(2))

    with pytest.raises(UsageError, match="super"):
        Hasty()


def test_parameter():
    data = mg.tensor([1.0, 2.0])
    p = nn.Parameter(data)
    assert isinstance(p, mg.Tensor)
    assert p.requires_grad
    assert p.is_leaf
    assert p.numpy() is data.numpy()
    assert type(p + 1) is mg.Tensor
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    with pytest.raises(DTypeError):
        nn.Parameter(mg.tensor([1, 2]))


def test_modes_and_gradients():
    model = Model()
    assert model.training
    assert model.eval() is model
    assert not model.drop.training
    assert model.train().drop.training
    model(mg.ones(5, 2)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=False)
    assert all((p.grad.numpy() == 0).all() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(False)
    assert not model(mg.ones(5, 2)).requires_grad
    order = []
    model.apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "Linear", "Dropout", "Model"]


def test_to():
    model = Model()
    model(mg.ones(5, 2)).sum().backward()
    held = list(model.parameters())
    values, gradients = [p.numpy() for p in held], [p.grad.numpy() for p in held]
    assert model.to("float32") is model
    for p, value, gradient in zip(model.parameters(), values, gradients, strict=True):
        assert any(p is q for q in held)
        assert p.is_leaf
        np.testing.assert_array_equal(p.numpy(), value.astype("float32"))
        np.testing.assert_array_equal(p.grad.numpy(), gradient.astype("float32"))
    assert [b.dtype for b in model.buffers()] == ["float32", "float32", "int64"]
    assert model(mg.ones(5, 2, dtype="float32")).dtype == "float32"
    assert model.double().mean.dtype == "float64"
    assert model.to("cpu").to(mg.ones(1, dtype="float32")).scale.dtype == "float32"
    with pytest.raises(DTypeError, match="int64"):
        model.to("int64")


def test_state_goes_out_and_in():
    model, other = Model(), Model()
    state = model.state_dict()
    assert list(state) == [
        "scale",
        "mean",
        "steps",
        *(f"{m}.{w}" for m in ("first", "second") for w in ("weight", "bias")),
    ]
    assert not any(v.requires_grad for v in state.values())
    assert state["scale"].numpy() is model.scale.numpy()
    arrays = {k: v.numpy() + 1 for k, v in state.items()}
    before = other.scale.version
    other.load_state_dict(arrays)
    assert other.scale.version == before + 1
    for k, v in other.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), arrays[k])
        assert v.numpy() is not arrays[k]
    other.load_state_dict({k: a.astype("float32") for k, a in arrays.items()})
    assert other.scale.dtype == "float64"


def test_a_state_that_does_not_fit_is_refused_whole():
    model = Model()
    good = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    bad = {k: v + 1 for k, v in good.items()} | {"first.bias": np.ones(4), "ghost": np.ones(1)}
    del bad["mean"]
    with pytest.raises(UsageError, match=r"missing: mean; unexpected: ghost; first\.bias has shape \(3,\), not \(4,\)"):
        model.load_state_dict(bad)
    with pytest.raises(ShapeError, match=r"first\.bias has"):
        model.load_state_dict(bad, strict=False)
    with pytest.raises(UsageError, match="takes a dictionary, path -> array, not str"):
        model.load_state_dict("model.safetensors")
    for k, v in model.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), good[k])
    del bad["first.bias"]
    result = model.load_state_dict(bad, strict=False)
    assert result.missing_keys == ["mean", "first.bias"]
    assert result.unexpected_keys == ["ghost"]
    assert model.scale.numpy().tolist() == [2.0] * 3
    with pytest.raises(UsageError, match="scale is no array of numbers but str"):
        model.load_state_dict({"scale": "three"}, strict=False)


@pytest.mark.needs("torch")
def test_state_to_pytorch_and_back():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    twin = torch.nn.Sequential(torch.nn.Linear(I, H), torch.nn.Tanh(), torch.nn.Linear(H, 2)).double()
    model = nn.Sequential(nn.Linear(I, H), nn.Tanh(), nn.Linear(H, 2))
    model.load_state_dict(twin.state_dict())
    model.load_state_dict(dict(twin.named_parameters()))
    x = numbers(N, I)
    np.testing.assert_allclose(model(x).numpy(), twin(torch.tensor(x)).detach().numpy(), rtol=1e-13, atol=1e-15)
    with mg.no_grad():
        model[0].weight.mul_(2.0)
    twin.load_state_dict({k: torch.from_dlpack(v) for k, v in model.state_dict().items()})
    np.testing.assert_allclose(model(x).numpy(), twin(torch.tensor(x)).detach().numpy(), rtol=1e-13, atol=1e-15)


def test_copies_and_pickles():
    model = nn.Sequential(nn.LSTM(2, 3, bidirectional=True), nn.Linear(3, 1))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin) == repr(model)
        for (ka, a), (kb, b) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            assert ka == kb
            assert isinstance(b, nn.Parameter)
            assert b.requires_grad
            assert a.name == b.name
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert a.numpy() is not b.numpy()
        np.testing.assert_array_equal(twin[0](mg.ones(4, 2))[0].numpy(), model[0](mg.ones(4, 2))[0].numpy())


def test_repr_is_a_tree():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = nn.LSTM(2, 3, num_layers=2, bias=False, dropout=0.5, proj_size=1)
            self.head = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Dropout(0.1))
            self.table = nn.Embedding(5, 2, padding_idx=0)

    assert repr(Two()) == (
        "Two(\n"
        "  (memory): LSTM(2, 3, num_layers=2, bias=False, dropout=0.5, proj_size=1)\n"
        "  (head): Sequential(\n"
        "    (0): Linear(3, 1, bias=False)\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        "  (table): Embedding(5, 2, padding_idx=0)\n"
        ")"
    )
    assert repr(nn.RNN(2, 3, nonlinearity="relu", batch_first=True)) == "RNN(2, 3, batch_first=True, nonlinearity=relu)"
    assert repr(nn.RNNCell(2, 3, bias=False, nonlinearity="relu")) == "RNNCell(2, 3, bias=False, nonlinearity=relu)"
    assert repr(nn.GRUCell(2, 3)) == "GRUCell(2, 3)"


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        nn.Module()()


# --- clipping -----------------------------------------------------------------------------------------------


def with_gradients():
    parameters = [nn.Parameter(mg.zeros(*shape)) for shape in ((2, 3), (5,), (7,))]
    for k, p in enumerate(parameters[:2]):
        p.grad = mg.tensor(numbers(*p.shape, seed=k) * 3)
    return parameters, np.concatenate([p.grad.numpy().ravel().copy() for p in parameters[:2]])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, np.inf])
def test_clip_grad_norm(p):
    for limit in (0.5, 1e3):
        parameters, flat = with_gradients()
        norm = np.linalg.norm(flat, p)
        total = nn.clip_grad_norm_(parameters, limit, norm_type=p)
        np.testing.assert_allclose(total.item(), norm, rtol=1e-14)
        got = np.concatenate([q.grad.numpy().ravel() for q in parameters[:2]])
        np.testing.assert_allclose(got, flat * min(1, limit / (norm + 1e-6)), rtol=1e-14)
        assert parameters[0].grad.version == (limit < norm)
        assert parameters[2].grad is None


def test_clip_grad_norm_of_large_float32_and_of_none():
    p = nn.Parameter(mg.zeros(3, dtype="float32"))
    assert nn.clip_grad_norm_([p], 1.0).item() == 0
    p.grad = mg.full((3,), 1e25, dtype="float32")
    total = nn.clip_grad_norm_(p, 1.0)
    assert total.dtype == "float32"
    np.testing.assert_allclose(total.item(), np.sqrt(3) * 1e25, rtol=1e-6)
    np.testing.assert_allclose(p.grad.numpy(), 1 / np.sqrt(3), rtol=1e-6)


def test_clip_grad_norm_of_what_is_not_finite():
    for bad in (np.nan, np.inf):
        parameters, _ = with_gradients()
        parameters[1].grad[2] = bad
        before = parameters[0].grad.numpy().copy()
        with pytest.raises(GraphError, match=str(bad)):
            nn.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        np.testing.assert_array_equal(parameters[0].grad.numpy(), before)
        with np.errstate(invalid="ignore"):
            total = nn.clip_grad_norm_(parameters, 1.0)
        np.testing.assert_equal(total.item(), bad)
        np.testing.assert_array_equal(parameters[0].grad.numpy(), before * (np.nan if np.isnan(bad) else 0))


def test_clip_grad_value():
    parameters, flat = with_gradients()
    nn.clip_grad_value_(parameters, 1.25)
    got = np.concatenate([q.grad.numpy().ravel() for q in parameters[:2]])
    np.testing.assert_array_equal(got, np.minimum(np.maximum(flat, -1.25), 1.25))
    assert 0 < (got == flat).sum() < len(flat)
    assert parameters[0].grad.version == 1
    with pytest.raises(UsageError, match="clip_value=-1"):
        nn.clip_grad_value_(parameters, -1)
    with pytest.raises(UsageError, match="norm_type=0"):
        nn.clip_grad_norm_(parameters, 1.0, norm_type=0)
    assert issubclass(UsageError, MinigradError)
