"""`/tools/{name}/hooks`: what marketing tools tell of the messages they sent, verified as each vendor signs."""

from __future__ import annotations

import time
from typing import Any

import structlog
from aiohttp import web

from hub.contract import Answer, Request, Unparseable, Verdict
from hub.holds.sends import NoteSends, recognise
from hub.marketing import HearsSends
from hub.storage.writer import StorageBusy
from hub.web.context import HUB

log = structlog.get_logger("hub.tools")
routes = web.RouteTableDef()

VERIFIED = web.AppKey("verified tools", set[str])  # whose webhooks have verified since this process began
AT_ONCE = 100  # messages of one unit of work


@routes.get("/tools/{tool}/hooks")
async def look(request: web.Request) -> web.Response:
    """200: some vendors look whether the address is there when somebody saves it. It tells nothing, and HEAD is answered likewise."""
    if not isinstance(request.app[HUB].tools.get(request.match_info["tool"]), HearsSends):
        raise web.HTTPNotFound(text="There is no such marketing tool, or it tells nothing by webhook.\n")
    return web.Response(text="This is where the tool tells what it sent, by POST.\n", headers={"Cache-Control": "no-store"})


@routes.post("/tools/{tool}/hooks")
async def hear(request: web.Request) -> web.Response:
    """2xx once all of it is on disk. A wrong signature is refused and nothing of it kept; what cannot be read is answered as done (the
    tool would send it for ever) and logged: a tool that can be asked is asked again anyway."""
    hub, name = request.app[HUB], request.match_info["tool"]
    tool: Any = hub.tools.get(name)
    if not isinstance(tool, HearsSends):
        raise web.HTTPNotFound(text="There is no such marketing tool, or it tells nothing by webhook.\n")
    url = f"{hub.settings.server.public_url}{request.raw_path}"
    headers = {key.lower(): value for key, value in request.headers.items()}
    told = Request(request.method, url, headers, await request.read())
    verdict = tool.verify(told, time.time())
    if verdict is not Verdict.GOOD:
        log.warning("a marketing tool's webhook was refused", tool=name, verdict=verdict.value)
        # Some tools drop for good what is refused: until one delivery has verified here, a wrong key is most likely ours to mend.
        unsure = tool.answers.bad_signature_until_verified if name not in request.app[VERIFIED] else None
        status = 503 if verdict is Verdict.NO_KEY else unsure or tool.answers.bad_signature
        return web.Response(status=status, text="The signature does not fit. Check the secret on both sides.\n")
    request.app[VERIFIED].add(name)
    try:
        sends = tool.parse_sends(told)
    except Unparseable as error:
        log.error("a marketing tool's webhook could not be understood", tool=name, error=str(error))
        return _as(tool.answers.ok)
    try:
        for start in range(0, len(sends), AT_ONCE):
            known = await recognise(name, sends[start : start + AT_ONCE], hub.reader)
            await hub.writer.run(NoteSends(name, tuple(known)))
    except StorageBusy as error:
        log.warning("a marketing tool's webhook was put off", tool=name, error=str(error))
        return web.Response(status=503, headers={"Retry-After": "5"}, text="Busy. Nothing is lost: tell it again.\n")
    return _as(tool.answers.ok)


def _as(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)
