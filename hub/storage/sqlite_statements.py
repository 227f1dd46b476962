"""SQLite's own look-ups and bulk writes: a few set queries a batch, SQL built once out of the records.

A set of keys travels as one JSON parameter, so that each statement's text is constant and stays prepared.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

from hub.storage import records
from hub.storage.facts import Facts, Needs
from hub.storage.records import RECORDS, Delivery, Evidence, Hold, Identifier, Message, Ticket

Row = TypeVar("Row")
Execute = Callable[..., Any]

BY_TABLE: dict[str, type] = {record.table: record for record in RECORDS}  # type: ignore[attr-defined]
COLUMNS: dict[str, tuple[str, ...]] = {table: tuple(f.name for f in fields(record)) for table, record in BY_TABLE.items()}
KEYS: dict[str, tuple[str, ...]] = {
    "dedupe": ("channel_id", "provider_key"),
    "event": ("seq",),
    "agent_session": ("token_hash",),
    "login_attempt": ("key",),
    "read_marker": ("ticket_id", "agent_id"),
    "setting": ("key",),
}
# Naming an indexed column in an UPDATE rewrites its index entry even when the value stays: leave out what never changes.
UNCHANGING: dict[str, frozenset[str]] = {
    "message": frozenset(
        {"conversation_id", "ticket_id", "text", "html", "mail_id", "draft_key", "subject", "created_at", "raw_id", "direction"}
    ),
    "delivery": frozenset({"lane", "slot", "created_at", "kind", "target", "subject_id"}),
    "ticket": frozenset({"conversation_id", "opened_at", "brand"}),
    "identifier": frozenset({"kind", "site", "value", "standing", "first_seen"}),
    "hold": frozenset({"source", "reason", "placed_at"}),
}
SEQUENCES = ("customer", "ticket", "message", "delivery", "event", "hold_ledger")
COUNTED = ("identifier", "evidence", "join_log", "raw_request", "quarantine", "hold", "agent", "api_token", "channel")


def _key(table: str) -> tuple[str, ...]:
    return KEYS.get(table, ("id",))


def _columns(table: str, alias: str = "") -> str:
    prefix = f"{alias}." if alias else ""
    return ", ".join(f'{prefix}"{name}"' for name in COLUMNS[table])


INSERT = {
    table: f'INSERT INTO "{table}" ({_columns(table)}) VALUES ({", ".join("?" * len(names))})'  # noqa: S608
    for table, names in COLUMNS.items()
}
MUTABLE = {
    table: tuple(n for n in names if n not in _key(table) and n not in UNCHANGING.get(table, frozenset()))
    for table, names in COLUMNS.items()
}
UPDATE = {
    table: f'UPDATE "{table}" SET {", ".join(f"{chr(34)}{n}{chr(34)}=?" for n in MUTABLE[table])} '  # noqa: S608
    f"WHERE {' AND '.join(f'{chr(34)}{k}{chr(34)}=?' for k in _key(table))}"
    for table in COLUMNS
}
INSERT_VALUES = {table: attrgetter(*names) for table, names in COLUMNS.items()}
UPDATE_VALUES = {table: attrgetter(*(MUTABLE[table] + _key(table))) for table in COLUMNS if len(MUTABLE[table] + _key(table)) > 1}

_IN = "IN (SELECT value FROM json_each(?))"


def _select(table: str, where: str) -> str:
    return f'SELECT {_columns(table)} FROM "{table}" WHERE {where}'  # noqa: S608


DEDUPE = (
    "SELECT d.channel_id, d.provider_key FROM json_each(?) k "
    "JOIN dedupe d ON d.channel_id = k.value ->> 0 AND d.provider_key = k.value ->> 1"
)
IDENTIFIERS = (
    f"SELECT {_columns('identifier', 'i')} FROM json_each(?) k JOIN identifier i ON i.value = k.value ->> 2 AND i.kind = k.value ->> 0 "  # noqa: S608
    "AND i.site = k.value ->> 1 AND i.standing = k.value ->> 3"
)
CUSTOMERS = _select("customer", f"id {_IN}")
IDENTIFIERS_OF = _select("identifier", f"customer_id {_IN}")
IDENTIFIERS_BY_ID = _select("identifier", f"id {_IN}")
EVIDENCE_OF = _select("evidence", f"identifier_id {_IN}")
TICKETS = _select("ticket", f"id {_IN}")
TICKETS_OF = (
    f"SELECT {_columns('ticket', 't')} FROM ticket t WHERE t.conversation_id {_IN} AND (t.status <> 'resolved' OR t.id = "  # noqa: S608
    "(SELECT l.id FROM ticket l WHERE l.conversation_id = t.conversation_id ORDER BY l.last_at DESC, l.id DESC LIMIT 1))"
)
HOLDS_OF = _select("hold", f"customer_id {_IN} AND released_at IS NULL")
EXPIRING = _select("hold", "lease_until < ? AND released_at IS NULL ORDER BY lease_until LIMIT 500")
ASLEEP = _select("ticket", "status = 'snoozed' AND snoozed_until <= ? ORDER BY snoozed_until LIMIT 500")
MESSAGES = _select("message", f"id {_IN}")
BY_MAIL_ID = _select("message", f"mail_id {_IN} ORDER BY id")
BY_PROVIDER_ID = _select("message", f"provider_id {_IN}")
BY_DRAFT = _select("message", f"draft_key {_IN}")
ATTACHMENTS = _select("attachment", f"id {_IN}")
DELIVERIES = _select("delivery", f"id {_IN}")
CARDS = _select("delivery", f"slot IS NOT NULL AND subject_id {_IN}")
QUARANTINE = _select("quarantine", f"id {_IN}")
QUARANTINED = "SELECT id, received_at FROM quarantine WHERE channel_id = ? AND kind = ? ORDER BY id"
LEASED = _select("delivery", "state = 'sending'")
# The head of a lane is its oldest row still owed; one of unknown fate keeps the lane shut until its `due_at`.
CLAIM = (
    f"SELECT {_columns('delivery', 'd')} FROM delivery d WHERE d.state IN ('queued','sending') "  # noqa: S608
    "AND CASE d.state WHEN 'queued' THEN d.due_at ELSE d.lease_until END <= ?1 "
    "AND NOT EXISTS (SELECT 1 FROM delivery e WHERE e.lane = d.lane AND e.id < d.id "
    "AND e.state IN ('queued','sending','unknown') AND (e.state <> 'unknown' OR e.due_at > ?1)) "
    "AND d.target NOT IN (SELECT value FROM json_each(?3)) ORDER BY d.due_at, d.id LIMIT ?2"
)
# Only rows that are still at work move, each through an index; what is over keeps the id it had, which leads on.
JOIN = (
    "UPDATE message SET conversation_id = ? WHERE conversation_id = ?",
    "UPDATE ticket SET conversation_id = ? WHERE conversation_id = ?",
    "UPDATE identifier SET customer_id = ? WHERE customer_id = ?",
    "UPDATE hold SET customer_id = ? WHERE customer_id = ? AND released_at IS NULL",
    "UPDATE customer SET merged_into = ? WHERE merged_into = ?",
    "UPDATE event SET customer_id = ? WHERE customer_id = ? AND type NOT IN ('message.received', 'message.queued', 'message.updated')",
)


def _many(execute: Execute, sql: str, record: Callable[..., Row], keys: Iterable[Any]) -> list[Row]:
    return [record(*row) for row in execute(sql, (json.dumps(list(keys)),))]


def next_ids(execute: Execute) -> dict[str, int]:
    """The first free row id of every table that has one."""
    ids = dict.fromkeys(SEQUENCES, 1)
    ids.update({name: seq + 1 for name, seq in execute("SELECT name, seq FROM sqlite_sequence") if name in ids})
    for table in COUNTED:
        ids[table] = (execute(f'SELECT max(id) FROM "{table}"').fetchone()[0] or 0) + 1  # noqa: S608
    return ids


def read(execute: Execute, needs: Needs, facts: Facts) -> None:
    """Fill the facts for the needs of a batch."""
    if needs.dedupe:
        facts.dedupe.update((c, k) for c, k in execute(DEDUPE, (json.dumps(list(needs.dedupe)),)))
    found: list[Identifier] = []
    if needs.identifiers:
        found = _many(execute, IDENTIFIERS, Identifier, needs.identifiers)
    messages: list[Message] = []
    if needs.deliveries:
        for delivery in _many(execute, DELIVERIES, Delivery, needs.deliveries):
            facts.deliveries[delivery.id] = delivery
    if needs.claim:
        facts.claimable = [Delivery(*row) for row in execute(CLAIM, (facts.now, needs.claim, json.dumps(list(needs.claim_not))))]
        for delivery in facts.claimable:
            facts.deliveries[delivery.id] = delivery
    if needs.leased:
        facts.leased = [Delivery(*row) for row in execute(LEASED)]
        for delivery in facts.leased:
            facts.deliveries[delivery.id] = delivery
    replied = {d.subject_id for d in facts.deliveries.values() if d.kind == "reply"}
    wanted = needs.messages | replied
    if needs.attachments:
        for attachment in _many(execute, ATTACHMENTS, records.Attachment, needs.attachments):
            facts.attachments[attachment.id] = attachment
            wanted = wanted | {attachment.message_id}
    if wanted:
        messages += _many(execute, MESSAGES, Message, wanted)
    if needs.mail_ids:
        for message in _many(execute, BY_MAIL_ID, Message, needs.mail_ids):
            messages.append(message)
            facts.by_mail_id.setdefault(message.mail_id or "", message)
    if needs.provider_ids:
        for message in _many(execute, BY_PROVIDER_ID, Message, needs.provider_ids):
            messages.append(message)
            facts.by_provider_id[message.provider_id or ""] = message
    if needs.drafts:
        for message in _many(execute, BY_DRAFT, Message, needs.drafts):
            messages.append(message)
            facts.by_draft[message.draft_key or ""] = message
    for message in messages:
        # One object a row, however it was found: a change must not be lost to a twin.
        kept = facts.messages.setdefault(message.id, message)
        if kept is not message:
            _rebind(facts, kept)
    if needs.leases_below:
        facts.expiring = [Hold(*row) for row in execute(EXPIRING, (needs.leases_below,))]
    if needs.asleep_until:
        facts.asleep = [Ticket(*row) for row in execute(ASLEEP, (needs.asleep_until,))]
    ticket_ids = needs.tickets | {m.ticket_id for m in facts.messages.values() if m.ticket_id is not None} | {t.id for t in facts.asleep}
    if ticket_ids:
        for ticket in _many(execute, TICKETS, Ticket, ticket_ids):
            facts.tickets[ticket.id] = ticket
    customer_ids = (
        needs.customers
        | {i.customer_id for i in found if i.customer_id is not None}
        | {t.conversation_id for t in facts.tickets.values()}
        | {m.conversation_id for m in facts.messages.values()}
        | {h.customer_id for h in facts.expiring}
    )
    for identifier in found:
        _keep_identifier(facts, identifier)
    if customer_ids:
        _read_customers(execute, customer_ids, facts)
    # The rows found by need and by neighbourhood are one object each.
    facts.asleep = [facts.tickets[t.id] for t in facts.asleep]
    held = {h.id: h for holds in facts.holds_of.values() for h in holds}
    facts.expiring = [held.get(h.id, h) for h in facts.expiring]
    if needs.quarantine:
        facts.quarantine = {q.id: q for q in _many(execute, QUARANTINE, records.Quarantine, needs.quarantine)}
    for key in needs.quarantined:
        facts.quarantined[key] = deque(execute(QUARANTINED, key))
    for table, column, value in needs.rows:
        sql = _select(table, f'"{column}" = ?')
        facts.found[(table, column, value)] = [BY_TABLE[table](*row) for row in execute(sql, (value,))]


def _rebind(facts: Facts, message: Message) -> None:
    if message.mail_id in facts.by_mail_id and facts.by_mail_id[message.mail_id].id == message.id:
        facts.by_mail_id[message.mail_id] = message
    if message.provider_id in facts.by_provider_id:
        facts.by_provider_id[message.provider_id] = message
    if message.draft_key in facts.by_draft:
        facts.by_draft[message.draft_key] = message


def _keep_identifier(facts: Facts, identifier: Identifier) -> Identifier:
    kept = facts.identifiers_by_id.setdefault(identifier.id, identifier)
    key = (kept.kind, kept.site, kept.value, kept.standing)
    present = facts.identifiers.get(key)
    if present is None or present.epoch <= kept.epoch:
        facts.identifiers[key] = kept
    return kept


def _read_customers(execute: Execute, wanted: set[int], facts: Facts) -> None:
    # Ids never die: one that was joined leads on to its survivor, in one hop (joins keep the path that short).
    missing = wanted
    while missing:
        for customer in _many(execute, CUSTOMERS, records.Customer, missing):
            facts.customers[customer.id] = customer
        missing = {c.merged_into for c in facts.customers.values() if c.merged_into is not None} - facts.customers.keys()
    keys = list(facts.customers)
    for customer_id in keys:
        facts.identifiers_of[customer_id] = []
        facts.tickets_of[customer_id] = []
        facts.holds_of[customer_id] = []
    for identifier in _many(execute, IDENTIFIERS_OF, Identifier, keys):
        facts.identifiers_of[identifier.customer_id or 0].append(_keep_identifier(facts, identifier))
    spoke = [i.id for own in facts.identifiers_of.values() for i in own]
    others: set[int] = set()
    for evidence in _many(execute, EVIDENCE_OF, Evidence, spoke):
        facts.evidence_of.setdefault(evidence.identifier_id, []).append(evidence)
        if evidence.other_id is not None and evidence.other_id not in facts.identifiers_by_id:
            others.add(evidence.other_id)
    if others:
        for identifier in _many(execute, IDENTIFIERS_BY_ID, Identifier, others):
            _keep_identifier(facts, identifier)
    for ticket in _many(execute, TICKETS_OF, Ticket, keys):
        kept = facts.tickets.setdefault(ticket.id, ticket)
        facts.tickets_of[kept.conversation_id].append(kept)
    for hold in _many(execute, HOLDS_OF, Hold, keys):
        facts.holds_of[hold.customer_id].append(hold)
    if facts.tickets:
        for delivery in _many(execute, CARDS, Delivery, facts.tickets):
            kept_delivery = facts.deliveries.setdefault(delivery.id, delivery)
            facts.slots[kept_delivery.slot or ""] = kept_delivery


def write(execute: Execute, executemany: Execute, facts: Facts) -> None:
    """Write what was decided; events last, numbered in the order they were stated."""
    for table, rows in facts.inserted.items():
        executemany(INSERT[table], map(INSERT_VALUES[table], rows))
    for table, changed in facts.changed.items():
        executemany(UPDATE[table], map(UPDATE_VALUES[table], changed.values()))
    for table, column, value in facts.removed:
        execute(f'DELETE FROM "{table}" WHERE "{column}" = ?', (value,))  # noqa: S608
    for survivor, other in facts.joined:
        for statement in JOIN:
            execute(statement, (survivor, other))
    if facts.events:
        for event in facts.events:
            event.seq = facts.new_id("event")
        executemany(INSERT["event"], map(INSERT_VALUES["event"], facts.events))
