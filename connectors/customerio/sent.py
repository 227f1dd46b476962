"""What Customer.io sent: its messages, asked for or told by reporting webhook.

Messages: `GET /v1/messages` of the App API [V]. Webhooks: the vendor's specification of them, and
https://docs.customer.io/journeys/webhooks/ [V]: JSON signed with `X-CIO-Signature`, an answer awaited for 4 seconds, tried again for
seven days, everything behind it waiting. Neither bears the text sent, unless somebody chose "Body Content"; then it is not read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hub.contract import Request, Unparseable, Verdict
from hub.marketing import SendSeen

# Customer.io's type of a message -> our channel. What is not here goes to no customer (webhook, slack).
CHANNELS: Mapping[str, str] = {
    "email": "email",
    "twilio": "sms",  # what the App API calls an SMS
    "sms": "sms",  # what webhooks call it
    "push": "push",
    "whatsapp": "whatsapp",
    "in_app": "other",
    "inbox": "other",
}
# Whose message it is -> what it is asked for by. One of none of these is transactional, and not marketing.
PARENTS: Mapping[str, str] = {"newsletter_id": "newsletters", "broadcast_id": "broadcasts", "campaign_id": "campaigns"}

# Webhooks are tried again for seven days, and no page says whether under a new time. One told twice is stored once.
TOLERANCE_SECONDS = 8 * 86_400.0


def message(given: Mapping[str, Any], names: Mapping[str, str]) -> SendSeen | None:
    """One message of the App API. `names` are campaigns' names by what `parent` says. None for one that is no marketing or was not
    sent."""
    at = (given.get("metrics") or {}).get("sent")
    return _seen(str(given.get("id") or ""), at, str(given.get("type")), given, given.get("customer_identifiers"), names)


def parent(given: Mapping[str, Any]) -> str:
    """Whose message it is, as the path under which the App API names it: "newsletters/10". Empty for a transactional one."""
    if given.get("transactional_message_id") not in (None, "", 0):
        return ""
    return next((f"{path}/{given[key]}" for key, path in PARENTS.items() if given.get(key) not in (None, "", 0)), "")


def _seen(id: str, at: object, kind: str, given: Mapping[str, Any], identifiers: object, names: Mapping[str, str]) -> SendSeen | None:
    channel, owner = CHANNELS.get(kind), parent(given)
    if channel is None or not owner or not id or not isinstance(at, int | float):
        return None
    who: Mapping[str, Any] = identifiers if isinstance(identifiers, dict) else {}
    recipient = given.get("recipient")
    kind, value = _recipient(channel, recipient if isinstance(recipient, str) else "", who)
    return SendSeen(
        provider_key=id,
        at=float(at),
        kind=kind,
        value=value,
        profile=str(who.get("cio_id") or ""),
        channel=channel,
        campaign_id=owner,
        campaign=names.get(owner, ""),
    )


def _recipient(channel: str, recipient: str, who: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, value): the address it went to, else whom Customer.io knows the person as."""
    if channel == "email" and "@" in recipient:
        named = re.search(r"<([^<>]+@[^<>]+)>\s*$", recipient)
        return "email", named[1] if named else recipient.strip()
    if channel in {"sms", "whatsapp"} and re.fullmatch(r"\+[0-9]{5,15}", recipient, re.ASCII):
        return "phone", recipient
    return next(((ours, str(who[theirs])) for ours, theirs in (("external_id", "id"), ("email", "email")) if who.get(theirs)), ("", ""))


# --- webhooks ---


def verdict(request: Request, secret: str, now: float) -> Verdict:
    """HMAC-SHA256 in hex over `v0:<X-CIO-Timestamp>:<body>`, with the webhook's signing key."""
    signature, at = (request.headers.get(name, "").strip() for name in ("x-cio-signature", "x-cio-timestamp"))
    if not signature or not at:
        return Verdict.UNSIGNED
    if not secret:
        return Verdict.NO_KEY
    if not re.fullmatch(r"[0-9]{1,12}", at, re.ASCII) or abs(now - int(at)) > TOLERANCE_SECONDS:
        return Verdict.BAD
    wanted = hmac.new(secret.encode(), b"v0:" + at.encode() + b":" + request.body, hashlib.sha256).hexdigest()
    return Verdict.GOOD if hmac.compare_digest(wanted.encode(), signature.lower().encode()) else Verdict.BAD


def told(request: Request) -> Sequence[SendSeen]:
    """The message that a webhook tells was sent; other metrics and what is no marketing are left out. Raises Unparseable."""
    try:
        event = json.loads(request.body)
    except ValueError as error:
        raise Unparseable("Customer.io's webhook is not JSON.") from error
    if not isinstance(event, dict) or not isinstance(event.get("metric"), str) or not isinstance(event.get("data"), dict):
        raise Unparseable("Customer.io's webhook is no event with a metric and its data.")
    if event["metric"] != "sent" or event.get("object_type") not in CHANNELS:
        return []
    data: Mapping[str, Any] = event["data"]
    if not parent(data):
        return []
    # The same key as the message bears in the App API, so that it is counted once whichever way it came.
    one = _seen(str(data.get("delivery_id") or ""), event.get("timestamp"), str(event["object_type"]), data, data.get("identifiers"), {})
    if one is None:
        raise Unparseable("Customer.io's webhook tells of a message sent without its delivery_id or time.")
    return [one]
