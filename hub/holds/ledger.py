"""Placing, renewing and releasing holds: the decision, its ledger row, and what destinations are told.

A customer is held while any hold is active and its lease runs. The version grows with every change of a customer's hold, so
that a destination told out of order can keep the latest. A hold never touches consent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from hub.contract import Proof
from hub.conversations.tickets import is_unresolved
from hub.customers.canonical import canonical
from hub.customers.resolution import PROVEN
from hub.storage.facts import Facts, Needs
from hub.storage.hot import REACHING
from hub.storage.records import Customer, Event, Evidence, Hold, HoldLedger, Identifier, Ticket

OPEN_TICKET = "open_ticket"

# The names destinations and the API know identifiers by. A browser session or an SMS sender word addresses nobody.
NAMES = {"email": "email", "phone": "phone", "user_id": "external_id", "wa_user_id": "wa_user_id"}


def iso(at: int) -> str:
    """Microseconds UTC as ISO 8601."""
    seconds, rest = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{rest // 1_000:03}Z"


@lru_cache(maxsize=4_096)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def source_of(ticket_id: int) -> str:
    return f"ticket:{ticket_id}"


def on_unresolved(facts: Facts, event: Event) -> None:
    """Reaction: an unresolved ticket holds its customer."""
    ticket = facts.tickets[event.ticket_id or 0]
    customer = facts.live_customer(ticket.conversation_id)
    place(customer, OPEN_TICKET, source_of(ticket.id), {"brand": ticket.brand}, facts, home_id=ticket.home_id)


def on_resolved(facts: Facts, event: Event) -> None:
    """Reaction: a resolved ticket holds nobody any more."""
    ticket = facts.tickets[event.ticket_id or 0]
    customer = facts.live_customer(ticket.conversation_id)
    release(customer, OPEN_TICKET, source_of(ticket.id), facts)


def on_joined(facts: Facts, event: Event) -> None:
    """Reaction: whoever keeps holds by customer lets go of the number that is no more; the survivor's hold covers its identifiers.

    The release names no identifier: a receiver that keeps holds by identifier must not lose what the survivor still holds.
    """
    other = facts.customers[json.loads(event.data)["other"]]
    if other.hold_version and active_holds(facts.live_customer(other.id), facts):
        other.hold_version += 1
        facts.change(other)
        facts.emit("hold.released", customer_id=other.id, data=json.dumps(notice(other, [], facts) | {"joined_into": event.customer_id}))
    on_identity(facts, event)


def on_identity(facts: Facts, event: Event) -> None:
    """Reaction: what is known of a held customer changed, so destinations must learn the identifiers."""
    customer = facts.live_customer(event.customer_id or 0)
    active = active_holds(customer, facts)
    if not active:
        return
    # One message often brings several facts about its sender; by the first of them all are known, and told.
    told = next((e for e in reversed(facts.events) if e.customer_id == customer.id and e.type.startswith("hold.")), None)
    if told is None or json.loads(told.data) != notice(customer, active, facts):
        _changed(customer, "renewed", active, held_before=True, facts=facts)


def active_holds(customer: Customer, facts: Facts) -> list[Hold]:
    return [hold for hold in facts.holds_of.get(customer.id, ()) if hold.released_at is None and hold.lease_until > facts.now]


def _placed(customer: Customer, reason: str, source: str, facts: Facts) -> list[Hold]:
    """What holds a customer for one reason from one source, its lease run out or not."""
    return [h for h in facts.holds_of.get(customer.id, ()) if h.released_at is None and (h.source, h.reason) == (source, reason)]


def on_parted(facts: Facts, event: Event) -> None:
    """Reaction: two people again. Tools are told of each how they stand now, with their own identifiers."""
    for customer_id in (event.customer_id or 0, json.loads(event.data)["other"]):
        customer = facts.live_customer(customer_id)
        active = active_holds(customer, facts)
        if not customer.hold_version and not active:
            continue  # no tool was ever told anything of them
        type_ = "hold.released" if not active else "hold.renewed" if customer.hold_version else "hold.placed"
        customer.hold_version += 1
        facts.change(customer)
        facts.emit(type_, customer_id=customer.id, data=json.dumps(notice(customer, active, facts)))


def place(customer: Customer, reason: str, source: str, scope: dict[str, str], facts: Facts, *, home_id: int | None = None) -> None:
    """Hold a customer for one reason from one source; again the same, and nothing changes but a lease that had run out. `home_id` is
    the node it goes with, should the customer turn out to be two people."""
    held_before = bool(active_holds(customer, facts))
    until = facts.now + facts.policy.hold_lease
    present = _placed(customer, reason, source, facts)
    if not present:
        hold = Hold(facts.new_id("hold"), customer.id, reason, source, json.dumps(scope, sort_keys=True), facts.now, until)
        hold.home_id = home_id or customer.id
        facts.add_hold(hold)
        _changed(customer, "placed", [hold], held_before=held_before, facts=facts)
        return
    expired = [hold for hold in present if hold.lease_until <= facts.now]
    for hold in expired:
        hold.lease_until = until
        facts.change(hold)
    if expired:
        _changed(customer, "renewed", expired, held_before=held_before, facts=facts)


def release(customer: Customer, reason: str, source: str, facts: Facts) -> None:
    """Let go of one reason; the customer stays held while another is active."""
    ended = _placed(customer, reason, source, facts)
    for hold in ended:
        hold.released_at = facts.now
        facts.change(hold)
    if ended:
        _changed(customer, "released", ended, held_before=True, facts=facts)


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Extend the leases that end soon while their reason lives; let go of those whose reason is gone."""

    before: int  # leases that end before this time, in microseconds

    def needs(self, needs: Needs) -> None:
        needs.leases_below = max(needs.leases_below, self.before)

    def decide(self, facts: Facts) -> int:
        """The number of leases settled: while it is not 0 there may be more."""
        # However the two settings stand to each other, what was just renewed is not renewed again.
        before = min(self.before, facts.now + facts.policy.hold_lease // 2)
        by_customer: dict[int, list[Hold]] = {}
        for hold in facts.expiring:
            if hold.released_at is None and hold.lease_until < before:
                by_customer.setdefault(hold.customer_id, []).append(hold)
        settled = 0
        for customer_id, holds in by_customer.items():
            customer = facts.live_customer(customer_id)
            # A lease that ran out while the hub was away counts as held: its ticket is open, and it is held again now.
            held_before = bool(active_holds(customer, facts))
            lives = [hold for hold in holds if _reason_lives(hold, facts.tickets_of.get(customer.id, ()))]
            gone = [hold for hold in holds if hold not in lives]
            for hold in lives:
                hold.lease_until = facts.now + facts.policy.hold_lease
                facts.change(hold)
            for hold in gone:
                hold.released_at = facts.now
                facts.change(hold)
            settled += len(holds)
            if lives:
                _changed(customer, "renewed", lives, held_before=held_before, facts=facts)
            if gone:
                _changed(customer, "released", gone, held_before=True, facts=facts)
        return settled


def _reason_lives(hold: Hold, tickets: Iterable[Ticket]) -> bool:
    return hold.reason == OPEN_TICKET and any(source_of(t.id) == hold.source and is_unresolved(t) for t in tickets)


def _changed(customer: Customer, op: str, holds: Iterable[Hold], *, held_before: bool, facts: Facts) -> None:
    customer.hold_version += 1
    facts.change(customer)
    for hold in holds:
        facts.insert(
            HoldLedger(
                facts.new_id("hold_ledger"),
                customer.id,
                hold.id,
                op,
                hold.reason,
                hold.source,
                customer.hold_version,
                facts.now,
                hold.lease_until,
            )
        )
    active = active_holds(customer, facts)
    type_ = "hold.released" if not active else "hold.renewed" if held_before else "hold.placed"
    facts.emit(type_, customer_id=customer.id, data=json.dumps(notice(customer, active, facts)))


def notice(customer: Customer, active: list[Hold], facts: Facts) -> dict[str, Any]:
    """The `data` of a hold event: the whole present state, so that any one of them can be acted on alone."""
    return {
        "customer_id": customer.id,
        "identifiers": identifiers_of(customer, facts),
        "reasons": sorted({hold.reason for hold in active}),
        "scope": {"brands": sorted({json.loads(hold.scope).get("brand", "default") for hold in active}), "channels": ["*"]},
        "until": iso(max(hold.lease_until for hold in active)) if active else None,
        "version": customer.hold_version,
    }


def identifiers_of(customer: Customer, facts: Facts) -> list[dict[str, str]]:
    """Every identifier a marketing tool might know the customer by, each marked with why we think so (law 7)."""
    found: dict[tuple[str, str, str], str] = {}
    for identifier in facts.identifiers_of.get(customer.id, ()):
        if identifier.ended_at is None:  # else it is somebody else's by now
            _mark(found, identifier, _because(identifier.standing, identifier.proof))
        for evidence in facts.evidence_of.get(identifier.id, ()):
            other = facts.identifiers_by_id.get(evidence.other_id or 0)
            if other is not None and other.ended_at is None and reaches(evidence, facts.policy.claims_held):
                _mark(found, other, _because(other.standing if other.customer_id == customer.id else "asserted", evidence.proof))
    return [
        {"kind": kind, "value": value, "because": because} | ({"site": site} if site else {})
        for (kind, value, site), because in sorted(found.items())
    ]


def reaches(evidence: Evidence, claims_held: int) -> bool:
    """Whether a hold of who spoke covers what the evidence names (law 7): what they claimed, unless that is switched off; what a record
    or their own proof ties to them, though it may join nobody (a role mailbox, a shared number)."""
    return evidence.withdrawn_at is None and evidence.proof in (REACHING if claims_held else REACHING[1:])


_WEIGHT = {"claimed": 0, "record": 1, "verified": 2}


def _because(standing: str, proof: str) -> str:
    return "record" if proof == Proof.RECORD else "verified" if standing == PROVEN else "claimed"


def _mark(found: dict[tuple[str, str, str], str], identifier: Identifier, because: str) -> None:
    name = NAMES.get(identifier.kind)
    if name is None:
        return
    for spelling in _spellings(identifier):
        key = (name, spelling, identifier.site)
        if key not in found or _WEIGHT[because] > _WEIGHT[found[key]]:
            found[key] = because


def _spellings(identifier: Identifier) -> set[str]:
    """An address as we compare it and as its owner spells it: a tool may know a.d.a+shop@gmail.com, and no ada@gmail.com."""
    given = identifier.address.removeprefix("whatsapp:").strip()
    if identifier.kind == "email":
        given = given.lower()
    elif identifier.kind == "phone":
        given = given if given.startswith("+") else f"+{given}"
    else:
        return {identifier.value}
    return {identifier.value, given} if canonical(identifier.kind, given) == identifier.value else {identifier.value}
