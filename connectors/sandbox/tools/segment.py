"""A stand-in of Segment's HTTP Tracking API: it answers 200 to nearly everything, and drops afterwards what it does not like.

Shapes from https://www.twilio.com/docs/segment/connections/sources/catalog/libraries/server/http-api; the vendor's own Python client
is driven against it in the tests. It has no call that reads: whoever drives it looks at `profiles`, and at `dropped` for what was
answered 200 and thrown away.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, ClassVar

from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

KEY = "DmBXIN4JnwqBnTqXccTF0wBnLXNQmFtk"
_EVENT_BYTES, _BATCH_BYTES, _BATCH_EVENTS = 32_000, 500_000, 2_500


@dataclass(slots=True)
class SegmentQuirks(Quirks):
    """What goes wrong at Segment besides."""

    enforced: bool = False  # the workspace enforces authentication: a wrong key answers 401, where it is else dropped in silence


class SegmentStandIn(StandIn):
    """Segment on loopback: a source, and the profiles that its identify calls make."""

    name: ClassVar[str] = "segment"
    credentials: ClassVar[dict[str, str]] = {"write_key": KEY}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quirks: SegmentQuirks = SegmentQuirks()
        self.dropped: list[tuple[str, dict[str, Any]]] = []  # (why, event): answered 200 all the same
        self.events: list[dict[str, Any]] = []  # what was taken, in order
        self._seen: set[str] = set()

    def in_segment(self, profile: Profile) -> bool:
        return self.shown(profile, self.quirks.segment_lag).get("support_hold") is True

    def authorised(self, request: web.Request) -> bool:
        return not self.quirks.enforced or _basic(request) == KEY

    def unauthorised(self) -> web.Response:
        """Also for a key that was revoked: unless it enforces authentication, Segment says 200 to that too, and drops everything."""
        if not self.quirks.enforced:
            return web.json_response({"success": True})
        return web.json_response({"code": "unauthorized", "message": "Unauthorized"}, status=401)

    def failing(self, status: int) -> web.Response:
        headers = {}
        if status == 429 and self.quirks.retry_after:
            headers = {"Retry-After": self.quirks.retry_after, "X-RateLimit-Reset": self.quirks.retry_after}
        return web.json_response({"code": "error", "message": f"failing with {status}"}, status=status, headers=headers)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/batch", self._batch), web.post("/v1/identify", self._one), web.post("/v1/track", self._one)]

    async def _batch(self, request: web.Request) -> web.Response:
        return self._take(request, await request.read(), batch=True)

    async def _one(self, request: web.Request) -> web.Response:
        return self._take(request, await request.read(), batch=False)

    def _take(self, request: web.Request, raw: bytes, batch: bool) -> web.Response:
        try:
            body = json.loads(raw)
        except ValueError:
            return web.json_response({"code": "invalid_json", "message": "Malformed JSON"}, status=400)
        if len(raw) > (_BATCH_BYTES if batch else _EVENT_BYTES):
            return web.json_response({"code": "payload_too_large", "message": "Exceeded payload limit"}, status=400)
        events = body.get("batch", []) if batch else [{"type": request.path.rpartition("/")[2], **body}]
        key = _basic(request) or body.get("writeKey", "")
        for number, event in enumerate(events):
            why = self._fault(event, number)
            if key != KEY:
                why = "no source has this write key"
            if why:
                self.dropped.append((why, event))
            else:
                self._apply(event)
        return web.json_response({"success": True})

    def _fault(self, event: dict[str, Any], number: int) -> str:
        if number >= _BATCH_EVENTS:
            return "more than 2,500 events in a batch"
        if not event.get("userId") and not event.get("anonymousId"):
            return "no_user_anon_id"
        if event.get("type") == "track" and not event.get("event"):
            return "a track call without event"
        if len(json.dumps(event).encode()) > _EVENT_BYTES:
            return "event larger than 32 KB"
        if {str(event.get("userId")), str(event.get("traits", {}).get("email"))} & self.quirks.refused:
            return "blocked by the schema"
        message = str(event.get("messageId", ""))
        if len(message) >= 100:
            return "messageId of 100 characters or more"
        if message and message in self._seen:
            return "seen before"
        return ""

    def _apply(self, event: dict[str, Any]) -> None:
        if message := event.get("messageId"):
            self._seen.add(message)
        self.events.append(event)
        if event["type"] != "identify":
            return
        traits = dict(event.get("traits") or {})
        email = str(traits.pop("email", "") or "")
        user = str(event.get("userId") or "")
        profile = self.find("external_id", user) or self.find("email", user) or self.find("email", email)
        if profile is None:  # Segment asks nobody whether there should be one
            keys = {kind: value for kind, value in (("external_id", user), ("email", email)) if value}
            profile = self.add_profile(**(keys or {"anonymous_id": str(event["anonymousId"])}))
            profile.consent = {}
        unset = tuple(name for name, value in traits.items() if value is None)
        self.write(profile, {name: value for name, value in traits.items() if value is not None}, unset)


def _basic(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return ""
    try:
        return b64decode(given).decode().partition(":")[0]
    except ValueError:
        return ""
