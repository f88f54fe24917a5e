"""Loaded and saved ONNX models against onnxruntime, over all attributes of the recurrent operators.

Where that runtime is known to do something else, the case is left out by name:

* ``layout=1`` and float64: it refuses them (microsoft/onnxruntime#7687).
* ``clip`` of an LSTM: it does not clip the input of h (microsoft/onnxruntime#27224).
* a sequence of length 0: its final state is 0 there (microsoft/onnxruntime#28189); the specification does not
  say what it is (onnx/onnx#1674), and here it is the initial state.
* defaults of alpha and beta of Affine, ScaledTanh and ThresholdedRelu: they are 0 there
  (compare microsoft/onnxruntime#31675).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx_models import ACTIVATIONS, STATES, recurrent  # noqa: E402  after the checks for what it needs

ALPHA = {"Affine": 0.7, "LeakyRelu": 0.3, "ThresholdedRelu": 0.25, "ScaledTanh": 1.3, "HardSigmoid": 0.3, "Elu": 0.8}
BETA = {"Affine": 0.1, "ScaledTanh": 0.6, "HardSigmoid": 0.4}
NAMES = ["Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *ALPHA]
USUAL = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def run(model: Any, **inputs: Any) -> dict[str, Any]:
    """Run a model in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True))


def agree(model: Any, X: Any, tolerance: float = 3e-6) -> None:
    want, got = run(model, X=X), mg.io.onnx.load(model)(X)
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        assert np.allclose(got[name].numpy(), value, rtol=tolerance, atol=tolerance), name


def options(op: str) -> Iterator[dict[str, Any]]:
    yield from ({}, {"bias": False}, {"initial": False}, {"lengths": [5, 2, 3]}, {"lengths": [1, 4, 4], "bias": False})
    yield {"lengths": [2, 5, 1], "initial": False}
    if op != "LSTM":
        yield from ({"clip": 0.3}, {"clip": 0.3, "lengths": [5, 2, 3]})
    if op == "GRU":
        yield from ({"linear_before_reset": 1, **more} for more in ({}, {"bias": False}, {"clip": 0.3}))
        yield {"linear_before_reset": 1, "lengths": [3, 5, 1]}
    if op == "LSTM":
        yield from ({"peepholes": True}, {"input_forget": 1}, {"peepholes": True, "input_forget": 1, "bias": False})
        yield {"peepholes": True, "lengths": [4, 1, 5]}
        # So wide that only the sums of gates could meet it, and none does: c_t stays below.
        yield {"clip": 50.0}
    for count in range(1, len(STATES[op]) + 1):
        yield {"outputs": STATES[op][:count]}
    yield {"outputs": ("", *STATES[op][1:])}
    yield {"outputs": ("",) * (len(STATES[op]) - 1) + STATES[op][-1:]}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", USUAL)
def test_every_option(op: str, direction: str) -> None:
    for seed, chosen in enumerate(options(op)):
        agree(*recurrent(op, direction, scale=0.6, seed=seed, **chosen))


def values_of(names: list[str]) -> dict[str, Any]:
    """Give every activation that takes them an alpha and a beta of its own."""
    alpha = [ALPHA[name] + 0.01 * k for k, name in enumerate(names) if name in ALPHA]
    beta = [BETA[name] + 0.01 * k for k, name in enumerate(names) if name in BETA]
    return {k: v for k, v in (("activation_alpha", alpha), ("activation_beta", beta)) if v}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("op", USUAL)
def test_every_activation_in_every_place(op: str, name: str, direction: str) -> None:
    for place in range(ACTIVATIONS[op] * (1 + (direction == "bidirectional"))):
        names = USUAL[op] * (1 + (direction == "bidirectional"))
        names[place] = name
        agree(*recurrent(op, direction, activations=names, seed=place, **values_of(names)))


@pytest.mark.parametrize("op", USUAL)
def test_random_mixtures(op: str) -> None:
    rng = np.random.default_rng(7)
    for seed in range(20):
        direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
        ways = 1 + (direction == "bidirectional")
        # Gates that stay near 0 and 1: others let the state grow beyond what single precision can compare.
        gates = ["Sigmoid", "HardSigmoid", "Tanh", "Softsign"] if op != "RNN" else NAMES
        names = [str(rng.choice(gates if k == 0 else NAMES)) for _ in range(ways) for k in range(ACTIVATIONS[op])]
        chosen: dict[str, Any] = {"bias": bool(rng.integers(2)), "initial": bool(rng.integers(2))}
        if rng.integers(2):
            chosen["lengths"] = rng.integers(1, 6, 3).tolist()
        if op == "GRU":
            chosen["linear_before_reset"] = int(rng.integers(2))
        if op == "LSTM":
            chosen |= {"peepholes": bool(rng.integers(2)), "input_forget": int(rng.integers(2))}
        agree(*recurrent(op, direction, activations=names, seed=seed, **chosen, **values_of(names)), tolerance=1e-5)


