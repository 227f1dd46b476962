"""What the inbox reads of many conversations: views, lists, heads, search. One statement a part of the screen, keyset pages.

What it reads inside one conversation is in `history`. Statements only; `hub.storage.reader` runs them. Times are microseconds UTC.
Every list is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    TextClause,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.sql.expression import FromClause

from hub.storage.search import WATERMARK
from hub.storage.tables import metadata

ticket = metadata.tables["ticket"]
customer = metadata.tables["customer"]
message = metadata.tables["message"]
identifier = metadata.tables["identifier"]
hold = metadata.tables["hold"]
agent = metadata.tables["agent"]
read_marker = metadata.tables["read_marker"]
setting = metadata.tables["setting"]

ACTIVE = ("open", "pending")
COUNT_UPTO = 1_000  # counts stop here: nobody reads "48,213", and counting a million rows is not instant
MAX_JOINS = 16  # how far a chain of joined customers is followed


@dataclass(frozen=True, slots=True)
class View:
    """One entry of the left column: which tickets it lists."""

    name: str
    label: str
    icon: str
    key: str  # the letter after `g`
    statuses: tuple[str, ...]
    whose: str = "all"  # all | mine | nobody


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("open", "Open", "inbox", "o", ACTIVE),
        View("mine", "Mine", "user", "m", ACTIVE, "mine"),
        View("unassigned", "Unassigned", "user-x", "u", ACTIVE, "nobody"),
        View("snoozed", "Snoozed", "clock", "s", ("snoozed",)),
        View("resolved", "Resolved", "check", "d", ("resolved",)),
        View("all", "All", "layers", "a", ("open", "pending", "snoozed", "resolved")),
    )
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of tickets ended: the last row's time and id."""

    last_at: int
    id: int

    def __str__(self) -> str:
        return f"{self.last_at}-{self.id}"

    @classmethod
    def parse(cls, typed: str) -> Cursor | None:
        """The cursor a link carried, or None for what is none."""
        last_at, _, row_id = typed.partition("-")
        if not (last_at.isascii() and last_at.isdigit() and row_id.isascii() and row_id.isdigit()):
            return None
        if len(last_at) > 18 or len(row_id) > 18:
            return None
        return cls(int(last_at), int(row_id))


def _whose(view: View, me: int) -> ColumnElement[bool]:
    if view.whose == "mine":
        return ticket.c.assignee_id == me
    if view.whose == "nobody":
        return ticket.c.assignee_id.is_(None)
    return true()


def _unread(me: int) -> ColumnElement[bool]:
    """The customer wrote after what this agent has read. Needs `read_marker` joined for that agent."""
    return func.coalesce(ticket.c.last_inbound_id, 0) > func.coalesce(read_marker.c.message_id, 0)


def _marker(me: int) -> ColumnElement[bool]:
    return and_(read_marker.c.ticket_id == ticket.c.id, read_marker.c.agent_id == me)


def _held(customer_id: ColumnElement[int], now: int) -> ColumnElement[bool]:
    return exists(select(hold.c.id).where(hold.c.customer_id == customer_id, hold.c.released_at.is_(None), hold.c.lease_until > now))


# --- views and list --------------------------------------------------------------------------------------------------


def counts(me: int) -> Select[Any]:
    """One row: a count per view (at most COUNT_UPTO) and `unread`, this agent's unread tickets among the open ones."""

    def upto(source: FromClause | Select[Any]) -> ColumnElement[Any]:
        bounded = source.limit(COUNT_UPTO).subquery() if isinstance(source, Select) else source
        return select(func.count()).select_from(bounded).scalar_subquery()

    columns = [
        upto(select(ticket.c.id).where(ticket.c.status.in_(view.statuses), _whose(view, me))).label(view.name) for view in VIEWS.values()
    ]
    unread = select(ticket.c.id).select_from(ticket.outerjoin(read_marker, _marker(me))).where(ticket.c.status.in_(ACTIVE), _unread(me))
    return select(*columns, upto(unread).label("unread"))


def tickets(view: View, me: int, now: int, after: Cursor | None = None, limit: int = 50) -> Select[Any]:
    """A page of a view, newest first, with one row more than `limit` where there is a next page.

    Each status is read along its own index; their pages are merged. `after` is the last row of the page before.
    """
    pages = []
    for status in view.statuses:
        page = select(ticket.c.id).where(ticket.c.status == status, _whose(view, me))
        if after is not None:
            page = page.where(tuple_(ticket.c.last_at, ticket.c.id) < tuple_(literal(after.last_at), literal(after.id)))
        page = page.order_by(ticket.c.last_at.desc(), ticket.c.id.desc()).limit(limit + 1)
        pages.append(select(page.subquery().c.id))
    ids = union_all(*pages).subquery() if len(pages) > 1 else pages[0].subquery()
    return (
        select(
            ticket.c.id,
            ticket.c.conversation_id,
            ticket.c.status,
            ticket.c.subject,
            ticket.c.preview,
            ticket.c.channel_id,
            ticket.c.last_at,
            ticket.c.assignee_id,
            ticket.c.snoozed_until,
            ticket.c.waiting_since,
            customer.c.name,
            identifier.c.kind,
            identifier.c.address,
            agent.c.name.label("assignee"),
            _unread(me).label("unread"),
            _held(customer.c.id, now).label("held"),
        )
        .select_from(
            ids.join(ticket, ticket.c.id == ids.c.id)
            .join(customer, customer.c.id == ticket.c.conversation_id)
            .outerjoin(identifier, identifier.c.id == ticket.c.identifier_id)
            .outerjoin(agent, agent.c.id == ticket.c.assignee_id)
            .outerjoin(read_marker, _marker(me))
        )
        .order_by(ticket.c.last_at.desc(), ticket.c.id.desc())
        .limit(limit + 1)
    )


