"""Customer.io: a hold is a few attributes of the person and a segment made of them, which campaigns and newsletters leave out.

Writing is the Track API's (`POST /api/v2/batch`, each item an `identify` with `_update`, so that nobody is created), reading the App
API's: every call is from the vendor's own specifications [V], see `api`, `people` and `sent`. Not here, on purpose: `suppress` deletes
a person for good, and `unsubscribed` is set by real unsubscribes, so that writing it would subscribe somebody again. Which one-time
sends are scheduled the App API does not tell (`GET /v1/newsletters` has no such field), so coming campaigns are not watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, field_validator

from connectors.customerio import people, sent
from connectors.customerio.api import HOSTS, Api, Declined, Resource
from connectors.customerio.people import ID_TYPES, Found, Person, attributes_of, key_of
from connectors.shared.loopback import is_loopback_url
from hub.contract import Answers, Http, Pace, Refused, Request, Verdict
from hub.marketing import Check, Fate, Marked, Proved, ReadBack, SendSeen, Step, ToolSettings, Wish

_AT_ONCE = 4  # calls side by side, of the 10 a second that the App API takes
_MOST_SENDS = 1_000
_K = TypeVar("_K")
_T = TypeVar("_T")


class CustomerIoSettings(ToolSettings):
    """One Customer.io workspace: the Track API's key with its site id, and an App API key with the scopes people and segments (read), and
    messages for what was sent. With `create_profiles` mind that Customer.io takes a new person for subscribed."""

    site_id: str = Field(min_length=1)
    api_key: SecretStr
    app_api_key: SecretStr
    region: Literal["us", "eu"] = "us"
    hold_segment_name: str = "Support hold"
    phone_attribute: str = "phone"  # the attribute with the phone number, in E.164
    webhook_signing_key: SecretStr = SecretStr("")  # of the reporting webhook; empty: none is believed

    @field_validator("api_key", "app_api_key")
    @classmethod
    def _check_key(cls, key: SecretStr) -> SecretStr:
        text = key.get_secret_value()
        if not text or not text.isascii() or any(character.isspace() for character in text):
            raise ValueError("must be a key as Customer.io shows it under Settings > API credentials: api_key of Track, app_api_key of App")
        return key

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_url(url)))):
            raise ValueError("base_url must be https:// (http only on this machine): the keys travel with every call")
        return url


class CustomerIo:
    """`marketing.MarketingTool` on one Customer.io workspace; also tells what was sent.

    `pace` counts calls of `mark`, each of one customer with a few identifiers: two calls of the App API for each.
    """

    Settings: ClassVar[type[ToolSettings]] = CustomerIoSettings
    label: ClassVar[str] = "Customer.io"
    kinds: ClassVar[tuple[str, ...]] = tuple(ID_TYPES)
    proved: ClassVar[Proved] = Proved.SPECIFICATION
    lapse: ClassVar[str] = (
        "An attribute that changes moves its person within seconds; when a lease that merely ran out frees them Customer.io does not "
        "promise: it looks at relative dates by itself, so count on a day."
    )
    settles: ClassVar[float] = 10.0
    reads_back: ClassVar[bool] = True
    pace: ClassVar[Pace] = Pace(per_second=1.5, burst=3)
    answers: ClassVar[Answers] = Answers()  # within 4 seconds, or everything behind it waits

    def __init__(self, settings: CustomerIoSettings, name: str) -> None:
        self.name = name
        self._settings = settings
        self._segment = ""  # the hold segment's id, once it is known
        self._names: dict[str, str] = {}  # "newsletters/10" -> its name

    def is_sandbox(self) -> bool:
        """Whether the calls stay on this machine."""
        return is_loopback_url(self._settings.base_url)

    def _api(self, http: Http) -> Api:
        own = self._settings
        hosts = (own.base_url, own.base_url) if own.base_url else HOSTS[own.region]
        return Api(http, hosts, own.site_id, own.api_key, own.app_api_key, self.name)

    # --- people ---

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[Marked]:
        """Look the people up, then `identify` those that stand otherwise. One who bears a later version is left as they are. `now` goes
        along as the time of the change: of two that overtake each other on the way, Customer.io keeps the later."""
        api = self._api(http)
        found = await self._find(api, wishes)
        wanted: dict[str, tuple[Wish, Person]] = {}  # who is found by several wishes is written once
        unknown: dict[tuple[str, str], Wish] = {}
        for wish in wishes:
            one = found[key_of(wish)]
            if not one.people and not one.error and self._settings.create_profiles:
                unknown[key_of(wish)] = _later(wish, unknown.get(key_of(wish)))
            for person in one.people:
                known = wanted.get(person.id)
                wanted[person.id] = (_later(wish, known[0] if known else None), person)
        behind = {id: both for id, both in wanted.items() if not people.stands(both[1], both[0])}
        writes = {("", id): _identify(wish, person.key, now, True) for id, (wish, person) in behind.items()}
        writes |= {key: _identify(wish, (ID_TYPES[wish.kind], wish.value), now, False) for key, wish in unknown.items()}
        refused = await self._write(api, writes)
        answers = []
        for wish in wishes:
            key = key_of(wish)
            if key in unknown:
                answers.append(_marked("", refused.get(key)))
            else:
                answers.append(people.together(found[key], [_marked(one.id, refused.get(("", one.id))) for one in found[key].people]))
        return answers

    async def _write(self, api: Api, writes: Mapping[tuple[str, str], Resource]) -> dict[tuple[str, str], str]:
        """Send the changes in one batch; what was refused of them, and why. 207 names items by their place, the others are taken."""
        if not writes:
            return {}
        keys = list(writes)
        try:
            answer = await api.track("POST", "/api/v2/batch", {"batch": list(writes.values())})
        except Declined as error:
            if len(keys) == 1:
                return {keys[0]: f"Customer.io refuses this person: {error}."}
            refused: dict[tuple[str, str], str] = {}
            for key in keys:  # one of them spoils the rest
                refused |= await self._write(api, {key: writes[key]})
            return refused
        said = {one.get("batch_index"): one for one in answer.get("errors") or () if isinstance(one, dict)}
        return {keys[place]: _reason(one) for place, one in said.items() if isinstance(place, int) and 0 <= place < len(keys)}

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> Sequence[ReadBack]:
        """How the people stand, and whether the hold segment shows the same."""
        api = self._api(http)
        found = await self._find(api, wishes)
        everybody = {person.id: person for one in found.values() for person in one.people}
        members = await self._held_in_segment(api, list(everybody.values())) if everybody else None
        return [people.read_back(found[key_of(wish)], wish, members, now) for wish in wishes]

    async def _find(self, api: Api, wishes: Sequence[Wish]) -> dict[tuple[str, str], Found]:
        """Who each wish is about. By the identifier and never by a remembered id: people are merged there."""
        keys = list(dict.fromkeys(key_of(wish) for wish in wishes))

        async def one(key: tuple[str, str]) -> Found:
            try:
                return await people.find(api, *key, self._settings.phone_attribute)
            except Declined as error:
                return Found(error=f"Customer.io does not look up this {key[0]}: {error}.")

        return dict(zip(keys, await _in_turns(one, keys), strict=True))

    async def _held_in_segment(self, api: Api, everybody: Sequence[Person]) -> frozenset[str] | None:
        """Which of them the hold segment has now; None where there is none or the key may not look."""
        try:
            hold = await self._segment_id(api)
            if not hold:
                return None
            members = [await people.in_segment(api, hold, everybody[start : start + 100]) for start in range(0, len(everybody), 100)]
        except (Refused, Declined):
            return None
        found = frozenset[str]().union(*members)
        if not found:
            self._segment = ""  # it may have been deleted: look for it by name the next time
        return found

    async def _segment_id(self, api: Api) -> str:
        if not self._segment:
            found = await self._find_segment(api)
            self._segment = str(found["id"]) if found else ""
        return self._segment

    async def _find_segment(self, api: Api) -> Resource | None:
        named = self._settings.hold_segment_name.strip().lower()
        found = (await api.app("GET", "/v1/segments")).get("segments") or ()
        return next((one for one in found if str(one.get("name", "")).strip().lower() == named), None)

    # --- setting it up ---

    async def test(self, http: Http, now: float) -> Sequence[Check]:
        """Whether both keys are accepted, in the right region, and the segment is there. Changes nothing."""
        api = self._api(http)
        return [
            await _check("Track API key", lambda: self._check_track(api)),
            await _check("App API key", lambda: self._check_app(api)),
            await _check("Hold segment", lambda: self._check_segment(api)),
            await _check("Leak watch", lambda: self._check_messages(api)),
        ]

    async def prepare(self, http: Http, now: float) -> Sequence[Check]:
        """Nothing is made: attributes are there once written, and the API makes manual segments alone, into which people would have to be
        put one by one. So the segment is a person's to make, as the steps say."""
        checks = await self.test(http, now)
        if not checks[0].ok or not checks[1].ok:
            raise Refused(next(check.text for check in checks if not check.ok))
        return checks

    async def _check_track(self, api: Api) -> Check:
        region = (await api.track("GET", "/api/v1/accounts/region")).get("region")
        if not self._settings.base_url and region in HOSTS and region != self._settings.region:
            text = f"The workspace is in the region {region}. Mend destinations.{self.name}.region."
            return Check(name="Track API key", ok=False, text=text)
        return Check(name="Track API key", ok=True, text="Customer.io accepts the site id and the key of its Track API.")

    async def _check_app(self, api: Api) -> Check:
        await api.app("GET", "/v1/customers?email=nobody%40support-hub.invalid")
        return Check(name="App API key", ok=True, text="The App API key may look people up.")

    async def _check_segment(self, api: Api) -> Check:
        name = self._settings.hold_segment_name
        found = await self._find_segment(api)
        if found is None:
            return Check(name="Hold segment", ok=False, text=f'There is no segment "{name}": follow the steps.')
        if found.get("type") == "manual":
            text = f'The segment "{name}" is a manual one, which no attribute moves: make a data-driven one, as the steps say.'
            return Check(name="Hold segment", ok=False, text=text)
        return Check(
            name="Hold segment", ok=True, text=f'The segment "{name}" is there ({found["id"]}); its conditions the API does not tell.'
        )

    async def _check_messages(self, api: Api) -> Check:
        await api.app("GET", "/v1/messages?metric=sent&limit=1")
        return Check(name="Leak watch", ok=True, text="The App API key may read what was sent.")

    def steps(self) -> Sequence[Step]:
        """What a person does in Customer.io."""
        name = self._settings.hold_segment_name
        return (
            Step(
                text="Segments > Create segment > Data-driven. Its name and its two conditions, both of which people must match:",
                paste=f"{name}\nsupport_hold is equal to true\nAND\nsupport_hold_until is a timestamp after 0 days from now",
            ),
            Step(
                text="In every one-time send (newsletter) and API-triggered broadcast, under recipients:", paste=f"not in segment: {name}"
            ),
            Step(
                text="In every campaign, on every message, add an action condition: the message is left out and the person goes on. A "
                "filter of the campaign would have them leave it for good.",
                paste=f"Person is not in segment: {name}",
            ),
            Step(
                text="For what was sent at once: Data & Integrations > Integrations > Reporting Webhooks > Add, choose the Sent events of "
                "every channel, leave Body Content off, and enter the signing key in the hub's configuration:",
                paste=f"destinations.{self.name}.webhook_signing_key",
            ),
        )

    # --- what was sent ---

    async def sends(self, since: float, http: Http, now: float) -> Sequence[SendSeen]:
        """`GET /v1/messages` with the metric `sent`. In which order it tells is not promised: of a span of time that holds more than a
        page a half is asked for, and so on; of a single second with more than a thousand, a thousand are told."""
        api = self._api(http)
        seen: dict[str, SendSeen] = {}
        start, end = int(since), int(now) + 1
        span = max(end - start, 1)
        while start < end and len(seen) < _MOST_SENDS:
            upto = min(start + span, end)
            try:
                answer = await api.app("GET", f"/v1/messages?metric=sent&start_ts={start}&end_ts={upto}&limit={_MOST_SENDS}")
            except Declined as error:
                raise Refused(f"Customer.io does not tell what was sent: {error}.") from error
            if answer.get("next") and span > 1:
                span //= 2
                continue
            told = answer.get("messages") or ()
            await self._learn_names(api, {sent.parent(one) for one in told})
            seen |= {one.provider_key: one for given in told if (one := sent.message(given, self._names))}
            start, span = upto, span * 2
        return sorted(seen.values(), key=lambda one: (one.at, one.provider_key))[:_MOST_SENDS]

    async def _learn_names(self, api: Api, owners: set[str]) -> None:
        """What campaigns are called: messages bear their ids alone."""
        if len(self._names) > 10_000:
            self._names.clear()
        for owner in sorted(owners - self._names.keys() - {""}):
            path, _, id = owner.partition("/")
            try:
                answer = await api.app("GET", f"/v1/{path}/{quote(id, safe='')}")
            except (Declined, Refused):
                answer = {}  # deleted since, or the key may not look: the send is told all the same
            self._names[owner] = str((answer.get(path.removesuffix("s")) or {}).get("name") or "")

    def verify(self, request: Request, now: float) -> Verdict:
        """See `sent.verdict`."""
        return sent.verdict(request, self._settings.webhook_signing_key.get_secret_value(), now)

    def parse_sends(self, request: Request) -> Sequence[SendSeen]:
        """See `sent.told`."""
        return sent.told(request)


