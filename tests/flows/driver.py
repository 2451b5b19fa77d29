"""Runs every flow that the tests look at in one process, as `rlaif run` does, and notes the ends.

    python -m tests.flows.driver FOLDER      writes FOLDER/ends.json

Prefect keeps sockets open until its process ends, which is why it does not run inside pytest.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.objects import State

from flows import driver
from flows.artifacts import PassArtifacts
from flows.end_to_end import end_to_end
from flows.nightly import nightly
from pipeline.engines.openai import pace
from pipeline.run.start import runs_root
from pipeline.store import RunDir, RunLock
from tests.audits.bad_judges import recipe as write_bad_recipe
from tests.engines.fake_endpoint import Answer, chat_reply, fake_endpoint
from tests.engines.toy_engine import install as install_toy_engine
from tests.flows.labelers import LABELERS, cheapest
from tests.flows.nights import SMOKE, write_nights, write_prompts
from tests.flows.waiting import wait_for_labels
from tests.labeling.toy_labeler import TOY_RECIPE
from tests.labeling.toy_labeler import install as install_toy_labeler
from tests.run.builders import write_recipe

SUPERVISED_ONLY: dict[str, Any] = {
    "preference": {"enabled": False},
    "evaluation": {"enabled": False},
}


async def run_all(folder: Path) -> dict[str, Any]:
    """State and message by the name of the case, and what the server was too busy for."""
    ends: dict[str, Any] = {"unavailable": []}
    send = httpx.AsyncClient.send

    async def noticed(self: Any, request: httpx.Request, **options: Any) -> httpx.Response:
        reply = await send(self, request, **options)
        if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            ends["unavailable"].append(request.url.path)
        return reply

    pytest.MonkeyPatch().setattr(httpx.AsyncClient, "send", noticed)

    async def note(name: str, state: State[Any]) -> None:
        ends[name] = {"state": state.name, "message": state.message}

    smoke = str(SMOKE)
    await note("graph", await end_to_end(smoke, "graph", return_state=True))
    await note("again", await end_to_end(smoke, "again", return_state=True))
    (runs_root() / "again/preference/judge/shard-00001.json").unlink()
    await note("resumed", await end_to_end(smoke, "again", resume=True, return_state=True))
    with RunLock(runs_root() / "again"):
        await note("locked", await end_to_end(smoke, "again", resume=True, return_state=True))
    bad = str(write_bad_recipe(folder / "bad", "obeys"))
    await note("refused", await end_to_end(bad, "refused", return_state=True))
    driver.TASK_RUNS = 10  # two shards with five stages each
    await note("groups", await end_to_end(smoke, "groups", return_state=True))
    driver.TASK_RUNS = 200
    await show_workers()
    recipe = write_nights(folder)
    for name, count in (("night 1", 10), ("night 2", 10), ("night 3", 16)):
        write_prompts(folder, count)
        await note(name, await nightly(recipe, return_state=True))
    for number, (name, changes) in enumerate(LABELERS.items()):
        changes = cheapest(number, changes)
        path = str(write_recipe(folder / f"labeler-{number}", prompts=4, heldout=2, **changes))
        await note(name, await end_to_end(path, f"labeler-{number}", return_state=True))
    with pytest.MonkeyPatch.context() as patch:
        install_toy_engine(patch)
        changes = cheapest(1, {"policy": {"type": "toy"}})
        path = str(write_recipe(folder / "toy-engine", heldout=2, **changes))
        await note("toy engine", await end_to_end(path, "toy-engine", return_state=True))
    with pytest.MonkeyPatch.context() as patch:
        install_toy_labeler(patch)
        path = str(write_recipe(folder / "toy-labeler", **TOY_RECIPE))
        await note("toy labeler", await end_to_end(path, "toy-labeler", return_state=True))
    with pytest.MonkeyPatch.context() as patch, fake_endpoint(silent_at_first) as endpoint:
        patch.setattr(pace, "NOTICE_AFTER_S", 0.3)
        policy = {"type": "openai", "base_url": endpoint.base_url, "model": "m"}
        path = str(write_recipe(folder / "waiting", prompts=2, policy=policy, **SUPERVISED_ONLY))
        await note("waiting", await end_to_end(path, "waiting", return_state=True))
    with pytest.MonkeyPatch.context() as patch:
        ends["people"] = await wait_for_labels(folder, patch)
    return ends


@flow(name="workers")
async def show_workers() -> None:
    """The table of the workers, of a pass that Ray would have made."""
    run = RunDir(runs_root() / "groups")
    artifacts = PassArtifacts(run, ["preference/sample"], 1, lambda: [{"worker": 0, "rows": 3}])
    async with artifacts.following():
        artifacts.step()


def silent_at_first(number: int, body: dict[str, Any]) -> Answer:
    """The second answer, which is the first of the run, takes a second."""
    time.sleep(1.0 if number == 2 else 0.0)
    return 200, chat_reply(f"a text {number}", {"A": -0.1, "B": -2.4})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "ends.json").write_text(json.dumps(asyncio.run(run_all(target)), indent=1))
