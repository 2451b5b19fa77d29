"""Rewards: their rows, labels by the formula of Bradley and Terry, and what cannot be read."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.engines import ScriptedConfig
from pipeline.config.labeling import PreferenceConfig, RewardModelConfig
from pipeline.engines import ScriptedEngine
from pipeline.errors import EngineError
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.from_scores import CompareScoresStage
from pipeline.labeling.reward_model import RewardStage, describe_rewards
from pipeline.records import JudgmentRow, ScoreRow
from pipeline.store.stage_names import SAMPLES
from pipeline.types import Messages
from tests.stages.builders import make_engine, numbered_reply, rows, run_chain, sample

SAMPLED = Compared("samples", samples=SAMPLES)


def last_digit(messages: Messages) -> float:
    """The last digit of the response."""
    return float(messages[-1].content[-1])


async def labeled(
    root: Path, rewards: Callable[[Messages], float], *, scale: float = 1.0, **options: Any
) -> tuple[list[ScoreRow], list[JudgmentRow]]:
    """Scores and labels of two samples for each of two prompts."""
    engine = ScriptedEngine(numbered_reply, rewards=rewards, **options)
    scores = RewardStage(engine, SAMPLED, "r")
    labels = CompareScoresStage(SAMPLED, scale, "reward_model", "r", scores.folder)
    states = await run_chain(
        root, [sample(make_engine()), scores, labels], 2, retries=0, max_failed_share=1.0
    )
    return rows(root, states, scores.folder), rows(root, states, labels.folder)


async def test_raw_score_is_in_the_row(tmp_path: Path) -> None:
    scores, _ = await labeled(tmp_path, lambda messages: -3.25)
    assert len(scores) == 4
    for row in scores:
        assert (row.method, row.score, row.details) == ("reward_model", -3.25, (-3.25,))
        assert not row.values and not row.parts and row.num_prompt_tokens > 0


async def test_label_is_the_formula_of_bradley_and_terry(tmp_path: Path) -> None:
    """Scores 1.5 and 0.5 at scale 2: (1.5 - 0.5) / 2 = 0.5 nats, 1 / (1 + e^-0.5) = 0.622459."""
    seen: dict[str, float] = {}

    def first_is_better(messages: Messages) -> float:
        return seen.setdefault(messages[-1].content, 1.5 - len(seen) % 2)

    scores, labels = await labeled(tmp_path, first_is_better, scale=2.0, max_concurrency=1)
    by_response = {row.response_id: row.score for row in scores}
    for row in labels:
        better = by_response[row.first_id] == 1.5
        assert row.prob_first == pytest.approx(0.622459 if better else 1 - 0.622459, abs=1e-6)
        assert row.num_verdicts == 1 and row.position_gap is None and row.principle_id == ""


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
async def test_score_that_is_no_number_is_never_a_label(tmp_path: Path, broken: float) -> None:
    scores, labels = await labeled(
        tmp_path, lambda messages: broken if last_digit(messages) > 5 else 1.0
    )
    unread = [row for row in scores if row.status == "unparsed"]
    assert unread and all(row.score is None and "not a score" in row.reason for row in unread)
    lost = {row.response_id for row in unread}
    for row in labels:
        touched = {row.first_id, row.second_id} & lost
        assert (row.status, row.prob_first) == (("unparsed", None) if touched else ("ok", 0.5))


async def test_conversation_that_does_not_fit_fails_with_its_reason(tmp_path: Path) -> None:
    scores, labels = await labeled(tmp_path, last_digit, max_context=1)
    assert {row.status for row in scores} == {"failed"}
    assert all("has a context of 1" in row.reason for row in scores)
    assert {row.status for row in labels} == {"dropped"}


async def test_lost_call_is_a_failed_row(tmp_path: Path) -> None:
    scores, _ = await labeled(tmp_path, last_digit, failure=lambda call: EngineError("gone"))
    assert {(row.status, row.score) for row in scores} == {("failed", None)}


def test_card_says_that_no_principle_was_shown() -> None:
    engine = ScriptedConfig(type="scripted", script="a.b:c")
    config = PreferenceConfig(
        labeler="reward_model", reward_model=RewardModelConfig(engine=engine, scale=1.5)
    )
    text = describe_rewards(config)
    assert "`a.b:c`" in text and "/ 1.5) (Bradley and Terry 1952)" in text
    assert "no principle was shown" in text
