"""Which pairs teach most? Judged pairs, pairs with a weaker policy, and pairs without a judge.

    python -m benchmarks.contrast --keep FOLDER [--arms NAME ...] [--seeds N ...] [--quick]

The table of Olmo 3 (arXiv:2512.13961, table 32) on the pocket world, where the truth is known:

    judged       two samples of the policy, compared by the judge
    weaker       one sample of a weaker policy among the candidates too
    worst        of these three candidates, the best against the worst
    delta        the policy's sample over the weaker policy's, without a judge
    mixed        pairs of `delta` and of `worst`, half and half

The policy is the pocket model, which also judges; the weaker policy is its copy with noise on the
weights. Every arm trains the initial policy by DPO for the same number of steps. An arm and a seed
are one run, in a process of its own; its figures are kept in FOLDER, so that the table can be made
in parts. The last line is one JSON object of all that FOLDER has: mean over seeds, the smallest and
the largest.

    good, harmless, refused, outside   shares of the tuned policy's held-out replies, by the oracle
    good_initial                       of the initial policy
    good_weaker                        of the weaker policy, on training prompts
    pairs                              pairs trained on
    right                              of the run's own pairs whose attributes that differ agree on
                                       the better response: it is chosen

Does not: hold the number of judge calls equal, or say what a larger model would learn.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks.demo_truth import QUICK_PROMPTS, RECIPE, Figures, print_spreads, run_apart
from benchmarks.demo_truth import figures as shares_of
from benchmarks.label_methods import damage
from models.pocket.oracle import Oracle
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import load_constitution
from pipeline.evaluation.oracle import clear_preference, oracle_messages
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows

NOISE = 0.35
"""Standard deviation of the weaker policy's noise, over that of each weight matrix."""
STEPS, QUICK_STEPS = 24, 3
SEEDS = (0, 1, 2)
MIX = 0.5
ARMS: dict[str, dict[str, Any]] = {
    "judged": {"comparisons": "samples", "sample": {"num_samples": 2}},
    "weaker": {"comparisons": "samples", "sample": {"num_samples": 2}},
    "worst": {"comparisons": "best_vs_worst", "sample": {"num_samples": 2}},
    "delta": {
        "comparisons": "delta",
        "sample": {"num_samples": 1},
        "labeler": "assumed",
        "assumed": {"label_accuracy": 0.9},
    },
    "mixed": {"comparisons": "best_vs_worst", "sample": {"num_samples": 2}},
}
"""What each arm changes in the preference section, in the order of the published table."""
KEYS = ("good", "harmless", "refused", "outside", "good_initial", "good_weaker", "pairs", "right")


def recipe(arm: str, seed: int, folder: Path, *, quick: bool) -> dict[str, Any]:
    """The demo's recipe without its supervised phase, with the pairs of one arm."""
    changed: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    section = changed["preference"]
    train = {**section["train"], "seed": seed, "max_steps": QUICK_STEPS if quick else STEPS}
    settings = {**ARMS[arm], "sample": {**ARMS[arm]["sample"], "max_tokens": 96}}
    changed |= {
        "name": f"contrast-{arm}-{seed}",
        "seed": seed,
        "supervised": {"enabled": False},
        "preference": {"pair": section["pair"], "train": train, **settings},
    }
    if arm != "judged":
        engine = {**changed["policy"], "model": str(folder / "weaker")}
        sample = {"num_samples": 1, "max_tokens": 96}
        changed["policies"] = {"weaker": {"engine": engine, "sample": sample}}
    if arm == "mixed":
        changed["preference"]["sources"] = str(_mixture(seed, folder))
    if quick:
        changed["prompts"] |= {"limit": QUICK_PROMPTS, "heldout_limit": QUICK_PROMPTS}
    return changed


def _mixture(seed: int, folder: Path) -> Path:
    """The source list that mixes the pairs of `delta` with those of the run itself."""
    delta = folder / f"delta-{seed}.json"
    if not delta.exists():
        raise SystemExit(f"`mixed` needs the pairs of `delta` with seed {seed}; run that first")
    pairs = Path(json.loads(delta.read_text())["run"]) / "dataset" / "preference.parquet"
    sources = [
        {"type": "run", "weight": MIX},
        {"type": "dataset", "name": "delta", "path": str(pairs), "weight": 1 - MIX},
    ]
    path = folder / f"sources-{seed}.yaml"
    path.write_text(yaml.safe_dump({"sources": sources}))
    return path


def figures(run: RunDir, seconds: float) -> Figures:
    """The figures of one run; None for what it does not have."""
    shares = shares_of(run, seconds)
    oracle = Oracle()
    asked = {row.row_id: oracle_messages(row.messages) for row in stage_rows(run.root, "prompts")}
    weaker = [
        oracle.read(asked[row.prompt_id], row.response)
        for row in stage_rows(run.root, "preference/sample-weaker")
    ]
    tags = {tag for p in load_constitution(run.constitution).principles for tag in p.tags}
    right = []
    for pair in stage_rows(run.root, "preference/pair"):
        sides = [oracle.read(asked[pair.prompt_id], text) for text in (pair.chosen, pair.rejected)]
        if pair.status == "ok" and sides[0] is not None and sides[1] is not None:
            right.append(clear_preference(sides[0], sides[1], sorted(tags)))
    result = json.loads((run.training("preference") / "result.json").read_text())
    return {
        "good": shares["good_tuned"],
        "harmless": shares["harmless_tuned"],
        "refused": shares["refused_tuned"],
        "outside": shares["outside_world_tuned"],
        "good_initial": shares["good_initial"],
        "good_weaker": fmean(r is not None and r.good for r in weaker) if weaker else None,
        "pairs": result["rows"]["used"],
        "right": fmean(sign > 0 for sign in right if sign) if any(right) else None,
        "seconds": seconds,
    }


def measure(arm: str, seed: int, folder: Path, *, quick: bool) -> None:
    """One run, with its figures kept in the folder."""
    path = folder / f"{arm}-{seed}.yaml"
    path.write_text(yaml.safe_dump(recipe(arm, seed, folder, quick=quick)), encoding="utf-8")
    run, seconds = run_apart(path, folder / "runs")
    entry = {"run": str(run.root), "figures": figures(run, seconds)}
    (folder / f"{arm}-{seed}.json").write_text(json.dumps(entry))
    print(f"{arm}, seed {seed}, {seconds:.0f} s: {json.dumps(entry['figures'])}", flush=True)


def kept_figures(folder: Path) -> dict[str, list[Figures]]:
    """The figures of all runs in the folder, by arm."""
    return {
        arm: [
            json.loads(path.read_text())["figures"] for path in sorted(folder.glob(f"{arm}-*.json"))
        ]
        for arm in ARMS
    }


def main() -> None:
    """Run the arms, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="folder for runs and figures")
    parser.add_argument("--arms", nargs="*", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="24 prompts and 3 steps")
    arguments = parser.parse_args()
    folder = arguments.keep.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "weaker").exists():
        damage(PROJECT_ROOT / "models" / "pocket", folder / "weaker", NOISE)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            measure(arm, seed, folder, quick=arguments.quick)
    print_spreads(kept_figures(folder), KEYS)


if __name__ == "__main__":
    main()
