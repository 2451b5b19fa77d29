"""Labels against an oracle that reads words."""

from pathlib import Path

import pytest

from pipeline.constitution import load_constitution
from pipeline.evaluation.label_truth import label_truth
from pipeline.evaluation.results import LabelTruth
from pipeline.records import JudgmentRow
from pipeline.store import RunDir
from tests.evaluation.builders import WordOracle, judgment, known, make_run, pair, prompt, response
from tests.run.builders import write_rows

TEXTS = {"bad": "harm", "fine": "fine", "help": "help", "odd": "???", "kind": "fine too"}


def truth(run: RunDir, judgments: list[JudgmentRow], dropped: tuple[str, ...] = ()) -> LabelTruth:
    prompts = write_rows(run, "prompts", [prompt("p", "do evil")])
    samples = write_rows(
        run, "preference/sample", [response(name, "p", text) for name, text in TEXTS.items()]
    )
    judge = write_rows(run, "preference/judge", judgments, inputs=[prompts, samples])
    pairs = [
        pair(f"pair-{j.row_id}", j, TEXTS, "tie" if j.row_id in dropped else "") for j in judgments
    ]
    write_rows(run, "preference/pair", pairs, inputs=[prompts, samples, judge])
    labels = label_truth(run.root, load_constitution(run.constitution), WordOracle())
    assert labels is not None
    return labels


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "run")


def test_accuracy_of_all_and_of_kept(run: RunDir) -> None:
    """Right, wrong, right under the principle's own attribute; the wrong one was dropped."""
    labels = truth(
        run,
        [
            judgment("right", "p", "fine", "bad", "harm"),
            judgment("wrong", "p", "bad", "fine", "harm"),
            judgment("other", "p", "help", "fine", "help"),
        ],
        dropped=("wrong",),
    )
    assert known(labels.accuracy_raw).share == pytest.approx(2 / 3)
    assert known(labels.accuracy_raw).n == 3
    assert (known(labels.accuracy_kept).share, known(labels.accuracy_kept).n) == (1.0, 2)
    assert known(labels.by_attribute["harmlessness"]).share == 0.5


def test_labels_of_one_prompt_are_one_cluster(run: RunDir) -> None:
    """Six labels of one attribute and prompt have the interval of all six together."""
    sides = [("fine", "bad"), ("bad", "fine")] * 3
    labels = truth(run, [judgment(f"j{n}", "p", *pair, "harm") for n, pair in enumerate(sides)])
    assert labels.by_attribute["harmlessness"] == labels.accuracy_raw


def test_label_direction_is_first_preferred(run: RunDir) -> None:
    labels = truth(run, [judgment("j", "p", "bad", "fine", forward=0.1, swapped=0.9)])
    assert known(labels.accuracy_raw).share == 1.0


def test_even_label_is_half_right(run: RunDir) -> None:
    labels = truth(run, [judgment("j", "p", "fine", "bad", forward=0.9, swapped=0.9)], ("j",))
    assert known(labels.accuracy_raw).share == 0.5
    assert labels.accuracy_kept is None


def test_unclear_cases_are_counted_apart(run: RunDir) -> None:
    labels = truth(
        run,
        [
            judgment("equal", "p", "fine", "kind", "harm"),
            judgment("out", "p", "fine", "odd", "harm"),
            judgment("untagged", "p", "fine", "bad", "tone"),
        ],
    )
    assert (labels.equal_pairs, labels.outside, labels.no_attribute) == (1, 1, 1)
    assert labels.accuracy_raw is None
    assert labels.equal_deviation == pytest.approx(0.3)


def test_unparsed_labels_have_no_accuracy(run: RunDir) -> None:
    labels = truth(run, [judgment("u", "p", "fine", "bad", status="unparsed", reason="?")], ("u",))
    assert labels.accuracy_raw is None


def test_brier_is_over_clear_labels(run: RunDir) -> None:
    """One label of 0.8 that is right: (0.8 - 1)^2 = 0.04, and |0.8 - 1| = 0.2 off in its bin."""
    labels = truth(run, [judgment("j", "p", "fine", "bad")])
    assert labels.brier == pytest.approx(0.04)
    assert labels.calibration_error == pytest.approx(0.2)


def test_run_without_labels_has_no_truth(run: RunDir) -> None:
    assert label_truth(run.root, load_constitution(run.constitution), WordOracle()) is None
