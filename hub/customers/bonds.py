"""Making two customers one, and two of one again: the doing, over the facts of a batch.

Nothing is destroyed by a join: identifiers, tickets and holds keep their home, messages their identifier. What is live is derived from
the ties that no later row undid, so taking one away gives back what was, and sends what came since where its own evidence says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hub.customers import joining
from hub.storage.facts import Facts
from hub.storage.records import CannotLink, Customer, Evidence, Identifier, JoinLog, Message, Spread, Suggestion, Ticket


def home_of(identifier: Identifier) -> int:
    """The node an identifier belongs to; its owner's, where the row is older than homes."""
    return identifier.home_id or identifier.customer_id or 0


def tie(
    facts: Facts,
    left: int,
    right: int,
    *,
    op: str,
    rule: str,
    actor: str,
    evidence: Iterable[Evidence] = (),
    by: tuple[int | None, int | None] = (None, None),
) -> JoinLog:
    """Append a tie between two homes; whoever owns them is not changed by it."""
    ids = json.dumps([e.id for e in evidence])
    row = JoinLog(facts.new_id("join_log"), op, left, right, ids, rule, actor, facts.now, None, *by)
    facts.insert(row)
    _remember(facts, row)
    return row


def undo(facts: Facts, row: JoinLog, *, op: str, rule: str, actor: str) -> JoinLog:
    """Append the end of a tie."""
    end = JoinLog(
        facts.new_id("join_log"),
        op,
        row.left_id,
        row.right_id,
        "[]",
        rule,
        actor,
        facts.now,
        row.id,
        row.left_identifier,
        row.right_identifier,
    )
    facts.insert(end)
    _remember(facts, end)
    return end


def _remember(facts: Facts, row: JoinLog) -> None:
    for customer_id in {facts.live_customer(home).id for home in (row.left_id, row.right_id) if home in facts.customers}:
        if customer_id in facts.ties_of:  # else they were not read, and these would not be all
            facts.ties_of[customer_id].append(row)


def join(facts: Facts, left: Customer, right: Customer, *, rule: str, actor: str, join_id: int, agent_id: int | None = None) -> Customer:
    """Make two live customers one: the older id survives, the other leads on to it for as long as they are tied."""
    survivor, other = (left, right) if left.id < right.id else (right, left)
    facts.relabel("join", survivor.id, other.id)
    for identifier in facts.identifiers_of.pop(other.id, []):
        identifier.customer_id = survivor.id
        facts.identifiers_of.setdefault(survivor.id, []).append(identifier)
    for ticket in facts.tickets.values():
        if ticket.conversation_id == other.id:
            ticket.conversation_id = survivor.id
    facts.tickets_of.setdefault(survivor.id, []).extend(facts.tickets_of.pop(other.id, []))
    for hold in facts.holds_of.pop(other.id, []):
        if hold.released_at is None:  # what is over keeps the id it had
            hold.customer_id = survivor.id
        facts.holds_of.setdefault(survivor.id, []).append(hold)
    for message in facts.messages.values():
        if message.conversation_id == other.id:
            message.conversation_id = survivor.id
    facts.homes_of[survivor.id] |= facts.homes_of.pop(other.id)
    for rows in (facts.ties_of, facts.cannot_of, facts.spread_of):
        _unite(rows, survivor.id, other.id)
    facts.identifiers_of[other.id], facts.tickets_of[other.id], facts.holds_of[other.id] = [], [], []
    # A path of joins is kept one hop long.
    for customer in facts.customers.values():
        if customer is other or customer.merged_into == other.id:
            customer.merged_into = survivor.id
            facts.change(customer)
    survivor.name = survivor.name or other.name
    # Versions only ever grow for each identifier, whichever customer it came from.
    survivor.hold_version = max(survivor.hold_version, other.hold_version)
    facts.change(survivor)
    facts.emit(
        "customer.merged",
        customer_id=survivor.id,
        agent_id=agent_id,
        data=json.dumps({"other": other.id, "rule": rule, "actor": actor, "join": join_id}),
    )
    return survivor


