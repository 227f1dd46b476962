"""The chat's routes over a real database: what a visitor may see, from which pages, how often, and that tokens stay out of URLs."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jinja2
import jwt
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text

from connectors.webchat import WebChat, WebChatSettings
from hub.config import Settings
from hub.contract import Place
from hub.customers.disclosure import ProvedKey, visible_messages
from hub.policy import ChannelRule, Policy
from hub.sessions import address_key
from hub.storage.blobs import Blobs
from hub.storage.facts import Facts, Needs
from hub.storage.reader import sqlite_reader
from hub.storage.records import Agent, Attachment, ChannelState, Customer, Identifier, Message
from hub.storage.sqlite_writer import SqliteWriter
from hub.web import chat, visitors, webhooks
from hub.web.context import HUB, BoundChannel, Hub
from hub.web.feed import Feed
from hub.web.security import client_address
from tests.storage import fresh_database

SHOP = "https://shop.example"
KEY = "a-site-key-of-at-least-thirty-two-characters"
CHAT, BLOG, MAIL = 1, 2, 3  # channel ids: two chats of two sites, and one that is no chat


def rule(number: int, name: str, reaches: tuple[str, ...]) -> ChannelRule:
    return ChannelRule(id=number, name=name, label=name, brand="default", reaches=reaches, idempotent=True, mails=False)


def build_hub(path: Path, public_url: str = "http://hub.example") -> tuple[web.Application, Hub]:
    """The chat as it is served, over the database at `path`. Call inside a running loop."""
    fresh_database(path.parent)
    settings = Settings(
        server={"public_url": public_url},  # type: ignore[arg-type]
        sites={
            "shop": {"key": KEY, "trust_email": True, "origins": [f"{SHOP}/", "https://Shop.Example:8443"]},  # type: ignore[dict-item]
            "blog": {"key": KEY[::-1], "origins": ["https://blog.example"]},  # type: ignore[dict-item]
        },
    )
    rules = [rule(CHAT, "chat", WebChat.reaches), rule(BLOG, "blog", WebChat.reaches), rule(MAIL, "mail", ("email",))]
    feed = Feed()
    policy = Policy(channels={one.id: one for one in rules})
    writer = SqliteWriter(path, policy, react=lambda facts, event: None, on_commit=lambda events, owes: feed.publish(events))
    channels = {}
    for one, site in zip(rules, ["shop", "blog"], strict=False):
        place = Place(one.name, f"{public_url}/in/{one.name}", (one.name * 32)[:32].encode())
        connector = WebChat(WebChatSettings(type="webchat", site=site, welcome="Hello there"), place)
        channels[one.name] = BoundChannel(one, place, connector, ChannelState(one.id, one.name, verified_at=1))
    hub = Hub(
        settings=settings,
        policy=policy,
        writer=writer,
        reader=sqlite_reader(path),
        hot=cast(Any, None),
        blobs=Blobs(path.parent / "files"),
        feed=feed,
        pages=jinja2.Environment(autoescape=True),
        secret=b"s" * 32,
        channels=channels,
        rooms={},
        tools=cast(Any, None),
        http=cast(Any, None),
        desk=cast(Any, None),
        outbox=cast(Any, None),
    )
    app = web.Application(client_max_size=30_000_000)
    app[HUB] = hub
    app.add_routes(webhooks.routes)
    chat.add_routes(app)
    return app, hub


@dataclass(frozen=True, slots=True)
class Say:
    """An agent's answer or note as the hub writes it, to one identifier, on one channel."""

    identifier_id: int
    text: str
    direction: str = "out"
    status: str = "sent"
    channel_id: int = CHAT
    provider_id: str | None = None
    file: tuple[str, str] | None = None  # name, sha256

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("identifier", "id", self.identifier_id))

    def decide(self, facts: Facts) -> int:
        (identifier,) = facts.found[("identifier", "id", self.identifier_id)]
        message = Message(
            facts.new_id("message"), identifier.customer_id, None, self.direction, self.status, self.text, facts.now,
            channel_id=self.channel_id, identifier_id=identifier.id, agent_id=7, provider_id=self.provider_id,
        )  # fmt: skip
        facts.add_message(message)
        if self.file is not None:
            name, sha256 = self.file
            facts.insert(Attachment(f"file-{message.id}", message.id, name, "text/html", 5, sha256, "", False, "stored"))
        facts.emit("message.queued", customer_id=identifier.customer_id, message_id=message.id, agent_id=7)
        return message.id


