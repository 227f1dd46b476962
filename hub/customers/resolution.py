"""Whose message is this? The decision, from the claims it carries and the identifiers we know.

People are joined only where one event proves two identifiers at once, and never against the bounds of `joining`. What is merely
claimed is kept as evidence and joins nothing (law 6); where it points at somebody known, an agent is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.contract import PROVING, Claim, Proof
from hub.customers import bonds, bridging, joining
from hub.customers.bonds import home_of
from hub.customers.canonical import canonical
from hub.customers.joining import ASSERTED, PROVEN, Verdict
from hub.policy import DAY
from hub.storage.facts import Facts, IdentifierKey, Needs
from hub.storage.records import Customer, Evidence, Identifier, JoinLog

__all__ = ["ASSERTED", "PROVEN", "Known", "NoSender", "Sender", "let_go", "need", "reassign", "resolve", "weigh"]

# What a person types, or a record holds, may leave out the country; what a channel delivers never does.
_HOME_FORM = frozenset({Proof.CLAIMED, Proof.OTP, Proof.SEEN, Proof.RECORD, Proof.AGENT})
# The business's own record ties what belongs to one person; only the hub's own import says so, never a message.
TYING = PROVING | {Proof.RECORD}


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
    """The sender's own address is none that could be a customer's, so the message belongs to nobody; it must be kept aside."""

    def __init__(self, reason: str = "The sender's address is none that could be answered.") -> None:
        super().__init__(reason)


def weigh(claims: Iterable[Claim], trusted: bool, region: str = "", proving: frozenset[Proof] = PROVING) -> tuple[Known, ...]:
    """Canonical claims; an untrusted request (its signature only observed) proves nothing. `region` is the country (ISO 3166) of
    numbers that people leave it out of.

    Unusable values drop out, but never the first: whatever stands second (a Reply-To, say) must not take the sender's place.
    Raises NoSender.
    """
    known: list[Known] = []
    for claim in claims:
        value = canonical(claim.kind, claim.value, region if claim.proof in _HOME_FORM else "")
        if value is None and not known:
            break
        if value is None:
            continue
        proof = claim.proof if trusted or claim.proof not in proving else Proof.CLAIMED
        standing = PROVEN if proof in proving else ASSERTED
        known.append(Known(claim.kind, claim.site, value, standing, proof.value, claim.value))
    if not known:
        raise NoSender
    return tuple(known)


def need(known: Iterable[Known], needs: Needs) -> None:
    proven = []
    for claim in known:
        needs.identifiers.add(claim.key)
        if claim.standing == PROVEN:
            proven.append(claim.key)
        else:
            needs.identifiers.add(_twin(claim))
    if len(proven) > 1:
        needs.together.add(tuple(proven))


def _twin(claim: Known) -> IdentifierKey:
    """The same address, where somebody proved it."""
    return (claim.kind, claim.site, claim.value, PROVEN)


@dataclass(frozen=True, slots=True)
class Sender:
    customer: Customer
    identifier: Identifier


# The strongest name for a person is the site's own account, then the channel's own id of an account, then an address (which passes
# on), then a browser session.
_RANK = {"user_id": 0, "wa_user_id": 1, "device": 4}


def _rank(claim: Known, own: Known) -> int:
    """What a sender speaks from stands before the addresses proved beside it: an answer goes there, and there it is read."""
    return min(_RANK.get(claim.kind, 3), 2 if claim is own else 4)


def _current(key: IdentifierKey, facts: Facts) -> Identifier | None:
    """The identifier as its present holder has it."""
    identifier = facts.identifiers.get(key)
    return identifier if identifier is not None and identifier.ended_at is None else None


def _owner(key: IdentifierKey, facts: Facts) -> Customer | None:
    identifier = _current(key, facts)
    return facts.live_customer(identifier.customer_id) if identifier is not None and identifier.customer_id is not None else None


def resolve(
    known: tuple[Known, ...], name: str, source: str, facts: Facts, *, actor: str = "hub", unless_known: Customer | None = None
) -> Sender:
    """The sender's customer, made, found or joined, with the evidence noted. `known[0]` is the sender's own address; who nobody
    knows yet becomes `unless_known`, where that is given."""
    own = known[0]
    # An unproven sender threads with itself alone; whatever it says of others is noted and joins nothing.
    proven = [claim for claim in known if claim.standing == PROVEN] if own.standing == PROVEN else [own]
    party = sorted((claim for claim in proven if _bridges(claim, facts)), key=lambda claim: _rank(claim, own)) or [own]
    if own.proof == Proof.RECORD:
        party = [claim for claim in party if not _outlived(claim, party, facts)] or [own]
    else:
        _let_new_holders_in(party, facts)
    met = _meet(party, source, facts, actor)
    customer = met.customer
    if customer is None and unless_known is not None:
        customer = unless_known
    if customer is None:
        customer = Customer(facts.new_id("customer"), name, facts.now, own_name=name)
        facts.add_customer(customer)
        facts.emit("customer.created", customer_id=customer.id)
    held = [(claim, _hold_identifier(claim, customer, met.party, source, facts)) for claim in met.party]
    joined = [(claim, identifier) for claim, identifier in held if identifier.customer_id == customer.id]
    # The own address of somebody who signed in at another's browser stays the other's: the strongest name answers for it.
    said, speaker = next(((claim, identifier) for claim, identifier in joined if claim is own), joined[0])
    _tell_name(customer, speaker, name, facts)
    for claim, other in joined:
        if other is speaker or _stood_together(speaker, other, facts):
            continue
        noted = _append(speaker, other, _how(said, claim), source, facts)
        if home_of(other) != home_of(speaker):
            _tie(speaker, other, noted, actor, facts)
    news = {claim.key for claim in known if claim not in met.party and _note_claim(claim, speaker, customer, source, facts)}
    for claim, other_home, reason in met.asked:
        # A record says the same again at every import, and a session with every message; an agent is asked once.
        if facts.live_customer(other_home) is not customer and claim.key in news:
            bonds.suggest(facts, home_of(speaker), other_home, rule="proof", score=900, reason=reason)
    if own.standing == ASSERTED and customer.created_at == facts.now:
        _point_at_twin(own, speaker, customer, _UNPROVEN, facts)
    return Sender(customer, speaker)


def _tie(left: Identifier, right: Identifier, evidence: Evidence, actor: str, facts: Facts) -> JoinLog:
    ends = (left.id, right.id)
    return bonds.tie(facts, home_of(left), home_of(right), op="join", rule=TOGETHER, actor=actor, evidence=[evidence], by=ends)


def _bridges(claim: Known, facts: Facts) -> bool:
    """Whether an identifier may tie people together: no role mailbox, short code or the like, and not known to be two people's."""
    identifier = facts.identifiers.get(claim.key)
    return not bridging.why_not(claim.kind, claim.value) and (identifier is None or identifier.shared_at is None)


