"""SendGrid's Event Webhook as recorded, and its API as its own specification and a server on loopback see it."""

import base64
import functools
import json
from collections import Counter
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from openapi_core import OpenAPI
from openapi_core.configurations import Config
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest

from connectors.email.sendgrid import SendgridEmail
from connectors.email.sendgrid_api import mail_send
from hub.contract import (
    STATUS_AFTER,
    DeliveryEvent,
    DeliveryUpdate,
    Ignored,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Refused,
    Request,
    TryLater,
    Unknown,
    Unparseable,
    Verdict,
)
from hub.http import GuardedHttp
from tests.shared_data import shared

PLACE = Place(name="support", inbound_url="https://hub.example/in/support", key=b"k" * 32)
SIGNATURE, TIMESTAMP = "x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"


def channel(**extra) -> SendgridEmail:
    known = {"type": "sendgrid", "address": "support@hub.example", "api_key": "SG.KEYWORD"}
    return SendgridEmail(SendgridEmail.Settings(**(known | extra)), PLACE)


def posted(body: bytes, **headers) -> Request:
    return Request("POST", PLACE.inbound_url, {"content-type": "application/json", **headers}, body)


def one(**event) -> DeliveryUpdate:
    (update,) = channel().parse(posted(json.dumps([event]).encode()))
    assert isinstance(update, DeliveryUpdate)
    return update


# --- anymail's recordings --------------------------------------------------------------------------------------------

RECORDED = [
    (case["test"].rpartition(".")[2], case["request"], case["response_status"], case["events"])
    for case in json.loads(shared("webhooks_anymail", "sendgrid_webhooks.json").read_text())
]
THEIR_WORDS = {"queued": DeliveryEvent.SENT}  # anymail's word -> ours, where they differ
# Where we differ on purpose from the result recorded beside the request.
DIFFERENT_ID = "anymail names its own custom argument `anymail_id`, which we do not send; ours is hub_delivery"


def test_the_recordings_are_all_there():
    assert len(RECORDED) == 35
    assert Counter(bool(events) for *_, events in RECORDED) == {True: 13, False: 22}


@pytest.mark.parametrize(("name", "sent", "status", "events"), RECORDED, ids=[f"{number}-{row[0]}" for number, row in enumerate(RECORDED)])
def test_recorded_events_read_as_anymail_reads_them(name, sent, status, events):
    request = posted(sent["body"].encode())
    if not events:  # refused by anymail for its credentials, or an empty list
        if sent["body"] == "[]":
            assert all(isinstance(found, Ignored) for found in channel().parse(request))
        assert channel(basic_auth="cred:other").verify(request, 0) is Verdict.UNSIGNED
        assert channel(event_verification_key=PUBLIC).verify(request, 0) is Verdict.UNSIGNED
        return
    (about,), (update,), (raw,) = events, channel().parse(request), json.loads(sent["body"])
    assert isinstance(update, DeliveryUpdate)
    assert update.event is (THEIR_WORDS.get(about["event_type"]) or DeliveryEvent(about["event_type"]))
    assert (update.recipient, update.provider_key) == (about["recipient"], about["event_id"])
    if "anymail_id" not in raw:
        assert update.mail_id == about["message_id"]
    else:
        assert update.mail_id == raw.get("smtp-id", ""), DIFFERENT_ID
    if about["mta_response"] and update.event is not DeliveryEvent.DELIVERED:
        assert about["mta_response"] in update.error


# --- Events ----------------------------------------------------------------------------------------------------------

