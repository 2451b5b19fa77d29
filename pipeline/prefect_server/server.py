"""A dedicated Prefect server on loopback: started when none runs, found again, ended on request.

In:  the state folder `.state/` of the project (`RLAIF_STATE` names another)
Out: Server; its process is recorded in `.state/server.json` and goes on after the command ends

Prefect's ephemeral mode is never used: it loses most task-run records at exit. All of the server's
files stay below `.state/prefect`, which `PREFECT_HOME` alone does not bring about, and nothing is
sent to anybody.

Does not: guard the server against other users of this machine; loopback is all its protection.
"""

import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import MachineError
from pipeline.prefect_server.processes import end_process, is_same_process, start_time
from pipeline.store.files import read_json, write_json

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
LAST_PORT = 4299
START_LIMIT_S = 300.0
"""The first start migrates a database: 21 s were seen on an idle machine, 90 s on a crowded one."""


@dataclass(frozen=True)
class Server:
    """A Prefect server that this project started."""

    pid: int
    started: float
    """Start of the process, seconds since 1970; tells a reused process id apart."""
    port: int

    @property
    def url(self) -> str:
        """Its pages."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Its API."""
        return f"{self.url}/api"


def state_folder() -> Path:
    """Folder of the server's files and of its record."""
    return Path(os.environ.get("RLAIF_STATE", PROJECT_ROOT / ".state")).resolve()


def environment(port: int) -> dict[str, str]:
    """Variables for the server and for everything that talks to it, flows and workers alike."""
    home = state_folder() / "prefect"
    api = f"http://{HOST}:{port}/api"
    return {
        "PREFECT_HOME": str(home),
        # Nested settings do not see PREFECT_HOME and would write to the user's home.
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_LOGGING_SETTINGS_PATH": str(home / "logging.yml"),
        "PREFECT_API_URL": api,
        # What the browser calls; without it another port than 4200 gives a blank page.
        "PREFECT_UI_API_URL": api,
        "PREFECT_API_KEY": "",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }


def find_server() -> Server | None:
    """The recorded server if its process is still the same one and it answers."""
    record = read_json(_record_path())
    try:
        server = Server(**record)
    except TypeError:
        return None
    alive = is_same_process(server.pid, server.started)
    return server if alive and is_healthy(server.port) else None


def ensure_server(note: Callable[[str], None] = lambda text: None) -> Server:
    """The running server, or a new one that is ready.

    Args:
        note: told what is happening while a person waits.

    Raises:
        MachineError: the port asked for is taken, or the server did not start.
    """
    with _state_lock():
        if server := find_server():
            wanted = _port_asked_for()
            if wanted in (None, server.port):
                return server
            raise MachineError(
                f"RLAIF_PREFECT_PORT is {wanted}, but this project's Prefect server runs on port "
                f"{server.port}; `rlaif stop` ends that one"
            )
        port = choose_port()
        note(f"starting the Prefect server on port {port} (the first start takes half a minute)")
        return _start(port)


def stop_server() -> Server | None:
    """End the server that was recorded; None when there was none."""
    with _state_lock():
        record = read_json(_record_path())
        _record_path().unlink(missing_ok=True)
        if not record:
            return None
        server = Server(**record)
        return server if end_process(server.pid, server.started) else None


def choose_port() -> int:
    """The port asked for by RLAIF_PREFECT_PORT, else 4200, else the next free one.

    Raises:
        MachineError: the port asked for is in use, or none is free.
    """
    wanted = _port_asked_for()
    if wanted is not None:
        if port_is_free(wanted):
            return wanted
        raise MachineError(
            f"port {wanted} (RLAIF_PREFECT_PORT) is in use by another program; "
            "end that program, or set another port"
        )
    for port in range(DEFAULT_PORT, LAST_PORT + 1):
        if port_is_free(port):
            return port
    raise MachineError(
        f"ports {DEFAULT_PORT} to {LAST_PORT} are all in use; set RLAIF_PREFECT_PORT to a free one"
    )


def port_is_free(port: int) -> bool:
    """True when a server could listen on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_healthy(port: int) -> bool:
    """True when a Prefect API answers on this port."""
    # A proxy from the environment must not be asked for a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/api/health", timeout=5) as reply:
            return bool(reply.read().strip() == b"true")
    except (OSError, ValueError):
        return False


def _start(port: int) -> Server:
    home = state_folder() / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    with log.open("ab") as stream:
        # A session of its own: neither Ctrl-C nor the end of this command reaches the server.
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment(port)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=home,
        )
    server = Server(process.pid, start_time(process.pid) or 0.0, port)
    write_json(_record_path(), asdict(server))
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        if is_healthy(port):
            process.returncode = 0  # it outlives this process on purpose; nobody waits for it
            return server
        time.sleep(0.25)
    end_process(server.pid, server.started)
    _record_path().unlink(missing_ok=True)
    raise MachineError(
        f"the Prefect server did not start on port {port}; the end of {log} says why, and "
        "`rlaif run --no-prefect` works without it"
    )


def _port_asked_for() -> int | None:
    text = os.environ.get("RLAIF_PREFECT_PORT", "")
    if not text:
        return None
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise MachineError(
            f"RLAIF_PREFECT_PORT is '{text}', but a port number is needed; correct it"
        )
    return int(text)


def _record_path() -> Path:
    return state_folder() / "server.json"


@contextmanager
def _state_lock() -> Iterator[None]:
    """Two commands at once must not start two servers."""
    state_folder().mkdir(parents=True, exist_ok=True)
    with (state_folder() / "server.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
