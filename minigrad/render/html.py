"""One self-contained page around a picture: select, zoom, and walk the graph forward and backward."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

from minigrad.graph.view import View, gate_letter
from minigrad.render.labels import edge_key, symbols
from minigrad.render.svg import escape
from minigrad.render.theme import theme_named

_FACES = (
    ("DejaVuSans", "normal", "normal"),
    ("DejaVuSans-Bold", "bold", "normal"),
    ("DejaVuSans-Oblique", "normal", "oblique"),
)


def to_page(view: View, svg: str, theme: str = "light", title: str | None = None) -> str:
    """Return an HTML document that needs nothing else; without JavaScript it still shows the picture."""
    colours = theme_named(theme)
    label = symbols(view)
    keys = {n.id: n.key for n in view.nodes}
    data = {
        **view.as_dict(),
        "labels": {n.key: label[n.id][0] for n in view.nodes},
        "gates": {n.key: gate_letter(n.gate) for n in view.nodes if gate_letter(n.gate)},
        "edgeKeys": [edge_key(e, keys) for e in view.edges],
    }
    # no "<" at all: neither a closing tag nor a comment in a name can end the element
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    variables = {
        name: getattr(colours, name) for name in ("paper", "ink", "soft", "frame", "frame_line", "hidden", "cell")
    }
    css = ":root{" + "".join(f"--{k.replace('_', '-')}:{v};" for k, v in variables.items()) + "}"
    name = title or "Computation graph"
    return _asset("page.html").format(
        title=escape(name),
        fonts="\n".join(_font(*face) for face in _FACES),
        variables=css,
        css=_asset("page.css"),
        svg=svg,
        data=text,
        script=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return files("minigrad.render").joinpath("assets", name).read_text("utf-8")


def _font(file: str, weight: str, style: str) -> str:
    raw = files("minigrad.render").joinpath("assets", "fonts", f"{file}.woff2").read_bytes()
    source = f"url(data:font/woff2;base64,{base64.b64encode(raw).decode()})"
    return f"@font-face{{font-family:'DejaVu Sans';font-weight:{weight};font-style:{style};src:{source}}}"
