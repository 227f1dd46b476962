"""Brevo: recorded requests read as an independent implementation reads them, attachments fetched with the key only from Brevo itself."""

import base64
import json
from collections import Counter
from datetime import datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from connectors.email.brevo import BrevoEmail
from hub.contract import (
    STATUS_AFTER,
    Channel,
    DeliveryEvent,
    DeliveryUpdate,
    InboundMessage,
    NotSent,
    Place,
    Proof,
    Refused,
    Request,
    TryLater,
    Unparseable,
    Verdict,
)
from hub.http import GuardedHttp
from tests.shared_data import shared

PLACE = Place(name="support", inbound_url="https://hub.example/in/support", key=b"k" * 32)
TOKEN = "a-token-of-some-length-1234"


def channel(**extra) -> BrevoEmail:
    known = {"type": "brevo", "address": "support@hub.example", "smtp": {"host": "smtp.hub.example"}, "basic_auth": "brevo:pass"}
    return BrevoEmail(BrevoEmail.Settings(**(known | extra)), PLACE)


def posted(body: object, url=PLACE.inbound_url, **headers) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", url, {"content-type": "application/json", **headers}, data)


def mail(**item) -> InboundMessage:
    headers = {"From": "Ana <ana@shop.example>", "To": "support@hub.example", "Subject": "Hello", "Message-ID": "<1@shop.example>"}
    known = {"Headers": headers | item.pop("headers", {}), "RawTextBody": "hi", "RawHtmlBody": None, "Attachments": []}
    (found,) = channel(authserv_id=item.pop("authserv_id", "")).parse(posted({"items": [known | item]}))
    assert isinstance(found, InboundMessage)
    return found


# --- anymail's recordings --------------------------------------------------------------------------------------------

RECORDED = [
    (case["test"].rpartition(".")[2], case["request"], case["response_status"], case["events"])
    for kind in ("inbound", "webhooks")
    for case in json.loads(shared("webhooks_anymail", f"brevo_{kind}.json").read_text())
]
# anymail's word -> ours, where they differ.
THEIR_WORDS = {"queued": DeliveryEvent.SENT, "failed": DeliveryEvent.REJECTED, "unknown": DeliveryEvent.OTHER}


def test_the_recordings_are_all_there():
    assert len(RECORDED) == 29
    assert Counter(events[0]["kind"] if events else "" for *_, events in RECORDED) == {"inbound": 3, "tracking": 21, "": 5}


@pytest.mark.parametrize(("name", "sent", "status", "events"), RECORDED, ids=[f"{number}-{row[0]}" for number, row in enumerate(RECORDED)])
def test_recorded_requests_read_as_anymail_reads_them(name, sent, status, events):
    request = posted((sent.get("body") or "").encode())
    (ours,) = channel().parse(request)
    if not events:  # refused there for its credentials, or sent to the address of the other kind
        assert not isinstance(ours, InboundMessage) or status is None
        return
    (about,) = events
    if about["kind"] == "tracking":
        assert isinstance(ours, DeliveryUpdate)
        assert ours.event is (THEIR_WORDS.get(about["event_type"]) or DeliveryEvent(about["event_type"]))
        assert (ours.recipient, ours.provider_message_id) == (about["recipient"] or "", about["message_id"] or "")
        if ours.status is STATUS_AFTER[DeliveryEvent.BOUNCED]:
            assert " ".join((about["mta_response"] or "").split()) in ours.error
        return
    if about["from"] is None:  # nobody's mail: read all the same, and kept aside by the hub
        assert ours.claims == ()
        return
    assert (ours.sender_name, ours.claims[0].value) == (about["from"]["display_name"], about["from"]["addr_spec"])
    assert list(ours.to) == [box["addr_spec"] for box in about["to"]]
    assert list(ours.cc) == [box["addr_spec"] for box in about["cc"]]
    assert (ours.subject, ours.message_id, ours.external_id) == (about["subject"], about["message_id"], about["event_id"])
    assert (ours.text, ours.html) == (about["text"].replace("\r\n", "\n"), about["html"].replace("\r\n", "\n"))
    assert ours.sent_at == round(datetime.fromisoformat(about["date"]).timestamp() * 1e6)
    assert ours.spam == {"score": about["spam_score"]}


