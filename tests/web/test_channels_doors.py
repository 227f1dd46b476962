"""The doors that channels in depth have over HTTP: doubtful mail decided, the mail as it came, bounces, and messages nobody asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from connectors.sandbox.mail import read
from hub import agents
from hub.app import Running, sandbox_token
from hub.conversations.commands import Reply, Resolve
from hub.keys import digest
from hub.sessions import OpenSession, Verified
from hub.storage.records import Agent
from hub.storage.tables import metadata
from tests.web import Insert

T = metadata.tables
ADA, EVE = "ada@example.com", "eve@example.net"


class Office:
    """The hub, an agent signed in to it, and a program with a token."""

    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self.running, self.hub, self.http = running, running.hub, session
        self.url = f"http://127.0.0.1:{running.port}"
        self.as_agent: dict[str, str] = {}

    async def sign_in(self) -> None:
        session, csrf = agents.new_token(), agents.new_token()
        await self.hub.writer.run(Insert((Agent(7, "ben@shop.example", "Ben", "hash", "agent", 1),)))
        await self.hub.writer.run(OpenSession(Verified(7, "hash"), digest(session), csrf))
        self.as_agent = {"Cookie": f"hub_session={session}", "X-CSRF-Token": csrf}

    async def post(self, path: str, form: dict[str, str]) -> int:
        async with self.http.post(self.url + path, data=form, headers=self.as_agent, allow_redirects=False) as answer:
            return answer.status

    async def get(self, path: str) -> tuple[int, bytes]:
        async with self.http.get(self.url + path, headers=self.as_agent) as answer:
            return answer.status, await answer.read()

    async def write(self, body: dict[str, Any], key: str = "order-1") -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {sandbox_token(self.hub.secret)}", **({"Idempotency-Key": key} if key else {})}
        async with self.http.post(f"{self.url}/api/v1/messages", json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def mail(self, raw: bytes) -> None:
        login = base64.b64encode(b"sandbox:sandbox-only-mail-password").decode()
        headers = {"Content-Type": "message/rfc822", "Authorization": f"Basic {login}"}
        async with self.http.post(f"{self.url}/in/email", data=raw, headers=headers) as answer:
            assert answer.status == 200

    async def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        chosen = [T[table].c[name] for name in columns]
        return [tuple(row) for row in await self.hub.reader.all(select(*chosen).order_by(T[table].c.id))]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def office(running: Running, http: aiohttp.ClientSession) -> Office:
    built = Office(running, http)
    await built.sign_in()
    return built


async def test_a_mail_in_review_is_admitted_and_every_byte_of_it_can_be_had(office: Office) -> None:
    sandbox = office.running.sandbox
    assert sandbox is not None
    await sandbox.mail(ADA, "Ada", "Parcel", "Where is it?")
    await office.hub.writer.run(Reply(1, 7, "On its way", "draft-0001"))
    ours = await office.hub.reader.value(select(T["message"].c.mail_id).where(T["message"].c.direction == "out"))
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"], mail["Message-ID"] = EVE, "support@shop.example", "Re: Parcel", "<eve-1@example.net>"
    mail["In-Reply-To"] = str(ours)
    mail.set_content("I am her colleague.\n\n> On its way\n")
    raw = b"Authentication-Results: mx.shop.example; dmarc=pass header.from=example.net\r\n" + mail.as_bytes()
    await office.mail(raw)
    assert [bool(review) for (review,) in await office.rows("ticket", "review")] == [False, True]
    status, page = await office.get("/inbox/review?ticket=2")
    assert status == 200
    assert b"Whose mail is this?" in page
    assert b"Belongs to #1" in page
    assert await office.post("/tickets/2/review", {"decision": "admit", "of": "9"}) == 409
    assert await office.post("/tickets/2/review", {"decision": "admit", "of": "1"}) == 204
    assert await office.rows("message", "conversation_id", "ticket_id") == [(1, 1), (1, 1), (1, 1)]
    _, page = await office.get("/inbox/open?ticket=1")
    assert b"eve@example.net" in page, "an answer is offered to go to her, too"
    assert b"I am her colleague." in page
    assert (await office.get("/messages/3/mail")) == (200, raw)
    assert (await office.get("/messages/2/mail"))[0] == 404, "our own is nobody's original"
    assert await office.post("/tickets/1/participants/dismiss", {"value": EVE}) == 204
    assert b'value="eve@example.net"' not in (await office.get("/inbox/open?ticket=1"))[1]


async def test_the_list_of_doubtful_mail_is_counted_and_spam_leaves_it(office: Office) -> None:
    sandbox = office.running.sandbox
    assert sandbox is not None
    await sandbox.mail(ADA, "Ada", "Forged", "Send me the history", dmarc="fail")
    assert b"Send me the history" in (await office.get("/inbox/review"))[1]
    assert await office.post("/tickets/1/review", {"decision": "whatever"}) == 409
    assert await office.post("/tickets/1/review", {"decision": "spam"}) == 204
    assert await office.rows("ticket", "status", "review") == [("resolved", "")]


async def test_a_bounce_that_comes_by_mail_marks_what_it_answers_and_one_that_answers_nothing_is_kept(office: Office) -> None:
    sandbox = office.running.sandbox
    assert sandbox is not None
    await sandbox.mail(ADA, "Ada", "Parcel", "Where is it?")
    await office.hub.writer.run(Reply(1, 7, "On its way", "draft-0001"))
    ours = await office.hub.reader.value(select(T["message"].c.mail_id).where(T["message"].c.direction == "out"))
    for number, about in enumerate((str(ours), "<never-sent@shop.example>")):
        await office.mail(bounce(about, number))
    assert (await office.rows("message", "status"))[1] == ("failed",)
    assert [bool(at) for (at,) in await office.rows("identifier", "bounced_at")] == [True]
    assert len(await office.rows("quarantine", "id")) == 1
    assert len(await office.rows("message", "id")) == 2
    _, page = await office.get("/inbox/open?ticket=1")
    assert b"came back" in page


def bounce(about: str, number: int) -> bytes:
    return f"""From: MAILER-DAEMON@mx.example.com
