"""A scene as SVG, written by hand: ids and classes for nodes and edges, titles for those who cannot see it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from itertools import pairwise

from minigrad.render.scene import Box, Scene, Wire, Words
from minigrad.render.text import runs, subscript_size
from minigrad.render.theme import style_sheet

_CORNER = 9.0
_HOP = 4.5
_OWN = "\x01"
"""Stands for a picture's own name until all of it is known; no text can hold it."""
_ARROWS = ("data", "cell", "hidden", "r0", "r1", "r2", "r3", "r4", "r5")
_OVERLAYS = ("route", "cut", "aside")
_CHART_ARROWS = ("forward", "lag", "peephole", "highway", "backward")


def to_svg(scene: Scene, theme: str = "light", description: str = "") -> str:
    """Return the scene as one SVG document.

    What a page would share between the pictures on it, rules and arrow heads, has the picture's own name in it: a hash
    of all that it is made of.
    """
    w, h = _n(scene.width), _n(scene.height)
    across, down = map(math.floor, scene.paper) if scene.zoom != 1 else (w, h)
    title = scene.title or "Computation graph"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mg mg{_OWN}" width="{across}" height="{down}" '
        f'viewBox="0 0 {w} {h}" '
        'role="img" '
        f'aria-labelledby="mg-title{_OWN} mg-desc{_OWN}">',
        f'<title id="mg-title{_OWN}">{escape(title)}</title>',
        f'<desc id="mg-desc{_OWN}">{escape(description)}</desc>',
        "<style>\n" + style_sheet(theme, "mg" + _OWN) + "\n</style>",
        "<defs>" + "".join(_marker(name) for name in _markers(scene)) + "</defs>",
        f'<rect class="paper" width="{w}" height="{h}"/>',
        '<g class="frames">',
    ]
    for f in scene.frames:
        parts.append(
            f'<rect class="{f.style}" x="{_n(f.x)}" y="{_n(f.y)}" width="{_n(f.width)}" '
            f'height="{_n(f.height)}" rx="4"/>' + _text(f.words) + "".join(map(_text, f.notes))
        )
    parts.append('</g><g class="rails">')
    for r in scene.rails:
        parts.append(f'<path class="{r.style}" id="{r.key}" d="M{_n(r.x)} {_n(r.y)}H{_n(r.end)}"/>')
    parts.append('</g><g class="edges">')
    parts += [_wire(wire) for wire in scene.wires]
    parts.append('</g><g class="dots">')
    parts += dict.fromkeys(_dot(*dot) for dot in scene.dots)
    parts.append('</g><g class="nodes">')
    parts += [_box(box) for box in scene.boxes]
    parts.append('</g><g class="words">')
    parts += [_label(words) for wire in scene.wires for words in wire.words]
    parts += [_text(words) for words in scene.words]
    parts.append('</g><g class="legend">')
    for kind, style, x, y in scene.legend:
        if kind == "line":
            parts.append(
                f'<path class="e {style}" d="M{_n(x)} {_n(y)}h22" marker-end="url(#a-{_arrow(style)}{_OWN})"/>'
            )
        elif kind == "delay":
            parts.append(f'<rect class="delay" x="{_n(x + 4)}" y="{_n(y - 4)}" width="8" height="8"/>')
        elif kind == "box":
            parts.append(
                f'<g class="n {style}"><rect class="b" x="{_n(x)}" y="{_n(y - 5)}" width="14" height="10" rx="3"/></g>'
            )
    parts.append("</g></svg>\n")
    made = "\n".join(parts)
    return made.replace(_OWN, "-" + hashlib.sha256(made.encode()).hexdigest()[:8])


def escape(text: str) -> str:
    """Return text that can stand in XML; what XML cannot hold at all becomes the replacement character."""
    text = re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".") if value else "0"


def _arrow(style: str) -> str:
    last = style.split()[-1]
    return last if last in _ARROWS or last in _CHART_ARROWS or last in _OVERLAYS else "data"


def _markers(scene: Scene) -> list[str]:
    """Return which arrow heads a document defines: those of charts only where one is drawn."""
    used = {
        _arrow(style)
        for style in [w.style for w in scene.wires] + [entry[1] for entry in scene.legend if entry[0] == "line"]
    }
    return [*_ARROWS, *(name for name in (*_CHART_ARROWS, *_OVERLAYS) if name in used)]


