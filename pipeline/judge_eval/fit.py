"""Fit a calibration on one half of the contexts and measure it on the other.

In:  verdicts of one judge, uncalibrated
Out: the calibration, and Brier score, calibration error and log-loss before and after it

The halves are drawn by a seeded hash of the context, never of the row: pairs of one context are
alike, and a fit that has seen one of them has seen the others. Fitted labels are the raw ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.ids import uniform
from pipeline.judge_eval.figures import Confidence, confidence_figures
from pipeline.judge_eval.items import Verdict, readable
from pipeline.labeling.calibration import DIGITS, Calibration
from pipeline.soft_labels import margin
from pipeline.stats import Estimate, paired_change

Kind = Literal["temperature", "isotonic"]
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 50.0
MIN_ROWS = 20
"""Least number of labels in each half."""


@dataclass(frozen=True)
class Fitted:
    """A calibration, and its effect on labels that it has not seen."""

    calibration: Calibration
    before: Confidence
    after: Confidence
    brier_change: Estimate | None
    """After minus before on the held-out half, with its interval; below 0 is better."""

    def as_dict(self) -> dict[str, Any]:
        """The entry of metrics.json."""
        values = {name: value for name, value in asdict(self).items() if name != "calibration"}
        return {
            "map": self.calibration.model_dump(mode="json"),
            "fitted_on": self.calibration.num_rows,
            "measured_on": self.before.n,
            **values,
        }


def in_fit_half(prompt_id: str, seed: int) -> bool:
    """Whether the labels of a context are fitted on; the others are measured on."""
    return uniform("calibration half", seed, prompt_id) < 0.5


def check_halves(prompt_ids: Iterable[str], seed: int) -> None:
    """Raises DataError when a half is too small; called before any label is paid for."""
    halves = [in_fit_half(prompt, seed) for prompt in prompt_ids]
    _check_size(sum(halves), len(halves) - sum(halves), "rows")


def fit_and_measure(
    verdicts: Sequence[Verdict],
    kind: Kind,
    *,
    draws: int,
    seed: int,
    judge_fingerprint: str,
    method_hash: str,
    fitted_on: str,
) -> Fitted:
    """Fit on one half of the contexts, measure on the other.

    Raises:
        DataError: too few readable labels, or labels that support no calibration.
        ValueError: a label is calibrated already, which is a bug of the caller.
    """
    read = readable(verdicts)
    if any(v.label != v.raw_label for v in read):
        raise ValueError("calibrations are fitted on raw labels, but these are calibrated")
    seen = [v for v in read if in_fit_half(v.prompt_id, seed)]
    unseen = [v for v in read if not in_fit_half(v.prompt_id, seed)]
    _check_size(len(seen), len(unseen), "readable labels")
    calibration = fit(kind, *_first_labels(seen)).model_copy(
        update={
            "judge_fingerprint": judge_fingerprint,
            "method_hash": method_hash,
            "fitted_on": fitted_on,
        }
    )
    before = [v.label for v in unseen if v.label is not None]
    after = [calibration.apply(p) for p in before]
    return Fitted(
        calibration,
        confidence_figures(before, seed=seed),
        confidence_figures(after, seed=seed),
        _brier_change([v.prompt_id for v in unseen], before, after, draws, seed),
    )


def fit(kind: Kind, labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """The calibration of labels P(first) against truths in [0, 1].

    Raises:
        DataError: there is no label, or the labels support no calibration of this kind.
    """
    if not labels:
        raise DataError("there is no label to fit a calibration on; label more rows")
    return (_fit_temperature if kind == "temperature" else _fit_isotonic)(labels, truths)


def _fit_temperature(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """The temperature of least cross-entropy, which is convex in 1 / T: its slope has one root.

    Below 0.05 the judge was right whatever it said, above 50 it was right no more often than wrong:
    the data determine no temperature.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    odds = np.array([margin(label) for label in labels])

    def slope(sharpness: float) -> float:
        return float(np.mean(odds * (expit(odds * sharpness) - np.asarray(truths))))

    if slope(1 / MAX_TEMPERATURE) >= 0:
        reason = "no better than chance"
    elif slope(1 / MIN_TEMPERATURE) <= 0:
        reason = "right at every confidence"
    else:
        temperature = 1 / brentq(slope, 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE)
        return Calibration(kind="temperature", temperature=temperature, num_rows=len(labels))
    raise DataError(
        f"the judge was {reason} on the {len(labels)} labels, so no temperature between "
        f"{MIN_TEMPERATURE:g} and {MAX_TEMPERATURE:g} fits; use more labeled rows, or "
        "`--calibration-kind isotonic`"
    )


def _fit_isotonic(labels: Sequence[float], truths: Sequence[float]) -> Calibration:
    """Isotonic regression on the labels and their mirror images (Ayer et al. 1955).

    Of n labels that are all right, the next one is right with (n + 1) / (n + 2) (Laplace's rule):
    no level is surer than that, as a step of 0 or 1 would claim certainty.
    """
    from scipy.optimize import isotonic_regression

    mirrored = [round(p, DIGITS) for p in (*labels, *(1 - p for p in labels))]
    starts, step, counts = np.unique(mirrored, return_inverse=True, return_counts=True)
    means = np.bincount(step, weights=[*truths, *(1 - t for t in truths)]) / counts
    fitted = isotonic_regression(means, weights=counts).x.round(DIGITS)
    levels, first = np.unique(fitted, return_index=True)
    if len(levels) == 1:
        raise DataError(
            f"the judge was no better than chance on the {len(labels)} labels, so that every label "
            "would become 0.5; use more labeled rows, or another judge"
        )
    least = 1 / (len(labels) + 2)
    return Calibration(
        kind="isotonic",
        bounds=tuple(starts[first].tolist()),
        levels=tuple(levels.clip(least, 1 - least).tolist()),
        num_rows=len(labels),
    )


def _first_labels(verdicts: Sequence[Verdict]) -> tuple[list[float], list[float]]:
    """P(first) and whether first is better, as a recipe will apply the map."""
    pairs = [(v.label, v.chosen_first) for v in verdicts if v.label is not None]
    return [p if first else 1.0 - p for p, first in pairs], [float(first) for _, first in pairs]


def _brier_change(
    prompts: Sequence[str], before: Sequence[float], after: Sequence[float], draws: int, seed: int
) -> Estimate | None:
    sums: dict[str, list[float]] = {}
    for prompt, old, new in zip(prompts, before, after, strict=True):
        totals = sums.setdefault(prompt, [0.0, 0.0, 0.0])
        for column, value in enumerate(((1 - old) ** 2, (1 - new) ** 2, 1.0)):
            totals[column] += value
    old_sums, new_sums, counts = zip(*sums.values(), strict=True)
    return paired_change((old_sums, counts), (new_sums, counts), draws=draws, seed=seed)


def _check_size(num_fit: int, num_measure: int, what: str) -> None:
    if min(num_fit, num_measure) < MIN_ROWS:
        raise DataError(
            f"a calibration needs {MIN_ROWS} {what} in each half, and the halves have {num_fit} "
            f"and {num_measure}; use more labeled rows or another --seed"
        )
