"""The gate: may this person be sent marketing now? Asked by a tool before it sends, answered from the table.

A stale "not held" is the worst answer there is, so nothing is cached; every answer says as of when it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from hub.customers.canonical import canonical
from hub.holds.ledger import NAMES, iso
from hub.storage.hot import HoldFact, HotReads, Key

KINDS = {name: kind for kind, name in NAMES.items()}  # external_id -> user_id
MOST = 1_000
LONGEST = 512  # characters of an identifier
LONGEST_LINE = 4_096  # bytes of one line of a stream
# What a hold may be confined to. A campaign on a channel named otherwise may reach any of them: every hold counts for it.
CHANNELS = frozenset({"email", "sms", "whatsapp", "push"})


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


_BARE_ADDRESS = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")


def _meant(name: str, given: str) -> str:
    """What a marketing tool means by its spelling of an address."""
    if name == "email":
        # Ada <ada@example.com>. Nearly all are bare, and to parse one of those costs more than to look its owner up.
        return given if _BARE_ADDRESS.fullmatch(given) else parseaddr(given)[1] or given
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
# Nobody can say whether somebody is held whose address cannot be read: then it is not sent (a wrong "not held" is the worst answer).
UNREADABLE = Standing(held=True, known=False, until=None, reasons=("unreadable_identifier",), version=0)
UNREADABLE_LINE = UNREADABLE._replace(reasons=("unreadable_line",))
# The database did not answer: what a campaign that fails closed makes of it, and one that fails open.
NOT_ANSWERED = UNREADABLE._replace(reasons=("not_answered",))
DEGRADED = NOBODY


def judge(hits: Sequence[HoldFact], now: int, brand: str = "", channel: str = "", message_class: str = "marketing") -> Standing:
    """What the facts about one person come to. Any hold of the brand and channel asked for holds (of any, where none is); a transactional
    message is never held. Pure."""
    if not hits:
        return NOBODY
    version, until = 0, 0
    reasons: set[str] = set()
    for hit in hits:
        version = max(version, hit.version)
        if hit.hold_id is not None and (hit.lease_until or 0) > now and _covers(hit.scope or "{}", brand, channel):
            until = max(until, hit.lease_until or 0)
            reasons.add(hit.reason or "")
    if not reasons or message_class == "transactional":
        return Standing(held=False, known=True, until=None, reasons=(), version=version)
    return Standing(held=True, known=True, until=until, reasons=tuple(sorted(reasons)), version=version)


@lru_cache(maxsize=1_024)
def _covers(scope: str, brand: str, channel: str) -> bool:
    """Whether a hold of this scope keeps a message of this brand and channel back. What the scope does not name it does not confine."""
    confined = json.loads(scope)
    if brand and confined.get("brand", brand) != brand:
        return False
    channels = confined.get("channels", ["*"])
    return channel not in CHANNELS or "*" in channels or channel in channels


@lru_cache(maxsize=4_096)
def spelled(standing: Standing) -> str:
    """A standing as the inside of a JSON object: one is told a million times over, and few are different."""
    return json.dumps(standing.shown(), separators=(",", ":"))[1:-1]


def standing_of(asked: Asked, hits: Hits, now: int, brand: str, channel: str, message_class: str) -> Standing:
    """The answer about one identifier."""
    if asked.value is None and message_class != "transactional":
        return UNREADABLE
    return judge(hits_of(asked, hits), now, brand, channel, message_class)


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


def read_line(line: bytes, kind: str, sites: Mapping[str, Any]) -> Asked | None:
    """One line of a stream: `{"kind", "value", "site"?}`, a JSON string or bare text of the stream's own `kind` (empty: it has none).

    None where nothing can be asked of it: the caller answers it as held, and goes on.
    """
    if len(line) > LONGEST_LINE:
        return None
    try:
        said = from_json(line) if line[:1] in (b"{", b'"') else line.decode()
        given = {"value": said} if isinstance(said, str) else dict(said)
    except (ValueError, TypeError):
        return None
    name, value, site = given.pop("kind", kind), given.pop("value", None), given.pop("site", "")
    if given or not (isinstance(name, str) and isinstance(value, str) and isinstance(site, str)):
        return None  # a misspelt `site` would ask about somebody else
    if name not in KINDS or not value.strip() or len(value) > LONGEST or (site and site not in sites):
        return None
    return ask(name, value, site)


Hits = Mapping[tuple[str, str], list[HoldFact]]  # by canonical (kind, value)


def keys_of(asked: Sequence[Asked]) -> list[Key]:
    """The keys to look up for a question, each once."""
    if len(asked) == 1:
        [one] = asked
        return [(one.value, KINDS[one.name])] if one.value is not None else []
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
