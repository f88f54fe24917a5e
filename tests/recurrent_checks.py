"""The agreement of recurrent units with their oracles: every check returns its largest deviation.

The suite runs each of them (test_recurrent_agreement.py), and ``python tests/recurrent_checks.py`` writes what they
return into docs/recurrent.md.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from arrays import numbers
from recurrent_oracles import Odyssey, gru_step, lstm_step, rnn_step, sigma

import minigrad as mg
from minigrad import nn

Array = np.ndarray[Any, Any]
PAGE = Path(__file__).parents[1] / "docs" / "recurrent.md"
N, T, I, H, P = 3, 5, 7, 11, 2

EQUATIONS = "equations in NumPy"
BACKWARD = "equations in NumPy, forward and backward"
FIRST = "central differences"
SECOND = "central differences, second order"
TORCH = "PyTorch"
# What each oracle allows, and what "rounded up to a power of ten" starts from.
LIMITS = {EQUATIONS: 1e-12, BACKWARD: 1e-12, FIRST: 1e-7, SECOND: 1e-7, TORCH: 1e-10}
FLOORS = {EQUATIONS: 1e-12, BACKWARD: 1e-12, FIRST: 1e-9, SECOND: 1e-9, TORCH: 1e-12}


class Row(NamedTuple):
    unit: str
    option: str
    oracle: str


CHECKS: dict[Row, Callable[[], float]] = {}


def add(unit: str, option: str, oracle: str, run: Callable[..., float], *args: Any) -> None:
    row = Row(unit, option, oracle)
    assert row not in CHECKS, row
    CHECKS[row] = functools.partial(run, *args)


def deviation(got: Any, want: Any) -> float:
    """Return the largest difference, relative where numbers are large; NaN counts as infinite."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.abs(want).max() > 0, "an oracle of zeros proves nothing"
    off = np.abs(got - want).max() / max(1.0, np.abs(want).max())
    return float(off) if np.isfinite(off) else math.inf


def filled(module: nn.Module) -> dict[str, Array]:
    """Give every parameter random values, gains and shifts too; return them."""
    values = {}
    for k, (name, parameter) in enumerate(module.named_parameters()):
        values[name] = 0.6 * numbers(*parameter.shape, seed=k + 50)
        with mg.no_grad():
            parameter.copy_(mg.tensor(values[name]))
    return values


def words(options: dict[str, Any]) -> str:
    def word(value: Any) -> str:
        return "a function" if callable(value) else f"{value}" if isinstance(value, str) else f"{value!r}"

    return ", ".join(f"{k}={word(v)}" for k, v in options.items()) or "as it is"


# --- the Odyssey: nine architectures, peepholes, forward and backward ---------------------------------------

