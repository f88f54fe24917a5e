"""Layers and cells of recurrent units, with PyTorch's arguments, shapes and names and the options of the literature.

The equations stand in :mod:`minigrad.nn.units`. Here units get parameters and initial states, are stacked in layers and
directions, and run over sequences of one batch that may end at different steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .. import _core, ops
from ..backend import array_lane, is_number
from ..errors import ShapeError, UsageError
from ..grad import Composed
from ..ops._lengths import as_lengths, within
from ..tensor import Tensor, as_tensor, zeros
from . import init
from .activations import Activation
from .layers import check_probability, check_sizes, dropped, new_parameter
from .module import Module
from .sequence import CELLS, LAYERS, Way, fields, fused_options, joined, masks, run, scopes, stacked
from .units import QUIET, VARIANTS, ElmanUnit, GRUUnit, LSTMUnit, Quiet, State, Step, Told, Unit, Weights

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


# --- what cells and layers share ---------------------------------------------------------------------------


class Recurrent(Module):
    """Parameters of recurrent units and the checks of what is passed in."""

    unit: Unit
    plain: ClassVar[dict[str, Any]]  # options of the unit and their defaults

    def __init__(
        self,
        unit: Unit,
        input_size: int,
        hidden_size: int,
        bias: bool,
        options: dict[str, Any],
        projection: bool = False,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_sizes(who, input_size=input_size, hidden_size=hidden_size)
        for word in ("clip", "cell_clip"):
            bound = options.get(word)
            if bound is not None and not (is_number(bound) and bound > 0):
                raise UsageError(f"{who}: {word} is a positive bound or None, not {bound!r}")
        for word in ("recurrent_dropout", "weight_drop"):
            check_probability(f"{who}: {word}", options.get(word, 0.0))
        for p in unit.zoneout:
            check_probability(f"{who}: zoneout", p)
        self.unit, self.input_size, self.hidden_size = unit, int(input_size), int(hidden_size)
        self.bias = bool(bias)
        fused = fused_options(unit)
        if fused is not None:
            fused["bias"] = self.bias
            if "projection" in fused:
                fused["projection"] = projection
        self._options = fused
        self._fields = () if fused is None else fields(fused)
        for word, value in options.items():
            setattr(self, word, value)
        forget = options.get("forget_bias")
        if forget is not None and not is_number(forget):
            raise UsageError(f"{who}: forget_bias is a number or None, not {forget!r}")
        if forget is not None and not bias:
            raise UsageError(f"{who}: forget_bias={forget} needs bias=True")
        if forget is not None and isinstance(unit, LSTMUnit) and (unit.coupled or unit.variant == "NFG"):
            raise UsageError(f"{who}: forget_bias={forget} needs a forget gate of its own, which this unit has not")

    def _own(self, suffix: str, inputs: int, outputs: int, dtype: Any, device: str | None) -> None:
        """Register the parameters of one unit, in PyTorch's order."""
        for word, shape in self.unit.shapes(inputs, self.hidden_size, outputs, self.bias).items():
            self.register_parameter(word + suffix, new_parameter(shape, dtype, device))

    def _record(self, records: dict[type[Unit], Composed], x: Tensor, detail: str | None) -> Composed | None:
        """Return the record that runs this unit as one operation; None where operations are wanted one by one.

        That is where a tape watches them, where the unit has no record, draws random numbers, or lacks a parameter that
        it was made with, and where there is no kernel, which alone makes a record faster.
        """
        if self._options is None or detail == "ops":
            return None
        if self.training and (self.unit.recurrent_dropout or self.unit.weight_drop):
            return None
        found = records[type(self.unit)]
        if detail is None and not found.has_kernel(_core.data_of(x)):
            return None
        return None if None in self._parameters.values() else found

    def _whole_step(self, w: Weights, start: State) -> Step:
        """Return one step as one operation."""
        weights = [getattr(w, word) for word in self._fields]
        return lambda x, state, how: self._at_once(x, state, weights, how)

    def _at_once(self, x: Tensor, state: State, weights: list[Any], how: Quiet) -> State:
        """Take one step as one operation."""
        after: State = CELLS[type(self.unit)].run((x, *state, *weights), dict(self._options or {}))
        if how is not QUIET:
            for s, word in zip(after, self.unit.states, strict=True):
                how.name(s, word)
        return after

    def _weights(self, suffix: str) -> Weights:
        return Weights(*[self._parameters.get(word + suffix) for word in Weights._fields])

    def reset_parameters(self) -> None:
        """Draw new starting values, uniform within 1 / sqrt(hidden_size); gains start at 1, the cell's shift at 0.

        A `forget_bias` is set on the forget gate's rows of ``bias_ih``, whose rows of ``bias_hh`` become 0.
        """
        bound, forget = 1 / math.sqrt(self.hidden_size), getattr(self, "forget_bias", None)
        for name, parameter in self._parameters.items():
            if parameter is None:
                continue
            if name.startswith(("gain", "bias_c")):
                init.constant_(parameter, float(name.startswith("gain")))
            else:
                init.uniform_(parameter, -bound, bound)
            if forget is not None and name.startswith(("bias_ih", "bias_hh")):
                k = [letter for letter, _ in self.unit.gates].index("f")
                rows = parameter.detach()[k * self.hidden_size : (k + 1) * self.hidden_size]
                init.constant_(rows, forget if name.startswith("bias_ih") else 0.0)

    def _states(self, given: Any, shapes: Sequence[tuple[int, ...]]) -> tuple[State, int]:
        """Return the initial states as tensors of the expected shapes, and how many of them are the caller's business.

        They are zeros where none are given. The gates that FGR remembers are an initial state that can be left out, and
        then nobody is told of the final ones.
        """
        who, words = type(self).__name__, self.unit.states
        least = min(len(words), 2)
        if given is None:
            states: State = ()
        elif len(words) == 1:
            states = (as_tensor(given),)
        elif isinstance(given, tuple | list) and least <= len(given) <= len(words):
            for word, state in zip(words, given, strict=False):
                if state is None:
                    raise UsageError(f"{who}: {word}_0 is None; give zeros for it, or leave out all initial states")
            states = tuple(as_tensor(s) for s in given)
        else:
            kind = f"{len(given)} states" if isinstance(given, tuple | list) else type(given).__name__
            wanted = "a pair, (h_0, c_0)" + (", or a triple, (h_0, c_0, gates_0)" if len(words) > 2 else "")
            raise UsageError(f"{who} takes its initial states as {wanted}, not {kind}")
        for word, state, shape in zip(words, states, shapes, strict=False):
            if state.shape != shape:
                raise ShapeError(f"{who}: {word}_0 has shape {state.shape}; here it must be {shape}")
        told = max(least, len(states))
        if len(states) == len(words):
            return states, told
        like = next(self.parameters())
        for word, shape in zip(words[len(states) :], shapes[len(states) :], strict=True):
            fresh = zeros(shape, dtype=like.dtype, device=like.device)
            if _core.is_watched():
                fresh.name = f"{word}_0"
            states = (*states, fresh)
        return states, told

    def _state_sizes(self, outputs: int) -> list[int]:
        """Return the sizes of a unit's states: h, the cell, and FGR's three gates."""
        return [outputs, self.hidden_size, 3 * self.hidden_size][: len(self.unit.states)]

    def _step(self, w: Weights, start: State) -> Step:
        """Return one step, operation by operation."""
        return self.unit.bind(w, start, _core.is_watched(), self.training)

    def _words(self, plain: dict[str, Any]) -> str:
        """Say the sizes and every option that is not at its default; a variant also in words."""
        words = [str(self.input_size), str(self.hidden_size)]
        for name, usual in {**plain, **self.plain}.items():
            value = getattr(self, name)
            if value != usual:
                plainly = name == "nonlinearity" and isinstance(value, str)
                words.append(f"{name}={value if plainly else repr(value)}")
        variant = VARIANTS[self.unit.variant] if isinstance(self.unit, LSTMUnit) else ""
        return ", ".join(words) + (f": {variant}" if variant else "")


