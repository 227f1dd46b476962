"""What Braze says it sent, and what it aborted: its Currents, streamed to us by the custom HTTP connector.

https://www.braze.com/docs/user_guide/data/distribution/braze_currents/setting_up_currents/custom_http_connector/ [V]: a POST of
`{"events": [...]}`, at most 100 of them, with `Authorization: Bearer <token>`; a body without events must do nothing; unknown types
and fields must be borne. Events as in the vendor's samples (https://github.com/Appboy/currents-examples, sample-data/Custom HTTP).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hub.contract import Request, Unparseable, Verdict
from hub.marketing import SendSeen

# The part of an event's type that names the channel -> our word. What a person does not receive (webhook, feature flag) is not here.
_CHANNELS: Mapping[str, str] = {
    "email": "email",
    "sms": "sms",
    "pushnotification": "push",
    "whatsapp": "whatsapp",
    "line": "other",
    "rcs": "other",
    "contentcard": "other",
    "inappmessage": "other",
    "banner": "other",
}
_ENDS = frozenset({"Send", "Abort"})


def verdict(request: Request, secret: str) -> Verdict:
    """Judge the bearer token, in constant time."""
    if not secret:
        return Verdict.NO_KEY
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        return Verdict.UNSIGNED
    fits = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), secret.encode())
    return Verdict.GOOD if fits else Verdict.BAD


def told(request: Request) -> Sequence[SendSeen]:
    """The messages sent and aborted that a request tells of. Pure. Raises Unparseable."""
    if not request.body.strip():
        return ()
    try:
        events = json.loads(request.body)["events"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unparseable("The body is no JSON object with events.") from error
    if not isinstance(events, list):
        raise Unparseable("The events are no list.")
    return [seen for event in events if (seen := _seen(event))]


def _seen(event: Any) -> SendSeen | None:
    """One event, or None for one that is no message to a person."""
    if not isinstance(event, dict):
        raise Unparseable("An event is no JSON object.")
    parts = str(event.get("event_type", "")).split(".")
    if len(parts) != 4 or parts[:2] != ["users", "messages"] or parts[2] not in _CHANNELS or parts[3] not in _ENDS:
        return None
    id, at = event.get("id"), event.get("time")
    if not isinstance(id, str) or not id or isinstance(at, bool) or not isinstance(at, int | float):
        raise Unparseable(f"An event {event['event_type']} has no id or no time.")
    user, about = _object(event.get("user")), _object(event.get("properties"))
    kind, value = _recipient(user, about)
    return SendSeen(
        provider_key=id,
        at=float(at),
        kind=kind,
        value=value,
        profile=str(user.get("user_id") or ""),
        channel=_CHANNELS[parts[2]],
        campaign_id=str(about.get("campaign_id") or about.get("canvas_id") or ""),
        campaign=str(about.get("campaign_name") or about.get("canvas_name") or ""),
        prevented=parts[3] == "Abort",
    )


def _recipient(user: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[str, str]:
    for kind, value in (
        ("external_id", user.get("external_user_id")),
        ("email", about.get("email_address")),
        ("phone", about.get("to_phone_number")),
    ):
        if isinstance(value, str) and value:
            return kind, value
    return "", ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
