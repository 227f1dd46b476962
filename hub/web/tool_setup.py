"""Setting a marketing tool up: its credentials tried, what it needs found or created, the steps for people, and a live round trip.

The round trip goes on in the background; its page asks for itself again until it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web
from sqlalchemy import select

from hub.contract import NoAnswer, NotSent, Refused, TryLater
from hub.conversations import wording
from hub.holds import round_trip
from hub.holds.overview import lasted
from hub.holds.round_trip import NoteTrip, RoundTrip, Trip, chosen, setting_of, trip_in
from hub.marketing import Check, HearsSends, MarketingTool, RevertsCampaigns, WatchesCampaigns
from hub.policy import SECOND, Refusal
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.web.auth import read_form, require_admin
from hub.web.context import HUB, Hub
from hub.web.holds_pages import KINDS, PROVED, labels, tool_of
from hub.web.pages import render
from hub.web.tickets import zone_of

log = structlog.get_logger("hub.tools")
routes = web.RouteTableDef()

AGAIN = 2  # seconds until a page that shows something going on asks for itself again
_setting = metadata.tables["setting"].c

# The round trips this process is on.
UNDER_WAY = web.AppKey[set[asyncio.Task[Any]]]("round_trips")

PLACEHOLDER = {"email": "test@your-shop.com", "phone": "+1 202 555 0123", "external_id": "test-customer"}


@routes.get("/settings/tools")
async def tools(request: web.Request) -> web.StreamResponse:
    """The marketing tools of the configuration."""
    require_admin(request)
    hub = request.app[HUB]
    called = labels(hub)
    found = [(name, called[name], hub.tools.get(name), await _last_trip(hub, name)) for name in hub.tools]
    now = hub.writer.clock()
    return render(
        request, "settings/tools.html", tools=found, webhooks=hub.policy.destinations, say=wording, zone=zone_of(request), now=now
    )


@routes.get("/settings/tools/{tool}")
async def tool(request: web.Request) -> web.StreamResponse:
    """One tool's set-up."""
    require_admin(request)
    tool_of(request)
    return await _page(request)


async def _page(request: web.Request, checks: Sequence[Check] = (), given: dict[str, str] | None = None, **said: str) -> web.Response:
    hub, (name, connector) = request.app[HUB], tool_of(request)
    trip, now = await _last_trip(hub, name), hub.writer.clock()
    going = trip is not None and trip.going(now)
    return render(
        request,
        "settings/tool.html",
        status=422 if said.get("error") else 200,
        name=name,
        tool=connector,
        label=labels(hub)[name],
        settings=hub.tools.settings(name),
        proved=PROVED[connector.proved.value],
        checks=checks,
        steps=connector.steps(),
        hook=f"{hub.settings.server.public_url}/tools/{name}/hooks" if isinstance(connector, HearsSends) else "",
        watches=isinstance(connector, WatchesCampaigns),
        reverts=isinstance(connector, RevertsCampaigns),
        kinds=KINDS,
        placeholder=PLACEHOLDER.get(connector.kinds[0], ""),
        given=given or {},
        trip=trip,
        going=going,
        broken_off=trip is not None and trip.broken_off(now),
        again=AGAIN if going else 0,
        patience=round_trip.PATIENCE // SECOND,
        lasted=lasted,
        say=wording,
        zone=zone_of(request),
        now=now,
        notice=said.get("notice", ""),
        error=said.get("error", ""),
    )


async def _last_trip(hub: Hub, name: str) -> Trip | None:
    kept = await hub.reader.value(select(_setting.value).where(_setting.key == setting_of(name)))
    return trip_in(kept) if kept is not None else None


@routes.post("/settings/tools/{tool}/test")
async def test(request: web.Request) -> web.StreamResponse:
    """Try the credentials. Changes nothing in the tool."""
    require_admin(request)
    _, connector = tool_of(request)
    return await _checked(request, connector, "test")


@routes.post("/settings/tools/{tool}/prepare")
async def prepare(request: web.Request) -> web.StreamResponse:
    """Find in the tool what the hold needs, or create it there."""
    require_admin(request)
    _, connector = tool_of(request)
    return await _checked(request, connector, "prepare")


async def _checked(request: web.Request, connector: MarketingTool, what: str) -> web.Response:
    hub = request.app[HUB]
    now = hub.writer.clock() / SECOND
    try:
        checks = await (connector.prepare(hub.http, now) if what == "prepare" else connector.test(hub.http, now))
    except (Refused, TryLater, NotSent, NoAnswer) as error:
        return await _page(request, error=str(error))
    if not all(check.ok for check in checks):
        return await _page(request, checks, error="Something is missing: see below.")
    done = "What the hold needs is there." if what == "prepare" else "The credentials work, and what the hold needs is there."
    return await _page(request, checks, notice=done)


@routes.post("/settings/tools/{tool}/round-trip")
async def begin(request: web.Request) -> web.StreamResponse:
    """Begin a round trip on a test profile: form fields `kind` and `value`."""
    require_admin(request)
    hub, (name, connector) = request.app[HUB], tool_of(request)
    form = await read_form(request)
    kind, value = form.get("kind", ""), form.get("value", "")[:512]

    async def note(trip: Trip) -> None:
        await hub.writer.run(NoteTrip(name, trip))

    try:
        asked = await chosen(connector, kind, value, hub.hot, hub.writer.clock())
        going = RoundTrip(connector, asked, hub.http, hub.hot, hub.writer.clock, note)
        await hub.writer.run(NoteTrip(name, going.trip, begins=True))
    except (Refusal, StorageBusy) as refusal:
        return await _page(request, given={"kind": kind, "value": value}, error=str(refusal))
    task = asyncio.create_task(_run(name, going), name=f"round trip of {name}")
    request.app[UNDER_WAY].add(task)
    task.add_done_callback(request.app[UNDER_WAY].discard)
    raise web.HTTPSeeOther(f"/settings/tools/{name}#round-trip")


async def _run(name: str, going: RoundTrip) -> None:
    try:
        await going.run()
    except StorageBusy as error:
        log.warning("how a round trip went could not be noted", tool=name, error=str(error))
    except Exception:
        log.exception("a round trip failed", tool=name)


async def _stop(app: web.Application) -> None:
    """Break off what is under way: a hold that was left lapses by itself."""
    under_way = app[UNDER_WAY]
    tasks = [*under_way]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def add_routes(app: web.Application) -> None:
    under_way: set[asyncio.Task[Any]] = set()
    app[UNDER_WAY] = under_way
    app.on_shutdown.append(_stop)
    app.add_routes(routes)
