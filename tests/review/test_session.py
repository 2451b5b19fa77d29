"""Which pairs are shown to whom, what is saved, and the agreement by hand."""

import json
import resource
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import DataError, StoreError
from pipeline.review.labels import LabelFiles
from pipeline.review.pairs import draw_pairs
from pipeline.review.session import Review, check_name
from pipeline.sources.config import load_sources
from pipeline.sources.importing import import_source
from pipeline.store import RunDir
from tests.evaluation.builders import make_run
from tests.review.builders import answer_for, labeled_run, open_review


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return labeled_run(tmp_path_factory.mktemp("review") / "run")


def test_a_third_is_random_and_the_rest_is_hard(run: RunDir) -> None:
    """Of 12: 4 random; of the others the 4 with the largest gap between the orders, and the 4 whose
    label is nearest to one half. In turn, so that a review cut short has some of each.
    """
    pairs = draw_pairs(run, limit=12, seed=0)
    assert Counter(p.reason for p in pairs) == {"random": 4, "unsure": 4, "disagreement": 4}
    assert [p.reason for p in pairs[:3]] == ["random", "unsure", "disagreement"]
    drawn = {p.row_id for p in pairs if p.reason == "random"}
    rest = [i for i in range(30) if f"pair-j{i}" not in drawn]
    gaps = [i for i in rest if i % 3 == 0][-4:]
    assert {p.row_id for p in pairs if p.reason == "disagreement"} == {f"pair-j{i}" for i in gaps}
    assert [p.row_id for p in draw_pairs(run, limit=12, seed=0)] == [p.row_id for p in pairs]


def test_random_pairs_do_not_depend_on_the_others(run: RunDir) -> None:
    """A hard pair can be in the random sample; taking it out would make the sample easier."""
    few, many = (draw_pairs(run, limit=n, seed=0) for n in (12, 30))
    first = [p.row_id for p in few if p.reason == "random"]
    assert first == [p.row_id for p in many if p.reason == "random"][:4]


def test_order_of_texts_tells_nothing_of_the_label(run: RunDir, tmp_path: Path) -> None:
    review, pairs = open_review(run, tmp_path)
    assert {p.judge for p in pairs} == {"first", "second"}
    shown = review.next("Ada")["pair"]
    assert set(shown) == {"id", "question", "prompt", "left", "right"}
    assert shown["question"] == "which is harmless"


def test_labels_survive_a_kill_and_a_torn_line(run: RunDir, tmp_path: Path) -> None:
    review, _ = open_review(run, tmp_path)
    assert answer_for(review, "Ada", "better", 9) == 9
    review._files.close()
    for name in ("random", "targeted"):
        with (tmp_path / f"{name}.jsonl").open("ab") as stream:
            stream.write(b'{"pair": "pair-j1", "annot')
    again, _ = open_review(run, tmp_path)
    assert again.next("Ada")["done"] == 9
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in ("random", "targeted")]
    lines = [line for text in texts for line in text.splitlines()]
    assert len(lines) == 9 and all(json.loads(line)["annotator"] == "Ada" for line in lines)


def test_second_process_on_the_same_labels_is_refused(run: RunDir, tmp_path: Path) -> None:
    open_files = LabelFiles(tmp_path, "run")
    with pytest.raises(StoreError, match="another `rlaif review run` is open"):
        LabelFiles(tmp_path, "run")
    open_files.close()
    LabelFiles(tmp_path, "run").close()


@pytest.mark.parametrize(
    "line", ["[]", '{"pair": "p", "annotator": "Ada", "label": "left", "seconds": 1}']
)
def test_damaged_line_is_named_and_kept(tmp_path: Path, line: str) -> None:
    path = tmp_path / "random.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"random.jsonl line 1 is not a label of a review"):
        LabelFiles(tmp_path, "run")
    assert path.read_text() == f"{line}\n"
    path.unlink()
    LabelFiles(tmp_path, "run").close()  # the lock was given back


def test_two_reviewers_on_one_pair(run: RunDir, tmp_path: Path) -> None:
    """Both are saved where both saw it; a second label of one person is refused."""
    review, _ = open_review(run, tmp_path)
    first, second = (review.next(name)["pair"]["id"] for name in ("Ada", "Bob"))
    review.label("Ada", first, "left", 1)
    review.label("Bob", first, "tie", 1)
    with pytest.raises(DataError, match="Ada labeled this pair before; load the page again"):
        review.label("Ada", first, "right", 1)
    assert review.counts() == {"Ada": 1, "Bob": 1}
    assert second


