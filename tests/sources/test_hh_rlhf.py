"""hh-rlhf transcripts: 43 real rows with every irregularity (data/README.md)."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.sources.config import TranscriptsSource
from pipeline.sources.conversations import parse_transcript
from pipeline.sources.hh_rlhf import INLINE_IN_RESPONSE, import_transcripts
from pipeline.sources.rows import Imported
from tests.sources.builders import write_lines

EXCERPT = Path(__file__).parent / "data" / "hh_rlhf_excerpt.jsonl.gz"


def read(*, drop: bool = False) -> Imported:
    return import_transcripts(
        TranscriptsSource(name="hh", path=EXCERPT, label_accuracy=0.72, drop_inline_headers=drop)
    )


def test_irregular_rows_are_counted() -> None:
    record = read().record
    assert (record.num_rows, record.num_ok, record.num_dropped) == (43, 31, 12)
    assert record.reasons == {
        "empty response": 4,
        "the prompts of the two responses differ": 5,
        "turns do not alternate": 3,
    }


def test_different_prompts_are_never_sliced() -> None:
    """Excerpt line 33: 'Human:' inside the assistant's turn, and one more turn in `chosen` only."""
    row = read().rows[32]
    assert row.status == "dropped"
    assert [turn.role for turn in row.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ][: len(row.messages)]
    assert row.rejected.startswith("I'd suggest that you do it between")


def test_conversations_keep_their_turns() -> None:
    (row,) = [r for r in read().rows if r.messages[0].content == "I would like a pet penguin"]
    assert [turn.role for turn in row.messages] == ["user", "assistant"] * 3 + ["user"]
    assert row.status == "ok" and row.soft_label == 0.72


def test_paragraphs_stay_in_their_turn() -> None:
    text = "\n\nHuman: One: two\n\nthree\n\nAssistant: Human: no\n\nHuman: x\n\nAssistant: "
    turns = parse_transcript(text, "here")
    assert [(t.role, t.content) for t in turns] == [
        ("user", "One: two\n\nthree"),
        ("assistant", "Human: no"),
        ("user", "x"),
        ("assistant", ""),
    ]


def test_inline_headers_are_noted_or_dropped() -> None:
    assert read().record.notes[INLINE_IN_RESPONSE] == 4
    strict = read(drop=True)
    noted = strict.record.reasons[INLINE_IN_RESPONSE]
    assert strict.record.num_ok == 31 - noted
    assert not any("Human:" in r.chosen + r.rejected for r in strict.usable)


def test_reading_twice_gives_equal_rows() -> None:
    assert read().rows == read().rows
    assert len({row.row_id for row in read().rows}) == 43


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"chosen": "Hello", "rejected": "\n\nHuman: a\n\nAssistant: b"},
            "'chosen': found 'Hello'",
        ),
        ({"chosen": ["a"], "rejected": "b"}, "'chosen' must be a whole transcript"),
    ],
)
def test_other_shapes_stop_with_line(tmp_path: Path, record: object, message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match=f"line 1.*{message}"):
        import_transcripts(TranscriptsSource(name="hh", path=path))


def test_lines_of_another_system_are_turns_too(tmp_path: Path) -> None:
    record = {
        "chosen": "\r\n\r\nHuman: Hi\r\n\r\nAssistant: Hello.\r\nAnd?",
        "rejected": "\r\n\r\nHuman: Hi\r\n\r\nAssistant: No.",
    }
    path = write_lines(tmp_path / "a.jsonl", record)
    (row,) = import_transcripts(TranscriptsSource(name="hh", path=path)).usable
    assert (row.messages[0].content, row.chosen, row.rejected) == ("Hi", "Hello.\nAnd?", "No.")
