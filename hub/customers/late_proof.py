"""A sender proved after the fact: a message came in unproven, and its own signature turned out to hold.

The one message becomes that of the address somebody proved, and stands where it would have stood, had it been proved when it came.
Whatever else came from the address without proof stays apart: the proof is of this message, not of the address (law 6).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, func, select

from hub.contract import Checked, TryLater
from hub.conversations import tickets
from hub.customers import bonds, joining
from hub.customers.bonds import home_of
from hub.customers.resolution import ASSERTED, PROVEN, Known, need, resolve, weigh
from hub.policy import Policy
from hub.storage.facts import Facts, Needs
from hub.storage.reader import Reader
from hub.storage.records import Customer, Evidence, Identifier, Message, Ticket
from hub.storage.tables import metadata
from hub.storage.writer import Writer

_message = metadata.tables["message"]
_beside = _message.alias("beside")
_ID: BindParameter[Any] = bindparam("id")
# Where a message stands, and what else stands on its ticket: found through the index of its conversation.
STANDS = (
    select(
        _message.c.conversation_id,
        _message.c.ticket_id,
        func.count(_beside.c.id).label("beside"),
        func.count(_beside.c.id).filter(_beside.c.direction == "in").label("said"),
        func.max(_beside.c.id).label("newest_id"),
    )
    .select_from(
        _message.outerjoin(
            _beside,
            and_(
                _beside.c.conversation_id == _message.c.conversation_id,
                _beside.c.ticket_id == _message.c.ticket_id,
                _beside.c.id != _message.c.id,
            ),
        )
    )
    .where(_message.c.id == _ID, _message.c.ticket_id.is_not(None))
    .group_by(_message.c.conversation_id, _message.c.ticket_id)
)
VERSION = select(metadata.tables["ticket"].c.version).where(metadata.tables["ticket"].c.id == _ID)

TRIES = 5  # to catch a message that moves between being read and being changed

TokenNames = Callable[[str], tuple[int, int] | None]


async def prove_sender(message_id: int, checked: Checked, reader: Reader, writer: Writer, policy: Policy, token_names: TokenNames) -> None:
    """Make a message its proven sender's. Done again, it changes nothing. Raises TryLater or StorageBusy."""
    said = checked.said
    if checked.proved is None:
        return
    known = weigh((checked.proved, *said.claims[1:]), True, policy.region)
    token = token_names(said.reply_token) if said.reply_token else None
    quoted = tuple(mail_id for mail_id in (said.in_reply_to, *reversed(said.references[-10:])) if mail_id)
    for _ in range(TRIES):
        # The ticket's version first: what changes after it makes the rest old, and is noticed.
        ticket_id = await reader.value(select(_message.c.ticket_id).where(_message.c.id == _ID), {"id": message_id})
        version = await reader.value(VERSION, {"id": ticket_id})
        row = await reader.first(STANDS, {"id": message_id})
        if row is None or version is None:
            return
        stands = Stands(row.conversation_id, row.ticket_id, version, row.beside, row.said, row.newest_id)
        work = ProveSender(message_id, stands, known, said.sender_name, checked.source, token[0] if token else None, quoted)
        if await writer.run(work):
            return
    raise TryLater("The message was moved while its sender was being proved.", retry_after=1)


@dataclass(frozen=True, slots=True)
class Stands:
    """Where a message was read to stand: on which version of its ticket, and how many others beside it, `said` of them by customers."""

    customer_id: int
    ticket_id: int
    version: int
    beside: int
    said: int
    newest_id: int | None  # of those beside it


