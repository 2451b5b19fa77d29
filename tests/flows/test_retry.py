"""Cancel and retry of the UI, which are two requests: nothing is left running, nothing is lost."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.data.verify import verify
from pipeline.prefect_server import Server
from pipeline.run.start import start_run
from pipeline.store import RunDir
from pipeline.store.remote import is_locked
from pipeline.store.shards import stage_manifests
from tests.flows.conftest import ask, start_serve
from tests.flows.test_failing_server import slow_recipe
from tests.training.builders import pair_row, write_rows

CANCEL = {"type": "CANCELLING", "name": "Cancelling", "message": "canceled in the UI"}
RETRY = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}


def wait_for(seen: Callable[[], Any]) -> Any:
    for _ in range(600):
        if value := seen():
            return value
        time.sleep(0.2)
    pytest.fail("waited for two minutes")


def set_state(server: Server, flow_run: str, state: dict[str, str], *, then: str) -> None:
    """What a button of the UI asks, and its effect."""
    ask(server, f"flow_runs/{flow_run}/set_state", state=state, force=True)
    only = {"id": {"any_": [flow_run]}}
    wait_for(lambda: ask(server, "flow_runs/filter", flow_runs=only)[0]["state_type"] == then)


def processes_of(served: int, command: str = "") -> list[int]:
    """Ids of the flow runs' processes, and of theirs, whose command line has a text."""
    found = []
    for child in psutil.Process(served).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            if command in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_cancel_and_retry_of_the_ui(server: Server, tmp_path: Path) -> None:
    """A run is canceled while it makes texts and retried to its end; a training is canceled.
    SIGTERM ends the serving in the background of a script, too.
    """
    process = start_serve(tmp_path, subprocess.STDOUT, sigint=signal.SIG_IGN)
    try:
        assert process.stdout is not None
        assert any(line.startswith("Ctrl-C") for line in process.stdout)
        found = {d["name"]: d["id"] for d in ask(server, "deployments/filter")}

        def begin(**parameters: object) -> str:
            path = f"deployments/{found['main']}/create_flow_run"
            return str(ask(server, path, parameters=parameters)["id"])

        run = RunDir(tmp_path / "runs/one")
        flow_run = begin(recipe=str(short_recipe(tmp_path)), run_id="one")
        finished = wait_for(lambda: stage_manifests(run.root, "preference/sample"))
        set_state(server, flow_run, CANCEL, then="CANCELLED")
        assert not processes_of(process.pid) and not is_locked(run.root)
        assert run.info()["status"] != "finished" and verify(run) == []
        set_state(server, flow_run, RETRY, then="COMPLETED")
        assert run.info()["status"] == "finished" and verify(run) == []
        again = stage_manifests(run.root, "preference/sample")
        assert again[: len(finished)] == finished and len(again) == 2

        run = labeled_run(tmp_path)
        flow_run = begin(
            recipe=str(run.recipe), run_id=str(run.root), resume=True, phases=["training"]
        )
        (worker,) = wait_for(lambda: processes_of(process.pid, "pipeline.training.worker"))
        set_state(server, flow_run, CANCEL, then="CANCELLED")
        assert not psutil.pid_exists(worker) and not is_locked(run.root)
    finally:
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode == 0


def short_recipe(folder: Path) -> Path:
    """The slow recipe with samples, labels and pairs alone, slower than a busy server's cancel."""
    path = slow_recipe(folder)
    recipe: dict[str, Any] = yaml.safe_load(path.read_text())
    recipe |= {"supervised": {"enabled": False}, "evaluation": {"enabled": False}}
    recipe["policy"]["args"]["latency_s"] = 2.0
    path.write_text(yaml.safe_dump(recipe))
    return path


def labeled_run(folder: Path) -> RunDir:
    """A run of the pocket model whose pairs are there."""
    recipe: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe |= {"name": "trained"}
    recipe["policy"] = {"type": "vllm", "model": "models/pocket", "dtype": "float32"}
    recipe["preference"] = {"train": {"method": "dpo", "epochs": 1000}}
    (folder / "trained.yaml").write_text(yaml.safe_dump(recipe))
    run = start_run(folder / "trained.yaml", run_id="two", runs_root_folder=folder / "runs")
    run.dataset.mkdir()
    write_rows(run.dataset / "preference.parquet", [pair_row(i) for i in range(16)])
    return run
