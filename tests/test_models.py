import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import models
from minigrad.errors import UsageError


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def parameters(tape):
    return {n.name: np.asarray(n.value, dtype=np.float64) for n in tape.nodes if n.kind == "parameter"}


def run(model):
    with mg.Tape() as tape:
        loss = model.loss()
    return tape, loss


def named(tape, name):
    (node,) = [n for n in tape.nodes if n.name == name]
    return node


def lstm_state(p, x, h, c):
    a = p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"]
    i, f, g, o = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_state(p, x, h, c):
    xs = np.split(p["weight_ih_l0"] @ x + p["bias_ih_l0"], 3)
    hs = np.split(p["weight_hh_l0"] @ h + p["bias_hh_l0"], 3)
    r, z = sigmoid(xs[0] + hs[0]), sigmoid(xs[1] + hs[1])
    n = np.tanh(xs[2] + r * hs[2])
    return (1 - z) * n + z * h, c


def rnn_state(p, x, h, c):
    return np.tanh(p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"]), c


STATES = {"lstm": lstm_state, "gru": gru_state, "rnn": rnn_state}


@pytest.mark.parametrize("kind", STATES)
def test_spelling_by_hand(kind):
    text, letters = "abacab", "abc"
    tape, loss = run(models.build(kind, text=text, hidden=5, seed=3))
    p = parameters(tape)
    h, c, losses = np.zeros(5), np.zeros(5), []
    for here, following in zip(text, text[1:] + text[0], strict=True):
        h, c = STATES[kind](p, np.eye(3)[letters.index(here)], h, c)
        logits = p["head.weight"] @ h + p["head.bias"]
        losses.append(math.log(np.exp(logits).sum()) - logits[letters.index(following)])
    np.testing.assert_allclose([named(tape, f"E[{t}]").value for t in range(6)], losses, rtol=1e-5)
    assert loss.item() == pytest.approx(sum(losses), rel=1e-5)
    assert loss.name == "E"


@pytest.mark.parametrize("kind", STATES)
def test_names_scopes_and_times(kind):
    tape, loss = run(models.build(kind, text="abca", hidden=3))
    loss.backward()
    for t in range(4):
        for word in ("x", "h", "logits", "next", "E", *(["c"] if kind == "lstm" else [])):
            assert named(tape, f"{word}[{t}]").time == t
        assert named(tape, f"h[{t}]").scope == f"{kind}/t={t}"
        assert np.linalg.norm(named(tape, f"h[{t}]").grad) > 0
    grads = {n.name: n.grad for n in tape.nodes if n.kind == "parameter"}
    assert len(grads) == 6
    assert all(np.linalg.norm(g) > 0 for g in grads.values())


def test_steps_go_round_the_text():
    long, _ = run(models.build("rnn", text="abc", steps=7, hidden=3))
    assert [int(named(long, f"next[{t}]").value[0]) for t in range(7)] == [1, 2, 0, 1, 2, 0, 1]
    short, _ = run(models.build("rnn", text="abc", steps=2, hidden=3))
    assert [int(named(short, f"next[{t}]").value[0]) for t in range(2)] == [1, 2]
    assert len(models.build("rnn", text="abc", steps=2).losses()) == 2


def test_same_seed_same_model_and_each_call_the_same():
    model = models.build("lstm", seed=5)
    assert model.loss().item() == model.loss().item() == models.build("lstm", seed=5).loss().item()
    assert model.loss().item() != models.build("lstm", seed=6).loss().item()


def test_adder_by_hand():
    tape, loss = run(models.build("adder", text="23 + 42", hidden=7, seed=2))
    p = parameters(tape)
    h, total = np.zeros(7), 0.0
    for t in range(8):
        h, _ = rnn_state(p, np.array([23 >> t & 1, 42 >> t & 1]), h, None)
        y = sigmoid(p["head.weight"] @ h + p["head.bias"])[0]
        total += (y - (65 >> t & 1)) ** 2 / 2
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_series_by_hand(tmp_path):
    rows = np.array([[1, 50.0], [2, 70], [4, 20], [8, 10], [3, 40]])
    path = tmp_path / "weather.csv"
    path.write_text("temp,rain\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n\n")
    tape, loss = run(models.build("lstm", csv=path, hidden=3, seed=1))
    p = parameters(tape)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    h, c, total = np.zeros(3), np.zeros(3), 0.0
    for now, following in itertools.pairwise(scaled):
        h, c = lstm_state(p, now, h, c)
        total += np.mean((p["head.weight"] @ h + p["head.bias"] - following) ** 2)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert len(models.build("rnn", csv=path, steps=3).losses()) == 3


def test_csv_variants(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeff1, 2.5\r\n\r\n -3e1,4\r\n".encode())
    np.testing.assert_array_equal(models.read_csv(path), [[1, 2.5], [-30, 4]])
    path.write_text("1,7\n2,7\n5,7\n")
    assert math.isfinite(models.build("rnn", csv=path).loss().item())  # a constant column becomes zeros


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3,x\n", r"row 3, column 2 \(b\): 'x' is no finite number"),
        (b"1,2\n3,\n", r"row 2, column 2: '' is no finite number"),
        (b"1,nan\n3,4\n", r"row 1, column 2: 'nan'"),
        (b"1,inf\n3,4\n", r"row 1, column 2: 'inf'"),
        (b"1,x\n3,4\n", r"row 1, column 2: 'x'"),
        (b"1,2\n3\n", r"row 2: 1 cells, where other rows have 2"),
        (b"a,b\n", "no rows of numbers"),
        (b"", "no rows of numbers"),
        (b"1,2\n", "one row of numbers"),
        (b"\xff\xfe\x00", "is no csv file"),
    ],
)
def test_malformed_csv(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        models.build("lstm", csv=path)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("lsmt", {}, "unknown model 'lsmt': did you mean lstm"),
        ("perceptron", {}, "the models are adder, gru, lstm, rnn, or your own"),
        ("lstm", {"text": ""}, "two different characters"),
        ("lstm", {"text": "aaa"}, "two different characters"),
        ("lstm", {"steps": 0}, "steps must be at least 1"),
        ("lstm", {"hidden": -3}, "hidden must be at least 1"),
        ("lstm", {"text": "ab", "csv": "x.csv"}, "--text and --csv cannot be given together"),
        ("lstm", {"csv": "no/such.csv"}, r"cannot read 'no/such.csv': No such file"),
        ("lstm", {"weights": "no.npz"}, r"cannot read 'no.npz': No such file"),
        ("lstm", {"weights": "no.npz", "hidden": 3}, "--hidden and --weights cannot be"),
        ("adder", {"csv": "x.csv"}, "the adder has no --csv"),
        ("adder", {"layers": 2}, "the adder has no --layers"),
        ("lstm", {"layers": 0}, "layers must be at least 1"),
        ("gru", {"variant": "CIFG"}, "the gru has no --variant; the lstm has"),
        ("rnn", {"peepholes": "full"}, "the rnn has no --peepholes; the lstm has"),
        ("lstm", {"variant": "XYZ"}, "variant is one of V, NIG"),
        ("model.py:f", {"bidirectional": True}, "--bidirectional is for the built-in models"),
        ("adder", {"text": "3*4"}, "two whole numbers, written like 23"),
        ("adder", {"text": "200+100"}, "300 does not fit into 8 bits, whose largest number is 255"),
        ("model.py", {}, "which function of model.py"),
        ("model.py:f", {"text": "ab"}, "--text is for the built-in models"),
        ("no_such_file.py:f", {}, "there is no file 'no_such_file.py'"),
        ("no_such_module.deeper:f", {}, "there is no module 'no_such_module'"),
        ("json.no_such_part:f", {}, "there is no module 'json.no_such_part'"),
        ("math:cosh_", {}, "did you mean cosh"),
    ],
)
def test_refused(spec, options, message):
    with pytest.raises(UsageError, match=message):
        models.build(spec, **options)


