"""Law: what Twilio's own list tells is what its webhooks would have told, under the same keys; its pages lead nowhere but to Twilio.

The real connector reads the sandbox's stand-in (held to the official description below) and, for what Twilio would never do, a server that
answers what it is told to.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openapi_core import Config, OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from connectors.sandbox import SandboxActor, SandboxServer
from connectors.sandbox.state import TwilioInbound
from connectors.sandbox.twilio import parcel_photo
from connectors.shared import twilio_lists
from connectors.shared.twilio import TwilioMessaging
from connectors.twilio_sms import TwilioSms
from connectors.twilio_whatsapp import TwilioWhatsApp
from hub.contract import (
    Advises,
    DeliveryUpdate,
    Finds,
    InboundMessage,
    MessageStatus,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Recovers,
    Refused,
    Request,
    TryLater,
    Unknown,
)
from hub.http import GuardedHttp
from tests.connectors.test_sandbox import PUBLIC, SECRETS
from tests.shared_data import shared

ADA, BEN = "+12025550123", "+12025550124"
SMS, WHATSAPP = "+15550100002", "+15550100001"
NOW = 1_800_000_000.0  # unix seconds
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def server() -> AsyncIterator[SandboxServer]:
    started = SandboxServer(port=0, smtp_port=0, secrets=SECRETS)
    started.state.clock = lambda: NOW
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def http(server: SandboxServer) -> AsyncIterator[GuardedHttp]:
    client = GuardedHttp([f"127.0.0.1:{server.port}"])
    yield client
    await client.close()


def channel(base_url: str, kind: type[TwilioMessaging] = TwilioSms, **settings: Any) -> TwilioMessaging:
    given = {"type": "twilio", "address": WHATSAPP if kind is TwilioWhatsApp else SMS, "account_sid": SECRETS.twilio_account_sid}
    given |= {"auth_token": SECRETS.twilio_auth_token, "base_url": base_url} | settings
    return kind(kind.Settings(**given), Place("main", PUBLIC + "/in/main", b"k"))  # type: ignore[arg-type]


def came(server: SandboxServer, number: int, **fields: Any) -> TwilioInbound:
    """A message in Twilio's list, `number` seconds before NOW."""
    given = {"sid": f"SM{number:032x}", "to": SMS, "from_": ADA, "body": f"message {number}", "at": NOW - number}
    message = TwilioInbound(**{"order": server.state.next_order(), **given, **fields})
    server.state.twilio_inbound[message.sid] = message
    return message


async def listed(source: TwilioMessaging, http: GuardedHttp, since: float = NOW - 86_400, until: float = NOW) -> list[InboundMessage]:
    return [said async for page in source.received(since, until, http) for said in page]


def test_the_channels_can_be_asked() -> None:
    for kind in (TwilioSms, TwilioWhatsApp):
        assert isinstance(channel("https://api.twilio.com", kind), Recovers)
        assert isinstance(channel("https://api.twilio.com", kind), Finds)
        assert isinstance(channel("https://api.twilio.com", kind), Advises)


# --- what came in ---


async def test_a_listed_message_is_the_one_its_webhook_told_of(server: SandboxServer, http: GuardedHttp) -> None:
    heard: list[bytes] = []

    async def keep(request: web.Request) -> web.Response:
        heard.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/{rest:.*}", keep)
    async with TestServer(app) as at:
        actor = SandboxActor(server, hub_url=str(at.make_url("")), public_url=PUBLIC)
        await actor.sms(ADA, "Täglich 1+1 & more?")
        await actor.whatsapp(BEN, "", "Ben", media=parcel_photo())
        await actor.close()
    for kind, body in zip((TwilioSms, TwilioWhatsApp), heard, strict=True):
        source = channel(server.url, kind)
        (told,) = source.parse(Request("POST", PUBLIC + "/in/main", FORM, body))
        (found,) = await listed(source, http)
        assert isinstance(told, InboundMessage)
        assert (found.provider_key, found.text, found.attachments) == (told.provider_key, told.text, told.attachments)
        assert found.claims == told.claims[:1]
        assert found.sent_at == int(NOW * 1_000_000)
        assert found.original is not None
        (again,) = source.parse(Request("POST", PUBLIC + "/in/main", FORM, found.original))
        assert isinstance(again, InboundMessage)
        assert (again.provider_key, again.text, again.attachments) == (told.provider_key, told.text, told.attachments)


