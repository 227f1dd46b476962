"""Which rows a batch needs, in which order they are asked for, and how they come together: one walk for both engines.

`look_up` yields what it wants to know and is sent the rows; an engine only answers (SQLite in its thread, PostgreSQL awaiting).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from hub.storage import records
from hub.storage.columns import BY_TABLE
from hub.storage.facts import Facts, Needs
from hub.storage.records import CannotLink, Delivery, Evidence, Hold, Identifier, JoinLog, Message, OptOut, Spread, Ticket


@dataclass(slots=True)
class Query:
    """One question: its name in the engine's table of statements, and its keys or arguments.

    `dedupe` keys are (channel, key) pairs, `identifiers` keys (kind, site, value, standing); `rows` asks `where` = (table, column)
    for the rows that hold the one key.
    """

    name: str
    keys: Collection[Any] = ()
    where: tuple[str, str] = ("", "")


Rows = Sequence[tuple[Any, ...]]
Asking = Generator[Query, Rows, None]


def look_up(needs: Needs, facts: Facts) -> Asking:
    """Fill the facts for the needs of a batch."""
    if needs.dedupe:
        rows = yield Query("dedupe", needs.dedupe)
        facts.dedupe.update((channel_id, key) for channel_id, key in rows)
    found: list[Identifier] = []
    if needs.identifiers:
        found = [Identifier(*row) for row in (yield Query("identifiers", needs.identifiers))]
    if needs.deliveries:
        for row in (yield Query("deliveries", needs.deliveries)):
            _keep_delivery(facts, Delivery(*row))
    if needs.claim:
        rows = yield Query("claim", (facts.now, needs.claim, needs.claim_not))
        facts.claimable = [_keep_delivery(facts, Delivery(*row)) for row in rows]
    if needs.leased:
        facts.leased = [_keep_delivery(facts, Delivery(*row)) for row in (yield Query("leased"))]
    wanted = needs.messages | {d.subject_id for d in facts.deliveries.values() if d.kind == "reply"}
    if needs.attachments:
        for row in (yield Query("attachments", needs.attachments)):
            attachment = records.Attachment(*row)
            facts.attachments[attachment.id] = attachment
            wanted.add(attachment.message_id)
    if wanted:
        for row in (yield Query("messages", wanted)):
            _keep_message(facts, Message(*row))
    if needs.beside:
        for row in (yield Query("beside", needs.beside)):
            _keep_message(facts, Message(*row))
    if needs.mail_ids:
        for row in (yield Query("by_mail_id", needs.mail_ids)):
            message = _keep_message(facts, Message(*row))
            facts.by_mail_id.setdefault(message.mail_id or "", message)
    if needs.provider_ids:
        for row in (yield Query("by_provider_id", needs.provider_ids)):
            message = _keep_message(facts, Message(*row))
            facts.by_provider_id[message.provider_id or ""] = message
    if needs.drafts:
        for row in (yield Query("by_draft", needs.drafts)):
            message = _keep_message(facts, Message(*row))
            facts.by_draft[message.draft_key or ""] = message
    if needs.leases_below:
        facts.expiring = [Hold(*row) for row in (yield Query("expiring", (needs.leases_below, facts.now)))]
    if needs.asleep_until:
        facts.asleep = [Ticket(*row) for row in (yield Query("asleep", (needs.asleep_until,)))]
    ticket_ids = needs.tickets | {m.ticket_id for m in facts.messages.values() if m.ticket_id is not None} | {t.id for t in facts.asleep}
    if ticket_ids:
        for row in (yield Query("tickets", ticket_ids)):
            ticket = Ticket(*row)
            facts.tickets[ticket.id] = ticket
    customer_ids = (
        needs.customers
        | needs.bonds
        | {id_ for i in found for id_ in (i.customer_id, i.home_id) if id_ is not None}
        | {t.conversation_id for t in facts.tickets.values()}
        | {m.conversation_id for m in facts.messages.values()}
        | {h.customer_id for h in facts.expiring}
    )
    last = {t.last_inbound_id for id_ in needs.newest_in if (t := facts.tickets.get(id_)) is not None and t.last_inbound_id is not None}
    if last - facts.messages.keys():
        for row in (yield Query("messages", last - facts.messages.keys())):
            _keep_message(facts, Message(*row))
    for identifier in found:
        _keep_identifier(facts, identifier)
    if customer_ids:
        yield from _customers(customer_ids, facts)
    loose = {facts.live_customer(id_).id for id_ in needs.bonds if id_ in facts.customers} | _several(needs, facts)
    if loose:
        yield from _bonds(loose, facts)
    if needs.attributes:
        homes = {home for i in facts.identifiers_by_id.values() if (home := i.home_id or i.customer_id) is not None}
        if homes:
            for row in (yield Query("attributes_of", homes)):
                attribute = records.Attribute(*row)
                facts.attributes_of.setdefault(attribute.customer_id, []).append(attribute)
        if homes - facts.customers.keys():  # joined into another one since
            for row in (yield Query("customers", homes - facts.customers.keys())):
                facts.customers[row[0]] = records.Customer(*row)
                for own in (facts.identifiers_of, facts.tickets_of, facts.holds_of):
                    own.setdefault(row[0], [])
    asked = set(needs.opt_outs)
    if needs.ways_out:
        asked |= {(i.kind, i.value) for own in facts.identifiers_of.values() for i in own}
    if asked:
        for row in (yield Query("opt_outs", {value for _, value in asked})):
            opt_out = OptOut(*row)
            facts.opt_outs.setdefault((opt_out.kind, opt_out.value), []).append(opt_out)
    if needs.ways_out and facts.customers and any(rule.window for rule in facts.policy.channels.values()):
        for channel_id, identifier_id, at in (yield Query("heard", list(facts.customers))):
            facts.heard[(channel_id, identifier_id)] = max(at, facts.heard.get((channel_id, identifier_id), 0))
    # The rows found by need and by neighbourhood are one object each.
    facts.asleep = [facts.tickets[t.id] for t in facts.asleep]
    held = {h.id: h for holds in facts.holds_of.values() for h in holds}
    facts.expiring = [held.get(h.id, h) for h in facts.expiring]
    if needs.quarantine:
        facts.quarantine = {row[0]: records.Quarantine(*row) for row in (yield Query("quarantine", needs.quarantine))}
    for key in needs.quarantined:
        facts.quarantined[key] = deque((id_, at) for id_, at in (yield Query("quarantined", key)))
    # One object a row here too, by whichever column it was asked for.
    one: dict[tuple[Any, ...], Any] = {}
    for table, column, value in needs.rows:
        rows = yield Query("rows", (value,), (table, column))
        facts.found[(table, column, value)] = [one.setdefault((table, *row), BY_TABLE[table](*row)) for row in rows]


def _customers(wanted: set[int], facts: Facts) -> Asking:
    # Ids never die: one that was joined leads on to its survivor, in one hop (joins keep the path that short).
    missing = wanted
    while missing:
        for row in (yield Query("customers", missing)):
            customer = records.Customer(*row)
            facts.customers[customer.id] = customer
        missing = {c.merged_into for c in facts.customers.values() if c.merged_into is not None} - facts.customers.keys()
    keys = list(facts.customers)
    for customer_id in keys:
        facts.identifiers_of[customer_id] = []
        facts.tickets_of[customer_id] = []
        facts.holds_of[customer_id] = []
    for row in (yield Query("identifiers_of", keys)):
        identifier = _keep_identifier(facts, Identifier(*row))
        facts.identifiers_of[identifier.customer_id or 0].append(identifier)
    others: set[int] = set()
    for row in (yield Query("evidence_of", [i.id for own in facts.identifiers_of.values() for i in own])):
        evidence = Evidence(*row)
        facts.evidence_of.setdefault(evidence.identifier_id, []).append(evidence)
        if evidence.other_id is not None and evidence.other_id not in facts.identifiers_by_id:
            others.add(evidence.other_id)
    if others:
        for row in (yield Query("identifiers_by_id", others)):
            _keep_identifier(facts, Identifier(*row))
    for row in (yield Query("tickets_of", keys)):
        ticket = Ticket(*row)
        ticket = facts.tickets.setdefault(ticket.id, ticket)
        facts.tickets_of[ticket.conversation_id].append(ticket)
    for row in (yield Query("holds_of", keys)):
        hold = Hold(*row)
        facts.holds_of[hold.customer_id].append(hold)
    if facts.tickets:
        for row in (yield Query("cards", list(facts.tickets))):
            delivery = _keep_delivery(facts, Delivery(*row))
            facts.slots[delivery.slot or ""] = delivery


def _several(needs: Needs, facts: Facts) -> set[int]:
    """The customers who own what is said to be one person's, where that is not one of them and nobody else."""
    found: set[int] = set()
    for keys in needs.together:
        own = [facts.identifiers.get(key) for key in keys]
        # Whoever brings a value that passed on is somebody else than who had it.
        owners = {i.customer_id if i is not None and i.ended_at is None else None for i in own}
        if len(owners) > 1:
            found |= {owner for owner in owners if owner is not None}
    return found


