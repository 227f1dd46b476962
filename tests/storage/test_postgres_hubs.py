"""Two whole hubs on one PostgreSQL database: any of them takes any webhook, page and answer, and either may stop or start meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from connectors.sandbox.actor import SandboxActor
from connectors.sandbox.server import SandboxServer
from hub.app import Running, sandbox_secrets, sandbox_token
from hub.config import Settings
from hub.conversations.commands import Reply, Resolve
from hub.storage.tables import metadata
from tests.conftest import configured, free_port
from tests.storage.several import PATIENCE, needs_postgres

pytestmark = needs_postgres

ADA, BEN = "+12025550123", "+12025550188"
message = metadata.tables["message"].c
delivery = metadata.tables["delivery"].c


def beside(settings: Settings) -> Settings:
    """The same hub once more, on another port."""
    server = settings.server.model_copy(update={"port": free_port()})
    return settings.model_copy(update={"server": server})


@pytest.fixture
def without_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of hubs whose providers stand apart from them."""
    monkeypatch.setattr("hub.app.sandbox_faults", lambda settings, built: [])  # they point at loopback, and that is meant here
    with configured(tmp_path, "postgresql") as built:
        sandbox = built.sandbox.model_copy(update={"enabled": False})
        hosts = [f"{host}:{built.sandbox.port}" for host in ("127.0.0.1", "localhost")]
        yield built.model_copy(update={"sandbox": sandbox, "allowed_hosts": [*built.allowed_hosts, *hosts]})


@pytest.fixture
async def outside(without_sandbox: Settings) -> AsyncIterator[SandboxActor]:
    """The providers, and the people behind them."""
    sandbox = without_sandbox.sandbox
    server = SandboxServer(port=sandbox.port, smtp_port=sandbox.smtp_port, secrets=sandbox_secrets(without_sandbox))
    actor = SandboxActor(server, hub_url="", public_url=without_sandbox.server.public_url)
    await server.start()
    yield actor
    await actor.close()
    await server.stop()


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Running]:
    hub = Running(settings)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def towards(actor: SandboxActor, hub: Running) -> None:
    actor.hub_url = f"http://127.0.0.1:{hub.port}"


async def owed(hub: Running) -> int:
    return int(await hub.hub.reader.value(select(func.count()).where(delivery.state.in_(["queued", "sending"]))))


async def settled(*hubs: Running) -> None:
    """Until nothing is owed any more."""
    async with asyncio.timeout(PATIENCE):
        while await owed(hubs[0]):
            pass


