"""An impact run gives the labels of a full run, and pays for what a changed principle touched."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.errors import AuditError, ConfigError, StoreError, UserError
from pipeline.evaluation import collect_metrics
from pipeline.ids import content_hash
from pipeline.impact.run import load_impact, run_impact
from pipeline.impact.text import markdown
from pipeline.records import JudgmentRow
from pipeline.store import RunDir
from tests.impact.impact_runs import (
    PRINCIPLES,
    SCRIPT,
    full_run,
    hashes,
    label_values,
    make_impact,
    reworded,
    stored,
    write_new,
)

Whole = Callable[..., RunDir]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run up to its preference set, made once for each constitution and recipe; no test changes
    it.
    """
    folder = tmp_path_factory.mktemp("runs")
    known: dict[str, RunDir] = {}

    def make(principles: Sequence[dict[str, Any]], *, prompts: int = 30, **changes: Any) -> RunDir:
        key = content_hash([principles, prompts, changes])
        if key not in known:
            changes["prompts"] = prompts
            known[key] = full_run(folder / key, "before", principles, **changes)
        return known[key]

    return make


def copied(run: RunDir, folder: Path) -> RunDir:
    """A copy for an impact run beside it."""
    return RunDir(shutil.copytree(run.root, folder / "runs" / "before"))


