"""A stand-in of Customer.io: the Track API (v1 and v2), the App API and the reporting webhook, on one address.

With its quirks: changes are taken without much ado and carried out later, or not at all; an identifier that was not percent-encoded is
somebody else, in a 200; attributes come back as text; an older change that arrives late is dropped without a word; phones are in no
answer's identifiers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

SITE_ID = "sandbox-site"
TRACK_KEY = "sandbox-track-key"
APP_KEY = "sandbox-app-key"
SIGNING_KEY = "sandbox-signing-key"
SEGMENT = "Support hold"

_BASIC = "Basic " + b64encode(f"{SITE_ID}:{TRACK_KEY}".encode()).decode()
_KINDS = {"id": "external_id", "email": "email", "phone": "phone"}  # their identifier -> our kind
_TIMES = ("support_hold_until", "support_resolved_at")  # kept as unix seconds, shown to whoever drives this as ISO times


@dataclass(slots=True)
class CustomerIoQuirks(Quirks):
    """What goes wrong at Customer.io besides."""

    no_phone_identifier: bool = False  # the workspace identifies people by id and email alone
    spoiled_batch: bool = False  # one bad item has the whole batch refused
    track_revoked: bool = False  # the Track API's key alone is not accepted
    region: str = "us"


class CustomerIoStandIn(StandIn):
    """Customer.io on loopback. The hold segment is there, made by hand as the steps say; take it out of `segments` to see it missing."""

    name: ClassVar[str] = "customerio"
    credentials: ClassVar[dict[str, str]] = {
        "site_id": SITE_ID,
        "api_key": TRACK_KEY,
        "app_api_key": APP_KEY,
        "webhook_signing_key": SIGNING_KEY,
    }
    quirks: CustomerIoQuirks

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self.quirks = CustomerIoQuirks()
        self.segments: list[dict[str, Any]] = [_segment(1, "Signed up"), _segment(7, SEGMENT)]
        self.messages: list[dict[str, Any]] = []
        self.failures: list[str] = []  # the activity log's failed attribute changes
        self._set_at: dict[tuple[str, str], int] = {}  # (profile, attribute) -> the time its change bore

    def new_id(self, number: int) -> str:
        return f"a3{number:06}"

    def shown(self, profile: Profile, lag: float | None = None) -> dict[str, Any]:
        found = super().shown(profile, lag)
        return found | {name: _iso(found[name]) for name in _TIMES if isinstance(found.get(name), int)}

    def in_segment(self, profile: Profile) -> bool:
        """Whether the segment made as the steps say has the person."""
        found = super().shown(profile, self.quirks.segment_lag)
        until = found.get("support_hold_until")
        # A time that is not in unix seconds matches nobody.
        return str(found.get("support_hold")).lower() == "true" and isinstance(until, int) and until > self.clock()

    def meddle(self, profile: Profile, attributes: dict[str, Any], unset: tuple[str, ...] = ()) -> None:
        super().meddle(profile, attributes, unset)
        for name in (*attributes, *unset):
            self._set_at[profile.id, name] = int(self.clock())

    # --- the server ---

    def routes(self) -> list[web.RouteDef]:
        one = "/v1/customers/{id}"
        return [
            web.get("/api/v1/accounts/region", self._region),
            web.put("/api/v1/customers/{id}", self._put),
            web.post("/api/v2/entity", self._entity),
            web.post("/api/v2/batch", self._batch),
            web.get("/v1/customers", self._by_email),
            web.post("/v1/customers", self._filtered),
            web.get(one + "/attributes", self._attributes),
            web.get(one + "/segments", self._segments_of),
            web.get("/v1/segments", self._all_segments),
            web.get("/v1/messages", self._all_messages),
            web.get("/v1/newsletters/{id}", self._newsletter),
            web.get("/v1/campaigns/{id}", self._nothing),
            web.route("*", "/{path:.*}", self._nothing),  # suppress, delete and the like are not served
        ]

    def authorised(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization")
        if request.path.rpartition("/api/")[1]:
            return given == _BASIC and not self.quirks.track_revoked
        return given == f"Bearer {APP_KEY}"

    def unauthorised(self) -> web.Response:
        body = {"meta": {"error": "Unauthorized request"}, "errors": [{"detail": "unauthorized (reference a1b2c3)", "status": "401"}]}
        return web.json_response(body, status=401)

    def failing(self, status: int) -> web.Response:
        headers = {"Retry-After": self.quirks.retry_after} if self.quirks.retry_after else {}
        detail = "rate limited to 10 requests per 1s (reference a1b2c3)" if status == 429 else "something went wrong (reference a1b2c3)"
        return web.json_response({"errors": [{"detail": detail, "status": str(status)}]}, status=status, headers=headers)

    async def _nothing(self, request: web.Request) -> web.Response:
        return _error(404, "not found")

    # --- Track ---

    async def _region(self, request: web.Request) -> web.Response:
        part = "-eu" if self.quirks.region == "eu" else ""
        url = f"https://track{part}.customer.io"
        return web.json_response({"url": url, "region": self.quirks.region, "environment_id": 4711})

    async def _put(self, request: web.Request) -> web.Response:
        """Version 1: a phone in the path is taken for an id, and whoever is not there is made."""
        value = request.match_info["id"]
        key = "cio_id" if value.startswith("cio_") else "email" if "@" in value else "id"
        body = await request.json()
        at = body.pop("_timestamp", None)
        self._identify({key: value.removeprefix("cio_")}, body, at)
        return web.json_response({})

    async def _entity(self, request: web.Request) -> web.Response:
        body = await request.json()
        if wrong := self._wrong(body):
            return web.json_response({"errors": [wrong]}, status=400)
        self._identify(body["identifiers"], dict(body.get("attributes", {})), body.get("timestamp"))
        return web.json_response({})

    async def _batch(self, request: web.Request) -> web.Response:
        raw = await request.read()
        items = json.loads(raw).get("batch")
        if len(raw) > 500_000 or not isinstance(items, list) or not items:
            return web.json_response({"errors": [{"reason": "invalid", "field": "batch", "message": "too large or empty"}]}, status=400)
        errors = [{"batch_index": place} | wrong for place, item in enumerate(items) if (wrong := self._wrong(item))]
        if errors and self.quirks.spoiled_batch:
            return web.json_response({"errors": errors}, status=400)
        bad = {error["batch_index"] for error in errors}
        for place, item in enumerate(items):
            if place not in bad:
                self._identify(item["identifiers"], dict(item.get("attributes", {})), item.get("timestamp"))
        return web.json_response({"errors": errors} if errors else {}, status=207 if errors else 200)

    def _wrong(self, item: dict[str, Any]) -> dict[str, str] | None:
        """What is wrong with one entity."""
        identifiers = item.get("identifiers")
        if not isinstance(identifiers, dict) or len(identifiers) != 1 or not set(identifiers) <= {*_KINDS, "cio_id"}:
            return {"reason": "invalid", "field": "identifiers", "message": "must be one of id, email, phone or cio_id"}
        if item.get("type") != "person" or item.get("action") != "identify":
            return {"reason": "invalid", "field": "action", "message": "this stand-in takes identify of persons only"}
        if "phone" in identifiers and self.quirks.no_phone_identifier:
            return {"reason": "invalid", "field": "phone", "message": "phone is no identifier of this workspace"}
        if len(json.dumps(item)) > 32_000:
            return {"reason": "too_large", "field": "attributes", "message": "must be smaller than 32kb"}
        [value] = identifiers.values()
        known = self._by(*next(iter(identifiers.items())))
        if self.quirks.refused & ({value} | set(known.keys.values() if known else ())):
            return {"reason": "invalid", "field": "identifiers", "message": f"{value} is refused"}
        return None

    def _identify(self, identifiers: dict[str, str], attributes: dict[str, Any], at: int | None) -> None:
        [(key, value)] = identifiers.items()
        known, update = self._by(key, value), attributes.pop("_update", False)
        if known is None:
            if update or key == "cio_id":
                self.failures.append(f"no person with the {key} {value}")
                return
            known = self.add_profile(**{_KINDS[key]: value})
            known.consent = {}
        stamp = int(self.clock()) if at is None else at
        attributes = {name: said for name, said in attributes.items() if self._set_at.get((known.id, name), 0) <= stamp}
        if "unsubscribed" in attributes:
            known.consent["email"] = "unsubscribed" if str(attributes["unsubscribed"]).lower() in {"true", "1"} else "subscribed"
        kept = {name: said for name, said in attributes.items() if said not in (None, "")}
        if attributes:
            self.write(known, kept, tuple(set(attributes) - set(kept)))
        for name in attributes:
            self._set_at[known.id, name] = stamp

    def _by(self, key: str, value: str) -> Profile | None:
        if key == "cio_id":
            return next((one for one in self.profiles if one.id == value), None)
        if key == "email":
            return self.find("email", value)
        return next((one for one in self.profiles if one.keys.get(_KINDS[key]) == value), None)

    # --- App: people ---

    def _identifiers(self, profile: Profile) -> dict[str, str | None]:
        return {"email": profile.keys.get("email"), "id": profile.keys.get("external_id"), "cio_id": profile.id}

    def _values(self, profile: Profile) -> dict[str, str]:
        """Every attribute, as text."""
        own = {theirs: profile.keys[ours] for theirs, ours in _KINDS.items() if ours in profile.keys}
        return own | {"cio_id": profile.id} | {name: _text(said) for name, said in super().shown(profile).items()}

    async def _by_email(self, request: web.Request) -> web.Response:
        asked = request.query.get("email", "")
        return web.json_response({"results": [self._identifiers(one) for one in self.profiles if self._same(one, asked)]})

    def _same(self, profile: Profile, address: str) -> bool:
        return bool(address) and profile.keys.get("email", "").casefold() == address.casefold()

    async def _filtered(self, request: web.Request) -> web.Response:
        asked = (await request.json())["filter"]
        found = [self._identifiers(one) for one in self.profiles if self._passes(one, asked)]
        page = found[: int(request.query.get("limit", "50"))]
        return web.json_response({"identifiers": page, "ids": [one["id"] or "" for one in page], "next": ""})

    def _passes(self, profile: Profile, asked: dict[str, Any]) -> bool:
        [(word, said)] = asked.items()
        if word in {"and", "or"}:
            return (all if word == "and" else any)(self._passes(profile, one) for one in said)
        if word == "not":
            return not self._passes(profile, said)
        if word == "segment":
            return said["id"] in {one["id"] for one in self._segments(profile)}
        value = self._values(profile).get(said["field"])
        return value is not None and (said["operator"] == "exists" or value == said["value"])

    def _asked(self, request: web.Request) -> Profile | web.Response:
        """Whom a call is about."""
        id_type = request.query.get("id_type", "id")
        if id_type not in {*_KINDS, "cio_id"} or (id_type == "phone" and self.quirks.no_phone_identifier):
            return _error(400, f"{id_type} is no identifier of this workspace")
        return self._by(id_type, request.match_info["id"]) or _error(404, "not found")

    async def _attributes(self, request: web.Request) -> web.Response:
        found = self._asked(request)
        if isinstance(found, web.Response):
            return found
        values = self._values(found)
        customer: dict[str, Any] = {
            "id": values.get("id"),
            "identifiers": self._identifiers(found),
            "attributes": values,
            "timestamps": {name: self._set_at.get((found.id, name), 0) for name in values},
            "unsubscribed": found.consent.get("email") == "unsubscribed",
            "devices": [],
        }
        return web.json_response({"customer": customer})

    # --- App: segments ---

    def _segments(self, profile: Profile) -> list[dict[str, Any]]:
        return [one for one in self.segments if one["name"] != SEGMENT or self.in_segment(profile)]

    async def _segments_of(self, request: web.Request) -> web.Response:
        found = self._asked(request)
        if isinstance(found, web.Response):
            return found
        shown = [{"id": one["id"], "name": one["name"], "description": ""} for one in self._segments(found)]
        return web.json_response({"segments": shown})

    async def _all_segments(self, request: web.Request) -> web.Response:
        return web.json_response({"segments": self.segments})

    # --- messages ---

    def add_newsletter(self, name: str) -> int:
        """A one-time send; returns its id."""
        self.campaigns.append({"id": 10 + len(self.campaigns), "name": name, "type": "email", "sent_at": None})
        return int(self.campaigns[-1]["id"])

    def send(self, to: Iterable[Profile], newsletter_id: int | None = None, kind: str = "email", **more: Any) -> list[dict[str, Any]]:
        """Messages to these people now; without `newsletter_id` (or another parent in `more`) transactional ones."""
        sent = []
        for profile in to:
            number, at = len(self.messages) + 1, int(self.clock())
            message = {
                "id": f"RPILAgUB{number:08}=",
                "type": kind,
                "created": at,
                "metrics": {"sent": at},
                "newsletter_id": newsletter_id,
                "broadcast_id": None,
                "campaign_id": None,
                "customer_id": profile.keys.get("external_id"),
                "customer_identifiers": self._identifiers(profile),
                "recipient": profile.keys.get("phone" if kind in {"twilio", "whatsapp"} else "email"),
                "subject": "Our best offers",
                "failure_message": None,
                "forgotten": False,
                **more,
            }
            self.messages.append(message)
            sent.append(message)
        return sent

    def webhook(self, message: dict[str, Any], metric: str = "sent", key: str = SIGNING_KEY) -> tuple[dict[str, str], bytes]:
        """The reporting webhook of a message: (headers, body)."""
        parents = {name: message[name] for name in ("newsletter_id", "broadcast_id", "campaign_id") if message.get(name)}
        data = {
            "delivery_id": message["id"],
            "customer_id": message["customer_id"] or "",
            "identifiers": message["customer_identifiers"],
            "recipient": message["recipient"],
            "subject": message["subject"],
            **(parents or {"transactional_message_id": 3}),
        }
        kind = "sms" if message["type"] == "twilio" else message["type"]
        event = {"event_id": f"01E4{len(self.messages):022}", "object_type": kind, "metric": metric, "timestamp": message["created"]}
        body, at = json.dumps(event | {"data": data}).encode(), str(int(self.clock()))
        signature = hmac.new(key.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256).hexdigest()
        return {"content-type": "application/json", "x-cio-timestamp": at, "x-cio-signature": signature}, body

    async def _all_messages(self, request: web.Request) -> web.Response:
        query = request.query
        start, end = int(query.get("start_ts", "0")), int(query.get("end_ts", str(2**40)))
        found = [one for one in reversed(self.messages) if query.get("metric", "sent") in one["metrics"] and start <= one["created"] < end]
        skip, limit = int(query.get("start") or "0"), int(query.get("limit", "50"))
        following = str(skip + limit) if skip + limit < len(found) else ""
        return web.json_response({"messages": found[skip : skip + limit], "next": following})

    async def _newsletter(self, request: web.Request) -> web.Response:
        found = next((one for one in self.campaigns if str(one["id"]) == request.match_info["id"]), None)
        return web.json_response({"newsletter": found}) if found else _error(404, "not found")


def _segment(id: int, name: str, kind: str = "dynamic") -> dict[str, Any]:
    return {"id": id, "name": name, "description": "", "type": kind, "state": "finished", "progress": None, "tags": None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _error(status: int, detail: str) -> web.Response:
    return web.json_response({"errors": [{"detail": f"{detail} (reference a1b2c3)", "status": str(status)}]}, status=status)
