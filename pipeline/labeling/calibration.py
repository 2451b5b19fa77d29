"""A calibration: a monotone map of soft labels, fitted on labelled data of one judge.

    temperature   p' = sigmoid(logit(p) / T), no intercept
    isotonic      the best monotone step function, made symmetric

Both keep p' + q' = 1 when the two responses change places: after the mean over both orders a label
says nothing about slots, and a calibration must not bring them back. Pure: fitting takes labels
and answers, applying takes a label.

Does not: know the constitution. Labels under other principles may need another map.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section
from pipeline.errors import ConfigError, DataError
from pipeline.ids import content_hash
from pipeline.soft_labels import margin, sigmoid

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 50.0
_DIGITS = 12
"""1 - (1 - p) is p only up to rounding; labels that agree to so many digits are one label."""


class Calibration(Section):
    """What `rlaif judge-eval --calibrate` writes and `judge.calibration` names."""

    kind: Literal["temperature", "isotonic"]
    """Which map."""
    temperature: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Above 1 the judge was too sure, below 1 not sure enough."""
    bounds: tuple[float, ...] = ()
    """Isotonic: labels at which the steps begin, rising."""
    levels: tuple[float, ...] = ()
    """Isotonic: value of each step."""
    judge_fingerprint: str = ""
    """The judge whose labels it was fitted on; another judge is refused."""
    method_hash: str = ""
    """Template and labeling method of that judge; another method is refused."""
    fitted_on: str = ""
    """Name and hash of the labelled file."""
    num_rows: int = 0
    """Labelled comparisons of the fit."""

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
        return self.levels[max(0, bisect_right(self.bounds, round(label, _DIGITS)) - 1)]


def log_loss(labels: Sequence[float], truths: Sequence[float]) -> float:
    """Mean cross-entropy in nats of labels P(first) against truths in [0, 1]; 0.6931 for 0.5.

    Raises:
        ValueError: no label, or not one truth for each.
    """
    return _odds_loss([margin(label) for label in labels], truths, 1.0)


def fit(
    kind: Literal["temperature", "isotonic"], labels: Sequence[float], truths: Sequence[float]
) -> Calibration:
    """The calibration of this kind. Raises DataError as the two functions do."""
    return (fit_temperature if kind == "temperature" else fit_isotonic)(labels, truths)


def fit_temperature(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """The temperature of least cross-entropy, between 0.05 and 50.

    The loss is convex in 1 / T, hence has one valley in log T, where golden-section search finds
    its minimum.

    Raises:
        DataError: no label; or the best temperature lies outside. Below 0.05 the judge was right whatever it
            said, above 50 it was right no more often than wrong: the data know no temperature.
    """
    if not labels:
        raise _nothing_to_fit()
    odds = [margin(label) for label in labels]
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [_odds_loss(odds, truths, math.exp(-log_t)) for log_t in (left, right)]
        low, high = (low, right) if losses[0] < losses[1] else (left, high)
    temperature = math.exp((low + high) / 2)
    if temperature < 1.001 * MIN_TEMPERATURE:
        raise _no_temperature(f"the judge was right, however sure, on the {len(labels)} labels")
    if temperature > MAX_TEMPERATURE / 1.001:
        raise _no_temperature(f"the judge was no better than chance on the {len(labels)} labels")
    return Calibration(kind="temperature", temperature=temperature, num_rows=len(labels))


def fit_isotonic(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """Pool-adjacent-violators on the labels and their mirror images (Ayer et al. 1955).

    Of n labels that are all right, the next one is right with (n + 1) / (n + 2) (Laplace's rule):
    no level is surer than that, as a step of 0 or 1 would claim certainty.

    Raises:
        DataError: no label; or the judge was right no more often than wrong at every level.
    """
    if not labels:
        raise _nothing_to_fit()
    pairs = list(zip(labels, truths, strict=True))
    points = sorted(
        (round(p, _DIGITS), t) for p, t in [*pairs, *((1 - p, 1 - t) for p, t in pairs)]
    )
    blocks: list[list[float]] = []  # start, sum of truths, count
    for label, truth in points:
        if blocks and blocks[-1][0] == label:
            blocks[-1][1] += truth
            blocks[-1][2] += 1
        else:
            blocks.append([label, truth, 1.0])
    merged: list[list[float]] = []
    for block in blocks:
        merged.append(block)
        while len(merged) > 1 and merged[-2][1] / merged[-2][2] >= merged[-1][1] / merged[-1][2]:
            _, total, count = merged.pop()
            merged[-1][1] += total
            merged[-1][2] += count
    if len(merged) == 1:
        raise DataError(
            f"the judge was no better than chance on the {len(labels)} labels, so that every label "
            "would become 0.5; use more labelled rows, or another judge"
        )
    least = 1 / (len(labels) + 2)
    return Calibration(
        kind="isotonic",
        bounds=tuple(b[0] for b in merged),
        levels=tuple(min(max(b[1] / b[2], least), 1 - least) for b in merged),
        num_rows=len(labels),
    )


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises ConfigError when it is missing or damaged."""
    try:
        return Calibration.model_validate(json.loads(path.read_text("utf-8")))
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
    """Raises ConfigError when it was fitted for another judge or another way of asking, or when it
    does not say for which.
    """
    for what, fitted, found in (
        ("judge", calibration.judge_fingerprint, fingerprint),
        ("labeling method", calibration.method_hash, method_hash),
    ):
        if fitted != found:
            raise ConfigError(
                f"the calibration was fitted for {what} {fitted[:16] or '(not named)'}, but this "
                f"recipe has {found[:16]}; fit it again with `rlaif judge-eval --calibrate`, or "
                "remove judge.calibration"
            )


def _odds_loss(odds: Sequence[float], truths: Sequence[float], sharpness: float) -> float:
    """Mean cross-entropy in nats of log-odds that are multiplied by 1 / T; nothing is cut off."""
    if not odds:
        raise ValueError("no label, but a loss needs at least one")
    total = 0.0
    for value, truth in zip(odds, truths, strict=True):
        z = value * sharpness
        total += truth * _softplus(-z) + (1 - truth) * _softplus(z)
    return total / len(odds)


def _nothing_to_fit() -> DataError:
    return DataError("there is no label to fit a calibration on; label more rows")


def _no_temperature(found: str) -> DataError:
    return DataError(
        f"{found}, so that no temperature between {MIN_TEMPERATURE:g} and {MAX_TEMPERATURE:g} fits; "
        "use more labelled rows, or `--calibration-kind isotonic`"
    )


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
