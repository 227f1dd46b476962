"""What Amazon SES tells of mails sent, in both its shapes: feedback notifications and event publishing.

https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html (`notificationType`),
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html (`eventType`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.mail_headers import message_ids
from hub.contract import STATUS_AFTER, DeliveryEvent, DeliveryUpdate, Ignored, Inbound

# Amazon's word -> ours, the object about it, and its list of recipients (empty: everybody the mail went to).
EVENTS: Mapping[str, tuple[DeliveryEvent, str, str]] = {
    "Send": (DeliveryEvent.SENT, "send", ""),
    "Delivery": (DeliveryEvent.DELIVERED, "delivery", "recipients"),
    "Bounce": (DeliveryEvent.BOUNCED, "bounce", "bouncedRecipients"),
    "Complaint": (DeliveryEvent.COMPLAINED, "complaint", "complainedRecipients"),
    "Reject": (DeliveryEvent.REJECTED, "reject", ""),
    "Rendering Failure": (DeliveryEvent.REJECTED, "failure", ""),
    "DeliveryDelay": (DeliveryEvent.DEFERRED, "deliveryDelay", "delayedRecipients"),
    "Open": (DeliveryEvent.OPENED, "open", ""),
    "Click": (DeliveryEvent.CLICKED, "click", ""),
    "Subscription": (DeliveryEvent.UNSUBSCRIBED, "subscription", ""),
}
# Of a permanent bounce, what says that the address itself takes nothing: not a refused attachment or content.
_GONE = frozenset({"General", "NoEmail", "Suppressed", "OnAccountSuppressionList"})
MAX_RECIPIENTS = 100


def updates(told: Mapping[str, Any], key: str) -> Sequence[Inbound]:
    """One update for each recipient the news is about. `key` is unique to the notification and stable over retries."""
    kind = next((word for word in (told.get("eventType"), told.get("notificationType")) if isinstance(word, str)), "")
    mail = told.get("mail")
    if not isinstance(mail, dict):  # such as AmazonSnsSubscriptionSucceeded
        return [Ignored(provider_key=key, reason=f"SES says {kind[:80] or 'nothing of a mail'}")]
    event, name, listed = EVENTS.get(kind, (DeliveryEvent.OTHER, "", ""))
    found = told.get(name)
    about: dict[str, Any] = found if isinstance(found, dict) else {}
    preferences = about.get("newTopicPreferences")
    if kind == "Subscription" and not (isinstance(preferences, dict) and preferences.get("unsubscribeAll") is True):
        event = DeliveryEvent.OTHER
    recipients = _recipients(about.get(listed) if listed else mail.get("destination"))
    failed = event in (DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED)
    permanent = kind == "Bounce" and about.get("bounceType") == "Permanent" and str(about.get("bounceSubType")) in _GONE
    common = _common(mail)
    return [
        DeliveryUpdate(
            provider_key=f"{key}:{address}",
            status=STATUS_AFTER[event],
            event=event,
            recipient=address,
            error=_error(kind, about, said) if failed else "",
            permanent=permanent,
            **common,
        )
        for address, said in (recipients or [("", {})])
    ]


def _recipients(found: object) -> list[tuple[str, dict[str, Any]]]:
    """Each address once, with what is told of it."""
    out: dict[str, dict[str, Any]] = {}
    for item in found if isinstance(found, list) else []:
        said = item if isinstance(item, dict) else {"emailAddress": item}
        address = said.get("emailAddress")
        if isinstance(address, str) and address:
            out.setdefault(address[:320], said)
    return list(out.items())[:MAX_RECIPIENTS]


def _common(mail: Mapping[str, Any]) -> dict[str, Any]:
    """Which mail it was: SES's id, our Message-ID where its headers are told, and our own tag."""
    headers = mail.get("commonHeaders")
    own = headers.get("messageId") if isinstance(headers, dict) else ""
    tags = mail.get("tags")
    tag = tags.get(NAME) if isinstance(tags, dict) else None
    return {
        "provider_message_id": str(mail.get("messageId") or "")[:200],
        "mail_id": (*message_ids(own if isinstance(own, str) else ""), "")[0],
        "delivery_id": delivery_of(tag[0]) if isinstance(tag, list) and tag else None,
    }


def _error(kind: str, about: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """In plain words, with Amazon's own: what kind of failure, and what the other mail server answered."""
    words = [about.get(name) for name in ("bounceType", "bounceSubType", "delayType", "reason", "errorMessage")]
    kinds = " ".join(word for word in words if isinstance(word, str))
    answered = said.get("diagnosticCode") or said.get("status") or ""
    return ": ".join(part for part in (kind, kinds, " ".join(str(answered).split())) if part)[:500]
