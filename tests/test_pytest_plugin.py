"""The pytest plugin, run by pytest inside of pytest."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minigrad.testing  # loaded here, so that the inner runs find it

pytest_plugins = "pytester"

PLUGIN = Path(minigrad.__file__).with_name("pytest_plugin.py")

SUITE = """
import numpy as np
import minigrad as mg

class Off(mg.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return mg.sin(x)

    @staticmethod
    def backward(ctx, g):
        return g * 1.01 * mg.cos(ctx.saved_tensors[0])

X = np.array([[0.3, -1.2, 2.0], [0.7, 1.9, -0.4]])

def test_right(gradcheck):
    assert gradcheck(lambda x: mg.tanh(x), X, order=2).ok
    gradcheck(lambda w: w * w, X[0])

def test_wrong(gradcheck):
    gradcheck(lambda x: Off.apply(x), X)

def test_tolerated(gradcheck):
    assert not gradcheck(lambda x: Off.apply(x), X, raise_on_failure=False).ok

def test_impossible(gradcheck):
    gradcheck(lambda x: 3.0, X)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # Where minigrad is installed its entry point would bring the same plugin a second time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(SUITE)
    return pytester


def run(suite: pytest.Pytester, *options: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "minigrad.pytest_plugin", "-p", "no:cacheprovider", *options)


def test_the_fixture_fails_with_the_report(suite: pytest.Pytester) -> None:
    result = run(suite)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "gradcheck: 1 of 1 check failed*",
            "*FAIL x (2, 3), reverse: error *",
            "wrong by themselves:",
            "*Off, argument 'x': element (*autodiff *numeric *",
            "*1.0100)",
            "f returned float, not a tensor computed from its inputs",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*another exception*")
    result.stdout.no_fnmatch_line("*gradient checks*")


def test_the_report_has_one_line_per_check(suite: pytest.Pytester) -> None:
    result = run(suite, "--gradcheck-report")
    result.stdout.fnmatch_lines(
        [
            "*gradient checks*",
            "*::test_right: ok: x (2, 3); orders 1 and 2; worst error * (allowed *)",
            "*::test_right: ok: w (3,); order 1; worst error * (allowed *)",
            "*::test_wrong: FAILED: x (2, 3); order 1; worst error *",
            "*::test_tolerated: FAILED: x (2, 3); *",
            "*::test_impossible: FAILED: f returned float*",
        ]
    )
    lines = [line for line in result.outlines if ": ok: " in line or ": FAILED: " in line]
    assert len(lines) == 5


def test_the_report_says_when_there_is_nothing(suite: pytest.Pytester) -> None:
    result = run(suite, "--gradcheck-report", "-k", "nothing_of_this_name")
    result.stdout.fnmatch_lines(["*gradient checks*", "no test called gradcheck"])


@pytest.mark.parametrize("setting", ["gradcheck_rtol", "gradcheck_atol"])
def test_tolerances_come_from_the_settings(suite: pytest.Pytester, setting: str) -> None:
    suite.makeini(f"[pytest]\n{setting} = 0.1\n")
    run(suite, "-k", "wrong").assert_outcomes(passed=1, deselected=3)
    suite.makeini(f"[pytest]\n{setting} = small\n")
    result = run(suite, "-k", "wrong")
    result.assert_outcomes(errors=1, deselected=3)
    result.stdout.fnmatch_lines([f"*{setting} is no number: 'small'*"])


def test_the_report_survives_worker_processes(suite: pytest.Pytester) -> None:
    result = run(suite, "-p", "xdist.plugin", "-n", "1", "--gradcheck-report", "-k", "right")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_right: ok: x (2, 3); orders 1 and 2; *"])


def test_the_plugin_itself_loads_only_pytest() -> None:
    code = (
        "import importlib.util, sys, pytest\n"
        "before = set(sys.modules)\n"
        f"spec = importlib.util.spec_from_file_location('plugin', {str(PLUGIN)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(sorted(set(sys.modules) - before))\n"
        "print('numpy' in sys.modules, 'minigrad' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "False False"]


def test_the_plugin_imports_nothing_else_at_its_top() -> None:
    tree = ast.parse(PLUGIN.read_text(encoding="utf-8"))
    names = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "collections.abc", "typing", "pytest"}
