"""Any marketing tool that takes a webhook: each change of a hold, and of who is one person with whom, as a signed CloudEvent.

The body is a structured CloudEvent 1.0 (https://github.com/cloudevents/spec, HTTP binding section 3.2), the headers are those of
Standard Webhooks 1.0.0. The receiver finds in `data.version` which of two changes is the later one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.shared import webhook_signing
from connectors.shared.loopback import is_loopback_url
from connectors.shared.retry_after import retry_after
from hub.contract import Http, NoAnswer, NotSent, Refused, TryLater
from hub.marketing import HoldNotice

# What it hears of besides holds. A type it does not know it should answer 2xx and ignore.
_CUSTOMERS = frozenset({"customer.merged", "customer.unmerged", "customer.split"})
_OPT_OUTS = frozenset({"optout.recorded", "optout.withdrawn"})

_TIMEOUT_SECONDS = 15.0  # Standard Webhooks: 15 to 30

# Standard Webhooks: with these the receiver asks for fewer messages, and may say for how long.
_THROTTLED = frozenset({429, 502, 503, 504})
# What most likely has to be mended, by status.
_MEND: Mapping[int, str] = {
    400: "It does not accept the event's form.",
    401: "Does it verify with the same secret?",
    403: "Does it verify with the same secret?",
    404: "Is the destination's url right?",
    405: "Does the destination's url take POST?",
    413: "It does not accept a body of this size.",
    415: "It must accept application/cloudevents+json.",
    429: "It asks for fewer messages.",
}


class WebhookSettings(BaseModel):
    """A receiver's address and the secret shared with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str
    url: str
    secret: SecretStr
    max_per_second: float | None = Field(default=None, gt=0)
    customers: bool = True  # tell of customers merged, unmerged and split too
    opt_outs: bool = True  # and of who wants to be written to no more, on which channel, in which words

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port  # reading the port checks it
        except ValueError:
            host, parts = None, urlsplit("")
        if parts.scheme not in {"https", "http"} or not host:
            raise ValueError("url must be a full address such as https://marketing.example/hooks/holds")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("url must hold neither user name, password nor fragment; the signature says who is calling")
        return url

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        advice = "secret must be whsec_ followed by 24 to 64 random bytes in base64, as the receiver shows it"
        if not text.startswith(webhook_signing.PREFIX):
            raise ValueError(f"{advice}; this one does not begin with whsec_")
        try:
            webhook_signing.decode_secret(text)
        except ValueError as error:
            raise ValueError(f"{advice}; this one {error}") from None
        return secret


class Webhook:
    """A destination that is told by webhook of holds and of who is who. `source` (CloudEvents) is a URI reference naming this hub."""

    Settings: ClassVar[type[BaseModel]] = WebhookSettings

    def __init__(self, settings: WebhookSettings, name: str, source: str = "/support-hub") -> None:
        self.name = name
        self._url = settings.url
        self._key = webhook_signing.decode_secret(settings.secret.get_secret_value())
        self._source = source
        self.hears = (_CUSTOMERS if settings.customers else frozenset()) | (_OPT_OUTS if settings.opt_outs else frozenset())

    async def tell(self, notice: HoldNotice, http: Http, now: float) -> None:
        """POST the change; 2xx is success. `now` in unix seconds is what the signature is dated with.

        Raises Refused on 410 alone, by which a receiver says it is gone for good; TryLater otherwise.
        """
        body = self._event(notice)
        timestamp = int(now)
        headers = {
            "content-type": "application/cloudevents+json; charset=UTF-8",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": webhook_signing.sign(self._key, notice.id, timestamp, body),
        }
        try:
            response = await http.request("POST", self._url, headers=headers, body=body, timeout=_TIMEOUT_SECONDS)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"The destination {self.name} was not told: {error} It will be told again.") from error
        if 200 <= response.status < 300:
            return
        if response.status == 410:
            raise Refused(f"The destination {self.name} says it is gone (410): remove it, or change its url.")
        if 300 <= response.status < 400:
            hint = "It redirects, and redirects are not followed: set the url to the final address."
        else:
            hint = _MEND.get(response.status, "It failed at its own end." if response.status >= 500 else "It refuses the event.")
        wait = retry_after(response.headers) if response.status in _THROTTLED else None
        raise TryLater(f"The destination {self.name} answered {response.status}. {hint} It will be told again.", wait)

    def _event(self, notice: HoldNotice) -> bytes:
        event = {
            "specversion": "1.0",
            "id": notice.id,
            "source": self._source,
            "type": notice.type,
            "time": notice.time,
            "subject": str(notice.data["customer_id"]),
            "datacontenttype": "application/json",
            "data": dict(notice.data),
        }
        return json.dumps(event, separators=(",", ":")).encode()

    def is_sandbox(self) -> bool:
        """Whether the receiver is on this machine."""
        return is_loopback_url(self._url)
