"""ONNX models read: the project's own cases, the recurrent operators' text, gradients, and files that mean harm."""

import copy
import inspect
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad.errors import DTypeError, FormatError, MinigradError, MissingExtraError, ShapeError, UsageError
from minigrad.io.onnx import _recurrent
from minigrad.io.onnx._graph import OPSETS
from minigrad.io.onnx._table import TABLE

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402  after the check that it is there
from onnx_models import STATES, H, I, N, T, model_of, recurrent  # noqa: E402

load = mg.io.onnx.load


# --- the project's own cases ------------------------------------------------------------------------------------

REFUSED = [  # cases of operators of the table, by what the reader says of them
    "elements of ONNX's type",
    "operator set [",
    "is no tensor",
    "'(Dropout) has outputs",
    "(Dropout) has outputs",
    "training_mode is on",
    "ellipses are not supported",
    "'edge' is not supported",
    "'reflect' is not supported",
    "'wrap' is not supported",
    "zero-size array to reduction",
]


def cases() -> list[Any]:
    found = pytest.importorskip("onnx.backend.test.case.node").collect_testcases(None)
    return [case for case in found if {node.op_type for node in case.model.graph.node} <= TABLE.keys()]


def outcome(case: Any) -> str:
    """Run a case: "ok", "refused", or what is wrong."""
    try:
        model = load(case.model)
        for inputs, outputs in case.data_sets:
            if any(not isinstance(x, np.ndarray) for x in inputs):
                return "refused"  # elements that NumPy does not have
            with np.errstate(all="ignore"):
                got = list(model(*inputs).values())
            for mine, want in zip(got, outputs, strict=True):
                want = np.asarray(want)
                if mine.shape != want.shape or mine.dtype != want.dtype:
                    return f"{mine.dtype} {mine.shape} instead of {want.dtype} {want.shape}"
                if not np.allclose(mine.numpy(), want, rtol=1e-5, atol=1e-6, equal_nan=True):
                    return "other values"
    except MinigradError as error:
        return "refused" if any(words in str(error) for words in REFUSED) else str(error)
    return "ok"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_projects_node_cases() -> None:
    outcomes = {case.name: outcome(case) for case in cases()}
    assert {name: said for name, said in outcomes.items() if said not in ("ok", "refused")} == {}
    assert Counter(outcomes.values())["ok"] > 500
    family = [name for name in outcomes if re.match(r"test_(simple_rnn|rnn|gru|lstm)", name)]
    assert len(family) >= 12
    assert {outcomes[name] for name in family} == {"ok"}


def test_every_signature_is_the_specifications() -> None:
    """Compare inputs and attributes of every operator of the table, in every version that is read, with its schema."""
    absent = {"Constant": {"sparse_value", "value_string", "value_strings"}}
    for op, definitions in TABLE.items():
        for opset in OPSETS:
            newest = [d for d in definitions if d.since <= opset][-1:]
            try:
                schema = onnx.defs.get_schema(op, opset)
            except onnx.defs.SchemaError:
                assert not newest, (op, opset)
                continue
            (mine,) = newest
            assert set(mine.attributes) == set(schema.attributes) - absent.get(op, set()), (op, opset)
            if any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in mine.inputs):
                continue
            optional = onnx.defs.OpSchema.FormalParameterOption.Optional
            theirs = [port.option == optional for port in schema.inputs]
            assert [p.default is None for p in mine.inputs] == theirs, (op, opset)


