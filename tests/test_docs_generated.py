import os
import subprocess
import sys
from pathlib import Path

import pytest

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
