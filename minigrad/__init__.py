"""minigrad: an automatic differentiation engine that explains and draws every gradient of recurrent networks."""

__version__ = "0.1.0"

import importlib
from typing import Any

from . import errors, losses, ops
from ._core import Tape, scope
from .backend import get_default_dtype, get_num_threads, set_default_dtype, set_num_threads
from .errors import MinigradError
from .function import Function
from .grad import checkpoint, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from .ops import *  # noqa: F403  the page is the public namespace
from .tensor import (
    Tensor,
    as_tensor,
    enable_grad,
    from_dlpack,
    from_numpy,
    full,
    is_grad_enabled,
    manual_seed,
    no_grad,
    ones,
    ones_like,
    rand,
    randn,
    set_grad_enabled,
    tensor,
    zeros,
    zeros_like,
)

_LAZY = ("decode", "explain", "graph", "io", "nn", "optim", "render", "testing")


def __getattr__(name: str) -> Any:
    """Load the upper rooms when they are first asked for: importing minigrad costs little more than importing NumPy."""
    if name in _LAZY:
        return importlib.import_module(f"minigrad.{name}")
    raise AttributeError(f"module 'minigrad' has no attribute {name!r}")


__all__ = [
    "Function",
    "MinigradError",
    "Tape",
    "Tensor",
    "as_tensor",
    "checkpoint",
    "enable_grad",
    "errors",
    "from_dlpack",
    "from_numpy",
    "full",
    "get_default_dtype",
    "get_num_threads",
    "grad",
    "hessian",
    "hvp",
    "is_grad_enabled",
    "jacobian",
    "jvp",
    "losses",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "ops",
    "rand",
    "randn",
    "scope",
    "set_default_dtype",
    "set_num_threads",
    "set_grad_enabled",
    "tensor",
    "value_and_grad",
    "vjp",
    "zeros",
    "zeros_like",
    *_LAZY,
    *ops.__all__,
]
