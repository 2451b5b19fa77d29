"""The loss before the first update, which is known: a training that begins elsewhere is stopped.

While the policy is still its reference, every log-ratio is zero, and the loss of a method with a
reference depends on its settings alone (`Method.first_loss`); the first step itself is compared.
For the others the trainer's loss on its first rows is compared with the plain formula over one row
at a time (`Method.plain_loss`): no padding, no joined rows, no fused head.

`ALLOWED` is the largest difference, relative to a loss above 1. In bfloat16 a text has another
rounding in another batch: a few tenths of a nat in its sum, which beta scales.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from pipeline.errors import TrainingError

ALLOWED = {"float32": 1e-4, "bfloat16": 0.03}
ROWS = 4
"""Rows whose plain loss is computed."""
SIDES = ("chosen", "rejected")


class Text(NamedTuple):
    """One prompt with a reply, read alone."""

    logp: float
    """Log-probability of the reply, in nats; a reward model's score."""
    tokens: int
    """Tokens of the reply."""
    whole_logp: float
    """Log-probability of prompt and reply after the first token."""
    whole_tokens: int

    @property
    def mean(self) -> float:
        """Nats per token of the reply."""
        return self.logp / self.tokens


class Row(NamedTuple):
    """One row of training: a reply, or a pair of them."""

    chosen: Text
    rejected: Text
    """`chosen` again where there is one reply."""
    soft_label: float


def compare(value: float, least: float, most: float, dtype: str) -> None:
    """Raises TrainingError when a first loss is not in the interval that its formula gives."""
    slack = ALLOWED[dtype] * max(1.0, abs(most))
    if least - slack <= value <= most + slack:
        return
    known = f"{least:.6g}" if least == most else f"between {least:.6g} and {most:.6g}"
    raise TrainingError(
        f"the loss of the first step is {value:.6g} and has to be {known}, within {slack:.1g}: the "
        "policy differs from what its reference log-probabilities were computed with, as with "
        "dropout, changed weights or a damaged file below cache/reference; remove that folder and "
        "train again"
    )


def check_plain(trainer: Any, method: Any, config: Any, dtype: str) -> None:
    """Compare the trainer's loss on its first rows with the plain formula over the same rows.

    Raises:
        TrainingError: they differ.
    """
    model = trainer.model
    rows = [trainer.train_dataset[i] for i in range(min(ROWS, len(trainer.train_dataset)))]
    if any("seq_lengths" in row for row in rows):
        return  # Packed rows cannot be read one at a time.
    model.eval()
    with (
        torch.compiler.set_stance("force_eager"),
        torch.inference_mode(),
        trainer.accelerator.autocast(),
    ):
        plain = method.plain_loss(config, [_row(model, row) for row in rows])
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        if method.stable:
            loss = trainer.compute_loss(model, batch)
        else:
            loss, _ = trainer.get_batch_loss_metrics(model, batch, "eval")
    model.train()
    value, slack = float(loss), ALLOWED[dtype] * max(1.0, abs(plain))
    if not abs(value - plain) <= slack:  # also for what is not a number
        raise TrainingError(
            f"the loss before the first step is {value:.6g}, and {plain:.6g} by its formula on the "
            f"same {len(rows)} rows; a batch changes what a row costs, as a model that mixes the "
            "rows of a batch or drops units at random would; set `padding_free: false`, and look "
            "for dropout in config.json"
        )


def sft_loss(rows: Sequence[Row]) -> float:
    """Negative log-likelihood per reply token, over all tokens of the rows."""
    return -sum(row.chosen.logp for row in rows) / sum(row.chosen.tokens for row in rows)


def orpo_loss(rows: Sequence[Row], beta: float) -> float:
    """The likelihood of prompt and chosen reply, and beta times the odds term (Hong et al. 2024,
    eq. 6 and 7, as TRL computes them).
    """
    likelihood = -sum(row.chosen.whole_logp for row in rows) / sum(
        row.chosen.whole_tokens for row in rows
    )
    gaps = [_log_odds(row.chosen.mean) - _log_odds(row.rejected.mean) for row in rows]
    return likelihood + beta * sum(map(_softplus_of_minus, gaps)) / len(rows)


def simpo_loss(rows: Sequence[Row], beta: float, gamma: float) -> float:
    """SimPO (Meng et al. 2024, eq. 6) with an absolute target margin `gamma`."""
    gaps = [beta * (row.chosen.mean - row.rejected.mean) - gamma for row in rows]
    return sum(map(_softplus_of_minus, gaps)) / len(rows)


def reward_loss(rows: Sequence[Row]) -> float:
    """Bradley and Terry with P(chosen preferred): -p log s(z) - (1 - p) log s(-z)."""
    gaps = [(row.chosen.logp - row.rejected.logp, row.soft_label) for row in rows]
    return sum(_softplus_of_minus(gap) + (1 - label) * gap for gap, label in gaps) / len(rows)


def read_text(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> Text:
    """The log-probabilities of one text under the model, without a batch."""
    ids = torch.tensor([[*prompt, *reply]], device=next(model.parameters()).device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].float()
    logps = logits.log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    return Text(
        logps[max(len(prompt) - 1, 0) :].sum().item(), len(reply), logps.sum().item(), len(logps)
    )


def _row(model: Any, row: dict[str, Any]) -> Row:
    label = row.get("soft_label", 1.0)
    if "labels" in row:
        start = sum(token == -100 for token in row["labels"])
        text = read_text(model, row["input_ids"][:start], row["input_ids"][start:])
        return Row(text, text, label)
    if "prompt_ids" in row:
        texts = [read_text(model, row["prompt_ids"], row[f"{s}_ids"]) for s in SIDES]
    else:
        texts = [_scored(model, row[f"{s}_ids"]) for s in SIDES]
    return Row(texts[0], texts[1], label)


def _scored(model: Any, ids: Sequence[int]) -> Text:
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return Text(logits[0, 0].float().item(), len(ids), 0.0, len(ids))


def _softplus_of_minus(value: float) -> float:
    """-log sigmoid(value), without a logarithm of 0."""
    return max(-value, 0.0) + math.log1p(math.exp(-abs(value)))


def _log_odds(mean: float) -> float:
    """log(p / (1 - p)) of p = exp(mean), without forming p where it is close to 1."""
    return mean - math.log(-math.expm1(mean))
