"""All routes of the hub, in one place."""

from __future__ import annotations

import time
from pathlib import Path

from aiohttp import web

from hub.delivery.tokens import file_token_names
from hub.web import (
    api,
    attachments,
    auth,
    chat,
    courtesies,
    customer_holds,
    customers_api,
    customers_bulk,
    follow_ups,
    holds_api,
    holds_check,
    holds_pages,
    holds_stream,
    inbox,
    live,
    message_templates,
    messages_api,
    proof,
    review,
    satisfaction,
    security,
    settings,
    surveys,
    tool_hooks,
    tool_setup,
    triage,
    webhooks,
)
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
    app[tool_hooks.VERIFIED] = set()
    security.add(app)
    app.middlewares.insert(0, api.api_errors)  # outermost: even a body refused for its size is told as the API tells errors
    app.add_routes(routes)
    app.router.add_static("/static", Path(__file__).parent / "static")
    for module in (webhooks, customers_api, customer_holds, customers_bulk, tool_hooks, triage, follow_ups):
        app.add_routes(module.routes)
    holds_stream.add(app)
    courtesies.add(app)
    for pages in (
        holds_check,
        holds_api,
        holds_pages,
        tool_setup,
        auth,
        settings,
        inbox,
        attachments,
        live,
        chat,
        satisfaction,
        surveys,
        proof,
        review,
        message_templates,
        messages_api,
    ):
        pages.add_routes(app)
    return app
