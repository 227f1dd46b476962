"""Mandrill: recorded requests read as an independent implementation reads them, and only its own signature lets anything in."""

import ast
import base64
import hashlib
import hmac
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlencode

import pytest
from pydantic import ValidationError

from connectors.email.mandrill import MandrillEmail
from hub.contract import (
    STATUS_AFTER,
    Challenged,
    Channel,
    Checked,
    Checks,
    DeliveryEvent,
    DeliveryUpdate,
    Ignored,
    InboundMessage,
    Place,
    Proof,
    Refused,
    Request,
    Unparseable,
    Verdict,
)
from tests.shared_data import shared

PLACE = Place(name="support", inbound_url="https://hub.example/in/support", key=b"k" * 32)
URL = "http://username:password@testserver/anymail/mandrill/"  # what the recordings were signed for
KEY = "TEST_WEBHOOK_KEY"
FORM = "application/x-www-form-urlencoded"


def channel(**extra) -> MandrillEmail:
    known = {"type": "mandrill", "address": "support@hub.example", "smtp": {"host": "smtp.hub.example"}, "webhook_keys": (KEY,)}
    return MandrillEmail(MandrillEmail.Settings(**(known | extra)), PLACE)


def signed(events: object, key=KEY, url=PLACE.inbound_url, **headers) -> Request:
    """A request as Mandrill makes it: form fields, signed with the URL."""
    text = events if isinstance(events, str) else json.dumps(events)
    made = hmac.digest(key.encode(), f"{url}mandrill_events{text}".encode(), hashlib.sha1)
    known = {"content-type": FORM, "x-mandrill-signature": base64.b64encode(made).decode()}
    return Request("POST", PLACE.inbound_url, known | headers, urlencode({"mandrill_events": text}).encode())


def parsed(*events):
    return channel().parse(signed(list(events)))


def inbound(raw: str, **msg) -> InboundMessage:
    (found,) = parsed({"event": "inbound", "ts": 1, "msg": {"raw_msg": raw, "email": "support@hub.example", **msg}})
    assert isinstance(found, InboundMessage)
    return found


# --- anymail's recordings --------------------------------------------------------------------------------------------

RECORDED = [
    (case["test"].rpartition(".")[2], case["request"], case["response_status"], case["events"])
    for kind in ("inbound", "webhooks")
    for case in json.loads(shared("webhooks_anymail", f"mandrill_{kind}.json").read_text())
]
# Accepted requests that were signed for another URL, or with another key than KEY.
ELSEWHERE = {"test_old_tracking_url", "test_supports_credential_rotation", "test_no_basic_auth", "test_webhook_url_setting"}


def replayed(sent: dict) -> Request:
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    if "x-mandrill-signature" in headers:  # recorded as the text of a Python literal
        headers["x-mandrill-signature"] = ast.literal_eval(headers["x-mandrill-signature"]).decode()
    return Request(sent["method"], PLACE.inbound_url, headers | {"content-type": sent["content_type"]}, (sent.get("body") or "").encode())


def test_the_recordings_are_all_there():
    assert len(RECORDED) == 23
    # The others are refused for their signature, empty, not JSON, or a HEAD request.
    assert Counter(bool(events) for *_, events in RECORDED) == {True: 12, False: 11}


@pytest.mark.parametrize(("name", "sent", "status", "events"), RECORDED, ids=[f"{number}-{row[0]}" for number, row in enumerate(RECORDED)])
def test_recorded_requests_read_as_anymail_reads_them(name, sent, status, events):
    request = replayed(sent)
    if sent["method"] == "HEAD":
        assert channel().challenge(request).status == 200
        return
    if "GARBAGE" in sent["body"]:
        with pytest.raises(Unparseable):
            channel().parse(request)
        return
    found = channel().parse(request)
    if not events:
        assert not any(isinstance(one, InboundMessage) for one in found)
        return
    (about,), (ours,) = events, found
    if about["kind"] == "inbound":
        compare_mail(ours, about)
    else:
        assert isinstance(ours, DeliveryUpdate)
        word = about["event_type"]
        assert (ours.event, ours.recipient) == (DeliveryEvent("other" if word == "unknown" else word), about["recipient"] or "")
        assert ours.provider_message_id == (about["message_id"] or "")
        assert (about["mta_response"] or "") in ours.error


