"""Who is writing at this moment, and what was just read: told to the streams of this process that are open now, and stored nowhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web
from sqlalchemy import Select, select

from hub.customers.disclosure import ProvedKey
from hub.storage.tables import metadata
from hub.web import courtesies
from hub.web.auth import read_form, require_agent
from hub.web.context import HUB
from hub.web.visitors import Buckets, View, body_of, refuse, view_of

routes = web.RouteTableDef()

PATIENCE = 5.0  # seconds a stream that does not take a notice is waited for
UNDER_WAY = 500  # notices at once; the rest are left out, since nobody is owed one

_message = metadata.tables["message"].c
_ticket = metadata.tables["ticket"].c
_identifier = metadata.tables["identifier"].c
_marker = metadata.tables["read_marker"].c
_agent = metadata.tables["agent"].c


@dataclass(frozen=True, slots=True, eq=False)
class Ear:
    """An open stream of a visitor. `look` makes the frame of what this visitor sees now."""

    response: web.StreamResponse
    view: View
    look: Callable[[], Awaitable[bytes]]


@dataclass(slots=True)
class Presence:
    """The open streams that hear of it. Nothing here is lost that matters."""

    agents: set[web.StreamResponse] = field(default_factory=set)
    visitors: dict[ProvedKey, set[Ear]] = field(default_factory=dict)
    typing: Buckets = field(default_factory=lambda: Buckets(6, 9))  # by visitor: one in three seconds while they type, and the ends of it
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextmanager
    def agent(self, response: web.StreamResponse) -> Iterator[None]:
        """Let an agent's open stream hear who is writing."""
        self.agents.add(response)
        try:
            yield
        finally:
            self.agents.discard(response)

    @contextmanager
    def visitor(self, ear: Ear) -> Iterator[None]:
        """Let a visitor's open stream hear that an agent writes to them, or read what they wrote."""
        for key in ear.view.keys:
            self.visitors.setdefault(key, set()).add(ear)
        try:
            yield
        finally:
            for key in ear.view.keys:
                if not (ears := self.visitors.get(key, set()) - {ear}):
                    self.visitors.pop(key, None)
                else:
                    self.visitors[key] = ears

    def of(self, key: ProvedKey, channel_id: int) -> list[Ear]:
        """The open streams of whoever this is, that show this channel."""
        return [ear for ear in self.visitors.get(key, ()) if channel_id in ear.view.channel_ids]

    def write(self, response: web.StreamResponse, frame: Callable[[], Awaitable[bytes]]) -> None:
        if len(self.tasks) < UNDER_WAY:
            task = asyncio.create_task(_write(response, frame), name="presence")
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


