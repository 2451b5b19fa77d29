"""Nights that must not go on: held-out prompts that were trained on, labels that failed their
audit, a part of the series that is gone, too little news for a training.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.data.dataset import PREFERENCE_SCHEMA, SetInfo, load_dataset, record_set, write_tables
from pipeline.errors import AuditError, ConfigError, DataError, StoreError
from pipeline.ids import file_hash
from pipeline.run.context import open_context
from pipeline.run.nightly import (
    enough_new,
    files_changed,
    nightly_runs,
    plan_nightly,
    run_nightly,
    take_run,
)
from pipeline.run.passes import prompt_shards
from pipeline.run.start import check_recipe, runs_root
from pipeline.store import RunDir
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines

QUIET = {"audit": {"enabled": False}}
NO_TEXT_IS_GOOD_ENOUGH = {"min_prompts": 2, "length_ratio": [8, 9]}


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))


def write_prompts(path: Path, *texts: str) -> None:
    write_lines(path, *({"prompt": text} for text in texts))


def change(recipe: Path, **values: Any) -> None:
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **values}))


def night(recipe: Path) -> str:
    return asyncio.run(run_nightly(plan_nightly(str(recipe))))


def test_prompt_of_an_earlier_night_cannot_be_held_out(tmp_path: Path) -> None:
    """Its rows would come along with the parent's version, and the evaluation would know them."""
    recipe = write_recipe(tmp_path, prompts=4, preference=QUIET)
    assert "into version 1" in night(recipe)
    write_prompts(tmp_path / "train.jsonl", "new?")
    write_prompts(tmp_path / "heldout.jsonl", "other?", " train question 0?\n")
    with pytest.raises(
        DataError, match=r"heldout.jsonl, line 2: .* is in the data set of run small-n"
    ):
        night(recipe)
    assert len(list(runs_root().glob("*"))) == 1
    write_prompts(tmp_path / "heldout.jsonl", "other?")
    assert "1 new prompt goes into version 2" in night(recipe)


def test_failed_audit_stops_the_next_night_with_a_reason(tmp_path: Path) -> None:
    """Labels made by the same recipe would fail again, each night, without a word of what to do."""
    recipe = write_recipe(
        tmp_path, prompts=4, preference={**QUIET, "collapse": NO_TEXT_IS_GOOD_ENOUGH}
    )
    with pytest.raises(AuditError, match="audit of run small-nightly"):
        night(recipe)
    write_prompts(tmp_path / "train.jsonl", *(f"train question {i}?" for i in range(6)))
    for _ in range(2):
        with pytest.raises(
            AuditError, match=r"last night, run small-nightly-\S+, failed, .*Correct"
        ):
            plan_nightly(str(recipe))
    assert len(nightly_runs("small")) == 1


def test_night_after_a_corrected_recipe_asks_all_prompts(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=4, preference=QUIET)
    night(recipe)
    write_prompts(tmp_path / "train.jsonl", *(f"train question {i}?" for i in range(10)))
    change(recipe, preference={**QUIET, "collapse": NO_TEXT_IS_GOOD_ENOUGH})
    with pytest.raises(AuditError):
        night(recipe)
    first, failed = nightly_runs("small")
    write_prompts(tmp_path / "train.jsonl", *(f"train question {i}?" for i in range(11)))
    change(recipe, preference=QUIET)
    assert "7 new prompts go into version 2" in night(recipe)
    again, last = nightly_runs("small")
    assert again == first and last not in (first, failed)
    dataset = load_dataset(last)
    assert dataset and dataset.parent and dataset.parent.run_id == first.run_id
    assert "nothing to do" in night(recipe)


def test_other_template_counts_as_a_correction(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, prompts=4, preference={**QUIET, "collapse": NO_TEXT_IS_GOOD_ENOUGH}
    )
    with pytest.raises(AuditError):
        night(recipe)
    constitution = yaml.safe_load((tmp_path / "constitution.yaml").read_text())
    constitution["principles"][0]["comparison_request"] = "Which is kinder?"
    (tmp_path / "constitution.yaml").write_text(yaml.safe_dump(constitution))
    assert "4 new prompts go into version 1" in plan_nightly(str(recipe)).message


