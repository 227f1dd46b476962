"""Where a message stands: on which ticket, in whose conversation, and whether an agent must decide that first. Pure.

A mail names what it answers by our signed reply token, by In-Reply-To and References, or (other channels) by the quoted message's id.
All of these can be copied by anybody who has seen a mail, so none opens a ticket by itself: the sender must fit. Who does not, or whose
DMARC fails, is kept apart and shown to an agent for review; a mail without any verdict (DMARC none) threads where its address fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hub.contract import InboundMessage
from hub.conversations.tickets import is_unresolved
from hub.customers.resolution import ASSERTED, Known
from hub.storage.facts import Facts
from hub.storage.records import Customer, Identifier, Participant, Ticket


@dataclass(frozen=True, slots=True)
class Pointer:
    """A ticket a message says it answers, and to whom what it answers was sent."""

    ticket: Ticket
    sent_to: Identifier | None


@dataclass(frozen=True, slots=True)
class Standing:
    """`ticket` is the one it answers, where it may stand there; else `review` says why an agent must look first (empty: nothing is
    doubtful), and `review_of` is the ticket it says it answers."""

    ticket: Ticket | None = None
    review: str = ""
    review_of: Ticket | None = None


def pointers(said: InboundMessage, token: tuple[int, int] | None, facts: Facts) -> list[Pointer]:
    """What a message says it answers: our token first, then In-Reply-To and References (the latest first), then the message quoted."""
    found: list[Pointer] = []
    if token is not None and (ticket := facts.tickets.get(token[0])) is not None:
        found.append(Pointer(ticket, facts.identifiers_by_id.get(token[1])))
    quoted = [facts.by_mail_id.get(mail_id) for mail_id in (said.in_reply_to, *reversed(said.references)) if mail_id]
    quoted.append(facts.by_provider_id.get(said.quoted_id) if said.quoted_id else None)
    for message in quoted:
        ticket = facts.tickets.get(message.ticket_id) if message is not None and message.ticket_id is not None else None
        if message is not None and ticket is not None:
            found.append(Pointer(ticket, facts.identifiers_by_id.get(message.identifier_id or 0)))
    return found


def stand(said: InboundMessage, known: Known, sender: Customer, pointed: Iterable[Pointer], facts: Facts) -> Standing:
    """Whether a message may stand where it points to."""
    foreign: Ticket | None = None
    for pointer in pointed:
        owner = facts.live_customer(pointer.ticket.conversation_id)
        if owner is sender:
            if not said.doubt or pointer.ticket.review or pointer.ticket.reviewed_at is not None:
                return Standing(pointer.ticket)
            continue  # a forger of this very address: what it opened before is none of theirs
        fits = _same_address(known, pointer.sent_to) or is_admitted(pointer.ticket, known, facts)
        if fits and not said.doubt:
            return Standing(pointer.ticket)
        foreign = foreign or pointer.ticket
    if said.automatic:
        return Standing()
    if said.doubt:
        return Standing(review=said.doubt, review_of=foreign)
    if foreign is not None:
        return Standing(review=f"{known.address} answers a mail of ticket #{foreign.id}, which is another customer's.", review_of=foreign)
    return Standing()


def _same_address(known: Known, sent_to: Identifier | None) -> bool:
    """Whether somebody writes from the very address that what they answer was sent to, whom nobody had judged then or has now."""
    if sent_to is None or ASSERTED not in (known.standing, sent_to.standing):
        return False
    return (sent_to.kind, sent_to.value) == (known.kind, known.value)


def is_admitted(ticket: Ticket, known: Known, facts: Facts) -> bool:
    """Whether an agent has admitted this address to the ticket's mails."""
    rows: list[Participant] = facts.found.get(("participant", "value", known.value), [])
    return known.kind == "email" and any(row.ticket_id == ticket.id and row.ended_at is None for row in rows)


# Prefixes by which mail programs of many languages mark an answer or a forward.
_PREFIX = re.compile(
    r"\s*(?:re|aw|antw|antwort|wg|fw|fwd|tr|rv|res|enc|sv|vs|vb|vl|odp|pd|ynt|ilt|atb|rif|r|i|doorst|回复|答复|转发|返信|転送)(?:\[\d+\])?\s*[:\uff1a]",
    re.IGNORECASE,
)


def base_subject(subject: str) -> str:
    """A subject without the prefixes of answers and forwards, as RFC 5256 section 2.1 does, in small letters."""
    while (match := _PREFIX.match(subject)) is not None:
        subject = subject[match.end() :]
    return " ".join(subject.lower().split())


def by_subject(said: InboundMessage, own: Iterable[Ticket]) -> Ticket | None:
    """The fallback where a mail names nothing it answers: the sender's own unresolved ticket of the same subject, where it says that it
    is an answer. A subject alone, of somebody else's ticket, is never looked at."""
    base = base_subject(said.subject)
    if not base or base == " ".join(said.subject.lower().split()):
        return None
    same = [ticket for ticket in own if is_unresolved(ticket) and base_subject(ticket.subject) == base]
    return max(same, key=lambda ticket: (ticket.last_at, ticket.id), default=None)