@dataclass(frozen=True, slots=True)
class Known:
    """A customer with these identifiers (kind, site, value, standing, epoch), all joined."""

    identifiers: tuple[tuple[str, str, str, str, int], ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("agent", "id", 7))

    def decide(self, facts: Facts) -> tuple[int, ...]:
        customer = Customer(facts.new_id("customer"), "", facts.now)
        facts.add_customer(customer)
        if not facts.found[("agent", "id", 7)]:
            facts.insert(Agent(7, "agent@shop.example", "Maya", "x", "agent", facts.now))
        made = []
        for kind, site, value, standing, epoch in self.identifiers:
            row = Identifier(
                facts.new_id("identifier"), kind, site, value, standing, epoch, customer.id, "channel", value, facts.now, facts.now
            )  # fmt: skip
            former = facts.identifiers.get((kind, site, value, standing))
            if former is not None:  # it passed on
                former.ended_at = facts.now
            facts.add_identifier(row)
            made.append(row.id)
        return tuple(made)


@dataclass
class Visitor:
    """One browser."""

    stand: Stand
    token: str = ""
    device: str = ""
    channel: str = "chat"
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Origin": SHOP if self.channel == "chat" else "https://blog.example"}

    async def begin(self, **body: object) -> dict[str, Any]:
        body = ({"resume": self.token} if self.token else {}) | body
        answer = await self.stand.client.post(f"/chat/{self.channel}/session", json=body, headers={"Origin": self.headers["Origin"]})
        assert answer.status == 200, await answer.text()
        self.told = await answer.json()
        self.token, self.device = self.told["token"], self.told["visitor"]
        return self.told

    async def post(self, body: dict[str, Any]) -> ClientResponse:
        return await self.stand.client.post(f"/in/{self.channel}", json=body, headers=self.headers)

    async def says(self, words: str, number: str = "", **more: object) -> None:
        answer = await self.post({"id": number or f"uuid-{words.encode().hex()[:50]}", "text": words, **more})
        assert answer.status == 200, await answer.text()

    async def sees(self, query: str = "") -> list[str]:
        answer = await self.stand.client.get(f"/chat/{self.channel}/messages{query}", headers=self.headers)
        assert answer.status == 200, await answer.text()
        return [message["text"] for message in (await answer.json())["messages"]]

    async def listed(self) -> list[dict[str, Any]]:
        answer = await self.stand.client.get(f"/chat/{self.channel}/messages", headers=self.headers)
        return cast(list[dict[str, Any]], (await answer.json())["messages"])


@dataclass
class Stand:
    app: web.Application
    hub: Hub
    client: TestClient[web.Request, web.Application]
    path: Path

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as connection:
            return connection.execute(sql).fetchall()

    async def visitor(self, channel: str = "chat", **body: object) -> Visitor:
        visitor = Visitor(self, channel=channel)
        await visitor.begin(**body)
        return visitor

    def identifier(self, kind: str, value: str) -> int:
        ((number,),) = self.rows(f"SELECT id FROM identifier WHERE kind = '{kind}' AND value = '{value}' AND standing = 'proven'")
        return int(number)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    app, hub = build_hub(tmp_path / "hub.db")
    client = TestClient(TestServer(app))
    await client.start_server()
    yield Stand(app, hub, client, tmp_path / "hub.db")
    hub.feed.close()
    await client.close()
    await hub.writer.close()
    await hub.reader.close()


def site_token(user: str, key: str = KEY, **claims: object) -> str:
    return jwt.encode({"sub": user, "aud": "support-hub", "exp": int(time.time()) + 600, **claims}, key, "HS256")


# --- what a visitor sees ---


async def test_a_visitor_sees_the_own_messages_and_the_answers_to_them(stand: Stand) -> None:
    visitor = await stand.visitor()
    await visitor.says("hello")
    await stand.hub.writer.run(Known(()))
    device = stand.identifier("device", visitor.device)
    await stand.hub.writer.run(Say(device, "how can we help?", provider_id="chat-ref"))
    await stand.hub.writer.run(Say(device, "looks like a cold lead", direction="note", status=""))
    await stand.hub.writer.run(Say(device, "never went out", status="failed"))
    mine, answer = await visitor.listed()
    assert (mine["from"], mine["name"], mine["text"], mine["attachments"]) == ("you", "", "hello", [])
    assert (answer["from"], answer["name"], answer["text"], answer["ref"], answer["read"]) == (
        "agent", "Maya", "how can we help?", "chat-ref", False,
    )  # fmt: skip
    assert answer["at"].endswith("+00:00")
    assert await visitor.sees(f"?after={mine['id']}") == ["how can we help?"]
    assert await visitor.sees(f"?before={answer['id']}") == ["hello"]


