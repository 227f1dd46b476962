"""What it costs to find out who a known sender is, among 10,000 identifiers and among a million, on both engines.

The real writer runs units that resolve a sender and write nothing: the batch, its locks, its look-ups and the decision, without the
message that would follow.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench import machine
from bench.databases import Databases
from bench.generate import COLUMNS
from bench.report import Figure
from hub.contract import Claim, Proof
from hub.customers.resolution import Known, need, resolve, weigh
from hub.policy import Policy
from hub.reactions import react
from hub.storage import postgres
from hub.storage.engines import Engine, engine
from hub.storage.facts import Facts, Needs
from hub.storage.migrate import migrate
from hub.storage.writer import wall_clock

SMALL, LARGE = 10_000, 1_000_000
AT_MOST = 1.5
ASKED = 4_096  # questions of a slice
REGULARS = 1_024  # who writes in the hours that caches last; anybody, drawn evenly, is the dearest case and for information
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Find:
    """Who is this? Nothing follows from the answer."""

    known: tuple[Known, ...]

    def needs(self, needs: Needs) -> None:
        need(self.known, needs)

    def decide(self, facts: Facts) -> int:
        return resolve(self.known, "", "bench", facts).customer.id


def number(n: int) -> str:
    return f"+1646{n:07}"


def rows(count: int, now: int) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
    """So many customers with a phone number each."""
    people = range(1, count + 1)
    yield "customer", ((n, f"Person {n}", now, 0, None, "") for n in people)
    yield (
        "identifier",
        ((n, "phone", "", number(n), "proven", 0, n, "channel", number(n), now, now, n, None, None) for n in people),
    )
    yield "evidence", ((n, n, None, "channel", f"message:{n}", now, None) for n in people)


def fill_sqlite(path: Path, count: int, now: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN")
        for table, made in rows(count, now):
            marks = ", ".join("?" for _ in COLUMNS[table])
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', made)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()


async def fill_postgres(url: str, count: int, now: int) -> None:
    await postgres.migrate(url)
    connection = await asyncpg.connect(url)
    try:
        for table, made in rows(count, now):
            await connection.copy_records_to_table(table, records=made, columns=list(COLUMNS[table]), timeout=300)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


class Base:
    """A database with so many identifiers in it, and the writer on it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.chosen = random.Random(11)
        self.regulars = self.chosen.sample(range(1, count + 1), REGULARS)
        self.costs: dict[str, list[float]] = {"regulars": [], "anybody": []}

    async def open(self, path: Path, url: str | None) -> None:
        now = wall_clock()
        with machine.confined(machine.usable()):
            if url is not None:
                await fill_postgres(url, self.count, now)
            else:
                await asyncio.to_thread(fill_sqlite, path, self.count, now)
        self.engine: Engine = engine(path, url)
        await self.engine.prepare()
        await self.engine.open(react, wall_clock, lambda error: None)
        self.engine.follow_rules(Policy())

    def slice(self, who: str) -> list[int]:
        if who == "regulars":
            return self.chosen.choices(self.regulars, k=ASKED)
        return self.chosen.sample(range(1, self.count + 1), ASKED)

    async def ask(self, who: str) -> None:
        """Resolve a slice of them, so many at once; microseconds each are noted."""
        senders: Sequence[int] = self.slice(who)
        works = [Find(weigh([Claim("phone", number(n), Proof.CHANNEL)], trusted=True)) for n in senders]
        began = time.perf_counter()
        for start in range(0, len(works), AT_ONCE):
            found = await asyncio.gather(*(self.engine.writer.run(work) for work in works[start : start + AT_ONCE]))
            if found != list(senders[start : start + AT_ONCE]):
                raise AssertionError("somebody was taken for somebody else")
        self.costs[who].append((time.perf_counter() - began) / len(works) * 1e6)


async def measure(databases: Databases, rounds: int) -> list[Figure]:
    """Slices of random known senders in a small and in a large base, in turn."""
    figures: list[Figure] = []
    for label, on_postgres in (("SQLite", False), ("PostgreSQL", True)):
        if on_postgres and databases.cluster is None:
            continue
        bases = [Base(SMALL), Base(LARGE)]
        try:
            for base in bases:
                url = databases.new_url() if on_postgres else None
                await base.open(databases.directory / f"resolving-{base.count}" / "hub.db", url)
            for turn, who in itertools.product((None, *range(rounds)), ("regulars", "anybody")):
                for base in bases[:: -1 if turn is not None and turn % 2 else 1]:
                    await base.ask(who)
                    if turn is None:  # plans, pages and caches: not counted
                        base.costs[who].clear()
        finally:
            for base in bases:
                await base.engine.close()
        small, large = bases
        for who, bound in (("regulars", AT_MOST), ("anybody", None)):
            ratio = tuple(mine / other for mine, other in zip(large.costs[who], small.costs[who], strict=True))
            name = f"a known sender resolved on {label}, {who}"
            figures.append(Figure(f"{name}: {LARGE:,} identifiers / {SMALL:,}", ratio, "ratio", at_most=bound))
            for base in bases:
                figures.append(Figure(f"{name}, {base.count:,} identifiers, {AT_ONCE} at once", tuple(base.costs[who]), "us"))
    return figures
