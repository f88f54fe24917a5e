"""Functional derivatives: functions of functions, nested to any order, over arrays, tensors and trees of them.

Every transform runs the function once on fresh leaves, then sweeps the recorded graph backward or pushes tangents
forward along it. Gradients are values of the sweep and never touch ``.grad``; a recorded sweep is part of the outer
graph, which is all that nesting needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _core, ops
from .backend import array_lane
from .errors import DTypeError, GraphError, ShapeError, UsageError
from .function import Function
from .op import PAGE, SAVES_ALL, SAVES_RESULT, Op
from .tensor import Tensor, as_tensor

__all__ = ["Composed", "checkpoint", "grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]

Tree = Any
"""A tensor, an array, a number, or tuples, lists and dicts of them."""


# --- trees ----------------------------------------------------------------------------------------


def flatten(tree: Tree) -> tuple[list[Any], Callable[[Sequence[Any]], Tree]]:
    """Return a tree's leaves and the function that builds the same tree from others.

    Dicts go in order of their keys' text.
    """
    if isinstance(tree, dict):
        keys = sorted(tree, key=str)
        parts = [flatten(tree[key]) for key in keys]
        return _join(parts, lambda built: {key: built[keys.index(key)] for key in tree})
    if isinstance(tree, tuple | list):
        parts = [flatten(item) for item in tree]
        if hasattr(tree, "_fields"):
            return _join(parts, lambda built: type(tree)(*built))
        return _join(parts, lambda built: type(tree)(built))
    if tree is None:
        return [], lambda leaves: None
    return [tree], lambda leaves: leaves[0]


def _join(
    parts: list[tuple[list[Any], Callable[[Sequence[Any]], Tree]]], build: Callable[[list[Any]], Tree]
) -> tuple[list[Any], Callable[[Sequence[Any]], Tree]]:
    sizes = [len(leaves) for leaves, _ in parts]

    def rebuild(leaves: Sequence[Any]) -> Tree:
        built, start = [], 0
        for size, (_, part) in zip(sizes, parts, strict=True):
            built.append(part(leaves[start : start + size]))
            start += size
        return build(built)

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def _plain(leaf: Any) -> bool:
    return not isinstance(leaf, Tensor)


def _float_tensor(x: Any, what: str) -> Tensor:
    t = as_tensor(x)
    if t.dtype.kind != "f":
        if isinstance(x, int) and not isinstance(x, bool):
            return as_tensor(float(x))
        raise DTypeError(f"{what} has elements of type {t.dtype}; derivatives are taken with respect to floats")
    return t


def _fresh(x: Any, what: str) -> Tensor:
    """Return a new place in the graph with x's value: a leaf, or a link to x where x itself may be differentiated."""
    t = _float_tensor(x, what)
    if t.requires_grad:
        with _core.Recording(True):
            return ops.clone(t)
    return _core.tensor(_core.data_of(t), True, t.name)


class _Call:
    """One run of a function on fresh inputs."""

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: int | Sequence[int],
        kwargs: dict[str, Any],
    ):
        if not callable(f):
            raise UsageError(f"{f!r} is not a function")
        self.single = isinstance(argnums, int)
        chosen = [argnums] if isinstance(argnums, int) else list(argnums)
        for place in chosen:
            if not isinstance(place, int):
                raise UsageError(f"argnums is the place of an argument, or places, counted from 0; not {argnums!r}")
            if not -len(args) <= place < len(args):
                raise UsageError(f"argnums names argument {place}, but the function was called with {len(args)}")
        chosen = [place % len(args) for place in chosen]
        leaves, self.rebuild = flatten([args[place] for place in chosen])
        self.given = leaves
        self.inputs = [_fresh(leaf, f"argument {chosen[0] if len(chosen) == 1 else chosen}") for leaf in leaves]
        # Whoever passes arrays gets arrays back; inside another transform everything is a tensor already.
        self.arrays = all(_plain(leaf) for leaf in leaves)
        full = list(args)
        for place, tree in zip(chosen, self.rebuild(self.inputs), strict=True):
            full[place] = tree
        with _core.Recording(True):
            self.output = f(*full, **kwargs)

    def tree(self, leaves: Sequence[Any]) -> Tree:
        built = self.rebuild(leaves)
        return built[0] if self.single else tuple(built)

    def outer(self, outputs: list[Any]) -> bool:
        """Whether somebody outside can differentiate results of this call."""
        return _core.is_recording() and bool(outputs) and _core.reaches_others(outputs, self.inputs)

    def hand_out(self, t: Any) -> Any:
        return t.numpy() if self.arrays and t.device == "cpu" else _core.data_of(t) if self.arrays else t


