"""Prefect's server command, with transactions that wait for each other.

    python -m pipeline.prefect_server.serve --host HOST --port PORT

Prefect begins its SQLite transactions as readers. One that writes after another has committed
cannot wait: SQLite ends it at once, the server answers 503, and the client tries again two seconds
later. On an idle machine that met most runs, and three in a row cost a run its records.
A transaction that is immediate waits for its turn, at most a minute.

Does not: change a server on PostgreSQL.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration

_begin = AioSqliteConfiguration.begin_transaction


@asynccontextmanager
async def begin_at_once(
    self: AioSqliteConfiguration, session: Any, with_for_update: bool = False
) -> AsyncGenerator[Any, None]:
    """Every transaction takes the write lock as it begins, whether or not the caller asked."""
    async with _begin(self, session, with_for_update=True) as transaction:
        yield transaction


if __name__ == "__main__":
    AioSqliteConfiguration.begin_transaction = begin_at_once  # type: ignore[method-assign]
    sys.argv[1:1] = ["server", "start"]
    app()
