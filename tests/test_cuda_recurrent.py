"""The GPU's recurrent kernels and loops, run on the CPU, against the units' equations recorded op by op."""

import itertools

import fake_cupy
import numpy as np
import pytest

import minigrad as mg
from minigrad import _core
from minigrad._cuda_recurrent import PLANS, CudaDevice, layer_kernels

T, N, I, H, P = 5, 3, 7, 11, 2
RTOL = {"float32": 2e-5, "float64": 1e-11}


@pytest.fixture(scope="module")
def device():
    with fake_cupy.pretended() as cupy:
        yield CudaDevice(cupy)


def there(arrays):
    return [None if a is None else fake_cupy.MODULE.asarray(a) for a in arrays]


class Node:
    """What a kernel sees of a recorded node."""

    def __init__(self, arrays, params, kept):
        self.arrays, self.params, self.reserve = arrays, params, kept.reserve

    def operand(self, k):
        return _core.tensor(self.arrays[k])


def numbers(*shape, seed=0, dtype="float64"):
    return (0.6 * np.random.default_rng((seed, *shape)).standard_normal(shape)).astype(dtype)


def layer_of(kind, dtype, **options):
    module = {"rnn": mg.nn.RNN, "gru": mg.nn.GRU, "lstm": mg.nn.LSTM}[kind](I, H, dtype=dtype, **options)
    for k, p in enumerate(module.parameters()):
        p.data = numbers(*p.shape, seed=k, dtype=dtype)
    return module


def case(kind, dtype, lengths=None, batch_first=False, unbatched=False, cells=False, **options):
    """Return the layer, its arrays in the order of the record, the record's parameters, and the cotangents."""
    module = layer_of(kind, dtype, batch_first=batch_first, **options)
    ways = 2 if options.get("bidirectional") else 1
    outputs = options.get("proj_size") or H
    batch = () if unbatched else (N,)
    time = (*batch, T) if batch_first else (T, *batch)
    x = numbers(*time, I, seed=90, dtype=dtype)
    sizes = [outputs, H][: 2 if kind == "lstm" else 1]
    states = [numbers(ways, *batch, size, seed=91 + k, dtype=dtype) for k, size in enumerate(sizes)]
    arrays = [x]
    for way in range(ways):
        arrays += [s[way] for s in states]
        arrays += [p.numpy() for name, p in module.named_parameters() if name.endswith("_reverse") == bool(way)]
    params = {
        "bias": module.bias,
        "states": True,
        "bidirectional": ways == 2,
        "batch_first": batch_first and not unbatched,
        "lengths": lengths,
        "recompute": 0,
        "cells": cells,
        "nonlinearity": options.get("nonlinearity", "tanh"),
        "projection": bool(options.get("proj_size")),
        "peepholes": bool(options.get("peepholes")),
    }
    gs = [numbers(*time, ways * outputs, seed=95, dtype=dtype)]
    gs += [numbers(ways, *batch, size, seed=96 + k, dtype=dtype) for k, size in enumerate(sizes)]
    if cells:
        gs.append(numbers(*time, ways * H, seed=98, dtype=dtype))
    return module, arrays, params, gs, states


def back(kernel, arrays, params, kept, gs, wanted=None):
    return kernel.backward(Node(arrays, params, kept), there(gs), wanted or [True] * len(arrays))


def recorded(module, arrays, params, gs, states, kind):
    """Return results and gradients of the operands, each operation recorded by itself."""
    x = mg.tensor(arrays[0], requires_grad=True)
    hx = [mg.tensor(s, requires_grad=True) for s in states]
    given = tuple(hx) if kind == "lstm" else hx[0]
    more = {"return_cells": True} if params["cells"] else {}
    with mg.Tape():
        out = module(x, given, lengths=params["lengths"], **more)
        results = [out[0], *(out[1] if kind == "lstm" else [out[1]]), *out[2:]]
        loss = sum((y * mg.as_tensor(g)).sum() for y, g in zip(results, gs, strict=True) if g is not None)
    module.zero_grad()
    loss.backward()
    grads, ways = [x.grad], 2 if params["bidirectional"] else 1
    for way in range(ways):
        grads += [s.grad[way] for s in hx]
        grads += [p.grad for name, p in module.named_parameters() if name.endswith("_reverse") == bool(way)]
    return [y.numpy() for y in results], [g.numpy() for g in grads]


def compare(got, wanted, dtype):
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        a = a.get()
        assert a.shape == b.shape, k
        assert a.dtype == b.dtype == dtype, k
        np.testing.assert_allclose(a, b, rtol=RTOL[dtype], atol=RTOL[dtype] * (1 + np.abs(b).max()), err_msg=str(k))


