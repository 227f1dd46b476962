"""The agents' live stream: numbered events as they commit, ids only, over server-sent events.

Ids only: what an event is about is read by the page that shows it, with that page's own rights. A browser that was away
says which event it saw last and is told what it missed, or to read everything again (`resync`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence

from aiohttp import web

from hub.storage.records import Event
from hub.web.auth import NotSignedIn, authenticate
from hub.web.context import HUB

routes = web.RouteTableDef()

RECHECK = 30.0  # seconds after which an open stream asks again whether its session still lives
RETRY = (1_000, 4_000)  # milliseconds; each stream its own, so that a restart is not met by everybody at once

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
    "X-Content-Type-Options": "nosniff",
}


def frame(batch: Sequence[Event] | None, last_seq: int) -> str:
    """One SSE frame: a comment for a quiet spell, `resync` where events were lost, else the changes."""
    if batch is None:
        return f"id: {last_seq}\nevent: resync\ndata: {{}}\n\n"
    if not batch:
        return ": still here\n\n"
    changes = [
        {"seq": e.seq, "type": e.type, "customer_id": e.customer_id, "ticket_id": e.ticket_id, "message_id": e.message_id} for e in batch
    ]
    return f"id: {batch[-1].seq}\nevent: changes\ndata: {json.dumps(changes, separators=(',', ':'))}\n\n"


def _after(request: web.Request) -> int | None:
    typed = request.headers.get("Last-Event-ID") or request.query.get("after", "")
    return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 18 else None


@routes.get("/stream", allow_head=False)
async def stream(request: web.Request) -> web.StreamResponse:
    """Follow the feed from `Last-Event-ID` (or `?after=`) on, until the browser goes, its session ends, or the hub stops."""
    feed = request.app[HUB].feed
    # Subscribed before the headers go: nothing can commit unseen in between.
    events = feed.subscribe(after=_after(request))
    response = web.StreamResponse(headers=HEADERS)
    try:
        await response.prepare(request)
        await response.write(f"retry: {random.randint(*RETRY)}\n\n".encode())
        checked = time.monotonic()
        async for batch in events.batches():
            # A stream outlives the check at its door: a session that has ended must not go on listening.
            if time.monotonic() - checked > RECHECK or any(event.type.startswith("agent.") for event in batch or ()):
                await authenticate(request, in_use=False)
                checked = time.monotonic()
            await response.write(frame(batch, feed.last_seq).encode())
        await response.write_eof()
    except (ConnectionError, NotSignedIn):
        pass  # the browser went, or its session ended: either way there is nobody left to tell
    finally:
        events.close()
    return response


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
