"""Other libraries' protocols: NumPy's functions on tensors, DLPack, buffers, pickling and copies."""

from __future__ import annotations

import array
import copy
import ctypes
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ops_checks import differences, jacobian_errors, leaves
from ops_samples import draw

import minigrad as mg
from minigrad.errors import DTypeError, GraphError, MinigradError, ShapeError

# --- NumPy's functions ----------------------------------------------------------------------------

UNARY = [
    "negative",
    "reciprocal",
    "square",
    "sqrt",
    "absolute",
    "fabs",
    "sign",
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "sin",
    "cos",
    "isnan",
    "isfinite",
    "logical_not",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "power",
    "float_power",
    "maximum",
    "minimum",
    "matmul",
    "less",
    "less_equal",
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
]
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, z: np.sum(x, axis=0),
    "sum with keepdims": lambda x, z: np.sum(x, axis=(0, 1), keepdims=True),
    "mean": lambda x, z: np.mean(x, axis=1),
    "var": lambda x, z: np.var(x),
    "prod": lambda x, z: np.prod(x, axis=-1),
    "max": lambda x, z: np.max(x, axis=0),
    "amax": lambda x, z: np.amax(x),
    "min": lambda x, z: np.min(x, axis=0),
    "amin": lambda x, z: np.amin(x, axis=1),
    "clip": lambda x, z: np.clip(x, 0.6, 1.5),
    "where": lambda x, z: np.where(np.array([True, False, True]), x, z),
    "reshape": lambda x, z: np.reshape(x, (3, 3)),
    "squeeze": lambda x, z: np.squeeze(np.expand_dims(x, 0), axis=0),
    "broadcast_to": lambda x, z: np.broadcast_to(x, (2, 3, 3)),
    "concatenate": lambda x, z: np.concatenate([x, z], axis=1),
    "concat": lambda x, z: np.concat([x, z]),
    "stack": lambda x, z: np.stack([x, z], axis=-1),
    "flip": lambda x, z: np.flip(x, axis=1),
    "cumsum": lambda x, z: np.cumsum(x, axis=0),
    "transpose": lambda x, z: np.transpose(x),
    "transpose by axes": lambda x, z: np.transpose(x, (1, 0)),
    "permute_dims": lambda x, z: np.permute_dims(x, (1, 0)),
    "matrix_transpose": lambda x, z: np.matrix_transpose(x),
    "swapaxes": lambda x, z: np.swapaxes(x, 0, 1),
    "moveaxis": lambda x, z: np.moveaxis(x, 0, 1),
    "einsum": lambda x, z: np.einsum("ij,kj->ik", x, z),
    "dot": lambda x, z: np.dot(x, z),
    "pad": lambda x, z: np.pad(x, ((1, 0), (0, 2)), constant_values=2.5),
    "copy": lambda x, z: np.copy(x),
    "argmax": lambda x, z: np.argmax(x, axis=1),
    "argmin": lambda x, z: np.argmin(x),
}
CALLS = {
    **{name: lambda x, z, name=name: getattr(np, name)(x) for name in UNARY},
    **{name: lambda x, z, name=name: getattr(np, name)(x, z) for name in BINARY},
    **FUNCTIONS,
}


@pytest.mark.parametrize("name", CALLS)
def test_numpy_functions_work_on_tensors_and_are_recorded(name: str) -> None:
    x, z = draw(f"interop {name}", [(3, 3), (3, 3)], (0.5, 2.0))
    want = CALLS[name](x, z)
    for operands in (leaves([x, z]), [mg.tensor(x, requires_grad=True), z]):
        got = CALLS[name](*operands)
        assert isinstance(got, mg.Tensor)
        assert got.dtype == want.dtype
        assert got.requires_grad == (want.dtype.kind == "f")
        assert not differences(name, got.numpy(), want, 1e-13)
    if want.dtype.kind == "f":
        assert not jacobian_errors(name, CALLS[name], [x, z], 1e-8)


