"""Recurrent layers and steps that run as one operation, against their twins: the units, run operation by operation."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import threading

import numpy as np
import pytest

import minigrad as mg
from minigrad import _core, _cpu, nn
from minigrad.backend import compiled_lane
from minigrad.errors import DTypeError, GraphError, ShapeError
from minigrad.nn.sequence import CELLS, LAYERS
from minigrad.op import PAGE

T, N, I, H, P = 5, 3, 7, 11, 2
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
LENGTHS = np.array([4, 0, T], dtype=np.intp)


def numbers(*shape, seed=0, dtype="float64"):
    return (0.7 * np.random.default_rng((seed, *shape)).standard_normal(shape)).astype(dtype)


def operands_of(kind, dtype="float64", batched=True, whole=True, **given):
    """Return random operands of a record, and its parameters."""
    record = PAGE.composed[kind if whole else f"{kind}_cell"]
    p = {**record.params, **given}
    outputs, rows = P if p.get("projection") else H, GATES[kind] * H
    batch, steps = (N,) if batched else (), (T,) if whole else ()
    shapes = {
        "x": (*batch, *steps, I) if p.get("batch_first") else (*steps, *batch, I),
        "h": (*batch, outputs), "c": (*batch, H), "weight_ih": (rows, I), "weight_hh": (rows, outputs),
        "bias_ih": (rows,), "bias_hh": (rows,), "weight_hr": (P, H), "weight_ph": (3 * H,),
    }  # fmt: skip
    names = record.words(p)
    plain = [name.removesuffix("_reverse").removesuffix("_0") for name in names]
    return [numbers(*shapes[word], seed=k, dtype=dtype) for k, word in enumerate(plain)], p


def outcome(record, operands, p, cotangents=None, needs=None):
    """Return results and gradients of a record; `cotangents` says which results get one, `needs` which operands ask."""
    leaves = [mg.tensor(a, requires_grad=needs is None or k in needs) for k, a in enumerate(operands)]
    results = record(*leaves, **p)
    chosen = range(len(results)) if cotangents is None else cotangents
    total = sum(
        (results[j] * mg.tensor(numbers(*results[j].shape, seed=90 + j, dtype=operands[0].dtype))).sum() for j in chosen
    )
    total.backward()
    return [y.numpy().copy() for y in results], [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]


def both(kind, operands, p, **how):
    """Return the outcome by the kernel and by the twin; the kernel did not decline."""
    record = PAGE.composed[kind]
    assert record.compiled is not None
    before, seen = record.twin, []
    record.twin = lambda *args, **kwargs: seen.append(1) or before(*args, **kwargs)
    try:
        found = outcome(record, operands, p, **how)
    finally:
        record.twin = before
    assert not seen, "the kernel declined"
    with compiled_lane(False):
        return found, outcome(record, operands, p, **how)


def agree(found, wanted, tolerance):
    for ours, theirs in zip(found, wanted, strict=True):
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert (a is None) == (b is None), k
            if a is not None:
                assert a.shape == b.shape
                scale = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0.0))
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=str(k))


OPTIONS = [
    ("rnn", {"nonlinearity": ("tanh", "relu")}),
    ("gru", {}),
    ("lstm", {"projection": (False, True), "peepholes": (False, True), "cells": (False, True)}),
]
SEQUENCE = {
    "bias": (True, False), "states": (True, False), "bidirectional": (True, False), "batch_first": (False, True),
    "lengths": (None, LENGTHS),
}  # fmt: skip


def combinations(choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("kind", "own"),
    [
        pytest.param(kind, own, id=f"{kind}-{'-'.join(map(str, own.values()))}")
        for kind, choices in OPTIONS
        for own in combinations(choices)
    ],
)
def test_every_option_of_a_layer(kind, own, dtype):
    for p in combinations(SEQUENCE):
        operands, p = operands_of(kind, dtype, **own, **p)
        agree(*both(kind, operands, p), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", GATES)
def test_every_option_of_a_step(kind, bias, batched, dtype):
    for own in combinations({k: v for k, v in dict(OPTIONS)[kind].items() if k != "cells"}):
        operands, p = operands_of(kind, dtype, batched, whole=False, bias=bias, **own)
        agree(*both(f"{kind}_cell", operands, p), TOLERANCE[dtype])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("both_ways", [True, False])
def test_a_sequence_without_a_batch(kind, both_ways):
    operands, p = operands_of(kind, batched=False, bidirectional=both_ways, batch_first=True)
    agree(*both(kind, operands, p), 1e-12)


@pytest.mark.parametrize("asked", [{0}, {1}, {2}, {3}, {0, 2}, {1, 3}])
def test_some_results_have_no_cotangent(asked):
    operands, p = operands_of("lstm", cells=True, bidirectional=True, peepholes=True, lengths=LENGTHS)
    agree(*both("lstm", operands, p, cotangents=sorted(asked)), 1e-12)


@pytest.mark.parametrize("kind", GATES)
def test_only_some_operands_ask_for_a_gradient(kind):
    own = {"projection": True, "peepholes": True} if kind == "lstm" else {}
    operands, p = operands_of(kind, bidirectional=True, **own)
    _, whole = outcome(PAGE.composed[kind], operands, p)
    for k in range(len(operands)):
        found, wanted = both(kind, operands, p, needs={k})
        agree(found, wanted, 1e-12)
        np.testing.assert_allclose(found[1][k], whole[k], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", GATES)
def test_a_single_step_and_a_single_sample(kind):
    operands, p = operands_of(kind, bidirectional=True)
    operands[0] = operands[0][:1, :1]
    states = 4 if kind == "lstm" else 2
    places = [k for k, word in enumerate(PAGE.composed[kind].words(p)) if "_0" in word]
    assert len(places) == states
    for k in places:
        operands[k] = operands[k][:1]
    agree(*both(kind, operands, p), 1e-12)


@pytest.mark.parametrize("kind", GATES)
def test_a_batch_of_nothing(kind):
    operands, p = operands_of(kind, states=False)
    operands[0] = operands[0][:, :0]
    (values, gradients), wanted = (outcome(PAGE.composed[kind], operands, p) for _ in range(2))
    assert [y.shape for y in values] == [y.shape for y in wanted[0]]
    assert all(not g.any() for g in gradients[1:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_numbers_that_are_not_finite(kind, bad):
    for own in ({"nonlinearity": "relu"}, {}) if kind == "rnn" else ({},):
        operands, p = operands_of(kind, bidirectional=True, **own)
        operands[0][2, 1, 3] = bad
        with np.errstate(invalid="ignore"):
            found, wanted = both(kind, operands, p)
        for ours, theirs in zip(found, wanted, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        agree(found, wanted, 1e-12)
        if np.isnan(bad):
            assert np.isnan(found[0][0]).any()


def misaligned(a):
    room = np.empty(a.nbytes + 1, np.uint8)[1:]
    found = room.view(a.dtype).reshape(a.shape)
    found[...] = a
    assert not found.flags.aligned
    return found


def strided(a):
    room = np.zeros((*(2 * n for n in a.shape[:-1]), 2 * a.shape[-1]), a.dtype)
    found = room[tuple(slice(None, None, 2) for _ in a.shape)]
    found[...] = a
    return found


LAYOUTS = {
    "misaligned": misaligned,
    "strided": strided,
    "fortran": np.asfortranarray,
    "backwards": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layouts_of_operands(layout, dtype):
    operands, p = operands_of("lstm", dtype, bidirectional=True, projection=True, peepholes=True)
    plain = outcome(PAGE.lstm, operands, p)
    record = PAGE.lstm
    for k in range(len(operands)):
        others = [LAYOUTS[layout](a) if j == k else a for j, a in enumerate(operands)]
        results = record(*[_core.tensor(a, True) for a in others], **p)
        np.testing.assert_array_equal(results[0].numpy(), plain[0][0])
    leaves = [_core.tensor(LAYOUTS[layout](a), True) for a in operands]
    results = record(*leaves, **p)
    sum((y * mg.tensor(numbers(*y.shape, seed=90 + j, dtype=dtype))).sum() for j, y in enumerate(results)).backward()
    for leaf, wanted in zip(leaves, plain[1], strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("layout", ["misaligned", "strided", "broadcast"])
def test_layouts_of_cotangents(layout):
    operands, p = operands_of("lstm")
    leaves = [mg.tensor(a, requires_grad=True) for a in operands]
    results = PAGE.lstm(*leaves, **p)
    one = numbers(1, 1, 1, seed=4)
    plain = [np.broadcast_to(one, y.shape).copy() for y in results]
    layouts = {**LAYOUTS, "broadcast": lambda a: np.broadcast_to(one, a.shape)}
    found = [
        _core.sweep(list(results), [_core.tensor(change(g)) for g in plain], leaves, False, True)
        for change in (np.copy, layouts[layout])
    ]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("every", [1, 2, 3, 4, T, 2 * T])
@pytest.mark.parametrize("kind", GATES)
def test_activations_that_are_computed_again(kind, every):
    for lengths in (None, LENGTHS):
        operands, p = operands_of(kind, bidirectional=True, lengths=lengths)
        kept = outcome(PAGE.composed[kind], operands, p)
        agree(outcome(PAGE.composed[kind], operands, {**p, "recompute": every}), kept, 1e-13)


# --- misuse -------------------------------------------------------------------------------------------------


def test_wrong_shapes_are_named():
    operands, p = operands_of("lstm")
    operands[2] = operands[2][:, :-1]
    with pytest.raises(ShapeError, match=r"^lstm\(x, h_0, c_0, .*c_0 \(3, 10\).*mul"):
        PAGE.lstm(*operands, **p)
    operands, p = operands_of("gru")
    operands[2] = operands[2][:, :-1]
    with pytest.raises(ShapeError, match=r"^gru\(.*weight_ih \(33, 6\)"):
        PAGE.gru(*operands, **p)


def test_two_dtypes_are_refused():
    operands, p = operands_of("rnn")
    operands[1] = operands[1].astype("float32")
    with pytest.raises(DTypeError, match=r"rnn\(x, h_0, .*operands of float64 and of float32"):
        PAGE.rnn(*operands, **p)
    layer = nn.LSTM(I, H)
    with pytest.raises(DTypeError, match="lstm"):
        layer(mg.tensor(numbers(T, N, I)))


def test_lengths_are_checked():
    operands, _ = operands_of("gru")
    for wrong in (np.array([1, T + 1, 2]), np.array([1, -1, 2]), np.array([1, 2])):
        with pytest.raises((ShapeError, ValueError, IndexError)):
            nn.GRU(I, H, dtype="float64")(mg.tensor(operands[0]), lengths=wrong)


def test_a_change_in_place_is_named():
    layer = nn.LSTM(I, H)
    out, _ = layer(mg.tensor(numbers(T, N, I, dtype="float32")))
    with mg.no_grad():
        layer.weight_hh_l0.mul_(2.0)
    with pytest.raises(GraphError, match=r"lstm in layer 0: its operand 'weight_hh' \(tensor 'weight_hh_l0'\)"):
        out.sum().backward()
    out, _ = layer(mg.tensor(numbers(T, N, I, dtype="float32")))
    loss = out.sum()
    with mg.no_grad():
        out.mul_(2.0)
    with pytest.raises(GraphError, match="lstm in layer 0: its result"):
        loss.backward()


# --- layers and cells of nn ---------------------------------------------------------------------------------

MODELS = {
    "rnn": lambda **k: nn.RNN(I, H, dtype="float64", **k),
    "relu": lambda **k: nn.RNN(I, H, nonlinearity="relu", dtype="float64", **k),
    "gru": lambda **k: nn.GRU(I, H, dtype="float64", **k),
    "lstm": lambda **k: nn.LSTM(I, H, dtype="float64", **k),
    "peepholes": lambda **k: nn.LSTM(I, H, peepholes="diagonal", dtype="float64", **k),
    "projection": lambda **k: nn.LSTM(I, H, proj_size=P, dtype="float64", **k),
}


def trained(make, detail, x, seed=7, given=False, **call):
    """Return a layer's results and gradients: unwatched, or under a tape."""
    mg.manual_seed(seed)
    layer = make()
    leaf = mg.tensor(x, requires_grad=True)
    states = ()
    if given:
        D = layer.num_layers * (2 if layer.bidirectional else 1)
        sizes = layer._state_sizes(layer.proj_size or layer.hidden_size)
        states = tuple(
            mg.tensor(numbers(D, x.shape[0 if layer.batch_first else 1], n, seed=k, dtype=x.dtype), requires_grad=True)
            for k, n in enumerate(sizes)
        )
    tape = contextlib.nullcontext() if detail is None else mg.Tape(detail=detail)
    with tape:
        out, *ends = layer(leaf, *([] if not given else [states if len(states) > 1 else states[0]]), **call)
        ends = [s for e in ends for s in (e if isinstance(e, tuple) else (e,))]
        loss = (out * mg.tensor(numbers(*out.shape, seed=1, dtype=x.dtype))).sum()
        for k, s in enumerate(ends):
            loss = loss + (s * mg.tensor(numbers(*s.shape, seed=2 + k, dtype=x.dtype))).sum()
    loss.backward()
    values = [y.numpy() for y in (out, *ends)]
    return tape, out.node.op.name, [values, [p.grad.numpy() for p in (leaf, *states, *layer.parameters())]]


