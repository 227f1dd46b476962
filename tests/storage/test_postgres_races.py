"""Several hubs on one PostgreSQL database meet over the same people: everybody stays one person, with one conversation and its holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from hub.contract import Claim, Ignored, Proof
from hub.conversations.commands import Reply, Resolve, WakeSnoozed
from hub.conversations.ingest import Ingest, item
from hub.delivery.works import Claim as ClaimDue
from hub.delivery.works import finish
from hub.holds.renewal import RenewLeases
from hub.policy import Policy
from hub.storage import postgres_writer
from hub.storage.facts import Facts, Needs
from hub.storage.postgres import CONVERSATION_LOCKS
from hub.storage.postgres_statements import key_locks
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.records import RawRequest
from hub.storage.writer import StorageBusy
from tests.storage import CHAT, MAIL, POLICY, SMS, WHATSAPP, account, device, email, heard, message, phone
from tests.storage.several import Several, holding, needs_postgres, several

pytestmark = needs_postgres

# What must be so whoever committed what in which order: each is a query that finds the offenders.
INVARIANTS = {
    "what was joined leads on in one hop": (
        "SELECT c.id FROM customer c JOIN customer s ON s.id = c.merged_into WHERE s.merged_into IS NOT NULL OR s.id > c.id"
    ),
    "nothing is left behind with who was joined": (
        "SELECT c.id FROM customer c WHERE c.merged_into IS NOT NULL AND (EXISTS (SELECT 1 FROM message m WHERE m.conversation_id = c.id) "
        "OR EXISTS (SELECT 1 FROM ticket t WHERE t.conversation_id = c.id) "
        "OR EXISTS (SELECT 1 FROM identifier i WHERE i.customer_id = c.id) "
        "OR EXISTS (SELECT 1 FROM hold h WHERE h.customer_id = c.id AND h.released_at IS NULL))"
    ),
    "a message stands in the conversation of its ticket": (
        "SELECT m.id FROM message m JOIN ticket t ON t.id = m.ticket_id WHERE t.conversation_id <> m.conversation_id"
    ),
    "a message stands in the conversation of who sent it": (
        "SELECT m.id FROM message m JOIN identifier i ON i.id = m.identifier_id WHERE m.direction = 'in' "
        "AND i.customer_id <> m.conversation_id"
    ),
    "an unresolved ticket holds its customer": (
        "SELECT t.id FROM ticket t WHERE t.status <> 'resolved' AND NOT EXISTS (SELECT 1 FROM hold h "
        "WHERE h.customer_id = t.conversation_id AND h.source = 'ticket:' || t.id AND h.released_at IS NULL)"
    ),
    "a resolved ticket holds nobody": (
        "SELECT t.id FROM ticket t JOIN hold h ON h.source = 'ticket:' || t.id AND h.released_at IS NULL WHERE t.status = 'resolved'"
    ),
    "one hold a ticket": "SELECT source FROM hold WHERE released_at IS NULL GROUP BY source HAVING count(*) > 1",
    "an identifier is one row": ("SELECT value FROM identifier GROUP BY kind, site, value, standing HAVING count(*) > 1"),
    "a version of a hold is told once": (
        "SELECT customer_id FROM hold_ledger GROUP BY customer_id, version, op HAVING count(*) > 1 AND op <> 'renewed'"
    ),
    "a conversation's messages are numbered in the order they were committed": (
        "SELECT id FROM (SELECT m.id, lag(m.id) OVER (PARTITION BY e.customer_id ORDER BY e.seq) AS before FROM event e "
        "JOIN message m ON m.id = e.message_id WHERE e.type = 'message.received' "
        "AND NOT EXISTS (SELECT 1 FROM customer c WHERE e.customer_id IN (c.id, c.merged_into) AND c.merged_into IS NOT NULL)) AS o "
        "WHERE id < before"
    ),
    "events are numbered without gaps": "SELECT max(seq) FROM event HAVING max(seq) <> count(*)",
}


async def check(hubs: Several) -> None:
    for law, query in INVARIANTS.items():
        assert await hubs.rows(query) == [], law
    assert await hubs.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


def signed(kind: str, value: str) -> Claim:
    return Claim(kind, value, Proof.SIGNED)


def sayings(person: int, hub: int) -> list[Ingest]:
    """What one person says by every way there is; only some of it proves that those ways belong together."""
    number, mail, browser, name = f"+1202555{person:04}", f"p{person}@example.com", f"browser-{person}", account(f"user-{person}")
    key = f"{hub}-{person}"
    return [
        heard(SMS, message(phone(number), key=f"{key}-sms")),
        heard(WHATSAPP, message(phone(number), key=f"{key}-wa")),
        heard(MAIL, message(email(mail), key=f"{key}-mail")),
        heard(CHAT, message(device(browser), name, key=f"{key}-chat")),
        heard(CHAT, message(device(browser), name, signed("phone", number), key=f"{key}-phone")),
        heard(CHAT, message(device(browser), name, signed("email", mail), key=f"{key}-email")),
    ]


async def say(writer: PostgresWriter, works: Iterable[Any], rng: random.Random) -> list[Any]:
    """Hand work over in batches of random sizes."""
    left, outcomes = list(works), []
    while left:
        size = rng.choice((1, 2, 7, 30, 90))
        batch, left = left[:size], left[size:]
        outcomes += await asyncio.gather(*(stored(writer, work) for work in batch))
    return outcomes


async def stored(writer: PostgresWriter, work: Any) -> Any:
    """What a unit comes to; handed over again where a busy machine had nothing of it stored, as a provider would."""
    for _ in range(20):
        try:
            return await writer.run(work)
        except StorageBusy:
            continue
    return await writer.run(work)


@pytest.mark.parametrize("seed", [1, 2])
async def test_new_people_who_write_to_four_hubs_at_once_are_each_one_person(seed: int) -> None:
    people, rng = 60, random.Random(seed)
    async with several(4) as hubs:
        works = []
        for hub in range(4):
            own = [work for person in range(people) for work in sayings(person, hub)]
            rng.shuffle(own)
            works.append(own)
        outcomes = await asyncio.gather(*(say(w, own, random.Random(rng.random())) for w, own in zip(hubs.writers, works, strict=True)))
        assert sum(outcome.stored for own in outcomes for outcome in own) == 4 * 6 * people
        assert await hubs.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == people
        assert await hubs.value("SELECT count(DISTINCT conversation_id) FROM message") == people
        assert await hubs.rows("SELECT 1 FROM message GROUP BY conversation_id HAVING count(*) <> 24") == []
        await check(hubs)


async def test_new_people_with_the_same_account_from_the_first_word_need_no_joining() -> None:
    """Where every word of theirs names one key, 60 people are 60 rows: nobody was made twice and then joined."""
    people, rng = 60, random.Random(3)
    async with several(4) as hubs:
        works = []
        for hub in range(4):
            own = [work for person in range(people) for work in sayings(person, hub)[3:]]
            rng.shuffle(own)
            works.append(own)
        await asyncio.gather(*(say(w, own, random.Random(rng.random())) for w, own in zip(hubs.writers, works, strict=True)))
        assert await hubs.value("SELECT count(*) FROM customer") == people
        assert await hubs.value("SELECT count(*) FROM ticket") == people
        await check(hubs)


async def test_the_same_deliveries_to_four_hubs_at_once_are_stored_once() -> None:
    """Providers try again elsewhere: the database decides, and no unit fails for it."""
    async with several(4) as hubs:
        works = [work for person in range(40) for work in sayings(person, 0)]
        rngs = [random.Random(seed) for seed in range(4)]
        shuffled = [rng.sample(works, len(works)) for rng in rngs]
        outcomes = await asyncio.gather(*(say(w, own, rng) for w, own, rng in zip(hubs.writers, shuffled, rngs, strict=True)))
        assert sum(outcome.stored for own in outcomes for outcome in own) == len(works)
        assert sum(outcome.duplicates for own in outcomes for outcome in own) == 3 * len(works)
        assert await hubs.value("SELECT count(*) FROM message") == len(works)
        await check(hubs)


async def test_what_names_nobody_is_stored_once_too_and_its_keys_are_taken_in_one_order() -> None:
    """A status report of a message nobody knows has no lock but its key's: two hubs must not wait for each other's in a ring."""
    async with several(2) as hubs:
        for number in range(12):
            keys = [f"{number}-{n}" for n in range(300)]
            both = [
                Ingest(SMS, tuple(item(Ignored(provider_key=key, reason="a receipt"), True) for key in order), None)
                for order in (keys, keys[::-1])
            ]
            await asyncio.gather(*(writer.run(work) for writer, work in zip(hubs.writers, both, strict=True)))
        assert await hubs.value("SELECT count(*) FROM dedupe") == 12 * 300
        await check(hubs)


@pytest.mark.parametrize("seed", [1, 2])
async def test_people_are_joined_while_others_write_to_them_answer_and_resolve(seed: int) -> None:
    rng = random.Random(seed)
    people = 25
    async with several(4) as hubs:
        # Each person is three at first: by phone, by mail, by browser; each has an open ticket.
        first = [work for person in range(people) for work in sayings(person, 9)[:4]]
        await say(hubs.writers[0], first, rng)
        assert await hubs.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 3 * people
        tickets = [row[0] for row in await hubs.rows("SELECT id FROM ticket ORDER BY id")]

        def busy(hub: int) -> Iterator[Any]:
            for person in range(people):
                yield from sayings(person, hub)
            for ticket in tickets:
                yield rng.choice((Reply(ticket, 1, "Tomorrow.", f"d{hub}-{ticket}"), Resolve(ticket, 1)))

        works = [rng.sample(own, len(own)) for own in (list(busy(hub)) for hub in range(4))]

        async def run(writer: PostgresWriter, own: list[Any]) -> None:
            done: list[Any] = []
            for start in range(0, len(own), 20):
                done += await asyncio.gather(*(writer.run(work) for work in own[start : start + 20]), return_exceptions=True)
            # An agent may be told that a ticket is resolved already; nothing else may go wrong.
            assert {type(error).__name__ for error in done if isinstance(error, BaseException)} <= {"Refusal", "NotAllowed"}

        await asyncio.gather(*(run(writer, own) for writer, own in zip(hubs.writers, works, strict=True)))
        assert await hubs.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == people
        assert await hubs.value("SELECT count(*) FROM message WHERE direction = 'in'") == people * (4 + 4 * 6)
        await check(hubs)


# --- one meeting at a time, each step seen in the server's table of locks ---

ADA, MAIL_OF_ADA = phone("+12025550123"), email("ada@example.com")


async def two_people(hubs: Several) -> None:
    """Customer 1 by phone, customer 2 by mail and, proved with it, by browser."""
    await hubs.writers[0].run(heard(SMS, message(ADA)))
    await hubs.writers[0].run(heard(MAIL, message(MAIL_OF_ADA)))
    await hubs.writers[0].run(heard(CHAT, message(device("b"), signed("email", "ada@example.com"))))
    assert await hubs.rows("SELECT id FROM customer WHERE merged_into IS NULL ORDER BY id") == [(1,), (2,)]


JOINING = heard(CHAT, message(device("b"), signed("phone", "+12025550123"), key="joins"))


async def test_a_message_to_somebody_who_is_joined_meanwhile_ends_with_the_survivor() -> None:
    async with several(2) as hubs:
        await two_people(hubs)
        async with holding(hubs.url, CONVERSATION_LOCKS + 2) as release:
            joining = asyncio.create_task(hubs.writers[0].run(JOINING))
            await hubs.waiting(1)
            # By mail: it shares no key with what joins, and finds customer 2 before the join is committed.
            writing = asyncio.create_task(hubs.writers[1].run(heard(MAIL, message(MAIL_OF_ADA, text="meanwhile"))))
            await hubs.waiting(2)
            release()
            await asyncio.gather(joining, writing)
        assert await hubs.value("SELECT merged_into FROM customer WHERE id = 2") == 1
        assert await hubs.value("SELECT conversation_id FROM message WHERE text = 'meanwhile'") == 1
        await check(hubs)


async def test_what_is_changed_of_somebody_who_is_joined_meanwhile_is_changed_under_the_survivors_lock() -> None:
    """The end of a card's delivery names no customer; its ticket has moved while it waited for the lock it knew."""
    policy = Policy(channels=POLICY.channels, rooms=("slack",))
    async with several(2, policy) as hubs:
        await two_people(hubs)
        claimed = await hubs.writers[1].run(ClaimDue("w", 8))
        ticket = await hubs.value("SELECT id FROM ticket WHERE conversation_id = 2")
        (card,) = [row for row in claimed if row.kind == "card" and row.subject_id == ticket]
        async with holding(hubs.url, CONVERSATION_LOCKS + 2) as release:
            joining = asyncio.create_task(hubs.writers[0].run(JOINING))
            await hubs.waiting(1)
            ending = asyncio.create_task(hubs.writers[1].run(finish(card, ref="1.2")))
            await hubs.waiting(2)
            survivor = asyncio.create_task(hubs.other.execute("SELECT pg_advisory_lock($1)", CONVERSATION_LOCKS + 1))
            await until_three_wait(hubs)
            release()
            await joining
            await survivor  # behind the join, before the second try
            await hubs.waiting(1)
            assert not ending.done(), "it waits for the survivor's lock now"
            await hubs.other.execute("SELECT pg_advisory_unlock($1)", CONVERSATION_LOCKS + 1)
            assert await ending
        assert await hubs.value("SELECT ref FROM delivery WHERE id = $1", card.id) == "1.2"
        await check(hubs)


