"""What the chat widget is served: a visitor's messages, the live stream of them, their files, and the widget itself.

Who the visitor is, and whether they may ask at all, is decided in `visitors`.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import ETag, web

from hub.conversations import history
from hub.customers.disclosure import customers_of, visible_attachments, visible_messages
from hub.storage.records import Event
from hub.web import chat_config, chat_continue, codes, presence, visitors
from hub.web.attachments import NO_SCRIPT, check_clean, disposition
from hub.web.feed import Stream
from hub.web.visitors import CHAT, View, refusal, refuse, view_of

PAGE = 50  # messages in one answer
KEEPALIVE = 15.0  # seconds
STREAMS_PER_VISITOR = 8
# By a browser on another site's page.
ASKED_FIRST = ("session", "messages", "stream", "files/{attachment_id}", "code", "code/{id}", "config", "typing", "continue")
STRANGER = 1.0  # seconds between two looks whether a visitor who never wrote has become somebody: all the hub's messages make them look
SHOWN = frozenset({"message.received", "message.queued", "message.updated", "code.asked"})
PARTS = sorted((Path(__file__).parent / "static" / "widget").glob("*.js"))

routes = web.RouteTableDef()


# --- messages ---


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise refusal(web.HTTPBadRequest, f"`{name}` must be a message id.")
    return int(text)


@routes.get("/chat/{channel}/messages")
async def messages(request: web.Request) -> web.Response:
    """The visitor's messages, oldest first: those after an id, the last before an id, or the last of all. And a code to be typed in."""
    view = view_of(request)
    after, before = _number(request, "after"), _number(request, "before")
    listed = await shown(view, after=after, before=before)
    answer = {"messages": listed, "more": len(listed) == PAGE, "code": await codes.waiting(view)}
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


async def shown(view: View, *, after: int = 0, before: int = 0, ids: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Messages as the widget is told them: three reads, whatever their number."""
    statement = visible_messages(view.keys, view.channel_ids, after=after, before=before, ids=ids, limit=len(ids) or PAGE)
    rows = sorted(await view.hub.reader.all(statement), key=lambda row: int(row.id))
    files: dict[int, list[dict[str, Any]]] = {}
    if rows:
        for file in await view.hub.reader.all(visible_attachments(view.keys, view.channel_ids, message_ids=[row.id for row in rows])):
            link = f"/chat/{view.channel}/files/{quote(file.id, safe='')}"
            told = {"id": file.id, "name": file.name, "type": file.content_type, "size": file.size, "url": link}
            files.setdefault(file.message_id, []).append(told)
    asked = [row.id for row in rows if row.direction == "in"]
    seen = {row.id for row in await view.hub.reader.all(presence.read_by_agents(asked))} if asked else set()
    return [_told(row, files.get(row.id, []), row.id in seen) for row in rows]


def _told(row: Any, files: list[dict[str, Any]], seen: bool) -> dict[str, Any]:
    at = datetime.fromtimestamp(row.created_at / 1_000_000, UTC).isoformat(timespec="milliseconds")
    told = {"id": row.id, "text": row.text, "at": at, "attachments": files}
    if row.direction == "in":
        # What stands behind the separator is beside their words, for agents. (`connectors/webchat.py`, BESIDE)
        return told | {"text": row.text.partition("\n\n\u2063")[0], "from": "you", "name": "", "status": "read" if seen else "sent"}
    return told | {"from": "agent", "name": row.agent_name or "", "ref": row.provider_id or "", "read": row.status == "read"}


# --- live ---


def shows(event: Event) -> bool:
    """Whether an event may have something for a visitor it concerns; the disclosure query then decides what is shown."""
    return event.type in SHOWN


async def _look(view: View, feed: Stream) -> None:
    """Let the stream hear of whoever this visitor is known as now: nobody at all until their first message."""
    view.hub.feed.listen(feed, frozenset(row[0] for row in await view.hub.reader.all(customers_of(view.keys))))


@routes.get("/chat/{channel}/stream", allow_head=False)
async def stream(request: web.Request) -> web.StreamResponse:
    """The visitor's messages as they come (server-sent events over fetch): at once those after `after`, then each new or changed one."""
    view = view_of(request)
    after = _number(request, "after")
    chat = request.app[CHAT]
    open_streams = chat.streams
    if open_streams[view.session.device] >= STREAMS_PER_VISITOR:
        return refuse(429, "Too many open chat windows.", 30.0)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"}
    )
    feed = view.hub.feed.subscribe_customers(shows)  # before the backlog: between the two nothing slips through
    open_streams[view.session.device] += 1
    try:
        await _look(view, feed)
        await response.prepare(request)
        if request.transport is not None:
            feed.cut = request.transport.abort
        async for listed in _backlog(view, after):
            await response.write(_frame(listed))
        if (code := await codes.waiting(view)) is not None:
            await response.write(_frame([], code))
        with request.app[presence.PRESENCE].visitor(presence.Ear(response, view, functools.partial(_now, view))):
            async for batch in feed.batches(KEEPALIVE):
                if chat.clock() >= view.session.good_until:
                    break
                await response.write(await _news(view, feed, batch))
        await response.write_eof()
    except ConnectionResetError:
        pass  # the visitor left
    finally:
        feed.close()
        open_streams[view.session.device] -= 1
        if open_streams[view.session.device] <= 0:
            del open_streams[view.session.device]
    return response


