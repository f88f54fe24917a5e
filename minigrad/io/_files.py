"""What readers and writers of files share: optional libraries and limits on size."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from ..errors import FormatError, MissingExtraError

__all__ = ["library", "read_limited"]


def library(name: str, what: str, extra: str) -> Any:
    """Import an optional library.

    Raises:
        MissingExtraError: it is not installed; the message says what needs it and how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error


def read_limited(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a file, whose size is looked at before memory is taken.

    Raises:
        FormatError: the file is larger than `max_bytes`.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise FormatError(f"{path} has {size} bytes; {max_bytes} are allowed: raise max_bytes if that is meant")
        # One byte more than allowed: a pipe or a growing file does not say its size.
        data = file.read(max_bytes + 1) if size == 0 else file.read(size)
    if len(data) > max_bytes:
        raise FormatError(f"{path} has more than {max_bytes} bytes: raise max_bytes if that is meant")
    return data
