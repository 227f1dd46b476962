"""Mailchimp: a hold is the tag `support_hold` on a contact of one audience, with merge fields beside it for what a tag cannot say.

Calls are from the vendor's Marketing API reference 3.0 (https://mailchimp.com/developer/marketing/api/) and its published
specification (3.0.55 and 3.0.80 in the official client), which our tests drive our stand-in with. Checked there [V]: look-up by
the MD5 of the lower-cased address, `POST .../members/{hash}/tags` with `is_syncing` ("automations based on the tags in the request
will not fire") answering 204, `PATCH .../members/{hash}`, `PUT` with `status_if_new: transactional` (no consent), merge fields,
StaticSegment conditions (a tag is a static segment), `GET /campaigns`, `/reports/{id}/sent-to`, `actions/unschedule`.
Limits (https://mailchimp.com/developer/marketing/docs/fundamentals/) [S]: 10 connections at once, 429 "or 403 without a JSON body"
when exceeded, no rate headers. Nothing was tried on a live account. Not here, on purpose: a member's `status` is written on creation
alone, and then never as subscribed: unsubscribing is a compliance state that the API cannot undo.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import Field, SecretStr, model_validator

from connectors.mailchimp.api import MOST, TAG, Answered, Api
from connectors.mailchimp.campaigns import judged, planned, sent_since, told, unschedule
from connectors.shared.loopback import is_loopback_url
from hub.contract import Answers, Http, Pace, Refused, Request, Verdict
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, SendSeen, Step, ToolSettings, Wish

SEGMENT = "Not on support hold"
_UNTIL, _REASON, _VERSION = "support_hold_until", "support_hold_reason", "support_hold_version"
# What prepare() creates as merge fields, and their type. Text keeps an ISO time whole; Mailchimp's own `date` keeps the day only.
FIELDS: Mapping[str, str] = {
    _UNTIL: "text",
    _REASON: "text",
    _VERSION: "number",
    "support_status": "text",
    "support_resolved_at": "text",
    "support_open_tickets": "number",
    "support_satisfaction": "number",
    "support_optouts": "text",
}

_AT_ONCE = 4  # of the 10 connections that all of the account's integrations share
_DATA_CENTRE = re.compile(r"[a-z]{2,8}[0-9]{1,4}", re.ASCII)
_T = TypeVar("_T")


def field_tag(name: str) -> str:
    """The merge tag of an attribute: at most 10 upper-case characters, as Mailchimp allows. support_open_tickets -> SUPOPENTIC."""
    return "SUP" + name.removeprefix("support_").replace("_", "").upper()[:7]


def member_hash(address: str) -> str:
    """How Mailchimp names a contact: the MD5 of the lower-cased address."""
    return hashlib.md5(address.strip().lower().encode(), usedforsecurity=False).hexdigest()


class MailchimpSettings(ToolSettings):
    """An API key and the audience it is for. Several audiences are several destinations."""

    api_key: SecretStr
    audience: str = Field(pattern=r"^[A-Za-z0-9]{4,20}$")  # Audience > Settings > Audience name and defaults > Audience ID
    merge_fields: bool = True  # False: the tag alone; then neither time, reason nor version can be read back
    plan: Literal["free", "essentials", "standard", "premium"] = "standard"  # which decides when a segment's recipients are fixed
    webhook_secret: SecretStr = SecretStr("")  # `signing_secret`, shown once when the webhook is created

    @model_validator(mode="after")
    def _check_data_centre(self) -> MailchimpSettings:
        if not self.base_url and not _DATA_CENTRE.fullmatch(self.data_centre()):
            raise ValueError("api_key must end with a dash and its data centre, such as -us19, as Mailchimp shows it")
        return self

    def data_centre(self) -> str:
        return self.api_key.get_secret_value().rpartition("-")[2]


@dataclass(frozen=True, slots=True)
class _Member:
    """A contact as it stands."""

    profile: str
    held: bool
    fields: Mapping[str, str]  # attribute -> value, as far as merge fields keep it

    @property
    def version(self) -> int:
        """The version last written here, or -1 where none is known."""
        try:
            return int(float(self.fields.get(_VERSION, "")))
        except ValueError:
            return -1


class Mailchimp:
    """A destination that tags contacts of one Mailchimp audience."""

    Settings: ClassVar[type[ToolSettings]] = MailchimpSettings
    label: ClassVar[str] = "Mailchimp"
    kinds: ClassVar[tuple[str, ...]] = ("email",)
    proved: ClassVar[Proved] = Proved.SPECIFICATION
    lapse: ClassVar[str] = (
        "A tag has no expiry and Mailchimp compares no stored time with now: if the hub dies, a tag stays until the hub is back or "
        "somebody removes it. SUPHOLDUNT on the contact shows when it should have ended."
    )
    settles: ClassVar[float] = 5.0
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=5.0, burst=10)
    answers: ClassVar[Answers] = Answers()

    def __init__(self, settings: MailchimpSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        centre = settings.data_centre()
        base = settings.base_url or f"https://{centre}.api.mailchimp.com"
        self._api = Api(base, settings.audience, settings.api_key, name)
        self._admin = "" if settings.base_url else f"https://{centre}.admin.mailchimp.com"

    # --- holds ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Tag or untag each contact, its version written last, so that what broke off half way is done again."""
        groups: dict[str, Wish] = {}
        for wish in wishes:
            known = groups.get(member_hash(wish.value))
            if known is None or wish.version >= known.version:
                groups[member_hash(wish.value)] = wish
        done = await _in_turns([self._mark_one(key, wish, http) for key, wish in groups.items()])
        fates = dict(zip(groups, done, strict=True))
        if any(marked.fate is Fate.ABSENT for marked in done):
            await self._require_audience(http)
        return [fates[member_hash(wish.value)] for wish in wishes]

    async def _mark_one(self, key: str, wish: Wish, http: Http) -> Marked:
        member = await self._member(key, http)
        wanted = _fields(wish)
        if member is None:
            if not self._settings.create_profiles:
                return Marked(fate=Fate.ABSENT)
            # `transactional`: a contact that gets no marketing until it consents by itself.
            new = {"email_address": wish.value, "status_if_new": "transactional"}
            said = await self._change(http, "PUT", key, "?skip_merge_validation=true", new)
            if said.status != 200:
                return Marked(fate=Fate.REFUSED, error=said.refusal())
        elif member.version > wish.version or _stands(member, wish, wanted):
            return Marked(fate=Fate.ACCEPTED, profile=key)
        tags = {"tags": [{"name": TAG, "status": "active" if wish.held else "inactive"}], "is_syncing": True}
        said = await self._change(http, "POST", key, "/tags", tags)
        if said.status == 204 and self._settings.merge_fields:
            fields = {"merge_fields": {field_tag(name): value for name, value in wanted.items()}}
            said = await self._change(http, "PATCH", key, "?skip_merge_validation=true", fields)
        if said.status not in {200, 204}:
            return Marked(fate=Fate.REFUSED, profile=key, error=said.refusal())
        return Marked(fate=Fate.ACCEPTED, profile=key)

    async def _change(self, http: Http, method: str, key: str, rest: str, body: Mapping[str, Any]) -> Answered:
        return await self._api.call(http, method, f"{self._api.list}/members/{key}{rest}", body, refusable=True)

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """Look each contact up. Whether a segment shows the same cannot be asked for one contact."""
        keys = list(dict.fromkeys(member_hash(wish.value) for wish in wishes))
        members = dict(zip(keys, await _in_turns([self._member(key, http) for key in keys]), strict=True))
        if None in members.values():
            await self._require_audience(http)
        return [_read_back(members[member_hash(wish.value)]) for wish in wishes]

    async def _member(self, key: str, http: Http) -> _Member | None:
        """The contact, or None for one that is not there or archived (it gets no mail and takes no tag)."""
        wanted = urlencode({"fields": "id,status,merge_fields,tags,tags_count"})
        said = await self._api.call(http, "GET", f"{self._api.list}/members/{key}?{wanted}", missing=True)
        if said.status == 404 or said.json.get("status") == "archived":
            return None
        tags = said.json.get("tags", [])
        if said.json.get("tags_count", 0) > len(tags):
            tags = (await self._api.call(http, "GET", f"{self._api.list}/members/{key}/tags?count={MOST}")).json.get("tags", [])
        fields = said.json.get("merge_fields", {})
        return _Member(
            profile=key,
            held=any(tag.get("name") == TAG for tag in tags),
            fields={name: str(fields[field_tag(name)]) for name in FIELDS if field_tag(name) in fields},
        )

    async def _require_audience(self, http: Http) -> None:
        """An unknown audience answers the same 404 as an unknown contact. Raises Refused for it."""
        if (await self._api.call(http, "GET", f"{self._api.list}?fields=id", missing=True)).status == 404:
            raise Refused(f"Mailchimp knows no audience of this id; nobody was marked. Mend destinations.{self.name}.audience.")

    # --- setting it up ---

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Ask for the audience, the tag, the merge fields and the segment; change nothing."""
        return await self._check(http, create=False)

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Create what is missing: the tag, the merge fields (hidden from forms) and the saved segment `Not on support hold`."""
        return await self._check(http, create=True)

    async def _check(self, http: Http, create: bool) -> Sequence[Check]:
        try:
            audience = await self._api.call(http, "GET", f"{self._api.list}?fields=id,name", missing=True)
        except Refused as error:
            if create:
                raise
            return [Check(name="credentials", ok=False, text=str(error))]
        if audience.status == 404:
            text = f"Mailchimp knows no audience of this id. Mend destinations.{self.name}.audience."
            return [Check(name="audience", ok=False, text=text)]
        checks = [Check(name="credentials", ok=True, text=f"The API key reaches the audience {audience.json.get('name', '')}.")]
        tag = await self._api.find_tag(http)
        if tag is None and create:
            made = await self._api.call(http, "POST", f"{self._api.list}/segments", {"name": TAG, "static_segment": []})
            tag = int(made.json["id"])
        checks.append(_check("tag", tag is not None, f"the tag {TAG}"))
        if self._settings.merge_fields:
            missing = await self._missing_fields(http)
            for name in missing if create else ():
                body = {"tag": field_tag(name), "name": name.replace("_", " ").capitalize(), "type": FIELDS[name], "public": False}
                await self._api.call(http, "POST", f"{self._api.list}/merge-fields", body)
            named = ", ".join(field_tag(name) for name in FIELDS)
            checks.append(_check("merge fields", create or not missing, f"the merge fields {named}"))
        if tag is not None:
            found = await self._api.call(http, "GET", f"{self._api.list}/segments?type=saved&count={MOST}")
            there = any(segment.get("name") == SEGMENT for segment in found.json.get("segments", []))
            if not there and create:
                await self._api.call(
                    http,
                    "POST",
                    f"{self._api.list}/segments",
                    {"name": SEGMENT, "options": {"match": "all", "conditions": [_not_tagged(tag)]}},
                )
            checks.append(_check("segment", there or create, f"the saved segment {SEGMENT}"))
        return checks

    async def _missing_fields(self, http: Http) -> list[str]:
        found = await self._api.call(http, "GET", f"{self._api.list}/merge-fields?count={MOST}&fields=merge_fields.tag")
        there = {field.get("tag") for field in found.json.get("merge_fields", [])}
        return [name for name in FIELDS if field_tag(name) not in there]

    def steps(self) -> Sequence[Step]:
        """How a marketer leaves held contacts out."""
        return (
            Step(text=f"For a campaign to everybody, choose under To > Send to the saved segment “{SEGMENT}”.", paste=SEGMENT),
            Step(
                text="For a campaign to a segment of yours, edit that segment and add this condition; contacts must match all conditions.",
                paste=f"Tags | contact is not tagged | {TAG}",
            ),
            Step(
                text="In each customer journey, add an If/Else rule with the same condition before every email.",
                paste=f"Tags | contact is not tagged | {TAG}",
            ),
            Step(
                text="On a Standard or Premium plan a segment is a snapshot of the moment it was generated: generate it anew shortly "
                "before you schedule, and schedule late. The hub names the campaigns whose snapshot is older than a hold."
            ),
        )

    def is_sandbox(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return is_loopback_url(self._api.base)

    # --- campaigns and sends ---

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """Scheduled and sending campaigns of this audience."""
        return await planned(self._api, self._settings.plan, self._admin, http)

    async def revert(self, campaign_id: str, http: Http) -> str:
        """Unschedule a campaign."""
        return await unschedule(self._api, campaign_id, http)

    async def sends(self, since: float, http: Http, now: float) -> Sequence[SendSeen]:
        """Who got which campaign of this audience."""
        return await sent_since(self._api, since, http)

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge a webhook's signature."""
        return judged(self._settings.webhook_secret.get_secret_value(), request, now)

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """That a campaign went out or was cancelled; it names no recipient."""
        return told(request)


def _stands(member: _Member, wish: Wish, wanted: Mapping[str, str | int]) -> bool:
    """Whether nothing has to be written. The version among the fields must be there: without it, a look-up that lags would swallow
    a change."""
    kept = _VERSION in member.fields and all(_same(member.fields[name], str(wanted[name])) for name in wanted if name in member.fields)
    return kept and member.held == wish.held


def _same(one: str, other: str) -> bool:
    """Whether two values are the same; a number field may answer 3.0 for 3."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _fields(wish: Wish) -> dict[str, str | int]:
    """The attributes as merge fields take them; an empty text unsets. A trait without a field is left out: Mailchimp would drop it."""
    held = {_UNTIL: wish.until, _REASON: ", ".join(wish.reasons)} if wish.held else {_UNTIL: "", _REASON: ""}
    traits = {name: _plain(value) for name, value in wish.traits.items() if name in FIELDS}
    return {**traits, **held, _VERSION: wish.version}


def _plain(value: str | int | bool | None) -> str | int:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _read_back(member: _Member | None) -> ReadBack:
    if member is None:
        return ReadBack(present=False)
    return ReadBack(present=True, held=member.held, until=member.fields.get(_UNTIL, "") if member.held else "", profile=member.profile)


def _not_tagged(tag: int) -> dict[str, Any]:
    return {"condition_type": "StaticSegment", "field": "static_segment", "op": "static_not", "value": tag}


def _check(name: str, ok: bool, what: str) -> Check:
    return Check(name=name, ok=ok, text=f"Found {what}." if ok else f"Missing: {what}. Prepare creates it.")


async def _in_turns(tasks: Sequence[Awaitable[_T]]) -> list[_T]:
    """Await them a few at a time, in order. What one raises is raised once its turn has ended, and the rest is not begun."""
    done: list[_T] = []
    for start in range(0, len(tasks), _AT_ONCE):
        turn = await asyncio.gather(*tasks[start : start + _AT_ONCE], return_exceptions=True)
        for one in turn:
            if isinstance(one, BaseException):
                for rest in tasks[start + _AT_ONCE :]:
                    rest.close()  # type: ignore[attr-defined]
                raise one
            done.append(one)
    return done
