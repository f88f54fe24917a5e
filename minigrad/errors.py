"""What can go wrong, by kind, and the one sentence that says where on the tape it went wrong."""

from collections.abc import Sequence

__all__ = [
    "DTypeError",
    "DeviceError",
    "FormatError",
    "FormulaError",
    "GradcheckError",
    "GraphError",
    "MinigradError",
    "MissingExtraError",
    "ShapeError",
    "UsageError",
    "where",
]


class MinigradError(Exception):
    """Base of every error that minigrad raises on purpose."""


class ShapeError(MinigradError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(MinigradError, TypeError):
    """Element types that do not fit together, or that an operation does not take."""


class DeviceError(MinigradError, RuntimeError):
    """Arrays on different devices, or a device that is not there."""


class GraphError(MinigradError, RuntimeError):
    """A graph that cannot be walked: freed nodes, an array changed in place, nothing recorded."""


class FormatError(MinigradError, ValueError):
    """A file or a model from outside whose content is not what its format promises, or more than was allowed."""


class FormulaError(MinigradError, ValueError):
    """A formula outside the language of the page; the message shows the text and the place in it."""


class GradcheckError(MinigradError, AssertionError):
    """A derivative that disagrees with the differences it was checked against."""


class UsageError(MinigradError, ValueError):
    """A call that cannot be carried out as written; the command line exits with status 2."""


class MissingExtraError(MinigradError, ImportError):
    """A feature whose optional packages are not installed.

    Args:
        what: what was asked for, as the start of a sentence: ``"a PNG picture"``.
        extra: the extra of the distribution that brings it: ``"render"``.

    >>> print(MissingExtraError("a PNG picture", "render"))
    a PNG picture needs an optional package: pip install "minigrad-tape[render]"
    """

    def __init__(self, what: str, extra: str) -> None:
        # Both arguments go to the base, so that the error survives pickling between processes.
        super().__init__(what, extra)
        self.what = what
        self.extra = extra

    def __str__(self) -> str:
        return f'{self.what} needs an optional package: pip install "minigrad-tape[{self.extra}]"'


def where(
    op: str | None,
    scope: str | None,
    operands: Sequence[tuple[str, tuple[int, ...]]] = (),
    hint: str = "",
) -> str:
    """Say where on the tape something happened; parts that are unknown are left out.

    Args:
        op: name of the operation.
        scope: path of the scopes it was recorded in.
        operands: name and shape of each operand, in the order of the operation's arguments.
        hint: what to do about it; becomes the second clause.

    >>> where("matmul", "t=3/lstm/forget gate", [("a", (8, 32)), ("b", (31, 5))], "32 and 31 must be equal")
    'matmul(a, b) in t=3/lstm/forget gate: a (8, 32), b (31, 5); 32 and 31 must be equal'
    """
    place = op or ""
    if op and operands:
        place += f"({', '.join(name for name, _ in operands)})"
    if scope:
        place += f" in {scope}" if place else f"in {scope}"
    shapes = ", ".join(f"{name} {shape}" for name, shape in operands)
    fact = ": ".join(part for part in (place, shapes) if part)
    return "; ".join(part for part in (fact, hint) if part)
