"""The record: a primitive's name, operands, value and rules in one place, and everything that is derived from them.

Three constructors make records and enter them in the registry ``PAGE``:

* :func:`elementwise` takes a value formula and one partial derivative ``d_<operand>`` per differentiable operand;
* :func:`linear` takes the value and the transposes, ``transpose_<operand>``; it is its own forward derivative;
* :func:`general` takes the value, ``vjp_<operand>`` and ``jvp_<operand>``.

Operations that only run others as one are made further up, by :class:`minigrad.grad.Composed`, and have a table of
their own.

A signature reads ``"name(a, b; axis=None)"``: operands, then parameters with their defaults. ``*xs`` means any number
of operands. Rules are formulas (:mod:`minigrad.formula`), or callables whose argument names say what they need; both
may name ``g`` (cotangent of the result), ``t`` (tangent of the operand), operands, parameters, ``y`` (the result),
``<operand>_shape`` and ``y_shape``; rules of variadic operands also ``k``, the operand's position. Only what a rule
names is kept for it. Rules call records, and plain functions over tensors that :func:`helper` enters beside them. What
a callable does is said by a formula, ``says={"a": "g @ mT(b)"}``; ``"y"`` says what the value is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._core import OpBase, TensorBase, data_of, is_recording, tensor
from .errors import (
    DeviceError,
    DTypeError,
    FormulaError,
    MinigradError,
    MissingExtraError,
    ShapeError,
    UsageError,
    where,
)

if TYPE_CHECKING:
    from . import formula
else:

    class _Later(ModuleType):
        """The module of formulas, loaded when the first rule is read: a quarter of the time of importing the page."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self.__name__), name)
            setattr(self, name, found)
            return found

    formula = _Later(__name__.rpartition(".")[0] + ".formula")

__all__ = ["LANES", "PAGE", "Op", "Rule", "Update", "elementwise", "general", "helper", "lane_of", "linear", "update"]

SAVES_RESULT, SAVES_ALL = 1 << 30, 1 << 29


class Lanes(dict[type, Any]):
    """Array type -> its array lane. The lane of a library that is found there first enters when an array of it is met.

    Attributes:
        libraries: name of an array library -> what enters its lane here.
    """

    def __init__(self) -> None:
        self.libraries: dict[str, Callable[[], Any]] = {}

    def __missing__(self, kind: type) -> Any:
        enter = self.libraries.get(str(kind.__module__).partition(".")[0])
        if enter is None:
            return None
        enter()
        return self.get(kind)


LANES = Lanes()
"""Filled by :mod:`minigrad.backend`. The first one takes plain Python values."""

_ALIASES = {"dim": "axis", "keepdim": "keepdims"}  # PyTorch's words beside NumPy's


class Page:
    """The registry of records, and the namespace in which rules look up operations and helpers."""

    def __init__(self) -> None:
        self.records: dict[str, Op] = {}
        self.composed: dict[str, Op] = {}
        self.helpers: dict[str, Callable[..., Any]] = {}
        self.updates: dict[str, Update] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        here = self.__dict__
        found = here["records"].get(name) or here["helpers"].get(name) or here["composed"].get(name)
        if found is None:
            raise AttributeError(f"no operation named {name!r} on the page")
        return found

    def __iter__(self) -> Iterator[Op]:
        return iter([*self.records.values(), *self.composed.values()])

    def __len__(self) -> int:
        return len(self.records) + len(self.composed)


PAGE = Page()


