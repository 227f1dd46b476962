"""Tickets: the states of an episode of work and the literal table of what moves one to the next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from hub.policy import Policy, Refusal
from hub.storage.records import Ticket

Status = Literal["open", "pending", "snoozed", "resolved"]
UNRESOLVED = ("open", "pending", "snoozed")

# (state, what happens) -> next state. What is not in the table is refused.
TRANSITIONS: dict[tuple[str, str], Status] = {
    ("open", "customer wrote"): "open",
    ("pending", "customer wrote"): "open",
    ("snoozed", "customer wrote"): "open",  # a new message ends a snooze
    ("resolved", "customer wrote"): "open",  # within reopen_within; later it opens a new ticket
    ("open", "agent answered"): "open",
    ("pending", "agent answered"): "pending",
    ("snoozed", "agent answered"): "snoozed",
    ("resolved", "agent answered"): "resolved",  # a last word does not reopen
    ("open", "resolve"): "resolved",
    ("pending", "resolve"): "resolved",
    ("snoozed", "resolve"): "resolved",
    ("resolved", "reopen"): "open",
    ("snoozed", "reopen"): "open",
    ("pending", "reopen"): "open",
    ("open", "snooze"): "snoozed",
    ("pending", "snooze"): "snoozed",
    ("snoozed", "snooze"): "snoozed",  # until another time
    ("snoozed", "wake"): "open",
}

REFUSED = {
    "resolve": "This ticket is already resolved.",
    "reopen": "This ticket is already open.",
    "snooze": "A resolved ticket cannot be snoozed. Reopen it first.",
    "wake": "This ticket is not snoozed.",
}


def move(ticket: Ticket, what: str) -> Status:
    """The state a ticket goes to. Raises Refusal where the table has no such step."""
    to = TRANSITIONS.get((ticket.status, what))
    if to is None:
        raise Refusal(REFUSED.get(what, f"A ticket that is {ticket.status} cannot {what}."))
    return to


def is_unresolved(ticket: Ticket) -> bool:
    return ticket.status in UNRESOLVED


def choose(tickets: Iterable[Ticket], preferred: Ticket | None, now: int, policy: Policy) -> Ticket | None:
    """The ticket a customer's message belongs to, or None for a new one.

    The ticket the message answers (by its thread) if that is unresolved or may be reopened; else the latest active
    unresolved one; else the latest resolved one within `reopen_within`.
    """
    if preferred is not None and (is_unresolved(preferred) or _may_reopen(preferred, now, policy)):
        return preferred
    known = sorted(tickets, key=lambda t: (t.last_at, t.id), reverse=True)
    for ticket in known:
        if is_unresolved(ticket):
            return ticket
    return next((ticket for ticket in known if _may_reopen(ticket, now, policy)), None)


def latest(tickets: Iterable[Ticket]) -> Ticket | None:
    return max(tickets, key=lambda t: (t.last_at, t.id), default=None)


def _may_reopen(ticket: Ticket, now: int, policy: Policy) -> bool:
    return ticket.spam_at is None and ticket.resolved_at is not None and now - ticket.resolved_at <= policy.reopen_within


# A message made of these alone, in the languages our first users write, asks for nothing ...
_THANKING = frozenset(
    re.findall(
        r"\S+",
        """
        thanks thank thx ty tysm cheers ta  danke dankeschön dank  merci  gracias  obrigado obrigada  grazie  bedankt  tack tak takk
        dziękuję dzięki dziekuje dzieki  teşekkürler teşekkür sağol  спасибо благодарю дякую  ありがとう ありがとうございます
        谢谢 謝謝  감사합니다  شكرا  धन्यवाद
        """,
    )
)
# ... with these beside them. Alone they may answer a question: "ok", "great".
_BESIDE = frozenset(
    re.findall(
        r"\S+",
        """
        you much many so very a lot great perfect awesome lovely super ok okay cool got it  vielen schön sehr gut prima alles klar
        beaucoup bien parfait d accord  muchas mil perfecto vale genial  muito perfeito  mille perfetto tante  je wel hartelijk top
        så mycket mange tusen  bardzo  ederim  большое
        """,
    )
)
_DECORATION = re.compile(r"[\s.,!¡:;()\-–—*_~'\"\u2019\u200d\ufe0e\ufe0f\U0001F000-\U0001FAFF\u2190-\u2BFF！。、]+")
_ASKING = re.compile("[?¿؟？]|[👎😞😟😠😡😢😤😭🙁🙄🤬💩]")


def is_bare_thanks(text: str) -> bool:
    """Whether a message says thank you and nothing else: recorded, but it reopens nothing and holds nothing."""
    if len(text) > 80 or _ASKING.search(text):
        return False
    words = [word for word in _DECORATION.split(text.lower()) if word]
    return any(word in _THANKING for word in words) and all(word in _THANKING or word in _BESIDE for word in words)
