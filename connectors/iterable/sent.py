"""What Iterable says it sent, and what it skipped: its system webhooks.

https://support.iterable.com/hc/en-us/articles/208013936-System-Webhooks [V]: one JSON object a call, `{"email", "userId"?, "eventName",
"dataFields"}`, with `Authorization: <token>` for the auth type Basic (the token as it was typed, no scheme) and
`Authorization: OAuth2 <token>` for OAuth2; there is no signature. "Delivery is not guaranteed."
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.iterable.api import unix
from hub.contract import Request, Unparseable, Verdict
from hub.marketing import SendSeen

_EVENT = re.compile(r"(email|sms|push|webPush|whatsApp|inApp|embedded)Send(Skip)?", re.ASCII)
_CHANNELS: Mapping[str, str] = {"email": "email", "sms": "sms", "push": "push", "webPush": "push", "whatsApp": "whatsapp"}
_SCHEMES = frozenset({"basic", "oauth2", "bearer"})


def verdict(request: Request, secret: str) -> Verdict:
    """Judge the token, in constant time."""
    if not secret:
        return Verdict.NO_KEY
    header = request.headers.get("authorization", "").strip()
    if not header:
        return Verdict.UNSIGNED
    scheme, _, behind = header.partition(" ")
    given = behind.strip() if scheme.lower() in _SCHEMES else header
    return Verdict.GOOD if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode()) else Verdict.BAD


def told(request: Request) -> Sequence[SendSeen]:
    """The messages sent and skipped that a request tells of. Pure. Raises Unparseable."""
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise Unparseable("The body is no JSON.") from error
    events = body if isinstance(body, list) else [body]
    return [seen for event in events if (seen := _seen(event))]


def _seen(event: Any) -> SendSeen | None:
    """One event, or None for one that is no message sent or skipped."""
    if not isinstance(event, dict) or not isinstance(event.get("eventName"), str):
        raise Unparseable("An event is no JSON object with an eventName.")
    name = event["eventName"]
    found = _EVENT.fullmatch(name)
    if found is None:
        return None
    about = event.get("dataFields")
    if not isinstance(about, dict):
        raise Unparseable(f"An event {name} has no dataFields.")
    at = unix(about.get("createdAt"))
    if at is None:
        raise Unparseable(f"An event {name} has no time.")
    kind, value = next(
        (
            (kind, str(one))
            for kind, one in (("external_id", event.get("userId")), ("email", event.get("email") or about.get("email")))
            if one
        ),
        ("", ""),
    )
    message = about.get("messageId") or hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()[:32]
    return SendSeen(
        provider_key=f"{name}:{message}",
        at=at,
        kind=kind,
        value=value,
        profile=value,
        channel=_CHANNELS.get(found[1], "other"),
        campaign_id=str(about.get("campaignId") or ""),
        campaign=str(about.get("campaignName") or ""),
        prevented=found[2] is not None,
    )
