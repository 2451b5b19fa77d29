"""Endpoints that are not vLLM: bounded retries, honest scores, and no key left behind."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.engines import check_engine, open_engine
from pipeline.engines.openai.endpoint import Endpoint as HttpEndpoint
from pipeline.errors import ConfigError, EngineError, FinalCallError, PromptTooLongError
from pipeline.types import OptionScores, SamplingParams, user
from tests.engines.fake_endpoint import Answer, Endpoint, chat_reply, fake_endpoint

pytestmark = pytest.mark.usefixtures("quick")
QUESTION = (user("A or B?"),)
ERROR = {"error": {"message": "something", "type": "t", "code": None}}


def config_for(endpoint: Endpoint, **fields: Any) -> OpenAIConfig:
    return OpenAIConfig(
        **{
            "type": "openai",
            "base_url": endpoint.base_url,
            "model": "m",
            "max_retries": 2,
            **fields,
        }
    )


async def score_once(answer: Callable[[int, dict[str, Any]], Answer]) -> OptionScores:
    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            return await engine.score(QUESTION, ["A", "B"], request_id="s")


async def generate_once(answer: Callable[[int, dict[str, Any]], Answer], **fields: Any) -> Endpoint:
    with fake_endpoint(answer) as endpoint:
        async with open_engine(config_for(endpoint, **fields)) as engine:
            await engine.generate(QUESTION, SamplingParams(), seed=2**40 + 3, request_id="g")
        return endpoint


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_busy_endpoint_is_asked_again(status: int) -> None:
    endpoint = await generate_once(
        lambda number, body: (200, chat_reply()) if number == 3 else (status, ERROR)
    )
    assert len(endpoint.bodies) == 3
    assert "top_k" not in endpoint.bodies[0] and endpoint.bodies[0]["seed"] < 2**31


async def test_retries_are_bounded() -> None:
    """Three tries, then one small question: it is answered, so the request itself is at fault."""
    with pytest.raises(FinalCallError, match=r"InternalServerError.*sent 3 times"):
        await generate_once(lambda number, body: (500, ERROR) if number <= 3 else (200, {}))


async def test_bad_request_is_not_repeated() -> None:
    with pytest.raises(EngineError, match="BadRequestError"):
        await generate_once(
            lambda number, body: (400, ERROR) if number == 1 else (200, chat_reply())
        )


async def test_long_prompt_is_named() -> None:
    error = {"error": {"message": "maximum context length is 8", "code": "context_length_exceeded"}}
    with pytest.raises(PromptTooLongError, match="too long"):
        await generate_once(lambda number, body: (400, error))


async def test_key_comes_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    endpoint = await generate_once(lambda number, body: (200, chat_reply()), api_key_env="SOME_KEY")
    assert endpoint.keys == ["Bearer sk-secret"]
    with pytest.raises(ConfigError, match="refused the key") as caught:
        await generate_once(lambda number, body: (401, ERROR), api_key_env="SOME_KEY")
    assert "sk-secret" not in str(caught.value)


async def test_absent_option_is_never_zero() -> None:
    scores = await score_once(
        lambda number, body: (200, chat_reply("A", {"A": -0.1, "I": -3.0, "The": -6.0}))
    )
    assert scores.logprobs == (-0.1, None)
    assert scores.upper_bound == -6.0 and not scores.exact


async def test_unreadable_verdict_is_a_value_with_its_cost() -> None:
    scores = await score_once(lambda number, body: (200, chat_reply("A)", {"A)": -0.1, "B": -3.0})))
    assert scores.unreadable.startswith("the model writes 'A)' with probability 0.9")
    assert scores.num_prompt_tokens == 5


async def test_endpoint_without_logprobs_is_named() -> None:
    for answer in (
        (200, chat_reply("A")),
        (400, {"error": {"message": "logprobs are not supported"}}),
    ):
        with pytest.raises(ConfigError, match="returns no log-probabilities"):
            await score_once(lambda number, body, answer=answer: answer)  # type: ignore[misc]


async def test_what_endpoint_cannot_do_is_named() -> None:
    with fake_endpoint(lambda number, body: (200, chat_reply("A", {"A": -0.1}))) as endpoint:
        async with open_engine(config_for(endpoint)) as engine:
            with pytest.raises(ConfigError, match="cannot continue a given reply"):
                await engine.score(QUESTION, ["A", "B"], request_id="s", reply_prefix="(")
            with pytest.raises(ConfigError, match="cannot score a given text"):
                await engine.score_reply(QUESTION, request_id="s")
            with pytest.raises(ConfigError, match="`top_k` is 5"):
                await engine.generate(QUESTION, SamplingParams(top_k=5), seed=1, request_id="g")
        for fields, message in (
            ({"model": "other"}, "does not serve 'other' but m"),
            ({"flavor": "vllm"}, "does not answer as a vLLM server"),
            ({"chat_template_args": {"x": 1}}, "needs a vLLM server"),
        ):
            with pytest.raises(ConfigError, match=message):
                async with open_engine(config_for(endpoint, **fields)):
                    pass


async def test_what_a_server_repeats_is_cleared_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some proxies answer with the request's headers; the reason of a row is stored."""
    monkeypatch.setenv("OUR_KEY", " k3y/with+signs== \r\n")
    echo = {"error": {"message": "bad: {'Authorization': 'Bearer k3y/with+signs=='} sk-other-1 k3"}}
    with pytest.raises(EngineError, match=r"bad: .*\[key\].*\[key\] k3") as caught:
        await generate_once(lambda number, body: (422, echo), api_key_env="OUR_KEY")
    assert "k3y" not in str(caught.value) and "sk-" not in str(caught.value)


