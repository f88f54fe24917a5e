"""Activations of recurrent units by name: ONNX's eleven and every function of one number on the page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from ..op import PAGE
from ..tensor import Tensor

__all__ = ["Activation", "activation", "identity"]

Map = Callable[[Tensor], Tensor]
Activation = str | tuple[Any, ...] | Map | None
"""A name, a name with alpha and beta, a function of a tensor, or None for no activation."""


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


def line(x: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """Return ``alpha * x + beta``, which ONNX calls Affine."""
    return alpha * x + beta


def activation(given: Activation) -> Map:
    """Return the function that an activation names.

    Args:
        given: "Sigmoid", "HardSigmoid", "hard_sigmoid" … (the case and underscores do not matter), a tuple ("Elu",
            alpha) or ("HardSigmoid", alpha, beta) whose values come in the order of the operation's parameters (None
            leaves one at its default), a function of a tensor, or None for none. ONNX's Affine is ``alpha * x + beta``.

    Raises:
        UsageError: an unknown name, or more values than the activation has parameters.

    >>> import minigrad as mg
    >>> activation(("LeakyRelu", 0.25))(mg.tensor([-2.0, 3.0])).tolist()
    [-0.5, 3.0]
    """
    if given is None:
        return identity
    if callable(given):
        return given
    name, *values = (given,) if isinstance(given, str) else given
    word = str(name).lower().replace("_", "")
    known = _known()
    if word not in known:
        raise UsageError(f"there is no activation {name!r}; a few that there are: Sigmoid, Tanh, Relu, HardSigmoid")
    function, parameters = known[word]
    if len(values) > len(parameters):
        takes = " and ".join(parameters) or "no values"
        raise UsageError(f"the activation {name} takes {takes}, not {values}")
    given_values = {k: float(v) for k, v in zip(parameters, values, strict=False) if v is not None}
    return functools.partial(function, **given_values) if given_values else function


def _known() -> dict[str, tuple[Callable[..., Tensor], list[str]]]:
    """Return every activation and the names of its parameters, under its name in small letters."""
    page = {
        op.name.replace("_", ""): (op, list(op.params))
        for op in PAGE.records.values()
        if op.kind == "elementwise" and len(op.operands) == 1 and op.name != "clip"
    }
    return {**page, "identity": (identity, []), "affine": (line, ["alpha", "beta"])}


def chosen(who: str, given: Sequence[Activation] | None, usual: tuple[Activation, ...], letters: str) -> list[Map]:
    """Return the activations of a unit, one for each letter: the usual ones where none are given."""
    if given is None:
        given = usual
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != len(letters):
        words = ", ".join(letters)
        raise UsageError(f"{who}: activations are a tuple of {len(letters)}, for {words}, not {given!r}")
    return [activation(one) for one in given]
