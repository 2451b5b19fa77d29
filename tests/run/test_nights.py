"""Nights side by side, and the alarm of a judge that got worse."""

import asyncio
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data.dataset import load_dataset
from pipeline.data.verify import verify
from pipeline.errors import AuditError
from pipeline.run.asked import nearly_asked
from pipeline.run.context import open_context
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly, take_run
from pipeline.run.nights import Known, alarm_count, detected_share, judge_alarm, lower_tail
from pipeline.run.phases import preference_chain
from pipeline.run.start import work_in
from pipeline.store import RunDir
from tests.audits import bad_judges
from tests.sources.builders import write_lines
from tests.stages.builders import prompt


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
    assert raised and line.startswith("ALARM") and "a drop to 2 %" in line
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


def test_near_duplicates_of_earlier_prompts_alone() -> None:
    """10 words are 8 runs of three. Another last word leaves 7 of them, of 9 in both: 0.78."""
    words = "how do I mend a dripping tap in my"
    old, new = prompt(f"{words} kitchen"), [prompt(f"{words} bathroom"), prompt(f"{words} house")]
    assert nearly_asked(new, [old], 0.77) == {row.row_id for row in new}
    assert nearly_asked(new, [old], 0.78) == set()
    shout, other, emoji = prompt("HOW do I mend?!"), prompt("Why do I mend?"), prompt("👍")
    earlier = [prompt("How do I mend"), prompt("🎉")]
    assert nearly_asked([shout, other, emoji], earlier, 1.0) == {shout.row_id}


async def killed(run: RunDir) -> None:
    """A process that ends once its labels are made, and before they are a data set."""
    with work_in(run):
        await preference_chain(open_context(run))
        raise KeyboardInterrupt


def test_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven versions: an edited principle, a judge that its audit stops, a night that is killed.
    And one night has nothing to do.
    """
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = bad_judges.recipe(tmp_path, "honest")
    values: Any = yaml.safe_load(recipe.read_text())
    values |= {name: {"enabled": False} for name in ("supervised", "evaluation")}
    values |= {"nightly": {"near_duplicates": 0.8}}
    values["preference"]["audit"]["min_rows"] = 10

    def night(num_prompts: int, judge: str = "honest", take: Any = take_run, more: str = "") -> str:
        texts = [f"train question {i}?" for i in range(num_prompts)] + [more] * bool(more)
        lines = (
            {"prompt": text, "tags": ["late" if i > 15 else "early"]}
            for i, text in enumerate(texts)
        )
        write_lines(tmp_path / "train.jsonl", *lines)
        values["policy"]["args"]["judge"] = judge
        recipe.write_text(yaml.safe_dump(values))
        return asyncio.run(run_nightly(plan_nightly(str(recipe)), take))

    assert "8 new prompts go into version 1" in night(8)
    assert "2 new prompts go into version 2" in night(10)
    constitution: Any = yaml.safe_load((tmp_path / "constitution.yaml").read_text())
    constitution["principles"][0]["comparison_request"] = "Which is kinder?"
    (tmp_path / "constitution.yaml").write_text(yaml.safe_dump(constitution))
    assert "2 new prompts go into version 3" in night(12)
    with pytest.raises(AuditError, match="known"):
        night(14, "inverted")
    with pytest.raises(AuditError, match="last night, run small-nightly"):
        night(15, "inverted")
    assert "4 new prompts go into version 4" in night(16)
    with pytest.raises(KeyboardInterrupt):
        night(30, take=killed)
    assert night(31).startswith("continues small-nightly")
    left_out = "left out: 1 near-duplicate of earlier prompts"
    message = night(31, more="Train question 0!")
    assert message.startswith("1 new prompt ") and left_out in message
    assert "1 new prompt goes into version 7" in night(32)
    assert night(32, more="Train question 0!").startswith("nothing to do: every prompt")

    nights = nightly_runs("small")
    versions = [dataset.version if (dataset := load_dataset(run)) else 0 for run in nights]
    assert versions == [1, 2, 3, 4, 5, 6, 7]
    pages = [(run.root / "night.md").read_text() for run in nights]
    assert "reworded p-0, comparison_request" in pages[2] and left_out in pages[5]
    assert f"Against {nights[1].run_id}" in pages[2] and "| Preference pairs kept |" in pages[2]
    assert "](../" + nights[1].run_id + "/night.md)" in pages[2] and "Against" not in pages[0]
    assert re.search(r"\| tag late \| 0 of 4 \| 14 of 14 \| yes \|", pages[4])
    assert "| Audit, known of preference/judge | 1.000 | 1.000 |" in pages[6]
    assert all("ALARM" not in page and "known answers" in page for page in pages)
    series = (tmp_path / "outputs/nights/small.html").read_text()
    assert all(f'href="../runs/{run.run_id}/night.md"' in series for run in nights)
    titles = set(re.findall('aria-label="([^"]+)"', series))
    assert {"Pairs of the version", "Labels of earlier nights made again"} <= titles
    assert '<td class="word">Known answers found, share</td><td>1.000</td>' in series
    assert "| p-0 | reworded |" in pages[2] and "Earlier nights" not in pages[3]
    assert not any(verify(run) for run in nights)
