"""Proof of holds for people and programs: the page and its downloads (administrators), and the head of the chain to keep elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import jinja2
from aiohttp import web

from hub.holds.ledger import iso
from hub.holds.proof import Broken, head_shown, public_key, read_head
from hub.holds.proving import NOTHING, Keys, Proved, TooMany, check_head, newest_head, prove
from hub.holds.report import Period, day_or_time, micros
from hub.keys import derive
from hub.policy import SECOND
from hub.web.auth import require_admin, require_token
from hub.web.context import HUB, Hub
from hub.web.pages import render

routes = web.RouteTableDef()

MOST = 100_000  # links of one download; some 45 MB
IN_MEMORY = 4 << 20  # bytes of it, before it goes to a file
PIECE = 256 * 1024
USUAL = 30  # days
SHOWN = 500  # rows of one table of the printable page; all of them stand in the JSON file

AT_WORK = web.AppKey("proof_at_work", asyncio.Lock)


def keys_of(secret: bytes) -> Keys:
    """What reports are signed with, and what identifiers are digested with: of the installation's own secret."""
    return Keys(derive(secret, "proof signature"), derive(secret, "proof identifiers"))


# --- the printable page ---


def style(pages: jinja2.Environment) -> str:
    """The style sheet that stands in the printable page itself, so that one file is all there is to keep."""
    return pages.get_template("proof/style.css").render()


def printable(document: Mapping[str, Any], pages: jinja2.Environment) -> str:
    """A report (without its links) as a page that needs nothing beside it."""
    report = document["report"]
    begin, end = micros(report["from"]), micros(report["to"])

    def place(at: str) -> float:
        return round(1_000 * (micros(at) - begin) / max(1, end - begin), 1)

    leaks: dict[int, list[float]] = {}
    for one in report["reached"]:
        if one["leak"] and begin <= micros(one["at"]) < end:
            leaks.setdefault(one["customer"], []).append(place(one["at"]))
    bars = {
        held["customer"]: {
            "spans": [(place(span["from"]), max(1.0, place(span["to"]) - place(span["from"]))) for span in held["spans"]],
            "leaks": [at for customer in (held["customer"], *held["also"]) for at in leaks.get(customer, ())],
        }
        for held in report["held"][:SHOWN]
    }
    return pages.get_template("proof/report.html").render(
        document=document, report=report, named=document["identifiers"], bars=bars, most=SHOWN, length=span_text, style=style(pages)
    )


def span_text(seconds: int) -> str:
    """A length of time for people: its two largest units."""
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size or (unit == "s" and not parts):
            parts.append(f"{seconds // size} {unit}")
            seconds %= size
    return " ".join(parts[:2])


# --- the page ---


