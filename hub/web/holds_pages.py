"""The pages about holds: who is held and why, one customer's history, the tools, the campaigns that are coming, and what leaked.

Every agent sees them; only an administrator stops a campaign.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from sqlalchemy.sql import Executable

from hub.contract import NoAnswer, NotSent, Refused, TryLater
from hub.conversations import queries, wording
from hub.conversations.text import storable
from hub.customers import preview
from hub.delivery.owed import MarkAgain
from hub.holds import overview
from hub.holds.campaigns import COMING, WHY
from hub.holds.reverted import NoteReverted
from hub.marketing import MarketingTool, RevertsCampaigns
from hub.policy import DAY, Refusal
from hub.storage.writer import StorageBusy
from hub.web import holds_plots
from hub.web.auth import now_of, require_admin, require_agent
from hub.web.context import HUB, Hub
from hub.web.pages import render
from hub.web.people import Named, named
from hub.web.tickets import number, zone_of

routes = web.RouteTableDef()

PAGE = 50
DAYS = 30  # of the plot of who is held
WEEK = 7  # days of the figures of a tool
SHOWN = 20  # held customers named of one campaign at first ...
NAMED = 200  # ... and at the most
AGAIN_AT_ONCE = 500  # customers told once more at one press
LEAKS_SINCE = 30 * DAY
KEPT = 2_000  # counts of past midnights that are remembered

# How many were held at a midnight that is over does not change: counted once by each process.
PAST = web.AppKey("held_at", dict[int, int])

# mark.state -> (what people read, how it is meant: calm, good, wait, bad)
STATES: dict[str, tuple[str, str]] = {
    "effective": ("Effective", "good"),
    "confirmed": ("Confirmed", "good"),
    "accepted": ("Told, not read back yet", "wait"),
    "pending": ("Not told yet", "wait"),
    "drifted": ("Changed by somebody else", "bad"),
    "failed": ("Refused by the tool", "bad"),
    "absent": ("Not known there", "calm"),
}
KINDS = {"email": "E-mail", "phone": "Phone", "external_id": "Your customer number", "wa_user_id": "WhatsApp user"}
PROVED = {
    "live": "Tried on the tool itself.",
    "specification": "Every call is checked against the vendor's own specification or client. A round trip of yours proves your account.",
    "documentation": "Written from the vendor's documentation alone: only a live round trip of yours proves it.",
}
CAMPAIGN = {"draft": "Draft", "scheduled": "Scheduled", "sending": "Going out", "sent": "Sent", "cancelled": "Cancelled"}


# --- what several pages say ------------------------------------------------------------------------------------------


async def read(hub: Hub, *statements: Executable) -> list[Sequence[Any]]:
    return list(await asyncio.gather(*(hub.reader.all(statement) for statement in statements)))


async def words(request: web.Request) -> dict[str, Any]:
    """What every page about holds may use, and the alarms that stand above each."""
    hub = request.app[HUB]
    return {
        "say": wording,
        "lasted": overview.lasted,
        "zone": zone_of(request),
        "now": now_of(hub),
        "alarms": await hub.reader.all(overview.raised()),
        "labels": labels(hub),
        "states": STATES,
        "kinds": KINDS,
        "notice": "",
        "error": "",
    }


def labels(hub: Hub) -> dict[str, str]:
    """Each tool as people call it; with its configured name where two are of one kind."""
    plain = {name: hub.tools.get(name) for name in hub.tools}
    called = [tool.label for tool in plain.values() if tool is not None]
    return {
        name: tool.label if called.count(tool.label) == 1 else f"{tool.label} ({name})" for name, tool in plain.items() if tool is not None
    }


def page(request: web.Request, name: str, context: dict[str, Any], **more: Any) -> web.Response:
    context |= more
    return render(request, f"holds/{name}.html", status=422 if context["error"] else 200, **context)


def tool_of(request: web.Request) -> tuple[str, MarketingTool]:
    """The marketing tool a path names. Raises 404."""
    name = request.match_info["tool"]
    tool = request.app[HUB].tools.get(name)
    if tool is None:
        raise web.HTTPNotFound(text="There is no such marketing tool in the configuration.\n")
    return name, tool


async def names_of(hub: Hub, ids: Collection[int]) -> dict[int, Named]:
    """These customers as pages call them."""
    return {row.id: named(row) for row in await hub.reader.all(preview.called(sorted(set(ids))))} if ids else {}


def _cursor(raw: str) -> overview.Cursor | None:
    """`time-number` out of an address, or None."""
    at, _, id_ = raw.partition("-")
    left, right = number(at), number(id_)
    return (left, right) if left is not None and right is not None else None


def _more(rows: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    return rows[:PAGE], len(rows) > PAGE


def _query(**asked: object) -> str:
    kept = {name: value for name, value in asked.items() if value}
    return "?" + urlencode(kept) if kept else ""


# --- held now --------------------------------------------------------------------------------------------------------


@routes.get("/holds")
async def held_now(request: web.Request) -> web.StreamResponse:
    """Who is held now and why: `order=newest`, `reason=`, `brand=`, `after=` the last one shown."""
    require_agent(request)
    hub, now = request.app[HUB], now_of(request.app[HUB])
    brands = sorted({rule.brand for rule in hub.policy.channels.values()})
    asked = {"order": "newest" if request.query.get("order") == "newest" else "", "reason": "", "brand": ""}
    asked["reason"] = reason if (reason := request.query.get("reason", "")) in wording.HOLD_REASON else ""
    asked["brand"] = brand if (brand := request.query.get("brand", "")) in brands else ""
    binding = None
    if asked["brand"]:
        binding = [row.scope for row in await hub.reader.all(overview.scopes(now)) if overview.binds(row.scope, asked["brand"])]
    after = _cursor(request.query.get("after", ""))
    statement = overview.held(now, reason=asked["reason"], scopes=binding, newest=bool(asked["order"]), after=after, limit=PAGE + 1)
    found, [held], [everybody], by_reason = await read(
        hub, statement, overview.held_count(now), overview.customer_count(), overview.reason_counts(now)
    )
    rows, more = _more(found)
    ids = [row.customer_id for row in rows]
    holds: dict[int, list[Any]] = {}
    for hold in await hub.reader.all(overview.holding(ids, now)) if ids else ():
        holds.setdefault(hold.customer_id, []).append(hold)
    alarm = hub.settings.holds.alarm_share
    context = await words(request)
    days = [*overview.midnights(now, context["zone"], DAYS - 1), now]
    counts = await _held_at(request, days, held[0])
    labelled = [(wording.on(at - 1 if at != now else at, now, context["zone"]), count) for at, count in zip(days, counts, strict=True)]
    return page(
        request,
        "held",
        context,
        rows=rows,
        holds=holds,
        names=await names_of(hub, ids),
        asked=asked,
        query=_query,
        brands=brands,
        by_reason={row.reason: row.n for row in by_reason},
        held=held[0],
        everybody=everybody[0],
        share=held[0] / everybody[0] if everybody[0] else 0.0,
        alarm=alarm,
        alarm_at=alarm * everybody[0],
        meter_full=holds_plots.full(held[0], 2 * alarm * everybody[0]),
        plot=holds_plots.line(labelled, mark=alarm * everybody[0]),
        confined=overview.confined,
        after=f"{rows[-1].since}-{rows[-1].customer_id}" if more else "",
        further=after is not None,
    )


async def _held_at(request: web.Request, days: Sequence[int], at_present: int) -> list[int]:
    """How many were held at these midnights, and (the last) now."""
    known = request.app[PAST]
    missing = [at for at in days[:-1] if at not in known]
    if missing:
        row: Any = await request.app[HUB].reader.first(overview.held_at(missing))
        if len(known) > KEPT:
            known.clear()
        known.update(zip(missing, row, strict=True))
        return [*(known.get(at, 0) for at in days[:-1]), at_present]
    return [*(known[at] for at in days[:-1]), at_present]


# --- one customer ----------------------------------------------------------------------------------------------------


@routes.get(r"/holds/customers/{customer_id:[0-9]{1,17}}")
async def customer(request: web.Request) -> web.StreamResponse:
    """What was done to one customer's holds, what tools were told of it, and what was sent meanwhile."""
    require_agent(request)
    hub, now, id_ = request.app[HUB], now_of(request.app[HUB]), int(request.match_info["customer_id"])
    row = await hub.reader.first(preview.called([id_]))
    if row is None:
        raise web.HTTPNotFound(text="There is no such customer.\n")
    if row.merged_into is not None:
        raise web.HTTPSeeOther(f"/holds/customers/{row.merged_into}")
    before = number(request.query.get("before"))
    ledger, holds, marks, addresses, agents = await read(
        hub,
        overview.history(id_, before, PAGE + 1),
        overview.holding([id_], now),
        overview.marks_of(id_),
        overview.addresses(id_),
        queries.agents(),
    )
    lines, more = _more(ledger)
    known = [(address.kind, address.value) for address in addresses]
    return page(
        request,
        "customer",
        await words(request),
        customer=named(row),
        holds=holds,
        lines=lines,
        older=lines[-1].id if more else None,
        further=before is not None,
        marks=marks,
        took=overview.took_until,
        sends=await hub.reader.all(overview.sends_to(known, PAGE)) if known else [],
        by=_by({agent.id: agent.name for agent in agents}),
        confined=overview.confined,
    )


