"""Draw the gallery: `make gallery` writes docs/gallery.md and its pictures, each one by the command below it."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minigrad.cli import render_graph_main
from minigrad.nn.units import VARIANTS
from minigrad.render import STYLES, THEMES

HERE = Path(__file__).parent
FOLDER = "gallery"
KEPT = "pictures"
"""The folder of the few pictures that are part of the repository, for those who read it without building anything."""
CHARTS = tuple(style for style in STYLES if style in ("circuit", "odyssey"))


class Picture(NamedTuple):
    """One picture: the words below it and the command that draws it, without its ``-o``."""

    name: str
    words: str
    options: str
    ending: str = "svg"
    folder: str = FOLDER

    @property
    def file(self) -> str:
        """Where it lies, as the page sees it."""
        return f"{self.folder}/{self.name}.{self.ending}"

    @property
    def command(self) -> list[str]:
        """The words of the command after its name."""
        return [*shlex.split(self.options), "-o", self.file]


def variants(style: str, theme: str) -> Iterator[Picture]:
    """Yield the nine variants of the LSTM in one style and theme."""
    for variant, words in VARIANTS.items():
        peepholes = "" if variant == "NP" else " --peepholes diagonal"
        options = (
            f"lstm --text ab --hidden 3 --variant {variant}{peepholes} --style {style} --theme {theme} --page slide"
        )
        yield Picture(f"lstm-{variant}-{style}-{theme}", f"{variant}: {words or 'vanilla'}.", options)


def sections() -> Iterator[tuple[str, list[Picture]]]:
    """Yield the page's sections in order: a title, and its pictures."""
    yield (
        "Networks",
        [
            Picture("rnn", "A simple recurrent network.", "rnn --text abc --hidden 5"),
            Picture("gru", "A GRU.", "gru --text abc --hidden 5 --page a4"),
            Picture("lstm", "An LSTM.", "lstm --text abc --hidden 5 --page a4"),
            Picture("stacked", "Two layers.", "lstm --text ab --layers 2 --hidden 5 --page a4"),
            Picture("bidirectional", "Both directions.", "rnn --text abc --bidirectional --hidden 5"),
            Picture("cells", "Two layers, a cell as one operation.", "lstm --text ab --layers 2 --detail cells"),
            Picture("layers", "Two layers, each as one operation.", "gru --text ab --layers 2 --detail layers"),
            Picture("page", "Nine steps, folded until they fit a sheet.", "rnn --text gradients --page a4"),
            Picture("slide", "Five, for a slide.", "lstm --text hello --page slide"),
            Picture("adder", "Two numbers are added bit by bit.", "adder --text 1+2 --steps 3 --hidden 5"),
        ],
    )
    yield (
        "Blocks",
        [
            Picture("unrolled", "One block a step.", "lstm --text hello --style unrolled --page a4"),
            Picture("unrolled-stacked", "Three layers.", "gru --text hello --layers 3 --style unrolled --page a4"),
            Picture(
                "unrolled-both", "Two layers, both directions.",
                "lstm --text abc --layers 2 --bidirectional --style unrolled --page a4",
            ),
            Picture("rolled", "One block and its loops.", "lstm --text hello --style rolled"),
            Picture("rolled-stacked", "Two layers.", "gru --text hello --layers 2 --style rolled"),
            Picture("rolled-both", "Both directions.", "rnn --text hello --bidirectional --style rolled"),
        ],
    )  # fmt: skip
    if CHARTS:
        yield (
            "Charts of one block",
            [
                *(
                    Picture(f"{style}-values", f"An LSTM, {style}, with what one step computed.",
                            f"lstm --text ab --hidden 3 --peepholes diagonal --style {style} --show shape,value,grad")
                    for style in CHARTS
                ),
                *(
                    Picture(f"{cell}-circuit", f"{cell.upper()}.", f"{cell} --text ab --hidden 3 --style circuit")
                    for cell in ("rnn", "gru")
                    if "circuit" in CHARTS
                ),
            ],
        )  # fmt: skip
    yield (
        "Numbers",
        [
            Picture("values", "Values and gradients.", "lstm --text ab --hidden 3 --show shape,value,grad --page a4"),
            Picture("local", "Local derivatives, ∂⁺, on the edges.", "gru --text ab --hidden 3 --show shape,local"),
            Picture("gain", "How much each edge can stretch a gradient.", "rnn --text abc --hidden 3 --show gain"),
            Picture("flow", "The gradient that each edge carries.", "rnn --text abc --hidden 3 --show flow"),
            Picture("flow-width", "The same, as width.", "lstm --text ab --hidden 3 --flow width"),
            Picture("flow-color", "The same, as colour.", "gru --text ab --hidden 3 --flow color"),
        ],
    )
    yield (
        "Forward and backward",
        [
            Picture("backward", "The reverse sweep on the same picture.", "rnn --text abc --hidden 3 --backward"),
            Picture("backward-lstm", "An LSTM's.", "lstm --text ab --hidden 3 --backward --theme dark --page a4"),
            Picture("backward-blocks", "Between blocks.", "lstm --text hello --style unrolled --backward --page a4"),
            Picture("backward-rolled", "Through the loop.", "gru --text hello --style rolled --backward"),
        ],
    )
    yield (
        "Routes",
        [
            Picture(
                "route-time", "All routes from the loss to the recurrent weights, and what leaves through each step.",
                'lstm --text abc --hidden 3 --highlight "loss -> weight_hh_l0 by time" --page a4',
            ),
            Picture(
                "route-top", "The two strongest routes from one state to another.",
                'gru --text abc --hidden 3 --highlight "h[2] -> h[0] top 2" --page a4',
            ),
            Picture(
                "route-blocks", "The same between blocks.",
                'lstm --text hello --style unrolled --highlight "loss -> weight_hh_l0 by time" --page a4',
            ),
        ],
    )  # fmt: skip
    yield (
        "Folded",
        [
            Picture("fold-itself", "Two hundred steps fold by themselves.", "lstm --text hello --steps 200 --page a4"),
            Picture("fold-time", "Seven steps, folded over time.", "rnn --text hello --steps 7 --fold time"),
            Picture("fold-cell", "Each layer of each step in a box.", "gru --text abc --layers 2 --fold cell"),
            Picture("fold-gate", "Each gate in a box.", "lstm --text ab --fold gate"),
            Picture("fold-layer", "Each layer in a box.", "gru --text abc --layers 2 --fold layer"),
        ],
    )
    for style in STYLES:
        for theme in THEMES:
            yield f"The nine variants: {style}, {theme}", list(variants(style, theme))
    yield (
        "Text",
        [
            Picture("terminal", "For a terminal.", "lstm --text abc --show shape,value,grad", "txt"),
            Picture("ascii", "For one without Unicode.", "gru --text ab --layers 2 --format ascii", "txt"),
            Picture("mermaid", "For pages that draw Mermaid.", "rnn --text ab --style unrolled", "mmd"),
        ],
    )


