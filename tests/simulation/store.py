"""The store of the simulation: the real look-ups, decisions and statements on SQLite in memory, one batch at a time, with faults.

It does what `hub.storage.sqlite_writer` does in its thread, at moments and with endings the seed decides. The one place here that
knows how facts are made and written.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from hub.policy import ChannelRule, Policy
from hub.storage import sqlite_statements as statements
from hub.storage.facts import Counting, Facts, React, decide_all, decide_one, gather
from hub.storage.records import Event
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy

MAX_BATCH = 256
AGENTS = (1, 2)


@cache
def _disk() -> sqlite3.Connection:
    """An empty database with the present tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
    dialect = sqlite.dialect()
    for table in metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=dialect)))
    return connection


def fresh(channels: Iterable[ChannelRule]) -> sqlite3.Connection:
    """The database of one seed, with its channels and two agents. It outlives every process of that seed, as a disk would.

    It is one connection, emptied for each seed: compiling its statements anew took a third of the time.
    """
    connection = _disk()
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    for table in (*metadata.tables, "sqlite_sequence"):
        connection.execute(f"DELETE FROM {table}")
    for id_ in AGENTS:
        connection.execute(
            "INSERT INTO agent (id, email, name, password_hash, role, created_at) VALUES (?, ?, ?, '', 'agent', 0)",
            (id_, f"agent{id_}@shop.example", f"Agent {id_}"),
        )
    for rule in channels:
        connection.execute("INSERT INTO channel (id, name, key_digest) VALUES (?, ?, '')", (rule.id, rule.name))
    return connection


class Unit:
    __slots__ = ("future", "work")

    def __init__(self, work: Any, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future


class Fate(Protocol):
    """What the seed has in mind for a batch, and who watches the commits."""

    def pause(self) -> float:
        """Seconds until the batch is taken: what comes meanwhile is part of it."""
        ...

    def ending(self, works: Sequence[Any]) -> str:
        """`stored`, `refused` (nothing stored), `lost` (stored, and nobody hears of it), `crash before`, `crash after`."""
        ...

    def crash(self) -> None: ...

    def committed(self, works: Sequence[Any], written: Sequence[Facts], ending: str) -> None: ...

    def refused(self, works: Sequence[Any]) -> None: ...


class SimulatedWriter:
    """`Writer` for one simulated process."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: Any,
        policy: Policy,
        react: React,
        clock: Callable[[], int],
        on_commit: Callable[[Sequence[Event], bool], None],
        fate: Fate,
    ) -> None:
        self.clock = clock
        self.policy = policy
        self._connection = connection
        self._loop = loop
        self._react = react
        self._on_commit = on_commit
        self._fate = fate
        self._waiting: deque[Unit] = deque()
        self._busy = False
        self._closing = False
        self._ids: Counting | None = None
        self.dead = False

    async def run(self, work: Any) -> Any:
        if self._closing:
            raise StorageBusy("The hub is closing. Nothing was stored; try again.")
        future = self._loop.create_future()
        if not self.dead:  # a dead process answers nobody
            self._waiting.append(Unit(work, future))
            self._feed()
        return await future

    async def close(self) -> None:
        self._closing = True

    def die(self) -> None:
        """The process is gone, and with it whatever was not committed."""
        self.dead = True
        self._waiting.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _feed(self) -> None:
        if self._waiting and not self._busy and not self.dead:
            self._busy = True
            self._loop.call_later(self._fate.pause(), self._turn)

    def _turn(self) -> None:
        self._busy = False
        if self.dead or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        works = [unit.work for unit in batch]
        ending = self._fate.ending(works)
        if ending == "crash before":
            self._fate.crash()
            return
        outcomes, written = self._commit(batch, refuse=ending == "refused")
        self._waiting.extendleft(reversed(batch[len(outcomes) :]))  # what comes after a unit that moves rows nobody read
        batch, works = batch[: len(outcomes)], works[: len(outcomes)]
        if ending == "refused":
            self._ids = None
            self._fate.refused(works)
        else:
            self._fate.committed(works, written, ending)
        if ending == "crash after":
            self._fate.crash()
            return
        if ending in ("refused", "lost"):
            busy = StorageBusy("The database refused. Nobody can say whether anything was stored; try again.")
            outcomes = [(unit, busy) for unit in batch]
            written = []
        self._loop.call_soon(self._answer, outcomes, written)
        self._feed()

    def _commit(self, batch: list[Unit], refuse: bool) -> tuple[list[tuple[Unit, Any]], list[Facts]]:
        execute, executemany = self._connection.execute, self._connection.executemany
        execute("BEGIN IMMEDIATE")
        try:
            facts = self._facts()
            statements.read(execute, gather(unit.work for unit in batch), facts)
            outcomes: list[tuple[Unit, Any]] = decide_all(batch, facts, self._react)
            statements.write(execute, executemany, facts)
        except Exception as error:
            # One unit's own refusal or mistake must fail alone.
            execute("ROLLBACK")
            self._ids = None
            if len(batch) == 1:
                return [(batch[0], error)], []
            return self._one_by_one(batch, refuse)
        execute("ROLLBACK" if refuse else "COMMIT")
        return outcomes, [facts]

    def _one_by_one(self, batch: list[Unit], refuse: bool) -> tuple[list[tuple[Unit, Any]], list[Facts]]:
        execute, executemany = self._connection.execute, self._connection.executemany
        outcomes: list[tuple[Unit, Any]] = []
        written: list[Facts] = []
        execute("BEGIN IMMEDIATE")
        for unit in batch:
            execute("SAVEPOINT unit")
            self._ids = None
            try:
                facts = self._facts()
                statements.read(execute, gather([unit.work]), facts)
                outcome = decide_one(unit.work, facts, self._react)
                statements.write(execute, executemany, facts)
            except Exception as error:
                execute("ROLLBACK TO unit")
                outcomes.append((unit, error))
            else:
                outcomes.append((unit, outcome))
                written.append(facts)
            execute("RELEASE unit")
        self._ids = None
        execute("ROLLBACK" if refuse else "COMMIT")
        return outcomes, written

    def _facts(self) -> Facts:
        if self._ids is None:
            self._ids = Counting(statements.next_ids(self._connection.execute))
        return Facts(self.clock(), self.policy, self._ids)

    def _answer(self, outcomes: list[tuple[Unit, Any]], written: list[Facts]) -> None:
        if self.dead:
            return
        for unit, outcome in outcomes:
            if unit.future.done():
                continue
            if isinstance(outcome, BaseException):
                unit.future.set_exception(outcome)
            else:
                unit.future.set_result(outcome)
        events = [event for facts in written for event in facts.events]
        owes = any(facts.owes for facts in written)
        if events or owes:
            self._on_commit(events, owes)