def _let_new_holders_in(party: list[Known], facts: Facts) -> None:
    """A new WhatsApp account on a number that another one spoke from: the number has a new holder, whom the old history is none of."""
    accounts = {(claim.site, claim.value) for claim in party if claim.kind == "wa_user_id"}
    if not accounts:
        return
    for claim in party:
        number = _current(claim.key, facts) if claim.kind == "phone" else None
        if number is None or number.customer_id is None:
            continue
        for other in facts.identifiers_of[number.customer_id]:
            if other.kind != "wa_user_id" or other.ended_at is not None or (other.site, other.value) in accounts:
                continue
            beside = (*facts.evidence_of.get(other.id, ()), *facts.evidence_of.get(number.id, ()))
            if any({e.identifier_id, e.other_id} == {other.id, number.id} for e in beside):
                let_go(number, facts)
                break


def _outlived(claim: Known, party: list[Known], facts: Facts) -> bool:
    """Whether whom a record names has lost this value since: a record may be of yesterday, and puts nothing back into their hands."""
    holder = _owner(claim.key, facts)
    owners = {owner.id for other in party if (owner := _owner(other.key, facts)) is not None and owner is not holder}
    same = (claim.kind, claim.site, claim.value)
    return any(i.ended_at is not None and (i.kind, i.site, i.value) == same for owner in owners for i in facts.identifiers_of[owner])


