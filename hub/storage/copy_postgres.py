"""A PostgreSQL database as one end of a copy: one snapshot to read from, or one transaction that holds all or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
from sqlalchemy import Boolean, Integer, Text

from hub.storage import postgres
from hub.storage.columns import BY_TABLE, COLUMNS, COUNTED, SEQUENCES, key_of
from hub.storage.copying import CHUNK, OWN_SETTINGS, CopyRefused, Row
from hub.storage.engines import EPOCH
from hub.storage.postgres_search import REBUILD
from hub.storage.tables import metadata

LONG = 24 * 3600.0  # seconds one statement over everything may take; the connection's own limit is for small ones
INT4, INT8 = 1 << 31, 1 << 63

_TYPES = {table: [metadata.tables[table].c[name].type for name in names] for table, names in COLUMNS.items()}
_BOOLEANS = {table: [i for i, kind in enumerate(kinds) if isinstance(kind, Boolean)] for table, kinds in _TYPES.items()}


def _selected(table: str) -> str:
    """Every column, a boolean as 0 or 1."""
    return ", ".join(
        f'"{name}"::int' if isinstance(kind, Boolean) else f'"{name}"' for name, kind in zip(COLUMNS[table], _TYPES[table], strict=True)
    )


def _order(table: str) -> str:
    # Byte order, as in SQLite, whatever language the database sorts by.
    kinds = dict(zip(COLUMNS[table], _TYPES[table], strict=True))
    return ", ".join(f'"{name}" COLLATE "C"' if isinstance(kinds[name], Text) else f'"{name}"' for name in key_of(table))


class PostgresEnd:
    """`End` on one connection that is inside a transaction."""

    holds_nul = False

    def __init__(self, connection: asyncpg.Connection[Any], name: str) -> None:
        self._connection = connection
        self.name = name

    async def rows(self, table: str) -> AsyncIterator[list[Row]]:
        cursor = await self._connection.cursor(f'SELECT {_selected(table)} FROM "{table}" ORDER BY {_order(table)}', timeout=LONG)  # noqa: S608
        while chunk := await cursor.fetch(CHUNK, timeout=LONG):
            yield [tuple(record) for record in chunk]

    async def put(self, table: str, rows: Sequence[Row]) -> None:
        held: Sequence[Row] = rows
        if _BOOLEANS[table]:
            held = [tuple(bool(v) if i in _BOOLEANS[table] else v for i, v in enumerate(row)) for row in rows]
        try:
            await self._connection.copy_records_to_table(table, records=held, columns=COLUMNS[table], timeout=LONG)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, TypeError, ValueError, OverflowError) as error:
            raise CopyRefused(f"{_unfit(table, rows) or f'{table}: {error}'}. Nothing was kept; mend that row in the source.") from error

    async def occupied(self) -> str | None:
        for table in BY_TABLE:
            where = " WHERE key <> ALL($1)" if table == "setting" else ""
            values = (list(OWN_SETTINGS),) if where else ()
            if await self._connection.fetchval(f'SELECT true FROM "{table}"{where} LIMIT 1', *values):  # noqa: S608
                return table
        return None

    async def clear_own_settings(self) -> None:
        await self._connection.execute("DELETE FROM setting WHERE key = ANY($1)", list(OWN_SETTINGS))

    async def sequences(self) -> dict[str, int]:
        given = {}
        for table in (*SEQUENCES, *COUNTED):
            (key,) = key_of(table)
            given[table] = await self._connection.fetchval(f'SELECT coalesce(max("{key}"), 0) FROM "{table}"', timeout=LONG)  # noqa: S608
            sequence = await self._sequence(table)
            if sequence:
                last = await self._connection.fetchval(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
                given[table] = max(given[table], last)
        given["event"] = max(given["event"], await self._connection.fetchval("SELECT coalesce(max(seq), 0) FROM event_head"))
        return given

    async def finish(self, sequences: dict[str, int], epoch: str) -> None:
        for table, last in sequences.items():
            sequence = await self._sequence(table)
            if sequence:
                await self._connection.execute("SELECT setval($1::text::regclass, greatest($2::bigint, 1), $2::bigint > 0)", sequence, last)
        await self._connection.execute("UPDATE event_head SET seq = $1", sequences.get("event", 0))
        for statement in REBUILD:
            await self._connection.execute(statement, timeout=LONG)
        await self._connection.execute(
            "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", EPOCH, epoch
        )

    async def _sequence(self, table: str) -> str | None:
        found = await self._connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", f'"{table}"', key_of(table)[0])
        return None if found is None else str(found)


def _unfit(table: str, rows: Sequence[Row]) -> str:
    """The first value no column of PostgreSQL takes, in words; empty if there is none."""
    for row in rows:
        for name, kind, value in zip(COLUMNS[table], _TYPES[table], row, strict=True):
            limit = INT4 if type(kind) is Integer else INT8
            wanted: tuple[type, ...] = (int,) if isinstance(kind, Integer | Boolean) else (str,) if isinstance(kind, Text) else (bytes,)
            if value is None:
                continue
            where = f"{table} {', '.join(str(row[COLUMNS[table].index(key)])[:12] for key in key_of(table))}: {name}"
            if not isinstance(value, wanted):
                return f"{where} holds a {type(value).__name__} where {wanted[0].__name__} belongs"
            if isinstance(value, int) and not -limit <= value < limit:
                return f"{where} holds {value}, beyond what its column takes"
    return ""


@contextlib.asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[PostgresEnd]:
    """One REPEATABLE READ, READ ONLY snapshot of a database that hubs may be serving. Raises DatabaseUnreadable."""
    connection = await postgres.reach(url)
    try:
        await _unlimited(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield PostgresEnd(connection, postgres.shown(url))
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def unserved(url: str, *, writing: bool) -> AsyncIterator[PostgresEnd]:
    """A database no hub may serve meanwhile: its rows as of one moment, or one transaction that commits when all went well.

    One to be written is brought to the newest step first. Raises DatabaseInUse, DatabaseTooNew, DatabaseUnreadable.
    """
    connection = await postgres.alone(url)
    if writing:
        await postgres.migrate(url)
    try:
        await _unlimited(connection)
        async with connection.transaction(isolation="read_committed" if writing else "repeatable_read", readonly=not writing):
            if writing:
                # Whoever else connects, a script or an older hub, reads an empty database or the whole one.
                tables = ", ".join(f'"{table}"' for table in (*BY_TABLE, "event_head", "message_search"))
                await connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
            yield PostgresEnd(connection, postgres.shown(url))
    finally:
        await connection.close()


async def _unlimited(connection: asyncpg.Connection[Any]) -> None:
    # A server may limit statements and idle transactions for everybody; this one is long by nature.
    await connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = '10s'")
