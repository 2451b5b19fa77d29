"""What columns that are not mapped say against a label."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.sources.config import PairsSource, TranscriptsSource
from pipeline.sources.evidence import MARKED_TIE, UNREAD_EVIDENCE
from pipeline.sources.hh_rlhf import import_transcripts
from pipeline.sources.pairs import import_pairs
from tests.sources.builders import write_lines

GOOD = {"prompt": "Q", "chosen": "yes", "rejected": "no"}


def reasons(tmp_path: Path, **extra: Any) -> dict[str, int]:
    path = write_lines(tmp_path / "a.jsonl", {**GOOD, "prompt": "R"}, {**GOOD, **extra})
    return import_pairs(PairsSource(name="s", path=path)).record.reasons


@pytest.mark.parametrize(
    "extra",
    [
        {"status": "tie"},
        {"winner": "Tie (bothbad)"},
        {"preference": "equal"},
        {"label": "no preference"},
        {"both_good": 1},
        {"no_preference": True},
        {"meta": {"verdict": "draw"}},
    ],
)
def test_a_tie_by_any_word(tmp_path: Path, extra: dict[str, Any]) -> None:
    assert reasons(tmp_path, **extra) == {MARKED_TIE: 1}


@pytest.mark.parametrize(
    "extra",
    [
        {"chosenScore": 1, "rejectedScore": 2},
        {"scoreChosen": "1", "scoreRejected": "1.5"},
        {"chosen_upvotes": 3, "rejected_upvotes": 40},
        {"votes": {"chosen": 0, "rejected": 2}},
        {"annotations": {"chosen": {"rating": 1}, "rejected": {"rating": 5}}},
    ],
)
def test_scores_by_any_name(tmp_path: Path, extra: dict[str, Any]) -> None:
    assert reasons(tmp_path, **extra) == {UNREAD_EVIDENCE: 1}


@pytest.mark.parametrize(
    "extra",
    [
        {"status": "swapped"},
        {"clothing": "tie"},
        {"chosenScore": 2, "rejectedScore": 1},
        {"votes": {"chosen": 2, "rejected": 0}},
        {"chosen_length": 1, "rejected_length": 2},
    ],
)
def test_what_says_nothing_against_a_label(tmp_path: Path, extra: dict[str, Any]) -> None:
    assert reasons(tmp_path, **extra) == {}


def test_transcripts_have_evidence_beside_them_too(tmp_path: Path) -> None:
    pair = {name: f"\n\nHuman: Q\n\nAssistant: {name}" for name in ("chosen", "rejected")}
    path = write_lines(
        tmp_path / "a.jsonl", pair, {**pair, "is_tie": True}, {**pair, "winner": "rejected"}
    )
    record = import_transcripts(TranscriptsSource(name="s", path=path)).record
    assert record.reasons == {MARKED_TIE: 1, UNREAD_EVIDENCE: 1}