CASES = [
    ("rnn", {}),
    ("rnn", {"nonlinearity": "relu", "bidirectional": True, "lengths": [2, 5, 0]}),
    ("rnn", {"bias": False, "unbatched": True}),
    ("gru", {}),
    ("gru", {"bias": False, "batch_first": True}),
    ("gru", {"bidirectional": True, "lengths": [5, 1, 3]}),
    ("lstm", {}),
    ("lstm", {"bias": False, "cells": True}),
    ("lstm", {"unbatched": True, "bidirectional": True}),
    ("lstm", {"peepholes": "diagonal", "lengths": [4, 0, 5], "cells": True}),
    ("lstm", {"proj_size": P, "lengths": [1, 5, 3], "bidirectional": True}),
    ("lstm", {"proj_size": P, "peepholes": "diagonal", "batch_first": True, "bidirectional": True, "cells": True}),
]
each = pytest.mark.parametrize(("kind", "options"), CASES, ids=[f"{k}-{'-'.join(map(str, o))}" for k, o in CASES])


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_gives_what_its_equations_give(device, kind, options, dtype):
    module, arrays, params, gs, states = case(kind, dtype, **options)
    kernel = layer_kernels(device)[kind]
    results, gradients = recorded(module, arrays, params, gs, states, kind)
    before, moved = len(fake_cupy.Graph.made), there(arrays)
    for _ in range(4):  # a new shape; a plan that is recorded; the same plan again, twice
        kept = kernel.forward(moved, params)
        compare(kept.value, results, dtype)
        for _ in range(2):
            compare(back(kernel, moved, params, kept, gs), gradients, dtype)
        del kept
    assert len(fake_cupy.Graph.made) == before + 2, "one graph forward and one backward"


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_cotangents_that_never_arrived_are_zeros(device, kind):
    module, arrays, params, gs, states = case(kind, "float64", bidirectional=True)
    kernel, moved = layer_kernels(device)[kind], there(arrays)
    for present in itertools.product([True, False], repeat=len(gs)):
        if not any(present):
            continue
        some = [g if yes else None for g, yes in zip(gs, present, strict=True)]
        _, gradients = recorded(module, arrays, params, some, states, kind)
        for _ in range(3):
            kept = kernel.forward(moved, params)
            compare(back(kernel, moved, params, kept, some), gradients, "float64")
            del kept


@each
def test_layers_that_start_at_zeros(device, kind, options):
    module, arrays, params, gs, states = case(kind, "float64", **options)
    results, gradients = recorded(module, arrays, params, gs, [np.zeros_like(s) for s in states], kind)
    ways = 2 if params["bidirectional"] else 1
    number, n = (len(arrays) - 1) // ways, len(states)
    weights = [k for k in range(len(arrays)) if k == 0 or (k - 1) % number >= n]
    arrays, params = [arrays[k] for k in weights], {**params, "states": False}
    kernel = layer_kernels(device)[kind]
    moved = there(arrays)
    for _ in range(3):
        kept = kernel.forward(moved, params)
        compare(kept.value, results, "float64")
        compare(back(kernel, moved, params, kept, gs), [gradients[k] for k in weights], "float64")
        del kept


def test_only_what_is_wanted_is_made(device):
    module, arrays, params, gs, states = case("lstm", "float64", peepholes="diagonal", bidirectional=True)
    kernel = layer_kernels(device)["lstm"]
    _, gradients = recorded(module, arrays, params, gs, states, "lstm")
    moved = there(arrays)
    kept = kernel.forward(moved, params)
    for k in range(len(arrays)):
        found = back(kernel, moved, params, kept, gs, [j == k for j in range(len(arrays))])
        assert [g is None for g in found] == [j != k for j in range(len(arrays))]
        compare([found[k]], [gradients[k]], "float64")


def test_two_calls_before_their_backwards_do_not_share_a_plan(device):
    module, arrays, params, gs, states = case("lstm", "float64")
    other = [2 * arrays[0] + 1, *arrays[1:]]
    kernel = layer_kernels(device)["lstm"]
    moved, also = there(arrays), there(other)
    also[1:] = moved[1:]
    for _ in range(2):
        kernel.forward(moved, params)
    one, two = kernel.forward(moved, params), kernel.forward(also, params)
    for at, held, kept in ((other, also, two), (arrays, moved, one)):
        wanted, gradients = recorded(module, at, params, gs, states, "lstm")
        compare(kept.value, wanted, "float64")
        compare(back(kernel, held, params, kept, gs), gradients, "float64")


def test_a_replay_sees_parameters_that_changed_in_place(device):
    module, arrays, params, gs, states = case("gru", "float64")
    kernel, moved = layer_kernels(device)["gru"], there(arrays)
    for factor in (1.0, 0.5, 1.5):
        for a, b in zip(arrays[2:], moved[2:], strict=True):
            a *= factor
            b.held[...] = a
        for p, a in zip(module.parameters(), arrays[2:], strict=True):
            p.data = a.copy()
        results, gradients = recorded(module, arrays, params, gs, states, "gru")
        kept = kernel.forward(moved, params)
        compare(kept.value, results, "float64")
        compare(back(kernel, moved, params, kept, gs), gradients, "float64")
        del kept


