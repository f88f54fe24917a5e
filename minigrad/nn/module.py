"""Module and Parameter: what models are made of, with PyTorch's registration, state dictionaries and names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from .. import _core
from ..backend import array_lane, as_dtype
from ..errors import DTypeError, ShapeError, UsageError
from ..tensor import Tensor, as_tensor, is_device, no_grad

__all__ = ["LoadResult", "Module", "Parameter"]


class Parameter(Tensor):
    """A leaf tensor that a module owns and an optimiser changes; it shares the memory of `data`.

    Args:
        data: a tensor or an array of floats, any shape.
        requires_grad: whether ``backward`` collects a gradient for it.

    Raises:
        DTypeError: `data` has no floating dtype and a gradient is wanted.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        _core.set_data(self, _core.data_of(as_tensor(data)))
        self.requires_grad_(requires_grad)


class LoadResult(NamedTuple):
    """Keys that ``load_state_dict(strict=False)`` left alone."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of layers and models: parameters, buffers and sub-modules are registered when they become attributes.

    Define ``forward`` and call the module. While a tape watches, a call opens a scope: the name of the
    attribute that holds the module, or, for a layer that nothing holds, the lower-case name of its class.

    >>> import minigrad as mg
    >>> class Model(mg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = mg.nn.Linear(2, 3)
    ...     def forward(self, x):
    ...         return mg.tanh(self.inner(x))
    >>> model = Model()
    >>> [name for name, _ in model.named_parameters()]
    ['inner.weight', 'inner.bias']
    >>> model(mg.ones(5, 2)).shape
    (5, 3)
    """

    training: bool

    def __init__(self) -> None:
        # Past our own __setattr__, which needs them.
        self.__dict__.update(_parameters={}, _buffers={}, _modules={}, _transient=set(), _scope="", training=True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result; every module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward``."""
        if _core.is_watched():
            # A model that nobody holds is the whole picture: a box around everything would say nothing.
            name = self._scope or ("" if self._modules else type(self).__name__.lower())
            if name:
                with _core.scope(name):
                    return self.forward(*args, **kwargs)
        return self.forward(*args, **kwargs)

    # -- registration ------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        rooms = self.__dict__
        if "_parameters" not in rooms:
            if isinstance(value, Parameter | Module):
                raise UsageError(f"{type(self).__name__}: call super().__init__() before setting {name!r}")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._forget(name)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name)
            self._modules[name] = value
            if not value._scope:
                value.__dict__["_scope"] = name
        elif name in self._buffers and (value is None or isinstance(value, Tensor)):
            self._buffers[name] = value
        elif name in self._parameters:
            if value is not None:
                kind = type(value).__name__
                raise UsageError(f"{name!r} is a parameter: assign a Parameter or None, not {kind}")
            self._parameters[name] = None
        else:
            self._forget(name)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for room in ("_parameters", "_buffers", "_modules"):
            held = self.__dict__.get(room)
            if held is not None and name in held:
                return held[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str) -> bool:
        """Drop what is held under a name, and say whether there was anything."""
        self._transient.discard(name)
        rooms = (self._parameters, self._buffers, self._modules, self.__dict__)
        found = [room for room in rooms if name in room]
        for room in found:
            del room[name]
        return bool(found)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Own a parameter under a name; None keeps the name for a parameter that this module does without.

        Raises:
            UsageError: something that is no Parameter.
        """
        if parameter is not None and not isinstance(parameter, Parameter):
            raise UsageError(f"{name!r} is a parameter: give a Parameter or None, not {type(parameter).__name__}")
        self._parameters[name] = parameter
        if parameter is not None and parameter.name is None:
            parameter.name = name

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Own a tensor that no optimiser changes; it moves with the module, and is saved if `persistent`."""
        self._forget(name)
        self._buffers[name] = tensor
        if not persistent:
            self._transient.add(name)

    # -- what is inside ----------------------------------------------------------------------------------

    def children(self) -> Iterator[Module]:
        """Yield the direct sub-modules."""
        yield from self._modules.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it with their paths, each once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield all parameters with their paths; one that is used in two places comes once."""
        yield from self._named("_parameters", set())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all buffers with their paths, each once."""
        yield from self._named("_buffers", set())

    def _named(self, room: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules():
            for name, tensor in module.__dict__[room].items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{path}.{name}" if path else name, tensor

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def buffers(self) -> Iterator[Tensor]:
        """Yield all buffers, each once."""
        for _, buffer in self.named_buffers():
            yield buffer

    # -- modes -------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch training behaviour (dropout) on or off, here and below; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch training behaviour off."""
        return self.train(False)

    def requires_grad_(self, on: bool = True) -> Self:
        """Switch the gradients of all parameters on or off; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(on)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for parameter in self.parameters():
            drop_grad(parameter, set_to_none)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call a function on every module, the innermost first; returns the module."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def to(self, target: Any) -> Self:
        """Convert floating parameters and buffers to a dtype, or move all of them to a device; returns the module.

        Args:
            target: a floating dtype ("float64"), a device ("cpu", "cuda"), or a tensor whose dtype and
                device to take.
        """
        if isinstance(target, Tensor):
            return self.to(target.device).to(target.dtype)
        moves = is_device(target)
        if not moves and as_dtype(target).kind != "f":
            raise DTypeError(f"modules compute with floats; cannot convert one to {as_dtype(target)}")
        for tensor in [*self.parameters(), *self.buffers()]:
            if moves or tensor.dtype.kind == "f":
                grad = tensor.grad
                with no_grad():
                    _core.set_data(tensor, _core.data_of(tensor.detach().to(target)))
                    if grad is not None:
                        tensor.grad = grad.detach().to(target)
        return self

    def float(self) -> Self:
        """Convert to float32."""
        return self.to("float32")

    def double(self) -> Self:
        """Convert to float64."""
        return self.to("float64")

    def cpu(self) -> Self:
        """Move to the CPU's memory."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """Move to the GPU's memory."""
        return self.to("cuda")

    # -- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and persistent buffers by path, as tensors that share their memory outside the graph."""
        return {path: tensor.detach() for path, tensor in self._state()}

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state in PyTorch's order; a tensor under two names comes under both, as files have all keys."""

        def walk(prefix: str, module: Module) -> Iterator[tuple[str, Tensor]]:
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None and name not in module._transient:
                    yield prefix + name, tensor
            for name, inner in module._modules.items():
                yield from walk(f"{prefix}{name}.", inner)

        yield from walk("", self)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into parameters and buffers, in their dtype; nothing is changed if anything does not fit.

        Args:
            state: path -> tensor, NumPy array, or CPU tensor of another library.
            strict: whether missing and unexpected keys are errors; without it they are left alone and
                returned.

        Raises:
            UsageError: no dictionary, missing or unexpected keys, a value that is no array. ShapeError: wrong
                shapes. All are named.
        """
        if not isinstance(state, Mapping):
            who = f"load_state_dict of {type(self).__name__}"  # type: ignore[unreachable]
            raise UsageError(f"{who} takes a dictionary, path -> array, not {type(state).__name__}")
        own = dict(self._state())
        result = LoadResult([k for k in own if k not in state], [k for k in state if k not in own])
        given = {k: as_array(f"load_state_dict: {k}", state[k]) for k in own if k in state}
        wrong = [f"{k} has shape {own[k].shape}, not {given[k].shape}" for k in given if given[k].shape != own[k].shape]
        lost = [
            f"{what}: {', '.join(keys)}"
            for what, keys in (("missing", result.missing_keys), ("unexpected", result.unexpected_keys))
            if strict and keys
        ]
        if lost or wrong:
            kind = UsageError if lost else ShapeError
            raise kind(f"load_state_dict of {type(self).__name__}: {'; '.join([*lost, *wrong])}")
        with no_grad():
            for key, array in given.items():
                own[key].copy_(array_lane(_core.data_of(own[key])).asarray(array.astype(own[key].dtype)))
        return result

    # -- words -------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Say what stands between the parentheses of ``repr``."""
        return ""

    def __repr__(self) -> str:
        own = self.extra_repr()
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({own})"
        body = "\n  ".join([own, *lines] if own else lines)
        return f"{type(self).__name__}(\n  {body}\n)"


def drop_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or fill it with zeros."""
    if set_to_none or parameter.grad is None:
        parameter.grad = None
    else:
        with no_grad():
            parameter.grad.zero_()


def as_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return a tensor, an array or another library's CPU tensor as a NumPy array of numbers.

    Raises:
        UsageError: anything else; `name` is in the message.
    """
    if hasattr(value, "detach"):
        value = value.detach()
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    array = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{name} is no array of numbers but {type(value).__name__}")
    return array
