"""The language of the page: one short expression becomes a callable, C, CUDA, LaTeX and readable text.

A formula is written in Python's expression syntax, cut down to what a rule of calculus needs: numbers,
names, ``+ - * / ** @``, unary minus, one comparison, calls with keywords, tuples. Everything else is refused
where it stands. The functions of ``INTRINSICS`` are the ones a compiled loop understands; rules over whole
arrays may call any operation.

>>> partial = parse("(1 - y) * (1 + y)")
>>> to_text(partial, {"y": "c[3]"})
'(1 - c[3])·(1 + c[3])'
>>> to_c(partial)
'(K(1.0) - y) * (K(1.0) + y)'
"""

import ast
import difflib
import html
import keyword
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, ClassVar

from .errors import FormulaError

__all__ = [
    "CUDA_PREAMBLE",
    "INTRINSICS",
    "Binary",
    "Call",
    "Compare",
    "Expr",
    "Intrinsic",
    "Literal",
    "Name",
    "Number",
    "Tuple",
    "Unary",
    "check",
    "parse",
    "to_c",
    "to_cuda",
    "to_latex",
    "to_mathml",
    "to_source",
    "to_text",
]

CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi})


# ---------------------------------------------------------------------------------------------- the tree


class Expr:
    """A node of a parsed formula: immutable, hashable, equal when spelled equally."""

    @property
    def children(self) -> tuple["Expr", ...]:
        """Sub-expressions in the order in which they are written."""
        match self:
            case Unary(_, operand):
                return (operand,)
            case Binary(_, left, right) | Compare(_, left, right):
                return left, right
            case Call(_, args, kwargs):
                return (*args, *(value for _, value in kwargs))
            case Tuple(items):
                return items
        return ()

    def walk(self) -> Iterator["Expr"]:
        """Yield this node and all below it, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def names(self) -> tuple[str, ...]:
        """Free variables in order of first appearance, without functions and constants.

        >>> parse("g * where(x > 0, 1, pi * y)").names
        ('g', 'x', 'y')
        """
        found = (node.id for node in self.walk() if isinstance(node, Name))
        return tuple(name for name in dict.fromkeys(found) if name not in CONSTANTS)

    @property
    def functions(self) -> tuple[str, ...]:
        """Called functions in order of first appearance.

        >>> parse("sum(g * exp(x), axis=axis)").functions
        ('sum', 'exp')
        """
        return tuple(dict.fromkeys(node.function for node in self.walk() if isinstance(node, Call)))

    def compile(self, args: Sequence[str], namespace_name: str = "F") -> Callable[..., Any]:
        """Return a Python function ``f(F, *args)``; the formula's functions are looked up on ``F``.

        Constants stay Python scalars, so they never change the dtype of an array: ``x / sqrt(2)`` keeps
        float32 in float32.

        Raises:
            FormulaError: an argument cannot be a parameter, or a name of the formula is not an argument.

        >>> parse("a * exp(-b)").compile(["a", "b"])(math, 3.0, 0.0)
        3.0
        """
        parameters = (namespace_name, *args)
        for name in parameters:
            if not name.isidentifier() or keyword.iskeyword(name) or name in CONSTANTS:
                raise FormulaError(f"{name!r} cannot be a parameter of a formula")
        if len(set(parameters)) < len(parameters):
            raise FormulaError(f"parameters of a formula must differ: {', '.join(parameters)}")
        check(self, args, self.functions)
        body = _Source(f"{namespace_name}.").print(_fold(self))
        code = compile(f"lambda {', '.join(parameters)}: {body}", f"<formula {to_source(self)}>", "eval")
        # The tree holds whitelisted nodes only, so the text made from it reaches nothing but `F`.
        function: Callable[..., Any] = eval(code, {"__builtins__": {}})
        return function


@dataclass(frozen=True, eq=False)
class Number(Expr):
    """A finite number without a sign; ``2`` and ``2.0`` are different numbers."""

    value: int | float

    def __post_init__(self) -> None:
        plain = type(self.value) in (int, float)
        if not plain or not math.isfinite(_as_float(self.value)) or math.copysign(1.0, self.value) < 0:
            raise FormulaError(f"a number of a formula is finite and has no sign, got {self.value!r}")

    def __eq__(self, other: object) -> bool:
        # Python calls 2 and 2.0 equal, but an integer array does not come out of them the same.
        return isinstance(other, Number) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True)
class Literal(Expr):
    """``None``, ``True``, ``False`` or a string: an option of a call."""

    value: bool | str | None


@dataclass(frozen=True)
class Name(Expr):
    """A variable, or the constant ``pi``."""

    id: str


@dataclass(frozen=True)
class Unary(Expr):
    """A sign: ``-operand``."""

    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """``left op right`` with one of ``+ - * / ** @``."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Compare(Expr):
    """``left op right`` with one of ``< <= > >= == !=``."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Call(Expr):
    """``function(*args, **kwargs)``; keywords keep their order."""

    function: str
    args: tuple[Expr, ...] = ()
    kwargs: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True)
class Tuple(Expr):
    """``(a, b)``: several axes, or several results."""

    items: tuple[Expr, ...]


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


# ------------------------------------------------------------------------------------------ reading text

_UNARY: dict[type[ast.unaryop], str] = {ast.USub: "-"}
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.MatMult: "@",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}

# What may stand where, apart from numbers, names, operators and calls.
_OPERAND: frozenset[type] = frozenset()
_RESULT: frozenset[type] = frozenset({tuple})
_ARGUMENT: frozenset[type] = frozenset({tuple, bool, NoneType})
_KEYWORD: frozenset[type] = frozenset({tuple, bool, NoneType, str})


def _refusal(reason: str, text: str, column: int) -> FormulaError:
    return FormulaError(f"{reason}\n    {text}\n    {' ' * column}^")


def _refusal_of(part: Expr, whole: Expr, reason: str) -> FormulaError:
    text, piece = to_source(whole), re.escape(to_source(part))
    # Not inside a longer word, and not the `axis` in front of `axis=0`.
    found = re.search(rf"(?<!\w){piece}(?![\w=])", text)
    return _refusal(reason, text, found.start() if found else 0)


@cache
def parse(text: str) -> Expr:
    """Read a formula; line breaks count as blanks.

    Raises:
        FormulaError: the text is not in the language; the message points at the place.
    """
    line = " ".join(text.split())
    for column, character in enumerate(line):
        if character == "#" or not (character.isascii() and character.isprintable()):
            raise _refusal(f"a formula cannot hold {character!r}", line, column)
    try:
        return _convert(ast.parse(line, mode="eval").body, line, _RESULT)
    except FormulaError:
        raise
    except SyntaxError as error:
        column = min(max((error.offset or 1) - 1, 0), len(line))
        reason = f"not a formula: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        column, reason = 0, f"not a formula: {error or 'too deeply nested'}"
    raise _refusal(reason, line, column)


def _convert(node: ast.expr, text: str, allowed: frozenset[type]) -> Expr:
    def operand(child: ast.expr) -> Expr:
        return _convert(child, text, _OPERAND)

    def word(name: str, place: int) -> str:
        if name.startswith("_"):
            raise _refusal(f"a name cannot begin with an underscore: {name!r}", text, place)
        return name

    match node:
        case ast.Constant(value=bool() | str() | None as value) if type(value) in allowed:
            return Literal(value)
        case ast.Constant(value=bool() | str() | None as value):
            raise _refusal(f"{value!r} can only be {_place_of(value)}", text, node.col_offset)
        case ast.Constant(value=int() | float() as number):
            if not math.isfinite(_as_float(number)):
                raise _refusal("a number must be finite", text, node.col_offset)
            return Number(number)
        case ast.Name(id=name):
            return Name(word(name, node.col_offset))
        case ast.UnaryOp(op=op, operand=inner) if type(op) in _UNARY:
            return Unary(_UNARY[type(op)], operand(inner))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return Binary(_BINARY[type(op)], operand(left), operand(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return Compare(_COMPARE[type(op)], operand(left), operand(right))
        case ast.Compare(comparators=[_, second, *_]):
            raise _refusal("comparisons cannot be chained", text, second.col_offset)
        case ast.Call(func=ast.Name(id=function), args=args, keywords=keywords):
            positional = tuple(_convert(arg, text, _ARGUMENT) for arg in args)
            named: dict[str, Expr] = {}
            for item in keywords:
                if item.arg is None or item.arg in named:
                    raise _refusal("a keyword must be written out, once", text, item.col_offset)
                named[word(item.arg, item.col_offset)] = _convert(item.value, text, _KEYWORD)
            return Call(word(function, node.col_offset), positional, tuple(named.items()))
        case ast.Tuple(elts=items) if tuple in allowed:
            return Tuple(tuple(_convert(item, text, _ARGUMENT) for item in items))
        case ast.Tuple():
            raise _refusal("a tuple cannot be an operand", text, node.col_offset)
    raise _refusal(f"{_construct(node)} is not part of the formula language", text, node.col_offset)


def _place_of(value: bool | str | None) -> str:
    return "the value of a keyword" if isinstance(value, str) else "an argument of a call"


def _construct(node: ast.expr) -> str:
    """Name a refused construct: its operator where it has one, else its kind."""
    kind: ast.AST = node
    match node:
        case ast.UnaryOp(op=op) | ast.BinOp(op=op) | ast.Compare(ops=[op]):
            kind = op
    return f"{type(kind).__name__!r}"


def check(expr: Expr, names: Iterable[str], functions: Iterable[str]) -> None:
    """Demand that a formula uses known names and functions only.

    Raises:
        FormulaError: an unknown word, with the text, its place and the nearest known word.
    """
    known_names, known_functions = list(names), list(functions)
    for node in expr.walk():
        match node:
            case Name(word) if word not in CONSTANTS:
                kind, known = "name", known_names
            case Call(word):
                kind, known = "function", known_functions
            case _:
                continue
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            listing = f"known: {', '.join(known)}" if known else "none is known here"
            advice = f"did you mean {near[0]!r}?" if near else listing
            raise _refusal_of(node, expr, f"unknown {kind} {word!r}; {advice}")


# -------------------------------------------------------------------------------------- scalar functions


@dataclass(frozen=True)
class Intrinsic:
    """One scalar function in every language; ``#1`` in a template stands for the first argument.

    Attributes:
        arity: number of arguments, all positional.
        c: name of the vector function of the C kernels.
        cuda_float: template of the CUDA expression on floats.
        cuda_double: template of the CUDA expression on doubles.
        latex: template.
        text: template.
        value: the function on Python numbers, for constants; None where no constant makes sense.
    """

    arity: int
    c: str
    cuda_float: str
    cuda_double: str
    latex: str
    text: str
    value: Callable[..., float] | None


def _slots(arity: int) -> str:
    return ", ".join(f"#{i + 1}" for i in range(arity))


def _latex_call(function: str, arity: int = 1) -> str:
    return rf"{function}\left({_slots(arity)}\right)"


def _row(
    name: str,
    value: Callable[..., float] | None,
    *,
    arity: int = 1,
    c: str | None = None,
    cuda: str | None = None,
    latex: str | None = None,
    text: str | None = None,
) -> tuple[str, Intrinsic]:
    # `cuda` is given where the C library has no function of that name, which would differ by its suffix only.
    slots = _slots(arity)
    return name, Intrinsic(
        arity=arity,
        c=c or f"v_{name}",
        cuda_float=cuda or f"{name}f({slots})",
        cuda_double=cuda or f"{name}({slots})",
        latex=latex or _latex_call(rf"\operatorname{{{name}}}", arity),
        text=text or f"{name}({slots})",
        value=value,
    )


def _sigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


INTRINSICS: Mapping[str, Intrinsic] = MappingProxyType(
    dict(
        [
            _row("exp", math.exp, latex=_latex_call(r"\exp")),
            _row("expm1", math.expm1),
            _row("log", math.log, latex=_latex_call(r"\log")),
            _row("log1p", math.log1p),
            _row("sqrt", math.sqrt, latex=r"\sqrt{#1}", text="√(#1)"),
            _row("rsqrt", lambda x: 1.0 / math.sqrt(x)),
            _row("abs", abs, cuda="fabs(#1)", latex=r"\left|#1\right|", text="|#1|"),
            _row("sign", lambda x: (x > 0) - (x < 0), cuda="mg_sign(#1)"),
            _row("tanh", math.tanh, latex=_latex_call(r"\tanh")),
            _row("sigmoid", _sigmoid, cuda="mg_sigmoid(#1)", latex=_latex_call(r"\sigma"), text="σ(#1)"),
            _row("softplus", lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))), cuda="mg_softplus(#1)"),
            _row("sin", math.sin, latex=_latex_call(r"\sin")),
            _row("cos", math.cos, latex=_latex_call(r"\cos")),
            _row("erf", math.erf),
            _row("maximum", max, arity=2, c="v_max", cuda="mg_maximum(#1, #2)", latex=_latex_call(r"\max", 2)),
            _row("minimum", min, arity=2, c="v_min", cuda="mg_minimum(#1, #2)", latex=_latex_call(r"\min", 2)),
            _row(
                "where",
                None,
                arity=3,
                c="v_select",
                cuda="(#1 ? #2 : #3)",
                latex=r"\begin{cases} #2 & \text{if } #1 \\ #3 & \text{otherwise} \end{cases}",
            ),
            _row("floor", math.floor, latex=r"\left\lfloor #1 \right\rfloor", text="⌊#1⌋"),
        ]
    )
)

CUDA_PREAMBLE = """\
template <typename T> __device__ inline T mg_sigmoid(T x) {
  T e = exp(-fabs(x));
  return (x >= T(0) ? T(1) : e) / (T(1) + e);
}
template <typename T> __device__ inline T mg_softplus(T x) {
  return (x > T(0) ? x : T(0)) + log1p(exp(-fabs(x)));
}
template <typename T> __device__ inline T mg_sign(T x) {
  return x == x ? T(x > T(0)) - T(x < T(0)) : x;
}
template <typename T> __device__ inline T mg_maximum(T a, T b) { return a > b || a != a ? a : b; }
template <typename T> __device__ inline T mg_minimum(T a, T b) { return a < b || a != a ? a : b; }
template <typename T> __device__ inline T mg_powi(T a, int n) {
  T p = T(1);
  for (int i = n < 0 ? -n : n; i > 0; --i) p *= a;
  return n < 0 ? T(1) / p : p;
}
"""


def _intrinsic(call: Call) -> Intrinsic | None:
    """Return the row that a call means, if it is called the way scalar functions are."""
    row = INTRINSICS.get(call.function)
    return row if row and len(call.args) == row.arity and not call.kwargs else None


def _fill(template: str, args: Sequence[str]) -> str:
    return re.sub(r"#(\d)", lambda slot: args[int(slot[1]) - 1], template)


# --------------------------------------------------------------------------------------------- constants


def _power(base: float, exponent: float) -> float:
    math.pow(base, exponent)  # raises at once where Python would go complex or compute a giant integer
    result: float = base**exponent
    return result


_ARITHMETIC: Mapping[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": _power,
}


def _fold(expr: Expr) -> Expr:
    """Replace each constant sub-expression by its number, computed once in double precision.

    Without this ``sqrt(2)`` would leave NumPy as a float64 scalar and lift a float32 array with it.
    """
    folded: Expr
    compute: Callable[..., float] | None = None
    match expr:
        case Name(word) if word in CONSTANTS:
            return Number(CONSTANTS[word])
        case Unary(op, operand):
            folded, compute = Unary(op, _fold(operand)), operator.neg
        case Binary(op, left, right):
            folded, compute = Binary(op, _fold(left), _fold(right)), _ARITHMETIC.get(op)
        case Compare(op, left, right):
            folded = Compare(op, _fold(left), _fold(right))
        case Call(function, args, kwargs):
            options = tuple((key, _fold(value)) for key, value in kwargs)
            folded = Call(function, tuple(map(_fold, args)), options)
            row = _intrinsic(folded)
            compute = row.value if row else None
        case Tuple(items):
            return Tuple(tuple(map(_fold, items)))
        case _:
            return expr
    values = [value for child in folded.children if (value := _constant(child)) is not None]
    if compute is None or len(values) < len(folded.children):
        return folded
    try:
        result = compute(*values)
    except (ArithmeticError, ValueError):
        result = math.nan
    if not math.isfinite(_as_float(result)):
        raise _refusal("a constant without a finite value", to_source(expr), 0)
    number = Number(abs(result))
    return Unary("-", number) if math.copysign(1.0, result) < 0 else number


def _constant(expr: Expr) -> int | float | None:
    match expr:
        case Number(value):
            return value
        case Unary("-", Number(value)):
            return -value
    return None


# ---------------------------------------------------------------------------------------------- printing

# How tightly a printed piece holds together; a piece is wrapped where its surroundings hold tighter.
# Quotients and matrix products are _MIXED in text: next to another factor they would have two readings.
_LOOSE, _COMPARISON, _SUM, _MIXED, _PRODUCT, _SIGN, _POWER, _ATOM = range(8)
_LEVEL = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "@": _PRODUCT, "**": _POWER}

_Piece = tuple[str, int]


class _Printer:
    """Walks a tree and puts parentheses where the levels demand them; languages fill in `piece`."""

    def piece(self, expr: Expr) -> _Piece:
        """Return the text of a node and how tightly it holds together."""
        raise NotImplementedError

    def group(self, text: str) -> str:
        return f"({text})"

    def print(self, expr: Expr, floor: int = _LOOSE) -> str:
        text, level = self.piece(expr)
        return text if level >= floor else self.group(text)

    def all(self, exprs: Iterable[Expr]) -> list[str]:
        return [self.print(expr) for expr in exprs]


class _Source(_Printer):
    """Python, with `prefix` in front of each function."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Number(value) | Literal(value):
                return repr(value), _ATOM
            case Name(word):
                return word, _ATOM
            case Unary(op, operand):
                return f"{op}{self.print(operand, _SIGN)}", _SIGN
            case Binary("**", left, right):
                return f"{self.print(left, _ATOM)} ** {self.print(right, _SIGN)}", _POWER
            case Binary(op, left, right):
                level = _LEVEL[op]
                return f"{self.print(left, level)} {op} {self.print(right, level + 1)}", level
            case Compare(op, left, right):
                return f"{self.print(left, _SUM)} {op} {self.print(right, _SUM)}", _COMPARISON
            case Call(function, args, kwargs):
                options = [f"{key}={self.print(value)}" for key, value in kwargs]
                return f"{self.prefix}{function}({', '.join(self.all(args) + options)})", _ATOM
            case Tuple(items):
                inner = ", ".join(self.all(items))
                return f"({inner},)" if len(items) == 1 else f"({inner})", _ATOM
        raise TypeError(expr)


