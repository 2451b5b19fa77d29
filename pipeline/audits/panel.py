"""How many independent judges a panel is worth: judges that err together add little.

In:  the labels of each judge on the same comparisons
Out: a sentence with n / (1 + (n - 1) rho)
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np

from pipeline.audits.judge_audit import canary_folder
from pipeline.store.shards import stage_rows

Judged = Mapping[tuple[str, ...], float]
"""Of one judge: a number in [0, 1] by comparison."""
LEAST = 20
"""Comparisons without which a correlation says nothing."""


def effective_judges(number: int, correlation: float) -> float:
    """The number of independent judges whose mean varies as that of `number` judges.

    The mean of n judges of equal variance with mean pairwise correlation rho has the variance
    (1 + (n - 1) rho) / n of one judge's, the design effect of Kish (1965); so n / (1 + (n - 1)
    rho), here in [1, n], since a correlation below 0 counts as 0.
    """
    return number / (1 + (number - 1) * min(1.0, max(0.0, correlation)))


def mean_correlation(judges: Sequence[Judged]) -> tuple[float, int] | None:
    """Pearson's correlation, the mean over all pairs of judges, and the number of comparisons that
    all of them judged; None with fewer than `LEAST`, or where a judge never varies.
    """
    common = sorted(set.intersection(*(set(judge) for judge in judges)))
    values = np.array([[judge[key] for key in common] for judge in judges])
    if len(common) < LEAST or float(np.ptp(values, axis=1).min()) < 1e-9:
        return None
    table = np.corrcoef(values)
    pairs = combinations(range(len(judges)), 2)
    return fmean(float(table[one, other]) for one, other in pairs), len(common)


def panel_note(root: Path, folders: Sequence[str]) -> str:
    """What the panel of a run is worth, in a sentence; empty for one judge, and where too little is
    known.

    Errors on known answers come first: labels also agree because they are right.

    Args:
        folders: the stage folders of the judges' labels.

    Raises:
        StoreError: a shard is damaged.
    """
    if len(folders) < 2:
        return ""
    errors = mean_correlation([_errors(root, folder) for folder in folders])
    found = errors or mean_correlation([_labels(root, folder) for folder in folders])
    if found is None:
        return ""
    correlation, number = found
    what = f"errors on {number} known answers" if errors else f"labels of {number} comparisons"
    least = "" if errors else "; labels that agree because they are right count too, so it is more"
    return (
        f"the {len(folders)} judges of the panel are worth "
        f"{effective_judges(len(folders), correlation):.1f} independent ones: their {what} "
        f"correlate by {correlation:.2f}{least}"
    )


def _errors(root: Path, folder: str) -> Judged:
    """P(wrong side preferred) by shipped canary and principle."""
    return {
        (row.canary_id, row.principle_id): abs(row.expected - row.prob_first)
        for row in stage_rows(root, canary_folder(folder))
        if row.canary == "known" and row.status == "ok" and row.prob_first is not None
    }


def _labels(root: Path, folder: str) -> Judged:
    """Labels that the judge itself made: a check decides alike for all."""
    return {
        (row.comparison, row.first_id, row.second_id, row.principle_id): row.prob_first
        for row in stage_rows(root, folder)
        if row.status == "ok" and row.prob_first is not None and row.method != "check"
    }
