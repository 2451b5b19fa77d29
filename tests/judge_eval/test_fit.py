"""Calibrations derived by hand, fitted on one half of the contexts and measured on the other."""

import random

import pytest

from pipeline.errors import DataError
from pipeline.judge_eval.fit import (
    MIN_ROWS,
    Fitted,
    Kind,
    check_halves,
    fit,
    fit_and_measure,
    in_fit_half,
)
from pipeline.judge_eval.items import Verdict
from pipeline.soft_labels import sigmoid
from tests.judge_eval.test_figures import verdict

KINDS: tuple[Kind, ...] = ("temperature", "isotonic")
LABELS = [0.0, 1e-9, 0.03, 0.1, 0.35, 0.4999, 0.5, 0.62, 0.9, 0.999999, 1.0]
IDENTITY = {"judge_fingerprint": "j", "method_hash": "m", "fitted_on": "file"}


def overconfident(count: int = 2000, sharpness: float = 3.0, seed: int = 0) -> list[Verdict]:
    """Log-odds `sharpness` times too large; four rows to a context."""
    rng, found = random.Random(seed), []
    for number in range(count):
        odds = rng.gauss(0, 1.2)
        right = rng.random() < sigmoid(odds)
        p = sigmoid(sharpness * odds)
        found.append(
            verdict(
                p if right else 1 - p, chosen_first=rng.random() < 0.5, prompt_id=f"q{number // 4}"
            )
        )
    return found


def measure(verdicts: list[Verdict], kind: Kind = "temperature", **changes: str) -> Fitted:
    """Fit and measure."""
    return fit_and_measure(verdicts, kind, draws=300, seed=0, **(IDENTITY | changes))


def simulated(
    temperature: float, num: int = 20_000, seed: int = 7
) -> tuple[list[float], list[float]]:
    """Labels of a judge whose log-odds are `temperature` times too large, with their truths."""
    rng = random.Random(seed)
    odds = [rng.gauss(0.0, 1.5) for _ in range(num)]
    truths = [float(rng.random() < sigmoid(o)) for o in odds]
    return [sigmoid(temperature * o) for o in odds], truths


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered(temperature: float) -> None:
    """The standard error of 1 / T is about 0.02 with so many rows."""
    found = fit("temperature", *simulated(temperature)).temperature
    assert found == pytest.approx(temperature, rel=0.05)


def test_temperature_of_one_label_by_hand() -> None:
    """All labels 0.9, right on 3 of 4: the best label is 0.75, so T = ln 9 / ln 3 = 2."""
    found = fit("temperature", [0.9] * 4, [1, 1, 1, 0])
    assert found.temperature == pytest.approx(2.0, rel=1e-4) and found.num_rows == 4


def test_fit_does_not_see_which_response_is_first() -> None:
    labels, truths = simulated(2.0, 500)
    swapped = [1 - p for p in labels], [1 - t for t in truths]
    for kind in KINDS:
        a, b = fit(kind, labels, truths), fit(kind, *swapped)
        assert [a.apply(p) for p in LABELS] == pytest.approx([b.apply(p) for p in LABELS])


def test_pool_adjacent_violators_by_hand() -> None:
    """Labels 0.6, 0.7, 0.8, 0.9 with truths 1, 0, 1, 1.

    With their mirror images 0.1 .. 0.4 (truths 0, 0, 1, 0) the means in order of the label are
    0, 0, 1, 0, 1, 0, 1, 1. The violators (1, 0) and (1, 0) pool to 1/2 each, and equal levels are
    one step: 0, 0 | 1/2 from 0.3 on | 1, 1 from 0.8 on. Of four labels, none is surer than 5/6.
    """
    found = fit("isotonic", [0.6, 0.7, 0.8, 0.9], [1, 0, 1, 1])
    assert found.bounds == pytest.approx((0.1, 0.3, 0.8))
    assert found.levels == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert found.apply(0.6) == found.apply(0.7) == 0.5
    assert found.apply(0.8) == found.apply(1.0) == pytest.approx(5 / 6)
    assert found.apply(0.1) == found.apply(0.2) == pytest.approx(1 / 6)
    # Between 0.7 and 0.8 the mirrored map has stepped and the map has not: the mean of both.
    assert found.apply(0.75) == pytest.approx((1 / 2 + 5 / 6) / 2)


