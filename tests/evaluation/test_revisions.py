"""Revisions counted by hand: faults, rejected ones, and how often the judge prefers them."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.evaluation.results import RevisionMetrics
from pipeline.evaluation.revisions import measure_revisions
from pipeline.records import RevisionRow
from pipeline.report import write_report
from pipeline.store import RunDir
from tests.evaluation.builders import critique, judgment, known, make_run, response, revision
from tests.run.builders import write_rows


def write_revisions(run: RunDir) -> None:
    """Four prompts, one revision each: good, skipped, rejected, and good with a fault."""
    rows: list[RevisionRow] = []
    for number in range(4):
        source = critique(
            f"said{number}", f"p{number}", f"r{number}", "rude", "harm" if number % 2 else "tone"
        )
        rows.append(revision(f"v{number}", source, "better"))
    rows[1] = replace(rows[1], skipped=True)
    rows[2] = replace(
        rows[2], status="dropped", reason="not a revision: meta", faults=("meta", "evasion")
    )
    rows[3] = replace(rows[3], faults=("evasion",))
    write_rows(run, "supervised/sample", [response(f"r{n}", f"p{n}", "text") for n in range(4)])
    write_rows(run, "supervised/revise-1", rows)


def write_labels(run: RunDir) -> None:
    """Won at 0.9, unchanged, parent dropped, lost at 0.2."""
    write_rows(
        run,
        "supervised/efficacy-1",
        [
            judgment(
                "e0", "p0", "v0", "r0", "tone", forward=0.9, swapped=0.1, comparison="efficacy"
            ),
            judgment("e1", "p1", "v1", "r1", status="dropped", reason="identical responses"),
            judgment(
                "e2", "p2", "v2", "r2", "tone", status="dropped", reason="a response is dropped"
            ),
            judgment(
                "e3", "p3", "v3", "r3", "harm", forward=0.2, swapped=0.8, comparison="efficacy"
            ),
        ],
    )


def test_faults_are_counted_by_round(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_revisions(run)
    (entry,) = measure_revisions(run.root, 0.02, draws=100, seed=0)
    assert entry == RevisionMetrics(
        round=1,
        rows=4,
        ok=3,
        skipped=1,
        rejected=1,
        faults={"evasion": 2, "meta": 1},
        efficacy=None,
    )


def test_efficacy_leaves_unchanged_texts_out(tmp_path: Path) -> None:
    """One revision won and one lost: half are preferred, the mean label is (0.9 + 0.2) / 2."""
    run = make_run(tmp_path)
    write_revisions(run)
    write_labels(run)
    (entry,) = measure_revisions(run.root, 0.02, draws=100, seed=0)
    efficacy = known(entry.efficacy)
    preferred = known(efficacy.preferred)
    assert preferred.share == 0.5 and preferred.n == 2
    assert preferred.low < 0.2 and preferred.high > 0.8
    assert known(efficacy.prob_preferred).share == pytest.approx(0.55)
    assert (efficacy.unchanged, efficacy.unparsed) == (1, 0)
    wins = {name: known(part.preferred).share for name, part in efficacy.by_principle.items()}
    assert wins == {"harm": 0.0, "tone": 1.0}


def test_report_shows_the_revisions(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_revisions(run)
    write_labels(run)
    page = write_report(run).read_text()
    assert 'id="revisions"' in page and "evasion 2, meta 1" in page
    text = (run.root / "report.md").read_text()
    assert "## Revisions" in text and "| tone | 1 |" in text


def test_run_without_revisions_has_no_section(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert measure_revisions(run.root, 0.02, draws=100, seed=0) == []
    assert 'id="revisions"' not in write_report(run).read_text()
