"""What options of recurrent units mean: parameters, scopes, random masks, extremes, refusals."""

import copy
import pickle

import numpy as np
import pytest
from arrays import numbers

import minigrad as mg
from minigrad import nn
from minigrad.errors import ShapeError, UsageError

pytestmark = pytest.mark.usefixtures("float64")

N, T, I, H = 3, 5, 7, 11
VARIANTS = ["V", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR"]
LACKS = {"NIG": "i", "NFG": "f", "NOG": "o", "CIFG": "f"}
NAMES = {"i": "input gate", "f": "forget gate", "g": "cell gate", "o": "output gate"}
LEGAL = [(v, p) for v in VARIANTS for p in (None, "diagonal", "full") if v != "NP" or p is None]
each_variant = pytest.mark.parametrize("variant", VARIANTS)
FULL = [("LSTM", {"variant": v, "peepholes": p}) for v, p in LEGAL] + [
    ("LSTM", {"layer_norm": True, "cell_clip": 0.5, "clip": 2.0, "zoneout": (0.2, 0.3)}),
    ("LSTM", {"recurrent_dropout": 0.3, "weight_drop": 0.2, "input_forget": True}),
    ("LSTM", {"activations": (("HardSigmoid", 0.3, 0.4), "gelu", None)}),
    ("GRU", {"reset_after": False, "zoneout": 0.4, "recurrent_dropout": 0.3, "weight_drop": 0.2, "clip": 1.0}),
    ("GRU", {"layer_norm": True}),
    ("RNN", {"nonlinearity": ("Elu", 0.5), "layer_norm": True, "zoneout": 0.4, "clip": 1.5}),
]
each_full = pytest.mark.parametrize(("kind", "options"), FULL, ids=[f"{k} {o}" for k, o in FULL])


def set_to(parameter, value):
    with mg.no_grad():
        parameter.copy_(mg.tensor(np.broadcast_to(np.asarray(value, parameter.dtype), parameter.shape).copy()))


def rows(parameter, k):
    return slice(k * H, (k + 1) * H)


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "peepholes"), LEGAL)
def test_a_variant_has_only_its_own_parameters(variant, peepholes):
    gates = 4 - (variant in LACKS)
    want = {"weight_ih": (gates * H, I), "weight_hh": (gates * H, H), "bias_ih": (gates * H,), "bias_hh": (gates * H,)}
    if peepholes:
        want["weight_ph"] = ((gates - 1) * H,) if peepholes == "diagonal" else ((gates - 1) * H, H)
    if variant == "FGR":
        want["weight_gg"] = (3 * H, 3 * H)
    for module, suffixes in (
        (nn.LSTMCell(I, H, variant=variant, peepholes=peepholes), [""]),
        (nn.LSTM(I, H, variant=variant, peepholes=peepholes, bidirectional=True), ["_l0", "_l0_reverse"]),
    ):
        got = {k: v.shape for k, v in module.state_dict().items()}
        assert got == {k + suffix: shape for suffix in suffixes for k, shape in want.items()}
        assert all(0.2 < np.abs(v.numpy()).max() * np.sqrt(H) <= 1 for v in module.parameters())


def test_plain_variants_are_pytorchs_lstm():
    modules = [nn.LSTM(I, H), nn.LSTM(I, H, variant="NP"), nn.LSTM(I, H, peepholes="diagonal")]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict(), strict=False)
    set_to(modules[2].weight_ph_l0, 0.0)
    outs = [module(numbers(T, N, I))[0].numpy() for module in modules]
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_allclose(outs[0], outs[2], rtol=1e-13)


def test_full_peepholes_with_a_diagonal_are_diagonal_ones():
    full, diagonal = (nn.LSTM(I, H, peepholes=p) for p in ("full", "diagonal"))
    full.load_state_dict({k: v for k, v in diagonal.state_dict().items() if "ph" not in k}, strict=False)
    set_to(full.weight_ph_l0, np.concatenate([np.diag(p) for p in diagonal.weight_ph_l0.numpy().reshape(3, H)]))
    x = numbers(T, N, I)
    np.testing.assert_allclose(full(x)[0].numpy(), diagonal(x)[0].numpy(), rtol=1e-13)


