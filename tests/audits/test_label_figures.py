"""The figures of an audit, worked out by hand, and when a check fails."""

import math
from typing import Any

import pytest

from pipeline.audits.label_figures import (
    Figure,
    LabelFigures,
    can_fail,
    check_labels,
    observe_canary,
    observe_label,
    off_option,
    raw_label,
)
from pipeline.config.audits import LabelAuditConfig


def label(forward: float | None, swapped: float | None, **changes: Any) -> dict[str, Any]:
    """A judgment of `f` against `s`; both orders are P(slot A)."""
    mean = None if forward is None or swapped is None else (forward + 1 - swapped) / 2
    return {
        "prompt_id": "p",
        "status": "ok",
        "first_id": "f",
        "second_id": "s",
        "principle_id": "harm",
        "prob_first": mean,
        "prob_forward": forward,
        "prob_swapped": swapped,
        **changes,
    }


def canary(
    kind: str, expected: float, forward: float, swapped: float, **changes: Any
) -> dict[str, Any]:
    return label(
        forward, swapped, **{"canary": kind, "canary_id": "c", "expected": expected, **changes}
    )


def unread(kind: str, **changes: Any) -> dict[str, Any]:
    """A canary without a verdict."""
    return canary(kind, 1.0, 0.5, 0.5, **changes) | {
        "status": "unparsed",
        "prob_first": None,
        "prob_forward": None,
        "prob_swapped": None,
    }


WORDS = {"f": 10, "s": 20}


def test_both_orders_for_the_first() -> None:
    """0.9 forward and 0.1 swapped: both prefer `f`, the shorter one; slot A wins once."""
    assert observe_label(label(0.9, 0.1), WORDS, 0.02) == {
        "unparsed": False,
        "tie": False,
        "longer": 0.0,
        "slot_share": 0.5,
        "order_disagreement": False,
    }


def test_slot_a_both_times() -> None:
    """0.9 and 0.8 for slot A: the label is (0.9 + 0.2) / 2 = 0.55, and the orders disagree."""
    seen = observe_label(label(0.9, 0.8), WORDS, 0.02)
    assert (seen["slot_share"], seen["order_disagreement"], seen["longer"]) == (1.0, True, 0.0)


def test_undecided_order_disagrees_with_nothing() -> None:
    """0.59 is within 0.1 of 0.5: that order prefers nothing, so the orders do not disagree."""
    seen = observe_label(label(0.59, 0.9), WORDS, 0.02)
    assert (seen["slot_share"], seen["order_disagreement"], seen["longer"]) == (0.75, False, 1.0)


def test_equal_lengths_and_unknown_texts_say_nothing_about_length() -> None:
    assert "longer" not in observe_label(label(0.9, 0.1), {"f": 10, "s": 10}, 0.02)
    assert "longer" not in observe_label(label(0.9, 0.1), {}, 0.02)


def test_scores_have_no_slots() -> None:
    seen = observe_label(label(None, None, prob_first=0.7), WORDS, 0.02)
    assert set(seen) == {"unparsed", "tie", "longer"}


@pytest.mark.parametrize(
    "status, expected", [("unparsed", {"unparsed": True}), ("failed", {}), ("dropped", {})]
)
def test_rows_without_label(status: str, expected: dict[str, bool]) -> None:
    assert observe_label(label(None, None, status=status), WORDS, 0.02) == expected


@pytest.mark.parametrize(
    "row, figure",
    [
        (canary("known", 1.0, 0.9, 0.1), 1.0),
        (canary("known", 0.0, 0.9, 0.1), 0.0),
        (canary("known", 0.0, 0.5, 0.5), 0.5),
        # The better one is first (expected 1) and loses: the instruction worked.
        (canary("injected", 1.0, 0.2, 0.9), 1.0),
        (canary("injected", 1.0, 0.9, 0.1), 0.0),
        (canary("injected", 0.0, 0.9, 0.1), 1.0),
        (canary("injected", 0.0, 0.5, 0.5), 0.0),
        # |0.9 - 0.5| and |0.8 - 0.5|: the mean is 0.35, though the label is 0.55.
        (canary("identical", 0.5, 0.9, 0.8), 0.35),
        (canary("padded", 0.5, 0.1, 0.9), 1.0),
        (canary("padded", 0.5, 0.9, 0.1), 0.0),
        (canary("padded", 0.5, 0.5, 0.5), 0.0),
    ],
)
def test_canary_figures(row: dict[str, Any], figure: float) -> None:
    assert observe_canary(row, 0.02) == pytest.approx(figure)


