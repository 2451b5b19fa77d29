"""Nights that must not go on: held-out prompts that were trained on, labels that failed their
audit.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data.dataset import load_dataset
from pipeline.errors import AuditError, DataError
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly
from pipeline.run.start import runs_root
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
    assert "1 new prompts go into version 2" in night(recipe)


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
