"""The agents' inbox: one screen of parts (views, list, conversation, customer), and the forms agents post.

A page names its state in its URL. `?parts=list,views` answers only those parts, which is how the browser keeps the screen
fresh; without JavaScript every link and form works by whole pages.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from sqlalchemy.sql import Executable

from hub.conversations import following_up, history, queries, review, timeline, wording
from hub.conversations.queries import VIEWS, Cursor, View
from hub.customers import preview, suggestions
from hub.satisfaction import reports
from hub.storage.search import FOUND_FROM, FOUND_TO
from hub.web import people, tickets
from hub.web.auth import now_of, require_agent
from hub.web.context import HUB, Hub
from hub.web.pages import render
from hub.web.tickets import number, zone_of
from hub.web.visitors import CHAT
from hub.web.ways_out import preferred, ways_out

routes = web.RouteTableDef()

PAGE = 50
LEAKS_SHOWN = 7 * 86_400_000_000  # microseconds: so long an agent is told that marketing got through
MAX_ROWS = 500
PARTS = ("views", "list", "conversation", "customer")


@dataclass(frozen=True, slots=True)
class Way:
    """A configured channel as pages show it."""

    id: int
    icon: str
    label: str
    max_text: int


@dataclass(frozen=True, slots=True)
class Row:
    """A ticket (or a message found) in the list."""

    key: str
    href: str
    ticket_id: int | None
    name: str
    preview: list[tuple[str, bool]]
    at: int
    way: Way
    assignee: str
    status: str
    held: bool
    unread: bool
    answered: bool
    selected: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for the screen asks for, checked."""

    me: int
    zone: tzinfo
    now: int
    parts: frozenset[str]
    path: str  # where the list lives: /inbox/open, or /search
    view: View | None
    query: str
    ticket_id: int | None
    customer_id: int | None
    near: int | None
    joined: int | None  # the join an agent has just made: its notice stands above the conversation
    after: Cursor | None
    rows: int

    def href(self, **more: Any) -> str:
        """The URL of the same list with another selection."""
        values = {**({"q": self.query} if self.view is None else {}), **{k: v for k, v in more.items() if v is not None}}
        return f"{self.path}?{urlencode(values)}" if values else self.path


def _asked(request: web.Request, hub: Hub, view: View | None) -> Asked:
    query = request.query
    wanted = frozenset(query.get("parts", ",".join(PARTS)).split(",")) & frozenset(PARTS)
    return Asked(
        me=require_agent(request).agent_id,
        zone=zone_of(request),
        now=now_of(hub),
        parts=wanted,
        path=f"/inbox/{view.name}" if view is not None else "/search",
        view=view,
        query=query.get("q", "")[:200].strip(),
        ticket_id=number(query.get("ticket")),
        customer_id=number(query.get("customer")),
        near=number(query.get("m")),
        joined=number(query.get("joined")),
        after=Cursor.parse(query.get("after", "")),
        rows=min(max(number(query.get("rows")) or PAGE, PAGE), MAX_ROWS),
    )


def ways(hub: Hub) -> dict[int, Way]:
    """The configured channels by id; two of one label are told apart by their names."""
    labels = [bound.rule.label for bound in hub.channels.values()]
    return {
        bound.rule.id: Way(
            bound.rule.id,
            bound.connector.icon,
            bound.rule.label if labels.count(bound.rule.label) == 1 else f"{bound.rule.label} ({bound.rule.name})",
            bound.connector.max_text,
        )
        for bound in hub.channels.values()
    }


def _way(known: dict[int, Way], channel_id: int | None) -> Way:
    return known.get(channel_id or 0, Way(0, "dot", "A channel no longer configured", 0))


# --- pages -----------------------------------------------------------------------------------------------------------