def test_the_known_deviations_are_still_there() -> None:
    """When one of them is gone, its cases belong into the comparison above."""
    for op in USUAL:
        model, X = recurrent(op, layout=1)
        with pytest.raises(Exception, match="layout"):
            run(model, X=X)
        model, X = recurrent(op, lengths=[5, 0, 3])
        assert not run(model, X=X)["Y_h"][0, 1].any()
        start = mg.io.onnx.load(model).state_dict()["initial_h"].numpy()
        assert np.array_equal(mg.io.onnx.load(model)(X)["Y_h"].numpy()[0, 1], start[0, 1])
    model, X = recurrent("LSTM", clip=0.3)
    assert abs(run(model, X=X)["Y"] - mg.io.onnx.load(model)(X)["Y"].numpy()).max() > 1e-2


# --- what we write ----------------------------------------------------------------------------------------------


def saved(tmp_path: Path, model: Any, inputs: Any, tolerance: float = 3e-6) -> Any:
    """Write a model; compare onnxruntime and the model read back with the original; return the proto."""
    path = tmp_path / "model.onnx"
    mg.io.onnx.save(model, path, inputs)
    proto = onnx.load(str(path))
    names = [port.name for port in proto.graph.input]
    given = dict(zip(names, inputs, strict=True))
    mode = getattr(model, "training", None)
    want = (model.eval() if mode is not None else model)(*inputs)
    flat: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, tuple | list | dict):
            for inner in value.values() if isinstance(value, dict) else value:
                collect(inner)
        else:
            flat.append(value.numpy())

    collect(want)
    back = mg.io.onnx.load(path)
    theirs, ours = run(path.read_bytes(), **given), back(**given)
    assert list(theirs) == list(ours)
    for value, a, b in zip(flat, theirs.values(), ours.values(), strict=True):
        assert a.shape == b.shape == value.shape
        assert a.dtype == b.dtype == value.dtype
        assert np.allclose(a, value, rtol=tolerance, atol=tolerance)
        assert np.allclose(b.numpy(), value, rtol=tolerance, atol=tolerance)
    return proto


LAYERS = {"rnn": mg.nn.RNN, "gru": mg.nn.GRU, "lstm": mg.nn.LSTM}


def layer_options(unit: str) -> Iterator[dict[str, Any]]:
    yield from ({}, {"bias": False}, {"batch_first": True}, {"bidirectional": True})
    yield {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5}
    if unit == "rnn":
        yield from ({"nonlinearity": "relu"}, {"clip": 0.3}, {"activations": (("HardSigmoid", 0.3),)})
    if unit == "gru":
        yield from ({"reset_after": False}, {"clip": 0.3}, {"activations": ("hard_sigmoid", "softsign")})
    if unit == "lstm":
        yield from ({"peepholes": "diagonal", "num_layers": 2}, {"input_forget": True}, {"forget_bias": 1.0})
        yield from ({"variant": "NIAF"}, {"variant": "NOAF", "peepholes": "diagonal"}, {"variant": "NP"})
        yield from ({"variant": "CIFG", "bidirectional": True}, {"variant": "CIFG", "peepholes": "diagonal"})
        yield {"activations": ("hardsigmoid", ("Elu", 0.7), ("ScaledTanh", 1.2, 0.6)), "bidirectional": True}


