"""Klaviyo's JSON:API: one call, its pages, its filters, and what its refusals mean.

https://developers.klaviyo.com/en/reference/api_overview (filters, pages, revisions) and
https://developers.klaviyo.com/en/docs/rate_limits_and_error_handling, both read for this; paths and shapes from the vendor's own
specification, https://github.com/klaviyo/openapi (stable, 2026-07-15).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pydantic import SecretStr

from connectors.shared.retry_after import LONGEST, retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

HOME = "https://a.klaviyo.com"
# Campaigns of later revisions (2026-10-15) can no longer be asked for by channel and status.
REVISION = "2026-07-15"

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 16_000_000  # fifty profiles, each with up to 100 kB of other people's properties
_FILTER_LENGTH = 1_500  # characters before encoding, so that the address stays within what proxies take

Resource = Mapping[str, Any]


class Declined(Exception):
    """Klaviyo understood a call and declines it for what it asks (400, 404, 409, 422). The text is its own reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason} ({status})")
        self.status = status


class Api:
    """The calls, made with one key through one client. `name` is the destination's configured name, for errors."""

    def __init__(self, http: Http, home: str, key: SecretStr, name: str) -> None:
        self._http = http
        self._home = home.rstrip("/")
        self._key = key
        self.name = name

    async def call(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """One call; its JSON, or nothing of a 204. Raises Declined, Refused (the key) or TryLater."""
        url = f"{self._home}{path}" + (f"?{urlencode(params, quote_via=quote, safe='')}" if params else "")
        headers = {
            "authorization": f"Klaviyo-API-Key {self._key.get_secret_value()}",
            "revision": REVISION,
            "accept": "application/vnd.api+json",
        }
        if body is not None:
            headers["content-type"] = "application/vnd.api+json"
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            response = await self._http.request(method, url, headers=headers, body=content, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_BYTES)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Klaviyo ({self.name}) was not reached: {error} It will be tried again.") from error
        if response.status >= 300:
            raise self._failure(response)
        if not response.body:
            return {}
        answer = _json(response.body)
        if answer is None:
            raise TryLater(f"Klaviyo ({self.name}) answered {response.status} with something that is not JSON. It will be tried again.")
        if "errors" in answer and "data" not in answer:
            raise Declined(response.status, _reason(answer))
        return answer

    async def pages(self, path: str, params: Mapping[str, str], at_most: int = 10_000) -> tuple[list[Resource], list[Resource]]:
        """The resources of a collection, its pages followed by their cursors until `at_most`, and what was included with them."""
        found: list[Resource] = []
        included: list[Resource] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.call("GET", path, {**params, **cursor})
            found += answer.get("data") or ()
            included += answer.get("included") or ()
            # Only the cursor is taken from the link, never the address: the key goes nowhere else.
            query = parse_qs(urlsplit((answer.get("links") or {}).get("next") or "").query)
            following = {"page[cursor]": query["page[cursor]"][0]} if "page[cursor]" in query else {}
            if not following or following == cursor or len(found) >= at_most:
                return found[:at_most], included
            cursor = following

    def _failure(self, response: HttpResponse) -> Exception:
        status = response.status
        reason = _reason(_json(response.body) or {})
        mend = f"Mend destinations.{self.name}"
        if status == 429:
            return TryLater(f"Klaviyo ({self.name}) asks for fewer calls (429). It will be tried again.", _wait(response.headers))
        if status == 401:
            return Refused(f"Klaviyo does not accept the API key (401). Nothing was changed. {mend}.api_key: a private key (pk_...).")
        if status == 403:
            return Refused(f"Klaviyo's API key may not do this (403: {reason}). Nothing was changed. {mend}.api_key: give it the scopes.")
        if 300 <= status < 400:
            return Refused(f"Klaviyo ({self.name}) redirects ({status}), and redirects are not followed. {mend}.base_url.")
        if status >= 500 or status == 408:
            return TryLater(
                f"Klaviyo ({self.name}) failed at its own end ({status}). It will be tried again.", retry_after(response.headers)
            )
        return Declined(status, reason)


def any_of(field: str, values: Iterable[str]) -> Iterator[str]:
    """Filters for any of these values, each short enough for an address."""
    chunk: list[str] = []
    length = 0
    for value in values:
        said = quoted(value)
        if chunk and length + len(said) > _FILTER_LENGTH:
            yield f"any({field},[{','.join(chunk)}])"
            chunk, length = [], 0
        chunk.append(said)
        length += len(said) + 1
    if chunk:
        yield f"any({field},[{','.join(chunk)}])"


def quoted(value: str) -> str:
    """A string as a filter's literal."""
    return json.dumps(value, ensure_ascii=False)


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _reason(answer: Mapping[str, Any]) -> str:
    """What the errors of an answer say, in their own words, shortened."""
    errors = answer.get("errors")
    said: Sequence[str] = [
        str(error.get("detail") or error.get("title") or error.get("code") or "")
        for error in (errors if isinstance(errors, list) else ())
        if isinstance(error, dict)
    ]
    return "; ".join(text.strip().rstrip(".") for text in said if text)[:200] or "it gives no reason"


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: Retry-After on a 429, else until the minute's window ends (RateLimit-Reset, seconds)."""
    asked = retry_after(headers)
    if asked is None and headers.get("ratelimit-reset", "").isdecimal():
        return min(float(headers["ratelimit-reset"]), LONGEST) or None
    return asked
