"""What a party may be shown: the messages of the identifiers it has proved itself, whoever they were joined with.

Whose message it is and who may see it are two decisions. A join never widens what a session that proved less can see, so nothing
here asks for the customer's other identifiers, and a note has no way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select

from hub.customers.resolution import PROVEN
from hub.storage.tables import metadata

_message = metadata.tables["message"]
_identifier = metadata.tables["identifier"]
_attachment = metadata.tables["attachment"]
_agent = metadata.tables["agent"]


@dataclass(frozen=True, slots=True)
class ProvedKey:
    """A canonical identifier that this very session (or address) has proved."""

    kind: str
    site: str
    value: str


def _proved(keys: Sequence[ProvedKey]) -> ColumnElement[bool]:
    later = _identifier.alias("later")
    # A value that passed to a new holder has a new epoch; the old holder's messages stay with the old one.
    newest = (
        select(func.max(later.c.epoch))
        .where(
            later.c.value == _identifier.c.value,
            later.c.kind == _identifier.c.kind,
            later.c.site == _identifier.c.site,
            later.c.standing == PROVEN,
        )
        .scalar_subquery()
    )
    same = (
        and_(
            _identifier.c.value == key.value,
            _identifier.c.kind == key.kind,
            _identifier.c.site == key.site,
            _identifier.c.standing == PROVEN,
        )
        for key in keys
    )
    return and_(or_(false(), *same), _identifier.c.epoch == newest)


def _of_identifier() -> ColumnElement[bool]:
    # The conversation finds the rows (there is no index on the identifier), the identifier decides.
    return and_(_message.c.conversation_id == _identifier.c.customer_id, _message.c.identifier_id == _identifier.c.id)


def _visible(keys: Sequence[ProvedKey], channel_ids: Sequence[int]) -> ColumnElement[bool]:
    return and_(
        _proved(keys),
        _message.c.channel_id.in_(channel_ids),
        or_(_message.c.direction == "in", and_(_message.c.direction == "out", _message.c.status != "failed")),
    )


def visible_messages(
    keys: Sequence[ProvedKey],
    channel_ids: Sequence[int],
    *,
    after: int = 0,
    before: int = 0,
    ids: Sequence[int] = (),
    limit: int = 100,
) -> Select[tuple[int, str, str, str, int, str | None, str | None]]:
    """Messages these identifiers wrote or were written on these channels: (id, direction, status, text, created_at, provider_id,
    agent_name). Oldest first with `after` (or `ids`), newest first otherwise."""
    columns = _message.c
    statement = (
        select(
            columns.id,
            columns.direction,
            columns.status,
            columns.text,
            columns.created_at,
            columns.provider_id,
            _agent.c.name.label("agent_name"),
        )
        .select_from(_identifier.join(_message, _of_identifier()).outerjoin(_agent, columns.agent_id == _agent.c.id))
        .where(_visible(keys, channel_ids))
    )
    if after:
        statement = statement.where(columns.id > after)
    if before:
        statement = statement.where(columns.id < before)
    if ids:
        statement = statement.where(columns.id.in_(ids))
    return statement.order_by(columns.id if after or ids else columns.id.desc()).limit(limit)


def visible_attachments(
    keys: Sequence[ProvedKey], channel_ids: Sequence[int], *, message_ids: Sequence[int] = (), attachment_id: str = ""
) -> Select[tuple[str, int, str, str, int, str]]:
    """Stored files of visible messages, by message or by their own id: (id, message_id, name, content_type, size, sha256)."""
    columns = _attachment.c
    chosen = columns.id == attachment_id if attachment_id else columns.message_id.in_(message_ids)
    return (
        select(columns.id, columns.message_id, columns.name, columns.content_type, columns.size, columns.sha256)
        .select_from(_identifier.join(_message, _of_identifier()).join(_attachment, columns.message_id == _message.c.id))
        .where(_visible(keys, channel_ids), columns.state == "stored", chosen)
        .order_by(columns.message_id, columns.id)
    )


def customers_of(keys: Sequence[ProvedKey]) -> Select[tuple[int]]:
    """The customers these identifiers belong to: whose events may concern this session. Shows nothing by itself."""
    return select(_identifier.c.customer_id).where(_proved(keys), _identifier.c.customer_id.is_not(None))
