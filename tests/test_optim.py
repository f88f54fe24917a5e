"""Optimisers against their formulas written a second time, PyTorch's trajectories, and problems they must solve."""

import itertools

import numpy as np
import pytest
from arrays import numbers

import minigrad as mg
from minigrad import _cpu, op, optim
from minigrad.errors import FormulaError, GraphError, ShapeError, UsageError

STEPS = 7
UPDATES = op.PAGE.updates

CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.2}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.7, 0.8), "eps": 0.01, "weight_decay": 0.3}),
    ("Adam", {"lr": 0.1, "amsgrad": True, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.4, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.8, "eps": 0.01, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.9, "maximize": True}),
]
each_case = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=["-".join([kind, *(f"{k}={v}" for k, v in o.items())]) for kind, o in CASES]
)


STARTS = [numbers(2, 3), numbers(5), numbers(7, seed=1)]


def gradients(step):
    """Gradients of large and small size, with a gap: the third parameter gets none in every other step."""
    sizes = (1.0, 1e-3, 1e3)
    return [
        None if k == 2 and step % 2 else size * numbers(*p.shape, seed=10 + step)
        for k, (p, size) in enumerate(zip(STARTS, sizes, strict=True))
    ]


def trajectory(kind, options):
    parameters = [mg.nn.Parameter(mg.tensor(p)) for p in STARTS]
    optimizer = getattr(optim, kind)(parameters, **options)
    for step in range(STEPS):
        for p, g in zip(parameters, gradients(step), strict=True):
            p.grad = None if g is None else mg.tensor(g)
        optimizer.step()
        for p, g in zip(parameters, gradients(step), strict=True):
            if g is not None:
                np.testing.assert_array_equal(p.grad.numpy(), g)
    return [p.numpy() for p in parameters]


def sgd(p, gs, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    v = None
    for g in gs:
        g = g + weight_decay * p
        v = g if v is None else momentum * v + (1 - dampening) * g
        p = p - lr * (g + momentum * v if nesterov else v if momentum else g)
    return p


def adam(p, gs, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v)
        second = (largest if amsgrad else v) / (1 - betas[1] ** t)
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(second) + eps)
    return p


def adamw(p, gs, weight_decay=1e-2, **options):
    return adam(p, gs, weight_decay=weight_decay, decoupled=True, **options)


def rmsprop(p, gs, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    v, mean, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for g in gs:
        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        b = momentum * b + g / (np.sqrt(v - mean**2 if centered else v) + eps)
        p = p - lr * b
    return p


FORMULAS = {"SGD": sgd, "Adam": adam, "AdamW": adamw, "RMSprop": rmsprop}


@each_case
def test_trajectories_are_the_formulas(kind, options):
    options = dict(options)
    got = trajectory(kind, options)
    sign = -1 if options.pop("maximize", False) else 1
    for k, (p, y) in enumerate(zip(STARTS, got, strict=True)):
        gs = [sign * gradients(step)[k] for step in range(STEPS) if gradients(step)[k] is not None]
        np.testing.assert_allclose(y, FORMULAS[kind](p, gs, **options), rtol=1e-12)
        assert np.abs(y - p).min() > 0


@pytest.mark.needs("torch")
@each_case
def test_trajectories_are_pytorchs(kind, options):
    torch = pytest.importorskip("torch")
    parameters = [torch.nn.Parameter(torch.tensor(p)) for p in STARTS]
    optimizer = getattr(torch.optim, kind)(parameters, **options)
    for step in range(STEPS):
        for p, g in zip(parameters, gradients(step), strict=True):
            p.grad = None if g is None else torch.tensor(g)
        optimizer.step()
    for a, b in zip(trajectory(kind, options), parameters, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-12)


@each_case
def test_a_state_continues_a_trajectory(kind, options):
    expected = trajectory(kind, options)
    parameters = [mg.nn.Parameter(mg.tensor(p)) for p in STARTS]
    optimizer = getattr(optim, kind)(parameters, **options)
    for step in range(STEPS):
        if step == 4:
            state = optimizer.state_dict()
            parameters = [mg.nn.Parameter(mg.tensor(p.numpy())) for p in parameters]
            old, optimizer = optimizer, getattr(optim, kind)(parameters, lr=123.0)
            optimizer.load_state_dict(state)
            assert repr(optimizer) == repr(old)
        for p, g in zip(parameters, gradients(step), strict=True):
            p.grad = None if g is None else mg.tensor(g)
        optimizer.step()
    for p, e in zip(parameters, expected, strict=True):
        np.testing.assert_array_equal(p.numpy(), e)


@pytest.mark.needs("torch")
@each_case
def test_a_state_of_pytorch_continues_here(kind, options):
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in STARTS]
    first = getattr(torch.optim, kind)(theirs, **options)
    ours, second = None, None
    for step in range(STEPS):
        if step == 4:
            ours = [mg.nn.Parameter(mg.tensor(p.detach().numpy())) for p in theirs]
            second = getattr(optim, kind)(ours)
            second.load_state_dict(first.state_dict())
        for k, g in enumerate(gradients(step)):
            theirs[k].grad = None if g is None else torch.tensor(g)
            if ours:
                ours[k].grad = None if g is None else mg.tensor(g)
        first.step()
        if second:
            second.step()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(("kind", "lr"), [("SGD", 0.1), ("Adam", 0.3), ("AdamW", 0.3), ("RMSprop", 0.05)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_find_a_minimum(kind, lr, dtype):
    target = mg.tensor([3.0, -2.0, 0.5], dtype=dtype)
    x = mg.nn.Parameter(mg.zeros(3, dtype=dtype))
    options = {"weight_decay": 0.0} if kind == "AdamW" else {}
    optimizer = getattr(optim, kind)([x], lr=lr, **options)
    for _ in range(300):
        optimizer.zero_grad()
        mg.losses.half_squared_error(x, target).backward()
        optimizer.step()
    assert x.dtype == dtype
    np.testing.assert_allclose(x.numpy(), target.numpy(), atol=0.03)


def test_groups_have_options_of_their_own():
    a, b, c = (mg.nn.Parameter(mg.ones(k, dtype="float64")) for k in (2, 3, 5))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    optimizer.add_param_group({"params": [c], "lr": 2.0, "weight_decay": 1.0})
    for p in (a, b, c):
        p.grad = mg.ones(*p.shape, dtype="float64")
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.step()
    assert [p.numpy()[0] for p in (a, b, c)] == [0.875, 0.5, -3.0]
    assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]


def test_zero_grad():
    p, q = (mg.nn.Parameter(mg.ones(2)) for _ in range(2))
    optimizer = optim.SGD([p, q], lr=1.0)
    (p * 3).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0, 0]
    assert q.grad is None
    optimizer.zero_grad()
    assert p.grad is None