def to_source(expr: Expr) -> str:
    """Print Python source with as few parentheses as possible; ``parse`` gives back an equal formula.

    >>> to_source(parse("((a) * (b)) - (-(c ** 2))"))
    'a * b - -c ** 2'
    """
    return _Source().print(expr)


class _Scalar(_Printer):
    """What C and CUDA share: the scalar formulas of a compiled loop."""

    powi: str
    pow: str

    def __init__(self, whole: Expr) -> None:
        self.whole = whole

    def number(self, value: float) -> str:
        raise NotImplementedError

    def compare(self, op: str, left: Expr, right: Expr) -> str:
        raise NotImplementedError

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        raise NotImplementedError

    def refusal(self, part: Expr, reason: str) -> FormulaError:
        return _refusal_of(part, self.whole, reason)

    def condition(self, expr: Expr) -> str:
        if isinstance(expr, Compare):
            return self.compare(expr.op, expr.left, expr.right)
        return self.compare("!=", expr, Number(0))

    def power(self, base: Expr, exponent: Expr) -> str:
        value = _constant(exponent)
        if value is not None and abs(value) <= 4 and value == int(value):
            return f"{self.powi}({self.print(base)}, {int(value)})"
        if value == 0.5:
            return self.intrinsic(INTRINSICS["sqrt"], [self.print(base)])
        return f"{self.pow}({self.print(base)}, {self.print(exponent)})"

    def call(self, expr: Call) -> str:
        if expr.function not in INTRINSICS:
            raise self.refusal(expr, f"{expr.function!r} is not a scalar function")
        row = _intrinsic(expr)
        if row is None:
            arity = INTRINSICS[expr.function].arity
            raise self.refusal(expr, f"{expr.function!r} takes {arity} positional argument(s) in a scalar formula")
        if expr.function == "where":
            return self.intrinsic(row, [self.condition(expr.args[0]), *self.all(expr.args[1:])])
        return self.intrinsic(row, self.all(expr.args))

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Number(value):
                return self.number(float(value)), _ATOM
            case Name(word):
                return word, _ATOM
            case Unary(op, operand):
                return f"({op}{self.print(operand, _ATOM)})", _ATOM
            case Binary("**", left, right):
                return self.power(left, right), _ATOM
            case Binary("+" | "-" | "*" | "/" as op, left, right):
                level = _LEVEL[op]
                return f"{self.print(left, level)} {op} {self.print(right, level + 1)}", level
            case Call():
                return self.call(expr), _ATOM
            case Compare():
                raise self.refusal(expr, "a comparison is not a number; choose with where(condition, a, b)")
        raise self.refusal(expr, "not part of a scalar formula")


