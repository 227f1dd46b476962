"""What customers missed while they were held: the campaigns that went out meanwhile without them, for a marketer to catch up with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from hub.holds.changes import OF_HOLDS
from hub.storage.reader import Reader
from hub.storage.tables import metadata

PAGE = 200  # releases of one answer

_event = metadata.tables["event"].c
_campaign = metadata.tables["campaign_seen"].c
_send = metadata.tables["send_seen"].c


class Missed(NamedTuple):
    """One customer's time on hold that is over, and what was sent meanwhile without them. Times are microseconds UTC."""

    seq: int
    customer_id: int
    held_from: int
    held_until: int
    identifiers: Sequence[dict[str, Any]]
    campaigns: Sequence[Any]
    prevented: Sequence[Any]


async def missed(since: int, until: int, after: int, reader: Reader) -> list[Missed]:
    """Whose hold ended in [since, until) and after the event `after`, the earliest first, at most PAGE of them. Raises StorageBusy."""
    released = await reader.all(
        select(_event.seq, _event.customer_id, _event.at, _event.data)
        .where(OF_HOLDS, _event.type == "hold.released")
        .where(_event.seq > after, _event.at >= since, _event.at < until)
        .order_by(_event.seq)
        .limit(PAGE)
    )
    found = []
    for row in released:
        said = json.loads(row.data)
        if "joined_into" in said:
            continue  # goes on as the survivor's
        placed = await reader.first(
            select(_event.at)
            .where(_event.customer_id == row.customer_id, _event.type == "hold.placed", _event.seq < row.seq)
            .order_by(_event.seq.desc())
            .limit(1)
        )
        began = placed.at if placed is not None else row.at
        campaigns = await reader.all(
            select(_campaign.destination, _campaign.campaign_id, _campaign.name, _campaign.channel, _campaign.send_at)
            .where(_campaign.send_at >= began, _campaign.send_at < row.at, _campaign.excludes_hold == "yes")
            .order_by(_campaign.send_at)
            .limit(100)
        )
        sends = await reader.all(
            select(_send.destination, _send.campaign_id, _send.campaign, _send.channel, _send.at, _send.prevented)
            .where(_send.customer_id == row.customer_id, _send.at >= began, _send.at < row.at)
            .order_by(_send.at)
            .limit(100)
        )
        # A campaign that reached them all the same was not missed.
        reached = {(one.destination, one.campaign_id) for one in sends if not one.prevented}
        kept = [one for one in campaigns if (one.destination, one.campaign_id) not in reached]
        prevented = [one for one in sends if one.prevented]
        found.append(Missed(row.seq, row.customer_id, began, row.at, said["identifiers"], kept, prevented))
    return found
