"""A whole run on the scripted engine, through the same phases as a real one."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.run.audit_gate import audit_run
from pipeline.run.context import open_context
from pipeline.run.phases import run_all, supervised_chain
from pipeline.run.start import find_run, start_run
from pipeline.store import RunDir, read_rows
from pipeline.store.shards import stage_manifests
from tests.run.builders import write_recipe


async def run_once(folder: Path, **changes: Any) -> RunDir:
    recipe = write_recipe(folder / "in", **changes)
    run = start_run(recipe, run_id="r1", runs_root_folder=folder / "out" / "runs")
    await run_all(open_context(run))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A whole run, which no test changes."""
    return asyncio.run(run_once(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def run(whole: RunDir, tmp_path: Path) -> RunDir:
    """A copy, which a test may change."""
    return RunDir(shutil.copytree(whole.root, tmp_path / "r1"))


def row_ids(run: RunDir, stage: str) -> list[str]:
    return [
        row_id
        for m in stage_manifests(run.root, stage)
        for row_id in pq.read_table(run.root / m.path)["row_id"].to_pylist()
    ]


def test_run_leaves_all_files(whole: RunDir) -> None:
    run = whole
    for name in (
        "run.json",
        "recipe.yaml",
        "constitution.yaml",
        "environment.json",
        "dataset/sft.parquet",
        "dataset/preference.parquet",
        "dataset/README.md",
        "evaluation/metrics.json",
        "report.html",
        "report.md",
    ):
        assert (run.root / name).is_file(), name
    assert run.info()["status"] == "finished"
    assert not list(run.root.rglob("*.tmp"))


def test_chosen_is_the_polite_one(whole: RunDir) -> None:
    pairs = pq.read_table(whole.dataset / "preference.parquet").to_pylist()
    assert pairs
    for pair in pairs:
        assert "polite" in pair["chosen"] and "rude" in pair["rejected"]


async def test_revisions_reach_the_sft_set(tmp_path: Path) -> None:
    supervised = {"revise": {"rounds": 2}}
    run = await run_once(tmp_path, supervised=supervised)
    rows = pq.read_table(run.dataset / "sft.parquet").to_pylist()
    assert {row["round"] for row in rows} == {1, 2}
    assert all(row["completion"].startswith("revised and polite") for row in rows)


@pytest.mark.parametrize("mode", ["samples", "revision_vs_initial", "best_vs_worst", "all"])
async def test_every_comparison_mode_runs(tmp_path: Path, mode: str) -> None:
    preference = {"comparisons": mode, "sample": {"num_samples": 3}}
    run = await run_once(tmp_path, preference=preference)
    kinds = {
        row["comparison"]
        for m in stage_manifests(run.root, "preference/judge")
        for row in pq.read_table(run.root / m.path).to_pylist()
    }
    expected = {"samples", "revision_vs_initial"} if mode == "all" else {mode}
    assert kinds == expected


async def test_second_call_makes_nothing(run: RunDir) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.root.rglob("*.parquet")}
    await run_all(open_context(run))
    assert {
        p: p.stat().st_mtime_ns for p in run.root.rglob("*.parquet") if "dataset" not in p.parts
    } == {p: t for p, t in before.items() if "dataset" not in p.parts}


async def test_same_ids_for_any_shard_size(tmp_path: Path) -> None:
    one = await run_once(tmp_path / "a", execution={"shard_size": 3, "shards_in_flight": 1})
    two = await run_once(tmp_path / "b", execution={"shard_size": 64, "shards_in_flight": 4})
    for stage in ("supervised/revise-1", "preference/judge", "preference/pair"):
        assert row_ids(one, stage) == row_ids(two, stage), stage


def test_unknown_key_writes_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in", evaluatoin={})
    with pytest.raises(ConfigError, match="line 2: 'evaluatoin' is not a known key; did you mean"):
        start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_id_is_a_name(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    for run_id in ("../aside", str(tmp_path / "aside"), ".", ""):
        with pytest.raises(StoreError, match=r"the run id is .* but it names a folder"):
            start_run(recipe, run_id=run_id, runs_root_folder=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_same_run_id_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out")
    with pytest.raises(StoreError, match="run r1 exists already; `rlaif resume r1`"):
        start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out")


def test_unknown_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run"):
        find_run("nope", tmp_path)


async def test_resume_ignores_edited_files(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "in")
    run = start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out" / "runs")
    (tmp_path / "in" / "constitution.yaml").write_text("broken: [")
    assert len(open_context(run).constitution.principles) == 3


@pytest.mark.parametrize("phase, kept", [("supervised", "preference"), ("preference", "sft")])
async def test_disabled_phase_makes_nothing(tmp_path: Path, phase: str, kept: str) -> None:
    run = await run_once(tmp_path, **{phase: {"enabled": False}})
    assert {path.stem for path in run.dataset.glob("*.parquet")} == {kept, "prompts"}
    assert not stage_manifests(run.root, f"{phase}/sample")
    assert run.info()["status"] == "finished"


def write_heldout(folder: Path, *texts: str) -> None:
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in texts)
    (folder / "in/heldout.jsonl").write_text(lines)


async def test_heldout_prompts_are_those_of_the_beginning(tmp_path: Path) -> None:
    """An edit after the first phase holds out nothing that was trained on."""
    recipe = write_recipe(tmp_path / "in")
    run = start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out/runs")
    await supervised_chain(open_context(run))
    write_heldout(tmp_path, "train question 0?")
    await run_all(open_context(run))
    held = [
        row.messages[-1].content
        for m in stage_manifests(run.root, "heldout")
        for row in read_rows(run.root, m)
    ]
    assert held == [f"heldout question {i}?" for i in range(4)]


async def test_prompt_cannot_be_held_out_after_the_start(tmp_path: Path) -> None:
    """The recipe was checked, then the file changed: refused before anything is sampled."""
    recipe = write_recipe(tmp_path / "in")
    run = start_run(recipe, run_id="r1", runs_root_folder=tmp_path / "out/runs")
    write_heldout(tmp_path, "other?", "train question 3?\n")
    with pytest.raises(DataError, match=r"heldout.jsonl, line 2: .* is one that run r1 trains on"):
        await run_all(open_context(run))
    assert not list(run.root.glob("supervised/*/shard-*"))
    write_heldout(tmp_path, "other?")
    await run_all(open_context(run))


@pytest.mark.parametrize("folder", ["prompts", "supervised/critique-1", "preference/judge"])
async def test_broken_manifest_stops_readers_and_is_made_again(run: RunDir, folder: str) -> None:
    before = {path: path.read_bytes() for path in run.dataset.glob("*.parquet")}
    (run.root / folder / "shard-00001.json").write_text("{")
    with pytest.raises(StoreError, match=f"{folder}/shard-00001.json of run r1"):
        stage_manifests(run.root, folder)
    await run_all(open_context(run))
    assert len(stage_manifests(run.root, folder)) == 3
    assert {path: path.read_bytes() for path in before} == before


def test_audit_of_fewer_labels_is_refused(run: RunDir) -> None:
    (run.root / "preference/judge/shard-00001.json").write_text("{")
    with pytest.raises(
        StoreError, match=r"preference/judge/shard-00001.json of run r1 is not a manifest"
    ):
        audit_run(open_context(run))
