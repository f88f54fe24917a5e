"""What the suite can use but does not need, and one line that says what was missing."""

import importlib.machinery
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from nvrtc import library_path


@dataclass(frozen=True)
class Group:
    """An optional part of the machine: how to find it and how to get it."""

    found: Callable[[], bool]
    remedy: str


def module(name: str) -> Callable[[], bool]:
    # On the path, not among what is loaded: a stand-in of a test has no specification.
    return lambda: importlib.machinery.PathFinder.find_spec(name) is not None


def program(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


def cuda_device() -> bool:
    if not module("cupy")():
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def browser() -> bool:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    return chromium() and program("chromedriver")() and module("selenium")()


GROUPS = {
    "torch": Group(module("torch"), "make test ORACLES=1"),
    "onnx": Group(module("onnx"), ".venv/bin/pip install onnx"),
    "onnxruntime": Group(module("onnxruntime"), ".venv/bin/pip install onnxruntime"),
    "safetensors": Group(module("safetensors"), ".venv/bin/pip install safetensors"),
    "matplotlib": Group(module("matplotlib"), "make test ORACLES=1"),
    "browser": Group(browser, "Chromium and its driver on the path: apt install chromium chromium-driver"),
    "dot": Group(program("dot"), "Graphviz on the path"),
    "nvrtc": Group(lambda: library_path() is not None, 'pip install "minigrad-tape[cuda-test]"'),
    "cupy": Group(module("cupy"), 'pip install "minigrad-tape[cuda]"'),
    "cuda": Group(cuda_device, "CuPy and a GPU"),
}


@pytest.fixture
def float64() -> Iterator[None]:
    """Make float64 the default and start from one seed."""
    import minigrad as mg

    mg.set_default_dtype("float64")
    mg.manual_seed(1)
    yield
    mg.set_default_dtype("float32")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if not GROUPS[name].found():
                pytest.skip(f"needs {name}")


def skipped_by(name: str, reports: list[pytest.TestReport]) -> int:
    """Count the skips that name a group: by the marker, or by ``pytest.importorskip``."""
    return sum(f"needs {name}" in str(r.longrepr) or f"'{name}'" in str(r.longrepr) for r in reports)


def summary(reports: list[pytest.TestReport]) -> Iterator[str]:
    for name, group in GROUPS.items():
        if not group.found():
            yield f"{name} ({skipped_by(name, reports)} skips; {group.remedy})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    absent = list(summary(terminalreporter.stats.get("skipped", [])))
    line = f"optional groups: {len(GROUPS) - len(absent)} of {len(GROUPS)} present"
    terminalreporter.write_line(line + (f"; skipped: {', '.join(absent)}" if absent else ""))
