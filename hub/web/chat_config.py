"""What the widget is told of how it is to look, to ask and to greet: from the channel's configuration, the same for every visitor."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from aiohttp import web

from hub.conversations.business_hours import Hours, span, standing
from hub.holds.ledger import iso
from hub.policy import SECOND
from hub.web.visitors import CHAT, desk_of

routes = web.RouteTableDef()

LANGUAGES = ("en",)  # what the hub itself says (an address refused, a code mailed) is English
MAX_AGE = 60  # seconds a browser keeps it


@runtime_checkable
class Configured(Protocol):
    """A chat whose look and hours are configured."""

    def configuration(self) -> dict[str, Any]:
        """As `GET /chat/{channel}/config` tells it, but for what changes with the clock."""
        ...

    def closed_text(self) -> Any:
        """What is said while nobody is there."""
        ...

    def business_hours(self) -> tuple[dict[str, list[str]], str, frozenset[date]] | None:
        """The week as {day: [`09:00-17:00`]}, the time zone and the holidays; None: always open."""
        ...


def configuration(desk: Configured, now: int) -> dict[str, Any]:
    """What the widget is told at `now` (microseconds UTC)."""
    told = desk.configuration() | {"languages": list(LANGUAGES), "hours": None}
    if (weekly := desk.business_hours()) is None:
        return told
    week, zone, holidays = weekly
    hours = Hours({day: [span(one) for one in spans] for day, spans in week.items()}, ZoneInfo(zone), holidays)
    stands = standing(hours, datetime.fromtimestamp(now / SECOND, UTC))
    opens = iso(int(stands.opens_at.timestamp()) * SECOND) if stands.opens_at is not None else None
    return told | {"hours": {"open": stands.open, "opens_at": opens, "text": desk.closed_text()}}


@routes.get("/chat/{channel}/config", allow_head=False)
async def config(request: web.Request) -> web.Response:
    """How the widget of this channel looks, greets and asks, and whether somebody is there now."""
    _, _, desk = desk_of(request)
    told = configuration(desk, int(request.app[CHAT].clock() * SECOND)) if isinstance(desk, Configured) else {}
    return web.json_response(told, headers={"Cache-Control": f"public, max-age={MAX_AGE}"})
