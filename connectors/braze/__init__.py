"""Braze: a hold is a few custom attributes of the profile, which campaigns and Canvases leave out; and a gate asked as each goes out.

Calls are from the vendor's pages [V] (https://github.com/braze-inc/braze-docs): `POST /users/export/ids` (up to 50 external ids a call,
one address, one phone number; 250 calls a minute for workspaces made since 2024-08-22, 2,500 before), `POST /users/track`
(`_update_existing_only` makes no profile; `null` removes an attribute; each attribute written may be a data point; errors of single
objects stand in a success), `GET /messages/scheduled_broadcasts`, `/campaigns/details`, `/canvas/details`. There is no machine-readable
specification: the vendor's Postman collection holds examples. Nothing here was tried on a live workspace.

Not here, on purpose: subscription states and groups. They are consent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from connectors.braze import by_hand, currents, planned
from connectors.braze.api import INSTANCES, Api, Declined, Resource, item_errors
from connectors.shared.loopback import is_loopback_url
from hub.contract import Answers, Http, Pace, Refused, Request, Verdict
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, SendSeen, Step, ToolSettings, Trait, Wish

_AT_ONCE = 4  # look-ups side by side
_IDS_A_CALL = 50  # /users/export/ids
_OBJECTS_A_CALL = 50  # /users/track: 50 on plans by monthly active users, 75 on others
_FIELDS = ("braze_id", "external_id", "email", "phone", "custom_attributes")
# Whom nobody is: looking it up and updating it "if it exists" shows what the key may do and changes nothing.
_NOBODY = "support-hub-connection-test-d2f1c6"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}={0,2}", re.ASCII)  # RFC 6750
_T = TypeVar("_T")


class BrazeSettings(ToolSettings):
    """One workspace. The key's permissions: users.track, users.export.ids; for watching campaigns messages.schedule_broadcasts,
    campaigns.details and canvas.details. `max_per_second` may be raised for workspaces older than 2024-08-22."""

    api_key: SecretStr
    instance: str = "US-01"  # as in the dashboard's address: dashboard-02.braze.eu is EU-02
    webhook_secret: SecretStr = SecretStr("")  # the bearer token of the Currents export to us; empty: none is believed
    watch_days: int = Field(default=14, ge=1, le=90)  # how far ahead campaigns are looked at
    excluded_tag: str = "support-hold"  # campaigns with this tag leave held customers out, by your word; empty: no tag says so

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if not text or not text.isascii() or any(character.isspace() for character in text):
            raise ValueError("api_key must be a REST API key, from Settings > APIs and Identifiers in Braze")
        return key

    @field_validator("instance")
    @classmethod
    def _check_instance(cls, instance: str) -> str:
        if instance.upper() not in INSTANCES:
            raise ValueError(f"instance must be one of {', '.join(INSTANCES)}; for another give base_url, the REST endpoint")
        return instance.upper()

    @field_validator("webhook_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text and not _TOKEN.fullmatch(text):
            raise ValueError("webhook_secret must be 16 characters or more out of A-Z a-z 0-9 . _ ~ + / - and = at its end")
        return secret

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))):
            raise ValueError("base_url must be https:// (http only on this machine): the API key travels with every call")
        return url


class Braze:
    """`marketing.MarketingTool` on one Braze workspace; also watches campaigns and hears what was sent and aborted.

    `pace` counts calls of `mark`, each of one customer: two or three look-ups, and as many to read it back, of 250 a minute.
    """

    Settings: ClassVar[type[ToolSettings]] = BrazeSettings
    label: ClassVar[str] = "Braze"
    kinds: ClassVar[tuple[str, ...]] = ("external_id", "email", "phone")
    proved: ClassVar[Proved] = Proved.DOCUMENTATION
    # https://www.braze.com/docs/user_guide/data/activation/custom_data/data_types/ [V]: "Less than X days in the future: includes
    # dates between the current date/time and X days in the future."
    lapse: ClassVar[str] = (
        "A filter on support_hold_until compares with the present moment, so a lease that ran out frees its profile at the next send; "
        "a filter on support_hold alone frees it when the hub next reaches Braze."
    )
    settles: ClassVar[float] = 5.0  # "10-100 ms" as a rule; they advise five minutes for the worst case [V]
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=0.8, burst=20)
    # A 401 stops the export for good and drops the events; 5xx is tried again for days.
    answers: ClassVar[Answers] = Answers(bad_signature_until_verified=503)

    def __init__(self, settings: BrazeSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._home = settings.base_url or INSTANCES[settings.instance]

    def is_sandbox(self) -> bool:
        """Whether the calls stay on this machine."""
        return is_loopback_url(self._home)

    def _api(self, http: Http, now: float) -> Api:
        return Api(http, self._home, self._settings.api_key, self.name, now)

    # --- profiles ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Look the profiles up, then write what differs by braze_id, up to 50 profiles a call.

        All profiles that share an address or a number are written: a write by the address itself would reach one of them. With
        `create_profiles` an unknown external id becomes a profile; an unknown address does not, for Braze subscribes it.
        """
        api = self._api(http, now)
        found = await self._find(api, wishes)
        targets: dict[str, tuple[Resource | None, Wish]] = {}  # one to be written -> (how it stands, what is wished of it)
        keys: list[list[str]] = []  # of each wish, whom it is about
        for wish, profiles in zip(wishes, found, strict=True):
            own: list[str] = []
            if not isinstance(profiles, Declined):
                unknown = not profiles and self._settings.create_profiles and wish.kind == "external_id"
                for key, profile in [(f"new {wish.value}", None)] if unknown else [(str(one["braze_id"]), one) for one in profiles]:
                    own.append(key)
                    if key not in targets or (wish.version, wish.held) > (targets[key][1].version, targets[key][1].held):
                        targets[key] = (profile, wish)
            keys.append(own)
        refused = await self._write(api, targets)
        return [self._marked(*one, refused) for one in zip(wishes, found, keys, strict=True)]

    def _marked(self, wish: Wish, found: Sequence[Resource] | Declined, keys: Sequence[str], refused: Mapping[str, str]) -> Marked:
        if isinstance(found, Declined):
            return Marked(fate=Fate.REFUSED, error=f"Braze does not look this up: {found}")
        if not keys:
            hint = (
                "Braze would subscribe an address it does not know yet: create the profile there." if self._settings.create_profiles else ""
            )
            return Marked(fate=Fate.ABSENT, error=hint)
        profile = keys[0] if found else ""
        if errors := sorted({refused[key] for key in keys if key in refused}):
            return Marked(fate=Fate.REFUSED, profile=profile, error=f"Braze refuses this profile: {'; '.join(errors)}")
        return Marked(fate=Fate.ACCEPTED, profile=profile)

    async def _write(self, api: Api, targets: Mapping[str, tuple[Resource | None, Wish]]) -> dict[str, str]:
        """Write what differs; whom Braze refused, and why."""
        objects: dict[str, dict[str, Any]] = {}
        for key, (profile, wish) in targets.items():
            if profile is None:
                said = {name: value for name, value in hold(wish).items() if value is not None}
                traits = {name: value for name, value in wish.traits.items() if value is not None}
                objects[key] = {"external_id": wish.value, "_update_existing_only": False, **traits, **said}
            elif changes := differences(_attributes(profile), wish):
                objects[key] = {"braze_id": key, "_update_existing_only": True, **changes}
        names = list(objects)
        refused: dict[str, str] = {}
        for start in range(0, len(names), _OBJECTS_A_CALL):
            refused |= await self._track(api, {name: objects[name] for name in names[start : start + _OBJECTS_A_CALL]})
        return refused

    async def _track(self, api: Api, objects: Mapping[str, Resource]) -> dict[str, str]:
        """One call of /users/track; whom of these Braze refused. Where it does not say whom, each is written alone."""
        names = list(objects)
        try:
            errors = item_errors(await api.post("/users/track", {"attributes": list(objects.values())}))
        except Declined as declined:
            if len(names) == 1:
                return {names[0]: str(declined)}
            # Nothing of it was taken. Where all were named there is nothing more to ask.
            errors = dict(declined.items) if len(declined.items) == len(names) else {-1: str(declined)}
        if all(0 <= index < len(names) for index in errors):
            return {names[index]: why for index, why in errors.items()}
        if len(names) == 1:
            return {names[0]: next(iter(errors.values()))}
        return {key: why for name in names for key, why in (await self._track(api, {name: objects[name]})).items()}

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the profiles stand (/users/export/ids). One that is wished held is so when all who share the identifier are. Braze does
        not tell at once whom a segment has: `effective` is unknown."""
        found = await self._find(self._api(http, now), wishes)
        return [_read_back(wish, () if isinstance(one, Declined) else one) for wish, one in zip(wishes, found, strict=True)]

    async def _find(self, api: Api, wishes: Sequence[Wish]) -> list[Sequence[Resource] | Declined]:
        """The profiles of each wish as they stand there; none for one it does not know, Declined for one it will not look up."""
        ids = list(dict.fromkeys(wish.value for wish in wishes if wish.kind == "external_id"))
        questions = [("external_id", tuple(ids[start : start + _IDS_A_CALL])) for start in range(0, len(ids), _IDS_A_CALL)]
        others = dict.fromkeys((wish.kind, wish.value) for wish in wishes if wish.kind != "external_id")
        questions += [(kind, (value,)) for kind, value in others]
        known: dict[tuple[str, str], Sequence[Resource] | Declined] = {}
        for start in range(0, len(questions), _AT_ONCE):
            for some in await _all([self._ask(api, kind, values) for kind, values in questions[start : start + _AT_ONCE]]):
                known |= some
        return [known.get((wish.kind, wish.value), ()) for wish in wishes]

    async def _ask(self, api: Api, kind: str, values: Sequence[str]) -> dict[tuple[str, str], Sequence[Resource] | Declined]:
        name = {"email": "email_address", "phone": "phone", "external_id": "external_ids"}[kind]
        asked = list(values) if kind == "external_id" else values[0]
        try:
            answer = await api.post("/users/export/ids", {name: asked, "fields_to_export": list(_FIELDS)})
        except Declined as error:
            if len(values) == 1:
                return {(kind, values[0]): error}
            return {key: one for value in values for key, one in (await self._ask(api, kind, (value,))).items()}
        users = sorted((user for user in answer.get("users") or () if user.get("braze_id")), key=lambda user: str(user["braze_id"]))
        if kind == "phone":  # kept in whatever form it came
            return {(kind, values[0]): users}
        if kind == "email":
            return {(kind, values[0]): [user for user in users if str(user.get("email") or values[0]).lower() == values[0].lower()]}
        return {(kind, value): [user for user in users if user.get("external_id") == value] for value in values}

    # --- setting up ---

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Look up nobody, update nobody, and list what is scheduled: what the key may do."""
        api = self._api(http, now)

        async def look_up() -> str:
            await api.post("/users/export/ids", {"external_ids": [_NOBODY], "fields_to_export": ["braze_id"]})
            return "The key looks profiles up (users.export.ids)."

        async def write() -> str:
            await api.post("/users/track", {"attributes": [{"external_id": _NOBODY, "_update_existing_only": True, "support_hold": False}]})
            return "The key updates profiles (users.track). Tried on nobody, so nothing was changed."

        async def watch() -> str:
            coming = len(await self._scheduled(api, now))
            return f"The key lists what is scheduled (messages.schedule_broadcasts): {coming} in the next {self._settings.watch_days} days."

        return [await _check("look-up", look_up), await _check("writing", write), await _check("campaigns", watch)]

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Nothing can be made by API: attributes come into being as they are first written, segments by hand."""
        dashboard = "Braze makes the attributes with the first hold. The segment can only be made in the dashboard: see the steps."
        return [*await self.test(http, now), Check(name="segment", ok=True, text=dashboard)]

    def steps(self) -> Sequence[Step]:
        """See `by_hand.steps`."""
        return by_hand.steps(self.name, self._settings.excluded_tag)

    # --- campaigns, and what was sent ---

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """What is scheduled in the dashboard for the next `watch_days`. What events or the API trigger is not listed there."""
        api = self._api(http, now)
        try:
            coming = await self._scheduled(api, now)
        except Declined as error:
            raise Refused(f"Braze does not list what is scheduled: {error}.") from error
        found = [planned.campaign(one, await self._details(api, one), now, self._settings.excluded_tag) for one in coming]
        return sorted(found, key=lambda one: (one.send_at or 0.0, one.id))

    async def _scheduled(self, api: Api, now: float) -> list[Resource]:
        until = datetime.fromtimestamp(now, UTC) + timedelta(days=self._settings.watch_days + 1)  # Braze takes it as midnight
        answer = await api.get("/messages/scheduled_broadcasts", {"end_time": f"{until:%Y-%m-%dT00:00:00Z}"})
        return [one for one in answer.get("scheduled_broadcasts") or () if one.get("id")]

    async def _details(self, api: Api, broadcast: Resource) -> Resource:
        """What is known of its messages; nothing where the key may not read that."""
        canvas = str(broadcast.get("type", "")).lower() == "canvas"
        path, name = ("/canvas/details", "canvas_id") if canvas else ("/campaigns/details", "campaign_id")
        try:
            return await api.get(path, {name: str(broadcast["id"])})
        except (Declined, Refused):
            return {}

    def verify(self, request: Request, now: float) -> Verdict:
        """See `currents.verdict`."""
        return currents.verdict(request, self._settings.webhook_secret.get_secret_value())

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """See `currents.told`."""
        return currents.told(request)


def hold(wish: Wish) -> dict[str, Trait]:
    """The attributes that are the hold itself; None: to be removed."""
    return {
        "support_hold": wish.held,
        "support_hold_until": (wish.until or None) if wish.held else None,
        "support_hold_reason": (", ".join(wish.reasons) or None) if wish.held else None,
        "support_hold_version": wish.version,
    }


def differences(seen: Mapping[str, Any], wish: Wish) -> dict[str, Trait]:
    """What to write so that a profile stands as wished; None removes, nothing at all where it does or where it bears a later version.

    Each attribute written may cost a data point, so traits are written where they differ. The hold's own four go together: what was
    looked up may be older than our last write, and half a hold is worse than three data points.
    """
    version = seen.get("support_hold_version")
    if isinstance(version, int | float) and version > wish.version:
        return {}
    wanted = hold(wish)
    changed: dict[str, Trait] = {} if all(same(seen.get(name), value) for name, value in wanted.items()) else wanted
    return changed | {name: value for name, value in wish.traits.items() if not same(seen.get(name), value)}


def same(seen: Any, wanted: Trait) -> bool:
    """Whether an attribute shows what is wanted; Braze tells times in a spelling of its own."""
    if isinstance(wanted, bool) or isinstance(seen, bool) or wanted is None or seen is None:
        return seen is wanted
    return bool(seen == wanted) or (_instant(wanted) is not None and _instant(seen) == _instant(wanted))


def _instant(text: Any) -> float | None:
    if not isinstance(text, str) or "-" not in text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _read_back(wish: Wish, profiles: Sequence[Resource]) -> ReadBack:
    if not profiles:
        return ReadBack(present=False)
    states = [_attributes(profile) for profile in profiles]
    held = [state.get("support_hold") is True for state in states]
    untils = sorted((str(state.get("support_hold_until") or "") for state in states), key=lambda text: _instant(text) or 0.0)
    stands = all(held) if wish.held else any(held)
    return ReadBack(present=True, held=stands, until=untils[0] if wish.held else untils[-1], profile=str(profiles[0]["braze_id"]))


def _attributes(profile: Resource) -> Mapping[str, Any]:
    found = profile.get("custom_attributes")
    return found if isinstance(found, dict) else {}


async def _check(name: str, ask: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name=name, ok=True, text=await ask())
    except (Refused, Declined) as error:
        return Check(name=name, ok=False, text=str(error))


async def _all(asking: Sequence[Awaitable[_T]]) -> list[_T]:
    """All at once; those under way end before a failure is raised."""
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
