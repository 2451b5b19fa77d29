"""`rlaif check` asks each endpoint of a recipe one small question, and says what is wrong."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.openai import pace, question
from tests.cli.commands import Rlaif, rlaif
from tests.engines.fake_endpoint import chat_reply, fake_endpoint
from tests.run.builders import write_recipe

__all__ = ["rlaif"]
TOP = {"A": -0.2, "B": -1.8}


def engine(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "openai", "base_url": url, "model": "m", **fields}


def test_one_question_for_each_endpoint_and_model(rlaif: Rlaif, tmp_path: Path) -> None:
    with fake_endpoint(lambda number, body: (200, chat_reply("A", TOP))) as server:
        path = write_recipe(tmp_path, policy=engine(server.base_url))
        ended = rlaif("check", path)
        assert ended.code == 0 and [body["max_tokens"] for body in server.bodies] == [1]
        assert f"endpoint      {server.base_url} answers" in ended.out
        assert rlaif("check", "--offline", path).code == 0 and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": {"message": "bad key"}}, "refused the key .*bad key.*set `api_key_env`"),
        (403, {"error": {"message": "not yours"}}, "refused the key"),
        (404, {"error": {"message": "no model m"}}, "does not know the model .*no model m"),
        (400, {"error": {"message": "logprobs are off"}}, "returns no log-probabilities for 'm'"),
        (200, chat_reply("A"), "returns no log-probabilities for 'm'"),
        (402, {"error": {"message": "top up"}}, "asks for payment .*top up.*before the run"),
        (429, {"error": {"code": "insufficient_quota"}}, "asks for payment"),
        (200, b"<html><head><style>p{}</style></head><b>Sign in</b></html>", "a complete answer"),
    ],
)
def test_what_is_wrong_is_one_line(
    rlaif: Rlaif,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
    words: str,
) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.001)
    with fake_endpoint(lambda number, _: (status, body)) as server:
        path = write_recipe(tmp_path, policy=engine(server.base_url))
        for command in (["check"], ["run", "--no-prefect"]):
            ended = rlaif(*command, path)
            assert ended.code == 2 and len(ended.err.splitlines()) == 1
            assert ended.err.startswith("rlaif: ") and re.search(words, ended.err)
    assert not (tmp_path / "outputs").exists()


def test_an_address_where_nothing_listens(rlaif: Rlaif, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    path = write_recipe(tmp_path, policy=engine(url))
    ended = rlaif("check", path)
    assert ended.code == 2 and "start the server, or correct `base_url`" in ended.err
    assert rlaif("check", "--offline", path).code == 0


@pytest.mark.parametrize(("status", "code"), [(429, 0), (500, 2)])
def test_a_busy_server_passes_and_a_broken_one_does_not(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    monkeypatch.setattr(question, "WAIT_S", 1.0)
    with fake_endpoint(lambda number, _: (status, {"error": {"message": "later"}})) as server:
        ended = rlaif("check", write_recipe(tmp_path, policy=engine(server.base_url)))
    assert ended.code == code and f"answers {status}" in ended.out + ended.err


def test_a_labeler_that_scores_texts_needs_a_vllm_server(rlaif: Rlaif, tmp_path: Path) -> None:
    with fake_endpoint(lambda number, _: (200, chat_reply("A", TOP))) as server:
        path = write_recipe(
            tmp_path, policy=engine(server.base_url), preference={"labeler": "follow_up"}
        )
        ended = rlaif("check", path)
    assert ended.code == 2 and "cannot score a given text; use a vLLM server" in ended.err
