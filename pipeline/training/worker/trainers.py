"""TRL's trainers, fed with rows that are tokenized already (`encoding.py`).

TRL would tokenize again, warn where it should fail, and cut what is too long; these subclasses
hand it our columns instead. The two experimental trainers keep TRL's loss, so ORPO's likelihood
term covers prompt and reply.

TRL 1.16 drops unknown columns before the collator, and its DPO loss knows no per-row probability.
So `SoftDpoTrainer` keeps the column `soft_label`, its collator makes a tensor of it, and the loss
gets (1 - p) z, which turns -log s(z) into -p log s(z) - (1 - p) log s(-z) for p = P(chosen
preferred). Rows without the column train with TRL's loss untouched (hard labels, IPO, robust DPO).
`SoftRewardTrainer` does this for a reward model, whose z is the difference of two scores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer, KTOTrainer, RewardTrainer, pack_dataset
from trl.trainer import reward_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from pipeline.config.training import SftConfig
from pipeline.training.worker.compiled import is_compiled
from pipeline.training.worker.joined_rows import joined, row_layout
from pipeline.training.worker.kto_rows import Columns
from pipeline.training.worker.reference import ReferenceCache, no_hashes, with_reference


def soft_label_term(gap: Tensor, soft_label: Tensor, beta: float) -> Tensor:
    """What a soft label adds to the DPO loss: (1 - p) z with z = beta * gap, in nats.

    From -p log s(z) - (1 - p) log s(-z) = softplus(-z) + (1 - p) z, where the first term is
    plain DPO. At p = 1 the term and its gradient are exactly zero. With beta = 1 and a difference
    of two rewards as the gap, it is what a soft label adds to the loss of Bradley and Terry.

    Args:
        gap: log-ratio of the chosen reply minus that of the rejected one, in nats, of shape
            (batch,); a log-ratio is log pi - log pi_ref, summed over the tokens of the reply.
        soft_label: P(chosen preferred), in [0, 1], of shape (batch,).
        beta: weight of the reference.
    """
    return (1.0 - soft_label) * (beta * gap)


def with_soft_labels(batch: dict[str, Any], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The batch, and `soft_label` of shape (batch,) where the rows have it."""
    if "soft_label" in examples[0]:
        labels = [row["soft_label"] for row in examples]
        batch["soft_label"] = torch.tensor(labels, dtype=torch.float32)
    return batch


WEIGHTS = ("chosen_weights", "rejected_weights")
"""Columns of rows whose tokens weigh differently."""


