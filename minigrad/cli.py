"""The command line: draw a model's unrolled graph, explain and check its gradients, print the page of operations."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import GradcheckError, MinigradError, UsageError
from .op import PAGE, Op

__all__ = ["main", "render_graph_main"]

MODEL = """\
MODEL is lstm, gru, rnn (they spell a text), adder (it adds two numbers), or a
function of your own without required arguments that returns a loss or a list of
losses: file.py:function or package.module:function."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``minigrad`` and return its exit status: 0, 1 for a failed check, 2 for a bad call."""
    return _run(_minigrad, argv)


def render_graph_main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``render-graph``, which is ``minigrad render-graph`` under a name of its own."""
    return _run(lambda: _render_graph(_Parser("render-graph", _RENDER)), argv)


def _run(make: Callable[[], _Parser], argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Greek still gets the rest
    try:
        arguments = make().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`): nothing more to say, not even when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("minigrad: interrupted", file=sys.stderr)
        return 130
    except (MinigradError, MemoryError) as error:
        print("minigrad:", _one_line(error), file=sys.stderr)
        return 1 if isinstance(error, GradcheckError) else 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # A full disk behind the standard output: what is left in its buffer must not be tried again at exit.
        print(f"minigrad: cannot write the output: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for a model of this size"
    return " ".join(str(error).split())


# --- parsing ------------------------------------------------------------------------------------------------


def _layout(prog: str) -> argparse.HelpFormatter:
    width = min(80, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=width)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others, in one line."""

    def __init__(self, prog: str, about: str = "", **kwargs: Any) -> None:
        description, _, epilog = about.partition("\f")
        super().__init__(
            prog, description=description, epilog=epilog, formatter_class=_layout, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help")


_MINIGRAD = """\
Record what a network computes, explain and check its gradients, and draw the
unrolled graph.
\f\
examples:
  minigrad render-graph lstm --text hello -o lstm.svg
  minigrad explain lstm --wrt weight_hh_l0 --by time
  minigrad gradcheck model.py:loss
  minigrad ops tanh

Every command has a --help with examples of its own. The exit status is 0, 1 for
a failed check, 2 for a call that cannot be carried out."""


def _minigrad() -> _Parser:
    parser = _Parser("minigrad", _MINIGRAD)
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, words, about, fill in (
        ("render-graph", "draw the unrolled graph of a model", _RENDER, _render_graph),
        ("explain", "explain a gradient route by route", _EXPLAIN, _explain),
        ("flow", "say whether gradients vanish or explode, and why", _FLOW, _flow),
        ("gradcheck", "check a model's gradients", _GRADCHECK, _gradcheck),
        ("ops", "print operations and their derivatives", _OPS, _ops),
    ):
        fill(commands.add_parser(name, help=words, about=about))
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _add_model(parser: _Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what to run, see below")
    group = parser.add_argument_group("the built-in models")
    group.add_argument("--text", metavar="TEXT", help="what to spell (default: hello), or the sum of the adder")
    group.add_argument("--csv", metavar="FILE", help="numbers, each row to predict the next one")
    group.add_argument("--steps", metavar="N", type=int, help="how many characters, rows or bits")
    group.add_argument("--hidden", metavar="N", type=int, help="units of the state (default: 8; adder: 16)")
    group.add_argument("--weights", metavar="FILE", help="a trained network, as examples/char_lstm.py saves it")
    group.add_argument("--layers", metavar="N", type=int, help="how many are stacked (default: 1)")
    group.add_argument("--bidirectional", action="store_true", help="a second network reads the text backwards")
    group.add_argument("--variant", metavar="NAME", help="of the lstm: V, NIG, NFG, NOG, NIAF, NOAF, CIFG, NP, FGR")
    group.add_argument("--peepholes", metavar="KIND", help="of the lstm: diagonal or full")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all random numbers (default: 0)")


def _model(arguments: argparse.Namespace) -> Any:
    from . import models

    if arguments.seed < 0:
        raise UsageError(f"a seed is 0 or more, not {arguments.seed}")
    given = ("text", "csv", "steps", "hidden", "weights", "layers", "bidirectional", "variant", "peepholes", "seed")
    return models.build(arguments.model, **{name: getattr(arguments, name) for name in given})


@contextmanager
def _telling(words: str, count: int | None = None) -> Iterator[Callable[[], object]]:
    """Show on a terminal, where rich is installed, what takes its time; what it gives is called for one of `count`."""
    bar = _progress() if sys.stderr.isatty() else None
    if bar is None:
        yield lambda: None
        return
    with bar as progress:
        task = progress.add_task(words, total=count)
        yield lambda: progress.advance(task)


def _progress() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    except ImportError:
        return None
    console = Console(file=sys.stderr, width=min(80, shutil.get_terminal_size().columns))
    words = TextColumn("{task.description}", markup=False)
    return Progress(words, BarColumn(24), TaskProgressColumn(), console=console, transient=True)


# --- render-graph -------------------------------------------------------------------------------------------

_RENDER = f"""\
Run a model once, forward and backward, and draw what it computed, time from
left to right. A file that is there already is replaced by the finished picture.

{MODEL}
\f\
examples:
  minigrad render-graph lstm --text hello -o lstm.svg
  minigrad render-graph lstm --show shape,value,grad -o lstm.png
  minigrad render-graph lstm --peepholes diagonal --variant CIFG
  minigrad render-graph gru --style unrolled -o gru.pdf
  minigrad render-graph rnn --csv weather.csv --theme dark -o weather.svg
  minigrad render-graph adder --text 23+42 -o adder.html
  minigrad render-graph lstm --highlight "loss->weight_hh_l0 by time"
  minigrad render-graph rnn --backward --show shape,local
  minigrad render-graph lstm --style circuit --step 3 --backward -o step.pdf
  minigrad render-graph lstm --steps 40 --fold none -o long.svg
  minigrad render-graph lstm --text hello --page a4 -o handout.pdf
  minigrad render-graph gru --layers 2 -o gru.mmd
  minigrad render-graph lstm --layers 2 --detail cells -o cells.svg
  minigrad render-graph lstm -o -
  minigrad render-graph rnn -o - --format dot | dot -Tpng > rnn.png
  minigrad render-graph model.py:loss -o loss.svg --open --watch"""

_STYLES = (
    "graph (default): every operation; unrolled: a block a step; rolled: a block and a loop; circuit, odyssey: one step"
)
_SHOWN = "shape,value,grad on nodes; local,gain,flow on edges (default: shape)"
_FOLDS = "time, cell, layer, gate or file.py:function; none draws every step of a long one"
_DETAILS = "record ops (default), or whole cells or layers as one node each"
_FORMATS = "svg, png, pdf, html, dot, json, mermaid, text or ascii, if the file does not say"


def _render_graph(parser: _Parser) -> _Parser:
    _add_model(parser)
    group = parser.add_argument_group("the picture")
    group.add_argument("-o", "--output", metavar="FILE", help="default: MODEL.svg; - is the standard output")
    group.add_argument("--format", metavar="FORMAT", help=_FORMATS)
    group.add_argument("--style", metavar="STYLE", default="graph", help=_STYLES)
    group.add_argument("--show", metavar="WHAT", type=_words, default=["shape"], help=_SHOWN)
    group.add_argument("--fold", metavar="WHAT", help=_FOLDS)
    group.add_argument("--detail", metavar="WHAT", default="ops", help=_DETAILS)
    group.add_argument("--page", metavar="PAGE", help="a4 or slide: fold until the picture fits on one")
    group.add_argument("--highlight", metavar="ROUTE", help='light a route, as in "loss->weight_hh_l0 by time"')
    group.add_argument("--backward", action="store_true", help="draw the reverse sweep as well")
    group.add_argument("--flow", metavar="HOW", help="width or color of an edge follows the gradient that it carries")
    group.add_argument("--step", metavar="T", type=int, help="the step of a chart of one step (default: the middle)")
    group.add_argument("--layer", metavar="N", help="the layer of that step (default: 0)")
    group.add_argument("--direction", metavar="WAY", help="forward (default) or reverse, where there are both")
    group.add_argument("--call", metavar="N", type=int, help="which call of a layer that is called again (default: 1)")
    group.add_argument("--theme", metavar="THEME", default="light", help="light (default), dark or print")
    group.add_argument("--engine", metavar="ENGINE", help="own (default), graphviz-pure or dot")
    group.add_argument("--title", metavar="TEXT", help="the line above the picture")
    group.add_argument("--open", action="store_true", help="show the file in the system's viewer")
    group.add_argument("--watch", action="store_true", help="draw again whenever a file of the model changes")
    group.add_argument("--no-clobber", action="store_true", help="keep a file that is there, and fail")
    parser.set_defaults(run=_run_render_graph)
    return parser


def _run_render_graph(arguments: argparse.Namespace) -> int:
    from .models import find_function
    from .render import check

    to_stdout = arguments.output == "-"
    if arguments.open and to_stdout:
        raise UsageError("--open shows a file: name one with -o")
    if to_stdout:
        arguments.format = _kind_for_stdout(arguments.format)
    elif arguments.output is not None:
        _check_place(Path(arguments.output), arguments.no_clobber)
    if arguments.fold and ":" in arguments.fold:
        with _own_output(arguments):
            arguments.fold = find_function(arguments.fold)
    elif arguments.fold == "none":
        arguments.fold = False
    asked = {name: getattr(arguments, name) for name in _ASKED}
    check(None if to_stdout else arguments.output, **asked)
    if arguments.watch:
        return _watch(arguments, asked)
    path = _draw(arguments, asked)
    if arguments.open and path is not None:
        _open(path)
    return 0


_ASKED = (
    "style",
    "format",
    "show",
    "fold",
    "page",
    "highlight",
    "backward",
    "flow",
    "theme",
    "engine",
    "step",
    "layer",
    "direction",
    "call",
)
_ENDINGS = {None: "svg", "mermaid": "mmd", "text": "txt", "ascii": "txt"}


def _draw(arguments: argparse.Namespace, asked: dict[str, Any]) -> Path | None:
    """Run the model and draw it; return where the picture is, unless it went to the standard output."""
    from ._core import Tape
    from .render import render

    with _own_output(arguments):
        model = _model(arguments)
    path = None
    if arguments.output != "-":
        path = Path(arguments.output or f"{model.name}.{_ENDINGS.get(arguments.format, arguments.format)}")
        _check_place(path, arguments.no_clobber)
    with _telling(f"running {model.title}", model.count) as told:
        with Tape(detail=arguments.detail) as tape, _own_output(arguments):
            loss = model.loss(told)
        for node in tape.nodes:
            if node.kind == "parameter":
                node.tensor.grad = None  # a model may have swept its loss itself
    with _telling(f"sweeping back through {len(tape)} nodes"):
        loss.backward()  # not on the tape: the picture is of the forward computation
    if not math.isfinite(loss.item()):
        print(f"minigrad: note: the loss is {loss.item()}; minigrad flow says where it began", file=sys.stderr)
    with _telling(f"drawing {len(tape)} nodes"):
        title = model.title if arguments.title is None else arguments.title
        picture = render(tape, path, title=title, notes=dict(enumerate(model.captions)), **asked)
    if path is None:
        _put(picture.data)
    print(
        f"{path or 'standard output'}: {picture.format}{picture.drawn_by}",
        file=sys.stderr if path is None else sys.stdout,
    )
    return path


def _own_output(arguments: argparse.Namespace) -> AbstractContextManager[Any]:
    """Keep the standard output for the picture if it goes there: what a model prints goes where errors go."""
    return redirect_stdout(sys.stderr) if arguments.output == "-" else nullcontext()


def _kind_for_stdout(asked: str | None) -> str:
    """Return the format for the standard output: a drawing that it can hold if it is a terminal, SVG otherwise."""
    from .render import BINARY

    kind = asked or ("text" if sys.stdout.isatty() else "svg")
    if kind in BINARY and sys.stdout.isatty():
        raise UsageError(f"{kind} is nothing for a terminal: name a file with -o, or add > FILE.{kind}")
    if kind == "text":
        try:
            "║┊▼₀σ⊙".encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return "ascii"
    return kind


def _put(data: str | bytes) -> None:
    """Write a picture to the standard output as it would be written to a file, whatever the terminal's encoding."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is not None:
        sys.stdout.flush()
        stream.write(data.encode() if isinstance(data, str) else data)
        stream.flush()
    elif isinstance(data, str):
        sys.stdout.write(data)  # a notebook's
    else:
        raise UsageError("this standard output takes text only: name a file with -o")


SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_FOR_A_VIEWER = 2.0


def _watch(arguments: argparse.Namespace, asked: dict[str, Any]) -> int:
    """Draw, and draw again whenever a file that the model was made of has changed, until somebody interrupts."""
    from . import models

    if arguments.output == "-" and not sys.stdout.isatty():
        raise UsageError("--watch writes a file again and again: name one with -o")
    place = arguments.model.rpartition(":")[0]
    files = {Path(file) for file in (place if place.endswith(".py") else "", arguments.csv, arguments.weights) if file}
    if not files and not place:
        raise UsageError(f"--watch has nothing to watch: {arguments.model} is built in and reads no --csv or --weights")
    for file in sorted(files):
        if not file.is_file():
            raise UsageError(f"there is no file {str(file)!r}")
    files = {file.resolve() for file in files}
    others = set(sys.modules)
    wrote = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # compiled files tell edits apart by the second only
    try:
        while True:
            seen = _stamps(files)
            try:
                path = _draw(arguments, asked)
                if arguments.open and path is not None:
                    _open(path)
                arguments.open = arguments.no_clobber = False
            except (MinigradError, MemoryError) as error:
                if not files and not models.own_modules(others):
                    raise
                print("minigrad:", _one_line(error), file=sys.stderr)
            modules = models.own_modules(others)
            new = {file.resolve() for file in modules.values()} - files
            files |= new
            seen |= _stamps(new)
            print(f"watching {', '.join(sorted(file.name for file in files))}; Ctrl-C ends", file=sys.stderr)
            _wait(seen)
            models.forget(modules)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 0
    finally:
        sys.dont_write_bytecode = wrote


def _wait(seen: dict[Path, tuple[int, ...] | None]) -> None:
    """Return when files have changed and two looks in a row find them alike: then nobody is still writing."""
    last = seen
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        now = _stamps(seen)
        if now == last != seen:
            return
        last = now


def _stamps(files: Iterable[Path]) -> dict[Path, tuple[int, ...] | None]:
    """Return for each file what changes when its content does; None for one that is not there."""
    stamps: dict[Path, tuple[int, ...] | None] = {}
    for file in files:
        try:
            stat = file.stat()
            stamps[file] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            stamps[file] = None
    return stamps


def _check_place(path: Path, keep: bool) -> None:
    """Refuse a place where nothing can be written before anything is computed."""
    if path.is_dir():
        raise UsageError(f"cannot write {str(path)!r}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} is not writable")
    if keep and path.exists():
        raise UsageError(f"{str(path)!r} is there already, and --no-clobber keeps it")


def _open(path: Path) -> None:
    """Show a file in the program that the system shows such files in, or else in a web browser."""
    import webbrowser

    if hasattr(os, "startfile"):
        os.startfile(path)
        return
    program = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if program is not None:
        nothing = subprocess.DEVNULL
        viewer = subprocess.Popen(
            [program, path], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        try:
            if viewer.wait(SECONDS_FOR_A_VIEWER) == 0:
                return
        except subprocess.TimeoutExpired:
            return  # it is the viewer itself
    if not webbrowser.open(path.resolve().as_uri()):
        print(f"minigrad: no program was found that shows {path}; open it by hand", file=sys.stderr)


# --- explain ------------------------------------------------------------------------------------------------

_EXPLAIN = f"""\
Run a model once and explain the gradient of one of its values in another: how
many routes there are between the two, what each group of them contributes, and
which single routes are the strongest. The parts add up to the gradient, which
is checked; the exit status is 1 if they do not.

{MODEL}
\f\
examples:
  minigrad explain lstm --of loss --wrt weight_hh_l0 --by time
  minigrad explain lstm --wrt 'c[2]' --by route --top 3
  minigrad explain gru --of 'h[3]' --wrt 'h[0]' --through 'r[2]'
  minigrad explain model.py:loss --wrt W --at 0,2 --json"""

GROUPINGS = ("time", "gate", "scope", "delay", "route")


def _explain(parser: _Parser) -> _Parser:
    _add_model(parser)
    group = parser.add_argument_group("the gradient")
    group.add_argument("--of", metavar="NAME", default="loss", help="loss (default), or a value of the tape: h[3], #12")
    group.add_argument("--wrt", metavar="NAME", required=True, help="a parameter or a value: weight_hh_l0, c[2]")
    group.add_argument("--at", metavar="I,J", type=_indices, help="the element of it (default: norms of all)")
    group.add_argument("--through", metavar="NAMES", type=_words, default=[], help="only routes through all of these")
    group.add_argument("--avoiding", metavar="NAMES", type=_words, default=[], help="only routes through none of these")
    group = parser.add_argument_group("the report")
    group.add_argument("--by", metavar="WHAT", choices=GROUPINGS, help=f"group all routes by {', '.join(GROUPINGS)}")
    group.add_argument("--top", metavar="N", type=int, default=5, help="single routes to list (default: 5)")
    group.add_argument("--latex", action="store_true", help="print the sum as LaTeX")
    group.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.set_defaults(run=_run_explain)
    return parser


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no index: write it like 0,2") from None


def _run_explain(arguments: argparse.Namespace) -> int:
    from ._core import Tape
    from .explain import paths

    if arguments.latex and arguments.json:
        raise UsageError("--latex and --json cannot be given together")
    model = _model(arguments)
    with _telling(f"running {model.title}"), Tape() as tape:
        loss = model.loss()
    if loss.name is None:
        loss.name = "loss"
    with _telling(f"following routes through {len(tape)} nodes"):
        ledger = paths(
            loss if arguments.of == "loss" else arguments.of,
            arguments.wrt,
            at=arguments.at,
            by=arguments.by,
            top=arguments.top,
            tape=tape,
            through=arguments.through,
            avoiding=arguments.avoiding,
        )
    if arguments.json:
        print(json.dumps(ledger.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    elif arguments.latex:
        print(ledger.to_latex())
    else:
        _print_report(ledger)
    return 0


def _print_report(report: Any) -> None:
    """Print lines and tables of at most 80 columns, with rich where it is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print(report)
        return
    width = min(80, shutil.get_terminal_size().columns)
    console = Console(file=sys.stdout, width=width, highlight=False)
    for part in report.parts():
        if isinstance(part, str):
            console.print(Text(part))
            continue
        table = Table(header_style="bold")
        for k, head in enumerate(part.heads):
            right = k in part.right
            # Numbers stay whole; words are what gives way.
            table.add_column(Text(head), justify="right" if right else "left", no_wrap=right, overflow="fold")
        for row in part.rows:
            table.add_row(*map(Text, row))
        console.print(table)


# --- flow ---------------------------------------------------------------------------------------------------

_FLOW = f"""\
Say how a model's gradients flow back through time: which share arrives at each
step, what a step does to it, whether they vanish or explode, which factor does
it and what would change it. With --fail-on the exit status can be 1.

{MODEL}
\f\
examples:
  minigrad flow lstm --text hello
  minigrad flow rnn --steps 20 --truncate 5,10
  minigrad flow model.py:loss --fail-on exploding --json"""

_FAILURES = ("vanishing", "exploding")


def _flow(parser: _Parser) -> _Parser:
    _add_model(parser)
    group = parser.add_argument_group("the report")
    group.add_argument("--fail-on", metavar="WHAT", type=_words, default=[], help="vanishing,exploding: exit with 1")
    group.add_argument("--try", dest="try_", action="store_true", help="make the changes it proposes, and report again")
    group.add_argument("--truncate", metavar="K1,K2", type=_words, help="compare with the truncated gradient")
    group.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.set_defaults(run=_run_flow)
    return parser


def _run_flow(arguments: argparse.Namespace) -> int:
    from ._core import Tape
    from .graph.flow import flow

    for word in arguments.fail_on:
        if word not in _FAILURES:
            raise UsageError(f"--fail-on takes {' and '.join(_FAILURES)}, not {word!r}")
    windows = arguments.truncate
    if windows is not None and (len(windows) != 2 or not all(k.isdecimal() for k in windows)):
        raise UsageError("--truncate takes two numbers of steps, like 5,10")
    model = _model(arguments)
    with _telling(f"running {model.title}"):
        with Tape() as tape:
            losses = model.losses()
        report = flow(losses, tape)
    cut = report.truncation(*map(int, windows)) if windows else None
    after = report.tried(model.losses) if arguments.try_ and report.worst.changes else None
    if arguments.json:
        data = report.to_dict()
        data |= {"truncation": vars(cut)} if cut else {}
        data |= {"tried": after.to_dict()} if after else {}
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        parts = [str(report), str(cut) if cut else "", f"After the changes:\n\n{after}" if after else ""]
        print("\n\n".join(part for part in parts if part))
    # A gradient that is not finite has exploded, whichever way it got there.
    kinds = {"exploding" if layer.kind == "not finite" else layer.kind for layer in report.layers}
    return 1 if kinds & set(arguments.fail_on) else 0


# --- gradcheck ----------------------------------------------------------------------------------------------

_GRADCHECK = f"""\
Compare a model's gradients with differences of its loss, and with each other.
If they disagree, every recorded operation is checked by itself and the wrong
one is named. The exit status is 1 then.

{MODEL}
\f\
examples:
  minigrad gradcheck rnn --text hi --hidden 3
  minigrad gradcheck adder --steps 2 --text 1+2 --hidden 2 --order 2
  minigrad gradcheck model.py:loss --json"""


def _gradcheck(parser: _Parser) -> _Parser:
    _add_model(parser)
    group = parser.add_argument_group("the check")
    group.add_argument("--order", metavar="N", type=int, default=1, help="2 checks second derivatives too (default: 1)")
    both = ["reverse", "forward"]
    group.add_argument("--modes", metavar="MODES", type=_words, default=both, help="default: reverse,forward")
    group.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.set_defaults(run=_run_gradcheck)
    return parser


def _run_gradcheck(arguments: argparse.Namespace) -> int:
    from .testing import check_model

    model = _model(arguments)
    with _telling(f"checking {model.title}"):
        report = check_model(model.loss, order=arguments.order, modes=arguments.modes, seed=arguments.seed)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if arguments.json else report.text())
    return 0 if report.ok else 1


# --- ops ----------------------------------------------------------------------------------------------------

_OPS = """\
Print the page of operations: for each one its call, its value, and its
derivative in every argument. y is the result, g the gradient that arrives at
it, t the tangent of the argument.
\f\
examples:
  minigrad ops
  minigrad ops tanh matmul
  minigrad ops softmax --json"""


def _ops(parser: _Parser) -> _Parser:
    parser.add_argument("names", metavar="NAME", nargs="*", help="operations to print (default: all)")
    parser.add_argument("--format", metavar="FORMAT", default="text", help="text (default), markdown or json")
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="the same as --format json")
    parser.set_defaults(run=_run_ops)
    return parser


