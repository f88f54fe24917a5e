"""Layers without memory: linear maps, look-up tables, dropout, activations and chains of layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _core, ops
from ..backend import array_lane, as_dtype, get_default_dtype, is_number
from ..errors import DTypeError, UsageError
from ..tensor import Tensor, as_tensor, tensor
from . import init
from .module import Module, Parameter

__all__ = ["Dropout", "Embedding", "Linear", "ReLU", "Sequential", "Sigmoid", "Tanh"]


def new_parameter(shape: tuple[int, ...], dtype: Any, device: str | None) -> Parameter:
    """Make a parameter whose values are still to be filled in."""
    found = get_default_dtype() if dtype is None else as_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"parameters are float32 or float64, not {found}")
    return Parameter(tensor(np.zeros(shape, found), device=device))


def check_sizes(layer: str, **sizes: int) -> None:
    """Refuse sizes that are not positive integers, by name."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise UsageError(f"{layer}: {name} is a positive integer, not {size!r}")


def check_probability(layer: str, p: float) -> None:
    """Refuse what is no probability."""
    if not is_number(p) or not 0 <= p <= 1:
        raise UsageError(f"{layer}: a probability lies between 0 and 1, not at {p!r}")


class Linear(Module):
    """``x @ mT(weight) + bias`` over the last axis: (…, in_features) -> (…, out_features).

    Parameters ``weight`` (out_features, in_features) and ``bias`` (out_features,) start uniform within 1 /
    sqrt(in_features).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__()
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter((out_features, in_features), dtype, device)
        self.register_parameter("bias", new_parameter((out_features,), dtype, device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new starting values."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        if self.bias is None:
            return ops.matmul(x, ops.mT(self.weight))
        return ops.affine(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")


class Embedding(Module):
    """A table with one row for each symbol: integers of any shape (…) -> (…, embedding_dim).

    ``weight`` (num_embeddings, embedding_dim) starts standard normal. The row `padding_idx`, which may count
    from the end, starts at zero and gets no gradient.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise UsageError(f"Embedding: padding_idx={padding_idx} names none of {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = new_parameter((num_embeddings, embedding_dim), dtype, device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new starting values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            init.constant_(self.weight.detach()[self.padding_idx], 0.0)

    def forward(self, index: Any) -> Tensor:
        """Look rows up."""
        rows = ops.embedding(self.weight, index)
        if self.padding_idx is None:
            return rows
        padding = ops.expand_dims(ops.equal(index, self.padding_idx), -1)
        return ops.where(padding, rows.detach(), rows)

    def extra_repr(self) -> str:
        """Say the sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def dropped(x: Tensor, p: float, axis: int = 0) -> Tensor:
    """Set elements to zero with probability p and scale the others up, so that the mean stays.

    A sequence gets the random numbers that its steps, the slices along `axis`, would get one by one.
    """
    data = _core.data_of(x)
    lane = array_lane(data)
    if p == 1:
        return ops.mul(x, _core.tensor(lane.xp.zeros_like(data)))
    shape = list(x.shape)
    shape.insert(0, shape.pop(axis))
    keep = lane.xp.moveaxis(lane.xp.astype(lane.random(tuple(shape), data.dtype) >= p, data.dtype), 0, axis)
    return ops.mul(x, _core.tensor(keep * (1 / (1 - p))))


class Dropout(Module):
    """While training, set each element to zero with probability p and multiply the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability("Dropout", p)
        self.p = p

    def forward(self, x: Any) -> Tensor:
        """Drop elements, or return `x` as it is outside of training."""
        x = as_tensor(x)
        return dropped(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"p={self.p}"


class Tanh(Module):
    """Hyperbolic tangent as a layer."""

    def forward(self, x: Any) -> Tensor:
        """Apply :func:`minigrad.tanh`."""
        return ops.tanh(x)


class Sigmoid(Module):
    """Logistic function as a layer."""

    def forward(self, x: Any) -> Tensor:
        """Apply :func:`minigrad.sigmoid`."""
        return ops.sigmoid(x)


class ReLU(Module):
    """Rectifier as a layer."""

    def forward(self, x: Any) -> Tensor:
        """Apply :func:`minigrad.relu`."""
        return ops.relu(x)


class Sequential(Module):
    """Modules one after the other; their state-dict names are their positions.

    >>> import minigrad as mg
    >>> mg.nn.Sequential(mg.nn.Linear(2, 3), mg.nn.Tanh(), mg.nn.Linear(3, 1))
    Sequential(
      (0): Linear(2, 3)
      (1): Tanh()
      (2): Linear(3, 1)
    )
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for k, module in enumerate(modules):
            if not isinstance(module, Module):
                raise UsageError(f"Sequential takes modules; argument {k} is {type(module).__name__}")
            setattr(self, str(k), module)

    def forward(self, x: Any) -> Any:
        """Pass `x` through all modules in turn."""
        for module in self:
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, place: int) -> Module:
        return list(self)[place]
