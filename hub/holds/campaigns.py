"""Campaigns that are coming: whether each leaves held customers out, and whom it would reach all the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from hub.holds.alarms import Concern, Level
from hub.marketing import Campaign
from hub.policy import SECOND
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import CampaignSeen

COMING = ("scheduled", "sending")
NAMED = 1_000  # held customers that are named of one campaign
LAGS = 3_600.0  # seconds before its sending from when on a hold that is not effective yet is a danger


class Held(NamedTuple):
    """A held profile of a tool: whose it is, and since when (microseconds) the tool shows it held; None: not yet."""

    customer_id: int
    profile: str
    shown_at: int | None


def risk_of(campaign: Campaign) -> str:
    """Why a campaign may reach held customers: `no_filter`, `frozen`, `unknown`, or nothing. Pure."""
    if campaign.status not in COMING:
        return ""
    if campaign.excludes_hold is False:
        return "no_filter"
    if campaign.frozen_at is not None:
        return "frozen"
    return "unknown" if campaign.excludes_hold is None else ""


def reached(campaign: Campaign, held: Iterable[Held], now: float) -> list[Held]:
    """The held profiles a campaign would reach, as far as the holds tell. Pure.

    Without a filter all of them; with recipients fixed, whoever was not shown as held when they were; otherwise whoever is not shown
    as held yet while the sending is near.
    """
    risk = risk_of(campaign)
    if campaign.status not in COMING:
        return []
    if risk in ("no_filter", "unknown"):
        return list(held)
    if campaign.frozen_at is not None:
        return [one for one in held if one.shown_at is None or one.shown_at / SECOND > campaign.frozen_at]
    near = campaign.send_at is None or campaign.send_at - now < LAGS
    return [one for one in held if one.shown_at is None] if near else []


WHY = {
    "no_filter": "It does not leave out customers on hold.",
    "frozen": "Its recipients were fixed when it was scheduled, so a hold placed since does not reach it.",
    "unknown": "Whether it leaves out customers on hold cannot be read.",
    "": "These holds are not shown by the tool yet, and it is about to be sent.",
}


def concern(label: str, campaign: Campaign, endangered: int) -> Concern | None:
    """The alarm a campaign gives cause for, or None. Pure."""
    risk = risk_of(campaign)
    if not endangered:
        return None
    when = f" at {datetime.fromtimestamp(campaign.send_at, UTC):%Y-%m-%d %H:%M} UTC" if campaign.send_at is not None else ""
    least = "at least " if endangered >= NAMED else ""
    people = f"{least}{endangered:,} held customer{'s' if endangered != 1 else ''}"
    text = f"It is to go out{when}. {WHY[risk]} {campaign.mend}".strip()
    level: Level = "warning" if risk == "unknown" else "critical"
    return Concern(level, f"“{campaign.name}” ({label}) would reach {people}", text, "/holds/campaigns")


@dataclass(frozen=True, slots=True)
class NoteCampaigns:
    """What a tool says is coming, each with the held customers it would reach; what it names no more is gone."""

    destination: str
    seen: tuple[tuple[Campaign, tuple[int, ...]], ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("campaign_seen", "destination", self.destination))

    def decide(self, facts: Facts) -> None:
        known = {row.campaign_id: row for row in facts.found[("campaign_seen", "destination", self.destination)]}
        for campaign, endangered in self.seen:
            row: CampaignSeen | None = known.pop(campaign.id, None)
            risk, named = risk_of(campaign), json.dumps(sorted(set(endangered))[:NAMED])
            values = {
                **{"name": campaign.name, "channel": campaign.channel, "status": campaign.status, "seen_at": facts.now},
                **{"send_at": _micros(campaign.send_at), "frozen_at": _micros(campaign.frozen_at)},
                **{"excludes_hold": {True: "yes", False: "no", None: "unknown"}[campaign.excludes_hold], "risk": risk},
                **{"audiences": json.dumps(campaign.audiences), "mend": campaign.mend, "url": campaign.url},
                **{"revertable": campaign.revertable, "endangered": named, "gone_at": None},
            }
            before = (row.risk, row.endangered) if row is not None else ("", "[]")
            if row is None:
                row = CampaignSeen(facts.new_id("campaign_seen"), self.destination, campaign.id, **values)  # type: ignore[arg-type]
                facts.insert(row)
            else:
                for name, value in values.items():
                    setattr(row, name, value)
                facts.change(row)
            if named != "[]" and (risk, named) != before:
                self._warn(row, facts)
        for row in known.values():
            if row.gone_at is None:
                row.gone_at = facts.now
                facts.change(row)

    def _warn(self, row: CampaignSeen, facts: Facts) -> None:
        data = {"destination": self.destination, "campaign_id": row.campaign_id, "campaign": row.name, "risk": row.risk}
        facts.emit("campaign.warned", data=json.dumps(data | {"endangered": json.loads(row.endangered)}))


def _micros(at: float | None) -> int | None:
    return None if at is None else int(at * SECOND)


def customers_in(held: Sequence[Held]) -> tuple[int, ...]:
    return tuple(sorted({one.customer_id for one in held}))
