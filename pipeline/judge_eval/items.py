"""Labeled pairs as the judge stage reads them, and what the judge said about each of them.

In:  LabeledRow of the importers (messages, chosen, rejected); afterwards the JudgmentRows
Out: Item: a pair with the order in which it is shown, as PromptRows and ResponseRows;
     Verdict: all probabilities as P(the chosen response), so that 1 is right whichever was first

Which response is `first` is drawn by seed from the row id. If the chosen one always were, a judge
that likes slot A would look good in one order, and every figure by order would be one-sided. A pair
without a readable label is a Verdict too: it counts in the shares that say so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.constitution import Constitution, Principle
from pipeline.errors import DataError
from pipeline.ids import row_id, text_hash, uniform
from pipeline.labeling.known_labels import KnownLabel
from pipeline.records import JudgmentRow, PromptRow, ResponseRow, Status
from pipeline.soft_labels import orders_agree, outcome
from pipeline.sources.rows import Imported, LabeledRow

FIRSTS, SECONDS = "labeled/first", "labeled/second"
"""Folders of the responses; a pair has the same `sample_index` in both."""
TAG = "principle:"
"""Begins the tag by which a label names its principle, as `rlaif review` writes it."""
UNDECIDED = "given under a principle that no judge decides"


@dataclass(frozen=True)
class Item:
    """One labeled pair in the order in which the judge reads it."""

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
    def key(self) -> tuple[str, str]:
        """Ids of the first and of the second response, which a judgment of this pair names."""
        # Two people may have labeled one pair: each label is a comparison of its own.
        first, second = (
            row_id("labeled response", self.row.row_id, text) for text in (self.first, self.second)
        )
        return first, second


def make_items(rows: Iterable[LabeledRow], *, seed: int, limit: int | None = None) -> list[Item]:
    """The pairs in their order, at most `limit` of them, drawn by seed."""
    pairs = list(rows)
    if limit is not None and limit < len(pairs):
        ranked = sorted((uniform("judge-eval limit", seed, p.row_id), p.row_id) for p in pairs)
        drawn = {name for _, name in ranked[:limit]}
        pairs = [pair for pair in pairs if pair.row_id in drawn]
    return [Item(pair, uniform("judge-eval first", seed, pair.row_id) < 0.5) for pair in pairs]


def usable_rows(imports: Sequence[Imported]) -> list[LabeledRow]:
    """All pairs that say which response is better; ties were dropped by their importer. A label
    that several sources hold, such as two versions of one run's data set, is there once.

    Raises:
        DataError: a source has no pairs.
    """
    pairs: dict[str, LabeledRow] = {}
    for each in imports:
        if not all(isinstance(row, LabeledRow) for row in each.rows):
            raise DataError(
                f"source '{each.record.name}' holds single replies, but a judge compares two; "
                "leave it out of the source list"
            )
        for row in each.usable:
            if row.soft_label is not None and row.soft_label > 0.5:
                pairs.setdefault(row.label_key, row)
    if not pairs:
        raise DataError("the sources hold no pair with a better response; check the label column")
    return list(pairs.values())


def named_principles(row: LabeledRow, constitution: Constitution) -> tuple[Principle, ...] | None:
    """The principles under which a pair was compared, several for a pooled label, as far as a judge
    decides them; None for a label that names none.
    """
    tags = [tag.removeprefix(TAG) for tag in row.tags if tag.startswith(TAG)]
    if not (names := row.principle_id or "+".join(tags)):
        return None
    by_id = {principle.id: principle for principle in constitution.judged}
    return tuple(by_id[name] for name in dict.fromkeys(names.split("+")) if name in by_id)


def without_undecided(
    imports: Sequence[Imported], constitution: Constitution
) -> tuple[list[Imported], dict[str, tuple[Principle, ...]]]:
    """The sources without the labels that were given under principles of which a judge decides
    none, and by row id the principles of the others: under another principle a label says nothing.

    Raises:
        DataError: no label is left.
    """
    under = {
        row.row_id: principles
        for each in imports
        for row in each.rows
        if isinstance(row, LabeledRow)
        and (principles := named_principles(row, constitution)) is not None
    }
    left = [_without(each, {name for name, p in under.items() if not p}) for each in imports]
    if not any(each.usable for each in left):
        raise DataError(
            "all labels were given under principles that constitution "
            f"'{constitution.name}' does not have or has a check for, so no judge is asked; name "
            "the recipe of their run, or other labels"
        )
    return left, {name: principles for name, principles in under.items() if principles}


def _without(each: Imported, names: set[str]) -> Imported:
    rows = tuple(
        replace(row, status="dropped", reason=UNDECIDED)
        if row.row_id in names and row.status == "ok"
        else row
        for row in each.rows
    )
    if not (number := sum(row.reason == UNDECIDED for row in rows)):
        return each
    record = replace(
        each.record,
        num_ok=each.record.num_ok - number,
        num_dropped=each.record.num_dropped + number,
        reasons={**each.record.reasons, UNDECIDED: number},
    )
    return Imported(rows, record)


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

    def responses(side: int) -> list[ResponseRow]:
        return [
            ResponseRow(
                row_id=item.key[side],
                parent_ids=(prompt,),
                run_id=run_id,
                input_hash=text_hash(prompt, text),
                prompt_id=prompt,
                model_fingerprint=f"source:{item.row.source}",
                sample_index=index,
                response=text,
                finish_reason="stop",
            )
            for prompt, group in groups.items()
            for index, item in enumerate(group)
            for text in ((item.first, item.second)[side],)
        ]

    return responses(0), responses(1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge said about one labeled pair; probabilities are P(the chosen response)."""

    prompt_id: str
    chosen_first: bool
    status: Status
    reason: str
    """Why there is no label."""
    label: float | None
    """Mean of both orders, calibrated where the recipe names a calibration."""
    raw_label: float | None
    """Mean of both orders before calibration."""
    forward: float | None
    """Of the call in which slot A held `first`."""
    swapped: float | None
    """Of the call in which slot A held `second`."""
    exact: bool
    """False when an option was absent and its bound was used."""
    longer: int
    """1 when the chosen response has more words, -1 when fewer, 0 when as many."""
    principle_id: str
    tags: tuple[str, ...]

    @property
    def right(self) -> float | None:
        """1 for a right label, 0 for a wrong one, 0.5 for exactly 0.5."""
        return None if self.label is None else outcome(self.label)

    @property
    def by_slot(self) -> tuple[float, float] | None:
        """P(chosen) when the chosen response was in slot A, and when it was in slot B."""
        if self.forward is None or self.swapped is None:
            return None
        return (self.forward, self.swapped) if self.chosen_first else (self.swapped, self.forward)


