"""The administrators' pages: what could not be understood, what could not be sent, programs' tokens, agents' accounts.

Each action answers with its page and a notice in place of a redirect: a token or link shown once must not pass through a URL.
"""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from sqlalchemy import func, select

from hub import agents
from hub.conversations.quarantine import Settle
from hub.conversations.wording import customer_name
from hub.delivery import listing
from hub.delivery.works import Discard, Retry
from hub.keys import digest
from hub.policy import Refusal
from hub.storage.tables import metadata
from hub.storage.writer import StorageBusy
from hub.web.auth import read_form, require_admin
from hub.web.context import HUB, Hub
from hub.web.pages import render
from hub.web.webhooks import replay

PAGE = 50
PREVIEW = 64 * 1024  # bytes of a raw body shown in the page; the download has all
# Header lines that are secrets of the sender or of a session: an administrator has no need of them either.
HIDDEN = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
KINDS = {"signature": "bad signature", "unparseable": "not understood", "oversize": "too big"}
STATES = ("waiting", "replayed", "dismissed")

routes = web.RouteTableDef()

_quarantine = metadata.tables["quarantine"]


def moment(at: int | None) -> str:
    """Microseconds as text for people, in UTC."""
    return "" if at is None else datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def row_id(request: web.Request) -> int:
    """The number a path names. Raises 404."""
    raw = request.match_info["id"]
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 18):
        raise web.HTTPNotFound
    return int(raw)


async def _known(request: web.Request, table: str) -> int:
    """The number of a row that is there. Raises 404."""
    column = metadata.tables[table].c.id
    if await request.app[HUB].reader.value(select(column).where(column == row_id(request))) is None:
        raise web.HTTPNotFound(text="What this acts upon is not there. Nothing was changed.\n")
    return row_id(request)


def _before(request: web.Request) -> int | None:
    raw = request.query.get("before", "")
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) <= 18 else None


def _render(request: web.Request, name: str, **context: object) -> web.Response:

    context.setdefault("notice", "")
    context.setdefault("error", "")
    status = 422 if context["error"] else 200
    return render(request, f"settings/{name}.html", status=status, moment=moment, **context)


def _channel(hub: Hub, channel_id: int) -> str:
    bound = hub.channel(channel_id)
    return bound.rule.label if bound is not None else f"a channel no longer configured (number {channel_id})"


