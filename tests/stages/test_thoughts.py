"""Thoughts have a column of their own: not compared, judged or learned unless a recipe asks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config.labeling import ChainOfThoughtConfig, JudgeConfig
from pipeline.constitution import load_constitution
from pipeline.data.export import export_sft
from pipeline.evaluation.data_summary import stage_metrics
from pipeline.records import ResponseRow
from pipeline.report.source import read_run
from pipeline.report.tables import stage_table
from pipeline.store import load_manifest, read_rows
from pipeline.types import Messages
from tests.run.builders import CONFIG, make_run
from tests.stages.builders import (
    labels,
    make_engine,
    numbered_reply,
    prompt,
    run_chain,
    sample,
    supervised,
)

THOUGHT = "They want an answer."
STAGES = ("supervised/sample", "supervised/critique-1", "supervised/revise-1", "preference/judge")
WITH_THOUGHT = JudgeConfig(chain_of_thought=ChainOfThoughtConfig())


def thinking_reply(messages: Messages, seed: int) -> str:
    """Thinks before every reply, except about the first question."""
    reply = numbered_reply(messages, seed)
    if "question 0" in messages[0].content:
        return reply
    return f"<think>\n{THOUGHT}\n</think>\n\n{reply}"


async def make(root: Path, reply: Any) -> Any:
    """A whole run whose judge writes a rationale, and what its engine was asked."""
    run = make_run(root)
    engine = make_engine(lambda a, b: 2.0 if a < b else -2.0, reply)
    stages = [*supervised(engine), sample(engine), *labels(engine, judge=WITH_THOUGHT)]
    questions = [prompt(f"question {n}") for n in range(4)]
    await run_chain(run.root, [replace(s, run_id="r") for s in stages], questions)  # type: ignore[type-var]
    return run, engine


def all_rows(root: Path, folder: str) -> list[Any]:
    manifests = [load_manifest(root, folder, index) for index in range(2)]
    return [row for m in manifests if m for row in read_rows(root, m)]


async def test_rows_keep_thoughts_apart(tmp_path: Path) -> None:
    run, engine = await make(tmp_path / "thinking", thinking_reply)
    calm, calm_engine = await make(tmp_path / "calm", numbered_reply)
    # Nothing that a model is asked, and no other column, knows that it has thought.
    assert sorted(c.request_id for c in engine.calls) == sorted(
        c.request_id for c in calm_engine.calls
    )
    assert not any(THOUGHT in m.content for call in engine.calls for m in call.messages)
    for folder in STAGES:
        rows, others = all_rows(run.root, folder), all_rows(calm.root, folder)
        assert [replace(r, thoughts=None, num_thought_tokens=None, num_tokens=0) for r in rows] == [
            replace(r, num_tokens=0) for r in others
        ]
        assert {row.thoughts for row in others} == {None}
        for row in rows:
            replies = 2 if folder == "preference/judge" else 1
            quiet = row.prompt_id == prompt("question 0").row_id
            assert row.thoughts == (None if quiet else (THOUGHT,) * replies)
            assert row.num_thought_tokens == (None if quiet else 4 * replies)


async def test_a_file_without_thoughts_has_no_column_for_them(tmp_path: Path) -> None:
    run, _ = await make(tmp_path / "thinking", thinking_reply)
    calm, _ = await make(tmp_path / "calm", numbered_reply)
    path = "supervised/sample/shard-00000"
    new = {"thoughts", "num_thought_tokens"}
    assert new <= set(pq.read_schema(run.root / f"{path}.parquet").names)
    assert not new & set(pq.read_schema(calm.root / f"{path}.parquet").names)
    counts = json.loads((run.root / f"{path}.json").read_text())["counts"]
    assert (counts["thoughts"], counts["thought_tokens"]) == (2, 8)
    assert "thoughts" not in json.loads((calm.root / f"{path}.json").read_text())["counts"]


async def test_thoughts_are_counted(tmp_path: Path) -> None:
    """Three of four questions, two verdicts each: 3 rows of 4 and 6 of 8."""
    run, _ = await make(tmp_path / "thinking", thinking_reply)
    stages = stage_metrics(run.root)
    assert [stages[folder].thoughts for folder in STAGES] == [3, 3, 3, 3]
    assert stages["supervised/sample"].thought_tokens == 12
    assert stages["preference/judge"].thought_tokens == 24
    data = read_run(run)
    shares = {str(row["stage"]): row["rows with thoughts"] for row in stage_table(data).rows}
    assert shares["supervised/sample"] == "75\xa0%"
    calm, _ = await make(tmp_path / "calm", numbered_reply)
    written = stage_metrics(calm.root)["supervised/sample"].model_dump(mode="json")
    assert "thoughts" not in written


@pytest.mark.parametrize("switch", [False, True])
async def test_thoughts_are_learned_only_where_asked(tmp_path: Path, switch: bool) -> None:
    run, _ = await make(tmp_path / "thinking", thinking_reply)
    part = CONFIG.supervised.model_copy(
        update={
            "sft_thoughts": switch,
            "revise": CONFIG.supervised.revise.model_copy(update={"rounds": 1}),
        }
    )
    config = CONFIG.model_copy(update={"supervised": part})
    export_sft(run, config, load_constitution(run.constitution))
    rows = pq.read_table(run.dataset / "sft.parquet").to_pylist()
    revisions = {row.row_id: row.revision for row in all_rows(run.root, "supervised/revise-1")}
    begun = [
        row["completion"] == f"<think>\n{THOUGHT}\n</think>\n\n{revisions[row['completion_id']]}"
        for row in rows
    ]
    assert len(rows) == 4 and sum(begun) == (3 if switch else 0)


async def test_a_text_that_stays_keeps_its_thought(tmp_path: Path) -> None:
    """A revision that is skipped is the response, with what was thought before it."""

    def reply(messages: Messages, seed: int) -> str:
        text = numbered_reply(messages, seed)
        if text.startswith("critique"):
            return "No fault."
        return f"<think>x y</think>{text}"

    engine = make_engine(reply=reply)
    stages = supervised(engine)
    stages[2] = replace(
        stages[2],  # type: ignore[type-var]
        revise=CONFIG.supervised.revise.model_copy(update={"skip_phrases": ("No fault",)}),
    )
    states = await run_chain(tmp_path, stages, [prompt("q")])
    rows = read_rows(tmp_path, states[0]["supervised/revise-1"])
    assert [(row.skipped, row.thoughts, row.num_tokens) for row in rows] == [(True, ("x y",), 0)]


def test_rows_come_back_from_plain_values() -> None:
    row = ResponseRow(row_id="a", thoughts=("one", ""), num_thought_tokens=None)
    assert ResponseRow.from_dict(row.as_dict()) == row
    assert row.thought == "one"
