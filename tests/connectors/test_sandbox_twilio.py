"""The stand-in for Twilio against Twilio's own SDK: its list, its way of calling webhooks, and how it loses answers when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openapi_core.testing import MockRequest, MockResponse
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

from connectors.sandbox import SandboxActor, SandboxServer
from connectors.sandbox.actor import Addresses
from connectors.sandbox.twilio import parcel_photo
from connectors.shared.twilio import RETRIES
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.contract import OutboundMessage, Place, Refused, TemplateUse
from tests.connectors.test_sandbox import ADA, BEN, PUBLIC, Listening, hub, server, twilio
from tests.connectors.test_twilio_outbound import Direct
from tests.connectors.test_twilio_templates import description as content_description

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


# --- Templates and typing ---


def connector(server: SandboxServer) -> TwilioWhatsApp:
    secrets = server.secrets
    settings = TwilioWhatsApp.Settings(
        type="twilio_whatsapp",
        address="+15550100001",
        account_sid=secrets.twilio_account_sid,  # type: ignore[call-arg]
        auth_token=secrets.twilio_auth_token,
        base_url=server.url,
    )
    return TwilioWhatsApp(settings, Place("whatsapp", PUBLIC + "/in/whatsapp", b"k"))  # type: ignore[arg-type]


@pytest.fixture
async def direct() -> AsyncIterator[Direct]:
    async with aiohttp.ClientSession() as session:
        yield Direct(session)


async def test_the_connector_reads_the_stand_ins_templates(server: SandboxServer, direct: Direct) -> None:
    found = {one.name: one for one in await connector(server).templates(direct)}
    assert {name: one.state for name, one in found.items()} == {
        "continue_conversation": "approved",
        "order_shipped": "approved",
        "spring_sale": "rejected",
        "refund_made": "pending",
    }
    assert found["order_shipped"].variables == ("1", "2", "3")
    assert found["continue_conversation"].buttons == ("Yes, please", "Not now")


async def test_the_stand_ins_templates_fit_the_official_description(server: SandboxServer, direct: Direct) -> None:
    login = {"Authorization": connector(server).settings.authorization}
    answer = await direct.request("GET", server.url + "/v1/ContentAndApprovals", headers=login)
    request = MockRequest("https://content.twilio.com", "get", "/v1/ContentAndApprovals", headers={"authorization": "Basic eDp5"})
    content_description().validate_response(request, MockResponse(answer.body, 200, content_type="application/json"))
    assert (await direct.request("GET", server.url + "/v1/ContentAndApprovals")).status == 401


async def test_a_template_is_shown_as_it_reads(server: SandboxServer, direct: Direct) -> None:
    whatsapp = connector(server)
    shipped = next(one for one in await whatsapp.templates(direct) if one.name == "order_shipped")
    use = TemplateUse(shipped.id, "en", {"1": "Ada", "2": "A-7", "3": "Monday"})
    await whatsapp.send(OutboundMessage(delivery_id=1, to=ADA.phone, text="as it reads", template=use), direct)
    [message] = server.state.twilio_messages
    assert message.body == "Hi Ada, order A-7 has left our warehouse and should reach you on Monday."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hi Ada, we have refunded \u20ac20. It takes up to five days to arrive.", 1),
        ("Refund\nHi Ada, we have refunded \u20ac20.  It takes up to five days to arrive.\nThe shop", 1),  # with header and footer
        ("Hi Ben, we have refunded \u20ac20. It takes up to five days to arrive.", 0),
    ],
)
async def test_a_template_whose_answer_was_lost_is_found(text: str, found: int, server: SandboxServer, direct: Direct) -> None:
    whatsapp = connector(server)
    use = TemplateUse(f"HX{4:032x}", "en", {"1": "Ada", "2": "\u20ac20"})
    sent = OutboundMessage(delivery_id=1, to=ADA.phone, text=text, template=use)
    at = server.state.clock()
    await whatsapp.send(sent, direct)
    assert len(await whatsapp.find(sent, at - 60, at + 60, direct)) == found
    plain = OutboundMessage(delivery_id=2, to=ADA.phone, text="refunded")
    assert await whatsapp.find(plain, at - 60, at + 60, direct) == [], "free text has to be the same"


@pytest.mark.parametrize(
    ("sid", "variables", "code"),
    [
        ("HX" + "f" * 32, "{}", 21654),
        (f"HX{2:032x}", '{"1": "Ada"}', 21656),
        (f"HX{2:032x}", "", 21656),
        (f"HX{2:032x}", "no JSON", 21656),
        (f"HX{2:032x}", '{"1": 1, "2": "a", "3": "b"}', 21656),
    ],
)
async def test_the_stand_in_refuses_what_twilio_would(sid: str, variables: str, code: int, server: SandboxServer, twilio: Client) -> None:
    with pytest.raises(TwilioRestException) as raised:
        await twilio.messages.create_async(
            to="whatsapp:" + ADA.phone, from_="whatsapp:+15550100001", content_sid=sid, content_variables=variables
        )
    assert raised.value.code == code
    assert server.state.twilio_messages == []


async def test_typing_is_shown_for_what_came_by_whatsapp_only(server: SandboxServer, direct: Direct) -> None:
    actor = SandboxActor(server, hub_url=AWAY, public_url=PUBLIC)
    await actor.whatsapp(ADA.phone, "hello", "Ada", told=False)
    await actor.sms(ADA.phone, "hello", told=False)
    by_whatsapp, by_sms = server.state.twilio_inbound.values()
    await connector(server).seen(by_whatsapp.sid, direct, typing=True)
    for sid in (by_sms.sid, "SM" + "0" * 32):
        with pytest.raises(Refused):
            await connector(server).seen(sid, direct, typing=True)
