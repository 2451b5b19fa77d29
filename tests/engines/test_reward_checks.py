"""A reward model that cannot be one is named in one line, from its files alone."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.config.engines import RewardEngineConfig
from pipeline.config.paths import PROJECT_ROOT
from pipeline.engines import check_engine
from pipeline.errors import ConfigError
from tests.cli.commands import Rlaif
from tests.engines.tiny_model import build_tiny_classifier, build_tiny_model
from tests.run.builders import write_recipe


def check(folder: Path) -> None:
    """As a run checks the section of a reward model."""
    check_engine(RewardEngineConfig(type="reward_model", model=str(folder), device="cpu"))


def edited(folder: Path, file: str, **values: object) -> Path:
    """The folder with entries of a JSON file replaced; None removes one."""
    path = folder / file
    entries = {**json.loads(path.read_text()), **values}
    kept = {name: value for name, value in entries.items() if value is not None}
    path.write_text(json.dumps(kept))
    return folder


def test_classifier_with_one_label_passes(tmp_path: Path) -> None:
    check(build_tiny_classifier(tmp_path / "m"))


@pytest.mark.parametrize("labels", [2, 5])
def test_other_numbers_of_labels(tmp_path: Path, labels: int) -> None:
    with pytest.raises(ConfigError, match=f"is a classifier with {labels} labels"):
        check(build_tiny_classifier(tmp_path / "m", labels=labels))


def test_head_with_two_labels_behind_a_config_with_one(tmp_path: Path) -> None:
    folder = build_tiny_classifier(tmp_path / "m", labels=2)
    edited(folder, "config.json", id2label={"0": "LABEL_0"})
    with pytest.raises(ConfigError, match=r"score\.weight has 2 labels"):
        check(folder)


def test_model_that_writes_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds LlamaForCausalLM, which is not a sequence"):
        check(build_tiny_model(tmp_path / "m"))


def test_config_without_an_architecture(tmp_path: Path) -> None:
    folder = edited(build_tiny_classifier(tmp_path / "m"), "config.json", architectures=None)
    with pytest.raises(ConfigError, match="holds no named architecture"):
        check(folder)


def test_missing_head(tmp_path: Path) -> None:
    """A config that calls the weights of a writing model a classifier."""
    folder = build_tiny_classifier(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="no weights of a classification head"):
        check(folder)


def test_head_of_zeros(tmp_path: Path) -> None:
    folder = build_tiny_classifier(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"].zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"all weights of score\.weight are zero"):
        check(folder)


@pytest.mark.parametrize("rows", [200, 600])
def test_tokenizer_of_another_model(tmp_path: Path, rows: int) -> None:
    """The tiny tokenizer has 262 tokens: too many for 200 rows, far too few for 600."""
    folder = edited(build_tiny_classifier(tmp_path / "m"), "config.json", vocab_size=rows)
    said = f"embeddings for {rows}, so it belongs to another|vocab_size {rows}, and"
    with pytest.raises(ConfigError, match=said):
        check(folder)


def test_pocket_tokenizer_beside_another_model(tmp_path: Path) -> None:
    folder = build_tiny_classifier(tmp_path / "m")
    stored = PROJECT_ROOT / "models/pocket/tokenizer.json"
    (folder / "tokenizer.json").write_bytes(stored.read_bytes())
    with pytest.raises(ConfigError, match="its tokenizer has 2,048 tokens"):
        check(folder)


def test_no_chat_template(tmp_path: Path) -> None:
    folder = edited(
        build_tiny_classifier(tmp_path / "m"), "tokenizer_config.json", chat_template=None
    )
    with pytest.raises(ConfigError, match="no chat template"):
        check(folder)


def test_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read without adapters; merge"):
        RewardEngineConfig.model_validate(
            {"type": "reward_model", "model": "m", "adapter": str(tmp_path)}
        )


@pytest.mark.parametrize(
    ("reward_model", "pattern"),
    [
        (None, "needs reward_model.engine"),
        ({"engine": {"type": "vllm", "model": "m"}}, "reward_model.engine"),
        ({"engine": {"type": "reward_model", "model": "{tmp}/none"}}, "none.* does not exist"),
        ({"engine": {"type": "reward_model", "model": "models/pocket"}}, "is not a sequence"),
        ({"engine": {"type": "reward_model", "model": "m"}, "scale": 0}, "scale"),
    ],
)
def test_recipe_is_refused_in_one_line(
    rlaif: Rlaif, tmp_path: Path, reward_model: dict[str, object] | None, pattern: str
) -> None:
    section = json.loads(json.dumps(reward_model).replace("{tmp}", str(tmp_path)))
    preference = {"labeler": "reward_model", **({"reward_model": section} if section else {})}
    ended = rlaif("check", write_recipe(tmp_path / "r", preference=preference))
    assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended.err
    assert re.search(pattern, ended.err), ended.err


def test_template_that_loses_the_response(rlaif: Rlaif, tmp_path: Path) -> None:
    folder = build_tiny_classifier(tmp_path / "m")
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    edited(folder, "tokenizer_config.json", chat_template=template)
    preference = {
        "labeler": "reward_model",
        "reward_model": {"engine": {"type": "reward_model", "model": str(folder)}},
    }
    ended = rlaif("check", write_recipe(tmp_path / "r", preference=preference))
    assert ended.code == 2 and "leaves out the text of a assistant turn" in ended.err, ended.err


def test_panel_has_nothing_to_judge(rlaif: Rlaif, tmp_path: Path) -> None:
    script = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
    preference = {"labeler": "reward_model", "reward_model": {"engine": script}}
    ended = rlaif("check", write_recipe(tmp_path / "r", preference=preference, panel=[script]))
    assert ended.code == 2 and "labeler 'reward_model' asks no judge" in ended.err