def _marker(name: str) -> str:
    if name in _CHART_ARROWS:
        size = 13.0 if name == "highway" else 10.0
        return (
            f'<marker id="a-{name}{_OWN}" class="a-{name}" viewBox="0 0 10 8" refX="9.5" refY="4" markerWidth="{size}" '
            f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
            '<path d="M0.5 0.8L9.5 4L0.5 7.2Z"/></marker>'
        )
    size = 12 if name == "route" else 9 if name == "cell" else 7 if not name.startswith("r") else 5.5
    return (
        f'<marker id="a-{name}{_OWN}" class="a-{name}" viewBox="0 0 10 8" refX="9.5" refY="4" markerWidth="{size}" '
        f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0.6L10 4L0 7.4Z"/></marker>'
    )


def _wire(wire: Wire) -> str:
    # ways back that end together are written from that end: their dots then fall on each other, not into the gaps
    back = wire.key.startswith("back-")
    points = wire.points[::-1] if back else wire.points
    d = _path(points, wire.hops) if wire.square else _smooth(points)
    return (
        f'<path class="{" ".join(dict.fromkeys(["e", wire.style, wire.key, *wire.classes]))}" id="{wire.key}" d="{d}"'
        + (f' marker-{"start" if back else "end"}="url(#a-{_arrow(wire.style)}{_OWN})"' if wire.arrow else "")
        + (f"><title>{escape(wire.title)}</title></path>" if wire.title else "/>")
        + (_slashes(wire) if "cut" in wire.style.split() else "")
    )


def _dot(x: float, y: float, style: str) -> str:
    if style == "delay":
        return f'<rect class="delay" x="{_n(x - 4)}" y="{_n(y - 4)}" width="8" height="8"/>'
    if style == "cut":
        return _strokes(x, y)
    return f'<circle class="dot {style}" cx="{_n(x)}" cy="{_n(y)}" r="2.2"/>'


def _slashes(wire: Wire) -> str:
    """Two strokes across the longest part of a wire: the gradient ends here."""
    (ax, ay), (bx, by) = max(pairwise(wire.points), key=lambda part: math.dist(*part))
    x, y = (ax + bx) / 2, (ay + by) / 2
    return _strokes(x, y)


def _strokes(x: float, y: float) -> str:
    return "".join(
        f'<path class="slash" d="M{_n(x + d - 3)} {_n(y + 6)}L{_n(x + d + 3)} {_n(y - 6)}"/>' for d in (-3, 3)
    )


def _smooth(points: Sequence[tuple[float, float]]) -> str:
    """A polyline whose corners are rounded as far as its parts allow."""
    if len(points) < 3:
        return _path(points, ())
    d = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for a, b, c in zip(points, points[1:], points[2:], strict=False):
        r = min(12.0, math.dist(a, b) / 2, math.dist(b, c) / 2)
        p, q = _towards(b, a, r), _towards(b, c, r)
        d.append(f"L{_n(p[0])} {_n(p[1])}Q{_n(b[0])} {_n(b[1])} {_n(q[0])} {_n(q[1])}")
    d.append(f"L{_n(points[-1][0])} {_n(points[-1][1])}")
    return "".join(d)


def _towards(a: tuple[float, float], b: tuple[float, float], r: float) -> tuple[float, float]:
    length = math.dist(a, b) or 1.0
    return (a[0] + (b[0] - a[0]) * r / length, a[1] + (b[1] - a[1]) * r / length)


