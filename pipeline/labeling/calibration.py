"""A calibration: a monotone map of soft labels, fitted on labeled data of one judge.

    temperature   p' = sigmoid(logit(p) / T), no intercept
    isotonic      the best monotone step function, made symmetric

Both keep p' + q' = 1 when the two responses change places: after the mean over both orders a label
says nothing about slots, and a calibration must not bring them back. `judge_eval/fit.py` fits them.

Does not: know the constitution. Labels under other principles may need another map.
"""

import json
from bisect import bisect_right
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.paths import plain_bytes
from pipeline.config.section import Section
from pipeline.errors import ConfigError
from pipeline.ids import content_hash
from pipeline.soft_labels import margin, sigmoid

DIGITS = 12
"""1 - (1 - p) is p only up to rounding; labels that agree to this many digits are one label."""


class Calibration(Section):
    """What `rlaif judge-eval --calibrate` writes and `judge.calibration` names."""

    kind: Literal["temperature", "isotonic"]
    temperature: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Above 1 the judge was overconfident, below 1 underconfident."""
    bounds: tuple[float, ...] = ()
    """Isotonic: labels at which the steps begin, in rising order."""
    levels: tuple[float, ...] = ()
    """Isotonic: value of each step."""
    judge_fingerprint: str = ""
    """The judge whose labels it was fitted on; a recipe with another judge is refused."""
    method_hash: str = ""
    """Template and labeling method of that judge; a recipe with another method is refused."""
    fitted_on: str = ""
    """Name and hash of the labeled file."""
    num_rows: int = 0
    """Labeled comparisons of the fit."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "temperature" and self.temperature is None:
            raise ValueError("a temperature calibration needs `temperature`")
        if self.kind == "isotonic" and (not self.levels or len(self.levels) != len(self.bounds)):
            raise ValueError("an isotonic calibration needs as many `levels` as `bounds`")
        for name, values in (("bounds", self.bounds), ("levels", self.levels)):
            if list(values) != sorted(values) or not all(0.0 <= value <= 1.0 for value in values):
                raise ValueError(f"`{name}` must rise and lie in [0, 1]")
        return self

    @property
    def hash(self) -> str:
        """Hash of the map alone, recorded in every row that it changed."""
        return content_hash([self.kind, self.temperature, self.bounds, self.levels])[:16]

    def apply(self, label: float) -> float:
        """The calibrated label, in [0, 1]; 0.5 stays 0.5."""
        if self.kind == "temperature":
            assert self.temperature is not None
            return sigmoid(margin(label) / self.temperature)
        # The mean with the mirrored map keeps apply(p) + apply(1 - p) = 1.
        return (self._step(label) + 1.0 - self._step(1.0 - label)) / 2

    def _step(self, label: float) -> float:
        return self.levels[max(0, bisect_right(self.bounds, round(label, DIGITS)) - 1)]


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises ConfigError when it is missing or damaged."""
    try:
        return Calibration.model_validate(json.loads(plain_bytes(path)))
    except (OSError, ValueError) as error:
        reason = (
            "does not exist"
            if isinstance(error, FileNotFoundError)
            else " ".join(str(error).split())
        )
        raise ConfigError(
            f"calibration {path} {reason}; name a file that `rlaif judge-eval --calibrate` wrote"
        ) from None


def check_calibration(calibration: Calibration, fingerprint: str, method_hash: str) -> None:
    """Raises ConfigError unless it was fitted for this judge and this labeling method."""
    for what, fitted, current in (
        ("judge", calibration.judge_fingerprint, fingerprint),
        ("labeling method", calibration.method_hash, method_hash),
    ):
        if fitted != current:
            raise ConfigError(
                f"the calibration was fitted for {what} {fitted[:16] or '(not named)'}, but this "
                f"recipe has {current[:16]}; fit it again with `rlaif judge-eval --calibrate`, or "
                "remove judge.calibration"
            )