SHAPES = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "batch_first": True, "dropout": 0.3},
    {"num_layers": 3, "bidirectional": True, "bias": False, "dropout": 0.5},
]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 0, T]])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_layers_are_the_same_however_they_are_watched(model, shape, lengths, given):
    x = numbers(N, T, I) if shape.get("batch_first") else numbers(T, N, I)
    call = {"lengths": lengths} if lengths else {}
    if model in ("lstm", "peepholes", "projection"):
        call["return_cells"] = True

    def make():
        return MODELS[model](**shape)

    _, _, wanted = trained(make, "ops", x, given=given, **call)
    for detail in (None, "layers", "cells"):
        tape, op, found = trained(make, detail, x, given=given, **call)
        agree(found, wanted, 1e-12)
        if detail != "cells":
            assert op in LAYERS_NAMED
        if detail is not None:
            counts = [node.op for node in tape.nodes]
            D = 2 if shape.get("bidirectional") else 1
            names = LAYERS_NAMED if detail == "layers" else CELLS_NAMED
            each = (
                1
                if detail == "layers"
                else D * (T if not lengths else sum(any(n > t for n in lengths) for t in range(T)))
            )
            assert sum(counts.count(name) for name in names) == shape.get("num_layers", 1) * each
            assert "sigmoid" not in counts
            assert "tanh" not in counts


