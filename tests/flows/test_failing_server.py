"""Prefect is the record of a run, not the run: it goes on when the server fails on the way."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.verify import verify
from pipeline.prefect_server import (
    Server,
    ensure_server,
    outlive,
    settle,
    stop_server,
    with_environment,
)
from pipeline.store import RunDir
from tests.cli.commands import Rlaif
from tests.flows.conftest import ask
from tests.flows.nights import SMOKE
from tests.run.builders import write_recipe


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own, which may fail; the last test kills it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLAIF_STATE", str(tmp_path_factory.mktemp("state")))
        patch.delenv("RLAIF_PREFECT_PORT", raising=False)
        yield ensure_server()
        stop_server()


def fill_disk(server: Server) -> None:
    """From now on no file of the server can grow."""
    _, hard = psutil.Process(server.pid).rlimit(resource.RLIMIT_FSIZE)
    psutil.Process(server.pid).rlimit(resource.RLIMIT_FSIZE, (0, hard))


def free_disk(server: Server) -> None:
    _, hard = psutil.Process(server.pid).rlimit(resource.RLIMIT_FSIZE)
    psutil.Process(server.pid).rlimit(resource.RLIMIT_FSIZE, (hard, hard))


def slow_recipe(folder: Path) -> Path:
    """The smoke recipe in two shards, and slow enough for a failure on the way."""
    recipe = yaml.safe_load(SMOKE.read_text())
    recipe["prompts"]["limit"], recipe["execution"]["shard_size"] = 16, 8
    recipe["policy"]["args"]["latency_s"] = 0.5
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.mark.slow
def test_run_goes_on_without_its_server(
    failing: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the server is full; the flow of a worker has a server that is killed."""
    path = slow_recipe(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", str(path), "--run-id", "one"],
        cwd=PROJECT_ROOT,
        env=os.environ | {"RLAIF_OUTPUTS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("supervised/critique-1"):
            break
    fill_disk(failing)
    out, err = process.communicate(timeout=300)
    free_disk(failing)
    monkeypatch.setattr(settle, "GRACE", timedelta(0))
    settle.settle_flow_runs(failing)
    states = [flow_run["state"] for flow_run in ask(failing, "flow_runs/filter")]
    assert len(states) == 2 and {state["type"] for state in states} == {"COMPLETED"}
    assert any("the server failed on the way" in str(state["message"]) for state in states)
    assert process.returncode == 0, err
    (said,) = err.splitlines()
    assert said.startswith("the Prefect server failed") and "`rlaif resume one`" in said
    # What was done is not done again, and what is left is done.
    assert "supervised/revise-2: 16 rows in 0.0 s, 16 reused" in out and "\ndone in" in out
    run = RunDir(tmp_path / "runs/one")
    assert run.info()["status"] == "finished" and verify(run) == []
    assert (run.dataset / "preference.parquet").is_file()


@pytest.mark.slow
def test_run_of_a_worker_goes_on_without_the_server(
    failing: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path))
    variables = with_environment(failing.port)
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    ask(failing, "work_pools/", name="local", type="process")
    subprocess.run(
        [*prefect, "deploy", "-n", "main"], check=True, cwd=PROJECT_ROOT, env=variables,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    (deployment,) = ask(failing, "deployments/filter")
    parameters = {"recipe": str(slow_recipe(tmp_path)), "run_id": "one"}
    ask(failing, f"deployments/{deployment['id']}/create_flow_run", parameters=parameters)
    worker = subprocess.Popen(
        [*prefect, "worker", "start", "--pool", "local", "--run-once"],
        cwd=PROJECT_ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert worker.stdout is not None
    for line in worker.stdout:
        if "supervised/critique-1" in line:
            break
    os.kill(failing.pid, signal.SIGKILL)
    said, _ = worker.communicate(timeout=600)
    (line,) = (line for line in said.splitlines() if "the Prefect server failed" in line)
    assert "continues without its records" in line and "`rlaif resume one`" in line
    assert "exited cleanly" in said and "Service 'EventsWorker'" not in said
    run = RunDir(tmp_path / "runs/one")
    assert run.info()["status"] == "finished" and verify(run) == []
    assert (run.dataset / "preference.parquet").is_file()


def test_server_elsewhere_is_named_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log is not here, and no command of ours sets states there."""
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    line = outlive._what_happens(RunDir(tmp_path / "one"), "the run continues")
    assert line.startswith("the Prefect server at http://prefect:4200/api failed, so the run")
    assert "server.log" not in line and "rlaif ui" not in line and "`rlaif resume one`" in line


def test_server_that_cannot_start_is_one_line(
    rlaif: Rlaif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, prompts=2)

    def refused(pattern: str) -> None:
        ended = rlaif("run", recipe)
        assert ended.code == 2 and ended.err.count("\n") == 1, ended.err
        assert pattern in ended.err and "or add --no-prefect" in ended.err
        assert not (tmp_path / "outputs").exists()

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("RLAIF_PREFECT_PORT", str(other.getsockname()[1]))
        refused("is in use by another program")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path / "file"))
    refused("the Prefect server cannot start (")
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path / "file/state"))
    refused("Not a directory")
