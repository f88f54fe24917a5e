"""Gradients explained: route by route, and by the chain rule at one value; every sum is checked before it is shown."""

from .graph.equations import Equations, Term, equations
from .graph.paths import Edge, Group, PathLedger, Route, paths

__all__ = ["Edge", "Equations", "Group", "PathLedger", "Route", "Term", "equations", "paths"]
