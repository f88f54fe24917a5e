"""Recurrent units and layers as compositions of the page's operations, with PyTorch's arguments, shapes and names.

A unit is written once, gate by gate. A layer cuts its parameters into gates once per sequence, for all steps:

    weight_ih (G*H, I)  ┐  rows of the     ┌ x[t] ──► affine ┐
    bias_ih   (G*H,)    ┘  gate         ──►│                 + ──► σ or tanh ──► h[t], c[t]
    weight_hh (G*H, H)  ┐  rows of the     │                 │
    bias_hh   (G*H,)    ┘  gate         ──►└ h[t-1] ► affine ┘

While a tape watches, steps and gates open scopes and values get names; otherwise nothing of that happens,
and the two biases of a gate are added up beforehand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
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

Map = Callable[[Tensor], Tensor]
"""A map of tensors that keeps all axes but the last."""

Pair = tuple[Map, Map]
"""What a gate does with the input, and with the state."""

NOTHING = contextlib.nullcontext()


class Weights(NamedTuple):
    """Parameters of one unit: input to gates, state to gates, their biases, and the projection of h."""

    ih: Parameter  # (G*H, I)
    hh: Parameter  # (G*H, P), P the size of h
    b_ih: Parameter | None  # (G*H,)
    b_hh: Parameter | None  # (G*H,)
    hr: Parameter | None  # (P, H)


def affine(weight: Tensor, bias: Tensor | None) -> Map:
    """Return ``x -> x @ mT(weight) + bias``; without a bias, weight is transposed once for all steps."""
    if bias is None:
        turned = ops.mT(weight)
        return lambda x: ops.matmul(x, turned)
    return lambda x: ops.affine(x, weight, bias)


class Quiet:
    """How a step works when nobody watches: it just computes."""

    def scope(self, word: str) -> Any:
        """Open no scope."""
        return NOTHING

    def name(self, x: Tensor, word: str) -> Tensor:
        """Return x."""
        return x

    def gate(self, words: tuple[str, str], squash: Map, maps: Pair, x: Tensor, h: Tensor) -> Tensor:
        """Return the squashed sum of the shares of input and state."""
        return squash(maps[0](x) + maps[1](h))


class Told(Quiet):
    """How a step works while a tape watches: a scope for each gate; names like ``f[3]``, ``f`` outside of sequences."""

    def __init__(self, t: int | None = None) -> None:
        self.ending = "" if t is None else f"[{t}]"

    def scope(self, word: str) -> Any:
        """Open a scope."""
        return _core.scope(word)

    def name(self, x: Tensor, word: str) -> Tensor:
        """Name a value and return it."""
        x.name = word + self.ending
        return x

    def gate(self, words: tuple[str, str], squash: Map, maps: Pair, x: Tensor, h: Tensor) -> Tensor:
        """Return the squashed sum of the shares of input and state."""
        with _core.scope(words[1]):
            return self.name(squash(maps[0](x) + maps[1](h)), words[0])


QUIET = Quiet()


# --- units --------------------------------------------------------------------------------------------------


class Unit:
    """Equations of a recurrent unit, its states, and its gates in the order of the parameters' rows."""

    gates: ClassVar[tuple[tuple[str, str], ...]]  # (letter, name)
    states: ClassVar[tuple[str, ...]]
    one_bias: ClassVar[bool] = True  # whether the two biases of a gate meet in a sum, and could be one

    def step(self, x: Tensor, state: State, maps: Sequence[Pair], how: Quiet) -> State:
        """Return the next state from the input and, for each gate, the maps of input and state."""
        raise NotImplementedError

    def maps(self, w: Weights, watched: bool) -> list[Pair]:
        """Cut the parameters into gates."""
        b_ih: Tensor | None = w.b_ih
        b_hh: Tensor | None = w.b_hh
        if not watched and self.one_bias and b_ih is not None and b_hh is not None:
            b_ih, b_hh = b_ih + b_hh, None
        size = w.ih.shape[0] // len(self.gates)

        def cut(tensor: Tensor | None, k: int) -> Any:
            if tensor is None or len(self.gates) == 1:
                return tensor
            part = tensor[k * size : (k + 1) * size]
            if watched:
                part.name = f"{tensor.name}[{self.gates[k][0]}]"
            return part

        return [
            (affine(cut(w.ih, k), cut(b_ih, k)), affine(cut(w.hh, k), cut(b_hh, k))) for k in range(len(self.gates))
        ]


