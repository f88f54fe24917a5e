"""What the page says of shapes is what operations do, as far as it is said in symbols."""

import re

import ops_samples
import pytest

import minigrad as mg
from minigrad.op import PAGE

SYMBOLIC = re.compile(r"^(\([^()]*\)(?:, \([^()]*\))*) -> (\([^()]*\))(; .*)?$")


def axes(text):
    return [part.strip() for part in text.strip("()").split(",") if part.strip()]


def bind(names, shape, bound):
    """Match one shape with its symbols; '…' stands for any axes, the same everywhere."""
    if "…" in names:
        place = names.index("…")
        after = len(names) - place - 1
        if len(shape) < len(names) - 1:
            return False
        pairs = [*zip(names[:place], shape, strict=False), ("…", tuple(shape[place : len(shape) - after]))]
        pairs += list(zip(names[place + 1 :], shape[len(shape) - after :], strict=True))
    else:
        if len(names) != len(shape):
            return False
        pairs = list(zip(names, shape, strict=True))
    return all(bound.setdefault(name, length) == length for name, length in pairs)


SAID = [op for op in PAGE if SYMBOLIC.match(op.shapes)]


def test_enough_is_said_in_symbols():
    assert len(SAID) > 15
    assert all(op.shapes for op in PAGE)


@pytest.mark.parametrize("op", SAID, ids=lambda op: op.name)
def test_shapes_hold(op):
    operands, result, _ = SYMBOLIC.match(op.shapes).groups()
    sides = [axes(side) for side in re.findall(r"\([^()]*\)", operands)]
    held = 0
    for sample in ops_samples.samples(op.name):
        shapes = [x.shape for x in sample.operands]
        bound = {}
        if len(shapes) != len(sides) or not all(bind(n, s, bound) for n, s in zip(sides, shapes, strict=True)):
            continue  # vectors and broadcasting, which the words after the symbols are about
        if sample.params.get("reduction") == "none":
            continue
        y = op(*[mg.as_tensor(x) for x in sample.operands], **sample.params)
        assert bind(axes(result), y.shape, bound), f"{sample}: {y.shape}, said {op.shapes}"
        held += 1
    assert held > 0


def test_a_wrong_statement_is_noticed():
    bound = {}
    assert bind(["…", "n", "k"], (2, 3, 5), bound)
    assert bind(["…", "k", "m"], (2, 5, 7), bound)
    assert not bind(["…", "m", "n"], (2, 3, 7), dict(bound))
    assert bind(["…", "n", "m"], (2, 3, 7), bound)
