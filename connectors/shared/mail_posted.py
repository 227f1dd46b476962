"""What the providers that post mails and news as JSON or forms have in common: reading their bodies, and telling of a mail sent."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.shared.mail_headers import Headers, message_ids
from hub.contract import STATUS_AFTER, DeliveryEvent, DeliveryUpdate, Unparseable

MAX_HEADERS = 1_000
FAULTS = frozenset({DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED, DeliveryEvent.COMPLAINED})


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises Unparseable."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unparseable("the body is not JSON") from error
    if not isinstance(found, dict):
        raise Unparseable("the body is not a JSON object")
    return found


def inner(of: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An object within objects; an empty one where there is none, since a mail must not be lost for a field about it."""
    found: Any = of
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def text(of: Mapping[str, Any], name: str, limit: int = 400) -> str:
    """A text of an object; empty for anything else."""
    value = of.get(name)
    return value[:limit] if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """A finite number, also where it is written as text."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def headers_of(pairs: Sequence[tuple[str, str]]) -> Headers:
    """Header lines as a provider lists them. Raises Unparseable for too many."""
    if len(pairs) > MAX_HEADERS:
        raise Unparseable(f"the mail has {len(pairs)} header lines, more than {MAX_HEADERS}")
    return Headers([(name, value[:64_000].encode("utf-8", "surrogatepass").decode("utf-8", "replace")) for name, value in pairs])


def news(
    event: DeliveryEvent,
    key: str,
    *,
    recipient: str = "",
    external_id: str = "",
    mail_id: str = "",
    error: str = "",
    permanent: bool = False,
    delivery_id: int | None = None,
) -> DeliveryUpdate:
    """What a provider tells of a mail sent. `key` is its own id of the event; `error` is kept where something went wrong."""
    return DeliveryUpdate(
        provider_key=f"event:{key}",
        status=STATUS_AFTER[event],
        event=event,
        recipient=recipient[:320],
        provider_message_id=external_id[:300],
        mail_id=(*message_ids(mail_id), "")[0],
        error=" ".join(error.split())[:500] if event in FAULTS else "",
        permanent=permanent,
        delivery_id=delivery_id,
    )


def digest_of(event: Mapping[str, Any]) -> str:
    """A key for an event that has no id of its own: a digest of all it says."""
    return hashlib.sha256(json.dumps(event, sort_keys=True, default=str).encode()).hexdigest()
