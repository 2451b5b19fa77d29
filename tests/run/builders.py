"""Writes a small recipe with everything it names, and makes its data."""

import asyncio
from pathlib import Path
from typing import Any

import yaml

from pipeline.ids import canonical_json
from pipeline.run.context import open_context
from pipeline.run.phases import preference_chain, preference_dataset, supervised_chain
from pipeline.store import RunDir, RunLock

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
