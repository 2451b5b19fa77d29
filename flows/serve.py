"""One process that serves the deployments of prefect.yaml, instead of a work pool and its worker.

In:  prefect.yaml of this project
Out: flow runs, one at a time, each a process; one that is in progress at the end is canceled
"""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any, cast

from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Schedule
from pydantic import BaseModel, BeforeValidator, PositiveInt, ValidationError

from pipeline.config.paths import PROJECT_ROOT
from pipeline.config.yaml_file import load_yaml
from pipeline.errors import ConfigError


class Limit(ConcurrencyLimitConfig, extra="forbid"):
    """Flow runs of a deployment at a time, and what becomes of one too many."""

    limit: PositiveInt
    """With 0, no flow run would ever start; the server refuses it."""


def _limit(value: Any) -> Any:
    """A plain number, as Prefect takes it too."""
    return {"limit": value} if isinstance(value, int) else value


class Deployment(BaseModel, extra="forbid"):
    """A deployment of prefect.yaml."""

    name: str
    description: str
    entrypoint: str
    parameters: dict[str, Any]
    schedules: list[Schedule] = []
    concurrency_limit: Annotated[Limit | None, BeforeValidator(_limit)] = None
    work_pool: dict[str, Any] = {}
    """For workers alone."""

    def served(self) -> RunnerDeployment:
        """The deployment as Prefect's runner takes it. Raises ConfigError where it takes none."""
        try:
            served = RunnerDeployment.from_entrypoint(
                # As a module: a file is looked for below a folder, which a deployment that was made
                # for a work pool does not have.
                self.entrypoint.replace(".py:", ".").replace("/", "."),
                **self.model_dump(include={"name", "description", "parameters"}),
                schedules=self.schedules,
                concurrency_limit=self.concurrency_limit,
            )
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (ImportError, AttributeError, PrefectException) as error:
            problem = f"entrypoint {self.entrypoint}: {error}"
        else:
            known = served._parameter_openapi_schema.properties
            given = chain(self.parameters, *(each.parameters for each in self.schedules))
            unknown = next((name for name in given if name not in known), None)
            if unknown is not None:
                problem = f"the flow has no parameter '{unknown}', only {', '.join(known)}"
            elif not all(each.cron or each.interval or each.rrule for each in self.schedules):
                # Prefect takes it, and never starts a flow run.
                problem = "a schedule has none of cron, interval and rrule"
            else:
                return served
        raise ConfigError(f"deployment '{self.name}' of prefect.yaml: {problem}; correct it")


class Deployments(BaseModel):
    """The part of prefect.yaml that is served."""

    deployments: list[Deployment]


def deployments() -> list[Deployment]:
    """The deployments of prefect.yaml. Raises ConfigError as `load_yaml`."""
    path = PROJECT_ROOT / "prefect.yaml"
    return load_yaml(path, Deployments, what="the file of deployments").deployments


class _Runner(Runner):
    serving: asyncio.Task[Any]
    """The task that serves."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """End as after Ctrl-C, also where SIGINT is ignored, as in the background of a script."""
        self.serving.get_loop().call_soon_threadsafe(self.serving.cancel)


async def serve_deployments(say: Callable[[str], None]) -> None:
    """Serve the deployments until this is canceled.

    Args:
        say: called with lines for a person.
    """
    # Schedules continue with the next process, or with a worker.
    runner = _Runner(limit=1, pause_on_shutdown=False)
    runner.serving = cast("asyncio.Task[Any]", asyncio.current_task())
    for served in [deployment.served() for deployment in deployments()]:
        await runner.aadd_deployment(served)
        say(f"serving {served.full_name}: {served.description}")
    say("Ctrl-C ends this and cancels a run in progress, which `rlaif resume` continues")
    serving = asyncio.ensure_future(runner.start())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        # Left alone, Prefect would kill the processes of its runs, and call them running.
        if runner.started:
            await runner.astop()
        else:
            serving.cancel()
        await asyncio.wait([serving])
