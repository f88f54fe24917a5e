"""Reads a tape and says what is in it, as plain data that every picture and every explanation starts from."""

from minigrad.graph.equations import Equations, Term, equations
from minigrad.graph.paths import Edge, Group, PathLedger, Route, paths
from minigrad.graph.view import SHOW, Summary, View, ViewEdge, ViewNode, elide, fold, view_of

__all__ = [
    "SHOW",
    "Edge",
    "Equations",
    "Group",
    "PathLedger",
    "Route",
    "Summary",
    "Term",
    "View",
    "ViewEdge",
    "ViewNode",
    "elide",
    "equations",
    "fold",
    "paths",
    "view_of",
]
