"""What Prefect shows of a run beside its task runs: name and tags, and artifacts of a step's result
and of a pass that is at work.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.artifacts import (
    Artifact,
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.runtime import flow_run

from pipeline.report import (
    audit_markdown,
    headline_numbers,
    key_plot,
    principle_table,
    summary_markdown,
)
from pipeline.run.phases import REPORT, WRITE_PREFERENCE
from pipeline.run.start import runs_root
from pipeline.run.titles import run_tags, run_title
from pipeline.store import RunDir

LOOK_EVERY_S = 5.0
"""Seconds between two updates of the artifacts of a pass."""


async def name_flow_run(run: RunDir) -> None:
    """Name the flow run by recipe and run, and tag it with recipe, constitution and policy. If a
    person retries or resumes it, it continues this run.
    """
    tags = sorted({*flow_run.tags, *run_tags(run)})
    # By its name, as another machine may take it up; what replaced values of the recipe is in the
    # run's copy of it.
    name = run.run_id if run.root.parent == runs_root() else str(run.root)
    again = {"run_id": name, "resume": True, "overrides": None, "prompts": None}
    async with get_client() as client:
        await client.update_flow_run(
            UUID(flow_run.id),
            name=run_title(run),
            tags=tags,
            parameters={**flow_run.parameters, **again},
        )


async def show_audit(run: RunDir) -> None:
    """Show the audit of the labels, if there was one, as a Markdown artifact."""
    if audit := audit_markdown(run):
        text = f"Checks of the labels of {run.run_id}"
        key = f"audit-{artifact_key(run)}"
        await MarkdownArtifact(markdown=audit, key=key, description=text).acreate()


async def show_report(run: RunDir) -> None:
    """Show the report's summary, its main plot, its table of principles and a link to it as
    artifacts. The plot is not in the summary, as one of Prefect's two UIs shows no image there.
    """
    key = artifact_key(run)
    summary = MarkdownArtifact(
        markdown=summary_markdown(run),
        key=f"summary-{key}",
        description=f"Main figures of {run.run_id}",
    )
    principles = TableArtifact(
        table=principle_table(run),
        key=f"principles-{key}",
        description=f"Labels of {run.run_id} by principle",
    )
    link = LinkArtifact(
        link=run.report.as_uri(),
        link_text="report.html",
        key=f"report-{key}",
        description=f"The whole report of {run.run_id}, a file on the machine that made it",
    )
    shown: list[Artifact] = [summary, principles, link]
    if plot := key_plot(run):
        title, address = plot
        text = f"{title}, {run.run_id}"
        shown.append(ImageArtifact(image_url=address, key=f"plot-{key}", description=text))
    await asyncio.gather(*(artifact.acreate() for artifact in shown))
    for name, value in headline_numbers(run):
        get_run_logger().info("%s: %s", name, value)


async def show_night(run: RunDir | None) -> None:
    """Show the page of a finished night under a key that all nights of its recipe share: Prefect's
    page of the key lists them, each with its flow run. Nothing without such a page.
    """
    page = run.root / "night.md" if run else None
    if run is None or page is None or not page.is_file():
        return
    *lines, links = page.read_text(encoding="utf-8").splitlines()
    links = re.sub(r"\]\((.+?)\)", lambda m: f"]({(run.root / m[1]).resolve().as_uri()})", links)
    series = str(run.info().get("series"))
    night = MarkdownArtifact(
        markdown="\n".join([*lines, links]),
        key=f"nights-{_key(series)}",
        description=f"Night {run.run_id} beside the one before it",
    )
    await night.acreate()


ARTIFACTS: dict[str, Callable[[RunDir], Awaitable[None]]] = {
    WRITE_PREFERENCE: show_audit,
    REPORT: show_report,
}
"""The artifacts that a step shows when it ends well, by the name of the step."""


class PassArtifacts:
    """Two artifacts of one pass: the share of its shard-stages that are done, and its workers.

    Args:
        folders: of the stages of the pass, in order, at least one.
        total: shard-stages of the pass.
        workers: the workers, a row each; None without workers.
    """

    def __init__(
        self,
        run: RunDir,
        folders: Sequence[str],
        total: int,
        workers: Callable[[], list[dict[str, str | int]]] | None,
    ) -> None:
        names = " to ".join(dict.fromkeys((folders[0], folders[-1])))
        key, self._names = artifact_key(run), f"{names} of {run.run_id}"
        self._keys = f"progress-{key}", f"workers-{key}"
        self._total, self._done, self._workers = max(1, total), 0, workers
        self._shown: dict[str | None, UUID] = {}

    def step(self) -> None:
        """Count a finished shard-stage."""
        self._done += 1

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Within it, the artifacts follow every few seconds, and at the end, by a task of their
        own: no shard waits for the server.
        """
        ended = asyncio.Event()
        task = asyncio.create_task(self._follow(ended))
        try:
            yield
            ended.set()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, ended: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LOOK_EVERY_S)
            # Asked before the figures are taken: it may end while the server is spoken to.
            last = ended.is_set()
            share = 100 * self._done / self._total
            text = f"Shards done in {self._names}"
            await self._show(ProgressArtifact(progress=share, key=self._keys[0], description=text))
            if self._workers is not None:
                text = f"Workers that make {self._names}"
                table = self._workers()
                await self._show(TableArtifact(table=table, key=self._keys[1], description=text))
            if last:
                return

    async def _show(self, artifact: Artifact) -> None:
        if artifact.key in self._shown:
            update = ArtifactUpdate(data=await artifact.aformat())
            async with get_client() as client:
                await client.update_artifact(self._shown[artifact.key], update)
        else:
            self._shown[artifact.key] = (await artifact.acreate()).id


def artifact_key(run: RunDir) -> str:
    """The run's id in the characters that Prefect allows in a key."""
    return _key(run.run_id)


def _key(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())
