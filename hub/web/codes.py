"""One-time codes of the chat: a visitor asks for one and types it in, or an agent asks them to.

Whatever is asked for, the answer is the same and as fast: nothing here looks up whether an address is known.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import Any

from aiohttp import web
from sqlalchemy import select

from hub.contract import Claim, Identified, Proof
from hub.conversations.ingest import Ingest, is_own, item
from hub.customers import codes
from hub.customers.canonical import canonical
from hub.customers.codes import AnswerCode, AskCode, NotAsked, RequestCode, holders, masked, typed
from hub.delivery.tokens import one_time_code
from hub.sessions import address_key
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.web.auth import read_form, require_agent
from hub.web.context import HUB, Hub
from hub.web.pages import render
from hub.web.security import client_address
from hub.web.visitors import CHAT, View, again, body_of, desk_of, refusal, refuse, told, view_of

routes = web.RouteTableDef()

BUSY = "The hub cannot store this now. Nothing was changed; try again shortly."

_ticket = metadata.tables["ticket"].c
_identifier = metadata.tables["identifier"].c


# --- a visitor asks ---


@routes.post("/chat/{channel}/code")
async def ask(request: web.Request) -> web.Response:
    """Send a code: {kind, value} to an address just typed, or {again: id} to that of an earlier code -> {id, sent_to, resend}."""
    view = view_of(request)
    hub, bound, desk = desk_of(request)
    chat, ticking = request.app[CHAT], time.monotonic()
    body = await body_of(request)
    device, kind, value, address, asked_by = await _wanted(view, body)
    if not desk.codes_per_hour:
        return refuse(400, "No codes are sent here.")
    wait = chat.codes.wait(address_key(client_address(request)), ticking) or chat.all_codes[bound.rule.name].wait("", ticking)
    if wait:
        return refuse(429, "Too many codes were asked for. Wait a little, then ask again.", wait)
    try:
        outcome = await hub.writer.run(
            AskCode(secrets.token_hex(16), bound.rule.id, device, kind, value, address, desk.public_name, asked_by)
        )  # fmt: skip
    except StorageBusy:
        return refuse(503, BUSY, 2.0)
    if isinstance(outcome, NotAsked):
        return refuse(429 if outcome.wait else 400, outcome.problem, outcome.wait)
    return _json(shown(outcome.id, kind, value))


async def _wanted(view: View, body: dict[str, Any]) -> tuple[str, str, str, str, int | None]:
    """What a code is asked for, as (who may answer it, kind, canonical value, address, the agent who asked). Raises 400 or 404."""
    hub = view.hub
    if isinstance(body.get("again"), str):
        row = await hub.reader.first(codes.one(body["again"], holders(view.session), view.channel_ids))
        if row is None:
            raise refusal(web.HTTPNotFound, "This code is not known here any more. Ask for a new one.")
        return row.device, row.kind, row.value, row.address, row.asked_by
    kind, value = body.get("kind"), body.get("value")
    found = typed(kind, value, hub.policy.region) if isinstance(kind, str) and isinstance(value, str) else None
    if found is None or not isinstance(kind, str):
        form = "Write the number with + and the country's code." if kind == "phone" else "Write an e-mail address or a phone number."
        raise refusal(web.HTTPBadRequest, f"This is not an address a code can be sent to. {form}")
    if is_own(found[0], hub.policy) or found[0] in own_numbers(hub):
        raise refusal(web.HTTPBadRequest, "This is our own address. Write yours.")  # the code would come in as a question
    return view.session.device, kind, *found, None


def own_numbers(hub: Hub) -> frozenset[str]:
    """The numbers customers write to us at, in canonical form."""
    written = (str(entry.get("address", "")) for entry in hub.settings.channels.values())
    return frozenset(number for address in written if (number := canonical("phone", address)) is not None)


def shown(code_id: str, kind: str, value: str) -> dict[str, Any]:
    """A code on its way, as the widget is told it; `resend` in seconds."""
    return {"id": code_id, "sent_to": masked(kind, value), "resend": codes.RESEND // 1_000_000}


async def waiting(view: View) -> dict[str, Any] | None:
    """The code this visitor could type in now, whoever asked for it."""
    row = await view.hub.reader.first(codes.newest(holders(view.session), view.channel_ids))
    if row is None or row.state != "asked" or view.hub.writer.clock() >= row.expires_at:
        return None
    return shown(row.id, row.kind, row.value)


# --- and answers ---


@routes.post("/chat/{channel}/code/{id}")
async def answer(request: web.Request) -> web.Response:
    """Type in a code: {code} -> the session as `/session` tells it, with the address proved in its token; 403 for a wrong one."""
    view = view_of(request)
    hub, bound, desk = desk_of(request)
    body = await body_of(request)
    code_id, session = request.match_info["id"], view.session
    devices = holders(session)
    row = await hub.reader.first(codes.one(code_id, devices, view.channel_ids))
    if row is None:
        return refuse(404, "This code is not known here any more. Ask for a new one.")
    said = body.get("code")
    number = "".join(c for c in said if c in "0123456789") if isinstance(said, str) else ""
    right = hmac.compare_digest(one_time_code(hub.secret, code_id).encode(), number.encode())
    token = again(desk, session, request.app[CHAT].clock(), [(row.kind, row.value)])
    then = None
    if right:
        claims = (*desk.claims(session), Claim(row.kind, row.value, Proof.OTP))
        proved = Identified(provider_key=f"code:{code_id}", claims=claims, sender_name=session.name)
        then = Ingest(bound.rule.id, (item(proved, trusted=True, policy=hub.policy),), None)
    try:
        outcome = await hub.writer.run(AnswerCode(code_id, devices, view.channel_ids, right, then))
    except StorageBusy:
        return refuse(503, BUSY, 2.0)
    if outcome.outcome == "right":
        return told(hub, bound, desk, token)
    if outcome.outcome == "wrong" and outcome.tries_left:
        problem = "This is not the code we sent last. Look again."
    else:
        problem = "This code cannot be used any more. Ask for a new one."
    return _json({"error": problem, "tries_left": outcome.tries_left}, 403)


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


# --- an agent asks ---


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/ask-code")
async def request_code(request: web.Request) -> web.StreamResponse:
    """Ask a chat's visitor to prove an address they named: form field `identifier_id`. 204 to our script, else back to the ticket."""
    hub, me = request.app[HUB], require_agent(request).agent_id
    ticket_id, form = int(request.match_info["ticket_id"]), await read_form(request)
    ticket = await hub.reader.first(
        select(_ticket.channel_id, _identifier.kind, _identifier.value)
        .join_from(metadata.tables["ticket"], metadata.tables["identifier"], _identifier.id == _ticket.identifier_id)
        .where(_ticket.id == ticket_id)
    )
    if ticket is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    wanted = form.get("identifier_id", "")
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 18 else 0
    row = await hub.reader.first(select(_identifier.kind, _identifier.value, _identifier.address).where(_identifier.id == number))
    bound = hub.channel(ticket.channel_id)
    desk = request.app[CHAT].among(hub).get(bound.rule.name) if bound is not None else None
    problem, status = "", 409
    if row is None or row.kind not in codes.KINDS:
        problem = "A code can be sent to an e-mail address or a phone number. Choose one of them."
    elif bound is None or desk is None or not desk.codes_per_hour:
        problem = "The customer did not write last by a chat that offers codes, so there is nowhere to type one in."
    elif (found := typed(row.kind, row.address if row.kind == "email" else row.value)) is None:
        problem = "No code can be sent to this address."
    else:
        device = ticket.value if ticket.kind == "device" else codes.account(ticket.value)
        asking = AskCode(secrets.token_hex(16), bound.rule.id, device, row.kind, *found, desk.public_name, me)
        try:
            outcome = await hub.writer.run(RequestCode(ticket_id, number, asking))
        except StorageBusy:
            problem, status = BUSY, 503
        else:
            problem = outcome.problem if isinstance(outcome, NotAsked) else ""
    fetched, back = "X-CSRF-Token" in request.headers, f"/inbox/open?ticket={ticket_id}"
    if problem:
        return render(request, f"inbox/{'refusal' if fetched else 'refused'}.html", status=status, reason=problem, kept="", back=back)
    return web.Response(status=204) if fetched else web.Response(status=303, headers={"Location": back})
