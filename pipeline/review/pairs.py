"""Which pairs people see, and in what order.

In:  shards of preference/pair of a run, and their prompts
Out: Pair: two responses in an order that says nothing, with the question that the judge was asked

A third of the pairs are a random sample, drawn first, so that their figures hold for the whole run.
The others are those whose judge was least sure, and those whose two orders disagreed most.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from pipeline.constitution import load_constitution
from pipeline.errors import DataError
from pipeline.evaluation.shard_columns import RowDict, conversations, iter_shards, read_columns
from pipeline.ids import text_hash, uniform
from pipeline.records import PreferenceRow
from pipeline.store import RunDir
from pipeline.store.stage_names import PAIRS, PROMPTS
from pipeline.types import Message, Messages

Side = Literal["first", "second"]
Reason = Literal["random", "unsure", "disagreement"]


@dataclass(frozen=True)
class Pair:
    """Two responses to compare; which of them is `first` depends on their texts alone."""

    row_id: str
    prompt_id: str
    principle_id: str
    question: str
    """What the judge was asked; empty where no principle was."""
    messages: Messages
    first: str
    second: str
    judge: Side | None
    """The response that the label prefers; None for a label of exactly 0.5."""
    reason: Reason
    """Why it was drawn."""

    def preferring(self, side: Side) -> PreferenceRow:
        """The pair as labeled for one side."""
        texts = (self.first, self.second)
        chosen, rejected = texts if side == "first" else texts[::-1]
        return PreferenceRow(
            row_id=self.row_id, messages=self.messages, chosen=chosen, rejected=rejected
        )


def draw_pairs(run: RunDir, *, limit: int, seed: int) -> list[Pair]:
    """At most `limit` labeled pairs of a run, kept or dropped, with different texts.

    Raises:
        DataError: the run has no labeled pair yet.
        StoreError: a shard is damaged.
    """
    columns = ["row_id", "soft_label", "position_gap", "orders_agree"]
    rows = [
        row
        for _, shard in iter_shards(run.root, PAIRS, columns)
        for row in shard
        if row["soft_label"] is not None
    ]
    if not rows:
        raise DataError(
            f"run {run.run_id} has no labeled pair to review; `rlaif resume {run.run_id}` makes "
            "them"
        )
    reasons = dict(_in_turn(rows, limit=limit, seed=seed))
    principles = load_constitution(run.constitution).principles
    questions = {p.id: p.comparison_request for p in principles}
    pairs = [p for p in read_pairs(run.root, reasons, questions) if p.first != p.second]
    order = {row_id: number for number, row_id in enumerate(reasons)}
    return sorted(pairs, key=lambda pair: order[pair.row_id])


def _in_turn(rows: list[RowDict], *, limit: int, seed: int) -> list[tuple[str, Reason]]:
    """Row ids with their reasons, the three reasons in turn; a random row stays random however
    unsure its judge was.
    """
    ranked = sorted(rows, key=lambda row: uniform("review", seed, row["row_id"]))
    num_random = -(-limit // 3)
    drawn, rest = ranked[:num_random], ranked[num_random:]
    disagreeing = [r for r in rest if r["position_gap"] is not None and not r["orders_agree"]]
    disagreeing = sorted(disagreeing, key=lambda row: -row["position_gap"])[: limit // 3]
    taken = {row["row_id"] for row in disagreeing}
    unsure = sorted(
        (row for row in rest if row["row_id"] not in taken), key=lambda row: row["soft_label"]
    )
    groups: tuple[tuple[Reason, list[RowDict]], ...] = (
        ("random", drawn),
        ("unsure", unsure[: limit - len(drawn) - len(disagreeing)]),
        ("disagreement", disagreeing),
    )
    lists = [[(row["row_id"], reason) for row in group] for reason, group in groups]
    return [entry for entry in chain.from_iterable(zip_longest(*lists)) if entry]


def read_pairs(
    root: Path, reasons: Mapping[str, Reason], questions: Mapping[str, str]
) -> list[Pair]:
    """The pairs with these row ids, and why each was drawn.

    Args:
        questions: what the judge was asked, by id of the principle.
    """
    columns = ["row_id", "prompt_id", "principle_id", "chosen", "rejected", "soft_label"]
    pairs = []
    for manifest, ids in iter_shards(root, PAIRS, ["row_id"]):
        if not any(row["row_id"] in reasons for row in ids):
            continue
        prompts = next(
            (conversations(root, p) for p in manifest.inputs if str(Path(p).parent) == PROMPTS), {}
        )
        for row in read_columns(root, manifest.path, columns):
            if reason := reasons.get(row["row_id"]):
                texts = (row["chosen"], row["rejected"])
                first, second = sorted(texts, key=text_hash)
                pairs.append(
                    Pair(
                        row_id=row["row_id"],
                        prompt_id=row["prompt_id"],
                        principle_id=row["principle_id"],
                        question=questions.get(row["principle_id"], ""),
                        messages=tuple(
                            Message(role=m["role"], content=m["content"])  # type: ignore[arg-type]
                            for m in prompts.get(row["prompt_id"], [])
                        ),
                        first=first,
                        second=second,
                        judge=_judged(row, first),
                        reason=reason,
                    )
                )
    return pairs


def _judged(row: RowDict, first: str) -> Side | None:
    if row["soft_label"] == 0.5:
        return None
    return "first" if row["chosen"] == first else "second"
