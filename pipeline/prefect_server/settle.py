"""Flow runs that stay `Running` because their server failed, or their process was killed, get the
state of the run folder that they name.

In:  the server, whenever a command of ours finds or starts it
Out: `Completed` where the run is finished, `Crashed` where it is not. Where a process works in the
     folder, or where no folder can be told, the state stays

Does not: fill in the records of single stages; `rlaif resume` shows the work that was done.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from pipeline.errors import PipelineError
from pipeline.prefect_server import Server, read_key
from pipeline.run.audit_gate import AUDIT_FAILED
from pipeline.store import RunDir
from pipeline.store.remote import is_locked

Json = dict[str, Any]
GRACE = timedelta(minutes=1)
"""A flow run that began this recently may not hold its folder yet."""
CLIENT = "rlaif"
RUNNING = {"state": {"type": {"any_": ["RUNNING"]}}}
_STOPPED = "no process works for this flow run; `rlaif resume {run}` continues its run"
_ENDS = {
    "finished": ("COMPLETED", "run {run} is finished; the server failed on the way to its end"),
    AUDIT_FAILED: ("FAILED", "the audit of run {run} failed, as its report shows"),
}
"""State and message, by the status of the run; any other run was stopped."""


def settle_flow_runs(server: Server) -> None:
    """Set the state of the flow runs that no process works for; a server that fails is left."""
    name, _, secret = (read_key() or "").partition(":")
    with (
        suppress(httpx.HTTPError),
        httpx.Client(
            base_url=server.api_url, auth=(name, secret), timeout=10, trust_env=False
        ) as client,
    ):
        token = client.get("csrf-token", params={"client": CLIENT}).raise_for_status().json()
        client.headers.update({"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": CLIENT})

        def ask(path: str, **body: Any) -> Any:
            return client.post(path, json=body).raise_for_status().json()

        before = {"start_time": {"before_": (datetime.now(UTC) - GRACE).isoformat()}}
        flow_runs = ask("flow_runs/filter", flow_runs=RUNNING | before)
        callers = {"id": {"any_": [f["parent_task_run_id"] for f in flow_runs if _is_inner(f)]}}
        parents = {t["id"]: t["flow_run_id"] for t in ask("task_runs/filter", task_runs=callers)}
        for folder, members in _by_folder(flow_runs, parents).items():
            state = _state(folder)
            if state is None:
                continue
            ids = {"id": {"any_": [flow_run["id"] for flow_run in members]}}
            for task_run in ask("task_runs/filter", flow_runs=ids, task_runs=RUNNING):
                ask(f"task_runs/{task_run['id']}/set_state", state=state, force=True)
            for flow_run in members:
                ask(f"flow_runs/{flow_run['id']}/set_state", state=state, force=True)


def _is_inner(flow_run: Json) -> bool:
    return flow_run["parent_task_run_id"] is not None


def _by_folder(flow_runs: Iterable[Json], parents: dict[str, str]) -> dict[Path, list[Json]]:
    """The flow runs of each folder that the outermost or one of those inside it names."""
    by_id = {flow_run["id"]: flow_run for flow_run in flow_runs}
    families: dict[str, list[Json]] = {}
    for flow_run in by_id.values():
        top = flow_run
        while (above := parents.get(top["parent_task_run_id"])) in by_id:
            top = by_id[above]
        families.setdefault(top["id"], []).append(flow_run)
    folders: dict[Path, list[Json]] = {}
    for members in families.values():
        named = {p for f in members for p in map(f["parameters"].get, ("run", "run_id")) if p}
        # A bare id may be that of a run of other outputs.
        for path in filter(Path.is_absolute, map(Path, sorted(map(str, named)))):
            folders.setdefault(path, []).extend(members)
            break
    return folders


def _state(folder: Path) -> Json | None:
    """The state in which the run of this folder is; None where it cannot be told, or changes."""
    try:
        info = RunDir(folder).require().info()
        if is_locked(folder):
            return None
    except (OSError, ValueError, PipelineError):
        return None
    kind, said = _ENDS.get(str(info.get("status")), ("CRASHED", _STOPPED))
    return {"type": kind, "name": kind.title(), "message": said.format(run=folder)}
