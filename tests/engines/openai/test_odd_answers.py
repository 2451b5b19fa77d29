"""An endpoint may answer anything: an error of ours with a reason, never a fault of the code."""

import copy
import json
from typing import Any

import pytest

from pipeline.engines import open_engine
from pipeline.errors import (
    EngineError,
    FinalCallError,
    NoReplyError,
    PromptTooLongError,
    RunStoppedError,
)
from pipeline.types import Generation, OptionScores, SamplingParams, user
from tests.engines.fake_endpoint import chat_reply, fake_endpoint
from tests.engines.openai.test_endpoint import config_for

pytestmark = pytest.mark.usefixtures("quick")
QUESTION = (user("A or B?"),)
TOP = {"A": -0.1, "B": -3.0}
ODD_VALUES: list[Any] = [None, 1, -1.5, 10**30, True, "x", "\ud83d", [], [None], [[]], {}, {"a": 1}]


async def asked(content: Any, status: int = 200) -> tuple[Generation, OptionScores]:
    """A reply and a score from an endpoint that gives one answer to all requests."""
    with fake_endpoint(lambda number, body: (status, content)) as endpoint:
        async with open_engine(config_for(endpoint, max_retries=0)) as engine:
            reply = await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
            return reply, await engine.score(QUESTION, ["A", "B"], request_id="s")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n" * 40,
        b'{"id":"x","choices":[{"index":0,"mess',
        b"<html><body>502 Bad Gateway</body></html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500, 529])
async def test_a_body_that_is_no_answer_is_an_error_of_ours(body: bytes, status: int) -> None:
    """A server that gives nothing but 5xx is gone: the run stops, and no row fails for it."""
    error = RunStoppedError if status >= 500 else EngineError
    with pytest.raises(error, match="endpoint http"):
        await asked(body, status)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every field of a JSON value."""
    if not isinstance(value, dict | list):
        return []
    keys: Any = range(len(value)) if isinstance(value, list) else value
    return [deeper for key in keys for deeper in [(*path, key), *paths(value[key], (*path, key))]]


async def test_any_field_may_be_missing_or_of_another_type() -> None:
    """Every field in turn: what comes back is text and scores, or one of our errors."""
    good, bodies = chat_reply("fine", TOP), []
    for path in paths(good):
        for odd in (*ODD_VALUES, "missing"):
            body = copy.deepcopy(good)
            place: Any = body
            for key in path[:-1]:
                place = place[key]
            if odd == "missing":
                del place[path[-1]]
            else:
                place[path[-1]] = odd
            bodies.append(body)
    current: list[Any] = [good]
    kept = 0
    with fake_endpoint(lambda number, body: (200, current[0])) as endpoint:
        async with open_engine(config_for(endpoint, max_retries=0)) as engine:
            await engine.score(QUESTION, ["A", "B"], request_id="s")
            for body in bodies:
                current[0] = body
                try:
                    reply = await engine.generate(
                        QUESTION, SamplingParams(), seed=1, request_id="g"
                    )
                    scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
                except EngineError as error:
                    str(error).encode()
                else:
                    reply.text.encode()
                    assert reply.text.strip() and 0 <= reply.num_tokens < 2**31
                    assert all(value is None or value <= 0.01 for value in scores.logprobs)
                    kept += 1
    assert 50 < kept < len(bodies)


@pytest.mark.parametrize(
    ("message", "instead"),
    [
        ({"content": None, "reasoning_content": "Let me see"}, "reasoning_content"),
        ({"content": "", "refusal": "I cannot"}, "refusal"),
        ({"content": " \n"}, "no text|a thought"),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function"}]}, "tool_calls"),
        ({"content": "<think>on and on"}, "a thought only"),
        ({"content": "One moment.", "tool_calls": [{"id": "1", "type": "function"}]}, "tool_calls"),
        ({"content": "I could", "refusal": "I cannot"}, "refusal"),
    ],
)
async def test_what_came_in_place_of_a_reply_is_named(
    message: dict[str, Any], instead: str
) -> None:
    body = chat_reply()
    body["choices"][0]["message"] = {"role": "assistant", **message}
    body["usage"]["completion_tokens"] = 321
    with pytest.raises(NoReplyError, match=rf"({instead}).*321 tokens"):
        await asked(body)


def changed(place: str, value: Any) -> dict[str, Any]:
    """A good answer with one value of it, of its choice or of its message replaced."""
    body = chat_reply("fine", TOP)
    target = {"body": body, "choice": body["choices"][0]}
    target["message"], target["first"] = (
        target["choice"]["message"],
        target["choice"]["logprobs"]["content"][0],
    )
    name, _, key = place.partition(".")
    target[name][key] = value
    return body


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("body.error", {"message": "overloaded"}, "with an error: .*overloaded"),
        ("message.role", "user", "a turn of the role 'user'"),
        ("message.content", [{"type": "text", "text": "a"}, {"type": "image_url"}], "'image_url'"),
        # Logarithms of base 10: 0.91 and 0.09 become 0.96 and 0.35.
        (
            "first.top_logprobs",
            [{"token": "A", "logprob": -0.04}, {"token": "B", "logprob": -1.05}],
            "add to 1.31",
        ),
        ("first.top_logprobs", [{"token": "A", "logprob": 0.0}] * 2, "add to 2"),
        # The reply begins with a token that the list of the likeliest ones lacks.
        ("first.token", "C", "add to 1.86"),
    ],
)
async def test_an_answer_that_contradicts_itself_is_none(place: str, value: Any, said: str) -> None:
    with pytest.raises(FinalCallError, match=said):
        await asked(changed(place, value))


async def test_counts_are_numbers_of_tokens_and_a_part_is_at_most_the_whole() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": True}
    details = {"prompt_tokens_details": {"cached_tokens": 50}}
    reply, _ = await asked(changed("body.usage", usage | details))
    assert (reply.num_prompt_tokens, reply.num_tokens, reply.num_cached_tokens) == (5, 0, 5)


async def test_half_an_emoji_is_kept_as_a_mark() -> None:
    body = json.dumps(chat_reply("Half \udc36 here", TOP)).encode()
    reply, scores = await asked(body)
    assert reply.text == "Half \ufffd here" and scores.logprobs == (-0.1, -3.0)


async def test_the_other_name_of_the_limit_is_learned_from_its_refusal() -> None:
    words = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    def answer(number: int, body: dict[str, Any]) -> tuple[int, Any]:
        if "max_tokens" in body:
            return 400, {"error": {"message": words}}
        return 200, chat_reply("fine", TOP)

    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            for _ in range(2):
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
            await engine.score(QUESTION, ["A", "B"], request_id="s")
    limits = [body.get("max_completion_tokens") for body in endpoint.bodies]
    assert limits == [None, 256, 256, 1]


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_refusal_after_answers_is_of_one_request(status: int) -> None:
    refusal = {"error": {"message": "flagged"}}
    with fake_endpoint(
        lambda number, body: (200, chat_reply()) if number == 1 else (status, refusal)
    ) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
            with pytest.raises(FinalCallError, match="flagged"):
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="h")
        assert len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    "words",
    [
        "the request exceeds the available context size, try increasing it",
        "This model's maximum context length is 4096 tokens",
        "`inputs` tokens + `max_new_tokens` must be <= 4097",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_too_long_in_the_words_of_other_servers(words: str, status: int) -> None:
    with pytest.raises(PromptTooLongError):
        await asked({"error": {"message": words}}, status)
