"""The writer on PostgreSQL: one connection, one transaction for all the work waiting at that moment, beside any number of other hubs.

Locks come first, over the whole batch and in one fixed order (keys of what may not exist yet, then conversations, and last of
all the one under which events are numbered), and everything is looked up after them: READ COMMITTED then sees what others did.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg
import structlog

from hub.policy import Policy
from hub.storage import postgres_statements as statements
from hub.storage.facts import Facts, Needs, React, Work, decide_one, gather
from hub.storage.lookups import Query, Rows, look_up
from hub.storage.postgres import LOST, POINT_QUERIES, connect
from hub.storage.writer import Clock, OnCommit, StorageBusy, Unit, admit, answer, wall_clock

log = structlog.get_logger("hub.storage")

R = TypeVar("R")
MAX_BATCH = 128  # some 5 locks a unit must fit into the server's shared table (6,400 by default)
TRIES = 8  # of one batch that met another hub's, or needed more than was foreseen
# A value PostgreSQL cannot take is the mistake of the one unit that brought it.
UNITS_OWN = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)  # the driver's own complaint is a ValueError
MET_ANOTHER = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class IdsSpent(Exception):
    """More rows of a table were made than ids were drawn for it; the batch is decided again with more."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


# Rows a unit of work may add; where it adds more, the batch is decided again.
USUAL = {"delivery": 2, "identifier": 3, "evidence": 4, "hold_ledger": 2}


