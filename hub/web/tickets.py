"""What agents post: reply, note, assign, snooze, resolve, reopen, read, retry.

Each runs one command of `hub.conversations.commands`. Our own script gets 204, or 409 with a line to show; a form without
script gets the page it came from. Either way a refused text stays with the agent.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from aiohttp import web

from hub.contract import TemplateUse
from hub.conversations import commands, history, queries, wording
from hub.conversations.segments import count, split
from hub.delivery.works import Retry
from hub.policy import Refusal
from hub.storage.facts import Work
from hub.storage.writer import StorageBusy
from hub.web import courtesies, presence
from hub.web.auth import now_of, read_form, require_agent
from hub.web.context import HUB
from hub.web.message_templates import TEMPLATES
from hub.web.pages import render

routes = web.RouteTableDef()

MAX_UPLOAD = 25_000_000  # bytes in one reply: what mail providers still accept
MAX_FILES = 10
LED_IN = 300  # characters kept free for "We continue here" and the words it quotes


def number(typed: str | None) -> int | None:
    """A row's id out of a form or an address, or None."""
    return int(typed) if typed and typed.isascii() and typed.isdigit() and len(typed) < 18 else None


def zone_of(request: web.Request) -> tzinfo:
    """The agent's time zone, as their browser named it in a cookie."""
    return wording.zone(request.cookies.get("tz", "UTC"))


def fetched(request: web.Request) -> bool:
    """Whether our own script asks, which wants a short answer instead of a page."""
    return "X-CSRF-Token" in request.headers


async def refused(request: web.Request, status: int, reason: str, kept: str = "") -> web.Response:
    name = "inbox/refusal.html" if fetched(request) else "inbox/refused.html"
    return render(request, name, status=status, reason=reason, kept=kept, back=await _back(request))


async def _back(request: web.Request) -> str:
    """Where a form without script returns to: the page it was posted from, if that is one of ours."""
    typed = (await read_form(request)).get("back", "")
    ours = re.fullmatch(r"/(inbox/[a-z]+|search)(\?[^\s\\]*)?", typed)
    ticket_id = request.match_info.get("ticket_id")
    return typed if ours else f"/inbox/open?ticket={ticket_id}" if ticket_id else "/inbox/open"


async def run_command(request: web.Request, work: Work[Any], kept: str = "") -> web.Response:
    """Run a command; a refusal is told in words and the text stays with the agent."""
    try:
        await request.app[HUB].writer.run(work)
    except Refusal as refusal:
        return await refused(request, 409, str(refusal), kept)
    except StorageBusy:
        busy = "The database is busy and nothing was saved. Your text is still here: try again in a moment."
        return await refused(request, 503, busy, kept)
    if fetched(request):
        return web.Response(status=204)
    return web.Response(status=303, headers={"Location": await _back(request)})


async def ticket_ids(request: web.Request) -> tuple[int, int]:
    """The ticket the path names, and who asks. Raises 404."""
    ticket_id = int(request.match_info["ticket_id"])
    await _newest(request, ticket_id)
    return ticket_id, require_agent(request).agent_id


async def _newest(request: web.Request, ticket_id: int) -> int:
    newest = await request.app[HUB].reader.value(queries.newest_inbound(ticket_id))
    if newest is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    return int(newest)


_DRAFT_KEY = re.compile(r"[A-Za-z0-9-]{8,64}")


async def _files(request: web.Request) -> list[web.FileField]:
    return [field for field in (await request.post()).getall("file", []) if isinstance(field, web.FileField) and field.filename]


def _draft_key(form: Mapping[str, str]) -> str:
    typed = form.get("draft_key", "")
    return typed if _DRAFT_KEY.fullmatch(typed) else secrets.token_hex(16)


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/reply")
async def reply(request: web.Request) -> web.StreamResponse:
    """Answer the customer: text and files by the chosen way; `then=resolve` resolves as well."""
    ticket_id, me = await ticket_ids(request)
    form = await read_form(request)
    text = form.get("text", "").replace("\r\n", "\n").strip()
    files = await _files(request)
    if len(files) > MAX_FILES:
        return await refused(request, 409, f"One message takes at most {MAX_FILES} files.", text)
    contents = [await asyncio.to_thread(field.file.read) for field in files]
    if sum(map(len, contents)) > MAX_UPLOAD:
        return await refused(
            request, 409, f"These files are too large together: {wording.size(MAX_UPLOAD)} is the most one message takes.", text
        )
    blobs = request.app[HUB].blobs
    try:
        stored = tuple(
            [
                commands.NewFile(field.filename[-255:], field.content_type[:100], len(data), await asyncio.to_thread(blobs.put, data))
                for field, data in zip(files, contents, strict=True)
            ]
        )
    except OSError:
        full = "The files could not be stored (is the disk full?) and nothing was sent. Your text is still here."
        return await refused(request, 503, full, text)
    channel_id, _, identifier_id = form.get("to", "").partition(":")
    template = None
    if form.get("template"):
        try:
            text, template = await _template(request, number(channel_id), form)
        except Refusal as refusal:
            return await refused(request, 409, str(refusal), text)
    work = commands.Reply(
        ticket_id,
        me,
        text,
        _draft_key(form),
        channel_id=number(channel_id),
        identifier_id=number(identifier_id),
        attachments=stored,
        seen_message_id=number(form.get("seen")),
        confirmed_way=form.get("confirmed_way") == "1",
        cc=tuple(dict.fromkeys(re.findall(r"[^\s,;<>]+@[^\s,;<>]+", form.get("cc", "")))),
        template=template,
        quoted_message_id=number(form.get("quoted")),
        continues=form.get("continues") == "1",
    )
    parts = [text]
    bound = request.app[HUB].channel(work.channel_id or 0)
    if form.get("split") == "1" and bound is not None and len(text) > bound.connector.max_text and template is None:
        parts = split(text, bound.connector.max_text - (LED_IN if work.continues else 0))
    # Each part is a message with a key of its own, so that sending all of it again sends none twice. The files go with the first.
    works = [work if len(parts) == 1 else replace(work, text=parts[0], draft_key=f"{work.draft_key}-1")]
    rest = replace(work, attachments=(), continues=False, quoted_message_id=None)
    works += [replace(rest, text=part, draft_key=f"{work.draft_key}-{n}") for n, part in enumerate(parts[1:], 2)]
    answer = await run_command(request, works[0], kept=text)
    for each in works[1:]:
        if answer.status < 400:
            answer = await run_command(request, each, kept=text)
    if answer.status < 400 and form.get("then") == "resolve":
        closing = await run_command(request, commands.Resolve(ticket_id, me))
        # Resolved already (a second click, or a colleague): the answer went, which is what was asked.
        return answer if closing.status == 409 else closing
    return answer


