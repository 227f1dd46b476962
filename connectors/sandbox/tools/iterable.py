"""A stand-in of Iterable's API: one hybrid project, its users, lists, campaigns, and campaigns that ask a data feed as they go out.

Shapes are those of the vendor's specification ("Iterable API 1.8", https://api.iterable.com/api/docs), the tests check them against it.
Its quirks: a user nobody knows is 200 with nothing in it, an update makes users, a field keeps the type of its first value, unknown
fields are dropped in a success unless asked for, a bulk update lists its failures in a success, dates have a spelling of their own,
a 429 names no wait, and a data feed may be cached for an hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

KEY = "0123456789abcdef0123456789abcdef"
BEARER = "iterable-webhook-token"
CACHED_SECONDS = 3_600.0
FEED_SECONDS = 10.0
FORGOTTEN = "Contact is GDPR forgotten"

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_KINDS = {"email": "email", "userId": "external_id"}


@dataclass(slots=True)
class IterableQuirks(Quirks):
    """What goes wrong at Iterable besides."""

    drops_fields: bool = False  # the project drops fields it does not know, and says success
    success_with_code: str = ""  # every call is answered 200 with this code and not carried out
    lacks: set[str] = field(default_factory=set)  # paths the key may not use


@dataclass(frozen=True, slots=True)
class Feed:
    """A data feed: what a message asks before it is sent. Any answer but 200 skips the message."""

    url: str
    token: str = ""
    cached: bool = False
    parameters: dict[str, str] = field(default_factory=dict)  # what the address says besides whom it is about


class IterableStandIn(StandIn):
    """Iterable on loopback."""

    name: ClassVar[str] = "iterable"
    credentials: ClassVar[dict[str, str]] = {"api_key": KEY, "webhook_secret": BEARER}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quirks: IterableQuirks = IterableQuirks()
        self.types: dict[str, str] = {"email": "string", "userId": "string"}  # of the project's fields
        self.lists: list[dict[str, Any]] = []
        self.templates: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []  # system webhooks of all campaigns run
        self._told = 0
        self._answers: dict[str, tuple[float, int]] = {}  # data feeds by address: (until when it is repeated, the status)

    def in_segment(self, profile: Profile) -> bool:
        """Whether the dynamic list `supportHold equals true AND supportHoldUntil is after now` has this user."""
        shown = self.shown(profile, self.quirks.segment_lag)
        minute = self.clock() // 60 * 60
        return shown.get("support_hold") is True and _unix(shown.get("support_hold_until")) > minute

    def authorised(self, request: web.Request) -> bool:
        return request.headers.get("Api-Key") == KEY and request.path not in self.quirks.lacks

    def unauthorised(self) -> web.Response:
        return _answer("BadApiKey", "Invalid API key", 401)

    def failing(self, status: int) -> web.Response:
        if status == 429:  # no header says how long
            return _answer("RateLimitExceeded", "Rate limit exceeded", 429)
        return _answer("GenericError", "An error occurred", status)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/users/getByEmail", self._by_email),
            web.get("/api/users/byUserId", self._by_id),
            web.get("/api/users/getFields", self._fields),
            web.post("/api/users/update", self._update),
            web.post("/api/users/bulkUpdate", self._bulk),
            web.get("/api/lists", self._lists),
            web.get("/api/campaigns", self._campaigns),
            web.get("/api/templates/email/get", self._template),
            web.get("/api/templates/push/get", self._template),
        ]

    # --- users ---

    async def _by_email(self, request: web.Request) -> web.Response:
        return self._user("email", request.query.get("email", ""))

    async def _by_id(self, request: web.Request) -> web.Response:
        found = [p for p in self.profiles if p.keys.get("external_id") == request.query.get("userId")]
        return self._user("external_id", found[0].keys["external_id"]) if found else web.json_response({})

    def _user(self, kind: str, value: str) -> web.Response:
        if self.quirks.success_with_code:
            return _answer(self.quirks.success_with_code, "It did not work", 200)
        if kind == "email" and not _EMAIL.fullmatch(value):
            return _answer("InvalidEmailAddressError", f"Invalid email: {value}", 400)
        profile = self.find(kind, value)
        if profile is None:
            return web.json_response({})  # 200, and nobody in it
        keys = {"email": profile.keys.get("email", f"{profile.id}@placeholder.email")}
        keys |= {"userId": profile.keys["external_id"]} if "external_id" in profile.keys else {}
        told = {_camel(name): _date(value) if isinstance(value, str) else value for name, value in self.shown(profile).items()}
        return web.json_response({"user": {**keys, "dataFields": {**keys, "phoneNumber": profile.keys.get("phone"), **told}}})

    async def _fields(self, request: web.Request) -> web.Response:
        return web.json_response({"fields": self.types})

    async def _update(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.quirks.success_with_code:
            return _answer(self.quirks.success_with_code, "It did not work", 200)
        code, message = self._fault(body)
        if code:
            return _answer(code, message, 409 if code == "ForgottenUserError" else 400)
        self._apply(body, bool(body.get("createNewFields")))
        return _answer("Success", "", 200)

    async def _bulk(self, request: web.Request) -> web.Response:
        body = await request.json()
        failed: dict[str, list[str]] = {}
        done, filtered = 0, set[str]()
        for one in body["users"]:
            code, _ = self._fault(one)
            if code:
                kind = "Emails" if "email" in one else "UserIds"
                name = {"ForgottenUserError": "forgotten", "RequestFieldsTypesMismatched": "invalidData"}.get(code, "invalid") + kind
                failed.setdefault(name, []).append(str(one.get("email") or one.get("userId")))
                continue
            filtered |= self._apply(one, bool(body.get("createNewFields")))
            done += 1
        return web.json_response(
            {
                "successCount": done,
                "failCount": len(body["users"]) - done,
                "invalidEmails": failed.get("invalidEmails", []),
                "invalidUserIds": failed.get("invalidUserIds", []),
                "filteredOutFields": sorted(filtered),
                "createdFields": [],
                "failedUpdates": failed,
            }
        )

    def _fault(self, body: dict[str, Any]) -> tuple[str, str]:
        """(code, message) where an update is refused."""
        who = str(body.get("email") or body.get("userId") or "")
        if not who or ("email" in body and "userId" in body):
            return "BadParams", "Provide an email or a userId"
        if "email" in body and not _EMAIL.fullmatch(who):
            return "InvalidEmailAddressError", f"Invalid email: {who}"
        if who in self.quirks.refused:
            return "ForgottenUserError", FORGOTTEN
        for name, value in (body.get("dataFields") or {}).items():
            if value is not None and name in self.types and self.types[name] != _type(value):
                return "RequestFieldsTypesMismatched", f"{name} is {self.types[name]}"
        return "", ""

    def _apply(self, body: dict[str, Any], new_fields: bool) -> set[str]:
        """Carry out one update, making the user where there is none; the names of fields that were dropped."""
        kind = "email" if "email" in body else "userId"
        profile = self.find(_KINDS[kind], body[kind])
        if profile is None:
            profile = self.add_profile(**{_KINDS[kind]: str(body[kind])})
            profile.consent = {}
        given = dict(body.get("dataFields") or {})
        dropped = {name for name in given if name not in self.types and self.quirks.drops_fields and not new_fields}
        given = {name: value for name, value in given.items() if name not in dropped}
        self.types |= {name: _type(value) for name, value in given.items() if value is not None and name not in self.types}
        kept = {_snake(name): _iso(value) if isinstance(value, str) else value for name, value in given.items()}
        self.write(profile, kept)  # an emptied field stays, with null in it
        return dropped

    # --- lists and campaigns ---

    async def _lists(self, request: web.Request) -> web.Response:
        return web.json_response({"lists": self.lists})

    async def _campaigns(self, request: web.Request) -> web.Response:
        states = request.query.getall("campaignState", [])
        size, page = int(request.query.get("pageSize", 20)), int(request.query.get("page", 1))
        found = [one for one in self.campaigns if not states or one["campaignState"] in states]
        answer: dict[str, Any] = {"campaigns": found[(page - 1) * size : page * size], "totalCampaignsCount": len(found)}
        if page * size < len(found):
            answer["nextPageUrl"] = f"/api/campaigns?page={page + 1}&pageSize={size}"
        return web.json_response(answer)

    async def _template(self, request: web.Request) -> web.Response:
        found = self.templates.get(int(request.query["templateId"]))
        return web.json_response(found) if found else _answer("NotFound", "Template not found", 404)

    # --- campaigns going out ---

    async def run_campaign(
        self, id: int = 1, name: str = "Black Friday", *, medium: str = "email", feed: Feed | None = None, suppressed: bool = False
    ) -> list[dict[str, Any]]:
        """Send a campaign to everybody who may be sent one. `suppressed`: the dynamic list of held users is a suppression list. With
        `feed` each message asks it over HTTP as it is made, and is skipped where it answers other than 200. Returns the bodies of the
        system webhooks, a Send or a Send Skip each, kept in `events` too."""
        address = {"email": "email", "sms": "phone"}[medium]
        reached = [p for p in self.profiles if p.keys.get(address) and p.consent.get(medium) != "unsubscribed"]
        reached = [p for p in reached if not (suppressed and self.in_segment(p))]
        sent = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FEED_SECONDS)) as session:
            for profile in reached:
                status = 200 if feed is None else await self._ask(session, feed, profile, name)
                sent.append(self._event(profile, medium, status, id, name))
        self.events += sent
        return sent

    async def _ask(self, session: aiohttp.ClientSession, feed: Feed, profile: Profile, campaign: str) -> int:
        """What the feed answers about one user; 0 for no answer in time."""
        whom = {"email": profile.keys.get("email", ""), "external_id": profile.keys.get("external_id", "")}
        url = f"{feed.url}?{urlencode({**whom, 'campaign': campaign, **feed.parameters})}"
        until, kept = self._answers.get(url, (0.0, 0))
        if feed.cached and until > self.clock():
            return kept
        headers = {"Authorization": f"Bearer {feed.token}"} if feed.token else {}
        try:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (TimeoutError, aiohttp.ClientError):
            return 0
        if feed.cached:
            self._answers[url] = (self.clock() + CACHED_SECONDS, status)
        return status

    def _event(self, profile: Profile, medium: str, status: int, id: int, name: str) -> dict[str, Any]:
        self._told += 1
        email = profile.keys.get("email", f"{profile.id}@placeholder.email")
        about: dict[str, Any] = {
            "email": email,
            "createdAt": _date(_text(self.clock())),
            "campaignId": id,
            "messageId": f"{self._told:032x}",
        }
        if status == 200:
            about |= {"campaignName": name, "templateId": id, "templateName": name, "channelId": 1, "messageTypeId": 1, "workflowId": None}
        else:
            about |= {"reason": "DataFeedError"}
        who = {"email": email} | ({"userId": profile.keys["external_id"]} if "external_id" in profile.keys else {})
        return {**who, "eventName": f"{medium}Send{'' if status == 200 else 'Skip'}", "dataFields": about}

    async def call_webhook(self, url: str, events: list[dict[str, Any]], authorization: str = BEARER) -> list[int]:
        """Post events to an endpoint as a system webhook of auth type Basic does, one a call; the status of each."""
        statuses = []
        async with aiohttp.ClientSession() as session:
            for event in events:
                async with session.post(url, json=event, headers={"Authorization": authorization}) as response:
                    statuses.append(response.status)
        return statuses


def _answer(code: str, message: str, status: int) -> web.Response:
    return web.json_response({"msg": message, "code": code}, status=status)


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "date" if _DATE.fullmatch(value) or _ISO.fullmatch(value) else "string"
    return {int: "long", float: "double"}.get(type(value), "object")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _date(text: str) -> str:
    """A time as profiles tell it; any other text as it is."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S +00:00") if _ISO.fullmatch(text) else text


def _iso(text: str) -> str:
    return text.replace(" ", "T", 1).replace(" ", "") if _DATE.fullmatch(text) else text


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _unix(text: Any) -> float:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) and _ISO.fullmatch(text) else 0.0