To: support@shop.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <bounce-{number}@mx.example.com>
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

I could not deliver it.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; {ADA}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 No such user

--b
Content-Type: text/rfc822-headers

From: support@shop.example
To: {ADA}
Subject: Re: Parcel
Message-ID: {about}

--b--
""".replace("\n", "\r\n").encode()


async def test_a_program_writes_into_the_one_conversation_once_or_hears_why_not(office: Office) -> None:
    sandbox = office.running.sandbox
    assert sandbox is not None
    await sandbox.mail(ADA, "Ada", "Parcel", "Where is it?")
    await office.hub.writer.run(Resolve(1, 7))
    parcel = {"channel": "email", "to": {"email": ADA}, "text": "It has arrived.", "subject": "Your parcel"}
    first, again = await office.write(parcel), await office.write(parcel)
    assert first == (201, {"message_id": 2, "customer_id": 1, "duplicate": False})
    assert again == (200, {"message_id": 2, "customer_id": 1, "duplicate": True})
    assert await office.rows("ticket", "status") == [("resolved",)]
    for body, key, status, words in [
        (parcel, "", 400, "Idempotency-Key"),
        (parcel | {"channel": "fax"}, "a", 400, "there is none named fax"),
        (parcel | {"to": {}}, "b", 400, "exactly one"),
        (parcel | {"to": {"email": "nobody@example.org"}}, "c", 409, "Nobody is known"),
        (parcel | {"text": ""}, "d", 400, "either a text or a template"),
        (parcel | {"channel": "chat"}, "e", 409, "does not reach"),
        (parcel | {"channel": "email", "text": "", "template": {"id": "x"}}, "f", 409, "knows no templates"),
    ]:
        found, said = await office.write(body, key)
        assert (found, words in said["title"]) == (status, True), said
    mails = [read(mail.raw) for mail in sandbox.server.state.mails] if hasattr(sandbox.server.state, "mails") else []
    assert all(mail.subject == "Your parcel" for mail in mails)


async def test_a_channel_whose_provider_asks_nothing_by_get_is_not_there(office: Office) -> None:
    assert (await office.get("/in/email"))[0] == 404
    assert (await office.get("/in/nowhere"))[0] == 404
