"""The gate's judgement: from the facts about one person to "held" or not, and the one statement that reads them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Claim, Proof
from hub.conversations.commands import Reopen, Resolve
from hub.holds.gate import LONGEST_LINE, MOST, BadQuestion, Standing, ask, hits_of, judge, look_up, read_line, spelled
from hub.policy import Policy
from hub.storage.hot import REACHING, HoldFact
from hub.storage.migrate import migrate
from hub.storage.sqlite_hot import SqliteHot, Statements
from tests.delivery import ADA, BEN, CHAT, MAIL, START, Ground, ground

NOW = START


def hit(
    lease: int | None = NOW + 1,
    *,
    reason: str = "open_ticket",
    brand: str = "default",
    channels: list[str] | None = None,
    version: int = 1,
) -> HoldFact:
    held = lease is not None
    scope = json.dumps(({"brand": brand} if brand else {}) | ({"channels": channels} if channels is not None else {}))
    return HoldFact(1, "phone", "", ADA, 1 if held else None, reason if held else None, scope if held else None, lease, version)


FREE = hit(None)
UNKNOWN = Standing(held=False, known=False, until=None, reasons=(), version=0)

# hits, brand asked for, class -> held, known, until, reasons, version
JUDGED: dict[str, tuple[list[HoldFact], str, str, tuple[Any, ...]]] = {
    "nobody we know": ([], "", "marketing", (False, False, None, (), 0)),
    "known and free": ([FREE], "", "marketing", (False, True, None, (), 1)),
    "held": ([hit()], "", "marketing", (True, True, NOW + 1, ("open_ticket",), 1)),
    "a transactional message is never held": ([hit()], "", "transactional", (False, True, None, (), 1)),
    "its lease ran out this moment": ([hit(NOW)], "", "marketing", (False, True, None, (), 1)),
    "its lease ran out": ([hit(NOW - 1)], "", "marketing", (False, True, None, (), 1)),
    "one expired, one not": ([hit(NOW - 1), hit(NOW + 5)], "", "marketing", (True, True, NOW + 5, ("open_ticket",), 1)),
    "any held identifier holds": ([FREE, hit(version=4)], "", "marketing", (True, True, NOW + 1, ("open_ticket",), 4)),
    "until the last of them": ([hit(NOW + 9), hit(NOW + 3)], "", "marketing", (True, True, NOW + 9, ("open_ticket",), 1)),
    "reasons once each, in order": (
        [hit(), hit(reason="complaint"), hit()],
        "",
        "marketing",
        (True, True, NOW + 1, ("complaint", "open_ticket"), 1),
    ),
    "this brand": ([hit(brand="outlet")], "outlet", "marketing", (True, True, NOW + 1, ("open_ticket",), 1)),
    "another brand": ([hit(brand="outlet")], "default", "marketing", (False, True, None, (), 1)),
    "no brand asked for: any": ([hit(brand="outlet")], "", "marketing", (True, True, NOW + 1, ("open_ticket",), 1)),
    "one brand of two": ([hit(brand="outlet"), hit(brand="default")], "default", "marketing", (True, True, NOW + 1, ("open_ticket",), 1)),
}


@pytest.mark.parametrize("case", JUDGED)
def test_what_the_facts_come_to(case: str) -> None:
    hits, brand, message_class, expected = JUDGED[case]
    assert judge(hits, NOW, brand, "", message_class) == Standing(*expected)


# what a hold is confined to, brand and channel asked for -> whether it holds
SCOPES = [
    ("default", None, "", "", True),
    ("default", ["*"], "", "sms", True),
    ("default", ["sms"], "", "sms", True),
    ("default", ["sms"], "", "email", False),
    ("default", ["sms", "whatsapp"], "default", "whatsapp", True),
    ("default", ["sms"], "outlet", "sms", False),
    ("default", ["sms"], "", "", True),  # a campaign that does not say where it goes may go anywhere
    ("default", ["sms"], "", "SMS", True),  # no channel of ours: it may be any of them
    ("default", ["sms"], "", "text", True),
    ("", ["email"], "outlet", "email", True),  # every brand
    ("", None, "outlet", "", True),
    ("default", [], "", "email", False),
]


@pytest.mark.parametrize(("held_brand", "channels", "brand", "channel", "held"), SCOPES)
def test_a_hold_reaches_as_far_as_its_scope(held_brand: str, channels: list[str] | None, brand: str, channel: str, held: bool) -> None:
    fact = hit(brand=held_brand, channels=channels)
    assert judge([fact], NOW, brand, channel).held is held
    assert not judge([fact], NOW, brand, channel, "transactional").held


def test_what_is_told_of_one_person_is_the_same_in_a_stream_and_alone() -> None:
    for hits in ([], [FREE], [hit(), hit(NOW + 7, reason="complaint")]):
        told = judge(hits, NOW)
        assert json.loads("{" + spelled(told) + "}") == told.shown()


# a line, the stream's kind -> (name, canonical value, site), or None where it says nothing that can be asked
LINES: list[tuple[bytes, str, tuple[str, str | None, str] | None]] = [
    (b'{"kind": "email", "value": "Ada@Example.com"}', "", ("email", "ada@example.com", "")),
    (b'{"value": "ada@example.com"}', "email", ("email", "ada@example.com", "")),
    (b'{"kind": "external_id", "value": "7", "site": "shop"}', "email", ("external_id", "7", "shop")),
    (b"ada@example.com", "email", ("email", "ada@example.com", "")),
    (b'"ada@example.com"', "email", ("email", "ada@example.com", "")),
    (b"+12025550123", "phone", ("phone", ADA, "")),
    (b"call me", "phone", ("phone", None, "")),  # read, and no phone number
    (b"ada@example.com", "", None),  # of which kind?
    (b'{"kind": "email", "value": "a@example.com"', "", None),
    (b'{"kind": "email", "value": "a@example.com"},{"kind": "email", "value": "b@example.com"}', "", None),
    (b'{"kind": "email", "value": "a@example.com", "sitte": "shop"}', "", None),
    (b'{"kind": "external_id", "value": "7", "site": "nowhere"}', "", None),
    (b'{"kind": "device", "value": "x"}', "", None),
    (b'{"kind": "phone", "value": 12025550123}', "", None),
    (b'{"kind": ["phone"], "value": "x"}', "", None),
    (b'{"value": ""}', "email", None),
    (b"{}", "email", None),
    (b'{"value": "' + b"a" * 513 + b'"}', "email", None),
    (b"\xff\xfe", "email", None),
    (b'"' + b"a" * LONGEST_LINE + b'"', "email", None),
    (b'{"value":' + b"[" * 1_000, "email", None),
]


@pytest.mark.parametrize(("line", "kind", "read"), LINES)
def test_a_line_of_a_stream_is_read_strictly(line: bytes, kind: str, read: tuple[str, str | None, str] | None) -> None:
    asked = read_line(line, kind, {"shop": None})
    assert (None if asked is None else (asked.name, asked.value, asked.site)) == read


# name, as given -> canonical
ASKED = [
    ("phone", ADA, ADA),
    ("phone", " " + ADA[1:], ADA),  # a plus sign in a query string arrives as a space
    ("phone", "+1 (202) 555-0123", ADA),
    ("phone", " +12025550123", ADA),
    ("phone", "12025550123", ADA),
    ("phone", "call me", None),
    ("email", "Ada@Example.COM", "ada@example.com"),
    ("email", "nobody", None),
    ("external_id", " 42", " 42"),  # an account id is taken letter for letter
    ("wa_user_id", "US.123", "US.123"),
]


@pytest.mark.parametrize(("name", "given", "value"), ASKED)
def test_an_identifier_is_read_as_it_was_meant(name: str, given: str, value: str | None) -> None:
    asked = ask(name, given)
    assert (asked.value, asked.given) == (value, given)


@pytest.mark.parametrize("name", ["user_id", "device", "sender_word", "name", ""])
def test_nobody_is_asked_for_by_what_addresses_nobody(name: str) -> None:
    with pytest.raises(BadQuestion, match="ask by email, phone, external_id, wa_user_id"):
        ask(name, "x")


@dataclass
class HotGround(Ground):
    hot: SqliteHot = None  # type: ignore[assignment]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Any]:
    async with ground(tmp_path) as laid:
        hot = SqliteHot(laid.path)
        yield HotGround(**{field.name: getattr(laid, field.name) for field in fields(laid)}, hot=hot)
        await hot.close()


async def standing(hub: HotGround, name: str, value: str, site: str = "") -> Standing:
    asked = ask(name, value, site)
    return judge(hits_of(asked, await look_up([asked], hub.hot)), hub.clock())


async def test_every_identifier_of_a_held_customer_is_held(hub: HotGround) -> None:
    await hub.hears(
        claims=(
            Claim("email", "claimed@example.com", Proof.CLAIMED),
            Claim("email", "seen@example.com", Proof.SEEN),
            Claim("user_id", "u-7", Proof.SIGNED, site="shop"),
        )
    )
    for name, value in (("phone", ADA), ("external_id", "u-7"), ("email", "claimed@example.com")):
        found = await standing(hub, name, value)
        assert (found.held, found.known) == (True, True), name
    assert await standing(hub, "email", "seen@example.com") == UNKNOWN, "merely seen beside somebody says nothing of its owner"
    assert await standing(hub, "phone", BEN) == UNKNOWN
    assert await standing(hub, "email", "u-7@example.com") == UNKNOWN


async def test_a_claimed_address_is_free_again_with_its_claimer(hub: HotGround) -> None:
    ticket = await hub.hears(claims=(Claim("email", "claimed@example.com", Proof.CLAIMED),))
    await hub.run(Resolve(ticket, 1))
    assert not (await standing(hub, "email", "claimed@example.com")).held
    assert (await standing(hub, "phone", ADA)) == Standing(held=False, known=True, until=None, reasons=(), version=2)


async def test_a_hold_ends_at_the_end_of_its_lease_even_if_nobody_releases_it(hub: HotGround) -> None:
    await hub.hears()
    hub.clock.now += Policy().hold_lease - 1
    assert (await standing(hub, "phone", ADA)).held
    hub.clock.now += 1
    assert not (await standing(hub, "phone", ADA)).held


async def test_joined_people_answer_as_one(hub: HotGround) -> None:
    await hub.run(Resolve(await hub.hears(), 1))
    by_mail = await hub.hears("ada@example.com", channel=MAIL)
    assert not (await standing(hub, "phone", ADA)).held
    both = (Claim("phone", ADA, Proof.SIGNED), Claim("email", "ada@example.com", Proof.SIGNED))
    await hub.hears("device-1", "Thanks", CHAT, claims=both)
    assert (await standing(hub, "phone", ADA)).held
    await hub.run(Resolve(by_mail, 1))
    assert not (await standing(hub, "email", "ada@example.com")).held


async def test_the_same_account_id_of_two_sites_is_two_people(hub: HotGround) -> None:
    one = await hub.hears(claims=(Claim("user_id", "7", Proof.SIGNED, site="shop"),))
    await hub.hears(BEN, claims=(Claim("user_id", "7", Proof.SIGNED, site="outlet"),))
    await hub.run(Resolve(one, 1))
    assert [(await standing(hub, "external_id", "7", site)).held for site in ("shop", "outlet", "elsewhere", "")] == [
        False,
        True,
        False,
        True,
    ], "without a site any of them counts"
    # ... in one question too: each keeps its own answer.
    asked = [ask("external_id", "7", "shop"), ask("external_id", "7", "outlet")]
    hits = await look_up(asked, hub.hot)
    assert [judge(hits_of(a, hits), hub.clock()).held for a in asked] == [False, True]


async def test_a_thousand_at_once_are_one_statement_and_each_gets_its_own_answer(hub: HotGround) -> None:
    await hub.hears()
    asked = [ask("phone", f"+1202555{number:04d}") for number in range(MOST // 2)]
    asked += [ask("email", f"person{number}@example.com") for number in range(MOST // 2)]
    assert len(asked) == MOST
    hits = await look_up(asked, hub.hot)
    assert [a.value for a in asked if judge(hits_of(a, hits), hub.clock()).held] == [ADA]


async def test_nothing_that_could_be_anybody_is_not_looked_up(hub: HotGround) -> None:
    assert await look_up([ask("phone", "call me")], hub.hot) == {}
    assert await look_up([], hub.hot) == {}


@pytest.mark.parametrize("keys", [1, 2, 250])
async def test_a_long_question_and_a_short_one_are_answered_alike(hub: HotGround, keys: int) -> None:
    """One key, a few, and more than one part of a long question: three ways through the look-up, one answer."""
    await hub.hears(claims=(Claim("email", "claimed@example.com", Proof.CLAIMED),))
    for name, value in (("phone", ADA), ("email", "claimed@example.com")):
        strangers = [ask("phone", f"+1202555{number:04d}") for number in range(1_000, 1_000 + keys - 1)]
        asked = ask(name, value)
        hits = await look_up([*strangers, asked], hub.hot)
        assert judge(hits_of(asked, hits), hub.clock()) == Standing(True, True, START + Policy().hold_lease, ("open_ticket",), 1)
        assert len(hits) == 1


async def test_nothing_is_remembered_between_two_questions(hub: HotGround) -> None:
    ticket = await hub.hears()
    for held in (False, True) * 3:
        await hub.run((Reopen if held else Resolve)(ticket, 1))
        assert (await standing(hub, "phone", ADA)).held is held


@pytest.mark.parametrize(
    ("statement", "parameters"), [(Statements(REACHING).one, (ADA, "phone")), (Statements(REACHING).many, ('[["+12025550123", "phone"]]',))]
)
def test_the_look_up_goes_through_indexes(tmp_path: Path, statement: str, parameters: tuple[str, ...]) -> None:
    migrate(tmp_path / "hub.db")
    connection = sqlite3.connect(tmp_path / "hub.db")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    connection.close()
    assert any("uq_identifier_key" in step for step in plan), plan
    scanned = {step.split()[1] for step in plan if step.startswith("SCAN")}
    assert scanned <= {"CONSTANT", "a", "json_each", "(subquery-2)"}, plan  # what was asked, never a table


async def test_the_hot_connection_can_only_read(hub: HotGround) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        hub.hot._connection.execute("DELETE FROM hold")
