"""Campaigns and Canvases that Braze will send, in our words.

`GET /messages/scheduled_broadcasts` (https://www.braze.com/docs/api/endpoints/messaging/schedule_messages/get_messages_scheduled/) and
the details of each (`/campaigns/details`, `/canvas/details`) [V]. Neither tells the audience's filters, so that a campaign leaves held
customers out is known only where every message of it asks the gate, or where its tag says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hub.marketing import Campaign

GATE = "/holds/check"  # the part of the gate's address that a message's text shows
_POST = re.compile(r":method\s+post", re.IGNORECASE)
_EARLIEST = timedelta(hours=14)  # the first place on earth where it is that time of day

MEND = "Open its audience and add the filter: segment membership, is not in, Support hold. Or paste the gate's lines into its messages."
MEND_CACHED = "Add :no_cache to the gate's lines in its messages: without it Braze repeats an answer for five minutes and more."


def campaign(broadcast: Mapping[str, Any], details: Mapping[str, Any], now: float, tag: str) -> Campaign:
    """One entry of the list of scheduled broadcasts, with what is known of its messages. `tag`: campaigns that bear it leave out held
    customers, by the marketers' own word. Pure."""
    at = send_time(str(broadcast.get("next_send_time") or ""))
    asks, cached = gate(details)
    declared = bool(tag) and tag.casefold() in {str(one).casefold() for one in broadcast.get("tags") or ()}
    excludes = True if declared or (asks and not cached) else None
    return Campaign(
        id=str(broadcast["id"]),
        name=str(broadcast.get("name") or broadcast["id"]),
        channel=channel(details),
        status="sending" if at is not None and at <= now else "scheduled",
        send_at=at,
        excludes_hold=excludes,
        mend="" if excludes else MEND_CACHED if cached else MEND + (f" Then tag it {tag}." if tag else ""),
    )


def gate(details: Mapping[str, Any]) -> tuple[bool, bool]:
    """(whether every message asks the gate and aborts, whether some message that asks may be answered out of Braze's cache). Pure."""
    texts = ["\n".join(_texts(message)) for message in _messages(details)]
    asking = [GATE in text and "abort_message" in text for text in texts]
    cached = any(GATE in text and ":no_cache" not in text and not _POST.search(text) for text in texts)
    return bool(texts) and all(asking), cached


def channel(details: Mapping[str, Any]) -> str:
    """The one channel it uses, in our word; `other` for several."""
    words = {_channel(str(name)) for name in details.get("channels") or ()}
    return words.pop() if len(words) == 1 else "other"


def send_time(text: str) -> float | None:
    """When it goes out first, unix seconds. A time without a zone is local to each recipient: the earliest it can be. Pure."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo else (when.replace(tzinfo=UTC) - _EARLIEST).timestamp()


def _channel(name: str) -> str:
    return name if name in {"email", "sms"} else "push" if name.endswith("push") else "other"


def _messages(details: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The messages of a campaign, or of every step of a Canvas; control groups get none."""
    for part in (details, *(details.get("steps") or ())):
        messages = part.get("messages")
        for message in messages.values() if isinstance(messages, dict) else ():
            if isinstance(message, dict) and message.get("type") != "control":
                yield message


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
