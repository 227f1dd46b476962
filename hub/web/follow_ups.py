"""Follow up when: what agents promise a customer on a ticket, and the call by which a program of the business says that it happened."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from hub.conversations import following_up
from hub.conversations.following_up import AddFollowUp, CancelFollowUp, keep, tidy_key, waiting_for
from hub.holds.gate import BadQuestion
from hub.holds.ledger import iso
from hub.policy import Refusal
from hub.web.auth import read_form, require_token
from hub.web.context import HUB
from hub.web.customers_api import Strict, answer, body_of
from hub.web.tickets import number, refused, run_command, ticket_ids

routes = web.RouteTableDef()

PAGE = 200
STATES = ("waiting", "sent", "refused", "cancelled", "expired")


# --- agents ----------------------------------------------------------------------------------------------------------


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/follow-ups")
async def add(request: web.Request) -> web.StreamResponse:
    """Promise to tell the customer these `words` when `key` happens: within so many `days`, by this `way` or (empty) the ticket's own."""
    ticket_id, me = await ticket_ids(request)
    form = await read_form(request)
    text = form.get("words", "").replace("\r\n", "\n").strip()
    days = number(form.get("days", "30"))
    if days is None:
        return await refused(request, 409, "Say for how many days to wait.", text)
    channel_id, _, identifier_id = form.get("way", "").partition(":")
    work = AddFollowUp(ticket_id, me, form.get("key", ""), text, days, number(channel_id), number(identifier_id))
    return await run_command(request, work, kept=text)


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/follow-ups/{id:[0-9]{1,17}}/cancel")
async def cancel(request: web.Request) -> web.StreamResponse:
    """Take a promise back before it was kept."""
    ticket_id, me = await ticket_ids(request)
    return await run_command(request, CancelFollowUp(int(request.match_info["id"]), ticket_id, me))


# --- programs --------------------------------------------------------------------------------------------------------


class Happened(Strict):
    """The body of `POST /api/v1/follow-ups/{key}`, which may be left out: what to fill into the texts' blanks."""

    values: dict[str, str] = Field({}, max_length=20)


LONGEST_VALUE = 500  # characters


@routes.post("/api/v1/follow-ups/{key}")
async def happened(request: web.Request) -> web.Response:
    """Keep every promise that waits for `key`: each message is sent once, however often this is called. Answers what became of each."""
    program = await require_token(request)
    hub = request.app[HUB]
    try:
        key = tidy_key(request.match_info["key"])
    except Refusal as refusal:
        raise BadQuestion(str(refusal)) from None
    said = await body_of(request, Happened) if request.can_read_body else Happened(values={})
    if any(len(value) > LONGEST_VALUE for value in said.values.values()):
        raise BadQuestion(f"values: a value has {LONGEST_VALUE} characters at the most.")
    if await hub.reader.first(following_up.promised(key)) is None:
        raise web.HTTPNotFound(text=f"Nobody waits for {key}, and nobody ever did. Nothing was sent.")
    told: list[dict[str, Any]] = []
    for row in await hub.reader.all(waiting_for(key)):
        kept = await hub.writer.run(keep(row, said.values, f"program:{program.name}"))
        told.append({"id": row.id, "ticket_id": row.ticket_id, "outcome": kept.outcome, "why": kept.why, "message_id": kept.message_id})
    return answer({"key": key, "sent": sum(one["outcome"] == "sent" for one in told), "follow_ups": told})


@routes.get("/api/v1/follow-ups")
async def listing(request: web.Request) -> web.Response:
    """Promises in a `state` (waiting by default), in order; `after` the last number seen for the next page."""
    await require_token(request)
    wrong = next((name for name in request.query if name not in ("state", "after")), None)
    state, after = request.query.get("state", "waiting"), number(request.query.get("after", "0"))
    if wrong is not None or state not in STATES or after is None:
        raise BadQuestion(f"state is one of {', '.join(STATES)}, after the number of a follow-up; there is nothing else to ask by.")
    rows = await request.app[HUB].reader.all(following_up.listed([state], after, PAGE))
    return answer({"follow_ups": [_shown(row) for row in rows[:PAGE]], "more": len(rows) > PAGE})


def _shown(row: Any) -> dict[str, Any]:
    def moment(at: int | None) -> str | None:
        return None if at is None else iso(at)

    return {
        "id": row.id,
        "key": row.key,
        "state": row.state,
        "ticket_id": row.ticket_id,
        "customer_id": row.customer_id,
        "wants": following_up.blanks(row.text),
        "created_at": iso(row.created_at),
        "expires_at": moment(row.expires_at),
        "fired_at": moment(row.fired_at),
        "message_id": row.message_id,
        "error": row.error,
    }
