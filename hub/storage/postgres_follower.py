"""What every hub on one PostgreSQL database hears: committed events in their order, whoever committed them.

Events are numbered under one lock, so that reading on from the last number misses none. NOTIFY only says "look now"; a look every
second regardless finds what a lost notification would have told, and a lost connection is made again and caught up from the number.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import structlog

from hub.storage.columns import listed
from hub.storage.postgres import CHANNEL, LOST, SERVING, connect
from hub.storage.postgres_search import SearchIndex
from hub.storage.records import Event

log = structlog.get_logger("hub.storage")

AT_A_TIME = 1_000  # events
POLL = 1.0  # seconds
QUIET = 0.2  # seconds without news
AFTER = f"SELECT {listed('event')} FROM event WHERE seq > $1 ORDER BY seq LIMIT {AT_A_TIME}"  # noqa: S608


class Follower:
    """Follows the events of a database on a connection of its own; it also brings the search index up to date in quiet moments."""

    def __init__(self, url: str, publish: Callable[[Sequence[Event]], None], wake: Callable[[], None]) -> None:
        """`publish` gets events in the order of their numbers; `wake` is called after a gap, when other hubs may have left work in the
        outbox (whoever commits wakes its own worker, and all look once a second)."""
        self._url = url
        self._publish = publish
        self._wake = wake
        self._last = 0
        self._told = asyncio.Event()
        self._connection: asyncpg.Connection[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, after: int) -> None:
        """Begin with what follows event number `after`. Raises OSError or asyncpg.PostgresError."""
        self._last = after
        self._connection = await self._listen()
        self._task = asyncio.create_task(self._serve(), name="follower")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.terminate()

    async def _listen(self) -> asyncpg.Connection[Any]:
        connection = await connect(self._url)
        try:
            connection.add_termination_listener(lambda _: self._told.set())
            # Held while this hub serves: copying a database waits for nobody and finds out at once.
            await connection.execute(f"SELECT pg_advisory_lock_shared({SERVING})")
            await connection.add_listener(CHANNEL, lambda *_: self._told.set())
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _serve(self) -> None:
        tries = 0
        while True:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._listen()
                    self._wake()
                    log.info("following events again", after=self._last)
                tries = 0
                await self._follow(self._connection)
            except (*LOST, asyncpg.PostgresError) as error:
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                tries += 1
                log.warning("events cannot be followed now; will connect again", error=type(error).__name__)
                await asyncio.sleep(min(0.1 * 2**tries, 5.0) * random.uniform(0.5, 1.0))

    async def _follow(self, connection: asyncpg.Connection[Any]) -> None:
        index = SearchIndex(connection)
        while True:
            self._told.clear()
            await self._catch_up(connection)
            while index.behind(self._last) and await index.step(self._last):
                pass
            # Index the rest after a quiet moment: between two single messages it would hold up the second one.
            if not await self._quiet(QUIET):
                continue
            while not self._told.is_set() and await index.step(self._last):
                pass
            await self._quiet(POLL)

    async def _quiet(self, seconds: float) -> bool:
        """Wait for so long; whether nothing was told meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._told.wait()
        except TimeoutError:
            return True
        return False

    async def _catch_up(self, connection: asyncpg.Connection[Any]) -> None:
        while True:
            rows = await connection.fetch(AFTER, self._last)
            if rows:
                events = [Event(*row) for row in rows]
                self._last = events[-1].seq
                self._publish(events)
            if len(rows) < AT_A_TIME:
                return
