"""Calls that cannot be carried out: an error of minigrad's own, which says what is wanted, and nothing is changed."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import losses, nn, optim
from minigrad.errors import DTypeError, MinigradError, ShapeError, UsageError

STATE = {"state": {}, "param_groups": []}


def weight():
    return mg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


CALLS = {
    # in place
    "add_ shape": (lambda: mg.tensor([1.0, 2.0]).add_(mg.ones(7)), ShapeError, "broadcast"),
    "add_ float to integers": (lambda: mg.tensor([1, 2]).add_(1.5), DTypeError, "int64"),
    "div_ of integers": (lambda: mg.tensor([1, 2]).div_(2), DTypeError, "int64"),
    "mul_ text": (lambda: mg.tensor([1.0, 2.0]).mul_("a"), DTypeError, "changed in place"),
    "item None": (lambda: mg.tensor([1.0, 2.0]).__setitem__(0, None), MinigradError, "None"),
    # element types
    "to": (lambda: weight().to("foo"), DTypeError, "'foo' is no element type"),
    "to number": (lambda: weight().to(5), DTypeError, "5 is no element type"),
    "to None": (lambda: weight().to(None), DTypeError, "None is no element type"),
    "astype": (lambda: weight().astype("complex64"), DTypeError, "float32, float64, integers and booleans"),
    "tensor dtype": (lambda: mg.tensor([1.0], dtype="foo"), DTypeError, "foo"),
    "tensor text": (lambda: mg.tensor(["a"], dtype="float32"), DTypeError, "cannot make a tensor"),
    "zeros dtype": (lambda: mg.zeros(2, dtype="foo"), DTypeError, "foo"),
    "zeros half": (lambda: mg.zeros(2, dtype="float16"), DTypeError, "float16"),
    "integers with gradient": (
        lambda: mg.zeros(2, dtype="int64", requires_grad=True),
        DTypeError,
        "only floating tensors have gradients",
    ),
    "full text": (lambda: mg.full((2,), "a"), DTypeError, "one number"),
    "random integers": (lambda: mg.rand(2, dtype="int64"), DTypeError, "draws floats"),
    "default dtype": (lambda: mg.set_default_dtype("foo"), DTypeError, "foo"),
    "Linear dtype": (lambda: nn.Linear(3, 5, dtype="int32"), DTypeError, "float32 or float64"),
    "module dtype": (lambda: nn.Linear(3, 5).to("foo"), DTypeError, "foo"),
    "dlpack": (lambda: mg.from_dlpack(5), DTypeError, "DLPack"),
    # shapes
    "zeros": (lambda: mg.zeros(-1), ShapeError, "integers from 0 on"),
    "ones": (lambda: mg.ones("a"), ShapeError, "integers from 0 on"),
    "expand": (lambda: weight().expand(3), ShapeError, "more axes"),
    "axis of a scalar": (lambda: mg.tensor(2.0).sum(0), ShapeError, "axis 0 of an array with 0 axes"),
    "axis of a norm": (lambda: mg.norm(mg.tensor(2.0), axis=-1), ShapeError, "axis -1"),
    "axis of a maximum": (lambda: mg.max(mg.tensor(2.0), axis=(0,)), ShapeError, "axis 0"),
    # arguments
    "norm axis": (lambda: mg.norm(weight(), (0, 1)), UsageError, "axis="),
    "split": (lambda: mg.split(weight(), "a"), UsageError, "a list of sizes"),
    "chunk": (lambda: mg.chunk(weight(), 0), UsageError, "positive integer"),
    "seed text": (lambda: mg.manual_seed("a"), UsageError, "integer"),
    "seed": (lambda: mg.manual_seed(-1), UsageError, "-1"),
    "detail": (lambda: mg.Tape(detail="layer"), UsageError, "'ops', 'cells' or 'layers', not 'layer'"),
    "scope": (lambda: mg.scope(5), UsageError, "5"),
    "hook": (lambda: weight().register_hook(5), UsageError, "function"),
    "argnums": (lambda: mg.grad(mg.tanh, argnums="a")(1.0), UsageError, "argnums"),
    "hvp": (lambda: mg.hvp(mg.tanh, 1.0, 1.0), UsageError, r"hvp\(f, \(x,\), \(t,\)\)"),
    "checkpoint": (lambda: mg.checkpoint(5, weight()), UsageError, "not a function"),
    "checkpoint result": (lambda: mg.checkpoint(lambda x: 5, weight()), MinigradError, "returned int"),
    # layers
    "Dropout": (lambda: nn.Dropout("a"), UsageError, "probability"),
    "forget_bias": (lambda: nn.LSTM(3, 5, forget_bias="a"), UsageError, "forget_bias"),
    "clip": (lambda: nn.LSTM(3, 5, clip="a"), UsageError, "clip"),
    "register_parameter": (lambda: nn.Linear(3, 5).register_parameter("a", 5), UsageError, "Parameter or None"),
    "clip_grad_norm_": (lambda: nn.clip_grad_norm_([weight()], -1), UsageError, "at least 0"),
    "clip_grad_norm_ of": (lambda: nn.clip_grad_norm_(5, 1), UsageError, "list"),
    "clip_grad_value_": (lambda: nn.clip_grad_value_([weight()], "a"), UsageError, "at least 0"),
    # optimisers
    "lr": (lambda: optim.Adam([weight()], lr="a"), UsageError, "lr='a' is no number from 0 on"),
    "lr None": (lambda: optim.SGD([weight()], lr=None), UsageError, "lr"),
    "lr NaN": (lambda: optim.SGD([weight()], lr=float("nan")), UsageError, "lr"),
    "dampening": (lambda: optim.SGD([weight()], dampening="a"), UsageError, "dampening"),
    "betas": (lambda: optim.Adam([weight()], betas=0.9), UsageError, "not two numbers"),
    "one beta": (lambda: optim.Adam([weight()], betas=(0.9,)), UsageError, "not two numbers"),
    "beta text": (lambda: optim.Adam([weight()], betas=("a", 0.9)), UsageError, "not two numbers"),
    "no list": (lambda: optim.Adam(5), UsageError, "list of parameters"),
    "group": (lambda: optim.Adam([{"param": [weight()]}]), UsageError, '"params"'),
    "params of a group": (lambda: optim.Adam([{"params": 5}]), UsageError, '"params"'),
    "state": (lambda: optim.Adam([weight()]).load_state_dict({}), UsageError, "state_dict"),
    "state number": (lambda: optim.Adam([weight()]).load_state_dict(5), UsageError, "state_dict"),
    "state groups": (lambda: optim.Adam([weight()]).load_state_dict(STATE), UsageError, "groups"),
    "max_norm": (lambda: optim.Adam([weight()]).step(max_norm="a"), UsageError, "max_norm"),
    "closure": (lambda: optim.Adam([weight()]).step(5), UsageError, "function"),
    # losses
    "class weights": (
        lambda: losses.cross_entropy(weight(), mg.tensor([0, 1]), weight="a"),
        UsageError,
        "one number for each class",
    ),
    "label_smoothing": (
        lambda: losses.cross_entropy(weight(), mg.tensor([0, 1]), label_smoothing=2),
        UsageError,
        "from 0 to 1",
    ),
    # explanations
    "bptt": (lambda: mg.explain.bptt(5, weight()), UsageError, "not int"),
    "flow": (lambda: mg.explain.flow(weight().sum(), 5), UsageError, "with mg.Tape"),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_error_says_what_is_wanted(call):
    run, kind, words = CALLS[call]
    with pytest.raises(kind, match=words) as caught:
        run()
    assert isinstance(caught.value, MinigradError)


def test_a_refused_change_leaves_the_tensor_as_it_was():
    x = mg.tensor([1.0, 2.0])
    for bad in (mg.ones(7), "a", mg.ones(2, dtype="float64")):
        with pytest.raises(MinigradError):
            x.add_(bad)
    assert x.tolist() == [1.0, 2.0]
    assert x.version == 0


def test_dtypes_in_other_words():
    assert mg.zeros(2, dtype=">f8").dtype == np.dtype("float64")
    assert mg.zeros(2, dtype=">f8").dtype.isnative
    assert mg.zeros(2, dtype=float).dtype == np.float64
    assert mg.tensor([1.5], dtype=np.int32).tolist() == [1]


def test_sizes_may_be_numpy_integers():
    parts = mg.split(mg.tensor([1.0, 2.0, 3.0]), np.int64(2))
    assert [p.tolist() for p in parts] == [[1.0, 2.0], [3.0]]
    assert [p.tolist() for p in mg.chunk(mg.tensor([1.0, 2.0, 3.0]), np.int64(2))] == [[1.0, 2.0], [3.0]]


def test_jacobians_by_nothing_are_empty():
    for mode in ("reverse", "forward"):
        assert mg.jacobian(mg.tanh, mode=mode)(np.zeros((0, 2))).shape == (0, 2, 0, 2)
        assert mg.jacobian(lambda x: x.sum() * mg.ones(3, dtype="float64"), mode=mode)(np.zeros(0)).shape == (3, 0)
