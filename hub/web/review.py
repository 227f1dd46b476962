"""What agents decide about doubtful mail, and the mail as it came."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from hub.contract import InboundMessage, Request, Unparseable
from hub.conversations.review import Admit, Dismiss, KeepApart, request_of
from hub.conversations.triage import MarkSpam
from hub.web.attachments import disposition
from hub.web.auth import read_form, require_agent
from hub.web.context import HUB, Hub
from hub.web.tickets import number, refused, run_command, ticket_ids
from hub.web.webhooks import REPLAY_READING, understood

routes = web.RouteTableDef()


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/review")
async def decide(request: web.Request) -> web.StreamResponse:
    """`decision`: admit (it belongs to the ticket it answers, `of`), apart (it stands on its own) or spam."""
    ticket_id, me = await ticket_ids(request)
    form = await read_form(request)
    decision, of = form.get("decision", ""), number(form.get("of"))
    if decision == "admit" and of is not None:
        return await run_command(request, Admit(ticket_id, of, me))
    if decision == "apart":
        return await run_command(request, KeepApart(ticket_id, me))
    if decision == "spam":
        return await run_command(request, MarkSpam(ticket_id, me))
    return await refused(request, 409, "Choose what to do with this mail: admit it, keep it apart, or mark it as spam.")


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/participants/dismiss")
async def dismiss(request: web.Request) -> web.StreamResponse:
    """Take a participant (`value`, canonical address) out of a ticket's mails."""
    ticket_id, me = await ticket_ids(request)
    return await run_command(request, Dismiss(ticket_id, (await read_form(request)).get("value", ""), me))


@routes.get(r"/messages/{message_id:[0-9]{1,17}}/mail")
async def mail(request: web.Request) -> web.StreamResponse:
    """A mail as it came, every byte, as a download."""
    require_agent(request)
    message_id = int(request.match_info["message_id"])
    raw = await _original(request.app[HUB], message_id)
    if raw is None:
        raise web.HTTPNotFound(text="There is no such mail, or its provider handed it over taken apart.\n")
    headers = {"Content-Disposition": disposition(f"mail-{message_id}.eml"), "X-Content-Type-Options": "nosniff"}
    return web.Response(body=raw, content_type="message/rfc822", headers=headers)


async def _original(hub: Hub, message_id: int) -> bytes | None:
    """The bytes of a mail, out of the request it came in."""
    row = await hub.reader.first(request_of(message_id))
    bound = hub.channel(row.channel_id) if row is not None else None
    if row is None or bound is None or not bound.rule.mails:
        return None
    try:
        body = row.body if row.body is not None else await asyncio.to_thread(hub.blobs.get, row.body_sha256)
        seen = Request(row.method, row.url, json.loads(row.headers), body)
        found = await understood(hub, bound, seen, REPLAY_READING)
    except (OSError, ValueError, Unparseable):
        return None
    mails = [one for one in found if isinstance(one, InboundMessage) and (one.message_id or None) == row.mail_id]
    same = [one for one in mails if (one.subject, one.text) == (row.subject, row.text)]  # one webhook may bring several without an id
    said = same[0] if same else mails[0] if len(mails) == 1 else None
    if said is None:
        return None
    # A body that is a mail itself needs no copy of it.
    return said.original if said.original is not None else body if seen.content_type.partition(";")[0] == "message/rfc822" else None


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
