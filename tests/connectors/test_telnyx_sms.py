"""Law: what Telnyx signed becomes a message or news of one; what is sent is in its own words; in doubt we say so.

Bodies: after https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks, made here. The real connector speaks to a
loopback server.
"""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors import CHANNELS, load
from connectors.shared.telnyx_words import ERRORS, EVENTS, NEVER, STATUSES
from connectors.telnyx_sms import TelnyxSms
from hub.abilities import ABILITIES
from hub.contract import (
    STATUS_AFTER,
    Advises,
    Attachment,
    Channel,
    Claim,
    DeliveryEvent,
    DeliveryUpdate,
    Finds,
    HttpResponse,
    Ignored,
    Inbound,
    InboundMessage,
    MessageStatus,
    OneWay,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Proof,
    Recovers,
    Refused,
    Request,
    Sent,
    TemplateUse,
    TryLater,
    Unknown,
    Unparseable,
    Verdict,
)
from tests.connectors.test_twilio_outbound import Direct, Scripted, StandIn

URL = "https://hub.example/in/telnyx"
CALLBACK = URL + "?delivery=7"
NOW = 1_790_000_000.0
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
ID = "b0c7e8cb-6227-4c74-9f32-c7f80c30934b"


@pytest.fixture
async def telnyx() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stand_in.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    stand_in.url = str(server.make_url("/")).rstrip("/")
    yield stand_in
    await server.close()


@pytest.fixture
async def http() -> AsyncIterator[Direct]:
    async with aiohttp.ClientSession() as session:
        yield Direct(session)


def channel(base_url: str = "https://api.telnyx.com", **settings: Any) -> TelnyxSms:
    chosen = {"type": "telnyx_sms", "address": "+15555550100", "base_url": base_url, "api_key": "KEY0123", "public_key": PUBLIC} | settings
    return TelnyxSms(TelnyxSms.Settings(**chosen), Place("main", URL, b"k"))  # type: ignore[arg-type]


def signed(body: bytes, at: float = NOW, url: str = URL, **headers: str) -> Request:
    stamp = str(int(at))
    signature = base64.b64encode(PRIVATE.sign(stamp.encode() + b"|" + body)).decode()
    return Request("POST", url, {"telnyx-signature-ed25519": signature, "telnyx-timestamp": stamp, **headers}, body)


def event(kind: str = "message.received", query: str = "", **payload: Any) -> Request:
    body = {
        "data": {
            "event_type": kind,
            "id": "4ee8c3a6-4995-4309-a3c6-38e3db9ea4be",
            "occurred_at": "2026-11-20T10:00:01.000+00:00",
            "payload": {
                "id": ID,
                "direction": "inbound" if kind == "message.received" else "outbound",
                "type": "SMS",
                "from": {"phone_number": "+12025550123", "carrier": "T-Mobile USA", "line_type": "Wireless"},
                "to": [{"phone_number": "+15555550100", "status": "webhook_delivered"}],
                "cc": [],
                "text": "Hello",
                "media": [],
                "received_at": "2026-11-20T10:00:00.500+00:00",
                "autoresponse_type": None,
                "is_spam": False,
                "errors": [],
                "record_type": "message",
            }
            | payload,
            "record_type": "event",
        },
        "meta": {"attempt": 1, "delivered_to": URL},
    }
    return signed(json.dumps(body).encode(), url=URL + query)


def one(request: Request, **settings: Any) -> Inbound:
    [found] = channel(**settings).parse(request)
    return found


def message(**fields: Any) -> OutboundMessage:
    return OutboundMessage(**({"delivery_id": 7, "to": "+12025550123", "text": "Hello", "callback_url": CALLBACK} | fields))


def file(name: str = "a.jpg", size: int = 1_000, url: str = "https://hub.example/files/a.jpg") -> OutboundAttachment:
    return OutboundAttachment(name, "image/jpeg", size, bytes, url)


