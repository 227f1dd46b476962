"""A stand-in of HubSpot: contacts, their properties, active lists and marketing e-mails of the v3 API.

With its quirks: a property must be there before it is written, everything is kept as text, a batch answers 207 with errors beside the
results, phones are found by their local number alone and some seconds late, and 429 names the policy that was hit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import phonenumbers
from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

ACCESS = "pat-na1-sandbox"
OWN_ID = "customer_number"
CORRELATION = "0b1f8a7e-5a2c-4d7e-9a55-2f0e7c1d9b6a"
MOST = 100  # of a batch

_PATH = "/crm/v3/objects/contacts"
_KEYS = {"email": "email", "phone": "phone", OWN_ID: "external_id"}  # property -> our kind
_CALCULATED = {"hs_searchable_calculated_phone_number": "phone", "hs_searchable_calculated_mobile_number": "mobilephone"}
_OWN = {
    "email": "string",
    "hs_additional_emails": "enumeration",
    "phone": "string",
    "mobilephone": "string",
    "firstname": "string",
    "hs_object_id": "number",
    **dict.fromkeys(_CALCULATED, "string"),
}


@dataclass(slots=True)
class HubSpotQuirks(Quirks):
    """What goes wrong at HubSpot besides."""

    policy: str = "TEN_SECONDLY_ROLLING"  # which limit a 429 names: SECONDLY, TEN_SECONDLY_ROLLING, DAILY
    all_or_nothing: bool = False  # one bad contact has the whole batch refused, as a validation error does
    search_lag: float = 0.0  # seconds until a new contact is found by search
    silent: bool = False  # a batch leaves out what it refuses, without an error


class HubSpotStandIn(StandIn):
    """HubSpot on loopback."""

    name: ClassVar[str] = "hubspot"
    credentials: ClassVar[dict[str, str]] = {"access_token": ACCESS, "external_id_property": OWN_ID}
    quirks: HubSpotQuirks

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self.quirks = HubSpotQuirks()
        self.properties: dict[str, dict[str, Any]] = {name: _property(name, kind) for name, kind in _OWN.items()}
        self.properties[OWN_ID] = _property(OWN_ID, "string") | {"hasUniqueValue": True, "hubspotDefined": False}
        self.lists: list[dict[str, Any]] = []

    def new_id(self, number: int) -> str:
        return str(500 + number)

    def in_segment(self, profile: Profile) -> bool:
        """Whether an active list that asks for the hold has the contact."""
        return any("support_hold" in str(one.get("filterBranch")) and self._member(profile, one) for one in self.lists)

    # --- the server ---

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(_PATH, self._page),
            web.post(_PATH, self._create),
            web.post(_PATH + "/batch/read", self._batch_read),
            web.post(_PATH + "/batch/update", self._batch_update),
            web.post(_PATH + "/search", self._search),
            web.get(_PATH + "/{id}", self._one),
            web.patch(_PATH + "/{id}", self._update_one),
            web.post("/crm/v3/properties/contacts", self._add_property),
            web.post("/crm/v3/properties/contacts/batch/read", self._read_properties),
            web.get("/crm/v3/properties/contacts/{name}", self._read_property),
            web.post("/crm/v3/lists", self._add_list),
            web.get("/crm/v3/lists/object-type-id/{type}/name/{name}", self._named_list),
            web.get("/crm/v3/lists/records/{type}/{id}/memberships", self._lists_of),
            web.post("/crm/v3/lists/records/memberships/batch/read", self._lists_of_many),
            web.get("/marketing/v3/emails", self._emails),
            web.get("/marketing/v3/emails/", self._emails),  # as the vendor's older specification and its client have it
            web.route("*", "/{path:.*}", self._nothing),  # consent, deletion and list membership are not served
        ]

    def authorised(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {ACCESS}"

    def unauthorised(self) -> web.Response:
        return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found. This API supports OAuth 2.0 authentication.")

    def failing(self, status: int) -> web.Response:
        headers = {"Retry-After": self.quirks.retry_after} if self.quirks.retry_after else {}
        if status != 429:
            return _error(status, "", "internal error", headers=headers)
        policy = self.quirks.policy
        headers |= {
            "X-HubSpot-RateLimit-Daily": "250000",
            "X-HubSpot-RateLimit-Daily-Remaining": "0" if policy == "DAILY" else "249000",
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            "X-HubSpot-RateLimit-Max": "100",
            "X-HubSpot-RateLimit-Remaining": "0",
        }
        said = f"You have reached your {policy.lower()} limit."
        return _error(429, "RATE_LIMITS", said, headers=headers, errorType="RATE_LIMIT", policyName=policy)

    async def _nothing(self, request: web.Request) -> web.Response:
        return _error(404, "OBJECT_NOT_FOUND", "resource not found")

    # --- contacts ---

    def _values(self, profile: Profile, shown: dict[str, Any]) -> dict[str, str]:
        """Every property of a contact that has a value, as text."""
        keys = {name: profile.keys[kind] for name, kind in _KEYS.items() if kind in profile.keys}
        values = keys | {name: self._text(name, value) for name, value in shown.items() if value not in (None, "")}
        for name, of in _CALCULATED.items():
            if of in values:
                values[name] = _local(values[of])
        return values | {"hs_object_id": profile.id}

    def _text(self, name: str, value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if self.properties.get(name, {}).get("type") == "datetime":
            return datetime.fromisoformat(str(value)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return str(value)

    def _shape(self, profile: Profile, wanted: Iterable[str], lag: float | None = None) -> dict[str, Any]:
        values = self._values(profile, self.shown(profile, lag))
        names = [name for name in (*wanted, "hs_object_id") if name in self.properties]
        return {
            "id": profile.id,
            "properties": {name: values.get(name) for name in names},
            "createdAt": _iso(profile.history[0][0] if profile.history else self.clock()),
            "updatedAt": _iso(profile.history[-1][0] if profile.history else self.clock()),
            "archived": False,
        }

    def _by(self, key: str, value: str) -> Profile | None:
        if key == "hs_object_id":
            return next((one for one in self.profiles if one.id == value), None)
        if key == "email":
            more = (one for one in self.profiles if value.lower() in str(one.attributes.get("hs_additional_emails", "")).split(";"))
            return self.find("email", value) or next(more, None)
        return next((one for one in self.profiles if one.keys.get(_KEYS.get(key, key)) == value), None)

    def _unique(self, key: str) -> bool:
        return key in {"email", "hs_object_id"} or bool(self.properties.get(key, {}).get("hasUniqueValue"))

    async def _page(self, request: web.Request) -> web.Response:
        page = self.profiles[: int(request.query.get("limit", "10"))]
        return web.json_response({"results": [self._shape(one, request.query.get("properties", "email").split(",")) for one in page]})

    async def _one(self, request: web.Request) -> web.Response:
        profile = self._by(request.query.get("idProperty", "hs_object_id"), request.match_info["id"])
        if profile is None:
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
        return web.json_response(self._shape(profile, request.query.get("properties", "email").split(",")))

    async def _batch_read(self, request: web.Request) -> web.Response:
        body = await request.json()
        key = body.get("idProperty", "hs_object_id")
        if len(body["inputs"]) > MOST:
            return _error(400, "VALIDATION_ERROR", f"The maximum batch size is {MOST}.")
        if not self._unique(key):
            return _error(400, "VALIDATION_ERROR", f"Unable to perform batch read by non-unique 0-1 property {key}.")
        found = {one["id"]: self._by(key, one["id"]) for one in body["inputs"]}
        missing = [value for value, profile in found.items() if profile is None]
        results = [self._shape(one, body["properties"]) for one in {p.id: p for p in found.values() if p}.values()]
        return self._batch(results, [_item("OBJECT_NOT_FOUND", "Could not get some CONTACT objects.", missing)] if missing else [])

    async def _batch_update(self, request: web.Request) -> web.Response:
        inputs = (await request.json())["inputs"]
        if len(inputs) > MOST or len({one["id"] for one in inputs}) < len(inputs):
            return _error(400, "VALIDATION_ERROR", "Too many inputs, or duplicate IDs in them.")
        if refused := self._invalid(one["properties"] for one in inputs):
            return refused
        found = [(one, self._by(one.get("idProperty", "hs_object_id"), one["id"])) for one in inputs]
        bad = [one["id"] for one, profile in found if profile is not None and self._refuses(profile)]
        if bad and self.quirks.all_or_nothing:
            return _error(400, "VALIDATION_ERROR", "Property values were not valid", errors=[{"message": "no", "code": "INVALID_EMAIL"}])
        missing = [one["id"] for one, profile in found if profile is None]
        done = [(one, profile) for one, profile in found if profile is not None and one["id"] not in bad]
        for one, profile in done:
            self._put(profile, one["properties"])
        errors = [_item("VALIDATION_ERROR", "Property values were not valid.", bad)] if bad else []
        errors += [_item("OBJECT_NOT_FOUND", "Could not get some CONTACT objects.", missing)] if missing else []
        return self._batch([self._shape(profile, one["properties"], 0) for one, profile in done], [] if self.quirks.silent else errors)

    async def _update_one(self, request: web.Request) -> web.Response:
        values = (await request.json())["properties"]
        profile = self._by(request.query.get("idProperty", "hs_object_id"), request.match_info["id"])
        if profile is None:
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
        if refused := self._invalid([values]):
            return refused
        self._put(profile, values)
        return web.json_response(self._shape(profile, values, 0))

    async def _create(self, request: web.Request) -> web.Response:
        values = (await request.json())["properties"]
        if refused := self._invalid([values]):
            return refused
        known = self._by("email", values["email"]) if values.get("email") else None
        if known is not None:
            return _error(409, "CONFLICT", f"Contact already exists. Existing ID: {known.id}")
        profile = self.add_profile(**{kind: values[name] for name, kind in _KEYS.items() if values.get(name)})
        profile.consent = {}
        self._put(profile, {name: value for name, value in values.items() if name not in _KEYS})
        return web.json_response(self._shape(profile, values, 0), status=201)

    def _put(self, profile: Profile, values: dict[str, str]) -> None:
        kept = {name: value for name, value in values.items() if value != ""}
        self.write(profile, kept, tuple(name for name, value in values.items() if value == ""))

    def _refuses(self, profile: Profile) -> bool:
        return bool(self.quirks.refused & set(profile.keys.values()))

    def _invalid(self, all_values: Iterable[dict[str, str]]) -> web.Response | None:
        """The refusal of values that no property takes: then nothing of the call is carried out."""
        errors: list[dict[str, Any]] = []
        for values in all_values:
            for name, value in values.items():
                kind = self.properties.get(name, {}).get("type")
                if kind is None:
                    said = f'Property "{name}" does not exist'
                    errors.append({"message": said, "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": [name]}})
                elif value and not _fits(kind, value):
                    said = f"{value} was not a valid {kind}."
                    errors.append({"message": said, "code": f"INVALID_{kind.upper()}", "context": {"propertyName": [name]}})
        return _error(400, "VALIDATION_ERROR", "Property values were not valid", errors=errors) if errors else None

    def _batch(self, results: list[dict[str, Any]], errors: list[dict[str, Any]]) -> web.Response:
        at = _iso(self.clock())
        body: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": at, "completedAt": at}
        if errors:
            body |= {"numErrors": len(errors), "errors": errors}
        return web.json_response(body, status=207 if errors else 200)

    async def _search(self, request: web.Request) -> web.Response:
        body = await request.json()
        groups = body.get("filterGroups", [])
        if len(groups) > 5 or sum(len(group["filters"]) for group in groups) > 18:
            return _error(400, "VALIDATION_ERROR", "There are too many filters.")
        unknown = [one["propertyName"] for group in groups for one in group["filters"] if one["propertyName"] not in self.properties]
        if unknown:
            return _error(400, "VALIDATION_ERROR", f"There was a problem with the request: no property {unknown[0]}")
        seen = [one for one in self.profiles if not one.history or one.history[0][0] <= self.clock() - self.quirks.search_lag]
        found = [one for one in seen if any(self._matches(one, group["filters"]) for group in groups)]
        start, limit = int(body.get("after") or 0), int(body.get("limit", 10))
        answer: dict[str, Any] = {
            "total": len(found),
            "results": [self._shape(one, body.get("properties", ["email"])) for one in found[start : start + limit]],
        }
        if start + limit < len(found):
            answer["paging"] = {"next": {"after": str(start + limit)}}
        return web.json_response(answer)

    def _matches(self, profile: Profile, filters: list[dict[str, Any]]) -> bool:
        values = self._values(profile, self.shown(profile))
        return all(
            values.get(one["propertyName"]) in one["values"] if one["operator"] == "IN" else values.get(one["propertyName"]) == one["value"]
            for one in filters
        )

    # --- properties ---

    async def _read_properties(self, request: web.Request) -> web.Response:
        names = [one["name"] for one in (await request.json())["inputs"]]
        missing = [name for name in names if name not in self.properties]
        errors = [_item("OBJECT_NOT_FOUND", "Could not find some properties.", missing)] if missing else []
        return self._batch([self.properties[name] for name in names if name in self.properties], errors)

    async def _read_property(self, request: web.Request) -> web.Response:
        found = self.properties.get(request.match_info["name"])
        return web.json_response(found) if found else _error(404, "OBJECT_NOT_FOUND", "The property does not exist.")

    async def _add_property(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["name"] in self.properties:
            return _error(409, "OBJECT_ALREADY_EXISTS", f"A property named {body['name']} already exists.")
        if body["type"] == "bool" and {one["value"] for one in body.get("options", [])} != {"true", "false"}:
            return _error(400, "VALIDATION_ERROR", "Boolean properties must have exactly two options, true and false.")
        self.properties[body["name"]] = _property(body["name"], body["type"]) | body | {"hubspotDefined": False}
        return web.json_response(self.properties[body["name"]], status=201)

    # --- lists ---

    def add_list(self, name: str, filter_branch: dict[str, Any] | None = None, processing: str = "DYNAMIC") -> str:
        """A list of contacts; returns its id."""
        at = _iso(self.clock())
        made = {"listId": str(len(self.lists) + 1), "listVersion": 1, "name": name, "objectTypeId": "0-1", "processingType": processing}
        made |= {"processingStatus": "COMPLETE", "createdAt": at, "updatedAt": at}
        if filter_branch is not None:
            made["filterBranch"] = filter_branch
        self.lists.append(made)
        return str(made["listId"])

    def _member(self, profile: Profile, one: dict[str, Any]) -> bool:
        return _passes(one.get("filterBranch"), self._values(profile, self.shown(profile, self.quirks.segment_lag)), self.clock())

    async def _add_list(self, request: web.Request) -> web.Response:
        body = await request.json()
        if any(one["name"].lower() == body["name"].lower() for one in self.lists):
            return _error(400, "VALIDATION_ERROR", "A list with this name already exists.", subCategory="ILS.DUPLICATE_LIST_NAMES")
        branch = body.get("filterBranch") or {}
        if body["processingType"] == "DYNAMIC" and (branch.get("filterBranchType") != "OR" or branch.get("filters")):
            return _error(400, "VALIDATION_ERROR", "The root filter branch must be OR, with AND branches and no filters of its own.")
        id = self.add_list(body["name"], branch, body["processingType"])
        return web.json_response({"list": next(one for one in self.lists if one["listId"] == id)})

    async def _named_list(self, request: web.Request) -> web.Response:
        asked = (request.match_info["type"], request.match_info["name"].lower())
        found = next((one for one in self.lists if (one["objectTypeId"], one["name"].lower()) == asked), None)
        if found is None:
            return _error(404, "OBJECT_NOT_FOUND", "List does not exist with this name.")
        if request.query.get("includeFilters") != "true":
            found = {key: value for key, value in found.items() if key != "filterBranch"}
        return web.json_response({"list": found})

    def _memberships(self, profile: Profile) -> list[dict[str, Any]]:
        at = _iso(self.clock())
        return [
            {"listId": one["listId"], "listVersion": 1, "firstAddedTimestamp": at, "lastAddedTimestamp": at}
            for one in self.lists
            if self._member(profile, one)
        ]

    async def _lists_of(self, request: web.Request) -> web.Response:
        profile = self._by("hs_object_id", request.match_info["id"])
        if profile is None:
            return _error(404, "OBJECT_NOT_FOUND", "Record does not exist.")
        found = self._memberships(profile)
        return web.json_response({"total": len(found), "results": found})

    async def _lists_of_many(self, request: web.Request) -> web.Response:
        inputs = (await request.json())["inputs"]
        found = [(one, self._by("hs_object_id", one["recordId"])) for one in inputs]
        results = [one | {"recordListMemberships": self._memberships(profile)} for one, profile in found if profile is not None]
        return self._batch(results, [])

    # --- marketing e-mails ---

    def add_campaign(
        self, name: str, send_at: float, state: str = "SCHEDULED", include: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> str:
        """A marketing e-mail; returns its id."""
        email = {
            "id": str(9_000 + len(self.campaigns)),
            "name": name,
            "state": state,
            "type": "BATCH_EMAIL",
            "isAb": False,
            "isTransactional": False,
            "publishDate": _iso(send_at),
            "updatedAt": _iso(self.clock()),
            "to": {"contactIlsLists": {"include": list(include), "exclude": list(exclude)}, "contactLists": {"include": [], "exclude": []}},
            "content": {"plainTextVersion": "Our best offers"},
        }
        self.campaigns.append(email)
        return str(email["id"])

    async def _emails(self, request: web.Request) -> web.Response:
        asked = set(request.query.getall("includedProperties", []))
        since = request.query.get("updatedAfter", "")
        found = [one for one in self.campaigns if not since or datetime.fromisoformat(one["updatedAt"]) > datetime.fromisoformat(since)]
        shown = [{key: value for key, value in one.items() if not asked or key in asked | {"id"}} for one in found]
        start, limit = int(request.query.get("after", "0")), int(request.query.get("limit", "10"))
        answer: dict[str, Any] = {"total": len(shown), "results": shown[start : start + limit]}
        if start + limit < len(shown):
            answer["paging"] = {"next": {"after": str(start + limit)}}
        return web.json_response(answer)


def _passes(branch: Any, values: dict[str, str], now: float) -> bool:
    """Whether a contact passes a filter branch: AND of everything in it, or OR."""
    if not branch:
        return False
    each = [_passes(one, values, now) for one in branch["filterBranches"]] + [_filter(one, values, now) for one in branch["filters"]]
    return all(each) if branch["filterBranchType"] == "AND" else any(each)


def _filter(one: dict[str, Any], values: dict[str, str], now: float) -> bool:
    value, operation = values.get(one["property"]), one["operation"]
    if value is None:
        return bool(operation["includeObjectsWithNoValueSet"])
    if operation["operationType"] == "BOOL":
        return (value == "true") is operation["value"]
    assert operation["operationType"] == "TIME_POINT"
    assert operation["timePoint"]["indexReference"]["referenceType"] == "NOW"
    return (datetime.fromisoformat(value).timestamp() > now) is (operation["operator"] == "IS_AFTER")


def _fits(kind: str, value: str) -> bool:
    try:
        if kind == "datetime":
            datetime.fromisoformat(value)
        elif kind == "number":
            float(value)
    except ValueError:
        return False
    return kind != "bool" or value in {"true", "false"}


def _local(value: str) -> str:
    """The area code and local number."""
    try:
        return str(phonenumbers.national_significant_number(phonenumbers.parse(value, "US")))
    except phonenumbers.NumberParseException:
        return ""


def _property(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": kind,
        "fieldType": "text",
        "groupName": "contactinformation",
        "description": "",
        "options": [],
        "hasUniqueValue": False,
        "hubspotDefined": True,
        "archived": False,
    }


def _item(category: str, message: str, ids: list[str]) -> dict[str, Any]:
    """An error of some items of a batch."""
    return {"status": "error", "category": category, "message": message, "context": {"ids": ids}, "errors": [], "links": {}}


def _error(status: int, category: str, message: str, headers: dict[str, str] | None = None, **more: Any) -> web.Response:
    body = {"status": "error", "message": message, "correlationId": CORRELATION, **({"category": category} if category else {}), **more}
    return web.json_response(body, status=status, headers=headers)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