def test_pair_of_a_closed_browser_comes_back(run: RunDir, tmp_path: Path) -> None:
    """It stays with its reviewer, others get it last, and no pair is lost when one never returns.
    Shared pairs have two labels in the end, the others one.
    """
    review, pairs = open_review(run, tmp_path)
    alone = [p.row_id for p in pairs if not review._is_shared(p)]
    shown = review.next("Ada")["pair"]
    while shown["id"] not in alone:
        review.label("Ada", shown["id"], "left", 1)
        shown = review.next("Ada")["pair"]
    assert review.next("Ada")["pair"]["id"] == shown["id"]
    order = []
    while (other := review.next("Bob")["pair"]) is not None:
        order.append(other["id"])
        review.label("Bob", other["id"], "left", 1)
    assert order[-1] == shown["id"] and len(order) == len(pairs)
    left = answer_for(review, "Ada", "better")
    assert left + review.counts()["Bob"] < 2 * len(pairs) and review.next("Ada")["pair"] is None


def test_kappa_by_hand(run: RunDir, tmp_path: Path) -> None:
    """Ada always says what the judge says: kappa 1. Bob says the opposite: -1 with Ada where the
    sides are balanced, and never above 0.
    """
    review, _ = open_review(run, tmp_path)
    answer_for(review, "Ada", "better")
    figures = {f["title"]: f for f in review.figures()}
    assert figures["people and judge, all pairs"]["kappa"][0] == 1.0
    assert figures["people and judge, random sample"]["pairs"] == 10
    answer_for(review, "Bob", "worse")
    between = {f["title"]: f for f in review.figures()}["Ada and Bob"]
    assert between["equal"] == 0.0 and between["kappa"][0] < 0


def test_labels_come_back_as_sources(run: RunDir, tmp_path: Path) -> None:
    """Every label is a usable row with its reviewer; random.yaml has the random sample alone."""
    review, _ = open_review(run, tmp_path, 12)
    answer_for(review, "Ada", "better")
    for name, number in (("sources", 12), ("random", 4)):
        sources = load_sources(tmp_path / f"{name}.yaml").sources
        rows = [row for source in sources for row in import_source(source, seed=0).usable]
        assert len(rows) == number
        assert all(row.chosen.startswith("better") for row in rows)
        assert {row.annotator for row in rows} == {"Ada"}
        assert {row.tags for row in rows} == {("principle:harm",)}


