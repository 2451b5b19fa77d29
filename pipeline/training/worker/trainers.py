"""TRL's other trainers, fed with rows that are tokenized already (`rows.py`).

TRL would tokenize again, warn where it should fail, and cut what is too long; these subclasses
hand it our columns instead. The two experimental trainers keep TRL's loss, so ORPO's likelihood
term covers prompt and reply.
"""

import importlib
from typing import Any

from datasets import Dataset
from trl import KTOTrainer, SFTTrainer, pack_dataset

from pipeline.config.training import TrainingConfig
from pipeline.training.methods import Method
from pipeline.training.worker.reference import ReferenceCache
from pipeline.training.worker.soft_dpo import SoftDpoTrainer, SoftLabelCollator, with_reference


class SftTrainer(SFTTrainer):
    """SFTTrainer; the rows carry labels, so that the loss is on the reply alone."""


class UnpairedTrainer(KTOTrainer):
    """KTOTrainer for rows with mismatched replies made in advance, and a reference cache."""

    def __init__(self, *args: Any, reference: ReferenceCache, **kwargs: Any) -> None:
        self._reference_cache = reference
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        return with_reference(
            self._reference_cache,
            dataset,
            self.accelerator,
            lambda: super(UnpairedTrainer, self)._precompute_ref_logps(dataset, name, batch_size),
        )


def trainer_class(method: Method) -> type:
    """The trainer of a method; TRL's experimental modules are imported only when asked for."""
    if method.trainer == "OddsRatioTrainer":
        from trl.experimental.orpo import ORPOTrainer

        return _tokenized(ORPOTrainer)
    if method.trainer == "SimpoTrainer":
        from trl.experimental.cpo import CPOTrainer

        return _tokenized(CPOTrainer)
    return {
        "SftTrainer": SftTrainer,
        "SoftDpoTrainer": SoftDpoTrainer,
        "UnpairedTrainer": UnpairedTrainer,
    }[method.trainer]


def config_class(method: Method) -> type:
    """TRL's argument class of a method."""
    module, _, name = method.trl_config.partition(":")
    return getattr(importlib.import_module(module), name)


def training_dataset(columns: dict[str, list[Any]], config: TrainingConfig) -> Dataset:
    """The encoded rows as a data set; packed into sequences of `max_length` where asked for."""
    dataset = Dataset.from_dict(columns)
    if not getattr(config, "packing", False):
        return dataset
    return pack_dataset(dataset.select_columns(["input_ids", "labels"]), config.max_length, "bfd")


def collator_for(method: Method, pad_token_id: int) -> Any:
    """Our collator where a method needs one, else None: TRL brings its own."""
    return (
        SoftLabelCollator(pad_token_id=pad_token_id) if method.trainer == "SoftDpoTrainer" else None
    )


def _tokenized(base: type) -> type:
    class TokenizedTrainer(base):  # type: ignore[misc,valid-type]
        """An experimental pair trainer that takes our token ids as they are."""

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
