"""What a webhook gets of a run, and that a dead one ends nothing."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.errors import AuditError, BudgetSpentError
from pipeline.run.nightly import take_run
from pipeline.run.start import start_run
from pipeline.run.webhook import reporting
from tests.cli.commands import Rlaif, rlaif
from tests.run.builders import make_run, write_recipe

__all__ = ["rlaif"]

NAME = "TEST_WEBHOOK"
REFUSED = {"audit": {"enabled": False}, "collapse": {"min_prompts": 2, "length_ratio": [8, 9]}}


class Hook(HTTPServer):
    """Keeps what is posted to it, and answers with `status`."""

    messages: list[dict[str, str]]
    status = 200


class Handler(BaseHTTPRequestHandler):
    """Answers for a Hook."""

    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append(json.loads(body))
        self.send_response(self.server.status)
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


def test_promotion_is_sent_once(hook: Hook, tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    for _ in range(2):
        with reporting(run, NAME):
            run.update_info(gate="promoted")
    with pytest.raises(KeyboardInterrupt), reporting(run, NAME):
        raise KeyboardInterrupt
    assert [message["event"] for message in hook.messages] == ["promotion"]


def test_webhook_that_fails_ends_nothing(hook: Hook, tmp_path: Path) -> None:
    hook.status = 500
    with reporting(make_run(tmp_path / "one"), NAME) as nothing:
        assert nothing is None
    with pytest.raises(ZeroDivisionError), reporting(make_run(tmp_path / "two"), NAME):
        raise ZeroDivisionError
    assert [message["text"] for message in hook.messages] == ["ZeroDivisionError"]


def test_address_must_be_there(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, prompts=4, webhook_env=NAME)
    ended = rlaif("check", recipe)
    assert ended.code == 2 and f"names {NAME}, but that environment variable is not" in ended.err
    monkeypatch.setenv(NAME, "ftp://key@host")
    ended = rlaif("check", recipe)
    assert ended.code == 2 and "is not an http(s) address" in ended.err and "key" not in ended.err
    recipe = write_recipe(tmp_path, prompts=4, webhook_env="https://hooks.example/key")
    ended = rlaif("check", recipe)
    assert ended.code == 2 and "webhook_env" in ended.err
