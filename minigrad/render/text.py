"""How wide a text is, from the advance widths of the fonts that travel with the package."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

FACES = {"sans": "DejaVuSans", "bold": "DejaVuSans-Bold", "oblique": "DejaVuSans-Oblique"}
_UNITS = 2048
_SUBSCRIPT = 0.72
"""A subscript's size beside its letter's."""


@cache
def _widths(face: str) -> dict[str, int]:
    table = json.loads(files("minigrad.render").joinpath("assets", "widths.json").read_text("ascii"))
    return table[FACES[face]]


def runs(text: str, math: bool) -> list[tuple[str, bool]]:
    """Split a label into pieces and whether each is a subscript: in mathematics ``W_f x`` lowers the f."""
    if not math or "_" not in text:
        return [(text, False)]
    head, *rest = text.split("_")
    pieces = [(head, False)]
    for part in rest:
        pieces += [(part[:1], True), (part[1:], False)]
    return [(piece, low) for piece, low in pieces if piece]


def width(text: str, size: float, face: str = "sans", math: bool = False) -> float:
    """Return the width of one line of text in pixels; letters that the fonts lack count as an em."""
    table = _widths(face)
    total = 0.0
    for piece, low in runs(text, math):
        total += sum(table.get(c, _UNITS) for c in piece) * (_SUBSCRIPT if low else 1)
    return total * size / _UNITS


def subscript_size(size: float) -> float:
    """Return the font size of a subscript in a text of this size."""
    return round(size * _SUBSCRIPT, 2)
