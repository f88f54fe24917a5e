"""The stubs name what the compiled modules hold: nothing is missing, nothing is invented, signatures agree."""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minigrad

MODULES = ("_core", "_cpu")
DUNDERS = {"__enter__", "__exit__", "__call__", "__len__", "__hash__", "__getitem__"}
# The interpreter makes the reflected methods and the comparisons itself, for every type with one of each group.
OPERATORS = {"__neg__", "__pos__", "__abs__"} | {
    f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "matmul", "pow") for side in ("", "r")
}
COMPARISONS = {f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub(module: str) -> list[ast.stmt]:
    path = Path(minigrad.__file__).parent / f"{module}.pyi"
    return ast.parse(path.read_text(encoding="utf-8")).body


def declared(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """Names of a stub, or of a class in it, with their statements; an overloaded function has several."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found.setdefault(name, []).append(statement)
    return found


def held(module: ModuleType) -> set[str]:
    """Names that a compiled module defines: what it imports belongs to others."""
    return {
        name
        for name, value in vars(module).items()
        if not inspect.ismodule(value) and getattr(value, "__module__", module.__name__) == module.__name__
    }


def functions(body: list[ast.stmt]) -> dict[str, list[ast.FunctionDef]]:
    return {
        name: [s for s in statements if isinstance(s, ast.FunctionDef)]
        for name, statements in declared(body).items()
        if not any(isinstance(d, ast.Name) and d.id == "property" for s in statements for d in s.decorator_list)
        if all(isinstance(s, ast.FunctionDef) for s in statements)
    }


def classes() -> list[Any]:
    return [
        pytest.param(module, statement, id=f"{module}.{statement.name}")
        for module in MODULES
        for statement in stub(module)
        if isinstance(statement, ast.ClassDef)
    ]


def agrees(statement: ast.FunctionDef, function: Any) -> bool:
    """Whether names and order of parameters agree, and which of them may be left out."""
    given = statement.args
    names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    wanted = [p for p in inspect.signature(function).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    n_optional = len(given.defaults) + sum(default is not None for default in given.kw_defaults)
    return names == [p.name for p in wanted] and n_optional <= sum(p.default is not p.empty for p in wanted)
