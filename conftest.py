"""Runs the Python blocks and the commands of the README and of the documentation as tests, in an empty folder."""

import contextlib
import io
import os
import re
import runpy
import shlex
import tempfile
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent
DEMO = Path("demo/lstm.npz")
python = PythonEvaluator()


def start(namespace: dict[str, Any]) -> None:
    """Leave for a folder of the document's own, in which its blocks may read and write."""
    namespace["_home"], namespace["_folder"] = Path.cwd(), tempfile.TemporaryDirectory()
    os.chdir(namespace["_folder"].name)


def end(namespace: dict[str, Any]) -> None:
    """Come back."""
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


def program(example: Example) -> None:
    """Run a block of Python, and keep it as a file if its first line names one."""
    python(example)
    if named := re.match(r"# (\w+\.py)\n", example.parsed):
        Path(named[1]).write_text(example.parsed, encoding="utf-8")


def console(example: Example) -> str | None:
    """Run the block's calls of minigrad in order, and compare what they print with what stands below them.

    A line ``…`` stands for any number of lines; a call with nothing below it may print anything.
    """
    for call in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, wanted = call.partition("\n")
        words = shlex.split(command, comments=True)
        if words[0] not in ("minigrad", "render-graph"):
            continue
        printed, complaints, status = run(words)
        if status:
            return f"{command}: exit status {status}\n{printed}{complaints}"
        lines = [r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in wanted.splitlines()]
        if lines and not re.fullmatch("".join(lines), printed):
            return f"{command}: printed\n{printed}instead of\n{wanted}"
    return None


class Screen(io.TextIOWrapper):
    """What a terminal would show."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def run(words: list[str]) -> tuple[str, str, int]:
    """Return what a call of minigrad prints, its complaints, and its exit status."""
    from minigrad.cli import main, render_graph_main

    if str(DEMO) in words and not DEMO.exists():  # what `make demo` leaves, learned in a moment
        demo = runpy.run_path(str(ROOT / "examples/char_lstm.py"))["main"]
        with contextlib.redirect_stdout(io.StringIO()):
            demo(["--text", str(ROOT / "README.md"), "--hidden", "7", "--steps", "1"])
    screen, errors = Screen(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(errors):
        status = main(words[1:]) if words[0] == "minigrad" else render_graph_main(words[1:])
    screen.seek(0)
    return screen.read(), errors.getvalue(), status


class Programs(PythonCodeBlockParser):
    """Blocks of Python: sessions with ``>>>``, or programs."""

    def __init__(self) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", program)


pytest_collect_file = Sybil(
    parsers=[Programs(), CodeBlockParser("console", console)],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/**/*.md"],
    setup=start,
    teardown=end,
).pytest()
