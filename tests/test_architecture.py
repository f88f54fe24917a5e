"""The floors of docs/dev/architecture.md, checked against every import and cimport of the package."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minigrad"

FLOORS = [  # the lowest first: a room imports from earlier lines and never from later ones
    ("errors", "files", "formula"),
    ("_core", "op"),
    ("_cpu", "kernels", "_cuda", "_cuda_recurrent", "backend"),
    ("ops",),
    ("tensor", "function", "grad"),
    ("nn", "optim", "losses", "decode", "io"),
    ("graph",),
    ("render", "explain"),
    ("testing", "models", "cli", "__main__", "pytest_plugin"),
]
SIDEWAYS = {  # what a room may import from its own floor
    "files": {"errors"},
    "formula": {"errors"},
    "op": {"_core"},
    "backend": {"_cpu", "_cuda"},
    "_cuda": {"_cuda_recurrent", "backend"},
    "tensor": {"function", "grad"},
    "function": {"tensor", "grad"},
    "grad": {"tensor", "function"},
    "io": {"nn"},
    "optim": {"nn"},
    "cli": {"models", "testing"},
    "__main__": {"cli"},
    "pytest_plugin": {"testing"},
}
BARRED = {"graph": {"ops", "nn", "optim", "losses", "decode", "io"}}  # lower floors, and yet not for it
READS_ONLY = {"render": {"errors", "files", "graph.view", "graph.walk"}}
NO_ARRAYS = {"_core", "render"}
LAZY = {"", "cli", "pytest_plugin"}  # "" is minigrad/__init__.py
CUPY_SPEAKERS = {"_cuda.py", "backend.py"}
LATE = {"cupy", "graphviz", "matplotlib", "onnx", "rich", "safetensors", "torch"}


@dataclass(frozen=True)
class Import:
    """One imported module; the target in our own package is named from inside it, and "" is its door."""

    source: Path
    line: int
    target: str
    own: bool
    inside_function: bool


def sources(package: Path) -> list[Path]:
    return sorted(p for suffix in ("py", "pyx", "pxd") for p in package.rglob(f"*.{suffix}"))


def room(path: Path, package: Path) -> str:
    """Name the room of a file: the top-level module or sub-package; the package's own door is ""."""
    first = path.relative_to(package).parts[0].split(".")[0]
    return "" if first == "__init__" else first


def is_module(package: Path, dotted: str) -> bool:
    path = package.joinpath(*dotted.split("."))
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd"))


def resolve(package: Path, source: Path, module: str, level: int, names: list[str]) -> Iterator[tuple[str, bool]]:
    """Turn one statement into dotted targets: an imported name means the module of that name, if any."""
    if level:
        here = source.parent.relative_to(package).parts
        base = ".".join([*here[: len(here) - level + 1], *([module] if module else [])])
    elif module.split(".")[0] == package.name:
        base = module[len(package.name) + 1 :]
    else:
        yield module, False
        return
    for name in names or [""]:
        full = f"{base}.{name}".strip(".")
        yield (full if name and is_module(package, full) else base), True


def python_imports(source: Path) -> Iterator[tuple[int, str, int, list[str], bool]]:
    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[int, str, int, list[str], bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, 0, [], inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                names = [alias.name for alias in child.names]
                yield child.lineno, child.module or "", child.level, names, inside
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, inside or function)

    yield from visit(ast.parse(source.read_text()), False)


STRING = re.compile(r'"""(?:\\.|[^\\])*?"""|' + r"'''(?:\\.|[^\\])*?'''", re.DOTALL)
FROM = re.compile(r"^([ \t]*)from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#;]+)", re.MULTILINE)
PLAIN = re.compile(r"^([ \t]*)c?import[ \t]+([^\n#;(]+)", re.MULTILINE)


def cython_imports(source: Path) -> Iterator[tuple[int, str, int, list[str], bool]]:
    """Read the statements by pattern: Cython's grammar is not Python's. Indented means inside a function."""
    text = STRING.sub(lambda match: "\n" * match[0].count("\n"), source.read_text())
    for match in FROM.finditer(text):
        listed = re.sub(r"#.*", "", match[4]).strip("()\n ").split(",")
        names = [name.split()[0] for name in listed if name.strip()]
        line = text.count("\n", 0, match.start()) + 1
        yield line, match[3], len(match[2]), names, bool(match[1])
    for match in PLAIN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield from ((line, name.split()[0], 0, [], bool(match[1])) for name in match[2].split(","))


