"""CTC against every alignment written out, PyTorch and differences; its decoders; losses of padded sequences."""

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from ops_checks import differences, duality_errors, jacobian_errors, jvp_of, leaves, vjp_of
from ops_samples import draw, sample

import minigrad as mg
from minigrad import decode, errors, losses

INF, NAN = math.inf, math.nan


# --- the oracle: all alignments -------------------------------------------------------------------


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def alignments(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], list[tuple[tuple[int, ...], float]]]:
    """Return, for each labelling of frames (T, C), its paths with their probabilities."""
    frames, classes = log_probs.shape
    found: dict[tuple[int, ...], list[tuple[tuple[int, ...], float]]] = {}
    for path in itertools.product(range(classes), repeat=frames):
        weight = math.prod(math.exp(log_probs[t, c]) for t, c in enumerate(path))
        found.setdefault(collapse(path, blank), []).append((path, weight))
    return found


def expected_loss(log_probs: np.ndarray, target: tuple[int, ...], blank: int) -> float:
    total = math.fsum(weight for _, weight in alignments(log_probs, blank).get(target, []))
    return -math.log(total) if total else INF


def expected_gradient(log_probs: np.ndarray, target: tuple[int, ...], blank: int) -> np.ndarray:
    """Return minus the share of the target's probability that goes through each class at each frame."""
    out = np.zeros(log_probs.shape)
    paths = alignments(log_probs, blank)[target]
    for path, weight in paths:
        for t, c in enumerate(path):
            out[t, c] -= weight
    return out / math.fsum(weight for _, weight in paths)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng([*shape, seed]).standard_normal(shape)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


SMALL = [  # frames, classes, blank, target
    (1, 2, 0, (1,)),
    (1, 3, 0, ()),
    (0, 3, 0, ()),
    (2, 3, 0, (2, 1)),
    (3, 3, 0, (1, 1)),
    (3, 3, 1, (0, 2)),
    (4, 3, 2, (0, 0)),
    (4, 3, 0, (1, 2, 1)),
    (4, 2, 1, ()),
    (5, 3, 0, (1, 1, 2)),
    (5, 3, 2, (1, 0, 1)),
    (5, 3, 1, (2,)),
    (5, 2, 0, (1, 1, 1)),
]


@pytest.mark.parametrize(("frames", "classes", "blank", "target"), SMALL)
def test_value_and_gradient_by_all_alignments(frames: int, classes: int, blank: int, target: tuple[int, ...]) -> None:
    x = normal(frames, classes, seed=blank)
    leaf = mg.tensor(x, requires_grad=True)
    loss = losses.ctc(leaf, target, frames, len(target), blank=blank, reduction="none")
    loss.backward()
    assert loss.shape == ()
    assert not differences("loss", loss.numpy(), expected_loss(x, target, blank), 1e-13)
    assert not differences("gradient", leaf.grad.numpy(), expected_gradient(x, target, blank), 1e-13)


BATCH = [(5, (1, 1, 2)), (3, (2,)), (4, ()), (0, ()), (5, (2, 1)), (2, (1, 2)), (4, (1, 2))]
"""Frames and target of each sequence."""


