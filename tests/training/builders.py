"""A random Llama of two layers with a byte-level tokenizer, built in a blink, and its data."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")


def build_model(folder: Path, *, template: str = CHAT_TEMPLATE, seed: int = 0) -> Path:
    """Write a model folder: 2 layers, width 32, one token per byte, bfloat16 weights."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=template
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def pair_row(index: int, **changes: Any) -> dict[str, Any]:
    """One preference row in which the chosen reply is made of A and the rejected one of B."""
    row = {
        "row_id": f"pair-{index:03}",
        "messages": [{"role": "user", "content": f"Say {index}"}],
        "chosen": "A" * (3 + index % 3),
        "rejected": "B" * (3 + index % 2),
        "soft_label": 0.9,
        "margin": 2.2,
        "status": "ok",
    }
    return row | changes


def sft_row(index: int, **changes: Any) -> dict[str, Any]:
    """One supervised row with a reply made of A."""
    row = {
        "row_id": f"sft-{index:03}",
        "messages": [{"role": "user", "content": f"Say {index}"}],
        "completion": "A" * (3 + index % 3),
    }
    return row | changes


def feedback_row(index: int, **changes: Any) -> dict[str, Any]:
    """One row of feedback on a prompt of its own: C is liked unless `changes` say otherwise."""
    row = {
        "row_id": f"feedback-{index:03}",
        "messages": [{"role": "user", "content": f"Users ask {index}"}],
        "completion": "C" * (3 + index % 3),
        "label": True,
        "weight": 1.0,
        "status": "ok",
    }
    return row | changes


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read_metrics(result: Any) -> list[dict[str, Any]]:
    """The metrics of a finished training."""
    text = (result.model_dir.parent / "metrics.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def train_here(
    config: Any, rows: list[dict[str, Any]], folder: Path, *, model: Path, **fields: Any
) -> Any:
    """Train in this process, with the data set beside `folder`; returns the TrainingResult."""
    from pipeline.training.job import TrainingJob, describe, write_job
    from pipeline.training.worker.train import run

    job = TrainingJob(
        config=config,
        model=model,
        dataset=write_rows(folder.with_suffix(".parquet"), rows),
        output_dir=folder,
        **fields,
    )
    file = describe(job)
    write_job(file)
    return run(file, time.perf_counter())
