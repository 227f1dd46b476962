"""The agents' live stream: numbered events as they commit, ids only, over server-sent events.

Ids only: what an event is about is read by the page that shows it, with that page's own rights. A browser that was away
says which event it saw last and is told what it missed, or to read everything again (`resync`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from hub.conversations import history
from hub.storage.records import Event
from hub.web.auth import NotSignedIn, authenticate, require_agent
from hub.web.context import HUB, Hub
from hub.web.feed import Batch, Feed, Id, parse_id
from hub.web.presence import PRESENCE

routes = web.RouteTableDef()

RECHECK = (22.0, 38.0)  # seconds after which an open stream asks again whether its session lives; each its own, lest all ask at once
RETRY = (1_000, 4_000)  # milliseconds; each stream its own, so that a restart is not met by everybody at once
REPLAYED = 1_000  # events a browser that was away is told one by one; after more it reads everything again

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
    "X-Content-Type-Options": "nosniff",
}
_compact = json.JSONEncoder(separators=(",", ":")).encode


def frame(batch: Sequence[Any] | None, feed: Feed) -> bytes:
    """One SSE frame: a comment for a quiet spell, `resync` where events were lost, else the changes (encoded once for all streams)."""
    if batch is None:
        return f"id: {feed.last_id}\nevent: resync\ndata: {{}}\n\n".encode()
    if not batch:
        return b": still here\n\n"
    if isinstance(batch, Batch) and batch.encoded is not None:
        return batch.encoded
    changes = [
        {"seq": e.seq, "type": e.type, "customer_id": e.customer_id, "ticket_id": e.ticket_id, "message_id": e.message_id} for e in batch
    ]
    encoded = f"id: {feed.id(batch[-1].seq)}\nevent: changes\ndata: {_compact(changes)}\n\n".encode()
    if isinstance(batch, Batch):
        batch.encoded = encoded
    return encoded


def _after(request: web.Request) -> Id | None:
    return parse_id(request.headers.get("Last-Event-ID") or request.query.get("after", ""))


async def _missed(hub: Hub, after: int, upto: int) -> Sequence[Any] | None:
    """The events in (after, upto], as rows of the table; None where they are too many to tell."""
    rows = await hub.reader.all(history.events_between(after, upto, REPLAYED + 1))
    return None if len(rows) > REPLAYED else rows


def _ends_sessions(batch: Sequence[Event] | None, agent_id: int) -> bool:
    """Whether a batch tells of this agent's own account: only those streams ask again at once, not all of them."""
    return any(event.type.startswith("agent.") and event.agent_id in (agent_id, None) for event in batch or ())


@routes.get("/stream", allow_head=False)
async def stream(request: web.Request) -> web.StreamResponse:
    """Follow the feed from `Last-Event-ID` (or `?after=`) on, until the browser goes, its session ends, or the hub stops."""
    hub, agent_id = request.app[HUB], require_agent(request).agent_id
    feed = hub.feed
    # Subscribed before the headers go: nothing can commit unseen in between.
    events = feed.subscribe(after=_after(request))
    response = web.StreamResponse(headers=HEADERS)
    try:
        await response.prepare(request)
        if request.transport is not None:
            events.cut = request.transport.abort
        await response.write(f"retry: {random.randint(*RETRY)}\n\n".encode())
        if events.gap is not None:
            missed = await _missed(hub, *events.gap)
            if missed is None:
                events.lose()
            elif missed:
                await response.write(frame(missed, feed))
        recheck = time.monotonic() + random.uniform(*RECHECK)
        with request.app[PRESENCE].agent(response):
            async for batch in events.batches():
                # A stream outlives the check at its door: a session that has ended must not go on listening.
                if time.monotonic() > recheck or _ends_sessions(batch, agent_id):
                    await authenticate(request, in_use=False)
                    recheck = time.monotonic() + random.uniform(*RECHECK)
                await response.write(frame(batch, feed))
        await response.write_eof()
    except (ConnectionError, NotSignedIn):
        pass  # the browser went, or its session ended: either way there is nobody left to tell
    finally:
        events.close()
    return response


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
