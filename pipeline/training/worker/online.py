"""TRL's RLOO trainer over our prompts and rewards, and P3O, which is another loss of it.

What TRL 1.16 settles: the log-ratio to the reference is summed over a reply and, times beta, taken
off its score before replies are compared; advantages are neither scaled nor normalized; a clipped
ratio is that of a whole reply, whose end token counts; the last prompts of a pass that fill no
step are left out of it.

What it leaves to us: prompts come tokenized (`encoding.py`), sampling has the numbers of the
training under autocast, and a reply without an end has no reward (`rewards.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from pipeline.errors import DataError
from pipeline.training.worker.kto_rows import Ids
from pipeline.training.worker.p3o import LOSSES, moved_too_far
from pipeline.training.worker.probe import own_settings

# TRL prints a prompt for each batch with a reply without a reward; `unfinished_share` counts them.
logging.getLogger("trl.trainer.rloo_trainer").setLevel(logging.ERROR)


class RlooTrainer(RLOOTrainer):  # type: ignore[misc]  # TRL has no types
    """RLOOTrainer for prompts that are token ids."""

    def __init__(self, *, args: Any, train_dataset: Any, **kwargs: Any) -> None:
        needed = args.generation_batch_size // args.num_generations
        if len(train_dataset) < needed:
            raise DataError(
                f"the data set has {len(train_dataset)} prompts to sample from, fewer than the "
                f"{needed} of one step; give more prompts, or lower batch_size or "
                "gradient_accumulation"
            )
        super().__init__(args=args, train_dataset=train_dataset, **kwargs)

    def _tokenize_prompts(self, prompts: list[Ids]) -> tuple[list[Ids], None, dict[str, Any]]:
        return prompts, None, {}

    def _generate_single_turn(self, *inputs: Any) -> Any:
        # Compiled layers would be compiled again for every length of the cache.
        with (
            torch.compiler.set_stance("force_eager"),
            self.accelerator.autocast(),
            own_settings(self.model),
        ):
            return super()._generate_single_turn(*inputs)


@dataclass
class P3oArguments(RLOOConfig):  # type: ignore[misc]  # TRL has no types
    """RLOO's arguments, and the form of the loss."""

    form: str = "separate"


class P3oTrainer(RlooTrainer):
    """RlooTrainer with the loss of pairs."""

    def _generate_and_score_completions(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        # TRL shuffles along the first axis and cuts it: of pairs, so that none is taken apart.
        return {name: values.unflatten(0, (-1, 2)) for name, values in batch.items()}

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        rows = {name: values.flatten(0, 1) for name, values in inputs.items()}
        mask = rows["completion_mask"]
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1),
            torch.cat([rows["prompt_mask"], mask], dim=1),
            mask.size(1),
            compute_entropy=True,
        )
        log_ratios = ((logps * mask).sum(dim=1) - rows["old_logps"]).unflatten(0, (-1, 2))
        # Advantages of two are r1 - r2 and r2 - r1: halved, they are the rewards less their mean.
        rewards = inputs["advantages"] / 2
        moved = moved_too_far(log_ratios.detach(), self.epsilon_low, self.args.form)
        for name, value in (
            ("entropy", (entropies * mask).sum() / mask.sum().clamp(min=1)),
            ("clip_ratio/region_mean", moved.float().mean()),
        ):
            self._metrics["train"][name].append(self.accelerator.gather(value).mean().item())
        return LOSSES[self.args.form](log_ratios, rewards, self.epsilon_low).mean()