async def test_headers_of_other_services_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "ADMIN_KEY", "BASE_URL"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-another-service")
    headers = "Authorization: of-another-service\nX-Team: of-another-service"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intra.example")
    endpoint = await generate_once(lambda number, body: (200, chat_reply()))
    assert endpoint.keys == [""]
    assert "of-another-service" not in str(endpoint.headers)
    assert os.environ["OPENAI_CUSTOM_HEADERS"] == headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_to_another_address_is_not_followed(status: int) -> None:
    with fake_endpoint(lambda number, body: (200, chat_reply())) as other:
        target = other.base_url.replace("127.0.0.1", "localhost") + "/chat/completions"
        with pytest.raises(ConfigError, match="sends requests on to another address"):
            await generate_once(lambda number, body: (status, {"location": target}))
        with pytest.raises(ConfigError, match="sends requests on to another address"):
            await generate_once(
                lambda number, body: (status, {"location": other.base_url + "/chat/completions"})
            )
        assert not other.bodies


@pytest.mark.parametrize("location", ["http://[::1", "https://127.0.0.1:1/v1", "file:///etc/hosts"])
async def test_redirect_to_no_address_of_ours_is_one_line(location: str) -> None:
    with pytest.raises(ConfigError, match="sends requests on to another address"):
        await generate_once(lambda number, body: (307, {"location": location}))


@pytest.mark.parametrize("value", ["", " \n", "two words", "kéy", "a\tb", "a\x1bb"])
def test_key_that_no_header_can_carry(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OUR_KEY", value)
    config = OpenAIConfig(type="openai", base_url="http://h/v1", model="m", api_key_env="OUR_KEY")
    with pytest.raises(ConfigError, match=r"environment variable OUR_KEY (is not set|holds)") as e:
        check_engine(config)
    assert not value.strip() or value not in str(e.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),  # needs a package that is not there
        ("HTTPS_PROXY", "nonsense://x"),
        ("http_proxy", "http://[::1"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_FILE", "/etc/passwd"),
    ],
)
def test_variable_of_the_shell_that_no_client_can_use(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    config = OpenAIConfig(type="openai", base_url="https://192.0.2.1/v1", model="m")
    with pytest.raises(ConfigError, match=rf"this shell's .*{name}.* \(.+\); correct or unset it"):
        HttpEndpoint(config)
    # Loopback needs neither.
    HttpEndpoint(config.model_copy(update={"base_url": "https://localhost/v1"}))


def test_key_in_place_of_its_variable_is_not_printed() -> None:
    config = OpenAIConfig(
        type="openai", base_url="http://h/v1", model="m", api_key_env="gsk_0a1b2c3d4e5f"
    )
    with pytest.raises(ConfigError, match="is not set") as caught:
        check_engine(config)
    assert "0a1b2c" not in str(caught.value)
