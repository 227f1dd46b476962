"""HubSpot's API: one call, and what its refusals mean.

Paths and shapes: the vendor's own specification (https://github.com/HubSpot/HubSpot-public-api-spec-collection, v3) [V]. Errors and
limits: https://developers.hubspot.com/docs/api-reference/error-handling and
https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines [V]: every field of an error may be missing; 207 holds
results and errors side by side; 423 locks a record for two seconds; 477 means the account is being moved; a 429 names its policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from connectors.shared.retry_after import LONGEST, retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

HOME = "https://api.hubapi.com"

_TIMEOUT_SECONDS = 20.0
_MAX_BYTES = 16_000_000  # fifty contacts, or a page of marketing e-mails
_LOCKED_SECONDS = 2.0

# The policy of a 429 -> seconds to wait where no header says. The daily limit is given back at midnight in the account's own time
# zone, so asking again at once only spends what others need.
_WAITS: Mapping[str, float] = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0, "DAILY": LONGEST}

Resource = Mapping[str, Any]


class Declined(Exception):
    """HubSpot understood a call and declines it for what it asks (400, 404, 409, ...). The text is its own reason; `body` its error."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{reason(body)} ({status})")
        self.status = status
        self.body = body


class Api:
    """The calls, made with one private app's token through one client. `name` is the destination's configured name, for errors."""

    def __init__(self, http: Http, home: str, token: SecretStr, name: str) -> None:
        self._http = http
        self._home = home.rstrip("/")
        self._token = token
        self.name = name

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Resource:
        """One call; its JSON, or nothing of a 204. Raises Declined, Refused (the token) or TryLater."""
        headers = {"authorization": f"Bearer {self._token.get_secret_value()}", "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            response = await self._http.request(
                method, self._home + path, headers=headers, body=content, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_BYTES
            )
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"HubSpot ({self.name}) was not reached: {error} It will be tried again.") from error
        if response.status >= 300:
            raise self._failure(response)
        if not response.body:
            return {}
        answer = as_object(response.body)
        if answer is None:
            raise TryLater(f"HubSpot ({self.name}) answered {response.status} with something that is not JSON. It will be tried again.")
        if answer.get("status") == "error":  # an error in the body of a success
            raise Declined(response.status, answer)
        return answer

    def _failure(self, response: HttpResponse) -> Exception:
        status = response.status
        body = as_object(response.body) or {}
        mend = f"Mend destinations.{self.name}"
        later = "It will be tried again."
        if status == 429:
            policy = str(body.get("policyName") or "")
            which = f" its {policy.lower().replace('_', ' ')} limit" if policy else ""
            return TryLater(f"HubSpot ({self.name}) asks for fewer calls{which} (429). {later}", wait(response.headers, policy))
        if status == 401:
            return Refused(f"HubSpot does not accept the access token (401). Nothing was changed. {mend}.access_token.")
        if status == 403:
            return Refused(
                f"HubSpot's access token may not do this (403: {reason(body)}). Nothing was changed. {mend}.access_token: "
                "give the app the scopes."
            )
        if 300 <= status < 400:
            return Refused(f"HubSpot ({self.name}) redirects ({status}), and redirects are not followed. {mend}.base_url.")
        if status == 423:
            return TryLater(f"HubSpot ({self.name}) has the record locked (423). {later}", _LOCKED_SECONDS)
        if status >= 500 or status in {408, 477}:
            return TryLater(f"HubSpot ({self.name}) failed at its own end ({status}). {later}", retry_after(response.headers))
        return Declined(status, body)


def wait(headers: Mapping[str, str], policy: str) -> float | None:
    """Seconds to wait after a 429: what `Retry-After` says, else until the limit that was hit is given back."""
    asked = retry_after(headers)
    if asked is not None:
        return asked
    if headers.get("x-hubspot-ratelimit-daily-remaining") == "0":
        policy = "DAILY"
    interval = headers.get("x-hubspot-ratelimit-interval-milliseconds", "")
    if policy == "TEN_SECONDLY_ROLLING" and interval.isdecimal():
        return min(float(interval) / 1_000, LONGEST) or None
    return _WAITS.get(policy)


def as_object(body: bytes) -> dict[str, Any] | None:
    """The body as a JSON object, or None."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def reason(body: Mapping[str, Any]) -> str:
    """Why, by the category and the codes of an error. Its messages repeat what was sent, addresses too, and are left out."""
    codes = [str(body.get("category") or ""), *(str(one.get("code") or "") for one in errors(body))]
    return ", ".join(dict.fromkeys(code for code in codes if code))[:200] or "it gives no reason"


def errors(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The single errors of an answer."""
    found = body.get("errors")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict):
            yield one


def context(error: Mapping[str, Any], key: str) -> Sequence[str]:
    """What an error's `context` names under a key: a list of strings."""
    found = (error.get("context") or {}).get(key)
    return [str(value) for value in found] if isinstance(found, list) else []
