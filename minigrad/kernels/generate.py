"""Write the C loops of the element-wise page and of the updates: run by setup.py before the compiler, on the page."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
OUTPUT = Path(__file__).resolve().parent / "generated"
HOST = "_minigrad_page"  # a name of its own, so that an installed minigrad in the same process is left alone


def load_page() -> Any:
    """Return the page: its modules are imported without the core, which is not compiled yet."""

    def package(name: str, path: Path) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
        return module

    class OpBase:
        def _face(self, name: str, *rest: Any) -> None:
            self.name = name

    package(HOST, PACKAGE)
    package(f"{HOST}.ops", PACKAGE / "ops")
    core = types.ModuleType(f"{HOST}._core")
    core.OpBase = OpBase  # type: ignore[attr-defined]
    core.__getattr__ = lambda name: None  # type: ignore[method-assign]
    sys.modules[core.__name__] = core
    kernels = types.ModuleType(f"{HOST}._cpu")
    kernels.__getattr__ = lambda name: dict  # type: ignore[method-assign]  # there are none yet
    sys.modules[kernels.__name__] = kernels
    for path in sorted((PACKAGE / "ops").glob("*.py")):
        if path.stem != "__init__":
            importlib.import_module(f"{HOST}.ops.{path.stem}")
    return sys.modules[f"{HOST}.op"].PAGE


def loops(op: Any, formula: Any) -> tuple[list[str], str]:
    """Return the C functions and the table row of one record."""
    arguments = [*op.operands, *op.params]
    functions = [function(op.name, arguments, formula.to_c(op.value_expr))]
    rows = []
    for operand in op.operands:
        rule = op.rules.get(operand)
        if rule is None:
            rows.append("{{NULL, NULL}, 0, 0}")
            continue
        names = [name for name in [*arguments, "y"] if name in rule.names]
        bits = [f"1u << {arguments.index(name)}" if name in arguments else "MG_RESULT" for name in names]
        identity = rule.source == "1"
        body = "g" if identity else f"g * ({formula.to_c(rule.expr)})"
        functions.append(function(f"{op.name}_d_{operand}", ["g", *names], body))
        rows.append(f"{{MG_BOTH({op.name}_d_{operand}), {' | '.join(bits) or '0'}, {int(identity)}}}")
    table = f'{{"{op.name}", {len(op.operands)}, {len(op.params)}, MG_BOTH({op.name}), {{{", ".join(rows)}}}}},'
    return functions, table


def function(name: str, names: list[str], body: str) -> str:
    """Return the C expression and its loop."""
    parameters = ", ".join(f"V {n}" for n in names)
    values = ", ".join(f"v[{k}]" for k in range(len(names)))
    return (
        f"MG_INLINE V MG_NAME(e_{name})({parameters}) {{ return {body}; }}\nMG_LOOP({len(names)}, {name}, {values})\n"
    )


def pass_over(update: Any, formula: Any) -> str:
    """Return the C functions of an update: its formulas on one vector of each array, and the loop."""
    written = [name for name in update.formulas if name in update.arrays]
    arguments = [*[f"V *at_{name}" for name in update.arrays], *[f"V {name}" for name in update.params]]
    lines = [f"    V {name} = *at_{name};" for name in update.arrays]
    for result, expr in update.formulas.items():
        lines.append(f"    {'' if result in update.arrays else 'V '}{result} = {formula.to_c(expr)};")
    lines += [f"    *at_{name} = {name};" for name in written]
    calls = [f"&v[{k}]" for k in range(len(update.arrays))] + [f"number[{k}]" for k in range(len(update.params))]
    mask = " | ".join(f"1u << {update.arrays.index(name)}" for name in written)
    return (
        f"MG_INLINE void MG_NAME(u_{update.name})({', '.join(arguments)})\n{{\n"
        + "\n".join(lines)
        + f"\n}}\nMG_UPDATE({update.name}, {len(update.arrays)}, {len(update.params)}, {mask}, {', '.join(calls)})\n"
    )


def main() -> list[str]:
    """Write generated/*.h where they have changed; return their paths."""
    page = load_page()
    formula = importlib.import_module(f"{HOST}.formula")
    parts = [loops(op, formula) for op in page if op.kind == "elementwise"]
    files = {
        "elementwise.h": "/* Generated from the element-wise page: one loop per value and per partial derivative. */\n"
        + "".join(text for functions, _ in parts for text in functions),
        "elementwise_table.h": "/* Generated from the element-wise page. */\n"
        + "\n".join(row for _, row in parts)
        + "\n",
        "updates.h": "/* Generated from the page of updates: one pass over a parameter and its buffers. */\n"
        + "".join(pass_over(update, formula) for update in page.updates.values()),
        "updates_table.h": "/* Generated from the page of updates. */\n"
        + "".join(
            f'{{"{u.name}", {len(u.arrays)}, {len(u.params)}, MG_BOTH(update_{u.name})}},\n'
            for u in page.updates.values()
        ),
    }
    OUTPUT.mkdir(exist_ok=True)
    written = []
    for name, text in files.items():
        path = OUTPUT / name
        if not path.exists() or path.read_text() != text:  # untouched files do not trigger a rebuild
            path.write_text(text)
        written.append(str(path))
    return written


if __name__ == "__main__":
    print("\n".join(main()))