def test_impact_gives_the_labels_of_a_full_run(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    untouched = hashes(before)
    new = write_new(tmp_path, reworded())
    run = make_impact(before, new)
    fresh = whole(reworded())
    assert label_values(run) == label_values(fresh)
    assert hashes(before) == untouched and verify(run) == [] and verify(before) == []
    own = [row for row in stored(run, "preference/judge") if row.run_id == run.run_id]
    assert own and {row.principle_id for row in own} == {"p-1"}
    impact = load_impact(run)
    assert impact.total.asked_again == len(own) == impact.principles[1].after
    assert impact.total.after == 30 and impact.costs[0].calls == 2 * len(own)
    assert impact.calls_share == len(own) / 30
    assert {m.before_id for m in impact.moves} == {m.after_id for m in impact.moves} == {"p-1"}
    assert impact.principles[1].change == "reworded" and impact.total.relabeled > 0
    assert "| p-1 | reworded |" in markdown(impact) and (run.root / "impact.md").exists()
    pair = next(row for row in stored(run, "preference/pair") if row.status == "ok")
    assert trace(run, pair.row_id).parents


@pytest.mark.parametrize("comparisons", ["revision_vs_initial", "all"])
def test_touched_revisions_are_made_again(tmp_path: Path, comparisons: str, whole: Whole) -> None:
    extra = {"preference": {"comparisons": comparisons}, "supervised": {"revise": {"rounds": 2}}}
    before = copied(whole(PRINCIPLES, prompts=20, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, reworded()))
    fresh = whole(reworded(), prompts=20, **extra)
    assert label_values(run) == label_values(fresh) and verify(run) == []
    for folder in ("supervised/critique-1", "supervised/critique-2"):
        ids = {row.row_id for row in stored(run, folder)}
        assert ids == {row.row_id for row in stored(fresh, folder)}
        assert 0 < len(ids - {row.row_id for row in stored(before, folder)}) < len(ids)
    impact = load_impact(run)
    compared = 20 + (20 if comparisons == "all" else 0)
    assert impact.total.before == impact.total.after == impact.total.labeled_twice == compared
    assert 0 < impact.total.new_texts < impact.total.asked_again < compared
    assert 0 < impact.cost_share < 1 and len(impact.costs) == 5


def test_pooled_labels_name_all_principles(tmp_path: Path, whole: Whole) -> None:
    extra = {"preference": {"judge": {"num_principles": 2}}}
    before = copied(whole(PRINCIPLES, prompts=20, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, reworded()))
    impact = load_impact(run)
    assert verify(run) == [] and impact.total.after == 20
    assert sum(p.after for p in impact.principles) == 40
    assert impact.total.asked_again == impact.principles[1].after
    # One of the two questions of each comparison is asked again.
    assert impact.costs[0].rows_made == impact.total.asked_again
    rows: list[JudgmentRow] = stored(run, "preference/judge")
    assert {row.principle_id for row in rows if row.run_id == run.run_id} == {"p-1"}


def test_each_judge_of_a_panel_asks_again(tmp_path: Path, whole: Whole) -> None:
    extra = {"panel": [{"type": "scripted", "script": SCRIPT, "args": {"taste": "other"}}]}
    before = copied(whole(PRINCIPLES, prompts=20, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, reworded()))
    impact = load_impact(run)
    assert verify(run) == [] and impact.total.after == 20
    assert [cost.folder for cost in impact.costs] == ["preference/judge", "preference/judge-2"]
    assert {cost.rows_made for cost in impact.costs} == {impact.total.asked_again}
    assert impact.principles[1].after == impact.total.asked_again


def test_only_comparisons_that_show_a_changed_principle_are_asked_again(
    tmp_path: Path, whole: Whole
) -> None:
    """With exemplars a comparison shows more principles than its own."""
    shots = tmp_path / "shots.yaml"
    shots.write_text(
        yaml.safe_dump(
            {
                "name": "tests",
                "exemplars": [
                    {
                        "conversation": [{"role": "user", "content": f"solved question {n}"}],
                        "better": f"good {n}",
                        "worse": f"bad {n}",
                    }
                    for n in range(3)
                ],
            }
        )
    )
    extra = {"preference": {"judge": {"exemplars": str(shots), "num_exemplars": 1}}}
    before = copied(whole(PRINCIPLES, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, reworded()))
    fresh = whole(reworded(), **extra)
    assert label_values(run) == label_values(fresh) and verify(run) == []
    impact = load_impact(run)
    # One in three shows it as its own, one in three in the exemplar: 1 - (2/3)^2 of all show it.
    assert impact.principles[1].after < impact.total.asked_again < 30
    assert impact.total.asked_again / 30 == pytest.approx(5 / 9, abs=0.2)


def test_labels_that_fail_their_audit_tell_their_impact_and_are_not_exported(
    tmp_path: Path, whole: Whole
) -> None:
    """A threshold that no fair judge reaches is set after the first run."""
    off: dict[str, Any] = {"enabled": True} | {
        name: None
        for name in (
            "canaries",
            "min_known",
            "max_injected",
            "max_swapped",
            "max_identical",
            "max_padded",
            "max_order_disagreement",
            "slot_share",
        )
    }
    before = copied(whole(PRINCIPLES, prompts=40, preference={"audit": off}), tmp_path)
    strict = yaml.safe_load(before.recipe.read_text())
    strict["preference"]["audit"]["slot_share"] = [0.9, 1.0]
    before.recipe.write_text(yaml.safe_dump(strict))
    with pytest.raises(AuditError, match="slot_share"):
        make_impact(before, write_new(tmp_path, reworded()), run_id="audited")
    run = RunDir(before.root.parent / "audited")
    assert load_impact(run).total.asked_again > 0 and label_values(run)
    assert not (run.root / "dataset/preference.parquet").exists()
    assert run.info()["status"] != "finished"


def test_scores_under_a_changed_principle_are_asked_again(tmp_path: Path, whole: Whole) -> None:
    extra = {"preference": {"labeler": "score", "sample": {"num_samples": 2}}}
    before = copied(whole(PRINCIPLES, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, reworded()))
    fresh = whole(reworded(), **extra)
    assert label_values(run) == label_values(fresh) and verify(run) == []
    impact = load_impact(run)
    assert 0 < impact.total.asked_again == impact.principles[1].after < 30 == impact.total.after
    # One rating of each of the two responses.
    assert [(c.folder, c.calls) for c in impact.costs] == [
        ("preference/score", 2 * impact.total.asked_again)
    ]
    assert impact.calls_share == impact.total.asked_again / 30


def test_a_vector_of_all_principles_has_no_impact_to_tell(tmp_path: Path, whole: Whole) -> None:
    extra = {"preference": {"labeler": "score", "score": {"principles": "all"}}}
    before = copied(whole(PRINCIPLES, **extra), tmp_path)
    refused(tmp_path, before, write_new(tmp_path, reworded()), ConfigError, "under all principles")


def test_added_and_removed_principles_decide(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    run = make_impact(
        before,
        write_new(
            tmp_path,
            [
                *PRINCIPLES[:2],
                {**PRINCIPLES[2], "id": "p-new", "comparison_request": "Which is kinder?"},
            ],
        ),
    )
    impact = load_impact(run)
    by_id = {p.id: p for p in impact.principles}
    assert by_id["p-2"].change == "removed" and by_id["p-2"].after == 0 < by_id["p-2"].before
    assert by_id["p-new"].change == "added" and by_id["p-new"].before == 0 < by_id["p-new"].after
    assert all(m.before_id == "p-2" or m.after_id == "p-new" for m in impact.moves)


def test_repeated_command_changes_nothing(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    new = write_new(tmp_path, reworded())
    run = make_impact(before, new, run_id="again")
    there = hashes(run)
    assert asyncio.run(run_impact(before, new, run_id="again")) == (run, False)
    assert hashes(run) == there


def test_stopped_impact_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    from pipeline.impact import run as module

    before = copied(whole(PRINCIPLES), tmp_path)
    new = write_new(tmp_path, reworded())

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "measure_impact", stop)
        asyncio.run(run_impact(before, new))
    run = make_impact(before, new)
    assert run.info()["status"] == "finished" and verify(run) == []
    assert load_impact(run).total.asked_again == load_impact(run).costs[0].rows_made > 0


def refused(tmp_path: Path, before: RunDir, new: Path, kind: type[UserError], match: str) -> None:
    there = sorted(before.root.parent.iterdir())
    with pytest.raises(kind, match=match):
        asyncio.run(run_impact(before, new))
    assert sorted(before.root.parent.iterdir()) == there, "something was written"


def test_another_model_is_refused(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    recipe = yaml.safe_load(before.recipe.read_text())
    recipe["policy"]["args"] = {"taste": "other"}
    before.recipe.write_text(yaml.safe_dump(recipe))
    refused(tmp_path, before, write_new(tmp_path, reworded()), ConfigError, "fingerprint.*now")


def test_unfinished_run_is_refused(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    (before.root / "preference/pair/shard-00001.json").unlink()
    refused(
        tmp_path,
        before,
        write_new(tmp_path, reworded()),
        StoreError,
        "no finished preference/pair/shard-00001; finish it with `rlaif resume before`",
    )


def test_foreign_folder_is_refused(tmp_path: Path, whole: Whole) -> None:
    before = copied(whole(PRINCIPLES), tmp_path)
    with pytest.raises(StoreError, match="exists already and is not the impact of"):
        asyncio.run(run_impact(before, write_new(tmp_path, reworded()), run_id="before"))
    with pytest.raises(StoreError, match=r"the run id is '\.\./x', but it names a folder"):
        asyncio.run(run_impact(before, write_new(tmp_path, reworded()), run_id="../x"))


def test_changed_check_is_decided_again_without_a_judge(tmp_path: Path, whole: Whole) -> None:
    """Its comparisons get the labels of a full run, at no call; the others keep theirs."""

    def checked(letters: int) -> list[dict[str, Any]]:
        check = {"name": "characters", "max": letters}
        return [{**PRINCIPLES[0], "check": check}, *PRINCIPLES[1:]]

    before = copied(whole(checked(20)), tmp_path)
    run = make_impact(before, write_new(tmp_path, checked(22)))
    fresh = whole(checked(22))
    assert label_values(run) == label_values(fresh) and verify(run) == []
    impact = load_impact(run)
    changes = {each.id: each.change for each in impact.principles}
    assert changes == {"p-0": "rechecked", "p-1": "unchanged", "p-2": "unchanged"}
    assert impact.principles[0].after == impact.total.asked_again > 0
    assert sum(cost.calls for cost in impact.costs) == 0 < sum(c.calls_full for c in impact.costs)


REASONED: list[dict[str, Any]] = [dict(principle) for principle in PRINCIPLES]
REASONED[1]["rationale"] = "Some words hurt."
RANKED: list[dict[str, Any]] = [dict(principle) for principle in PRINCIPLES]
RANKED[1] |= {"conflicts": ["p-2"], "priority": 1}


def test_a_rationale_moves_its_own_labels_alone(tmp_path: Path, whole: Whole) -> None:
    """The shipped templates show it to critic, reviser and judge."""
    extra = {"preference": {"comparisons": "all"}, "supervised": {"revise": {"rounds": 2}}}
    before = copied(whole(PRINCIPLES, prompts=20, **extra), tmp_path)
    run = make_impact(before, write_new(tmp_path, REASONED))
    fresh = whole(REASONED, prompts=20, **extra)
    assert label_values(run) == label_values(fresh) and verify(run) == []
    judged = stored(run, "preference/judge")
    own = [r for r in judged if r.run_id == run.run_id and r.comparison == "samples"]
    assert own and {row.principle_id for row in own} == {"p-1"}
    for folder in ("supervised/critique-1", "supervised/revise-1"):
        rows = {row.principle_id for row in stored(run, folder) if row.run_id == run.run_id}
        assert rows == {"p-1"}
    assert load_impact(run).principles[1].change == "reworded"


@pytest.mark.parametrize("order", ["added", "removed"])
def test_conflicts_ask_only_the_higher_principle(tmp_path: Path, order: str, whole: Whole) -> None:
    old, new = (PRINCIPLES, RANKED) if order == "added" else (RANKED, PRINCIPLES)
    before = copied(whole(old), tmp_path)
    run = make_impact(before, write_new(tmp_path, new))
    fresh = whole(new)
    folder = "preference/pool" if order == "added" else "preference/judge"
    labels, fresh_labels = (
        {row.row_id: (row.prob_first, row.principle_id, row.reason) for row in stored(each, folder)}
        for each in (run, fresh)
    )
    assert labels == fresh_labels and verify(run) == []
    impact = load_impact(run)
    assert impact.principles[1].change == "reprioritized" and impact.total.after == 30
    asked = [row for row in stored(run, "preference/judge") if row.run_id == run.run_id]
    if order == "removed":
        assert not asked and impact.total.asked_again == 0
        return
    assert asked and {row.principle_id for row in asked} == {"p-1"}
    assert impact.total.asked_again == len(asked)
    overruled = [row for row in stored(run, folder) if row.reason == "overruled: p-2 by p-1"]
    assert impact.total.relabeled == len(overruled) > 0
    metrics = collect_metrics(run, load_config(run.recipe))
    assert metrics.data and metrics.data.overruled == {"p-2 by p-1": len(overruled)}
    assert f"p-2 by p-1 {len(overruled)}" in (run.dataset / "README.md").read_text()
