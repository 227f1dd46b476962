"""Follow up when, on the conversation page and by the API."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from yarl import URL

from hub import agents
from hub.app import Running, sandbox_token
from hub.keys import digest
from hub.passwords import Verified
from hub.sessions import OpenSession
from hub.storage.marketing_records import Survey
from hub.storage.records import Agent, Customer, Identifier, Message, Ticket
from tests.web import Insert

XSS = "<script>alert(1)</script>"


@dataclass
class House:
    """A running hub with one customer (ticket 1, by SMS), an agent signed in, and a program with a token."""

    running: Running
    http: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, program: bool = False, **more: Any) -> Any:
        url = URL(f"http://127.0.0.1:{self.running.port}{path}", encoded=True)
        headers = {"Authorization": f"Bearer {sandbox_token(self.running.hub.secret)}"} if program else self.headers
        async with self.http.request(method, url, allow_redirects=False, headers=headers, **more) as answer:
            await answer.read()
            return answer

    async def fire(self, key: str, status: int = 200, **body: Any) -> Any:
        answer = await self.ask("POST", f"/api/v1/follow-ups/{key}", program=True, **body)
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)

    async def waiting(self, query: str = "") -> Any:
        return await (await self.ask("GET", "/api/v1/follow-ups" + query, program=True)).json()

    async def add(self, status: int = 204, **form: str) -> str:
        values = {"key": "order-1001-shipped", "words": "On its way: {tracking}", "days": "30", "way": "", **form}
        answer = await self.ask("POST", "/tickets/1/follow-ups", data=values)
        assert answer.status == status, await answer.text()
        return str(await answer.text())

    async def aside(self) -> str:
        return str(await (await self.ask("GET", "/inbox/all?ticket=1&parts=customer,conversation")).text())

    async def sent(self) -> list[str]:
        rows = await self.running.hub.reader.all(text("SELECT text FROM message WHERE automatic = 'follow-up' ORDER BY id"))
        return [row.text for row in rows]


@pytest.fixture
async def house(running: Running) -> AsyncIterator[House]:
    hub = running.hub
    now, sms = hub.writer.clock(), hub.channels["sms"].rule.id
    await hub.writer.run(
        Insert(
            (
                Agent(1, "ada@shop.example", "Ada", "hash", "agent", now),
                Customer(1, "Noor", now),
                Identifier(1, "phone", "", "+12025550123", "proven", 0, 1, "channel", "+12025550123", now, now, home_id=1),
                Ticket(1, 1, "open", "", "default", sms, 1, now, now, "Hello", last_inbound_id=1, home_id=1),
                Message(1, 1, 1, "in", "received", "Hello", now, sms, 1, proof="channel"),
                Survey(1, 1, sms, 1, "csat", "answered", now, "", now, now + 1, now, 2, XSS),
            )
        )
    )
    shown, csrf = agents.new_token(), agents.new_token()
    await hub.writer.run(OpenSession(Verified(1, "hash"), digest(shown), csrf))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield House(running, http, {"Cookie": f"hub_session={shown}", "X-CSRF-Token": csrf})


async def test_an_agent_promises_and_a_program_s_call_keeps_it_once(house: House) -> None:
    await house.add()
    (row,) = (await house.waiting())["follow_ups"]
    assert (row["key"], row["state"], row["ticket_id"], row["customer_id"], row["wants"]) == (
        *("order-1001-shipped", "waiting", 1, 1),
        ["tracking"],
    )
    told = await house.fire("order-1001-shipped", json={"values": {"tracking": "1Z999"}})
    assert (told["sent"], told["follow_ups"][0]["outcome"]) == (1, "sent")
    again = await house.fire("order-1001-shipped", json={"values": {"tracking": "1Z999"}})
    assert (again["sent"], again["follow_ups"]) == (0, [])
    assert await house.sent() == ["On its way: 1Z999"]
    assert (await house.waiting())["follow_ups"] == []
    assert (await house.waiting("?state=sent"))["follow_ups"][0]["message_id"] is not None
    page = await house.aside()
    assert "Followed up as promised: order-1001-shipped by the program" in page
    assert "As promised" in page, "the message says why it went"
    assert re.search(r'badge ok">Sent<', page)


async def test_a_call_needs_no_body(house: House) -> None:
    await house.add(key="parcel-back", words="It came back.")
    assert (await house.fire("Parcel-Back"))["sent"] == 1


async def test_a_refusal_stands_where_the_agent_looks(house: House) -> None:
    await house.add()
    told = await house.fire("order-1001-shipped", json={"values": {"track": "1Z"}})
    assert (told["sent"], told["follow_ups"][0]["outcome"]) == (0, "refused")
    assert "{tracking}" in told["follow_ups"][0]["why"]
    page = await house.aside()
    assert page.count("wants {tracking}") >= 2, "in the panel and in the timeline"
    assert "happened, but the customer was not told" in page
    assert "Not sent" in page
    assert (await house.fire("order-1001-shipped", json={"values": {"tracking": "1Z"}}))["sent"] == 1


@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        ("nobody-waits", {}, 404),
        ("a%20b%2Fc", {}, 400),
        ("order-1001-shipped", {"data": b"no json"}, 400),
        ("order-1001-shipped", {"json": []}, 400),
        ("order-1001-shipped", {"json": {"values": {"tracking": 17}}}, 400),
        ("order-1001-shipped", {"json": {"values": {"tracking": "x" * 501}}}, 400),
        ("order-1001-shipped", {"json": {"values": {str(n): "" for n in range(21)}}}, 400),
        ("order-1001-shipped", {"json": {"text": "Send this instead"}}, 400),
    ],
)
async def test_a_call_that_cannot_be_understood_sends_nothing_and_says_why(key: str, body: Any, status: int, house: House) -> None:
    await house.add()
    told = await house.fire(key, status, **body)
    assert told["status"] == status
    assert await house.sent() == []
    assert len((await house.waiting())["follow_ups"]) == 1, "it waits as before"


async def test_a_list_is_read_in_pages(house: House) -> None:
    for number in range(3):
        await house.add(key=f"k{number}", words="It is here.")
    assert [row["key"] for row in (await house.waiting("?after=1"))["follow_ups"]] == ["k1", "k2"]
    for query in ("?state=x", "?after=x", "?key=k1", "?after=-1"):
        answer = await house.ask("GET", "/api/v1/follow-ups" + query, program=True)
        assert answer.status == 400, query


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"key": ""}, "Name what you wait for"),
        ({"words": " "}, "Write what"),
        ({"days": "x"}, "how many days"),
        ({"days": "0"}, "more than none"),
        ({"words": "{Tracking}"}, "cannot be filled in"),
        ({"way": "999:1"}, "no longer configured"),
    ],
)
async def test_a_promise_that_cannot_be_made_is_refused_in_words(form: dict[str, str], words: str, house: House) -> None:
    assert words in await house.add(409, **form)
    assert (await house.waiting())["follow_ups"] == []


async def test_a_promise_is_shown_escaped_and_taken_back(house: House) -> None:
    await house.add(words=XSS)
    page = await house.aside()
    assert XSS not in page
    assert page.count("&lt;script&gt;") >= 2, "the promise and the survey's comment"
    assert "Ada promised to follow up when order-1001-shipped" in page
    assert "2 of 5" in page
    (form,) = re.findall(r'action="(/tickets/1/follow-ups/\d+/cancel)"', page)
    assert (await house.ask("POST", form)).status == 204
    assert (await house.ask("POST", form)).status == 409
    assert (await house.fire("order-1001-shipped"))["follow_ups"] == []
    assert await house.sent() == []
