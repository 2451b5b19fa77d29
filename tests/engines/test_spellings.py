"""Exact engines see a verdict in another spelling as well, by the rule that endpoints follow.

Both engines run on a made-up vocabulary: token 65 is 'A', 66 is 'B', others are texts of a case.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.engines import open_engine
from pipeline.engines.base import NOTICE, Identity
from pipeline.engines.openai.question import ask_endpoint
from pipeline.engines.spellings import forms_may_matter
from pipeline.engines.vllm.engine import VllmEngine
from pipeline.errors import ConfigError, VerdictError
from pipeline.soft_labels import prob_slot_a
from pipeline.types import OptionScores, user
from tests.engines.fake_endpoint import Answer, chat_reply, fake_endpoint

QUESTION = (user("A or B?"),)
Vocabulary = dict[str, float]
"""Probability of each first token, by its text."""


def text_of(token_id: int, words: Vocabulary) -> str:
    return chr(token_id) if token_id < 1000 else list(words)[token_id - 1000]


def id_of(text: str, words: Vocabulary) -> int:
    return ord(text) if text in ("A", "B") else 1000 + list(words).index(text)


def ranked(words: Vocabulary, count: int) -> dict[int, float]:
    top = sorted(words, key=lambda text: words[text], reverse=True)[:count]
    return {id_of(text, words): math.log(words[text]) for text in top}


def all_listed(words: Vocabulary, wanted: list[int] | None, count: int) -> dict[int, float]:
    """What vLLM lists: the tokens that were asked for and the most probable one, or the top."""
    if wanted is None:
        return ranked(words, count)
    logprobs = {id_of(text, words): math.log(p) for text, p in words.items()}
    return ranked(words, 1) | {i: logprobs.get(i, -50.0) for i in wanted}


class Renderer:
    """Prompts and options of the made-up vocabulary."""

    end_of_turn_ids = ()

    def __init__(self, words: Vocabulary) -> None:
        self.words = words

    def prompt(self, messages: Any, reply_prefix: str = "") -> Any:
        return SimpleNamespace(token_ids=[1, 2])

    def option_ids(self, prompt: Any, options: Any) -> Any:
        return tuple((ord(option),) for option in options)

    def decode_after(self, before: int, token_id: int) -> str:
        return text_of(token_id, self.words)


class Backend:
    """Answers log-probabilities as vLLM does."""

    version, max_context, num_blocks, block_size = "made up", 512, 100, 16

    def __init__(self, words: Vocabulary) -> None:
        self.words = words

    async def run(self, request_id: str, token_ids: list[int], params: Any) -> Any:
        listed = all_listed(self.words, params.logprob_token_ids, params.logprobs or 0)
        first = {i: SimpleNamespace(logprob=lp) for i, lp in listed.items()}
        return SimpleNamespace(outputs=[SimpleNamespace(logprobs=[first])], num_cached_tokens=0)

    async def close(self) -> None:
        """Nothing to close."""


async def by_vllm(words: Vocabulary) -> OptionScores:
    renderer: Any = Renderer(words)
    engine = VllmEngine(Backend(words), renderer, Identity("made up", "f"))
    return await engine.score(QUESTION, ["A", "B"], request_id="s")


def server_pages(words: Vocabulary, most: int = 20, *, old: bool = False) -> dict[str, Any]:
    """The pages of a vLLM server that gives up to `most` log-probabilities."""

    def tokenize(body: dict[str, Any]) -> Answer:
        last = body["messages"][-1]
        option = [ord(last["content"])] if last["role"] == "assistant" else []
        return 200, {"tokens": [1, 2, *option]}

    def complete(body: dict[str, Any]) -> Answer:
        if body["logprobs"] > most:
            return 400, {"error": {"message": f"Requested logprobs, max allowed: {most}"}}
        wanted = None if old else body.get("logprob_token_ids")
        listed = all_listed(words, wanted, body["logprobs"])
        named = {f"token_id:{i}": lp for i, lp in listed.items()}
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        return 200, {"choices": [{**choice, "logprobs": {"top_logprobs": [named]}}]}

    def detokenize(body: dict[str, Any]) -> Answer:
        return 200, {"prompt": "".join(text_of(i, words) for i in body["tokens"])}

    return {
        "/version": lambda body: (200, {"version": "0.9.0"}),
        "/tokenize": tokenize,
        "/detokenize": detokenize,
        "/v1/completions": complete,
        "/v1/chat/completions": lambda body: (200, chat_reply()),
    }


async def by_server(words: Vocabulary) -> OptionScores:
    return await by_pages(server_pages(words))


async def by_chat(words: Vocabulary) -> OptionScores:
    """A server that also tells the log-probabilities of given tokens in a chat."""

    def chat(body: dict[str, Any]) -> Answer:
        listed = all_listed(words, body["logprob_token_ids"], 0)
        named = {f"token_id:{i}": lp for i, lp in listed.items()}
        return 200, chat_reply(top=named) | {"prompt_token_ids": [1, 2]}

    return await by_pages(server_pages(words) | {"/v1/chat/completions": chat})


async def by_pages(pages: dict[str, Any]) -> OptionScores:
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        config = OpenAIConfig(type="openai", base_url=endpoint.base_url, model="m")
        async with open_engine(config) as engine:
            return await engine.score(QUESTION, ["A", "B"], request_id="s")


ENGINES = {"vllm": by_vllm, "server": by_server, "chat": by_chat}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "other",
    ["b", " B", "(B", "**B**", '"B', "\uff22", "\nB", "'b'", "B.", "**", " ", "<think>", "So"],
)
async def test_what_is_left_of_the_probability_never_decides(engine: str, other: str) -> None:
    """0.85 say B in another form, or nothing yet; the 0.10 of the letters would say A."""
    scores = await ENGINES[engine]({other: 0.85, "A": 0.07, "B": 0.03, "x": 0.05})
    assert scores.logprobs == pytest.approx((math.log(0.07), math.log(0.03)))
    with pytest.raises(VerdictError, match=r"the model writes .* with probability 0.85"):
        prob_slot_a(scores)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_large_minority_in_another_case_is_unreadable(engine: str) -> None:
    scores = await ENGINES[engine]({"b": 0.44, "A": 0.35, "B": 0.20, "a": 0.01})
    assert "the model writes 'b' with probability 0.44" in scores.unreadable


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("words", "num_calls"),
    [
        ({"A": 0.66, "B": 0.33, " A": 0.01}, 1),  # nothing that could matter: no second call
        ({"A": 0.6, "B": 0.2, "Both": 0.12, "As": 0.08}, 2),
        ({"A": 0.5, "B": 0.4, "b": 0.02, "It": 0.08}, 2),
    ],
)
async def test_a_verdict_as_it_was_asked_for_is_read(
    engine: str, words: Vocabulary, num_calls: int
) -> None:
    scores = await ENGINES[engine](words)
    assert (scores.unreadable, scores.num_calls) == ("", num_calls)
    assert prob_slot_a(scores).prob_a == pytest.approx(words["A"] / (words["A"] + words["B"]))


async def test_a_server_that_lists_few_tokens_is_asked_for_fewer() -> None:
    """At once from the second verdict on; the version, which manifests have, says how many."""
    lines: list[str] = []
    NOTICE.set(lines.append)
    words = {"b": 0.85, "A": 0.07, "B": 0.03}
    with fake_endpoint(lambda number, body: (500, {}), server_pages(words, 5)) as endpoint:
        config = OpenAIConfig(type="openai", base_url=endpoint.base_url, model="m")
        async with open_engine(config) as engine:
            for _ in range(2):
                scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
                assert scores.unreadable
            assert engine.version == "vllm 0.9.0 (endpoint), 5 first tokens"
    assert len(lines) == 1 and "lists the 5 most probable first tokens, not 20: other" in lines[0]


def without_logprobs(body: dict[str, Any]) -> Answer:
    return 200, {"choices": [{"index": 0, "text": "", "finish_reason": "length", "logprobs": None}]}


UNFIT: dict[str, Any] = {
    "old": {},
    "no log-probabilities": {"/v1/completions": without_logprobs},
    "field refused": {
        "/v1/completions": lambda body: (422, {"detail": [{"loc": ["logprob_token_ids"]}]})
    },
    "none allowed": {
        "/v1/completions": lambda body: (400, {"error": {"message": "logprobs, max allowed: 0"}})
    },
    "no token ids": {
        "/v1/completions": lambda body: (400, {"error": {"message": "prompt must be a string"}})
    },
    "no /tokenize": {"/tokenize": lambda body: (404, {"detail": "Not Found"})},
}


@pytest.mark.parametrize("question", ["check", "first verdict"])
@pytest.mark.parametrize("kind", UNFIT)
async def test_a_server_without_exact_scores_is_named(kind: str, question: str) -> None:
    pages = server_pages({"So": 0.9, "A": 0.05, "B": 0.05}, old=kind == "old") | UNFIT[kind]
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        config = OpenAIConfig(type="openai", base_url=endpoint.base_url, model="m")
        with pytest.raises(ConfigError, match=r"\(vLLM 0.9.0\) does not answer .*`flavor: openai`"):
            if question == "check":
                await ask_endpoint(config, "options")
            else:
                async with open_engine(config) as engine:
                    await engine.score(QUESTION, ["A", "B"], request_id="s")


async def test_a_check_also_asks_for_what_a_doubtful_verdict_needs() -> None:
    pages = server_pages({"A": 0.6, "B": 0.4})
    config = {"type": "openai", "model": "m"}
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        settings = OpenAIConfig.model_validate(config | {"base_url": endpoint.base_url})
        assert "exact log-probabilities" in await ask_endpoint(settings, "options")
    pages["/detokenize"] = lambda body: (404, {"detail": "Not Found"})
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        settings = OpenAIConfig.model_validate(config | {"base_url": endpoint.base_url})
        with pytest.raises(ConfigError, match=r"does not answer /detokenize, and .*newer vLLM"):
            await ask_endpoint(settings, "options")


def test_when_other_forms_may_matter() -> None:
    """0.05 of 0.96 is 0.048, and 0.04 are left; of 0.95, 0.0475 and 0.05."""
    assert [forms_may_matter(own) for own in (1.0, 0.96, 0.95, 0.1)] == [False, False, True, True]
