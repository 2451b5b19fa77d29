"""Answer a few training prompts: do replies end, how long are they, do they repeat themselves, and
how far has the policy moved?

Greedy replies before and after training, since none of this shows in the loss: a policy whose
replies never end, or double in length, can have a falling loss. Replies that the model before
sampled give the divergence: their log-probability under it less that under the trained model.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import fmean
from typing import Any

import torch
from transformers import GenerationConfig

from pipeline.training.job import Familiarity, Probe
from pipeline.training.worker.first_loss import read_text
from pipeline.training.worker.kto_rows import Columns, Ids

RUN = 4
"""Tokens of a run whose repetition counts."""


def choose_prompts(columns: Columns, number: int, seed: int) -> list[Ids]:
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
    """Length, endings and repetitions of the greedy replies; None without prompts."""
    if not prompts:
        return None
    replies = _generate(model, prompts, end_ids, pad_id, max_tokens)
    missing = [reply for reply in replies if reply[-1] not in end_ids]
    return Probe(
        num_prompts=len(prompts),
        mean_length=fmean(map(len, replies)),
        missing_end_share=len(missing) / len(replies),
        repeated_share=fmean(map(repeated_share, replies)),
    )


def sample_texts(
    model: Any,
    prompts: Sequence[Ids],
    end_ids: frozenset[int],
    pad_id: int,
    max_tokens: int,
    seed: int,
) -> list[tuple[Ids, Ids]]:
    """Each prompt with one reply, drawn from the model at temperature 1."""
    if not prompts:
        return []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        replies = _generate(model, prompts, end_ids, pad_id, max_tokens, do_sample=True)
    return list(zip(prompts, replies, strict=True))


def mean_logps(
    model: Any,
    texts: Sequence[tuple[Ids, Ids]],
    autocast: AbstractContextManager[Any] | None = None,
) -> list[float]:
    """Nats per token of each reply under the model, each read alone."""
    was_training = model.training
    model.eval()
    with (
        torch.compiler.set_stance("force_eager"),
        torch.inference_mode(),
        autocast or nullcontext(),
    ):
        means = [read_text(model, prompt, reply).mean for prompt, reply in texts]
    model.train(was_training)
    return means


def familiarity(own: Sequence[float], columns: Columns, reference: Columns) -> Familiarity | None:
    """How likely the pairs' replies are beside the model's own; None without its own.

    Args:
        own: nats per token of replies that the model sampled.
        columns: encoded pairs.
        reference: the log-probabilities of their replies under the model, in the same order.
    """
    if not own:
        return None
    least = min(own)
    means = {
        side: [
            logp / len(ids)
            for logp, ids in zip(
                reference[f"ref_{side}_logps"], columns[f"{side}_ids"], strict=True
            )
        ]
        for side in ("chosen", "rejected")
    }
    beyond = {side: fmean(mean < least for mean in values) for side, values in means.items()}
    return Familiarity(
        own=fmean(own),
        own_least=least,
        chosen=fmean(means["chosen"]),
        rejected=fmean(means["rejected"]),
        chosen_beyond=beyond["chosen"],
        rejected_beyond=beyond["rejected"],
    )


def repeated_share(reply: Ids) -> float:
    """Share of the runs of `RUN` tokens that stood in the reply before; 0 for a shorter reply."""
    runs = [tuple(reply[i : i + RUN]) for i in range(len(reply) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _generate(
    model: Any,
    prompts: Sequence[Ids],
    end_ids: frozenset[int],
    pad_id: int,
    max_tokens: int,
    *,
    do_sample: bool = False,
) -> list[Ids]:
    """A reply to each prompt, up to and including its end, or of `max_tokens` without one."""
    width = max(len(prompt) for prompt in prompts)
    device = next(model.parameters()).device
    ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=do_sample,
        # Else the 50 likeliest tokens alone would be drawn.
        top_k=0 if do_sample else None,
        eos_token_id=sorted(end_ids),
        pad_token_id=pad_id,
    )
    was_training = model.training
    model.eval()
    # Compiled layers would be compiled again for every length of the cache.
    with torch.compiler.set_stance("force_eager"), torch.inference_mode(), own_settings(model):
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    model.train(was_training)
    replies = output[:, width:].tolist()
    return [reply[: _length(reply, end_ids) or max_tokens] for reply in replies]


@contextmanager
def own_settings(model: Any) -> Iterator[None]:
    """Without the folder's generation_config.json: `generate` takes from it all that a call leaves
    open, such as a temperature or a repetition penalty, and the replies would be those of another
    distribution than the model's.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own


def _length(reply: list[int], end_ids: frozenset[int]) -> int | None:
    """Tokens up to and including the first end, or None when there is no end."""
    return next((i + 1 for i, token in enumerate(reply) if token in end_ids), None)
