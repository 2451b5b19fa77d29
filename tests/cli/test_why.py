"""`rlaif why`: the reasons of rows that are missing, and the story of one of them."""

from pathlib import Path

from tests.cli.commands import Rlaif

SMOKE = "flows/configs/smoke.yaml"


def test_reasons_lead_to_a_row_and_its_texts(rlaif: Rlaif) -> None:
    limit = ["--set", "prompts.limit=6"]
    assert rlaif("run", SMOKE, "--run-id", "a", "--no-prefect", *limit).code == 0
    ended = rlaif("why", "a")
    (line,) = [line for line in ended.out.splitlines() if " tie " in line]
    stage, status, rows, _, example = (cell.strip() for cell in line.split("│")[1:6])
    assert (stage, status, int(rows) > 0) == ("preference/pair", "dropped", True)
    story = rlaif("why", example)
    assert story.code == 0
    assert "reason: tie" in story.out and story.out.count("response:") >= 2


def test_what_is_neither_run_nor_row(rlaif: Rlaif, tmp_path: Path) -> None:
    for name in ("nothing", "../../etc", "a\x00b", "x" * 5000):
        ended = rlaif("why", name)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
