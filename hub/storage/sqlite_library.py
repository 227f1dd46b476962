"""Picks the SQLite library before anything else imports it.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when two connections checkpoint (fixed in 3.51.3, backported to 3.44.6
and 3.50.7: sqlite.org/wal.html, "the WAL-reset bug"). Where the interpreter's own library is one of those and the
`pysqlite3` wheel is installed, that one takes the place of `sqlite3` for every later import.
"""

from __future__ import annotations

import sqlite3 as _system
import sys

FIXED = (3, 51, 3)
BACKPORTS = ((3, 44, 6), (3, 50, 7))


def is_sound(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite version carries the WAL-reset fix."""
    return version >= FIXED or any(version[:2] == fixed[:2] and version >= fixed for fixed in BACKPORTS)


def _choose() -> str:
    if is_sound(_system.sqlite_version_info):
        return _system.sqlite_version
    try:
        import pysqlite3
        import pysqlite3.dbapi2
    except ImportError:
        return str(_system.sqlite_version)
    if pysqlite3.sqlite_version_info <= _system.sqlite_version_info:
        return str(_system.sqlite_version)
    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
    return str(pysqlite3.sqlite_version)


VERSION = _choose()
SOUND = is_sound(tuple(int(part) for part in VERSION.split(".")))  # type: ignore[arg-type]
