"""The JSON API about one customer's holds: what holds them, and holds that a program of the business places and ends."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from pydantic import Field
from sqlalchemy import select

from hub.holds.ledger import BY_API, COMPLAINT, iso
from hub.holds.reasons import EndHold, PlaceHold, hold_of
from hub.storage.tables import metadata
from hub.web.auth import require_token
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
    channels: list[str] = Field(["*"], min_length=1, max_length=10)


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
    await run(hub, EndHold(customer.id, number, f"program:{program.name}", ended=OWN))
    return answer({"customer_id": customer.id, "ended": number})
