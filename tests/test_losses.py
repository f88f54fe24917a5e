"""Cross entropy with smoothed labels, beside its definition in NumPy and beside PyTorch."""

import itertools

import numpy as np
import pytest

import minigrad as mg

SHAPES = {"one": (5,), "rows": (7, 5), "pictures": (2, 5, 3, 7)}
CASES = list(itertools.product(SHAPES, ("mean", "sum", "none"), (False, True), (False, True)))


def data(shape, soft, weighted):
    rng = np.random.default_rng([len(shape), soft, weighted])
    axis = 1 if len(shape) > 1 else 0
    rest = shape[:axis] + shape[axis + 1 :]
    x = 3 * rng.standard_normal(shape)
    if soft:
        target = np.moveaxis(rng.dirichlet(np.ones(5), rest), -1, axis)
    else:
        target = np.asarray(rng.integers(0, 5, rest))
        target[np.asarray(rng.random(rest)) < 0.3] = 101
    return x, target, rng.uniform(0.3, 1.7, 5) if weighted else None


def smoothed(x, target, weight, smoothing, reduction):
    """-sum(w q log p) with q = (1 - s) * target + s / C; an ignored row costs nothing."""
    axis = 1 if x.ndim > 1 else 0
    rows = np.moveaxis(x, axis, -1).reshape(-1, 5)
    w = np.ones(5) if weight is None else weight
    if target.shape == x.shape:
        q, counts = np.moveaxis(target, axis, -1).reshape(-1, 5), np.ones(len(rows))
    else:
        flat = target.reshape(-1)
        q, counts = np.array([np.eye(5)[t] if t < 5 else np.zeros(5) for t in flat]), (flat < 5) * 1.0
    spread = ((1 - smoothing) * q + smoothing / 5) * counts[:, None]
    losses = -(w * spread * (rows - np.log(np.exp(rows).sum(1, keepdims=True)))).sum(1)
    if reduction == "none":
        return losses.reshape(x.shape[:axis] + x.shape[axis + 1 :])
    number = len(rows) if target.shape == x.shape else (q @ w).sum()
    return losses.sum() / (number if reduction == "mean" else 1)


@pytest.mark.parametrize(("shape", "reduction", "soft", "weighted"), CASES)
def test_label_smoothing(shape, reduction, soft, weighted):
    x, target, weight = data(SHAPES[shape], soft, weighted)
    if target.shape == () and target == 101:
        target = np.asarray(3)
    options = {"weight": weight, "reduction": reduction, "label_smoothing": 0.3}
    if not soft:
        options["ignore_index"] = 101
    given = mg.tensor(x, requires_grad=True)
    loss = mg.losses.cross_entropy(given, mg.tensor(target), **options)
    expected = smoothed(x, target, weight, 0.3, reduction)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-13, atol=1e-13)
    g = np.random.default_rng(9).uniform(0.5, 1.5, loss.shape)
    loss.backward(mg.tensor(g))
    moved, step = np.zeros_like(x), 1e-6
    for place in np.ndindex(x.shape):
        away = np.zeros_like(x)
        away[place] = step
        up, down = (smoothed(x + s * away, target, weight, 0.3, reduction) for s in (1, -1))
        moved[place] = (g * (up - down)).sum() / (2 * step)
    np.testing.assert_allclose(given.grad.numpy(), moved, rtol=1e-6, atol=1e-7)


@pytest.mark.needs("torch")
@pytest.mark.parametrize(("shape", "reduction", "soft", "weighted"), CASES)
def test_label_smoothing_beside_pytorch(shape, reduction, soft, weighted):
    import torch

    x, target, weight = data(SHAPES[shape], soft, weighted)
    options = {"reduction": reduction, "label_smoothing": 0.3} | ({} if soft else {"ignore_index": 101})
    ours, theirs = mg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    loss = mg.losses.cross_entropy(ours, mg.tensor(target), weight=weight, **options)
    w = None if weight is None else torch.tensor(weight)
    other = torch.nn.functional.cross_entropy(theirs, torch.tensor(target), weight=w, **options)
    np.testing.assert_allclose(loss.numpy(), other.detach().numpy(), rtol=1e-12)
    if not np.isnan(other.detach().numpy()).any():
        loss.backward(mg.ones(*loss.shape, dtype="float64"))
        other.backward(torch.ones_like(other))
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_the_mean_of_no_target_is_nan():
    x = mg.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    assert np.isnan(mg.losses.cross_entropy(x, mg.tensor([7, 7]), ignore_index=7, label_smoothing=0.2).item())
