"""One seed: customers write, agents answer, providers misbehave, processes die, clocks jump; then it clears, and all must be well.

The hub in it is real: its units of work, its reactions, its outbox worker. Only the loop, the clock, the disk and the outside are not.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from hub import reactions
from hub.contract import Claim, DeliveryUpdate, Identified, Inbound, InboundMessage, Proof
from hub.conversations.commands import AddNote, Assign, Reopen, Reply, Resolve, Snooze
from hub.conversations.ingest import Ingest, Raw, StoredFile, item
from hub.delivery import outbox as outbox_module
from hub.delivery.works import Finish, Retry
from hub.policy import SECOND, ChannelRule, Policy, Refusal
from hub.storage.facts import Facts, React
from hub.storage.writer import StorageBusy
from tests.simulation.loop import Loop, Stalled, Task
from tests.simulation.model import Model, Node, Said, Written
from tests.simulation.outside import Destination, Media, Room, Telephone
from tests.simulation.process import PROCESS, STORM, Process, Unreachable, Weather
from tests.simulation.store import AGENTS, fresh

START = 1_800_000_000 * SECOND
SMS, WHATSAPP, CHAT, MAIL = 1, 2, 3, 4
RULES = (
    ChannelRule(SMS, "sms", "SMS", "default", ("phone",), idempotent=False, mails=False),
    ChannelRule(WHATSAPP, "whatsapp", "WhatsApp", "default", ("wa_user_id", "phone"), idempotent=False, mails=False),
    ChannelRule(CHAT, "chat", "Chat", "other", ("device", "user_id"), idempotent=True, mails=False, site="shop"),
    ChannelRule(MAIL, "mail", "E-mail", "default", ("email",), idempotent=False, mails=True),
)
POLICY = Policy(rooms=("room",), destinations=("crm",), channels={rule.id: rule for rule in RULES}, mail_domain="shop.example")
NOTE_TRIES = 5  # how often the worker tries to store how a delivery ended, before its lease decides
PATIENCE = 4_000.0  # virtual seconds within which something must move while anything is owed


@dataclass
class World:
    """A seed's whole world. `policy`, `react` and `jumps` are what a test may change."""

    seed: int
    policy: Policy = POLICY
    react: React = reactions.react
    jumps: bool | None = None
    weather: Weather | None = None
    traced: bool = False
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.loop = Loop(random.Random(self.rng.random()))
        self.loop.own(self._own)
        self.db = fresh(RULES)
        if self.rng.random() < 0.4:
            self.policy = replace(self.policy, rooms=())
        self.model = Model(self.db, self.fail)
        self.model.told = {name: {} for name in self.policy.destinations}
        drawn = Weather.of(self.rng, self.jumps)
        self.weather = self.weather or drawn
        self.poll = self.rng.choice((2.0, 10.0, 30.0))
        self.haste = self.rng.choice((200.0, 20.0, 4.0))  # batches a second: the fewer, the more is decided together
        self.calm = False
        self.offset = 0
        self.outage_until = 0.0
        self.process: Process | None = None
        self.graves: list[Process] = []  # kept, so that no collector of garbage ends what death has stopped
        self.busy: set[Task] = set()  # customers, agents and providers at work
        self.seen = self.model.seen
        self.commits = 0
        shared = (random.Random(self.rng.random()), self.loop, self.model, lambda: self.calm)
        self.carriers = {
            "reply": Telephone(*shared, report=self._report, channel={rule.name: rule.id for rule in RULES}),
            "hold": Destination(*shared),
            "card": Room(*shared),
            "media": Media(*shared),
        }
        self._numbers = Counter[str]()

    # --- time, tasks, failures ---

    def wall(self) -> int:
        """Microseconds UTC, as a clock shows them that somebody may set."""
        return START + self.offset + int(self.loop.now * SECOND)

    def fail(self, text: str) -> None:
        self.loop.mistakes.append(text)

    def say(self, text: str) -> None:
        if self.traced:
            self.trace.append(f"{self.loop.now:12.3f} {text}")

    def number(self, what: str) -> str:
        self._numbers[what] += 1
        return f"{what}{self._numbers[what]}"

    def _own(self, task: Task) -> None:
        process = PROCESS.get()
        if process is not None:
            process.tasks.append(task)
        elif task.get_name() != "main":
            self.busy.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: Any) -> None:
        self.busy.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.fail(f"{task.get_name()}: {task.exception()!r}")

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> None:
        """Something outside the hub: it survives the hub's death."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, None)
        self.loop.create_task(coro, name=name, context=context)

    # --- what the store is to do (store.Fate) ---

    def pause(self) -> float:
        return self.rng.expovariate(self.haste)

    def ending(self, works: Sequence[Any]) -> str:
        if self.calm:
            return "stored"
        if self.loop.now < self.outage_until:
            return "refused"
        drawn = self.rng.random()
        for ending, rate in (
            ("refused", self.weather.refused),
            ("lost", self.weather.lost),
            ("crash before", self.weather.crash),
            ("crash after", self.weather.crash),
        ):
            if drawn < rate:
                return ending
            drawn -= rate
        return "stored"

    def committed(self, works: Sequence[Any], written: Sequence[Facts], ending: str) -> None:
        self.commits += 1
        self.seen[f"commit {ending}"] += 1
        if self.traced:
            self.say(f"COMMIT {ending}: {works}")
            for facts in written:
                self.trace += [f"{'':12} event {e.seq} {e.type} {e.data if e.data != '{}' else ''}" for e in facts.events]
                self.trace += [f"{'':12} {row}" for row in facts.changed.get("delivery", {}).values()]
        if ending == "lost":
            for facts in written:
                rows = facts.changed.get("delivery", {}).values()
                self.model.doubt([row.id for row in rows if row.state == "sending"], "claimed, and the worker never heard of it")
        self.model.committed(written)

    def refused(self, works: Sequence[Any]) -> None:
        self.seen["commit refused"] += 1
        self.say(f"REFUSED {works}")
        for work in works:
            if isinstance(work, Finish):
                self.model.refused_notes[work.delivery_id] += 1
                if self.model.refused_notes[work.delivery_id] >= NOTE_TRIES:
                    self.model.doubt([work.delivery_id], "its end could not be stored")

    # --- the hub's life ---

    def crash(self) -> None:
        """The process dies where it stands. What it had in memory is lost, and nobody it spoke with hears of it."""
        process = self.process
        if process is None or not process.alive:
            return
        self.seen["death"] += 1
        self.say("the process dies")
        self._bury(process)

    def _bury(self, process: Process) -> None:
        process.alive = False
        process.writer.die()
        self.graves.append(process)
        self.model.in_hand.clear()
        self.model.doubt((id_ for (id_,) in self.model.rows("SELECT id FROM delivery WHERE state = 'sending'")), "the worker died")
        for task in process.tasks:
            task.cancel()
        for connection in process.connections:
            if not connection.done():
                connection.set_exception(Unreachable())
        self.process = None
        away = self.rng.expovariate(0.7)
        if not self.calm and self.rng.random() < 0.02:
            away = self.rng.choice((400.0, 7_200.0, 9 * 86_400.0))  # a long night; longer than any lease
            self.seen["long absence"] += 1
        self.spawn(self._begin(away), "supervisor")

    async def _begin(self, after: float) -> None:
        await asyncio.sleep(after)
        self.process = process = Process(self)
        self.say("the hub starts")
        started: asyncio.Future[Any] = self.loop.create_future()
        process.connections.append(started)

        async def start() -> None:
            try:
                await process.start()
            except StorageBusy as error:
                started.set_exception(error)
            else:
                started.set_result(None)

        process.spawn(start(), "start")
        try:
            await started
        except StorageBusy:
            if process.alive:
                self.crash()
        except Unreachable:
            pass  # it died while starting, and whoever killed it starts the next

    async def _disasters(self, until: float) -> None:
        rate = self.weather.disasters + 2.0 * self.weather.jumps
        kinds = ("crash", "restart", "outage", "jump"), (1.0, 1.0, 1.0, 6.0 if self.weather.jumps else 0.0)
        while rate:
            await asyncio.sleep(self.rng.expovariate(rate / until))
            if self.calm:
                return
            kind = self.rng.choices(*kinds)[0]
            if kind == "crash":
                self.crash()
            elif kind == "restart" and self.process is not None:
                process = self.process
                self.seen["restart"] += 1
                self.say("SIGTERM")
                ended: asyncio.Future[Any] = self.loop.create_future()
                process.connections.append(ended)

                async def stop(process: Process = process, ended: asyncio.Future[Any] = ended) -> None:
                    await process.stop()
                    if not ended.done():
                        ended.set_result(None)

                process.spawn(stop(), "stop")
                try:
                    await ended
                except Unreachable:
                    continue
                if process.alive:
                    self._bury(process)
            elif kind == "outage":
                self.seen["storage outage"] += 1
                self.outage_until = self.loop.now + self.rng.choice((0.5, 4.0, 12.0))
            elif kind == "jump":
                self.seen["clock jump"] += 1
                by = self.rng.choice((1, -1)) * self.rng.choice((5.0, 200.0, 86_400.0)) * self.rng.random()
                self.offset += int(by * SECOND)
                self.say(f"the wall clock is set by {by:.0f} s")

    async def _call(self, work: Any, acknowledged: Callable[[Any], None] = lambda outcome: None) -> Any:
        """A request over a network that may lose it or its answer. Raises Unreachable, StorageBusy, Refusal."""
        await asyncio.sleep(self.rng.expovariate(20.0))
        bad = 0.0 if self.calm else self.weather.network
        process = self.process
        if process is None or self.rng.random() < bad / 2:
            raise Unreachable
        connection: asyncio.Future[Any] = self.loop.create_future()
        process.connections.append(connection)
        process.spawn(process.answer(work, connection, acknowledged), "request")
        outcome = await connection
        if self.rng.random() < bad / 2:
            self.seen["answer lost on the way"] += 1
            raise Unreachable
        return outcome

    # --- providers that bring something ---

    async def _deliver(self, work: Ingest, acknowledged: Callable[[Any], None]) -> None:
        """As providers do: again until somebody confirms, with growing patience, and sometimes once more for no reason."""
        wait = 0.5
        for _ in range(400 if self.calm else 40):
            try:
                await self._call(work, acknowledged)
            except (Unreachable, StorageBusy):
                self.seen["delivered again"] += 1
                await asyncio.sleep(wait * self.rng.uniform(0.5, 1))
                wait = min(wait * 2, 3_600.0)
                continue
            if self.calm or self.rng.random() > 0.1:
                return
            self.seen["delivered again"] += 1

    def _post(self, channel: int, entries: Sequence[tuple[Inbound, tuple[StoredFile, ...]]], acknowledged: Callable[[Any], None]) -> None:
        raw = Raw(self.wall(), "good", "POST", "/in/x", "{}", b"as it came")
        work = Ingest(channel, tuple(item(said, True, files) for said, files in entries), raw)
        copies = 1 if self.calm or self.rng.random() > 0.2 else self.rng.randint(2, 5)
        for _ in range(copies):
            self.spawn(self._deliver(work, acknowledged), "provider")

    def _report(self, channel: int, update: DeliveryUpdate) -> None:
        async def later() -> None:
            await asyncio.sleep(self.rng.expovariate(self.rng.choice((50.0, 1.0, 0.1))))

            def acknowledged(outcome: Any) -> None:
                word = "sent" if update.status.value in ("queued", "sending") else update.status.value
                self.model.reports[update.delivery_id or 0].append(word)

            self._post(channel, [(update, ())], acknowledged)

        self.spawn(later(), "report")

    # --- people ---

    async def _customer(self, number: int, until: float) -> None:
        rng = self.rng
        devices = [f"device-{number}-{n}" for n in range(rng.randint(1, 2))]
        phone, email, user, wa = f"+1202555012{number}", f"ada{number}@example.com", f"user-{number}", f"US.1234567890{number}"
        times = rng.randint(1, 4)
        for time in range(times):
            await asyncio.sleep(rng.uniform(0, until / 3) if rng.random() < 0.7 else 0)
            shows = time == times - 1 and rng.random() < 0.6  # who it was all along
            said: list[tuple[Inbound, tuple[StoredFile, ...]]] = []
            records: list[Said] = []
            channel = rng.choice((WHATSAPP, CHAT, CHAT) if shows else (SMS, SMS, WHATSAPP, CHAT, CHAT, MAIL))
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                claims = self._claims(channel, rng.choice(devices), phone, email, user, wa, shows or rng.random() < 0.3)
                signs_in = channel == CHAT and len(claims) > 1 and rng.random() < 0.3
                text = "" if signs_in else f"{self.number('hello')} {rng.choice(('where is it?', 'thanks!', 'help'))}"
                key = self.number("key")
                files: tuple[StoredFile, ...] = ()
                entry: Inbound
                if signs_in:
                    entry = Identified(provider_key=key, claims=claims)
                else:
                    automatic = "auto-reply" if rng.random() < 0.05 else ""
                    entry = InboundMessage(provider_key=key, claims=claims, text=text, automatic=automatic, sender_name=f"Ada {number}")
                    if rng.random() < 0.1:
                        name = self.number("file")
                        files = (StoredFile(name, name, "image/png", 0, "", "", False, "https://media.example/1"),)
                record = Said(key, channel, text, _nodes(claims))
                self.model.said[key] = record
                records.append(record)
                said.append((entry, files))

            def acknowledged(outcome: Any, records: list[Said] = records) -> None:
                for record in records:
                    record.acknowledged = True

            self._post(channel, said, acknowledged)

    def _claims(self, channel: int, device: str, phone: str, email: str, user: str, wa: str, shows: bool) -> tuple[Claim, ...]:
        if channel == SMS:
            return (Claim("phone", phone, Proof.CHANNEL),)
        if channel == WHATSAPP:
            return (Claim("wa_user_id", wa, Proof.CHANNEL), Claim("phone", phone, Proof.CHANNEL))
        if channel == MAIL:
            proof = Proof.DMARC if self.rng.random() < 0.8 else Proof.CLAIMED
            return (Claim("email", email, proof), Claim("phone", phone, Proof.CLAIMED))
        own = Claim("device", device, Proof.CHANNEL)
        if not shows:
            return (own, Claim("email", email, Proof.CLAIMED)) if self.rng.random() < 0.5 else (own,)
        return (Claim("user_id", user, Proof.SIGNED, "shop"), own, Claim("email", email, Proof.SIGNED))

    async def _agent(self, id_: int, until: float) -> None:
        while not self.model.rows("SELECT 1 FROM ticket") and not self.calm:  # noqa: ASYNC110  (an agent looks now and then)
            await asyncio.sleep(0.3)
        for _ in range(self.rng.randint(3, 7)):
            await asyncio.sleep(self.rng.expovariate(7.0 / until) if self.rng.random() < 0.7 else 0)
            tickets = [row[0] for row in self.model.rows("SELECT id FROM ticket ORDER BY id")]
            if not tickets or self.calm:
                continue
            try:
                await self._act(id_, self.rng.choice(tickets))
            except (Unreachable, StorageBusy):
                self.seen["agent turned away"] += 1
            except Refusal:
                self.seen["agent refused"] += 1

    async def _act(self, agent: int, ticket: int) -> None:
        rng = self.rng
        action = rng.choices(("reply", "replies", "resolve", "reopen", "snooze", "assign", "note", "retry"), (30, 15, 15, 8, 8, 6, 3, 12))[
            0
        ]
        if action == "reply":
            await self._reply(agent, ticket)
        elif action == "replies":  # a train of thought
            for _ in range(rng.randint(2, 4)):
                await self._reply(agent, ticket)
                await asyncio.sleep(rng.choice((0.0, 1.0, 4.0)))
        elif action == "resolve":
            await self._call(Resolve(ticket, agent))
        elif action == "reopen":
            self.model.by_hand.add(ticket)
            await self._call(Reopen(ticket, agent))
        elif action == "snooze":
            await self._call(Snooze(ticket, agent, self.wall() + rng.randint(1, 30) * SECOND))
        elif action == "assign":
            await self._call(Assign(ticket, agent, rng.choice((None, *AGENTS))))
        elif action == "note":
            await self._call(AddNote(ticket, agent, "look at this", self.number("note")))
        else:
            ended = self.model.rows("SELECT id FROM delivery WHERE kind IN ('reply', 'card') AND state IN ('failed', 'unknown')")
            if ended:
                await self._retry(rng.choice(ended)[0])

    async def _retry(self, delivery: int) -> None:
        self.model.retries[delivery] += 1
        self.seen["retried by a person"] += 1
        try:
            await self._call(Retry(delivery))
        except Refusal:
            self.model.retries[delivery] -= 1

    async def _reply(self, agent: int, ticket: int) -> None:
        rng = self.rng
        draft = self.number("draft")
        written = Written(draft, f"answer of {draft}", self.model.count())
        self.model.written[draft] = written
        channel = rng.choice((None, None, None, SMS, CHAT))
        work = Reply(ticket, agent, written.text, draft, channel_id=channel)

        def confirmed(outcome: Any) -> None:
            if written.message_id not in (None, outcome.message_id):
                self.fail(f"{draft} was confirmed as message {written.message_id} and as {outcome.message_id}")
            if written.confirmed is None:
                written.message_id = outcome.message_id
                written.confirmed = self.model.count()

        if rng.random() < 0.2:  # a double click

            async def twice() -> None:
                with _turned_away():
                    await self._call(work, confirmed)

            self.seen["double click"] += 1
            self.spawn(twice(), "second click")
        for patience in (0.3, 1.0, 4.0, None):
            try:
                await self._call(work, confirmed)
            except (Unreachable, StorageBusy):
                if patience is None:
                    raise
                await asyncio.sleep(patience)
            else:
                return

    # --- the whole of it ---

    async def main(self) -> None:
        until = self.rng.choice((3.0, 8.0, 25.0))
        await self._begin(0.0)
        for number in range(self.rng.randint(2, 3)):
            self.spawn(self._customer(number, until), "customer")
        for agent in AGENTS:
            self.spawn(self._agent(agent, until), "agent")
        self.spawn(self._disasters(until), "disasters")
        await asyncio.sleep(until)
        self.calm = True
        outbox_module.POLL = 60.0
        self.haste = 200.0
        self.say("calm from here on")
        await self._run_out()
        self.model.finished()

    async def _run_out(self) -> None:
        """Let virtual time pass until nothing is due any more."""
        stuck_since, before = self.loop.now, None
        while True:
            await asyncio.sleep(0.2)
            busy = [task for task in self.busy if task.get_name() != "disasters"]
            if busy or self.model.in_hand or self.process is None:
                # What is under way is awaited with the clock running on as it does.
                await asyncio.sleep(1.0 if self.process is not None else 60.0)
                if self.loop.now - stuck_since > 30 * 86_400:
                    self.fail(f"never quiet: {busy} {self.model.in_hand}")
                continue
            rows = self.model.rows(
                "SELECT id, state, due_at, lease_until, attempt, lane FROM delivery WHERE state IN ('queued', 'sending', 'unknown')"
            )
            if not any(row[1] != "unknown" for row in rows):
                break
            if rows != before:
                before, stuck_since = rows, self.loop.now
            now = self.wall()
            coming = [at for _, state, due, lease, *_ in rows for at in (lease if state == "sending" else due,) if at > now]
            if coming:
                self.loop.leap((min(coming) - now) / SECOND)
                stuck_since = self.loop.now
            elif self.loop.now - stuck_since > PATIENCE:
                self.fail(f"owed, due, and nobody carries it: {rows}")
            self.process.outbox.wake()
            await asyncio.sleep(1.0)
        assert self.process is not None
        await self.process.spawn(self.process.wake_snoozed(), "wake")
        await self.process.spawn(self.process.renew(), "renew")
        if self.model.rows("SELECT 1 FROM delivery WHERE state IN ('queued', 'sending')"):
            await self._run_out()

    def run(self) -> World:
        """Raises AssertionError, with the seed in it, where a promise was broken."""
        with _quiet(self):
            try:
                self.loop.run(self.main())
            except Stalled as error:
                self.fail(str(error))
        if self.loop.mistakes:
            storm = "--storm " if self.weather is STORM else ""
            again = f"\n  again, with its trace: python -m tests.simulation {storm}{self.seed}"
            raise AssertionError(f"seed {self.seed}: {self.loop.mistakes[0]}{again}")
        return self

    def digest(self) -> str:
        """What came of it: equal for two runs of one seed."""
        tables = ("customer", "identifier", "ticket", "message", "hold", "hold_ledger", "event")
        kept = [self.model.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
        kept.append(self.model.rows("SELECT id, lane, kind, state, attempt, version, due_at, error FROM delivery ORDER BY id"))
        return hashlib.sha256(repr((kept, self.loop.steps, sorted(self.seen.items()))).encode()).hexdigest()


def _nodes(claims: Sequence[Claim]) -> tuple[Node, ...]:
    """What a message proves to be one person: all it proves, or the unproved sender alone."""
    proven = tuple((claim.kind, claim.site, claim.value) for claim in claims if claim.proof is not Proof.CLAIMED)
    first = claims[0]
    return proven if first.proof is not Proof.CLAIMED else ((f"asserted:{first.kind}", first.site, first.value),)


@contextmanager
def _turned_away() -> Iterator[None]:
    try:
        yield
    except (Unreachable, StorageBusy, Refusal):
        pass


# What the worker may complain of at level error, the weather being what it is.
EXPECTED = {"outcome not stored; the lease will run out", "delivery failed unexpectedly"}


@contextmanager
def _quiet(world: World) -> Iterator[None]:
    """Nothing is printed; an error of the worker that no weather explains is a mistake."""

    def heard(logger: Any, method: str, said: Any) -> Any:
        world.say(f"log {method}: {said}")
        if method in ("error", "exception", "critical") and said.get("event") not in EXPECTED:
            world.fail(f"the hub complains: {said}")
        raise structlog.DropEvent

    kept, poll = structlog.get_config(), outbox_module.POLL
    structlog.configure(processors=[heard], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False)
    outbox_module.POLL = world.poll  # virtual seconds; a commit wakes the worker at once as ever
    try:
        yield
    finally:
        structlog.configure(**kept)
        outbox_module.POLL = poll


def simulate(seed: int, **changes: Any) -> World:
    """Run one seed to its end. Raises AssertionError."""
    return World(seed, **changes).run()
