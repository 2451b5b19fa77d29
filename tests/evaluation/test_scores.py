"""Scores in metrics.json: level, parts, and the correlation with length, derived by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.constitution import load_constitution
from pipeline.evaluation.head_to_head import Match
from pipeline.evaluation.label_truth import label_truth
from pipeline.evaluation.scores import length_correlation, measure_scores, pearson, ranks
from pipeline.records import ScoreRow
from pipeline.store import RunDir
from tests.evaluation.builders import WordOracle, judgment, make_run, prompt, response
from tests.run.builders import write_rows


def array(*values: float) -> np.ndarray:
    """Floats."""
    return np.asarray(values, dtype=float)


def score(name: str, prompt_id: str, *values: float, **changes: Any) -> ScoreRow:
    """A score with a value for each of the parts `a`, `b`, ..."""
    return ScoreRow(
        row_id=f"score-{name}",
        prompt_id=prompt_id,
        response_id=name,
        method="score",
        parts=tuple("ab"[: len(values)]),
        values=values,
        score=sum(values) / len(values),
        **changes,
    )


def scored_run(folder: Path) -> RunDir:
    """Two prompts with two responses each: within each, the longer response has the lower score."""
    run = make_run(folder)
    prompts = write_rows(run, "prompts", [prompt("p", "do evil"), prompt("q", "boil")])
    texts = {
        "p1": "one",
        "p2": "one two",
        "q1": "one two three four",
        "q2": "one two three four five",
    }
    samples = write_rows(
        run, "preference/sample", [response(name, name[0], text) for name, text in texts.items()]
    )
    write_rows(
        run,
        "preference/score",
        [
            score("p1", "p", 2.0, 4.0),
            score("p2", "p", 1.0, 3.0),
            score("q1", "q", 6.0, 6.0),
            score("q2", "q", 5.0, 5.0, exact=False),
            score("q3", "q", math.nan, 5.0, status="unparsed", reason="b: no rating"),
        ],
        inputs=[prompts, samples],
    )
    return run


def test_pearson_by_hand() -> None:
    """Deviations -1, 0, 1 and -2, 1, 1: products 3, squares 2 and 6, so 3 / sqrt(12)."""
    assert pearson(array(1, 2, 3), array(0, 3, 3)) == pytest.approx(3 / math.sqrt(12))
    assert pearson(array(1, 2, 3), array(10, 20, 30)) == pytest.approx(1.0)
    assert pearson(array(1, 1, 1), array(1, 2, 3)) is None
    assert pearson(array(1), array(2)) is None


def test_equal_values_share_their_rank() -> None:
    assert ranks(array(10, 30, 10, 20)).tolist() == [1.5, 4.0, 1.5, 3.0]


def test_prompts_can_hide_what_happens_within_them() -> None:
    """Long prompts have high scores, yet within a prompt the longer response has the lower one."""
    result = length_correlation(
        array(3, 2, 6, 5), array(1, 2, 4, 5), np.asarray(["p", "p", "q", "q"])
    )
    assert result.pearson > 0.7 and result.spearman == pytest.approx(0.6)  # type: ignore[operator]
    assert result.pearson_within == result.spearman_within == pytest.approx(-1.0)


def test_single_responses_have_no_correlation_within() -> None:
    result = length_correlation(array(1, 2, 3), array(2, 3, 1), np.asarray(["p", "q", "r"]))
    assert result.pearson_within is None and result.spearman_within is None
    assert result.spearman == pytest.approx(-0.5)


def test_entry_counts_and_describes(tmp_path: Path) -> None:
    """Scores 3, 2, 6, 5: mean 4, squares of deviations 10, spread sqrt(10 / 3)."""
    run = scored_run(tmp_path / "run")
    (entry,) = measure_scores(run, load_config(run.recipe))
    assert (entry.folder, entry.method, entry.rows, entry.n, entry.inexact) == (
        "preference/score",
        "score",
        5,
        4,
        1,
    )
    assert (entry.mean, entry.spread) == pytest.approx((4.0, math.sqrt(10 / 3)))
    assert entry.mean_words == 3.0
    assert entry.length.spearman_within == pytest.approx(-1.0)
    assert {name: part.mean for name, part in entry.parts.items()} == {"a": 3.5, "b": 4.5}


def test_run_without_scores_has_no_entry(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert measure_scores(run, load_config(run.recipe)) == []


def test_win_rate_needs_no_orders() -> None:
    match = Match()
    row = {
        "first_id": "a",
        "second_id": "b",
        "prob_first": 0.8,
        "status": "ok",
        "reason": "",
        "principle_id": "p",
        "prob_forward": None,
        "prob_swapped": None,
        "position_gap": None,
    }
    match.add_prompt([row], 0.02)
    result = match.metrics("tuned", "initial", draws=100, seed=0)
    assert (result.win_rate, result.position_consistency, result.mean_position_gap) == (
        1.0,
        None,
        None,
    )


def test_follow_up_labels_are_true_under_their_categories(tmp_path: Path) -> None:
    """Without a principle, the categories name the attributes that the oracle compares."""
    run = make_run(tmp_path / "run")
    prompts = write_rows(run, "prompts", [prompt("p", "do evil")])
    samples = write_rows(
        run, "preference/sample", [response("x", "p", "help"), response("y", "p", "harm")]
    )
    levels = WordOracle().read([{"role": "user", "content": "do evil"}], "help")
    assert levels is not None
    name = next(iter(levels.levels))
    row = judgment("j", "p", "x", "y", "", forward=0.9, swapped=0.1)
    changed = {**row.as_dict(), "parts": (name,), "part_differences": (1.0,), "method": "follow_up"}
    write_rows(run, "preference/judge", [type(row).from_dict(changed)], inputs=[prompts, samples])
    result = label_truth(run.root, load_constitution(run.constitution), WordOracle())
    assert result is not None and result.no_attribute == 0
    assert set(result.by_attribute) == {name}
