"""A Prefect server on loopback: started when none is running, found again, stopped on request.

In:  the state folder `.state/` of the project (`RLAIF_STATE` names another)
Out: Server; its process is recorded in `.state/server.json` and outlives the command

Prefect's ephemeral mode is never used: it loses most task-run records at exit. All of the server's
files stay below `.state/prefect`, which `PREFECT_HOME` alone does not achieve, and nothing is sent
to third parties.

Loopback does not keep out the pages that a person's browser shows, or other users of the machine.
So every request needs a random key, which is in a file that only its owner can read, and pages of
other origins are refused. Prefect's variables in the shell belong to another Prefect: they reach
neither the server nor its clients.

Does not: guard the server against programs of the same user.
"""

import fcntl
import importlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from pipeline.config.paths import PROJECT_ROOT, path_problem, shown_path
from pipeline.engines.openai import named_variables
from pipeline.errors import MachineError, PipelineError
from pipeline.store.files import read_json, write_json

HOST = "127.0.0.1"
PORTS = range(4200, 4300)
START_LIMIT_S = 300.0
"""The first start migrates a database: it took 21 s on an idle machine, 90 s on a busy one."""
STOP_LIMIT_S = 10.0
"""Seconds between SIGTERM and SIGKILL."""
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
"""Prefect's only setting that is taken from the shell."""
_FOREIGN = ("PREFECT_", "UVICORN_", "WEB_CONCURRENCY")
"""Beginnings of the variables that would change the server or its clients."""
_NO_PROXY = ("NO_PROXY", "no_proxy")
"""Programs read either; Python prefers the second."""


@dataclass(frozen=True)
class Server:
    """A Prefect server that this project started."""

    pid: int
    started: float
    """Start of the process, in seconds since 1970; tells a reused process id apart."""
    port: int

    @property
    def url(self) -> str:
        """Address of its web pages."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of its API."""
        return f"{self.url}/api"

    def process(self) -> psutil.Process | None:
        """The running process; None when it has ended, even if its id is in use again."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < 1.0
            return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, ValueError, OverflowError):
            return None


def state_folder() -> Path:
    """Folder of the server's files and of its record."""
    path = Path(os.environ.get("RLAIF_STATE", PROJECT_ROOT / ".state"))
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"RLAIF_STATE is {shown_path(path)}, which cannot be a folder ({path_problem(error)}); "
            "correct it"
        ) from None


def environment(port: int) -> dict[str, str]:
    """Variables for the server and for everything that talks to it: commands, flows, workers.

    They belong on top of `foreign_variables` removed; `with_environment` does both.
    """
    home = _home()
    api = f"http://{HOST}:{port}/api"
    key = read_key() or ""
    proxied = {host for name in _NO_PROXY for host in os.environ.get(name, "").split(",") if host}
    direct = ",".join(sorted(proxied | {HOST, "localhost", "::1"}))
    return {
        "PREFECT_HOME": str(home),
        # Nested settings do not see PREFECT_HOME and would write to the user's home.
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_LOGGING_SETTINGS_PATH": str(home / "logging.yml"),
        "PREFECT_API_URL": api,
        # What the browser calls; without it, any port but 4200 shows a blank page.
        "PREFECT_UI_API_URL": api,
        "PREFECT_API_KEY": "",
        "PREFECT_API_AUTH_STRING": key,
        "PREFECT_SERVER_API_AUTH_STRING": key,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # A run continues without its server, so Prefect must neither wait for it long nor complain.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        **dict.fromkeys(_NO_PROXY, direct),
    }


def foreign_variables() -> list[str]:
    """Names of the shell's variables that are meant for another Prefect."""
    # Prefect reads its settings in any case.
    return [
        name
        for name in os.environ
        if name.upper().startswith(_FOREIGN) and name.upper() != CONSOLE_LEVEL
    ]


def with_environment(port: int) -> dict[str, str]:
    """The variables of this process without those of another Prefect, and with `environment`."""
    foreign = set(foreign_variables())
    return {k: v for k, v in os.environ.items() if k not in foreign} | environment(port)


def join_server(server: Server) -> None:
    """Point this process at the server, and import Prefect.

    Prefect also reads `.env`, `prefect.toml` and `pyproject.toml` of the working folder, once, when
    it is imported: that happens in a folder of ours.

    Raises:
        ConfigError: with a proxy of the shell no client can be made, not even for loopback.
    """
    with named_variables(server.api_url):
        httpx.Client().close()
    variables = with_environment(server.port)
    os.environ.clear()
    os.environ.update(variables)
    # The terminal shows progress; Prefect's own lines go to its pages.
    os.environ.setdefault(CONSOLE_LEVEL, "CRITICAL")
    logging.raiseExceptions = False
    with chdir(_home()):
        importlib.import_module("prefect.main")


def read_key() -> str | None:
    """What the server asks of every request, `rlaif:SECRET`; None when there is none yet."""
    try:
        return key_path().read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def key_path() -> Path:
    """File with the server's key."""
    return _home() / "key"


def find_server() -> Server | None:
    """The recorded server, if its process is still running and answers."""
    server = _recorded_server()
    return server if server and server.process() and is_healthy(server.port) else None


