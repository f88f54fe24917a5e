"""The chain rule at one value: its outgoing edges, the immediate derivative on each, and their sum, with numbers.

∂⁺y/∂x, on an edge, holds every other operand of that one operation fixed. ∂E/∂x, the total derivative, is the sum over
the edges that leave x of ∂E/∂y · ∂⁺y/∂x: each factor of a product has an edge of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad._core import Tape
from minigrad.errors import GradcheckError, GraphError, UsageError
from minigrad.graph.paths import NUMBERS_KEPT, Arrow, Between, Edge, Index, as_array, elements, unwatched
from minigrad.graph.words import Report, Table, number, percent, plain, share_of, value_of

__all__ = ["Equations", "Term", "equations"]


@dataclass(frozen=True, eq=False)
class Term:
    """What one edge out of a value brings.

    Attributes:
        edge: the edge, with ∂⁺ on it as a formula.
        via: the next value with a name that the edge leads to.
        symbol, symbol_latex: the term as a formula, ∂E/∂y · ∂⁺y/∂x.
        arriving: ∂E/∂y, an array of y's shape.
        contribution: what x receives, an array of its shape.
        value: the number that stands for the contribution: an element, or the norm of an array.
        share: its part of the sum; shares add up to 1. None if the sum is 0.
    """

    edge: Edge
    via: str
    symbol: str
    symbol_latex: str
    arriving: Any
    contribution: Any
    value: float
    share: float | None


class Equations(Report):
    """The chain rule at one value; made by :func:`equations`.

    Attributes:
        of, wrt: what E and x are called.
        at: the element of x that numbers are about, or None.
        terms: one :class:`Term` for each edge out of x, in the order of recording.
        gradient: ∂E/∂x, the engine's.
        residual, tolerance: norm of the difference between the gradient and the sum of the terms, and its bound.
    """

    def __init__(self, net: Between, of_at: Index | None, at: Index | None) -> None:
        self.of, self.wrt, self.at = net.symbol(net.of), net.symbol(net.wrt), at
        face = net.face(net.wrt)
        self.shape, self.scope = face.shape, face.scope
        self.symbol = net.words.partial(face, of=self.of)
        self.symbol_latex = net.words.partial(face, True, net.symbol(net.of, latex=True))
        arrows = [a for node in reversed(net.nodes) for a in net.arrows[id(node)] if a.source is net.wrt]
        users = list({id(a.target): a.target for a in arrows}.values())
        self.gradient, *grads = net.gradient(of_at, [net.tensor(user) for user in users])
        if not np.all(np.isfinite(self.gradient)):
            raise GraphError(
                f"{self.symbol} is not finite, so no parts add up to it; minigrad.explain.provenance "
                "says where that came from"
            )
        arriving = {id(user): grad for user, grad in zip(users, grads, strict=True)}
        self.terms = tuple(self._term(net, arrow, arriving[id(arrow.target)]) for arrow in arrows)
        total = sum((term.contribution for term in self.terms), np.zeros_like(self.gradient))
        gross = sum(float(np.linalg.norm(term.contribution)) for term in self.terms)
        self.residual = float(np.linalg.norm(total - self.gradient))
        self.tolerance = 64 * float(np.finfo(face.dtype).eps) * gross
        if not self.residual <= self.tolerance:
            raise GradcheckError(
                f"{self.symbol}: the terms add up to something else than the gradient, by {self.residual:.3g} where "
                f"{self.tolerance:.3g} is rounding: some operation's two ways of computing its derivative disagree, or "
                "a hook changes gradients; minigrad.testing.gradcheck says which"
            )

    def _term(self, net: Between, arrow: Arrow, arriving: Any) -> Term:
        target = net.face(arrow.target)
        part = net.received(arrow.target, net.like(arriving), [arrow.k])[arrow.k]
        contribution = np.zeros_like(self.gradient) if part is None else as_array(part)
        return Term(
            net.edge(arrow),
            net.via(arrow),
            net.words.term(target, arrow.k, of=self.of),
            net.words.term(target, arrow.k, True, net.symbol(net.of, latex=True)),
            arriving,
            contribution,
            value_of(contribution, self.at),
            share_of(contribution, self.gradient, self.at),
        )

    # -- what people read --------------------------------------------------------------------------

    @property
    def _summable(self) -> bool:
        return self.at is not None or self.gradient.size == 1

    def parts(self) -> list[str | Table]:
        """Return the equation in symbols, then in numbers, then edge by edge, and the residual."""
        found: list[str | Table] = []
        for i, term in enumerate(self.terms):
            lead = f"{self.symbol} =" if i == 0 else " " * (len(self.symbol) + 1) + "+"
            found.append(f"{lead} {term.symbol}")
        if self._summable:
            numbers = " + ".join(number(t.value) if t.value >= 0 else f"({number(t.value)})" for t in self.terms)
            where = f" (element {list(self.at)} of {self.shape})" if self.at is not None else ""
            found.append(f"{' ' * len(self.symbol)} = {numbers} = {number(value_of(self.gradient, self.at))}{where}")
        kind = "value" if self._summable else "norm"
        rows = tuple(
            (
                number(value_of(t.arriving, self._same(t))),
                number(t.value),
                percent(t.share),
                f"{t.via}: {t.edge.formula}",
            )
            for t in self.terms
        )
        rows += (("", number(value_of(self.gradient, self.at)), percent(1.0), f"sum, {self.symbol}"),)
        found += ["", Table(("arriving", kind, "share", "edge to, and ∂⁺ on it"), rows, frozenset({0, 1, 2}))]
        return [*found, "", f"residual {self.residual:.2g} (rounding: up to {self.tolerance:.2g})"]

    def _same(self, term: Term) -> Index | None:
        """Return the element of what arrives that stands beside the one asked for, where the shapes are the same."""
        return self.at if term.arriving.shape == self.gradient.shape else None

    def to_latex(self) -> str:
        """Return the equation as LaTeX (amsmath), each term's number underneath."""
        terms = [rf"\underbrace{{{term.symbol_latex}}}_{{{number(term.value)}}}" for term in self.terms]
        body = " \\\\\n&\\quad + ".join(terms)
        total = number(value_of(self.gradient, self.at))
        end = rf" = {total}" if self._summable else rf", \quad \left\|{self.symbol_latex}\right\| = {total}"
        return f"\\begin{{aligned}}\n{self.symbol_latex} &= {body} \\\\\n&{end}\n\\end{{aligned}}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as data for JSON; arrays of up to 64 elements stand in it element by element."""

        def kept(name: str, array: Any) -> dict[str, Any]:
            return {name: plain(array)} if array.size <= NUMBERS_KEPT else {}

        return {
            "of": self.of,
            "wrt": self.wrt,
            "shape": list(self.shape),
            "scope": self.scope,
            "at": None if self.at is None else list(self.at),
            "value": plain(value_of(self.gradient, self.at)),
            "terms": [
                {
                    "via": t.via,
                    "op": t.edge.op,
                    "operand": t.edge.operand,
                    "scope": t.edge.scope,
                    "time": t.edge.time,
                    "symbol": t.symbol,
                    "formula": t.edge.formula,
                    "value": plain(t.value),
                    "share": t.share,
                    **kept("arriving", t.arriving),
                    **kept("contribution", t.contribution),
                }
                for t in self.terms
            ],
            "residual": self.residual,
            "tolerance": self.tolerance,
            **kept("gradient", self.gradient),
        }


