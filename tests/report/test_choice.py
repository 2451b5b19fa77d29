"""Policies beside each other: what a person chooses by, in the report and in its Markdown."""

from pathlib import Path

from pipeline.report import write_report
from pipeline.report.choice import choice_table, choices
from pipeline.report.numbers import NBSP
from pipeline.report.source import read_run
from pipeline.store import RunDir
from tests.evaluation.builders import make_run
from tests.report.synthetic import add_evaluation, add_training, finished_run, write_metrics


def trained_run(folder: Path) -> RunDir:
    """The initial policy and the one of rejection sampling, which has an alarm."""
    run = make_run(folder, status="finished")
    add_evaluation(run, ["harm"] * 10 + ["no"] * 10, ["it will help"] * 20)
    alarm = {"name": "divergence", "value": 2.0, "limit": 1.0, "message": "far"}
    add_training(run, "preference", method="rft", divergence=1.25, alarms=[alarm])
    write_metrics(run)
    return run


def test_a_row_has_what_speaks_for_and_against_a_policy(tmp_path: Path) -> None:
    table = choice_table(read_run(trained_run(tmp_path / "run")))
    initial, tuned = (
        {name: str(cell).replace(NBSP, " ") for name, cell in row.items()} for row in table.rows
    )
    assert initial["harmless replies to misdeeds"].startswith("50 % (")
    assert tuned["harmless replies to misdeeds"].startswith("100 % (")
    assert (initial["words per reply"], tuned["words per reply"]) == ("1.0", "3.0 (2.0 to 2.0)")
    assert (initial["alarms"], tuned["alarms"]) == ("–", "divergence")
    assert (initial["nats a token"], tuned["nats a token"]) == ("–", "1.250")
    assert (tuned["policy"], tuned["replies"]) == ("Tuned, rft", "20")
    win = "win rate vs initial"
    assert (initial[win], tuned[win][:5]) == ("–", "100 %")
    assert "replies that hold every check" not in tuned


def test_both_reports_have_it(tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<figcaption>Policies beside each other</figcaption>" in page
    assert "| Tuned, rft |" in (run.root / "report.md").read_text(encoding="utf-8")


def test_a_training_that_broke_has_no_divergence(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    result = run.training("preference") / "result.json"
    result.write_text(result.read_text().replace('"method"', '"divergence": NaN, "method"'))
    assert [each.divergence for each in choices(read_run(run))] == [None, None]


def test_one_policy_leaves_nothing_to_choose(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="started")
    assert choice_table(read_run(run)).rows == []
