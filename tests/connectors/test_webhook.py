"""Holds told by webhook: a CloudEvent under Standard Webhooks headers, as an independent receiver checks them."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import time_machine
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.shared.webhook_signing import decode_secret, sign, verify
from connectors.webhook import Webhook
from hub.contract import Refused, TryLater
from hub.http import GuardedHttp
from hub.marketing import Hears, HoldNotice
from tests.shared_data import shared

NOW = 1_764_000_000.0
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = bytes(range(32))

NOTICE = HoldNotice(
    id="evt_1-42",
    type="hold.placed",
    time="2025-11-24T16:00:00Z",
    data={
        "customer_id": 7,
        "identifiers": [{"kind": "email", "value": "zoë+a@example.org", "because": "verified"}],
        "reasons": ["ticket"],
        "scope": {"brands": [], "channels": []},
        "until": "2025-12-01T16:00:00Z",
        "version": 3,
    },
)


class Receiver:
    """A marketing tool's endpoint: records what reached it and answers as told."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.hang_up = False
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if self.hang_up:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=self.status, headers=self.headers, text="" if self.status == 204 else "words of the receiver")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    seen = Receiver()
    app = web.Application()
    app.router.add_post("/hooks/holds", seen.answer)
    async with TestServer(app) as server:
        seen.url = f"http://127.0.0.1:{server.port}/hooks/holds"
        yield seen


@pytest.fixture
async def http(receiver: Receiver) -> AsyncIterator[GuardedHttp]:
    client = GuardedHttp(["127.0.0.1"])
    yield client
    await client.close()


def destination(url: str, secret: str = SECRET) -> Webhook:
    settings = Webhook.Settings.model_validate({"type": "webhook", "url": url, "secret": secret})
    return Webhook(settings, "crm")  # type: ignore[arg-type]


# --- what the receiver gets ------------------------------------------------------------------------------------------


async def test_the_receiver_gets_a_structured_cloudevent(receiver: Receiver, http: GuardedHttp) -> None:
    await destination(receiver.url).tell(NOTICE, http, NOW)
    [(headers, body)] = receiver.seen
    assert headers["content-type"].startswith("application/cloudevents+json")
    event = json.loads(body)
    assert event == {
        "specversion": "1.0",
        "id": "evt_1-42",
        "source": "/support-hub",
        "type": "hold.placed",
        "time": "2025-11-24T16:00:00Z",
        "subject": "7",
        "datacontenttype": "application/json",
        "data": dict(NOTICE.data),
    }


async def test_the_published_package_verifies_what_we_signed(receiver: Receiver, http: GuardedHttp) -> None:
    await destination(receiver.url).tell(NOTICE, http, NOW)
    [(headers, body)] = receiver.seen
    with time_machine.travel(NOW, tick=False):
        told = standardwebhooks.Webhook(SECRET).verify(body, headers)
    assert told["data"]["version"] == 3
    assert verify(KEY, headers, body, NOW)


async def test_the_published_package_refuses_a_changed_body(receiver: Receiver, http: GuardedHttp) -> None:
    """Negative twin."""
    await destination(receiver.url).tell(NOTICE, http, NOW)
    [(headers, body)] = receiver.seen
    changed = body.replace(b'"version":3', b'"version":4')
    assert changed != body
    with time_machine.travel(NOW, tick=False), pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(changed, headers)
    assert not verify(KEY, headers, changed, NOW)


MERGED = HoldNotice(
    id="customer-9-1764000000000000",
    type="customer.merged",
    time="2025-11-24T16:00:00.000Z",
    data={
        "customer_id": 7,
        "other_id": 12,
        "actor": "agent:3",
        "reason": "told on the phone",
        "join_id": 5,
        "identifiers": [{"kind": "email", "value": "zoë+a@example.org", "because": "verified"}],
        "merged_ids": [12],
        "other_identifiers": [],
        "other_merged_ids": [],
    },
)


