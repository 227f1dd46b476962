"""The hub of the simulation: real database, works, outbox rules, marking, reading back and watching, driven by a clock set by hand."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.sql import Executable

from bench.campaigns_tool import Crashed, Tool
from bench.campaigns_world import TOOLS, Happening, World
from hub import reactions
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.commands import Assign, Reopen, Resolve, Snooze
from hub.conversations.ingest import Ingest, item
from hub.customers.merging import Merge, Unmerge
from hub.delivery.marking import LOOKS_AT_ONCE, MarkCarrier, ReadingBack, Tools
from hub.delivery.outbox import judge, sign_of
from hub.delivery.pacing import HANDS, Gates, Sign
from hub.delivery.watching import Watch
from hub.delivery.works import Claim as ClaimDue
from hub.delivery.works import Finish, ReleaseLeases, finish
from hub.holds import gate
from hub.holds.renewal import RenewLeases
from hub.marketing import ToolSettings
from hub.policy import DAY, SECOND, ChannelRule, Policy, Refusal
from hub.storage.migrate import migrate
from hub.storage.reader import Reader
from hub.storage.records import Agent, Delivery, Event
from hub.storage.sqlite_hot import SqliteHot
from hub.storage.sqlite_writer import MAX_BATCH, SqliteWriter
from hub.storage.writer import Unit

START = 1_800_000_000 // 86_400 * 86_400  # unix seconds of the first midnight
MAIL = ChannelRule(1, "mail", "E-mail", "default", ("email",), idempotent=False, mails=True)
SMS = ChannelRule(2, "sms", "SMS", "default", ("phone",), idempotent=False, mails=False)
RULES = Policy(channels={1: MAIL, 2: SMS}, mail_domain="shop.example", tools=TOOLS)
AGENT = 1
_LOOK = text("SELECT min(check_at) FROM mark WHERE check_at IS NOT NULL")
_CARRY = text("SELECT min(due_at) FROM delivery WHERE state = 'queued'")


def address_of(customer: int) -> tuple[str, str]:
    """(kind, value): every second customer writes by mail, the others by SMS."""
    return ("email", f"person{customer}@example.com") if customer % 2 else ("phone", f"+1202{5_000_000 + customer:07}")


class LoopReader(Reader):
    """The reader's statements run where they are asked: the crossing to a thread and back costs more than they do."""

    def __init__(self, path: Path) -> None:
        self._sync = create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True)
        self._connection = self._sync.connect()

    async def all(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Sequence[Any]:
        return self._connection.execute(statement, parameters or {}).all()

    async def first(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Any:
        return self._connection.execute(statement, parameters or {}).first()

    async def close(self) -> None:
        self._connection.close()
        self._sync.dispose()


class LoopWriter(SqliteWriter):
    """The writer's transactions run in the loop, all work waiting at that moment in one: for the same reason, and alike each time."""

    async def run(self, work: Any) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(Unit(work, future, 0.0))
        return await future

    def _flush(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        self._commit(batch)
        if self._waiting:
            self._loop.call_soon(self._flush)

    def _settle(self, outcomes: Sequence[tuple[Unit, Any]], events: Sequence[Event], owes: bool) -> None:
        self._answer(outcomes, events, owes)


class Laid:
    """The agent, laid down."""

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        facts.insert(Agent(AGENT, "robin@shop.example", "Robin", "", "agent", facts.now))


class SimulatedHub:
    """One hub with two tools. `reconciles=False`: a change is told once and forgotten, nothing is read back, no lease is renewed."""

    def __init__(self, directory: Path, world: World, reconciles: bool = True) -> None:
        self.world, self.reconciles = world, reconciles
        path = directory / "hub.db"
        migrate(path)
        self.now = 0.0
        self._rng = random.Random(f"{world.size.seed} hub")
        self._events: list[Event] = []
        self.warned: list[tuple[str, str]] = []  # (tool, campaign id) of every warning
        self._owes = False
        self._retrying: set[int] = set()
        self.confirmed: dict[str, list[int]] = {name: [] for name in TOOLS}  # ms from the change to its confirmation
        self.effective: dict[str, list[int]] = {name: [] for name in TOOLS}
        self.counts = {"deliveries": 0, "tries": 0, "drifts": 0, "crashes": 0, "refused": 0}
        self.writer = LoopWriter(path, RULES, reactions.react, self._on_commit, self.clock)
        self.reader = LoopReader(path)
        self.hot = SqliteHot(path)
        addresses = [address_of(who) for who in range(world.size.customers)]
        self.tools = {name: Tool(name, world, addresses, START) for name in TOOLS}
        http: Any = None
        both = Tools({name: (tool, ToolSettings(type=name)) for name, tool in self.tools.items()})
        self.carrier = MarkCarrier(both, self.reader, self.hot, self.writer, http)
        self.reading = ReadingBack(both, self.reader, self.writer, http)
        self.watch = Watch(both, self.reader, self.writer, http, share=0.05, minutes=15)
        self.gates = Gates({}, self._rng, lambda: self.now)
        self._token = 0
        self._customer: dict[int, int] = {}  # of the history -> of the hub
        self._ticket: dict[int, int] = {}  # customer of the history -> their ticket
        self._join: dict[tuple[int, int], int] = {}

    def clock(self) -> int:
        return int((START + self.now) * SECOND)

    def _on_commit(self, events: Sequence[Event], owes: bool) -> None:
        self._owes = self._owes or owes
        for event in events:
            if event.type in ("message.received", "campaign.warned") or event.type.startswith("mark."):
                self._events.append(event)

    def heard(self) -> list[Event]:
        """The events since this was asked last."""
        events, self._events = self._events, []
        return events

    async def start(self) -> None:
        await self.writer.run(Laid())

    async def close(self) -> None:
        await self.hot.close()
        await self.reader.close()
        await self.writer.close()

    # --- what happens to it ---

    async def take(self, happenings: Sequence[Happening]) -> None:
        """Take in what happens at one moment."""
        writes = [one for one in happenings if one.kind == "writes"]
        if writes:
            await asyncio.gather(*(self.writer.run(self._message(one)) for one in writes))
            told = [event for event in self.heard() if event.type == "message.received"]
            for one, event in zip(writes, told, strict=True):
                self._customer.setdefault(one.customer, event.customer_id or 0)
                self._ticket[one.customer] = event.ticket_id or 0
        works = [self._work(one) for one in happenings if one.kind != "writes"]
        if works:
            done = await asyncio.gather(*(self.writer.run(work) for work in works), return_exceptions=True)
            for work, outcome in zip(works, done, strict=True):
                if isinstance(outcome, Refusal):
                    self.counts["refused"] += 1
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif isinstance(work, Merge):
                    self._join[work.left_id, work.right_id] = outcome.join_id

    def _message(self, one: Happening) -> Ingest:
        kind, value = address_of(one.customer)
        proof = Proof.DMARC if kind == "email" else Proof.CHANNEL
        said = InboundMessage(provider_key=f"message-{one.number}", claims=(Claim(kind, value, proof),), text="Where is my parcel?")
        return Ingest(1 if kind == "email" else 2, (item(said, True, ()),), None)

    def _work(self, one: Happening) -> Any:
        ticket = self._ticket.get(one.customer, 0)
        match one.kind:
            case "resolved":
                return Resolve(ticket, AGENT)
            case "reopened" | "woken":
                return Reopen(ticket, AGENT)
            case "snoozed":
                return Snooze(ticket, AGENT, self.clock() + 365 * DAY)
            case "assigned":
                return Assign(ticket, AGENT, AGENT)
        left, right = self._customer[one.customer], self._customer[one.other]
        if one.kind == "merged":
            return Merge(left, right, "agent:1", AGENT, "the same person")
        return Unmerge(self._join[left, right], left, right, "agent:1", AGENT)

    # --- what it does by itself ---

    async def work(self) -> bool:
        """Carry and read back what is due; whether there was anything."""
        tried = self.counts["tries"]
        if self._owes or self._retrying:
            await self.carry()
        at = await self.reader.value(_LOOK)
        looked = await self.look() if self.reconciles and at is not None and at <= self.clock() else 0
        if self._owes:
            await self.carry()
        return bool(looked) or self.counts["tries"] > tried

    async def due(self) -> float:
        """When there is something to carry or to read back next, in seconds of the simulation; infinite where nothing waits."""
        asked = [_CARRY] * bool(self._retrying) + [_LOOK] * self.reconciles
        times = [at for one in asked if (at := await self.reader.value(one)) is not None]
        return min(times) / SECOND - START if times else float("inf")

    async def carry(self) -> None:
        """Carry what is due, as the outbox does: so many at once, gates shut while a tool is down."""
        self._owes = False
        while True:
            rows = await self.writer.run(ClaimDue(f"worker-{self._token}", HANDS, self.gates.room()))
            if not rows:
                return
            for row in rows:
                self.gates.sent((row.kind, row.target), row.id)
            ends = await asyncio.gather(*(self._carry(row) for row in rows))
            done = [end for end in itertools.takewhile(lambda end: end is not None, ends) if end is not None]  # none after a death
            await asyncio.gather(*(self.writer.run(end) for end in done))
            for row in rows:
                self.gates.freed((row.kind, row.target))
            if len(done) < len(rows):
                # Dead, with deliveries in hand. A new process, which knows nothing of what they came to.
                self.counts["crashes"] += 1
                self._token += 1
                self.gates = Gates({}, self._rng, lambda: self.now)
                if self._rng.random() < 0.5:
                    await self.writer.run(ReleaseLeases())
                else:
                    self._retrying |= {row.id for row in rows}  # another process's: they wait for their lease to end
                    return

    async def _carry(self, row: Delivery) -> Finish | None:
        self.counts["tries"] += 1
        target = (row.kind, row.target)
        try:
            end = await self.carrier.carry(row)
        except Crashed:
            return None
        except Exception as error:
            end = judge(error, row)
            if not self.reconciles:
                end = finish(row)  # told, and forgotten
            self.gates.heard(target, row.id, sign_of(error, True), end.retry_after or 0.0)
        else:
            self.gates.heard(target, row.id, Sign.UP)
        if end.outcome == "later":
            self._retrying.add(row.id)
        else:
            self._retrying.discard(row.id)
            self.counts["deliveries"] += 1
        return replace(end, jitter=self._rng.random())

    async def look(self) -> int:
        """Read back what is due; how many."""
        done = 0
        while some := await self.reading.look():
            done += some
            if some < LOOKS_AT_ONCE:
                break
        return done

    async def renew(self) -> None:
        """What runs every hour."""
        while self.reconciles and await self.writer.run(RenewLeases(self.clock() + RULES.hold_renew_under)):
            pass

    async def held(self, customers: Sequence[int]) -> dict[int, bool]:
        """What the gate answers about customers now."""
        asked = {who: gate.ask(*address_of(who)) for who in customers}
        hits = await gate.look_up(list(asked.values()), self.hot)
        now = self.clock()
        return {who: gate.judge(gate.hits_of(one, hits), now, channel="email").held for who, one in asked.items()}
