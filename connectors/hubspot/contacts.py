"""HubSpot's contacts: found by a wish, judged, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import phonenumbers

from connectors.hubspot.api import Api, Declined, Resource
from connectors.hubspot.emails import unix
from connectors.hubspot.schema import HOLD, PROPERTIES, REASON, UNTIL, VERSION
from hub.contract import Refused
from hub.marketing import Fate, Marked, ReadBack, Wish

CONTACTS_PATH = "/crm/v3/objects/contacts"

_PHONES = ("phone", "mobilephone")
# What HubSpot makes of those: "only the area code and local number", so a country code must not be searched for [V]
# (https://developers.hubspot.com/docs/api-reference/2026-03/crm/search-the-crm).
_SEARCHABLE = ("hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number")
_MOST_OF_A_PHONE = 10  # contacts that may share a number; more is a switchboard
_SEARCH_PAGES = 5  # of 100

# Two spellings of one number; the second where one of them bears no country code.
_SAME_NUMBER = frozenset({phonenumbers.MatchType.EXACT_MATCH, phonenumbers.MatchType.NSN_MATCH})


@dataclass(frozen=True, slots=True)
class Found:
    """The contacts of one wish. A phone number is no key in HubSpot and may stand in several. `error` says why there are none;
    `refused`: although there are."""

    contacts: tuple[Resource, ...] = ()
    error: str = ""
    refused: bool = False


# --- looking up ---


async def find(api: Api, wishes: Sequence[Wish], own: str) -> list[Found]:
    """The contacts of each wish as they stand. By the identifier and never by a remembered id: contacts are merged there. `own` is
    the property with the business's own id, or empty. Raises Refused or TryLater."""
    asked: dict[str, dict[str, None]] = {"email": {}, "external_id": {}, "phone": {}}
    for wish in wishes:
        asked[wish.kind][key_of(wish)[1]] = None
    known: dict[tuple[str, str], Found] = {}
    for contact in await _by_property(api, "email", list(asked["email"]), own):
        for address in (value_of(contact, "email"), *value_of(contact, "hs_additional_emails").split(";")):
            if address.strip():
                known.setdefault(("email", address.strip().lower()), Found((contact,)))
    if own:
        for contact in await _by_property(api, own, list(asked["external_id"]), own):
            known["external_id", value_of(contact, own)] = Found((contact,))
    for value, found in (await _by_phone(api, list(asked["phone"]), own)).items():
        known["phone", value] = found
    unnamed = Found(error="HubSpot knows nobody by your own id here: external_id_property is not set.")
    return [known.get(key_of(wish), unnamed if wish.kind == "external_id" and not own else Found()) for wish in wishes]


async def _by_property(api: Api, key: str, values: Sequence[str], own: str) -> Sequence[Resource]:
    """`POST .../batch/read` with `idProperty`, at most 100 [V]: 207 where some are unknown. Raises Refused where it is no such property."""
    if not values:
        return ()
    body = {"idProperty": key, "inputs": [{"id": value} for value in values], "properties": _wanted(own), "propertiesWithHistory": []}
    try:
        answer = await api.call("POST", f"{CONTACTS_PATH}/batch/read", body)
    except Declined as error:
        if error.body.get("category") == "OBJECT_NOT_FOUND":
            return ()
        hint = f" Is destinations.{api.name}.external_id_property a property with unique values?" if key != "email" else ""
        raise Refused(f"HubSpot does not look contacts up by {key}: {error}.{hint} Nothing was changed.") from error
    found: Sequence[Resource] = answer.get("results") or ()
    return found


async def _by_phone(api: Api, values: Sequence[str], own: str) -> dict[str, Found]:
    """`POST .../search` [V]: by the number as it is stored, and by what HubSpot made of it; kept are those that truly bear it. A
    contact is found some seconds after it was made or changed."""
    if not values:
        return {}
    local = list(dict.fromkeys(part for value in values if (part := _local(value))))
    groups = [(name, list(values)) for name in _PHONES] + [(name, local) for name in _SEARCHABLE if local]
    body: dict[str, Any] = {
        "filterGroups": [{"filters": [{"propertyName": name, "operator": "IN", "values": chosen}]} for name, chosen in groups],
        "properties": _wanted(own),
        "sorts": ["hs_object_id"],
        "limit": 100,
    }
    contacts: list[Resource] = []
    for _ in range(_SEARCH_PAGES):
        try:
            answer = await api.call("POST", f"{CONTACTS_PATH}/search", body)
        except Declined as error:
            raise Refused(f"HubSpot does not search contacts by phone: {error}. Nothing was changed.") from error
        contacts += answer.get("results") or ()
        after = ((answer.get("paging") or {}).get("next") or {}).get("after")
        if not after:
            break
        body["after"] = str(after)
    return {value: bearing(value, contacts) for value in values}


