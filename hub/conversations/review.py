"""Doubtful mail, decided by an agent: it belongs to the ticket it answers, it stands on its own, or it is spam.

Until then it stands on a ticket of its own with its clock running, so it is neither lost nor shown to anybody it should not be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from hub.conversations.tickets import is_unresolved
from hub.policy import Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Participant, Ticket
from hub.storage.tables import metadata

_participant = metadata.tables["participant"].c
_message = metadata.tables["message"].c
_raw = metadata.tables["raw_request"].c


def _reviewed(ticket_id: int, facts: Facts) -> Ticket:
    ticket = facts.tickets.get(ticket_id)
    if ticket is None:
        raise Refusal(f"There is no ticket {ticket_id}.")
    if not ticket.review:
        raise Refusal("Somebody has decided about this mail already.")
    return ticket


@dataclass(frozen=True, slots=True)
class Admit:
    """The mail belongs to the ticket it answers: it is moved there, and its sender may write there from now on. It proves nothing about
    them, and shows them nothing but the mails an agent copies to them."""

    ticket_id: int
    review_of: int  # the ticket it answers, as the agent saw it
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.update((self.ticket_id, self.review_of))
        needs.rows.add(("participant", "ticket_id", self.review_of))

    def decide(self, facts: Facts) -> int:
        """The ticket it stands on now. Raises Refusal."""
        ticket = _reviewed(self.ticket_id, facts)
        target = facts.tickets.get(self.review_of)
        if ticket.review_of != self.review_of or target is None:
            raise Refusal("This mail does not answer that ticket. Reload, and decide again.")
        before, owner = facts.live_customer(ticket.conversation_id), facts.live_customer(target.conversation_id)
        if before is owner:
            return KeepApart(self.ticket_id, self.agent_id).decide(facts)
        sender = facts.identifiers_by_id.get(ticket.identifier_id)
        if sender is None or sender.kind != "email":
            raise Refusal("Its sender is no mail address of this customer any more. Keep it apart, or move the messages by hand.")
        admitted = facts.found[("participant", "ticket_id", self.review_of)]
        row = next((one for one in admitted if one.value == sender.value), None)
        if row is None:
            facts.insert(Participant(target.id, sender.value, sender.address, self.agent_id, facts.now))
        elif row.ended_at is not None:
            row.ended_at, row.agent_id, row.at = None, self.agent_id, facts.now
            facts.change(row)
        facts.relabel("admit", owner.id, before.id, ticket.id, target.id, sender.id)
        target.last_at, target.preview = max(target.last_at, ticket.last_at), ticket.preview
        target.last_inbound_id = max(target.last_inbound_id or 0, ticket.last_inbound_id or 0) or None
        ticket.last_inbound_id = None
        ticket.preview = f"Its mail stands on #{target.id} now."
        ticket.review = ""
        self._state(ticket, target, owner.id, facts)
        return target.id

    def _state(self, ticket: Ticket, target: Ticket, owner_id: int, facts: Facts) -> None:
        told = json.dumps({"other": ticket.conversation_id, "ticket": ticket.id})
        if target.status == "resolved":
            target.status, target.resolved_at = "open", None
            facts.emit("ticket.reopened", customer_id=owner_id, ticket_id=target.id, agent_id=self.agent_id)
        target.waiting_since = target.waiting_since or ticket.waiting_since or facts.now
        target.version += 1
        facts.change(target)
        facts.emit("participant.admitted", customer_id=owner_id, ticket_id=target.id, agent_id=self.agent_id, data=told)
        if is_unresolved(ticket):
            ticket.status, ticket.resolved_at, ticket.waiting_since = "resolved", facts.now, None
            facts.emit("ticket.resolved", customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=self.agent_id)
        ticket.version += 1
        facts.change(ticket)


@dataclass(frozen=True, slots=True)
class KeepApart:
    """The mail stands on its own ticket, as any customer's: whom it says it is from is for the agent to judge with each answer."""

    ticket_id: int
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> int:
        """The ticket it stands on. Raises Refusal."""
        ticket = _reviewed(self.ticket_id, facts)
        ticket.review, ticket.reviewed_at = "", facts.now
        ticket.version += 1
        facts.change(ticket)
        facts.emit("ticket.reviewed", customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=self.agent_id)
        return ticket.id


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A participant is one no more: what they write stands apart again."""

    ticket_id: int
    value: str
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.rows.add(("participant", "ticket_id", self.ticket_id))

    def decide(self, facts: Facts) -> None:
        """Raises Refusal."""
        ticket = facts.tickets.get(self.ticket_id)
        rows = facts.found[("participant", "ticket_id", self.ticket_id)]
        row = next((one for one in rows if one.value == self.value and one.ended_at is None), None)
        if ticket is None or row is None:
            raise Refusal("They are no participant of this ticket.")
        row.ended_at = facts.now
        facts.change(row)
        facts.emit("participant.dismissed", customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=self.agent_id)


def participants(ticket_id: int) -> Select[Any]:
    """Who may write to a ticket besides its customer: `value` and `address`, in the order they were admitted."""
    wanted = (_participant.ticket_id == ticket_id, _participant.ended_at.is_(None))
    return select(_participant.value, _participant.address, _participant.at).where(*wanted).order_by(_participant.at, _participant.value)


def request_of(message_id: int) -> Select[Any]:
    """The request a customer's message came in, as it is kept: what the original of a mail is taken from."""
    wanted = (
        _message.mail_id,
        _message.subject,
        _message.text,
        _raw.channel_id,
        _raw.method,
        _raw.url,
        _raw.headers,
        _raw.body,
        _raw.body_sha256,
    )
    both = metadata.tables["message"].join(metadata.tables["raw_request"], _message.raw_id == _raw.id)
    return select(*wanted).select_from(both).where(_message.id == message_id, _message.direction == "in")