def with_token_weights(batch: dict[str, Any], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The batch, and `token_weights` of the shape of `input_ids` where the rows have weights."""
    if WEIGHTS[0] in examples[0]:
        weights = torch.zeros(batch["input_ids"].shape)
        rows = [(row, column) for column in WEIGHTS for row in examples]
        for number, (row, column) in enumerate(rows):
            start = len(row["prompt_ids"])
            weights[number, start : start + len(row[column])] = torch.tensor(row[column])
        batch["token_weights"] = weights
    return batch


def weighing(model: Any, weights: Tensor | None) -> Any:
    """The model, with each log-probability of its outputs times the weight of its token."""
    if weights is None:
        return model

    def weighted(**arguments: Any) -> Any:
        outputs = model(**arguments)
        outputs.log_probs = outputs.log_probs * weights[:, -outputs.log_probs.shape[1] :]
        return outputs

    return weighted


@dataclass
class SoftLabelCollator(DataCollatorForPreference):  # type: ignore[misc]  # TRL has no types
    """TRL's collator, with soft labels."""

    joins: bool = False
    """Add what `joined` needs to know about the rows."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad a batch of pairs; chosen replies come first, then the rejected ones."""
        batch = with_soft_labels(super().torch_call(examples), examples)
        batch = with_token_weights(batch, examples)
        if self.joins:
            lengths = batch["attention_mask"].sum(dim=1).tolist()
            batch |= row_layout(lengths, batch["input_ids"].shape[1])
        return batch


@dataclass
class SoftRewardCollator(reward_trainer.DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator of whole conversations, with soft labels."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad a batch of pairs; chosen conversations come first, then the rejected ones."""
        return with_soft_labels(super().torch_call(examples), examples)


class CachedReference:
    """Mixin of a TRL trainer: rows come tokenized, reference log-probabilities from a cache."""

    accelerator: Any
    _signature_columns: Any

    def __init__(self, *args: Any, reference: ReferenceCache, **kwargs: Any) -> None:
        self._reference_cache = reference
        with no_hashes():
            super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        compute = partial(super()._precompute_ref_logps, dataset, name, batch_size)  # type: ignore[misc]  # TRL's
        return with_reference(self._reference_cache, dataset, self.accelerator, compute)


class UnpairedTrainer(CachedReference, KTOTrainer):  # type: ignore[misc]  # TRL has no types
    """KTOTrainer for rows whose mismatched replies are chosen in advance."""


class SoftDpoTrainer(CachedReference, DPOTrainer):  # type: ignore[misc]  # TRL has no types
    """DPOTrainer with soft labels, and with joined rows where `args.padding_free` says so."""

    def __init__(self, *, args: Any, processing_class: Any, **kwargs: Any) -> None:
        self._joins = args.padding_free
        args.padding_free = False  # TRL would warn that it ignores it
        super().__init__(
            args=args,
            processing_class=processing_class,
            data_collator=SoftLabelCollator(processing_class.pad_token_id, joins=self._joins),
            **kwargs,
        )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns
        # `length` must survive for the sampler that groups by it; the collator passes it by.
        self._signature_columns = [*dict.fromkeys([*columns, *WEIGHTS, "soft_label", "length"])]

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Sums over the chosen and the rejected replies, each of shape (batch,), in nats."""
        inputs.pop("soft_label", None)
        weights = inputs.pop("token_weights", None)
        if self._joins:
            model = joined(model)
        model = weighing(model, weights)
        if self.ref_model is None and is_compiled(self.model):
            return self._initial_log_probs(model, inputs)
        return super().compute_ref_log_probs(model, inputs)

    def _initial_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The first step's forward pass, with its gradients: layers compiled without them would
        round differently, and the loss would not start at log 2. A new adapter adds zero.
        """
        if self.args.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        self.model.train()
        labels = inputs["input_ids"].masked_fill(inputs.pop("completion_mask") == 0, -100)
        with self.accelerator.autocast():
            outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
        return outputs.log_probs.detach().sum(dim=1).chunk(2)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        weights = inputs.pop("token_weights", None)
        if self._joins:
            model = joined(model)
        model = weighing(model, weights)
        soft_label = inputs.pop("soft_label", None)
        if soft_label is None:
            return super()._compute_loss(model, inputs, return_outputs)
        outputs: list[Any] = []

        def recording(**arguments: Any) -> Any:
            outputs.append(model(**arguments))
            return outputs[-1]

        loss = super()._compute_loss(recording, inputs, return_outputs)
        gap = self._gap(outputs[0].log_probs, inputs)
        term = soft_label_term(gap, soft_label, self.beta).mean()
        return (loss[0] + term, loss[1]) if return_outputs else loss + term

    def _gap(self, log_probs: Tensor, inputs: dict[str, Any]) -> Tensor:
        num_targets = inputs["completion_mask"].size(1) - 1
        chosen, rejected = log_probs[:, -num_targets:].sum(dim=1).chunk(2, dim=0)
        gap: Tensor = (chosen - inputs["ref_chosen_logps"]) - (
            rejected - inputs["ref_rejected_logps"]
        )
        return gap


class SoftRewardTrainer(RewardTrainer):  # type: ignore[misc]  # TRL has no types
    """RewardTrainer with soft labels, for pairs of conversations that are tokenized already."""

    def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
        collator = SoftRewardCollator(pad_token_id=processing_class.pad_token_id)
        super().__init__(*args, processing_class=processing_class, data_collator=collator, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        # `length` is for the sampler that groups by it; the collator passes it by.
        self._signature_columns = ["chosen_ids", "rejected_ids", "soft_label", "length"]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss, and what the soft labels add."""
        soft_label = inputs.pop("soft_label", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if soft_label is not None:
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            loss = loss + soft_label_term(chosen - rejected, soft_label, beta=1.0).mean()
        return (loss, outputs) if return_outputs else loss


def packed_dataset(columns: Columns, config: SftConfig) -> Dataset:
    """The encoded rows; with `packing`, several in each sequence of `max_length` tokens."""
    dataset = Dataset.from_dict(columns)
    if not config.packing:
        return dataset
    return pack_dataset(dataset.select_columns(["input_ids", "labels"]), config.max_length, "bfd")


def tokenized(base: type) -> type:
    """An experimental pair trainer of TRL that takes our token ids as they are."""

    class TokenizedTrainer(base):  # type: ignore[misc]  # the base comes at run time
        """TRL's trainer over token ids."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            """The columns that TRL's collator expects, from ours."""
            prompt = feature["prompt_ids"]
            row: dict[str, Any] = {
                "prompt_input_ids": prompt,
                "prompt_attention_mask": [1] * len(prompt),
            }
            for side in ("chosen", "rejected"):
                reply = feature[f"{side}_ids"]
                row[f"{side}_input_ids"] = prompt + reply
                row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(reply))
                row[f"{side}_labels"] = [-100] * len(prompt) + reply
            return row

    return TokenizedTrainer
