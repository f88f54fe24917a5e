"""How nodes and edges are called in a picture: symbols, subscripts, short numbers, sentences for tips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from minigrad.graph.view import View, ViewEdge, ViewNode, gate_letter, parameter_letter

_LONGEST_LOCAL = 30
"""Longer derivatives, which only other programs write into a view, end in an ellipsis."""

GATES = ("forget", "input", "cell", "block", "output", "reset", "update", "new", "candidate")
"""The order of the gates from left to right."""


def edge_key(edge: ViewEdge, view_keys: Mapping[int, str]) -> str:
    """The name of an edge in documents: ``e-<source>-<target>-<argument>``."""
    return f"e-{view_keys[edge.source]}-{view_keys[edge.target]}-{edge.argument}"


def number(value: float) -> str:
    """Return a number as a reader wants it in a small box: three digits, a real minus sign.

    >>> number(-0.123456)
    '−0.123'
    """
    return f"{value:.3g}".replace("-", "−")


def pretty_local(text: str) -> str:
    """Return a derivative's text with the signs of print: y · (1 − y)."""
    return text.replace("**", "^").replace("*", "·").replace("-", "−")


def edge_text(edge: ViewEdge, show: Sequence[str]) -> str:
    """Return what stands on an edge: ∂⁺, how far it can stretch a gradient, and the gradient that it carries."""
    said = []
    if "local" in show and edge.local:
        text = pretty_local(edge.local)
        said.append(text if len(text) <= _LONGEST_LOCAL else text[: _LONGEST_LOCAL - 1] + "…")
    if "gain" in show and edge.gain is not None:
        said.append(f"×{number(edge.gain)}")
    if "flow" in show and edge.contribution is not None:
        said.append(f"δ {number(edge.contribution.norm)}")
    return "  ".join(said)


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape in the space of a box.

    >>> shape_text((8, 32)), shape_text(())
    ('8×32', 'scalar')
    """
    return "×".join(str(n) for n in shape) if shape else "scalar"


def symbols(view: View) -> dict[int, tuple[str, bool]]:
    """Return every node's label as a reader would write it, and whether it has subscripts (``W_f x + b``)."""
    by_id = {n.id: n for n in view.nodes}
    feeds: dict[int, dict[int, ViewEdge]] = {}
    used: dict[int, list[ViewEdge]] = {}
    for e in view.edges:
        used.setdefault(e.source, []).append(e)
        feeds.setdefault(e.target, {})[e.argument] = e
    order: dict[int, int] = {}
    out: dict[int, tuple[str, bool]] = {}
    for n in view.nodes:
        label, math = n.label, False
        if n.tap is not None and n.tap in by_id:
            label = parameter_letter(by_id[n.tap].name)
            order[n.tap] = order.get(n.tap, 0) + 1
            if n.op == "mT" and not n.gate:  # turned round, and otherwise what it was
                label, math = out.get(feeds[n.id][0].source, (label, False)) if n.id in feeds else (label, False)
                label = label if math else parameter_letter(by_id[n.tap].name)
            else:
                label, math = f"{label}_{gate_letter(n.gate) or order[n.tap]}", True
        elif n.op == "getitem" and n.name:
            label = n.display_name or n.name
        elif n.op in ("constant", "input") and not n.name:
            # what it is to all of its readers says something of what has no name; "x" says less than a number
            told = {"c" if e.role == "cell" else "h" if e.role == "hidden" else e.name for e in used.get(n.id, ())}
            word = told.pop() if len(told) == 1 else ""
            if (len(word) > 1 and len(used[n.id]) == 1) or (word and n.label in (n.op, "const")):
                label = word
        out[n.id] = (label, math)
    for n in view.nodes:
        if n.op in ("affine", "matmul") and n.id in feeds:
            edges = feeds[n.id]
            weight = next((e for k, e in edges.items() if k > 0 and e.role == "parameter"), None)
            data = edges.get(0)
            if weight is None or data is None:
                continue
            source = by_id[weight.source]
            letter = out[source.id][0] if source.tap is not None else _letter(source)
            indexed = re.match(r"([a-zA-Z])(?:ₜ|[\[_]?-?\d+\]?)$|([a-zA-Z]{2,5})(?:ₜ|\[-?\d+\])$", data.carries or "")
            operand = indexed[1] or indexed[2] if indexed else "h" if data.role == "hidden" else "x"
            plus = " + b" if len(edges) > 2 else ""
            out[n.id] = (f"{letter} {operand}{plus}", True)
    return out


