"""Prompts in CSV, Parquet and folders are those of the JSON Lines file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.prompts import read_prompts
from pipeline.errors import DataError
from tests.sources.builders import write_lines

TEXTS = ["How do I fix a tap?", 'Say "hi",\nplease.']


def ids(*paths: Path) -> list[str]:
    return [row.row_id for row in read_prompts(paths)]


def test_every_shape_gives_the_same_prompts(tmp_path: Path) -> None:
    lines = tmp_path / "p.jsonl"
    write_lines(lines, *({"prompt": text} for text in TEXTS))
    folder = tmp_path / "folder"
    folder.mkdir()
    quoted = (text.replace('"', '""') for text in TEXTS)
    rows = "".join(f'{number},"{text}"\r\n' for number, text in enumerate(quoted))
    (folder / "p.csv").write_text(f"\ufeffid,prompt\r\n{rows}", newline="")
    pq.write_table(pa.table({"prompt": TEXTS, "id": [1, 2]}), folder / "q.parquet")
    (folder / "readme.txt").write_text("not a prompt")
    assert ids(lines) == ids(folder / "p.csv") == ids(folder / "q.parquet") == ids(folder)
    (row, *_) = read_prompts([folder / "q.parquet"])
    assert (row.source_index, row.source.endswith("q.parquet")) == (1, True)


def test_conversations_and_tags_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    messages = [[{"role": "user", "content": text}] for text in TEXTS]
    pq.write_table(pa.table({"messages": messages, "tags": [["a"], None]}), path)
    assert [row.tags for row in read_prompts([path])] == [("a",), ()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"text\r\nhello\r\n", "has the columns text, but prompt is needed"),
        ("p.csv", b"prompt;tags\nhello;a\n", "has ';' between its columns, but commas are needed"),
        ("p.csv", b"tags\tprompt\na\thello\n", r"has '\\t' between its columns"),
        ("p.csv", b"prompt\nWhat, then?\n", "line 2 has more values than"),
        ("p.csv", b"tags,prompt\na\n", "line 2: prompt is null, but text is needed"),
        ("p.csv", b"", "has the columns none, but prompt is needed"),
        ("p.csv", b"prompt\n\xff\n", "byte 8 is not UTF-8"),
        ("p.csv", b'prompt\n"open\n', r"line \d is not CSV"),
        ("p.csv", b'prompt\n""\n', "line 2: "),
        ("p.parquet", b"PAR1 broken", "cannot be read as Parquet"),
        ("folder/other.txt", b"x", r"prompt folder \S+folder has no file that ends in .jsonl"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        ids(path.parent if "/" in name else path)


def test_source_that_vanished(tmp_path: Path) -> None:
    for name in ("gone.csv", "gone.parquet", "gone"):
        with pytest.raises(DataError, match="does not exist"):
            ids(tmp_path / name)
