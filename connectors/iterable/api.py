"""Iterable's REST API: one call, its times, and what its answers mean.

Paths, bodies and the named `code`s are those of the vendor's own specification (Swagger 2.0, "Iterable API 1.8", served at
https://api.iterable.com/api/docs and published in https://github.com/Iterable/api-client, api-docs.json, 2026-07-09) [V]. No page found
names a header that says how long to wait after a 429 [U]: Retry-After is read should it be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from connectors.shared.retry_after import retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

HOSTS: Mapping[str, str] = {"us": "https://api.iterable.com", "eu": "https://api.eu.iterable.com"}

UNKNOWN = frozenset({"UnknownEmailError", "UnknownUserIdError", "NotFound"})
_KEY = frozenset({"BadApiKey", "BadAuthorizationHeader", "Unauthorized", "Forbidden", "InvalidJwtPayload"})
_LATER = frozenset({"RateLimitExceeded", "DatabaseError"})

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 8_000_000  # a thousand campaigns
# As user profiles keep dates: https://support.iterable.com/hc/en-us/articles/208183076-Field-Data-Types, "2016-08-02 18:53:45 +00:00" [V].
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?) ?(Z|[+-]\d\d:?\d\d)", re.ASCII)

Resource = Mapping[str, Any]
Params = Sequence[tuple[str, str]]


class Declined(Exception):
    """Iterable understood a call and declines it for what it asks. `code` is its own name for why, or empty."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(f"{reason} ({' '.join(filter(None, (str(status), code)))})")
        self.status = status
        self.code = code

    @property
    def unknown(self) -> bool:
        """Whether it says that it knows nobody by this identifier."""
        return self.status == 404 or self.code in UNKNOWN


class Api:
    """The calls, made with one key through one client. `name` is the destination's configured name, for errors."""

    def __init__(self, http: Http, home: str, key: SecretStr, name: str) -> None:
        self._http = http
        self._home = home.rstrip("/")
        self._key = key
        self._name = name

    async def get(self, path: str, params: Params = ()) -> Resource:
        """One call; its JSON. Raises Declined, Refused (the key) or TryLater."""
        return await self._call("GET", path + (f"?{urlencode(params, quote_via=quote, safe='')}" if params else ""), None)

    async def post(self, path: str, body: Resource) -> Resource:
        """One call; its JSON. Raises like `get`, also where a 200 bears another code than Success."""
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: Resource | None) -> Resource:
        headers = {"api-key": self._key.get_secret_value(), "accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body, separators=(",", ":")).encode()
        try:
            response = await self._http.request(
                method, self._home + path, headers=headers, body=content, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_BYTES
            )
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Iterable ({self._name}) was not reached: {error} It will be tried again.") from error
        answer = _json(response.body)
        code = str((answer or {}).get("code") or "")
        if not 200 <= response.status < 300 or code not in {"", "Success"}:
            raise self._failure(response, code, str((answer or {}).get("msg") or ""))
        if answer is None:
            raise TryLater(f"Iterable ({self._name}) answered {response.status} with something that is not JSON. It will be tried again.")
        return answer

    def _failure(self, response: HttpResponse, code: str, said: str) -> Exception:
        status, mend = response.status, f"Mend destinations.{self._name}"
        reason = said.strip().rstrip(".")[:200] or "it gives no reason"
        if status in {401, 403} or code in _KEY:
            return Refused(
                f"Iterable does not accept the API key for this ({status} {code}). Nothing was changed. {mend}.api_key: a server-side key "
                f"of this project; or {mend}.data_center."
            )
        if status == 429 or status >= 500 or status == 408 or code in _LATER:
            hint = "asks for fewer calls" if status == 429 or code == "RateLimitExceeded" else "failed at its own end"
            return TryLater(f"Iterable ({self._name}) {hint} ({status}). It will be tried again.", retry_after(response.headers))
        if 300 <= status < 400:
            return Refused(f"Iterable ({self._name}) redirects ({status}), and redirects are not followed. {mend}.base_url.")
        return Declined(status, code, reason)


def to_date(text: str) -> str:
    """An ISO time as Iterable's profiles keep dates; any other text as it is."""
    at = unix(text) if _DATE.fullmatch(text) else None
    return text if at is None else datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%d %H:%M:%S +00:00")


def unix(text: Any) -> float | None:
    """Unix seconds of a date in Iterable's spelling or in ISO 8601, with its zone; None for anything else."""
    found = _DATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3]}").timestamp()
    except (ValueError, OverflowError):
        return None


def iso(text: Any) -> str:
    """A date of a profile as ISO 8601; what is no date as it is, and nothing of None."""
    at = unix(text)
    return str(text or "") if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