async def test_a_merge_is_told_in_the_same_form_and_verifies_with_the_published_package(receiver: Receiver, http: GuardedHttp) -> None:
    await destination(receiver.url).tell(MERGED, http, NOW)
    [(headers, body)] = receiver.seen
    with time_machine.travel(NOW, tick=False):
        told = standardwebhooks.Webhook(SECRET).verify(body, headers)
    assert (told["type"], told["id"], told["subject"], told["data"]) == ("customer.merged", headers["webhook-id"], "7", dict(MERGED.data))
    with time_machine.travel(NOW, tick=False), pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(body.replace(b'"other_id":12', b'"other_id":13'), headers)


def test_a_webhook_hears_who_is_who_unless_that_is_switched_off() -> None:
    given = {"type": "webhook", "url": "https://marketing.example/", "secret": SECRET}
    heard = {}
    for customers in ({}, {"customers": True}, {"customers": False}, {"opt_outs": False}):
        one = Webhook(Webhook.Settings.model_validate(given | customers), "crm")  # type: ignore[arg-type]
        assert isinstance(one, Hears)
        heard[str(customers)] = one.hears
    people, wishes = {"customer.merged", "customer.unmerged", "customer.split"}, {"optout.recorded", "optout.withdrawn"}
    assert heard == {
        "{}": people | wishes,
        "{'customers': True}": people | wishes,
        "{'customers': False}": wishes,
        "{'opt_outs': False}": people,
    }


async def test_a_retry_has_the_same_id_and_body_and_a_new_signature(receiver: Receiver, http: GuardedHttp) -> None:
    for later in (0, 600):
        await destination(receiver.url).tell(NOTICE, http, NOW + later)
    (first, body), (second, again) = receiver.seen
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert first["webhook-timestamp"] != second["webhook-timestamp"]
    assert verify(KEY, second, again, NOW + 600)


# --- how a delivery can end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_taken_for_told(status: int, receiver: Receiver, http: GuardedHttp) -> None:
    receiver.status = status
    await destination(receiver.url).tell(NOTICE, http, NOW)
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (301, {"Location": "/elsewhere"}, None),  # Standard Webhooks: a redirect is a failure
        (302, {"Location": "/elsewhere"}, None),
        (304, {}, None),
        (400, {}, None),
        (401, {}, None),
        (404, {}, None),
        (409, {}, None),
        (418, {}, None),
        (422, {"Retry-After": "30"}, None),  # heeded only with the statuses that ask for fewer messages
        (429, {}, None),
        (429, {"Retry-After": "30"}, 30.0),
        (429, {"Retry-After": "86400"}, 3600.0),
        (429, {"Retry-After": "soon"}, None),
        (500, {}, None),
        (502, {"Retry-After": "1"}, 1.0),
        (503, {"Retry-After": "Mon, 24 Nov 2025 16:01:00 GMT", "Date": "Mon, 24 Nov 2025 16:00:00 GMT"}, 60.0),
        (504, {"Retry-After": "-5"}, None),
    ],
)
async def test_what_is_not_2xx_is_told_again(
    status: int, headers: dict[str, str], wait: float | None, receiver: Receiver, http: GuardedHttp
) -> None:
    receiver.status, receiver.headers = status, headers
    with pytest.raises(TryLater, match=rf"crm answered {status}\.") as caught:
        await destination(receiver.url).tell(NOTICE, http, NOW)
    assert caught.value.retry_after == wait
    assert len(receiver.seen) == 1
    assert "words of the receiver" not in str(caught.value)


async def test_gone_is_final(receiver: Receiver, http: GuardedHttp) -> None:
    receiver.status = 410
    with pytest.raises(Refused, match="says it is gone"):
        await destination(receiver.url).tell(NOTICE, http, NOW)


async def test_a_lost_answer_is_told_again(receiver: Receiver, http: GuardedHttp) -> None:
    receiver.hang_up = True
    with pytest.raises(TryLater, match="may have been carried out"):
        await destination(receiver.url).tell(NOTICE, http, NOW)
    assert len(receiver.seen) == 1


