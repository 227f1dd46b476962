"""Going on with a chat from a mail: the page its link opens, and the exchange of the link's one-time token for a session.

The link's token lies behind the `#`, which no server is sent and no log holds. Following it proves the mailbox, and no more: whoever typed
the address need not be whoever reads it. So the browser that follows it is a browser of its own. It may read the chat the answer was given
in, and what it writes there is its own: the browser that typed the address sees nothing of that, and nobody is joined with anybody by a
click.
"""

from __future__ import annotations

import secrets
import time

from aiohttp import web

from hub.customers.codes import AnswerCode, link
from hub.delivery.unseen import link_names
from hub.sessions import address_key
from hub.storage.writer import StorageBusy
from hub.web.context import HUB
from hub.web.security import client_address
from hub.web.visitors import CHAT, body_of, desk_of, refuse, told

routes = web.RouteTableDef()

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
OVER = "This link was used before, or its time is over. Write to us anew, here or by answering on our site."


@routes.get("/chat/{channel}/continue", allow_head=False)
async def page(request: web.Request) -> web.Response:
    """The chat alone on a page of the hub's own, for the link in a mail."""
    _, bound, desk = desk_of(request)
    html = request.app[HUB].pages.get_template("chat/continue.html").render(channel=bound.rule.name, name=desk.public_name)
    return web.Response(
        text=html,
        content_type="text/html",
        headers={
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Robots-Tag": "noindex",
            "Cache-Control": "no-store",
        },
    )


@routes.post("/chat/{channel}/continue")
async def go_on(request: web.Request) -> web.Response:
    """Exchange a mail's token, once: {token} -> the session as `/session` tells it; 403 for one that is used, old or nobody's."""
    hub, bound, desk = desk_of(request)
    chat = request.app[CHAT]
    body = await body_of(request)
    if wait := chat.continues.wait(address_key(client_address(request)), time.monotonic()):
        return refuse(429, "Too many links were tried. Wait a little, then open the link again.", wait)
    said = body.get("token")
    code_id = link_names(hub.secret, said) if isinstance(said, str) and len(said) <= 300 and said.isascii() else None
    row = await hub.reader.first(link(code_id, bound.rule.id)) if code_id is not None else None
    if row is None or code_id is None:
        return refuse(403, OVER)
    try:
        outcome = await hub.writer.run(AnswerCode(code_id, (row.device,), (bound.rule.id,), True))
    except StorageBusy:
        return refuse(503, "The hub cannot store this now. The link still works: open it again shortly.", 2.0)
    if outcome.outcome != "right":
        return refuse(403, OVER)
    device = row.device.partition(":")[2]
    token = desk.issue(secrets.token_hex(16), chat.clock(), proofs=[("email", row.value), ("device", device)])
    return told(hub, bound, desk, token)
