"""Figures derived by hand, from verdicts that are written by hand."""

import math
from dataclasses import asdict
from typing import Any

import pytest

from pipeline.judge_eval.figures import baselines, judge_figures
from pipeline.judge_eval.items import Verdict, compare_lengths
from pipeline.soft_labels import sigmoid, swap_average


def verdict(forward: float | None = 0.9, swapped: float | None = None, **changes: Any) -> Verdict:
    """P(chosen) of both orders; without the second, both say the same."""
    second = forward if swapped is None else swapped
    label = None if forward is None or second is None else (forward + second) / 2
    values = {
        "prompt_id": "q",
        "chosen_first": True,
        "status": "ok" if label is not None else "unparsed",
        "reason": "",
        "label": label,
        "raw_label": label,
        "forward": forward,
        "swapped": second,
        "exact": True,
        "longer": 0,
        "principle_id": "p",
        "tags": (),
    }
    return Verdict(**(values | changes))  # type: ignore[arg-type]


def biased(d: float, b: float, chosen_first: bool, number: int = 0) -> Verdict:
    """A judge with slot logit b on a pair whose better response is d nats ahead."""
    when_a, when_b = sigmoid(d + b), 1 - sigmoid(-d + b)
    forward, swapped = (when_a, when_b) if chosen_first else (when_b, when_a)
    return verdict(forward, swapped, chosen_first=chosen_first, prompt_id=f"q{number}")


def measure(*verdicts: Verdict) -> dict[str, Any]:
    """All figures, as metrics.json has them."""
    return asdict(judge_figures(verdicts, draws=200, seed=0))


def share(estimate: dict[str, float] | None) -> float:
    """The share of an estimate that is there."""
    assert estimate is not None
    return estimate["share"]


def test_even_label_counts_half() -> None:
    """Right, right, wrong, exactly even: 2.5 of 4."""
    found = measure(verdict(0.9), verdict(0.6), verdict(0.2), verdict(0.5))
    assert share(found["accuracy"]) == pytest.approx(0.625)
    assert share(found["tie_share"]) == pytest.approx(0.25)


def test_unreadable_rows_count_as_wrong_in_all() -> None:
    """3 of 4 readable ones are right; of 6, with one unparsed and one failed, 3."""
    found = measure(
        *[verdict(0.9)] * 3,
        verdict(0.1),
        verdict(None, reason="prose"),
        verdict(None, status="failed", reason="down"),
    )
    assert share(found["accuracy"]) == pytest.approx(3 / 4) and found["accuracy"]["n"] == 4
    assert share(found["accuracy_all"]) == pytest.approx(3 / 6) and found["accuracy_all"]["n"] == 6
    assert found["rows"] == {
        "expected": 6,
        "ok": 4,
        "unparsed": 1,
        "failed": 1,
        "dropped": 0,
        "unparsed_share": 1 / 6,
        "failed_share": 1 / 6,
        "dropped_share": 0.0,
    }
    assert found["unreadable"] == {"prose": 1, "down": 1}


def test_nothing_readable_has_no_accuracy() -> None:
    found = measure(verdict(None), verdict(None))
    assert found["accuracy"] is None and found["confidence"] is None
    assert share(found["accuracy_all"]) == 0.0


def test_contexts_are_drawn_not_rows() -> None:
    """100 contexts, each with 10 equal rows, are as wide as 100 rows: sqrt(10) wider than 1,000."""
    rows = [
        verdict(0.9 if c % 2 else 0.1, prompt_id=f"q{c}") for c in range(100) for _ in range(10)
    ]
    alone = [verdict(0.9 if c % 2 else 0.1, prompt_id=f"q{c}") for c in range(1000)]
    clustered, independent = (
        judge_figures(found, draws=2000, seed=0).accuracy for found in (rows, alone)
    )
    assert clustered is not None and independent is not None
    width, narrow = (e.high - e.low for e in (clustered, independent))
    assert width == pytest.approx(narrow * math.sqrt(10), rel=0.1)


def test_slot_lover_is_seen_for_what_it_is() -> None:
    """Always A: even on average, the orders always disagree; one order is the order's luck."""
    rows = [biased(0.0, 50.0, number < 6, number) for number in range(10)]
    found = measure(*rows)
    assert share(found["accuracy"]) == 0.5 == share(found["accuracy_all"])
    assert share(found["tie_share"]) == 1.0
    place, order = found["position"], found["orders"]
    assert [
        share(place[k])
        for k in ("order_disagreement", "same_slot_a", "same_slot_b", "slot_a_share")
    ] == [1, 1, 0, 1]
    assert (share(order["forward"]), share(order["swapped"])) == (0.6, 0.4)
    assert (share(order["chosen_in_a"]), share(order["chosen_in_b"])) == (1.0, 0.0)


