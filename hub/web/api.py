"""What all of the JSON API shares: errors as problem details, and streams let past the limit of a body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from hub.holds.gate import BadQuestion
from hub.storage.writer import StorageBusy
from hub.web.holds_check import check_names
from hub.web.holds_stream import check_stream, streams

log = structlog.get_logger("hub.api")

__all__ = ["api_errors", "check_names", "problem"]


def problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as RFC 9457 problem details."""
    body = json.dumps({"title": text, "status": status})
    return web.Response(status=status, text=body, content_type="application/problem+json", headers=headers)


@web.middleware
async def api_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Errors of the API as problem details, never as a page."""
    if not request.path.startswith("/api/"):
        return await handler(request)  # type: ignore[no-any-return]
    try:
        # What stands behind this limits bodies, and a stream has no end to be limited by: it is read line by line.
        return await (check_stream(request) if streams(request) else handler(request))
    except BadQuestion as error:
        return problem(400, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {name: error.headers[name] for name in ("WWW-Authenticate", "Allow", "Retry-After") if name in error.headers}
        return problem(error.status, error.text or error.reason, kept)
    except (StorageBusy, SQLAlchemyError) as error:
        # Its text quotes the identifiers asked about: only its kind is logged.
        log.error("the API could not read the database", path=request.path, error=type(error).__name__)
        return problem(503, "The database could not be read. Nothing is known of this person now; ask again.", {"Retry-After": "2"})
