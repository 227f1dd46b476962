"""The outbox's ground: the real writer, reader and reactions on a database of its own, and a clock that only moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import select

from hub import reactions
from hub.contract import Attachment, Claim, InboundMessage, Proof
from hub.conversations.commands import Reply
from hub.conversations.ingest import Ingest, StoredFile, item
from hub.delivery.works import Claim as ClaimDue
from hub.policy import ChannelRule, Policy
from hub.storage import records
from hub.storage.facts import Counting, Facts, Needs
from hub.storage.reader import Reader, sqlite_reader
from hub.storage.records import Delivery, Event, Message
from hub.storage.sqlite_writer import SqliteWriter
from hub.storage.tables import metadata
from tests.storage import fresh_database

START = 1_800_000_000_000_000  # microseconds UTC
SECOND = 1_000_000
TOKEN = "worker"

SMS = ChannelRule(1, "sms", "SMS", "default", ("phone",), idempotent=False, mails=False)
MAIL = ChannelRule(2, "email", "E-mail", "default", ("email",), idempotent=False, mails=True)
CHAT = ChannelRule(3, "chat", "Chat", "default", ("device",), idempotent=True, mails=False)
CHANNELS = {rule.id: rule for rule in (SMS, MAIL, CHAT)}
ADA, BEN = "+12025550123", "+12025550124"


@dataclass
class Clock:
    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


def message(**values: Any) -> Message:
    """An answer on its way."""
    given: dict[str, Any] = {"id": 7, "conversation_id": 1, "ticket_id": 1, "direction": "out", "status": "sending", "text": "Hello"}
    return Message(**{**given, "created_at": START, "channel_id": 1, "identifier_id": 1, **values})


def delivery(**values: Any) -> Delivery:
    """The outbox row of that answer, leased to TOKEN."""
    given: dict[str, Any] = {"id": 3, "lane": "reply:1:1", "kind": "reply", "target": "sms", "subject_id": 7, "payload": "{}"}
    given |= {"state": "sending", "idempotent": False, "created_at": START, "due_at": START, "attempt": 1, "lease_token": TOKEN}
    return Delivery(**{**given, **values})


def facts(now: int = START, policy: Policy | None = None, *rows: Any) -> Facts:
    """What was read for a decision, laid down by hand."""
    found = Facts(now, policy or Policy(), Counting(dict.fromkeys(metadata.tables, 100)))
    for row in rows:
        if isinstance(row, Message):
            found.messages[row.id] = row
        elif isinstance(row, Delivery):
            found.deliveries[row.id] = row
    return found


@dataclass
class Ground:
    path: Path
    clock: Clock
    writer: SqliteWriter
    reader: Reader
    events: list[Event] = field(default_factory=list)
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    _number: Any = field(default_factory=lambda: count(1))

    async def run(self, work: Any) -> Any:
        return await self.writer.run(work)

    async def until(self, check: Callable[[], Awaitable[Any]]) -> Any:
        """What `check` returns once that is true; asked again after each commit that leaves a trace."""
        async with asyncio.timeout(10):
            while not (found := await check()):
                await self.committed.wait()
                self.committed.clear()
            return found

    async def all(self, table: str) -> list[Any]:
        """Every row of a table, as records, oldest first."""
        record = next(one for one in records.RECORDS if one.table == table)  # type: ignore[attr-defined]
        names = [f.name for f in fields(record)]
        columns = metadata.tables[table].c
        rows = await self.reader.all(select(*(columns[name] for name in names)).order_by(columns[names[0]]))
        return [record(*row) for row in rows]

    async def row(self, table: str, id_: Any) -> Any:
        return next(one for one in await self.all(table) if one.id == id_)

    async def deliveries(self, kind: str = "reply") -> list[Delivery]:
        return [row for row in await self.all("delivery") if row.kind == kind]

    async def hears(self, sender: str = ADA, text: str = "Where is my parcel?", channel: ChannelRule = SMS, **said: Any) -> int:
        """A customer's message through the one doorway in; its ticket, 0 for none."""
        number = next(self._number)
        kind = "phone" if channel is SMS else "email" if channel is MAIL else "device"
        claims = (Claim(kind, sender, Proof.CHANNEL), *said.pop("claims", ()))
        inbound = InboundMessage(provider_key=f"message-{number}", claims=claims, text=text, **said)
        files = tuple(
            StoredFile(f"file-{number}-{at}", file.name, file.content_type, 0, "", "", False, file.url)
            for at, file in enumerate(inbound.attachments)
        )
        await self.run(Ingest(channel.id, (item(inbound, True, files),), None))
        return int((await self.all("message"))[-1].ticket_id or 0)

    async def hears_of_picture(self, sender: str = ADA) -> str:
        """A message with a picture the provider only announced; the attachment's id."""
        await self.hears(sender, "", attachments=(Attachment("p.jpg", "image/jpeg", url="https://media.example/p"),))
        return str((await self.all("attachment"))[-1].id)

    async def answers(self, ticket_id: int, text: str = "It comes tomorrow.", **how: Any) -> int:
        """An agent's reply; its message id."""
        return int((await self.run(Reply(ticket_id, 1, text, f"draft-{next(self._number)}", **how))).message_id)

    async def claims(self, *, token: str = TOKEN, hands: int = 50, carried: tuple[int, ...] = (), **room: int) -> list[Delivery]:
        """What a worker gets to carry now; `room` is how many answers may go, by channel, `carried` what it carries already."""
        rooms = {("reply", target): number for target, number in room.items()}
        return list(await self.run(ClaimDue(token, hands, rooms, frozenset(carried))))


@dataclass
class Insert:
    """Rows laid down for a test, through the one writer like all others."""

    rows: tuple[Any, ...]

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> None:
        for row in self.rows:
            facts.insert(row)


@asynccontextmanager
async def ground(tmp_path: Path, **policy: Any) -> AsyncIterator[Ground]:
    """Three channels, no room and no destination unless asked for (`rooms=`, `destinations=` by name)."""
    path = fresh_database(tmp_path)
    clock = Clock()
    rules = replace(Policy(channels=CHANNELS, mail_domain="shop.example"), **policy)
    told: list[Event] = []
    committed = asyncio.Event()

    def on_commit(events: Sequence[Event], owes: bool) -> None:
        told.extend(events)
        committed.set()

    writer = SqliteWriter(path, rules, reactions.react, on_commit, clock)
    reader = sqlite_reader(path)
    try:
        yield Ground(path, clock, writer, reader, told, committed)
    finally:
        await reader.close()
        await writer.close()


MARKETING = ("marketing",)
