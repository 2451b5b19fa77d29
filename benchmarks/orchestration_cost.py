"""What the pipeline itself costs when the model costs nothing: seconds and memory by run size.

The whole data chain (prompts, sample, critique, revise, judge, pair, both data sets) runs on the
scripted engine, each size in a process of its own. Flat means: a thousand prompts cost the same
in a run of 100,000 as in a run of 1,000, and memory does not grow with the run.

    python -m benchmarks.orchestration_cost [--quick]

The last line is one JSON object: `seconds_per_1000_prompts` and `peak_mib` by size, and by how
much the largest of each is above the smallest. Where other programs share the machine, the CPU
seconds tell more than the seconds.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scripted_chain import make_data, start_scripted

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (1_000, 4_000)


def measure(num_prompts: int) -> dict[str, float]:
    """Run the chain in this process; seconds without imports, and the most memory ever held."""
    with tempfile.TemporaryDirectory() as folder:
        # Once on a small run: imports and first uses are paid once, whatever the size.
        asyncio.run(make_data(start_scripted(Path(folder) / "small", 64)))
        run = start_scripted(Path(folder) / "measured", num_prompts)
        started, cpu = time.perf_counter(), time.process_time()
        asyncio.run(make_data(run))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "seconds_per_1000_prompts": seconds * 1000 / num_prompts,
        "cpu_seconds_per_1000_prompts": cpu * 1000 / num_prompts,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_apart(num_prompts: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.orchestration_cost", "--one", str(num_prompts)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def spread(values: list[float]) -> float:
    """How far the largest is above the smallest, as a share of the smallest."""
    return max(values) / min(values) - 1


def main() -> None:
    """Measure each size, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print(f"{'prompts':>9} {'s per 1,000':>12} {'CPU s per 1,000':>16} {'peak MiB':>9}")
    results = {}
    for size in QUICK_SIZES if arguments.quick else SIZES:
        found = results[size] = measure_apart(size)
        print(
            f"{size:>9,} {found['seconds_per_1000_prompts']:>12.3f} "
            f"{found['cpu_seconds_per_1000_prompts']:>16.3f} {found['peak_mib']:>9.1f}",
            flush=True,
        )
    by_key = {
        key: {str(size): round(found[key], 4) for size, found in results.items()}
        for key in next(iter(results.values()))
    }
    print(
        json.dumps(
            {
                **by_key,
                "seconds_spread": round(
                    spread(list(by_key["seconds_per_1000_prompts"].values())), 4
                ),
                "cpu_seconds_spread": round(
                    spread(list(by_key["cpu_seconds_per_1000_prompts"].values())), 4
                ),
                "peak_spread": round(spread(list(by_key["peak_mib"].values())), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
