"""A sweep on the scripted engine: what its runs share, and what is not run twice."""

import asyncio
from pathlib import Path

import pytest
import yaml

from pipeline.data.prompts import write_prompt_shards
from pipeline.run.context import open_context
from pipeline.run.nightly import take_run
from pipeline.run.phases import planned_folders
from pipeline.run.start import find_run, start_run
from pipeline.store import RunDir, read_json
from pipeline.store.files import link_file
from pipeline.store.shards import stage_manifests
from pipeline.store.spending import spending
from pipeline.store.stage_names import PAIRS, POOLED, SAMPLES, stage_folders
from pipeline.sweep.page import write_sweep
from pipeline.sweep.run import begin_with, plan_sweep, run_sweep, sweep_folder
from tests.run.builders import write_recipe
from tests.stages.builders import make_prompts

OVER = ["preference.pair.tie_width=0.0,0.3"]


def test_points_share_what_is_equal_and_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "out"))
    recipe = write_recipe(tmp_path / "in", supervised={"enabled": False})
    taken: list[str] = []

    def take(run: RunDir) -> None:
        taken.append(run.run_id)
        asyncio.run(take_run(run))

    plan = plan_sweep(recipe, [f"{OVER[0]},0.30"])
    assert not (tmp_path / "out").exists() and len(plan) == 2
    assert run_sweep(plan, take) == {}
    first, second = (each.run for each in plan)
    assert first.run_id != second.run_id and taken == [first.run_id, second.run_id]
    before, after = (stage_manifests(run.root, SAMPLES) for run in (first, second))
    assert [m.sha256 for m in before] == [m.sha256 for m in after]
    assert [m.key for m in before] == [m.key for m in after]
    costs = [spending(run, None)["preference/sample"].tokens for run in (first, second)]
    assert costs[0] > costs[1] == 0 and all(m.counts.reused == m.counts.ok for m in after)
    inodes = {(run.root / before[0].path).stat().st_ino for run in (first, second)}
    assert len(inodes) == 1
    kept = [sum(m.counts.ok for m in stage_manifests(r.root, PAIRS)) for r in (first, second)]
    assert kept[0] > kept[1]

    more = plan_sweep(recipe, ["preference.pair.tie_width=0.0,0.3,0.2"])
    run_sweep(more, take)
    assert len(taken) == 3 and find_run(taken[2]).info()["status"] == "finished"
    page = write_sweep(sweep_folder(more, "ties"), more, {})
    assert page == tmp_path / "out" / "sweeps" / "ties" / "sweep.html"
    stored = read_json(page.with_name("sweep.json"))
    assert isinstance(stored, dict)
    assert [point["run_id"] for point in stored["points"]] == taken
    assert "preference.pair.tie_width=0.2" in page.read_text()


def trains(run: RunDir) -> RunDir:
    """The run with a policy that is trained, which no test opens."""
    policy = {"type": "vllm", "model": "models/pocket"}
    changes = {"policy": policy, "supervised": {"train": {}}}
    run.recipe.write_text(yaml.safe_dump(yaml.safe_load(run.recipe.read_text()) | changes))
    return run


def test_a_point_takes_over_what_its_own_recipe_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One principle has no pool of labels and one round no second; readers take what is there."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "out"))
    recipe = write_recipe(tmp_path / "in", prompts=4)
    over = ["preference.judge.num_principles=3,1", "supervised.revise.rounds=2,1"]
    plan = plan_sweep(recipe, over)
    ends = (plan[0].run, plan[-1].run)

    def take(run: RunDir) -> None:
        if run in ends:
            asyncio.run(take_run(run))

    run_sweep(plan, take)
    extra = {POOLED, "supervised/critique-2", "supervised/revise-2"}
    taken = [extra & set(stage_folders(each.run.root)) for each in plan]
    assert taken == [extra, {POOLED}, extra - {POOLED}, set()]
    for run in ends:
        assert set(stage_folders(run.root)) == planned_folders(open_context(run))
    sft = ends[0].training("sft")
    sft.mkdir(parents=True)
    (sft / "result.json").write_text("{}")
    begin_with(other := start_run(recipe, run_id="other"), ends[0])
    assert stage_folders(other.root) and not other.training("sft").exists()


def test_what_a_training_wrote_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are linked, the log is not, and the records name the folder that they are in."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "out"))
    recipe = write_recipe(tmp_path / "in")
    runs = [trains(start_run(recipe, run_id=name)) for name in ("one", "two")]
    sft = runs[0].training("sft")
    (sft / "model").mkdir(parents=True)
    for name in ("train.log", "model/model.safetensors"):
        (sft / name).write_text("x")
    for name in ("result.json", "job.json"):
        (sft / name).write_text(f'{{"model_dir": "{sft}/model"}}')
    begin_with(runs[1], runs[0])
    other = runs[1].training("sft")
    assert not (other / "train.log").exists()
    weights = "model/model.safetensors"
    assert (other / weights).stat().st_ino == (sft / weights).stat().st_ino
    assert (other / "result.json").read_text() == f'{{"model_dir": "{other}/model"}}'
    assert (sft / "result.json").read_text() == f'{{"model_dir": "{sft}/model"}}'


def test_damaged_shards_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "out"))
    recipe = write_recipe(tmp_path / "in")
    before, run = (start_run(recipe, run_id=name) for name in ("one", "two"))
    write_prompt_shards(before.root, "prompts", make_prompts(3), 1, "key")
    (before.root / "prompts/shard-00000.json").write_text("{")
    (before.root / "prompts/shard-00001.parquet").write_bytes(b"x")
    begin_with(run, before)
    taken = sorted(path.name for path in (run.root / "prompts").glob("shard-*"))
    assert taken == ["shard-00002.json", "shard-00002.parquet"]


@pytest.mark.parametrize("links", range(2))
def test_takeover_that_is_stopped_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: int
) -> None:
    """No manifest without its shard, and no result of a training without its model."""
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "out"))
    recipe = write_recipe(tmp_path / "in")
    before, run = (trains(start_run(recipe, run_id=name)) for name in ("one", "two"))
    write_prompt_shards(before.root, "prompts", make_prompts(1), 1, "key")
    sft = before.training("sft")
    (sft / "model").mkdir(parents=True)
    for name in ("job.json", "result.json", "model/model.safetensors"):
        (sft / name).write_text("{}")
    real, left = link_file, iter([True] * links)

    def link(source: Path, target: Path) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("pipeline.sweep.run.link_file", link)
    with pytest.raises(KeyboardInterrupt):
        begin_with(run, before)
    shards = {path.suffix for path in (run.root / "prompts").iterdir()}
    assert shards in (set(), {".parquet"}, {".parquet", ".json"})
    assert not (run.training("sft") / "result.json").exists()
