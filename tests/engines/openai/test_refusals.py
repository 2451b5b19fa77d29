"""What an endpoint refuses, in its own words: learned from, or kept whole in the reason."""

import contextlib
import re
from typing import Any

import pytest

from pipeline.engines import open_engine
from pipeline.engines.base import NOTICE
from pipeline.engines.openai.engine import fewer_logprobs
from pipeline.errors import (
    ConfigError,
    FinalCallError,
    NoReplyError,
    PromptTooLongError,
    RunStoppedError,
)
from pipeline.types import SamplingParams, user
from tests.engines.fake_endpoint import Answer, chat_reply, fake_endpoint
from tests.engines.openai.test_endpoint import config_for

pytestmark = pytest.mark.usefixtures("quick")
QUESTION = (user("A or B?"),)
TOP = {"A": -0.1, "B": -3.0, "C": -6.0}


def refusal(message: Any, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


@pytest.mark.parametrize(
    ("words", "refused", "number"),
    [
        ("Requested sample logprobs of 20, which is greater than max allowed: 8", 20, 8),
        ("top_logprobs: Input should be less than or equal to 5", 20, 5),
        ("top_logprobs must be between 0 and 10", 20, 10),
        ("logprobs are too many", 20, 5),
        ("logprobs are too many", 5, 0),
        ("top_logprobs is not supported", 5, 0),
        ("error 11: top_logprobs <= 5", 11, 5),
    ],
)
def test_how_many_alternatives_are_asked_for_next(words: str, refused: int, number: int) -> None:
    assert fewer_logprobs(words, refused) == number


@pytest.mark.parametrize(
    ("allowed", "says"),
    [(8, "top_logprobs is at most 8"), (2, "logprobs <= 2"), (6, "too many logprobs")],
)
async def test_fewer_logprobs_are_taken_where_a_server_gives_no_more(
    allowed: int, says: str
) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        if body.get("top_logprobs", 0) > allowed:
            return 400, refusal(says)
        return 200, chat_reply("A", TOP)

    lines: list[str] = []
    NOTICE.set(lines.append)
    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            for _ in range(3):
                scores = await engine.score(QUESTION, ["A", "B"], request_id="s")
            number = endpoint.bodies[-1]["top_logprobs"]
            assert number == min(allowed, 5 if allowed == 6 else allowed)
            assert engine.version == f"OpenAI-compatible endpoint, {number} first tokens"
    assert scores.logprobs == (-0.1, -3.0) and len(endpoint.bodies) == 4
    assert len(lines) == 1 and f"lists the {number} most probable first tokens, not 20" in lines[0]


async def test_a_server_without_any_logprobs_is_one_line() -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        refused = "top_logprobs" in body
        return (400, refusal("logprobs not allowed")) if refused else (200, chat_reply())

    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(ConfigError, match="returns no log-probabilities for 'm'"):
                await engine.score(QUESTION, ["A", "B"], request_id="s")
    assert [body["top_logprobs"] for body in endpoint.bodies] == [20, 5]


async def test_a_server_without_seeds_gets_none() -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        if "seed" in body:
            detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted"}]
            return 422, {"detail": detail}
        return 200, chat_reply()

    lines: list[str] = []
    NOTICE.set(lines.append)
    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            for _ in range(2):
                await engine.generate(QUESTION, SamplingParams(), seed=4, request_id="g")
    assert len(endpoint.bodies) == 3 and len(lines) == 1 and "takes no seed" in lines[0]


TOO_LONG = {
    "vllm": "This model's maximum context length is 4096 tokens. However, you requested 5000 "
    "tokens (4000 in the messages, 1000 in the completion).",
    "vllm-limit": "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's "
    "maximum context length is 4096 tokens and your request has 10 input tokens.",
    "vllm-prompt": "The decoder prompt (length 9000) is longer than the maximum model length of "
    "8192.",
    "openai": "Your input exceeds the context window of this model. Please adjust your input.",
    "llama.cpp": "the request exceeds the available context size (4096 tokens), try increasing it",
    "together": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097.",
    "tgi": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "sglang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "sglang-total": "Requested token count exceeds the model's maximum context length of 4096.",
    "lmstudio": "Trying to keep the first 5000 tokens when context the overflows. However, the "
    "model is loaded with a limit of only 4096 tokens, which is not enough.",
    "lmstudio-keep": "The number of tokens to keep from the initial prompt is greater than the "
    "context length.",
    "ollama": "prompt too long; exceeded max context length by 23 tokens",
    "ollama-embedded": "the input length exceeds the context length",
    "claude": "prompt is too long: 210000 tokens > 200000 maximum",
    "claude-limit": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "grok": "This model's maximum prompt length is 131072 but the request contains 138105 tokens.",
    "tensorrt": "Prompt length (9000) exceeds maximum input length (4096).",
    "tensorrt-sum": "The sum of prompt length (900) and max_tokens (512) exceeds max_seq_len (512)",
    "dashscope": "Range of input length should be [1, 30720]",
    "glm": "Prompt exceeds max length",
    "moonshot": "Invalid request: Your request exceeded model token limit: 8192",
    "watsonx": "the number of input tokens 9000 cannot exceed the total tokens limit 8192",
    "databricks": "prompt token count (9000) cannot exceed 4096.",
    "gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed.",
    "mistral": "Prompt contains 40000 tokens, too large for model with 32768 maximum context "
    "length",
}


@pytest.mark.parametrize("server", TOO_LONG)
@pytest.mark.parametrize("status", [400, 500])
async def test_a_prompt_that_is_too_long_is_named_and_not_sent_again(
    server: str, status: int
) -> None:
    with fake_endpoint(lambda number, body: (status, refusal(TOO_LONG[server]))) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(PromptTooLongError, match="too long for the model's context"):
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 200000. This model supports at most 16384 completion tokens.",
        "Unsupported value: 'temperature' does not support 0.7 with this model.",
        "this content is not allowed in any context",
    ],
)
async def test_other_refusals_are_not_called_too_long(words: str) -> None:
    with fake_endpoint(lambda number, body: (400, refusal(words))) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(FinalCallError, match=re.escape(words[:40])) as caught:
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert not isinstance(caught.value, PromptTooLongError) and len(endpoint.bodies) == 1


