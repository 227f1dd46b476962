"""One-time codes: what is sent to whom and how often, and that only the right answer of the right browser, once, proves anything."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.contract import Claim, Identified, Proof, Refused
from hub.customers.codes import (
    HOUR,
    KEPT,
    LIFE,
    PER_ADDRESS,
    TRIES,
    AnswerCode,
    Answered,
    AskCode,
    Asked,
    NotAsked,
    RequestCode,
    masked,
    sweep_codes,
    typed,
    wait_for,
    way,
)
from hub.delivery.carriers import CodeCarrier
from hub.delivery.outbox import judge
from hub.delivery.tokens import one_time_code
from hub.delivery.works import Claim as Lease
from hub.delivery.works import ReleaseLeases, finish
from hub.policy import DAY, SECOND, ChannelRule, Policy
from hub.storage.facts import Needs
from hub.storage.records import OptOut
from tests.storage import CHAT, MAIL, POLICY, RULE_ENGINES, SMS, WHATSAPP, Store, device, email, heard, message, open_store, phone
from tests.storage.several import needs_postgres, several
from tests.web import Insert

VICTIM = "victim@mail.example"
SECRET = b"s" * 32


@pytest.fixture(params=RULE_ENGINES)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with open_store(tmp_path, engine=request.param) as opened:
        yield opened


def ask(id: str, address: str = VICTIM, of: str = "d1", kind: str = "email", **more: Any) -> AskCode:
    return AskCode(id, CHAT, of, kind, address, address, "the Shop", **more)


def proof(id: str, of: str = "d1", address: str = VICTIM, kind: str = "email") -> Any:
    return heard(CHAT, Identified(provider_key=f"code:{id}", claims=(device(of), Claim(kind, address, Proof.OTP))))


def answer(id: str, right: bool = True, of: str = "d1", **more: Any) -> AnswerCode:
    return AnswerCode(id, (of,), (CHAT,), right, proof(id, of, **more) if right else None)


TABLES = ("customer", "identifier", "evidence", "join_log", "ticket", "message", "hold", "event", "dedupe", "suggestion", "delivery")


def state(store: Store) -> dict[str, list[Any]]:
    """Every row of what a code must not touch until it is answered."""
    return {table: [tuple(row) for row in store.rows(f"SELECT * FROM {table} ORDER BY 1")] for table in TABLES}


def owner(store: Store, kind: str, value: str) -> int:
    return int(store.value("SELECT customer_id FROM identifier WHERE kind = ? AND value = ? AND standing = 'proven'", kind, value))


# --- addresses ---

# kind, typed, region -> canonical value and address to write to
TYPED: list[tuple[str, str, str, tuple[str, str] | None]] = [
    ("email", " Ada.O@Example.COM ", "", ("ada.o@example.com", "Ada.O@Example.COM")),
    ("email", "Ada.Okafor+shop@gmail.com", "", ("adaokafor@gmail.com", "Ada.Okafor+shop@gmail.com")),  # one box, and the mail goes as asked
    ("email", "ada@bücher.example", "", ("ada@xn--bcher-kva.example",) * 2),
    ("email", "ada", "", None),
    ("email", "ada@localhost", "", None),
    ("email", "ada@[10.0.0.1]", "", None),
    ("email", '"ada b"@example.com', "", None),
    ("email", "a@b.example,c@d.example", "", None),
    ("email", "Ada <ada@example.com>", "", None),
    ("email", "ada@example.com\r\nBcc: v@example.com", "", None),
    ("email", "ädä@example.com", "", None),  # no server is asked for SMTPUTF8
    ("email", "a" * 65 + "@example.com", "", None),
    ("email", "a@" + "b" * 250 + ".example", "", None),
    ("email", "", "", None),
    ("phone", "+1 (202) 555-0142", "", ("+12025550142",) * 2),
    ("phone", "0044 7700 900123", "", ("+447700900123",) * 2),
    ("phone", "(202) 555-0142", "US", ("+12025550142",) * 2),
    ("phone", "07700 900123", "GB", ("+447700900123",) * 2),
    ("phone", "2025550142", "", None),  # with a plus before it, somebody in Egypt
    ("phone", "+1 202 555 0142 ext. 9", "", None),  # a desk behind a switchboard reads no texts
    ("phone", "+1 900 555 1234", "", None),  # premium rate: whoever owns it earns by our texts
    ("phone", "+1 800 555 0142", "", None),
    ("phone", "12345", "US", None),
    ("phone", "+", "", None),
    ("phone", "ada@example.com", "US", None),
    ("user_id", "ana", "", None),
    ("device", "0" * 32, "", None),
]


@pytest.mark.parametrize(("kind", "written", "region", "found"), TYPED, ids=[f"{row[0]} {row[1][:30]!r} {row[2]}" for row in TYPED])
def test_what_is_typed_is_an_address_a_code_can_go_to_or_none(kind: str, written: str, region: str, found: tuple[str, str] | None) -> None:
    assert typed(kind, written, region) == found


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("email", "ada@example.com", "a•••@example.com"),
        ("email", "a@example.com", "a•••@example.com"),
        ("phone", "+12025550142", "•••42"),
    ],
)
def test_a_shown_address_tells_too_little_to_learn_it(kind: str, value: str, shown: str) -> None:
    assert masked(kind, value) == shown


def rule(id: int, brand: str, *reaches: str) -> ChannelRule:
    return ChannelRule(id, f"c{id}", "C", brand, reaches, idempotent=False, mails="email" in reaches)


# the channels there are -> the one a code goes by
WAYS: list[tuple[str, str, list[ChannelRule], int | None]] = [
    ("mail", "email", [rule(1, "a", "phone"), rule(2, "a", "email")], 2),
    ("the same brand first", "email", [rule(1, "b", "email"), rule(2, "a", "email")], 2),
    ("else the first", "email", [rule(2, "c", "email"), rule(1, "b", "email")], 1),
    ("never a messenger", "phone", [rule(1, "a", "phone", "wa_user_id")], None),
    ("a text, not the messenger of the brand", "phone", [rule(1, "a", "phone", "wa_user_id"), rule(2, "b", "phone", "sender_word")], 2),
    ("nothing fits", "phone", [rule(1, "a", "email"), rule(2, "a", "device", "user_id")], None),
]


@pytest.mark.parametrize(("kind", "rules", "found"), [row[1:] for row in WAYS], ids=[row[0] for row in WAYS])
def test_the_channel_a_code_goes_by(kind: str, rules: list[ChannelRule], found: int | None) -> None:
    chosen = way(rule(9, "a", "device"), kind, Policy(channels={one.id: one for one in rules}))
    assert (chosen.id if chosen else None) == found


# --- how often ---

# times of what was sent (seconds before now) -> seconds until one more may be; limits: one in 30 s, 3 an hour, 5 a day
WAITS: list[tuple[str, list[int], int]] = [
    ("the first", [], 0),
    ("a second at once", [0], 30),
    ("a second after 29 s", [29], 1),
    ("a second after 30 s", [30], 0),
    ("a fourth in the hour", [40, 100, 3_000], 600),
    ("a fourth, an hour after the first", [40, 100, 3_600], 0),
    ("a sixth in the day", [4_000, 5_000, 6_000, 7_000, 86_000], 400),
    ("a sixth, a day after the first", [4_000, 5_000, 6_000, 7_000, 86_400], 0),
    ("noted by a clock that was set back", [-500] * 9, 0),
]


@pytest.mark.parametrize(("before", "wait"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS])
def test_how_long_to_wait_for_another(before: list[int], wait: int) -> None:
    now = 1_800_000_000 * SECOND
    assert wait_for([now - ago * SECOND for ago in before], PER_ADDRESS, now) == wait * SECOND


async def test_a_code_is_one_row_owed_and_says_nothing_to_whoever_reads_the_database(store: Store) -> None:
    before = state(store)
    assert await store.run(ask("c1")) == Asked("c1")
    assert store.owed[-1], "the worker is woken"
    (row,) = store.rows("SELECT kind, target, state, payload, idempotent FROM delivery")
    assert tuple(row) == ("code", "mail", "queued", json.dumps({"code": "c1", "name": "the Shop"}), False)
    after = state(store)
    assert {table for table in TABLES if after[table] != before[table]} == {"delivery"}, "no message, no ticket, no hold, no event"
    number = one_time_code(SECRET, "c1")
    assert len(number) == 6
    stored = json.dumps([tuple(r) for r in (*store.rows("SELECT * FROM one_time_code"), *store.rows("SELECT * FROM delivery"))])
    assert number not in stored


def test_codes_are_six_digits_spread_evenly_and_each_ids_own() -> None:
    numbers = [one_time_code(SECRET, f"id-{n}") for n in range(20_000)]
    assert all(len(number) == 6 and number.isdigit() for number in numbers)
    assert len(set(numbers)) > 19_700
    first = collections.Counter(number[0] for number in numbers)
    assert min(first.values()) > 1_800, "codes that begin with 0 are as frequent as others"
    assert max(first.values()) < 2_200
    assert one_time_code(b"t" * 32, "id-0") != numbers[0]
    assert one_time_code(SECRET, "id-0") == numbers[0]


async def test_the_same_is_done_whether_an_address_is_known_or_not(store: Store) -> None:
    """No oracle: asking reads and writes the same, so it answers the same and takes as long."""
    await store.run(heard(MAIL, message(email(VICTIM))))
    stranger, known = ask("c1", "nobody@mail.example", "d1"), ask("c2", VICTIM, "d2")
    needed = []
    for work in (stranger, known):
        needs = Needs()
        work.needs(needs)
        needed.append((len(needs.rows), len(needs.opt_outs), needs.identifiers, needs.customers))
        assert isinstance(await store.run(work), Asked)
    assert needed[0] == needed[1] == (2, 1, set(), set())
    rows = store.rows("SELECT kind, target, state, attempt FROM delivery WHERE kind = 'code'")
    assert tuple(rows[0]) == tuple(rows[1])


async def test_a22_a_form_flood_with_a_victims_address_sends_one_rate_limited_code(store: Store) -> None:
    outcomes = await asyncio.gather(*(store.run(ask(f"c{n}", of=f"d{n}")) for n in range(60)))
    assert sum(isinstance(outcome, Asked) for outcome in outcomes) == 1
    assert store.value("SELECT count(*) FROM delivery") == 1
    sent = []
    for minute in (*range(120), *range(120, 3 * 24 * 60, 30)):  # and three days of it, from another browser each time
        store.clock.at = 1_800_000_000_000_000 + 31 * SECOND + minute * 60 * SECOND
        outcome = await store.run(ask(f"m{minute}", of=f"m{minute}"))
        if isinstance(outcome, Asked):
            sent.append(store.clock.at)
        else:
            assert outcome.wait > 0
    day = [at for at in sent if at < sent[0] + DAY]
    assert len(day) <= 5
    assert len([at for at in sent if at < sent[0] + HOUR]) <= 3
    assert 10 <= len(sent) <= 16, "and it does not stop for ever: the victim can still get in"
    assert store.value("SELECT count(*) FROM message") == 0


async def test_one_browser_asks_for_so_many_an_hour_whatever_the_address(store: Store) -> None:
    outcomes = [await store.run(ask(f"c{n}", f"somebody{n}@mail.example")) for n in range(7)]
    assert [isinstance(outcome, Asked) for outcome in outcomes] == [True] * 5 + [False] * 2
    assert isinstance(await store.run(ask("other", "somebody9@mail.example", of="d2")), Asked)
    store.clock.advance(3_601)
    assert isinstance(await store.run(ask("later", "somebody10@mail.example")), Asked)


async def test_limits_survive_a_restart(tmp_path: Path) -> None:
    for number in range(2):
        async with open_store(tmp_path) as store:
            outcome = await store.run(ask(f"c{number}"))
            assert isinstance(outcome, (Asked, NotAsked)[number])


@needs_postgres
async def test_limits_hold_over_several_hubs_at_once() -> None:
    async with several(3) as hubs:
        asking = (hubs.writers[n % 3].run(ask(f"c{n}", of=f"d{n}")) for n in range(30))
        outcomes = await asyncio.gather(*asking)
        assert sum(isinstance(outcome, Asked) for outcome in outcomes) == 1
        assert await hubs.value("SELECT count(*) FROM delivery") == 1


async def test_an_address_that_said_stop_gets_no_code_and_a_stranger_does_not_learn_it(store: Store) -> None:
    number = "+12025550142"
    await store.run(Insert((OptOut(1, SMS, "phone", number, 1), OptOut(2, SMS, "phone", "+12025550143", 1, ended_at=2))))
    assert await store.run(ask("c1", number, kind="phone")) == Asked("c1")
    assert store.value("SELECT count(*) FROM delivery") == 0
    assert await store.run(ask("c2", "+12025550143", kind="phone", of="d2")) == Asked("c2")
    assert store.value("SELECT count(*) FROM delivery") == 1, "whoever came back is written to"
    refused = await store.run(ask("c3", number, kind="phone", of="d3", asked_by=7))
    assert isinstance(refused, NotAsked)


async def test_where_no_channel_reaches_such_an_address_nothing_is_asked(tmp_path: Path) -> None:
    only = replace(POLICY, channels={id_: POLICY.channels[id_] for id_ in (WHATSAPP, CHAT)})
    async with open_store(tmp_path, only) as store:
        assert isinstance(await store.run(ask("c1", "+12025550142", kind="phone")), NotAsked)
        assert store.value("SELECT count(*) FROM one_time_code") == 0


# --- answering ---


async def test_the_right_code_joins_the_browser_with_whoever_has_the_address(store: Store) -> None:
    await store.run(heard(MAIL, message(email(VICTIM))))
    await store.run(heard(CHAT, message(device("d1"))))
    assert owner(store, "email", VICTIM) != owner(store, "device", "d1")
    await store.run(ask("c1"))
    assert await store.run(answer("c1")) == Answered("right")
    assert owner(store, "email", VICTIM) == owner(store, "device", "d1")
    assert store.value("SELECT state FROM one_time_code") == "used"
    assert store.value("SELECT count(DISTINCT conversation_id) FROM message") == 1
    assert store.value("SELECT count(*) FROM evidence WHERE proof = 'otp'") >= 1


async def test_a1_a_failed_code_changes_nothing(store: Store) -> None:
    await store.run(heard(MAIL, message(email(VICTIM))))
    await store.run(heard(CHAT, message(device("d1"), email(VICTIM, Proof.CLAIMED))))
    await store.run(ask("c1"))
    before = state(store)
    tries = [await store.run(answer("c1", right=False)) for _ in range(TRIES)]
    assert [one.outcome for one in tries] == ["wrong"] * TRIES
    assert [one.tries_left for one in tries] == [4, 3, 2, 1, 0]
    assert await store.run(answer("c1")) == Answered("over"), "after so many guesses even the right one is too late"
    assert state(store) == before
    assert tuple(store.rows("SELECT state, tries FROM one_time_code")[0]) == ("spent", TRIES)
    assert owner(store, "email", VICTIM) != owner(store, "device", "d1")


async def test_guesses_at_once_are_counted_too(store: Store) -> None:
    await store.run(ask("c1"))
    outcomes = await asyncio.gather(*(store.run(answer("c1", right=False)) for _ in range(50)))
    assert collections.Counter(one.outcome for one in outcomes) == {"wrong": TRIES, "over": 45}


async def test_a_code_works_once_however_many_answer_at_once(store: Store) -> None:
    await store.run(ask("c1"))
    outcomes = await asyncio.gather(*(store.run(answer("c1")) for _ in range(8)))
    assert collections.Counter(one.outcome for one in outcomes) == {"right": 1, "over": 7}
    before = state(store)
    assert await store.run(answer("c1")) == Answered("over")
    assert state(store) == before


# what differs from a right answer -> what it is told
UNFIT: list[tuple[str, AnswerCode, str]] = [
    ("another browser", answer("c1", of="d2"), "unknown"),
    ("no browser", AnswerCode("c1", (), (CHAT,), True, proof("c1")), "unknown"),
    ("another site's chat", AnswerCode("c1", ("d1",), (CHAT + 1,), True, proof("c1")), "unknown"),
    ("another id", answer("c2"), "unknown"),
]


@pytest.mark.parametrize(("work", "outcome"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT])
async def test_only_who_was_asked_can_answer(work: AnswerCode, outcome: str, store: Store) -> None:
    await store.run(ask("c1"))
    before = state(store)
    assert (await store.run(work)).outcome == outcome
    assert state(store) == before
    assert tuple(store.rows("SELECT state, tries FROM one_time_code")[0]) == ("asked", 0), "a stranger cannot spend somebody's tries"
    assert await store.run(answer("c1")) == Answered("right")


async def test_a_code_lives_for_ten_minutes(store: Store) -> None:
    await store.run(ask("c1"))
    store.clock.at += LIFE - 1
    assert (await store.run(answer("c1", right=False))).outcome == "wrong"
    store.clock.at += 1
    assert await store.run(answer("c1")) == Answered("over")
    assert store.value("SELECT count(*) FROM evidence") == 0


async def test_a_proof_that_cannot_be_stored_leaves_the_code_unused(store: Store) -> None:
    """Used and proven are one transaction: what fails half-way can be typed again."""

    class Broken:
        def needs(self, needs: Any) -> None: ...

        def decide(self, facts: Any) -> None:
            raise LookupError("a mistake of ours")

    await store.run(ask("c1"))
    with pytest.raises(LookupError):
        await store.run(AnswerCode("c1", ("d1",), (CHAT,), True, Broken()))
    assert tuple(store.rows("SELECT state, tries FROM one_time_code")[0]) == ("asked", 0)
    assert await store.run(answer("c1")) == Answered("right")


# --- an agent asks ---


async def claimed(store: Store, typed_in: str = VICTIM) -> int:
    """A chat in which somebody typed an address: the number of that address."""
    await store.run(heard(CHAT, message(device("d1"), email(typed_in, Proof.CLAIMED))))
    return int(store.value("SELECT id FROM identifier WHERE kind = 'email' AND value = ? AND standing = 'asserted'", typed_in))


async def test_an_agent_asks_for_an_address_named_in_the_chat_and_that_browser_answers(store: Store) -> None:
    number = await claimed(store)
    assert await store.run(RequestCode(1, number, ask("c1", asked_by=7))) == Asked("c1")
    (event,) = [event for event in store.events() if event.type == "code.asked"]
    assert (event.ticket_id, event.agent_id, json.loads(event.data)) == (1, 7, {"to": "v•••@mail.example"})
    assert event.customer_id == owner(store, "device", "d1"), "the visitor's stream hears of it"
    assert await store.run(answer("c1", of="d2")) == Answered("unknown")
    assert await store.run(answer("c1")) == Answered("right")


async def test_an_agent_cannot_have_a_code_sent_to_what_the_visitor_did_not_name(store: Store) -> None:
    """Its masked address would tell a stranger something of the customer they were joined with."""
    await store.run(heard(MAIL, message(email("someone@else.example"))))
    foreign = int(store.value("SELECT id FROM identifier WHERE kind = 'email'"))
    number = await claimed(store)
    ticket = int(store.value("SELECT max(id) FROM ticket"))
    for refused in (
        RequestCode(ticket, foreign, ask("c1", "someone@else.example", asked_by=7)),
        RequestCode(ticket, 999, ask("c2", asked_by=7)),
        RequestCode(999, number, ask("c3", asked_by=7)),
        RequestCode(ticket, number, ask("c4", of="d2", asked_by=7)),  # the page was read before they wrote from elsewhere
        RequestCode(1, foreign, ask("c5", "someone@else.example", asked_by=7)),  # a mail: nowhere to type a code in
    ):
        outcome = await store.run(refused)
        assert isinstance(outcome, NotAsked), refused
        assert outcome.problem
    assert store.value("SELECT count(*) FROM delivery WHERE kind = 'code'") == 0
    assert not [event for event in store.events() if event.type == "code.asked"]


async def test_a_claim_an_agent_dismissed_is_named_no_more(store: Store) -> None:
    number = await claimed(store)
    store.execute(f"UPDATE evidence SET withdrawn_at = 5 WHERE other_id = {number}")
    assert isinstance(await store.run(RequestCode(1, number, ask("c1", asked_by=7))), NotAsked)


async def test_an_agents_request_counts_against_the_same_limits(store: Store) -> None:
    number = await claimed(store)
    await store.run(ask("c1", of="d9"))
    outcome = await store.run(RequestCode(1, number, ask("c2", asked_by=7)))
    assert isinstance(outcome, NotAsked)
    assert outcome.wait > 0


# --- carried ---


class Relay:
    """A channel that keeps what it is handed, or fails as told."""

    def __init__(self, rule: ChannelRule, error: Exception | None = None) -> None:
        self.rule, self.error, self.connector = rule, error, self
        self.handed: list[Any] = []

    async def send(self, outgoing: Any, http: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.handed.append(outgoing)


def carrier(store: Store, reader: Any, *relays: Relay) -> CodeCarrier:
    channels: Any = {relay.rule.name: relay for relay in relays}
    return CodeCarrier(channels, reader, None, lambda id_: one_time_code(SECRET, id_), store.clock, "hub.example")  # type: ignore[arg-type]


async def lease(store: Store) -> Any:
    (delivery,) = await store.run(Lease("worker", 8))
    return delivery


@pytest.mark.parametrize(("kind", "address", "channel"), [("email", VICTIM, MAIL), ("phone", "+12025550142", SMS)])
async def test_the_code_is_written_when_it_is_sent_and_kept_nowhere(kind: str, address: str, channel: int, store: Store) -> None:
    await store.run(ask("c1", address, kind=kind))
    relay, reader = Relay(POLICY.channels[channel]), store.reader()
    outcome = await carrier(store, reader, relay).carry(await lease(store))
    assert await store.run(outcome)
    await reader.close()
    (sent,) = relay.handed
    number = one_time_code(SECRET, "c1")
    assert sent.to == address
    assert sent.text == f"{number} is your code for the Shop. It is good for 10 minutes. If you did not ask for it, ignore this message."
    assert (number in sent.subject) == (kind == "email")
    assert sent.message_id.startswith("<code.") == (kind == "email")
    assert "c1" not in sent.message_id + sent.text
    assert (sent.reply_token, sent.quoted, sent.callback_url, sent.sender_name) == ("", "", "", "")
    row = store.rows("SELECT * FROM delivery")[0]
    assert row["state"] == "done"
    assert number not in json.dumps(tuple(row))


async def test_a_code_that_ran_out_is_not_sent_any_more(store: Store) -> None:
    await store.run(ask("c1"))
    store.clock.at += LIFE
    relay, reader = Relay(POLICY.channels[MAIL]), store.reader()
    with pytest.raises(Refused):
        await carrier(store, reader, relay).carry(await lease(store))
    await reader.close()
    assert relay.handed == []


@pytest.mark.parametrize("error", [Refused("550 no such user"), RuntimeError("lost")], ids=["refused", "of unknown fate"])
async def test_a_code_that_did_not_go_fills_no_list_and_is_never_sent_again(error: Exception, store: Store) -> None:
    await store.run(ask("c1"))
    delivery = await lease(store)
    await store.run(judge(error, delivery, left=True))
    assert store.value("SELECT state FROM delivery") == "discarded"
    assert not [event for event in store.events() if event.type.startswith("delivery.")], "strangers type wrong addresses all day"
    store.clock.advance(7_200)
    assert await store.run(Lease("worker", 8)) == []


async def test_a_code_whose_sender_died_is_not_sent_twice(store: Store) -> None:
    await store.run(ask("c1"))
    await lease(store)
    assert await store.run(ReleaseLeases()) == 1
    assert store.value("SELECT state FROM delivery") == "discarded"


async def test_a_sent_code_finishes_once(store: Store) -> None:
    await store.run(ask("c1"))
    delivery = await lease(store)
    assert await store.run(finish(delivery))
    assert not await store.run(finish(delivery))
    assert store.value("SELECT state FROM delivery") == "done"


# --- forgotten ---


async def test_codes_are_forgotten_when_no_limit_counts_them_any_more(store: Store) -> None:
    await store.run(ask("c1"))
    store.clock.at += KEPT
    await store.run(ask("c2", of="d2"))
    reader = store.reader()
    assert await sweep_codes(reader, store.writer, store.clock()) == 0
    store.clock.at += 1
    assert await sweep_codes(reader, store.writer, store.clock()) == 1
    assert [row["id"] for row in store.rows("SELECT id FROM one_time_code")] == ["c2"]
    assert await sweep_codes(reader, store.writer, store.clock()) == 0
    await reader.close()
    assert max(within for _, within in PER_ADDRESS) < KEPT


async def test_the_victims_phone_by_code_joins_texts_and_chat(store: Store) -> None:
    number = "+12025550142"
    await store.run(heard(SMS, message(phone(number))))
    await store.run(heard(CHAT, message(device("d1"))))
    await store.run(ask("c1", number, kind="phone"))
    assert await store.run(answer("c1", address=number, kind="phone")) == Answered("right")
    assert owner(store, "phone", number) == owner(store, "device", "d1")