async def _backlog(view: View, after: int) -> AsyncIterator[list[dict[str, Any]]]:
    """All that came after a message, page by page; without one, the last page."""
    more = True
    while more:
        listed = await shown(view, after=after)
        yield listed
        more = bool(after) and len(listed) == PAGE
        after = listed[-1]["id"] if more else after


async def _now(view: View) -> bytes:
    return _frame(await shown(view))


async def _news(view: View, feed: Stream, batch: Sequence[Event] | None) -> bytes:
    if batch is None:  # something went by that nobody can name any more: what the visitor sees last covers it
        stranger = not feed.customers
        await _look(view, feed)
        if feed.customers:
            return _frame(await shown(view), await codes.waiting(view))
        if stranger:
            await asyncio.sleep(STRANGER)
        return b":\n\n"
    ids = sorted({event.message_id for event in batch if event.message_id is not None})
    listed = await shown(view, ids=ids) if ids else []
    code = await codes.waiting(view) if any(event.type == "code.asked" for event in batch) else None
    return _frame(listed, code) if listed or code is not None else b":\n\n"


def _frame(listed: list[dict[str, Any]], code: dict[str, Any] | None = None) -> bytes:
    return f"data: {json.dumps({'messages': listed} | ({'code': code} if code is not None else {}))}\n\n".encode()


# --- files ---


@routes.get("/chat/{channel}/files/{attachment_id}")
async def attachment(request: web.Request) -> web.StreamResponse:
    """A file of a message the visitor may see: always a download, never something the browser opens by itself."""
    view = view_of(request)
    row = await view.hub.reader.first(visible_attachments(view.keys, view.channel_ids, attachment_id=request.match_info["attachment_id"]))
    path = view.hub.blobs.path(row.sha256) if row is not None else None
    if row is None or path is None or not await asyncio.to_thread(path.is_file):
        raise refusal(web.HTTPNotFound, "There is no such file.")
    await check_clean(view.hub, await view.hub.reader.first(history.file(request.match_info["attachment_id"])))
    return web.FileResponse(
        path,
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": disposition(row.name),
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": NO_SCRIPT,
            "Cache-Control": "private, no-store",
        },
    )


# --- the widget itself ---


@functools.cache
def _widget() -> tuple[bytes, bytes, ETag]:
    parts = "".join(part.read_text("utf-8") for part in PARTS)
    # Indents and comments on lines of their own stay with the sources.
    body = re.sub(r"(?m)^ *(?://.*\n|/\*\*.*\*/\n)?", "", parts)
    script = f"(() => {{\n'use strict';\n{body}}})();\n".encode()
    # Weak: the plain and the compressed body are the same script.
    return script, gzip.compress(script, mtime=0), ETag(hashlib.sha256(script).hexdigest()[:32], is_weak=True)


@routes.get("/widget.js")
async def widget(request: web.Request) -> web.Response:
    """The script any site embeds; checked again every five minutes, so that a new hub reaches every page soon."""
    script, compressed, etag = _widget()
    headers = {
        "Cache-Control": "public, max-age=300",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if any(tag.value in (etag.value, "*") for tag in request.if_none_match or ()):
        response = web.Response(status=304, headers=headers)
    elif "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        response = web.Response(body=compressed, content_type="text/javascript", charset="utf-8", headers=headers)
    else:
        response = web.Response(body=script, content_type="text/javascript", charset="utf-8", headers=headers)
    response.etag = etag
    return response


def add_routes(app: web.Application) -> None:
    """Add the widget's routes, its guard and its CORS headers to the application."""
    app.add_routes(visitors.routes)
    app.add_routes(codes.routes)
    app.add_routes(chat_config.routes)
    app.add_routes(chat_continue.routes)
    presence.add(app)
    app.add_routes(routes)
    for path in ("/in/{channel}", *(f"/chat/{{channel}}/{part}" for part in ASKED_FIRST)):
        app.router.add_route("OPTIONS", path, visitors.preflight)
    app.middlewares.append(visitors.guard)
    app.on_response_prepare.append(visitors.share)
    app[CHAT] = visitors.Chat()