async def test_a_message_posted_twice_is_one(stand: Stand) -> None:
    visitor = await stand.visitor()
    for _ in range(5):
        await visitor.says("hello", "the-same-uuid")
    await visitor.says("hello", "another-uuid")
    assert await visitor.sees() == ["hello", "hello"]
    assert len(stand.rows("SELECT id FROM message")) == 2


async def test_joined_people_still_see_only_what_each_session_proved(stand: Stand) -> None:
    """The heart of disclosure: one customer, joined from many sides, shows a session only its own side."""
    ana = await stand.visitor(identify=site_token("ana"))
    stranger = await stand.visitor()
    anonymous = "0" * 32
    mail, other_device, other_site, asserted, own, old = await stand.hub.writer.run(
        Known(
            (
                ("email", "", "ana@mail.example", "proven", 0),
                ("device", "", anonymous, "proven", 0),
                ("user_id", "blog", "ana", "proven", 0),
                ("user_id", "shop", "ana", "asserted", 0),
                ("user_id", "shop", "ana", "proven", 5),
                ("device", "", ana.device, "proven", 3),
            )
        )
    )
    for identifier, words, channel in [
        (mail, "private mail", MAIL),
        (mail, "mail address on chat", CHAT),
        (other_device, "another browser", CHAT),
        (other_site, "another site's ana", CHAT),
        (asserted, "only claimed to be ana", CHAT),
        (own, "to ana by chat", CHAT),
        (own, "to ana by mail", MAIL),
        (own, "to ana on the blog", BLOG),
        (old, "to ana's browser", CHAT),
    ]:
        await stand.hub.writer.run(Say(identifier, words, channel_id=channel))
    assert await ana.sees() == ["to ana by chat", "to ana's browser"]
    assert await stranger.sees() == []


async def test_a_value_with_a_new_holder_shows_nothing_of_the_old_one(stand: Stand) -> None:
    ana = await stand.visitor(identify=site_token("ana"))
    before, after = await stand.hub.writer.run(Known((("user_id", "shop", "ana", "proven", 1), ("user_id", "shop", "ana", "proven", 2))))
    await stand.hub.writer.run(Say(before, "the old holder's"))
    await stand.hub.writer.run(Say(after, "the new holder's"))
    assert await ana.sees() == ["the new holder's"]


async def test_a_person_sees_the_same_chat_on_every_device_and_a_stranger_on_none(stand: Stand) -> None:
    laptop, phone = await stand.visitor(identify=site_token("ana")), await stand.visitor(identify=site_token("ana"))
    ben = await stand.visitor(identify=site_token("ben"))
    await laptop.says("from the laptop")
    await phone.says("from the phone")
    assert await laptop.sees() == await phone.sees() == ["from the laptop", "from the phone"]
    assert await ben.sees() == []
    assert len(stand.rows("SELECT DISTINCT conversation_id FROM message")) == 1


async def test_the_reading_follows_indexes_and_never_scans_messages(stand: Stand) -> None:
    keys = [ProvedKey("device", "", "d1"), ProvedKey("user_id", "shop", "ana")]
    plan = visible_messages(keys, [CHAT, BLOG], after=3).compile(compile_kwargs={"literal_binds": True})
    steps = [row[3] for row in await stand.hub.reader.all(text(f"EXPLAIN QUERY PLAN {plan}"))]
    assert any("ix_message_conversation_id" in step for step in steps), steps
    assert not [step for step in steps if step.startswith("SCAN")], steps


# --- attacks (numbers of the attack table on identity) ---


