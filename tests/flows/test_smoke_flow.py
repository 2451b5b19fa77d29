"""The shipped smoke recipe through Prefect: states, graph, artifacts, resume, groups."""

import json
import time
from typing import Any

from pipeline.store import RunDir
from tests.flows.conftest import Flows, ask

Json = dict[str, Any]


def begun(flows: Flows) -> list[Json]:
    """Flow runs that have begun, oldest first; deployments may have scheduled others."""
    only = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
    found: list[Json] = ask(flows.server, "flow_runs/filter", flow_runs=only, sort="START_TIME_ASC")
    return found


def flow_runs(flows: Flows, run_id: str) -> list[Json]:
    """The flow runs of a run folder, oldest first."""
    return [
        f
        for f in begun(flows)
        if (f["parameters"].get("run_id") or f["parameters"].get("run", "")).endswith(run_id)
    ]


def task_runs(flows: Flows, flow_run: Json) -> dict[str, Json]:
    """Task runs of a flow run by name."""
    only = {"id": {"any_": [flow_run["id"]]}}
    return {t["name"]: t for t in ask(flows.server, "task_runs/filter", flow_runs=only)}


def wait_for_tasks(flows: Flows, flow_run: Json, expected: int) -> dict[str, Json]:
    """All task runs of a flow run: they reach the server as events, a little later."""
    for _ in range(300):
        found = task_runs(flows, flow_run)
        if len(found) >= expected and all(t["end_time"] for t in found.values()):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{len(found)} of {expected} task runs recorded: {sorted(found)}")


def upstream(tasks: dict[str, Json], name: str) -> set[str]:
    """Names of the task runs that a task run got something from."""
    names = {task["id"]: key for key, task in tasks.items()}
    inputs = [i for values in tasks[name]["task_inputs"].values() for i in values]
    return {names[i["id"]] for i in inputs if i["input_type"] == "task_run"}


def test_server_is_never_too_busy(flows: Flows) -> None:
    """Each refused request costs two seconds, and three in a row the records of a run."""
    assert flows.ends["unavailable"] == []


def test_graph_has_the_true_edges(flows: Flows) -> None:
    main, supervised, preference = flow_runs(flows, "graph")
    assert main["state"]["name"] == "Completed" and main["name"] == "smoke · graph"
    constitution = RunDir(flows.outputs / "runs/graph").info()["constitution"]
    version = f"{constitution['name']}@{constitution['hash'][:8]}"
    assert {"smoke", version, "scripted"} <= set(main["tags"])
    assert supervised["name"] == "supervised: sample, critique, revise, 2 rounds"
    # 64 prompts in shards of 16, two rounds: 4 x 5 stages, the data set, the training.
    tasks = wait_for_tasks(flows, supervised, 22)
    assert len(tasks) == 22
    assert upstream(tasks, "critique-1-00002") == {"sample-00002"}
    assert upstream(tasks, "revise-1-00002") == {"sample-00002", "critique-1-00002"}
    assert upstream(tasks, "critique-2-00003") == {"revise-1-00003"}
    assert upstream(tasks, "write-sft-set") == {f"revise-2-{i:05d}" for i in range(4)}
    assert upstream(tasks, "train-sft") == {"write-sft-set"}
    pairs = wait_for_tasks(flows, preference, 17)
    assert upstream(pairs, "canary-00001") == {"judge-00001", "sample-00001"}
    assert upstream(pairs, "pair-00001") == {"judge-00001", "sample-00001"}
    # The smoke recipe trains nothing and holds nothing out: no flow runs for these phases.
    steps = {"training: left out", "evaluation: figures of the data", "report"}
    assert steps < set(wait_for_tasks(flows, main, 5))


def test_artifacts_show_the_result(flows: Flows) -> None:
    run = RunDir(flows.outputs / "runs/graph")
    found = {a["key"]: a for a in ask(flows.server, "artifacts/filter")}
    assert {"summary-graph", "principles-graph", "report-graph", "audit-graph"} <= set(found)
    assert "Every check passed" in found["audit-graph"]["data"]
    assert found["principles-graph"]["type"] == "table"
    assert all(found[f"{kind}-graph"]["description"] for kind in ("summary", "report", "audit"))
    assert (found["progress-graph"]["type"], found["progress-graph"]["data"]) == ("progress", 100)
    assert json.loads(found["workers-groups"]["data"]) == [{"worker": 0, "rows": 3}]
    plot = found["plot-graph"]
    assert plot["type"] == "image" and plot["data"].startswith("data:image/svg+xml;base64,")
    assert plot["description"] == "Margins of all labeled pairs, graph"
    assert run.report.is_file() and run.report.as_uri() in found["report-graph"]["data"]


def test_resume_shows_reused_stages(flows: Flows) -> None:
    preference = [f for f in flow_runs(flows, "again") if f["name"].startswith("preference: ")][1]
    states = {n: t["state_name"] for n, t in wait_for_tasks(flows, preference, 17).items()}
    assert states["sample-00001"] == "Reused" and states["judge-00000"] == "Reused"
    # The same rows give the same bytes, so the pairs of the shard that was judged anew stay.
    assert states["judge-00001"] == "Completed" and states["pair-00001"] == "Reused"


def test_failed_audit_ends_the_run_and_is_shown(flows: Flows) -> None:
    assert flows.ends["refused"]["state"] == "Failed"
    assert "the audit of run refused failed: injected of" in flows.ends["refused"]["message"]
    run = RunDir(flows.outputs / "runs/refused")
    assert run.report.is_file() and not (run.dataset / "preference.parquet").exists()
    found = {a["key"]: a["data"] for a in ask(flows.server, "artifacts/filter")}
    assert "Nothing was exported" in found["audit-refused"]


def test_second_process_is_refused(flows: Flows) -> None:
    assert flows.ends["locked"]["state"] == "Failed"
    assert "is in use by process" in flows.ends["locked"]["message"]


def test_further_shards_go_to_subflows(flows: Flows) -> None:
    assert flows.ends["groups"]["state"] == "Completed"
    all_runs = begun(flows)
    supervised = next(f for f in flow_runs(flows, "groups") if f["name"].startswith("supervised: "))
    tasks = wait_for_tasks(flows, supervised, 13)
    assert "revise-2-00001" in tasks and "revise-2-00002" not in tasks
    group = next(
        f
        for f in all_runs
        if f["parent_task_run_id"] in {t["id"] for t in tasks.values()}
        and f["name"] == "shards-2-3"
    )
    assert group["state"]["name"] == "Completed"
    inside = wait_for_tasks(flows, group, 10)
    assert upstream(inside, "revise-1-00002") == {"sample-00002", "critique-1-00002"}


def test_log_says_why_nothing_moves(flows: Flows) -> None:
    assert flows.ends["waiting"]["state"] == "Completed"
    (supervised,) = (f for f in flow_runs(flows, "waiting") if f["name"].startswith("supervised: "))
    logs = ask(flows.server, "logs/filter", logs={"flow_run_id": {"any_": [supervised["id"]]}})
    lines = [log["message"] for log in logs]
    assert any(
        line.startswith("waiting: endpoint http") and "has sent nothing for" in line
        for line in lines
    ), lines
    assert any("answers again, after" in line for line in lines)