# --- The signature ---


def test_what_telnyx_signed_is_good() -> None:
    request = event()
    assert channel().verify(request, NOW) is Verdict.GOOD
    assert channel().verify(request, NOW + 300) is Verdict.GOOD
    assert channel().verify(request, NOW - 300) is Verdict.GOOD


def spoilt(**changes: Any) -> Request:
    request = event()
    headers = {**request.headers, **{name.replace("_", "-"): value for name, value in changes.items() if name != "body"}}
    return Request("POST", URL, headers, changes.get("body", request.body))


ODD = {
    "another body": spoilt(body=b"{}"),
    "another time": spoilt(telnyx_timestamp=str(int(NOW) + 1)),
    "no time": spoilt(telnyx_timestamp=""),
    "a time that is none": spoilt(telnyx_timestamp="now"),
    "digits that are none": spoilt(telnyx_timestamp="١٧٩"),
    "a signature of nought": spoilt(telnyx_signature_ed25519=base64.b64encode(b"\0" * 64).decode()),
    "half a signature": spoilt(telnyx_signature_ed25519="AAAA"),
    "no base64": spoilt(telnyx_signature_ed25519="%%%"),
    "not ASCII": spoilt(telnyx_signature_ed25519="ü"),
}


@pytest.mark.parametrize("request_", ODD.values(), ids=ODD)
def test_anything_else_is_bad(request_: Request) -> None:
    assert channel().verify(request_, NOW) is Verdict.BAD


@pytest.mark.parametrize("late", [-301, 301, 1e9])
def test_a_captured_request_is_good_for_five_minutes(late: float) -> None:
    assert channel().verify(event(), NOW + late) is Verdict.BAD


def test_another_accounts_key_and_none() -> None:
    other = base64.b64encode(Ed25519PrivateKey.from_private_bytes(b"\x08" * 32).public_key().public_bytes_raw()).decode()
    assert channel(public_key=other).verify(event(), NOW) is Verdict.BAD
    assert channel(public_key="").verify(event(), NOW) is Verdict.NO_KEY
    assert channel().verify(Request("POST", URL, {}, b"{}"), NOW) is Verdict.UNSIGNED


@given(st.binary(max_size=100), st.text(max_size=100), st.text(max_size=20))
def test_any_bytes_get_a_verdict(body: bytes, signature: str, stamp: str) -> None:
    request = Request("POST", URL, {"telnyx-signature-ed25519": signature, "telnyx-timestamp": stamp}, body)
    assert channel().verify(request, NOW) in (Verdict.BAD, Verdict.UNSIGNED)


# --- Coming in ---


def test_an_sms() -> None:
    assert one(event()) == InboundMessage(
        provider_key=f"in:{ID}",
        claims=(Claim("phone", "+12025550123", Proof.CHANNEL),),
        external_id=ID,
        text="Hello",
        sent_at=1_795_168_800_500_000,
    )


def test_an_mms_with_its_files() -> None:
    media = [
        {"url": "https://media.telnyx.com/abc/1", "content_type": "image/jpeg", "size": 1024, "sha256": "x"},
        {"url": "https://media.telnyx.com/abc/2", "content_type": None},
        {"size": 1},
        "odd",
    ]
    found = one(event(type="MMS", text="", subject="Photos", media=media))
    assert isinstance(found, InboundMessage)
    assert found.attachments == (
        Attachment("image-1.jpg", "image/jpeg", url="https://media.telnyx.com/abc/1"),
        Attachment("file-2", "application/octet-stream", url="https://media.telnyx.com/abc/2"),
    )
    assert (found.text, found.subject) == ("", "Photos")