def _run_ops(arguments: argparse.Namespace) -> int:
    writers = {"text": _as_text, "markdown": _as_markdown, "json": _as_json}
    if arguments.format not in writers:
        raise UsageError(f"unknown format {arguments.format!r}: choose from {', '.join(writers)}")
    from . import nn  # noqa: F401  enters the recurrent layers

    known = {op.name: op for op in PAGE}
    for name in arguments.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            meant = f": did you mean {' or '.join(near)}?" if near else "; minigrad ops prints all there are"
            raise UsageError(f"there is no operation {name!r}{meant}")
    chosen = [known[name] for name in arguments.names] or list(known.values())
    print(writers[arguments.format](chosen))
    return 0


def _formulas(op: Op) -> Iterator[tuple[str, str]]:
    """Yield what the page says of an operation, as (what, formula)."""
    if op.value_expr is not None:
        yield "y", op.value_text
    for operand, rule in op.rules.items():
        if rule.text is not None:
            yield (f"∂y/∂{operand}" if op.kind == "elementwise" else f"grad {operand}"), rule.text
    for operand, rule in op.jvps.items():
        if rule.text is not None:
            yield f"push {operand}", rule.text


def _shapes(op: Op) -> str:
    if op.shapes != "broadcast":
        return f"Shapes: {op.shapes}."
    return "Shapes broadcast." if len(op.operands) > 1 else "Any shape."


