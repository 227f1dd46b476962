"""Who is asking: sessions of agents, forms of this origin only, API tokens. Every entry of a person goes through `authenticate`.

Routes that carry their own credentials (providers, rooms, chat, API) pass the session by; everything else is refused
without one, so that a new page begins closed (see `security.KINDS`).
"""

from __future__ import annotations

import hmac
import re
from contextlib import suppress

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from hub import agents
from hub.agents import ApiPrincipal
from hub.keys import digest
from hub.passwords import NO_MATCH, PASSWORD_MIN, Passwords, PasswordsBusy, Verified, WrongPassword, check_password
from hub.policy import Refusal
from hub.sessions import (
    SESSION_LIFE,
    SESSION_TOUCH,
    BeginLogin,
    CloseSession,
    OpenSession,
    Principal,
    Throttled,
    TouchSession,
    session_of,
)
from hub.storage.writer import StorageBusy, wall_clock
from hub.web.context import HUB, PRINCIPAL, Hub
from hub.web.pages import render
from hub.web.security import Kind, client_address, kind_of

log = structlog.get_logger("hub.web")

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PASSWORDS = web.AppKey("passwords", Passwords)

_API_TOKEN = re.compile(r"hub_[A-Za-z0-9_-]{43}")

routes = web.RouteTableDef()


class NotSignedIn(Exception):
    """The request carries no session that lives: none, an unknown one, one that ended, or one of a disabled agent."""


def now_of(hub: Hub) -> int:
    """Microseconds UTC by the writer's clock, so that a session is made and judged by one clock."""
    return int(getattr(hub.writer, "clock", wall_clock)())


# --- sessions ------------------------------------------------------------------------------------------------------------


def cookie_name(hub: Hub) -> str:
    """`__Host-` pins the cookie to this host and to https; browsers refuse that name without TLS."""
    return "__Host-hub_session" if hub.settings.secure_cookies else "hub_session"


def _cookie_digest(request: web.Request) -> str | None:
    token = request.cookies.get(cookie_name(request.app[HUB]), "")
    return digest(token) if re.fullmatch(r"[A-Za-z0-9_-]{43}", token) else None


async def authenticate(request: web.Request, *, in_use: bool = True) -> Principal:
    """The agent whose session this request carries, read from the database each time. Raises NotSignedIn.

    A long stream asks too whether it may go on, with `in_use` false: a page left open is nobody at work, and its session must run out.
    """
    hub, token_hash = request.app[HUB], _cookie_digest(request)
    if token_hash is None:
        raise NotSignedIn
    now = now_of(hub)
    found = await session_of(hub.hot, token_hash, now)
    if found is None:
        raise NotSignedIn
    principal, seen_at = found
    if in_use and now - seen_at >= SESSION_TOUCH:
        with suppress(StorageBusy):  # a full disk must not lock agents out of reading
            await hub.writer.run(TouchSession(token_hash))
    return principal


def require_agent(request: web.Request) -> Principal:
    """The signed-in agent. Raises 401; the middleware has answered long before, this is for the type checker and for mistakes."""
    principal: Principal | None = request.get(PRINCIPAL)
    if principal is None:
        raise web.HTTPUnauthorized(text="Sign in first.\n")
    return principal


def require_admin(request: web.Request) -> Principal:
    """The signed-in administrator. Raises 401 or 403."""
    principal = require_agent(request)
    if principal.role != "admin":
        raise web.HTTPForbidden(text="This page is for administrators. Ask one of them.\n")
    return principal


async def _open_session(request: web.Request, proof: Verified) -> web.HTTPSeeOther:
    """Begin a session under a new token; the answer to raise, which leads on to where the person was going. Raises Refusal."""
    hub, token = request.app[HUB], agents.new_token()
    await hub.writer.run(OpenSession(proof, digest(token), agents.new_token(), _cookie_digest(request)))
    form = await request.post()
    response = web.HTTPSeeOther(safe_next(str(form.get("next", ""))))
    response.set_cookie(
        cookie_name(hub),
        token,
        path="/",
        httponly=True,
        samesite="Lax",
        secure=hub.settings.secure_cookies,
        max_age=SESSION_LIFE // 1_000_000,
    )
    return response


def safe_next(raw: str) -> str:
    """The path to go to after signing in: one of ours, or the inbox. A browser reads `//x` and `/\\x` as another host."""
    if len(raw) > 2_000 or not re.fullmatch(r"/(?:[^/\\\s\x00-\x1f\x7f][^\\\s\x00-\x1f\x7f]*)?", raw):
        return "/"
    return "/" if re.match(r"/(login|logout|setup)\b", raw) else raw