async def test_a_listed_picture_can_be_fetched(server: SandboxServer, http: GuardedHttp) -> None:
    actor = SandboxActor(server, hub_url="http://127.0.0.1:1", public_url=PUBLIC)
    await actor.whatsapp(BEN, "Look", "Ben", media=parcel_photo(), told=False)
    source = channel(server.url, TwilioWhatsApp)
    (found,) = await listed(source, http)
    (picture,) = found.attachments
    assert (await source.fetch(picture.url, http)).data == parcel_photo().data


async def test_only_what_was_written_to_this_channel_in_that_time_is_taken(server: SandboxServer, http: GuardedHttp) -> None:
    mine = came(server, 10)
    came(server, 20, to="+15550109999")  # another number of the account
    came(server, 30, to="whatsapp:" + SMS, from_="whatsapp:" + ADA)
    came(server, 40, from_=SMS)  # an echo
    came(server, 86_401)
    came(server, -5)
    await channel(server.url).send(OutboundMessage(delivery_id=1, to=ADA, text="Hello"), http)
    assert [said.provider_key for said in await listed(channel(server.url), http)] == [f"in:{mine.sid}"]


async def test_a_messaging_service_is_asked_for_by_its_own_id(server: SandboxServer, http: GuardedHttp) -> None:
    source = channel(server.url, messaging_service_sid="MG" + "b" * 32)
    resource = {"direction": "inbound", "to": "+15550107777", "messaging_service_sid": "MG" + "b" * 32}
    assert source._is_to_us(resource)
    assert source._is_to_us({"direction": "inbound", "to": SMS})
    assert not source._is_to_us({**resource, "messaging_service_sid": "MG" + "c" * 32})
    assert not source._is_to_us({**resource, "direction": "outbound-api"})
    mine = came(server, 10)
    assert [said.provider_key for said in await listed(source, http)] == [f"in:{mine.sid}"]


@pytest.mark.parametrize(
    ("count", "kept"),
    [*((count, kept) for count in (0, 1, 9, 10, 11, 100) for kept in (1, 3, 10, 100)), (1_000, 1), (1_000, 10)],
)
async def test_a_long_list_comes_oldest_first_page_by_page(
    server: SandboxServer, http: GuardedHttp, count: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_lists, "PAGE_SIZE", 100 if count == 1_000 else 10)
    monkeypatch.setattr(twilio_lists, "KEPT_PAGES", kept)
    sent = [came(server, number) for number in range(1, count + 1)]
    sizes, keys = [], []
    async for page in channel(server.url).received(NOW - 86_400, NOW + 60, http):
        sizes.append(len(page))
        keys += [said.provider_key for said in page]
        if len(sizes) == 1:
            came(server, 0, sid="SM" + "f" * 32)  # comes in while the list is read: it shifts nothing
    assert [key for key in keys if not key.endswith("f" * 32)] == [f"in:{message.sid}" for message in reversed(sent)]
    assert len(set(keys)) == len(keys), "nothing twice"
    assert all(size <= (100 if count == 1_000 else 10) for size in sizes)