async def heard(stream: Any, wanted: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        async for batch in stream.batches():
            for event in batch or ():
                if event.type == wanted:
                    return event
    raise AssertionError("the stream ended")


async def test_what_one_hub_takes_the_other_one_shows_and_an_answer_leaves_once(without_sandbox: Settings, outside: SandboxActor) -> None:
    async with started(without_sandbox) as one, started(beside(without_sandbox)) as two:
        towards(outside, one)
        stream = two.hub.feed.subscribe()
        assert (await outside.sms(ADA, "Where is my parcel?")).status == 200
        event = await heard(stream, "message.received")
        assert await two.hub.reader.value(select(message.text).where(message.id == event.message_id)) == "Where is my parcel?"
        back = one.hub.feed.subscribe()
        await asyncio.gather(*(two.hub.writer.run(Reply(event.ticket_id, 1, f"Answer {n}.", f"d{n}")) for n in range(5)))
        assert (await heard(back, "message.queued")).ticket_id == event.ticket_id
        await settled(one, two)
        sent = await outside.state.wait_for(lambda: outside.state.twilio_messages[4:] and outside.state.twilio_messages)
        assert sorted(one.body for one in sent) == [f"Answer {n}." for n in range(5)], "each of them once"
        stored = [row.text for row in await one.hub.reader.all(select(message.text).where(message.direction == "out").order_by(message.id))]
        assert [one.body for one in sent] == stored, "in the order they were written"
        # The same delivery again, at the other door.
        towards(outside, two)
        sid = "SM" + "5" * 32
        assert [(await outside.sms(ADA, "Hello?", sid=sid)).status for _ in range(2)] == [200, 200]
        towards(outside, one)
        assert (await outside.sms(ADA, "Hello?", sid=sid)).status == 200
        assert await one.hub.reader.value(select(func.count()).where(message.text == "Hello?")) == 1


async def test_either_hub_may_stop_and_start_without_disturbing_the_other(without_sandbox: Settings, outside: SandboxActor) -> None:
    async with started(without_sandbox) as one:
        two = Running(beside(without_sandbox))
        await two.start()
        towards(outside, two)
        assert (await outside.sms(ADA, "to two")).status == 200
        epochs = {one.hub.feed.last_id.partition("-")[0], two.hub.feed.last_id.partition("-")[0]}
        assert len(epochs) == 1, "an event has one id, whoever shows it"
        ticket = await one.hub.reader.value(select(message.ticket_id))
        await one.hub.writer.run(Reply(ticket, 1, "On its way.", "d1"))
        await two.stop()
        await settled(one)
        towards(outside, one)
        assert (await outside.sms(BEN, "to one")).status == 200
        await one.hub.writer.run(Resolve(ticket, 1))
        # A newcomer takes nobody's leases and sees everything.
        async with started(beside(without_sandbox)) as three:
            assert await three.hub.reader.value(select(func.count()).select_from(metadata.tables["message"])) == 3
            towards(outside, three)
            assert (await outside.sms(BEN, "to three")).status == 200
            await settled(one, three)
        assert (await one.hub.reader.value(select(func.count()).where(delivery.state == "unknown"))) == 0
        assert [sent.body for sent in outside.state.twilio_messages] == ["On its way."]


async def test_while_the_database_is_down_pages_and_webhooks_say_so_and_afterwards_go_on(
    without_sandbox: Settings, outside: SandboxActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from outside: 503 in plain words, no traceback, nothing to restart."""
    from tests.postgres import Cluster
    from tests.storage import _migrated

    monkeypatch.setattr("hub.storage.postgres_follower.random.uniform", lambda low, high: 0.05)
    with Cluster() as cluster:
        url = await asyncio.to_thread(cluster.create_database, _migrated)
        settings = without_sandbox.model_copy(update={"database_url": SecretStr(url)})
        async with started(settings) as hub, aiohttp.ClientSession(f"http://127.0.0.1:{hub.port}") as http:
            towards(outside, hub)
            assert (await outside.sms(ADA, "before")).status == 200
            await settled(hub)
            async with http.get("/login") as answer:
                assert answer.status == 200
            await asyncio.to_thread(cluster.stop, "immediate")
            for path in ("/login", "/inbox/open"):
                async with http.get(path, cookies={"hub_session": "x" * 43}, allow_redirects=False) as answer:
                    text = await answer.text()
                    assert answer.status in (200, 302, 303, 503), text
                    assert "Traceback" not in text
            bearer = {"Authorization": f"Bearer {sandbox_token(hub.hub.secret)}"}
            async with http.get("/api/v1/holds/check?phone=%2B12025550123", headers=bearer) as answer:
                assert answer.status == 503
                assert answer.content_type == "application/problem+json"
                assert answer.headers["Retry-After"] == "2"
            assert (await outside.sms(ADA, "meanwhile")).status == 503
            await asyncio.to_thread(cluster.start)
            async with http.get("/login") as answer:
                assert answer.status == 200
            async with asyncio.timeout(PATIENCE):
                while (await outside.sms(ADA, "afterwards")).status != 200:
                    pass
            stream = hub.hub.feed.subscribe()
            assert (await outside.sms(BEN, "shown")).status == 200
            assert (await heard(stream, "message.received")).message_id is not None
            assert not hub.died.done()
