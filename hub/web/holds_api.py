"""Holds for tools that poll: `GET /api/v1/holds` (everybody held now) and `GET /api/v1/holds/changes` (what changed since)."""

from __future__ import annotations

import asyncio
import json
import re

from aiohttp import web

from hub.holds.changes import CHANGES, TellStanding, changes_after, held_after
from hub.holds.gate import BadQuestion
from hub.holds.ledger import iso
from hub.web.auth import require_token
from hub.web.context import HUB, Hub
from hub.web.feed import parse_id

routes = web.RouteTableDef()

MOST_CHANGES, MOST_HELD = 500, 200
MOST_WAIT = 30  # seconds
MOST_WAITING = 100  # polls that wait at once; further ones are answered at once
WAITING = web.AppKey("waiting_polls", set[object])


def _number(request: web.Request, name: str, otherwise: int, most: int) -> int:
    typed = request.query.get(name, str(otherwise))
    if not re.fullmatch(r"[0-9]{1,6}", typed):
        raise BadQuestion(f"{name}: must be a number from 0 to {most}.")
    return min(int(typed), most)


def _cursor(request: web.Request, hub: Hub) -> int:
    """The event number after which to read on. Raises BadQuestion, or 410 for a number of another database."""
    typed = request.query.get("cursor", "")
    if not typed:
        return 0
    found = parse_id(typed)
    if found is None:
        raise BadQuestion("cursor: must be a next_cursor or a changes_cursor, as it was given.")
    if found[0] != hub.feed.id(0).rpartition("-")[0]:
        text = (
            "This cursor belongs to an earlier life of the database (it was restored or copied since), so nobody can say what you missed. "
            "Read everybody held now from GET /api/v1/holds, replace what you keep, and go on from its changes_cursor."
        )
        raise web.HTTPGone(text=text)
    return found[1]


@routes.get("/api/v1/holds/changes")
async def changes(request: web.Request) -> web.Response:
    """What changed after `cursor` (none: from the first change kept), oldest first, as the webhook tells it; with `wait` (seconds) an
    answer that would be empty waits for the next change."""
    await require_token(request)
    hub = request.app[HUB]
    limit = max(1, _number(request, "limit", 100, MOST_CHANGES))
    wait = _number(request, "wait", 0, MOST_WAIT)
    after = _cursor(request, hub)
    statement = changes_after(after, limit + 1)
    waiting = request.app[WAITING]
    if not wait or len(waiting) >= MOST_WAITING:
        rows = await hub.reader.all(statement)
    else:
        # Subscribed before the table is read: nothing can commit unseen in between.
        stream = hub.feed.subscribe(wanted=lambda event: event.type in CHANGES)
        waiting.add(stream)
        try:
            rows = await hub.reader.all(statement)
            if not rows:
                async with asyncio.timeout(wait + 1):
                    async for _ in stream.batches(keepalive=wait):
                        break
                rows = await hub.reader.all(statement)
        except TimeoutError:
            rows = []
        finally:
            waiting.discard(stream)
            stream.close()
    more, rows = len(rows) > limit, rows[:limit]
    told = []
    for row in rows:
        data = json.loads(row.data)
        told.append({"id": hub.feed.id(row.seq), "type": row.type, "time": iso(row.at), "subject": str(data["customer_id"]), "data": data})
    next_cursor = hub.feed.id(rows[-1].seq if rows else after)
    return web.json_response({"changes": told, "next_cursor": next_cursor, "more": more})


@routes.get("/api/v1/holds")
async def held_now(request: web.Request) -> web.Response:
    """Everybody held now, a page at a time, each as a change would tell them. `changes_cursor` of the first page is where to go on polling
    for changes: they may repeat what a later page has told, and never leave a gap."""
    await require_token(request)
    hub = request.app[HUB]
    limit = max(1, _number(request, "limit", MOST_HELD, MOST_HELD))
    typed = request.query.get("cursor", "")
    if not re.fullmatch(r"(c[0-9]{1,18})?", typed):
        raise BadQuestion("cursor: must be a next_cursor as it was given.")
    changes_cursor, now = hub.feed.last_id, hub.writer.clock()
    ids = [row[0] for row in await hub.reader.all(held_after(int(typed[1:] or 0), now, limit))]
    told = await hub.writer.run(TellStanding(tuple(ids))) if ids else []
    return web.json_response(
        {
            "held": told,
            "next_cursor": f"c{ids[-1]}" if len(ids) == limit else None,
            "changes_cursor": changes_cursor,
            "as_of": iso(now),
        }
    )


def add_routes(app: web.Application) -> None:
    app[WAITING] = set()
    app.add_routes(routes)
