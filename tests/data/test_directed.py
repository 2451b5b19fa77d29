"""Directed replies: which response each direction takes, and where its row comes from."""

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config import load_config
from pipeline.config.training import DpaConfig
from pipeline.constitution import load_constitution
from pipeline.data.directed import TOO_FEW, DirectedRow, directed_rows
from pipeline.data.export import export_preference
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import ConfigError
from pipeline.records import PromptRow, ResponseRow, ScoreRow
from pipeline.run.files import load_files
from pipeline.run.start import start_run
from pipeline.types import user
from tests.run.builders import make_preference_set, write_recipe

CONFIG = DpaConfig(attributes=("brief", "kind"), directions=8)
PARTS = ("kind", "brief", "other")


def reply(name: str, prompt: str = "p", **fields: Any) -> ResponseRow:
    values = {"response": f"text {name}", "finish_reason": "stop", **fields}
    return ResponseRow(row_id=name, prompt_id=prompt, **values)


def rated(name: str, brief: float, kind: float) -> ScoreRow:
    values = (kind, brief, 1.0)
    return ScoreRow(row_id=f"score-{name}", response_id=name, parts=PARTS, values=values)


def test_each_direction_takes_its_best_response() -> None:
    """(9, 1) against (1, 9) changes at 45 degrees; what is cut or unreadable takes no part."""
    prompts = [PromptRow(row_id=name, messages=(user("Hi"),)) for name in ("p", "alone")]
    texts = [reply("a"), reply("b"), reply("cut", finish_reason="length"), reply("c", "alone")]
    texts += [reply("mute", response=" "), reply("nan"), reply("failed", status="failed")]
    names = ("cut", "mute", "nan", "failed")
    scores = [rated("a", 9, 1), rated("b", 1, 9), rated("c", 5, 5)]
    scores += [rated(name, math.nan if name == "nan" else 10, 10) for name in names]
    rows = list(directed_rows(prompts, texts, scores, CONFIG, seed=0, run_id="r"))
    assert rows[8:] == [TOO_FEW] * 8
    made = [row for row in rows if isinstance(row, DirectedRow)]
    assert {row.completion_id for row in made} == {"a", "b"}
    for row in made:
        assert 0 <= row.angle <= 90 and row.completion_id == ("a" if row.angle < 45 else "b")
        assert row.score_id == f"score-{row.completion_id}"
        weight = round(100 * math.cos(math.radians(row.angle)))
        assert f"{weight} * brief" in row.messages[0].content
    again = list(directed_rows(prompts, texts, scores, CONFIG, seed=0, run_id="r"))
    assert again == rows and len({row.row_id for row in made}) == 8


def test_several_judges_are_averaged() -> None:
    """With (9, 1) and (1, 1) a is (5, 1), and b is (4, 0): a is better at every angle."""
    prompts, texts = [PromptRow(row_id="p", messages=(user("Hi"),))], [reply("a"), reply("b")]
    scores = [rated("a", 9, 1), rated("b", 4, 0), rated("a", 1, 1), rated("b", 4, 0)]
    rows = directed_rows(prompts, texts, scores, CONFIG, seed=0, run_id="r")
    assert {r.completion_id for r in rows if isinstance(r, DirectedRow)} == {"a"}


def test_an_attribute_is_the_id_of_a_principle(tmp_path: Path) -> None:
    train = {"method": "dpa", "attributes": ["p-0", "gone"]}
    preference = {"labeler": "score", "score": {"principles": "all"}, "train": train}
    local = {"type": "vllm", "model": "models/pocket"}
    config = load_config(write_recipe(tmp_path, policy=local, preference=preference))
    with pytest.raises(ConfigError, match=r"train.attributes names 'gone', .* are p-0, p-1, p-2"):
        load_files(config, load_constitution(config.constitution))


def test_a_run_writes_them_with_their_origin(tmp_path: Path) -> None:
    preference = {
        "labeler": "score",
        "score": {"principles": "all"},
        "audit": {"enabled": False},
        "sample": {"num_samples": 3},
    }
    recipe = write_recipe(tmp_path / "in", prompts=6, preference=preference)
    run = start_run(recipe, runs_root_folder=tmp_path / "runs")
    make_preference_set(run)
    assert not (run.dataset / "directed.parquet").exists()
    config = load_config(run.recipe)
    train = DpaConfig(attributes=("p-0", "p-2"), directions=2)
    section = config.preference.model_copy(update={"train": train})
    config = config.model_copy(update={"preference": section})
    counts = export_preference(run, config, load_constitution(run.constitution))["directed"]
    rows = pq.read_table(run.dataset / "directed.parquet").to_pylist()
    assert counts["rows"] == len(rows) and counts["candidates"] == 12
    origin = trace(run, rows[0]["row_id"])
    kinds = [node.kind for node in origin.walk() if not node.shown_before]
    assert kinds == ["directed", "score", "prompt", "response"]
    assert not [problem for problem in verify(run) if "directed" in problem]
    assert "## directed.parquet" in (run.dataset / "README.md").read_text()