def _unite(rows: dict[int, list[Any]], survivor: int, other: int) -> None:
    known = {id(row) for row in rows[survivor]}  # what ties the two stands with both
    rows[survivor] += [row for row in rows.pop(other) if id(row) not in known]


def part(facts: Facts, customer: Customer, *, event: str, actor: str, agent_id: int | None = None) -> list[Customer]:
    """Derive a live customer's components anew from its ties: whoever they are now, the one that keeps the id first.

    Needs its bonds. Messages follow their identifiers, tickets and holds their homes; a message on a ticket of the other side moves
    to one of its own side.
    """
    homes = facts.homes_of[customer.id]
    ties = facts.ties_of[customer.id]
    sides = joining.components(homes, joining.live(ties))
    if len(sides) == 1:
        return [customer]
    side_of = {home: min(side) for side in sides for home in side}
    live = {min(side): facts.customers[min(side)] for side in sides}
    spread = facts.spread_of.get(customer.id, [])
    version = max(facts.customers[home].hold_version for home in homes)
    for one in live.values():
        one.merged_into = None
        # Higher than anything a tool was told of either: they are told both anew.
        one.hold_version = version
        # What its homes were told, the oldest first.
        names = (facts.customers[home].own_name for home in sorted(homes) if side_of[home] == one.id)
        one.name = next(filter(None, names), "")
    for home in sorted(homes):
        node = facts.customers[home]
        if home not in live:
            node.merged_into = side_of[home]
        facts.change(node)
        if side_of[home] != customer.id:
            facts.relabel("part", side_of[home], customer.id, home)
    _part_rows(facts, customer, side_of, live)
    for one in live.values():
        facts.homes_of[one.id] = {home for home in homes if side_of[home] == one.id}
        facts.ties_of[one.id] = [row for row in ties if side_of.get(row.left_id) == one.id or side_of.get(row.right_id) == one.id]
    cannot = facts.cannot_of.get(customer.id, [])
    for one in live.values():
        own = facts.homes_of[one.id]
        facts.cannot_of[one.id] = [row for row in cannot if row.left_id in own or row.right_id in own]
        facts.spread_of[one.id] = []
    _gather_strays(facts, customer, side_of, live, spread)
    for one in live.values():
        if one is not customer:
            told = {"other": one.id, "actor": actor}
            facts.emit(event, customer_id=customer.id, agent_id=agent_id, data=json.dumps(told))
    return [customer, *(one for one in live.values() if one is not customer)]


def _part_rows(facts: Facts, customer: Customer, side_of: dict[int, int], live: dict[int, Customer]) -> None:
    """Give the rows that were read to the side their home is on, as `part` does to those that were not."""

    def side(home: int | None) -> int:
        return side_of.get(home or customer.id, customer.id)

    own = facts.identifiers_of.pop(customer.id, [])
    holds = facts.holds_of.pop(customer.id, [])
    for customer_id in live:
        facts.identifiers_of[customer_id], facts.tickets_of[customer_id], facts.holds_of[customer_id] = [], [], []
    for identifier in own:
        identifier.customer_id = side(identifier.home_id)
        facts.identifiers_of[identifier.customer_id].append(identifier)
    for ticket in facts.tickets.values():
        if ticket.conversation_id == customer.id:
            ticket.conversation_id = side(ticket.home_id)
            facts.tickets_of[ticket.conversation_id].append(ticket)
    for hold in holds:
        if hold.released_at is None:
            hold.customer_id = side(hold.home_id)
        facts.holds_of[hold.customer_id].append(hold)
    for message in facts.messages.values():
        if message.conversation_id != customer.id:
            continue
        spoke = facts.identifiers_by_id.get(message.identifier_id or 0)
        follows = facts.tickets.get(message.ticket_id or 0)
        if spoke is not None and not message.placed and spoke.customer_id in live:
            message.conversation_id = spoke.customer_id
        elif follows is not None:
            message.conversation_id = follows.conversation_id


