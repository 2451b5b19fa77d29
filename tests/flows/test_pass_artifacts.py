"""The progress of a pass in Prefect, without a server: what is shown last."""

import asyncio
from pathlib import Path

import pytest
from prefect.artifacts import Artifact, ProgressArtifact

from flows import artifacts
from flows.artifacts import PassArtifacts
from pipeline.store import RunDir


class SlowServer(PassArtifacts):
    """Keeps what it would send; a request takes as long as the test wants."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run, ["preference/sample"], 2, None)
        self.shares: list[float] = []
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def _show(self, artifact: Artifact) -> None:
        assert isinstance(artifact, ProgressArtifact)
        self.shares.append(artifact.progress)
        self.asked.set()
        await self.answer.wait()


async def test_last_share_is_shown_although_the_server_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass ends while the share of its half is on the way."""
    monkeypatch.setattr(artifacts, "LOOK_EVERY_S", 0.001)
    server = SlowServer(RunDir(tmp_path / "run"))
    async with server.following():
        server.step()
        await server.asked.wait()
        server.step()
        asyncio.get_running_loop().call_later(0.05, server.answer.set)
    assert server.shares == [50.0, 100.0]
