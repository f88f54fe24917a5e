"""ONNX's RNN, GRU and LSTM with all their attributes, run by the recurrent layers.

    W, R, B, P ──► rows in the order of gates used here ──► a layer for each direction ──► Y, Y_h, Y_c

Each direction is a layer of its own, as its activations may differ. The reverse direction reads every sequence from its
own end: the valid part is turned round before, and the outputs after. Source: the operators' specification texts.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from ... import _core, ops
from ...errors import ShapeError, UsageError
from ...nn import GRU, LSTM, RNN
from ...nn.activations import activation
from ...tensor import Tensor, generator, zeros
from .. import layouts
from ._table import floats, node, strs, within

__all__ = ["ACTIVATIONS"]

ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "relu": (),
    "tanh": (),
    "sigmoid": (),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}
"""The eleven activations: alpha and beta where they have them, with the defaults of the operators of that name."""

KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rnn": (RNN, ("Tanh",)),
    "gru": (GRU, ("Sigmoid", "Tanh")),
    "lstm": (LSTM, ("Sigmoid", "Tanh", "Tanh")),
}

Choice = tuple[Any, ...]


def _activations(unit: str, directions: int, names: strs | None, alpha: floats | None, beta: floats | None) -> Any:
    """Return the activations of each direction; alpha and beta are consumed by those that have them, in their order."""
    usual = KINDS[unit][1]
    wanted = len(usual) * directions
    chosen = usual * directions if names is None else names
    if len(chosen) != wanted:
        raise UsageError(f"activations are {wanted} names here, not {list(chosen)}")
    queues = [list(alpha or ()), list(beta or ())]
    out: list[Choice] = []
    for name in chosen:
        if name.lower() not in ACTIVATIONS:
            raise UsageError(f"there is no activation {name!r}; there are {', '.join(ACTIVATIONS)}")
        defaults = ACTIVATIONS[name.lower()]
        values = [queue.pop(0) if queue else default for queue, default in zip(queues, defaults, strict=False)]
        out.append((name, *values))
    if queues[0] or queues[1]:
        raise UsageError("there are more values of alpha or beta than activations that take them")
    return [tuple(out[k : k + len(usual)]) for k in range(0, wanted, len(usual))]


@lru_cache(maxsize=64)
def _blank(unit: str, inputs: int, hidden: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """Return a layer of one direction whose parameters are to be replaced."""
    chosen = dict(options)
    bound = chosen["clip"]
    if unit == "lstm" and bound is not None:
        # The operator clips the inputs of all activations, h's as well; the layer leaves that one alone.
        *gates, last = chosen["activations"]
        squash = activation(last)
        chosen["activations"] = (*gates, lambda c: squash(ops.clip(c, -bound, bound)))
    state = generator().bit_generator.state
    try:
        return KINDS[unit][0](inputs, hidden, **chosen)
    finally:
        generator().bit_generator.state = state  # loading a model draws no random numbers


def _filled(blank: Any, parameters: dict[str, Tensor]) -> Any:
    """Return a copy of a layer that computes with tensors of the running model as its parameters."""
    layer = object.__new__(type(blank))
    layer.__dict__.update(blank.__dict__, _parameters=parameters)
    return layer


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn every sequence round, (T, N, …); its padding stays where it is."""
    if lengths is None:
        return ops.flip(x, 0)
    steps = np.arange(x.shape[0])[:, None]
    valid = lengths.numpy()[None, :]
    order = np.where(steps < valid, valid - 1 - steps, steps)
    return x[order, np.arange(x.shape[1])]


