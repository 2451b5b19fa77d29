"""Toys of two files each (settings, behavior), added to their tables and run under Prefect."""

import pytest

from pipeline.store import RunDir
from tests.flows.conftest import Flows


@pytest.mark.parametrize("name", ["toy engine", "toy labeler"])
def test_toy_runs_under_prefect(flows: Flows, name: str) -> None:
    assert flows.ends[name]["state"] == "Completed", flows.ends[name]["message"]
    run = RunDir(flows.outputs / "runs" / name.replace(" ", "-"))
    assert run.report.is_file() and run.info()["status"] == "finished"