async def _write(response: web.StreamResponse, frame: Callable[[], Awaitable[bytes]]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await response.write(await frame())
    except (ConnectionError, TimeoutError, RuntimeError):
        pass  # it went meanwhile (RuntimeError: its end was written)


PRESENCE = web.AppKey("presence", Presence)


def _ready(frame: bytes) -> Callable[[], Awaitable[bytes]]:
    async def made() -> bytes:
        return frame

    return made


# --- what is read for it ---


def read_by_agents(message_ids: Sequence[int]) -> Select[tuple[int]]:
    """Those of these messages that an agent has read: the id of each."""
    read = select(_marker.agent_id).where(_marker.ticket_id == _message.ticket_id, _marker.message_id >= _message.id)
    return select(_message.id).where(_message.id.in_(message_ids), read.exists())


def _listening(ticket_id: int) -> Select[tuple[int, str, str, str]]:
    """Who a ticket's answers go to, as (channel_id, kind, site, value), where that is still theirs alone."""
    return (
        select(_ticket.channel_id, _identifier.kind, _identifier.site, _identifier.value)
        .join_from(metadata.tables["ticket"], metadata.tables["identifier"], _identifier.id == _ticket.identifier_id)
        .where(_ticket.id == ticket_id, _identifier.standing == "proven", _identifier.ended_at.is_(None), _identifier.shared_at.is_(None))
    )


def _written_on(view: View) -> Select[tuple[int]]:
    """The unresolved tickets a visitor writes to when they write now, newest first."""
    keys = [key for key in view.keys if key.kind in ("device", "user_id")]
    return (
        select(_ticket.id)
        .join_from(metadata.tables["ticket"], metadata.tables["identifier"], _identifier.id == _ticket.identifier_id)
        .where(
            _ticket.channel_id.in_(view.channel_ids),
            _ticket.status != "resolved",
            _identifier.value.in_([key.value for key in keys]),
            _identifier.kind.in_([key.kind for key in keys]),
            _identifier.site.in_([key.site for key in keys]),
            _identifier.standing == "proven",
            _identifier.ended_at.is_(None),
            _identifier.shared_at.is_(None),
        )
        .order_by(_ticket.id.desc())
        .limit(1)
    )


# --- the visitor writes ---


@routes.post("/chat/{channel}/typing")
async def visitor_types(request: web.Request) -> web.Response:
    """The visitor is writing, or no longer: {typing} -> 204, told to the agents whose stream is open. Nothing is stored."""
    view, presence = view_of(request), request.app[PRESENCE]
    body = await body_of(request)
    if not isinstance(body.get("typing"), bool):
        return refuse(400, "`typing` must be true or false.")
    if wait := presence.typing.wait(view.session.device, time.monotonic()):
        return refuse(429, "Too many notices at once.", wait)
    ticket_id = await view.hub.reader.value(_written_on(view)) if presence.agents else None
    if ticket_id is not None:
        frame = f"event: typing\ndata: {json.dumps({'ticket_id': ticket_id, 'typing': body['typing']})}\n\n".encode()
        for response in tuple(presence.agents):
            presence.write(response, _ready(frame))
    return web.Response(status=204)


# --- an agent writes, or reads ---


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/typing")
async def agent_types(request: web.Request) -> web.Response:
    """An agent is writing an answer on this ticket: 204, shown to the customer where their channel can."""
    hub, me, ticket_id = request.app[HUB], require_agent(request).agent_id, int(request.match_info["ticket_id"])
    await read_form(request)
    if await hub.reader.value(select(_ticket.id).where(_ticket.id == ticket_id)) is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    courtesies.show(request.app, ticket_id, typing=True)
    await is_typing(request.app, ticket_id, me)
    return web.Response(status=204)


async def is_typing(app: web.Application, ticket_id: int, agent_id: int) -> None:
    """Show the visitor of a ticket, where they look at it now, that this agent is writing to them."""
    hub, presence = app[HUB], app[PRESENCE]
    row = await hub.reader.first(_listening(ticket_id)) if presence.visitors else None
    ears = presence.of(ProvedKey(row.kind, row.site, row.value), row.channel_id) if row is not None else []
    if ears:
        name = await hub.reader.value(select(_agent.name).where(_agent.id == agent_id))
        frame = f"data: {json.dumps({'typing': {'name': name or ''}})}\n\n".encode()
        for ear in ears:
            presence.write(ear.response, _ready(frame))


async def was_read(app: web.Application, ticket_id: int) -> None:
    """Show the visitor of a ticket, where they look at it now, that what they wrote was read."""
    presence = app[PRESENCE]
    row = await app[HUB].reader.first(_listening(ticket_id)) if presence.visitors else None
    for ear in presence.of(ProvedKey(row.kind, row.site, row.value), row.channel_id) if row is not None else ():
        presence.write(ear.response, ear.look)


async def _stop(app: web.Application) -> None:
    for task in list(app[PRESENCE].tasks):
        task.cancel()


def add(app: web.Application) -> None:
    app[PRESENCE] = Presence()
    app.on_shutdown.append(_stop)
    app.add_routes(routes)
