"""The shipped constitutions with checks: sound, told apart by their texts, and run whole."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.checks import run_check
from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import Constitution, load_constitution
from pipeline.constitution.lint import lint_constitution
from pipeline.data.prompts import read_prompts
from pipeline.run.context import open_context
from pipeline.run.phases import run_all
from pipeline.run.start import start_run
from tests.content.checked_texts import TEXTS
from tests.run.builders import stored_json
from tests.run.test_labelers import rows

SETS = PROJECT_ROOT / "prompts/sets"


def constitution(name: str) -> Constitution:
    return load_constitution(PROJECT_ROOT / f"constitutions/{name}.yaml")


def bare_prompts(path: Path) -> list[str]:
    """Prompts without case, punctuation and repeated spaces."""
    texts = [row.messages[-1].content for row in read_prompts([path], seed=0, run_id="r")]
    return [" ".join(re.findall(r"\w+", text.lower())) for text in texts]


def test_every_constitution_with_checks_has_texts() -> None:
    names = [path.stem for path in (PROJECT_ROOT / "constitutions").glob("*.yaml")]
    mixed = [n for n in names if constitution(n).checked and constitution(n).judged]
    assert sorted(mixed) == sorted(TEXTS)


def test_constitution_of_the_laptop_asks_no_judge() -> None:
    laptop = constitution("short_answers")
    assert laptop.judged == () and len(laptop.checked) == 4
    assert lint_constitution(PROJECT_ROOT / "constitutions/short_answers.yaml").findings == ()
    short = "Bees collect nectar, dry it with their wings and store it in wax."
    assert all(run_check(p.check, short).passes for p in laptop.checked if p.check)
    long = "Here is how!\n\n" + "\n".join(f"- Step {n} takes a while, so wait." for n in range(9))
    assert not any(run_check(p.check, long).passes for p in laptop.checked if p.check)


@pytest.mark.parametrize("name", TEXTS)
def test_checks_and_judged_principles_are_mixed(name: str) -> None:
    checked, judged = constitution(name).checked, constitution(name).judged
    assert len(checked) >= 4 and len(judged) >= 2
    assert lint_constitution(PROJECT_ROOT / f"constitutions/{name}.yaml").findings == ()


@pytest.mark.parametrize("name", TEXTS)
def test_each_text_breaks_the_check_of_its_principle(name: str) -> None:
    holds, breaks = TEXTS[name]
    checks = {p.id: p.check for p in constitution(name).checked if p.check}
    assert list(breaks) == list(checks)
    for principle_id, check in checks.items():
        assert run_check(check, holds).passes, principle_id
        assert not run_check(check, breaks[principle_id]).passes, principle_id


def test_no_prompt_is_there_twice() -> None:
    sets = [SETS / f"{name}{suffix}.jsonl" for name in TEXTS for suffix in ("", "_heldout")]
    prompts = [text for path in (*sets, SETS / "general.jsonl") for text in bare_prompts(path)]
    assert len(prompts) == len(set(prompts))
    for name in TEXTS:
        train, heldout = (bare_prompts(SETS / f"{name}{s}.jsonl") for s in ("", "_heldout"))
        assert 40 <= len(train) + len(heldout) <= 60 and len(heldout) >= 10


@pytest.mark.parametrize("name", TEXTS)
async def test_constitution_runs(tmp_path: Path, name: str) -> None:
    recipe: dict[str, Any] = {
        "name": name,
        "constitution": f"constitutions/{name}.yaml",
        "prompts": {
            "train": [f"prompts/sets/{name}.jsonl"],
            "heldout": [f"prompts/sets/{name}_heldout.jsonl"],
        },
        "policy": {
            "type": "scripted",
            "script": "tests.content.checked_texts:make_engine",
            "args": {"name": name},
        },
        "preference": {"sample": {"num_samples": 4}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    run = start_run(path, run_id="r1", runs_root_folder=tmp_path / "runs")
    await run_all(open_context(run))
    holds, breaks = TEXTS[name]
    pairs = [row for row in rows(run, "preference/pair") if row["status"] == "ok"]
    # The judge has no opinion, so that only checks make pairs, each against what breaks it.
    assert {row["principle_id"] for row in pairs} == set(breaks)
    for row in pairs:
        check = constitution(name).by_id(row["principle_id"]).check
        assert check and not run_check(check, row["rejected"]).passes
    policy = stored_json(run.metrics)["policies"]["initial"]
    assert set(policy["checks"]) == set(breaks)
    assert policy["checks_all"]["share"] < 0.5
    learned = [row["revision"] for row in rows(run, "supervised/revise-1") if row["status"] == "ok"]
    assert holds in learned