class _Partials:
    """The page as partial derivatives see it: a choice between two numbers has the dtype of `like`, not the default."""

    def __init__(self, like: TensorBase) -> None:
        self._like = like

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(PAGE, name)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, TensorBase) and not isinstance(b, TensorBase):
            like = data_of(self._like)
            a = tensor(lane_of(like).cast(a, like.dtype))
        return PAGE.where(condition, a, b)


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let rules call a plain function of tensors, shapes and parameters by its name."""
    name = function.__name__
    if name in PAGE.helpers or name in PAGE.records:
        raise FormulaError(f"two functions named {name!r} on the page")
    PAGE.helpers[name] = function
    return function


def lane_of(array: Any) -> Any:
    """Return the array lane that owns an array; None for anything that is no array of a known lane."""
    return LANES[type(array)]


class Rule:
    """One derivative rule: a formula or a callable, with the names it needs.

    Attributes:
        source: what the record gave.
        says: what the record says of a callable, as the text of a formula.
    """

    def __init__(self, source: str | Callable[..., Any], says: str | None = None) -> None:
        self.source, self.says = source, says

    # Read when first needed: a program uses a few records of the page, and parsing them all would dominate its start.
    @cached_property
    def expr(self) -> formula.Expr | None:
        """The formula that the rule is; None for a callable."""
        return formula.parse(self.source) if isinstance(self.source, str) else None

    @cached_property
    def said(self) -> formula.Expr | None:
        """The formula that people read: the rule itself, or what the record says of its callable."""
        return self.expr if self.says is None else formula.parse(self.says)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What must be known to evaluate the rule."""
        if self.expr is not None:
            return self.expr.names
        code = self.source.__code__  # type: ignore[union-attr]
        return tuple(code.co_varnames[: code.co_argcount])

    @cached_property
    def _call(self) -> Callable[..., Any]:
        if self.expr is not None:
            return self.expr.compile(self.names)
        source: Any = self.source
        return lambda _page, *values: source(*values)

    def __call__(self, values: Callable[[str], Any], page: Any = PAGE) -> Any:
        """Evaluate the rule; `values` looks up the names that it needs, `page` the functions."""
        return self._call(page, *[values(name) for name in self.names])

    @cached_property
    def text(self) -> str | None:
        """The rule as text; None for a callable of which nothing is said."""
        return None if self.said is None else formula.to_text(self.said)

    @cached_property
    def latex(self) -> str | None:
        """The rule as LaTeX; None for a callable of which nothing is said."""
        return None if self.said is None else formula.to_latex(self.said)


_WORDS = {"None": None, "True": True, "False": False}


def _default(text: str) -> Any:
    """Read a parameter's default: None, True, False, a number, or a quoted word."""
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] in "\"'":
        return text[1:-1]
    return float(text) if "." in text or "e" in text else int(text)


def _parse_signature(signature: str) -> tuple[str, list[str], bool, dict[str, Any]]:
    """Split ``"name(a, b; axis=None)"`` into name, operands, whether they are variadic, and parameters' defaults."""
    head, _, rest = signature.partition("(")
    operands_text, _, params_text = rest.rstrip(")").partition(";")
    operands = [part.strip() for part in operands_text.split(",") if part.strip()]
    variadic = len(operands) == 1 and operands[0].startswith("*")
    params = {}
    for part in params_text.split(","):
        name, given, default = part.partition("=")
        if name.strip():
            params[name.strip()] = _default(default.strip()) if given else REQUIRED
    return head.strip(), [operands[0][1:]] if variadic else operands, variadic, params


REQUIRED = type("Required", (), {"__repr__": lambda self: "required"})()
"""The default of a parameter that a call must give."""


