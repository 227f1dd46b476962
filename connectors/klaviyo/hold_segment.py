"""The segment of held profiles: its definition, what is checked of it, and what a person does with it.

Dates in segments: https://help.klaviyo.com/hc/en-us/articles/4403222359451; flow filters, looked at again before every message:
https://help.klaviyo.com/hc/en-us/articles/115002779051; when campaigns determine recipients:
https://help.klaviyo.com/hc/en-us/articles/22501501263899.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hub.marketing import Check, Step

_HORIZON_DAYS = 60  # "in the next 60 days" stands for "in the future": longer than any lease

# The hold segment's definition, in the form of `POST /api/segments`: groups are joined by AND.
DEFINITION: Mapping[str, Any] = {
    "condition_groups": [
        {"conditions": [{"type": "profile-property", "property": f"properties['{name}']", "filter": chosen}]}
        for name, chosen in (
            ("support_hold", {"type": "boolean", "operator": "equals", "value": True}),
            ("support_hold_until", {"type": "date", "operator": "in-the-next", "unit": "day", "quantity": _HORIZON_DAYS}),
        )
    ]
}


def judged(segment: Mapping[str, Any] | None, name: str) -> Check:
    """Whether the segment (a resource of `GET /api/segments`) is there and asks for both properties."""
    if segment is None:
        return Check(name="Hold segment", ok=False, text=f'There is no segment "{name}": prepare creates it, or follow the steps.')
    definition = str((segment.get("attributes") or {}).get("definition") or "")
    missing = [word for word in ("support_hold", "support_hold_until") if not re.search(rf"\b{word}\b", definition)]
    if missing:
        text = f'The segment "{name}" does not ask for {" and ".join(missing)}: correct it as the steps say.'
        return Check(name="Hold segment", ok=False, text=text)
    return Check(name="Hold segment", ok=True, text=f'The segment "{name}" is there ({segment["id"]}).')


def steps(name: str, destination: str) -> Sequence[Step]:
    """What a person does in Klaviyo; `destination` is its name in the hub's configuration."""
    return [
        Step(
            text="Create a segment (Audience > Lists & segments > Create new > Segment), unless prepare has done it. Its name and its "
            "two conditions, joined by AND, both under Properties about someone, the first as type Boolean, the second as type Date:",
            paste=f"{name}\nsupport_hold is True\nAND\nsupport_hold_until is in the next {_HORIZON_DAYS} days",
        ),
        Step(text='In every campaign, under "Don\'t send to", choose the segment:', paste=name),
        Step(
            text="Settings > Messaging: let campaigns determine recipients at Send time. With Scheduled time a hold placed after "
            "somebody clicked Schedule does not reach the campaign. A/B tests and sending at the recipient's local time know no Send "
            "time. Then set in the hub's configuration:",
            paste=f"destinations.{destination}.recipients_at: send",
        ),
        Step(
            text="In every flow with marketing messages add under Profile filters, If someone is in or not in a list or segment: is not "
            "in the segment. Klaviyo looks at it again before every message.",
            paste=name,
        ),
    ]