def equations(tensor: Any, tape: Tape | None = None, of: Any = None, at: Any = None) -> Equations:
    """Write out the chain rule at one value: ∂E/∂x = Σ ∂E/∂y · ∂⁺y/∂x over the edges that leave x, with numbers.

    Args:
        tensor: x: a tensor, the name of one on the tape, or a tape node.
        tape: the tape that saw the computation.
        of: E, given likewise; the last single number on the tape that has a gradient if not given. An array stands for
            the sum of its elements.
        at: the element of x to show, as an index; or a pair of indices, of an element of E and one of x.

    Returns:
        An :class:`Equations`; print it, or take ``to_latex()`` or ``to_dict()``. The sum of its terms is the engine's
        gradient: the residual was checked.

    Raises:
        UsageError: neither a tape nor `of`, unknown names, a value that E does not depend on.
        GraphError: what derivatives need has been freed, or the gradient is not finite.
        GradcheckError: the terms do not add up to the gradient within rounding.

    >>> import minigrad as mg
    >>> with mg.Tape() as tape:
    ...     x = mg.tensor(0.5, requires_grad=True, name="x")
    ...     (x * x + x).name = "E"
    >>> print(equations(x, tape).terms[0].symbol)
    ∂E/∂(x·x) · x
    """
    if of is None:
        if tape is None:
            raise UsageError("equations needs the tape, or of=, to know what is differentiated")
        ends = [node for node in tape.nodes if node.kind == "op" and node.requires_grad and node.value.size == 1]
        if not ends:
            raise UsageError("no operation on the tape gave a single number: say which one is E with of=")
        of = ends[-1]

    def made() -> Equations:
        net = Between(of, tensor, tape)
        if net.of is net.wrt:
            raise UsageError(f"no edge leads from {net.symbol(net.wrt)} to itself")
        return Equations(net, *elements(at, tuple(net.root.shape), tuple(net.leaf.shape)))

    return unwatched(made)
