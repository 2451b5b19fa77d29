"""What a gate reads of the labels of people."""

import inspect
import json
from pathlib import Path

import pytest

from pipeline.cli.app import review as review_command
from pipeline.errors import DataError
from pipeline.evaluation.gate import SHOWN
from pipeline.review.outcome import reviewed
from tests.review.builders import answer_for, labeled_run, open_review


def test_reviewed_pairs_count_while_the_page_is_open(tmp_path: Path) -> None:
    """Ada labels 9 of 12 pairs and Bob what is left for him, all as the judge does; 4 pairs are of
    the random sample. A second label of a pair, one of a pair that is gone and a line that is being
    written add none.
    """
    run = labeled_run(tmp_path / "run")
    folder = tmp_path / "labels"
    nothing = reviewed(run, folder)
    assert (nothing.pairs, nothing.of, nothing.agreement) == (0, 30, None)
    review, _ = open_review(run, folder, limit=12)
    ada = answer_for(review, "Ada", "better", 9)
    bob = answer_for(review, "Bob", "better")
    assert ada + bob > 12  # shared pairs have two labels
    gone = {"pair": "pair-gone", "annotator": "Ada", "label": "tie", "seconds": 1}
    with (folder / "targeted.jsonl").open("a") as file:
        file.write(json.dumps(gone) + "\n" + json.dumps(gone)[:20])
    found = reviewed(run, folder)
    assert (found.pairs, found.of) == (12, 30)
    assert found.agreement and (found.agreement.share, found.agreement.n) == (1.0, 4)


def test_people_against_the_judge(tmp_path: Path) -> None:
    run = labeled_run(tmp_path / "run")
    review, _ = open_review(run, tmp_path / "labels")
    assert answer_for(review, "Ada", "worse") == 30
    found = reviewed(run, tmp_path / "labels")
    assert found.pairs == 30 and found.agreement and found.agreement.share == 0.0


def test_damaged_label_is_one_line(tmp_path: Path) -> None:
    run = labeled_run(tmp_path / "run", 3)
    (tmp_path / "random.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match=r"random.jsonl line 1 is not a label of a review"):
        reviewed(run, tmp_path)


def test_gate_knows_how_many_pairs_the_page_shows() -> None:
    assert inspect.signature(review_command).parameters["pairs"].default == SHOWN
