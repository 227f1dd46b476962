"""A planned campaign of Klaviyo's, judged: does it leave held profiles out, are its recipients fixed already, what mends it.

Shapes: `GET /api/campaigns` of Klaviyo's specification (2026-07-15). When recipients are determined is nowhere in it: the account's
default is the moment somebody clicks Schedule (https://help.klaviyo.com/hc/en-us/articles/22501501263899), and a later hold does
not take anybody out of a campaign fixed before. "Send time" can be chosen instead, though not for A/B tests nor for sending at each
recipient's own hour (https://help.klaviyo.com/hc/en-us/articles/360001549132); the pages differ about SMS, so it counts as fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hub.marketing import Campaign

# Klaviyo's word in the filter `messages.channel` -> ours.
CHANNELS: Mapping[str, str] = {"email": "email", "sms": "sms", "mobile_push": "push"}

# Klaviyo's status -> ours, for what is scheduled or going out.
STATUSES: Mapping[str, str] = {
    "Preparing to schedule": "scheduled",
    "Queued without Recipients": "scheduled",
    "Scheduled": "scheduled",
    "Adding Recipients": "sending",
    "Preparing to send": "sending",
    "Sending": "sending",
    "Sending Segments": "sending",
    "Variations Sent": "sending",  # of an A/B test: the rest of its recipients is still to come
}

# Ways of sending in which somebody can have chosen that recipients are determined at send time.
_AT_SEND = frozenset({"static", "throttled", "immediate", "smart_send_time"})


def unix(text: object) -> float | None:
    """An ISO 8601 time in unix seconds; a time without a zone is UTC. None for none and for nonsense."""
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def campaign(resource: Mapping[str, Any], channel: str, segment: str, segment_name: str, at_send: bool) -> Campaign:
    """One campaign of the answer. `segment` is the hold segment's id (empty: unknown), `at_send` whether the account determines
    recipients at send time, as the configuration says."""
    given: Mapping[str, Any] = resource.get("attributes") or {}
    strategy: Mapping[str, Any] = given.get("send_strategy") or {}
    audiences: Mapping[str, Any] = given.get("audiences") or {}
    status = STATUSES.get(str(given.get("status")), "scheduled")
    send_at = unix(given.get("send_time")) or unix(strategy.get("datetime")) or unix(strategy.get("date"))
    local = bool((strategy.get("options") or {}).get("is_local"))
    open_yet = status == "scheduled" and at_send and channel != "sms" and strategy.get("method") in _AT_SEND and not local
    # Without a time of scheduling it has been fixed for as long as Klaviyo has known it in this form.
    frozen_at = None if open_yet else unix(given.get("scheduled_at")) or unix(given.get("updated_at")) or send_at
    excludes = segment in (audiences.get("excluded") or ()) if segment else None
    id = str(resource.get("id", ""))
    return Campaign(
        id=id,
        name=str(given.get("name", "")),
        channel=channel,
        status=status,
        send_at=send_at,
        frozen_at=frozen_at,
        excludes_hold=excludes,
        audiences=tuple(str(audience) for audience in audiences.get("included") or ()),
        mend=_mend(status, excludes, frozen_at is not None, channel, local or strategy.get("method") == "ab_test_campaign", segment_name),
        url=f"https://www.klaviyo.com/campaign/{id}/wizard",
        revertable=status == "scheduled",
    )


def _mend(status: str, excludes: bool | None, frozen: bool, channel: str, never_at_send: bool, segment_name: str) -> str:
    """The one step that mends it."""
    if status == "sending":
        return "It is going out: only cancelling it in Klaviyo stops the rest, and that for everybody."
    if excludes is None:
        return f'There is no segment "{segment_name}" in Klaviyo: prepare the tool in the set-up, then choose it under "Don\'t send to".'
    if not excludes:
        return f'Put it back to draft, choose the segment "{segment_name}" under "Don\'t send to", and schedule it again.'
    if not frozen:
        return ""
    again = "Put it back to draft and schedule it"
    if channel == "sms" or never_at_send:
        return f"This kind knows no other way. {again} shortly before it goes."
    return f'Its recipients may have been fixed when it was scheduled. {again} with recipients determined at "Send time".'
