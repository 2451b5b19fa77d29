"""Recipes: what is refused, what a change means for reuse, and that every shipped one loads."""

from pathlib import Path

import pytest

from pipeline.cli.schema import json_schema
from pipeline.config import RunConfig, load_config
from pipeline.config.labeling import JudgeConfig
from pipeline.config.paths import PROJECT_ROOT, resolve_path
from pipeline.errors import ConfigError

RECIPES = sorted((PROJECT_ROOT / "flows" / "configs").glob("*.yaml"))
BASE = """\
name: small
constitution: constitutions/balanced.yaml
prompts:
  train: [train.jsonl]
policy:
  type: vllm
  model: models/pocket
"""


def load(tmp_path: Path, text: str) -> RunConfig:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_config(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_loads(path: Path) -> None:
    config = load_config(path)
    assert config.description
    assert resolve_path(config.constitution).is_file()
    for name in (*config.prompts.train, *config.prompts.heldout):
        assert isinstance(name, Path) and resolve_path(name).is_file(), name


def test_default_is_the_published_method(tmp_path: Path) -> None:
    config = load(tmp_path, BASE)
    assert config.preference.comparisons == "samples"
    assert config.supervised.enabled and config.supervised.sft_rows == "all"
    assert config.judge_engine == config.policy


@pytest.mark.parametrize(
    "text, message",
    [
        (BASE + "seeed: 3\n", "line 8: 'seeed' is not a known key; did you mean 'seed'"),
        (BASE.replace("name: small", "name: ../up"), "line 1: 'name' is '../up'"),
        (
            BASE.replace("[train.jsonl]", "[]"),
            "'prompts.train' is \\[\\], but tuple should have at least 1",
        ),
        (BASE + "execution:\n  shard_size: 0\n", "line 9: 'execution.shard_size' is 0"),
        (
            BASE + "preference:\n  comparisons: all_of_them\n",
            "'preference.comparisons' is 'all_of_them'",
        ),
        (BASE + "preference:\n  judge:\n    options: [A, A]\n", "both spell 'A'"),
        (BASE + "preference:\n  judge:\n    options: [A, a]\n", "both spell 'A'"),
        (
            BASE + "preference:\n  sample:\n    num_samples: 1\n",
            "need two samples per prompt.*set it to 2",
        ),
        (BASE + "preference:\n  pair:\n    tie_width: 0.5\n", "'preference.pair.tie_width' is 0.5"),
        (
            BASE
            + "supervised:\n  enabled: false\npreference:\n  comparisons: revision_vs_initial\n",
            "need revisions, but the supervised phase makes none",
        ),
        (
            BASE + "supervised:\n  revise:\n    rounds: 0\npreference:\n  comparisons: all\n",
            "enable it with revise.rounds of 1 or more",
        ),
        (
            BASE.replace("type: vllm\n  model: models/pocket", "type: scripted\n  script: a:b")
            + "preference:\n  train: {method: dpo}\n",
            "only a local model .* can be trained",
        ),
        (
            BASE + "preference:\n  train: {method: dpa, attributes: [a, b]}\n",
            "'dpa' needs a rating under each principle; set labeler to score",
        ),
        (BASE + "preference:\n  train: {method: dpa, attributes: [a, a]}\n", "names 'a' twice"),
        (
            BASE + "preference:\n  train: {method: dpa, attributes: [a, b], angles: [90, 0]}\n",
            "must rise and lie from -90 to 180",
        ),
        (BASE + "evaluation:\n  oracle: not a name\n", "'evaluation.oracle' is 'not a name'"),
    ],
)
def test_impossible_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]  # the point of the test


def test_sampling_names_are_kept() -> None:
    config = RunConfig.model_validate(
        {
            "name": "x",
            "constitution": "c",
            "prompts": {"train": ["t"]},
            "policy": {"type": "vllm", "model": "m"},
            "supervised": {
                "sample": {
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 7,
                    "max_tokens": 11,
                    "stop": ["\n"],
                }
            },
        }
    )
    sampling = config.supervised.sample.sampling()
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    assert (sampling.max_tokens, sampling.stop) == (11, ("\n",))


def test_paths_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_path(Path("prompts/judge.jinja")) == PROJECT_ROOT / "prompts" / "judge.jinja"
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "judge.jinja").write_text("{{ slot_a }}")
    assert resolve_path(Path("prompts/judge.jinja")) == tmp_path / "prompts" / "judge.jinja"
    assert resolve_path(tmp_path / "absent") == tmp_path / "absent"


def test_schema_has_the_words_of_the_fields() -> None:
    schema = json_schema(RunConfig)
    judge = schema["$defs"]["JudgeConfig"]
    assert judge["properties"]["options"]["description"].startswith("Strings that name slot A")
    assert judge["additionalProperties"] is False
    described = {name for name, field in JudgeConfig.model_fields.items() if field.description}
    assert described == set(JudgeConfig.model_fields)