class _C(_Scalar):
    powi, pow = "v_powi", "v_pow"
    comparisons: ClassVar[Mapping[str, str]] = {
        "<": "v_lt",
        "<=": "v_le",
        ">": "v_gt",
        ">=": "v_ge",
        "==": "v_eq",
        "!=": "v_ne",
    }

    def number(self, value: float) -> str:
        return f"K({value!r})"

    def compare(self, op: str, left: Expr, right: Expr) -> str:
        return f"{self.comparisons[op]}({self.print(left)}, {self.print(right)})"

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        return f"{row.c}({', '.join(args)})"


class _Cuda(_Scalar):
    powi = "mg_powi"

    def __init__(self, whole: Expr, single: bool) -> None:
        super().__init__(whole)
        self.single = single
        self.pow = "powf" if single else "pow"

    def number(self, value: float) -> str:
        return f"{value!r}f" if self.single else repr(value)

    def compare(self, op: str, left: Expr, right: Expr) -> str:
        return f"{self.print(left, _SUM)} {op} {self.print(right, _SUM)}"

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        return _fill(row.cuda_float if self.single else row.cuda_double, args)


def to_c(expr: Expr) -> str:
    """Print a C expression over vector-extension variables.

    Numbers are splat by ``K(1.5)``; functions are named in ``INTRINSICS``; comparisons (``v_lt`` and so on)
    make masks for ``v_select``; small integer powers are ``v_powi(a, n)``, others ``v_pow(a, b)``.

    Raises:
        FormulaError: the formula is not a scalar one, or uses a comparison as a number.

    >>> to_c(parse("where(x > 0, x ** 2, tanh(-x))"))
    'v_select(v_gt(x, K(0.0)), v_powi(x, 2), v_tanh((-x)))'
    """
    return _C(expr).print(_fold(expr))


