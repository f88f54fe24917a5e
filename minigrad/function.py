"""Operations written by users in plain Python, in PyTorch's shape: a forward and a backward staticmethod."""

from __future__ import annotations

from typing import Any

from . import _core
from ._core import OpBase, TensorBase
from .errors import DTypeError, GraphError, MinigradError, ShapeError, where
from .op import lane_of
from .tensor import Tensor

__all__ = ["Context", "Function"]


class Context:
    """What `forward` hands to `backward`: saved tensors, which inputs need a gradient, and any attribute set on it."""

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] = ()
        self._stamp = 0
        self._node: Any = None
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward.

        Inputs and outputs stay connected to the graph; anything else is a constant to second order.
        """
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The saved tensors, connected to the graph so that a recorded backward can be differentiated.

        Raises:
            GraphError: one of them was changed in place since forward.
        """
        for place, t in enumerate(self._saved):
            array = t.array if isinstance(t, _Result) else _core.data_of(t)
            if array is not None and _core.changed_since(array, self._stamp):
                raise GraphError(
                    f"saved tensor {place} of shape {tuple(array.shape)} was changed in place after forward, so the "
                    "gradient would be wrong; change a copy, or change it after backward()"
                )
        return tuple(t.restore(self._node) if isinstance(t, _Result) else t for t in self._saved)


class _Result:
    """A saved output: its place, but not the node, which owns the context (the two would keep each other alive)."""

    def __init__(self, array: Any, out: int) -> None:
        self.array, self.out = array, out

    def restore(self, node: Any) -> Tensor:
        return _core.tensor(self.array) if node is None else _core.result_of(node, self.out, self.array)


class _Call:
    """One application of a Function: its context, the places of tensors among its arguments, its outputs' shapes."""

    def __init__(self, ctx: Context, args: tuple[Any, ...], places: list[int]) -> None:
        self.ctx, self.args, self.places, self.n_args = ctx, args, places, len(args)
        self.inputs: list[Any] = []
        self.outputs: tuple[Any, ...] = ()
        self.shapes: list[tuple[tuple[int, ...], Any]] = []

    def spread(self, tensors: list[Any]) -> list[Any]:
        self.inputs = list(self.args)
        for place, t in zip(self.places, tensors, strict=True):
            self.inputs[place] = t
        return self.inputs

    def settle(self) -> None:
        """Turn what forward saved into the caller's tensors and this node's results, and let go of the rest."""
        self.ctx._saved = tuple(self._connected(t) for t in self.ctx._saved)
        self.ctx._stamp = _core.now()
        self.args, self.inputs, self.outputs = (), [], ()

    def _connected(self, t: Any) -> Any:
        for j, own in enumerate(self.outputs):
            if t is own:
                return _Result(_core.data_of(t), j)
        for k, own in enumerate(self.inputs):
            if t is own and isinstance(t, TensorBase):
                return self.args[k]
        return t