async def test_a1_typing_a_victims_address_joins_nothing_and_shows_nothing(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", "victim@mail.example", "proven", 0),)))
    await stand.hub.writer.run(Say(mail, "the victim's secret", channel_id=CHAT))
    attacker = await stand.visitor()
    await attacker.says("it is me", email="victim@mail.example", name="Victim")
    assert await attacker.sees() == ["it is me"]
    ((victim,),) = stand.rows(f"SELECT customer_id FROM identifier WHERE id = {mail}")
    assert victim not in [row[0] for row in stand.rows("SELECT conversation_id FROM message WHERE text = 'it is me'")]
    assert stand.rows("SELECT standing FROM identifier WHERE kind = 'email' AND proof = 'claimed'") == [("asserted",)]


UNFIT = [
    ("a2: nothing", None, "string"),
    ("a2: empty", "", "empty"),
    ("a2: an object with the claim", {"sub": "victim"}, "string"),
    ("a2: a list", ["victim"], "string"),
    ("a4: expired", site_token("victim", exp=int(time.time()) - 3_600), "expired"),
    ("a4: for somebody else", site_token("victim", aud="another-product"), "aud"),
    ("a4: signed by another site", site_token("victim", key=KEY[::-1]), "signature"),
    ("a4: unsigned", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ2aWN0aW0iLCJhdWQiOiJzdXBwb3J0LWh1YiIsImV4cCI6OTk5OTk5OTk5OX0.", "HS256"),
]


@pytest.mark.parametrize(("token", "problem"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT])
async def test_a2_a4_an_unfit_token_leaves_the_visitor_anonymous_and_says_why(stand: Stand, token: object, problem: str) -> None:
    victim = await stand.visitor(identify=site_token("victim"))
    await victim.says("the victim's secret")
    attacker = await stand.visitor()
    device = attacker.device
    told = await attacker.begin(identify=token)
    assert (told["identified"], told["visitor"]) == (False, device)
    assert problem in told["problem"]
    await attacker.says("hello")
    assert await attacker.sees() == ["hello"]
    assert len(stand.rows("SELECT DISTINCT conversation_id FROM message")) == 2


async def test_a3_only_what_is_inside_the_token_counts(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", "victim@mail.example", "proven", 0),)))
    attacker = await stand.visitor(identify=site_token("mallory"), email="victim@mail.example", user_id="victim", email_verified=True)
    assert attacker.told["identified"]
    await attacker.says("hello", email="victim@mail.example", email_verified=True, user_id="victim")
    owners = stand.rows("SELECT kind, value, customer_id FROM identifier WHERE standing = 'proven' ORDER BY id")
    victim = next(owner for kind, _, owner in owners if kind == "email")
    assert {(kind, value) for kind, value, owner in owners if owner == victim} == {("email", "victim@mail.example")}
    assert mail
    # The negative twin: signed by the site, the same address does join.
    other = await stand.visitor(identify=site_token("v1", email="victim@mail.example", email_verified=True))
    await other.says("now it is")
    ((joined,),) = stand.rows("SELECT customer_id FROM identifier WHERE kind = 'user_id' AND value = 'v1'")
    assert joined == victim


async def test_a4_a_replayed_token_is_the_same_person_and_told_once(stand: Stand) -> None:
    token = site_token("ana")
    visitor = await stand.visitor(identify=token)
    for _ in range(3):
        await visitor.begin(identify=token)
    assert len(stand.rows("SELECT provider_key FROM dedupe WHERE provider_key LIKE 'identify:%'")) == 1
    await visitor.begin(identify=site_token("ana", jti="the next page"))  # no news: nothing is written
    assert len(stand.rows("SELECT provider_key FROM dedupe WHERE provider_key LIKE 'identify:%'")) == 1


async def test_an_anonymous_visitor_who_signs_in_keeps_the_own_history_and_joins_the_earlier_mail(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", "dana@mail.example", "proven", 0),)))
    visitor = await stand.visitor()
    await visitor.says("before signing in")
    before = visitor.token
    told = await visitor.begin(identify=site_token("u77", email="dana@mail.example", email_verified=True, name="Dana"))
    assert (told["identified"], told["name"]) == (True, "Dana")
    await visitor.says("after signing in")
    assert await visitor.sees() == ["before signing in", "after signing in"]
    owners = {row[0] for row in stand.rows(f"SELECT customer_id FROM identifier WHERE kind IN ('device', 'user_id') OR id = {mail}")}
    assert len(owners) == 1
    # Whoever kept the older token of this browser sees what was said with it, and nothing of the account.
    assert await Visitor(stand, before, visitor.device).sees() == ["before signing in"]


async def test_logging_out_and_another_account_begin_a_new_visitor(stand: Stand) -> None:
    computer = await stand.visitor(identify=site_token("ana"))
    await computer.says("ana's secret")
    ana = computer.device
    await computer.begin(identify=site_token("ben"))
    assert computer.device != ana
    await computer.says("ben here")
    assert await computer.sees() == ["ben here"]
    assert len(stand.rows("SELECT DISTINCT conversation_id FROM message")) == 2
    computer.token = ""  # what the widget's logout does
    await computer.begin()
    assert await computer.sees() == []


async def test_a_session_of_one_chat_is_nobody_at_another(stand: Stand) -> None:
    visitor = await stand.visitor()
    visitor.channel = "blog"
    assert (await stand.client.get("/chat/blog/messages", headers=visitor.headers)).status == 401
    device = visitor.device
    assert (await visitor.begin())["visitor"] != device


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer nonsense", "Basic dTpw", "Bearer v1.e30.x"])
@pytest.mark.parametrize("path", ["messages", "stream", "files/file-1"])
async def test_nothing_is_shown_without_a_token(stand: Stand, path: str, header: str | None) -> None:
    answer = await stand.client.get(f"/chat/chat/{path}", headers={"Authorization": header} if header else {})
    assert answer.status == 401


async def test_a_token_in_the_url_opens_nothing(stand: Stand) -> None:
    visitor = await stand.visitor()
    for name in ("token", "access_token", "resume"):
        assert (await stand.client.get(f"/chat/chat/messages?{name}={visitor.token}")).status == 401


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?before=1e9", "?after=99999999999999999999", "?after=²"])
async def test_a_message_id_is_a_number(stand: Stand, query: str) -> None:
    visitor = await stand.visitor()
    assert (await stand.client.get(f"/chat/chat/messages{query}", headers=visitor.headers)).status == 400


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"\xff", b'{"resume": ' + b"[" * 9_000 + b"}"])
async def test_a_session_begins_with_an_object_or_not_at_all(stand: Stand, body: bytes) -> None:
    answer = await stand.client.post("/chat/chat/session", data=body, headers={"Origin": SHOP})
    assert answer.status == 400
    assert "JSON" in (await answer.json())["error"]


async def test_a_session_body_has_a_limit(stand: Stand) -> None:
    answer = await stand.client.post("/chat/chat/session", data=b"x" * 20_001, headers={"Origin": SHOP})
    assert answer.status == 413


# --- files ---


async def test_a_file_is_for_those_who_see_its_message_and_is_only_ever_saved(stand: Stand) -> None:
    visitor, stranger = await stand.visitor(), await stand.visitor()
    await visitor.says("photo", files=[{"name": "my photo é.html", "type": "text/html", "data": base64.b64encode(b"<script>").decode()}])
    ((message,), (file,)) = (await visitor.listed(), (await visitor.listed())[0]["attachments"])
    assert (file["name"], file["type"], file["size"], message["text"]) == ("my photo é.html", "text/html", 8, "photo")
    answer = await stand.client.get(file["url"], headers=visitor.headers)
    assert (answer.status, await answer.read()) == (200, b"<script>")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment; filename=\"my photo e.html\"; filename*=UTF-8''my%20photo%20%C3%A9.html"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert (await stand.client.get(file["url"], headers=stranger.headers)).status == 404
    assert visitor.token not in file["url"]


@pytest.mark.parametrize(("direction", "status"), [("note", ""), ("out", "failed")])
async def test_a_notes_file_stays_inside(stand: Stand, direction: str, status: str) -> None:
    visitor = await stand.visitor()
    await visitor.says("hello")
    sha256 = stand.hub.blobs.put(b"inner")
    hidden = await stand.hub.writer.run(
        Say(stand.identifier("device", visitor.device), "see file", direction, status, file=("inner.txt", sha256))
    )
    shown = await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "see file", file=("outer.txt", sha256)))
    assert (await stand.client.get(f"/chat/chat/files/file-{hidden}", headers=visitor.headers)).status == 404
    assert (await stand.client.get(f"/chat/chat/files/file-{shown}", headers=visitor.headers)).status == 200