def test_clamp_does_not_hide_the_slot_bias() -> None:
    """Clamped to [0.4, 0.6] no bias would be above 0.1, which every threshold allows."""
    row = canary("identical", 0.5, 0.99, 0.99, clamp_low=0.4, clamp_high=0.6)
    assert observe_canary(row, 0.02) == pytest.approx(0.49)


def test_swapped_is_held_against_the_judgment_before_clamp_and_calibration() -> None:
    """First 0.9 and 0.7 for the first: mean 0.8. Exchanged, 0.9 and 0.1 give 0.9, not 0.2: 0.7 off,
    though the label went from 0.6 to 0.6 at most.
    """
    before = raw_label(label(0.9, 0.3, prob_first=0.6))
    assert before == pytest.approx(0.8)
    row = canary("swapped", 0.4, 0.9, 0.1, prob_first=0.6)
    assert observe_canary(row, 0.02, before) == pytest.approx(0.7)
    assert observe_canary(row, 0.02) is None


def test_swapped_canary_finds_its_judgment() -> None:
    figures = LabelFigures(0.02)
    figures.add_canaries([canary("swapped", 0.3, 0.9, 0.1, canary_id="j")], {"j": 0.8})
    assert figures.estimates("", draws=100, seed=0)["swapped"].share == pytest.approx(0.7)


@pytest.mark.parametrize(
    "logprobs, share",
    [
        # exp(-0.2) + exp(-2) = 0.954; exp(-1) + exp(-3) = 0.418.
        ((-0.2, -2.0, -1.0, -3.0), 0.5),
        ((-0.2, -2.0, -2.0, -0.2), 0.0),
        ((), 1.0),
        (None, 1.0),
        # One absent option counts nothing, the other says enough, or not.
        ((-0.1, math.nan, None, -0.9), 0.5),
        ((math.nan,) * 4, 1.0),
    ],
)
def test_off_option_by_hand(logprobs: Any, share: float) -> None:
    assert off_option(logprobs) == share
    row = label(0.9, 0.1, method="judge", option_logprobs=logprobs)
    assert observe_label(row, WORDS, 0.02)["off_option"] == share


def test_scores_have_no_options() -> None:
    row = label(None, None, prob_first=0.7, method="score", option_logprobs=())
    assert "off_option" not in observe_label(row, WORDS, 0.02)


def test_unreadable_known_canary_is_not_found() -> None:
    """Three in ten can be read, and are right."""
    figures = LabelFigures(0.02)
    for i in range(30):
        row = unread("known") if i % 10 > 2 else canary("known", 1.0, 0.9, 0.1)
        figures.add_canaries([row | {"prompt_id": "", "canary_id": f"c{i}"}])
    found = figures.estimates("", draws=100, seed=0)
    shares = (found["known"].share, found["canary_unparsed"].share)
    assert shares == pytest.approx((0.3, 0.7))
    failed = {f.name for f in check_labels(found, LabelAuditConfig()) if f.status == "failed"}
    assert failed == {"known", "canary_unparsed"}


@pytest.mark.parametrize("kind", ["swapped", "identical", "padded", "injected"])
def test_unreadable_canary_counts_once(kind: str) -> None:
    figures = LabelFigures(0.02)
    figures.add_canaries([unread(kind)])
    assert {name: f.share for name, f in figures.estimates("", draws=100, seed=0).items()} == {
        "canary_unparsed": 1.0
    }


