"""What the figures of an unfit judge point to."""

import re
from pathlib import Path

import pytest

from pipeline.audits.findings import AuditFinding, judged
from pipeline.audits.label_figures import FIGURES
from pipeline.audits.remedies import REMEDIES, remedies
from pipeline.config.audits import LabelAuditConfig
from pipeline.config.paths import PROJECT_ROOT
from tests.audits.test_bad_judges import refused

PAGE = (PROJECT_ROOT / "docs/audits.md").read_text(encoding="utf-8")


def finding(name: str, value: float, low: float, high: float) -> AuditFinding:
    """A check of the default thresholds; `checked` needs 0.75, `longer` at most 0.7."""
    bounds = FIGURES[name].bounds(LabelAuditConfig(min_checked=0.75, max_longer=0.7))
    return judged(name, value, bounds, 30, interval=(low, high))


def signs(*found: AuditFinding) -> list[str]:
    return [" ".join(remedy.sign.split()[:5]) for remedy in remedies(found)]


UNREADABLE = "the judge would rather write"
SLOT = "one slot wins, whatever is"
CHANCE = "the judge is near chance"


def test_small_real_model() -> None:
    """SmolLM2-135M-Instruct, as measured: prose instead of letters first, then slots, then chance;
    `slot_share` passed, because its interval reaches 0.8.
    """
    assert signs(
        finding("known", 0.370, 0.195, 0.588),
        finding("off_option", 1.0, 0.926, 1.0),
        finding("unparsed", 0.542, 0.403, 0.674),
        finding("order_disagreement", 0.909, 0.722, 0.975),
        finding("slot_share", 0.932, 0.751, 0.984),
    ) == [UNREADABLE, SLOT, CHANCE]


@pytest.mark.parametrize(
    "name, interval, sign",
    [
        ("known", (0.05, 0.3), "right less often"),
        ("known", (0.4, 0.6), "near chance"),
        ("checked", (0.45, 0.7), "near chance"),
        ("known", (0.55, 0.7), "better than chance"),
        ("slot_share", (0.9, 1.0), "one slot"),
        ("slot_share", (0.0, 0.1), "one slot"),
        ("identical", (0.3, 0.5), "one slot"),
        ("canary_unparsed", (0.2, 0.4), "something else"),
        ("padded", (0.6, 1.0), "length"),
        ("longer", (0.8, 1.0), "length"),
        ("injected", (0.7, 1.0), "obeys"),
        ("swapped", (0.2, 0.4), "two ways"),
    ],
)
def test_one_failed_check(name: str, interval: tuple[float, float], sign: str) -> None:
    (remedy,) = remedies([finding(name, sum(interval) / 2, *interval)])
    assert sign in remedy.sign


def test_unreadable_verdicts_explain_few_known_answers() -> None:
    """What could not be read counts as wrong, so that a share below one half says nothing."""
    found = (finding("known", 0.1, 0.05, 0.3), finding("unparsed", 0.9, 0.8, 1.0))
    assert signs(*found) == [UNREADABLE]


def test_passed_and_skipped_checks_point_to_nothing() -> None:
    assert remedies([finding("known", 0.9, 0.8, 1.0), finding("tie", 0.5, 0.4, 0.6)]) == ()


def test_every_check_has_a_way_out() -> None:
    """Whatever can fail is in the table and on the page, and the settings it names are real."""
    named = {name for remedy in REMEDIES for name in remedy.figures}
    config = LabelAuditConfig(min_checked=0.75, max_longer=0.7)
    assert named == {n for n, kind in FIGURES.items() if kind.bounds(config) != (None, None)}
    table = PAGE[PAGE.index("### Ways out") :]
    assert all(f"`{name}`" in table for name in named)


@pytest.mark.parametrize(
    "judge, way", [("always_a", "one slot wins"), ("prose", "than its letters")]
)
async def test_run_names_the_first_way_out(tmp_path: Path, judge: str, way: str) -> None:
    run, error = await refused(tmp_path, judge)
    assert way in str(error).lower() and "\n" not in str(error)
    report = run.report.with_suffix(".md").read_text()
    assert re.search(f"Way out: .*{way}", report, re.I) and way in run.report.read_text()
