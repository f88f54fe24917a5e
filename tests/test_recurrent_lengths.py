"""Sequences of one batch that end at different steps: padding changes nothing, whatever it holds."""

import numpy as np
import pytest
from arrays import numbers
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn
from minigrad.errors import DTypeError, ShapeError, UsageError

pytestmark = pytest.mark.usefixtures("float64")

T, I, H, P = 5, 3, 7, 2

KINDS = [
    ("RNN", {}),
    ("RNN", {"bidirectional": True, "num_layers": 2}),
    ("GRU", {"batch_first": True}),
    ("GRU", {"bidirectional": True, "reset_after": False}),
    ("LSTM", {}),
    ("LSTM", {"bidirectional": True, "num_layers": 2, "proj_size": P, "batch_first": True}),
    ("LSTM", {"variant": "FGR", "peepholes": "full", "bidirectional": True}),
    ("LSTM", {"variant": "CIFG", "peepholes": "diagonal", "layer_norm": True, "num_layers": 2}),
]
each = pytest.mark.parametrize(("kind", "options"), KINDS, ids=[f"{k} {o}" for k, o in KINDS])


def problem(kind, options, n, steps):
    """A layer, x (n, steps, I), and states (layers * D, n, …)."""
    layer = getattr(nn, kind)(I, H, **options)
    count = layer.num_layers * (1 + layer.bidirectional)
    sizes = layer._state_sizes(layer.proj_size or H)
    return layer, numbers(n, steps, I), [numbers(count, n, size, seed=3 + k) for k, size in enumerate(sizes)]


def call(layer, x, states, **words):
    """Outputs (n, steps, …), final states, and cells of an LSTM; of x as (n, steps, I)."""
    turn = (lambda a: a) if layer.batch_first else (lambda a: mg.swapaxes(a, 0, 1))
    if isinstance(layer, nn.LSTM):
        words["return_cells"] = True
    y, final, *cells = layer(turn(x), tuple(states) if len(states) > 1 else states[0], **words)
    return [turn(y), *(final if isinstance(final, tuple) else (final,)), *map(turn, cells)]


def learn(layer, x, states, ends, rows, **words):
    """All results, and the gradients of a function of every sequence's own steps and final states."""
    layer.zero_grad()
    tensors = [mg.tensor(a, requires_grad=True) for a in (x, *states)]
    results = call(layer, tensors[0], tensors[1:], **words)
    total = 0.0
    for place, (row, length) in enumerate(zip(rows, ends, strict=True)):
        for k, r in enumerate(results):
            part = r[place, :length] if k in whole(layer, results) else r[:, place]
            total = total + (part * numbers(T + 9, *part.shape[1:], seed=20 * row + k)[: len(part)] * (1 + part)).sum()
    total.backward()
    return (
        [r.numpy() for r in results],
        [t.grad.numpy() for t in tensors],
        [p.grad.numpy() for p in layer.parameters()],
    )


def whole(layer, results):
    """Which results are sequences: the outputs, and the cells of an LSTM."""
    return (0, len(results) - 1) if isinstance(layer, nn.LSTM) else (0,)


