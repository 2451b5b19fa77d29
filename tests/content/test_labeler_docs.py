"""docs/labelers.md says what is true: its recipes load, its costs are what engines are asked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.config.factories import recipe_factory
from pipeline.config.paths import PROJECT_ROOT
from pipeline.labeling.follow_up_sets import load_follow_ups
from pipeline.run.context import open_context
from pipeline.run.phases import run_all
from pipeline.run.start import start_run
from tests.run.builders import CONSTITUTION, write_recipe
from tests.run.scripted_world import make_engine
from tests.test_readme import blocks

PAGE = (PROJECT_ROOT / "docs" / "labelers.md").read_text(encoding="utf-8")
RECIPES = [yaml.safe_load(block) for block in blocks(PAGE, "yaml")]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipe_of_the_page_loads(tmp_path: Path, recipe: dict[str, Any]) -> None:
    config = load_config(write_recipe(tmp_path, **recipe))
    preference = config.preference
    named = [preference.judge.exemplars, preference.follow_up.follow_ups]
    assert all((PROJECT_ROOT / path).exists() for path in named if path)


def test_every_labeler_has_a_recipe() -> None:
    assert {r["preference"].get("labeler") for r in RECIPES if "preference" in r} >= {
        "judge",
        "score",
        "follow_up",
        "reward_model",
        "assumed",
    }
    assert any("panel" in recipe for recipe in RECIPES)
    fields = {name for r in RECIPES for name in (r.get("preference", {}).get("judge") or {})}
    assert fields >= {"num_exemplars", "chain_of_thought", "num_principles", "calibration"}


NUM_PRINCIPLES = len(CONSTITUTION["principles"])
NUM_FOLLOW_UPS = len(
    load_follow_ups(PROJECT_ROOT / "prompts/follow_ups/helpfulness.yaml").sentences
)
COSTS: list[tuple[dict[str, Any], int]] = [
    ({}, 2),
    ({"judge": {"chain_of_thought": {}}}, 4),
    ({"judge": {"num_principles": 3}}, 2 * 3),
    ({"labeler": "score"}, 2),
    ({"labeler": "score", "score": {"principles": "all"}}, 2 * NUM_PRINCIPLES),
    (
        {
            "labeler": "reward_model",
            "reward_model": {
                "engine": {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
            },
        },
        2,
    ),
    ({"labeler": "follow_up"}, 2 * NUM_FOLLOW_UPS),
    ({"labeler": "follow_up", "follow_up": {"neutral_reply": "Okay."}}, 3 * NUM_FOLLOW_UPS),
]
"""Preference section, and the calls for one prompt with two samples: one comparison."""


@pytest.mark.parametrize("preference, calls", COSTS, ids=str)
async def test_costs_are_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preference: dict[str, Any], calls: int
) -> None:
    engine = make_engine()
    monkeypatch.setattr("tests.run.scripted_world.make_engine", recipe_factory(lambda: engine))
    recipe = write_recipe(
        tmp_path / "in",
        prompts=1,
        preference=preference,
        supervised={"enabled": False},
        evaluation={"enabled": False},
    )
    await run_all(open_context(start_run(recipe, run_id="r", runs_root_folder=tmp_path / "runs")))
    assert NUM_FOLLOW_UPS == 120
    assert len(engine.calls) == 2 + calls  # two samples, then the labels
