"""The GPU's lane beyond the page: devices, hidden copies, indices, random numbers, training, and the tools on top.

Without a GPU it runs on the stand-in of ``fake_cupy.py``, whose kernels g++ compiles.
"""

import ast
import copy
import ctypes
import importlib
import importlib.util
import inspect
import itertools
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest
from arrays import numbers
from ops_checks import host
from test_array_lanes import REAL

import minigrad as mg
from minigrad import _core, backend
from minigrad.errors import DeviceError, MissingExtraError, UsageError
from minigrad.op import LANES, PAGE

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def there() -> Iterator[None]:
    if REAL:
        yield
    else:
        with fake_cupy.pretended():
            yield


@pytest.fixture
def module() -> Any:
    return (
        sys.modules["minigrad._cuda"] if "minigrad._cuda" in sys.modules else importlib.import_module("minigrad._cuda")
    )


stand_in = pytest.mark.skipif(REAL, reason="counts what the stand-in sees")


# --- where tensors live ---------------------------------------------------------------------------------------------


def test_a_tensor_lives_where_its_array_lives() -> None:
    x = mg.tensor([[1.5, -2.0, 3.0]], device="cuda", requires_grad=True)
    assert x.device == "cuda"
    assert (2 * x).sum().device == x.detach().device == x[0, :2].device == "cuda"
    assert x.to("cuda") is x
    assert x.to("cuda:0") is x
    assert x.cpu().device == "cpu"
    assert mg.tensor(_core.data_of(x)).device == "cuda"
    np.testing.assert_array_equal(x.cpu().detach().numpy(), [[1.5, -2.0, 3.0]])
    for made in (mg.zeros(2, 3, device="cuda"), mg.ones(2, device="cuda"), mg.full((3,), 7.5, device="cuda")):
        assert made.device == "cuda"
        assert made.dtype == np.float32
    assert mg.zeros_like(x).device == mg.ones_like(x).device == "cuda"
    assert mg.full((1,), 2.5, device="cuda").item() == 2.5
    assert "device='cuda'" in repr(x)


def test_a_gradient_goes_back_to_where_it_came_from() -> None:
    x = mg.tensor(numbers(3, 5), requires_grad=True)
    y = mg.tanh(x.to("cuda"))
    assert y.device == "cuda"
    (y.cpu() * 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (1 - np.tanh(numbers(3, 5)) ** 2), rtol=1e-12)


def test_modules_move_with_buffers_and_gradients() -> None:
    layer = mg.nn.Linear(5, 3)
    layer.register_buffer("scale", mg.ones(3))
    layer(mg.ones(2, 5)).sum().backward()
    assert layer.to("cuda") is layer
    assert {t.device for t in (*layer.parameters(), layer.scale, layer.weight.grad)} == {"cuda"}
    assert layer.weight.is_leaf
    assert layer.to("cpu").weight.grad.device == "cpu"


def test_copies_stay_where_they_are() -> None:
    x = mg.tensor(numbers(2, 3), device="cuda", requires_grad=True, name="x")
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.clone()):
        assert other.device == "cuda"
        np.testing.assert_array_equal(host(other), numbers(2, 3))
    assert mg.tensor([True], device="cuda").clone().device == "cuda"


@pytest.mark.parametrize(
    "act",
    [
        lambda a, b: a + b,
        lambda a, b: mg.matmul(b, a.T),
        lambda a, b: mg.where(a > 0, a, b),
        lambda a, b: mg.concatenate([a, b]),
        lambda a, b: a.copy_(b),
        lambda a, b: a.add_(b),
        lambda a, b: b.__setitem__(0, a[0]),
        lambda a, b: setattr(a, "data", b),
        lambda a, b: mg.nn.Linear(3, 2)(a),
        lambda a, b: mg.add(a, np.ones((2, 3))),
        lambda a, b: (a.requires_grad_() * 1).backward(b),
        lambda a, b: mg.nn.clip.norm_of([_core.data_of(a), _core.data_of(b)]),
        lambda a, b: mg.from_dlpack(type("Far", (), {"__dlpack_device__": lambda self: (10, 0)})()),
    ],
)
def test_mixing_devices_is_an_error_that_names_the_transfer(act: Any) -> None:
    a, b = mg.tensor(numbers(2, 3), device="cuda"), mg.tensor(numbers(2, 3, seed=1))
    with pytest.raises(DeviceError, match=r"\.to\(\"(cuda|cpu)\"\)|DLPack"):
        act(a, b)