def to_cuda(expr: Expr, dtype: str = "float") -> str:
    """Print a scalar CUDA expression; ``CUDA_PREAMBLE`` defines the ``mg_`` functions that it calls.

    Args:
        expr: a scalar formula.
        dtype: ``"float"`` or ``"double"``, the type of all variables.

    Raises:
        FormulaError: as `to_c`, or another dtype.

    >>> to_cuda(parse("tanh(x) * 1.5"), "float")
    'tanhf(x) * 1.5f'
    """
    if dtype not in ("float", "double"):
        raise FormulaError(f"a CUDA expression is over 'float' or 'double', not {dtype!r}")
    return _Cuda(expr, dtype == "float").print(_fold(expr))


def _level_of(text: str) -> int:
    """Guess how tightly a substituted name holds together; brackets hide what is in them."""
    outside, before = text, ""
    while outside != before:
        before, outside = outside, re.sub(r"\{[^{}]*\}|\[[^][]*\]|\([^()]*\)", "", outside)
    if not re.fullmatch(r"[\w\\.'′^]+", outside):
        return _LOOSE
    return _POWER if re.search(r"[\^⁰¹²³⁴⁵⁶⁷⁸⁹ᵀ]", outside) else _ATOM


class _Readable(_Printer):
    """What text and LaTeX share: names replaced, and one reading only for each line."""

    times: str
    matmul: str
    comparisons: ClassVar[Mapping[str, str]]

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def word(self, name: str) -> str:
        raise NotImplementedError

    def function(self, name: str) -> str:
        raise NotImplementedError

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        raise NotImplementedError

    def name(self, name: str) -> _Piece:
        if name in self.names:
            return self.names[name], _level_of(self.names[name])
        if name.endswith("_shape"):
            return f"{self.function('shape')}({self.name(name.removesuffix('_shape'))[0]})", _ATOM
        return self.word(name), _ATOM

    def after(self, expr: Expr, floor: int) -> str:
        """Print what follows an operator: a sign there would read as a second operator."""
        text = self.print(expr, floor)
        return self.group(text) if text.startswith("-") else text

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Name(word):
                return self.name(word)
            case Unary(op, operand):
                return f"{op}{self.after(operand, _SIGN)}", _SIGN
            case Binary("+" | "-" as op, left, right):
                return f"{self.print(left, _SUM)} {op} {self.after(right, _MIXED)}", _SUM
            case Binary("*", left, right):
                return f"{self.print(left, _PRODUCT)}{self.times}{self.after(right, _SIGN)}", _PRODUCT
            case Binary("@", left, right) | Call("matmul", (left, right), ()):
                return f"{self.print(left, _SIGN)}{self.matmul}{self.after(right, _SIGN)}", _MIXED
            case Call("rsqrt", (operand,), ()):
                return self.piece(Binary("/", Number(1), Call("sqrt", (operand,))))
            case Compare(op, left, right):
                sign = self.comparisons[op]
                return f"{self.print(left, _SUM)} {sign} {self.print(right, _SUM)}", _COMPARISON
            case Call(function, args, kwargs):
                if row := _intrinsic(expr):
                    return self.intrinsic(row, self.all(args)), _ATOM
                options = [f"{self.word(key)}={self.print(value)}" for key, value in kwargs]
                return f"{self.function(function)}{self.group(', '.join(self.all(args) + options))}", _ATOM
            case Tuple(items):
                inner = ", ".join(self.all(items))
                return self.group(f"{inner}," if len(items) == 1 else inner), _ATOM
        raise TypeError(expr)