def test_part_of_the_series_that_is_gone_is_named(tmp_path: Path) -> None:
    """Before a folder is made: a night that cannot end would be continued by every later one."""
    only = {"supervised": {"enabled": False}, "evaluation": {"enabled": False}}
    recipe = write_recipe(tmp_path, prompts=2, heldout=1, preference=QUIET, **only)
    night(recipe)
    write_prompts(tmp_path / "train.jsonl", *(f"train question {i}?" for i in range(3)))
    night(recipe)
    first, second = nightly_runs("small")
    write_prompts(tmp_path / "train.jsonl", "new?")

    def refused(message: str) -> None:
        with pytest.raises(StoreError, match=message):
            night(recipe)
        assert len(list(runs_root().iterdir())) == 1

    shutil.move(first.root, tmp_path / "aside")
    change(recipe, nightly={"near_duplicates": 0.8})
    refused(rf"{first.run_id}, whose folder \S+ is gone; bring it back, or set nightly.near_dup")
    constitution = tmp_path / "constitution.yaml"
    before = constitution.read_text()
    constitution.write_text(before.replace("more polite, 0", "kinder, 0"))
    change(recipe, nightly={})
    refused(rf"data set of run {first.run_id}, .* is gone; .*, or set nightly.relabel to false")
    constitution.write_text(before)
    (second.dataset / "manifest.json").unlink()
    refused(rf"the night before, run {second.run_id}, is gone; `rlaif resume {second.run_id}`")
    shutil.move(tmp_path / "aside", first.root)
    asyncio.run(take_run(second))
    assert "1 new prompt goes into version 3" in night(recipe)


def test_share_of_new_prompts_by_hand() -> None:
    """5 of 100 are 0.05, and 5 of 101 are less."""
    assert enough_new(100, 95, 0.05) and not enough_new(101, 96, 0.05) and enough_new(1, 1, 0.0)


def test_night_with_too_little_news_trains_nothing(tmp_path: Path) -> None:
    """8 prompts, then 1, then 1 more: 1 of 9 is too little, 2 of 10 are enough."""
    training = {"method": "dpo"}
    recipe = write_recipe(
        tmp_path,
        prompts=8,
        policy={"type": "vllm", "model": "models/pocket"},
        preference={**QUIET, "train": training},
        evaluation={"gate": {"win_rate": {"min_lower": 0.4}}},
        nightly={"min_new_share": 0.2},
    )

    def plan(number: int) -> tuple[RunDir, str]:
        write_prompts(tmp_path / "train.jsonl", *(f"train question {i}?" for i in range(number)))
        planned = plan_nightly(str(recipe))
        assert planned.run
        return planned.run, planned.message

    def finish(run: RunDir) -> None:
        prompt_shards(open_context(run))
        path = run.dataset / "preference.parquet"
        write_tables(path, PREFERENCE_SCHEMA, [])
        info = SetInfo(path="dataset/preference.parquet", sha256=file_hash(path), rows=0)
        record_set(run, "preference", info)
        run.update_info(status="finished")

    first, message = plan(8)
    assert "nothing is trained" not in message
    finish(first)
    second, message = plan(9)
    assert message.endswith(
        f"; nothing is trained: 1 of 9 prompts are newer than the training of run {first.run_id}, "
        "and nightly.min_new_share is 0.2"
    )
    config = load_config(second.recipe)
    assert config.preference.train is None and config.evaluation.gate is None
    assert not files_changed(second, check_recipe(recipe))
    finish(second)
    third, message = plan(10)
    assert "nothing is trained" not in message and load_config(third.recipe).preference.train
    change(recipe, rounds=2)
    with pytest.raises(ConfigError, match=r"nightly.min_new_share would leave some out"):
        plan_nightly(str(recipe))