def _later(wish: Wish, other: Wish | None) -> Wish:
    return wish if other is None or (wish.version, wish.held) > (other.version, other.held) else other


def _identify(wish: Wish, key: tuple[str, str], now: float, known: bool) -> dict[str, Any]:
    """One item of a batch. `_update`: somebody who is not there (any more) is not made."""
    id_type, value = key
    attributes = {**attributes_of(wish), **({"_update": True} if known else {})}
    return {"type": "person", "action": "identify", "identifiers": {id_type: value}, "timestamp": int(now), "attributes": attributes}


def _marked(profile: str, error: str | None) -> Marked:
    return Marked(fate=Fate.REFUSED if error else Fate.ACCEPTED, profile=profile, error=error or "")


def _reason(error: Mapping[str, Any]) -> str:
    """Why an item was not taken, by its reason and field; the message may repeat an address and is left out."""
    said = ", ".join(str(error[name]) for name in ("reason", "field") if error.get(name))[:100]
    return f"Customer.io refuses this person: {said or 'it gives no reason'}."


async def _check(name: str, look: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return await look()
    except (Refused, Declined) as error:
        return Check(name=name, ok=False, text=f"Customer.io: {error}" if isinstance(error, Declined) else str(error))


async def _in_turns(ask: Callable[[_K], Awaitable[_T]], keys: Sequence[_K]) -> list[_T]:
    """Ask for each, a few at a time, in order. After a failure none is begun any more; those under way end before it is raised."""
    done: list[_T] = []
    for start in range(0, len(keys), _AT_ONCE):
        for outcome in await asyncio.gather(*(ask(key) for key in keys[start : start + _AT_ONCE]), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            done.append(outcome)
    return done
