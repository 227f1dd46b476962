"""The readers: an engine apart from the writer, in autocommit, unable to write or to checkpoint.

Cold paths read through SQLAlchemy Core statements, the same on both engines; nothing keeps a read open over an await that
waits for people.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Row, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.sql import Executable

from hub.storage.search import SQLITE, Search
from hub.storage.writer import StorageBusy


class Reader:
    """Runs one statement at a time on a connection of its own. Every read raises StorageBusy where the database cannot be read now."""

    def __init__(self, engine: AsyncEngine, search: Search = SQLITE, lost: tuple[type[Exception], ...] = ()) -> None:
        """`lost` is what the driver raises by itself where no connection can be made."""
        self._engine = engine
        self.search = search
        self._lost: tuple[type[Exception], ...] = (DBAPIError, PoolTimeout, *lost)

    async def all(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Every row."""
        with self._refusing():
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, parameters or {})).all()

    async def first(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Row[Any] | None:
        """The first row, or None."""
        with self._refusing():
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, parameters or {})).first()

    async def value(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        row = await self.first(statement, parameters)
        return None if row is None else row[0]

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (ProgrammingError, IntegrityError, DataError):
            raise  # the statement's own fault
        except self._lost as error:
            # Without its text: it may quote what was asked for.
            raise StorageBusy(f"The database could not be read ({type(error).__name__}). Ask again.") from None

    async def close(self) -> None:
        await self._engine.dispose()


def sqlite_reader(path: Path) -> Reader:
    """A reader of one SQLite file."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",
        # In autocommit there is nothing to roll back, and each rollback is one more crossing to the connection's thread.
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        poolclass=AsyncAdaptedQueuePool,
        # None beyond the pool: those are closed after each use, and to open one starts a thread (docs/performance.md).
        pool_size=8,
        max_overflow=0,
        pool_use_lifo=True,  # the one used last has the pages at hand
        hide_parameters=True,  # an error's text must not quote somebody's address
    )

    @event.listens_for(engine.sync_engine, "connect")
    def only_read(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        # 4 MB of pages: the counts beside an inbox of 100,000 conversations do not fit into the usual two, and take twice as long then.
        for pragma in ("query_only=ON", "wal_autocheckpoint=0", "busy_timeout=1500", "mmap_size=0", "cache_size=-4000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return Reader(engine)


def postgres_reader(url: str) -> Reader:
    """A reader of a PostgreSQL database."""
    import asyncpg

    from hub.storage.postgres import LOST, sqlalchemy_url
    from hub.storage.postgres_search import POSTGRES

    engine = create_async_engine(
        sqlalchemy_url(url),
        isolation_level="AUTOCOMMIT",
        pool_size=8,
        max_overflow=0,
        pool_use_lifo=True,  # the one used last has the statements prepared
        pool_pre_ping=True,  # after a restart of the server the first to ask must not be told of a dead connection
        hide_parameters=True,
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {
                "application_name": "support-hub",
                "default_transaction_read_only": "on",
                "jit": "off",
                # A plan made once for all words is made for none: a search for a rare one would read every message (1 s of a million),
                # and the inbox counts would go by the commonest status. Planning takes a millisecond.
                "plan_cache_mode": "force_custom_plan",
            },
        },
    )
    return Reader(engine, POSTGRES, (*LOST, asyncpg.PostgresError))
