"""Run folders for the tests of data sets and lineage."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import RunConfig
from pipeline.ids import file_hash, row_id
from pipeline.records import RevisionRow, Row
from pipeline.store import RunDir, ShardCounts, write_json, write_shard
from tests.stages.builders import (
    labels,
    make_constitution,
    make_engine,
    make_shards,
    prompt,
    run_chain,
    sample,
    supervised,
)

CONFIG = RunConfig.model_validate(
    {
        "name": "small",
        "constitution": "constitution.yaml",
        "prompts": {"train": ["p.jsonl"]},
        "policy": {"type": "scripted", "script": "a:b"},
        "supervised": {"revise": {"rounds": 2}},
    }
)


def make_run(root: Path, **info: Any) -> RunDir:
    """A run folder with recipe and constitution, and nothing made yet."""
    run = RunDir(root)
    root.mkdir(parents=True)
    constitution = make_constitution().model_dump(mode="json")
    run.constitution.write_text(yaml.safe_dump(constitution))
    run.recipe.write_text(yaml.safe_dump(CONFIG.model_dump(mode="json", exclude_unset=True)))
    files = {path.name: file_hash(path) for path in (run.recipe, run.constitution)}
    write_json(root / "run.json", {"run_id": run.run_id, "files": files, **info})
    return run


async def whole_run(root: Path, prompts: int = 10, first: int = 0, **info: Any) -> RunDir:
    """A run with two rounds of revisions and judged samples; its questions begin at `first`."""
    run = make_run(root, **info)
    engine = make_engine(lambda a, b: 2.0 if a < b else -2.0)
    questions = [prompt(f"question {n}") for n in range(first, first + prompts)]
    stages: list[Any] = [*supervised(engine, rounds=2), sample(engine), *labels(engine)]
    await run_chain(root, [replace(stage, run_id=root.name) for stage in stages], questions)
    return run


def write_stage(run: RunDir, texts: Mapping[str, dict[str, Any]]) -> None:
    """One prompt and its revisions: their texts, with further fields."""
    (state,) = make_shards(run.root, 1)
    prompts = state["prompts"]
    prompt_id = row_id("prompt", [{"role": "user", "content": "question 0"}])
    rows: list[Row] = [
        RevisionRow(
            **{
                "row_id": row_id("revision", text),
                "prompt_id": prompt_id,
                "revision": text,
                "finish_reason": "stop",
                "run_id": run.run_id,
                **fields,
            }
        )
        for text, fields in texts.items()
    ]
    write_shard(
        run.root,
        "supervised/revise-1",
        0,
        rows,
        RevisionRow,
        key="k",
        counts=ShardCounts(expected=len(rows)),
        inputs={prompts.path: prompts.sha256},
    )
