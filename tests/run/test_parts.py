"""Some phases of a run at a time, and what runs and phases are called."""

import asyncio
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.run.context import open_context
from pipeline.run.driver import PLAIN
from pipeline.run.phases import PHASES, report_phase
from pipeline.run.start import begin_run, start_run
from pipeline.run.titles import is_one_step, phase_title, run_tags, run_title
from pipeline.store import RunDir
from tests.run.builders import write_recipe

QUIET = {"audit": {"enabled": False}, "sample": {"num_samples": 2}}


def take(run: RunDir, *phases: str) -> None:
    async def work() -> None:
        ctx = open_context(run)
        for name in phases:
            await PHASES[name](ctx, PLAIN)
        await report_phase(ctx, phases=phases)

    asyncio.run(work())


def test_run_is_finished_after_its_last_phase(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prompts=4, heldout=2, preference=QUIET)
    run = start_run(recipe, run_id="one", runs_root_folder=tmp_path / "runs")
    take(run, "supervised", "preference")
    assert run.info()["status"] == "stopped after supervised, preference"
    assert (run.dataset / "preference.parquet").exists() and run.report.exists()
    take(run, "training", "evaluation")
    assert run.info()["status"] == "finished"


def test_titles_and_tags(tmp_path: Path) -> None:
    recipe, runs = write_recipe(tmp_path), tmp_path / "runs"
    run = start_run(recipe, run_id="one", runs_root_folder=runs)
    digits = run.info()["constitution"]["hash"][:8]
    assert run_title(run) == "small · one"
    own = start_run(recipe, run_id="small-2026", runs_root_folder=runs)
    assert run_title(own) == "small-2026"
    assert run_tags(run) == ["small", f"tests@{digits}", "scripted"]
    config = load_config(run.recipe)
    assert [(phase_title(config, name), is_one_step(config, name)) for name in PHASES] == [
        ("supervised: sample, critique, revise", False),
        ("preference: sample, label by judge, pair", False),
        ("training: left out", True),
        ("evaluation: compare policies", False),
    ]


def test_number_of_prompts_of_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = str(write_recipe(tmp_path))
    assert "limit: 3" in begin_run(recipe, "one", prompts=3).recipe.read_text()
    with pytest.raises(ConfigError, match=r"leave out prompts\.limit"):
        begin_run(recipe, "one", resume=True, prompts=4)