# --- forms of this origin only -------------------------------------------------------------------------------------------


def check_origin(request: web.Request) -> None:
    """Refuse an unsafe request another site's page made. Raises 403.

    Every browser of today says where a request was made, by Sec-Fetch-Site (on https and localhost), Origin, or both. A
    client that says neither is no browser, and nobody's cookies ride with it.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site != "same-origin":
        raise _foreign()
    if origin is not None:
        public = URL(request.app[HUB].settings.server.public_url)
        if origin not in (str(public.origin()), f"{request.scheme}://{request.host}"):
            log.warning("form of another origin refused", origin=origin[:200], ours=str(public.origin()))
            raise _foreign()


def _foreign() -> web.HTTPForbidden:
    return web.HTTPForbidden(
        text="This request came from another site, so it was refused and nothing was changed. "
        "If you use this hub under this address, set server.public_url to it.\n"
    )


async def check_csrf(request: web.Request, principal: Principal) -> None:
    """Refuse an unsafe request without its session's token, in `X-CSRF-Token` or the form field `csrf`. Raises 403."""
    given = request.headers.get("X-CSRF-Token")
    if given is None:
        given = str((await read_form(request)).get("csrf", ""))
    if not hmac.compare_digest(given.encode("utf-8", "replace"), principal.csrf.encode()):
        raise web.HTTPForbidden(text="This form belongs to an earlier session. Nothing was changed: reload the page and try again.\n")


async def read_form(request: web.Request) -> dict[str, str]:
    """The text fields of a form. Raises 400 where it cannot be read, 413 where it is too large."""
    try:
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (LookupError, ValueError) as error:  # an unknown charset, broken UTF-8, a multipart that is none
        raise web.HTTPBadRequest(text="This form cannot be read. Nothing was changed.\n") from error


# --- in front of every page ----------------------------------------------------------------------------------------------


