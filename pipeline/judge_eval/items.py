"""Labelled pairs as the judge stage reads them: prompts, and two responses each as first and second.

In:  LabeledRow of the importers: messages, chosen, rejected
Out: Item: the pair with the order in which it is shown; PromptRows; ResponseRows of both folders

Which response is `first` is drawn by seed from the row id. If the chosen one always were, a judge
that likes slot A would look good in one order, and every figure by order would be one-sided.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import DataError
from pipeline.ids import row_id, text_hash, uniform
from pipeline.records import PromptRow, ResponseRow
from pipeline.sources.rows import Imported, LabeledRow, SourceRecord

FIRSTS, SECONDS = "labeled/first", "labeled/second"
"""Folders of the responses; a pair has the same `sample_index` in both."""


@dataclass(frozen=True)
class Item:
    """One labelled pair in the order in which the judge is asked."""

    row: LabeledRow
    chosen_first: bool
    """Whether the better response is `first`."""

    @property
    def first(self) -> str:
        """Text of the first response."""
        return self.row.chosen if self.chosen_first else self.row.rejected

    @property
    def second(self) -> str:
        """Text of the second response."""
        return self.row.rejected if self.chosen_first else self.row.chosen

    @cached_property
    def first_id(self) -> str:
        """Id of the first response."""
        return _response_id(self.row, self.first)

    @cached_property
    def second_id(self) -> str:
        """Id of the second response."""
        return _response_id(self.row, self.second)

    @property
    def key(self) -> tuple[str, str]:
        """What a judgment of this pair names."""
        return self.first_id, self.second_id


def make_items(rows: Iterable[LabeledRow], *, seed: int, limit: int | None = None) -> list[Item]:
    """The pairs in their order, at most `limit` of them, drawn by seed."""
    found = list(rows)
    if limit is not None and limit < len(found):
        drawn = heapq.nsmallest(
            limit, ((uniform("judge-eval limit", seed, row.row_id), row.row_id) for row in found)
        )
        kept = {identity for _, identity in drawn}
        found = [row for row in found if row.row_id in kept]
    return [Item(row, uniform("judge-eval first", seed, row.row_id) < 0.5) for row in found]


def usable_rows(imports: Sequence[Imported]) -> list[LabeledRow]:
    """All pairs that say which response is better; ties were dropped by their importer.

    Raises:
        DataError: a source has no pairs.
    """
    found: list[LabeledRow] = []
    for each in imports:
        if not all(isinstance(row, LabeledRow) for row in each.rows):
            raise DataError(
                f"source '{each.record.name}' holds single replies, but a judge compares two; "
                "leave it out of the source list"
            )
        found += [row for row in each.usable if row.soft_label is not None and row.soft_label > 0.5]
    if not found:
        raise DataError("the sources hold no pair with a better response; check the label column")
    return found


def source_facts(imports: Sequence[Imported]) -> list[dict[str, object]]:
    """What was read and what was left out, by source, for the report."""
    return [_facts(each.record) for each in imports]


def prompt_rows(items: Sequence[Item], run_id: str) -> list[PromptRow]:
    """The contexts, each once, in the order of the pairs."""
    first: dict[str, LabeledRow] = {}
    for item in items:
        first.setdefault(item.row.prompt_id, item.row)
    return [
        PromptRow(
            row_id=prompt,
            run_id=run_id,
            messages=row.messages,
            source=row.source,
            source_index=row.source_index,
            tags=row.tags,
        )
        for prompt, row in first.items()
    ]


def response_rows(
    items: Sequence[Item], prompts: Iterable[str], run_id: str
) -> tuple[list[ResponseRow], list[ResponseRow]]:
    """First and second responses of the pairs of these prompts."""
    groups: dict[str, list[Item]] = {prompt: [] for prompt in prompts}
    for item in items:
        if item.row.prompt_id in groups:
            groups[item.row.prompt_id].append(item)
    firsts, seconds = [], []
    for group in groups.values():
        for index, item in enumerate(group):
            firsts.append(_response(item.row, item.first_id, item.first, index, run_id))
            seconds.append(_response(item.row, item.second_id, item.second, index, run_id))
    return firsts, seconds


def _response(row: LabeledRow, identity: str, text: str, index: int, run_id: str) -> ResponseRow:
    return ResponseRow(
        row_id=identity,
        parent_ids=(row.prompt_id,),
        run_id=run_id,
        input_hash=text_hash(row.prompt_id, text),
        prompt_id=row.prompt_id,
        model_fingerprint=f"source:{row.source}",
        sample_index=index,
        response=text,
        finish_reason="stop",
    )


def _response_id(row: LabeledRow, text: str) -> str:
    # Two people may have labelled the same pair: each label is a comparison of its own.
    return row_id("labeled response", row.row_id, text)


def _facts(record: SourceRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "kind": record.kind,
        "file": record.path,
        "sha256": record.sha256,
        "num_rows": record.num_rows,
        "num_ok": record.num_ok,
        "num_dropped": record.num_dropped,
        "reasons": dict(record.reasons),
        "notes": dict(record.notes),
    }
