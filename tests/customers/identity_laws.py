"""What must be so of who is who, whoever did what in which order: read from the database alone, on either engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Ask = Callable[[str], Sequence[Any]]

# Each is a query that finds the offenders.
LAWS = {
    "what was joined leads on in one hop, to the oldest": (
        "SELECT c.id FROM customer c JOIN customer s ON s.id = c.merged_into WHERE s.merged_into IS NOT NULL OR s.id > c.id"
    ),
    "an identifier is with the live customer of its home": (
        "SELECT i.id FROM identifier i LEFT JOIN customer h ON h.id = i.home_id "
        "WHERE coalesce(i.customer_id, 0) <> coalesce(h.merged_into, h.id, 0)"
    ),
    "a ticket is with the live customer of its home": (
        "SELECT t.id FROM ticket t LEFT JOIN customer h ON h.id = t.home_id WHERE t.conversation_id <> coalesce(h.merged_into, h.id, 0)"
    ),
    "a hold is with the live customer of its home, and has its ticket's": (
        "SELECT d.id FROM hold d LEFT JOIN customer h ON h.id = d.home_id LEFT JOIN ticket t ON d.source = 'ticket:' || t.id "
        "WHERE d.released_at IS NULL AND (d.customer_id <> coalesce(h.merged_into, h.id, 0) OR coalesce(t.home_id, 0) <> d.home_id)"
    ),
    "a message is with whoever its identifier belongs to, unless an agent gave it to somebody": (
        "SELECT m.id FROM message m JOIN identifier i ON i.id = m.identifier_id WHERE NOT m.placed "
        "AND m.conversation_id <> coalesce(i.customer_id, 0)"
    ),
    "a message stands in the conversation of its ticket": (
        "SELECT m.id FROM message m LEFT JOIN ticket t ON t.id = m.ticket_id WHERE coalesce(t.conversation_id, 0) <> m.conversation_id"
    ),
    "a customer is held by each unresolved ticket, and by no other": (
        "SELECT t.id, d.id FROM ticket t LEFT JOIN hold d ON d.source = 'ticket:' || t.id AND d.released_at IS NULL "
        "AND d.customer_id = t.conversation_id WHERE (t.status <> 'resolved') <> (d.id IS NOT NULL)"
    ),
    "one hold a ticket": "SELECT source FROM hold WHERE released_at IS NULL GROUP BY source HAVING count(*) > 1",
    "an identifier has one holder at a time": (
        "SELECT value FROM identifier WHERE ended_at IS NULL GROUP BY kind, site, value, standing HAVING count(*) > 1"
    ),
    "what waits to be sent keeps its turn in its message's conversation": (
        "SELECT d.id FROM delivery d JOIN message m ON m.id = d.subject_id WHERE d.kind = 'reply' AND d.state <> 'done' "
        "AND d.lane <> 'reply:' || m.conversation_id || ':' || m.channel_id"
    ),
    "what a ticket tells of the customer's last message is so": (
        "SELECT t.id FROM ticket t WHERE coalesce(t.last_inbound_id, 0) <> "
        "coalesce((SELECT max(m.id) FROM message m WHERE m.ticket_id = t.id AND m.direction = 'in'), 0)"
    ),
}


def check(ask: Ask) -> None:
    """Every law. Raises AssertionError with the law that is broken and who breaks it."""
    for law, query in LAWS.items():
        found = [tuple(row) for row in ask(query)]
        assert not found, f"{law}: {found}"
    check_components(ask)
    check_told(ask)


def check_components(ask: Ask) -> None:
    """The homes that ties connect are one customer, and no others are: walked here from the log alone."""
    rows = ask("SELECT id, left_id, right_id, undoes FROM join_log")
    undone = {row[3] for row in rows if row[3] is not None}
    ties = [(row[1], row[2]) for row in rows if row[3] is None and row[0] not in undone]
    beside: dict[int, set[int]] = {}
    for left, right in ties:
        beside.setdefault(left, set()).add(right)
        beside.setdefault(right, set()).add(left)
    merged = {row[0]: row[1] for row in ask("SELECT id, merged_into FROM customer")}
    seen: set[int] = set()
    for home in sorted(merged):
        if home in seen:
            continue
        reached, left_to_walk = {home}, [home]
        while left_to_walk:
            new = beside.get(left_to_walk.pop(), set()) - reached
            reached |= new
            left_to_walk += new
        seen |= reached
        wrong = {one: merged[one] for one in reached if merged[one] != (None if one == home else home)}
        assert not wrong, f"homes {sorted(reached)} are one customer, and of them lead elsewhere: {wrong}"


def check_told(ask: Ask) -> None:
    """Of each customer destinations are told growing versions, and the last one says how it stands."""
    last: dict[int, tuple[int, bool]] = {}
    for customer, type_, data in ask("SELECT customer_id, type, data FROM event WHERE type LIKE 'hold.%' ORDER BY seq"):
        version = json.loads(data)["version"]
        assert version > last.get(customer, (0, False))[0], f"customer {customer} was told version {version} after {last[customer]}"
        last[customer] = (version, type_ != "hold.released")
    kept = {row[0] for row in ask("SELECT DISTINCT customer_id FROM hold WHERE released_at IS NULL")}
    # A lease that ran out before the last event holds nobody, though its row waits for the renewal: of such tools may believe either.
    running = "SELECT DISTINCT customer_id FROM hold WHERE released_at IS NULL AND lease_until > (SELECT max(at) FROM event)"
    held = {row[0] for row in ask(running)}
    for customer in kept | last.keys():
        believed = last.get(customer, (0, False))[1]
        assert believed or customer not in held, f"customer {customer} is held, and tools believe {last.get(customer)}"
        assert not believed or customer in kept, f"customer {customer} is not held, and tools believe {last[customer]}"
