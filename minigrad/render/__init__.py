"""Pictures of a view: SVG, PNG, PDF, DOT, JSON, Mermaid, text and a page, all from the same plain data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from minigrad.errors import UsageError
from minigrad.files import write_whole
from minigrad.graph.view import (
    FOLDS,
    View,
    ViewNode,
    checked_show,
    elide,
    past_stacks,
    structure_of,
    tape_of,
    view_of,
    with_numbers,
)
from minigrad.graph.view import fold as fold_view
from minigrad.graph.walk import walk_of
from minigrad.render.block import Unit, choose, excerpt, read
from minigrad.render.circuit import to_circuit
from minigrad.render.dot import to_dot, to_graphviz
from minigrad.render.fit import CELLS, LEVELS, OPERATIONS, PAGES, ROLLED, Fit, Level, Whole, fewer
from minigrad.render.html import to_page
from minigrad.render.image import ENGINES, arranger, converter, to_pdf, to_png
from minigrad.render.layout import AIRY, Spacing, lay_out
from minigrad.render.mermaid import MOST_EDGES, to_mermaid
from minigrad.render.odyssey import to_odyssey
from minigrad.render.overlay import way_back
from minigrad.render.plan import Arrange
from minigrad.render.scene import Scene
from minigrad.render.svg import to_svg
from minigrad.render.terminal import to_text
from minigrad.render.theme import THEMES, theme_named

__all__ = [
    "BINARY",
    "ENGINES",
    "FORMATS",
    "PAGES",
    "STYLES",
    "THEMES",
    "Asked",
    "Rendered",
    "check",
    "render",
    "to_graphviz",
]

FORMATS = ("svg", "png", "pdf", "dot", "json", "mermaid", "text", "ascii", "html")
BINARY = ("png", "pdf")
DRAWN = ("svg", *BINARY)
"""Those that have a width in pixels of their own."""
_LACKS = {
    **dict.fromkeys(("text", "ascii"), ("local", "gain", "flow", "highlight", "backward")),
    "json": ("backward",),
}
"""What a format would leave out: text has columns for shape, value and grad; JSON is data, and no way of drawing it."""
_ENDINGS = {"gv": "dot", "htm": "html", "mmd": "mermaid", "txt": "text"}
STEPS_SHOWN = 12
"""Longer sequences fold by themselves: their first three and last two steps stay."""
_KEPT = 5
"""Steps at both ends that stay at first when a text format has no room for the others."""
WALKED = 25_000
"""Pages of up to this many recorded nodes walk through every number; larger ones show structure and summaries."""
OPENED = 4000
"""Pages of up to this many nodes draw all steps and fold the middle ones where they are looked at."""

Fold = str | bool | Callable[[ViewNode], str | None] | None


@dataclass(frozen=True)
class Asked:
    """What a style is asked for, checked: everything that a picture depends on but the view and the colours."""

    show: tuple[str, ...] = ("shape",)
    title: str | None = None
    arrange: Arrange | None = None
    backward: bool = False
    flow: str | None = None
    spacing: Spacing = AIRY
    zoom: float = 1.0
    block: tuple[Unit, int | None] | None = None
    """The unit and the step that a chart of one block is of."""


@dataclass(frozen=True)
class Style:
    """How a style makes a scene of a view, and which requests it can meet."""

    draw: Callable[[View, Asked], Scene]
    shape: Callable[[View, Asked], View] = lambda view, _: view
    """What becomes of the view before anything is drawn of it; formats without a drawing see this view too."""
    levels: tuple[Level, ...] = ()
    """How it can be folded for want of room, what shows most first."""
    can: tuple[str, ...] = ()
    """Of fold, page, highlight, backward, flow, step, layer, direction and call, what the style takes."""
    past_stacks: bool = False
    """Whether it draws what is read from a stack of all steps from where it came; the steps are side by side then."""
    whole: bool = False
    """Whether it shapes all steps itself, so that none are folded before."""


def _graph(view: View, asked: Asked) -> Scene:
    return lay_out(
        view,
        show=asked.show,
        arrange=asked.arrange,
        title=asked.title,
        backward=asked.backward,
        flow=asked.flow,
        spacing=asked.spacing,
    )


def _steps(at: int, *can: str, whole: bool = False) -> Style:
    """Return the style that draws all that happens, folded from this level on."""
    return Style(
        _graph,
        shape=lambda view, _: LEVELS[at].view(Whole(view)),
        levels=LEVELS[at:],
        can=(*can, *_OVERLAYS),
        past_stacks=True,
        whole=whole,
    )


def _chart(plan: Callable[..., Scene]) -> Style:
    """Return the style of one of the charts of one block: a single step, and the sum of what comes back to it."""

    def draw(view: View, asked: Asked) -> Scene:
        assert asked.block is not None
        return plan(read(view, *asked.block), show=asked.show, backward=asked.backward, title=asked.title)

    def shape(view: View, asked: Asked) -> View:
        assert asked.block is not None
        return excerpt(view, *asked.block)

    return Style(draw, shape, can=("backward", "page", *_BLOCK), whole=True)


_BLOCK = ("step", "layer", "direction", "call")
_OVERLAYS = ("highlight", "backward", "flow", "page")
_STYLES: Mapping[str, Style] = {
    "graph": _steps(OPERATIONS, "fold"),
    "unrolled": _steps(CELLS, "fold"),
    "rolled": _steps(ROLLED, whole=True),
    "circuit": _chart(to_circuit),
    "odyssey": _chart(to_odyssey),
}
STYLES = tuple(_STYLES)


@dataclass(frozen=True)
class Rendered:
    """A finished picture: its bytes or text, where it was written, and who ordered the steps (`engine`)."""

    data: str | bytes
    format: str
    engine: str
    path: Path | None = None
    svg: str | None = None
    summary: str = ""

    @property
    def drawn_by(self) -> str:
        """Words that follow the format: which engine ordered the steps, nothing where there is no drawing."""
        if self.svg is None:
            return ""
        itself = self.engine in ("own", "none")
        return ", drawn by minigrad itself" if itself else f", laid out by {self.engine}"

    def __repr__(self) -> str:
        return f"<{self.summary}>"

    def __str__(self) -> str:
        return str(self.data) if self.format in ("text", "ascii") else repr(self)

    def _repr_svg_(self) -> str | None:
        return self.svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = {"text/plain": str(self)}
        if self.format == "mermaid":
            bundle["text/vnd.mermaid"] = str(self.data)
        if self.svg is not None:
            bundle["image/svg+xml"] = self.svg
        if self.format == "html":
            # a frame of its own, so that two pages in one notebook do not share ids
            page = escape(str(self.data), quote=True)
            bundle["text/html"] = f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'
        return bundle


def render(
    source: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    style: str = "graph",
    format: str | None = None,
    show: Iterable[str] = ("shape",),
    theme: str = "light",
    engine: str | None = None,
    title: str | None = None,
    fold: Fold = None,
    highlight: Any = None,
    backward: bool = False,
    flow: str | None = None,
    page: str | None = None,
    step: int | None = None,
    layer: int | str | None = None,
    direction: str | None = None,
    call: int | None = None,
    notes: Mapping[int, str] | None = None,
    scale: float = 1.0,
    losses: Iterable[Any] | None = None,
) -> Rendered:
    """Draw a tape or a view.

    Args:
        source: a tape, or the `View` of one.
        path: where to write; the ending chooses the format. Without it the picture is only returned.
        style: ``"graph"``, every operation in one frame a step; ``"unrolled"``, one block a layer and step;
            ``"rolled"``, one block a layer, its states led back to it; ``"circuit"`` and ``"odyssey"``, the two
            classical charts of one recurrent block, filled from one step.
        format: one of `FORMATS`, where the ending of `path` does not say it; SVG if nothing does.
        show: what stands on nodes: any of shape, value, grad; and on edges: local, ∂⁺ as a formula, gain, its size,
            and flow, the norm of the gradient that the edge carries.
        theme: light, dark or print.
        engine: who orders the steps, one of `ENGINES`; minigrad itself if not given.
        title: a line above the picture.
        fold: None folds the middle of more than twelve steps by itself, False nothing; ``"time"``, ``"cell"``,
            ``"layer"`` or ``"gate"`` as in `minigrad.graph.fold`, what is left after the middle; a function as there,
            of all steps.
        highlight: what is lit: a route of a path ledger (`minigrad.explain.paths`) or several; a path ledger, all its
            routes if it is grouped and else the listed ones; a pair (path ledger, key), the routes of that group; a
            pair (time ledger, t), its row t; or words: ``"loss -> weight_hh_l0 by time"``, all routes and what leaves
            through each step; ``"… by time 2"``, those that leave in step 2; ``"h[3] -> h[0] top 2"``, the two
            strongest; ``at 0,2``, ``through A`` and ``avoiding A`` as for paths.
        backward: draw the reverse sweep as well, from each node that has a gradient to what it was computed from.
        flow: ``"width"`` or ``"color"`` of an edge follows the norm of the gradient that it carries.
        page: ``"a4"`` or ``"slide"``: the picture is at most as wide, in its own size. As many steps in the middle as
            it takes become one counted node; where that is not enough gates are folded, then whole cells.
        step: the step that a chart of one block shows; the middle one if not given.
        layer: the layer of which it is, by its number or by words of its scope (``"decoder"``); 0 if not given.
        direction: ``"forward"`` (if not given) or ``"reverse"``.
        call: of a layer that was called several times, which call; the first (1) if not given.
        notes: for steps, what is written into their frames.
        scale: pixels of a PNG for each pixel of the SVG.
        losses: for a page, the losses E_t whose sum is differentiated: what its walk backward starts from and the rows
            of its time ledger. If not given, the last single number on the tape and what it is the sum of.

    Raises:
        UsageError: an unknown style, format, option, theme or engine, or a place that cannot be written.
        MissingExtraError: PNG, PDF or the chosen engine need a package that is not installed.
    """
    manner, kind, shown, arrange = _checked(
        path, style, format, show, theme, engine, fold, highlight, backward, flow, page, step, layer, direction, call
    )
    asked = Asked(shown, title, arrange, backward, flow)

    if isinstance(source, View):
        if highlight is not None:
            raise UsageError("a route is found on a tape: give the tape, or light its view with view_of(highlight=…)")
        whole, told = source, None
    else:
        source = tape_of(source)
        whole, told = structure_of(source, notes=notes, highlight=highlight)
    if manner.past_stacks:
        whole = past_stacks(whole)
    walk = walk_of(source, losses, WALKED) if kind == "html" and not isinstance(source, View) else None
    carried = (*shown, *(("shape", "value", "grad", "local") if kind == "json" else ()))
    if kind == "html" and walk is None:  # a page that walks has its numbers from there
        carried = (*carried, "value", "grad")
    if backward and "step" in manner.can:  # its numbers, and not only its way
        carried = (*carried, "grad")

    def measured(view: View) -> View:
        """Read the numbers off the tape; only those of what is drawn."""
        if isinstance(source, View):
            return view
        return with_numbers(view, source, carried, contributions=flow is not None or backward, said=told)

    if "step" in manner.can:
        asked = replace(asked, block=choose(whole, step, layer, direction, call))
    # a page of a document folds its middle steps itself, and can open them
    opened = kind == "html" and style == "graph" and len(whole) <= OPENED
    fold = False if fold is None and opened else fold
    if page is not None:
        view, asked = _on_page(page, whole, manner, asked, fold, measured)
    else:
        view = _as_asked(whole, manner, asked, fold)
    if kind == "mermaid" and fold is None and not manner.whole:
        small = (v for v in fewer(manner.levels, whole, _KEPT) if _lines(v, backward) <= MOST_EDGES)
        view = view if _lines(view, backward) <= MOST_EDGES else next(small, view)
    view = measured(view)

    svg, who, said = None, "none", _description(view)
    data: str | bytes
    if kind == "json":
        data = view.to_json(indent=1) + "\n"
    elif kind == "dot":
        data = to_dot(view, theme=theme, title=title, backward=backward, flow=flow)
    elif kind == "mermaid":
        data = to_mermaid(view, theme=theme, title=title, description=said, backward=backward, flow=flow)
    elif kind in ("text", "ascii"):
        facts = "; ".join(_facts(view, "downwards"))
        data = to_text(view, show=shown, title=title, description=facts, ascii=kind == "ascii")
    else:
        scene = manner.draw(view, replace(asked, title=None) if kind == "html" else asked)
        scene.title = title or scene.title  # on a page it is the heading already
        scene.zoom *= asked.zoom
        who = scene.engine
        said = scene.description or said
        svg = to_svg(scene, theme, f"{said} {scene.details}".strip())
        if kind == "png":
            data = to_png(svg, scale)
        elif kind == "pdf":
            data = to_pdf(svg)
        elif kind == "html":
            summaries = ("value", "grad") if walk and walk.lacking else ()
            whole = view_of(source, show=("shape", *summaries), repeats=True) if walk else view
            data = to_page(view, svg, theme, title, walk=walk, whole=whole, foldable="fold" in manner.can)
        else:
            data = svg
    written = None
    if path is not None:
        written = write_whole(path, data.encode() if isinstance(data, str) else data)
    made = Rendered(data, kind, who, written, svg)
    by = f" {made.drawn_by[2:].capitalize()}."
    return replace(made, summary=f"minigrad picture: {said}{by}" if svg else f"minigrad picture as {kind}")


def check(path: str | os.PathLike[str] | None = None, **options: Any) -> None:
    """Raise what `render` would raise of this place and these options, before anything is computed to be drawn."""
    defaults: dict[str, Any] = {"style": "graph", "format": None, "show": ("shape",), "theme": "light", "engine": None}
    defaults |= {"fold": None, "highlight": None, "backward": False, "flow": None, "page": None}
    _checked(path, **defaults | dict.fromkeys(_BLOCK) | options)


def _checked(
    path: str | os.PathLike[str] | None,
    style: str,
    format: str | None,
    show: Iterable[str],
    theme: str,
    engine: str | None,
    fold: Fold,
    highlight: Any,
    backward: bool,
    flow: str | None,
    page: str | None,
    step: int | None,
    layer: int | str | None,
    direction: str | None,
    call: int | None,
) -> tuple[Style, str, tuple[str, ...], Arrange | None]:
    """Return the style, the format, what to show and who orders the steps."""
    if style not in _STYLES:
        raise UsageError(f"unknown style {style!r}: choose from {', '.join(_STYLES)}")
    manner = _STYLES[style]
    asked = {"fold": fold, "highlight": highlight, "backward": backward, "flow": flow, "page": page}
    asked |= {name: given is not None for name, given in zip(_BLOCK, (step, layer, direction, call), strict=True)}
    for option, given in asked.items():
        if given and option not in manner.can:
            able = [name for name, other in _STYLES.items() if option in other.can]
            instead = f"choose from {', '.join(able)}" if able else "no style does"
            raise UsageError(f"the style {style!r} takes no {option}: {instead}")
    theme_named(theme)
    if flow not in (None, "width", "color"):
        raise UsageError(f"flow is shown as width or color, not {flow!r}")
    if page not in (None, *PAGES):
        raise UsageError(f"unknown page {page!r}: choose from {', '.join(PAGES)}")
    if not callable(fold) and (
        not isinstance(fold, str | bool | None) or (isinstance(fold, str) and fold not in FOLDS)
    ):
        raise UsageError(f"cannot fold by {fold!r}: choose {', '.join(FOLDS)} or a function of a node")
    kind = _format(path, format)
    wanted = {*checked_show(show), *(name for name in ("highlight", "backward", "flow") if asked[name])}
    for word in _LACKS.get(kind, ()):
        if word in wanted:
            others = ", ".join(other for other in FORMATS if word not in _LACKS.get(other, ()))
            raise UsageError(f"the format {kind} does not show {word}: choose from {others}")
    if page and kind not in DRAWN:
        raise UsageError(f"a page is for the formats {', '.join(DRAWN)}; {kind} has no width")
    if kind in BINARY:
        converter(kind)
    return manner, kind, checked_show(show), arranger(engine)


def _format(path: str | os.PathLike[str] | None, asked: str | None) -> str:
    ending = Path(path).suffix[1:].lower() if path is not None else ""
    kind = asked or _ENDINGS.get(ending, ending) or ("" if path is not None else "svg")
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        if not kind:
            raise UsageError(f"cannot tell the format of {os.fspath(path)!r}: end it in one of {known}")  # type: ignore[arg-type]
        raise UsageError(f"unknown format {kind!r}: choose from {known}")
    return kind


def _description(view: View) -> str:
    """Return what a screen reader should say of the whole picture."""
    parameters = [n.name or "unnamed" for n in view.nodes if n.kind == "parameter"]
    more = ["parameters " + ", ".join(parameters)] if parameters else []
    return "; ".join([*_facts(view, "to the right"), *more]) + "."


def _facts(view: View, time: str) -> list[str]:
    ops = sum(n.count for n in view.nodes if n.kind in ("op", "fold"))
    folded = sum(n.count for n in view.nodes if n.kind == "fold")
    parts = [f"{ops} operations"]
    if view.steps:
        last = max([view.steps[-1], *(n.span[1] for n in view.nodes if n.span)])
        parts.append(f"steps {view.steps[0]} to {last}, time {time}")
    if folded:
        parts.append(f"{folded} of them folded")
    return parts


def _as_asked(whole: View, manner: Style, asked: Asked, fold: Fold) -> View:
    """Return the view that a style draws where there is room for it."""
    if callable(fold):  # it decides about the nodes of all steps
        whole = fold_view(whole, fold)
    elif fold is not False and not manner.whole:
        if fold in (True, "time") or len(whole.steps) > STEPS_SHOWN:
            whole = fold_view(whole)
        if isinstance(fold, str) and fold != "time":
            whole = fold_view(whole, fold)
        if not whole.steps:
            whole = elide(whole)
    return manner.shape(whole, asked)


def _on_page(
    page: str, whole: View, manner: Style, asked: Asked, fold: Fold, measured: Callable[[View], View]
) -> tuple[View, Asked]:
    """Return the view that shows most on a page, and with which spacing it is drawn.

    Raises:
        UsageError: nothing that may be folded makes it fit.
    """
    fit = Fit(
        page,
        lambda view, spacing: manner.draw(measured(view), replace(asked, spacing=spacing)),
        lambda view, spacing: manner.draw(view, replace(asked, show=(), flow=None, spacing=spacing)),
    )
    if fold is None and whole.steps and manner.levels:
        found = fit.best(whole, manner.levels, STEPS_SHOWN)
    else:
        view = _as_asked(whole, manner, asked, fold)
        found = fit.spaced(view)
    if found is not None:
        return found.view, replace(asked, spacing=found.spacing, zoom=found.zoom)
    (across, down), (wide, high) = fit.room, fit.missed
    less = [
        *(["show less on edges and nodes"] if set(asked.show) - {"shape"} else []),
        *(["leave out fold="] if fold is not None else []),
        "draw it without page=",
    ]
    raise UsageError(
        f"the picture does not fit: {page} is {across} × {down} pixels, and this takes {wide:.0f} × {high:.0f}; "
        + ", or ".join(less)
    )


def _lines(view: View, backward: bool) -> int:
    return len(view.edges) + (len(way_back(view)) if backward else 0)


class _CallableModule(ModuleType):
    """``minigrad.render(tape, …)`` and ``import minigrad.render`` share a name: the package answers calls."""

    def __call__(self, *args: Any, **kwargs: Any) -> Rendered:
        return render(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
