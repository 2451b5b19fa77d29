"""The builders of run folders for all tests: a recipe, an empty run, a whole one, single shards."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import RunConfig
from pipeline.ids import canonical_json, file_hash, row_id
from pipeline.records import RevisionRow, Row
from pipeline.run.context import open_context
from pipeline.run.phases import preference_chain, preference_dataset, supervised_chain
from pipeline.store import (
    Manifest,
    RunDir,
    RunLock,
    ShardCounts,
    read_json,
    write_json,
    write_shard,
)
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

CONSTITUTION: dict[str, Any] = {
    "name": "tests",
    "principles": [
        {
            "id": f"p-{i}",
            "critique_request": f"Critique request {i}.",
            "revision_request": f"Rewrite request {i}.",
            "comparison_request": f"Which is more polite, {i}?",
        }
        for i in range(3)
    ],
}


def write_recipe(folder: Path, *, prompts: int = 10, heldout: int = 4, **changes: Any) -> Path:
    """A recipe on the scripted engine below `folder`; `changes` replace top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constitution.yaml").write_text(yaml.safe_dump(CONSTITUTION))
    for name, count in (("train", prompts), ("heldout", heldout)):
        lines = [canonical_json({"prompt": f"{name} question {i}?"}) for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "small",
        "constitution": str(folder / "constitution.yaml"),
        "prompts": {
            "train": [str(folder / "train.jsonl")],
            "heldout": [str(folder / "heldout.jsonl")],
        },
        "policy": {"type": "scripted", "script": "tests.run.scripted_world:make_engine"},
        "execution": {"shard_size": 4, "shards_in_flight": 2},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def make_preference_set(run: RunDir) -> dict[str, Any]:
    """Take a run through its labels to its preference set; returns the counts of the export."""

    async def make() -> dict[str, Any]:
        with RunLock(run.root):
            ctx = open_context(run)
            await supervised_chain(ctx)
            await preference_chain(ctx)
            return preference_dataset(ctx)

    return asyncio.run(make())


CONFIG = RunConfig.model_validate(
    {
        "name": "small",
        "constitution": "constitution.yaml",
        "prompts": {"train": ["p.jsonl"]},
        "policy": {"type": "scripted", "script": "a:b"},
        "supervised": {"revise": {"rounds": 2}},
    }
)


def make_run(
    root: Path, *, recipe_text: str = "", constitution_text: str = "", **info: Any
) -> RunDir:
    """A run folder with recipe and constitution, and nothing made yet."""
    run = RunDir(root)
    root.mkdir(parents=True, exist_ok=True)
    principles = make_constitution().model_dump(mode="json")
    config = CONFIG.model_dump(mode="json", exclude_unset=True)
    run.constitution.write_text(constitution_text or yaml.safe_dump(principles))
    run.recipe.write_text(recipe_text or yaml.safe_dump(config))
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


def write_rows(
    run: RunDir,
    folder: str,
    rows: Sequence[Row],
    *,
    inputs: Sequence[Manifest] = (),
    shard_index: int = 0,
    **fields: Any,
) -> Manifest:
    """One shard of rows."""
    counts = ShardCounts(expected=len(rows), **fields)
    return write_shard(
        run.root,
        folder,
        shard_index,
        rows,
        type(rows[0]),
        counts=counts,
        key="k",
        inputs={m.path: m.sha256 for m in inputs},
        engine={"name": "scripted", "fingerprint": "f" * 64, "version": "scripted 1"},
    )


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
    write_rows(run, "supervised/revise-1", rows, inputs=[prompts])


def stored_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that must be there."""
    value = read_json(path)
    assert value is not None, path
    return value
