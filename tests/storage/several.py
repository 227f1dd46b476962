"""Several hubs' writers on one PostgreSQL database, and somebody else who holds a lock, cuts a wire or looks at who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from hub import reactions
from hub.policy import Policy
from hub.storage.facts import Facts, Needs, React
from hub.storage.postgres_follower import Follower
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.records import Event
from tests.postgres import postgresql_missing, shared
from tests.storage import POLICY, fresh_postgres

needs_postgres = pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing())

PATIENCE = 30.0  # seconds after which a test gives up what should have happened long before


@dataclass(frozen=True)
class State:
    """A unit that states so many events, in the name of whoever asked."""

    who: str
    number: int
    many: int = 1

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        for nth in range(self.many):
            facts.emit("stated", data=f"{self.who} {self.number} {nth}")


@dataclass
class Several:
    url: str
    writers: list[PostgresWriter]
    other: asyncpg.Connection[Any]  # somebody else on the same database
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def rows(self, sql: str, *arguments: Any) -> list[Any]:
        async with self._asking:
            return list(await self.other.fetch(sql, *arguments))

    async def value(self, sql: str, *arguments: Any) -> Any:
        async with self._asking:
            return await self.other.fetchval(sql, *arguments)

    async def waiting(self, many: int = 1) -> list[int]:
        """The server processes that wait for a lock, once there are so many."""
        return await until_waiting(self.other, many)


async def until_waiting(connection: asyncpg.Connection[Any], many: int = 1) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = await connection.fetch(
                "SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE NOT l.granted AND a.datname = current_database()"
            )
            if len(rows) >= many:
                return [row[0] for row in rows]


@asynccontextmanager
async def several(
    many: int = 4, policy: Policy = POLICY, react: React = reactions.react, clock: Callable[[], int] | None = None, **options: Any
) -> AsyncIterator[Several]:
    """So many writers on a fresh database; without a clock they date by the database's, as in production."""
    url = fresh_postgres()
    other = await asyncpg.connect(url)
    writers = [PostgresWriter(url, policy, react, None, clock, **options) for _ in range(many)]
    try:
        for writer in writers:
            await writer.start()
        yield Several(url, writers, other)
    finally:
        other.terminate()
        for writer in writers:
            await writer.close()
        await asyncio.to_thread(shared().drop_database, url)


@dataclass
class Heard:
    """What a follower published, and a way to wait for it."""

    events: list[Event] = field(default_factory=list)
    woken: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, events: Sequence[Event]) -> None:
        self.events += events
        self._news.set()

    def wake(self) -> None:
        self.woken += 1

    async def upto(self, seq: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.events or self.events[-1].seq < seq:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def following(url: str, after: int = 0) -> AsyncIterator[tuple[Heard, Follower]]:
    heard = Heard()
    follower = Follower(url, heard.publish, heard.wake)
    await follower.start(after)
    try:
        yield heard, follower
    finally:
        await follower.close()


@asynccontextmanager
async def holding(url: str, *locks: int) -> AsyncIterator[Callable[[], None]]:
    """While the block runs (or until what it yields is called) somebody else holds these advisory locks."""
    connection = await asyncpg.connect(url)
    for lock in locks:
        await connection.execute("SELECT pg_advisory_lock($1)", lock)
    try:
        yield connection.terminate  # such a lock ends with its connection
    finally:
        connection.terminate()


class Proxy:
    """A wire to the server that can be cut at the moment a COMMIT passes."""

    COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut = ""  # "before": the server never hears the next COMMIT; "after": its answer never arrives
        self.cuts = 0
        self.connections = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        mute = asyncio.Event()

        async def answers() -> None:
            while data := await there.read(65_536):
                if mute.is_set():
                    break  # the server has answered the COMMIT: now the wire breaks
                writer.write(data)
            writer.transport.abort()

        answering = asyncio.create_task(answers())
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.cut and self.COMMIT in data:
                    cut, self.cut = self.cut, ""
                    self.cuts += 1
                    if cut == "before":
                        break
                    mute.set()
                back.write(data)
        if mute.is_set():
            await answering
        back.transport.abort()
        writer.transport.abort()
        await asyncio.gather(answering, return_exceptions=True)
