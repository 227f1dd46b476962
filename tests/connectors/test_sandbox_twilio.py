"""The stand-in for Twilio against Twilio's own SDK: its list, its way of calling webhooks, and how it loses answers when told to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from twilio.rest import Client

from connectors.sandbox import SandboxActor, SandboxServer
from connectors.sandbox.actor import Addresses
from connectors.sandbox.twilio import parcel_photo
from connectors.shared.twilio import RETRIES
from tests.connectors.test_sandbox import ADA, BEN, PUBLIC, Listening, hub, server, twilio

__all__ = ["hub", "server", "twilio"]  # fixtures

SMS = "+15550100002"
AWAY = "http://127.0.0.1:1"


async def test_the_official_sdk_pages_through_what_came_and_went(server: SandboxServer, twilio: Client) -> None:
    clock = 1_800_000_000.0
    server.state.clock = lambda: clock
    actor = SandboxActor(server, hub_url=AWAY, public_url=PUBLIC)
    for number in range(25):
        clock += 60
        await actor.sms(ADA.phone, f"in {number}", told=False)
    clock += 60
    sent = await twilio.messages.create_async(to=ADA.phone, from_=SMS, body="out")
    everything = await twilio.messages.list_async(page_size=7)
    assert [one.body for one in everything] == ["out", *(f"in {number}" for number in reversed(range(25)))]
    assert {one.direction for one in everything[1:]} == {"inbound"}
    assert (everything[0].sid, everything[0].direction, everything[0].date_sent) == (sent.sid, "outbound-api", None)
    came = await twilio.messages.list_async(to=SMS, page_size=7)
    assert len(came) == 25
    assert [one.body for one in await twilio.messages.list_async(to=SMS, from_=BEN.phone)] == []
    middle = datetime.fromtimestamp(1_800_000_000 + 60 * 20, UTC)
    after = await twilio.messages.list_async(to=SMS, date_sent_after=middle, page_size=2)
    before = await twilio.messages.list_async(to=SMS, date_sent_before=middle, page_size=2)
    assert [one.body for one in after] == [f"in {number}" for number in reversed(range(19, 25))], "that very second included"
    assert [one.body for one in before] == [f"in {number}" for number in reversed(range(20))]
    assert await twilio.messages.list_async(date_sent=datetime(2000, 1, 1, tzinfo=UTC)) == []
    assert len(await twilio.messages.list_async(date_sent=middle.date())) == 25, "what waits in the queue has no date"


async def test_the_official_sdk_lists_a_messages_files(server: SandboxServer, twilio: Client) -> None:
    actor = SandboxActor(server, hub_url=AWAY, public_url=PUBLIC)
    await actor.whatsapp(ADA.phone, "", "Ada", media=parcel_photo(), told=False)
    await actor.sms(ADA.phone, "none", told=False)
    with_file, without = server.state.twilio_inbound.values()
    (file,) = await twilio.messages(with_file.sid).media.list_async()
    assert (file.content_type, file.parent_sid, file.sid) == ("image/png", with_file.sid, with_file.media[0])
    assert (await twilio.messages(with_file.sid).fetch_async()).num_media == "1"
    assert await twilio.messages(without.sid).media.list_async() == []


# overrides behind the webhook's address, what the hub answers -> how often it is called
CALLS = {
    "good": ("", 200, 1),
    "left at one failure": ("", 503, 1),
    "and at one refusal": ("", 403, 1),
    "asked for more": (RETRIES, 503, 6),
    "after a refusal too": (RETRIES, 403, 6),
    "but not after success": (RETRIES, 200, 1),
    "only what was asked for": ("#rc=3&rp=5xx", 403, 1),
    "so often as was asked for": ("#rc=3&rp=5xx", 500, 4),
    "never more than five times": ("#rc=9&rp=all", 500, 6),
}


@pytest.mark.parametrize(("overrides", "status", "calls"), CALLS.values(), ids=CALLS)
async def test_a_webhook_is_tried_as_twilio_tries_it(hub: Listening, overrides: str, status: int, calls: int) -> None:
    listening, actor = hub
    actor.addresses = Addresses(sms_path="/in/sms" + overrides)
    listening.answers["/in/sms"] = web.Response(status=status)
    assert (await actor.sms(ADA.phone, "Hello")).status == status
    assert [heard.path for heard in listening.heard] == ["/in/sms"] * calls
    assert len({heard.body for heard in listening.heard}) == 1, "the same message each time"
    assert len(actor.state.twilio_inbound) == 1


async def test_where_nobody_listens_it_is_tried_once_more(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = SandboxActor._twilio_attempt

    async def counted(self: SandboxActor, url: str, fields: Any) -> Any:
        tried.append(url)
        return await real(self, url, fields)

    monkeypatch.setattr(SandboxActor, "_twilio_attempt", counted)
    for overrides, calls in (("", 2), (RETRIES, 6), ("#rc=0", 1)):
        tried.clear()
        actor = SandboxActor(server, hub_url=AWAY, public_url=PUBLIC, addresses=Addresses(sms_path="/in/sms" + overrides))
        assert (await actor.sms(ADA.phone, "Anyone?")).status == 0
        await actor.close()
        assert tried == [PUBLIC + "/in/sms"] * calls


async def test_what_was_not_told_is_in_the_list_only(hub: Listening) -> None:
    listening, actor = hub
    assert (await actor.sms(ADA.phone, "Hello", told=False)).status == 0
    assert listening.heard == []
    assert [one.body for one in actor.state.twilio_inbound.values()] == ["Hello"]


@pytest.mark.parametrize("how", [{"status": "drop"}, {"status": 500, "carried_out": True}], ids=["no answer", "an error"])
async def test_a_message_can_be_taken_and_the_answer_lost(server: SandboxServer, twilio: Client, how: dict[str, Any]) -> None:
    server.state.fail_next("twilio", **how)
    with pytest.raises(Exception):  # noqa: B017  (the SDK's own, or the client's)
        await twilio.messages.create_async(to=ADA.phone, from_=SMS, body="Hello")
    await twilio.messages.create_async(to=ADA.phone, from_=SMS, body="Hello")
    await twilio.messages.create_async(to=BEN.phone, from_=SMS, body="Hello")
    assert server.state.twilio_sent() == {(ADA.phone, "Hello"): 2, (BEN.phone, "Hello"): 1}
