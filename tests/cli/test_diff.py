"""`rlaif diff`: two runs side by side."""

from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT
from pipeline.run.compare import Flips, compare_runs, differing, flips, leaves
from tests.cli.commands import Rlaif
from tests.evaluation.builders import judgment
from tests.review.builders import labeled_run
from tests.run.builders import write_rows

SMOKE = "flows/configs/smoke.yaml"


def test_what_went_in_and_what_came_out(rlaif: Rlaif, tmp_path: Path) -> None:
    constitution = tmp_path / "constitution.yaml"
    text = (PROJECT_ROOT / "constitutions/open_assistant.yaml").read_text()
    constitution.write_text(text.replace("weight: 1", "weight: 2", 1) + "\n")
    changes = ["--set", "prompts.limit=4", "--set", f"constitution={constitution}"]
    for name, more in (("a", ["--set", "prompts.limit=6"]), ("b", changes)):
        assert rlaif("run", SMOKE, "--run-id", name, "--no-prefect", *more).code == 0
    ended = rlaif("diff", "a", "b")
    assert ended.code == 0
    (limit,) = [line for line in ended.out.splitlines() if "prompts.limit" in line]
    assert [cell.strip() for cell in limit.split("│")[1:4]] == ["prompts.limit", "6", "4"]
    assert "preference.sample" not in ended.out
    assert "prompts: 4 in both, 2 only in a, 0 only in b" in ended.out
    same = rlaif("diff", "a", "a").out
    assert "the recipes are equal" in same and "the main figures are equal" in same


def test_run_that_is_not_there(rlaif: Rlaif) -> None:
    ended = rlaif("diff", "a", "b")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_leaves_keep_lists_whole_and_absent_keys_apart_from_null() -> None:
    old = dict(leaves({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}))
    assert old == {"a.b": 1, "a.c": [1, {"d": 2}], "e": None}
    assert differing(old, {"a.b": 1.5, "a.c": [1, {"d": 2}]}) == {
        "a.b": ("1", "1.5"),
        "e": ("None", "-"),
    }


def test_flipped_labels_by_principle() -> None:
    """Of three shared comparisons one is another number, one prefers the other side; a tie at 0.5
    flips nothing.
    """
    old = {"abp": 0.9, "acp": 0.9, "bcp": 0.5, "bcq": 0.2}
    new = {"abp": 0.8, "acp": 0.2, "bcp": 0.9, "xyp": 0.2}
    before, after = ({("judge", *key): x for key, x in each.items()} for each in (old, new))
    assert flips(before, after) == {"p": Flips(compared=3, relabeled=3, flipped=1)}


def test_each_judge_of_a_panel_is_compared_with_itself(tmp_path: Path) -> None:
    """A second judge that prefers the other response flips no label of the first one."""
    one, two = (labeled_run(tmp_path / name, 6) for name in ("one", "two"))
    rows = [
        judgment(f"k{i}", f"p{i}", f"better{i}", f"worse{i}", "harm", 0.1, 0.9) for i in range(6)
    ]
    write_rows(two, "preference/judge-2", rows)
    assert compare_runs(one, two).labels == {"harm": Flips(compared=6, relabeled=0, flipped=0)}
