"""Behavior of a toy training method: the second of the two files that a new method needs."""

from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from pipeline.training.worker.methods import Method
from tests.training.toy_settings import ToyConfig


class ToyTrainer(SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """SFTTrainer with twice the loss."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, doubled."""
        return super().compute_loss(*args, **kwargs) * 2


def chosen_alone(columns: dict[str, list[Any]], config: ToyConfig) -> Dataset:
    """The chosen replies as SFT rows."""
    pairs = list(zip(columns["prompt_ids"], columns["chosen_ids"], strict=True))
    return Dataset.from_dict(
        {
            "input_ids": [prompt + reply for prompt, reply in pairs],
            "labels": [[-100] * len(prompt) + reply for prompt, reply in pairs],
            "length": columns["length"],
        }
    )


TOY = Method[ToyConfig](
    classes=lambda: (ToyTrainer, SFTConfig),
    shape="pairs",
    arguments=lambda config, rows: {"dataset_kwargs": {"skip_prepare_dataset": True}},
    dataset=chosen_alone,
)
