#!/usr/bin/env python3
"""The size and shape of the package: files, lines, functions, import circles. `tests/test_architecture.py` uses it.

tools/house            the figures
tools/house MODULE     what a module imports and who imports it, as config.loader
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "tdmpc_lab"


def module_name(path: Path) -> str:
    """`src/tdmpc_lab/config/loader.py` → `tdmpc_lab.config.loader`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of all that `source` imports: at its top, in functions, for types only, by name.

    `from a import b` gives `a.b` where that is a module of the package.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = module.split(".")
                kept = len(above) - node.level + is_package
                origin = ".".join([*above[:kept], *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, submodule(origin, alias.name)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def submodule(origin: str, name: str) -> str:
    """`origin.name` where that is a module or package of ours, else `origin`."""
    if origin.partition(".")[0] != "tdmpc_lab":
        return origin
    path = PACKAGE.joinpath(*origin.split(".")[1:], name)
    return f"{origin}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else origin


def arrows() -> dict[str, set[str]]:
    """Each module with the modules of the package that it imports, in functions and for types too."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = module_name(path)
        inside = imports(path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py")
        found[name] = {module for _, module in inside if module.startswith("tdmpc_lab.")} - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or by way of others (Tarjan, 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name] & graph.keys()):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a file with their numbers of lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def _report() -> None:
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    sizes = [size for path in paths for _, size in functions(path)]
    total = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py"))
    print(f"files      {len(paths)} (without __init__.py), {total:,} lines (with them)")
    print(f"functions  {len(sizes):,}, median {statistics.median(sizes):.0f} lines, longest {max(sizes)}")
    print(f"circles    {circles(arrows()) or 'none'}")
    print("largest    " + ", ".join(f"{path.relative_to(PACKAGE)} {lines[path]}" for path in _largest(lines)))
    for folder in sorted({path.parent for path in paths}):
        inside = [path for path in paths if path.parent == folder]
        name = str(folder.relative_to(PACKAGE.parent))
        print(f"  {name:28} {len(inside):4} files {sum(lines[path] for path in inside):7,} lines")


def _largest(lines: dict[Path, int]) -> list[Path]:
    return sorted(lines, key=lambda path: -lines[path])[:5]


def _about(name: str) -> None:
    name, graph = f"tdmpc_lab.{name}", arrows()
    if name not in graph:
        sys.exit(f"no module {name}")
    print("imports      " + ", ".join(sorted(graph[name])))
    print("imported by  " + ", ".join(sorted(other for other in graph if name in graph[other])))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _about(sys.argv[1].removeprefix("tdmpc_lab."))
    else:
        _report()