def read_verdicts(items: Iterable[Item], judgments: Iterable[JudgmentRow]) -> list[Verdict]:
    """One verdict per judgment; judgments of other pairs are left out."""
    by_key = {item.key: item for item in items}
    return [
        _verdict(by_key[key], row)
        for row in judgments
        if (key := (row.first_id, row.second_id)) in by_key
    ]


def known_labels(verdicts: Sequence[Verdict]) -> tuple[KnownLabel, ...]:
    """The readable verdicts as a bound of the error takes them."""
    return tuple(
        KnownLabel(
            prompt_id=v.prompt_id,
            label=v.label,
            # A pooled label has no orders that could disagree.
            orders_agree=v.forward is None
            or v.swapped is None
            or orders_agree(v.forward, 1.0 - v.swapped),
        )
        for v in verdicts
        if v.label is not None
    )


def readable(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those with a label."""
    return [verdict for verdict in verdicts if verdict.label is not None]


def compare_lengths(first: str, second: str) -> int:
    """1 when the first text has more words, -1 when fewer, 0 when as many."""
    a, b = len(first.split()), len(second.split())
    return (a > b) - (a < b)


def _verdict(item: Item, row: JudgmentRow) -> Verdict:
    def of_chosen(prob_first: float | None) -> float | None:
        # A row that is not ok may still have the number of one order, which is not a label.
        if prob_first is None or row.status != "ok":
            return None
        return prob_first if item.chosen_first else 1.0 - prob_first

    return Verdict(
        prompt_id=row.prompt_id,
        chosen_first=item.chosen_first,
        status=row.status,
        reason=row.reason,
        label=of_chosen(row.prob_first),
        raw_label=of_chosen(row.prob_first if row.raw_label is None else row.raw_label),
        forward=of_chosen(row.prob_forward),
        swapped=of_chosen(None if row.prob_swapped is None else 1.0 - row.prob_swapped),
        exact=row.exact,
        longer=compare_lengths(item.row.chosen, item.row.rejected),
        principle_id=row.principle_id,
        tags=item.row.tags,
    )
