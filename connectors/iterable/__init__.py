"""Iterable: a hold is a few fields of the user profile and a dynamic list made of them, which campaigns suppress; and a gate asked by
data feed as each message goes out.

Every call is of the vendor's own specification (see `api`) [V]: `GET /api/users/getByEmail` and `/byUserId` (100 a second a project),
`POST /api/users/update` (500 a second; "merged: missing fields are not deleted"; it makes a user where there is none, so each is looked
up first) or `/api/users/bulkUpdate` (5 a second, failures listed in a success), `GET /api/users/getFields`, `/api/lists`,
`/api/campaigns`, `/api/templates/email/get`. Reading shows a write late: "a buffer of at least 60 seconds" is advised.

Not here, on purpose: subscriptions and lists of users (they are consent), forgetting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from connectors.iterable import by_hand, planned, sent
from connectors.iterable.api import HOSTS, Api, Declined, Resource, iso, to_date, unix
from connectors.shared.loopback import is_loopback_url
from hub.contract import Answers, Http, Pace, Refused, Request, Verdict
from hub.marketing import Campaign, Check, Fate, Marked, Proved, ReadBack, SendSeen, Step, ToolSettings, Trait, Wish

HOLD, UNTIL, REASON, VERSION = "supportHold", "supportHoldUntil", "supportHoldReason", "supportHoldVersion"
# The type each must have for the filter to work; Iterable gives a field the type of its first value, for ever.
TYPES: Mapping[str, str] = {HOLD: "boolean", UNTIL: "date", REASON: "string", VERSION: "long"}

_AT_ONCE = 8
_A_BULK = 50
_PAGE = 1_000
_MOST_PAGES = 20
_K = TypeVar("_K")
_T = TypeVar("_T")


class IterableSettings(ToolSettings):
    """One project, by a server-side API key."""

    api_key: SecretStr
    data_center: Literal["us", "eu"] = "us"
    # `bulk` writes up to 50 users a call, 5 calls a second. One project must not mix the two for the same users: "results may be
    # inconsistent" (the specification of bulkUpdate).
    updates: Literal["single", "bulk"] = "single"
    hold_list: int = Field(default=0, ge=0)  # id of the dynamic list of held users; 0: it is found by its name
    hold_list_name: str = "Support hold"
    gate_feed: int = Field(default=0, ge=0)  # id of the data feed that asks the hub; 0: there is none
    webhook_secret: SecretStr = SecretStr("")  # the auth token of the system webhook; empty: none is believed

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if not text or not text.isascii() or any(character.isspace() for character in text):
            raise ValueError("api_key must be a server-side API key, from Integrations > API Keys in Iterable")
        return key

    @field_validator("webhook_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text and (len(text) < 16 or not text.isascii() or any(character.isspace() for character in text)):
            raise ValueError("webhook_secret must be 16 characters or more without spaces: it is all that tells a webhook from a forgery")
        return secret

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))):
            raise ValueError("base_url must be https:// (http only on this machine): the API key travels with every call")
        return url


class Iterable:
    """`marketing.MarketingTool` on one Iterable project; also watches campaigns and hears what was sent and skipped.

    It knows nobody by phone number: that is a field like any other. `pace` counts calls of `mark`, each of one customer.
    """

    Settings: ClassVar[type[ToolSettings]] = IterableSettings
    label: ClassVar[str] = "Iterable"
    kinds: ClassVar[tuple[str, ...]] = ("email", "external_id")
    proved: ClassVar[Proved] = Proved.SPECIFICATION
    lapse: ClassVar[str] = (
        "The dynamic list compares supportHoldUntil with the current minute as a campaign is sent, so a lease that ran out frees its "
        "profile within a minute."
    )
    settles: ClassVar[float] = 60.0
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=15.0, burst=30)  # two look-ups and as many to read back, of 100 a second
    answers: ClassVar[Answers] = Answers()

    def __init__(self, settings: IterableSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._home = settings.base_url or HOSTS[settings.data_center]

    def is_sandbox(self) -> bool:
        """Whether the calls stay on this machine."""
        return is_loopback_url(self._home)

    def _api(self, http: Http) -> Api:
        return Api(http, self._home, self._settings.api_key, self.name)

    # --- profiles ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Look the users up, then update each that stands otherwise. With `create_profiles` an unknown one is made; it is on no list and
        subscribed to nothing by us."""
        api = self._api(http)
        found = await self._find(api, wishes)
        groups: dict[tuple[str, str], list[int]] = {}  # what is one user, there or to be, is written once
        for index, (wish, user) in enumerate(zip(wishes, found, strict=True)):
            if isinstance(user, Declined) or (user is None and not self._settings.create_profiles):
                continue
            groups.setdefault(_key(user) if user is not None else ("new " + wish.kind, _folded(wish)), []).append(index)

        answers = [
            Marked(fate=Fate.REFUSED, error=f"Iterable does not look this up: {one}") if isinstance(one, Declined) else _ABSENT
            for one in found
        ]
        bodies: dict[tuple[str, str], dict[str, Any]] = {}
        for key, indexes in groups.items():
            wish = max((wishes[index] for index in indexes), key=lambda one: (one.version, one.held))
            user = found[indexes[0]]
            assert not isinstance(user, Declined)
            if body := _body(wishes[indexes[0]], user, wish):
                bodies[key] = body
        refused = await (self._bulk if self._settings.updates == "bulk" else self._single)(api, bodies)
        for key, indexes in groups.items():
            user = found[indexes[0]]
            profile = _name(user) if user is not None and not isinstance(user, Declined) else wishes[indexes[0]].value
            why = refused.get(key)
            for index in indexes:
                answers[index] = (
                    Marked(fate=Fate.ACCEPTED, profile=profile) if why is None else Marked(fate=Fate.REFUSED, profile=profile, error=why)
                )
        return answers

    async def _single(self, api: Api, bodies: Mapping[tuple[str, str], Resource]) -> dict[tuple[str, str], str]:
        """One call a user; whom Iterable refused, and why."""

        async def write(key: tuple[str, str]) -> tuple[tuple[str, str], str] | None:
            try:
                await api.post("/api/users/update", {**bodies[key], "createNewFields": True})
            except Declined as error:
                return key, f"Iterable refuses this user: {error}"
            return None

        return dict(one for one in await _each(write, list(bodies)) if one)

    async def _bulk(self, api: Api, bodies: Mapping[tuple[str, str], Resource]) -> dict[tuple[str, str], str]:
        """Fifty users a call; whom Iterable refused inside its success, and why."""
        refused: dict[tuple[str, str], str] = {}
        keys = list(bodies)
        for start in range(0, len(keys), _A_BULK):
            some = keys[start : start + _A_BULK]
            try:
                answer = await api.post("/api/users/bulkUpdate", {"users": [bodies[key] for key in some], "createNewFields": True})
            except Declined as error:
                refused |= dict.fromkeys(some, f"Iterable refuses these users: {error}")
                continue
            refused |= _failed(answer, {key: bodies[key] for key in some})
        return refused

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the users stand there. Whom a dynamic list has can be asked five times a minute only: `effective` is unknown."""
        return [_read_back(user) for user in await self._find(self._api(http), wishes)]

    async def _find(self, api: Api, wishes: Sequence[Wish]) -> list[Resource | Declined | None]:
        """The user of each wish as they stand there, None for one it does not know, Declined for one it will not look up."""
        asked = {(wish.kind, _folded(wish)): wish.value for wish in wishes}

        async def ask(whom: tuple[str, str]) -> Resource | Declined | None:
            kind, value = whom[0], asked[whom]
            path, name = ("/api/users/getByEmail", "email") if kind == "email" else ("/api/users/byUserId", "userId")
            try:
                user = (await api.get(path, [(name, value)])).get("user")
            except Declined as error:
                return None if error.unknown else error
            return user if isinstance(user, dict) and user else None

        known = dict(zip(asked, await _each(ask, list(asked)), strict=True))
        return [known[wish.kind, _folded(wish)] for wish in wishes]

    # --- setting up ---

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Read the fields and the lists: whether the key works, the fields have the right types, and the list of held users is there."""
        api = self._api(http)
        try:
            fields = (await api.get("/api/users/getFields")).get("fields") or {}
        except (Refused, Declined) as error:
            return [Check(name="credentials", ok=False, text=str(error))]
        checks = [Check(name="credentials", ok=True, text="Iterable accepts the key."), _types(fields)]
        name = self._settings.hold_list_name
        try:
            found = await self._hold_list(api)
        except (Refused, Declined) as error:
            return [*checks, Check(name="list", ok=False, text=str(error))]
        text = (
            f"The list {name} is there ({found})." if found else f"There is no dynamic list {name} yet: it is made by hand, see the steps."
        )
        return [*checks, Check(name="list", ok=bool(found), text=text)]

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Nothing can be made by API: fields come into being as they are first written, dynamic lists by hand."""
        return await self.test(http, now)

    def steps(self) -> Sequence[Step]:
        """See `by_hand.steps`."""
        return by_hand.steps(self.name, self._settings.hold_list_name)

    async def _hold_list(self, api: Api) -> int:
        """The id of the list of held users; 0 where there is none."""
        if self._settings.hold_list:
            return self._settings.hold_list
        wanted = self._settings.hold_list_name.strip().casefold()
        lists = (await api.get("/api/lists")).get("lists") or ()
        named = [one for one in lists if str(one.get("name", "")).strip().casefold() == wanted and one.get("listType") == "Dynamic"]
        return int(named[0]["id"]) if named else 0

    # --- campaigns, and what was sent ---

    async def campaigns(self, http: Http, now: float) -> Sequence[Campaign]:
        """Campaigns to lists that are scheduled, recurring or going out."""
        api = self._api(http)
        try:
            hold_list = await self._hold_list(api)
            entries = [entry for entry in await self._entries(api) if planned.coming(entry)]
        except Declined as error:
            raise Refused(f"Iterable does not list its campaigns: {error}.") from error
        found = [
            planned.campaign(one, hold_list, self._settings.hold_list_name, await self._feeds(api, one), self._settings.gate_feed)
            for one in entries
        ]
        return sorted(found, key=lambda one: (one.send_at or 0.0, one.id))

    async def _entries(self, api: Api) -> list[Resource]:
        entries: list[Resource] = []
        for page in range(1, _MOST_PAGES + 1):
            params = [("page", str(page)), ("pageSize", str(_PAGE)), *(("campaignState", state) for state in planned.STATES)]
            answer = await api.get("/api/campaigns", params)
            entries += answer.get("campaigns") or ()
            if not answer.get("nextPageUrl"):  # its address is not followed: the key goes nowhere else
                break
        return entries

    async def _feeds(self, api: Api, entry: Resource) -> frozenset[int] | None:
        """The data feeds a campaign's template asks; None where that is not known or nobody cares."""
        template = entry.get("templateId")
        if not self._settings.gate_feed or not template or entry.get("messageMedium") not in {"Email", "Push"}:
            return None
        try:
            answer = await api.get(f"/api/templates/{str(entry['messageMedium']).lower()}/get", [("templateId", str(int(template)))])
        except (Declined, Refused):
            return None
        return frozenset(int(one) for one in [*(answer.get("dataFeedIds") or ()), answer.get("dataFeedId")] if one)

    def verify(self, request: Request, now: float) -> Verdict:
        """See `sent.verdict`."""
        return sent.verdict(request, self._settings.webhook_secret.get_secret_value())

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """See `sent.told`."""
        return sent.told(request)


