"""What the two sides of pairs differ in, on shards whose shares can be added up by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.labeling.contrast import PairContrast, PairSource, measure_contrast
from tests.evaluation.builders import judgment as labeled
from tests.evaluation.builders import known, make_run, pair, prompt, response
from tests.run.builders import write_rows

TEXTS = {"a": "one two three", "b": "one two", "c": "four five", "r": "one two three four"}


def contrast_of_labels(tmp_path: Path) -> PairContrast | None:
    """Five comparisons of three samples and a revision, with known lengths."""
    run = make_run(tmp_path / "run")
    prompts = write_rows(run, "prompts", [prompt("p", "q")])
    rows = {name: response(name, "p", text) for name, text in TEXTS.items()}
    samples = write_rows(run, "preference/sample", [rows[name] for name in "abc"])
    revised = write_rows(run, "supervised/sample", [rows["r"]])
    labels = [
        labeled("j1", "p", "a", "b"),  # the longer one, kept
        labeled("j2", "p", "a", "b", forward=0.2, swapped=0.8),  # the shorter one, dropped
        labeled("j3", "p", "b", "c"),  # equally long, kept
        labeled("j4", "p", "a", "c", forward=0.51, swapped=0.49),  # undecided, dropped
        labeled("j5", "p", "r", "a", comparison="revision_vs_initial", method="score"),  # kept
        labeled("j6", "p", "r", "b", status="unparsed"),
    ]
    judge = write_rows(run, "preference/judge", labels, inputs=[prompts, samples])
    reasons = ("", "two", "", "tie", "", "judgment unparsed")
    pairs = [pair(f"of {j.row_id}", j, TEXTS, r) for j, r in zip(labels, reasons, strict=True)]
    write_rows(run, "preference/pair", pairs, inputs=[prompts, samples, revised, judge])
    return measure_contrast(run.root, tie_width=0.02)


def test_shares_of_longer_and_of_each_origin(tmp_path: Path) -> None:
    """Labeled: 1 + 0 + 0.5 + 0.5 + 1 = 3 of 5. Kept: 1 + 0.5 + 1 = 2.5 of 3."""
    contrast = known(contrast_of_labels(tmp_path))
    assert (contrast.labeled, contrast.kept) == (5, 3)
    assert contrast.longer_labeled == pytest.approx(0.6)
    assert contrast.longer_kept == pytest.approx(2.5 / 3)
    samples = PairSource(
        comparison="samples",
        method="judge",
        chosen="compared responses",
        rejected="compared responses",
        labeled=4,
        kept=2,
        share=2 / 3,
    )
    revision = samples.model_copy(
        update={
            "comparison": "revision_vs_initial",
            "method": "score",
            "chosen": "initial responses",
            "labeled": 1,
            "kept": 1,
            "share": 1 / 3,
        }
    )
    assert contrast.sources == (samples, revision)
    assert contrast.describe() == (
        "The preferred response is the longer one in 60.0 % of 5 labeled pairs and 83.3 % of 3 "
        "kept; ties count half."
    )


def test_no_label_has_no_contrast(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert measure_contrast(run.root, 0.0) is None
    row = labeled("j", "p", "a", "b")
    tie = replace(pair("of j", row, TEXTS, "tie"), soft_label=None, margin=None)
    write_rows(run, "preference/pair", [tie])
    assert measure_contrast(run.root, 0.0) is None