def test_numpy_asks_for_shapes() -> None:
    x = mg.tensor(np.ones((2, 3)), requires_grad=True)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)
    assert np.zeros_like(x).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert np.ones_like(x).dtype == "float64"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: np.fft.fft(x), ["np.fft", r"\.detach\(\)\.numpy\(\)"]),
        (lambda x: np.arctan2(x, x), ["np.arctan2", r"\.detach\(\)\.numpy\(\)"]),
        (lambda x: np.linalg.inv(x), ["np.inv|np.linalg.inv", r"\.detach\(\)\.numpy\(\)"]),
        (lambda x: np.median(x), ["np.median", r"\.detach\(\)\.numpy\(\)"]),
        (lambda x: np.tan(x), ["np.tan", r"mg\.tanh"]),
        (lambda x: np.exp2(x), ["np.exp2", r"mg\.exp"]),
        (lambda x: np.nansum(x), ["np.nansum", r"mg\.sum"]),
        (lambda x: np.add.reduce(x), ["np.add", "reduce"]),
        (lambda x: np.add(x, x, out=np.ones((2, 2))), ["np.add", "into an array", "detach"]),
        (lambda x: np.tanh(x, where=np.array([True, False])), ["np.tanh", "where="]),
        (lambda x: np.add.outer(x, x), ["np.add", "outer"]),
    ],
)
def test_numpy_functions_without_a_record_name_what_to_use(call: Callable[[Any], Any], words: list[str]) -> None:
    x = mg.tensor(np.ones((2, 2)), requires_grad=True)
    for word in words:
        with pytest.raises(TypeError, match=word):
            call(x)


def test_dot_is_the_matrix_product_where_numpy_means_that() -> None:
    a, b = draw("dot", [(2, 3, 5), (5, 7)])
    assert not differences("dot", np.dot(mg.tensor(a), mg.tensor(b)).numpy(), np.dot(a, b), 1e-13)
    assert not differences("dot", np.dot(mg.tensor(b), 2.5).numpy(), b * 2.5, 0)
    with pytest.raises(MinigradError, match="einsum"):
        np.dot(mg.tensor(b.T), mg.tensor(a.swapaxes(1, 2)))


def test_numpy_padding_has_one_mode() -> None:
    with pytest.raises(MinigradError, match="constant"):
        np.pad(mg.tensor([1.0]), 1, mode="reflect")


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "@": lambda a, b: a @ b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.parametrize("sign", OPERATORS)
def test_operators_with_arrays_on_either_side(sign: str) -> None:
    x, z = draw(f"operators {sign}", [(3, 3), (3, 3)], (0.5, 2.0))
    want = OPERATORS[sign](x, z)
    for operands in ((mg.tensor(x), z), (x, mg.tensor(z)), (mg.tensor(x), mg.tensor(z))):
        got = OPERATORS[sign](*operands)
        assert isinstance(got, mg.Tensor)
        assert not differences(sign, got.numpy(), want, 1e-13)


def test_augmented_assignment_of_an_array_makes_a_tensor_or_fails_loudly() -> None:
    x = mg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    data = np.array([3.0, 4.0])
    with pytest.raises(TypeError):
        data += x
    assert data.tolist() == [3, 4]


# --- arrays out -----------------------------------------------------------------------------------


def test_arrays_out() -> None:
    x = mg.tensor([[1.5, -2.0]])
    assert np.asarray(x).tolist() == [[1.5, -2]]
    assert np.array(x, dtype="float64").dtype == "float64"
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert not np.shares_memory(np.array(x), x.numpy())


def test_a_gradient_is_never_lost_silently() -> None:
    x = mg.tensor([1.5, -2.0], requires_grad=True)
    for y in (x, x * 2):
        with pytest.raises(GraphError, match=r"\.detach\(\)\.numpy\(\)"):
            np.asarray(y)
        with pytest.raises(GraphError, match=r"detach"):
            np.from_dlpack(y)
    with mg.no_grad():
        assert np.asarray(x).tolist() == [1.5, -2]
    assert np.asarray(x.detach()).tolist() == [1.5, -2]


def test_numbers_out() -> None:
    x = mg.tensor([[2.5]], requires_grad=True)
    assert (float(x), int(x), bool(x), x.item(), f"{x:.2f}") == (2.5, 2, True, 2.5, "2.50")
    assert list(range(4))[mg.tensor(2)] == 2
    for call in (float, int, bool, lambda t: t.item()):
        with pytest.raises(ShapeError, match=r"\(2,\)"):
            call(mg.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="float32 is no index"):
        list(range(4))[mg.tensor(2.0)]


# --- DLPack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_dlpack_to_and_from_numpy_shares_memory(dtype: str) -> None:
    source = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    x = mg.from_dlpack(source)
    assert isinstance(x, mg.Tensor)
    assert np.shares_memory(x.numpy(), source)
    back = np.from_dlpack(x)
    assert back.dtype == dtype
    assert np.shares_memory(back, source)
    assert mg.from_dlpack(x).tolist() == source.tolist()
    assert x.__dlpack_device__() == (1, 0)


def test_dlpack_of_a_transposed_tensor() -> None:
    x = mg.from_numpy(np.arange(6.0).reshape(2, 3)).mT
    assert np.from_dlpack(x).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.needs("torch")
