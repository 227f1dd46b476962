"""Why a customer is held: what their tickets and answers give reason for, and what agents and programs decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, select

from hub.conversations.tickets import is_unresolved
from hub.holds.ledger import (
    BY_AGENT,
    BY_API,
    COMPLAINT,
    COOL_DOWN,
    LOW_SATISFACTION,
    OPEN_TICKET,
    Term,
    place,
    placed_by,
    release,
    settle,
    source_of,
)
from hub.policy import DAY, HoldRules, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Event, Hold, Ticket
from hub.storage.tables import metadata

LONGEST_BY_HAND = 365  # days


def holds(ticket: Ticket, rules: HoldRules) -> bool:
    """Whether a ticket as it stands holds its customer. Pure."""
    tags = set(json.loads(ticket.tags))
    return (
        is_unresolved(ticket)
        and ticket.spam_at is None
        and ticket.hold_ended_at is None
        and ticket.status in rules.statuses
        and (not rules.tags or bool(tags & rules.tags))
        and not tags & rules.tags_not
        and (not rules.priorities or ticket.priority in rules.priorities)
    )


def reasons_of(
    ticket: Ticket, resolving: bool, present: Mapping[str, Hold], now: int, rules: HoldRules, complains: bool = True
) -> dict[str, Term]:
    """The reasons a ticket gives, each with its term. `resolving`: it was resolved just now; `present`: what it gave until now;
    `complains`: a complaint was said just now, so one that is over begins again. Pure."""
    wanted: dict[str, Term] = {}
    if ticket.spam_at is not None:
        return wanted
    if holds(ticket, rules):
        wanted[OPEN_TICKET] = Term(brand=ticket.brand, ends_at=_end(present.get(OPEN_TICKET), now + rules.longest))
    if (complains or COMPLAINT in present) and rules.complaint_tags & set(json.loads(ticket.tags)):
        # It goes on past the ticket: who complained today is not to be cheered up by a campaign tomorrow.
        wanted[COMPLAINT] = Term(brand=ticket.brand, ends_at=_end(present.get(COMPLAINT), now + rules.complaint))
    if is_unresolved(ticket):
        return wanted
    cooling = present.get(COOL_DOWN)
    if cooling is not None:
        wanted[COOL_DOWN] = Term(brand=ticket.brand, ends_at=cooling.ends_at)
    elif resolving and OPEN_TICKET in present and rules.resume != "at_once" and rules.cool_down:
        wanted[COOL_DOWN] = Term(brand=ticket.brand, ends_at=now + rules.cool_down)
    return wanted


def _end(hold: Hold | None, otherwise: int) -> int:
    return otherwise if hold is None or hold.ends_at is None else hold.ends_at


def on_ticket(facts: Facts, event: Event) -> None:
    """Reaction: a ticket changed, and with it perhaps what it gives reason for."""
    ticket = facts.tickets[event.ticket_id or 0]
    customer = facts.live_customer(ticket.conversation_id)
    source = source_of(ticket.id)
    if event.type == "ticket.reopened" and ticket.hold_ended_at is not None:
        ticket.hold_ended_at = None
        facts.change(ticket)
    present = {hold.reason: hold for hold in placed_by(customer, source, facts)}
    tagged = set(json.loads(event.data).get("added", ())) if event.type == "ticket.tagged" else set()
    complains = event.type in ("ticket.opened", "ticket.reopened") or bool(facts.policy.hold.complaint_tags & tagged)
    wanted = reasons_of(ticket, event.type == "ticket.resolved", present, facts.now, facts.policy.hold, complains)
    settle(customer, source, wanted, facts, home_id=ticket.home_id)


def on_score(facts: Facts, event: Event) -> None:
    """Reaction: a customer said how they were served. A bad answer holds for some days; a good one ends a wait for it."""
    said = json.loads(event.data)
    ticket = facts.tickets[event.ticket_id or 0]
    customer, rules = facts.live_customer(ticket.conversation_id), facts.policy.hold
    source = f"survey:{said['survey']}"
    if said["low"] and rules.low_score:
        place(
            *(customer, LOW_SATISFACTION, source, Term(brand=ticket.brand, ends_at=facts.now + rules.low_score), facts),
            home_id=ticket.home_id,
        )
        return
    release(customer, LOW_SATISFACTION, source, facts)  # they changed their mind
    if said["good"] and rules.resume == "good_score":
        release(customer, COOL_DOWN, source_of(ticket.id), facts)


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Hold a customer because an agent or a program says so. Said again by the same, a later end counts."""

    customer_id: int
    days: float | None  # None: until it is ended by hand
    actor: str  # "agent:7", "program:crm", "command line"
    note: str = ""
    reason: str = BY_AGENT  # agent | api | complaint
    source: str = ""  # what it is known by to whoever placed it; empty: the actor
    brand: str = ""
    channels: tuple[str, ...] = ("*",)
    agent_id: int | None = None

    def needs(self, needs: Needs) -> None:
        needs.customers.add(self.customer_id)

    def decide(self, facts: Facts) -> bool:
        """Whether anything changed. Raises Refusal."""
        if self.customer_id not in facts.customers:
            raise Refusal(f"There is no customer {self.customer_id}.")
        if self.days is not None and not 0 < self.days <= LONGEST_BY_HAND:
            raise Refusal(f"A hold lasts more than nothing and {LONGEST_BY_HAND} days at most.")
        if self.reason not in (BY_AGENT, BY_API, COMPLAINT):
            raise Refusal(f"The reason is {BY_AGENT}, {BY_API} or {COMPLAINT}.")
        customer = facts.live_customer(self.customer_id)
        ends_at = None if self.days is None else facts.now + int(self.days * DAY)
        term = Term(self.brand, self.channels, ends_at, self.note[:500], self.actor)
        return place(customer, self.reason, f"hand:{self.source or self.actor}", term, facts, home_id=self.customer_id)


