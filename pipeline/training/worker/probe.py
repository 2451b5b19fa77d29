"""Answer a few training prompts greedily: do replies end, and how long are they?

Called before and after training, since neither shows in the loss: a policy whose replies never
end, or whose replies double in length, can have a falling loss.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from pipeline.training.job import Probe


def choose_prompts(columns: dict[str, list[Any]], number: int, seed: int) -> list[list[int]]:
    """Token ids of up to `number` different prompts of the training data."""
    if "prompt_ids" in columns:
        prompts = columns["prompt_ids"]
    else:
        prompts = [
            ids[: sum(label == -100 for label in labels)]
            for ids, labels in zip(columns["input_ids"], columns["labels"], strict=True)
        ]
    different = sorted({tuple(prompt) for prompt in prompts})
    chosen = random.Random(seed).sample(different, min(number, len(different)))
    return [list(prompt) for prompt in chosen]


def run_probe(
    model: Any, prompts: Sequence[list[int]], end_ids: frozenset[int], pad_id: int, max_tokens: int
) -> Probe | None:
    """Length and endings of the greedy replies; None without prompts."""
    if not prompts:
        return None
    width = max(len(prompt) for prompt in prompts)
    device = next(model.parameters()).device
    ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=sorted(end_ids),
        pad_token_id=pad_id,
    )
    was_training = model.training
    model.eval()
    # Compiled layers would be compiled again for every length of the cache.
    with torch.compiler.set_stance("force_eager"), torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    model.train(was_training)
    lengths = [_length(reply, end_ids) for reply in output[:, width:].tolist()]
    ended = [length for length in lengths if length is not None]
    return Probe(
        num_prompts=len(prompts),
        mean_length=sum(max_tokens if length is None else length for length in lengths)
        / len(lengths),
        missing_end_share=1 - len(ended) / len(lengths),
    )


def _length(reply: list[int], end_ids: frozenset[int]) -> int | None:
    """Tokens up to and including the first end, or None when there is no end."""
    return next((i + 1 for i, token in enumerate(reply) if token in end_ids), None)
