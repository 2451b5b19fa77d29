"""Scores of single responses: level, spread, parts, and how much they follow length.

In:  shards of preference/score, preference/score-2, ... and the texts that they rate
Out: the entry `scores` of metrics.json, one entry per judge; empty without scores

A score that rises with the number of words teaches length, whatever its name. So the correlation is
published with every run that uses scores: Pearson and Spearman, over all responses and within
prompts, since labels come from differences within a prompt. Within prompts, values (for Spearman
their ranks among the prompt's responses) are taken as deviations from the prompt's mean.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.shard_columns import iter_shards, score_folders, texts_by_id
from pipeline.labeling.follow_up_sets import load_follow_ups
from pipeline.store import RunDir

COLUMNS = ("prompt_id", "status", "method", "response_id", "parts", "values", "score", "exact")
_SAME = 1e-12


@dataclass
class Scores:
    """Readable scores of one judge, in the order of the rows."""

    method: str = ""
    rows: int = 0
    """All rows, unreadable ones included."""
    inexact: int = 0
    prompts: list[str] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    parts: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Part -> (number of the response, value)."""

    def summary(self) -> dict[str, Any]:
        """The entry of metrics.json."""
        prompts, words = np.asarray(self.prompts), np.asarray(self.words, dtype=float)
        parts = {}
        for name, found in self.parts.items():
            at = np.asarray([number for number, _ in found])
            values = np.asarray([value for _, value in found])
            parts[name] = {
                **_level(values),
                "length": length_correlation(values, words[at], prompts[at]),
            }
        scores = np.asarray(self.scores, dtype=float)
        return {
            "method": self.method,
            "rows": self.rows,
            "inexact": self.inexact,
            **_level(scores),
            "mean_words": float(words.mean()) if len(words) else None,
            "length": length_correlation(scores, words, prompts),
            "parts": parts,
        }


def measure_scores(run: RunDir, config: RunConfig) -> list[dict[str, Any]]:
    """Entries of `scores` in metrics.json, the first judge first."""
    found = [
        {"folder": folder, **_read(run.root, folder).summary(), **_follow_ups(run, config)}
        for folder in score_folders(run.root)
    ]
    return [entry for entry in found if entry["rows"]]


def length_correlation(
    values: NDArray[np.float64], words: NDArray[np.float64], prompts: NDArray[Any]
) -> dict[str, float | None]:
    """Pearson and Spearman of values with words, overall and within prompts, each in [-1, 1].

    None where values or words do not vary, or where no prompt has two responses.
    """
    groups = [np.flatnonzero(prompts == name) for name in dict.fromkeys(prompts.tolist())]
    pairs = [group for group in groups if len(group) > 1]
    inside = np.concatenate(pairs) if pairs else np.asarray([], dtype=int)

    def within(numbers: NDArray[np.float64], *, ranked: bool) -> NDArray[np.float64]:
        parts = [ranks(numbers[group]) if ranked else numbers[group] for group in pairs]
        return np.concatenate([part - part.mean() for part in parts]) if parts else numbers[inside]

    return {
        "pearson": pearson(values, words),
        "spearman": pearson(ranks(values), ranks(words)),
        "pearson_within": pearson(within(values, ranked=False), within(words, ranked=False)),
        "spearman_within": pearson(within(values, ranked=True), within(words, ranked=True)),
    }


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Sum (x - mx)(y - my) / sqrt(sum (x - mx)^2 sum (y - my)^2); None without any variation."""
    if len(first) < 2:
        return None
    x, y = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / spread)) if spread > _SAME else None


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, kind, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: NDArray[np.float64] = last - (counts - 1) / 2
    return middle[kind]


def _level(values: NDArray[np.float64]) -> dict[str, Any]:
    """Number, mean and standard deviation (of the sample: n - 1)."""
    return {
        "n": len(values),
        "mean": float(values.mean()) if len(values) else None,
        "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def _read(root: Path, folder: str) -> Scores:
    found = Scores()
    for manifest, rows in iter_shards(root, folder, COLUMNS):
        texts = texts_by_id(root, list(manifest.inputs))
        for row in rows:
            found.rows += 1
            found.method = row["method"]
            if row["status"] != "ok" or row["score"] is None:
                continue
            number = len(found.scores)
            found.inexact += not row["exact"]
            found.prompts.append(row["prompt_id"])
            found.words.append(len(texts[row["response_id"]].split()))
            found.scores.append(row["score"])
            for part, value in zip(row["parts"], row["values"], strict=True):
                found.parts.setdefault(part, []).append((number, value))
    return found


def _follow_ups(run: RunDir, config: RunConfig) -> dict[str, Any]:
    """What the follow-up file of the run says about repeated sentences."""
    if config.preference.labeler != "follow_up":
        return {}
    try:
        follow_ups = load_follow_ups(run.root / "labeling" / "follow_ups.yaml")
    except ConfigError:
        return {}
    return {
        "follow_ups": follow_ups.name,
        "repeated_sentences": follow_ups.num_repeated,
        "repeats_removed": config.preference.follow_up.deduplicate,
    }
