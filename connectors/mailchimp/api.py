"""How Mailchimp's API is called, and what its answers mean."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from connectors.shared.retry_after import retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

TAG = "support_hold"
MOST = 1_000  # what one page may hold
LARGE = 10_000_000  # bytes of a page of campaigns or recipients

_TIMEOUT_SECONDS = 30.0  # Mailchimp itself gives up after 120


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of the API: its status and JSON (empty where there was none)."""

    status: int
    json: Mapping[str, Any]

    def refusal(self) -> str:
        """Why, by the title of the problem (RFC 7807). Its detail may repeat an address and is left out."""
        return f"Mailchimp refuses it ({self.status}: {str(self.json.get('title', '')) or 'no reason given'})."


class Api:
    """The calls of one audience. `name` is what the configuration calls the destination, for what people are told."""

    def __init__(self, base: str, audience: str, api_key: SecretStr, name: str) -> None:
        self.name = name
        self.base = base.rstrip("/") + "/3.0"
        self.audience = audience
        self.list = f"/lists/{audience}"
        self._authorization = "Basic " + b64encode(b"hub:" + api_key.get_secret_value().encode()).decode()

    async def call(
        self,
        http: Http,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        missing: bool = False,
        refusable: bool = False,
        max_bytes: int = 1_000_000,
    ) -> Answered:
        """One call. A 404 is returned where `missing` may be, a refusal of this one contact where `refusable`; else they raise Refused."""
        headers = {"authorization": self._authorization, "content-type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        try:
            response = await http.request(
                method, self.base + path, headers=headers, body=sent, timeout=_TIMEOUT_SECONDS, max_bytes=max_bytes
            )
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Mailchimp ({self.name}) was not told: {error} It will be tried again.") from error
        said = _object(response)
        if response.status in {200, 204}:
            return Answered(response.status, said or {})
        if response.status == 429 or (response.status == 403 and said is None):
            raise TryLater(f"Mailchimp ({self.name}) asks for fewer calls ({response.status}).", retry_after(response.headers))
        if response.status >= 500:
            raise TryLater(f"Mailchimp ({self.name}) failed at its own end ({response.status}).", retry_after(response.headers))
        answered = Answered(response.status, said or {})
        if response.status in {401, 403}:
            raise Refused(f"{answered.refusal()} Mend destinations.{self.name}.api_key.")
        if (response.status == 404 and missing) or refusable:
            return answered
        raise Refused(f"{answered.refusal()} Is destinations.{self.name} set up as its page says?")

    async def find_tag(self, http: Http) -> int | None:
        """The id of the tag; a tag is a static segment."""
        found = await self.call(http, "GET", f"{self.list}/tag-search?name={TAG}")
        return next((int(tag["id"]) for tag in found.json.get("tags", []) if tag.get("name") == TAG), None)


def _object(response: HttpResponse) -> dict[str, Any] | None:
    """The body as a JSON object, or None for a bare one."""
    try:
        found = json.loads(response.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def unix_of(text: object) -> float | None:
    """Unix seconds of an ISO time; one without a zone is UTC."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def iso_of(at: float) -> str:
    return datetime.fromtimestamp(max(at, 0.0), UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