@pytest.mark.parametrize(
    ("payload", "opts"),
    [
        ({"text": "STOP", "autoresponse_type": "STOP"}, "out"),
        ({"text": "raus", "autoresponse_type": "STOP"}, "out"),  # a word of the account's own
        ({"text": "go", "autoresponse_type": "START"}, "in"),
        ({"text": "STOP", "autoresponse_type": "HELP"}, ""),  # Telnyx knows best
        ({"text": "Help", "autoresponse_type": "HELP"}, ""),
        ({"text": "stop all."}, "out"),
        ({"text": "arrêt"}, "out"),
        ({"text": "unstop"}, "in"),
        ({"text": "Yes"}, ""),  # which opens nothing at Telnyx
        ({"text": "please stop"}, ""),
    ],
)
def test_the_words_people_stop_with(payload: dict[str, Any], opts: str) -> None:
    found = one(event(**payload))
    assert isinstance(found, InboundMessage)
    assert found.opts == opts


def test_what_telnyx_takes_for_spam_is_said() -> None:
    found = one(event(is_spam=True))
    assert isinstance(found, InboundMessage)
    assert found.spam == {"flagged": True}


@pytest.mark.parametrize(("sender", "kind"), [("+12025550123", "phone"), ("262966", "sender_word"), ("AMAZON", "sender_word")])
def test_only_a_full_number_is_a_phone(sender: str, kind: str) -> None:
    found = one(event(**{"from": {"phone_number": sender}}))
    assert isinstance(found, InboundMessage)
    assert found.claims == (Claim(kind, sender, Proof.CHANNEL),)


@pytest.mark.parametrize("payload", [{"direction": "outbound"}, {"from": {"phone_number": "+15555550100"}}])
def test_echoes_of_our_own_messages_make_no_message(payload: dict[str, Any]) -> None:
    assert isinstance(one(event(**payload)), Ignored)


def test_half_characters_and_nul_are_let_go() -> None:
    request = Request("POST", URL, {}, event().body.replace(b'"Hello"', b'"a\\u0000b\\ud83dc"'))
    found = one(request)
    assert isinstance(found, InboundMessage)
    assert found.text == "ab?c"


UNUSABLE = {
    "no JSON": b"MessageSid=SM1",
    "another JSON": b"[]",
    "no payload": b'{"data": {"event_type": "message.received"}}',
    "no id": b'{"data": {"event_type": "message.received", "payload": {"text": "x"}}}',
    "an id that is none": b'{"data": {"event_type": "message.received", "payload": {"id": 5}}}',
    "no sender": json.dumps({"data": {"event_type": "message.received", "payload": {"id": ID, "text": "x"}}}).encode(),
    "depth": b"[" * 100_000,
}


@pytest.mark.parametrize("body", UNUSABLE.values(), ids=UNUSABLE)
def test_the_unusable_is_named(body: bytes) -> None:
    with pytest.raises(Unparseable):
        channel().parse(Request("POST", URL, {}, body))


def test_another_channels_message_is_no_sms() -> None:
    with pytest.raises(Unparseable, match="no SMS but WHATSAPP"):
        channel().parse(event(type="WHATSAPP"))


def test_events_we_have_no_use_for_are_kept_raw() -> None:
    assert isinstance(one(event("message.link_click")), Ignored)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_named_unusable(body: bytes) -> None:
    with contextlib.suppress(Unparseable):
        assert channel().parse(Request("POST", URL, {}, body))


# --- What became of a message ---


@pytest.mark.parametrize(("word", "status"), STATUSES.items())
def test_every_status_word_is_ours(word: str, status: MessageStatus) -> None:
    found = one(event("message.finalized", "?delivery=7", to=[{"phone_number": "+12025550123", "status": word}]))
    assert isinstance(found, DeliveryUpdate)
    assert (found.status, found.delivery_id, found.provider_message_id) == (status, 7, ID)
    assert (found.provider_key, found.recipient, found.event) == (f"status:{ID}:{word}", "+12025550123", EVENTS.get(word))
    assert bool(found.error) == (status is MessageStatus.FAILED)


