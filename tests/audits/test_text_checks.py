"""The audit as a whole: positive controls that must fire, and clean data that must pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from pipeline.audits.findings import AuditReport
from pipeline.audits.text_checks import CHECKS, audit_pairs
from pipeline.config.audits import CollapseConfig
from tests.audits.builders import finding_of, injected, make_pairs, make_prompt, make_texts

CLOSING = "I am always here to listen if you want to talk."
REFUSAL = "I'm sorry, but I can't help with that."


def failed(report: AuditReport) -> list[str]:
    return [finding.name for finding in report.failed]


def test_clean_data_passes_every_check() -> None:
    report = audit_pairs(make_pairs(make_texts(200)))
    assert report.passed and report.num_prompts == 200
    assert {f.name: f.status for f in report.findings} == {
        **dict.fromkeys(CHECKS, "passed"),
        "tag_coverage": "skipped",
    }


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_injected_closing_phrase_fires(share: float) -> None:
    """The value is the injected share itself: random texts share no five words."""
    report = audit_pairs(make_pairs(injected(make_texts(200), CLOSING, share)))
    finding = finding_of(report, "closing_phrase")
    assert (finding.status, finding.value) == ("failed", share)
    assert "listen" in finding.examples[0] or "want to talk" in finding.examples[0]


def test_disguised_closing_phrase_fires() -> None:
    """Case, punctuation and an emoji after it change nothing."""
    texts = make_texts(200)
    shouted = injected(texts, CLOSING.upper().replace(" ", "  ") + " \U0001f60a", 0.05)
    report = audit_pairs(make_pairs(shouted))
    assert finding_of(report, "closing_phrase").value == 0.05
    assert finding_of(report, "emoji").value == 0.05


def test_rare_phrase_stays_below() -> None:
    """Three of 100 prompts: 3 % is under the threshold of 4 %."""
    assert audit_pairs(make_pairs(injected(make_texts(100), CLOSING, 0.03))).passed


def test_two_repeats_never_fail() -> None:
    """2 of 20 prompts are 10 %, but two equal endings prove nothing."""
    report = audit_pairs(make_pairs(injected(make_texts(20), CLOSING, 0.1)))
    finding = finding_of(report, "closing_phrase")
    assert (finding.status, finding.value, finding.examples) == ("passed", 0.1, ())


def test_samples_of_one_prompt_count_once() -> None:
    """17 samples of one prompt with the closing are one prompt of 41."""
    closings = make_pairs([f"{text} {CLOSING}" for text in make_texts(17, seed=2)])
    rows = make_pairs(make_texts(40)) + [replace(row, prompt_id="q") for row in closings]
    assert finding_of(audit_pairs(rows), "closing_phrase").value == pytest.approx(1 / 41)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("tail_entropy", lambda t: injected(t, CLOSING, 0.2)),
        ("common_ngram", lambda t: [f"{CLOSING} {x}" for x in t[:40]] + list(t[40:])),
        ("emoji", lambda t: injected(t, "\U0001f60a", 0.06)),
        ("boilerplate", lambda t: injected(t, "Hope this helps!", 0.3)),
        ("loops", lambda t: injected(t, "very " * 9, 0.02)),
        ("distinct_pairs", lambda t: ["ba do " * 3 + x[:30] for x in t]),
        ("near_duplicates", lambda t: [f"{t[0]} {x.split()[0]}" for x in t[:12]] + list(t[12:])),
        ("evasive", lambda t: [REFUSAL] * 42 + list(t[42:])),
        ("evasive_lift", lambda t: [REFUSAL] * 22 + list(t[22:])),
        (
            "length_ratio",
            lambda t: [x + " " + y for x, y in zip(t, make_texts(200, seed=3), strict=True)],
        ),
        ("longer_share", lambda t: injected(t, "and more", 0.45)),
    ],
)
def test_every_check_has_a_control(name: str, spoil: Callable[[Sequence[str]], list[str]]) -> None:
    clean = make_texts(200)
    assert name not in failed(audit_pairs(make_pairs(clean)))
    assert name in failed(audit_pairs(make_pairs(spoil(clean))))


def test_length_figures_by_hand() -> None:
    """Chosen 30 + 2 words in 90 of 200 pairs, rejected 30: longer 0.45, tied 0.55: 0.725.
    Mean words 30.9 to 30: 1.03.
    """
    report = audit_pairs(make_pairs(injected(make_texts(200), "and more", 0.45)))
    assert finding_of(report, "longer_share").value == pytest.approx(0.725)
    assert finding_of(report, "length_ratio").value == pytest.approx(1.03)


def test_evasion_needs_refusal_and_brevity() -> None:
    long = REFUSAL + " " + make_texts(1)[0]
    texts = [REFUSAL] * 10 + [long] * 10 + make_texts(20)
    assert finding_of(audit_pairs(make_pairs(texts)), "evasive").value == 0.25


def test_lost_tag_is_named() -> None:
    """10 of 10 law prompts and 2 of 10 health prompts are left: 0.2 / 0.6 = 0.333."""
    prompts = [make_prompt(i, "law") for i in range(10)] + [
        make_prompt(i, "health") for i in range(10, 20)
    ]
    finding = finding_of(audit_pairs(make_pairs(make_texts(12)), prompts=prompts), "tag_coverage")
    assert finding.status == "failed" and finding.value == pytest.approx(1 / 3)
    assert finding.examples == ("health: 2 of 10", "law: 10 of 10")


def test_rare_tags_are_not_judged() -> None:
    prompts = [make_prompt(i, *(("rare",) if i > 36 else ())) for i in range(40)]
    report = audit_pairs(make_pairs(make_texts(30)), prompts=prompts)
    assert finding_of(report, "tag_coverage").status == "skipped"


def test_small_data_is_skipped_not_passed() -> None:
    report = audit_pairs(make_pairs(["same text all over again"] * 19))
    assert {f.status for f in report.findings} == {"skipped"}
    assert "19 prompts, and at least 20 are needed" in report.describe()


def test_dropped_rows_are_not_audited() -> None:
    rows = make_pairs(injected(make_texts(200), CLOSING, 0.2))
    dropped = [replace(r, status="dropped") if i < 40 else r for i, r in enumerate(rows)]
    assert audit_pairs(dropped).passed and audit_pairs(dropped).num_texts == 160


def test_check_can_be_switched_off() -> None:
    config = CollapseConfig(max_closing_share=None, length_ratio=None)
    names = [f.name for f in audit_pairs(make_pairs(make_texts(30)), config=config).findings]
    assert "closing_phrase" not in names and "length_ratio" not in names
    assert "tail_entropy" in names


def test_report_names_what_failed() -> None:
    report = audit_pairs(make_pairs(injected(make_texts(200), CLOSING, 0.05)))
    assert [finding.name for finding in report.failed] == ["closing_phrase"]
    assert "failed   closing_phrase: 0.050, max 0.04, n 200" in report.describe()
    assert report.as_dict()["passed"] is False
    assert report.as_dict()["findings"][0]["name"] == "closing_phrase"


def test_thresholds_are_checked() -> None:
    with pytest.raises(ValueError, match="the lower one first"):
        CollapseConfig(length_ratio=(2.0, 1.0))
    with pytest.raises(ValueError, match="greater than or equal to 5"):
        CollapseConfig(closing_window=4)