def batch(dtype: str = "float64", filler: float = NAN) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Return log-probabilities (5, 7, 3), targets (7, 3) and their lengths; beyond the lengths is rubbish."""
    x = normal(5, 7, 3).astype(dtype)
    targets = np.full((7, 3), 99)
    for n, (frames, target) in enumerate(BATCH):
        x[frames:, n] = filler
        targets[n, : len(target)] = target
    return x, targets, [frames for frames, _ in BATCH], [len(target) for _, target in BATCH]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_does_not_count_even_as_nan(dtype: str) -> None:
    x, targets, frames, labels = batch(dtype)
    leaf = mg.tensor(x, requires_grad=True)
    loss = losses.ctc(leaf, targets, frames, labels, reduction="none")
    loss.sum().backward()
    bound = 20 * np.finfo(dtype).eps
    assert loss.dtype == leaf.grad.dtype == dtype
    for n, (steps, target) in enumerate(BATCH):
        alone = x[:steps, n].astype("float64")
        assert not differences("loss", loss.numpy()[n], expected_loss(alone, target, 0), bound)
        assert not differences("gradient", leaf.grad.numpy()[:steps, n], expected_gradient(alone, target, 0), bound)
        assert not differences("gradient of padding", leaf.grad.numpy()[steps:, n], np.zeros((5 - steps, 3)), 0)


def test_second_derivatives_do_not_see_padding() -> None:
    x, targets, frames, labels = batch()
    clean = batch(filler=-1.0)[0]
    found = []
    for values in (x, clean):
        (leaf,) = leaves([values])
        (slope,) = mg._core.sweep(
            [losses.ctc(leaf, targets, frames, labels)], [mg.tensor(np.ones(()))], [leaf], True, True
        )
        inside = np.isfinite(x)
        weights = np.cos(np.arange(x.size)).reshape(x.shape)
        mg.sum(slope * weights).backward()
        found.append(leaf.grad.numpy())
        assert not differences("padding", found[-1][~inside], np.zeros((~inside).sum()), 0)
    assert np.abs(found[1]).max() > 0.01
    assert not differences("second derivative", found[0], found[1], 1e-14)


def test_reductions_and_layouts_are_one_thing() -> None:
    x, targets, frames, labels = batch(filler=0.5)
    each = np.array([expected_loss(x[:steps, n], target, 0) for n, (steps, target) in enumerate(BATCH)])
    joined = np.concatenate([np.array(target, dtype=int) for _, target in BATCH])
    for given in (targets, joined, targets.tolist(), mg.tensor(targets)):
        for lengths in (labels, np.array(labels), mg.tensor(labels), tuple(labels)):
            run = [losses.ctc(x, given, frames, lengths, reduction=r).numpy() for r in ("none", "sum", "mean")]
            assert not differences("none", run[0], each, 1e-13)
            assert not differences("sum", run[1], each.sum(), 1e-12)
            assert not differences("mean", run[2], (each / np.maximum(labels, 1)).mean(), 1e-13)


def test_one_sequence_without_a_batch() -> None:
    x = normal(5, 3)
    want = expected_loss(x, (2, 1), 0)
    for targets, frames, labels in [([2, 1], 5, 2), ([[2, 1]], [5], [2]), (np.array([2, 1, 99]), np.array(5), [2])]:
        assert losses.ctc(x, targets, frames, labels, reduction="none").shape == ()
        assert not differences("mean", losses.ctc(x, targets, frames, labels).numpy(), want / 2, 1e-13)


def test_labels_of_a_small_integer_type() -> None:
    x = normal(3, 1, 300)
    want = losses.ctc(x, [[7, 5]], [3], [2], blank=299).item()
    assert losses.ctc(x, np.array([[7, 5]], "uint8"), [3], [2], blank=299).item() == want


def test_without_sequences_or_frames() -> None:
    assert losses.ctc(np.zeros((5, 0, 3)), np.zeros((0, 2), int), [], [], reduction="none").shape == (0,)
    leaf = mg.tensor(np.zeros((0, 2, 3)), requires_grad=True)
    loss = losses.ctc(leaf, [[1], [2]], [0, 0], [0, 1], reduction="none")
    loss.sum().backward()
    assert loss.numpy().tolist() == [0, INF]
    assert leaf.grad.shape == (0, 2, 3)


# --- what cannot happen ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", [(1, 1), (1, 2, 1), (2, 2)])
def test_a_target_too_long_for_its_frames(target: tuple[int, ...]) -> None:
    x = np.stack([normal(2, 3), normal(2, 3, seed=1)], axis=1)
    targets = np.array([target, (1,) + (0,) * (len(target) - 1)])
    for zero, value, slope in [(False, INF, NAN), (True, 0.0, 0.0)]:
        leaf = mg.tensor(x, requires_grad=True)
        loss = losses.ctc(leaf, targets, [2, 2], [len(target), 1], reduction="none", zero_infinity=zero)
        loss.backward(mg.tensor(np.array([1.0, 2.0])))
        assert loss.numpy()[0] == value
        assert not differences("gradient", leaf.grad.numpy()[:, 0, list(target)], np.full((2, len(target)), slope), 0)
        assert not differences("beside", leaf.grad.numpy()[:, 1], 2 * expected_gradient(x[:, 1], (1,), 0), 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes_that_are_impossible(dtype: str) -> None:
    x = normal(5, 3).astype(dtype)
    x[1, 2] = x[3, 0] = x[2, 0] = -INF
    leaf = mg.tensor(x, requires_grad=True)
    loss = losses.ctc(leaf, [1, 2, 1], 5, 3, reduction="none")
    loss.backward()
    bound = 20 * np.finfo(dtype).eps
    assert not differences("loss", loss.numpy(), expected_loss(x.astype("float64"), (1, 2, 1), 0), bound)
    want = expected_gradient(x.astype("float64"), (1, 2, 1), 0)
    assert not differences("gradient", leaf.grad.numpy(), want, bound)
    x[:, 1] = -INF
    assert losses.ctc(x, [1], 5, 1).item() == INF
    assert losses.ctc(x, [1], 5, 1, zero_infinity=True).item() == 0


def test_second_derivatives_beside_impossible_classes() -> None:
    never = np.zeros((5, 4), bool)
    never[2, :3] = never[4, 0] = True  # at t = 2 no state before the last label, and at t = 3 no way into those
    f = vjp_of(lambda x: losses.ctc(mg.where(never, -INF, x), [1, 2, 3], 5, 3), 1)
    assert not jacobian_errors("the vjp of ctc", f, [normal(5, 4), np.array(0.7)], 1e-7)


def test_nan_is_not_hidden() -> None:
    x = normal(5, 3)
    x[2, 1] = NAN
    assert np.isnan(losses.ctc(x, [1], 5, 1, zero_infinity=True).item())


def test_long_sequences_in_single_precision() -> None:
    x, target = normal(997, 1, 5), np.random.default_rng(3).integers(1, 5, (1, 211))
    found = []
    for dtype in ("float32", "float64"):
        leaf = mg.tensor(x.astype(dtype), requires_grad=True)
        loss = losses.ctc(leaf, target, [997], [211], reduction="sum")
        loss.backward()
        found.append((loss.item(), leaf.grad.numpy()))
    (rough, rough_slope), (fine, slope) = found
    assert fine > 500
    assert abs(rough - fine) < 1e-5 * fine
    assert not differences("gradient", rough_slope, slope, 2e-3)
    assert not differences("sums over classes", slope.sum(axis=2), -np.ones((997, 1)), 1e-10)


# --- derivatives ----------------------------------------------------------------------------------


def batch_loss(reduction: str, zero: bool = False) -> Any:
    targets, frames, labels = np.array([[1, 1], [2, 3], [3, 0]]), [5, 2, 3], [2, 2, 0]
    return lambda x: losses.ctc(x, targets, frames, labels, reduction=reduction, zero_infinity=zero)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_first_and_second_derivatives_by_differences(reduction: str) -> None:
    f, x = batch_loss(reduction), normal(5, 3, 4)
    assert not jacobian_errors("ctc", f, [x], 1e-8)
    g = np.cos(np.arange(3.0)) if reduction == "none" else np.array(0.7)
    if reduction == "mean":
        assert not jacobian_errors("the vjp of ctc", vjp_of(f, 1), [x, g], 1e-7)
        assert not jacobian_errors("the jvp of ctc", jvp_of(f, 1), [x, normal(5, 3, 4, seed=2)], 1e-7)


def test_third_derivative_by_differences() -> None:
    x, (a, b) = normal(3, 3), draw("third", [(3, 3), (3, 3)])

    def second(x: Any) -> Any:
        def first(x: Any) -> Any:
            return mg.jvp(lambda x: losses.ctc(x, [1, 2], 3, 2), (x,), (a,))[1]

        return mg.jvp(first, (x,), (b,))[1]

    assert not jacobian_errors("the second derivative of ctc", second, [x], 1e-7)


def test_duality() -> None:
    params = {"input_lengths": (5, 2, 3), "target_lengths": (2, 2, 0)}
    one = sample("ctc", normal(5, 3, 4), np.array([[1, 1], [2, 3], [3, 0]]), **params)
    assert not duality_errors(one)


def test_the_twin_in_operations_has_the_same_value_and_gradient() -> None:
    x, targets, frames, labels = batch(filler=0.5)
    params = {"input_lengths": tuple(frames), "target_lengths": tuple(labels)}
    found = []
    for f in (mg.ctc, mg.ctc.twin):
        (leaf,) = leaves([x])
        y = f(leaf, targets, **params)
        y.backward(mg.tensor(np.cos(np.arange(7.0))))
        found.append((y.numpy(), leaf.grad.numpy()))
    for what, got, want in zip(("value", "gradient"), *found, strict=True):
        assert not differences(what, got, want, 1e-13)


def always(xp: Any, labels: Any, blank: int) -> Any:
    return labels != blank


def nowhere(xp: Any, labels: Any, blank: int) -> Any:
    return labels != labels


@pytest.mark.parametrize(("rule", "target"), [(always, (1, 1)), (nowhere, (1, 2))])
def test_a_wrong_rule_of_skipping_is_noticed(monkeypatch: pytest.MonkeyPatch, rule: Any, target: Any) -> None:
    x = normal(4, 3)
    monkeypatch.setattr(importlib.import_module("minigrad.ops.ctc"), "_skips", rule)
    leaf = mg.tensor(x, requires_grad=True)
    loss = losses.ctc(leaf, target, 4, 2, reduction="none")
    loss.backward()
    assert differences("loss", loss.numpy(), expected_loss(x, target, 0), 1e-3)
    assert differences("gradient", leaf.grad.numpy(), expected_gradient(x, target, 0), 1e-3)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.needs("torch")
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("seed", range(6))
def test_against_pytorch(seed: int, reduction: str, zero: bool) -> None:
    import torch

    rng = np.random.default_rng([seed, 41])
    T, N, C, S = (int(rng.choice(sizes)) for sizes in ((7, 11, 13), (1, 3, 5), (2, 5, 7), (1, 3, 5)))
    blank = int(rng.integers(C))
    frames, labels = rng.integers(0 if seed else 1, T + 1, N), rng.integers(0, S + 1, N)
    symbols = [c for c in range(C) if c != blank]
    targets = rng.choice(symbols, (N, S))
    logits = rng.standard_normal((T, N, C))
    joined = np.concatenate([row[:length] for row, length in zip(targets, labels, strict=True)])
    g = rng.uniform(0.5, 1.5, N if reduction == "none" else ())
    for given in (targets, joined):
        theirs = torch.from_numpy(logits.copy()).requires_grad_()
        want = torch.nn.functional.ctc_loss(
            torch.log_softmax(theirs, -1),
            torch.from_numpy(given),
            torch.from_numpy(frames),
            torch.from_numpy(labels),
            blank=blank,
            reduction=reduction,
            zero_infinity=zero,
        )
        want.backward(torch.from_numpy(np.asarray(g)))
        ours = mg.tensor(logits, requires_grad=True)
        options = {"blank": blank, "reduction": reduction, "zero_infinity": zero}
        loss = losses.ctc(mg.log_softmax(ours), given, frames, labels, **options)
        loss.backward(mg.tensor(np.asarray(g)))
        assert not differences("loss", loss.numpy(), want.detach().numpy(), 1e-10)
        assert not differences("gradient", ours.grad.numpy(), theirs.grad.numpy(), 1e-10)


# --- refusals -------------------------------------------------------------------------------------

X = normal(5, 2, 3)
REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((X, [[1, 2], [3, 1]], [5, 5], [2, 2]), {}, IndexError, r"targets\[1, 0\] is 3: none of the classes 0 to 2"),
    ((X, [[1, 2], [1, -1]], [5, 5], [2, 2]), {}, IndexError, r"targets\[1, 1\] is -1"),
    ((X, [[1, 2], [1, 0]], [5, 5], [2, 2]), {}, errors.UsageError, r"targets\[1, 1\] is 0: the blank"),
    ((X, [[1, 2], [1, 2]], [5, 6], [2, 2]), {}, errors.ShapeError, r"input_lengths\[1\] is 6.*0 and 5"),
    ((X, [[1, 2], [1, 2]], [-1, 5], [2, 2]), {}, errors.ShapeError, r"input_lengths\[0\] is -1"),
    ((X, [[1, 2], [1, 2]], [5, 5], [3, 2]), {}, errors.ShapeError, r"target_lengths\[0\] is 3.*0 and 2"),
    ((X, [[1, 2], [1, 2]], [5], [2, 2]), {}, errors.ShapeError, r"input_lengths has one length .* 2 sequences"),
    ((X, [[1, 2], [1, 2]], [5, 5], [2, 2, 2]), {}, errors.ShapeError, r"target_lengths has one length"),
    ((X, [[1, 2], [1, 2]], [5.0, 5.0], [2, 2]), {}, errors.DTypeError, r"input_lengths holds integers"),
    ((X, [[1.0, 2.0], [1, 2]], [5, 5], [2, 2]), {}, errors.DTypeError, r"targets holds integers"),
    ((X, [[1, 2]], [5, 5], [2, 2]), {}, errors.ShapeError, r"targets \(N, S\), not \(5, 2, 3\) and \(1, 2\)"),
    ((X, [1, 2, 1], [5, 5], [2, 2]), {}, errors.ShapeError, r"add up to 4; there are 3 labels"),
    ((X[0, 0], [1], 5, 1), {}, errors.ShapeError, r"log_probs has shape \(T, N, C\)"),
    ((X, [[1, 2], [1, 2]], [5, 5], [2, 2]), {"blank": 3}, IndexError, "blank=3 is none of the classes 0 to 2"),
    ((X, [[1, 2], [1, 2]], [5, 5], [2, 2]), {"blank": -1}, IndexError, "blank=-1"),
    ((X, [[1, 2], [1, 2]], [5, 5], [2, 2]), {"reduction": "avg"}, errors.UsageError, "reduction is"),
]


@pytest.mark.parametrize("row", range(len(REFUSED)))
def test_refusals_name_the_element(row: int) -> None:
    args, options, error, message = REFUSED[row]
    with pytest.raises(error, match=message) as caught:
        losses.ctc(*args, **options)
    assert isinstance(caught.value, mg.MinigradError)
    assert str(caught.value).startswith("ctc")


# --- decoding -------------------------------------------------------------------------------------


def path_scores(path: list[int], classes: int) -> np.ndarray:
    return np.log(0.7 * np.eye(classes)[path] + 0.3 / classes)


@pytest.mark.parametrize(
    ("path", "blank", "labels"),
    [
        ([0, 1, 1, 0, 1, 2, 2, 0], 0, [1, 1, 2]),
        ([1, 1, 1], 0, [1]),
        ([0, 0], 0, []),
        ([2, 1, 2, 2, 0], 2, [1, 0]),
        ([1, 2, 1], 0, [1, 2, 1]),
        ([0, 1, 0], 1, [0, 0]),
    ],
)
def test_greedy_merges_repeats_and_then_drops_blanks(path: list[int], blank: int, labels: list[int]) -> None:
    assert decode.ctc_greedy(path_scores(path, 3), blank=blank) == labels


def test_greedy_of_a_batch() -> None:
    x = np.stack([path_scores([1, 0, 1, 2], 3), path_scores([2, 2, 1, 1], 3), path_scores([2] * 4, 3)], axis=1)
    x[3, 1] = x[0:, 2] = NAN
    for given in (x, mg.tensor(x), mg.tensor(x, requires_grad=True)):
        assert decode.ctc_greedy(given, [4, 3, 0]) == [[1, 1, 2], [2, 1], []]
    assert decode.ctc_greedy(np.zeros((3, 4))) == [], "of equal classes the lowest one, here the blank"
    assert decode.ctc_greedy(np.zeros((3, 4)), blank=2) == [0]


def ranking(x: np.ndarray, blank: int) -> list[tuple[list[int], float]]:
    sums = {labels: math.fsum(w for _, w in paths) for labels, paths in alignments(x, blank).items()}
    return [(list(labels), math.log(p)) for labels, p in sorted(sums.items(), key=lambda item: -item[1])]


@pytest.mark.parametrize(
    ("frames", "classes", "blank"), [(1, 2, 0), (2, 3, 1), (3, 3, 0), (4, 3, 2), (5, 3, 0), (5, 2, 1)]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_every_labelling(frames: int, classes: int, blank: int, seed: int) -> None:
    x = normal(frames, classes, seed=seed)
    want = ranking(x, blank)
    found = decode.ctc_beam(x, blank=blank, beam=500, top=500)
    assert [labels for labels, _ in found] == [labels for labels, _ in want]
    assert not differences("scores", [score for _, score in found], [score for _, score in want], 1e-12)
    assert decode.ctc_beam(x, blank=blank, beam=500) == found[:1]
    for labels, score in found[:4]:
        loss = losses.ctc(x, labels, frames, len(labels), blank=blank, reduction="sum")
        assert abs(score + loss.item()) < 1e-12


def test_a_narrow_beam_gives_up_alignments_but_invents_none() -> None:
    for seed in range(20):
        x = normal(5, 3, seed=seed)
        exact = {tuple(labels): score for labels, score in ranking(x, 0)}
        found = decode.ctc_beam(x, beam=3, top=3)
        assert len(found) == 3
        assert all(score <= exact[tuple(labels)] + 1e-12 for labels, score in found)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_the_beam_beats_the_best_path() -> None:
    x = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert decode.ctc_greedy(x) == []
    ((labels, score),) = decode.ctc_beam(x)
    assert labels == [1]
    assert abs(score - math.log(0.64)) < 1e-12


def test_equally_likely_sequences_come_in_order() -> None:
    even = np.full((1, 4), math.log(0.25))
    want = [([], math.log(0.25)), ([1], math.log(0.25)), ([2], math.log(0.25))]
    assert decode.ctc_beam(even, beam=3, top=3) == want
    assert decode.ctc_beam(even, beam=3, top=3, blank=3) == [([], want[0][1]), ([0], want[0][1]), ([1], want[0][1])]
    late = np.log([[1e-300, 0.5, 0.5], [1e-300, 0.5, 0.5]])
    found = decode.ctc_beam(late, beam=8, top=4)
    assert len({score for _, score in found}) == 1
    assert [labels for labels, _ in found] == [[1], [1, 2], [2], [2, 1]]
    assert decode.ctc_beam(late, beam=4, top=2) == found[:2]


def test_a_beam_for_each_sequence() -> None:
    x = normal(5, 3, 3)
    lengths = [5, 0, 3]
    found = decode.ctc_beam(mg.tensor(x), lengths, beam=400, top=2)
    for n, length in enumerate(lengths):
        assert found[n] == decode.ctc_beam(x[:length, n], beam=400, top=2)
    assert found[1] == [([], 0.0)]
    x[:] = -INF
    x[:, :, 1] = 0.0
    assert decode.ctc_beam(x[:, 0], top=4) == [([1], 0.0)], "what cannot happen is not found"
    x[2] = -INF
    assert decode.ctc_beam(x[:, 0]) == []


@pytest.mark.parametrize("search", [decode.ctc_greedy, decode.ctc_beam])
def test_refusals_of_decoders(search: Any) -> None:
    bad = X.copy()
    bad[3, 1, 2] = NAN
    for args, options, error, message in [
        ((X[0, 0],), {}, errors.ShapeError, r"\(T, N, C\) or \(T, C\), not \(3,\)"),
        ((X,), {"blank": 3}, errors.UsageError, "blank=3 is none of the classes 0 to 2"),
        ((X, [5, 6]), {}, errors.ShapeError, r"input_lengths\[1\] is 6"),
        ((bad,), {}, errors.UsageError, "NaN or infinity .* sequence 1"),
    ]:
        with pytest.raises(error, match=message):
            search(*args, **options)
    assert len(search(bad, [5, 3])) == 2
    for options in ({"beam": 0}, {"top": 0}, {"beam": 2, "top": 3}):
        with pytest.raises(errors.UsageError, match="1 <= top <= beam"):
            decode.ctc_beam(X, **options)


# --- losses of padded sequences -------------------------------------------------------------------

LENGTHS = [5, 2, 3]
INSIDE = np.array([[t < length for length in LENGTHS] for t in range(5)])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("by", ["mask", "lengths"])
def test_masked_mean_is_over_the_elements_that_count(by: str, batch_first: bool) -> None:
    x, target = draw("masked", [(5, 3, 2), (5, 3, 2)])
    inside = INSIDE
    error = (x - target)[inside]
    slope = np.where(INSIDE[:, :, None], 2 * (x - target) / error.size, 0)
    x[~INSIDE], target[~INSIDE] = NAN, INF
    if batch_first:
        x, target, inside, slope = (a.swapaxes(0, 1) for a in (x, target, inside, slope))
    which = {"mask": inside} if by == "mask" else {"lengths": LENGTHS, "batch_first": batch_first}
    leaf = mg.tensor(x, requires_grad=True)
    loss = losses.masked(losses.mse, leaf, target, **which)
    loss.backward()
    assert not differences("loss", loss.numpy(), (error**2).mean(), 1e-13)
    assert not differences("gradient", leaf.grad.numpy(), slope, 1e-13)
    assert not leaf.grad.numpy()[~inside].any()


def test_masked_cross_entropy_of_sequences() -> None:
    (x,) = draw("masked cross entropy", [(5, 3, 7)])
    target = np.random.default_rng(5).integers(0, 7, (5, 3))
    weight = np.arange(1.0, 8.0)
    logs = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    each = -np.take_along_axis(logs, target[:, :, None], axis=2)[:, :, 0] * INSIDE
    target[~INSIDE], x[~INSIDE] = -1, NAN
    run = {
        r: losses.masked(losses.cross_entropy, x, target, INSIDE, reduction=r).numpy() for r in ("none", "sum", "mean")
    }
    assert not differences("none", run["none"], each, 1e-13)
    assert not differences("sum", run["sum"], each.sum(), 1e-12)
    assert not differences("mean", run["mean"], each.sum() / 10, 1e-13)
    weights = np.where(INSIDE, weight[target], 0)
    got = losses.masked(losses.cross_entropy, x, target, mg.tensor(INSIDE), weight=weight).numpy()
    assert not differences("weighted", got, (each * weights).sum() / weights.sum(), 1e-13)


def test_masked_derivatives_by_differences() -> None:
    xs = draw("masked differences", [(5, 3), (5, 3)])
    for reduction in ("none", "sum", "mean"):
        assert not jacobian_errors(
            reduction, lambda x, y, r=reduction: losses.masked(losses.mse, x, y, lengths=LENGTHS, reduction=r), xs, 1e-8
        )


def test_masked_refusals() -> None:
    x = np.ones((5, 3))
    for which, error, message in [
        ({}, errors.UsageError, "either mask or lengths"),
        ({"mask": INSIDE, "lengths": LENGTHS}, errors.UsageError, "either mask or lengths"),
        ({"mask": INSIDE.astype(float)}, errors.DTypeError, "booleans"),
        ({"mask": INSIDE.T}, errors.ShapeError, r"mask \(3, 5\)"),
        ({"mask": np.zeros((5, 3), bool)}, errors.UsageError, "selects nothing"),
        ({"lengths": [5, 2, 6]}, errors.ShapeError, r"lengths\[2\] is 6"),
        ({"lengths": [5, 2]}, errors.ShapeError, "3 sequences"),
        ({"lengths": LENGTHS, "reduction": "max"}, errors.UsageError, "reduction is"),
    ]:
        with pytest.raises(error, match=message):
            losses.masked(losses.mse, x, x, **which)
    with pytest.raises(errors.ShapeError, match="give a mask"):
        losses.masked(losses.mse, x[0], x[0], lengths=[3])
    assert losses.masked(losses.mse, x, x + 1, np.zeros((5, 3), bool), reduction="sum").item() == 0
