"""`benchmarks.judges_on_real_text` trains on some prompts and measures on others."""

from pathlib import Path

import pytest
import yaml

from benchmarks.judges_on_real_text import drawn, is_short, is_training, labelers, write_recipe
from pipeline.config import load_config
from pipeline.judge_eval.tune import WAYS
from tests.sources.builders import make_label

ROWS = [
    make_label(f"Question {number // 2}?", f"Yes, {number}.", rejected, index=number)
    for number, rejected in enumerate(["No."] * 40 + ["no " * 100], start=1)
]


def test_no_prompt_is_on_both_sides() -> None:
    training = {row.prompt_id for row in ROWS if is_training(row)}
    measured = {row.prompt_id for row in ROWS if not is_training(row)}
    assert training and measured and not training & measured


def test_long_pairs_are_left_out_and_the_order_does_not_matter() -> None:
    short = [row for row in ROWS if is_short(row)]
    assert len(short) == 40
    assert drawn(short, 7) == drawn(short[::-1], 7) and len(drawn(short, 7)) == 7


@pytest.mark.parametrize("way", WAYS)
def test_recipes_differ_in_the_labeler_alone(way: str, tmp_path: Path) -> None:
    changes = labelers(way, tmp_path / "reward", tmp_path)
    paths = {name: write_recipe(tmp_path, name, each) for name, each in changes.items()}
    configs = {name: load_config(path) for name, path in paths.items()}
    assert {name: config.preference.labeler for name, config in configs.items()} == {
        name: name for name in ("judge", "reward_model", "follow_up")
    }
    assert len({config.policy.model_dump_json() for config in configs.values()}) == 1
    follow_ups = yaml.safe_load((tmp_path / "follow_ups.yaml").read_text())
    assert len(follow_ups["categories"]) == 9
