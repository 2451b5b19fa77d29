"""One contract for every engine: in-process vLLM, a vLLM server over HTTP, and the scripted fake.

The expected scores come from transformers on the same token ids (`reference.py`).
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from pipeline.config.engines import EngineSection, OpenAIConfig, VllmConfig
from pipeline.engines import Engine, ScriptedEngine, open_engine
from pipeline.engines.spellings import forms_may_matter
from pipeline.errors import ConfigError, PromptTooLongError
from pipeline.types import Messages, SamplingParams, assistant, user
from tests.engines.reference import Reference
from tests.engines.server import vllm_server
from tests.engines.tiny_model import build_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="module")
POCKET = Path(__file__).resolve().parents[2] / "models" / "pocket"
QUESTION = (user("Which is better?"),)


@dataclass
class Case:
    """An engine and what it should answer."""

    engine: Engine
    reference: Reference | None

    def expected(self, messages: Messages, options: list[str], prefix: str = "") -> list[float]:
        """Log-probability of each option."""
        if self.reference is None:
            return scripted_scores(messages, options)
        return self.reference.option_logprobs(messages, options, prefix)


def scripted_scores(messages: Messages, options: Sequence[str]) -> list[float]:
    return [-float(len(messages[-1].content) + number) for number, _ in enumerate(options)]


def scripted_reply(messages: Messages, seed: int) -> str:
    return " ".join(f"w{(seed * 31 + n * 7) % 97}" for n in range(200))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def served_model(tiny_model: Path) -> Path:
    return POCKET if any(POCKET.glob("*.safetensors")) else tiny_model


@pytest.fixture(scope="module")
def base_url(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(served_model, "served", tmp_path_factory.mktemp("log") / "log") as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["scripted", "vllm", "openai"])
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    if request.param == "scripted":
        yield Case(ScriptedEngine(scripted_reply, scripted_scores, max_context=512), None)
        return
    config: EngineSection
    if request.param == "vllm":
        folder = request.getfixturevalue("tiny_model")
        config = VllmConfig(type="vllm", model=str(folder), device="cpu", kv_cache_gib=0.25)
    else:
        folder = request.getfixturevalue("served_model")
        url = request.getfixturevalue("base_url")
        config = OpenAIConfig(type="openai", base_url=url, model="served", max_concurrency=64)
    async with open_engine(config) as engine:
        yield Case(engine, Reference(folder))
    await engine.close()  # a second time: harmless


async def test_engine_satisfies_the_protocol(case: Case) -> None:
    assert isinstance(case.engine, Engine)
    assert case.engine.max_context >= 256 and case.engine.version
    assert len(case.engine.fingerprint) == 64


async def test_reply_stops_at_max_tokens(case: Case) -> None:
    sampling = SamplingParams(max_tokens=3)
    reply = await case.engine.generate(QUESTION, sampling, seed=5, request_id="r")
    assert (reply.num_tokens, reply.finish_reason) == (3, "length")


async def test_stop_string_ends_the_text(case: Case) -> None:
    whole = await case.engine.generate(
        QUESTION, SamplingParams(max_tokens=24, temperature=0), seed=1, request_id="r"
    )
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 3]
    cut = await case.engine.generate(
        QUESTION, SamplingParams(max_tokens=24, temperature=0, stop=(stop,)), seed=1, request_id="r"
    )
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"


async def test_same_seed_repeats_the_reply(case: Case) -> None:
    sampling = SamplingParams(max_tokens=24)
    first, again, other = [
        await case.engine.generate(QUESTION, sampling, seed=seed, request_id="r")
        for seed in (2**40 + 7, 2**40 + 7, 8)
    ]
    assert first.text == again.text != other.text


@pytest.mark.parametrize(
    "options",
    [
        ["A", "B"],
        [" (A)", " (B)"],  # the first tokens are the same: a first-token score would say 0.5
        ["Yes, it is better.", "No.", "They are the same"],
    ],
)
async def test_scores_equal_transformers(case: Case, options: list[str]) -> None:
    scores = await case.engine.score(QUESTION, options, request_id="s")
    assert scores.exact
    assert scores.logprobs == pytest.approx(case.expected(QUESTION, options), abs=1e-3)


async def test_reply_prefix_is_given_not_scored(case: Case) -> None:
    scores = await case.engine.score(QUESTION, ["A)", "B)"], request_id="s", reply_prefix=" (")
    expected = case.expected(QUESTION, ["A)", "B)"], " (")
    assert scores.logprobs == pytest.approx(expected, abs=1e-3)


async def test_reply_counts_for_its_longest_option(case: Case) -> None:
    """'10' is two tokens here: what goes on to it is taken off '1', and nothing else changes."""
    ratings = [str(number) for number in range(1, 11)]
    scores = await case.engine.score(QUESTION, ratings, request_id="s")
    expected = case.expected(QUESTION, ratings)
    if case.reference is not None:
        assert len(case.reference.ids("10")) == 2
        expected[0] = math.log(math.exp(expected[0]) - math.exp(expected[9]))
        own = sum(math.exp(value) for value in expected)
        assert scores.num_calls == 2 + forms_may_matter(own)
    assert scores.logprobs == pytest.approx(expected, abs=1e-3)


async def test_same_option_twice_is_refused(case: Case) -> None:
    with pytest.raises(ConfigError, match="no score can tell them apart"):
        await case.engine.score(QUESTION, ["Yes", "Yes"], request_id="s")


async def test_last_message_is_scored_alone(case: Case) -> None:
    for last in (assistant("fine thanks"), user("that is no help")):
        messages = (*QUESTION, last)
        total, num_tokens = await case.engine.score_reply(messages, request_id="s")
        if case.reference is not None:
            assert total == pytest.approx(case.reference.reply_logprob(messages), abs=1e-3)
            assert num_tokens == len(case.reference.ids(last.content))


async def test_prefix_cache_changes_no_score(case: Case) -> None:
    """A shared conversation is found in the cache; a repeated one is, follow-up and all."""
    start = (user("Which is better? " * 8), assistant("The first one, I would say. " * 4))
    for text in ("that is no help", "that is a great help", "that is no help"):
        messages = (*start, user(text))
        total, num_tokens = await case.engine.score_reply(messages, request_id="s")
        if case.reference is not None:
            assert total == pytest.approx(case.reference.reply_logprob(messages), abs=1e-3)
            assert num_tokens == len(case.reference.ids(text))


async def test_long_prompt_costs_neighbors_nothing(case: Case) -> None:
    sampling = SamplingParams(max_tokens=4)
    too_long = (user("word " * (case.engine.max_context + 1)),)
    results = await asyncio.gather(
        *(
            case.engine.generate(too_long if n == 2 else QUESTION, sampling, seed=n, request_id="r")
            for n in range(5)
        ),
        return_exceptions=True,
    )
    assert isinstance(results[2], PromptTooLongError)
    assert [getattr(r, "num_tokens", 0) for n, r in enumerate(results) if n != 2] == [4] * 4
    with pytest.raises(PromptTooLongError):
        await case.engine.score(too_long, ["A", "B"], request_id="s")


async def test_200_calls_get_their_own_answer(case: Case) -> None:
    """Each prompt has its own score, so an answer that reached the wrong caller would show."""
    prompts = {f"id-{n}": (user("x" * n + " Which is better?"),) for n in range(200)}

    async def ask(key: str) -> tuple[str, tuple[float | None, ...]]:
        return key, (await case.engine.score(prompts[key], ["A", "B"], request_id=key)).logprobs

    answers = dict(await asyncio.gather(*(ask(key) for key in prompts)))
    assert len(answers) == 200
    for key in list(prompts)[::20]:
        assert answers[key] == pytest.approx(case.expected(prompts[key], ["A", "B"]), abs=1e-3)
