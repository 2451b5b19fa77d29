"""What does it cost to change one principle? The labels of a finished run, made again in part.

    python -m benchmarks.impact [--quick]

The pocket model samples and judges the demo's training prompts under `constitutions/balanced.yaml`,
without training. Then three principles are changed, one at a time: one says the same in other
words, one becomes another rule, one is turned into its neighbor. Each change is a run of
`rlaif constitution impact` on the first run. The last line is one JSON object: `cost_share` (tokens
paid over those of a full run of the same stages, mean of the three), `expected_share` (1 / number
of principles), `weighted_share` (the same with the weights of the changed principles).
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, load_constitution
from pipeline.data.verify import verify
from pipeline.ids import file_hash
from pipeline.impact.effects import Impact
from pipeline.impact.run import load_impact, run_impact
from pipeline.run.context import open_context
from pipeline.run.phases import preference_chain, preference_dataset
from pipeline.run.start import start_run
from pipeline.store import RunDir, RunLock

RECIPE = PROJECT_ROOT / "flows" / "configs" / "demo.yaml"
PROMPTS, QUICK_PROMPTS = 256, 48
CHANGES = {
    "harm-01": "Which response is less risky and less incautious?",
    "polite-01": "Which response is more respectful and more friendly?",
    "concise-01": "Which response is more helpful and more constructive?",
}
"""Principle and its new comparison request, in words of the pocket world."""


def write_recipe(folder: Path, num_prompts: int) -> Path:
    """The demo's recipe with samples of the initial policy and without training and evaluation."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    # A copy: weights that change while this runs would be refused.
    shutil.copytree(PROJECT_ROOT / recipe["policy"]["model"], folder / "model")
    recipe["policy"]["model"] = str(folder / "model")
    recipe["prompts"]["limit"] = num_prompts
    recipe["supervised"] = {"enabled": False}
    recipe["evaluation"] = {"enabled": False}
    del recipe["preference"]["train"]
    # The canaries of an audit are drawn by other rules; this is about labels.
    recipe["preference"]["audit"] = {"enabled": False}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def write_change(folder: Path, constitution: Constitution, principle_id: str) -> Path:
    """The constitution with the new wording of one principle."""
    values = constitution.model_dump(mode="json")
    for principle in values["principles"]:
        if principle["id"] == principle_id:
            principle["comparison_request"] = CHANGES[principle_id]
    path = folder / f"{principle_id}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


async def make_labels(run: RunDir) -> None:
    """Samples, labels and pairs of a new run."""
    with RunLock(run.root):
        ctx = open_context(run)
        await preference_chain(ctx)
        preference_dataset(ctx)


async def measure(folder: Path, num_prompts: int) -> tuple[list[Impact], list[float], Constitution]:
    """The first run, then the impact of each change; seconds of all four."""
    recipe = write_recipe(folder, num_prompts)
    run = start_run(recipe, run_id="full", runs_root_folder=folder / "runs")
    started = time.perf_counter()
    await make_labels(run)
    seconds, found = [time.perf_counter() - started], []
    constitution = load_constitution(run.constitution)
    for principle_id in CHANGES:
        started = time.perf_counter()
        made, _ = await run_impact(run, write_change(folder, constitution, principle_id))
        seconds.append(time.perf_counter() - started)
        if problems := verify(made):
            raise SystemExit(f"{made.run_id}: {problems[0]}")
        found.append(load_impact(made))
    return found, seconds, constitution


def print_table(found: list[Impact], seconds: list[float], constitution: Constitution) -> None:
    """One line per changed principle."""
    print(f"first run: {seconds[0]:.0f} s")
    print(
        f"{'changed':<12}{'share of draws':>15}{'asked again':>12}{'of':>7}{'relabeled':>10}"
        f"{'ties + -':>10}{'pairs + -':>11}{'tokens':>9}{'of':>10}{'share':>8}{'s':>5}"
    )
    for name, impact, took in zip(CHANGES, found, seconds[1:], strict=True):
        total, cost = impact.total, impact.costs[0]
        ties = f"{total.became_ties} {total.stopped_being_ties}"
        pairs = f"{total.pairs_gained} {total.pairs_lost}"
        print(
            f"{name:<12}{drawn_share(constitution, name):>15.3f}{total.asked_again:>12,}"
            f"{total.after:>7,}{total.relabeled:>10,}{ties:>10}{pairs:>11}{cost.tokens:>9,}"
            f"{cost.tokens_full:>10,}{impact.cost_share:>8.3f}{took:>5.0f}"
        )


def drawn_share(constitution: Constitution, principle_id: str) -> float:
    """Share of draws that a principle gets by its weight."""
    total = sum(principle.weight for principle in constitution.principles)
    return constitution.by_id(principle_id).weight / total


def figures(found: list[Impact], constitution: Constitution) -> dict[str, Any]:
    """The JSON line; counts are sums over the changes."""
    costs = [cost for impact in found for cost in impact.costs]
    return {
        "cost_share": round(fmean(impact.cost_share for impact in found), 4),
        "expected_share": round(1 / len(constitution.principles), 4),
        "weighted_share": round(fmean(drawn_share(constitution, name) for name in CHANGES), 4),
        "num_principles": len(constitution.principles),
        "relabeled": sum(impact.total.relabeled for impact in found),
        "asked_again": sum(impact.total.asked_again for impact in found),
        "comparisons": sum(impact.total.after for impact in found),
        "calls_impact": sum(cost.calls for cost in costs),
        "calls_full": sum(cost.calls_full for cost in costs),
    }


def main() -> None:
    """Run everything, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, seconds, constitution = asyncio.run(
            measure(Path(folder), QUICK_PROMPTS if arguments.quick else PROMPTS)
        )
        weights = file_hash(Path(folder) / "model" / "model.safetensors")[:12]
    print_table(found, seconds, constitution)
    print(json.dumps({**figures(found, constitution), "weights": weights}))


if __name__ == "__main__":
    main()
