"""The comparison page: questions with booleans for answers, and no derivatives."""

from __future__ import annotations

from typing import Any

from ..op import Op, general


def _comparison(name: str, doc: str) -> Op:
    return general(f"{name}(a, b)", value=lambda xp, a, b: getattr(xp, name)(a, b), doc=doc)


def _logical_not(xp: Any, x: Any) -> Any:
    return xp.logical_not(x) if x.dtype == xp.bool else x == 0


less = _comparison("less", "Where a < b.")
less_equal = _comparison("less_equal", "Where a <= b.")
equal = _comparison("equal", "Where a == b.")
not_equal = _comparison("not_equal", "Where a != b.")
greater = _comparison("greater", "Where a > b.")
greater_equal = _comparison("greater_equal", "Where a >= b.")
isnan = general("isnan(x)", value=lambda xp, x: xp.isnan(x), shapes="(…) -> (…)", doc="Where x is not a number.")
isfinite = general(
    "isfinite(x)", value=lambda xp, x: xp.isfinite(x), shapes="(…) -> (…)", doc="Where x is neither infinite nor NaN."
)
logical_not = general("logical_not(x)", value=_logical_not, shapes="(…) -> (…)", doc="Where x is False or 0.")

__all__ = [
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isnan",
    "less",
    "less_equal",
    "logical_not",
    "not_equal",
]
