"""A view as Mermaid text: a flowchart that README files, wikis and notebooks draw by themselves."""

from __future__ import annotations

import json
import re

from minigrad.graph.view import View, ViewEdge, ViewNode
from minigrad.render.labels import node_lines, node_style, step_title, symbols
from minigrad.render.text import runs
from minigrad.render.theme import Theme, theme_named

MOST_EDGES = 500
"""Mermaid draws no more than this unless the page that shows the text raises its ``maxEdges``."""
MOST_CHARACTERS = 50_000
"""Mermaid reads no longer text unless the page that shows it raises its ``maxTextSize``."""

_NAMED = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
_BRACKETS = {"parameter": (">", "]"), "leaf": ("([", "])"), "fold": ("[", "]"), "loss": ("[[", "]]")}
_ARROWS = {"cell": "==>", "hidden": "-.->", "parameter": "-.->"}


def escape(text: str) -> str:
    """Return text that stands for itself inside of a quoted Mermaid string, on one line.

    >>> escape('a "b" #1')
    'a #quot;b#quot; #35;1'
    """
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text)
    return re.sub(r'[#"<>&%`\\;{}|]', lambda found: _NAMED.get(found[0]) or f"#{ord(found[0])};", text)


def to_mermaid(view: View, *, theme: str = "light", title: str | None = None, description: str = "") -> str:
    """Return the view as one flowchart: a subgraph a step in the order of time, every parameter once.

    Node 17 is ``n17``, the fold whose first member is 17 is ``fold17``; what the cell state carries is thick, what
    the hidden state carries dotted, parameters thin and dotted.
    """
    colours = theme_named(theme)
    label = symbols(view)
    name = {n.id: _name(n) for n in view.nodes}
    facing = {"background": colours.paper, "lineColor": colours.line, "clusterBorder": colours.frame_line}
    facing |= dict.fromkeys(("clusterBkg", "edgeLabelBackground"), colours.frame)
    facing |= dict.fromkeys(
        ("textColor", "titleColor", "nodeTextColor", "primaryTextColor", "secondaryTextColor", "tertiaryTextColor"),
        colours.ink,
    )
    lines = ["---", f"title: {json.dumps(title, ensure_ascii=False)}"] if title else ["---"]
    lines += ["config:", "  theme: base", f"  themeVariables: {json.dumps(facing)}", "---", "flowchart LR"]
    lines += [f"  accTitle: {_plain(title or 'Computation graph')}"]
    lines += [f"  accDescr: {_plain(description)}"] if description else []
    lines += [f"  {_node(n, name, label[n.id], view.show)}" for n in view.nodes if n.step is None]
    for t in view.steps:
        inside = [n for n in view.nodes if n.step == t]
        lines.append(f'  subgraph {_step(t)}["{step_title(inside)}"]')
        lines += [f"    {_node(n, name, label[n.id], view.show)}" for n in inside]
        lines.append("  end")
    lines += [f"  {_edge(e, name)}" for e in view.edges]
    lines += _styles(view, colours)
    return "\n".join([*lines, ""])


def _name(node: ViewNode) -> str:
    return node.key.replace("-", "") if node.id < 0 else f"n{node.key}"


def _step(t: int) -> str:
    return f"t{t}" if t >= 0 else f"before{-t}"


def _plain(text: str) -> str:
    """Words of an accessibility line, which ends at the line's end and knows no escapes."""
    return " ".join(re.sub(r"[#%{}<>]", " ", text).split())


def _node(node: ViewNode, name: dict[int, str], label: tuple[str, bool], show: tuple[str, ...]) -> str:
    first, *rest = node_lines(node, label[0], show)
    pieces = runs(first, label[1] and first == label[0])
    words = "".join(f"<sub>{escape(piece)}</sub>" if low else escape(piece) for piece, low in pieces)
    style = node_style(node)
    left, right = _BRACKETS["fold"] if node.kind == "fold" else _BRACKETS.get(style, ("(", ")"))
    return f'{name[node.id]}{left}"{"<br/>".join([words, *map(escape, rest)])}"{right}:::{style}'


def _edge(edge: ViewEdge, name: dict[int, str]) -> str:
    words = f'|"{escape(edge.local)}"|' if edge.local else ""
    return f"{name[edge.source]} {_ARROWS.get(edge.role, '-->')}{words} {name[edge.target]}"


def _styles(view: View, colours: Theme) -> list[str]:
    lines = []
    for style in sorted({node_style(n) for n in view.nodes}):
        line = colours.loss if style == "loss" else colours.line
        fill = colours.fills.get(style, colours.fills["op"])
        lines.append(f"  classDef {style} fill:{fill},stroke:{line},color:{colours.ink}")
    drawn = {"cell": f"stroke:{colours.cell}", "hidden": f"stroke:{colours.hidden},stroke-width:2px"}
    drawn |= {"parameter": f"stroke:{colours.rails[0]},stroke-width:1px"}
    for role, style in drawn.items():
        numbers = [str(k) for k, e in enumerate(view.edges) if e.role == role]
        if numbers:
            lines.append(f"  linkStyle {','.join(numbers)} {style}")
    return lines
