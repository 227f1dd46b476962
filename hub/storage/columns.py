"""What both engines know of every table: its columns in order, its key, and which columns an update may leave out."""

from __future__ import annotations

import re
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
    "match_key": ("key", "customer_id"),
    "message_copy": ("message_id", "value"),
    "proof": ("seq",),
    "participant": ("ticket_id", "value"),
    "bookmark": ("channel_id",),
    "mailed_answer": ("message_id",),
}
# Naming an indexed column in an UPDATE rewrites its index entry even when the value stays: leave out what never changes.
UNCHANGING: dict[str, frozenset[str]] = {
    "message": frozenset(
        {"conversation_id", "ticket_id", "text", "html", "mail_id", "draft_key", "subject", "created_at", "raw_id", "direction"}
        | {"reply_text", "quoted_id", "template", "spam"}
    ),
    "delivery": frozenset({"lane", "slot", "created_at", "kind", "target", "subject_id"}),
    "ticket": frozenset({"conversation_id", "opened_at", "brand"}),
    "identifier": frozenset({"kind", "site", "value", "standing", "first_seen"}),
    "hold": frozenset({"source", "reason", "placed_at"}),
    "mark": frozenset({"destination", "kind", "value", "site"}),
    "send_seen": frozenset({"destination", "provider_key", "kind", "value"}),
}
# Ids in these tables are a sequence: never used again, even after their row is gone.
SEQUENCES = ("customer", "ticket", "message", "delivery", "event", "hold_ledger")
COUNTED = (
    *("identifier", "evidence", "join_log", "cannot_link", "suggestion", "attribute", "opt_out"),
    *("raw_request", "quarantine", "hold", "agent", "api_token", "channel"),
    *("mark", "alarm", "campaign_seen", "send_seen", "survey", "follow_up"),
    "message_change",
)


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

_REPLIES = "delivery.lane IN (SELECT 'reply:' || CAST(?2 AS bigint) || ':' || c.id FROM channel c)"
_REPLY_LANE = (
    "UPDATE delivery SET lane = 'reply:' || CAST(?1 AS bigint) || ':' "  # noqa: S608
    "|| (SELECT c.id FROM channel c WHERE delivery.lane LIKE '%:' || c.id) "
    f"WHERE state IN ('queued','sending','unknown') AND {_REPLIES}"
)
HISTORY = "type NOT IN ('message.received', 'message.queued', 'message.updated')"

