"""prefect.yaml: its deployments can be made, and a cron gets a scheduled run."""

import subprocess
import sys
import time

import yaml
from prefect import Flow

from flows import end_to_end, nightly
from pipeline.config.paths import PROJECT_ROOT
from pipeline.prefect_server import Server, with_environment
from pipeline.run.phases import PHASES
from tests.flows.conftest import ask


def test_cron_gets_a_scheduled_run(server: Server) -> None:
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
    assert "nightly/nightly" in serve_until_ready(server)


def serve_until_ready(server: Server) -> str:
    """`python -m flows.serve` beside deployments that are there already; what it says then."""
    said = ""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "flows.serve"],
        cwd=PROJECT_ROOT,
        text=True,
        env=with_environment(server.port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "nightly/nightly" in line:
                break
        process.terminate()
    return said


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
