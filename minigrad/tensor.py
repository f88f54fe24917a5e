"""What users hold: Tensor, with methods and NumPy's protocols over the operations of the page."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import _core, _cpu, ops
from ._core import Recording, TensorBase
from .backend import (
    DEVICES,
    NUMPY,
    array_lane,
    as_dtype,
    as_index,
    device_name,
    get_default_dtype,
    host,
    is_array,
    lane_for_device,
    move,
    seed_lanes,
)
from .errors import DeviceError, DTypeError, GraphError, MinigradError, ShapeError, UsageError
from .op import PAGE, Op, lane_of

__all__ = [
    "Tensor",
    "as_tensor",
    "enable_grad",
    "from_dlpack",
    "from_numpy",
    "full",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "set_grad_enabled",
    "tensor",
    "zeros",
    "zeros_like",
]


class Tensor(TensorBase):
    """An array that remembers how it was computed.

    Make one with :func:`tensor`; operations return others. ``grad`` holds the gradient after :meth:`backward`.
    """

    __slots__ = ()
    __array_priority__ = 1000

    # Operations of the page that are methods as well: `_connect` makes one of every name that is annotated here.
    abs: Callable[..., Tensor]
    argmax: Callable[..., Tensor]
    argmin: Callable[..., Tensor]
    chunk: Callable[..., tuple[Tensor, ...]]
    clip: Callable[..., Tensor]
    cos: Callable[..., Tensor]
    cumsum: Callable[..., Tensor]
    erf: Callable[..., Tensor]
    exp: Callable[..., Tensor]
    expm1: Callable[..., Tensor]
    flip: Callable[..., Tensor]
    isfinite: Callable[..., Tensor]
    isnan: Callable[..., Tensor]
    log: Callable[..., Tensor]
    log1p: Callable[..., Tensor]
    log_softmax: Callable[..., Tensor]
    logsumexp: Callable[..., Tensor]
    matmul: Callable[..., Tensor]
    max: Callable[..., Tensor]
    mean: Callable[..., Tensor]
    min: Callable[..., Tensor]
    neg: Callable[..., Tensor]
    norm: Callable[..., Tensor]
    pow: Callable[..., Tensor]
    prod: Callable[..., Tensor]
    reciprocal: Callable[..., Tensor]
    relu: Callable[..., Tensor]
    rsqrt: Callable[..., Tensor]
    sigmoid: Callable[..., Tensor]
    sign: Callable[..., Tensor]
    silu: Callable[..., Tensor]
    sin: Callable[..., Tensor]
    softmax: Callable[..., Tensor]
    softplus: Callable[..., Tensor]
    split: Callable[..., tuple[Tensor, ...]]
    sqrt: Callable[..., Tensor]
    square: Callable[..., Tensor]
    sum: Callable[..., Tensor]
    swapaxes: Callable[..., Tensor]
    tanh: Callable[..., Tensor]
    unbind: Callable[..., tuple[Tensor, ...]]
    var: Callable[..., Tensor]

    # -- facts -------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient may flow to this tensor; settable on leaves of a floating dtype."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        if on and self._kind() != "f":
            raise DTypeError(f"only floating tensors have gradients; this one is {self.dtype}")
        _core.set_requires_grad(self, on)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(_core.data_of(self).shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """Element type, a ``numpy.dtype``."""
        return _core.data_of(self).dtype

    def _kind(self) -> str:
        """Return "f", "i" or "b"."""
        data = _core.data_of(self)
        return array_lane(data).kind(data)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def numel(self) -> int:
        """Return the number of elements."""
        return self.size

    @property
    def device(self) -> str:
        """Where the array lives: "cpu" or "cuda"."""
        return array_lane(_core.data_of(self)).device

    @property
    def T(self) -> Tensor:
        """The tensor with its axes reversed."""
        return ops.permute(self)

    @property
    def mT(self) -> Tensor:
        """The tensor with its last two axes swapped."""
        return ops.mT(self)

    @property
    def data(self) -> Tensor:
        """The same memory outside the graph; assign to it to give a leaf other values."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        array = _core.data_of(value)
        lane = array_lane(_core.data_of(self))
        array = lane.asarray(_at_home(array, lane))
        if array.dtype != self.dtype:
            raise DTypeError(f"data of dtype {array.dtype} for a tensor of {self.dtype}")
        _core.set_data(self, array)

    @property
    def version(self) -> int:
        """How often the tensor's memory was changed in place."""
        return _core.version(_core.data_of(self))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("a scalar tensor cannot be iterated over")
        return (self[k] for k in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((_core.data_of(self) == _core.data_of(value)).any())

    def __repr__(self) -> str:
        text = np.array2string(host(_core.data_of(self)), separator=", ", prefix="tensor(", threshold=200)
        parts = [text]
        if self.dtype not in (get_default_dtype(), np.dtype("int64"), np.dtype("bool")):
            parts.append(f"dtype={self.dtype}")
        if self.device != "cpu":
            parts.append(f"device={self.device!r}")
        if self.name:
            parts.append(f"name={self.name!r}")
        if self.node is not None:
            parts.append("requires_grad=True" if self.is_leaf else f"op={self.node.op.name}")
        return f"tensor({', '.join(parts)})"

    def __bool__(self) -> bool:
        return bool(self._one())

    def __float__(self) -> float:
        return float(self._one())

    def __int__(self) -> int:
        return int(self._one())

    def __index__(self) -> int:
        if self._kind() != "i":
            raise TypeError(f"a tensor of {self.dtype} is no index")
        return int(self._one())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.size == 1 and spec else str(self)

    def _one(self) -> Any:
        if self.size != 1:
            raise ShapeError(f"a tensor of shape {self.shape} has no single value; use .all() or .any() of its numpy()")
        return host(_core.data_of(self)).reshape(())[()]

    def item(self) -> float | int | bool:
        """Return the value of a tensor with one element as a Python number."""
        value: float | int | bool = self._one().item()
        return value

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers."""
        return host(_core.data_of(self)).tolist()

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values as a NumPy array that shares the tensor's memory.

        The array of a recorded result is read-only, because backward may need it; copy it to change it. That of any
        other tensor can be written to, between two recordings: a graph that saved it before cannot notice, and its
        gradients would be wrong without a word. The tensor's own methods (``copy_``, ``w[0] = …`` inside `no_grad`)
        are noticed. The same holds for arrays that were shared by :func:`from_numpy`.

        Raises:
            DeviceError: the tensor lives on a GPU; copy it with ``.cpu()`` first.
        """
        data = _core.data_of(self)
        if type(data) is not np.ndarray:
            raise DeviceError(f'this tensor lives on {self.device}: copy it with .cpu() (or .to("cpu")) first')
        if self.requires_grad and not self.is_leaf:
            data = data.view()
            data.flags.writeable = False
        return data

    # -- graph -------------------------------------------------------------------------------------

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Switch collection of a gradient on or off for this leaf; returns the tensor."""
        self.requires_grad = on
        return self

    def detach(self) -> Tensor:
        """Return the same values, in the same memory, cut from the graph."""
        return ops.detach(self)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the derivative of this tensor to the ``.grad`` of every leaf that it depends on.

        Args:
            gradient: the cotangent, of this tensor's shape; may be left out for a tensor with one element.
            retain_graph: keep saved values, so that backward can run again (default: as `create_graph`).
            create_graph: record the backward pass itself, for higher derivatives.

        Raises:
            GraphError: no gradient flows to this tensor, it is not a scalar and `gradient` is missing, or the graph was
                freed.
        """
        if not self.requires_grad:
            raise GraphError("backward(): this tensor does not depend on any tensor that requires a gradient")
        seed = _seed(self, gradient)
        _core.sweep([self], [seed], None, create_graph, create_graph if retain_graph is None else retain_graph)

    # -- in place ----------------------------------------------------------------------------------

    def _writable(self) -> Any:
        if self.requires_grad and _core.is_recording():
            raise GraphError(
                "a tensor that requires a gradient cannot be changed in place while operations are recorded: "
                "compute a new tensor, or change it inside `with mg.no_grad():`"
            )
        return _core.data_of(self)

    def _in_place(self, change: Callable[[Any], None]) -> Tensor:
        data = self._writable()
        try:
            change(data)
        except (ValueError, TypeError) as error:
            if isinstance(error, MinigradError):
                raise
            kind = DTypeError if isinstance(error, TypeError) else ShapeError
            raise kind(f"a tensor of shape {self.shape} and {self.dtype} changed in place: {error}") from None
        _core.mark_changed(data)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        lane = array_lane(_core.data_of(self))
        index = as_index(lane, _core.clean_index(index))
        lane.check_index(self.shape, index)

        def change(data: Any) -> None:
            try:
                data[index] = _like(value, data)
            except (IndexError, ValueError) as error:
                raise ShapeError(f"assignment to a tensor of shape {self.shape}: {error}") from None

        self._in_place(change)

    # The operators change a tensor in place where nothing is recorded (``with mg.no_grad(): w -= rate * w.grad``).
    # While operations are recorded they make a new tensor, as gradients need the old one, and refuse leaves that need
    # a gradient.

    def _updated(self, change: Callable[[Any], Tensor], operation: Any, other: Any) -> Tensor:
        if not _core.is_recording():
            return change(other)
        if self.requires_grad and self.is_leaf:
            self._writable()
        result: Tensor = operation(self, other)
        return result

    def __iadd__(self, other: Any) -> Tensor:
        return self._updated(self.add_, ops.add, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._updated(self.sub_, ops.sub, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._updated(self.mul_, ops.mul, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._updated(self.div_, ops.div, other)

    def copy_(self, source: Any) -> Tensor:
        """Overwrite this tensor's values with `source`'s (broadcast)."""
        self[...] = source
        return self

    def fill_(self, value: float) -> Tensor:
        """Overwrite every element with a number."""
        self[...] = value
        return self

    def zero_(self) -> Tensor:
        """Overwrite every element with 0."""
        return self.fill_(0)

    def add_(self, other: Any, alpha: float = 1) -> Tensor:
        """Add ``alpha * other`` in place."""

        def change(data: Any) -> None:
            data += alpha * _like(other, data) if alpha != 1 else _like(other, data)

        return self._in_place(change)

    def sub_(self, other: Any, alpha: float = 1) -> Tensor:
        """Subtract ``alpha * other`` in place."""
        return self.add_(other, -alpha)

    def mul_(self, other: Any) -> Tensor:
        """Multiply in place."""

        def change(data: Any) -> None:
            data *= _like(other, data)

        return self._in_place(change)

    def div_(self, other: Any) -> Tensor:
        """Divide in place."""

        def change(data: Any) -> None:
            data /= _like(other, data)

        return self._in_place(change)

    # -- conversions -------------------------------------------------------------------------------

    def to(self, target: Any) -> Tensor:
        """Convert to a dtype or copy to a device; the same tensor if nothing changes. Gradients flow back.

        Args:
            target: a dtype ("float64", ``np.float32``), a device ("cpu", "cuda"), or a tensor whose dtype and device to
                take.

        Raises:
            DTypeError: a dtype that no tensor has. DeviceError: no such device, or no GPU. MissingExtraError: CuPy is
                not installed.
        """
        if isinstance(target, Tensor):
            return self.to(target.device).to(target.dtype)
        if is_device(target):
            device = device_name(target)
            return self if device == self.device else PAGE.to_device(self, device=device)
        dtype = as_dtype(target)
        return self if dtype == self.dtype else ops.astype(self, dtype=dtype.name)

    def astype(self, dtype: Any) -> Tensor:
        """Convert to a dtype (NumPy's word for :meth:`to`)."""
        return self.to(as_dtype(dtype))

    def float(self) -> Tensor:
        """Convert to float32."""
        return self.to("float32")

    def double(self) -> Tensor:
        """Convert to float64."""
        return self.to("float64")

    def long(self) -> Tensor:
        """Convert to int64."""
        return self.to("int64")

    def cpu(self) -> Tensor:
        """Copy to the CPU's memory if it is not there."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """Copy to the GPU's memory if it is not there."""
        return self.to("cuda")

    def clone(self) -> Tensor:
        """Return a copy that gradients flow through."""
        copy: Tensor = ops.clone(self)
        return copy

    def contiguous(self) -> Tensor:
        """Return the tensor itself: layouts are the engine's business."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise GraphError("only leaf tensors can be copied deeply; detach() the tensor first")
        copy = type(self).__new__(type(self))
        data = _core.data_of(self)
        _core.set_data(copy, array_lane(data).xp.asarray(data, copy=True))
        copy.name = self.name
        copy.requires_grad = self.requires_grad
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_leaf:
            raise GraphError("only leaf tensors can be pickled; detach() the tensor first")
        return _rebuild, (type(self), host(_core.data_of(self)), self.requires_grad, self.name, self.device)

    # -- shapes, spelled as methods ----------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same elements in another shape; one length may be -1."""
        return ops.reshape(self, _spread(shape))

    view = reshape

    def transpose(self, *axes: int) -> Tensor:
        """Swap two axes (PyTorch's meaning with two arguments), or permute all (NumPy's) with none or all."""
        if len(axes) == 2 and self.ndim != 2:
            return ops.transpose(self, *axes)
        return ops.permute(self, _spread(axes) or None) if len(axes) != 2 else ops.transpose(self, *axes)

    def permute(self, *axes: Any) -> Tensor:
        """Reorder the axes."""
        return ops.permute(self, _spread(axes))

    def squeeze(self, axis: Any = None) -> Tensor:
        """Drop axes of length 1."""
        return ops.squeeze(self, axis)

    def unsqueeze(self, axis: int) -> Tensor:
        """Insert an axis of length 1."""
        return ops.expand_dims(self, axis)

    def expand(self, *shape: Any) -> Tensor:
        """Broadcast to a shape; -1 keeps an axis."""
        wanted = _spread(shape)
        own = (1,) * (len(wanted) - self.ndim) + self.shape
        if len(own) != len(wanted):
            raise ShapeError(f"expand: a tensor of shape {self.shape} has more axes than {wanted}")
        return ops.broadcast_to(self, tuple(o if w == -1 else w for w, o in zip(wanted, own, strict=True)))

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Merge axes `start` to `end` into one."""
        return ops.flatten(self, start, end)

    # -- other libraries ---------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad and _core.is_recording():
            raise GraphError(
                "a tensor that requires a gradient becomes an array only by .detach().numpy(): its gradient ends there"
            )
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise GraphError("export .detach(): a gradient cannot follow a tensor into another library")
        return _core.data_of(self).__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return _core.data_of(self).__dlpack_device__()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is not None:
            raise TypeError(f"np.{ufunc.__name__} cannot write a tensor into an array: pass tensor.detach().numpy()")
        if method != "__call__" or kwargs:
            raise TypeError(f"np.{ufunc.__name__} on tensors takes plain calls only (no where=, no .{method})")
        op = NUMPY_OPS.get(ufunc.__name__)
        if op is None:
            raise TypeError(_no_record(f"np.{ufunc.__name__}"))
        return op(*inputs)

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = NUMPY_FUNCTIONS.get(function.__name__)
        if own is None:
            raise TypeError(_no_record(f"np.{function.__name__}"))
        return own(*args, **kwargs)


def _no_record(name: str) -> str:
    import difflib

    word = name.removeprefix("np.")
    known = sorted({*NUMPY_OPS, *NUMPY_FUNCTIONS})
    near = difflib.get_close_matches(word, known, n=1)
    advice = f"use mg.{_page_name(near[0])}" if near else "`minigrad ops` lists the operations that have one"
    return f"{name} has no derivative record in minigrad; {advice}, or .detach().numpy() for values without gradients"


def _page_name(numpy_name: str) -> str:
    op = NUMPY_OPS.get(numpy_name)
    return op.name if op is not None else numpy_name


def _spread(values: tuple[Any, ...]) -> tuple[int, ...]:
    """Accept ``f(2, 3)`` as well as ``f((2, 3))``."""
    if len(values) == 1 and isinstance(values[0], Sequence):
        return tuple(values[0])
    return tuple(values)


def _like(value: Any, data: Any) -> Any:
    """Return a value to be written into an array, in that array's dtype."""
    if value is None:  # NumPy would write NaN
        raise DTypeError(f"None is no value of a tensor of {data.dtype}")
    value = _at_home(_core.data_of(value), array_lane(data))
    if (
        hasattr(value, "dtype")
        and value.dtype != data.dtype
        and value.dtype.kind == data.dtype.kind == "f"
        and value.shape
    ):
        raise DTypeError(f"values of {value.dtype} for a tensor of {data.dtype}: convert them first")
    return value


def _at_home(value: Any, lane: Any) -> Any:
    """Return a value that is no array of another device."""
    owner = lane_of(value)
    if owner is not None and owner is not lane:
        raise DeviceError(
            f'values on {owner.device} for a tensor on {lane.device}: move them with .to("{lane.device}")'
        )
    return value


def is_device(target: Any) -> bool:
    """Say whether a target of ``to`` names a device, and no dtype."""
    return isinstance(target, str) and (target in DEVICES or target.partition(":")[0] in ("cpu", "cuda"))


def _rebuild(kind: type[Tensor], array: Any, requires_grad: bool, name: str | None, device: str = "cpu") -> Tensor:
    t = kind.__new__(kind)
    _core.set_data(t, lane_for_device(device).asarray(array))
    t.name = name
    t.requires_grad = requires_grad
    return t


def _seed(y: Tensor, gradient: Any) -> Tensor:
    """Return the cotangent that a backward pass from `y` starts with."""
    data = _core.data_of(y)
    lane = array_lane(data)
    if gradient is None:
        if y.size != 1:
            raise GraphError(
                f"backward() from a tensor of shape {y.shape}, which is no scalar: reduce it, for example with .sum(), "
                "or pass the gradient of its shape"
            )
        return _core.tensor(lane.xp.ones(y.shape, dtype=data.dtype))
    gradient = as_tensor(gradient)
    if gradient.device != y.device:
        raise DeviceError(f'a gradient on {gradient.device} for a tensor on {y.device}: move it with .to("{y.device}")')
    if gradient.shape != y.shape:
        raise ShapeError(f"a gradient of shape {gradient.shape} for a tensor of shape {y.shape}")
    if gradient.dtype != y.dtype:
        raise DTypeError(f'a gradient of {gradient.dtype} for a tensor of {y.dtype}: convert it with .to("{y.dtype}")')
    return gradient


# --- making tensors -------------------------------------------------------------------------------


def tensor(
    data: Any,
    *,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
    name: str | None = None,
) -> Tensor:
    """Make a tensor from a number, nested lists, an array or a buffer; the values are copied.

    Args:
        data: Python floats get the default dtype, Python integers int64, arrays keep their dtype.
        dtype: the dtype to convert to. With ``requires_grad=True`` Python integers become the default dtype.
        device: "cpu" or "cuda"; default: where `data` lives.
        requires_grad: whether ``backward`` collects a gradient in ``.grad``.
        name: what pictures and errors call it.

    Raises:
        DTypeError: elements that are no numbers, or a gradient for integers.

    >>> import minigrad as mg
    >>> x = mg.tensor([[1.0, 2.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([[2., 4.]])
    """
    array = _copy_in(data, dtype, requires_grad)
    if device is not None:
        array = move(array, lane_for_device(device))
    return _made(array, requires_grad, name)


def _made(array: Any, requires_grad: bool, name: str | None) -> Tensor:
    """Return a new array as a tensor."""
    if requires_grad and array_lane(array).kind(array) != "f":
        raise DTypeError(f'only floating tensors have gradients; this one is {array.dtype}: pass dtype="float32"')
    return _core.tensor(array, requires_grad, name)


def _copy_in(data: Any, dtype: Any, requires_grad: bool) -> Any:
    if isinstance(data, TensorBase):
        data = _core.data_of(data)
    if is_array(data) or isinstance(data, np.generic):
        plain = isinstance(data, np.generic)
        array = np.asarray(data) if plain else data
        lane = array_lane(array)
        wanted = array.dtype if dtype is None else as_dtype(dtype)
        array = lane.xp.asarray(array, dtype=wanted, copy=True)
    else:
        try:
            array = np.array(_deep_data(data), copy=True)
        except ValueError as error:
            raise ShapeError(f"nested lists of unequal lengths make no tensor ({error})") from None
        if dtype is not None:
            array = _supported(array).astype(as_dtype(dtype))
        elif isinstance(data, list | tuple | int | float | bool) and (
            array.dtype.kind == "f" or (array.dtype.kind in "iu" and requires_grad)
        ):
            array = array.astype(get_default_dtype())
    if type(array) is np.ndarray and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return _supported(array)


def _supported(array: Any) -> Any:
    """Return an array whose elements operations can compute with.

    Raises:
        DTypeError: elements of any other type.
    """
    if type(array) is np.ndarray and not array.dtype.isnative:
        raise DTypeError(f"elements of type {array.dtype} are stored in the other byte order: mg.tensor copies them")
    if array_lane(array).kind(array) not in "fib":
        raise DTypeError(
            f"cannot make a tensor of elements of type {array.dtype}; float32, float64, integers and booleans are "
            "supported"
        )
    return array


def _deep_data(data: Any) -> Any:
    if isinstance(data, TensorBase):
        return _core.data_of(data)
    if isinstance(data, list | tuple):
        return [_deep_data(item) for item in data]
    return data


def as_tensor(data: Any) -> Tensor:
    """Return a tensor of `data`: a tensor as it is, an array without a copy, anything else by :func:`tensor`."""
    if isinstance(data, Tensor):
        return data
    if is_array(data):
        return _core.tensor(_supported(data))
    return tensor(data)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """Make a tensor that shares the memory of a NumPy array."""
    if type(array) is not np.ndarray:
        raise DTypeError(f"from_numpy takes a numpy.ndarray, not {type(array).__name__}")
    return _core.tensor(_supported(array))


def from_dlpack(x: Any) -> Tensor:
    """Make a tensor that shares the memory of another library's array, by the DLPack protocol."""
    if not hasattr(x, "__dlpack_device__"):
        raise DTypeError(f"from_dlpack takes an array of a library with the DLPack protocol, not {type(x).__name__}")
    kind = int(x.__dlpack_device__()[0])
    device = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}.get(kind)  # DLDeviceType: CPU, CUDA, pinned and managed memory
    if device is None:
        raise DeviceError(f"an array on a device of DLPack's type {kind}; arrays on the CPU and on CUDA can be shared")
    return _core.tensor(_supported(lane_for_device(device).xp.from_dlpack(x)))


def _dtype(dtype: Any) -> Any:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


def _lengths(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of a new tensor.

    Raises:
        ShapeError: lengths that are no integers, or negative.
    """
    wanted = _spread(shape)
    try:
        lengths = tuple(operator.index(length) for length in wanted)
    except TypeError:
        lengths = (-1,)
    if any(length < 0 for length in lengths):
        raise ShapeError(f"a shape is made of lengths, integers from 0 on, not {wanted}")
    return lengths


def zeros(
    *shape: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False, name: str | None = None
) -> Tensor:
    """Make a tensor of zeros."""
    return _made(lane_for_device(device).zeros(_lengths(shape), _dtype(dtype)), requires_grad, name)


def ones(
    *shape: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False, name: str | None = None
) -> Tensor:
    """Make a tensor of ones."""
    return full(_spread(shape), 1, dtype=dtype, device=device, requires_grad=requires_grad, name=name)


def full(
    shape: Any,
    value: float,
    *,
    dtype: Any = None,
    device: str = "cpu",
    requires_grad: bool = False,
    name: str | None = None,
) -> Tensor:
    """Make a tensor filled with one number."""
    try:
        array = lane_for_device(device).xp.full(_lengths((shape,)), value, dtype=_dtype(dtype))
    except (ValueError, TypeError) as error:
        if isinstance(error, MinigradError):
            raise
        raise DTypeError(f"full: a tensor is filled with one number, not {value!r}") from None
    return _made(array, requires_grad, name)


def zeros_like(x: Tensor) -> Tensor:
    """Make a tensor of zeros of the shape, dtype and device of `x`."""
    return _core.tensor(array_lane(_core.data_of(x)).xp.zeros_like(_core.data_of(x)))


def ones_like(x: Tensor) -> Tensor:
    """Make a tensor of ones of the shape, dtype and device of `x`."""
    return _core.tensor(array_lane(_core.data_of(x)).xp.ones_like(_core.data_of(x)))


def manual_seed(seed: int) -> None:
    """Restart the random numbers of initialisation, dropout, `randn` and `rand`, on every device.

    Each device draws its own numbers. Initialisation draws on the CPU, so that one seed starts one model anywhere.

    Raises:
        UsageError: a seed that is no integer, or negative.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"manual_seed: a seed is an integer from 0 on, not {seed!r}")
    seed_lanes(int(seed))


def _floating(name: str, dtype: Any) -> Any:
    found = _dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"{name} draws floats; cannot make a tensor of {found}")
    return found


def generator() -> np.random.Generator:
    """Return the CPU's generator, which :func:`manual_seed` restarts."""
    return NUMPY.generator


def randn(
    *shape: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False, name: str | None = None
) -> Tensor:
    """Make a tensor of standard normal numbers, drawn where it lives."""
    return _made(lane_for_device(device).normal(_lengths(shape), _floating("randn", dtype)), requires_grad, name)


def rand(
    *shape: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False, name: str | None = None
) -> Tensor:
    """Make a tensor of numbers uniform in [0, 1), drawn where it lives."""
    return _made(lane_for_device(device).random(_lengths(shape), _floating("rand", dtype)), requires_grad, name)


# --- recording ------------------------------------------------------------------------------------


def no_grad() -> Recording:
    """Switch recording off in this thread: ``with mg.no_grad(): …`` or ``@mg.no_grad()``."""
    return Recording(False)


def enable_grad() -> Recording:
    """Switch recording on in this thread, inside a `no_grad`."""
    return Recording(True)


def set_grad_enabled(on: bool) -> Recording:
    """Switch recording on or off in this thread, as a context manager or decorator."""
    return Recording(on)


def is_grad_enabled() -> bool:
    """Say whether operations are recorded in this thread."""
    return _core.is_recording()


# --- methods and NumPy's functions from the page --------------------------------------------------

NUMPY_OPS: dict[str, Op] = {}
"""NumPy's name of a function -> its record, for ``np.tanh(tensor)``."""

NUMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""NumPy's non-ufunc functions that have an operation of ours with the same arguments."""


def _connect() -> None:
    for name in Tensor.__annotations__:
        operation = getattr(ops, name)

        def method(self: Tensor, *args: Any, _operation: Any = operation, **kwargs: Any) -> Any:
            return _operation(self, *args, **kwargs)

        method.__name__ = name
        method.__qualname__ = f"Tensor.{name}"
        method.__doc__ = f"Apply :func:`minigrad.{name}` to this tensor."
        setattr(Tensor, name, method)
    for op in PAGE:
        NUMPY_OPS[op.numpy or op.name] = op
    for alias, name in (("divide", "div"), ("fabs", "abs"), ("acos", ""), ("float_power", "pow")):
        if name:
            NUMPY_OPS[alias] = PAGE.records[name]
    shared = (
        "sum mean var prod clip where matmul reshape squeeze expand_dims broadcast_to concatenate stack flip cumsum "
        "swapaxes moveaxis argmax argmin einsum"
    )
    for name in shared.split():
        NUMPY_FUNCTIONS[name] = getattr(ops, name)
    NUMPY_FUNCTIONS.update(
        max=ops.max,
        amax=ops.max,
        min=ops.min,
        amin=ops.min,
        transpose=_numpy_transpose,
        shape=lambda x: x.shape,
        ndim=lambda x: x.ndim,
        size=lambda x: x.size,
        zeros_like=zeros_like,
        ones_like=ones_like,
        concat=ops.concatenate,
        permute_dims=ops.permute,
        dot=_numpy_dot,
        copy=ops.clone,
        matrix_transpose=ops.mT,
        pad=_numpy_pad,
    )


def _numpy_transpose(x: Tensor, axes: Any = None) -> Tensor:
    return ops.permute(x, axes)


def _numpy_dot(a: Any, b: Any) -> Tensor:
    if len(np.shape(a)) == 0 or len(np.shape(b)) == 0:
        return ops.mul(a, b)
    if len(np.shape(b)) > 2:
        raise MinigradError("np.dot on tensors takes a vector or a matrix on the right: use @ or np.einsum")
    return ops.matmul(a, b)


def _numpy_pad(x: Tensor, widths: Any, mode: str = "constant", constant_values: float = 0) -> Tensor:
    if mode != "constant":
        raise MinigradError(f"np.pad on tensors has mode 'constant' only, not {mode!r}")
    return ops.pad(x, widths, constant_values)


_connect()
_core.install(_cpu.CpuLane(), np.ndarray, Tensor)
_core.bind_operators(
    **{
        name: PAGE.records[name]
        for name in (
            "add",
            "sub",
            "mul",
            "div",
            "pow",
            "matmul",
            "neg",
            "abs",
            "less",
            "less_equal",
            "equal",
            "not_equal",
            "greater",
            "greater_equal",
            "getitem",
        )
    }
)
_cpu.connect(PAGE)
