"""The gate: may this person be sent marketing now? Asked by a tool before it sends, answered from the table.

A stale "not held" is the worst answer there is, so nothing is cached; every answer says as of when it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Any, NamedTuple

from hub.customers.canonical import canonical
from hub.holds.ledger import NAMES, iso
from hub.storage.hot import HoldFact, HotReads

KINDS = {name: kind for kind, name in NAMES.items()}  # external_id -> user_id
MOST = 1_000


class BadQuestion(Exception):
    """The question cannot be answered; the text says what is wrong with it."""


class Asked(NamedTuple):
    """One identifier asked about: as it was asked, and in canonical form (None where it cannot be one)."""

    name: str
    given: str
    value: str | None
    site: str = ""


class Standing(NamedTuple):
    """Whether a person is held, and why; `until` is microseconds UTC."""

    held: bool
    known: bool
    until: int | None
    reasons: tuple[str, ...]
    version: int

    def shown(self) -> dict[str, Any]:
        return {
            "held": self.held,
            "known": self.known,
            "until": iso(self.until) if self.until is not None else None,
            "reasons": list(self.reasons),
            "version": self.version,
        }


def ask(name: str, given: str, site: str = "") -> Asked:
    """One identifier of a question. Raises BadQuestion for a kind nobody can ask about."""
    kind = KINDS.get(name)
    if kind is None:
        raise BadQuestion(f"{name}: ask by {', '.join(KINDS)}.")
    return Asked(name, given, canonical(kind, _meant(name, given)), site)


def _meant(name: str, given: str) -> str:
    """What a marketing tool means by its spelling of an address."""
    if name == "email":
        return parseaddr(given)[1] or given  # Ada <ada@example.com>
    if name != "phone":
        return given
    number = given.removeprefix("whatsapp:")
    if number.startswith(" "):
        return "+" + number.lstrip(" +")  # a plus sign in a query string arrives as a space
    if number.startswith("00"):
        return "+" + number[2:]
    # "(202) 555-0123" names no country: read with a plus in front it would be somebody in Egypt.
    return number if number.startswith("+") or number.isdigit() else ""


NOBODY = Standing(held=False, known=False, until=None, reasons=(), version=0)


def judge(hits: Sequence[HoldFact], now: int, brand: str = "", message_class: str = "marketing") -> Standing:
    """What the facts about one person come to. Any hold holds; a transactional message is never held. Pure."""
    if not hits:
        return NOBODY
    version = max([hit.version for hit in hits])
    active = [
        hit
        for hit in hits
        if hit.hold_id is not None
        and (hit.lease_until or 0) > now
        and (not brand or json.loads(hit.scope or "{}").get("brand", brand) == brand)
    ]
    if message_class == "transactional" or not active:
        return Standing(held=False, known=True, until=None, reasons=(), version=version)
    return Standing(
        held=True,
        known=True,
        until=max([hit.lease_until or 0 for hit in active]),
        reasons=tuple(sorted({hit.reason or "" for hit in active})),
        version=version,
    )


# Nobody can say whether somebody is held whose address cannot be read: then it is not sent (a wrong "not held" is the worst answer).
UNREADABLE = Standing(held=True, known=False, until=None, reasons=("unreadable_identifier",), version=0)


def standing_of(asked: Asked, hits: Hits, now: int, brand: str, message_class: str) -> Standing:
    """The answer about one identifier."""
    if asked.value is None and message_class != "transactional":
        return UNREADABLE
    return judge(hits_of(asked, hits), now, brand, message_class)


def together(standings: Sequence[Standing]) -> Standing:
    """The answer about one person asked by several identifiers: any held identifier holds."""
    if len(standings) == 1:
        return standings[0]
    return Standing(
        held=any(one.held for one in standings),
        known=any(one.known for one in standings),
        until=max((one.until for one in standings if one.until is not None), default=None),
        reasons=tuple(sorted({reason for one in standings for reason in one.reasons})),
        version=max((one.version for one in standings), default=0),
    )


Hits = Mapping[tuple[str, str], list[HoldFact]]  # by canonical (kind, value)


def keys_of(asked: Sequence[Asked]) -> list[tuple[str, str]]:
    """The canonical (value, kind) to look up for a question, each once."""
    return sorted({(one.value, KINDS[one.name]) for one in asked if one.value is not None})


def by_key(facts: Sequence[HoldFact]) -> Hits:
    """The facts behind each identifier asked about."""
    hits: dict[tuple[str, str], list[HoldFact]] = {}
    for fact in facts:
        hits.setdefault((fact.kind, fact.value), []).append(fact)
    return hits


async def look_up(asked: Sequence[Asked], hot: HotReads) -> Hits:
    """The facts behind each identifier asked about."""
    keys = keys_of(asked)
    return by_key(await hot.hold_facts(keys)) if keys else {}


def hits_of(asked: Asked, hits: Hits) -> list[HoldFact]:
    """What concerns one identifier asked about; where its site was not told, any site's counts."""
    found = hits.get((KINDS[asked.name], asked.value or ""), [])
    return [hit for hit in found if not asked.site or hit.site == asked.site]
