"""The Prefect server of this project: started, found again, ended. No flow and no task is here."""

from pipeline.prefect_server.server import (
    Server,
    ensure_server,
    environment,
    find_server,
    state_folder,
    stop_server,
)

__all__ = ["Server", "ensure_server", "environment", "find_server", "state_folder", "stop_server"]
