"""The sandbox's pages: the devices of made-up people beside the hub, for whoever tries it. Mounted only where the sandbox is enabled.

What stands behind them (the stand-in providers) is handed in as a `SandboxView`; nothing here reads or writes the hub itself,
so whatever these pages cause has come through the public endpoints.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from hub.web.auth import check_origin
from hub.web.pages import render

TICK = 0.05  # seconds: what changes within one tick leaves as one frame
KEEPALIVE = 15.0
MAX_BODY = 32_768

# What the tour shows as its steps: the key of a snapshot's `steps`, the panel it happens in, a title and one line.
STEPS = (
    ("wrote", "phone", "Ask by WhatsApp", "Ada wonders where her parcel is."),
    ("inbox", "", "Open the inbox", "Her question is there already."),
    ("skipped", "marketing", "Send the campaign", "Ada is skipped: she has an open ticket."),
    ("answered", "", "Answer her", "Your reply arrives on her phone."),
    ("resolved", "", "Resolve it", "In the inbox, or in Slack."),
    ("sent", "marketing", "Send it again", "Now Ada gets the offer."),
    ("sms", "phone", "Write by SMS", "Same person, same conversation."),
)


class SandboxView(Protocol):
    """What the pages need of the stand-ins."""

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Everything the page shows, as JSON; `version` and `steps` among it."""
        ...

    async def wait(self, seen: int) -> None:
        """Return once there is something newer than version `seen`."""
        ...

    async def act(self, what: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing as one of the people. Raises ValueError with a text for the visitor."""
        ...

    def picture(self, media_id: str) -> tuple[str, bytes] | None:
        """The content type and bytes of a picture one of the people sent."""
        ...


class SandboxPages:
    """Handlers over one view. `login` is shown to whoever is about to open the inbox: who to sign in as."""

    def __init__(self, view: SandboxView, login: str) -> None:
        self._view = view
        self._login = login
        self._streams: set[asyncio.Task[Any]] = set()

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The devices side by side."""
        return render(request, "sandbox/index.html", steps=STEPS, login=self._login)

    async def shop(self, request: web.Request) -> web.StreamResponse:
        """A shop that embeds the chat widget as any site would."""
        return render(request, "sandbox/shop.html", people=self._view.snapshot()["people"])

    async def act(self, request: web.Request) -> web.StreamResponse:
        """One thing done by one of the people; JSON from this origin only. A problem comes back as `problem`, with status 400."""
        check_origin(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Send JSON.\n")
        if request.content_length is None or request.content_length > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, text=f"Send at most {MAX_BODY} bytes, with their length.\n")
        try:
            data = json.loads(await request.read())
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return web.json_response({"problem": "Send a JSON object."}, status=400)
        try:
            return web.json_response(await self._view.act(request.match_info["what"], data))
        except ValueError as error:
            return web.json_response({"problem": str(error)}, status=400)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The whole state after every change, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while True:
                seen = self._view.version
                await response.write(f"event: state\ndata: {json.dumps(self._view.snapshot())}\n\n".encode())
                await asyncio.sleep(TICK)
                while not await self._changed(seen):
                    await response.write(b": still here\n\n")
        except ConnectionResetError:
            return response  # the page was closed
        finally:
            self._streams.discard(task)

    async def _changed(self, seen: int) -> bool:
        try:
            async with asyncio.timeout(KEEPALIVE):
                await self._view.wait(seen)
                return True
        except TimeoutError:
            return False

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """A picture one of the people sent, as their own phone shows it."""
        found = self._view.picture(request.match_info["media"])
        if found is None or not re.fullmatch(r"image/(png|jpeg|gif|webp)", found[0]):
            raise web.HTTPNotFound
        return web.Response(body=found[1], content_type=found[0], headers={"X-Content-Type-Options": "nosniff"})

    async def close(self, app: web.Application) -> None:
        """End the open streams: a shutdown waits for nobody's page."""
        for task in list(self._streams):
            task.cancel()


def add_routes(app: web.Application, sandbox: SandboxView, *, login: str = "") -> None:
    """Mount the sandbox's pages."""
    pages = SandboxPages(sandbox, login)
    app.router.add_get("/sandbox", pages.page)
    app.router.add_get("/sandbox/shop", pages.shop)
    app.router.add_get("/sandbox/stream", pages.stream, allow_head=False)
    app.router.add_get("/sandbox/media/{media}", pages.picture)
    app.router.add_post("/sandbox/act/{what}", pages.act)
    app.on_shutdown.append(pages.close)
