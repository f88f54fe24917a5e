"""One self-contained page around a picture: walk the graph both ways, ask for values, gradients and routes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from minigrad.graph.view import View
from minigrad.graph.walk import Walk
from minigrad.render.labels import edge_key, symbols
from minigrad.render.svg import escape
from minigrad.render.theme import theme_named

_FACES = (
    ("DejaVuSans", "DejaVu Sans", "normal", "normal"),
    ("DejaVuSans-Bold", "DejaVu Sans", "bold", "normal"),
    ("DejaVuSans-Oblique", "DejaVu Sans", "normal", "oblique"),
    ("STIXTwoMath", "STIX Two Math", "normal", "normal"),
)
_SCRIPTS = ("graph", "routes", "formulas", "picture", "folds", "panel", "ledger", "play", "start")
"""The page's scripts in the order in which they build on each other; together they are one function."""
_STEPS_OPEN = 12
"""Longer sequences open with their middle steps folded."""


def to_page(
    view: View,
    svg: str,
    theme: str = "light",
    title: str | None = None,
    *,
    walk: Walk | None = None,
    whole: View | None = None,
    foldable: bool = True,
) -> str:
    """Return an HTML document that needs nothing else; without JavaScript it still shows the picture.

    Args:
        view: what the picture shows.
        svg: the picture; nodes and edges are found in it by their ids.
        theme: whose colours the page takes.
        title: the page's heading.
        walk: the walk through the same tape; without it the page shows structure and summaries only.
        whole: everything on the tape, if the picture leaves out or bundles some of it.
        foldable: whether its frames are steps that can be narrowed.
    """
    colours = theme_named(theme)
    whole = whole or view
    keys = {n.id: n.key for n in view.nodes}
    drawn = {key: edge_key(e, keys) for e in view.edges for key in e.keys}
    steps = view.steps
    data = {
        "nodes": _records(whole),
        "edges": [
            _record(e) | {"key": drawn.get((e["source"], e["target"], e.get("argument", 0)))}
            for e in whole.as_dict()["edges"]
        ],
        "folds": [] if whole is view else [n for n in _records(view) if n["id"] < 0],
        "foldable": foldable,
        "folded": list(steps[3:-2]) if len(steps) > _STEPS_OPEN else [],
        "walk": None if walk is None else _packed(walk),
    }
    # no "<" at all: neither a closing tag nor a comment in a name can end the element
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    names = ("paper", "ink", "soft", "frame", "frame_line", "hidden")
    css = "".join(f"--{name.replace('_', '-')}:{getattr(colours, name)};" for name in names)
    scheme = "dark" if theme == "dark" else "light"
    return _asset("page.html").format(
        title=escape(title or "Computation graph"),
        scheme=scheme,
        fonts="\n".join(_font(*face) for face in _FACES),
        variables=f":root{{color-scheme:{scheme};{css}}}",
        css=_asset("page.css"),
        svg=svg,
        data=text,
        script="\n".join(_asset(f"{name}.js") for name in _SCRIPTS),
    )


def _records(view: View) -> list[dict[str, Any]]:
    """Return the nodes of a view with what the picture calls them."""
    label = symbols(view)
    records: list[dict[str, Any]] = view.as_dict()["nodes"]
    for record, node in zip(records, view.nodes, strict=True):
        symbol, math = label[node.id]
        record |= {"key": node.key, "symbol": symbol} | ({"math": 1} if math else {})
    return records


def _record(edge: dict[str, Any]) -> dict[str, Any]:
    kept = ("source", "target", "argument", "name", "role")
    return {name: edge[name] for name in kept if name in edge}


class _Pool:
    """Runs of numbers, one behind the other as bytes; equal runs are kept once."""

    def __init__(self, code: str) -> None:
        self.code, self.parts, self.count = code, [], 0  # type: tuple[str, list[bytes], int]
        self._known: dict[bytes, list[int]] = {}

    def add(self, numbers: Iterable[Any]) -> list[int]:
        """Return the place and the length of a run."""
        listed = list(numbers)
        raw = struct.pack(f"<{len(listed)}{self.code}", *listed)
        if raw not in self._known:
            self._known[raw] = [self.count, len(listed)]
            self.parts.append(raw)
            self.count += len(listed)
        return self._known[raw]

    def text(self) -> str:
        return base64.b64encode(b"".join(self.parts)).decode()


def _packed(walk: Walk) -> dict[str, Any]:
    """Return a walk as JSON's types, its numbers in two strings of bytes: exact, and a third of their digits."""
    numbers, places = _Pool("f" if walk.dtype == "float32" else "d"), _Pool("I")
    flows = [
        {
            "edge": [f.target, f.argument],
            "contribution": None if f.contribution is None else numbers.add(f.contribution),
            "local": None
            if f.local is None
            else [places.add(f.local.rows), places.add(f.local.columns), numbers.add(f.local.values)],
        }
        for f in walk.flows
    ]
    packed = {
        "roots": walk.roots,
        "backward": walk.backward,
        "losses": walk.losses,
        "ledgers": walk.ledgers,
        "residual": walk.residual,
        "notes": walk.notes,
        "formulas": {op: vars(formulas) for op, formulas in walk.formulas.items()},
        "values": {str(i): numbers.add(run) for i, run in walk.values.items()},
        "shapes": {str(i): shape for i, shape in walk.shapes.items()},
        "gradients": {str(i): numbers.add(run) for i, run in walk.gradients.items()},
        "flows": flows,
    }
    return packed | {"dtype": walk.dtype, "numbers": numbers.text(), "places": places.text()}


def _asset(name: str) -> str:
    return files("minigrad.render").joinpath("assets", "page", name).read_text("utf-8")


def _font(file: str, family: str, weight: str, style: str) -> str:
    raw = files("minigrad.render").joinpath("assets", "fonts", f"{file}.woff2").read_bytes()
    source = f"url(data:font/woff2;base64,{base64.b64encode(raw).decode()})"
    return f"@font-face{{font-family:'{family}';font-weight:{weight};font-style:{style};src:{source}}}"
