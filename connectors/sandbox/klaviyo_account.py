"""The sandbox's Klaviyo account: its people as profiles, the hold segment, and a winter sale that waits to be sent."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from connectors.sandbox.people import PEOPLE
from connectors.sandbox.state import SandboxState
from connectors.sandbox.tools.klaviyo import KlaviyoStandIn
from connectors.sandbox.tools.stand_in import Profile

SEGMENT = "Support hold"
# What the hub's set-up page creates: both conditions, joined by AND.
CONDITIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("support_hold", {"type": "boolean", "operator": "equals", "value": True}),
    ("support_hold_until", {"type": "date", "operator": "in-the-next", "unit": "day", "quantity": 60}),
)
AHEAD = 86_400.0  # seconds until a planned campaign would go by itself
REMEMBERED = 1_000  # calls


class KlaviyoAccount(KlaviyoStandIn):
    """Klaviyo for the sandbox page: it tells `state` of what changes, remembers which profiles the hub has read back since it wrote
    them, and keeps two campaigns planned, of which one goes by mail to whoever is free when it is sent and the other by SMS to whoever
    was free when it was scheduled. Without an `api_key` it lets nobody in."""

    def __init__(self, state: SandboxState, api_key: str) -> None:
        super().__init__(clock=lambda: state.clock())  # noqa: PLW0108 (a test may set it anew)
        self._state = state
        self._api_key = api_key
        self._read_back: dict[str, float] = {}  # profile -> when the hub read it first after it wrote it (unix seconds)
        self._runs = 0
        self.sent: list[dict[str, Any]] = []  # the campaigns of the last sending, and who got each
        groups = [
            {"conditions": [{"type": "profile-property", "property": f"properties['{name}']", "filter": chosen}]}
            for name, chosen in CONDITIONS
        ]
        self.segment = self.add_segment(SEGMENT, definition={"condition_groups": groups})
        self.names = {self.add_profile(email=one.email, phone=one.phone, external_id=one.user_id).id: one.name for one in PEOPLE}
        self._plan()

    def authorised(self, request: web.Request) -> bool:
        return bool(self._api_key) and request.headers.get("Authorization") == f"Klaviyo-API-Key {self._api_key}"

    def meddle(self, profile: Profile, attributes: dict[str, Any], unset: tuple[str, ...] = ()) -> None:
        super().meddle(profile, attributes, unset)
        self._read_back.pop(profile.id, None)
        self._state.changed()

    async def _get_profiles(self, request: web.Request) -> web.Response:
        response = await super()._get_profiles(request)
        del self.calls[:-REMEMBERED]  # a sandbox may stand for weeks
        told = json.loads(response.body)["data"] if response.status == 200 and isinstance(response.body, bytes) else ()
        fresh = [
            one["id"] for one in told if one["id"] not in self._read_back and "support_hold" in (one["attributes"].get("properties") or {})
        ]
        if fresh:
            self._read_back |= dict.fromkeys(fresh, self.clock())
            self._state.changed()
        return response

    # --- the winter sale ---

    def _plan(self) -> None:
        self._runs += 1
        number = f" {self._runs}" if self._runs > 1 else ""
        at, without = self.clock() + AHEAD, [self.segment["id"]]
        self.add_campaign(f"Winter sale{number}", at, excluded=without, freeze="send")
        self.add_campaign(f"Winter sale by SMS{number}", at, channel="sms", excluded=without, freeze="schedule")

    def send_now(self) -> list[dict[str, Any]]:
        """Send what is planned, and plan it anew; returns the events, which are noted in `sent` by name too."""
        now = self.clock()
        held = {profile.id for profile in self.profiles if self.in_segment(profile)}
        planned = [one for one in self.campaigns if one["status"] == "Scheduled"]
        for campaign in planned:
            campaign["send_at"] = now
        events = self.run_campaigns()
        got = {(event["properties"]["$message"], event["profile"]) for event in events}
        self.sent = [
            {
                "name": campaign["name"],
                "at": now,
                "lines": [_line(name, (campaign["message"], id) in got, id in held, campaign) for id, name in self.names.items()],
            }
            for campaign in planned
        ]
        self._plan()
        self._state.changed()
        return events

    # --- what the page shows ---

    def snapshot(self) -> dict[str, Any]:
        """Profiles, planned campaigns and the last sending, as JSON."""
        return {
            "connected": bool(self._api_key),
            "profiles": [self._shown(profile) for profile in self.profiles if profile.id in self.names],
            "planned": [
                {
                    "name": one["name"],
                    "fixed_at": one["scheduled_at"] if one["freeze"] == "schedule" else None,
                    "recipients": None if one["recipients"] is None else [self.names[id] for id in self.names if id in one["recipients"]],
                }
                for one in self.campaigns
                if one["status"] == "Scheduled"
            ],
            "drafts": [one["name"] for one in self.campaigns if one["status"] == "Draft"],
            "sent": self.sent,
        }

    def _shown(self, profile: Profile) -> dict[str, Any]:
        said = profile.attributes
        return {
            "name": self.names[profile.id],
            "held": said.get("support_hold"),
            "until": said.get("support_hold_until"),
            "status": said.get("support_status"),
            "resolved_at": said.get("support_resolved_at"),
            "in_segment": self.in_segment(profile),
            "read_back": self._read_back.get(profile.id) if "support_hold" in said else None,
        }


def _line(name: str, sent: bool, held: bool, campaign: dict[str, Any]) -> dict[str, Any]:
    fixed = campaign["freeze"] == "schedule"
    if sent and held:
        why = "although on hold: its recipients were fixed before" if fixed else "although on hold"
    elif sent:
        why = "not on hold"
    elif fixed:
        why = "not among the recipients fixed when it was scheduled"
    else:
        why = f"in the segment “{SEGMENT}”" if held else "not reachable"
    return {"name": name, "sent": sent, "leak": sent and held, "why": why}
