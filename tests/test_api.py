"""`/api/v1/holds/check`: what a marketing tool asks before it sends, and what it is answered (issue 2, line 8)."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import standardwebhooks
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer

from hub.agents import CreateApiToken
from hub.app import Running, sandbox_token
from hub.config import Settings, load
from hub.contract import Claim, InboundMessage, Proof
from hub.conversations.commands import Resolve
from hub.conversations.ingest import Ingest, item
from hub.holds import receipt
from hub.holds.gate import MOST
from hub.keys import derive, digest
from hub.storage.writer import wall_clock
from tests.conftest import sandbox_config
from tests.delivery import Clock

ADA, BEN, NOBODY = "+12025550123", "+12025550124", "+12025550199"


@dataclass
class Api:
    running: Running
    http: aiohttp.ClientSession
    clock: Clock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.running.port}/api/v1/holds/check"

    async def get(self, **query: Any) -> tuple[int, Any]:
        async with self.http.get(self.url, params=query) as answer:
            return answer.status, await answer.json(content_type=None)

    async def post(self, body: Any, **kwargs: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.url, data=data, **kwargs) as answer:
            return answer.status, await answer.json(content_type=None)

    async def hears(self, sender: str, *claims: Claim) -> None:
        channel = self.running.hub.channels["sms"].rule.id
        self.clock.pass_(1)
        said = InboundMessage(provider_key=f"{sender}{self.clock()}", claims=(Claim("phone", sender, Proof.CHANNEL), *claims), text="Hi?")
        await self.running.hub.writer.run(Ingest(channel, (item(said, True),), None))


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """A hub where Ada is held (her phone, her account, an address she claimed) and Ben is known and free."""
    clock = Clock(wall_clock())
    running = Running(settings, clock)
    await running.start()
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sandbox_token(running.hub.secret)}"}) as http:
            built = Api(running, http, clock)
            claimed = Claim("email", "ada@example.com", Proof.CLAIMED)
            await built.hears(ADA, claimed, Claim("user_id", "u-7", Proof.SIGNED, site="shop"))
            await built.hears(BEN)
            await running.hub.writer.run(Resolve(2, 1))
            yield built
    finally:
        await running.stop()


# --- one person ---

# the query -> held, known
ONE: dict[str, tuple[dict[str, str] | list[tuple[str, str]], bool, bool]] = {
    "held": ({"phone": ADA}, True, True),
    "a plus sign sent raw arrives as a space": ({"phone": " 12025550123"}, True, True),
    "by account": ({"external_id": "u-7"}, True, True),
    "by account and site": ({"external_id": "u-7", "site": "shop"}, True, True),
    "a claimed address holds too": ({"email": "ADA@Example.com"}, True, True),
    "known and free": ({"phone": BEN}, False, True),
    "nobody we know": ({"phone": NOBODY}, False, False),
    "any held identifier holds": ({"phone": NOBODY, "email": "ada@example.com"}, True, True),
    "of two phones one is held": ([("phone", BEN), ("phone", ADA)], True, True),
    "a template that knew no address": ({"phone": ADA, "email": ""}, True, True),
    "transactional is never held": ({"phone": ADA, "class": "transactional"}, False, True),
    "marketing, said": ({"phone": ADA, "class": "marketing"}, True, True),
    "its brand": ({"phone": ADA, "brand": "default"}, True, True),
    "a phone as dialled from abroad": ({"phone": "0012025550123"}, True, True),
    "a phone as the provider writes it": ({"phone": "whatsapp:+12025550123"}, True, True),
    "an address with its name": ({"email": "Ada <ada@example.com>"}, True, True),
    "with all that a tool may say": ({"phone": ADA, "campaign": "winter-sale", "channel": "email"}, True, True),
}


@pytest.mark.parametrize("case", ONE)
async def test_one_person_by_get(api: Api, case: str) -> None:
    query, held, known = ONE[case]
    async with api.http.get(api.url, params=query) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store", "a cached `not held` would be the worst answer there is"
        body = await answer.json()
    assert set(body) == {"held", "hold", "known", "until", "reasons", "version", "on_failure", "receipt_id", "as_of"}
    assert body["hold"] is body["held"], "as Braze snippets of other gates spell it"
    assert body["on_failure"] == "closed"
    assert (body["held"], body["known"]) == (held, known)
    assert body["reasons"] == (["open_ticket"] if held else [])
    assert (body["until"] is not None) == held
    assert (body["version"] > 0) == known
    assert body["as_of"].endswith("Z")


REFUSED = {
    "nobody asked for": ({}, "Ask by email, phone, external_id or wa_user_id."),
    "only empty ones": ({"phone": "", "email": " "}, "Ask by"),
    "a mistyped parameter is not ignored": ({"phone": ADA, "emial": "ada@example.com"}, "emial"),
    "a class there is not": ({"phone": ADA, "class": "promo"}, "class"),
    "a brand there is not": ({"phone": ADA, "brand": "outlet"}, "There is no brand outlet. Known: default."),
    "a site there is not": ({"external_id": "u-7", "site": "outlet"}, "There is no site outlet. Known: shop."),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_question_that_cannot_be_answered_is_a_400_and_never_a_no(api: Api, case: str) -> None:
    query, text = REFUSED[case]
    async with api.http.get(api.url, params=query) as answer:
        body = await answer.json(content_type="application/problem+json")
        assert answer.status == 400
    assert text in body["title"]
    assert "held" not in body


# --- many ---


def asking(*values: str, **more: Any) -> dict[str, Any]:
    kind = {True: "email", False: "phone"}
    return {"identifiers": [{"kind": kind["@" in value], "value": value} for value in values], **more}


async def test_many_are_answered_in_the_order_asked(api: Api) -> None:
    status, body = await api.post(asking(NOBODY, "ada@example.com", BEN, " 12025550123", NOBODY))
    assert status == 200
    assert [(one["kind"], one["value"], one["held"], one["known"]) for one in body["results"]] == [
        ("phone", NOBODY, False, False),
        ("email", "ada@example.com", True, True),
        ("phone", BEN, False, True),
        ("phone", " 12025550123", True, True),  # answered under the very words of the question
        ("phone", NOBODY, False, False),
    ]
    assert (body["held"], body["held_count"]) == (True, 2)
    assert body["receipt_id"]
    assert body["as_of"]
    assert all(set(one) == {"kind", "value", "held", "known", "until", "reasons", "version"} for one in body["results"])


async def test_whose_address_cannot_be_read_is_not_sent_marketing(api: Api) -> None:
    """Nobody can say whether they are held, and a wrong "not held" is the worst answer there is."""
    for value in ("call me", "(202) 555-0123"):
        async with api.http.get(api.url, params={"phone": value}) as answer:
            body = await answer.json()
        assert (body["held"], body["known"], body["reasons"]) == (True, False, ["unreadable_identifier"])
        async with api.http.get(api.url, params={"phone": value, "class": "transactional"}) as answer:
            assert not (await answer.json())["held"]
    _, body = await api.post(asking(NOBODY, "call me"))
    assert [one["held"] for one in body["results"]] == [False, True]


@pytest.mark.parametrize(("more", "held"), [({"class": "transactional"}, 0), ({"brand": "default"}, 1), ({}, 1)])
async def test_brand_and_class_bind_all_of_them(api: Api, more: dict[str, str], held: int) -> None:
    _, body = await api.post(asking(ADA, BEN, **more))
    assert body["held_count"] == held


@pytest.mark.parametrize(("count", "status"), [(1, 200), (MOST, 200), (MOST + 1, 400), (0, 400)])
async def test_one_to_a_thousand_may_be_asked_at_once(api: Api, count: int, status: int) -> None:
    got, body = await api.post(asking(*(f"+1202555{number:04d}" for number in range(count))))
    assert got == status
    assert status != 200 or len(body["results"]) == count
    assert status == 200 or "identifiers" in body["title"]


# Bodies that a lax reader would take for something else.
STRICT = {
    "not JSON": b"phone=%2B12025550123",
    "nothing": b"",
    "a list": [],
    "a string for the list": {"identifiers": ADA},
    "a bare string in the list": {"identifiers": [ADA]},
    "a number for a phone": {"identifiers": [{"kind": "phone", "value": 12025550123}]},
    "null for a phone": {"identifiers": [{"kind": "phone", "value": None}]},
    "an empty phone": {"identifiers": [{"kind": "phone", "value": ""}]},
    "a kind of ours that addresses nobody": {"identifiers": [{"kind": "device", "value": "x"}]},
    "a kind in other letters": {"identifiers": [{"kind": "Phone", "value": ADA}]},
    "a mistyped key": {"identifiers": [{"kind": "phone", "valeu": ADA}]},
    "a key too many": {"identifiers": [{"kind": "phone", "value": ADA, "hold": False}]},
    "a mistyped key beside": asking(ADA, brnad="default"),
    "our word for class": asking(ADA, message_class="transactional"),
    "a class there is not": asking(ADA, **{"class": "promo"}),
    "a number for the brand": asking(ADA, brand=1),
    "an endless value": {"identifiers": [{"kind": "email", "value": "a" * 513}]},
}


@pytest.mark.parametrize("case", STRICT)
async def test_a_body_is_read_strictly_and_refused_without_repeating_it(api: Api, case: str) -> None:
    status, body = await api.post(STRICT[case])
    assert status == 400
    assert set(body) == {"title", "status"}
    assert not body["title"].startswith(":")
    assert "2025550123" not in body["title"]


async def test_a_body_beyond_all_measure_is_refused(api: Api) -> None:
    async with api.http.post(api.url, data=io.BytesIO(b"[" + b" " * 1_100_000 + b"]")) as answer:
        assert answer.status == 413


# --- who may ask ---


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer hub_" + "x" * 43, "Basic aHViOmh1Yg==", "hub_" + "x" * 43], ids=str)
async def test_without_a_token_there_is_no_answer(api: Api, method: str, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    async with aiohttp.ClientSession() as http, http.request(method, api.url, params={"phone": ADA}, headers=headers) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.content_type == "application/problem+json"
        assert "held" not in await answer.json(content_type=None)


async def test_an_agents_session_is_no_token(api: Api) -> None:
    async with aiohttp.ClientSession(cookies={"hub_session": "x"}) as http, http.get(api.url, params={"phone": ADA}) as answer:
        assert answer.status == 401


async def test_a_token_made_by_an_administrator_asks(api: Api) -> None:
    token = "hub_" + "a" * 43
    await api.running.hub.writer.run(CreateApiToken("Klaviyo", digest(token)))
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"bearer {token}"}) as http,
        http.get(api.url, params={"phone": ADA}) as answer,
    ):
        assert (answer.status, (await answer.json())["held"]) == (200, True)


async def test_other_methods_and_addresses_are_answered_as_problems(api: Api) -> None:
    async with api.http.put(api.url) as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        assert "GET" in answer.headers["Allow"]
    async with api.http.get(api.url.replace("check", "chekc")) as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


# --- what an answer is worth ---


async def test_an_answer_follows_the_ticket_at_once(api: Api) -> None:
    for step in range(3):
        assert (await api.get(phone=ADA))[1]["held"]
        await api.running.hub.writer.run(Resolve(1, 1))
        _, free = await api.get(phone=ADA)
        assert (free["held"], free["known"], free["reasons"], free["until"]) == (False, True, [], None)
        await api.hears(ADA)
        assert (await api.get(phone=ADA))[1]["version"] > free["version"] > step


async def test_a_receipt_proves_what_was_answered_and_tells_nobody_whom_it_was_about(api: Api) -> None:
    _, held = await api.get(phone=ADA)
    _, again = await api.get(phone=ADA)
    _, other = await api.get(phone=ADA, campaign="winter-sale")
    _, free = await api.get(phone=BEN)
    parts = [body["receipt_id"].split(".") for body in (held, again, other, free)]
    assert [one[2] for one in parts] == ["held", "held", "held", "free"]
    assert all(int(one[1]) == api.clock() for one in parts)
    assert [int(one[3]) for one in parts] == [body["version"] for body in (held, again, other, free)]
    assert len({body["receipt_id"] for body in (held, again)}) == 2, "each answer has a receipt of its own"
    assert "2025550123" not in json.dumps(parts)

    key = derive(api.running.hub.secret, "receipt")
    question = ("", "", "", "marketing", f"phone::{ADA}")
    assert receipt.proves(key, question, held["receipt_id"])
    assert receipt.proves(key, ("winter-sale", *question[1:]), other["receipt_id"])
    assert not receipt.proves(key, question, other["receipt_id"]), "another question"
    assert not receipt.proves(key, question, held["receipt_id"].replace("held", "free"))
    assert not receipt.proves(key, (*question[:4], f"phone::{BEN}"), held["receipt_id"])
    assert not receipt.proves(key, ("", "", "", "marketing", "phone:", f":{ADA}"), held["receipt_id"])
    forged = held["receipt_id"][:-1] + ("a" if held["receipt_id"][-1] != "a" else "b")
    assert not receipt.proves(key, question, forged)
    assert not receipt.proves(derive(b"another secret".ljust(32), "receipt"), question, held["receipt_id"])


async def test_what_is_asked_never_reaches_the_logs(api: Api, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # its debug lines quote every statement; nobody switches them on

    class Locked:
        def execute(self, *_: Any) -> Any:
            raise sqlite3.OperationalError(f"database is locked: {ADA}")

    with structlog.testing.capture_logs() as logged:
        await api.get(phone=ADA, email="ada@example.com")
        await api.post(asking(ADA, "ada@example.com"))
        await api.post({"identifiers": [{"kind": "phone", "value": ADA, "valeu": "ada@example.com"}]})
        hot: Any = api.running.hub.hot
        connection, hot._connection = hot._connection, Locked()
        try:
            status, body = await api.get(phone=ADA)
        finally:
            hot._connection = connection
    assert status == 503, "no answer is not a no"
    assert "held" not in body
    assert [line["error"] for line in logged if line["log_level"] == "error"] == ["StorageBusy"], "it is logged that it failed"
    everything = "\n".join([json.dumps(logged, default=str), caplog.text, *capfd.readouterr()])
    assert "2025550123" not in everything
    assert "ada@example" not in everything


# --- what a destination is told ---


async def test_a_hold_reaches_any_receiver_of_standard_webhooks(tmp_path: Path) -> None:
    """From config.yaml to the wire: the reference library verifies what our own signing made."""
    heard: list[tuple[dict[str, str], bytes]] = []
    arrived = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        heard.append((dict(request.headers), await request.read()))
        arrived.set()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hooks", receive)
    secret = "whsec_" + "c2FuZGJveC1vbmx5LXdlYmhvb2stc2VjcmV0LTAx"
    async with TestServer(app) as receiver:
        config = sandbox_config(tmp_path)
        text = config.read_text()
        line = next(line for line in text.splitlines() if line.strip().startswith("url:") and "/marketing/hooks" in line)
        text = text.replace(line, f"    url: http://127.0.0.1:{receiver.port}/hooks")
        text = text.replace("allowed_hosts: []", f'allowed_hosts: ["127.0.0.1:{receiver.port}"]')
        assert secret in text
        config.write_text(text)
        running = Running(load(config, {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}))
        await running.start()
        try:
            assert (await running.sandbox.sms(ADA, "Where is my parcel?")).status == 200
            async with asyncio.timeout(10):
                await arrived.wait()
        finally:
            await running.stop()
    headers, body = heard[0]
    event = standardwebhooks.Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})
    assert event["type"] == "hold.placed"
    assert event["data"]["identifiers"] == [{"kind": "phone", "value": ADA, "because": "verified"}]
    assert headers["webhook-id"] == event["id"]
    for broken in (body.replace(b"placed", b"erased"), body + b" "):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(broken, {name.lower(): value for name, value in headers.items()})
