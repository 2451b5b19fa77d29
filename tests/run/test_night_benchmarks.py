"""The figures of `benchmarks.nightly_cost` and `benchmarks.night_alarms`, by hand, and the nights
of `benchmarks.week`.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import week
from benchmarks.night_alarms import alarm_rates, explained
from benchmarks.nightly_cost import changed_ids, figures
from pipeline.config import load_config
from pipeline.constitution import load_constitution
from pipeline.constitution.diff import diff_constitutions
from pipeline.types import Message


def test_shares_of_nights() -> None:
    """Of 100 calls and 1,000 tokens: 5 and 60 for new prompts; the larger of two changes each."""
    paid = {"full": (100, 1000), "new": (5, 60), "a": (10, 160), "b": (12, 90)}
    line = figures(paid, 20)
    assert (line["new_calls_share"], line["new_tokens_share"]) == (0.05, 0.06)
    assert (line["changed_calls_share"], line["changed_tokens_share"]) == (0.12, 0.16)
    assert not line["met"] and figures({**paid, "a": (10, 150)}, 20)["met"]
    assert len(set(changed_ids())) == 3


def test_counts_that_chance_explains() -> None:
    """One of 1,000 has the probability 1 - 0.999^2 = 0.002 in 2 nights, and two of 2 10^-6."""
    assert explained(0, 2, 0.001) and explained(1, 2, 0.001) and not explained(2, 2, 0.001)


def test_simulated_nights_miss_as_many_as_stated() -> None:
    noticed, false, missed = alarm_rates(np.random.default_rng(1), 40, 7, 20)
    assert noticed == pytest.approx(0.62, abs=0.05) and false == 0 and missed <= 10


async def test_judge_at_random_prefers_one_text_in_both_orders() -> None:
    """So that no order disagrees, and known answers alone give it away."""
    judge, wins = week.random_judge(), 0
    for number in range(20):
        texts = f"one {number}", f"two {number}"
        said = [
            await judge.score(
                (Message("user", f"(A) [[[{a}]]]\n(B) [[[{b}]]]"),), ("A", "B"), request_id=a
            )
            for a, b in (texts, texts[::-1])
        ]
        first, swapped = ((each.logprobs[0] or 0) > (each.logprobs[1] or 0) for each in said)
        assert first is not swapped
        wins += first
    assert 4 <= wins <= 16


def test_week_has_seven_versions_and_every_accident(tmp_path: Path) -> None:
    """Of ten calls, one is refused, one is killed and one has nothing to do."""
    steps = range(len(week.WEEK))
    (tmp_path / "model").mkdir()
    recipes = [week.write_night(tmp_path, step, 8).read_text() for step in steps]
    assert len(recipes) - len({week.BAD_JUDGE, week.KILLED, week.IDLE}) == 7
    assert ["random_judge" in recipe for recipe in recipes].count(True) == 1
    assert load_config(tmp_path / "recipe.yaml").preference.audit.enabled
    assert len((tmp_path / "prompts.jsonl").read_text().splitlines()) == 8 * 8
    new = load_constitution(tmp_path / "constitution.yaml")
    change = diff_constitutions(load_constitution(week.CONSTITUTION), new)
    assert {each.principle_id for each in change.reworded} == set(week.REWORDED)
