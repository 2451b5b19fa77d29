"""Every labeler through the Prefect flow: what it plans has a task, a title and a place in the
report.
"""

import json

import pytest

from pipeline.store import RunDir
from pipeline.store.stage_names import (
    PAIR,
    PREFERENCE,
    STAGES,
    SUPERVISED,
    split_folder,
    stage_folder,
    stage_folders,
    stage_title,
)
from tests.flows.conftest import Flows
from tests.flows.labelers import LABELERS


@pytest.mark.parametrize("number, name", list(enumerate(LABELERS)))
def test_labeler_runs_under_prefect(flows: Flows, number: int, name: str) -> None:
    assert flows.ends[name]["state"] == "Completed", flows.ends[name]["message"]
    run = RunDir(flows.outputs / f"runs/labeler-{number}")
    assert run.report.is_file() and run.info()["status"] == "finished"
    assert (run.dataset / "preference.parquet").is_file()
    folders = stage_folders(run.root)
    assert any(stage_folder(PREFERENCE, PAIR) == folder for folder in folders)
    card, metrics = (run.dataset / "README.md").read_text(), json.loads(run.metrics.read_text())
    for folder in folders:
        phase, kind, _ = split_folder(folder)
        if kind:
            assert STAGES[kind].titles[phase] and folder in metrics["stages"]
        if phase in (SUPERVISED, PREFERENCE):
            assert stage_title(folder) in card
