"""Bins of equal mass, the calibration error, and what chance alone makes of it."""

import random

import pytest

from pipeline.judge_eval.figures import chance_error, equal_mass_bins, expected_error
from pipeline.judge_eval.report.page import reliability_chart


def test_bins_have_equal_mass() -> None:
    values = [0.5 + i / 200 for i in range(90)]
    bins = equal_mass_bins(values, [1.0] * 90, 15)
    assert [b.n for b in bins] == [6] * 15
    assert [b.low for b in bins] == sorted(b.low for b in bins)


def test_few_labels_have_few_bins() -> None:
    assert [b.n for b in equal_mass_bins([0.6, 0.7, 0.9], [1, 0, 1], 15)] == [1, 1, 1]


def test_equal_confidences_share_a_bin() -> None:
    """Cut anywhere, 100 labels of 0.7 would look uncalibrated by chance; in one bin they do not."""
    right = [1.0] * 70 + [0.0] * 30
    bins = equal_mass_bins([0.7] * 100, right, 15)
    assert [b.n for b in bins] == [100] and expected_error(bins) == pytest.approx(0.0)


def test_error_by_hand() -> None:
    """Two labels of 0.9, one right: |0.5 - 0.9|; two of 0.6, both right: |1 - 0.6|. Mean 0.4."""
    bins = equal_mass_bins([0.9, 0.6, 0.9, 0.6], [1, 1, 0, 1], 2)
    assert [(b.confidence, b.accuracy, b.n) for b in bins] == [(0.6, 1.0, 2), (0.9, 0.5, 2)]
    assert expected_error(bins) == pytest.approx(0.4)


def test_order_of_rows_changes_nothing() -> None:
    rng = random.Random(1)
    rows = [(round(rng.uniform(0.5, 1), 1), float(rng.random() < 0.7)) for _ in range(200)]
    shuffled = rng.sample(rows, len(rows))
    errors = [
        expected_error(equal_mass_bins([c for c, _ in r], [right for _, right in r]))
        for r in (rows, shuffled)
    ]
    assert errors[0] == pytest.approx(errors[1])


def test_chance_error_is_what_a_calibrated_judge_gets() -> None:
    """The mean over simulated judges that are right as often as they say; less with more rows."""
    rng = random.Random(2)
    values = [rng.uniform(0.5, 1) for _ in range(150)]
    errors = [
        expected_error(equal_mass_bins(values, [float(rng.random() < c) for c in values]))
        for _ in range(300)
    ]
    found = chance_error(values, seed=0)
    assert found == pytest.approx(sum(errors) / 300, rel=0.05)
    assert chance_error(values * 20, seed=0) < found / 3


def test_chart_escapes_and_is_alone() -> None:
    bins = equal_mass_bins([0.6, 0.9], [1, 0], 2)
    chart = str(reliability_chart('<script>"', bins))
    assert chart.startswith("<svg") and "<script>" not in chart
    assert chart.count('class="bin"') == 2 and "http" not in chart
    assert reliability_chart("none", []) == ""
