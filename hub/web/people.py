"""Who is who, for agents: suggestions, merging with a preview, taking a merge back, and moving what was said to somebody else.

Whatever acts shows first what it will do, and can be undone. Each command is one of `hub.customers.merging`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from sqlalchemy.sql import Executable

from hub.conversations import history, queries, wording
from hub.conversations.text import storable
from hub.customers import merging, preview, suggestions, why
from hub.customers.canonical import canonical
from hub.policy import Refusal
from hub.storage.facts import Work
from hub.storage.records import JoinLog
from hub.web.auth import now_of, require_agent
from hub.web.context import HUB, Hub
from hub.web.pages import render
from hub.web.tickets import fetched, number, zone_of

routes = web.RouteTableDef()

PAGE = 30
MOST_TICKETS = 2_000  # that a look at what an undo does tells apart


# --- what several pages say ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """A customer as a page calls them."""

    id: int
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two customers who may be one person, as pages show it. `other` is the one beside whom an agent looks at."""

    left: Named
    right: Named
    other: Named
    likely: str
    reasons: tuple[str, ...]
    at: int
    again: bool  # proof that came after somebody had said they are two


def named(row: Any) -> Named:
    """A row of `preview.called` or `queries.find` in words."""
    return Named(
        row.id,
        wording.customer_name(row.name, row.kind, row.address),
        wording.address(row.kind, row.address) if row.kind and row.address else "",
    )


def pair(row: Any, called: Sequence[Any], beside: int | None = None) -> Pair:
    """A row of `suggestions` with the two it names."""
    known = {each.id: named(each) for each in called}
    left, right = (known.get(id_) or Named(id_, f"Customer {id_}", "") for id_ in (row.left_id, row.right_id))
    other = left if beside == row.right_id else right
    return Pair(left, right, other, wording.likely(row.score), suggestions.reasons(row), row.at, row.proof_at is not None)


def _words(request: web.Request) -> dict[str, Any]:
    hub = request.app[HUB]
    return {"say": wording, "zone": zone_of(request), "now": now_of(hub), "labels": _labels(hub)}


def _labels(hub: Hub) -> dict[int, str]:
    return {bound.rule.id: bound.rule.label for bound in hub.channels.values()}


async def _read(hub: Hub, *statements: Executable) -> list[Sequence[Any]]:
    return list(await asyncio.gather(*(hub.reader.all(statement) for statement in statements)))


async def _names(hub: Hub) -> dict[int, str]:
    return {row.id: row.name for row in await hub.reader.all(queries.agents())}


def _place(request: web.Request, name: str) -> int:
    return int(request.match_info[name])


async def _known(request: web.Request, *ids: int) -> list[Any]:
    """These customers, in this order, merged ones too. Raises 404."""
    found = {row.id: row for row in await request.app[HUB].reader.all(preview.called(ids))}
    if any(id_ not in found for id_ in ids):
        raise web.HTTPNotFound(text="There is no such customer.\n")
    return [found[id_] for id_ in ids]


async def _live(request: web.Request, *names: str) -> list[Any]:
    """The live customers a page's path names. Raises 404, and 307 to the same page of the survivors where one of them was merged."""
    rows = await _known(request, *(_place(request, name) for name in names))
    if any(row.merged_into is not None for row in rows):
        places = {**request.match_info, **{name: str(row.merged_into or row.id) for name, row in zip(names, rows, strict=True)}}
        resource = request.match_info.route.resource
        assert resource is not None  # a page that was found
        goal = resource.url_for(**places).with_query(request.query)
        raise web.HTTPTemporaryRedirect(str(goal), headers={"Cache-Control": "no-store"})
    return rows


async def _run(request: web.Request, work: Work[Any], back: str) -> Any:
    """What a command answers. Raises the page that tells why it was refused."""
    try:
        return await request.app[HUB].writer.run(work)
    except Refusal as refusal:
        name = "inbox/refusal.html" if fetched(request) else "people/refused.html"
        page = render(request, name, status=409, reason=str(refusal), back=back)
        raise web.HTTPConflict(text=page.text, content_type="text/html", headers={"Cache-Control": "no-store"}) from None


