"""Recurrent units and layers as compositions of the page's operations, with PyTorch's arguments, shapes and names.

Every unit has two spellings of the same equations. `spell` is for readers: one affine map per gate, a scope around each gate and
each step, a name on every value. `step` is for speed: all gates of a step in one product, the inputs of all steps in one more.
A layer spells while a tape watches, and steps otherwise; results and gradients agree to rounding.

            weight_ih (G*H, I), bias_ih          weight_hh (G*H, H), bias_hh          G gates, each H rows
    x[t] ────────► p ─────────────┬──────────────── q ◄──────── h[t-1]
                                  ▼
                      step(p, q, (h, c)) ──► h[t], c[t]
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from .. import _core, ops
from ..errors import ShapeError, UsageError
from ..tensor import Tensor, as_tensor, zeros
from . import init
from .layers import check_probability, check_sizes, dropped, new_parameter
from .module import Module, Parameter

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

State = tuple[Tensor, ...]
"""What a unit hands to its next step: (h,), or (h, c) of an LSTM; each (N, H), or (H,) without a batch."""


class Weights(NamedTuple):
    """Parameters of one unit: input to gates, state to gates, their biases, and the projection of h."""

    ih: Parameter  # (G*H, I)
    hh: Parameter  # (G*H, P), P the size of h
    b_ih: Parameter | None  # (G*H,)
    b_hh: Parameter | None  # (G*H,)
    hr: Parameter | None  # (P, H)


class Affine(NamedTuple):
    """One linear map, ready for every step: its matrix is transposed already where there is no bias."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Map the last axis of x."""
        return ops.matmul(x, self.weight) if self.bias is None else ops.affine(x, self.weight, self.bias)


def affine(weight: Tensor, bias: Tensor | None) -> Affine:
    """Return ``x -> x @ mT(weight) + bias``."""
    return Affine(ops.mT(weight) if bias is None else weight, bias)


def name(x: Tensor, word: str, t: int | None) -> Tensor:
    """Name a value as pictures show it: ``f[3]``, or ``f`` outside of sequences."""
    x.name = word if t is None else f"{word}[{t}]"
    return x


# --- units --------------------------------------------------------------------------------------------------


class Unit:
    """Equations of a recurrent unit: its gates in the order of the parameters' rows, its states, and two spellings of a step."""

    gates: ClassVar[dict[str, str]]  # letter -> name
    states: ClassVar[tuple[str, ...]]

    def spell(self, x: Tensor, state: State, maps: dict[str, tuple[Affine, Affine]], t: int | None) -> State:
        """Return the next state from x, gate by gate, with scopes and names."""
        raise NotImplementedError

    def step(self, p: Tensor, q: Tensor, state: State) -> State:
        """Return the next state from the shares of input and state in all gates, each (N, G*H)."""
        raise NotImplementedError

    def halves(self, w: Weights) -> tuple[Affine, Affine]:
        """Return the maps of input and state to all gates, biases where they cost least."""
        if w.b_ih is None or w.b_hh is None:
            return affine(w.ih, None), affine(w.hh, None)
        return affine(w.ih, w.b_ih + w.b_hh), affine(w.hh, None)

    def parts(self, w: Weights) -> dict[str, tuple[Affine, Affine]]:
        """Cut the parameters into gates: letter -> (map of the input, map of the state)."""
        size = w.ih.shape[0] // len(self.gates)

        def cut(parameter: Parameter | None, k: int, letter: str) -> Tensor | None:
            if parameter is None or len(self.gates) == 1:
                return parameter
            part = parameter[k * size : (k + 1) * size]
            part.name = f"{parameter.name}[{letter}]"
            return part

        return {
            letter: (
                affine(cut(w.ih, k, letter), cut(w.b_ih, k, letter)),  # type: ignore[arg-type]
                affine(cut(w.hh, k, letter), cut(w.b_hh, k, letter)),  # type: ignore[arg-type]
            )
            for k, letter in enumerate(self.gates)
        }


class ElmanUnit(Unit):
    """h' = f(W x + b + U h + b'), f one of tanh and relu."""

    gates: ClassVar[dict[str, str]] = {"h": "state"}
    states = ("h",)

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UsageError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        self.activation = ops.tanh if nonlinearity == "tanh" else ops.relu

    def spell(self, x: Tensor, state: State, maps: dict[str, tuple[Affine, Affine]], t: int | None) -> State:
        """One layer without gates, so without gate scopes."""
        from_x, from_h = maps["h"]
        return (name(self.activation(from_x(x) + from_h(state[0])), "h", t),)

    def step(self, p: Tensor, q: Tensor, state: State) -> State:
        """Add and squash."""
        return (self.activation(p + q),)


