"""Who is who under load: many at once, in one batch or from several hubs, end as they would have one by one."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub import reactions
from hub.contract import Claim, HolderChanged, Identified, Proof
from hub.conversations.commands import AddNote, Reopen, Reply, Resolve
from hub.customers import merging
from hub.policy import Refusal
from hub.storage.channels import RegisterChannels
from hub.storage.postgres_writer import PostgresWriter
from tests.customers.identity_laws import LAWS, check
from tests.storage import CHAT, ENGINES, MAIL, POLICY, SMS, WHATSAPP, Store, account, device, email, heard, message, open_store, phone
from tests.storage.several import Several, needs_postgres, several
from tests.storage.test_writer import held, queued

ME = 7
BY = merging.agent(ME)
CHANNELS = RegisterChannels(tuple((POLICY.channels[number].name, "") for number in (SMS, WHATSAPP, MAIL, CHAT)))


# --- one batch ends as one by one ---


def signed(kind: str, value: str) -> Claim:
    return Claim(kind, value, Proof.SIGNED)


def whatsapp_user(person: int) -> Claim:
    return Claim("wa_user_id", f"US.{person}", Proof.CHANNEL)


def utterance(rng: random.Random, text: str, people: int) -> Any:
    """Something a customer does: it names one identifier or several, of one person or of two."""
    one, other = rng.randrange(people), rng.randrange(people)
    number, mail = phone(f"+1202555010{one}"), f"p{other}@example.com"
    name = rng.choice(("", f"Person {one}"))
    said = {"text": text, "key": text, "sender_name": name}
    code = Claim("phone", f"+1202555010{other}", Proof.OTP)
    who = account(f"u{one}", "outlet" if one == people - 1 else "shop")
    return rng.choice(
        (
            lambda: heard(SMS, message(number, **said)),
            lambda: heard(SMS, message(number, **said, opts=rng.choice(("in", "out")))),
            lambda: heard(WHATSAPP, message(whatsapp_user(other), number, **said)),
            lambda: heard(MAIL, message(email(mail), **said)),
            lambda: heard(MAIL, message(email(mail, Proof.CLAIMED), **said)),
            lambda: heard(CHAT, message(device(f"d{one}"), email(mail, Proof.CLAIMED), **said)),
            lambda: heard(CHAT, message(who, device(f"d{other}"), **said)),
            lambda: heard(CHAT, Identified(provider_key=text, claims=(who, device(f"d{one}"), signed("email", mail)))),
            lambda: heard(CHAT, Identified(provider_key=text, claims=(device(f"d{one}"), code))),
            lambda: heard(SMS, HolderChanged(provider_key=text, previous=(number,))),
            # Two things in one request.
            lambda: heard(
                WHATSAPP,
                message(number, **said),
                Identified(provider_key=f"{text}-more", claims=(who, number, signed("email", mail))),
            ),
        )
    )()


def command(rng: random.Random, draft: str, store: Store) -> Any | None:
    """Something an agent does with what there is; None where there is nothing to do it with."""

    def some(sql: str) -> Any:
        rows = store.rows(sql)
        return rng.choice(rows) if rows else (0, 0, 0)

    undone = "SELECT 1 FROM join_log u WHERE u.undoes = j.id"
    ties = f"SELECT id, left_id, right_id FROM join_log j WHERE undoes IS NULL AND NOT EXISTS ({undone})"
    customers = "SELECT id FROM customer ORDER BY id"
    tickets = "SELECT id, conversation_id FROM ticket ORDER BY id"
    messages = "SELECT id, conversation_id FROM message WHERE direction <> 'note' ORDER BY id"
    return rng.choice(
        (
            lambda: merging.Merge(some(customers)[0], some(customers)[0], BY, ME),
            lambda: merging.Merge(some(customers)[0], some(customers)[0], BY, ME),
            lambda: merging.Unmerge(*some(f"{ties} ORDER BY id"), BY, ME),
            lambda: merging.Unmerge(*some(f"{ties} ORDER BY id"), BY, ME),
            lambda: merging.Reject(some(customers)[0], some(customers)[0], BY, ME),
            lambda: merging.TakeOut(*some("SELECT customer_id, id FROM identifier WHERE customer_id IS NOT NULL ORDER BY id")[:2], BY, ME),
            lambda: merging.MoveTicket(some(tickets)[0], some(customers)[0], ME),
            lambda: merging.MoveMessage(*some(messages)[:2], some(customers)[0], ME),
            lambda: Reply(some(tickets)[0], ME, draft, draft, confirmed_way=True),
            lambda: Resolve(some(tickets)[0], ME),
            lambda: Reopen(some(tickets)[0], ME),
            lambda: AddNote(some(tickets)[0], ME, draft, draft),
        )
    )()


async def done(store: Store, work: Any) -> bool:
    try:
        await store.run(work)
    except Refusal:
        return False
    return True


async def in_one_batch(store: Store, works: Sequence[Any]) -> None:
    async with held(store) as release:
        tasks = await queued(store, *works)
        release()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [(work, outcome) for work, outcome in zip(works, outcomes, strict=True) if isinstance(outcome, BaseException)]
    assert not failed, "what was done one by one is done in a batch"


TABLES = ("identifier", "cannot_link", "suggestion", "opt_out", "message", "ticket", "hold")


def everything(store: Store) -> dict[str, list[Any]]:
    """All rows, and what is owed: ids are counted alike in one batch and one by one. But tools are told less in a batch: what is so
    for a moment, and what they were told in the same moment, they need not hear."""
    found = {table: [tuple(row) for row in store.rows(f"SELECT * FROM {table} ORDER BY id")] for table in TABLES}
    # What an identifier of nobody's said before is not read: it may be noted twice, one by one.
    told = "SELECT DISTINCT identifier_id, other_id, proof FROM evidence ORDER BY 1, 2, 3"
    found["evidence"] = [tuple(row) for row in store.rows(told)]
    ends = "op, left_id, right_id, rule, actor, undoes, left_identifier, right_identifier"
    found["join_log"] = [tuple(row) for row in store.rows(f"SELECT id, {ends} FROM join_log ORDER BY id")]
    found["customer"] = [tuple(row) for row in store.rows("SELECT id, name, own_name, merged_into FROM customer ORDER BY id")]
    owed = "SELECT kind, lane, subject_id, state FROM delivery WHERE kind <> 'hold' ORDER BY kind, subject_id"
    found["delivery"] = [tuple(row) for row in store.rows(owed)]
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_done_in_one_batch_ends_as_it_would_one_by_one(seed: int, tmp_path: Path) -> None:
    """Agents even act on what came into being in the very batch, but for a message they could not have seen yet."""
    rng = random.Random(seed)
    works: list[Any] = []
    (tmp_path / "apart").mkdir()
    (tmp_path / "together").mkdir()
    async with open_store(tmp_path / "apart") as store:
        await store.run(CHANNELS)
        for number in range(140):
            work = utterance(rng, f"m{number}", 4) if rng.random() < 0.5 else command(rng, f"m{number}", store)
            if await done(store, work):
                works.append(work)
        wanted = everything(store)
        check(store.rows)
    async with open_store(tmp_path / "together") as store:
        await store.run(CHANNELS)
        starts = [0, *(n for n, work in enumerate(works) if isinstance(work, merging.MoveMessage)), len(works)]
        for start, end in itertools.pairwise(starts):
            await in_one_batch(store, works[start:end])
        found = everything(store)
        check(store.rows)
    for table, rows in wanted.items():
        assert found[table] == rows, (table, sorted(set(rows) ^ set(found[table]), key=str))


async def test_what_moves_rows_that_were_not_read_is_the_last_of_its_batch(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for person in range(3):
            await store.run(heard(SMS, message(phone(f"+1202555010{person}"), text=f"first {person}", key=f"first {person}")))
        before = len(store.announced)
        more = [heard(SMS, message(phone(f"+1202555010{n % 3}"), text=f"more {n}", key=f"more {n}")) for n in range(9)]
        works = [*more[:3], merging.Merge(1, 2, BY), *more[3:6], merging.Merge(1, 3, BY), *more[6:]]
        await in_one_batch(store, works)
        said = [[event.type for event in events].count("message.received") for events in store.announced[before:]]
        assert said == [3, 3, 3]
        assert {row[0] for row in store.rows("SELECT conversation_id FROM message")} == {1}
        assert [row[0] for row in store.rows("SELECT text FROM message ORDER BY id")][3:] == [f"more {n}" for n in range(9)]
        check(store.rows)


def grouped(store: Store) -> dict[str, Any]:
    """Who is who by what they said and by what they are known, without a single id."""
    messages = store.rows(
        "SELECT m.text, m.direction, m.conversation_id, m.ticket_id, m.placed, t.status, t.preview, i.value, c.name "
        "FROM message m JOIN ticket t ON t.id = m.ticket_id JOIN customer c ON c.id = m.conversation_id "
        "LEFT JOIN identifier i ON i.id = m.identifier_id"
    )
    identifiers = store.rows("SELECT kind, value, standing, epoch, customer_id, home_id, ended_at, shared_at FROM identifier")

    def together(rows: Sequence[Any], name: Any, by: Any) -> dict[Any, frozenset[Any]]:
        return {name(row): frozenset(name(other) for other in rows if by(other) == by(row)) for row in rows}

    known = [(*tuple(row[:4]), row[6] is not None, row[7] is not None) for row in identifiers]
    return {
        "messages": {row[0]: (row[1], bool(row[4]), *row[5:]) for row in messages},
        "conversations": together(messages, lambda row: row[0], lambda row: row[2]),
        "tickets": together(messages, lambda row: row[0], lambda row: row[3]),
        "known": frozenset(known),
        "customers": together(identifiers, lambda row: tuple(row[:4]), lambda row: row[4]),
        "homes": together(identifiers, lambda row: tuple(row[:4]), lambda row: row[5]),
        "opt_outs": frozenset(tuple(row) for row in store.rows("SELECT channel_id, value FROM opt_out WHERE ended_at IS NULL")),
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
async def test_a_batch_over_people_who_were_there_before_ends_as_it_would_one_by_one(seed: int, engine: str, tmp_path: Path) -> None:
    """On both engines: ids that are drawn differ, who is who does not."""
    rng = random.Random(100 + seed)
    before = [utterance(rng, f"b{number}", 4) for number in range(25)]
    for name in ("apart", "together"):
        (tmp_path / name).mkdir()
    async with open_store(tmp_path / "apart", engine=engine) as apart, open_store(tmp_path / "together", engine=engine) as together:
        for store in (apart, together):
            for work in (CHANNELS, *before):
                await store.run(work)
        assert grouped(apart) == grouped(together)
        invented = [utterance(rng, f"m{n}", 4) if rng.random() < 0.5 else command(rng, f"m{n}", apart) for n in range(60)]
        works = [work for work in invented if await done(apart, work)]
        assert len(works) > 30
        await in_one_batch(together, works)
        wanted, found = grouped(apart), grouped(together)
        for what, value in wanted.items():
            assert found[what] == value, what
        for store in (apart, together):
            check(store.rows)


# --- many at once are one person ---


def chain(person: int) -> list[tuple[Claim, Claim]]:
    """Pairs of one person's identifiers that overlap: A and B, B and C, C and D ... No event names them all."""
    own = [
        signed("email", f"a{person}@example.com"),
        Claim("phone", f"+1202555{person:04}", Proof.OTP),
        signed("email", f"b{person}@example.com"),
        account(f"u{person}"),
        Claim("phone", f"+1212555{person:04}", Proof.OTP),
        Claim("wa_user_id", f"US.{person}", Proof.CHANNEL),
    ]
    return list(itertools.pairwise(own))