def test_the_news_leave_a_message_in_the_state_its_status_says() -> None:
    assert {word: STATUS_AFTER[news] for word, news in EVENTS.items()} == {word: STATUSES[word] for word in EVENTS}


@pytest.mark.parametrize(
    ("code", "detail", "error", "permanent"),
    [
        ("40001", "x", "The number is a landline, or cannot be reached by SMS. Try another channel. (Telnyx error 40001)", True),
        ("40012", "x", "The carrier does not know this number. (Telnyx error 40012)", True),
        ("40006", "x", "The carrier cannot be reached. It may work later. (Telnyx error 40006)", False),
        ("40999", "Odd thing.", "Odd thing. (Telnyx error 40999)", False),
        ("", "", "Telnyx gave no reason.", False),
    ],
)
def test_a_failure_is_told_in_plain_words(code: str, detail: str, error: str, permanent: bool) -> None:
    errors = [{"code": code, "title": "jargon", "detail": detail}] if code else []
    found = one(event("message.finalized", to=[{"phone_number": "+12025550123", "status": "delivery_failed"}], errors=errors))
    assert isinstance(found, DeliveryUpdate)
    assert (found.error, found.permanent, found.event) == (error, permanent, DeliveryEvent.BOUNCED)


def test_a_message_delivered_despite_an_error_is_delivered() -> None:
    found = one(event("message.finalized", to=[{"phone_number": "+1", "status": "delivered"}], errors=[{"code": "40001"}]))
    assert isinstance(found, DeliveryUpdate)
    assert (found.status, found.error, found.permanent) == (MessageStatus.DELIVERED, "", False)


@pytest.mark.parametrize("to", [[], None, "x", [{"status": "teleported"}], [{"status": "delivered"}, {"status": "sent"}]])
def test_a_status_without_a_word_of_ours_changes_nothing(to: Any) -> None:
    assert isinstance(one(event("message.finalized", to=to)), Ignored)


def test_the_error_table_holds_codes() -> None:
    assert len(ERRORS) > 40
    assert set(ERRORS) >= NEVER
    assert all(code.isdigit() and words.endswith(".") for code, words in ERRORS.items())


# --- Going out ---

TO, FROM, HOOKS = {"to": "+12025550123"}, {"from": "+15555550100"}, {"webhook_url": CALLBACK, "webhook_failover_url": CALLBACK}
SENDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "SMS": ({}, {}, TO | FROM | HOOKS | {"text": "Hello"}),
    "any characters": ({}, {"text": 'a"b\\ü \U0001f642\n'}, TO | FROM | HOOKS | {"text": 'a"b\\ü \U0001f642\n'}),
    "no callback": ({}, {"callback_url": ""}, TO | FROM | {"text": "Hello"}),
    "a profile's numbers": (
        {"address": "", "messaging_profile_id": "p-1"},
        {},
        TO | HOOKS | {"messaging_profile_id": "p-1", "text": "Hello"},
    ),
    "a name": (
        {"address": "ACME", "messaging_profile_id": "p-1"},
        {},
        TO | HOOKS | {"from": "ACME", "messaging_profile_id": "p-1", "text": "Hello"},
    ),
    "MMS": (
        {},
        {"attachments": (file(), file(url="https://hub.example/files/b.jpg"))},
        TO
        | FROM
        | HOOKS
        | {"text": "Hello", "type": "MMS", "media_urls": ["https://hub.example/files/a.jpg", "https://hub.example/files/b.jpg"]},
    ),
    "a file without words": (
        {},
        {"text": "", "attachments": (file(),)},
        TO | FROM | HOOKS | {"type": "MMS", "media_urls": ["https://hub.example/files/a.jpg"]},
    ),
}