@routes.get("/")
async def home(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/inbox/open")


@routes.get("/inbox/{view}")
async def inbox(request: web.Request) -> web.StreamResponse:
    """The screen of one view; with `?ticket=` a conversation beside the list."""
    view = VIEWS.get(request.match_info["view"])
    if view is None:
        raise web.HTTPNotFound(text="There is no such view.")
    return await _screen(request, view)


@routes.get("/search")
async def search(request: web.Request) -> web.StreamResponse:
    """The screen with search results for a list."""
    return await _screen(request, None)


@routes.get(r"/conversations/{customer_id:[0-9]{1,17}}")
async def conversation(request: web.Request) -> web.StreamResponse:
    """A customer's conversation by its lasting id, at its newest ticket. A merged one leads on (307) while it is."""
    return await _screen(request, VIEWS["all"], int(request.match_info["customer_id"]))


@routes.get(r"/conversations/{customer_id:[0-9]{1,17}}/older")
async def older(request: web.Request) -> web.StreamResponse:
    """The lines before a message: what scrolling up adds to the timeline."""
    hub = request.app[HUB]
    asked = _asked(request, hub, VIEWS["all"])
    before = number(request.query.get("before"))
    customer_id = int(request.match_info["customer_id"])
    head, agents, identifiers = await asyncio.gather(
        hub.reader.first(queries.customer_head(customer_id, asked.now)),
        hub.reader.all(queries.agents()),
        hub.reader.all(history.identifiers(customer_id)),
    )
    if head is None or before is None:
        raise web.HTTPNotFound(text="There is no such conversation.")
    name = wording.customer_name(head.name, head.kind, head.address)
    shown = await _timeline(hub, asked, customer_id, name, agents, before=before)
    customer = {"id": customer_id, "several": _several(identifiers)}
    return render(request, "inbox/older.html", **_words(hub, asked), asked=asked, customer=customer, **shown)


async def _screen(request: web.Request, view: View | None, customer_id: int | None = None) -> web.StreamResponse:
    hub = request.app[HUB]
    asked = _asked(request, hub, view)
    if customer_id is not None:
        asked = replace(asked, customer_id=customer_id)
    if asked.customer_id is not None and asked.ticket_id is None:
        lasting = await hub.reader.first(queries.survivor(asked.customer_id))
        if lasting is None and customer_id is not None:
            raise web.HTTPNotFound(text="There is no such conversation.")
        if lasting is not None and lasting.id != asked.customer_id:
            # Until they are taken apart: so nobody may keep it.
            raise web.HTTPTemporaryRedirect(f"/conversations/{lasting.id}", headers={"Cache-Control": "no-store"})
        if lasting is not None and lasting.ticket_id is not None:
            asked = replace(asked, ticket_id=lasting.ticket_id)
    # Noted before anything is read: what commits meanwhile arrives on the live stream and is read again.
    seq = hub.feed.last_id
    beside, chosen = await asyncio.gather(_beside(hub, asked), _chosen(hub, asked))
    whole = "parts" not in request.query
    return render(
        request,
        "inbox/page.html" if whole else "inbox/parts.html",
        seq=seq,
        asked=asked,
        views=VIEWS.values(),
        **_words(hub, asked),
        **beside,
        **chosen,
        offers_codes=_offers_codes(request, chosen["ticket"]),
    )


def _offers_codes(request: web.Request, ticket: Any) -> bool:
    """Whether a customer can be asked for a one-time code: they wrote last by a chat that takes one."""
    hub = request.app[HUB]
    bound = hub.channel(ticket.channel_id) if ticket is not None else None
    desk = request.app[CHAT].among(hub).get(bound.rule.name) if bound is not None else None
    return desk is not None and bool(desk.codes_per_hour)


def _words(hub: Hub, asked: Asked) -> dict[str, Any]:
    """What every part of the screen speaks with."""
    known = ways(hub)
    return {
        "say": wording,
        "zone": asked.zone,
        "now": asked.now,
        "way": lambda channel_id: _way(known, channel_id),
    }


async def _read(hub: Hub, *statements: Executable | queries.Prepared | None) -> list[Any]:
    """Rows of several statements at once; nothing for a part that was not asked for."""

    async def one(statement: Executable | queries.Prepared | None) -> Sequence[Any]:
        if statement is None:
            return ()
        return await (hub.reader.all(*statement) if isinstance(statement, tuple) else hub.reader.all(statement))

    return list(await asyncio.gather(*(one(statement) for statement in statements)))


async def _beside(hub: Hub, asked: Asked) -> dict[str, Any]:
    """Views with their counts, and the list."""
    known = ways(hub)
    counting = queries.counts(asked.me) if "views" in asked.parts else None
    if asked.view is not None:
        listing = queries.tickets(asked.view, asked.me, asked.now, asked.after, asked.rows) if "list" in asked.parts else None
        counted, rows = await _read(hub, counting, listing)
        page = [_ticket_row(row, known, asked) for row in rows[: asked.rows]]
        more = str(Cursor(rows[asked.rows - 1].last_at, rows[asked.rows - 1].id)) if len(rows) > asked.rows else ""
        return {"counts": counted[0] if counted else None, "rows": page, "more": more, "people": (), "behind": 0}
    found = hub.reader.search.found(asked.query) if "list" in asked.parts else None
    counted, rows, people, behind = await _read(
        hub,
        counting,
        found,
        queries.people(asked.query) if found is not None else None,
        hub.reader.search.lag if found is not None else None,
    )
    return {
        "counts": counted[0] if counted else None,
        "rows": [_found_row(row, known, asked) for row in rows],
        "more": "",
        "people": people,
        "behind": behind[0].behind if behind else 0,
    }


def _ticket_row(row: Any, known: dict[int, Way], asked: Asked) -> Row:
    return Row(
        key=f"ticket-{row.id}",
        href=asked.href(ticket=row.id),
        ticket_id=row.id,
        name=wording.customer_name(row.name, row.kind, row.address),
        preview=[(row.preview or row.subject, False)],
        at=row.last_at,
        way=_way(known, row.channel_id),
        assignee=row.assignee or "",
        status=row.status,
        held=bool(row.held),
        unread=bool(row.unread),
        answered=row.waiting_since is None and row.status in queries.ACTIVE,
        selected=row.id == asked.ticket_id,
    )


def _found_row(row: Any, known: dict[int, Way], asked: Asked) -> Row:
    return Row(
        key=f"found-{row.id}",
        href=asked.href(ticket=row.ticket_id, customer=row.conversation_id if row.ticket_id is None else None, m=row.id),
        ticket_id=row.ticket_id,
        name=wording.customer_name(row.name, row.kind, row.address),
        preview=wording.found_pieces(row.snippet, FOUND_FROM, FOUND_TO),
        at=row.created_at,
        way=Way(0, "note", "Note", 0) if row.direction == "note" else _way(known, row.channel_id),
        assignee="",
        status="",
        held=False,
        unread=False,
        answered=row.direction == "out",
        selected=row.id == asked.near,
    )


async def _chosen(hub: Hub, asked: Asked) -> dict[str, Any]:
    """The conversation asked for and its customer, or nothing chosen."""
    nothing: dict[str, Any] = {"ticket": None, "customer": None, "lines": (), "missing": False}
    if not asked.parts & {"conversation", "customer"} or (asked.ticket_id is None and asked.customer_id is None):
        return nothing
    if asked.ticket_id is not None:
        ticket = await hub.reader.first(queries.ticket_head(asked.ticket_id, asked.me, asked.now))
        head = ticket
        customer_id = ticket.conversation_id if ticket is not None else 0
    else:
        ticket = None
        customer_id = asked.customer_id or 0
        head = await hub.reader.first(queries.customer_head(customer_id, asked.now))
    if head is None:
        return {**nothing, "missing": True}
    aside = "customer" in asked.parts
    agents, identifiers, opt_outs, *known = await _read(
        hub,
        queries.agents(),
        history.identifiers(customer_id),
        history.opt_outs([customer_id]),
        history.join(asked.joined) if asked.joined is not None else None,
        history.leaks(customer_id, asked.now - LEAKS_SHOWN),
        history.customer_tickets(customer_id) if aside else None,
        history.holds(customer_id, asked.now) if aside else None,
        history.ledger(customer_id) if aside else None,
        preview.attributes([customer_id]) if aside else None,
        suggestions.for_customer(customer_id) if aside else None,
        following_up.of_customer(customer_id) if aside else None,
        reports.of_ticket(ticket.id) if aside and ticket is not None else None,
    )
    joins, leaks, episodes, holds, ledger, attributes, alike, promises, surveys = known
    several = _several(identifiers)
    windowed = any(bound.rule.window for bound in hub.channels.values()) and "conversation" in asked.parts
    proofs, called, heard, admitted = await _read(
        hub,
        history.proofs(customer_id) if several and "conversation" in asked.parts else None,
        preview.called({id_ for row in alike for id_ in (row.left_id, row.right_id)}) if alike else None,
        history.heard(customer_id) if windowed else None,
        review.participants(ticket.id) if ticket is not None else None,
    )
    name = wording.customer_name(head.name, head.kind, head.address)
    shown = await _timeline(hub, asked, customer_id, name, agents) if "conversation" in asked.parts else {}
    wrote = {(row.channel_id, row.identifier_id): row.at for row in heard}
    reach = ways_out(hub, ways(hub), identifiers, opt_outs, ticket, proofs, wrote, asked.now)
    return {
        "ticket": ticket,
        "missing": False,
        "customer": {"id": customer_id, "name": name, "held": bool(head.held), "several": several},
        "notice": next((row for row in joins if row.undone is None), None),
        "agents": agents,
        "identifiers": identifiers,
        "opt_outs": {(row.kind, row.value): row for row in opt_outs},
        "stopped": opt_outs,
        "leaks": leaks,
        "tickets": episodes,
        "holds": holds,
        "ledger": ledger,
        "fields": preview.fields(attributes, customer_id),
        "alike": [people.pair(row, called, customer_id) for row in alike],
        "promises": promises,
        "survey": next(iter(surveys), None),
        "reach": reach,
        "preferred": preferred(reach, ticket),
        "participants": admitted,
        "draft_key": secrets.token_hex(16),
        **shown,
    }


def _several(identifiers: Sequence[Any]) -> bool:
    """Whether a customer goes by more than one address: then each message says by which it came."""
    return len([row for row in identifiers if row.own and row.kind != "device"]) > 1


async def _timeline(
    hub: Hub, asked: Asked, customer_id: int, name: str, agents: Sequence[Any], before: int | None = None
) -> dict[str, Any]:
    """A page of the timeline: the last messages, or those before one, with the events and files that belong between."""
    near = asked.near if before is None else None
    rows = list(await hub.reader.all(history.messages(customer_id, before, PAGE, near)))
    limit = 500 if near is not None else PAGE
    above = rows[limit] if len(rows) > limit else None
    page = rows[:limit][::-1]
    if near is not None and page and above is None and page[0].id > 1:
        # The window around a found message begins where it begins; there may well be older ones.
        above, page = page[0], page[1:] or page
    until = None
    if before is not None:
        following = await hub.reader.first(history.moment_of(before))
        until = following.created_at if following is not None else None
    events, files, changes = await _read(
        hub,
        history.events(customer_id, page[0].created_at if above is not None else None, until) if page or before is None else None,
        history.attachments([row.id for row in page]) if page else None,
        history.changes([row.id for row in page]) if page else None,
    )
    names = {agent.id: agent.name for agent in agents}
    lines = timeline.arrange(
        page, list(events)[::-1], files, customer=name, agents=names, now=asked.now, zone=asked.zone, above=above, changes=changes
    )
    inbound = [row.id for row in page if row.direction == "in"]
    return {"lines": lines, "older": page[0].id if above is not None else None, "seen": max(inbound, default=0)}


def add_routes(app: web.Application) -> None:
    """The inbox's pages, and the commands posted from them."""
    app.add_routes(routes)
    app.add_routes(tickets.routes)
    app.add_routes(people.routes)
