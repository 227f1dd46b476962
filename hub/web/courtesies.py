"""What customers see of us while we read and write, on channels that can show it. Nobody is owed it: a loss changes nothing, so it is
neither stored nor tried again, and never waited for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from hub.contract import NoAnswer, NotSent, Refused, ShowsPresence, TryLater
from hub.conversations import history
from hub.web.context import HUB, Hub

log = structlog.get_logger("hub.courtesies")

PATIENCE = 5.0  # seconds
AT_ONCE = 20  # of them under way; the rest are left out
TYPING_LASTS = 20.0  # seconds a provider shows it for: WhatsApp 25


@dataclass(slots=True)
class Courtesies:
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    typed: dict[int, float] = field(default_factory=dict)  # by ticket: when a provider was last told of typing


UNDER_WAY = web.AppKey("courtesies", Courtesies)


def show(app: web.Application, ticket_id: int, *, typing: bool = False) -> None:
    """Let the customer see that the last message of a ticket was read, with `typing` also that an answer is being written."""
    tasks, typed, now = app[UNDER_WAY].tasks, app[UNDER_WAY].typed, time.monotonic()
    if typing:
        if now - typed.get(ticket_id, -TYPING_LASTS) < TYPING_LASTS:
            return
        for old in [one for one, at in typed.items() if now - at >= TYPING_LASTS]:
            del typed[old]
        typed[ticket_id] = now
    if len(tasks) < AT_ONCE:
        task = asyncio.create_task(_show(app[HUB], ticket_id, typing), name="courtesy")
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _show(hub: Hub, ticket_id: int, typing: bool) -> None:
    row = await hub.reader.first(history.last_said(ticket_id))
    bound = hub.channel(row.channel_id) if row is not None and row.channel_id is not None else None
    if row is None or not row.provider_id or bound is None or not isinstance(bound.connector, ShowsPresence):
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await bound.connector.seen(row.provider_id, hub.http, typing=typing)
    except (Refused, TryLater, NotSent, NoAnswer, TimeoutError) as error:
        log.info("not shown to the customer", channel=bound.rule.name, error=str(error))


async def _stop(app: web.Application) -> None:
    for task in list(app[UNDER_WAY].tasks):
        task.cancel()


def add(app: web.Application) -> None:
    app[UNDER_WAY] = Courtesies()
    app.on_shutdown.append(_stop)