def let_go(identifier: Identifier, facts: Facts) -> None:
    """A value passes out of its holder's hands: what came by it stays with the holder, whoever brings it next is somebody else."""
    identifier.ended_at = facts.now
    facts.change(identifier)
    if identifier.customer_id is not None:
        facts.emit("customer.identified", customer_id=identifier.customer_id)


@dataclass(slots=True)
class _Met:
    """Whose proven claims these are: the one customer so far, the claims that are theirs, and the homes an agent should be asked about."""

    party: list[Known]
    customer: Customer | None = None
    asked: list[tuple[Known, int, str]] = field(default_factory=list)


def _meet(party: list[Known], source: str, facts: Facts, actor: str) -> _Met:
    """Join the customers these proven claims belong to, where nothing speaks against it; who does not belong leaves the party."""
    met = _Met(list(party))
    anchor: tuple[Known, Identifier] | None = None
    for claim in party:
        identifier, owner = _current(claim.key, facts), _owner(claim.key, facts)
        if identifier is None or owner is None or owner is met.customer:
            continue
        # Who answers to the strongest name speaks; whether the others' owners are the same person is judged.
        verdict = _judge(claim, party, met.customer, owner, facts) if claim is not party[0] else Verdict.JOIN
        if verdict is not Verdict.JOIN:
            rest = next((i for i in facts.identifiers_of[owner.id] if i is not identifier), identifier)
            # A record alone takes nothing away that somebody proved: one wrong file would tear every conversation apart.
            if verdict is Verdict.SHARED and (claim.proof != Proof.RECORD or identifier.proof == Proof.RECORD):
                bonds.share(facts, identifier)
            met.party.remove(claim)
            if verdict is not Verdict.APART:
                reason = (_ASKED_BY_RECORD if claim.proof == Proof.RECORD else _ASKED)[verdict].format(identifier.address)
                met.asked.append((claim, home_of(rest), reason))
        elif met.customer is None or anchor is None:
            met.customer, anchor = owner, (claim, identifier)
        else:
            noted = _append(anchor[1], identifier, _how(anchor[0], claim), source, facts)
            row = _tie(anchor[1], identifier, noted, actor, facts)
            met.customer = bonds.join(facts, met.customer, owner, rule=TOGETHER, actor=actor, join_id=row.id)
    return met


TOGETHER = "proved together"
_ASKED = {
    Verdict.SHARED: "Both proved {}: it is shared, and joins nobody by itself.",
    Verdict.PARTED: "Both proved {}, after somebody said that they are two people.",
    Verdict.MANY: "Both proved {}, and more belongs to one of them than to most people.",
}
_ASKED_BY_RECORD = {
    Verdict.SHARED: "On record both have {}, and two accounts of one site.",
    Verdict.PARTED: "On record both have {}; somebody said that they are two people.",
    Verdict.MANY: "On record both have {}, and more belongs to one of them than to most people.",
}


def _judge(claim: Known, party: list[Known], customer: Customer | None, owner: Customer, facts: Facts) -> Verdict:
    left = facts.identifiers_of[customer.id] if customer is not None else []
    right = facts.identifiers_of[owner.id]
    if claim.proof == Proof.RECORD and claim.kind == "phone" and _of_another_account(party, right):
        return Verdict.MANY
    ties: list[JoinLog] = []
    through = 0
    apart = False
    if customer is not None or joining.two_accounts(party, right):
        both = [one for one in (customer, owner) if one is not None]
        ties = [row for one in both for row in joining.live(facts.ties_of[one.id]) if not _of_browser(row, facts)]
        identifier = facts.identifiers[claim.key]
        through = sum(identifier.id in (row.left_identifier, row.right_identifier) for row in ties)
    if customer is not None:
        apart = bool(joining.parted(facts.homes_of[customer.id], facts.homes_of[owner.id], facts.cannot_of[customer.id]))
    return joining.verdict(claim, left, right, speaking=party, parted=apart, ties=ties, tied_by_bridge=through, now=facts.now)