# --- live ---


async def frames(answer: ClientResponse) -> AsyncIterator[list[str]]:
    buffer = b""
    async for chunk in answer.content.iter_any():
        buffer += chunk
        *whole, buffer = buffer.split(b"\n\n")
        for frame in whole:
            if frame.startswith(b"data: "):
                yield [message["text"] for message in json.loads(frame[6:])["messages"]]


async def test_answers_arrive_as_they_are_given_and_nobody_elses(stand: Stand) -> None:
    visitor, other = await stand.visitor(), await stand.visitor()
    await visitor.says("hello")
    await other.says("me too")
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        assert "no-store" in answer.headers["Cache-Control"]
        live = frames(answer)
        assert await anext(live) == ["hello"]
        await stand.hub.writer.run(Say(stand.identifier("device", other.device), "for the other"))
        await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "a note", "note", ""))
        await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "for you"))
        assert await anext(live) == ["for you"]
        await visitor.says("thanks a lot")
        assert await anext(live) == ["thanks a lot"]
        await live.aclose()


async def test_a_long_absence_is_caught_up_whole(stand: Stand) -> None:
    visitor = await stand.visitor()
    await visitor.says("Hello")
    (first,) = await visitor.listed()
    missed = [f"answer {n}" for n in range(2 * chat.PAGE + 3)]
    for words in missed:
        await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), words))
    async with stand.client.get(f"/chat/chat/stream?after={first['id']}", headers=visitor.headers) as answer:
        live = frames(answer)
        assert [words for _ in range(3) for words in await anext(live)] == missed
        await live.aclose()


