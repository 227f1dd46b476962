"""A marketing tool: it is told of holds by signed webhooks, and asks before it sends.

It verifies Standard Webhooks 1.0.0 by code of its own (https://github.com/standard-webhooks/standard-webhooks), as any
receiver would have to, so that a mistake in the hub's own signing cannot hide.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from connectors.sandbox.state import Hook, SandboxState
from connectors.sandbox.twilio import hang_up

TOLERANCE_SECONDS = 300


class MarketingStandIn:
    """Receives hold events at /marketing/hooks."""

    def __init__(self, state: SandboxState, secret: str) -> None:
        self._state = state
        self._key = base64.b64decode(secret.removeprefix("whsec_") + "==") if secret else b""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/marketing/hooks", self.receive)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """204 for a genuine event, 401 for a wrong signature (kept all the same, and shown with the reason)."""
        body = await request.read()
        failure = self._state.take_failure("marketing")
        if failure is not None and failure.status != "drop":
            headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
            return web.Response(status=failure.status, headers=headers)
        problem = self._problem(request.headers, body)
        event = _event(body)
        if event is None and not problem:
            return web.Response(status=400, text="not a JSON object")
        event = event or {}
        data = event.get("data")
        self._state.hooks.append(
            Hook(
                order=self._state.next_order(),
                at=self._state.clock(),
                id=request.headers.get("webhook-id", ""),
                type=str(event.get("type", "")),
                time=str(event.get("time") or event.get("timestamp") or ""),
                data=data if isinstance(data, dict) else {},
                problem=problem,
            )
        )
        self._state.changed()
        if failure is not None:
            return hang_up(request)
        return web.Response(status=401, text=problem) if problem else web.Response(status=204)

    def _problem(self, headers: Mapping[str, str], body: bytes) -> str:
        """Why the signature is refused; empty when it is right."""
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        message_id, stamp, signatures = (headers.get(name, "") for name in names)
        if not self._key:
            return "this tool has no secret to verify with"
        if not (message_id and stamp and signatures):
            return "not signed"
        if not (stamp.isascii() and stamp.isdigit()) or abs(self._state.clock() - int(stamp)) > TOLERANCE_SECONDS:
            return "its time is more than five minutes off"
        signed = f"{message_id}.{stamp}.".encode("utf-8", "surrogateescape") + body
        wanted = b"v1," + base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256))
        given = [one.encode("utf-8", "surrogateescape") for one in signatures.split()]
        return "" if any(hmac.compare_digest(one, wanted) for one in given) else "its signature is wrong"


def _event(body: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(body)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
