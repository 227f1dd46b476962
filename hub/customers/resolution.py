"""Whose message is this? The decision, from the claims it carries and the identifiers we know.

People are joined only where one event proves two identifiers at once, and never where the union would hold two accounts of
one site. What is merely claimed is kept as evidence and joins nothing (law 6).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from hub.contract import PROVING, Claim, Proof
from hub.customers.canonical import canonical
from hub.policy import DAY
from hub.storage.facts import Facts, IdentifierKey, Needs
from hub.storage.records import Customer, Evidence, Identifier, JoinLog

PROVEN = "proven"
ASSERTED = "asserted"


@dataclass(frozen=True, slots=True)
class Known:
    """A claim in canonical form. `standing` keeps what nobody proved apart from what somebody did."""

    kind: str
    site: str
    value: str
    standing: str
    proof: str
    address: str

    @property
    def key(self) -> IdentifierKey:
        return (self.kind, self.site, self.value, self.standing)


class NoSender(Exception):
    """The sender's own address is not one, so the message belongs to nobody; it must be kept aside."""


def weigh(claims: Iterable[Claim], trusted: bool) -> tuple[Known, ...]:
    """Canonical claims; an untrusted request (its signature only observed) proves nothing.

    Unusable values drop out, but never the first: whatever stands second (a Reply-To, say) must not take the sender's place.
    Raises NoSender.
    """
    known: list[Known] = []
    for claim in claims:
        value = canonical(claim.kind, claim.value)
        if value is None and not known:
            break
        if value is None:
            continue
        proof = claim.proof if trusted or claim.proof not in PROVING else Proof.CLAIMED
        standing = PROVEN if proof in PROVING else ASSERTED
        known.append(Known(claim.kind, claim.site, value, standing, proof.value, claim.value))
    if not known:
        raise NoSender
    return tuple(known)


def need(known: Iterable[Known], needs: Needs) -> None:
    needs.identifiers.update(claim.key for claim in known)


@dataclass(frozen=True, slots=True)
class Sender:
    customer: Customer
    identifier: Identifier


def resolve(known: tuple[Known, ...], name: str, source: str, facts: Facts) -> Sender:
    """The sender's customer, made, found or joined, with the evidence noted. `known[0]` is the sender's own address."""
    own = known[0]
    proven = [claim for claim in known if claim.standing == PROVEN]
    # An unproven sender threads with itself alone; whatever it says of others is noted and joins nothing.
    speaking = proven if own.standing == PROVEN else [own]
    # The strongest name for a person is the site's own account, then an address, then a browser session.
    speaking = sorted(speaking, key=lambda claim: _RANK.get(claim.kind, 1))
    customer: Customer | None = None
    joined: list[Identifier] = []
    for claim in speaking:
        identifier = facts.identifiers.get(claim.key)
        owner = facts.live_customer(identifier.customer_id) if identifier is not None and identifier.customer_id is not None else None
        if owner is None or owner is customer:
            continue
        if len(speaking) > 1 and not _may_be_one(owner, customer, speaking, facts):
            continue
        customer = owner if customer is None else join(customer, owner, "proved together", "hub", [claim], facts)
    if customer is None:
        customer = Customer(facts.new_id("customer"), name, facts.now)
        facts.add_customer(customer)
        facts.emit("customer.created", customer_id=customer.id)
    elif name and not customer.name:
        customer.name = name
        facts.change(customer)
    for claim in speaking:
        identifier = _hold_identifier(claim, customer, source, facts)
        if identifier.customer_id == customer.id:
            joined.append(identifier)
    # The own address of somebody who signed in at another's browser stays the other's: the strongest name answers for it.
    speaker = next((i for i in joined if (i.kind, i.site, i.value, i.standing) == own.key), joined[0])
    for other in joined:
        if other is not speaker:
            _note(speaker, other, facts, proof=other.proof, source=source)
    for claim in known:
        if claim not in speaking:
            _note(speaker, _claimed(claim, facts), facts, proof=claim.proof, source=source)
    return Sender(customer, speaker)


_RANK = {"user_id": 0, "device": 2}


def _may_be_one(owner: Customer, customer: Customer | None, speaking: Iterable[Known], facts: Facts) -> bool:
    """Whether the owner of an identifier can be who speaks now, and the customer found so far: nobody has two accounts of a site."""
    own = _accounts(facts.identifiers_of[owner.id])
    sites = {site for site, _ in own}
    if any(site in sites and (site, value) not in own for site, value in _accounts(speaking)):
        return False
    return customer is None or sites.isdisjoint(site for site, _ in _accounts(facts.identifiers_of[customer.id]))


