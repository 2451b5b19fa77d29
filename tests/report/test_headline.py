"""Sentences that must be true whatever the numbers say."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.headline import cards, headline, tone_of
from pipeline.report.numbers import NBSP
from pipeline.report.source import ReportData, read_run
from pipeline.report.tables import held_checks_table
from pipeline.stats import Estimate
from tests.evaluation.builders import make_run
from tests.report.synthetic import add_evaluation, add_preference, finished_run, write_metrics

CLEAR_UP = Estimate(0.2, 0.1, 0.3, 9)
CLEAR_DOWN = Estimate(-0.2, -0.3, -0.1, 9)
UNCLEAR = Estimate(0.1, -0.1, 0.3, 9)


def evaluated(folder: Path, initial: list[str], tuned: list[str], **fields: Any) -> ReportData:
    run = make_run(folder)
    add_evaluation(run, initial, tuned, **fields)
    write_metrics(run)
    return read_run(run)


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


@pytest.mark.parametrize(
    ("name", "change", "tone"),
    [
        ("good", CLEAR_UP, "better"),
        ("good", CLEAR_DOWN, "worse"),
        ("good", UNCLEAR, ""),
        ("refused_harmless", CLEAR_UP, "worse"),
        ("outside_world", CLEAR_DOWN, "better"),
        ("words", CLEAR_UP, ""),
        ("good", None, ""),
    ],
)
def test_tone_needs_a_clear_change(name: str, change: Estimate | None, tone: str) -> None:
    assert tone_of(name, change) == tone


def test_improvement_is_said_with_intervals(tmp_path: Path) -> None:
    result = headline(read_run(finished_run(tmp_path / "run")))
    assert plain(result.lead).startswith(
        "The tuned policy gives more harmless replies to misdeeds (50 → 100 %, +"
    )
    assert "no measured share got clearly worse" in result.lead
    assert plain(result.detail).startswith(
        "The judge prefers the tuned policy to the initial one: it wins 100 %"
    )


def test_harm_and_gain_are_both_said(tmp_path: Path) -> None:
    """All replies now decline: no harm any more, but harmless requests are refused too."""
    result = headline(evaluated(tmp_path / "run", ["help harm"] * 10 + ["help"] * 10, ["no"] * 20))
    better, worse = result.lead.split("Worse:")
    assert "harmless replies" in better and "good answers" not in better
    assert "fewer good answers" in worse and "more refusals of harmless requests" in worse


def test_only_losses_are_called_losses(tmp_path: Path) -> None:
    result = headline(evaluated(tmp_path / "run", ["help"] * 20, ["???"] * 20, forward=0.1))
    assert (
        "fewer good answers" in result.lead and "more texts outside the known world" in result.lead
    )
    assert result.lead.endswith("no measured share got clearly better.")
    assert result.detail.startswith(
        "The judge prefers the initial policy: the tuned policy wins only"
    )


def test_no_change_is_not_called_one(tmp_path: Path) -> None:
    result = headline(evaluated(tmp_path / "run", ["help"] * 20, ["help"] * 20, forward=0.5))
    assert (
        result.lead
        == "No measured share changed clearly from the initial policy to the tuned policy."
    )
    assert result.detail.startswith("The judge sees no clear difference")


def test_without_oracle_the_judge_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_evaluation(run, ["one"] * 20, ["one two three"] * 20)
    write_metrics(run, oracle=False)
    result = headline(read_run(run))
    assert result.lead.startswith("The judge prefers the tuned policy")
    assert "No measured share changed clearly" in result.detail
    assert "Its replies are longer: 1.0 → 3.0 words on average." in result.detail


def test_data_alone_is_described(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    result = headline(read_run(run))
    assert result.lead == "1 of 3 comparisons became preference pairs."
    assert result.detail == "No policy has been evaluated."


def test_empty_run_says_so(tmp_path: Path) -> None:
    data = read_run(make_run(tmp_path / "run"))
    assert headline(data).lead == "This run has no results yet."
    assert cards(data) == []


def test_cards_hide_what_is_unknown(tmp_path: Path) -> None:
    with_oracle = cards(read_run(finished_run(tmp_path / "a")))
    without = cards(read_run(finished_run(tmp_path / "b", oracle=False)))
    assert [card.title for card in with_oracle] == [
        "Win rate, tuned vs initial",
        "Harmless replies to misdeeds",
        "Good answers",
        "Label accuracy, kept pairs",
        "Preference pairs kept",
    ]
    assert [card.title for card in without] == [
        "Win rate, tuned vs initial",
        "Words per reply",
        "Preference pairs kept",
        "Position consistency",
    ]
    assert plain(with_oracle[1].value) == "50 → 100 %"


def test_checks_lead_the_page(tmp_path: Path) -> None:
    """10 of 20 replies are short enough, then all of them."""
    run = make_run(tmp_path / "run")
    text = run.constitution.read_text(encoding="utf-8")
    run.constitution.write_text(text.rstrip().removesuffix("}") + ", check: {name: words, max: 1}}")
    add_evaluation(run, ["help"] * 10 + ["help no"] * 10, ["help"] * 20)
    write_metrics(run, oracle=False)
    data = read_run(run)
    assert plain(headline(data).lead).startswith(
        "The tuned policy gives more replies that hold every check (50 → 100 %, +"
    )
    (card,) = [card for card in cards(data) if card.title == "Replies that hold every check"]
    assert plain(card.value) == "50 → 100 %" and card.tone == "better"
    rows = [
        {key: plain(str(cell)) for key, cell in row.items()} for row in held_checks_table(data).rows
    ]
    assert [(r["check of"], r["policy"], r["replies that hold it"], r["n"]) for r in rows] == [
        ("all of them", "Initial", "50 %", "20"),
        ("all of them", "Tuned", "100 %", "20"),
        ("tone", "Initial", "50 %", "20"),
        ("tone", "Tuned", "100 %", "20"),
    ]
    assert rows[0]["change"] == "–" and rows[1]["change"].startswith("+")
