"""The stubs say what the compiled modules hold: nothing is missing, nothing is invented, signatures agree."""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import minigrad

Statement = ast.FunctionDef | ast.ClassDef | ast.AnnAssign


def compiled(name: str) -> ModuleType:
    return importlib.import_module(f"minigrad.{name}")


def declared(body: list[ast.stmt]) -> dict[str, list[Statement]]:
    """Names of a stub, or of a class in it, with their statements; an overloaded function has several."""
    found: dict[str, list[Statement]] = {}
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found.setdefault(name, []).append(statement)
    return found


def stub(module: str) -> dict[str, list[Statement]]:
    path = Path(minigrad.__file__).parent / f"{module}.pyi"
    return declared(ast.parse(path.read_text(encoding="utf-8")).body)


def own(module: ModuleType) -> dict[str, Any]:
    """Public names that a module defines; what it imports is left out."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
        if not isinstance(value, type) or value.__module__ == module.__name__
    }


def members(cls: type) -> dict[str, Any]:
    attributes = vars(minigrad.Tape()) if cls is minigrad.Tape else {}  # the one class that sets plain attributes
    return {**attributes, **vars(cls)}


MODULES = ["_core", "_cpu"]
CLASSES = [
    pytest.param(statement, compiled(module), id=f"{module}.{statement.name}")
    for module in MODULES
    for statements in stub(module).values()
    for statement in statements
    if isinstance(statement, ast.ClassDef)
]


def check_signature(statements: list[Statement], function: Any) -> None:
    runtime = inspect.signature(function).parameters
    for statement in statements:
        assert isinstance(statement, ast.FunctionDef)
        given = statement.args
        positional = [*given.posonlyargs, *given.args]
        names = [a.arg for a in [*positional, given.vararg, *given.kwonlyargs, given.kwarg] if a is not None]
        assert names == list(runtime), statement.name
        optional = dict(zip([a.arg for a in positional][::-1], given.defaults[::-1], strict=False))
        for name, default in optional.items():
            assert ast.literal_eval(default) == runtime[name].default, (statement.name, name)
        if len(statements) == 1:
            assert set(optional) == {n for n, p in runtime.items() if p.default is not p.empty}, statement.name


@pytest.mark.parametrize("module", MODULES)
def test_a_stub_has_the_names_of_its_module(module):
    assert {name for name in stub(module) if not name.startswith("_")} == set(own(compiled(module)))


@pytest.mark.parametrize("module", MODULES)
def test_functions_have_the_signatures_of_the_stub(module):
    held = own(compiled(module))
    functions = {n: s for n, s in stub(module).items() if isinstance(s[0], ast.FunctionDef)}
    assert functions
    for name, statements in functions.items():
        check_signature(statements, held[name])


@pytest.mark.parametrize(("statement", "module"), CLASSES)
def test_a_class_has_the_members_of_the_stub(statement, module):
    held = members(getattr(module, statement.name))
    said = declared(statement.body)
    assert set(said) <= set(held)
    assert {name for name in held if not name.startswith("_")} <= set(said)
    for name, statements in said.items():
        if type(held[name]).__name__ == "cython_function_or_method":  # slots such as __add__ carry no names
            check_signature(statements, held[name])