ARCHITECTURES = [
    (variant, peepholes)
    for variant, peepholes in itertools.product(
        ("V", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR"), (None, "diagonal", "full")
    )
    if variant != "NP" or peepholes is None
]


def odyssey(variant: str, peepholes: str | None) -> float:
    """Values, deltas on the tape, gradients of parameters, input and initial states."""
    lstm = nn.LSTM(I, H, peepholes=peepholes, variant=variant)
    values = {k.removesuffix("_l0"): v for k, v in filled(lstm).items()}
    x, h, c = numbers(T, N, I), numbers(1, N, H, seed=1), numbers(1, N, H, seed=2)
    above, to_h, to_c = numbers(T, N, H, seed=3), numbers(1, N, H, seed=4), numbers(1, N, H, seed=5)
    leaves = {k: mg.tensor(v, requires_grad=True) for k, v in {"x": x, "h_0": h, "c_0": c}.items()}
    with mg.Tape() as tape:
        out, (h_n, c_n) = lstm(leaves["x"], (leaves["h_0"], leaves["c_0"]))
    ((out * above).sum() + (h_n * to_h).sum() + (c_n * to_c).sum()).backward()

    twin = Odyssey(variant, peepholes, values, H)
    steps = twin.forward(x, h[0], c[0])
    received = above.copy()
    received[-1] += to_h[0]
    deltas, gradients = twin.backward(steps, received, to_c[0])

    off = [deviation(out.numpy(), np.stack([s["y"] for s in steps[1:]])), deviation(c_n.numpy()[0], steps[-1]["c"])]
    named = {n.name: n for n in tape.nodes if n.name}
    for t, delta in enumerate(deltas):
        for letter, ours in {"y": "h", "c": "c"}.items():
            off.append(deviation(named[f"{ours}[{t}]"].grad, delta[letter]))
        for letter, ours in {"i": "i", "f": "f", "z": "g", "o": "o"}.items():
            if letter in twin.rows:
                node = named[f"{ours}[{t}]"]
                before = node.inputs[0] if node.op in ("sigmoid", "tanh") else node
                off.append(deviation(before.grad, delta[letter]))
    own = {name.removesuffix("_l0"): p.grad.numpy() for name, p in lstm.named_parameters()}
    own |= {k: leaf.grad.numpy() for k, leaf in leaves.items()}
    assert set(gradients) == set(own)
    off += [deviation(own[k], gradients[k][None] if k in ("h_0", "c_0") else gradients[k]) for k in own]
    return max(off)


for variant, peepholes in ARCHITECTURES:
    add("LSTM", words({"variant": variant, "peepholes": peepholes}), BACKWARD, odyssey, variant, peepholes)


# --- other options, forward ---------------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[Any, Callable[[Array], Array]]] = {
    "Affine": (("Affine", 0.7, 0.3), lambda a: 0.3 + a * 0.7),
    "Elu": (("Elu", 0.8), lambda a: np.where(a >= 0, a, 0.8 * (np.exp(np.minimum(a, 0)) - 1))),
    "HardSigmoid": (("HardSigmoid", 0.3, 0.4), lambda a: np.clip(0.3 * a + 0.4, 0, 1)),
    "LeakyRelu": (("LeakyRelu", 0.2), lambda a: np.where(a >= 0, a, 0.2 * a)),
    "Relu": ("Relu", lambda a: a * (a > 0)),
    "ScaledTanh": (("ScaledTanh", 1.3, 0.7), lambda a: 1.3 * np.tanh(0.7 * a)),
    "Sigmoid": ("Sigmoid", sigma),
    "Softplus": ("Softplus", lambda a: np.log(1 + np.exp(a))),
    "Softsign": ("Softsign", lambda a: a / (1 + np.abs(a))),
    "Tanh": ("Tanh", np.tanh),
    "ThresholdedRelu": (("ThresholdedRelu", 0.35), lambda a: np.where(a >= 0.35, a, 0)),
}
"""ONNX's eleven, as we are asked for them and as NumPy has them."""
assert len(ACTIVATIONS) == 11


def by_steps(kind: str, options: dict[str, Any], step: Callable[..., Any], **same: Any) -> float:
    """Compare one layer and its cell with a step in NumPy."""
    layer = getattr(nn, kind)(I, H, **options)
    values = {k.removesuffix("_l0"): v for k, v in filled(layer).items()}
    x = numbers(T, N, I)
    state = tuple(
        numbers(N, size, seed=1 + k) for k, size in enumerate(layer._state_sizes(options.get("proj_size", H)))
    )
    given = [mg.tensor(s[None]) for s in state]
    out, final = layer(x, tuple(given) if len(given) > 1 else given[0])
    final = final if isinstance(final, tuple) else (final,)
    off = []
    if "proj_size" not in options:
        cell = getattr(nn, f"{kind}Cell")(I, H, **options)
        cell.load_state_dict(values)
        now = cell(x[0], tuple(state) if len(state) > 1 else state[0])
        first = step(x[0], state, values, **same)
        off = [deviation(a.numpy(), b) for a, b in zip(now if len(state) > 1 else [now], first, strict=True)]
    for t in range(T):
        state = step(x[t], state, values, **same)
        off.append(deviation(out.numpy()[t], state[0]))
    return max(off + [deviation(a.numpy()[0], b) for a, b in zip(final, state, strict=True)])


