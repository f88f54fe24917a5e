"""Tests of the tests: every rule and value of the page, wrong by one per cent, is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from ops_checks import duality_errors, first_order_errors, lane, lane_errors, second_order_errors, value_errors
from ops_samples import Sample, samples

from minigrad.op import PAGE, Op, Rule

RULES = [
    (name, table, operand)
    for name, op in PAGE.records.items()
    for table in ("rules", "jvps")
    for operand in getattr(op, table)
]
JOINT = [(name, word, "") for name, op in PAGE.records.items() for word in ("vjp", "jvp") if getattr(op, word)]


GENERAL = [row for row in RULES if PAGE.records[row[0]].kind != "elementwise"]


class Off(Rule):
    """A rule, times 1.01; where it is 0, plus 0.01."""

    def __init__(self, right: Rule) -> None:
        source = right.source
        if isinstance(source, str):
            source = "0.01" if source == "0" else f"1.01 * ({source})"
        super().__init__(source)

    def __call__(self, *args: Any) -> Any:
        value = super().__call__(*args)
        if isinstance(self.source, str):
            return value
        if isinstance(value, tuple | list):
            return [None if part is None else 1.01 * part for part in value]
        return 1.01 * value


@contextmanager
def wrong_rule(op: Op, table: str, operand: str) -> Iterator[None]:
    """Make one rule of a record wrong: an operand's, or the one for all of them."""
    rules = getattr(op, table) if operand else vars(op)
    place = operand or table
    right = rules[place]
    rules[place] = Off(right)
    try:
        yield
    finally:
        rules[place] = right


@contextmanager
def wrong_value(op: Op) -> Iterator[None]:
    """Make values of the array lane one per cent too large; wholly wrong where they are no floats."""
    name = "_value" if op.value_expr is not None else "value"
    right: Callable[..., Any] = getattr(op, name)

    def wrong(xp: Any, *operands: Any, **params: Any) -> Any:
        y = right(xp, *operands, **params)
        return y * y.dtype.type(1.01) if y.dtype.kind == "f" else ~y if y.dtype.kind == "b" else y + 1

    setattr(op, name, wrong)
    try:
        yield
    finally:
        setattr(op, name, right)


def noticed(check: Callable[[Sample], list[str]], name: str) -> bool:
    """Say whether any sample of the record fails the check."""
    with np.errstate(all="ignore"):
        return any(check(one) for one in samples(name))


@pytest.mark.parametrize(("name", "table", "operand"), RULES + JOINT)
def test_a_wrong_rule_is_noticed(name: str, table: str, operand: str) -> None:
    with lane("array"):
        assert not noticed(first_order_errors, name)
        with wrong_rule(PAGE.records[name], table, operand):
            assert noticed(first_order_errors, name)
        assert not noticed(first_order_errors, name)


@pytest.mark.parametrize(("name", "table", "operand"), GENERAL)
def test_duality_notices_a_rule_that_is_wrong_in_one_direction(name: str, table: str, operand: str) -> None:
    with lane("array"), wrong_rule(PAGE.records[name], table, operand):
        assert noticed(duality_errors, name)


def inner_rules() -> Iterator[tuple[str, str, str, str]]:
    """List rules of records that the rules of others call: (the called record, its operand, the caller)."""
    for name, table, operand in RULES:
        rule = getattr(PAGE.records[name], table)[operand]
        for called in ("spread", "put", "softmax", "mean", "sum_to", "reshape"):
            if rule.expr is not None and called in rule.expr.functions and called != name:
                yield called, "rules", next(iter(PAGE.records[called].rules)), name


@pytest.mark.parametrize(("called", "table", "operand", "caller"), list(dict.fromkeys(inner_rules())))
def test_second_order_notices_a_wrong_rule_of_what_a_rule_calls(
    called: str, table: str, operand: str, caller: str
) -> None:
    with lane("array"), wrong_rule(PAGE.records[called], table, operand):
        assert noticed(second_order_errors, caller)


@pytest.mark.parametrize("name", list(PAGE.records))
def test_a_wrong_value_is_noticed(name: str) -> None:
    with lane("array"):
        assert not noticed(value_errors, name)
        with wrong_value(PAGE.records[name]):
            assert noticed(value_errors, name)
            assert noticed(lambda one: value_errors(one, "float32"), name)
        assert not noticed(value_errors, name)


COMPILED = [name for name, op in PAGE.records.items() if op.compiled is not None]


def test_the_compiled_lane_holds_the_elementwise_page_and_products() -> None:
    elementwise = {name for name, op in PAGE.records.items() if op.kind == "elementwise"}
    assert set(COMPILED) >= elementwise | {"matmul", "affine", "getitem"}


@pytest.mark.parametrize("name", COMPILED)
def test_the_lanes_do_not_share_their_values(name: str) -> None:
    with wrong_value(PAGE.records[name]):
        assert noticed(lane_errors, name)


@pytest.mark.parametrize(
    ("name", "operand"), [(name, operand) for name, table, operand in RULES if name in COMPILED and table == "rules"]
)
def test_the_lanes_do_not_share_their_rules(name: str, operand: str) -> None:
    with wrong_rule(PAGE.records[name], "rules", operand):
        assert noticed(lane_errors, name)
