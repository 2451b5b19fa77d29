"""Every labeler through the Prefect flow: what it plans has a task, a title and a place in the
report.
"""

import pyarrow.parquet as pq
import pytest

from pipeline.store import RunDir
from tests.flows.conftest import Flows
from tests.flows.labelers import LABELERS


@pytest.mark.parametrize("number, name", list(enumerate(LABELERS)))
def test_labeler_runs_under_prefect(flows: Flows, number: int, name: str) -> None:
    assert flows.ends[name]["state"] == "Completed", flows.ends[name]["message"]
    run = RunDir(flows.outputs / f"runs/labeler-{number}")
    assert run.report.is_file() and run.info()["status"] == "finished"
    assert pq.read_table(run.dataset / "preference.parquet").num_rows >= 0