# --- the recurrent operators, by their text ---------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def text_lstm(v: dict[str, Any], X: Any, clip: float | None, coupled: bool, lens: list[int]) -> tuple[Any, Any, Any]:
    """Run one forward LSTM of the specification, a sequence at a time, in the notation of its text."""

    def held(x: Any) -> Any:
        return x if clip is None else np.clip(x, -clip, clip)

    Y = np.zeros((T, 1, N, H))
    Y_h, Y_c = np.zeros((1, N, H)), np.zeros((1, N, H))
    (Wi, Wo, Wf, Wc), (Ri, Ro, Rf, Rc) = np.split(v["W"][0], 4), np.split(v["R"][0], 4)
    Wbi, Wbo, Wbf, Wbc, Rbi, Rbo, Rbf, Rbc = np.split(v["B"][0], 8)
    Pi, Po, Pf = np.split(v["P"][0], 3)
    for n in range(N):
        h, c = v["initial_h"][0, n], v["initial_c"][0, n]
        for t in range(lens[n]):
            x = X[t, n]
            i = sigmoid(held(Wi @ x + Ri @ h + Pi * c + Wbi + Rbi))
            f = 1 - i if coupled else sigmoid(held(Wf @ x + Rf @ h + Pf * c + Wbf + Rbf))
            c_new = f * c + i * np.tanh(held(Wc @ x + Rc @ h + Wbc + Rbc))
            o = sigmoid(held(Wo @ x + Ro @ h + Po * c_new + Wbo + Rbo))
            c = c_new
            h = o * np.tanh(held(c))
            Y[t, 0, n] = h
        Y_h[0, n], Y_c[0, n] = h, c
    return Y, Y_h, Y_c


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("lens", [[5, 5, 5], [2, 5, 0]])
def test_an_lstm_by_its_text(clip: float | None, coupled: bool, lens: list[int]) -> None:
    more = {} if clip is None else {"clip": clip}
    proto, X = recurrent("LSTM", peepholes=True, lengths=lens, dtype="float64", input_forget=int(coupled), **more)
    values = {v.name: numpy_helper.to_array(v) for v in proto.graph.initializer}
    want = text_lstm(values, X, None if clip is None else float(np.float32(clip)), coupled, lens)
    for got, expected in zip(load(proto)(X).values(), want, strict=True):
        assert np.allclose(got.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("op", STATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_layout_1_is_layout_0_turned(op: str, direction: str) -> None:
    proto, X = recurrent(op, direction, lengths=[5, 2, 3])
    want = load(proto)(X)
    turned = copy.deepcopy(proto)
    turned.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value in turned.graph.initializer:
        if value.name.startswith("initial"):
            value.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(value).swapaxes(0, 1).copy(), value.name))
    got = load(turned)(np.ascontiguousarray(X.swapaxes(0, 1)))
    assert np.array_equal(got["Y"].numpy(), want["Y"].numpy().transpose(2, 0, 1, 3))
    for name in STATES[op][1:]:
        assert np.array_equal(got[name].numpy(), want[name].numpy().swapaxes(0, 1))


@pytest.mark.parametrize("op", STATES)
def test_the_reverse_direction_reads_backwards(op: str) -> None:
    proto, X = recurrent(op, "reverse", lengths=[5, 2, 3])
    forward = copy.deepcopy(proto)
    (said,) = (a for a in forward.graph.node[0].attribute if a.name == "direction")
    said.s = b"forward"
    turned = X.copy()
    for n, length in enumerate([5, 2, 3]):
        turned[:length, n] = X[:length, n][::-1]
    got, want = load(proto)(X)["Y"].numpy(), load(forward)(turned)["Y"].numpy()
    for n, length in enumerate([5, 2, 3]):
        assert np.allclose(got[:length, :, n], want[:length, :, n][::-1], rtol=0, atol=1e-6)
        assert not got[length:, :, n].any()


