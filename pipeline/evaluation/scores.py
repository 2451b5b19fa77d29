"""Scores of single responses: level, spread, parts, and how much they follow length.

In:  shards of preference/score, preference/score-2, ... and the texts that they rate
Out: the entry `scores` of metrics.json, one entry per judge; empty without scores

A score that rises with the number of words teaches length, whatever its name. So the correlation is
published with every run that uses scores: Pearson and Spearman, over all responses and within
prompts, since labels come from differences within a prompt. Within prompts, values (for Spearman
their ranks among the prompt's responses) are taken as deviations from the prompt's mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.results import LengthCorrelation, ScoreLevel, ScoreMetrics
from pipeline.evaluation.shard_columns import iter_shards, texts_by_id
from pipeline.labeling.follow_up_sets import load_follow_ups
from pipeline.store import RunDir
from pipeline.store.stage_names import PREFERENCE, SCORE, stage_folders

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
    """Part -> (index of the response, value)."""

    def level(self, values: Sequence[float], indices: Sequence[int]) -> ScoreLevel:
        """Level, spread and dependence on length of the values of these responses."""
        numbers, at = np.asarray(values, dtype=float), np.asarray(indices, dtype=int)
        prompts, words = np.asarray(self.prompts), np.asarray(self.words, dtype=float)
        return ScoreLevel(
            n=len(numbers),
            mean=float(numbers.mean()) if len(numbers) else None,
            spread=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
            length=length_correlation(numbers, words[at], prompts[at]),
        )


def measure_scores(run: RunDir, config: RunConfig) -> list[ScoreMetrics]:
    """Entries of `scores` in metrics.json, the first judge first."""
    follow_ups = _follow_ups(run, config)
    entries = []
    for folder in stage_folders(run.root, PREFERENCE, SCORE):
        scores = _read(run.root, folder)
        if not scores.rows:
            continue
        entries.append(
            ScoreMetrics(
                folder=folder,
                method=scores.method,
                rows=scores.rows,
                inexact=scores.inexact,
                mean_words=float(np.mean(scores.words)) if scores.words else None,
                parts={
                    name: scores.level([v for _, v in part], [i for i, _ in part])
                    for name, part in scores.parts.items()
                },
                **dict(scores.level(scores.scores, range(len(scores.scores)))),
                **follow_ups,
            )
        )
    return entries


def length_correlation(
    values: NDArray[np.float64], words: NDArray[np.float64], prompts: NDArray[np.str_]
) -> LengthCorrelation:
    """Pearson and Spearman of values with words, overall and within prompts, each in [-1, 1].

    None where values or words do not vary, or where no prompt has two responses.
    """
    groups = [np.flatnonzero(prompts == name) for name in dict.fromkeys(prompts.tolist())]
    pairs = [group for group in groups if len(group) > 1]
    inside = np.concatenate(pairs) if pairs else np.asarray([], dtype=int)

    def within(numbers: NDArray[np.float64], *, ranked: bool) -> NDArray[np.float64]:
        parts = [ranks(numbers[group]) if ranked else numbers[group] for group in pairs]
        return np.concatenate([part - part.mean() for part in parts]) if parts else numbers[inside]

    return LengthCorrelation(
        pearson=pearson(values, words),
        spearman=pearson(ranks(values), ranks(words)),
        pearson_within=pearson(within(values, ranked=False), within(words, ranked=False)),
        spearman_within=pearson(within(values, ranked=True), within(words, ranked=True)),
    )


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


def _read(root: Path, folder: str) -> Scores:
    scores = Scores()
    for manifest, rows in iter_shards(root, folder, COLUMNS):
        texts = texts_by_id(root, list(manifest.inputs))
        for row in rows:
            scores.rows += 1
            scores.method = row["method"]
            if row["status"] != "ok" or row["score"] is None:
                continue
            index = len(scores.scores)
            scores.inexact += not row["exact"]
            scores.prompts.append(row["prompt_id"])
            scores.words.append(len(texts[row["response_id"]].split()))
            scores.scores.append(row["score"])
            for part, value in zip(row["parts"], row["values"], strict=True):
                scores.parts.setdefault(part, []).append((index, value))
    return scores


def _follow_ups(run: RunDir, config: RunConfig) -> dict[str, Any]:
    """What the follow-up file of the run says about repeated sentences."""
    path = run.root / "labeling" / "follow_ups.yaml"
    if not path.exists():
        return {}
    try:
        follow_ups = load_follow_ups(path)
    except ConfigError:
        return {}
    return {
        "follow_ups": follow_ups.name,
        "repeated_sentences": follow_ups.num_repeated,
        "repeats_removed": config.preference.follow_up.deduplicate,
    }
