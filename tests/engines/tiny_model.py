"""A tiny random Llama with a byte-level tokenizer, for what the pocket model cannot show.

Its options ' (A)' and ' (B)' are three tokens each and share the first, so a score of the first
token alone would say 0.5; 'A' and 'B' are one token each.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>")


def build_tiny_model(folder: Path, *, max_context: int = 512, seed: int = 0) -> Path:
    """Write a model of about 100,000 parameters with random weights; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=max_context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|end|>"),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def build_tiny_classifier(folder: Path, *, labels: int = 1, seed: int = 0) -> Path:
    """Write a sequence classifier with the same body and a random head; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    build_tiny_model(folder, seed=seed)
    torch.manual_seed(seed)
    config = LlamaConfig.from_pretrained(folder, num_labels=labels)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def build_tokenizer(folder: Path) -> "Tokenizer":
    """Write tokenizer.json and tokenizer_config.json with the chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(letters)}
    vocab["\u0120("] = len(vocab)  # a space and a bracket: the shared first token of ' (A)'
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("\u0120", "(")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|end|>",
                "pad_token": "<|pad|>",
                "chat_template": CHAT_TEMPLATE,
                "clean_up_tokenization_spaces": False,
            }
        ),
        "utf-8",
    )
    return tokenizer
