"""Rendering: Jinja2 with autoescaping always on, and what every page may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from hub.web.context import HUB, PRINCIPAL


def templates_directory() -> Path:
    """The repository's templates while developing, the packaged copy once installed."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "templates"
    return beside if (beside / "base.html").exists() else package / "templates"


def environment() -> jinja2.Environment:
    """Autoescape for every template; an unknown name is an error, not an empty string."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_directory()),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def render(request: web.Request, name: str, /, status: int = 200, **context: Any) -> web.Response:
    """A page, with `agent` (who is signed in, or None) and `csrf` (the session's token) always there."""
    hub = request.app[HUB]
    principal = request.get(PRINCIPAL)
    text = hub.pages.get_template(name).render(
        agent=principal,
        csrf=principal.csrf if principal is not None else "",
        sandbox=hub.settings.sandbox.enabled,
        path=request.path,
        **context,
    )
    return web.Response(text=text, status=status, content_type="text/html", headers={"Cache-Control": "no-store"})