class LSTMUnit(Unit):
    """i, f, o = σ(…), g = tanh(…); c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c'), with or without a projection of h'."""

    gates: ClassVar[dict[str, str]] = {"i": "input gate", "f": "forget gate", "g": "cell gate", "o": "output gate"}
    states = ("h", "c")

    def spell(self, x: Tensor, state: State, maps: dict[str, tuple[Affine, Affine]], t: int | None) -> State:
        """Four layers, three of them σ; then five pointwise operations."""
        h, c = state
        value = {}
        for letter, (from_x, from_h) in maps.items():
            with _core.scope(self.gates[letter]):
                squash = ops.tanh if letter == "g" else ops.sigmoid
                value[letter] = name(squash(from_x(x) + from_h(h)), letter, t)
        c = name(value["f"] * c + value["i"] * value["g"], "c", t)
        return name(value["o"] * ops.tanh(c), "h", t), c

    def step(self, p: Tensor, q: Tensor, state: State) -> State:
        """Squash i and f, neighbours in memory, at once."""
        a = p + q
        size = a.shape[-1] // 4
        both = ops.sigmoid(a[..., : 2 * size])
        g = ops.tanh(a[..., 2 * size : 3 * size])
        o = ops.sigmoid(a[..., 3 * size :])
        c = both[..., size:] * state[1] + both[..., :size] * g
        return o * ops.tanh(c), c


class GRUUnit(Unit):
    """r, z = σ(…); n = tanh(W x + b + r ⊙ (U h + b')); h' = (1 - z) ⊙ n + z ⊙ h: the reset gate acts after the product."""

    gates: ClassVar[dict[str, str]] = {"r": "reset gate", "z": "update gate", "n": "new gate"}
    states = ("h",)

    def spell(self, x: Tensor, state: State, maps: dict[str, tuple[Affine, Affine]], t: int | None) -> State:
        """Three layers, two of them σ."""
        (h,) = state
        value: dict[str, Tensor] = {}
        for letter, (from_x, from_h) in maps.items():
            with _core.scope(self.gates[letter]):
                if letter == "n":
                    value[letter] = name(ops.tanh(from_x(x) + value["r"] * from_h(h)), letter, t)
                else:
                    value[letter] = name(ops.sigmoid(from_x(x) + from_h(h)), letter, t)
        return (name((1 - value["z"]) * value["n"] + value["z"] * h, "h", t),)

    def step(self, p: Tensor, q: Tensor, state: State) -> State:
        """Squash r and z, neighbours in memory, at once."""
        size = p.shape[-1] // 3
        both = ops.sigmoid(p[..., : 2 * size] + q[..., : 2 * size])
        n = ops.tanh(p[..., 2 * size :] + both[..., :size] * q[..., 2 * size :])
        return (n + both[..., size:] * (state[0] - n),)

    def halves(self, w: Weights) -> tuple[Affine, Affine]:
        """The bias of the state's share is inside of the reset product and cannot join the other."""
        return affine(w.ih, w.b_ih), affine(w.hh, w.b_hh)


# --- what cells and layers share ------------------------------------------------------------------------------


