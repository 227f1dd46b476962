"""A SQLite file as one end of a copy, and how a finished file gets its place."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from hub.storage import migrate
from hub.storage.blobs import sync_directory
from hub.storage.columns import BY_TABLE, COLUMNS, COUNTED, SEQUENCES, key_of, listed
from hub.storage.copying import CHUNK, OWN_SETTINGS, CopyRefused, Row
from hub.storage.engines import EPOCH
from hub.storage.search import WATERMARK

_OWN = ", ".join(f"'{key}'" for key in OWN_SETTINGS)


def _text(raw: bytes) -> str:
    # Only another program can have written text that is no UTF-8; it must not stop a rescue.
    return raw.decode("utf-8", "replace")


class SqliteEnd:
    """`End` on one open connection."""

    holds_nul = True

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._connection.text_factory = _text
        self.name = name

    async def rows(self, table: str) -> AsyncIterator[list[Row]]:
        order = ", ".join(f'"{name}"' for name in key_of(table))
        cursor = self._connection.execute(f'SELECT {listed(table)} FROM "{table}" ORDER BY {order}')  # noqa: S608
        while chunk := cursor.fetchmany(CHUNK):
            yield chunk

    async def put(self, table: str, rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(COLUMNS[table]))
        try:
            self._connection.executemany(f'INSERT INTO "{table}" ({listed(table)}) VALUES ({places})', rows)  # noqa: S608
        except (sqlite3.IntegrityError, OverflowError, UnicodeEncodeError) as error:
            raise CopyRefused(f"{table}: {error}. Nothing was kept; mend that row in the source.") from error

    async def occupied(self) -> str | None:
        return occupied(self._connection)

    async def clear_own_settings(self) -> None:
        self._connection.execute(f"DELETE FROM setting WHERE key IN ({_OWN})")  # noqa: S608

    async def sequences(self) -> dict[str, int]:
        found = dict(self._connection.execute("SELECT name, seq FROM sqlite_sequence"))
        given = {table: found.get(table, 0) for table in SEQUENCES}
        for table in (*SEQUENCES, *COUNTED):
            (key,) = key_of(table)
            highest = self._connection.execute(f'SELECT coalesce(max("{key}"), 0) FROM "{table}"').fetchone()[0]  # noqa: S608
            given[table] = max(given.get(table, 0), highest)
        return given

    async def finish(self, sequences: dict[str, int], epoch: str) -> None:
        for table in SEQUENCES:
            self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            self._connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?, ?)", (table, sequences.get(table, 0)))
        rebuild_search(self._connection)
        self._connection.execute("INSERT OR REPLACE INTO setting(key, value) VALUES (?, ?)", (EPOCH, epoch))


def occupied(connection: sqlite3.Connection) -> str | None:
    """A table that has rows, or None for a database nobody has used."""
    for table in BY_TABLE:
        where = f" WHERE key NOT IN ({_OWN})" if table == "setting" else ""
        if connection.execute(f'SELECT 1 FROM "{table}"{where} LIMIT 1').fetchone():  # noqa: S608
            return table
    return None


def rebuild_search(connection: sqlite3.Connection) -> None:
    """Make the search index anew from the messages."""
    connection.execute("INSERT INTO message_search(message_search) VALUES ('rebuild')")
    connection.execute(
        "INSERT OR REPLACE INTO setting(key, value) SELECT ?, CAST(coalesce(max(id), 0) AS TEXT) FROM message",
        (WATERMARK,),
    )


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """One snapshot of a database that another process may be writing.

    The connection cannot write and never checkpoints; in WAL mode it holds nobody up. While it is open the log grows, since
    it is not begun anew under a reader. Raises DatabaseUnreadable.
    """
    if not path.exists():
        raise migrate.DatabaseUnreadable(f"There is no database at {path}. Correct the path (storage.database in config.yaml).")
    try:
        uri = path.absolute().as_uri() + "?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)
    except sqlite3.Error as error:
        raise migrate.DatabaseUnreadable(f"{path} cannot be opened ({error}). Run this as the user the hub runs as.") from error
    try:
        try:
            connection.execute("PRAGMA mmap_size=0")
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot begins with the first read
        except sqlite3.Error as error:
            raise migrate.DatabaseUnreadable(f"{path} cannot be read as a database ({error}). Nothing was changed.") from error
        yield connection
    finally:
        connection.close()


def step_of(connection: sqlite3.Connection) -> str | None:
    """The migration step a database stands at, or None if it is none of ours."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


