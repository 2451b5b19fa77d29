"""Runs and impact runs on a scripted judge whose label depends on all that it reads."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.factories import recipe_factory
from pipeline.engines import ScriptedEngine
from pipeline.ids import file_hash, uniform
from pipeline.impact.run import run_impact
from pipeline.run.context import open_context
from pipeline.run.phases import (
    preference_chain,
    preference_dataset,
    supervised_chain,
    supervised_dataset,
)
from pipeline.run.start import start_run
from pipeline.store import RunDir, RunLock, read_rows
from pipeline.store.shards import stage_manifests
from pipeline.types import Messages
from tests.run.builders import CONSTITUTION, write_recipe
from tests.stages.builders import SLOT

SCRIPT = "tests.impact.impact_runs:make_engine"
CALLS: list[str] = []
"""The last message of every call of every engine so far."""
PRINCIPLES: list[dict[str, str]] = CONSTITUTION["principles"]


@recipe_factory
def make_engine(taste: str = "") -> ScriptedEngine:
    """A judge whose label depends on the principle's words, on exemplars and on both texts."""

    def reply(messages: Messages, seed: int) -> str:
        CALLS.append(messages[-1].content)
        return f"text {seed} after {len(messages)} turns"

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        last = messages[-1].content
        CALLS.append(last)
        if not (found := list(SLOT.finditer(last))):
            return [-2 * uniform(taste, last, option) for option in options]
        before = [*(message.content for message in messages[:-1]), last[: found[0].start()]]
        return [-2 * uniform(taste, *before, slot[3]) for slot in found]

    return ScriptedEngine(reply, scores, name=f"tests {taste}", keep_calls=False)


def full_run(
    folder: Path, run_id: str, principles: Sequence[dict[str, Any]], **changes: Any
) -> RunDir:
    """A run from its prompts to its preference set, under these principles."""
    recipe = write_recipe(
        folder / run_id, **({"policy": {"type": "scripted", "script": SCRIPT}} | changes)
    )
    (folder / run_id / "constitution.yaml").write_text(
        yaml.safe_dump({"name": "tests", "principles": list(principles)})
    )
    run = start_run(recipe, run_id=run_id, runs_root_folder=folder / "runs")

    async def make() -> None:
        with RunLock(run.root):
            ctx = open_context(run)
            await supervised_chain(ctx)
            supervised_dataset(ctx)
            await preference_chain(ctx)
            preference_dataset(ctx)

    asyncio.run(make())
    return run


def make_impact(before: RunDir, new: Path, **options: Any) -> RunDir:
    run, worked = asyncio.run(run_impact(before, new, **options))
    assert worked
    return run


def reworded(number: int = 1) -> list[dict[str, str]]:
    """The principles with one of them in other words."""
    principles = [dict(principle) for principle in PRINCIPLES]
    principles[number]["comparison_request"] = "Which is kinder by far?"
    principles[number]["critique_request"] = "Critique what is unkind."
    return principles


def write_new(folder: Path, principles: Sequence[dict[str, Any]]) -> Path:
    path = folder / "new.yaml"
    path.write_text(yaml.safe_dump({"name": "tests", "principles": list(principles)}))
    return path


def stored(run: RunDir, folder: str) -> list[Any]:
    return [row for m in stage_manifests(run.root, folder) for row in read_rows(run.root, m)]


def label_values(run: RunDir) -> dict[str, float | None]:
    return {row.row_id: row.prob_first for row in stored(run, "preference/judge")}


def hashes(run: RunDir) -> dict[str, str]:
    return {str(p): file_hash(p) for p in sorted(run.root.rglob("*")) if p.is_file()}
