"""The writer on PostgreSQL: one connection, one transaction for all the work waiting at that moment, beside any number of other hubs.

Locks come first, over the whole batch and in one fixed order (keys of what may not exist yet, then conversations, and last of
all the one under which events are numbered), and everything is looked up after them: READ COMMITTED then sees what others did.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import asyncpg
import structlog

from hub.policy import Policy
from hub.storage import postgres_ahead
from hub.storage import postgres_statements as statements
from hub.storage.facts import Facts, Needs, React, Work, decide_all, gather
from hub.storage.lookups import Query, Rows, look_up
from hub.storage.postgres import LOST, POINT_QUERIES, connect
from hub.storage.postgres_ahead import Ahead
from hub.storage.writer import MAX_AGE, Clock, OnCommit, StorageBusy, Unit, Unstorable, admit, answer, wall_clock

log = structlog.get_logger("hub.storage")

R = TypeVar("R")
MAX_BATCH = 128  # some 5 locks a unit must fit into the server's shared table (6,400 by default)
TRIES = 8  # of one batch that met other hubs'
# A value PostgreSQL cannot take is the mistake of the one unit that brought it.
UNITS_OWN = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)  # the driver's own complaint is a ValueError
MET_ANOTHER = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
# What waits for a lock is told no before its sender gives up; and a hub that stopped in the middle of a transaction (frozen, or cut
# off) must not keep the locks from the others. No statement_timeout: it can end a COMMIT's wait for a synchronous standby as a success.
LIMITS = {"lock_timeout": "2s", "idle_in_transaction_session_timeout": "5s"}


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
        wanted = []
        for table in statements.DRAWN:
            kept = self._kept[table]
            if table in statements.ORDERED:
                kept.clear()  # drawn before this batch had its locks
            enough = more.get(table, USUAL.get(table, 1) * units)
            wanted.append(max(0, enough - len(kept)))
        return wanted

    def keep(self, drawn: Sequence[list[int]]) -> None:
        for table, numbers in zip(statements.DRAWN, drawn, strict=True):
            self._kept[table].extend(numbers)

    def take(self, table: str) -> int:
        kept = self._kept[table]
        if not kept:
            raise IdsSpent(table)
        number = kept.popleft()
        self._taken.append((table, number))
        return number

    def spend(self) -> None:
        """The batch that took them may be committed from now on: they are never handed out again."""
        self._taken.clear()

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
        self._late: asyncio.TimerHandle | None = None

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
            self._late = asyncio.get_running_loop().call_later(MAX_AGE, self._refuse_late)
            try:
                await self._commit(batch)
            except BaseException as error:
                self._closing = True
                left, self._waiting = list(self._waiting), deque()
                answer([(unit, StorageBusy(f"The database writer stopped: {type(error).__name__}.")) for unit in (*batch, *left)])
                if isinstance(error, Exception):
                    log.error("writer died", error=type(error).__name__)
                    return self._on_death(error)
                raise
            finally:
                self._late.cancel()

    def _refuse_late(self) -> None:
        """A batch hangs: whoever waits behind it for too long need not wait on. Nothing of theirs was begun."""
        now = self._monotonic()
        late: list[tuple[Unit, Any]] = []
        while self._waiting and now - self._waiting[0].since > MAX_AGE:
            late.append((self._waiting.popleft(), StorageBusy("The database is behind. Nothing was stored; try again shortly.")))
        if late:
            log.warning("refused what waits behind a batch that hangs", units=len(late))
            answer(late)
        self._late = asyncio.get_running_loop().call_later(MAX_AGE / 8, self._refuse_late)

    async def _commit(self, batch: list[Unit]) -> bool:
        """Commit and answer a batch; False where the database would not take it (and not: where a unit itself was at fault)."""
        more: dict[str, int] = {}
        also: set[int] = set()
        met, again = 0, False
        while met < TRIES:
            try:
                outcomes, facts = await self._transaction(await self._connected(), batch, more, also)
            except _MoreToLock as error:
                await self._rollback()
                met += 1
                also |= error.customers
            except IdsSpent as error:
                await self._rollback()
                more[error.table] = 8 * max(more.get(error.table, 0), USUAL.get(error.table, 1) * len(batch))
            except MET_ANOTHER as error:
                await self._rollback()
                met += 1
                log.info("batch met another hub's; done again", units=len(batch), error=type(error).__name__)
            except UNITS_OWN as error:
                await self._rollback()
                if len(batch) == 1 and not again and isinstance(error, asyncpg.UniqueViolationError):
                    again = True  # another hub stored the same thing meanwhile: now it is seen
                    continue
                log.warning("batch redone unit by unit", units=len(batch), error=type(error).__name__)
                return await self._one_by_one(batch, error)
            except (*LOST, asyncpg.PostgresError) as error:
                return await self._refuse(batch, error)
            except _Undecided as undecided:
                # One unit's own refusal or mistake must fail alone.
                await self._rollback()
                return await self._one_by_one(batch, undecided.error)
            except Exception as error:
                await self._rollback()
                return await self._one_by_one(batch, error)
            else:
                self._waiting.extendleft(reversed(batch[len(outcomes) :]))
                answer(outcomes)
                if facts.events or facts.owes:
                    self._on_commit((), facts.owes)
                return True
        log.error("batch given up: it met other hubs' too often", units=len(batch))
        busy = StorageBusy("The database is busy. Nothing was stored; try again.")
        answer([(unit, busy) for unit in batch])
        return False

    async def _one_by_one(self, batch: list[Unit], error: Exception) -> bool:
        if len(batch) == 1:
            if isinstance(error, asyncpg.PostgresError):
                error = Unstorable(f"PostgreSQL cannot hold it ({type(error).__name__}).")
            answer([(batch[0], error)])
            return True
        for done, unit in enumerate(batch, 1):
            if not await self._commit([unit]):
                # Each of the others would hang as long.
                busy = StorageBusy("The database refused. Nothing was stored; try again.")
                answer([(unit, busy) for unit in batch[done:]])
                return False
        return True

    async def _transaction(
        self, connection: asyncpg.Connection[Any], batch: list[Unit], more: dict[str, int], also: set[int]
    ) -> tuple[list[tuple[Unit, Any]], Facts]:
        needs = gather(unit.work for unit in batch)
        locked = await self._lock(connection, needs, also)
        statement, arguments = postgres_ahead.ask(needs, self._ids.wanted(len(batch), more), locked)
        ahead = Ahead(await connection.fetchrow(statement, *arguments), locked)
        self._ids.keep(ahead.drawn)
        facts = Facts(self._own_clock() if self._own_clock is not None else ahead.now, self.policy, self._ids)
        touched = await self._read(connection, needs, facts, locked, ahead)
        if not touched <= locked:
            # Somebody was joined, or wrote for the first time, between the lock and the look.
            raise _MoreToLock(touched - locked)
        outcomes = self._decide(batch, facts)
        asked = statements.writes(facts)
        if facts.events:
            asked.append(statements.number_events(facts.events))
        for statement, arguments in asked:
            await connection.execute(statement, *arguments)
        self._ids.spend()
        await connection.execute("COMMIT")
        return outcomes, facts

    def _decide(self, batch: list[Unit], facts: Facts) -> list[tuple[Unit, Any]]:
        try:
            return decide_all(batch, facts, self._react)
        except IdsSpent:
            raise
        except Exception as error:
            raise _Undecided(error) from error  # whatever it is, it is not the database's

    async def _lock(self, connection: asyncpg.Connection[Any], needs: Needs, also: set[int]) -> set[int]:
        """Begin, and take the batch's locks; the ids of the conversations locked."""
        await connection.execute(statements.begin(statements.key_locks(needs)))
        asked = statements.lock_conversations(needs, also)
        if asked is None:
            return set()
        return {row[0] for row in await connection.fetch(asked[0], *asked[1])}

    async def _read(self, connection: asyncpg.Connection[Any], needs: Needs, facts: Facts, locked: set[int], ahead: Ahead) -> set[int]:
        """Look everything up; the conversations it belongs to."""
        touched: set[int | None] = set()
        asking = look_up(needs, facts)
        rows: Rows = ()
        with contextlib.suppress(StopIteration):
            query = next(asking)
            while True:
                known = ahead.answer(query)
                if known is not None:
                    rows = known
                elif query.name == "claim":
                    rows = await self._claim(connection, query, locked)
                else:
                    statement, arguments = statements.look_up(query)
                    rows = await connection.fetch(statement, *arguments)
                if query.name in statements.OWNED:
                    touched.update(row[-1] for row in rows)
                    rows = [row[:-1] for row in rows]
                query = asking.send(rows)
        touched.discard(None)  # a delivery whose message was erased
        return touched | facts.customers.keys()  # type: ignore[return-value]

    async def _claim(self, connection: asyncpg.Connection[Any], query: Query, locked: set[int]) -> Rows:
        now, each, without = query.keys
        shut = [kind for kind, _ in without], [name for _, name in without]
        own = {row[0]: row[1] for row in await connection.fetch(statements.TRY_CLAIM, now, each, *shut)}
        locked.update(own.values())
        rows: Rows = await connection.fetch(statements.CLAIM, now, list(own)) if own else ()
        return rows

    # --- the connection ---

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, **POINT_QUERIES, **LIMITS)
        return self._connection

    async def _rollback(self) -> None:
        self._ids.give_back()
        if self._connection is None or self._connection.is_closed() or not self._connection.is_in_transaction():
            return
        try:
            await self._connection.execute("ROLLBACK")
        except (*LOST, asyncpg.PostgresError):
            await self._disconnect()

    async def _refuse(self, batch: list[Unit], error: Exception) -> bool:
        # Where the connection broke during COMMIT nobody knows the outcome: nobody is told it was stored, and the keys of what
        # is sent again tell whether it was.
        log.error("batch not stored", units=len(batch), error=type(error).__name__)
        if isinstance(error, (*LOST, asyncpg.ReadOnlySQLTransactionError)):  # after a failover: this is the standby now
            await self._disconnect()
        else:
            await self._rollback()
        busy = StorageBusy(f"The database refused ({type(error).__name__}). Try again.")
        answer([(unit, busy) for unit in batch])
        return False

    async def _disconnect(self) -> None:
        # A server that crashed draws again what it had not written down: ids kept from before it are not ours any more.
        self._ids = DrawnIds()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class _Undecided(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class _MoreToLock(Exception):
    def __init__(self, customers: set[int]) -> None:
        super().__init__(len(customers))
        self.customers = customers
