"""What ships in models/pocket and its labeler: size, hash, tokenizer, chat template, and weights
that transformers can run.
"""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from models.pocket.encoding import NUM_AUX, encode_example
from models.pocket.labeling import RATINGS
from models.pocket.mixture import WRITERS, write_corpus
from models.pocket.network import Network

FOLDER = Path(__file__).parents[2] / "models" / "pocket"
BOTH = (FOLDER, FOLDER / "labeler")
SHIPPED = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_files_are_small_enough() -> None:
    sizes = [(folder / name).stat().st_size for folder in BOTH for name in SHIPPED]
    assert sum(sizes) <= 20 * 1024**2


@pytest.mark.parametrize("folder", BOTH, ids=lambda path: path.name)
def test_card_names_the_weights(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
    assert json.loads((folder / "build.json").read_text())["sha256"] == digest


def test_labeler_goes_on_from_the_pocket_model() -> None:
    """One tokenizer, one template, one network; its recipe is the pocket model's and one stage
    more.
    """
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (FOLDER / name).read_bytes() == (FOLDER / "labeler" / name).read_bytes()
    pocket, labeler = (yaml.safe_load((folder / "recipe.yaml").read_text()) for folder in BOTH)
    assert labeler["stages"][:-1] == pocket["stages"] and labeler["sharpen"] == pocket["sharpen"]


def test_verdict_letters_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    letters = [tokenizer.encode(letter, add_special_tokens=False) for letter in "AB"]
    assert [len(ids) for ids in letters] == [1, 1] and letters[0] != letters[1]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    for letter, ids in zip("AB", letters, strict=True):
        assert tokenizer.encode(prompt + letter) == tokenizer.encode(prompt) + ids


def test_no_rating_begins_another(tokenizer: PreTrainedTokenizerFast) -> None:
    """As "1" begins "10", both end with a dot: [1][.] and [1][0][.] part at the second token."""
    ratings = [tokenizer.encode(rating, add_special_tokens=False) for rating in RATINGS]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    for rating, ids in zip(RATINGS, ratings, strict=True):
        assert not [other for other in ratings if other is not ids and other[: len(ids)] == ids]
        assert tokenizer.encode(prompt + rating) == tokenizer.encode(prompt) + ids


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in (
        "Zürich, naïve\n\ttabs",
        "日本語 and 🙂",
        "  two  spaces ",
        "def f(x): return x**2",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_longer_conversation_extends_shorter(tokenizer: PreTrainedTokenizerFast) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": f"text {index}"} for index, role in enumerate(roles)]
    texts = [
        tokenizer.apply_chat_template(
            messages[:n], tokenize=False, add_generation_prompt=messages[n - 1]["role"] == "user"
        )
        for n in range(1, len(messages) + 1)
    ]
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    ids = [tokenizer.encode(text) for text in texts]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ids))


def test_training_ids_equal_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    for example in write_corpus(120, seed=9, shares=(1,) * len(WRITERS)):
        text = tokenizer.apply_chat_template(example.messages, tokenize=False)
        assert encode_example(example, tokenizer).ids == tokenizer.encode(text)


def test_examples_fit_the_context(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = max(
        len(encode_example(e, tokenizer).ids)
        for e in write_corpus(400, seed=8, shares=(0, 0, 0, 1), wide=True)
    )
    assert 300 < longest < 1024


def test_turn_ends_with_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    config = AutoConfig.from_pretrained(FOLDER)
    assert (
        config.eos_token_id
        == tokenizer.eos_token_id
        != config.pad_token_id
        == tokenizer.pad_token_id
    )
    assert config.architectures == ["LlamaForCausalLM"] and config.max_position_embeddings == 1024


def test_training_network_equals_transformers(tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    assert sum(weight.numel() for weight in model.parameters()) <= 8_000_000
    network = Network(model.config, NUM_AUX).eval()
    weights = {
        name.removeprefix("model."): value
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    missing = network.load_state_dict(weights, strict=False)
    assert (
        all(name.startswith("aux_") for name in missing.missing_keys)
        and not missing.unexpected_keys
    )
    ids = torch.tensor([encode_example(next(write_corpus(1, seed=4)), tokenizer).ids])
    with torch.no_grad():
        ours, theirs = network.logits(network(ids)[0]), model(ids).logits
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)