def test_dlpack_to_and_from_torch_shares_memory() -> None:
    torch = pytest.importorskip("torch", reason="could not import 'torch'")
    theirs = torch.arange(6.0).reshape(2, 3)
    ours = mg.from_dlpack(theirs)
    theirs[0, 1] = 40
    assert ours.tolist() == [[0, 40, 2], [3, 4, 5]]
    again = torch.from_dlpack(ours)
    again[1, 2] = 50
    assert ours.tolist() == [[0, 40, 2], [3, 4, 50]]


def test_dlpack_of_element_types_of_no_use_is_refused() -> None:
    with pytest.raises(DTypeError, match="complex64"):
        mg.from_dlpack(np.ones(3, "complex64"))


# --- buffers in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buffer", "dtype", "values"),
    [
        (array.array("d", [1.5, -2.0]), "float64", [1.5, -2]),
        (array.array("f", [1.5, -2.0]), "float32", [1.5, -2]),
        (array.array("q", [3, -4]), "int64", [3, -4]),
        (memoryview(array.array("d", [1.5, -2.0])), "float64", [1.5, -2]),
        (memoryview(array.array("d", [1.0, 2.0, 3.0, 4.0]))[::2], "float64", [1, 3]),
        (memoryview(np.array([[1.0], [2.0]], "float32")), "float32", [[1], [2]]),
        (memoryview(b"\x01\xff"), "uint8", [1, 255]),
        (bytearray(b"\x01\xff"), "uint8", [1, 255]),
        ((ctypes.c_double * 2)(1.5, -2.0), "float64", [1.5, -2]),
        (np.float32(1.5), "float32", 1.5),
        (np.array([1.5, -2.0], ">f8"), "float64", [1.5, -2]),
        ([np.float64(1.5), mg.tensor(-2.0)], "float32", [1.5, -2]),
        ((1, 2.5), "float32", [1, 2.5]),
        (range(3), "int64", [0, 1, 2]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_buffers_in(buffer: Any, dtype: str, values: Any) -> None:
    x = mg.tensor(buffer)
    assert x.dtype == dtype
    assert x.dtype.isnative
    assert x.tolist() == values


def test_tensor_copies_and_from_numpy_shares() -> None:
    data = np.array([1.0, 2.0])
    copied, shared, as_is = mg.tensor(data), mg.from_numpy(data), mg.as_tensor(data)
    data[0] = 9
    assert [copied.tolist(), shared.tolist(), as_is.tolist()] == [[1, 2], [9, 2], [9, 2]]
    with pytest.raises(DTypeError, match="list"):
        mg.from_numpy([1.0])


@pytest.mark.parametrize("data", [b"\x01\xff", "words", [[1.0], [1.0, 2.0]], {"a": 1}, None, object(), [None]])
def test_what_is_no_array_is_refused(data: Any) -> None:
    with pytest.raises(MinigradError):
        mg.tensor(data)


# --- pickles and copies ---------------------------------------------------------------------------


def through_pickle(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("dtype", ["float16", "complex64", "U3", "object"])
@pytest.mark.parametrize("door", [mg.from_numpy, mg.as_tensor, mg.tensor])
def test_every_door_refuses_element_types_of_no_use(door: Callable[[Any], Any], dtype: str) -> None:
    with pytest.raises(DTypeError, match="float32, float64, integers and booleans"):
        door(np.zeros(3, dtype))


@pytest.mark.parametrize("duplicate", [through_pickle, copy.deepcopy])
def test_leaves_survive_pickling_and_copying(duplicate: Callable[[Any], Any]) -> None:
    x = mg.tensor([1.5, -2.0], requires_grad=True, name="weight")
    n = mg.tensor([1, 2])
    x2, n2, again = duplicate([x, n, x])
    assert again is x2
    assert (x2.tolist(), x2.dtype, x2.name, x2.requires_grad) == ([1.5, -2], np.dtype("float32"), "weight", True)
    assert (n2.tolist(), n2.requires_grad) == ([1, 2], False)
    assert not np.shares_memory(x2.numpy(), x.numpy())
    (x2 * x2).sum().backward()
    assert x2.grad.tolist() == [3, -4]
    assert x.grad is None


@pytest.mark.parametrize("duplicate", [through_pickle, copy.deepcopy])
def test_results_of_operations_are_not_copied_with_their_graph(duplicate: Callable[[Any], Any]) -> None:
    y = mg.tensor([1.5], requires_grad=True) * 2
    with pytest.raises(GraphError, match=r"detach\(\)"):
        duplicate(y)
    assert duplicate(y.detach()).tolist() == [3]


def test_records_survive_pickling() -> None:
    assert through_pickle(mg.tanh) is mg.tanh
    assert copy.deepcopy(mg.matmul) is mg.matmul