# (the event, what we make of it, whether the address is gone for good)
EVENTS = [
    ({"event": "processed"}, DeliveryEvent.SENT, False),
    ({"event": "delivered"}, DeliveryEvent.DELIVERED, False),
    ({"event": "deferred", "response": "451 busy"}, DeliveryEvent.DEFERRED, False),
    ({"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 no such user"}, DeliveryEvent.BOUNCED, True),
    ({"event": "bounce", "type": "bounce", "bounce_classification": "Invalid Address"}, DeliveryEvent.BOUNCED, True),
    ({"event": "bounce", "type": "bounce", "bounce_classification": "Mailbox Unavailable"}, DeliveryEvent.BOUNCED, False),
    ({"event": "bounce", "type": "bounce", "bounce_classification": "Reputation"}, DeliveryEvent.BOUNCED, False),
    ({"event": "bounce", "type": "blocked"}, DeliveryEvent.BOUNCED, False),
    ({"event": "dropped", "reason": "Bounced Address"}, DeliveryEvent.REJECTED, True),
    ({"event": "dropped", "reason": "Invalid"}, DeliveryEvent.REJECTED, True),
    ({"event": "dropped", "reason": "Unsubscribed Address"}, DeliveryEvent.REJECTED, False),
    ({"event": "spamreport"}, DeliveryEvent.COMPLAINED, False),
    ({"event": "unsubscribe"}, DeliveryEvent.UNSUBSCRIBED, False),
    ({"event": "group_unsubscribe"}, DeliveryEvent.UNSUBSCRIBED, False),
    ({"event": "group_resubscribe"}, DeliveryEvent.OTHER, False),
    ({"event": "open"}, DeliveryEvent.OPENED, False),
    ({"event": "click"}, DeliveryEvent.CLICKED, False),
    ({"event": "account_status_change"}, DeliveryEvent.OTHER, False),
    ({}, DeliveryEvent.OTHER, False),
]


@pytest.mark.parametrize(("event", "ours", "permanent"), EVENTS)
def test_each_word_of_sendgrid_has_one_of_ours(event, ours, permanent):
    update = one(**event, email="ana@shop.example", sg_event_id="e-1")
    assert (update.event, update.status, update.permanent) == (ours, STATUS_AFTER[ours], permanent)
    assert bool(update.error) is (ours in (DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED))


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ("Lli-03HcQ5-JLybO9fXsJg.filter0077p1las1.21536.5717FC482.0", "Lli-03HcQ5-JLybO9fXsJg"),
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "14c5d75ce93.dfd.64b469"),
        ("LRzXl_NHStOGhQ4kofSm_A.recvd-5f54b5d587-pgzrk-1-6182B2DD-2D.0", "LRzXl_NHStOGhQ4kofSm_A"),
        ("filter0093p1las1.9128.5717FB8127.0", ""),
        ("Lli-03HcQ5-JLybO9fXsJg", "Lli-03HcQ5-JLybO9fXsJg"),
        (7, ""),
    ],
)
def test_an_event_names_the_mail_as_sending_it_did(told, ours):
    assert one(event="delivered", sg_message_id=told).provider_message_id == ours


@pytest.mark.parametrize(("told", "ours"), [("42", 42), (42, 42), ("", None), ("x", None), ("²", None), ("-1", None), ("9" * 30, None)])
def test_our_own_argument_comes_back(told, ours):
    assert one(event="delivered", hub_delivery=told).delivery_id == ours


def test_an_event_without_an_id_has_one_key_over_retries_and_another_than_its_neighbour():
    event = {"event": "open", "email": "ana@shop.example", "timestamp": 1}
    keys = [one(**event).provider_key, one(**event).provider_key, one(**event | {"timestamp": 2}).provider_key]
    assert keys[0] == keys[1] != keys[2]


