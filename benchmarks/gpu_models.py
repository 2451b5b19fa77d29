"""Random Llamas, rows of real lengths, and the trainers that `gpu_training` compares."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

LENGTHS = Path(__file__).with_name("gpu_training_lengths.json")
"""Tokens of prompt, chosen and rejected reply (end of turn included) of 256 pairs drawn from the
test set of hh-rlhf's harmless-base, with the tokenizer of SmolLM2 (49,152 tokens)."""

LLAMA: dict[str, Any] = {"vocab_size": 128256, "rope_theta": 5e5, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
        **LLAMA,
    },
    "3b": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
        **LLAMA,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        **LLAMA,
    },
}
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def mean_tokens() -> float:
    """Tokens of both rows of a pair."""
    return fmean(2 * p + c + r for p, c, r in json.loads(LENGTHS.read_text("utf-8")))


def pairs(number: int, vocab: int, seed: int, scale: float = 1.0) -> dict[str, list[Any]]:
    """Random token ids with real lengths, each with a soft label in [0.5, 1]."""
    rng = random.Random(seed)
    shapes = json.loads(LENGTHS.read_text("utf-8"))
    rng.shuffle(shapes)
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("row_id", "prompt_ids", "chosen_ids", "rejected_ids", "length", "soft_label")
    }
    for index, lengths in enumerate(itertools.islice(itertools.cycle(shapes), number)):
        ids = [[rng.randrange(3, vocab) for _ in range(max(2, int(n * scale)))] for n in lengths]
        for name, value in zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True):
            columns[name].append(value)
        columns["row_id"].append(f"pair-{index}")
        columns["length"].append(len(ids[0]) + max(len(ids[1]), len(ids[2])))
        columns["soft_label"].append(rng.choice((0.55, 0.7, 0.85, 0.95, 1.0)))
    return columns


def llama(shape: dict[str, Any], dtype: Any, attention: str, device: str) -> Any:
    """A Llama with the weights that seed 0 gives."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            config = LlamaConfig(
                **shape,
                attn_implementation=attention,
                dtype=dtype,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=1,
            )
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def tokenizer() -> Any:
    """Three words; the trainers ask for a pad token and an end of turn."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1, "<unk>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
    )


def our_trainer(
    model_of: Callable[[Any, str], Any], config: Any, columns: Any, folder: Path
) -> Any:
    """The trainer that a recipe's job builds, on columns that are tokenized already."""
    from pipeline.training.job import RowCounts
    from pipeline.training.worker.arguments import adapter_config, place, trl_arguments
    from pipeline.training.worker.loading import ready
    from pipeline.training.worker.methods import method_of
    from pipeline.training.worker.reference import PAIR_COLUMNS, ReferenceCache

    placement, method = place(config), method_of(config)
    model, placement = ready(model_of(placement.weights, "sdpa"), placement, config)
    arguments = trl_arguments(config, RowCounts(read=0), placement, folder)
    cache = {"reference": ReferenceCache(folder / "reference.parquet", PAIR_COLUMNS)}
    return method.classes()[0](
        model=model,
        args=arguments,
        train_dataset=method.dataset(columns, config),
        processing_class=tokenizer(),
        peft_config=adapter_config(config),
        **(cache if method.shape == "pairs" else {}),
    )


def trl_trainer(
    model_of: Callable[[Any, str], Any], columns: Any, folder: Path, adapter: Any, **options: Any
) -> Any:
    """TRL's DPOTrainer on the same rows; `options` are what differs from its defaults."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = {name: columns[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    # A folder of weights would be loaded in float32; the frozen ones of an adapter are halved.
    dtype = torch.bfloat16 if adapter and torch.cuda.is_available() else torch.float32
    needs_reference = not adapter and not options.get("precompute_ref_log_probs")

    class Tokenized(DPOTrainer):  # type: ignore[misc]  # TRL has no types
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return Tokenized(
        model=model_of(dtype, "sdpa"),
        ref_model=model_of(dtype, "sdpa") if needs_reference else None,
        args=DPOConfig(
            output_dir=str(folder),
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **options,
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer(),
        peft_config=adapter,
    )