_ABSENT = Marked(fate=Fate.ABSENT)


def field_name(trait: str) -> str:
    """The name of a field, in Iterable's manner: support_open_tickets -> supportOpenTickets."""
    first, *rest = trait.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def fields_of(wish: Wish) -> dict[str, Trait]:
    """What the fields of a profile must be for a wish; None: emptied."""
    said: dict[str, Trait] = {field_name(name): value for name, value in wish.traits.items()}
    said |= {
        HOLD: wish.held,
        UNTIL: (wish.until or None) if wish.held else None,
        REASON: (", ".join(wish.reasons) or None) if wish.held else None,
        VERSION: wish.version,
    }
    return {name: to_date(value) if isinstance(value, str) else value for name, value in said.items()}


def stands(seen: Mapping[str, Any], wanted: Mapping[str, Trait]) -> bool:
    """Whether a profile shows all that is wanted, version and all."""
    return all(_same(seen.get(name), value) for name, value in wanted.items())


def _same(seen: Any, wanted: Trait) -> bool:
    if isinstance(wanted, bool) or isinstance(seen, bool) or wanted is None or seen is None:
        return seen is wanted
    return bool(seen == wanted) or (unix(wanted) is not None and unix(seen) == unix(wanted))


def _body(asked: Wish, user: Resource | None, wish: Wish) -> dict[str, Any] | None:
    """The update that brings a user, found by `asked`, to a wish; None where nothing is to be done. One identifier, never two."""
    wanted = fields_of(wish)
    if user is None:
        who: dict[str, Any] = {"email": asked.value} if asked.kind == "email" else {"userId": asked.value, "preferUserId": True}
        return {**who, "dataFields": {name: value for name, value in wanted.items() if value is not None}}
    seen = _fields(user)
    version = seen.get(VERSION)
    if (isinstance(version, int | float) and version > wish.version) or stands(seen, wanted):
        return None
    who = {"email": str(user.get("email") or asked.value)} if asked.kind == "email" else {"userId": str(user.get("userId") or asked.value)}
    return {**who, "dataFields": wanted, "mergeNestedObjects": True}


