"""The chat's doorway: which pages may embed it, how often a visitor may call, who they are, and their sessions.

A visitor's own messages come in through `POST /in/{channel}` like everybody's; the guard here adds what a browser needs to call it from
another site's page (CORS) and how often it may. Tokens travel in the Authorization header only: URLs end up in logs and histories.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from hub.config import Settings
from hub.customers.codes import KINDS, ProvingChannel, ProvingSession, masked, way
from hub.customers.disclosure import ProvedKey
from hub.customers.site_keys import KeysAway, KeySets
from hub.customers.visitors import (
    Identity,
    NotIdentified,
    VisitorSession,
    first_use,
    heading,
    identified,
    identify,
    is_again,
    next_session,
    proved_keys,
)
from hub.sessions import address_key
from hub.storage.writer import StorageBusy
from hub.web.context import HUB, BoundChannel, Hub
from hub.web.security import client_address
from hub.web.webhooks import READ, accept, ingest

log = structlog.get_logger("hub.chat")

MAX_SESSION_BODY = 20_000
MAX_MESSAGE_BODY = 8_000_000  # bytes: the 5 MB of files one message takes, in base64
UPLOAD = 100_000  # bytes: a larger message carries files

routes = web.RouteTableDef()


# --- how often ---


class Buckets:
    """Token buckets: `size` at once, refilled over `seconds`. In memory: a limit protects this process, not a promise."""

    def __init__(self, size: float, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._full_at: dict[str, float] = {}  # when this bucket is full again; absent: it is

    def wait(self, key: str, now: float) -> float:
        """Take one; 0.0, or the seconds until one may be taken."""
        if len(self._full_at) > 20_000:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        full_at = max(self._full_at.get(key, now), now) + self._seconds / self._size
        if (excess := full_at - now - self._seconds) > 1e-9:
            return excess
        self._full_at[key] = full_at
        return 0.0


MINUTE = 60.0  # seconds
SAME = 3  # times the same words are taken within a minute
LINKS = 10  # taken at once; so many more in each minute
_LINK = re.compile(r"(?i)\b(?:https?://|www\.)")


class Spam:
    """Who says the same again and again, or links and links: within a minute, in memory, by visitor. A repeat of one message (its id)
    counts once, since the widget sends again what it got no answer for."""

    def __init__(self) -> None:
        self._said: dict[str, deque[tuple[float, str, bytes, int]]] = {}  # (when, the message's id, its words, its links)

    def wait(self, who: str, number: str, text: str, now: float) -> tuple[float, str]:
        """(0.0, ""), or (seconds until this may be said, why not now)."""
        if len(self._said) > 5_000:
            self._said = {one: said for one, said in self._said.items() if now - said[-1][0] < MINUTE}
        said = self._said.get(who) or deque()
        while said and now - said[0][0] >= MINUTE:
            said.popleft()
        words = hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).digest()
        if any(one == number for _, one, *_ in said):
            return 0.0, ""
        same = [at for at, _, before, _ in said if before == words] if text.strip() else []
        if len(same) >= SAME:
            return same[-SAME] + MINUTE - now, "You said that already, and we have it. Nothing was stored."
        links = min(len(_LINK.findall(text)), LINKS)  # one message full of them goes, if no other did
        if links and links + sum(before for *_, before in said) > LINKS:
            return next(at for at, *_, before in said if before) + MINUTE - now, "Too many links at once. Nothing was stored."
        said.append((now, number, words, links))
        self._said[who] = said
        return 0.0, ""


@dataclass(slots=True)
class Chat:
    """What these routes keep while the process runs. Nothing here is lost that matters."""

    desks: Mapping[str, ProvingChannel] | None = None  # by channel; told at the first request, when the hub is there
    origins: dict[str, frozenset[str]] = field(default_factory=dict)
    newcomers: dict[str, Buckets] = field(default_factory=dict)
    messages: Buckets = field(default_factory=lambda: Buckets(10, 10))
    spam: Spam = field(default_factory=Spam)
    sessions: Buckets = field(default_factory=lambda: Buckets(10, 10))
    # By address and not by visitor: a new visitor costs nothing, the disk does.
    uploads: Buckets = field(default_factory=lambda: Buckets(20, 60))
    reads: Buckets = field(default_factory=lambda: Buckets(40, 10))
    codes: Buckets = field(default_factory=lambda: Buckets(10, 3_600))  # by address: a new visitor costs nothing, a text does
    all_codes: dict[str, Buckets] = field(default_factory=dict)
    continues: Buckets = field(default_factory=lambda: Buckets(20, 600))  # by address: links of mails tried
    streams: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.time  # unix seconds
    key_sets: KeySets | None = None  # of sites that serve their keys; handed over where the hub is put together

    def among(self, hub: Hub) -> Mapping[str, ProvingChannel]:
        """The chat channels of this hub, by name."""
        if self.desks is None:
            self.desks = {name: bound.connector for name, bound in hub.channels.items() if isinstance(bound.connector, ProvingChannel)}
            self.origins = {name: allowed_origins(hub.settings, desk.site) for name, desk in self.desks.items()}
            self.newcomers = {name: Buckets(desk.new_visitors_per_minute, 60) for name, desk in self.desks.items()}
            self.all_codes = {name: Buckets(desk.codes_per_hour, 3_600) for name, desk in self.desks.items() if desk.codes_per_hour}
        return self.desks


CHAT = web.AppKey("chat", Chat)


# --- which pages ---


def origin_of(url: str) -> str:
    """The origin of a configured address as a browser spells it: lower case, no default port, nothing behind it."""
    parts = urlsplit(url.strip())
    port = f":{parts.port}" if parts.port and parts.port != {"http": 80, "https": 443}.get(parts.scheme) else ""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}"


def allowed_origins(settings: Settings, site: str) -> frozenset[str]:
    """Pages that may embed a site's widget: those named for it, and the hub's own."""
    configured = settings.sites[site].origins
    return frozenset({origin_of(settings.server.public_url), *map(origin_of, configured)})


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _embedded(request: web.Request) -> tuple[ProvingChannel | None, str | None]:
    """The chat channel a request is for, and the page it comes from if that may embed it."""
    if not request.path.startswith(("/in/", "/chat/")):
        return None, None
    name = request.path.split("/")[2]
    chat = request.app[CHAT]
    desk = chat.among(request.app[HUB]).get(name)
    origin = request.headers.get("Origin")
    return desk, origin if desk is not None and origin in chat.origins[name] else None


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse foreign pages and floods before a chat channel is touched; every other route passes by untouched."""
    desk, origin = _embedded(request)
    if desk is None:
        return await handler(request)
    if origin is None and ("Origin" in request.headers or request.path.endswith("/session")):
        return refuse(403, _foreign(request.headers.get("Origin"), desk.site))
    if request.path.startswith("/in/") and request.method == "POST":
        return _limit(request, desk) or await _repeats(request, desk) or await handler(request)
    return await handler(request)


