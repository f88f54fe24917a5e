"""Brings the fixture `gradcheck` and the option `--gradcheck-report` to pytest; loads nothing until a test asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Report

PROPERTY = "gradcheck"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Enter the option and the two settings."""
    group = parser.getgroup("minigrad", "gradient checks (minigrad)")
    group.addoption(
        "--gradcheck-report",
        action="store_true",
        help="print one line per gradcheck: test, inputs, orders, worst error",
    )
    parser.addini("gradcheck_atol", "default absolute tolerance of the fixture gradcheck")
    parser.addini("gradcheck_rtol", "default relative tolerance of the fixture gradcheck")


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Return :func:`minigrad.testing.gradcheck`, which here fails the test with the report's text."""
    from . import testing
    from .errors import GradcheckError

    defaults: dict[str, Any] = {}
    for name in ("atol", "rtol"):
        setting = request.config.getini(f"gradcheck_{name}")
        if setting:
            try:
                defaults[name] = float(setting)
            except ValueError:
                raise pytest.UsageError(f"gradcheck_{name} is no number: {setting!r}") from None

    def tell(line: str) -> None:
        # Properties travel with the test's report, also from the worker processes of pytest-xdist.
        request.node.user_properties.append((PROPERTY, line))

    def check(f: Callable[..., Any], inputs: Any, *, raise_on_failure: bool = True, **options: Any) -> Report:
        __tracebackhide__ = True
        report, refused = None, ""
        try:
            report = testing.gradcheck(f, inputs, raise_on_failure=False, **{**defaults, **options})
        except GradcheckError as error:
            refused = str(error)
        tell(f"FAILED: {refused}" if report is None else report.summary())
        if report is None or (raise_on_failure and not report.ok):
            # Outside of the except clause: pytest prints no chain of exceptions.
            pytest.fail(refused if report is None else report.text(), pytrace=False)
        return report

    return check


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the section of `--gradcheck-report`."""
    if not config.getoption("gradcheck_report"):
        return
    found: dict[str, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                lines = [str(text) for name, text in report.user_properties if name == PROPERTY]
                # Every phase of a test reports all lines so far.
                found[report.nodeid] = max(found.get(report.nodeid, []), lines, key=len)
    terminalreporter.section("gradient checks")
    for nodeid, lines in found.items():
        for line in lines:
            terminalreporter.write_line(f"{nodeid}: {line}")
    if not any(found.values()):
        terminalreporter.write_line("no test called gradcheck")
