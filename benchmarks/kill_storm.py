"""A run on a cluster whose driver, workers and nodes are killed: is any row lost, doubled or
changed, and what was paid twice?

A Ray cluster of a head and two nodes on this machine, with 4 workers and a driver in a process of
its own. At random moments the driver or a worker gets SIGKILL, or a node with all its workers is
removed and another added; a killed driver is started again. This is done with the run on local disk
and in a local s3 store (moto), and each run is compared with one on a single process that nothing
disturbed.

    python -m benchmarks.kill_storm [--quick] [--seed N] [--store disk|s3] [--keep FOLDER]

The kills fall on runs one after the other, twenty on each. With `--keep` the figures of each run
are kept, and the same command continues after the last one. The last line is one JSON object: by
store, what `benchmarks.kill_test` gives, over all runs, and the kills by kind.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.kill_test import bill_file, compare, work
from benchmarks.scripted_chain import PROJECT, start_scripted
from pipeline.run.start import runs_root
from pipeline.store import RunDir
from pipeline.workers.cluster import LOOPBACK, SETTINGS

NUM_WORKERS, NUM_NODES = 4, 2
LATENCY_S, CALLS_AT_ONCE = 0.05, 4
"""Calls at once of each worker; a killed driver has those of all workers in flight."""
NUM_KILLS, KILLS_A_RUN = 200, 20
PROMPTS_PER_KILL = 120
"""Enough that the run has not ended before its last kill, which takes some seconds itself."""
MOST_BETWEEN_S = 1.5
"""Most seconds between two kills, counted from the first new call after the one before."""
KINDS = {"worker": 6, "driver": 3, "node": 1}
"""How often each is killed, as weights."""


@contextmanager
def s3_server() -> Iterator[str]:
    """Address of a local server of s3, in a process of its own."""
    # vLLM looks at every module that is loaded, and trips over Flask's.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(
            found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line))
        )
        # Its log is read on, so that the server never waits for us.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        try:
            yield address
        finally:
            server.kill()


@contextmanager
def runs_in_s3() -> Iterator[None]:
    """RLAIF_OUTPUTS is in a local server of s3; this machine's working copy is removed at the
    end.
    """
    with s3_server() as address:
        url = f"s3://storm/{os.urandom(4).hex()}"
        before = dict(os.environ)
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RLAIF_OUTPUTS": url,
        }
        importlib.import_module("fsspec").filesystem("s3").mkdir("s3://storm")
        try:
            yield
            shutil.rmtree(runs_root().parent)
        finally:
            for name in {*os.environ} - {*before}:
                del os.environ[name]
            os.environ |= before


@dataclass
class Storm:
    """A cluster, and a run on it that is killed again and again."""

    rng: random.Random
    cluster: Any = None
    kills: Counter[str] = field(default_factory=Counter)

    def open(self) -> str:
        """Start the cluster; returns its address."""
        os.environ |= SETTINGS | LOOPBACK | {"PYTHONPATH": str(PROJECT)}
        utils = importlib.import_module("ray.cluster_utils")
        self.cluster = utils.Cluster(initialize_head=True, head_node_args=self._node(cpus=0))
        for _ in range(NUM_NODES):
            self.cluster.add_node(**self._node())
        return str(self.cluster.address)

    def close(self) -> None:
        """End the cluster."""
        self.cluster.shutdown()

    def rage(self, run: RunDir, num_kills: int) -> None:
        """Kill until it was done often enough or the run has ended, then let the run end."""
        command = [sys.executable, "-m", "benchmarks.scripted_chain", str(run.root)]
        bill = bill_file(run)
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while self.kills.total() < num_kills:
                paid = bill.stat().st_size if bill.exists() else 0
                # One kill in four falls on whatever the one before it has left.
                if self.rng.random() < 0.75:
                    while driver.poll() is None and (
                        not bill.exists() or bill.stat().st_size == paid
                    ):
                        time.sleep(0.01)
                with suppress(subprocess.TimeoutExpired):
                    driver.wait(self.rng.uniform(0, MOST_BETWEEN_S))
                if driver.poll() is not None:
                    if driver.returncode:
                        raise SystemExit("the run failed by itself; see above")
                    break
                (kind,) = self.rng.choices([*KINDS], [*KINDS.values()])
                if kind == "driver":
                    driver.kill()
                    driver.wait()
                    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                elif not (self._kill_worker() if kind == "worker" else self._kill_node()):
                    continue
                self.kills[kind] += 1
                print(f"\r{dict(self.kills)}", end="", file=sys.stderr, flush=True)
            if driver.wait():
                raise SystemExit("the run failed by itself; see above")
        finally:
            driver.kill()
            driver.wait()
            print(file=sys.stderr)

    def _kill_worker(self) -> bool:
        """Kill a process that holds an engine; whether there was one."""
        pids = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                    pids.append(process.pid)
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.rng.choice(sorted(pids)), signal.SIGKILL)
        return True

    def _kill_node(self) -> bool:
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: str(node.unique_id))
        self.cluster.remove_node(self.rng.choice(nodes), allow_graceful=False)
        self.cluster.add_node(**self._node())
        return True

    def _node(self, cpus: int = 2 * NUM_WORKERS) -> dict[str, Any]:
        # Each node has room for all workers: one that is removed leaves enough.
        return {
            "num_cpus": cpus,
            "node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "object_store_memory": 128 * 2**20,
        }


def new_run(
    folder: Path, num_prompts: int, *, calls_at_once: int = CALLS_AT_ONCE, **settings: Any
) -> RunDir:
    """A run whose model writes its bill to `folder`/bill."""
    return start_scripted(
        folder,
        num_prompts,
        latency_s=LATENCY_S,
        max_concurrency=calls_at_once,
        meter=str(folder / "bill"),
        shard_size=16,
        shards_in_flight=2,
        **settings,
    )


def main() -> None:
    """Run undisturbed, run in each storm, compare, print tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 kills a store, some minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=("disk", "s3"), help="one of them alone")
    parser.add_argument("--keep", type=Path, help="folder for the figures of each run")
    arguments = parser.parse_args()
    num_runs, num_kills = (1, 10) if arguments.quick else (NUM_KILLS // KILLS_A_RUN, KILLS_A_RUN)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.keep or Path(folder) / "keep"
        keep.mkdir(parents=True, exist_ok=True)
        calm = new_run(
            Path(folder) / "calm",
            num_kills * PROMPTS_PER_KILL,
            calls_at_once=CALLS_AT_ONCE * NUM_WORKERS,
        )
        work(calm)
        for store in (arguments.store,) if arguments.store else ("disk", "s3"):
            parts = []
            for seed in range(arguments.seed, arguments.seed + num_runs):
                figures = keep / f"{store}-{num_kills}-{seed}.json"
                if not figures.exists():
                    part = in_storm(Path(folder) / store / str(seed), calm, store, num_kills, seed)
                    figures.write_text(json.dumps(part))
                parts.append(json.loads(figures.read_text()))
                print(store, seed, parts[-1], flush=True)
            results[store] = together(parts)
    print(json.dumps(results))


def together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several runs as those of one: sums, what is true of all, and shares."""
    first = parts[0]
    whole: dict[str, Any] = {}
    for name in first:
        values = [part[name] for part in parts]
        if isinstance(first[name], bool):
            whole[name] = all(values)
        elif isinstance(first[name], dict):
            whole[name] = dict(sum((Counter(value) for value in values), Counter[str]()))
        else:
            whole[name] = sum(values)
    needed = whole["tokens_needed"]
    whole["tokens_paid_twice_share"] = round(whole["tokens_paid"] / needed - 1, 4)
    # Those of equal runs.
    whole["allowed_share"] = round(whole["allowed_share"] / len(parts), 4)
    return whole


def in_storm(folder: Path, calm: RunDir, store: str, num_kills: int, seed: int) -> dict[str, Any]:
    """Make the run of `calm` in a storm, on disk or in s3; what the kills changed."""
    in_store = store == "s3"
    with runs_in_s3() if in_store else nullcontext():
        storm = Storm(random.Random(seed))
        workers = {"kind": "ray", "num": NUM_WORKERS, "address": storm.open()}
        started = time.perf_counter()
        try:
            # Its check of the recipe connects to the cluster, which a process does once.
            run = new_run(folder, num_kills * PROMPTS_PER_KILL, in_store=in_store, workers=workers)
            importlib.import_module("ray").shutdown()
            storm.rage(run, num_kills)
        finally:
            storm.close()
        calls = CALLS_AT_ONCE * (
            storm.kills["worker"] + NUM_WORKERS * (storm.kills["driver"] + storm.kills["node"])
        )
        return {
            "kills_by_kind": dict(storm.kills),
            "seconds": round(time.perf_counter() - started, 1),
            **compare(calm, run, storm.kills.total(), calls),
        }


if __name__ == "__main__":
    main()
