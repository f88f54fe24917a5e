"""Writing files completely or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UsageError

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that its name always stands for the old content or the whole new one.

    The data is written beside its place and renamed over what was there. A symbolic link is followed, so that the file
    it names is replaced and not the link.

    Raises:
        UsageError: the place cannot be written, or holds what is no file (a directory, a device, a pipe); the message
            names it.
    """
    target = Path(path)
    beside = None
    try:
        place = target.resolve()
        if place.is_dir():
            raise UsageError(f"cannot write {str(target)!r}: it is a directory")
        if place.exists() and not place.is_file():
            raise UsageError(f"cannot write {str(target)!r}: it is no regular file")
        handle, beside = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)
        Path(beside).replace(place)
        beside = None
    except OSError as error:
        raise UsageError(f"cannot write {str(target)!r}: {error.strerror or error}") from None
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
    return target
