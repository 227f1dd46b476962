"""Mailgun, MailerSend, Postmark and Resend: recorded requests read as an independent implementation reads them, signatures, and the ways
out against a server on loopback."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from connectors import CHANNELS, load
from connectors.shared.mail_channel import MailChannel
from connectors.shared.webhook_signing import sign
from hub.contract import (
    DeliveryEvent,
    DeliveryUpdate,
    Ignored,
    InboundMessage,
    OutboundAttachment,
    OutboundMessage,
    Place,
    Proof,
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
KEYS = {
    "mailgun": {"signing_key": "TEST_WEBHOOK_SIGNING_KEY"},
    "mailersend": {"inbound_secret": "TEST_INBOUND_SECRET", "signing_secret": "TEST_WEBHOOK_SIGNING_SECRET"},
    "postmark": {"basic_auth": "user:pass"},
    "resend": {"webhook_secret": "whsec_" + base64.b64encode(b"r" * 32).decode()},
}


def channel(type_: str, **extra: Any) -> MailChannel:
    cls = load(CHANNELS[type_])
    known = {"type": type_, "address": "support@hub.example", "smtp": {"host": "smtp.hub.example"}, **KEYS[type_]}
    built: MailChannel = cls(cls.Settings(**(known | extra)), PLACE)
    return built


def posted(body: object, content_type: str = "application/json", **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", PLACE.inbound_url, {"content-type": content_type, **headers}, data)


# --- anymail's recordings --------------------------------------------------------------------------------------------


def recorded(type_: str) -> list[tuple[str, str, dict[str, Any], Any, list[dict[str, Any]]]]:
    return [
        (type_, case["test"].rpartition(".")[2], case["request"], case["response_status"], case["events"])
        for kind in ("inbound", "webhooks")
        for case in json.loads(shared("webhooks_anymail", f"{type_}_{kind}.json").read_text())
    ]


def request_of(sent: dict[str, Any]) -> Request:
    body = base64.b64decode(sent["body_base64"]) if sent.get("body_base64") is not None else (sent.get("body") or "").encode()
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    headers = {name: ast.literal_eval(value).decode() if value.startswith("b'") else value for name, value in headers.items()}
    return Request("POST", PLACE.inbound_url, {**headers, "content-type": sent["content_type"]}, body)


RECORDED = [*recorded("mailgun"), *recorded("mailersend")]
THEIR_WORDS = {"queued": "sent", "failed": "bounced", "unknown": "other"}
# Where we differ on purpose from the result recorded beside the request.
ONE_ADDRESS = "mails and events come to one address here and are told apart by their shape; anymail has two, and these came to the other"
DIFFERENT = {
    "test_misconfigured_inbound": ONE_ADDRESS,
    "test_misconfigured_tracking": ONE_ADDRESS,
    "test_misconfigured_tracking_legacy": ONE_ADDRESS,
}
TEXT_OF_A_FILE = "the mail has no text; anymail takes that of a mail that is attached to it"
NAMELESS = "a file without a usable name is kept under one made of its number; anymail leaves it out"


def test_the_recordings_are_all_there() -> None:
    assert Counter(type_ for type_, *_ in RECORDED) == {"mailgun": 44, "mailersend": 37}


@pytest.mark.parametrize(
    ("type_", "name", "sent", "status", "events"), RECORDED, ids=[f"{n}-{row[0]}-{row[1]}" for n, row in enumerate(RECORDED)]
)
def test_recorded_requests_read_as_anymail_reads_them(type_: str, name: str, sent: Any, status: Any, events: list[dict[str, Any]]) -> None:
    request = request_of(sent)
    if not events:
        if name in DIFFERENT:
            assert len(channel(type_).parse(request)) == 1
        elif name == "test_misconfigured_store_action":
            with pytest.raises(Unparseable, match="forward"):
                channel(type_).parse(request)
        elif status == 400 and "auth" not in name and "rotation" not in name:
            assert channel(type_).verify(request, 0) in (Verdict.BAD, Verdict.UNSIGNED)
        return
    (about,), (ours,) = events, channel(type_).parse(request)
    if about["kind"] == "tracking":
        assert isinstance(ours, DeliveryUpdate)
        assert ours.event is DeliveryEvent(THEIR_WORDS.get(about["event_type"], about["event_type"]))
        assert ours.recipient == (about["recipient"] or "")
        assert ours.provider_message_id == (about["message_id"] or "")
        assert (ours.status.value == "failed") == (about["event_type"] in ("bounced", "rejected", "failed"))
        return
    assert isinstance(ours, InboundMessage)
    _is_same_mail(name, ours, about)


def _is_same_mail(name: str, ours: InboundMessage, about: dict[str, Any]) -> None:
    sender = about["from"] or {"display_name": "", "addr_spec": ""}
    assert (ours.sender_name, ours.claims[0].value if ours.claims else "") == (sender["display_name"], sender["addr_spec"])
    assert list(ours.to) == [box["addr_spec"] for box in about["to"]]
    assert list(ours.cc) == [box["addr_spec"] for box in about["cc"]]
    assert (ours.subject, ours.message_id) == (about["subject"] or "", about["message_id"] or "")
    assert ours.external_id == (about["event_id"] or "")
    if about["spam_score"] is not None:
        assert ours.spam["score"] == about["spam_score"]
    theirs = [*about["attachments"], *about["inlines"]]
    if name == "test_attachments":
        assert ours.text == "", TEXT_OF_A_FILE
    else:
        assert ours.text.strip() == (about["text"] or "").replace("\r\n", "\n").strip()
        assert ours.html.strip() == (about["html"] or "").replace("\r\n", "\n").strip()
    files = [file for file in ours.attachments if theirs or not file.name.startswith("attachment-")]
    if name == "test_unusual_content_id_map":
        files = [file for file in files if file.name in ("attachment-2", "attachment-4")]  # the others are plain attachments
    assert sorted((file.name, file.content_type) for file in files) == sorted((one["filename"], one["content_type"]) for one in theirs), (
        NAMELESS
    )
    for one in theirs:
        file = next(file for file in files if file.name == one["filename"])
        assert abs(len(file.data or b"") - one["size"]) <= 1, "a mail within a mail: with its last line end, or without"
        if one["content_id"]:
            assert (file.content_id, file.inline) == (one["content_id"].strip("<>"), True)


def test_recorded_signatures_verify_and_one_changed_byte_does_not() -> None:
    verified = Counter[str]()
    for type_, _, sent, status, _ in RECORDED:
        request = request_of(sent)
        verdict = channel(type_).verify(request, 0)
        if status == 200 and verdict is Verdict.GOOD:
            verified[type_] += 1
            if type_ == "mailersend":
                assert channel(type_).verify(replace(request, body=request.body + b" "), 0) is Verdict.BAD
    assert verified["mailgun"] >= 30
    assert verified["mailersend"] >= 10


# --- signatures ------------------------------------------------------------------------------------------------------


def mailgun_event(key: str, token: str = "t" * 50, **event: Any) -> Request:
    signature = hmac.new(key.encode(), f"1700000000{token}".encode(), hashlib.sha256).hexdigest()
    return posted({"signature": {"timestamp": "1700000000", "token": token, "signature": signature}, "event-data": event})


def svix(body: object, key: bytes = b"r" * 32, at: int = 1_700_000_000) -> Request:
    data = json.dumps(body).encode()
    headers = {"svix-id": "msg_1", "svix-timestamp": str(at), "svix-signature": sign(key, "msg_1", at, data)}
    return posted(data, **headers)


def signed(type_: str, right: bool) -> Request:
    if type_ == "mailgun":
        return mailgun_event(KEYS["mailgun"]["signing_key"] if right else "other", event="delivered")
    if type_ == "mailersend":
        body = b'{"data": {"type": "sent"}}'
        key = KEYS["mailersend"]["signing_secret"] if right else KEYS["mailersend"]["inbound_secret"]
        return posted(body, signature=hmac.new(key.encode(), body, hashlib.sha256).hexdigest())
    if type_ == "postmark":
        login = base64.b64encode(b"user:pass" if right else b"user:no").decode()
        return posted({"RecordType": "Open"}, authorization=f"Basic {login}")
    return svix({"type": "email.sent", "data": {}}, b"r" * 32 if right else b"x" * 32)


@pytest.mark.parametrize("type_", KEYS)
def test_only_the_providers_own_signature_is_good_and_no_key_takes_nothing(type_: str) -> None:
    nine_hours_later = 1_700_000_000 + 9 * 3_600 - 1  # a retry
    assert channel(type_).verify(signed(type_, True), nine_hours_later) is Verdict.GOOD
    assert channel(type_).verify(signed(type_, False), nine_hours_later) is Verdict.BAD
    assert channel(type_).verify(posted({}), 0) is Verdict.UNSIGNED
    assert channel(type_, **dict.fromkeys(KEYS[type_], "")).verify(signed(type_, True), 0) is Verdict.NO_KEY
    for name, value in KEYS[type_].items():
        assert value not in repr(channel(type_).settings), name
    assert channel(type_).answers.bad_signature not in (403, 406), "those stop Postmark and Mailgun for good"


def test_the_secret_of_a_mailersend_route_signs_no_event() -> None:
    body = b'{"type": "inbound.message", "data": {"raw": "x"}}'
    by = {name: hmac.new(key.encode(), body, hashlib.sha256).hexdigest() for name, key in KEYS["mailersend"].items()}
    assert channel("mailersend").verify(posted(body, signature=by["inbound_secret"]), 0) is Verdict.GOOD
    assert channel("mailersend").verify(posted(body, signature=by["signing_secret"]), 0) is Verdict.BAD


@pytest.mark.parametrize("type_", KEYS)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"a": ' * 5_000, b"\xff\xfe", b'{"type": "email.received", "data": 7}'])
def test_what_is_none_of_its_own_is_unparseable_or_of_no_consequence(type_: str, body: bytes) -> None:
    try:
        found = channel(type_).parse(posted(body))
    except Unparseable:
        return
    assert all(isinstance(one, Ignored) for one in found)


@pytest.mark.parametrize(
    ("code", "enhanced", "severity", "event", "permanent"),
    [
        (550, "", "permanent", DeliveryEvent.BOUNCED, True),
        (550, "5.1.1", "permanent", DeliveryEvent.BOUNCED, True),
        (550, "5.7.1", "permanent", DeliveryEvent.BOUNCED, False),  # blocked, as spam say: the mailbox lives
        (550, "5.2.2", "permanent", DeliveryEvent.BOUNCED, False),  # full
        (552, "", "permanent", DeliveryEvent.BOUNCED, False),
        (452, "", "temporary", DeliveryEvent.DEFERRED, False),
    ],
)
def test_mailgun_tells_a_dead_address_from_a_full_one(
    code: int, enhanced: str, severity: str, event: DeliveryEvent, permanent: bool
) -> None:
    status = {"code": code, "message": "said the server"} | ({"enhanced-code": enhanced} if enhanced else {})
    told = mailgun_event("k", id="e1", event="failed", severity=severity, recipient="a@b.example", **{"delivery-status": status})
    (found,) = channel("mailgun").parse(told)
    assert isinstance(found, DeliveryUpdate)
    assert (found.provider_key, found.event, found.permanent, found.error) == (
        "event:e1", event, permanent, f"Mailgun: failed, {code}, said the server",
    )  # fmt: skip


def test_a_verdict_of_mailgun_that_the_sender_wrote_proves_nothing() -> None:
    mail = b"From: ceo@bank.example\r\nTo: support@hub.example\r\nX-Mailgun-Spf: Pass\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"
    fields = {"body-mime": mail.decode(), "sender": "ceo@bank.example", "recipient": "support@hub.example", "token": "t"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    (found,) = channel("mailgun").parse(Request("POST", "https://hub.example/in/support", form, urlencode(fields).encode()))
    assert isinstance(found, InboundMessage)
    assert [claim.proof for claim in found.claims] == [Proof.CLAIMED]


# --- Postmark --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["", "-with-raw"])
def test_postmarks_published_payloads_read_as_what_they_are(raw: str) -> None:
    body = shared("webhooks_anymail", "test_files", f"postmark-inbound-test-payload{raw}.json").read_bytes()
    (found,) = channel("postmark").parse(posted(body))
    assert isinstance(found, InboundMessage)
    assert (found.claims[0].value, found.sender_name, found.subject) == ("support@postmarkapp.com", "Postmarkapp Support", "Test subject")
    if not raw:  # the whole mail beside it is another one
        assert found.cc[:1] == ("firstcc@postmarkapp.com",)
        assert [(file.name, len(file.data or b"")) for file in found.attachments] == [("test.txt", 45)]
    assert found.external_id == "00000000-0000-0000-0000-000000000000"
    assert (found.original is not None) is bool(raw)
    assert found.claims[0].proof is Proof.CLAIMED, "Postmark says nothing of who wrote it"


@pytest.mark.parametrize(
    ("told", "event", "permanent"),
    [
        ({"RecordType": "Delivery", "Recipient": "a@b.example"}, DeliveryEvent.DELIVERED, False),
        ({"RecordType": "Bounce", "ID": 7, "Type": "HardBounce", "Email": "a@b.example"}, DeliveryEvent.BOUNCED, True),
        ({"RecordType": "Bounce", "ID": 7, "Type": "SoftBounce", "Email": "a@b.example"}, DeliveryEvent.BOUNCED, False),
        ({"RecordType": "Bounce", "ID": 7, "Type": "Transient", "Email": "a@b.example"}, DeliveryEvent.DEFERRED, False),
        ({"RecordType": "Bounce", "ID": 7, "Type": "AutoResponder", "Email": "a@b.example"}, DeliveryEvent.OTHER, False),
        ({"RecordType": "SpamComplaint", "ID": 7, "Type": "SpamComplaint", "Email": "a@b.example"}, DeliveryEvent.COMPLAINED, False),
        ({"RecordType": "Open", "Recipient": "a@b.example"}, DeliveryEvent.OPENED, False),
        ({"RecordType": "Click", "Recipient": "a@b.example"}, DeliveryEvent.CLICKED, False),
        (
            {
                "RecordType": "SubscriptionChange",
                "Recipient": "a@b.example",
                "SuppressSending": True,
                "SuppressionReason": "ManualSuppression",
            },
            DeliveryEvent.UNSUBSCRIBED,
            False,
        ),
    ],
)
def test_postmarks_news_by_record_type(told: dict[str, Any], event: DeliveryEvent, permanent: bool) -> None:
    request = posted({**told, "MessageID": "m-1", "Metadata": {"hub_delivery": "12"}})
    (found,) = channel("postmark").parse(request)
    assert isinstance(found, DeliveryUpdate)
    assert (found.event, found.recipient, found.permanent) == (event, "a@b.example", permanent)
    assert (found.provider_message_id, found.delivery_id) == ("m-1", 12)
    assert channel("postmark").parse(request) == [found], "the same key however often it is told"


# --- Resend ----------------------------------------------------------------------------------------------------------

MAIL = b"From: Ana <ana@shop.example>\r\nTo: support@hub.example\r\nSubject: Hello\r\nMessage-ID: <1@shop.example>\r\n\r\nWhere is it?\r\n"
RECEIVED = {"type": "email.received", "data": {"email_id": "56761188-7520-42d8-8898-ff6fc54ce618", "to": ["support@hub.example"]}}


@pytest.mark.parametrize("whole", [True, False])
async def test_a_mail_that_resend_only_tells_of_is_fetched_with_the_key_from_resend_alone(whole: bool) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers.get("Authorization", "")))
        if request.path.startswith("/raw"):
            return web.Response(body=MAIL)
        told: dict[str, Any] = {"from": "Ana <ana@shop.example>", "to": ["support@hub.example"], "subject": "Hello", "text": "Where is it?"}
        told["message_id"] = "<1@shop.example>"
        return web.json_response(told | ({"raw": {"download_url": f"http://127.0.0.1:{server.port}/raw?sig=1"}} if whole else {}))

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        one = channel("resend", api_key="re_key", base_url=f"http://127.0.0.1:{server.port}")
        http = GuardedHttp([f"127.0.0.1:{server.port}"])
        try:
            expanded = await one.expand(posted(RECEIVED), http)  # type: ignore[attr-defined]
        finally:
            await http.close()
    (found,) = one.parse(expanded)
    assert isinstance(found, InboundMessage)
    assert (found.claims[0].value, found.text.strip(), found.message_id) == ("ana@shop.example", "Where is it?", "<1@shop.example>")
    assert found.original == (MAIL if whole else None)
    assert asked[0] == ("/emails/receiving/56761188-7520-42d8-8898-ff6fc54ce618", "Bearer re_key")
    assert asked[1:] == ([("/raw", "")] if whole else []), "what signs itself needs no key of ours"


async def test_what_cannot_be_fetched_now_is_fetched_later_and_what_is_gone_is_said() -> None:
    answers = iter([500, 404, 401])

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=next(answers))

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        one: Any = channel("resend", api_key="re_key", base_url=f"http://127.0.0.1:{server.port}")
        http = GuardedHttp([f"127.0.0.1:{server.port}"])
        try:
            for wrong in (TryLater, Unparseable, TryLater):
                with pytest.raises(wrong) as caught:
                    await one.expand(posted(RECEIVED), http)
                assert "re_key" not in str(caught.value)
        finally:
            await http.close()
    with pytest.raises(TryLater, match="api_key"):
        await channel("resend").expand(posted(RECEIVED), GuardedHttp([]))  # type: ignore[attr-defined]


# --- ways out --------------------------------------------------------------------------------------------------------


def answer_to_ana(**more: Any) -> OutboundMessage:
    file = OutboundAttachment("bill.pdf", "application/pdf", 3, lambda: b"pdf", "https://hub.example/files/x")
    known: dict[str, Any] = {
        "delivery_id": 12, "to": "ana@shop.example", "text": "On its way.", "subject": "Re: Hello", "message_id": "<2@hub.example>",
        "in_reply_to": "<1@shop.example>", "references": ("<1@shop.example>",), "reply_token": "1.2.abc", "attachments": (file,),
        "cc": ("bob@shop.example",), "sender_name": 'Ben "B"',
    }  # fmt: skip
    return OutboundMessage(**(known | more))


@pytest.mark.parametrize(
    ("type_", "own", "good"),
    [("postmark", {"server_token": "pm-token"}, {"ErrorCode": 0, "MessageID": "pm-1"}), ("resend", {"api_key": "re_key"}, {"id": "re-1"})],
)
async def test_an_answer_leaves_by_the_api_whole_and_every_refusal_is_what_it_is(
    type_: str, own: dict[str, str], good: dict[str, Any]
) -> None:
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []
    statuses = iter([(200, good), (422, {"ErrorCode": 300, "Message": "no"}), (401, {}), (429, {}), (500, {})])

    async def answer(request: web.Request) -> web.Response:
        seen.append(({name.lower(): value for name, value in request.headers.items()}, await request.json()))
        status, told = next(statuses)
        return web.json_response(told, status=status, headers={"Retry-After": "7"})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        one = channel(type_, smtp=None, base_url=f"http://127.0.0.1:{server.port}", **own)
        http = GuardedHttp([f"127.0.0.1:{server.port}"])
        try:
            sent = await one.send(answer_to_ana(), http)
            assert sent.provider_message_id == next(iter(value for value in good.values() if isinstance(value, str)))
            for wrong in (Refused, Refused, TryLater, TryLater if one.idempotent else Unknown):
                with pytest.raises(wrong) as caught:
                    await one.send(answer_to_ana(), http)
                assert not any(secret in str(caught.value) for secret in own.values())
        finally:
            await http.close()
    _, body = seen[0]
    said = {name.lower(): value for name, value in body.items()}
    listed = said["headers"]
    lines = {line["Name"]: line["Value"] for line in listed} if isinstance(listed, list) else listed
    assert (lines["Message-ID"], lines["In-Reply-To"], lines["References"]) == ("<2@hub.example>", "<1@shop.example>", "<1@shop.example>")
    assert "On its way." in (said.get("textbody") or said["text"])
    assert said.get("replyto", said.get("reply_to")) == "support+1.2.abc@hub.example"
    assert base64.b64decode(said["attachments"][0].get("Content") or said["attachments"][0]["content"]) == b"pdf"
    assert "bob@shop.example" in str(said["cc"])
    assert "12" in json.dumps(said.get("metadata") or said["tags"])
    assert said["from"] == '"Ben B" <support@hub.example>'
    if type_ == "resend":
        assert {each["idempotency-key"] for each, _ in seen} == {"support-12-2@hub.example"}


@pytest.mark.parametrize("type_", ["postmark", "resend"])
async def test_where_nobody_listens_nothing_went_and_a_header_cannot_be_forged(type_: str) -> None:
    own = {"postmark": {"server_token": "t"}, "resend": {"api_key": "k"}}[type_]
    one = channel(type_, smtp=None, base_url="http://127.0.0.1:9", **own)
    http = GuardedHttp(["127.0.0.1:9"])
    try:
        with pytest.raises(TryLater):
            await one.send(answer_to_ana(), http)
        with pytest.raises(Refused):
            await one.send(answer_to_ana(subject="Hello\r\nBcc: eve@evil.example"), http)
    finally:
        await http.close()
