"""Which SQLite everybody uses is decided once, before anything imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hub.storage import sqlite_library


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ((3, 7, 0), False),  # where WAL and the fault begin
        ((3, 44, 5), False),
        ((3, 44, 6), True),  # first backport
        ((3, 45, 1), False),  # newer than a backport's line is not the backport
        ((3, 50, 6), False),
        ((3, 50, 7), True),  # second backport
        ((3, 51, 2), False),  # the last faulty one
        ((3, 51, 3), True),  # the fix
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_the_versions_with_the_wal_reset_fault_are_known(version: tuple[int, int, int], sound: bool) -> None:
    """sqlite.org/wal.html, "the WAL-reset bug": fixed in 3.51.3, backported to 3.44.6 and 3.50.7."""
    assert sqlite_library.is_sound(version) is sound


@pytest.mark.parametrize("first", ["hub.storage", "hub.app", "hub.cli", "hub.storage.writer", "hub.storage.reader", "hub.storage.tables"])
def test_whatever_is_imported_first_everybody_gets_the_chosen_library(first: str) -> None:
    program = (
        f"import {first}\n"
        "import hub.storage.sqlite_library as chosen, sqlite3, sqlite3.dbapi2, aiosqlite.core\n"
        "assert sqlite3.sqlite_version == chosen.VERSION, (sqlite3.sqlite_version, chosen.VERSION)\n"
        "assert aiosqlite.core.sqlite3 is sqlite3\n"
        "assert sqlite3.connect(':memory:').execute('select sqlite_version()').fetchone()[0] == chosen.VERSION\n"
        "print(chosen.VERSION, chosen.SOUND)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sqlite_library.VERSION, str(sqlite_library.SOUND)]


def test_the_library_chosen_here_is_sound() -> None:
    """The lock file brings pysqlite3 on Linux; without it `hub check` must say so, and this test too."""
    if not sys.platform.startswith("linux"):
        pytest.skip("pysqlite3 wheels are for Linux")
    assert sqlite_library.SOUND, f"SQLite {sqlite_library.VERSION} can corrupt a WAL database: install pysqlite3"