# Rows that are at work move to another customer, each found through an index. What is over (ledger, released holds, events of a
# customer) keeps the id it had, which leads on to the survivor.
_RELABEL: dict[str, tuple[str, ...]] = {
    # ?1 the survivor, ?2 the other: all that is the other's.
    "join": (
        "UPDATE message SET conversation_id = ?1 WHERE conversation_id = ?2",
        "UPDATE ticket SET conversation_id = ?1 WHERE conversation_id = ?2",
        "UPDATE identifier SET customer_id = ?1 WHERE customer_id = ?2",
        "UPDATE hold SET customer_id = ?1 WHERE customer_id = ?2 AND released_at IS NULL",
        # Answers that still wait keep their order with those to come.
        _REPLY_LANE,
    ),
    # ?1 whom it belongs to now, ?2 whom it was taken for, ?3 the home that goes: the inverse, home by home.
    "part": (
        "UPDATE identifier SET customer_id = ?1 WHERE customer_id = ?2 AND home_id = ?3",
        "UPDATE ticket SET conversation_id = ?1 WHERE conversation_id = ?2 AND home_id = ?3",
        "UPDATE hold SET customer_id = ?1 WHERE customer_id = ?2 AND home_id = ?3 AND released_at IS NULL",
        "UPDATE message SET conversation_id = ?1 WHERE conversation_id = ?2 AND NOT placed "
        "AND identifier_id IN (SELECT i.id FROM identifier i WHERE i.customer_id = ?1 AND i.home_id = ?3)",
        "UPDATE message SET conversation_id = ?1 WHERE conversation_id = ?2 AND (placed OR identifier_id IS NULL) "
        "AND ticket_id IN (SELECT t.id FROM ticket t WHERE t.conversation_id = ?1 AND t.home_id = ?3)",
        f"UPDATE event SET customer_id = ?1 WHERE customer_id = ?2 AND {HISTORY} "  # noqa: S608
        "AND ticket_id IN (SELECT t.id FROM ticket t WHERE t.conversation_id = ?1 AND t.home_id = ?3)",
        f"{_REPLY_LANE} AND EXISTS (SELECT 1 FROM message m WHERE m.id = delivery.subject_id AND m.conversation_id = ?1)",  # noqa: S608
    ),
    # ?1 a ticket, ?2 its conversation, ?3 the ticket left, ?4 the identifier whose messages move.
    "stray": ("UPDATE message SET ticket_id = ?1 WHERE conversation_id = ?2 AND ticket_id = ?3 AND identifier_id = ?4 AND NOT placed",),
    # ?1 whom an agent gave it to, ?2 whose it was, ?3 the ticket, ?4 the home it belongs to now.
    "place ticket": (
        "UPDATE message SET conversation_id = ?1, placed = TRUE WHERE conversation_id = ?2 AND ticket_id = ?3",
        "UPDATE ticket SET conversation_id = ?1, home_id = ?4 WHERE id = ?3 AND conversation_id = ?2",
        "UPDATE hold SET customer_id = ?1, home_id = ?4 WHERE customer_id = ?2 AND source = 'ticket:' || CAST(?3 AS bigint) "
        "AND released_at IS NULL",
        f"UPDATE event SET customer_id = ?1 WHERE customer_id = ?2 AND ticket_id = ?3 AND {HISTORY}",  # noqa: S608
        f"{_REPLY_LANE} AND subject_id IN (SELECT m.id FROM message m WHERE m.conversation_id = ?1 AND m.ticket_id = ?3)",  # noqa: S608
    ),
    # ?1 whom an agent gave it to, ?2 whose it was, ?3 the message, ?4 the ticket it stands on now.
    "place message": (
        "UPDATE message SET conversation_id = ?1, ticket_id = ?4, placed = TRUE WHERE id = ?3 AND conversation_id = ?2",
        f"{_REPLY_LANE} AND subject_id = ?3",
    ),
    # ?1 whose conversation it is admitted to, ?2 whose it was, ?3 the ticket left, ?4 the ticket now, ?5 the identifier admitted.
    "admit": (
        "UPDATE message SET conversation_id = ?1, ticket_id = ?4, placed = TRUE WHERE conversation_id = ?2 AND ticket_id = ?3 "
        "AND direction = 'in' AND identifier_id = ?5",
    ),
    # ?1 who proved to have said it, ?2 whose it was, ?3 the message, ?4 the ticket it stands on now.
    "prove message": ("UPDATE message SET conversation_id = ?1, ticket_id = ?4 WHERE id = ?3 AND conversation_id = ?2",),
    # ?1 who proved to have opened it, ?2 whose it was, ?3 the ticket, ?4 the home it belongs to now.
    "prove ticket": (
        "UPDATE message SET conversation_id = ?1 WHERE conversation_id = ?2 AND ticket_id = ?3",
        "UPDATE ticket SET conversation_id = ?1, home_id = ?4 WHERE id = ?3 AND conversation_id = ?2",
        "UPDATE hold SET customer_id = ?1, home_id = ?4 WHERE customer_id = ?2 AND source = 'ticket:' || CAST(?3 AS bigint) "
        "AND released_at IS NULL",
        f"UPDATE event SET customer_id = ?1 WHERE customer_id = ?2 AND ticket_id = ?3 AND {HISTORY}",  # noqa: S608
        f"{_REPLY_LANE} AND subject_id IN (SELECT m.id FROM message m WHERE m.conversation_id = ?1 AND m.ticket_id = ?3)",  # noqa: S608
    ),
    # ?1 a conversation, ?2 the ticket on it, ?3 the proven identifier, ?4 the same address as nobody had proved it: the answers to it.
    "prove answers": ("UPDATE message SET identifier_id = ?3 WHERE conversation_id = ?1 AND ticket_id = ?2 AND identifier_id = ?4",),
}
# Each with the number of arguments it takes, counted from the first.
RELABEL = {name: tuple((each, max(map(int, re.findall(r"\?(\d)", each)))) for each in statements) for name, statements in _RELABEL.items()}

# How the messages of conversations lie (`records.Spread`, after the conversation's id).
SPREAD_COLUMNS = (
    "SELECT conversation_id, ticket_id, identifier_id, placed, max(id), max(CASE WHEN direction = 'in' THEN id END) FROM message WHERE"
)
SPREAD_REST = "AND identifier_id IS NOT NULL AND ticket_id IS NOT NULL GROUP BY 1, 2, 3, 4"