@pytest.mark.parametrize(("settings", "fields", "body"), SENDS.values(), ids=SENDS)
async def test_what_is_sent(
    settings: dict[str, Any], fields: dict[str, Any], body: dict[str, Any], *, telnyx: StandIn, http: Direct
) -> None:
    telnyx.will(200, {"data": {"id": ID, "record_type": "message", "to": [{"status": "queued"}]}})
    assert await channel(telnyx.url, **settings).send(message(**fields), http) == Sent(ID)
    [seen] = telnyx.seen
    assert (seen.method, seen.path) == ("POST", "/v2/messages")
    assert (seen.headers["authorization"], seen.headers["content-type"]) == ("Bearer KEY0123", "application/json")
    assert json.loads(seen.body) == body


def error(code: str, detail: str = "jargon") -> dict[str, Any]:
    return {"errors": [{"code": code, "title": "Odd", "detail": detail}]}


ANSWERS: dict[str, tuple[int, Any, type[Exception], str]] = {
    "opted out": (400, error("40300"), Refused, r"opted out by STOP.*\(Telnyx error 40300\)"),
    "no such number": (400, error("40310"), Refused, "not a valid phone number"),
    "wrong key": (401, error("10009"), Refused, "Check api_key"),
    "profile off": (409, error("40312"), Refused, "Switch it on"),
    "a code we lack": (422, error("49999", "Odd thing."), Refused, r"Odd thing\. \(Telnyx error 49999\)"),
    "no code": (400, {}, Refused, r"HTTP 400"),
    "a page": (404, b"<html>", Refused, r"HTTP 404"),
    "busy": (429, error("10011"), TryLater, "busy"),
    "away": (503, b"", TryLater, "busy"),
    "broken": (500, error("10007"), Unknown, "may have gone"),
    "a gateway's": (502, b"", Unknown, "may have gone"),
    "taken without a name": (200, {"data": {}}, Unknown, "without naming"),
    "taken, unreadable": (200, b"ok", Unknown, "without naming"),
    "a list": (200, [], Unknown, "without naming"),
}


@pytest.mark.parametrize(("status", "body", "raised", "words"), ANSWERS.values(), ids=ANSWERS)
async def test_each_answer_ends_the_delivery_its_way(
    status: int, body: Any, raised: type[Exception], words: str, *, telnyx: StandIn, http: Direct
) -> None:
    telnyx.will(status, body)
    with pytest.raises(raised, match=words):
        await channel(telnyx.url).send(message(), http)
    assert len(telnyx.seen) == 1


@pytest.mark.parametrize(
    ("headers", "wait"), [({"retry_after": "7"}, 7), ({"x_ratelimit_reset": "12"}, 12), ({"x_ratelimit_reset": "99999"}, 3_600), ({}, None)]
)
async def test_the_wait_telnyx_names_is_handed_on(headers: dict[str, str], wait: float | None, telnyx: StandIn, http: Direct) -> None:
    telnyx.will(429, error("10011"), **headers)
    with pytest.raises(TryLater) as raised:
        await channel(telnyx.url).send(message(), http)
    assert raised.value.retry_after == wait


async def test_no_connection_is_tried_later_and_a_lost_answer_is_unknown(http: Direct, unused_tcp_port: int) -> None:
    with pytest.raises(TryLater):
        await channel(f"http://127.0.0.1:{unused_tcp_port}").send(message(), http)

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v2/messages", hang_up)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    with pytest.raises(Unknown):
        await channel(str(server.make_url("/")).rstrip("/")).send(message(), http)
    await server.close()


TOO_MUCH: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({}, {"text": ""}, "empty"),
    "a long text": ({}, {"text": "a" * 1_531}, "1531 characters"),
    "eleven files": ({}, {"attachments": (file(),) * 11}, "11 files"),
    "over a megabyte": ({}, {"attachments": (file(size=600_000),) * 2}, r"1\.2 MB"),
    "a file without an address": ({}, {"attachments": (OutboundAttachment("a", "image/png", 1, bytes, ""),)}, "public URL"),
    "a file from a name": ({"address": "ACME", "messaging_profile_id": "p"}, {"attachments": (file(),)}, "sender's name"),
    "a template": ({}, {"template": TemplateUse("HX1")}, "no template"),
    "no key": ({"api_key": ""}, {}, "no api_key"),
}


