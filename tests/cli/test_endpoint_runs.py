"""A run on an endpoint that gets busy or goes away: what a person reads, and what is kept."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.openai import pace
from tests.cli.commands import Rlaif, rlaif
from tests.engines.fake_endpoint import Answer, chat_reply, fake_endpoint
from tests.run.builders import write_recipe

__all__ = ["rlaif"]
ERROR = {"error": {"message": "slow down"}}


def reply(body: dict[str, Any]) -> Answer:
    """A label for the judge's question, else a text that depends on the request."""
    top = {"A": -0.1, "B": -2.4} if "top_logprobs" in body else None
    return 200, chat_reply(f"a text {body.get('seed', 0) % 97}", top)


def write(folder: Path, url: str) -> Path:
    policy = {"type": "openai", "base_url": url, "model": "m", "max_retries": 1}
    return write_recipe(folder, prompts=6, policy=policy)


def test_a_busy_minute_is_waited_for_and_said(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "NOTICE_AFTER_S", 0.3)
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.1)
    busy_from = 0.0

    def answer(number: int, body: dict[str, Any]) -> Answer:
        nonlocal busy_from
        if number == 8:
            busy_from = time.monotonic()
        is_busy = number >= 8 and time.monotonic() - busy_from < 1.5
        return (429, ERROR) if is_busy else reply(body)

    with fake_endpoint(answer) as server:
        ended = rlaif("run", write(tmp_path, server.base_url), "--no-prefect", "--run-id", "r")
    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if "endpoint http" in line]
    assert any(line.startswith("waiting: endpoint") and "429" in line for line in lines)
    assert any("answers again, after" in line for line in lines)


def test_a_server_that_goes_away_stops_the_run_and_resume_finishes_it(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(pace, "PATIENCE_S", 1.0)
    is_gone = False

    def answer(number: int, body: dict[str, Any]) -> Answer:
        nonlocal is_gone
        is_gone = is_gone or number == 12
        return (502, b"<html>no upstream</html>") if is_gone else reply(body)

    with fake_endpoint(answer) as server:
        recipe = write(tmp_path, server.base_url)
        ended = rlaif("run", recipe, "--no-prefect", "--run-id", "r")
        assert ended.code == 1 and len(ended.err.splitlines()) == 1
        assert "has answered no request" in ended.err and "answers 502" in ended.err
        assert "then `rlaif resume`: all that succeeded is kept" in ended.err
        root = tmp_path / "outputs/runs/r"
        counts = [json.loads(path.read_text())["counts"] for path in root.rglob("shard-*.json")]
        assert sum(count["failed"] for count in counts) == 0
        assert rlaif("report", "r").code == 0 and rlaif("verify", "r").code == 0
        num_answered = 10  # the question of the check is the first of eleven
        is_gone, before = False, len(server.bodies)
        assert rlaif("resume", "r", "--no-prefect").code == 0
        resumed = len(server.bodies) - before
    with fake_endpoint(lambda number, body: reply(body)) as server:
        path = write(tmp_path / "whole", server.base_url)
        assert rlaif("run", path, "--no-prefect", "--run-id", "whole").code == 0
        assert resumed == len(server.bodies) - 1 - num_answered
