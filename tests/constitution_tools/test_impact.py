"""Changing principles moves only the draws that it must, and only those are paid for again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.constitution import Constitution, Principle
from pipeline.constitution_tools.impact import ImpactTally, Outcome, kinds_of_change
from pipeline.constitution_tools.impact_text import markdown
from pipeline.data.lineage import trace
from pipeline.data.verify import verify
from pipeline.engines import ScriptedEngine
from pipeline.errors import ConfigError, StoreError, UserError
from pipeline.ids import file_hash, uniform
from pipeline.records import JudgmentRow
from pipeline.run.context import open_context
from pipeline.run.impact import load_impact, run_impact
from pipeline.run.phases import (
    preference_chain, preference_dataset, supervised_chain, supervised_dataset,
)
from pipeline.run.start import start_run
from pipeline.store import RunDir, RunLock, read_rows
from pipeline.store.shards import stage_manifests
from pipeline.types import Messages
from tests.run.builders import CONSTITUTION, write_recipe

NUM_DRAWS = 4000


def make_engine(taste: str = "") -> ScriptedEngine:
    """A judge whose label depends on the principle's words and on both texts."""

    def reply(messages: Messages, seed: int) -> str:
        return f"text {seed} after {len(messages)} turns"

    def scores(messages: Messages, options: Sequence[str]) -> list[float]:
        request, rest = messages[-1].content.split("(A) [[[")
        slots = rest.split("(B) [[[")
        return [-2 * uniform(taste, request, slot.split("]]]")[0]) for slot in slots]

    return ScriptedEngine(reply, scores, name=f"tests {taste}", keep_calls=False)


def constitution(count: int = 10, **weights: float) -> Constitution:
    return Constitution(name="tests", principles=tuple(
        Principle(id=f"p{i}", critique_request=f"Critique {i}.", revision_request=f"Revise {i}.",
                  comparison_request=f"Which is better, {i}?", weight=weights.get(f"p{i}", 1.0))
        for i in range(count)
    ))


def changed(base: Constitution, name: str, **values: Any) -> Constitution:
    return base.model_copy(update={"principles": tuple(
        p.model_copy(update=values) if p.id == name else p for p in base.principles)})


def moves(old: Constitution, new: Constitution) -> list[tuple[str, str]]:
    """Ids drawn before and after, for the draws that another principle won."""
    drawn = [(old.draw(7, "judge", str(i)), new.draw(7, "judge", str(i))) for i in range(NUM_DRAWS)]
    return [(a.id, b.id) for a, b in drawn if a.id != b.id]


def test_reworded_principle_keeps_all_draws() -> None:
    base = constitution()
    assert not moves(base, changed(base, "p3", comparison_request="Which is best?"))
    drawn = sum(base.draw(7, "judge", str(i)).id == "p3" for i in range(NUM_DRAWS))
    assert drawn / NUM_DRAWS == pytest.approx(1 / 10, abs=0.015)


def test_added_principle_wins_its_own_share() -> None:
    found = moves(constitution(10), constitution(11))
    assert {after for _, after in found} == {"p10"}
    assert len(found) / NUM_DRAWS == pytest.approx(1 / 11, abs=0.015)


def test_removed_principle_gives_only_its_own() -> None:
    found = moves(constitution(10), constitution(9))
    assert {before for before, _ in found} == {"p9"}
    assert len(found) / NUM_DRAWS == pytest.approx(1 / 10, abs=0.015)


def test_renamed_id_counts_as_removed_and_added() -> None:
    base = constitution()
    found = moves(base, changed(base, "p3", id="q3"))
    assert all(before == "p3" or after == "q3" for before, after in found)
    # 1/10 leave p3 and 1/10 go to q3; 1/100 of all do both.
    assert len(found) / NUM_DRAWS == pytest.approx(0.19, abs=0.02)


def test_heavier_principle_only_gains() -> None:
    found = moves(constitution(), constitution(p3=2.0))
    assert {after for _, after in found} == {"p3"}
    # From 1/10 to 2/11.
    assert len(found) / NUM_DRAWS == pytest.approx(2 / 11 - 1 / 10, abs=0.015)


def test_kinds_of_change() -> None:
    old = constitution(4)
    new = changed(changed(old, "p0", id="q0"), "p1", comparison_request="Which is best?")
    new = changed(new, "p2", weight=2.0)
    found = kinds_of_change(old, new)
    assert found["p0"] == "renamed to q0" and found["q0"] == "renamed from p0"
    assert found["p1"] == "reworded" and found["p2"] == "weight 1 -> 2"
    assert found["p3"] == "unchanged" and list(found) == ["p0", "p1", "p2", "p3", "q0"]
    assert kinds_of_change(constitution(2), constitution(3))["p2"] == "added"
    assert kinds_of_change(constitution(3), constitution(2))["p2"] == "removed"


