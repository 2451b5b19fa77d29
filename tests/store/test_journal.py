"""The journal of a shard-stage: what a kill, a full disk or another version leaves of it."""

import math
import os
import zlib
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.records import PreferenceRow, ResponseRow, Row, ScoreRow
from pipeline.store.journal import Journal
from pipeline.types import Message

ROWS: list[Row] = [
    ResponseRow(row_id="a", response='Zeile\n"zwei"\u2028\x00 drei', num_tokens=3),
    ScoreRow(row_id="b", parts=("x", "y"), values=(1.5, -math.inf), score=None),
    PreferenceRow(row_id="c", messages=(Message("user", "Why?"),), soft_label=0.1 + 0.2),
]


def journal(root: Path, code: int = 2) -> Journal:
    return Journal(root, "preference/judge", 7, code)


def write(root: Path, rows: list[Row]) -> Path:
    with journal(root) as opened:
        for row in rows:
            opened.add(row)
    return opened.path


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    assert path == tmp_path / "preference/judge/shard-00007.journal"
    assert list(journal(tmp_path).rows()) == ROWS
    journal(tmp_path).remove()
    journal(tmp_path).remove()
    assert list(journal(tmp_path).rows()) == []


def test_nothing_is_written_without_a_row(tmp_path: Path) -> None:
    assert not write(tmp_path, []).parent.exists()


def test_every_cut_costs_one_row_and_none_after_it(tmp_path: Path) -> None:
    """A kill or a full disk can cut the last line anywhere; the next process appends to it."""
    path = write(tmp_path, ROWS[:2])
    whole = path.read_bytes()
    last_line = whole.index(b"\n", 1) + 1
    for length in range(last_line, len(whole) - 1):
        path.write_bytes(whole[:length])
        write(tmp_path, ROWS[2:])
        assert list(journal(tmp_path).rows()) == [ROWS[0], ROWS[2]]


def test_a_changed_byte_is_no_row(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    path.write_bytes(path.read_bytes().replace(b"Zeile", b"zeile"))
    assert list(journal(tmp_path).rows()) == ROWS[1:]


def test_rows_of_another_version_of_the_code_are_not_used(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    assert list(journal(tmp_path, code=3).rows()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "preference").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*shard-00007\.journal"):
        write(tmp_path, ROWS)


@pytest.mark.parametrize(
    "entry", [b"{}", b"3", b'[2, "response"]', b'[2, "none", {}]', b'[2, "response", 7]', b"\xff"]
)
def test_line_of_another_shape_is_no_row(tmp_path: Path, entry: bytes) -> None:
    path = write(tmp_path, ROWS)
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(entry), entry) + path.read_bytes())
    assert list(journal(tmp_path).rows()) == ROWS


def test_pipe_is_no_journal(tmp_path: Path) -> None:
    path = journal(tmp_path).path
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert list(journal(tmp_path).rows()) == []
    with pytest.raises(StoreError, match="cannot write"):
        write(tmp_path, ROWS)
