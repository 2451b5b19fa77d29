"""Runs of `rlaif judge-eval`, and what they leave."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.store import read_rows
from pipeline.store.shards import stage_manifests
from tests.cli.commands import Ended, Rlaif
from tests.judge_eval.builders import write_judge_recipe, write_pairs


def measured(rlaif: Rlaif, tmp_path: Path, judge: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The only judge's figures on 40 pairs."""
    recipe = write_judge_recipe(tmp_path / "r", judge, **changes)
    ended = rlaif(
        "judge-eval", write_pairs(tmp_path / "pairs.jsonl"), "--recipe", recipe, "--name", "e"
    )
    assert ended.code == 0, ended.err
    (judge,) = metrics_of(tmp_path)["judges"]
    assert isinstance(judge, dict)
    return judge


def metrics_of(tmp_path: Path, name: str = "e") -> dict[str, Any]:
    """metrics.json of an evaluation."""
    path = tmp_path / "outputs/judge-eval" / name / "metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text())
    return metrics


def rows_of(tmp_path: Path, folder: str = "preference/judge", name: str = "e") -> list[Any]:
    """All rows of a stage."""
    root = tmp_path / "outputs/judge-eval" / name
    return [row for m in stage_manifests(root, folder) for row in read_rows(root, m)]


def assert_one_line(ended: Ended, pattern: str, tmp_path: Path) -> None:
    """Exit code 2, one line that matches, and nothing written."""
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("rlaif: "), ended.err
    assert re.search(pattern, ended.err), ended.err
    left = [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()]
    assert not left, f"something was written: {left}"
