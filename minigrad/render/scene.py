"""What a picture consists of, with places in pixels and y downwards: plain shapes, whoever draws them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from minigrad.render.text import runs, subscript_size, width

SMALL = 9.0
"""The font size of everything that is not a node's own name."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Words:
    """One line of text around its middle `y`; `anchor` is start, middle or end, `turn` 90 reads upwards."""

    text: str
    x: float
    y: float
    size: float = SMALL
    face: str = "sans"
    anchor: str = "middle"
    style: str = "t"
    math: bool = False
    turn: int = 0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the ink, by the fonts' own widths."""
        w, h = width(self.text, self.size, self.face, self.math), self.size
        shift = {"start": 0.0, "middle": -w / 2, "end": -w}[self.anchor]
        if self.turn:
            return (self.x - h / 2, self.y - shift - w, self.x + h / 2, self.y - shift)
        return (self.x + shift, self.y - h / 2, self.x + shift + w, self.y + h / 2)

    @property
    def least(self) -> float:
        """The size of its smallest letters."""
        low = any(low for _, low in runs(self.text, self.math))
        return subscript_size(self.size) if low else self.size


@dataclass(frozen=True)
class Box:
    """A node, by the centre of its box; `shape` is round, note, double, circle, or bare for words without an outline.

    `classes` are the identities of all recorded nodes that it stands for, if there are several.
    """

    key: str
    x: float
    y: float
    width: float
    height: float
    words: tuple[Words, ...]
    style: str
    shape: str = "round"
    title: str = ""
    classes: tuple[str, ...] = ()

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        across, down = self.width / 2, self.height / 2
        return (self.x - across, self.y - down, self.x + across, self.y + down)


@dataclass(frozen=True)
class Wire:
    """An edge along its corners; `hops` are the places where it leaps over another wire.

    `arrow` is whether it has a head; `classes` are the identities of all recorded edges that it stands for.
    """

    key: str
    points: tuple[Point, ...]
    style: str
    title: str = ""
    hops: tuple[Point, ...] = ()
    square: bool = True
    words: tuple[Words, ...] = ()
    arrow: bool = True
    classes: tuple[str, ...] = ()

    def styled(self, word: str) -> Wire:
        """Return the wire with one more word to its style; the last one decides on the arrow head."""
        return replace(self, style=f"{self.style} {word}")


@dataclass(frozen=True)
class Rail:
    """The line along which a parameter, or the data of all steps, is led past the steps."""

    key: str
    x: float
    end: float
    y: float
    style: str


@dataclass(frozen=True)
class Frame:
    """The outline of one step."""

    x: float
    y: float
    width: float
    height: float
    words: Words
    style: str = "frame"
    notes: tuple[Words, ...] = ()


@dataclass
class Scene:
    """Everything a picture consists of, in pixels, y downwards."""

    width: float = 0.0
    height: float = 0.0
    title: str = ""
    frames: list[Frame] = field(default_factory=list)
    rails: list[Rail] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    dots: list[tuple[float, float, str]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    legend: list[tuple[str, str, float, float]] = field(default_factory=list)
    engine: str = "own"
    flow: tuple[str, float, float] | None = None
    """How the gradient that flows is shown (width or color), and between which sizes."""
    lit: bool = False
    description: str = ""
    """What a screen reader says of the whole picture, where the view alone does not say it."""
    details: str = ""
    """What it says after that."""
    zoom: float = 1.0
    """What all sizes are multiplied by on paper: a crowded picture is made smaller to fit a page."""

    @property
    def paper(self) -> tuple[float, float]:
        """Width and height as drawn, in pixels."""
        return self.width * self.zoom, self.height * self.zoom

    @property
    def texts(self) -> Iterator[Words]:
        """All lines of text."""
        yield from self.words
        for box in self.boxes:
            yield from box.words
        for wire in self.wires:
            yield from wire.words
        for frame in self.frames:
            yield from (frame.words, *frame.notes)