def _of_another_account(party: list[Known], holder: list[Identifier]) -> bool:
    """Whether a number's holder speaks from another WhatsApp account than the one a record puts beside the number."""
    said = {(claim.site, claim.value) for claim in party if claim.kind == "wa_user_id"}
    speaks = {(i.site, i.value) for i in holder if i.kind == "wa_user_id" and i.ended_at is None}
    return bool(said and speaks and not said & speaks)


def _of_browser(row: JoinLog, facts: Facts) -> bool:
    """Whether a tie holds a browser session alone: people have many of those in a life, and each proves itself anew."""
    ends = (facts.identifiers_by_id.get(row.left_identifier or 0), facts.identifiers_by_id.get(row.right_identifier or 0))
    return any(end is not None and end.kind == "device" for end in ends)


def _hold_identifier(claim: Known, customer: Customer, party: list[Known], source: str, facts: Facts) -> Identifier:
    identifier = facts.identifiers.get(claim.key)
    if identifier is None or identifier.ended_at is not None:
        epoch = identifier.epoch + 1 if identifier is not None else 0
        fresh = _new(claim, epoch, customer.id, _home(customer, party, facts), facts)
        facts.add_identifier(fresh)
        facts.add_evidence(Evidence(facts.new_id("evidence"), fresh.id, None, claim.proof, source, facts.now))
        facts.emit("customer.identified", customer_id=customer.id)
        return fresh
    if identifier.customer_id is None:
        identifier.home_id = _home(customer, party, facts)
        identifier.customer_id = customer.id
        identifier.proof = claim.proof
        facts.identifiers_of.setdefault(customer.id, []).append(identifier)
        facts.add_evidence(Evidence(facts.new_id("evidence"), identifier.id, None, claim.proof, source, facts.now))
        facts.change(identifier)
        facts.emit("customer.identified", customer_id=customer.id)
    elif claim.proof == Proof.RECORD:
        return identifier  # no proof of today, and answers go to the address as its owner writes it
    elif identifier.customer_id == customer.id and identifier.proof == Proof.RECORD:
        # So far on record alone: now its owner speaks.
        identifier.proof, identifier.address, identifier.last_proof_at = claim.proof, claim.address, facts.now
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


def _home(customer: Customer, party: list[Known], facts: Facts) -> int:
    """The home of an identifier first seen now: that of the strongest one it stands beside."""
    for claim in party:
        beside = _current(claim.key, facts)
        if beside is not None and beside.customer_id == customer.id:
            return home_of(beside)
    return customer.id


def _new(claim: Known, epoch: int, customer_id: int | None, home_id: int | None, facts: Facts) -> Identifier:
    return Identifier(
        facts.new_id("identifier"),
        claim.kind,
        claim.site,
        claim.value,
        claim.standing,
        epoch,
        customer_id,
        claim.proof,
        claim.address,
        facts.now,
        facts.now,
        home_id,
    )


def _tell_name(customer: Customer, speaker: Identifier, name: str, facts: Facts) -> None:
    """The first name a node was told is its own; the customer shows its oldest node's, or else the first of the others'."""
    node = facts.customers.get(home_of(speaker))
    told = bool(name) and node is not None and not node.own_name
    if told and node is not None:
        node.own_name = name
        facts.change(node)
    if name and (not customer.name or (told and node is customer)):
        customer.name = name
        facts.change(customer)


def _note_claim(claim: Known, speaker: Identifier, customer: Customer, source: str, facts: Facts) -> bool:
    """Keep what a sender says of other addresses: evidence, and a hint where somebody else proved one of them. Whether it is new."""
    identifier = facts.identifiers.get(claim.key)
    if identifier is None:
        identifier = _new(claim, 0, None, None, facts)
        facts.add_identifier(identifier)
    proof = claim.proof
    if proof == Proof.CLAIMED and _claimed(customer, facts) >= facts.policy.claims_held:
        proof = Proof.SEEN.value  # so many foreign addresses are held for what one person types, and no more
    if _note(speaker, identifier, facts, proof=proof, source=source) is None:
        return False
    if claim.standing == ASSERTED:
        _point_at_twin(claim, speaker, customer, _STANDS if claim.proof == Proof.SEEN else _GAVE, facts)
    return True