def ensure_server(notify: Callable[[str], None] = lambda text: None) -> Server:
    """The running server, or a new one that is ready.

    Args:
        notify: called with one line before a start that takes a while.

    Raises:
        MachineError: the requested port is taken, or the server did not start.
    """
    with _state_lock():
        if server := find_server():
            if read_key() is None:
                raise MachineError(
                    f"the Prefect server on port {server.port} takes requests without a key, since "
                    "an earlier version started it; `rlaif stop` ends it, and the next command "
                    "starts another"
                )
            requested = _requested_port()
            if requested in (None, server.port):
                return server
            raise MachineError(
                f"RLAIF_PREFECT_PORT is {requested}, but this project's Prefect server runs on "
                f"port {server.port}; `rlaif stop` ends that one"
            )
        while True:
            port = choose_port()
            notify(
                f"starting the Prefect server on port {port} (the first start takes half a minute)"
            )
            try:
                return _start(port)
            except MachineError:
                # Another program may have taken the port before this one listened on it.
                if _requested_port() is not None or port_is_free(port):
                    raise


def stop_server() -> Server | None:
    """Stop the recorded server and return it; None when none was running."""
    with _state_lock():
        server = _recorded_server()
        _record_path().unlink(missing_ok=True)
        return server if server and _end(server) else None


def choose_port() -> int:
    """The port in RLAIF_PREFECT_PORT, else the first free one from 4200 on.

    Raises:
        MachineError: the requested port is in use, or none is free.
    """
    requested = _requested_port()
    for port in PORTS if requested is None else [requested]:
        if port_is_free(port):
            return port
    if requested is None:
        raise MachineError(
            f"ports {PORTS.start} to {PORTS[-1]} are all in use; set RLAIF_PREFECT_PORT to a free "
            "one"
        )
    raise MachineError(
        f"port {requested} (RLAIF_PREFECT_PORT) is in use by another program; end that program, or "
        "set another port"
    )


def port_is_free(port: int) -> bool:
    """True when a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_healthy(port: int) -> bool:
    """True when the Prefect API on this port takes our key: it may be the server of another.

    Without a key, which servers of earlier versions did not have, any Prefect API counts.
    """
    key = read_key()
    name, _, secret = (key or "").partition(":")
    try:
        # A proxy from the environment must not be asked for a loopback address.
        with httpx.Client(auth=(name, secret), timeout=5, trust_env=False) as client:
            path = "admin/version" if key else "health"
            reply = client.get(f"http://{HOST}:{port}/api/{path}")
    except httpx.HTTPError:
        return False
    return reply.status_code == 200


def is_server_failure(error: Exception) -> bool:
    """Whether an error is one of this process's Prefect server, not of the run that it records."""
    if "prefect" not in sys.modules or isinstance(error, PipelineError):
        return False
    return isinstance(error, httpx.HTTPError) or not server_answers()


def reports_elsewhere() -> str | None:
    """Address of the Prefect API to which this process reports, where this project did not start
    its server; None for one of ours.
    """
    api, server = os.environ.get("PREFECT_API_URL", ""), _recorded_server()
    return api if api and (server is None or api != server.api_url) else None


def server_answers() -> bool:
    """Whether the Prefect server to which this process reports can be reached."""
    api = os.environ.get("PREFECT_API_URL", "")
    try:
        # A worker may report to a server elsewhere, which may need the shell's proxy.
        reply = httpx.get(f"{api}/health", timeout=5, trust_env=f"//{HOST}:" not in api)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return reply.status_code < 500


def _start(port: int) -> Server:
    home = _home()
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    if read_key() is None or key_path().stat().st_mode & 0o077:
        _write_key()
    log = home / "server.log"
    command = [sys.executable, "-m", "pipeline.prefect_server.serve", "--host", HOST]
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as stream:
        # A session of its own: neither Ctrl-C nor the end of this command reaches the server.
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=with_environment(port) | {"PYTHONPATH": os.pathsep.join(paths)},
            umask=0o077,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=home,
        )
    server = Server(process.pid, psutil.Process(process.pid).create_time(), port)
    try:
        write_json(_record_path(), asdict(server))
        _record_path().chmod(0o600)
    except BaseException:
        _end(server)  # without its record, it would be found by no command
        raise
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if is_healthy(port):
            process.returncode = 0  # it outlives this process on purpose; nothing waits for it
            return server
        time.sleep(0.25)
    _end(server)
    _record_path().unlink(missing_ok=True)
    raise MachineError(
        f"the Prefect server did not start on port {port}; correct what the end of {log} says"
    )


def _end(server: Server) -> bool:
    """End the server and its children, by force if they do not leave; False if it has ended."""
    process = server.process()
    if process is None:
        return False
    running = [process, *process.children(recursive=True)]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for each in running:
            with suppress(psutil.Error):
                end(each)
        _, running = psutil.wait_procs(running, timeout=STOP_LIMIT_S)
    return True


def _requested_port() -> int | None:
    text = os.environ.get("RLAIF_PREFECT_PORT", "")
    if text and not (text.isdecimal() and 0 < int(text) < 65536):
        raise MachineError(
            f"RLAIF_PREFECT_PORT is '{text}', but a port number is needed; correct it"
        )
    return int(text) if text else None


def _write_key() -> None:
    key_path().unlink(missing_ok=True)
    # A name and a secret, as HTTP's basic authentication has them.
    text = f"rlaif:{secrets.token_urlsafe(32)}\n"
    with open(os.open(key_path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def _home() -> Path:
    return state_folder() / "prefect"


def _record_path() -> Path:
    return state_folder() / "server.json"


def _recorded_server() -> Server | None:
    record = read_json(_record_path()) or {}
    try:
        return Server(int(record["pid"]), float(record["started"]), int(record["port"]))
    except (KeyError, TypeError, ValueError):  # no record, or one with other fields
        return None


@contextmanager
def _state_lock() -> Iterator[None]:
    """Two commands at once must not start two servers."""
    state_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    with open(os.open(state_folder() / "server.lock", flags, 0o600), "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
