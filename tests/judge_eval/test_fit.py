"""A calibration is fitted on one half of the contexts and measured on the other."""

import random
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.judge_eval.answers import Verdict
from pipeline.judge_eval.fit import MIN_ROWS, check_halves, fit_and_measure, in_fit_half
from pipeline.soft_labels import sigmoid
from tests.judge_eval.test_figures import verdict

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


def measure(verdicts: list[Verdict], kind: Any = "temperature", **changes: Any) -> Any:
    """Fit and measure."""
    return fit_and_measure(verdicts, kind, draws=300, seed=0, **(IDENTITY | changes))


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_unseen_half_gets_better(kind: str) -> None:
    found = measure(overconfident(), kind)
    for name in ("brier_score", "log_loss", "ece"):
        assert found.after[name] < found.before[name]
    assert found.brier_change["high"] < 0
    assert found.after["ece"] < 2 * found.after["ece_by_chance"]
    if kind == "temperature":
        assert found.calibration.temperature == pytest.approx(3.0, rel=0.15)
    assert (found.calibration.judge_fingerprint, found.calibration.method_hash) == ("j", "m")


def test_halves_share_no_context() -> None:
    rows = overconfident()
    found = measure(rows)
    fitted = [v for v in rows if in_fit_half(v.prompt_id, 0)]
    assert found.calibration.num_rows == len(fitted)
    assert found.before["n"] == len(rows) - len(fitted)
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