def compare_mail(ours: InboundMessage, about: dict) -> None:
    assert (ours.sender_name, ours.claims[0].value) == (about["from"]["display_name"], about["from"]["addr_spec"])
    assert list(ours.to) == [box["addr_spec"] for box in about["to"]]
    assert list(ours.cc) == [box["addr_spec"] for box in about["cc"]]
    assert (ours.subject, ours.text, ours.html) == (about["subject"], about["text"], about["html"])
    assert (ours.message_id, ours.attachments) == (about["message_id"], ())
    assert ours.sent_at == round(datetime.fromisoformat(about["date"]).timestamp() * 1e6)
    assert ours.spam == {"score": about["spam_score"]}
    assert ours.claims[0].proof is Proof.CLAIMED


def test_recorded_signatures_verify():
    judged = {
        name: channel(webhook_url=URL).verify(replayed(sent), 0)
        for name, sent, status, _ in RECORDED
        if sent["method"] == "POST" and status == 200 and name not in ELSEWHERE
    }
    assert len(judged) == 9
    assert set(judged.values()) == {Verdict.GOOD}


def test_recorded_bad_signatures_do_not():
    judged = {name: channel(webhook_url=URL).verify(replayed(sent), 0) for name, sent, *_ in RECORDED if "signature" in name}
    assert judged["test_verifies_bad_signature"] is Verdict.BAD
    assert judged["test_verifies_missing_signature"] is Verdict.UNSIGNED
    assert judged["test_verifies_correct_signature"] is Verdict.GOOD


def test_a_recorded_webhook_url_counts_letter_by_letter():
    (sent,) = [sent for name, sent, *_ in RECORDED if name == "test_webhook_url_setting"]
    url = "https://abcde:12345@example.com/anymail/mandrill/"
    assert channel(webhook_url=url).verify(replayed(sent), 0) is Verdict.GOOD
    assert channel(webhook_url=url[:-1]).verify(replayed(sent), 0) is Verdict.BAD


# --- Who may post ----------------------------------------------------------------------------------------------------

EVENTS = [{"event": "send", "_id": "m1", "ts": 1}]


@pytest.mark.parametrize(
    ("extra", "sent", "expected"),
    [
        ({}, signed(EVENTS), Verdict.GOOD),
        ({"webhook_keys": ("another", KEY)}, signed(EVENTS), Verdict.GOOD),  # the key of the webhook and that of the route
        ({"webhook_keys": ("another",)}, signed(EVENTS), Verdict.BAD),
        ({}, signed(EVENTS, url="https://hub.example/in/other"), Verdict.BAD),
        ({}, replace(signed(EVENTS), body=urlencode({"mandrill_events": "[]"}).encode()), Verdict.BAD),
        ({}, replace(signed(EVENTS), body=signed(EVENTS).body + b"&more=1"), Verdict.BAD),
        ({}, signed(EVENTS, **{"x-mandrill-signature": ""}), Verdict.UNSIGNED),
        ({}, signed(EVENTS, **{"x-mandrill-signature": "\udcff"}), Verdict.BAD),
        ({}, replace(signed(EVENTS), body=b"&" * 5_000), Verdict.BAD),
        ({"webhook_keys": ()}, signed(EVENTS), Verdict.NO_KEY),
        ({"webhook_keys": ("",)}, signed(EVENTS, key=""), Verdict.NO_KEY),  # an unset variable is no key
    ],
)
def test_who_may_post(extra, sent, expected):
    assert channel(**extra).verify(sent, 0) is expected


def test_a_test_post_is_answered_and_nothing_made_of_it():
    (found,) = channel().parse(signed([]))
    assert isinstance(found, Ignored)
    assert channel().answers.ok.status == 200


# --- Mails -----------------------------------------------------------------------------------------------------------

MAIL = "From: Ana <ana@shop.example>\nSubject: Hello\nMessage-ID: <1@shop.example>\nTo: support+tok-1@hub.example\n\nhi ü\n"


def test_a_mail_is_read_from_its_raw_text():
    found = inbound(MAIL)
    assert (found.text, found.reply_token, found.original) == ("hi ü\n", "tok-1", MAIL.encode())


def test_bytes_that_were_no_text_come_back_as_they_were():
    raw = MAIL.encode().replace("ü".encode(), b"\xfc").decode("utf-8", "surrogateescape")
    assert b"hi \xfc" in inbound(raw).original
    assert inbound(MAIL + "\ud800").original.endswith(b"\xed\xa0\x80")


