"""The linter: one file with each fault, and the shipped files without errors."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.paths import PROJECT_ROOT
from pipeline.constitution import load_constitution
from pipeline.constitution.lint import Finding, lint_constitution
from pipeline.errors import ConfigError
from tests.constitution.builders import BREVITY, HONESTY, KINDNESS, write_constitution


def lint(tmp_path: Path, *principles: dict[str, Any]) -> list[Finding]:
    path = write_constitution(tmp_path / "c.yaml", *principles)
    return list(lint_constitution(path).findings)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.code, f.principle_id) for f in findings]


def test_sound_constitution_has_no_finding(tmp_path: Path) -> None:
    assert lint(tmp_path, HONESTY, KINDNESS, BREVITY) == []


def test_shipped_constitutions_have_no_errors() -> None:
    paths = sorted((PROJECT_ROOT / "constitutions").glob("*.yaml"))
    assert paths
    for path in paths:
        report = lint_constitution(path)
        assert report.num_errors == 0, report.findings
        assert report.num_principles == len(load_constitution(path).principles)


def test_missing_and_empty_requests_are_errors(tmp_path: Path) -> None:
    """`name`, `principles`, then 6 lines for honesty without its comparison: 3 to 7."""
    lacking = {key: value for key, value in HONESTY.items() if key != "comparison_request"}
    findings = lint(tmp_path, lacking, {**KINDNESS, "revision_request": "  "})
    assert codes(findings) == [("missing", "honesty"), ("empty", "kindness")]
    assert [f.severity for f in findings] == ["error", "error"]
    assert findings[0].line == 3
    text = (tmp_path / "c.yaml").read_text(encoding="utf-8").splitlines()
    assert "revision_request" in text[(findings[1].line or 0) - 1]


def test_same_words_are_duplicates(tmp_path: Path) -> None:
    copy = {
        **HONESTY,
        "id": "truth",
        "critique_request": "name FALSE statements in your last response",
    }
    (finding,) = lint(tmp_path, HONESTY, KINDNESS, copy)
    assert (finding.code, finding.principle_id, finding.severity) == (
        "duplicate",
        "truth",
        "warning",
    )
    assert "the same words as honesty" in finding.problem


def test_shared_comparison_is_a_duplicate(tmp_path: Path) -> None:
    """Other critiques, same labels."""
    (finding,) = lint(
        tmp_path, HONESTY, {**KINDNESS, "comparison_request": HONESTY["comparison_request"]}
    )
    assert (
        finding.code == "duplicate" and "comparison_request has the same words" in finding.problem
    )


def test_near_duplicates_name_the_pair(tmp_path: Path) -> None:
    """Pairs: in-your, your-last, ... one word of the critique differs."""
    copy = {
        **HONESTY,
        "id": "truth",
        "critique_request": "Name false claims in your last response.",
        "comparison_request": "Which response is less dishonest?",
    }
    (finding,) = lint(tmp_path, HONESTY, copy)
    assert finding.code == "near-duplicate" and "with honesty" in finding.problem


def test_requests_without_direction_are_named(tmp_path: Path) -> None:
    findings = lint(
        tmp_path,
        {**HONESTY, "comparison_request": "Compare the responses for honesty."},
        {**KINDNESS, "revision_request": "Please rewrite the response."},
    )
    assert codes(findings) == [("no-direction", "honesty"), ("no-quality", "kindness")]
    assert "comparison_request names no direction" in findings[0].problem
    assert "revision_request names no quality" in findings[1].problem


def test_two_questions_are_named(tmp_path: Path) -> None:
    (finding,) = lint(
        tmp_path, {**HONESTY, "comparison_request": "Which is more honest, and which is kinder?"}
    )
    assert (finding.code, finding.action) == (
        "several-questions",
        "split it into several principles",
    )


def test_long_requests_are_named(tmp_path: Path) -> None:
    long = {**HONESTY, "critique_request": "Name false statements. " * 31}
    (finding,) = lint(tmp_path, long)
    assert (finding.code, finding.problem) == ("too-long", "the critique_request has 93 words")


def test_text_that_a_comment_cuts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: c\nprinciples:\n"
        "- id: one\n"
        "  critique_request: Name each mention of issue # 5 in the response.\n"
        "  revision_request: Rewrite the response without C#.  # as it was\n"
        "  comparison_request: Which response names fewer issues\n    of team # 7 and is shorter?\n"
        "  rationale: 'Readers know issue # 5'  # they do\n"
        "- id: two\n"
        "  critique_request: Name what is unkind.\n"
        "  revision_request: Make it kind\n"
        "  comparison_request: |\n    Which response is kinder to # 9\n"
    )
    findings = [f for f in lint_constitution(path).findings if f.code == "cut"]
    assert [f.line for f in findings] == [4, 6]
    assert (
        findings[0].problem
        == "the critique_request ends with 'issue', before '# 5 in the response.'"
    )
    assert findings[1].problem.endswith("ends with 'team', before '# 7 and is shorter?'")


def test_misspelled_tag_is_named(tmp_path: Path) -> None:
    rare = lint(tmp_path, KINDNESS, BREVITY, {**HONESTY, "tags": ["tones"]})
    assert [(f.code, f.action) for f in rare] == [("unknown-tag", "write 'tone'")]


def test_loader_faults_are_findings_too(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, {**HONESTY, "wieght": 2})
    assert (finding.code, finding.severity) == ("schema", "error")
    assert finding.action == "did you mean 'weight'?"
    assert finding.line is not None
    twice = lint(tmp_path, HONESTY, {**KINDNESS, "id": "honesty"})
    assert codes(twice) == [("duplicate-id", "honesty")]


def test_linted_errors_are_load_errors(tmp_path: Path) -> None:
    """A file loads exactly when the linter reports no error."""
    for principles in (
        (HONESTY,),
        ({**HONESTY, "weight": 0},),
        ({**HONESTY, "id": "a b"},),
        (KINDNESS, KINDNESS),
        ({**HONESTY, "critique_request": None},),
        (),
        ({**HONESTY, "tags": 3},),
        ("no mapping",),
    ):
        path = write_constitution(tmp_path / "c.yaml", *principles)
        try:
            load_constitution(path)
            loads = True
        except ConfigError:
            loads = False
        assert loads == (lint_constitution(path).num_errors == 0), yaml.safe_dump(principles)


def test_report_prints_file_line_and_remedy(tmp_path: Path) -> None:
    path = write_constitution(
        tmp_path / "c.yaml", {**HONESTY, "comparison_request": "Compare honesty."}
    )
    (finding,) = lint_constitution(path).findings
    assert finding.text("c.yaml") == (
        "c.yaml, line 6: warning [no-direction] honesty: the comparison_request names no direction "
        "('Compare honesty.'); the judge must know which of two responses is better; ask 'Which "
        "response is more ...?'"
    )


def test_unreadable_file_stops(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        lint_constitution(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line \d"):
        lint_constitution(tmp_path / "c.yaml")


def test_conflicts_that_cannot_be_resolved_are_errors(tmp_path: Path) -> None:
    findings = lint(
        tmp_path,
        {**HONESTY, "conflicts": ["honesty", "kindnes"], "priority": 1},
        {**KINDNESS, "conflicts": ["brevity"]},
        BREVITY,
    )
    assert codes(findings) == [
        ("conflict", "honesty"),
        ("conflict", "honesty"),
        ("conflict", "kindness"),
    ]
    own, unknown, equal = findings
    assert "name the principle itself" in own.problem
    assert "'kindnes', which is not a principle here" in unknown.problem
    assert unknown.action == "write 'kindness'"
    assert "the same priority, 0" in equal.problem and equal.severity == "error"
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="conflicts of 'honesty' name the principle itself"):
        load_constitution(path)
    resolved = {**HONESTY, "conflicts": ["kindness"], "priority": 1}
    assert lint(tmp_path, resolved, KINDNESS, BREVITY) == []


def test_priority_without_a_conflict_decides_nothing(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, {**HONESTY, "priority": 3}, KINDNESS, BREVITY)
    assert codes([finding]) == [("idle-priority", "honesty")] and finding.severity == "warning"


def test_long_rationale_is_read_for_each_label(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, {**HONESTY, "rationale": "because " * 301}, KINDNESS, BREVITY)
    assert finding.code == "too-long" and "rationale has 301 words" in finding.problem