@each
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(0, T), min_size=1, max_size=4).filter(any),
    extra=st.integers(0, 2),
    junk=st.sampled_from([0.0, 1e3, np.nan, np.inf]),
)
def test_padding_changes_nothing(kind, options, lengths, extra, junk):
    """A padded batch gives each sequence what it gets alone, in results and in gradients, in any order."""
    n = len(lengths)
    layer, x, states = problem(kind, options, n, T + extra)
    for row, length in enumerate(lengths):
        x[row, length:] = junk
    results, gradients, of_parameters = learn(layer, x, states, lengths, range(n), lengths=lengths)
    sums = [np.zeros_like(g) for g in of_parameters]
    for row, length in enumerate(lengths):
        for k in whole(layer, results):
            assert not results[k][row, length:].any()
        assert not gradients[0][row, length:].any()
        own = [s[:, row : row + 1] for s in states]
        if length == 0:
            for final, start in zip(results[1:], own, strict=False):
                np.testing.assert_array_equal(final[:, row : row + 1], start)
            continue
        alone, inputs, parameters = learn(layer, x[row : row + 1, :length], own, [length], [row])
        for k, (a, b) in enumerate(zip(results, alone, strict=True)):
            part = a[row : row + 1, :length] if k in whole(layer, results) else a[:, row : row + 1]
            np.testing.assert_allclose(part, b, rtol=1e-11, atol=1e-12)
        for k, (a, b) in enumerate(zip(gradients, inputs, strict=True)):
            part = a[:, row : row + 1] if k else a[row : row + 1, :length]
            np.testing.assert_allclose(part, b, rtol=1e-10, atol=1e-11)
        sums = [a + b for a, b in zip(sums, parameters, strict=True)]
    for a, b in zip(of_parameters, sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@each
@pytest.mark.parametrize("watched", [True, False])
def test_three_ways_to_say_it(kind, options, watched):
    lengths = [2, 0, 5, 3]
    layer, x, states = problem(kind, options, 4, T)
    mask = np.arange(T) < np.array(lengths)[:, None]
    ways = [{"lengths": lengths}, {"lengths": np.array(lengths)}, {"mask": mask if layer.batch_first else mask.T}]

    def results(words):
        if watched:
            with mg.Tape():
                return call(layer, mg.tensor(x), [mg.tensor(s) for s in states], **words)
        return call(layer, mg.tensor(x), [mg.tensor(s) for s in states], **words)

    want = [r.numpy() for r in call(layer, mg.tensor(x), [mg.tensor(s) for s in states], lengths=mg.tensor(lengths))]
    for words in ways:
        for a, b in zip(results(words), want, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-14)
    full = call(layer, mg.tensor(x), [mg.tensor(s) for s in states], lengths=[T] * 4)
    for a, b in zip(full, call(layer, mg.tensor(x), [mg.tensor(s) for s in states]), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_one_sequence_without_a_batch():
    layer = nn.LSTM(I, H, bidirectional=True)
    x = numbers(T, I)
    short, (h, c), cells = layer(x[:3], return_cells=True)
    for lengths in (3, [3]):
        out, (h_n, c_n), all_cells = layer(x, lengths=lengths, return_cells=True)
        np.testing.assert_allclose(out.numpy(), np.pad(short.numpy(), ((0, 2), (0, 0))), rtol=1e-13)
        np.testing.assert_allclose(all_cells.numpy(), np.pad(cells.numpy(), ((0, 2), (0, 0))), rtol=1e-13)
        np.testing.assert_allclose(h_n.numpy(), h.numpy(), rtol=1e-13)
        np.testing.assert_allclose(c_n.numpy(), c.numpy(), rtol=1e-13)


def test_cells_of_every_step():
    layer = nn.LSTM(I, H, num_layers=2, bidirectional=True, proj_size=P)
    x = mg.tensor(numbers(T, 3, I))
    with mg.Tape() as tape:
        out, (_, c_n), cells = layer(x, return_cells=True)
    assert out.shape == (T, 3, 2 * P)
    assert cells.shape == (T, 3, 2 * H)
    for way, part in (("forward", slice(0, H)), ("reverse", slice(H, None))):
        for t in range(T):
            (node,) = [n for n in tape.nodes if n.scope == f"lstm/layer 1/{way}/t={t}" and n.name == f"c[{t}]"]
            np.testing.assert_array_equal(node.value, cells.numpy()[t, :, part])
    np.testing.assert_array_equal(c_n.numpy()[2], cells.numpy()[-1, :, :H])
    np.testing.assert_array_equal(c_n.numpy()[3], cells.numpy()[0, :, H:])
    assert nn.LSTM(I, H, batch_first=True)(mg.ones(2, T, I), return_cells=True)[2].shape == (2, T, H)


def test_steps_beyond_every_end_are_not_computed():
    layer = nn.GRU(I, H)
    with mg.Tape() as tape:
        layer(mg.tensor(numbers(T, 3, I)), lengths=[2, 3, 1])
    computed = {n.time for n in tape.nodes if "gate" in n.scope}
    assert computed == {0, 1, 2}
    assert {n.op for n in tape.nodes if n.name == "h[1]"} == {"where"}
    assert {n.op for n in tape.nodes if n.name == "h[0]"} == {"add"}


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ({"lengths": [1, 2]}, ShapeError, "3 sequences"),
        ({"lengths": [1, 2, T + 1]}, ShapeError, r"lengths\[2\] is 6"),
        ({"lengths": [1, -1, 2]}, ShapeError, "-1"),
        ({"lengths": [1.0, 2.0, 3.0]}, DTypeError, "integers"),
        ({"mask": np.ones((3, T), bool)}, ShapeError, r"mask has shape \(3, 5\); here it must be \(5, 3\)"),
        ({"mask": np.arange(T * 3).reshape(T, 3) % 2 == 0}, UsageError, "gap"),
        ({"mask": np.ones((T, 3), bool), "lengths": [1, 2, 3]}, UsageError, "one of them"),
    ],
)
def test_refused(words, error, says):
    with pytest.raises(error, match=says):
        nn.GRU(I, H)(mg.ones(T, 3, I), **words)