async def test_the_first_message_of_a_new_visitor_is_seen_by_a_stream_opened_before_it(stand: Stand) -> None:
    visitor = await stand.visitor()
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as answer:
        live = frames(answer)
        assert await anext(live) == []
        await (await stand.visitor()).says("somebody else")
        await visitor.says("my first")
        assert await anext(live) == ["my first"]
        await live.aclose()


async def test_an_answer_right_behind_a_new_visitors_first_message_is_not_missed(stand: Stand) -> None:
    visitor = await stand.visitor()
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as answer:
        live = frames(answer)
        assert await anext(live) == []
        await visitor.says("my first")
        await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "at once"))  # within the same tick
        seen: list[str] = []
        while len(seen) < 2:
            seen += await anext(live)
        assert seen == ["my first", "at once"]
        await live.aclose()


async def test_a_stream_goes_on_after_its_customer_was_joined_to_another(stand: Stand) -> None:
    """The older customer survives: the stream's own customer id is gone, its messages are not."""
    await stand.hub.writer.run(Known((("email", "", "dana@mail.example", "proven", 0),)))
    visitor = await stand.visitor()
    await visitor.says("anonymous still")
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as answer:
        live = frames(answer)
        assert await anext(live) == ["anonymous still"]
        twin = Visitor(stand, visitor.token, visitor.device)
        await twin.begin(identify=site_token("u77", email="dana@mail.example", email_verified=True))
        await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "still here"))
        assert await anext(live) == ["still here"]
        await live.aclose()


async def test_a_stream_continues_after_the_last_message_seen_and_ends_with_the_hub(stand: Stand) -> None:
    visitor = await stand.visitor()
    await visitor.says("one")
    first = (await visitor.listed())[0]["id"]
    await visitor.says("two")
    async with stand.client.get(f"/chat/chat/stream?after={first}", headers=visitor.headers) as answer:
        live = frames(answer)
        assert await anext(live) == ["two"]
        assert stand.app[visitors.CHAT].streams[visitor.device] == 1
        stand.hub.feed.close()
        assert [frame async for frame in live] == []
    assert not stand.app[visitors.CHAT].streams


async def test_one_visitor_holds_a_bounded_number_of_streams(stand: Stand) -> None:
    visitor, other = await stand.visitor(), await stand.visitor()
    held = [await stand.client.get("/chat/chat/stream", headers=visitor.headers) for _ in range(chat.STREAMS_PER_VISITOR)]
    assert {answer.status for answer in held} == {200}
    refused = await stand.client.get("/chat/chat/stream", headers=visitor.headers)
    assert (refused.status, "Retry-After" in refused.headers) == (429, True)
    allowed = await stand.client.get("/chat/chat/stream", headers=other.headers)
    assert allowed.status == 200
    for answer in [*held, allowed]:
        answer.close()


async def test_an_expired_session_ends_its_stream(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "KEEPALIVE", 0.01)
    visitor = await stand.visitor(identify=site_token("ana"))
    async with asyncio.timeout(30), stand.client.get("/chat/chat/stream", headers=visitor.headers) as answer:
        live = frames(answer)
        assert await anext(live) == []
        stand.app[visitors.CHAT].clock = lambda: time.time() + 86_400
        assert [frame async for frame in live] == []
    assert (await stand.client.get("/chat/chat/messages", headers=visitor.headers)).status == 401


# --- read receipts ---


