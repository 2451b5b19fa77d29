"""Mixing sources by weight."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.sources.config import FeedbackSource
from pipeline.sources.feedback import import_feedback
from pipeline.sources.mixing import mix
from pipeline.sources.rows import Imported
from tests.sources.builders import make_import, make_label, write_lines

SOURCES = [make_import("crowd", 30), make_import("judge", 100)]
WEIGHTS = {"crowd": 0.3, "judge": 0.7}


def test_weights_are_shares_of_the_size() -> None:
    """0.3 x 50 = 15 and 0.7 x 50 = 35."""
    mixture = mix(SOURCES, WEIGHTS, size=50)
    assert [(c.source, c.available, c.quota, c.num_selected) for c in mixture.counts] == [
        ("crowd", 30, 15, 15),
        ("judge", 100, 35, 35),
    ]
    assert len({row.row_id for row in mixture.rows}) == 50


def test_default_size_runs_no_source_short() -> None:
    """Crowd has 30 = 0.3 x 100, judge has 100 of the 70 it owes: 100 rows."""
    mixture = mix(SOURCES, WEIGHTS)
    assert [c.num_selected for c in mixture.counts] == [30, 70]


def test_short_source_gives_all_and_is_named() -> None:
    mixture = mix(SOURCES, {"crowd": 1.0, "judge": 1.0}, size=80)
    assert [(c.quota, c.num_selected) for c in mixture.counts] == [(40, 30), (40, 40)]
    assert "10 short of its weight" in mixture.text()
    assert mixture.counts[0].share == pytest.approx(30 / 70)


def test_remainders_add_up_to_the_size() -> None:
    """Three equal weights of 10: 3.33 each, so 4 + 3 + 3."""
    mixture = mix([make_import(name, 20) for name in "abc"], {}, size=10)
    assert sorted(c.quota for c in mixture.counts) == [3, 3, 4]


def test_draw_ignores_order_and_nests() -> None:
    small = {row.row_id for row in mix(SOURCES, WEIGHTS, size=40).rows}
    large = {row.row_id for row in mix(SOURCES, WEIGHTS, size=60).rows}
    turned = [Imported(each.rows[::-1], each.record) for each in SOURCES[::-1]]
    assert small < large
    assert {row.row_id for row in mix(turned, WEIGHTS, size=40).rows} == small
    assert {row.row_id for row in mix(SOURCES, WEIGHTS, size=40, seed=1).rows} != small


def test_contradicting_labels_are_counted() -> None:
    first = Imported(
        (make_label("Q", "a", "b"), make_label("R", "a", "b", index=2)),
        make_import("crowd", 2).record,
    )
    second = Imported(
        (
            make_label("Q", "b", "a", source="judge"),
            make_label("R", "a", "b", index=2, source="judge"),
        ),
        make_import("judge", 2).record,
    )
    mixture = mix([first, second], {})
    assert (mixture.num_shared, mixture.num_contradicted) == (2, 1)
    assert mixture.num_contradicted == 1


def test_dropped_rows_stay_out() -> None:
    rows = (make_label("Q"), make_label("R", reason="tie", index=2))
    mixture = mix([Imported(rows, make_import("crowd", 2).record)], {}, size=2)
    assert [row.messages[0].content for row in mixture.rows] == ["Q"]


def test_feedback_is_not_mixed_with_pairs(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", {"event": "thumbs_up", "prompt": "Hi", "response": "a"}
    )
    feedback = import_feedback(FeedbackSource(name="app", path=path))
    with pytest.raises(DataError, match="'app' holds unpaired feedback"):
        mix([SOURCES[0], feedback], {})