def _gather_strays(facts: Facts, customer: Customer, side_of: dict[int, int], live: dict[int, Customer], spread: list[Spread]) -> None:
    """Messages that stand on a ticket of the other side move to the ticket of their own side they would have come to, or to a new one."""
    gathered: dict[tuple[int, int], Ticket] = {}  # (ticket left, side) -> ticket taken
    left: dict[int, list[int]] = {}  # ticket left -> newest messages that stay
    taken: dict[int, list[int]] = {}
    for entry in sorted(spread, key=lambda one: one.last_id):
        identifier = facts.identifiers_by_id.get(entry.identifier_id)
        ticket = facts.tickets.get(entry.ticket_id)
        if ticket is None:
            continue
        left.setdefault(ticket.id, [])
        side = ticket.conversation_id if entry.placed or identifier is None else identifier.customer_id
        if identifier is None or side is None or side not in live or ticket.conversation_id == side:
            left[ticket.id] += _ids(entry)
        else:
            key = (ticket.id, side)
            if key not in gathered:
                gathered[key] = _own_ticket(facts, ticket, identifier, side, entry)
            target = gathered[key]
            facts.relabel("stray", target.id, side, ticket.id, identifier.id)
            for message in facts.messages.values():
                if (message.ticket_id, message.identifier_id, message.placed) == (ticket.id, identifier.id, False):
                    message.ticket_id = target.id
            taken.setdefault(target.id, []).extend(_ids(entry))
            entry.ticket_id = target.id
        facts.spread_of[facts.tickets[entry.ticket_id].conversation_id].append(entry)
    # A ticket may lose messages and get others.
    lost = {ticket_id for ticket_id, _ in gathered}
    for ticket_id in sorted(lost | taken.keys()):
        _retell(facts, facts.tickets[ticket_id], left.get(ticket_id, []) + taken.get(ticket_id, []), whole=ticket_id in lost)


def _ids(entry: Spread) -> list[int]:
    return [entry.last_id] + ([entry.last_in_id] if entry.last_in_id is not None else [])


def _own_ticket(facts: Facts, ticket: Ticket, identifier: Identifier, side: int, entry: Spread) -> Ticket:
    """A ticket of this side for messages that came to a ticket of the other one."""
    own = [t for t in facts.tickets_of.get(side, ()) if t.status != "resolved"]
    if own:
        return max(own, key=lambda t: (t.last_at, t.id))
    first = facts.messages.get(entry.last_in_id or entry.last_id)
    made = Ticket(
        id=facts.new_id("ticket"),
        conversation_id=side,
        # Whoever waited for an answer there waits for it here.
        status="resolved" if ticket.status == "resolved" else "open",
        subject=first.subject if first is not None else "",  # not the other's
        brand=ticket.brand,
        channel_id=(first.channel_id if first is not None and first.channel_id is not None else ticket.channel_id),
        identifier_id=identifier.id,
        opened_at=facts.now,
        last_at=facts.now,
        preview="",
        resolved_at=facts.now if ticket.status == "resolved" else None,
        home_id=home_of(identifier),
    )
    facts.add_ticket(made)
    if made.status == "open":
        made.waiting_since = facts.now if entry.last_in_id == entry.last_id else None
        facts.emit("ticket.opened", customer_id=side, ticket_id=made.id)
    return made


def _retell(facts: Facts, ticket: Ticket, ids: list[int], whole: bool = False) -> None:
    """What a ticket's row tells of its last messages, after messages went or came. `whole`: these are all there are."""
    messages = [facts.messages[id_] for id_ in ids if id_ in facts.messages]
    said: list[Message] = [m for m in messages if m.direction == "in"]
    if said and (whole or max(m.id for m in said) > (ticket.last_inbound_id or 0)):
        newest = max(said, key=lambda m: m.id)
        ticket.last_inbound_id = newest.id
        if newest.channel_id is not None and newest.identifier_id is not None:
            ticket.channel_id, ticket.identifier_id = newest.channel_id, newest.identifier_id
    elif whole and not said:
        ticket.last_inbound_id = None
    if messages:
        newest = max(messages, key=lambda m: m.id)
        if whole or newest.created_at >= ticket.last_at or not ticket.preview:
            ticket.last_at = newest.created_at
            ticket.preview = line(newest.text or newest.subject)
    elif whole:
        ticket.preview = ""
    ticket.version += 1
    facts.change(ticket)
    facts.emit("ticket.updated", customer_id=ticket.conversation_id, ticket_id=ticket.id)


