"""The public page of a survey, `/s/{token}`: the link is the permission. Asking for it records nothing, whoever asks and how often (mail
scanners follow every link); only the form it holds, posted, does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from hub.policy import Refusal
from hub.satisfaction import reports
from hub.satisfaction.questions import WORDS, language, question
from hub.satisfaction.surveys import LONGEST_COMMENT, SCALES, Answer, Link, is_live, token_names
from hub.web.auth import NotSignedIn, authenticate, now_of, read_form
from hub.web.context import HUB
from hub.web.pages import render
from hub.web.security import client_address
from hub.web.visitors import Buckets

routes = web.RouteTableDef()


@dataclass(slots=True)
class Limits:
    """How often answers are taken, while the process runs: a link is somebody's own, an address may be many people's."""

    links: Buckets = field(default_factory=lambda: Buckets(10, 300))
    addresses: Buckets = field(default_factory=lambda: Buckets(60, 60))


LIMITS = web.AppKey("survey_limits", Limits)


@routes.get("/s/{survey}")
async def show(request: web.Request) -> web.StreamResponse:
    """The question with its scale, and the answer given so far. `?score=` marks one, for whoever clicked on it; it is not an answer."""
    link, row = await _survey(request)
    if not is_live(row.state, row.expires_at, now_of(request.app[HUB])):
        return _page(request, link.language, "over", status=410)
    given = row.score if row.score is not None else _score(request.query.get("score"))
    return _page(request, link.language, "noted" if "noted" in request.query and row.score is not None else "ask", row, given)


@routes.post("/s/{survey}")
async def answer(request: web.Request) -> web.StreamResponse:
    """Take the answer: `score`, and a `comment` if there is one. Given again it takes the place of the one before."""
    link, row = await _survey(request)
    if await _is_agent(request):
        return _page(request, link.language, "agent", row, status=403)
    limits, now = request.app[LIMITS], time.monotonic()
    wait = max(limits.links.wait(f"{link.survey_id}", now), limits.addresses.wait(client_address(request), now))
    form = await read_form(request)
    score, comment = _score(form.get("score")), form.get("comment", "").replace("\r\n", "\n")[:LONGEST_COMMENT]
    if wait:
        slow = _page(request, link.language, "busy", row, score, comment, status=429)
        slow.headers["Retry-After"] = str(int(wait) + 1)
        return slow
    if score not in SCALES[row.kind].numbers:
        return _page(request, link.language, "choose", row, None, comment, status=400)
    try:
        await request.app[HUB].writer.run(Answer(link.survey_id, link.ticket_id, score or 0, comment))
    except Refusal:
        return _page(request, link.language, "over", status=410)
    raise web.HTTPSeeOther(f"/s/{request.match_info['survey']}?noted=1")


async def _survey(request: web.Request) -> tuple[Link, Any]:
    """The survey the link names. Raises the page of a link that is none; one that is forged is told so without asking the database."""
    hub = request.app[HUB]
    link = token_names(hub.secret, request.match_info["survey"])
    row = await hub.reader.first(reports.of_ticket(link.ticket_id)) if link is not None else None
    if link is None or row is None or row.id != link.survey_id or row.asked_at is None:
        page = _page(request, language("", hub.policy.survey), "unknown", status=404)
        raise web.HTTPNotFound(text=page.text, content_type="text/html")
    return link, row


async def _is_agent(request: web.Request) -> bool:
    """Whether an agent answers in a customer's place: the link stands in the timeline. Beside the stand-ins of the sandbox one person
    plays both."""
    if request.app[HUB].settings.sandbox.enabled:
        return False
    try:
        await authenticate(request)
    except NotSignedIn:
        return False
    return True


def _score(typed: str | None) -> int | None:
    return int(typed) if typed is not None and typed.isascii() and typed.isdigit() and len(typed) < 3 else None


def _page(
    request: web.Request, speaks: str, what: str, row: Any = None, score: int | None = None, comment: str | None = None, status: int = 200
) -> web.Response:
    """The page in the survey's language; `what` it says: ask, noted, choose, busy, agent, over or unknown."""
    rules = request.app[HUB].policy.survey
    page = render(
        request,
        "surveys/page.html",
        status=status,
        what=what,
        words=WORDS[speaks],
        language=speaks,
        survey=row,
        question=question(row.kind, speaks, rules) if row is not None else "",
        scale=SCALES[row.kind] if row is not None else None,
        score=score,
        comment=(row.comment if comment is None else comment) if row is not None else "",
        longest=LONGEST_COMMENT,
    )
    page.headers["X-Robots-Tag"] = "noindex, nofollow"
    page.headers["Referrer-Policy"] = "no-referrer"  # the address is a key
    return page


def add_routes(app: web.Application) -> None:
    app[LIMITS] = Limits()
    app.add_routes(routes)