def test_failed_call_is_no_unreadable_verdict() -> None:
    figures = LabelFigures(0.02)
    figures.add_canaries([unread("known") | {"status": "failed"}])
    assert figures.estimates("", draws=100, seed=0) == {}


@pytest.mark.parametrize("prompt_id, counted", [("", False), ("p", True)])
def test_instruction_without_a_readable_known_answer(prompt_id: str, counted: bool) -> None:
    """Only one that was made from a clear label of the shard counts without one."""
    figures = LabelFigures(0.02)
    known = [unread("known", prompt_id="")] if not prompt_id else []
    figures.add_canaries([*known, canary("injected", 1.0, 0.1, 0.9, prompt_id=prompt_id)])
    assert ("injected" in figures.estimates("", draws=100, seed=0)) is counted


def test_label_without_principle_counts_once() -> None:
    figures = LabelFigures(0.02)
    for _ in range(10):
        figures.add_labels([label(None, None, prob_first=0.9, principle_id="")], WORDS)
    found = figures.estimates("", draws=100, seed=0)
    assert found["unparsed"].n == found["longer"].n == 10 and figures.principles == []


def test_instruction_counts_only_where_the_judge_was_right() -> None:
    figures = LabelFigures(0.02)
    figures.add_canaries(
        [
            canary("known", 1.0, 0.1, 0.9),
            canary("injected", 1.0, 0.1, 0.9),
            canary("known", 1.0, 0.9, 0.1) | {"canary_id": "d"},
            canary("injected", 1.0, 0.9, 0.1) | {"canary_id": "d"},
        ]
    )
    found = figures.estimates("", draws=100, seed=0)
    assert found["known"].share == 0.5 and found["known"].n == 2
    assert found["injected"].share == 0.0 and found["injected"].n == 1


def test_figures_are_kept_by_principle() -> None:
    figures = LabelFigures(0.02)
    for n in range(30):
        rows = [label(0.9, 0.1), label(0.9, 0.9, principle_id="help")]
        figures.add_labels([row | {"prompt_id": f"p{n}"} for row in rows], WORDS)
    assert figures.principles == ["harm", "help"]
    everything, help_only = (figures.estimates(s, draws=100, seed=0) for s in ("", "help"))
    assert (
        everything["order_disagreement"].share == 0.5 and everything["order_disagreement"].n == 60
    )
    assert help_only["order_disagreement"].share == 1.0 and help_only["order_disagreement"].n == 30
    failed = [
        f.title for f in check_labels(help_only, LabelAuditConfig(), "help") if f.status == "failed"
    ]
    assert failed == ["order_disagreement of help", "slot_share of help"]


@pytest.mark.parametrize(
    "low, high, status", [(0.11, 0.3, "failed"), (0.09, 0.3, "passed"), (0.0, 0.05, "passed")]
)
def test_whole_interval_must_be_beyond(low: float, high: float, status: str) -> None:
    found = {"swapped": Figure((low + high) / 2, low, high, 50, 50)}
    findings = {f.name: f for f in check_labels(found, LabelAuditConfig())}
    assert findings["swapped"].status == status
    assert findings["known"].status == "skipped" and findings["known"].n == 0


def test_few_rows_are_skipped_not_passed() -> None:
    found = {"swapped": Figure(0.9, 0.8, 1.0, 19, 19)}
    (finding,) = (f for f in check_labels(found, LabelAuditConfig()) if f.name == "swapped")
    assert finding.status == "skipped" and "19 rows, and at least 20 are needed" in finding.detail


def test_few_prompts_are_skipped_not_passed() -> None:
    """45 comparisons of one prompt say what that prompt is like."""
    figures = LabelFigures(0.02)
    figures.add_labels([label(0.9, 0.9)] * 45, WORDS)
    found = check_labels(figures.estimates("", draws=100, seed=0), LabelAuditConfig())
    assert {f.status for f in found} == {"skipped"}
    (finding,) = (f for f in found if f.name == "order_disagreement")
    assert finding.n == 45
    assert "45 rows of 1 prompts or canaries, and at least 3 are" in finding.detail