class Recurrent(Module):
    """Parameters of recurrent units and the checks of what is passed in."""

    unit: Unit

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = int(input_size), int(hidden_size), bool(bias)

    def _own(self, suffix: str, inputs: int, outputs: int, projected: bool, dtype: Any, device: str | None) -> None:
        """Register the parameters of one unit, in PyTorch's order."""
        rows = len(self.unit.gates) * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if projected:
            shapes["weight_hr"] = (outputs, self.hidden_size)
        for word, shape in shapes.items():
            self.register_parameter(word + suffix, new_parameter(shape, dtype, device))
        for word in {"bias_ih", "bias_hh"} - shapes.keys():
            setattr(self, word + suffix, None)

    def _weights(self, suffix: str) -> Weights:
        words = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*[self._parameters.get(word + suffix) for word in words])  # type: ignore[arg-type]

    def reset_parameters(self) -> None:
        """Draw new starting values, uniform within 1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _states(self, given: Any, shapes: Sequence[tuple[int, ...]]) -> State:
        """Return the initial states as tensors of the expected shapes: zeros where none are given."""
        who, words = type(self).__name__, self.unit.states
        like = next(self.parameters())
        if given is None:
            return tuple(zeros(shape, dtype=like.dtype).to(like.device) for shape in shapes)
        if len(words) == 1:
            given = (given,)
        elif not isinstance(given, tuple | list) or len(given) != len(words):
            raise UsageError(f"{who} takes its initial states as a pair, (h_0, c_0), not {type(given).__name__}")
        states = tuple(as_tensor(s) for s in given)
        for word, state, shape in zip(words, states, shapes, strict=True):
            if state.shape != shape:
                raise ShapeError(f"{who}: {word}_0 has shape {state.shape}; for this input it must be {shape}")
        return states


# --- cells ----------------------------------------------------------------------------------------------------


class Cell(Recurrent):
    """One step of a recurrent unit."""

    def __init__(
        self, unit: Unit, input_size: int, hidden_size: int, bias: bool, device: str | None, dtype: Any
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.unit = unit
        self._own("", self.input_size, self.hidden_size, False, dtype, device)
        self.reset_parameters()

    def _next(self, x: Any, given: Any) -> State:
        x = as_tensor(x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: the input has shape {x.shape}; it must be (N, {self.input_size}) or "
                f"({self.input_size},)"
            )
        state = self._states(given, [(*x.shape[:-1], self.hidden_size)] * len(self.unit.states))
        w = self._weights("")
        if _core.is_watched():
            return self.unit.spell(x, state, self.unit.parts(w), None)
        from_x, from_h = self.unit.halves(w)
        return self.unit.step(from_x(x), from_h(state[0]), state)

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(Cell):
    """One step of a simple recurrent network: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or with relu.

    Call with x (N, I) and h (N, H), or (I,) and (H,); returns h'. Without h it starts from zeros.
    Parameters: ``weight_ih`` (H, I), ``weight_hh`` (H, H), ``bias_ih`` and ``bias_hh`` (H,).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(ElmanUnit(nonlinearity), input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return the next state."""
        return self._next(input, hx)[0]

    def extra_repr(self) -> str:
        """Say the sizes and an activation other than tanh."""
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(Cell):
    """One step of a long short-term memory (Gers et al. 2000, without peepholes); gates i, f, g, o.

    Call with x (N, I) and states (h, c), each (N, H), or without the batch; returns (h', c'). Without states it starts from zeros.
    Parameters: ``weight_ih`` (4H, I), ``weight_hh`` (4H, H), ``bias_ih`` and ``bias_hh`` (4H,).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(LSTMUnit(), input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """Return the next states (h, c)."""
        h, c = self._next(input, hx)
        return h, c


class GRUCell(Cell):
    """One step of a gated recurrent unit (Cho et al. 2014, reset after the product); gates r, z, n.

    Call with x (N, I) and h (N, H), or (I,) and (H,); returns h'. Without h it starts from zeros.
    Parameters: ``weight_ih`` (3H, I), ``weight_hh`` (3H, H), ``bias_ih`` and ``bias_hh`` (3H,).
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(GRUUnit(), input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return the next state."""
        return self._next(input, hx)[0]


# --- layers ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scopes(*words: str) -> Iterator[None]:
    """Open scopes inside each other; empty words are left out."""
    with contextlib.ExitStack() as stack:
        for word in words:
            if word:
                stack.enter_context(_core.scope(word))
        yield


class RecurrentLayers(Recurrent):
    """Recurrent units over a sequence, stacked `num_layers` high, in one or both directions."""

    def __init__(
        self,
        unit: Unit,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: str | None,
        dtype: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        who = type(self).__name__
        check_sizes(who, num_layers=num_layers)
        check_probability(f"{who}: dropout", dropout)
        if dropout and num_layers == 1:
            raise UsageError(f"{who}: dropout acts between layers, and there is one layer; add layers or nn.Dropout")
        if not 0 <= proj_size < hidden_size:
            raise UsageError(f"{who}: proj_size={proj_size} must be smaller than hidden_size={hidden_size}; 0 is off")
        self.unit, self.num_layers, self.batch_first = unit, int(num_layers), bool(batch_first)
        self.dropout, self.bidirectional, self.proj_size = float(dropout), bool(bidirectional), int(proj_size)
        outputs = self.proj_size or self.hidden_size
        for layer in range(self.num_layers):
            inputs = self.input_size if layer == 0 else outputs * len(self._directions)
            for direction in self._directions:
                self._own(f"_l{layer}{direction}", inputs, outputs, self.proj_size > 0, dtype, device)
        self.reset_parameters()

    @property
    def _directions(self) -> tuple[str, ...]:
        """Suffixes of the parameters' names, one per direction."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def _run(self, x: Any, given: Any) -> tuple[Tensor, State]:
        """Return the outputs of all steps and the final states."""
        x = as_tensor(x)
        who = type(self).__name__
        batched = "(N, T, I)" if self.batch_first else "(T, N, I)"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{who}: the input has shape {x.shape}; it must be {batched} or (T, I) with I = {self.input_size}"
            )
        axis = 1 if self.batch_first and x.ndim == 3 else 0
        if x.shape[axis] == 0:
            raise ShapeError(f"{who}: a sequence of no steps has no output; the input has shape {x.shape}")
        batch = (x.shape[1 - axis],) if x.ndim == 3 else ()
        count = self.num_layers * len(self._directions)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self.unit.states)]
        states = self._states(given, [(count, *batch, size) for size in sizes])
        run = self._spelled if _core.is_watched() else self._stepped
        y, final = run(x, axis, states)
        return y, tuple(
            name(ops.stack(*parts), f"{word}_n", None)
            for word, parts in zip(self.unit.states, zip(*final, strict=True), strict=True)
        )

    def _between(self, x: Tensor) -> Tensor:
        """Apply dropout between layers while training."""
        return dropped(x, self.dropout) if self.dropout and self.training else x

    def _stepped(self, x: Tensor, axis: int, states: State) -> tuple[Tensor, list[State]]:
        """Run for speed: nobody looks inside."""
        final: list[State] = []
        unit, steps = self.unit, x.shape[axis]
        at = [(slice(None),) * axis + (t,) for t in range(steps)]
        for layer in range(self.num_layers):
            x = self._between(x) if layer else x
            flat = x if x.ndim == 2 else ops.reshape(x, (-1, x.shape[-1]))
            outputs = []
            for direction in self._directions:
                w = self._weights(f"_l{layer}{direction}")
                from_x, from_h = unit.halves(w)
                p = from_x(flat)
                if x.ndim == 3:
                    p = ops.reshape(p, (*x.shape[:-1], p.shape[-1]))
                project = None if w.hr is None else affine(w.hr, None)
                state = tuple(s[len(final)] for s in states)
                hs: list[Any] = [None] * steps
                for t in reversed(range(steps)) if direction else range(steps):
                    state = unit.step(p[at[t]], from_h(state[0]), state)
                    if project is not None:
                        state = (project(state[0]), *state[1:])
                    hs[t] = state[0]
                outputs.append(ops.stack(*hs, axis=axis))
                final.append(state)
            x = outputs[0] if len(outputs) == 1 else ops.concatenate(*outputs, axis=-1)
        return x, final

    def _spelled(self, x: Tensor, axis: int, states: State) -> tuple[Tensor, list[State]]:
        """Run for readers: a scope for every layer, direction, step and gate, and a name for every value."""
        final: list[State] = []
        unit, steps = self.unit, x.shape[axis]
        xs: list[Any] = [None] * steps
        for layer in range(self.num_layers):
            outputs: list[list[Any]] = []
            for direction in self._directions:
                back = bool(direction)
                w = self._weights(f"_l{layer}{direction}")
                with scopes(f"layer {layer}", "reverse" if back else "forward" if self.bidirectional else ""):
                    maps = unit.parts(w)
                    project = None if w.hr is None else affine(w.hr, None)
                    state = tuple(
                        name(s[len(final)], word, steps if back else -1)
                        for word, s in zip(unit.states, states, strict=True)
                    )
                    hs: list[Any] = [None] * steps
                    for t in reversed(range(steps)) if back else range(steps):
                        with _core.scope(f"t={t}"):
                            if xs[t] is None:
                                xs[t] = name(x[(slice(None),) * axis + (t,)], "x", t)
                            state = unit.spell(xs[t], state, maps, t)
                            if project is not None:
                                name(state[0], "m", t)  # the block's output before the projection (Sak et al. 2014)
                                state = (name(project(state[0]), "h", t), *state[1:])
                        hs[t] = state[0]
                outputs.append(hs)
                final.append(state)
            last = layer == self.num_layers - 1
            for t in range(steps):
                with scopes(f"layer {layer}", f"t={t}"):
                    xs[t] = outputs[0][t]
                    if self.bidirectional:
                        xs[t] = name(ops.concatenate(*(hs[t] for hs in outputs), axis=-1), "y", t)
                    if not last:
                        xs[t] = self._between(xs[t])
        return name(ops.stack(*xs, axis=axis), "output", None), final

    def extra_repr(self) -> str:
        """Say the sizes and every option that is not at its default."""
        defaults = {
            "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False, "proj_size": 0
        }
        chosen = [f"{k}={getattr(self, k)}" for k, plain in defaults.items() if getattr(self, k) != plain]
        return ", ".join([str(self.input_size), str(self.hidden_size), *chosen])


class RNN(RecurrentLayers):
    """A simple recurrent network (Elman 1990) over a sequence: ``h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``, or with relu.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        nonlinearity: "tanh" or "relu".
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states are not affected.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Parameters, all uniform within 1 / sqrt(H) at first, with k the layer and the suffix ``_reverse`` for the second direction:
    ``weight_ih_lk`` (H, I), for layers above the first (H, D * H); ``weight_hh_lk`` (H, H); ``bias_ih_lk``, ``bias_hh_lk`` (H,).

    Raises:
        UsageError: arguments that make no network. ShapeError: inputs or states of other shapes.

    >>> import minigrad as mg
    >>> out, h_n = mg.nn.RNN(2, 3)(mg.ones(5, 7, 2))
    >>> out.shape, h_n.shape
    ((5, 7, 3), (1, 7, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            ElmanUnit(nonlinearity), input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """Return outputs and final states."""
        y, (h_n,) = self._run(input, hx)
        return y, h_n

    def extra_repr(self) -> str:
        """Say the sizes and every option that is not at its default."""
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTM(RecurrentLayers):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) over a sequence.

    ``i, f, o = σ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`` and ``g = tanh(…)`` with rows of their own;
    ``c_t = f * c_{t-1} + i * g``; ``h_t = o * tanh(c_t)``.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states are not affected.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        proj_size: P > 0 makes h smaller, ``h_t = W_hr (o * tanh(c_t))`` (Sak et al. 2014); otherwise P below is H.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and (h_0, c_0): (num_layers * D, N, P) and (num_layers * D, N, H), by default
    zeros. Returns ``out, (h_n, c_n)``: the outputs (T, N, D * P) and the final states, of the initial ones' shapes.
    Parameters, all uniform within 1 / sqrt(H) at first, with k the layer and the suffix ``_reverse`` for the second direction:
    ``weight_ih_lk`` (4H, I), for layers above the first (4H, D * P); ``weight_hh_lk`` (4H, P); ``bias_ih_lk``, ``bias_hh_lk`` (4H,);
    with a projection ``weight_hr_lk`` (P, H). Rows in the order i, f, g, o.

    Raises:
        UsageError: arguments that make no network. ShapeError: inputs or states of other shapes.

    >>> import minigrad as mg
    >>> out, (h_n, c_n) = mg.nn.LSTM(2, 3)(mg.ones(5, 7, 2))
    >>> out.shape, h_n.shape, c_n.shape
    ((5, 7, 3), (1, 7, 3), (1, 7, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            LSTMUnit(), input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device,
            dtype,
        )

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs and final states."""
        y, (h_n, c_n) = self._run(input, hx)
        return y, (h_n, c_n)


class GRU(RecurrentLayers):
    """A gated recurrent unit (Cho et al. 2014) over a sequence; the reset gate acts after the product, as in PyTorch and cuDNN.

    ``r, z = σ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``, each with rows of its own;
    ``n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn))``; ``h_t = (1 - z) * n + z * h_{t-1}``.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states are not affected.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Parameters, all uniform within 1 / sqrt(H) at first, with k the layer and the suffix ``_reverse`` for the second direction:
    ``weight_ih_lk`` (3H, I), for layers above the first (3H, D * H); ``weight_hh_lk`` (3H, H); ``bias_ih_lk``, ``bias_hh_lk`` (3H,).
    Rows in the order r, z, n.

    Raises:
        UsageError: arguments that make no network. ShapeError: inputs or states of other shapes.

    >>> import minigrad as mg
    >>> out, h_n = mg.nn.GRU(2, 3, bidirectional=True)(mg.ones(5, 7, 2))
    >>> out.shape, h_n.shape
    ((5, 7, 6), (2, 7, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            GRUUnit(), input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """Return outputs and final states."""
        y, (h_n,) = self._run(input, hx)
        return y, h_n