def _run(
    unit: str,
    X: Tensor,
    weights: dict[str, Tensor | None],
    lengths: Tensor | None,
    initial: list[Tensor | None],
    present: tuple[bool, ...],
    direction: str,
    layout: int,
    hidden_size: int | None,
    activations: tuple[strs | None, floats | None, floats | None],
    options: dict[str, Any],
) -> tuple[Any, ...]:
    """Run the layers of one node; its three operators differ in their weights, states and options."""
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if ways is None or layout not in (0, 1):
        raise UsageError(f"direction {direction!r} and layout {layout} are not both known")
    if X.ndim != 3 or 0 in X.shape:
        raise ShapeError(f"X has shape {X.shape}; it must have three axes, none of them empty")
    if layout:
        X = ops.permute(X, (1, 0, 2))
        initial = [None if s is None else ops.permute(s, (1, 0, 2)) for s in initial]
    R, W = weights["R"], weights["W"]
    if R is None or W is None or R.ndim != 3 or R.shape[0] != len(ways):
        raise ShapeError(f"R has shape {None if R is None else R.shape}; it must be ({len(ways)}, rows, hidden_size)")
    steps, batch, inputs = X.shape
    hidden = R.shape[2]
    if hidden_size not in (None, hidden):
        raise ShapeError(f"hidden_size is {hidden_size}, and R has shape {R.shape}")
    state = layouts.from_onnx(weights, unit)
    if W.shape[2] != inputs:
        raise ShapeError(f"X has {inputs} features, and W shape {W.shape}")
    for s in initial:
        if s is not None and s.shape != (len(ways), batch, hidden):
            raise ShapeError(f"an initial state has shape {s.shape}; it must be {(len(ways), batch, hidden)}")
    if lengths is not None:
        valid = lengths.numpy()
        if lengths.shape != (batch,) or valid.dtype.kind not in "iu" or valid.min() < 0 or valid.max() > steps:
            raise ShapeError(f"sequence_lens are {batch} integers from 0 to {steps}")
    within(steps, batch, len(ways), max(inputs, 4 * hidden))

    options = {**options, "bias": weights["B"] is not None}
    results = []
    for k, (backwards, chosen) in enumerate(zip(ways, _activations(unit, len(ways), *activations), strict=True)):
        key = tuple(sorted({**options, "activations": chosen}.items()))
        suffix = "_reverse" if k else ""
        own = {name[: len(name) - len(suffix)]: value for name, value in state.items() if name.endswith(f"l0{suffix}")}
        if _core.is_watched():
            for name, value in own.items():
                value.name = name
        layer = _filled(_blank(unit, inputs, hidden, key), own)
        x = _turned(X, lengths) if backwards else X
        if any(s is not None for s in initial):
            given = [zeros(1, batch, hidden, dtype=X.dtype) if s is None else s[k : k + 1] for s in initial]
            hx: Any = given[0] if len(given) == 1 else tuple(given)
        else:
            hx = None
        with _core.scope(("forward", "reverse")[k]) if len(ways) == 2 else nullcontext():
            y, final = layer(x, hx, lengths=lengths)
        results.append((_turned(y, lengths) if backwards else y, *(final if isinstance(final, tuple) else (final,))))

    Y = ops.stack([y for y, *_ in results], 1)
    finals = [ops.concatenate(list(each), 0) for each in zip(*(rest for _, *rest in results), strict=True)]
    if layout:
        Y = ops.permute(Y, (2, 0, 1, 3))
        finals = [ops.permute(each, (1, 0, 2)) for each in finals]
    return tuple([Y, *finals][: len(present)])


@node("RNN", 14)
@node("RNN", absent=("layout",))
def _rnn(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: floats | None = None,
    activation_beta: floats | None = None,
    activations: strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    present: tuple[bool, ...],
) -> Any:
    weights, initial = {"W": W, "R": R, "B": B}, [initial_h]
    named = (activations, activation_alpha, activation_beta)
    how = {"clip": clip}
    return _run("rnn", X, weights, sequence_lens, initial, present, direction, layout, hidden_size, named, how)


@node("GRU", 14)
@node("GRU", absent=("layout",))
def _gru(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: floats | None = None,
    activation_beta: floats | None = None,
    activations: strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    present: tuple[bool, ...],
) -> Any:
    weights, initial = {"W": W, "R": R, "B": B}, [initial_h]
    named = (activations, activation_alpha, activation_beta)
    how = {"clip": clip, "reset_after": bool(linear_before_reset)}
    return _run("gru", X, weights, sequence_lens, initial, present, direction, layout, hidden_size, named, how)


@node("LSTM", 14)
@node("LSTM", absent=("layout",))
def _lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    *,
    activation_alpha: floats | None = None,
    activation_beta: floats | None = None,
    activations: strs | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    present: tuple[bool, ...],
) -> Any:
    weights, initial = {"W": W, "R": R, "B": B, "P": P}, [initial_h, initial_c]
    named = (activations, activation_alpha, activation_beta)
    how = {
        "clip": clip,
        "input_forget": bool(input_forget),
        "peepholes": None if P is None else "diagonal",
    }
    return _run("lstm", X, weights, sequence_lens, initial, present, direction, layout, hidden_size, named, how)
