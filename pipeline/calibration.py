"""A calibration: a monotone map of soft labels, fitted on labelled data of one judge.

    temperature   p' = sigmoid(logit(p) / T), no intercept
    isotonic      the best monotone step function, made symmetric

Both keep p' + q' = 1 when the two responses change places: after the mean over both orders a label
says nothing about slots, and a calibration must not bring them back. Pure: fitting takes labels
and answers, applying takes a label.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import ConfigError
from pipeline.ids import content_hash
from pipeline.verdicts import sigmoid

LOGIT_BOUND = 30.0
"""Nats; labels of exactly 0 or 1 count as this sure."""


class Calibration(BaseModel):
    """What `rlaif judge-eval --calibrate` writes and `judge.calibration` names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["temperature", "isotonic"]
    """Which map."""
    temperature: float | None = Field(None, gt=0)
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
        return self

    @property
    def hash(self) -> str:
        """Hash of the map alone, recorded in every row that it changed."""
        return content_hash([self.kind, self.temperature, self.bounds, self.levels])[:16]

    def apply(self, label: float) -> float:
        """The calibrated label, in [0, 1]; 0.5 stays 0.5."""
        if self.kind == "temperature":
            assert self.temperature is not None
            return sigmoid(logit(label) / self.temperature)
        # The mean with the mirrored map keeps apply(p) + apply(1 - p) = 1.
        return (self._step(label) + 1.0 - self._step(1.0 - label)) / 2

    def _step(self, label: float) -> float:
        return self.levels[max(0, bisect_right(self.bounds, label) - 1)]


def logit(probability: float) -> float:
    """log(p / (1 - p)) in nats, within +-30."""
    if probability <= 0.0:
        return -LOGIT_BOUND
    if probability >= 1.0:
        return LOGIT_BOUND
    value = math.log(probability) - math.log1p(-probability)
    return max(-LOGIT_BOUND, min(LOGIT_BOUND, value))


def log_loss(labels: Sequence[float], truths: Sequence[float]) -> float:
    """Mean cross-entropy in nats of labels P(first) against truths in [0, 1]."""
    total = 0.0
    for label, truth in zip(labels, truths, strict=True):
        odds = logit(label)
        total += truth * _softplus(-odds) + (1 - truth) * _softplus(odds)
    return total / len(labels)


def fit_temperature(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """The temperature of least cross-entropy, searched on a log scale from 0.05 to 50.

    The loss is convex in 1 / T, so that golden-section search finds its minimum.
    """
    odds = [logit(label) for label in labels]

    def loss(log_t: float) -> float:
        return log_loss([sigmoid(o / math.exp(log_t)) for o in odds], truths)

    low, high = math.log(0.05), math.log(50.0)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return Calibration(kind="temperature", temperature=math.exp((low + high) / 2), num_rows=len(labels))


def fit_isotonic(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """Pool-adjacent-violators on the labels and their mirror images (Ayer et al. 1955)."""
    points = sorted(
        [*zip(labels, truths, strict=True)] + [(1 - p, 1 - t) for p, t in zip(labels, truths, strict=True)]
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
    return Calibration(
        kind="isotonic", bounds=tuple(b[0] for b in merged),
        levels=tuple(b[1] / b[2] for b in merged), num_rows=len(labels),
    )


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises ConfigError when it is missing or damaged."""
    try:
        return Calibration.model_validate(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise ConfigError(
            f"calibration {path} {reason}; name a file that `rlaif judge-eval --calibrate` wrote"
        ) from None


def check_calibration(calibration: Calibration, fingerprint: str, method_hash: str) -> None:
    """Raises ConfigError when it was fitted for another judge or another way of asking."""
    for what, fitted, found in (
        ("judge", calibration.judge_fingerprint, fingerprint),
        ("labeling method", calibration.method_hash, method_hash),
    ):
        if fitted and fitted != found:
            raise ConfigError(
                f"the calibration was fitted for {what} {fitted}, but this run has {found}; fit it "
                "again with `rlaif judge-eval --calibrate`, or remove judge.calibration"
            )


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