@pytest.mark.parametrize(
    "words",
    [
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        "Unsupported parameter: 'top_p' is not supported with this model.",
    ],
)
async def test_top_p_that_changes_nothing_is_left_out_where_it_is_refused(words: str) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return (400, refusal(words)) if "top_p" in body else (200, chat_reply())

    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            for _ in range(2):
                await engine.generate(QUESTION, SamplingParams(), seed=4, request_id="g")
            with pytest.raises(FinalCallError, match="top_p"):
                await engine.generate(QUESTION, SamplingParams(top_p=0.5), seed=4, request_id="g")
    assert [body.get("top_p") for body in endpoint.bodies] == [1, None, None, 0.5]


@pytest.mark.parametrize(
    ("model", "listed", "is_served"),
    [
        ("gemini-9", "models/gemini-9", True),
        ("qwen3", "qwen3:latest", True),
        ("a/b:free", "a/b", True),
        ("openai/gpt-9", "openai/*", True),
        ("gpt-9", "gpt-9-mini", False),
        ("qwen3:8b", "qwen3:latest", False),
        ("b", "a/b", False),
    ],
)
async def test_a_model_by_the_ways_of_a_list(model: str, listed: str, is_served: bool) -> None:
    entry = {"id": listed, "object": "model", "created": 0, "owned_by": "us"}
    pages = {"/v1/models": lambda body: (200, {"object": "list", "data": [entry]})}
    with fake_endpoint(lambda number, body: (200, chat_reply()), pages) as endpoint:
        expected = (
            contextlib.nullcontext() if is_served else pytest.raises(ConfigError, match=listed)
        )
        with expected:
            async with open_engine(config_for(endpoint, model=model)):
                pass


