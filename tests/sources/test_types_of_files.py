"""The shapes that people have, each by a named type or one mapping, as in docs/labels.md."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.data.json_lines import SHAPES
from pipeline.errors import DataError
from pipeline.sources.config import AnySource, RankedColumns
from pipeline.sources.importing import import_source
from pipeline.sources.rows import FeedbackRow, Imported
from pipeline.types import Message, assistant, user
from tests.sources.builders import write_lines


def read(path: Path, kind: str, **values: Any) -> Imported:
    adapter: TypeAdapter[Any] = TypeAdapter(AnySource)
    return import_source(
        adapter.validate_python({"type": kind, "name": "s", "path": path, **values})
    )


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


OURS = {
    "row_id": "p1",
    "messages": [
        said("system", "Be brief."),
        said("user", "Q"),
        said("assistant", "A"),
        said("user", "R"),
    ],
    "chosen": "good",
    "rejected": "bad",
    "soft_label": 0.9,
}


@pytest.mark.parametrize(("shape", "kind"), [("trl", "pairs"), ("openai", "openai")])
def test_what_is_exported_can_be_imported(tmp_path: Path, shape: str, kind: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", *SHAPES[shape](OURS))
    (row,) = read(path, kind).rows
    assert [turn.as_dict() for turn in row.messages] == OURS["messages"]
    assert (row.chosen, row.rejected) == ("good", "bad")


def test_exported_unpaired_rows_can_be_imported(tmp_path: Path) -> None:
    rows: tuple[FeedbackRow, ...] = read(
        write_lines(tmp_path / "a.jsonl", *SHAPES["kto"](OURS)), "feedback"
    ).rows
    assert [(row.completion, row.label) for row in rows] == [("good", True), ("bad", False)]


def test_offered_tools_of_openai_drop_the_row(tmp_path: Path) -> None:
    (line,) = SHAPES["openai"](OURS)
    tools = {**line, "input": {**line["input"], "tools": [{"type": "function"}]}}
    path = write_lines(tmp_path / "a.jsonl", line, tools)
    assert read(path, "openai").record.reasons == {"tools are offered": 1}


def test_sharegpt(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    record = {
        "conversations": [*turns, {"from": "human", "value": "More?"}],
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    call = {**record, "conversations": [turns[0], {"from": "function_call", "value": "{}"}]}
    imported = read(write_lines(tmp_path / "a.jsonl", record, call), "sharegpt")
    (row,) = imported.usable
    assert row.messages == (user("Hi"), assistant("Yo"), user("More?"))
    assert (row.chosen, row.rejected) == ("Yes.", "No.")
    assert imported.record.reasons == {"a turn of a tool": 1}


def test_binarized_scores_are_evidence(tmp_path: Path) -> None:
    def record(prompt: str, good: Any, bad: Any) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "chosen": [said("user", prompt), said("assistant", "x")],
            "rejected": [said("user", prompt), said("assistant", "y")],
            "score_chosen": good,
            "score_rejected": bad,
        }

    records = record("a", 8, 5.5), record("b", 5, 5.0), record("c", 1, 2), record("d", None, 2)
    path = write_lines(tmp_path / "a.jsonl", *records)
    imported = read(path, "binarized")
    assert [row.source_index for row in imported.usable] == [1, 4]
    assert imported.record.reasons == {
        "the scores contradict the label": 1,
        "tie: the scores are equal": 1,
    }
    unmapped = read(path, "pairs").record
    assert unmapped.num_ok == 3
    assert "contradict the label" in next(iter(unmapped.reasons))
    assert unmapped.unread_evidence == ("score_chosen", "score_rejected")
    assert "were not read: score_chosen, score_rejected" in unmapped.text()
    other = write_lines(tmp_path / "b.jsonl", {**record("a", 8, 5), "prompt": "z"})
    with pytest.raises(DataError, match="line 1: the prompt 'z' is not that of the conversation"):
        read(other, "binarized")


def test_scores_decide_where_no_label_is_named(tmp_path: Path) -> None:
    columns = {"first": "a", "second": "b", "score_first": "x", "score_second": "y"}
    path = tmp_path / "a.csv"
    path.write_text("prompt,a,b,x,y\nQ,l,r,0,1\nR,l,r,2,-1\nS,l,r,0,0.0\nT,l,r,,0\n")
    imported = read(path, "pairs", columns=columns)
    assert [row.chosen for row in imported.usable] == ["r", "l"]
    assert imported.record.reasons == {"a score is missing": 1, "tie: the scores are equal": 1}
    path.write_text("prompt,a,b,x,y\nQ,l,r,high,1\n")
    with pytest.raises(DataError, match="line 2: 'x' is 'high', but a score"):
        read(path, "pairs", columns=columns)


def test_battles(tmp_path: Path) -> None:
    def battle(winner: Any) -> dict[str, Any]:
        sides = {
            f"conversation_{side}": [said("user", "Hi"), said("assistant", side)] for side in "ab"
        }
        return {**sides, "winner": winner, "judge": "x"}

    winners = "model_b", "model_a", "tie (bothbad)", None, ""
    imported = read(write_lines(tmp_path / "a.jsonl", *map(battle, winners)), "battles")
    assert [row.chosen for row in imported.usable] == ["b", "a"]
    assert imported.record.reasons == {"the label is empty": 1, "the label is missing": 1, "tie": 1}


def test_context_of_several_columns(tmp_path: Path) -> None:
    record = {
        "sys": "In Latin.",
        "instruction": "Translate.",
        "input": "cat",
        "past": [["Hi", "Salve"]],
        "chosen": "feles",
        "rejected": "canis",
    }
    columns = {
        "system": "sys",
        "prompt": ["instruction", "input"],
        "history": "past",
        "chosen": "chosen",
        "rejected": "rejected",
    }
    bare = {**record, "sys": "", "input": None, "past": []}
    path = write_lines(tmp_path / "a.jsonl", record, bare)
    full, plain = read(path, "pairs", columns=columns).rows
    assert full.messages == (
        Message("system", "In Latin."),
        user("Hi"),
        assistant("Salve"),
        user("Translate.\ncat"),
    )
    assert plain.messages == (user("Translate."),)


@pytest.mark.parametrize(
    ("values", "label", "chosen"),
    [
        ({"first": [0], "tie": [1], "second": [2]}, 0, "l"),
        ({"first": [0], "tie": [1], "second": [2]}, 1, None),
        ({"first": [0], "tie": [1], "second": [2]}, "2.0", "r"),
        ({"first": [-2, -1], "tie": [0], "second": [1, 2]}, -1, "l"),
        ({"first": [True], "second": [False]}, False, "r"),
        ({"first": [True], "second": [False], "tie": [""]}, "", None),
    ],
)
def test_declared_numbers_and_booleans(
    tmp_path: Path, values: dict[str, Any], label: Any, chosen: str | None
) -> None:
    columns = {"first": "a", "second": "b", "label": "y"}
    sound = {"prompt": "Q", "a": "l", "b": "r", "y": values["first"][0]}
    path = write_lines(tmp_path / "a.jsonl", sound, {**sound, "y": label})
    row = read(path, "pairs", columns=columns, values=values).rows[1]
    assert (row.chosen, row.status) == (chosen, "ok") if chosen else row.reason == "tie"


@pytest.mark.parametrize(("label", "values"), [(1, {}), (False, {"first": [0], "second": [1]})])
def test_label_without_a_declared_meaning_stops(
    tmp_path: Path, label: Any, values: dict[str, Any]
) -> None:
    record = {"prompt": "Q", "a": "l", "b": "r", "y": label}
    columns = {"first": "a", "second": "b", "label": "y"}
    path = write_lines(tmp_path / "a.jsonl", record)
    with pytest.raises(DataError, match=f"line 1: the label is {label}, .*declare its meaning"):
        read(path, "pairs", columns=columns, values=values)


# --- ranked --------------------------------------------------------------------------------------


def test_one_scored_response_a_line(tmp_path: Path) -> None:
    """Three responses to one prompt with scores 3, 1, 1: two pairs, and a tie."""
    path = write_lines(
        tmp_path / "a.jsonl",
        *({"prompt": "Q", "response": r, "help": s} for r, s in (("a", 3), ("b", 1), ("c", 1))),
        {"prompt": "R", "response": "a", "help": 3},
        {"prompt": "S", "response": "a", "help": None},
    )
    imported = read(path, "ranked", columns={"score": "help"})
    assert {(row.chosen, row.rejected) for row in imported.usable} == {("a", "b"), ("a", "c")}
    assert imported.record.reasons == {
        "a score is missing": 1,
        "there is no other response to this prompt": 1,
        "tie: the scores are equal": 1,
    }


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"all": ["x", "y"], "r": [2, 1]}, {"responses": "all", "rank": "r"}),
        ({"all": '["x", "y"]', "r": "[0.1, 0.9]"}, {"responses": "all", "score": "r"}),
        (
            {"all": [{"text": "x", "s": 1}, {"text": "y", "s": 4}]},
            {"responses": "all", "response": "text", "score": "s"},
        ),
    ],
)
def test_several_ranked_responses_in_a_line(
    tmp_path: Path, record: dict[str, Any], columns: dict[str, Any]
) -> None:
    (row,) = read(
        write_lines(tmp_path / "a.jsonl", {"prompt": "Q", **record}), "ranked", columns=columns
    ).rows
    assert (row.chosen, row.rejected) == ("y", "x")


def test_one_response_that_cannot_be_used_loses_no_other(tmp_path: Path) -> None:
    """A null, `N/A` and a score of NaN are left out each by itself; three pairs remain."""
    path = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": "Q", "texts": ["a", None, "b"], "help": [1, None, 3]},
        {"prompt": "R", "texts": ["a", "b", "c", "d"], "help": ["N/A", "2", float("nan"), 4]},
        {"prompt": "S", "texts": [None, "b", "c"], "help": [9, 1, 2]},
    )
    columns = {"responses": "texts", "score": "help"}
    imported = read(path, "ranked", columns=columns)
    assert [(r.messages[0].content, r.chosen, r.rejected) for r in imported.usable] == [
        ("Q", "b", "a"),
        ("R", "d", "b"),
        ("S", "c", "b"),
    ]
    assert imported.record.reasons == {"a score is missing": 3, "no response (null)": 1}


def test_call_of_a_tool_beside_a_response_drops_it(tmp_path: Path) -> None:
    replies = [{"text": t, "s": s} for t, s in (("a", 1), ("b", 2), ("c", 3))]
    replies[2]["tool_calls"] = [{"id": "1"}]
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "Q", "all": replies})
    columns = {"responses": "all", "response": "text", "score": "s"}
    imported = read(path, "ranked", columns=columns)
    assert [(row.chosen, row.rejected) for row in imported.usable] == [("b", "a")]
    assert imported.record.reasons == {"a tool call": 1}


def test_decimals_are_labels_and_scores(tmp_path: Path) -> None:
    """A zero of eight places is spelled 0E-8."""
    label = pa.array([Decimal(0), Decimal(1)], pa.decimal128(10, 8))
    table = pa.table({"prompt": ["Q", "R"], "a": ["l", "l"], "b": ["r", "r"], "y": label})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"first": "a", "second": "b", "label": "y"}
    values = {"first": [0], "second": [1]}
    rows = read(tmp_path / "a.parquet", "pairs", columns=columns, values=values).rows
    assert [row.chosen for row in rows] == ["l", "r"]


def test_ranked_names_one_order() -> None:
    with pytest.raises(ValidationError, match="either score or rank"):
        RankedColumns(score="a", rank="b")


# --- files ---------------------------------------------------------------------------------------

ROWS = [{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "R", "chosen": "c",
        "rejected": "d"}]  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", [".json", ".one.json", ".jsonl", ".csv", ".parquet"])
def test_every_kind_of_file(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == ".csv":
        path.write_text("prompt,chosen,rejected\nQ,a,b\nR,c,d\n")
    elif suffix == ".jsonl":
        write_lines(path, *ROWS)
    else:
        path.write_text(json.dumps(ROWS, indent=None if "one" in suffix else 2))
    if zipped:
        path = path.rename(tmp_path / f"a{suffix}.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert [(row.chosen, row.rejected) for row in read(path, "pairs").rows] == [
        ("a", "b"),
        ("c", "d"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n  {"prompt": "Q"},\n  {"prompt": }\n]', "line 3: not JSON"),
        ('[\n  {"prompt": "Q"}\n  {"prompt": "R"}\n]', "line 3: a comma or ']' is needed"),
        ('[{"prompt": "Q"}]\n[{"a": 1}]', "text after the end"),
        ('[\n{"prompt": "Q"},\n7]', "line 3: holds a number"),
        ('[{"prompt": "Q", "chosen": "a", "chosen": "b"}]', "line 1: .*'chosen' repeats"),
        ("[]", "has no rows"),
        ("[", "line 1: not JSON"),
    ],
)
def test_broken_array_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path, "pairs")
