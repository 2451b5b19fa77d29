"""Labelled pairs become comparisons, and nothing of the label can be seen in their order."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.judge_eval.items import (
    Item,
    make_items,
    prompt_rows,
    read_verdicts,
    response_rows,
    usable_rows,
)
from pipeline.records import JudgmentRow
from pipeline.sources.config import DatasetSource, FeedbackSource, PairsSource, TranscriptsSource
from pipeline.sources.importing import import_source
from pipeline.types import user
from tests.discover.worlds import write_dataset
from tests.sources.builders import make_label, write_lines


def labels(count: int = 300) -> list[Any]:
    """So many pairs, two to a prompt."""
    return [make_label(f"q {i // 2}", f"good {i}", f"bad {i}", index=i) for i in range(count)]


def test_order_is_drawn_from_the_row() -> None:
    items = make_items(labels(), seed=0)
    firsts = sum(item.chosen_first for item in items)
    # 300 fair draws stay within 5 standard deviations (43) of 150.
    assert abs(firsts - 150) < 43
    assert [i.chosen_first for i in make_items(labels(), seed=0)] == [i.chosen_first for i in items]
    assert [i.chosen_first for i in make_items(labels(), seed=1)] != [i.chosen_first for i in items]
    alone = make_items(labels()[7:8], seed=0)[0]
    assert alone.chosen_first == items[7].chosen_first


def test_first_and_second_hold_both_texts() -> None:
    for item in make_items(labels(20), seed=0):
        texts = (item.row.chosen, item.row.rejected)
        assert (item.first, item.second) == (texts if item.chosen_first else texts[::-1])
        assert item.key[0] != item.key[1]


def test_limit_keeps_rows_whatever_follows() -> None:
    few = make_items(labels(), seed=0, limit=20)
    assert len(few) == 20 and len(make_items(labels(), seed=0, limit=1000)) == 300
    kept = {item.row.row_id for item in few}
    assert kept <= {item.row.row_id for item in make_items(labels(), seed=0, limit=40)}
    assert kept != {item.row.row_id for item in make_items(labels(), seed=5, limit=20)}


def test_two_labels_of_one_pair_stay_apart() -> None:
    twice = [make_label("q", "good", "bad", index=1), make_label("q", "bad", "good", index=2)]
    items = make_items(twice, seed=0)
    assert len({i for item in items for i in item.key}) == 4
    firsts, seconds = response_rows(items, [twice[0].prompt_id], "r")
    assert [r.sample_index for r in firsts] == [0, 1] == [r.sample_index for r in seconds]
    assert {r.response for r in (*firsts, *seconds)} == {"good", "bad"}


def test_contexts_stand_once() -> None:
    items = make_items(labels(6), seed=0)
    prompts = prompt_rows(items, "r")
    assert [p.messages for p in prompts] == [(user(f"q {i}"),) for i in range(3)]
    firsts, _ = response_rows(items, [prompts[1].row_id], "r")
    assert [row.parent_ids for row in firsts] == [(prompts[1].row_id,)] * 2


def judgment(item: Item, **changes: Any) -> JudgmentRow:
    """The judge gives slot A 0.9 in both orders."""
    values: dict[str, Any] = {
        "prob_first": 0.5,
        "prob_forward": 0.9,
        "prob_swapped": 0.9,
        "principle_id": "p",
    }
    return JudgmentRow(
        row_id="j",
        prompt_id=item.row.prompt_id,
        first_id=item.key[0],
        second_id=item.key[1],
        **(values | changes),
    )


@pytest.mark.parametrize("chosen_first", [True, False])
def test_verdict_is_about_the_chosen_response(chosen_first: bool) -> None:
    item = Item(make_label(chosen="good and long"), chosen_first)
    (verdict,) = read_verdicts([item], [judgment(item, prob_first=0.8, raw_label=0.7)])
    assert verdict.label == pytest.approx(0.8 if chosen_first else 0.2)
    assert verdict.raw_label == pytest.approx(0.7 if chosen_first else 0.3)
    # Slot A gets 0.9: the chosen response 0.9 when it stands there, 0.1 when it stands in B.
    assert verdict.by_slot == pytest.approx((0.9, 0.1))
    assert verdict.longer == 1 and verdict.right == float(chosen_first)


def test_unparsed_row_has_no_number() -> None:
    item = Item(make_label(), True)
    (verdict,) = read_verdicts([item], [judgment(item, status="unparsed", reason="prose")])
    assert (verdict.label, verdict.forward, verdict.right) == (None, None, None)
    assert (verdict.status, verdict.reason) == ("unparsed", "prose")


def test_replies_without_a_rival_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "f.jsonl", {"event": "thumbs_up", "prompt": "q", "response": "r"})
    with pytest.raises(DataError, match="source 'users' holds single replies"):
        usable_rows([import_source(FeedbackSource(name="users", path=path))])


def test_unusable_rows_are_counted_not_used(tmp_path: Path) -> None:
    def line(better: str, worse: str) -> dict[str, str]:
        return {
            "chosen": f"\n\nHuman: q\n\nAssistant: {better}",
            "rejected": f"\n\nHuman: q\n\nAssistant: {worse}",
        }

    path = write_lines(tmp_path / "t.jsonl", line("a", "b"), line("same", "same"), line("", "b"))
    imported = import_source(TranscriptsSource(name="t", path=path))
    assert [row.chosen for row in usable_rows([imported])] == ["a"]
    assert imported.record.reasons == {"identical responses": 1, "empty response": 1}


def test_label_of_two_versions_counts_once(tmp_path: Path) -> None:
    """A later version of a run's data set holds the rows of the earlier one."""
    write_dataset(path := tmp_path / "d.parquet")
    versions = [import_source(DatasetSource(name=name, path=path)) for name in ("one", "two")]
    assert len(usable_rows(versions)) == len(usable_rows(versions[:1])) == 80


def test_ties_are_counted_not_used(tmp_path: Path) -> None:
    columns = {"prompt": "p", "first": "x", "second": "y", "label": "l"}
    path = write_lines(
        tmp_path / "p.jsonl",
        {"p": "q", "x": "1", "y": "2", "l": "a"},
        {"p": "q", "x": "1", "y": "2", "l": "tie"},
    )
    source = PairsSource.model_validate({"name": "p", "path": path, "columns": columns})
    imported = import_source(source)
    assert len(usable_rows([imported])) == 1 and imported.record.num_dropped == 1