def _as_text(ops: Iterable[Op]) -> str:
    blocks = []
    for op in ops:
        lines = textwrap.wrap(f"{op.text_signature}  [{op.kind}]", 80, subsequent_indent=" " * 8)
        lines += textwrap.wrap(f"{op.doc} {_shapes(op)}".strip(), 80, initial_indent="    ", subsequent_indent="    ")
        for what, formula in _formulas(op):
            head = f"    {what} = "
            lines += textwrap.wrap(head + formula, 80, subsequent_indent=" " * 8, break_long_words=False)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


_KINDS = {
    "elementwise": "One number at a time. ∂y/∂x is local: the gradient g that arrives is multiplied by it.",
    "linear": "Linear in each operand. `grad x` is the transpose, applied to the gradient g that arrives; the forward "
    "derivative is the operation itself, applied to the tangent.",
    "general": "All others. `grad x` is what x receives of g, `push x` what moving x by t does to the result.",
    "composed": "Compositions of others that run as one, where a kernel is faster than the parts; their derivatives "
    "are those of the parts, which explanations and pictures see in their place. `xs` are the input, then for each "
    "direction the first states, `weight_ih`, `weight_hh`, and what the parameters say there is of `bias_ih`, "
    "`bias_hh`, `weight_hr` and `weight_ph`.",
}