def _failed(answer: Resource, bodies: Mapping[tuple[str, str], Resource]) -> dict[tuple[str, str], str]:
    """Whom a bulk update lists as failed, by the names of its lists; where it counts more than it lists, everybody it does not list."""
    lists = [(name, answer.get(name)) for name in ("invalidEmails", "invalidUserIds")]  # as older answers have it
    lists += (answer.get("failedUpdates") or {}).items()
    named = {str(value).lower(): name for name, values in lists for value in values or ()}
    refused = {
        key: f"Iterable refuses this user: {named[who]}"
        for key, body in bodies.items()
        if (who := str(body.get("email") or body.get("userId")).lower()) in named
    }
    if HOLD in (answer.get("filteredOutFields") or ()):
        return dict.fromkeys(bodies, f"The project drops the field {HOLD}: add it in Settings > Data Schema Management.")
    if int(answer.get("failCount") or 0) > len(refused):
        return dict.fromkeys(bodies, "Iterable did not update all of these users and does not say which.") | refused
    return refused


def _read_back(user: Resource | Declined | None) -> ReadBack:
    if user is None or isinstance(user, Declined):
        return ReadBack(present=False)
    seen = _fields(user)
    return ReadBack(present=True, held=seen.get(HOLD) is True, until=iso(seen.get(UNTIL)), profile=_name(user))