def _bonds(live: set[int], facts: Facts) -> Asking:
    for customer_id in live:
        facts.homes_of[customer_id] = {customer_id}
        facts.ties_of[customer_id], facts.cannot_of[customer_id], facts.spread_of[customer_id] = [], [], []
    for row in (yield Query("homes", live)):
        customer = facts.customers.setdefault(row[0], records.Customer(*row))
        facts.homes_of[customer.merged_into or 0].add(customer.id)
        for rows in (facts.identifiers_of, facts.tickets_of, facts.holds_of):
            rows.setdefault(customer.id, [])
    owner = {home: customer_id for customer_id in live for home in facts.homes_of[customer_id]}
    for row in (yield Query("ties", list(owner))):
        tie = JoinLog(*row)
        for customer_id in {owner[home] for home in (tie.left_id, tie.right_id) if home in owner}:
            facts.ties_of[customer_id].append(tie)
    for row in (yield Query("cannot_links", list(owner))):
        cannot = CannotLink(*row)
        for customer_id in {owner[home] for home in (cannot.left_id, cannot.right_id) if home in owner}:
            facts.cannot_of[customer_id].append(cannot)
    tickets: set[int] = set()
    messages: set[int] = set()
    for row in (yield Query("spread", live)):
        spread = Spread(*row[1:])
        facts.spread_of[row[0]].append(spread)
        tickets.add(spread.ticket_id)
        messages |= {spread.last_id} | ({spread.last_in_id} if spread.last_in_id is not None else set())
    if tickets - facts.tickets.keys():
        for row in (yield Query("tickets", tickets - facts.tickets.keys())):
            facts.tickets[row[0]] = Ticket(*row)
    if messages - facts.messages.keys():
        for row in (yield Query("messages", messages - facts.messages.keys())):
            _keep_message(facts, Message(*row))


# One object a row, however it was found: a change must not be lost to a twin.


def _keep_delivery(facts: Facts, delivery: Delivery) -> Delivery:
    return facts.deliveries.setdefault(delivery.id, delivery)


def _keep_message(facts: Facts, message: Message) -> Message:
    return facts.messages.setdefault(message.id, message)


def _keep_identifier(facts: Facts, identifier: Identifier) -> Identifier:
    kept = facts.identifiers_by_id.setdefault(identifier.id, identifier)
    key = (kept.kind, kept.site, kept.value, kept.standing)
    present = facts.identifiers.get(key)
    if present is None or present.epoch <= kept.epoch:
        facts.identifiers[key] = kept
    return kept