def test_defaults_of_alpha_and_beta() -> None:
    for name, alpha, beta in (
        ("Affine", [1.0], [0.0]),
        ("LeakyRelu", [0.01], None),
        ("ThresholdedRelu", [1.0], None),
        ("HardSigmoid", [0.2], [0.5]),
        ("Elu", [1.0], None),
        ("ScaledTanh", [1.0], [1.0]),
    ):
        given = {} if beta is None else {"activation_beta": beta}
        said, X = recurrent("RNN", activations=[name], activation_alpha=alpha, scale=0.9, **given)
        unsaid, _ = recurrent("RNN", activations=[name], scale=0.9)
        assert np.array_equal(load(said)(X)["Y"].numpy(), load(unsaid)(X)["Y"].numpy())


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("RNN", {"direction": "bidirectional", "activations": ["Softsign", "Softplus"]}),
        ("GRU", {"direction": "bidirectional", "layout": 1}),
        ("GRU", {"direction": "reverse", "linear_before_reset": 1, "lengths": [5, 2, 3]}),
        ("LSTM", {"direction": "bidirectional", "peepholes": True, "lengths": [2, 5, 1]}),
        ("LSTM", {"peepholes": True, "input_forget": 1}),
    ],
)
def test_gradients_by_central_differences(op: str, more: dict[str, Any]) -> None:
    proto, X = recurrent(op, dtype="float64", scale=0.7, **more)
    model = load(proto)
    rng = np.random.default_rng(1)
    weights = {name: rng.standard_normal(y.shape) for name, y in model(X).items()}

    def loss(x: Any) -> Any:
        return sum((y * mg.tensor(weights[name])).sum() for name, y in model(x).items())

    x = mg.tensor(X, requires_grad=True)
    loss(x).backward()
    assert "W" in dict(model.named_parameters())
    for name, leaf in {"X": x, **dict(model.named_parameters())}.items():
        values, grad = leaf.numpy(), leaf.grad.numpy()
        for place in zip(*(rng.integers(0, n, 4) for n in values.shape), strict=True):
            kept, ends = values[place], []
            for step in (1e-6, -1e-6):
                values[place] = kept + step
                ends.append(float(loss(x.detach())))
            values[place] = kept
            assert np.isclose((ends[0] - ends[1]) / 2e-6, grad[place], rtol=1e-6, atol=1e-8), (name, place)


def test_initializers_are_the_state() -> None:
    proto, X = recurrent("LSTM", peepholes=True, lengths=[5, 2, 3])
    model = load(proto)
    assert set(dict(model.named_parameters())) == {"W", "R", "B", "initial_h", "initial_c", "P"}
    assert set(dict(model.named_buffers())) == {"sequence_lens"}
    before = model(X)["Y"].numpy().copy()
    zeros = {name: value.numpy() * 0 for name, value in model.named_parameters()}
    model.load_state_dict({**model.state_dict(), **zeros})
    assert before.any()
    assert not model(X)["Y"].numpy().any()


def test_double_converts_constants_as_well() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([1.5, -2], np.float32))),
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    x = np.ones((3, 2), np.float32)
    model = load(model_of(nodes, {"x": x}, ["y"], {"b": np.array([0.25, 0.5], np.float32)})).double()
    assert list(model.state_dict()) == ["b"]
    assert model(x.astype(np.float64))["y"].tolist() == [[1.75, -1.5]] * 3


def test_loading_draws_no_random_numbers() -> None:
    proto, X = recurrent("GRU")
    _recurrent._blank.cache_clear()
    mg.manual_seed(3)
    want = mg.rand(5).tolist()
    mg.manual_seed(3)
    load(proto)(X)
    assert mg.rand(5).tolist() == want


def test_a_tape_sees_the_units() -> None:
    proto, X = recurrent("LSTM", "bidirectional")
    with mg.Tape() as tape:
        load(proto)(X)
    scopes = {node.scope for node in tape.nodes}
    assert any("unit/forward/" in scope and "t=3" in scope for scope in scopes)
    assert any("unit/reverse/" in scope for scope in scopes)
    assert {"Y", "Y_h", "Y_c", "f[3]", "weight_ih_l0"} <= {node.name for node in tape.nodes}


# --- calls ------------------------------------------------------------------------------------------------------


def adder() -> Any:
    one = np.ones(2, np.float32)
    made = model_of([helper.make_node("Add", ["x", "b"], ["y"])], {"x": one}, ["y"], {"b": one})
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "n", 2]))
    made.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [2]))
    return made


def test_inputs_by_position_and_name() -> None:
    model = load(adder())
    x = np.zeros((3, 3, 2), np.float32)
    assert model.inputs == ("x",)
    assert model(x)["y"].shape == (3, 3, 2)
    assert model(x=x, b=np.array([4, 5], np.float32))["y"][0, 0].tolist() == [4, 5]
    for args, more, error, words in (
        ((), {}, UsageError, r"missing \['x'\]"),
        ((x, x), {}, UsageError, "2 inputs"),
        ((x,), {"x": x}, UsageError, r"twice \['x'\]"),
        ((x,), {"z": x}, UsageError, r"unexpected \['z'\]"),
        ((x[:2],), {}, ShapeError, "'x' has shape"),
        ((x[0],), {}, ShapeError, "'x' has shape"),
        ((x[..., :1],), {}, ShapeError, "'x' has shape"),
        ((x.astype(int),), {}, DTypeError, "'x' has elements of float32"),
    ):
        with pytest.raises(error, match=words):
            model(*args, **more)


