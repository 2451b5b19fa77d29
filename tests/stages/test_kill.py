"""A process that is killed in the middle of a run: the next one ends with the same rows."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.kill_test import bill, compare, new_run
from benchmarks.scripted_chain import HOLD_AFTER, make_data
from pipeline.config.paths import PROJECT_ROOT
from pipeline.store import RunDir


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run as it ends without a kill."""
    run = new_run(tmp_path_factory.mktemp("calm") / "calm", 64)
    asyncio.run(make_data(run))
    return run


@pytest.mark.parametrize("num_calls", [40, 200])
async def test_killed_run_ends_the_same(tmp_path: Path, calm: RunDir, num_calls: int) -> None:
    """64 prompts cost 320 calls; the process halts after some of them and is killed there."""
    killed = new_run(tmp_path / "killed", 64)
    bill_path = tmp_path / "killed" / "bill"
    command = [sys.executable, "-m", "benchmarks.scripted_chain", str(killed.root)]
    hold = os.environ | {HOLD_AFTER: str(num_calls)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, cwd=PROJECT_ROOT, env=hold
    ) as process:
        while process.poll() is None:
            if bill_path.exists() and bill_path.read_bytes().count(b"\n") >= num_calls:
                process.kill()
                break
            time.sleep(0.005)
    assert 0 < bill(killed) < bill(calm)
    await make_data(killed)
    found = compare(calm, killed, kills=1)
    assert (found["lost"], found["doubled"], found["problems"]) == (0, 0, 0)
    assert found["same_ids"] and found["same_datasets"]
    assert found["tokens_paid_twice_share"] <= found["allowed_share"]
