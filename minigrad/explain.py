"""Gradients explained: by route, by step, by flow through time, by the chain rule at one value; sums are checked."""

from .graph.bptt import TimeLedger, bptt
from .graph.equations import Equations, Term, equations
from .graph.finite import NonFiniteError, Provenance, provenance, watch_finite
from .graph.flow import FlowReport, compare, flow
from .graph.paths import Edge, Group, PathLedger, Route, paths

__all__ = [
    "Edge",
    "Equations",
    "FlowReport",
    "Group",
    "NonFiniteError",
    "PathLedger",
    "Provenance",
    "Route",
    "Term",
    "TimeLedger",
    "bptt",
    "compare",
    "equations",
    "flow",
    "paths",
    "provenance",
    "watch_finite",
]
