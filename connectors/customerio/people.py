"""Customer.io's people: found by a wish, judged, and read back.

Calls of the App API [V]: `GET /v1/customers?email=`, `POST /v1/customers` with a filter of attributes and a segment,
`GET /v1/customers/{customer_id}/attributes` with `id_type`. Identifiers must be percent-encoded: a bare `+` is a space over there, which
is nobody, in a 200 [S].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from connectors.customerio.api import Api, Declined, Resource
from hub.marketing import Fate, Marked, ReadBack, Wish

HOLD, UNTIL, REASON, VERSION = "support_hold", "support_hold_until", "support_hold_reason", "support_hold_version"
MOST_OF_ONE = 10  # people that may share a phone or an address that is no identifier there; more says nothing about one person

# Ours -> what Customer.io calls it in `id_type` and in `identifiers`.
ID_TYPES: Mapping[str, str] = {"email": "email", "phone": "phone", "external_id": "id"}


@dataclass(frozen=True, slots=True)
class Person:
    """A person as they stand. `key` is the identifier they are written and read by: (id_type, value); `id` their cio_id."""

    id: str
    key: tuple[str, str]
    attributes: Mapping[str, str]

    @property
    def held(self) -> bool:
        return self.attributes.get(HOLD, "").lower() == "true"

    @property
    def until(self) -> str:
        return iso_of(self.attributes.get(UNTIL, ""))

    def runs(self, now: float) -> bool:
        at = unix_of(self.attributes.get(UNTIL, ""))
        return self.held and at is not None and at > now


@dataclass(frozen=True, slots=True)
class Found:
    """The people of one wish; several where what it names is no identifier there. `error` says why it is refused although there are."""

    people: tuple[Person, ...] = ()
    error: str = ""


def key_of(wish: Wish) -> tuple[str, str]:
    """A wish's identifier as Customer.io compares it: addresses are not case-sensitive."""
    return wish.kind, wish.value.lower() if wish.kind == "email" else wish.value


async def find(api: Api, kind: str, value: str, phone_attribute: str) -> Found:
    """Who is known by an identifier, with their attributes. Raises Refused or TryLater, or Declined."""
    if kind == "external_id":
        one = await _person(api, ("id", value))
        return Found((one,) if one else ())
    if kind == "email":
        listed = (await api.app("GET", f"/v1/customers?email={quote(value, safe='')}")).get("results") or ()
    else:
        asked = {"filter": {"or": [{"attribute": {"field": phone_attribute, "operator": "eq", "value": value}}]}}
        listed = (await api.app("POST", "/v1/customers?limit=50", asked)).get("identifiers") or ()
    if len(listed) > MOST_OF_ONE:
        return Found(error=f"{len(listed)} or more people in Customer.io bear this {kind}, so it says nothing about one of them.")
    people = {}
    for identifiers in listed:
        key = next(((name, str(identifiers[name])) for name in ("id", "email") if identifiers.get(name)), ("phone", value))
        one = await _person(api, key)
        if one is not None:
            people[one.id] = one
    return Found(tuple(people.values()))


async def _person(api: Api, key: tuple[str, str]) -> Person | None:
    """One person with their attributes, "all stored as strings" [V]; None for nobody."""
    id_type, value = key
    try:
        answer = await api.app("GET", f"/v1/customers/{quote(value, safe='')}/attributes?id_type={id_type}")
    except Declined as error:
        if error.status == 404:
            return None
        raise
    customer: Resource = answer.get("customer") or {}
    attributes = {str(name): text_of(said) for name, said in (customer.get("attributes") or {}).items()}
    id = str((customer.get("identifiers") or {}).get("cio_id") or attributes.get("cio_id") or "")
    return Person(id, key, attributes) if id else None


async def in_segment(api: Api, segment: str, everybody: Sequence[Person]) -> frozenset[str]:
    """Which of these (at most 100) a segment has now, asked for in one call. Raises Refused, TryLater or Declined."""
    either = [{"attribute": {"field": id_type, "operator": "eq", "value": value}} for id_type, value in (one.key for one in everybody)]
    asked = {"filter": {"and": [{"segment": {"id": int(segment)}}, {"or": either}]}}
    found = (await api.app("POST", "/v1/customers?limit=1000", asked)).get("identifiers") or ()
    return frozenset(str(one.get("cio_id")) for one in found)


# --- judging ---


def attributes_of(wish: Wish) -> dict[str, str | int | bool]:
    """What a wish writes. Times are unix seconds, the only form that segments compare with now ("if you're using a different format
    like ISO 8601, your users will not match": https://docs.customer.io/journeys/faq-timestamps) [V]; an empty string removes."""
    said: dict[str, Any] = {
        **{name: _time(value) if name.endswith("_at") else value for name, value in wish.traits.items()},
        HOLD: wish.held,
        UNTIL: _time(wish.until) if wish.held else None,
        REASON: ", ".join(wish.reasons) if wish.held else None,
        VERSION: wish.version,
    }
    return {name: "" if value is None else value for name, value in said.items()}


def stands(person: Person, wish: Wish) -> bool:
    """Whether nothing has to be written: the person stands as wished, version and all, or bears a later version."""
    version = _number(person.attributes.get(VERSION, ""))
    if version is not None and version > wish.version:
        return True
    return all(_same(person.attributes.get(name, ""), text_of(said)) for name, said in attributes_of(wish).items())


def _same(seen: str, said: str) -> bool:
    return seen == said or (_number(said) is not None and _number(seen) == _number(said))


def text_of(value: object) -> str:
    """A value as the App API shows it."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def unix_of(text: str) -> float | None:
    """Unix seconds of an attribute: a number, or an ISO time that somebody else wrote."""
    found = _number(text)
    if found is not None:
        return found
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def iso_of(text: str) -> str:
    """An attribute's time as ISO 8601 UTC; what is none of the times there are stays as it is, for people to see."""
    at = unix_of(text)
    if at is None or not 0 <= at < 32_503_680_000:  # the year 3000
        return text
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(value: object) -> object:
    at = unix_of(value) if isinstance(value, str) else None
    return value if at is None else int(at)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def together(found: Found, fates: list[Marked]) -> Marked:
    """The answer to one wish out of those of its people: refused where one of them is."""
    if not fates:
        return Marked(fate=Fate.REFUSED if found.error else Fate.ABSENT, error=found.error)
    return next((one for one in fates if one.fate is Fate.REFUSED), fates[0])


def read_back(found: Found, wish: Wish, members: frozenset[str] | None, now: float) -> ReadBack:
    """How the people of one wish stand; where they differ, as the one furthest from the wish. `members` are those the hold segment
    has; `effective` where it shows each as they stand."""
    people = found.people
    if not people:
        return ReadBack(present=False)
    held = (all if wish.held else any)(one.held for one in people)
    until = min((one.until for one in people if one.until), key=lambda text: unix_of(text) or 0.0, default="")
    effective = None if members is None else all((one.id in members) is one.runs(now) for one in people)
    return ReadBack(present=True, held=held, until=until, profile=people[0].id, effective=effective)
