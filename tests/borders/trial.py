"""One bad input: a command in a forked child with limits, in a folder of its own, and how it ended.

A user's mistake must end as one line on stderr, with exit code 2, and with nothing written. What a
command may not do at all: trace, hang, execute code, leave half of its output, or show a key.
"""

import errno
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from tests.borders.world import Actions, edit, prepare

SECRET = "sk-border-7f3a9c1e5b2d4860-SECRET"
"""The planted key: the variable FUZZ_KEY of every command, and a value in some inputs."""
CPU_S = 4
"""Seconds of CPU after which a command hangs; seconds of wall time would blame a busy machine."""
WALL_S = 240.0
"""Seconds after which a command hangs that waits for something and uses no CPU."""
MEMORY = 3 << 30
NOBODY = 65534
LONGEST_LINE = 700

Ending = Literal["refused", "fine", "reported", "any"]
"""What is right: one line and nothing written; exit code 0; a report with a code over 0; or any of
them. `fine` has to work: it is a healthy input next to bad ones."""
FAULTS = (
    "traceback",
    "hangs",
    "accepted_silently",
    "half_written",
    "secrets_leaked",
    "code_executed",
    "unclear",
    "refused_wrongly",
)
"""What an input may show. `unclear`: refused, but not in one readable line, or with another code
than 2. `refused_wrongly`: a healthy input that was not taken."""


