"""What Prefect adds to a run once its server runs: one scripted run with and without it, in turns.

    python -m benchmarks.prefect_edges [--quick] [--prompts 64]

The server is one of its own, and a first run of either kind is not counted. The last line is one
JSON object with the medians of five turns: `seconds` and `cpu_seconds` of the command `rlaif
resume` by kind, and the differences. Where other programs share the machine, the CPU seconds tell
more than the seconds.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.scripted_chain import start_scripted
from pipeline.prefect_server import ensure_server, stop_server

KINDS = {"plain": ["--no-prefect"], "prefect": []}


def measure(folder: Path, num_prompts: int, kind: str) -> tuple[float, float]:
    """Seconds and CPU seconds of one run, from the start of its command to its end."""
    run = start_scripted(folder, num_prompts)
    command = [sys.executable, "-m", "pipeline.cli", "resume", str(run.root), *KINDS[kind]]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure the turns, print a line for each and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--prompts", type=int, default=64)
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        os.environ["RLAIF_STATE"] = f"{name}/state"
        ensure_server()
        try:
            for turn in range(2 if arguments.quick else 6):
                for kind in sorted(KINDS, reverse=turn % 2 == 0):
                    result = measure(Path(name, f"{kind}-{turn}"), arguments.prompts, kind)
                    print(f"{kind:<8} {result[0]:>6.1f} s {result[1]:>6.2f} CPU s", flush=True)
                    times[kind] += [result] if turn else []
        finally:
            stop_server()
    medians = {
        what: {kind: round(median(each[i] for each in times[kind]), 2) for kind in KINDS}
        for i, what in enumerate(("seconds", "cpu_seconds"))
    }
    added = {what: round(v["prefect"] - v["plain"], 2) for what, v in medians.items()}
    print(json.dumps({**medians, "added": added}))


if __name__ == "__main__":
    main()
