"""The audit in the report: every check, figures by principle, notes, and foreign words escaped."""

from pathlib import Path
from typing import Any

from pipeline.report import audit_markdown, write_report
from pipeline.report.audit import audit_findings, audit_verdict
from pipeline.report.source import Audit
from pipeline.store import write_json
from tests.evaluation.builders import make_run


def finding(name: str, status: str, value: float | None, scope: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "value": value,
        "low": None,
        "high": 0.1,
        "n": 40,
        "detail": "what it is",
        "examples": [],
        "interval": [0.2, 0.4] if value else None,
        "scope": scope,
    }


def audit(*findings: dict[str, Any], notes: tuple[str, ...] = ()) -> dict[str, Any]:
    figures = {"known": {"share": 0.9, "low": 0.8, "high": 1.0, "n": 32, "clusters": 32}}
    return {
        "passed": False,
        "notes": list(notes),
        "collapse": None,
        "judges": [
            {
                "folder": "preference/judge",
                "judge": "<b>model</b>",
                "fingerprint": "f",
                "judges_itself": bool(notes),
                "figures": {"": figures, "harm-01": figures},
                "findings": list(findings),
            }
        ],
    }


def read(content: dict[str, Any]) -> Audit:
    return Audit.model_validate(content)


def test_verdict_tells_failed_skipped_and_passed_apart() -> None:
    failed, skipped, passed = (
        finding("injected", "failed", 0.3),
        finding("known", "skipped", None),
        finding("order_disagreement", "passed", 0.05),
    )
    assert audit_verdict(read(audit(failed, skipped))) == (
        "Failed: injected of preference/judge. Nothing was exported."
    )
    assert audit_verdict(read(audit(passed, skipped))).startswith(
        "No check failed; 1 check had too few rows"
    )
    assert audit_verdict(read(audit(passed))) == "Every check passed."
    assert audit_verdict(Audit()) == ""


def test_principles_show_only_when_they_fail() -> None:
    content = audit(
        finding("order_disagreement", "passed", 0.05),
        finding("order_disagreement", "failed", 0.3, "harm-01"),
        finding("order_disagreement", "passed", 0.1, "harm-02"),
    )
    titles = [check.title for _, check in audit_findings(read(content))]
    assert titles == ["order_disagreement", "order_disagreement of harm-01"]


def test_report_has_the_audit(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    note = "the judge of preference/judge is the model that wrote the responses"
    write_json(
        run.root / "preference/audit.json", audit(finding("injected", "failed", 0.3), notes=(note,))
    )
    page = write_report(run).read_text()
    assert (
        'id="audit"' in page and "0.200 to 0.400" in page and note in page and "0.90 (32)" in page
    )
    assert "<b>model</b>" not in page
    text = (run.root / "report.md").read_text()
    assert "## Audit of labels and texts" in text and note in text
    assert "| injected | preference/judge | 0.300 | 0.200 to 0.400 | ≤ 0.1 | 40 | failed |" in text
    assert audit_markdown(run).startswith("## Audit of labels and texts\n\nFailed: injected")


def test_findings_about_texts_show_their_examples(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    phrase = finding("closing_phrase", "failed", 0.3) | {
        "interval": None,
        "examples": ["'<i>want to talk' in 12", "'hope that helps' in 3"],
    }
    content = audit(finding("order_disagreement", "passed", 0.05)) | {
        "collapse": {"subject": "chosen", "num_texts": 40, "num_prompts": 40, "findings": [phrase]}
    }
    write_json(run.root / "preference/audit.json", content)
    page = write_report(run).read_text()
    assert (
        "what it is; &#39;&lt;i&gt;want to talk&#39; in 12; &#39;hope that helps&#39; in 3" in page
    )
    text = audit_markdown(run)
    assert "Failed: closing_phrase of chosen texts. Nothing was exported." in text.replace("\\", "")
    assert "| failed | what it is; '&lt;i&gt;want to talk' in 12; 'hope that helps' in 3 |" in text


def test_audit_of_another_version_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_json(run.root / "preference/audit.json", {"judges": [{"folder": "preference/judge"}]})
    assert (
        "audit.json of another version was left out (judges.0.judge"
        in write_report(run).read_text()
    )
    assert audit_markdown(run) == ""


def test_run_without_audit_has_no_section(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert 'id="audit"' not in write_report(run).read_text() and audit_markdown(run) == ""
