"""What runs in a worker, and what its driver asks of it, without a cluster."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.budget import BudgetConfig
from pipeline.config.engines import ScriptedConfig
from pipeline.errors import BudgetSpentError, RunStoppedError, StoreError
from pipeline.stages.base import Stage
from pipeline.stages.meter import Meter
from pipeline.stages.runner import CODE_VERSION, Made, Progress, Runner
from pipeline.store import RunDir, read_rows, remote
from pipeline.store.journal import Journal
from pipeline.workers.actor import Job, Worker
from pipeline.workers.cluster import Cluster, code_hash
from pipeline.workers.pool import Pool
from pipeline.workers.runner import PooledRunner
from tests.stages.builders import labels, make_engine, make_shards, run_chain, sample


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in memory, and a Ray that says where a process runs."""
    pytest.importorskip("fsspec", reason="`make setup-cluster` installs it")
    monkeypatch.setattr(remote, "PROJECT_ROOT", tmp_path / "worker")
    monkeypatch.setattr(remote, "_MIRRORS", {})
    place = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: place))
    return f"memory://{tmp_path.name}"


def job(run: RunDir, store: str) -> Job:
    engine = ScriptedConfig(type="scripted", script="tests.run.scripted_world:make_engine")
    return Job(0, run.root, "one", code_hash(), engine, lambda root, _: (Runner(root), []), store)


async def test_worker_sees_for_each_job_what_the_store_has(tmp_path: Path, store: str) -> None:
    """A model was trained between two jobs of one process, and trained once more."""
    driver = remote.Mirror(f"{store}/runs", tmp_path / "driver/runs")
    run = RunDir(driver.root / "one")
    model = run.root / "training/sft/model/model.safetensors"
    model.parent.mkdir(parents=True)
    run.update_info(run_id="one")
    driver.push(run.root)
    worker = Worker()
    for weights in ("", "first", "second"):
        if weights:
            model.write_text(weights)
            driver.push(run.root)
        assert not isinstance(await worker.start(job(run, store)), Exception)
        there = remote.mirror(store).root / model.relative_to(driver.root)
        assert (there.read_text() if there.exists() else "") == weights
        await worker.close()


async def test_store_that_fails_is_one_line(tmp_path: Path, store: str) -> None:
    """Not a traceback of Ray's: the worker returns its error."""
    (shard, _) = make_shards(tmp_path, 6)
    worker = Worker()
    root = remote.mirror(store).root / "one"
    stage = sample(make_engine())
    worker._runner, worker._stages = Runner(root), {stage.folder: stage}
    upstream, attempt = list(shard.values()), {"attempt": "0badcafe"}
    error, _ = await worker.make(stage.folder, 0, upstream, None, "key", attempt, 0)
    assert isinstance(error, StoreError) and "lacks" in str(error)
    assert await worker.progress() == ({}, [])


@dataclass
class Here:
    """A pool whose only worker is this process."""

    root: Path
    stage: Stage

    async def make(self, folder: str, *args: Any) -> Made:
        """See Pool.make."""
        return await Runner(self.root).make(self.stage, *args, made_by={"attempt": "0badcafe"})


async def test_spent_budget_refuses_only_what_costs(tmp_path: Path) -> None:
    """Labels that were paid for become pairs, and rows of a journal a shard, as without workers."""
    engine = make_engine()
    chain = [sample(engine), *labels(engine)]
    (state,) = await run_chain(tmp_path, chain[:2], 2)
    meter = Meter(BudgetConfig(tokens=1), tokens=5)
    calls, samples = len(engine.calls), read_rows(tmp_path, state[chain[0].folder])
    for stage, rows, ends in (
        (chain[2], [], False),
        (chain[0], [], True),
        (chain[0], samples, False),
    ):
        with Journal(tmp_path, stage.folder, 0, CODE_VERSION) as journal:
            for row in rows:
                journal.add(row)
        pool = cast(Pool, Here(tmp_path, stage))
        runner = PooledRunner(tmp_path, meter=meter, pools={stage.folder: pool})
        upstream = [state[name] for name in stage.inputs]
        if ends:
            with pytest.raises(BudgetSpentError):
                await runner.attempt(stage, 0, upstream, None, "key")
        else:
            manifest, stop = await runner.attempt(stage, 0, upstream, None, "key")
            assert manifest.counts.ok and stop is None
    assert len(engine.calls) == calls


async def test_stopped_pool_gives_up_what_its_workers_make(tmp_path: Path) -> None:
    """A worker that is not reached any more would never answer; one that waits is woken."""
    ray: Any = SimpleNamespace(remote=lambda **_: lambda _: None)
    here = job(RunDir(tmp_path), "")
    pool = Pool(Cluster(ray, []), here, num=1, gpus=0, tries=1, progress=Progress())
    waits = [pool._answer(asyncio.Event().wait()), pool._take(0, alone=False)]
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.sleep(0.01)
    await pool.stop(RunStoppedError("the head is gone"))
    async with asyncio.timeout(10):
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["the head is gone"] * 2
