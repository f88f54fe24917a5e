"""What other programs do for us: order a step (Graphviz), make PNG and PDF, put a finished file in place."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from minigrad.errors import MinigradError, MissingExtraError, UsageError
from minigrad.render.plan import Arrange, Layers

ENGINES = ("graphviz-pure", "dot", "own")
"""Who can order a step, in the order in which they are asked; `own` needs nothing."""

SECONDS = 20.0
_MOST_ITEMS = 500
_WIDEST_PNG = 32000


def arranger(engine: str | None = None) -> Arrange | None:
    """Return what orders the steps: the engine asked for, else the first installed one, else None for our own.

    Raises:
        UsageError: there is no engine of this name, or system `dot` was asked for and is not on the path.
        MissingExtraError: the packaged engine was asked for and is not installed.
    """
    if engine not in (None, *ENGINES):
        raise UsageError(f"unknown engine {engine!r}: choose from {', '.join(ENGINES)}")
    if engine == "own":
        return None
    for name in ENGINES[:-1]:
        if engine in (None, name):
            program = installed(name)
            if program:
                return _Engine(name, program, strict=engine is not None)
            if engine == "graphviz-pure":
                raise MissingExtraError("The layout engine graphviz-pure", "render")
            if engine == "dot":
                raise UsageError("the program 'dot' is not on the path: install Graphviz or choose another engine")
    return None


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
    """Orders a plan by running `dot`; what it cannot do in time it leaves to us, unless it was chosen."""

    def __init__(self, name: str, program: str, strict: bool) -> None:
        self.name, self.program, self.strict = name, program, strict

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
        if self.strict:
            raise MinigradError(f"the layout engine {self.name} failed: {failure or 'its answer lacks nodes'}")
        return None


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


def to_png(svg: str, scale: float = 1.0) -> bytes:
    """Return an SVG document as PNG, with the fonts of the package and no others.

    Raises:
        MissingExtraError: the converter is not installed.
    """
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError:
        raise MissingExtraError("A PNG picture", "render") from None
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
    try:
        converter = importlib.import_module("svg2pdf_py")
    except ImportError:
        raise MissingExtraError("A PDF picture", "render") from None
    with as_file(files("minigrad.render").joinpath("assets", "fonts")) as fonts:
        database = converter.FontDatabase()
        for path in sorted(fonts.glob("*.ttf")):
            database.load_font_file(str(path))
        return _sorted_resources(bytes(converter.svg_to_pdf(svg, database)))


def _sorted_resources(pdf: bytes) -> bytes:
    """Sort the entries of resource dictionaries, which the converter writes in the order of a random hash.

    Lines trade places inside their dictionary and no length changes, so that every offset in the file stays true.
    """

    def in_order(found: re.Match[bytes]) -> bytes:
        return found[1] + b"".join(sorted(found[2].splitlines(keepends=True))) + found[3]

    return re.sub(rb"(/(?:Font|XObject|ExtGState|Pattern) <<\n)((?: +/\w+ \d+ 0 R\n)+)( +>>)", in_order, pdf)


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file completely or not at all: beside its place first, then renamed over what was there.

    Raises:
        UsageError: the place cannot be written; the message names it.
    """
    target = Path(path)
    beside = None
    try:
        if target.is_dir():
            raise UsageError(f"cannot write {str(target)!r}: it is a directory")
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)
        Path(beside).replace(target)
        beside = None
    except OSError as error:
        raise UsageError(f"cannot write {str(target)!r}: {error.strerror or error}") from None
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
    return target