def kept() -> list[Picture]:
    """Return the pictures that are part of the repository."""
    # one unit, so that every number on the chart is a number that a reader can check; of this seed the sums hold in
    # the digits shown
    charted = (
        "lstm --text abc --hidden 1 --seed 7 --peepholes diagonal --style circuit --step 1 --show value --backward"
    )
    headline = "One LSTM block, forward and backward"
    return [
        Picture("unrolled-lstm", "An LSTM, unrolled over two steps.", "lstm --text ab --hidden 5", folder=KEPT),
        Picture("lstm-block", "One block with what a step computed.", f'{charted} --title "{headline}"', folder=KEPT),
    ]


def draw(picture: Picture) -> None:
    """Draw one picture below the working directory.

    Raises:
        RuntimeError: its command fails.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = render_graph_main(picture.command)
    if status:
        raise RuntimeError(f"render-graph {shlex.join(picture.command)}: {said.getvalue()}")


def page() -> str:
    """Return the page, once its pictures are drawn."""
    parts = [
        "# Gallery",
        "What `minigrad render-graph` draws. Below each picture stands the command; a click on it shows it in its own "
        "size. [Pictures](pictures.md) explains the options.",
    ]
    for title, pictures in sections():
        parts.append(f"## {title}")
        for picture in pictures:
            command = f"render-graph {picture.options}"
            if picture.ending == "svg":
                parts.append(
                    f"```{{figure}} {picture.file}\n:width: 100%\n:loading: lazy\n:alt: {picture.words}\n\n"
                    f"{picture.words} `{command}`\n```"
                )
            else:
                text = Path(picture.file).read_text(encoding="utf-8").rstrip()
                parts.append(f"{picture.words} `{command}`\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Draw everything and write the page."""
    os.chdir(HERE)
    for folder in (FOLDER, KEPT):
        Path(folder).mkdir(exist_ok=True)
    pictures = [picture for _, listed in sections() for picture in listed]
    for picture in (*pictures, *kept()):
        draw(picture)
    wanted = {Path(picture.file) for picture in pictures}
    for stale in set(Path(FOLDER).iterdir()) - wanted:
        stale.unlink()
    Path("gallery.md").write_text(page(), encoding="utf-8")
    size = sum(file.stat().st_size for file in wanted)
    print(f"docs/gallery.md: {len(pictures)} pictures, {size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
