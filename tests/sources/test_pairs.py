"""Pairwise labels from JSON Lines and CSV with a declared column mapping."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import DataError
from pipeline.sources.config import LabelValues, PairColumns, PairsSource
from pipeline.sources.pairs import import_pairs
from pipeline.types import Message
from tests.sources.builders import write_lines

COMPARED = PairColumns(
    prompt="question", first="left", second="right", label="better", annotator="who", tags="topic"
)


def source(path: Path, **values: Any) -> PairsSource:
    return PairsSource(name="crowd", path=path, **values)


def test_chosen_and_rejected_columns(tmp_path: Path) -> None:
    """Trust 0.75: log-odds ln 3 = 1.0986."""
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Hi", "chosen": " yes ", "rejected": "no"})
    (row,) = import_pairs(source(path, label_accuracy=0.75)).rows
    assert (row.chosen, row.rejected, row.status) == ("yes", "no", "ok")
    assert row.messages == (Message("user", "Hi"),)
    assert (row.soft_label, row.margin) == (0.75, pytest.approx(math.log(3)))
    assert (row.source, row.source_kind, row.source_index) == ("crowd", "human", 1)


def test_csv_label_orders_the_responses(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'question,left,right,better,who,topic\nQ1,a,b,A,ann,x\nQ2,a,b,B,bob,"x,y"\nQ3,a,b,Tie,,\n',
        encoding="utf-8",
    )
    imported = import_pairs(source(path, columns=COMPARED))
    assert [(r.chosen, r.annotator, r.tags) for r in imported.rows[:2]] == [
        ("a", "ann", ("x",)),
        ("b", "bob", ("x", "y")),
    ]
    assert imported.record.reasons == {"tie": 1}
    assert (imported.record.num_rows, imported.record.num_ok) == (3, 2)


def test_unknown_label_value_stops(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", {"question": "Q", "left": "a", "right": "b", "better": "left"}
    )
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: the label is 'left'"):
        import_pairs(source(path, columns=COMPARED))
    values = LabelValues(first=("left",), second=("right",))
    (row,) = import_pairs(source(path, columns=COMPARED, values=values)).rows
    assert row.chosen == "a"


def test_conversations_carry_their_prompt(tmp_path: Path) -> None:
    def turns(last: str, first: str = "Hi") -> list[dict[str, str]]:
        return [{"role": "user", "content": first}, {"role": "assistant", "content": last}]

    path = write_lines(
        tmp_path / "a.jsonl",
        {"chosen": turns("good"), "rejected": turns("bad")},
        {"chosen": turns("good"), "rejected": turns("bad", "Ho")},
    )
    imported = import_pairs(source(path))
    assert imported.rows[0].messages == (Message("user", "Hi"),)
    assert imported.record.reasons == {"the prompts of the two responses differ": 1}


def test_unusable_rows_are_counted(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    path = write_lines(
        tmp_path / "a.jsonl",
        good,
        {**good, "chosen": " "},
        {**good, "rejected": "a"},
        {**good, "prompt": ""},
        {**good, "chosen": "\ud83d"},
        {**good, "prompt": [{"role": "assistant", "content": "x"}]},
    )
    assert import_pairs(source(path)).record.reasons == {
        "empty prompt": 1,
        "empty response": 1,
        "identical responses": 1,
        "not valid text (NUL, or half of a surrogate pair)": 1,
        "the prompt does not end with a user turn": 1,
    }


def test_odd_texts_and_scores_beside_the_label(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    path = write_lines(
        tmp_path / "a.jsonl",
        {**good, "chosen": "a &lt;b&gt;"},
        {**good, "rejected": "b\0"},
        {**good, "chosen_rating": 2, "rejected_rating": 4.5},
        {**good, "reward-chosen": "1", "reward-rejected": "0.5"},
        {**good, "chosen_score": None, "rejected_score": 3},
        {**good, "length_chosen": 1, "length_rejected": 2},
    )
    record = import_pairs(source(path)).record
    assert record.reasons == {
        "columns that are not mapped contradict the label": 1,
        "not valid text (NUL, or half of a surrogate pair)": 1,
    }
    assert record.notes == {"HTML entities (such as &amp;) in a response: kept as they are": 1}
    assert "reward-chosen" in record.unread


def test_columns_that_speak_against_the_label(tmp_path: Path) -> None:
    """What nothing read may still say that the other response is better."""
    more: list[dict[str, Any]] = [
        {"better": "Rejected"},
        {"reward_margin": -0.25},
        {"better": "chosen", "reward_margin": 0.25},
        {"note": "rejected", "margin_of_error": -1},
        {"chosen_rank": 2, "rejected_rank": 1},
        {"rank_chosen": 1, "rank_rejected": 4},
        {" score_chosen\u00a0": 1, "score_rejected": 5},
        {"meta": {"rating_chosen": "3", "rating_rejected": "4"}},
        {"meta": {"preferred": "rejected"}},
    ]
    good = {"chosen": "a", "rejected": "b"}
    rows = [{"prompt": f"{n}", **good, **each} for n, each in enumerate(more)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    found = import_pairs(source(path))
    assert [row.messages[0].content for row in found.usable] == ["2", "3", "5"]
    assert found.record.reasons == {"columns that are not mapped contradict the label": 6}
    assert "reward_margin" in found.record.unread_evidence


def test_scores_of_named_responses_speak_against_the_label(tmp_path: Path) -> None:
    """`rating_x` belongs to `reply_x`; a word that has an x in it does not."""
    row = {"prompt": "Hi", "reply_x": "one", "reply_y": "two"}
    path = write_lines(
        tmp_path / "a.jsonl",
        {**row, "pick": "x", "rating_x": 1, "rating_y": 4},
        {**row, "pick": "y", "rating_x": 1, "rating_y": 4},
        {**row, "pick": "x", "rating_max": 1, "rating_may": 4, "other_pick": "y"},
    )
    columns = PairColumns(first="reply_x", second="reply_y", label="pick")
    values = LabelValues(first=("x",), second=("y",))
    found = import_pairs(source(path, columns=columns, values=values))
    assert [row.source_index for row in found.usable] == [2, 3]


def test_what_cannot_be_used_is_dropped_and_not_an_error(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    path = write_lines(
        tmp_path / "a.jsonl",
        good,
        {**good, "chosen": [{"role": "user", "content": "x"}]},
        {**good, "rejected": float("nan")},
        {**good, "prompt": float("nan")},
        {**good, "chosen": "\u200b\u2060"},
        {**good, "chosen": "\u2800\u3164"},
        {**good, "prompt": "\u200b"},
        {**good, "chosen": "None"},
        {**good, "rejected": "nan"},
    )
    record = import_pairs(source(path)).record
    assert record.reasons == {
        "a message without text (null)": 1,
        "empty prompt": 1,
        "empty response": 2,
        "no rejected (null)": 1,
        "the conversation in 'chosen' does not end with an assistant turn": 1,
    }
    (note,) = record.notes
    assert note.startswith("a response that may stand for a missing value")
    assert record.notes[note] == 2


def test_names_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", {"prompt": "p", "rejected": "b", "Rejected": "c", "chosen": "a"}
    )
    with pytest.raises(DataError, match="line 1: 'rejected' and 'Rejected' differ only in case"):
        import_pairs(source(path))


def test_column_with_two_meanings_is_refused() -> None:
    with pytest.raises(ValueError, match="named for two things"):
        PairColumns(chosen="prompt", rejected="rejected")


def test_trust_of_a_row_wins(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    path = write_lines(
        tmp_path / "a.jsonl", {**row, "p": 0.9}, {**row, "p": 0.5}, {**row, "p": None}
    )
    columns = PairColumns(chosen="chosen", rejected="rejected", label_accuracy="p")
    rows = import_pairs(source(path, columns=columns, label_accuracy=0.8)).rows
    assert [(r.soft_label, r.reason) for r in rows] == [(0.9, ""), (0.5, "tie"), (0.8, "")]
    bad = write_lines(tmp_path / "b.jsonl", {**row, "p": 1.5})
    with pytest.raises(DataError, match=r"line 1: 'p' is 1\.5"):
        import_pairs(source(bad, columns=columns))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "no 'prompt'"),
        ({"prompt": "Hi", "chosen": "a"}, "no 'rejected' among prompt, chosen"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "text or a list of messages"),
        (
            {"prompt": [{"role": "human", "content": "x"}], "chosen": "a", "rejected": "b"},
            "role 'human'",
        ),
    ],
)
def test_wrong_shape_names_the_line(tmp_path: Path, record: object, message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match=f"line 1.*{message}"):
        import_pairs(source(path))


def test_file_without_usable_row_stops(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Hi", "chosen": "", "rejected": "b"})
    with pytest.raises(DataError, match=r"none of the 1 rows .*1 x empty response"):
        import_pairs(source(path))
    empty = write_lines(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="has no rows"):
        import_pairs(source(empty))


def test_mapping_names_one_way() -> None:
    with pytest.raises(ValidationError, match="either chosen and rejected"):
        PairColumns(chosen="a", rejected="b", label="c")
    with pytest.raises(ValidationError, match="either chosen and rejected"):
        PairColumns(first="a", second="b")


def test_zero_and_one_need_a_declaration(tmp_path: Path) -> None:
    """A column of 0 and 1 counts the responses from 0 in one file and from 1 in another."""
    rows = [{"question": f"Q{y}", "left": "a", "right": "b", "better": y} for y in (1, 0)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(
        DataError, match=r"a\.jsonl, line 1: the label is 1, .* declare its meaning"
    ):
        import_pairs(source(path, columns=COMPARED))
    values = LabelValues(first=("0",), second=("1",))
    found = import_pairs(source(path, columns=COMPARED, values=values)).rows
    assert [row.chosen for row in found] == ["b", "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"second": ["A"]}, "'a' means both first and second, .*declare all three of values"),
        ({"first": ["left", "Same "], "tie": ["same"]}, "'same' means both first and tie"),
        ({"second": ["B", "TIE"]}, "'tie' means both second and tie"),
    ],
)
def test_label_has_one_meaning(values: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelValues.model_validate(values)


def test_declared_labels_are_compared_stripped(tmp_path: Path) -> None:
    row = {"question": "Q", "left": "a", "right": "b", "better": "RIGHT"}
    path = write_lines(tmp_path / "a.jsonl", row)
    values = LabelValues(first=("Left",), second=(" Right ",))
    assert import_pairs(source(path, columns=COMPARED, values=values)).rows[0].chosen == "b"
