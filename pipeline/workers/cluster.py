"""The connection to Ray: made once by a process, with what a recipe asks for compared with what is
there.

Does not: print or send anything of its own; Ray's usage reports and dashboard are off.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from pipeline.config.engines import EngineSection
from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.workers import WorkersConfig
from pipeline.errors import ConfigError, MachineError, RunStoppedError

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0"}
LOOPBACK = {
    # Ray would turn 127.0.0.1 into the machine's own address and listen there.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's 15 starves workers on a machine that has other work.
    "RAY_worker_niceness": "0",
}
"""Environment of a Ray that is started for one run on this machine."""
# Ray's 20 attempts at an address where nothing listens take four minutes.
ELSEWHERE = {"RAY_gcs_server_port_wait_time_s": "1"}
"""Environment of a process that joins a cluster."""
CPUS_FOR_EACH = 1
MOST_FOR_EACH_CPU = 8
"""Workers of a Ray that is started here, by CPU: each is a process of some hundred MiB."""
HEAD_LIMIT_S = 5.0
"""Seconds in which the head has to take a connection."""
HEAD_STAYED_AWAY = (
    "the head of the Ray cluster does not answer any more; start a cluster, then `rlaif resume`: "
    "all that succeeded is kept"
)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to which this process is connected."""

    ray: ModuleType
    parked: list[Any]
    """Workers without GPUs that have ended their job: their processes serve the next engine."""

    def has_room(self, workers: WorkersConfig, num_engines: int) -> bool:
        """Whether the workers of that many engines fit at once."""
        return not _lacking(self.ray, workers, num_engines)

    def head_answers(self) -> bool:
        """Whether the cluster's head takes connections."""
        try:
            _try_connection(self.ray.get_runtime_context().gcs_address)
        except OSError:
            return False
        return True

    def gpu_kind(self, node_id: str) -> str:
        """Kind of GPU of a node, such as `H100`; empty where there is none."""
        for node in self.ray.nodes():
            if node["NodeID"] == node_id:
                for name in node.get("Resources", {}):
                    if name.startswith("accelerator_type:"):
                        return str(name.removeprefix("accelerator_type:"))
        return ""


_PARKED: list[Any] = []


def connect(workers: WorkersConfig) -> Cluster:
    """The cluster of these settings, or one that is started on this machine.

    Raises:
        ConfigError: Ray is not installed.
        MachineError: no cluster answers, or it, or this machine, has too little for the workers of
            one engine.
        RunStoppedError: the head of the cluster is gone.
    """
    _check_num(workers)
    ray = _import_ray(alone=workers.address is None)
    if not ray.is_initialized():
        _PARKED.clear()
        _start(ray, workers)
    cluster = Cluster(ray, _PARKED)
    # Without its head, Ray would wait for an answer until it ends this process.
    if not cluster.head_answers():
        raise RunStoppedError(HEAD_STAYED_AWAY)
    if lacking := _lacking(ray, workers, 1):
        raise MachineError(
            f"execution.workers asks for {lacking}; lower num or gpus, or add nodes to the cluster"
        )
    return cluster


def check_workers(
    workers: WorkersConfig, engines: Sequence[EngineSection], *, offline: bool
) -> str:
    """What the cluster of a recipe has, as one line.

    Args:
        offline: do not connect.

    Raises:
        ConfigError, MachineError: as `connect`, or an engine needs more GPUs than a worker has.
    """
    for engine in engines:
        needed = getattr(engine, "tensor_parallel_size", 1)
        if workers.gpus and needed > workers.gpus:
            raise ConfigError(
                f"tensor_parallel_size is {needed}, but a worker reserves execution.workers.gpus "
                f"{workers.gpus}; make gpus {needed}"
            )
    _check_num(workers)
    if offline:
        _import_ray(alone=workers.address is None)
        return f"{workers.num} of a Ray cluster, not asked"
    there = connect(workers).ray.cluster_resources()
    return (
        f"{workers.num} of a Ray cluster with {there['CPU']:g} CPUs, {there.get('GPU', 0):g} GPUs"
    )


def _check_num(workers: WorkersConfig) -> None:
    """Ray would start any number here, until the machine has no memory left."""
    num_cpus = os.cpu_count() or 1
    if workers.address is None and workers.num > MOST_FOR_EACH_CPU * num_cpus:
        raise MachineError(
            f"execution.workers.num is {workers.num}, but this machine has {num_cpus} CPUs and "
            f"takes {MOST_FOR_EACH_CPU * num_cpus} workers at most; lower num, or name a cluster "
            "in execution.workers.address"
        )


@cache
def code_hash() -> str:
    """Hash of this package's source files: rows of two versions must not mix."""
    total = hashlib.sha256()
    for path in sorted((PROJECT_ROOT / "pipeline").rglob("*.py")):
        total.update(path.relative_to(PROJECT_ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def _import_ray(*, alone: bool) -> ModuleType:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "execution.workers.kind is 'ray', but Ray is not installed; run `make setup-cluster`, "
            "or set it to 'local'"
        )
    # Read when Ray is imported.
    for name, value in (SETTINGS | (LOOPBACK if alone else ELSEWHERE)).items():
        os.environ.setdefault(name, value)
    # By name: `make check` knows the environment without Ray.
    return importlib.import_module("ray")


def _start(ray: ModuleType, workers: WorkersConfig) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if workers.address is None:
        # Logical CPUs: a worker mostly waits for its engine, and has to have a place.
        cpus = max(os.cpu_count() or 1, 4 * workers.num)
        settings |= {"include_dashboard": False, "num_cpus": cpus}
        settings["object_store_memory"] = 128 * 2**20
        # The workers' code is this process's, also where another copy is installed.
        path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        settings["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
    try:
        if re.search(r"^[^/]+:\d+$", address := workers.address or ""):
            # Ray itself would try for most of a minute, and complain meanwhile.
            _try_connection(address)
        ray.init(address=workers.address or "local", **settings)
    except Exception as error:  # Ray also raises bare ones, as after a start that took too long
        reason = str(error).strip().partition("\n")[0][:200]
        if workers.address is None:
            raise MachineError(
                f"Ray does not start on this machine ({reason}); end other programs, or set "
                "execution.workers.kind to 'local'"
            ) from error
        if "AuthToken" in str(error.__cause__):
            raise MachineError(
                f"the Ray cluster at {workers.address} asks for its key; set RAY_AUTH_MODE=token, "
                "with the cluster's file ~/.ray/auth_token on this machine"
            ) from error
        raise MachineError(
            f"no Ray cluster answers at {workers.address} ({reason}); start one with "
            "`ray start --head`, or leave execution.workers.address out to use this machine"
        ) from error


def _try_connection(address: str) -> None:
    """Raises OSError when nothing takes a connection at `host:port`."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), HEAD_LIMIT_S).close()


def _lacking(ray: ModuleType, workers: WorkersConfig, num_engines: int) -> str:
    there = ray.cluster_resources()
    number = workers.num * num_engines
    for name, needed in (("CPU", CPUS_FOR_EACH * number), ("GPU", workers.gpus * number)):
        if needed > there.get(name, 0):
            return f"{needed} {name}s, but the cluster has {there.get(name, 0):g}"
    return ""
