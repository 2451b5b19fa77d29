"""Nights side by side, and the alarm of a judge that got worse."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data.verify import verify
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly
from pipeline.run.nights import Known, alarm_count, detected_share, judge_alarm, lower_tail
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines

QUIET = {"audit": {"enabled": False}, "sample": {"num_samples": 2}}


def test_binomial_tail() -> None:
    """Of 3 tosses at most 1 head: 1/8 + 3/8."""
    assert lower_tail(1, 3, 0.5) == 0.5
    assert lower_tail(-1, 3, 0.5) == 0


def test_alarm_and_its_power() -> None:
    """With 10 answers and half of very many before, 0 right has 1/1024 < 0.001 and 1 right 11/1024:
    the alarm is at 0. It comes with probability (1 - s)^10 >= 0.8 for s <= 0.022: 2 %.
    """
    half = Known(50_000, 100_000)
    assert alarm_count(half, 10) == 0 and detected_share(half, 10) == 0.02
    assert alarm_count(half, 5) == -1 and detected_share(half, 5) is None
    raised, line = judge_alarm(half, Known(0, 10))
    assert raised and line.startswith("ALARM") and "a drop to 2%" in line
    assert not judge_alarm(half, Known(1, 10))[0]
    assert "no drop" in judge_alarm(Known(5, 10), Known(0, 5))[1]
    assert judge_alarm(Known(0, 0), Known(0, 5))[0] is False


def test_a_short_past_raises_no_alarm_by_itself() -> None:
    """3 of 3 before and 0 of 6 tonight: 1 of the C(9, 3) = 84 ways to place 3 right answers. And a
    lucky first night of 10 says little about the next hundred answers.
    """
    assert not judge_alarm(Known(3, 3), Known(0, 6))[0]
    draw = random.Random(5)

    def night(asked: int) -> Known:
        return Known(sum(draw.random() < 0.9 for _ in range(asked)), asked)

    alarms = sum(judge_alarm(night(10), night(100))[0] for _ in range(300))
    assert alarms <= 3  # at most 0.3 are expected; P(more than 3) is below 0.001


def test_false_alarms_and_missed_drifts_over_a_thousand_nights() -> None:
    """100 answers a night at 0.9 before: at most 1 in 1,000 nights is a false alarm, and a drop to
    the stated share is missed in at most 20 % of the nights.
    """
    draw = random.Random(7)
    before = Known(9000, 10_000)
    most, least = alarm_count(before, 100), detected_share(before, 100)
    assert least is not None and 0.7 < least < 0.85

    def alarms(share: float) -> int:
        nights = (sum(draw.random() < share for _ in range(100)) for _ in range(1000))
        return sum(right <= most for right in nights)

    assert judge_alarm(before, Known(75, 100))[0]
    assert alarms(0.9) <= 4  # 1 is expected; P(more than 4) is 0.004
    assert alarms(least) >= 760  # 800 at least are expected, with a deviation of 13


def test_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first night, one with new prompts and an edited principle, and one with nothing to do."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = write_recipe(tmp_path, prompts=4, heldout=1, preference=QUIET)

    def night() -> str:
        return asyncio.run(run_nightly(plan_nightly(str(recipe))))

    assert "4 new prompts" in night()
    constitution: Any = yaml.safe_load((tmp_path / "constitution.yaml").read_text())
    constitution["principles"][0]["comparison_request"] = "Which is kinder?"
    (tmp_path / "constitution.yaml").write_text(yaml.safe_dump(constitution))
    write_lines(tmp_path / "train.jsonl", *({"prompt": f"train question {i}?"} for i in range(6)))
    assert "2 new prompts" in night()
    assert "nothing to do" in night()
    first, second = nightly_runs("small")
    page = (second.root / "night.md").read_text()
    assert f"Against {first.run_id}" in page and "reworded p-0, comparison_request" in page
    assert "| Preference pairs kept |" in page and "no known answers" in page
    series = (tmp_path / "outputs/nights/small.md").read_text()
    assert f"| {first.run_id} | 1 |" in series and f"| {second.run_id} | 2 |" in series
    assert verify(second) == [] and verify(first) == []
