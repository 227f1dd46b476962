"""Storage: the only room that opens a transaction. Import `sqlite_library` first: it decides which SQLite everybody uses."""

from hub.storage import sqlite_library as sqlite_library