def _accounts(of: Iterable[Identifier | Known]) -> set[tuple[str, str]]:
    return {(one.site, one.value) for one in of if one.kind == "user_id" and one.standing == PROVEN}


def _hold_identifier(claim: Known, customer: Customer, source: str, facts: Facts) -> Identifier:
    identifier = facts.identifiers.get(claim.key)
    if identifier is None:
        identifier = Identifier(
            facts.new_id("identifier"),
            claim.kind,
            claim.site,
            claim.value,
            claim.standing,
            0,
            customer.id,
            claim.proof,
            claim.address,
            facts.now,
            facts.now,
        )
        facts.add_identifier(identifier)
        facts.add_evidence(Evidence(facts.new_id("evidence"), identifier.id, None, claim.proof, source, facts.now))
        facts.emit("customer.identified", customer_id=customer.id)
        return identifier
    if identifier.customer_id is None:
        identifier.customer_id = customer.id
        identifier.proof = claim.proof
        facts.identifiers_of.setdefault(customer.id, []).append(identifier)
        facts.add_evidence(Evidence(facts.new_id("evidence"), identifier.id, None, claim.proof, source, facts.now))
        facts.change(identifier)
        facts.emit("customer.identified", customer_id=customer.id)
    elif identifier.customer_id == customer.id and (identifier.address != claim.address or facts.now - identifier.last_proof_at > DAY):
        # Answers go to the address as the channel delivers it: it may spell the same mailbox differently from one day to the next.
        # When it last spoke is kept to the day: a write for every message would buy nothing.
        identifier.address = claim.address
        identifier.last_proof_at = facts.now
        facts.change(identifier)
    return identifier


def _claimed(claim: Known, facts: Facts) -> Identifier:
    """The identifier a claim points at: known, or noted without an owner."""
    identifier = facts.identifiers.get(claim.key)
    if identifier is None:
        identifier = Identifier(
            facts.new_id("identifier"),
            claim.kind,
            claim.site,
            claim.value,
            claim.standing,
            0,
            None,
            claim.proof,
            claim.address,
            facts.now,
            facts.now,
        )
        facts.add_identifier(identifier)
    return identifier


def _note(speaker: Identifier, other: Identifier, facts: Facts, *, proof: str, source: str) -> None:
    """Append evidence once for each (speaker, other, proof)."""
    if any(e.other_id == other.id and e.proof == proof for e in facts.evidence_of.get(speaker.id, ())):
        return
    facts.add_evidence(Evidence(facts.new_id("evidence"), speaker.id, other.id, proof, source, facts.now))
    if speaker.customer_id is not None and proof == Proof.CLAIMED:
        facts.emit("customer.identified", customer_id=speaker.customer_id)


def join(left: Customer, right: Customer, rule: str, actor: str, claims: Iterable[Known], facts: Facts) -> Customer:
    """Make two customers one: the older id survives, the other leads on to it for ever. Appended to the join log."""
    survivor, other = (left, right) if left.id < right.id else (right, left)
    evidence = [e.id for claim in claims for e in facts.evidence_of.get(facts.identifiers[claim.key].id, ())]
    facts.insert(JoinLog(facts.new_id("join_log"), "join", survivor.id, other.id, json.dumps(evidence), rule, actor, facts.now))
    facts.joined.append((survivor.id, other.id))
    for identifier in facts.identifiers_of.pop(other.id, []):
        identifier.customer_id = survivor.id
        facts.identifiers_of.setdefault(survivor.id, []).append(identifier)
    facts.tickets_of.setdefault(survivor.id, []).extend(facts.tickets_of.pop(other.id, []))
    for ticket in facts.tickets.values():
        if ticket.conversation_id == other.id:
            ticket.conversation_id = survivor.id
    for hold in facts.holds_of.pop(other.id, []):
        hold.customer_id = survivor.id
        facts.holds_of.setdefault(survivor.id, []).append(hold)
    for message in facts.messages.values():
        if message.conversation_id == other.id:
            message.conversation_id = survivor.id
    facts.identifiers_of[other.id] = []
    facts.tickets_of[other.id] = []
    facts.holds_of[other.id] = []
    other.merged_into = survivor.id
    # A path of joins is kept one hop long.
    for customer in facts.customers.values():
        if customer.merged_into == other.id:
            customer.merged_into = survivor.id
            facts.change(customer)
    if not survivor.name and other.name:
        survivor.name = other.name
    # Versions only ever grow for each identifier, whichever customer it came from.
    survivor.hold_version = max(survivor.hold_version, other.hold_version)
    facts.change(survivor)
    facts.change(other)
    facts.emit("customer.joined", customer_id=survivor.id, data=json.dumps({"other": other.id, "rule": rule}))
    return survivor