def _asked(request: web.Request, hub: Hub) -> tuple[Period, bool]:
    """The period a form names, and whether identifiers are to stand in clear. Raises ValueError with words for people."""
    now = hub.writer.clock()
    today = datetime.fromtimestamp(now / SECOND, UTC).date()
    given = request.query
    customer = given.get("customer", "").strip()
    if customer and not (customer.isascii() and customer.isdigit() and len(customer) <= 18):
        raise ValueError("A customer is named by their number.")
    try:
        begin = day_or_time(given.get("from") or (today - timedelta(days=USUAL - 1)).isoformat())
        end = min(now, day_or_time(given.get("to") or today.isoformat(), end=True))
    except (ValueError, OverflowError):
        raise ValueError("The days must be dates, as 2027-01-31.") from None
    if begin >= end:
        raise ValueError("The period is empty: it must begin before it ends, and before now.")
    lead = -(-hub.policy.hold_lease // SECOND)
    return Period(begin, end, int(customer) if customer else None, lead), given.get("identifiers") == "1"


@routes.get("/holds/proof")
async def page(request: web.Request) -> web.StreamResponse:
    """Where the chain stands, and the form that makes a report."""
    require_admin(request)
    return await _page(request)


async def _page(request: web.Request, error: str = "", status: int = 200) -> web.Response:
    hub = request.app[HUB]
    head, chain = None, ""
    try:
        standing = await newest_head(hub.reader)
        if standing is not None:
            chain, head = standing
    except Broken as broken:
        error = error or str(broken)
    today = datetime.fromtimestamp(hub.writer.clock() / SECOND, UTC).date()
    asked = {
        "from": request.query.get("from") or (today - timedelta(days=USUAL - 1)).isoformat(),
        "to": request.query.get("to") or today.isoformat(),
        "customer": request.query.get("customer", ""),
        "identifiers": request.query.get("identifiers") == "1",
    }
    return render(
        request,
        "proof/page.html",
        status=status,
        error=error,
        chain=chain,
        head=head,
        at=iso(head.at) if head is not None else "",
        public_key=public_key(keys_of(hub.secret).seed),
        asked=asked,
    )


async def _report(request: web.Request, file: IO[str]) -> Proved | web.Response:
    """Write the report that was asked for into a file; where that cannot be, the page that says why."""
    hub = request.app[HUB]
    try:
        period, identifiers = _asked(request, hub)
    except ValueError as error:
        return await _page(request, str(error), 400)
    try:
        async with request.app[AT_WORK]:  # one at a time: each takes a core while it is made
            now = hub.writer.clock()
            return await prove(hub.reader, period, now, keys_of(hub.secret), file.write, whole=False, identifiers=identifiers, most=MOST)
    except TooMany as error:
        return await _page(request, f"{error} Ask for a shorter period, or write it with `hub holds prove` on the server.", 400)
    except Broken as broken:
        return await _page(request, str(broken), 404 if str(broken) == NOTHING else 409)


@routes.get("/holds/proof/report.json", allow_head=False)  # a HEAD would make a whole report
async def download(request: web.Request) -> web.StreamResponse:
    """The report with its links, to be checked with docs/verify_holds.py."""
    require_admin(request)
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="ascii", newline="") as file:
        proved = await _report(request, file)
        if isinstance(proved, web.Response):
            return proved
        report = proved.document["report"]
        name = f"proof-of-holds-{report['from'][:10]}-{report['to'][:10]}.json"
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/json",
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(request)
        file.seek(0)
        while piece := file.read(PIECE):
            await response.write(piece.encode("ascii"))
        await response.write_eof()
        return response


@routes.get("/holds/proof/report.html", allow_head=False)
async def print_page(request: web.Request) -> web.StreamResponse:
    """The report as a page to print."""
    require_admin(request)
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="ascii", newline="") as file:
        proved = await _report(request, file)
    if isinstance(proved, web.Response):
        return proved
    pages = request.app[HUB].pages
    text = await asyncio.to_thread(printable, proved.document, pages)
    allowed = base64.b64encode(hashlib.sha256(style(pages).encode()).digest()).decode()
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": f"sandbox; default-src 'none'; style-src 'sha256-{allowed}'"}
    return web.Response(text=text, content_type="text/html", headers=headers)


# --- for programs ---


@routes.get("/api/v1/holds/proof/head")
async def head_now(request: web.Request) -> web.Response:
    """Where the chain stands, signed: kept elsewhere, it shows later that nothing up to it was changed.

    With `since` (a head kept before) 409 where the chain no longer holds that one.
    """
    await require_token(request)
    hub = request.app[HUB]
    since = request.query.get("since", "")
    kept = read_head(since) if since else None
    if since and kept is None:
        raise web.HTTPBadRequest(text="since: must be a head as it was given, number:hash.")
    try:
        standing = await newest_head(hub.reader)
        if standing is None:
            raise web.HTTPNotFound(text=NOTHING)
        if kept is not None:
            await check_head(hub.reader, kept)
    except Broken as broken:
        raise web.HTTPConflict(text=str(broken)) from None
    return web.json_response(head_shown(standing[0], standing[1], keys_of(hub.secret).seed, iso))


def add_routes(app: web.Application) -> None:
    app[AT_WORK] = asyncio.Lock()
    app.add_routes(routes)
