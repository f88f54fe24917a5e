"""One self-contained page around a picture: walk the graph both ways, ask for values, gradients and routes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from minigrad.graph.view import Key, View, ViewEdge
from minigrad.graph.walk import Flow, Walk
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
    scopes = _Table()
    data = {
        "nodes": _records(whole, walk, scopes),
        "edges": [_edge(e, drawn) for e in whole.edges],
        "folds": [] if whole is view else [n for n in _records(view, None, scopes) if n["id"] < 0],
        "scopes": scopes.rows,
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


class _Table:
    """Rows that many records share, each kept once."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self._places: dict[tuple[str, ...], int] = {}

    def place(self, row: tuple[str, ...]) -> int:
        if row not in self._places:
            self._places[row] = len(self.rows)
            self.rows.append(row)
        return self._places[row]


_SAID = ("id", "op", "kind", "name", "time", "step", "tap", "shape", "dtype", "params", "requires_grad", "members")
"""What the page needs of every node."""


def _records(view: View, walk: Walk | None, scopes: _Table) -> list[dict[str, Any]]:
    """Return the nodes of a view with what the picture calls them; summaries only of arrays that the walk lacks."""
    label = symbols(view)
    records = []
    for whole, node in zip(view.as_dict()["nodes"], view.nodes, strict=True):
        symbol, math = label[node.id]
        record = {name: whole[name] for name in _SAID if name in whole} | {"symbol": symbol}
        if node.scope:
            record["scope"] = scopes.place(node.scope)
        if math:
            record["math"] = 1
        if walk is not None and node.op in walk.formulas and walk.formulas[node.op].value is None:
            record["equation"] = node.equation
        for name, carried in (("value", walk and walk.values), ("grad", walk and walk.gradients)):
            if name in whole and not (carried and node.id in carried):
                record[name] = {k: v for k, v in whole[name].items() if k != "numbers"}
        records.append(record)
    return records


def _edge(edge: ViewEdge, drawn: Mapping[Key, str]) -> list[Any]:
    """Return source, target, argument, the operand's name, and the mark in the picture if it is called otherwise."""
    own = (edge.source, edge.target, edge.argument)
    mark = drawn.get(own)
    return [*own, edge.name] + ([] if mark is None or mark == "e-{}-{}-{}".format(*own) else [mark])


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

    def flow(f: Flow) -> list[Any]:
        """Return target, argument, start of the contribution, and of ∂⁺ the starts of three runs and their length."""
        found = [f.target, f.argument, None if f.contribution is None else numbers.add(f.contribution)[0]]
        if f.local is None:
            return found
        return [*found, places.add(f.local.rows)[0], places.add(f.local.columns)[0], *numbers.add(f.local.values)]

    ledgers = [
        {name: kept for name, kept in ledger.items() if name not in ("norms", "cosines")}
        | {"norms": [numbers.add(_trimmed(row)) for row in ledger["norms"]]}
        for ledger in walk.ledgers
    ]
    packed = {
        "roots": walk.roots,
        "backward": walk.backward,
        "losses": walk.losses,
        "rows": walk.rows,
        "ledgers": ledgers,
        "residual": walk.residual,
        "notes": walk.notes,
        "formulas": {op: vars(formulas) for op, formulas in walk.formulas.items()},
        "values": {str(i): numbers.add(run) for i, run in walk.values.items()},
        "shapes": {str(i): shape for i, shape in walk.shapes.items()},
        "gradients": {str(i): numbers.add(run) for i, run in walk.gradients.items()},
        "flows": [flow(f) for f in walk.flows],
    }
    return packed | {"dtype": walk.dtype, "numbers": numbers.text(), "places": places.text()}


def _trimmed(row: Sequence[float]) -> Sequence[float]:
    """Return a row without the zeros at its end: no loss depends on later steps."""
    return row[: max((k + 1 for k, v in enumerate(row) if v), default=0)]


def _asset(name: str) -> str:
    return files("minigrad.render").joinpath("assets", "page", name).read_text("utf-8")


def _font(file: str, family: str, weight: str, style: str) -> str:
    raw = files("minigrad.render").joinpath("assets", "fonts", f"{file}.woff2").read_bytes()
    source = f"url(data:font/woff2;base64,{base64.b64encode(raw).decode()})"
    return f"@font-face{{font-family:'{family}';font-weight:{weight};font-style:{style};src:{source}}}"
