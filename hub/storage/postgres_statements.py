"""PostgreSQL's own look-ups, locks and bulk writes: a few set queries a batch, all its changed rows in one statement.

A set of keys travels as arrays, so that each statement's text is constant and stays prepared. Nothing here awaits: a function
says which statement to run with which arguments, and the writer runs it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text

from hub.storage.columns import (
    COLUMNS,
    COUNTED,
    INSERT_VALUES,
    MUTABLE,
    RELABEL,
    SEQUENCES,
    SPREAD_COLUMNS,
    SPREAD_REST,
    UPDATE_VALUES,
    key_of,
    listed,
)
from hub.storage.facts import FURTHEST, Facts, Needs
from hub.storage.lookups import Query
from hub.storage.postgres import CHANNEL, CONVERSATION_LOCKS, KEY_LOCKS
from hub.storage.records import Event
from hub.storage.tables import metadata

Asked = tuple[str, Sequence[Any]]  # a statement and its arguments

_NAMES = {BigInteger: "bigint", Integer: "integer", Text: "text", Boolean: "boolean", LargeBinary: "bytea"}
TYPES = {table: {name: _NAMES[type(metadata.tables[table].c[name].type)] for name in names} for table, names in COLUMNS.items()}


def _select(table: str, where: str) -> str:
    return f'SELECT {listed(table)} FROM "{table}" WHERE {where}'  # noqa: S608


# Whose conversation a delivery belongs to: that lock covers the row.
_CONVERSATION = (
    "CASE d.kind WHEN 'hold' THEN d.subject_id WHEN 'mark' THEN d.subject_id WHEN 'alert' THEN d.subject_id "
    "WHEN 'card' THEN (SELECT t.conversation_id FROM ticket t WHERE t.id = d.subject_id) "
    "WHEN 'code' THEN d.subject_id "  # its own number: it is of no conversation, and without a lock it would never be claimed
    "ELSE (SELECT m.conversation_id FROM message m WHERE m.id = d.subject_id) END"
)


def _owned(where: str) -> str:
    return f"SELECT {listed('delivery', 'd')}, {_CONVERSATION} FROM delivery d WHERE {where}"  # noqa: S608


# --- look-ups, by the names that `lookups` asks with ---

_BY_ID = "id = ANY($1::bigint[])"
BY_KEYS = {
    "customers": _select("customer", _BY_ID),
    "identifiers_of": _select("identifier", "customer_id = ANY($1::bigint[])"),
    "identifiers_by_id": _select("identifier", _BY_ID),
    "evidence_of": _select("evidence", "identifier_id = ANY($1::bigint[])"),
    "tickets": _select("ticket", _BY_ID),
    "tickets_of": (
        f"SELECT {listed('ticket', 't')} FROM ticket t WHERE t.conversation_id = ANY($1::bigint[]) AND (t.status <> 'resolved' OR t.id = "  # noqa: S608
        "(SELECT l.id FROM ticket l WHERE l.conversation_id = t.conversation_id ORDER BY l.last_at DESC, l.id DESC LIMIT 1))"
    ),
    "holds_of": _select("hold", "customer_id = ANY($1::bigint[]) AND released_at IS NULL"),
    "heard": (
        "SELECT channel_id, identifier_id, max(created_at) FROM message WHERE direction = 'in' AND channel_id IS NOT NULL "
        "AND conversation_id = ANY($1::bigint[]) GROUP BY channel_id, identifier_id UNION ALL "
        "SELECT channel_id, identifier_id, max(created_at) FROM message WHERE direction = 'in' AND channel_id IS NOT NULL AND placed "
        "AND identifier_id IN (SELECT id FROM identifier WHERE customer_id = ANY($1::bigint[])) GROUP BY channel_id, identifier_id"
    ),
    "messages": _select("message", _BY_ID),
    "beside": (
        f"SELECT {listed('message', 'm')} FROM message k JOIN message m ON m.conversation_id = k.conversation_id "  # noqa: S608
        "AND m.ticket_id = k.ticket_id WHERE k.id = ANY($1::bigint[]) ORDER BY m.id DESC LIMIT 200"
    ),
    "by_mail_id": _select("message", "mail_id = ANY($1::text[]) ORDER BY id"),
    "by_provider_id": _select("message", "provider_id = ANY($1::text[]) ORDER BY id"),
    "by_draft": _select("message", "draft_key = ANY($1::text[])"),
    "attachments": _select("attachment", "id = ANY($1::text[])"),
    "deliveries": _owned("d.id = ANY($1::bigint[])"),
    "cards": _select("delivery", "slot IS NOT NULL AND subject_id = ANY($1::bigint[])"),
    "quarantine": _select("quarantine", _BY_ID),
    "homes": _select("customer", "merged_into = ANY($1::bigint[])"),
    "ties": _select("join_log", "left_id = ANY($1::bigint[]) OR right_id = ANY($1::bigint[]) ORDER BY id"),
    "cannot_links": _select("cannot_link", "left_id = ANY($1::bigint[]) OR right_id = ANY($1::bigint[]) ORDER BY id"),
    "spread": f"{SPREAD_COLUMNS} conversation_id = ANY($1::bigint[]) {SPREAD_REST}",
    "attributes_of": _select("attribute", "customer_id = ANY($1::bigint[]) ORDER BY id"),
    "opt_outs": _select("opt_out", "value = ANY($1::text[]) AND ended_at IS NULL ORDER BY id"),
}
PAIRED = {
    "dedupe": (
        "SELECT d.channel_id, d.provider_key FROM unnest($1::integer[], $2::text[]) AS k(channel_id, provider_key) "
        "JOIN dedupe d ON d.channel_id = k.channel_id AND d.provider_key = k.provider_key"
    ),
    "identifiers": (
        f"SELECT {listed('identifier', 'i')} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k(kind, site, value, standing) "  # noqa: S608
        "JOIN identifier i ON i.value = k.value AND i.kind = k.kind AND i.site = k.site AND i.standing = k.standing"
    ),
}
BY_ARGUMENTS = {
    "expiring": _select(
        "hold",
        "lease_until < $1 AND released_at IS NULL AND (ends_at IS NULL OR ends_at <= $2 OR lease_until < ends_at) "
        "ORDER BY lease_until LIMIT 500",
    ),
    "asleep": _select("ticket", "status = 'snoozed' AND snoozed_until <= $1 ORDER BY snoozed_until LIMIT 500"),
    "leased": _owned("d.state = 'sending'"),
    "quarantined": "SELECT id, received_at FROM quarantine WHERE channel_id = $1 AND kind = $2 ORDER BY id",
}
OWNED = ("deliveries", "leased", "claim")  # whose rows end with the conversation they belong to
_OWED = "state IN ('queued','sending','unknown')"
# What is due further ahead than anything is put off was noted by a clock that has been set back.
_SOON = f"BETWEEN $1::bigint + 1 AND $1 + {FURTHEST}"
_HEAD = (
    f"NOT EXISTS (SELECT 1 FROM delivery e WHERE e.lane = d.lane AND e.id < d.id AND e.{_OWED} "  # noqa: S608
    f"AND (e.state <> 'unknown' OR e.due_at {_SOON}))"
)
_DUE = f"d.state = 'queued' AND d.due_at NOT {_SOON} AND {_HEAD}"
_ABANDONED = f"d.state = 'sending' AND d.lease_until <= $1 AND {_HEAD}"
# To each target (kind and name) by itself, so that what waits for one that is shut costs the others nothing. A worker passes over
# what another one is busy with: it tries the conversation's lock and never waits for it.
TRY_CLAIM = (
    "WITH RECURSIVE t(kind, target) AS (SELECT * FROM (SELECT kind, target FROM delivery WHERE state = 'queued' "  # noqa: S608
    "ORDER BY kind, target LIMIT 1) AS one UNION ALL SELECT n.kind, n.target FROM t CROSS JOIN LATERAL (SELECT d.kind, d.target "
    "FROM delivery d WHERE d.state = 'queued' AND (d.kind, d.target) > (t.kind, t.target) ORDER BY d.kind, d.target LIMIT 1) AS n) "
    "SELECT f.* FROM (SELECT * FROM t WHERE (kind, target) NOT IN (SELECT * FROM unnest($3::text[], $4::text[])) OFFSET 0) AS t "
    f"CROSS JOIN LATERAL (SELECT c.* FROM (SELECT d.id, {_CONVERSATION} AS conversation_id FROM delivery d "
    f"WHERE d.kind = t.kind AND d.target = t.target AND {_DUE} ORDER BY d.due_at, d.id LIMIT 4 * $2::bigint) AS c "
    f"WHERE pg_try_advisory_xact_lock({CONVERSATION_LOCKS} + c.conversation_id) LIMIT $2) AS f "
    f"UNION ALL SELECT a.* FROM (SELECT d.id, {_CONVERSATION} AS conversation_id FROM delivery d WHERE {_ABANDONED} OFFSET 0) AS a "
    f"WHERE pg_try_advisory_xact_lock({CONVERSATION_LOCKS} + a.conversation_id)"
)
# Looked at again under the lock: another worker may have claimed it since.
CLAIM = _owned(f"d.id = ANY($2::bigint[]) AND (({_DUE}) OR ({_ABANDONED})) ORDER BY d.due_at, d.id")


def look_up(query: Query) -> Asked:
    """The statement that answers a question (but a claim, which takes two)."""
    if query.name in BY_KEYS:
        return BY_KEYS[query.name], (list(query.keys),)
    if query.name in PAIRED:
        return PAIRED[query.name], [list(column) for column in zip(*query.keys, strict=True)]
    if query.name == "rows":
        table, column = query.where
        return _select(table, f'"{column}" = $1'), tuple(query.keys)
    return BY_ARGUMENTS[query.name], tuple(query.keys)


# --- locks: over the whole batch, in one fixed order, before anything is looked up ---


def begin(locks: Sequence[int]) -> str:
    """Begin, and take the locks on keys in their order: numbers written out, so that it is one crossing."""
    numbers = ",".join(str(int(number)) for number in locks)
    return f"BEGIN; SELECT pg_advisory_xact_lock(key) FROM unnest(ARRAY[{numbers}]::bigint[]) AS key" if numbers else "BEGIN"  # noqa: S608


# What a batch names -> the conversations that may change with it.
_TOUCHED: dict[str, str] = {
    "identifiers": (
        "SELECT unnest(ARRAY[i.customer_id, i.home_id]) "
        "FROM unnest({0}::text[], {1}::text[], {2}::text[], {3}::text[]) AS k(kind, site, value, standing) "
        "JOIN identifier i ON i.value = k.value AND i.kind = k.kind AND i.site = k.site AND i.standing = k.standing"
    ),
    "customers": "SELECT unnest({0}::bigint[])",
    "bonds": "SELECT unnest({0}::bigint[])",
    "tickets": "SELECT conversation_id FROM ticket WHERE id = ANY({0}::bigint[])",
    "messages": "SELECT conversation_id FROM message WHERE id = ANY({0}::bigint[])",
    "mail_ids": "SELECT conversation_id FROM message WHERE mail_id = ANY({0}::text[])",
    "provider_ids": "SELECT conversation_id FROM message WHERE provider_id = ANY({0}::text[])",
    "drafts": "SELECT conversation_id FROM message WHERE draft_key = ANY({0}::text[])",
    "attachments": ("SELECT m.conversation_id FROM attachment a JOIN message m ON m.id = a.message_id WHERE a.id = ANY({0}::text[])"),
    "deliveries": f"SELECT {_CONVERSATION} FROM delivery d WHERE d.id = ANY({{0}}::bigint[])",  # noqa: S608
    # No more than the look-up finds: after a long downtime they are more than the server's table of locks holds.
    "leases_below": (
        "(SELECT customer_id FROM hold WHERE lease_until < {0}::bigint AND released_at IS NULL ORDER BY lease_until LIMIT 500)"
    ),
    "asleep_until": (
        "(SELECT conversation_id FROM ticket WHERE status = 'snoozed' AND snoozed_until <= {0}::bigint ORDER BY snoozed_until LIMIT 500)"
    ),
    "leased": f"SELECT {_CONVERSATION} FROM delivery d WHERE d.state = 'sending' AND {{0}}::boolean",  # noqa: S608
}


def key_locks(needs: Needs) -> list[int]:
    """The locks on what may not exist yet: identity keys above all, so that a new person who writes twice at once is one person."""
    keys: set[object] = {("identifier", *key) for key in needs.identifiers}
    keys |= {("draft", key) for key in needs.drafts}
    keys |= {("quarantined", *key) for key in needs.quarantined}
    keys |= {("quarantine", key) for key in needs.quarantine}
    keys |= {("row", *key) for key in needs.rows}
    return sorted(map(_number, keys))


def _number(key: object) -> int:
    spelled = repr(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest(), "big") % KEY_LOCKS


def lock_conversations(needs: Needs, also: Collection[int]) -> Asked | None:
    """The statement that locks every conversation a batch may change, by id, and returns their ids; None where there is none."""
    named: list[tuple[str, list[Any]]] = []
    for name in _TOUCHED:
        keys = getattr(needs, name)
        if name == "customers":
            keys = keys | set(also)
        if not keys:
            continue
        if name == "identifiers":
            named.append((name, [list(column) for column in zip(*keys, strict=True)]))
        else:
            named.append((name, [list(keys) if isinstance(keys, set) else keys]))
    if not named:
        return None
    return _locking(tuple(name for name, _ in named)), [column for _, columns in named for column in columns]


@functools.cache
def _locking(names: tuple[str, ...]) -> str:
    branches, at = [], 1
    for name in names:
        width = 4 if name == "identifiers" else 1
        branches.append(_TOUCHED[name].format(*(f"${at + n}" for n in range(width))))
        at += width
    # A conversation that was joined into another one is locked with it.
    return (
        f"WITH touched(id) AS MATERIALIZED ({' UNION '.join(branches)}), known(id) AS (SELECT id FROM touched WHERE id IS NOT NULL "  # noqa: S608
        "UNION SELECT c.merged_into FROM touched JOIN customer c ON c.id = touched.id WHERE c.merged_into IS NOT NULL) "
        f"SELECT id, pg_advisory_xact_lock({CONVERSATION_LOCKS} + id) FROM (SELECT id FROM known ORDER BY id OFFSET 0) AS sorted"
    )


# --- ids ---

# Ids in these tables order what happened within a conversation or a lane, so they are drawn after its lock; those of the others
# may be kept for a later batch.
ORDERED = ("message", "delivery", "hold_ledger", "join_log")
DRAWN = tuple(table for table in (*SEQUENCES, *COUNTED) if table != "event")
# The time is the database's own, read after the locks: many hubs have many clocks, and leases need one.
DRAW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, " + ", ".join(  # noqa: S608
    f"ARRAY(SELECT nextval('{table}_id_seq') FROM generate_series(1, ${n}::integer))"  # noqa: S608
    for n, table in enumerate(DRAWN, 1)
)


# --- writes ---


def _insert(table: str, at: int) -> str:
    names = COLUMNS[table]
    columns = ", ".join(f"${at + n}::{TYPES[table][name]}[]" for n, name in enumerate(names))
    return f'INSERT INTO "{table}" ({listed(table)}) SELECT * FROM unnest({columns})'  # noqa: S608


def _update(table: str, at: int) -> str:
    names = MUTABLE[table] + key_of(table)
    columns = ", ".join(f"${at + n}::{TYPES[table][name]}[]" for n, name in enumerate(names))
    told = ", ".join(f'"{name}" = k."{name}"' for name in MUTABLE[table])
    known = " AND ".join(f't."{name}" = k."{name}"' for name in key_of(table))
    aliases = ", ".join(f'"{name}"' for name in names)
    return f'UPDATE "{table}" AS t SET {told} FROM unnest({columns}) AS k({aliases}) WHERE {known}'  # noqa: S608


@functools.cache
def _writing(inserted: tuple[str, ...], changed: tuple[str, ...]) -> str:
    """Every insert and update of a batch as one statement: a crossing to the server costs more than a row."""
    parts, at = [], 1
    for table in inserted:
        parts.append(_insert(table, at))
        at += len(COLUMNS[table])
    for table in changed:
        parts.append(_update(table, at))
        at += len(MUTABLE[table] + key_of(table))
    if len(parts) == 1:
        return parts[0]
    named = ", ".join(f"w{n} AS ({part})" for n, part in enumerate(parts[:-1]))
    return f"WITH {named} {parts[-1]}"


def writes(facts: Facts) -> list[Asked]:
    """The statements that write what was decided, without its events."""
    asked: list[Asked] = []
    inserted = {table: rows for table, rows in facts.inserted.items() if rows}
    # A row inserted and then changed is inserted as it now stands.
    fresh = {id(row) for rows in inserted.values() for row in rows}
    changed = {table: kept for table, rows in facts.changed.items() if (kept := [row for key, row in rows.items() if key not in fresh])}
    if "dedupe" in inserted:
        # Nothing else locks these keys; in one order two hubs that are sent the same things wait for each other and never in a ring.
        inserted["dedupe"] = sorted(inserted["dedupe"], key=lambda row: (row.channel_id, row.provider_key))
    if inserted or changed:
        tables = tuple(sorted(inserted)), tuple(sorted(changed))
        arguments: list[Any] = []
        for table in tables[0]:
            arguments += map(list, zip(*map(INSERT_VALUES[table], inserted[table]), strict=True))
        for table in tables[1]:
            arguments += map(list, zip(*map(UPDATE_VALUES[table], changed[table]), strict=True))
        asked.append((_writing(*tables), arguments))
    for table, column, value in facts.removed:
        asked.append((f'DELETE FROM "{table}" WHERE "{column}" = $1', (value,)))  # noqa: S608
    for name, moved in facts.relabels:
        asked += [(statement.replace("?", "$"), list(moved[:width])) for statement, width in RELABEL[name]]
    return asked


_EVENT = tuple(name for name in COLUMNS["event"] if name != "seq")
_EVENT_NAMES = ", ".join(f'"{name}"' for name in _EVENT)
_EVENT_ARRAYS = ", ".join(f"${n}::{TYPES['event'][name]}[]" for n, name in enumerate(_EVENT, 2))
# The row of `event_head` is the one lock under which events are numbered, taken after every other lock and held to COMMIT: numbers
# become visible in their order and without gaps, so whoever follows them by `seq > last` misses none. Everybody is told at COMMIT.
EVENTS = (
    "WITH head AS (UPDATE event_head SET seq = seq + $1 RETURNING seq - $1 AS before) "  # noqa: S608
    f"INSERT INTO event (seq, {_EVENT_NAMES}) SELECT head.before + k.nth, {', '.join(f'k.{name}' for name in _EVENT_NAMES.split(', '))} "
    f"FROM head, (SELECT pg_notify('{CHANNEL}', '')) AS told, unnest({_EVENT_ARRAYS}) WITH ORDINALITY AS k({_EVENT_NAMES}, nth)"
)
_EVENT_VALUES = INSERT_VALUES["event"]


def number_events(events: Sequence[Event]) -> Asked:
    """The statement that writes the events, numbered in the order they were stated."""
    columns = list(zip(*map(_EVENT_VALUES, events), strict=True))
    return EVENTS, [len(events), *map(list, columns[1:])]
