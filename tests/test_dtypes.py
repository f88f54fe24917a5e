"""Element types: what goes in comes out, nothing changes silently, and numbers adapt to tensors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ops_checks import LANES, differences, filled, lane, leaves
from ops_samples import ELEMENTWISE, samples

import minigrad as mg
from minigrad import _core
from minigrad.errors import DTypeError, GraphError
from minigrad.op import PAGE

RECORDS = list(PAGE.records)
SMOOTH = [name for name in RECORDS if PAGE.records[name].rules or PAGE.records[name].vjp]
DTYPES = ["float32", "float64"]


@pytest.fixture(params=LANES, autouse=True)
def on_lane(request: pytest.FixtureRequest) -> Iterator[str]:
    with lane(request.param), np.errstate(all="ignore"):
        yield request.param


@pytest.fixture(params=DTYPES)
def default(request: pytest.FixtureRequest) -> Iterator[str]:
    before = mg.get_default_dtype()
    mg.set_default_dtype(request.param)
    yield request.param
    mg.set_default_dtype(before)


# --- floats stay what they are --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "astype"])
def test_values_gradients_and_tangents_keep_the_dtype(name: str, dtype: str, default: str) -> None:
    for one in samples(name):
        places = leaves([x.astype(dtype) for x in one.inputs])
        y = one.cast(dtype)(*places)
        assert y.dtype == dtype, str(one)
        recorded = _core.sweep([y], [mg.ones_like(y)], places, True, True)
        (tangent,) = _core.push(places, [mg.ones_like(x) for x in places], [y])
        plain = _core.sweep([y], [mg.ones_like(y)], places, False, False)
        assert {part.dtype.name for part in (*filled(recorded, places), *filled(plain, places), tangent)} == {dtype}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_of_the_operands_has_its_own_dtype(dtype: str) -> None:
    x = mg.tensor(np.array([[1.0, -2.0]], dtype))
    for name in ("less", "less_equal", "equal", "not_equal", "greater", "greater_equal"):
        assert PAGE.records[name](x, 0).dtype == bool
    assert {mg.isnan(x).dtype, mg.isfinite(x).dtype, mg.logical_not(x).dtype} == {np.dtype(bool)}
    assert {mg.argmax(x).dtype, mg.argmin(x, axis=1).dtype} == {np.dtype("int64")}


# --- two floating dtypes --------------------------------------------------------------------------

MIXED = [name for name in SMOOTH if any(len(one.moving) > 1 for one in samples(name))]


@pytest.mark.parametrize("name", MIXED)
def test_two_floating_dtypes_are_an_error_that_names_the_cast(name: str) -> None:
    one = next(one for one in samples(name) if len(one.moving) > 1)
    for first, others in (("float32", "float64"), ("float64", "float32")):
        xs = [mg.tensor(x.astype(others if k else first)) for k, x in enumerate(one.inputs)]
        with pytest.raises(DTypeError, match=rf'{name}\(.*{first} and of {others}.*\.to\("{first}"\)'):
            one(*xs)


def test_a_zero_dimensional_array_is_an_array() -> None:
    with pytest.raises(DTypeError, match="float32 and of float64"):
        mg.tensor([1.0, 2.0]) * np.array(2.0)


def test_a_condition_may_have_any_dtype() -> None:
    x = mg.tensor(np.array([1.0, 2.0, 3.0], "float32"), requires_grad=True)
    for condition in (np.array([0.0, 0.5, 2.0]), np.array([0, 1, 2]), [False, True, True]):
        y = mg.where(condition, x, -x)
        assert y.dtype == "float32"
        assert y.tolist() == [-1, 2, 3]
        (gradient,) = _core.sweep([y], [mg.ones_like(y)], [x], False, True)
        assert gradient.tolist() == [-1, 1, 1]


def test_a_gradient_of_another_dtype_is_refused() -> None:
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(DTypeError, match="float64"):
        (x * x).backward(mg.tensor(np.ones(2)))


# --- numbers --------------------------------------------------------------------------------------

NUMBERS = [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2), np.int8(2), np.bool_(True)]
TWO = ["add", "sub", "mul", "div", "pow", "maximum", "minimum"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TWO)
def test_numbers_adapt_to_floats(name: str, dtype: str, number: Any) -> None:
    x = np.array([[0.5, 1.5, 3.0]], dtype)
    for operands in ((x, number), (number, x)):
        y = PAGE.records[name](*(mg.tensor(a, requires_grad=True) if a is x else a for a in operands))
        want = ELEMENTWISE[name](*(np.asarray(a, "float64") for a in operands))
        assert y.dtype == dtype
        assert not differences(name, y.numpy(), want, 8 * np.finfo(dtype).eps * np.abs(want))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_adapt_to_floats_in_operators(dtype: str, number: Any, default: str) -> None:
    x = mg.tensor(np.array([0.5, 1.5], dtype), requires_grad=True)
    results = [x + number, number + x, x - number, number - x, x * number, number * x]
    results += [x / number, number / x, x**number, number**x, mg.where([True, False], x, number)]
    assert {type(y) for y in results} == {mg.Tensor}
    assert {y.dtype.name for y in results} == {dtype}
    sum(results[1:], results[0]).sum().backward()
    assert x.grad.dtype == dtype


def test_a_number_that_float32_cannot_hold_exactly_is_rounded_once() -> None:
    x = mg.tensor(np.array([1.0], "float32"))
    assert (x * 0.1).item() == np.float32(0.1)
    assert (x + 2**70).item() == 2.0**70
    assert np.isinf((x * 1e300).item())


# --- integers and booleans ------------------------------------------------------------------------


FROM_INTEGERS = [name for name in SMOOTH if name not in ("astype", "clip", "pad")]


@pytest.mark.parametrize("name", FROM_INTEGERS)
def test_integers_stay_integers_where_they_can_and_become_the_default_dtype_elsewhere(name: str, default: str) -> None:
    for one in samples(name):
        whole = [np.abs(np.rint(3 * x)) + 1 if k in one.moving else x for k, x in enumerate(one.operands)]
        want = one.op(*whole, **one.params).numpy()
        y = one.op(*(x.astype("int64") if k in one.moving else x for k, x in enumerate(whole)), **one.params)
        assert y.dtype == (default if one.op.floats else "int64"), str(one)
        assert not differences(str(one), y.numpy(), want, 1e-6 * np.abs(want).max(initial=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MIXED)
def test_integers_beside_floats_take_their_dtype(name: str, dtype: str) -> None:
    one = next(one for one in samples(name) if len(one.moving) > 1)
    for place in one.moving:
        operands = [
            x if k not in one.moving else np.abs(np.rint(x)).astype("int32") + 1 if k == place else x.astype(dtype)
            for k, x in enumerate(one.operands)
        ]
        floats = [x.astype(dtype) if k in one.moving else x for k, x in enumerate(operands)]
        y = one.op(*operands, **one.params)
        assert y.dtype == dtype
        assert not differences(name, y.numpy(), one.op(*floats, **one.params).numpy(), 0)


def test_gradients_pass_an_integer_operand_by() -> None:
    x = mg.tensor([1.5, 2.5], requires_grad=True)
    n = mg.tensor([3, 4])
    y = x * n + n
    assert n.dtype == "int64"
    y.sum().backward()
    assert x.grad.tolist() == [3, 4]
    assert n.grad is None


def test_arithmetic_of_integers_and_booleans() -> None:
    n, b = mg.tensor([3, -4]), mg.tensor([True, False])
    small = mg.tensor(np.array([3, -4], "int8"))
    assert [(n + b).dtype, (n * 2).dtype, (small + small).dtype, (small + 1).dtype, (small + n).dtype] == [
        "int64",
        "int64",
        "int8",
        "int8",
        "int64",
    ]
    assert (n + b).tolist() == [4, -4]
    assert (n * 2).tolist() == [6, -8]
    assert (b + 1).tolist() == [2, 1]
    assert [mg.sum(b).item(), mg.sum(n).item(), mg.max(n).item()] == [1, -1, 3]
    assert mg.relu(n).tolist() == [3, 0]
    assert mg.relu(n).dtype == "int64"


def test_integers_become_the_default_dtype_where_floats_are_needed(default: str) -> None:
    n, b = mg.tensor([3, -4]), mg.tensor([True, False])
    results = [n / 2, n / n, n + 0.5, 2.5 * n, mg.tanh(n), mg.exp(b), mg.mean(n), mg.softmax(n), n * np.float64(0.5)]
    assert {y.dtype.name for y in results} == {default}
    assert (n / 2).tolist() == [1.5, -2]


@pytest.mark.parametrize("bounds", [{"low": -1, "high": 2}, {"low": -1}, {"high": 2}])
def test_clip_of_integers(bounds: dict[str, int]) -> None:
    y = mg.clip(mg.tensor([-5, 0, 5]), **bounds)
    assert y.dtype == "int64"
    assert y.tolist() == np.clip([-5, 0, 5], bounds.get("low"), bounds.get("high")).tolist()


def test_clip_of_integers_takes_whole_bounds() -> None:
    y = mg.clip(mg.tensor(np.array([-5, 0, 5], "int8")), low=-2.0, high=1000)
    assert y.dtype == "int8"
    assert y.tolist() == [-2, 0, 5]
    for bound in (-1.5, -np.inf):
        with pytest.raises(DTypeError, match=rf'held at {bound}: convert.*\.to\("float32"\)'):
            mg.clip(mg.tensor([-5, 0, 5]), low=bound)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_do_not_lend_their_dtype(dtype: str) -> None:
    x = mg.tensor(np.array([0.5, -2.0], dtype), requires_grad=True)
    for kind in (np.float32, np.float64, np.int64):
        number = kind(1)
        results = [mg.clip(x, low=number), mg.leaky_relu(x, slope=number), mg.elu(x, alpha=number)]
        results += [mg.pad(x, 1, number), mg.var(x, correction=number), mg.norm(x, ord=kind(3))]
        for y in results:
            assert y.dtype == dtype
            (gradient,) = _core.sweep([y], [mg.ones_like(y)], [x], True, True)
            assert gradient.dtype == dtype


def test_padding_of_integers() -> None:
    y = mg.pad(mg.tensor([1, 2]), (1, 0), 7)
    assert y.dtype == "int64"
    assert y.tolist() == [7, 1, 2]
    with pytest.raises(DTypeError, match=r"int64 cannot hold the value 0\.5"):
        mg.pad(mg.tensor([1, 2]), 1, 0.5)


def test_integers_and_booleans_have_no_gradients() -> None:
    for data in (np.array([1, 2]), np.array([True])):
        with pytest.raises(DTypeError, match="only floating tensors have gradients"):
            mg.tensor(data, requires_grad=True)
        with pytest.raises(DTypeError, match="only floating tensors have gradients"):
            mg.tensor(data).requires_grad_()
    with pytest.raises(DTypeError, match="bool"):
        -mg.tensor([True])


@pytest.mark.parametrize("dtype", ["float16", "complex64", "complex128", "longdouble", "object", "datetime64[s]", "U3"])
def test_element_types_of_no_use_are_refused_by_name(dtype: str) -> None:
    array = np.zeros(3, dtype)
    with pytest.raises(DTypeError, match=str(array.dtype).partition("[")[0].replace("<", "")):
        mg.tensor(array)
    with pytest.raises(DTypeError):
        mg.tensor([1.0]) + array


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "int64"])
def test_indices_of_every_integer_type(dtype: str) -> None:
    index = np.array([2, 0, 2], dtype)
    weight = mg.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    for y in (weight[index], mg.embedding(weight, index)):
        assert y.tolist() == [[4, 5], [0, 1], [4, 5]]
        (gradient,) = _core.sweep([y], [mg.ones_like(y)], [weight], False, True)
        assert gradient.tolist() == [[1, 1], [0, 0], [2, 2]]
    x = mg.tensor(np.eye(3))
    assert mg.losses.cross_entropy(x, index, reduction="sum").shape == ()


def test_indices_and_classes_are_integers() -> None:
    weight, x = mg.tensor(np.ones((3, 2))), mg.tensor(np.eye(3))
    with pytest.raises(DTypeError, match="integers"):
        mg.embedding(weight, np.array([0.0, 1.0]))
    with pytest.raises(mg.errors.MinigradError, match="integers"):
        mg.losses.cross_entropy(x, np.array([0.0, 1.0, 2.0]))


# --- conversions ----------------------------------------------------------------------------------


def test_a_gradient_comes_back_in_the_dtype_of_its_operand() -> None:
    x = mg.tensor(np.array([1.5, -0.5], "float32"), requires_grad=True)
    y = (x.double() ** 3).sum()
    assert y.dtype == "float64"
    (first,) = _core.sweep([y], [mg.ones_like(y)], [x], True, True)
    (second,) = _core.sweep([first], [mg.ones_like(first)], [x], False, True)
    assert [first.dtype, second.dtype] == ["float32", "float32"]
    assert first.tolist() == [6.75, 0.75]
    assert second.tolist() == [9.0, -3.0]
    (tangent,) = _core.push([x], [mg.tensor(np.array([1.0, 2.0], "float32"))], [y])
    assert tangent.dtype == "float64"
    assert tangent.item() == 8.25


def test_conversion_to_integers_ends_the_graph() -> None:
    x = mg.tensor([1.5, -0.5], requires_grad=True)
    assert not x.long().requires_grad
    assert x.to("float32") is x
    with pytest.raises(DTypeError, match="float16"):
        x.to("float16")
    with pytest.raises(GraphError):
        x.long().backward(mg.tensor([1, 1]))


def test_default_dtype_of_lists_and_numbers(default: str) -> None:
    assert mg.tensor([1.0, 2.0]).dtype == default
    assert mg.tensor(1.0).dtype == default
    assert mg.tensor([1, 2]).dtype == "int64"
    assert mg.tensor([1, 2], requires_grad=True).dtype == default
    assert mg.tensor([True]).dtype == bool
    assert mg.zeros(2, 3).dtype == default
    assert mg.randn(2).dtype == default
    assert mg.tensor(np.ones(2)).dtype == "float64"
    assert mg.tensor(np.ones(2, "float32")).dtype == "float32"
    assert mg.tensor([1.0], dtype="float64").dtype == "float64"
    with pytest.raises(DTypeError, match="float32 or float64, not float16"):
        mg.set_default_dtype("float16")
    assert mg.get_default_dtype() == default
