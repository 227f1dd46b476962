"""What the outbox owes, could not deliver, or does not know the fate of: for the people who must see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, case, func, literal_column, or_, select, union_all
from sqlalchemy.sql import Select

from hub.storage.tables import metadata

WAITING = ("queued", "sending")
TROUBLED = ("failed", "unknown")
STATES = (*WAITING, *TROUBLED, "done", "discarded")
KINDS = {
    "reply": "answer",
    "card": "ticket's post",
    "hold": "hold notice",
    "mark": "hold in a marketing tool",
    "alert": "alarm",
    "media": "file to fetch",
    "code": "one-time code",
    "unseen": "unseen answer's mail",
    "check": "signature to check",
}

_delivery = metadata.tables["delivery"]
_message = metadata.tables["message"]
_ticket = metadata.tables["ticket"]
_customer = metadata.tables["customer"]
_identifier = metadata.tables["identifier"]


def _spelled(states: tuple[str, ...]) -> Any:
    # Spelled out, not bound, and as the index has it: only so does a partial index apply. The history may hold millions.
    return _delivery.c.state.in_([literal_column(f"'{state}'") for state in states])


def _ids(state: str) -> Select[Any]:
    d = _delivery.c
    if state in TROUBLED:
        return select(d.id).where(_spelled(TROUBLED), d.state == state)
    if state in WAITING:
        return select(d.id).where(d.state == literal_column(f"'{state}'"))
    return select(d.id).where(d.state == state)


def listed(
    states: tuple[str, ...] = TROUBLED, *, kind: str = "", target: str = "", before: int | None = None, limit: int = 50
) -> Select[Any]:
    """Deliveries in these states, newest first, at most `limit`; those below `before`. Each with its ticket and customer."""
    d, m, t, c, i = _delivery.c, _message.c, _ticket.c, _customer.c, _identifier.c
    of_message = and_(d.kind.in_(("reply", "media", "check", "unseen")), m.id == d.subject_id)
    of_ticket = or_(and_(d.kind == "card", t.id == d.subject_id), t.id == m.ticket_id)
    of_customer = c.id == case((d.kind.in_(("hold", "mark")), d.subject_id), else_=t.conversation_id)
    statement = (
        select(
            *(d.id, d.kind, d.target, d.subject_id, d.state, d.attempt, d.created_at, d.due_at, d.done_at, d.error),
            t.id.label("ticket_id"),
            c.id.label("customer_id"),
            c.name.label("customer"),
            i.kind.label("address_kind"),
            i.value.label("address"),
        )
        .select_from(_delivery)
        .outerjoin(_message, of_message)
        .outerjoin(_ticket, of_ticket)
        .outerjoin(_customer, of_customer)
        .outerjoin(_identifier, i.id == t.identifier_id)
    )
    if states == TROUBLED:
        statement = statement.where(d.id.in_(select(d.id).where(_spelled(TROUBLED))))
    else:
        statement = statement.where(d.id.in_(union_all(*map(_ids, states))))
    if kind:
        statement = statement.where(d.kind == kind)
    if target:
        statement = statement.where(d.target == target)
    if before is not None:
        statement = statement.where(d.id < before)
    return statement.order_by(d.id.desc()).limit(limit)


def one(delivery_id: int) -> Select[Any]:
    """A delivery with all that is noted of it."""
    return select(_delivery).where(_delivery.c.id == delivery_id)


def troubled_targets() -> Select[Any]:
    """Every (kind, target, state) that has something failed or unknown, and how many."""
    d = _delivery.c
    return select(d.kind, d.target, d.state, func.count().label("n")).where(_spelled(TROUBLED)).group_by(d.kind, d.target, d.state)
