"""Calibration: maps derived by hand, and the symmetry that keeps slots out of a label."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError, DataError
from pipeline.labeling.calibration import (
    Calibration,
    check_calibration,
    fit,
    fit_isotonic,
    fit_temperature,
    load_calibration,
    log_loss,
)
from pipeline.soft_labels import margin, sigmoid

LABELS = [0.0, 1e-9, 0.03, 0.1, 0.35, 0.4999, 0.5, 0.62, 0.9, 0.999999, 1.0]


def simulated(
    temperature: float, num: int = 20_000, seed: int = 7
) -> tuple[list[float], list[float]]:
    """Labels of a judge whose log-odds are `temperature` times too large, with their truths."""
    rng = random.Random(seed)
    odds = [rng.gauss(0.0, 1.5) for _ in range(num)]
    truths = [float(rng.random() < sigmoid(o)) for o in odds]
    return [sigmoid(temperature * o) for o in odds], truths


def test_temperature_by_hand() -> None:
    """0.9 has odds 9; at T = 2 sqrt(9) = 3, so 3 / 4."""
    assert Calibration(kind="temperature", temperature=2.0).apply(0.9) == pytest.approx(0.75)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered(temperature: float) -> None:
    """The standard error of 1 / T is about 0.02 with so many rows."""
    found = fit_temperature(*simulated(temperature)).temperature
    assert found == pytest.approx(temperature, rel=0.05)


def test_temperature_of_one_label_by_hand() -> None:
    """All labels 0.9, right on 3 of 4: the best label is 0.75, so T = ln 9 / ln 3 = 2."""
    found = fit_temperature([0.9] * 4, [1, 1, 1, 0])
    assert found.temperature == pytest.approx(2.0, rel=1e-4) and found.num_rows == 4


def test_fit_does_not_see_which_response_is_first() -> None:
    labels, truths = simulated(2.0, 500)
    swapped = [1 - p for p in labels], [1 - t for t in truths]
    for kind in ("temperature", "isotonic"):
        a, b = fit(kind, labels, truths), fit(kind, *swapped)  # type: ignore[arg-type]
        assert [a.apply(p) for p in LABELS] == pytest.approx([b.apply(p) for p in LABELS])


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(kind="temperature", temperature=0.3),
        Calibration(kind="temperature", temperature=7.0),
        fit_isotonic(*simulated(2.5, 300)),
        fit_isotonic([0.1, 0.3, 0.7, 0.9], [0, 1, 1, 1]),
    ],
)
def test_swap_symmetric_monotone_and_half_stays(calibration: Calibration) -> None:
    applied = [calibration.apply(p) for p in LABELS]
    assert applied == sorted(applied) and applied[0] >= 0 and applied[-1] <= 1
    assert calibration.apply(0.5) == 0.5
    for label in LABELS:
        assert calibration.apply(label) + calibration.apply(1 - label) == pytest.approx(1, abs=1e-6)


def test_pool_adjacent_violators_by_hand() -> None:
    """Labels 0.6, 0.7, 0.8, 0.9 with truths 1, 0, 1, 1.

    With their mirror images 0.1 .. 0.4 (truths 0, 0, 1, 0) the means in order of the label are
    0, 0, 1, 0, 1, 0, 1, 1. The violators (1, 0) and (1, 0) pool to 1/2 each, and equal levels are
    one step: 0, 0 | 1/2 from 0.3 on | 1, 1 from 0.8 on. Of four labels, none is surer than 5/6.
    """
    found = fit_isotonic([0.6, 0.7, 0.8, 0.9], [1, 0, 1, 1])
    assert found.bounds == pytest.approx((0.1, 0.3, 0.8))
    assert found.levels == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert found.apply(0.6) == found.apply(0.7) == 0.5
    assert found.apply(0.8) == found.apply(1.0) == pytest.approx(5 / 6)
    assert found.apply(0.1) == found.apply(0.2) == pytest.approx(1 / 6)
    # Between 0.7 and 0.8 the mirrored map has stepped and the map has not: the mean of both.
    assert found.apply(0.75) == pytest.approx((1 / 2 + 5 / 6) / 2)


def test_mirror_image_of_a_label_is_the_same_label() -> None:
    """1 - 0.9 is 0.09999999999999998; as a label of its own it would split the block of 0.1."""
    found = fit_isotonic([0.1, 0.9, 0.9, 0.9], [0, 1, 1, 0])
    assert found.levels == pytest.approx((1 / 4, 3 / 4))
    assert found.apply(0.1) == found.apply(1 - 0.9) == pytest.approx(1 / 4)


def test_isotonic_corrects_a_map_that_no_temperature_can() -> None:
    """A judge that says 0.95 at best and 0.6 else, right on 60 and on 90 of 100."""
    labels, truths = [0.95] * 100 + [0.6] * 100, [1.0] * 90 + [0.0] * 10 + [1.0] * 60 + [0.0] * 40
    found = fit_isotonic(labels, truths)
    assert [found.apply(0.95), found.apply(0.6)] == pytest.approx([0.9, 0.6])
    assert found.apply(0.05) == pytest.approx(0.1)


def test_log_loss_by_hand() -> None:
    """-ln 0.8, -ln 0.75 and -ln 0.5, by truth."""
    expected = -(math.log(0.8) + math.log(0.75) + math.log(0.5)) / 3
    assert log_loss([0.8, 0.25, 0.5], [1, 0, 1]) == pytest.approx(expected)
    assert log_loss([1.0], [0]) == pytest.approx(30.0)
    with pytest.raises(ValueError, match="no label"):
        log_loss([], [])


def test_logit_is_bounded() -> None:
    assert (margin(0.0), margin(0.5), margin(1.0)) == (-30.0, 0.0, 30.0)


@pytest.mark.parametrize(
    ("labels", "truths", "pattern"),
    [
        ([], [], "there is no label"),
        ([0.9, 0.2, 0.7], [1, 0, 1], "was right, however sure, on the 3 labels"),
        ([0.9, 0.9], [1, 0], "no better than chance on the 2 labels"),
        ([0.5, 0.5], [1, 1], "no better than chance"),
    ],
)
def test_no_temperature_is_made_up(labels: list[float], truths: list[float], pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        fit_temperature(labels, truths)


@pytest.mark.parametrize(
    ("labels", "truths"), [([], []), ([0.9, 0.9], [1, 0]), ([0.8, 0.3], [0, 1])]
)
def test_no_steps_are_made_up(labels: list[float], truths: list[float]) -> None:
    with pytest.raises(DataError, match="no label|no better than chance"):
        fit_isotonic(labels, truths)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "temperature"},
        {"kind": "temperature", "temperature": 0.0},
        {"kind": "temperature", "temperature": math.inf},
        {"kind": "isotonic"},
        {"kind": "isotonic", "bounds": [0.1, 0.5], "levels": [0.9, 0.2]},
        {"kind": "isotonic", "bounds": [0.5, 0.1], "levels": [0.2, 0.9]},
        {"kind": "isotonic", "bounds": [0.1], "levels": [1.2]},
    ],
)
def test_impossible_maps_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(values)


def test_file_round_trip(tmp_path: Path) -> None:
    path, found = tmp_path / "c.json", fit_isotonic(*simulated(2.0, 100))
    path.write_text(found.model_dump_json())
    assert load_calibration(path) == found
    path.write_text(json.dumps({"kind": "temperature", "temprature": 2}))
    with pytest.raises(ConfigError, match="judge-eval --calibrate"):
        load_calibration(path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_calibration(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("fingerprint", "method", "pattern"),
    [
        ("j", "m", ""),
        ("k", "m", "for judge j, but this recipe has k"),
        ("j", "n", "for labeling method m, but this recipe has n"),
    ],
)
def test_calibration_belongs_to_judge_and_method(
    fingerprint: str, method: str, pattern: str
) -> None:
    found = Calibration(kind="temperature", temperature=2, judge_fingerprint="j", method_hash="m")
    if not pattern:
        return check_calibration(found, fingerprint, method)
    with pytest.raises(ConfigError, match=pattern):
        check_calibration(found, fingerprint, method)


def test_calibration_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="not named"):
        check_calibration(Calibration(kind="temperature", temperature=2), "j", "m")
