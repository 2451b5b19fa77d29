"""Any file gives rows, or a DataError that names the file and, for a bad record, the line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.records import table_from_rows
from pipeline.sources.config import (
    AnySource,
    ExpertSource,
    PairColumns,
    PairsSource,
    RankedColumns,
    RankedSource,
)
from pipeline.sources.importing import SOURCE_TYPES, import_source

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
TEXTS = st.text(max_size=5) | st.sampled_from(
    ["Hi", "good", "\n\nHuman: Q\n\nAssistant: good", "\n\nHuman: Q\n\nAssistant: bad", "\ud800"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": TEXTS})
)
NAMES = (
    "prompt", "messages", "chosen", "rejected", "first", "second", "label", "p", "tags", "answer",
    "response", "event", "user", "author", "corrects", "incorrects", "text_correct",
    "text_incorrect",
)  # fmt: skip
WORDS = st.sampled_from(
    ["a", "2", "tie", "thumbs_up", "regenerate", [" (A)"], [" (B)"], 0.7, 10**400]
)
RECORD = st.dictionaries(st.sampled_from(NAMES), TEXTS | MESSAGES | WORDS | JSON)
COMPARED = PairColumns(
    first="first", second="second", label="label", label_accuracy="p", tags="tags"
)

LISTS = RankedColumns(responses="chosen", response="content", score="p")


def sources(path: Path) -> list[AnySource]:
    """A source of every type, and the variants that read other columns."""
    return [
        *(
            each.config(name=name, path=path)
            for name, each in SOURCE_TYPES.items()
            if name != "ranked"
        ),
        RankedSource(name="ranked", path=path, columns=RankedColumns(score="p")),
        RankedSource(name="lists", path=path, columns=LISTS),
        PairsSource(name="compared", path=path, columns=COMPARED),
        ExpertSource(name="two files", path=path, responses=path),
    ]


def assert_imports_or_is_named(path: Path) -> None:
    for source in sources(path):
        try:
            usable = import_source(source).usable
            # What is usable can be stored.
            assert table_from_rows(usable, type(usable[0])).num_rows == len(usable)
        except DataError as error:
            assert str(path) in str(error), source.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@given(records=st.lists(RECORD, min_size=1, max_size=3))
@QUICK
def test_any_records_are_rows_or_a_mistake(records: list[dict[str, Any]], folder: Path) -> None:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert_imports_or_is_named(path)


@given(text=st.text() | JSON.map(json.dumps), suffix=st.sampled_from([".jsonl", ".csv", ".tsv"]))
@QUICK
def test_any_text_is_rows_or_a_mistake(text: str, suffix: str, folder: Path) -> None:
    path = folder / f"a{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert_imports_or_is_named(path)


@given(record=RECORD)
@QUICK
def test_a_record_that_cannot_be_read_names_its_line(record: dict[str, Any], folder: Path) -> None:
    """The first line is sound, so an error is about the second one."""
    path = folder / "b.jsonl"
    sound = {"prompt": "Hi", "chosen": "good", "rejected": "bad"}
    path.write_text(f"{json.dumps(sound)}\n{json.dumps(record)}\n")
    try:
        rows = import_source(PairsSource(name="crowd", path=path)).rows
    except DataError as error:
        assert str(error).startswith(f"{path}, line 2: ")
    else:
        assert [row.source_index for row in rows] == [1, 2] and rows[0].status == "ok"