def line(text: str, longest: int = 140) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def share(facts: Facts, identifier: Identifier) -> Customer:
    """An identifier turned out to be two people's: cut every tie it made, and give it a home of its own. Its customer from now on."""
    identifier.shared_at = facts.now
    facts.change(identifier)
    return set_apart(facts, identifier, op="share", rule="proved by two people", actor="hub", event="customer.split")


def set_apart(facts: Facts, identifier: Identifier, *, op: str, rule: str, actor: str, event: str, agent_id: int | None = None) -> Customer:
    """Cut the ties an identifier made and give it a home of its own, its messages with it; the customer it is now. Needs its bonds."""
    owner = facts.live_customer(identifier.customer_id or 0)
    for row in joining.live(facts.ties_of[owner.id]):
        if identifier.id in (row.left_identifier, row.right_identifier):
            undo(facts, row, op=op, rule=rule, actor=actor)
    own = home_of(identifier)
    shares_home = any(other is not identifier and home_of(other) == own for other in facts.identifiers_of[owner.id])
    if shares_home and not any(entry.identifier_id == identifier.id and not entry.placed for entry in facts.spread_of[owner.id]):
        # Nothing ever came by it: it is nobody's until something does.
        identifier.home_id = identifier.customer_id = None
        facts.identifiers_of[owner.id].remove(identifier)
        facts.change(identifier)
        part(facts, owner, event=event, actor=actor, agent_id=agent_id)
        return owner
    if shares_home:
        node = Customer(facts.new_id("customer"), "", facts.now, own_name=_last_name(facts, identifier, owner))
        facts.add_customer(node)
        node.merged_into = owner.id  # until the components are derived anew
        facts.homes_of.pop(node.id, None)
        facts.homes_of[owner.id].add(node.id)
        identifier.home_id = node.id
        facts.change(identifier)
        _take_tickets(facts, identifier, owner, own, node.id)
    part(facts, owner, event=event, actor=actor, agent_id=agent_id)
    return facts.customers[identifier.customer_id or 0]


def _last_name(facts: Facts, identifier: Identifier, owner: Customer) -> str:
    """The name that the last messages by an identifier bore: what its home was told may be another's."""
    last = [entry.last_in_id or 0 for entry in facts.spread_of[owner.id] if entry.identifier_id == identifier.id]
    said = (facts.messages[id_].sender_name for id_ in sorted(last, reverse=True) if id_ in facts.messages)
    return next(filter(None, said), "")


def _take_tickets(facts: Facts, identifier: Identifier, owner: Customer, home: int, node: int) -> None:
    """The tickets of a home on which nothing came but by this identifier go with it, and what they hold."""
    spread = facts.spread_of[owner.id]
    others = {entry.ticket_id for entry in spread if entry.identifier_id != identifier.id or entry.placed}
    for ticket_id in {entry.ticket_id for entry in spread} - others:
        ticket = facts.tickets.get(ticket_id)
        if ticket is None or ticket.home_id != home:
            continue
        ticket.home_id = node
        facts.change(ticket)
        for hold in facts.holds_of[owner.id]:
            if hold.source == f"ticket:{ticket_id}" and hold.released_at is None:
                hold.home_id = node
                facts.change(hold)


def forbid(facts: Facts, left: int, right: int, actor: str) -> CannotLink:
    """Note that two homes are two people's."""
    row = CannotLink(facts.new_id("cannot_link"), left, right, actor, facts.now)
    facts.insert(row)
    for customer_id in {facts.live_customer(home).id for home in (left, right) if home in facts.customers}:
        if customer_id in facts.cannot_of:
            facts.cannot_of[customer_id].append(row)
    return row


def suggest(facts: Facts, left: int, right: int, *, rule: str, score: int, reason: str) -> None:
    """Note that two homes may be one person's, for an agent to judge; joins nothing."""
    facts.insert(Suggestion(facts.new_id("suggestion"), min(left, right), max(left, right), rule, score, reason, facts.now))
    facts.emit("suggestion.added", customer_id=left, data=json.dumps({"other": right}))