def test_recorded_attachments_read_as_anymail_reads_them_once_somebody_sent_them():
    (sent, (about,)) = next((sent, events) for name, sent, _, events in RECORDED if name == "test_attachments")
    item = json.loads(sent["body"])["items"][0]
    item["Headers"]["From"] = "ana@shop.example"
    (found,) = channel().parse(posted({"items": [item]}))
    theirs = [
        (box["content_type"], box["filename"], (box["content_id"] or "").strip("<>"), box["inline"])
        for box in about["attachments"] + about["inlines"]
    ]
    ours = [(file.content_type, file.name, file.content_id, file.inline) for file in found.attachments]
    # A nameless file gets a name people can open it by.
    assert sorted(ours) == sorted((kind, name or "attachment-3.eml", content_id, inline) for kind, name, content_id, inline in theirs)
    assert [file.url for file in found.attachments] == [
        f"https://api.brevo.com/v3/inbound/attachments/download-token-{word}" for word in ("text", "image", "email")
    ]
    assert all(file.data is None for file in found.attachments)


# --- Mails -----------------------------------------------------------------------------------------------------------


def test_every_mail_of_a_delivery_is_read():
    items = [{"Headers": {"From": f"a{number}@shop.example"}, "RawTextBody": "hi"} for number in range(3)]
    assert [found.claims[0].value for found in channel().parse(posted({"items": items}))] == [
        f"a{number}@shop.example" for number in range(3)
    ]


def test_a_mail_delivered_again_keeps_its_key_though_its_files_have_new_tokens():
    def file(token):
        return [{"Name": "a.txt", "ContentType": "text/plain", "DownloadToken": token}]

    assert mail(Attachments=file("t1")).provider_key == mail(Attachments=file("t2")).provider_key != mail().provider_key


def test_the_token_is_found_where_only_brevo_names_the_recipient():
    assert mail(Recipients=["support+tok-1@hub.example"]).reply_token == "tok-1"
    assert mail(headers={"Delivered-To": "support+tok-2@hub.example"}).reply_token == "tok-2"


def test_html_alone_still_has_words():
    found = mail(RawTextBody="", RawHtmlBody="<p>Hi</p><p>Ana</p>")
    assert (found.text, found.html) == ("Hi\n\nAna", "<p>Hi</p><p>Ana</p>")


def test_what_headers_say_of_themselves_proves_nothing_unless_it_is_our_own_servers_word():
    said = {"Authentication-Results": ["mx.hub.example; dmarc=pass", "evil.example; dmarc=fail"]}
    assert mail(headers=said).claims[0].proof is Proof.CLAIMED
    assert mail(headers=said, authserv_id="mx.hub.example").claims[0].proof is Proof.DMARC
    assert "DMARC fail" in mail(headers=said, authserv_id="evil.example").doubt


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"\xff",
        b"[" * 100_000,
        b"7",
        b"[1]",
        {"items": {}},
        {"items": [1]},
        {"items": [{}]},
        {"items": [{"Headers": []}]},
        {"items": [{"Headers": {"From": 7}}]},
        {"items": [{"Headers": {"From": "a@b.example"}, "Attachments": [{"Name": "a"}]}]},
        {"items": [{"Headers": {"From": "a@b.example"}, "Attachments": "x"}]},
        {"items": [{"Headers": {"From": "a@b.example"}, "Attachments": [{"DownloadToken": "t"}] * 201}]},
        {"items": [{"Headers": {"From": "a@b.example"}}] * 2_001},
    ],
)
def test_what_cannot_be_understood_is_unparseable(body):
    with pytest.raises(Unparseable):
        channel().parse(posted(body))


# --- News ------------------------------------------------------------------------------------------------------------