def _by(agents: dict[int, str]) -> Any:
    def who(actor: str | None) -> str:
        """Who did it, in words: an agent's name, a program's; nobody's where the hub did."""
        kind, _, name = (actor or "").partition(":")
        if kind == "agent" and name.isdigit():
            return agents.get(int(name), "an agent")
        return wording.program(actor or "")

    return who


# --- tools -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolState:
    """How a destination stands, as the page shows it."""

    name: str
    label: str
    tool: MarketingTool | None  # None: a webhook, which is told and cannot be asked
    counts: dict[str, int]
    gate: Any
    waiting: int
    oldest: int | None
    given_up: int
    speed: overview.Speed | None
    days: list[overview.Delay]

    @property
    def open(self) -> bool:
        return self.gate is None or self.gate.state in ("open", "slow")


async def _states(request: web.Request, only: str = "") -> list[ToolState]:
    """Every destination, or one tool."""
    hub, now = request.app[HUB], now_of(request.app[HUB])
    called = labels(hub)
    tools = [only] if only else list(hub.tools)
    targets = [("mark", name) for name in tools] + [("hold", name) for name in ([] if only else hub.policy.destinations)]
    starts = overview.midnights(now, zone_of(request), WEEK)
    counted, owed, lost, *timed = await read(
        hub, overview.state_counts(), overview.backlog(), overview.given_up(), *(overview.timings(name, starts[0]) for name in tools)
    )
    speeds = dict(zip(tools, map(overview.speed, timed), strict=True))
    gates = {(gate.kind, gate.name): gate for gate in hub.outbox.standings(targets)}
    found = []
    for kind, name in targets:
        waiting = [row for row in owed if (row.kind, row.target) == (kind, name)]
        speed = speeds.get(name) if kind == "mark" else None
        found.append(
            ToolState(
                name,
                called[name] if kind == "mark" else name,
                hub.tools.get(name) if kind == "mark" else None,
                {row.state: row.n for row in counted if row.destination == name} if kind == "mark" else {},
                gates.get((kind, name)),
                sum(row.n for row in waiting),
                min((row.oldest for row in waiting), default=None),
                sum(row.n for row in lost if (row.kind, row.target) == (kind, name)),
                speed,
                overview.by_day(speed.took, starts) if speed is not None else [],
            )
        )
    return found


