"""NVIDIA's run-time compiler through ctypes: it needs neither a GPU nor a driver."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")


def library_path() -> Path | None:
    """Find libnvrtc in the wheels of NVIDIA's that are installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).rglob("libnvrtc.so*")):
            return path
    return None


@cache
def _library() -> Any:
    path = library_path()
    assert path is not None
    for helper in sorted(path.parent.glob("libnvrtc-builtins.so*")):
        ctypes.CDLL(str(helper), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def _text(program: Any, what: str) -> str:
    size = ctypes.c_size_t()
    getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(_library(), f"nvrtcGet{what}")(program, buffer)
    return buffer.raw.rstrip(b"\0").decode("latin-1")


def compile_cuda(
    source: str, architecture: str, options: Sequence[str] = (), expressions: Sequence[str] = ()
) -> tuple[int, str]:
    """Compile a program to machine code; returns how many bytes it has (0 if it does not compile), and what was said.

    Args:
        expressions: templates to instantiate, such as ``"kernel<float>"``.
    """
    nvrtc, program = _library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        for name in expressions:
            assert nvrtc.nvrtcAddNameExpression(program, name.encode()) == 0, name
        flags = [f"--gpu-architecture={architecture}", "--std=c++17", *options]
        given = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        failed = nvrtc.nvrtcCompileProgram(program, len(flags), given)
        said, size = _text(program, "ProgramLog"), ctypes.c_size_t()
        if not failed:
            nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        return size.value, said
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