def test_every_event_of_a_batch_is_read():
    batch = [{"event": "processed", "sg_event_id": str(number)} for number in range(300)]
    assert [update.provider_key for update in channel().parse(posted(json.dumps(batch).encode()))] == [str(number) for number in range(300)]


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[", b"[" * 100_000, b"\xff", b'"x"', b"[" + b"{}," * 10_001 + b"{}]"])
def test_what_is_no_list_of_events_is_unparseable(body):
    with pytest.raises(Unparseable):
        channel().parse(posted(body))


# --- Who may post events ---------------------------------------------------------------------------------------------

KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def public(key) -> str:
    return base64.b64encode(
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode()


PUBLIC = public(KEY)


def signed(key, body=b"[]", timestamp="1700000000") -> Request:
    made = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    return posted(body, **{SIGNATURE: made, TIMESTAMP: timestamp})


@pytest.mark.parametrize(
    ("extra", "request_", "expected"),
    [
        ({"event_verification_key": PUBLIC}, signed(KEY), Verdict.GOOD),
        ({"event_verification_key": PUBLIC, "verification_key": public(OTHER)}, signed(KEY), Verdict.GOOD),
        ({"event_verification_key": PUBLIC, "verification_key": public(OTHER)}, signed(OTHER), Verdict.BAD),
        ({"verification_key": PUBLIC}, signed(KEY), Verdict.GOOD),  # one key for both
        ({"event_verification_key": PUBLIC}, signed(OTHER), Verdict.BAD),
        ({"event_verification_key": PUBLIC}, posted(b"[]"), Verdict.UNSIGNED),
        ({"event_verification_key": PUBLIC}, replace(signed(KEY), body=b"[ ]"), Verdict.BAD),
        ({}, signed(KEY), Verdict.NO_KEY),
        # A key for events alone opens no door for mails.
        (
            {"event_verification_key": PUBLIC},
            Request("POST", PLACE.inbound_url, {"content-type": "multipart/form-data; boundary=x"}, b"--x--"),
            Verdict.NO_KEY,
        ),
    ],
)
def test_who_may_post_events(extra, request_, expected):
    assert channel(**extra).verify(request_, 1_700_000_000.0) is expected


def test_events_that_nothing_signs_are_not_believed():
    """Else anybody who learns the address could have a customer's mailbox marked as dead."""
    sent = posted(json.dumps([{"event": "bounce", "type": "bounce", "email": "ana@shop.example"}]).encode())
    made = channel(allow_unsigned=True)
    assert made.verify(sent, 0) is Verdict.GOOD
    assert [type(found) for found in made.parse(sent)] == [Ignored]
    assert [type(found) for found in channel(allow_unsigned=True, basic_auth="sg:pass").parse(sent)] == [DeliveryUpdate]


# --- The API ---------------------------------------------------------------------------------------------------------


def outbound(**changed) -> OutboundMessage:
    known = OutboundMessage(
        delivery_id=42,
        to="ana@shop.example",
        text="Hello Ana\nit is on its way",
        subject="Re: Where is it? ü",
        sender_name="Bo",
        message_id="<m2@hub.example>",
        in_reply_to="<m1@shop.example>",
        references=("<m0@shop.example>", "<m1@shop.example>"),
        reply_token="tok-1",
        quoted="Where is it?",
    )
    return replace(known, **changed)


def file(name="a.txt", data=b"x", content_id="") -> OutboundAttachment:
    return OutboundAttachment(name, "text/plain", len(data), lambda: data, "https://hub.example/f", content_id)


@functools.cache
def specification() -> OpenAPI:
    config = Config(spec_validator_cls=None)  # it has faults of its own; requests are validated, not the specification
    return OpenAPI.from_dict(json.loads(shared("specs_sendgrid", "tsg_mail_v3.json").read_text()), config=config)


def check_request(headers, body: bytes) -> None:
    specification().validate_request(
        MockRequest("https://api.sendgrid.com", "post", "/v3/mail/send", headers=headers, data=body, content_type="application/json")
    )


class Provider:
    """SendGrid on loopback: keeps what came, answers what it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answer = lambda: web.Response(status=202, headers={"X-Message-Id": "14c5d75ce93"})

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append((dict(request.headers), await request.read()))
        return self.answer()


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/v3/mail/send", made.take)
    async with TestServer(app, host="127.0.0.1") as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


@pytest.fixture
async def http():
    client = GuardedHttp(["127.0.0.1"])
    yield client
    await client.close()


@pytest.mark.parametrize(
    "message",
    [
        outbound(),
        outbound(cc=("cy@shop.example",), attachments=(file(), file("logo.png", b"\x89PNG", "logo"))),
        outbound(subject="", reply_token="", in_reply_to="", references=(), quoted="", automatic=True),
        outbound(html="<p>Hello <b>Ana</b></p>"),
    ],
)
async def test_what_is_sent_is_what_sendgrids_specification_asks_for(provider, http, message):
    sent = await channel(base_url=provider.url).send(message, http)
    assert sent.provider_message_id == "14c5d75ce93"
    ((headers, body),) = provider.seen
    assert headers["Authorization"] == "Bearer SG.KEYWORD"
    check_request(headers, body)


SPOILT = [
    lambda asked: asked.pop("from"),
    lambda asked: asked.pop("personalizations"),
    lambda asked: asked["from"].pop("email"),
    lambda asked: asked["personalizations"][0].pop("to"),
    lambda asked: asked["personalizations"][0].update(to="ana@shop.example"),
    lambda asked: asked["content"][0].update(value=""),
    lambda asked: asked["attachments"][0].pop("filename"),
    lambda asked: asked["attachments"][0].update(content=""),
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_the_specification_refuses_what_we_do_not_send(spoil):
    """The validator's negative twin: one that accepts everything would prove nothing."""
    asked = mail_send(outbound(attachments=(file(),)), channel().settings)
    check_request({"Authorization": "Bearer x"}, json.dumps(asked).encode())
    spoil(asked)
    with pytest.raises(OpenAPIError):
        check_request({"Authorization": "Bearer x"}, json.dumps(asked).encode())


def test_the_specification_refuses_a_request_without_a_key():
    with pytest.raises(OpenAPIError):
        check_request({}, json.dumps(mail_send(outbound(), channel().settings)).encode())


def test_the_mail_says_all_an_smtp_mail_would_and_names_nobody_twice():
    asked = mail_send(
        outbound(cc=("cy@shop.example", "ANA@shop.example", "ana@shop.example"), attachments=(file("a b.txt", b"x"),)), channel().settings
    )
    assert asked["personalizations"] == [
        {
            "to": [{"email": "ana@shop.example"}],
            "cc": [{"email": "cy@shop.example"}],
            "custom_args": {"hub_delivery": "42"},
        }
    ]
    assert (asked["from"], asked["subject"]) == ({"email": "support@hub.example", "name": "Bo"}, "Re: Where is it? ü")
    assert asked["reply_to"] == {"email": "support+tok-1@hub.example"}
    assert asked["headers"] == {
        "Message-ID": "<m2@hub.example>",
        "In-Reply-To": "<m1@shop.example>",
        "References": "<m0@shop.example> <m1@shop.example>",
    }
    plain, rich = (part["value"] for part in asked["content"])
    assert plain.splitlines() == ["Hello Ana", "it is on its way", "", "> Where is it?"]
    assert "it is on its way" in rich
    assert "<blockquote>" in rich
    assert asked["attachments"] == [{"content": "eA==", "type": "text/plain", "filename": "a b.txt", "disposition": "attachment"}]


def test_an_inline_image_keeps_its_content_id():
    (found,) = mail_send(outbound(attachments=(file("logo.png", b"x", "logo"),)), channel().settings)["attachments"]
    assert (found["disposition"], found["content_id"]) == ("inline", "logo")


@pytest.mark.parametrize(
    "bad",
    [
        {"to": "not an address"},
        {"to": "ana@shop.example\r\nBcc: x@y.example"},
        {"cc": ("x\n@y.example",)},
        {"subject": "Hello\r\nBcc: x@y.example"},
        {"sender_name": "Bo\u2028Bcc"},
        {"message_id": "<a@b>\r\nX: y"},
        {"in_reply_to": "no id"},
        {"reply_token": "a b"},
        {"attachments": (file("a.txt", b""),)},
    ],
)
async def test_what_could_start_a_header_of_its_own_never_leaves(provider, http, bad):
    with pytest.raises(Refused):
        await channel(base_url=provider.url).send(outbound(**bad), http)
    assert provider.seen == []


ERROR = {"errors": [{"message": "The from address does not match a verified Sender Identity.", "field": "from"}]}


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "words"),
    [
        (400, {}, Refused, "verified Sender"),
        (401, {}, Refused, "api_key"),
        (403, {}, Refused, "api_key"),
        (413, {}, Refused, "413"),
        (429, {"Retry-After": "7"}, TryLater, "later"),
        (500, {}, Unknown, "may or may not"),
        (503, {}, Unknown, "may or may not"),
    ],
)
async def test_each_answer_means_one_thing(provider, http, status, headers, outcome, words):
    provider.answer = lambda: web.json_response(ERROR, status=status, headers=headers)
    with pytest.raises(outcome, match=words) as caught:
        await channel(base_url=provider.url).send(outbound(), http)
    assert "SG.KEYWORD" not in str(caught.value)
    if outcome is TryLater:
        assert caught.value.retry_after == 7.0


async def test_a_lost_answer_is_unknown_and_a_refused_connection_is_tried_again(provider, http):
    async def cut(request):
        await request.read()
        request.transport.close()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v3/mail/send", cut)
    async with TestServer(app, host="127.0.0.1") as server:
        url = str(server.make_url("")).rstrip("/")
        with pytest.raises(Unknown):
            await channel(base_url=url).send(outbound(), http)
    with pytest.raises(TryLater):
        await channel(base_url=url).send(outbound(), http)


def test_it_says_whether_it_speaks_to_this_machine_and_hides_its_key():
    assert channel(base_url="http://127.0.0.1:9").is_sandbox()
    assert not channel().is_sandbox()
    assert "KEYWORD" not in repr(channel().settings)
    assert channel().can["delivered"] == ""