@routes.get("/holds/tools")
async def tools(request: web.Request) -> web.StreamResponse:
    """How each marketing tool stands: states, speed, what is still owed."""
    require_agent(request)
    return page(request, "tools", await words(request), tools=await _states(request), spark=_spark, order=overview.STATES)


def _spark(state: ToolState) -> list[holds_plots.Bar]:
    """The slow end (p95) of each day's confirmations as bars."""
    return holds_plots.bars([(str(at), day.p95 or 0) for at, day in enumerate(state.days)], height=24.0)


@routes.get("/holds/tools/{tool}")
async def tool(request: web.Request) -> web.StreamResponse:
    """One tool: how fast, what drifted, what it refuses, what waits."""
    require_agent(request)
    tool_of(request)
    return await _tool_page(request)


async def _tool_page(request: web.Request, **said: str) -> web.Response:
    hub, (name, connector) = request.app[HUB], tool_of(request)
    [state], [drifted, failed, pending] = await asyncio.gather(
        _states(request, name),
        read(hub, *(overview.marks_in(name, [one]) for one in ("drifted", "failed", "pending"))),
    )
    bins = overview.histogram(ms for _, ms in state.speed.took) if state.speed is not None else []
    context = await words(request) | said
    return page(
        request,
        "tool",
        context,
        state=state,
        bins=bins,
        histogram=holds_plots.bars([(one.label, one.n) for one in bins]),
        days=list(zip(overview.midnights(context["now"], context["zone"], WEEK), state.days, strict=True)),
        spark=_spark(state),
        troubled=[("drifted", drifted), ("failed", failed), ("pending", pending)],
        most=overview.MOST_NAMED,
        names=await names_of(hub, [mark.customer_id for mark in (*drifted, *failed, *pending)]),
        proved=PROVED[connector.proved.value],
        order=overview.STATES,
        minutes=hub.settings.holds.alarm_confirm_minutes,
    )


