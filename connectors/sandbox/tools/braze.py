"""A stand-in of Braze's REST API: one workspace, its profiles, what is scheduled, and campaigns that ask the gate as they go out.

Shapes are those of the vendor's pages (https://www.braze.com/docs/api/) and of its Currents samples. Its quirks: 201 "success" with
errors of single objects inside, an update of nobody is a success too, several profiles share one address, an address makes a profile
subscribed, every attribute written is a data point, waits are told as a time, GET Connected Content is cached for five minutes unless
it says `:no_cache` and asked more often than messages are sent, and there is no idempotency key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

KEY = "1d0c1b9e-5f4e-4b6e-9d3a-0f7c6b2a9e51"
BEARER = "currents-token-0p3n5354m3=="
MOST_OBJECTS = 75
CACHED_SECONDS = 300.0
GATE_SECONDS = 2.0  # a slower answer is not put in
MOST_EVENTS = 100  # a batch of Currents

_IDENTIFIERS = {"external_id": "external_id", "email": "email", "phone": "phone"}
_CONSENT = {"email_subscribe": "email", "push_subscribe": "push"}
_NOT_CUSTOM = {"braze_id", "_update_existing_only", "user_alias", "subscription_groups", *_IDENTIFIERS, *_CONSENT}


@dataclass(slots=True)
class BrazeQuirks(Quirks):
    """What goes wrong at Braze besides."""

    maintenance: bool = False  # calls are queued and not carried out: 202
    unnamed_errors: bool = False  # errors inside a success do not say which object they are about
    lacks: set[str] = field(default_factory=set)  # paths the key has no permission for
    renders: int = 1  # how often a message is made, and the gate asked, for each that is sent


@dataclass(frozen=True, slots=True)
class Gate:
    """What a message asks before it is sent. `closed`: it is aborted where no answer comes; else it is sent."""

    url: str
    token: str = ""
    closed: bool = True
    no_cache: bool = True
    post: bool = False
    parameters: dict[str, str] = field(default_factory=dict)  # what the address says besides whom it is about


class BrazeStandIn(StandIn):
    """Braze on loopback."""

    name: ClassVar[str] = "braze"
    credentials: ClassVar[dict[str, str]] = {"api_key": KEY, "webhook_secret": BEARER}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quirks: BrazeQuirks = BrazeQuirks()
        self.data_points = 0
        self.canvases: list[dict[str, Any]] = []  # in the shape of /canvas/details, with its "id"
        self.broadcasts: list[dict[str, Any]] = []  # what /messages/scheduled_broadcasts lists
        self.events: list[dict[str, Any]] = []  # Currents of all campaigns run
        self._told = 0
        self._answers: dict[str, tuple[float, Any]] = {}  # Connected Content by address: (until when it is repeated, the answer)

    def new_id(self, number: int) -> str:
        return f"{number:024x}"

    def in_segment(self, profile: Profile) -> bool:
        """Whether `support_hold IS TRUE AND support_hold_until IN LESS THAN 30 DAYS IN FUTURE`."""
        shown = self.shown(profile, self.quirks.segment_lag)
        return shown.get("support_hold") is True and 0 < _unix(shown.get("support_hold_until")) - self.clock() < 30 * 86_400

    def authorised(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {KEY}" and request.path not in self.quirks.lacks

    def unauthorised(self) -> web.Response:
        return web.json_response({"message": "Invalid API Key"}, status=401)

    def failing(self, status: int) -> web.Response:
        headers = {"X-RateLimit-Limit": "250", "X-RateLimit-Remaining": "0" if status == 429 else "249"}
        if self.quirks.retry_after:  # told as the moment the window ends
            headers["X-RateLimit-Reset"] = str(int(self.clock() + float(self.quirks.retry_after)))
        return web.json_response(
            {"message": "Rate limit exceeded" if status == 429 else "Internal server error"}, status=status, headers=headers
        )

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/users/track", self._track),
            web.post("/users/export/ids", self._export),
            web.get("/messages/scheduled_broadcasts", self._scheduled),
            web.get("/campaigns/details", self._campaign),
            web.get("/canvas/details", self._canvas),
        ]

    # --- profiles ---

    async def _track(self, request: web.Request) -> web.Response:
        objects = (await request.json()).get("attributes") or []
        if self.quirks.maintenance:
            return web.json_response({"message": "queued"}, status=202)
        if not objects:
            return web.json_response({"message": "Valid data must be provided in the 'attributes' field."}, status=400)
        if len(objects) > MOST_OBJECTS:
            return web.json_response({"message": "Max input length exceeded"}, status=400)
        faults = {index: why for index, one in enumerate(objects) if (why := self._fault(one))}
        errors = [
            {"type": why} if self.quirks.unnamed_errors else {"type": why, "input_array": "attributes", "index": index}
            for index, why in faults.items()
        ]
        if len(faults) == len(objects):
            message = "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."
            return web.json_response({"message": message, "errors": errors}, status=400)
        for index, one in enumerate(objects):
            if index not in faults:
                self._apply(one)
        answer: dict[str, Any] = {"attributes_processed": len(objects) - len(faults), "message": "success"}
        return web.json_response(answer | ({"errors": errors} if errors else {}), status=201)

    def _fault(self, one: dict[str, Any]) -> str:
        if not {"braze_id", "user_alias", *_IDENTIFIERS} & one.keys():
            return "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required"
        profile = self._named(one)
        values = set(profile.keys.values()) if profile else {str(one.get(name)) for name in _IDENTIFIERS}
        return "provided external_id is blacklisted and disallowed" if values & self.quirks.refused else ""

    def _named(self, one: dict[str, Any]) -> Profile | None:
        """Whom an object is about. Of several who share an address it is the one changed last."""
        if "braze_id" in one:
            return next((p for p in self.profiles if p.id == one["braze_id"]), None)
        for name in _IDENTIFIERS:
            if name in one:
                found = [p for p in self.profiles if p.keys.get(name, "").casefold() == str(one[name]).casefold()]
                return max(found, key=lambda p: p.history[-1][0], default=None)
        return None

    def _apply(self, one: dict[str, Any]) -> None:
        profile = self._named(one)
        if profile is None:
            if one.get("_update_existing_only") or "braze_id" in one:
                return  # and Braze says success all the same
            keys = {name: str(one[name]) for name in _IDENTIFIERS if name in one}
            profile = self.add_profile(**keys)
            profile.consent = {"email": "subscribed"} if "email" in keys else {}
        profile.consent |= {channel: str(one[name]) for name, channel in _CONSENT.items() if name in one}
        custom = {name: value for name, value in one.items() if name not in _NOT_CUSTOM}
        self.data_points += len(custom)
        unset = tuple(name for name, value in custom.items() if value is None)
        self.write(profile, {name: value for name, value in custom.items() if value is not None}, unset)

    async def _export(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids = body.get("external_ids") or []
        if len(ids) > 50:
            return web.json_response({"message": "The max number of ids per request was exceeded"}, status=400)
        fields = set(body.get("fields_to_export") or ())
        asked = [("external_id", value) for value in ids]
        asked += [(kind, body[name]) for name, kind in (("email_address", "email"), ("phone", "phone")) if name in body]
        found = {p.id: p for kind, value in asked for p in self.profiles if p.keys.get(kind, "").casefold() == value.casefold()}
        unknown = [value for value in ids if not self.find("external_id", value)]
        answer = {"message": "success", "users": [self._exported(p, fields) for p in found.values()]}
        return web.json_response(answer | ({"invalid_user_ids": unknown} if unknown else {}), status=201)

    def _exported(self, profile: Profile, fields: set[str]) -> dict[str, Any]:
        """A profile as it is exported: what is empty is missing, times in Braze's own spelling."""
        whole = {"braze_id": profile.id, **profile.keys}
        if custom := {name: _spelled(value) for name, value in self.shown(profile).items()}:
            whole["custom_attributes"] = custom  # type: ignore[assignment]
        return {name: value for name, value in whole.items() if not fields or name in fields}

    # --- what is scheduled ---

    async def _scheduled(self, request: web.Request) -> web.Response:
        try:
            until = _unix(request.query["end_time"])
        except KeyError:
            return web.json_response({"message": "end_time is required"}, status=400)
        coming = [one for one in self.broadcasts if _unix(one["next_send_time"]) <= until]
        return web.json_response({"message": "success", "scheduled_broadcasts": coming})

    async def _campaign(self, request: web.Request) -> web.Response:
        return self._details(self.campaigns, request.query.get("campaign_id", ""), "Invalid Campaign ID")

    async def _canvas(self, request: web.Request) -> web.Response:
        return self._details(self.canvases, request.query.get("canvas_id", ""), "Invalid Canvas ID")

    def _details(self, known: list[dict[str, Any]], id: str, wrong: str) -> web.Response:
        found = next((one for one in known if one["id"] == id), None)
        if found is None:
            return web.json_response({"message": wrong}, status=400)
        return web.json_response({"message": "success", **{name: value for name, value in found.items() if name != "id"}})

    # --- campaigns going out ---

    async def run_campaign(
        self,
        id: str = "campaign-1",
        name: str = "Black Friday",
        *,
        channel: str = "email",
        gate: Gate | None = None,
        filtered: bool = False,
    ) -> list[dict[str, Any]]:
        """Send a campaign to everybody who may be sent one. `filtered`: its audience leaves out the segment of held people. With `gate`
        each message asks it over HTTP as it is made, and is aborted where that says so. Returns the Currents events, a Send or an Abort
        each, kept in `events` too."""
        address = {"email": "email", "sms": "phone", "whatsapp": "phone"}[channel]
        reached = [p for p in self.profiles if p.keys.get(address) and p.consent.get(channel) != "unsubscribed"]
        reached = [p for p in reached if not (filtered and self.in_segment(p))]
        sent: list[dict[str, Any]] = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GATE_SECONDS)) as session:
            for profile in reached:
                aborts = gate is not None and await self._aborts(session, gate, profile, name)
                sent.append(self._event(profile, channel, "Abort" if aborts else "Send", id, name))
        self.events += sent
        return sent

    async def _aborts(self, session: aiohttp.ClientSession, gate: Gate, profile: Profile, campaign: str) -> bool:
        """Whether the message to one person is aborted: `{% if gate.hold != false %}` where it fails closed, else `== true`."""
        hold = None
        for _ in range(max(self.quirks.renders, 1)):
            answer = await self._connected_content(session, gate, profile, campaign)
            hold = answer.get("hold") if isinstance(answer, dict) else None
        return hold is not False if gate.closed else hold is True

    async def _connected_content(self, session: aiohttp.ClientSession, gate: Gate, profile: Profile, campaign: str) -> Any:
        whom = {"external_id": profile.keys.get("external_id", ""), "email": profile.keys.get("email", "")}
        headers = {"Authorization": f"Bearer {gate.token}"} if gate.token else {}
        if gate.post:
            identifiers = [{"kind": kind, "value": value} for kind, value in whom.items() if value]
            body = {"identifiers": identifiers, "campaign": campaign, **gate.parameters}
            return await self._fetch(session, "POST", gate.url, headers, body)
        url = f"{gate.url}?{urlencode({**whom, 'campaign': campaign, **gate.parameters})}"
        until, kept = self._answers.get(url, (0.0, None))
        if not gate.no_cache and until > self.clock():
            return kept
        answer = await self._fetch(session, "GET", url, headers, None)
        if not gate.no_cache and answer is not None:
            self._answers[url] = (self.clock() + CACHED_SECONDS, answer)
        return answer

    async def _fetch(self, session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str], body: Any) -> Any:
        """The JSON of a 2xx; None for anything else, and for an answer that took too long."""
        try:
            async with session.request(method, url, headers=headers, json=body, allow_redirects=False) as response:
                return await response.json(content_type=None) if response.ok else None
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return None

    def _event(self, profile: Profile, channel: str, end: str, id: str, name: str) -> dict[str, Any]:
        """One event as the custom HTTP connector sends it."""
        self._told += 1
        about = {"campaign_id": id, "campaign_name": name, "message_variation_name": "Variant 1"}
        about |= {"email_address": profile.keys["email"]} if channel == "email" else {"to_phone_number": profile.keys["phone"]}
        if end == "Abort":
            about |= {"abort_type": "liquid_abort_message", "abort_log": "support_hold"}
        user = {"user_id": profile.id} | ({"external_user_id": profile.keys["external_id"]} if "external_id" in profile.keys else {})
        return {
            "event_type": f"users.messages.{channel}.{end}",
            "id": f"00000000-0000-4000-8000-{self._told:012x}",
            "time": int(self.clock()),
            "user": user,
            "properties": about,
        }

    async def export_currents(self, url: str, events: list[dict[str, Any]], token: str = BEARER) -> list[int]:
        """Post events to an endpoint as the custom HTTP connector does; the status of each batch."""
        headers = {"Authorization": f"Bearer {token}", "Braze-Currents-Version": "1"}
        statuses = []
        async with aiohttp.ClientSession() as session:
            for start in range(0, len(events), MOST_EVENTS):
                async with session.post(url, json={"events": events[start : start + MOST_EVENTS]}, headers=headers) as response:
                    statuses.append(response.status)
        return statuses


def _spelled(value: Any) -> Any:
    """A time as Braze tells it; anything else as it is."""
    if not isinstance(value, str) or not (at := _unix(value)):
        return value
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unix(text: Any) -> float:
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
