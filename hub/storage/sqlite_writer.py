"""The one writer on SQLite: a thread that takes all the work waiting at that moment and commits it as one transaction.

A crossing to the thread costs the same for one unit as for 256.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from hub.policy import Policy
from hub.storage import sqlite_statements as statements
from hub.storage.facts import Counting, Facts, React, Work, decide_all, decide_one, gather
from hub.storage.records import Event
from hub.storage.search import SearchIndex
from hub.storage.writer import Clock, OnCommit, StorageBusy, Unit, admit, answer, wall_clock

log = structlog.get_logger("hub.storage")

R = TypeVar("R")
MAX_BATCH = 256
SEARCH_BEHIND = 250
QUIET = 0.2  # seconds without work
# A value SQLite cannot take is the mistake of the one unit that brought it, not of the database.
UNITS_OWN = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
OnDeath = Callable[[BaseException], None]


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection: WAL, every commit synced (`synchronous=FULL`), transactions begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.5, cached_statements=256)
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "mmap_size=0",
        "journal_size_limit=67108864",
        "temp_store=MEMORY",
        "cache_size=-32768",  # KiB: the upper levels of the indexes, so that who is known costs the same among a million
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class SqliteWriter:
    """`Writer` on one SQLite file, in a thread of this process."""

    def __init__(
        self,
        path: Path,
        policy: Policy,
        react: React,
        on_commit: OnCommit | None = None,
        clock: Clock = wall_clock,
        on_death: OnDeath | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_commit` gets each commit's events and whether anything is owed; `on_death` why the thread ended by itself, after
        which nothing is stored any more: the process should end too. Both are called in the event loop."""
        self._path = path
        self.policy = policy
        self._react = react
        self._on_commit = on_commit or (lambda events, owes: None)
        self._on_death = on_death or (lambda error: None)
        self.clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()  # over the queue and over whether it is still served
        self._waiting: deque[Unit] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._connection = connect(path)
        self._next_ids: Counting | None = None
        self._search = SearchIndex(self._connection)
        self._thread = threading.Thread(target=self._main, name="writer", daemon=True)
        self._thread.start()

    async def run(self, work: Work[R]) -> R:
        now = self._monotonic()
        future: asyncio.Future[R] = self._loop.create_future()
        with self._lock:
            if self._closing:
                raise StorageBusy("The hub is closing. Nothing was stored; try again.")
            admit(self._waiting, now)
            self._waiting.append(Unit(work, future, now))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Finish what waits, checkpoint and close."""
        with self._lock:
            self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    # --- in the writer's thread ---

    def _main(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            log.exception("writer died")
            with self._lock:
                self._closing = True
                left = list(self._waiting)
                self._waiting.clear()
            self._settle([(unit, StorageBusy("The database writer stopped. Nothing was stored.")) for unit in left], [], False)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_death, error)
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _serve(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                closing = self._closing
            if batch:
                try:
                    self._commit(batch)
                except BaseException as error:
                    self._settle([(unit, StorageBusy(f"The database writer stopped: {error!r}")) for unit in batch], [], False)
                    raise
                if self._search.behind >= SEARCH_BEHIND:
                    self._catch_up()
            elif closing:
                return
            # Index only after a quiet moment: between two single messages it would cost the second one a sync.
            elif not self._wake.wait(QUIET if self._search.behind else None):
                while self._search.behind and not self._wake.is_set() and self._catch_up():
                    pass

    def _catch_up(self) -> bool:
        try:
            return self._search.step()
        except sqlite3.Error as error:
            self._rollback()
            log.warning("search index not caught up; will try again", error=str(error))
            self._wake.wait(1.0)
            return False

    def _commit(self, batch: list[Unit]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            facts = self._facts()
            statements.read(self._connection.execute, gather(unit.work for unit in batch), facts)
            outcomes = decide_all(batch, facts, self._react)
            statements.write(self._connection.execute, self._connection.executemany, facts)
            self._connection.execute("COMMIT")
        except UNITS_OWN as error:
            self._rollback()
            log.warning("batch redone unit by unit", units=len(batch), error=str(error))
            self._one_by_one(batch)
        except sqlite3.Error as error:
            self._refuse(batch, error)
        except Exception as error:
            # One unit's own refusal or mistake must fail alone.
            self._rollback()
            if len(batch) == 1:
                self._settle([(batch[0], error)], [], False)
            else:
                self._one_by_one(batch)
        else:
            with self._lock:
                self._waiting.extendleft(reversed(batch[len(outcomes) :]))
            self._search.note(facts)
            self._settle(outcomes, facts.events, facts.owes)

    def _one_by_one(self, batch: list[Unit]) -> None:
        outcomes: list[tuple[Unit, Any]] = []
        events: list[Event] = []
        owes = False
        written: list[Facts] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for unit in batch:
                self._connection.execute("SAVEPOINT unit")
                self._next_ids = None
                try:
                    facts = self._facts()
                    statements.read(self._connection.execute, gather([unit.work]), facts)
                    outcome = decide_one(unit.work, facts, self._react)
                    statements.write(self._connection.execute, self._connection.executemany, facts)
                except Exception as error:
                    if isinstance(error, sqlite3.Error) and not isinstance(error, UNITS_OWN):
                        raise
                    self._connection.execute("ROLLBACK TO unit")
                    outcomes.append((unit, error))
                else:
                    outcomes.append((unit, outcome))
                    events += facts.events
                    owes = owes or facts.owes
                    written.append(facts)
                self._connection.execute("RELEASE unit")
            self._next_ids = None
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._refuse(batch, error)
        else:
            for facts in written:
                self._search.note(facts)
            self._settle(outcomes, events, owes)

    def _facts(self) -> Facts:
        if self._next_ids is None:
            self._next_ids = Counting(statements.next_ids(self._connection.execute))
        return Facts(self.clock(), self.policy, self._next_ids)

    def _refuse(self, batch: list[Unit], error: sqlite3.Error) -> None:
        # After a full disk or an I/O error SQLite may have rolled back by itself: begin afresh either way.
        self._rollback()
        log.error("batch not stored", units=len(batch), error=str(error))
        with contextlib.suppress(sqlite3.Error):
            fresh = connect(self._path)
            search = SearchIndex(fresh)
            self._connection.close()
            self._connection, self._search = fresh, search
        busy = StorageBusy(f"The database refused: {error}. Nothing was stored; try again.")
        self._settle([(unit, busy) for unit in batch], [], False)

    def _rollback(self) -> None:
        self._next_ids = None
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _settle(self, outcomes: Sequence[tuple[Unit, Any]], events: Sequence[Event], owes: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, outcomes, events, owes)

    def _answer(self, outcomes: Sequence[tuple[Unit, Any]], events: Sequence[Event], owes: bool) -> None:
        answer(outcomes)
        if events or owes:
            self._on_commit(events, owes)
