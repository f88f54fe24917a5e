"""Optimisers with PyTorch's arguments, defaults and formulas; they change parameters in place, outside the graph."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from . import _core
from .backend import array_lane
from .errors import ShapeError, UsageError
from .tensor import Tensor, as_tensor, enable_grad, no_grad

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]

Group = dict[str, Any]


class Optimizer:
    """Base of optimisers: parameters in groups with options of their own, and a state for each parameter.

    Args:
        params: tensors, or dictionaries ``{"params": tensors, "lr": …}`` with options of their own.
        defaults: options of groups that do not name them.

    Raises:
        UsageError: no parameters, one that is no leaf or comes twice, or an option that is unknown or out of
            its range.
    """

    buffers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[int, dict[str, Any]] = {}
        """Position of a parameter, counted over all groups -> its buffers (arrays) and step count."""
        if isinstance(params, Tensor):
            raise UsageError(f"{type(self).__name__} takes a list of parameters; put the tensor into one")
        given = list(params)
        if not given:
            raise UsageError(f"{type(self).__name__} got no parameters")
        if not isinstance(given[0], Mapping):
            given = [{"params": given}]
        for group in given:
            self.add_param_group(group)  # type: ignore[arg-type]

    def add_param_group(self, group: Group) -> None:
        """Add parameters with options of their own; options left out are the optimiser's."""
        who = type(self).__name__
        params = group["params"]
        group = {**self.defaults, **group, "params": [params] if isinstance(params, Tensor) else list(params)}
        unknown = group.keys() - self.defaults.keys() - {"params"}
        if unknown:
            raise UsageError(f"{who}: unknown options {sorted(unknown)}; known: {sorted(self.defaults)}")
        self._check(group)
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        for p in group["params"]:
            if not isinstance(p, Tensor) or not p.is_leaf:
                what = "the result of an operation" if isinstance(p, Tensor) else type(p).__name__
                raise UsageError(f"{who} changes leaf tensors; it got {what}")
            if id(p) in seen:
                raise UsageError(f"{who}: parameter {p.name or p.shape} comes twice")
            seen.add(id(p))
        self.param_groups.append(group)

    def _check(self, group: Group) -> None:
        """Refuse options outside of their range."""
        for option in ("lr", "eps", "weight_decay", "momentum", "alpha"):
            if not group.get(option, 0.0) >= 0:
                raise UsageError(f"{type(self).__name__}: {option}={group[option]!r} is negative")
        for beta in group.get("betas", ()):
            if not 0 <= beta < 1:
                raise UsageError(f"{type(self).__name__}: betas={group['betas']!r} must lie between 0 and 1")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    with no_grad():
                        p.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient once.

        Args:
            closure: computes the loss and its gradients anew; called first, and its result returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        place = 0
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        data, g = _core.data_of(p), _core.data_of(p.grad)
                        state = self.state.setdefault(place, {})
                        self.update(array_lane(data).xp, data, -g if group["maximize"] else g, state, group)
                        _core.mark_changed(data)
                    place += 1
        return loss

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: Group) -> None:
        """Change the array p in place, given its gradient g, which must stay as it is."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's form: buffers, and the parameters of groups, by position."""
        positions = iter(range(sum(len(g["params"]) for g in self.param_groups)))
        return {
            "state": {
                k: {word: as_tensor(v) if hasattr(v, "dtype") else v for word, v in held.items()}
                for k, held in self.state.items()
            },
            "param_groups": [{**g, "params": [next(positions) for _ in g["params"]]} for g in self.param_groups],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over options and a copy of the buffers of a `state_dict`; parameters are matched by position.

        Raises:
            UsageError: another number of groups or parameters. ShapeError: a buffer that does not fit its
                parameter.
        """
        who = type(self).__name__
        sizes = [len(g["params"]) for g in self.param_groups]
        theirs = [len(g["params"]) for g in state["param_groups"]]
        if sizes != theirs:
            raise UsageError(f"{who}: groups of {theirs} parameters cannot be loaded into groups of {sizes}")
        parameters = [p for g in self.param_groups for p in g["params"]]
        order = [k for g in state["param_groups"] for k in g["params"]]
        loaded = {}
        for place, (key, p) in enumerate(zip(order, parameters, strict=True)):
            held = state["state"].get(key)
            if held is not None:
                loaded[place] = {
                    word: _loaded(who, word, value, p) for word, value in held.items() if value is not None
                }
        for group, other in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({k: copy.deepcopy(v) for k, v in other.items() if k in self.defaults})
        self.state = loaded

    def __repr__(self) -> str:
        options = [
            ", ".join([*(f"{k}={v}" for k, v in group.items() if k != "params"), f"{len(group['params'])} parameters"])
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(options)})"


def _loaded(who: str, word: str, value: Any, p: Tensor) -> Any:
    if word == "step":
        return int(value)
    array = _core.data_of(value)
    lane, data = array_lane(_core.data_of(p)), _core.data_of(p)
    if tuple(array.shape) != p.shape:
        raise ShapeError(f"{who}: {word} of shape {tuple(array.shape)} for a parameter of shape {p.shape}")
    return lane.xp.array(lane.asarray(array), dtype=data.dtype, copy=True)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013) in PyTorch's form.

    ``g += weight_decay * p``; ``v = momentum * v + (1 - dampening) * g``, g itself at the first step;
    ``p -= lr * v``, or with `nesterov` ``p -= lr * (g + momentum * v)``. `maximize` climbs instead.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise UsageError("SGD: nesterov needs a momentum and no dampening")

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: Group) -> None:
        """Take one step along the gradient."""
        lr, momentum = group["lr"], group["momentum"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if momentum:
            v = state.get("momentum_buffer")
            if v is None:
                v = state["momentum_buffer"] = xp.array(g, copy=True)
            else:
                v *= momentum
                v += g if not group["dampening"] else (1 - group["dampening"]) * g
            g = g + momentum * v if group["nesterov"] else v
        p -= lr * g


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); `amsgrad` keeps the largest second moment (Reddi et al. 2018).

    ``m = b1 * m + (1 - b1) * g``; ``v = b2 * v + (1 - b2) * g * g``, for `betas` (b1, b2);
    ``p -= lr / (1 - b1**t) * m / (sqrt(v / (1 - b2**t)) + eps)``. `weight_decay` adds ``weight_decay * p``
    to g at the start.
    """

    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: Group) -> None:
        """Take one step along the mean gradient, in units of its spread."""
        b1, b2 = group["betas"]
        lr, decay = group["lr"], group["weight_decay"]
        if not state:
            state.update(step=0, exp_avg=xp.zeros_like(p), exp_avg_sq=xp.zeros_like(p))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = xp.zeros_like(p)
        state["step"] += 1
        t, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
        if decay and self.decoupled:
            p *= 1 - lr * decay
        elif decay:
            g = g + decay * p
        # One scratch array serves all three steps.
        room = (1 - b1) * g
        m *= b1
        m += room
        xp.multiply(g, g, out=room)
        room *= 1 - b2
        v *= b2
        v += room
        if group["amsgrad"]:
            v = xp.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        xp.sqrt(v, out=room)
        room /= math.sqrt(1 - b2**t)
        room += group["eps"]
        xp.divide(m, room, out=room)
        room *= lr / (1 - b1**t)
        p -= room


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): ``p -= lr * weight_decay * p`` before the step."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture 6e, 2012); `centered` divides by the deviation from the mean gradient (Graves 2013).

    ``v = alpha * v + (1 - alpha) * g * g``; ``s = g / (sqrt(v) + eps)``, `centered` with v less the squared
    mean gradient; ``p -= lr * s``, with `momentum` ``b = momentum * b + s`` and ``p -= lr * b``.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: Group) -> None:
        """Take one step along the gradient, in units of its spread."""
        alpha = group["alpha"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if not state:
            state.update(step=0, square_avg=xp.zeros_like(p))
            if group["momentum"] > 0:
                state["momentum_buffer"] = xp.zeros_like(p)
            if group["centered"]:
                state["grad_avg"] = xp.zeros_like(p)
        state["step"] += 1
        v = state["square_avg"]
        room = g * g
        room *= 1 - alpha
        v *= alpha
        v += room
        if group["centered"]:
            mean = state["grad_avg"]
            mean *= alpha
            mean += (1 - alpha) * g
            xp.multiply(mean, mean, out=room)
            xp.subtract(v, room, out=room)
            xp.sqrt(room, out=room)
        else:
            xp.sqrt(v, out=room)
        room += group["eps"]
        xp.divide(g, room, out=room)
        if group["momentum"] > 0:
            b = state["momentum_buffer"]
            b *= group["momentum"]
            b += room
            p -= group["lr"] * b
        else:
            room *= group["lr"]
            p -= room
