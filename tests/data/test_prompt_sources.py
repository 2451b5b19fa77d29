"""Prompts in SQL databases and in data sets of `datasets` are those of the JSON Lines file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict
from pydantic import TypeAdapter
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from pipeline.config import load_config
from pipeline.config.prompts import PromptSource
from pipeline.data.prompt_sources import _reason
from pipeline.data.prompts import read_prompts
from pipeline.errors import EXIT_USER, ConfigError, DataError
from pipeline.run.start import check_recipe
from tests.run.builders import write_recipe
from tests.sources.builders import write_lines

TEXTS = ["How do I fix a tap?", 'Say "hi",\nplease.']
READ: TypeAdapter[Any] = TypeAdapter(PromptSource)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    yield


def ids(*sources: Any) -> list[str]:
    return [row.row_id for row in read_prompts([READ.validate_python(s) for s in sources])]


def database(folder: Path, *values: Any) -> Path:
    path = folder / "prompts.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute('CREATE TABLE questions (id INTEGER, "Text" TEXT)')
        rows = list(enumerate(values or reversed(TEXTS)))
        connection.executemany("INSERT INTO questions VALUES (?, ?)", rows)
    return path


def test_every_source_gives_the_same_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = write_lines(tmp_path / "p.jsonl", *({"prompt": text} for text in TEXTS))
    path = database(tmp_path)
    monkeypatch.setenv("PROMPTS_DB", f"sqlite:///{path}")
    table = {"type": "sql", "database": path, "table": "questions", "column": "Text"}
    query = "SELECT \"Text\" AS q, '%s :x' FROM questions ORDER BY id DESC"
    own = {"type": "sql", "url_env": "PROMPTS_DB", "query": query, "column": "q"}
    folder = tmp_path / "folder"
    folder.mkdir()
    turns = [[{"role": "user", "content": text}] for text in TEXTS]
    Dataset.from_dict({"turns": turns}).to_parquet(str(folder / "test.parquet"))
    saved = tmp_path / "saved"
    DatasetDict({"new": Dataset.from_dict({"prompt": TEXTS})}).save_to_disk(str(saved))
    before = path.read_bytes()
    assert ids(lines) == ids(table) == ids(own)
    data = {"type": "dataset", "name": str(folder), "split": "test", "column": "turns"}
    assert ids(lines) == ids(data)
    assert ids(lines) == ids({"type": "dataset", "name": str(saved), "split": "new"})
    assert path.read_bytes() == before and not list(tmp_path.glob("*-journal"))
    (row, *_) = read_prompts([READ.validate_python(own)])
    assert (row.source, row.source_index) == ("PROMPTS_DB (query)", 1)


SQL = {"type": "sql", "database": "prompts.sqlite", "table": "questions", "column": "Text"}
ENV = {"type": "sql", "url_env": "PROMPTS_DB", "query": "SELECT 1"}
DATA = {"type": "dataset", "name": "saved"}


@pytest.mark.parametrize(
    ("source", "address", "message"),
    [
        (SQL | {"database": "gone.sqlite"}, "", r"prompt database \S+gone.sqlite does not exist"),
        (SQL | {"database": "saved"}, "", "is a folder, but a file is needed"),
        (SQL | {"database": "p.txt"}, "", "cannot be read .*file is not a database"),
        (SQL | {"table": "answers"}, "", "no table of that name, only questions; correct `table`"),
        (SQL | {"column": "text"}, "", "has the columns id, Text, but 'text' is needed"),
        (SQL | {"column": "id"}, "", "line 1: prompt has the type int, but text is needed"),
        (
            SQL | {"table": None, "query": "SELEC"},
            "",
            "OperationalError: near .*SELEC.*syntax error",
        ),
        (SQL | {"table": None, "query": "DELETE FROM questions"}, "", "write a SELECT|readonly"),
        (ENV, "", "names PROMPTS_DB, but that environment variable is not set"),
        (ENV, "bob:hunter2", "PROMPTS_DB, but that environment variable is not the address"),
        (ENV, "sqlite:///gone/hunter2.db", "prompt database .* does not exist"),
        (ENV, "postgresql://bob:hunter2@db/x", "the driver psycopg2, which is not installed"),
        (ENV, "nodb://bob:hunter2@db/x", r"cannot be opened \(NoSuchModuleError"),
        (
            DATA | {"name": "gone/no/where"},
            "",
            "cannot be loaded .*must be a folder, or a data set",
        ),
        (DATA, "", r"cannot be loaded \(KeyError"),
        (DATA | {"split": "new"}, "", "has the columns text, but 'prompt' is needed"),
    ],
)
def test_damage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: dict[str, Any],
    address: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTS_DB", address)
    database(tmp_path)
    (tmp_path / "p.txt").write_text("no database at all, but a text\n" * 40)
    DatasetDict({"new": Dataset.from_dict({"text": TEXTS})}).save_to_disk("saved")
    with pytest.raises(DataError, match=message) as caught:
        ids(source)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value) or "sqlite" in address
    assert not (tmp_path / "gone.sqlite").exists()


def test_a_value_that_is_no_text(tmp_path: Path) -> None:
    path = database(tmp_path, b"\x00\xff")
    with pytest.raises(DataError, match="line 1: the prompt has the type bytes, but text"):
        ids(SQL | {"database": path})


def test_drivers_are_quoted_without_secrets() -> None:
    address = make_url("postgresql://bob:hunt%2Fer@db/x?sslpassword=pass")
    cause = Exception("no entry for bob with hunt/er or hunt%2Fer, pass\nmore")
    shown = _reason(OperationalError("SELECT 1", {}, cause), address)
    assert shown == "Exception: no entry for *** with *** or ***, ***"


def test_a_vanished_source_stops_before_anything_is_written(tmp_path: Path) -> None:
    source = SQL | {"database": str(tmp_path / "gone.sqlite")}
    recipe = write_recipe(tmp_path)
    text = yaml.safe_load(recipe.read_text()) | {"prompts": {"train": [source]}}
    recipe.write_text(yaml.safe_dump(text))
    with pytest.raises(DataError, match="does not exist") as caught:
        check_recipe(recipe)
    assert caught.value.exit_code == EXIT_USER


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"type": "csv"}, "prompts.train.0' is .*, but a path, or a mapping with the `type` sql"),
        (SQL | {"colum": "x"}, "'prompts.train.0.colum' is not a known key; did you mean"),
        (SQL | {"url_env": "PROMPTS_DB"}, "needs database or url_env, and not both"),
        (SQL | {"table": None}, "needs table or query, and not both"),
        (ENV | {"url_env": "postgresql://bob:hunter2@db/x"}, "url_env' is not usable"),
        (SQL | {"database": "postgresql://bob:hunter2@db/x"}, "name that as url_env"),
        ({"type": "dataset"}, "'prompts.train.0.name' is missing"),
    ],
)
def test_impossible_source_is_refused(tmp_path: Path, source: dict[str, Any], message: str) -> None:
    recipe = write_recipe(tmp_path)
    text = yaml.safe_load(recipe.read_text()) | {"prompts": {"train": [source]}}
    recipe.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(recipe)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
