"""Does data that makes a policy collapse raise its alarm, and does clean data raise none?

    python -m benchmarks.alarms RUN [--quick]

The pairs of a finished run are trained on as they are, and in four versions that are known to harm
(`ARMS`): each from the run's SL-CAI policy by DPO, in a process of its own. The last line is one
JSON object: by arm the alarms that were raised, the one that was expected, and what the gate says.

Does not: say how small a harm may be before an alarm misses it.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.alarms import AlarmConfig, AlarmName
from pipeline.config.gate import GateConfig
from pipeline.config.training import DpoConfig
from pipeline.evaluation.gate import decide
from pipeline.evaluation.results import Metrics, PolicyMetrics
from pipeline.run.start import find_run
from pipeline.training.job import TrainingJob, TrainingResult
from pipeline.training.launch import launch

Change = Callable[[dict[str, Any]], dict[str, Any]]
STEPS, QUICK_STEPS = 24, 8
PAIRS, QUICK_PAIRS = 128, 48


def _thrice(row: dict[str, Any]) -> dict[str, Any]:
    return {"chosen": " ".join([row["chosen"]] * 3)}


def _swapped_case(row: dict[str, Any]) -> dict[str, Any]:
    return {side: row[side].swapcase() for side in ("chosen", "rejected")}


def _first_words(row: dict[str, Any]) -> dict[str, Any]:
    return {"chosen": " ".join(row["chosen"].split()[:2])}


@dataclass(frozen=True)
class Arm:
    """One version of the data."""

    expected: AlarmName | None
    """The alarm that it has to raise."""
    change: Change = lambda row: {}
    """Columns of a pair that are replaced."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of DPO that differ."""


ARMS = {
    "clean": Arm(None),
    # It writes longer first, and in circles only after more steps.
    "repeated": Arm("repeated_phrases", _thrice, {"learning_rate": 1e-3, "max_steps": 2 * STEPS}),
    "curt": Arm("length_drift", _first_words, {"learning_rate": 1e-3}),
    "foreign": Arm("unlike_reference", _swapped_case),
    "hurried": Arm("divergence", settings={"learning_rate": 2e-2, "beta": 0.01}),
}


NOTHING: dict[str, Any] = {
    "model": "pocket",
    "fingerprint": "",
    "num_responses": 0,
    "num_prompts": 0,
    "mean_tokens": None,
    "mean_words": None,
    "truncated_share": None,
    "empty_share": None,
    "oracle": None,
}
"""Figures of a policy that was not evaluated."""


async def train(arm: Arm, run: Path, folder: Path, *, quick: bool) -> TrainingResult:
    """Train one arm in `folder`."""
    steps, pairs = (QUICK_STEPS, QUICK_PAIRS) if quick else (STEPS, PAIRS)
    rows = pq.read_table(run / "dataset" / "preference.parquet").to_pylist()[:pairs]
    folder.mkdir(parents=True)
    data = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([row | arm.change(row) for row in rows]), data)
    settings = {"learning_rate": 1e-4, "batch_size": 8, "max_length": 384, "max_steps": steps}
    alarms = AlarmConfig(probe_prompts=8, probe_tokens=96)
    changed = settings | arm.settings | ({"max_steps": steps} if quick else {})
    config = DpoConfig(**changed, alarms=alarms)
    model = run / "training" / "sft" / "model"
    return await launch(
        TrainingJob(config=config, model=model, dataset=data, output_dir=folder / "job")
    )


def met(expected: AlarmName | None, raised: list[AlarmName]) -> bool:
    """Whether the expected alarm was raised, or none where none was expected."""
    return expected in raised if expected else not raised


def verdict(result: TrainingResult) -> str:
    """What a gate with alarms alone decides about the policy."""
    policies = {name: PolicyMetrics(**NOTHING) for name in ("initial", "tuned")}
    raised = {"preference": result.alarms} if result.alarms else {}
    return decide(GateConfig(), Metrics(policies=policies, alarms=raised)).decision


def line(name: str, figures: dict[str, Any]) -> str:
    """A row of the table."""
    raised = ", ".join(figures["raised"]) or "none"
    moved = "-" if figures["divergence"] is None else f"{figures['divergence']:.3f}"
    expected = figures["expected"] or "none"
    return f"{name:<10} {expected:<17} {figures['gate']:<10} {moved:>7}  {raised}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="id or folder of a finished run with an SFT policy and pairs")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    run = find_run(arguments.run).root
    figures: dict[str, Any] = {}
    print(f"{'data':<10} {'expected alarm':<17} {'gate':<10} {'moved':>7}  alarms raised")
    with tempfile.TemporaryDirectory(prefix="alarms-") as folder:
        for name, arm in ARMS.items():
            result = asyncio.run(train(arm, run, Path(folder) / name, quick=arguments.quick))
            raised = [alarm.name for alarm in result.alarms]
            figures[name] = {
                "expected": arm.expected,
                "raised": raised,
                "gate": verdict(result),
                "divergence": result.divergence,
            }
            print(line(name, figures[name]), flush=True)
    as_expected = {name: met(arm.expected, figures[name]["raised"]) for name, arm in ARMS.items()}
    print(json.dumps({"arms": figures, "as_expected": as_expected}))


if __name__ == "__main__":
    main()
