"""Tapes made by hand, structured as recurrent layers record them, with numbers from no library."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOCAL = {
    "mul": ("b", "a"),
    "add": ("1", "1"),
    "tanh": ("(1 - y) * (1 + y)",),
    "sigmoid": ("y * (1 - y)",),
    "affine": ("weight", "x", "1"),
    "cross_entropy": ("softmax(x) - onehot", None),
}
ARGUMENTS = {
    "mul": ("a", "b"),
    "add": ("a", "b"),
    "affine": ("x", "weight", "bias"),
    "cross_entropy": ("x", "target"),
    "embedding": ("weight", "index"),
}
EQUATION = {
    "mul": "a * b",
    "add": "a + b",
    "affine": "x @ weight.T + bias",
    "tanh": "tanh(x)",
    "sigmoid": "sigmoid(x)",
    "cross_entropy": "-log_softmax(x)[target]",
}


@dataclass(eq=False)
class FakeNode:
    id: int
    op: str
    kind: str
    inputs: tuple[FakeNode, ...]
    arguments: tuple[str, ...]
    local: tuple[str | None, ...]
    local_latex: tuple[str | None, ...]
    equation: str
    params: dict[str, Any]
    scope: str
    time: int | None
    name: str | None
    value: np.ndarray | None
    grad: np.ndarray | None
    requires_grad: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> str:
        return str(self.value.dtype)


@dataclass
class FakeTape:
    nodes: list[FakeNode] = field(default_factory=list)
    path: list[str] = field(default_factory=list)

    @contextmanager
    def scope(self, *parts: str):
        self.path.extend(parts)
        yield
        del self.path[len(self.path) - len(parts) :]

    def leaf(self, kind: str, shape: tuple[int, ...], name: str | None = None, integer: bool = False) -> FakeNode:
        size = int(np.prod(shape, dtype=int))
        if integer:
            value = np.arange(1, size + 1, dtype=np.int64).reshape(shape) % 7
        else:
            phase = 1 + len(self.nodes)
            value = np.array([((k * 37 + phase * 11) % 101 - 50) / 64 for k in range(size)]).reshape(shape)
        return self._append(kind, kind, (), value, name, {}, kind == "parameter")

    def op(self, op: str, *inputs: FakeNode, name: str | None = None, **params: Any) -> FakeNode:
        values = [n.value for n in inputs]
        if op == "affine":
            value = values[0] @ values[1].T + values[2]
        elif op == "getitem":
            value = values[0][params["index"]]
        elif op == "embedding":
            value = values[0][values[1]]
        elif op == "cross_entropy":
            logits = values[0] - values[0].max(-1, keepdims=True)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            value = -log_p[np.arange(len(logits)), values[1]].mean()
        elif op == "sigmoid":
            value = 1 / (1 + np.exp(-values[0]))
        else:
            value = {
                "add": np.add, "mul": np.multiply, "tanh": np.tanh, "matmul": np.matmul, "square": np.square,
                "sum": np.sum, "relu": lambda x: np.maximum(x, 0), "stack": lambda *x: np.stack(x),
                "div": np.divide,
            }[op](*values)  # fmt: skip
        value = np.round(np.asarray(value), 6)
        return self._append(op, "op", inputs, value, name, params, any(n.requires_grad for n in inputs))

    def _append(self, op, kind, inputs, value, name, params, requires_grad) -> FakeNode:
        time = None
        for part in self.path:
            if part.startswith("t="):
                time = int(part[2:])
        arguments = ARGUMENTS.get(op, ("x",) * len(inputs))
        local = LOCAL.get(op, ("1",) * len(inputs))
        grad = np.round(value * 0.25 + 0.01 * (len(self.nodes) % 7), 6) if requires_grad else None
        node = FakeNode(
            len(self.nodes), op, kind, tuple(inputs), arguments, local, local, EQUATION.get(op, ""), params,
            "/".join(self.path), time, name, value, grad, requires_grad,
        )  # fmt: skip
        self.nodes.append(node)
        return node


def lstm(
    steps: int, inputs: int = 3, hidden: int = 5, classes: int = 7, first: int = 1, embedded: bool = True,
    named: bool = True, losses_inside: bool = True, loss: bool = True,
) -> FakeTape:  # fmt: skip
    """An LSTM of one layer with cross entropy at every step and the losses added up."""
    tape = FakeTape()
    four = 4 * hidden
    w_ih = tape.leaf("parameter", (four, inputs), "weight_ih_l0")
    w_hh = tape.leaf("parameter", (four, hidden), "weight_hh_l0")
    b_ih = tape.leaf("parameter", (four,), "bias_ih_l0")
    b_hh = tape.leaf("parameter", (four,), "bias_hh_l0")
    w_out = tape.leaf("parameter", (classes, hidden), "head.weight")
    b_out = tape.leaf("parameter", (classes,), "head.bias")
    if embedded:
        table = tape.leaf("parameter", (classes, inputs), "embed.weight")
        index = tape.leaf("input", (steps, 1), "text", integer=True)
        sequence = tape.op("embedding", table, index)
    else:
        sequence = tape.leaf("input", (steps, 1, inputs), "x")
    h = tape.leaf("constant", (1, hidden), f"h[{first - 1}]" if named else None)
    c = tape.leaf("constant", (1, hidden), f"c[{first - 1}]" if named else None)
    gates = ("input", "forget", "cell", "output")
    with tape.scope("lstm", "layer 0"):
        parts = {}
        for k, gate in enumerate(gates):
            rows = slice(k * hidden, (k + 1) * hidden)
            parts[gate] = [tape.op("getitem", p, index=rows) for p in (w_ih, w_hh, b_ih, b_hh)]
    hs, losses = [], []

    def step_loss(t, h):
        logits = tape.op("affine", h, w_out, b_out, name=f"y[{t}]" if named else None)
        target = tape.leaf("constant", (1,), integer=True)
        losses.append(tape.op("cross_entropy", logits, target))

    for t in range(first, first + steps):
        with tape.scope("lstm", "layer 0", f"t={t}"):
            x = tape.op("getitem", sequence, name=f"x[{t}]" if named else None, index=t - first)
            out = {}
            for gate in gates:
                w, u, b, b2 = parts[gate]
                with tape.scope(f"{gate} gate"):
                    total = tape.op("add", tape.op("affine", x, w, b), tape.op("affine", h, u, b2))
                    out[gate] = tape.op("tanh" if gate == "cell" else "sigmoid", total)
            keep = tape.op("mul", out["forget"], c)
            c = tape.op("add", keep, tape.op("mul", out["input"], out["cell"]), name=f"c[{t}]" if named else None)
            h = tape.op("mul", out["output"], tape.op("tanh", c), name=f"h[{t}]" if named else None)
            hs.append(h)
        if loss and losses_inside:
            with tape.scope(f"t={t}"):
                step_loss(t, h)
    if loss and not losses_inside:
        for t, h in enumerate(hs, first):
            step_loss(t, h)
    if loss:
        total = losses[0]
        for extra in losses[1:]:
            total = tape.op("add", total, extra)
        total.name = "loss"
    return tape


def rnn(steps: int, inputs: int = 3, hidden: int = 5, classes: int = 2, last_only: bool = False) -> FakeTape:
    """A simple RNN; with `last_only` one loss at the end, as for weather or sentiment."""
    tape = FakeTape()
    w = tape.leaf("parameter", (hidden, inputs), "weight_ih_l0")
    u = tape.leaf("parameter", (hidden, hidden), "weight_hh_l0")
    b = tape.leaf("parameter", (hidden,), "bias_ih_l0")
    b2 = tape.leaf("parameter", (hidden,), "bias_hh_l0")
    v = tape.leaf("parameter", (classes, hidden), "head.weight")
    a = tape.leaf("parameter", (classes,), "head.bias")
    h = tape.leaf("constant", (1, hidden), "h[0]")
    losses = []
    for t in range(1, steps + 1):
        with tape.scope("rnn", "layer 0", f"t={t}"):
            x = tape.leaf("input", (1, inputs), f"x[{t}]")
            total = tape.op("add", tape.op("affine", x, w, b), tape.op("affine", h, u, b2))
            h = tape.op("tanh", total, name=f"h[{t}]")
        if not last_only or t == steps:
            scope = () if last_only else (f"t={t}",)
            with tape.scope(*scope):
                logits = tape.op("affine", h, v, a, name=f"y[{t}]")
                losses.append(tape.op("cross_entropy", logits, tape.leaf("constant", (1,), integer=True)))
    total = losses[0]
    for extra in losses[1:]:
        total = tape.op("add", total, extra)
    total.name = "loss"
    return tape


def diamond() -> FakeTape:
    """b = a + a, c = b * b: four routes, two of them through each argument."""
    tape = FakeTape()
    a = tape.leaf("input", (1,), "a")
    a.requires_grad = True
    b = tape.op("add", a, a, name="b")
    tape.op("mul", b, b, name="c")
    return tape


def mlp(widths: tuple[int, ...] = (3, 5, 11, 7)) -> FakeTape:
    """Affine and tanh, layer by layer, no time anywhere."""
    tape = FakeTape()
    x = tape.leaf("input", (11, widths[0]), "x")
    for k, (n, m) in enumerate(itertools.pairwise(widths)):
        weight = tape.leaf("parameter", (m, n), f"layers.{k}.weight")
        bias = tape.leaf("parameter", (m,), f"layers.{k}.bias")
        with tape.scope(f"layer {k}"):
            x = tape.op("affine", x, weight, bias)
            if k < len(widths) - 2:
                x = tape.op("tanh", x)
    tape.op("cross_entropy", x, tape.leaf("constant", (11,), "target", integer=True), name="loss")
    return tape


def chain(length: int) -> FakeTape:
    """One operation after the other."""
    tape = FakeTape()
    x = tape.leaf("input", (1,), "x")
    x.requires_grad = True
    for _ in range(length):
        x = tape.op("tanh", x)
    return tape
