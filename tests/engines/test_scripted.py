"""The public fake: what it records, and what it can play."""

import asyncio

import pytest

from pipeline.engines import ScriptedEngine
from pipeline.errors import ConfigError, EngineError
from pipeline.types import SamplingParams, user

QUESTION = (user("is it polite"),)


async def test_calls_are_recorded() -> None:
    engine = ScriptedEngine(lambda messages: "yes", lambda messages, options: [-1.0, -2.0])
    await engine.generate(QUESTION, SamplingParams(), seed=3, request_id="g")
    await engine.score(QUESTION, ["A", "B"], request_id="s", reply_prefix="(")
    generate, score = engine.calls
    assert (generate.kind, generate.request_id, generate.seed) == ("generate", "g", 3)
    assert (score.kind, score.options, score.reply_prefix) == ("score", ("A", "B"), "(")


async def test_concurrency_limit_is_kept() -> None:
    engine = ScriptedEngine(lambda messages: "yes", latency_s=0.001, max_concurrency=3)
    await asyncio.gather(
        *(engine.generate(QUESTION, SamplingParams(), seed=n, request_id=str(n)) for n in range(12))
    )
    assert engine.most_in_flight == 3


async def test_failures_are_played() -> None:
    engine = ScriptedEngine(
        lambda messages: "yes",
        failure=lambda call: EngineError("busy") if call.request_id == "1" else None,
    )
    results = await asyncio.gather(
        *(engine.generate(QUESTION, SamplingParams(), seed=0, request_id=str(n)) for n in range(3)),
        return_exceptions=True,
    )
    assert [isinstance(r, EngineError) for r in results] == [False, True, False]


async def test_absent_option_has_a_bound() -> None:
    engine = ScriptedEngine(lambda messages: "", lambda messages, options: [-0.5, None])
    scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
    assert scores.logprobs == (-0.5, None) and scores.upper_bound == -0.5 and not scores.exact


async def test_scores_must_match_options() -> None:
    engine = ScriptedEngine(lambda messages: "", lambda messages, options: [-0.5])
    with pytest.raises(ConfigError, match="returned 1 values for 2 options"):
        await engine.score(QUESTION, ["A", "B"], request_id="s")
    with pytest.raises(ConfigError, match="has no function for scores"):
        await ScriptedEngine(lambda messages: "").score(QUESTION, ["A", "B"], request_id="s")