def test_a_valid_signature_of_nobody_knows_whom_proves_nothing_yet():
    """Mandrill says that DKIM passed and not for which domain, so the mail's own signature is checked after the commit."""
    raw = "DKIM-Signature: v=1; a=rsa-sha256; d=shop.example; s=x; h=from; bh=x; b=x\n" + MAIL
    passed = {"dkim": {"signed": True, "valid": True}, "spf": {"result": "pass", "detail": ""}}
    assert (inbound(raw, **passed).claims[0].proof, inbound(raw, **passed).unchecked) == (Proof.CLAIMED, True)
    assert not inbound(raw, dkim={"signed": True, "valid": False}).unchecked
    assert not inbound(MAIL).unchecked  # no signature of the sender's own


async def test_its_own_signature_is_checked_by_what_the_dns_says():
    async def nothing(name):
        return []

    (checked,) = await channel().check(signed([{"event": "inbound", "msg": {"raw_msg": MAIL}}]), 1e9, nothing)
    assert isinstance(checked, Checked)
    assert checked.proved is None


def test_a_verdict_of_our_own_server_counts_where_it_is_named():
    sent = signed([{"event": "inbound", "msg": {"raw_msg": "Authentication-Results: mx.hub.example; dmarc=pass\n" + MAIL}}])
    assert channel().parse(sent)[0].claims[0].proof is Proof.CLAIMED
    assert channel(authserv_id="mx.hub.example").parse(sent)[0].claims[0].proof is Proof.DMARC


def test_a_mail_delivered_again_in_another_batch_keeps_its_key():
    event = {"event": "inbound", "ts": 1, "msg": {"raw_msg": MAIL}}
    assert parsed(event)[0].provider_key == parsed(*EVENTS, event | {"ts": 2})[1].provider_key


# --- News ------------------------------------------------------------------------------------------------------------

NEWS = [
    ("send", DeliveryEvent.SENT, False),
    ("delivered", DeliveryEvent.DELIVERED, False),
    ("deferral", DeliveryEvent.DEFERRED, False),
    ("hard_bounce", DeliveryEvent.BOUNCED, True),
    ("soft_bounce", DeliveryEvent.BOUNCED, False),
    ("reject", DeliveryEvent.REJECTED, False),
    ("spam", DeliveryEvent.COMPLAINED, False),
    ("open", DeliveryEvent.OPENED, False),
    ("click", DeliveryEvent.CLICKED, False),
    ("unsub", DeliveryEvent.UNSUBSCRIBED, False),
    ("something new", DeliveryEvent.OTHER, False),
]


@pytest.mark.parametrize(("word", "ours", "permanent"), NEWS)
def test_each_word_of_mandrill_has_one_of_ours(word, ours, permanent):
    msg = {
        "email": "ana@shop.example",
        "diag": "550 no such user",
        "metadata": {"hub_delivery": "42"},
        "headers": {"Message-Id": "<m@hub.example>"},
    }
    (update,) = parsed({"event": word, "_id": "m1", "ts": 1, "msg": msg})
    assert (update.event, update.status, update.permanent) == (ours, STATUS_AFTER[ours], permanent)
    assert (update.provider_message_id, update.recipient, update.delivery_id) == ("m1", "ana@shop.example", 42)
    assert update.mail_id == "<m@hub.example>"
    assert ("550 no such user" in update.error) is (ours in (DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED))


def test_the_same_news_has_one_key_and_other_news_of_the_same_mail_another():
    click = {"event": "click", "_id": "m1", "ts": 1, "url": "https://shop.example/a"}
    keys = [
        found.provider_key
        for found in parsed(click, click, click | {"ts": 2}, click | {"url": "https://shop.example/b"}, click | {"event": "open"})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"other=1", FORM),
        (b"mandrill_events=%7B%7D", FORM),
        (b"mandrill_events=%5B1%5D", FORM),
        (b"mandrill_events=" + b"[" * 100_000, FORM),
        (b"mandrill_events=" + urlencode({"": json.dumps([{"event": "inbound", "msg": {}}])})[1:].encode(), FORM),
        (b"--x", "multipart/form-data; boundary=x"),
    ],
)
def test_what_cannot_be_understood_is_unparseable(body, content_type):
    with pytest.raises(Unparseable):
        channel().parse(Request("POST", PLACE.inbound_url, {"content-type": content_type}, body))


async def test_it_is_a_channel_as_the_contract_says():
    made = channel(webhook_keys=("SECRETWORD",))
    assert isinstance(made, Channel)
    assert isinstance(made, Challenged)
    assert isinstance(made, Checks)
    assert "SECRETWORD" not in repr(made.settings)
    with pytest.raises(Refused):
        await made.fetch("https://evil.example/x", None)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="smtp"):
        channel(smtp=None)