def zoned(p: tuple[float, ...], step: Callable[..., Any]) -> Callable[..., Any]:
    """Mix states with their means as zoneout has them outside of training."""

    def mix(x: Array, state: Any, w: Any) -> Any:
        return tuple(q * s + (1 - q) * new for q, s, new in zip(p, state, step(x, state, w), strict=True))

    return mix


def evaluated(kind: str, options: dict[str, Any], step: Callable[..., Any]) -> float:
    layer = getattr(nn, kind)(I, H, **options).eval()
    values = {k.removesuffix("_l0"): v for k, v in filled(layer).items()}
    x, out = numbers(T, N, I), layer(numbers(T, N, I))[0].numpy()
    state = tuple(np.zeros((N, H)) for _ in layer.unit.states)
    off = []
    for t in range(T):
        state = step(x[t], state, values)
        off.append(deviation(out[t], state[0]))
    return max(off)


def sequence_of(activations: list[str]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    chosen = [ACTIVATIONS[name] for name in activations]
    return tuple(a for a, _ in chosen), tuple(f for _, f in chosen)


for name, (given, twin) in ACTIVATIONS.items():
    add(
        "RNN",
        f"nonlinearity={name}",
        EQUATIONS,
        functools.partial(by_steps, f=twin),
        "RNN",
        {"nonlinearity": given},
        rnn_step,
    )
for trio in (
    ["HardSigmoid", "Affine", "ScaledTanh"],
    ["Sigmoid", "Softsign", "Elu"],
    ["Softplus", "LeakyRelu", "Tanh"],
):
    ours, theirs = sequence_of(trio)
    add(
        "LSTM",
        f"activations={', '.join(trio)}",
        EQUATIONS,
        functools.partial(by_steps, activations=theirs),
        "LSTM",
        {"activations": ours},
        lstm_step,
    )
for pair in (["HardSigmoid", "ThresholdedRelu"], ["Sigmoid", "ScaledTanh"]):
    ours, theirs = sequence_of(pair)
    add(
        "GRU",
        f"activations={', '.join(pair)}",
        EQUATIONS,
        functools.partial(by_steps, activations=theirs),
        "GRU",
        {"activations": ours},
        gru_step,
    )
for kind, options, step, same in (
    ("RNN", {"layer_norm": True}, rnn_step, {"layer_norm": True}),
    ("RNN", {"clip": 0.7}, rnn_step, {"f": lambda a: np.tanh(np.clip(a, -0.7, 0.7))}),
    ("LSTM", {"clip": 0.7}, lstm_step, {"clip": 0.7}),
    ("LSTM", {"cell_clip": 0.4}, lstm_step, {"cell_clip": 0.4}),
    ("LSTM", {"input_forget": True}, lstm_step, {"coupled": True}),
    ("LSTM", {"layer_norm": True}, lstm_step, {"layer_norm": True}),
    ("LSTM", {"proj_size": P}, lstm_step, {}),
    ("GRU", {"reset_after": True}, gru_step, {}),
    ("GRU", {"reset_after": False}, gru_step, {"reset_after": False}),
    ("GRU", {"clip": 0.7}, gru_step, {"clip": 0.7}),
    ("GRU", {"clip": 0.7, "reset_after": False}, gru_step, {"clip": 0.7, "reset_after": False}),
    ("GRU", {"layer_norm": True}, gru_step, {"layer_norm": True}),
):
    add(kind, words(options), EQUATIONS, functools.partial(by_steps, **same), kind, options, step)
add("RNN", "zoneout=0.3, outside of training", EQUATIONS, evaluated, "RNN", {"zoneout": 0.3}, zoned((0.3,), rnn_step))
add("GRU", "zoneout=0.3, outside of training", EQUATIONS, evaluated, "GRU", {"zoneout": 0.3}, zoned((0.3,), gru_step))
add(
    "LSTM",
    "zoneout=(0.3, 0.2), outside of training",
    EQUATIONS,
    evaluated,
    "LSTM",
    {"zoneout": (0.3, 0.2)},
    zoned((0.3, 0.2), lstm_step),
)
for kind, step in (("RNN", rnn_step), ("LSTM", lstm_step), ("GRU", gru_step)):
    options = {"recurrent_dropout": 0.5, "weight_drop": 0.4}
    add(kind, f"{words(options)}, outside of training", EQUATIONS, evaluated, kind, options, step)


# --- central differences ------------------------------------------------------------------------------------

n, steps_, i_, h_ = 2, 3, 3, 5


def scalar_of(layer: nn.Module, call: dict[str, Any]) -> tuple[Callable[..., Any], list[Array]]:
    """Return a smooth function of everything that a layer takes, and a place to look at it."""
    filled(layer)
    names = list(layer._parameters)
    values = [layer._parameters[k].numpy() for k in names]
    count = layer.num_layers * (1 + layer.bidirectional)
    states = [numbers(count, n, size, seed=60 + k) for k, size in enumerate(layer._state_sizes(layer.proj_size or h_))]

    def f(x: Any, *rest: Any) -> Any:
        given, parameters = rest[: len(states)], rest[len(states) :]
        kept = dict(layer._parameters)
        layer._parameters.update(zip(names, parameters, strict=True))
        mg.manual_seed(7)  # the same random masks at every point
        try:
            out, final, *cells = layer(x, tuple(given) if len(given) > 1 else given[0], **call)
        finally:
            layer._parameters.update(kept)
        total = (out * numbers(*out.shape, seed=70) * (1 + out)).sum()
        for k, s in enumerate((*(final if isinstance(final, tuple) else (final,)), *cells)):
            total = total + (s * numbers(*s.shape, seed=80 + k) * (2 + s)).sum()
        return total

    return f, [numbers(steps_, n, i_, seed=59), *states, *values]


def slopes(f: Callable[..., Any], place: list[Array], arguments: list[int]) -> float:
    """Compare the gradient with central differences (4th order) along one random direction for each argument."""
    gradients = mg.grad(f, argnums=arguments)(*[mg.tensor(a) for a in place])
    off = []
    for k, gradient in zip(arguments, gradients, strict=True):
        direction = numbers(*place[k].shape, seed=90)
        direction /= np.linalg.norm(direction)

        def value(s: float, k: int = k, direction: Array = direction) -> float:
            return f(*[mg.tensor(a + s * direction if j == k else a) for j, a in enumerate(place)]).item()

        e = 3e-4
        slope = (8 * (value(e) - value(-e)) - (value(2 * e) - value(-2 * e))) / (12 * e)
        off.append(abs(float((np.asarray(gradient) * direction).sum()) - slope) / max(1.0, abs(slope)))
    return max(off)


def differences(kind: str, options: dict[str, Any], call: dict[str, Any], order: int) -> float:
    layer = getattr(nn, kind)(i_, h_, **options)
    f, place = scalar_of(layer, call)
    everything = list(range(len(place)))
    if order == 1:
        return slopes(f, place, everything)

    def along(*arguments: Any) -> Any:
        # A gradient's product with fixed numbers: its own gradient takes second derivatives of everything.
        parts = mg.grad(f, argnums=everything)(*arguments)
        return sum((g * numbers(*g.shape, seed=95 + k)).sum() for k, g in enumerate(parts))

    return slopes(along, place, everything)


LENGTHS = {"lengths": [3, 1]}
DIFFERENTIATED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *(("RNN", {"nonlinearity": given}, {}) for given, _ in ACTIVATIONS.values()),
    *(
        (kind, options, call)
        for kind in ("RNN", "GRU", "LSTM")
        for options, call in (
            ({"clip": 1.1}, {}),
            ({"layer_norm": True}, {}),
            ({"zoneout": (0.3, 0.4) if kind == "LSTM" else 0.3}, {}),
            ({"recurrent_dropout": 0.4}, {}),
            ({"weight_drop": 0.4}, {}),
            ({"bias": False}, {}),
            ({"num_layers": 2, "bidirectional": True}, LENGTHS),
        )
    ),
    ("GRU", {"reset_after": True}, {}),
    ("GRU", {"reset_after": False}, {}),
    ("GRU", {"activations": ("HardSigmoid", "Softsign")}, {}),
    *(("LSTM", {"variant": v, "peepholes": p}, {}) for v, p in ARCHITECTURES),
    ("LSTM", {"cell_clip": 0.6}, {"return_cells": True}),
    ("LSTM", {"input_forget": True, "peepholes": "diagonal"}, {}),
    ("LSTM", {"activations": ("HardSigmoid", ("ScaledTanh", 1.2, 0.8), "Softsign")}, {}),
    ("LSTM", {"proj_size": 2}, {}),
    ("LSTM", {"variant": "FGR", "peepholes": "full", "layer_norm": True}, LENGTHS),
    ("LSTM", {"variant": "CIFG", "layer_norm": True, "zoneout": (0.2, 0.3), "proj_size": 2}, LENGTHS),
]
for kind, options, call in DIFFERENTIATED:
    label = words(options) + (", lengths" if "lengths" in call else "")
    for order, oracle in ((1, FIRST), (2, SECOND)):
        add(kind, label, oracle, differences, kind, options, call, order)


