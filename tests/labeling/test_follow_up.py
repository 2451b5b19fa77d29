"""Follow-up likelihood: requests, reward, neutral control, and exactness on real vLLM."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.engines import VllmConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines import ScriptedEngine
from pipeline.engines.vllm.engine import open_vllm
from pipeline.errors import EngineError
from pipeline.labeling.comparisons import Compared
from pipeline.labeling.follow_up import FollowUpStage
from pipeline.labeling.follow_up_sets import (
    FollowUpCategory,
    FollowUpSet,
    category_values,
    load_follow_ups,
)
from pipeline.records import ScoreRow
from pipeline.stages.base import Stage
from pipeline.store.stage_names import SAMPLES
from pipeline.types import Messages, assistant, user
from tests.engines.cached_tokens import CachedTokens
from tests.engines.reference import Reference
from tests.stages.builders import make_engine, numbered_reply, rows, run_chain, sample

POCKET = PROJECT_ROOT / "models" / "pocket"
TOY = FollowUpSet(
    name="toy",
    categories=(
        FollowUpCategory(id="one", positive=("good one", "fine"), negative=("bad",)),
        FollowUpCategory(id="two", positive=("yes",), negative=("no no no",)),
    ),
)
PLEASED = {"good one", "fine", "yes"}

SAMPLED = Compared("samples", samples=SAMPLES)


def per_token(messages: Messages) -> float:
    """L in a toy world: pleased follow-ups are the likelier, the larger a response's last digit."""
    *_, reply, follow_up = messages
    digit = int(reply.content[-1]) if reply.content[-1].isdigit() else 5
    return -3.0 + (digit / 10 if follow_up.content in PLEASED else -digit / 10)


def listener(failure: Callable[[Any], Exception | None] | None = None) -> ScriptedEngine:
    """A model with that table; words are tokens."""

    def score(messages: Messages) -> tuple[float, int]:
        num_tokens = len(messages[-1].content.split())
        return per_token(messages) * num_tokens, num_tokens

    return ScriptedEngine(numbered_reply, score_replies=score, failure=failure)


def stage(engine: ScriptedEngine, **changes: Any) -> FollowUpStage:
    """Scores two samples per prompt."""
    values: dict[str, Any] = {"follow_ups": TOY, "run_id": "r", "compared": SAMPLED}
    return FollowUpStage(engine=engine, **(values | changes))


async def scored(
    root: Path, made: FollowUpStage, prompts: int = 6, **options: Any
) -> list[ScoreRow]:
    """Scores of the samples of a few prompts."""
    samples = sample(make_engine(), num_samples=options.pop("num_samples", 2))
    states = await run_chain(root, [samples, made], prompts, **options)
    return rows(root, states, "preference/score")


async def test_follow_up_is_the_next_user_turn(tmp_path: Path) -> None:
    engine = listener()
    await scored(tmp_path, stage(engine), prompts=1)
    assert {call.kind for call in engine.calls} == {"score_reply"}
    assert [tuple(m.role for m in call.messages) for call in engine.calls] == [
        ("user", "assistant", "user")
    ] * 10
    asked = [
        call.messages[-1].content
        for call in engine.calls
        if call.request_id.startswith(engine.calls[0].request_id.partition(":")[0])
    ]
    assert asked == list(TOY.sentences)


async def test_score_is_the_mean_over_categories(tmp_path: Path) -> None:
    """Each L is -3 plus or minus d / 10, so each category and their mean is 2 d / 10."""
    engine = listener()
    found = await scored(tmp_path, stage(engine))
    texts = {call.messages[1].content for call in engine.calls}
    for row in found:
        assert (row.status, row.method, row.parts) == ("ok", "follow_up", ("one", "two"))
        assert row.values == pytest.approx((row.score, row.score)) and len(row.details) == 5
        assert any(row.score == pytest.approx(0.2 * int(text[-1])) for text in texts)
        positive, negative = row.details[0], row.details[2]
        assert positive + negative == pytest.approx(-6.0)


async def test_neutral_values_are_asked_once_per_prompt(tmp_path: Path) -> None:
    """4 responses of each of 3 prompts: 5 follow-ups after each response and 5 more per prompt."""
    engine = listener()
    found = await scored(tmp_path, stage(engine, neutral_reply="Okay."), prompts=3, num_samples=4)
    neutral = [call for call in engine.calls if call.messages[1].content == "Okay."]
    assert len(neutral) == 3 * 5 and len(engine.calls) == 3 * 5 + 12 * 5
    assert all(len(row.details) == 10 for row in found)


async def test_neutral_reply_moves_scores_and_no_difference(tmp_path: Path) -> None:
    plain = await scored(tmp_path / "plain", stage(listener()))
    control = await scored(tmp_path / "control", stage(listener(), neutral_reply="Okay."))
    shifts = {round(a.score - b.score, 9) for a, b in zip(plain, control, strict=True)}  # type: ignore[operator]
    assert shifts == {1.0}  # The neutral reply counts as a 5: 2 * 5 / 10.
    assert not {row.row_id for row in plain} & {row.row_id for row in control}