def test_mirror_image_of_a_label_is_the_same_label() -> None:
    """1 - 0.9 is 0.09999999999999998; as a label of its own it would split the block of 0.1."""
    found = fit("isotonic", [0.1, 0.9, 0.9, 0.9], [0, 1, 1, 0])
    assert found.levels == pytest.approx((1 / 4, 3 / 4))
    assert found.apply(0.1) == found.apply(1 - 0.9) == pytest.approx(1 / 4)


def test_isotonic_corrects_a_map_that_no_temperature_can() -> None:
    """A judge that says 0.95 at best and 0.6 else, right on 60 and on 90 of 100."""
    labels, truths = [0.95] * 100 + [0.6] * 100, [1.0] * 90 + [0.0] * 10 + [1.0] * 60 + [0.0] * 40
    found = fit("isotonic", labels, truths)
    assert [found.apply(0.95), found.apply(0.6)] == pytest.approx([0.9, 0.6])
    assert found.apply(0.05) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("labels", "truths", "pattern"),
    [
        ([], [], "there is no label"),
        ([0.9, 0.2, 0.7], [1, 0, 1], "was right at every confidence on the 3 labels"),
        ([0.9, 0.9], [1, 0], "no better than chance on the 2 labels"),
        ([0.5, 0.5], [1, 1], "no better than chance"),
    ],
)
def test_no_temperature_is_made_up(labels: list[float], truths: list[float], pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        fit("temperature", labels, truths)


@pytest.mark.parametrize(
    ("labels", "truths"), [([], []), ([0.9, 0.9], [1, 0]), ([0.8, 0.3], [0, 1])]
)
def test_no_steps_are_made_up(labels: list[float], truths: list[float]) -> None:
    with pytest.raises(DataError, match=r"no label|no better than chance"):
        fit("isotonic", labels, truths)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_unseen_half_gets_better(kind: Kind) -> None:
    found = measure(overconfident(), kind)
    for name in ("brier_score", "log_loss", "ece"):
        assert getattr(found.after, name) < getattr(found.before, name)
    assert found.brier_change is not None and found.brier_change.high < 0
    assert found.after.ece < 2 * found.after.ece_by_chance
    if kind == "temperature":
        assert found.calibration.temperature == pytest.approx(3.0, rel=0.15)
    assert (found.calibration.judge_fingerprint, found.calibration.method_hash) == ("j", "m")


def test_halves_share_no_context() -> None:
    rows = overconfident()
    found = measure(rows)
    fitted = [v for v in rows if in_fit_half(v.prompt_id, 0)]
    assert found.calibration.num_rows == len(fitted)
    assert found.before.n == len(rows) - len(fitted)
    assert 0.4 < len(fitted) / len(rows) < 0.6
    assert {in_fit_half("q1", seed) for seed in range(20)} == {True, False}


def test_measured_half_does_not_touch_the_fit() -> None:
    """Turning every label of the other half around leaves the map as it is."""
    rows = overconfident()
    turned = [
        v if in_fit_half(v.prompt_id, 0) else verdict(1 - (v.label or 0), prompt_id=v.prompt_id)
        for v in rows
    ]
    assert measure(turned).calibration.temperature == measure(rows).calibration.temperature


def test_calibrated_labels_are_refused() -> None:
    rows = [verdict(0.8, raw_label=0.9, prompt_id=f"q{i}") for i in range(100)]
    with pytest.raises(ValueError, match="raw labels"):
        measure(rows)


def test_few_rows_are_refused_before_and_after() -> None:
    with pytest.raises(DataError, match=f"needs {MIN_ROWS} rows in each half"):
        check_halves([f"q{i}" for i in range(20)], 0)
    check_halves([f"q{i}" for i in range(100)], 0)
    # One context is one half, however many rows it has.
    with pytest.raises(DataError, match="in each half"):
        check_halves(["q"] * 1000, 0)
    unread = [verdict(None, prompt_id=f"q{i}") for i in range(100)]
    with pytest.raises(DataError, match="readable labels in each half"):
        measure(unread)