def _limit(request: web.Request, desk: ProvingChannel) -> web.Response | None:
    """The refusal of a message that is too large or one too many, before any of it is read."""
    chat, ticking = request.app[CHAT], time.monotonic()
    if request.content_length is None:
        return refuse(411, "Say how long the message is (Content-Length). Nothing was stored.")
    if request.content_length > MAX_MESSAGE_BODY:
        return refuse(413, "The files of a message may have 5 MB together. Nothing was stored.")
    session = desk.session(_bearer(request))
    wait = chat.messages.wait(session.device if session is not None else address_key(client_address(request)), ticking)
    if not wait and request.content_length > UPLOAD:
        wait = chat.uploads.wait(address_key(client_address(request)), ticking)
    return refuse(429, "Too many messages at once. Nothing was stored; send it again shortly.", wait) if wait else None


async def _repeats(request: web.Request, desk: ProvingChannel) -> web.Response | None:
    """The refusal of a message said again and again, or full of links. What carries files is limited by its size."""
    session = desk.session(_bearer(request))
    if session is None or (request.content_length or 0) > UPLOAD:
        return None
    request[READ] = await request.read()
    try:
        body = json.loads(request[READ])
    except (ValueError, RecursionError):
        return None  # judged, and kept, behind the door
    number, text = (body.get("id"), body.get("text")) if isinstance(body, dict) else (None, None)
    if not isinstance(number, str) or not isinstance(text, str):
        return None
    wait, why = request.app[CHAT].spam.wait(session.device, number[:64], text, time.monotonic())
    return refuse(429, why, wait) if wait else None


async def share(request: web.Request, response: web.StreamResponse) -> None:
    """Let the page that asked read the answer, whatever the answer is."""
    _, origin = _embedded(request)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        response.headers.add("Vary", "Origin")
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


