"""The figures of an audit, worked out by hand, and when a check fails."""

from typing import Any

import pytest

from pipeline.audit_config import LabelAuditConfig
from pipeline.audits.labels import (
    LabelFigures, check_labels, observe_canary, observe_label, thresholds,
)
from pipeline.stats import Estimate


def label(forward: float | None, swapped: float | None, **changes: Any) -> dict[str, Any]:
    """A judgment of `f` against `s`; both orders are P(slot A)."""
    mean = None if forward is None or swapped is None else (forward + 1 - swapped) / 2
    return {
        "prompt_id": "p", "status": "ok", "first_id": "f", "second_id": "s", "principle_id": "harm",
        "soft_label": mean, "prob_forward": forward, "prob_swapped": swapped, **changes,
    }


def canary(kind: str, expected: float, forward: float, swapped: float, **changes: Any) -> dict[str, Any]:
    return label(forward, swapped, canary=kind, canary_id="c", expected=expected, clamp_low=None,
                 clamp_high=None, **changes)


WORDS = {"f": 10, "s": 20}


def test_both_orders_for_the_first() -> None:
    """0.9 forward and 0.1 swapped: both prefer `f`, the shorter one; slot A wins once."""
    assert observe_label(label(0.9, 0.1), WORDS, 0.02) == {
        "unparsed": False, "tie": False, "longer": 0.0, "slot_share": 0.5, "flip": False}


def test_slot_a_both_times() -> None:
    """0.9 and 0.8 for slot A: the label is (0.9 + 0.2) / 2 = 0.55, and the orders disagree."""
    seen = observe_label(label(0.9, 0.8), WORDS, 0.02)
    assert seen["slot_share"] == 1.0 and seen["flip"] is True and seen["longer"] == 0.0


def test_undecided_order_is_no_flip() -> None:
    """0.59 is within 0.1 of 0.5: that order prefers nothing, so nothing was flipped."""
    seen = observe_label(label(0.59, 0.9), WORDS, 0.02)
    assert seen["flip"] is False and seen["slot_share"] == 0.75 and seen["longer"] == 1.0


def test_equal_lengths_and_unknown_texts_say_nothing_about_length() -> None:
    assert "longer" not in observe_label(label(0.9, 0.1), {"f": 10, "s": 10}, 0.02)
    assert "longer" not in observe_label(label(0.9, 0.1), {}, 0.02)


def test_scores_have_no_slots() -> None:
    seen = observe_label(label(None, None, soft_label=0.7), WORDS, 0.02)
    assert set(seen) == {"unparsed", "tie", "longer"}


@pytest.mark.parametrize("status, expected", [
    ("unparsed", {"unparsed": True}), ("failed", {}), ("dropped", {}),
])
def test_rows_without_label(status: str, expected: dict[str, bool]) -> None:
    assert observe_label(label(None, None, status=status), WORDS, 0.02) == expected


@pytest.mark.parametrize("row, figure", [
    (canary("known", 1.0, 0.9, 0.1), 1.0), (canary("known", 0.0, 0.9, 0.1), 0.0),
    (canary("known", 0.0, 0.5, 0.5), 0.5),
    # The better one is first (expected 1) and loses: the instruction worked.
    (canary("injected", 1.0, 0.2, 0.9), 1.0), (canary("injected", 1.0, 0.9, 0.1), 0.0),
    (canary("injected", 0.0, 0.9, 0.1), 1.0), (canary("injected", 0.0, 0.5, 0.5), 0.0),
    (canary("swapped", 0.3, 0.9, 0.1), 0.6),
    # |0.9 - 0.5| and |0.8 - 0.5|: the mean is 0.35, though the label is 0.55.
    (canary("identical", 0.5, 0.9, 0.8), 0.35),
    (canary("padded", 0.5, 0.1, 0.9), 1.0), (canary("padded", 0.5, 0.9, 0.1), 0.0),
    (canary("padded", 0.5, 0.5, 0.5), 0.0),
])
def test_canary_figures(row: dict[str, Any], figure: float) -> None:
    assert observe_canary(row, 0.02) == pytest.approx(figure)


def test_clamp_bounds_the_slot_bias() -> None:
    """Clamped to [0.4, 0.6], a sure slot A moves a label by 0.1 at most."""
    row = canary("identical", 0.5, 0.99, 0.99) | {"clamp_low": 0.4, "clamp_high": 0.6}
    assert observe_canary(row, 0.02) == pytest.approx(0.1)


def test_instruction_counts_only_where_the_judge_was_right() -> None:
    figures = LabelFigures(0.02)
    figures.add_canaries([
        canary("known", 1.0, 0.1, 0.9), canary("injected", 1.0, 0.1, 0.9),
        canary("known", 1.0, 0.9, 0.1) | {"canary_id": "d"},
        canary("injected", 1.0, 0.9, 0.1) | {"canary_id": "d"},
    ])
    found = figures.estimates("", draws=100, seed=0)
    assert found["known"].share == 0.5 and found["known"].n == 2
    assert found["injected"].share == 0.0 and found["injected"].n == 1


def test_figures_are_kept_by_principle() -> None:
    figures = LabelFigures(0.02)
    for _ in range(30):
        figures.add_prompt([label(0.9, 0.1), label(0.9, 0.9, principle_id="help")], WORDS)
    assert figures.principles == ["harm", "help"]
    everything, help_only = (figures.estimates(s, draws=100, seed=0) for s in ("", "help"))
    assert everything["flip"].share == 0.5 and everything["flip"].n == 60
    assert help_only["flip"].share == 1.0 and help_only["flip"].n == 30
    failed = [f.title for f in check_labels(help_only, LabelAuditConfig(), "help") if f.status == "failed"]
    assert failed == ["flip of help", "slot_share of help"]


@pytest.mark.parametrize("low, high, status", [
    (0.11, 0.3, "failed"), (0.09, 0.3, "passed"), (0.0, 0.05, "passed"),
])
def test_whole_interval_must_be_beyond(low: float, high: float, status: str) -> None:
    found = {"swapped": Estimate((low + high) / 2, low, high, 50)}
    findings = {f.name: f for f in check_labels(found, LabelAuditConfig())}
    assert findings["swapped"].status == status
    assert findings["known"].status == "skipped" and findings["known"].n == 0


def test_few_rows_are_skipped_not_passed() -> None:
    found = {"swapped": Estimate(0.9, 0.8, 1.0, 19)}
    (finding,) = (f for f in check_labels(found, LabelAuditConfig()) if f.name == "swapped")
    assert finding.status == "skipped" and "19 rows, and at least 20 are needed" in finding.detail


def test_null_switches_a_check_off() -> None:
    config = LabelAuditConfig(max_flip=None, slot_share=None)
    assert not {"flip", "slot_share", "longer"} & set(thresholds(config))


def test_slot_bounds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="two shares, the lower one first"):
        LabelAuditConfig(slot_share=(0.8, 0.2))