# --- PyTorch ------------------------------------------------------------------------------------------------


def torch_cases() -> Iterator[tuple[str, dict[str, Any], str]]:
    for kind in ("RNN", "LSTM", "GRU"):
        for bias, first, both, proj in itertools.product((True, False), (True, False), (True, False), (0, P)):
            if proj and kind != "LSTM":
                continue
            options = {"num_layers": 2, "bias": bias, "batch_first": first, "bidirectional": both}
            if kind == "LSTM":
                options["proj_size"] = proj
            for form in ("states", "no states", "unbatched", "packed"):
                yield kind, options, form
    yield "RNN", {"nonlinearity": "relu", "bidirectional": True}, "packed"


def against_torch(kind: str, options: dict[str, Any], form: str) -> float:
    """Compare outputs, final states and every gradient with PyTorch's, on one padded batch or its packed twin."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    ours, theirs = getattr(nn, kind)(I, H, **options), getattr(torch.nn, kind)(I, H, dtype=torch.float64, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    values = filled(ours)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
    batch = () if form == "unbatched" else (N,)
    first = options.get("batch_first", False)
    x = numbers(*((N, T) if first and batch else (T, *batch)), I)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size") or H, H)[: 2 if kind == "LSTM" else 1]
    states = [numbers(count, *batch, size, seed=5 + k) for k, size in enumerate(sizes)]
    lengths = [2, 5, 3]

    def results(module: Any, make: Callable[..., Any], run: Callable[..., Any]) -> list[Array]:
        tensors = [make(a, requires_grad=True) for a in (x, *([] if form == "no states" else states))]
        given = tuple(tensors[1:]) if len(tensors) > 2 else tensors[1] if len(tensors) == 2 else None
        out, final = run(module, tensors[0], given)
        outputs = [out, *(final if isinstance(final, tuple) else (final,))]
        total = sum((make(numbers(*y.shape, seed=20 + k)) * y * (1 + y)).sum() for k, y in enumerate(outputs))
        total.backward()
        return [np.asarray(y.detach()) for y in outputs] + [
            np.asarray(t.grad) for t in (*tensors, *module.parameters())
        ]

    def packed(module: Any, x: Any, given: Any) -> Any:
        sequence = pack_padded_sequence(x, torch.tensor(lengths), batch_first=first, enforce_sorted=False)
        out, final = module(sequence, given)
        return pad_packed_sequence(out, batch_first=first)[0], final

    if form == "packed":
        mine = results(ours, mg.tensor, lambda module, x, given: module(x, given, lengths=lengths))
        other = results(theirs, torch.tensor, packed)
    else:
        mine = results(ours, mg.tensor, lambda module, x, given: module(x, given))
        other = results(theirs, torch.tensor, lambda module, x, given: module(x, given))
    return max(deviation(a, b) for a, b in zip(mine, other, strict=True))


for kind, options, form in torch_cases():
    add(kind, f"{words(options)}; {form}", TORCH, against_torch, kind, options, form)


# --- the page -----------------------------------------------------------------------------------------------


def rounded(oracle: str, off: float) -> float:
    """Return the next power of ten; differences of rounding below the oracle's floor are not told apart."""
    return max(FLOORS[oracle], 10.0 ** math.ceil(math.log10(off)) if off else 0.0)