async def test_a_receiver_that_is_down_is_told_again(http: GuardedHttp) -> None:
    with pytest.raises(TryLater, match="could not be reached"):
        await destination(f"http://127.0.0.1:{unused_port()}/").tell(NOTICE, http, NOW)


async def test_a_private_receiver_nobody_allowed_is_not_called(receiver: Receiver) -> None:
    strict = GuardedHttp()
    with pytest.raises(TryLater, match="allowed_hosts"):
        await destination(receiver.url).tell(NOTICE, strict, NOW)
    await strict.close()
    assert receiver.seen == []


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"secret": "hunter2-hunter2-hunter2-hunter2"}, "secret"),
        ({"secret": SECRET.removeprefix("whsec_")}, "secret"),
        ({"secret": "whsec_"}, "secret"),
        ({"secret": "whsec_hunter2!"}, "secret"),
        ({"secret": "whsec_" + base64.b64encode(b"hunter2" * 3).decode()}, "secret"),  # 21 bytes
        ({"secret": "whsec_" + base64.b64encode(b"x" * 65).decode()}, "secret"),
        ({"url": "marketing.example/hooks"}, "url"),
        ({"url": "ftp://marketing.example/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://me:hunter2@marketing.example/"}, "url"),
        ({"url": "https://marketing.example:port/"}, "url"),
        ({"url": "https://[::1/"}, "url"),
        ({"url": "https://marketing.example/#top"}, "url"),
        ({"sceret": SECRET}, "sceret"),
    ],
)
def test_a_wrong_setting_is_named_and_not_repeated(changed: dict[str, str], key: str) -> None:
    good = {"type": "webhook", "url": "https://marketing.example/hooks", "secret": SECRET}
    Webhook.Settings.model_validate(good)
    with pytest.raises(ValidationError) as caught:
        Webhook.Settings.model_validate(good | changed)
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]
    assert key in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_secret_is_not_in_the_settings_repr() -> None:
    settings = Webhook.Settings.model_validate({"type": "webhook", "url": "https://marketing.example/", "secret": SECRET})
    assert SECRET not in repr(settings) + str(settings.model_dump_json())


@pytest.mark.parametrize(
    ("url", "sandbox"),
    [
        ("http://127.0.0.1:8080/x", True),
        ("http://localhost:8080/", True),
        ("http://[::1]:8080/", True),
        ("http://tool.localhost/", True),
        ("https://marketing.example/", False),
        ("https://localhost.example/", False),
        ("https://10.0.0.1/", False),
    ],
)
def test_sandbox_is_a_receiver_on_this_machine(url: str, sandbox: bool) -> None:
    assert destination(url).is_sandbox() is sandbox


# --- signatures: the standard's vectors, and the published package side by side --------------------------------------


def vectors() -> dict[str, Any]:
    loaded = json.loads(shared("signatures", "vectors.json").read_text())["standard_webhooks"]
    assert loaded["tolerance_s"] == 300
    assert len(loaded["rules"]) == 7
    return dict(loaded)


def headers_of(vector: dict[str, Any], **changed: str | None) -> dict[str, str]:
    headers = {"webhook-id": vector["id"], "webhook-timestamp": str(vector["timestamp"]), "webhook-signature": vector["expected"]}
    merged: dict[str, str | None] = {**headers, **{f"webhook-{name}": value for name, value in changed.items()}}
    return {name: value for name, value in merged.items() if value is not None}


def test_the_standards_vector() -> None:
    vector = vectors()["sign"]
    key, body = decode_secret(vector["secret"]), vector["payload"].encode()
    assert sign(key, vector["id"], vector["timestamp"], body) == vector["expected"]
    assert verify(key, headers_of(vector), body, vector["timestamp"])
    assert decode_secret(vector["secret"].removeprefix("whsec_")) == key


