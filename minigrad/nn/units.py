"""Recurrent units, each written once as a composition of the page's operations, with the options of the literature.

Binding a unit to its parameters cuts them into gates, once for all steps of a sequence, and gives one step's function:

    weight_ih (G*H, I)  ┐  rows of the     ┌ x[t] ──► affine ┐
    bias_ih   (G*H,)    ┘  gate         ──►│                 + (+ peepholes …) ──► σ or tanh ──► h[t], c[t]
    weight_hh (G*H, H)  ┐  rows of the     │                 │
    bias_hh   (G*H,)    ┘  gate         ──►└ h[t-1] ► affine ┘

While a tape watches, steps and gates open scopes and values get names; otherwise nothing of that happens,
and the two biases of a gate are added up beforehand. An option that is off leaves no operation behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from .. import _core, ops
from ..backend import array_lane
from ..errors import UsageError
from ..tensor import Tensor, ones_like
from .activations import Activation, Map, activation, chosen
from .layers import dropped

__all__ = ["QUIET", "ElmanUnit", "GRUUnit", "LSTMUnit", "Quiet", "State", "Told", "Unit", "Weights", "affine"]

State = tuple[Tensor, ...]
"""What a unit hands to its next step: (h,), or (h, c) of an LSTM; each (N, H), or (H,) without a batch."""

Words = tuple[str, str]
"""The letter of a gate, and its name."""

NOTHING = contextlib.nullcontext()
EPSILON = 1e-5  # under the square root of a layer normalisation


class Weights(NamedTuple):
    """Parameters of one unit; the fields are the first words of their names. A gate has H rows, G is their number."""

    weight_ih: Tensor  # (G*H, I)
    weight_hh: Tensor  # (G*H, P), P the size of h
    bias_ih: Tensor | None = None  # (G*H,)
    bias_hh: Tensor | None = None  # (G*H,)
    weight_hr: Tensor | None = None  # (P, H): the projection of h
    weight_ph: Tensor | None = None  # (K*H,) or (K*H, H): peepholes of the K gates there are, in the order i, f, o
    weight_gg: Tensor | None = None  # (3H, 3H): gates i, f, o of the step before to those of this one
    gain: Tensor | None = None  # (H,): of the normalised sum of a simple network
    gain_ih: Tensor | None = None  # (G*H,): of the normalised share of the input
    gain_hh: Tensor | None = None  # (G*H,): of the normalised share of the state
    gain_c: Tensor | None = None  # (H,): of the normalised cell
    bias_c: Tensor | None = None  # (H,)


class Terms(NamedTuple):
    """What a gate adds up: its shares of the input, of the state, and of other things that it sees, by position."""

    from_x: Map
    from_h: Map
    more: tuple[tuple[Map, int], ...] = ()


def affine(weight: Tensor, bias: Tensor | None) -> Map:
    """Return ``x -> x @ mT(weight) + bias``; without a bias, weight is transposed once for all steps."""
    if bias is None:
        turned = ops.mT(weight)
        return lambda x: ops.matmul(x, turned)
    return lambda x: ops.affine(x, weight, bias)


def normalised(x: Tensor) -> Tensor:
    """Return x, less its mean and over its deviation along the last axis."""
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + EPSILON)


def stretched(x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``gain * x + bias``."""
    x = x if gain is None else gain * x
    return x if bias is None else x + bias


def mixed(before: Tensor, after: Tensor, p: float, training: bool) -> Tensor:
    """Keep elements of `before` with probability p; outside of training, return the mean of that."""
    if not training:
        return p * before + (1 - p) * after
    data = _core.data_of(before)
    return ops.where(_core.tensor(array_lane(data).random(before.shape, data.dtype) < p), before, after)


class Quiet:
    """How a step works when nobody watches: it just computes."""

    def scope(self, word: str) -> Any:
        """Open no scope."""
        return NOTHING

    def name(self, x: Tensor, word: str) -> Tensor:
        """Return x."""
        return x

    def gate(self, words: Words, squash: Map, terms: Terms, x: Tensor, h: Tensor, others: State = ()) -> Tensor:
        """Return the squashed sum of a gate's terms; `others` are what it sees besides x and h."""
        from_x, from_h, more = terms
        total = from_x(x) + from_h(h)
        for share, k in more:
            total = total + share(others[k])
        return squash(total)


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

    def gate(self, words: Words, squash: Map, terms: Terms, x: Tensor, h: Tensor, others: State = ()) -> Tensor:
        """Return the squashed sum of a gate's terms."""
        with _core.scope(words[1]):
            return self.name(super().gate(words, squash, terms, x, h, others), words[0])