async def until_three_wait(hubs: Several) -> None:
    looking = await asyncpg.connect(hubs.url)
    try:
        await Several(hubs.url, [], looking).waiting(3)
    finally:
        looking.terminate()


@dataclass(frozen=True)
class Names:
    """Names keys and people out of order, and states something."""

    def needs(self, needs: Needs) -> None:
        needs.rows |= {("setting", "key", key) for key in "zmabq"}
        needs.customers |= {2, 1}
        needs.tickets |= {1}

    def decide(self, facts: Facts) -> None:
        facts.emit("stated")


KEYS = 5


@pytest.mark.parametrize("held", [*range(KEYS + 2), "events"])
async def test_locks_are_taken_in_one_order_keys_then_conversations_then_the_number_of_events(held: int | str) -> None:
    needs = Needs()
    Names().needs(needs)
    order = [*key_locks(needs), CONVERSATION_LOCKS + 1, CONVERSATION_LOCKS + 2]
    assert order == sorted(order)
    assert len(order) == KEYS + 2
    async with several(1) as hubs:
        await two_people(hubs)
        if held == "events":
            await hubs.other.execute("BEGIN")
            await hubs.other.execute("SELECT 1 FROM event_head FOR UPDATE")
        else:
            assert isinstance(held, int)
            await hubs.other.execute("SELECT pg_advisory_lock($1)", order[held])
        running = asyncio.create_task(hubs.writers[0].run(Names()))
        (pid,) = await hubs.waiting()
        rows = await hubs.rows(
            "SELECT (classid::bigint << 32) | objid::bigint AS key, granted FROM pg_locks WHERE locktype = 'advisory' AND pid = $1", pid
        )
        granted = sorted(row["key"] for row in rows if row["granted"])
        if held == "events":
            assert granted == order, "every other lock comes before"
            await hubs.other.execute("ROLLBACK")
        else:
            assert isinstance(held, int)
            assert granted == order[:held]
            assert [row["key"] for row in rows if not row["granted"]] == [order[held]]
            await hubs.other.execute("SELECT pg_advisory_unlock_all()")
        await running


