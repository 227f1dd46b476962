"""A planned marketing e-mail of HubSpot's, judged: does it leave held contacts out.

`GET /marketing/v3/emails` of the vendor's specification [V]: `state`, `publishDate` ("the date and time the email is scheduled for"),
`to.contactIlsLists` with `include` and `exclude` (https://developers.hubspot.com/docs/api-reference/marketing-marketing-emails-v3/guide:
lists are named there alone since 2024-10-31, `contactLists` bears their old ids). Active lists are looked at when the e-mail is
processed [S]: no page of the vendor's says so plainly, so leave the hub some minutes before a large send.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hub.marketing import Campaign

# HubSpot's state -> ours, for what is scheduled or going out. `AUTOMATED...` belongs to workflows, which suppress for themselves.
STATES: Mapping[str, str] = {
    "SCHEDULED": "scheduled",
    "SCHEDULED_AB": "scheduled",
    "PRE_PROCESSING": "sending",
    "PROCESSING": "sending",
}
# What is asked of each e-mail: its content is large and none of our business.
FIELDS = ("id", "name", "state", "type", "publishDate", "publishedAt", "updatedAt", "isTransactional", "to")


def unix(text: object) -> float | None:
    """An ISO 8601 time, or a number of milliseconds as text, in unix seconds. None for none and for nonsense."""
    if isinstance(text, str) and text.isdecimal():
        return int(text) / 1_000
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def campaign(email: Mapping[str, Any], hold_list: str, hold_list_name: str, account: str) -> Campaign | None:
    """One e-mail of the answer; None for one that is not marketing that is coming. `hold_list` is the list's id, empty: unknown;
    `account` the account's number, for the link."""
    status = STATES.get(str(email.get("state")))
    if status is None or email.get("isTransactional") is True:
        return None
    lists: Mapping[str, Any] | None = (email.get("to") or {}).get("contactIlsLists")
    excludes = None
    if hold_list and lists is not None:
        excludes = hold_list in {str(one) for one in lists.get("exclude") or ()}
    send_at = unix(email.get("publishDate")) or unix(email.get("publishedAt"))
    id = str(email.get("id", ""))
    return Campaign(
        id=id,
        name=str(email.get("name") or ""),
        channel="email",
        status=status,
        send_at=send_at,
        frozen_at=(send_at or unix(email.get("updatedAt"))) if status == "sending" else None,
        excludes_hold=excludes,
        audiences=tuple(str(one) for one in (lists or {}).get("include") or ()),
        mend=_mend(status, excludes, bool(hold_list), hold_list_name),
        url=f"https://app.hubspot.com/email/{account}/edit/{id}/settings" if account and id else "",
    )


def _mend(status: str, excludes: bool | None, known: bool, name: str) -> str:
    """The one step that mends it."""
    if status == "sending":
        return "It is going out: only cancelling it in HubSpot stops the rest, and that for everybody."
    if not known:
        return f'There is no list "{name}" in HubSpot: prepare the tool in the set-up, then choose it under "Don\'t send to".'
    if excludes is None:
        return f'HubSpot does not tell its recipients: see that the list "{name}" stands under "Don\'t send to".'
    return "" if excludes else f'Cancel the schedule, choose the list "{name}" under "Don\'t send to", and schedule it again.'