def test_an_architecture_of_the_lstm():
    model = models.build("lstm", text="abc", hidden=5, variant="CIFG", peepholes="diagonal", layers=2)
    assert model.title == "lstm (2 layers, CIFG, diagonal peepholes) spelling 'abc'"
    tape, _ = run(model)
    names = {n.name: n for n in tape.nodes if n.name}
    for layer in range(2):
        step = f"lstm/layer {layer}/t=2"
        coupled = [n for n in tape.nodes if n.scope == f"{step}/forget gate" and n.name == "f[2]"]
        assert [n.op for n in coupled] == ["sub"]
        assert f"weight_ph_l{layer}[o]" in names
        assert f"weight_ph_l{layer}[f]" not in names
        assert [n.name for n in tape.nodes if n.scope == step and n.name] == ["c[2]", "h[2]"]
    (above,) = [n for n in tape.nodes if n.scope == "lstm/layer 1/t=2/cell gate" and n.name == "g[2]"]
    below = {n.name for n in above.inputs[0].inputs[0].inputs}
    assert "h[2]" in below


def test_both_directions():
    tape, _ = run(models.build("gru", text="abc", hidden=5, layers=2, bidirectional=True))
    scopes = {n.scope for n in tape.nodes}
    for layer in range(2):
        for way in ("forward", "reverse"):
            assert f"gru/layer {layer}/{way}/t=2/reset gate" in scopes
    logits = [n for n in tape.nodes if n.name and n.name.startswith("logits")]
    assert [n.scope for n in logits] == ["t=0/head", "t=1/head", "t=2/head"]
    assert [n.inputs[0].shape for n in logits] == [(1, 10)] * 3


