"""What every answer of the hub tells a browser it may do, and how large a request each kind of route takes.

The kind of a route follows from the resource the router matched, never from the text of a path; what is not in the table
is an agents' page, so that a new route begins closed.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from enum import Enum

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.exc import SQLAlchemyError

from hub.storage.writer import StorageBusy
from hub.web.context import HUB

log = structlog.get_logger("hub.web")

MIB = 1 << 20
MAX_BODY = 35 * MIB  # for `web.Application(client_max_size=...)`: above SendGrid's 30 MB, where a 413 would be silent loss


class Kind(Enum):
    """Who a route is for, and so what stands in front of it."""

    AGENT = "agent"  # a session
    SIGN_IN = "sign-in"  # nothing yet
    API = "api"  # a bearer token
    PROVIDER = "provider"  # the signature of a provider or a room, or our own on a link
    CHAT = "chat"  # a visitor's own token, from other sites' pages
    SURVEY = "survey"  # the signed link a customer was sent
    SANDBOX = "sandbox"  # nothing: it exists only beside stand-ins
    STATIC = "static"  # nothing: the same for everybody
    HEALTH = "health"


# The first segment of the matched resource.
KINDS: dict[str, Kind] = {
    "in": Kind.PROVIDER,
    "rooms": Kind.PROVIDER,
    "tools": Kind.PROVIDER,
    "files": Kind.PROVIDER,  # what we give a provider to fetch, under a signed link
    "api": Kind.API,
    "chat": Kind.CHAT,
    "widget.js": Kind.CHAT,
    "s": Kind.SURVEY,
    "sandbox": Kind.SANDBOX,
    "static": Kind.STATIC,
    "favicon.ico": Kind.STATIC,
    "robots.txt": Kind.STATIC,
    "healthz": Kind.HEALTH,
    "login": Kind.SIGN_IN,
    "setup": Kind.SIGN_IN,
}

# Bytes of a request body; a kind without an entry takes what the application takes.
LIMITS: dict[Kind, int] = {Kind.SIGN_IN: 16 * 1024, Kind.SURVEY: 64 * 1024, Kind.API: MIB, Kind.STATIC: 1024, Kind.HEALTH: 1024}

_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors "
)
_DATA = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
CSP: dict[Kind, str] = {
    Kind.AGENT: _PAGE + "'none'; require-trusted-types-for 'script'; trusted-types hub",
    Kind.SIGN_IN: _PAGE + "'none'",
    Kind.SURVEY: _PAGE + "'none'",
    Kind.SANDBOX: _PAGE + "'self'",  # its panels stand side by side in frames
    Kind.API: _DATA,
    Kind.PROVIDER: _DATA,
    Kind.CHAT: _DATA,
    Kind.STATIC: _DATA,
    Kind.HEALTH: _DATA,
}
_PRIVATE = frozenset({Kind.AGENT, Kind.SIGN_IN, Kind.SURVEY, Kind.API, Kind.PROVIDER})


def kind_of(request: web.BaseRequest) -> Kind:
    """The kind of the route that was matched; AGENT where nothing was."""
    match = getattr(request, "_match_info", None)  # a request that could not even be parsed has none
    resource = match.route.resource if match is not None else None
    first = resource.canonical.lstrip("/").partition("/")[0] if resource is not None else ""
    return KINDS.get(first, Kind.AGENT)


def client_address(request: web.BaseRequest) -> str:
    """The address limits count by; empty where there is none. Only a proxy on this machine or network is believed, and only what it
    appended itself: without it everybody behind the proxy would share one limit, and one stranger could use it up for all."""
    peer = _ip(request.remote or "")
    if peer is not None and not peer.is_global:
        peer = _ip(",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()) or peer
    return str(peer or "")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(text)
    return None


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Fill in the security headers a handler has not set itself. For `app.on_response_prepare`: streams and errors get them too."""
    kind, headers = kind_of(request), response.headers
    headers.setdefault("Content-Security-Policy", CSP[kind])
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin" if kind is Kind.CHAT else "same-origin")
    headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
    if kind in _PRIVATE:
        headers.setdefault("Cache-Control", "no-store")
    elif kind is Kind.STATIC:
        # Asked for again each time (304): a page of a new release must never meet a script of the old one.
        headers.setdefault("Cache-Control", "no-cache")
    hub = request.app.get(HUB)
    if hub is not None and hub.settings.server.public_url.startswith("https://"):
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")


@web.middleware
async def limit_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a body larger than its kind of route takes: by its stated length at once, otherwise while it is read."""
    limit = LIMITS.get(kind_of(request))
    if limit is None or not request.can_read_body:
        return await handler(request)
    if request.content_type.startswith("multipart/"):
        raise web.HTTPUnsupportedMediaType(text="This address takes no multipart body.\n")
    if request.content_length is not None and request.content_length > limit:
        raise web.HTTPRequestEntityTooLarge(limit, text=f"The body is larger than {limit} bytes. Nothing was stored.\n")
    return await handler(request.clone(client_max_size=limit))


@web.middleware
async def answer_busy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """503 where the database would not take or give something and the handler had no better words for it."""
    try:
        return await handler(request)
    except (StorageBusy, SQLAlchemyError) as error:
        # A database error's text quotes what was asked for: only its kind is logged.
        log.error("the database refused", path=request.path, error=type(error).__name__)
        text = "The database is busy. Nothing was changed: go back and try again in a moment.\n"
        raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "2"}) from None


def add(app: web.Application) -> None:
    """Put the headers and the limits in front of everything else."""
    app.on_response_prepare.append(set_headers)
    app.middlewares[:0] = [limit_bodies, answer_busy]
