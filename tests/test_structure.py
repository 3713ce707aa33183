"""The shape of the code: no circle of imports, small functions and classes, everything typed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGES = ("citycover", "citycover_models", "citycover_cli")

MOST_LINES = 45
"""Of what a function does."""

TYPICAL_LINES = 18
"""Of nine functions in ten."""

MOST_CLASS_LINES = 180


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the project by name."""
    found = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the project that a module names anywhere: at its top, in a function, for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(modules())
            yield from inner or ({node.module} & set(modules()))


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}:{node.name}", node


def lines_of(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Lines without those of the docstring."""
    assert node.end_lineno is not None
    first = node.body[0]
    text = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
        text = first.end_lineno - first.lineno + 1
    return node.end_lineno - node.lineno + 1 - text


def logic_of(node: ast.FunctionDef) -> int:
    """Lines without docstring and signature: arguments are no logic."""
    assert node.end_lineno is not None
    body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return node.end_lineno - body[0].lineno + 1 if body else 0


def test_no_module_reaches_itself() -> None:
    graph = {name: set(imported(tree)) - {name} for name, tree in modules().items()}
    # The doors name what lies behind them, and nothing behind them names the door.
    assert not any(package in needs for needs in graph.values() for package in PACKAGES)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_functions_are_short() -> None:
    lengths = sorted(logic_of(node) for _, node in functions())
    assert lengths[len(lengths) * 9 // 10] <= TYPICAL_LINES
    assert not [name for name, node in functions() if logic_of(node) > MOST_LINES]


def test_classes_are_small() -> None:
    classes = [n for tree in modules().values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert not [n.name for n in classes if lines_of(n) > MOST_CLASS_LINES]


def test_functions_are_typed() -> None:
    untyped = [
        name
        for name, node in functions()
        for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if a.annotation is None and a.arg not in {"self", "cls"}
    ]
    untyped += [name for name, node in functions() if node.returns is None and node.name != "__init__"]
    assert not untyped


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module has once it is imported."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from defined(node.body)
            yield from defined(getattr(node, "orelse", []))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name))


def test_scripts_that_no_test_runs_import_what_there_is() -> None:
    """Benchmarks, checks of a GPU, of kills and of pictures run by hand, and would break unseen."""
    root = Path(__file__).parents[1]
    lost, seen = [], 0
    for path in [p for folder in ("tests", "docs", "configs") for p in (root / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.partition(".")[0] not in PACKAGES:
                continue
            known = modules().get(node.module)
            for alias in node.names:
                seen += 1
                inside = known is not None and alias.name in defined(known.body)
                if not (inside or f"{node.module}.{alias.name}" in modules()):
                    lost.append(f"{path.relative_to(root)}: {node.module}.{alias.name}")
    assert not lost and seen > 1000