def first_words(person: int, many: int, overlapping: bool) -> Iterator[Any]:
    """So many first webhooks of one person, the same identifiers in each or others in each."""
    pairs = chain(person)
    for number in range(many):
        pair = pairs[number % len(pairs)] if overlapping else pairs[0]
        text = f"{person}-{number}"
        yield heard(CHAT, message(*(pair if number % 2 else pair[::-1]), text=text, key=text))


@pytest.mark.parametrize("overlapping", [False, True], ids=["the same identifiers", "overlapping ones"])
@pytest.mark.parametrize("many", [2, 5, 60])
@pytest.mark.parametrize("engine", ENGINES)
async def test_first_webhooks_at_once_make_one_customer(engine: str, many: int, overlapping: bool, tmp_path: Path) -> None:
    rng = random.Random(many)
    async with open_store(tmp_path, engine=engine) as store:
        for person in range(6):
            works = list(first_words(person, many, overlapping))
            rng.shuffle(works)
            await asyncio.gather(*(store.run(work) for work in works))
        assert store.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 6
        assert store.value("SELECT count(DISTINCT conversation_id) FROM message") == 6
        assert store.value("SELECT count(*) FROM message") == 6 * many
        check(store.rows)


async def lawful(hubs: Several) -> None:
    for law, query in LAWS.items():
        assert [tuple(row) for row in await hubs.rows(query)] == [], law
    rows = {
        query: await hubs.rows(query)
        for query in (
            "SELECT id, left_id, right_id, undoes FROM join_log",
            "SELECT id, merged_into FROM customer",
            "SELECT customer_id, type, data FROM event WHERE type LIKE 'hold.%' ORDER BY seq",
            "SELECT DISTINCT customer_id FROM hold WHERE released_at IS NULL",
        )
    }
    check(lambda query: rows.get(query, ()))
    assert await hubs.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


