"""Optimisers with PyTorch's arguments, defaults and formulas; they change parameters in place, outside the graph."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from . import _core
from .backend import array_lane, is_number, move
from .errors import ShapeError, UsageError
from .nn.clip import clip_factor, norm_of
from .ops import update as updates
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
        who = type(self).__name__
        if isinstance(params, Tensor):
            raise UsageError(f"{who} takes a list of parameters; put the tensor into one")
        if not isinstance(params, Iterable):
            raise UsageError(
                f"{who} takes a list of parameters, such as model.parameters(), not {type(params).__name__}"
            )
        given = list(params)
        if not given:
            raise UsageError(f"{who} got no parameters")
        if not isinstance(given[0], Mapping):
            given = [{"params": given}]
        for group in given:
            self.add_param_group(group)  # type: ignore[arg-type]

    def add_param_group(self, group: Group) -> None:
        """Add parameters with options of their own; options left out are the optimiser's."""
        who = type(self).__name__
        params = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(params, Iterable):
            raise UsageError(f'{who}: a group is a dictionary with "params": a list of tensors')
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
        """Refuse options that are no numbers, or outside of their range."""
        who = type(self).__name__
        for option in ("lr", "eps", "weight_decay", "momentum", "alpha"):
            if not is_number(group.get(option, 0.0)) or not group.get(option, 0.0) >= 0:
                raise UsageError(f"{who}: {option}={group[option]!r} is no number from 0 on")
        if not is_number(group.get("dampening", 0.0)):
            raise UsageError(f"{who}: dampening={group['dampening']!r} is no number")
        betas = group.get("betas", (0.0, 0.0))
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        if not pair or not all(is_number(beta) and 0 <= beta < 1 for beta in betas):
            raise UsageError(f"{who}: betas={betas!r} are not two numbers from 0 to below 1")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    with no_grad():
                        p.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None, *, max_norm: float | None = None) -> Any:
        """Change every parameter that has a gradient once.

        Args:
            closure: computes the loss and its gradients anew; called first, and its result returned.
            max_norm: the largest norm of all gradients together; longer ones count as if scaled down to it, as by
                :func:`nn.clip_grad_norm_`, but without a pass of its own, and ``.grad`` stays as it is.

        Raises:
            UsageError: a `max_norm` that is no number or negative, or a `closure` that is no function.
        """
        who = type(self).__name__
        if max_norm is not None and (not is_number(max_norm) or not max_norm >= 0):
            raise UsageError(f"{who}: max_norm={max_norm!r} is no bound; it must be a number, at least 0")
        if closure is not None and not callable(closure):
            raise UsageError(f"{who}.step takes a function that computes the loss anew, not {closure!r}")
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        found = [(group, p) for group in self.param_groups for p in group["params"]]
        scale = 1.0
        if max_norm is not None:
            scale = clip_factor(norm_of([_core.data_of(p.grad) for _, p in found if p.grad is not None]), max_norm)
        with no_grad(), contextlib.ExitStack() as open_lanes:
            for lane in dict.fromkeys(array_lane(_core.data_of(p)) for _, p in found):
                open_lanes.enter_context(lane.together())
            for place, (group, p) in enumerate(found):
                if p.grad is not None:
                    data, g = _core.data_of(p), _core.data_of(p.grad)
                    state = self.state.setdefault(place, {})
                    for word, held in state.items():
                        if hasattr(held, "dtype"):  # the parameter may have moved
                            state[word] = move(held, array_lane(data))
                    self.update(data, g, -scale if group["maximize"] else scale, state, group)
                    _core.mark_changed(data)
        return loss

    def update(self, p: Any, g: Any, scale: float, state: dict[str, Any], group: Group) -> None:
        """Change the array p in place, given its gradient g, which counts `scale` times and stays as it is."""
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
            UsageError: no `state_dict`, or another number of groups or parameters. ShapeError: a buffer that
                does not fit its parameter.
        """
        who = type(self).__name__
        if not isinstance(state, Mapping) or not state.keys() >= {"state", "param_groups"}:
            raise UsageError(f'{who}: load_state_dict takes what state_dict gave, with "state" and "param_groups"')
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
    return lane.xp.asarray(move(array, lane), dtype=data.dtype, copy=True)


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

    def update(self, p: Any, g: Any, scale: float, state: dict[str, Any], group: Group) -> None:
        """Take one step along the gradient."""
        numbers = (scale, group["weight_decay"], group["lr"])
        momentum, v = group["momentum"], state.get("momentum_buffer")
        if not momentum:
            updates.sgd_update((p, g), numbers)
            return
        fresh = 1 - group["dampening"]
        if v is None:
            v = state["momentum_buffer"] = array_lane(p).xp.zeros_like(p)
            fresh = 1.0  # the first velocity is the whole gradient
        change = updates.nesterov_update if group["nesterov"] else updates.momentum_update
        change((p, g, v), (*numbers, momentum, fresh))


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

    def update(self, p: Any, g: Any, scale: float, state: dict[str, Any], group: Group) -> None:
        """Take one step along the mean gradient, in units of its spread."""
        b1, b2 = group["betas"]
        lr, decay = group["lr"], group["weight_decay"]
        if not state:
            xp = array_lane(p).xp
            state.update(step=0, exp_avg=xp.zeros_like(p), exp_avg_sq=xp.zeros_like(p))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = xp.zeros_like(p)
        state["step"] += 1
        t = state["step"]
        inside, shrink = (0.0, 1 - lr * decay) if self.decoupled else (decay, 1.0)
        numbers = (scale, inside, shrink, b1, 1 - b1, b2, 1 - b2, lr / (1 - b1**t), math.sqrt(1 - b2**t), group["eps"])
        if group["amsgrad"]:
            arrays = (p, g, state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"])
            updates.amsgrad_update(arrays, numbers)
        else:
            updates.adam_update((p, g, state["exp_avg"], state["exp_avg_sq"]), numbers)


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

    def update(self, p: Any, g: Any, scale: float, state: dict[str, Any], group: Group) -> None:
        """Take one step along the gradient, in units of its spread."""
        alpha, momentum, centered = group["alpha"], group["momentum"], group["centered"]
        if not state:
            xp = array_lane(p).xp
            state.update(step=0, square_avg=xp.zeros_like(p))
            if momentum > 0:
                state["momentum_buffer"] = xp.zeros_like(p)
            if centered:
                state["grad_avg"] = xp.zeros_like(p)
        state["step"] += 1
        arrays = [p, g, state["square_avg"]]
        numbers = [scale, group["weight_decay"], group["lr"], alpha, 1 - alpha, group["eps"]]
        if centered:
            arrays.append(state["grad_avg"])
        if momentum > 0:
            arrays.append(state["momentum_buffer"])
            numbers.append(momentum)
        RMSPROP[centered, momentum > 0](arrays, numbers)


RMSPROP = {
    (False, False): updates.rmsprop_update,
    (False, True): updates.rmsprop_momentum_update,
    (True, False): updates.rmsprop_centered_update,
    (True, True): updates.rmsprop_centered_momentum_update,
}
"""By centered, and whether there is momentum."""