def test_sources(tmp_path: Path) -> None:
    proto, X = recurrent("RNN")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    want = load(proto)(X)["Y"].numpy()
    for source in (proto.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        assert np.array_equal(load(source)(X)["Y"].numpy(), want)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.onnx")


@pytest.mark.needs("torch")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("unit", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("opset", [13, 17])
def test_what_pytorch_writes(unit: str, opset: int) -> None:
    torch = pytest.importorskip("torch")

    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(11, 5)
            self.unit = getattr(torch.nn, unit)(5, 7, 2, bidirectional=True, batch_first=True)
            self.out = torch.nn.Linear(14, 3)

        def forward(self, words: Any) -> Any:
            y = self.unit(self.table(words))[0]
            return torch.log_softmax(self.out(y), -1), y.mean(1), y[:, -1]

    torch.manual_seed(0)
    tagger, data = Tagger().eval(), io.BytesIO()
    free = {"words": {0: "n", 1: "t"}}
    given = (torch.randint(0, 11, (3, 6)),)
    torch.onnx.export(tagger, given, data, opset_version=opset, dynamo=False, dynamic_axes=free, input_names=["words"])
    words = torch.randint(0, 11, (2, 5))  # of other lengths than the example
    got = load(data.getvalue())(words.numpy())
    for mine, theirs in zip(got.values(), tagger(words), strict=True):
        assert np.allclose(mine.numpy(), theirs.detach().numpy(), rtol=0, atol=2e-6)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"minigrad-tape\[onnx\]"):
        load(b"")


# --- what is refused --------------------------------------------------------------------------------------------

ONE = np.ones((2, 3), np.float32)


def node_model(op: str, inputs: list[str] | None = None, outputs: list[str] | None = None, **attributes: Any) -> Any:
    opset = attributes.pop("opset", 20)
    node = helper.make_node(op, inputs or ["x"], outputs or ["y"], name="it", **attributes)
    return model_of(
        [node], {"x": ONE}, [(outputs or ["y"])[0]], {"v": ONE, "u": ONE[:, :1], "n": np.array([2, 2**40])}, opset
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: node_model("Conv", ["x", "v"]), r"'it' \(Conv\): this operator is not supported"),
        (lambda: node_model("If"), r"'it' \(If\)"),
        (lambda: node_model("Tanh", speed=3), r"'it' \(Tanh\): the attribute 'speed' is not supported in operator set"),
        (lambda: node_model("Softmax", axis=1.5), "'axis' is of kind float; it must be int"),
        (lambda: node_model("Gelu", opset=19), r"\(Gelu\).*before operator set 20"),
        (lambda: node_model("ReduceMax", opset=20, axes=[1]), "'axes' is not supported in operator set 20"),
        (lambda: node_model("Tanh", opset=12), "operator set"),
        (lambda: node_model("Tanh", opset=99), "operator set"),
        (lambda: node_model("Tanh", ["x", "v"]), r"\(Tanh\) has inputs"),
        (lambda: node_model("Add"), r"\(Add\) has inputs"),
        (lambda: node_model("Add", ["", "x"]), r"\(Add\) has inputs"),
        (lambda: node_model("Concat", ["x", "v"]), "attribute axis"),
        (lambda: node_model("Tanh", ["later"]), "reads 'later' before"),
        (lambda: node_model("Tanh", ["y"]), "reads 'y' before"),
        (lambda: node_model("Tanh", outputs=["x"]), "makes 'x', which is made already"),
        (lambda: node_model("Tanh", outputs=["y", "z"]), "has outputs"),
        (lambda: node_model("Constant", ["x"], value_int=3), r"\(Constant\) has inputs"),
        (lambda: node_model("Tanh", domain="com.example"), "'com.example'"),
    ],
)
def test_nodes_that_are_not_understood(model: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        load(model())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: node_model("Expand", ["u", "n"]), "max_elements"),
        (lambda: node_model("ConstantOfShape", ["n"]), "max_elements"),
        (lambda: node_model("Reshape", ["x", "n"]), r"\(Reshape\)"),
        (lambda: node_model("MatMul", ["x", "v"]), r"\(MatMul\).*3.*2"),
        (lambda: node_model("Gather", ["x", "n"]), r"\(Gather\)"),
        (lambda: node_model("Transpose", ["x"], perm=[0, 0]), r"\(Transpose\)"),
        (lambda: node_model("Split", ["x"], ["y", "z"], axis=1, opset=13), "equal parts"),
        (lambda: node_model("Squeeze", ["x", "n"]), r"\(Squeeze\)"),
        (lambda: node_model("Cast", ["x"], to=8), "type 8"),
    ],
)
def test_graphs_that_cannot_run(model: Any, words: str) -> None:
    with pytest.raises((FormatError, ShapeError), match=words):
        load(model())(ONE)


