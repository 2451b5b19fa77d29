"""DPO whose labels are probabilities: TRL's trainer plus one term (spec: `losses.py`).

TRL 1.16 drops unknown columns before the collator and its loss knows no per-row probability.
So three things are added here: the column `p_chosen` survives, the collator makes a tensor of
it, and the loss gets (1 - p) z, which turns -log s(z) into -p log s(z) - (1 - p) log s(-z).
Rows without `p_chosen` train with TRL's loss untouched (hard labels, IPO, robust DPO).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from pipeline.training.worker.losses import soft_label_term
from pipeline.training.worker.reference import ReferenceCache


@dataclass
class SoftLabelCollator(DataCollatorForPreference):
    """TRL's collator, and `p_chosen` of shape (batch,) where the rows have it."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad a batch of pairs; chosen replies come first, then the rejected ones."""
        batch = super().torch_call(examples)
        if "p_chosen" in examples[0]:
            batch["p_chosen"] = torch.tensor(
                [row["p_chosen"] for row in examples], dtype=torch.float32
            )
        return batch


class SoftDpoTrainer(DPOTrainer):
    """DPOTrainer for rows that are tokenized already, with soft labels and a reference cache."""

    def __init__(self, *args: Any, reference: ReferenceCache, **kwargs: Any) -> None:
        self._reference_cache = reference
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset  # `rows.py` has tokenized and checked it

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # `length` must survive for the sampler that groups by it; the collator passes it by.
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, "p_chosen", "length"])]

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        return with_reference(
            self._reference_cache,
            dataset,
            self.accelerator,
            lambda: super(SoftDpoTrainer, self)._precompute_ref_logps(dataset, name, batch_size),
        )

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        p_chosen = inputs.pop("p_chosen", None)
        if p_chosen is None:
            return super()._compute_loss(model, inputs, return_outputs)
        kept: list[Any] = []

        def recording(**arguments: Any) -> Any:
            kept.append(model(**arguments))
            return kept[-1]

        loss = super()._compute_loss(recording, inputs, return_outputs)
        gap = self._gap(kept[0].log_probs, inputs)
        term = soft_label_term(gap, p_chosen, self.beta).mean()
        return (loss[0] + term, loss[1]) if return_outputs else loss + term

    def _gap(self, log_probs: Tensor, inputs: dict[str, Any]) -> Tensor:
        num_targets = inputs["completion_mask"].size(1) - 1
        chosen, rejected = log_probs[:, -num_targets:].sum(dim=1).chunk(2, dim=0)
        return (chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"])


def with_reference(
    cache: ReferenceCache, dataset: Any, accelerator: Any, compute: Callable[[], Any]
) -> Any:
    """The data set with its reference columns: from the cache, else computed by TRL and kept.

    TRL's own computation is used since it knows about sharded models and adapters.
    """
    row_ids = dataset["row_id"][:]
    known = cache.read(row_ids)
    if known is None:
        # TRL hands the values from the first process to the others in a file, and would put it
        # into a folder of the first process's own for a data set that lives in memory.
        handed_over = cache.path.with_suffix(".arrow")
        dataset._get_cache_file_path = lambda fingerprint: str(handed_over)
        if accelerator.is_main_process:
            print(f"phase reference log-probabilities of {len(row_ids)} rows", flush=True)
            handed_over.parent.mkdir(parents=True, exist_ok=True)
            handed_over.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        computed = compute()
        known = {name: computed[name][:] for name in cache.columns}
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            handed_over.unlink(missing_ok=True)
            cache.write(row_ids, known)
    for name in cache.columns:
        dataset = dataset.add_column(name, known[name])
    return dataset