@needs_postgres
@pytest.mark.parametrize("overlapping", [False, True], ids=["the same identifiers", "overlapping ones"])
@pytest.mark.parametrize("many", [2, 60])
async def test_first_webhooks_at_several_hubs_at_once_make_one_customer(many: int, overlapping: bool) -> None:
    rng = random.Random(many)
    async with several(4) as hubs:
        for person in range(8):
            works = list(first_words(person, many, overlapping))
            rng.shuffle(works)
            await asyncio.gather(*(hubs.writers[number % 4].run(work) for number, work in enumerate(works)))
        assert await hubs.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == 8
        assert await hubs.value("SELECT count(DISTINCT conversation_id) FROM message") == 8
        assert await hubs.value("SELECT count(*) FROM message") == 8 * many
        await lawful(hubs)


PEOPLE, WORDS, PROCESSES = 20, 20, 3


def one_process(url: str, number: int, start: Any) -> None:
    """A hub of its own: it brings every third first word of everybody."""

    async def bring() -> None:
        writer = PostgresWriter(url, POLICY, reactions.react)
        await writer.start()
        works = [work for person in range(PEOPLE) for work in list(first_words(person, WORDS, True))[number::PROCESSES]]
        random.Random(number).shuffle(works)
        start.wait()
        await asyncio.gather(*(writer.run(work) for work in works))
        await writer.close()

    asyncio.run(bring())


