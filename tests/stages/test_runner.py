"""The runner: what is made, what is reused, when it stops, and that counts add up."""

import asyncio
import errno
import gc
import os
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.config.budget import BudgetConfig
from pipeline.engines import Call, ScriptedEngine
from pipeline.errors import (
    BudgetSpentError,
    ConfigError,
    EngineError,
    PromptTooLongError,
    RunStoppedError,
    StoreError,
)
from pipeline.stages import runner as runner_module
from pipeline.stages.base import Stage
from pipeline.stages.meter import Meter
from pipeline.stages.runner import Progress, Runner, step_key
from pipeline.store import Manifest, ShardCounts, load_manifest, read_rows
from pipeline.store.journal import Journal
from pipeline.store.shards import stage_manifests
from pipeline.types import SamplingParams
from tests.stages.builders import (
    ShardState,
    labels,
    make_constitution,
    make_engine,
    make_prompts,
    make_shards,
    rows,
    run_chain,
    sample,
    supervised,
    take,
)

FailureFunction = Callable[[Call], Exception | None]


def is_critique(call: Call) -> bool:
    return call.messages[-1].content.startswith("CRITIQUE")


def fail_when(
    condition: Callable[[Call], bool], error: Exception = EngineError("down")
) -> FailureFunction:
    return lambda call: error if condition(call) else None


def check_sums(states: list[ShardState]) -> None:
    for state in states:
        for manifest in state.values():
            c = manifest.counts
            assert c.expected == c.ok + c.unparsed + c.failed + c.dropped
            assert sum(manifest.reasons.values()) == c.expected - c.ok


async def test_a_shard_reads_its_prompts_alone_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Mock(wraps=read_rows)
    monkeypatch.setattr(runner_module, "read_rows", reads)
    states = await run_chain(tmp_path, supervised(make_engine()))
    read = [call.args[1].path for call in reads.call_args_list]
    assert sorted(read) == sorted(state["prompts"].path for state in states)


async def test_finished_shards_are_not_made_again(tmp_path: Path) -> None:
    first = await run_chain(tmp_path, supervised(make_engine()))
    again = make_engine()
    second = await run_chain(tmp_path, supervised(again))
    assert again.calls == []
    assert all(m.resumed for s in second for m in s.values() if m.stage != "prompts")
    assert [{k: m.sha256 for k, m in s.items()} for s in first] == [
        {k: m.sha256 for k, m in s.items()} for s in second
    ]


async def test_lost_manifest_redoes_one_shard(tmp_path: Path) -> None:
    states = await run_chain(tmp_path, supervised(make_engine()))
    old = {m.path: m.sha256 for s in states for m in s.values()}
    (tmp_path / "supervised/critique-1/shard-00001.json").unlink()
    engine = make_engine()
    again = await run_chain(tmp_path, supervised(engine))
    assert len(engine.calls) == 3 and all(is_critique(call) for call in engine.calls)
    assert old == {m.path: m.sha256 for s in again for m in s.values()}


async def test_failed_rows_alone_are_retried(tmp_path: Path) -> None:
    """One critique fails for good: its revision is dropped. The next run makes these two rows."""
    broken: set[str] = set()

    def failure(call: Call) -> Exception | None:
        if is_critique(call) and (not broken or call.request_id in broken):
            broken.add(call.request_id)
            return EngineError("overloaded")
        return None

    options: dict[str, Any] = {"retries": 1, "max_failed_share": 1.0}
    engine = make_engine(failure=failure)
    states = await run_chain(tmp_path, supervised(engine), **options)
    check_sums(states)
    assert sum(call.request_id in broken for call in engine.calls) == 2
    failed = [r for r in rows(tmp_path, states, "supervised/critique-1") if r.status == "failed"]
    assert [(r.row_id, r.reason) for r in failed] == [(*broken, "overloaded")]
    dropped = [r for r in rows(tmp_path, states, "supervised/revise-1") if r.status == "dropped"]
    assert [(r.critique_id, r.reason) for r in dropped] == [(*broken, "parent critique is failed")]

    healed = make_engine()
    states = await run_chain(tmp_path, supervised(healed), **options)
    assert len(healed.calls) == 2
    assert {row.status for row in rows(tmp_path, states, "supervised/revise-1")} == {"ok"}
    whole = await run_chain(tmp_path / "whole", supervised(make_engine()))
    for folder in ("supervised/critique-1", "supervised/revise-1"):
        assert rows(tmp_path, states, folder) == rows(tmp_path / "whole", whole, folder)


