"""Modules and functions as ONNX graphs: one run is watched by a tape, and what led to the results is written down.

Recurrent layers of a module become RNN, GRU and LSTM nodes, one for each layer of the stack; every other operation of
the page becomes the operator that computes the same, or a few of them. Shapes are those of the example.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _core
from ...errors import UsageError
from ...files import write_whole
from ...nn import GRU, LSTM, RNN, Module
from ...tensor import Tensor, as_tensor, no_grad
from .. import layouts
from .._files import library
from ._graph import DTYPES
from ._recurrent import ACTIVATIONS

__all__ = ["save"]

OPSET = 20
IR_VERSION = 9  # the one that came with the operator set
UNITS = {RNN: ("rnn", "RNN"), GRU: ("gru", "GRU"), LSTM: ("lstm", "LSTM")}
CODES = {dtype: code for code, dtype in DTYPES.items()}
SPELLED = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "affine": "Affine",
    "leakyrelu": "LeakyRelu",
    "thresholdedrelu": "ThresholdedRelu",
    "scaledtanh": "ScaledTanh",
    "hardsigmoid": "HardSigmoid",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
}

# Operators that compute the same from the same operands, once these have the result's element type.
SAME = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "clone": "Identity",
    "detach": "Identity",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "relu": "Relu",
    "gelu": "Gelu",
    "maximum": "Max",
    "minimum": "Min",
    "matmul": "MatMul",
}
WITH_VALUES = {  # and those that have parameters beside: ours -> theirs
    "leaky_relu": ("LeakyRelu", {"slope": "alpha"}),
    "elu": ("Elu", {"alpha": "alpha"}),
    "thresholded_relu": ("ThresholdedRelu", {"alpha": "alpha"}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": "alpha", "beta": "beta"}),
}
QUESTIONS = {
    "equal": "Equal",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}
REDUCTIONS = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
    "norm": "ReduceL2",
}


@dataclass
class Call:
    """One call of a recurrent layer, which becomes nodes of its own."""

    path: str
    layer: Any
    x: Tensor
    states: tuple[Tensor, ...] | None
    lengths: Any
    results: tuple[Tensor, ...]  # outputs, and the final states


@contextlib.contextmanager
def _recorded(model: Any) -> Iterator[list[Call]]:
    """Evaluate a module without training behaviour, and note every call of its recurrent layers."""
    calls: list[Call] = []
    if not isinstance(model, Module):
        yield calls
        return
    modes = [(module, module.training) for module in model.modules()]
    watched = [(path, layer) for path, layer in model.named_modules() if type(layer) in UNITS]
    model.eval()
    try:
        for path, layer in watched:
            # On the object, before the method of its class.
            layer.__dict__["forward"] = _noting(calls, path or type(layer).__name__.lower(), layer)
        yield calls
    finally:
        for _, layer in watched:
            del layer.__dict__["forward"]
        for module, mode in modes:
            module.training = mode


def _noting(calls: list[Call], path: str, layer: Any) -> Callable[..., Any]:
    def forward(input: Any, hx: Any = None, lengths: Any = None, **options: Any) -> Any:
        lost = [word for word, value in options.items() if value is not None and value is not False]
        if lost:
            raise UsageError(f"{path}: ONNX's operators have no {', '.join(lost)}")
        x = as_tensor(input)
        states = None
        if hx is not None:
            states = tuple(as_tensor(s) for s in (hx if isinstance(hx, tuple | list) else (hx,)))
            hx = states if isinstance(layer, LSTM) else states[0]
        y, final = type(layer).forward(layer, x, hx, lengths)
        results = (y, *(final if isinstance(final, tuple) else (final,)))
        calls.append(Call(path, layer, x, states, lengths, results))
        return y, final

    return forward


# --- recurrent layers ------------------------------------------------------------------------------------------


def _activation(path: str, given: Any) -> tuple[str, tuple[float, ...]]:
    """Return ONNX's name of an activation, and its alpha and beta."""
    name, *values = given if isinstance(given, tuple) else (given,)
    if name is None or (isinstance(name, str) and name.lower() in ("identity", "linear")):
        return "Affine", (1.0, 0.0)
    word = name.lower().replace("_", "") if isinstance(name, str) else ""
    if word not in SPELLED:
        raise UsageError(f"{path}: the activation {given!r} is none of ONNX's: {', '.join(SPELLED.values())}")
    defaults = ACTIVATIONS[word]
    values += [None] * (len(defaults) - len(values))
    return SPELLED[word], tuple(float(d if v is None else v) for v, d in zip(values, defaults, strict=True))


