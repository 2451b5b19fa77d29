"""The sources of prompts that a recipe can name, each as the JSON lines of a prompt file.

In:  a path, a table of a SQL database, or a data set of the `datasets` library
Out: name, number and JSON line of each prompt

SQLite files are opened for reading alone, and nothing is ever committed. An address is read from
the environment, and no message repeats a part of it that may be secret.

Does not: keep an open database still. A run keeps the prompts that it began with.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.config.paths import file_problem, resolve_path
from pipeline.config.prompts import DatasetPromptsConfig, PromptSource, SqlPromptsConfig
from pipeline.data.prompt_tables import read_prompt_file
from pipeline.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection


def read_source(source: PromptSource) -> Iterator[tuple[str, int, bytes]]:
    """Name, number from 1, and JSON line of each prompt of a source.

    Raises:
        DataError: the source is gone, is not what the recipe says, or has a value that is no text.
    """
    if isinstance(source, Path):
        yield from read_prompt_file(resolve_path(source))
        return
    name = str(source)
    for number, value in enumerate(COLUMNS[source.type](source), start=1):
        try:
            line = json.dumps({"messages" if isinstance(value, list) else "prompt": value})
        except TypeError:
            raise DataError(
                f"{name}, line {number}: the prompt has the type {type(value).__name__}, but text "
                f"is needed; correct the column '{source.column}'"
            ) from None
        yield name, number, line.encode("ascii")


def _sql_column(source: SqlPromptsConfig) -> Iterator[Any]:
    import sqlalchemy as sql  # loaded here: most recipes have no database

    address = _address(source)
    try:
        engine = sql.create_engine(address, poolclass=sql.NullPool)
        connection = engine.connect()
    except ImportError as error:
        raise DataError(
            f"the database in {source.url_env} needs the driver {error.name or 'of its kind'}, "
            "which is not installed; install it, or name another one in the address"
        ) from None
    except (sql.exc.SQLAlchemyError, OSError, ValueError, TypeError) as error:
        raise DataError(
            f"the database of the prompt source {source} cannot be opened "
            f"({_reason(error, address)}); correct its address, or start it"
        ) from None
    with connection:
        try:
            yield from _values(source, connection)
        except sql.exc.SQLAlchemyError as error:
            raise DataError(
                f"prompt source {source} cannot be read ({_reason(error, address)}); correct it in "
                "the recipe, or try again once the database answers"
            ) from None


def _address(source: SqlPromptsConfig) -> "URL":
    import sqlalchemy as sql

    try:
        url = sql.make_url(os.environ.get(source.url_env, "")) if source.url_env else None
    except (sql.exc.ArgumentError, ValueError):
        needed = "the address of a database" if os.environ.get(source.url_env or "") else "set"
        raise DataError(
            f"a prompt source names {source.url_env}, but that environment variable is not "
            f"{needed}; set it to one such as postgresql://host/name"
        ) from None
    if url is not None and (url.get_backend_name() != "sqlite" or not url.database):
        return url
    # SQLite would make an empty database of a path that does not exist.
    path = resolve_path(Path(url.database or "") if url else source.database or Path())
    if problem := file_problem(path):
        raise DataError(f"prompt database {path} {problem}; check the path")
    query = {"mode": "ro", "uri": "true"}
    return sql.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def _values(source: SqlPromptsConfig, connection: "Connection") -> Iterator[Any]:
    import sqlalchemy as sql

    if source.table is not None:
        inspector = sql.inspect(connection)
        try:
            names = [column["name"] for column in inspector.get_columns(source.table)]
        except sql.exc.NoSuchTableError:
            tables = ", ".join([*inspector.get_table_names(), *inspector.get_view_names()])
            raise DataError(
                f"prompt source {source}: there is no table of that name, only "
                f"{tables[:120] or 'none'}; correct `table`"
            ) from None
        # SQLite takes a quoted name that is no column for a text.
        _check_column(source, names)
        column: Any = sql.column(source.column)
        statement = sql.select(column).select_from(sql.table(source.table)).order_by(column)
        yield from connection.execution_options(stream_results=True).execute(statement).scalars()
        return
    options = {"stream_results": True, "no_parameters": True}
    result = connection.exec_driver_sql(source.query or "", execution_options=options)
    if not result.returns_rows:
        raise DataError(f"prompt source {source}: the query returns no rows; write a SELECT")
    names = list(result.keys())
    _check_column(source, names)
    yield from result.scalars(names.index(source.column))


def _reason(error: Exception, address: "URL") -> str:
    """What a driver says, in its first line, without what of the address may be secret."""
    from sqlalchemy.exc import DBAPIError

    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    text = str(cause).partition("\n")[0]
    values = [address.password, address.username, *address.normalized_query.values()]
    # The address of a file is ours, and its query is no secret but a part of many words.
    for value in [] if address.get_backend_name() == "sqlite" else values:
        for secret in (value,) if isinstance(value, str) else value or ():
            for spelling in {str(secret), quote(str(secret), safe="")} - {""}:
                text = text.replace(spelling, "***")
    return f"{type(cause).__name__}: {text[:160]}"


def _dataset_column(source: DatasetPromptsConfig) -> Iterator[Any]:
    import datasets  # loaded here: it takes a second

    datasets.disable_progress_bars()
    # It tells of each retry; what is left of them is one line.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    folder = resolve_path(Path(source.name))
    try:
        if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
            if isinstance(loaded, datasets.DatasetDict):
                loaded = loaded[source.split]
        else:
            name = str(folder) if folder.is_dir() else source.name
            loaded = datasets.load_dataset(name, source.subset, split=source.split)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise DataError(
            f"prompt source {source} cannot be loaded ({type(error).__name__}: {reason}); it must "
            "be a folder, or a data set of the Hub that this machine reaches; correct name, subset "
            "or split"
        ) from None
    _check_column(source, loaded.column_names)
    yield from loaded[source.column]


def _check_column(source: SqlPromptsConfig | DatasetPromptsConfig, names: Sequence[str]) -> None:
    if source.column not in names:
        raise DataError(
            f"prompt source {source} has the columns {', '.join(names)[:120] or 'none'}, but "
            f"'{source.column}' is needed; correct `column`"
        )


COLUMNS: dict[str, Callable[[Any], Iterator[Any]]] = {
    "sql": _sql_column,
    "dataset": _dataset_column,
}
"""The kinds of sources beside files, by their `type`, each with what reads its column."""