RULES: list[tuple[str, Callable[[dict[str, Any]], dict[str, str]], float, bool]] = [
    ("as it stands", headers_of, 0, True),
    ("header names in another case", lambda v: {n.title(): s for n, s in headers_of(v).items()}, 0, True),
    ("no id", lambda v: headers_of(v, id=None), 0, False),
    ("no timestamp", lambda v: headers_of(v, timestamp=None), 0, False),
    ("no signature", lambda v: headers_of(v, signature=None), 0, False),
    ("empty id", lambda v: headers_of(v, id=""), 0, False),
    ("other id", lambda v: headers_of(v, id="msg_x"), 0, False),
    ("timestamp not a number", lambda v: headers_of(v, timestamp="hello"), 0, False),
    ("timestamp infinite", lambda v: headers_of(v, timestamp="inf"), 0, False),
    ("timestamp with another second", lambda v: headers_of(v, timestamp=str(v["timestamp"] + 1)), 0, False),
    ("five minutes old", headers_of, 300, True),
    ("older than five minutes", headers_of, 301, False),
    ("five minutes early", headers_of, -300, True),
    ("earlier than five minutes", headers_of, -301, False),
    ("several signatures, one right", lambda v: headers_of(v, signature=f"v1,AAAA v2,x {v['expected']} v1,BBBB"), 0, True),
    ("several signatures, none right", lambda v: headers_of(v, signature="v1,AAAA v1,BBBB"), 0, False),
    ("unknown version alone", lambda v: headers_of(v, signature=v["expected"].replace("v1,", "v2,")), 0, False),
    ("asymmetric version alone", lambda v: headers_of(v, signature=v["expected"].replace("v1,", "v1a,")), 0, False),
    ("empty v1", lambda v: headers_of(v, signature="v1,"), 0, False),
    ("v1 and nothing", lambda v: headers_of(v, signature="v1"), 0, False),
    ("truncated", lambda v: headers_of(v, signature=v["expected"][:-8]), 0, False),
    ("padding cut off", lambda v: headers_of(v, signature=v["expected"].rstrip("=")), 0, False),
    ("garbage", lambda v: headers_of(v, signature="garbage"), 0, False),
    ("not ASCII", lambda v: headers_of(v, signature="v1,ü"), 0, False),
    ("lone surrogates", lambda v: headers_of(v, id="\ud800", signature="v1,\udcff"), 0, False),
    ("the standard's invalid sample", lambda v: headers_of(v, signature=vectors()["invalid_signature_sample"]), 0, False),
]


@pytest.mark.parametrize(("make", "later", "good"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_the_standards_rules(make: Callable[[dict[str, Any]], dict[str, str]], later: float, good: bool) -> None:
    vector = vectors()["sign"]
    key = decode_secret(vector["secret"])
    assert verify(key, make(vector), vector["payload"].encode(), vector["timestamp"] + later) is good


keys = st.binary(min_size=24, max_size=64)
ids = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=40)
seconds = st.integers(min_value=1, max_value=4_000_000_000)


@settings(deadline=None)
@given(key=keys, message_id=ids, timestamp=seconds, body=st.text(st.characters(codec="utf-8")))
def test_we_sign_as_the_published_package_does(key: bytes, message_id: str, timestamp: int, body: str) -> None:
    theirs = standardwebhooks.Webhook(key).sign(message_id, datetime.fromtimestamp(timestamp, UTC), body)
    ours = sign(key, message_id, timestamp, body.encode())
    assert ours == theirs
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,AAAA {theirs}"}
    assert verify(key, headers, body.encode(), timestamp)
    assert not verify(key, headers, body.encode() + b" ", timestamp)


@settings(deadline=None)
@given(key=keys)
def test_we_read_secrets_as_the_published_package_does(key: bytes) -> None:
    encoded = base64.b64encode(key).decode()
    for written in (encoded, "whsec_" + encoded, "whsec_" + encoded.rstrip("=")):
        assert decode_secret(written) == key == standardwebhooks.Webhook(written)._whsecret


@settings(deadline=None)
@given(signature=st.text(), message_id=st.text(), timestamp=st.text() | seconds.map(str), body=st.binary())
def test_hostile_headers_are_a_plain_no(signature: str, message_id: str, timestamp: str, body: bytes) -> None:
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    assert verify(KEY, headers, body, NOW) is False
