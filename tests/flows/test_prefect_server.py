"""The dedicated Prefect server: found again, never doubled, its files where they belong."""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import ConfigError, MachineError
from pipeline.prefect_server import (
    Server,
    choose_port,
    ensure_server,
    environment,
    find_server,
    is_healthy,
    join_server,
    key_path,
    port_is_free,
    settle,
    state_folder,
    stop_server,
    with_environment,
)
from pipeline.store import RunLock
from pipeline.store.files import write_json
from tests.flows.conftest import ask


def test_running_server_is_found_again(server: Server) -> None:
    notes: list[str] = []
    assert find_server() == server == ensure_server(notes.append)
    assert not notes and is_healthy(server.port)


def test_server_of_another_is_not_ours(server: Server) -> None:
    """Two that start at once may choose one port: the first to listen has it."""
    ours = key_path().read_text()
    try:
        key_path().write_text("rlaif:another")
        assert not is_healthy(server.port) and find_server() is None
    finally:
        key_path().write_text(ours)


def test_server_keeps_its_files_together(server: Server) -> None:
    home = state_folder() / "prefect"
    assert (home / "prefect.db").is_file() and (home / "server.log").is_file()
    paths = {
        name: value
        for name, value in environment(server.port).items()
        if name.endswith(("_PATH", "_HOME"))
    }
    assert len(paths) == 5 and all(Path(p).is_relative_to(home) for p in paths.values())


