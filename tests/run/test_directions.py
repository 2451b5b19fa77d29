"""The tuned policy in several directions: asked for, rated, measured and shown."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.training import DpaConfig
from pipeline.engines import ScriptedEngine
from pipeline.evaluation.directions import measure_directions
from pipeline.labeling.directions import DirectionMetrics
from pipeline.report.directions import follows
from pipeline.run.context import RunContext, open_context
from pipeline.run.passes import heldout_shards
from pipeline.run.plan import direction_ratings, direction_samples
from pipeline.run.start import start_run
from pipeline.stats import Estimate
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import stage_title
from pipeline.types import Messages
from tests.run.builders import write_recipe

SCORED = {"labeler": "score", "score": {"principles": "all"}, "audit": {"enabled": False}}


def obedient(messages: Messages, seed: int) -> str:
    """A policy whose reply is the weight of p-0 that it is asked for."""
    found = re.search(r"(-?\d+) \* p-0", messages[0].content)
    return f"weight {found[1]}" if found else "weight 50"


def rating(messages: Messages, options: Sequence[str]) -> list[float]:
    """A rater: from 1 to 10 with the weight under p-0, from 10 to 1 under the others."""
    text = messages[-1].content
    found = re.search(r"\[\[\[weight (-?\d+)\]\]\]", text)
    assert found
    value = round(1 + 9 * int(found[1]) / 100)
    best = value if "polite, 0?" in text else 11 - value
    return [0.0 if number == best else -60.0 for number in range(1, 11)]


def context(folder: Path) -> RunContext:
    recipe = write_recipe(folder / "in", supervised={"enabled": False}, preference=SCORED)
    ctx = open_context(start_run(recipe, runs_root_folder=folder / "runs"))
    section = ctx.config.preference.model_copy(
        update={"train": DpaConfig(attributes=("p-0", "p-2"))}
    )
    return replace(ctx, config=ctx.config.model_copy(update={"preference": section}))


async def test_the_ratings_of_each_direction(tmp_path: Path) -> None:
    """Cos of 0, 22.5, 45, 67.5 and 90 degrees in hundredths: 100, 92, 71, 38, 0."""
    ctx = context(tmp_path)
    engine = ScriptedEngine(obedient, rating)
    stages = [*direction_samples(ctx, engine), *direction_ratings(ctx, engine)]
    await ctx.runner.wavefront(heldout_shards(ctx), stages)
    measured = measure_directions(ctx.run.root, ctx.config.preference, draws=100, seed=0)
    assert [entry.angle for entry in measured] == [0, 22.5, 45, 67.5, 90]
    assert list(measured[0].ratings) == ["p-0", "p-2", "p-1"]
    means = [entry.ratings["p-0"] for entry in measured]
    assert [mean.share for mean in means if mean] == pytest.approx([10, 9, 7, 4, 1])
    assert all(mean and mean.n == 4 for mean in means)
    assert follows(measured) == [
        "p-0 falls at 4 of 4 steps, from 10.00 to 1.00",
        "p-2 rises at 4 of 4 steps, from 1.00 to 10.00",
    ]
    rows = list(stage_rows(ctx.run.root, "evaluation/directed-2"))
    assert {row.response for row in rows} == {"weight 92"}
    everywhere = [
        r for n in range(1, 6) for r in stage_rows(ctx.run.root, f"evaluation/directed-{n}")
    ]
    assert len({row.row_id for row in everywhere}) == 20
    assert stage_title("evaluation/directed-2") == "responses in a direction"


async def test_other_methods_are_asked_in_no_direction(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    section = ctx.config.preference.model_copy(update={"train": None})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"preference": section}))
    engine = ScriptedEngine(obedient, rating)
    assert not direction_samples(ctx, engine) and not direction_ratings(ctx, engine)
    assert measure_directions(ctx.run.root, section, draws=100, seed=0) == ()


def test_a_policy_that_does_not_follow_is_told() -> None:
    def entry(angle: float, first: float, second: float) -> DirectionMetrics:
        means = {"brief": Estimate(first, 0, 10, 8), "kind": Estimate(second, 0, 10, 8)}
        return DirectionMetrics(angle=angle, ratings=means)

    measured = (entry(0, 5, 5), entry(45, 6, 5), entry(90, 4, 7))
    assert follows(measured) == [
        "brief falls at 1 of 2 steps, from 5.00 to 4.00",
        "kind rises at 1 of 2 steps, from 5.00 to 7.00",
    ]
