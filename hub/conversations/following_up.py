"""Follow up when: an agent's promise to tell a customer something once it happens, kept when a program of the business says it has.

The text is prepared by the agent and sent into the same conversation, by the one doorway out, as the agent's own; the ticket stays as
it is. What forbids it (a stop word, a channel that takes nothing now, a value that is missing) is told to the agent, and the promise can
be kept by another call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select

from hub.conversations.commands import Reply
from hub.conversations.text import storable
from hub.conversations.windows import is_open, last_heard, why_shut
from hub.policy import DAY, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import FollowUp
from hub.storage.reader import Reader
from hub.storage.records import Ticket
from hub.storage.tables import metadata
from hub.storage.writer import Writer

AUTOMATIC = "follow-up"  # what the message is marked with
LONGEST_TEXT = 5_000  # characters
LONGEST_DAYS = 365
MOST_WAITING = 20  # on one ticket
MOST_FIRED = 1_000  # by one call
OPEN = ("waiting", "refused")  # states in which the promise can still be kept

_KEY = re.compile(r"[a-z0-9][a-z0-9._:-]{0,99}")
_BRACES = re.compile(r"\{[^{}]*\}")
_BLANK = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")

_follow_up = metadata.tables["follow_up"]
_ticket = metadata.tables["ticket"]


# --- pure -------------------------------------------------------------------------------------------------------------


def tidy_key(typed: str) -> str:
    """What is waited for as one word: lower case, blanks as dashes. Raises Refusal."""
    key = re.sub(r"\s+", "-", typed.strip().lower())
    if not _KEY.fullmatch(key):
        raise Refusal(
            "Name what you wait for in letters, digits, dots, colons and dashes, such as order-1001-shipped (100 characters at the most)."
        )
    return key


def blanks(text: str) -> list[str]:
    """The names that a text leaves to be filled in, `{tracking}`, in the order they stand."""
    return list(dict.fromkeys(_BLANK.findall(text)))


def check_blanks(text: str) -> None:
    """Raises Refusal where braces hold what no call can fill in: it would reach the customer as it stands."""
    wrong = next((found for found in _BRACES.findall(text) if not _BLANK.fullmatch(found)), None)
    if wrong is not None:
        raise Refusal(f"“{wrong}” cannot be filled in. Name a blank in small letters, digits and _, such as {{tracking}}.")


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its blanks filled in, once: what a value says is never read as a blank. Raises Refusal where one is missing."""
    missing = [name for name in blanks(text) if not values.get(name, "").strip()]
    if missing:
        raise Refusal(f"The text wants {', '.join('{' + name + '}' for name in missing)}, which the call did not give.")
    return _BLANK.sub(lambda found: values[found[1]], text)


# --- units of work ---------------------------------------------------------------------------------------------------


def _ticket_of(ticket_id: int, facts: Facts) -> Ticket:
    ticket = facts.tickets.get(ticket_id)
    if ticket is None:
        raise Refusal(f"There is no ticket {ticket_id}.")
    return ticket


def state(what: str, row: FollowUp, ticket: Ticket, facts: Facts, *, agent_id: int | None, **more: Any) -> None:
    facts.emit(
        what,
        customer_id=ticket.conversation_id,
        ticket_id=ticket.id,
        message_id=row.message_id,
        agent_id=agent_id,
        data=json.dumps({"follow_up": row.id, "key": row.key, **more}),
    )


