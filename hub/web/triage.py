"""What agents say of a ticket and its customer: tags, priority, spam, a hold by hand, a wish to be written to no more."""

from __future__ import annotations

from aiohttp import web

from hub.conversations.stopping import ConfirmStop, TakeBackStop, opt_out_of, sender_of
from hub.conversations.triage import MarkSpam, SetPriority, SetTags
from hub.customers import profile
from hub.customers.merging import agent
from hub.holds.reasons import EndHold, PlaceHold, hold_of
from hub.web.auth import read_form, require_agent
from hub.web.context import HUB
from hub.web.tickets import number, refused, run_command, ticket_ids

routes = web.RouteTableDef()


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/tags")
async def tags(request: web.Request) -> web.StreamResponse:
    """Give a ticket the tags named, parted by commas."""
    ticket_id, me = await ticket_ids(request)
    named = (await read_form(request)).get("tags", "")
    return await run_command(request, SetTags(ticket_id, me, tuple(named.split(","))))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/priority")
async def priority(request: web.Request) -> web.StreamResponse:
    """Say how urgent a ticket is."""
    ticket_id, me = await ticket_ids(request)
    return await run_command(request, SetPriority(ticket_id, me, (await read_form(request)).get("priority", "")))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/spam")
async def spam(request: web.Request) -> web.StreamResponse:
    """Mark a ticket as spam, or (`spam=0`) take that back."""
    ticket_id, me = await ticket_ids(request)
    return await run_command(request, MarkSpam(ticket_id, me, (await read_form(request)).get("spam", "1") != "0"))


@routes.post(r"/messages/{message_id:[0-9]{1,17}}/opt-out")
async def opt_out(request: web.Request) -> web.StreamResponse:
    """Read a message as a wish to be written to no more on its channel."""
    me, message_id = require_agent(request).agent_id, int(request.match_info["message_id"])
    sender = await request.app[HUB].reader.first(sender_of(message_id))
    if sender is None:
        raise web.HTTPNotFound(text="There is no such message.\n")
    return await run_command(request, ConfirmStop(message_id, (sender.kind, sender.value), me))


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/opt-outs/{id:[0-9]{1,17}}/take-back")
async def take_back(request: web.Request) -> web.StreamResponse:
    """Take back an opt-out that an agent read out of a message."""
    me = require_agent(request).agent_id
    customer_id, stop_id = int(request.match_info["customer_id"]), int(request.match_info["id"])
    if await request.app[HUB].reader.first(opt_out_of(stop_id, customer_id)) is None:
        raise web.HTTPNotFound(text="This customer has no such opt-out.\n")
    return await run_command(request, TakeBackStop(customer_id, stop_id, me))


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/hold")
async def hold(request: web.Request) -> web.StreamResponse:
    """Hold marketing for so many `days`, for the reason in `note`."""
    me = require_agent(request).agent_id
    await _known(request)
    form = await read_form(request)
    days = number(form.get("days"))
    if days is None:
        return await refused(request, 409, "Say for how many days.")
    return await run_command(
        request, PlaceHold(int(request.match_info["customer_id"]), days, agent(me), form.get("note", "").strip(), agent_id=me)
    )


@routes.post(r"/customers/{customer_id:[0-9]{1,17}}/holds/{hold_id:[0-9]{1,17}}/end")
async def end_hold(request: web.Request) -> web.StreamResponse:
    """End one hold before its time."""
    me = require_agent(request).agent_id
    customer_id, hold_id = int(request.match_info["customer_id"]), int(request.match_info["hold_id"])
    if await request.app[HUB].reader.first(hold_of(hold_id, customer_id)) is None:
        raise web.HTTPNotFound(text="This customer has no such hold.\n")
    return await run_command(request, EndHold(customer_id, hold_id, agent(me), me))


async def _known(request: web.Request) -> None:
    if not await request.app[HUB].reader.all(profile.customers({int(request.match_info["customer_id"])})):
        raise web.HTTPNotFound(text="There is no such customer.\n")
