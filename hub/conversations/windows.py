"""How long after a customer wrote a channel takes what we write unasked. Pure; the statement that tells when they wrote is here too."""

from __future__ import annotations

from sqlalchemy import ColumnElement, ScalarSelect, and_, func, select

from hub.policy import SECOND, ChannelRule
from hub.storage.tables import metadata

_message = metadata.tables["message"]
HOUR = 3_600 * SECOND


def is_open(rule: ChannelRule, heard_at: int | None, now: int) -> bool:
    """Whether the channel takes a message now, they having last written on it from this address at `heard_at` (None: never)."""
    return not rule.window or (heard_at is not None and now - heard_at < rule.window)


def closes_in(rule: ChannelRule, heard_at: int | None, now: int) -> int | None:
    """Microseconds until the channel takes no free text any more; 0 where it takes none now, None where it always does."""
    if not rule.window:
        return None
    return max(0, heard_at + rule.window - now) if heard_at is not None else 0


def why_shut(rule: ChannelRule) -> str:
    """Why nothing can be written there now, as a sentence for an agent."""
    hours = rule.window // HOUR
    return f"{rule.label} takes what you write only for {hours} hours after the customer wrote there, and that is over."


def last_heard(
    conversation_id: ColumnElement[int], channel_id: ColumnElement[int], identifier_id: ColumnElement[int]
) -> ScalarSelect[int | None]:
    """When somebody last wrote in a conversation on a channel from an address, as part of another statement."""
    said = _message.alias("heard")
    where = and_(
        said.c.conversation_id == conversation_id,
        said.c.direction == "in",
        said.c.channel_id == channel_id,
        said.c.identifier_id == identifier_id,
    )
    return select(func.max(said.c.created_at)).where(where).scalar_subquery()
