"""Attention against its formulas written out pair by pair, differences, and what masks promise."""

import math
from typing import Any

import numpy as np
import pytest
from ops_checks import differences, jacobian_errors, vjp_of
from ops_samples import draw

import minigrad as mg
from minigrad import errors

N, Q, K, D, E, V, H = 2, 3, 5, 7, 3, 2, 11
LENGTHS = [4, 2]
INSIDE = np.array([[k < length for k in range(K)] for length in LENGTHS])
PAIRS = np.random.default_rng(7).random((N, Q, K)) < 0.6
PAIRS[1, 2] = False
NAN = math.nan


def attention(kind: str) -> tuple[Any, list[np.ndarray]]:
    """Return a module in double precision, and a query, keys and values for it."""
    query, keys, dotted, values = draw(kind, [(N, Q, D), (N, K, E), (N, K, D), (N, K, V)])
    if kind == "dot product":
        return mg.nn.DotProductAttention(), [query, dotted, values]
    mg.manual_seed(3)
    return mg.nn.AdditiveAttention(D, E, H, dtype="float64"), [query, keys, values]


def score(module: Any, query: np.ndarray, key: np.ndarray) -> float:
    if isinstance(module, mg.nn.DotProductAttention):
        return math.fsum((query * key).tolist()) / math.sqrt(D)
    W, U, v = (module.state_dict()[f"{name}.weight"].numpy() for name in ("query", "key", "energy"))
    assert (W.shape, U.shape, v.shape) == ((H, D), (H, E), (1, H))
    sums = [math.fsum([*(w * query).tolist(), *(u * key).tolist()]) for w, u in zip(W, U, strict=True)]
    hidden = list(map(math.tanh, sums))
    return math.fsum((v[0] * hidden).tolist())


