"""The two engines, opened and closed the same way: SQLite in one file for one process, PostgreSQL for any number of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol

from hub.policy import Policy
from hub.storage import migrate
from hub.storage.facts import Facts, Needs, React
from hub.storage.hot import REACHING, HotReads
from hub.storage.reader import Reader, postgres_reader, sqlite_reader
from hub.storage.records import Event, Setting
from hub.storage.sqlite_hot import SqliteHot
from hub.storage.sqlite_writer import SqliteWriter
from hub.storage.writer import Clock, Writer, wall_clock

if TYPE_CHECKING:
    from hub.storage.postgres_follower import Follower
    from hub.storage.postgres_hot import PostgresHot
    from hub.storage.postgres_writer import PostgresWriter

Publish = Callable[[Sequence[Event]], None]
Wake = Callable[[], None]
OnDeath = Callable[[BaseException], None]

EPOCH = "epoch"


class Engine(Protocol):
    """A database that is served. The parts below are there once it is open."""

    @property
    def shared(self) -> bool:
        """Whether other hubs may serve the same database at this moment."""
        ...

    @property
    def writer(self) -> Writer: ...

    @property
    def reader(self) -> Reader: ...

    @property
    def hot(self) -> HotReads: ...

    async def prepare(self) -> None:
        """Bring the schema up to date and make sure nobody is in the way. Raises DatabaseInUse, DatabaseTooNew or DatabaseUnreadable."""
        ...

    async def open(self, react: React, clock: Clock, on_death: OnDeath) -> None:
        """Connect. `on_death` hears why the writer ended by itself: nothing is stored any more then."""
        ...

    def follow_rules(self, policy: Policy) -> None:
        """The rules that decisions follow from now on."""
        ...

    async def newest_event(self) -> int:
        """The number of the last event stored."""
        ...

    async def follow(self, after: int, publish: Publish, wake: Wake) -> None:
        """From now on hand every committed event after number `after` to `publish`, in order, and call `wake` when something is owed."""
        ...

    async def close(self) -> None: ...


class SqliteEngine:
    """`Engine` on one file, held by this process alone."""

    shared: Literal[False] = False
    writer: SqliteWriter
    reader: Reader
    hot: SqliteHot

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[str] | None = None
        self._publish: Publish = lambda events: None
        self._wake: Wake = lambda: None

    async def prepare(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = migrate.lock(self._path)
        await asyncio.to_thread(migrate.migrate, self._path)

    async def open(self, react: React, clock: Clock, on_death: OnDeath) -> None:
        self.writer = SqliteWriter(self._path, Policy(), react, self._committed, clock, on_death)
        self.reader = sqlite_reader(self._path)
        self.hot = SqliteHot(self._path)

    def follow_rules(self, policy: Policy) -> None:
        self.writer.policy = policy
        self.hot.reach(REACHING if policy.claims_held else REACHING[1:])

    async def newest_event(self) -> int:
        return await asyncio.to_thread(migrate.newest_event, self._path)

    async def follow(self, after: int, publish: Publish, wake: Wake) -> None:
        self._publish, self._wake = publish, wake

    def _committed(self, events: Sequence[Event], owes: bool) -> None:
        if events:
            self._publish(events)
        if owes:
            self._wake()

    async def close(self) -> None:
        for name in ("reader", "hot", "writer"):
            part = getattr(self, name, None)
            if part is not None:
                await part.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class PostgresEngine:
    """`Engine` on a PostgreSQL database, beside other hubs."""

    shared: Literal[True] = True
    writer: PostgresWriter
    reader: Reader
    hot: PostgresHot

    def __init__(self, url: str) -> None:
        self._url = url
        self._wake: Wake = lambda: None
        self._follower: Follower | None = None

    async def prepare(self) -> None:
        from hub.storage import postgres

        await postgres.migrate(self._url)

    async def open(self, react: React, clock: Clock, on_death: OnDeath) -> None:
        from hub.storage.postgres_hot import PostgresHot
        from hub.storage.postgres_writer import PostgresWriter

        own = None if clock is wall_clock else clock
        self.writer = PostgresWriter(self._url, Policy(), react, lambda events, owes: self._wake() if owes else None, own, on_death)
        await self.writer.start()
        self.reader = postgres_reader(self._url)
        self.hot = PostgresHot(self._url)
        await self.hot.start()

    def follow_rules(self, policy: Policy) -> None:
        self.writer.policy = policy
        self.hot.reach(REACHING if policy.claims_held else REACHING[1:])

    async def newest_event(self) -> int:
        from sqlalchemy import text

        return int(await self.reader.value(text("SELECT seq FROM event_head")))

    async def follow(self, after: int, publish: Publish, wake: Wake) -> None:
        from hub.storage.postgres_follower import Follower

        self._wake = wake
        self._follower = Follower(self._url, publish, wake)
        await self._follower.start(after)

    async def close(self) -> None:
        for part in (self._follower, *(getattr(self, name, None) for name in ("reader", "hot", "writer"))):
            if part is not None:
                await part.close()


def engine(database: Path, url: str | None) -> Engine:
    """The engine a configuration names: PostgreSQL where it has a URL, else SQLite in its file."""
    return PostgresEngine(url) if url is not None else SqliteEngine(database)


@dataclass(frozen=True, slots=True)
class KnowEpoch:
    """The epoch of this database's event numbers: another one after a restore or a copy, so that nobody takes old numbers for new."""

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("setting", "key", EPOCH))

    def decide(self, facts: Facts) -> str:
        known = facts.found[("setting", "key", EPOCH)]
        if known:
            return str(known[0].value)
        # A unit of work may run twice; whichever number is committed is the one.
        row = Setting(EPOCH, secrets.token_hex(4))
        facts.insert(row)
        return row.value
