"""Runs a recipe on disks of several sizes, each too small, and finishes it once there is room.

    unshare -rm python -m tests.run.full_disk RECIPE DISK STEP_KIB      prints one JSON object

The disks are real: memory file systems that are mounted on the folder DISK, which takes a user
namespace and no rights. Every run and resume is the command, in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline import cli
from pipeline.data.verify import verify
from pipeline.ids import file_hash
from pipeline.store import RunDir

ROOM_KIB = 1 << 16


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of the command, in a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["rlaif", *arguments]
        try:
            cli.main()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(write)
    with open(read, encoding="utf-8") as stream:
        text = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def mount(disk: Path, size_kib: int, *options: str) -> None:
    kind = ["-t", "tmpfs", "-o", ",".join([*options, f"size={size_kib}k"]), "disk", str(disk)]
    subprocess.run(["mount", *kind], check=True)


def attempt(recipe: Path, disk: Path, size_kib: int) -> dict[str, Any]:
    """One disk: how the run ended, and what the same command or a resume made of it afterwards."""
    mount(disk, size_kib)
    root = disk / "runs/one"
    code, text = command("run", str(recipe), "--no-prefect", "--run-id", "one")
    # The fork itself removes its temporary files; one that is left would stay until the next start.
    strays = [path.name for path in disk.rglob("*.tmp")]
    started = root.exists()
    full_code, full_text = command("resume", "one", "--no-prefect") if started else (code, text)
    mount(disk, ROOM_KIB, "remount")
    again = ["resume", "one"] if started else ["run", str(recipe), "--run-id", "one"]
    end, end_text = command(*again, "--no-prefect") if code else (code, text)
    result = {
        "code": code,
        "text": text,
        "resumed_while_full": [full_code, full_text],
        "strays": strays,
        "end": [end, end_text],
        "problems": verify(RunDir(root)),
        "pairs": file_hash(root / "dataset/preference.parquet"),
    }
    subprocess.run(["umount", str(disk)], check=True)
    return result


def main(recipe: Path, disk: Path, step_kib: int) -> None:
    """Try ever larger disks, until a run fits."""
    os.environ["RLAIF_OUTPUTS"] = str(disk)
    results: list[dict[str, Any]] = []
    while not results or results[-1]["code"]:
        results.append(attempt(recipe, disk, step_kib * (len(results) + 1)))
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