@needs_postgres
async def test_first_webhooks_at_several_processes_at_once_make_one_customer() -> None:
    spawning = multiprocessing.get_context("spawn")
    async with several(0) as hubs:
        start = spawning.Barrier(PROCESSES)
        processes = [spawning.Process(target=one_process, args=(hubs.url, number, start)) for number in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            await asyncio.to_thread(process.join, 60)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
        assert await hubs.value("SELECT count(*) FROM customer WHERE merged_into IS NULL") == PEOPLE
        assert await hubs.value("SELECT count(DISTINCT conversation_id) FROM message") == PEOPLE
        assert await hubs.value("SELECT count(*) FROM message") == PEOPLE * WORDS
        await lawful(hubs)


# --- agents merge and undo while both people write ---


def words_of(person: int, hub: int) -> list[Any]:
    texts = [f"{hub}-{person}-{number}" for number in range(4)]
    number, mail = phone(f"+1202555{person:04}"), email(f"p{person}@example.com")
    return [heard(SMS, message(number, text=texts[0], key=texts[0]))] + [heard(MAIL, message(mail, text=t, key=t)) for t in texts[1:]]


async def run_pair(run: Any, pair: tuple[int, int], rounds: int) -> int:
    """An agent merges two customers and takes it back, again and again; how often it was done."""
    many = 0
    for _ in range(rounds):
        try:
            merged = await run(merging.Merge(*pair, BY, ME))
            await run(merging.Unmerge(merged.join_id, *pair, BY, ME))
        except Refusal:
            continue  # a colleague was faster
        many += 1
    return many


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("several hubs", marks=needs_postgres)])
async def test_nothing_is_lost_while_agents_merge_and_undo_and_both_write(engine: str, tmp_path: Path) -> None:
    people = 10
    rng = random.Random(5)
    works = [work for hub in range(4) for person in range(people) for work in words_of(person, hub)]
    first = [work for person in range(people) for work in words_of(person, 9)]
    rng.shuffle(works)

    async def race(runs: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> None:
        async def write(run: Any, own: Sequence[Any]) -> None:
            for start in range(0, len(own), 8):
                await asyncio.gather(*(run(work) for work in own[start : start + 8]))

        writing = [write(run, works[number :: len(runs)]) for number, run in enumerate(runs)]
        # Two agents on each pair, at different hubs.
        undoing = [run_pair(runs[(number + who) % len(runs)], pair, 4) for number, pair in enumerate(pairs) for who in range(2)]
        outcomes = await asyncio.gather(*writing, *undoing)
        assert sum(outcomes[len(writing) :]) >= len(pairs), "some merge was done and undone"

    count = len(works) + len(first)
    by_text = "SELECT m.text, i.value FROM message m JOIN identifier i ON i.id = m.identifier_id AND i.customer_id = m.conversation_id"
    if engine == "sqlite":
        async with open_store(tmp_path) as store:
            for work in (CHANNELS, *first):
                await store.run(work)
            await race([store.run] * 4, await _pairs(lambda sql: _answer(store.rows(sql)), people))
            check(store.rows)
            assert len({row[0] for row in store.rows(by_text)}) == count
            assert not store.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")
        return
    async with several(4) as hubs:
        for work in (CHANNELS, *first):
            await hubs.writers[0].run(work)
        await race([writer.run for writer in hubs.writers], await _pairs(hubs.rows, people))
        await lawful(hubs)
        assert len({row[0] for row in await hubs.rows(by_text)}) == count
        assert not await hubs.rows("SELECT id FROM customer WHERE merged_into IS NOT NULL")


async def _answer(rows: list[Any]) -> list[Any]:
    return rows


async def _pairs(rows: Any, people: int) -> list[tuple[int, int]]:
    """Of each person whom they are by phone and whom by mail: two customers, until an agent says otherwise."""
    owner = dict(tuple(row) for row in await rows("SELECT value, customer_id FROM identifier"))
    return [(owner[f"+1202555{person:04}"], owner[f"p{person}@example.com"]) for person in range(people)]
