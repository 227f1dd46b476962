"""One-time codes over the routes a browser and an agent use: what is told to whom, and what a session is worth afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import select

from connectors.webchat import CODE_SECONDS, SIGNED_SECONDS, WebChat
from hub import app
from hub.app import Running
from hub.customers.codes import AskCode, RequestCode, account, masked
from hub.delivery.tokens import one_time_code
from hub.storage.records import Evidence, Identifier, Ticket
from hub.storage.tables import metadata
from hub.web import visitors
from hub.web.visitors import CHAT as STATE
from tests.conftest import configured
from tests.storage import ENGINES
from tests.web import Insert
from tests.web.test_chat import MAIL, SHOP, Known, Say, Stand, Visitor, build_hub, site_token
from tests.web.test_route_matrix import House

VICTIM = "victim@mail.example"
IDENTIFIER = metadata.tables["identifier"].c


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    application, hub = build_hub(tmp_path / "hub.db")
    client = TestClient(TestServer(application))
    await client.start_server()
    yield Stand(application, hub, client, tmp_path / "hub.db")
    hub.feed.close()
    await client.close()
    await hub.writer.close()
    await hub.reader.close()


async def post(visitor: Visitor, path: str, body: object, **headers: str) -> ClientResponse:
    return await visitor.stand.client.post(f"/chat/{visitor.channel}/code{path}", json=body, headers=visitor.headers | headers)


async def asked(visitor: Visitor, value: str = VICTIM, kind: str = "email") -> dict[str, Any]:
    answer = await post(visitor, "", {"kind": kind, "value": value})
    assert answer.status == 200, await answer.text()
    return cast(dict[str, Any], await answer.json())


def code_of(visitor: Visitor, told: dict[str, Any]) -> str:
    """What stands in the mail."""
    return one_time_code(visitor.stand.hub.secret, told["id"])


def wrong(visitor: Visitor, told: dict[str, Any]) -> str:
    return str((int(code_of(visitor, told)) + 1) % 1_000_000).zfill(6)


async def confirmed(visitor: Visitor, value: str = VICTIM) -> dict[str, Any]:
    """Ask, and type in what the mail says."""
    told = await asked(visitor, value)
    answer = await post(visitor, f"/{told['id']}", {"code": code_of(visitor, told)})
    assert answer.status == 200, await answer.text()
    session = cast(dict[str, Any], await answer.json())
    visitor.token = session["token"]
    return session


def proofs(visitor: Visitor) -> list[tuple[str, str]]:
    connector = visitor.stand.hub.channels[visitor.channel].connector
    assert isinstance(connector, WebChat)
    session = connector.session(visitor.token)
    assert session is not None
    return [(kind, value) for kind, value, _ in session.proofs]


def pass_(stand: Stand, seconds: float) -> None:
    stand.app[STATE].clock = lambda: time.time() + seconds


# --- asking ---


async def test_a_code_is_owed_and_the_answer_names_no_more_than_was_typed(stand: Stand) -> None:
    visitor = await stand.visitor()
    told = await asked(visitor, "Ada@Mail.Example")
    assert told == {"id": told["id"], "sent_to": "a•••@mail.example", "resend": 30}
    ((payload, target),) = stand.rows("SELECT payload, target FROM delivery")
    assert json.loads(payload) == {"code": told["id"], "name": "shop"}
    assert target == "mail"
    assert code_of(visitor, told) not in json.dumps([payload, told])
    assert not stand.rows("SELECT id FROM message") + stand.rows("SELECT id FROM ticket") + stand.rows("SELECT id FROM customer")


async def test_a_stranger_learns_nothing_by_asking(stand: Stand) -> None:
    """No oracle: the same status, the same words, the same reads and writes, whether we know the address or not."""
    await stand.hub.writer.run(Known((("email", "", VICTIM, "proven", 0),)))
    statements: list[list[str]] = []
    real = stand.hub.reader.all, stand.hub.reader.first

    async def all_(statement: Any, parameters: Any = None) -> Any:
        statements[-1].append(str(statement))
        return await real[0](statement, parameters)

    async def first(statement: Any, parameters: Any = None) -> Any:
        statements[-1].append(str(statement))
        return await real[1](statement, parameters)

    stand.hub.reader.all, stand.hub.reader.first = all_, first  # type: ignore[method-assign]
    answers = []
    for address in (VICTIM, "nobody@mail.example"):
        visitor = await stand.visitor()
        statements.append([])
        answer = await post(visitor, "", {"kind": "email", "value": address})
        body = await answer.json()
        answers.append((answer.status, sorted(body), body["resend"], sorted(answer.headers)))
        assert body["sent_to"] == masked("email", address)
    assert answers[0] == answers[1]
    assert statements[0] == statements[1]
    assert len(stand.rows("SELECT id FROM delivery")) == 2


# what is asked for -> the status, and a word of why
REFUSED: list[tuple[str, object, str]] = [
    ("nothing", {}, "address"),
    ("no address", {"kind": "email", "value": "ada"}, "address"),
    ("a number without its country", {"kind": "phone", "value": "0170 1234567"}, "country"),
    ("another kind", {"kind": "user_id", "value": "ana"}, "address"),
    ("a list", {"kind": ["email"], "value": [VICTIM]}, "address"),
    ("two addresses", {"kind": "email", "value": f"{VICTIM},b@c.example"}, "address"),
    ("a header", {"kind": "email", "value": f"{VICTIM}\r\nBcc: x@y.example"}, "address"),
    ("half a surrogate pair", {"kind": "email", "value": "\ud800@mail.example"}, "address"),
    ("a number, where nothing sends texts", {"kind": "phone", "value": "+447700900123"}, "No code"),
]


@pytest.mark.parametrize(("body", "word"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_what_is_no_address_is_refused_in_words(stand: Stand, body: object, word: str) -> None:
    visitor = await stand.visitor()
    answer = await post(visitor, "", body)
    assert answer.status == 400
    assert word in (await answer.json())["error"]
    assert not stand.rows("SELECT id FROM one_time_code") + stand.rows("SELECT id FROM delivery")


async def test_no_code_goes_to_ourselves(stand: Stand) -> None:
    """It would come in as a question, and lie open in the inbox."""
    stand.hub.policy = replace(stand.hub.policy, own_addresses=frozenset({"support@shop.example"}), own_domains=frozenset({"own.example"}))
    stand.hub.settings = stand.hub.settings.model_copy(update={"channels": {"sms": {"type": "x", "address": "+1 202 555 0100"}}})
    visitor = await stand.visitor()
    for kind, value in (("email", "Support@shop.example"), ("email", "me@own.example"), ("phone", "+12025550100")):
        answer = await post(visitor, "", {"kind": kind, "value": value})
        assert (answer.status, "our own" in (await answer.json())["error"]) == (400, True)
    assert not stand.rows("SELECT id FROM delivery")


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer nonsense"])
@pytest.mark.parametrize("path", ["", "/0123456789abcdef"])
async def test_codes_are_for_visitors_with_a_session(stand: Stand, path: str, header: str | None) -> None:
    headers = {"Origin": SHOP} | ({"Authorization": header} if header else {})
    answer = await stand.client.post(f"/chat/chat/code{path}", json={"kind": "email", "value": VICTIM, "code": "1"}, headers=headers)
    assert answer.status == 401
    assert not stand.rows("SELECT id FROM delivery")


async def test_only_pages_of_the_site_may_ask(stand: Stand) -> None:
    visitor = await stand.visitor()
    for origin, status in (("https://evil.example", 403), (SHOP, 200)):
        answer = await post(visitor, "", {"kind": "email", "value": VICTIM}, Origin=origin)
        assert answer.status == status
        assert answer.headers.get("Access-Control-Allow-Origin") == (SHOP if status == 200 else None)
    for path in ("code", "code/0123"):
        for origin, status in (("https://evil.example", 403), (SHOP, 204)):
            answer = await stand.client.options(f"/chat/chat/{path}", headers={"Origin": origin})
            assert answer.status == status


# --- attacks (numbers of the attack table on identity) ---


async def test_a1_a_stranger_who_types_a_victims_address_and_guesses_sees_nothing_and_joins_nobody(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", VICTIM, "proven", 0),)))
    await stand.hub.writer.run(Say(mail, "the victim's secret"))
    attacker = await stand.visitor()
    await attacker.says("it is me", email=VICTIM)
    told = await asked(attacker)
    tables = ("customer", "identifier", "evidence", "join_log", "ticket", "message", "dedupe", "event")
    before = {table: stand.rows(f"SELECT * FROM {table}") for table in tables}
    token, left = attacker.token, []
    for _ in range(5):
        answer = await post(attacker, f"/{told['id']}", {"code": wrong(attacker, told)})
        assert answer.status == 403
        body = await answer.json()
        assert "token" not in body
        left.append(body["tries_left"])
    assert left == [4, 3, 2, 1, 0]
    late = await post(attacker, f"/{told['id']}", {"code": code_of(attacker, told)})
    assert (late.status, (await late.json())["tries_left"]) == (403, 0)
    assert {table: stand.rows(f"SELECT * FROM {table}") for table in tables} == before
    assert (attacker.token, proofs(attacker)) == (token, [])
    assert await attacker.sees() == ["it is me"]


async def test_a22_a_form_flood_with_a_victims_address_sends_one_rate_limited_code(stand: Stand) -> None:
    flood = [await stand.visitor() for _ in range(20)]
    stand.app[STATE].codes = visitors.Buckets(1_000, 1)  # a network of many addresses
    answers = await asyncio.gather(*(post(visitor, "", {"kind": "email", "value": VICTIM}) for visitor in flood))
    assert sorted(answer.status for answer in answers) == [200] + [429] * 19
    assert all(int(answer.headers["Retry-After"]) <= 30 for answer in answers if answer.status == 429)
    assert len(stand.rows("SELECT id FROM delivery")) == 1
    assert not stand.rows("SELECT id FROM message") + stand.rows("SELECT id FROM customer")


async def test_one_network_address_and_one_widget_have_limits_of_their_own(stand: Stand) -> None:
    state = stand.app[STATE]
    flood = [await stand.visitor() for _ in range(14)]
    statuses = [(await post(one, "", {"kind": "email", "value": f"v{n}@mail.example"})).status for n, one in enumerate(flood)]
    assert statuses == [200] * 10 + [429] * 4
    elsewhere = await post(flood[-1], "", {"kind": "email", "value": "v99@mail.example"}, **{"X-Forwarded-For": "8.8.8.8"})
    assert elsewhere.status == 200
    state.all_codes["chat"] = visitors.Buckets(1, 3_600)
    for n, status in enumerate((200, 429)):
        visitor = await stand.visitor()
        answer = await post(visitor, "", {"kind": "email", "value": f"w{n}@mail.example"}, **{"X-Forwarded-For": f"8.8.4.{n}"})
        assert answer.status == status


async def test_where_codes_are_switched_off_none_are_offered_or_sent(stand: Stand) -> None:
    visitor = await stand.visitor()
    assert visitor.told["codes"] == ["email"], "and no texts, since no channel here sends any"
    connector = cast(WebChat, stand.hub.channels["chat"].connector)
    connector.settings = connector.settings.model_copy(update={"codes_per_hour": 0})
    assert (await visitor.begin())["codes"] == []
    assert (await post(visitor, "", {"kind": "email", "value": VICTIM})).status == 400
    assert not stand.rows("SELECT id FROM delivery")


# --- answering ---


async def test_the_right_code_proves_the_address_to_the_hub_and_in_the_token(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", VICTIM, "proven", 0),)))
    visitor = await stand.visitor()
    await visitor.says("before")
    session = await confirmed(visitor)
    assert (session["visitor"], session["proved"], session["identified"]) == (visitor.device, ["v•••@mail.example"], False)
    assert proofs(visitor) == [("email", VICTIM)]
    owners = {row[0] for row in stand.rows(f"SELECT customer_id FROM identifier WHERE kind = 'device' OR id = {mail}")}
    assert len(owners) == 1
    await visitor.says("after")
    assert await visitor.sees() == ["before", "after"]
    assert not stand.rows("SELECT id FROM message WHERE text LIKE '%code%'")


@pytest.mark.parametrize(
    "spell", [lambda c: f" {c[:3]} {c[3:]} ", lambda c: f"{c[:3]}-{c[3:]}", lambda c: c], ids=["spaces", "a dash", "plain"]
)
async def test_a_code_may_be_written_as_people_write_numbers(stand: Stand, spell: Any) -> None:
    visitor = await stand.visitor()
    told = await asked(visitor)
    assert (await post(visitor, f"/{told['id']}", {"code": spell(code_of(visitor, told))})).status == 200


@pytest.mark.parametrize(
    "said", [None, "", 123456, ["123456"], {}, "\uff11\uff12\uff13\uff14\uff15\uff16", "12345", "0" * 10_000], ids=repr
)
async def test_what_is_no_code_is_a_wrong_one(stand: Stand, said: object) -> None:
    visitor = await stand.visitor()
    told = await asked(visitor)
    answer = await post(visitor, f"/{told['id']}", {"code": said})
    assert (answer.status, (await answer.json())["tries_left"]) == (403, 4)


async def test_only_the_browser_that_asked_can_answer_and_only_once(stand: Stand) -> None:
    visitor, thief = await stand.visitor(), await stand.visitor()
    told = await asked(visitor)
    stolen = await post(thief, f"/{told['id']}", {"code": code_of(visitor, told)})
    assert stolen.status == 404
    first = await post(visitor, f"/{told['id']}", {"code": code_of(visitor, told)})
    again = await post(visitor, f"/{told['id']}", {"code": code_of(visitor, told)})
    assert (first.status, again.status) == (200, 403)
    assert (await post(visitor, "/0123456789abcdef", {"code": "123456"})).status == 404


async def test_a_code_can_be_sent_again_without_naming_the_address(stand: Stand) -> None:
    visitor, stranger = await stand.visitor(), await stand.visitor()
    told = await asked(visitor)
    assert (await post(visitor, "", {"again": told["id"]})).status == 429, "not at once"
    await stand.hub.writer.run(Age())
    answer = await post(visitor, "", {"again": told["id"]})
    assert answer.status == 200
    second = await answer.json()
    assert second["id"] != told["id"]
    assert second["sent_to"] == told["sent_to"]
    assert (await post(stranger, "", {"again": told["id"]})).status == 404
    # The first one still lives: mails overtake each other.
    assert (await post(visitor, f"/{told['id']}", {"code": code_of(visitor, told)})).status == 200


class Age:
    """Let a minute pass for every code."""

    def needs(self, needs: Any) -> None:
        needs.rows.add(("one_time_code", "state", "asked"))

    def decide(self, facts: Any) -> None:
        for row in facts.found[("one_time_code", "state", "asked")]:
            row.created_at -= 60_000_000
            facts.change(row)


# --- what a session is worth afterwards ---


async def test_a_proof_lasts_a_day_and_is_kept_by_renewals(stand: Stand) -> None:
    visitor = await stand.visitor()
    session = await confirmed(visitor)
    assert session["expires"] == pytest.approx(time.time() + CODE_SECONDS, abs=5)
    told = await visitor.begin()
    assert (told["proved"], proofs(visitor)) == (["v•••@mail.example"], [("email", VICTIM)])
    device = visitor.device
    pass_(stand, CODE_SECONDS + 5)
    assert (await stand.client.get("/chat/chat/messages", headers=visitor.headers)).status == 401, "renewed, it proves less"
    told = await visitor.begin()
    assert (told["proved"], told["visitor"], proofs(visitor)) == ([], device, [])


async def test_logging_out_ends_what_was_proved(stand: Stand) -> None:
    computer = await stand.visitor()
    await confirmed(computer)
    computer.token = ""  # what the widget's logout does
    told = await computer.begin()
    assert (told["proved"], proofs(computer)) == ([], [])


@pytest.mark.parametrize("first", [None, "ana"], ids=["an anonymous visitor", "another account"])
async def test_whoever_signs_in_at_a_browser_has_not_proved_what_was_proved_before(stand: Stand, first: str | None) -> None:
    computer = await stand.visitor(**({"identify": site_token(first)} if first else {}))
    await confirmed(computer)
    told = await computer.begin(identify=site_token("ben"))
    assert (told["identified"], told["proved"], proofs(computer)) == (True, [], [])


async def test_an_account_keeps_its_proof_with_each_new_token_of_the_site(stand: Stand) -> None:
    visitor = await stand.visitor(identify=site_token("ana"))
    ends = visitor.told["expires"]
    session = await confirmed(visitor)
    assert (session["identified"], session["expires"]) == (True, ends), "a code makes the site's word last no longer"
    told = await visitor.begin(identify=site_token("ana"))
    assert (told["identified"], proofs(visitor)) == (True, [("email", VICTIM)])


async def test_a_proof_that_ends_before_the_sites_word_ends_alone(stand: Stand) -> None:
    visitor = await stand.visitor(identify=site_token("ana"))
    await confirmed(visitor)
    pass_(stand, 20 * 3_600)
    told = await visitor.begin(identify=site_token("ana", exp=int(time.time()) + 20 * 3_600 + 600))
    assert told["expires"] == pytest.approx(time.time() + CODE_SECONDS, abs=5), "renewed when the proof ends"
    pass_(stand, CODE_SECONDS + 60)
    device = visitor.device
    told = await visitor.begin()
    assert (told["visitor"], told["identified"], told["proved"]) == (device, True, [])
    assert told["expires"] == pytest.approx(time.time() + 20 * 3_600 + SIGNED_SECONDS, abs=5)


# --- an agent asks ---


async def test_a_code_an_agent_asked_for_reaches_the_open_widget_and_the_next_poll(stand: Stand) -> None:
    visitor, stranger = await stand.visitor(), await stand.visitor()
    await visitor.says("it is me", email=VICTIM)
    await stranger.says("me too")
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as stream:
        lines = frames_of(stream)
        assert await anext(lines) == {"messages": ["it is me"]}
        number = int(stand.rows("SELECT id FROM identifier WHERE kind = 'email'")[0][0])
        ask = AskCode("a" * 32, 1, visitor.device, "email", VICTIM, VICTIM, "shop", asked_by=7)
        await stand.hub.writer.run(RequestCode(1, number, ask))
        told = {"id": "a" * 32, "sent_to": "v•••@mail.example", "resend": 30}
        async with asyncio.timeout(5):
            assert await anext(lines) == {"messages": [], "code": told}
    answer = await stand.client.get("/chat/chat/messages", headers=visitor.headers)
    assert (await answer.json())["code"] == told
    answer = await stand.client.get("/chat/chat/messages", headers=stranger.headers)
    assert (await answer.json())["code"] is None
    async with stand.client.get("/chat/chat/stream", headers=visitor.headers) as stream:  # and whoever opens the page later
        lines = frames_of(stream)
        await anext(lines)
        assert (await anext(lines))["code"] == told
    right = await post(visitor, f"/{told['id']}", {"code": one_time_code(stand.hub.secret, "a" * 32)})
    assert right.status == 200
    visitor.token = (await right.json())["token"]
    answer = await stand.client.get("/chat/chat/messages", headers=visitor.headers)
    assert (await answer.json())["code"] is None, "nothing is waited for any more"


async def test_a_code_asked_of_an_account_can_be_typed_in_on_any_of_its_devices(stand: Stand) -> None:
    laptop, phone = await stand.visitor(identify=site_token("ana")), await stand.visitor(identify=site_token("ana"))
    ben = await stand.visitor(identify=site_token("ben"))
    await laptop.says("it is me", email=VICTIM)
    number = int(stand.rows("SELECT id FROM identifier WHERE kind = 'email'")[0][0])
    ask = AskCode("a" * 32, 1, account("ana"), "email", VICTIM, VICTIM, "shop", asked_by=7)
    await stand.hub.writer.run(RequestCode(1, number, ask))
    code = {"code": one_time_code(stand.hub.secret, "a" * 32)}
    assert (await post(ben, "/" + "a" * 32, code)).status == 404
    assert (await post(phone, "/" + "a" * 32, code)).status == 200


async def frames_of(stream: ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """What a stream tells, with messages as their texts."""
    buffer = b""
    async for chunk in stream.content.iter_any():
        buffer += chunk
        *whole, buffer = buffer.split(b"\n\n")
        for frame in whole:
            if frame.startswith(b"data: "):
                told = json.loads(frame[6:])
                yield told | {"messages": [message["text"] for message in told["messages"]]}


async def test_an_agents_form_asks_the_visitor_and_says_why_where_it_cannot(running: Running) -> None:
    house = House(running)
    await house.furnish()
    agent, forged = await house.caller("agent"), await house.caller("forged")
    chat, now = running.hub.channels["chat"].rule, running.hub.writer.clock()
    await running.hub.writer.run(
        Insert(
            (
                Identifier(51, "device", "", "e" * 32, "proven", 0, 1, "channel", "e" * 32, now, now, 1),
                Identifier(52, "email", "", VICTIM, "asserted", 0, None, "claimed", "Victim@Mail.Example", now, now),
                Evidence(51, 51, 52, "claimed", "message:1", now),
                Ticket(51, 1, "open", "", "default", chat.id, 51, now, now, "Hello", home_id=1),
            )
        )
    )

    async def ask(ticket: int, identifier: object, caller: Any = agent) -> Any:
        return await house.ask("POST", f"/tickets/{ticket}/ask-code", caller, data={"identifier_id": str(identifier)})

    assert (await ask(51, 52, forged)).status == 403
    assert (await ask(99, 52)).status == 404
    refusals = ((1, 52, "write last by a chat"), (51, 51, "e-mail address or"), (51, "x", "e-mail address or"), (51, 1, "Nobody named"))
    for ticket, identifier, words in refusals:
        answer = await ask(ticket, identifier)
        assert (answer.status, words in answer.text) == (409, True), answer.text
    connector = cast(WebChat, running.hub.channels["chat"].connector)
    offering, connector.settings = connector.settings, connector.settings.model_copy(update={"codes_per_hour": 0})
    answer = await ask(51, 52)
    assert (answer.status, "offers codes" in answer.text) == (409, True)
    connector.settings = offering
    assert (await ask(51, 52)).status == 204
    answer = await ask(51, 52)
    assert (answer.status, "Too many codes" in answer.text) == (409, True)
    async with asyncio.timeout(10):
        await running.sandbox.state.wait_for(lambda: bool(running.sandbox.state.mails), timeout=None)  # type: ignore[union-attr]
    (mail,) = running.sandbox.state.mails  # type: ignore[union-attr]
    assert mail.recipients == ("victim@mail.example",)
    assert b"To: Victim@mail.example\r\n" in mail.raw, "the address as it was typed, not the key it is known by"


# --- the whole way ---


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_code_goes_out_by_mail_and_by_text_and_comes_back(tmp_path: Path, engine: str) -> None:
    with configured(tmp_path, engine) as settings:
        async with app.running(settings) as running:
            state = running.sandbox.state
            url, headers = f"http://127.0.0.1:{running.port}/chat/chat", {"Origin": settings.server.public_url}
            async with aiohttp.ClientSession(headers=headers) as http:

                async def post(path: str, body: object, token: str = "") -> dict[str, Any]:
                    authorized = {"Authorization": f"Bearer {token}"} if token else {}
                    async with http.post(url + path, json=body, headers=authorized) as answer:
                        assert answer.status == 200, await answer.text()
                        return cast(dict[str, Any], await answer.json())

                session = await post("/session", {})
                assert session["codes"] == ["email", "phone"]
                for kind, value in (("email", "ada@example.com"), ("phone", "+1 202 555 0123")):
                    told = await post("/code", {"kind": kind, "value": value}, session["token"])
                    async with asyncio.timeout(15):
                        await state.wait_for(
                            lambda kind=kind: bool(state.mails if kind == "email" else state.twilio_messages), timeout=None
                        )
                    written = state.mails[0].text if kind == "email" else state.twilio_messages[0].body
                    (code,) = re.findall(r"[0-9]{6}", written)
                    session = await post(f"/code/{told['id']}", {"code": code}, session["token"])
                assert session["proved"] == ["a•••@example.com", "•••23"]
            owners = await running.hub.reader.all(select(IDENTIFIER.kind, IDENTIFIER.customer_id))
            assert {kind for kind, _ in owners} == {"device", "email", "phone"}
            assert len({owner for _, owner in owners}) == 1
            left = await running.hub.reader.all(select(metadata.tables["message"].c.id))
            assert left == [], "a code is no part of any conversation"
            assert state.twilio_messages[0].to.endswith("+12025550123")


async def test_a_proven_address_opens_what_was_written_to_it_on_any_channel_and_a_sites_word_for_it_nothing(stand: Stand) -> None:
    (mail,) = await stand.hub.writer.run(Known((("email", "", VICTIM, "proven", 0),)))
    await stand.hub.writer.run(Say(mail, "by mail", channel_id=MAIL))
    told = await stand.visitor(identify=site_token("ana", email=VICTIM, email_verified=True))
    assert await told.sees() == []
    owner = await stand.visitor()
    assert await owner.sees() == []
    await confirmed(owner)
    assert await owner.sees() == ["by mail"]