def _as_markdown(ops: Iterable[Op]) -> str:
    listed = list(ops)
    parts = [
        "# Operations",
        "The page of calculus that everything else is derived from, printed by `minigrad ops --format markdown`. "
        "y is the result of an operation, g the gradient that arrives at it, t the tangent of an operand. Parameters "
        "follow the semicolon, with their defaults.",
    ]
    for kind, words in _KINDS.items():
        of_kind = [op for op in listed if op.kind == kind]
        if not of_kind:
            continue
        parts += [f"## {kind.capitalize()} operations", words]
        for op in of_kind:
            formulas = [f"* {what} = `{formula}`" for what, formula in _formulas(op)]
            parts += [f"### {op.name}", f"`{op.text_signature}`: {op.doc} {_shapes(op)}".strip()]
            if formulas or kind != "composed":
                parts += ["\n".join(formulas) or "No derivative."]
    return "\n\n".join(parts)


def _as_json(ops: Iterable[Op]) -> str:
    return json.dumps([_plain(op) for op in ops], indent=2, ensure_ascii=False)


def _plain(op: Op) -> dict[str, Any]:
    def both(rules: dict[str, Any]) -> dict[str, dict[str, str | None]]:
        return {operand: {"text": rule.text, "latex": rule.latex} for operand, rule in rules.items()}

    return {
        "name": op.name,
        "kind": op.kind,
        "signature": op.text_signature,
        "operands": op.operands,
        "variadic": op.variadic,
        "parameters": {name: repr(default) for name, default in op.params.items()},
        "doc": op.doc,
        "value": {"text": op.value_text, "latex": op.value_latex} if op.value_expr is not None else None,
        "derivatives": both(op.rules),
        "tangents": both(op.jvps),
    }


if __name__ == "__main__":
    sys.exit(main())
