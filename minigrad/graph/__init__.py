"""Reads a tape and says what is in it, as plain data that every picture and every explanation starts from."""

from minigrad.graph.view import SHOW, Summary, View, ViewEdge, ViewNode, elide, fold, view_of

__all__ = ["SHOW", "Summary", "View", "ViewEdge", "ViewNode", "elide", "fold", "view_of"]
