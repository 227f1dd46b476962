"""Customer.io's two APIs: Track, which takes changes, and App, which is asked; each with a key of its own.

Paths and shapes: the vendor's own specifications, as its references are rendered from them (https://docs.customer.io/integrations/api/track/
and https://docs.customer.io/integrations/api/app/) [V]. Limits [V]: the App API takes 10 calls a second and answers 429 with Retry-After
(without it where a daily quota is spent); the Track API does not enforce its 1,000 a second and names no wait.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import SecretStr

from connectors.shared.retry_after import retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

# Region -> (Track, App). A workspace answers in its own region only [V: GET /api/v1/accounts/region tells which].
HOSTS: Mapping[str, tuple[str, str]] = {
    "us": ("https://track.customer.io", "https://api.customer.io"),
    "eu": ("https://track-eu.customer.io", "https://api-eu.customer.io"),
}

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 8_000_000  # a page of a thousand messages
# Fifty people are more calls than a second takes, and beginning anew each time would never end: so short waits are waited here.
_SHORT_SECONDS = 2.0
_MOST_WAITS = 40

Resource = Mapping[str, Any]


class Declined(Exception):
    """Customer.io understood a call and declines it for what it asks (400, 404, 422)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it declines the call ({status})")
        self.status = status


class Api:
    """The calls of one workspace through one client. `name` is the destination's configured name, for errors."""

    def __init__(
        self,
        http: Http,
        hosts: tuple[str, str],
        site_id: str,
        api_key: SecretStr,
        app_api_key: SecretStr,
        name: str,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._track, self._app = (host.rstrip("/") for host in hosts)
        self._basic = "Basic " + b64encode(f"{site_id}:{api_key.get_secret_value()}".encode()).decode()
        self._bearer = f"Bearer {app_api_key.get_secret_value()}"
        self.name = name
        self._pause = pause
        self._waits = _MOST_WAITS

    async def track(self, method: str, path: str, body: Resource | None = None) -> Resource:
        """One call of the Track API. A 207 is an answer: it names the items that were not taken. Raises Declined, Refused or TryLater."""
        return await self._call(method, self._track + path, body, self._basic, "Track", "api_key, and with it site_id")

    async def app(self, method: str, path: str, body: Resource | None = None) -> Resource:
        """One call of the App API. Raises Declined, Refused or TryLater."""
        return await self._call(method, self._app + path, body, self._bearer, "App", "app_api_key")

    async def _call(self, method: str, url: str, body: Resource | None, key: str, which: str, setting: str) -> Resource:
        headers = {"authorization": key, "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        while True:
            try:
                response = await self._http.request(
                    method, url, headers=headers, body=content, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_BYTES
                )
            except (NotSent, NoAnswer) as error:
                raise TryLater(f"Customer.io ({self.name}) was not reached: {error} It will be tried again.") from error
            wait = retry_after(response.headers) if response.status == 429 else None
            if wait is None or wait > _SHORT_SECONDS or not self._waits:
                break
            self._waits -= 1
            await self._pause(wait)
        if response.status >= 300:
            raise self._failure(response, which, setting)
        if not response.body.strip():
            return {}
        try:
            answer = json.loads(response.body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise TryLater(f"Customer.io ({self.name}) answered {response.status} with something that is not JSON. It will be tried again.")
        return answer

    def _failure(self, response: HttpResponse, which: str, setting: str) -> Exception:
        status = response.status
        mend = f"Mend destinations.{self.name}"
        if status in {401, 403}:
            return Refused(f"Customer.io does not accept the key of its {which} API ({status}). Nothing was changed. {mend}.{setting}.")
        if status == 429:
            wait = retry_after(response.headers)
            return TryLater(f"Customer.io ({self.name}) asks for fewer calls of its {which} API (429). It will be tried again.", wait)
        if 300 <= status < 400:
            return Refused(f"Customer.io ({self.name}) redirects ({status}): the workspace is elsewhere. {mend}.region.")
        if status >= 500 or status == 408:
            wait = retry_after(response.headers)
            return TryLater(f"Customer.io ({self.name}) failed at its own end ({status}). It will be tried again.", wait)
        return Declined(status)
