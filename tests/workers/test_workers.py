"""Runs on workers of a real Ray cluster on this machine: equal rows, deaths, what is left over."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.cli.inspect import clean_run
from pipeline.config.workers import WorkersConfig
from pipeline.data.verify import check_files, verify
from pipeline.errors import ConfigError, MachineError, StoreError
from pipeline.progress import Progress
from pipeline.run.context import open_context
from pipeline.run.driver import PLAIN, PlainDriver
from pipeline.run.phases import preference_chain, preference_dataset, supervised_chain
from pipeline.run.start import check_recipe, start_run, work_in
from pipeline.stages.base import Stage
from pipeline.stages.runner import Runner
from pipeline.store import RunDir, read_rows
from pipeline.store.shards import stage_manifests, stage_rows
from pipeline.workers import runner
from pipeline.workers.cluster import Cluster, _start, connect
from pipeline.workers.pool import Pool
from pipeline.workers.runner import PooledRunner
from tests.run.builders import write_recipe

RAY = {"kind": "ray", "num": 2}
SCRIPT = "tests.workers.worlds:make_engine"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster on 127.0.0.1 for all tests of this file."""
    pytest.importorskip("ray", reason="`make setup-cluster` installs it")
    ray = connect(WorkersConfig.model_validate(RAY)).ray
    yield
    ray.shutdown()


class Notes(Progress):
    """Keeps the remarks, and how many rows were reported as made."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def begin(folder: Path, workers: dict[str, Any] | None = None, **args: Any) -> RunDir:
    """A run of eight prompts in shards of four, with a judge of its own."""
    (folder / "once").mkdir(parents=True)
    policy = {"type": "scripted", "script": SCRIPT, "args": args}
    judge = {"type": "scripted", "script": "tests.run.scripted_world:make_engine"}
    execution: dict[str, Any] = {"shard_size": 4, "shards_in_flight": 2, "retries": 1}
    execution |= {"max_failed_share": 0.5} | ({"workers": workers} if workers else {})
    recipe = write_recipe(folder, prompts=8, policy=policy, judge=judge, execution=execution)
    return start_run(recipe, run_id="one", runs_root_folder=folder / "runs")


class Tables(PlainDriver):
    """Keeps the table of the workers as each pass has ended."""

    def __init__(self) -> None:
        self.tables: list[list[dict[str, str | int]]] = []

    async def chain(self, runner: Runner, shards: Sequence[int], stages: Sequence[Stage]) -> None:
        await super().chain(runner, shards, stages)
        if isinstance(runner, PooledRunner):
            self.tables.append(runner.workers_table())


def make(run: RunDir, driver: PlainDriver = PLAIN) -> list[str]:
    """Take a run to its preference set; returns the remarks."""
    progress = Notes()

    async def chains() -> None:
        ctx = open_context(run, progress)
        await supervised_chain(ctx, driver)
        await preference_chain(ctx, driver)
        preference_dataset(ctx)

    with work_in(run):
        asyncio.run(chains())
    return progress.notes


def preference_bytes(run: RunDir) -> bytes:
    return (run.dataset / "preference.parquet").read_bytes()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run without workers."""
    run = begin(tmp_path_factory.mktemp("local"))
    make(run)
    return run


def test_a_worker_dies_and_nothing_differs(local: RunDir, tmp_path: Path) -> None:
    """Equal bytes; manifests and a table say who made what; a second time nothing is made."""
    log = tmp_path / "log"
    run = begin(tmp_path, RAY, once=str(tmp_path / "once"), log=str(log))
    driver = Tables()
    (lost,) = make(run, driver)
    table = driver.tables[0]
    assert [(row["stages"], row["worker"]) for row in table] == [
        ("sample, critique-1, revise-1", number) for number in (0, 1)
    ]
    assert sum(int(row["restarts"]) for row in table) == 1
    # 24 rows; those of the lost attempt are taken from its journal.
    assert 16 <= sum(int(row["rows"]) for row in table) <= 24
    assert lost.startswith("worker ") and lost.endswith("another starts")
    assert preference_bytes(run) == preference_bytes(local) and not verify(run)
    manifests = stage_manifests(run.root, "supervised/critique-1")
    assert {m.made_by["host"] for m in manifests} == {os.uname().nodename}
    assert len({m.made_by["attempt"] for m in manifests}) == len(manifests) == 2
    assert all(m.made_by["attempt"] in m.path and not m.counts.failed for m in manifests)
    paid = log.read_text().split()
    assert str(os.getpid()) not in paid
    # 8 responses, critiques and revisions, 16 samples; only calls in flight are paid again.
    assert 40 <= len(paid) <= 48
    assert make(run) == [] and log.read_text().split() == paid
    assert [*run.root.rglob("*.journal")] == []