async def test_budget_ends_calls_that_have_not_begun(tmp_path: Path) -> None:
    """One shard-stage has planned its calls when another one sees that the budget is spent."""
    hours = chain([0.0], repeat(2.0))
    meter = Meter(BudgetConfig(hours=1), seconds=lambda: 3600 * next(hours))
    runner, stage = Runner(tmp_path, meter=meter), sample(make_engine())

    async def make(number: int) -> BaseException | None:
        items = stage.plan({"prompts": make_prompts(2)})
        with Journal(tmp_path, stage.folder, number, 1) as journal:
            return (await runner._rows(stage, items, {}, journal, "", 0))[1]

    stops = await asyncio.gather(make(0), make(1))
    assert [type(stop) for stop in stops] == [BudgetSpentError, BudgetSpentError]


async def test_a_parent_that_said_nothing_is_made_again(tmp_path: Path) -> None:
    silent: dict[str, Any] = {"reply": lambda messages: " \n"}
    states = await run_chain(
        tmp_path, supervised(make_engine(**silent)), retries=0, max_failed_share=1.0
    )
    assert {row.status for row in rows(tmp_path, states, "supervised/revise-1")} == {"dropped"}
    states = await run_chain(tmp_path, supervised(make_engine()))
    assert {row.status for row in rows(tmp_path, states, "supervised/revise-1")} == {"ok"}


async def test_changed_settings_reuse_same_rows(tmp_path: Path) -> None:
    """One principle more: rows whose principle stayed are taken over, the others are made."""
    await run_chain(tmp_path, supervised(make_engine(), constitution=make_constitution(3)), 12)
    old = {
        r.row_id
        for m in stage_manifests(tmp_path, "supervised/critique-1")
        for r in read_rows(tmp_path, m)
    }
    engine = make_engine()
    states = await run_chain(tmp_path, supervised(engine, constitution=make_constitution(4)), 12)
    new = {r.row_id for r in rows(tmp_path, states, "supervised/critique-1")}
    made = {c.request_id for c in engine.calls if is_critique(c)}
    assert made == new - old and 0 < len(made) < 12
    reused = sum(s["supervised/critique-1"].counts.reused for s in states)
    assert reused == len(new & old) == 12 - len(made)


async def test_reused_rows_cost_nothing(tmp_path: Path) -> None:
    engine = make_engine(failure=fail_when(lambda c: is_critique(c) and (c.seed or 0) % 2 == 0))
    first = await run_chain(tmp_path, supervised(engine), 8, retries=0, max_failed_share=1.0)
    second = await run_chain(tmp_path, supervised(make_engine()), 8)
    folder = "supervised/critique-1"
    paid = sum(
        s[folder].counts.generated_tokens for s in (*first, *second) if not s[folder].resumed
    )
    assert paid == sum(row.num_tokens for row in rows(tmp_path, second, folder))


async def test_parent_drawn_anew_is_not_joined(tmp_path: Path) -> None:
    """A response is lost and comes out differently: its old critique no longer fits."""
    await run_chain(tmp_path, supervised(make_engine()), 3)
    (tmp_path / "supervised/sample/shard-00000.json").unlink()
    engine = make_engine(reply=lambda messages, seed: f"another {seed}")
    states = await run_chain(tmp_path, supervised(engine), 3)
    assert len(engine.calls) == 9
    responses = {r.row_id: r.response for r in rows(tmp_path, states, "supervised/sample")}
    asked = {c.request_id: c.messages[1].content for c in engine.calls if is_critique(c)}
    for row in rows(tmp_path, states, "supervised/critique-1"):
        assert asked[row.row_id] == responses[row.response_id]