async def preflight(request: web.Request) -> web.Response:
    """Answer a browser that asks first (Fetch standard, CORS-preflight)."""
    if _embedded(request)[1] is None:
        raise web.HTTPMethodNotAllowed("OPTIONS", ["POST"]) if request.path.startswith("/in/") else web.HTTPNotFound
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": "7200",
        },
    )


# --- who asks ---


@dataclass(frozen=True, slots=True)
class View:
    """A visitor's session and what it may look at."""

    hub: Hub
    channel: str
    session: ProvingSession
    keys: tuple[ProvedKey, ...]
    channel_ids: tuple[int, ...]


def desk_of(request: web.Request) -> tuple[Hub, BoundChannel, ProvingChannel]:
    name = request.match_info["channel"]
    hub = request.app[HUB]
    desk = request.app[CHAT].among(hub).get(name)
    if desk is None:
        raise refusal(web.HTTPNotFound, "There is no chat channel of this name.")
    return hub, hub.channels[name], desk


def view_of(request: web.Request) -> View:
    hub, bound, desk = desk_of(request)
    session = desk.session(_bearer(request))
    chat = request.app[CHAT]
    if session is None or chat.clock() >= session.good_until:
        raise refusal(web.HTTPUnauthorized, "This visitor token is unknown here or has expired. Begin or resume a session.")
    if wait := chat.reads.wait(session.device, time.monotonic()):
        raise refusal(web.HTTPTooManyRequests, "Too many requests at once.", wait)
    # One account of a site may write by several of its widgets; it is the same visitor.
    same_site = [hub.channels[name].rule.id for name, other in chat.among(hub).items() if other.site == desk.site]
    # A mail's link lets its reader see the chat the answer was given in, and says of nobody that they are that browser.
    linked = tuple(ProvedKey("device", "", value) for kind, value, _ in session.proofs if kind == "device")
    keys = (*proved_keys(desk.claims(session)), *linked)
    # Whoever proved an address here sees what was written from it and to it, whatever carried that.
    by_address = any(key.kind in ("email", "phone") for key in keys)
    return View(hub, bound.rule.name, session, keys, tuple(hub.policy.channels) if by_address else tuple(same_site))


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


# --- answers ---


def _payload(problem: str) -> str:
    return json.dumps({"error": problem})


def _waiting(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))} if seconds else {}


def refuse(status: int, problem: str, wait: float = 0.0) -> web.Response:
    return web.Response(status=status, text=_payload(problem), content_type="application/json", headers=_waiting(wait))


def refusal(kind: type[web.HTTPClientError], problem: str, wait: float = 0.0) -> web.HTTPClientError:
    return kind(text=_payload(problem), content_type="application/json", headers=_waiting(wait))


def _foreign(origin: str | None, site: str) -> str:
    if origin is None:
        return "A chat session begins on a web page; this request names no Origin."
    return f"This page's origin may not embed the chat. Add {origin[:200]} to sites.{site}.origins in config.yaml."


async def body_of(request: web.Request) -> dict[str, Any]:
    if (request.content_length or 0) > MAX_SESSION_BODY:
        raise _refused_size()
    raw = await request.read()
    if len(raw) > MAX_SESSION_BODY:
        raise _refused_size()
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise refusal(web.HTTPBadRequest, "The body must be a JSON object.")
    return body


def _refused_size() -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(max_size=MAX_SESSION_BODY, actual_size=0, text=_payload("The body is too large."))


# --- sessions ---