QUIET = Quiet()

Step = Callable[[Tensor, State, Quiet], State]
"""The next state from the input and the state, and how to work."""


class Unit:
    """Equations of a recurrent unit, its states, and its gates in the order of the parameters' rows.

    Args:
        clip: bound of the sums that enter activations; None for none.
        layer_norm: whether those sums are normalised; each unit's docstring says how.
        zoneout: for each state, the probability that an element keeps its value (Krueger et al. 2017).
        recurrent_dropout: probability of dropping an element of h on its way into the gates, the same ones at all
            steps of a sequence (Gal and Ghahramani 2016).
        weight_drop: probability of dropping an element of weight_hh, once for a sequence (Merity et al. 2018).
    """

    gates: tuple[tuple[str, str], ...]  # (letter, name)
    states: tuple[str, ...]
    blocks: ClassVar[tuple[int, ...]] = ()  # with layer_norm, how many neighbouring gates are normalised together

    def __init__(
        self,
        *,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: Sequence[float] = (),
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        self.clip, self.layer_norm, self.zoneout = clip, layer_norm, tuple(zoneout)
        self.recurrent_dropout, self.weight_drop = recurrent_dropout, weight_drop

    @property
    def one_bias(self) -> bool:
        """Whether the two biases of a gate meet in a sum, and could be one."""
        return not self.layer_norm

    def shapes(self, inputs: int, hidden: int, outputs: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the unit's parameters, in PyTorch's order; its options' own come last."""
        rows = len(self.gates) * hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if outputs != hidden:
            shapes["weight_hr"] = (outputs, hidden)
        return shapes | self.own_shapes(hidden, bias)

    def own_shapes(self, hidden: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters that options bring."""
        rows = len(self.gates) * hidden
        return {"gain_ih": (rows,), "gain_hh": (rows,)} if self.layer_norm else {}

    def equations(self, w: Weights, watched: bool, keep: Tensor | None) -> Step:
        """Return one step without projection and zoneout; `keep` multiplies h on its way into the gates."""
        raise NotImplementedError

    def bind(self, w: Weights, start: State, watched: bool, training: bool) -> Step:
        """Return the function of one step of the sequence that starts at a state."""
        if training and self.weight_drop:
            kept = dropped(w.weight_hh, self.weight_drop)
            if watched:
                kept.name = w.weight_hh.name
            w = w._replace(weight_hh=kept)
        keep = dropped(ones_like(start[0]), self.recurrent_dropout) if training and self.recurrent_dropout else None
        step = self.equations(w, watched, keep)
        if w.weight_hr is None and not any(self.zoneout):
            return step
        project = None if w.weight_hr is None else affine(w.weight_hr, None)
        chances = (*self.zoneout, *[0.0] * len(start))

        def whole(x: Tensor, state: State, how: Quiet) -> State:
            after = step(x, state, how)
            if project is not None:
                how.name(after[0], "m")  # the output before its projection (Sak et al. 2014)
                after = (how.name(project(after[0]), "h"), *after[1:])
            return tuple(
                how.name(mixed(s, how.name(new, f"{word} new"), p, training), word) if p else new
                for word, s, new, p in zip(self.states, state, after, chances, strict=False)
            )

        return whole

    def cut(self, tensor: Tensor, letters: str, letter: str, watched: bool) -> Tensor:
        """Return the rows of one gate."""
        if len(letters) == 1:
            return tensor
        size, k = tensor.shape[0] // len(letters), letters.index(letter)
        part = tensor[k * size : (k + 1) * size]
        if watched:
            part.name = f"{tensor.name}[{letter}]"
        return part

    def terms(self, w: Weights, watched: bool, unused: str = "") -> dict[str, Terms]:
        """Cut the parameters into gates: for each letter its shares of input and state."""
        letters = "".join(letter for letter, _ in self.gates)
        if self.layer_norm:
            return {g: Terms(self._row(letters, g), self._row(letters, g)) for g in letters}
        b_ih, b_hh = w.bias_ih, w.bias_hh
        if not watched and self.one_bias and b_ih is not None and b_hh is not None:
            b_ih, b_hh = b_ih + b_hh, None

        def share(weight: Tensor, bias: Tensor | None, g: str) -> Map:
            rows = self.cut(weight, letters, g, watched)
            return affine(rows, None if bias is None else self.cut(bias, letters, g, watched))

        return {g: Terms(share(w.weight_ih, b_ih, g), share(w.weight_hh, b_hh, g)) for g in letters if g not in unused}

    def _row(self, letters: str, g: str) -> Map:
        """Return the map that takes one gate out of a normalised row of all gates."""

        def part(x: Tensor) -> Tensor:
            size = x.shape[-1] // len(letters)
            return x[..., letters.index(g) * size : (letters.index(g) + 1) * size]

        return part

    def entrance(self, w: Weights, keep: Tensor | None) -> Callable[[Tensor, Tensor, Quiet], tuple[Tensor, Tensor]]:
        """Return what happens to input and state before the gates see them: dropout of h, and layer normalisation."""
        if not self.layer_norm:
            assert keep is not None
            return lambda x, h, how: (x, how.name(h * keep, "h kept"))
        maps = [
            (affine(w.weight_ih, None), w.gain_ih, w.bias_ih, "Wx"),
            (affine(w.weight_hh, None), w.gain_hh, w.bias_hh, "Uh"),
        ]

        def enter(x: Tensor, h: Tensor, how: Quiet) -> tuple[Tensor, Tensor]:
            if keep is not None:
                h = how.name(h * keep, "h kept")
            with how.scope("layer norm"):
                a, b = (
                    how.name(stretched(self._normalised(share(v)), gain, bias), word)
                    for v, (share, gain, bias, word) in zip((x, h), maps, strict=True)
                )
            return a, b

        return enter

    def _normalised(self, x: Tensor) -> Tensor:
        """Normalise each block of gates by itself."""
        if len(self.blocks) == 1:
            return normalised(x)
        size, parts, start = x.shape[-1] // len(self.gates), [], 0
        for count in self.blocks:
            parts.append(normalised(x[..., start : start + count * size]))
            start += count * size
        return ops.concatenate(*parts, axis=-1)

    def clipped(self, squash: Map) -> Map:
        """Return the activation, its argument held within the bound."""
        bound = self.clip
        return squash if bound is None else lambda a: squash(ops.clip(a, -bound, bound))


class ElmanUnit(Unit):
    """h' = f(W x + b + U h + b'): one layer without gates, so without gate scopes.

    Layer normalisation as in equation 4 of Ba et al. 2016: h' = f(gain ⊙ norm(W x + U h) + b + b').
    """

    gates = (("h", "state"),)
    states = ("h",)

    def __init__(self, nonlinearity: Activation = "tanh", **options: Any) -> None:
        super().__init__(**options)
        self.activation = activation(nonlinearity)

    def own_shapes(self, hidden: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """Return the shape of the gain."""
        return {"gain": (hidden,)} if self.layer_norm else {}

    def equations(self, w: Weights, watched: bool, keep: Tensor | None) -> Step:
        """Add and squash."""
        squash = self.clipped(self.activation)
        if self.layer_norm:
            gain = w.gain
            from_x, from_h = affine(w.weight_ih, None), affine(w.weight_hh, None)
            bias = None if w.bias_ih is None or w.bias_hh is None else w.bias_ih + w.bias_hh
        else:
            gain = None
            from_x, from_h, _ = self.terms(w, watched)["h"]

        def step(x: Tensor, state: State, how: Quiet) -> State:
            (h,) = state
            if keep is not None:
                h = how.name(h * keep, "h kept")
            a = from_x(x) + from_h(h)
            if gain is not None:
                with how.scope("layer norm"):
                    a = stretched(normalised(a), gain, bias)
            return (how.name(squash(a), "h"),)

        return step


VARIANTS = {
    "V": "",
    "NIG": "no input gate",
    "NFG": "no forget gate",
    "NOG": "no output gate",
    "NIAF": "no activation on the input",
    "NOAF": "no activation on the output",
    "CIFG": "input and forget gates coupled",
    "NP": "no peepholes",
    "FGR": "every gate sees every gate of the step before",
}
"""The nine of "LSTM: A Search Space Odyssey" (Greff et al. 2017), and what sets them apart."""

LACKS = {"NIG": "i", "NFG": "f", "NOG": "o", "CIFG": "f"}
NAMES = {"i": "input gate", "f": "forget gate", "g": "cell gate", "o": "output gate"}


class LSTMUnit(Unit):
    """i, f, o = σ(W x + b + U h + b') and g = tanh(…) alike; c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c').

    Layer normalisation as in equations 20 to 22 of Ba et al. 2016, with one mean and one deviation for the rows of all
    gates: i, f, g, o from gain_hh ⊙ norm(U h) + b' + gain_ih ⊙ norm(W x) + b, and h' = o ⊙ tanh(gain_c ⊙ norm(c') +
    bias_c). The paper's β₁ and β₂ are b' and b; its third bias, which is added to them, is not a parameter of its own.
    """

    blocks = (4,)

    def __init__(
        self,
        *,
        peepholes: str | None = None,
        variant: str = "V",
        cell_clip: float | None = None,
        input_forget: bool = False,
        activations: Sequence[Activation] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if variant not in VARIANTS:
            raise UsageError(f"variant is one of {', '.join(VARIANTS)}, not {variant!r}")
        if peepholes not in (None, "diagonal", "full"):
            raise UsageError(f"peepholes are None, 'diagonal' or 'full', not {peepholes!r}")
        if variant == "NP" and peepholes is not None:
            raise UsageError(f"variant='NP' means no peepholes, and peepholes={peepholes!r} asks for them")
        if input_forget and LACKS.get(variant):
            raise UsageError(f"input_forget=True couples two gates, and variant={variant!r} does not have both")
        f, g, h = chosen("LSTM", activations, ("sigmoid", "tanh", "tanh"), "fgh")
        for letter, k in (("NIAF", 1), ("NOAF", 2)):
            if variant == letter and activations is not None and activations[k] is not None:
                raise UsageError(f"variant={variant!r} means {VARIANTS[variant]}: activations[{k}] can only be None")
        self.peepholes, self.variant, self.cell_clip, self.input_forget = peepholes, variant, cell_clip, input_forget
        none = activation(None)
        self.activations = f, none if variant == "NIAF" else g, none if variant == "NOAF" else h
        self.coupled = input_forget or variant == "CIFG"
        self.gates = tuple((letter, name) for letter, name in NAMES.items() if letter not in LACKS.get(variant, ""))
        self.states = ("h", "c", "gates") if variant == "FGR" else ("h", "c")
        self.looking = "".join(letter for letter, _ in self.gates if letter != "g")

    def own_shapes(self, hidden: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """Return the shapes of peepholes, weights between gates, and gains."""
        shapes: dict[str, tuple[int, ...]] = {}
        rows = len(self.looking) * hidden
        if self.peepholes is not None:
            shapes["weight_ph"] = (rows,) if self.peepholes == "diagonal" else (rows, hidden)
        if self.variant == "FGR":
            shapes["weight_gg"] = (rows, rows)
        shapes |= super().own_shapes(hidden, bias)
        if self.layer_norm:
            shapes["gain_c"] = (hidden,)
            if bias:
                shapes["bias_c"] = (hidden,)
        return shapes

    def terms(self, w: Weights, watched: bool, unused: str = "") -> dict[str, Terms]:
        """Cut the parameters into gates; gates may see the cell too, and the gates of the step before."""
        found = super().terms(w, watched, unused)
        for g in self.looking:
            if g in unused:
                continue
            more: list[tuple[Map, int]] = []
            if w.weight_ph is not None:
                rows = self.cut(w.weight_ph, self.looking, g, watched)
                more.append((_times(rows) if self.peepholes == "diagonal" else affine(rows, None), 0))
            if w.weight_gg is not None:
                more.append((affine(self.cut(w.weight_gg, self.looking, g, watched), None), 1))
            found[g] = found[g]._replace(more=tuple(more))
        return found

    def equations(self, w: Weights, watched: bool, keep: Tensor | None) -> Step:
        """Four layers, three of them σ; then five pointwise operations."""
        coupled, bound, gain, remembers = self.coupled, self.cell_clip, w.gain_c, self.variant == "FGR"
        terms = self.terms(w, watched, unused="f" if self.input_forget else "")
        to_i, to_f, to_g, to_o = terms.get("i"), terms.get("f"), terms["g"], terms.get("o")
        sees = self.peepholes is not None or remembers
        of_i, of_f, of_g, of_o = NAMES.items()
        squash, squash_g, squash_h = (self.clipped(one) for one in self.activations)
        enter = self.entrance(w, keep) if gain is not None or keep is not None else None

        def step(x: Tensor, state: State, how: Quiet) -> State:
            h, c = state[0], state[1]
            if enter is not None:
                x, h = enter(x, h, how)
            others = (c, *state[2:]) if sees else ()
            i = how.gate(of_i, squash, to_i, x, h, others) if to_i else None
            f: Tensor | None = None
            if to_f:
                f = how.gate(of_f, squash, to_f, x, h, others)
            elif coupled:
                with how.scope("forget gate"):
                    f = how.name(ops.sub(1, i), "f")
            g = how.gate(of_g, squash_g, to_g, x, h)
            c = (c if f is None else f * c) + (g if i is None else i * g)
            if bound is not None:
                c = ops.clip(c, -bound, bound)
            how.name(c, "c")
            if sees:
                others = (c, *state[2:])
            o = how.gate(of_o, squash, to_o, x, h, others) if to_o else None
            y = c
            if gain is not None:
                with how.scope("layer norm"):
                    y = stretched(normalised(c), gain, w.bias_c)
            y = squash_h(y)
            h = how.name(y if o is None else o * y, "h")
            return (h, c, how.name(ops.concatenate(i, f, o, axis=-1), "gates")) if remembers else (h, c)

        return step


def _times(weight: Tensor) -> Map:
    return lambda c: weight * c


class GRUUnit(Unit):
    """r, z = σ(W x + b + U h + b'); n = tanh(W x + b + r ⊙ (U h + b')); h' = (1 - z) ⊙ n + z ⊙ h.

    With ``reset_after=False`` n = tanh(W x + b + U (r ⊙ h) + b'), as in the paper (Cho et al. 2014).
    Layer normalisation as in Ba et al. 2016: every W x and U h is replaced by gain ⊙ norm(…), with one mean and one
    deviation for r and z together, and others for n.
    """

    gates = (("r", "reset gate"), ("z", "update gate"), ("n", "new gate"))
    states = ("h",)
    blocks = (2, 1)

    def __init__(
        self, *, reset_after: bool = True, activations: Sequence[Activation] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if self.layer_norm and not reset_after:
            raise UsageError("GRU: layer_norm is defined for reset_after=True, where U h is known before the gates")
        self.reset_after = reset_after
        self.activations = tuple(chosen("GRU", activations, ("sigmoid", "tanh"), "fg"))

    @property
    def one_bias(self) -> bool:
        """Whether the two biases of a gate meet in a sum: not in the new gate, if r multiplies one of them."""
        return not self.reset_after

    def equations(self, w: Weights, watched: bool, keep: Tensor | None) -> Step:
        """Three layers, two of them σ."""
        terms = self.terms(w, watched)
        of_r, of_z, of_n = self.gates
        to_r, to_z, (from_x, from_h, _) = terms["r"], terms["z"], terms["n"]
        squash, squash_n = (self.clipped(one) for one in self.activations)
        after = self.reset_after
        enter = self.entrance(w, keep) if self.layer_norm or keep is not None else None

        def step(x: Tensor, state: State, how: Quiet) -> State:
            (h,) = state
            x, seen = (x, h) if enter is None else enter(x, h, how)
            r = how.gate(of_r, squash, to_r, x, seen)
            z = how.gate(of_z, squash, to_z, x, seen)
            reset: Map = (lambda h: r * from_h(h)) if after else (lambda h: from_h(r * h))
            n = how.gate(of_n, squash_n, Terms(from_x, reset), x, seen)
            return (how.name((1 - z) * n + z * h, "h"),)

        return step
