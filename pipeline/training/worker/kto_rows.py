"""Replies on their own, for KTO: from pairs and from users' feedback to batches that TRL can take.

In:  encoded replies, each good or bad: two of every pair, one of every row of feedback
Out: columns of token ids in the order of training, and what became of the replies

Two rules about labels. A reply that is good in one place and bad in another is trained on neither
side: we cannot tell who is right. A reply that has the same label several times is trained once.

Two rules about order. TRL takes the rows as they come and estimates the divergence on replies of
other prompts (`KL_completion_ids`), so replies to one prompt, such as the halves of a pair, are
kept out of each other's batch, and the mismatched reply never answers the same prompt.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipeline.config.training import KtoConfig
from pipeline.errors import DataError
from pipeline.ids import content_hash, conversation_key, plain_text
from pipeline.training.job import ReplyCounts
from pipeline.types import messages_from

Columns = dict[str, list[Any]]
Ids = list[int]


@dataclass(frozen=True)
class Reply:
    """One reply to one prompt, with its label."""

    row_id: str
    """Unique in the job: that of the row, with `:chosen` or `:rejected` for half a pair."""
    key: str
    """Id of prompt and text: two rows with one key judge one reply; see `reply_key`."""
    prompt: Ids
    ids: Ids
    """The reply up to its end of turn."""
    good: bool


def reply_key(messages: Sequence[dict[str, str]], text: str) -> str:
    """Id of a reply to a prompt; texts that a reader cannot tell apart have one id.

    Importers strip white space and people's keyboards choose a Unicode form; models do neither.
    """
    return content_hash([conversation_key(messages_from(messages)), plain_text(text)])


def resolve_contradictions(replies: Sequence[Reply]) -> tuple[list[Reply], ReplyCounts]:
    """Each reply once and on one side; the first of several rows stays.

    Raises:
        DataError: one side is empty then.
    """
    sides: dict[str, set[bool]] = {}
    for reply in replies:
        sides.setdefault(reply.key, set()).add(reply.good)
    consistent = [reply for reply in replies if len(sides[reply.key]) == 1]
    first = {reply.key: reply for reply in reversed(consistent)}
    kept = [reply for reply in consistent if first[reply.key] is reply]
    good = sum(reply.good for reply in kept)
    counts = ReplyCounts(
        read=len(replies),
        contradicted=len(replies) - len(consistent),
        repeated=len(consistent) - len(kept),
        desirable=good,
        undesirable=len(kept) - good,
    )
    if not counts.desirable or not counts.undesirable:
        raise DataError(
            f"{counts.desirable} desirable and {counts.undesirable} undesirable replies are left "
            f"to train on ({counts.contradicted} of {counts.read} are labeled both ways), but KTO "
            "needs both sides; add labels of the other side"
        )
    return kept, counts


def side_weights(config: KtoConfig, replies: ReplyCounts | None) -> dict[str, float]:
    """TRL's `desirable_weight` and `undesirable_weight`, with `balance` those of equal force.

    The smaller side's weight is raised by the ratio of the counts, since TRL's documentation of
    KTO advises a ratio of weight times count between 1 and 4/3.
    """
    good = bad = 1.0
    if config.balance and replies is not None:
        larger = max(replies.desirable, replies.undesirable)
        good, bad = larger / replies.desirable, larger / replies.undesirable
    return {
        "desirable_weight": config.desirable_weight * good,
        "undesirable_weight": config.undesirable_weight * bad,
    }


def unpaired_columns(replies: Sequence[Reply], batch_size: int, seed: int) -> Columns:
    """The replies in seeded order, each with a mismatched reply for the divergence.

    That reply is the one before it in its batch, so that a batch is estimated on its own replies;
    where that answers the same prompt, the next one before it that does not.

    Raises:
        DataError: all replies answer one prompt.
    """
    order = _group_into_batches(replies, batch_size, random.Random(seed))
    return {
        "row_id": [reply.row_id for reply in order],
        "prompt_ids": [reply.prompt for reply in order],
        "completion_ids": [reply.ids for reply in order],
        "KL_completion_ids": [_mismatched(i, order, batch_size) for i in range(len(order))],
        "label": [reply.good for reply in order],
        "length": [len(reply.prompt) + len(reply.ids) for reply in order],
    }


def _group_into_batches(
    replies: Sequence[Reply], batch_size: int, generator: random.Random
) -> list[Reply]:
    """Deal the replies to the batches like cards, prompt by prompt.

    So a prompt meets itself in a batch only when it has more replies than there are batches.
    """
    by_prompt: dict[tuple[int, ...], list[Reply]] = {}
    for reply in sorted(replies, key=lambda reply: reply.row_id):
        by_prompt.setdefault(tuple(reply.prompt), []).append(reply)
    prompts = list(by_prompt.values())
    generator.shuffle(prompts)
    for prompt in prompts:
        generator.shuffle(prompt)
    # The large ones first: a last batch that is short leaves fewer places at the end.
    prompts.sort(key=len, reverse=True)
    deck = chain.from_iterable(prompts)
    num_full, rest = divmod(len(replies), batch_size)
    sizes = [batch_size] * num_full + [rest] * bool(rest)
    batches: list[list[Reply]] = [[] for _ in sizes]
    for place in range(batch_size):
        for batch, size in zip(batches, sizes, strict=True):
            if place < size:
                batch.append(next(deck))
    full, short = batches[:num_full], batches[num_full:]
    generator.shuffle(full)
    return list(chain.from_iterable([*full, *short]))


def _mismatched(index: int, order: Sequence[Reply], batch_size: int) -> Ids:
    start = index - index % batch_size
    size = min(batch_size, len(order) - start)
    in_batch = (start + (index - start - step) % size for step in range(1, size))
    anywhere = ((index - step) % len(order) for step in range(1, len(order)))
    for other in chain(in_batch, anywhere):
        if order[other].prompt != order[index].prompt:
            return order[other].ids
    raise DataError(
        f"all {len(order)} replies answer one prompt, but KTO estimates the divergence on replies "
        "to other prompts; add rows with another prompt"
    )
