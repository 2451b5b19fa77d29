"""Each promise of docs/security.md names tests, and they exist."""

import ast
import re

from pipeline.config.paths import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs/security.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_named_tests_exist() -> None:
    assert len(NAMED) > 20
    for file, name in NAMED:
        tree = ast.parse((PROJECT_ROOT / file).read_text(encoding="utf-8"))
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        assert name in {node.name for node in tree.body if isinstance(node, functions)}, name


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.split("## What is not")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 12
    assert all("::test_" in row for row in rows[2:])