class _Text(_Readable):
    times, matmul = "·", " @ "
    comparisons: ClassVar[Mapping[str, str]] = {
        "<": "<",
        "<=": "≤",
        ">": ">",
        ">=": "≥",
        "==": "==",
        "!=": "≠",
    }
    superscript: ClassVar = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def word(self, name: str) -> str:
        return "π" if name == "pi" else name

    def function(self, name: str) -> str:
        return name

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        return _fill(row.text, args)

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Number(value):
                return repr(value), _POWER if "e" in repr(value) else _ATOM
            case Literal(value):
                return repr(value), _ATOM
            case Binary("/", left, right):
                return f"{self.print(left, _PRODUCT)} / {self.after(right, _SIGN)}", _MIXED
            case Binary("**", left, right):
                base, exponent = self.print(left, _ATOM), _constant(right)
                if isinstance(exponent, int) and abs(exponent) < 100:
                    return base + str(exponent).translate(self.superscript), _POWER
                return f"{base}^{self.print(right, _ATOM)}", _POWER
            case Call("mT", (operand,), ()):
                return f"{self.print(operand, _ATOM)}ᵀ", _POWER
            case Call("abs", (operand,), ()) if "|" in self.print(operand):
                return f"abs({self.print(operand)})", _ATOM
        return super().piece(expr)


