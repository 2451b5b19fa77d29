"""Does the demo do what it says? The whole chain against the known truth of the pocket world.

    python -m benchmarks.demo_truth [--quick] [--keep FOLDER]

The demo's recipe runs with three seeds and with both pocket constitutions, each run in a process
of its own; the oracle reads the held-out replies and checks every label. A balanced constitution
should make replies harmless and good; one that speaks of harm alone pays with refusals. The last
line is one JSON object: for each key and constitution the mean over seeds, the smallest and the
largest.

Does not: draw new prompts. The seeds change replies, principles, labels and training alone.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import RunConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.report import headline_numbers
from pipeline.store import RunDir, read_json

RECIPE = PROJECT_ROOT / "flows" / "configs" / "demo.yaml"
CONSTITUTIONS = ("balanced", "harmlessness")
SEEDS = (0, 1, 2)
KEYS = (
    "harmless_initial",
    "harmless_tuned",
    "good_initial",
    "good_tuned",
    "refused_initial",
    "refused_tuned",
    "label_accuracy_raw",
    "label_accuracy_kept",
    "outside_world_tuned",
    "seconds",
)
QUICK_PROMPTS, QUICK_STEPS = 24, 5
"""Enough to see that the chain works, without SFT; far too few for a good policy."""

Figures = dict[str, float | None]


def variant(
    recipe: Mapping[str, Any], constitution: str, seed: int, *, quick: bool
) -> dict[str, Any]:
    """The demo's recipe with another constitution and seed; a checked copy, the given one
    unchanged.
    """
    changed: dict[str, Any] = json.loads(json.dumps(recipe))
    changed |= {
        "name": f"{recipe['name']}-{constitution}-{seed}",
        "seed": seed,
        "constitution": f"constitutions/{constitution}.yaml",
    }
    for phase in ("supervised", "preference"):
        if changed.get(phase, {}).get("train"):
            changed[phase]["train"]["seed"] = seed
    if quick:
        changed["prompts"] |= {"limit": QUICK_PROMPTS, "heldout_limit": QUICK_PROMPTS}
        # Each model that is opened costs more than all of these prompts.
        changed["supervised"]["train"] = None
        changed["preference"]["train"]["max_steps"] = QUICK_STEPS
    RunConfig.model_validate(changed)
    return changed


def run_one(recipe: Path, runs: Path, before: Path | None = None) -> None:
    """Run a recipe in this process and print the run's folder.

    Args:
        before: a finished run whose samples and labels it takes over.
    """
    # Imported here: the process that only starts others and adds up stays light.
    from pipeline.run.context import open_context
    from pipeline.run.phases import run_all
    from pipeline.run.start import start_run
    from pipeline.sweep.run import begin_with

    run = start_run(recipe, runs_root_folder=runs)
    if before is not None:
        begin_with(run, RunDir(before))
    asyncio.run(run_all(open_context(run)))
    print(run.root)


def run_apart(recipe: Path, runs: Path, before: RunDir | None = None) -> tuple[RunDir, float]:
    """One run in a process of its own, with its seconds, start of the process included."""
    command = [sys.executable, "-m", "benchmarks.demo_truth", "--one", str(recipe), str(runs)]
    command += [str(before.root)] if before else []
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT)
    if done.returncode:
        raise SystemExit(f"the run of {recipe.name} failed:\n{done.stderr[-3000:]}")
    return RunDir(Path(done.stdout.splitlines()[-1])), time.perf_counter() - started


def figures(run: RunDir, seconds: float) -> Figures:
    """The keys of one run, from its metrics.json; None for what was not measured."""
    metrics = read_json(run.metrics) or {}
    labels = metrics["labels"] or {}

    def share(policy: str, name: str) -> float | None:
        return _value((metrics["policies"].get(policy, {}).get("oracle") or {}).get(name))

    return {
        "harmless_initial": share("initial", "harmless"),
        "harmless_tuned": share("tuned", "harmless"),
        "good_initial": share("initial", "good"),
        "good_tuned": share("tuned", "good"),
        "refused_initial": share("initial", "refused_harmless"),
        "refused_tuned": share("tuned", "refused_harmless"),
        "label_accuracy_raw": _value(labels.get("accuracy_raw")),
        "label_accuracy_kept": _value(labels.get("accuracy_kept")),
        "outside_world_tuned": share("tuned", "outside_world"),
        "seconds": seconds,
    }


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean, smallest and largest; None when no run measured it."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": round(sum(known) / len(known), 4),
        "min": round(min(known), 4),
        "max": round(max(known), 4),
    }


def spelled(values: Sequence[float | None]) -> str:
    """`0.923 (0.910 to 0.950)`: mean, smallest and largest; `-` when no run measured it."""
    entry = spread(values)
    return "{:.3f} ({:.3f} to {:.3f})".format(*entry.values()) if entry else "-"


def print_spreads(found: Mapping[str, Sequence[Figures]], keys: Sequence[str]) -> None:
    """One line per entry, with mean (smallest to largest) of each key, and the JSON line."""
    print(f"{'':<18}{'runs':>5}" + "".join(f"{key:>24}" for key in keys))
    for name, runs in found.items():
        cells = (f"{spelled([run.get(key) for run in runs]):>24}" for key in keys)
        print(f"{name:<18}{len(runs):>5}" + "".join(cells))
    table = {
        name: {key: spread([run.get(key) for run in runs]) for key in keys}
        for name, runs in found.items()
    }
    print(json.dumps(table))


def print_table(found: Mapping[str, Sequence[Figures]]) -> None:
    """One line per key, one column per constitution: mean (smallest to largest)."""
    print(f"{'':<22}" + "".join(f"{name:>28}" for name in found))
    for key in KEYS:
        cells = (f"{spelled([run[key] for run in runs]):>28}" for runs in found.values())
        print(f"{key:<22}" + "".join(cells))


def measure(folder: Path, *, quick: bool) -> dict[str, list[Figures]]:
    """All runs, one after the other, with a line for each."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    found: dict[str, list[Figures]] = {}
    for constitution in CONSTITUTIONS[:1] if quick else CONSTITUTIONS:
        for seed in SEEDS[:1] if quick else SEEDS:
            changed = variant(recipe, constitution, seed, quick=quick)
            path = folder / f"{changed['name']}.yaml"
            path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
            run, seconds = run_apart(path, folder / "runs")
            found.setdefault(constitution, []).append(figures(run, seconds))
            told = ", ".join(f"{name.lower()} {value}" for name, value in headline_numbers(run))
            print(f"{constitution}, seed {seed}, {seconds:.0f} s: {told}", flush=True)
    return found


def main() -> None:
    """Run everything, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one short run: shows that it works, no more"
    )
    parser.add_argument("--keep", type=Path, help="folder for the runs and their reports")
    parser.add_argument("--one", nargs="+", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = arguments.keep.resolve() if arguments.keep else Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        found = measure(kept, quick=arguments.quick)
    print_table(found)
    print(
        json.dumps(
            {
                key: {name: spread([run[key] for run in runs]) for name, runs in found.items()}
                for key in KEYS
            }
        )
    )


def _value(estimate: Mapping[str, float] | None) -> float | None:
    return estimate["share"] if estimate else None


if __name__ == "__main__":
    main()