class DrawnIds:
    """Ids drawn from the database's sequences for one batch after another."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[int]] = {table: deque() for table in statements.DRAWN}
        self._taken: list[tuple[str, int]] = []

    def wanted(self, units: int, more: dict[str, int]) -> list[int]:
        """How many to draw of each table for a batch of so many units; `more` where the usual was not enough."""
        self._taken.clear()
        wanted = []
        for table in statements.DRAWN:
            kept = self._kept[table]
            if table in statements.ORDERED:
                kept.clear()  # drawn before this batch had its locks
            enough = more.get(table, USUAL.get(table, 1) * units)
            wanted.append(max(0, enough - len(kept)))
        return wanted

    def keep(self, drawn: list[list[int]]) -> None:
        for table, numbers in zip(statements.DRAWN, drawn, strict=True):
            self._kept[table].extend(numbers)

    def take(self, table: str) -> int:
        kept = self._kept[table]
        if not kept:
            raise IdsSpent(table)
        number = kept.popleft()
        self._taken.append((table, number))
        return number

    def give_back(self) -> None:
        """The batch that took them was surely not committed."""
        for table, number in reversed(self._taken):
            self._kept[table].appendleft(number)
        self._taken.clear()


class PostgresWriter:
    """`Writer` on a PostgreSQL database. `start` it before use."""

    def __init__(
        self,
        url: str,
        policy: Policy,
        react: React,
        on_commit: OnCommit | None = None,
        clock: Clock | None = None,
        on_death: Callable[[BaseException], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_commit` hears after each commit whether anything is owed; events come to every hub by its follower.

        What is decided is dated by the database's clock; a `clock` given here takes its place (for tests).
        """
        self._url = url
        self.policy = policy
        self._react = react
        self._on_commit = on_commit or (lambda events, owes: None)
        self.clock = clock or wall_clock
        self._own_clock = clock
        self._on_death = on_death or (lambda error: None)
        self._monotonic = monotonic
        self._waiting: deque[Unit] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._connection: asyncpg.Connection[Any] | None = None
        self._ids = DrawnIds()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and begin to write. Raises OSError or asyncpg.PostgresError."""
        await self._connected()
        self._task = asyncio.create_task(self._serve(), name="writer")

    async def run(self, work: Work[R]) -> R:
        if self._closing:
            raise StorageBusy("The hub is closing. Nothing was stored; try again.")
        now = self._monotonic()
        admit(self._waiting, now)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(Unit(work, future, now))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Finish what waits and disconnect."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._disconnect()

    # --- the loop ---

    async def _serve(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return None
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            try:
                await self._commit(batch)
            except BaseException as error:
                self._closing = True
                left, self._waiting = list(self._waiting), deque()
                answer([(unit, StorageBusy(f"The database writer stopped: {type(error).__name__}.")) for unit in (*batch, *left)])
                if isinstance(error, Exception):
                    log.exception("writer died")
                    return self._on_death(error)
                raise

    async def _commit(self, batch: list[Unit]) -> None:
        more: dict[str, int] = {}
        also: set[int] = set()
        for _ in range(TRIES):
            try:
                outcomes, facts = await self._transaction(await self._connected(), batch, more, also)
            except _MoreToLock as error:
                await self._rollback()
                also |= error.customers
            except IdsSpent as error:
                await self._rollback()
                more[error.table] = 4 * max(more.get(error.table, 0), USUAL.get(error.table, 1) * len(batch))
            except MET_ANOTHER as error:
                await self._rollback()
                log.info("batch met another hub's; done again", units=len(batch), error=type(error).__name__)
            except UNITS_OWN as error:
                await self._rollback()
                log.warning("batch redone unit by unit", units=len(batch), error=type(error).__name__)
                return await self._one_by_one(batch, error)
            except (*LOST, asyncpg.PostgresError) as error:
                return await self._refuse(batch, error)
            except Exception as error:
                # One unit's own refusal or mistake must fail alone.
                await self._rollback()
                return await self._one_by_one(batch, error)
            else:
                answer(outcomes)
                if facts.events or facts.owes:
                    self._on_commit((), facts.owes)
                return None
        log.error("batch given up: it met other hubs' too often", units=len(batch))
        busy = StorageBusy("The database is busy. Nothing was stored; try again.")
        return answer([(unit, busy) for unit in batch])

    async def _one_by_one(self, batch: list[Unit], error: Exception) -> None:
        if len(batch) == 1:
            return answer([(batch[0], error)])
        for unit in batch:
            await self._commit([unit])
        return None

    async def _transaction(
        self, connection: asyncpg.Connection[Any], batch: list[Unit], more: dict[str, int], also: set[int]
    ) -> tuple[list[tuple[Unit, Any]], Facts]:
        needs = gather(unit.work for unit in batch)
        await connection.execute("BEGIN")
        locked = await self._lock(connection, needs, also)
        now, *drawn = await connection.fetchrow(statements.DRAW, *self._ids.wanted(len(batch), more))
        self._ids.keep(drawn)
        facts = Facts(self._own_clock() if self._own_clock is not None else now, self.policy, self._ids)
        await self._read(connection, needs, facts, locked)
        if not facts.customers.keys() <= locked:
            # Somebody was joined, or wrote for the first time, between the lock and the look.
            raise _MoreToLock(facts.customers.keys() - locked)
        outcomes = [(unit, decide_one(unit.work, facts, self._react)) for unit in batch]
        for statement, arguments in statements.writes(facts):
            await connection.execute(statement, *arguments)
        if facts.events:
            statement, arguments = statements.number_events(facts.events)
            await connection.execute(statement, *arguments)
        await connection.execute("COMMIT")
        return outcomes, facts

    async def _lock(self, connection: asyncpg.Connection[Any], needs: Needs, also: set[int]) -> set[int]:
        """Take the batch's locks; the ids of the conversations locked."""
        keys = statements.key_locks(needs)
        if keys:
            await connection.execute(statements.LOCK_KEYS, keys)
        asked = statements.lock_conversations(needs, also)
        if asked is None:
            return set()
        return {row[0] for row in await connection.fetch(asked[0], *asked[1])}

    async def _read(self, connection: asyncpg.Connection[Any], needs: Needs, facts: Facts, locked: set[int]) -> None:
        asking = look_up(needs, facts)
        rows: Rows = ()
        with contextlib.suppress(StopIteration):
            query = next(asking)
            while True:
                if query.name == "claim":
                    rows = await self._claim(connection, query, locked)
                else:
                    statement, arguments = statements.look_up(query)
                    rows = await connection.fetch(statement, *arguments)
                query = asking.send(rows)

    async def _claim(self, connection: asyncpg.Connection[Any], query: Query, locked: set[int]) -> Rows:
        now, each, without = query.keys
        shut = [kind for kind, _ in without], [name for _, name in without]
        tried = await connection.fetch(statements.TRY_CLAIM, now, each, *shut)
        own = {row[0]: row[1] for row in tried if row[2]}
        locked.update(own.values())
        rows: Rows = await connection.fetch(statements.CLAIM, now, list(own)) if own else ()
        return rows

    # --- the connection ---

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, **POINT_QUERIES)
        return self._connection

    async def _rollback(self) -> None:
        self._ids.give_back()
        if self._connection is None or not self._connection.is_in_transaction():
            return
        try:
            await self._connection.execute("ROLLBACK")
        except (*LOST, asyncpg.PostgresError):
            await self._disconnect()

    async def _refuse(self, batch: list[Unit], error: Exception) -> None:
        # Where the connection broke during COMMIT nobody knows the outcome: nobody is told it was stored, and the keys of what
        # is sent again tell whether it was.
        log.error("batch not stored", units=len(batch), error=type(error).__name__)
        if isinstance(error, LOST):
            await self._disconnect()
        else:
            await self._rollback()
        busy = StorageBusy(f"The database refused ({type(error).__name__}). Try again.")
        answer([(unit, busy) for unit in batch])

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class _MoreToLock(Exception):
    def __init__(self, customers: set[int]) -> None:
        super().__init__(len(customers))
        self.customers = customers