_GREEK: Mapping[str, str] = MappingProxyType(
    {
        "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "mu": "μ",
        "rho": "ρ", "tau": "τ", "phi": "φ", "pi": "π",
    }
)  # fmt: skip


class _Latex(_Readable):
    times, matmul = r" \cdot ", r" \, "
    comparisons: ClassVar[Mapping[str, str]] = {
        "<": "<",
        "<=": r"\le",
        ">": ">",
        ">=": r"\ge",
        "==": "=",
        "!=": r"\ne",
    }

    def group(self, text: str) -> str:
        return rf"\left({text}\right)"

    def word(self, name: str) -> str:
        head, *tail = [part for part in re.split(r"_+|(?<=[A-Za-z])(?=\d+(?:_|$))", name) if part]
        symbol = rf"\{head}" if head in _GREEK else self.upright(head)
        return f"{symbol}_{{{','.join(map(self.upright, tail))}}}" if tail else symbol

    def upright(self, word: str) -> str:
        return word if len(word) == 1 or word.isdigit() else rf"\mathrm{{{word}}}"

    def function(self, name: str) -> str:
        escaped = name.replace("_", r"\_")
        return rf"\operatorname{{{escaped}}}"

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        return _fill(row.latex, args)

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Number(value):
                mantissa, _, exponent = repr(value).partition("e")
                scale = f"10^{{{int(exponent)}}}" if exponent else ""
                if scale and mantissa != "1":
                    return f"{mantissa}{self.times}{scale}", _PRODUCT
                return (scale, _POWER) if scale else (mantissa, _ATOM)
            case Literal(value):
                escaped = re.sub(r"[\\{}_^#$%&~]", lambda found: rf"\char`\{found[0]}", str(value))
                return rf"\texttt{{{escaped}}}", _ATOM
            case Binary("/", left, right):
                return rf"\frac{{{self.print(left)}}}{{{self.print(right)}}}", _POWER
            case Binary("**", left, right):
                return f"{self.print(left, _ATOM)}^{{{self.print(right)}}}", _POWER
            case Call("mT", (operand,), ()):
                return rf"{self.print(operand, _ATOM)}^{{\top}}", _POWER
            case Call("where", (condition, chosen, other), ()):
                test = condition if isinstance(condition, Compare) else Compare("!=", condition, Number(0))
                return self.intrinsic(INTRINSICS["where"], self.all([test, chosen, other])), _LOOSE
        return super().piece(expr)


