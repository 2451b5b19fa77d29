"""A model folder that cannot be trained from: one line before the first step."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.config.training import DpoConfig, LoraConfig, SftConfig
from pipeline.errors import ConfigError
from pipeline.training.worker.loading import load_weights
from tests.training.builders import pair_row, sft_row

Train = Callable[..., Any]


def test_a_token_without_an_embedding_is_one_line(
    train: Train, tiny_model: Path, tmp_path: Path
) -> None:
    """Padding that was added to the tokenizer alone is what people meet."""
    folder = shutil.copytree(tiny_model, tmp_path / "small")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"token 261 \('<new pad>'\) has no embedding: the model"):
        train(DpoConfig(), [pair_row(0)], model=folder)


def lacking(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.1.mlp.down_proj.weight"]


def broken(weights: dict[str, torch.Tensor]) -> None:
    weights["model.norm.weight"][3] = math.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lacking, r"lacks 1 of its weights, such as model.layers.1.mlp.down_proj.weight"),
        (broken, r"model.norm.weight has weights that are infinite or not numbers"),
    ],
)
@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_weights_that_lack_or_are_broken_are_one_line(
    kind: Any, damage: Callable[..., None], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Unseen, one that lacks is drawn, and one that is broken is loaded."""
    folder = shutil.copytree(tiny_model, tmp_path / "damaged")
    head: dict[str, Any] = (
        {"new_head": True, "num_labels": 1} if "Sequence" in kind.__name__ else {}
    )
    load_weights(kind, folder, **head)
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=message):
        load_weights(kind, folder, **head)


def test_a_head_that_lacks_is_drawn_for_a_new_reward_model_alone(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks 1 of its weights, such as score.weight"):
        load_weights(AutoModelForSequenceClassification, tiny_model, num_labels=1)


def test_an_adapter_of_unknown_layers_is_one_line(train: Train) -> None:
    config = SftConfig(lora=LoraConfig(target_modules=["q_proj", "proj"]))
    with pytest.raises(ConfigError, match=r"names 'proj', .* its layers are down_proj, gate_proj"):
        train(config, [sft_row(0)])