@pytest.mark.parametrize(("settings", "fields", "words"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_what_telnyx_would_refuse_never_leaves(settings: dict[str, Any], fields: dict[str, Any], words: str) -> None:
    http = Scripted()
    with pytest.raises(Refused, match=words):
        await channel(**settings).send(message(**fields), http)
    assert http.asked == []


# --- What was missed ---


def delivery(number: int, at: str, **payload: Any) -> dict[str, Any]:
    found = json.loads(event(**({"id": f"{number}"} | payload)).body)["data"]
    return {"id": f"d{number}", "status": "failed", "started_at": at, "webhook": found | {"occurred_at": at}}


def listed(*deliveries: Any, pages: int = 1) -> dict[str, Any]:
    return {"data": list(deliveries), "meta": {"page_number": 1, "page_size": 250, "total_pages": pages, "total_results": len(deliveries)}}


async def missed(channel: TelnyxSms, http: Any) -> list[InboundMessage]:
    return [one async for page in channel.received(NOW - 3_600, NOW, http) for one in page]


async def test_what_was_missed_is_what_the_webhooks_would_have_said(telnyx: StandIn, http: Direct) -> None:
    late = delivery(2, "2026-11-20T10:05:00.000+00:00", text="second")
    early = delivery(1, "2026-11-20T10:00:00.000+00:00", text="first", type="MMS", media=[{"url": "https://media.telnyx.com/1"}])
    telnyx.will(200, listed(late, pages=2))
    telnyx.will(200, listed(early, late, pages=2))
    ours = channel(telnyx.url)
    found = await missed(ours, http)
    assert [one.text for one in found] == ["first", "second"], "the oldest first, each once"
    for one in found:
        assert one.original is not None
        [by_webhook] = ours.parse(signed(one.original))
        assert isinstance(by_webhook, InboundMessage)
        assert replace(one, original=None) == by_webhook
    first, second = telnyx.seen
    assert (first.method, first.path, first.headers["authorization"]) == ("GET", "/v2/webhook_deliveries", "Bearer KEY0123")
    assert first.query == {
        "filter[event_type]": "message.received",
        "filter[started_at][gte]": "2026-09-21T13:13:20Z",
        "filter[started_at][lte]": "2026-09-21T14:13:20Z",
        "page[size]": "250",
        "page[number]": "1",
    }
    assert second.query["page[number]"] == "2"


async def test_only_what_was_written_to_this_channel_is_taken(telnyx: StandIn, http: Direct) -> None:
    at = "2026-11-20T10:00:00.000+00:00"
    telnyx.will(
        200,
        listed(
            delivery(1, at),
            delivery(2, at, to=[{"phone_number": "+15555550199"}]),
            delivery(3, at, to=[{"phone_number": "+15555550199"}], messaging_profile_id="p-1"),
            delivery(4, at, type="WHATSAPP"),
            delivery(5, at, direction="outbound"),
            {"webhook": None},
            "odd",
        ),
    )
    assert [one.external_id for one in await missed(channel(telnyx.url), http)] == ["1"]
    by_profile = channel(telnyx.url, address="", messaging_profile_id="p-1")
    assert [one.external_id for one in await missed(by_profile, http)] == ["3"]


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (401, {}, Refused),
        (429, {}, TryLater),
        (500, {}, TryLater),
        (200, b"<html>", TryLater),
        (200, [], TryLater),
        (200, {"data": []}, TryLater),
        (200, {"data": None, "meta": {"total_pages": 1}}, TryLater),
    ],
)
async def test_an_answer_that_is_no_list_is_no_empty_list(
    status: int, body: Any, raised: type[Exception], telnyx: StandIn, http: Direct
) -> None:
    telnyx.will(status, body)
    with pytest.raises(raised):
        await missed(channel(telnyx.url), http)


