"""What both engines know of every table: its columns in order, its key, and which columns an update may leave out."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter

from hub.storage.records import RECORDS

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
# Ids in these tables are a sequence: never used again, even after their row is gone.
SEQUENCES = ("customer", "ticket", "message", "delivery", "event", "hold_ledger")
COUNTED = ("identifier", "evidence", "join_log", "raw_request", "quarantine", "hold", "agent", "api_token", "channel")


def key_of(table: str) -> tuple[str, ...]:
    """The columns that name a row."""
    return KEYS.get(table, ("id",))


def listed(table: str, alias: str = "") -> str:
    """The columns of a table for a SELECT or INSERT, in the order of its record."""
    prefix = f"{alias}." if alias else ""
    return ", ".join(f'{prefix}"{name}"' for name in COLUMNS[table])


MUTABLE = {
    table: tuple(n for n in names if n not in key_of(table) and n not in UNCHANGING.get(table, frozenset()))
    for table, names in COLUMNS.items()
}
INSERT_VALUES = {table: attrgetter(*names) for table, names in COLUMNS.items()}
UPDATE_VALUES = {table: attrgetter(*(MUTABLE[table] + key_of(table))) for table in COLUMNS if len(MUTABLE[table] + key_of(table)) > 1}

# What a join relabels, by (survivor, other). Only rows that are still at work move, each through an index; what is over keeps
# the id it had, which leads on.
JOIN = (
    "UPDATE message SET conversation_id = ? WHERE conversation_id = ?",
    "UPDATE ticket SET conversation_id = ? WHERE conversation_id = ?",
    "UPDATE identifier SET customer_id = ? WHERE customer_id = ?",
    "UPDATE hold SET customer_id = ? WHERE customer_id = ? AND released_at IS NULL",
    "UPDATE customer SET merged_into = ? WHERE merged_into = ?",
    # Answers that still wait keep their order with those to come.
    "UPDATE delivery SET lane = 'reply:' || CAST(? AS bigint) || ':' || (SELECT c.id FROM channel c WHERE delivery.lane LIKE '%:' || c.id) "
    "WHERE state IN ('queued','sending','unknown') AND lane IN (SELECT 'reply:' || a.other || ':' || c.id FROM channel c "
    "CROSS JOIN (SELECT CAST(? AS bigint) AS other) a)",
    "UPDATE event SET customer_id = ? WHERE customer_id = ? AND type NOT IN ('message.received', 'message.queued', 'message.updated')",
)
