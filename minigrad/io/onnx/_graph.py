"""An ONNX file as plain data: read, checked against the format and against limits, and never executed.

A file from outside may say anything. Sizes are compared with the bytes that are there before memory is taken, every
name is given once and before it is used (so there are no cycles), and what is not understood is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FormatError
from .._files import library, read_limited

__all__ = ["DTYPES", "OPSETS", "Graph", "Node", "Port", "read"]

OPSETS = range(13, 29)
"""Versions of the operator set whose definitions of the supported operators were read."""

DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("float32"),
    2: np.dtype("uint8"),
    3: np.dtype("int8"),
    4: np.dtype("uint16"),
    5: np.dtype("int16"),
    6: np.dtype("int32"),
    7: np.dtype("int64"),
    9: np.dtype("bool"),
    11: np.dtype("float64"),
    12: np.dtype("uint32"),
    13: np.dtype("uint64"),
}
"""TensorProto.DataType -> element type."""

FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}
FIELDS |= dict.fromkeys(("uint32", "uint64"), "uint64_data")  # all others: int32_data

KINDS = {1: "float", 2: "int", 3: "str", 4: "tensor", 6: "floats", 7: "ints", 8: "strs"}
"""AttributeProto.AttributeType -> the annotation that a node's function gives it."""


@dataclass(frozen=True)
class Port:
    """An input of the graph: its element type and lengths; a length may have a name, or be unknown (None)."""

    name: str
    dtype: np.dtype[Any]
    lengths: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Node:
    """One operation; a missing optional input or output has an empty name."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, Any]]  # name -> (kind, value)

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.op})"


@dataclass(frozen=True)
class Graph:
    """What a model computes."""

    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, np.ndarray[Any, Any]]  # the initializers
    nodes: tuple[Node, ...]


def read(source: Any, max_bytes: int) -> Graph:
    """Read a model from a path, its bytes, or an ``onnx.ModelProto``.

    Raises:
        FormatError: the file is truncated, malformed, too large, or uses what is not supported.
    """
    onnx = library("onnx", "an ONNX model", "onnx")
    folder = None
    if isinstance(source, onnx.ModelProto):
        model = source
    else:
        if not isinstance(source, bytes | bytearray | memoryview):
            folder = Path(source).resolve().parent
            source = read_limited(source, max_bytes)
        elif len(source) > max_bytes:
            raise FormatError(f"the model has {len(source)} bytes; at most {max_bytes} are read")
        model = onnx.ModelProto()
        decode_error = library("google.protobuf.message", "an ONNX model", "onnx").DecodeError
        try:
            model.ParseFromString(bytes(source))
        except (decode_error, RuntimeError) as error:
            raise FormatError(f"this is no whole ONNX model: {error}") from error
    try:
        return _graph(model, folder, max_bytes)
    except UnicodeDecodeError as error:
        raise FormatError(f"a name in the ONNX model is no text: {error}") from error


def _text(value: Any) -> str:
    """Return a name; the reader of the format hands out bytes where they are no text."""
    return value if isinstance(value, str) else value.decode()


def _graph(model: Any, folder: Path | None, max_bytes: int) -> Graph:
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or not model.graph.output:
        raise FormatError("the ONNX model has no graph with outputs")
    if len(opsets) != 1 or opsets[0] not in OPSETS:
        raise FormatError(f"the ONNX model uses operator set {opsets or 'none'}; read are {OPSETS[0]} to {OPSETS[-1]}")
    graph = model.graph
    for what, found in (("functions", model.functions), ("sparse initializers", graph.sparse_initializer)):
        if found:
            raise FormatError(f"ONNX models with {what} are not supported")
    room = _Room(max_bytes)
    values = {}
    for proto in graph.initializer:
        name = _text(proto.name)
        if not name or name in values:
            raise FormatError(f"initializer {name!r} is given twice or has no name")
        values[name] = _tensor(proto, f"initializer {name!r}", folder, room)
    inputs = tuple(_port(info) for info in graph.input)
    nodes = tuple(_node(proto, place, room) for place, proto in enumerate(graph.node))
    outputs = tuple(_text(info.name) for info in graph.output)
    _check_names([port.name for port in inputs], values, nodes, outputs)
    return Graph(opsets[0], inputs, outputs, values, nodes)


def _check_names(inputs: list[str], values: Iterable[str], nodes: Iterable[Node], outputs: tuple[str, ...]) -> None:
    """Check that each value is made once and before it is used."""
    if len(set(inputs)) < len(inputs) or not all(inputs):
        raise FormatError(f"two inputs of one name, or one without a name: {inputs}")
    known = {*inputs, *values}
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise FormatError(
                    f"{node} reads {name!r} before anything has made it: it is not there, the nodes are out of "
                    "order, or the graph has a cycle"
                )
        for name in node.outputs:
            if name and name in known:
                raise FormatError(f"{node} makes {name!r}, which is made already")
            known |= {name} - {""}
    if len(set(outputs)) < len(outputs):
        raise FormatError(f"two outputs of one name: {outputs}")
    for name in outputs:
        if name not in known:
            raise FormatError(f"nothing makes the output {name!r}")


def _port(info: Any) -> Port:
    name = _text(info.name)
    if info.type.WhichOneof("value") != "tensor_type":
        raise FormatError(f"input {name!r} is no tensor")
    tensor = info.type.tensor_type
    dtype = _dtype(tensor.elem_type, f"input {name!r}")
    if not tensor.HasField("shape"):
        return Port(name, dtype, None)
    lengths: list[int | str | None] = []
    for dim in tensor.shape.dim:
        kind = dim.WhichOneof("value")
        if kind == "dim_value" and dim.dim_value < 0:
            raise FormatError(f"input {name!r} has an axis of length {dim.dim_value}")
        lengths.append(dim.dim_value if kind == "dim_value" else (_text(dim.dim_param) or None))
    return Port(name, dtype, tuple(lengths))


def _dtype(code: int, where: str) -> np.dtype[Any]:
    if code not in DTYPES:
        known = ", ".join(dtype.name for dtype in DTYPES.values())
        raise FormatError(f"{where} has elements of ONNX's type {code}, which is not supported; supported are {known}")
    return DTYPES[code]


# --- nodes and attributes -------------------------------------------------------------------------------------


def _node(proto: Any, place: int, room: _Room) -> Node:
    inputs, outputs = (tuple(_text(name) for name in names) for names in (proto.input, proto.output))
    node = Node(_text(proto.op_type), _text(proto.name) or f"#{place}", inputs, outputs, {})
    if proto.domain not in ("", "ai.onnx"):
        raise FormatError(f"{node} is of the domain {proto.domain!r}, which is not supported")
    attributes = {}
    for attribute in proto.attribute:
        name = _text(attribute.name)
        if name in attributes:
            raise FormatError(f"{node} has the attribute {name!r} twice")
        attributes[name] = _attribute(attribute, node, room)
    return Node(node.op, node.name, node.inputs, node.outputs, attributes)


def _attribute(proto: Any, node: Node, room: _Room) -> tuple[str, Any]:
    kind = KINDS.get(proto.type)
    where = f"attribute {proto.name!r} of {node}"
    if kind is None or proto.ref_attr_name:
        raise FormatError(f"{where} is a graph or another kind of value that is not supported")
    if kind == "tensor":
        return kind, _tensor(proto.t, where, None, room)
    if kind in ("str", "strs"):
        texts = [text.decode() for text in (proto.strings if kind == "strs" else [proto.s])]
        return kind, tuple(texts) if kind == "strs" else texts[0]
    return kind, tuple(getattr(proto, kind)) if kind.endswith("s") else getattr(proto, kind[0])


# --- tensors --------------------------------------------------------------------------------------------------


class _Room:
    """Bytes that all tensors of a model may still take: many tensors may point at one file."""

    def __init__(self, max_bytes: int) -> None:
        self.left = self.all = max_bytes

    def take(self, size: int, where: str) -> None:
        self.left -= size
        if self.left < 0:
            raise FormatError(f"{where} brings the tensors of the model to more than {self.all} bytes")


def _tensor(proto: Any, where: str, folder: Path | None, room: _Room) -> np.ndarray[Any, Any]:
    """Return the values of a TensorProto, after comparing its shape with the values that are there."""
    dtype = _dtype(proto.data_type, where)
    shape = tuple(proto.dims)
    if any(length < 0 for length in shape) or len(shape) > 32:
        raise FormatError(f"{where} has shape {shape}")
    count = math.prod(shape)
    room.take(count * dtype.itemsize, where)
    if proto.data_location == 1:
        raw = _external(proto, where, folder, count * dtype.itemsize)
    elif proto.HasField("raw_data"):
        raw = proto.raw_data
    else:
        listed = getattr(proto, FIELDS.get(dtype.name, "int32_data"))
        if len(listed) != count:
            raise FormatError(f"{where} has shape {shape}, and {len(listed)} values")
        return np.array(listed, dtype=np.float64 if dtype.kind == "f" else None).astype(dtype).reshape(shape)
    if len(raw) != count * dtype.itemsize:
        raise FormatError(f"{where} has shape {shape} of {dtype}, and {len(raw)} bytes")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _external(proto: Any, where: str, folder: Path | None, size: int) -> bytes:
    """Read a tensor's bytes from a file beside the model, and from nowhere else."""
    entries = {_text(entry.key): _text(entry.value) for entry in proto.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise FormatError(f"{where} lies in the file {location!r} beside the model: load the model by its path")
    try:
        path = (folder / location).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except (ValueError, OSError) as error:
        raise FormatError(f"{where} names no place in a file: {error}") from error
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder) or not path.is_file():
        raise FormatError(f"{where} lies in {location!r}, which is no file in the model's folder")
    if offset < 0 or length != size or path.stat().st_size < offset + length:
        raise FormatError(f"{where} takes {size} bytes from {offset} on; {location!r} does not have them")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