def test_numpy_never_gets_an_array_of_the_gpu_unasked() -> None:
    x = mg.tensor([1.0], device="cuda")
    for act in (lambda: x.numpy(), lambda: np.asarray(x), lambda: x.detach().numpy()):
        with pytest.raises(DeviceError, match=r"\.cpu\(\)"):
            act()
    with pytest.raises(DeviceError, match=r'"cuda"'):
        mg.tensor([1.0]) + x


def test_unknown_devices() -> None:
    for name in ("gpu", "cuda:one", "mps"):
        with pytest.raises(DeviceError, match="unknown device"):
            mg.zeros(2, device=name)
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES=3"):
        mg.tensor([1.0], device="cuda:3")


# --- a machine without ------------------------------------------------------------------------------------------------


def fresh(program: str) -> str:
    """Run a program in an interpreter of its own."""
    text = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "call",
    [
        "mg.tensor([1.0], device='cuda')",
        "mg.tensor([1.0]).to('cuda')",
        "mg.tensor([1.0]).cuda()",
        "mg.nn.GRU(2, 3, device='cuda')",
        "mg.nn.GRU(2, 3).to('cuda')",
        "mg.nn.GRU(2, 3).cuda()",
    ],
)
def test_without_cupy_one_line_says_what_to_install(call: str) -> None:
    said = fresh(
        "class Never:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'cupy': raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')\n"
        "sys.meta_path.insert(0, Never())\n"
        "import minigrad as mg\n"
        f"try: {call}\n"
        "except mg.errors.MissingExtraError as e: print(e)\n"
    )
    assert said == str(MissingExtraError('device="cuda"', "cuda"))
    assert "\n" not in said


@pytest.mark.parametrize(
    ("cupy", "words"),
    [
        (
            "ndarray = type('ndarray', (), {}); cuda = type('C', (), {'is_available': staticmethod(lambda: False)})",
            "finds no GPU",
        ),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "does not load: libcudart.so.13"),
    ],
)
def test_with_cupy_and_without_a_gpu(tmp_path: Path, cupy: str, words: str) -> None:
    (tmp_path / "cupy.py").write_text(cupy)
    said = fresh(
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import minigrad as mg\n"
        "assert 'cupy' not in sys.modules\n"
        "for _ in range(2):\n"
        "    try: mg.zeros(2).cuda()\n"
        "    except mg.errors.DeviceError as e: print(e)\n"
    )
    assert said.count(words) == 2


def test_an_array_of_cupy_brings_its_lane() -> None:
    kind = type(_core.data_of(mg.zeros(1, device="cuda")))
    lane = backend.DEVICES.pop("cuda")
    del LANES[kind]
    try:
        x = mg.tensor(lane.asarray(numbers(3)))
        assert x.device == "cuda"
        np.testing.assert_array_equal(host(x), numbers(3))
    finally:
        backend.DEVICES["cuda"] = LANES[kind] = lane


# --- nothing is copied behind the user's back -------------------------------------------------------------------------