@routes.get("/settings")
async def index(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    raise web.HTTPSeeOther("/settings/quarantine")


# --- quarantine ----------------------------------------------------------------------------------------------------------


@routes.get("/settings/quarantine")
async def quarantine(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    return await _quarantine_page(request)


async def _quarantine_page(request: web.Request, **said: object) -> web.Response:
    hub, q, before = request.app[HUB], _quarantine.c, _before(request)
    state = request.query.get("state", STATES[0])
    state = state if state in STATES else STATES[0]
    counts = {row.state: row.n for row in await hub.reader.all(select(q.state, func.count().label("n")).group_by(q.state))}
    statement = select(q.id, q.channel_id, q.kind, q.reason, q.state, q.received_at, q.method).where(q.state == state).order_by(q.id.desc())
    if before is not None:
        statement = statement.where(q.id < before)
    rows, more = _page(await hub.reader.all(statement.limit(PAGE + 1)))
    items = [{"row": row, "channel": _channel(hub, row.channel_id), "kind": KINDS.get(row.kind, row.kind)} for row in rows]
    return _render(request, "quarantine", items=items, more=more, state=state, states=STATES, counts=counts, **said)


def _page(rows: Sequence[Any]) -> tuple[Sequence[Any], int | None]:
    """At most PAGE rows, and the id to ask for older ones below."""
    return (rows[:PAGE], rows[PAGE - 1].id) if len(rows) > PAGE else (rows, None)


async def _quarantined(request: web.Request) -> tuple[Any, bytes | None]:
    """A quarantined request and its body, None where the file is gone. Raises 404."""
    hub, q = request.app[HUB], _quarantine.c
    row = await hub.reader.first(select(_quarantine).where(q.id == row_id(request)))
    if row is None:
        raise web.HTTPNotFound(text="There is no such quarantined request; bad signatures are kept for 30 days.\n")
    if not row.body_sha256:
        return row, row.body or b""
    try:
        return row, await asyncio.to_thread(hub.blobs.get, row.body_sha256)
    except (OSError, ValueError):
        return row, None


@routes.get("/settings/quarantine/{id}")
async def quarantine_raw(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    row, body = await _quarantined(request)
    return _render(
        request,
        "quarantine_raw",
        row=row,
        channel=_channel(request.app[HUB], row.channel_id),
        kind=KINDS.get(row.kind, row.kind),
        headers=shown_headers(row.headers),
        body=None if body is None else visible(body[:PREVIEW].decode("utf-8", "replace")),
        size=len(body or b""),
        cut=len(body or b"") > PREVIEW,
    )


def visible(text: str) -> str:
    """Text from a stranger with its control and direction marks spelled out, so that it cannot pass for something else."""
    return "".join(
        c if c in "\n\t" or not unicodedata.category(c).startswith("C") else f"\\u{ord(c):04x}" for c in text.replace("\r\n", "\n")
    )


def shown_headers(stored: str) -> list[tuple[str, str]]:
    """Stored header lines for people to read, those that are secrets hidden. Takes a JSON list of pairs or object."""
    try:
        loaded = json.loads(stored or "[]")
    except ValueError:
        loaded = [line.partition(":")[::2] for line in stored.splitlines()]
    pairs = loaded.items() if isinstance(loaded, dict) else [pair for pair in loaded if isinstance(pair, list | tuple) and len(pair) == 2]
    return [
        (visible(str(name)), "(hidden)" if str(name).strip().lower() in HIDDEN else visible(str(value).strip())) for name, value in pairs
    ]


@routes.get("/settings/quarantine/{id}/raw")
async def quarantine_download(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    row, body = await _quarantined(request)
    if body is None:
        raise web.HTTPNotFound(text="The file of this request is gone from the disk.\n")
    return web.Response(
        body=body,
        content_type="application/octet-stream",
        headers={
            "Content-Disposition": f'attachment; filename="quarantine-{row.id}.bin"',
            "Content-Security-Policy": "sandbox; default-src 'none'",
        },
    )


@routes.post("/settings/quarantine/{id}/replay")
async def quarantine_replay(request: web.Request) -> web.StreamResponse:
    require_admin(request)

    try:
        said = await replay(request.app[HUB], await _known(request, "quarantine"))
    except (Refusal, StorageBusy) as refusal:
        return await _quarantine_page(request, error=str(refusal))
    return await _quarantine_page(request, notice=said)


@routes.post("/settings/quarantine/{id}/dismiss")
async def quarantine_dismiss(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    try:
        settled = await request.app[HUB].writer.run(Settle(await _known(request, "quarantine"), "dismissed"))
    except StorageBusy as busy:
        return await _quarantine_page(request, error=str(busy))
    if not settled:
        return await _quarantine_page(request, error="This request waits no more: somebody else has dealt with it. Nothing was changed.")
    return await _quarantine_page(request, notice="Dismissed. It stays under “dismissed” for as long as its raw bytes are kept.")


# --- deliveries ----------------------------------------------------------------------------------------------------------


@routes.get("/settings/deliveries")
async def deliveries(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    return await _deliveries_page(request)


async def _deliveries_page(request: web.Request, **said: object) -> web.Response:
    hub = request.app[HUB]
    state = request.query.get("state", "")
    state = state if state in listing.TROUBLED else ""
    kind, _, target = request.query.get("to", "").partition("/")
    chosen = {"kind": kind if kind in listing.KINDS else "", "target": target[:60]}
    states = (state,) if state else listing.TROUBLED
    rows, more = _page(await hub.reader.all(listing.listed(states, **chosen, before=_before(request), limit=PAGE + 1)))
    counted = await hub.reader.all(listing.troubled_targets())
    counts: dict[str, int] = {}
    for row in counted:
        counts[row.state] = counts.get(row.state, 0) + row.n
    now = hub.writer.clock()
    items = [
        {
            "row": row,
            "what": listing.KINDS.get(row.kind, row.kind),
            "customer": customer_name(row.customer, row.address_kind, row.address) if row.customer_id is not None else "",
            "age": span(max(0, now - (row.done_at or row.created_at)) // 1_000_000),
        }
        for row in rows
    ]
    gates = [
        {"gate": gate, "what": listing.KINDS.get(gate.kind, gate.kind), "wait": span(gate.seconds)}
        for gate in hub.outbox.standings((row.kind, row.target) for row in counted)
    ]
    asked = {"state": state, "to": f"{chosen['kind']}/{chosen['target']}" if chosen["kind"] else ""}
    query = urlencode({name: value for name, value in asked.items() if value})
    targets = sorted({(row.kind, row.target) for row in counted})
    shown = {"items": items, "more": more, "gates": gates, "counts": counts, "targets": targets, "kinds": listing.KINDS}
    return _render(request, "deliveries", states=listing.TROUBLED, asked=asked, query=query, **shown, **said)


def span(seconds: int) -> str:
    """A length of time in one unit, for people."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


@routes.post("/settings/deliveries/{id}/retry")
async def delivery_retry(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    form = await read_form(request)
    try:
        await request.app[HUB].writer.run(Retry(await _known(request, "delivery"), only_failed=form.get("confirm") != "1"))
    except (Refusal, StorageBusy) as refusal:
        return await _deliveries_page(request, error=str(refusal))
    return await _deliveries_page(request, notice="It is queued again and will be tried at once.")


@routes.post("/settings/deliveries/{id}/discard")
async def delivery_discard(request: web.Request) -> web.StreamResponse:
    principal, form = require_admin(request), await read_form(request)
    try:
        work = Discard(await _known(request, "delivery"), form.get("reason", ""), principal.agent_id)
        await request.app[HUB].writer.run(work)
    except (Refusal, StorageBusy) as refusal:
        return await _deliveries_page(request, error=str(refusal))
    return await _deliveries_page(request, notice="It is discarded, with your reason beside it.")


@routes.post("/settings/deliveries/retry")
async def deliveries_retry(request: web.Request) -> web.StreamResponse:
    """Those that were shown: what has failed since was not seen, and what was dealt with since is left alone."""
    require_admin(request)
    form, writer = await read_form(request), request.app[HUB].writer
    numbers = [int(n) for n in form.get("ids", "").split(",")[:PAGE] if n.isascii() and n.isdigit() and len(n) <= 18]
    works = [Retry(number, only_failed=form.get("confirm") != "1") for number in numbers]
    outcomes = await asyncio.gather(*(writer.run(work) for work in works), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Refusal | StorageBusy):
            raise outcome
    left = sum(outcome is not None for outcome in outcomes)
    done = len(outcomes) - left
    notice = f"{done} {'is' if done == 1 else 'are'} queued again and will be tried at once." if done else ""
    error = f"{left} {'was' if left == 1 else 'were'} left alone: see below, and try again one by one." if left else ""
    return await _deliveries_page(request, **{"notice": notice, "error": error})


# --- API tokens ----------------------------------------------------------------------------------------------------------


@routes.get("/settings/api")
async def api_tokens(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    return await _api_page(request)


async def _api_page(request: web.Request, **said: object) -> web.Response:
    return _render(request, "api", tokens=await agents.list_tokens(request.app[HUB].reader), **({"token": ""} | said))


@routes.post("/settings/api")
async def api_create(request: web.Request) -> web.StreamResponse:
    principal, form = require_admin(request), await read_form(request)
    token = "hub_" + agents.new_token()
    try:
        await request.app[HUB].writer.run(agents.CreateApiToken(form.get("name", ""), digest(token), principal.agent_id))
    except (Refusal, StorageBusy) as refusal:
        return await _api_page(request, error=str(refusal))
    return await _api_page(request, notice="This is the only time the token is shown. Copy it now.", token=token)


@routes.post("/settings/api/{id}/revoke")
async def api_revoke(request: web.Request) -> web.StreamResponse:
    principal = require_admin(request)
    try:
        await request.app[HUB].writer.run(agents.RevokeApiToken(await _known(request, "api_token"), principal.agent_id))
    except (Refusal, StorageBusy) as refusal:
        return await _api_page(request, error=str(refusal))
    return await _api_page(request, notice="The token is revoked. Whatever used it is refused from now on.")


# --- agents --------------------------------------------------------------------------------------------------------------


@routes.get("/settings/agents")
async def agents_list(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    return await _agents_page(request)


async def _agents_page(request: web.Request, **said: object) -> web.Response:
    everyone = await agents.list_agents(request.app[HUB].reader)
    return _render(request, "agents", agents=everyone, roles=agents.ROLES, **({"link": "", "typed": {}} | said))


async def _issue_link(request: web.Request, agent_id: int, by: int) -> str:
    hub, token = request.app[HUB], agents.new_token()
    await hub.writer.run(agents.IssueLink(agent_id, digest(token), by))
    return agents.setup_url(hub.settings.server.public_url, agent_id, token)


LINK_NOTE = "Hand this link to the agent yourself: it works once, for 24 hours, and is shown only now."


@routes.post("/settings/agents")
async def agents_add(request: web.Request) -> web.StreamResponse:
    principal, form = require_admin(request), await read_form(request)
    try:
        work = agents.CreateAgent(form.get("email", ""), form.get("name", ""), form.get("role", "agent"), by=principal.agent_id)
        link = await _issue_link(request, await request.app[HUB].writer.run(work), principal.agent_id)
    except (Refusal, StorageBusy) as refusal:
        return await _agents_page(request, error=str(refusal), typed=form)
    return await _agents_page(request, notice=LINK_NOTE, link=link)


@routes.post("/settings/agents/{id}/link")
async def agents_link(request: web.Request) -> web.StreamResponse:
    principal = require_admin(request)
    try:
        link = await _issue_link(request, await _known(request, "agent"), principal.agent_id)
    except (Refusal, StorageBusy) as refusal:
        return await _agents_page(request, error=str(refusal))
    return await _agents_page(request, notice=LINK_NOTE, link=link)


@routes.post("/settings/agents/{id}/disable")
async def agents_disable(request: web.Request) -> web.StreamResponse:
    principal = require_admin(request)
    try:
        await request.app[HUB].writer.run(agents.DisableAgent(await _known(request, "agent"), principal.agent_id))
    except (Refusal, StorageBusy) as refusal:
        return await _agents_page(request, error=str(refusal))
    return await _agents_page(request, notice="The account is disabled and signed out everywhere.")


@routes.post("/settings/agents/{id}/enable")
async def agents_enable(request: web.Request) -> web.StreamResponse:
    principal = require_admin(request)
    try:
        await request.app[HUB].writer.run(agents.EnableAgent(await _known(request, "agent"), principal.agent_id))
    except (Refusal, StorageBusy) as refusal:
        return await _agents_page(request, error=str(refusal))
    return await _agents_page(request, notice="The account is enabled again, with its old password.")


def add_routes(app: web.Application) -> None:
    app.add_routes(routes)