@web.middleware
async def sessions(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let an agents' page be reached only with a session, and by an unsafe method only from our own pages."""
    kind = kind_of(request)
    if request.match_info.http_exception is not None:  # no such route: there is nothing to guard
        return await handler(request)
    if kind in (Kind.AGENT, Kind.SIGN_IN, Kind.SANDBOX) and request.method not in SAFE:
        check_origin(request)
    if kind not in (Kind.AGENT, Kind.SIGN_IN):
        return await handler(request)
    try:
        principal = await authenticate(request)
    except NotSignedIn:
        if kind is Kind.SIGN_IN:
            return await handler(request)
        raise _sign_in_first(request) from None
    request[PRINCIPAL] = principal
    if kind is Kind.AGENT and request.method not in SAFE:
        await check_csrf(request, principal)
    return await handler(request)


def _sign_in_first(request: web.Request) -> web.HTTPException:
    """Lead a person to the sign-in page; tell a script 401, so that it keeps what was typed."""
    # An older browser sends no Sec-Fetch-Mode; what our own script posts bears its token.
    navigates = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and "X-CSRF-Token" not in request.headers
    if request.method in SAFE and "text/event-stream" not in request.headers.get("Accept", "") and navigates:
        return web.HTTPSeeOther(str(URL("/login").with_query(next=safe_next(request.raw_path))))
    if request.method not in SAFE and navigates and "text/html" in request.headers.get("Accept", ""):
        return web.HTTPSeeOther("/login")
    return web.HTTPUnauthorized(text="Your session has ended. Sign in again (in another tab, to keep what you typed).\n")


# --- signing in and out --------------------------------------------------------------------------------------------------


@routes.get("/login")
async def login_page(request: web.Request) -> web.StreamResponse:
    goal = safe_next(request.query.get("next", ""))
    if request.get(PRINCIPAL) is not None:
        raise web.HTTPSeeOther(goal)
    return await _login(request, goal=goal)


async def _login(request: web.Request, *, goal: str, email: str = "", error: str = "", status: int = 200) -> web.Response:

    empty = await agents.count_agents(request.app[HUB].reader) == 0
    return render(request, "login.html", status=status, goal=goal, email=email, error=error, empty=empty)


@routes.post("/login")
async def login(request: web.Request) -> web.StreamResponse:
    hub, form = request.app[HUB], await read_form(request)
    email, goal = form.get("email", "")[:300], safe_next(form.get("next", ""))
    attempt = await hub.writer.run(BeginLogin(email, client_address(request)))
    if isinstance(attempt, Throttled):
        text = f"Too many failed attempts. Try again in {attempt.retry_after} seconds."
        response = await _login(request, goal=goal, email=email, error=text, status=429)
        response.headers["Retry-After"] = str(attempt.retry_after)
        return response
    try:
        proof = await request.app[PASSWORDS].verify(attempt, form.get("password", ""))
        raise await _open_session(request, proof)
    except PasswordsBusy as busy:
        response = await _login(request, goal=goal, email=email, error=str(busy), status=503)
        response.headers["Retry-After"] = "5"
        return response
    except (WrongPassword, Refusal):
        return await _login(request, goal=goal, email=email, error=NO_MATCH, status=401)


@routes.post("/logout")
async def logout(request: web.Request) -> web.StreamResponse:
    hub, principal = request.app[HUB], require_agent(request)
    await hub.writer.run(CloseSession(principal.session))
    response = web.HTTPSeeOther("/login", headers={"Clear-Site-Data": '"storage"'})  # drafts kept in the browser
    response.del_cookie(cookie_name(hub), path="/", secure=hub.settings.secure_cookies, httponly=True, samesite="Lax")
    raise response


@routes.get("/setup/{link}")
async def setup_page(request: web.Request) -> web.StreamResponse:
    agent_id, _ = await _check_link(request)
    return await _setup(request, agent_id)


async def _check_link(request: web.Request) -> tuple[int, str]:
    """The link's agent id and its token's digest. Raises 404, the same for a link that is wrong, used, or out of time."""
    hub = request.app[HUB]
    try:
        agent_id, token_hash = agents.split_link(request.match_info["link"])
        agents.check_link(await agents.link_of(hub.reader, agent_id), token_hash, now_of(hub))
    except Refusal as refusal:
        raise web.HTTPNotFound(text=f"{refusal} Ask an administrator for a new one, or run `hub agents add`.\n") from refusal
    return agent_id, token_hash


async def _setup(
    request: web.Request, agent_id: int, *, email: str = "", name: str = "", error: str = "", status: int = 200
) -> web.Response:

    invited = await agents.agent_by_id(request.app[HUB].reader, agent_id)
    return render(request, "setup.html", status=status, invited=invited, email=email, name=name, error=error, shortest=PASSWORD_MIN)


@routes.post("/setup/{link}")
async def setup(request: web.Request) -> web.StreamResponse:
    hub, form = request.app[HUB], await read_form(request)
    agent_id, token_hash = await _check_link(request)
    email, name, password = form.get("email", ""), form.get("name", ""), form.get("password", "")
    try:
        invited = await agents.agent_by_id(hub.reader, agent_id)
        address = agents.canonical_email(email) if invited is None else invited.email
        if invited is None:
            agents.check_name(name)
        check_password(password, address)
        password_hash = await request.app[PASSWORDS].hash(password)
        proof = await hub.writer.run(agents.FollowLink(agent_id, token_hash, password_hash, email, name))
        raise await _open_session(request, proof)
    except Refusal as refusal:
        return await _setup(request, agent_id, email=email, name=name, error=str(refusal), status=422)
    except PasswordsBusy as busy:
        return await _setup(request, agent_id, email=email, name=name, error=str(busy), status=503)


# --- programs ------------------------------------------------------------------------------------------------------------


def shown_token(request: web.Request) -> str:
    """The SHA-256 of the API token that `Authorization: Bearer hub_...` shows. Raises 401 where none is shown."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not _API_TOKEN.fullmatch(token):
        raise _no_token("Send an API token as `Authorization: Bearer hub_...`. An administrator makes one at /settings/api.")
    return digest(token)


def program_of(found: tuple[int, str] | None) -> ApiPrincipal:
    """The program behind a token that was looked up: from the database each time, so that revoked is revoked. Raises 401."""
    if found is None:
        raise _no_token("This API token is unknown or was revoked.")
    return ApiPrincipal(*found)


async def require_token(request: web.Request) -> ApiPrincipal:
    """The program that asks. Raises 401."""
    token = shown_token(request)
    return program_of(await request.app[HUB].hot.api_token(token))


def _no_token(text: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=text, headers={"WWW-Authenticate": 'Bearer realm="hub"'})


def add_routes(app: web.Application) -> None:
    """Add the sign-in pages and what they keep. The middleware `sessions` is added apart, inside `security.limit_bodies`."""
    app[PASSWORDS] = Passwords()
    app.add_routes(routes)