LAYERS_NAMED = {op.name for op in LAYERS.values()}
CELLS_NAMED = {op.name for op in CELLS.values()}


@pytest.mark.parametrize("detail", [None, "layers", "cells"])
@pytest.mark.parametrize("model", MODELS)
def test_single_precision_however_it_is_watched(model, detail):
    def make():
        return MODELS[model](num_layers=2).to("float32")

    x = numbers(T, N, I, dtype="float32")
    agree(trained(make, detail, x)[2], trained(make, "ops", x)[2], 1e-5)


WITHOUT_KERNEL = {
    "full peepholes": lambda: nn.LSTM(I, H, peepholes="full"),
    "variant": lambda: nn.LSTM(I, H, variant="CIFG"),
    "cell_clip": lambda: nn.LSTM(I, H, cell_clip=0.5),
    "input_forget": lambda: nn.LSTM(I, H, input_forget=True),
    "activations": lambda: nn.LSTM(I, H, activations=("sigmoid", "tanh", "relu")),
    "clip": lambda: nn.GRU(I, H, clip=0.5),
    "layer_norm": lambda: nn.GRU(I, H, layer_norm=True),
    "zoneout": lambda: nn.RNN(I, H, zoneout=0.3),
    "reset_after": lambda: nn.GRU(I, H, reset_after=False),
    "recurrent_dropout": lambda: nn.GRU(I, H, recurrent_dropout=0.3),
    "weight_drop": lambda: nn.LSTM(I, H, weight_drop=0.3),
    "a function": lambda: nn.RNN(I, H, nonlinearity=lambda a: mg.tanh(a)),
    "elu": lambda: nn.RNN(I, H, nonlinearity="elu"),
}


