"""What Klaviyo sent: its events, asked for or told by system webhook.

Events: `GET /api/events` of Klaviyo's specification; which metrics mean a message that reached somebody:
https://help.klaviyo.com/hc/en-us/articles/360035345572 ("Received SMS": your recipient has received one; "Sent SMS" is the reverse,
somebody texted your number, so it is not in the table). Webhooks: https://developers.klaviyo.com/en/docs/working_with_system_webhooks,
only for Advanced KDP accounts and app partners.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from connectors.klaviyo.planned import unix
from hub.contract import Request, Unparseable, Verdict
from hub.marketing import SendSeen

# The metric's name -> our channel.
METRICS: Mapping[str, str] = {"Received Email": "email", "Received SMS": "sms", "Received Push": "push", "Received WhatsApp": "whatsapp"}
# The webhook topic's last word -> our channel. `email_delivered` is how the vendor's own example calls the first.
_TOPICS: Mapping[str, str] = {
    "received_email": "email",
    "email_delivered": "email",
    "received_sms": "sms",
    "received_push": "push",
    "received_whatsapp": "whatsapp",
}
# Which identifier of a profile a channel writes to; of another channel the first that is there.
_ADDRESS: Mapping[str, str] = {"email": "email", "sms": "phone", "whatsapp": "phone"}
_FIELDS: Mapping[str, str] = {"email": "email", "phone": "phone_number", "external_id": "external_id"}

# Klaviyo tries a webhook again for 48 hours and does not say whether under a new time; its header has been seen 5 hours off, an
# American hour called GMT. An event that is told twice is stored once, so an old genuine request does no harm.
TOLERANCE_SECONDS = 54 * 3600.0


def send(
    event: Mapping[str, Any], channel: str, profiles: Mapping[str, Mapping[str, Any]], campaigns: Mapping[str, str]
) -> SendSeen | None:
    """One event of a metric. `profiles` are the attributes of the included ones by id, `campaigns` the ids of campaigns by message
    id. None for an event without id or time."""
    given: Mapping[str, Any] = event.get("attributes") or {}
    said: Mapping[str, Any] = given.get("event_properties") or {}
    stamp = given.get("timestamp")
    at = float(stamp) if isinstance(stamp, int | float) else unix(given.get("datetime"))
    id = str(event.get("id") or "")
    if not id or at is None:
        return None
    profile = str(((((event.get("relationships") or {}).get("profile") or {}).get("data")) or {}).get("id") or "")
    kind, value = _recipient(channel, profiles.get(profile, {}))
    return SendSeen(
        provider_key=id,
        at=at,
        kind=kind,
        value=value,
        profile=profile,
        channel=channel,
        campaign_id=campaigns.get(message_of(event), ""),
        campaign=str(said.get("Campaign Name") or ""),
    )


def message_of(event: Mapping[str, Any]) -> str:
    """The id of the campaign message an event is about; empty for one that a flow sent."""
    said: Mapping[str, Any] = (event.get("attributes") or {}).get("event_properties") or {}
    return "" if said.get("$flow") else str(said.get("$message") or "")


def _recipient(channel: str, attributes: Mapping[str, Any]) -> tuple[str, str]:
    wanted = _ADDRESS.get(channel)
    for kind in (wanted,) if wanted else _FIELDS:
        if value := attributes.get(_FIELDS[kind]):
            return kind, str(value)
    return "", ""


def included_profiles(included: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The attributes of included profiles, by id."""
    return {str(one.get("id")): one.get("attributes") or {} for one in included if one.get("type") == "profile"}


# --- webhooks ---


def verdict(request: Request, secret: str, now: float) -> Verdict:
    """HMAC-SHA256 in hex over the raw body and then the `Klaviyo-Timestamp` header as it stands, as the vendor's page has it; or
    over the body alone, as others report. Fresh by a time that is signed: the header's in the first case, the body's in either."""
    signature = request.headers.get("klaviyo-signature", "").strip().lower()
    if not signature:
        return Verdict.UNSIGNED
    if not secret:
        return Verdict.NO_KEY
    header = request.headers.get("klaviyo-timestamp", "")
    both = hmac.new(secret.encode(), request.body + header.encode(), hashlib.sha256).hexdigest()
    alone = hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
    given = signature.encode()
    with_header = hmac.compare_digest(given, both.encode())
    if not (with_header | hmac.compare_digest(given, alone.encode())):
        return Verdict.BAD
    try:
        meta = _document(request.body).get("meta")
    except Unparseable:
        meta = None  # genuine all the same: it is kept for people to look at
    meta = meta if isinstance(meta, dict) else {}
    # The header that names the webhook is not signed; the vendor asks that it be held against the body.
    named = request.headers.get("klaviyo-webhook-id", "")
    if named and meta.get("klaviyo_webhook_id") not in (None, named):
        return Verdict.BAD
    times = [unix(meta.get("timestamp")), _header_time(header) if with_header else None]
    return Verdict.GOOD if any(at is not None and abs(now - at) <= TOLERANCE_SECONDS for at in times) else Verdict.BAD


def told(request: Request) -> Sequence[SendSeen]:
    """The messages that a webhook tells of; other topics are left out. Raises Unparseable."""
    items = _document(request.body).get("data")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Unparseable("Klaviyo's webhook has no list of events under data.")
    seen = []
    for item in items:
        channel = _TOPICS.get(_topic(str(item.get("topic") or "")))
        if channel is None:
            continue
        payload = item.get("payload")
        event = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(event, dict):
            raise Unparseable(f"Klaviyo's webhook tells of {item.get('topic')} without its event.")
        known = included_profiles(one for one in payload.get("included") or () if isinstance(one, dict))
        one = send({"id": item.get("external_id"), **event}, channel, known, {})
        if one is None:
            raise Unparseable(f"Klaviyo's webhook tells of {item.get('topic')} without the event's id or time.")
        seen.append(one)
    return seen


def _topic(topic: str) -> str:
    """`event:klaviyo.received_email` -> `received_email`; empty for a topic that is not Klaviyo's own."""
    source, _, word = topic.removeprefix("event:").strip().rpartition(".")
    return word if source in ("", "klaviyo") else ""


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Unparseable("Klaviyo's webhook is not JSON.") from error
    if not isinstance(document, dict):
        raise Unparseable("Klaviyo's webhook is not an object.")
    return document


def _header_time(text: str) -> float | None:
    """The header's time: an HTTP date, ISO 8601, or unix seconds (all three have been reported)."""
    if text.isdecimal():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return unix(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
