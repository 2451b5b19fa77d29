"""The labels of people, appended to files that are sources of labels.

In:  one label at a time
Out: outputs/review/RUN/random.jsonl and targeted.jsonl, a line for each label, on the disk before
     `add` returns; sources.yaml lists both, random.yaml the random sample alone;
     superseded.jsonl, labels that their reviewers took back, which are in no list

A bound of errors or a calibration needs labels that are like those of the run. Only the random
sample is: the other file holds pairs that were chosen because they are hard.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from pipeline.errors import DataError, StoreError
from pipeline.review.pairs import Pair, Side
from pipeline.store.disk import disk_error
from pipeline.store.files import write_text

Answer = Literal["first", "second", "tie"]
NAMES = ("random", "targeted")
SUPERSEDED = "superseded"
COLUMNS = {
    "prompt": "prompt",
    "first": "first",
    "second": "second",
    "label": "label",
    "annotator": "annotator",
    "tags": "tags",
}


@dataclass(frozen=True)
class Label:
    """One answer of one person."""

    pair: str
    """Row id of the pair."""
    annotator: str
    label: Answer
    seconds: float
    """From the moment the pair was shown."""


class LabelFiles:
    """The files of one run's review; one process at a time."""

    def __init__(self, folder: Path, run_id: str) -> None:
        """Open them, or make them.

        Raises:
            StoreError: another process reviews this run, or a file is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files = {
            name: os.open(folder / f"{name}.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            for name in (*NAMES, SUPERSEDED)
        }
        # Of the folder: a file is another one after a label was taken back.
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name, file in self._files.items():
                # The end of a line that a killed process began; its reviewer saw no confirmation.
                os.ftruncate(file, len(_whole_lines(folder / f"{name}.jsonl")))
            self.labels = [label for name in NAMES for label in saved_labels(folder, name)]
            self._list_sources()
        except BaseException as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise StoreError(
                    f"another `rlaif review {run_id}` is open; use its page, or stop it first"
                ) from error
            raise

    def add(self, pair: Pair, label: Label) -> None:
        """Append a label; it is on the disk when this returns.

        Raises:
            StoreError: it could not be written; the file is as it was.
        """
        name = "random" if pair.reason == "random" else "targeted"
        line = {
            "prompt": [asdict(message) for message in pair.messages],
            "first": pair.first,
            "second": pair.second,
            "tags": [f"principle:{pair.principle_id}"] if pair.principle_id else [],
            **asdict(label),
            "drawn": pair.reason,
        }
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with self._appended(name, data) as size:
            if size == 0:
                self._list_sources()
        self.labels.append(label)

    def take_back(self, label: Label) -> None:
        """Move a label to superseded.jsonl; it is there before it is gone from its own file.

        Raises:
            StoreError: it could not be moved, and still counts.
        """
        for name in NAMES:
            path = self.folder / f"{name}.jsonl"
            lines = _whole_lines(path).splitlines(keepends=True)
            moved = [line for line in lines if _is_of(line, label)]
            if not moved:
                continue
            kept = b"".join(line for line in lines if line not in moved)
            with self._appended(SUPERSEDED, b"".join(moved)):
                write_text(path, kept.decode())
            os.close(self._files[name])
            self._files[name] = os.open(path, os.O_RDWR | os.O_APPEND)
            if not kept:
                with suppress(StoreError):  # the next label in it, or the next start, lists again
                    self._list_sources()
        self.labels.remove(label)

    def close(self) -> None:
        """Let another process review the run."""
        for file in (*self._files.values(), self._lock):
            os.close(file)

    @contextmanager
    def _appended(self, name: str, data: bytes) -> Iterator[int]:
        """Append to a file, and take it off again if the block fails; gives the size before."""
        file = self._files[name]
        size = os.fstat(file).st_size
        try:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
            yield size
        except BaseException as error:
            os.ftruncate(file, size)
            if isinstance(error, OSError):
                raise disk_error(error, self.folder / f"{name}.jsonl") from error
            raise

    def _list_sources(self) -> None:
        """Write the source lists of the files that hold a label; a list of none is removed."""
        sources = {
            name: {
                "type": "pairs",
                "name": f"review-{name}",
                "path": str((self.folder / f"{name}.jsonl").absolute()),
                "columns": COLUMNS,
            }
            for name in NAMES
            if (self.folder / f"{name}.jsonl").stat().st_size
        }
        for name, listed in (("sources", list(sources)), ("random", ["random"])):
            entries = [sources[each] for each in listed if each in sources]
            path = self.folder / f"{name}.yaml"
            if entries:
                write_text(path, yaml.safe_dump({"sources": entries}, sort_keys=False))
            else:
                path.unlink(missing_ok=True)


def saved_labels(folder: Path, name: str) -> Iterator[Label]:
    """The labels of one of a review's files, none without the file; also while it is written.

    Raises:
        DataError: a line is not a label.
    """
    path = folder / f"{name}.jsonl"
    for number, line in enumerate(_whole_lines(path).splitlines(), 1):
        try:
            row: dict[str, Any] = json.loads(line)
            if row["label"] not in get_args(Answer):
                raise ValueError(row["label"])
            answer: Answer = row["label"]
            yield Label(row["pair"], row["annotator"], answer, float(row["seconds"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} line {number} is not a label of a review; correct or remove the line"
            ) from error


def _is_of(line: bytes, label: Label) -> bool:
    row = json.loads(line)
    return bool((row["pair"], row["annotator"]) == (label.pair, label.annotator))


def _whole_lines(path: Path) -> bytes:
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def side_of(label: Label) -> Side | None:
    """The preferred response; None for a tie."""
    return None if label.label == "tie" else label.label
