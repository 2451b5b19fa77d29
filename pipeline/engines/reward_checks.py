"""Find what is wrong with a reward model before it is opened, from its files alone.

In:  the section of a reward model
Out: nothing, or one ConfigError that names what was found and what to do

Does not: tell a trained classification head from one with random weights, or two tokenizers of
equal size from each other; `rlaif judge-eval` shows both.
"""

import math
from pathlib import Path

from pipeline.config.engines import VllmConfig
from pipeline.engines.architecture import json_object
from pipeline.engines.checks import (
    WEIGHT_SUFFIX,
    check_safetensors,
    check_vllm,
    model_folder,
    model_settings,
)
from pipeline.errors import ConfigError

CLASSIFIER = "ForSequenceClassification"
"""End of an architecture's name in config.json."""
HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
"""Names that transformers gives the weights of a classification head."""
LEAST_FILLED = 0.9
"""Least share of a model's rows of embeddings that its own tokenizer uses: a few are often spare,
so that their number divides well."""
NEEDED = "preference.reward_model.engine needs a sequence classifier with one label"


def check_reward_model(config: VllmConfig) -> None:
    """What `check_vllm` finds, and whether the folder holds a sequence classifier with one label.

    Raises:
        ConfigError: another kind of model, another number of labels, no classification head, or a
            tokenizer of another size.
        MachineError: as `check_vllm`.
    """
    folder = model_folder(config)
    if (folder / "config.json").is_file():
        # First: a causal model may lack a chat template too, and this is what explains it.
        _check_architecture(folder)
    check_vllm(config, generates=False)
    check_classifier(folder)


def check_classifier(folder: Path) -> None:
    """Whether a model folder holds a sequence classifier with one label and its own tokenizer.

    Raises:
        ConfigError: as `check_reward_model`.
    """
    _check_architecture(folder)
    _check_head(folder)
    _check_vocabulary(folder)


def _check_architecture(folder: Path) -> None:
    settings = json_object(folder / "config.json")
    names = settings.get("architectures")
    names = [str(name) for name in names] if isinstance(names, list) else []
    if not any(name.endswith(CLASSIFIER) for name in names):
        raise ConfigError(
            f"model folder '{folder}' holds {', '.join(names) or 'no named architecture'}, which "
            f"is not a sequence classifier; {NEEDED}: train one with `method: reward_model`, or "
            "name a published reward model"
        )
    labels = settings.get("id2label")
    # transformers leaves the names out when there are two labels, its default.
    number = len(labels) if isinstance(labels, dict) else settings.get("num_labels", 2)
    if number != 1:
        raise ConfigError(
            f"model folder '{folder}' is a classifier with {number} labels; {NEEDED}, whose logit "
            "is the score"
        )


def _check_head(folder: Path) -> None:
    tensors = {
        name: (entry, path)
        for path in sorted(folder.glob(f"*{WEIGHT_SUFFIX}"))
        for name, entry in check_safetensors(path).items()
    }
    head = next((name for name in tensors if name.endswith(HEADS)), None)
    if head is None:
        raise ConfigError(
            f"model folder '{folder}' has no weights of a classification head (score.weight), so "
            f"its scores would come from random numbers; {NEEDED} that was trained and saved with "
            "its head"
        )
    entry, path = tensors[head]
    if entry["shape"][0] != 1:
        raise ConfigError(
            f"model folder '{folder}': {head} has {entry['shape'][0]} labels; {NEEDED}, whose "
            "logit is the score"
        )
    with path.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little") + entry["data_offsets"][0])
        weights = stream.read(entry["data_offsets"][1] - entry["data_offsets"][0])
    if not weights.strip(b"\0"):
        raise ConfigError(
            f"model folder '{folder}': all weights of {head} are zero, so every response would get "
            f"the same score; {NEEDED} that was trained"
        )


def _check_vocabulary(folder: Path) -> None:
    """Compare the tokens of tokenizer.json with the rows of the embeddings."""
    stored, rows = folder / "tokenizer.json", model_settings(folder).get("vocab_size")
    if not stored.is_file() or not isinstance(rows, int):
        return
    from pipeline.engines.template_trial import read_tokenizer

    most = max(read_tokenizer(stored).get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if not math.ceil(rows * LEAST_FILLED) <= most <= rows:
        raise ConfigError(
            f"model folder '{folder}': its tokenizer has {most:,} tokens, but the model has "
            f"embeddings for {rows:,}, so it belongs to another model; copy the tokenizer of this "
            "model beside its weights"
        )
