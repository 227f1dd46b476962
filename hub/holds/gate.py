"""The gate: may this person be sent marketing now? Asked by a tool before it sends, answered from the table.

A stale "not held" is the worst answer there is, so nothing is cached; every answer says as of when it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

from sqlalchemy import and_, bindparam, select, tuple_, union_all
from sqlalchemy.sql import Select

from hub.contract import Proof
from hub.customers.canonical import canonical
from hub.holds.ledger import NAMES, iso
from hub.storage.reader import Reader
from hub.storage.tables import metadata

KINDS = {name: kind for kind, name in NAMES.items()}  # external_id -> user_id
MOST = 1_000

_identifier = metadata.tables["identifier"]
_evidence = metadata.tables["evidence"]
_hold = metadata.tables["hold"]
_customer = metadata.tables["customer"]


class BadQuestion(Exception):
    """The question cannot be answered; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One identifier asked about: as it was asked, and in canonical form (None where it cannot be one)."""

    name: str
    given: str
    value: str | None
    site: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One hold (or none: `hold_id` is None) of one customer behind an identifier asked about."""

    customer_id: int
    kind: str
    site: str
    value: str
    hold_id: int | None
    reason: str | None
    scope: str | None
    lease_until: int | None
    version: int


@dataclass(frozen=True, slots=True)
class Standing:
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


def _facts() -> Select[Any]:
    """One statement: every hold, and every customer, behind any of the bound `keys` (their own identifiers, or claimed by them).

    Built once: composing it anew for every question cost twice what answering did.
    """
    wanted = tuple_(_identifier.c.value, _identifier.c.kind).in_(bindparam("keys", expanding=True))
    key = (_identifier.c.kind, _identifier.c.site, _identifier.c.value)
    own = select(_identifier.c.customer_id.label("customer_id"), *key).where(wanted, _identifier.c.customer_id.is_not(None))
    speaker = _identifier.alias("speaker")
    claimed = (
        select(speaker.c.customer_id.label("customer_id"), *key)
        .join_from(_identifier, _evidence, _evidence.c.other_id == _identifier.c.id)
        .join(speaker, speaker.c.id == _evidence.c.identifier_id)
        .where(wanted, _evidence.c.proof.in_([Proof.CLAIMED.value, Proof.RECORD.value]), speaker.c.customer_id.is_not(None))
    )
    behind = union_all(own, claimed).subquery()
    return select(
        behind.c.customer_id,
        behind.c.kind,
        behind.c.site,
        behind.c.value,
        _hold.c.id.label("hold_id"),
        _hold.c.reason,
        _hold.c.scope,
        _hold.c.lease_until,
        _customer.c.hold_version.label("version"),
    ).select_from(
        behind.join(_customer, _customer.c.id == behind.c.customer_id).outerjoin(
            _hold, and_(_hold.c.customer_id == behind.c.customer_id, _hold.c.released_at.is_(None))
        )
    )


FACTS = _facts()


def judge(hits: Sequence[Hit], now: int, brand: str = "", message_class: str = "marketing") -> Standing:
    """What the facts about one person come to. Any hold holds; a transactional message is never held. Pure."""
    known = bool(hits)
    version = max((hit.version for hit in hits), default=0)
    active = [
        hit
        for hit in hits
        if hit.hold_id is not None
        and (hit.lease_until or 0) > now
        and (not brand or json.loads(hit.scope or "{}").get("brand", brand) == brand)
    ]
    if message_class == "transactional" or not active:
        return Standing(held=False, known=known, until=None, reasons=(), version=version)
    return Standing(
        held=True,
        known=True,
        until=max(hit.lease_until or 0 for hit in active),
        reasons=tuple(sorted({hit.reason or "" for hit in active})),
        version=version,
    )


# Nobody can say whether somebody is held whose address cannot be read: then it is not sent (a wrong "not held" is the worst answer).
UNREADABLE = Standing(held=True, known=False, until=None, reasons=("unreadable_identifier",), version=0)


def standing_of(asked: Asked, hits: Mapping[tuple[str, str], list[Hit]], now: int, brand: str, message_class: str) -> Standing:
    """The answer about one identifier."""
    if asked.value is None and message_class != "transactional":
        return UNREADABLE
    return judge(hits_of(asked, hits), now, brand, message_class)


def together(standings: Sequence[Standing]) -> Standing:
    """The answer about one person asked by several identifiers: any held identifier holds."""
    return Standing(
        held=any(one.held for one in standings),
        known=any(one.known for one in standings),
        until=max((one.until for one in standings if one.until is not None), default=None),
        reasons=tuple(sorted({reason for one in standings for reason in one.reasons})),
        version=max((one.version for one in standings), default=0),
    )


async def look_up(asked: Sequence[Asked], reader: Reader) -> Mapping[tuple[str, str], list[Hit]]:
    """The facts behind each canonical (kind, value) asked about, all as of one moment."""
    hits: dict[tuple[str, str], list[Hit]] = {}
    keys = sorted({(one.value, KINDS[one.name]) for one in asked if one.value is not None})
    if keys:
        for row in await reader.all(FACTS, {"keys": keys}):
            hit = Hit(**row._mapping)
            hits.setdefault((hit.kind, hit.value), []).append(hit)
    return hits


def hits_of(asked: Asked, hits: Mapping[tuple[str, str], list[Hit]]) -> list[Hit]:
    """What concerns one identifier asked about; where its site was not told, any site's counts."""
    found = hits.get((KINDS[asked.name], asked.value or ""), [])
    return [hit for hit in found if not asked.site or hit.site == asked.site]