def _element(tag: str, *children: str) -> str:
    return f"<{tag}>{''.join(children)}</{tag}>"


class _MathML(_Printer):
    """MathML Core: what browsers draw themselves."""

    operators: ClassVar[Mapping[str, str]] = {
        "+": "+", "-": "−", "*": "·", "<": "&lt;", "<=": "≤", ">": "&gt;", ">=": "≥", "==": "=", "!=": "≠",
    }  # fmt: skip
    applied, times = "<mo>&#x2061;</mo>", "<mo>&#x2062;</mo>"  # neither shows; readers say "of" and "times"

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def group(self, text: str) -> str:
        return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"

    def op(self, sign: str) -> str:
        return _element("mo", self.operators[sign])

    def word(self, name: str) -> str:
        head, *tail = [part for part in re.split(r"_+|(?<=[A-Za-z])(?=\d+(?:_|$))", name) if part]
        symbol = _element("mi", _GREEK.get(head, head))
        return _element("msub", symbol, _element("mtext", ",".join(tail))) if tail else symbol

    def called(self, function: str, inner: str) -> str:
        return f"<mi>{function}</mi>{self.applied}{self.group(inner)}"

    def listed(self, exprs: Sequence[Expr], options: Sequence[tuple[str, Expr]] = ()) -> str:
        parts = self.all(exprs)
        parts += [f"<mtext>{key}</mtext><mo>=</mo>{self.print(value)}" for key, value in options]
        return "<mo>,</mo>".join(parts)

    def name(self, name: str) -> str:
        if name in self.names:
            return self.names[name]
        if name.endswith("_shape"):
            return self.called("shape", self.name(name.removesuffix("_shape")))
        return self.word(name)

    def intrinsic(self, row: Intrinsic, args: list[str]) -> str:
        """Typeset a scalar function as its text is written: ``σ(#1)``, ``|#1|``, ``√(#1)``."""
        if found := re.fullmatch(r"(\W)#1(\W)", row.text):
            return f"<mrow><mo>{found[1]}</mo>{args[0]}<mo>{found[2]}</mo></mrow>"
        function = row.text.partition("(")[0]
        return _element("msqrt", args[0]) if function == "√" else self.called(function, "<mo>,</mo>".join(args))

    def cases(self, test: Expr, chosen: Expr, other: Expr) -> str:
        test = test if isinstance(test, Compare) else Compare("!=", test, Number(0))
        rows = (
            (self.print(chosen), f"<mtext>if&#xA0;</mtext>{self.print(test)}"),
            (self.print(other), "<mtext>otherwise</mtext>"),
        )
        table = _element("mtable", *(_element("mtr", *(_element("mtd", cell) for cell in row)) for row in rows))
        return f"<mrow><mo>{{</mo>{table}</mrow>"

    def piece(self, expr: Expr) -> _Piece:
        match expr:
            case Number(value):
                mantissa, _, exponent = repr(value).partition("e")
                digits = _element("mn", mantissa)
                if not exponent:
                    return digits, _ATOM
                scale = _element("msup", "<mn>10</mn>", _row_of(self.print(_signed(int(exponent)))))
                return (scale, _POWER) if mantissa == "1" else (f"{digits}{self.op('*')}{scale}", _PRODUCT)
            case Literal(value):
                return _element("mtext", html.escape(str(value))), _ATOM
            case Name(word):
                return self.name(word), _ATOM
            case Unary(op, operand):
                return f"{self.op(op)}{self.print(operand, _POWER)}", _SIGN
            case Binary("/", left, right):
                return _element("mfrac", _row_of(self.print(left)), _row_of(self.print(right))), _POWER
            case Binary("**", left, right):
                return _element("msup", _row_of(self.print(left, _ATOM)), _row_of(self.print(right))), _POWER
            case Binary("@", left, right) | Call("matmul", (left, right), ()):
                return f"{self.print(left, _POWER)}{self.times}{self.print(right, _POWER)}", _MIXED
            case Binary(op, left, right):
                after = _MIXED if op in "+-" else _POWER
                return f"{self.print(left, _LEVEL[op])}{self.op(op)}{self.print(right, after)}", _LEVEL[op]
            case Call("rsqrt", (operand,), ()):
                return self.piece(Binary("/", Number(1), Call("sqrt", (operand,))))
            case Compare(op, left, right):
                return f"{self.print(left, _SUM)}{self.op(op)}{self.print(right, _SUM)}", _COMPARISON
            case Call("mT", (operand,), ()):
                return _element("msup", _row_of(self.print(operand, _ATOM)), "<mo>⊤</mo>"), _POWER
            case Call("where", (condition, chosen, other), ()):
                return self.cases(condition, chosen, other), _LOOSE
            case Call(function, args, kwargs):
                if row := _intrinsic(expr):
                    return self.intrinsic(row, self.all(args)), _ATOM
                return self.called(function, self.listed(args, kwargs)), _ATOM
            case Tuple(items):
                return self.group(self.listed(items)), _ATOM
        raise TypeError(expr)


