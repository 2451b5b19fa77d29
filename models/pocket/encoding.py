"""From examples to tensors: token ids, what is learned where and with which weight, auxiliary
targets, batches.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.pocket.corpus import ADD_ONS, Example, Mark
from models.pocket.mixture import Shares, write_corpus
from models.pocket.oracle import ATTRIBUTES
from models.pocket.tokenizer import END
from models.pocket.world import CORES

VERDICT_WEIGHT = 6.0
"""A verdict is one token among dozens of words, and the one that matters."""
CHUNK_EXAMPLES = 3_000
NUM_AUX = len(CORES) + len(ADD_ONS) + len(ATTRIBUTES) + 1
"""Auxiliary outputs: cores, add-ons, attributes of a principle, level under the principle."""


@dataclass
class EncodedExample:
    """One example as numbers; positions are those of the token that predicts."""

    ids: list[int]
    targets: list[tuple[int, int, float]]
    """Position, token to predict, weight."""
    aux: list[tuple[int, list[float]]]
    """Position and one target per auxiliary output; NaN where unknown."""


def encode_example(
    example: Example, tokenizer: PreTrainedTokenizerFast, content_weight: float = 0.0
) -> EncodedExample:
    """Encode a conversation as the chat template would, and place targets and marks on its
    tokens.
    """
    special = tokenizer.convert_tokens_to_ids
    ids: list[int] = []
    targets: list[tuple[int, int, float]] = []
    aux: list[tuple[int, list[float]]] = []
    for index, message in enumerate(example.messages):
        encoded = tokenizer.backend_tokenizer.encode(message["content"], add_special_tokens=False)
        start = len(ids) + 1
        ids += [special(f"<|{message['role']}|>"), *encoded.ids, special(END)]
        if index in example.learned:
            targets += _targets(example, index, start, encoded.ids, special)
        for _, first, last in (span for span in example.contents if span[0] == index):
            inside = [i for i, (a, b) in enumerate(encoded.offsets) if a < last and b > first]
            targets += [
                (start - 1 + i, encoded.ids[i], content_weight) for i in inside if content_weight
            ]
        for mark in example.marks:
            if mark.message == index:
                aux.append((start + _token_before(encoded.offsets, mark.end), _aux_row(mark)))
    return EncodedExample(ids, targets, aux)


def _targets(
    example: Example, turn: int, start: int, reply: list[int], special: Callable[[str], int]
) -> list[tuple[int, int, float]]:
    end = (start + len(reply) - 1, special(END), 1.0)
    if turn not in example.verdicts:
        return [(start - 1 + i, token, example.weight) for i, token in enumerate(reply)] + [end]
    verdicts = (("A", example.verdicts[turn]), ("B", 1 - example.verdicts[turn]))
    return [(start - 1, special(letter), VERDICT_WEIGHT * p) for letter, p in verdicts if p > 0] + [
        end
    ]


def _token_before(offsets: list[tuple[int, int]], end: int) -> int:
    return max(i for i, (first, _) in enumerate(offsets) if first < end)


def _aux_row(mark: Mark) -> list[float]:
    unknown = float("nan")
    row = [unknown] * NUM_AUX
    if mark.kind is not None:
        row[: len(CORES)] = [float(core == mark.kind.core) for core in CORES]
        row[len(CORES) : len(CORES) + len(ADD_ONS)] = [
            float(getattr(mark.kind, name)) for name in ADD_ONS
        ]
    if mark.attribute is not None:
        first = len(CORES) + len(ADD_ONS)
        row[first : first + len(ATTRIBUTES)] = [
            float(name == mark.attribute) for name in ATTRIBUTES
        ]
    if mark.level is not None:
        row[-1] = mark.level
    return row


@dataclass
class Batch:
    """Padded ids (batch, length) and flat lists of targets; rows index the flattened (batch *
    length).
    """

    ids: Tensor
    rows: Tensor
    tokens: Tensor
    weights: Tensor
    is_verdict: Tensor
    aux_rows: Tensor
    aux: Tensor


def stream_batches(
    tokenizer: PreTrainedTokenizerFast,
    batch_tokens: int,
    seed: int,
    stride: int,
    shares: Shares,
    content_weight: float,
    wide: bool,
) -> Iterator[Batch]:
    """Batches without end, each of similar length, in random order; chunk n is drawn with seed + n
    * stride.
    """
    for chunk_seed in count(seed, stride):
        examples = write_corpus(CHUNK_EXAMPLES, chunk_seed, shares, wide=wide)
        chunk = [encode_example(example, tokenizer, content_weight) for example in examples]
        groups: list[list[EncodedExample]] = [[]]
        for example in sorted(chunk, key=lambda e: len(e.ids)):
            if len(example.ids) * (len(groups[-1]) + 1) > batch_tokens:
                groups.append([])
            groups[-1].append(example)
        random.Random(chunk_seed).shuffle(groups)
        yield from map(_collate, groups)


def _collate(group: list[EncodedExample]) -> Batch:
    length = max(len(example.ids) for example in group)
    ids = torch.zeros(len(group), length, dtype=torch.long)
    flat: list[tuple[int, int, float]] = []
    aux: list[tuple[int, list[float]]] = []
    for index, example in enumerate(group):
        ids[index, : len(example.ids)] = torch.tensor(example.ids)
        flat += [(index * length + p, token, weight) for p, token, weight in example.targets]
        aux += [(index * length + p, row) for p, row in example.aux]
    rows, tokens, weights = zip(*flat, strict=True)
    weight = torch.tensor(weights)
    return Batch(
        ids,
        torch.tensor(rows),
        torch.tensor(tokens),
        weight,
        weight >= VERDICT_WEIGHT / 2,
        torch.tensor([row for row, _ in aux]),
        torch.tensor([row for _, row in aux]),
    )