@pytest.mark.parametrize(("variant", "k"), [("NIG", 0), ("NFG", 1), ("NOG", 3)])
def test_a_gate_that_is_missing_is_one(variant, k):
    """The vanilla unit with that gate held open by a huge bias."""
    lacking, whole = nn.LSTM(I, H, variant=variant), nn.LSTM(I, H)
    keep = [r for r in range(4 * H) if r // H != k]
    for name, parameter in whole.named_parameters():
        value = parameter.numpy().copy()
        value[keep] = lacking.state_dict()[name].numpy()
        value[rows(parameter, k)] = 1e3 if name == "bias_ih_l0" else 0.0
        set_to(parameter, value)
    x, state = numbers(T, N, I), (numbers(1, N, H), numbers(1, N, H, seed=1))
    for a, b in zip(lacking(x, state)[1], whole(x, state)[1], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-13)


def test_coupled_gates_have_two_spellings():
    cifg, onnx = (
        nn.LSTM(I, H, variant="CIFG", peepholes="diagonal"),
        nn.LSTM(I, H, input_forget=True, peepholes="diagonal"),
    )
    for name, parameter in onnx.named_parameters():
        value, kept = parameter.numpy().copy(), cifg.state_dict()[name].numpy()
        value[[r for r in range(len(value)) if r // H != 1]] = kept
        set_to(parameter, value)
    x, state = numbers(T, N, I), (numbers(1, N, H), numbers(1, N, H, seed=1))
    outs = [module(x, state)[0] for module in (cifg, onnx)]
    np.testing.assert_allclose(outs[0].numpy(), outs[1].numpy(), rtol=1e-13)
    outs[1].sum().backward()
    for parameter in onnx.parameters():
        assert not parameter.grad.numpy()[H : 2 * H].any()
        assert parameter.grad.numpy()[:H].any()


@pytest.mark.parametrize("variant", ["V", "NIG", "FGR"])
def test_forget_bias(variant):
    k = 0 if variant == "NIG" else 1
    for module, suffix in (
        (nn.LSTMCell(I, H, forget_bias=1.5, variant=variant), ""),
        (nn.LSTM(I, H, num_layers=2, bidirectional=True, forget_bias=1.5, variant=variant), "_l1_reverse"),
    ):
        ih, hh = (getattr(module, f"{word}{suffix}").numpy() for word in ("bias_ih", "bias_hh"))
        assert (ih[rows(ih, k)] == 1.5).all()
        assert (hh[rows(hh, k)] == 0).all()
        assert (np.abs(np.delete(ih, rows(ih, k))) < 1).all()
        assert (np.delete(hh, rows(hh, k)) != 0).all()


def test_layer_norm_starts_at_its_identity():
    lstm = nn.LSTM(I, H, layer_norm=True)
    assert [k for k in lstm.state_dict() if "gain" in k or "bias_c" in k] == [
        "gain_ih_l0",
        "gain_hh_l0",
        "gain_c_l0",
        "bias_c_l0",
    ]
    assert (lstm.gain_ih_l0.numpy() == 1).all()
    assert (lstm.bias_c_l0.numpy() == 0).all()
    assert nn.GRU(I, H, layer_norm=True).gain_hh_l0.shape == (3 * H,)
    assert nn.RNN(I, H, layer_norm=True).gain_l0.shape == (H,)
    assert "bias_c_l0" not in nn.LSTM(I, H, layer_norm=True, bias=False).state_dict()


# --- extremes and structure -------------------------------------------------------------------------------


@pytest.mark.parametrize("peepholes", [None, "diagonal", "full"])
def test_all_gates_one_remember_everything_and_all_zero_forget_everything(peepholes):
    lstm = nn.LSTM(I, H, peepholes=peepholes)
    x, h, c = numbers(T, N, I), numbers(1, N, H), numbers(1, N, H, seed=1)
    for bias in (1e3, -1e3):
        value = lstm.bias_ih_l0.numpy().copy()
        value[np.r_[0 : 2 * H, 3 * H : 4 * H]] = bias
        set_to(lstm.bias_ih_l0, value)
        with mg.Tape() as tape:
            out, (_, c_n) = lstm(x, (h, c))
        added = [n.value for n in tape.nodes if n.name and n.name.startswith("g[")]
        if bias > 0:
            np.testing.assert_allclose(c_n.numpy(), c + sum(added), rtol=1e-13)
            np.testing.assert_allclose(out.numpy()[-1], np.tanh(c_n.numpy()[0]), rtol=1e-13)
        else:
            assert not out.numpy().any()
            assert not c_n.numpy().any()
        assert all(np.abs(a).max() > 0.1 for a in added)


def test_a_standard_cell_is_what_books_count():
    cell = nn.LSTMCell(I, H)
    x, h, c = (
        mg.tensor(numbers(N, k, seed=s), name=name) for s, (k, name) in enumerate([(I, "x"), (H, "h"), (H, "c")])
    )
    with mg.Tape() as tape:
        new = cell(x, (h, c))
    inside = [n for n in tape.nodes if n.scope.startswith("lstmcell") and n.record is not None and n.op != "getitem"]
    layers = [n.op for n in inside if n.scope.endswith("gate") and n.op in ("sigmoid", "tanh")]
    pointwise = [n.op for n in inside if not n.scope.endswith("gate")]
    assert sorted(layers) == ["sigmoid"] * 3 + ["tanh"]
    assert sorted(pointwise) == ["add", "mul", "mul", "mul", "tanh"]
    given = {n.name for n in tape.nodes if n.name in ("x", "h", "c") and not n.inputs}
    assert given == {"x", "h", "c"}
    assert len(new) == 2
    assert [n.name for n in inside if not n.scope.endswith("gate") and n.name] == ["c", "h"]


@each_variant
def test_scopes_and_names_of_variants(variant):
    peepholes = None if variant == "NP" else "diagonal"
    lstm = nn.LSTM(I, H, variant=variant, peepholes=peepholes)
    with mg.Tape() as tape:
        lstm(numbers(T, N, I))
    step = "lstm/layer 0/t=3"
    under = {g: [n for n in tape.nodes if n.scope == f"{step}/{name}"] for g, name in NAMES.items()}
    missing = LACKS.get(variant)
    for g, nodes in under.items():
        if g == missing and variant != "CIFG":
            assert not nodes
        elif g == missing:
            (one,) = (n for n in nodes if n.op == "sub")
            assert one.name == "f[3]"
            assert one.inputs[-1].name == "i[3]"
        else:
            assert [n.name for n in nodes].count(f"{g}[3]") == 1
            seen = [n.op for n in nodes if n.record is not None]
            assert seen.count("affine") == 2
            assert seen.count("mul") == (peepholes is not None and g != "g")
            assert seen.count("matmul") == (variant == "FGR" and g != "g")
            if peepholes and g != "g":
                (product,) = (n for n in nodes if n.op == "mul")
                assert {n.name for n in product.inputs} == {
                    f"weight_ph_l0[{g}]",
                    "c[3]" if g == "o" else "c[2]",
                }
    own = {n.name for n in tape.nodes if n.scope == step and n.name}
    assert own == {"x[3]", "c[3]", "h[3]", *(["gates[3]"] if variant == "FGR" else [])}
    if variant == "FGR":
        assert {f"weight_gg_l0[{g}]" for g in "ifo"} <= {n.name for n in tape.nodes}


def test_other_options_leave_names_where_readers_look():
    lstm = nn.LSTM(I, H, layer_norm=True, zoneout=(0.2, 0.3), proj_size=2, cell_clip=0.5, recurrent_dropout=0.2)
    with mg.Tape() as tape:
        lstm(numbers(T, N, I), lengths=[5, 2, 3])
    for word in ("h", "c"):
        (node,) = (n for n in tape.nodes if n.name == f"{word}[3]")
        assert node.op == "where"
    assert {n.scope for n in tape.nodes if n.name in ("Wx[3]", "Uh[3]")} == {"lstm/layer 0/t=3/layer norm"}
    assert [n.op for n in tape.nodes if n.name == "h kept[3]"] == ["mul"]


@each_full
def test_a_tape_changes_no_number(kind, options):
    module = getattr(nn, kind)(I, H, num_layers=2, bidirectional=True, **options)

    def everything():
        mg.manual_seed(4)
        module.zero_grad()
        x = mg.tensor(numbers(T, N, I), requires_grad=True)
        out, final = module(x, lengths=[5, 0, 3])
        (
            (out * out).sum() + sum((s * s * s).sum() for s in (final if isinstance(final, tuple) else [final]))
        ).backward()
        return [out.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in module.parameters())]

    quiet = everything()
    with mg.Tape():
        told = everything()
    for a, b in zip(quiet, told, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@each_full
def test_other_precisions_and_copies(kind, options):
    module = getattr(nn, kind)(I, H, dtype="float32", **options)
    x = numbers(T, N, I).astype("float32")
    twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    outs = []
    for one in (module, *twins):
        mg.manual_seed(9)
        outs.append(one(x)[0])
        assert outs[-1].dtype == "float32"
        np.testing.assert_array_equal(outs[-1].numpy(), outs[0].numpy())
        assert repr(one) == repr(module)
    mg.manual_seed(9)
    np.testing.assert_allclose(module.double()(x.astype("float64"))[0].numpy(), outs[0].numpy(), rtol=2e-4, atol=2e-5)


# --- gates of the step before -----------------------------------------------------------------------------


def test_gates_are_a_state_that_can_be_handed_over():
    lstm = nn.LSTM(I, H, variant="FGR", peepholes="full", num_layers=2)
    x = numbers(T, N, I)
    whole, (h, c) = lstm(x)
    zero = tuple(mg.zeros(2, N, k) for k in (H, H, 3 * H))
    first, state = lstm(x[:2], zero)
    assert state[2].shape == (2, N, 3 * H)
    second, (h_n, c_n, _) = lstm(x[2:], state)
    np.testing.assert_allclose(np.concatenate([first.numpy(), second.numpy()]), whole.numpy(), rtol=1e-12)
    np.testing.assert_allclose(h_n.numpy(), h.numpy(), rtol=1e-12)
    np.testing.assert_allclose(c_n.numpy(), c.numpy(), rtol=1e-12)
    assert np.abs(lstm(x[2:], state[:2])[0].numpy() - second.numpy()).max() > 1e-3
    cell = nn.LSTMCell(I, H, variant="FGR")
    assert len(cell(x[0])) == len(cell(x[0], (mg.zeros(N, H), mg.zeros(N, H)))) == 2
    one = nn.LSTM(I, H, variant="FGR")
    one.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    state = tuple(mg.zeros(N, k) for k in (H, H, 3 * H))
    for x_t in x:
        state = cell(x_t, state)
    np.testing.assert_allclose(state[0].numpy(), one(x)[0].numpy()[-1], rtol=1e-12)
    with pytest.raises(ShapeError, match=r"gates_0 has shape \(3, 11\); here it must be \(3, 33\)"):
        cell(x[0], (mg.zeros(N, H),) * 3)


# --- chance -----------------------------------------------------------------------------------------------


def test_zoneout_keeps_values_with_its_probability():
    n, size = 211, 97
    cell = nn.LSTMCell(I, size, zoneout=(0.3, 0.6))
    plain = nn.LSTMCell(I, size)
    plain.load_state_dict(cell.state_dict())
    x, before = numbers(n, I), (numbers(n, size), numbers(n, size, seed=1))
    mg.manual_seed(5)
    drawn = np.random.default_rng(5)
    for p, old, new, free in zip((0.3, 0.6), before, cell(x, before), plain(x, before), strict=True):
        kept = drawn.random((n, size)) < p
        np.testing.assert_array_equal(new.numpy()[kept], old[kept])
        np.testing.assert_allclose(new.numpy()[~kept], free.numpy()[~kept], rtol=1e-12, atol=1e-14)
        assert abs(kept.mean() - p) < 0.01
    expected = zip((0.3, 0.6), before, cell.eval()(x, before), plain(x, before), strict=True)
    for p, old, new, free in expected:
        np.testing.assert_allclose(new.numpy(), p * old + (1 - p) * free.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_certain_zoneout_holds_the_state(kind):
    layer = getattr(nn, kind)(I, H, zoneout=(1.0, 0.0) if kind == "LSTM" else 1.0)
    h = numbers(1, N, H)
    state = (h, numbers(1, N, H, seed=1)) if kind == "LSTM" else h
    for module in (layer, layer.eval()):
        np.testing.assert_array_equal(module(numbers(T, N, I), state)[0].numpy(), np.broadcast_to(h, (T, N, H)))


def still(**options):
    """A linear network whose input does nothing: h_t = W h_{t-1}."""
    rnn = nn.RNN(I, H, nonlinearity=None, bias=False, **options)
    set_to(rnn.weight_ih_l0, 0.0)
    return rnn


def test_recurrent_dropout_draws_one_mask_for_a_sequence():
    rnn = still(recurrent_dropout=0.25)
    set_to(rnn.weight_hh_l0, np.eye(H))
    out = rnn(mg.zeros(T, 101, I), mg.ones(1, 101, H))[0].numpy()
    kept = out[0] != 0
    for t in range(T):
        np.testing.assert_allclose(out[t], kept / 0.75 ** (t + 1), rtol=1e-13)
    assert abs(kept.mean() - 0.75) < 0.04
    assert (rnn(mg.zeros(T, 101, I), mg.ones(1, 101, H))[0].numpy()[0] != out[0]).any()
    assert (rnn.eval()(mg.zeros(T, 3, I), mg.ones(1, 3, H))[0].numpy() == 1).all()


def test_weight_drop_draws_one_mask_for_a_sequence():
    rnn = still(weight_drop=0.4)
    weight = rnn.weight_hh_l0.numpy()
    out = rnn(mg.zeros(2, H, I), np.eye(H)[None])[0].numpy()
    used = out[0].T
    kept = used != 0
    np.testing.assert_allclose(used, weight * kept / 0.6, rtol=1e-13)
    assert 0.3 < kept.mean() < 0.9
    np.testing.assert_allclose(out[1], used.T @ used.T, rtol=1e-12, atol=1e-13)
    again = rnn(mg.zeros(2, H, I), np.eye(H)[None])[0]
    assert ((again.numpy()[0].T != 0) != kept).any()
    rnn.zero_grad()
    again[0].sum().backward()
    np.testing.assert_allclose(rnn.weight_hh_l0.grad.numpy(), (again.numpy()[0].T != 0) / 0.6, rtol=1e-13)


def test_cells_held_by_clipping_pass_no_gradient():
    cell = nn.LSTMCell(I, H, cell_clip=0.3)
    c = mg.tensor(numbers(N, H, seed=1), requires_grad=True)
    new = cell(numbers(N, I), (numbers(N, H), c))[1]
    free = nn.LSTMCell(I, H)
    free.load_state_dict(cell.state_dict())
    value = free(numbers(N, I), (numbers(N, H), c.detach()))[1].numpy()
    np.testing.assert_allclose(new.numpy(), np.clip(value, -0.3, 0.3), rtol=1e-13)
    new.sum().backward()
    assert ((c.grad.numpy() == 0) == (np.abs(value) > 0.3)).all()
    assert 0 < (c.grad.numpy() == 0).mean() < 1


# --- words and refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: nn.LSTM(3, 5), "LSTM(3, 5)"),
        (
            lambda: nn.LSTM(3, 5, peepholes="diagonal", variant="CIFG"),
            "LSTM(3, 5, peepholes='diagonal', variant='CIFG': input and forget gates coupled)",
        ),
        (lambda: nn.LSTM(3, 5, variant="NP"), "LSTM(3, 5, variant='NP': no peepholes)"),
        (
            lambda: nn.LSTMCell(3, 5, bias=False, variant="FGR"),
            "LSTMCell(3, 5, bias=False, variant='FGR': every gate sees every gate of the step before)",
        ),
        (lambda: nn.GRU(3, 5, num_layers=2, reset_after=False), "GRU(3, 5, num_layers=2, reset_after=False)"),
        (lambda: nn.RNN(3, 5, nonlinearity="relu", layer_norm=True), "RNN(3, 5, layer_norm=True, nonlinearity=relu)"),
        (
            lambda: nn.LSTM(3, 5, zoneout=(0.1, 0.2), cell_clip=3.0, forget_bias=1.0),
            "LSTM(3, 5, cell_clip=3.0, forget_bias=1.0, zoneout=(0.1, 0.2))",
        ),
    ],
)
def test_words(module, words):
    assert repr(module()) == words


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.LSTM(2, 3, variant="XYZ"), "V, NIG, NFG, NOG, NIAF, NOAF, CIFG, NP, FGR, not 'XYZ'"),
        (lambda: nn.LSTM(2, 3, peepholes=True), "None, 'diagonal' or 'full', not True"),
        (lambda: nn.LSTM(2, 3, variant="NP", peepholes="full"), "NP"),
        (lambda: nn.LSTM(2, 3, variant="CIFG", input_forget=True), "couples two gates"),
        (lambda: nn.LSTM(2, 3, variant="NIG", input_forget=True), "couples two gates"),
        (lambda: nn.LSTM(2, 3, variant="NFG", forget_bias=1.0), "forget gate of its own"),
        (lambda: nn.LSTM(2, 3, variant="CIFG", forget_bias=1.0), "forget gate of its own"),
        (lambda: nn.LSTM(2, 3, input_forget=True, forget_bias=1.0), "forget gate of its own"),
        (lambda: nn.LSTMCell(2, 3, bias=False, forget_bias=1.0), "bias=True"),
        (lambda: nn.LSTM(2, 3, variant="NIAF", activations=("sigmoid", "tanh", "tanh")), r"activations\[1\]"),
        (lambda: nn.LSTM(2, 3, variant="NOAF", activations=("sigmoid", "tanh", "tanh")), r"activations\[2\]"),
        (lambda: nn.LSTM(2, 3, activations=("sigmoid", "tanh")), "3, for f, g, h"),
        (lambda: nn.LSTM(2, 3, activations="tanh"), "3, for f, g, h"),
        (lambda: nn.GRU(2, 3, activations=("sigmoid", "tahn")), "'tahn'"),
        (lambda: nn.GRU(2, 3, activations=("sigmoid", "matmul")), "'matmul'"),
        (lambda: nn.GRU(2, 3, activations=("sigmoid", ("tanh", 0.5))), "no values"),
        (lambda: nn.RNN(2, 3, nonlinearity=("elu", 1.0, 2.0)), "takes alpha, not"),
        (lambda: nn.RNN(2, 3, nonlinearity="relu", activations=("tanh",)), "instead of nonlinearity"),
        (lambda: nn.GRU(2, 3, layer_norm=True, reset_after=False), "reset_after=True"),
        (lambda: nn.LSTM(2, 3, zoneout=0.5), "pair of probabilities"),
        (lambda: nn.LSTM(2, 3, zoneout=(0.5, 1.5)), "zoneout: a probability"),
        (lambda: nn.GRU(2, 3, zoneout=-0.5), "zoneout: a probability"),
        (lambda: nn.LSTM(2, 3, recurrent_dropout=2.0), "recurrent_dropout: a probability"),
        (lambda: nn.RNN(2, 3, weight_drop=-1.0), "weight_drop: a probability"),
        (lambda: nn.LSTM(2, 3, clip=0.0), "clip is a positive bound"),
        (lambda: nn.LSTMCell(2, 3, cell_clip=-1.0), "cell_clip is a positive bound"),
    ],
)
def test_refused(build, words):
    with pytest.raises(UsageError, match=words):
        build()


def test_activations_by_name():
    a = mg.tensor(numbers(N, H))
    from minigrad.nn.activations import activation

    for name in ("HardSigmoid", "hard_sigmoid", "HARDSIGMOID", ("HardSigmoid", None, 0.5)):
        np.testing.assert_array_equal(activation(name)(a).numpy(), mg.hard_sigmoid(a).numpy())
    assert activation(None)(a) is a
    assert activation("silu") is mg.silu
    twice = activation(lambda x: 2 * x)
    np.testing.assert_array_equal(twice(a).numpy(), 2 * a.numpy())
    given = nn.RNN(I, H, nonlinearity=mg.sin)(numbers(T, N, I))[0]
    assert np.abs(given.numpy()).max() <= 1
    one = nn.RNN(I, H, activations=("relu",))(numbers(T, N, I))[0].numpy()
    assert one.min() == 0
    assert one.max() > 0
