"""What the inbox reads: whole pages without doubles, by the indexes laid for them, and nobody's rows but the asked one's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.dialects import sqlite as dialect

from hub.conversations import history, queries
from hub.conversations.queries import VIEWS, Cursor
from hub.storage.columns import COLUMNS, INSERT_VALUES, listed
from hub.storage.reader import Reader, postgres_reader, sqlite_reader
from hub.storage.records import Agent, Customer, Event, Evidence, Hold, Identifier, Message, ReadMarker, Setting, Ticket
from hub.storage.sqlite_statements import INSERT
from tests.storage import ENGINES, fresh_database, fresh_postgres, postgres_rows

NOW = 1_800_000_000_000_000
ME, OTHER = 1, 2


Place = Path | str  # a SQLite file, or a PostgreSQL URL


def put(path: Place, rows: Iterable[Any]) -> None:
    if isinstance(path, str):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _put_postgres(path, list(rows))).result()
        return
    connection = sqlite3.connect(path)
    for row in rows:
        connection.execute(INSERT[row.table], INSERT_VALUES[row.table](row))
    connection.commit()
    connection.close()


async def _put_postgres(url: str, rows: Sequence[Any]) -> None:
    connection = await asyncpg.connect(url)
    for table, some in itertools.groupby(rows, lambda row: row.table):
        marks = ", ".join(f"${n}" for n in range(1, len(COLUMNS[table]) + 1))
        statement = f'INSERT INTO "{table}" ({listed(table)}) VALUES ({marks})'
        await connection.executemany(statement, [INSERT_VALUES[table](row) for row in some])
    await connection.close()


def person(number: int, name: str = "", merged_into: int | None = None) -> list[Any]:
    return [
        Customer(number, name or f"Person {number}", NOW, 0, merged_into),
        Identifier(number, "phone", "", f"+49150{number:07}", "proven", 0, number, "channel", f"+49150{number:07}", NOW, NOW),
    ]


def ticket(number: int, customer: int = 1, **more: Any) -> Ticket:
    values: dict[str, Any] = {
        "status": "open",
        "subject": "",
        "brand": "default",
        "channel_id": 1,
        "identifier_id": customer,
        "opened_at": NOW,
        "last_at": NOW,
        "preview": "hello",
    }
    return Ticket(number, customer, **{**values, **more})


def message(number: int, customer: int = 1, **more: Any) -> Message:
    values: dict[str, Any] = {"ticket_id": 1, "direction": "in", "status": "received", "text": f"text {number}", "created_at": NOW + number}
    return Message(number, customer, **{**values, **more})


def read(agent_id: int, ticket_id: int, message_id: int) -> ReadMarker:
    return ReadMarker(agent_id=agent_id, ticket_id=ticket_id, message_id=message_id)


@functools.cache
def _postgres() -> str:
    """One database for all these tests: each begins by emptying it, which is quicker than another one."""
    return fresh_postgres()


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    return fresh_database(tmp_path)


@pytest.fixture(params=ENGINES)
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    if request.param == "sqlite":
        return fresh_database(tmp_path)
    postgres_rows(_postgres(), f"TRUNCATE {', '.join(COLUMNS)}, message_search")
    return _postgres()


@pytest.fixture
async def reader(path: Place) -> AsyncIterator[Reader]:
    built = postgres_reader(path) if isinstance(path, str) else sqlite_reader(path)
    yield built
    await built.close()


async def pages(reader: Reader, view: str, limit: int) -> list[list[Any]]:
    after, found = None, []
    for _ in range(100):
        rows = await reader.all(*queries.tickets(VIEWS[view], ME, NOW, after, limit))
        found.append(list(rows[:limit]))
        if len(rows) <= limit:
            return found
        after = Cursor.parse(str(Cursor(rows[limit - 1].last_at, rows[limit - 1].id)))
    raise AssertionError("the pages never end")


STATUSES = ("open", "pending", "snoozed", "resolved")


@pytest.mark.parametrize("limit", [1, 7, 50])
@pytest.mark.parametrize("view", VIEWS)
async def test_the_pages_of_a_view_are_complete_ordered_and_without_doubles(path: Place, reader: Reader, view: str, limit: int) -> None:
    everything = [
        # Only four different times: most rows tie, and ids must break the tie.
        ticket(n, status=STATUSES[n % 4], last_at=NOW + n % 3, assignee_id=(None, ME, OTHER)[n % 5 % 3], review="?" * (n % 7 == 0))
        for n in range(1, 62)
    ]
    put(path, [*person(1), Agent(ME, "a@x", "A", "x", "agent", NOW), Agent(OTHER, "b@x", "B", "x", "agent", NOW), *everything])
    chosen = VIEWS[view]
    wanted = [
        row.id
        for row in sorted(everything, key=lambda row: (-row.last_at, -row.id))
        if row.status in chosen.statuses
        and {"all": True, "mine": row.assignee_id == ME, "nobody": row.assignee_id is None, "review": bool(row.review)}[chosen.whose]
    ]
    assert wanted, "the case proves nothing without rows"
    found = await pages(reader, view, limit)
    assert [row.id for page in found for row in page] == wanted
    assert {len(page) for page in found[:-1]} <= {limit}


async def test_a_page_follows_the_index_and_never_sorts_a_whole_view(sqlite: Path) -> None:
    connection = sqlite3.connect(sqlite)
    for table, index, statement in (
        ("ticket", "ix_ticket_status_last_at", queries.tickets(VIEWS["open"], ME, NOW, Cursor(NOW, 5))[0]),
        ("ticket", "ix_ticket_review", queries.tickets(VIEWS["review"], ME, NOW, Cursor(NOW, 5))[0]),
        ("message", "ix_message_conversation_id", history.messages(1, before=500)),
        ("event", "ix_event_customer_id", history.events(1, NOW, None)),
        ("hold", "ix_hold_customer_id", history.holds(1, NOW)),
        ("hold_ledger", "ix_hold_ledger_customer_id", history.ledger(1)),
        ("identifier", "uq_identifier_key", queries.people("ada@example.com")),
    ):
        sql = str(statement.compile(dialect=dialect.dialect(), compile_kwargs={"render_postcompile": True}))
        filled = [1] * sql.count("?")
        plan = "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", filled))
        assert f"INDEX {index}" in plan, (table, plan)
        assert f"SCAN {table}\n" not in plan + "\n", (table, plan)
    connection.close()


@pytest.mark.parametrize(
    ("typed", "cursor"),
    [
        ("1800000000000000-12", Cursor(1_800_000_000_000_000, 12)),
        ("", None),
        ("12", None),
        ("-", None),
        ("1-", None),
        ("-1", None),
        ("1-2-3", None),
        ("²-1", None),  # a digit to str.isdigit, not to int
        ("1e9-1", None),
        ("9" * 30 + "-1", None),  # larger than a database integer
        ("1' OR 1=1--1", None),
    ],
)
def test_a_cursor_is_two_numbers_or_nothing(typed: str, cursor: Cursor | None) -> None:
    assert Cursor.parse(typed) == cursor


async def test_counts_tell_views_apart_and_unread_is_my_own(path: Place, reader: Reader) -> None:
    put(
        path,
        [
            *person(1),
            ticket(1, assignee_id=ME, last_inbound_id=10),  # read up to 9: unread
            ticket(2, assignee_id=OTHER, last_inbound_id=11),  # read
            ticket(3, last_inbound_id=12),  # never opened: unread
            ticket(4, status="snoozed", last_inbound_id=13, review="DMARC failed"),
            ticket(5, status="resolved", last_inbound_id=14),
            ticket(6, status="pending"),
            read(ME, 1, 9),
            read(ME, 2, 11),
            read(OTHER, 3, 12),  # a colleague's reading is not mine
        ],
    )
    counts = await reader.first(*queries.counts(ME))
    assert counts is not None
    assert counts._asdict() == {"open": 4, "mine": 1, "unassigned": 2, "review": 1, "snoozed": 1, "resolved": 1, "all": 6, "unread": 2}
    rows = await reader.all(*queries.tickets(VIEWS["open"], ME, NOW))
    assert {row.id: bool(row.unread) for row in rows} == {1: True, 2: False, 3: True, 6: False}


async def test_a_count_stops_where_nobody_reads_on(path: Place, reader: Reader) -> None:
    put(path, person(1) + [ticket(n) for n in range(1, queries.COUNT_UPTO + 30)])
    counts = await reader.first(*queries.counts(ME))
    assert counts is not None
    assert counts.open == queries.COUNT_UPTO


@pytest.mark.parametrize(
    ("hold", "held"),
    [
        (Hold(1, 1, "open_ticket", "ticket:1", "{}", NOW, NOW + 1), True),
        (Hold(1, 1, "open_ticket", "ticket:1", "{}", NOW, NOW), False),  # its lease has run out
        (Hold(1, 1, "open_ticket", "ticket:1", "{}", NOW, NOW + 1, NOW), False),  # released
        (Hold(1, 2, "open_ticket", "ticket:1", "{}", NOW, NOW + 1), False),  # somebody else's
    ],
    ids=["active", "run out", "released", "of another"],
)
async def test_a_customer_is_held_while_a_lease_runs(path: Place, reader: Reader, hold: Hold, held: bool) -> None:
    put(path, person(1) + person(2) + [ticket(1), hold])
    [row] = await reader.all(*queries.tickets(VIEWS["open"], ME, NOW))
    assert bool(row.held) is held
    assert bool(await reader.all(history.holds(1, NOW))) is held


@pytest.mark.parametrize("limit", [1, 10, 50])
async def test_messages_page_back_whole_and_never_show_another_conversation(path: Place, reader: Reader, limit: int) -> None:
    rows = [message(n, customer=1 + n % 2) for n in range(1, 60)]
    put(path, person(1) + person(2) + rows)
    before, seen = None, []
    while True:
        page = await reader.all(history.messages(1, before, limit))
        seen += [row.id for row in page[:limit]]
        if len(page) <= limit:
            break
        before = seen[-1]
    assert seen == [n for n in range(59, 0, -1) if n % 2 == 0]


async def test_a_found_message_comes_with_what_stands_around_it(path: Place, reader: Reader) -> None:
    put(path, person(1) + [message(n) for n in range(1, 121)])
    ids = [row.id for row in await reader.all(history.messages(1, since=40))]
    assert ids == list(range(120, 32, -1)), "seven before it, and all after it"


async def test_a_very_long_text_is_cut_and_html_is_only_announced(path: Place, reader: Reader) -> None:
    put(path, [*person(1), message(1, text="x" * 20000, html="<p>long</p>"), message(2)])
    short, long = await reader.all(history.messages(1))
    assert (len(long.text), bool(long.cut), bool(long.has_html)) == (history.TEXT_SHOWN, True, True)
    assert (short.text, bool(short.cut), bool(short.has_html)) == ("text 2", False, False)
    assert not hasattr(long, "html")


async def test_a_joined_customer_leads_to_the_survivors_newest_ticket(path: Place, reader: Reader) -> None:
    put(path, person(1) + person(2, merged_into=1) + person(3, merged_into=2) + person(4))
    put(path, [ticket(1, last_at=NOW), ticket(2, last_at=NOW + 5, status="resolved"), ticket(3, last_at=NOW + 1)])
    for asked, wanted in ((1, (1, 2)), (2, (1, 2)), (3, (1, 2)), (4, (4, None))):
        row = await reader.first(queries.survivor(asked))
        assert row is not None
        assert tuple(row) == wanted
    assert await reader.first(queries.survivor(99)) is None


async def test_a_chain_of_joins_that_turns_in_a_circle_ends(path: Place, reader: Reader) -> None:
    put(path, person(1, merged_into=2) + person(2, merged_into=1))
    async with asyncio.timeout(5):
        assert await reader.first(queries.survivor(1)) is not None


async def test_claimed_addresses_are_shown_as_not_their_own(path: Place, reader: Reader) -> None:
    claimed = Identifier(50, "email", "", "boss@example.com", "asserted", 0, None, "claimed", "boss@example.com", NOW, 0)
    stranger = Identifier(51, "email", "", "other@example.com", "asserted", 0, None, "claimed", "other@example.com", NOW, 0)
    put(path, person(1) + person(2) + [claimed, stranger, Evidence(1, 1, 50, "claimed", "m", NOW), Evidence(2, 2, 51, "claimed", "m", NOW)])
    rows = await reader.all(history.identifiers(1))
    assert [(row.id, row.own) for row in rows] == [(1, 1), (50, 0)]


async def test_a_timeline_is_told_only_what_belongs_in_it(path: Place, reader: Reader) -> None:
    kinds = ["ticket.opened", "message.received", "hold.renewed", "ticket.assigned", "hold.placed", "customer.created"]
    put(path, person(1) + [Event(n, kind, NOW + n, 1) for n, kind in enumerate(kinds, 1)] + [Event(9, "ticket.opened", NOW, 2)])
    assert [row.seq for row in await reader.all(history.events(1, None, None))] == [5, 4, 1]
    assert [row.seq for row in await reader.all(history.events(1, NOW + 4, NOW + 5))] == [4], "from the first time, up to the second"


NASTY = ['"', "*", "a AND", "NEAR(", "text:", "-", "^a", "(", "a\x00b", "' OR 1=1", "☃", "a" * 500, "{", "a*b", "\\", "NOT", '" OR "']


@pytest.mark.parametrize("typed", NASTY)
async def test_no_search_is_a_syntax_error(path: Place, reader: Reader, typed: str) -> None:
    put(path, [*person(1), message(1, text="plain text")])
    statement = reader.search.found(typed)
    if statement is not None:
        await reader.all(statement)
    await reader.all(queries.people(typed))


INDEXED = (
    "INSERT INTO message_search(rowid, text, subject, sender_name) SELECT id, text, subject, sender_name FROM message WHERE id < 3",
    "INSERT INTO message_search (message_id, words) SELECT id, to_tsvector('simple', text) FROM message WHERE id < 3",
)


async def test_search_finds_newest_first_marks_the_words_and_says_how_far_it_lags(path: Place, reader: Reader) -> None:
    put(path, [*person(1), message(1, text="a red jacket"), message(2, text="the JACKETS are red"), message(3, text="jacket")])
    if isinstance(path, str):
        postgres_rows(path, INDEXED[1])
        postgres_rows(path, "UPDATE event_head SET seq = 3")
    else:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(INDEXED[0])
    put(path, [Setting("search.watermark", "2")])
    found = reader.search.found("red jack")
    assert found is not None
    rows = await reader.all(found)
    assert [row.id for row in rows] == [2, 1]
    assert rows[1].snippet.endswith("\x02red\x03 \x02jacket\x03")
    assert await reader.value(reader.search.lag) == 1


@pytest.mark.parametrize("typed", ["+49 150 000 0001", "+491500000001", " ADA@example.com "])
async def test_a_pasted_address_finds_its_person(path: Place, reader: Reader, typed: str) -> None:
    email = Identifier(90, "email", "", "ada@example.com", "proven", 0, 1, "dmarc", "Ada@Example.com", NOW, NOW)
    put(path, [*person(1, "Ada"), email, *person(2), ticket(1)])
    [row] = await reader.all(queries.people(typed))
    assert (row.name, row.ticket_id) == ("Ada", 1)
    assert not await reader.all(queries.people("49")), "a fragment of a number finds nobody"


def test_every_view_has_a_key_of_its_own() -> None:
    assert all(a.key != b.key for a, b in itertools.combinations(VIEWS.values(), 2))