def _scalar(y: Any, name: str) -> Tensor:
    if not isinstance(y, Tensor):
        raise GraphError(f"{name}: the function returned {type(y).__name__}, not a tensor computed from its arguments")
    if y.size != 1:
        raise ShapeError(f"{name}: the function returned a tensor of shape {tuple(y.shape)}; it has to return a scalar")
    return y


def _sweep(outputs: list[Tensor], cotangents: list[Tensor], call: _Call, keep: bool = False) -> list[Tensor]:
    """Gradients of the call's inputs; zeros where the outputs do not depend on an input."""
    live = [(y, g) for y, g in zip(outputs, cotangents, strict=True) if isinstance(y, Tensor) and y.requires_grad]
    outer = call.outer([y for y, _ in live]) or any(g.requires_grad for _, g in live)
    found: list[Any] = [None] * len(call.inputs)
    if live:
        found = _core.sweep([y for y, _ in live], [g for _, g in live], call.inputs, outer, outer or keep)
    return [_zeros(x) if g is None else g for g, x in zip(found, call.inputs, strict=True)]


def _zeros(x: Tensor) -> Tensor:
    data = _core.data_of(x)
    return _core.tensor(array_lane(data).xp.zeros_like(data))


def _ones(y: Tensor) -> Tensor:
    data = _core.data_of(y)
    return _core.tensor(array_lane(data).xp.ones_like(data))


def _cut(y: Any) -> Any:
    return y.detach() if isinstance(y, Tensor) else y


# --- transforms -----------------------------------------------------------------------------------


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return a function that computes ``(f(x), df/dx)`` for a scalar-valued f.

    Args:
        f: takes tensors (or trees of them) and returns a scalar tensor, or ``(scalar, anything)`` with `has_aux`.
        argnums: which argument, or arguments, to differentiate.

    Returns:
        A function of f's arguments. Arrays in give arrays out, tensors give tensors. With several argnums the gradient
        is a tuple.

    Raises:
        ShapeError: f returned no scalar. GraphError: f returned no tensor.
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = _Call(f, args, argnums, kwargs)
        output, aux = call.output if has_aux else (call.output, None)
        y = _scalar(output, "grad")
        grads = _sweep([y], [_ones(y)], call)
        value = y if call.outer([y]) else _cut(y)
        result = call.hand_out(value), call.tree([call.hand_out(g) for g in grads])
        return ((result[0], aux), result[1]) if has_aux else result

    return wrapped


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes the gradient of a scalar-valued f; nests to any order.

    Arguments as :func:`value_and_grad`.

    >>> import minigrad as mg
    >>> mg.grad(mg.grad(lambda x: x * x * x))(2.0)
    array(12., dtype=float32)
    """
    both = value_and_grad(f, argnums, has_aux)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Return ``(f(*primals), pull)``; ``pull(cotangent)`` gives the vector-Jacobian product for every primal.

    The cotangent has the structure and shapes of f's output; `pull` may be called any number of times.
    """
    call = _Call(f, primals, tuple(range(len(primals))), {})
    outputs, build = flatten(call.output)

    def pull(cotangent: Any) -> tuple[Any, ...]:
        gs, _ = flatten(cotangent)
        if len(gs) != len(outputs):
            raise ShapeError(f"vjp: a cotangent with {len(gs)} parts for an output with {len(outputs)}")
        seeds = [_checked(g, y, "cotangent") for g, y in zip(gs, outputs, strict=True)]
        grads = _sweep(outputs, seeds, call, keep=True)
        return tuple(call.rebuild([call.hand_out(g) for g in grads]))

    values = [y if not isinstance(y, Tensor) else y if call.outer([y]) else _cut(y) for y in outputs]
    return build([call.hand_out(v) if isinstance(v, Tensor) else v for v in values]), pull


