"""All routes of the hub, in one place."""

from __future__ import annotations

import time
from pathlib import Path

from aiohttp import web

from hub.delivery.tokens import file_token_names
from hub.web import api, attachments, auth, chat, customers_api, customers_bulk, inbox, live, security, settings, webhooks
from hub.web.context import HUB, Hub

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """Whether the hub can read its database."""
    from sqlalchemy import literal, select

    await request.app[HUB].reader.value(select(literal(1)))
    return web.json_response({"ok": True})


@routes.get("/files/{token}")
async def provider_file(request: web.Request) -> web.StreamResponse:
    """An outgoing attachment, for the provider that was given its short-lived link."""
    hub = request.app[HUB]
    attachment_id = file_token_names(hub.secret, request.match_info["token"], time.time())
    if attachment_id is None:
        raise web.HTTPNotFound(text="No such file, or its link has run out.")
    return await attachments.serve(hub, attachment_id)


def build(hub: Hub) -> web.Application:
    """The hub's web application, ready to run."""
    app = web.Application(middlewares=[auth.sessions], client_max_size=security.MAX_BODY)
    app[HUB] = hub
    security.add(app)
    app.middlewares.insert(0, api.api_errors)  # outermost: even a body refused for its size is told as the API tells errors
    app.add_routes(routes)
    app.router.add_static("/static", Path(__file__).parent / "static")
    for module in (webhooks, api, customers_api, customers_bulk):
        app.add_routes(module.routes)
    for pages in (auth, settings, inbox, attachments, live, chat):
        pages.add_routes(app)
    return app