NEWS = [
    ("request", DeliveryEvent.SENT, False),
    ("delivered", DeliveryEvent.DELIVERED, False),
    ("deferred", DeliveryEvent.DEFERRED, False),
    ("hard_bounce", DeliveryEvent.BOUNCED, True),
    ("invalid_email", DeliveryEvent.BOUNCED, True),
    ("soft_bounce", DeliveryEvent.BOUNCED, False),
    ("blocked", DeliveryEvent.REJECTED, False),
    ("error", DeliveryEvent.REJECTED, False),
    ("spam", DeliveryEvent.COMPLAINED, False),
    ("complaint", DeliveryEvent.COMPLAINED, False),
    ("opened", DeliveryEvent.OPENED, False),
    ("unique_opened", DeliveryEvent.OPENED, False),
    ("proxy_open", DeliveryEvent.OPENED, False),
    ("click", DeliveryEvent.CLICKED, False),
    ("unsubscribed", DeliveryEvent.UNSUBSCRIBED, False),
    ("list_addition", DeliveryEvent.OTHER, False),
]


@pytest.mark.parametrize(("word", "ours", "permanent"), NEWS)
def test_each_word_of_brevo_has_one_of_ours(word, ours, permanent):
    event = {"event": word, "email": "ana@shop.example", "message-id": "<m@hub.example>", "reason": "550 no such user"}
    (update,) = channel().parse(posted(event))
    assert (update.event, update.status, update.permanent) == (ours, STATUS_AFTER[ours], permanent)
    assert (update.mail_id, update.recipient) == ("<m@hub.example>", "ana@shop.example")
    assert ("550" in update.error) is (ours in (DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED))


def test_the_same_news_has_one_key_and_other_news_another():
    event = {"event": "click", "email": "ana@shop.example", "message-id": "<m@hub.example>", "ts_epoch": 1}
    others = [
        event | {"ts_epoch": 2},
        event | {"event": "opened"},
        event | {"email": "b@shop.example"},
        event | {"link": "https://x.example"},
    ]
    first, again, *rest = [found.provider_key for found in channel().parse(posted([event, event, *others]))]  # Brevo's batched form
    assert first == again
    assert len({first, *rest}) == 5


# --- Who may post ----------------------------------------------------------------------------------------------------


