"""Model folder -> tokenizer, end-of-turn tokens and weights, as the engine would read them."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.errors import ConfigError
from pipeline.training.job import TrainingJob
from pipeline.training.worker.arguments import Placement
from pipeline.training.worker.encoding import ReplyEncoder


def load_encoder(job: TrainingJob) -> ReplyEncoder:
    """The tokenizer with the job's chat template and the tokens that end a turn.

    Raises:
        ConfigError: there is no chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    if job.chat_template is not None:
        tokenizer.chat_template = job.chat_template.read_text("utf-8")
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"model '{job.model}' has no chat template; name a Jinja file in `chat_template`"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ReplyEncoder(tokenizer, _end_ids(tokenizer, job.model), dict(job.chat_template_args))


def load_model(folder: Path, placement: Placement) -> Any:
    """The causal language model on this process's device; remote code stays off.

    A model that will be sharded stays where it was loaded: no single GPU may hold it.
    """
    flash = {"attn_implementation": "flash_attention_2"} if placement.padding_free else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=placement.weights, **flash)
    if placement.device == "cuda" and not placement.sharded:
        return model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return model


def stored_dtype(folder: Path) -> torch.dtype:
    """Number format that the folder's weights are stored in, float32 if it does not say."""
    dtype = AutoConfig.from_pretrained(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _end_ids(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Tokens at which an engine stops: the tokenizer's and those of generation_config.json."""
    ids = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        more = GenerationConfig.from_pretrained(folder).eos_token_id
        ids |= set(more) if isinstance(more, list) else {more}
    return frozenset(token for token in ids if token is not None)
