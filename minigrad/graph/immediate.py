"""∂⁺ as it stands on an edge: the factor of a rule that multiplies the arriving gradient, short enough to be printed.

The page says ``g @ weight``, a picture says ``Wᵀ``; the page says ``rows(g)ᵀ @ rows(x)``, a picture ``x``. Nothing is
known here of any operation's derivative: the rule itself is taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minigrad import formula
from minigrad.formula import Binary, Call, Compare, Expr, Name, Number, Unary

__all__ = ["immediate", "set_short"]

LONGEST = 27
"""Characters that fit on an edge; longer formulas fall back on the argument's names, and then on the operation's."""

# What only moves, copies or adds up elements: a matrix of zeros and ones, which nobody writes.
_MOVES = frozenset({
    "astype", "broadcast_to", "cumsum", "expand_dims", "flip", "getitem", "lift", "mT", "permute", "put", "reshape",
    "rows", "spread", "squeeze", "sum", "sum_to",
})  # fmt: skip
_COUNTS = frozenset({"share", "items", "count"})
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "!=": "=="}
_MINUS = "−"


def immediate(
    record: Any, k: int, names: Mapping[str, str], numbers: Mapping[str, float] = {}, latex: bool = False
) -> str | None:
    """Return ∂⁺ of operand k of a record of the page as short text; None where no gradient flows.

    Args:
        record: the operation.
        k: which operand.
        names: what operands, and the result ``y``, are called; a letter after ``_`` is meant as a subscript.
        numbers: operands that are plain numbers, which are put in.
        latex: return it for math mode instead; then `names` are LaTeX, and no length is too long.

    >>> from minigrad.op import record
    >>> immediate(record("affine"), 0, {"weight": "W_f"}), immediate(record("tanh"), 0, {"y": "h₃"})
    ('W_fᵀ', '(1−h₃)(1+h₃)')
    """
    plain = rf"\operatorname{{{record.name}}}'".replace("_", r"\_") if latex else f"{record.name}′"
    if record.kind in ("composed", "function"):  # a whole program, or a user's: there is no rule to read
        return plain
    rule = record.rules.get(record.operand_name(k))
    if rule is None:
        return None
    if rule.said is None:
        return plain
    try:
        factor = rule.said if record.kind == "elementwise" else _factor(rule.said)
    except ValueError:
        return plain
    if factor is None:
        return "1"
    factor = _tidy(_with_numbers(_tidy(factor), numbers))
    if latex:
        return _bracketed(formula.to_latex(factor, names))
    for called in (names, {}):
        text = set_short(factor, called)
        if len(text) <= LONGEST:
            return text
    return plain


def _factor(e: Expr) -> Expr | None:
    """Return what multiplies g, None for 1; ValueError where g is not a factor."""
    match e:
        case Name("g"):
            return None
        case Unary("-", inner):
            return Unary("-", _factor(inner) or Number(1))
        case Call(function, (first, *rest), kwargs) if function in _MOVES and not _has_g(*rest, *dict(kwargs).values()):
            return _factor(first)
        case Binary("*", left, right) if _has_g(left) != _has_g(right):
            inner, other = (left, right) if _has_g(left) else (right, left)
            below = _factor(inner)
            return other if below is None else Binary("*", below, other)
        case Binary("/", left, right) if not _has_g(right):
            return Binary("/", _factor(left) or Number(1), right)
        case Binary("@", left, right) if _has_g(left) != _has_g(right):
            inner, other = (left, right) if _has_g(left) else (right, left)
            if _factor(inner) is not None:
                raise ValueError
            turned = isinstance(inner, Call) and inner.function == "mT"
            other = _bare(other)
            return other if turned or inner is right else Call("mT", (other,))
    raise ValueError


def _has_g(*parts: Expr) -> bool:
    return any("g" in part.names for part in parts)


def _bare(e: Expr) -> Expr:
    while isinstance(e, Call) and e.function in ("mT", "rows"):
        e = e.args[0]
    return e


def _with_numbers(e: Expr, numbers: Mapping[str, float]) -> Expr:
    if isinstance(e, Name) and e.id in numbers:
        value = float(numbers[e.id])
        size = Number(int(abs(value)) if value.is_integer() else abs(value))
        return size if value >= 0 else Unary("-", size)
    return _rebuilt(e, lambda part: _with_numbers(part, numbers))


def _rebuilt(e: Expr, change: Any) -> Expr:
    match e:
        case Unary(op, inner):
            return Unary(op, change(inner))
        case Binary(op, left, right):
            return Binary(op, change(left), change(right))
        case Compare(op, left, right):
            return Compare(op, change(left), change(right))
        case Call(function, args, kwargs):
            return Call(function, tuple(map(change, args)), tuple((k, change(v)) for k, v in kwargs))
    return e


def _tidy(e: Expr) -> Expr:
    """Drop guards against division by zero, options of reductions, and factors of one."""
    e = _rebuilt(e, _tidy)
    match e:
        case Call(function, _, _) if function in _COUNTS:
            return Name("N")
        case Call("where", (Compare("==", _, _), _, other), _):
            return other
        case Call("where", (condition, chosen, other), _):
            if isinstance(condition, Compare):
                unless: Expr = Call("iverson", (replace(condition, op=_OPPOSITE[condition.op]),))
            else:
                unless = Binary("-", Number(1), Call("iverson", (condition,)))
            parts = ((Call("iverson", (condition,)), chosen), (unless, other))
            kept = [_when(value, holds) for holds, value in parts if value != Number(0)]
            return kept[0] if len(kept) == 1 else Binary("+", *kept)
        case Call("ties", (x, y, *_), _):
            return Call("iverson", (Compare("==", x, y),))
        case Call("others", (x, *_), _):
            return Binary("/", Name("y"), x)
        case Call("one_hot", _, _):
            return Name("onehot")
        case Call(function, (first, *_), kwargs) if kwargs:
            return Call(function, (first,))
        case Call("target_weights", _, _):
            return Binary("/", Number(1), Name("N"))
        case Binary("*", Unary("-", Number(1)), other):
            return Unary("-", other)
        case Binary("*", Binary("/", Number(1), below), other):
            return Binary("/", other, below)
        case Binary("*", Number(1), other) | Binary("*", other, Number(1)) | Binary("**", other, Number(1)):
            return other
        case Binary("-", Number(a), Number(b)):
            return Number(a - b) if a >= b else Unary("-", Number(b - a))
        case Binary("-", Unary("-", Number(a)), Number(b)):
            return Unary("-", Number(a + b))
        case Binary("-" | "/" as op, other, Number(n)) if n == (op == "/"):
            return other
    return e


def _when(value: Expr, holds: Expr) -> Expr:
    conditions = isinstance(value, Call) and value.function == "iverson"
    return _tidy(Binary("*", holds, value) if conditions else Binary("*", value, holds))


def _bracketed(latex: str) -> str:
    """Set Iverson's brackets, 1 where a condition holds, as brackets."""
    call = r"\operatorname{iverson}\left("
    while call in latex:
        before, _, after = latex.partition(call)
        depth, at = 1, 0
        while depth:
            found = re.compile(r"\\(left|right)(?![a-z])").search(after, at)
            assert found is not None
            depth += 1 if found[1] == "left" else -1
            at = found.end()
        latex = f"{before}\\left[{after[:at]}]{after[at + 1 :]}"
    return latex


def set_short(expr: Expr, names: Mapping[str, str] = {}) -> str:
    """Set a formula as print does: no spaces, no dot between parentheses, a real minus sign."""
    text = formula.to_text(expr, names)
    text = re.sub(r"iverson\(((?:[^()]|\([^()]*\))*)\)", r"[\1]", text)
    text = re.sub(r"\s*([-+/@<>≤≥≠])\s*", r"\1", text).replace(" == ", "=").replace("==", "=")
    text = re.sub(r"·(?=[(\[])|(?<=[)\]])·", "", text)
    return text.replace("-", _MINUS)