class Tagger(mg.nn.Module):
    """Embedding, dropout, a recurrent layer, and a linear one on top."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.table = mg.nn.Embedding(13, 5, padding_idx=0)
        self.drop = mg.nn.Dropout(0.25)
        self.layer = getattr(mg.nn, kind)(5, 7, num_layers=2)
        self.head = mg.nn.Linear(7, 3)

    def forward(self, symbols: Any) -> Any:
        return self.head(self.layer(self.drop(self.table(symbols)))[0])


def train(device: str, kind: str = "LSTM", steps: int = 3) -> list[float]:
    mg.manual_seed(5)
    model = Tagger(kind).to(device)
    model.drop.p = 0.0  # devices draw their own masks
    rng = np.random.default_rng(1)
    symbols = mg.tensor(rng.integers(0, 13, (11, 2)), device=device)
    target = mg.tensor(rng.integers(0, 3, (22,)), device=device)
    optimizer = mg.optim.AdamW(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        loss = mg.losses.cross_entropy(model(symbols).reshape(22, 3), target)
        optimizer.zero_grad()
        loss.backward()
        mg.nn.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step(max_norm=0.4)
        losses.append(loss)
    return [loss.item() for loss in losses]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_training_takes_the_same_way_as_on_the_cpu(kind: str) -> None:
    near, far = train("cpu", kind), train("cuda", kind)
    assert near[-1] < near[0]
    np.testing.assert_allclose(far, near, rtol=1e-4)


@stand_in
def test_training_reads_nothing_from_the_device() -> None:
    reads: list[int] = []
    mg.manual_seed(5)
    model = Tagger("LSTM").to("cuda")
    symbols = mg.tensor(np.arange(22).reshape(11, 2) % 13, device="cuda")
    target = mg.tensor(np.arange(22) % 3, device="cuda")
    optimizer = mg.optim.RMSprop(model.parameters(), momentum=0.5, centered=True)
    with mg.Tape():
        for _ in range(2):
            before = fake_cupy.READS[0]
            loss = mg.losses.cross_entropy(model(symbols).reshape(22, 3), target)
            loss.backward(retain_graph=True)
            mg.nn.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step(max_norm=0.4)
            reads.append(fake_cupy.READS[0] - before)
    assert reads == [0, 0]
    assert math.isfinite(loss.item())


# --- indices ----------------------------------------------------------------------------------------------------------

OUTSIDE = {
    "embedding": lambda i: mg.embedding(mg.tensor(numbers(5, 3), device="cuda"), i(0, 5)),
    "getitem": lambda i: mg.tensor(numbers(5, 3), device="cuda")[i(-6, 2)],
    "second axis": lambda i: mg.tensor(numbers(4, 5, 3), device="cuda")[..., i(4, 5), i(0, 1)],
    "after a mask": lambda i: mg.tensor(numbers(2, 3, 5), device="cuda")[
        mg.tensor(np.ones((2, 3), bool), device="cuda"), i(*([5] * 6))
    ],
    "setitem": lambda i: mg.zeros(5, device="cuda").__setitem__(i(1, 5), 2.0),
    "cross_entropy": lambda i: mg.losses.cross_entropy(mg.zeros(2, 5, device="cuda"), i(1, 5)),
    "ctc": lambda i: mg.losses.ctc(mg.zeros(4, 1, 5, device="cuda"), i(1, 5).reshape(1, 2), [4], [2]),
}


def index(*places: int) -> Any:
    return mg.tensor(np.array(places), device="cuda")


@pytest.mark.parametrize("name", list(OUTSIDE))
def test_a_place_outside_is_found_when_values_are_next_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = mg.ones(1, device="cuda")
    assert probe.item() == 1
    with mg.scope("t=3"):
        OUTSIDE[name](index)
    with pytest.raises(IndexError, match=r"(index|target).* (5|-6).* \(found on the GPU in t=3; MINIGRAD_DEBUG=1"):
        probe.item()
    assert probe.item() == 1
    monkeypatch.setenv("MINIGRAD_DEBUG", "1")
    with pytest.raises(IndexError):
        OUTSIDE[name](index)


def test_checks_that_wait_do_not_pile_up() -> None:
    lane = backend.DEVICES["cuda"]
    table = mg.tensor(numbers(5, 3), device="cuda")
    for _ in range(2 * lane.MOST_DEMANDS):
        mg.embedding(table, index(0, 4))
        assert len(lane._demands) <= lane.MOST_DEMANDS + 1
    outside = index(5)
    with pytest.raises(IndexError):
        list(map(mg.embedding, [table] * (lane.MOST_DEMANDS + 2), [outside] * (lane.MOST_DEMANDS + 2)))
    lane._demands.clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((7, 3), np.array([2, 0, 2, -1, 2, 6])),
        ((7, 3, 2), np.array([[1, 1], [-7, 5]])),
        ((7, 3), (np.array([1, 1, -1]), np.array([2, 2, 0]))),
        ((7, 3), (slice(1, 6, 2), np.array([2, 2, 0, 1]))),
        ((7, 3), np.arange(21).reshape(7, 3) % 2 == 0),
        ((7, 3), np.zeros(0, np.int64)),
        ((7, 3), (slice(None), 1)),
    ],
)
def test_adding_at_an_index_has_the_bits_of_numpy(shape: Any, place: Any, dtype: str) -> None:
    lane = backend.DEVICES["cuda"]
    out = numbers(*shape, seed=3, dtype=dtype)
    values = numbers(*out[place].shape, seed=4, dtype=dtype)
    wanted = out.copy()
    np.add.at(wanted, place, values)
    got = lane.index_add(lane.asarray(out), backend.as_index(lane, place), lane.asarray(values))
    if isinstance(place, tuple):  # NumPy walks through these in an order of its own
        np.testing.assert_allclose(lane.to_numpy(got), wanted, rtol=4 * np.finfo(dtype).eps)
    else:
        np.testing.assert_array_equal(lane.to_numpy(got), wanted)


# --- random numbers ---------------------------------------------------------------------------------------------------


@stand_in
def test_philox_has_its_authors_numbers(module: Any) -> None:
    """The known answers of Random123's test of philox4x32 with ten rounds: counters and keys of zeros and of ones."""
    text = module.PHILOX + (
        'extern "C" void NAME(unsigned long long key, unsigned long long counter, unsigned int *out)'
        "{ mg_words c = mg_philox(key, counter); for (int k = 0; k < 4; ++k) out[k] = c.w[k]; }"
    )
    words = (ctypes.c_uint32 * 4)()
    fake_cupy.COMPILER.function(fake_cupy.COMPILER.add(text))(ctypes.c_uint64(0), ctypes.c_uint64(0), words)
    assert [f"{w:08x}" for w in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_are_what_they_say(dtype: str) -> None:
    mg.manual_seed(11)
    u = host(mg.rand(20011, dtype=dtype, device="cuda"))
    n = host(mg.randn(20011, dtype=dtype, device="cuda"))
    assert u.dtype == n.dtype == dtype
    assert 0 <= u.min() < 1e-3 < 0.999 < u.max() < 1
    assert np.abs(np.histogram(u, 10)[0] - 2001).max() < 170
    for k, wanted in enumerate((0, 1, 0, 3), 1):
        assert abs((n.astype(float) ** k).mean() - wanted) < 0.15, k
    assert len(np.unique(u)) > 19900
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.02


def test_seeds_repeat_and_states_come_back() -> None:
    def drawn() -> list[Any]:
        drop = mg.nn.Dropout(0.5)
        return [host(drop(mg.ones(7, 13, device="cuda"))), host(mg.randn(3, device="cuda"))]

    mg.manual_seed(3)
    first = drawn()
    state = backend.random_states()
    more = drawn()
    assert not np.array_equal(first[0], more[0])
    backend.set_random_states(state)
    for a, b in zip(more, drawn(), strict=True):
        np.testing.assert_array_equal(a, b)
    mg.manual_seed(3)
    for a, b in zip(first, drawn(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(np.unique(first[0])) == {0.0, 2.0}
    assert 25 < (first[0] == 0).sum() < 66
    mg.manual_seed(4)
    assert not np.array_equal(first[1], drawn()[1])


def test_one_seed_starts_one_model_anywhere() -> None:
    mg.manual_seed(7)
    near = mg.nn.LSTM(3, 5)
    mg.manual_seed(7)
    far = mg.nn.LSTM(3, 5, device="cuda")
    for a, b in zip(near.parameters(), far.parameters(), strict=True):
        np.testing.assert_array_equal(host(a), host(b))


# --- optimisers -------------------------------------------------------------------------------------------------------

OPTIMISERS = [
    (mg.optim.SGD, {}),
    (mg.optim.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (mg.optim.SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    (mg.optim.Adam, {"weight_decay": 0.1}),
    (mg.optim.Adam, {"amsgrad": True}),
    (mg.optim.AdamW, {}),
    (mg.optim.RMSprop, {}),
    (mg.optim.RMSprop, {"centered": True, "weight_decay": 0.1}),
    (mg.optim.RMSprop, {"momentum": 0.8}),
    (mg.optim.RMSprop, {"momentum": 0.8, "centered": True}),
]
SHAPES = [(97, 101), (3,), (), (0, 5), (13, 7, 2)]


def stepped(device: str, kind: Any, options: dict[str, Any], dtype: str, max_norm: float | None) -> Any:
    params = [mg.tensor(numbers(*s, seed=1, dtype=dtype), device=device, requires_grad=True) for s in SHAPES]
    optimizer = kind([{"params": params[:3]}, {"params": params[3:], "lr": 0.02}], lr=0.1, **options)
    for t in range(4):
        for k, p in enumerate(params):
            skip = k == 1 and t == 0  # this one starts a step later
            p.grad = None if skip else mg.tensor(numbers(*p.shape, seed=9 + t, dtype=dtype), device=device)
        optimizer.step(max_norm=max_norm)
    return params, optimizer


@pytest.mark.parametrize("max_norm", [None, 2.5, 1e6])
@pytest.mark.parametrize(("dtype", "room"), [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(("kind", "options"), OPTIMISERS)
def test_optimisers_do_what_they_do_on_the_cpu(
    kind: Any, options: dict[str, Any], dtype: str, room: float, max_norm: float | None
) -> None:
    near, far = (stepped(device, kind, options, dtype, max_norm) for device in ("cpu", "cuda"))
    for a, b in zip(near[0], far[0], strict=True):
        np.testing.assert_allclose(host(b), host(a), rtol=room, atol=room)
    held = far[1].state_dict()["state"]
    assert all(x.device == "cuda" for state in held.values() for x in state.values() if isinstance(x, mg.Tensor))


@stand_in
def test_all_parameters_change_in_one_launch() -> None:
    params = [mg.tensor(numbers(*s, dtype="float32"), device="cuda", requires_grad=True) for s in SHAPES]
    optimizer = mg.optim.Adam(params)
    for _ in range(2):
        for p in params:
            p.grad = mg.ones_like(p)
        before = len(fake_cupy.RawModule.launches)
        optimizer.step(max_norm=1.0)
        assert fake_cupy.RawModule.launches[before:] == ["minigrad_squares_float", "minigrad_adam_float32"]


def test_an_optimisers_state_follows_its_parameters(tmp_path: Path) -> None:
    results = []
    for moves in (False, True):
        mg.manual_seed(0)
        model = mg.nn.Linear(3, 5)
        optimizer = mg.optim.Adam(model.parameters(), lr=0.1)
        for t in range(4):
            if moves:
                model.to("cuda" if t % 2 else "cpu")
            optimizer.zero_grad()
            (model(mg.ones(2, 3, device=model.weight.device)) ** 2).sum().backward()
            optimizer.step()
        other = mg.optim.Adam(mg.nn.Linear(3, 5).parameters())
        other.load_state_dict(optimizer.state_dict())
        assert other.state_dict()["state"][0]["exp_avg"].device == "cpu"
        results.append(host(model.weight))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


@pytest.mark.parametrize("p", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_gradients_are_clipped_as_on_the_cpu(p: float, max_norm: float) -> None:
    found = []
    for device in ("cpu", "cuda"):
        params = [mg.tensor(np.zeros(s, "float32"), device=device, requires_grad=True) for s in SHAPES]
        for k, x in enumerate(params):
            x.grad = mg.tensor(numbers(*x.shape, seed=k, dtype="float32"), device=device)
        total = mg.nn.clip_grad_norm_(params, max_norm, p)
        assert total.device == device
        found.append([host(total), *(host(x.grad) for x in params)])
    for near, far in zip(*found, strict=True):
        np.testing.assert_allclose(far, near, rtol=1e-6)


def test_a_norm_that_is_not_finite() -> None:
    x = mg.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    x.grad = mg.tensor([math.inf, 1.0], device="cuda")
    with pytest.raises(mg.errors.GraphError, match="inf"):
        mg.nn.clip_grad_norm_([x], 1.0, error_if_nonfinite=True)
    with pytest.raises(UsageError):
        mg.nn.clip_grad_norm_([x], 1.0, 0)
    x.grad = mg.tensor([math.nan, 1.0], device="cuda")
    mg.nn.clip_grad_norm_([x], 1.0)
    assert np.isnan(host(x.grad)).all()
    mg.nn.clip_grad_value_([x], 1.0)


# --- tapes, ledgers, pictures, files ----------------------------------------------------------------------------------


def watched(device: str) -> tuple[Any, Any, Any]:
    mg.manual_seed(2)
    layer = mg.nn.LSTM(3, 4, dtype="float64").to(device)
    x = mg.tensor(numbers(4, 2, 3), device=device, requires_grad=True, name="x")
    with mg.Tape() as tape:
        out, _ = layer(x)
        losses = [(out[t] ** 2).sum() for t in range(4)]
        total = sum(losses[1:], losses[0])
    return layer, tape, (x, losses, total)


def test_ledgers_read_models_of_the_gpu() -> None:
    found = []
    for device in ("cpu", "cuda"):
        layer, tape, (x, losses, total) = watched(device)
        time = mg.explain.bptt(losses, layer.weight_hh_l0)
        flow = mg.explain.flow(losses, tape)
        paths = mg.explain.paths(total, x, at=(1, 0, 2), top=3)
        equations = mg.explain.equations(layer.weight_hh_l0, of=total)
        found.append([time.norms, np.asarray(time.total), flow.h_norms, paths.total, paths.count, str(equations)])
        total.backward()
        found[-1].append(host(x.grad))
    for near, far in zip(*found, strict=True):
        if isinstance(near, str):
            assert far == near
        else:
            np.testing.assert_allclose(far, near, rtol=1e-9, atol=1e-12)


def test_pictures_are_those_of_the_cpu(tmp_path: Path) -> None:
    texts = []
    for device in ("cpu", "cuda"):
        _, tape, (_, _, total) = watched(device)
        total.backward()
        path = tmp_path / f"{device}.dot"
        mg.render(tape, str(path), show=("shape", "value", "grad", "local"))
        texts.append(path.read_text())
    assert len(texts[0]) > 1000
    number = re.compile(r"-?\d+\.?\d*(e[-+]\d+)?")
    assert number.sub("#", texts[0]) == number.sub("#", texts[1])


@stand_in
def test_a_tape_copies_no_value_until_it_is_asked() -> None:
    before = fake_cupy.READS[0]
    _, tape, _ = watched("cuda")
    assert fake_cupy.READS[0] == before
    assert {node.shape for node in tape.nodes}


def test_gradcheck_on_the_gpu() -> None:
    x = mg.tensor(numbers(2, 3), device="cuda", requires_grad=True)
    assert mg.testing.gradcheck(lambda x: mg.softmax(mg.tanh(x), axis=1) * x, [x], order=2)


def test_functional_transforms_on_the_gpu() -> None:
    x = mg.tensor(numbers(3), device="cuda")
    jacobian = mg.jacobian(lambda x: x * x)(x)
    np.testing.assert_allclose(host(jacobian), np.diag(2 * numbers(3)), rtol=1e-12)
    value, slope = mg.value_and_grad(lambda x: mg.sum(x**3))(x)
    np.testing.assert_allclose(host(slope), 3 * numbers(3) ** 2, rtol=1e-12)
    assert value.device == slope.device == "cuda"


def test_state_goes_through_files(tmp_path: Path) -> None:
    near, far = mg.nn.GRU(3, 5), mg.nn.GRU(3, 5, device="cuda")
    far.load_state_dict(near.state_dict())
    np.testing.assert_array_equal(host(far.weight_ih_l0), host(near.weight_ih_l0))
    far.weight_ih_l0.data = far.weight_ih_l0.data * 2
    near.load_state_dict(far.state_dict())
    np.testing.assert_array_equal(host(far.weight_ih_l0), near.weight_ih_l0.numpy())


def test_a_value_that_is_not_finite_is_found() -> None:
    x = mg.tensor([1.0, 0.0], device="cuda", requires_grad=True)
    with mg.Tape() as tape:
        loss = (mg.log(x) * 2).sum()
    assert "log" in str(mg.explain.provenance(tape, loss))


def test_decoding_and_metrics_read_on_purpose() -> None:
    frames = mg.log(mg.tensor([[0.6, 0.4], [0.6, 0.4]], device="cuda"))
    ((labels, _),) = mg.decode.ctc_beam(frames)
    assert labels == [1]


# --- the two backends and the stand-in are held together --------------------------------------------------------------


def functions(text: str) -> dict[str, list[str]]:
    tree = ast.parse(text)
    return {
        node.name: [a.arg for a in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_backends_have_the_same_functions_and_kernels() -> None:
    cpu, cuda = (ROOT / "minigrad" / name for name in ("_cpu.pyi", "_cuda.py"))
    near, far = functions(cpu.read_text()), functions(cuda.read_text())
    shared = {name for name in near if name in far}
    assert shared >= {"connect", "isa", "sum_squares", "update_kernels"}
    assert {name: far[name] for name in shared} == {name: near[name] for name in shared}


def parameters(function: Any) -> list[Any]:
    return [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]


def test_lanes_have_the_same_methods() -> None:
    base = backend.ArrayLane
    for lane in (type(backend.NUMPY), type(backend.DEVICES["cuda"])):
        for name, method in inspect.getmembers(lane, inspect.isfunction):
            if name.startswith("_") or not hasattr(base, name):
                continue
            assert parameters(method) == parameters(getattr(base, name)), (lane, name)


def test_every_record_of_the_compiled_lane_has_a_kernel_on_the_gpu() -> None:
    compiled = {op.name for op in PAGE if op.compiled is not None}
    own = set(backend.DEVICES["cuda"].kernels)
    # CuPy's own views and gathers; reductions and what is made of them, a few launches each whatever the size.
    of_cupy = {"getitem", "embedding", "cross_entropy"}
    assert compiled - of_cupy - own == set()
    assert set(backend.DEVICES["cuda"].updates) == set(PAGE.updates)


@pytest.mark.needs("cupy")
def test_the_stand_in_has_the_functions_of_cupy() -> None:
    said = fresh(
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import cupy, fake_cupy\n"
        "wrong = [name for name in fake_cupy.UFUNCS if not isinstance(getattr(cupy, name, None), cupy.ufunc)]\n"
        "wrong += [name for name in fake_cupy.AS_IT_IS if not hasattr(cupy, name)]\n"
        "wrong += [(n, w, fake_cupy.signature(getattr(cupy, n))) for n, w in fake_cupy.PARAMETERS.items()\n"
        "          if fake_cupy.signature(getattr(cupy, n)) != w]\n"
        "print(wrong)\n"
    )
    assert said == "[]"


# --- the shim ---------------------------------------------------------------------------------------------------------


def raw(code: str, name: str, **options: Any) -> Any:
    return fake_cupy.RawModule(code=code, **options).get_function(name)


@stand_in
def test_barriers_shuffles_and_shared_memory() -> None:
    code = """
    extern "C" __global__ void total(const double *x, double *out, int n) {
      extern __shared__ double part[];
      double mine = 0;
      for (int k = threadIdx.x + blockIdx.x * blockDim.x; k < n; k += blockDim.x * gridDim.x) mine += x[k];
      for (int by = 16; by > 0; by /= 2) mine += __shfl_down_sync(0xffffffffu, mine, by);
      if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = mine;
      __syncthreads();
      if (threadIdx.x == 0) { double sum = 0; for (int w = 0; w < 3; ++w) sum += part[w]; atomicAdd(out, sum); }
    }"""
    x, out = fake_cupy.ndarray(numbers(1009)), fake_cupy.ndarray(np.zeros(1))
    raw(code, "total")((5,), (96,), (x, out, np.int32(1009)), shared_mem=24)
    np.testing.assert_allclose(out.held, x.held.sum(), rtol=1e-12)


@stand_in
def test_a_grid_waits_for_all_its_blocks() -> None:
    code = """
    namespace cg = cooperative_groups;
    extern "C" __global__ void steps(double *x, int n) {
      extern __shared__ double kept[];
      kept[threadIdx.x] = blockIdx.x;
      for (int t = 0; t < n; ++t) {
        double next = 0;
        for (int k = 0; k < 12; ++k) next += x[t % 2 * 12 + k] * (k + 1) / 78;
        x[(t + 1) % 2 * 12 + blockIdx.x * 4 + threadIdx.x] = next + kept[threadIdx.x];
        cg::this_grid().sync();
      }
    }"""
    x = numbers(2, 12)
    wanted = x[0].copy()
    for _ in range(5):
        wanted = np.full(12, (wanted * np.arange(1, 13)).sum() / 78) + np.arange(12) // 4
    array = fake_cupy.ndarray(x)
    raw(code, "steps", enable_cooperative_groups=True)((3,), (4,), (array, np.int32(5)), shared_mem=32)
    np.testing.assert_allclose(array.held[1], wanted, rtol=1e-12)


@stand_in
def test_a_barrier_that_some_never_reach_is_reported() -> None:
    code = 'extern "C" __global__ void stuck(int n) { if (threadIdx.x < n) __syncthreads(); }'
    raw(code, "stuck")((1,), (8,), (np.int32(8),))
    with pytest.raises(RuntimeError, match="never come to a barrier"):
        raw(code, "stuck")((1,), (8,), (np.int32(5),))


@stand_in
def test_arguments_of_the_wrong_size_are_refused() -> None:
    launch = raw('extern "C" __global__ void f(double *x, int n, double a) { x[0] = a * n; }', "f")
    x = fake_cupy.ndarray(np.zeros(1))
    launch((1,), (1,), (x, np.int32(3), np.float64(0.5)))
    assert x.held[0] == 1.5
    for args in itertools.product((x, np.float64(1)), (np.int32(3), np.int64(3)), (np.float64(1), np.float32(1))):
        if [type(a) for a in args] != [fake_cupy.ndarray, np.int32, np.float64]:
            with pytest.raises(AssertionError):
                launch((1,), (1,), args)