def basic(pair: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


@pytest.mark.parametrize(
    ("extra", "sent", "expected"),
    [
        ({"basic_auth": ""}, posted({}), Verdict.NO_KEY),
        ({}, posted({}, **basic("brevo:pass")), Verdict.GOOD),
        ({}, posted({}, **basic("brevo:Pass")), Verdict.BAD),
        ({}, posted({}), Verdict.UNSIGNED),
        ({"basic_auth": "", "token": TOKEN}, posted({}, authorization=f"Bearer {TOKEN}"), Verdict.GOOD),
        ({"basic_auth": "", "token": TOKEN}, posted({}, authorization=f"Bearer {TOKEN}x"), Verdict.BAD),
        ({"basic_auth": "", "token": TOKEN}, posted({}, f"{PLACE.inbound_url}?token={TOKEN}"), Verdict.GOOD),
        ({"basic_auth": "", "token": TOKEN}, posted({}, f"{PLACE.inbound_url}?token={TOKEN[:-1]}"), Verdict.BAD),
        ({"basic_auth": "", "token": TOKEN}, posted({}, f"{PLACE.inbound_url}?token=x&token={TOKEN}"), Verdict.BAD),
        ({"basic_auth": "", "token": TOKEN}, posted({}), Verdict.UNSIGNED),
        ({"token": TOKEN}, posted({}, f"{PLACE.inbound_url}?token={TOKEN}"), Verdict.UNSIGNED),  # both: both must hold
        ({"token": TOKEN}, posted({}, f"{PLACE.inbound_url}?token={TOKEN}", **basic("brevo:pass")), Verdict.GOOD),
    ],
)
def test_who_may_post(extra, sent, expected):
    assert channel(**extra).verify(sent, 0) is expected


def test_brevo_is_answered_what_it_tries_again_on_until_the_credentials_have_held_once():
    """Brevo gives up for good on every 4xx but 429, and on 5xx."""
    answers = channel().answers
    assert (answers.ok.status, answers.bad_signature_until_verified, answers.bad_signature, answers.too_big) == (200, 429, 401, 200)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"token": "short"}, "20 characters"),
        ({"basic_auth": "x"}, "user:password"),
        ({"base_url": "http://api.brevo.com"}, "https"),
        ({"smtp": None}, "smtp"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_names_itself(extra, words):
    with pytest.raises(ValidationError, match=words):
        channel(**extra)


# --- Attachments -----------------------------------------------------------------------------------------------------


class Provider:
    """Brevo's API on loopback."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.answer = lambda: web.Response(body=b"a file", content_type="text/plain")

    async def give(self, request: web.Request) -> web.Response:
        self.seen.append((request.raw_path, request.headers.get("api-key", "")))
        return self.answer()


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_get("/v3/inbound/attachments/{token}", made.give)
    async with TestServer(app, host="127.0.0.1") as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


@pytest.fixture
async def http():
    client = GuardedHttp(["127.0.0.1"])
    yield client
    await client.close()


async def test_an_attachment_is_fetched_by_its_token(provider, http):
    made = channel(base_url=provider.url, api_key="KEYWORD")
    item = {
        "Headers": {"From": "a@b.example"},
        "Attachments": [{"Name": "a.txt", "ContentType": "text/plain", "DownloadToken": "to/ken?x"}],
    }
    ((file,),) = (found.attachments for found in made.parse(posted({"items": [item]})))
    fetched = await made.fetch(file.url, http)
    assert (fetched.data, fetched.content_type) == (b"a file", "text/plain")
    assert provider.seen == [("/v3/inbound/attachments/to%2Fken%3Fx", "KEYWORD")]
    assert made.is_sandbox()
    assert isinstance(made, Channel)
    assert "KEYWORD" not in repr(made.settings)


class Nowhere:
    """No request may reach the network."""

    async def request(self, *args, **kwargs):
        raise AssertionError("asked the network")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v3/inbound/attachments/t",
        "https://api.brevo.com.evil.example/v3/inbound/attachments/t",
        "https://api.brevo.com@evil.example/v3/inbound/attachments/t",
        "http://api.brevo.com/v3/inbound/attachments/t",
        "https://api.brevo.com/v3/account",
        "https://api.brevo.com/v3/inbound/attachments/../../account",
        "https://api.brevo.com/v3/inbound/attachments/t?x=1",
        "https://api.brevo.com/v3/inbound/attachments/",
        "https://api.brevo.com/v3/inbound/attachments/..",
        "",
    ],
)
async def test_the_key_goes_to_brevos_attachments_and_nowhere_else(url):
    with pytest.raises(Refused):
        await channel(api_key="KEYWORD").fetch(url, Nowhere())


async def test_without_a_key_the_files_wait_for_one():
    with pytest.raises(TryLater, match="api_key"):
        await channel().fetch("https://api.brevo.com/v3/inbound/attachments/t", Nowhere())


@pytest.mark.parametrize(("status", "outcome"), [(401, Refused), (404, Refused), (429, TryLater), (500, TryLater), (503, TryLater)])
async def test_each_answer_means_one_thing(provider, http, status, outcome):
    provider.answer = lambda: web.Response(status=status)
    with pytest.raises(outcome):
        await channel(base_url=provider.url, api_key="k").fetch(f"{provider.url}/v3/inbound/attachments/t", http)


async def test_an_unreachable_brevo_is_tried_again():
    class Down:
        async def request(self, *args, **kwargs):
            raise NotSent("refused")

    with pytest.raises(TryLater):
        await channel(api_key="k").fetch("https://api.brevo.com/v3/inbound/attachments/t", Down())
