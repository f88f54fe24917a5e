"""A view as DOT text, for those who have Graphviz and their own ideas: written by us, drawn by anybody."""

from __future__ import annotations

import importlib
from typing import Any

from minigrad.errors import MissingExtraError
from minigrad.graph.view import SHOW, View, ViewEdge, ViewNode
from minigrad.render.labels import edge_key, edge_text, node_lines, node_style, node_title, step_title, symbols
from minigrad.render.overlay import flow_levels, way_back
from minigrad.render.theme import Theme, flow_line, theme_named

LONGEST = 16000
"""Graphviz refuses strings beyond 16 384 bytes; longer ones are cut here, with an ellipsis."""


def quote(text: str) -> str:
    r"""Return a double-quoted DOT string: quotes and backslashes escaped, line ends as ``\\n``."""
    raw = text.encode()
    if len(raw) > LONGEST:
        text = raw[:LONGEST].decode(errors="ignore") + "…"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{escaped}"'


def to_dot(
    view: View,
    *,
    theme: str = "light",
    title: str | None = None,
    backward: bool = False,
    flow: str | None = None,
) -> str:
    """Return the view as one DOT graph: a cluster a step in the order of time, every parameter once.

    Every node carries ``id="n-…"`` and every edge ``id="e-…"``, which become ids in Graphviz's SVG. Time runs
    with the ranks, held in order by what one step hands to the next; parameters and inputs do not constrain them.
    With `backward` an edge more, ``id="back-e-…"``, leads back wherever a gradient does; `flow`, "width" or "color",
    follows its size.
    """
    colours = theme_named(theme)
    label = symbols(view)
    keys = {n.id: n.key for n in view.nodes}
    by_id = {n.id: n for n in view.nodes}
    lines = [
        "digraph minigrad {",
        f"  graph [bgcolor={quote(colours.paper)}, rankdir=LR, ranksep=0.35, nodesep=0.12"
        + (f", label={quote(title)}, labelloc=t" if title else "")
        + "]",
        f'  node [fontname="DejaVu Sans", fontsize=11, shape=box, style="rounded,filled", '
        f"fontcolor={quote(colours.ink)}, color={quote(colours.line)}, margin=0.07, height=0.3, width=0.3]",
        f'  edge [fontname="DejaVu Sans", fontsize=8, arrowsize=0.6, color={quote(colours.line)}, '
        f"fontcolor={quote(colours.soft)}]",
    ]
    notes = dict(view.notes)
    loose, steps = view.by_step()
    lines += ["  " + _node(n, label[n.id][0], view.show, colours) for n in loose]
    for t, inside in steps.items():
        lines.append(f"  subgraph {quote(f'cluster_t{t}')} {{")
        lines.append(f"    label={quote(step_title(inside, notes.get(t)))}; labeljust=l;")
        lines.append(f"    color={quote(colours.frame_line)}; bgcolor={quote(colours.frame)};")
        lines += ["    " + _node(n, label[n.id][0], view.show, colours) for n in inside]
        lines.append("  }")
    levels = flow_levels(view) if flow else [None] * len(view.edges)
    for e, level in zip(view.edges, levels, strict=True):
        line = ("", 0.0) if level is None or flow is None else flow_line(colours, flow, level)
        lines.append("  " + _edge(e, by_id, keys, colours, *line))
    for e in way_back(view) if backward else ():
        attributes = f"id={quote('back-' + edge_key(e, keys))}, class=backward, color={quote(colours.backward)}"
        lines.append(f"  {_name(keys[e.target])} -> {_name(keys[e.source])} [{attributes}, constraint=false];")
    return "\n".join([*lines, "}", ""])


def to_graphviz(view: View, *, theme: str = "light", title: str | None = None) -> Any:
    """Return the view as a `graphviz.Source` of the Python package, to be drawn or changed with it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        graphviz = importlib.import_module("graphviz")
    except ImportError:
        raise MissingExtraError("A graphviz.Source", "render") from None
    return graphviz.Source(to_dot(view, theme=theme, title=title))


def _name(key: str) -> str:
    return f"n{key}" if key.isdigit() else quote(f"n{key}")


def _node(node: ViewNode, label: str, show: tuple[str, ...], colours: Theme) -> str:
    style = node_style(node)
    attributes = [
        f"label={quote(chr(10).join(node_lines(node, label, show)))}",
        f"id={quote('n-' + node.key)}",
        f"class={quote(style)}",
        f"tooltip={quote(node_title(node, label))}",
        f"fillcolor={quote(colours.fills.get(style, colours.fills['op']))}",
    ]
    if node.kind == "parameter":
        attributes.append('shape=note, style="filled"')
    if style == "loss":
        attributes.append("peripheries=2")
    if node.lit:
        attributes.append(f"color={quote(colours.lit)}, penwidth=3")
    return f"{_name(node.key)} [{', '.join(attributes)}];"


def _edge(
    e: ViewEdge, by_id: dict[int, ViewNode], keys: dict[int, str], colours: Theme, colour: str, wide: float
) -> str:
    source, target = by_id[e.source], by_id[e.target]
    attributes = [f"id={quote(edge_key(e, keys))}", f"class={quote(e.role)}"]
    if text := edge_text(e, SHOW):
        attributes.append(f"label={quote(text)}")
    if e.role in ("cell", "hidden"):
        attributes.append(f"color={quote(getattr(colours, e.role))}")
        attributes.append("penwidth=2.2" if e.role == "cell" else "style=dotted, penwidth=1.8")
    if e.role == "parameter":
        attributes.append(f"style=dashed, penwidth=0.7, color={quote(colours.rails[0])}")
    if e.cut:
        attributes.append("style=dashed, arrowhead=tee")
    if wide:
        attributes.append(f"penwidth={wide:.2f}" + (f", color={quote(colour)}" if colour else ""))
    if e.lit:
        attributes.append(f"color={quote(colours.lit)}, penwidth=3")
    if e.role == "parameter" or (source.step is None and target.step is not None and e.role == "data"):
        attributes.append("constraint=false")
    return f"{_name(keys[e.source])} -> {_name(keys[e.target])} [{', '.join(attributes)}];"