UNIT = {"clip": None, "layer_norm": False}
"""Options of every unit and their defaults."""

PER_SEQUENCE = {"recurrent_dropout": 0.0, "weight_drop": 0.0}
"""Options that last for a whole sequence, which no cell knows."""

LSTM_UNIT = {
    "activations": None,
    "cell_clip": None,
    "forget_bias": None,
    "input_forget": False,
    "zoneout": (0.0, 0.0),
    "peepholes": None,
    "variant": "V",
}
GRU_UNIT = {"reset_after": True, "activations": None, "zoneout": 0.0}
RNN_UNIT = {"nonlinearity": "tanh", "activations": None, "zoneout": 0.0}


def lstm_unit(who: str, options: dict[str, Any]) -> LSTMUnit:
    """Make the unit of an LSTM."""
    zoneout = options["zoneout"]
    if not isinstance(zoneout, tuple | list) or len(zoneout) != 2:
        raise UsageError(f"{who}: zoneout is a pair of probabilities, for h and for c, not {zoneout!r}")
    return LSTMUnit(**{k: v for k, v in options.items() if k != "forget_bias"})


def gru_unit(options: dict[str, Any]) -> GRUUnit:
    """Make the unit of a GRU."""
    return GRUUnit(**{**options, "zoneout": (options["zoneout"],)})


