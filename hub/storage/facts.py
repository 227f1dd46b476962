"""What a batch of work asks to know, what was read for it, and what it decided: the seam between decisions and engines.

An engine fills `Facts` for the `Needs` of a whole batch with a few set queries, lets each piece of work decide in turn
(later work sees what earlier work decided), and writes the outcome in bulk. Nothing here touches a database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from hub.policy import Policy
from hub.storage.records import (
    Attachment,
    Attribute,
    CannotLink,
    Customer,
    Delivery,
    Event,
    Evidence,
    Hold,
    Identifier,
    JoinLog,
    Message,
    OptOut,
    Quarantine,
    Spread,
    Ticket,
)

IdentifierKey = tuple[str, str, str, str]  # kind, site, value, standing
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """A unit of work: plain data that says what it needs to know and decides from that alone.

    It may run twice (a batch is redone unit by unit when one fails), so deciding changes nothing but the facts.
    """

    def needs(self, needs: Needs) -> None: ...

    def decide(self, facts: Facts) -> R_co: ...


class Ids(Protocol):
    """Where new row ids come from."""

    def take(self, table: str) -> int:
        """A row id of this table that was never handed out by a commit."""
        ...


class Counting:
    """Ids counted on from the newest row, where one process alone writes."""

    def __init__(self, following: dict[str, int]) -> None:
        self._following = following

    def take(self, table: str) -> int:
        number = self._following[table]
        self._following[table] = number + 1
        return number


FURTHEST = 4_200 * 1_000_000  # microseconds: no delivery is ever put off for so long (an hour asked for, and its jitter)


def is_due(due_at: int, now: int) -> bool:
    """Whether a queued delivery may go. One due further ahead than anything is put off was noted by a clock that has been set back."""
    return due_at <= now or due_at > now + FURTHEST


@dataclass(slots=True)
class Needs:
    """Keys to read for a batch. Whatever is found brings its neighbours: see `Facts`."""

    dedupe: set[tuple[int, str]] = field(default_factory=set)
    identifiers: set[IdentifierKey] = field(default_factory=set)
    customers: set[int] = field(default_factory=set)
    together: set[tuple[IdentifierKey, ...]] = field(default_factory=set)  # said to be one person's: if their owners differ, bonds too
    bonds: set[int] = field(default_factory=set)  # customers that may be parted or joined: what they are made of
    opt_outs: set[tuple[str, str]] = field(default_factory=set)  # (kind, value)
    attributes: bool = False  # the homes of the identifiers read, and what is on record of them
    ways_out: bool = False  # of every identifier of the customers read: its opt-outs, and when it was last heard from on each channel
    tickets: set[int] = field(default_factory=set)
    messages: set[int] = field(default_factory=set)
    beside: set[int] = field(default_factory=set)  # messages read, of which the newest others on their tickets are wanted too
    newest_in: set[int] = field(default_factory=set)  # tickets of which the customer's last message is wanted
    mail_ids: set[str] = field(default_factory=set)
    provider_ids: set[str] = field(default_factory=set)
    drafts: set[str] = field(default_factory=set)
    deliveries: set[int] = field(default_factory=set)
    attachments: set[str] = field(default_factory=set)
    quarantine: set[int] = field(default_factory=set)
    quarantined: set[tuple[int, str]] = field(default_factory=set)  # (channel, kind) of which only so many are kept
    claim: int = 0  # so many deliveries that are due and head their lane, to each target (kind of delivery, name) ...
    claim_not: set[tuple[str, str]] = field(default_factory=set)  # ... but none to these: their hands are full, or their gate is shut
    leased: bool = False  # every delivery being sent (at start: by a process that is gone)
    leases_below: int = 0  # holds whose lease ends before this time
    asleep_until: int = 0  # snoozed tickets due to wake by this time
    rows: set[tuple[str, str, Any]] = field(default_factory=set)  # (table, column, value): small tables, cold paths


class Facts:
    """The rows read for a batch, and after deciding the rows to write.

    A customer comes with its identifiers, what they claimed, its unresolved and its latest ticket, and its active holds;
    a ticket, message or identifier comes with its customer; a ticket with the cards shown of it. Bonds are a customer's homes, the
    ties between them, what parts them from others, and how the messages lie.
    """

    def __init__(self, now: int, policy: Policy, ids: Ids) -> None:
        self.now = now
        self.policy = policy
        self._ids = ids
        self.dedupe: set[tuple[int, str]] = set()
        self.identifiers: dict[IdentifierKey, Identifier] = {}
        self.identifiers_by_id: dict[int, Identifier] = {}
        self.customers: dict[int, Customer] = {}
        self.identifiers_of: dict[int, list[Identifier]] = {}
        self.evidence_of: dict[int, list[Evidence]] = {}  # by the identifier that spoke
        self.homes_of: dict[int, set[int]] = {}  # by live customer, itself among them
        self.ties_of: dict[int, list[JoinLog]] = {}
        self.cannot_of: dict[int, list[CannotLink]] = {}
        self.spread_of: dict[int, list[Spread]] = {}
        self.attributes_of: dict[int, list[Attribute]] = {}  # by home
        self.opt_outs: dict[tuple[str, str], list[OptOut]] = {}
        self.heard: dict[tuple[int, int], int] = {}  # by channel and identifier, where a channel has a window: when they last wrote
        self.tickets: dict[int, Ticket] = {}
        self.tickets_of: dict[int, list[Ticket]] = {}
        self.messages: dict[int, Message] = {}
        self.by_mail_id: dict[str, Message] = {}
        self.by_provider_id: dict[str, Message] = {}
        self.by_draft: dict[str, Message] = {}
        self.holds_of: dict[int, list[Hold]] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.slots: dict[str, Delivery] = {}
        self.claimable: list[Delivery] = []
        self.leased: list[Delivery] = []
        self.expiring: list[Hold] = []
        self.asleep: list[Ticket] = []
        self.attachments: dict[str, Attachment] = {}
        self.quarantine: dict[int, Quarantine] = {}
        self.quarantined: dict[tuple[int, str], deque[tuple[int, int]]] = {}  # (id, received at), oldest first
        self.found: dict[tuple[str, str, Any], list[Any]] = {}
        # What was decided.
        self.inserted: dict[str, list[Any]] = {}
        self.changed: dict[str, dict[Any, Any]] = {}
        self.removed: list[tuple[str, str, Any]] = []  # (table, column, value)
        self.relabels: list[tuple[str, tuple[Any, ...]]] = []  # rows that belong to another customer now: see `columns.RELABEL`
        self.events: list[Event] = []

    def new_id(self, table: str) -> int:
        """The next row id of a table; a number handed out in a batch that fails is handed out again."""
        return self._ids.take(table)

    def insert(self, row: Any) -> None:
        """Write this row with the batch, and let later units find it. It may still be altered until the batch is written."""
        rows = self.inserted.get(row.table)
        if rows is None:
            self.inserted[row.table] = [row]
        else:
            rows.append(row)
        for (table, column, value), found in self.found.items():
            if table == row.table and getattr(row, column) == value:
                found.append(row)

    def change(self, row: Any) -> None:
        """Write this row's mutable columns with the batch."""
        rows = self.changed.setdefault(row.table, {})
        rows[id(row)] = row

    def remove(self, table: str, column: str, value: Any) -> None:
        """Delete the rows that hold this value, with the batch; later units find them no more."""
        self.removed.append((table, column, value))
        for (found, _, _), rows in self.found.items():
            if found == table:
                rows[:] = [row for row in rows if getattr(row, column) != value]

    def emit(
        self,
        type: str,
        *,
        customer_id: int | None = None,
        ticket_id: int | None = None,
        message_id: int | None = None,
        agent_id: int | None = None,
        data: str = "{}",
    ) -> None:
        """State a past-tense fact. Storage numbers it last; reactions to it are decided before the next unit."""
        self.events.append(Event(0, type, self.now, customer_id, ticket_id, message_id, agent_id, data))

    # --- rows that later units of the same batch must see ---

    def add_customer(self, row: Customer) -> None:
        self.insert(row)
        self.customers[row.id] = row
        self.identifiers_of[row.id] = []
        self.tickets_of[row.id] = []
        self.holds_of[row.id] = []
        self.homes_of[row.id] = {row.id}
        self.ties_of[row.id] = []
        self.cannot_of[row.id] = []
        self.spread_of[row.id] = []

    def relabel(self, name: str, *arguments: Any) -> None:
        """Move rows that were not read to another customer, after everything else is written, in the order asked for."""
        self.relabels.append((name, arguments))

    def add_identifier(self, row: Identifier) -> None:
        self.insert(row)
        self.identifiers[(row.kind, row.site, row.value, row.standing)] = row
        self.identifiers_by_id[row.id] = row
        if row.customer_id is not None:
            self.identifiers_of.setdefault(row.customer_id, []).append(row)

    def add_evidence(self, row: Evidence) -> None:
        self.insert(row)
        self.evidence_of.setdefault(row.identifier_id, []).append(row)

    def add_ticket(self, row: Ticket) -> None:
        self.insert(row)
        self.tickets[row.id] = row
        self.tickets_of.setdefault(row.conversation_id, []).append(row)

    def add_message(self, row: Message) -> None:
        self.insert(row)
        self.messages[row.id] = row
        if row.mail_id is not None:
            self.by_mail_id.setdefault(row.mail_id, row)
        if row.draft_key is not None:
            self.by_draft[row.draft_key] = row
        if row.provider_id is not None:
            self.by_provider_id[row.provider_id] = row
        self._lay(row)

    def _lay(self, row: Message) -> None:
        """Note how a message lies, where it was read how its conversation's lie."""
        spread = self.spread_of.get(row.conversation_id)
        if spread is None or row.ticket_id is None or row.identifier_id is None:
            return
        said = row.id if row.direction == "in" else None
        for entry in spread:
            if (entry.ticket_id, entry.identifier_id, entry.placed) == (row.ticket_id, row.identifier_id, row.placed):
                entry.last_id, entry.last_in_id = max(entry.last_id, row.id), max(entry.last_in_id or 0, said or 0) or None
                return
        spread.append(Spread(row.ticket_id, row.identifier_id, row.placed, row.id, said))

    def add_hold(self, row: Hold) -> None:
        self.insert(row)
        self.holds_of.setdefault(row.customer_id, []).append(row)

    def add_delivery(self, row: Delivery) -> None:
        self.insert(row)
        self.deliveries[row.id] = row
        if row.slot is not None:
            self.slots[row.slot] = row

    def live_customer(self, customer_id: int) -> Customer:
        """The customer, or whoever it was joined into: ids never die."""
        customer = self.customers[customer_id]
        while customer.merged_into is not None:
            customer = self.customers[customer.merged_into]
        return customer

    @property
    def owes(self) -> bool:
        """Whether anything was added to or made due in the outbox."""
        return Delivery.table in self.inserted or Delivery.table in self.changed


React = Callable[[Facts, Event], None]


def decide_one(work: Work[R_co], facts: Facts, react: React) -> R_co:
    """Let one unit decide, then the reactions to what it stated, until nothing new is stated."""
    at = len(facts.events)
    outcome = work.decide(facts)
    while at < len(facts.events):
        react(facts, facts.events[at])
        at += 1
    return outcome


def decide_all(batch: Sequence[Any], facts: Facts, react: React) -> list[tuple[Any, Any]]:
    """Let the units of a batch decide in turn: (unit, outcome) of each.

    One that moves rows which were not read is the last: those after it would see half of what it did, so they are left to the next
    batch, which reads it whole.
    """
    outcomes = []
    for unit in batch:
        outcomes.append((unit, decide_one(unit.work, facts, react)))
        if facts.relabels:
            break
    return outcomes


def gather(batch: Iterable[Work[Any]]) -> Needs:
    """The needs of a whole batch."""
    needs = Needs()
    for work in batch:
        work.needs(needs)
    return needs
