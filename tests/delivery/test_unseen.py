"""An unseen answer of the chat goes to the address that was typed, and a stranger who types somebody else's gains nothing by it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
from aiohttp.test_utils import TestClient, TestServer

from hub.contract import OutboundMessage, Sent
from hub.conversations.commands import Reply
from hub.customers.codes import ADDRESSES
from hub.delivery import unseen
from hub.delivery.unseen import MailAnswer, UnseenCarrier, link_token, mailings, sweep_unseen
from hub.policy import DAY, SECOND
from hub.storage.facts import Facts
from hub.storage.records import Delivery, Event, OptOut
from hub.storage.sqlite_writer import SqliteWriter
from hub.web.context import HUB
from tests.web import Insert
from tests.web.test_chat import CHAT, Known, Stand, Visitor, build_hub

VICTIM = "victim@mail.example"
MINUTES = 60 * SECOND


def react(facts: Facts, event: Event) -> None:
    if event.type == "message.queued":
        unseen.on_answer(facts, event)


@dataclass
class Mailbox:
    """A mail channel's connector that keeps what it is given."""

    sent: list[OutboundMessage] = field(default_factory=list)

    async def send(self, message: OutboundMessage, http: Any) -> Sent:
        self.sent.append(message)
        return Sent()


@dataclass
class Desk(Stand):
    """The chat, whose clock can be put forward, and the mails that leave."""

    ahead: int = 0
    mailbox: Mailbox = field(default_factory=Mailbox)

    async def answers(self, question: str, text: str) -> int:
        ((ticket_id,),) = self.rows(f"SELECT ticket_id FROM message WHERE text = '{question}'")
        await self.hub.writer.run(Reply(ticket_id, 7, text, f"draft-{text}"))
        ((number,),) = self.rows(f"SELECT id FROM message WHERE text = '{text}'")
        self.change(f"UPDATE message SET status = 'sent', provider_id = 'chat-{number}-reference' WHERE id = {number}")
        return int(number)

    def change(self, sql: str) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(sql)

    async def sweep(self, minutes: float = 3) -> int:
        self.ahead += int(minutes * MINUTES)
        return await sweep_unseen(mailings(self.hub.channels.values(), self.hub.policy), self.hub.reader, self.hub.writer, self.now())

    def now(self) -> int:
        return time.time_ns() // 1_000 + self.ahead

    async def mailed(self) -> list[OutboundMessage]:
        """Carry what is owed."""
        bound = self.hub.channels["chat"]
        mail = replace(bound, rule=self.hub.policy.channels[3], connector=self.mailbox)  # type: ignore[arg-type]
        hub = self.hub
        carrier = UnseenCarrier({"mail": mail}, hub.reader, hub.http, lambda c: link_token(hub.secret, c), "https://hub.example", "hub")
        owed = self.rows("SELECT id, subject_id, payload FROM delivery WHERE kind = 'unseen' AND state = 'queued'")
        for number, subject, payload in owed:
            await carrier.carry(Delivery(number, f"unseen:{subject}", "unseen", "mail", subject, payload, "sending", True, 0, 0))
            self.change(f"UPDATE delivery SET state = 'done' WHERE id = {number}")
        return self.mailbox.sent

    async def follows(self, token: str, status: int = 200) -> Visitor:
        """A browser of its own opens a mail's link."""
        answer = await self.client.post("/chat/chat/continue", json={"token": token}, headers={"Origin": "http://hub.example"})
        assert answer.status == status, await answer.text()
        visitor = Visitor(self)
        if status == 200:
            visitor.told = await answer.json()
            visitor.token, visitor.device = visitor.told["token"], visitor.told["visitor"]
        return visitor

    def states(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM mailed_answer ORDER BY message_id")]


def token_in(mail: OutboundMessage) -> str:
    return mail.text.partition("#")[2].split()[0]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    path = tmp_path / "hub.db"
    app, hub = build_hub(path)
    await hub.writer.close()
    rules = hub.policy.channels | {3: replace(hub.policy.channels[3], mails=True)}
    assert ADDRESSES.issuperset(rules[3].reaches)
    policy = replace(hub.policy, channels=rules)
    pages = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parents[2] / "templates"))
    client = TestClient(TestServer(app))
    desk = Desk(app, hub, client, path)
    desk.hub = replace(
        hub,
        pages=pages,
        policy=policy,
        writer=SqliteWriter(path, policy, react=react, on_commit=lambda events, owes: hub.feed.publish(events), clock=desk.now),
    )
    app[HUB] = desk.hub
    await client.start_server()
    await desk.hub.writer.run(Known(()))
    yield desk
    desk.hub.feed.close()
    await client.close()
    await desk.hub.writer.close()
    await desk.hub.reader.close()