@pytest.mark.parametrize("bias", [-3.0, -0.5, 0.0, 0.5, 3.0])
@pytest.mark.parametrize("d", [0.4, 1.5])
def test_additive_bias_in_closed_form(bias: float, d: float) -> None:
    """Label (s(d + b) + s(d - b)) / 2, the same for b and -b and always on the side of d; the
    orders part as soon as |b| > d.
    """
    rows = [biased(d, bias, number % 2 == 0, number) for number in range(8)]
    expected, _ = swap_average(sigmoid(d + bias), sigmoid(bias - d))
    assert [row.label for row in rows] == pytest.approx([expected] * 8)
    found = measure(*rows)
    assert share(found["accuracy"]) == 1.0
    disagree = float(abs(bias) > d)
    assert share(found["position"]["order_disagreement"]) == disagree
    assert share(found["orders"]["chosen_in_a"]) == float(d + bias > 0)
    assert share(found["orders"]["chosen_in_b"]) == float(d - bias > 0)
    assert share(found["position"]["slot_a_share"]) == (
        0.5 + disagree / 2 * (1 if bias > 0 else -1)
    )


def test_call_of_exactly_half_prefers_neither() -> None:
    found = measure(verdict(0.5, 0.9))
    assert share(found["position"]["order_disagreement"]) == 0.0
    assert share(found["position"]["undecided_share"]) == 0.5
    # The decided call put the chosen response in slot B, and B won; the other counts half.
    assert share(found["position"]["slot_a_share"]) == 0.25


def test_longer_wins_on_pairs_that_differ() -> None:
    """Longer: right and preferred, wrong and preferred, wrong and not preferred: 2 of 3."""
    found = measure(
        verdict(0.9, longer=1), verdict(0.2, longer=-1), verdict(0.8, longer=-1), verdict(0.9)
    )
    length = found["length"]
    assert share(length["longer_wins"]) == pytest.approx(2 / 3) and length["longer_wins"]["n"] == 3
    assert share(length["chosen_longer"]) == pytest.approx(1 / 3)
    assert share(length["accuracy_longer_right"]) == 1.0
    assert share(length["accuracy_shorter_right"]) == 0.5
    assert [compare_lengths(*t) for t in (("a b", "aaa"), ("a", "b"), ("a", "b c"))] == [1, 0, -1]


def test_losses_by_hand() -> None:
    """P(chosen) 0.8 and 0.4: Brier (0.04 + 0.36) / 2, log-loss -(ln 0.8 + ln 0.4) / 2."""
    found = measure(verdict(0.8), verdict(0.4))["confidence"]
    assert found["brier_score"] == pytest.approx(0.2) == found["brier"]["share"]
    assert found["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    # Confidences 0.8 and 0.6, right and wrong, each a bin: (0.2 + 0.6) / 2.
    assert found["ece"] == pytest.approx(0.4) and found["mean"] == pytest.approx(0.7)


def test_calibrated_labels_keep_their_raw_figures() -> None:
    found = measure(verdict(0.9, raw_label=0.99), verdict(0.9, raw_label=0.99))
    assert found["confidence"]["mean"] == pytest.approx(0.9)
    assert found["raw_confidence"]["mean"] == pytest.approx(0.99)
    assert measure(verdict(0.9))["raw_confidence"] is None


def test_groups_count_their_unreadable_rows() -> None:
    found = measure(
        verdict(0.9, principle_id="x", tags=("t", "u")),
        verdict(0.1, principle_id="x", tags=("t",)),
        verdict(None, principle_id="y", tags=("t",)),
    )
    by_principle = {g["id"]: g for g in found["by_principle"]}
    assert share(by_principle["x"]["accuracy"]) == 0.5
    assert (by_principle["y"]["accuracy"], by_principle["y"]["unreadable"]) == (None, 1)
    by_tag = {g["id"]: (g["expected"], share(g["accuracy"])) for g in found["by_tag"]}
    assert by_tag == {"t": (3, 0.5), "u": (1, 1.0)}


def test_baselines_by_hand() -> None:
    """Chosen first in 3 of 4; longer in 2, shorter in 1, equal in 1: 2.5 and 1.5 of 4."""
    rows = [
        verdict(longer=sign, chosen_first=first)
        for sign, first in ((1, True), (1, True), (-1, True), (0, False))
    ]
    found = {name: each["share"] for name, each in asdict(baselines(rows)).items()}
    assert found == pytest.approx(
        {"always_a": 0.75, "longer": 0.625, "shorter": 0.375, "coin": 0.5}
    )