@dataclass(frozen=True, slots=True)
class AddFollowUp:
    """Promise the customer of a ticket to tell them something once `key` happens. Without a channel and an address it goes the way
    back that the ticket has by then."""

    ticket_id: int
    agent_id: int
    key: str
    text: str
    days: float = 30
    channel_id: int | None = None
    identifier_id: int | None = None

    @property
    def _reply(self) -> Reply:
        return Reply(
            *(self.ticket_id, self.agent_id, self.text, ""),
            channel_id=self.channel_id,
            identifier_id=self.identifier_id,
            automatic=AUTOMATIC,
        )

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.ways_out = True
        needs.rows.add(("follow_up", "ticket_id", self.ticket_id))

    def decide(self, facts: Facts) -> int:
        """The follow-up's number. Raises Refusal."""
        ticket, key, text = _ticket_of(self.ticket_id, facts), tidy_key(self.key), storable(self.text.strip())
        if not text:
            raise Refusal("Write what the customer is to be told.")
        if len(text) > LONGEST_TEXT:
            raise Refusal(f"The text has {len(text)} characters; {LONGEST_TEXT} is the most.")
        check_blanks(text)
        if not 0 < self.days <= LONGEST_DAYS:
            raise Refusal(f"A promise is kept for {LONGEST_DAYS} days at the most, and more than none.")
        waiting = [row for row in facts.found[("follow_up", "ticket_id", self.ticket_id)] if row.state in OPEN]
        if any(row.key == key for row in waiting):
            raise Refusal(f"This ticket waits for {key} already. Cancel that first, to change its text.")
        if len(waiting) >= MOST_WAITING:
            raise Refusal(f"This ticket waits for {MOST_WAITING} things already. Cancel one first.")
        self._reply.way(ticket, facts)  # what cannot be sent even now is not promised
        row = FollowUp(facts.new_id("follow_up"), key, ticket.id, text, "waiting", self.agent_id, facts.now)
        row.channel_id, row.identifier_id = self.channel_id, self.identifier_id
        row.expires_at = facts.now + int(self.days * DAY)
        facts.insert(row)
        state("follow_up.added", row, ticket, facts, agent_id=self.agent_id)
        return row.id