class Op(OpBase):
    """One record of the page, callable on tensors, arrays and scalars.

    Attributes:
        name, operands, variadic, params: the signature, parsed; ``params`` maps names to defaults.
        kind: "elementwise", "linear" or "general".
        value: the value: a formula (elementwise) or a callable ``(xp, *operands, **params)`` over an array namespace.
        rules: operand -> :class:`Rule` of its derivative (partial, transpose, or vjp, by kind).
        jvps: operand -> :class:`Rule` of the forward derivative (general records only).
        floats: whether integer operands become floating.
        domain: operand -> (low, high), where tests sample it.
        numpy: NumPy's name of the same function.
        doc: one line for the reference page.
        shapes: operands' and result's axes, ``"(…, n, k), (…, k, m) -> (…, n, m)"``; by default operands broadcast.
        adds: names of what `prepare` adds to the parameters; rules may name them.
    """

    def __init__(
        self,
        signature: str,
        kind: str,
        value: str | Callable[..., Any],
        rules: dict[str, str | Callable[..., Any]],
        jvps: dict[str, str | Callable[..., Any]],
        *,
        doc: str,
        shapes: str = "broadcast",
        vjp: Callable[..., Any] | None = None,
        jvp: Callable[..., Any] | None = None,
        joint: bool = False,
        floats: bool = False,
        indices: Sequence[str] = (),
        domain: dict[str, tuple[float, float]] | None = None,
        numpy: str | None = None,
        prepare: Callable[..., dict[str, Any]] | None = None,
        twin: Callable[..., Any] | None = None,
        says: dict[str, str] | None = None,
        adds: Sequence[str] = (),
    ) -> None:
        name, self.operands, self.variadic, self.params = _parse_signature(signature)
        self.text_signature = signature
        self.kind, self.value, self.doc, self.shapes = kind, value, doc, shapes
        self.joint, self.floats, self.indices, self.adds = joint, floats, tuple(indices), tuple(adds)
        says = says or {}
        self._value_says = says.get("y")
        self.domain, self.numpy, self.prepare, self.twin = domain or {}, numpy, prepare, twin
        self.vjp, self.jvp = (Rule(vjp) if vjp else None), (Rule(jvp) if jvp else None)
        self.rules = {operand: Rule(rule, says.get(operand)) for operand, rule in rules.items()}
        self.jvps = {operand: Rule(rule) for operand, rule in jvps.items()}
        self._face(
            name,
            -1 if self.variadic else len(self.operands),
            not self.params and not self.variadic and prepare is None,
        )
        room = PAGE.composed if kind == "composed" else PAGE.records
        if name in room:
            raise FormulaError(f"two records named {name!r}")
        room[name] = self

    @cached_property
    def value_expr(self) -> formula.Expr | None:
        """The value as a formula; None where it is a callable."""
        return formula.parse(self.value) if isinstance(self.value, str) else None

    @cached_property
    def _value(self) -> Callable[..., Any]:
        assert self.value_expr is not None
        return self.value_expr.compile([*self.operands, *self.params])

    def wire(self) -> None:
        """Read the rules, check the names in them, and tell the heart what each operand's rule needs.

        Raises:
            FormulaError: a rule for no operand, an unknown name, or a function that element-wise kernels do not have.
        """
        for operand in [*self.rules, *self.jvps]:
            if operand not in self.operands:
                raise FormulaError(f"{self.name}: a rule for {operand!r}, which is no operand of {self.text_signature}")
        self._check_names()
        need = [self._needs_of(operand) for operand in self.operands]
        smooth = [operand in self.rules or self.vjp is not None for operand in self.operands]
        smooth = [yes and operand not in self.indices for yes, operand in zip(smooth, self.operands, strict=True)]
        self._wire(need, smooth)

    # -- what rules need ---------------------------------------------------------------------------

    def _check_names(self) -> None:
        shapes = [f"{operand}_shape" for operand in self.operands]
        known = {
            "g",
            "t",
            "y",
            "k",
            "y_shape",
            "wanted",
            "gs",
            "ts",
            *self.operands,
            *self.params,
            *self.adds,
            *shapes,
        }
        for rule in [*self.rules.values(), *self.jvps.values(), *filter(None, [self.vjp, self.jvp])]:
            for needed in rule.names:
                if needed not in known:
                    raise FormulaError(f"{self.name}: a rule names {needed!r}; known: {', '.join(sorted(known))}")
        if self.kind == "elementwise":
            arguments = [*self.operands, *self.params]
            for expr in [self.value_expr, *(rule.expr for rule in self.rules.values())]:
                if expr is not None:
                    formula.check(expr, [*arguments, "y"], formula.INTRINSICS)

    def _needs_of(self, operand: str) -> int:
        rules = [self.rules.get(operand), self.jvps.get(operand), self.vjp, self.jvp]
        names = {needed for rule in rules if rule is not None for needed in rule.names}
        bits = SAVES_RESULT if "y" in names else 0
        if self.variadic:
            return bits | (SAVES_ALL if self.operands[0] in names else 0)
        if self.kind == "linear" and not self.joint:
            names |= set(self.operands) - {
                operand
            }  # its forward derivative applies the op to the tangent and the others
        for place, other in enumerate(self.operands):
            if other in names or (f"{other}_shape" in names and other != operand):
                bits |= 1 << place
        return bits

    def _resolve(self, node: Any, special: dict[str, Any]) -> Callable[[str], Any]:
        """Return the look-up of a rule's names at a recorded node."""

        def value(name: str) -> Any:
            if name in special:
                return special[name]
            if name == "y":
                return node.result() if node.n_out == 1 else tuple(node.result(j) for j in range(node.n_out))
            if name == "y_shape":
                return node.result_shape()
            if name in self.params:
                return node.params.get(name, self.params[name])
            if name in self.adds:
                return node.params[name]
            if name.endswith("_shape") and name[:-6] in self.operands:
                operand = name[:-6]
                if self.variadic:
                    known = node.params.get("shapes")
                    return known if known is not None else tuple(node.operand_shape(k) for k in range(node.n_in))
                return node.operand_shape(self.operands.index(operand))
            if self.variadic:
                return tuple(node.operand(k) for k in range(node.n_in))
            return node.operand(self.operands.index(name))

        return value

    # -- what the heart calls ----------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        """Sort a call's arguments into operands and parameters."""
        if kwargs:
            kwargs = {_ALIASES.get(key, key) if key not in self.params else key: v for key, v in kwargs.items()}
        if self.variadic:
            if len(args) >= 1 and isinstance(args[0], list | tuple):
                operands, args = tuple(args[0]), args[1:]
            else:
                operands, args = args, ()
            if not operands:
                raise MinigradError(f"{self.text_signature} takes at least one operand")
            names = list(self.params)
            if len(args) > len(names):
                raise TypeError(f"{self.name}(): too many arguments; its signature is {self.text_signature}")
            given = dict(zip(names, args, strict=False))
            for key, v in kwargs.items():
                if key not in self.params or key in given:
                    raise TypeError(f"{self.name}(): argument {key!r} is unknown or given twice: {self.text_signature}")
                given[key] = v
            params: dict[str, Any] = {**self.params, **given}
        else:
            names = [*self.operands, *self.params]
            bound = dict(zip(names, args, strict=False))
            strange = [key for key in kwargs if key in bound or key not in names]
            bound.update(kwargs)
            missing = [operand for operand in self.operands if operand not in bound]
            if len(args) > len(names) or strange or missing:
                wrong = "too many arguments" if len(args) > len(names) else ""
                wrong = wrong or (
                    f"argument {strange[0]!r} is unknown or given twice" if strange else f"{missing[0]!r} is missing"
                )
                raise TypeError(f"{self.name}(): {wrong}; its signature is {self.text_signature}")
            operands = tuple(bound[operand] for operand in self.operands)
            params = {name: bound.get(name, default) for name, default in self.params.items()}
        for name, value in params.items():
            if value is REQUIRED:
                raise TypeError(f"{self.name}(): {name!r} is missing; its signature is {self.text_signature}")
        if self.prepare is not None:
            params = self.prepare(operands, **params)
        return operands, (params or None)

    def coerce(self, operands: list[Any]) -> list[Any]:
        """Turn operands into arrays of one lane and one dtype, by the dtype rules of the page.

        Raises:
            DeviceError: arrays of two devices. DTypeError: two floating dtypes, or an element type of no use.
        """
        datas = [data_of(operand) for operand in operands]
        lane = None
        for data in datas:
            found = lane_of(data)
            if found is not None:
                if lane is None:
                    lane = found
                elif lane is not found:
                    raise DeviceError(
                        f"{self.name}: operands on {lane.device} and on {found.device}; "
                        f'move one of them with .to("{found.device}") or .to("{lane.device}")'
                    )
        if lane is None:
            lane = next(iter(LANES.values()))
        weak = [lane_of(data) is None and lane.is_scalar(data) for data in datas]
        arrays = [
            data if scalar or lane_of(data) is not None else lane.asarray(data)
            for data, scalar in zip(datas, weak, strict=True)
        ]
        plain = [place for place in range(len(arrays)) if not self._is_index(place)]
        kinds = [lane.kind(arrays[place]) if not weak[place] else lane.scalar_kind(arrays[place]) for place in plain]
        for place, kind in zip(plain, kinds, strict=True):
            if kind not in "fib":
                raise DTypeError(
                    f"{self.name}: operand '{self.operand_name(place)}' has elements of type {arrays[place].dtype}; "
                    "floating, integer and boolean arrays are supported"
                )
        floating = [arrays[p].dtype for p, kind in zip(plain, kinds, strict=True) if kind == "f" and not weak[p]]
        if floating:
            target = floating[0]
            for p, kind in zip(plain, kinds, strict=True):
                if kind == "f" and not weak[p] and arrays[p].dtype != target:
                    raise DTypeError(
                        f"{self.name}: operands of {target} and of {arrays[p].dtype}; "
                        f'convert one of them with .to("{target}"): minigrad never changes a dtype silently'
                    )
        elif self.floats or "f" in kinds:
            target = lane.default_dtype()
        else:
            target = lane.common_dtype([arrays[p] for p in plain])
        return [
            lane.asarray(array) if self._is_index(place) else lane.cast(array, target)
            for place, array in enumerate(arrays)
        ]

    def _is_index(self, place: int) -> bool:
        return bool(self.indices) and self.operand_name(place) in self.indices

    def forward(self, arrays: list[Any], params: dict[str, Any] | None) -> Any:
        """Compute the value on the array lane."""
        lane = lane_of(arrays[0]) if arrays else next(iter(LANES.values()))
        kernel = lane.kernels.get(self.name)
        if kernel is not None:
            out = kernel.forward(arrays, params)
            if out is not None:
                return out
        if self.value_expr is not None:
            # A NumPy scalar among the parameters would lend its dtype to the result.
            numbers = {name: v.item() if hasattr(v, "item") else v for name, v in (params or {}).items()}
            out = self._value(lane.functions, *arrays, **numbers)
        else:
            out = self.value(lane.xp, *arrays, **(params or {}))  # type: ignore[operator]
        if isinstance(out, tuple):
            return tuple(lane.asarray(part) for part in out)
        return out if lane_of(out) is not None else lane.asarray(out)

    def contributions(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any]:
        """Return each wanted operand's contribution, as tensors: recorded if the sweep is."""
        if not is_recording():
            fused = self._fused_contributions(node, gs, wanted)
            if fused is not None:
                return fused
        g: Any = gs[0] if node.n_out == 1 else tuple(gs)
        if self.vjp is not None:
            values = self._resolve(node, {"g": g, "gs": tuple(gs), "wanted": wanted})
            return list(self.vjp(values))
        out: list[Any] = []
        for k, yes in enumerate(wanted):
            rule = self.rules.get(self.operand_name(k)) if yes else None
            if rule is None:
                out.append(None)
                continue
            values = self._resolve(node, {"g": g, "k": k})
            if self.kind != "elementwise":
                part = rule(values)
            else:
                part = g if rule.source == "1" else g * rule(values, _Partials(g))
                if tuple(part.shape) != node.operand_shape(k):
                    part = PAGE.sum_to(part, node.operand_shape(k))
            out.append(part)
        return out

    def _fused_contributions(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any] | None:
        """Return what the lane's own kernel of this record computes in a plain sweep; None where it has none."""
        arrays = [None if g is None else data_of(g) for g in gs]
        lane = lane_of(next(g for g in arrays if g is not None))
        kernel = lane.kernels.get(self.name)
        parts = None if kernel is None else kernel.backward(node, arrays, wanted)
        return None if parts is None else [None if part is None else tensor(part) for part in parts]

    def tangents(self, node: Any, arriving: list[Any]) -> list[Any]:
        """Return the results' tangents for the operands' tangents (None where an operand does not move)."""
        if self.jvp is not None:
            moved = self.jvp(self._resolve(node, {"ts": tuple(arriving)}))
            return list(moved) if node.n_out > 1 else [moved]
        if self.joint:
            some = data_of(next(t for t in arriving if t is not None))
            filled = [
                tensor(lane_of(some).zeros(shape, some.dtype)) if t is None else t
                for t, shape in zip(arriving, node.params["shapes"], strict=True)
            ]
            return [self(filled, **self._given(node))]
        total = None
        for k, t in enumerate(arriving):
            if t is None:
                continue
            part = self._one_tangent(node, k, t)
            total = part if total is None else total + part
        return [total]

    def _given(self, node: Any) -> dict[str, Any]:
        """Return the parameters that a recorded node was called with, without what `prepare` added."""
        return {name: value for name, value in node.params.items() if name in self.params}

    def _one_tangent(self, node: Any, k: int, t: Any) -> Any:
        operand = self.operand_name(k)
        if self.kind == "linear":
            moved = [t if j == k else node.operand(j) for j in range(node.n_in)]
            return self(*moved, **self._given(node))
        if self.kind == "elementwise":
            rule = self.rules[operand]
            part = t if rule.source == "1" else t * rule(self._resolve(node, {}), _Partials(t))
            shape = node.result_shape()
            return part if tuple(part.shape) == shape else PAGE.broadcast_to(part, shape)
        if operand not in self.jvps:
            raise MinigradError(f"{self.name} has no forward-mode rule for '{operand}'")
        return self.jvps[operand](self._resolve(node, {"t": t, "k": k}))

    def fail(self, error: Exception, operands: list[Any], params: dict[str, Any] | None, scope: str) -> None:
        """Raise `error` again with the operation, the operands' shapes and the scope in its message."""
        if getattr(error, "_minigrad_told", False) or isinstance(error, MissingExtraError):
            return  # what is not installed is missed everywhere: the place adds nothing
        named = [
            (self.operand_word(k, params or {}), tuple(x.shape)) for k, x in enumerate(operands) if hasattr(x, "shape")
        ]
        kind: type[MinigradError]
        if isinstance(error, MinigradError):
            kind = type(error)
        elif isinstance(error, IndexError):
            kind = IndexError_
        elif isinstance(error, ValueError | TypeError | OverflowError):
            shapes = any(
                word in str(error) for word in ("shape", "broadcast", "axis", "axes", "dimension", "size", "empty")
            )
            kind = ShapeError if shapes else UsageError if isinstance(error, ValueError) else DTypeError
        else:
            return
        reason = str(error)
        if reason.startswith(f"{self.name}: "):
            reason = reason[len(self.name) + 2 :]
        told = kind(where(self.name, scope or None, named, reason))
        told._minigrad_told = True  # type: ignore[attr-defined]
        raise told from None if isinstance(error, MinigradError) else error

    # -- what people read --------------------------------------------------------------------------

    def operand_name(self, k: int) -> str:
        """Return the name of operand k; ``xs[3]`` for variadic ones in text, ``xs`` for rules."""
        return self.operands[0] if self.variadic else self.operands[k]

    def operand_word(self, k: int, params: dict[str, Any]) -> str:
        """Return what people read of operand k of a call with these parameters."""
        return self.operand_name(k)

    def _rule(self, k: int) -> Rule | None:
        return self.rules.get(self.operand_name(k))

    def rule_text(self, k: int) -> str | None:
        """Return the derivative for operand k as text; None where there is none."""
        rule = self._rule(k)
        return None if rule is None else rule.text

    def rule_latex(self, k: int) -> str | None:
        """Return the derivative for operand k as LaTeX; None where there is none."""
        rule = self._rule(k)
        return None if rule is None else rule.latex

    @cached_property
    def value_said(self) -> formula.Expr:
        """The formula that people read: the value itself, what the record says of its callable, or the call."""
        if self.value_expr is not None:
            return self.value_expr
        return formula.parse(self._value_says or f"{self.name}({', '.join(self.operands)})")

    @cached_property
    def value_text(self) -> str:
        """The value as text."""
        return formula.to_text(self.value_said)

    @cached_property
    def value_latex(self) -> str:
        """The value as LaTeX."""
        return formula.to_latex(self.value_said)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.text_signature}>"

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return record, (self.name,)


