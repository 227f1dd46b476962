"""What a party may be shown: the messages of the identifiers it has proved itself, whoever they were joined with.

Whose message it is and who may see it are two decisions. A join never widens what a session that proved less can see, so nothing
here asks for the customer's other identifiers, and a note has no way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, false, or_, select, union

from hub.customers.resolution import PROVEN
from hub.storage.tables import metadata

_message = metadata.tables["message"]
_identifier = metadata.tables["identifier"]
_attachment = metadata.tables["attachment"]
_agent = metadata.tables["agent"]
_copy = metadata.tables["message_copy"]


@dataclass(frozen=True, slots=True)
class ProvedKey:
    """A canonical identifier that this very session (or address) has proved."""

    kind: str
    site: str
    value: str


def _proved(keys: Sequence[ProvedKey]) -> ColumnElement[bool]:
    same = (
        and_(
            _identifier.c.value == key.value,
            _identifier.c.kind == key.kind,
            _identifier.c.site == key.site,
            _identifier.c.standing == PROVEN,
        )
        for key in keys
    )
    # A value that passed to a new holder: the old holder's messages stay with the old one. A shared one opens nothing to either.
    return and_(or_(false(), *same), _identifier.c.ended_at.is_(None), _identifier.c.shared_at.is_(None))


def _of_identifier() -> ColumnElement[bool]:
    # The conversation finds the rows (there is no index on the identifier), the identifier decides; what an agent gave to another
    # customer has an index of its own.
    here = and_(_message.c.conversation_id == _identifier.c.customer_id, _message.c.identifier_id == _identifier.c.id)
    return or_(here, and_(_message.c.placed, _message.c.identifier_id == _identifier.c.id))


def _visible(keys: Sequence[ProvedKey], channel_ids: Sequence[int]) -> ColumnElement[bool]:
    return and_(_proved(keys), _message.c.channel_id.in_(channel_ids), _SHOWN)


# A note has no way in, and what did not go out was not said.
_SHOWN = or_(_message.c.direction == "in", and_(_message.c.direction == "out", _message.c.status != "failed"))


def readable(identifier_ids: Sequence[int]) -> Select[tuple[int]]:
    """The ids of all messages that whoever speaks by these identifiers may be shown, on whatever channel: what they wrote and were
    written, and the mails a proven address of theirs was copied on. The one rule for histories, quotes and automatic answers."""
    own = (
        select(_message.c.id).select_from(_identifier.join(_message, _of_identifier())).where(_identifier.c.id.in_(identifier_ids), _SHOWN)
    )
    copied = (
        select(_message.c.id)
        .select_from(_identifier.join(_copy, _copy.c.value == _identifier.c.value).join(_message, _message.c.id == _copy.c.message_id))
        .where(
            _identifier.c.id.in_(identifier_ids),
            _identifier.c.kind == "email",
            _identifier.c.standing == PROVEN,
            _identifier.c.shared_at.is_(None),
            _identifier.c.ended_at.is_(None),
            _SHOWN,
        )
    )
    return union(own, copied)  # type: ignore[return-value]


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
