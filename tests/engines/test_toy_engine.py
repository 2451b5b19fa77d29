"""A new engine kind is two files and a line: a toy from `toy_settings.py` and `toy_engine.py`."""

from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from pipeline import open_context, run_all, start_run
from pipeline.config import recipe
from pipeline.config.engines import EngineConfig, RewardModelEngine
from pipeline.engines import ENGINES, Engine
from pipeline.engines.scripted import SCRIPTED
from pipeline.errors import ConfigError
from pipeline.store import load_manifest
from tests.engines.toy_engine import TOY, ToyEngine, install
from tests.engines.toy_settings import ToyConfig
from tests.run.builders import write_recipe


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


async def test_toy_engine_makes_a_run(toy: None, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, policy={"type": "toy"})
    run = start_run(path, run_id="toy", runs_root_folder=tmp_path / "runs")
    await run_all(open_context(run))
    manifest = load_manifest(run.root, "preference/judge", 0)
    assert manifest is not None and manifest.engine["version"] == "toy 1"
    pairs = pq.read_table(run.dataset / "preference.parquet").to_pylist()
    assert pairs
    for pair in pairs:
        assert "kind" in pair["chosen"]
        assert "kind" not in pair["rejected"]


def test_toy_is_checked_before_a_run(toy: None, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, policy={"type": "toy", "word": ""})
    with pytest.raises(ConfigError, match="the toy's `word` is empty; give it one"):
        start_run(path, run_id="toy", runs_root_folder=tmp_path / "runs")


def test_kind_without_weights_is_not_trained(tmp_path: Path) -> None:
    """The recipe is refused, and so is the engine itself."""
    section = {"train": {"method": "dpo"}}
    path = write_recipe(tmp_path, preference=section)
    with pytest.raises(ConfigError, match=r"only a local model \(type: vllm\) can be trained"):
        recipe.load_config(path)
    with pytest.raises(ConfigError, match="type 'toy' has no weights here"):
        TOY.starting_model(ToyConfig(type="toy"))


def test_toy_is_an_engine() -> None:
    assert isinstance(ToyEngine(ToyConfig(type="toy")), Engine)


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="toy"):
        recipe.load_config(write_recipe(tmp_path, policy={"type": "toy"}))


def test_every_kind_of_the_union_is_in_the_table() -> None:
    """And only kinds whose settings are trainable say what a training starts from."""
    unions = [get_args(kinds)[0] for kinds in (EngineConfig, RewardModelEngine)]
    sections = {section for union in unions for section in get_args(union)}
    settings = {get_args(c.model_fields["type"].annotation)[0]: c for c in sections}
    assert settings.keys() == ENGINES.keys()
    refused = SCRIPTED.starting_model
    trainable = {name for name, kind in ENGINES.items() if kind.starting_model is not refused}
    assert trainable == {name for name, config in settings.items() if config.trainable}
