"""Do more workers make more rows? An engine of fixed latency on 1, 2, 4 and 8 workers of Ray.

Each worker gets the same number of prompts, so the seconds should not depend on their number; by
what they rise is the driver's part. The engine answers 8 calls at a time, each after 0.2 s. Workers
have started before the clock does.

    python -m benchmarks.scaling [--quick]

The last line is one JSON object by number of workers: rows a second, CPU seconds of the driver per
1,000 rows, and `efficiency`, the rows a second of each worker against those of one worker alone.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scripted_chain import STAGES, make_data, start_scripted
from pipeline.store.shards import stage_manifests

LATENCY_S, CALLS_AT_ONCE = 0.2, 8
SHARD_SIZE = 16


def measure(folder: Path, num_workers: int, prompts_each: int) -> dict[str, float]:
    """Rows a second of the whole data chain, and what the driver's process spent."""
    settings: dict[str, Any] = {
        "latency_s": LATENCY_S,
        "max_concurrency": CALLS_AT_ONCE,
        "shard_size": SHARD_SIZE,
        "shards_in_flight": 2,
        "workers": {"kind": "ray", "num": num_workers},
    }
    asyncio.run(make_data(start_scripted(folder / "warm", num_workers, **settings)))
    run = start_scripted(folder / "measured", prompts_each * num_workers, **settings)
    started, cpu = time.perf_counter(), time.process_time()
    asyncio.run(make_data(run))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    rows = sum(m.counts.expected for stage in STAGES for m in stage_manifests(run.root, stage))
    return {"rows_per_s": rows / seconds, "driver_cpu_s_per_1000_rows": 1000 * cpu / rows}


def main() -> None:
    """Measure each number of workers, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 and 2 workers, a minute")
    numbers, prompts_each = ((2, 1), 64) if parser.parse_args().quick else ((8, 4, 2, 1), 512)
    results: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # The most first: the cluster is started with room for them.
        for number in numbers:
            results[number] = measure(Path(folder) / str(number), number, prompts_each)
            print(
                number,
                {name: round(value, 3) for name, value in results[number].items()},
                flush=True,
            )
    alone = results[1]["rows_per_s"]
    for number, result in sorted(results.items()):
        result["efficiency"] = result["rows_per_s"] / number / alone
        print(number, "efficiency", round(result["efficiency"], 3))
    print(json.dumps({str(number): result for number, result in sorted(results.items())}))


if __name__ == "__main__":
    main()