def _done(request: web.Request, goal: str) -> web.Response:
    """204 to our own script, which reads the screen again; a form without script goes on to a page."""
    return web.Response(status=204) if fetched(request) else web.Response(status=303, headers={"Location": goal})


def _by(request: web.Request) -> tuple[str, int]:
    agent_id = require_agent(request).agent_id
    return merging.agent(agent_id), agent_id


# --- suggestions -----------------------------------------------------------------------------------------------------


@routes.get("/customers/suggestions")
async def suggested(request: web.Request) -> web.StreamResponse:
    """Who may be one person, the newest first, a page at a time."""
    hub = request.app[HUB]
    rows = await hub.reader.all(suggestions.newest(PAGE + 1, number(request.query.get("after"))))
    page = rows[:PAGE]
    called = await hub.reader.all(preview.called({id_ for row in page for id_ in (row.left_id, row.right_id)})) if page else ()
    more = page[-1].newest_id if len(rows) > PAGE else None
    return render(request, "people/suggestions.html", pairs=[pair(row, called) for row in page], more=more, **_words(request))


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/reject/{other_id:[0-9]{1,17}}")
async def reject(request: web.Request) -> web.StreamResponse:
    """They are two people: suggested no more, and joined by no later proof alone."""
    one, other = await _known(request, _place(request, "customer_id"), _place(request, "other_id"))
    await _run(request, merging.Reject(one.id, other.id, *_by(request)), f"/conversations/{one.id}")
    return _done(request, "/customers/suggestions")


# --- merging ---------------------------------------------------------------------------------------------------------


@routes.get(r"/customers/{customer_id:[0-9]{1,17}}/merge")
async def choose(request: web.Request) -> web.StreamResponse:
    """Look for the customer who is the same person."""
    (row,) = await _live(request, "customer_id")
    typed = request.query.get("q", "")[:200].strip()
    found = [one for one in await _found(request, typed) if one.id != row.id]
    alike = await request.app[HUB].reader.all(suggestions.for_customer(row.id)) if not typed else ()
    called = await request.app[HUB].reader.all(preview.called({id_ for p in alike for id_ in (p.left_id, p.right_id)})) if alike else ()
    pairs = [pair(each, called, row.id) for each in alike]
    return render(request, "people/choose.html", customer=named(row), typed=typed, found=found, pairs=pairs, **_words(request))


async def _found(request: web.Request, typed: str) -> list[Named]:
    """Customers by what an agent typed: a number of ours, an address, a phone number, or a name."""
    if not typed:
        return []
    hub = request.app[HUB]
    whole = typed.lower()
    values = {whole, canonical("email", typed), canonical("phone", typed, hub.policy.region)} if "\x00" not in typed else set()
    search = hub.reader.search.found(typed)
    said = await hub.reader.all(search) if search is not None else ()
    # The index holds what was said as well: only where the person is called so.
    also = {row.conversation_id for row in said if all(word in (row.name or "").casefold() for word in whole.split())}
    ours = number(typed.removeprefix("#").strip())
    rows = await hub.reader.all(queries.find(ours, [value for value in values if value], storable(whole), also))
    return [named(row) for row in rows]


@routes.get(r"/customers/{customer_id:[0-9]{1,17}}/merge/{other_id:[0-9]{1,17}}")
async def look(request: web.Request) -> web.StreamResponse:
    """What merging these two would do, and the button that does it."""
    hub = request.app[HUB]
    rows = await _live(request, "customer_id", "other_id")
    one, other = rows
    if one.id == other.id:
        raise web.HTTPSeeOther(f"/conversations/{one.id}", headers={"Cache-Control": "no-store"})
    ids, words = (one.id, other.id), _words(request)
    heads, identifiers, tickets, holds, attributes, parted, opt_outs, alike, agents = await _read(
        hub,
        preview.heads(ids),
        preview.identifiers(ids),
        preview.tickets(ids),
        preview.holds(ids, words["now"]),
        preview.attributes(ids),
        preview.parted(*ids),
        history.opt_outs(ids),
        suggestions.for_customer(one.id),
        queries.agents(),
    )
    told = preview.merging(
        heads,
        identifiers,
        tickets,
        holds,
        attributes,
        parted,
        names={row.id: row.name for row in agents},
        day=lambda at: wording.on(at, words["now"], words["zone"]),
    )
    hints = [suggestions.reasons(row) for row in alike if {row.left_id, row.right_id} == set(ids)]
    calls = {head.id: named(head) for head in heads}
    reasons = hints[0] if hints else ()
    return render(request, "people/merge.html", told=told, calls=calls, opt_outs=opt_outs, reasons=reasons, back=one.id, **words)


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/merge/{other_id:[0-9]{1,17}}")
async def merge(request: web.Request) -> web.StreamResponse:
    """Make them one; the conversation says so, with the way back."""
    one, other = await _known(request, _place(request, "customer_id"), _place(request, "other_id"))
    done = await _run(request, merging.Merge(one.id, other.id, *_by(request)), f"/conversations/{one.id}")
    return web.Response(status=303, headers={"Location": f"/conversations/{done.customer_id}?joined={done.join_id}"})