def _options(path: str, layer: Any) -> dict[str, Any]:
    """Return the attributes of a layer's nodes.

    Raises:
        UsageError: options that the operators do not have; they are named.
    """
    lstm, gru = isinstance(layer, LSTM), isinstance(layer, GRU)
    variant = layer.variant if lstm else "V"
    lost = {
        "proj_size": layer.proj_size,
        "layer_norm": layer.layer_norm,
        "zoneout": any(np.atleast_1d(layer.zoneout)),
        "cell_clip": lstm and layer.cell_clip is not None,
        "clip (ONNX clips c_t as well)": lstm and layer.clip is not None,
        'peepholes="full"': lstm and layer.peepholes == "full",
        f"variant={variant!r}": variant not in ("V", "NP", "NIAF", "NOAF", "CIFG"),
    }
    if any(lost.values()):
        raise UsageError(f"{path}: ONNX's operators have no {', '.join(word for word, on in lost.items() if on)}")
    if lstm:
        chosen = list(layer.activations or ("Sigmoid", "Tanh", "Tanh"))
        chosen[1] = None if variant == "NIAF" else chosen[1]
        chosen[2] = None if variant == "NOAF" else chosen[2]
    elif gru:
        chosen = list(layer.activations or ("Sigmoid", "Tanh"))
    else:
        chosen = list(layer.activations or (layer.nonlinearity,))
    ways = 2 if layer.bidirectional else 1
    named = [_activation(path, one) for one in chosen] * ways
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if ways == 2 else "forward",
        "activations": [name for name, _ in named],
    }
    for place, word in enumerate(("activation_alpha", "activation_beta")):
        values = [own[place] for _, own in named if len(own) > place]
        attributes |= {word: values} if values else {}
    if layer.clip is not None:
        attributes["clip"] = float(layer.clip)
    if gru:
        attributes["linear_before_reset"] = int(layer.reset_after)
    if lstm and (layer.input_forget or variant == "CIFG"):
        attributes["input_forget"] = 1
    return attributes


def _full(layer: Any) -> dict[str, Any]:
    """Return the parameters of a layer with rows for all gates: those of CIFG's absent forget gate are never seen."""
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    if not isinstance(layer, LSTM) or layer.variant != "CIFG":
        return state
    full = {}
    for name, value in state.items():
        first, *others = np.split(value, 2 if name.startswith("weight_ph") else 3)
        full[name] = np.concatenate([first, np.zeros_like(first), *others])
    return full


# --- the graph -------------------------------------------------------------------------------------------------


