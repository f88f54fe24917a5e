"""The table of ONNX operators: each is a function whose signature is the operator's.

Positional parameters are inputs (None where one may be missing, ``*xs`` for any number), keyword parameters are
attributes, with the kind of the attribute as annotation. A parameter ``present`` receives which outputs are wanted. The
version of the operator set from which a definition holds stands in the decorator; the latest one that is not newer than
the model's is used.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from ...errors import FormatError
from ._graph import OPSETS, Node

__all__ = ["LIMIT", "TABLE", "Definition", "bind", "floats", "ints", "node", "strs", "tensor", "within"]

Function = Callable[..., Any]

# Kinds of attributes, beside int, float and str.
ints: TypeAlias = tuple[int, ...]
floats: TypeAlias = tuple[float, ...]
strs: TypeAlias = tuple[str, ...]
tensor: TypeAlias = Any

LIMIT: ContextVar[int] = ContextVar("LIMIT")
"""How many elements one value of the running model may have."""


def within(*shape: int) -> tuple[int, ...]:
    """Return a shape that an operator is going to make, if it is allowed to be that large.

    Raises:
        FormatError: it is not.
    """
    if math.prod(shape) > LIMIT.get():
        raise FormatError(f"a value of shape {shape} has more than {LIMIT.get()} elements: raise max_elements")
    return shape


@dataclass(frozen=True)
class Definition:
    """A function for an operator, from a version of the operator set on."""

    op: str
    since: int
    function: Function
    absent: tuple[str, ...]  # attributes that this version does not have

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """All parameters of the function."""
        return list(inspect.signature(self.function).parameters.values())

    @cached_property
    def inputs(self) -> list[inspect.Parameter]:
        """The operator's inputs."""
        return [p for p in self.parameters if p.kind != p.KEYWORD_ONLY]

    @cached_property
    def attributes(self) -> dict[str, inspect.Parameter]:
        """The operator's attributes."""
        named = {p.name: p for p in self.parameters if p.kind == p.KEYWORD_ONLY}
        return {name: p for name, p in named.items() if name not in ("present", *self.absent)}


TABLE: dict[str, list[Definition]] = {}
"""Operator -> its definitions, the newest last."""


def node(op: str, since: int = OPSETS[0], absent: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Enter a function into the table, the versions of an operator in their order."""

    def enter(function: Function) -> Function:
        TABLE.setdefault(op, []).append(Definition(op, since, function, absent))
        return function

    return enter


def bind(node: Node, opset: int) -> Callable[..., Any]:
    """Return the function of a node, with its attributes filled in: it takes the inputs.

    Raises:
        FormatError: the operator, an attribute or the number of inputs is not what the operator set says, or not
            supported.
    """
    definition = next((d for d in reversed(TABLE.get(node.op, [])) if d.since <= opset), None)
    if definition is None:
        since = f" before operator set {TABLE[node.op][0].since}" if node.op in TABLE else ""
        raise FormatError(f"{node}: this operator is not supported{since}")
    chosen: dict[str, Any] = {}
    for name, (kind, value) in node.attributes.items():
        if name not in definition.attributes:
            raise FormatError(f"{node}: the attribute {name!r} is not supported in operator set {opset}")
        wanted = str(definition.attributes[name].annotation).partition(" |")[0]
        if kind != wanted:
            raise FormatError(f"{node}: the attribute {name!r} is of kind {kind}; it must be {wanted}")
        chosen[name] = value
    lost = [p.name for p in definition.attributes.values() if p.default is p.empty and p.name not in chosen]
    inputs = definition.inputs
    spread = bool(inputs) and inputs[-1].kind == inspect.Parameter.VAR_POSITIONAL
    least = sum(p.default is p.empty for p in inputs) if not spread else 1
    given = list(node.inputs)
    while given and not given[-1]:
        given.pop()
    required = given[:least] if not spread else given
    if lost or len(given) < least or not all(required) or (len(given) > len(inputs) and not spread):
        words = ", ".join([*(str(p) for p in inputs), *(f"attribute {name}" for name in lost)])
        raise FormatError(f"{node} has inputs {list(node.inputs)}; it takes {words}")
    if any(p.name == "present" for p in definition.parameters):
        chosen["present"] = tuple(bool(name) for name in node.outputs)
    elif len(node.outputs) != 1 or not node.outputs[0]:
        raise FormatError(f"{node} has outputs {list(node.outputs)}; exactly one is supported")

    def call(*xs: Any) -> Any:
        return definition.function(*xs[: len(given)], **chosen)

    return call
