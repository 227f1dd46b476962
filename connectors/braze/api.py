"""Braze's REST API: one call, how long it asks us to wait, and what its refusals mean.

From the vendor's pages [V], in the source they are built from (https://github.com/braze-inc/braze-docs): "Rate limits"
(https://www.braze.com/docs/api/api_limits/: X-RateLimit-Reset in UTC epoch seconds, no Retry-After) and "Errors & responses"
(https://www.braze.com/docs/api/errors/: `message` is `success`, or `queued` with 202 during maintenance, or says what is wrong).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from connectors.shared.retry_after import LONGEST, retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

# https://www.braze.com/docs/user_guide/administrative/access_braze/sdk_endpoints/ [V]
INSTANCES: Mapping[str, str] = {
    **{f"US-{number:02}": f"https://rest.iad-{number:02}.braze.com" for number in range(1, 9)},
    "EU-01": "https://rest.fra-01.braze.eu",
    "EU-02": "https://rest.fra-02.braze.eu",
    "AU-01": "https://rest.au-01.braze.com",
    "ID-01": "https://rest.id-01.braze.com",
}

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 8_000_000  # fifty profiles with all their custom attributes
_TAKEN = frozenset({"success", "queued"})

Resource = Mapping[str, Any]


class Declined(Exception):
    """Braze understood a call and declines it for what it asks (400). The text is its own reason; `items` tells which of a list's
    objects it names, by their place."""

    def __init__(self, status: int, reason: str, items: Mapping[int, str]) -> None:
        super().__init__(f"{reason} ({status})")
        self.items = items


class Api:
    """The calls, made with one key through one client at one moment. `name` is the destination's configured name, for errors."""

    def __init__(self, http: Http, home: str, key: SecretStr, name: str, now: float) -> None:
        self._http = http
        self._home = home.rstrip("/")
        self._key = key
        self._name = name
        self._now = now

    async def get(self, path: str, params: Mapping[str, str]) -> Resource:
        """One call; its JSON. Raises Declined, Refused (the key) or TryLater."""
        return await self._call("GET", f"{path}?{urlencode(params, quote_via=quote, safe='')}", None)

    async def post(self, path: str, body: Resource) -> Resource:
        """One call; its JSON, which may hold errors of single objects in its success: see `item_errors`. Raises like `get`."""
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: Resource | None) -> Resource:
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}", "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body, separators=(",", ":")).encode()
        try:
            response = await self._http.request(
                method, self._home + path, headers=headers, body=content, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_BYTES
            )
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Braze ({self._name}) was not reached: {error} It will be tried again.") from error
        answer = _json(response.body)
        if not 200 <= response.status < 300:
            raise self._failure(response, answer or {})
        if answer is None:
            raise TryLater(f"Braze ({self._name}) answered {response.status} with something that is not JSON. It will be tried again.")
        if "message" in answer and answer["message"] not in _TAKEN:
            raise Declined(response.status, _reason(answer), item_errors(answer))
        return answer

    def _failure(self, response: HttpResponse, answer: Resource) -> Exception:
        status, mend = response.status, f"Mend destinations.{self._name}"
        if status == 429:
            return TryLater(f"Braze ({self._name}) asks for fewer calls (429). It will be tried again.", self._wait(response.headers))
        if status == 401:
            # The same answer for a key of another instance and for one without the permission.
            return Refused(
                f"Braze does not accept the API key for this (401). Nothing was changed. {mend}.api_key: a REST API key of this workspace "
                f"with the permissions that the set-up page names; or {mend}.instance, if it is another one."
            )
        if status in {403, 404}:
            return Refused(f"Braze refuses ({status}: {_reason(answer)}). Nothing was changed. {mend}.api_key or {mend}.instance.")
        if 300 <= status < 400:
            return Refused(f"Braze ({self._name}) redirects ({status}), and redirects are not followed. {mend}.base_url.")
        if status >= 500 or status == 408:
            return TryLater(f"Braze ({self._name}) failed at its own end ({status}). It will be tried again.", self._wait(response.headers))
        return Declined(status, _reason(answer), item_errors(answer))

    def _wait(self, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait: until the window ends, which Braze tells as a time; or as newer endpoints of its do."""
        asked = retry_after(headers)
        if asked is None:
            asked = _number(headers.get("x-ratelimit-retry-after", ""))
        if asked is None and (reset := _number(headers.get("x-ratelimit-reset", ""))) is not None:
            asked = reset - self._now
        return min(asked, LONGEST) if asked is not None and asked > 0 else None


def item_errors(answer: Resource) -> dict[int, str]:
    """Which objects of the `attributes` were refused, and why, out of an answer that may be a success; -1: some, not said which.

    The page of /users/track says no more than "<minor error message>"; entries are seen as {"type", "input_array", "index"} [S].
    """
    found: dict[int, str] = {}
    errors = answer.get("errors")
    for error in errors if isinstance(errors, list) else ():
        index, why = -1, str(error)
        if isinstance(error, dict):
            why = str(error.get("type") or error.get("message") or "it gives no reason")
            named = error.get("index")
            if error.get("input_array", "attributes") == "attributes" and isinstance(named, int) and not isinstance(named, bool):
                index = named
        found.setdefault(index, why.strip().rstrip(".")[:200])
    return found


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _reason(answer: Resource) -> str:
    said = [str(answer.get("message") or ""), *item_errors(answer).values()]
    return "; ".join(text.strip().rstrip(".") for text in said if text)[:200] or "it gives no reason"


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