@pytest.mark.parametrize("option", WITHOUT_KERNEL)
@pytest.mark.parametrize("detail", [None, "layers"])
def test_options_without_a_kernel_run_by_operations(option, detail):
    x = numbers(T, N, I, dtype="float32")
    _, op, found = trained(WITHOUT_KERNEL[option], detail, x)
    assert op == "stack"
    agree(found, trained(WITHOUT_KERNEL[option], "ops", x)[2], 1e-5)


def test_random_options_are_off_outside_of_training():
    layer = nn.GRU(I, H, recurrent_dropout=0.3).eval()
    assert layer(mg.tensor(numbers(T, N, I, dtype="float32")))[0].node.op.name == "gru"


def test_without_a_kernel_layers_run_by_operations():
    layer = nn.LSTM(I, H)
    x = mg.tensor(numbers(T, N, I, dtype="float32"))
    wanted = layer(x)[0].numpy()
    with compiled_lane(False):
        out, _ = layer(x)
    assert out.node.op.name == "stack"
    np.testing.assert_allclose(out.numpy(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("shape", [(N, I), (I,)])
def test_cells(kind, shape):
    cell = getattr(nn, f"{kind}Cell")(I, H, dtype="float64")
    found = []
    for detail in (None, "cells", "layers", "ops"):
        cell.zero_grad()
        x = mg.tensor(numbers(*shape), requires_grad=True)
        states = tuple(mg.tensor(numbers(*shape[:-1], H, seed=k), requires_grad=True) for k in range(2))
        state = states if kind == "LSTM" else states[0]
        with contextlib.nullcontext() if detail is None else mg.Tape(detail=detail) as tape:
            for _ in range(3):
                state = cell(x, state)
        ends = state if kind == "LSTM" else (state,)
        sum((s * s).sum() for s in ends).backward()
        if detail != "ops":
            assert ends[0].node.op.name == f"{kind.lower()}_cell"
        if detail in ("cells", "layers"):
            assert [n.op for n in tape.nodes].count(f"{kind.lower()}_cell") == 3
        grads = [t.grad.numpy() for t in (x, *states[: len(ends)], *cell.parameters())]
        found.append([[s.numpy() for s in ends], grads])
    for one in found[:-1]:
        agree(one, found[-1], 1e-12)


def test_weights_in_two_places():
    """One parameter for two layers, for both directions, for h_0 and c_0: contributions add up."""
    operands, p = operands_of("lstm", bidirectional=True)
    names = PAGE.lstm.words(p)
    place = {name: k for k, name in enumerate(names)}
    results = []
    for lane in (True, False):
        with compiled_lane(lane):
            leaves = [mg.tensor(a, requires_grad=True) for a in operands]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                leaves[place[f"{name}_reverse"]] = leaves[place[name]]
            leaves[place["bias_hh"]] = leaves[place["bias_hh_reverse"]] = leaves[place["bias_ih"]]
            for name in ("c_0", "h_0_reverse", "c_0_reverse"):
                leaves[place[name]] = leaves[place["h_0"]]
            y, h, c = PAGE.lstm(*leaves, **p)
            again = PAGE.lstm(leaves[0] * 0.5, *leaves[1:], **p)
            ((y * y).sum() + h.sum() + (c * c).sum() + (again[0] * 0.7).sum()).backward()
            results.append([leaf.grad.numpy() for leaf in leaves])
    agree([results[0]], [results[1]], 1e-12)


# --- derivatives of other kinds -----------------------------------------------------------------------------


def scalar(kind, p):
    def f(*xs):
        results = PAGE.composed[kind](*xs, **p)
        return sum((y * y * y).sum() for y in results)

    return f


@pytest.mark.parametrize("kind", GATES)
def test_higher_orders_and_forward_mode(kind):
    operands, p = operands_of(kind, bidirectional=True)
    tangents = [numbers(*a.shape, seed=70 + k) for k, a in enumerate(operands)]
    f, every = scalar(kind, p), tuple(range(len(operands)))
    _, moved = mg.jvp(f, operands, tangents)
    gradients = mg.grad(f, every)(*operands)
    np.testing.assert_allclose(moved, sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True)), rtol=1e-12)
    products = mg.hvp(f, operands, tangents)

    def slope(*xs):
        return sum((g * mg.tensor(t)).sum() for g, t in zip(mg.grad(f, every)(*xs), tangents, strict=True))

    over = mg.grad(slope, every)(*[mg.tensor(a) for a in operands])
    for a, b in zip(products, over, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-11)
    with compiled_lane(False):
        np.testing.assert_allclose(mg.jvp(f, operands, tangents)[1], moved, rtol=1e-12)
        for a, b in zip(mg.hvp(f, operands, tangents), products, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("model", MODELS)
def test_gradcheck_of_layers(model):
    kind, options = {"relu": ("rnn", {"nonlinearity": "relu"}), "peepholes": ("lstm", {"peepholes": "diagonal"})}.get(
        model, (model, {})
    )
    layer = (
        nn.LSTM(2, 3, proj_size=2) if kind == "projection" else getattr(nn, kind.upper())(2, 3, **options)
    ).double()
    assert mg.testing.gradcheck(lambda x: layer(x)[0], (numbers(2, 1, 2),), order=2, modes=("reverse", "forward"))


def test_create_graph_through_a_layer():
    layer = nn.LSTM(I, H, num_layers=2, dtype="float64")
    found = []
    for watch in (contextlib.nullcontext(), mg.Tape()):
        layer.zero_grad()
        x = mg.tensor(numbers(T, N, I), requires_grad=True)
        with watch:
            out, _ = layer(x)
            (out * out).sum().backward(create_graph=True)
            norm = (x.grad * x.grad).sum()
        layer.zero_grad()
        norm.backward()
        found.append([p.grad.numpy() for p in layer.parameters()])
    agree([found[0]], [found[1]], 1e-11)


def test_a_checkpoint_around_a_layer():
    layer = nn.GRU(I, H, dtype="float64")
    x = mg.tensor(numbers(T, N, I), requires_grad=True)
    grads = []
    for run in (lambda: layer(x)[0], lambda: mg.checkpoint(lambda x: layer(x)[0], x)):
        layer.zero_grad()
        x.grad = None
        (run() * mg.tensor(numbers(T, N, H, seed=3))).sum().backward()
        grads.append([x.grad.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    agree([grads[1]], [grads[0]], 1e-13)


# --- memory, threads, copies --------------------------------------------------------------------------------


def test_what_is_kept_and_for_how_long():
    layer = nn.LSTM(I, H)
    x = mg.tensor(numbers(T, N, I, dtype="float32"), requires_grad=True)
    start = _cpu.reserved()
    with mg.no_grad():
        out, state = layer(x)
    assert out.node is None
    assert _cpu.reserved() == start
    out, state = layer(x)
    held = _cpu.reserved()
    assert held > start
    loss = out.sum()
    loss.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    assert _cpu.reserved() == held
    loss.backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)
    loss.backward()
    assert _cpu.reserved() == start
    with pytest.raises(GraphError, match="a second time"):
        loss.backward()
    out, state = layer(x)
    del out, state, loss
    assert _cpu.reserved() == start


def test_less_is_kept_where_activations_are_computed_again():
    x = mg.tensor(numbers(211, N, I, dtype="float32"), requires_grad=True)
    kept = []
    for every in (None, 14):
        layer = nn.LSTM(I, H, recompute_every=every)
        start = _cpu.reserved()
        out, _ = layer(x)
        kept.append(_cpu.reserved() - start)
        del out
    assert kept[1] < kept[0] / 3


def test_recompute_every_is_said_and_checked():
    assert "recompute_every=5" in repr(nn.GRU(I, H, recompute_every=5))
    assert "recompute" not in repr(nn.GRU(I, H))
    with pytest.raises(ValueError, match="recompute_every is a positive integer"):
        nn.GRU(I, H, recompute_every=0)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_two_threads_train_at_once(kind):
    def train(seed, found):
        mg_layer = layers[seed]
        optimiser = mg.optim.SGD(mg_layer.parameters(), lr=0.05)
        x = mg.tensor(numbers(T, N, I, seed=seed, dtype="float32"))
        for _ in range(30):
            out = mg_layer(x)[0]
            (out * out).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        found[seed] = {k: v.numpy().copy() for k, v in mg_layer.state_dict().items()}

    outcomes = []
    for threaded in (True, False):
        mg.manual_seed(0)
        layers = [getattr(nn, kind)(I, H, num_layers=2) for _ in range(2)]
        found = {}
        workers = [threading.Thread(target=train, args=(k, found)) for k in range(2)]
        for worker in workers:
            worker.start()
            if not threaded:
                worker.join()
        for worker in workers:
            worker.join()
        outcomes.append(found)
    for k in range(2):
        for name, value in outcomes[0][k].items():
            np.testing.assert_array_equal(value, outcomes[1][k][name])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_modules(again):
    layer = nn.LSTM(I, H, num_layers=2, peepholes="diagonal", recompute_every=3)
    x = mg.tensor(numbers(T, N, I, dtype="float32"))
    other = again(layer)
    np.testing.assert_array_equal(layer(x)[0].numpy(), other(x)[0].numpy())
    assert other(x)[0].node.op.name == "lstm"
    assert pickle.loads(pickle.dumps(PAGE.composed["lstm"])) is PAGE.composed["lstm"]


# --- tapes and explanations ---------------------------------------------------------------------------------


def model_and_loss(kind="LSTM", watch=None, **options):
    """Return a two-layer model, its loss and the losses of its steps, recorded as asked."""
    mg.manual_seed(1)
    net = getattr(nn, kind)(I, H, num_layers=2, dtype="float64", **options)
    x = mg.tensor(numbers(T, N, I), requires_grad=True, name="x")
    states = tuple(mg.tensor(numbers(2, N, H, seed=k), requires_grad=True, name=f"{'hc'[k]}_0") for k in range(2))
    with contextlib.nullcontext() if watch is None else watch:
        out, _ = net(x, states if kind == "LSTM" else states[0])
        losses = [(out[t] * out[t]).sum() for t in range(T)]
        loss = sum(losses[1:], losses[0])
        loss.name = "E"
    return net, x, loss, losses


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("detail", [None, "layers", "cells"])
def test_opened_graphs_have_the_operations_of_watched_ones(kind, detail):
    tape = mg.Tape()
    *_, wanted, _ = model_and_loss(kind, tape)
    watch = None if detail is None else mg.Tape(detail=detail)
    *_, loss, _ = model_and_loss(kind, watch)
    if detail is None:
        nodes = mg.Tape.from_graph(loss).nodes
        plain = mg.Tape.from_graph(wanted).nodes
    else:
        opened = _core.Opened([loss], watch).tape
        nodes, plain = under(opened.nodes[-1]), under(tape.nodes[-1])
    ours, theirs = [n for n in nodes if n.kind == "op"], [n for n in plain if n.kind == "op"]
    if detail == "cells":  # each step cuts the parameters into gates for itself
        ours, theirs = ([n for n in side if n.op not in ("getitem", "mT")] for side in (ours, theirs))
    assert sorted(n.op for n in ours) == sorted(n.op for n in theirs)
    assert {n.scope.removeprefix(kind.lower() + "/") for n in ours if n.time is not None} == {
        n.scope.removeprefix(kind.lower() + "/") for n in theirs if n.time is not None
    }
    if detail is not None:
        assert {n.name for n in ours} == {n.name for n in theirs}


def under(node):
    found, todo = {node.id: node}, [node]
    while todo:
        for x in todo.pop().inputs:
            if x.id not in found:
                found[x.id] = x
                todo.append(x)
    return list(found.values())


def test_opening_leaves_the_graph_as_it_is():
    _, _, loss, _ = model_and_loss()
    below = loss.node.inputs
    nodes = mg.Tape.from_graph(loss).nodes
    assert loss.node.inputs == below
    assert "lstm" not in {n.op for n in nodes}
    loss.backward()
    assert mg.Tape.from_graph(loss).nodes[-1].op == "add"
    assert "lstm" in {n.op for n in mg.Tape.from_graph(loss).nodes}  # freed: there is nothing to open


def test_opening_keeps_the_names_that_callers_gave():
    net, x, _, _ = model_and_loss()
    out, _ = net(x)
    out.name = "mine"
    ledger = mg.explain.paths(out, x, at=((1, 0, 0), (0, 0, 0)), top=1)
    assert str(ledger).startswith("∂mine/∂x")


def test_opening_a_graph_whose_parameters_were_changed_is_refused():
    net, _, loss, _ = model_and_loss()
    with mg.no_grad():
        net.weight_hh_l1.mul_(2.0)
    with pytest.raises(GraphError, match="lstm in layer 1: its operand 'weight_hh'"):
        mg.Tape.from_graph(loss)


@pytest.mark.parametrize("detail", ["layers", "cells"])
def test_tapes_of_what_needs_no_gradient_are_opened(detail):
    net = nn.GRU(I, H, num_layers=2)
    x = mg.tensor(numbers(T, N, I, dtype="float32"))
    with mg.no_grad(), mg.Tape(detail=detail) as tape:
        loss = net(x)[0].sum()
    opened = _core.Opened([loss], tape)
    assert {n.op for n in tape.nodes} & (LAYERS_NAMED | CELLS_NAMED)
    assert not {n.op for n in opened.tape.nodes} & (LAYERS_NAMED | CELLS_NAMED)
    assert opened.tape.of(opened.tensor(loss)).op == "sum"
    assert f"n[{T - 1}]" in {n.name for n in opened.tape.nodes}


def test_nothing_is_copied_where_nothing_is_composed():
    x = mg.tensor(numbers(3), requires_grad=True)
    with mg.Tape() as tape:
        y = mg.tanh(x).sum()
    opened = _core.Opened([y], tape)
    assert opened.tape is tape
    assert opened.tensor(y) is y


@pytest.mark.parametrize("detail", [None, "layers", "cells"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_time_ledgers(kind, detail):
    tape = mg.Tape()
    net, _, _, losses = model_and_loss(kind, tape)
    wanted = mg.explain.bptt(losses, net.weight_hh_l0)
    net, _, _, losses = model_and_loss(kind, None if detail is None else mg.Tape(detail=detail))
    found = mg.explain.bptt(losses, net.weight_hh_l0)
    np.testing.assert_allclose(found.norms, wanted.norms, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.total, wanted.total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("detail", [None, "layers", "cells"])
def test_path_ledgers(detail):
    tape = mg.Tape()
    net, _, loss, _ = model_and_loss("GRU", tape)
    wanted = mg.explain.paths(loss, net.weight_hh_l0, at=(2, 3), by="time", top=3, tape=tape)
    tape = None if detail is None else mg.Tape(detail=detail)
    net, _, loss, _ = model_and_loss("GRU", tape)
    found = mg.explain.paths(loss, net.weight_hh_l0, at=(2, 3), by="time", top=3, tape=tape)
    assert found.count == wanted.count
    np.testing.assert_allclose(found.total, wanted.total, rtol=1e-10)
    assert list(found.groups) == list(wanted.groups)
    for key, group in wanted.groups.items():
        np.testing.assert_allclose(found.groups[key].value, group.value, rtol=1e-9)
        assert found.groups[key].count == group.count
    assert any(edge.time is not None for edge in found.paths[0].edges)


@pytest.mark.parametrize("detail", ["layers", "cells"])
def test_flow_reports(detail):
    tapes = [mg.Tape(), mg.Tape(detail=detail)]
    reports = [mg.explain.flow(model_and_loss("LSTM", tape)[3], tape) for tape in tapes]
    assert [layer.name for layer in reports[0].layers] == [layer.name for layer in reports[1].layers]
    for a, b in zip(reports[0].layers, reports[1].layers, strict=True):
        np.testing.assert_allclose(a.h_norms, b.h_norms, rtol=1e-10)
        np.testing.assert_allclose(a.c_norms, b.c_norms, rtol=1e-10)
    exact, found = (r.truncation(2, 3) for r in reports)
    assert 0 < exact.error < 1
    for word in ("cosine", "ratio", "error"):
        np.testing.assert_allclose(getattr(found, word), getattr(exact, word), rtol=1e-9)


@pytest.mark.parametrize("detail", [None, "layers", "cells"])
def test_equations_and_provenance(detail):
    tape = mg.Tape(detail=detail or "ops")
    net, _, loss, _ = model_and_loss("RNN", tape if detail else None)
    found = mg.explain.equations(net.bias_ih_l1, tape if detail else None, of=loss)
    assert len(found.terms) >= 1
    np.testing.assert_allclose(sum(t.contribution for t in found.terms), found.gradient, rtol=1e-9)
    with mg.Tape(detail=detail or "ops") as tape:
        bad = mg.tensor(numbers(T, N, I))
        bad.numpy()[3, 0, 0] = np.nan
        loss = net(bad)[0].sum()
    origin = mg.explain.provenance(tape, loss).forward
    assert origin is not None
    assert origin.node.kind == "input"
    assert any("[3]" in word for word in origin.route)


@pytest.mark.parametrize("detail", [None, "layers", "cells", "ops"])
def test_pictures(detail):
    watch = None if detail is None else mg.Tape(detail=detail)
    *_, loss, _ = model_and_loss("LSTM", watch)
    view = mg.graph.view_of(loss if watch is None else watch, show=("shape", "value", "grad", "local"))
    ops = [n.op for n in view.nodes]
    assert ops.count("lstm") == (2 if detail == "layers" else 0)
    assert ops.count("lstm_cell") == (2 * T if detail == "cells" else 0)
    if detail == "layers":
        edges = [e for e in view.edges if e.target == next(n.id for n in view.nodes if n.op == "lstm")]
        assert [e.name for e in edges] == ["x", "h_0", "c_0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        assert "lengths" in next(n.params for n in view.nodes if n.op == "lstm")
    assert mg.render(loss if watch is None else watch).svg
