"""A database of realistic size, filled past the hub: conversations, messages, holds, read markers, and the search index.

`rows` makes every row once, table by table, as tuples in the tables' own column order; each engine has a loader of its own.
The same seed makes the same rows. Words follow Zipf's law (reference: docs/performance.md), so that a search meets a common,
a middling and a rare word in the proportions real text has.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench import traffic
from hub.keys import digest
from hub.storage import postgres
from hub.storage.columns import key_of
from hub.storage.migrate import migrate
from hub.storage.postgres_search import REBUILD
from hub.storage.search import WATERMARK
from hub.storage.tables import metadata

COLUMNS: dict[str, tuple[str, ...]] = {name: tuple(column.name for column in table.columns) for name, table in metadata.tables.items()}
Table = tuple[str, Iterator[tuple[Any, ...]]]

DAY = 86_400_000_000  # microseconds
YEAR = 365 * DAY
VOCABULARY = 50_000
AGENTS = 12
ME = 1  # who signs in by SESSION: has read nearly everything, and has nothing assigned, the two dearest cases
SESSION = "bench-session".ljust(43, "x")  # as long as a real one
TOKEN = "hub_" + "bench-token".ljust(43, "x")
LONG = 1  # the customer of the long conversation
STATUSES = {"open": 0.20, "pending": 0.05, "snoozed": 0.05, "resolved": 0.70}
# A typical mix of a conversation: the customer speaks first.
DIRECTIONS = {"in": 0.60, "out": 0.35, "note": 0.05}
_SYLLABLES = ("ka", "to", "mi", "re", "lo", "su", "na", "vi", "pe", "dor", "lan", "tis", "ber", "gum", "ox", "ira", "sel", "un", "fam")


@dataclass(frozen=True, slots=True)
class Volumes:
    """How much of everything; the long conversation's messages count among `messages`."""

    conversations: int = 100_000
    messages: int = 1_000_000
    long: int = 2_000
    words: int = 14  # of a message
    seed: int = 5


def vocabulary() -> list[str]:
    """Distinct pronounceable words, the commonest first."""
    made: list[str] = []
    for length in itertools.count(2):
        for parts in itertools.product(_SYLLABLES, repeat=length):
            made.append("".join(parts))
            if len(made) >= VOCABULARY * 2:
                distinct = list(dict.fromkeys(made))
                random.Random(1).shuffle(distinct)
                return distinct[:VOCABULARY]
    raise AssertionError("count() never ends")


