"""prefect.yaml: its deployments can be made, and a cron gets a scheduled run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from pydantic import ValidationError

from flows import end_to_end, nightly
from flows.serve import Deployment
from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.verify import verify
from pipeline.errors import ConfigError
from pipeline.prefect_server import Server, with_environment
from pipeline.run.phases import PHASES
from pipeline.store import RunDir
from pipeline.store.remote import is_locked
from pipeline.store.shards import stage_manifests
from tests.flows.conftest import ask, start_serve
from tests.flows.test_failing_server import slow_recipe


def test_cron_gets_a_scheduled_run(server: Server, tmp_path: Path) -> None:
    """SQLAlchemy 2.1 breaks the scheduler without a word: no run is ever scheduled."""
    ask(server, "work_pools/", name="local", type="process")
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        check=True,
        cwd=PROJECT_ROOT,
        env=with_environment(server.port),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    found = {d["name"]: d for d in ask(server, "deployments/filter")}
    assert set(found) == {"main", "label-only", "train-only", "evaluate-only", "nightly"}
    form = found["label-only"]["parameter_openapi_schema"]["properties"]
    assert form["prompts"]["anyOf"][0] == {"minimum": 1, "type": "integer"}
    assert form["phases"]["anyOf"][0]["items"]["enum"] == list(PHASES)
    assert form["overrides"]["anyOf"][0]["items"]["pattern"] == "^[^=]+="
    assert all(each["description"] for each in form.values())
    assert found["nightly"]["global_concurrency_limit"]["limit"] == 1
    only = {"id": {"any_": [found["nightly"]["id"]]}}
    for _ in range(300):
        runs = ask(server, "flow_runs/filter", deployments=only)
        if runs:
            break
        time.sleep(0.2)
    assert runs and runs[0]["state_type"] == "SCHEDULED" and runs[0]["auto_scheduled"]
    assert_served(server, found, tmp_path)


def assert_served(server: Server, deployed: dict[str, Any], folder: Path) -> None:
    """`rlaif serve` beside deployments that are there already makes the same ones and runs them;
    Ctrl-C cancels the run.
    """
    parameters = {"recipe": str(slow_recipe(folder)), "run_id": "one"}
    create = f"deployments/{deployed['main']['id']}/create_flow_run"
    run = RunDir(folder / "runs/one")
    with start_serve(folder, subprocess.PIPE) as process:
        flow_run = ask(server, create, parameters=parameters)["id"]
        for _ in range(600):
            if stage_manifests(run.root, "supervised/sample"):
                break
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        said, problem = process.communicate()
    assert (process.returncode, problem) == (0, "")
    (canceled,) = ask(server, "flow_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
    assert canceled["state_type"] == "CANCELLED" and not is_locked(run.root)
    assert run.info()["status"] != "finished" and verify(run) == []
    served = {d["name"]: d for d in ask(server, "deployments/filter")}
    assert {name: settings(d) for name, d in served.items()} == {
        name: settings(d) for name, d in deployed.items()
    }
    for name, deployment in served.items():
        assert f"/{name}: {deployment['description']}\n" in said


def settings(deployment: dict[str, Any]) -> dict[str, Any]:
    """What prefect.yaml says of a deployment, and its form."""
    keys = ("description", "parameters", "parameter_openapi_schema", "concurrency_options")
    limit = deployment["global_concurrency_limit"]
    return {
        **{key: deployment[key] for key in keys},
        "limit": limit and limit["limit"],
        "schedules": [(s["slug"], s["active"], s["schedule"]) for s in deployment["schedules"]],
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedules": [{"cron": "1 2 * * *", "timezone": "Europe/Nowhere"}]}, "timezone"),
        ({"schedules": [{"interval": 0}]}, "interval: Input should be greater than 0"),
        ({"entrypoint": "flows/gone.py:nightly"}, "No module named 'flows.gone'"),
        ({"entrypoint": "flows/nightly.py:weekly"}, "entrypoint flows/nightly.py:weekly: "),
        ({"parameters": {"recip": "x"}}, "no parameter 'recip', only recipe, run_id"),
        ({"schedules": [{"cron": "1 2 * * *", "parameters": {"a": 1}}]}, "no parameter 'a', only"),
        ({"schedules": [{"timezone": "UTC"}]}, "a schedule has none of cron, interval and rrule"),
    ],
)
def test_deployment_that_would_never_run_is_one_line(values: dict[str, Any], message: str) -> None:
    nights = {"name": "nightly", "description": "", "entrypoint": "flows/nightly.py:nightly"}
    deployment = Deployment.model_validate({**nights, "parameters": {"recipe": "x"}, **values})
    with pytest.raises(ConfigError, match=rf"deployment 'nightly' of prefect.yaml: .*{message}"):
        deployment.served()


def test_misspelt_key_of_a_schedule_is_refused() -> None:
    values = {"name": "n", "description": "", "entrypoint": "e", "parameters": {}}
    with pytest.raises(ValidationError, match="crn"):
        Deployment.model_validate({**values, "schedules": [{"crn": "1 2 * * *"}]})


@pytest.mark.parametrize("limit", [0, {"limit": 0}, {"limit": -1}])
def test_limit_that_would_start_no_run_is_refused(limit: object) -> None:
    values = {"name": "n", "description": "", "entrypoint": "e", "parameters": {}}
    with pytest.raises(ValidationError, match="greater than 0"):
        Deployment.model_validate({**values, "concurrency_limit": limit})
    taken = Deployment.model_validate({**values, "concurrency_limit": 2}).concurrency_limit
    assert taken and taken.limit == 2


def test_entrypoints_name_flows() -> None:
    known = {
        "flows/end_to_end.py:end_to_end": end_to_end.end_to_end,
        "flows/nightly.py:nightly": nightly.nightly,
    }
    deployments = yaml.safe_load((PROJECT_ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        flow = known[deployment["entrypoint"]]
        assert isinstance(flow, Flow)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert (PROJECT_ROOT / deployment["parameters"]["recipe"]).is_file()
