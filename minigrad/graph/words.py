"""What explanations call things: names from the model, formulas from the page, numbers and tables of 80 columns."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import formula
from minigrad._core import TapeNode
from minigrad.backend import host

WIDTH = 80
LONGEST = 32
"""A formula of up to this many characters may stand for a value that has no name: ``f[4]·c[3]``."""

_INDEXED = re.compile(r"^(.+)\[([^][]+)\]$")


class Words:
    """Labels of the nodes of a tape, as text and as LaTeX, and the formulas on the edges between them.

    A value is called by its name; one without a name by its formula if that is short and its operands have names, and
    else by its operation and its place on the tape: ``add#62`` is ``tape.nodes[62]``.

    Args:
        names: names that are known for the engine's nodes beside those on the tape, by identity.
        strangers: tape nodes that were rebuilt from the graph, by identity; their places read ``#g62``.
    """

    def __init__(self, names: Mapping[int, str] = {}, strangers: frozenset[int] = frozenset()) -> None:
        self.names, self.strangers = dict(names), strangers
        self._labels: dict[tuple[int, bool], str] = {}

    def name(self, node: TapeNode) -> str | None:
        """Return the name that the model gave a value."""
        return node.name or (self.names.get(id(node.node)) if node.node is not None else None)

    def label(self, node: TapeNode, latex: bool = False) -> str:
        """Return what a value is called."""
        key = id(node), latex
        if key not in self._labels:
            self._labels[key] = self._made(node, latex)
        return self._labels[key]

    def _made(self, node: TapeNode, latex: bool) -> str:
        name = self.name(node)
        if name:
            return latex_name(name) if latex else name
        if node.kind != "op" and node.value is not None and node.value.size == 1:
            return f"{float(host(node.value).reshape(())):.4g}"
        expr: Any = getattr(node.record, "value_expr", None)
        # One level only: a formula of formulas is longer than what it explains.
        plainly = expr is not None and all(self.name(x) or _number(x) for x in node.inputs)
        if plainly and len(formula.to_text(expr, self._operands(node, False))) <= LONGEST:
            return (formula.to_latex if latex else formula.to_text)(expr, self._operands(node, latex))
        place = f"{'g' if id(node) in self.strangers else ''}{node.id}"
        return rf"\mathrm{{{_escaped(node.op)}}}_{{{place}}}" if latex else f"{node.op}#{place}"

    def _operands(self, node: TapeNode, latex: bool) -> dict[str, str]:
        if node.record is None or getattr(node.record, "variadic", False):
            return {}
        return {word: self.label(x, latex) for word, x in zip(node.arguments, node.inputs, strict=True)}

    def local(self, node: TapeNode, k: int, latex: bool = False, of: str = "E") -> str:
        """Return the rule of operand k as a formula of the model's names; g is ``∂E/∂`` of the node's value."""
        record: Any = node.record
        rule = getattr(record, "rules", {}).get(record.operand_name(k))
        said = None if rule is None else rule.said
        if said is None:
            return (record.rule_latex(k) if latex else record.rule_text(k)) or f"{node.op}'"
        names = self._operands(node, latex) | {"y": self.label(node, latex), "g": self.partial(node, latex, of)}
        if record.variadic:
            names["k"] = str(k)
        return (formula.to_latex if latex else formula.to_text)(said, names)

    def partial(self, node: TapeNode, latex: bool = False, of: str = "E") -> str:
        """Return ``∂E/∂x``."""
        label = self.label(node, latex)
        if latex:
            whole = label if re.search(r"^[^ ]+$", _outside(label)) else rf"\left({label}\right)"
            return rf"\frac{{\partial {of}}}{{\partial {whole}}}"
        return f"∂{of}/∂{grouped(label)}"

    def term(self, node: TapeNode, k: int, latex: bool = False, of: str = "E") -> str:
        """Return what operand k receives of the gradient that arrives at a node, as a formula."""
        local = self.local(node, k, latex, of)
        if getattr(node.record, "kind", "") != "elementwise":
            return local
        arriving = self.partial(node, latex, of)
        if local == "1":
            return arriving
        loose = re.search(r" [-+] ", _outside(local)) or local.startswith("-")
        if latex:
            return rf"{arriving} \cdot " + (rf"\left({local}\right)" if loose else local)
        return f"{arriving} · " + (f"({local})" if loose else local)


def grouped(label: str) -> str:
    """Put a formula in parentheses where it would fall apart."""
    return label if re.fullmatch(r"[\w.#]+", _outside(label)) else f"({label})"


def _outside(text: str) -> str:
    """Return what of a formula is inside of no brackets."""
    before = ""
    while text != before:
        before, text = text, re.sub(r"\[[^][]*\]|\([^()]*\)|\{[^{}]*\}", "", text)
    return text


def _number(node: TapeNode) -> bool:
    return node.kind != "op" and node.value is not None and node.value.size == 1


def _escaped(text: str) -> str:
    return re.sub(r"([_#$%&{}])", r"\\\1", text)


def latex_name(name: str) -> str:
    r"""Return a name for math mode.

    >>> print(latex_name("c[3]"), latex_name("weight_hh_l0[f]"))
    c_{3} \mathrm{weight\_hh\_l0}_{f}
    """
    found = _INDEXED.match(name)
    stem, index = (found[1], found[2]) if found else (name, None)
    symbol = stem if len(stem) == 1 else rf"\mathrm{{{_escaped(stem)}}}"
    return symbol if index is None else f"{symbol}_{{{_escaped(index)}}}"


# --- numbers ------------------------------------------------------------------------------------------------


def value_of(array: Any, at: tuple[int, ...] | None) -> float:
    """Return the one number that stands for an array: its element, the only one it has, or its Euclidean norm."""
    if at is not None:
        return float(array[at])
    return float(array.reshape(())) if array.size == 1 else float(np.linalg.norm(array))


def share_of(part: Any, whole: Any, at: tuple[int, ...] | None) -> float | None:
    """Return how much of an array a part is: their quotient, or the part's projection on it. Shares add up to 1."""
    if at is not None:
        part, whole = part[at], whole[at]
    scale = float(np.max(np.abs(whole)))
    if scale == 0 or not math.isfinite(scale):
        return None
    whole = whole / scale
    return float(np.vdot(whole, part / scale) / np.vdot(whole, whole))


