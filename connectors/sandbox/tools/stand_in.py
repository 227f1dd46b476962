"""What the stand-ins of marketing tools share: a server on loopback, profiles that lag behind what was written, and faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

HOST = "127.0.0.1"
HANG_LOOK = 0.02  # seconds between two looks whether the client has given up
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Quirks:
    """What goes wrong, until it is set back. Each tool adds its own in its own class."""

    revoked: bool = False  # the credentials are not accepted any more
    status: int = 0  # every call is answered with this and not carried out
    times: int = 0  # ... so many times; 0: until set back
    retry_after: str = ""  # the header beside `status`
    lose_answers: int = 0  # so many calls are carried out and then not answered: the connection is cut
    hang: bool = False  # calls are not answered until the client gives up
    read_lag: float = 0.0  # seconds until reading shows a write
    segment_lag: float = 0.0  # seconds until the hold segment shows a write
    refused: set[str] = field(default_factory=set)  # identifiers that are refused inside an otherwise good answer, as the tool does


@dataclass(slots=True)
class Profile:
    """One person as the tool knows them. `consent` is theirs, and nothing the hub does may change it."""

    id: str
    keys: dict[str, str]  # kind (email, phone, external_id) -> value as the tool keeps it
    attributes: dict[str, Any] = field(default_factory=dict)
    consent: dict[str, str] = field(default_factory=dict)  # channel -> subscribed | unsubscribed
    history: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # (when, attributes from then on)


class StandIn:
    """A marketing tool on loopback. A subclass names its `name`, its `credentials` and its `routes`; whoever drives it (a test, the
    sandbox, `hub simulate`) adds profiles, looks at them, and sets `quirks`."""

    name: ClassVar[str]
    credentials: ClassVar[dict[str, str]]  # what the connector's settings must hold to reach it, beside type and base_url

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.quirks = Quirks()
        self.profiles: list[Profile] = []
        self.writes: list[dict[str, Any]] = []  # each change of a profile that was carried out: {"profile", "attributes"}
        self.calls: list[tuple[str, str]] = []  # (method, path) of every request
        self.campaigns: list[dict[str, Any]] = []  # in the tool's own shape
        self._runner: web.AppRunner | None = None
        self.url = ""

    # --- for whoever drives it ---

    def add_profile(self, **keys: str) -> Profile:
        """Somebody the tool knows, by email, phone and external_id, subscribed to everything."""
        profile = Profile(id=self.new_id(len(self.profiles) + 1), keys=keys, consent={"email": "subscribed", "sms": "subscribed"})
        profile.history.append((self.clock(), {}))
        self.profiles.append(profile)
        return profile

    def new_id(self, number: int) -> str:
        """An id in the tool's manner."""
        return f"p{number:06}"

    def find(self, kind: str, value: str) -> Profile | None:
        """The profile with this identifier, as the tool compares them."""
        return next((p for p in self.profiles if p.keys.get(kind, "").casefold() == value.casefold() and value), None)

    def write(self, profile: Profile, attributes: dict[str, Any], unset: tuple[str, ...] = ()) -> None:
        """Carry out a change of attributes, noted as a write of the hub's."""
        self.writes.append({"profile": profile.id, "attributes": attributes, "unset": unset})
        self.meddle(profile, attributes, unset)

    def meddle(self, profile: Profile, attributes: dict[str, Any], unset: tuple[str, ...] = ()) -> None:
        """Change attributes as somebody else in the tool would."""
        profile.attributes = {k: v for k, v in (profile.attributes | attributes).items() if k not in unset}
        profile.history.append((self.clock(), dict(profile.attributes)))

    def shown(self, profile: Profile, lag: float | None = None) -> dict[str, Any]:
        """The attributes as reading shows them now: late by `read_lag` (or by `lag`)."""
        until = self.clock() - (self.quirks.read_lag if lag is None else lag)
        return next((dict(attributes) for at, attributes in reversed(profile.history) if at <= until), {})

    def in_segment(self, profile: Profile) -> bool:
        """Whether the tool's own segment of held people shows this one now: late by `segment_lag`."""
        raise NotImplementedError

    # --- the server ---

    def routes(self) -> list[web.RouteDef]:
        """The tool's calls."""
        raise NotImplementedError

    def authorised(self, request: web.Request) -> bool:
        """Whether the request bears the credentials."""
        raise NotImplementedError

    def unauthorised(self) -> web.Response:
        """What the tool answers to whoever it does not know."""
        return web.json_response({"error": "unauthorised"}, status=401)

    def failing(self, status: int) -> web.Response:
        """What the tool answers when it fails."""
        headers = {"Retry-After": self.quirks.retry_after} if self.quirks.retry_after else {}
        return web.json_response({"error": f"failing with {status}"}, status=status, headers=headers)

    def add_routes(self, app: web.Application, prefix: str = "") -> None:
        """Serve the tool from an application of somebody else's."""
        for route in self.routes():
            app.router.add_route(route.method, prefix + route.path, self._guarded(route.handler))

    def _guarded(self, handler: Any) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.calls.append((request.method, request.path))
            quirks = self.quirks
            await request.read()
            if quirks.hang:
                while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 (aiohttp tells nobody)
                    await asyncio.sleep(HANG_LOOK)
                return hang_up(request)
            if quirks.status:
                status = quirks.status
                if quirks.times:
                    quirks.times -= 1
                    quirks.status = status if quirks.times else 0
                return self.failing(status)
            if quirks.revoked or not self.authorised(request):
                return self.unauthorised()
            response: web.StreamResponse = await handler(request)
            if quirks.lose_answers:
                quirks.lose_answers -= 1
                return hang_up(request)
            return response

        return answer

    async def start(self, port: int = 0) -> str:
        """Listen on loopback; returns the URL to configure as `base_url`."""
        app = web.Application(client_max_size=10_000_000)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def hang_up(request: web.Request) -> web.Response:
    """Cut the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
