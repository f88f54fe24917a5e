"""The records of the page against PyTorch in double precision: values and gradients of every sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import pytest
from ops_checks import LANES, differences, lane, leaves
from ops_samples import CHOICES, CLASS_WEIGHTS, TARGETS, Array, Sample, draw, normal_axes, sample, samples

import minigrad as mg
from minigrad.op import PAGE

torch = pytest.importorskip("torch", reason="could not import 'torch'")
F = torch.nn.functional
pytestmark = pytest.mark.needs("torch")


def dims(x: Any, axis: Any) -> tuple[int, ...]:
    return normal_axes(axis, x.ndim)


def part(x: Any, index: Any) -> Any:
    """Index as NumPy does; PyTorch has no negative steps, so the axis is turned first."""
    parts = index if isinstance(index, tuple) else (index,)
    if isinstance(parts[0], slice) and (parts[0].step or 1) < 0:
        return part(x.flip(0), (slice(None, None, -parts[0].step), *parts[1:]))
    return x[tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in parts)]


def expand_dims(x: Any, axis: Any) -> Any:
    axes = axis if isinstance(axis, tuple) else (axis,)
    ndim = x.ndim + len(axes)
    return reduce(torch.unsqueeze, sorted(a % ndim for a in axes), x)


def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return reduce(lambda y, d: y.prod(d, keepdim=keepdims), sorted(dims(x, axis), reverse=True), x)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    return F.log_softmax(x, axis) if isinstance(axis, int) else x - x.logsumexp(axis, keepdim=True)


def pad(x: Any, widths: Any, value: float = 0.0) -> Any:
    pairs = np.broadcast_to(widths, (x.ndim, 2))[::-1]
    return F.pad(x, pairs.ravel().tolist(), value=value)


def cross_entropy(x: Any, target: Any, weight: Any = None, **params: Any) -> Any:
    return F.cross_entropy(x, target, None if weight is None else torch.from_numpy(weight), **params)


TWINS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(torch, name)
        for name in [
            "add",
            "sub",
            "mul",
            "div",
            "pow",
            "clone",
            "neg",
            "reciprocal",
            "square",
            "sqrt",
            "rsqrt",
            "abs",
            "sign",
            "exp",
            "expm1",
            "log",
            "log1p",
            "tanh",
            "sigmoid",
            "relu",
            "sin",
            "cos",
            "erf",
            "maximum",
            "minimum",
            "matmul",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
            "not_equal",
            "isnan",
            "isfinite",
            "logical_not",
        ]
    },
    "equal": torch.eq,
    "where": lambda condition, a, b: torch.where(condition != 0, a, b),
    "softplus": F.softplus,
    "leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "thresholded_relu": lambda x, alpha: F.threshold(x, alpha, 0.0),
    "hard_sigmoid": lambda x, alpha, beta: F.hardtanh(alpha * x + beta, 0.0, 1.0),
    "softsign": F.softsign,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "silu": F.silu,
    "gelu": F.gelu,
    "clip": lambda x, low=None, high=None: x.clamp(low, high),
    "reshape": lambda x, shape: x.reshape(shape),
    "squeeze": lambda x, axis=None: x.squeeze() if axis is None else x.squeeze(axis),
    "expand_dims": expand_dims,
    "broadcast_to": lambda x, shape: x.expand(shape),
    "sum_to": lambda x, shape: x.sum_to_size(shape),
    "permute": lambda x, axes=None: x.permute(axes or tuple(reversed(range(x.ndim)))),
    "mT": lambda x: x.mT,
    "flip": lambda x, axis=None: x.flip(dims(x, axis)),
    "cumsum": lambda x, axis: x.cumsum(axis),
    "affine": F.linear,
    "einsum": lambda *xs, subscripts: torch.einsum(subscripts, *xs),
    "concatenate": lambda *xs, axis=0: torch.cat(xs, axis),
    "stack": lambda *xs, axis=0: torch.stack(xs, axis),
    "pad": pad,
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "detach": torch.detach,
    "to_device": lambda x, device: x.to(device),
    "getitem": part,
    "put": lambda x, index, shape: torch.zeros(shape, dtype=x.dtype).index_put(
        (torch.from_numpy(np.asarray(index)),), x, accumulate=True
    ),
    "embedding": lambda weight, index: weight[index] if weight.ndim == 1 else F.embedding(index, weight),
    "sum": lambda x, axis=None, keepdims=False: x.sum(dims(x, axis), keepdim=keepdims),
    "spread": lambda x, axis, keepdims, shape: (
        x if keepdims else expand_dims(x, normal_axes(axis, len(shape)))
    ).expand(shape),
    "mean": lambda x, axis=None, keepdims=False: x.mean(dims(x, axis), keepdim=keepdims),
    "var": lambda x, axis=None, keepdims=False, correction=0: x.var(
        dims(x, axis), correction=correction, keepdim=keepdims
    ),
    "max": lambda x, axis=None, keepdims=False: x.amax(dims(x, axis), keepdim=keepdims),
    "min": lambda x, axis=None, keepdims=False: x.amin(dims(x, axis), keepdim=keepdims),
    "argmax": lambda x, axis=None, keepdims=False: x.argmax(axis, keepdim=keepdims),
    "argmin": lambda x, axis=None, keepdims=False: x.argmin(axis, keepdim=keepdims),
    "prod": prod,
    "logsumexp": lambda x, axis=None, keepdims=False: x.logsumexp(dims(x, axis), keepdim=keepdims),
    "softmax": lambda x, axis=-1: log_softmax(x, axis).exp(),
    "log_softmax": log_softmax,
    "norm": lambda x, axis=None, keepdims=False: torch.linalg.vector_norm(x, 2, axis, keepdims),
    "mse": F.mse_loss,
    "half_squared_error": lambda x, target: F.mse_loss(x, target, reduction="sum") / 2,
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": F.cross_entropy,
    # PyTorch's own function has no gradient for pos_weight.
    "bce_with_logits": lambda x, target, pos_weight: (
        -pos_weight * target * F.logsigmoid(x) - (1 - target) * F.logsigmoid(-x)
    ),
}


@pytest.fixture(params=LANES, autouse=True)
def on_lane(request: pytest.FixtureRequest) -> Any:
    with lane(request.param):
        yield request.param


def errors(
    what: str, ours: Callable[..., Any], theirs: Callable[..., Any], xs: list[Array], tolerance: float = 1e-12
) -> list[str]:
    """Compare values, and gradients with respect to all arrays for one cotangent."""
    places = leaves(xs)
    twins = [torch.from_numpy(x.copy()).requires_grad_() for x in xs]
    y, want = ours(*places), theirs(*twins)
    found = differences(f"value of {what}", y.numpy(), want.detach().numpy(), tolerance)
    if not want.requires_grad or found:
        return found
    g = np.cos(np.arange(y.size)).reshape(y.shape)
    y.backward(mg.tensor(g))
    want.backward(torch.from_numpy(g))
    for k, (x, twin) in enumerate(zip(places, twins, strict=True)):
        got = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        grad = np.zeros(x.shape) if twin.grad is None else twin.grad.numpy()
        found += differences(f"gradient {k} of {what}", got, grad, tolerance)
    return found


def sample_errors(one: Sample) -> list[str]:
    def theirs(*moved: Any) -> Any:
        operands = [torch.from_numpy(x) for x in one.operands]
        for place, x in zip(one.moving, moved, strict=True):
            operands[place] = x
        return TWINS[one.name](*operands, **one.params)

    return errors(str(one), one, theirs, one.inputs)


# PyTorch's ctc_loss gives the gradient of what comes before its log_softmax: test_ctc.
@pytest.mark.parametrize("name", [name for name in PAGE.records if name != "ctc"])
def test_record(name: str) -> None:
    assert not [line for one in samples(name) for line in sample_errors(one)]


# --- where conventions could differ ---------------------------------------------------------------

TIES = np.array([[2.0, -1.0, 2.0], [0.5, 0.5, 0.5]])
WITH_ZEROS = np.array([[0.0, 2.0, -3.0], [0.0, 0.0, 1.5], [0.7, 1.2, -1.1]])


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_ties_share_the_gradient(axis: Any) -> None:
    for name in ("max", "min"):
        assert not sample_errors(sample(name, TIES, axis=axis))
    for name in ("maximum", "minimum"):
        assert not sample_errors(sample(name, TIES, np.array([[2.0], [0.5]])))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_product_with_zeros(axis: Any) -> None:
    assert not sample_errors(sample("prod", WITH_ZEROS, axis=axis))


@pytest.mark.parametrize("name", ["abs", "relu", "sign", "leaky_relu", "elu"])
def test_kinks(name: str) -> None:
    one = samples(name)[0]
    assert not sample_errors(sample(name, np.array([0.0, -0.0, 1e-300, -1e-300]), **one.params))


MASKED = np.array([[-np.inf, 1.0, 2.0], [0.5, -np.inf, -np.inf], [700.0, -800.0, 710.0]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "max"])
def test_masked_logits(name: str) -> None:
    assert not sample_errors(sample(name, MASKED, axis=1))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sum", "prod", "mean", "var"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
@pytest.mark.filterwarnings("ignore")
def test_reductions_with_an_axis_of_no_length(name: str, shape: tuple[int, int]) -> None:
    assert not sample_errors(sample(name, shape, axis=1))


@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 5)), ((2, 0), (0, 5)), ((2, 3), (3, 0)), ((0,), (0,)), ((4, 0, 3), (3, 2))]
)
def test_products_with_an_axis_of_no_length(shapes: Any) -> None:
    assert not sample_errors(sample("matmul", *shapes))
    if len(shapes[0]) > 1:
        assert not sample_errors(sample("affine", shapes[0], shapes[1][::-1], shapes[1][-1:]))


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "var", "norm", "max", "cumsum", "sum", "flip"])
@pytest.mark.filterwarnings("ignore")
def test_not_a_number_spreads(name: str) -> None:
    assert not sample_errors(sample(name, np.array([[1.0, np.nan, 2.0], [0.5, 1.5, 2.5]]), axis=1))


def test_clip_at_its_bounds() -> None:
    assert not sample_errors(sample("clip", np.array([-1.0, 2.0, 0.0, 3.0]), low=-1.0, high=2.0))


@pytest.mark.parametrize(("order", "axis"), list(product([1, 2, 3, 1.5, np.inf], [None, 1])))
def test_norms(order: float, axis: Any) -> None:
    xs = [*draw("torch norms", [(3, 5)])]
    assert not errors(
        "norm",
        lambda x: mg.norm(x, ord=order, axis=axis),
        lambda x: torch.linalg.vector_norm(x, order, axis),
        xs,
    )


@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_variance_with_corrections(correction: float) -> None:
    assert not sample_errors(sample("var", (3, 7), axis=1, correction=correction))


# --- losses by their public names -----------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHTS])
def test_cross_entropy(weight: Any, reduction: str) -> None:
    x, p = draw("torch losses", [(3, 5), (3, 5)], (0.05, 2.0))
    weights = None if weight is None else torch.from_numpy(weight)
    for target, ignored in [(TARGETS, -100), (np.array([4, 0, 2]), 0), (np.eye(5)[[4, 0, 2]], -100), (p, -100)]:
        known = {"reduction": reduction, "ignore_index": ignored}
        twin = torch.from_numpy(target)
        assert not errors(
            f"cross_entropy {target} {known}",
            lambda x, target=target, known=known: mg.losses.cross_entropy(x, target, weight, **known),
            lambda x, twin=twin, known=known: F.cross_entropy(x, twin, weights, **known),
            [x],
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_with_more_axes(reduction: str) -> None:
    x, p = draw("torch losses", [(2, 5, 3), (2, 5, 3)])
    target = np.array([[4, 0, -100], [2, 2, 1]])
    for goal in (target, np.abs(p)):
        assert not errors(
            "cross_entropy",
            lambda x, goal=goal: mg.losses.cross_entropy(x, goal, CLASS_WEIGHTS, reduction=reduction),
            lambda x, goal=goal: F.cross_entropy(
                x, torch.from_numpy(goal), torch.from_numpy(CLASS_WEIGHTS), reduction=reduction
            ),
            [x],
        )


def test_cross_entropy_of_one_prediction_and_of_none() -> None:
    (x,) = draw("torch losses", [(5,)])
    assert not errors(
        "one", lambda x: mg.losses.cross_entropy(x, np.array(3)), lambda x: F.cross_entropy(x, torch.tensor(3)), [x]
    )
    nothing = np.array([-100, -100, -100])
    (x,) = draw("torch losses", [(3, 5)])
    assert not errors(
        "none",
        lambda x: mg.losses.cross_entropy(x, nothing, reduction="sum"),
        lambda x: F.cross_entropy(x, torch.from_numpy(nothing), reduction="sum"),
        [x],
    )
    assert np.isnan(mg.losses.cross_entropy(x, nothing).item())


@pytest.mark.parametrize("one", samples("ctc"), ids=str)
def test_ctc(one: Sample) -> None:
    targets = torch.from_numpy(one.operands[1])
    assert not errors(
        str(one),
        lambda x: one(mg.log_softmax(x)),
        lambda x: F.ctc_loss(F.log_softmax(x, -1), targets, reduction="none", **one.params),
        one.inputs,
    )


def test_cross_entropy_of_huge_logits() -> None:
    x = np.array([[1e4, -1e4, 3.0, 0.0, -5.0], [-700.0, 800.0, 2.0, 1.0, 0.0], [1e300, 0.0, 0.0, 0.0, 0.0]])
    target = np.array([2, 0, 0])
    assert not errors(
        "huge",
        lambda x: mg.losses.cross_entropy(x, target, reduction="none"),
        lambda x: F.cross_entropy(x, torch.from_numpy(target), reduction="none"),
        [x],
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pos_weight", [None, 3.5, np.array([0.5, 2.0, 1.25])], ids=["none", "number", "array"])
def test_binary_cross_entropy(pos_weight: Any, reduction: str) -> None:
    x, target = *draw("torch bce", [(2, 3)], (-30.0, 30.0)), CHOICES.astype(float)
    weight = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float64)
    assert not errors(
        "binary_cross_entropy_with_logits",
        lambda x: mg.losses.binary_cross_entropy_with_logits(x, target, reduction, pos_weight),
        lambda x: F.binary_cross_entropy_with_logits(
            x, torch.from_numpy(target), pos_weight=weight, reduction=reduction
        ),
        [x],
    )


# --- second order ---------------------------------------------------------------------------------

TWICE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (lambda x: mg.softmax(x, axis=0), lambda x: torch.softmax(x, 0)),
    "log_softmax": (lambda x: mg.log_softmax(x), lambda x: torch.log_softmax(x, -1)),
    "prod": (lambda x: mg.prod(x, axis=1), lambda x: x.prod(1)),
    "var": (lambda x: mg.var(x, axis=0), lambda x: x.var(0, correction=0)),
    "norm": (lambda x: mg.norm(x, axis=1), lambda x: torch.linalg.vector_norm(x, 2, 1)),
    "gelu": (mg.gelu, F.gelu),
    "matmul": (lambda x: x @ x, lambda x: x @ x),
    "cross_entropy": (
        lambda x: mg.losses.cross_entropy(x, np.array([2, 0, 1])),
        lambda x: F.cross_entropy(x, torch.tensor([2, 0, 1])),
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_hessian(name: str) -> None:
    ours, theirs = TWICE[name]
    (x,) = draw(f"torch hessian {name}", [(3, 3)])
    got = mg.hessian(lambda a: (ours(a) ** 2).sum())(x)
    want = torch.autograd.functional.hessian(lambda a: (theirs(a) ** 2).sum(), torch.from_numpy(x))
    assert not differences(f"Hessian of {name}", got, want.numpy(), 1e-10)