@dataclass(frozen=True)
class Case:
    """One input: what the world looks like, the command, and how it may end."""

    family: str
    name: str
    argv: tuple[str, ...]
    edits: Actions = field(default_factory=dict)
    end: Ending = "refused"
    world: str = "plain"
    environment: Mapping[str, str | None] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    writes: bool = False
    """The command may write before it ends: a run whose disk is full, say."""
    known: bool = False
    """Accepted until now, as the benchmark shows; left out of the quick version."""


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is None for one that had to be killed."""

    code: int | None
    out: str
    err: str


def try_case(case: Case, root: Path, run: Path, row: str) -> dict[str, str]:
    """The faults of one case, each with what was seen; empty when it ended as it should.

    Args:
        root: an empty folder for the case; removed afterwards.
        run: the folder of a finished run, for the cases about run folders.
        row: id of a row of that run, `@row` in a command.
    """
    # Two levels deep, so that what climbs out of its folder is seen.
    folder = root / "w" / "d"
    try:
        prepare(folder, case.world, run)
        edit(folder, case.edits)
        if case.limits.get("nobody"):
            _give_to_nobody(folder)
        before = _snapshot(root)
        ended = execute(case, folder, row)
        after = _snapshot(root)
        return _faults(case, ended, before, after, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _faults(
    case: Case, ended: Ended, before: Mapping[str, str], after: Mapping[str, str], root: Path
) -> dict[str, str]:
    found: dict[str, str] = {}
    lines = [line for line in ended.err.splitlines() if line.strip()]
    last = (lines or ended.out.splitlines() or [""])[-1][:200]
    new = [name for name in after if name not in before]
    changed = [name for name in before if after.get(name) != before[name]]
    if any(Path(name).name == "PWNED" for name in new):
        found["code_executed"] = "PWNED"
    told = [f"output: {ended.err[-80:]}" for text in (ended.out, ended.err) if SECRET in text]
    if told := told + [name for name in new if _holds_secret(root / name)]:
        found["secrets_leaked"] = ", ".join(told[:4])
    if ended.code is None:
        return found | {"hangs": last}
    if "Traceback (most recent call last)" in ended.err or ended.code < 0 or ended.code == 70:
        return found | {"traceback": last}
    if ended.code == 0 and case.end in ("refused", "reported"):
        found["accepted_silently"] = last
    elif ended.code == 2 and not (ended.out and case.end == "reported"):
        if case.end == "fine":
            found["refused_wrongly"] = last
        elif not _is_one_line(lines, several=case.writes):
            found["unclear"] = " / ".join(lines)[-300:] or "nothing was said"
    elif ended.code != 0 and (case.end in ("refused", "fine") or not ended.out + ended.err):
        found["unclear"] = f"exit code {ended.code}: {last}"
    strays = [name for name in new if name.endswith(".tmp")]
    # A state folder with its key, and an empty folder of runs, are no output.
    wrote = [
        n for n in [*new, *changed] if n.partition("/state")[1] == "" and after.get(n) != "folder"
    ]
    outside = [name for name in new if not name.startswith("w/d/")]
    readonly = case.argv[0] in ("verify", "trace", "runs", "check", "audit")
    if strays or outside or (wrote and not case.writes and (ended.code == 2 or readonly)):
        found["half_written"] = ", ".join((strays + outside + wrote)[:4])
    return found


def _is_one_line(lines: list[str], *, several: bool) -> bool:
    """Whether stderr is the one line of a mistake, perhaps after the progress of a run."""
    own = [line for line in lines if line.startswith("rlaif: ")]
    return (
        len(own) == 1
        and lines[-1] == own[0]
        and (several or len(lines) == 1)
        and len(own[0]) <= LONGEST_LINE
        and not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in own[0])
    )


def _snapshot(root: Path) -> dict[str, str]:
    def mark(path: Path) -> str:
        if path.is_symlink():
            return f"link to {os.readlink(path)}"
        status = path.stat()
        return "folder" if path.is_dir() else f"{status.st_size} {status.st_mtime_ns}"

    names = (path for path in sorted(root.rglob("*")) if path.name != ".lock")
    return {str(path.relative_to(root)): mark(path) for path in names}


def _holds_secret(path: Path) -> bool:
    return path.is_file() and SECRET.encode() in path.read_bytes()


def _give_to_nobody(folder: Path) -> None:
    for path in [folder.parent.parent, folder.parent, folder, *folder.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            os.chown(path, NOBODY, NOBODY)
            os.chmod(path, mode)


def execute(case: Case, folder: Path, row: str = "") -> Ended:
    """The command in a child of this process, ended when it takes too long."""
    names = {"@outside": str(folder.parent), "@row": row}
    argv = [_filled(argument, names) for argument in case.argv]
    # Pipes, not files: a limit of file sizes must not hit what is said.
    pipes = [os.pipe(), os.pipe()]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _in_child(case, argv, folder, pipes[0][1], pipes[1][1])
    for _, write in pipes:
        os.close(write)
    texts = {read: bytearray() for read, _ in pipes}
    waiting, end = set(texts), time.monotonic() + case.limits.get("wall_s", WALL_S)
    while waiting and time.monotonic() < end:
        for read in select.select(list(waiting), [], [], 0.2)[0]:
            data = os.read(read, 1 << 16)
            texts[read] += data[: (1 << 22) - len(texts[read])]
            if not data:
                waiting.discard(read)
    if waiting:
        os.killpg(child, signal.SIGKILL)
    code: int | None = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, err = (texts[read].decode("utf-8", "replace") for read, _ in pipes)
    for read, _ in pipes:
        os.close(read)
    return Ended(None if waiting or code in (-signal.SIGXCPU, -signal.SIGKILL) else code, out, err)


def _filled(argument: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        argument = argument.replace(name, value)
    return argument


def _in_child(case: Case, argv: list[str], folder: Path, out: int, err: int) -> None:
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, number in ((out, 1), (err, 2)):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (
            os.fdopen(n, "w", encoding="utf-8", errors="backslashreplace") for n in (1, 2)
        )
        os.chdir(folder)
        _limit(case, folder)
        code = _call(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _call(argv: list[str]) -> int:
    from pipeline.cli.app import main

    sys.argv = ["rlaif", *argv]
    try:
        cast("Callable[[], Any]", main)()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _limit(case: Case, folder: Path) -> None:
    own = {"RLAIF_OUTPUTS": "out", "RLAIF_STATE": "state"}
    os.environ.update({name: str(folder / path) for name, path in own.items()}, FUZZ_KEY=SECRET)
    for name, value in case.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    cpu = CPU_S * (4 if case.slow else 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    if "umask" in case.limits:
        os.umask(int(case.limits["umask"], 8))
    if "processes" in case.limits:
        resource.setrlimit(resource.RLIMIT_NPROC, (case.limits["processes"],) * 2)
    if case.limits.get("nobody"):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if more := case.limits.get("open_files"):
        number = more + len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    if "file_bytes" in case.limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.limits["file_bytes"],) * 2)
    if place := case.limits.get("full"):
        _fill(place)


def _fill(place: str) -> None:
    """From now on the disk is full for every file whose path holds `place`."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if place in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]  # only in the child
