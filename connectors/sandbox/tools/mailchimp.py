"""A stand-in of Mailchimp's Marketing API 3.0: one audience, its contacts, tags, merge fields, segments, campaigns and reports.

Shapes are those of the published specification (https://mailchimp.com/developer/marketing/api/); the vendor's own Python client is
driven against it in the tests. Its quirks: an unknown contact and an unknown audience answer the same 404, an unknown merge field is
dropped without a word, throttling may be a bare 403, no answer names a wait, and `unsubscribed` cannot be undone by API.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from aiohttp import web

from connectors.sandbox.tools.stand_in import Profile, Quirks, StandIn

AUDIENCE = "a1b2c3d4e5"
KEY = "0123456789abcdef0123456789abcdef-us19"
HOLD = "support_hold"
# Attributes by the merge tag they are kept under.
_NAMES = {
    "SUPHOLDUNT": "support_hold_until",
    "SUPHOLDREA": "support_hold_reason",
    "SUPHOLDVER": "support_hold_version",
    "SUPSTATUS": "support_status",
    "SUPRESOLVE": "support_resolved_at",
    "SUPOPENTIC": "support_open_tickets",
    "SUPSATISFA": "support_satisfaction",
    "SUPOPTOUTS": "support_optouts",
}


@dataclass(slots=True)
class MailchimpQuirks(Quirks):
    """What goes wrong at Mailchimp besides."""

    bare_403: bool = False  # throttled at very high volume: 403 without a JSON body


class MailchimpStandIn(StandIn):
    """Mailchimp on loopback."""

    name: ClassVar[str] = "mailchimp"
    credentials: ClassVar[dict[str, str]] = {"api_key": KEY, "audience": AUDIENCE, "webhook_secret": "mailchimp-signing-secret"}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quirks: MailchimpQuirks = MailchimpQuirks()
        self.segments: list[dict[str, Any]] = []  # a tag is a static one
        self.merge_fields: list[dict[str, Any]] = [
            {"merge_id": 1, "tag": "FNAME", "name": "First Name", "type": "text", "required": True, "public": True, "list_id": AUDIENCE}
        ]
        self.archived: set[str] = set()  # ids of contacts that were archived
        self.sent: dict[str, list[Profile]] = {}  # campaign id -> who got it
        self.most_tags = 50  # that a contact's own answer names; the rest is told by its `tags`

    def new_id(self, number: int) -> str:
        return f"p{number:06}"  # until an address names it

    def add_profile(self, **keys: str) -> Profile:
        """A contact of the audience: known by address alone."""
        profile = super().add_profile(**keys)
        profile.id = _hash(keys["email"])
        return profile

    def in_segment(self, profile: Profile) -> bool:
        return bool(self.shown(profile, self.quirks.segment_lag).get(HOLD))

    def authorised(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                given = b64decode(given).decode().partition(":")[2]
            except ValueError:
                return False
        return given == KEY

    def unauthorised(self) -> web.Response:
        return _problem(401, "API Key Invalid", "Your API key may be invalid, or you've attempted to access the wrong datacenter.")

    def failing(self, status: int) -> web.Response:
        if status == 429:  # no Retry-After, whatever was asked for
            return _problem(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")
        if status == 403 and self.quirks.bare_403:
            return web.Response(status=403, text="")
        return _problem(status, "Internal Server Error", "An unexpected internal error has occurred.")

    def routes(self) -> list[web.RouteDef]:
        one = "/3.0/lists/{list_id}"
        return [
            web.get("/3.0/ping", self._ping),
            web.get(one, self._audience),
            web.get(one + "/members/{hash}", self._member),
            web.put(one + "/members/{hash}", self._put_member),
            web.patch(one + "/members/{hash}", self._patch_member),
            web.get(one + "/members/{hash}/tags", self._member_tags),
            web.post(one + "/members/{hash}/tags", self._tag_member),
            web.get(one + "/tag-search", self._tag_search),
            web.get(one + "/merge-fields", self._list_fields),
            web.post(one + "/merge-fields", self._add_field),
            web.get(one + "/segments", self._list_segments),
            web.post(one + "/segments", self._add_segment),
            web.get(one + "/segments/{segment_id}", self._segment),
            web.get("/3.0/campaigns", self._campaigns),
            web.post("/3.0/campaigns/{campaign_id}/actions/unschedule", self._unschedule),
            web.get("/3.0/reports", self._reports),
            web.get("/3.0/reports/{campaign_id}/sent-to", self._sent_to),
        ]

    # --- contacts ---

    def _known(self, request: web.Request) -> Profile | None:
        if request.match_info["list_id"] != AUDIENCE:
            return None
        return next((p for p in self.profiles if _hash(p.keys.get("email", "")) == request.match_info["hash"]), None)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({"health_status": "Everything's Chimpy!"})

    async def _audience(self, request: web.Request) -> web.Response:
        if request.match_info["list_id"] != AUDIENCE:
            return _missing()
        return web.json_response({"id": AUDIENCE, "name": "Shop", "stats": {"member_count": len(self.profiles)}})

    def _shape(self, profile: Profile, shown: dict[str, Any]) -> dict[str, Any]:
        tags = [{"id": segment["id"], "name": segment["name"]} for segment in self.segments if self._tagged(shown, segment)]
        merges = {field["tag"]: shown.get(_NAMES.get(field["tag"], field["tag"]), "") for field in self.merge_fields}
        return {
            "id": profile.id,
            "email_address": profile.keys["email"],
            "unique_email_id": profile.id[:10],
            "contact_id": profile.id,
            "status": "archived" if profile.id in self.archived else profile.consent.get("email", "transactional"),
            "merge_fields": merges,
            "tags_count": len(tags),
            "tags": tags[: self.most_tags],
            "list_id": AUDIENCE,
        }

    def _tagged(self, shown: dict[str, Any], segment: dict[str, Any]) -> bool:
        if segment["type"] != "static":
            return False
        return bool(shown.get(HOLD)) if segment["name"] == HOLD else segment["name"] in shown.get("tags", ())

    async def _member(self, request: web.Request) -> web.Response:
        profile = self._known(request)
        return _missing() if profile is None else web.json_response(self._shape(profile, self.shown(profile)))

    async def _put_member(self, request: web.Request) -> web.Response:
        body = await request.json()
        profile = self._known(request)
        if request.match_info["list_id"] != AUDIENCE:
            return _missing()
        if _hash(body.get("email_address", "")) != request.match_info["hash"]:
            return _invalid("email_address", "This value should match the subscriber hash.")
        if profile is None:
            if body.get("status_if_new") not in {"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}:
                return _invalid("status_if_new", "This value should not be blank.")
            profile = self.add_profile(email=body["email_address"])
            profile.consent = {"email": body["status_if_new"]}
        return self._change(request, profile, body)

    async def _patch_member(self, request: web.Request) -> web.Response:
        profile = self._known(request)
        return _missing() if profile is None else self._change(request, profile, await request.json())

    def _change(self, request: web.Request, profile: Profile, body: dict[str, Any]) -> web.Response:
        if refused := self._refuses(profile):
            return refused
        wanted = body.get("status")
        if wanted is not None and wanted != profile.consent.get("email"):
            if profile.consent.get("email") == "unsubscribed":
                return _problem(400, "Member In Compliance State", f"{profile.keys['email']} is in a compliance state.")
            profile.consent["email"] = wanted
        merges = body.get("merge_fields", {})
        by_tag = {field["tag"]: field for field in self.merge_fields}
        if request.query.get("skip_merge_validation") != "true":
            for tag, field in by_tag.items():
                if field["required"] and not merges.get(tag):
                    return _invalid(tag, "This field is required.")
        for tag, value in merges.items():
            if tag in by_tag and by_tag[tag]["type"] == "number" and value != "" and not re.fullmatch(r"-?[0-9.]+", str(value)):
                return _invalid(tag, "This value must be a number.")
        kept = {_NAMES.get(tag, tag): value for tag, value in merges.items() if tag in by_tag}  # others are dropped without a word
        if kept:
            unset = tuple(name for name, value in kept.items() if value == "")
            self.write(profile, {name: value for name, value in kept.items() if value != ""}, unset)
        return web.json_response(self._shape(profile, profile.attributes))

    async def _member_tags(self, request: web.Request) -> web.Response:
        profile = self._known(request)
        if profile is None:
            return _missing()
        shown = self.shown(profile)
        tags = [{"id": segment["id"], "name": segment["name"]} for segment in self.segments if self._tagged(shown, segment)]
        return web.json_response({"tags": [{**tag, "date_added": _iso(self.clock())} for tag in tags], "total_items": len(tags)})

    async def _tag_member(self, request: web.Request) -> web.Response:
        profile = self._known(request)
        if profile is None or profile.id in self.archived:
            return _missing()
        if refused := self._refuses(profile):
            return refused
        body = await request.json()
        for tag in body["tags"]:
            if tag["status"] not in {"active", "inactive"}:
                return _invalid("tags", "This value should be active or inactive.")
            if tag["status"] == "active" and not any(s["name"] == tag["name"] and s["type"] == "static" for s in self.segments):
                self._new_segment(tag["name"], "static", None)
            if tag["name"] == HOLD:
                self.write(profile, {HOLD: tag["status"] == "active"})
            else:
                others = {*profile.attributes.get("tags", ())} - {tag["name"]} | ({tag["name"]} if tag["status"] == "active" else set())
                self.meddle(profile, {"tags": sorted(others)})
        return web.Response(status=204)

    def _refuses(self, profile: Profile) -> web.Response | None:
        if profile.keys["email"] in self.quirks.refused:
            return _problem(
                400, "Forgotten Email Not Subscribed", f"{profile.keys['email']} was permanently deleted and cannot be changed."
            )
        return None

    # --- tags, fields, segments ---

    def _new_segment(self, name: str, kind: str, options: dict[str, Any] | None) -> dict[str, Any]:
        at = _iso(self.clock())
        segment = {"id": 40_000 + len(self.segments), "name": name, "type": kind, "created_at": at, "updated_at": at, "list_id": AUDIENCE}
        if options is not None:
            segment["options"] = options
        self.segments.append(segment)
        return segment

    async def _tag_search(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        found = [s for s in self.segments if s["type"] == "static" and s["name"].startswith(name)]
        return web.json_response({"tags": [{"id": s["id"], "name": s["name"]} for s in found], "total_items": len(found)})

    async def _list_fields(self, request: web.Request) -> web.Response:
        page = self.merge_fields[: int(request.query.get("count", "10"))]
        return web.json_response({"merge_fields": page, "list_id": AUDIENCE, "total_items": len(self.merge_fields)})

    async def _add_field(self, request: web.Request) -> web.Response:
        body = await request.json()
        tag = body.get("tag", "")
        if not re.fullmatch(r"[A-Z0-9_]{1,10}", tag):
            return _invalid("tag", "Merge tags are at most 10 capital letters, digits and underscores.")
        if any(field["tag"] == tag for field in self.merge_fields):
            return _problem(400, "Invalid Resource", f"A Merge Field with the tag {tag} already exists for this list.")
        made = {"merge_id": len(self.merge_fields) + 1, "required": False, "public": True, **body, "list_id": AUDIENCE}
        self.merge_fields.append(made)
        return web.json_response(made)

    async def _list_segments(self, request: web.Request) -> web.Response:
        kind = request.query.get("type")
        found = [segment for segment in self.segments if kind in {None, segment["type"]}]
        page = found[: int(request.query.get("count", "10"))]
        return web.json_response({"segments": page, "list_id": AUDIENCE, "total_items": len(found)})

    async def _add_segment(self, request: web.Request) -> web.Response:
        body = await request.json()
        if ("static_segment" in body) == ("options" in body):
            return _invalid("options", "Give either static_segment or options.")
        kind = "static" if "static_segment" in body else "saved"
        if any(s["name"] == body["name"] and s["type"] == kind for s in self.segments):
            return _problem(400, "Bad Request", "Sorry, that tag already exists.")
        for condition in body.get("options", {}).get("conditions", []):
            if condition.get("condition_type") == "StaticSegment" and not isinstance(condition.get("value"), int):
                return _invalid("options.conditions.item:0.value", "This value should be a number.")
        return web.json_response(self._new_segment(body["name"], kind, body.get("options")))

    async def _segment(self, request: web.Request) -> web.Response:
        wanted = request.match_info["segment_id"]
        found = next((segment for segment in self.segments if str(segment["id"]) == wanted), None)
        return _missing() if found is None else web.json_response(found)

    # --- campaigns and reports ---

    def add_campaign(self, title: str, send_at: float, status: str = "schedule", segment_opts: dict[str, Any] | None = None) -> str:
        """A campaign to the audience; without `segment_opts`, to everybody in it. Returns its id."""
        number = len(self.campaigns) + 1
        recipients: dict[str, Any] = {"list_id": AUDIENCE, "list_is_active": True, "list_name": "Shop"}
        if segment_opts is not None:
            recipients["segment_opts"] = segment_opts
        self.campaigns.append(
            {
                "id": f"c{number:09}",
                "web_id": number,
                "type": "regular",
                "create_time": _iso(self.clock()),
                "status": status,
                "send_time": _iso(send_at),
                "recipients": recipients,
                "settings": {"title": title, "subject_line": title},
            }
        )
        return f"c{number:09}"

    def send(self, campaign_id: str, to: list[Profile]) -> None:
        """The campaign goes out to these now."""
        campaign = next(one for one in self.campaigns if one["id"] == campaign_id)
        campaign["status"], campaign["send_time"] = "sent", _iso(self.clock())
        self.sent[campaign_id] = to

    async def _campaigns(self, request: web.Request) -> web.Response:
        status, audience = request.query.get("status"), request.query.get("list_id")
        found = [c for c in self.campaigns if status in {None, c["status"]} and audience in {None, c["recipients"]["list_id"]}]
        page = found[: int(request.query.get("count", "10"))]
        return web.json_response({"campaigns": page, "total_items": len(found)})

    async def _unschedule(self, request: web.Request) -> web.Response:
        found = next((one for one in self.campaigns if one["id"] == request.match_info["campaign_id"]), None)
        if found is None:
            return _missing()
        if found["status"] != "schedule":
            return _problem(400, "Bad Request", "This campaign is not scheduled.")
        found["status"] = "save"
        return web.Response(status=204)

    async def _reports(self, request: web.Request) -> web.Response:
        since = request.query.get("since_send_time", "")
        found = [
            {
                "id": c["id"],
                "campaign_title": c["settings"]["title"],
                "list_id": c["recipients"]["list_id"],
                "emails_sent": len(self.sent[c["id"]]),
                "send_time": c["send_time"],
            }
            for c in self.campaigns
            if c["id"] in self.sent and c["send_time"] > since
        ]
        return web.json_response({"reports": found[: int(request.query.get("count", "10"))], "total_items": len(found)})

    async def _sent_to(self, request: web.Request) -> web.Response:
        campaign = request.match_info["campaign_id"]
        if campaign not in self.sent:
            return _missing()
        to, offset = self.sent[campaign], int(request.query.get("offset", "0"))
        page = [
            {"email_id": p.id, "email_address": p.keys["email"], "status": "sent", "campaign_id": campaign, "list_id": AUDIENCE}
            for p in to[offset : offset + int(request.query.get("count", "10"))]
        ]
        return web.json_response({"sent_to": page, "campaign_id": campaign, "total_items": len(to)})


def _hash(address: str) -> str:
    return hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _problem(status: int, title: str, detail: str, **more: Any) -> web.Response:
    body = {
        "type": "https://mailchimp.com/developer/marketing/docs/errors/",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "3b0f5a1e-4a2a-4d3e-9a55-2f0e7c1d9b6a",
        **more,
    }
    return web.json_response(body, status=status, content_type="application/problem+json")


def _missing() -> web.Response:
    return _problem(404, "Resource Not Found", "The requested resource could not be found.")


def _invalid(field: str, message: str) -> web.Response:
    detail = "The resource submitted could not be validated. For field-specific details, see the 'errors' array."
    return _problem(400, "Invalid Resource", detail, errors=[{"field": field, "message": message}])
