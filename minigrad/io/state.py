"""State dictionaries in safetensors files, with PyTorch's names and layouts: each library reads the other's files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FormatError, UsageError
from ..files import write_whole
from ..nn import Module
from ..nn.module import as_array
from ..tensor import Tensor, from_numpy
from ._files import library, read_limited

__all__ = ["load", "metadata", "save"]

MAX_BYTES = 2**34

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "|u1",
}


def save(
    path: str | os.PathLike[str], state: Module | Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a module's state, or a dictionary of arrays, to a safetensors file.

    The file appears whole or not at all. ``safetensors.torch.load_file`` reads it, and so does every tool for
    that format; names and layouts are those of ``state_dict``.

    Args:
        path: the file.
        state: a module, or name -> tensor, NumPy array, or CPU tensor of another library.
        metadata: texts to keep beside the values; ``"format": "pt"`` is added, for tools that ask.

    Raises:
        UsageError: a state that is no dictionary from text to arrays of numbers, or metadata that is no text.
            MissingExtraError: the library is not installed.

    >>> import tempfile, minigrad as mg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.io.save(f"{folder}/model.safetensors", mg.nn.Linear(2, 3))
    ...     sorted((name, value.shape) for name, value in mg.io.load(f"{folder}/model.safetensors").items())
    [('bias', (3,)), ('weight', (3, 2))]
    """
    numpy_flavour = library("safetensors.numpy", "a safetensors file", "io")
    texts = {"format": "pt", **(metadata or {})}
    if not all(isinstance(part, str) for pair in texts.items() for part in pair):
        raise UsageError("save: metadata is a dictionary from text to text")
    values = state.state_dict() if isinstance(state, Module) else state
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise UsageError("save takes a module, or a dictionary from names to arrays")
    # The library writes an array's memory as it lies: it has to lie in C order.
    arrays = {name: np.asarray(as_array(f"save: {name}", value), order="C") for name, value in values.items()}
    write_whole(path, numpy_flavour.save(arrays, metadata=texts))


def load(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """Read a safetensors file into tensors by name, for ``load_state_dict``.

    float16 and bfloat16 become float32, exactly; float32, float64, integers and booleans keep their types. A
    file is data: nothing in it is executed, and no more memory is taken than a small multiple of its size.

    A ``.pt`` file of PyTorch is a pickle, which is a program: it is not read here. Read it with PyTorch,
    ``torch.load(path, weights_only=True)``, and hand the dictionary to ``load_state_dict``, which takes
    PyTorch's tensors.

    Args:
        path: the file.
        max_bytes: files that are larger are refused before they are read.

    Raises:
        FormatError: the file is truncated, malformed, too large, or of another format. MissingExtraError: the
            library is not installed.
    """
    safetensors = library("safetensors", "a safetensors file", "io")
    data = _content(path, max_bytes)
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path} is no whole safetensors file: {error}") from error
    return {name: from_numpy(_value(f"{path}: {name}", entry)) for name, entry in entries}


def metadata(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """Return the texts that a safetensors file keeps beside its values.

    Raises:
        FormatError: as :func:`load`.
    """
    safetensors = library("safetensors", "a safetensors file", "io")
    _content(path, max_bytes)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path} is no whole safetensors file: {error}") from error


def _content(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    data = read_limited(path, max_bytes)
    if data[:4] == b"PK\x03\x04" or data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise FormatError(
            f"{path} is a pickle, as PyTorch's .pt files are: a program, which is not run here. Read it with "
            "torch.load(path, weights_only=True) and hand the dictionary to load_state_dict"
        )
    return data


def _value(name: str, entry: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Turn one entry of the file into an array of a type that the engine computes with."""
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind not in DTYPES:
        raise FormatError(f"{name} has elements of type {kind}; read are {', '.join(DTYPES)}")
    dtype = np.dtype(DTYPES[kind])
    if math.prod(shape) * dtype.itemsize != len(entry["data"]):
        raise FormatError(f"{name} has shape {shape} and {len(entry['data'])} bytes of {kind}: they do not fit")
    array = np.frombuffer(entry["data"], dtype).reshape(shape)
    if kind == "BF16":
        # The upper half of a float32.
        return (array.astype("u4") << 16).view("f4")
    if kind == "BOOL":
        return array != 0  # a byte may be anything, and NumPy's booleans are 0 and 1
    return array.astype("f4") if kind == "F16" else array.astype(dtype.newbyteorder("="))