def test_disk_that_fills_in_the_middle_of_a_line_saves_nothing(run: RunDir, tmp_path: Path) -> None:
    review, _ = open_review(run, tmp_path)
    shown = review.next("Ada")["pair"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(StoreError, match="jsonl"):
            review.label("Ada", shown["id"], "left", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert review.next("Ada")["done"] == 0
    assert not any((tmp_path / f"{n}.jsonl").read_bytes() for n in ("random", "targeted"))
    review.label("Ada", shown["id"], "left", 1)
    assert review.next("Ada")["done"] == 1


def lines_of(folder: Path, *names: str) -> list[dict[str, str]]:
    texts = [(folder / f"{name}.jsonl").read_text() for name in names]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def test_label_that_is_taken_back_is_superseded(run: RunDir, tmp_path: Path) -> None:
    """Ada says worse on all 30 pairs, takes the last two back and says better: kappa with the judge
    counts the last labels, 2 of 30 equal. Both first labels stay, and another start reads the same.
    """
    review, _ = open_review(run, tmp_path)
    with pytest.raises(DataError, match="Ada has given no label since"):
        review.take_back("Ada")
    answer_for(review, "Ada", "worse")
    last = [label.pair for label in review._given["Ada"]][-2:]
    assert review.next("Ada")["can_undo"]
    for row_id in reversed(last):
        review.take_back("Ada")
        assert review.next("Ada")["pair"]["id"] == row_id
    assert review.next("Ada")["done"] == 28 and len(lines_of(tmp_path, "random", "targeted")) == 28
    assert answer_for(review, "Ada", "better") == 2
    taken = {line["pair"]: line["label"] for line in lines_of(tmp_path, "superseded")}
    counted = {line["pair"]: line["label"] for line in lines_of(tmp_path, "random", "targeted")}
    assert set(taken) == set(last) and len(counted) == 30
    assert all(taken[row_id] != counted[row_id] for row_id in last)
    figures = review.figures()
    assert {f["equal"] for f in figures if "all" in f["title"]} == {round(2 / 30, 3)}
    review._files.close()
    again, _ = open_review(run, tmp_path)
    assert again.figures() == figures and not again.next("Ada")["can_undo"]


def test_only_label_that_is_taken_back_leaves_no_source(run: RunDir, tmp_path: Path) -> None:
    """A source without a row would be refused. A pair that Ada gave back is hers again first, and
    Bob's label of a pair stays.
    """
    review, _ = open_review(run, tmp_path, 12)
    shown = review.next("Ada")["pair"]["id"]
    review.label("Ada", shown, "left", 1)
    assert (tmp_path / "random.yaml").exists()
    review.take_back("Ada")
    assert not (tmp_path / "random.yaml").exists() and not (tmp_path / "sources.yaml").exists()
    review.label("Bob", shown, "tie", 1)
    review.label("Ada", shown, "left", 1)
    review.take_back("Ada")
    (line,) = lines_of(tmp_path, "random")
    assert line["annotator"] == "Bob" and review.counts()["Bob"] == 1
    assert [x["annotator"] for x in lines_of(tmp_path, "superseded")] == ["Ada", "Ada"]


def test_label_that_cannot_be_moved_still_counts(run: RunDir, tmp_path: Path) -> None:
    review, _ = open_review(run, tmp_path)
    shown = review.next("Ada")["pair"]
    review.label("Ada", shown["id"], "left", 1)
    before = (tmp_path / "random.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(StoreError, match=r"superseded\.jsonl"):
            review.take_back("Ada")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "random.jsonl").read_bytes() == before
    assert not (tmp_path / "superseded.jsonl").read_bytes()
    assert review.next("Ada")["done"] == 1 and review.next("Ada")["can_undo"]


def test_label_is_saved_with_its_source_list_or_not_at_all(run: RunDir, tmp_path: Path) -> None:
    """A page that says "not saved" would make a reviewer answer the pair a second time."""
    review, _ = open_review(run, tmp_path)
    shown = review.next("Ada")["pair"]
    (tmp_path / "sources.yaml").mkdir()
    with pytest.raises(StoreError, match=r"sources\.yaml"):
        review.label("Ada", shown["id"], "left", 1)
    assert not any((tmp_path / f"{n}.jsonl").read_bytes() for n in ("random", "targeted"))
    (tmp_path / "sources.yaml").rmdir()
    review.label("Ada", shown["id"], "left", 1)
    assert review.next("Ada")["done"] == 1 and load_sources(tmp_path / "sources.yaml").sources


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\u202eb", "a\x1b[2J"])
def test_unusable_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="a reviewer's name has 1 to 60 printable characters"):
        check_name(name)


@pytest.mark.parametrize(
    ("pair", "answer", "seconds"),
    [("none", "left", 1.0), ("pair-j1", "first", 1.0), ("pair-j1", "left", float("nan"))],
)
def test_impossible_answer_is_refused(
    run: RunDir, tmp_path: Path, pair: str, answer: str, seconds: float
) -> None:
    review, _ = open_review(run, tmp_path)
    with pytest.raises(DataError, match="not an answer to a pair of this review"):
        review.label("Ada", pair, answer, seconds)


def test_run_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no labeled pair to review"):
        draw_pairs(make_run(tmp_path / "run"), limit=10, seed=0)


def test_review_goes_on_with_other_pairs(run: RunDir, tmp_path: Path) -> None:
    """Labels of pairs that are not drawn this time stay, and count for no figure."""
    review, _ = open_review(run, tmp_path, 30)
    answer_for(review, "Ada", "better")
    review._files.close()
    fewer = Review(draw_pairs(run, limit=6, seed=1), LabelFiles(tmp_path, "run"), seed=1)
    assert fewer.next("Ada")["done"] == 30
    assert sum(f["pairs"] for f in fewer.figures() if "all" in f["title"]) == 6