async def test_an_answer_nobody_saw_is_mailed_once_alone_and_its_link_works_once(desk: Desk) -> None:
    visitor = await desk.visitor()
    await visitor.says("first secret question", email="Ana@Mail.Example")
    await desk.answers("first secret question", "It is blue.")
    assert await desk.sweep(1) == 0
    assert await desk.sweep(2) == 1
    assert await desk.sweep(60) == 0
    (mail,) = await desk.mailed()
    assert mail.to == "Ana@Mail.Example"
    assert mail.text.startswith("It is blue.\n")
    assert "secret question" not in mail.text + mail.subject
    assert "https://hub.example/chat/chat/continue#" in mail.text
    phone = await desk.follows(token_in(mail))
    assert await phone.sees() == ["first secret question", "It is blue."]
    assert phone.device != visitor.device
    assert phone.told["proved"] == ["a•••@mail.example"]
    await desk.follows(token_in(mail), 403)


async def test_what_was_read_or_had_no_address_or_failed_is_not_mailed(desk: Desk) -> None:
    for words, more, status in [
        ("read", {"email": "a@mail.example"}, "read"),
        ("nobody", {}, "sent"),
        ("gone", {"email": "b@mail.example"}, "failed"),
    ]:
        visitor = await desk.visitor()
        await visitor.says(words, **more)
        number = await desk.answers(words, f"to {words}")
        desk.change(f"UPDATE message SET status = '{status}' WHERE id = {number}")
    assert await desk.sweep() == 0
    assert desk.states() == ["seen", "skipped", "skipped"]


async def test_reading_it_while_the_mail_waits_takes_the_mail_back(desk: Desk) -> None:
    visitor = await desk.visitor()
    await visitor.says("hello", email="a@mail.example")
    number = await desk.answers("hello", "hi")
    await desk.sweep()
    desk.change(f"UPDATE message SET status = 'read' WHERE id = {number}")
    assert await desk.mailed() == []


async def test_nobody_can_have_more_than_three_mails_a_day_sent_to_an_address(desk: Desk) -> None:
    for number in range(5):  # five browsers: a new one costs nothing
        stranger = await desk.visitor()
        await stranger.says(f"question {number}", email=VICTIM)
        await desk.answers(f"question {number}", f"answer {number}")
    assert await desk.sweep() == 3
    assert len(await desk.mailed()) == 3
    assert sorted(desk.states()) == ["mailed"] * 3 + ["skipped"] * 2
    desk.ahead += DAY
    stranger = await desk.visitor()
    await stranger.says("the day after", email=VICTIM)
    await desk.answers("the day after", "again")
    assert await desk.sweep() == 1


async def test_a_stranger_who_typed_a_victims_address_sees_nothing_of_the_victim(desk: Desk) -> None:
    stranger = await desk.visitor()
    await stranger.says("it is me", email=VICTIM)
    await desk.answers("it is me", "Prove it.")
    await desk.sweep()
    (mail,) = await desk.mailed()
    victim = await desk.follows(token_in(mail))
    assert await victim.sees() == ["it is me", "Prove it."]  # what was typed under their address, and no more
    assert len(desk.rows("SELECT DISTINCT conversation_id FROM message")) == 1
    await victim.says("my card ends in 1234")
    assert await stranger.sees() == ["it is me", "Prove it."]
    # And nobody was joined by the click, or by writing after it.
    of = dict(desk.rows("SELECT text, conversation_id FROM message"))
    assert of["my card ends in 1234"] != of["it is me"]
    await desk.answers("my card ends in 1234", "Thank you.")
    assert await stranger.sees() == ["it is me", "Prove it."]
    assert await victim.sees() == ["it is me", "Prove it.", "my card ends in 1234", "Thank you."]
    ((joins,),) = desk.rows(
        f"SELECT count(*) FROM identifier WHERE value = '{stranger.device}' AND customer_id = {of['my card ends in 1234']}"
    )
    assert joins == 0


