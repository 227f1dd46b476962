"""The JSON API about customers' holds: what holds them, holds that a program of the business places and ends, and what was missed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import Field
from sqlalchemy import select

from hub.holds.gate import BadQuestion
from hub.holds.ledger import BY_API, COMPLAINT, iso
from hub.holds.missed import missed
from hub.holds.reasons import EndHold, PlaceHold, hold_of
from hub.policy import DAY, SECOND
from hub.storage.tables import metadata
from hub.web.auth import require_token
from hub.web.context import HUB
from hub.web.customers_api import AT, Strict, answer, body_of, customer_of, run

routes = web.RouteTableDef()
_hold = metadata.tables["hold"].c
OWN = (BY_API, COMPLAINT)  # the reasons a program gives, and may take back


class PlaceRequest(Strict):
    """The body of `POST .../holds`. `key` is what the program knows its hold by: placed again under it, a later end counts."""

    key: str = Field(min_length=1, max_length=100)
    days: float | None = Field(None, gt=0, le=365)
    reason: str = Field(BY_API, pattern=f"^({BY_API}|{COMPLAINT})$")
    note: str = Field("", max_length=500)
    brand: str = Field("", max_length=100)
    channels: list[Literal["*", "email", "sms", "whatsapp", "push"]] = Field(["*"], min_length=1, max_length=10)


def _shown(row: Any) -> dict[str, Any]:
    scope = json.loads(row.scope)
    return {
        "id": row.id,
        "reason": row.reason,
        "source": row.source,
        "scope": {"brand": scope.get("brand", "*"), "channels": scope.get("channels", ["*"])},
        "placed_at": iso(row.placed_at),
        "until": iso(row.lease_until),
        "ends_at": iso(row.ends_at) if row.ends_at is not None else None,
        "note": row.note,
        "by": row.actor,
    }


@routes.get(AT + "/holds")
async def show(request: web.Request) -> web.Response:
    """Every reason that holds the customer now."""
    await require_token(request)
    hub, customer = await customer_of(request)
    now = hub.writer.clock()
    active = select(*metadata.tables["hold"].c).where(
        _hold.customer_id == customer.id, _hold.released_at.is_(None), _hold.lease_until > now
    )
    rows = await hub.reader.all(active.order_by(_hold.id))
    return answer({"customer_id": customer.id, "held": bool(rows), "holds": [_shown(row) for row in rows], "as_of": iso(now)})


@routes.post(AT + "/holds")
async def place(request: web.Request) -> web.Response:
    """Hold the customer for a reason of the business's own. Done again with the same `key` it changes nothing but a later end."""
    program = await require_token(request)
    hub, customer = await customer_of(request)
    wanted = await body_of(request, PlaceRequest)
    actor = f"program:{program.name}"
    changed = await run(
        hub,
        PlaceHold(
            customer.id,
            wanted.days,
            actor,
            wanted.note,
            reason=wanted.reason,
            source=f"{actor}:{wanted.key}",
            brand=wanted.brand,
            channels=tuple(wanted.channels),
        ),
    )
    return answer({"customer_id": customer.id, "changed": changed})


@routes.delete(AT + "/holds/{hold_id}")
async def end(request: web.Request) -> web.Response:
    """End a hold that a program placed. An agent's, or a ticket's, only an agent ends."""
    program = await require_token(request)
    hub, customer = await customer_of(request)
    given = request.match_info["hold_id"]
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
    if await hub.reader.first(hold_of(number, customer.id)) is None:
        raise web.HTTPNotFound(text="This customer has no such hold.")
    await run(hub, EndHold(customer.id, number, f"program:{program.name}", ended=OWN, of="hand:program:"))
    return answer({"customer_id": customer.id, "ended": number})


@routes.get("/api/v1/holds/missed")
async def missed_by(request: web.Request) -> web.Response:
    """Whose hold ended between `from` and `to` (ISO 8601; the last day), and which campaigns went out meanwhile without them."""
    await require_token(request)
    hub = request.app[HUB]
    now = hub.writer.clock()
    since, until = _time(request, "from", now - DAY), _time(request, "to", now)
    given = request.query.get("cursor", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise BadQuestion("cursor: as an earlier answer named it in `next_cursor`.")
    rows = await missed(since, until, int(given), hub.reader)
    customers = [
        {
            "customer_id": row.customer_id,
            "held_from": iso(row.held_from),
            "held_until": iso(row.held_until),
            "identifiers": row.identifiers,
            "campaigns": [
                {"destination": c.destination, "id": c.campaign_id, "name": c.name, "channel": c.channel, "sent_at": iso(c.send_at)}
                for c in row.campaigns
            ],
            "prevented": [
                {"destination": c.destination, "id": c.campaign_id, "name": c.campaign, "channel": c.channel, "at": iso(c.at)}
                for c in row.prevented
            ],
        }
        for row in rows
    ]
    return answer({"customers": customers, "next_cursor": str(rows[-1].seq) if rows else None, "as_of": iso(now)})


def _time(request: web.Request, name: str, otherwise: int) -> int:
    """A time of the query, in microseconds. Raises BadQuestion."""
    given = request.query.get(name)
    if given is None:
        return otherwise
    try:
        at = datetime.fromisoformat(given.replace(" ", "+"))  # a plus sign in a query string arrives as a space
        return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * SECOND)
    except (ValueError, OverflowError):
        raise BadQuestion(f"{name}: must be a time such as 2026-11-22T10:00:00Z.") from None