class ElmanUnit(Unit):
    """h' = f(W x + b + U h + b'), f one of tanh and relu: one layer without gates, so without gate scopes."""

    gates = (("h", "state"),)
    states = ("h",)

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UsageError(f"nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        self.activation = ops.tanh if nonlinearity == "tanh" else ops.relu

    def step(self, x: Tensor, state: State, maps: Sequence[Pair], how: Quiet) -> State:
        """Add and squash."""
        ((from_x, from_h),) = maps
        return (how.name(self.activation(from_x(x) + from_h(state[0])), "h"),)


class LSTMUnit(Unit):
    """i, f, o = σ(W x + b + U h + b') and g = tanh(…) alike; c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c')."""

    gates = (("i", "input gate"), ("f", "forget gate"), ("g", "cell gate"), ("o", "output gate"))
    states = ("h", "c")

    def step(self, x: Tensor, state: State, maps: Sequence[Pair], how: Quiet) -> State:
        """Four layers, three of them σ; then five pointwise operations."""
        h, c = state
        i = how.gate(self.gates[0], ops.sigmoid, maps[0], x, h)
        f = how.gate(self.gates[1], ops.sigmoid, maps[1], x, h)
        g = how.gate(self.gates[2], ops.tanh, maps[2], x, h)
        o = how.gate(self.gates[3], ops.sigmoid, maps[3], x, h)
        c = how.name(f * c + i * g, "c")
        return how.name(o * ops.tanh(c), "h"), c


class GRUUnit(Unit):
    """r, z = σ(W x + b + U h + b'); n = tanh(W x + b + r ⊙ (U h + b')); h' = (1 - z) ⊙ n + z ⊙ h."""

    gates = (("r", "reset gate"), ("z", "update gate"), ("n", "new gate"))
    states = ("h",)
    one_bias = False

    def step(self, x: Tensor, state: State, maps: Sequence[Pair], how: Quiet) -> State:
        """Three layers, two of them σ; the reset gate acts after the product with U."""
        (h,) = state
        r = how.gate(self.gates[0], ops.sigmoid, maps[0], x, h)
        z = how.gate(self.gates[1], ops.sigmoid, maps[1], x, h)
        from_x, from_h = maps[2]
        n = how.gate(self.gates[2], ops.tanh, (from_x, lambda h: r * from_h(h)), x, h)
        return (how.name((1 - z) * n + z * h, "h"),)


# --- what cells and layers share ---------------------------------------------------------------------------


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

    def _weights(self, suffix: str) -> Weights:
        words = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return Weights(*[self._parameters.get(word + suffix) for word in words])

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
            kind = type(given).__name__
            raise UsageError(f"{who} takes its initial states as a pair, (h_0, c_0), not {kind}")
        states = tuple(as_tensor(s) for s in given)
        for word, state, shape in zip(words, states, shapes, strict=True):
            if state.shape != shape:
                raise ShapeError(f"{who}: {word}_0 has shape {state.shape}; here it must be {shape}")
        return states


# --- cells -------------------------------------------------------------------------------------------------


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
        watched = _core.is_watched()
        return self.unit.step(x, state, self.unit.maps(self._weights(""), watched), Told() if watched else QUIET)

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

    Call with x (N, I) and states (h, c), each (N, H), or without the batch; returns (h', c'). Without states
    it starts from zeros.
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


# --- layers ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scopes(watched: bool, *words: str) -> Iterator[None]:
    """Open scopes inside each other while a tape watches; empty words are left out."""
    with contextlib.ExitStack() as stack:
        for word in words:
            if watched and word:
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
            raise UsageError(f"{who}: dropout acts between layers, and there is one; use nn.Dropout after it")
        if not 0 <= proj_size < hidden_size:
            raise UsageError(f"{who}: proj_size={proj_size} must lie between 0 (off) and hidden_size={hidden_size}")
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
                f"{who}: the input has shape {x.shape}; it must be {batched} or (T, I), I = {self.input_size}"
            )
        axis = 1 if self.batch_first and x.ndim == 3 else 0
        if x.shape[axis] == 0:
            raise ShapeError(f"{who}: a sequence of no steps has no output; the input has shape {x.shape}")
        batch = (x.shape[1 - axis],) if x.ndim == 3 else ()
        count = self.num_layers * len(self._directions)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: len(self.unit.states)]
        states = self._states(given, [(count, *batch, size) for size in sizes])
        y, final = self._unroll(x, axis, states)
        return y, tuple(
            Told().name(ops.stack(*parts), f"{word}_n")
            for word, parts in zip(self.unit.states, zip(*final, strict=True), strict=True)
        )

    def _unroll(self, x: Tensor, axis: int, states: State) -> tuple[Tensor, list[State]]:
        """Run all layers; return the outputs of the last one and the final states of every layer and direction."""
        unit, watched, steps = self.unit, _core.is_watched(), x.shape[axis]
        at: list[Any] = [(slice(None), t) for t in range(steps)] if axis else list(range(steps))
        hows = [Told(t) if watched else QUIET for t in range(-1, steps + 1)]  # hows[t + 1] speaks of step t
        xs: list[Any] = [None] * steps
        final: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in self._directions:
                word = ("reverse" if direction else "forward") if self.bidirectional else ""
                w = self._weights(f"_l{layer}{direction}")
                with scopes(watched, f"layer {layer}", word):
                    maps = unit.maps(w, watched)
                    project = None if w.hr is None else affine(w.hr, None)
                    start = hows[-1 if direction else 0]
                    state = tuple(start.name(s[len(final)], word) for word, s in zip(unit.states, states, strict=True))
                    hs: list[Any] = [None] * steps
                    for t in reversed(range(steps)) if direction else range(steps):
                        how = hows[t + 1]
                        with how.scope(f"t={t}"):
                            if xs[t] is None:
                                xs[t] = how.name(x[at[t]], "x")
                            state = unit.step(xs[t], state, maps, how)
                            if project is not None:
                                how.name(state[0], "m")  # the output before its projection (Sak et al. 2014)
                                state = (how.name(project(state[0]), "h"), *state[1:])
                        hs[t] = state[0]
                outputs.append(hs)
                final.append(state)
            last = layer == self.num_layers - 1
            if last and not watched:
                break
            for t in range(steps):
                with scopes(watched, f"layer {layer}", f"t={t}"):
                    xs[t] = outputs[0][t]
                    if self.bidirectional:
                        xs[t] = hows[t + 1].name(ops.concatenate(*(hs[t] for hs in outputs), axis=-1), "y")
                    if self.dropout and self.training and not last:
                        xs[t] = dropped(xs[t], self.dropout)
        if watched:
            return Told().name(ops.stack(*xs, axis=axis), "output"), final
        sides = [ops.stack(*hs, axis=axis) for hs in outputs]
        return sides[0] if len(sides) == 1 else ops.concatenate(*sides, axis=-1), final

    def extra_repr(self) -> str:
        """Say the sizes and every option that is not at its default."""
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "proj_size": 0,
        }
        chosen = [f"{k}={getattr(self, k)}" for k, plain in defaults.items() if getattr(self, k) != plain]
        return ", ".join([str(self.input_size), str(self.hidden_size), *chosen])