@dataclass(frozen=True, slots=True)
class EndHold:
    """End one hold of a customer before its time. A ticket whose hold was ended holds nobody again until it is reopened."""

    customer_id: int
    hold_id: int
    actor: str
    agent_id: int | None = None
    of: str = ""  # only a hold from a source that begins so
    ended: tuple[str, ...] = field(default=(BY_AGENT, BY_API, COMPLAINT, COOL_DOWN, LOW_SATISFACTION, OPEN_TICKET))

    def needs(self, needs: Needs) -> None:
        needs.customers.add(self.customer_id)

    def decide(self, facts: Facts) -> None:
        """Raises Refusal where the customer has no such hold now."""
        customer = facts.live_customer(self.customer_id) if self.customer_id in facts.customers else None
        found = [h for h in facts.holds_of.get(customer.id, ()) if h.id == self.hold_id and h.released_at is None] if customer else []
        if customer is None or not found or found[0].reason not in self.ended or not found[0].source.startswith(self.of):
            raise Refusal("This hold is over already, or is not this customer's. Reload and look again.")
        hold = found[0]
        if hold.reason == OPEN_TICKET:
            for ticket in facts.tickets_of.get(customer.id, ()):
                if source_of(ticket.id) == hold.source:
                    ticket.hold_ended_at = facts.now
                    facts.change(ticket)
        release(customer, hold.reason, hold.source, facts)
        facts.emit(
            "customer.hold_ended",
            customer_id=customer.id,
            agent_id=self.agent_id,
            data=json.dumps({"reason": hold.reason, "source": hold.source, "actor": self.actor}),
        )


def hold_of(hold_id: int, customer_id: int) -> Select[Any]:
    """A hold of a customer, over or not."""
    hold = metadata.tables["hold"].c
    return select(hold.id).where(hold.id == hold_id, hold.customer_id == customer_id)