@routes.post("/chat/{channel}/session")
async def begin(request: web.Request) -> web.Response:
    """Begin, resume or identify a visitor's session: {resume?, identify?} -> {token, visitor, identified, ...}."""
    hub, bound, desk = desk_of(request)
    chat = request.app[CHAT]
    body = await body_of(request)
    resume = body.get("resume")
    old = desk.session(resume) if isinstance(resume, str) else None
    limit, key = (chat.sessions, old.device) if old else (chat.newcomers[bound.rule.name], address_key(client_address(request)))
    if wait := limit.wait(key, time.monotonic()):
        return refuse(429, "Too many chat sessions at once. Try again shortly.", wait)
    now = chat.clock()
    try:
        identity, problem = await _identify(hub, chat, desk, old, body, now)
    except StorageBusy:
        return refuse(503, "The hub cannot store this now. Nothing was changed; try again shortly.", 2.0)
    following = next_session(old, "identify" in body, identity, desk.site, now)
    device = secrets.token_hex(16) if old is None or following.fresh else old.device
    if following.renew or not isinstance(resume, str):
        who = following.identity or Identity("")
        # What a code proved goes with the browser and the person: whoever signs in at a browser has proved nothing there yet.
        proofs = old.proofs if old is not None and not following.fresh and old.user_id == who.user_id else ()
        token = desk.issue(device, now, user_id=who.user_id, email=who.email, phone=who.phone, name=who.name, proofs=proofs)
    elif old is not None and now >= old.good_until:
        token = again(desk, old, now)  # what a code proved has ended; the site's word for who it is has not
    else:
        token = resume
    session = desk.session(token)
    assert session is not None
    if identity is not None and not _is_told(old, session, now):
        try:
            await accept(hub, bound, [identified(session, desk.claims(session), body["identify"])])
        except StorageBusy:
            return refuse(503, "The hub cannot store this now. Nothing was changed; try again shortly.", 2.0)
    return told(hub, bound, desk, token, problem)


def again(desk: ProvingChannel, old: ProvingSession, now: float, proofs: Iterable[tuple[str, str]] = ()) -> str:
    """A token for the same session, with what was proved since and without what no longer counts; a site's word lasts no longer by it."""
    return desk.issue(
        old.device,
        now,
        user_id=old.user_id,
        email=old.email,
        phone=old.phone,
        name=old.name,
        proofs=(*old.proofs, *proofs),
        until=old.expires_at if old.user_id else None,
    )


def told(hub: Hub, bound: BoundChannel, desk: ProvingChannel, token: str, problem: str = "") -> web.Response:
    """A session as its browser is told it: with the addresses that codes proved, and the kinds a code could be sent to."""
    session = desk.session(token)
    assert session is not None
    answer = {
        "token": token,
        "visitor": session.device,
        "identified": bool(session.user_id),
        "name": session.name,
        "expires": session.good_until,
        "welcome": desk.welcome,
        "proved": [masked(kind, value) for kind, value, _ in session.proofs if kind in KINDS],
        "codes": [kind for kind in KINDS if desk.codes_per_hour and way(bound.rule, kind, hub.policy) is not None],
    }
    return web.json_response(answer | ({"problem": problem} if problem else {}), headers={"Cache-Control": "no-store"})


async def _identify(
    hub: Hub, chat: Chat, desk: ProvingChannel, old: VisitorSession | None, body: Mapping[str, Any], now: float
) -> tuple[Identity | None, str]:
    """Who the site's token in this request proves the visitor to be, or why nobody. Raises StorageBusy."""
    if "identify" not in body:
        return None, ""
    token, site = body["identify"], hub.settings.sites[desk.site]
    try:
        if not isinstance(token, str):
            raise NotIdentified("the token must be a string")
        keys = await chat.key_sets.of(desk.site, site, heading(token)) if chat.key_sets is not None else None
        identity = identify(token, site, now, keys)
        if (
            identity.token_id
            and not await _is_first_use(hub, chat, desk.site, identity.token_id)
            and not is_again(identity, old, desk.site, now)
        ):
            raise NotIdentified("this token was used before, by another browser or before a logout (`jti`); sign a new one for each page")
    except (NotIdentified, KeysAway) as error:
        log.info("visitor not identified", site=desk.site, problem=str(error))
        return None, str(error)
    return identity, ""


async def _is_first_use(hub: Hub, chat: Chat, site: str, token_id: str) -> bool:
    """Note that a token was used, and whether it is the first time. Raises StorageBusy."""
    # All widgets of a site ask in one place, so that what was used at one is used at all.
    places = [hub.channels[name] for name, desk in chat.among(hub).items() if desk.site == site]
    outcome = await ingest(hub, min(places, key=lambda bound: bound.rule.id), [first_use(site, token_id)], trusted=True, raw=None)
    return outcome.duplicates == 0


def _is_told(old: ProvingSession | None, session: ProvingSession, now: float) -> bool:
    """Whether the hub knows this already: every page of a site renews its visitor's token, and that is no news."""
    if old is None or now >= old.expires_at:
        return False
    before, after = ((one.device, one.user_id, one.email, one.phone, one.name) for one in (old, session))
    return before == after
