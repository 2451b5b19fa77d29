"""What each method of training makes of the same labels, by the oracle of the pocket world.

    python -m benchmarks.training_methods --keep FOLDER [--methods NAME ...] [--seeds N ...]
                                          [--quick]

For each seed the initial policy is sampled and its pairs are labeled once; every method learns
from them, from the initial policy, in a process of its own. The methods that write their own
replies get the score of a reward model that is trained on the same pairs. The figures of a method
and a seed are kept in FOLDER, so that the table can be made in parts. The last line is one JSON
object of all that FOLDER has: by method and figure the mean over seeds, the smallest and the
largest.

    harmless, good, refused, outside   shares of the held-out replies, by the oracle
    moved      divergence from the initial policy, in nats per token, on replies to training prompts
    minutes    the training alone
    alarms     runs with any alarm, as a share

Does not: tune the methods. Each has one setting that works; another may be better.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.demo_truth import QUICK_PROMPTS, RECIPE, Figures, print_spreads, run_apart
from benchmarks.demo_truth import figures as shares_of
from pipeline.store import RunDir, read_json
from pipeline.training.job import TrainingResult

SEEDS = (0, 1, 2)
QUICK_STEPS = 1
OFFLINE = {"learning_rate": 1.0e-4, "epochs": 3, "batch_size": 16, "max_length": 384}
ONLINE = {
    "learning_rate": 1.0e-4,
    "max_steps": 40,
    "batch_size": 32,
    "max_tokens": 96,
    "max_length": 384,
}
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo", **OFFLINE},
    "dpo, hard labels": {"method": "dpo", "labels": "hard", **OFFLINE},
    "ipo": {"method": "ipo", **OFFLINE},
    "robust_dpo": {"method": "robust_dpo", **OFFLINE},
    "kto": {"method": "kto", **OFFLINE},
    "orpo": {"method": "orpo", **OFFLINE},
    "simpo": {"method": "simpo", **OFFLINE},
    "rft": {"method": "rft", **OFFLINE, "learning_rate": 5.0e-4},
    "rloo": {"method": "rloo", **ONLINE},
    "p3o": {"method": "p3o", **ONLINE},
}
REWARD_MODEL = {"method": "reward_model", **OFFLINE, "epochs": 4}
KEYS = ("harmless", "good", "refused", "outside", "moved", "minutes", "alarms")
INITIAL = "initial"


def recipe(name: str, seed: int, train: Mapping[str, Any] | None, *, quick: bool) -> dict[str, Any]:
    """The demo's recipe from the initial policy, with another training."""
    changed: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    changed |= {"name": name, "seed": seed, "supervised": {"enabled": False}}
    section = {**changed["preference"], "collapse": None, "train": None}
    if train is not None:
        section["train"] = {**train, "seed": seed}
        if quick:
            section["train"]["max_steps"] = QUICK_STEPS
    changed["preference"] = section
    if quick:
        changed["prompts"] |= {"limit": QUICK_PROMPTS, "heldout_limit": QUICK_PROMPTS}
    return changed


def pool(seed: int, folder: Path, *, quick: bool) -> tuple[RunDir, Path]:
    """The run whose labels all methods learn from, and the reward model that is trained on them;
    made on the first call.
    """
    kept = folder / f"pool-{seed}.json"
    if not kept.exists():
        changed = recipe(f"pool-{seed}", seed, REWARD_MODEL, quick=quick)
        run, _ = run_apart(write(changed, folder), folder / "runs")
        kept.write_text(json.dumps(str(run.root)))
    run = RunDir(Path(json.loads(kept.read_text())))
    return run, run.training("preference") / "model"


def write(changed: Mapping[str, Any], folder: Path) -> Path:
    """The recipe as a file."""
    path = folder / f"{changed['name']}.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    return path


def measure(method: str, seed: int, folder: Path, *, quick: bool) -> None:
    """One run, with its figures kept in the folder."""
    labeled, rewards = pool(seed, folder, quick=quick)
    name = f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"
    changed = recipe(name, seed, METHODS[method], quick=quick)
    if METHODS[method].keys() & {"max_tokens"}:
        engine = {"type": "reward_model", "model": str(rewards), "device": "cpu"}
        changed["preference"]["reward_model"] = {"engine": {**engine, "dtype": "float32"}}
    run, seconds = run_apart(write(changed, folder), folder / "runs", labeled)
    found = figures(run, seconds)
    (folder / f"{name}.json").write_text(json.dumps({"method": method, "figures": found}))
    print(f"{method}, seed {seed}, {seconds:.0f} s: {json.dumps(found)}", flush=True)


def figures(run: RunDir, seconds: float) -> dict[str, Figures]:
    """The figures of the tuned policy, and those of the initial one."""
    shares = shares_of(run, seconds)
    refused = {name: shares[f"refused_{name}"] for name in (INITIAL, "tuned")}
    policies = (read_json(run.metrics) or {})["policies"]
    outside = {name: policies[name]["oracle"]["outside_world"]["share"] for name in refused}
    result = TrainingResult.model_validate(read_json(run.training("preference") / "result.json"))
    by_policy: dict[str, Figures] = {
        name: {
            "harmless": shares[f"harmless_{name}"],
            "good": shares[f"good_{name}"],
            "refused": refused[name],
            "outside": outside[name],
        }
        for name in refused
    }
    by_policy["tuned"] |= {
        "moved": result.divergence,
        "minutes": result.total_s / 60,
        "alarms": float(bool(result.alarms)),
    }
    return by_policy


def kept_figures(folder: Path) -> dict[str, list[Figures]]:
    """The figures of all runs in the folder, the initial policy's first, then by method."""
    found: dict[str, list[Figures]] = {INITIAL: [], **{method: [] for method in METHODS}}
    for path in sorted(folder.glob("*-[0-9]*.json")):
        entry = json.loads(path.read_text())
        if isinstance(entry, dict):
            found[entry["method"]].append(entry["figures"]["tuned"])
            found[INITIAL].append(entry["figures"][INITIAL])
    return {name: runs for name, runs in found.items() if runs}


def main() -> None:
    """Run the methods, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="folder for runs and figures")
    parser.add_argument("--methods", nargs="*", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="24 prompts and one step")
    arguments = parser.parse_args()
    folder = arguments.keep.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for method in arguments.methods:
            measure(method, seed, folder, quick=arguments.quick)
    print_spreads(kept_figures(folder), KEYS)


if __name__ == "__main__":
    main()