# --- one conversation ------------------------------------------------------------------------------------------------


def ticket_head(ticket_id: int, me: int, now: int) -> Select[Any]:
    """A ticket with its customer, whether that customer is held, and how far this agent has read."""
    return (
        select(
            ticket,
            customer.c.name,
            identifier.c.kind,
            identifier.c.address,
            _held(customer.c.id, now).label("held"),
            func.coalesce(read_marker.c.message_id, 0).label("read_upto"),
        )
        .select_from(
            ticket.join(customer, customer.c.id == ticket.c.conversation_id)
            .outerjoin(identifier, identifier.c.id == ticket.c.identifier_id)
            .outerjoin(read_marker, _marker(me))
        )
        .where(ticket.c.id == ticket_id)
    )


def newest_inbound(ticket_id: int) -> Select[Any]:
    """The id of the customer's last message in a ticket, 0 where there is none; no row where there is no such ticket."""
    return select(func.coalesce(ticket.c.last_inbound_id, 0)).where(ticket.c.id == ticket_id)


def customer_head(customer_id: int, now: int) -> Select[Any]:
    """A customer, with the address first seen of them to name the nameless by."""
    first = select(func.min(identifier.c.id)).where(identifier.c.customer_id == customer_id).scalar_subquery()
    return (
        select(customer.c.id, customer.c.name, identifier.c.kind, identifier.c.address, _held(customer.c.id, now).label("held"))
        .select_from(customer.outerjoin(identifier, identifier.c.id == first))
        .where(customer.c.id == customer_id)
    )


def survivor(customer_id: int) -> Select[Any]:
    """Whom this customer was joined into at last (itself, if into nobody), and that one's newest ticket or None."""
    chain = select(customer.c.id, customer.c.merged_into, literal(0).label("step")).where(customer.c.id == customer_id).cte(recursive=True)
    chain = chain.union_all(
        select(customer.c.id, customer.c.merged_into, chain.c.step + 1)
        .join(chain, customer.c.id == chain.c.merged_into)
        .where(chain.c.step < MAX_JOINS)
    )
    newest = (
        select(ticket.c.id)
        .where(ticket.c.conversation_id == chain.c.id)
        .order_by(ticket.c.last_at.desc(), ticket.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(chain.c.id, newest.label("ticket_id")).order_by(chain.c.step.desc()).limit(1)


def agents() -> Select[Any]:
    """Every agent, gone ones too: their names stand in histories."""
    return select(agent.c.id, agent.c.name, agent.c.email, agent.c.disabled_at).order_by(agent.c.name, agent.c.id).limit(1_000)


# --- search ----------------------------------------------------------------------------------------------------------

# Marks around the words found: two control characters, told apart from text when the snippet is cut into pieces.
FOUND_FROM, FOUND_TO = "\x02", "\x03"
_FOUND = text(
    "SELECT f.rowid AS id, snippet(message_search, 0, char(2), char(3), '…', 18) AS snippet, m.conversation_id, m.ticket_id, m.direction, "
    "m.channel_id, m.created_at, m.subject, c.name, i.kind, i.address FROM message_search f JOIN message m ON m.id = f.rowid "
    "JOIN customer c ON c.id = m.conversation_id LEFT JOIN identifier i ON i.id = m.identifier_id "
    "WHERE message_search MATCH :match ORDER BY f.rowid DESC LIMIT 50"
)


def found(match: str) -> TextClause:
    """Messages that match an FTS5 expression (`hub.storage.search.match_expression`), newest first, with a snippet each."""
    return _FOUND.bindparams(match=match)


def index_lag() -> Select[Any]:
    """How many messages the search index does not know yet."""
    newest = select(func.coalesce(func.max(message.c.id), 0)).scalar_subquery()
    done = select(cast(setting.c.value, BigInteger)).where(setting.c.key == WATERMARK).scalar_subquery()
    return select((newest - func.coalesce(done, 0)).label("behind"))


def people(typed: str) -> Select[Any]:
    """Customers who bear exactly this address or number, with their newest ticket: what somebody pasted into the search."""
    whole = typed.strip().lower()
    digits = "".join(letter for letter in typed if letter.isdigit() or letter == "+")
    newest = (
        select(ticket.c.id)
        .where(ticket.c.conversation_id == customer.c.id)
        .order_by(ticket.c.last_at.desc(), ticket.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    wanted = or_(identifier.c.value == whole, identifier.c.value == (digits if len(digits) > 6 else whole))
    return (
        select(customer.c.id, customer.c.name, identifier.c.kind, identifier.c.address, newest.label("ticket_id"))
        .join(customer, customer.c.id == identifier.c.customer_id)
        .where(wanted)
        .limit(5)
    )
