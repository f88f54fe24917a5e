"""What other programs do for us: order a step (Graphviz), make PNG and PDF, put a finished file in place."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from minigrad.errors import MinigradError, MissingExtraError, UsageError
from minigrad.render.plan import Arrange, Layers

ENGINES = ("own", "graphviz-pure", "dot")
"""Who can order a step: minigrad's own sweeps, which need nothing and know where time comes from, or Graphviz."""

SECONDS = 20.0
_MOST_ITEMS = 500
_LONGEST_PNG = 32_000
"""Pixels along a side beyond which viewers, and memory, give up."""


def arranger(engine: str | None = None) -> Arrange | None:
    """Return what orders the steps: the engine asked for; None for our own, so that pictures are everywhere the same.

    Raises:
        UsageError: there is no engine of this name, or system `dot` was asked for and is not on the path.
        MissingExtraError: the packaged engine was asked for and is not installed.
    """
    if engine not in (None, *ENGINES):
        raise UsageError(f"unknown engine {engine!r}: choose from {', '.join(ENGINES)}")
    if engine in (None, "own"):
        return None
    program = installed(engine)
    if program:
        return _Engine(engine, program)
    if engine == "graphviz-pure":
        raise MissingExtraError("The layout engine graphviz-pure", "render")
    raise UsageError("the program 'dot' is not on the path: install Graphviz or choose another engine")


def installed(name: str) -> str | None:
    """Return the program of a layout engine, or None if this machine has none."""
    return _packaged() if name == "graphviz-pure" else shutil.which(name)


def _packaged() -> str | None:
    """Return the program of the package graphviz-pure, wherever this environment keeps programs."""
    try:
        listed = importlib.metadata.files("graphviz-pure") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for path in listed:
        if path.stem == "graphviz-pure":
            program = Path(str(path.locate()))
            if os.access(program, os.X_OK):
                return str(program)
    return None


class _Engine:
    """Orders a plan by running `dot`; what is too large for it is left to us."""

    def __init__(self, name: str, program: str) -> None:
        self.name, self.program = name, program

    def __call__(self, layers: Layers) -> tuple[str, list[float]] | None:
        if len(layers.row) > _MOST_ITEMS:
            return None
        try:
            done = subprocess.run(
                [self.program, "-Tplain"],
                input=_question(layers),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=SECONDS,
                check=False,
            )
            failure = "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        x = {} if failure else _answer(done.stdout)
        if not failure and len(x) == len(layers.row):
            return self.name, [x[i] for i in range(len(layers.row))]
        raise MinigradError(f"the layout engine {self.name} failed: {failure or 'its answer lacks nodes'}")


def _question(layers: Layers) -> str:
    lines = [
        "digraph {",
        'graph [rankdir=BT, nodesep=0.12, ranksep=0.3]; node [shape=box, fixedsize=true, label=""];',
    ]
    for row in layers.rows:
        items = "".join(
            f"{i} [width={max(layers.width[i], 2) / 72:.4f}, height={max(layers.height[i], 2) / 72:.4f}];" for i in row
        )
        lines.append(f"{{rank=same; {items}}}")
    lines += [f"{a} -> {b} [weight={max(1, round(w))}];" for a, b, w in layers.links]
    return "\n".join([*lines, "}"])


def _answer(text: str) -> dict[int, float]:
    x = {}
    for line in text.splitlines():
        if line.startswith("node "):
            _, name, at, *_ = line.split()
            x[int(name)] = float(at) * 72
    return x


def converter(kind: str) -> Any:
    """Return the module that makes PNG or PDF of SVG.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module({"png": "resvg_py", "pdf": "svg2pdf_py"}[kind])
    except ImportError:
        raise MissingExtraError(f"A {kind.upper()} picture", "render") from None


def to_png(svg: str, scale: float = 1.0) -> bytes:
    """Return an SVG document as PNG, with the fonts of the package and no others.

    Raises:
        MissingExtraError: the converter is not installed.
        UsageError: the picture is too large for pixels.
    """
    width, height = (float(n) * scale for n in re.findall(r'(?:width|height)="([\d.]+)"', svg[:400])[:2])
    if max(width, height) > _LONGEST_PNG:
        raise UsageError(
            f"a PNG of {width:.0f} x {height:.0f} pixels is too large: fold the graph, lower the scale, or take SVG"
        )
    resvg = converter("png")
    with as_file(files("minigrad.render").joinpath("assets", "fonts")) as fonts:
        faces = [str(path) for path in sorted(fonts.glob("*.ttf"))]
        return bytes(
            resvg.svg_to_bytes(
                svg_string=svg,
                dpi=96,
                skip_system_fonts=True,
                font_files=faces,
                font_family="DejaVu Sans",
                sans_serif_family="DejaVu Sans",
                zoom=scale,
            )
        )


def to_pdf(svg: str) -> bytes:
    """Return an SVG document as PDF with its fonts embedded.

    Raises:
        MissingExtraError: the converter is not installed.
    """
    svg2pdf = converter("pdf")
    with as_file(files("minigrad.render").joinpath("assets", "fonts")) as fonts:
        database = svg2pdf.FontDatabase()
        for path in sorted(fonts.glob("*.ttf")):
            database.load_font_file(str(path))
        return _renumbered(bytes(svg2pdf.svg_to_pdf(svg, database)))


_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")


def _renumbered(pdf: bytes) -> bytes:
    """Return the same document with its objects in the order in which they are reached.

    The converter numbers fonts in the order of a random hash; the same picture must be the same bytes.
    """
    table = int(pdf[pdf.rindex(b"startxref") + 9 :].split()[0])
    head, _, trailer = pdf[table:].partition(b"trailer")
    trailer = trailer[: trailer.index(b"startxref")]
    starts = sorted(int(line[:10]) for line in head.splitlines() if line.endswith((b" n", b" n ")))
    objects: dict[int, tuple[bytes, bytes]] = {}
    for start, end in zip(starts, [*starts[1:], table], strict=True):
        number, _, rest = pdf[start:end].partition(b" 0 obj\n")
        facts, stream, body = rest.partition(b"\nstream\n")
        objects[int(number)] = (_sorted_entries(facts), stream + body)
    order: list[int] = []
    todo = [int(n) for n in reversed(_REFERENCE.findall(trailer))]
    while todo:
        old = todo.pop()
        if old not in order:
            order.append(old)
            todo += [int(n) for n in reversed(_REFERENCE.findall(objects[old][0]))]
    new = {old: b"%d 0 R" % k for k, old in enumerate(order, 1)}

    def renamed(text: bytes) -> bytes:
        return _REFERENCE.sub(lambda found: new[int(found[1])], text)

    out = bytearray(pdf[: starts[0]])
    xref = [b"xref\n0 %d\n0000000000 65535 f \n" % (len(order) + 1)]
    for k, old in enumerate(order, 1):
        xref.append(b"%010d 00000 n \n" % len(out))
        facts, body = objects[old]
        out += b"%d 0 obj\n" % k + renamed(facts) + body
    place = len(out)
    size = re.sub(rb"/Size \d+", b"/Size %d" % (len(order) + 1), renamed(trailer))
    return bytes(out) + b"".join(xref) + b"trailer" + size + b"startxref\n%d\n%%%%EOF" % place


def _sorted_entries(facts: bytes) -> bytes:
    """Sort the lines of dictionaries that do nothing but name other objects."""
    return re.sub(
        rb"(?:^ +/\w+ \d+ 0 R\n)+",
        lambda found: b"".join(sorted(found[0].splitlines(keepends=True))),
        facts,
        flags=re.MULTILINE,
    )
