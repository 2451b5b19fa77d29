"""A new labeler is two files and a line, a new stage one file and a line: toys of both, in whole
runs.
"""

from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from pipeline import open_context, run_all, start_run
from pipeline.config.labeling import LabelerName, PreferenceConfig
from pipeline.data.verify import verify
from pipeline.labeling.labelers import LABELERS
from pipeline.store import RunDir
from pipeline.store.shards import stage_manifests
from tests.labeling.toy_labeler import TOY_RECIPE, install
from tests.run.builders import write_recipe


def test_every_labeler_has_a_section() -> None:
    """The names that a recipe can give are the keys of the table, each with its own section."""
    assert set(get_args(LabelerName)) == set(LABELERS) <= set(PreferenceConfig.model_fields)


def check_run(run: RunDir) -> None:
    """The longer response was chosen, and the toy stage is where every other stage is."""
    pairs = pq.read_table(run.dataset / "preference.parquet").to_pylist()
    assert pairs
    for pair in pairs:
        assert len(pair["chosen"].split()) > len(pair["rejected"].split())
    assert stage_manifests(run.root, "preference/length")[0].row_kind == "score"
    card = (run.dataset / "README.md").read_text()
    assert "The longer response is preferred." in card and "word counts" in card
    assert not verify(run)


async def test_toy_labeler_and_stage_make_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    recipe = write_recipe(tmp_path, **TOY_RECIPE)
    run = start_run(recipe, run_id="toy", runs_root_folder=tmp_path / "runs")
    await run_all(open_context(run))
    check_run(run)
