"""Every recurrent unit and option against its oracles, and the page that lists how well they agree."""

import pytest
from recurrent_checks import CHECKS, FLOORS, LIMITS, TORCH, deviation, listed, rounded, run

from minigrad.nn import units

ROWS = [
    pytest.param(row, marks=pytest.mark.needs("torch") if row.oracle == TORCH else (), id=" | ".join(row))
    for row in CHECKS
]


@pytest.mark.parametrize("row", ROWS)
def test_agreement(row):
    off = run(row)
    assert off <= LIMITS[row.oracle]
    assert rounded(row.oracle, off) <= listed()[row], "the page is too proud: python tests/recurrent_checks.py"


def test_the_page_lists_what_the_suite_has():
    assert list(listed()) == list(CHECKS), "write the page again: python tests/recurrent_checks.py"


def test_every_row_of_the_page_is_within_the_limits():
    for row, off in listed().items():
        assert FLOORS[row.oracle] <= off <= LIMITS[row.oracle]


@pytest.mark.parametrize("oracle", sorted(set(LIMITS) - {TORCH}))
def test_a_check_can_fail(oracle, monkeypatch):
    """Values off by a thousandth, or values that are right with gradients that are off by a thousandth."""
    row = next(r for r in CHECKS if r.oracle == oracle and r.unit == "LSTM")
    real = units.affine

    def wrong(weight, bias):
        share = real(weight, bias)
        if "differences" in oracle:
            return lambda x: 0.999 * share(x) + 0.001 * share(x).detach()
        return lambda x: 1.001 * share(x)

    monkeypatch.setattr(units, "affine", wrong)
    assert run(row) > LIMITS[oracle]


def test_deviations_are_seen():
    assert deviation([1.0, 2.0], [1.0, 2.5]) == 0.2
    assert deviation([float("nan"), 2.0], [1.0, 2.0]) == float("inf")
    with pytest.raises(AssertionError, match="zeros"):
        deviation([0.0], [0.0])
