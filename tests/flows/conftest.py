"""One dedicated Prefect server for all flow tests, and one process that runs all their flows."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.prefect_server import (
    CONSOLE_LEVEL,
    Server,
    ensure_server,
    read_key,
    stop_server,
    with_environment,
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with a state folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLAIF_STATE", str(tmp_path_factory.mktemp("state")))
        patch.delenv("RLAIF_PREFECT_PORT", raising=False)
        yield ensure_server()
        stop_server()


def start_serve(
    folder: Path, stderr: int, *, sigint: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen[str]:
    """`rlaif serve` with its runs in `folder`, in a process group that SIGINT ends as Ctrl-C does.

    Args:
        stderr: where its errors go, `subprocess.PIPE` or `subprocess.STDOUT`.
        sigint: `signal.SIG_IGN` as what a script starts in its background has it.
    """
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.cli", "serve"],
        cwd=PROJECT_ROOT,
        text=True,
        env=os.environ | {"RLAIF_OUTPUTS": str(folder)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
    )


@dataclass(frozen=True)
class Flows:
    """What the driver did."""

    server: Server
    ends: dict[str, Any]
    """State and message of each case."""
    outputs: Path


@pytest.fixture(scope="session")
def flows(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Flows:
    """All flows of `driver.py`, run once against the server."""
    folder = tmp_path_factory.mktemp("flows")
    done = subprocess.run(
        [sys.executable, "-m", "tests.flows.driver", str(folder)],
        cwd=PROJECT_ROOT,
        env={
            **with_environment(server.port),
            "RLAIF_OUTPUTS": str(folder / "outputs"),
            CONSOLE_LEVEL: "CRITICAL",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Flows(server, json.loads((folder / "ends.json").read_text()), folder / "outputs")


@pytest.fixture
def outputs(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of the driver, as `find_run` and the others see them."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(flows.outputs))
    return flows.outputs


def ask(server: Server, path: str, **body: Any) -> Any:
    """What the server answers to a POST of its owner."""
    name, _, secret = (read_key() or "").partition(":")
    with httpx.Client(base_url=server.api_url, auth=(name, secret), trust_env=False) as client:
        token = client.get("csrf-token", params={"client": "tests"}).json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}
        return client.post(path, json=body, headers=headers).raise_for_status().json()