def test_a_closure_runs_first_and_is_recorded():
    p = mg.nn.Parameter(mg.tensor([2.0]))
    optimizer = optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with mg.no_grad():
        assert optimizer.step(closure).item() == 4
    assert p.numpy()[0] == 1
    assert optimizer.step() is None


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_step_between_forward_and_backward_is_noticed(kind):
    p = mg.nn.Parameter(mg.tensor([2.0, 3.0]))
    optimizer = getattr(optim, kind)([p], lr=0.1)
    y = (p * p).sum()
    y.backward(retain_graph=True)
    memory = p.numpy()
    optimizer.step()
    assert p.numpy() is memory
    assert p.version == 1
    assert p.is_leaf
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda p: optim.SGD([]), "no parameters"),
        (lambda p: optim.SGD(p), "put the tensor into one"),
        (lambda p: optim.SGD([p, p]), "'?weight'? comes twice"),
        (lambda p: optim.Adam([{"params": [p]}, {"params": [p]}]), "comes twice"),
        (lambda p: optim.Adam([p * 2]), "result of an operation"),
        (lambda p: optim.Adam([3.0]), "float"),
        (lambda p: optim.SGD([p], lr=-1.0), "lr=-1.0"),
        (lambda p: optim.SGD([p], nesterov=True), "nesterov"),
        (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), "betas"),
        (lambda p: optim.RMSprop([p], alpha=-0.5), "alpha"),
        (lambda p: optim.SGD([{"params": [p], "rate": 1}]), "rate"),
        (lambda p: optim.Adam([p]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}), r"\[2\]"),
    ],
)
def test_refusals(build, words):
    p = mg.nn.Parameter(mg.ones(2))
    p.name = "weight"
    with pytest.raises(UsageError, match=words):
        build(p)


def test_a_buffer_that_does_not_fit_is_refused():
    p, q = mg.nn.Parameter(mg.ones(2)), mg.nn.Parameter(mg.ones(3))
    first, second = optim.Adam([p]), optim.Adam([q])
    p.grad = mg.ones(2)
    first.step()
    with pytest.raises(ShapeError, match=r"exp_avg of shape \(2,\)"):
        second.load_state_dict(first.state_dict())


