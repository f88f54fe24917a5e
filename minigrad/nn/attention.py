"""Attention: what a query reads from a sequence, as a mean of the sequence's values weighted by scores of its keys."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from .._core import data_of
from ..errors import DTypeError, ShapeError
from ..op import lane_of
from ..ops._lengths import as_lengths, within
from ..tensor import Tensor, as_tensor
from .layers import Linear, check_sizes
from .module import Module

__all__ = ["AdditiveAttention", "DotProductAttention"]

LOWEST = -1e30
"""A score that leaves no weight; finite, so that a query without any key gives no NaN."""


class Attention(Module):
    """Base of the kinds of attention; they differ in how they score a key for a query."""

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return a score for each query (N, Q, D) and key (N, K, E): (N, Q, K)."""
        raise NotImplementedError(f"{type(self).__name__} defines no score")

    def forward(
        self, query: Any, keys: Any, values: Any = None, mask: Any = None, lengths: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return what each query reads, and how it weighs the keys.

        Args:
            query: (N, Q, D): Q queries for each of N sequences; a decoder that asks once a step has Q = 1.
            keys: (N, K, E), such as the results of an encoder.
            values: (N, K, V), by default the keys.
            mask: True where a key may be read: booleans (N, K), or (N, Q, K) for each query, where axes of
                length 1 stand for all.
            lengths: how many keys each of the N sequences has; the others may not be read.

        Returns:
            The context (N, Q, V), and the weights (N, Q, K). Weights of a query are positive and sum to 1 over the
            keys that it may read, and are exactly 0 elsewhere. A query that may read none has weights and context 0.
            Keys and values that no query may read by a mask (N, K) or by `lengths` change nothing, even as NaN.

        Raises:
            ShapeError: shapes that do not fit together, or a length outside of 0 to K.
            DTypeError: a mask that holds no booleans, or lengths that are no integers.
        """
        query, keys = as_tensor(query), as_tensor(keys)
        values = keys if values is None else as_tensor(values)
        self._check(query, keys, values)
        number, count = keys.shape[:2]
        readable = [] if mask is None else [self._mask(mask, query, keys)]
        if lengths is not None:
            inside = within(as_lengths(f"{type(self).__name__}: lengths", lengths, number, count), count)
            readable.append(lane_of(data_of(keys)).asarray(inside)[:, None, :])
        for keep in readable:
            if keep.shape[1] == 1:
                # Not only the weights: 0 times NaN is NaN, forward and backward.
                rows = keep[:, 0, :, None]
                keys, values = ops.where(rows, keys, 0), ops.where(rows, values, 0)
        scores = self.score(query, keys)
        for keep in readable:
            scores = ops.where(keep, scores, LOWEST)
        weights = ops.softmax(scores, axis=-1)
        for keep in readable:
            weights = ops.where(keep, weights, 0)
        return ops.matmul(weights, values), weights

    def _check(self, query: Tensor, keys: Tensor, values: Tensor) -> None:
        shapes = query.shape, keys.shape, values.shape
        fits = all(len(shape) == 3 for shape in shapes)
        if not fits or len({shape[0] for shape in shapes}) > 1 or keys.shape[1] != values.shape[1]:
            raise ShapeError(
                f"{type(self).__name__}: query (N, Q, D), keys (N, K, E) and values (N, K, V) are needed, "
                f"not {', '.join(map(str, shapes))}"
            )

    def _mask(self, mask: Any, query: Tensor, keys: Tensor) -> Any:
        """Return a mask as an array of three axes, on the keys' device."""
        name = type(self).__name__
        mask = lane_of(data_of(keys)).asarray(data_of(mask))
        if lane_of(mask).kind(mask) != "b":
            raise DTypeError(f"{name}: a mask holds booleans, not elements of type {mask.dtype}")
        full = (keys.shape[0], query.shape[1], keys.shape[1])
        keep = mask[:, None, :] if mask.ndim == 2 else mask
        if keep.ndim != 3 or any(have not in (1, want) for have, want in zip(keep.shape, full, strict=True)):
            raise ShapeError(f"{name}: mask {tuple(mask.shape)} is neither {full[::2]} nor {full}")
        return keep


class DotProductAttention(Attention):
    """Scores are ``query @ mT(keys)``, by default divided by the square root of their size D.

    Luong et al.: Effective Approaches to Attention-based Neural Machine Translation, 2015; the divisor: Vaswani et al.:
    Attention Is All You Need, 2017.

    Args:
        scale: the factor of the scores; None means 1 / sqrt(D).

    >>> import minigrad as mg
    >>> context, weights = mg.nn.DotProductAttention()(mg.ones(1, 1, 2), mg.ones(1, 3, 2), lengths=[2])
    >>> weights.numpy().tolist(), context.shape
    ([[[0.5, 0.5, 0.0]]], (1, 1, 2))
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return the scaled products of queries (N, Q, D) and keys (N, K, D)."""
        size = query.shape[2]
        if keys.shape[2] != size:
            raise ShapeError(f"DotProductAttention: queries have size {size} and keys {keys.shape[2]}")
        scale = 1 / math.sqrt(max(size, 1)) if self.scale is None else self.scale
        return ops.matmul(query, ops.mT(keys)) * scale

    def extra_repr(self) -> str:
        """Say the factor."""
        return "" if self.scale is None else f"scale={self.scale}"


class AdditiveAttention(Attention):
    """Scores are ``v · tanh(W query + U key)``: a layer of `hidden_size` units looks at each pair.

    Bahdanau, Cho and Bengio: Neural Machine Translation by Jointly Learning to Align and Translate, 2015. Parameters
    ``query.weight`` W (hidden_size, query_size), ``key.weight`` U (hidden_size, key_size) and ``energy.weight`` v
    (1, hidden_size) start like those of :class:`Linear`.

    >>> import minigrad as mg
    >>> attention = mg.nn.AdditiveAttention(2, 3, 5)
    >>> context, weights = attention(mg.ones(7, 1, 2), mg.ones(7, 4, 3))
    >>> context.shape, weights.shape
    ((7, 1, 3), (7, 1, 4))
    """

    def __init__(
        self, query_size: int, key_size: int, hidden_size: int, device: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__()
        check_sizes("AdditiveAttention", query_size=query_size, key_size=key_size, hidden_size=hidden_size)
        self.query = Linear(query_size, hidden_size, bias=False, device=device, dtype=dtype)
        self.key = Linear(key_size, hidden_size, bias=False, device=device, dtype=dtype)
        self.energy = Linear(hidden_size, 1, bias=False, device=device, dtype=dtype)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return the energies of queries (N, Q, query_size) and keys (N, K, key_size)."""
        pairs = ops.expand_dims(self.query(query), 2) + ops.expand_dims(self.key(keys), 1)
        return ops.squeeze(self.energy(ops.tanh(pairs)), axis=-1)