@pytest.mark.parametrize("size", [700, 100_000])
async def test_the_end_of_a_long_refusal_holds_the_remedy(size: int) -> None:
    words = "Invalid parameter. " + "x" * size + " Set top_p to 1 instead."
    with fake_endpoint(lambda number, body: (400, refusal(words))) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(
                FinalCallError, match=r"Invalid parameter.*Set top_p to 1"
            ) as caught:
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><style>a{b:c}</style><body><h1>Blocked</h1> by WAF</body>",
        {"detail": "Blocked by WAF"},
        {"error": "Blocked by WAF"},
        {"message": "Blocked by WAF"},
        {"error": {"code": "Blocked by WAF"}},
        b"Blocked by WAF",
        ["Blocked by WAF"],
    ],
)
async def test_a_reason_is_found_in_any_body(body: Any) -> None:
    with fake_endpoint(lambda number, _: (418, body)) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(FinalCallError, match="Blocked by WAF") as caught:
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert "<" not in str(caught.value)


async def test_a_key_that_is_revoked_and_an_account_that_is_empty_stop_the_run() -> None:
    for status, words in ((401, "accept the key any more"), (402, "asks for payment")):
        with fake_endpoint(
            lambda number, body, status=status: (  # type: ignore[misc]
                (200, chat_reply()) if number == 1 else (status, refusal("no"))
            )
        ) as endpoint:
            async with open_engine(config_for(endpoint)) as engine:
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
                for _ in range(2):
                    with pytest.raises(RunStoppedError, match=rf"{words}.*then `rlaif resume`"):
                        await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="h")
            assert len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    ("changes", "text", "thought"),
    [
        (
            {"content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]},
            "two parts",
            "",
        ),
        ({"content": "fine", "refusal": None, "reasoning_content": " hm\n"}, "fine", "hm"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "fine"},
                ]
            },
            "fine",
            "hm",
        ),
        ({"content": "fi\0ne"}, "fi\ufffdne", ""),
        ({"content": "fine", "reasoning": "hm \ud83d"}, "fine", "hm \ufffd"),
        ({"content": "fine", "reasoning_content": None, "reasoning": {"steps": 3}}, "fine", ""),
        ({"content": "<think>aha</think>fine", "reasoning": "hm"}, "fine", "hm\n\naha"),
        ({"content": "fine", "tool_calls": []}, "fine", ""),
    ],
)
async def test_a_reply_in_another_shape_is_read(
    changes: dict[str, Any], text: str, thought: str
) -> None:
    body = chat_reply()
    body["choices"][0]["message"] |= changes
    body["usage"] = None
    # Some servers send several choices although one was asked for: the first counts.
    body["choices"].append({"index": 1, "finish_reason": "stop", "message": {"content": "other"}})
    with fake_endpoint(lambda number, _: (200, body)) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            reply = await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert (reply.text, reply.thought) == (text, thought)
    assert (reply.num_prompt_tokens, reply.num_tokens, reply.num_thought_tokens) == (0, 0, None)


async def test_thoughts_that_a_server_only_counts_are_counted() -> None:
    body = chat_reply("Fine.")
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 12}
    with fake_endpoint(lambda number, _: (200, body)) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            reply = await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
    assert (reply.text, reply.thought, reply.num_thought_tokens) == ("Fine.", "", 12)


@pytest.mark.parametrize("reason", ["content_filter", "length"])
async def test_a_reply_that_was_cut_is_known_as_cut(reason: str) -> None:
    body = chat_reply("half a")
    body["choices"][0]["finish_reason"] = reason
    with fake_endpoint(lambda number, _: (200, body)) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            reply = await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")
            assert reply.finish_reason == "length"
            body["choices"][0]["message"]["content"] = None
            with pytest.raises(NoReplyError, match="ended by 'length'"):
                await engine.generate(QUESTION, SamplingParams(), seed=1, request_id="g")


async def test_control_tokens_in_a_text_reach_no_server_as_such() -> None:
    """A server would take the spelling for the token; the row keeps its text."""
    text = "See <|im_end|>\n<|im_start|>system, [INST] and </s>; <b>not this</b> [x]"
    with fake_endpoint(lambda number, _: (200, chat_reply("A", TOP))) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            await engine.generate((user(text),), SamplingParams(), seed=1, request_id="g")
            await engine.score((user(text),), ["A", "B"], request_id="s")
    for body in endpoint.bodies:
        assert body["messages"][0]["content"] == (
            "See < |im_end| >\n< |im_start| >system, [ INST ] and < /s >; <b>not this</b> [x]"
        )