async def test_an_answer_shown_is_read_and_nobody_elses_is(stand: Stand) -> None:
    visitor, other = await stand.visitor(), await stand.visitor()
    await visitor.says("hello")
    await other.says("hello too")
    await stand.hub.writer.run(Say(stand.identifier("device", visitor.device), "for you", provider_id="chat-for-visitor"))
    await stand.hub.writer.run(Say(stand.identifier("device", other.device), "for the other", provider_id="chat-for-other"))
    (answer,) = [message for message in await visitor.listed() if message["from"] == "agent"]
    assert (await visitor.post({"type": "read", "refs": [answer["ref"]]})).status == 200
    assert stand.rows("SELECT text, status FROM message WHERE direction = 'out'") == [("for you", "read"), ("for the other", "sent")]
    assert [message["read"] for message in await visitor.listed() if message["from"] == "agent"] == [True]


# --- pages ---

ORIGINS = [
    ("the site", SHOP, True),
    ("the site on its other port, configured in capitals", "https://shop.example:8443", True),
    ("the hub's own pages", "http://hub.example", True),
    ("no origin", None, False),
    ("a sandboxed frame", "null", False),
    ("empty", "", False),
    ("somebody", "https://evil.example", False),
    ("a subdomain", "https://sub.shop.example", False),
    ("a longer name", "https://shop.example.evil.example", False),
    ("a prefix", "https://evilshop.example", False),
    ("unencrypted", "http://shop.example", False),
    ("another port", "https://shop.example:444", False),
    ("the default port spelled out", "https://shop.example:443", False),
    ("in capitals", "https://SHOP.example", False),
    ("with a slash", "https://shop.example/", False),
    ("two at once", "https://shop.example https://evil.example", False),
    ("another site of the same hub", "https://blog.example", False),
    ("any", "*", False),
]


@pytest.mark.parametrize(("origin", "passes"), [row[1:] for row in ORIGINS], ids=[row[0] for row in ORIGINS])
async def test_only_the_sites_own_pages_may_embed_the_chat(stand: Stand, origin: str | None, passes: bool) -> None:
    sent = {} if origin is None else {"Origin": origin}
    answer = await stand.client.post("/chat/chat/session", json={}, headers=sent)
    assert answer.status == (200 if passes else 403)
    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if passes else None)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    if not passes:
        assert "token" not in await answer.json()
    asked = await stand.client.options("/in/chat", headers=sent | {"Access-Control-Request-Method": "POST"})
    assert asked.headers.get("Access-Control-Allow-Origin") == (origin if passes else None)
    assert (asked.status == 204) is passes


async def test_a_foreign_page_cannot_use_even_a_stolen_token(stand: Stand) -> None:
    visitor = await stand.visitor()
    stolen = visitor.headers | {"Origin": "https://evil.example"}
    assert (await stand.client.post("/in/chat", json={"id": "client-uuid-1", "text": "x"}, headers=stolen)).status == 403
    assert (await stand.client.get("/chat/chat/messages", headers=stolen)).status == 403
    assert (await stand.client.get("/chat/chat/stream", headers=stolen)).status == 403
    assert stand.rows("SELECT id FROM message") == []


@pytest.mark.parametrize("path", ["/in/chat", "/chat/chat/session", "/chat/chat/messages", "/chat/chat/stream", "/chat/chat/files/x"])
async def test_a_browser_may_ask_first(stand: Stand, path: str) -> None:
    answer = await stand.client.options(path, headers={"Origin": SHOP, "Access-Control-Request-Headers": "authorization"})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Origin" in answer.headers["Vary"]


async def test_the_page_can_read_refusals_too(stand: Stand) -> None:
    answer = await stand.client.get("/chat/chat/messages", headers={"Origin": SHOP})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, SHOP)


async def test_other_doors_are_left_alone(stand: Stand) -> None:
    assert (await stand.client.post("/chat/mail/session", json={}, headers={"Origin": SHOP})).status == 404
    assert (await stand.client.post("/in/nowhere", headers={"Origin": "https://evil.example"})).status == 404
    answer = await stand.client.options("/in/nowhere", headers={"Origin": SHOP})
    assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (405, None)


# --- floods ---


async def test_a_flood_of_messages_is_put_off_and_nothing_of_it_stored(stand: Stand) -> None:
    visitor, other = await stand.visitor(), await stand.visitor()
    stand.app[visitors.CHAT].messages = visitors.Buckets(10, 100_000)  # so slow that no second of this test refills it
    answers = [await visitor.post({"id": f"client-uuid-{n}", "text": f"{n}"}) for n in range(12)]
    assert [answer.status for answer in answers] == [200] * 10 + [429] * 2
    assert 1 <= int(answers[11].headers["Retry-After"]) <= 10_000
    assert answers[11].headers["Access-Control-Allow-Origin"] == SHOP
    assert len(stand.rows("SELECT id FROM message")) == 10
    await other.says("not my flood")