async def test_call_is_tried_again(tmp_path: Path) -> None:
    tries: dict[str, int] = {}

    def failure(call: Call) -> Exception | None:
        tries[call.request_id] = tries.get(call.request_id, 0) + 1
        return EngineError("busy") if tries[call.request_id] < 3 else None

    states = await run_chain(tmp_path, [sample(make_engine(failure=failure))], 3, retries=2)
    assert set(tries.values()) == {3}
    assert {row.status for row in rows(tmp_path, states, "preference/sample")} == {"ok"}


async def test_too_long_prompt_is_not_retried(tmp_path: Path) -> None:
    engine = make_engine(failure=fail_when(lambda call: True, PromptTooLongError("700 of 512")))
    states = await run_chain(tmp_path, [sample(engine)], 3, max_failed_share=1.0)
    assert len(engine.calls) == 6
    found = rows(tmp_path, states, "preference/sample")
    assert {(r.status, r.reason) for r in found} == {("failed", "700 of 512")}


async def test_run_stops_at_the_failed_share(tmp_path: Path) -> None:
    """Every call fails from the fifth shard on: the run ends early, and keeps what it has."""

    def failure(call: Call) -> Exception | None:
        number = int(call.messages[0].content.split()[1])
        return EngineError("endpoint gone") if number >= 12 else None

    engine = make_engine(failure=failure)
    stages = [sample(engine, num_samples=1)]
    with pytest.raises(RunStoppedError, match=r"(?s)endpoint gone.*then `rlaif resume`: all that"):
        await run_chain(tmp_path, stages, 60, retries=0, max_failed_share=0.3, shards_in_flight=1)
    # 6 of 18 rows (0.33) pass the limit of 0.3; 3 of 15 (0.2) do not.
    manifests = stage_manifests(tmp_path, "preference/sample")
    assert [m.counts.failed for m in manifests] == [0, 0, 0, 0, 3, 3]
    healed = make_engine()
    states = await run_chain(tmp_path, [sample(healed, num_samples=1)], 60)
    assert len(healed.calls) == 48
    assert {row.status for row in rows(tmp_path, states, "preference/sample")} == {"ok"}


async def test_a_server_that_is_gone_fails_no_row_and_keeps_those_made(tmp_path: Path) -> None:
    """The engine gives up at the eighth call: seven rows are stored, and eleven are made later."""
    calls = 0

    def failure(call: Call) -> Exception | None:
        nonlocal calls
        calls += 1
        return RunStoppedError("no answer; then `rlaif resume`") if calls > 7 else None

    stages = [sample(make_engine(failure=failure), num_samples=1)]
    with pytest.raises(RunStoppedError, match="no answer; then"):
        await run_chain(tmp_path, stages, 18, shard_size=6, shards_in_flight=1)
    manifests = stage_manifests(tmp_path, "preference/sample")
    assert [(m.counts.expected, m.counts.ok, m.counts.failed) for m in manifests] == [
        (6, 6, 0),
        (1, 1, 0),
    ]
    healed = make_engine()
    states = await run_chain(tmp_path, [sample(healed, num_samples=1)], 18, shard_size=6)
    assert len(healed.calls) == 11
    whole = await run_chain(
        tmp_path / "whole", [sample(make_engine(), num_samples=1)], 18, shard_size=6
    )
    assert rows(tmp_path, states, "preference/sample") == rows(
        tmp_path / "whole", whole, "preference/sample"
    )


async def test_failed_row_is_not_in_the_journal(tmp_path: Path) -> None:
    """A bug ends the shard at its third row, and the journal has what need not be made again."""
    faults = {"question 0": PromptTooLongError("700 of 512"), "question 2": KeyError("a bug")}
    engine = make_engine(failure=lambda call: faults.get(call.messages[0].content))
    stage = sample(engine, num_samples=1)
    with pytest.raises(KeyError, match="a bug"):
        await run_chain(tmp_path, [stage], 3, shards_in_flight=1)
    journal = Journal(tmp_path, stage.folder, 0, runner_module.CODE_VERSION)
    assert [row.status for row in journal.rows()] == ["ok"]