async def test_a_batch_that_meets_another_ones_in_a_ring_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should an order ever be wrong, the server breaks the ring and the batch goes again: nobody is told no."""
    async with several(1) as hubs:
        await two_people(hubs)
        await hubs.other.execute("SET deadlock_timeout = '10s'")
        await hubs.other.execute("BEGIN")
        await hubs.other.execute("SELECT pg_advisory_xact_lock($1)", CONVERSATION_LOCKS + 2)
        running = asyncio.create_task(hubs.writers[0].run(Names()))
        await hubs.waiting()  # it has 1 and waits for 2
        ring = asyncio.create_task(hubs.other.execute("SELECT pg_advisory_xact_lock($1)", CONVERSATION_LOCKS + 1))
        await ring  # the writer was rolled back
        await hubs.other.execute("COMMIT")
        await running
        assert await hubs.value("SELECT count(*) FROM event WHERE type = 'stated'") == 1


@dataclass(frozen=True)
class Many:
    """Adds more rows than anybody foresaw."""

    rows: int

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> list[int]:
        ids = [facts.new_id("raw_request") for _ in range(self.rows)]
        for id_ in ids:
            facts.insert(RawRequest(id_, 1, facts.now, "good", "POST", "/", "", b""))
        return ids


async def test_a_unit_may_add_any_number_of_rows() -> None:
    async with several(2) as hubs:
        outcomes = await asyncio.gather(*(writer.run(Many(many)) for many in (1_000, 1, 1_300) for writer in hubs.writers))
        ids = [id_ for outcome in outcomes for id_ in outcome]
        assert len(ids) == len(set(ids)) == 2 * 2_301
        assert await hubs.value("SELECT count(*) FROM raw_request") == len(ids)


async def test_one_conversations_messages_are_numbered_in_the_order_they_are_committed() -> None:
    async with several(4) as hubs:
        await two_people(hubs)
        batches = [[heard(SMS, message(ADA)) for _ in range(60)] for _ in hubs.writers]
        await asyncio.gather(*(say(w, own, random.Random(n)) for n, (w, own) in enumerate(zip(hubs.writers, batches, strict=True))))
        ids = [
            row[0]
            for row in await hubs.rows("SELECT message_id FROM event WHERE type = 'message.received' AND customer_id = 1 ORDER BY seq")
        ]
        assert len(ids) == 241
        assert ids == sorted(ids)


async def test_ids_kept_from_an_earlier_batch_are_never_given_to_what_has_an_order() -> None:
    """Drawn before the lock, a message's number could be lower than one that another hub has committed meanwhile."""
    async with several(2) as hubs:
        await two_people(hubs)
        first, second = hubs.writers
        # The first draws ids for messages that its batch does not need.
        await asyncio.gather(*(first.run(Resolve(ticket, 1)) for ticket in (1, 2)))
        await second.run(heard(SMS, message(ADA, text="second")))
        await first.run(heard(SMS, message(ADA, text="third")))
        rows = await hubs.rows("SELECT text FROM message WHERE conversation_id = 1 ORDER BY id DESC LIMIT 2")
        assert [row[0] for row in rows] == ["third", "second"]


