"""Klaviyo: a hold is a few properties of the profile and a segment made of them, which campaigns and flows leave out.

Every call is from the vendor's own specification (https://github.com/klaviyo/openapi, stable, revision 2026-07-15); pages of the help
centre are named where they matter. Consent, suppression and list membership are nowhere touched.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

from pydantic import SecretStr, field_validator

from connectors.klaviyo import hold_segment, planned, sent
from connectors.klaviyo.api import HOME, Api, Declined, Resource, any_of, quoted
from connectors.shared.loopback import is_loopback_url
from hub.contract import Answers, Http, Pace, Refused, Request, Verdict
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, SendSeen, Step, ToolSettings, Wish

# Our kind of identifier -> the profile attribute, which is also the field of the filter.
_FIELDS: Mapping[str, str] = {"email": "email", "phone": "phone_number", "external_id": "external_id"}
_AT_ONCE = 8  # calls side by side; 75 a second is the burst Klaviyo allows on profiles
_MOST_SENDS = 1_000


class KlaviyoSettings(ToolSettings):
    """One Klaviyo account. The key's scopes: profiles read and write, segments read and write, lists, campaigns, metrics and events
    read; campaigns write only for putting campaigns back to draft."""

    api_key: SecretStr
    hold_segment: str = ""  # id of the segment of held profiles; empty: it is found by its name
    hold_segment_name: str = "Support hold"
    # What the account's campaigns do (Settings > Messaging). Nothing in the API tells, so the default fears the worst.
    recipients_at: Literal["schedule", "send"] = "schedule"
    webhook_secret: SecretStr = SecretStr("")  # of the system webhook, 16 characters or more; empty: none is believed

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if not text or not text.isascii() or any(character.isspace() for character in text):
            raise ValueError("api_key must be a private API key (pk_...), from Settings > API keys in Klaviyo")
        return key

    @field_validator("webhook_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < 16:
            raise ValueError("webhook_secret must have 16 characters or more, as Klaviyo asks")
        return secret

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))):
            raise ValueError("base_url must be https:// (http only on this machine): the API key travels with every call")
        return url


class Klaviyo:
    """`marketing.MarketingTool` on one Klaviyo account; also watches campaigns, knows audiences, reverts, and reports what was sent.

    `pace` counts calls of `mark`, each of one customer: up to three look-ups and a write a profile, where Klaviyo allows an account
    750 of either a minute and 75 a second, shared with everybody else who reads its profiles.
    """

    Settings: ClassVar[type[ToolSettings]] = KlaviyoSettings
    label: ClassVar[str] = "Klaviyo"
    kinds: ClassVar[tuple[str, ...]] = tuple(_FIELDS)
    proved: ClassVar[Proved] = Proved.SPECIFICATION
    # https://help.klaviyo.com/hc/en-us/articles/115005233488, "Segments with relative time conditions".
    lapse: ClassVar[str] = (
        "A property that changes moves its profile at once; a lease that merely ran out frees it within 24 hours, "
        "because Klaviyo looks at relative dates once a day."
    )
    settles: ClassVar[float] = 10.0
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=5.0, burst=20)
    answers: ClassVar[Answers] = Answers()  # 200, 201 or 202 within 5 seconds; anything else is tried again for 48 hours

    def __init__(self, settings: KlaviyoSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._segment = settings.hold_segment
        self._campaign_of: dict[str, str] = {}  # campaign message -> campaign

    def is_sandbox(self) -> bool:
        """Whether the calls stay on this machine."""
        return is_loopback_url(self._settings.base_url)

    def _api(self, http: Http) -> Api:
        return Api(http, self._settings.base_url or HOME, self._settings.api_key, self.name)

    # --- profiles ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Look the profiles up (GET /api/profiles), then PATCH /api/profiles/{id} each that stands otherwise. A profile that bears a
        later version is left as it is. With `create_profiles` an unknown one is made by POST /api/profile-import."""
        api = self._api(http)
        found = await self._find(api, wishes)
        groups: dict[str, list[int]] = {}  # what is one profile, there or to be, is written once
        for index, (wish, profile) in enumerate(zip(wishes, found, strict=True)):
            if not isinstance(profile, Declined):
                groups.setdefault(str(profile["id"]) if profile else f"{wish.kind}:{_folded(wish)}", []).append(index)

        answers = [Marked(fate=Fate.REFUSED, error=str(one)) if isinstance(one, Declined) else Marked(fate=Fate.ABSENT) for one in found]

        async def settle(indexes: list[int]) -> None:
            wish = max((wishes[index] for index in indexes), key=lambda one: (one.version, one.held))
            marked = await self._bring(api, found[indexes[0]], wish)
            for index in indexes:
                answers[index] = marked

        await _side_by_side(list(groups.values()), settle)
        return answers

    async def _bring(self, api: Api, profile: Resource | Declined | None, wish: Wish) -> Marked:
        """Bring one profile to a wish."""
        said, unset = properties(wish)
        if profile is None:
            if not self._settings.create_profiles:
                return Marked(fate=Fate.ABSENT)
            attributes = {_FIELDS[wish.kind]: wish.value, "properties": said}
            return await self._written(api, "POST", "/api/profile-import", {"type": "profile", "attributes": attributes})
        assert not isinstance(profile, Declined)
        id, seen = str(profile["id"]), _properties_of(profile)
        version = seen.get("support_hold_version")
        if (isinstance(version, int) and version > wish.version) or stands(seen, said, unset):
            return Marked(fate=Fate.ACCEPTED, profile=id)
        data: dict[str, Any] = {"type": "profile", "id": id, "attributes": {"properties": said}}
        if unset:
            # Omitting a property leaves it, and `null` would keep its name with nothing in it.
            data["meta"] = {"patch_properties": {"unset": unset}}
        return await self._written(api, "PATCH", f"/api/profiles/{quote(id, safe='')}", data, id)

    async def _written(self, api: Api, method: str, path: str, data: Mapping[str, Any], id: str = "") -> Marked:
        try:
            answer = await api.call(method, path, body={"data": data})
        except Declined as error:
            if error.status == 404:
                return Marked(fate=Fate.REFUSED, profile=id, error="The profile was deleted or merged meanwhile; it is looked up anew.")
            return Marked(fate=Fate.REFUSED, profile=id, error=f"Klaviyo refuses this profile: {error}")
        return Marked(fate=Fate.ACCEPTED, profile=str((answer.get("data") or {}).get("id") or id))

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the profiles stand (GET /api/profiles), and whether the hold segment shows the same
        (GET /api/segments/{id}/relationships/profiles)."""
        api = self._api(http)
        found = await self._find(api, wishes)
        ids = sorted({str(profile["id"]) for profile in found if profile and not isinstance(profile, Declined)})
        members = await self._held_in_segment(api, ids) if ids else None
        return [ReadBack(present=False) if not one or isinstance(one, Declined) else _read_back(one, members, now) for one in found]

    async def _held_in_segment(self, api: Api, ids: Sequence[str]) -> frozenset[str] | None:
        """Which of these profiles the hold segment has now; None where there is no such segment or the key may not look."""
        try:
            segment = await self._segment_id(api)
            if not segment:
                return None
            path = f"/api/segments/{quote(segment, safe='')}/relationships/profiles"
            found = [await api.pages(path, {"filter": chosen, "page[size]": "100"}) for chosen in any_of("profile_id", ids)]
        except (Refused, Declined):
            self._segment = self._settings.hold_segment  # it may have been deleted: look for it by name the next time
            return None
        return frozenset(str(member.get("id")) for members, _ in found for member in members)

    async def _find(self, api: Api, wishes: Sequence[Wish]) -> list[Resource | Declined | None]:
        """The profile of each wish as it stands there, None for one it does not know, Declined for one it will not look up.

        By the identifier and never by a remembered id: profiles are merged and deleted there.
        """
        known: dict[tuple[str, str], Resource | Declined] = {}
        for kind, field in _FIELDS.items():
            values = {wish.value: None for wish in wishes if wish.kind == kind}
            if kind == "email":  # Klaviyo keeps addresses in lower case
                values |= {value.lower(): None for value in values}
            for chosen in any_of(field, values):
                try:
                    profiles = await self._profiles(api, chosen)
                except Declined:
                    profiles = await self._one_by_one(api, kind, [value for value in values if quoted(value) in chosen], known)
                known |= {(kind, _fold(kind, str(one["attributes"].get(field) or ""))): one for one in profiles}
        return [known.get((wish.kind, _folded(wish))) for wish in wishes]

    async def _one_by_one(
        self, api: Api, kind: str, values: Sequence[str], known: dict[tuple[str, str], Resource | Declined]
    ) -> list[Resource]:
        """Where a filter is declined for the sake of one value, each alone, so that the others are found."""
        found: list[Resource] = []
        for value in values:
            try:
                found += await self._profiles(api, f"equals({_FIELDS[kind]},{quoted(value)})")
            except Declined as error:
                known[kind, _fold(kind, value)] = Declined(error.status, f"Klaviyo does not look up this {kind}")
        return found

    async def _profiles(self, api: Api, chosen: str) -> list[Resource]:
        params = {"filter": chosen, "fields[profile]": ",".join([*_FIELDS.values(), "properties"]), "page[size]": "100"}
        return (await api.pages("/api/profiles", params))[0]

    # --- the segment ---

    async def _segment_id(self, api: Api) -> str:
        """The hold segment's id, by its name if need be; empty where there is none."""
        if not self._segment:
            try:
                found = await self._segment_named(api)
            except Declined:
                found = None
            self._segment = str(found["id"]) if found else ""
        return self._segment

    async def _segment_named(self, api: Api) -> Resource | None:
        if self._settings.hold_segment:
            try:
                found: Resource = (await api.call("GET", f"/api/segments/{quote(self._settings.hold_segment, safe='')}"))["data"]
            except Declined:
                return None
            return found
        named, _ = await api.pages("/api/segments", {"filter": f"equals(name,{quoted(self._settings.hold_segment_name)})"})
        return named[0] if named else None

    def _judged(self, segment: Resource | None) -> Check:
        return hold_segment.judged(segment, self._settings.hold_segment or self._settings.hold_segment_name)

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Find the hold segment, or create it (POST /api/segments)."""
        api = self._api(http)
        try:
            segment = await self._segment_named(api)
            if segment is None and not self._settings.hold_segment:
                attributes = {"name": self._settings.hold_segment_name, "definition": hold_segment.DEFINITION}
                body = {"data": {"type": "segment", "attributes": attributes}}
                segment = (await api.call("POST", "/api/segments", body=body)).get("data")
        except Declined as error:
            raise Refused(f"Klaviyo does not create the segment: {error}. Create it by hand as the steps say.") from error
        self._segment = str(segment["id"]) if segment else self._segment
        return [self._judged(segment)]

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Whether the key is accepted and may read what each part needs. Changes nothing."""
        api = self._api(http)

        async def key() -> str:
            await api.call("GET", "/api/profiles", {"page[size]": "1", "fields[profile]": "email"})
            return "Klaviyo accepts the key and lets it read profiles; whether it may write shows in the round trip."

        async def watch() -> str:
            await api.call("GET", "/api/campaigns", {"filter": "equals(messages.channel,'email')", "page[size]": "1"})
            return "The key may read campaigns."

        async def leaks() -> str:
            found = ", ".join(await self._metrics(api))
            return (
                f"The key may read what was sent: {found}."
                if found
                else "The key may read metrics; nothing was sent from this account yet."
            )

        async def segment() -> Check:
            return self._judged(await self._segment_named(api))

        checks = [await _check("API key", key)]
        if checks[0].ok:
            checks += [await _check("Hold segment", segment), await _check("Campaign watch", watch), await _check("Leak watch", leaks)]
        return checks

    def steps(self) -> Sequence[Step]:
        """See `hold_segment.steps`."""
        return hold_segment.steps(self._settings.hold_segment_name, self.name)

    # --- campaigns ---

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """GET /api/campaigns for each channel; the filter joins operators the specification names one by one."""
        api = self._api(http)
        segment = await self._segment_id(api)
        statuses = ",".join(quoted(status) for status in planned.STATUSES)
        found = []
        for word, channel in planned.CHANNELS.items():
            chosen = f"and(equals(messages.channel,'{word}'),any(status,[{statuses}]))"
            try:
                resources, _ = await api.pages("/api/campaigns", {"filter": chosen, "sort": "scheduled_at", "page[size]": "100"})
            except Declined as error:
                if channel != "email":
                    continue  # an account without this channel
                raise Refused(f"Klaviyo does not list its campaigns: {error}.") from error
            at_send = self._settings.recipients_at == "send"
            found += [
                planned.campaign(one, channel, segment, self._settings.hold_segment_name, at_send)
                for one in resources
                if not (one.get("attributes") or {}).get("archived")
            ]
        return sorted(found, key=lambda one: (one.send_at or 0.0, one.id))

    async def audiences(self, profile: str, http: Http) -> frozenset[str]:
        """GET /api/profiles/{id}/relationships/segments and .../lists: 3 a second and 60 a minute are allowed. None of a profile that
        is gone."""
        api = self._api(http)
        found: set[str] = set()
        for what in ("segments", "lists"):
            try:
                answer = await api.call("GET", f"/api/profiles/{quote(profile, safe='')}/relationships/{what}")
            except Declined as error:
                if error.status == 404:
                    return frozenset()
                raise Refused(f"Klaviyo does not tell the {what} of a profile: {error}.") from error
            found |= {str(one["id"]) for one in answer.get("data") or ()}
        return frozenset(found)

    async def revert(self, campaign_id: str, http: Http) -> str:
        """PATCH /api/campaign-send-jobs/{id}, action `revert`."""
        data = {"type": "campaign-send-job", "id": campaign_id, "attributes": {"action": "revert"}}
        try:
            await self._api(http).call("PATCH", f"/api/campaign-send-jobs/{quote(campaign_id, safe='')}", body={"data": data})
        except Declined as error:
            if error.status == 404:
                raise Refused(
                    "Klaviyo has no such campaign under way: it went out, or was put back already. Nothing was changed."
                ) from error
            raise Refused(f"Klaviyo does not put the campaign back to draft: {error}. Nothing was changed.") from error
        return "Klaviyo put the campaign back to draft. It goes to nobody until somebody schedules it again."

    # --- what was sent ---

    async def sends(self, since: float, http: Http, now: float) -> Sequence[SendSeen]:
        """GET /api/events of each metric that means a message reached somebody, 200 a page, the oldest first."""
        api = self._api(http)
        start = datetime.fromtimestamp(int(since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        streams = []
        for name, metric in (await self._metrics(api)).items():
            params = {
                "filter": f"and(equals(metric_id,{quoted(metric)}),greater-or-equal(datetime,{start}))",
                "sort": "datetime",
                "include": "profile",
                "fields[event]": "datetime,event_properties,timestamp",
                "fields[profile]": ",".join(_FIELDS.values()),
                "page[size]": "200",
            }
            events, included = await api.pages("/api/events", params, at_most=_MOST_SENDS)
            await self._learn_campaigns(api, {sent.message_of(event) for event in events})
            profiles = sent.included_profiles(included)
            seen = (sent.send(event, sent.METRICS[name], profiles, self._campaign_of) for event in events)
            streams.append(sorted((one for one in seen if one), key=_when))
        return list(heapq.merge(*streams, key=_when))[:_MOST_SENDS]

    async def _metrics(self, api: Api) -> dict[str, str]:
        """Klaviyo's own metrics of messages that reached somebody: name -> id. One never used does not exist."""
        try:
            found, _ = await api.pages("/api/metrics", {"filter": "equals(integration.name,'Klaviyo')"})
        except Declined as error:
            raise Refused(f"Klaviyo does not list its metrics: {error}.") from error
        named = {str((one.get("attributes") or {}).get("name")): str(one["id"]) for one in found}
        return {name: named[name] for name in sent.METRICS if name in named}

    async def _learn_campaigns(self, api: Api, messages: set[str]) -> None:
        """Which campaign each message belongs to: events name the message alone
        (GET /api/campaign-messages/{id}/relationships/campaign)."""
        if len(self._campaign_of) > 10_000:
            self._campaign_of.clear()
        for message in sorted(messages - self._campaign_of.keys() - {""}):
            try:
                answer = await api.call("GET", f"/api/campaign-messages/{quote(message, safe='')}/relationships/campaign")
            except (Declined, Refused):
                self._campaign_of[message] = ""  # deleted since, or of a flow: the send is told all the same
                continue
            self._campaign_of[message] = str((answer.get("data") or {}).get("id") or "")

    def verify(self, request: Request, now: float) -> Verdict:
        """See `sent.verdict`."""
        return sent.verdict(request, self._settings.webhook_secret.get_secret_value(), now)

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """See `sent.told`."""
        return sent.told(request)


def properties(wish: Wish) -> tuple[dict[str, str | int | bool], list[str]]:
    """What a wish sets, and the names of what it unsets."""
    said = {
        **wish.traits,
        "support_hold": wish.held,
        "support_hold_until": (wish.until or None) if wish.held else None,
        "support_hold_reason": (", ".join(wish.reasons) or None) if wish.held else None,
        "support_hold_version": wish.version,
    }
    return {name: value for name, value in said.items() if value is not None}, [name for name, value in said.items() if value is None]


def stands(seen: Mapping[str, Any], said: Mapping[str, Any], unset: Sequence[str]) -> bool:
    """Whether a profile already stands as said, version and all."""
    same = all(type(seen.get(name)) is type(value) and seen[name] == value for name, value in said.items())
    return same and all(seen.get(name) is None for name in unset)


def _read_back(profile: Resource, members: frozenset[str] | None, now: float) -> ReadBack:
    id, seen = str(profile["id"]), _properties_of(profile)
    held, until = seen.get("support_hold") is True, str(seen.get("support_hold_until") or "")
    runs = held and (planned.unix(until) or 0.0) > now
    return ReadBack(present=True, held=held, until=until, profile=id, effective=None if members is None else (id in members) is runs)


def _properties_of(profile: Resource) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (profile.get("attributes") or {}).get("properties") or {}
    return found


def _folded(wish: Wish) -> str:
    return _fold(wish.kind, wish.value)


def _fold(kind: str, value: str) -> str:
    return value.lower() if kind == "email" else value


def _when(seen: SendSeen) -> tuple[float, str]:
    return seen.at, seen.provider_key


async def _check(name: str, ask: Callable[[], Awaitable[str | Check]]) -> Check:
    try:
        said = await ask()
    except (Refused, Declined) as error:
        return Check(name=name, ok=False, text=str(error))
    return said if isinstance(said, Check) else Check(name=name, ok=True, text=said)


async def _side_by_side(groups: list[list[int]], settle: Callable[[list[int]], Awaitable[None]]) -> None:
    """Settle each group, a few at a time. After a failure none is begun any more; those under way end before it is raised."""
    waiting = deque(groups)

    async def work() -> None:
        while waiting:
            try:
                await settle(waiting.popleft())
            except BaseException:
                waiting.clear()
                raise

    for outcome in await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, len(groups)))), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
