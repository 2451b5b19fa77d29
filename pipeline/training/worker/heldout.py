"""Held-out pairs of a reward model: kept out of training by prompt, and measured after it.

In:  encoded pairs, each with the key of its conversation
Out: the pairs to train on and the others; how often the trained model prefers the chosen reply

All pairs of one conversation are on one side, because they are alike.

Does not: say how good the labels are. Pairs that a judge labeled measure agreement with that judge.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.errors import DataError
from pipeline.ids import uniform
from pipeline.soft_labels import outcome, sigmoid
from pipeline.stats import Tally
from pipeline.training.job import HeldoutPairs
from pipeline.training.worker.kto_rows import Columns, Ids

KEY = "conversation"
"""Column with the key of a pair's conversation."""


def split(columns: Columns, share: float, seed: int) -> tuple[Columns, Columns]:
    """The pairs to train on, and the held-out ones.

    Args:
        share: share of the conversations to hold out, in expectation.

    Raises:
        DataError: one side would be empty.
    """
    held = [uniform("held-out pairs", seed, key) < share for key in columns[KEY]]
    if share and (all(held) or not any(held)):
        raise DataError(
            f"heldout_share {share:g} of {len(set(columns[KEY]))} prompts leaves "
            f"{held.count(False)} pairs to train on and {held.count(True)} to measure on; give "
            "pairs of more prompts, or set heldout_share to 0"
        )

    def side(wanted: bool) -> Columns:
        return {
            name: [v for v, h in zip(values, held, strict=True) if h == wanted]
            for name, values in columns.items()
        }

    return side(False), side(True)


def measure(model: Any, columns: Columns, pad_id: int, batch_size: int) -> HeldoutPairs | None:
    """Accuracy on held-out pairs with its interval by conversation; None without pairs."""
    if not columns[KEY]:
        return None
    chosen = rewards(model, columns["chosen_ids"], pad_id, batch_size)
    rejected = rewards(model, columns["rejected_ids"], pad_id, batch_size)
    right: dict[str, list[float]] = {}
    losses = []
    for key, a, b in zip(columns[KEY], chosen, rejected, strict=True):
        label = sigmoid(a - b)
        right.setdefault(key, []).append(0.5 if a == b else outcome(label))
        # softplus(-gap), without a logarithm of a label that has been rounded to 0.
        losses.append(max(b - a, 0.0) + math.log1p(math.exp(-abs(a - b))))
    tally = Tally()
    for values in right.values():
        tally.add(values)
    accuracy = tally.share()
    assert accuracy is not None
    return HeldoutPairs(
        pairs=accuracy.n,
        prompts=len(right),
        accuracy=accuracy.share,
        low=accuracy.low,
        high=accuracy.high,
        log_loss=sum(losses) / len(losses),
    )


def rewards(model: Any, texts: Sequence[Ids], pad_id: int, batch_size: int) -> list[float]:
    """The logit of each text, in the order given; texts of like length share a batch."""
    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    result = [0.0] * len(texts)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = max(len(texts[index]) for index in batch)
            spare = [width - len(texts[index]) for index in batch]
            ids = [texts[i] + [pad_id] * n for i, n in zip(batch, spare, strict=True)]
            mask = [[1] * (width - n) + [0] * n for n in spare]
            logits = model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
            ).logits
            for index, value in zip(batch, logits[:, 0].float().tolist(), strict=True):
                result[index] = value
    model.train(was_training)
    return result