async def test_a_page_that_leads_elsewhere_is_not_followed() -> None:
    asked: list[str] = []
    answer: dict[str, Any] = {"messages": []}

    async def tell(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/{rest:.*}", tell)
    async with TestServer(app) as twilio, TestServer(app) as other:
        http = GuardedHttp([f"127.0.0.1:{twilio.port}", f"127.0.0.1:{other.port}"])
        account = f"/2010-04-01/Accounts/{SECRETS.twilio_account_sid}"
        for leads in (
            f"http://127.0.0.1:{other.port}{account}/Messages.json",
            f"//127.0.0.1:{other.port}{account}/Messages.json",
            "/2010-04-01/Accounts/AC" + "9" * 32 + "/Messages.json",
            f"{account}.json",  # which holds the auth token
            f"https://127.0.0.1:{twilio.port}{account}/Messages.json",
        ):
            asked.clear()
            answer["next_page_uri"] = leads
            with pytest.raises(Refused, match="not its own"):
                await listed(channel(str(twilio.make_url("")).rstrip("/")), http)
            assert len(asked) == 1, leads
        await http.close()


FAILURES = {
    # how the list fails -> what that means, and the wait asked for
    "busy": ({"status": 429, "retry_after": 7}, TryLater, 7),
    "down": ({"status": 503}, TryLater, None),
    "broken": ({"status": 500}, TryLater, None),
    "answer lost": ({"status": "drop", "times": 2}, TryLater, None),  # reading may be repeated, and the client does so once
}


@pytest.mark.parametrize(("failure", "raised", "wait"), FAILURES.values(), ids=FAILURES)
async def test_a_list_that_fails_is_asked_for_again(server: SandboxServer, http: GuardedHttp, failure: Any, raised: Any, wait: Any) -> None:
    came(server, 1)
    for ask in (
        lambda: listed(channel(server.url), http),
        lambda: channel(server.url).find(OutboundMessage(delivery_id=1, to=ADA, text="x"), NOW - 60, NOW, http),
    ):
        server.state.fail_next("twilio_list", **failure)
        with pytest.raises(raised) as caught:
            await ask()
        assert caught.value.retry_after == wait
    assert len(await listed(channel(server.url), http)) == 1


async def test_wrong_credentials_are_not_tried_again(server: SandboxServer, http: GuardedHttp) -> None:
    with pytest.raises(Refused, match="auth_token"):
        await listed(channel(server.url, auth_token="wrong"), http)
    with pytest.raises(Refused, match="has no auth_token"):
        await listed(channel(server.url, auth_token=""), http)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages": 3}', b"<html>"])
async def test_an_answer_that_is_no_list_is_no_empty_list(body: bytes) -> None:
    async def tell(_: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/{rest:.*}", tell)
    async with TestServer(app) as twilio:
        http = GuardedHttp([f"127.0.0.1:{twilio.port}"])
        with pytest.raises(TryLater):
            await listed(channel(str(twilio.make_url("")).rstrip("/")), http)
        await http.close()


# --- what went out ---


def hello(**fields: Any) -> OutboundMessage:
    return OutboundMessage(**({"delivery_id": 1, "to": ADA, "text": "Hello"} | fields))


def picture(name: str) -> OutboundAttachment:
    return OutboundAttachment(name, "image/png", 10, bytes, f"https://hub.example/files/{name}")


async def found(server: SandboxServer, http: GuardedHttp, message: OutboundMessage, **settings: Any) -> list[DeliveryUpdate]:
    return list(await channel(server.url, **settings).find(message, NOW - 60, NOW + 60, http))


async def test_a_message_whose_answer_was_lost_is_found(server: SandboxServer, http: GuardedHttp) -> None:
    server.state.fail_next("twilio", status="drop")
    with pytest.raises(Unknown):
        await channel(server.url).send(hello(), http)
    (there,) = server.state.twilio_messages
    (one,) = await found(server, http, hello())
    assert (one.provider_message_id, one.status) == (there.sid, MessageStatus.QUEUED)
    for word, status in (("sent", MessageStatus.SENT), ("delivered", MessageStatus.DELIVERED), ("failed", MessageStatus.FAILED)):
        there.status = word
        assert [one.status for one in await found(server, http, hello())] == [status]
    there.status = "something new"
    assert [one.status for one in await found(server, http, hello())] == [MessageStatus.SENT]


async def test_spaces_and_line_ends_may_have_changed_on_the_way(server: SandboxServer, http: GuardedHttp) -> None:
    await channel(server.url).send(hello(text="Hello,\nit comes"), http)
    assert len(await found(server, http, hello(text="Hello,\r\n it comes \n"))) == 1


OTHERS = {
    "another text": hello(text="Hello!"),
    "a space less": hello(text="He llo"),
    "another case": hello(text="hello"),
    "another number": hello(to=BEN),
    "a file more": hello(attachments=(picture("a"),)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_what_differs_is_not_taken_for_it(server: SandboxServer, http: GuardedHttp, other: OutboundMessage) -> None:
    await channel(server.url).send(other, http)
    assert await found(server, http, hello()) == []
    assert len(await found(server, http, other)) == 1


async def test_neither_is_what_went_at_another_time_or_from_another_number_or_came_in(server: SandboxServer, http: GuardedHttp) -> None:
    await channel(server.url, address="+15550109999").send(hello(), http)
    came(server, 1, from_=ADA, to=ADA, body="Hello")
    for at in (NOW - 61, NOW + 61):
        server.state.clock = lambda at=at: at  # type: ignore[misc]
        await channel(server.url).send(hello(), http)
    assert await found(server, http, hello()) == []


async def test_all_that_say_the_same_are_told_of(server: SandboxServer, http: GuardedHttp) -> None:
    for _ in range(3):
        await channel(server.url).send(hello(), http)
    assert {one.provider_message_id for one in await found(server, http, hello())} == {one.sid for one in server.state.twilio_messages}


async def test_a_long_conversation_is_read_only_as_far_back_as_needed(
    server: SandboxServer, http: GuardedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_lists, "PAGE_SIZE", 5)
    for number in range(40):
        server.state.clock = lambda number=number: NOW - 4_000 + 100 * number  # type: ignore[misc]
        await channel(server.url).send(hello(text=f"{number}"), http)
    server.state.clock = lambda: NOW
    await channel(server.url).send(hello(), http)
    asked = 0
    request = http.request

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        return await request(*args, **kwargs)

    http.request = counted  # type: ignore[method-assign]
    assert len(await found(server, http, hello())) == 1
    assert asked == 1
    assert len(await channel(server.url).find(hello(text="0"), NOW - 4_060, NOW, http)) == 1
    assert asked > 8


async def test_through_a_messaging_service_only_its_own_count(server: SandboxServer, http: GuardedHttp) -> None:
    service = "MG" + "b" * 32
    await channel(server.url, messaging_service_sid=service).send(hello(), http)
    await channel(server.url).send(hello(), http)
    first, second = server.state.twilio_messages
    assert [one.provider_message_id for one in await found(server, http, hello(), messaging_service_sid=service)] == [first.sid]
    assert [one.provider_message_id for one in await found(server, http, hello())] == [second.sid]


# --- the stand-in against the official description ---


async def test_the_stand_ins_lists_fit_the_official_description(server: SandboxServer) -> None:
    spec = OpenAPI.from_dict(
        json.loads(shared("specs_twilio", "twilio_api_v2010.json").read_text()), config=Config(spec_validator_cls=None)
    )
    actor = SandboxActor(server, hub_url="http://127.0.0.1:1", public_url=PUBLIC)
    await actor.whatsapp(ADA, "Look", "Ada", media=parcel_photo(), told=False)
    (message,) = server.state.twilio_inbound.values()
    account = f"/2010-04-01/Accounts/{SECRETS.twilio_account_sid}"
    auth = aiohttp.encode_basic_auth(SECRETS.twilio_account_sid, SECRETS.twilio_auth_token)
    for path, query, name in (
        (f"{account}/Messages.json", {"To": "whatsapp:" + WHATSAPP, "DateSent>": "2020-01-01T00:00:00Z", "PageSize": "5"}, "messages"),
        (f"{account}/Messages/{message.sid}/Media.json", {}, "media_list"),
    ):
        url = f"{server.url}{path}?{urlencode(query)}"
        async with aiohttp.ClientSession() as session, session.get(url, headers={"Authorization": auth}) as answer:
            body = await answer.read()
        request = MockRequest("https://api.twilio.com", "get", path, args=query, headers={"Authorization": auth})
        spec.validate_request(request)
        spec.validate_response(request, MockResponse(body, status_code=200, content_type="application/json"))
        read = json.loads(body)
        assert len(read[name]) == 1
        broken = read | {name: [read[name][0] | {"sid": "not a sid"}]}
        with pytest.raises(OpenAPIError):  # the negative twin
            spec.validate_response(request, MockResponse(json.dumps(broken).encode(), status_code=200, content_type="application/json"))
