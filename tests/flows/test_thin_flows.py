"""Flows chain and show, nothing else; the rules of the project, checked from the source."""

import ast
from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT

FLOWS = sorted((PROJECT_ROOT / "flows").glob("*.py"))


def flow_functions(path: Path) -> list[ast.AsyncFunctionDef]:
    """Functions with `@flow`."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef) and "flow" in map(decorator, node.decorator_list)
    ]


def decorator(node: ast.expr) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    return called.id if isinstance(called, ast.Name) else ""


def test_flows_have_forty_lines_at_most() -> None:
    for path in FLOWS:
        for function in flow_functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            assert lines <= 40, f"{path.name}:{function.name} has {lines} lines"


def test_flows_never_branch() -> None:
    for path in FLOWS:
        for function in flow_functions(path):
            branches = [
                n for n in ast.walk(function) if isinstance(n, (ast.If, ast.IfExp, ast.While))
            ]
            assert not branches, f"{path.name}:{function.name} decides something"


def test_tasks_live_in_one_file() -> None:
    for path in FLOWS:
        source = path.read_text()
        if path.name != "tasks.py":
            assert "import task" not in source and "@task" not in source, path.name


def test_package_knows_no_flows() -> None:
    for path in sorted((PROJECT_ROOT / "pipeline").rglob("*.py")):
        if path == PROJECT_ROOT / "pipeline" / "cli" / "run.py":
            continue
        assert "from flows" not in path.read_text(), path.name
