"""A night under a changed constitution makes again what the change touches, and nothing else."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cli.run import resume_run
from pipeline.config import load_config
from pipeline.data.dataset import load_dataset, parent_run
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import AuditError, ConfigError, StoreError
from pipeline.impact.measure import num_calls
from pipeline.impact.version import relabel_version, relabeled
from pipeline.run.context import open_context
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly, take_run
from pipeline.run.start import runs_root, work_in
from pipeline.store import RunDir
from pipeline.store.shards import stage_rows
from pipeline.store.stage_names import stage_folders
from tests.impact.impact_runs import CALLS, PRINCIPLES, SCRIPT, reworded
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines

QUIET = {"audit": {"enabled": False}}
Take = Callable[[RunDir], Awaitable[object]]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))


@dataclass
class Series:
    """The nights of one recipe."""

    recipe: Path

    def night(self, prompts: int | None = None, take: Take = take_run) -> str:
        """One night, with this number of prompts so far."""
        if prompts is not None:
            lines = ({"prompt": f"train question {i}?"} for i in range(prompts))
            write_lines(self.recipe.with_name("train.jsonl"), *lines)
        return asyncio.run(run_nightly(plan_nightly(str(self.recipe)), take))

    def edit(self, principles: list[dict[str, Any]]) -> None:
        values = {"name": "tests", "principles": principles}
        self.recipe.with_name("constitution.yaml").write_text(yaml.safe_dump(values))


def make_series(folder: Path, **changes: Any) -> Series:
    values: dict[str, Any] = {
        "policy": {"type": "scripted", "script": SCRIPT},
        "preference": QUIET,
        "evaluation": {"enabled": False},
    }
    return Series(write_recipe(folder, **(values | changes)))


def rows_of(run: RunDir) -> Iterator[Any]:
    for folder in stage_folders(run.root):
        yield from stage_rows(run.root, folder)


def paid(run: RunDir) -> int:
    """Calls of the rows that a run made itself."""
    config = load_config(run.recipe)
    asked = (row for row in rows_of(run) if hasattr(row, "model_fingerprint"))
    return sum(num_calls(row, config) for row in asked if row.run_id == run.run_id)


def versions(nights: list[RunDir]) -> list[int]:
    return [dataset.version if (dataset := load_dataset(run)) else 0 for run in nights]


def data(run: RunDir, name: str = "preference") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run.dataset / f"{name}.parquet").to_pylist()
    return rows


def again_runs(night: RunDir) -> list[RunDir]:
    """The runs that a night made again, the last one first."""
    runs, run = [], parent_run(night)
    while run is not None and run.info().get("night"):
        runs.append(run)
        run = parent_run(run)
    return runs


async def killed(run: RunDir) -> None:
    """A process that ends once the version is made again."""
    with work_in(run):
        await relabel_version(open_context(run))
        raise KeyboardInterrupt


def test_only_touched_rows_of_earlier_nights_cost_calls(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(8)
    series.night(12)
    series.edit(reworded())
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        series.night(14, killed)
    num_again = len(CALLS)
    message = series.night()
    assert message.startswith("continues small-nightly")
    first, second, third = nights = nightly_runs("small")
    assert versions(nights) == [1, 2, 3]
    plan = third.info()["plan"]
    assert plan.startswith("2 new prompts go into version 3, run small-nightly-")
    assert plan.endswith("what the changed constitution touches in earlier nights is made again")

    runs = again_runs(third)[::-1]
    assert [run.run_id for run in runs] == [f"{third.run_id}-v1", f"{third.run_id}-v2"]
    assert num_again == sum(map(paid, runs)) > 0
    assert len(CALLS) == num_again + paid(third)
    for before, run in zip((first, second), runs, strict=True):
        old = {row.row_id: row for row in rows_of(before)}
        asked = [row for row in rows_of(run) if hasattr(row, "model_fingerprint")]
        made = [row for row in asked if row.run_id == run.run_id]
        # What a revision is made from counts too, so its text is asked for under one principle.
        assert {row.principle_id for row in made} <= {"p-1"}
        kept = [row for row in asked if row.run_id != run.run_id]
        assert kept and all(old[row.row_id] == row for row in kept)
        assert not any(verify(each) for each in (before, run))
    assert not verify(third)

    pairs = {row["row_id"]: row for row in data(second)}
    for row in data(third):
        if row["principle_id"] != "p-1" and row["row_id"] in pairs:
            was = pairs.pop(row["row_id"])
            assert {**row, "run_id": ""} == {**was, "run_id": ""}
    assert {row["principle_id"] for row in pairs.values()} == {"p-1"}
    for name in ("preference", "sft"):
        one = {row["run_id"]: row["row_id"] for row in data(third, name)}
        assert one.keys() == {run.run_id for run in (*runs, third)}
        assert all(trace(third, row_id).parents for row_id in one.values())
    assert len(data(third, "sft")) == 14

    impact = relabeled(third)
    assert impact is not None and impact.total.after == 12
    changed = impact.principles[1]
    assert changed.change == "reworded" and changed.asked_again == impact.total.asked_again > 0
    page = (third.root / "night.md").read_text()
    assert "Earlier nights under tonight's constitution" in page
    counts = f"{changed.after} | {changed.asked_again} | {changed.relabeled}"
    assert f"| p-1 | reworded | {counts} |" in page
    assert f"{changed.asked_again} of 12 labels were made again" in page

    CALLS.clear()
    assert series.night().startswith("nothing to do: every prompt of the recipe is in version 3")
    assert not CALLS and versions(nightly_runs("small")) == [1, 2, 3]


def test_changed_constitution_alone_makes_a_night(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(6)
    series.edit(PRINCIPLES[::-1])
    assert series.night().startswith("nothing to do"), "their order decides nothing"
    series.edit(PRINCIPLES[:2])
    assert series.night().startswith("0 new prompts go into version 2")
    assert series.night().startswith("nothing to do")
    _, second = nightly_runs("small")
    rows = data(second)
    assert {row["principle_id"] for row in rows} <= {"p-0", "p-1"}
    assert "| p-2 | removed |" in (second.root / "night.md").read_text()
    # A night without prompts of its own is part of the version that is made again.
    series.edit(reworded())
    assert series.night(7).startswith("1 new prompt goes into version 3")
    nights = nightly_runs("small")
    assert versions(nights) == [1, 2, 3] and len(again_runs(nights[-1])) == 2
    assert not any(verify(run) for run in (*nights, *again_runs(nights[-1])))
    assert versions(again_runs(nights[-1])) == [2, 1]


@pytest.mark.parametrize(
    "preference",
    [
        {"enabled": False},
        {"comparisons": "all"},
        {"labeler": "score", "score": {"principles": "all"}},
    ],
    ids=["texts alone", "revisions too", "all principles"],
)
def test_version_of_other_labels(tmp_path: Path, preference: dict[str, Any]) -> None:
    series = make_series(tmp_path, preference={**QUIET, **preference})
    series.night(4)
    series.edit(reworded())
    series.night(5)
    _, second = nights = nightly_runs("small")
    (again,) = again_runs(second)
    changed = {row.principle_id for row in rows_of(again) if hasattr(row, "principle_id")}
    assert changed and versions(nights) == [1, 2] and not verify(again) and not verify(second)
    assert len(data(second, "sft")) == 5


def test_version_of_which_a_part_is_gone(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(5)
    series.night(6)
    first, _ = nightly_runs("small")
    series.edit(reworded())
    shard = first.root / "preference/judge/shard-00001.parquet"
    aside = shutil.move(shard, tmp_path)
    with pytest.raises(StoreError, match=r"has no finished preference/judge/shard-00001; finish"):
        series.night(7)
    shutil.move(aside, shard)
    text = first.recipe.read_text()
    script = f"script: {SCRIPT}"
    first.recipe.write_text(text.replace(script, f"{script}\n  args: {{taste: other}}"))
    with pytest.raises(ConfigError, match=r"fingerprint.* or set nightly.relabel to false"):
        series.night(7)
    first.recipe.write_text(text)
    assert len(nightly_runs("small")) == len(list(runs_root().iterdir())) == 2
    shutil.rmtree(first.root)
    with pytest.raises(
        StoreError, match=f"data set of run {first.run_id}.* is gone; bring .* nightly.relabel"
    ):
        series.night(7)
    assert len(list(runs_root().iterdir())) == 1
    values = yaml.safe_load(series.recipe.read_text())
    series.recipe.write_text(yaml.safe_dump(values | {"nightly": {"relabel": False}}))
    assert series.night(7).startswith("1 new prompt goes into version 3")


def test_stopped_night_needs_no_source_of_prompts(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(4)

    async def stopped(run: RunDir) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        series.night(6, stopped)
    (tmp_path / "train.jsonl").unlink()
    run = nightly_runs("small")[-1]
    assert plan_nightly(str(series.recipe)).message.startswith(f"continues {run.run_id}")
    resume_run(run.run_id, (), with_prefect=False)
    dataset = load_dataset(run)
    assert dataset and (dataset.version, dataset.num_prompts) == (2, 6)
    assert (run.root / "night.md").exists()


def test_nights_planned_at_the_same_moment_are_one(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(4)
    write_lines(tmp_path / "train.jsonl", {"prompt": "new?"})
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(plan_nightly, [str(series.recipe)] * 4))
    assert len({plan.run.run_id for plan in plans if plan.run}) == 1
    assert sorted(plan.message[:9] for plan in plans) == ["1 new pro", *["continues"] * 3]


def test_labels_made_again_that_fail_their_audit_stop_the_night(tmp_path: Path) -> None:
    """A judge that is sure of slot A fails the audit of the night that it labels again."""
    series = make_series(tmp_path)
    series.night(6)
    (first,) = nightly_runs("small")
    strict = yaml.safe_load(first.recipe.read_text())
    strict["preference"]["collapse"] = {"min_prompts": 2, "length_ratio": [8, 9]}
    first.recipe.write_text(yaml.safe_dump(strict))
    series.edit(reworded())
    with pytest.raises(AuditError, match=r"audit of run small-nightly-\S+-v1 failed"):
        series.night(7)
    with pytest.raises(AuditError, match=r"`rlaif audit small-nightly-\S+-v1` shows"):
        series.night()
    assert versions(nightly_runs("small")) == [1, 0]


def test_rows_made_again_for_a_failed_night_serve_the_next(tmp_path: Path) -> None:
    series = make_series(tmp_path)
    series.night(4)
    series.edit(reworded())
    values = yaml.safe_load(series.recipe.read_text())
    strict = {**QUIET, "collapse": {"min_prompts": 2, "length_ratio": [8, 9]}}
    series.recipe.write_text(yaml.safe_dump(values | {"preference": strict}))
    with pytest.raises(AuditError):
        series.night(7)
    failed = nightly_runs("small")[-1]
    series.recipe.write_text(yaml.safe_dump(values))
    CALLS.clear()
    assert series.night().startswith("3 new prompts go into version 2")
    _, last = nightly_runs("small")
    assert len(CALLS) == paid(last) and last.run_id != failed.run_id
    assert last.info()["parent"] == f"{failed.run_id}-v1" and relabeled(last) is not None


def test_labels_of_people_are_taken_over(tmp_path: Path) -> None:
    """No principle decides them, and their file has grown since the first night."""

    def crowd(number: int) -> None:
        label = {"chosen": "good", "rejected": "bad"}
        lines = ({"prompt": f"Crowd {i}?", **label} for i in range(number))
        write_lines(tmp_path / "crowd.jsonl", *lines)

    source = {"type": "pairs", "name": "crowd", "path": str(tmp_path / "crowd.jsonl")}
    listed = {"sources": [{**source, "label_accuracy": 0.8, "weight": 9.0}]}
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(listed))
    preference = {**QUIET, "sources": str(tmp_path / "sources.yaml")}
    series = make_series(tmp_path, preference=preference)
    crowd(3)
    series.night(6)
    crowd(5)
    series.edit(reworded())
    series.night(7)
    _, second = nightly_runs("small")
    (again,) = again_runs(second)
    imported = [row for row in data(second) if row["comparison"] == "imported"]
    assert sorted(row["source_index"] for row in imported) == [1, 2, 3, 4, 5]
    assert [row["run_id"] for row in imported] == [again.run_id] * 3 + [second.run_id] * 2
    assert not verify(again) and not verify(second)
    assert trace(second, imported[0]["row_id"]).parents[0].kind == "label"
