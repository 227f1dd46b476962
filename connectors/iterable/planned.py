"""Campaigns that Iterable will send, in our words (`GET /api/campaigns`, `/api/lists`, `/api/templates/email/get`) [V].

A campaign's suppression lists may be dynamic (https://support.iterable.com/hc/en-us/articles/15706398096788) and those are evaluated as
it is sent ("sent to all the users who match that list's segmentation criteria at send time", articles/204780549): nothing is fixed when
it is scheduled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hub.marketing import Campaign

# Of campaignState; Draft, Finished, Aborted and Archived are not coming.
STATES: Mapping[str, str] = {
    "Ready": "scheduled",
    "Scheduled": "scheduled",
    "Recurring": "scheduled",
    "Starting": "sending",
    "Running": "sending",
}
_CHANNELS: Mapping[str, str] = {"Email": "email", "SMS": "sms", "Push": "push", "WebPush": "push"}


def coming(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the list is a campaign to lists that is scheduled or going out. Triggered ones have no lists: they are sent as
    journeys and API calls ask."""
    state, blast = entry.get("campaignState"), entry.get("type") == "Blast"
    return blast and state in STATES and (state != "Ready" or bool(entry.get("startAt")))


def campaign(entry: Mapping[str, Any], hold_list: int, hold_list_name: str, feeds: Collection[int] | None, gate_feed: int) -> Campaign:
    """One campaign. `hold_list`: the list of held users (0: there is none); `feeds`: the data feeds its template asks (None: not known);
    `gate_feed`: the one that is our gate (0: none). Pure."""
    status, start = STATES[entry["campaignState"]], entry.get("startAt")
    at = start / 1_000 if isinstance(start, int | float) and start > 0 else None
    excludes: bool | None = None
    if (hold_list and hold_list in (entry.get("suppressionListIds") or ())) or (gate_feed and feeds is not None and gate_feed in feeds):
        excludes = True
    elif hold_list and (not gate_feed or feeds is not None):
        excludes = False
    return Campaign(
        id=str(entry["id"]),
        name=str(entry.get("name") or entry["id"]),
        channel=_CHANNELS.get(str(entry.get("messageMedium")), "other"),
        status=status,
        send_at=at,
        frozen_at=at if status == "sending" else None,
        excludes_hold=excludes,
        audiences=tuple(str(one) for one in entry.get("listIds") or ()),
        mend="" if excludes else f"Open its audience and add the dynamic list {hold_list_name} to its suppression lists.",
    )