@routes.post("/holds/tools/{tool}/look-again")
async def look_again(request: web.Request) -> web.StreamResponse:
    """Tell the tool once more of everybody it refused, or who was changed there."""
    require_agent(request)
    hub, (name, _) = request.app[HUB], tool_of(request)
    rows = await hub.reader.all(overview.marks_in(name, ["drifted", "failed", "pending"], AGAIN_AT_ONCE))
    ids = tuple(sorted({row.customer_id for row in rows}))
    if not ids:
        return await _tool_page(request, notice="Nothing to look at again: no profile there was changed or refused.")
    try:
        told = await hub.writer.run(MarkAgain(name, ids))
    except (Refusal, StorageBusy) as refusal:
        return await _tool_page(request, error=str(refusal))
    people = "1 customer is" if told == 1 else f"{told:,} customers are"
    return await _tool_page(request, notice=f"{people} told again now. Reload in a moment to see what came of it.")


# --- campaigns -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CampaignState:
    """A campaign as the page shows it. `tone` is bad (it would reach somebody held), wait (it may), good or calm (it is over)."""

    row: Any
    tone: str
    why: str
    endangered: list[int]
    revertable: bool


def campaign_state(row: Any, tool: Any) -> CampaignState:
    """A row of campaign_seen in words. Pure."""
    endangered = json.loads(row.endangered)
    coming = row.gone_at is None and row.status in COMING
    why = WHY[row.risk] if row.risk in WHY and (row.risk or endangered) else ""
    if not why:
        why = {"yes": "It leaves out customers on hold.", "no": WHY["no_filter"]}.get(row.excludes_hold, WHY["unknown"])
    tone = "calm" if not coming else "bad" if endangered else "wait" if row.risk else "good"
    return CampaignState(row, tone, why, endangered, coming and row.revertable and isinstance(tool, RevertsCampaigns))


@routes.get("/holds/campaigns")
async def campaigns(request: web.Request) -> web.StreamResponse:
    """Campaigns that are coming, and whom of the held each would reach."""
    require_agent(request)
    return await _campaigns_page(request)


async def _campaigns_page(request: web.Request, **said: str) -> web.Response:
    hub = request.app[HUB]
    found = [campaign_state(row, hub.tools.get(row.destination)) for row in await hub.reader.all(overview.campaigns())]
    ids = {id_ for one in found if one.tone != "calm" for id_ in one.endangered[:NAMED]}
    coming = [one for one in found if one.row.gone_at is None]
    return page(
        request,
        "campaigns",
        await words(request) | said,
        coming=coming,
        gone=[one for one in found if one.row.gone_at is not None],
        names=await names_of(hub, ids),
        statuses=CAMPAIGN,
        shown=SHOWN,
        named=NAMED,
    )