def _checked(g: Any, like: Any, what: str) -> Tensor:
    if not isinstance(like, Tensor):
        raise GraphError(f"the function returned {type(like).__name__} where a tensor was expected")
    if isinstance(g, float | int):
        g = np.full(like.shape, g, dtype=like.dtype) if not like.shape else np.asarray(g, dtype=like.dtype)
    t = as_tensor(g)
    if tuple(t.shape) != tuple(like.shape):
        raise ShapeError(f"a {what} of shape {tuple(t.shape)} for a value of shape {tuple(like.shape)}")
    if t.dtype != like.dtype:
        raise DTypeError(f"a {what} of {t.dtype} for a value of {like.dtype}")
    return t


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return ``(f(*primals), J · tangents)``, computed forward along the recorded graph.

    Args:
        primals, tangents: tuples of the same structure and shapes.
    """
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise UsageError("jvp takes tuples: jvp(f, (x,), (t,))")
    call = _Call(f, tuple(primals), tuple(range(len(primals))), {})
    ts, _ = flatten(list(tangents))
    if len(ts) != len(call.inputs):
        raise ShapeError(f"jvp: {len(ts)} tangents for {len(call.inputs)} primals")
    moves = [_checked(t, x, "tangent") for t, x in zip(ts, call.inputs, strict=True)]
    outputs, build = flatten(call.output)
    for y in outputs:
        if not isinstance(y, Tensor):
            raise GraphError(f"jvp: the function returned {type(y).__name__}, not a tensor computed from its arguments")
    live = [y for y in outputs if y.requires_grad]
    outer = call.outer(live) or (_core.is_recording() and any(t.requires_grad for t in moves))
    moved = _core.push(call.inputs, moves, live, outer) if live else []
    by_output = {id(y): t for y, t in zip(live, moved, strict=True)}
    pushed = [by_output.get(id(y)) for y in outputs]
    filled = [_zeros(y) if t is None else t for t, y in zip(pushed, outputs, strict=True)]
    values = [y if outer else _cut(y) for y in outputs]
    return build([call.hand_out(v) for v in values]), build([call.hand_out(t) for t in filled])


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, mode: str = "reverse") -> Callable[..., Any]:
    """Return a function that computes the full Jacobian of f, of shape ``y.shape + x.shape``.

    Args:
        f: returns one tensor.
        argnums: one argument (the result is an array or a tree), or several (a tuple of them).
        mode: "reverse" (one sweep per output element) or "forward" (one push per input element); the numbers are the
            same.
    """
    if mode not in ("reverse", "forward"):
        raise UsageError(f"mode is 'reverse' or 'forward', not {mode!r}")

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = _Call(f, args, argnums, kwargs)
        y = call.output
        if not isinstance(y, Tensor):
            raise GraphError(
                f"jacobian: the function returned {type(y).__name__}, not one tensor computed from its arguments"
            )
        rows = _rows(y, call) if mode == "reverse" else _columns(y, call)
        return call.tree([call.hand_out(j) for j in rows])

    return wrapped


def _basis(x: Any) -> list[Tensor]:
    """Return the unit vectors of a tensor's space."""
    data = _core.data_of(x)
    lane = array_lane(data)
    eye = lane.xp.reshape(lane.xp.eye(x.size, dtype=data.dtype), (x.size, *x.shape))
    return [_core.tensor(eye[k, ...]) for k in range(x.size)]


def _rows(y: Any, call: _Call) -> list[Tensor]:
    rows = [_sweep([y], [e], call, keep=True) for e in _basis(y)]
    if not rows:
        return [ops.reshape(_zeros(x), (*y.shape, *x.shape)) for x in call.inputs]
    return [ops.reshape(ops.stack([row[k] for row in rows]), (*y.shape, *x.shape)) for k, x in enumerate(call.inputs)]


def _columns(y: Any, call: _Call) -> list[Tensor]:
    outer = call.outer([y]) if y.requires_grad else False
    out = []
    for k, x in enumerate(call.inputs):
        columns = []
        for e in _basis(x):
            moved = _core.push([call.inputs[k]], [e], [y], outer)[0] if y.requires_grad else None
            columns.append(_zeros(y) if moved is None else moved)
        stacked = ops.stack(columns, axis=len(y.shape)) if columns else _zeros(x)
        out.append(ops.reshape(stacked, (*y.shape, *x.shape)))
    return out