def elman_unit(who: str, options: dict[str, Any]) -> ElmanUnit:
    """Make the unit of a simple network, whose one activation may come under two names."""
    rest = {k: v for k, v in options.items() if k not in ("activations", "nonlinearity")}
    one, several = options["nonlinearity"], options["activations"]
    if several is not None:
        if one != "tanh" or isinstance(several, str) or len(several) != 1:
            raise UsageError(f"{who}: activations is a tuple of one, and stands instead of nonlinearity")
        (one,) = several
    return ElmanUnit(one, **{**rest, "zoneout": (options["zoneout"],)})


# --- cells -------------------------------------------------------------------------------------------------


class Cell(Recurrent):
    """One step of a recurrent unit."""

    def __init__(
        self,
        unit: Unit,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: str | None,
        dtype: Any,
        options: dict[str, Any],
    ) -> None:
        super().__init__(unit, input_size, hidden_size, bias, options)
        self._own("", self.input_size, self.hidden_size, dtype, device)
        self.reset_parameters()

    def _next(self, x: Any, given: Any) -> State:
        x = as_tensor(x)
        shape = x.shape
        if len(shape) not in (1, 2) or shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: the input has shape {shape}; it must be (N, {self.input_size}) or "
                f"({self.input_size},)"
            )
        sizes = self._state_sizes(self.hidden_size)
        state, told = self._states(given, [(*shape[:-1], size) for size in sizes])
        detail = _core.watched_detail()
        how = QUIET if detail is None else Told()
        if self._record(CELLS, x, detail) is None:
            return self._step(self._weights(""), state)(x, state, how)[:told]
        return self._at_once(x, state, [self._parameters[word] for word in self._fields], how)[:told]

    def extra_repr(self) -> str:
        """Say the sizes and every option that is not at its default."""
        return self._words({"bias": True})


class RNNCell(Cell):
    """One step of a simple recurrent network: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or another activation.

    Call with x (N, I) and h (N, H), or (I,) and (H,); returns h'. Without h it starts from zeros.
    Parameters: ``weight_ih`` (H, I), ``weight_hh`` (H, H), ``bias_ih`` and ``bias_hh`` (H,). The options are those of
    :class:`RNN` that one step can know.
    """

    plain: ClassVar = {**UNIT, **RNN_UNIT}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "tanh",
        device: str | None = None,
        dtype: Any = None,
        *,
        activations: Sequence[Activation] | None = None,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float = 0.0,
    ) -> None:
        options = {
            "nonlinearity": nonlinearity,
            "activations": activations,
            "clip": clip,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
        }
        super().__init__(elman_unit("RNNCell", options), input_size, hidden_size, bias, device, dtype, options)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return the next state."""
        return self._next(input, hx)[0]


class LSTMCell(Cell):
    """One step of a long short-term memory; gates i, f, g, o.

    Call with x (N, I) and states (h, c), each (N, H), or without the batch; returns (h', c'). Without states
    it starts from zeros. With ``variant="FGR"`` the gates i, f, o of the step before are a third state (N, 3H), zeros
    if not given; whoever gives it gets the next one.
    Parameters: ``weight_ih`` (4H, I), ``weight_hh`` (4H, H), ``bias_ih`` and ``bias_hh`` (4H,). The options are those
    of :class:`LSTM` that one step can know, and so are the parameters that they bring.

    >>> import minigrad as mg
    >>> mg.nn.LSTMCell(3, 5, peepholes="diagonal", variant="CIFG")
    LSTMCell(3, 5, peepholes='diagonal', variant='CIFG': input and forget gates coupled)
    """

    plain: ClassVar = {**UNIT, **LSTM_UNIT}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        peepholes: str | None = None,
        variant: str = "V",
        forget_bias: float | None = None,
        cell_clip: float | None = None,
        clip: float | None = None,
        input_forget: bool = False,
        activations: Sequence[Activation] | None = None,
        layer_norm: bool = False,
        zoneout: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        options = {
            "peepholes": peepholes,
            "variant": variant,
            "forget_bias": forget_bias,
            "cell_clip": cell_clip,
            "clip": clip,
            "input_forget": input_forget,
            "activations": activations,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
        }
        super().__init__(lstm_unit("LSTMCell", options), input_size, hidden_size, bias, device, dtype, options)

    def forward(self, input: Any, hx: Any = None) -> State:
        """Return the next states (h, c)."""
        return self._next(input, hx)


class GRUCell(Cell):
    """One step of a gated recurrent unit (Cho et al. 2014); gates r, z, n.

    Call with x (N, I) and h (N, H), or (I,) and (H,); returns h'. Without h it starts from zeros.
    Parameters: ``weight_ih`` (3H, I), ``weight_hh`` (3H, H), ``bias_ih`` and ``bias_hh`` (3H,). The options are those
    of :class:`GRU` that one step can know.
    """

    plain: ClassVar = {**UNIT, **GRU_UNIT}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
        activations: Sequence[Activation] | None = None,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float = 0.0,
    ) -> None:
        options = {
            "reset_after": reset_after,
            "activations": activations,
            "clip": clip,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
        }
        super().__init__(gru_unit(options), input_size, hidden_size, bias, device, dtype, options)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return the next state."""
        return self._next(input, hx)[0]


