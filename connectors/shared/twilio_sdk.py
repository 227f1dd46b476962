"""Twilio's official SDK laid over the guarded client, and what one call to it means for the outbox.

Sending has no idempotency key: a request Twilio answered with 5xx may still have been carried out
(https://www.twilio.com/docs/api/errors/20500), so that ends as `Unknown`, never as a retry.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from connectors.shared.retry_after import retry_after
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, TryLater, Unknown

API = "https://api.twilio.com"
MAX_REPLY_BYTES = 1_000_000


class _Sdk:
    """The parts of the vendor's SDK in use, and its HTTP client laid over ours."""

    def __init__(self) -> None:
        import twilio.rest.api.v2010.account.message  # noqa: F401  (what `client.messages` loads on first use)
        from twilio.base.exceptions import TwilioRestException, TwilioServiceException
        from twilio.http import AsyncHttpClient
        from twilio.http.response import Response
        from twilio.rest import Client

        class HttpClient(AsyncHttpClient):  # type: ignore[misc]
            def __init__(self, http: Http, base_url: str) -> None:
                super().__init__(logging.getLogger("twilio.async_http_client"), is_async=True)
                self.http = http
                self.base_url = base_url

            async def request(
                self,
                method: str,
                uri: str,
                *,
                params: Mapping[str, Any] | None = None,
                data: Mapping[str, Any] | None = None,
                headers: Mapping[str, str] | None = None,
                auth: tuple[str, str] | None = None,
                timeout: float | None = None,
                allow_redirects: bool = False,
            ) -> Any:
                url = self.base_url + uri.removeprefix(API) + (f"?{urlencode(params, doseq=True)}" if params else "")
                sending = dict(headers or {})
                if auth is not None:
                    sending["Authorization"] = f"Basic {base64.b64encode(':'.join(auth).encode()).decode()}"
                body = urlencode(data, doseq=True).encode() if data else None
                answer = await _post(self.http, method, url, sending, body)
                return Response(answer.status, answer.body.decode("utf-8", "replace"), answer.headers)

        self.Client: Any = Client
        self.HttpClient = HttpClient
        self.RestException = TwilioRestException
        self.ServiceException = TwilioServiceException


@functools.cache
def load_sdk() -> _Sdk:
    """Import Twilio's SDK, once. `send` does so by itself; calling it at start-up spares the first reply the wait."""
    return _Sdk()


async def _post(http: Http, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HttpResponse:
    """One call that creates something, judged as far as its status alone decides; other 4xx are left to the SDK to read."""
    try:
        answer = await http.request(method, url, headers=headers, body=body, max_bytes=MAX_REPLY_BYTES)
    except NotSent as error:
        raise TryLater(f"Twilio could not be reached: {error}") from error
    except NoAnswer as error:
        raise Unknown(f"Twilio's answer was lost; the message may have gone: {error}") from error
    if answer.status in (429, 503):
        raise TryLater(f"Twilio is busy (HTTP {answer.status}).", retry_after(answer.headers))
    if answer.status >= 500:
        raise Unknown(f"Twilio failed (HTTP {answer.status}); the message may have gone.")
    if 200 <= answer.status < 300 and not _names_a_message(answer.body):
        raise Unknown(f"Twilio answered {answer.status} without naming a message; it may have gone.")
    return answer


def _names_a_message(body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and isinstance(answer.get("sid"), str) and bool(answer["sid"])