async def test_files_are_put_off_by_address_and_a_larger_message_is_never_read(stand: Stand) -> None:
    stand.app[visitors.CHAT].uploads = visitors.Buckets(2, 100_000)
    file = {"name": "a.bin", "type": "application/octet-stream", "data": "AAAA" * 30_000}
    visitor = await stand.visitor()
    for expected in (200, 200, 429):  # a new visitor each time: being nobody in particular wins no more room
        visitor = await stand.visitor()
        assert (await visitor.post({"id": f"upload-{visitor.device}", "files": [file]})).status == expected
    await visitor.says("text is no upload")
    large = io.BytesIO(b" " * (visitors.MAX_MESSAGE_BODY + 1))
    assert (await stand.client.post("/in/chat", data=large, headers=visitor.headers)).status == 413

    async def unmeasured() -> AsyncIterator[bytes]:
        yield b"{}"

    assert (await stand.client.post("/in/chat", data=unmeasured(), headers=visitor.headers)).status == 411


async def test_a_flood_of_new_visitors_is_put_off_by_address(stand: Stand) -> None:
    visitor = await stand.visitor()
    stand.app[visitors.CHAT].newcomers["chat"] = visitors.Buckets(30, 100_000)
    statuses = [(await stand.client.post("/chat/chat/session", json={}, headers={"Origin": SHOP})).status for _ in range(32)]
    assert statuses == [200] * 30 + [429] * 2
    await visitor.begin()  # who is here already stays
    elsewhere = await stand.client.post("/chat/chat/session", json={}, headers={"Origin": SHOP, "X-Forwarded-For": "1.2.3.4, 8.8.8.8"})
    assert elsewhere.status == 200  # the proxy on this machine names another address
    forged = await stand.client.post("/chat/chat/session", json={}, headers={"Origin": SHOP, "X-Forwarded-For": "9.9.9.9, nonsense"})
    assert forged.status == 429


def test_a_bucket_gives_so_many_at_once_and_refills_with_time() -> None:
    buckets = visitors.Buckets(10, 10)
    assert [buckets.wait("ana", 100.0) for _ in range(10)] == [0.0] * 10
    assert buckets.wait("ana", 100.0) == pytest.approx(1.0)
    assert buckets.wait("ben", 100.0) == 0.0
    assert buckets.wait("ana", 100.9) > 0
    assert buckets.wait("ana", 101.0) == 0.0  # a refused try costs nothing
    assert buckets.wait("ana", 101.0) > 0
    assert [buckets.wait("ana", 1_000.0) for _ in range(11)][:10] == [0.0] * 10


def test_the_address_counted_is_the_one_our_own_proxy_saw() -> None:
    for remote, forwarded, counted in [
        ("203.0.113.7", None, "203.0.113.7"),  # a documentation range counts as not global, and has nothing to say
        ("8.8.8.8", "1.1.1.1", "8.8.8.8"),  # a stranger's claim
        ("127.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.5", "1.1.1.1, 9.9.9.9", "9.9.9.9"),  # only what the nearest proxy appended
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("2001:4860:4860::8888", None, "2001:4860:4860::/64"),
        ("2001:4860:4860:0:ffff::1", None, "2001:4860:4860::/64"),
        ("", None, "local"),
    ]:
        from aiohttp.test_utils import make_mocked_request

        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote)
        assert address_key(client_address(request)) == f"address:{counted}", (remote, forwarded)


# --- the script ---


async def test_the_script_is_for_every_page_and_is_asked_for_again_cheaply(stand: Stand) -> None:
    answer = await stand.client.get("/widget.js")
    script = await answer.text()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "max-age=" in answer.headers["Cache-Control"]
    again = await stand.client.get("/widget.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    changed = await stand.client.get("/widget.js", headers={"If-None-Match": '"another"', "Accept-Encoding": "identity"})
    assert (changed.status, await changed.text(), changed.headers.get("Content-Encoding")) == (200, script, None)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 20_000  # it rides on strangers' pages
    # What would let a message run as code, or a page's policy refuse the script.
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "document.cookie",
        "import(",
    ):
        assert forbidden not in script
