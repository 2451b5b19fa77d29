"""The thresholds that ship: clean texts of their world pass, each check that is on can fail, and a
planted collapse stops the export of a whole run.
"""

import asyncio
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from models.pocket.world import Kind, tasks, write_response
from pipeline.audits.findings import AuditReport
from pipeline.audits.text_checks import audit_pairs
from pipeline.cli.audit import print_audit
from pipeline.config import load_config
from pipeline.config.audits import CollapseConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.errors import EXIT_AUDIT, AuditError
from pipeline.run.context import open_context
from pipeline.run.phases import preference_chain, run_all
from pipeline.store import RunDir
from tests.audits.bad_judges import started
from tests.audits.builders import finding_of, injected, make_pairs, make_prompt, make_texts
from tests.run.builders import stored_json

RECIPES = {path.stem: path for path in (PROJECT_ROOT / "flows/configs").glob("*.yaml")}
COLLAPSE = {
    name: config
    for name, path in RECIPES.items()
    if (config := load_config(path).preference.collapse) is not None
}
CLOSING = "I am always here to listen if you want to talk."
REFUSAL = "I'm sorry, but I can't help with that."
NUMBER = 200

Spoil = Callable[[Sequence[str]], list[str]]
SPOILS: dict[str, Spoil] = {
    "closing_phrase": lambda t: injected(t, CLOSING, 0.75),
    "tail_entropy": lambda t: injected(t, CLOSING, 0.5),
    "common_ngram": lambda t: [f"{CLOSING} {x}" for x in t],
    "emoji": lambda t: injected(t, "\U0001f60a", 0.5),
    "boilerplate": lambda t: injected(t, "Hope this helps!", 0.5),
    "loops": lambda t: injected(t, "very " * 9, 0.05),
    "distinct_pairs": lambda t: [t[0]] * len(t),
    "near_duplicates": lambda t: [t[0]] * len(t),
    "evasive": lambda t: [REFUSAL] * len(t),
    "evasive_lift": lambda t: [REFUSAL] * len(t),
    "length_ratio": lambda t: [f"{x} {x} {x}" for x in t],
    "longer_share": lambda t: injected(t, "and more " * 20, 1.0),
}
"""What makes each check fail, in texts that pass it."""


def world_texts() -> list[str]:
    """Good replies of the pocket world, its tasks in turn."""
    rng = random.Random(0)
    return [
        write_response(task, Kind("alternative" if task.misdeed else "full"), rng)
        for _, task in zip(range(NUMBER), tasks() * NUMBER, strict=False)
    ]


def clean_texts(name: str) -> tuple[list[str], list[str]]:
    """Texts to choose and to reject, of the world that a recipe is about."""
    if name == "demo":
        texts = world_texts()
        return texts, texts[::-1]
    return make_texts(NUMBER), make_texts(NUMBER, seed=1)


def audited(
    name: str, chosen: Sequence[str], rejected: Sequence[str], kept: Sequence[int] = range(NUMBER)
) -> AuditReport:
    """Some of the pairs under the thresholds of a recipe; every second prompt is about law."""
    prompts = [make_prompt(i, ("health", "law")[i % 2]) for i in range(NUMBER)]
    pairs = make_pairs(chosen, rejected)
    return audit_pairs([pairs[i] for i in kept], prompts=prompts, config=COLLAPSE[name])


def test_shipped_recipes_audit_their_texts() -> None:
    """All but the one whose replies are scripted."""
    assert set(RECIPES) - set(COLLAPSE) == {"smoke"}


def test_defaults_are_for_natural_english() -> None:
    assert COLLAPSE["one_gpu"] == COLLAPSE["endpoint"] == CollapseConfig()


@pytest.mark.parametrize("name", COLLAPSE)
def test_clean_texts_pass(name: str) -> None:
    report = audited(name, *clean_texts(name))
    assert {f.name: f.status for f in report.findings} == {
        f.name: "passed" for f in report.findings
    }


@pytest.mark.parametrize("name", COLLAPSE)
def test_each_check_can_fail(name: str) -> None:
    chosen, rejected = clean_texts(name)
    checks = {f.name for f in audited(name, chosen, rejected).findings}
    assert {"closing_phrase", "tail_entropy", "tag_coverage"} <= checks
    for check in checks - {"tag_coverage"}:
        finding = finding_of(audited(name, SPOILS[check](chosen), rejected), check)
        assert finding.status == "failed", finding.describe()


@pytest.mark.parametrize("name", COLLAPSE)
def test_lost_tag_fails(name: str) -> None:
    """Only prompts about law are left."""
    report = audited(name, *clean_texts(name), kept=range(1, NUMBER, 2))
    assert [f.name for f in report.failed] == ["tag_coverage"]


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run up to its labels, whose policy ends every reply alike."""
    run = started(
        tmp_path_factory.mktemp("labeled"),
        "honest",
        closing=CLOSING,
        audit={"enabled": False},
        sample={"num_samples": 8},
    )
    asyncio.run(preference_chain(open_context(run)))
    return run


@pytest.mark.parametrize("name", COLLAPSE)
async def test_planted_collapse_exports_nothing(
    name: str, tmp_path: Path, labeled: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the thresholds of the recipe, through the rest of the run."""
    run = RunDir(shutil.copytree(labeled.root, tmp_path / "r1"))
    recipe = yaml.safe_load(run.recipe.read_text())
    collapse = yaml.safe_load(RECIPES[name].read_text())["preference"]["collapse"]
    recipe["preference"]["collapse"] = collapse
    run.recipe.write_text(yaml.safe_dump(recipe))
    with pytest.raises(AuditError) as caught:
        await run_all(open_context(run))
    assert caught.value.exit_code == EXIT_AUDIT == 3
    assert str(caught.value).startswith(
        "the audit of run r1 failed: closing_phrase of the chosen texts"
    )
    assert not (run.dataset / "preference.parquet").exists()
    found = {
        f["name"]: f
        for f in stored_json(run.root / "preference/audit.json")["collapse"]["findings"]
    }
    assert found["closing_phrase"]["value"] == 1.0
    page = run.report.read_text()
    text = (run.root / "report.md").read_text().replace("\\", "")
    assert "closing_phrase" in page and "| closing_phrase | chosen texts | 1.000 |" in text
    assert "want to talk" in page and "want to talk" in text
    assert print_audit(str(run.root)) and "closing_phrase" in capsys.readouterr().out
