"""A view as Mermaid text: a flowchart that README files, wikis and notebooks draw by themselves."""

from __future__ import annotations

import json
import re

from minigrad.graph.view import View, ViewEdge, ViewNode
from minigrad.render.labels import edge_text, node_lines, node_style, step_title, symbols
from minigrad.render.overlay import flow_levels, way_back
from minigrad.render.text import runs
from minigrad.render.theme import Theme, flow_line, theme_named

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


def to_mermaid(
    view: View,
    *,
    theme: str = "light",
    title: str | None = None,
    description: str = "",
    backward: bool = False,
    flow: str | None = None,
) -> str:
    """Return the view as one flowchart: a subgraph a step in the order of time, every parameter once.

    Node 17 is ``n17``, the fold whose first member is 17 is ``fold17``; what the cell state carries is thick, what
    the hidden state carries dotted, parameters thin and dotted; a cross ends an edge that no gradient passes. With
    `backward` an edge more leads back wherever a gradient does; `flow`, "width" or "color", follows its size.
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
    notes = dict(view.notes)
    loose, steps = view.by_step()
    lines += [f"  {_node(n, name, label[n.id], view.show)}" for n in loose]
    for t, inside in steps.items():
        lines.append(f'  subgraph {_step(t)}["{escape(step_title(inside, notes.get(t)))}"]')
        lines += [f"    {_node(n, name, label[n.id], view.show)}" for n in inside]
        lines.append("  end")
    lines += [f"  {_edge(e, name, view.show)}" for e in view.edges]
    back = way_back(view) if backward else []
    lines += [f"  {name[e.target]} -.-> {name[e.source]}" for e in back]
    lines += _styles(view, colours, flow)
    lines += [f"  style {name[n.id]} stroke:{colours.lit},stroke-width:4px" for n in view.nodes if n.lit]
    if back:
        numbers = range(len(view.edges), len(view.edges) + len(back))
        lines.append(f"  linkStyle {','.join(map(str, numbers))} stroke:{colours.backward},stroke-width:1.5px")
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


def _edge(edge: ViewEdge, name: dict[int, str], show: tuple[str, ...]) -> str:
    text = edge_text(edge, show)
    words = f'|"{escape(text)}"|' if text else ""
    arrow = "--x" if edge.cut else _ARROWS.get(edge.role, "-->")
    return f"{name[edge.source]} {arrow}{words} {name[edge.target]}"


def _styles(view: View, colours: Theme, flow: str | None) -> list[str]:
    lines = []
    for style in sorted({node_style(n) for n in view.nodes}):
        line = colours.loss if style == "loss" else colours.line
        fill = colours.fills.get(style, colours.fills["op"])
        lines.append(f"  classDef {style} fill:{fill},stroke:{line},color:{colours.ink}")
    drawn = {"cell": f"stroke:{colours.cell}", "hidden": f"stroke:{colours.hidden},stroke-width:2px"}
    drawn |= {"parameter": f"stroke:{colours.rails[0]},stroke-width:1px"}
    of = {style: [k for k, e in enumerate(view.edges) if e.role == role] for role, style in drawn.items()}
    for k, level in enumerate(flow_levels(view) if flow else ()):
        if flow and level is not None:
            colour, wide = flow_line(colours, flow, level)
            of.setdefault((f"stroke:{colour}," if colour else "") + f"stroke-width:{wide:.2f}px", []).append(k)
    # the last line that names an edge wins
    of[f"stroke:{colours.lit},stroke-width:4px"] = [k for k, e in enumerate(view.edges) if e.lit]
    for style, numbers in of.items():
        if numbers:
            lines.append(f"  linkStyle {','.join(map(str, numbers))} {style}")
    return lines
