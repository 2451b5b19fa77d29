"""Run a module in a process that ends when its parent ends.

    python -m pipeline.training.worker.child PARENT_PID MODULE [ARGUMENT ...]

A training that outlives its killed parent would hold the GPU and write into a folder that a
resumed run is using. Linux signals the child when the thread that started it ends; the check of
the parent's id closes the gap before that was asked for. Elsewhere this does nothing.
"""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when process `parent` ends; exit if it has already."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