def expected(module: Any, query: Any, keys: Any, values: Any, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return context and weights, of sums that only see what `keep` (N, Q, K) lets through."""
    weights = np.zeros((N, Q, K))
    context = np.zeros((N, Q, values.shape[2]))
    for n, q in np.ndindex(N, Q):
        open_keys = np.flatnonzero(keep[n, q])
        powers = [math.exp(score(module, query[n, q], keys[n, k])) for k in open_keys]
        for k, power in zip(open_keys, powers, strict=True):
            weights[n, q, k] = power / math.fsum(powers)
            context[n, q] += weights[n, q, k] * values[n, k]
    return context, weights


KINDS = ["dot product", "additive"]
MASKS: list[tuple[dict[str, Any], np.ndarray]] = [
    ({}, np.ones((N, Q, K), bool)),
    ({"lengths": LENGTHS}, np.broadcast_to(INSIDE[:, None], (N, Q, K))),
    ({"mask": INSIDE}, np.broadcast_to(INSIDE[:, None], (N, Q, K))),
    ({"mask": mg.tensor(INSIDE[:, None])}, np.broadcast_to(INSIDE[:, None], (N, Q, K))),
    ({"mask": PAIRS}, PAIRS),
    ({"mask": PAIRS[:1]}, np.broadcast_to(PAIRS[:1], (N, Q, K))),
    ({"mask": PAIRS, "lengths": mg.tensor(LENGTHS)}, PAIRS & INSIDE[:, None]),
    ({"mask": PAIRS[:, :, :1], "lengths": [K, 0]}, PAIRS[:, :, :1] & np.array([[[1] * K], [[0] * K]], bool)),
]


@pytest.mark.parametrize("row", range(len(MASKS)))
@pytest.mark.parametrize("kind", KINDS)
def test_context_and_weights(kind: str, row: int) -> None:
    module, xs = attention(kind)
    options, keep = MASKS[row]
    for inputs in (xs, xs[:2]):
        context, weights = module(*map(mg.tensor, inputs), **options)
        want = expected(module, *xs[:2], inputs[-1], keep)
        assert not differences("context", context.numpy(), want[0], 1e-13)
        assert not differences("weights", weights.numpy(), want[1], 1e-13)
        assert not weights.numpy()[~keep].any()
        assert not differences("sums", weights.numpy().sum(axis=-1), keep.any(axis=-1), 1e-14)


@pytest.mark.parametrize("row", range(len(MASKS)))
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_by_differences(kind: str, row: int) -> None:
    module, xs = attention(kind)
    options, _ = MASKS[row]
    assert not jacobian_errors(kind, lambda *xs: module(*xs, **options), xs, 1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_by_differences(kind: str) -> None:
    module, xs = attention(kind)
    xs = [x[:, :2, :3] for x in xs] if kind == "dot product" else [x[:, :2] for x in xs]
    options = {"lengths": [2, 1]}
    g = np.cos(np.arange(N * 2 * xs[2].shape[2])).reshape(N, 2, -1)
    assert not jacobian_errors(kind, vjp_of(lambda *xs: module(*xs, **options)[0], 3), [*xs, g], 1e-7)


def test_gradients_of_the_parameters_of_additive_attention() -> None:
    module, xs = attention("additive")
    names = [name for name, _ in module.named_parameters()]
    assert names == ["query.weight", "key.weight", "energy.weight"]

    def f(*weights: Any) -> Any:
        query, key, energy = weights
        hidden = mg.tanh((xs[0] @ query.mT)[:, :, None] + (xs[1] @ key.mT)[:, None])
        scores = (hidden @ energy.mT)[..., 0]
        return mg.softmax(scores, axis=-1) @ mg.tensor(xs[2])

    weights = [parameter.detach().numpy() for parameter in module.parameters()]
    places = [mg.tensor(w, requires_grad=True) for w in weights]
    g = mg.tensor(np.cos(np.arange(N * Q * V)).reshape(N, Q, V))
    f(*places).backward(g)
    module(*xs)[0].backward(g)
    for name, place, parameter in zip(names, places, module.parameters(), strict=True):
        assert np.abs(parameter.grad.numpy()).max() > 1e-3
        assert not differences(name, parameter.grad.numpy(), place.grad.numpy(), 1e-13)


@pytest.mark.parametrize("options", [{"lengths": LENGTHS}, {"mask": INSIDE}, {"mask": INSIDE[:, None]}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_count_even_as_nan(kind: str, options: dict[str, Any]) -> None:
    module, (query, keys, values) = attention(kind)
    found = []
    for filler in (0.5, NAN, math.inf):
        keys, values = (np.where(INSIDE[:, :, None], x, filler) for x in (keys, values))
        leaves = [mg.tensor(x, requires_grad=True) for x in (query, keys, values)]
        context, weights = module(*leaves, **options)
        (context.sum() + mg.sum(weights * np.cos(np.arange(K)))).backward()
        found.append([context.numpy(), weights.numpy(), *(leaf.grad.numpy() for leaf in leaves)])
        for leaf in leaves[1:]:
            assert not leaf.grad.numpy()[~INSIDE].any()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert np.abs(a).max() > 0
            assert not differences("with padding", b, a, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_without_keys_reads_nothing(kind: str) -> None:
    module, xs = attention(kind)
    leaves = [mg.tensor(x, requires_grad=True) for x in xs]
    context, weights = module(*leaves, lengths=[0, 3])
    (context * context + weights.sum()).sum().backward()
    assert not context.numpy()[0].any()
    assert not weights.numpy()[0].any()
    for leaf in leaves:
        assert not leaf.grad.numpy()[0].any()
        assert np.isfinite(leaf.grad.numpy()).all()
    assert np.abs(leaves[0].grad.numpy()[1]).max() > 0
    nothing = [mg.tensor(x[:, :0]) for x in xs[1:]]
    context, weights = module(leaves[0], *nothing)
    assert (context.shape, weights.shape) == ((N, Q, V), (N, Q, 0))
    assert not context.numpy().any()


def test_huge_scores_and_a_scale() -> None:
    _, (query, keys, values) = attention("dot product")
    context, weights = mg.nn.DotProductAttention()(1e4 * query, 1e4 * keys, values, lengths=LENGTHS)
    best = np.where(INSIDE[:, None], query @ keys.swapaxes(1, 2), -np.inf).argmax(axis=-1)
    assert not differences("weights", weights.numpy(), np.eye(K)[best], 0)
    assert not differences("context", context.numpy(), np.take_along_axis(values, best[:, :, None], axis=1), 0)
    plain, scaled = mg.nn.DotProductAttention(), mg.nn.DotProductAttention(scale=0.3)
    want = plain(0.3 * math.sqrt(D) * query, keys)[1].numpy()
    assert not differences("scaled", scaled(query, keys)[1].numpy(), want, 1e-14)
    assert repr(scaled) == "DotProductAttention(scale=0.3)"


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_stays(kind: str) -> None:
    module, xs = attention(kind)
    module = mg.nn.AdditiveAttention(D, E, H) if kind == "additive" else module
    context, weights = module(*(x.astype("float32") for x in xs), mask=PAIRS, lengths=LENGTHS)
    assert context.dtype == weights.dtype == "float32"


@pytest.mark.needs("torch")
def test_dot_product_attention_is_pytorchs() -> None:
    import torch

    module, xs = attention("dot product")
    mask = PAIRS | np.eye(Q, K, dtype=bool)
    theirs = [torch.from_numpy(x.copy()).requires_grad_() for x in xs]
    want = torch.nn.functional.scaled_dot_product_attention(*theirs, attn_mask=torch.from_numpy(mask))
    ours = [mg.tensor(x, requires_grad=True) for x in xs]
    context, _ = module(*ours, mask=mask)
    g = np.cos(np.arange(context.size)).reshape(context.shape)
    want.backward(torch.from_numpy(g))
    context.backward(mg.tensor(g))
    assert not differences("context", context.numpy(), want.detach().numpy(), 1e-12)
    for a, b in zip(ours, theirs, strict=True):
        assert not differences("gradient", a.grad.numpy(), b.grad.numpy(), 1e-12)


def test_refusals() -> None:
    module, (query, keys, values) = attention("dot product")
    for args, options, error, message in [
        ((query[0], keys, values), {}, errors.ShapeError, r"query \(N, Q, D\).*\(3, 7\), \(2, 5, 7\), \(2, 5, 2\)"),
        ((query, keys[:1], values), {}, errors.ShapeError, "keys"),
        ((query, keys, values[:, :3]), {}, errors.ShapeError, "values"),
        ((query, keys[:, :, :3], values), {}, errors.ShapeError, "queries have size 7 and keys 3"),
        ((query, keys), {"mask": INSIDE.T}, errors.ShapeError, r"mask \(5, 2\) is neither \(2, 5\) nor \(2, 3, 5\)"),
        ((query, keys), {"mask": PAIRS[:, :2]}, errors.ShapeError, r"mask \(2, 2, 5\)"),
        ((query, keys), {"mask": INSIDE[0]}, errors.ShapeError, r"mask \(5,\)"),
        ((query, keys), {"mask": INSIDE.astype(int)}, errors.DTypeError, "booleans"),
        ((query, keys), {"lengths": [5, 6]}, errors.ShapeError, r"lengths\[1\] is 6"),
        ((query, keys), {"lengths": [5]}, errors.ShapeError, "2 sequences"),
        ((query, keys), {"lengths": [5.0, 1.0]}, errors.DTypeError, "integers"),
    ]:
        with pytest.raises(error, match=message):
            module(*args, **options)
    with pytest.raises(errors.UsageError, match="AdditiveAttention: hidden_size"):
        mg.nn.AdditiveAttention(2, 3, 0)
