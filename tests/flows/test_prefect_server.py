"""The dedicated Prefect server: found again, never doubled, its files where they belong."""

import os
import socket
from pathlib import Path

import psutil
import pytest

from pipeline.errors import MachineError
from pipeline.prefect_server import (
    Server,
    choose_port,
    ensure_server,
    environment,
    find_server,
    is_healthy,
    port_is_free,
    state_folder,
    stop_server,
)
from pipeline.store.files import write_json


def test_running_server_is_found_again(server: Server) -> None:
    notes: list[str] = []
    assert find_server() == server == ensure_server(notes.append)
    assert not notes and is_healthy(server.port)


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
