"""`/tools/{name}/hooks` on a running hub whose Klaviyo is the sandbox's: what is genuine is noted once, what is not leaves no trace."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from sqlalchemy import func, select

from connectors.sandbox.klaviyo_account import KlaviyoAccount
from connectors.sandbox.people import PEOPLE
from hub.app import Running
from hub.holds.sends import NoteSends, recognise
from hub.marketing import SendSeen
from hub.storage.tables import metadata
from tests.test_story_marketing import Story, settings  # noqa: F401 (a fixture)

ADA, BEN, CHEN = PEOPLE
_event = metadata.tables["event"].c


@pytest.fixture
async def story(settings: Any) -> AsyncIterator[Story]:  # noqa: F811
    one = Story(settings)
    await one.start()
    yield one
    await one.running.stop()


SECRET = "sandbox-only-klaviyo-webhook-secret"


def signed(body: bytes) -> dict[str, str]:
    """The headers of a genuine webhook with a body of our own."""
    stamp = formatdate(time.time(), usegmt=True)
    signature = hmac.new(SECRET.encode(), body + stamp.encode(), hashlib.sha256).hexdigest()
    return {"klaviyo-signature": signature, "klaviyo-timestamp": stamp}


def told(account: KlaviyoAccount, *events: Any, secret: str = "", **more: Any) -> tuple[dict[str, str], bytes]:
    """A webhook of Klaviyo's about events, signed as the hub expects or with another secret."""
    return account.webhook(events, secret or SECRET, **more)


async def post(running: Running, headers: dict[str, str], body: bytes, tool: str = "klaviyo", method: str = "POST") -> int:
    url = f"http://127.0.0.1:{running.port}/tools/{tool}/hooks"
    async with aiohttp.ClientSession() as http, http.request(method, url, data=body or None, headers=headers) as answer:
        await answer.read()
        return answer.status


async def noted(running: Running) -> list[Any]:
    return list(await running.hub.reader.all(select(metadata.tables["send_seen"]).order_by(metadata.tables["send_seen"].c.id)))


async def test_a_genuine_send_is_noted_once_however_often_it_is_told(story: Story) -> None:
    running, account = story.running, story.klaviyo
    event = account.record(account.profiles[1])
    for body_only in (False, False, True):
        assert await post(running, *told(account, event, body_only=body_only)) == 200
    [row] = await noted(running)
    assert (row.destination, row.provider_key, row.profile, row.channel) == ("klaviyo", event["id"], account.profiles[1].id, "email")
    assert (row.leak, row.customer_id) == (False, None), "nobody support knows"


FORGED: dict[str, Any] = {
    "another secret": lambda account, event: told(account, event, secret="another-secret-of-16"),
    "another body": lambda account, event: (told(account, event)[0], told(account, event)[1] + b" "),
    "no signature": lambda account, event: ({"content-type": "application/json"}, told(account, event)[1]),
    "an old one": lambda account, event: told(account, event),
}


@pytest.mark.parametrize("how", FORGED)
async def test_what_is_not_genuine_is_refused_and_leaves_no_trace(story: Story, how: str) -> None:
    running, account = story.running, story.klaviyo
    event = account.record(account.profiles[0])
    account.events.clear()  # what is asked for is not what is told
    if how == "an old one":
        story.state.clock = lambda: time.time() - 55 * 3600
    headers, body = FORGED[how](account, event)
    story.state.clock = time.time
    before = await running.hub.reader.value(select(func.count()).select_from(metadata.tables["event"]))
    assert await post(running, headers, body) == 401
    assert await noted(running) == []
    assert await running.hub.reader.value(select(func.count()).select_from(metadata.tables["event"])) == before


async def test_what_cannot_be_read_is_answered_as_done_and_noted_nowhere(story: Story) -> None:
    for body in (b"not json", b"[]", b'{"data": 5}', b'{"data": [{"topic": "event:klaviyo.received_email"}]}'):
        assert await post(story.running, signed(body), body) == 200
    assert await noted(story.running) == []


async def test_the_address_is_there_for_whoever_looks_and_no_other_is(story: Story) -> None:
    for method in ("GET", "HEAD"):
        assert await post(story.running, {}, b"", method=method) == 200
        for unknown in ("hubspot", "marketing"):
            assert await post(story.running, {}, b"", unknown, method) == 404
    for unknown in ("hubspot", "marketing"):  # one that is not configured, and one that tells nothing
        assert await post(story.running, *told(story.klaviyo), tool=unknown) == 404


async def test_a_send_to_somebody_held_is_a_leak_with_its_cause_in_their_timeline(story: Story) -> None:
    await story.sandbox.whatsapp(ADA.phone, "Where is my parcel?", ADA.name)
    await story.confirmed(True)
    account = story.klaviyo
    story.ahead += 2  # Klaviyo's times are whole seconds
    event = account.record(account.profiles[0], "Received SMS")
    account.events.clear()
    assert await post(story.running, *told(account, event, account.record(account.profiles[1]))) == 200
    [mine] = [row for row in await noted(story.running) if row.customer_id == 1]
    assert (mine.leak, mine.cause, mine.kind, mine.value) == (True, "unexplained", "phone", ADA.phone)
    [said] = await story.events("send.seen")
    assert (said["leak"], said["cause"], said["destination"]) == (True, "unexplained", "klaviyo")
    rows = await story.running.hub.reader.all(select(_event.customer_id).where(_event.type == "send.seen"))
    assert [row.customer_id for row in rows] == [1]


async def test_an_event_that_names_nobody_is_nobodys(story: Story) -> None:
    """A mark of somebody the tool does not know bears no profile either: nothing of theirs is meant."""
    story.klaviyo.profiles.clear()
    await story.sandbox.whatsapp(ADA.phone, "Where is my parcel?", ADA.name)
    mark = metadata.tables["mark"].c
    hub = story.running.hub

    async def absent() -> Any:
        return await hub.reader.first(select(mark.id).where(mark.state == "absent", mark.profile == ""))

    async with asyncio.timeout(10):
        while not await absent():  # no event tells of it
            pass
    sends = [SendSeen(provider_key="n1", at=time.time()), SendSeen(provider_key="n2", at=time.time(), kind="email", value="nonsense")]
    known = await recognise("klaviyo", sends, hub.reader)
    assert [one.customer_id for one in known] == [None, None]
    assert await hub.writer.run(NoteSends("klaviyo", tuple(known))) == 1, "of the second, at least the word is kept"
    assert [row.provider_key for row in await noted(story.running)] == ["n2"]
    # As a webhook tells it: without a profile there is nobody to look for.
    account = story.klaviyo
    body = {"data": [{"topic": "event:klaviyo.received_email", "external_id": "n3", "payload": {"data": {"attributes": {"timestamp": 1}}}}]}
    raw = json.dumps(body).encode()
    assert await post(story.running, signed(raw), raw) == 200
    assert len(await noted(story.running)) == 1
    assert account.writes == []