def test_growth_is_bounded() -> None:
    """Each step doubles: 40 of them would fill any memory."""
    steps = [helper.make_node("Concat", [f"x{k}", f"x{k}"], [f"x{k + 1}"], axis=0) for k in range(40)]
    model = load(model_of(steps, {"x0": ONE}, ["x40"], {}), max_elements=10**6)
    with pytest.raises(FormatError, match="1000000 elements"):
        model(ONE)
    wide = [helper.make_node("Unsqueeze", ["x", "axis"], ["column"]), helper.make_node("Add", ["x", "column"], ["y"])]
    model = load(model_of(wide, {"x": ONE[0]}, ["y"], {"axis": np.array([1])}), max_elements=10**7)
    with pytest.raises(FormatError, match="max_elements"):
        model(np.ones(2**22, np.float32))
    many = [helper.make_node("Neg", [f"x{k}"], [f"x{k + 1}"]) for k in range(40)]
    model = load(model_of(many, {"x0": ONE}, ["x40"], {}), max_elements=200)
    with pytest.raises(FormatError, match="200 elements"):
        model(ONE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 6}, "hidden_size is 6"),
        ({"direction": "sideways"}, "sideways"),
        ({"activations": ["Tanh"]}, "3 names"),
        ({"activations": ["Sigmoid", "Cosh", "Tanh"]}, "Cosh"),
        ({"activation_alpha": [0.1]}, "more values of alpha"),
        ({"layout": 2}, "layout 2"),
        ({"clip": -1.0}, "clip"),
        ({"output_sequence": 1}, "output_sequence"),
    ],
)
def test_recurrent_attributes_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    proto, X = recurrent("LSTM")
    (node,) = proto.graph.node
    kept = [a for a in node.attribute if a.name not in change]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in change.items())])
    with pytest.raises((FormatError, ShapeError), match=words):
        load(proto)(X)


@pytest.mark.parametrize(("name", "shape"), [("W", (1, 27, I)), ("R", (1, 28, 6)), ("B", (1, 28)), ("P", (2, 21))])
def test_recurrent_weights_of_other_shapes(name: str, shape: tuple[int, ...]) -> None:
    proto, X = recurrent("LSTM", peepholes=True)
    for value in proto.graph.initializer:
        if value.name == name:
            value.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), name))
    with pytest.raises((FormatError, ShapeError), match="'unit'"):
        load(proto)(X)


def test_recurrent_sequence_lens_out_of_range() -> None:
    for lengths in ([5, 6, 1], [5, -1, 1], [5, 1]):
        proto, X = recurrent("GRU", lengths=lengths)
        with pytest.raises(ShapeError, match="sequence_lens"):
            load(proto)(X)


def tensor(**fields: Any) -> Any:
    return TensorProto(name="v", **{"data_type": TensorProto.FLOAT, "dims": [2, 3], **fields})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(raw_data=b"123"), r"'v' has shape \(2, 3\) of float32, and 3 bytes"),
        (tensor(float_data=[1.0]), r"'v' has shape \(2, 3\), and 1 values"),
        (tensor(dims=[-2, -3], float_data=[1.0] * 6), "shape"),
        (tensor(dims=[2**40, 2**40]), "bytes"),
        (tensor(dims=[1] * 40, float_data=[1.0]), "shape"),
        (tensor(data_type=TensorProto.STRING, string_data=[b"a"] * 6), "type 8"),
        (tensor(data_type=77), "type 77"),
    ],
)
def test_tensors_that_are_not_whole(value: Any, words: str) -> None:
    model = node_model("Tanh")
    model.graph.initializer[0].CopyFrom(value)
    with pytest.raises(FormatError, match=words):
        load(model)