def number(value: float | None) -> str:
    """Write a number with four digits."""
    return "" if value is None else f"{value:.4g}"


def percent(share: float | None) -> str:
    """Write a share, without a sign where nothing is left of it.

    >>> percent(0.125), percent(-0.5), percent(-1e-9)
    ('12.5 %', '-50.0 %', '0.0 %')
    """
    return "" if share is None else f"{round(100 * share, 1) + 0.0:.1f} %"


def counted(count: int, word: str) -> str:
    """Write a count with its word, thousands apart.

    >>> counted(1, "route"), counted(33629651653051, "route"), counted(2, "loss")
    ('1 route', '33 629 651 653 051 routes', '2 losses')
    """
    plural = "es" if word.endswith("s") else "s"
    return f"{count:,}".replace(",", " ") + f" {word}{'' if count == 1 else plural}"


def plain(array: Any) -> Any:
    """Return an array as nested lists for JSON; infinities and NaN are strings."""
    if isinstance(array, list):
        return [plain(x) for x in array]
    if isinstance(array, np.ndarray):
        return plain(array.tolist())
    return array if math.isfinite(array) else str(array)


# --- tables -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows under heads; numbers (columns in `right`) stand to the right, the last column is broken into lines."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()

    def text(self, width: int = WIDTH) -> str:
        """Return the table in lines of at most `width` characters."""
        widths = [max(len(row[k]) for row in (self.heads, *self.rows)) for k in range(len(self.heads))]
        last = max(20, width - sum(widths[:-1]) - 2 * (len(widths) - 1))
        lines = []
        for row in (self.heads, *self.rows):
            parts = textwrap.wrap(row[-1], last) or [""]
            cells = [
                cell.rjust(w) if k in self.right else cell.ljust(w)
                for k, (cell, w) in enumerate(zip(row[:-1], widths[:-1], strict=True))
            ]
            margin = " " * (sum(widths[:-1]) + 2 * len(cells))
            if len(self.heads) - 1 in self.right:
                parts = [parts[0].rjust(widths[-1])]
            lines += ["  ".join([*cells, parts[0]]).rstrip(), *[margin + part for part in parts[1:]]]
        return "\n".join(lines)

    def html(self) -> str:
        """Return the table as HTML."""

        def row(cells: Sequence[str], tag: str) -> str:
            styles = ["right" if k in self.right else "left" for k in range(len(cells))]
            return "".join(
                f'<{tag} style="text-align:{style}">{html.escape(cell)}</{tag}>'
                for cell, style in zip(cells, styles, strict=True)
            )

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        return f"<table><thead><tr>{row(self.heads, 'th')}</tr></thead><tbody>{body}</tbody></table>"


class Shown:
    """An explanation whose notebook form is its text in a fixed-width block."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class Report:
    """What every explanation can do with its lines and tables: print as text, and show itself in a notebook."""

    def parts(self) -> list[str | Table]:
        """Return lines and tables in the order they are read."""
        raise NotImplementedError

    def __str__(self) -> str:
        wrapped = [
            part.text() if isinstance(part, Table) else textwrap.fill(part, WIDTH, subsequent_indent="  ")
            for part in self.parts()
        ]
        return "\n".join(wrapped)

    def _repr_html_(self) -> str:
        return "".join(
            part.html() if isinstance(part, Table) else f"<p>{html.escape(part)}</p>" for part in self.parts()
        )
