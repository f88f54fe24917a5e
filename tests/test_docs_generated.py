import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(__file__).parents[1]
COMMAND = "python -m minigrad.cli ops --format markdown > docs/ops.md"


def test_the_page_in_the_docs_is_the_page_of_the_engine():
    # A process of its own: tests may have entered records that are not minigrad's.
    done = subprocess.run(
        [sys.executable, *COMMAND.split()[1:-2]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    if done.stdout != (ROOT / "docs" / "ops.md").read_text(encoding="utf-8"):
        pytest.fail(f"docs/ops.md is out of date; regenerate it with: {COMMAND}", pytrace=False)


LISTED = {  # by the reference one by one; of other modules autodoc shows everything public
    mg: {name for name in mg.__all__ if not inspect.ismodule(getattr(mg, name))} - set(mg.ops.__all__),
    mg.nn: set(mg.nn.__all__) - {"init"},
    mg.io: {"load", "save", "metadata"},
}


@pytest.mark.parametrize("module", LISTED, ids=lambda module: module.__name__)
def test_the_reference_names_everything_public(module):
    words = set(re.findall(r"\w+", (ROOT / "docs" / "api.md").read_text(encoding="utf-8")))
    assert LISTED[module] - words - {"MinigradError"} == set()


def test_the_reference_names_every_module():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = [mg.nn, mg.nn.init, mg.losses, mg.decode, mg.optim, mg.explain, mg.io, mg.io.layouts, mg.io.onnx]
    for module in [*modules, mg.testing, mg.errors]:
        assert f".. automodule:: {module.__name__}\n" in text
