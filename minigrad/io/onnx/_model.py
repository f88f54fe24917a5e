"""A loaded ONNX model: a module whose initializers are parameters, and whose nodes run on the page's operations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ... import _core
from ...errors import DTypeError, FormatError, MinigradError, ShapeError, UsageError
from ...nn import Module
from ...nn.module import Parameter
from ...tensor import Tensor, as_tensor, from_numpy
from . import _nodes, _recurrent  # noqa: F401  they fill the table
from ._graph import Graph, Node, Port, read
from ._table import LIMIT, bind

__all__ = ["OnnxModel", "load"]

RECURRENT = ("RNN", "GRU", "LSTM")  # what opens a scope of its own
MAX_BYTES = 2**31
MAX_ELEMENTS = 2**28


class OnnxModel(Module):
    """A graph of ONNX as a module: call it with its inputs, by position or by name.

    Floating initializers are parameters under their names in the file, all others are buffers; constants of the graph
    are buffers that are not saved. Returns a dictionary from the graph's output names to tensors, through which
    gradients flow to the inputs and the parameters.

    Args:
        graph: the graph that :func:`load` reads.
        max_elements: how many elements all values together may have that one call computes.

    Attributes:
        inputs: names of the inputs that a call needs.
        outputs: names of the outputs.

    Raises:
        FormatError: an operator, an attribute or an operator set that is not supported; the node is named. Calls
            raise it as well, for what shows only when the graph runs. UsageError, ShapeError, DTypeError: inputs that
            the graph does not take.
    """

    def __init__(self, graph: Graph, max_elements: int = MAX_ELEMENTS) -> None:
        super().__init__()
        self.inputs = tuple(port.name for port in graph.inputs if port.name not in graph.values)
        self.outputs = graph.outputs
        self.max_elements = max_elements
        self._ports = {port.name: port for port in graph.inputs}
        self._steps: list[tuple[Node, Any]] = []
        self._last: dict[str, int] = {}  # name -> the last step that reads it
        # Past the attributes: a file may name a tensor as it likes, also "forward" or "__dict__".
        for name, array in graph.values.items():
            if name == "training":  # the one attribute that is set again later
                raise FormatError("a tensor of the ONNX model is named 'training', as the mode of a module is")
            if array.dtype.kind == "f":
                self.register_parameter(name, Parameter(from_numpy(array)))
            else:
                self._buffers[name] = from_numpy(array)
        for node in graph.nodes:
            function = bind(node, graph.opset)
            if node.op == "Constant":
                self._buffers[node.outputs[0]] = _run(node, function, [])[0]
                self._transient.add(node.outputs[0])
            else:
                self._steps.append((node, function))
        self._last.update((name, k) for k, (node, _) in enumerate(self._steps) for name in node.inputs)

    def forward(self, *args: Any, **inputs: Any) -> dict[str, Tensor]:
        """Run the graph."""
        if len(args) > len(self.inputs):
            raise UsageError(f"{len(args)} inputs; the graph has {list(self.inputs)}")
        given = dict(zip(self.inputs, args, strict=False))
        twice, strange = given.keys() & inputs.keys(), inputs.keys() - self._ports.keys()
        given |= inputs
        lost = [name for name in self.inputs if name not in given]
        if twice or strange or lost:
            raise UsageError(f"inputs missing {lost}, unexpected {sorted(strange)}, given twice {sorted(twice)}")
        values = {**self._parameters, **self._buffers}
        named: dict[str, int] = {}
        for name, value in given.items():
            values[name] = _taken(self._ports[name], value, named)
        token = LIMIT.set(self.max_elements)
        try:
            return self._computed(values)
        finally:
            LIMIT.reset(token)

    def _computed(self, values: dict[str, Any]) -> dict[str, Tensor]:
        """Run all nodes; a value is let go when no later node reads it."""
        room = self.max_elements
        for k, (node, function) in enumerate(self._steps):
            with _core.scope(node.name) if node.op in RECURRENT else nullcontext():
                results = _run(node, function, [values[name] if name else None for name in node.inputs])
            for name, result in zip(node.outputs, results, strict=True):
                room -= result.size
                if name:
                    values[name] = result
                if _core.is_watched() and name and result.name is None:
                    result.name = name
            if room < 0:
                raise FormatError(f"{node}: the values have more than {self.max_elements} elements: raise max_elements")
            for name in {*node.inputs, *node.outputs}:
                if name not in self.outputs and self._last.get(name, -1) <= k:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}

    def extra_repr(self) -> str:
        """Say inputs, outputs and the number of nodes."""
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}, {len(self._steps)} nodes"


def _run(node: Node, function: Any, xs: list[Any]) -> tuple[Any, ...]:
    """Run one node, and say which it was where it fails."""
    try:
        results = function(*xs)
    except (ShapeError, DTypeError) as error:
        raise type(error)(f"{node}: {error}") from error
    except (MinigradError, ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
        raise FormatError(f"{node}: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    if len(results) != len(node.outputs):
        raise FormatError(f"{node} has outputs {list(node.outputs)}; it computes {len(results)}")
    return results


def _taken(port: Port, value: Any, named: dict[str, int]) -> Tensor:
    """Return an input as a tensor that fits what the graph says of it; lengths of one name are equal."""
    x = as_tensor(value)
    if x.dtype != port.dtype and not (x.dtype.kind == port.dtype.kind == "f"):
        raise DTypeError(f"input {port.name!r} has elements of {port.dtype}, not {x.dtype}")
    if port.lengths is None:
        return x
    fits = len(port.lengths) == x.ndim
    for length, wanted in zip(x.shape, port.lengths, strict=False):
        wanted = named.setdefault(wanted, length) if isinstance(wanted, str) else wanted
        fits = fits and wanted in (None, length)
    if not fits:
        raise ShapeError(f"input {port.name!r} has shape {port.lengths}, not {x.shape}; names so far: {named}")
    return x


def load(source: Any, max_bytes: int = MAX_BYTES, max_elements: int = MAX_ELEMENTS) -> OnnxModel:
    """Read an ONNX model into a module that can be called, trained and saved.

    A model is data: nothing in it is executed but the operators of a fixed table, external tensors are read from the
    model's own folder only, sizes are checked before memory is taken, and what is not understood is refused with the
    names of node and operator.

    Args:
        source: a path, the bytes of a file, or an ``onnx.ModelProto``.
        max_bytes: files, and tensors of one model together, that are larger are refused.
        max_elements: how many elements all values together may have that one call computes.

    Raises:
        FormatError: a model that is truncated, malformed, too large, or uses what is not supported.
        MissingExtraError: the ``onnx`` package is not installed.
    """
    return OnnxModel(read(source, max_bytes), max_elements)
