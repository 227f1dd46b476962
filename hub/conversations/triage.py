"""What agents say about a ticket: its tags, how urgent it is, that it is spam."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hub.policy import Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.records import Ticket

PRIORITIES = ("low", "normal", "high", "urgent")
MOST_TAGS = 20
LONGEST_TAG = 40  # characters


def tidy(tags: tuple[str, ...]) -> list[str]:
    """Tags as they are kept: lower case, words joined by a dash, each once. Raises Refusal. Pure."""
    kept = sorted({re.sub(r"[\s_]+", "-", tag.strip().lower()) for tag in tags if tag.strip()})
    if len(kept) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in kept):
        raise Refusal(f"A ticket has {MOST_TAGS} tags at the most, of {LONGEST_TAG} characters each.")
    wrong = next((tag for tag in kept if not re.fullmatch(r"[\w.:-]+", tag)), None)
    if wrong is not None:
        raise Refusal(f"“{wrong}” cannot be a tag: use letters, digits, dots, colons and dashes.")
    return kept


def _known(ticket_id: int, facts: Facts) -> Ticket:
    ticket = facts.tickets.get(ticket_id)
    if ticket is None:
        raise Refusal(f"There is no ticket {ticket_id}.")
    return ticket


@dataclass(frozen=True, slots=True)
class SetTags:
    """Give a ticket these tags, in place of those it had."""

    ticket_id: int
    agent_id: int | None
    tags: tuple[str, ...]

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> bool:
        """Whether anything changed. Raises Refusal."""
        ticket = _known(self.ticket_id, facts)
        after = json.dumps(tidy(self.tags), ensure_ascii=False)
        if after == ticket.tags:
            return False
        added = sorted(set(json.loads(after)) - set(json.loads(ticket.tags)))
        ticket.tags = after
        ticket.version += 1
        facts.change(ticket)
        facts.emit(
            "ticket.tagged",
            customer_id=ticket.conversation_id,
            ticket_id=ticket.id,
            agent_id=self.agent_id,
            data=json.dumps({"tags": after, "added": added}),
        )
        return True


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Say how urgent a ticket is."""

    ticket_id: int
    agent_id: int | None
    priority: str

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> bool:
        """Whether anything changed. Raises Refusal."""
        ticket = _known(self.ticket_id, facts)
        if self.priority not in PRIORITIES:
            raise Refusal(f"A priority is one of {', '.join(PRIORITIES)}.")
        if ticket.priority == self.priority:
            return False
        ticket.priority = self.priority
        ticket.version += 1
        facts.change(ticket)
        facts.emit(
            "ticket.prioritised",
            customer_id=ticket.conversation_id,
            ticket_id=ticket.id,
            agent_id=self.agent_id,
            data=json.dumps({"priority": self.priority}),
        )
        return True


@dataclass(frozen=True, slots=True)
class MarkSpam:
    """A ticket is spam: closed at once, without a survey or a cool-down, and it holds nobody. `spam=False` takes that back."""

    ticket_id: int
    agent_id: int | None
    spam: bool = True

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> None:
        """Raises Refusal."""
        ticket = _known(self.ticket_id, facts)
        if (ticket.spam_at is not None) == self.spam:
            raise Refusal("This ticket is marked as spam already." if self.spam else "This ticket is not marked as spam.")
        ticket.spam_at = facts.now if self.spam else None
        ticket.status = "resolved" if self.spam else "open"
        ticket.resolved_at = facts.now if self.spam else None
        ticket.snoozed_until = ticket.waiting_since = None
        if self.spam:
            ticket.review = ""
        ticket.version += 1
        facts.change(ticket)
        event = "ticket.spam" if self.spam else "ticket.reopened"
        facts.emit(event, customer_id=ticket.conversation_id, ticket_id=ticket.id, agent_id=self.agent_id)
