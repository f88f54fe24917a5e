"""What is laid over a finished scene: lit routes, cut edges, the gradient that flows, and the sweep back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from minigrad.graph.view import View, ViewEdge, pretty
from minigrad.render.labels import edge_key
from minigrad.render.scene import Box, Point, Rail, Scene, Wire

LEVELS = 10
"""Widths and colours that a gradient's size is shown in."""
DECADES = 6.0
"""Powers of ten below the largest gradient that can still be told apart."""
APART = 4.0
"""Pixels between an edge and the way back along it."""


def overlay(scene: Scene, view: View, *, backward: bool = False, flow: str | None = None) -> None:
    """Change a scene's wires, boxes and rails as the view's edges ask for it.

    Args:
        scene: what was drawn of the view.
        view: its edges say which are cut and lit, and what gradient they carry.
        backward: draw the way of the gradient beside every edge that carries one.
        flow: "width" or "color" follows the contribution, in steps of a logarithmic scale.
    """
    keys = {n.id: n.key for n in view.nodes}
    edges = {edge_key(e, keys): e for e in view.edges}
    if any(e.cut for e in view.edges):
        scene.wires = [w.styled("cut") if edges[w.key].cut else w for w in scene.wires]
    if flow is not None:
        _show_flow(scene, edges, flow)
    if backward:
        scene.wires += _way_back(scene.wires, keys, view)
    if any(e.lit for e in view.edges) or any(n.lit for n in view.nodes):
        _light(scene, edges, keys, {f"n-{n.key}" for n in view.nodes if n.lit})


def _show_flow(scene: Scene, edges: Mapping[str, ViewEdge], how: str) -> None:
    sizes = {key: e.contribution.norm for key, e in edges.items() if e.contribution is not None}
    low, high = flow_range(sizes.values())
    scene.flow = (how, low, high)
    for k, wire in enumerate(scene.wires):
        size = sizes.get(wire.key)
        level = flow_level(size, low, high)
        if level is not None:
            scene.wires[k] = replace(wire, classes=(*wire.classes, f"{how}{level}"))


def flow_range(sizes: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and the largest gradient that a picture tells apart."""
    seen = [size for size in sizes if size > 0 and math.isfinite(size)]
    high = max(seen, default=1.0)
    return max(min(seen, default=1.0), high * 10**-DECADES), high


def flow_level(size: float | None, low: float, high: float) -> int | None:
    """Return on which of the levels a size is; None where there is no gradient."""
    if size is None or math.isnan(size):
        return None
    if size <= low:
        return 0
    if size >= high:
        return LEVELS - 1
    return round((LEVELS - 1) * math.log(size / low) / math.log(high / low))


def way_back(view: View) -> list[ViewEdge]:
    """Return the edges that a gradient comes back along: those that carried one, or could if none was measured.

    A gradient of zeros does not come back: where a unit is dead, or a part of the loss is not looked at, it ends.
    """
    learns = {n.id: n.requires_grad for n in view.nodes}
    known = any(e.contribution is not None for e in view.edges)
    return [e for e in view.edges if (flows(e) if known else learns[e.source] and learns[e.target] and not e.cut)]


def flows(edge: ViewEdge) -> bool:
    """Whether a gradient came back along an edge."""
    return edge.contribution is not None and edge.contribution.norm != 0


def flow_levels(view: View) -> list[int | None]:
    """Return for each edge on which of the levels the gradient is that it carries."""
    sizes = [None if e.contribution is None else e.contribution.norm for e in view.edges]
    low, high = flow_range(size for size in sizes if size is not None)
    return [flow_level(size, low, high) for size in sizes]


def _way_back(wires: Sequence[Wire], keys: Mapping[int, str], view: View) -> list[Wire]:
    carries = {edge_key(e, keys) for e in way_back(view)}
    back = []
    for wire in wires:
        if wire.key in carries and len(wire.points) > 1:
            points = tuple(reversed(beside(wire.points, APART, wire.square)))
            back.append(Wire(f"back-{wire.key}", points, "backward", f"gradient of {wire.title}", (), wire.square))
    return back


def beside(points: Sequence[Point], by: float, square: bool = True) -> list[Point]:
    """Return the line that runs beside another one; its ends move along the edges of the boxes that they touch."""
    clean = [p for k, p in enumerate(points) if not k or math.dist(p, points[k - 1]) > 0.05]
    if len(clean) < 2:
        return list(points)
    for tip, corner in ((0, 1), (-1, -2)) if not square else ():  # a bend at the very box: beside it none fits
        if len(clean) > 2 and math.dist(clean[tip], clean[corner]) < by:
            del clean[corner]
    normals = []
    for (ax, ay), (bx, by_) in pairwise(clean):
        length = math.hypot(bx - ax, by_ - ay)
        normals.append((-(by_ - ay) / length * by, (bx - ax) / length * by))
    moved: list[Point] = []
    for k, (x, y) in enumerate(clean):
        before, after = normals[max(k - 1, 0)], normals[min(k, len(normals) - 1)]
        if k in (0, len(clean) - 1):
            nx, ny = after if k == 0 else before
            if square and abs(nx) < 0.02 * by:
                moved.append((x, y + math.copysign(by, ny)))
            else:  # where the line beside it meets the same edge
                moved.append((x + math.copysign(min(by * by / max(abs(nx), 0.01), 3 * by), nx), y))
            continue
        bend = 1 + (before[0] * after[0] + before[1] * after[1]) / by**2
        if bend < 0.2:  # it turns round: no point is beside both parts
            moved += [(x + before[0], y + before[1]), (x + after[0], y + after[1])]
        else:
            moved.append((x + (before[0] + after[0]) / bend, y + (before[1] + after[1]) / bend))
    return moved


def _light(scene: Scene, edges: Mapping[str, ViewEdge], keys: Mapping[int, str], passed: set[str]) -> None:
    lit = {key for key, e in edges.items() if e.lit}
    ends = passed | {f"n-{keys[i]}" for e in edges.values() if e.lit for i in (e.source, e.target)}

    def wire(w: Wire) -> Wire:
        if w.key.removeprefix("back-") not in lit:
            words = tuple(replace(word, style=f"{word.style} aside") for word in w.words)
            return replace(w.styled("aside"), words=words)
        return w if w.key.startswith("back-") else w.styled("route")

    def box(b: Box) -> Box:
        return replace(b, classes=(*b.classes, "route" if b.key in ends else "aside"))

    def rail(r: Rail) -> Rail:
        return replace(r, style=r.style + (" route" if r.key.replace("rail", "n") in ends else " aside"))

    scene.wires = sorted(map(wire, scene.wires), key=lambda w: w.style.endswith("route"))
    scene.boxes = [box(b) for b in scene.boxes]
    scene.rails = [rail(r) for r in scene.rails]
    scene.dots = [(x, y, f"{style} aside") for x, y, style in scene.dots]
    named = {pretty(e.carries) for e in edges.values() if e.lit and e.role in ("cell", "hidden")}
    scene.words = [
        replace(w, style=f"{w.style} aside") if w.style.startswith("w ") and w.text not in named else w
        for w in scene.words
    ]
    scene.lit = True