def test_server_survives_its_starter(server: Server) -> None:
    assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_another_port_is_not_obeyed_silently(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_PREFECT_PORT", str(server.port + 1))
    with pytest.raises(MachineError, match=f"runs on port {server.port}; `rlaif stop` ends"):
        ensure_server()


def test_stale_record_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of this process with another start time, as after a reboot: never stopped."""
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path))
    write_json(tmp_path / "server.json", {"pid": os.getpid(), "started": 1.0, "port": 4200})
    assert find_server() is None and stop_server() is None
    for record in ({"pid": "x", "started": 1.0, "port": 1}, {"pid": None}, {"other": 1}):
        write_json(tmp_path / "server.json", record)
        assert find_server() is None
    started = psutil.Process().create_time()
    assert Server(os.getpid(), started, 4200).process() == psutil.Process()
    assert Server(os.getpid(), started - 60, 4200).process() is None


def test_requested_port_must_be_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not port_is_free(port)
        monkeypatch.setenv("RLAIF_PREFECT_PORT", str(port))
        with pytest.raises(MachineError, match=f"port {port} .* is in use by another program"):
            choose_port()
    monkeypatch.setenv("RLAIF_PREFECT_PORT", "many")
    with pytest.raises(MachineError, match="is 'many', but a port number is needed"):
        choose_port()


def test_next_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLAIF_PREFECT_PORT", raising=False)
    monkeypatch.setattr("pipeline.prefect_server.port_is_free", lambda port: port == 4203)
    assert choose_port() == 4203


def test_a_port_that_another_program_takes_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path))
    monkeypatch.delenv("RLAIF_PREFECT_PORT", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter(range(taken, taken + 50))
        monkeypatch.setattr("pipeline.prefect_server.choose_port", lambda: next(ports))
        monkeypatch.setattr("pipeline.prefect_server._start", start_on_a_free_port)
        assert ensure_server().port > taken


def start_on_a_free_port(port: int) -> Server:
    """What `_start` does, without the half minute."""
    if not port_is_free(port):
        raise MachineError("the Prefect server did not start")
    return Server(os.getpid(), 0.0, port)


ATTACK = [
    ("flows/", {"name": "planted"}),
    ("deployments/", {"name": "planted", "flow_id": "0" * 32, "work_pool_name": "local"}),
    ("deployments/00000000-0000-0000-0000-000000000000/create_flow_run", {}),
]


@pytest.mark.parametrize(("path", "body"), ATTACK)
@pytest.mark.parametrize("host", ["rebound.example", None])
def test_a_web_page_is_refused(
    server: Server, path: str, body: dict[str, str], host: str | None
) -> None:
    """A page can send what it likes, except the key, which it cannot read."""
    headers = {"Origin": "https://page.example"} | ({"Host": host} if host else {})
    reply = httpx.post(f"{server.api_url}/{path}", json=body, headers=headers, trust_env=False)
    assert reply.status_code in (401, 403)
    assert "access-control-allow-origin" not in reply.headers
    assert not ask(server, "flows/filter", flows={"name": {"any_": ["planted"]}})


def test_only_its_own_pages_may_ask_from_a_browser(server: Server) -> None:
    def allowed(origin: str) -> str | None:
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        reply = httpx.options(f"{server.api_url}/flows/", headers=asks, trust_env=False)
        value: str | None = reply.headers.get("access-control-allow-origin")
        return value

    assert allowed(server.url) == server.url
    assert allowed("https://page.example") is None and allowed("null") is None
    assert allowed(f"http://127.0.0.1:{server.port + 1}") is None


def test_key_alone_is_not_enough_to_change_something(server: Server) -> None:
    """A browser that is signed in sends the key by itself."""
    name, _, secret = key_path().read_text().strip().partition(":")
    reply = httpx.post(
        f"{server.api_url}/flows/", json={"name": "x"}, auth=(name, secret), trust_env=False
    )
    assert reply.status_code == 403


def test_pages_load_and_ask_for_the_key(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, follow_redirects=True) as client:
        assert "<html" in client.get("/", headers={"accept": "text/html"}).text.lower()
        settings = client.get("/ui-settings").json()
    assert settings["auth"] == "BASIC" and settings["csrf_enabled"]
    assert settings["api_url"] == server.api_url


def test_others_cannot_read_what_the_server_writes(server: Server) -> None:
    assert (state_folder() / "prefect").stat().st_mode & 0o077 == 0
    # Results below storage are of flows, which have the umask of their command.
    files = [p for p in state_folder().rglob("*") if p.is_file() and p.parent.name != "storage"]
    assert len(files) > 4 and not [p for p in files if p.stat().st_mode & 0o077]


def test_flow_runs_without_a_process_get_the_state_of_their_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "GRACE", timedelta(0))
    flow = ask(server, "flows/", name="settled")["id"]

    def running(name: str, caller: str | None = None, **parameters: Any) -> str:
        more = {"parameters": parameters, "parent_task_run_id": caller}
        state = {"type": "RUNNING"}
        flow_run: str = ask(server, "flow_runs/", flow_id=flow, name=name, state=state, **more)[
            "id"
        ]
        return flow_run

    def folder(name: str, status: str) -> str:
        write_json(tmp_path / name / "run.json", {"run_id": name, "status": status})
        return str(tmp_path / name)

    running("finished", run_id=folder("finished", "finished"), resume=True)
    running("stopped", run_id=folder("stopped", "started"))
    running("refused", run_id=folder("refused", "audit failed"))
    running("busy", run_id=folder("busy", "started"))
    running("elsewhere", run_id="finished")
    running("gone", run_id=str(tmp_path / "gone"))
    # A worker's flow run names no folder, but its phases do; a group of shards names none either.
    outer = running("outer", recipe="r.yaml")
    call = {"task_key": "phase", "dynamic_key": "0"}
    calls = [ask(server, "task_runs/", flow_run_id=outer, **call)["id"]]
    phase = running("phase", calls[0], run=str(tmp_path / "finished"))
    running("shards", ask(server, "task_runs/", flow_run_id=phase, **call)["id"])
    with RunLock(tmp_path / "busy"):
        settle.settle_flow_runs(server)
    flows = {"flows": {"name": {"any_": ["settled"]}}}
    states = {f["name"]: f["state"]["type"] for f in ask(server, "flow_runs/filter", **flows)}
    assert states == {
        "finished": "COMPLETED",
        "stopped": "CRASHED",
        "refused": "FAILED",
        "busy": "RUNNING",
        "elsewhere": "RUNNING",
        "gone": "RUNNING",
        "outer": "COMPLETED",
        "phase": "COMPLETED",
        "shards": "COMPLETED",
    }


def test_server_of_an_earlier_version_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.prefect_server.read_key", lambda: None)
    with pytest.raises(MachineError, match=f"port {server.port} takes requests without a key"):
        ensure_server()


def test_proxy_that_no_client_can_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's client opens every proxy of the shell, also those that it never asks."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    before = dict(os.environ)
    with pytest.raises(ConfigError, match=r"with this shell's ALL_PROXY.*SOCKS"):
        join_server(Server(1, 1.0, 4321))
    assert dict(os.environ) == before


OTHERS = {
    "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///other.db",
    "prefect_server_database_host": "db.example",
    "PREFECT_PROFILE": "team",
    "PREFECT_API_REQUEST_TIMEOUT": "1.5",
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"x": "y"}',
    "UVICORN_ROOT_PATH": "/other",
    "WEB_CONCURRENCY": "3",
    "no_proxy": "intra.example",
    "http_proxy": "http://127.0.0.1:9",
}


def test_settings_of_another_prefect_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the shell, and in the three files of the working folder that Prefect reads."""
    monkeypatch.setenv("RLAIF_STATE", str(tmp_path / "state"))
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    ours = with_environment(4321)
    assert {name for name in OTHERS if name in ours} == {"no_proxy", "http_proxy"}
    hosts = set(ours["no_proxy"].split(","))
    assert hosts == set(ours["NO_PROXY"].split(",")) >= {"intra.example", "127.0.0.1", "::1"}
    (tmp_path / "state/prefect").mkdir(parents=True)
    (tmp_path / ".env").write_text("PREFECT_API_REQUEST_TIMEOUT=2.5\n")
    (tmp_path / "prefect.toml").write_text('[server.database]\nconnection_url = "sqlite:///t"\n')
    (tmp_path / "pyproject.toml").write_text("[tool.prefect.client]\nmax_retries = 99\n")
    code = (
        "import json; from pipeline.prefect_server import *\n"
        "join_server(Server(1, 1.0, 4321)); from prefect.settings import get_current_settings\n"
        "s = get_current_settings(); u = s.server.database.connection_url.get_secret_value()\n"
        "print(json.dumps([s.api.url, s.api.request_timeout, s.client.max_retries, u,\n"
        " s.server.database.host, len(s.client.custom_headers)]))"
    )
    end = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert end.returncode == 0, end.stderr
    url, timeout, retries, database, host, headers = json.loads(end.stdout)
    assert url == "http://127.0.0.1:4321/api" and timeout == 60 and retries == 2
    assert database == f"sqlite+aiosqlite:///{tmp_path}/state/prefect/prefect.db"
    assert host is None and headers == 0