@pytest.mark.slow
def test_row_that_kills_every_worker_is_failed(local: RunDir, tmp_path: Path) -> None:
    """Question 4 kills whoever makes it, before questions 5 to 7 of its shard are made: they are
    made from the other end. Question 5 fails each time, which gets its shard no further.
    """
    run = begin(tmp_path, RAY, poison="question 4?", too_long="question 5?")
    with work_in(run):
        asyncio.run(supervised_chain(open_context(run, Notes())))
    rows = [*stage_rows(run.root, "supervised/sample")]
    failed = [row for row in rows if row.status == "failed"]
    assert len(failed) == 2 and "2 workers died while they made" in failed[0].reason
    whole = {
        row.row_id: row
        for m in stage_manifests(local.root, "supervised/sample")
        for row in read_rows(local.root, m)
    }
    assert {row.row_id for row in rows} == {*whole} and len(rows) == len(whole) == 8
    assert all(whole[row.row_id] == row for row in rows if row.status == "ok")


def test_leftovers_are_listed_and_removed(
    local: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a late worker wrote counts for nothing."""
    path = local.root / "supervised/sample/shard-00000.0badcafe.parquet"
    path.write_bytes(b"written late")
    checked = check_files(local)
    assert checked.leftovers == ["supervised/sample/shard-00000.0badcafe.parquet"]
    assert not checked.problems
    clean_run(str(local.root))
    assert not path.exists() and "removed 1 files" in capsys.readouterr().out
    assert check_files(local).leftovers == [] and not verify(local)


@pytest.mark.parametrize(
    ("workers", "error", "message"),
    [
        (
            {"kind": "ray", "num": 2, "gpus": 9},
            MachineError,
            "asks for 18 GPUs, but the cluster has 0",
        ),
        ({"kind": "ray", "num": 4096}, MachineError, r"num is 4096, but this machine has \d+ CPUs"),
        ({"kind": "local", "num": 2}, ConfigError, "'num' is for workers of a cluster"),
    ],
)
def test_more_than_there_is(
    tmp_path: Path, workers: dict[str, Any], error: type[Exception], message: str
) -> None:
    recipe = write_recipe(tmp_path, execution={"workers": workers})
    with pytest.raises(error, match=message):
        check_recipe(recipe)


def test_cluster_that_does_not_start_or_answer() -> None:
    """One line, at once where nothing listens: Ray alone tries for most of a minute."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    ray: Any = SimpleNamespace(init=init)
    with pytest.raises(MachineError, match=r"does not start on this machine \(The current node"):
        _start(ray, WorkersConfig.model_validate(RAY))

    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect") from RuntimeError("InvalidAuthToken: missing")

    locked: Any = SimpleNamespace(init=refused)
    with pytest.raises(MachineError, match=r"at auto asks for its key; set RAY_AUTH_MODE=token"):
        _start(locked, WorkersConfig.model_validate(RAY | {"address": "auto"}))
    workers = WorkersConfig.model_validate(RAY | {"address": "127.0.0.1:1"})
    with pytest.raises(MachineError, match=r"answers at 127\.0\.0\.1:1 \(.*refused"):
        _start(ray, workers)


class Stopped:
    """Takes the place of a pool."""

    error: Exception | None = None

    async def stop(self, error: Exception) -> None:
        self.error = error


async def test_head_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line, and after some patience the run stops, before Ray ends its process."""
    monkeypatch.setattr(runner, "LOOK_AT_HEAD_S", 0.01)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ray: Any = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(gcs_address=address))
    monkeypatch.setattr(runner, "HEAD_PATIENCE_S", 0.2)
    progress, pool = Notes(), Stopped()
    pools = [cast(Pool, pool)]
    watch = asyncio.create_task(runner._watch_head(Cluster(ray, []), pools, progress))
    await asyncio.sleep(0.3)
    assert progress.notes == [] and pool.error is None
    server.close()
    async with asyncio.timeout(30):
        await watch
    (note,) = progress.notes
    assert note.startswith("the head of the Ray cluster does not answer")
    assert "then `rlaif resume`: all that succeeded is kept" in str(pool.error)


def test_worker_that_cannot_see_the_run(tmp_path: Path) -> None:
    """Found before anything is paid for."""
    run = begin(tmp_path, RAY)
    ctx = open_context(run)
    assert ctx.run.run_id == "one"  # and is remembered
    run.update_info(run_id="another")
    with pytest.raises(StoreError, match="does not see the run's folder"):
        asyncio.run(supervised_chain(ctx))
    assert stage_manifests(run.root, "supervised/sample") == []
