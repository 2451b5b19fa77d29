"""Label files line by line, and what is said about broken ones."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.sources.lines import Line, read_lines


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(line.number, line.values) for line in read_lines(path)]


def make_line(**values: Any) -> Line:
    return Line(Path("x"), 1, values)


def test_json_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert records(path) == [(1, {"a": 1}), (3, {"a": 2})]


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert records(path) == [(1, {"a": 1})]
    path.write_bytes(b'{"a": 2}\n')
    assert records(path) == [(1, {"a": 2})]


def test_csv_texts_may_hold_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffa,b\n"x\ny",2\nz,3\n')
    assert records(path) == [(3, {"a": "x\ny", "b": "2"}), (4, {"a": "z", "b": "3"})]


def test_long_csv_field_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n" + "x" * 200_000 + "\n")
    ((_, record),) = records(path)
    assert len(record["a"]) == 200_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: holds a number"),
        ("a.csv", "a,b\n1,2,3\n", r"line 2: the number of fields is not that of the header \(2\)"),
        ("a.csv", "a,b\n1\n", "line 2: the number of fields"),
        ("a.csv", "a,a\n1,2\n", "line 1: a column name repeats"),
        ("a.csv", 'a,b\n"1" x,2\n', "line 2: .*correct the quoting"),
        ("a.txt", "x", "ends in '.txt'"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        records(write(tmp_path / name, text))


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        records(tmp_path / "none.jsonl")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        records(latin)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        records(cut)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("a", pa.array(["y"]), r"a column name repeats in \['a', 'a'\]"),
        ("A", pa.array(["y"]), "differ only in case"),
        (" a", pa.array(["y"]), "differ only in case or white space"),
        ("t", pa.array([2**62], pa.timestamp("ms")), "int too large"),
        ("m", pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())), "duplicate key"),
        (
            "b",
            pa.Array.from_buffers(
                pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
            ),
            "can't decode byte 0xff",
        ),
    ],
)
def test_parquet_that_cannot_be_read_is_one_line(
    tmp_path: Path, column: str, value: Any, message: str
) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), value], ["a", column])
    pq.write_table(table, tmp_path / "l.parquet")
    with pytest.raises(DataError, match=message) as caught:
        records(tmp_path / "l.parquet")
    assert "\n" not in str(caught.value)


def test_missing_field_lists_the_others() -> None:
    with pytest.raises(DataError, match="x, line 1: there is no 'prompt' among question, answer"):
        make_line(question="a", answer="b").text("prompt")
    with pytest.raises(DataError, match="x, line 1: 'prompt' holds a number"):
        make_line(prompt=3).text("prompt")


def test_tags_come_as_list_or_text() -> None:
    assert make_line(t=["a", " b "]).tags("t") == ("a", "b")
    assert make_line(t="a, b,").tags("t") == ("a", "b")
    assert make_line().tags("t") == make_line().tags(None) == ()
    with pytest.raises(DataError, match="x, line 1: 't' must be a list of words"):
        make_line(t=3).tags("t")
