"""What a real model of 135 million parameters gains on a laptop, and what it is worth as a judge.

    python -m benchmarks.real_model [--seeds N] [--keep FOLDER] [--quick] [--no-prefect]

The recipe of `make demo-real` runs with each seed in a process of its own, through Prefect. Then
the same model judges principles that no program decides (constitutions/open_assistant.yaml),
without any training: 48 prompts, two samples each, and the way of asking, thresholds and canaries
that ship. Needs models/smollm2/weights (`python -m models.smollm2.build`). The last
line is one JSON object; shares have their 95 % interval and n.

Does not: draw new prompts. The seeds change replies, principles and training alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.demo_truth import spread
from pipeline.config import RunConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.data.dataset import load_dataset
from pipeline.errors import EXIT_AUDIT, EXIT_OK
from pipeline.run.audit_gate import audit_path
from pipeline.store import RunDir, read_json

RECIPE = PROJECT_ROOT / "flows/configs/laptop.yaml"
NUM_JUDGED = 48
QUICK_PROMPTS, QUICK_STEPS = 8, 1
"""Enough to see that the chain works; far too few for a better policy."""
SUMMARY = ("minutes", "pairs", "checks_all_initial", "checks_all_sl_cai", "checks_all_tuned")

Recipe = dict[str, Any]


def with_seed(recipe: Mapping[str, Any], seed: int, *, quick: bool = False) -> Recipe:
    """A checked copy of the recipe with another seed."""
    changed: Recipe = json.loads(json.dumps(recipe))
    changed |= {"name": f"{recipe['name']}-{seed}", "seed": seed}
    for phase in ("supervised", "preference"):
        changed[phase]["train"]["seed"] = seed
        if quick:
            changed[phase]["train"]["max_steps"] = QUICK_STEPS
    if quick:
        changed["prompts"] |= {"limit": QUICK_PROMPTS, "heldout_limit": QUICK_PROMPTS}
    RunConfig.model_validate(changed)
    return changed


def judged(recipe: Mapping[str, Any], *, quick: bool = False) -> Recipe:
    """The recipe with principles that the model itself has to judge; it ends at the audit."""
    changed: Recipe = json.loads(json.dumps(recipe))
    changed |= {
        "name": f"{recipe['name']}-judged",
        "constitution": "constitutions/open_assistant.yaml",
        "supervised": {"enabled": False},
        "evaluation": {"enabled": False},
    }
    changed["prompts"]["limit"] = QUICK_PROMPTS if quick else NUM_JUDGED
    sample = changed["preference"]["sample"] | {"num_samples": 2}
    changed["preference"] = {"sample": sample, "audit": {"enabled": True}}
    RunConfig.model_validate(changed)
    return changed


def run_apart(recipe: Recipe, folder: Path, *, with_prefect: bool) -> tuple[RunDir, int, float]:
    """One run in a process of its own: its folder, exit code and minutes, start-up included.

    Raises:
        SystemExit: it ended neither well nor at its audit.
    """
    path = folder / f"{recipe['name']}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), "--run-id", recipe["name"]]
    command += [] if with_prefect else ["--no-prefect"]
    started = time.perf_counter()
    environment = os.environ | {"RLAIF_OUTPUTS": str(folder)}
    code = subprocess.run(command, cwd=PROJECT_ROOT, env=environment).returncode
    if code not in (EXIT_OK, EXIT_AUDIT):
        raise SystemExit(f"the run of {path.name} ended with exit code {code}")
    minutes = (time.perf_counter() - started) / 60
    return RunDir(folder / "runs" / recipe["name"]), code, minutes


def figures(run: RunDir, seed: int, minutes: float) -> dict[str, Any]:
    """The figures of one seed; those of the policies only where the audit let them be made."""
    found: dict[str, Any] = {
        "seed": seed,
        "minutes": round(minutes, 1),
        "failed_checks": failed_checks(run),
        "collapse_passed": ((read_json(audit_path(run)) or {}).get("collapse") or {}).get("passed"),
    }
    dataset = load_dataset(run)
    found["pairs"] = dataset.sets["preference"].rows if dataset else 0
    policies = (read_json(run.metrics) or {}).get("policies", {})
    for name, policy in policies.items():
        found[f"checks_all_{name}"] = estimate(policy["checks_all"])
        found[f"words_per_reply_{name}"] = round(policy["mean_words"], 1)
        found[f"truncated_{name}"] = round(policy["truncated_share"], 3)
        found[f"checks_{name}"] = {key: estimate(each) for key, each in policy["checks"].items()}
    if {"initial", "tuned"} <= set(policies):
        shares = [policies[name]["checks_all"]["share"] for name in ("initial", "tuned")]
        found["gain"] = round(shares[1] - shares[0], 4)
    return found


def failed_checks(run: RunDir) -> list[str]:
    """The checks of all rows and texts that the run's audit failed, each with its value."""
    audit = read_json(audit_path(run)) or {}
    findings = [f for judge in audit.get("judges", ()) for f in judge["findings"]]
    findings += (audit.get("collapse") or {}).get("findings", ())
    return [
        f"{f['name']} {f['value']:.3f}, n {f['n']}"
        for f in findings
        if f["status"] == "failed" and not f["scope"]
    ]


def estimate(value: Mapping[str, float] | None) -> dict[str, float] | None:
    """A share with its interval and n, rounded."""
    return {key: round(number, 4) for key, number in value.items()} if value else None


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, smallest and largest over the seeds."""
    columns = {key: [run.get(key) for run in runs] for key in (*SUMMARY, "gain")}
    return {
        key: spread([value["share"] if isinstance(value, dict) else value for value in values])
        for key, values in columns.items()
    }


def main() -> None:
    """Run the seeds and the judge, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="0, 1, ...; default: one seed")
    parser.add_argument("--keep", type=Path, help="folder for the runs and their reports")
    parser.add_argument("--quick", action="store_true", help="8 prompts, one step each")
    parser.add_argument("--no-prefect", action="store_true")
    parser.add_argument("--no-judge", action="store_true", help="leave out the judged run")
    options = parser.parse_args()
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    runs, judge = [], None
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep.resolve() if options.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seeds):
            run, _, minutes = run_apart(
                with_seed(recipe, seed, quick=options.quick),
                folder,
                with_prefect=not options.no_prefect,
            )
            runs.append(figures(run, seed, minutes))
            print(json.dumps(runs[-1]), flush=True)
        if not options.no_judge:
            changed = judged(recipe, quick=options.quick)
            run, code, minutes = run_apart(changed, folder, with_prefect=False)
            judge = {
                "exit_code": code,
                "minutes": round(minutes, 1),
                "failed_checks": failed_checks(run),
            }
    print(json.dumps({**summary(runs), "runs": runs, "judged": judge}))


if __name__ == "__main__":
    main()
