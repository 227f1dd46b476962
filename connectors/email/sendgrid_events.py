"""SendGrid's Event Webhook: news of mails sent, as a JSON list.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.mail_headers import message_ids
from hub.contract import STATUS_AFTER, DeliveryEvent, DeliveryUpdate, Ignored, Inbound, Unparseable

MAX_EVENTS = 10_000  # a batch is at most 768 KB
EVENTS: Mapping[str, DeliveryEvent] = {
    "processed": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "deferred": DeliveryEvent.DEFERRED,
    "bounce": DeliveryEvent.BOUNCED,  # with `type: blocked` where the other server refused it for now
    "blocked": DeliveryEvent.BOUNCED,
    "dropped": DeliveryEvent.REJECTED,
    "spamreport": DeliveryEvent.COMPLAINED,
    "unsubscribe": DeliveryEvent.UNSUBSCRIBED,
    "group_unsubscribe": DeliveryEvent.UNSUBSCRIBED,
    "open": DeliveryEvent.OPENED,
    "click": DeliveryEvent.CLICKED,
}
_FAULTS = frozenset({DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED})
# `bounce_classification`s that say something of this mail or of us, not of the address.
_PASSING = frozenset({"content", "reputation", "frequency or volume too high", "mailbox unavailable", "technical failure"})
_DROPPED_FOR_GOOD = frozenset({"bounced address", "invalid"})  # what SendGrid itself will not write to again
# `sg_message_id` is the X-Message-Id that sending answered, a dot, and the machine; of a mail dropped early the machine alone.
_MACHINE = re.compile(r"(?:^|\.)(?:filter|recvd|ismtpd|geopod)[A-Za-z0-9-]*\..*", re.DOTALL)


def is_events(content_type: str, body: bytes) -> bool:
    """Whether a request is the Event Webhook's and not Inbound Parse's, which is a form."""
    return content_type.lower().startswith("application/json") or body[:64].lstrip()[:1] == b"["


def read_events(body: bytes) -> Sequence[Inbound]:
    """Every event of a batch. Raises Unparseable."""
    try:
        events = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unparseable("the event webhook's body is not JSON") from error
    if not isinstance(events, list) or len(events) > MAX_EVENTS or not all(isinstance(event, dict) for event in events):
        raise Unparseable(f"the event webhook's body is not a list of at most {MAX_EVENTS} events")
    if not events:
        return [Ignored(provider_key="test:" + hashlib.sha256(body).hexdigest()[:32], reason="a list without events")]
    return [_update(event) for event in events]


def _text(of: Mapping[str, Any], name: str, limit: int = 320) -> str:
    value = of.get(name)
    return value[:limit] if isinstance(value, str) else ""


def _update(event: Mapping[str, Any]) -> DeliveryUpdate:
    kind = _text(event, "event", 40)
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    # The event's id is the same on every retry. A few old events have none: then what tells them apart stands for it.
    known = json.dumps([event.get(name) for name in ("event", "sg_message_id", "smtp-id", "email", "timestamp", "url")], sort_keys=True)
    status, reason = _text(event, "status", 20), " ".join((_text(event, "reason", 400) or _text(event, "response", 400)).split())
    words = ": ".join(filter(None, [kind, _text(event, "type", 40) if kind == "bounce" else "", reason]))
    return DeliveryUpdate(
        provider_key=_text(event, "sg_event_id") or f"event:{hashlib.sha256(known.encode()).hexdigest()}",
        status=STATUS_AFTER[our],
        event=our,
        delivery_id=delivery_of(event.get(NAME)),
        provider_message_id=_MACHINE.sub("", _text(event, "sg_message_id")),
        mail_id=(*message_ids(_text(event, "smtp-id", 400)), "")[0],
        recipient=_text(event, "email"),
        error=f"SendGrid: {words}{f' ({status})' if status and status not in reason else ''}" if our in _FAULTS else "",
        permanent=_is_permanent(event, kind),
    )


def _is_permanent(event: Mapping[str, Any], kind: str) -> bool:
    if kind == "dropped":
        return _text(event, "reason").lower() in _DROPPED_FOR_GOOD
    classified = _text(event, "bounce_classification").lower()
    return kind == "bounce" and _text(event, "type") != "blocked" and classified not in _PASSING