async def test_what_met_others_too_often_is_refused_and_can_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(1) as hubs:
        await two_people(hubs)
        (writer,) = hubs.writers

        async def never_enough(*args: Any) -> Any:
            raise postgres_writer._MoreToLock({1})

        with monkeypatch.context() as broken:
            broken.setattr(writer, "_read", never_enough)
            with pytest.raises(StorageBusy):
                await writer.run(heard(SMS, message(ADA, key="again")))
        assert (await writer.run(heard(SMS, message(ADA, key="again")))).stored == 1


async def test_after_a_long_downtime_no_more_is_locked_at_once_than_is_done() -> None:
    many = 1_200
    async with several(1) as hubs:
        await hubs.rows(
            "INSERT INTO customer (id, name, created_at, hold_version) SELECT n, '', 1, 0 FROM generate_series(1, $1::int) AS n", many
        )
        await hubs.rows(
            "INSERT INTO ticket (id, conversation_id, status, subject, brand, channel_id, identifier_id, opened_at, last_at, preview, "
            "version, snoozed_until) SELECT n, n, 'snoozed', '', '', 1, 1, 1, 1, '', 0, n FROM generate_series(1, $1::int) AS n",
            many,
        )
        await hubs.rows(
            "INSERT INTO hold (id, customer_id, reason, source, scope, placed_at, lease_until) "
            "SELECT n, n, 'open_ticket', 'ticket:' || n, '{}', 1, n FROM generate_series(1, $1::int) AS n",
            many,
        )
        await hubs.other.execute("BEGIN")
        await hubs.other.execute("SELECT 1 FROM event_head FOR UPDATE")
        waking = asyncio.create_task(hubs.writers[0].run(WakeSnoozed(many)))
        (pid,) = await hubs.waiting()
        assert await hubs.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1", pid) == 500
        await hubs.other.execute("ROLLBACK")
        assert await waking == 500
        assert await hubs.value("SELECT max(id) FROM ticket WHERE status <> 'snoozed'") == 500, "the longest overdue first"
        assert await hubs.writers[0].run(RenewLeases(many)) == 500
