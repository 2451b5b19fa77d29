"""What does a night cost, as a share of labeling everything?

    python -m benchmarks.nightly_cost [--quick]

The smoke recipe without training, on its scripted policy and judge, with two rounds of critiques
and revisions, two samples a prompt, labels in both orders and the canaries of its audit, under
`constitutions/balanced.yaml`. Two kinds of night are compared with a first night that has all
prompts:

    new      5 % of the prompts are new
    changed  no prompt is new, and one principle says other words in all three requests; once for
             the principle that is drawn most, for one in the middle and for the one drawn least

A table, then one JSON object: shares of calls and of tokens (words here), those of `changed` the
largest of the three, `goals` and whether they are `met`.

Does not: count the evaluation and the training, which cost a night what they cost a first one.
"""

import argparse
import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import load_config
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import load_constitution
from pipeline.ids import canonical_json
from pipeline.impact.measure import num_calls
from pipeline.records import ModelRow
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly
from pipeline.run.start import runs_root
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import stage_folders

RECIPE = PROJECT_ROOT / "flows" / "configs" / "smoke.yaml"
CONSTITUTION = PROJECT_ROOT / "constitutions" / "balanced.yaml"
PROMPTS, QUICK_PROMPTS = 1000, 80
NEW_SHARE = 0.05
GOALS = {"new": 0.10, "changed": 0.15}
REQUESTS = ("critique_request", "revision_request", "comparison_request")


def write_series(folder: Path) -> Path:
    """A recipe in `folder` with a constitution and a prompt set of its own."""
    folder.mkdir(parents=True)
    shutil.copy(CONSTITUTION, folder / "constitution.yaml")
    recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    constitution = str(folder / "constitution.yaml")
    recipe |= {"name": "nights", "constitution": constitution}
    recipe["prompts"] = {"train": [str(folder / "prompts.jsonl")]}
    recipe["policy"]["args"]["constitution"] = constitution
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def night(recipe: Path, outputs: Path, num_prompts: int) -> tuple[int, int]:
    """Make one night; returns the calls and the tokens that it paid."""
    texts = (f"How would you explain number {i} to a friend?" for i in range(num_prompts))
    lines = "".join(canonical_json({"prompt": text}) + "\n" for text in texts)
    (recipe.parent / "prompts.jsonl").write_text(lines, encoding="utf-8")
    os.environ["RLAIF_OUTPUTS"] = str(outputs)
    before = {path.name for path in runs_root().glob("*")}
    asyncio.run(run_nightly(plan_nightly(str(recipe))))
    new = [RunDir(path) for path in runs_root().iterdir() if path.name not in before]
    if nightly_runs("nights")[-1].info().get("status") != "finished":
        raise SystemExit("the night has not ended")
    return bill(new)


def bill(runs: list[RunDir]) -> tuple[int, int]:
    """Calls and tokens of the rows that these runs made themselves."""
    calls = tokens = 0
    for run in runs:
        config = load_config(run.recipe)
        for folder in stage_folders(run.root):
            for row in stage_rows(run.root, folder):
                if isinstance(row, ModelRow) and row.run_id == run.run_id:
                    calls += num_calls(row, config)
                    tokens += row.num_prompt_tokens + row.num_tokens
    return calls, tokens


def change(constitution: Path, principle_id: str) -> None:
    """Put another word at the end of the three requests of one principle."""
    values = yaml.safe_load(CONSTITUTION.read_text(encoding="utf-8"))
    for principle in values["principles"]:
        if principle["id"] == principle_id:
            principle |= {name: f"{principle[name].strip()} Truly." for name in REQUESTS}
    constitution.write_text(yaml.safe_dump(values), encoding="utf-8")


def changed_ids() -> list[str]:
    """The principle that is drawn most, one in the middle, and the one that is drawn least."""
    principles = load_constitution(CONSTITUTION).judged
    by_weight = [p.id for p in sorted(principles, key=lambda p: (-p.weight, p.id))]
    return [by_weight[0], by_weight[len(by_weight) // 2], by_weight[-1]]


def measure(folder: Path, num_prompts: int) -> dict[str, tuple[int, int]]:
    """Calls and tokens of a first night with all prompts (`full`), of a night with new ones, and of
    one under each changed principle.
    """
    recipe = write_series(folder / "series")
    found = {"full": night(recipe, folder / "full", num_prompts)}
    night(recipe, folder / "new", num_prompts - round(NEW_SHARE * num_prompts))
    found["new"] = night(recipe, folder / "new", num_prompts)
    for principle_id in changed_ids():
        outputs = Path(shutil.copytree(folder / "full", folder / principle_id))
        change(recipe.parent / "constitution.yaml", principle_id)
        found[principle_id] = night(recipe, outputs, num_prompts)
        if night(recipe, outputs, num_prompts) != (0, 0):
            raise SystemExit("a night that had nothing to do asked a model")
    return found


def figures(found: dict[str, tuple[int, int]], num_prompts: int) -> dict[str, Any]:
    """The JSON line."""
    calls, tokens = found["full"]
    shares = {n: (paid[0] / calls, paid[1] / tokens) for n, paid in found.items() if n != "full"}
    new = shares.pop("new")
    changed = tuple(max(share[i] for share in shares.values()) for i in (0, 1))
    return {
        "prompts": num_prompts,
        "calls_full": calls,
        "tokens_full": tokens,
        "new_calls_share": round(new[0], 4),
        "new_tokens_share": round(new[1], 4),
        "changed_calls_share": round(changed[0], 4),
        "changed_tokens_share": round(changed[1], 4),
        "goals": GOALS,
        "met": max(new) <= GOALS["new"] and max(changed) <= GOALS["changed"],
    }


def main() -> None:
    """Make all nights, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts")
    num_prompts = QUICK_PROMPTS if parser.parse_args().quick else PROMPTS
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), num_prompts)
    print(f"{'night':<14}{'calls':>9}{'share':>8}{'tokens':>11}{'share':>8}")
    for name, paid in found.items():
        shares = [part / whole for part, whole in zip(paid, found["full"], strict=True)]
        print(f"{name:<14}{paid[0]:>9,}{shares[0]:>8.3f}{paid[1]:>11,}{shares[1]:>8.3f}")
    print(json.dumps(figures(found, num_prompts)))


if __name__ == "__main__":
    main()