def run(row: Row) -> float:
    """Run a check in float64 and from one seed, whatever was before."""
    before = mg.get_default_dtype()
    mg.set_default_dtype("float64")
    mg.manual_seed(1)
    try:
        return CHECKS[row]()
    finally:
        mg.set_default_dtype(before)


def listed() -> dict[Row, float]:
    """Read the page's table."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []:
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[3][0].isdigit():
            rows[Row(cells[0], cells[1].strip("`"), cells[2])] = float(cells[3])
    return rows


HEAD = """\
# Recurrent units and what they agree with

`minigrad.nn` has the simple recurrent network, the LSTM in the nine architectures of the Odyssey, and the GRU, with the
options of PyTorch, of ONNX and of the literature.

## One operation a layer

On the CPU a layer is one node of the graph, `lstm`, `gru` or `rnn`, for all steps and both directions, and a cell is
one for its step. Their kernels take float32 and float64, `bias`, `lengths` and masks, `bidirectional`, stacked layers,
`dropout` between them, `proj_size`, diagonal peepholes, "tanh" and "relu". Every other option of the table below runs
operation by operation, and so does everything that an observer wants to see:

* `mg.Tape()` records every operation; `mg.Tape(detail="cells")` one node a step, `mg.Tape(detail="layers")` one a
  layer. The gradients are the same (to 1e-12 in float64, to 1e-5 in float32).