class IndexError_(MinigradError, IndexError):  # noqa: N801, N818  the next line gives it the name that users meet
    """An index outside of its array."""


IndexError_.__name__ = IndexError_.__qualname__ = "IndexError"


def record(name: str) -> Op:
    """Return the record of that name."""
    return PAGE.records[name]


def _split_rules(kwargs: dict[str, Any], *prefixes: str) -> list[dict[str, Any]]:
    found = []
    for prefix in prefixes:
        rules = {key[len(prefix) :]: kwargs.pop(key) for key in list(kwargs) if key.startswith(prefix)}
        found.append(rules)
    return found


def elementwise(signature: str, *, value: str, doc: str, **kwargs: Any) -> Op:
    """Enter an element-wise operation: `value` and each ``d_<operand>`` are formulas of scalar functions.

    >>> elementwise("tanh(x)", value="tanh(x)", d_x="(1 - y) * (1 + y)", doc="…")       # doctest: +SKIP
    """
    (rules,) = _split_rules(kwargs, "d_")
    return Op(signature, "elementwise", value, rules, {}, doc=doc, **kwargs)


def linear(signature: str, *, value: Callable[..., Any], doc: str, **kwargs: Any) -> Op:
    """Enter an operation that is linear in each operand (in all together with ``joint=True``): give the transposes."""
    (rules,) = _split_rules(kwargs, "transpose_")
    return Op(signature, "linear", value, rules, {}, doc=doc, **kwargs)


