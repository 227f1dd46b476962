"""Marketing holds in a real tool's shape: the shipped sandbox with its Klaviyo account, from the first message to a second open ticket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from connectors.klaviyo import Klaviyo
from connectors.sandbox.klaviyo_account import KlaviyoAccount
from connectors.sandbox.people import PEOPLE
from hub.app import Running
from hub.config import Settings
from hub.conversations.commands import Resolve
from hub.customers.merging import Merge
from hub.holds.ledger import iso
from hub.storage.tables import metadata
from hub.storage.writer import wall_clock
from tests.conftest import configured
from tests.storage import ENGINES

ADA, BEN, CHEN = PEOPLE
_event, _mark = metadata.tables["event"].c, metadata.tables["mark"].c


@pytest.fixture(params=ENGINES)
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    with configured(tmp_path, request.param) as built:
        yield built


class Story:
    """The running hub beside its sandbox, and a clock for both that can be moved on."""

    def __init__(self, settings: Settings) -> None:
        self.ahead = 0.0
        self.running = Running(settings, lambda: wall_clock() + int(self.ahead * 1_000_000))

    async def start(self) -> None:
        await self.running.start()
        self.sandbox = self.running.sandbox
        self.state = self.sandbox.state
        self.state.clock = lambda: time.time() + self.ahead
        self.klaviyo: KlaviyoAccount = self.sandbox.server.klaviyo

    def shown(self, name: str = ADA.name) -> dict[str, Any]:
        """A profile as the sandbox page shows it."""
        found: dict[str, Any] = next(one for one in self.klaviyo.snapshot()["profiles"] if one["name"] == name)
        return found

    async def until(self, condition: Callable[[], Any]) -> Any:
        """What a coroutine function answers once that is true; asked again after each event of the hub."""
        stream = self.running.hub.feed.subscribe()
        async with asyncio.timeout(20):
            if not (found := await condition()):
                async for _ in stream.batches():
                    if found := await condition():
                        break
        return found

    async def confirmed(self, held: bool) -> None:
        """The hub told Klaviyo, read it back ten seconds later, and the segment shows the same."""

        async def every(state: str) -> bool:
            rows = await self.running.hub.reader.all(select(_mark.state, _mark.held).where(_mark.state != "absent"))
            return bool(rows) and all(row.state == state and row.held == held for row in rows)

        async def in_time() -> bool:
            if not await every("effective"):
                self.ahead += Klaviyo.settles + 1
                await self.running._reading_back.look()
            return await every("effective")

        await self.until(in_time)

    async def rows(self, table: str) -> list[Any]:
        return list(await self.running.hub.reader.all(select(metadata.tables[table])))

    async def events(self, type_: str) -> list[dict[str, Any]]:
        rows = await self.running.hub.reader.all(select(_event.data).where(_event.type == type_).order_by(_event.seq))
        return [json.loads(row.data) for row in rows]

    async def act(self, what: str) -> dict[str, Any]:
        """What the button of the sandbox page does."""
        url = f"http://127.0.0.1:{self.running.port}/sandbox/act/{what}"
        async with aiohttp.ClientSession() as http, http.post(url, json={}) as answer:
            found: dict[str, Any] = await answer.json()
            return found


@pytest.fixture
async def story(settings: Settings) -> AsyncIterator[Story]:
    one = Story(settings)
    await one.start()
    yield one
    await one.running.stop()


async def test_the_sandbox_account_is_prepared_as_the_connector_prepares_one(story: Story) -> None:
    hub = story.running.hub
    tool = hub.tools.get("klaviyo")
    checks = [*await tool.test(hub.http, time.time()), *await tool.prepare(hub.http, time.time())]
    assert [one.text for one in checks if not one.ok] == []
    assert len(story.klaviyo.segments) == 1, "the segment is found, not made again"
    made = Klaviyo(Klaviyo.Settings.model_validate({"type": "klaviyo", "api_key": "wrong", "base_url": story.klaviyo.url}), "x")
    assert not (await made.test(hub.http, time.time()))[0].ok, "another key opens nothing"


async def test_a_question_holds_the_profile_until_it_is_resolved_and_what_klaviyo_had_fixed_is_told_before_it_goes(story: Story) -> None:
    hub, watch = story.running.hub, story.running._watch
    assert story.shown()["held"] is None
    await watch.look_at_campaigns()

    # She asks; every profile of hers is held, which is read back, and the segment shows it.
    assert (await story.sandbox.whatsapp(ADA.phone, "Where is my parcel?", ADA.name)).status == 200
    await story.confirmed(True)
    held = story.shown()
    assert (held["held"], held["status"], held["in_segment"]) == (True, "open", True)
    assert held["until"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert held["read_back"] is not None
    assert [story.shown(one.name)["held"] for one in (BEN, CHEN)] == [None, None]

    # One campaign leaves her out by itself. The other fixed its recipients before: told before it is sent, with what mends it.
    await watch.look_at_campaigns()
    await watch.look_for_alarms()
    seen = {row.name: (json.loads(row.endangered), row.risk) for row in await story.rows("campaign_seen")}
    assert seen == {"Winter sale": ([], ""), "Winter sale by SMS": ([1], "frozen")}
    [alarm] = await story.rows("alarm")
    assert alarm.title == "“Winter sale by SMS” (Klaviyo) would reach 1 held customer"
    assert "Put it back to draft" in alarm.text
    await story.state.wait_for(lambda: any("Winter sale by SMS" in json.dumps(post.blocks) + post.text for post in story.state.slack_posts))

    # Sent all the same: the first passes her over, the second reaches her, and the hub hears of it.
    assert await story.act("planned") == {"status": 200}
    got = {one["name"]: {line["name"]: line["sent"] for line in one["lines"]} for one in story.klaviyo.sent}
    everybody = {one.name: True for one in PEOPLE}
    assert got == {"Winter sale": everybody | {ADA.name: False}, "Winter sale by SMS": everybody}
    assert [line["name"] for one in story.klaviyo.sent for line in one["lines"] if line["leak"]] == [ADA.name]
    [leak] = await story.until(lambda: story.events("send.seen"))
    assert (leak["campaign"], leak["leak"], leak["cause"], leak["value"]) == ("Winter sale by SMS", True, "frozen_list", ADA.phone)
    assert len(await story.rows("send_seen")) == 5
    await watch.look_at_sends()
    assert len(await story.rows("send_seen")) == 5, "asked for what a webhook told, it is noted once"

    # Resolved: cleared, read back, and marketing learns how it went.
    await hub.writer.run(Resolve(1, 1))
    await story.confirmed(False)
    free = story.shown()
    assert (free["held"], free["until"], free["status"], free["in_segment"]) == (False, None, "resolved", False)
    [ticket] = await story.rows("ticket")
    assert free["resolved_at"] == iso(ticket.resolved_at)
    await story.act("planned")
    mailed = next(one for one in story.klaviyo.sent if one["name"] == "Winter sale 2")
    assert all(line["sent"] for line in mailed["lines"]), "she gets the next one"

    # She writes again: the ticket reopens, and she is held again.
    await story.sandbox.whatsapp(ADA.phone, "It still is not here", ADA.name)
    await story.confirmed(True)
    assert (story.shown()["status"], story.shown()["resolved_at"]) == ("open", None)

    # A second ticket of hers, by mail, is another reason: one resolved, she stays held; both, and she is free.
    before = len(story.klaviyo.writes)
    await story.sandbox.mail(ADA.email, ADA.name, "Refund", "And my refund?")
    merged = await hub.writer.run(Merge(1, 2, "agent:1", 1, "the same person"))
    assert merged.customer_id == 1
    ada = story.klaviyo.profiles[0]
    await story.state.wait_for(lambda: ada.attributes["support_open_tickets"] == 2)
    await hub.writer.run(Resolve(1, 1))
    await story.state.wait_for(lambda: ada.attributes["support_open_tickets"] == 1)
    await story.confirmed(True)
    assert (story.shown()["held"], story.shown()["status"]) == (True, "open")
    assert all(write["attributes"]["support_hold"] for write in story.klaviyo.writes[before:]), "not free even for a moment"
    await hub.writer.run(Resolve(2, 1))
    await story.confirmed(False)
    assert (story.shown()["held"], story.shown()["status"]) == (False, "resolved")


async def test_nothing_of_it_touched_consent(story: Story) -> None:
    await story.sandbox.whatsapp(ADA.phone, "Where is my parcel?", ADA.name)
    await story.confirmed(True)
    await story.running.hub.writer.run(Resolve(1, 1))
    await story.confirmed(False)
    assert {tuple(one.consent.values()) for one in story.klaviyo.profiles} == {("subscribed", "subscribed")}
    assert not [path for _, path in story.klaviyo.calls if "subscription" in path or "suppression" in path]
