"""Klaviyo on loopback: profiles, segments that lag, campaigns whose recipients are fixed when somebody clicks Schedule, and events.

Shapes from the vendor's specification (https://github.com/klaviyo/openapi, stable, 2026-07-15), errors and rate limits from
https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling. What would touch consent, suppression or lists is not served.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, ClassVar

from aiohttp import web

from connectors.sandbox.tools.klaviyo_documents import JSON_API, Resource, collection, failure, missing, resource_in, single
from connectors.sandbox.tools.klaviyo_filters import BadFilter, Condition, matches, parse
from connectors.sandbox.tools.stand_in import Profile, StandIn

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FIELDS = {"email": "email", "phone": "phone_number", "external_id": "external_id"}
_PROFILE_ATTRIBUTES = {*_FIELDS.values(), "first_name", "last_name", "organization", "locale", "title", "image", "location", "properties"}
_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_RECEIVED = {"email": "Received Email", "sms": "Received SMS", "mobile_push": "Received Push"}
_REACHED_BY = {"email": "email", "sms": "phone", "mobile_push": "external_id"}

# Calls a second and a minute, per endpoint.
_LIMITS: Mapping[tuple[str, str], tuple[int, int]] = {
    ("GET", "/api/accounts"): (1, 15),
    ("GET", "/api/profiles"): (75, 750),
    ("GET", "/api/profiles/{id}"): (75, 750),
    ("PATCH", "/api/profiles/{id}"): (75, 750),
    ("POST", "/api/profile-import"): (75, 750),
    ("GET", "/api/profiles/{id}/relationships/segments"): (3, 60),
    ("GET", "/api/profiles/{id}/relationships/lists"): (3, 60),
    ("GET", "/api/segments"): (75, 750),
    ("POST", "/api/segments"): (1, 15),
    ("GET", "/api/segments/{id}"): (75, 750),
    ("GET", "/api/segments/{id}/relationships/profiles"): (75, 750),
    ("GET", "/api/campaigns"): (10, 150),
    ("GET", "/api/campaign-messages/{id}/relationships/campaign"): (10, 150),
    ("PATCH", "/api/campaign-send-jobs/{id}"): (10, 150),
    ("GET", "/api/metrics"): (10, 150),
    ("GET", "/api/events"): (350, 3500),
}


class KlaviyoStandIn(StandIn):
    """One Klaviyo account. `limited` makes it count calls and answer 429; it is off, since a clock set by hand stands still."""

    name: ClassVar[str] = "klaviyo"
    credentials: ClassVar[dict[str, str]] = {"api_key": "pk_2b7e151628aed2a6abf7158809cf4f3c0a"}

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self.lists: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.limited = False
        self._windows: dict[tuple[str, str, int], tuple[int, int]] = {}  # (method, path, seconds) -> (window, calls in it)
        self.newsletter = self.add_list("Newsletter")

    # --- for whoever drives it ---

    def new_id(self, number: int) -> str:
        """As long as Klaviyo's (a ULID)."""
        return f"01JDKZ5T7Q4WMX9A{number:010}"

    def add_profile(self, **keys: str) -> Profile:
        """Somebody on the newsletter list."""
        profile = super().add_profile(**keys)
        self.newsletter["members"].add(profile.id)
        return profile

    def add_list(self, name: str, members: Iterable[Profile] = ()) -> dict[str, Any]:
        """A list with these members."""
        found: dict[str, Any] = {"id": f"Lst{len(self.lists):03}", "name": name, "members": {one.id for one in members}}
        self.lists.append(found)
        return found

    def add_segment(self, name: str, members: Iterable[Profile] = (), definition: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A segment by its definition, or (without one) of these members."""
        segment: dict[str, Any] = {"id": f"Seg{len(self.segments):03}", "name": name, "definition": definition, "created": self.clock()}
        segment["members"] = {one.id for one in members}
        self.segments.append(segment)
        return segment

    def add_campaign(
        self,
        name: str,
        send_at: float,
        channel: str = "email",
        included: Sequence[str] = (),
        excluded: Sequence[str] = (),
        freeze: str = "schedule",
        strategy: str = "static",
        status: str = "Scheduled",
    ) -> dict[str, Any]:
        """A campaign scheduled now. `freeze` (schedule | send) is the moment its recipients are determined; no `included`: the
        newsletter list."""
        number = len(self.campaigns) + 1
        campaign: dict[str, Any] = {
            "id": f"01JCAMPAIGN{number:015}",
            "message": f"01JMESSAGE{number:016}",
            "name": name,
            "channel": channel,
            "status": status,
            "included": list(included) or [self.newsletter["id"]],
            "excluded": list(excluded),
            "freeze": freeze,
            "strategy": strategy,
            "scheduled_at": self.clock() if status == "Scheduled" else None,
            "send_at": send_at,
            "created_at": self.clock(),
            "recipients": None,
        }
        if status == "Scheduled" and freeze == "schedule":
            campaign["recipients"] = self._recipients(campaign, self.clock())
        self.campaigns.append(campaign)
        return campaign

    def run_campaigns(self) -> list[dict[str, Any]]:
        """Send what is due; returns the events it recorded. Recipients fixed at scheduling get it whatever became of them since,
        short of an unsubscribe."""
        recorded = []
        for campaign in self.campaigns:
            if campaign["status"] != "Scheduled" or campaign["send_at"] > self.clock():
                continue
            fixed = campaign["recipients"]
            chosen = self._recipients(campaign, campaign["send_at"]) if fixed is None else fixed
            for profile in self.profiles:
                if profile.id in chosen and self._may_reach(profile, campaign["channel"]):
                    recorded.append(self.record(profile, _RECEIVED[campaign["channel"]], at=campaign["send_at"], campaign=campaign))
            campaign["status"] = "Sent"
        return recorded

    def record(
        self,
        profile: Profile,
        metric: str = "Received Email",
        at: float | None = None,
        campaign: Mapping[str, Any] | None = None,
        flow: str = "",
        integration: str = "Klaviyo",
    ) -> dict[str, Any]:
        """An event of a profile, of a campaign's or a flow's message."""
        said: dict[str, Any] = {"$event_id": f"event-{len(self.events) + 1}", "Subject": "Words that nobody copies"}
        if campaign is not None:
            said |= {"$message": campaign["message"], "Campaign Name": campaign["name"]}
        if flow:
            said |= {"$flow": flow, "$message": f"Msg{flow}", "Campaign Name": f"Mail of {flow}"}
        event = {
            "id": f"Evt{len(self.events) + 1:08}",
            "metric": self._metric(metric, integration),
            "at": int(self.clock() if at is None else at),
            "profile": profile.id,
            "properties": said,
        }
        self.events.append(event)
        return event

    def webhook(self, events: Sequence[Mapping[str, Any]], secret: str, body_only: bool = False) -> tuple[dict[str, str], bytes]:
        """What a system webhook tells of events: its headers (names lower case) and body, signed."""
        names = {metric["id"]: metric["name"] for metric in self.metrics}
        now = self.clock()
        document = {
            "meta": {
                "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
                "klaviyo_account_id": "AbC123",
                "klaviyo_webhook_id": "01JWEBHOOK0000000000000001",
                "version": "2024-06-28",
            },
            "data": [
                {
                    "topic": "event:klaviyo." + names[event["metric"]].lower().replace(" ", "_"),
                    "external_id": event["id"],
                    "payload": {"data": self._event(event)},
                }
                for event in events
            ],
        }
        body = json.dumps(document).encode()
        stamp = formatdate(now, usegmt=True)
        signature = hmac.new(secret.encode(), body if body_only else body + stamp.encode(), hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "klaviyo-signature": signature,
            "klaviyo-timestamp": stamp,
            "klaviyo-webhook-id": "01JWEBHOOK0000000000000001",
        }
        return headers, body

    def in_segment(self, profile: Profile) -> bool:
        """Whether the segment that asks for `support_hold` shows the profile; without one, whether it would."""
        segment = next((one for one in self.segments if one["definition"] and "support_hold" in str(one["definition"])), None)
        if segment is not None:
            return self._in(segment, profile, self.clock())
        shown = self._as_of(profile, self.clock() - self.quirks.segment_lag)
        return shown.get("support_hold") is True and _unix(shown.get("support_hold_until")) > self.clock()

    # --- who is where ---

    def _as_of(self, profile: Profile, at: float) -> dict[str, Any]:
        return next((attributes for since, attributes in reversed(profile.history) if since <= at), {})

    def _in(self, audience: Mapping[str, Any], profile: Profile, at: float) -> bool:
        """Whether a list or segment shows the profile at a time: a segment late by `segment_lag`."""
        definition = audience.get("definition")
        if not definition:
            return profile.id in audience["members"]
        shown = self._as_of(profile, at - self.quirks.segment_lag)
        return all(any(_holds(one, shown, at) for one in group["conditions"]) for group in definition["condition_groups"])

    def _recipients(self, campaign: Mapping[str, Any], at: float) -> set[str]:
        known = {one["id"]: one for one in (*self.lists, *self.segments)}
        included = [known[id] for id in campaign["included"] if id in known]
        excluded = [known[id] for id in campaign["excluded"] if id in known]
        return {
            profile.id
            for profile in self.profiles
            if any(self._in(one, profile, at) for one in included) and not any(self._in(one, profile, at) for one in excluded)
        }

    def _may_reach(self, profile: Profile, channel: str) -> bool:
        allowed = channel == "mobile_push" or profile.consent.get(channel) == "subscribed"
        return allowed and bool(profile.keys.get(_REACHED_BY[channel]) or channel == "mobile_push")

    def _metric(self, name: str, integration: str) -> str:
        for metric in self.metrics:
            if (metric["name"], metric["integration"]) == (name, integration):
                return str(metric["id"])
        self.metrics.append({"id": f"Met{len(self.metrics):03}", "name": name, "integration": integration})
        return str(self.metrics[-1]["id"])

    # --- the server ---

    def routes(self) -> list[web.RouteDef]:
        """The calls served; all else is 404 and noted in `calls`."""
        served: dict[tuple[str, str], Handler] = {
            ("GET", "/api/accounts"): self._get_accounts,
            ("GET", "/api/profiles"): self._get_profiles,
            ("GET", "/api/profiles/{id}"): self._get_profile,
            ("PATCH", "/api/profiles/{id}"): self._update_profile,
            ("POST", "/api/profile-import"): self._import_profile,
            ("GET", "/api/profiles/{id}/relationships/segments"): self._get_audiences,
            ("GET", "/api/profiles/{id}/relationships/lists"): self._get_audiences,
            ("GET", "/api/segments"): self._get_segments,
            ("POST", "/api/segments"): self._create_segment,
            ("GET", "/api/segments/{id}"): self._get_segment,
            ("GET", "/api/segments/{id}/relationships/profiles"): self._get_members,
            ("GET", "/api/campaigns"): self._get_campaigns,
            ("GET", "/api/campaign-messages/{id}/relationships/campaign"): self._get_campaign_of,
            ("PATCH", "/api/campaign-send-jobs/{id}"): self._update_send_job,
            ("GET", "/api/metrics"): self._get_metrics,
            ("GET", "/api/events"): self._get_events,
        }
        routes = [web.route(method, path, self._counted(method, path, handler)) for (method, path), handler in served.items()]
        return [*routes, web.route("*", "/api/{rest:.*}", self._unknown)]

    def authorised(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Klaviyo-API-Key {self.credentials['api_key']}"

    def unauthorised(self) -> web.Response:
        return failure(401, "authentication_failed", "Incorrect authentication credentials.", "Incorrect authentication credentials.")

    def failing(self, status: int) -> web.Response:
        if status == 429:
            wait = self.quirks.retry_after
            return failure(429, "throttled", "Request was throttled.", f"Expected available in {wait or 1} seconds.", retry_after=wait)
        if status >= 500:
            return failure(status, "error", "A server error occurred.", "A server error occurred.", retry_after=self.quirks.retry_after)
        return failure(status, "invalid", "Invalid input.", f"Refused with {status}.")

    def _counted(self, method: str, path: str, handler: Handler) -> Handler:
        burst, steady = _LIMITS[method, path]

        async def answer(request: web.Request) -> web.StreamResponse:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d(\.\w+)?", request.headers.get("revision", "")):
                return failure(400, "missing_revision", "Invalid revision.", "A valid revision header is required.")
            now = self.clock()
            taken = 0
            for seconds, limit in ((1, burst), (60, steady)):
                window, count = self._windows.get((method, path, seconds), (0, 0))
                taken = (count if window == int(now) // seconds else 0) + 1
                self._windows[method, path, seconds] = (int(now) // seconds, taken)
                if self.limited and taken > limit:
                    wait = str(seconds - int(now) % seconds)
                    return failure(429, "throttled", "Request was throttled.", f"Expected available in {wait} seconds.", retry_after=wait)
            try:
                response = await handler(request)
            except BadFilter as error:
                response = failure(400, "invalid", "Invalid input.", str(error), parameter="filter")
            response.headers["RateLimit-Limit"] = f"{steady}, {burst};w=1, {steady};w=60"
            response.headers["RateLimit-Remaining"] = str(max(0, steady - taken))
            response.headers["RateLimit-Reset"] = str(60 - int(now) % 60)
            return response

        return answer

    async def _unknown(self, request: web.Request) -> web.Response:
        return failure(404, "not_found", "Not found.", f"There is no {request.method} {request.path} here.")

    # --- profiles ---

    def _profile(self, profile: Profile) -> Resource:
        since = _iso(profile.history[0][0] if profile.history else self.clock())
        attributes = {field: profile.keys.get(kind) for kind, field in _FIELDS.items()}
        attributes |= {"first_name": None, "last_name": None, "created": since, "updated": since}
        return self._resource("profile", profile.id, "profiles", {**attributes, "properties": self.shown(profile)})

    def _resource(self, type: str, id: str, collection: str, attributes: Mapping[str, Any], **more: Any) -> Resource:
        return {"type": type, "id": id, "attributes": dict(attributes), **more, "links": {"self": f"{self.url}/api/{collection}/{id}/"}}

    def _by_id(self, request: web.Request) -> Profile | None:
        return next((profile for profile in self.profiles if profile.id == request.match_info["id"]), None)

    async def _get_accounts(self, request: web.Request) -> web.Response:
        address = dict.fromkeys(("address1", "address2", "city", "region", "country", "zip"))
        contact = {"default_sender_name": "Sandbox", "default_sender_email": "shop@example.org", "organization_name": "Sandbox"}
        attributes = {
            "test_account": True,
            "contact_information": {**contact, "website_url": None, "street_address": address},
            "industry": None,
            "timezone": "UTC",
            "preferred_currency": "EUR",
            "public_api_key": "AbC123",
            "locale": "en-US",
        }
        return collection(request, [self._resource("account", "AbC123", "accounts", attributes)], 20, 100)

    async def _get_profiles(self, request: web.Request) -> web.Response:
        asked = parse(request.query.get("filter", ""), {"id": "any equals", **dict.fromkeys(_FIELDS.values(), "any equals")})
        refused = [value for one in asked for value in _values(one) if one.field == "email" and "@" not in str(value)]
        if refused:
            return failure(400, "invalid", "Invalid input.", "Invalid email address", parameter="filter")
        asked = [Condition(one.op, one.field, [str(v).lower() for v in _values(one)]) if one.field == "email" else one for one in asked]
        chosen = [one for one in self.profiles if matches(asked, self._lookup(one))]
        return collection(request, [self._profile(one) for one in chosen], 20, 100)

    def _lookup(self, profile: Profile) -> dict[str, Any]:
        found = {"id": profile.id, **{field: profile.keys.get(kind) for kind, field in _FIELDS.items()}}
        return found | {"email": (profile.keys.get("email") or "").lower() or None}

    async def _get_profile(self, request: web.Request) -> web.Response:
        profile = self._by_id(request)
        return missing("profile", request) if profile is None else single(request, self._profile(profile))

    async def _update_profile(self, request: web.Request) -> web.Response:
        profile = self._by_id(request)
        if profile is None:
            return missing("profile", request)
        data = resource_in(await request.read(), "profile")
        if isinstance(data, web.Response):
            return data
        if data.get("id") != profile.id:
            return failure(409, "conflict", "Conflict.", "The id in the body is not the id in the address.", pointer="/data/id")
        return self._carry_out(request, profile, data, 200)

    async def _import_profile(self, request: web.Request) -> web.Response:
        """Update the profile that has one of the identifiers, or else create one: the trap of a naive integration."""
        data = resource_in(await request.read(), "profile")
        if isinstance(data, web.Response):
            return data
        given = data["attributes"]
        keys = {kind: str(given[field]) for kind, field in _FIELDS.items() if given.get(field)}
        if not keys and not data.get("id"):
            return failure(400, "invalid", "Invalid input.", "At least one profile identifier must be given", pointer="/data/attributes")
        if "phone" in keys and not _E164.fullmatch(keys["phone"]):
            return failure(400, "invalid", "Invalid input.", "Invalid phone number", pointer="/data/attributes/phone_number")
        if "email" in keys and "@" not in keys["email"]:
            return failure(400, "invalid", "Invalid input.", "Invalid email address", pointer="/data/attributes/email")
        profile = next((found for kind, value in keys.items() if (found := self.find(kind, value))), None)
        if profile is not None:
            return self._carry_out(request, profile, data, 200)
        if set(keys.values()) & self.quirks.refused:
            return failure(400, "invalid", "Invalid input.", "This profile is refused", pointer="/data/attributes")
        number = len(self.profiles) + 1
        while any(one.id == self.new_id(number) for one in self.profiles):
            number += 1
        profile = Profile(id=self.new_id(number), keys=keys)
        self.profiles.append(profile)
        return self._carry_out(request, profile, data, 201)

    def _carry_out(self, request: web.Request, profile: Profile, data: Mapping[str, Any], status: int) -> web.Response:
        strange = sorted(data["attributes"].keys() - _PROFILE_ATTRIBUTES)
        if strange:
            detail = f"'{strange[0]}' is not a valid field for the resource 'profile'."
            return failure(400, "invalid", "Invalid input.", detail, pointer=f"/data/attributes/{strange[0]}")
        if set(profile.keys.values()) & self.quirks.refused:
            return failure(400, "invalid", "Invalid input.", "This profile is refused", pointer="/data/attributes")
        unset = ((data.get("meta") or {}).get("patch_properties") or {}).get("unset") or ()
        said = data["attributes"].get("properties") or {}
        cleared = {name for name, value in said.items() if value is None}
        kept = {name: value for name, value in said.items() if value is not None}
        self.write(profile, kept, tuple({unset} if isinstance(unset, str) else {*unset} | cleared))
        return single(request, self._profile(profile), status)

    async def _get_audiences(self, request: web.Request) -> web.Response:
        profile = self._by_id(request)
        if profile is None:
            return missing("profile", request)
        kind, audiences = ("segment", self.segments) if request.path.rstrip("/").endswith("segments") else ("list", self.lists)
        found = [{"type": kind, "id": one["id"]} for one in audiences if self._in(one, profile, self.clock())]
        return web.json_response({"data": found, "links": {"self": str(request.url)}}, content_type=JSON_API)

    # --- segments ---

    def _segment(self, segment: Mapping[str, Any]) -> Resource:
        created = _iso(segment["created"])
        attributes = {"name": segment["name"], "definition": segment["definition"], "created": created, "updated": created}
        state = {"is_active": True, "is_processing": False, "is_starred": False}
        return self._resource("segment", segment["id"], "segments", attributes | state)

    async def _get_segments(self, request: web.Request) -> web.Response:
        asked = parse(request.query.get("filter", ""), {"name": "any equals", "id": "any equals"})
        return collection(request, [self._segment(one) for one in self.segments if matches(asked, one)], 10, 10)

    async def _get_segment(self, request: web.Request) -> web.Response:
        found = [one for one in self.segments if one["id"] == request.match_info["id"]]
        return single(request, self._segment(found[0])) if found else missing("segment", request)

    async def _create_segment(self, request: web.Request) -> web.Response:
        data = resource_in(await request.read(), "segment")
        if isinstance(data, web.Response):
            return data
        given = data["attributes"]
        groups = (given.get("definition") or {}).get("condition_groups")
        if not given.get("name") or not groups or not all(group.get("conditions") for group in groups):
            return failure(400, "invalid", "Invalid input.", "A segment needs a name and conditions", pointer="/data/attributes/definition")
        return single(request, self._segment(self.add_segment(given["name"], definition=given["definition"])), 201)

    async def _get_members(self, request: web.Request) -> web.Response:
        found = [one for one in self.segments if one["id"] == request.match_info["id"]]
        if not found:
            return missing("segment", request)
        allowed = {"profile_id": "any equals", "email": "any equals", "phone_number": "any equals"}
        asked = parse(request.query.get("filter", ""), allowed)
        members = [one for one in self.profiles if self._in(found[0], one, self.clock())]
        chosen = [one for one in members if matches(asked, self._lookup(one) | {"profile_id": one.id})]
        return collection(request, [{"type": "profile", "id": one.id} for one in chosen], 20, 100)

    # --- campaigns ---

    def _campaign(self, campaign: Mapping[str, Any]) -> Resource:
        at = _iso(campaign["send_at"])
        local = campaign["strategy"] == "local"
        strategies: Mapping[str, Mapping[str, Any]] = {
            "static": {"method": "static", "datetime": at, "options": {"is_local": False}},
            "local": {"method": "static", "datetime": at, "options": {"is_local": local, "send_past_recipients_immediately": False}},
            "throttled": {"method": "throttled", "datetime": at, "throttle_percentage": 20},
            "smart_send_time": {"method": "smart_send_time", "date": at[:10]},
            "immediate": {"method": "immediate"},
            "ab_test_campaign": {"method": "ab_test_campaign"},
        }
        scheduled = campaign["scheduled_at"]
        attributes = {
            "name": campaign["name"],
            "status": campaign["status"],
            "archived": bool(campaign.get("archived")),
            "audiences": {"included": campaign["included"], "excluded": campaign["excluded"]},
            "send_options": {"use_smart_sending": True},
            "tracking_options": None,
            "send_strategy": dict(strategies[campaign["strategy"]]),
            "created_at": _iso(campaign["created_at"]),
            "scheduled_at": None if scheduled is None else _iso(scheduled),
            "updated_at": _iso(campaign["created_at"]),
            "send_time": at if campaign["status"] != "Draft" else None,
        }
        messages = {"data": [{"type": "campaign-message", "id": campaign["message"]}]}
        return self._resource("campaign", campaign["id"], "campaigns", attributes, relationships={"campaign-messages": messages})

    async def _get_campaigns(self, request: web.Request) -> web.Response:
        allowed = {"messages.channel": "equals", "status": "any equals", "name": "contains", "archived": "equals", "id": "any"}
        asked = parse(request.query.get("filter", ""), allowed)
        if "messages.channel" not in {one.field for one in asked}:
            raise BadFilter("A channel filter is required to list campaigns.")
        chosen = [one for one in self.campaigns if matches(asked, {**one, "messages.channel": one["channel"]})]
        if request.query.get("sort") == "scheduled_at":
            chosen.sort(key=lambda one: one["scheduled_at"] or 0.0)
        return collection(request, [self._campaign(one) for one in chosen], 100, 100)

    async def _get_campaign_of(self, request: web.Request) -> web.Response:
        found = [one for one in self.campaigns if one["message"] == request.match_info["id"]]
        if not found:
            return missing("campaign-message", request)
        links = {"self": str(request.url)}
        return web.json_response({"data": {"type": "campaign", "id": found[0]["id"]}, "links": links}, content_type=JSON_API)

    async def _update_send_job(self, request: web.Request) -> web.Response:
        data = resource_in(await request.read(), "campaign-send-job")
        if isinstance(data, web.Response):
            return data
        action = data["attributes"].get("action")
        found = [one for one in self.campaigns if one["id"] == request.match_info["id"] and one["status"] in ("Scheduled", "Sending")]
        if not found:
            return missing("campaign-send-job", request)
        if action not in ("cancel", "revert") or data.get("id") != found[0]["id"]:
            return failure(400, "invalid", "Invalid input.", "An action is cancel or revert", pointer="/data/attributes/action")
        found[0] |= {"status": "Draft" if action == "revert" else "Cancelled", "recipients": None, "scheduled_at": None}
        return web.Response(status=204)

    # --- events ---

    async def _get_metrics(self, request: web.Request) -> web.Response:
        asked = parse(request.query.get("filter", ""), {"integration.name": "equals", "integration.category": "equals"})
        found = []
        for metric in self.metrics:
            if matches(asked, {"integration.name": metric["integration"]}):
                integration = {"object": "integration", "id": "0rG4eQ", "name": metric["integration"], "category": "Internal"}
                attributes = {"name": metric["name"], "created": _iso(0), "updated": _iso(0), "integration": integration}
                found.append(self._resource("metric", metric["id"], "metrics", attributes))
        return collection(request, found, 200, 200)

    def _event(self, event: Mapping[str, Any]) -> Resource:
        attributes = {"timestamp": event["at"], "datetime": _iso(event["at"]), "event_properties": dict(event["properties"])}
        attributes["uuid"] = f"75669b00-3786-11f1-8001-{event['id'][3:]:>012}"
        related = {"metric": event["metric"], "profile": event["profile"]}
        relationships = {type: {"data": {"type": type, "id": id}} for type, id in related.items()}
        return self._resource("event", event["id"], "events", attributes, relationships=relationships)

    async def _get_events(self, request: web.Request) -> web.Response:
        times = "greater-or-equal greater-than less-or-equal less-than"
        asked = parse(
            request.query.get("filter", ""), {"metric_id": "equals", "profile_id": "equals", "datetime": times, "timestamp": times}
        )
        named = {"metric_id": "metric", "profile_id": "profile", "datetime": "at", "timestamp": "at"}
        chosen = [one for one in self.events if matches(asked, {field: one[key] for field, key in named.items()})]
        sort = request.query.get("sort", "-datetime")
        chosen.sort(key=lambda one: (one["at"], one["id"]), reverse=sort.startswith("-"))

        def included(page: Sequence[Resource]) -> list[Resource]:
            wanted = {one["relationships"]["profile"]["data"]["id"] for one in page}
            return (
                [self._profile(one) for one in self.profiles if one.id in wanted] if "profile" in request.query.get("include", "") else []
            )

        return collection(request, [self._event(one) for one in chosen], 200, 1000, included)


def _holds(condition: Mapping[str, Any], shown: Mapping[str, Any], now: float) -> bool:
    """Whether a condition of a segment is met: those on profile properties, by flag, by a date ahead, by being set."""
    name = str(condition.get("property", "")).removeprefix("properties['").removesuffix("']")
    value, chosen = shown.get(name), condition.get("filter") or {}
    match chosen.get("type"), chosen.get("operator"):
        case "boolean", "equals":
            return bool(value is chosen["value"])
        case "date", "in-the-next":
            seconds = {"hour": 3600, "day": 86400, "week": 604800}[chosen["unit"]] * chosen["quantity"]
            return bool(now < _unix(value) <= now + seconds)
        case "existence", operator:
            return (value is not None) is (operator == "is-set")
    return False


def _unix(text: Any) -> float:
    """Unix seconds of an ISO time; long ago for anything else."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except ValueError:
        return 0.0


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _values(condition: Condition) -> list[Any]:
    return condition.value if isinstance(condition.value, list) else [condition.value]
