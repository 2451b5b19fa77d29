r"""Rows: one frozen class per kind, each with its Arrow schema.

    PromptRow -> ResponseRow -> CritiqueRow -> RevisionRow -> ... -> JudgmentRow -> PreferenceRow
                             \-> ScoreRow -> JudgmentRow           \-> SftRow

Every row has `row_id` (hash of all that determined it), `parent_ids`, `run_id`, `status` with a
`reason`, and `input_hash`: a hash of the texts that went in. A stored row is reused only when
both hashes agree, so a parent that was drawn again is never joined to an old child.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import pyarrow as pa

from pipeline.types import Message, Messages

Status = typing.Literal["ok", "unparsed", "failed", "dropped"]
STATUSES: tuple[Status, ...] = typing.get_args(Status)

RARE = ("thoughts", "num_thought_tokens")
"""Columns that a file has only where one of its rows has a value there."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[float, ...]: pa.list_(pa.float64()),
    Messages: _MESSAGES,
    Status: pa.string(),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What all rows share."""

    kind: ClassVar[str] = "row"

    row_id: str
    """Hash of everything that determined the row."""
    parent_ids: tuple[str, ...] = ()
    """Rows whose texts went in."""
    run_id: str = ""
    """The run that made it."""
    status: Status = "ok"
    """`ok`, `unparsed` (reply not readable), `failed` (call failed for good), `dropped`."""
    reason: str = ""
    """Why the status is not ok, or what an ok row lacks."""
    input_hash: str = ""
    """Hash of the texts that went in."""

    @classmethod
    @cache
    def schema(cls) -> pa.Schema:
        """The Arrow schema, from the annotations."""
        return pa.schema(
            [
                pa.field(name, arrow_type(hint), nullable=optional)
                for name, (hint, optional) in (
                    (name, _unwrap(hint)) for name, hint in field_hints(cls).items()
                )
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for Arrow or JSON."""
        return {
            name: _plain(value) if isinstance(value, tuple) else value
            for name in field_hints(type(self))
            for value in (getattr(self, name),)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The row again; the inverse of `as_dict`."""
        return cls(
            **{name: _restore(values[name], hint) for name, hint in field_hints(cls).items()}
        )


@dataclass(frozen=True, kw_only=True)
class PromptRow(Row):
    """A conversation that ends with a user turn."""

    kind: ClassVar[str] = "prompt"
    messages: Messages = ()
    source: str = ""
    """File or table that it came from."""
    source_index: int = 0
    """Line or row in it, from 1."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRow(Row):
    """A row that a model made: which model, how, and at what cost in tokens."""

    prompt_id: str = ""
    model_fingerprint: str = ""
    template_hash: str = ""
    seed: int = 0
    finish_reason: str = ""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_tokens: int = 0
    thoughts: tuple[str, ...] | None = None
    """What the model thought before each of its replies, empty for one without; None where it
    thought before none. Never compared, judged or learned, except by `supervised.sft_thoughts`."""
    num_thought_tokens: int | None = None
    """Of `num_tokens`, those of thoughts; None where the engine does not say."""

    @property
    def thought(self) -> str:
        """The thoughts as one text; empty without any."""
        return "\n\n".join(filter(None, self.thoughts or ()))


@dataclass(frozen=True, kw_only=True)
class ResponseRow(ModelRow):
    """One reply of a policy to a prompt."""

    kind: ClassVar[str] = "response"
    sample_index: int = 0
    """0 to num_samples - 1."""
    response: str = ""


@dataclass(frozen=True, kw_only=True)
class CritiqueRow(ModelRow):
    """A model's critique of a response under one principle."""

    kind: ClassVar[str] = "critique"
    response_id: str = ""
    """The response or revision that is criticized."""
    initial_id: str = ""
    """The response at the start of the chain."""
    round: int = 1
    principle_id: str = ""
    principle_hash: str = ""
    critique: str = ""


@dataclass(frozen=True, kw_only=True)
class RevisionRow(ModelRow):
    """A response rewritten after a critique."""

    kind: ClassVar[str] = "revision"
    response_id: str = ""
    """The response or revision that is rewritten."""
    initial_id: str = ""
    critique_id: str = ""
    round: int = 1
    principle_id: str = ""
    principle_hash: str = ""
    revision: str = ""
    skipped: bool = False
    """True when the critique found no fault, so that the text is unchanged."""
    faults: tuple[str, ...] = ()
    """Signs that it is not a revision: `critique`, `request`, `meta`, `copy`, `evasion`; or that a
    check fails: `unmet`, the one of its principle, and `broken`, one that held before."""


@dataclass(frozen=True, kw_only=True)
class JudgmentRow(ModelRow):
    """A comparison and P(first preferred). The judge gives verdicts and ids, never texts.

    A label of a check, and one that is assumed, has no fingerprint and no orders: no model was
    asked.
    """

    kind: ClassVar[str] = "judgment"
    comparison: str = ""
    """`samples`, `revision_vs_initial`, `best_vs_worst`, `delta`, `evaluation`, `efficacy` or
    `canary`."""
    method: str = "judge"
    """`judge`, `score`, `follow_up` or `reward_model`; `check` for a label that a program decided,
    `assumed` for one that the recipe states; `pooled` for a mean over principles and judges."""
    first_id: str = ""
    second_id: str = ""
    principle_id: str = ""
    principle_hash: str = ""
    prob_forward: float | None = None
    """P(slot A) when slot A holds `first`, before any clamp."""
    prob_swapped: float | None = None
    """P(slot A) when slot A holds `second`, before any clamp."""
    option_logprobs: tuple[float, ...] = ()
    """Raw log-probabilities (nats): forward A, forward B, swapped A, swapped B; NaN for absent."""
    exact: bool = True
    """False when an option was absent and its bound was used."""
    clamp_low: float | None = None
    clamp_high: float | None = None
    prob_first: float | None = None
    """P(first preferred), the mean of both orders, in [0, 1]; None when it could not be read."""
    position_gap: float | None = None
    """|difference of the two orders|, in [0, 1]; None for a label that has no orders."""
    rationales: tuple[str, ...] = ()
    """Chain of thought: what the judge wrote in the forward and in the swapped order. Of a check:
    why the first and why the second response does not hold the principle, empty for one that does.
    """
    raw_label: float | None = None
    """`prob_first` before calibration, where one was applied."""
    calibration_hash: str = ""
    """The calibration that was applied, if any."""
    num_verdicts: int = 1
    """Readable verdicts behind the label: principles times judges."""
    parts: tuple[str, ...] = ()
    """For labels from scores: principle ids, or categories of follow-ups."""
    part_differences: tuple[float, ...] = ()
    """Value of `first` minus value of `second` for each part: which of them decided."""


@dataclass(frozen=True, kw_only=True)
class CanaryRow(JudgmentRow):
    """A comparison whose answer is known, asked in the same batch as the others."""

    kind: ClassVar[str] = "canary"
    canary: str = ""
    """`known`, `swapped`, `identical`, `padded`, `injected` or `checked`."""
    canary_id: str = ""
    """The shipped canary, or the response that it was made from."""
    first_text: str = ""
    second_text: str = ""
    expected: float | None = None
    """What the label should be: 1.0 or 0.0 for a side, 0.5 for neither, in between for `swapped`.
    """


@dataclass(frozen=True, kw_only=True)
class ScoreRow(ModelRow):
    """The score of one response on its own; without a fingerprint where checks alone decided it."""

    kind: ClassVar[str] = "score"
    method: str = ""
    """`score` (a rating), `follow_up` (follow-up likelihood) or `reward_model`."""
    response_id: str = ""
    principle_hash: str = ""
    """Hashes of the principles, joined by `+`; empty for follow-ups and rewards."""
    parts: tuple[str, ...] = ()
    """Principle ids, or categories of follow-ups; empty for rewards."""
    values: tuple[float, ...] = ()
    """The attribute vector: one value per part; NaN for one that could not be read."""
    exact: bool = True
    """False when a rating was absent and its bound was used."""
    score: float | None = None
    """Weighted mean of the values: rating points in [1, number of ratings], or nats per token. Of a
    reward model: its logit, which has no unit."""
    details: tuple[float, ...] = ()
    """Raw numbers behind the values, in the order in which they were asked."""


@dataclass(frozen=True, kw_only=True)
class PreferenceRow(Row):
    """A finished pair, or the reason why there is none."""

    kind: ClassVar[str] = "preference"
    prompt_id: str = ""
    judgment_id: str = ""
    comparison: str = ""
    principle_id: str = ""
    messages: Messages = ()
    chosen: str = ""
    rejected: str = ""
    chosen_id: str = ""
    rejected_id: str = ""
    soft_label: float | None = None
    """P(chosen is preferred), in [0.5, 1]."""
    margin: float | None = None
    """Log-odds of it, in nats."""
    position_gap: float | None = None
    orders_agree: bool = False


@dataclass(frozen=True, kw_only=True)
class SftRow(Row):
    """A prompt and the reply that the SL-CAI policy learns."""

    kind: ClassVar[str] = "sft"
    prompt_id: str = ""
    messages: Messages = ()
    completion: str = ""
    completion_id: str = ""
    """The revision (or response) that it is."""
    round: int = 0


ROW_TYPES: dict[str, type[Row]] = {
    cls.kind: cls
    for cls in (
        PromptRow,
        ResponseRow,
        CritiqueRow,
        RevisionRow,
        JudgmentRow,
        CanaryRow,
        ScoreRow,
        PreferenceRow,
        SftRow,
    )
}


def field_hints(row_type: type[Row]) -> dict[str, Any]:
    """Name and resolved annotation of each field, in order."""
    return _field_hints(row_type)  # type: ignore[arg-type]  # mypy reads a class's hash as its rows'


@cache
def _field_hints(row_type: type[Row]) -> dict[str, Any]:
    hints = typing.get_type_hints(row_type)
    return {f.name: hints[f.name] for f in dataclasses.fields(row_type)}


def arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of an annotation. Raises KeyError for one that has none."""
    return _ARROW[hint]


def table_from_rows(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """Rows as an Arrow table with the schema of their type, without `RARE` columns of nulls."""
    # Column by column, as `rows_from_table`: a dictionary for each row costs more than the rows.
    columns = [
        _plain_column([getattr(row, name) for row in rows], hint)
        for name, hint in field_hints(row_type).items()
    ]
    schema = row_type.schema()
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    empty = [n for n in RARE if n in table.column_names and table[n].null_count == len(rows)]
    return table.drop_columns(empty)


def with_rare_columns(table: pa.Table, row_type: type[Row]) -> pa.Table:
    """The table with the columns that `table_from_rows` left out."""
    schema = row_type.schema()
    for index, field in enumerate(schema):
        if field.name in RARE and field.name not in table.column_names:
            nulls = pa.nulls(table.num_rows, field.type)
            table = table.add_column(min(index, table.num_columns), field, nulls)
    return table


def rows_from_table(table: pa.Table, row_type: type[Row]) -> list[Any]:
    """The rows of a table, in order."""
    table, hints = with_rare_columns(table, row_type), field_hints(row_type)
    columns = [
        [_restore(value, hint) for value in table[name].to_pylist()]
        if pa.types.is_list(table[name].type)
        else table[name].to_pylist()
        for name, hint in hints.items()
    ]
    return [
        row_type(**dict(zip(hints, values, strict=True))) for values in zip(*columns, strict=True)
    ]


def count_statuses(rows: Iterable[Row]) -> dict[str, int]:
    """Rows per status, all four always present."""
    counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
    for row in rows:
        counts[row.status] += 1
    return counts


def _unwrap(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType) and type(None) in hint.__args__:
        (inner,) = [arg for arg in hint.__args__ if arg is not type(None)]
        return inner, True
    return hint, False


def _plain(values: tuple[Any, ...]) -> list[Any]:
    return [v.as_dict() if isinstance(v, Message) else v for v in values]


def _plain_column(values: list[Any], hint: Any) -> list[Any]:
    return [_plain(value) for value in values] if hint == Messages else values


def _restore(value: Any, hint: Any) -> Any:
    if not isinstance(value, list):
        return value
    if hint == Messages:
        return tuple(Message(m["role"], m["content"]) for m in value)
    return tuple(value)
