"""Thumbs and regenerate events as unpaired rows."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.sources.config import FeedbackSource
from pipeline.sources.feedback import import_feedback
from pipeline.sources.rows import Imported
from pipeline.types import Message, user
from tests.sources.builders import write_lines


def event(kind: str, response: str = "ok", user: str | None = None) -> dict[str, Any]:
    return {"event": kind, "prompt": "Hi", "response": response} | ({"user": user} if user else {})


def read(tmp_path: Path, *events: Any) -> Imported:
    path = write_lines(tmp_path / "a.jsonl", *events)
    return import_feedback(FeedbackSource(name="app", path=path))


def test_thumbs_become_labels(tmp_path: Path) -> None:
    rows = read(tmp_path, event("thumbs_up", "a"), event("thumbs_down", "b")).rows
    assert [(r.completion, r.label, r.weight, r.source_kind) for r in rows] == [
        ("a", True, 1.0, "user"),
        ("b", False, 1.0, "user"),
    ]


def test_regenerate_is_a_weak_negative(tmp_path: Path) -> None:
    (row,) = read(tmp_path, event("regenerate")).rows
    assert (row.label, row.weight, row.events) == (False, 0.5, ("regenerate",))


def test_events_on_one_reply_add_up(tmp_path: Path) -> None:
    """1 - 0.5 = 0.5: a thumb outweighs a regenerate event; 1 - 1 = 0 says nothing."""
    imported = read(
        tmp_path,
        event("regenerate", "a"),
        event("thumbs_up", "a"),
        event("thumbs_up", "b"),
        event("thumbs_down", "b"),
    )
    first, second = imported.rows
    assert (first.label, first.weight, first.source_index) == (True, 0.5, 1)
    assert (second.status, second.reason, second.weight) == (
        "dropped",
        "the events cancel out",
        0.0,
    )


def test_one_user_counts_once(tmp_path: Path) -> None:
    imported = read(
        tmp_path,
        event("thumbs_down", user="u"),
        event("thumbs_down", user="u"),
        event("thumbs_up", user="v"),
        event("thumbs_up", user="w"),
    )
    (row,) = imported.rows
    assert (row.label, row.weight) == (True, 1.0)
    assert imported.record.notes == {
        "the same event of the same user again": 1,
        "thumbs_down": 1,
        "thumbs_up": 2,
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"event": "star", "prompt": "Hi", "response": "a"}, "the event is 'star'"),
        ({"event": "thumbs_up", "response": "a"}, "neither 'prompt' nor 'messages'"),
        ({"event": "thumbs_up", "prompt": "Hi"}, "no 'response'"),
    ],
)
def test_wrong_event_names_the_line(tmp_path: Path, record: object, message: str) -> None:
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        read(tmp_path, record)


def test_event_and_label_of_one_reply_must_agree(tmp_path: Path) -> None:
    record = {"event": "thumbs_down", "prompt": "Hi"}
    imported = read(
        tmp_path,
        {**record, "response": "a", "label": True},
        {**record, "response": "b", "label": False},
        {**record, "response": "c", "label": "spam"},
        {**record, "response": "d", "label": None},
    )
    assert [row.completion for row in imported.usable] == ["b", "c", "d"]
    assert imported.record.reasons == {"event and label contradict each other": 1}


def test_unpaired_rows_of_trainers(tmp_path: Path) -> None:
    """TRL's and LLaMA-Factory's KTO rows: the label is a boolean, the reply may end the turns."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo."}]
    imported = read(
        tmp_path,
        {"prompt": "Hi", "completion": "Hello.", "label": True},
        {"prompt": turns[:1], "completion": turns[1:], "label": False},
        {"messages": turns, "label": "true"},
        {"messages": [*turns[:1], {**turns[1], "tool_calls": [{"id": 1}]}], "label": True},
        {"prompt": "Hi", "completion": None, "label": True},
        {"prompt": "Hi", "completion": "Hello.", "label": None, "score": 3},
    )
    assert [(r.completion, r.label) for r in imported.usable] == [("Hello.", True)]
    assert imported.record.reasons == {
        "a tool call": 1,
        "no completion (null)": 1,
        "the events cancel out": 1,
        "the label is missing": 1,
    }
    assert (imported.record.unread, imported.record.num_rows) == (("score",), 5)
    told = {"system": "Be brief.", "prompt": "Hi", "completion": "Yo.", "label": True}
    (row,) = read(tmp_path, told).rows
    assert row.messages == (Message("system", "Be brief."), user("Hi"))
    turns = [{"role": "system", "content": "Be long."}, *turns[:1]]
    with pytest.raises(DataError, match="line 1: 'system' and 'prompt' have different system"):
        read(tmp_path, {**told, "prompt": turns})
    with pytest.raises(DataError, match="line 1: the label is 1, but true or false"):
        read(tmp_path, {"prompt": "Hi", "completion": "Hello.", "label": 1})