async def _template(request: web.Request, channel_id: int | None, form: Mapping[str, str]) -> tuple[str, TemplateUse]:
    """The template chosen (its id, `language`, a `variable.NAME` each), as the provider lists it now. Raises Refusal."""
    hub = request.app[HUB]
    bound = hub.channel(channel_id) if channel_id is not None else None
    if bound is None:
        raise Refusal("Choose the channel the template is sent by.")
    variables = {name.removeprefix("variable."): value for name, value in form.items() if name.startswith("variable.")}
    return await request.app[TEMPLATES].filled(hub, bound, form["template"], form.get("language", ""), variables)


@routes.post("/compose/segments")
async def segments(request: web.Request) -> web.StreamResponse:
    """How a text goes as SMS: its encoding, and into how many parts it is cut; each part costs."""
    require_agent(request)
    text = (await read_form(request)).get("text", "")[:20_000].replace("\r\n", "\n").strip()
    counted = count(text)
    most = number((await read_form(request)).get("most")) or len(text)
    told = {"segments": counted.segments, "encoding": counted.encoding, "units": counted.units, "left": counted.left_in_last}
    told["messages"] = len(split(text, most)) if text else 0
    return web.json_response(told | {"culprits": list(counted.culprits)[:10]})


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/note")
async def note(request: web.Request) -> web.StreamResponse:
    ticket_id, me = await ticket_ids(request)
    form = await read_form(request)
    text = form.get("text", "").replace("\r\n", "\n").strip()
    if await _files(request):
        return await refused(request, 409, "A note cannot carry files yet. Remove them, or send them with a reply.", text)
    return await run_command(request, commands.AddNote(ticket_id, me, text, _draft_key(form)), kept=text)


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/assign")
async def assign(request: web.Request) -> web.StreamResponse:
    """Assign to `me`, to an agent's number, or (empty) to nobody."""
    ticket_id, me = await ticket_ids(request)
    wanted = (await read_form(request)).get("assignee", "")
    if wanted and wanted != "me" and number(wanted) is None:
        return await refused(request, 409, "There is no such agent.")
    return await run_command(request, commands.Assign(ticket_id, me, me if wanted == "me" else number(wanted)))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/snooze")
async def snooze(request: web.Request) -> web.StreamResponse:
    """Put aside for an `hour`, until `tomorrow` or next `week`, in the agent's own time zone."""
    ticket_id, me = await ticket_ids(request)
    form = await read_form(request)
    until = wording.snooze_until(form.get("for", ""), now_of(request.app[HUB]), zone_of(request))
    if until is None:
        return await refused(request, 409, "Choose how long to snooze: an hour, until tomorrow, or until next week.")
    return await run_command(request, commands.Snooze(ticket_id, me, until))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/resolve")
async def resolve(request: web.Request) -> web.StreamResponse:
    return await run_command(request, commands.Resolve(*await ticket_ids(request)))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/reopen")
async def reopen(request: web.Request) -> web.StreamResponse:
    return await run_command(request, commands.Reopen(*await ticket_ids(request)))


@routes.post(r"/tickets/{ticket_id:[0-9]{1,17}}/read")
async def read(request: web.Request) -> web.StreamResponse:
    """Note that the agent has read up to a message."""
    ticket_id, me = await ticket_ids(request)
    upto = number((await read_form(request)).get("message_id")) or 0
    # Not beyond what is there: the next message must be new again.
    answer = await run_command(request, commands.MarkRead(me, ticket_id, min(upto, await _newest(request, ticket_id))))
    if answer.status < 400:
        courtesies.show(request.app, ticket_id)
        await presence.was_read(request.app, ticket_id)
    return answer


@routes.post(r"/messages/{message_id:[0-9]{1,17}}/retry")
async def retry(request: web.Request) -> web.StreamResponse:
    """Send a reply again that failed, or of which nobody knows whether it arrived (then it may arrive twice: the page says so)."""
    row = await request.app[HUB].reader.first(history.failed_reply(int(request.match_info["message_id"])))
    if row is None:
        raise web.HTTPNotFound(text="There is no such message.\n")
    if row.delivery_id is None:
        return await refused(request, 409, "There is nothing to send again: it is on its way, or it has arrived meanwhile.")
    return await run_command(request, Retry(row.delivery_id))