async def test_without_a_key_nothing_is_asked() -> None:
    http = Scripted()
    with pytest.raises(Refused, match="no api_key"):
        await missed(channel(api_key=""), http)
    assert http.asked == []


# --- Files ---


async def test_files_are_fetched_from_telnyx_and_without_the_key() -> None:
    url = "https://media.telnyx.com/abc/1"
    http = Scripted({url: HttpResponse(200, {"content-type": "image/png; x=1"}, b"png")})
    assert await channel().fetch(url, http) == Attachment("image-1.png", "image/png", data=b"png", url=url)
    assert http.asked == [(url, {})]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.png",
        "http://media.telnyx.com/a.png",
        "https://telnyx.com.evil.example/a.png",
        "https://eviltelnyx.com/a.png",
        "https://media.telnyx.com:8443/a.png",
        "https://media.telnyx.com@evil.example/a.png",
        "https://me:pw@media.telnyx.com/a.png",
        "https://evil.example\\.telnyx.com/a.png",
        "https://[::1/a.png",
        "file:///etc/passwd",
        "",
    ],
)
async def test_a_forged_media_url_makes_no_connection(url: str) -> None:
    http = Scripted()
    with pytest.raises(Refused, match="not an address of Telnyx"):
        await channel().fetch(url, http)
    assert http.asked == []


@pytest.mark.parametrize(("status", "raised"), [(302, Refused), (403, Refused), (404, Refused), (429, TryLater), (500, TryLater)])
async def test_a_fetch_that_fails_is_refused_or_tried_later(status: int, raised: type[Exception], telnyx: StandIn, http: Direct) -> None:
    telnyx.will(status, b"")
    with pytest.raises(raised):
        await channel(telnyx.url).fetch(telnyx.url + "/media/1", http)


async def test_a_stand_in_serves_files(telnyx: StandIn, http: Direct) -> None:
    telnyx.will(200, b"png", content_type="image/png")
    assert (await channel(telnyx.url).fetch(telnyx.url + "/media/1", http)).data == b"png"
    assert "authorization" not in telnyx.seen[0].headers


# --- Settings ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": ""}, "set address"),
        ({"address": "ACME"}, "wants messaging_profile_id"),
        ({"address": "ACME Shop 247"}, "is no SMS sender"),
        ({"public_key": "abc"}, "not an Ed25519 key"),
        ({"public_key": "AAAA"}, "not an Ed25519 key"),
        ({"base_url": "http://api.telnyx.com"}, "must be https"),
        ({"base_url": ""}, "must be https"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        channel(**settings)


def test_a_misspelt_key_is_not_printed() -> None:
    with pytest.raises(ValidationError) as raised:
        channel(apikey="secret-9")
    assert "secret-9" not in str(raised.value)
    assert "KEY0123" not in repr(channel().settings)


def test_it_is_a_channel_and_can_do_what_it_says() -> None:
    telnyx = channel()
    assert load(CHANNELS["telnyx_sms"]) is TelnyxSms
    for kind in (Channel, OneWay, Advises):
        assert isinstance(telnyx, kind)
    assert set(telnyx.can) == set(ABILITIES)
    assert (telnyx.can["recovers"] == "") == isinstance(telnyx, Recovers)
    assert (telnyx.can["finds"] == "") == isinstance(telnyx, Finds)
    assert not telnyx.idempotent
    assert {url for _, url in telnyx.to_paste()} == {URL}
    assert (channel("http://127.0.0.1:9").is_sandbox(), telnyx.is_sandbox()) == (True, False)


def test_a_name_cannot_be_answered() -> None:
    assert channel(address="ACME", messaging_profile_id="p").one_way().startswith("Customers cannot answer this sender: ACME")
    assert channel().one_way() == channel(address="", messaging_profile_id="p").one_way() == ""