def imports(package: Path) -> Iterator[Import]:
    for source in sources(package):
        read = python_imports if source.suffix == ".py" else cython_imports
        for line, module, level, names, inside in read(source):
            for target, own in resolve(package, source, module, level, names):
                yield Import(source, line, target, own, inside)


def faults(package: Path) -> list[str]:
    """Every rule that the package breaks, one line each: file, line, and what is wrong."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    found = [
        f"{path.relative_to(package)}: room '{name}' has no floor: give it one here and in architecture.md"
        for path in sources(package)
        if (name := room(path, package)) and name not in floor
    ]
    for item in imports(package):
        where = f"{item.source.relative_to(package)}:{item.line}"
        home = room(item.source, package)
        if not item.own:
            if item.target.split(".")[0] in {"numpy", "cupy", "array_api_strict"} and home in NO_ARRAYS:
                found.append(f"{where}: {home} knows no array library, and imports {item.target}")
            continue
        if item.inside_function and home not in LAZY:
            found.append(f"{where}: imports minigrad.{item.target} inside a function")
        other = item.target.split(".")[0]
        if home == "" or home not in floor or home == other:
            continue
        if other == "":
            if floor[home] < len(FLOORS) - 1:
                found.append(f"{where}: {home} points up at the package itself")
        elif other not in floor:
            found.append(f"{where}: {home} imports minigrad.{item.target}, which is not there")
        elif floor[other] > floor[home]:
            found.append(f"{where}: {home} points up at {item.target}")
        elif floor[other] == floor[home] and other not in SIDEWAYS.get(home, set()):
            found.append(f"{where}: {home} points sideways at {item.target}")
        elif other in BARRED.get(home, set()):
            found.append(f"{where}: {home} does without {other}, and imports {item.target}")
        elif home in READS_ONLY and item.target not in READS_ONLY[home]:
            found.append(f"{where}: {home} may not read {item.target}")
    return found


def cycles(package: Path) -> list[str]:
    """Modules inside one room that need each other: its pages have an order, each reads only earlier ones."""
    edges: dict[str, set[str]] = {}
    for item in imports(package):
        parts = item.source.relative_to(package).with_suffix("").parts
        if item.own and len(parts) > 1 and parts[-1] != "__init__" and item.target.split(".")[0] == parts[0]:
            edges.setdefault(".".join(parts), set()).add(item.target)
            if item.target == parts[0]:  # the room's door, which imports every page
                return [f"{'.'.join(parts)} imports the room {parts[0]} it is a page of"]
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    return sorted(edges)


def cupy_speakers(package: Path) -> set[str]:
    texts = (p for p in sources(package) if re.search(r"\bcupy\b", p.read_text()))
    return {str(p.relative_to(package)) for p in texts}


def loaded_by_import(folder: Path) -> set[str]:
    """Import the package that lies in `folder` in a fresh interpreter and list what came along."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import minigrad; print(*sys.modules)"
    command = [sys.executable, "-c", program, str(folder)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_arrows_point_down() -> None:
    assert faults(PACKAGE) == []


def test_pages_of_a_room_have_an_order() -> None:
    assert cycles(PACKAGE) == []


def test_only_the_gpu_backend_says_cupy() -> None:
    assert cupy_speakers(PACKAGE) <= CUPY_SPEAKERS


def test_import_is_light() -> None:
    loaded = loaded_by_import(ROOT)
    assert "minigrad._core" in loaded
    assert loaded & LATE == set()


def test_the_document_draws_the_same_floors() -> None:
    text = (ROOT / "docs/dev/architecture.md").read_text()
    drawing = re.search(r"## Floors.*?```\n(.*?)```", text, re.DOTALL)
    assert drawing is not None
    lines = (re.split(r"\s{2,}", line)[0] for line in drawing[1].splitlines())
    assert [tuple(name.strip("/") for name in line.split(", ")) for line in lines] == FLOORS


# The checks themselves: each rule, broken once in a package of a few lines.


def make(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "minigrad"
    for name in ("errors.py", "op.py", "_core.pyx", "ops/__init__.py", "graph/view.py", "nn.py", "tensor.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / "__init__.py").touch()
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("errors.py", "from minigrad.tensor import Tensor", "errors.py:1: errors points up at tensor"),
        ("errors.py", "from minigrad import tensor", "errors points up at tensor"),
        ("errors.py", "from . import tensor", "errors points up at tensor"),
        ("errors.py", "import minigrad.tensor as t", "errors points up at tensor"),
        ("tensor.py", "from minigrad import scope", "tensor points up at the package itself"),
        ("tensor.py", "class A:\n    import minigrad.nn", "tensor.py:2: tensor points up at nn"),
        ("tensor.py", "if True:\n    from .nn import A", "tensor.py:2: tensor points up at nn"),
        ("ops/page.py", "from ..tensor import Tensor", "ops/page.py:1: ops points up at tensor"),
        ("nn.py", "def f():\n    from minigrad import op", "nn.py:2: imports minigrad.op inside a function"),
        ("_core.pyx", "cdef int a\nfrom minigrad.op cimport Op", "_core.pyx:2: _core points sideways at op"),
        ("_core.pyx", "from .tensor cimport (\n    Tensor,\n)", "_core points up at tensor"),
        ("_core.pyx", "cimport minigrad.tensor", "_core points up at tensor"),
        ("_core.pyx", "def f():\n    import minigrad.errors", "inside a function"),
        ("_core.pxd", "cimport numpy as cnp", "_core knows no array library"),
        ("render/dot.py", "import numpy as np", "render knows no array library"),
        ("render/dot.py", "from minigrad.graph import paths", "render may not read graph.paths"),
        ("render/dot.py", "from minigrad.tensor import Tensor", "render may not read tensor"),
        ("graph/view.py", "from minigrad.ops import tanh", "graph does without ops"),
        ("attic.py", "", "room 'attic' has no floor"),
        ("nn.py", "import minigrad.atic", "imports minigrad.atic, which is not there"),
    ],
)
def test_a_broken_rule_is_reported(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    package = make(tmp_path, {"graph/paths.py": "", name: text})
    assert [complaint in fault for fault in faults(package)] == [True]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tensor.py", "from minigrad import errors, op\nfrom minigrad.ops import tanh"),
        ("op.py", "from minigrad._core import Node"),
        ("_core.pyx", '"""Say\nimport minigrad.nn\n"""\nfrom minigrad.errors import E  # import minigrad.nn'),
        ("render/dot.py", "from minigrad.graph import view\nfrom minigrad.graph.view import Picture"),
        ("cli.py", "def f():\n    import minigrad\n    from minigrad import nn"),
        ("__init__.py", "def __getattr__(name):\n    from minigrad import nn"),
    ],
)
def test_a_kept_rule_is_not_reported(tmp_path: Path, name: str, text: str) -> None:
    assert faults(make(tmp_path, {name: text})) == []


def test_a_cycle_is_reported(tmp_path: Path) -> None:
    pages = {"ops/a.py": "from minigrad.ops.b import y", "ops/b.py": "from . import c", "ops/c.py": "x = 1"}
    assert cycles(make(tmp_path, pages)) == []
    assert cycles(make(tmp_path, {"ops/c.py": "from minigrad.ops import a"})) == ["ops.a", "ops.b", "ops.c"]
    assert cycles(make(tmp_path, {"ops/c.py": "from minigrad.ops import x"})) != []


def test_a_stray_word_is_reported(tmp_path: Path) -> None:
    files = {"_cuda.py": "import cupy", "nn.py": "# CuPy is fine", "_core.pyx": "from cupy import x"}
    package = make(tmp_path, files)
    assert cupy_speakers(package) == {"_cuda.py", "_core.pyx"}


def test_a_heavy_import_is_reported(tmp_path: Path) -> None:
    (tmp_path / "rich.py").touch()
    make(tmp_path, {"__init__.py": "import rich"})
    assert loaded_by_import(tmp_path) & LATE == {"rich"}
