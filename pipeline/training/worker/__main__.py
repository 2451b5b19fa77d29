"""The training subprocess, which ends when its parent ends.

    python -m pipeline.training.worker PARENT_PID job.json
    python -m pipeline.training.worker PARENT_PID accelerate.commands.launch ... \
        -m pipeline.training.worker 0 job.json        0: the parent is whoever started it

A training that outlives its killed parent would hold the GPU and write into a folder that a
resumed run is using. Linux signals the child when the thread that started it ends; the check of
the parent's id closes the gap before that was asked for. Elsewhere it is not signaled.

Lines on standard output that `launch.py` understands:
    phase ...              what is being done
    step 3/60 loss=...     progress (`metrics.py`)
    error KIND: message    a mistake of the user, or why training was stopped, in one line
"""

import ctypes
import os
import re
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

from pipeline.errors import EXIT_OK, PipelineError, StoreError, TrainingError, UserError
from pipeline.training.job import read_job

PR_SET_PDEATHSIG = 1
# The libraries read these once, when they are imported: nothing is looked up on a hub, nothing is
# reported to anyone. OpenMP threads sleep instead of spinning while they wait: on a machine whose
# cores are shared, spinning made a step 50 times slower.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when process `parent` ends; exit if it has already."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main(job_path: Path) -> int:
    """Run a job file; prints a user's mistake in one line and returns 2, and 1 for a training that
    was stopped.
    """
    started = time.perf_counter()
    os.environ.update({**ENVIRONMENT, **os.environ})
    from pipeline.training.worker.saving import is_disk_full
    from pipeline.training.worker.train import run

    try:
        run(read_job(job_path), started)
    except (UserError, TrainingError) as error:
        if error.__cause__ is not None:
            traceback.print_exception(error)
        return report(error)
    except Exception as error:
        if not is_disk_full(error):
            raise
        return report(StoreError("no space left while training; free some disk space, then resume"))
    return EXIT_OK


def report(error: PipelineError) -> int:
    """Print an error as the line that `launch.py` reads; returns its exit code."""
    message = re.sub(r"\s+", " ", str(error))
    print(f"error {type(error).__name__}: {message}", flush=True)
    return error.exit_code


if __name__ == "__main__":
    parent, *rest = sys.argv[1:]
    die_with_parent(int(parent) or os.getppid())
    if len(rest) == 1:
        sys.exit(main(Path(rest[0])))
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
