"""F17: while we are away nothing is lost. What a provider received meanwhile is listed there, and stored once, in its order.

The whole hub with its real connectors; the stand-in for Twilio runs apart from it and outlives its restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import func, select

from connectors.sandbox import SandboxActor, SandboxServer
from connectors.sandbox.twilio import parcel_photo
from connectors.shared import twilio_lists
from hub.app import Running, sandbox_secrets
from hub.config import Settings, load
from hub.contract import HttpResponse, InboundMessage, NotSent, Refused, TryLater
from hub.conversations import recovery as room
from hub.conversations.recovery import LOOK_BACK, OVERLAP, NoteRecovered, Recovery, begin, watermark_key
from hub.http import GuardedHttp
from hub.storage.tables import metadata
from hub.storage.turns import TakeTurn
from hub.storage.writer import StorageBusy
from hub.web import webhooks
from tests.conftest import free_port, sandbox_config
from tests.postgres import postgresql_missing, shared

ADA, BEN, CHEN = "+12025550123", "+12025550124", "+12025550125"
START = 1_800_000_000  # unix seconds
MINUTE, HOUR, DAY = 60, 3_600, 86_400
T = metadata.tables


# watermark, newest message of the channel, now -> from when on to ask
BEGINS = {
    "a new channel": (None, None, START, None),
    "a hub that kept no watermark yet": (None, START - HOUR, START, START - HOUR - OVERLAP),
    "five minutes later": (START - 300, None, START, START - 300 - OVERLAP),
    "the watermark counts, not the newest message": (START - 300, START - DAY, START, START - 300 - OVERLAP),
    "six hours away": (START - 6 * HOUR, None, START, START - 6 * HOUR - OVERLAP),
    "a month away": (START - 30 * DAY, None, START, START - LOOK_BACK),
    "a clock a little ahead": (START + 60, None, START, START + 60 - OVERLAP),
    "a clock that ran a year ahead": (START + 365 * DAY, None, START, START - LOOK_BACK),
}


@pytest.mark.parametrize(("watermark", "newest", "now", "since"), BEGINS.values(), ids=BEGINS)
def test_where_a_look_begins(watermark: int | None, newest: int | None, now: int, since: int | None) -> None:
    assert begin(watermark, newest, now) == since


class Clock:
    """One time for the hub and for the provider; it moves only when told."""

    def __init__(self) -> None:
        self.seconds = float(START)

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000)


async def _idle(_: Recovery) -> None: ...


class World:
    """Twilio on loopback, the people who write, and a hub that comes and goes."""

    def __init__(self, settings: Settings, server: SandboxServer, clock: Clock) -> None:
        self.settings = settings
        self.server = server
        self.state = server.state
        self.clock = clock
        self.actor = SandboxActor(server, hub_url="http://127.0.0.1:1", public_url=settings.server.public_url)
        self.running: Running | None = None

    @asynccontextmanager
    async def hub(self) -> AsyncIterator[Running]:
        self.running = Running(self.settings, self.clock)
        with pytest.MonkeyPatch.context() as during:
            during.setattr(Recovery, "start", _idle)  # a test says when its recovery looks
            await self.running.start()
        self.actor.hub_url = f"http://127.0.0.1:{self.running.port}"
        try:
            yield self.running
        finally:
            self.actor.hub_url = "http://127.0.0.1:1"
            await self.running.stop()
            self.running = None

    @asynccontextmanager
    async def recovery(self, http: Any = None) -> AsyncIterator[Recovery]:
        assert self.running is not None
        hub = self.running.hub
        guarded = GuardedHttp([f"127.0.0.1:{self.server.port}"])
        try:
            yield Recovery(hub.channels, hub.reader, hub.writer, hub.blobs, http or guarded, lambda _: None)
        finally:
            await guarded.close()

    async def writes(self, number: str, text: str, *, told: bool = False) -> int:
        """A person writes by SMS; each message a tenth of a second after the one before."""
        self.clock.seconds += 0.1
        return (await self.actor.sms(number, text, told=told)).status

    async def stored(self) -> list[Any]:
        """(text, conversation, sent at) of every message that came in, in the order stored."""
        assert self.running is not None
        m = T["message"].c
        return list(
            await self.running.hub.reader.all(select(m.text, m.conversation_id, m.sent_at).where(m.direction == "in").order_by(m.id))
        )

    async def count(self, table: str, *conditions: Any) -> int:
        assert self.running is not None
        return int(await self.running.hub.reader.value(select(func.count()).select_from(T[table]).where(*conditions)))

    async def watermark(self, channel: str = "sms") -> int | None:
        assert self.running is not None
        s = T["setting"].c
        value = await self.running.hub.reader.value(select(s.value).where(s.key == watermark_key(channel)))
        return None if value is None else int(value)


BOTH = pytest.mark.parametrize("world", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    path = sandbox_config(tmp_path)
    config = yaml.safe_load(path.read_text())
    if getattr(request, "param", "sqlite") == "postgresql":
        if missing := postgresql_missing():
            pytest.skip(missing)
        config["database_url"] = await asyncio.to_thread(lambda: shared().create_database())
    port = free_port()
    for name in ("sms", "whatsapp"):
        config["channels"][name]["base_url"] = f"http://127.0.0.1:{port}"
    config["allowed_hosts"] = [f"127.0.0.1:{port}"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    settings = load(path, {})
    clock = Clock()
    server = SandboxServer(port=port, smtp_port=0, secrets=sandbox_secrets(settings))
    server.state.clock = lambda: clock.seconds
    await server.start()
    built = World(settings, server, clock)
    try:
        yield built
    finally:
        await built.actor.close()
        await server.stop()


async def first_start(world: World) -> None:
    """The hub has run before: its watermarks are noted."""
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        await recovery.look("whatsapp")
        assert await world.watermark() == int(world.clock.seconds)


@BOTH
async def test_300_messages_of_an_outage_are_stored_once_and_in_order(world: World) -> None:
    await first_start(world)
    people = [ADA, BEN, CHEN]
    async with world.hub():
        for number in range(30):  # these the webhook brings
            assert await world.writes(people[number % 3], f"message {number:03}", told=True) == 200
    for number in range(30, 300):  # Twilio tries, and does not come back: the hub is away for an hour and a half
        assert await world.writes(people[number % 3], f"message {number:03}", told=number % 90 == 0) == 0
        world.clock.seconds += 20
    async with world.hub(), world.recovery() as recovery:
        found = await recovery.look("sms")
        assert found is not None
        rows = await world.stored()
        assert [row.text for row in rows] == [f"message {number:03}" for number in range(300)], "once each, and in order"
        assert (found.listed, found.stored) == (300, 270)
        assert len({row.conversation_id for row in rows}) == 3
        sent = [row.sent_at for row in rows[30:]]
        assert sent == sorted(sent), "each with the time it was written"
        assert sent[0] < sent[-1] - 80 * MINUTE * 1_000_000
        assert await world.count("ticket") == 3, "one open ticket a person, not one a message"
        again = await recovery.look("sms")
        assert again is not None
        assert again.stored == 0
        assert len(await world.stored()) == 300


async def test_a_webhook_that_comes_after_all_is_a_duplicate(world: World) -> None:
    await first_start(world)
    await world.writes(ADA, "Hello?")
    (sid,) = world.state.twilio_inbound
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        for _ in range(5):
            assert (await world.actor.sms(ADA, "Hello?", sid=sid)).status == 200
        assert [row.text for row in await world.stored()] == ["Hello?"]


async def test_a_thousand_are_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_lists, "PAGE_SIZE", 40)
    await first_start(world)
    for number in range(1_000):
        await world.writes(f"+1202555{number % 50:04}", f"message {number:04}")
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == [f"message {number:04}" for number in range(1_000)]
        assert await world.count("customer") == 50


async def test_what_came_before_the_hub_is_none_of_its_business(world: World) -> None:
    for number in range(3):
        await world.writes(ADA, f"old {number}")
    world.clock.seconds += 5 * DAY
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        await world.writes(ADA, "new")
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == ["new"]


@BOTH
async def test_a_hub_from_before_watermarks_begins_at_its_last_message(world: World) -> None:
    async with world.hub() as running:
        await world.writes(ADA, "by webhook", told=True)
        # As such a hub left it: messages, and no watermark.
        await running.hub.writer.run(Forget("sms"))
    await world.writes(ADA, "during the upgrade")
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == ["by webhook", "during the upgrade"]


class Forget:
    def __init__(self, channel: str) -> None:
        self.channel = channel

    def needs(self, needs: Any) -> None: ...

    def decide(self, facts: Any) -> None:
        facts.remove("setting", "key", watermark_key(self.channel))


async def test_longer_away_than_the_limit_asks_for_the_rest_by_hand(world: World) -> None:
    await first_start(world)
    first = int(world.clock.seconds)
    await world.writes(ADA, "too long ago")
    world.clock.seconds += LOOK_BACK + HOUR
    await world.writes(ADA, "yesterday, so to say")
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == ["yesterday, so to say"]
        by_hand = await recovery.recover("sms", first, int(world.clock.seconds))
        assert by_hand is not None
        assert by_hand.stored == 1
        assert sorted(row.text for row in await world.stored()) == ["too long ago", "yesterday, so to say"]


async def test_a_picture_comes_with_its_message(world: World) -> None:
    await first_start(world)
    await world.actor.whatsapp(ADA, "Broken!", "Ada", media=parcel_photo(), told=False)
    async with world.hub(), world.recovery() as recovery:
        await recovery.look("whatsapp")
        a = T["attachment"].c
        assert world.running is not None
        (file,) = await world.running.hub.reader.all(select(a.name, a.content_type, a.source_url))
        assert (file.name, file.content_type) == ("image-1.png", "image/png")
        assert file.source_url.startswith(world.server.url)
        assert await world.count("delivery", T["delivery"].c.kind == "media") == 1


async def test_the_watermark_moves_only_when_every_page_is_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_lists, "PAGE_SIZE", 10)
    monkeypatch.setattr(twilio_lists, "KEPT_PAGES", 1)
    await first_start(world)
    before = int(world.clock.seconds)
    for number in range(60):
        await world.writes(ADA, f"message {number:02}")
    async with world.hub(), world.recovery() as recovery:
        guarded = GuardedHttp([f"127.0.0.1:{world.server.port}"])
        async with world.recovery(Breaks(guarded, after=8)) as breaking:
            with pytest.raises(TryLater):
                await breaking.look("sms")
        assert 0 < len(await world.stored()) < 60, "what was read is kept"
        assert await world.watermark() == before
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == [f"message {number:02}" for number in range(60)]
        assert await world.watermark() == int(world.clock.seconds)
        await guarded.close()


class Breaks:
    """The real client, until it has answered so often."""

    def __init__(self, http: GuardedHttp, after: int) -> None:
        self.http = http
        self.left = after

    async def request(self, method: str, url: str, **how: Any) -> HttpResponse:
        self.left -= 1
        if self.left < 0:
            raise NotSent("the network is gone")
        return await self.http.request(method, url, **how)


async def test_one_that_cannot_be_stored_keeps_no_other_and_waits_in_quarantine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await first_start(world)
    for text in ("one", "poison", "three"):
        await world.writes(ADA, text)
    real = room.prepare

    async def prepare(said: Any, *rest: Any) -> Any:
        if isinstance(said, InboundMessage) and said.text == "poison":
            raise LookupError("a mistake of ours")
        return await real(said, *rest)

    async with world.hub() as running, world.recovery() as recovery:
        monkeypatch.setattr(room, "prepare", prepare)
        for _ in range(2):
            await recovery.look("sms")
        assert [row.text for row in await world.stored()] == ["one", "three"]
        q = T["quarantine"].c
        (kept,) = await running.hub.reader.all(select(q.id, q.kind, q.reason))
        assert (kept.kind, "Our own code failed (LookupError)" in kept.reason) == ("unparseable", True)
        monkeypatch.undo()
        assert "the message is in its conversation" in await webhooks.replay(running.hub, kept.id)
        assert [row.text for row in await world.stored()] == ["one", "three", "poison"]


async def test_a_database_that_is_busy_moves_no_watermark(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await first_start(world)
    await world.writes(ADA, "Hello?")

    async def busy(*_: Any) -> Any:
        raise StorageBusy("The database is behind.")

    async with world.hub(), world.recovery() as recovery:
        with monkeypatch.context() as during:
            during.setattr(room, "prepare", busy)
            with pytest.raises(StorageBusy):
                await recovery.look("sms")
        await recovery.look("sms")
        assert [row.text for row in await world.stored()] == ["Hello?"]


@BOTH
async def test_two_processes_take_turns_and_one_that_died_does_not_hold_the_others_up(world: World) -> None:
    await first_start(world)
    await world.writes(ADA, "Hello?")
    async with world.hub() as running, world.recovery() as recovery:
        assert await running.hub.writer.run(TakeTurn("recovery.sms", "somebody else", 60))
        assert await recovery.look("sms") is None
        world.clock.seconds += 61
        assert await recovery.look("sms") is not None
        assert [row.text for row in await world.stored()] == ["Hello?"]


async def test_what_another_process_has_just_looked_at_is_left_for_now(world: World) -> None:
    await first_start(world)
    await world.writes(ADA, "Hello?")
    async with world.hub(), world.recovery() as recovery:
        assert await recovery.look("sms", fresh=270) is None
        world.clock.seconds += 270
        assert await recovery.look("sms", fresh=270) is not None
        assert await recovery.look("sms", fresh=270) is None
        assert await recovery.look("sms") is not None, "at start it is looked in any case"


@pytest.mark.parametrize("world", ["postgresql"], indirect=True)
async def test_two_hubs_at_the_same_time_store_everything_once(world: World) -> None:
    await first_start(world)
    for number in range(200):
        await world.writes((ADA, BEN)[number % 2], f"message {number:03}")
    other = Running(world.settings, world.clock, serving=False)
    async with world.hub(), world.recovery() as one:
        await other.start()
        guarded = GuardedHttp([f"127.0.0.1:{world.server.port}"])
        hub = other.hub
        second = Recovery(hub.channels, hub.reader, hub.writer, hub.blobs, guarded, lambda _: None)
        second._token = one._token  # both believe that it is their turn
        since, until = START - HOUR, int(world.clock.seconds)
        found = await asyncio.gather(one.recover("sms", since, until), second.recover("sms", since, until))
        await guarded.close()
        await other.stop()
        assert sum(each.stored for each in found if each) == 200
        rows = await world.stored()
        assert sorted(row.text for row in rows) == [f"message {number:03}" for number in range(200)]
        assert await world.count("customer") == 2


@BOTH
async def test_two_at_the_same_time_store_everything_once(world: World) -> None:
    await first_start(world)
    for number in range(50):
        await world.writes(ADA, f"message {number:02}")
    async with world.hub(), world.recovery() as one, world.recovery() as other:
        since, until = START - HOUR, int(world.clock.seconds)
        one._token = other._token  # both believe that it is their turn
        await asyncio.gather(one.recover("sms", since, until), other.recover("sms", since, until))
        assert [row.text for row in await world.stored()] == [f"message {number:02}" for number in range(50)]


async def test_a_started_recovery_looks_by_itself_and_tries_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(room, "EVERY", 0.05)
    monkeypatch.setattr(room, "LONGEST_RETRY", 0.05)
    monkeypatch.setattr(room, "ANOTHERS", 0.04)
    await first_start(world)
    await world.writes(ADA, "Hello?")
    world.state.fail_next("twilio_list", status=503, times=3)
    looked = asyncio.Event()
    look = Recovery.look

    async def and_tell(self: Recovery, name: str, fresh: float = 0) -> Any:
        world.clock.seconds += 1
        try:
            return await look(self, name, fresh)
        finally:
            looked.set()

    monkeypatch.setattr(Recovery, "look", and_tell)

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(await world.stored()) < count:
                await looked.wait()
                looked.clear()

    async with world.hub(), world.recovery() as recovery:
        await recovery.start()
        await until(1)
        assert world.state.take_failure("twilio_list") is None, "it went on after each failure"
        await world.writes(ADA, "Still there?")
        await until(2)
        await recovery.stop()
        assert [row.text for row in await world.stored()] == ["Hello?", "Still there?"]


async def test_a_channel_whose_provider_repeats_by_itself_says_so(world: World) -> None:
    async with world.hub(), world.recovery() as recovery:
        with pytest.raises(Refused, match="no provider that lists"):
            await recovery.recover("email", 0, 1)
        with pytest.raises(Refused, match="There is no channel telex"):
            await recovery.recover("telex", 0, 1)


async def test_a_note_is_written_over(world: World) -> None:
    async with world.hub() as running:
        for until in (5, 9, 7):
            await running.hub.writer.run(NoteRecovered("x", until))
            assert await world.watermark("x") == until