def general(signature: str, *, value: Callable[..., Any], doc: str, **kwargs: Any) -> Op:
    """Enter any other operation: give ``vjp_<operand>`` and ``jvp_<operand>``, or ``vjp`` and ``jvp`` for all."""
    vjps, jvps = _split_rules(kwargs, "vjp_", "jvp_")
    return Op(signature, "general", value, vjps, jvps, doc=doc, **kwargs)


class Update:
    """One record of a change in place: formulas over the elements of several arrays, worked out one after the other.

    A formula may name the arrays, the parameters and the results of the formulas before it. A result with the name of
    an array takes the array's place at once; the others are forgotten at the end.

    Attributes:
        name, arrays, params: the signature, parsed; no parameter has a default.
        formulas: name of the result -> its formula, in order.
        doc: what it does, in a line.
    """

    def __init__(self, signature: str, formulas: dict[str, str], doc: str) -> None:
        self.name, self.arrays, _, params = _parse_signature(signature)
        self.text_signature, self.params, self.doc = signature, tuple(params), doc
        self.sources = formulas
        if self.name in PAGE.updates:
            raise FormulaError(f"two updates named {self.name!r}")
        PAGE.updates[self.name] = self

    @cached_property
    def formulas(self) -> dict[str, formula.Expr]:
        """The formulas, parsed.

        Raises:
            FormulaError: a name that stands for nothing yet.
        """
        known, found = {*self.arrays, *self.params}, {}
        for result, source in self.sources.items():
            found[result] = formula.parse(source)
            unknown = set(found[result].names) - known
            if unknown:
                raise FormulaError(f"{self.text_signature}: {source!r} names {sorted(unknown)}, which nothing defines")
            known.add(result)
        return found

    @cached_property
    def _steps(self) -> list[tuple[str, tuple[str, ...], Callable[..., Any]]]:
        return [(result, expr.names, expr.compile(expr.names)) for result, expr in self.formulas.items()]

    def __call__(self, arrays: Sequence[Any], numbers: Sequence[float]) -> None:
        """Change arrays of one shape and dtype in place.

        Args:
            arrays, numbers: the arrays and the parameters' values, in the signature's order.
        """
        lane = lane_of(arrays[0])
        kernel = lane.updates.get(self.name)
        if kernel is not None and kernel(arrays, numbers):
            return
        functions = lane.functions
        held = dict(zip(self.arrays, arrays, strict=True))
        values = {**held, **dict(zip(self.params, map(_number, numbers), strict=True))}
        for result, names, compute in self._steps:
            value = compute(functions, *[values[name] for name in names])
            if result in held:
                held[result][...] = value
            else:
                values[result] = value

    def __repr__(self) -> str:
        return f"<update {self.text_signature}>"


def _number(value: Any) -> Any:
    """Return a number as Python's, which lends no dtype; one that lives on a device stays there."""
    return value if lane_of(value) is not None else float(value)


def update(signature: str, *, doc: str, **formulas: str) -> Update:
    """Enter a change in place: formulas over the elements of arrays, in the order in which they are worked out.

    >>> update("sgd(p, g; lr)", p="p - lr * g", doc="…")        # doctest: +SKIP
    """
    return Update(signature, formulas, doc)