@dataclass(frozen=True, slots=True)
class ProveSender:
    """One message's sender is proved. `answers` is the ticket that its reply token names, `quoted` are the mails it answers, the
    nearest first."""

    message_id: int
    stands: Stands
    known: tuple[Known, ...]
    name: str
    source: str
    answers: int | None = None
    quoted: tuple[str, ...] = ()

    def needs(self, needs: Needs) -> None:
        need(self.known, needs)
        own = self.known[0]
        needs.identifiers.add((own.kind, own.site, own.value, ASSERTED))  # who spoke: with whom the message lies may be another
        needs.messages |= {id_ for id_ in (self.message_id, self.stands.newest_id) if id_ is not None}
        needs.bonds.add(self.stands.customer_id)
        needs.rows |= {("suggestion", side, self.stands.customer_id) for side in ("left_id", "right_id")}
        if self.answers is not None:
            needs.tickets.add(self.answers)
        needs.mail_ids.update(self.quoted)

    def decide(self, facts: Facts) -> bool:
        """False where the message has moved since it was read: read it again."""
        message = facts.messages.get(self.message_id)
        if message is None or message.direction != "in":
            return True
        spoke = facts.identifiers_by_id.get(message.identifier_id or 0)
        if spoke is None or spoke.standing != ASSERTED or self.known[0].standing != PROVEN:
            return True  # proved already, by whatever way
        before = facts.live_customer(message.conversation_id)
        left = facts.tickets.get(message.ticket_id or 0)
        if left is None or (left.id, left.version) != (self.stands.ticket_id, self.stands.version) or before.id not in facts.homes_of:
            return False
        alone = self.stands.said == 0
        fresh = not message.placed and alone and self._is_all(before, spoke, left, facts)
        sender = resolve(self.known, self.name, self.source, facts, unless_known=before if fresh else None)
        customer, proven = sender.customer, sender.identifier
        self._note(proven, facts)
        message.identifier_id, message.proof = proven.id, self.known[0].proof
        facts.change(message)
        if customer is before:
            if fresh:
                _let_go(spoke, before, facts)
            if alone:
                _hand_over(left, message, spoke, proven, facts)
        elif not message.placed:  # else an agent gave it to whom it is with, and it stays
            self._move(message, left, before, spoke, customer, proven, facts)
            self._forget_hints(before, customer, proven, facts)
        facts.emit("message.updated", customer_id=message.conversation_id, ticket_id=message.ticket_id, message_id=message.id)
        return True

    @staticmethod
    def _is_all(before: Customer, spoke: Identifier, left: Ticket, facts: Facts) -> bool:
        """Whether this is all we know of a customer: then they are whom it proves, and nobody is left over."""
        return (
            facts.homes_of[before.id] == {before.id}
            and not joining.live(facts.ties_of[before.id])
            and facts.identifiers_of[before.id] == [spoke]
            and {entry.ticket_id for entry in facts.spread_of[before.id]} <= {left.id}
            and all(ticket is left for ticket in facts.tickets_of[before.id])
        )

    def _note(self, proven: Identifier, facts: Facts) -> None:
        """Which key proved the address, once for each key."""
        proof = self.known[0].proof
        noted = facts.evidence_of.get(proven.id, ())
        if not any((e.other_id, e.proof, e.source) == (None, proof, self.source) for e in noted):
            facts.add_evidence(Evidence(facts.new_id("evidence"), proven.id, None, proof, self.source, facts.now))

    # --- where it stands from now on ---

    def _move(
        self,
        message: Message,
        left: Ticket,
        before: Customer,
        spoke: Identifier,
        customer: Customer,
        proven: Identifier,
        facts: Facts,
    ) -> None:
        target, rests = self._target(message, customer, facts)
        alone = self.stands.said == 0
        # What an agent has begun to work on goes along whole.
        worked_on = bool(left.review) or self.stands.beside > 0 or left.assignee_id is not None or left.status not in ("open", "resolved")
        if alone and (target is None or worked_on):
            _take_ticket(left, before, customer, proven, facts)
            _hand_over(left, message, spoke, proven, facts)
            return
        if target is None:
            target = _new_ticket(message, left, customer, proven, facts)
            rests = not tickets.is_unresolved(target)
        facts.relabel("prove message", customer.id, before.id, message.id, target.id)
        message.conversation_id, message.ticket_id = customer.id, target.id
        _arrive(message, target, proven, rests, facts)
        _leave(left, facts.messages.get(self.stands.newest_id or 0), target, facts)
        told = json.dumps({"other": before.id, "ticket": left.id})
        facts.emit("message.moved", customer_id=customer.id, ticket_id=target.id, message_id=message.id, data=told)

    def _target(self, message: Message, customer: Customer, facts: Facts) -> tuple[Ticket | None, bool]:
        """The ticket of the proven customer's it would have come to (None: a new one), and whether it would have left that at rest."""
        own = facts.tickets_of[customer.id]
        preferred = self._answered(customer, facts)
        if message.automatic:
            return preferred or tickets.latest(own), True
        chosen = tickets.choose(own, preferred, message.created_at, facts.policy)
        if tickets.is_bare_thanks(message.text):
            thanked = chosen or preferred or tickets.latest(own)
            if thanked is not None and not tickets.is_unresolved(thanked):
                return thanked, True
        return chosen, False

    def _answered(self, customer: Customer, facts: Facts) -> Ticket | None:
        """The ticket it answers, if it is the sender's own."""
        quoted = (facts.by_mail_id.get(mail_id) for mail_id in self.quoted)
        for ticket_id in (self.answers, *(one.ticket_id for one in quoted if one is not None)):
            ticket = facts.tickets.get(ticket_id or 0)
            if ticket is not None and facts.live_customer(ticket.conversation_id) is customer:
                return ticket
        return None

    def _forget_hints(self, before: Customer, customer: Customer, proven: Identifier, facts: Facts) -> None:
        """That these two may be one person was said because of what is proved now. Nothing unproven is left to ask an agent about."""
        said = [entry for entry in facts.spread_of[before.id] if entry.last_in_id not in (None, self.message_id)]
        if said or any(ticket.last_inbound_id is not None for ticket in facts.tickets_of[before.id]):
            return
        for side in ("left_id", "right_id"):
            for row in tuple(facts.found[("suggestion", side, self.stands.customer_id)]):
                if {row.left_id, row.right_id} - {self.stands.customer_id} <= {home_of(proven), customer.id}:
                    facts.remove("suggestion", "id", row.id)


def _let_go(spoke: Identifier, customer: Customer, facts: Facts) -> None:
    """The unproven address is nobody's again: what comes from it without proof must not land with whom this one is."""
    facts.identifiers_of[customer.id].remove(spoke)
    spoke.customer_id = spoke.home_id = None
    facts.change(spoke)


