"""Moving all rows from one database to another, whatever the engines, and reading every one of them back.

Rows travel in one normal form (SQLite's: integers, text, bytes, NULL; a boolean is 0 or 1) and in chunks, so that memory stays
small however grown the hub is. What is derived from them (the search index, the sequences) is made anew at the target.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hub.storage.columns import BY_TABLE, COLUMNS, key_of
from hub.storage.engines import EPOCH
from hub.storage.search import WATERMARK

CHUNK = 500  # rows; a kept body or an HTML part may be some hundred kilobytes
# Settings that belong to one database and not to the hub in it. The target gets its own.
OWN_SETTINGS = (EPOCH, WATERMARK)
ASTRAY = 50_000  # rows that may wait for their twin before a comparison gives up

Row = tuple[Any, ...]
Progress = Callable[[str, str, int], None]  # what is done, the table, rows so far


class CopyRefused(Exception):
    """The copy was not made; the text says why and what to do. The target holds nothing of it."""


class End(Protocol):
    """One database of a copy: where rows are read, or written."""

    name: str  # for people; never with a password
    holds_nul: bool  # whether its text may contain U+0000

    def rows(self, table: str) -> AsyncIterator[list[Row]]:
        """Every row in the order of its key, a chunk at a time, in normal form."""
        ...

    async def put(self, table: str, rows: Sequence[Row]) -> None:
        """Insert rows. Raises CopyRefused for a value the engine cannot hold, naming it."""
        ...

    async def occupied(self) -> str | None:
        """A table that has rows, or None for a database nobody has used."""
        ...

    async def clear_own_settings(self) -> None: ...

    async def sequences(self) -> dict[str, int]:
        """The highest id ever given, by table."""
        ...

    async def finish(self, sequences: dict[str, int], epoch: str) -> None:
        """Go on counting where the source stood, fill the search index, and begin a new epoch of events."""
        ...


@dataclass(slots=True)
class Tally:
    """How many rows a table has, and one number over them all that no order changes.

    The number is the sum, modulo 2**256, of the SHA-256 of each row's JSON array (ASCII, no spaces, bytes as hex).
    """

    rows: int = 0
    total: int = 0

    def add(self, rows: Iterable[Row]) -> None:
        count = 0
        total = self.total
        for row in rows:
            total += int.from_bytes(hashlib.sha256(_as_json(row).encode()).digest())
            count += 1
        self.rows += count
        self.total = total % (1 << 256)

    @property
    def digest(self) -> str:
        return f"{self.total:064x}"


_as_json = json.JSONEncoder(separators=(",", ":"), default=bytes.hex).encode


@dataclass(slots=True)
class Copied:
    """What was copied, by table, and what could not be copied as it was."""

    tables: dict[str, Tally] = field(default_factory=dict)
    mended: dict[str, int] = field(default_factory=dict)  # table -> values whose U+0000 became U+FFFD

    @property
    def rows(self) -> int:
        return sum(tally.rows for tally in self.tables.values())


def new_epoch() -> str:
    """Eight hex characters that name one life of the event sequence: a new one after every restore and copy."""
    return secrets.token_hex(4)


async def copy(source: End, target: End, progress: Progress = lambda step, table, rows: None) -> Copied:
    """Fill an empty target with every row of the source, then read all of it back. Raises CopyRefused.

    The caller holds both databases for itself, and makes the target's rows count (commits, or puts the file in its place)
    only after this returned.
    """
    used = await target.occupied()
    if used is not None:
        raise CopyRefused(
            f"{target.name} is not empty: its table {used} has rows. Nothing was changed. Name a new database, or move this one."
        )
    await target.clear_own_settings()
    copied = Copied()
    for table in BY_TABLE:
        done = 0
        mended = [0]
        async for chunk in _normal(source, target, table, mended):
            await target.put(table, chunk)
            done += len(chunk)
            progress("copied", table, done)
        if mended[0]:
            copied.mended[table] = mended[0]
    await target.finish(await source.sequences(), new_epoch())
    for table in BY_TABLE:
        copied.tables[table] = await _compare(table, _normal(source, target, table, [0]), _normal(target, target, table, [0]), progress)
    return copied


async def tallies(end: End) -> dict[str, Tally]:
    """Every table's tally."""
    found = {}
    for table in BY_TABLE:
        found[table] = Tally()
        async for chunk in _normal(end, end, table, [0]):
            found[table].add(chunk)
    return found


async def _normal(source: End, target: End, table: str, mended: list[int]) -> AsyncIterator[list[Row]]:
    """The source's rows as the target can hold them, without what is each database's own; counts the values changed."""
    mends = source.holds_nul and not target.holds_nul
    async for chunk in source.rows(table):
        rows = [row for row in chunk if row[0] not in OWN_SETTINGS] if table == "setting" else chunk
        if mends:
            rows = [_without_nul(row, mended) if _has_nul(row) else row for row in rows]
        if rows:
            yield rows


def _has_nul(row: Row) -> bool:
    return any(type(value) is str and "\0" in value for value in row)


def _without_nul(row: Row, mended: list[int]) -> Row:
    mended[0] += sum(isinstance(value, str) and "\0" in value for value in row)
    return tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)


async def _compare(table: str, left: AsyncIterator[list[Row]], right: AsyncIterator[list[Row]], progress: Progress) -> Tally:
    """The tally of two streams that hold the same rows. Raises CopyRefused naming the first row that is missing, foreign or different.

    Both come in the order of their key, so equal chunks meet; where a mended key sorts elsewhere, its row waits for its twin.
    """
    key = [COLUMNS[table].index(name) for name in key_of(table)]
    tally = Tally()
    waiting: tuple[dict[Row, Row], dict[Row, Row]] = ({}, {})
    ended = False
    while not ended:
        ours: list[Row] = await anext(left, [])
        theirs: list[Row] = await anext(right, [])
        ended = not ours and not theirs
        tally.add(ours)
        if ours != theirs:
            for mine, other, rows in ((0, 1, ours), (1, 0, theirs)):
                for row in rows:
                    name = tuple(row[i] for i in key)
                    twin = waiting[other].pop(name, None)
                    if twin is None:
                        waiting[mine][name] = row
                    elif twin != row:
                        pair = (row, twin) if mine == 0 else (twin, row)
                        raise CopyRefused(f"{table} {_named(name)} reads back different in {_differing(table, *pair)}. {KEPT}")
            if max(map(len, waiting)) > ASTRAY:
                break
        progress("compared", table, tally.rows)
    for found, what in ((waiting[0], "is missing from the copy"), (waiting[1], "is in the copy and not in the source")):
        if found:
            raise CopyRefused(f"{table} {_named(next(iter(found)))} {what} ({len(found)} such rows at least). {KEPT}")
    return tally


KEPT = "The copy was not kept and the source is untouched: try again, and keep the text of this error if it stays."


def _named(key: Row) -> str:
    return ", ".join(str(part) if isinstance(part, int) else f"{str(part)[:12]}…" for part in key)


def _differing(table: str, left: Row, right: Row) -> str:
    return ", ".join(name for name, a, b in zip(COLUMNS[table], left, right, strict=True) if a != b)