* `mg.explain` and `mg.render` open such nodes by themselves: a layer that ran without a tape, or under a coarse one, is
  explained by steps and gates like any other. The graph itself stays as it is.
* `create_graph`, `jvp`, `hvp`, `hessian` and whatever else kernels do not give come from the operations as well.

`no_grad` keeps nothing but the results. `recompute_every=k` keeps the states of every k-th step and computes the
activations between them again in the backward pass: with k near the root of the number of steps, a small part of the
memory for one more forward pass. It concerns LSTMs and GRUs; a simple network keeps its outputs and nothing else.

## What they agree with

This table is written by the checks that the test suite runs
(`python tests/recurrent_checks.py`; a test fails when it lists other rows than the suite has).

Agreement is the largest deviation of any number that is compared, relative to numbers above 1, in float64, rounded up
to a power of ten and to the oracle's floor:

* *equations in NumPy*: the unit written a second time, without minigrad; floor 1e-12. *Forward and backward* adds the
  published equations of every δ, compared with the gradients on the tape, and of every parameter's gradient.
* *central differences*: gradients of all parameters, inputs and initial states against differences of the
  value; *second order*: gradients of gradients against differences of gradients; floor 1e-9.
* *PyTorch*: outputs, final states and all gradients; needs PyTorch (`make test ORACLES=1`); floor 1e-12.

| unit | option | oracle | agreement |
| --- | --- | --- | --- |
"""


def write() -> int:
    """Write the page; rows whose oracle is not installed keep what they had."""
    old, lines = listed(), []
    for row in CHECKS:
        try:
            off = rounded(row.oracle, run(row))
        except ModuleNotFoundError as error:
            if error.name != "torch" or row not in old:
                raise
            off = old[row]
        lines.append(f"| {row.unit} | `{row.option}` | {row.oracle} | {off:.0e} |")
        if off > LIMITS[row.oracle]:
            print(f"too far off: {lines[-1]}", file=sys.stderr)
            return 1
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(write())