def _letter(parameter: ViewNode) -> str:
    return "W" if parameter.members else parameter_letter(parameter.name)


def band_of(node: ViewNode) -> tuple[int, int] | None:
    """Return the layer and direction of an operation of a recurrent layer; None for what lies between layers."""
    layer, way = None, 0
    for part in node.scope:
        if part.startswith("layer ") and part[6:].isdecimal():
            layer = int(part[6:])
        elif part in ("forward", "reverse"):
            way = 1 if part == "forward" else 2
    read = node.kind not in ("op", "fold") or node.op == "getitem"
    if layer is None or read or (node.op in ("concatenate", "stack")):
        return None
    return layer, way


def is_block(node: ViewNode) -> bool:
    """Whether a node stands for several different operations, or for a whole layer: it is drawn large."""
    return (node.kind == "fold" and node.op == "fold" and not node.gate) or (
        node.kind == "op" and re.fullmatch(r"(rnn|lstm|gru)(_\w+)?", node.op) is not None
    )


def counted(node: ViewNode) -> str:
    """Return what a fold stands for, in the space of a box."""
    if node.op == "fold":
        said = f"{node.count} operations"
        return "" if node.label.endswith(said) else said
    steps = node.span[1] - node.span[0] + 1 if node.span else 0
    return "" if node.count == steps else f"{node.count} times"


def gate_style(gate: str | None) -> str | None:
    """Return the class of what belongs to a gate."""
    return {"block": "cell", "candidate": "new"}.get(gate, gate) if gate in GATES else None


def node_style(node: ViewNode) -> str:
    """Return the class of a node's box: its kind, or its gate, or what its operation does."""
    if node.op not in ("input", "constant") and (gate := gate_style(node.gate)):
        return gate
    if node.op == "fold":
        return "fold"
    if node.op in ("input", "constant", "parameter"):
        return "leaf" if node.op == "input" else node.op
    if node.label == "ℒ" or node.name == "loss":
        return "loss"
    if node.op == "getitem" and (node.name or node.kind == "fold"):
        return "leaf"
    if is_block(node):
        return "fold"
    return {
        "mul": "mul",
        "add": "add",
        "sub": "add",
        "tanh": "squash",
        "sigmoid": "squash",
        "relu": "squash",
    }.get(node.op, "op")


def node_lines(node: ViewNode, label: str, show: Sequence[str]) -> list[str]:
    """Return what stands on a node where there is room for several lines: label, name, shape, norms."""
    lines = [(node.name or label) if node.kind == "parameter" else label]
    if node.kind == "op" and node.name and node.display_name != label:
        lines.append(node.display_name or "")
    if "shape" in show and node.kind != "fold":
        lines.append(shape_text(node.shape))
    if node.value:
        lines.append(f"‖·‖ {number(node.value.norm)}")
    if node.grad:
        lines.append(f"‖∂‖ {number(node.grad.norm)}")
    return lines


def step_title(inside: Sequence[ViewNode], note: str | None = None) -> str:
    """Return the title of a frame around nodes of one step: ``t = 3``, or the steps that a fold stands for."""
    span = next((n.span for n in inside if n.span), None)
    title = f"t = {span[0]} … {span[1]}" if span else f"t = {inside[0].step}"
    return f"{title}   {note}" if note else title


def node_title(node: ViewNode, label: str) -> str:
    """Return one sentence about a node, for tooltips and screen readers."""
    said = node.display_name or label
    parts = [f"{said}: {node.op}" if node.kind == "op" else f"{said}: {node.kind}"]
    if node.kind == "fold":
        parts = [f"{node.label}, {node.count} operations"]
    elif node.equation:
        parts.append(node.equation)
    if node.kind != "fold":
        parts.append(f"shape {tuple(node.shape)}".replace(",)", ")") if node.shape else "scalar")
    if node.scope:
        parts.append("/".join(node.scope))
    if node.value:
        parts.append(f"norm of the value {number(node.value.norm)}")
    if node.grad:
        parts.append(f"norm of the gradient {number(node.grad.norm)}")
    return ", ".join(parts)