def _wanted(own: str) -> list[str]:
    return ["email", "hs_additional_emails", *_PHONES, *((own,) if own else ()), *PROPERTIES]


def bearing(value: str, contacts: Sequence[Resource]) -> Found:
    """Those of the contacts that bear a number (E.164), each once. Pure."""
    found = {
        str(contact["id"]): contact
        for contact in contacts
        if any((said := value_of(contact, name)) and phonenumbers.is_number_match(said, value) in _SAME_NUMBER for name in _PHONES)
    }
    if len(found) > _MOST_OF_A_PHONE:
        return Found(error=f"{len(found)} contacts in HubSpot bear this number, so it says nothing about one person.", refused=True)
    return Found(tuple(found.values()))


def key_of(wish: Wish) -> tuple[str, str]:
    """A wish's identifier as HubSpot compares it."""
    return wish.kind, wish.value.lower() if wish.kind == "email" else wish.value


def value_of(contact: Resource, name: str) -> str:
    """A property's value, empty for none: HubSpot keeps all of them as text."""
    return str((contact.get("properties") or {}).get(name) or "")


def _local(value: str) -> str:
    """The number without its country code, or empty where it is none."""
    try:
        return str(phonenumbers.national_significant_number(phonenumbers.parse(value, None)))
    except phonenumbers.NumberParseException:
        return ""


# --- judging ---


def properties(wish: Wish) -> dict[str, str]:
    """What a wish writes; an empty string clears a property. Traits that have no property are left out."""
    said: dict[str, object] = {
        **{name: value for name, value in wish.traits.items() if name in PROPERTIES},
        HOLD: wish.held,
        UNTIL: wish.until if wish.held else None,
        REASON: ", ".join(wish.reasons) if wish.held else None,
        VERSION: wish.version,
    }
    return {name: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for name, value in said.items()}


def stands(contact: Resource, wish: Wish) -> bool:
    """Whether nothing has to be written: the contact stands as wished, version and all, or bears a later version."""
    version = _number(value_of(contact, VERSION))
    if version is not None and version > wish.version:
        return True
    return all(_same(name, value_of(contact, name), said) for name, said in properties(wish).items())


def _same(name: str, seen: str, said: str) -> bool:
    """Whether a property shows what was said: HubSpot spells times and numbers its own way."""
    if seen == said or not seen or not said:
        return seen == said
    kind = PROPERTIES[name][1]
    if kind == "datetime":
        return unix(seen) == unix(said)
    return kind == "number" and _number(seen) == _number(said)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def together(found: Found, fates: Sequence[Marked]) -> Marked:
    """The answer to one wish out of those of its contacts: refused where one of them is."""
    if not fates:
        return Marked(fate=Fate.REFUSED if found.refused else Fate.ABSENT, error=found.error)
    return next((one for one in fates if one.fate is Fate.REFUSED), fates[0])


def read_back(contacts: Sequence[Resource], wish: Wish, members: frozenset[str] | None, now: float) -> ReadBack:
    """How the contacts of one wish stand; where they differ, as the one furthest from the wish. `members` are those the hold list
    has; `effective` where it shows each as it stands."""
    if not contacts:
        return ReadBack(present=False)
    held = (all if wish.held else any)(_held(one) for one in contacts)
    until = min((value_of(one, UNTIL) for one in contacts if value_of(one, UNTIL)), key=lambda text: unix(text) or 0.0, default="")
    effective = None
    if members is not None:
        effective = all((str(one["id"]) in members) is _runs(one, now) for one in contacts)
    return ReadBack(present=True, held=held, until=until, profile=str(contacts[0]["id"]), effective=effective)


def _held(contact: Resource) -> bool:
    return value_of(contact, HOLD).lower() == "true"


def _runs(contact: Resource, now: float) -> bool:
    return _held(contact) and (unix(value_of(contact, UNTIL)) or 0.0) > now