def _types(fields: Mapping[str, Any]) -> Check:
    wrong = [f"{name} is {fields[name]} and must be {kind}" for name, kind in TYPES.items() if str(fields.get(name, kind)).lower() != kind]
    if wrong:
        text = (
            f"{'; '.join(wrong)}. A type cannot be changed: hide the field in Settings > Data Schema Management and ask Iterable's support."
        )
        return Check(name="fields", ok=False, text=text)
    missing = [name for name in TYPES if name not in fields]
    text = (
        f"Not there yet: {', '.join(missing)}. They come with the first hold." if missing else "The fields are there, with the right types."
    )
    return Check(name="fields", ok=True, text=text)


def _fields(user: Resource) -> Mapping[str, Any]:
    found = user.get("dataFields")
    return found if isinstance(found, dict) else {}


def _key(user: Resource) -> tuple[str, str]:
    return str(user.get("email") or "").lower(), str(user.get("userId") or "")


def _name(user: Resource) -> str:
    """How a user is named to the hub: as the webhooks name them."""
    return str(user.get("userId") or user.get("email") or "")


def _folded(wish: Wish) -> str:
    return wish.value.lower() if wish.kind == "email" else wish.value


async def _each(ask: Callable[[_K], Awaitable[_T]], of: Sequence[_K]) -> list[_T]:
    """Ask for each, a few at a time; those under way end before a failure is raised, and none is begun after it."""
    answers: list[_T] = []
    for start in range(0, len(of), _AT_ONCE):
        tasks = [asyncio.ensure_future(ask(one)) for one in of[start : start + _AT_ONCE]]
        await asyncio.gather(*tasks, return_exceptions=True)
        answers += [task.result() for task in tasks]
    return answers