@dataclass(frozen=True, slots=True)
class CancelFollowUp:
    """Take a promise back before it was kept."""

    follow_up_id: int
    ticket_id: int
    agent_id: int

    def needs(self, needs: Needs) -> None:
        needs.tickets.add(self.ticket_id)
        needs.rows.add(("follow_up", "id", self.follow_up_id))

    def decide(self, facts: Facts) -> None:
        """Raises Refusal."""
        row = next(iter(facts.found[("follow_up", "id", self.follow_up_id)]), None)
        if row is None or row.ticket_id != self.ticket_id or row.state not in OPEN:
            raise Refusal("This is no longer waiting: it was sent or cancelled meanwhile, or it ran out. Reload and look again.")
        row.state = "cancelled"
        facts.change(row)
        state("follow_up.cancelled", row, _ticket_of(self.ticket_id, facts), facts, agent_id=self.agent_id)


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one promise: `sent`, `refused` (`why`), `expired`, or `already` (sent by an earlier call, or cancelled)."""

    outcome: str
    why: str = ""
    message_id: int | None = None


@dataclass(frozen=True, slots=True)
class KeepFollowUp:
    """What was waited for happened: send what was promised. Done twice it is sent once. `heard_at` is when the customer last wrote
    there, read a moment before."""

    follow_up_id: int
    ticket_id: int
    text: str
    agent_id: int
    channel_id: int | None
    identifier_id: int | None
    heard_at: int | None
    values: Mapping[str, str]
    actor: str

    def _reply(self, text: str) -> Reply:
        return Reply(
            *(self.ticket_id, self.agent_id, text, f"follow-up-{self.follow_up_id}"),
            channel_id=self.channel_id,
            identifier_id=self.identifier_id,
            automatic=AUTOMATIC,
        )

    def needs(self, needs: Needs) -> None:
        self._reply(self.text).needs(needs)
        needs.rows.add(("follow_up", "id", self.follow_up_id))

    def decide(self, facts: Facts) -> Kept:
        row = next(iter(facts.found[("follow_up", "id", self.follow_up_id)]), None)
        ticket = facts.tickets.get(self.ticket_id)
        if row is None or ticket is None or row.ticket_id != self.ticket_id or row.state not in OPEN:
            return Kept("already")
        if row.expires_at is not None and row.expires_at <= facts.now:
            expire(row, ticket, facts)
            return Kept("expired")
        row.fired_at, row.fired_by = facts.now, self.actor
        facts.change(row)
        try:
            sent = self._send(ticket, facts)
        except Refusal as refusal:  # before anything was written
            row.state, row.error = "refused", str(refusal)
            state("follow_up.refused", row, ticket, facts, agent_id=None, why=row.error, actor=self.actor)
            return Kept("refused", row.error)
        row.state, row.error, row.message_id = "sent", "", sent
        state("follow_up.sent", row, ticket, facts, agent_id=None, actor=self.actor)
        return Kept("sent", message_id=sent)

    def _send(self, ticket: Ticket, facts: Facts) -> int:
        if ticket.spam_at is not None:
            raise Refusal("The ticket is spam: nothing is sent to whoever wrote it.")
        reply = self._reply(storable(fill(self.text, self.values)))
        rule, _ = reply.way(ticket, facts)
        if not is_open(rule, self.heard_at, facts.now):
            raise Refusal(why_shut(rule))
        return reply.decide(facts).message_id


def expire(row: FollowUp, ticket: Ticket, facts: Facts) -> None:
    """Note that what was waited for did not happen in time, so that somebody may tell the customer."""
    row.state = "expired"
    facts.change(row)
    state("follow_up.expired", row, ticket, facts, agent_id=None)


@dataclass(frozen=True, slots=True)
class ExpireFollowUps:
    """These promises have run out: (follow-up, its ticket)."""

    over: tuple[tuple[int, int], ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("follow_up", "id", id_) for id_, _ in self.over)
        needs.tickets.update(ticket_id for _, ticket_id in self.over)

    def decide(self, facts: Facts) -> int:
        """How many had."""
        done = 0
        for id_, ticket_id in self.over:
            for row in facts.found[("follow_up", "id", id_)]:
                ticket = facts.tickets.get(ticket_id)
                if row.state in OPEN and row.expires_at is not None and row.expires_at <= facts.now and ticket is not None:
                    expire(row, ticket, facts)
                    done += 1
        return done


# --- statements ------------------------------------------------------------------------------------------------------


def waiting_for(key: str) -> Select[Any]:
    """The promises that one thing keeps, oldest first, each with when its customer last wrote where it would go."""
    heard = last_heard(
        _ticket.c.conversation_id,
        func.coalesce(_follow_up.c.channel_id, _ticket.c.channel_id),
        func.coalesce(_follow_up.c.identifier_id, _ticket.c.identifier_id),
    )
    names = ("id", "ticket_id", "text", "agent_id", "channel_id", "identifier_id")
    return (
        select(*(_follow_up.c[name] for name in names), heard.label("heard_at"))
        .select_from(_follow_up.join(_ticket, _ticket.c.id == _follow_up.c.ticket_id))
        .where(_follow_up.c.key == key, _follow_up.c.state.in_(OPEN))
        .order_by(_follow_up.c.id)
        .limit(MOST_FIRED)
    )


def promised(key: str) -> Select[Any]:
    """A row if anybody ever promised anything for this."""
    return select(_follow_up.c.id).where(_follow_up.c.key == key).limit(1)


def keep(row: Row[Any], values: Mapping[str, str], actor: str) -> KeepFollowUp:
    """The unit of work that keeps a promise `waiting_for` found."""
    way = (row.channel_id, row.identifier_id, row.heard_at)
    return KeepFollowUp(row.id, row.ticket_id, row.text, row.agent_id, *way, values, actor)


def of_customer(customer_id: int, limit: int = 20) -> Select[Any]:
    """A customer's promises: those that wait or could not be kept first, then the newest."""
    return (
        select(_follow_up, _follow_up.c.state.in_(OPEN).label("is_open"))
        .select_from(_follow_up.join(_ticket, _ticket.c.id == _follow_up.c.ticket_id))
        .where(_ticket.c.conversation_id == customer_id)
        .order_by(_follow_up.c.state.in_(OPEN).desc(), _follow_up.c.id.desc())
        .limit(limit)
    )


def listed(states: Sequence[str], after: int, limit: int) -> Select[Any]:
    """Promises in these states behind a number, in order, one more than `limit` where there are more."""
    return (
        select(_follow_up, _ticket.c.conversation_id.label("customer_id"))
        .select_from(_follow_up.join(_ticket, _ticket.c.id == _follow_up.c.ticket_id))
        .where(_follow_up.c.state.in_(states), _follow_up.c.id > after)
        .order_by(_follow_up.c.id)
        .limit(limit + 1)
    )


async def sweep_follow_ups(reader: Reader, writer: Writer, now: int) -> int:
    """Note which promises have run out; how many. Raises StorageBusy."""
    over = await reader.all(overdue(now))
    return await writer.run(ExpireFollowUps(tuple((row.id, row.ticket_id) for row in over))) if over else 0


def overdue(now: int, limit: int = 100) -> Select[Any]:
    """Promises that have run out and are not noted so yet."""
    over = (_follow_up.c.state.in_(OPEN), _follow_up.c.expires_at <= now)
    return select(_follow_up.c.id, _follow_up.c.ticket_id).where(*over).order_by(_follow_up.c.id).limit(limit)