class FunctionOp(OpBase):
    """The record of a user's Function: its rules are the Function's methods."""

    kind = "function"

    def __init__(self, function: type[Function]) -> None:
        self.function = function
        # Any number of operands; nothing is saved but what the context keeps.
        self._face(function.__name__.lstrip("_"), -1, False, True)  # our own _Checkpoint is a checkpoint to readers
        self._wire([0], [True])

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    def coerce(self, operands: list[Any]) -> list[Any]:
        return [_core.data_of(x) for x in operands]

    def forward(self, arrays: list[Any], params: dict[str, Any]) -> Any:
        call = params["call"]
        with _core.Recording(False):
            out = self.function.forward(call.ctx, *call.spread([_core.tensor(array) for array in arrays]))
        outputs = out if isinstance(out, tuple) else (out,)
        for y in outputs:
            if not isinstance(y, TensorBase):
                raise MinigradError(f"{self.name}.forward returned {type(y).__name__}; it has to return tensors")
        call.outputs = outputs
        # A result that is an operand's own memory would be two tensors in one place.
        datas = tuple(_core.data_of(y) for y in outputs)
        datas = tuple(d.copy() if any(d is a for a in arrays) else d for d in datas)
        call.shapes = [(tuple(d.shape), d.dtype) for d in datas]
        return datas if isinstance(out, tuple) else datas[0]

    def contributions(self, node: Any, gs: list[Any], wanted: list[bool]) -> list[Any]:
        call = node.params["call"]
        seen = next(g for g in gs if g is not None)
        lane = lane_of(_core.data_of(seen))
        gs = [
            _core.tensor(lane.zeros(shape, dtype)) if g is None else g
            for g, (shape, dtype) in zip(gs, call.shapes, strict=True)
        ]
        call.ctx._node = node
        try:
            given = self.function.backward(call.ctx, *gs)
        finally:
            call.ctx._node = None
        given = given if isinstance(given, tuple) else (given,)
        if len(given) != call.n_args:
            raise MinigradError(
                f"{self.name}.backward returned {len(given)} gradients for {call.n_args} arguments of forward"
            )
        out = []
        for k, place in enumerate(call.places):
            g = self._checked(given[place], place, seen.dtype, node.operand_shape(k)) if wanted[k] else None
            out.append(g)
        return out

    def _checked(self, g: Any, place: int, dtype: Any, shape: tuple[int, ...]) -> Any:
        """Return a gradient that backward gave for an argument, if it can be one."""
        said = f"{self.name}.backward returned"
        if g is None:
            return None
        if not isinstance(g, TensorBase):
            raise MinigradError(f"{said} {type(g).__name__} for argument {place}; it returns tensors or None")
        array = _core.data_of(g)
        if array.dtype != dtype:
            raise DTypeError(f"{said} {array.dtype} for argument {place}, from {dtype}")
        if tuple(array.shape) != shape:
            raise ShapeError(f"{said} a gradient of shape {tuple(array.shape)} for argument {place} of shape {shape}")
        return g

    def tangents(self, node: Any, arriving: list[Any]) -> list[Any]:
        jvp = getattr(self.function, "jvp", None)
        if jvp is None:
            raise MinigradError(f"{self.name} has no forward-mode rule: give it a staticmethod jvp(ctx, *tangents)")
        call = node.params["call"]
        ts: list[Any] = [None] * call.n_args
        for place, t in zip(call.places, arriving, strict=True):
            ts[place] = t
        call.ctx._node = node
        try:
            moved = jvp(call.ctx, *ts)
        finally:
            call.ctx._node = None
        return list(moved) if isinstance(moved, tuple) else [moved]

    def fail(self, error: Exception, operands: list[Any], params: dict[str, Any] | None, scope: str) -> None:
        """Leave the user's own exception as it is."""

    def operand_name(self, k: int) -> str:
        return f"x{k}"

    def operand_word(self, k: int, params: dict[str, Any]) -> str:
        return self.operand_name(k)

    def rule_text(self, k: int) -> str | None:
        return f"{self.name}.backward"

    def rule_latex(self, k: int) -> str | None:
        return rf"\operatorname{{{self.name}.backward}}"

    @property
    def value_text(self) -> str:
        return f"{self.name}(…)"

    @property
    def value_latex(self) -> str:
        return rf"\operatorname{{{self.name}}}(\dots)"

    def __repr__(self) -> str:
        return f"<function {self.name}>"


class Function:
    """Base of operations with a derivative of your own.

    Subclass it with staticmethods ``forward(ctx, *args)`` and ``backward(ctx, *grads)``, and call ``apply``. `backward`
    returns one gradient per argument of `forward` (None for arguments that are no tensors or need none). An optional
    ``jvp(ctx, *tangents)`` serves forward mode. Written with operations of the page, `backward` can be differentiated
    again.

    >>> import minigrad as mg
    >>> class Cube(mg.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x * x
    >>> x = mg.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    _op: FunctionOp

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._op = FunctionOp(cls)

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        """Compute the result; overridden by each Function."""
        raise NotImplementedError(where("Function", None, (), "define a staticmethod forward(ctx, *args)"))

    @staticmethod
    def backward(ctx: Context, *grads: Any) -> Any:
        """Compute the gradients of forward's arguments; overridden by each Function."""
        raise NotImplementedError(where("Function", None, (), "define a staticmethod backward(ctx, *grads)"))

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run the function on tensors and other arguments, recorded as one node."""
        places = [k for k, x in enumerate(args) if isinstance(x, TensorBase)]
        if not places:
            raise MinigradError(f"{cls.__name__}.apply needs at least one tensor; wrap arrays with mg.tensor")
        ctx = Context()
        ctx.needs_input_grad = tuple(isinstance(x, TensorBase) and x.requires_grad for x in args)

        call = _Call(ctx, args, places)
        out = cls._op(*[args[k] for k in places], call=call)
        call.settle()
        return out