async def test_rows_of_a_journal_are_progress(tmp_path: Path) -> None:
    """Of three rows two are in the journal when a bug ends the shard; the next attempt has all."""

    class Watcher(Progress):
        counts = ShardCounts()

        def rows_done(self, folder: str, counts: ShardCounts) -> None:
            self.counts += counts

    faults = {"question 2": KeyError("a bug")}
    engine = make_engine(failure=lambda call: faults.get(call.messages[0].content))
    with pytest.raises(KeyError, match="a bug"):
        await run_chain(tmp_path, [sample(engine, num_samples=1)], 3)
    again = Watcher()
    await run_chain(tmp_path, [sample(make_engine(), num_samples=1)], 3, progress=again)
    assert (again.counts.expected, again.counts.reused) == (3, 2)


async def test_journal_that_outlives_its_manifest_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process ends between the two; one row of the shard has failed and is made again."""
    engine = make_engine(failure=fail_when(lambda c: c.messages[0].content == "question 0"))
    options: dict[str, Any] = {"retries": 0, "max_failed_share": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda journal: None)
        await run_chain(tmp_path, [sample(engine, num_samples=1)], 3, **options)
    meter = Meter()
    states = await run_chain(tmp_path, [sample(make_engine(), num_samples=1)], 3, meter=meter)
    counts = states[0]["preference/sample"].counts
    every = rows(tmp_path, states, "preference/sample")
    assert counts.all_generated_tokens == sum(row.num_tokens for row in every)
    assert meter.tokens == every[0].num_prompt_tokens + every[0].num_tokens and counts.reused == 2
    assert not list(tmp_path.rglob("*.journal"))


async def test_stop_lets_shards_in_flight_finish(tmp_path: Path) -> None:
    engine = make_engine(failure=fail_when(lambda c: int(c.messages[0].content.split()[1]) < 6))
    with pytest.raises(RunStoppedError):
        await run_chain(
            tmp_path, supervised(engine), 30, retries=0, max_failed_share=0.05, shards_in_flight=4
        )
    # Shards 0 and 1 fail. A quick one beside them may be stages ahead when the run has to stop.
    sampled = {m.shard_index for m in stage_manifests(tmp_path, "supervised/sample")}
    assert {0, 1, 2, 3} <= sampled < set(range(10))
    revised = {m.shard_index for m in stage_manifests(tmp_path, "supervised/revise-1")}
    assert revised.isdisjoint({0, 1})


async def test_one_bad_row_of_the_first_shard_stops_no_run(tmp_path: Path) -> None:
    """1 of the first 9 rows is more than a tenth, 1 of 90 is not; of 9 in all it is."""
    engine = make_engine(
        failure=fail_when(
            lambda c: c.messages[0].content == "question 0", PromptTooLongError("700 of 512")
        )
    )
    stages = [sample(engine, num_samples=1)]
    states = await run_chain(tmp_path, stages, 90, shard_size=9, shards_in_flight=1)
    assert [state["preference/sample"].counts.failed for state in states] == [1] + 9 * [0]
    with pytest.raises(RunStoppedError, match=r"1 of 9 rows failed .11 %.*700 of 512"):
        await run_chain(tmp_path / "small", stages, 9, shard_size=9)


async def test_rows_of_an_older_program_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_chain(tmp_path, [sample(make_engine())], 3)
    again = make_engine()
    monkeypatch.setattr(runner_module, "CODE_VERSION", runner_module.CODE_VERSION + 1)
    states = await run_chain(tmp_path, [sample(again)], 3)
    assert len(again.calls) == 6 and sum(s["preference/sample"].counts.reused for s in states) == 0


@pytest.mark.parametrize("flushes", [0, 1, 2, 4, 7])
async def test_full_disk_keeps_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    """The disk fills up at any flush: one StoreError, no half file, and the rest resumes."""
    shards = make_shards(tmp_path, 12)
    real, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > flushes:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    engine = make_engine()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match=r"no space left .* then `rlaif resume`"):
            await take(Runner(tmp_path, shards_in_flight=1), shards, supervised(engine))
    # Nothing is paid for after the first write that failed.
    assert len(engine.calls) <= 9
    assert not list(tmp_path.rglob("*.tmp"))
    for folder in ("supervised/sample", "supervised/critique-1", "supervised/revise-1"):
        for manifest in stage_manifests(tmp_path, folder):
            assert load_manifest(tmp_path, folder, manifest.shard_index) == manifest
    states = await take(Runner(tmp_path), shards, supervised(make_engine()))
    check_sums(states)
    whole = await run_chain(tmp_path / "whole", supervised(make_engine()), 12)
    folder = "supervised/revise-1"
    assert rows(tmp_path, states, folder) == rows(tmp_path / "whole", whole, folder)


async def test_stopped_runner_can_go_on(tmp_path: Path) -> None:
    broken = True
    engine = make_engine(failure=lambda call: EngineError("down") if broken else None)
    runner, shards = Runner(tmp_path, retries=0), make_shards(tmp_path, 6)
    with pytest.raises(RunStoppedError, match=r"6 of 6 rows failed .100 %."):
        await take(runner, shards, [sample(engine)])
    broken = False
    states = await take(runner, shards, [sample(engine)])
    assert {row.status for row in rows(tmp_path, states, "preference/sample")} == {"ok"}


async def test_bug_in_one_shard_spares_the_others(tmp_path: Path) -> None:
    engine = make_engine(
        failure=fail_when(lambda c: c.messages[0].content == "question 4", KeyError("a bug"))
    )
    with pytest.raises(KeyError, match=r"a bug"):
        await run_chain(tmp_path, [sample(engine)], 9)
    assert [m.shard_index for m in stage_manifests(tmp_path, "preference/sample")] == [0, 2]


async def test_users_mistake_stops_at_once(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda messages, seed: f"answer {seed}")
    with pytest.raises(ConfigError, match=r"no function for scores"):
        await run_chain(tmp_path, [sample(engine), *labels(engine)], 30, shards_in_flight=1)
    assert sum(call.kind == "generate" for call in engine.calls) == 6


async def test_shards_share_the_engine(tmp_path: Path) -> None:
    engine = make_engine(latency_s=0.002)
    await run_chain(tmp_path, supervised(engine), 24, shards_in_flight=4)
    assert engine.most_in_flight > 3
    alone = make_engine(latency_s=0.0)
    await run_chain(tmp_path / "alone", supervised(alone), 24, shards_in_flight=1)
    assert alone.most_in_flight == 3


async def test_key_follows_settings_and_inputs(tmp_path: Path) -> None:
    engine = make_engine()
    stage = sample(engine)
    (shard, other) = make_shards(tmp_path, 6)
    key = step_key(stage, [shard["prompts"]])
    assert key == step_key(sample(make_engine()), [shard["prompts"]])
    assert key == step_key(sample(engine, run_id="elsewhere"), [shard["prompts"]])
    different = [
        step_key(stage, [other["prompts"]]),
        step_key(sample(engine, seed=1), [shard["prompts"]]),
        step_key(sample(engine, num_samples=3), [shard["prompts"]]),
        step_key(sample(engine, sampling=SamplingParams(top_k=5)), [shard["prompts"]]),
        step_key(sample(make_engine(name="other")), [shard["prompts"]]),
        step_key(sample(engine, folder="evaluation/sample-initial"), [shard["prompts"]]),
    ]
    assert len({key, *different}) == 7


async def test_no_manifest_of_a_finished_shard_stays_in_memory(tmp_path: Path) -> None:
    engine = make_engine()
    make_shards(tmp_path, 60)
    runner = Runner(tmp_path, shards_in_flight=2)
    stages = supervised(engine)
    most = 0

    async def call(stage: Stage, index: int, upstream: Sequence[Manifest]) -> Manifest:
        nonlocal most
        most = max(most, sum(type(each) is Manifest for each in gc.get_objects()))
        return await runner.step(stage, index, upstream)

    before = sum(type(each) is Manifest for each in gc.get_objects())
    await runner.wavefront(range(20), stages, call)
    # Those of two shards: prompts and three stages of each, and one that is being made.
    assert most - before <= 2 * (len(stages) + 2)