def _hand_over(ticket: Ticket, message: Message, spoke: Identifier, proven: Identifier, facts: Facts) -> None:
    """A ticket's way back, and the answers it had, are to the same address, proved now."""
    if ticket.identifier_id == spoke.id:
        ticket.identifier_id = proven.id
    for one in facts.messages.values():
        if one.ticket_id == ticket.id and one.identifier_id == spoke.id:
            one.identifier_id = proven.id
    facts.relabel("prove answers", message.conversation_id, ticket.id, proven.id, spoke.id)
    ticket.version += 1
    facts.change(ticket)
    facts.emit("ticket.updated", customer_id=message.conversation_id, ticket_id=ticket.id)


def _take_ticket(ticket: Ticket, before: Customer, customer: Customer, proven: Identifier, facts: Facts) -> None:
    """The ticket the message opened is its sender's, with all that was said on it and what it holds."""
    facts.relabel("prove ticket", customer.id, before.id, ticket.id, home_of(proven))
    facts.tickets_of[before.id] = [one for one in facts.tickets_of[before.id] if one is not ticket]
    facts.tickets_of[customer.id].append(ticket)
    ticket.conversation_id, ticket.home_id = customer.id, home_of(proven)
    for one in facts.messages.values():
        if one.ticket_id == ticket.id:
            one.conversation_id = customer.id
    for hold in [one for one in facts.holds_of[before.id] if one.source == f"ticket:{ticket.id}"]:
        facts.holds_of[before.id].remove(hold)
        facts.holds_of[customer.id].append(hold)
        hold.customer_id, hold.home_id = customer.id, home_of(proven)
        # Tools are told of both anew, and need a version above all they were told of either.
        customer.hold_version = max(customer.hold_version, before.hold_version)
        facts.change(customer)
    facts.emit("ticket.moved", customer_id=customer.id, ticket_id=ticket.id, data=json.dumps({"other": before.id}))


def _new_ticket(message: Message, left: Ticket, customer: Customer, proven: Identifier, facts: Facts) -> Ticket:
    over = left.status == "resolved"
    made = Ticket(
        id=facts.new_id("ticket"),
        conversation_id=customer.id,
        status="resolved" if over else "open",
        subject=message.subject or left.subject,
        brand=left.brand,
        channel_id=message.channel_id if message.channel_id is not None else left.channel_id,
        identifier_id=proven.id,
        opened_at=facts.now,
        last_at=message.created_at,
        preview="",
        resolved_at=facts.now if over else None,
        home_id=home_of(proven),
    )
    facts.add_ticket(made)
    if not over:
        facts.emit("ticket.opened", customer_id=customer.id, ticket_id=made.id, message_id=message.id)
    return made


def _arrive(message: Message, ticket: Ticket, proven: Identifier, rests: bool, facts: Facts) -> None:
    """What a message does to the ticket it comes to, as `ingest` would have had it."""
    if message.created_at >= ticket.last_at or not ticket.preview:
        ticket.last_at, ticket.preview = message.created_at, bonds.line(message.text or message.subject)
    ticket.last_inbound_id = max(ticket.last_inbound_id or 0, message.id)
    ticket.version += 1
    if not rests:
        was = ticket.status
        ticket.status = tickets.move(ticket, "customer wrote")
        ticket.resolved_at = ticket.snoozed_until = None
        woken = {"resolved": "ticket.reopened", "pending": "ticket.woken", "snoozed": "ticket.woken"}.get(was)
        if woken is not None:
            facts.emit(woken, customer_id=ticket.conversation_id, ticket_id=ticket.id, message_id=message.id)
    if not rests:
        if message.channel_id is not None:
            ticket.channel_id, ticket.identifier_id = message.channel_id, proven.id
        if tickets.is_unresolved(ticket) and ticket.waiting_since is None:
            ticket.waiting_since = message.created_at
    facts.change(ticket)
    facts.emit("ticket.updated", customer_id=ticket.conversation_id, ticket_id=ticket.id)


def _leave(ticket: Ticket, newest: Message | None, target: Ticket, facts: Facts) -> None:
    """What the ticket that a message left tells now, `newest` being what is left of it; one that nothing is left of is over."""
    if newest is not None:
        ticket.last_inbound_id = newest.id if newest.direction == "in" else ticket.last_inbound_id
        ticket.last_at, ticket.preview = newest.created_at, bonds.line(newest.text or newest.subject)
    else:
        ticket.last_inbound_id = None
        ticket.preview = f"Its sender was proved: it stands on #{target.id} now."
        ticket.review = ""
        ticket.waiting_since = None
        if tickets.is_unresolved(ticket):
            ticket.status, ticket.resolved_at = "resolved", facts.now
            facts.emit("ticket.resolved", customer_id=ticket.conversation_id, ticket_id=ticket.id)
    ticket.version += 1
    facts.change(ticket)
    facts.emit("ticket.updated", customer_id=ticket.conversation_id, ticket_id=ticket.id)
