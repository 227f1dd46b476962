"""Placing, renewing and releasing holds: the decision, its ledger row, and what destinations are told.

A customer is held while any hold is active and its lease runs. The version grows with every change of a customer's hold, so
that a destination told out of order can keep the latest. A hold never touches consent.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from hub.contract import Proof
from hub.customers.canonical import canonical
from hub.customers.resolution import PROVEN
from hub.storage.facts import Facts
from hub.storage.hot import REACHING
from hub.storage.records import Customer, Event, Evidence, Hold, HoldLedger, Identifier

OPEN_TICKET = "open_ticket"
COMPLAINT = "complaint"
COOL_DOWN = "cool_down"  # after a ticket was resolved
LOW_SATISFACTION = "low_satisfaction"
BY_AGENT = "agent"
BY_API = "api"

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


def on_joined(facts: Facts, event: Event) -> None:
    """Reaction: whoever keeps holds by customer lets go of the number that is no more; the survivor's hold covers its identifiers.

    The release names no identifier: a receiver that keeps holds by identifier must not lose what the survivor still holds.
    """
    other = facts.customers[json.loads(event.data)["other"]]
    # Also of a lease that ran out while nobody renewed it: the number that is no more is never told of again.
    if other.hold_version and any(hold.released_at is None for hold in facts.holds_of.get(facts.live_customer(other.id).id, ())):
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
        note(customer, [("renewed", hold) for hold in active], held_before=True, facts=facts)


def active_holds(customer: Customer, facts: Facts) -> list[Hold]:
    return [hold for hold in facts.holds_of.get(customer.id, ()) if hold.released_at is None and hold.lease_until > facts.now]


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


@dataclass(frozen=True, slots=True)
class Term:
    """How a reason holds: which brand and channels, until when at the most (microseconds UTC; None: while the reason lives), and who
    decided it and why."""

    brand: str = ""  # empty: every brand
    channels: tuple[str, ...] = ("*",)
    ends_at: int | None = None
    note: str = ""
    actor: str = ""

    @property
    def scope(self) -> str:
        return json.dumps({"brand": self.brand, "channels": list(self.channels)} if self.brand else {"channels": list(self.channels)})


def settle(
    customer: Customer,
    source: str,
    wanted: Mapping[str, Term],
    facts: Facts,
    *,
    home_id: int | None = None,
    only: Collection[str] = (),
) -> bool:
    """Bring the holds of one source to what is wanted (reason -> term), with one event if anything changed. Returns whether it did.

    What holds already keeps the end it was given, unless a later one is wanted. `only`: leave that source's other reasons alone.
    `home_id` is the node they go with, should the customer turn out to be two people.
    """
    held_before = bool(active_holds(customer, facts))
    present = {h.reason: h for h in placed_by(customer, source, facts) if not only or h.reason in only}
    ops: list[tuple[str, Hold]] = []
    for reason, term in wanted.items():
        hold = present.pop(reason, None)
        if hold is None:
            hold = Hold(facts.new_id("hold"), customer.id, reason, source, term.scope, facts.now, 0)
            hold.home_id, hold.ends_at, hold.note, hold.actor = home_id or customer.id, term.ends_at, term.note, term.actor
            hold.lease_until = lease(hold, facts)
            facts.add_hold(hold)
            ops.append(("placed", hold))
            continue
        later = hold.ends_at is not None and (term.ends_at is None or term.ends_at > hold.ends_at)
        if later:
            hold.ends_at = term.ends_at
        if later or hold.lease_until <= facts.now or json.loads(hold.scope) != json.loads(term.scope):
            hold.scope = term.scope
            hold.lease_until = lease(hold, facts)
            facts.change(hold)
            ops.append(("renewed", hold))
    for hold in present.values():
        hold.released_at = facts.now
        facts.change(hold)
        ops.append(("released", hold))
    if ops:
        note(customer, ops, held_before=held_before, facts=facts)
    return bool(ops)


def place(customer: Customer, reason: str, source: str, term: Term, facts: Facts, *, home_id: int | None = None) -> bool:
    """Hold a customer for one reason from one source; again the same, and nothing changes but a lease that had run out."""
    return settle(customer, source, {reason: term}, facts, home_id=home_id, only=(reason,))


def release(customer: Customer, reason: str, source: str, facts: Facts) -> bool:
    """Let go of one reason; the customer stays held while another is active. Returns whether there was such a hold."""
    return settle(customer, source, {}, facts, only=(reason,))


def placed_by(customer: Customer, source: str, facts: Facts) -> list[Hold]:
    """What holds a customer from one source, its lease run out or not."""
    return [h for h in facts.holds_of.get(customer.id, ()) if h.released_at is None and h.source == source]


def lease(hold: Hold, facts: Facts) -> int:
    """Until when a hold that is placed or renewed now runs by itself."""
    until = facts.now + facts.policy.hold_lease
    return until if hold.ends_at is None else min(until, hold.ends_at)


def note(customer: Customer, ops: Iterable[tuple[str, Hold]], *, held_before: bool, facts: Facts) -> None:
    """Write down what was done to a customer's holds, raise their version, and state how they stand now, once."""
    customer.hold_version += 1
    facts.change(customer)
    for op, hold in ops:
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
    scopes = [json.loads(hold.scope) for hold in active]
    return {
        "customer_id": customer.id,
        "identifiers": identifiers_of(customer, facts),
        "reasons": sorted({hold.reason for hold in active}),
        "scope": {"brands": _union(s.get("brand", "*") for s in scopes), "channels": _union(*(s.get("channels", ["*"]) for s in scopes))},
        "until": iso(max(hold.lease_until for hold in active)) if active else None,
        "version": customer.hold_version,
    }


def _union(*lists: Iterable[str]) -> list[str]:
    """All of them; where one covers everything, that."""
    named = {name for names in lists for name in names}
    return ["*"] if "*" in named else sorted(named)


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
