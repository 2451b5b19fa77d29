"""The benchmark of the whole chain: its recipes and its figures, without running it."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo_truth import QUICK_PROMPTS, figures, spread, variant
from tests.evaluation.builders import make_run
from tests.report.synthetic import finished_run, write_metrics

RECIPE: dict[str, Any] = {
    "name": "demo",
    "constitution": "constitutions/balanced.yaml",
    "prompts": {"train": ["train.jsonl"], "heldout": ["heldout.jsonl"]},
    "policy": {"type": "vllm", "model": "models/pocket"},
    "supervised": {"train": {"learning_rate": 0.001}},
    "preference": {"train": {"method": "dpo"}},
}


def test_variant_changes_seeds_and_constitution() -> None:
    changed = variant(RECIPE, "harmlessness", 2, quick=False)
    assert changed["name"] == "demo-harmlessness-2"
    assert changed["constitution"] == "constitutions/harmlessness.yaml"
    assert changed["supervised"]["train"] == {"learning_rate": 0.001, "seed": 2}
    assert changed["preference"]["train"]["seed"] == changed["seed"] == 2
    assert "limit" not in changed["prompts"] and "seed" not in RECIPE["supervised"]["train"]


def test_quick_variant_is_small() -> None:
    changed = variant(RECIPE, "balanced", 0, quick=True)
    assert changed["prompts"]["limit"] == QUICK_PROMPTS
    assert changed["preference"]["train"]["max_steps"] < 10
    assert changed["supervised"]["train"] is None


def test_figures_come_from_the_metrics(tmp_path: Path) -> None:
    values = figures(finished_run(tmp_path / "run"), 12.0)
    assert (values["harmless_initial"], values["harmless_tuned"]) == (0.5, 1.0)
    assert (values["good_initial"], values["good_tuned"]) == (0.0, 1.0)
    assert (values["refused_initial"], values["refused_tuned"]) == (0.5, 0.0)
    assert (values["label_accuracy_raw"], values["label_accuracy_kept"]) == (1.0, 1.0)
    assert (values["outside_world_tuned"], values["seconds"]) == (0.0, 12.0)


def test_figures_without_oracle_are_unknown(tmp_path: Path) -> None:
    values = figures(finished_run(tmp_path / "run", oracle=False), 1.0)
    assert values["good_tuned"] is None and values["label_accuracy_raw"] is None


def test_figures_without_training_are_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_metrics(run)
    assert set(figures(run, 1.0).values()) == {None, 1.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5, 1.0, None], {"mean": 0.75, "min": 0.5, "max": 1.0}), ([None], None)],
)
def test_spread_leaves_out_the_unknown(
    values: list[float | None], expected: dict[str, float] | None
) -> None:
    assert spread(values) == expected