def _signed(value: int) -> Expr:
    return Unary("-", Number(-value)) if value < 0 else Number(value)


def _row_of(markup: str) -> str:
    """Make one element of a piece: fractions and scripts count their children."""
    return _element("mrow", markup)


def to_text(expr: Expr, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Print readable Unicode text with as few parentheses as one reading allows.

    Args:
        expr: any formula.
        names: what to print for a name; a piece that does not hold together is wrapped where needed.
            ``x_shape`` prints as ``shape(x)`` with the text of ``x``.

    >>> to_text(parse("-y / b ** 2 + matmul(mT(W), g)"), {"y": "c[3]"})
    '-c[3] / b² + Wᵀ @ g'
    """
    return _Text(names).print(expr)


def to_latex(expr: Expr, names: Mapping[str, str] = MappingProxyType({})) -> str:
    r"""Print LaTeX for math mode; needs amsmath's ``cases`` and ``\operatorname`` only.

    Args:
        expr: any formula.
        names: LaTeX to print for a name, verbatim.

    >>> print(to_latex(parse("(1 - y) * (1 + y) / sqrt(a_0)"), {"y": "c_{3}"}))
    \frac{\left(1 - c_{3}\right) \cdot \left(1 + c_{3}\right)}{\sqrt{a_{0}}}
    """
    return _Latex(names).print(expr)


def to_mathml(expr: Expr, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Print the inside of a ``<math>`` element, in the part of MathML that browsers draw themselves.

    Args:
        expr: any formula.
        names: markup to print for a name, verbatim; a piece that does not hold together brings its parentheses.

    >>> to_mathml(parse("(1 - y) ** 2"), {"y": "<mi>c</mi>"})
    '<msup><mrow><mrow><mo>(</mo><mn>1</mn><mo>−</mo><mi>c</mi><mo>)</mo></mrow></mrow><mrow><mn>2</mn></mrow></msup>'
    """
    return _MathML(names).print(expr)