class RNN(RecurrentLayers):
    """A simple recurrent network (Elman 1990) over a sequence.

    ``h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``, or with relu.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        nonlinearity: "tanh" or "relu".
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states keep their
            layout.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Parameters, all uniform within 1 / sqrt(H) at first; k is the layer, and the second direction has the
    suffix ``_reverse``: ``weight_ih_lk`` (H, I), for layers above the first (H, D * H); ``weight_hh_lk`` (H,
    H); ``bias_ih_lk``, ``bias_hh_lk`` (H,).

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
            ElmanUnit(nonlinearity),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
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
    """Long short-term memory (Hochreiter and Schmidhuber 1997, forget gate: Gers et al. 2000) over a sequence.

    ``i, f, o = σ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`` and ``g = tanh(…)`` with rows of their own;
    ``c_t = f * c_{t-1} + i * g``; ``h_t = o * tanh(c_t)``.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states keep their
            layout.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        proj_size: P > 0 makes h smaller, ``h_t = W_hr (o * tanh(c_t))`` (Sak et al. 2014); otherwise P below
            is H.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and (h_0, c_0): (num_layers * D, N, P) and (num_layers
    * D, N, H), by default zeros. Returns ``out, (h_n, c_n)``: the outputs (T, N, D * P) and the final
    states, of the initial ones' shapes.
    Parameters, all uniform within 1 / sqrt(H) at first; k is the layer, and the second direction has the
    suffix ``_reverse``: ``weight_ih_lk`` (4H, I), for layers above the first (4H, D * P); ``weight_hh_lk``
    (4H, P); ``bias_ih_lk``, ``bias_hh_lk`` (4H,); with a projection ``weight_hr_lk`` (P, H). Rows in the
    order i, f, g, o.

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
            LSTMUnit(),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs and final states."""
        y, (h_n, c_n) = self._run(input, hx)
        return y, (h_n, c_n)


class GRU(RecurrentLayers):
    """A gated recurrent unit (Cho et al. 2014) over a sequence; its reset gate acts after the product, as in PyTorch.

    ``r, z = σ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``, each with rows of its own;
    ``n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn))``; ``h_t = (1 - z) * n + z * h_{t-1}``.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states keep their
            layout.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        device, dtype: of the parameters.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Parameters, all uniform within 1 / sqrt(H) at first; k is the layer, and the second direction has the
    suffix ``_reverse``: ``weight_ih_lk`` (3H, I), for layers above the first (3H, D * H); ``weight_hh_lk``
    (3H, H); ``bias_ih_lk``, ``bias_hh_lk`` (3H,). Rows in the order r, z, n.

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
