"""Processes by id and start time, so that a reused id never stands for the old process."""

import os
import signal
import time

import psutil

PATIENCE_S = 10.0
"""Seconds between the polite signal and the other one."""


def start_time(pid: int) -> float | None:
    """When the process started, in seconds since 1970; None when there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_same_process(pid: int, started: float) -> bool:
    """True when the process of this id is the one that started then."""
    found = start_time(pid)
    return found is not None and abs(found - started) < 1.0


def end_process(pid: int, started: float) -> bool:
    """End a process and its children: asked first, killed later. False when it is gone already."""
    if not is_same_process(pid, started):
        return False
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    _signal(family, signal.SIGTERM)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and is_same_process(pid, started):
        _reap(pid)
        time.sleep(0.1)
    _signal(family, signal.SIGKILL)
    _reap(pid)
    return True


def _signal(family: list[psutil.Process], number: int) -> None:
    for process in family:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def _reap(pid: int) -> None:
    """Take the exit status when the process is our own child; otherwise init does."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        return
