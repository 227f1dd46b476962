"""Telnyx's list of the webhooks it delivered or could not deliver, each with its event whole: what came in while nobody answered.

https://developers.telnyx.com/api-reference/webhooks/list-webhook-deliveries. The list is the account's, not one number's, and its order
is not documented; so it is read whole and sorted here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from connectors.shared.retry_after import retry_after
from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater

PAGE_SIZE = 250
MAX_PAGE_BYTES = 8_000_000
MAX_PAGES = 1_000  # a quarter of a million messages: a list that never ends is no list


async def read_events(base_url: str, authorization: str, since: float, until: float, http: Http) -> Sequence[Mapping[str, Any]]:
    """Every `message.received` that Telnyx first tried to deliver between two times (unix seconds), each once, the oldest first.
    Raises TryLater or Refused."""
    asked = {
        "filter[event_type]": "message.received",
        "filter[started_at][gte]": _iso(since),
        "filter[started_at][lte]": _iso(until),
        "page[size]": str(PAGE_SIZE),
    }
    headers = {"Authorization": authorization, "Accept": "application/json"}
    found: dict[str, Mapping[str, Any]] = {}
    for number in range(1, MAX_PAGES + 1):
        data, last = await _page(f"{base_url}/v2/webhook_deliveries?{urlencode(asked | {'page[number]': str(number)})}", headers, http)
        for delivery in data:
            event = delivery.get("webhook") if isinstance(delivery, dict) else None
            payload = event.get("payload") if isinstance(event, dict) else None
            if isinstance(event, dict) and isinstance(payload, dict) and isinstance(payload.get("id"), str):
                found.setdefault(payload["id"], event)
        if not data or number >= last:
            return sorted(found.values(), key=lambda event: str(event.get("occurred_at") or ""))
    raise Refused(f"Telnyx's list of webhooks has more than {MAX_PAGES} pages. Ask for a shorter time.")


async def _page(url: str, headers: Mapping[str, str], http: Http) -> tuple[Sequence[Any], int]:
    """What is on one page, and the number of the last."""
    try:
        answer = await http.request("GET", url, headers=headers, timeout=30.0, max_bytes=MAX_PAGE_BYTES)
    except (NotSent, NoAnswer) as error:
        raise TryLater(f"Telnyx could not be reached: {error}") from error
    if answer.status in (401, 403, 404):
        raise Refused(f"Telnyx answered {answer.status}. Check api_key in this channel's settings.")
    if answer.status != 200:
        raise TryLater(f"Telnyx answered {answer.status} for its list of webhooks.", retry_after(answer.headers))
    try:
        read = json.loads(answer.body)
        data, last = read["data"], int(read["meta"]["total_pages"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TryLater("Telnyx's list of webhooks cannot be read.") from error
    if not isinstance(data, list):
        raise TryLater("Telnyx's list of webhooks cannot be read.")
    return data, last


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