def hessian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """Return a function that computes the Hessian of a scalar-valued f, of shape ``x.shape + x.shape``.

    Args:
        f: takes tensors and returns a scalar tensor.
        argnums: which argument to differentiate, one array.
    """
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Return the Hessian of a scalar-valued f times `tangents`, forward over reverse, without building the Hessian.

    Args:
        primals, tangents: tuples of the same structure and shapes. One primal gives one result, several a tuple.
    """
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise UsageError("hvp takes tuples: hvp(f, (x,), (t,))")
    several = len(primals) > 1
    return jvp(grad(f, tuple(range(len(primals))) if several else 0), primals, tangents)[1]


# --- recomputation --------------------------------------------------------------------------------


class _Again:
    """A second run of a function, recorded, to be differentiated in place of a first run that was not.

    Args:
        run: takes the list of operands and returns a list of tensors.
        operands: tensors, or None.
        wanted: which operands a derivative is asked for.
        others: leaves that the function closes over.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Any]],
        operands: Sequence[Any],
        wanted: Sequence[bool],
        others: Sequence[Any] = (),
    ) -> None:
        self.recorded = _core.is_recording()
        inputs = [self._place(x) if yes else x for x, yes in zip(operands, wanted, strict=True)]
        with _core.Recording(True):
            self.outputs = list(run(inputs))
        self.places = [*[x if yes else None for x, yes in zip(inputs, wanted, strict=True)], *others]

    def _place(self, x: Any) -> Any:
        if x.dtype.kind != "f":
            return x
        return _fresh(x, "an operand") if self.recorded else _core.tensor(_core.data_of(x), True, x.name)

    def pull(self, gs: Sequence[Any]) -> list[Any]:
        """Return the gradients of operands and of others; None where none is asked for, or none flows."""
        live = [(y, g) for y, g in zip(self.outputs, gs, strict=True) if g is not None and y.requires_grad]
        asked = [x for x in self.places if x is not None]
        if not live:
            return [None] * len(self.places)
        # What the function closes over may hang on nodes outside of the run, which are not ours to free.
        found = iter(_core.sweep([y for y, _ in live], [g for _, g in live], asked, self.recorded, True))
        return [None if x is None else next(found) for x in self.places]

    def push(self, ts: Sequence[Any]) -> list[Any]:
        """Return the outputs' tangents for tangents of operands and of others, None where one does not move."""
        moving = [(x, t) for x, t in zip(self.places, ts, strict=True) if x is not None and t is not None]
        return _core.push([x for x, _ in moving], [t for _, t in moving], self.outputs, self.recorded)