def outcome(judgment: str, principle: str, label: float | None, kept: bool = True) -> Outcome:
    return Outcome(judgment, ("a", "b"), (principle,), label, kept)


def test_effects_are_counted_by_hand() -> None:
    tally = ImpactTally(tie_width=0.05)
    tally.add(outcome("1", "p", 0.9), outcome("1", "p", 0.9))
    tally.add(outcome("2", "p", 0.9), outcome("2x", "q", 0.2))                # flipped by 0.7
    tally.add(outcome("3", "p", 0.6), outcome("3x", "q", 0.54, kept=False))   # became a tie, 0.06
    tally.add(outcome("4", "p", 0.5, kept=False), outcome("4x", "p", 0.6))    # is none any more, 0.1
    tally.add(outcome("5", "p", 0.7), outcome("5x", "q", None, kept=False))   # unreadable now
    tally.add(None, outcome("6", "q", 0.8))
    total = tally.total
    assert (total.before, total.after, total.asked_again) == (5, 5, 4)
    assert (total.flipped, total.became_ties, total.stopped_being_ties) == (1, 1, 1)
    assert (total.pairs_gained, total.pairs_lost) == (2, 2)
    assert (total.labels_gained, total.labels_lost, total.new_texts) == (1, 1, 1)
    assert total.mean_change == pytest.approx((0 + 0.7 + 0.06 + 0.1) / 4)
    assert tally.principles["p"].before == 5 and tally.principles["p"].after == 2
    assert tally.principles["q"].before == 0 and tally.principles["q"].after == 3
    assert {key: move.after for key, move in tally.moves.items()} == {
        ("p", "q"): 2, ("p", "p"): 1, ("", "q"): 1}


def full_run(folder: Path, run_id: str, principles: list[Any], **changes: Any) -> RunDir:
    """A run from its prompts to its preference set, under these principles."""
    recipe = write_recipe(folder / run_id, **({
        "policy": {"type": "scripted", "script": "tests.constitution_tools.test_impact:make_engine"},
    } | changes))
    (folder / run_id / "constitution.yaml").write_text(
        yaml.safe_dump({"name": "tests", "principles": principles}))
    run = start_run(recipe, run_id=run_id, runs_root_folder=folder / "runs")

    async def make() -> None:
        with RunLock(run.root):
            ctx = open_context(run)
            await supervised_chain(ctx)
            supervised_dataset(ctx)
            await preference_chain(ctx)
            preference_dataset(ctx)

    asyncio.run(make())
    return run


def make_impact(before: RunDir, new: Path, **options: Any) -> RunDir:
    run, worked = asyncio.run(run_impact(before, new, **options))
    assert worked
    return run


def reworded(number: int = 1) -> list[Any]:
    found = [dict(p) for p in CONSTITUTION["principles"]]
    found[number]["comparison_request"] = "Which is kinder by far?"
    found[number]["critique_request"] = "Critique what is unkind."
    return found


def write_new(folder: Path, principles: list[Any]) -> Path:
    path = folder / "new.yaml"
    path.write_text(yaml.safe_dump({"name": "tests", "principles": principles}))
    return path


def stored(run: RunDir, folder: str) -> list[Any]:
    return [row for m in stage_manifests(run.root, folder) for row in read_rows(run.root, m)]


def label_values(run: RunDir) -> dict[str, float | None]:
    return {row.row_id: row.soft_label for row in stored(run, "preference/judge")}


def hashes(run: RunDir) -> dict[str, str]:
    return {str(p): file_hash(p) for p in sorted(run.root.rglob("*")) if p.is_file()}


def test_impact_gives_the_labels_of_a_full_run(tmp_path: Path) -> None:
    before = full_run(tmp_path, "before", CONSTITUTION["principles"], prompts=30)
    untouched = hashes(before)
    new = write_new(tmp_path, reworded())
    run = make_impact(before, new)
    fresh = full_run(tmp_path, "fresh", reworded(), prompts=30)
    assert label_values(run) == label_values(fresh)
    assert hashes(before) == untouched and verify(run) == [] and verify(before) == []
    own = [row for row in stored(run, "preference/judge") if row.run_id == run.run_id]
    assert own and {row.principle_id for row in own} == {"p-1"}
    impact = load_impact(run)
    assert impact.total.asked_again == len(own) == impact.principles[1].after
    assert impact.total.after == 30 and impact.costs[0].calls == 2 * len(own)
    assert impact.calls_share == len(own) / 30
    assert {m.before_id for m in impact.moves} == {m.after_id for m in impact.moves} == {"p-1"}
    assert impact.principles[1].change == "reworded" and impact.total.flipped > 0
    assert "| p-1 | reworded |" in markdown(impact) and (run.root / "impact.md").exists()
    pair = next(row for row in stored(run, "preference/pair") if row.status == "ok")
    assert trace(run, pair.row_id).parents


