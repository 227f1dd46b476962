"""The providers' approved templates, for the composer and for programs: fetched when asked for, and kept for some minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from aiohttp import web

from hub.contract import KnowsTemplates, Refused, Template, TemplateUse, TryLater
from hub.conversations.templates import chosen, fill
from hub.policy import Refusal
from hub.web.auth import require_agent
from hub.web.context import HUB, BoundChannel, Hub

KEPT = 300.0  # seconds
PATIENCE = 10.0  # seconds a provider may take to list them

routes = web.RouteTableDef()


@dataclass(slots=True)
class Templates:
    """What each channel's provider listed last. In memory: it is asked for again at any time."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, Sequence[Template]]] = field(default_factory=dict)

    async def of(self, hub: Hub, bound: BoundChannel) -> Sequence[Template]:
        """A channel's templates. Raises Refusal where it knows none or they cannot be had now."""
        if not isinstance(bound.connector, KnowsTemplates):
            raise Refusal(f"{bound.rule.label} knows no templates.")
        at, known = self._known.get(bound.rule.name, (0.0, ()))
        if known and self.clock() - at < KEPT:
            return known
        try:
            async with asyncio.timeout(PATIENCE):
                found = await bound.connector.templates(hub.http)
        except (Refused, TryLater, TimeoutError) as error:
            why = str(error) or "its provider does not answer"
            raise Refusal(f"The templates of {bound.rule.label} cannot be had now: {why}") from error
        self._known[bound.rule.name] = (self.clock(), found)
        return found

    async def filled(self, hub: Hub, bound: BoundChannel, id_: str, language: str, variables: Mapping[str, str]) -> tuple[str, TemplateUse]:
        """How an approved template reads with these variables, and how it is sent. Raises Refusal."""
        return fill(chosen(await self.of(hub, bound), id_, language), variables)


TEMPLATES = web.AppKey("templates", Templates)


@routes.get(r"/channels/{channel:[a-z0-9][a-z0-9_-]{0,40}}/templates")
async def templates(request: web.Request) -> web.StreamResponse:
    """A channel's templates as JSON, approved ones first."""
    require_agent(request)
    hub = request.app[HUB]
    bound = hub.channels.get(request.match_info["channel"])
    if bound is None:
        raise web.HTTPNotFound(text="There is no such channel.\n")
    try:
        found = await request.app[TEMPLATES].of(hub, bound)
    except Refusal as refusal:
        return web.json_response({"error": str(refusal), "templates": []}, status=409)
    listed = sorted(found, key=lambda one: (not one.approved, one.name, one.language))
    return web.json_response({"templates": [asdict(one) for one in listed]}, headers={"Cache-Control": "no-store"})


def add_routes(app: web.Application) -> None:
    app[TEMPLATES] = Templates()
    app.add_routes(routes)
