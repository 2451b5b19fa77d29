"""Options are tokenized once for a template, and for each prompt only where that would be wrong."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.engines import open_engine
from pipeline.types import user
from tests.engines.fake_endpoint import Answer, fake_endpoint

NUM_PROMPTS = 12
MADE_UP = 9
"""Requests for what the template writes: three prompts, each alone and with both options."""


def plain(content: str, option: str) -> list[int]:
    """One token for each character of an option."""
    return [ord(character) for character in option]


def merging(content: str, option: str) -> list[int]:
    """After a digit, an option is another token."""
    return [ord(character) + 1000 * content[-1].isdigit() for character in option]


async def num_tokenized(header: list[int], tokens: Callable[[str, str], list[int]]) -> int:
    """Requests to /tokenize for scores of different prompts at once, all of which are right."""
    requests: list[Any] = []

    def tokenize(body: dict[str, Any]) -> Answer:
        requests.append(body)
        question, *reply = (message["content"] for message in body["messages"])
        prompt = [*map(ord, question), *header]
        return 200, {"tokens": prompt + (tokens(question, reply[0]) if reply else [])}

    def complete(body: dict[str, Any]) -> Answer:
        after_digit = chr(body["prompt"][-1 - len(header)]).isdigit()
        shift = 1000 * (after_digit and tokens is merging)
        assert {*body["logprob_token_ids"]} == {ord("A") + shift, ord("B") + shift}
        listed = {f"token_id:{i}": math.log(0.5) for i in body["logprob_token_ids"]}
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        return 200, {"choices": [{**choice, "logprobs": {"top_logprobs": [listed]}}]}

    pages = {"/version": lambda body: (200, {"version": "0.9.0"}), "/tokenize": tokenize}
    pages["/v1/completions"] = complete
    with fake_endpoint(lambda number, body: (500, {}), pages) as endpoint:
        config = OpenAIConfig(type="openai", base_url=endpoint.base_url, model="m")
        async with open_engine(config) as engine:
            await asyncio.gather(
                *(
                    engine.score((user(f"{n} or {n}"),), ["A", "B"], request_id=str(n))
                    for n in range(NUM_PROMPTS)
                )
            )
    return len(requests)


async def test_a_template_is_asked_about_once() -> None:
    """And its options once more behind the first prompt."""
    assert await num_tokenized([7, 8], plain) == NUM_PROMPTS + MADE_UP + 2


@pytest.mark.parametrize(("header", "tokens"), [([], plain), ([7, 8], merging)])
async def test_options_that_may_depend_on_the_prompt_are_asked_for_with_it(
    header: list[int], tokens: Callable[[str, str], list[int]]
) -> None:
    assert await num_tokenized(header, tokens) == 3 * NUM_PROMPTS + MADE_UP