class Writer:
    """Collects the nodes of a graph in the order of their computation."""

    def __init__(self, helper: Any, numpy_helper: Any, tape: _core.Tape) -> None:
        self.helper, self.numpy_helper, self.tape = helper, numpy_helper, tape
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.names: dict[int, str] = {}  # id of a tape node -> name of its value
        self.inputs: dict[int, str] = {}  # id of an example's tensor -> its name
        self.taken: set[str] = set()

    def fresh(self, word: str) -> str:
        """Return a name that no value has."""
        name, k = word, 0
        while name in self.taken:
            k += 1
            name = f"{word}_{k}"
        self.taken.add(name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one result, and return its name."""
        out = self.fresh(kind.lower())
        self.nodes.append(self.helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant."""
        array = np.asarray(value, dtype)
        if array.dtype not in CODES:
            raise UsageError(f"ONNX has no constants of {array.dtype}")
        return self.op("Constant", value=self.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape)))

    def integers(self, *values: int) -> str:
        """Add a list of integers: lengths, axes or places."""
        return self.constant(values, np.int64)

    def initializer(self, name: str, value: Any) -> str:
        """Add a parameter."""
        name = self.fresh(name)
        array = np.asarray(value)
        self.initializers.append(self.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def cast(self, name: str, old: Any, new: Any) -> str:
        """Convert the elements if they are of another type."""
        return name if np.dtype(old) == np.dtype(new) else self.op("Cast", name, to=CODES[np.dtype(new)])

    def shaped(self, name: str, shape: Sequence[int]) -> str:
        """Reshape."""
        return self.op("Reshape", name, self.integers(*shape), allowzero=1)

    def sliced(self, name: str, parts: Sequence[tuple[int, slice]], shape: Sequence[int]) -> str:
        """Take a slice along some axes."""
        places = [(axis, *part.indices(shape[axis])) for axis, part in parts]
        # Past the first element there is no place to name but one that is too far.
        ends = [-shape[axis] - 1 if stop < 0 else stop for axis, _, stop, _ in places]
        starts, axes, steps = ([p[k] for p in places] for k in (1, 0, 3))
        return self.op("Slice", name, *(self.integers(*each) for each in (starts, ends, axes, steps)))

    def value(self, tensor: Any) -> str:
        """Return the name of a tensor that some node has made, or that is an input; anything else is a constant."""
        if id(tensor) in self.inputs:
            return self.inputs[id(tensor)]
        try:
            return self.names[self.tape.of(tensor).id]
        except KeyError:
            return self.constant(as_tensor(tensor).numpy())

    def recurrent(self, call: Call) -> None:
        """Add the nodes of a recurrent layer, in the operators' layout: X (T, N, I), Y (T, D, N, H)."""
        layer, path = call.layer, call.path
        unit, kind = UNITS[type(layer)]
        attributes = _options(path, layer)
        weights = layouts.to_onnx(_full(layer), unit)
        ways, batched = 2 if layer.bidirectional else 1, call.x.ndim == 3
        swap = layer.batch_first and batched
        x = self.value(call.x)
        if swap:
            x = self.op("Transpose", x, perm=[1, 0, 2])
        elif not batched:
            x = self.op("Unsqueeze", x, self.integers(1))
        lengths = "" if call.lengths is None else self._lengths(call.lengths)
        states = [] if call.states is None else [self.value(s) for s in call.states]
        if not batched:
            states = [self.op("Unsqueeze", s, self.integers(1)) for s in states]
        words = ("Y", "Y_h", "Y_c") if unit == "lstm" else ("Y", "Y_h")
        finals: list[list[str]] = []
        for k, values in enumerate(weights):
            own = {word: self.initializer(f"{path}.{word}_l{k}", value) for word, value in values.items()}
            rows = slice(k * ways, (k + 1) * ways)
            initial = [self.sliced(s, [(0, rows)], [len(weights) * ways]) for s in states]
            initial += [""] * (len(words) - 1 - len(initial))
            inputs = [x, own["W"], own["R"], own.get("B", ""), lengths, *initial, own.get("P", "")]
            while not inputs[-1]:
                inputs.pop()
            outs = [self.fresh(f"{path}.{word}_l{k}") for word in words]
            self.nodes.append(self.helper.make_node(kind, inputs, outs, name=f"{path}.l{k}", **attributes))
            y = self.op("Transpose", outs[0], perm=[0, 2, 1, 3])
            x = self.op("Reshape", y, self.integers(0, 0, ways * layer.hidden_size))
            finals.append(outs[1:])
        joined = [self.op("Concat", *each, axis=0) if len(each) > 1 else each[0] for each in zip(*finals, strict=True)]
        if swap:
            x = self.op("Transpose", x, perm=[1, 0, 2])
        results = [x, *joined]
        if not batched:
            results = [self.op("Squeeze", name, self.integers(1)) for name in results]
        for tensor, name in zip(call.results, results, strict=True):
            self.names[self.tape.of(tensor).id] = name

    def _lengths(self, lengths: Any) -> str:
        tensor = as_tensor(lengths)
        name = self.value(lengths) if isinstance(lengths, Tensor) else self.constant(tensor.numpy())
        name = self.cast(name, tensor.dtype, np.int32)
        return name if tensor.ndim else self.shaped(name, [1])


Rule = Callable[[Writer, Any, list[str]], str]
RULES: dict[str, Rule] = {}
"""Operation of the page -> what adds the nodes for it and returns the name of the result."""


def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return enter


def _common(w: Writer, node: Any, xs: list[str], dtype: Any) -> list[str]:
    return [w.cast(x, operand.dtype, dtype) for x, operand in zip(xs, node.inputs, strict=True)]


def _axes(node: Any) -> list[int]:
    """Return the axes that an operation goes over, from the front."""
    axis, ndim = node.params.get("axis"), len(node.inputs[0].shape)
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    return [a % ndim for a in axes]


@_rule(*SAME)
def _same(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op(SAME[node.op], *_common(w, node, xs, node.dtype))


@_rule(*WITH_VALUES)
def _with_values(w: Writer, node: Any, xs: list[str]) -> str:
    kind, words = WITH_VALUES[node.op]
    values = {theirs: float(node.params[ours]) for ours, theirs in words.items()}
    return w.op(kind, *_common(w, node, xs, node.dtype), **values)


@_rule(*QUESTIONS, "not_equal")
def _question(w: Writer, node: Any, xs: list[str]) -> str:
    dtypes = [np.dtype(operand.dtype) for operand in node.inputs]
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    operands = _common(w, node, xs, floats[0] if floats else np.result_type(*dtypes))
    answer = w.op(QUESTIONS.get(node.op, "Equal"), *operands)
    return w.op("Not", answer) if node.op == "not_equal" else answer


@_rule("logical_not")
def _logical_not(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Not", *_common(w, node, xs, bool))


@_rule("isnan")
def _isnan(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("IsNaN", *xs)


@_rule("where")
def _where(w: Writer, node: Any, xs: list[str]) -> str:
    condition, *branches = node.inputs
    chosen = [w.cast(x, operand.dtype, node.dtype) for x, operand in zip(xs[1:], branches, strict=True)]
    return w.op("Where", w.cast(xs[0], condition.dtype, bool), *chosen)


@_rule("clip")
def _clip(w: Writer, node: Any, xs: list[str]) -> str:
    bounds = [w.constant(node.params[word], node.dtype) for word in ("low", "high")]
    return w.op("Clip", *_common(w, node, xs, node.dtype), *bounds)


@_rule("square", "rsqrt", "silu", "expm1", "log1p", "scaled_tanh")
def _composed(w: Writer, node: Any, xs: list[str]) -> str:
    (x,) = _common(w, node, xs, node.dtype)

    def number(value: float) -> str:
        return w.constant(value, node.dtype)

    match node.op:
        case "square":
            return w.op("Mul", x, x)
        case "rsqrt":
            return w.op("Reciprocal", w.op("Sqrt", x))
        case "silu":
            return w.op("Mul", x, w.op("Sigmoid", x))
        case "expm1":
            return w.op("Sub", w.op("Exp", x), number(1))
        case "log1p":
            return w.op("Log", w.op("Add", x, number(1)))
    inner = w.op("Tanh", w.op("Mul", x, number(node.params["beta"])))
    return w.op("Mul", inner, number(node.params["alpha"]))


@_rule("affine")
def _affine(w: Writer, node: Any, xs: list[str]) -> str:
    x, weight, bias = _common(w, node, xs, node.dtype)
    if len(node.inputs[0].shape) == 2:
        return w.op("Gemm", x, weight, bias, transB=1)
    return w.op("Add", w.op("MatMul", x, w.op("Transpose", weight, perm=[1, 0])), bias)


@_rule("einsum")
def _einsum(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Einsum", *_common(w, node, xs, node.dtype), equation=node.params["subscripts"])


@_rule("embedding")
def _embedding(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Gather", xs[0], w.cast(xs[1], node.inputs[1].dtype, np.int64), axis=0)


@_rule("reshape", "squeeze", "expand_dims")
def _reshape(w: Writer, node: Any, xs: list[str]) -> str:
    return w.shaped(xs[0], node.shape)


@_rule("broadcast_to")
def _broadcast_to(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Expand", xs[0], w.integers(*node.shape))


@_rule("sum_to")
def _sum_to(w: Writer, node: Any, xs: list[str]) -> str:
    old, new = node.inputs[0].shape, node.shape
    extra = len(old) - len(new)
    axes = [d for d, length in enumerate(old) if d < extra or new[d - extra] != length]
    total = w.op("ReduceSum", xs[0], w.integers(*axes), keepdims=1, noop_with_empty_axes=1)
    return w.shaped(total, new)


@_rule("permute", "mT")
def _permute(w: Writer, node: Any, xs: list[str]) -> str:
    ndim = len(node.shape)
    order = [*range(ndim - 2), ndim - 1, ndim - 2] if node.op == "mT" else node.params["axes"]
    order = range(ndim)[::-1] if order is None else [axis % ndim for axis in order]
    return w.op("Transpose", xs[0], perm=list(order))


@_rule("flip")
def _flip(w: Writer, node: Any, xs: list[str]) -> str:
    return w.sliced(xs[0], [(axis, slice(None, None, -1)) for axis in _axes(node)], node.shape)


@_rule("cumsum")
def _cumsum(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("CumSum", *_common(w, node, xs, node.dtype), w.constant(_axes(node)[0], np.int64))


@_rule("concatenate")
def _concatenate(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Concat", *_common(w, node, xs, node.dtype), axis=_axes(node)[0])


@_rule("stack")
def _stack(w: Writer, node: Any, xs: list[str]) -> str:
    axis = node.params["axis"] % len(node.shape)
    parts = [w.op("Unsqueeze", x, w.integers(axis)) for x in _common(w, node, xs, node.dtype)]
    return w.op("Concat", *parts, axis=axis)


@_rule("pad")
def _pad(w: Writer, node: Any, xs: list[str]) -> str:
    before, after = zip(*node.params["widths"], strict=True)
    return w.op("Pad", xs[0], w.integers(*before, *after), w.constant(node.params["value"], node.dtype))


@_rule("astype")
def _astype(w: Writer, node: Any, xs: list[str]) -> str:
    return w.op("Cast", xs[0], to=CODES[np.dtype(node.dtype)])


@_rule("getitem")
def _getitem(w: Writer, node: Any, xs: list[str]) -> str:
    """Slice, then gather, then reshape away what integers took and None added."""
    (x,), shape = xs, list(node.inputs[0].shape)
    index = node.params["index"]
    index = list(index) if isinstance(index, tuple) else [index]
    index = [np.asarray(part) if isinstance(part, list) else part for part in index]
    arrays = [part for part in index if hasattr(part, "shape")]
    mixed = bool(arrays) and any(isinstance(part, int) for part in index)
    if len(arrays) > 1 or mixed or any(array.dtype.kind == "b" for array in arrays):
        raise UsageError("of indices with arrays only those with one array of integers, and slices, can be written")
    if not any(part is Ellipsis for part in index):
        index.append(Ellipsis)
    gap = next(k for k, part in enumerate(index) if part is Ellipsis)
    real = sum(part is not None for part in index) - 1
    index[gap : gap + 1] = [slice(None)] * (len(shape) - real)
    axis, cut, taken = 0, [], None
    for part in index:
        if part is None:
            continue
        if isinstance(part, slice):
            if part != slice(None):
                cut.append((axis, part))
        elif hasattr(part, "shape"):
            taken = (axis, part)
        else:
            cut.append((axis, slice(part, part + 1 or None)))
        axis += 1
    if cut:
        x = w.sliced(x, cut, shape)
    if taken is not None:
        x = w.op("Gather", x, w.constant(taken[1], np.int64), axis=taken[0])
    return w.shaped(x, node.shape)


@_rule(*REDUCTIONS)
def _reduction(w: Writer, node: Any, xs: list[str]) -> str:
    axes, (x,) = _axes(node), _common(w, node, xs, node.dtype)
    keep = int(node.params["keepdims"])
    return w.op(REDUCTIONS[node.op], x, w.integers(*axes), keepdims=keep, noop_with_empty_axes=1)


@_rule("var")
def _var(w: Writer, node: Any, xs: list[str]) -> str:
    axes, (x,) = _axes(node), _common(w, node, xs, node.dtype)
    places = w.integers(*axes)
    apart = w.op("Sub", x, w.op("ReduceMean", x, places, keepdims=1))
    total = w.op("ReduceSum", w.op("Mul", apart, apart), places, keepdims=int(node.params["keepdims"]))
    count = math.prod(node.inputs[0].shape[axis] for axis in axes) - node.params["correction"]
    return w.op("Div", total, w.constant(count, node.dtype))


@_rule("argmax", "argmin")
def _place(w: Writer, node: Any, xs: list[str]) -> str:
    (x,), axis = xs, 0
    if node.params["axis"] is None:
        x = w.shaped(x, [math.prod(node.inputs[0].shape)])
    else:
        (axis,) = _axes(node)
    return w.shaped(w.op({"argmax": "ArgMax", "argmin": "ArgMin"}[node.op], x, axis=axis), node.shape)


@_rule("softmax", "log_softmax")
def _softmax(w: Writer, node: Any, xs: list[str]) -> str:
    axes = _axes(node)
    if len(axes) != 1:
        raise UsageError(f"ONNX's softmax goes over one axis, not {axes}")
    kind = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[node.op]
    return w.op(kind, *_common(w, node, xs, node.dtype), axis=axes[0])


# --- the public function ---------------------------------------------------------------------------------------


def save(
    model: Module | Callable[..., Any],
    path: str | os.PathLike[str],
    example_inputs: Any,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write a module or a function as an ONNX model.

    The model is run once on the example, without dropout and other behaviour of training, and what it computed is
    written: loops are unrolled, choices are those of the example, and shapes are the example's. The RNN, GRU and LSTM
    layers of a module become nodes of those operators; a function's are unrolled into their operations. Parameters
    become initializers under their names in the state dictionary, those of recurrent layers as ``path.W_lk``,
    ``path.R_lk``, ``path.B_lk`` and ``path.P_lk``. The file passes ONNX's checker before it appears.

    Args:
        model: a module, or a function of tensors; its results are tensors, in tuples, lists or dictionaries.
        path: the file.
        example_inputs: one array or tensor, a tuple of them, or a dictionary by the names of arguments.
        output_names: names of the results, in their order; by default a dictionary's keys, or ``output``,
            ``output_1`` …

    Raises:
        UsageError: an operation, or an option of a recurrent layer, that ONNX's operators do not have; it is named.
        MissingExtraError: the ``onnx`` package is not installed.
    """
    onnx = library("onnx", "an ONNX model", "onnx")
    inputs = _inputs(model, example_inputs)
    positional = not isinstance(example_inputs, Mapping)
    with no_grad(), _recorded(model) as calls, _core.Tape() as tape:
        results = model(*inputs.values()) if positional else model(**inputs)
    named = _outputs(results, output_names, list(inputs))
    w = Writer(onnx.helper, onnx.numpy_helper, tape)
    w.taken |= {*inputs, *named}
    w.inputs = {id(tensor): name for name, tensor in inputs.items()}
    _write(w, model, calls, list(named.values()))
    for name, tensor in named.items():
        w.nodes.append(onnx.helper.make_node("Identity", [w.value(tensor)], [name]))

    def described(values: Mapping[str, Tensor]) -> list[Any]:
        infos = onnx.helper.make_tensor_value_info
        return [infos(name, CODES[np.dtype(t.dtype)], list(t.shape)) for name, t in values.items()]

    graph = onnx.helper.make_graph(w.nodes, "minigrad", described(inputs), described(named), w.initializers)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="minigrad")
    try:
        onnx.checker.check_model(made, full_check=True)
        data = made.SerializeToString()
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise UsageError(f"this makes no valid ONNX model: {error}") from error
    write_whole(path, data)


def _write(w: Writer, model: Any, calls: list[Call], results: list[Tensor]) -> None:
    """Add nodes for everything that the results depend on."""
    made = {w.tape.of(t).id: call for call in calls for t in call.results}
    parameters = {id(t): name for name, t in model._state()} if isinstance(model, Module) else {}

    def seen(tensors: Sequence[Any]) -> list[Any]:
        found = []
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            with contextlib.suppress(KeyError):
                found.append(w.tape.of(tensor))
        return found

    def parents(node: Any) -> Sequence[Any]:
        call = made.get(node.id)
        return node.inputs if call is None else seen([call.x, *(call.states or ()), call.lengths])

    needed: dict[int, Any] = {}
    waiting = seen(results)
    while waiting:
        node = waiting.pop()
        if node.id not in needed:
            needed[node.id] = node
            waiting.extend(parents(node))
    for _, node in sorted(needed.items()):
        if node.id in w.names:
            continue
        if node.id in made:
            w.recurrent(made[node.id])
        elif node.record is None:
            w.names[node.id] = _leaf(w, node, parameters)
        elif node.op not in RULES:
            place = f" in {node.scope}" if node.scope else ""
            raise UsageError(f"the operation {node.op}{place} has no ONNX operator here")
        else:
            w.names[node.id] = RULES[node.op](w, node, [w.names[x.id] for x in node.inputs])


def _leaf(w: Writer, node: Any, parameters: Mapping[int, str]) -> str:
    """Return the name of an input, a parameter, or a constant."""
    tensor = node.tensor
    if id(tensor) in w.inputs:
        return w.inputs[id(tensor)]
    if tensor.requires_grad:
        return w.initializer(parameters.get(id(tensor)) or tensor.name or "parameter", tensor.detach().numpy())
    return w.constant(tensor.numpy())


def _inputs(model: Any, given: Any) -> dict[str, Tensor]:
    """Return the example by name; arguments without one are named by the model's signature."""

    def fresh(value: Any) -> Tensor:
        # A tensor of its own, outside of any graph: its identity says what is an input.
        return _core.tensor(_core.data_of(as_tensor(value)))

    if isinstance(given, Mapping):
        return {name: fresh(value) for name, value in given.items()}
    values = given if isinstance(given, tuple | list) else (given,)
    signature = inspect.signature(model.forward if isinstance(model, Module) else model)
    words = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    words += [f"input_{k}" for k in range(len(words), len(values))]
    return {name: fresh(value) for name, value in zip(words, values, strict=False)}


def _outputs(results: Any, names: Sequence[str] | None, taken: list[str]) -> dict[str, Tensor]:
    """Return the results by name; nests are opened."""
    found: list[tuple[str, Tensor]] = []

    def collect(value: Any, word: str) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                collect(inner, str(name))
        elif isinstance(value, tuple | list):
            for inner in value:
                collect(inner, word)
        elif isinstance(value, Tensor):
            found.append((word, value))
        elif value is not None:
            raise UsageError(f"a result is {type(value).__name__}; tensors can be written")

    collect(results, "output")
    if names is None:
        names = []
        for word, _ in found:
            free = (f"{word}_{k}" if k else word for k in itertools.count())
            names.append(next(name for name in free if name not in (*names, *taken)))
    if len(names) != len(found) or len({*names, *taken}) < len(names) + len(taken) or not found:
        raise UsageError(f"{len(found)} results, inputs {taken} and names {list(names)}: each needs a name of its own")
    return dict(zip(names, (t for _, t in found), strict=True))