@pytest.mark.parametrize("forged", ["", "x", "0" * 32, "link.sig", None, 7, ["x"], "é", "a" * 5_000])
async def test_a_forged_token_opens_nothing(desk: Desk, forged: object) -> None:
    answer = await desk.client.post("/chat/chat/continue", json={"token": forged}, headers={"Origin": "http://hub.example"})
    assert answer.status == 403
    assert "token" not in await answer.json()


async def test_a_link_is_good_for_a_day_on_its_own_chat_and_no_code_to_type(desk: Desk) -> None:
    stranger = await desk.visitor()
    await stranger.says("hello", email=VICTIM)
    await desk.answers("hello", "hi")
    await desk.sweep()
    (mail,) = await desk.mailed()
    ((code_id,),) = desk.rows("SELECT id FROM one_time_code")
    answer = await desk.client.get("/chat/chat/messages", headers=stranger.headers)
    assert (await answer.json())["code"] is None
    typed = await desk.client.post(f"/chat/chat/code/{code_id}", json={"code": "123456"}, headers=stranger.headers)
    assert typed.status == 404
    elsewhere = await desk.client.post("/chat/blog/continue", json={"token": token_in(mail)}, headers={"Origin": "http://hub.example"})
    assert elsewhere.status == 403
    foreign = await desk.client.post("/chat/chat/continue", json={"token": token_in(mail)}, headers={"Origin": "https://evil.example"})
    assert foreign.status == 403
    desk.ahead += DAY
    await desk.follows(token_in(mail), 403)


async def test_a_link_stands_in_no_row_and_its_page_names_nobody(desk: Desk) -> None:
    visitor = await desk.visitor()
    await visitor.says("hello", email=VICTIM)
    await desk.answers("hello", "hi")
    await desk.sweep()
    (mail,) = await desk.mailed()
    for table in ("mailed_answer", "one_time_code", "delivery", "event", "message"):
        assert token_in(mail) not in json.dumps(desk.rows(f"SELECT * FROM {table}"), default=str)


async def test_an_address_that_said_stop_is_not_mailed(desk: Desk) -> None:
    visitor = await desk.visitor()
    await visitor.says("hello", email=VICTIM)
    await desk.answers("hello", "hi")
    await desk.hub.writer.run(Insert((OptOut(1, 3, "email", VICTIM, 1, words="STOP", actor="agent:7"),)))
    assert await desk.sweep() == 0
    assert desk.states() == ["skipped"]


async def test_two_rounds_at_once_mail_an_answer_once(desk: Desk) -> None:
    visitor = await desk.visitor()
    await visitor.says("hello", email=VICTIM)
    number = await desk.answers("hello", "hi")
    mailing = mailings(desk.hub.channels.values(), desk.hub.policy)[CHAT]
    rounds = [MailAnswer(number, visitor.device, VICTIM, VICTIM, id_ * 32, mailing) for id_ in "ab"]
    assert [await desk.hub.writer.run(one) for one in rounds] == ["mailed", "mailed"]
    assert len(desk.rows("SELECT id FROM delivery WHERE kind = 'unseen'")) == 1


async def test_the_page_of_the_link_is_strict_and_empty(desk: Desk) -> None:
    answer = await desk.client.get("/chat/chat/continue")
    page = await answer.text()
    assert "default-src 'none'; script-src 'self'; connect-src 'self'" in answer.headers["Content-Security-Policy"]
    assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert '<script src="/widget.js" data-channel="chat" data-page async></script>' in page
    assert (await desk.client.get("/chat/mail/continue")).status == 404
