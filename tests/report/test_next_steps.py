"""The verdict and the steps follow from the figures: audit before gate, each with its command."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.next_steps import next_steps, verdict
from pipeline.report.policy_charts import frontier, frontier_chart
from pipeline.report.source import read_run
from pipeline.store import RunDir, write_json
from tests.evaluation.builders import make_run
from tests.report.synthetic import add_preference, finished_run
from tests.report.test_audit import audit, finding


def with_gate(run: RunDir, decision: str) -> RunDir:
    """The run after a gate of one rule."""
    metrics = json.loads(run.metrics.read_text())
    holds = decision == "promoted"
    rule = {"rule": "max_empty", "holds": holds, "value": 0.2, "needed": 0.1, "text": "empty 20 %"}
    metrics["gate"] = {"decision": decision, "policy": "tuned", "findings": [rule]}
    write_json(run.metrics, metrics)
    return run


def told(run: RunDir) -> tuple[str, list[tuple[str, str]]]:
    data = read_run(run)
    return verdict(data).word, [(step.text, step.command) for step in next_steps(data)]


def test_stopped_run_is_continued(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", status="started")
    add_preference(run, {"a": "help", "b": "harm", "c": "fine"})
    word, steps = told(run)
    assert word == "Not finished"
    assert steps == [
        ("Continue the run; finished work is kept.", "rlaif resume run"),
        ("33\u00a0% of verdicts could not be read.", "rlaif why run"),
        ("Let people label a sample, to measure the judge.", "rlaif review run"),
    ]


def test_failed_audit_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    content = audit(finding("injected", "failed", 0.3))
    write_json(run.root / "preference/audit.json", content)
    word, steps = told(run)
    assert word == "Labels failed their audit"
    ((text, command),) = steps
    assert "leave `judge.defend` on" in text and command == "rlaif audit run"


@pytest.mark.parametrize(
    ("decision", "word", "step"),
    [
        ("promoted", "Promoted", []),
        ("candidate", "Candidate", [("The gate asks for more: empty 20 %.", "")]),
    ],
)
def test_gate_decides_the_verdict(
    tmp_path: Path, decision: str, word: str, step: list[Any]
) -> None:
    run = with_gate(finished_run(tmp_path / "run"), decision)
    verdict_word, steps = told(run)
    assert verdict_word == word
    assert [s for s in steps if "gate" in s[0]] == step


def test_run_without_gate_is_told_so(tmp_path: Path) -> None:
    word, steps = told(finished_run(tmp_path / "run"))
    assert word == "Finished, without a gate"
    assert any("evaluation.gate" in text for text, _ in steps)


def test_points_have_the_axes_that_were_measured(tmp_path: Path) -> None:
    """With an oracle two shares; without one the win rate, in which the initial policy is at 0.5,
    against words: one word before and one after.
    """
    known = frontier(read_run(finished_run(tmp_path / "known")))
    assert known and [(p.x[0], p.y[0]) for p in known.points] == [(0.0, 0.5), (1.0, 1.0)]
    plain = frontier(read_run(finished_run(tmp_path / "plain", oracle=False)))
    assert plain and plain.x_name == "words per reply"
    assert [(p.policy, p.x[0], p.y[0]) for p in plain.points] == [
        ("initial", 1.0, 0.5),
        ("tuned", 1.0, 1.0),
    ]
    assert frontier_chart(plain).count("<circle") == 2
    assert frontier(read_run(make_run(tmp_path / "none"))) is None and frontier_chart(None) == ""