class _Checkpoint(Function):
    """One node for a whole function: forward keeps its inputs alone; backward runs it again and sweeps that run."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], outputs: list[Any], n_leaves: int, *operands: Any) -> Any:
        ctx.run, ctx.n_leaves = run, n_leaves
        ctx.save_for_backward(*operands)
        return tuple(_cut(y) for y in outputs)

    @staticmethod
    def again(ctx: Any) -> _Again:
        saved, n = ctx.saved_tensors, ctx.n_leaves
        return _Again(ctx.run, saved[:n], [True] * n, saved[n:])

    @staticmethod
    def backward(ctx: Any, *gs: Any) -> Any:
        return (None, None, None, *_Checkpoint.again(ctx).pull(gs))

    @staticmethod
    def jvp(ctx: Any, *ts: Any) -> Any:
        return tuple(_Checkpoint.again(ctx).push(ts[3:]))


def checkpoint(f: Callable[..., Any], *args: Any) -> Any:
    """Run ``f(*args)`` and keep only its inputs: backward runs it again. Memory for time, the same numbers.

    `args` and the result may be trees. Tensors that f closes over (a module's parameters) get their gradients as well.
    Random numbers drawn inside f would differ in the second run: draw them outside.

    Raises:
        UsageError: f is no function. GraphError: it returned something that is no tensor.
    """
    if not callable(f):
        raise UsageError(f"{f!r} is not a function")
    leaves, rebuild = flatten(list(args))
    tensors = [k for k, x in enumerate(leaves) if isinstance(x, Tensor)]
    if not _core.is_recording():
        return f(*args)

    def run(inputs: Sequence[Any]) -> list[Any]:
        full = list(leaves)
        for place, x in zip(tensors, inputs, strict=True):
            full[place] = x
        outputs, shape[0] = flatten(f(*rebuild(full)))
        for y in outputs:
            if not isinstance(y, Tensor):
                raise GraphError(f"checkpoint: the function returned {type(y).__name__} where a tensor was expected")
        return outputs

    shape: list[Any] = [None]
    inputs = [_core.tensor(_core.data_of(leaves[k]), leaves[k].requires_grad) for k in tensors]
    outputs = run(inputs)
    if not any(y.requires_grad for y in outputs):
        return shape[0](outputs)
    closed = [
        _core.result_of(node, 0, None) for node in _core.other_leaves(outputs, [x for x in inputs if x.requires_grad])
    ]
    leaves = [None if k in tensors else x for k, x in enumerate(leaves)]
    return shape[0](
        list(_Checkpoint.apply(run, outputs, len(tensors), *[flatten(list(args))[0][k] for k in tensors], *closed))
    )


# --- compositions that run as one operation -------------------------------------------------------


class Composed(Op):
    """An operation that runs a composition of others as one, where a kernel can do that faster than its parts.

    The composition, its twin, is the only place that says what it computes. Without a kernel the value is the twin's,
    not recorded; derivatives that no kernel gives (higher orders, forward mode) are those of a second, recorded run.
    Explanations and pictures open a node: they see the twin's operations in its place.

    Args:
        signature: any number of operands, ``"name(*xs; …)"``.
        twin: ``(*operands, made=None, **parameters) -> tuple`` of tensors, the results. It is given `made` when the
            node is opened: a function that returns the tape node of an operand that was computed inside of another
            opened node, else None.
        words: ``(parameters) -> names`` of the operands.
        shapes, doc: for the reference.

    Raises:
        FormulaError: the name is taken.
    """

    def __init__(
        self,
        signature: str,
        *,
        twin: Callable[..., tuple[Any, ...]],
        words: Callable[[dict[str, Any]], Sequence[str]],
        shapes: str,
        doc: str,
    ) -> None:
        super().__init__(signature, "composed", self._value_of, {}, {}, twin=twin, shapes=shapes, doc=doc)
        self.words = words

    def wire(self) -> None:
        """Tell the heart to keep all operands and results."""
        self._wire([SAVES_ALL | SAVES_RESULT], [True])

    def contributions(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any]:
        """Return each wanted operand's contribution: the lane's kernel's, or those of a second run of the twin."""
        found = None if _core.is_recording() else self._fused_contributions(node, gs, wanted)
        return self._again(node, wanted).pull(gs) if found is None else found

    def tangents(self, node: Any, arriving: list[Any]) -> list[Any]:
        """Return the results' tangents, by a second run of the twin."""
        return self._again(node, [t is not None for t in arriving]).push(arriving)

    def fail(self, error: Exception, operands: list[Any], params: dict[str, Any] | None, scope: str) -> None:
        """Raise `error` again, told from the whole operation: the twin's operations are not the caller's."""
        if getattr(error, "_minigrad_told", False):
            error._minigrad_told = False  # type: ignore[attr-defined]
        super().fail(error, operands, params, scope)

    def has_kernel(self, array: Any) -> bool:
        """Say whether operands like an array meet a kernel, and not the twin."""
        if type(array) is np.ndarray:
            return self.compiled is not None and array.dtype.char in "fd"
        return self.name in array_lane(array).kernels

    def open(self, operands: list[Any], params: dict[str, Any], made: Callable[[Any], Any]) -> tuple[Any, ...]:
        """Return the twin's results, every operation recorded; `made` tells how a tensor of the same graph was made."""
        return self._run(operands, {**params, "made": made})

    def operand_word(self, k: int, params: dict[str, Any]) -> str:
        """Return the name of operand k of a call with these parameters."""
        names = self.words({**self.params, **params})
        return names[k] if k < len(names) else self.operand_name(k)

    def _value_of(self, xp: Any, *arrays: Any, **params: Any) -> tuple[Any, ...]:
        """Compute the value by the twin, unrecorded and unseen."""
        with _core.Recording(False, False):
            return tuple(_core.data_of(y) for y in self._run([_core.tensor(array) for array in arrays], params))

    def _again(self, node: Any, wanted: Sequence[bool]) -> _Again:
        operands = [node.operand(k) for k in range(node.n_in)]
        return _Again(lambda xs: self._run(xs, node.params), operands, wanted)

    def _run(self, operands: Sequence[Any], params: dict[str, Any] | None) -> tuple[Any, ...]:
        assert self.twin is not None
        found: tuple[Any, ...] = self.twin(*operands, **(params or {}))
        return found

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return _composed, (self.twin.__module__, self.name)


def _composed(module: str, name: str) -> Op:
    importlib.import_module(module)
    return PAGE.composed[name]