async def test_failed_neutral_call_is_tried_again(tmp_path: Path) -> None:
    """The first neutral call fails: the row that asked is retried, the others do not wait."""
    failed: list[str] = []

    def failure(call: Any) -> Exception | None:
        if call.messages[1].content == "Okay." and not failed:
            failed.append(call.request_id)
            return EngineError("down")
        return None

    found = await scored(tmp_path, stage(listener(failure), neutral_reply="Okay."), prompts=2)
    assert failed and {row.status for row in found} == {"ok"}


async def test_resumed_rows_equal_undisturbed_ones(tmp_path: Path) -> None:
    """One response's calls fail for good; the second run asks for that row and its prompt's
    neutral.
    """

    def failure(call: Any) -> Exception | None:
        return EngineError("down") if call.messages[1].content[-1] in "13579" else None

    chain: list[Stage] = [sample(make_engine()), stage(listener(), neutral_reply="Okay.")]
    whole = rows(tmp_path / "a", await run_chain(tmp_path / "a", chain, 4), "preference/score")
    broken: list[Stage] = [sample(make_engine()), stage(listener(failure), neutral_reply="Okay.")]
    half = rows(
        tmp_path / "b",
        await run_chain(tmp_path / "b", broken, 4, max_failed_share=1.0, retries=0),
        "preference/score",
    )
    assert {row.status for row in half} == {"ok", "failed"}
    engine = listener()
    again: list[Stage] = [sample(make_engine()), stage(engine, neutral_reply="Okay.")]
    assert (
        rows(tmp_path / "b", await run_chain(tmp_path / "b", again, 4), "preference/score") == whole
    )
    num_failed = [row.status for row in half].count("failed")
    prompts = {row.prompt_id for row in half if row.status == "failed"}
    assert len(engine.calls) == 5 * (num_failed + len(prompts))


async def test_unreadable_likelihood_is_unparsed(tmp_path: Path) -> None:
    engine = ScriptedEngine(numbered_reply, score_replies=lambda messages: (-math.inf, 3))
    empty = ScriptedEngine(numbered_reply, score_replies=lambda messages: (0.0, 0))
    for number, (broken, reason) in enumerate(((engine, "not a finite"), (empty, "no tokens"))):
        found = await scored(tmp_path / str(number), stage(broken), prompts=1)
        assert {row.status for row in found} == {"unparsed"} and reason in found[0].reason


async def test_dropped_response_is_not_scored(tmp_path: Path) -> None:
    engine = listener()
    states = await run_chain(
        tmp_path,
        [sample(make_engine(failure=lambda call: EngineError("down"))), stage(engine)],
        1,
        max_failed_share=1.0,
        retries=0,
    )
    assert {row.reason for row in rows(tmp_path, states, "preference/score")} == {
        "the response is failed"
    }
    assert not engine.calls


@pytest.mark.slow
async def test_vllm_gives_exact_values_from_its_prefix_cache(tmp_path: Path) -> None:
    """The pocket model through vLLM, whose cache serves all follow-ups but the first of a response,
    against transformers, which computes each conversation in full; only the follow-up counts.
    """
    follow_ups = load_follow_ups(PROJECT_ROOT / "prompts" / "follow_ups" / "pocket.yaml")
    follow_ups = follow_ups.model_copy(update={"categories": follow_ups.categories[:2]})
    conversation = (user("How do I bake bread? " * 6),)
    replies = (
        "Mix flour and water, knead, wait and bake it. " * 3,
        "I do not care, you fool. " * 3,
    )
    reference = Reference(POCKET)
    config = VllmConfig(type="vllm", model=str(POCKET), device="cpu", kv_cache_gib=0.25)
    counter = CachedTokens()
    engine = await open_vllm(config, counter.watch)
    try:
        made = FollowUpStage(engine, follow_ups, Compared("samples"), "r")
        for reply in replies:
            before = counter.total
            found = await made.likelihoods(conversation, reply, "id")
            expected = []
            for sentence in follow_ups.sentences:
                messages = (*conversation, assistant(reply), user(sentence))
                expected.append(reference.reply_logprob(messages) / len(reference.ids(sentence)))
            assert found == pytest.approx(expected, abs=1e-3)
            assert category_values(follow_ups, found) == pytest.approx(
                category_values(follow_ups, expected), abs=1e-3
            )
            # All calls but the first find whole blocks of conversation and reply.
            cached = counter.total - before
            assert cached >= (len(follow_ups.sentences) - 1) * 64
            # Asked again, even the follow-ups are in the cache, and must be computed all the same.
            assert await made.likelihoods(conversation, reply, "again") == pytest.approx(
                found, abs=1e-4
            )
    finally:
        await engine.close()