async def _revertable(request: web.Request) -> tuple[CampaignState, RevertsCampaigns]:
    """The campaign a path names, and its tool. Raises 404."""
    hub = request.app[HUB]
    row: Any = await hub.reader.first(overview.campaign(int(request.match_info["id"])))
    tool: Any = hub.tools.get(row.destination) if row is not None else None
    if row is None or not isinstance(tool, RevertsCampaigns):
        raise web.HTTPNotFound(text="There is no such campaign, or its tool cannot put it back to draft.\n")
    return campaign_state(row, tool), tool


@routes.get(r"/holds/campaigns/{id:[0-9]{1,17}}/revert")
async def confirm_revert(request: web.Request) -> web.StreamResponse:
    """What putting a campaign back to draft does, before it is done."""
    require_admin(request)
    campaign, _ = await _revertable(request)
    return page(request, "revert", await words(request), campaign=campaign, statuses=CAMPAIGN)


@routes.post(r"/holds/campaigns/{id:[0-9]{1,17}}/revert")
async def revert(request: web.Request) -> web.StreamResponse:
    """Put a campaign back to draft: it goes out to nobody."""
    principal, hub = require_admin(request), request.app[HUB]
    campaign, tool = await _revertable(request)
    if not campaign.revertable:
        return await _campaigns_page(request, error=f"“{campaign.row.name}” cannot be put back to draft any more. Look at it in the tool.")
    try:
        said = await tool.revert(campaign.row.campaign_id, hub.http)
    except NoAnswer as error:
        lost = "Whether the campaign was put back is not known: look at it in the tool."
        return await _campaigns_page(request, error=f"{error} {lost}")
    except (Refused, TryLater, NotSent) as error:
        return await _campaigns_page(request, error=f"“{campaign.row.name}” was not put back: {error}")
    notice = f"“{campaign.row.name}” is a draft again and goes out to nobody. {said}"
    try:
        await hub.writer.run(NoteReverted(campaign.row.id, said, principal.agent_id))
    except StorageBusy:
        notice += " The database was busy, so this page learns of it at the next look, within five minutes."
    return await _campaigns_page(request, notice=notice)


# --- sends and leaks -------------------------------------------------------------------------------------------------


@routes.get("/holds/leaks")
async def leaks(request: web.Request) -> web.StreamResponse:
    """Marketing messages that reached customers on hold, and why: `show=all` for every message, `tool=`, `cause=`, `campaign=`."""
    require_agent(request)
    hub, now = request.app[HUB], now_of(request.app[HUB])
    called = labels(hub)
    asked = {
        "show": "all" if request.query.get("show") == "all" else "",
        "tool": tool if (tool := request.query.get("tool", "")) in called else "",
        "cause": cause if (cause := request.query.get("cause", "")) in wording.LEAK else "",
        "campaign": storable(request.query.get("campaign", ""))[:200],
    }
    chosen = {name: asked[name] for name in ("tool", "cause", "campaign")}
    before = _cursor(request.query.get("before", ""))
    statement = overview.sends(leaks=not asked["show"], **chosen, before=before, limit=PAGE + 1)
    found, counted = await read(hub, statement, overview.leak_counts(now - LEAKS_SINCE))
    rows, more = _more(found)
    causes, campaigns = overview.leaky(counted)
    worst = max((one.n for one in campaigns), default=0)
    return page(
        request,
        "leaks",
        await words(request),
        rows=rows,
        asked=asked,
        query=_query,
        before=f"{rows[-1].at}-{rows[-1].id}" if more else "",
        further=before is not None,
        causes=causes,
        cause_bars={cause: holds_plots.full(n, max(causes.values())) for cause, n in causes.items()},
        campaigns=[(one, holds_plots.full(one.n, worst)) for one in campaigns],
        names=await names_of(hub, [row.customer_id for row in rows if row.customer_id is not None]),
    )


def add_routes(app: web.Application) -> None:
    app[PAST] = {}
    app.add_routes(routes)