_GAVE = "Gave the address {}, which the other one has proved."
_STANDS = "{}, which the other one has proved, stands in their mail."
_UNPROVEN = "Writes as {} without proof; the other one has proved it."


def _point_at_twin(claim: Known, speaker: Identifier, customer: Customer, reason: str, facts: Facts) -> None:
    """An agent is asked about whoever proved what this one merely says."""
    twin, owner = _current(_twin(claim), facts), _owner(_twin(claim), facts)
    if twin is not None and owner is not None and owner is not customer:
        bonds.suggest(facts, home_of(speaker), home_of(twin), rule="claimed", score=750, reason=reason.format(claim.address))


def _claimed(customer: Customer, facts: Facts) -> int:
    noted = {
        e.other_id
        for i in facts.identifiers_of[customer.id]
        for e in facts.evidence_of.get(i.id, ())
        if e.proof == Proof.CLAIMED and e.withdrawn_at is None
    }
    return len(noted)


_TELLING = (Proof.OTP, Proof.SIGNED, Proof.AGENT, Proof.RECORD, Proof.DMARC, Proof.CHANNEL)


def _how(left: Known, right: Known) -> str:
    """By what two identifiers were proved together: the channel carries either, the other proof is what ties them."""
    return next((proof.value for proof in _TELLING if proof in (left.proof, right.proof)), right.proof)


def _stood_together(left: Identifier, right: Identifier, facts: Facts) -> bool:
    """Whether it is noted already that the two were proved together."""
    beside = (*facts.evidence_of.get(left.id, ()), *facts.evidence_of.get(right.id, ()))
    return any({e.identifier_id, e.other_id} == {left.id, right.id} and e.proof in TYING and e.withdrawn_at is None for e in beside)


def _append(speaker: Identifier, other: Identifier, proof: str, source: str, facts: Facts) -> Evidence:
    row = Evidence(facts.new_id("evidence"), speaker.id, other.id, proof, source, facts.now)
    facts.add_evidence(row)
    return row


def _note(speaker: Identifier, other: Identifier, facts: Facts, *, proof: str, source: str) -> Evidence | None:
    """Append evidence once for each (speaker, other, proof); None where it is known."""
    if any(e.other_id == other.id and e.proof == proof and e.withdrawn_at is None for e in facts.evidence_of.get(speaker.id, ())):
        return None
    row = _append(speaker, other, proof, source, facts)
    if speaker.customer_id is not None and other.customer_id != speaker.customer_id:
        facts.emit("customer.identified", customer_id=speaker.customer_id)
    return row


def reassign(previous: tuple[Known, ...], present: tuple[Known, ...], source: str, facts: Facts) -> None:
    """A channel or carrier says that what identified somebody does so no more; `present` is what does from now on, if it said so.

    What came by the old values stays with their holder. A notice about nobody we know changes nothing.
    """
    gone = [i for i in (_current(claim.key, facts) for claim in previous) if i is not None and i.customer_id is not None]
    if not gone:
        return
    if present:
        lead = min((claim for claim in previous if _owner(claim.key, facts)), key=lambda claim: _RANK.get(claim.kind, 2))
        # The channel itself says that the old account and the new one are one person's.
        resolve((lead, *present), "", source, facts, actor="channel")
    kept = {claim.key for claim in present}
    for identifier in gone:
        if (identifier.kind, identifier.site, identifier.value, identifier.standing) not in kept:
            let_go(identifier, facts)
    if len(present) > 1:
        # They stand together too, not only each beside what is gone: the next account on that number is somebody else's.
        resolve(present, "", source, facts, actor="channel")