# --- taking back -----------------------------------------------------------------------------------------------------


@routes.get(r"/customers/{customer_id:[0-9]{1,17}}/why")
async def explain(request: web.Request) -> web.StreamResponse:
    """Why this is one person: a part of a page, fetched when it is opened."""
    hub = request.app[HUB]
    told = await why.explain(_place(request, "customer_id"), hub.reader, _labels(hub), zone_of(request))
    if told is None:
        raise web.HTTPNotFound(text="There is no such customer.\n")
    return render(request, "people/why.html", told=told, **_words(request))


@routes.get(r"/joins/{join_id:[0-9]{1,17}}")
async def look_back(request: web.Request) -> web.StreamResponse:
    """What taking a join back would do; of one that is taken back, the two customers they are again."""
    hub = request.app[HUB]
    row, names = await asyncio.gather(hub.reader.first(history.join(_place(request, "join_id"))), _names(hub))
    if row is None:
        raise web.HTTPNotFound(text="There is no such join.\n")
    ends = await _known(request, row.left_id, row.right_id)
    lives = sorted({end.merged_into or end.id for end in ends})
    words = {**_words(request), "join": row, "by": _who(row.actor, names)}
    if row.undone is not None:
        return render(request, "people/undone.html", customers=[named(each) for each in await _known(request, *lives)], **words)
    live = lives[0]
    homes, ties, identifiers, spread, tickets, holds = await _read(
        hub,
        preview.homes(live),
        preview.ties(live),
        preview.identifiers([live]),
        preview.spread(live),
        preview.tickets([live], MOST_TICKETS),
        preview.holds([live], words["now"]),
    )
    try:
        told = preview.parting(row.id, homes, [JoinLog(*tie) for tie in ties], identifiers, spread, tickets, holds)
    except Refusal:  # undone between two reads
        raise web.HTTPSeeOther(f"/joins/{row.id}") from None
    (customer,) = await _known(request, live)
    return render(request, "people/undo.html", told=told, customer=named(customer), **words)


def _who(actor: str, names: dict[int, str]) -> str:
    kind, _, id_ = actor.partition(":")
    if kind == "agent":
        return names.get(int(id_), "an agent") if id_.isdigit() else "an agent"
    return wording.program(actor) or "proof"


@routes.post(r"/joins/{join_id:[0-9]{1,17}}/undo")
async def undo(request: web.Request) -> web.StreamResponse:
    """Take a join back: messages, tickets and holds return to whose they were."""
    row = await request.app[HUB].reader.first(history.join(_place(request, "join_id")))
    if row is None:
        raise web.HTTPNotFound(text="There is no such join.\n")
    back = f"/joins/{row.id}"
    await _run(request, merging.Unmerge(row.id, row.left_id, row.right_id, *_by(request)), back)
    return web.Response(status=303, headers={"Location": back})


# --- single addresses ------------------------------------------------------------------------------------------------


