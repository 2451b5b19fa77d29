"""Killed at random moments and resumed: is any row lost, doubled or changed, and what was paid
twice?

A process makes the data of a run on a scripted model with some latency. It is ended by SIGKILL at a
random moment and started again, many times; the rows, files and paid tokens of the run are then
compared with those of a run that nobody disturbed. Most that may be paid twice: at each kill, the
calls in flight; the answers before them are in the journals of their shards.

    python -m benchmarks.kill_test [--quick] [--seed N]

The last line is one JSON object: `kills`, `lost`, `doubled`, `same_ids`, `same_datasets`,
`same_bytes` (of the data sets' files), `tokens_paid_twice_share` and the `allowed_share` that the
calls in flight give.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.scripted_chain import STAGES, start_scripted
from pipeline.config import load_config
from pipeline.config.engines import ScriptedConfig
from pipeline.data.dataset import load_dataset
from pipeline.data.verify import verify
from pipeline.store import RunDir, read_rows
from pipeline.store.shards import stage_manifests

SHARD_SIZE, SHARDS_IN_FLIGHT = 16, 4
LATENCY_S, CALLS_AT_ONCE = 0.02, 8
"""Fewer calls at once than rows in flight, so that a kill finds shards half paid."""


def new_run(folder: Path, num_prompts: int) -> RunDir:
    """A run whose model writes its bill to `folder`/bill."""
    return start_scripted(
        folder,
        num_prompts,
        latency_s=LATENCY_S,
        max_concurrency=CALLS_AT_ONCE,
        meter=str(folder / "bill"),
        shard_size=SHARD_SIZE,
        shards_in_flight=SHARDS_IN_FLIGHT,
    )


def work(run: RunDir, kill_after_s: float | None = None) -> float | None:
    """Start or resume the run in a process of its own; returns its seconds, None when killed."""
    command = [sys.executable, "-m", "benchmarks.scripted_chain", str(run.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.perf_counter()
        try:
            if process.wait(kill_after_s):
                raise SystemExit("the run failed by itself; see above")
            return time.perf_counter() - started
        except subprocess.TimeoutExpired:
            process.kill()
            return None


def kill_and_resume(run: RunDir, num_kills: int, seed: int, undisturbed_s: float) -> int:
    """Kill the run at random moments spread over its whole work, then let it finish."""
    rng, kills = random.Random(seed), 0
    while kills < num_kills:
        if work(run, rng.uniform(0, 1.6 * undisturbed_s / num_kills)) is not None:
            break
        kills += 1
        print(f"\rkilled {kills} times", end="", file=sys.stderr, flush=True)
    work(run)
    print(file=sys.stderr)
    return kills


def row_ids(run: RunDir) -> Counter[str]:
    """`stage row_id` of every row on disk, with how often it is there."""
    found: Counter[str] = Counter()
    for stage in ("prompts", *STAGES):
        for manifest in stage_manifests(run.root, stage):
            ids = pq.read_table(run.root / manifest.path, columns=["row_id"])[0].to_pylist()
            found.update(f"{stage} {row_id}" for row_id in ids)
    return found


def bill(run: RunDir) -> int:
    """All tokens that the model was paid for."""
    return sum(map(int, bill_file(run).read_text().split()))


def bill_file(run: RunDir) -> Path:
    """Where the run's model writes its bill."""
    policy = load_config(run.recipe).policy
    assert isinstance(policy, ScriptedConfig)
    return Path(str(policy.args["meter"]))


def dataset_bytes(run: RunDir) -> dict[str, bytes]:
    """The files of the data sets, by name."""
    return {path.name: path.read_bytes() for path in run.dataset.glob("*.parquet")}


def dearest_call(run: RunDir) -> int:
    """Tokens of the dearest row."""
    dearest: int = max(
        row.num_prompt_tokens + row.num_tokens
        for stage in STAGES[:-1]
        for manifest in stage_manifests(run.root, stage)
        for row in read_rows(run.root, manifest)
    )
    return dearest


def compare(
    calm: RunDir, killed: RunDir, kills: int, calls_in_flight: int | None = None
) -> dict[str, Any]:
    """What the kills changed.

    Args:
        calls_in_flight: most of all kills together; by default those of one process at each.
    """
    if calls_in_flight is None:
        calls_in_flight = kills * CALLS_AT_ONCE
    expected, found = row_ids(calm), row_ids(killed)
    needed, paid = bill(calm), bill(killed)
    sets, other_sets = load_dataset(calm), load_dataset(killed)
    return {
        "kills": kills,
        "rows": expected.total(),
        "lost": sum((expected - found).values()),
        "doubled": sum(count - 1 for count in found.values() if count > 1),
        "same_ids": set(expected) == set(found),
        "same_datasets": bool(sets and other_sets and sets.dataset_id == other_sets.dataset_id),
        "same_bytes": dataset_bytes(calm) == dataset_bytes(killed),
        "problems": len(verify(killed)),
        "tokens_paid_twice_share": round((paid - needed) / needed, 4),
        "allowed_share": round(calls_in_flight * dearest_call(calm) / needed, 4),
        "tokens_needed": needed,
        "tokens_paid": paid,
    }


def main() -> None:
    """Run undisturbed, run with kills, compare, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 kills, under a minute")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    num_kills, num_prompts = (5, 320) if arguments.quick else (20, 960)
    with tempfile.TemporaryDirectory() as folder:
        calm = new_run(Path(folder) / "calm", num_prompts)
        undisturbed_s = work(calm) or 0.0
        killed = new_run(Path(folder) / "killed", num_prompts)
        kills = kill_and_resume(killed, num_kills, arguments.seed, undisturbed_s)
        result = compare(calm, killed, kills)
    for name, value in result.items():
        print(f"{name:<26}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
