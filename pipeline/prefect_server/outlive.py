"""A run outlives its Prefect server, which is the record of the run and not the run.

In:  a failure of the server, in the process of a command or of a flow run that a worker started
Out: the run without Prefect, from where it was

In a command, the run takes the place of the process. A worker whose server is gone ends after some
minutes and ends the processes of its flow runs with it, so there the run gets a process and a
session of its own, for which the flow run waits.

Does not: help a flow run that has not begun, since only the server knows of it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cli.terminal import say
from pipeline.config.paths import PROJECT_ROOT
from pipeline.prefect_server import is_server_failure, key_path, reports_elsewhere, server_answers
from pipeline.store import RunDir

OF_WORKER = "PREFECT__FLOW_RUN_ID"
"""The variable by which a worker tells a process which flow run is its own."""


def continue_in_place(run: RunDir) -> None:
    """Go on with the run in place of this process, whose Prefect would keep on trying to reach the
    server.
    """
    say(_what_happens(run, "the run continues without its records"), err=True)
    os.execve(sys.executable, _command(run), _environment())


@contextmanager
def outliving_server(run: RunDir) -> Iterator[None]:
    """Within it, a run that a worker started continues when its server fails; this process then
    ends as the run ends, and tells Prefect no more. In a command every failure passes.
    """
    by_worker = OF_WORKER in os.environ
    try:
        yield
        failed = by_worker and not server_answers()
    except Exception as error:
        failed = is_server_failure(error)
        if not (by_worker and failed):
            raise
    if by_worker and failed:
        process = subprocess.Popen(
            _command(run), env=_environment(), stdin=subprocess.DEVNULL, start_new_session=True
        )
        say(_what_happens(run, f"process {process.pid} continues without its records"), err=True)
        os._exit(process.wait())


def _what_happens(run: RunDir, what: str) -> str:
    done = f"`rlaif resume {run.run_id}` shows what was done"
    if (api := reports_elsewhere()) is not None:
        return f"the Prefect server at {api} failed, so {what}; {done}"
    log = key_path().with_name("server.log")
    return (
        f"the Prefect server failed (see {log}), so {what}; when it is done, `rlaif ui` sets its "
        f"state there, and {done}"
    )


def _command(run: RunDir) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "resume", str(run.root), "--no-prefect"]


def _environment() -> dict[str, str]:
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