@pytest.mark.parametrize("comparisons", ["revision_vs_initial", "all"])
def test_touched_revisions_are_made_again(tmp_path: Path, comparisons: str) -> None:
    extra = {
        "preference": {"comparisons": comparisons}, "supervised": {"revise": {"rounds": 2}},
    }
    before = full_run(tmp_path, "before", CONSTITUTION["principles"], prompts=20, **extra)
    run = make_impact(before, write_new(tmp_path, reworded()))
    fresh = full_run(tmp_path, "fresh", reworded(), prompts=20, **extra)
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


def test_pooled_labels_name_all_principles(tmp_path: Path) -> None:
    extra = {"preference": {"judge": {"num_principles": 2}}}
    before = full_run(tmp_path, "before", CONSTITUTION["principles"], prompts=20, **extra)
    run = make_impact(before, write_new(tmp_path, reworded()))
    impact = load_impact(run)
    assert verify(run) == [] and impact.total.after == 20
    assert sum(p.after for p in impact.principles) == 40
    assert impact.total.asked_again == impact.principles[1].after
    # One of the two questions of each comparison is asked again.
    assert impact.costs[0].rows_made == impact.total.asked_again
    rows: list[JudgmentRow] = stored(run, "preference/judge")
    assert {row.principle_id for row in rows if row.run_id == run.run_id} == {"p-1"}


def test_each_judge_of_a_panel_asks_again(tmp_path: Path) -> None:
    script = "tests.constitution_tools.test_impact:make_engine"
    extra = {"panel": [{"type": "scripted", "script": script, "args": {"taste": "other"}}]}
    before = full_run(tmp_path, "before", CONSTITUTION["principles"], prompts=20, **extra)
    run = make_impact(before, write_new(tmp_path, reworded()))
    impact = load_impact(run)
    assert verify(run) == [] and impact.total.after == 20
    assert [cost.folder for cost in impact.costs] == ["preference/judge", "preference/judge-2"]
    assert {cost.rows_made for cost in impact.costs} == {impact.total.asked_again}
    assert impact.principles[1].after == impact.total.asked_again


def test_added_and_removed_principles_decide(tmp_path: Path) -> None:
    principles = CONSTITUTION["principles"]
    before = full_run(tmp_path, "before", principles, prompts=30)
    run = make_impact(before, write_new(tmp_path, [
        *principles[:2], {**principles[2], "id": "p-new", "comparison_request": "Which is kinder?"},
    ]))
    impact = load_impact(run)
    by_id = {p.id: p for p in impact.principles}
    assert by_id["p-2"].change == "removed" and by_id["p-2"].after == 0 < by_id["p-2"].before
    assert by_id["p-new"].change == "added" and by_id["p-new"].before == 0 < by_id["p-new"].after
    assert all(m.before_id == "p-2" or m.after_id == "p-new" for m in impact.moves)


def test_repeated_command_changes_nothing(tmp_path: Path) -> None:
    before = full_run(tmp_path, "before", CONSTITUTION["principles"])
    new = write_new(tmp_path, reworded())
    run = make_impact(before, new, run_id="again")
    there = hashes(run)
    assert asyncio.run(run_impact(before, new, run_id="again")) == (run, False)
    assert hashes(run) == there


def test_stopped_impact_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.run import impact as module

    before = full_run(tmp_path, "before", CONSTITUTION["principles"], prompts=20)
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


def test_another_model_is_refused(tmp_path: Path) -> None:
    before = full_run(tmp_path, "before", CONSTITUTION["principles"])
    recipe = yaml.safe_load(before.recipe.read_text())
    recipe["policy"]["args"] = {"taste": "other"}
    before.recipe.write_text(yaml.safe_dump(recipe))
    refused(tmp_path, before, write_new(tmp_path, reworded()), ConfigError, "fingerprint.*now")


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    before = full_run(tmp_path, "before", CONSTITUTION["principles"])
    (before.root / "preference/pair/shard-00001.json").unlink()
    refused(tmp_path, before, write_new(tmp_path, reworded()), StoreError,
            "no finished preference/pair/shard-00001; finish it with `rlaif resume before`")


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    before = full_run(tmp_path, "before", CONSTITUTION["principles"])
    with pytest.raises(StoreError, match="is there already and is not the impact of"):
        asyncio.run(run_impact(before, write_new(tmp_path, reworded()), run_id="before"))
