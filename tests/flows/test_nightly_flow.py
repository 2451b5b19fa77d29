"""The nightly refresh: new prompts make a version, nothing new makes nothing."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.data.dataset import load_dataset
from pipeline.run.context import open_context
from pipeline.run.nightly import nightly_runs, plan_nightly, run_nightly
from pipeline.run.passes import prompt_shards
from pipeline.store import RunDir
from tests.flows.conftest import Flows, ask
from tests.flows.nights import write_nights, write_prompts


def prompts_of(run: RunDir) -> int:
    return sum(pq.read_table(p).num_rows for p in (run.root / "prompts").glob("*.parquet"))


def test_second_night_has_nothing_to_do(flows: Flows) -> None:
    assert flows.ends["night 1"]["message"].startswith("10 new prompts go into version 1")
    assert flows.ends["night 2"]["state"] == "Completed"
    assert flows.ends["night 2"]["message"].startswith("nothing to do: every prompt")
    assert flows.ends["night 3"]["message"].startswith("6 new prompts go into version 2")


def test_version_names_its_parent(outputs: Path) -> None:
    first, second = nightly_runs("nights")
    assert (prompts_of(first), prompts_of(second)) == (10, 6)
    before, after = load_dataset(first), load_dataset(second)
    assert before is not None and after is not None and after.parent is not None
    assert after.parent.dataset_id == before.dataset_id
    assert after.sets["preference"].from_parent == before.sets["preference"].rows


def test_nights_are_listed_under_one_key(flows: Flows) -> None:
    """Each with its flow run; the page of the second links to that of the first."""
    only = {"key": {"any_": ["nights-nights"]}}
    found = ask(flows.server, "artifacts/filter", artifacts=only, sort="CREATED_DESC")
    assert len({each["flow_run_id"] for each in found}) == 2
    links = re.findall(r"\[([a-z ]+)\]\(file://(.+?)\)", found[0]["data"])
    assert [name for name, _ in links] == ["the night before", "report", "all nights"]
    assert all(Path(path).is_file() for _, path in links)


async def test_stopped_night_is_finished_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_OUTPUTS", str(tmp_path / "outputs"))
    recipe = write_nights(tmp_path)
    write_prompts(tmp_path, 4)
    stopped = plan_nightly(recipe).run
    assert stopped is not None
    prompt_shards(open_context(stopped))
    write_prompts(tmp_path, 6)
    assert f"continues {stopped.run_id}" in await run_nightly(plan_nightly(recipe))
    assert "2 new prompts go into version 2" in await run_nightly(plan_nightly(recipe))
    assert "nothing to do" in await run_nightly(plan_nightly(recipe))
