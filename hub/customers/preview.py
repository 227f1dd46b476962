"""What a merge, or taking one back, would do: told before an agent decides, from the same rules that do it.

Statements first, then pure functions over their rows. Nothing here changes anything; between the look and the deed something may have
changed, and the deed decides by what is then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from hub.customers import joining
from hub.policy import Refusal
from hub.storage.records import JoinLog
from hub.storage.tables import metadata

_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]
_message = metadata.tables["message"]
_ticket = metadata.tables["ticket"]
_hold = metadata.tables["hold"]
_attribute = metadata.tables["attribute"]
_cannot = metadata.tables["cannot_link"]
_join_log = metadata.tables["join_log"]

COUNT_UPTO = 10_000  # messages are counted so far
MOST = 200  # rows of a kind

# --- statements ------------------------------------------------------------------------------------------------------


def _homes(customer_ids: Collection[int]) -> Select[Any]:
    return select(_customer.c.id).where(or_(_customer.c.id.in_(customer_ids), _customer.c.merged_into.in_(customer_ids)))


def _live(table: Any) -> ColumnElement[int]:
    return func.coalesce(table.c.merged_into, table.c.id)


def heads(customer_ids: Collection[int]) -> Select[Any]:
    """These customers, with how much is theirs: messages (counted up to COUNT_UPTO), tickets, unresolved ones, homes."""
    c = _customer.c
    said = select(_message.c.id).where(_message.c.conversation_id == c.id).limit(COUNT_UPTO).correlate(_customer).subquery()
    mine = select(func.count()).select_from(_ticket).where(_ticket.c.conversation_id == c.id)
    first = select(func.min(_identifier.c.id)).where(_identifier.c.customer_id == c.id).correlate(_customer).scalar_subquery()
    joined = _customer.alias("joined")
    return (
        select(
            *(c.id, c.name, c.created_at, c.merged_into, _identifier.c.kind, _identifier.c.address),
            select(func.count()).select_from(said).scalar_subquery().label("messages"),
            mine.correlate(_customer).scalar_subquery().label("tickets"),
            mine.where(_ticket.c.status != "resolved").correlate(_customer).scalar_subquery().label("unresolved"),
            select(func.count()).select_from(joined).where(joined.c.merged_into == c.id).scalar_subquery().label("joined"),
        )
        .select_from(_customer.outerjoin(_identifier, _identifier.c.id == first))
        .where(c.id.in_(customer_ids))
        .order_by(c.id)
    )


def called(customer_ids: Collection[int]) -> Select[Any]:
    """These customers with their name, and the address first seen of them to call the nameless by."""
    c = _customer.c
    first = select(func.min(_identifier.c.id)).where(_identifier.c.customer_id == c.id).correlate(_customer).scalar_subquery()
    columns = (c.id, c.name, c.merged_into, _identifier.c.kind, _identifier.c.address)
    found = select(*columns).select_from(_customer.outerjoin(_identifier, _identifier.c.id == first))
    return found.where(c.id.in_(customer_ids)).order_by(c.id)


def identifiers(customer_ids: Collection[int]) -> Select[Any]:
    """The identifiers of these live customers."""
    names = ("id", "customer_id", "home_id", "kind", "site", "value", "standing", "proof", "address", "epoch", "shared_at", "ended_at")
    columns = [_identifier.c[name] for name in names]
    return select(*columns).where(_identifier.c.customer_id.in_(customer_ids)).order_by(_identifier.c.id).limit(MOST)


def attributes(customer_ids: Collection[int]) -> Select[Any]:
    """What is on record of these live customers, by home, the newest first: `fields` makes a view of it."""
    names = ("id", "name", "value", "source", "at")
    return (
        select(_live(_customer).label("live"), _attribute.c.customer_id.label("home"), *(_attribute.c[name] for name in names))
        .select_from(_attribute.join(_customer, _customer.c.id == _attribute.c.customer_id))
        .where(or_(_customer.c.id.in_(customer_ids), _customer.c.merged_into.in_(customer_ids)))
        .order_by(_attribute.c.at.desc(), _attribute.c.id.desc())
        .limit(2 * MOST)
    )


def tickets(customer_ids: Collection[int], limit: int = MOST) -> Select[Any]:
    """The tickets of these live customers, unresolved ones first."""
    names = ("id", "conversation_id", "home_id", "status", "subject", "preview", "channel_id", "last_at")
    over = _ticket.c.status == "resolved"
    columns = [_ticket.c[name] for name in names]
    return select(*columns).where(_ticket.c.conversation_id.in_(customer_ids)).order_by(over, _ticket.c.id.desc()).limit(limit)


def holds(customer_ids: Collection[int], now: int) -> Select[Any]:
    """The reasons for which these live customers are held now."""
    names = ("id", "customer_id", "home_id", "reason", "source")
    active = and_(_hold.c.customer_id.in_(customer_ids), _hold.c.released_at.is_(None), _hold.c.lease_until > now)
    return select(*(_hold.c[name] for name in names)).where(active).order_by(_hold.c.id).limit(MOST)


def parted(left_id: int, right_id: int) -> Select[Any]:
    """What somebody said that parts these two live customers, the newest first."""
    left, right = _homes([left_id]), _homes([right_id])
    c = _cannot.c
    between = or_(and_(c.left_id.in_(left), c.right_id.in_(right)), and_(c.left_id.in_(right), c.right_id.in_(left)))
    return select(c.id, c.actor, c.at).where(c.ended_at.is_(None), between).order_by(c.id.desc()).limit(10)


def homes(customer_id: int) -> Select[Any]:
    """A live customer's nodes."""
    c = _customer.c
    return select(c.id, c.own_name, c.merged_into).where(or_(c.id == customer_id, c.merged_into == customer_id)).order_by(c.id)


