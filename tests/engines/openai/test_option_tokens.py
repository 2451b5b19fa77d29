"""Options are tokenized once for a template, and for each prompt only where that would be wrong.

A score is one request where the server tells the tokens of a chat and their log-probabilities.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.engines import open_engine
from pipeline.types import user
from tests.engines.fake_endpoint import Answer, chat_reply, fake_endpoint

NUM_PROMPTS = 12
MADE_UP = 9
"""Requests for what the template writes: three prompts, each alone and with both options."""


def plain(content: str, option: str) -> list[int]:
    """One token for each character of an option."""
    return [ord(character) for character in option]


def merging(content: str, option: str) -> list[int]:
    """After a digit, an option is another token."""
    return [ord(character) + 1000 * content[-1].isdigit() for character in option]


def chat_of_today(prompt: list[int], body: dict[str, Any]) -> Answer:
    """What a chat completion of vLLM 0.32 answers."""
    wanted = {f"token_id:{i}": math.log(0.5) for i in body["logprob_token_ids"]}
    return 200, chat_reply(top=wanted) | {"prompt_token_ids": prompt}


def without_tokens(prompt: list[int], body: dict[str, Any]) -> Answer:
    """One that knows the options' tokens and not those of the prompt."""
    return 200, {k: v for k, v in chat_of_today(prompt, body)[1].items() if "prompt" not in k}


def another_ending(prompt: list[int], body: dict[str, Any]) -> Answer:
    """The server makes another prompt of a chat than of a text to tokenize."""
    return chat_of_today([*prompt, 5], body)


OLDER: dict[str, Callable[[list[int], dict[str, Any]], Answer]] = {
    "no field is known": lambda prompt, body: (200, chat_reply()),
    "no log-probabilities of given tokens": lambda prompt, body: (200, chat_reply("a", {"a": -1})),
    "no tokens of the prompt": without_tokens,
    "another ending": another_ending,
    "refused": lambda prompt, body: (400, {"error": {"message": "unknown: return_token_ids"}}),
    "fails": lambda prompt, body: (500, {}) if "return_token_ids" in body else (200, chat_reply()),
}


async def num_requests(
    header: list[int],
    tokens: Callable[[str, str], list[int]],
    chat: Callable[[list[int], dict[str, Any]], Answer] = chat_of_today,
) -> tuple[int, int, int]:
    """Requests to /tokenize, chats and completions for scores of different prompts, all right."""
    tokenized: list[Any] = []
    chats: list[Any] = []
    completed: list[Any] = []

    def prompt_of(question: str) -> list[int]:
        return [*map(ord, question), *header]

    def tokenize(body: dict[str, Any]) -> Answer:
        tokenized.append(body)
        question, *reply = (message["content"] for message in body["messages"])
        return 200, {"tokens": prompt_of(question) + (tokens(question, reply[0]) if reply else [])}

    def answer_chat(body: dict[str, Any]) -> Answer:
        chats.extend([body] if "return_token_ids" in body else [])
        return chat(prompt_of(body["messages"][0]["content"]), body)

    def complete(body: dict[str, Any]) -> Answer:
        completed.append(body)
        after_digit = chr(body["prompt"][-1 - len(header)]).isdigit()
        shift = 1000 * (after_digit and tokens is merging)
        assert {*body["logprob_token_ids"]} == {ord("A") + shift, ord("B") + shift}
        listed = {f"token_id:{i}": math.log(0.5) for i in body["logprob_token_ids"]}
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        return 200, {"choices": [{**choice, "logprobs": {"top_logprobs": [listed]}}]}

    pages = {"/version": lambda body: (200, {"version": "0.9.0"}), "/tokenize": tokenize}
    pages |= {"/v1/completions": complete, "/v1/chat/completions": answer_chat}
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        config = OpenAIConfig(type="openai", base_url=endpoint.base_url, model="m", max_retries=0)
        async with open_engine(config) as engine:
            tasks = [
                engine.score((user(f"{n} or {n}"),), ["A", "B"], request_id=str(n))
                for n in range(NUM_PROMPTS)
            ]
            for n, scores in enumerate(await asyncio.gather(*tasks)):
                assert scores.logprobs == pytest.approx((math.log(0.5), math.log(0.5)))
                assert scores.num_prompt_tokens == len(f"{n} or {n}") + len(header)
    return len(tokenized), len(chats), len(completed)


async def test_a_score_is_one_request_once_the_template_is_known() -> None:
    assert await num_requests([7, 8], plain) == (MADE_UP, NUM_PROMPTS, 0)


@pytest.mark.parametrize("kind", OLDER)
async def test_a_server_whose_chats_tell_less_gets_tokens(kind: str) -> None:
    """It is not asked that way again."""
    expected = (NUM_PROMPTS + MADE_UP, 1, NUM_PROMPTS)
    assert await num_requests([7, 8], plain, OLDER[kind]) == expected


@pytest.mark.parametrize(("header", "tokens"), [([], plain), ([7, 8], merging)])
async def test_options_that_may_depend_on_the_prompt_are_asked_for_with_it(
    header: list[int], tokens: Callable[[str, str], list[int]]
) -> None:
    assert await num_requests(header, tokens) == (3 * NUM_PROMPTS + MADE_UP, 0, NUM_PROMPTS)
