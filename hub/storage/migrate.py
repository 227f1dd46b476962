"""Brings a database to the code's schema: Alembic steps, run at start after a backup copy; a newer database is refused."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO, Any

import structlog

from hub.storage.blobs import sync_directory

log = structlog.get_logger("hub.storage")

# The newest step. Named here so that a start on a current database need not load Alembic (half a second); a test
# holds it equal to the newest file in migrations/versions.
HEAD = "0005"
STEPS = Path(__file__).parent / "migrations"


class DatabaseTooNew(Exception):
    """The database was written by a newer version of the hub than this one. Nothing was touched: install that version
    or a later one."""


class DatabaseUnreadable(OSError):
    """The file cannot be read as a database (another kind of file, damaged, or held by another program). Nothing was touched."""


class DatabaseInUse(Exception):
    """Another hub process has this SQLite database open. One process writes a SQLite file; stop the other one first."""


def lock(path: Path) -> IO[str]:
    """Hold the exclusive lock that keeps a second process off; released when the file is closed. Raises DatabaseInUse."""
    handle = open(f"{path}.lock", "w")  # noqa: SIM115  (held open for the life of the process)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise DatabaseInUse(f"{path} is open in another hub process. Stop that one first.") from error
    return handle


def current(path: Path) -> str | None:
    """The step a database stands at, or None for an empty one. Raises DatabaseUnreadable."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    except sqlite3.Error as error:
        raise DatabaseUnreadable(
            f"storage.database: {path} cannot be read as a database ({error}). Nothing was changed: correct the path, or put a backup in "
            "place."
        ) from error


def migrate(path: Path) -> bool:
    """Bring the database at `path` to HEAD; whether anything was to do. Raises DatabaseTooNew.

    All steps are one transaction (see migrations/env.py): whatever interrupts them leaves the old database whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    standing = current(path) if path.exists() else None
    if standing == HEAD:
        return False
    if standing is not None and standing > HEAD:
        raise DatabaseTooNew(f"{path} stands at step {standing}, this hub knows steps up to {HEAD}. Install the newer hub.")
    if standing is not None:
        backup(path, path.with_name(f"{path.name}.before-{HEAD}"))
    from sqlalchemy import URL

    upgrade(URL.create("sqlite", database=str(path)))  # not as text: a path may hold ? and %
    log.info("database migrated", path=str(path), step=HEAD)
    return True


def upgrade(url: Any) -> None:
    """Run the steps that a database still needs, on either engine."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(STEPS).replace("%", "%%"))  # the option is interpolated
    config.attributes["url"] = url
    command.upgrade(config, "head")


def backup(source: Path, target: Path) -> None:
    """A consistent copy of a database, whole and synced before it gets its name."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    reading, writing = sqlite3.connect(source), sqlite3.connect(partial)
    try:
        reading.backup(writing)
    finally:
        writing.close()
        reading.close()
    with open(partial, "rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(target)
    sync_directory(target.parent)


def newest_event(path: Path) -> int:
    """The number of the last event a database holds: what came before this process began."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
    finally:
        connection.close()