def test_few_plans_are_kept(device):
    kernel = layer_kernels(device)["rnn"]
    for k in range(2 * PLANS):
        _, arrays, params, _, _ = case("rnn", "float64")
        arrays[0] = numbers(T + k, N, I)
        kernel.forward(there(arrays), params)
    assert len(kernel.seen) == PLANS


@pytest.mark.parametrize("empty", [(0, N, I), (T, 0, I)])
def test_what_has_no_elements_is_declined(device, empty):
    _, arrays, params, _, _ = case("lstm", "float64")
    arrays[0] = np.zeros(empty)
    arrays[1:3] = [np.zeros((empty[1], H)), np.zeros((empty[1], H))]
    assert layer_kernels(device)["lstm"].forward(there(arrays), params) is None


def test_other_dtypes_are_declined(device):
    _, arrays, params, _, _ = case("lstm", "float64")
    assert layer_kernels(device)["lstm"].forward(there([a.astype("float16") for a in arrays]), params) is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNN", {}), ("GRU", {"bidirectional": True}), ("LSTM", {"num_layers": 2, "peepholes": "diagonal"})],
)
def test_layers_on_the_device_run_these_kernels_and_copy_nothing(kind, options):
    x = numbers(T, N, I, dtype="float32")

    def run(module, x):
        y, ends = module(x, lengths=[5, 2, 4])
        ends = ends if isinstance(ends, tuple) else (ends,)
        module.zero_grad()
        ((y * y).sum() + sum(e.sum() for e in ends)).backward()
        return [y, *ends, *[p.grad for p in module.parameters()]]

    mg.manual_seed(1)
    module = getattr(mg.nn, kind)(I, H, **options).eval()
    wanted = [a.numpy() for a in run(module, mg.tensor(x))]
    with fake_cupy.pretended():
        module, moved = module.to("cuda"), mg.tensor(x).to("cuda")
        for call in range(3):
            launches, graphs, reads = (
                len(fake_cupy.RawModule.launches),
                len(fake_cupy.Graph.launches),
                fake_cupy.READS[0],
            )
            found = run(module, moved)
            assert fake_cupy.READS[0] == reads, "values were copied to the host"
            each_way = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
            if call == 0:
                assert len(fake_cupy.RawModule.launches) - launches == 2 * T * each_way
            else:
                assert len(fake_cupy.Graph.launches) - graphs == 2 * options.get("num_layers", 1)
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_allclose(a.cpu().numpy(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("batch", [(N,), ()])
def test_cells_on_the_device_are_layers_of_one_step(kind, batch):
    def run(module, x, states):
        for _ in range(2):
            after = module(x, states if kind == "LSTM" else states[0])
            states = list(after) if kind == "LSTM" else [after]
        module.zero_grad()
        sum((k + 1) * (s * s).sum() for k, s in enumerate(states)).backward()
        return states

    mg.manual_seed(2)
    module = getattr(mg.nn, f"{kind}Cell")(I, H, dtype="float64")
    x, states = numbers(*batch, I), [numbers(*batch, H, seed=k) for k in range(2)]
    given = [mg.tensor(a, requires_grad=True) for a in (x, *states)]
    ends = run(module, given[0], given[1:] if kind == "LSTM" else given[1:2])
    used = given if kind == "LSTM" else given[:2]
    wanted = [a.numpy() for a in (*ends, *[p.grad for p in module.parameters()], *[a.grad for a in used])]
    with fake_cupy.pretended():
        module.to("cuda")
        moved = [mg.tensor(a).to("cuda").requires_grad_() for a in (x, *states)]
        launches = len(fake_cupy.RawModule.launches)
        ends = run(module, moved[0], moved[1:] if kind == "LSTM" else moved[1:2])
        assert len(fake_cupy.RawModule.launches) == launches + 4, "two steps, each forward and backward"
        used = moved if kind == "LSTM" else moved[:2]
        found = [a.cpu().numpy() for a in (*ends, *[p.grad for p in module.parameters()], *[a.grad for a in used])]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_higher_derivatives_on_the_device_take_the_equations():
    module = mg.nn.LSTM(2, 3, dtype="float64")
    x, v = numbers(3, 1, 2), numbers(3, 1, 2, seed=1)

    def loss(x):
        return (module(x)[0] ** 2).sum()

    wanted = [mg.hvp(loss, (mg.tensor(x),), (mg.tensor(v),)), mg.jvp(loss, (mg.tensor(x),), (mg.tensor(v),))]
    with fake_cupy.pretended():
        module.to("cuda")
        a, b = mg.tensor(x).to("cuda"), mg.tensor(v).to("cuda")
        found = [mg.hvp(loss, (a,), (b,)), mg.jvp(loss, (a,), (b,))]
        flat = [[leaf.cpu().numpy() for leaf in leaves(part)] for part in found]
    for ours, theirs in zip(flat, wanted, strict=True):
        for p, q in zip(ours, leaves(theirs), strict=True):
            np.testing.assert_allclose(p, q.numpy(), rtol=1e-10)


def leaves(tree):
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, tuple | list) else [tree]
