"""What the tests of the write path share: a migrated database of its own, the real writer over it, and a clock that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub import reactions
from hub.contract import Claim, Inbound, InboundMessage, Proof
from hub.conversations.ingest import Ingest, item
from hub.policy import ChannelRule, Policy
from hub.storage import migrate, postgres
from hub.storage.columns import listed
from hub.storage.facts import React
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.reader import Reader, postgres_reader, sqlite_reader
from hub.storage.records import Event
from hub.storage.sqlite_writer import SqliteWriter
from hub.storage.writer import Writer
from tests.postgres import postgresql_missing, shared

SMS, WHATSAPP, MAIL, CHAT = 1, 2, 3, 4

POLICY = Policy(
    channels={
        SMS: ChannelRule(SMS, "sms", "SMS", "default", ("phone", "sender_word"), idempotent=False, mails=False),
        WHATSAPP: ChannelRule(WHATSAPP, "whatsapp", "WhatsApp", "default", ("phone", "wa_user_id"), idempotent=False, mails=False),
        MAIL: ChannelRule(MAIL, "mail", "E-mail", "default", ("email",), idempotent=False, mails=True),
        CHAT: ChannelRule(CHAT, "chat", "Chat", "default", ("device", "user_id"), idempotent=True, mails=False),
    },
    rooms=("slack",),
    destinations=("marketing",),
    mail_domain="hub.example",
)


@functools.cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hub.db"
        migrate.migrate(path)
        return path.read_bytes()


def fresh_database(directory: Path) -> Path:
    """An empty database at the newest step. Migrated once a process, copied since."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "hub.db"
    path.write_bytes(_template())
    return path


class Clock:
    """Microseconds UTC that pass only when told to."""

    def __init__(self, at: int = 1_800_000_000_000_000) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += round(seconds * 1_000_000)


@dataclass
class Store:
    """The real writer with what it announced, and direct reads of the file."""

    path: Path | str  # a SQLite file, or a PostgreSQL URL
    writer: Writer
    clock: Clock
    announced: list[list[Event]] = field(default_factory=list)
    owed: list[bool] = field(default_factory=list)

    async def run(self, work: Any) -> Any:
        return await self.writer.run(work)

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        if isinstance(self.path, str):
            return postgres_rows(self.path, sql, parameters)
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def execute(self, sql: str) -> None:
        """Change what is stored behind the writer's back."""
        if isinstance(self.path, str):
            postgres_rows(self.path, sql)
            return
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(sql)

    def reader(self) -> Reader:
        """A reader of it; whoever asks closes it."""
        return postgres_reader(self.path) if isinstance(self.path, str) else sqlite_reader(self.path)

    def value(self, sql: str, *parameters: Any) -> Any:
        return self.rows(sql, *parameters)[0][0]

    def events(self) -> list[Event]:
        """What was stated so far: as the writer announced it, or (where every hub follows the table) as it is stored."""
        if isinstance(self.path, str):
            return [Event(*row) for row in self.rows(f"SELECT {listed('event')} FROM event ORDER BY seq")]
        return [event for events in self.announced for event in events]


def postgres_rows(url: str, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """Rows of a statement in SQLite's spelling, read in a thread of its own: for tests that are inside an event loop."""
    numbers = itertools.count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", sql)

    async def read() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(numbered, *parameters)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result()


ENGINES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(bool(postgresql_missing()), reason=postgresql_missing())),
]
# For suites about rules, which are the same on every engine; what an engine does of its own is shown by those that take ENGINES. With
# EVERY_ENGINE=1 these run on both, too.
RULE_ENGINES = ENGINES if os.environ.get("EVERY_ENGINE") else ENGINES[:1]


def _migrated(url: str) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, postgres.migrate(url)).result()


def fresh_postgres() -> str:
    """The URL of an empty PostgreSQL database at the newest step."""
    return shared().create_database(_migrated)


@asynccontextmanager
async def open_store(
    directory: Path, policy: Policy = POLICY, react: React = reactions.react, *, engine: str = "sqlite", **options: Any
) -> AsyncIterator[Store]:
    """The real writer over a fresh database, closed at the end."""
    clock = Clock()
    announced: list[list[Event]] = []
    owed: list[bool] = []

    def on_commit(events: Any, owes: bool) -> None:
        announced.append(list(events))
        owed.append(owes)

    if engine == "postgresql":
        url = fresh_postgres()
        there = PostgresWriter(url, policy, react, on_commit, clock, **options)
        await there.start()
        try:
            yield Store(url, there, clock, announced, owed)
        finally:
            await there.close()
            shared().drop_database(url)
        return
    path = directory / "hub.db"
    if not path.exists():
        fresh_database(directory)
    writer = SqliteWriter(path, policy, react, on_commit, clock, **options)
    try:
        yield Store(path, writer, clock, announced, owed)
    finally:
        await writer.close()


# --- what customers say, as a connector hands it over ---

_numbers = itertools.count(1)


def phone(value: str, proof: Proof = Proof.CHANNEL) -> Claim:
    return Claim("phone", value, proof)


def email(value: str, proof: Proof = Proof.DMARC) -> Claim:
    return Claim("email", value, proof)


def device(value: str) -> Claim:
    return Claim("device", value, Proof.CHANNEL)


def account(value: str, site: str = "shop", proof: Proof = Proof.SIGNED) -> Claim:
    return Claim("user_id", value, proof, site)


def message(*claims: Claim, text: str = "Where is my parcel?", key: str = "", **more: Any) -> InboundMessage:
    """One message, new unless its key says otherwise."""
    return InboundMessage(provider_key=key or f"k{next(_numbers)}", claims=claims, text=text, **more)


def heard(channel: int, *said: Inbound, trusted: bool = True, names: tuple[int, int] | None = None) -> Ingest:
    """The unit of work that one verified request becomes; `names` is what its reply token says."""
    return Ingest(channel, tuple(item(one, trusted, (), names) for one in said), None)
