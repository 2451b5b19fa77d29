"""A run that makes the number of pairs that was ordered, or says what is missing and why."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import load_config
from pipeline.config.recipe import RunConfig
from pipeline.data.dataset import load_dataset
from pipeline.errors import BudgetSpentError, DataError
from pipeline.report import headline_numbers
from pipeline.run.nightly import take_run
from pipeline.run.start import change_budget, start_run
from pipeline.run.target import first_draw, most_pairs, next_draw
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests, stage_rows
from pipeline.store.stage_names import INITIALS, PAIRS, PROMPTS
from tests.run.builders import CONFIG, write_recipe

TWO_SAMPLES = {"audit": {"enabled": False}, "sample": {"num_samples": 2}}
PLAIN = {
    "supervised": {"enabled": False},
    "evaluation": {"enabled": False},
    "preference": TWO_SAMPLES,
}


def ordered(folder: Path, pairs: int, **changes: Any) -> Path:
    """A recipe that orders this number of pairs, of 40 prompts at most."""
    recipe = write_recipe(folder, prompts=40, **{**PLAIN, **changes})
    values = yaml.safe_load(recipe.read_text())
    values["prompts"]["target_pairs"] = pairs
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def take(recipe: Path, run: RunDir | None = None) -> RunDir:
    run = run or start_run(recipe, run_id="one", runs_root_folder=recipe.parent / "runs")
    asyncio.run(take_run(run))
    return run


def num_rows(run: RunDir) -> int:
    dataset = load_dataset(run)
    assert dataset
    return dataset.sets["preference"].rows


def test_next_draw() -> None:
    """60 pairs of 50 prompts are 1.2 each; 40 more need 33.3 prompts, and a tenth: 36.7."""
    assert next_draw(100, 60, 50) == 37
    assert next_draw(100, 0, 50) == next_draw(100, 10, 50) == 50
    assert next_draw(61, 60, 50) == 1


def test_fewest_prompts_that_could_do() -> None:
    """Four samples are six comparisons, so 100 pairs need 17 prompts at least."""
    values = CONFIG.model_dump(mode="json", exclude_unset=True)
    values["prompts"]["target_pairs"] = 100
    values["preference"] = {"sample": {"num_samples": 4}}
    config = RunConfig.model_validate(values)
    assert most_pairs(config) == 6 and first_draw(config) == 17
    values["preference"]["comparisons"] = "all"
    assert most_pairs(RunConfig.model_validate(values)) == 7


def test_ordered_pairs_are_made(tmp_path: Path) -> None:
    run = take(ordered(tmp_path, 9))
    prompts = [row.row_id for row in stage_rows(run.root, PROMPTS)]
    kept = sum(row.status == "ok" for row in stage_rows(run.root, PAIRS))
    assert num_rows(run) == 9 <= kept and 9 < len(prompts) < 40
    assert len({*prompts}) == len(prompts)
    assert dict(headline_numbers(run))["Pairs ordered"] == "9 of 9 pairs"
    # A lost shard of a later draw is built again, and the pairs are those of before.
    pairs = list(stage_rows(run.root, PAIRS))
    last = stage_manifests(run.root, PROMPTS)[-1]
    (run.root / last.path).unlink()
    take(tmp_path, run)
    assert [row.row_id for row in stage_rows(run.root, PROMPTS)] == prompts
    assert list(stage_rows(run.root, PAIRS)) == pairs and num_rows(run) == 9


def test_missing_pairs_are_explained(tmp_path: Path) -> None:
    run = take(ordered(tmp_path, 60))
    line = dict(headline_numbers(run))["Pairs ordered"]
    assert num_rows(run) < 60 and f"{num_rows(run)} of 60 pairs: {60 - num_rows(run)} are" in line
    assert "since all 40 prompts are used (" in line and "dropped: tie" in line


def test_later_draws_have_revisions_and_the_sft_set_is_of_the_first(tmp_path: Path) -> None:
    recipe = ordered(
        tmp_path,
        6,
        supervised={"enabled": True},
        preference={
            "audit": {"enabled": False},
            "comparisons": "revision_vs_initial",
            "pair": {"max_length_difference": 1},
        },
    )
    config = load_config(recipe)
    assert first_draw(config) == 6
    run = take(recipe)
    dataset = load_dataset(run)
    assert dataset and dataset.sets["sft"].candidates == 6
    assert sum(m.counts.expected for m in stage_manifests(run.root, INITIALS)) > 6


def test_spent_budget_says_how_many_pairs_there_are(tmp_path: Path) -> None:
    recipe = ordered(tmp_path, 9, budget={"tokens": 700})
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    with pytest.raises(BudgetSpentError, match=r"\d of 9 pairs: \d are missing, since the budget"):
        take(recipe, run)
    change_budget(run, ["budget.tokens=null"])
    assert num_rows(take(recipe, run)) == 9
    whole = take(ordered(tmp_path / "whole", 9))
    assert [row.row_id for row in stage_rows(whole.root, PAIRS)] == [
        row.row_id for row in stage_rows(run.root, PAIRS)
    ]


def test_held_out_prompt_is_not_drawn_later(tmp_path: Path) -> None:
    recipe = ordered(tmp_path, 60, budget={"tokens": 1})
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    with pytest.raises(BudgetSpentError):
        take(recipe, run)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write((tmp_path / "heldout.jsonl").read_text())
    change_budget(run, ["budget.tokens=null"])
    with pytest.raises(DataError, match=r"train.jsonl, line 4\d: run one holds this prompt out"):
        take(recipe, run)


def test_target_without_pairs_is_refused() -> None:
    values = CONFIG.model_dump(mode="json", exclude_unset=True)
    values["prompts"]["target_pairs"] = 5
    values["preference"] = {"enabled": False}
    with pytest.raises(
        ValidationError, match=r"target_pairs orders .* preference.enabled is false"
    ):
        RunConfig.model_validate(values)