async def _identifier(request: web.Request) -> tuple[int, int]:
    """The customer and the identifier a path names. Raises 404."""
    (row,) = await _known(request, _place(request, "customer_id"))
    identifier_id = _place(request, "identifier_id")
    if await request.app[HUB].reader.value(history.identifier_kind(identifier_id)) is None:
        raise web.HTTPNotFound(text="There is no such address.\n")
    return row.id, identifier_id


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/identifiers/{identifier_id:[0-9]{1,17}}/dismiss")
async def dismiss(request: web.Request) -> web.StreamResponse:
    """What they claimed is not theirs: their hold lets go of it."""
    customer_id, identifier_id = await _identifier(request)
    back = f"/conversations/{customer_id}"
    await _run(request, merging.Dismiss(customer_id, identifier_id, require_agent(request).agent_id), back)
    return _done(request, back)


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/identifiers/{identifier_id:[0-9]{1,17}}/take-out")
async def take_out(request: web.Request) -> web.StreamResponse:
    """An address is somebody else's: it becomes a customer of its own, with the messages that came by it."""
    customer_id, identifier_id = await _identifier(request)
    back = f"/conversations/{customer_id}"
    await _run(request, merging.TakeOut(customer_id, identifier_id, *_by(request)), back)
    return _done(request, back)


# --- moving ----------------------------------------------------------------------------------------------------------


async def _to(request: web.Request, here: int) -> dict[str, Any]:
    """Whom to move to: who was found, and who was chosen."""
    typed, chosen = request.query.get("q", "")[:200].strip(), number(request.query.get("to"))
    found = [one for one in await _found(request, typed) if one.id != here]
    to = None
    if chosen is not None and chosen != here:
        to = next((named(row) for row in await request.app[HUB].reader.all(preview.called([chosen])) if row.merged_into is None), None)
    return {"typed": typed, "found": found, "to": to}


@routes.get(r"/tickets/{ticket_id:[0-9]{1,17}}/move")
async def where_to(request: web.Request) -> web.StreamResponse:
    """Choose whose ticket this is, and confirm it."""
    ticket_id = _place(request, "ticket_id")
    words = _words(request)
    row = await request.app[HUB].reader.first(queries.ticket_head(ticket_id, require_agent(request).agent_id, words["now"]))
    if row is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    what = {"kind": "ticket", "id": ticket_id, "title": f"Ticket #{ticket_id}", "text": row.subject or row.preview, "ticket_id": ticket_id}
    (owner,) = await _known(request, row.conversation_id)
    return render(request, "people/move.html", what=what, owner=named(owner), **await _to(request, owner.id), **words)


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/move")
async def move_ticket(request: web.Request) -> web.StreamResponse:
    """Give a ticket with all its messages to another customer: form field `to`."""
    ticket_id = _place(request, "ticket_id")
    if await request.app[HUB].reader.value(queries.newest_inbound(ticket_id)) is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    to = number(str((await request.post()).get("to", ""))) or 0
    goal = f"/inbox/all?ticket={ticket_id}"
    await _run(request, merging.MoveTicket(ticket_id, to, require_agent(request).agent_id), goal)
    return _done(request, goal)


@routes.get(r"/messages/{message_id:[0-9]{1,17}}/move")
async def where_to_message(request: web.Request) -> web.StreamResponse:
    """Choose whose message this is, and confirm it."""
    row = await request.app[HUB].reader.first(history.said(_place(request, "message_id")))
    if row is None:
        raise web.HTTPNotFound(text="There is no such message.\n")
    title = "A message they wrote" if row.direction == "in" else "An answer to them" if row.direction == "out" else "A note"
    what = {"kind": "message", "id": row.id, "title": title, "text": row.text or row.subject, "ticket_id": row.ticket_id}
    (owner,) = await _known(request, row.conversation_id)
    return render(request, "people/move.html", what=what, owner=named(owner), **await _to(request, owner.id), **_words(request))


@routes.post(r"/messages/{message_id:[0-9]{1,17}}/move")
async def move_message(request: web.Request) -> web.StreamResponse:
    """Give one message to another customer, onto their open ticket or a new one: form field `to`."""
    row = await request.app[HUB].reader.first(history.said(_place(request, "message_id")))
    if row is None:
        raise web.HTTPNotFound(text="There is no such message.\n")
    to = number(str((await request.post()).get("to", ""))) or 0
    work = merging.MoveMessage(row.id, row.conversation_id, to, require_agent(request).agent_id)
    ticket_id = await _run(request, work, f"/inbox/all?ticket={row.ticket_id}")
    return _done(request, f"/inbox/all?ticket={ticket_id}&m={row.id}")
