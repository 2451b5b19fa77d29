"""What the pipeline itself costs when the model costs nothing: seconds and memory by run size.

The whole data chain (prompts, sample, critique, revise, judge, pair, both data sets) runs on the
scripted engine, each size in a process of its own: in one process, on workers of Ray, and under
Prefect with a server of its own. Flat means: a thousand prompts cost the same in a run of
1,000,000 as in a run of 10,000, and memory does not grow with the run.

    python -m benchmarks.orchestration_cost [--quick] [--kinds local ray prefect]
        [--sizes 1000000] [--shard-size 512]

Runs are made in the folder for temporary files (`TMPDIR`) and removed after they are measured; each
size has its line once it is done.

The last line is one JSON object by kind: `seconds_per_1000_prompts`,
`cpu_seconds_per_1000_prompts` and `peak_mib` of the driver by size, and by how much the largest of
each is above the smallest; with Prefect also the flow runs, task runs and artifacts that its server
has kept. Where other programs share the machine, the CPU seconds tell more than the seconds. Under
Prefect they include the program's start, its evaluation phase, which has nothing to do, and its
report.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.scripted_chain import make_data, start_scripted
from pipeline.prefect_server import Server, ensure_server, read_key, stop_server

SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 4_000)
RAY = {"kind": "ray", "num": 2}
RECORDS = ("flow_runs", "task_runs", "artifacts")


def measure(folder: Path, num_prompts: int, **settings: Any) -> dict[str, float]:
    """Run the chain in this process; seconds without imports, and the most memory ever held."""
    # Once on a small run: imports, first uses and workers' starts are paid once, whatever the size.
    asyncio.run(make_data(start_scripted(folder / "small", 64, **settings)))
    run = start_scripted(folder / "measured", num_prompts, **settings)
    started, cpu = time.perf_counter(), time.process_time()
    asyncio.run(make_data(run))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return _result(num_prompts, seconds, cpu, resource.RUSAGE_SELF)


def measure_ray(folder: Path, num_prompts: int, **settings: Any) -> dict[str, float]:
    """The chain on workers; CPU and memory are those of the driver alone."""
    return measure(folder, num_prompts, workers=RAY, **settings)


def measure_prefect(folder: Path, num_prompts: int, **settings: Any) -> dict[str, float]:
    """The run as `rlaif` makes it under Prefect, and what the server keeps of it."""
    os.environ |= {"RLAIF_STATE": str(folder / "state")}
    run = start_scripted(folder / "measured", num_prompts, **settings)
    server = ensure_server()
    try:
        started = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "pipeline.cli", "resume", str(run.root)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        records = {name: count_records(server, name) for name in RECORDS}
        return _result(num_prompts, seconds, cpu, resource.RUSAGE_CHILDREN) | records
    finally:
        stop_server()


def count_records(server: Server, name: str) -> int:
    """How many flow runs, task runs or artifacts a server of ours has."""
    user, _, secret = (read_key() or "").partition(":")
    with httpx.Client(base_url=server.api_url, auth=(user, secret), trust_env=False) as client:
        token = client.get("csrf-token", params={"client": "cost"}).json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "cost"}
        answer = client.post(f"{name}/count", json={}, headers=headers).raise_for_status()
        return int(answer.json())


def _result(num_prompts: int, seconds: float, cpu: float, who: int) -> dict[str, float]:
    return {
        "seconds_per_1000_prompts": seconds * 1000 / num_prompts,
        "cpu_seconds_per_1000_prompts": cpu * 1000 / num_prompts,
        "peak_mib": resource.getrusage(who).ru_maxrss / 1024,
    }


KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "local": measure,
    "ray": measure_ray,
    "prefect": measure_prefect,
}


def measure_apart(kind: str, num_prompts: int, shard_size: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.orchestration_cost",
        "--one",
        kind,
        str(num_prompts),
        "--shard-size",
        str(shard_size),
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def spread(values: list[float]) -> float:
    """How far the largest is above the smallest, as a share of the smallest."""
    return max(values) / min(values) - 1


def measure_sizes(kind: str, sizes: Sequence[int], shard_size: int) -> dict[str, Any]:
    """Measure each size, with a line for each; the results by name and size, and their spreads."""
    results = {}
    for size in sizes:
        result = results[size] = measure_apart(kind, size, shard_size)
        print(
            f"{kind:<8} {size:>9,} {result['seconds_per_1000_prompts']:>12.3f} "
            f"{result['cpu_seconds_per_1000_prompts']:>16.3f} {result['peak_mib']:>9.1f}  "
            + ", ".join(f"{result[name]:g} {name}" for name in RECORDS if name in result),
            flush=True,
        )
    by_key = {
        key: {str(size): round(result[key], 4) for size, result in results.items()}
        for key in results[sizes[0]]
    }
    return by_key | {
        name: round(spread(list(by_key[key].values())), 4)
        for name, key in (
            ("seconds_spread", "seconds_per_1000_prompts"),
            ("cpu_seconds_spread", "cpu_seconds_per_1000_prompts"),
            ("peak_spread", "peak_mib"),
        )
    }


def main() -> None:
    """Measure each size, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, some minutes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["local", "ray"])
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of prompts", metavar="N")
    parser.add_argument("--shard-size", type=int, default=64, help="prompts in a shard")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, size = arguments.one
        with tempfile.TemporaryDirectory() as folder:
            result = KINDS[kind](Path(folder), int(size), shard_size=arguments.shard_size)
            print(json.dumps(result))
        return
    print(f"{'kind':<8} {'prompts':>9} {'s per 1,000':>12} {'CPU s per 1,000':>16} {'peak MiB':>9}")
    sizes = arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES)
    print(json.dumps({k: measure_sizes(k, sizes, arguments.shard_size) for k in arguments.kinds}))


if __name__ == "__main__":
    main()