def _path(points: Sequence[tuple[float, float]], hops: Sequence[tuple[float, float]]) -> str:
    """Straight parts with rounded corners, which leap over the wires they cross."""
    clean = [p for k, p in enumerate(points) if not k or math.dist(p, points[k - 1]) > 0.05]
    d = [f"M{_n(clean[0][0])} {_n(clean[0][1])}"]
    for k in range(1, len(clean)):
        a, b = clean[k - 1], clean[k]
        if abs(a[0] - b[0]) < 0.05:
            sign = 1 if b[1] > a[1] else -1
            for x, y in sorted(hops, key=lambda hop: sign * hop[1]):
                inside = min(a[1], b[1]) + _HOP + 2 < y < max(a[1], b[1]) - _HOP - 2
                if abs(x - a[0]) < 0.05 and inside:
                    sweep = 1 if sign > 0 else 0
                    d.append(
                        f"L{_n(x)} {_n(y - sign * _HOP)}A{_HOP} {_HOP} 0 0 {1 - sweep} {_n(x)} {_n(y + sign * _HOP)}"
                    )
        elif abs(a[1] - b[1]) < 0.05:
            sign = 1 if b[0] > a[0] else -1
            for x, y in sorted(hops, key=lambda hop: sign * hop[0]):
                inside = min(a[0], b[0]) + _HOP + 2 < x < max(a[0], b[0]) - _HOP - 2
                if abs(y - a[1]) < 0.05 and inside:
                    sweep = 1 if sign > 0 else 0
                    d.append(f"L{_n(x - sign * _HOP)} {_n(y)}A{_HOP} {_HOP} 0 0 {sweep} {_n(x + sign * _HOP)} {_n(y)}")
        if k + 1 < len(clean):
            c = clean[k + 1]
            r = min(_CORNER, math.dist(a, b) / 2, math.dist(b, c) / 2)
            p, q = _towards(b, a, r), _towards(b, c, r)
            d.append(f"L{_n(p[0])} {_n(p[1])}Q{_n(b[0])} {_n(b[1])} {_n(q[0])} {_n(q[1])}")
        else:
            d.append(f"L{_n(b[0])} {_n(b[1])}")
    return "".join(d)


def _box(box: Box) -> str:
    left, top, right, bottom = box.box
    x, y, w, h = _n(left), _n(top), _n(box.width), _n(box.height)
    if box.shape == "note":
        fold = 5
        body = (
            f'<path class="b" d="M{x} {y}H{_n(right - fold)}L{_n(right)} {_n(top + fold)}'
            f'V{_n(bottom)}H{x}Z"/>'
            f'<path class="i" d="M{_n(right - fold)} {y}V{_n(top + fold)}H{_n(right)}"/>'
        )
    elif box.shape == "bare":
        body = ""
    elif box.shape == "circle":
        body = f'<circle class="b" cx="{_n(box.x)}" cy="{_n(box.y)}" r="{_n(box.width / 2)}"/>'
    else:
        radius = _n(min(9.0, box.height / 2))
        body = f'<rect class="b" x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}"/>'
        if box.shape == "double":
            body += (
                f'<rect class="i" x="{_n(left + 2)}" y="{_n(top + 2)}" width="{_n(box.width - 4)}" '
                f'height="{_n(box.height - 4)}" rx="{_n(min(7.0, box.height / 2))}"/>'
            )
    words = "".join(_text(word) for word in box.words)
    kinds = " ".join(dict.fromkeys(["n", box.style, box.key, *box.classes]))
    return f'<g class="{kinds}" id="{box.key}"><title>{escape(box.title)}</title>{body}{words}</g>'


def _label(words: Words) -> str:
    """Words on a line, with the line hidden behind them."""
    left, top, right, bottom = (_n(v) for v in words.box)
    wide, high = (0.0, 2.0) if words.turn else (2.0, 0.0)  # along the text there may be a line to end
    w, h = _n(float(right) - float(left) + 2 * wide), _n(float(bottom) - float(top) + 2 * high)
    x, y = _n(float(left) - wide), _n(float(top) - high)
    return f'<rect class="lb" x="{x}" y="{y}" width="{w}" height="{h}"/>{_text(words)}'


def _text(words: Words) -> str:
    # letters of DejaVu stand on a baseline 0.35 em below their middle
    x, y = words.x, words.y + 0.35 * words.size
    face = "" if words.face == "sans" else f" {words.face}"
    attributes = f'class="{words.style}{face}" font-size="{_n(words.size)}"'
    if words.anchor != "start":
        attributes += f' text-anchor="{words.anchor}"'
    if words.turn:
        place = f'transform="translate({_n(words.x + 0.35 * words.size)} {_n(words.y)})rotate(-90)"'
    else:
        place = f'x="{_n(x)}" y="{_n(y)}"'
    pieces = runs(words.text, words.math)
    if len(pieces) == 1 and not pieces[0][1]:
        return f"<text {place} {attributes}>{escape(words.text)}</text>"
    drop, body, low_before = _n(0.18 * words.size), "", False
    for piece, low in pieces:
        shift = f' dy="{drop}"' if low and not low_before else f' dy="-{drop}"' if low_before and not low else ""
        size = f' font-size="{_n(subscript_size(words.size))}"' if low else ""
        body += f"<tspan{shift}{size}>{escape(piece)}</tspan>" if shift or size else escape(piece)
        low_before = low
    return f'<text {place} {attributes} xml:space="preserve">{body}</text>'