def test_names_that_mean_something_to_python() -> None:
    names = ["_parameters", "__class__", "forward", "_steps", "_last", ""]
    values = {name: np.array([k], np.int64) for k, name in enumerate(names[:-1])}
    nodes = [helper.make_node("Concat", [*values], ["y"], axis=0)]
    model = load(model_of(nodes, {"x": ONE}, ["y"], values))
    assert model(ONE)["y"].tolist() == [0, 1, 2, 3, 4]
    assert list(model.state_dict()) == names[:-1]
    model.eval()
    assert model(ONE)["y"].shape == (5,)
    with pytest.raises(FormatError, match="'training'"):
        load(model_of(nodes, {"x": ONE}, ["y"], {"training": ONE, **values}))
    with pytest.raises(FormatError, match="no name"):
        load(model_of(nodes, {"x": ONE}, ["y"], {"": ONE, **values}))


def test_names_that_are_no_text() -> None:
    proto, X = recurrent("GRU")
    data = proto.SerializeToString()
    assert data.count(b"unit") == 1
    with pytest.raises(FormatError, match="no text"):
        load(data.replace(b"unit", b"un\xfft"))(X)


def test_names_given_twice() -> None:
    model = node_model("Tanh")
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(FormatError, match="'v' is given twice"):
        load(model)
    model = node_model("Tanh")
    model.graph.input.append(model.graph.input[0])
    with pytest.raises(FormatError, match="two inputs"):
        load(model)
    model = node_model("Tanh")
    model.graph.output.append(model.graph.output[0])
    with pytest.raises(FormatError, match="two outputs"):
        load(model)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(FormatError, match="1099511627776 bytes"):
        load(tmp_path / "m.onnx")
    with pytest.raises(FormatError, match="at most 3"):
        load(b"four", max_bytes=3)


# --- data beside the model --------------------------------------------------------------------------------------


def beside(location: str, **entries: str) -> Any:
    value = tensor(data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **entries}.items():
        value.external_data.add(key=key, value=text)
    model = model_of([helper.make_node("Add", ["x", "v"], ["y"])], {"x": ONE}, ["y"], {})
    model.graph.initializer.append(value)
    return model


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"past" + np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "m.onnx").write_bytes(beside("data.bin", offset="4", length="24").SerializeToString())
    assert load(tmp_path / "m.onnx")(ONE)["y"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("../secret", {}),
        ("inner/../../secret", {}),
        ("/etc/hostname", {}),
        ("link", {}),
        ("", {}),
        (".", {}),
        ("nothing", {}),
        ("with\0zero", {}),
        ("data.bin", {"offset": "-4"}),
        ("data.bin", {"offset": "8"}),
        ("data.bin", {"offset": "many"}),
        ("data.bin", {"length": "23"}),
    ],
)
def test_external_data_elsewhere(tmp_path: Path, location: str, entries: dict[str, str]) -> None:
    folder = tmp_path / "models"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"x" * 24)
    (folder / "data.bin").write_bytes(b"x" * 24)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "m.onnx").write_bytes(beside(location, **entries).SerializeToString())
    with pytest.raises(FormatError, match="'v'"):
        load(folder / "m.onnx")
    with pytest.raises(FormatError, match="path"):
        load(beside(location, **entries))


# --- damaged files ----------------------------------------------------------------------------------------------

WHOLE, EXAMPLE = recurrent("GRU", "bidirectional", lengths=[5, 2, 3])
BYTES = WHOLE.SerializeToString()


def survives(data: bytes) -> None:
    """Read and run what may be anything: it works, or says in one of our errors why not."""
    try:
        model = load(data, max_bytes=2**22, max_elements=10**5)
        with np.errstate(all="ignore"):
            model(EXAMPLE)
    except MinigradError:
        pass


def test_truncated_files() -> None:
    for length in [*range(400), *range(400, len(BYTES), 97)]:
        survives(BYTES[:length])


