"""Gate orders of other libraries: round trips, and each format's equations written out in NumPy."""

import doctest
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ShapeError, UsageError
from minigrad.io import layouts

I, H, T, N = 2, 5, 7, 3
LAYERS = {"rnn": mg.nn.RNN, "gru": mg.nn.GRU, "lstm": mg.nn.LSTM}


def layer(unit: str, **options: Any) -> Any:
    mg.manual_seed(11)
    return LAYERS[unit](I, H, dtype="float64", **options)


def arrays(module: mg.nn.Module) -> dict[str, Any]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return sorted(a) == sorted(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_examples() -> None:
    result = doctest.testmod(layouts)
    assert result.attempted > 15
    assert result.failed == 0


@pytest.mark.parametrize("unit", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_there_and_back(unit: str, bidirectional: bool, num_layers: int, bias: bool) -> None:
    state = arrays(layer(unit, num_layers=num_layers, bidirectional=bidirectional, bias=bias))
    onnx = layouts.to_onnx(state, unit)
    assert len(onnx) == num_layers
    assert onnx[0]["W"].shape[0] == 1 + bidirectional
    assert same(layouts.from_onnx(onnx, unit), state)
    assert same(layouts.from_cudnn(layouts.to_cudnn(state, unit), unit, bidirectional), state)
    keras = layouts.from_keras(layouts.to_keras(state, unit), unit, bidirectional)
    if bias and unit != "gru":  # Keras has the sum of the biases
        for name in [name for name in state if name.startswith("bias_ih")]:
            other = name.replace("ih", "hh")
            state[name], state[other] = state[name] + state[other], np.zeros_like(state[other])
    assert same(keras, state)


def test_peepholes_there_and_back() -> None:
    state = arrays(layer("lstm", peepholes="diagonal", bidirectional=True))
    (onnx,) = layouts.to_onnx(state, "lstm")
    assert onnx["P"].shape == (2, 3 * H)
    assert same(layouts.from_onnx(onnx, "lstm"), state)
    for other in (layouts.to_keras, layouts.to_cudnn):
        with pytest.raises(UsageError, match="peepholes"):
            other(state, "lstm")


def test_a_prefix_selects_a_layer() -> None:
    state = {f"encoder.{name}": value for name, value in arrays(layer("gru")).items()} | {"head.weight": np.ones(3)}
    read = layouts.to_onnx(state, "gru", prefix="encoder.")
    del state["head.weight"]
    assert same(layouts.from_onnx(read, "gru", prefix="encoder."), state)


def test_gradients_flow_through() -> None:
    gru = layer("gru")
    (onnx,) = layouts.to_onnx(dict(gru.named_parameters()), "gru")
    weights = mg.tensor(np.random.default_rng(0).standard_normal(onnx["W"].shape))
    (onnx["W"] * weights).sum().backward()
    rows = weights.numpy()[0].reshape(3, H, I)
    assert np.array_equal(gru.weight_ih_l0.grad.numpy(), rows[[1, 0, 2]].reshape(3 * H, I))


# --- the formats' own equations ---------------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def keras_steps(unit: str, weights: list[Any], x: Any, reset_after: bool) -> Any:
    """Run Keras's cells as its documentation writes them: kernels on the right, x of shape (T, N, I)."""
    kernel, recurrent, bias = weights
    h = c = np.zeros((x.shape[1], H))
    out = []
    for x_t in x:
        if unit == "rnn":
            h = np.tanh(x_t @ kernel + bias + h @ recurrent)
        elif unit == "lstm":
            i, f, g, o = np.split(x_t @ kernel + h @ recurrent + bias, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif reset_after:
            x_z, x_r, x_h = np.split(x_t @ kernel + bias[0], 3, axis=-1)
            h_z, h_r, h_h = np.split(h @ recurrent + bias[1], 3, axis=-1)
            z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
            h = z * h + (1 - z) * np.tanh(x_h + r * h_h)
        else:
            x_z, x_r, x_h = np.split(x_t @ kernel + bias, 3, axis=-1)
            u_z, u_r, u_h = np.split(recurrent, 3, axis=-1)
            z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
            h = z * h + (1 - z) * np.tanh(x_h + (r * h) @ u_h)
        out.append(h)
    return np.stack(out)


@pytest.mark.parametrize(("unit", "reset_after"), [("rnn", True), ("lstm", True), ("gru", True), ("gru", False)])
def test_keras_computes_the_same(unit: str, reset_after: bool) -> None:
    ours = layer(unit, **({"reset_after": reset_after} if unit == "gru" else {}))
    (weights,) = layouts.to_keras(arrays(ours), unit, reset_after=reset_after)
    x = np.random.default_rng(3).standard_normal((T, N, I))
    assert np.allclose(ours(x)[0].numpy(), keras_steps(unit, weights, x, reset_after), rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", ["gru", "lstm"])
def test_cudnn_computes_the_same(unit: str) -> None:
    ours = layer(unit)
    blocks = layouts.to_cudnn(arrays(ours), unit)
    x = np.random.default_rng(3).standard_normal((T, N, I))
    h = c = np.zeros((N, H))
    out = []
    for x_t in x:

        def linear(k: int, v: Any) -> Any:
            matrix, bias = blocks[0, k]
            return v @ matrix.T + bias

        if unit == "lstm":
            i, f, o = (sigmoid(linear(k, x_t) + linear(k + 4, h)) for k in (0, 1, 3))
            c = f * c + i * np.tanh(linear(2, x_t) + linear(6, h))
            h = o * np.tanh(c)
        else:
            r, z = (sigmoid(linear(k, x_t) + linear(k + 3, h)) for k in (0, 1))
            h = (1 - z) * np.tanh(linear(2, x_t) + r * linear(5, h)) + z * h
        out.append(h)
    assert np.allclose(ours(x)[0].numpy(), np.stack(out), rtol=0, atol=1e-12)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weight_xx_l0": np.ones(2)}, UsageError, "weight_xx_l0"),
        ({"weight_ih_l0": None}, UsageError, "missing.*weight_ih_l0"),
        ({"bias_hh_l0": None}, UsageError, "missing.*bias_hh_l0"),
        ({"weight_ih_l0_reverse": np.ones((15, 2))}, UsageError, "missing.*weight_hh_l0_reverse"),
        ({"weight_ih_l7": np.ones((15, 5))}, UsageError, "missing.*weight_hh_l1"),
        ({"weight_ih_l99999999": np.ones((15, 5))}, UsageError, "weight_ih_l99999999"),
        ({"weight_ph_l0": np.ones(15)}, UsageError, "weight_ph_l0"),
        ({"weight_ih_l0": np.ones((14, 2))}, ShapeError, r"weight_ih_l0.*\(14, 2\).*\(15, 2\)"),
        ({"weight_hh_l0": np.ones((5, 15))}, ShapeError, "weight_hh_l0"),
        ({"weight_hh_l0": np.ones((0, 0))}, ShapeError, "weight_hh_l0"),
        ({"bias_ih_l0": np.ones((15, 1))}, ShapeError, "bias_ih_l0"),
    ],
)
def test_wrong_states_are_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    state = {**arrays(layer("gru")), **change}
    state = {name: value for name, value in state.items() if value is not None}
    for convert in (layouts.to_onnx, layouts.to_keras, layouts.to_cudnn):
        with pytest.raises(error, match=words):
            convert(state, "gru")


def test_wrong_weights_are_named() -> None:
    W, R = np.ones((1, 20, 2)), np.ones((1, 20, 5))
    for given, error, words in (
        ({"W": W}, UsageError, "R"),
        ({"W": W, "R": R, "Q": W}, UsageError, "Q"),
        ({"W": W[:, :19], "R": R}, ShapeError, r"W.*\(1, 19, 2\)"),
        ({"W": W, "R": R[:, :15]}, ShapeError, "R"),
        ({"W": W, "R": R[0]}, ShapeError, "R"),
        ({"W": W, "R": R, "B": np.ones((1, 20))}, ShapeError, r"B.*\(1, 40\)"),
        ({"W": W, "R": R, "P": np.ones((1, 20))}, ShapeError, r"P.*\(1, 15\)"),
    ):
        with pytest.raises(error, match=words):
            layouts.from_onnx(given, "lstm")
    with pytest.raises(ShapeError, match="input matrix of layer 1"):
        layouts.from_onnx([{"W": W, "R": R}, {"W": W, "R": R}], "lstm")
    with pytest.raises(UsageError, match="unit"):
        layouts.from_onnx({"W": W, "R": R}, "LSTM")
    with pytest.raises(UsageError, match="arrays"):
        layouts.from_keras([W[0].T], "lstm")
    with pytest.raises(ShapeError, match=r"bias of layer 0.*\(20,\)"):
        layouts.from_keras([W[0].T, R[0].T, np.ones((2, 20))], "lstm")
    with pytest.raises(UsageError, match=r"\(0, 7\)"):
        layouts.from_cudnn({(0, k): (np.ones((5, 5)), None) for k in range(7)}, "lstm")
    with pytest.raises(ShapeError, match=r"matrix \(0, 3\)"):
        layouts.from_cudnn({(0, k): (np.ones((5, 2 if k < 3 else 5)), None) for k in range(8)}, "lstm")
