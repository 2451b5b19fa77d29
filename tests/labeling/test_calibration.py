"""Calibration: maps derived by hand, and the symmetry that keeps slots out of a label."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.labeling.calibration import Calibration, check_calibration, load_calibration

LABELS = [0.0, 1e-9, 0.03, 0.1, 0.35, 0.4999, 0.5, 0.62, 0.9, 0.999999, 1.0]


PROBABILITIES = st.floats(0, 1)
CALIBRATIONS = st.one_of(
    st.builds(Calibration, kind=st.just("temperature"), temperature=st.floats(0.05, 50)),
    st.lists(st.tuples(PROBABILITIES, PROBABILITIES), min_size=1, max_size=6).map(
        lambda steps: Calibration(
            kind="isotonic",
            bounds=tuple(sorted(bound for bound, _ in steps)),
            levels=tuple(sorted(level for _, level in steps)),
        )
    ),
)


def test_temperature_by_hand() -> None:
    """0.9 has odds 9; at T = 2 sqrt(9) = 3, so 3 / 4."""
    assert Calibration(kind="temperature", temperature=2.0).apply(0.9) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(kind="temperature", temperature=0.3),
        Calibration(kind="temperature", temperature=7.0),
        Calibration(kind="isotonic", bounds=(0.1, 0.3, 0.8), levels=(1 / 6, 1 / 2, 5 / 6)),
        Calibration(kind="isotonic", bounds=(0.0, 0.4, 0.62), levels=(0.01, 0.45, 0.8)),
    ],
)
def test_examples_are_swap_symmetric_and_monotone(calibration: Calibration) -> None:
    applied = [calibration.apply(p) for p in LABELS]
    assert applied == sorted(applied) and applied[0] >= 0 and applied[-1] <= 1
    assert calibration.apply(0.5) == 0.5
    for label in LABELS:
        assert calibration.apply(label) + calibration.apply(1 - label) == pytest.approx(1, abs=1e-6)


@given(CALIBRATIONS, PROBABILITIES, PROBABILITIES)
def test_calibration_is_monotone(calibration: Calibration, p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert 0 <= calibration.apply(low) <= calibration.apply(high) + 1e-12 <= 1 + 1e-9


@given(CALIBRATIONS, PROBABILITIES)
def test_calibration_is_antisymmetric_around_half(calibration: Calibration, p: float) -> None:
    """Renaming the responses turns p into 1 - p, and the calibrated label too."""
    assert calibration.apply(p) + calibration.apply(1 - p) == pytest.approx(1, abs=1e-9)
    assert calibration.apply(0.5) == pytest.approx(0.5, abs=1e-12)


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
    path = tmp_path / "c.json"
    found = Calibration(kind="isotonic", bounds=(0.1, 1 / 3), levels=(1 / 7, 6 / 7), num_rows=5)
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


def test_unnamed_calibration_is_refused() -> None:
    with pytest.raises(ConfigError, match="not named"):
        check_calibration(Calibration(kind="temperature", temperature=2), "j", "m")