def ties(customer_id: int) -> Select[Any]:
    """The ties of a live customer's nodes and what undid them, column for column as a record."""
    mine = _homes([customer_id])
    return select(*_join_log.c).where(or_(_join_log.c.left_id.in_(mine), _join_log.c.right_id.in_(mine))).order_by(_join_log.c.id)


def spread(customer_id: int) -> Select[Any]:
    """How a conversation's messages lie: (ticket, identifier, whether an agent placed them there, how many)."""
    m = _message.c
    columns = (m.ticket_id, m.identifier_id, m.placed)
    return select(*columns, func.count().label("messages")).where(m.conversation_id == customer_id).group_by(*columns)


# --- what is on record -----------------------------------------------------------------------------------------------

# Whose word on a person counts most; what is not in the table is the business's own record.
_RANK = {"agent": 0, "signed": 2, "site": 2, "claimed": 3}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing on record of a customer: the value that counts, and what else is said of it. A value is a row of `attributes`."""

    name: str
    value: Any
    others: tuple[Any, ...]


def fields(rows: Iterable[Any], survivor_id: int) -> tuple[Field, ...]:
    """A view over all homes' attributes, by name; none is overwritten. The survivor's own come first, then an agent's word, the
    record's, the site's and the customer's, the newest of each."""
    named: dict[str, list[Any]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    found = []
    for name, said in sorted(named.items(), key=lambda each: each[0].casefold()):
        first, *rest = sorted(said, key=lambda row: (row.home != survivor_id, _RANK.get(row.source.partition(":")[0], 1), -row.at, -row.id))
        seen, others = {first.value}, []
        for row in rest:
            if row.value not in seen:
                seen.add(row.value)
                others.append(row)
        found.append(Field(name, first, tuple(others)))
    return tuple(found)


# --- a merge ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, as it is now. `head` is a row of `heads`; the others are rows of their statements."""

    head: Any
    identifiers: tuple[Any, ...]
    open: tuple[Any, ...]  # unresolved tickets
    holds: tuple[Any, ...]

    @property
    def id(self) -> int:
        return int(self.head.id)


@dataclass(frozen=True, slots=True)
class MergePreview:
    """What a merge of two live customers would do. The survivor's id stays; the other's leads on to it."""

    survivor: Side
    other: Side
    name: str
    fields: tuple[Field, ...]
    warnings: tuple[str, ...]

    @property
    def messages(self) -> int:
        return int(self.survivor.head.messages + self.other.head.messages)

    @property
    def open(self) -> tuple[Any, ...]:
        return (*self.survivor.open, *self.other.open)

    @property
    def holds(self) -> tuple[Any, ...]:
        return (*self.survivor.holds, *self.other.holds)


def merging(
    heads: Sequence[Any],
    identifiers: Sequence[Any],
    tickets: Sequence[Any],
    holds: Sequence[Any],
    attributes: Sequence[Any],
    parted: Sequence[Any],
    *,
    names: Mapping[int, str],
    day: Any,
) -> MergePreview:
    """What would become of two customers (two `heads`). `names` are the agents', `day` writes a time as a day."""
    survivor, other = (
        Side(
            head,
            tuple(row for row in identifiers if row.customer_id == head.id),
            tuple(row for row in tickets if row.conversation_id == head.id and row.status != "resolved"),
            tuple(row for row in holds if row.customer_id == head.id),
        )
        for head in sorted(heads, key=lambda head: head.id)
    )
    warnings = [*_two_people(survivor, other), *_said(parted, names, day), *_common(survivor, other)]
    name = survivor.head.name or other.head.name
    return MergePreview(survivor, other, name, fields(attributes, survivor.id), tuple(warnings))


def _two_people(left: Side, right: Side) -> Iterable[str]:
    if not joining.two_accounts(left.identifiers, right.identifiers):
        return
    own, theirs = dict(sorted(joining.accounts(left.identifiers))), dict(sorted(joining.accounts(right.identifiers)))
    for site in sorted(own.keys() & theirs.keys()):
        if own[site] != theirs[site]:
            where = f"on {site}" if site else "with you"
            yield f"They have two accounts {where} ({own[site]} and {theirs[site]}): most people have one."


def _said(parted: Sequence[Any], names: Mapping[int, str], day: Any) -> Iterable[str]:
    if parted:
        kind, _, number = parted[0].actor.partition(":")
        who = names.get(int(number), "An agent") if kind == "agent" and number.isdigit() else "Somebody"
        yield f"{who} said on {day(parted[0].at)} that they are two people. Merging them ends that."


def _common(left: Side, right: Side) -> Iterable[str]:
    for row in (*left.identifiers, *right.identifiers):
        if row.shared_at is not None:
            yield f"{row.address} was proved by two people, so it says nothing about who this is."
    theirs = {(row.kind, row.site, row.value): row for row in right.identifiers}
    for row in left.identifiers:
        same = theirs.get((row.kind, row.site, row.value))
        if same is None:
            continue
        if row.standing == same.standing == joining.PROVEN:
            yield f"{row.address} passed from one to the other: a number that was given to somebody new looks like that."
        else:
            yield f"Only one of them has proved {row.address}; the other one writes from it without proof."


# --- taking one back -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A customer there would be again, with what goes to them."""

    id: int
    name: str
    identifiers: tuple[Any, ...]
    tickets: tuple[Any, ...]
    holds: tuple[Any, ...]
    messages: int
    strays: int  # of those, so many stand on a ticket of the other one now, and move to one of their own


@dataclass(frozen=True, slots=True)
class PartPreview:
    """What taking a join back would do. Tied in another way too (`ties`), they stay one customer: there are no parts yet."""

    parts: tuple[Part, ...]
    ties: tuple[JoinLog, ...] = ()


def parting(
    join_id: int,
    homes: Sequence[Any],
    ties: Sequence[JoinLog],
    identifiers: Sequence[Any],
    spread: Sequence[Any],
    tickets: Sequence[Any],
    holds: Sequence[Any],
) -> PartPreview:
    """What would go where, were this tie taken back. Raises Refusal where it is not there (any more)."""
    live = joining.live(ties)
    row = next((tie for tie in live if tie.id == join_id), None)
    if row is None:
        raise Refusal("That merge is not there any more: somebody undid it.")
    ends, ids = {row.left_id, row.right_id}, [home.id for home in homes]
    rest = [tie for tie in live if {tie.left_id, tie.right_id} != ends]
    sides = joining.components(ids, rest)
    if any(ends <= side for side in sides):
        return PartPreview((), tuple(tie for tie in rest if {tie.left_id, tie.right_id} & ends))
    lead = min(ids)
    side_of = {home: min(side) for side in sides for home in side}

    def side(home: int | None) -> int:
        return int(side_of.get(home or lead, lead))

    speaks = {one.id: side(one.home_id) for one in identifiers}
    stands = {one.id: side(one.home_id) for one in tickets}
    messages: dict[int, int] = {}
    strays: dict[int, int] = {}
    for entry in spread:
        there = stands.get(entry.ticket_id, lead)
        goes = there if entry.placed or entry.identifier_id is None else speaks.get(entry.identifier_id, there)
        messages[goes] = messages.get(goes, 0) + entry.messages
        if goes != there:
            strays[goes] = strays.get(goes, 0) + entry.messages
    return PartPreview(
        tuple(
            Part(
                one,
                next((home.own_name for home in homes if side_of[home.id] == one and home.own_name), ""),
                tuple(each for each in identifiers if speaks[each.id] == one),
                tuple(each for each in tickets if stands[each.id] == one),
                tuple(each for each in holds if side(each.home_id) == one),
                messages.get(one, 0),
                strays.get(one, 0),
            )
            for one in sorted({min(side) for side in sides})
        )
    )