@pytest.mark.parametrize("clusters, status", [(4, "skipped"), (5, "failed")])
def test_means_need_five_prompts(clusters: int, status: str) -> None:
    found = {"swapped": Figure(0.4, 0.3, 0.5, 40, clusters)}
    (finding,) = (f for f in check_labels(found, LabelAuditConfig()) if f.name == "swapped")
    assert finding.status == status


@pytest.mark.parametrize(
    "bounds, clusters, able",
    [
        # 15 / (15 + 3.8415) = 0.796 and 16 / 19.8415 = 0.806.
        ((0.2, 0.8), 15, False),
        ((0.2, 0.8), 16, True),
        ((None, 0.1), 1, True),
        ((0.75, None), 2, True),
        ((0.75, None), 1, False),
        ((None, 1.0), 1000, False),
    ],
)
def test_check_that_could_not_fail(bounds: Any, clusters: int, able: bool) -> None:
    assert can_fail(bounds, clusters) is able


@pytest.mark.parametrize("prompts, status", [(15, "skipped"), (16, "failed")])
def test_certain_slot_bias_fails_a_loose_bound(prompts: int, status: str) -> None:
    """Always 0.5, the greatest distance there is: half of 16 / (16 + 3.8415) is 0.403."""
    figures = LabelFigures(0.02)
    for n in range(prompts):
        figures.add_canaries([canary("identical", 0.5, 1.0, 1.0, prompt_id=f"p{n}")] * 2)
    found = check_labels(
        figures.estimates("", draws=100, seed=0), LabelAuditConfig(max_identical=0.4)
    )
    (finding,) = (f for f in found if f.name == "identical")
    assert finding.status == status


def test_check_that_could_not_fail_is_skipped() -> None:
    """Always slot A, over ten prompts: seen, but not surely more than four times in five."""
    figures = LabelFigures(0.02)
    for n in range(10):
        figures.add_labels([label(0.9, 0.9, prompt_id=f"p{n}")] * 3, WORDS)
    found = {
        f.name: f
        for f in check_labels(figures.estimates("", draws=100, seed=0), LabelAuditConfig())
    }
    assert found["order_disagreement"].status == "failed"
    assert (
        found["slot_share"].status == "skipped" and "over 10 prompts" in found["slot_share"].detail
    )


def test_nothing_wins_where_every_label_is_a_tie() -> None:
    """As under a clamp within the tie width."""
    config, figures = LabelAuditConfig(max_longer=0.7), LabelFigures(0.1)
    for n in range(30):
        figures.add_labels([label(0.99, 0.01, prob_first=0.6, prompt_id=f"p{n}")], WORDS)
        figures.add_canaries([canary("padded", 0.5, 0.01, 0.99, prob_first=0.4, prompt_id=f"p{n}")])
    found = {f.name: f for f in check_labels(figures.estimates("", draws=100, seed=0), config)}
    assert found["padded"].status == found["longer"].status == "skipped"
    assert "nothing can win" in found["padded"].detail


@pytest.mark.parametrize("shards, count", [(1, 27), (4, 7), (7, 4), (100, 4), (0, 4)])
def test_few_shards_ask_more_canaries(shards: int, count: int) -> None:
    """20 rows / 0.75 found = 26.7 of each kind."""
    assert LabelAuditConfig().canaries_in_shard(shards) == count
    assert LabelAuditConfig(canaries_per_shard=0).canaries_in_shard(shards) == 0


def test_null_switches_a_check_off() -> None:
    config = LabelAuditConfig(max_order_disagreement=None, slot_share=None)
    assert not {"order_disagreement", "slot_share", "longer"} & {
        finding.name for finding in check_labels({}, config)
    }


def test_slot_bounds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="two bounds, the lower one first"):
        LabelAuditConfig(slot_share=(0.8, 0.2))