# --- layers ------------------------------------------------------------------------------------------------


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
        recompute_every: int | None,
        device: str | None,
        dtype: Any,
        options: dict[str, Any],
    ) -> None:
        super().__init__(unit, input_size, hidden_size, bias, options, bool(proj_size))
        who = type(self).__name__
        check_sizes(who, num_layers=num_layers)
        check_probability(f"{who}: dropout", dropout)
        if dropout and num_layers == 1:
            raise UsageError(f"{who}: dropout acts between layers, and there is one; use nn.Dropout after it")
        if not 0 <= proj_size < hidden_size:
            raise UsageError(f"{who}: proj_size={proj_size} must lie between 0 (off) and hidden_size={hidden_size}")
        if recompute_every is not None:
            check_sizes(who, recompute_every=recompute_every)
        self.num_layers, self.batch_first = int(num_layers), bool(batch_first)
        self.dropout, self.bidirectional, self.proj_size = float(dropout), bool(bidirectional), int(proj_size)
        outputs = self.proj_size or self.hidden_size
        for layer in range(self.num_layers):
            inputs = self.input_size if layer == 0 else outputs * len(self._directions)
            for direction in self._directions:
                self._own(f"_l{layer}{direction}", inputs, outputs, dtype, device)
        self.recompute_every = recompute_every
        self._operands = [
            [[word + f"_l{layer}{direction}" for word in self._fields] for direction in self._directions]
            for layer in range(self.num_layers)
        ]
        self.reset_parameters()

    @property
    def _directions(self) -> tuple[str, ...]:
        """Suffixes of the parameters' names, one per direction."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def _run(self, x: Any, given: Any, lengths: Any, mask: Any, cells: bool = False) -> tuple[Tensor, State, Any]:
        """Return the outputs of all steps, the final states, and the cells of all steps if they are wanted."""
        x = as_tensor(x)
        shape = x.shape
        who = type(self).__name__
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            batched = "(N, T, I)" if self.batch_first else "(T, N, I)"
            raise ShapeError(
                f"{who}: the input has shape {shape}; it must be {batched} or (T, I), I = {self.input_size}"
            )
        axis = 1 if self.batch_first and len(shape) == 3 else 0
        if shape[axis] == 0:
            raise ShapeError(f"{who}: a sequence of no steps has no output; the input has shape {shape}")
        batch = (shape[1 - axis],) if len(shape) == 3 else ()
        count = self.num_layers * len(self._directions)
        sizes = self._state_sizes(self.proj_size or self.hidden_size)
        detail = _core.watched_detail()
        states: State | None
        layer = self._record(LAYERS, x, detail)
        if layer is not None and given is None and detail != "cells":
            states, told = None, len(sizes)
        else:
            states, told = self._states(given, [(count, *batch, size) for size in sizes])
        inside = self._inside(x, axis, lengths, mask)  # (T, N)
        held = None
        if inside is not None:
            here = inside[..., None] if batch else inside
            on = array_lane(_core.data_of(x))
            held = _core.tensor(on.asarray(np.ascontiguousarray(here.swapaxes(0, axis))))
            # Padding may hold anything, even NaN: none of it comes in, and none of what it meets goes out.
            x = ops.where(held, x, 0)
        if layer is not None and detail != "cells":
            return self._fused(layer, x, axis, states, inside, cells, detail is not None)
        assert states is not None
        running = [None] * shape[axis] if inside is None else masks(inside, x)
        y, final, cs = self._unroll(x, axis, states, running, cells, layer is not None)
        if held is not None:
            y = ops.where(held, y, 0)
            cs = ops.where(held, cs, 0) if cells else None
        if detail is not None:
            Told().name(y, "output")
            if cells:
                Told().name(cs, "cells")
        return (
            y,
            tuple(
                Told().name(ops.stack(*parts), f"{word}_n")
                for word, parts in zip(self.unit.states[:told], zip(*final, strict=True), strict=False)
            ),
            cs,
        )

    def _fused(
        self,
        record: Composed,
        x: Tensor,
        axis: int,
        states: State | None,
        inside: np.ndarray[Any, Any] | None,
        cells: bool,
        watched: bool,
    ) -> tuple[Tensor, State, Any]:
        """Run each layer as one operation; arguments and results as those of `_run`, the input is masked already."""
        ways, words = self._directions, self.unit.states
        params = {
            **(self._options or {}),
            "states": states is not None,
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first,
            "lengths": None if inside is None else inside.sum(0, dtype=np.intp),
            "recompute": self.recompute_every or 0,
        }
        final: list[State] = []
        cs = None
        for k in range(self.num_layers):
            last = k == self.num_layers - 1
            if cells and last:
                params = {**params, "cells": True}
            with _core.scope(f"layer {k}"):
                operands = [x]
                for d, names in enumerate(self._operands[k]):
                    if states is not None:
                        operands += self._start(states, k * len(ways) + d, x.shape[axis] if ways[d] else -1, watched)
                    operands += [self._parameters[name] for name in names]
                x, *ends = record.run(tuple(operands), params)
                if cells and last:
                    cs = ends.pop()
                if watched:
                    Told().name(x, "output" if last else "y")
                if not last and self.dropout and self.training:
                    x = dropped(x, self.dropout, axis)
            final.append(tuple(ends))
        if cs is not None and watched:
            Told().name(cs, "cells")
        if self.num_layers == 1:
            found = final[0]
        else:
            found = tuple(ops.concatenate(*parts, axis=0) for parts in zip(*final, strict=True))
        if watched:
            for word, s in zip(words, found, strict=True):
                Told().name(s, f"{word}_n")
        return x, found, cs

    def _start(self, states: State, place: int, t: int, watched: bool) -> State:
        """Return the first state of one direction of a layer, at step t."""
        if not watched:
            return _slices(states, place)
        with scopes(self.bidirectional, "forward" if t < 0 else "reverse"):
            named = zip(self.unit.states, _slices(states, place), strict=True)
            return tuple(Told(t).name(s, word) for word, s in named)

    def _inside(self, x: Tensor, axis: int, lengths: Any, mask: Any) -> np.ndarray[Any, Any] | None:
        """Return which steps lie inside of each sequence, (T, N) with N = 1 without a batch; None if all of them do."""
        who, steps, number = type(self).__name__, x.shape[axis], x.shape[1 - axis] if x.ndim == 3 else 1
        if lengths is None and mask is None:
            return None
        if mask is None:
            return within(as_lengths(f"{who}: lengths", lengths, number, steps), steps).T
        if lengths is not None:
            raise UsageError(f"{who}: lengths and a mask say the same thing; give one of them")
        found = as_tensor(mask).numpy().astype(bool)
        if found.shape != x.shape[:-1]:
            raise ShapeError(f"{who}: the mask has shape {found.shape}; here it must be {x.shape[:-1]}")
        found = found.swapaxes(0, axis).reshape(steps, number)
        if (found[1:] > found[:-1]).any():
            raise UsageError(
                f"{who}: a mask says how long sequences are; steps cannot begin to count again after a gap"
            )
        return found

    def _unroll(
        self, x: Tensor, axis: int, states: State, running: list[Any], cells: bool, whole_steps: bool
    ) -> tuple[Tensor, list[State], Any]:
        """Run all layers step by step.

        Args:
            x: the input.
            axis: its axis of time.
            states: the initial states of every layer and direction.
            running: for each step which sequences go on in it, as :func:`masks` says.
            cells: whether the cells are wanted.
            whole_steps: whether a step is one operation.

        Returns:
            The outputs of the last layer, the final states of every layer and direction, the cells of the last layer.
        """
        watched, steps = _core.is_watched(), x.shape[axis]
        xs: list[Any] = [None] * steps
        final: list[State] = []
        for layer in range(self.num_layers):
            ways = [
                Way(
                    ("reverse" if direction else "forward") if self.bidirectional else "",
                    bool(direction),
                    self._weights(f"_l{layer}{direction}"),
                    functools.partial(_slices, states, len(final) + d),
                )
                for d, direction in enumerate(self._directions)
            ]
            last = layer == self.num_layers - 1
            with scopes(watched, f"layer {layer}"):
                outputs, memories, ends = run(
                    self.unit.states,
                    ways,
                    xs,
                    lambda t: x[:, t] if axis else x[t],
                    running,
                    self._whole_step if whole_steps else self._step,
                    watched,
                    cells,
                )
                final += ends
                if last and not watched:
                    break
                xs = joined(outputs, watched)
                if self.dropout and self.training and not last:
                    for t in range(steps):
                        with scopes(watched, f"t={t}"):
                            xs[t] = dropped(xs[t], self.dropout)
        y = ops.stack(*xs, axis=axis) if watched else stacked(outputs, axis)
        return y, final, stacked(memories, axis) if cells else None

    def extra_repr(self) -> str:
        """Say the sizes and every option that is not at its default; a variant also in words."""
        layers = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        return self._words({**layers, "bidirectional": False, "proj_size": 0, "recompute_every": None})


def _slices(states: State, k: int) -> State:
    return tuple(s[k] for s in states)


class RNN(RecurrentLayers):
    """A simple recurrent network (Elman 1990) over a sequence.

    ``h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``, or with another activation.

    Args:
        input_size, hidden_size: I and H.
        num_layers: how many are stacked, each reading the outputs of the one below.
        nonlinearity: "tanh", "relu", or any other activation, see :class:`LSTM`.
        bias: whether the units have ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches of sequences are (N, T, …) instead of (T, N, …); states keep their
            layout.
        dropout: probability of dropping elements between layers while training.
        bidirectional: whether a second network reads the sequence backwards; outputs are joined, D = 2.
        device, dtype: of the parameters.
        activations: a tuple of one, instead of `nonlinearity`.
        clip: bound of the sum that enters the activation (ONNX's clip).
        layer_norm: ``h_t = f(gain * norm(W_ih x_t + W_hh h_{t-1}) + b_ih + b_hh)``, norm(v) = (v - mean) /
            sqrt(variance + 1e-5) over H (equation 4 of Ba et al. 2016); brings ``gain_lk`` (H,), ones at first.
        zoneout: probability that an element of h keeps its value while training; otherwise the mean of that (Krueger
            et al. 2017).
        recurrent_dropout: probability of dropping elements of h_{t-1} on their way into the unit, the same ones at
            all steps of a sequence (Gal and Ghahramani 2016).
        weight_drop: probability of dropping elements of ``weight_hh``, once for a sequence (Merity et al. 2018).
        recompute_every: k keeps no step's activations for backward but the states of every k-th, and computes the rest
            again: less memory for very long sequences, the same numbers. None keeps all. It is the fused layers' alone.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Sequences of one batch may end early: pass ``lengths``, integers (N,) from 0 to T in any order, or a ``mask`` of
    the steps that count, of the shape of x without I. Outputs are zero after a sequence's end, final states are
    its last ones (the initial ones if it is empty), and the second direction starts at each sequence's own end.
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

    plain: ClassVar = {**UNIT, **PER_SEQUENCE, **RNN_UNIT}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        activations: Sequence[Activation] | None = None,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        recompute_every: int | None = None,
    ) -> None:
        options = {
            "nonlinearity": nonlinearity,
            "activations": activations,
            "clip": clip,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
        }
        super().__init__(
            elman_unit("RNN", options),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            recompute_every,
            device,
            dtype,
            options,
        )

    def forward(self, input: Any, hx: Any = None, lengths: Any = None, *, mask: Any = None) -> tuple[Tensor, Tensor]:
        """Return outputs and final states."""
        y, (h_n,), _ = self._run(input, hx, lengths, mask)
        return y, h_n


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
        peepholes: None, "diagonal" (i and f see ``p * c_{t-1}``, o sees ``p * c_t``; Gers, Odyssey, ONNX) or "full"
            (``P c`` instead; Chainer, DyNet).
        variant: one of the nine of "LSTM: A Search Space Odyssey" (Greff et al. 2017): "V" vanilla; "NIG", "NFG",
            "NOG" without input, forget or output gate (it is 1); "NIAF", "NOAF" without the activation of g or of
            c_t; "CIFG" with f = 1 - i; "NP" no peepholes; "FGR" where the gates also see all gates of the step
            before. Parameters hold only the rows of the gates that there are. "V" without peepholes, "NP" and
            PyTorch's LSTM are the same.
        forget_bias: starting value of the forget gate's rows of ``bias_ih``; those of ``bias_hh`` are 0 then.
        cell_clip: c_t is held between -cell_clip and cell_clip; where it is held no gradient passes.
        clip: bound of whatever enters an activation, c_t on its way into h's among it; c_t itself is not held (ONNX's
            clip).
        input_forget: f = 1 - i, as "CIFG", but on the full set of parameters (ONNX's input_forget); the forget gate's
            rows get no gradient.
        activations: f of the gates, g of the block's input, h of c_t; ("sigmoid", "tanh", "tanh") if not given. Each
            is a name (ONNX's eleven or a function of the page), (name, alpha, beta), a function of a tensor, or
            None.
        layer_norm: ``W_ih x_t + b_ih`` becomes ``gain_ih * norm(W_ih x_t) + b_ih``, ``W_hh h_{t-1} + b_hh`` alike, with
            one mean and one variance for the rows of all gates, and ``h_t = o * tanh(gain_c * norm(c_t) + bias_c)``;
            norm(v) = (v - mean) / sqrt(variance + 1e-5) (equations 20 to 22 of Ba et al. 2016).
        zoneout: (p of h, p of c), probabilities that an element of a state keeps its value while training; otherwise
            the mean of that (Krueger et al. 2017).
        recurrent_dropout: probability of dropping elements of h_{t-1} on their way into the unit, the same ones at
            all steps of a sequence (Gal and Ghahramani 2016).
        weight_drop: probability of dropping elements of ``weight_hh``, once for a sequence (Merity et al. 2018).
        recompute_every: k keeps no step's activations for backward but the states of every k-th, and computes the rest
            again: less memory for very long sequences, the same numbers. None keeps all. It is the fused layers' alone.

    Call with x (T, N, I), or (T, I) without a batch, and (h_0, c_0): (num_layers * D, N, P) and (num_layers
    * D, N, H), by default zeros. Returns ``out, (h_n, c_n)``: the outputs (T, N, D * P) and the final
    states, of the initial ones' shapes.
    ``return_cells=True`` adds every c_t of the last layer, (T, N, D * H): ``out, (h_n, c_n), cells``.
    Sequences of one batch may end early: pass ``lengths``, integers (N,) from 0 to T in any order, or a ``mask`` of
    the steps that count, of the shape of x without I. Outputs are zero after a sequence's end, final states are
    its last ones (the initial ones if it is empty), and the second direction starts at each sequence's own end.
    With ``variant="FGR"`` the gates of the step before the first are zeros, or a third initial state gates_0
    (num_layers * D, N, 3H) in the order i, f, o; whoever passes it gets ``out, (h_n, c_n, gates_n)``.
    Parameters, all uniform within 1 / sqrt(H) at first; k is the layer, and the second direction has the
    suffix ``_reverse``: ``weight_ih_lk`` (4H, I), for layers above the first (4H, D * P); ``weight_hh_lk``
    (4H, P); ``bias_ih_lk``, ``bias_hh_lk`` (4H,); with a projection ``weight_hr_lk`` (P, H). Rows in the
    order i, f, g, o. Options bring ``weight_ph_lk``, (3H,) diagonal or (3H, H) full, rows i, f, o; ``weight_gg_lk``
    (3H, 3H), rows the gates i, f, o at t, columns the same at t - 1; ``gain_ih_lk`` and ``gain_hh_lk`` (4H,),
    ``gain_c_lk`` (H,), ones at first, and ``bias_c_lk`` (H,), zeros. A gate that a variant lacks has no rows anywhere.

    Raises:
        UsageError: arguments that make no network. ShapeError: inputs or states of other shapes.

    >>> import minigrad as mg
    >>> out, (h_n, c_n) = mg.nn.LSTM(2, 3)(mg.ones(5, 7, 2))
    >>> out.shape, h_n.shape, c_n.shape
    ((5, 7, 3), (1, 7, 3), (1, 7, 3))
    >>> mg.nn.LSTM(3, 5, peepholes="diagonal", variant="CIFG")
    LSTM(3, 5, peepholes='diagonal', variant='CIFG': input and forget gates coupled)
    """

    plain: ClassVar = {**UNIT, **PER_SEQUENCE, **LSTM_UNIT}

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
        *,
        peepholes: str | None = None,
        variant: str = "V",
        forget_bias: float | None = None,
        cell_clip: float | None = None,
        clip: float | None = None,
        input_forget: bool = False,
        activations: Sequence[Activation] | None = None,
        layer_norm: bool = False,
        zoneout: tuple[float, float] = (0.0, 0.0),
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        recompute_every: int | None = None,
    ) -> None:
        options = {
            "peepholes": peepholes,
            "variant": variant,
            "forget_bias": forget_bias,
            "cell_clip": cell_clip,
            "clip": clip,
            "input_forget": input_forget,
            "activations": activations,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
        }
        super().__init__(
            lstm_unit("LSTM", options),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            recompute_every,
            device,
            dtype,
            options,
        )

    def forward(
        self, input: Any, hx: Any = None, lengths: Any = None, *, mask: Any = None, return_cells: bool = False
    ) -> tuple[Any, ...]:
        """Return outputs and final states, and all cells if they are wanted."""
        y, states, cells = self._run(input, hx, lengths, mask, return_cells)
        return (y, states, cells) if return_cells else (y, states)


class GRU(RecurrentLayers):
    """A gated recurrent unit (Cho et al. 2014) over a sequence; as PyTorch's by default.

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
        reset_after: whether the reset gate acts after the product with W_hn, as in PyTorch, or before it, as in the
            paper and by default in ONNX: ``n = tanh(W_in x_t + b_in + W_hn (r * h_{t-1}) + b_hn)``.
        activations: f of both gates and g of n, ("sigmoid", "tanh") if not given; see :class:`LSTM`.
        clip: bound of the sums that enter the activations (ONNX's clip).
        layer_norm: replaces every W x and W h by gain * norm(…), with one mean and one variance for r and z together
            and others for n (Ba et al. 2016); brings ``gain_ih_lk`` and ``gain_hh_lk`` (3H,), ones at first.
        zoneout: probability that an element of h keeps its value while training; otherwise the mean of that (Krueger
            et al. 2017).
        recurrent_dropout: probability of dropping elements of h_{t-1} on their way into the unit, the same ones at
            all steps of a sequence (Gal and Ghahramani 2016).
        weight_drop: probability of dropping elements of ``weight_hh``, once for a sequence (Merity et al. 2018).
        recompute_every: k keeps no step's activations for backward but the states of every k-th, and computes the rest
            again: less memory for very long sequences, the same numbers. None keeps all. It is the fused layers' alone.

    Call with x (T, N, I), or (T, I) without a batch, and h_0 (num_layers * D, N, H), by default zeros.
    Returns the outputs (T, N, D * H) and the final states h_n, of the shape of h_0.
    Sequences of one batch may end early: pass ``lengths``, integers (N,) from 0 to T in any order, or a ``mask`` of
    the steps that count, of the shape of x without I. Outputs are zero after a sequence's end, final states are
    its last ones (the initial ones if it is empty), and the second direction starts at each sequence's own end.
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

    plain: ClassVar = {**UNIT, **PER_SEQUENCE, **GRU_UNIT}

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
        *,
        reset_after: bool = True,
        activations: Sequence[Activation] | None = None,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        recompute_every: int | None = None,
    ) -> None:
        options = {
            "reset_after": reset_after,
            "activations": activations,
            "clip": clip,
            "layer_norm": layer_norm,
            "zoneout": zoneout,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
        }
        super().__init__(
            gru_unit(options),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            recompute_every,
            device,
            dtype,
            options,
        )

    def forward(self, input: Any, hx: Any = None, lengths: Any = None, *, mask: Any = None) -> tuple[Tensor, Tensor]:
        """Return outputs and final states."""
        y, (h_n,), _ = self._run(input, hx, lengths, mask)
        return y, h_n