@contextlib.contextmanager
def filling(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for filling a file that counts for nothing until it is sealed: no log, no sync, one transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "mmap_size=0", "temp_store=MEMORY", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


def seal(path: Path) -> None:
    """One synced file without a log beside it. Raises CopyRefused if SQLite finds it damaged."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
    if faults != ["ok"]:
        raise CopyRefused(f"SQLite finds the copy damaged: {'; '.join(faults)}. Nothing was kept.")
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def scratch(path: Path, suffix: str) -> Path:
    """An unused file beside `path`, for what is not whole yet; what an interrupted run left there is removed."""
    beside = path.with_name(path.name + suffix)
    for rest in ("", "-journal", "-wal", "-shm", ".lock"):
        beside.with_name(beside.name + rest).unlink(missing_ok=True)
    return beside


def check_free(path: Path) -> None:
    """Raises CopyRefused unless a database may be put at `path`: nothing is there, or one without rows. The caller holds its lock."""
    if not path.exists():
        left = [found for found in (path.with_name(path.name + rest) for rest in ("-wal", "-journal")) if found.exists()]
        if left:
            raise CopyRefused(f"{left[0]} is left over from another database. Nothing was changed: move it away.")
        return
    if migrate.current(path) is None:
        if path.stat().st_size:
            raise CopyRefused(f"{path} is there already and is no database of a hub. Nothing was changed: move it away.")
        return
    with read_only(path) as connection:
        try:
            used = occupied(connection)
        except sqlite3.OperationalError:  # an older hub's: it has not every table
            used = "alembic_version"
    if used is not None:
        raise CopyRefused(f"{path} is not empty: its table {used} has rows. Nothing was changed. Move it away, or name another place.")


def put_in_place(built: Path, path: Path) -> None:
    """Give a sealed file its name, over an empty database if one is there. The caller holds the lock of `path`."""
    if path.exists() and path.stat().st_size:
        # The old file's log must go with it: SQLite would play it back into the new one.
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    for rest in ("-wal", "-shm"):
        path.with_name(path.name + rest).unlink(missing_ok=True)
    built.replace(path)
    sync_directory(path.parent)


@contextlib.asynccontextmanager
async def unserved_file(path: Path) -> AsyncIterator[SqliteEnd]:
    """A database no hub may serve meanwhile, to read from. Raises DatabaseInUse, DatabaseUnreadable, CopyRefused."""
    with read_only(path) as connection, migrate.lock(path):
        step = step_of(connection)
        if step != migrate.HEAD:
            raise CopyRefused(f"{path} stands at step {step}, this hub at {migrate.HEAD}. Nothing was copied: run `hub migrate` first.")
        # Read again now that nobody writes: the snapshot above may be older than the lock.
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        yield SqliteEnd(connection, str(path))


@contextlib.asynccontextmanager
async def new_file(path: Path) -> AsyncIterator[SqliteEnd]:
    """A database to be filled, which gets its place only when all went well. Raises DatabaseInUse, CopyRefused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with migrate.lock(path):
        check_free(path)
        built = scratch(path, ".copying")
        try:
            migrate.migrate(built)
            with filling(built) as connection:
                yield SqliteEnd(connection, str(path))
            seal(built)
            put_in_place(built, path)
        finally:
            scratch(path, ".copying")