@pytest.mark.needs("torch")
def test_defaults_are_pytorchs():
    p = mg.nn.Parameter(mg.ones(2))
    torch = pytest.importorskip("torch")
    for kind in FORMULAS:
        ours = getattr(optim, kind)([p]).defaults
        theirs = getattr(torch.optim, kind)([torch.nn.Parameter(torch.ones(2))]).defaults
        assert ours == {k: theirs[k] for k in ours}
        implementation = {"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
        assert set(theirs) - set(ours) <= implementation


def test_a_model_learns_a_sequence():
    """Everything together: an LSTM remembers its first input, which plain averaging over time could not."""
    mg.manual_seed(0)
    lstm, head = mg.nn.LSTM(2, 11), mg.nn.Linear(11, 1)
    parameters = list(itertools.chain(lstm.parameters(), head.parameters()))
    optimizer = optim.Adam(parameters, lr=0.02)
    random = np.random.default_rng(0)
    losses = []
    for _ in range(250):
        x = random.standard_normal((7, 29, 2)).astype("float32")
        target = mg.tensor((x[0, :, :1] > 0).astype("float32"))
        out, _ = lstm(mg.tensor(x))
        loss = mg.losses.binary_cross_entropy_with_logits(head(out[-1]), target)
        optimizer.zero_grad()
        loss.backward()
        mg.nn.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert np.mean(losses[-10:]) < 0.25


# --- one pass over a parameter -----------------------------------------------------------------------------

VALUES = {"shrink": 0.97, "rate": 0.11, "root": 0.4, "eps": 1e-3, "scale": -0.7, "decay": 0.3, "lr": 0.2}
VALUES |= {"momentum": 0.9, "fresh": 0.6, "b1": 0.8, "n1": 0.2, "b2": 0.95, "n2": 0.05, "alpha": 0.85}


def arrays_for(update, n, dtype):
    """One array for each name, sums of squares positive and large enough for every root."""
    return [
        (a**2 + 9 if name in "vw" else a).astype(dtype)
        for k, name in enumerate(update.arrays)
        for a in [numbers(n, seed=k)]
    ]


@pytest.mark.parametrize("name", sorted(UPDATES))
@pytest.mark.parametrize("n", [0, 1, 3, 7, 8, 15, 16, 17, 31, 65, 127])
@pytest.mark.parametrize(("dtype", "room"), [("float32", 4e-7), ("float64", 4e-16)])
def test_the_compiled_pass_does_what_the_formulas_say(name, n, dtype, room):
    update = UPDATES[name]
    wanted = [a.astype(np.longdouble) for a in arrays_for(update, n, dtype)]
    scope = {
        **{k: np.longdouble(VALUES[k]) for k in update.params},
        **dict(zip(update.arrays, wanted, strict=True)),
        "sqrt": np.sqrt,
        "maximum": np.maximum,
    }
    for result, source in update.sources.items():
        scope[result] = eval(source, {}, scope)
    got = arrays_for(update, n, dtype)
    kernel = _cpu.update_kernels()[name]
    assert kernel(got, [VALUES[k] for k in update.params])
    for word, a in zip(update.arrays, got, strict=True):
        np.testing.assert_allclose(a, scope[word].astype(dtype), rtol=20 * room, atol=20 * room)
    for word, a, before in zip(update.arrays, got, arrays_for(update, n, dtype), strict=True):
        assert word in update.sources or (a == before).all()


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_the_array_lane_takes_what_the_compiled_pass_declines(name):
    update = UPDATES[name]
    plain, strided = arrays_for(update, 13, "float64"), arrays_for(update, 13, "float64")
    strided[0] = np.repeat(strided[0], 2)[::2]
    values = [VALUES[k] for k in update.params]
    kernel = _cpu.update_kernels()[name]
    assert not kernel(strided, values)
    assert not kernel([a.astype(np.float16) for a in plain], values)
    plain[0].flags.writeable = False
    assert not kernel(plain, values)
    plain[0].flags.writeable = True
    update(plain, values)
    update(strided, values)
    for a, b in zip(plain, strided, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_a_formula_names_what_is_there():
    update = op.Update("strange_update(p, g; lr)", {"p": "p - lr * q"}, "a mistake")
    del op.PAGE.updates["strange_update"]
    with pytest.raises(FormulaError, match="'q'"):
        _ = update.formulas
    with pytest.raises(FormulaError, match="two updates"):
        op.Update("sgd(p, g)", {}, "again")


@each_case
@pytest.mark.parametrize("bound", [0.5, 1e6])
def test_a_step_within_a_norm_is_a_step_after_clipping(kind, options, bound):
    ends = []
    for apart in (True, False):
        parameters = [mg.nn.Parameter(mg.tensor(p)) for p in STARTS]
        optimizer = getattr(optim, kind)(parameters, **options)
        for step in range(STEPS):
            for p, g in zip(parameters, gradients(step), strict=True):
                p.grad = None if g is None else mg.tensor(g)
            if apart:
                mg.nn.clip_grad_norm_(parameters, bound)
                optimizer.step()
            else:
                optimizer.step(max_norm=bound)
                for p, g in zip(parameters, gradients(step), strict=True):
                    assert g is None or (p.grad.numpy() == g).all()
        ends.append([p.numpy() for p in parameters])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_bound_of_the_norm_is_not_negative():
    with pytest.raises(UsageError, match="max_norm=-1"):
        optim.SGD([mg.nn.Parameter(mg.ones(2))]).step(max_norm=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 101])
def test_squares_are_summed_in_double_precision(dtype, n):
    x = (1e25 * numbers(n)).astype(dtype)
    np.testing.assert_allclose(_cpu.sum_squares(x), (x.astype(float) ** 2).sum(), rtol=1e-14)
    assert _cpu.sum_squares(np.ones((4, 6), dtype)[:, ::2]) is None
    assert _cpu.sum_squares([1.0]) is None