class Texts:
    """Sentences of Zipf-distributed words, cut from one long ribbon: a million of them take two seconds."""

    def __init__(self, chosen: random.Random, words: int) -> None:
        weights = list(itertools.accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
        self._ribbon = chosen.choices(vocabulary(), cum_weights=weights, k=1 << 21)
        self._chosen = chosen
        self._words = words

    def one(self) -> str:
        start = int(self._chosen.random() * (len(self._ribbon) - self._words))
        return " ".join(self._ribbon[start : start + self._words])


def rows(volumes: Volumes, now: int) -> Iterator[Table]:
    """Every table's rows, newest last; `now` is microseconds UTC. Each table's iterator must be used up before the next is asked for."""
    chosen = random.Random(volumes.seed)
    texts = Texts(chosen, volumes.words)
    people = range(1, volumes.conversations + 1)
    step = YEAR // volumes.messages
    began = now - volumes.messages * step

    # Who speaks when: everybody once, the rest by a skewed draw, the long conversation evenly through the whole time.
    others = list(people[1:]) or [LONG]
    spread = volumes.messages - volumes.long - len(others)
    owners = others + [others[int(len(others) * chosen.random() ** 2)] for _ in range(max(spread, 0))]
    chosen.shuffle(owners)
    every = max(1, volumes.messages // volumes.long)
    ordinary = iter(owners)
    speakers = [LONG if n % every == 0 else next(ordinary, LONG) for n in range(volumes.messages)]

    statuses = chosen.choices(list(STATUSES), list(STATUSES.values()), k=volumes.conversations + 1)
    statuses[LONG] = "open"
    unresolved = [n for n in people if statuses[n] != "resolved"]
    held = set(unresolved)
    assignees = [chosen.randrange(2, AGENTS + 1) if chosen.random() < 0.6 else None for _ in range(volumes.conversations + 1)]
    ways = list(DIRECTIONS)
    shares = list(itertools.accumulate(DIRECTIONS.values()))

    first_at, last_at, last_in, preview = ([0] * (volumes.conversations + 1) for _ in range(4))
    directions: list[str] = []
    for n, speaker in enumerate(speakers, 1):
        way = "in" if not first_at[speaker] else chosen.choices(ways, cum_weights=shares)[0]
        directions.append(way)
        at = began + n * step
        first_at[speaker] = first_at[speaker] or at
        last_at[speaker] = at
        preview[speaker] = n
        if way == "in":
            last_in[speaker] = n

    roles = ["admin"] + ["agent"] * (AGENTS - 1)
    yield "agent", ((n, f"agent{n}@shop.example", f"Agent {n}", "unusable", role, began, None) for n, role in enumerate(roles, 1))
    yield "agent_session", iter([(digest(SESSION), ME, "c" * 43, now, now, now + 7 * DAY)])
    yield "api_token", iter([(1, "bench", digest(TOKEN), now, None)])
    yield "channel", iter([(1, "sms", None, "")])
    yield "customer", ((n, f"Person {n}" if n % 4 else "", first_at[n], 1 if n in held else 2, None, "") for n in people)
    yield "identifier", _identifiers(people, first_at, last_at)
    yield "evidence", ((n, n, None, "channel", f"message:{n}", first_at[n], None) for n in people)
    said = [texts.one() for _ in range(4_096)]
    yield (
        "ticket",
        (
            (
                *(n, n, statuses[n], "", "default", 1, n, first_at[n], last_at[n], said[n % 4_096][:120], 1, assignees[n]),
                last_at[n] if statuses[n] == "resolved" else None,
                now + DAY if statuses[n] == "snoozed" else None,
                last_at[n] if n in held and last_in[n] == preview[n] else None,
                last_in[n],
                n,
            )
            for n in people
        ),
    )
    yield "message", _messages(speakers, directions, texts, began, step)
    heard = (n for n, way in enumerate(directions, 1) if way == "in")
    yield "dedupe", ((1, f"SM{(n * 0x9E3779B97F4A7C15) % 2**128:032x}", began + n * step) for n in heard)
    yield "event", _events(speakers, directions, began, step)
    lease = now + 7 * DAY
    placed = [(n, who, "open_ticket", f"ticket:{who}", first_at[who]) for n, who in enumerate(unresolved, 1)]
    yield "hold", ((n, who, why, source, '{"brand": "default"}', at, lease, None, who) for n, who, why, source, at in placed)
    yield "hold_ledger", ((n, who, n, "placed", why, source, 1, at, lease) for n, who, why, source, at in placed)
    # One in fifty has something ME has not seen.
    yield "read_marker", ((n, ME, last_in[n] if n % 50 else 0) for n in people)


def _identifiers(people: Sequence[int], first_at: list[int], last_at: list[int]) -> Iterator[tuple[Any, ...]]:
    """A phone number each; three in ten have an e-mail address too."""
    for n in people:
        number = traffic.phone(n)
        yield (n, "phone", "", number, "proven", 0, n, "channel", number, first_at[n], last_at[n], n, None, None)
    for n in people:
        if n % 10 < 3:
            mail = f"person{n}@example.com"
            yield (len(people) + n, "email", "", mail, "proven", 0, n, "dmarc", mail, first_at[n], last_at[n], n, None, None)


def _messages(speakers: list[int], directions: list[str], texts: Texts, began: int, step: int) -> Iterator[tuple[Any, ...]]:
    places = {name: at for at, name in enumerate(COLUMNS["message"])}
    blank: list[Any] = [""] * len(places)
    for name in ("html", "agent_id", "sent_at", "mail_id", "provider_id", "draft_key", "raw_id"):
        blank[places[name]] = None
    blank[places["placed"]] = False
    status = {"in": "received", "out": "delivered", "note": "noted"}
    order = [places[name] for name in ("id", "conversation_id", "ticket_id", "direction", "status", "text", "created_at", "channel_id")]
    who, agent = places["identifier_id"], places["agent_id"]
    for n, (speaker, way) in enumerate(zip(speakers, directions, strict=True), 1):
        row = blank.copy()
        for place, value in zip(
            order, (n, speaker, speaker, way, status[way], texts.one(), began + n * step, None if way == "note" else 1), strict=True
        ):
            row[place] = value
        row[who] = None if way == "note" else speaker
        row[agent] = None if way == "in" else 2 + n % (AGENTS - 1)
        yield tuple(row)


def _events(speakers: list[int], directions: list[str], began: int, step: int) -> Iterator[tuple[Any, ...]]:
    """What was said, and the openings and holds; the long conversation was resolved and reopened every 50 messages."""
    kinds = {"in": "message.received", "out": "message.queued", "note": "note.added"}
    number, opened, spoken = itertools.count(1), set[int](), 0
    for n, (speaker, way) in enumerate(zip(speakers, directions, strict=True), 1):
        at = began + n * step
        if speaker not in opened:
            opened.add(speaker)
            yield (next(number), "ticket.opened", at, speaker, speaker, n, None, "{}")
            yield (next(number), "hold.placed", at, speaker, speaker, None, None, "{}")
        yield (next(number), kinds[way], at, speaker, speaker, n, None, "{}")
        if speaker == LONG:
            spoken += 1
            if spoken % 50 == 0:
                for kind in ("ticket.resolved", "hold.released", "ticket.reopened", "hold.placed"):
                    yield (next(number), kind, at, speaker, speaker, None, 2, "{}")


def beginning(table: str, made: Iterator[tuple[Any, ...]]) -> tuple[tuple[Any, ...] | None, list[str], Iterator[tuple[Any, ...]]]:
    """The first row, the columns that rows name (later ones have a default), and all the rows."""
    first = next(made, None)
    return first, list(COLUMNS[table])[: len(first or ())], itertools.chain([first], made) if first is not None else iter(())


# --- SQLite --------------------------------------------------------------------------------------------------------------


def fill_sqlite(path: Path, volumes: Volumes, now: int) -> None:
    """Migrate a new database at `path` and fill it. Indexes are laid again after the rows: into sorted pages, in a third of the time."""
    import sqlite3  # whichever library hub.storage chose

    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        execute = connection.execute
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-200000", "temp_store=MEMORY", "locking_mode=EXCLUSIVE"):
            execute(f"PRAGMA {pragma}").fetchall()
        indexes = execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        for name, _ in indexes:
            execute(f'DROP INDEX "{name}"')
        execute("BEGIN")
        for table, made in rows(volumes, now):
            first, names, every = beginning(table, iter(made))
            if first is not None:
                statement = f'INSERT INTO "{table}" ({", ".join(names)}) VALUES ({", ".join("?" for _ in names)})'
                connection.executemany(statement, every)
        for _, sql in indexes:
            execute(sql)
        execute("INSERT INTO message_search(message_search) VALUES ('rebuild')")
        execute("INSERT INTO setting(key, value) VALUES (?, ?)", (WATERMARK, str(volumes.messages)))
        execute("COMMIT")
        execute("PRAGMA journal_mode=WAL").fetchall()


# --- PostgreSQL ----------------------------------------------------------------------------------------------------------

_SECONDARY = (
    "SELECT i.indexname, i.indexdef FROM pg_indexes i JOIN pg_class c ON c.relname = i.indexname "
    "WHERE i.schemaname = 'public' AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid)"
)


async def fill_postgres(url: str, volumes: Volumes, now: int) -> None:
    """Migrate a new PostgreSQL database and fill it by COPY, its secondary indexes laid afterwards; then tidy up as autovacuum would."""
    await postgres.migrate(url)
    connection = await asyncpg.connect(url, server_settings={"maintenance_work_mem": "256MB", "synchronous_commit": "off"})
    try:
        indexes = await connection.fetch(_SECONDARY)
        for name, _ in indexes:
            await connection.execute(f'DROP INDEX "{name}"')
        for table, made in rows(volumes, now):
            first, names, every = beginning(table, iter(made))
            if first is not None:
                await connection.copy_records_to_table(table, records=every, columns=names)
        await connection.execute("UPDATE event_head SET seq = (SELECT coalesce(max(seq), 0) FROM event)")
        for table in COLUMNS:
            key = key_of(table)[0]
            sequence = await connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", f'"{table}"', key)
            if sequence:
                await connection.execute(f"SELECT setval('{sequence}', coalesce(max({key}), 0) + 1, false) FROM \"{table}\"")
        for statement in REBUILD:
            await connection.execute(statement)
        for _, definition in indexes:
            await connection.execute(definition)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


# --- filling in a process of its own, so that both engines can be filled at once ------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sqlite", type=Path, help="a new file")
    parser.add_argument("--postgres", help="the URL of a new, empty database")
    parser.add_argument("--conversations", type=int, default=Volumes().conversations)
    parser.add_argument("--messages", type=int, default=Volumes().messages)
    options = parser.parse_args()
    volumes, now = Volumes(options.conversations, options.messages), time.time_ns() // 1_000
    if options.sqlite:
        fill_sqlite(options.sqlite, volumes, now)
    if options.postgres:
        asyncio.run(fill_postgres(options.postgres, volumes, now))


if __name__ == "__main__":
    main()