@pytest.mark.parametrize("unit", LAYERS)
def test_layers_written(unit: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for chosen in layer_options(unit):
        mg.manual_seed(3)
        layer = LAYERS[unit](2, 7, **chosen)
        x = rng.standard_normal((3, 5, 2) if layer.batch_first else (5, 3, 2)).astype("float32")
        count = layer.num_layers * (1 + layer.bidirectional)
        proto = saved(tmp_path, layer, (x,))
        kinds = [node.op_type for node in proto.graph.node]
        assert kinds.count(unit.upper()) == layer.num_layers
        if unit == "lstm":

            class Started(mg.nn.Module):
                def __init__(self, layer: Any) -> None:
                    super().__init__()
                    self.layer = layer

                def forward(self, x: Any, h: Any, c: Any, lengths: Any) -> Any:
                    return self.layer(x, (h, c), lengths)

            states = [rng.standard_normal((count, 3, 7)).astype("float32") for _ in range(2)]
            saved(tmp_path, Started(layer), (x, *states, np.array([5, 2, 3])))
        else:

            class Begun(mg.nn.Module):
                def __init__(self, layer: Any) -> None:
                    super().__init__()
                    self.layer = layer

                def forward(self, x: Any, h: Any) -> Any:
                    return self.layer(x, h, lengths=[1, 5, 4])

            saved(tmp_path, Begun(layer), (x, rng.standard_normal((count, 3, 7)).astype("float32")))


def test_a_layer_without_a_batch(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    saved(tmp_path, mg.nn.LSTM(2, 7, bidirectional=True, num_layers=2), (x,))


def test_a_tagger(tmp_path: Path) -> None:
    class Tagger(mg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = mg.nn.Embedding(11, 5, padding_idx=0)
            self.lstm = mg.nn.LSTM(5, 7, bidirectional=True, batch_first=True)
            self.drop = mg.nn.Dropout(0.5)
            self.out = mg.nn.Linear(14, 3)

        def forward(self, words: Any) -> Any:
            return mg.log_softmax(self.out(self.drop(self.lstm(self.table(words))[0])))

    tagger = Tagger()
    words = np.random.default_rng(0).integers(0, 11, (3, 5))
    proto = saved(tmp_path, tagger, (words,))
    assert [port.name for port in proto.graph.input] == ["words"]
    assert {"out.weight", "lstm.W_l0", "table.weight"} <= {v.name for v in proto.graph.initializer}
    tagger.train()
    mg.io.onnx.save(tagger, tmp_path / "again.onnx", (words,))
    assert all(module.training for module in tagger.modules())
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


FUNCTIONS: dict[str, Any] = {
    "arithmetic": lambda a, b: (a + b) * 2 - b / (a * a + 1.5) - (-a),
    "powers": lambda a, b: mg.pow(mg.abs(a) + 0.5, 3) + mg.sqrt(mg.square(b) + 1) + mg.rsqrt(mg.exp(a)),
    "logarithms": lambda a, b: mg.log(mg.exp(a)) + mg.log1p(mg.square(b)) + mg.expm1(a) + mg.reciprocal(b * b + 1),
    "activations": lambda a, b: mg.tanh(a) + mg.sigmoid(b) + mg.relu(a) + mg.softplus(b) + mg.gelu(a) + mg.silu(b),
    "more activations": lambda a, b: (
        mg.leaky_relu(a, 0.3) + mg.elu(b, 0.7) + mg.softsign(a) + mg.hard_sigmoid(b, 0.3, 0.4) + mg.scaled_tanh(a, 2, 3)
    ),
    "waves": lambda a, b: mg.sin(a) + mg.cos(b) + mg.erf(a) + mg.sign(b) * mg.thresholded_relu(a, 0.2),
    "choices": lambda a, b: mg.where(a > b, mg.maximum(a, 0.1), mg.minimum(b, -0.1)) + mg.clip(a, -0.5, 0.5),
    "questions": lambda a, b: [a > b, a >= b, a < 0, a <= b, a == b, a != b, mg.logical_not(a > b), mg.isnan(a)],
    "whole numbers": lambda a, b: (a > 0).astype("int64") * 3 + (b > 0) + 0.5 * (a > b),
    "products": lambda a, b: [a @ b.mT, mg.einsum("ij,kj->ki", a, b), a[0] @ b[1], mg.affine(a, b, b[:, 0])],
    "reductions": lambda a, b: [
        a.sum(), a.mean(0), a.max(1, keepdims=True), b.min(), b.prod(0), mg.logsumexp(a, axis=1), mg.norm(b, axis=-1),
        mg.var(a, axis=1, correction=1), a.argmax(), b.argmin(1), a.argmax(0, keepdims=True),
    ],
    "softmax": lambda a, b: [mg.softmax(a, axis=0), mg.log_softmax(b)],
    "shapes": lambda a, b: [
        a.reshape(5, 3), mg.expand_dims(a, (0, 2)), mg.squeeze(a[:1]), mg.flatten(b), a.T, mg.flip(a, 1), mg.flip(b),
        mg.broadcast_to(a[0], (2, 3, 5)), mg.moveaxis(mg.stack([a, b], 1), 0, -1), mg.cumsum(a, 1), mg.sum_to(a, (5,)),
    ],
    "joins": lambda a, b: [mg.concatenate([a, b, a], 1), mg.stack([a, b], -1), mg.pad(a, ((1, 0), (2, 3)), 0.5)],
    "parts": lambda a, b: [
        a[1], a[-1, 2], a[:, 1:4:2], a[::-1, 3], a[..., -1], a[None, :, 2:], b[[2, 0, 2]], b[:, np.array([[1, -1]])],
        a[2:0:-1], *mg.split(a, 2, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_written(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal((3, 5)).astype("float32") for _ in range(2))
    proto = saved(tmp_path, lambda a, b: FUNCTIONS[name](mg.as_tensor(a), mg.as_tensor(b)), (a, b))
    assert len(proto.graph.node) > 1
