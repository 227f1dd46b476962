"""Marketing messages that tools say they sent: in whose timeline they belong, and whether they reached somebody on hold, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import and_, or_, select, text

from hub.customers.canonical import canonical
from hub.holds.ledger import NAMES, iso
from hub.holds.traits import KINDS
from hub.marketing import SendSeen
from hub.policy import SECOND
from hub.storage.columns import HISTORY  # as the index has it, or it is not used
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import SendSeenRow
from hub.storage.reader import Reader
from hub.storage.tables import metadata

_identifier = metadata.tables["identifier"].c
_customer = metadata.tables["customer"].c
_hold = metadata.tables["hold"].c
_mark = metadata.tables["mark"].c
_event = metadata.tables["event"].c
_campaign = metadata.tables["campaign_seen"].c


class Circumstances(NamedTuple):
    """What was so when a message was sent; times are microseconds, None: not (yet)."""

    held_since: int | None  # since when its recipient was held; None: they were not
    told_at: int | None  # when the tool took the hold
    shown_at: int | None  # when reading the tool back showed it
    frozen_at: int | None  # when the campaign's recipients were fixed
    filtered: str = "unknown"  # whether the campaign leaves held profiles out: yes | no | unknown


MOST_EVENTS = 500


def cause_of(at: int, seen: Circumstances) -> str:
    """Why a message reached somebody on hold: `missing_filter`, `frozen_list`, `our_delay`, `lag` or `unexplained`; empty where they were
    not on hold. Pure."""
    if seen.held_since is None or seen.held_since > at:
        return ""
    if seen.filtered == "no":
        return "missing_filter"
    if seen.frozen_at is not None and seen.frozen_at < seen.held_since:
        return "frozen_list"
    chosen = at if seen.frozen_at is None else seen.frozen_at  # when its recipients were determined
    if seen.told_at is None or seen.told_at > chosen:
        return "our_delay"
    if seen.shown_at is None or seen.shown_at > chosen:
        return "lag"
    return "unexplained"


class Known(NamedTuple):
    """A message a tool sent, with the customer it reached as we know them."""

    seen: SendSeen
    kind: str
    value: str
    customer_id: int | None
    cause: str


async def recognise(destination: str, sends: Sequence[SendSeen], reader: Reader) -> list[Known]:
    """Whom each message reached, and whether they were on hold. Raises StorageBusy."""
    return [await _recognise(destination, send, reader) for send in sends]


async def _recognise(destination: str, send: SendSeen, reader: Reader) -> Known:
    at = int(send.at * SECOND)
    kind = KINDS.get(send.kind, "")
    value = canonical(kind, send.value) if kind and send.value else None
    if not value and not send.profile:
        return Known(send, send.kind, send.value, None, "")
    named = and_(_mark.kind == send.kind, _mark.value == value) if value else _mark.profile == send.profile
    mark = await reader.first(select(_mark.kind, _mark.value).where(_mark.destination == destination, named))
    if mark is not None:
        kind, value = KINDS[mark.kind], mark.value
    if not value:
        return Known(send, send.kind, send.value, None, "")
    owner = await reader.first(
        select(_identifier.customer_id).where(
            _identifier.kind == kind, _identifier.value == value, _identifier.ended_at.is_(None), _identifier.customer_id.is_not(None)
        )
    )
    if owner is None:
        return Known(send, NAMES[kind], value, None, "")
    homes = select(_customer.id).where(or_(_customer.id == owner.customer_id, _customer.merged_into == owner.customer_id))
    hold = await reader.first(
        select(_hold.placed_at)
        .where(_hold.customer_id.in_(homes), _hold.placed_at <= at, _hold.lease_until > at)
        .where(or_(_hold.released_at.is_(None), _hold.released_at > at))
        .order_by(_hold.placed_at)
    )
    # A webhook may name the campaign and not its id.
    same = _campaign.campaign_id == send.campaign_id if send.campaign_id or not send.campaign else _campaign.name == send.campaign
    campaign = await reader.first(
        select(_campaign.frozen_at, _campaign.excludes_hold)
        .where(_campaign.destination == destination, same)
        .order_by(_campaign.seen_at.desc())
    )
    told_at, shown_at = await _told(destination, value, homes, hold.placed_at, reader) if hold is not None else (None, None)
    circumstances = Circumstances(
        held_since=hold.placed_at if hold is not None else None,
        told_at=told_at,
        shown_at=shown_at,
        frozen_at=campaign.frozen_at if campaign is not None else None,
        filtered=campaign.excludes_hold if campaign is not None else "unknown",
    )
    cause = "" if send.prevented else cause_of(at, circumstances)
    return Known(send, NAMES[kind], value, owner.customer_id, cause)


async def _told(destination: str, value: str, homes: Any, since: int, reader: Reader) -> tuple[int | None, int | None]:
    """When the tool took a hold placed at `since`, and when it showed it first: as the events say, since a renewal is told anew."""
    rows = await reader.all(
        select(_event.type, _event.at, _event.data)
        .where(
            text(HISTORY),
            _event.customer_id.in_(homes),
            _event.type.in_(["mark.accepted", "mark.confirmed", "mark.effective"]),
            _event.at >= since,
        )
        .order_by(_event.seq)
        .limit(MOST_EVENTS)
    )
    times: dict[str, int] = {}
    for row in rows:
        data = json.loads(row.data)
        if data["held"] and (data["destination"], data["value"]) == (destination, value):
            times.setdefault(row.type, row.at)
    if "mark.effective" not in times:
        # A tool that tells what its own segment shows, and did not yet, has not shown the hold: to be read back is not enough there.
        tells = select(_mark.id).where(_mark.destination == destination, _mark.effective_at.is_not(None)).limit(1)
        if await reader.first(tells) is not None:
            return times.get("mark.accepted"), None
    return times.get("mark.accepted"), times.get("mark.effective", times.get("mark.confirmed"))


@dataclass(frozen=True, slots=True)
class NoteSends:
    """Marketing messages a tool reports; each is noted once, however often it is reported. What names no recipient is left out."""

    destination: str
    sends: tuple[Known, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("send_seen", "provider_key", known.seen.provider_key) for known in self.sends)

    def decide(self, facts: Facts) -> int:
        """How many were new."""
        new = 0
        for known in self.sends:
            seen = known.seen
            if not (seen.value or seen.profile):
                continue  # it names nobody: there is nobody to tell of it
            found = facts.found[("send_seen", "provider_key", seen.provider_key)]
            before = next((row for row in found if row.destination == self.destination), None)
            if before is not None:
                self._learn(before, known, facts)
                continue
            new += 1
            row = SendSeenRow(
                id=facts.new_id("send_seen"),
                destination=self.destination,
                provider_key=seen.provider_key,
                at=int(seen.at * SECOND),
                seen_at=facts.now,
                kind=known.kind,
                value=known.value,
                profile=seen.profile,
                channel=seen.channel,
                campaign_id=seen.campaign_id,
                campaign=seen.campaign[:200],
                prevented=seen.prevented,
                customer_id=known.customer_id,
                leak=bool(known.cause),
                cause=known.cause,
            )
            facts.insert(row)
            if known.customer_id is not None:
                facts.emit("send.seen", customer_id=known.customer_id, data=_data(row))
        return new

    def _learn(self, row: SendSeenRow, known: Known, facts: Facts) -> None:
        """A webhook often names less than the tool tells when it is asked: what is new is added, and nothing is stated twice."""
        if row.campaign_id or not known.seen.campaign_id:
            return
        row.campaign_id, row.campaign = known.seen.campaign_id, known.seen.campaign[:200]
        if row.leak and known.cause:
            row.cause = known.cause
        facts.change(row)


def _data(row: SendSeenRow) -> str:
    return json.dumps(
        {
            **{"destination": row.destination, "campaign": row.campaign, "campaign_id": row.campaign_id, "channel": row.channel},
            **{"at": iso(row.at), "leak": row.leak, "prevented": row.prevented, "cause": row.cause, "kind": row.kind, "value": row.value},
        }
    )
