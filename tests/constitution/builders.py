"""Constitutions for the tests of the tools."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.constitution import Constitution, Principle

HONESTY = {
    "id": "honesty",
    "critique_request": "Name false statements in your last response.",
    "revision_request": "Rewrite the response without false statements.",
    "comparison_request": "Which response is more honest?",
    "tags": ["truth"],
}
KINDNESS = {
    "id": "kindness",
    "critique_request": "Quote what sounds cold or mocking.",
    "revision_request": "Rewrite the response in a warm tone.",
    "comparison_request": "Which response is kinder?",
    "tags": ["tone"],
}
BREVITY = {
    "id": "brevity",
    "critique_request": "List sentences that add no fact.",
    "revision_request": "Rewrite the response without these sentences.",
    "comparison_request": "Which response wastes fewer words?",
    "tags": ["tone"],
}


def write_constitution(path: Path, *principles: dict[str, Any]) -> Path:
    """A constitution file, valid or not: `name: test` in line 1, `principles:` in line 2."""
    body = yaml.safe_dump({"name": "test", "principles": list(principles)}, sort_keys=False)
    path.write_text(body, encoding="utf-8")
    return path


def make_constitution(*principles: dict[str, Any]) -> Constitution:
    """A loaded constitution."""
    return Constitution(name="test", principles=tuple(Principle(**p) for p in principles))
