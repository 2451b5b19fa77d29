"""What a webhook gets of a run, and that a dead one ends nothing."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.config.gate import GateConfig
from pipeline.errors import AuditError, BudgetSpentError
from pipeline.progress import LineProgress, progress_context
from pipeline.run.context import open_context
from pipeline.run.nightly import take_run
from pipeline.run.phases import evaluation_phase
from pipeline.run.start import start_run
from pipeline.run.webhook import reporting
from tests.cli.commands import Rlaif, rlaif
from tests.evaluation.test_gate import metrics
from tests.run.builders import make_run, write_recipe

__all__ = ["rlaif"]

NAME = "TEST_WEBHOOK"
REFUSED = {"audit": {"enabled": False}, "collapse": {"min_prompts": 2, "length_ratio": [8, 9]}}


class Hook(HTTPServer):
    """Keeps what is posted to it, and answers with `status`, without the body that it announces."""

    messages: list[dict[str, str]]
    status = 200


class Handler(BaseHTTPRequestHandler):
    """Answers for a Hook."""

    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "9")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    server = Hook(("127.0.0.1", 0), Handler)
    server.messages = []
    monkeypatch.setenv(NAME, f"http://127.0.0.1:{server.server_port}/secret")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_audit_and_failure_are_sent(hook: Hook, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=4, preference=REFUSED, webhook_env=NAME)
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    with pytest.raises(AuditError):
        asyncio.run(take_run(run))
    recipe = write_recipe(tmp_path, prompts=4, budget={"tokens": 1}, webhook_env=NAME)
    run = start_run(recipe, run_id="two", runs_root_folder=tmp_path / "runs")
    with pytest.raises(BudgetSpentError):
        asyncio.run(take_run(run))
    audit, failure = hook.messages
    assert (audit["event"], audit["run"]) == ("audit", "one") and "length" in audit["text"]
    assert failure["event"] == "failure" and failure["text"].startswith("budget.tokens is spent")
    assert failure["report"] == str(run.report)


async def test_promotion_is_sent_once_and_not_lost(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends between its decision and its report has sent it; one that ends before sends
    it when it is resumed. The policy is made up, as a scripted one is not trained.
    """
    written = [tmp_path, tmp_path]
    monkeypatch.setattr("pipeline.run.phases.collect_metrics", lambda *_: metrics())
    monkeypatch.setattr("pipeline.run.phases.write_promoted", lambda *_: written.pop())
    recipe = write_recipe(tmp_path / "in", webhook_env=NAME)
    ctx = open_context(start_run(recipe, run_id="one", runs_root_folder=tmp_path))
    evaluation = ctx.config.evaluation.model_copy(update={"gate": GateConfig(), "enabled": False})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"evaluation": evaluation}))
    ctx.run.update_info(gate="candidate")
    for _ in range(2):
        await evaluation_phase(ctx)
    assert [message["event"] for message in hook.messages] == ["promotion"]
    ctx.run.update_info(gate="candidate")
    with pytest.raises(IndexError, match="pop from empty"):
        await evaluation_phase(ctx)
    assert len(hook.messages) == 1
    written.append(tmp_path)
    await evaluation_phase(ctx)
    assert len(hook.messages) == 2 and ctx.run.info()["gate"] == "promoted"
    with pytest.raises(KeyboardInterrupt), reporting(ctx.run, NAME):
        raise KeyboardInterrupt
    assert len(hook.messages) == 2


def test_webhook_that_fails_ends_nothing(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.status = 500
    with reporting(make_run(tmp_path / "one"), NAME) as nothing:
        assert nothing is None
    with pytest.raises(ZeroDivisionError), reporting(make_run(tmp_path / "two"), NAME):
        raise ZeroDivisionError
    assert [message["text"] for message in hook.messages] == ["ZeroDivisionError"]
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ZeroDivisionError), reporting(make_run(tmp_path / "three"), NAME):
        raise ZeroDivisionError


def test_message_needs_no_proxy_on_loopback_and_no_body_of_the_answer(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    said = progress_context(LineProgress(print))
    with pytest.raises(ZeroDivisionError), said, reporting(make_run(tmp_path), NAME):
        raise ZeroDivisionError
    assert len(hook.messages) == 1 and "did not take" not in capsys.readouterr().out


def test_address_must_be_there(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, prompts=4, webhook_env=NAME)
    ended = rlaif("check", recipe)
    assert ended.code == 2 and f"names {NAME}, but that environment variable is not" in ended.err
    for wrong in (
        "ftp://key@host",
        "https://[key/",
        "https://key:99999x/",
        "https://",
        "http://key:99999/",
        "http://k\x01ey",
    ):
        monkeypatch.setenv(NAME, wrong)
        ended = rlaif("check", recipe)
        assert ended.code == 2 and "is not an http(s) address" in ended.err, wrong
        assert "key" not in ended.err and "k\x01ey" not in ended.err
    recipe = write_recipe(tmp_path, prompts=4, webhook_env="https://hooks.example/key")
    ended = rlaif("check", recipe)
    assert ended.code == 2 and "webhook_env" in ended.err
