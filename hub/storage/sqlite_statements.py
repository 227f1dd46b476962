"""SQLite's own look-ups and bulk writes: a few set queries a batch, SQL built once out of the records.

A set of keys travels as one JSON parameter, so that each statement's text is constant and stays prepared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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
from hub.storage.facts import Facts, Needs
from hub.storage.lookups import Query, Rows, look_up
from hub.storage.sqlite_claim import claimable

Execute = Callable[..., Any]

INSERT = {
    table: f'INSERT INTO "{table}" ({listed(table)}) VALUES ({", ".join("?" * len(names))})'  # noqa: S608
    for table, names in COLUMNS.items()
}
UPDATE = {
    table: f'UPDATE "{table}" SET {", ".join(f"{chr(34)}{n}{chr(34)}=?" for n in MUTABLE[table])} '  # noqa: S608
    f"WHERE {' AND '.join(f'{chr(34)}{k}{chr(34)}=?' for k in key_of(table))}"
    for table in COLUMNS
}
_IN = "IN (SELECT value FROM json_each(?1))"


def _select(table: str, where: str) -> str:
    return f'SELECT {listed(table)} FROM "{table}" WHERE {where}'  # noqa: S608


DEDUPE = (
    "SELECT d.channel_id, d.provider_key FROM json_each(?) k "
    "JOIN dedupe d ON d.channel_id = k.value ->> 0 AND d.provider_key = k.value ->> 1"
)
IDENTIFIERS = (
    f"SELECT {listed('identifier', 'i')} FROM json_each(?) k JOIN identifier i ON i.value = k.value ->> 2 AND i.kind = k.value ->> 0 "  # noqa: S608
    "AND i.site = k.value ->> 1 AND i.standing = k.value ->> 3"
)
CUSTOMERS = _select("customer", f"id {_IN}")
IDENTIFIERS_OF = _select("identifier", f"customer_id {_IN}")
IDENTIFIERS_BY_ID = _select("identifier", f"id {_IN}")
EVIDENCE_OF = _select("evidence", f"identifier_id {_IN}")
TICKETS = _select("ticket", f"id {_IN}")
TICKETS_OF = (
    f"SELECT {listed('ticket', 't')} FROM ticket t WHERE t.conversation_id {_IN} AND (t.status <> 'resolved' OR t.id = "  # noqa: S608
    "(SELECT l.id FROM ticket l WHERE l.conversation_id = t.conversation_id ORDER BY l.last_at DESC, l.id DESC LIMIT 1))"
)
HOLDS_OF = _select("hold", f"customer_id {_IN} AND released_at IS NULL")
EXPIRING = _select(
    "hold",
    "lease_until < ?1 AND released_at IS NULL AND (ends_at IS NULL OR ends_at <= ?2 OR lease_until < ends_at) "
    "ORDER BY lease_until LIMIT 500",
)
ASLEEP = _select("ticket", "status = 'snoozed' AND snoozed_until <= ? ORDER BY snoozed_until LIMIT 500")
HOMES = _select("customer", f"merged_into {_IN}")
TIES = f"{_select('join_log', f'left_id {_IN}')} UNION {_select('join_log', f'right_id {_IN}')} ORDER BY id"
CANNOT_LINKS = f"{_select('cannot_link', f'left_id {_IN}')} UNION {_select('cannot_link', f'right_id {_IN}')} ORDER BY id"
SPREAD = f"{SPREAD_COLUMNS} conversation_id {_IN} {SPREAD_REST}"
ATTRIBUTES_OF = _select("attribute", f"customer_id {_IN} ORDER BY id")
OPT_OUTS = _select("opt_out", f"value {_IN} AND ended_at IS NULL ORDER BY id")
# What an agent gave to another customer was heard from its sender all the same.
HEARD = (
    "SELECT channel_id, identifier_id, max(created_at) FROM message WHERE direction = 'in' AND channel_id IS NOT NULL "  # noqa: S608
    f"AND conversation_id {_IN} GROUP BY channel_id, identifier_id UNION ALL "
    "SELECT channel_id, identifier_id, max(created_at) FROM message WHERE direction = 'in' AND channel_id IS NOT NULL AND placed "
    f"AND identifier_id IN (SELECT id FROM identifier WHERE customer_id {_IN}) GROUP BY channel_id, identifier_id"
)
MESSAGES = _select("message", f"id {_IN}")
BESIDE = (
    f"SELECT {listed('message', 'm')} FROM message k JOIN message m ON m.conversation_id = k.conversation_id "  # noqa: S608
    f"AND m.ticket_id = k.ticket_id WHERE k.id {_IN} ORDER BY m.id DESC LIMIT 200"
)
BY_MAIL_ID = _select("message", f"mail_id {_IN} ORDER BY id")
BY_PROVIDER_ID = _select("message", f"provider_id {_IN} ORDER BY id")
BY_DRAFT = _select("message", f"draft_key {_IN}")
ATTACHMENTS = _select("attachment", f"id {_IN}")
DELIVERIES = _select("delivery", f"id {_IN}")
CARDS = _select("delivery", f"slot IS NOT NULL AND subject_id {_IN}")
QUARANTINE = _select("quarantine", f"id {_IN}")
QUARANTINED = "SELECT id, received_at FROM quarantine WHERE channel_id = ? AND kind = ? ORDER BY id"
LEASED = _select("delivery", "state = 'sending'")


# By the names that `lookups` asks with. A set of keys is one JSON parameter.
BY_KEYS = {
    "dedupe": DEDUPE,
    "identifiers": IDENTIFIERS,
    "customers": CUSTOMERS,
    "identifiers_of": IDENTIFIERS_OF,
    "identifiers_by_id": IDENTIFIERS_BY_ID,
    "evidence_of": EVIDENCE_OF,
    "tickets": TICKETS,
    "tickets_of": TICKETS_OF,
    "holds_of": HOLDS_OF,
    "messages": MESSAGES,
    "beside": BESIDE,
    "by_mail_id": BY_MAIL_ID,
    "by_provider_id": BY_PROVIDER_ID,
    "by_draft": BY_DRAFT,
    "attachments": ATTACHMENTS,
    "deliveries": DELIVERIES,
    "cards": CARDS,
    "quarantine": QUARANTINE,
    "homes": HOMES,
    "ties": TIES,
    "cannot_links": CANNOT_LINKS,
    "spread": SPREAD,
    "attributes_of": ATTRIBUTES_OF,
    "opt_outs": OPT_OUTS,
    "heard": HEARD,
}
BY_ARGUMENTS = {"expiring": EXPIRING, "asleep": ASLEEP, "leased": LEASED, "quarantined": QUARANTINED}


def next_ids(execute: Execute) -> dict[str, int]:
    """The first free row id of every table that has one."""
    ids = dict.fromkeys(SEQUENCES, 1)
    ids.update({name: seq + 1 for name, seq in execute("SELECT name, seq FROM sqlite_sequence") if name in ids})
    for table in COUNTED:
        ids[table] = (execute(f'SELECT max(id) FROM "{table}"').fetchone()[0] or 0) + 1  # noqa: S608
    return ids


def read(execute: Execute, needs: Needs, facts: Facts) -> None:
    """Fill the facts for the needs of a batch."""
    asking = look_up(needs, facts)
    rows: Rows = ()
    try:
        query = next(asking)
        while True:
            rows = _answer(execute, query)
            query = asking.send(rows)
    except StopIteration:
        return


def _answer(execute: Execute, query: Query) -> Rows:
    sql = BY_KEYS.get(query.name)
    if sql is not None:
        return execute(sql, (json.dumps(list(query.keys)),)).fetchall()  # type: ignore[no-any-return]
    if query.name == "claim":
        return claimable(execute, *query.keys)
    if query.name == "rows":
        table, column = query.where
        return execute(_select(table, f'"{column}" = ?'), tuple(query.keys)).fetchall()  # type: ignore[no-any-return]
    return execute(BY_ARGUMENTS[query.name], tuple(query.keys)).fetchall()  # type: ignore[no-any-return]


def write(execute: Execute, executemany: Execute, facts: Facts) -> None:
    """Write what was decided; events last, numbered in the order they were stated."""
    for table, rows in facts.inserted.items():
        executemany(INSERT[table], map(INSERT_VALUES[table], rows))
    for table, changed in facts.changed.items():
        executemany(UPDATE[table], map(UPDATE_VALUES[table], changed.values()))
    for table, column, value in facts.removed:
        execute(f'DELETE FROM "{table}" WHERE "{column}" = ?', (value,))  # noqa: S608
    for name, arguments in facts.relabels:
        for statement, width in RELABEL[name]:
            execute(statement, arguments[:width])
    if facts.events:
        for event in facts.events:
            event.seq = facts.new_id("event")
        executemany(INSERT["event"], map(INSERT_VALUES["event"], facts.events))