@pytest.mark.parametrize("layers", [1, 2])
def test_streams_are_the_layers_own_results(layers):
    net = models.Net("lstm", 3, 5, 3, num_layers=layers, variant="FGR", peepholes="full")
    xs = [mg.tensor(np.random.default_rng(t).standard_normal((1, 3)).astype("float32")) for t in range(4)]
    streamed = [y.numpy() for _, y in net.outputs(xs)]
    whole = net.head(net.lstm(np.stack([x.numpy() for x in xs]))[0]).numpy()
    np.testing.assert_allclose(np.stack(streamed), whole, rtol=1e-5, atol=1e-6)


def test_a_series_has_so_many_steps(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("1\n2\n3\n")
    with pytest.raises(UsageError, match=r"3 steps need 4 rows, and .* has 3"):
        models.build("lstm", csv=path, steps=3)


# --- trained weights ------------------------------------------------------------------------------------------


def save(path, letters="abc", hidden=5, **more):
    mg.manual_seed(4)
    layer, head = mg.nn.GRU(len(letters), hidden), mg.nn.Linear(hidden, len(letters))
    state = {f"gru.{k}": v.numpy() for k, v in layer.state_dict().items()}
    state |= {f"head.{k}": v.numpy() for k, v in head.state_dict().items()} | more
    np.savez(path, vocabulary=letters, **{k: v for k, v in state.items() if v is not None})
    return state


def test_trained_weights_are_used(tmp_path):
    path = tmp_path / "gru.npz"
    state = save(path)
    tape, _ = run(models.build("gru", text="bab", weights=path))
    p = parameters(tape)
    np.testing.assert_array_equal(p["weight_hh_l0"], state["gru.weight_hh_l0"])
    np.testing.assert_array_equal(p["head.bias"], state["head.bias"])
    np.testing.assert_array_equal(named(tape, "x[0]").value, [[0, 1, 0]])


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "gru.npz"
    save(path)
    with pytest.raises(UsageError, match="not learned the character 'x'; it knows 'abc'"):
        models.build("gru", text="ax", weights=path)
    with pytest.raises(UsageError, match="holds no trained lstm"):
        models.build("lstm", text="ab", weights=path)
    save(path, **{"head.bias": np.zeros(7, dtype=np.float32)})
    with pytest.raises(UsageError, match=r"does not fit: .*head.bias has shape"):
        models.build("gru", text="ab", weights=path)
    save(path, **{"head.bias": None})
    with pytest.raises(UsageError, match=r"does not fit: .*missing: head.bias"):
        models.build("gru", text="ab", weights=path)
    path.write_text("no archive")
    with pytest.raises(UsageError, match=r"is no \.npz file of arrays"):
        models.build("gru", text="ab", weights=path)


# --- users' functions -----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name, body):
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_text("import minigrad as mg\n" + body)


def test_a_function_by_file_and_by_module(place):
    body = (
        "w = mg.tensor([2.0, 3.0], requires_grad=True, name='w')\n"
        "def one(): return (w * w).sum()\n"
        "def many(scale=2): return [(w * scale).sum(), (w * w).sum()]\n"
    )
    write("mine.py", body)
    write("parts/inner.py", body)
    assert models.build("mine.py:one").loss().item() == 13
    assert models.build("mine:many").loss().item() == 23
    assert [e.item() for e in models.build("parts.inner:many").losses()] == [10, 13]
    assert models.build("mine.py:many").name == "many"


def test_a_file_finds_its_neighbours_and_its_classes(place):
    write("folder/neighbour.py", "value = 7.0\n")
    write(
        "folder/mine.py",
        "from dataclasses import dataclass\nfrom neighbour import value\n"
        "@dataclass\nclass Net:\n    w: 'mg.Tensor'\n"
        "net = Net(mg.tensor(value, requires_grad=True))\n"
        "def loss(): return net.w * 2\n",
    )
    assert models.build("folder/mine.py:loss").loss().item() == 14


def test_a_function_is_the_same_for_the_same_seed(place):
    write(
        "mine.py",
        "import random\nimport numpy as np\n"
        "def loss():\n"
        "    w = mg.randn(3, requires_grad=True)\n"
        "    return (w * mg.tensor(np.random.rand(3).astype('float32'))).sum() * random.random()\n",
    )
    model = models.build("mine.py:loss", seed=3)
    assert model.loss().item() == model.loss().item() == models.build("mine.py:loss", seed=3).loss().item()
    assert model.loss().item() != models.build("mine.py:loss", seed=4).loss().item()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def losses(): pass\n", r"has no function 'loss'; did you mean losses\?"),
        ("x = 1\n", r"has no function 'loss'; it has none"),
        ("loss = 3\n", "mine.py:loss is no function but an int"),
        ("def loss(x, y, z=1): pass\n", "called without arguments, but it requires x, y"),
        ("def loss(*, x): pass\n", "but it requires x"),
        ("def loss():\n    return [][0]\n", r"raised an error at mine.py:3: IndexError: list index out of range"),
        ("def loss():\n    mg.ones(2, 3) @ mg.ones(2, 3)\n", r"raised an error at mine.py:3: ShapeError: matmul"),
        ("def loss():\n    raise SystemExit\n", r"raised an error at mine.py:3: SystemExit"),
        ("import json\ndef loss():\n    json.loads('{')\n", "raised an error at mine.py:4: JSONDecodeError"),
        ("1 / 0\n", r"mine.py raised an error at mine.py:2: ZeroDivisionError"),
        ("import no_such_thing\n", r"mine.py raised an error at mine.py:2: ModuleNotFoundError"),
        ("def loss(:\n", r"mine.py is not valid Python: mine.py:2: "),
        ("def loss(): pass\n", "what mine.py:loss returned is None, not a tensor"),
        ("def loss(): return 3.5\n", "is a float, not a tensor"),
        ("def loss(): return []\n", "returned an empty list"),
        ("def loss(): return [mg.tensor(1.0, requires_grad=True) * 2, 3]\n", "element 1 of what .* is an int"),
        ("def loss(): return mg.ones(2, 3, requires_grad=True) * 2\n", r"has shape \(2, 3\): a loss is one number"),
        ("def loss(): return mg.ones(1)\n", "depends on no tensor with requires_grad=True"),
    ],
)
def test_functions_that_are_no_models(place, body, message):
    write("mine.py", body)
    with pytest.raises(UsageError, match=message) as caught:
        models.build("mine.py:loss").loss()
    assert "\n" not in str(caught.value)


def test_the_place_named_is_the_users(place):
    write("helper.py", "def deep(x):\n    return mg.tanh(x, x)\n")
    write("mine.py", "from helper import deep\ndef loss():\n    return deep(mg.ones(2))\n")
    with pytest.raises(UsageError, match=r"raised an error at helper.py:3: TypeError"):
        models.build("mine.py:loss").loss()
