"""What the inbox reads of many conversations: views, lists, heads, search. One statement a part of the screen, keyset pages.

What it reads inside one conversation is in `history`. Statements only; `hub.storage.reader` runs them. Times are microseconds UTC.
Every list is bounded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from hub.conversations.text import storable
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
UNREAD_AMONG = 200  # so many newest tickets of each open status are looked at for unread ones
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
    whose: str = "all"  # all | mine | nobody | review


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("open", "Open", "inbox", "o", ACTIVE),
        View("mine", "Mine", "user", "m", ACTIVE, "mine"),
        View("unassigned", "Unassigned", "user-x", "u", ACTIVE, "nobody"),
        View("review", "Review", "question", "v", ("open", "pending", "snoozed"), "review"),
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


Prepared: TypeAlias = tuple[Select[Any], dict[str, Any]]
"""A statement built once, and the values of its parameters: for `Reader.all(*prepared)`. To build one takes longer than to answer it."""

ME, NOW = bindparam("me", type_=Integer), bindparam("now", type_=BigInteger)


# Spelt as the partial index on it is, which then serves it; the bound form of the same would not be recognised.
_REVIEW = ticket.c.review != literal_column("''")


def _whose(view: View) -> ColumnElement[bool]:
    if view.whose == "mine":
        return ticket.c.assignee_id == ME
    if view.whose == "nobody":
        return ticket.c.assignee_id.is_(None)
    if view.whose == "review":
        return _REVIEW
    return true()


# The customer wrote after what this agent has read. Needs `read_marker` joined for that agent.
_UNREAD = func.coalesce(ticket.c.last_inbound_id, 0) > func.coalesce(read_marker.c.message_id, 0)


def _status(view: View) -> ColumnElement[str]:
    """The status to compare: of the few in review as an expression, so that their own small index is read and not a status's large one."""
    return ticket.c.status.concat("") if view.whose == "review" else ticket.c.status


def _marker(me: int | BindParameter[int]) -> ColumnElement[bool]:
    return and_(read_marker.c.ticket_id == ticket.c.id, read_marker.c.agent_id == me)


def _held(customer_id: ColumnElement[int], now: int | BindParameter[int]) -> ColumnElement[bool]:
    return exists(select(hold.c.id).where(hold.c.customer_id == customer_id, hold.c.released_at.is_(None), hold.c.lease_until > now))


# --- views and list --------------------------------------------------------------------------------------------------


def counts(me: int) -> Prepared:
    """One row: a count per view (at most COUNT_UPTO) and `unread`, this agent's unread tickets among the newest open ones."""
    return _counts(), {"me": me}


@cache
def _counts() -> Select[Any]:
    def upto(source: Select[Any]) -> ColumnElement[Any]:
        return select(func.count()).select_from(source.limit(COUNT_UPTO).subquery()).scalar_subquery()

    columns = [upto(select(ticket.c.id).where(_status(view).in_(view.statuses), _whose(view))).label(view.name) for view in VIEWS.values()]
    # Of an agent who has read everything, each open ticket would have to be looked at (0.4 s at 25,000): only the newest are.
    newest = [
        select(
            select(ticket.c.id)
            .where(ticket.c.status == status)
            .order_by(ticket.c.last_at.desc(), ticket.c.id.desc())
            .limit(UNREAD_AMONG)
            .subquery()
            .c.id
        )
        for status in ACTIVE
    ]
    among = union_all(*newest).subquery()
    unread = (
        select(ticket.c.id).select_from(among.join(ticket, ticket.c.id == among.c.id).outerjoin(read_marker, _marker(ME))).where(_UNREAD)
    )
    return select(*columns, upto(unread).label("unread"))


def tickets(view: View, me: int, now: int, after: Cursor | None = None, limit: int = 50) -> Prepared:
    """A page of a view after a row, newest first, with one row more than `limit` where there is a next page."""
    values = {"me": me, "now": now, "rows": limit + 1}
    if after is not None:
        values |= {"last_at": after.last_at, "last_id": after.id}
    return _tickets(view, after is not None), values


@cache
def _tickets(view: View, follows: bool) -> Select[Any]:
    """Each status is read along its own index; their pages are merged to one, and only its rows are joined to anything."""
    order = (ticket.c.last_at.desc(), ticket.c.id.desc())
    rows = bindparam("rows", type_=Integer)
    pages = []
    for status in view.statuses:
        page = select(ticket.c.last_at, ticket.c.id).where(_status(view) == status, _whose(view))
        if follows:
            page = page.where(
                tuple_(ticket.c.last_at, ticket.c.id)
                < tuple_(bindparam("last_at", type_=BigInteger), bindparam("last_id", type_=BigInteger))
            )
        pages.append(select(page.order_by(*order).limit(rows).subquery()))
    merged = union_all(*pages).subquery() if len(pages) > 1 else pages[0].subquery()
    # Bounded here too: without that SQLite joins all the pages' rows before it throws most away.
    ids = select(merged.c.id).order_by(merged.c.last_at.desc(), merged.c.id.desc()).limit(rows).subquery()
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
            _UNREAD.label("unread"),
            _held(customer.c.id, NOW).label("held"),
        )
        .select_from(
            ids.join(ticket, ticket.c.id == ids.c.id)
            .join(customer, customer.c.id == ticket.c.conversation_id)
            .outerjoin(identifier, identifier.c.id == ticket.c.identifier_id)
            .outerjoin(agent, agent.c.id == ticket.c.assignee_id)
            .outerjoin(read_marker, _marker(ME))
        )
        .order_by(*order)
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


def people(typed: str) -> Select[Any]:
    """Customers who bear exactly this address or number, with their newest ticket: what somebody pasted into the search."""
    whole = storable(typed).strip().lower()
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


NAMED_AMONG = 20_000  # so many newest customers are looked through for a part of a name: there is no index for that


def find(number: int | None, values: Collection[str], name: str, also: Collection[int] = (), limit: int = 20) -> Select[Any]:
    """Live customers by a number (theirs, or one that leads on to them), by a whole canonical value, or by a part of their name among
    the newest ones; and `also` these. With their newest ticket."""
    live = func.coalesce(customer.c.merged_into, customer.c.id)
    ways = [select(live.label("id")).where(customer.c.id.in_([*also, *([number] if number is not None else [])]))]
    if values:
        ways.append(select(identifier.c.customer_id).where(identifier.c.value.in_(values), identifier.c.customer_id.is_not(None)))
    if name:
        newest = select(customer.c.id, customer.c.name).where(customer.c.merged_into.is_(None))
        recent = newest.order_by(customer.c.id.desc()).limit(NAMED_AMONG).subquery()
        ways.append(select(recent.c.id).where(func.lower(recent.c.name).contains(name.lower(), autoescape=True)))
    wanted = union_all(*ways).subquery()
    first = select(func.min(identifier.c.id)).where(identifier.c.customer_id == customer.c.id).correlate(customer).scalar_subquery()
    last = select(func.max(ticket.c.last_at)).where(ticket.c.conversation_id == customer.c.id).correlate(customer).scalar_subquery()
    return (
        select(customer.c.id, customer.c.name, identifier.c.kind, identifier.c.address, last.label("last_at"))
        .select_from(customer.outerjoin(identifier, identifier.c.id == first))
        .where(customer.c.id.in_(select(wanted.c.id)), customer.c.merged_into.is_(None))
        .order_by(customer.c.id.desc())
        .limit(limit)
    )
