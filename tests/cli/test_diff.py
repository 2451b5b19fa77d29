"""`rlaif diff`: two runs side by side."""

from pathlib import Path

from pipeline.config.paths import PROJECT_ROOT
from pipeline.run.compare import Flips, differing, flips, leaves
from tests.cli.commands import Rlaif

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
    old = {("a", "b", "p"): 0.9, ("a", "c", "p"): 0.9, ("b", "c", "p"): 0.5, ("b", "c", "q"): 0.2}
    new = {("a", "b", "p"): 0.8, ("a", "c", "p"): 0.2, ("b", "c", "p"): 0.9, ("x", "y", "p"): 0.2}
    assert flips(old, new) == {"p": Flips(compared=3, relabeled=3, flipped=1)}