@given(
    st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    | st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4)
    | st.lists(st.tuples(st.integers(len(BYTES) - 250, len(BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_bytes(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(BYTES)
    for place, byte in changes:
        damaged[place] = byte
    survives(bytes(damaged))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise(data: bytes) -> None:
    survives(data)


# --- what cannot be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proj_size": 3}, "proj_size"),
        ({"layer_norm": True}, "layer_norm"),
        ({"zoneout": (0.1, 0.0)}, "zoneout"),
        ({"cell_clip": 1.0}, "cell_clip"),
        ({"clip": 1.0}, "clip"),
        ({"peepholes": "full"}, 'peepholes="full"'),
        ({"variant": "FGR"}, "FGR"),
        ({"variant": "NIG"}, "NIG"),
        ({"activations": ("sigmoid", "gelu", "tanh")}, "gelu"),
        ({"activations": ("sigmoid", mg.tanh, "tanh")}, "tanh"),
    ],
)
def test_options_that_onnx_has_not(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    model = mg.nn.Sequential(mg.nn.LSTM(2, 7, **options))
    with pytest.raises(UsageError, match=words):
        mg.io.onnx.save(model, tmp_path / "m.onnx", np.ones((5, 3, 2), np.float32))
    assert not list(tmp_path.iterdir())
    # The layer is as it was.
    assert "forward" not in vars(model[0])
    assert model.training
    assert model[0].training


def test_calls_that_onnx_has_not(tmp_path: Path) -> None:
    x = np.ones((5, 3, 2), np.float32)
    for word, function in {
        "return_cells": lambda lstm, x: lstm(x, return_cells=True)[0],
        "mask": lambda lstm, x: lstm(x, mask=np.ones((5, 3)))[0],
    }.items():

        class Model(mg.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = mg.nn.LSTM(2, 7)

            def forward(self, x: Any) -> Any:
                return function(self.lstm, x)  # noqa: B023

        with pytest.raises(UsageError, match=f"lstm: .*{word}"):
            mg.io.onnx.save(Model(), tmp_path / "m.onnx", x)
    with pytest.raises(UsageError, match="operation put"):
        mg.io.onnx.save(lambda x: mg.put(mg.as_tensor(x), (0,), (2, 5, 3, 2)), tmp_path / "m.onnx", x)
    with pytest.raises(UsageError, match="a result is int"):
        mg.io.onnx.save(lambda x: (x, 3), tmp_path / "m.onnx", x)
    with pytest.raises(UsageError, match="name of its own"):
        mg.io.onnx.save(lambda x: (x, x), tmp_path / "m.onnx", x, output_names=["a", "a"])


def test_names_of_inputs_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x, y = np.ones((2, 3), np.float32), np.full((3,), 2, np.float32)
    mg.io.onnx.save(lambda a, b: {"sum": a + b, "a": a}, path, {"a": x, "b": y})
    model = load(path)
    assert (model.inputs, model.outputs) == (("a", "b"), ("sum", "a_1"))
    assert model(b=y, a=x)["sum"].tolist() == [[3.0] * 3] * 2
    assert model(b=y, a=x)["a_1"].tolist() == x.tolist()
    mg.io.onnx.save(lambda a, b: (a + b, [a * b, b]), path, (x, y), output_names=["s", "p", "b2"])
    assert load(path).outputs == ("s", "p", "b2")


def test_parameters_come_back_by_name(tmp_path: Path) -> None:
    model = mg.nn.Sequential(mg.nn.Linear(3, 5), mg.nn.Tanh(), mg.nn.GRU(5, 7, num_layers=2))
    mg.io.onnx.save(model, tmp_path / "m.onnx", np.ones((2, 3, 3), np.float32))
    back = load(tmp_path / "m.onnx")
    assert set(back.state_dict()) == {"0.weight", "0.bias", *(f"2.{w}_l{k}" for w in "WRB" for k in (0, 1))}
    state = {f"{w}": back.state_dict()[f"2.{w}_l0"].numpy() for w in "WRB"}
    again = mg.io.layouts.from_onnx(state, "gru")
    assert all(np.array_equal(v, model.state_dict()[f"2.{name}"].numpy()) for name, v in again.items())
