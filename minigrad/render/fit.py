"""A picture in the room that there is: the view of a model that shows most of it on a sheet of paper or a slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from minigrad.graph.view import View, fold, gather, roll, unroll
from minigrad.render.layout import AIRY, FLAT, LOW, NARROW, TIGHT, Spacing
from minigrad.render.scene import Scene

PAGES = {"a4": (1123, 794), "slide": (1280, 720)}
"""Pixels across and down: an A4 sheet on its side, at 96 to the inch, and a slide of 16 : 9."""
_SMALLEST = 0.88
"""How small a picture may be drawn of which nothing more can be folded: its letters then have 7.5 pixels."""
_FEWEST_STEPS = 2
"""The first step and the last one, so that the end of a route, its loss and what is cut before it are never folded."""
_MOST_STEPS = 16
"""Steps that are tried side by side on a page: not even blocks of a single letter leave room for more."""

Shape = Callable[[View], View]


class Whole:
    """All operations, and once somebody asks for it all steps as one."""

    def __init__(self, view: View) -> None:
        self.view, self.steps = view, view.steps

    @cached_property
    def rolled(self) -> View:
        """The view with a block for each layer and direction."""
        return roll(self.view)


@dataclass(frozen=True)
class Level:
    """One way of folding what happens in a step, or what is left when all steps are one: then it is not `timed`."""

    shape: Shape
    timed: bool = True
    elided: int = 1
    """The fewest steps for which a counted node is worth its room: a cell of one step is as small."""

    def view(self, whole: Whole, kept: int | None = None) -> View:
        """Return the folded view, with so many steps of the recorded ones; with all of them if it is None."""
        if not self.timed:
            return self.shape(whole.rolled)
        steps = whole.steps
        if kept is None:
            return self.shape(whole.view)
        return self.shape(fold(whole.view, keep=steps[: kept - kept // 2] + steps[len(steps) - kept // 2 :]))


LEVELS = (
    Level(lambda view: view),
    Level(lambda view: fold(view, "gate")),
    Level(unroll, elided=2),
    Level(lambda view: gather(unroll(view)), elided=2),
    Level(lambda view: view, timed=False),
    Level(gather, timed=False),
    Level(lambda view: gather(fold(view, "layer")), timed=False),
)
"""What is drawn, most of it first: operations; gates; cells, at last with one line for their parameters; all steps as
one, at last with both directions and the first states of a layer in one block."""
OPERATIONS, CELLS, ROLLED = 0, 2, 4


def fewer(tries: Sequence[Level], view: View, most: int) -> Iterator[View]:
    """Yield smaller and smaller views: at each level fewer and fewer steps, from `most` on if there are more."""
    whole = Whole(view)
    for level in tries:
        if not level.timed or len(whole.steps) <= most:
            yield level.view(whole)
        if level.timed:
            yield from (level.view(whole, kept) for kept in range(min(len(whole.steps) - 1, most), 0, -1))


@dataclass(frozen=True)
class Found:
    """What is drawn on a page, and how."""

    view: View
    spacing: Spacing
    zoom: float = 1.0


class Fit:
    """The search for what fits; `missed` is the smallest picture that did not, (width, height)."""

    def __init__(self, page: str, scene: Callable[[View, Spacing], Scene], outline: Callable[[View, Spacing], Scene]):
        self.room = PAGES[page]
        self.scene, self.outline = scene, outline
        self.missed = (0.0, 0.0)

    def best(self, view: View, tries: Sequence[Level], most: int) -> Found | None:
        """Return what shows most of a view: the first level that fits, as many steps of it as there is room for.

        Args:
            view: all operations.
            tries: the levels, the one that shows most first.
            most: more steps than this are not drawn all.
        """
        whole = Whole(view)
        count = len(whole.steps)
        for level in tries:
            if not level.timed or count <= most:
                found = self.spaced(level.view(whole))
                if found is not None:
                    return found
            most_kept = min(count - level.elided, _MOST_STEPS)
            if level.timed and most_kept >= _FEWEST_STEPS:
                found = self._longest(level, whole, most_kept)
                if found is not None:
                    return found
        return self.shrunk(tries[-1].view(whole), FLAT)

    def shrunk(self, view: View, spacing: Spacing) -> Found | None:
        """Return a view that is drawn a little smaller than its own size; None if it would have to be too small."""
        scene = self.scene(view, spacing)
        self.missed = scene.paper
        zoom = min(1.0, self.room[0] / scene.width, self.room[1] / scene.height)
        return Found(view, spacing, zoom) if zoom >= _SMALLEST else None

    def _longest(self, level: Level, whole: Whole, most: int) -> Found | None:
        """Return as many steps of a level as fit; a picture with more of them is wider and never lower."""
        found = level.view(whole, _FEWEST_STEPS)
        spacing = next((spacing for spacing in (TIGHT, FLAT) if self._fits(found, spacing)), None)
        if spacing is None:
            return None
        low, high = _FEWEST_STEPS, most
        while low < high:
            kept = (low + high + 1) // 2
            view = level.view(whole, kept)
            if self._fits(view, spacing):
                low, found = kept, view
            else:
                high = kept - 1
        return self.spaced(found)

    def spaced(self, view: View) -> Found | None:
        """Return the view and the most air that it can be drawn with, None if it does not fit with the least."""
        spacings = (AIRY, NARROW, LOW, TIGHT, FLAT)
        return next((Found(view, spacing) for spacing in spacings if self._fits(view, spacing)), None)

    def _fits(self, view: View, spacing: Spacing) -> bool:
        """Whether a view fits; its bare outline, which costs less, is tried before its numbers are looked at."""
        for draw in (self.outline, self.scene):
            scene = draw(view, spacing)
            if any(size > room for size, room in zip(scene.paper, self.room, strict=True)):
                self.missed = scene.paper
                return False
        return True
