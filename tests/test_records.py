"""Every kind of row survives Parquet, with its exact types."""

import dataclasses
import io
import typing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records import (
    ROW_TYPES,
    STATUSES,
    JudgmentRow,
    ModelRow,
    PromptRow,
    Row,
    arrow_type,
    count_statuses,
    field_hints,
    rows_from_table,
    table_from_rows,
)
from pipeline.store.shards import parquet_bytes
from pipeline.types import Message, Messages, assistant, user

SAMPLES: dict[typing.Any, typing.Any] = {
    str: "ü\n{{ 7*7 }}",
    int: 2**40,
    float: 0.1 + 0.2,
    bool: False,
    float | None: 0.25,
    int | None: 7,
    tuple[str, ...] | None: ("", "b"),
    tuple[str, ...]: ("a", ""),
    tuple[float, ...]: (-0.5, -1e-9),
    Messages: (Message("system", "s"), user("u"), assistant("a"), user("")),
}


def full_row(row_type: type[Row]) -> Row:
    """A row in which every field differs from its default."""
    values: dict[str, Any] = {
        name: SAMPLES.get(hint, "dropped") for name, hint in field_hints(row_type).items()
    }
    return row_type(**values)


@pytest.mark.parametrize("row_type", ROW_TYPES.values())
def test_row_round_trips_through_parquet(row_type: type[Row]) -> None:
    rows = [full_row(row_type), row_type(row_id="empty")]
    table = pq.read_table(io.BytesIO(parquet_bytes(table_from_rows(rows, row_type))))
    assert table.schema.equals(row_type.schema())
    assert rows_from_table(table, row_type) == rows


@pytest.mark.parametrize("row_type", ROW_TYPES.values())
def test_row_is_frozen_and_documented(row_type: type[Row]) -> None:
    row = row_type(row_id="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.reason = "changed"  # type: ignore[misc]
    assert row_type.__doc__ and not row_type.__doc__.startswith(row_type.__name__)


def test_empty_table_keeps_its_schema() -> None:
    assert table_from_rows([], PromptRow).schema == PromptRow.schema()


def test_only_optional_values_are_nullable() -> None:
    nullable = {f.name for f in JudgmentRow.schema() if f.nullable}
    assert nullable == {
        "prob_forward",
        "prob_swapped",
        "clamp_low",
        "clamp_high",
        "prob_first",
        "position_gap",
        "raw_label",
        "thoughts",
        "num_thought_tokens",
    }


def test_missing_option_stays_nan() -> None:
    row = JudgmentRow(row_id="x", option_logprobs=(-0.5, float("nan")))
    (back,) = rows_from_table(table_from_rows([row], JudgmentRow), JudgmentRow)
    assert back.option_logprobs[0] == -0.5 and back.option_logprobs[1] != back.option_logprobs[1]
    assert back.prob_first is None


def test_equal_rows_give_equal_bytes() -> None:
    rows = [full_row(JudgmentRow), JudgmentRow(row_id="b")]
    again = [JudgmentRow.from_dict(row.as_dict()) for row in rows]
    first = parquet_bytes(table_from_rows(rows, JudgmentRow))
    assert first == parquet_bytes(table_from_rows(again, JudgmentRow))


def test_statuses_are_all_counted() -> None:
    rows = [PromptRow(row_id=str(i), status=s) for i, s in enumerate((*STATUSES, "ok"))]
    assert count_statuses(rows) == {"ok": 2, "unparsed": 1, "failed": 1, "dropped": 1}
    assert count_statuses([]) == dict.fromkeys(STATUSES, 0)


def test_kinds_have_their_own_names() -> None:
    assert all(kind == row_type.kind for kind, row_type in ROW_TYPES.items())
    assert len(ROW_TYPES) == 9


def test_unknown_annotation_has_no_column() -> None:
    with pytest.raises(KeyError):
        arrow_type(dict[str, int])


def test_model_rows_state_their_cost() -> None:
    assert issubclass(JudgmentRow, ModelRow)
    schema = JudgmentRow.schema()
    assert schema.field("num_prompt_tokens").type == pa.int64()
