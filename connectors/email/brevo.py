"""Brevo: mails by its inbound parsing, news of mails by its transactional webhooks; answers leave by SMTP.

https://developers.brevo.com/docs/inbound-parse-webhooks, https://developers.brevo.com/docs/transactional-webhooks. Brevo signs nothing:
who may post is told by a name and password in the webhook's address or by a token (as its "token" authentication sends it, or as
`?token=` in the address): https://developers.brevo.com/docs/secured-webhooks. It gives up for good on any 4xx but 429 **and** on any
5xx, so 429 is the one answer that asks it to come back: https://developers.brevo.com/docs/retry-mechanism.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import ConfigDict, SecretStr, field_validator

from connectors.email import basic_verdict
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.mail_auth import judge_results
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import Headers, message_ids
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import MAX_PARTS, from_address, make_body, media_type, named, safe_name, to_message
from connectors.shared.retry_after import retry_after
from hub.contract import (
    STATUS_AFTER,
    Answers,
    Attachment,
    ChannelSettings,
    DeliveryEvent,
    DeliveryUpdate,
    Http,
    Ignored,
    Inbound,
    InboundMessage,
    NoAnswer,
    NotSent,
    Refused,
    Request,
    TryLater,
    Unparseable,
    Verdict,
)

API = "https://api.brevo.com"
MAX_ITEMS = 2_000  # a batch has up to 500 events: https://developers.brevo.com/docs/batch-webhooks
MAX_FILE = 25_000_000  # bytes; Brevo takes mails of 20 MB
_TOKEN_PATH = re.compile(r"/v3/inbound/attachments/(?!\.{1,2}$)[A-Za-z0-9%._~-]{1,2000}")
# https://developers.brevo.com/docs/transactional-webhooks
EVENTS: Mapping[str, DeliveryEvent] = {
    "request": DeliveryEvent.SENT,
    "sent": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "deferred": DeliveryEvent.DEFERRED,
    "hard_bounce": DeliveryEvent.BOUNCED,
    "soft_bounce": DeliveryEvent.BOUNCED,
    "invalid_email": DeliveryEvent.BOUNCED,
    "blocked": DeliveryEvent.REJECTED,
    "error": DeliveryEvent.REJECTED,
    "spam": DeliveryEvent.COMPLAINED,
    "complaint": DeliveryEvent.COMPLAINED,
    "opened": DeliveryEvent.OPENED,
    "unique_opened": DeliveryEvent.OPENED,
    "proxy_open": DeliveryEvent.OPENED,
    "unique_proxy_open": DeliveryEvent.OPENED,
    "click": DeliveryEvent.CLICKED,
    "unsubscribe": DeliveryEvent.UNSUBSCRIBED,
    "unsubscribed": DeliveryEvent.UNSUBSCRIBED,
}
_PERMANENT = frozenset({"hard_bounce", "invalid_email"})
_FAULTS = frozenset({DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED})
# What tells one event from another; `date` and `ts` follow the account's zone and are left out where `ts_epoch` is there.
_IDENTIFYING = ("event", "message-id", "email", "ts_epoch", "s_epoch", "ts_event", "date", "link", "reason")


class BrevoSettings(EmailSettings):
    """`basic_auth`: `user:password` put into the webhook's address at Brevo. `token`: at least 20 characters, as the webhook's bearer
    token or as `?token=` in its address. `api_key` fetches the attachments of mails. `authserv_id`: of your own server before Brevo.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    basic_auth: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    api_key: SecretStr = SecretStr("")
    authserv_id: str = ""
    base_url: str = API  # a stand-in on loopback for the tests

    @field_validator("basic_auth")
    @classmethod
    def _is_pair(cls, value: SecretStr) -> SecretStr:
        user, colon, password = value.get_secret_value().partition(":")
        if value.get_secret_value() and not (user and colon and password):
            raise ValueError("basic_auth: must be user:password")
        return value

    @field_validator("token")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and len(value.get_secret_value()) < 20:
            raise ValueError("token: must have at least 20 characters, since nothing else proves who posts")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(f"base_url: must be https:// (or http:// on loopback), since the API key is sent there; the default is {API}")
        return value.rstrip("/")

    def is_stand_in(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return is_loopback_url(self.base_url) or super().is_stand_in()


class BrevoEmail(MailChannel):
    """A mailbox whose mails Brevo posts."""

    Settings: ClassVar[type[ChannelSettings]] = BrevoSettings
    settings: BrevoSettings
    # Only 429 is tried again (after 10 minutes, 1, 2 and 8 hours); a mail too big would be lost on 413, so 200 answers it.
    answers: ClassVar[Answers] = Answers(bad_signature=401, bad_signature_until_verified=429, too_big=200, busy=429)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the credentials, whichever are configured; where both are, both must hold."""
        verdicts = []
        pair, token = self.settings.basic_auth.get_secret_value(), self.settings.token.get_secret_value()
        authorization = request.headers.get("authorization", "")
        if pair:
            verdicts.append(basic_verdict(authorization, pair))
        if token:
            scheme, _, bearer = authorization.partition(" ")
            given = bearer.strip() if scheme.lower() == "bearer" else parse_qs(request.query).get("token", [""])[0]
            matches = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
            verdicts.append(Verdict.GOOD if matches else Verdict.BAD if given else Verdict.UNSIGNED)
        if not verdicts:
            return Verdict.NO_KEY
        return next((worst for worst in (Verdict.BAD, Verdict.UNSIGNED) if worst in verdicts), Verdict.GOOD)

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Mails (`items`), or news of mails sent: one event, or a list of them. Raises Unparseable."""
        try:
            found = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise Unparseable("the body is not JSON") from error
        if isinstance(found, dict) and "items" in found:
            items = found["items"]
            return self._each(items, self._mail) or [_ping(request)]
        if isinstance(found, dict):
            return [_update(found)]
        return self._each(found, _update) or [_ping(request)]

    def _each(self, items: object, read: Any) -> list[Inbound]:
        if not isinstance(items, list) or len(items) > MAX_ITEMS or not all(isinstance(item, dict) for item in items):
            raise Unparseable(f"the body is neither an event nor a list of at most {MAX_ITEMS} mails or events")
        return [read(item) for item in items]

    def _mail(self, item: Mapping[str, Any]) -> InboundMessage:
        headers = Headers(_header_lines(item))
        text, html = (_text(item, name, 1_000_000).replace("\r\n", "\n").replace("\x00", "") for name in ("RawTextBody", "RawHtmlBody"))
        # Where a mail has one body, Brevo may put an empty text or null beside it.
        body = make_body([(text if text.strip() or not html else None, html or None)], self._attachments(item))
        domain = from_address(headers).rpartition("@")[2]
        recipients = item.get("Recipients")
        said = to_message(
            headers,
            body,
            judge_results(domain, headers.all("authentication-results"), self.settings.authserv_id),
            mailbox=self.settings,
            envelope_to=[found for found in recipients if isinstance(found, str)] if isinstance(recipients, list) else [],
            null_return_path=headers.first("return-path") == "<>",
        )
        uuids, spam = item.get("Uuid"), item.get("SpamScore", item.get("Spam.Score"))
        external_id = uuids[0] if isinstance(uuids, list) and uuids and isinstance(uuids[0], str) else ""
        is_score = isinstance(spam, int | float) and not isinstance(spam, bool)
        return replace(said, external_id=external_id[:200], spam={"score": float(spam)} if is_score and spam is not None else {})

    def _attachments(self, item: Mapping[str, Any]) -> list[Attachment]:
        """The attachments, each to be fetched by its token: Brevo keeps the files."""
        told = item.get("Attachments") or []
        if not isinstance(told, list) or len(told) > MAX_PARTS:
            raise Unparseable(f"the mail has no list of at most {MAX_PARTS} attachments")
        found: list[Attachment] = []
        for about in told:
            token = _text(about, "DownloadToken", 2_000) if isinstance(about, dict) else ""
            if not token:
                raise Unparseable("an attachment without a DownloadToken")
            content_id = _text(about, "ContentID", 250).strip("<> ")
            file = named(
                safe_name(_text(about, "Name")), _text(about, "ContentType", 200), b"", len(found) + 1, content_id, inline=bool(content_id)
            )
            found.append(replace(file, data=None, url=f"{self.settings.base_url}/v3/inbound/attachments/{quote(token, safe='')}"))
        return found

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch an attachment from Brevo's API, the only place our key goes to. Raises Refused or TryLater.

        https://developers.brevo.com/reference/get-inbound-email-attachment
        """
        path = url.removeprefix(self.settings.base_url)
        if path == url or not _TOKEN_PATH.fullmatch(path):
            raise Refused("Not fetched: that is not an attachment at Brevo.")
        key = self.settings.api_key.get_secret_value()
        if not key:
            raise TryLater("Not fetched yet: set api_key of this channel, so that Brevo hands out the attachments of mails.", 600.0)
        try:
            answer = await http.request("GET", url, headers={"api-key": key, "accept": "*/*"}, timeout=30.0, max_bytes=MAX_FILE)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Brevo could not be reached for an attachment: {error}") from error
        if answer.status == 200:
            kind = media_type(answer.headers.get("content-type", ""))
            return Attachment(name=named("", kind, b"", 1).name, content_type=kind, data=answer.body, url=url)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise TryLater(f"Brevo answered {answer.status} for an attachment.", retry_after(answer.headers))
        if answer.status in (401, 403):
            raise Refused(f"Not fetched: Brevo answered {answer.status}. Check api_key in this channel's settings.")
        raise Refused(f"Not fetched: Brevo answered {answer.status} for this attachment; it may have been deleted there.")


def _header_lines(item: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The mail's header lines: `Headers` has a text for each name, or a list of them where the name repeats."""
    found = item.get("Headers")
    for name, values in (found if isinstance(found, dict) else {}).items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str):
                yield _whole(name), _whole(value)


def _whole(text: str) -> str:
    """JSON can spell half a surrogate pair, which no header and no URL takes."""
    return text.encode(errors="replace").decode()


def _text(of: Mapping[str, Any], name: str, limit: int = 320) -> str:
    value = of.get(name)
    return _whole(value[:limit]) if isinstance(value, str) else ""


def _ping(request: Request) -> Ignored:
    return Ignored(provider_key="test:" + hashlib.sha256(request.body).hexdigest()[:32], reason="a test without mails or events")


def _update(event: Mapping[str, Any]) -> Inbound:
    """News of a mail sent. Brevo gives events no id, so the key digests what tells them apart."""
    kind = _text(event, "event", 40)
    known = json.dumps([event.get(name) for name in _IDENTIFYING], sort_keys=True)
    key = f"event:{hashlib.sha256(known.encode()).hexdigest()}"
    message_id = _text(event, "message-id", 400)
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    reason = " ".join(_text(event, "reason", 400).split())
    return DeliveryUpdate(
        provider_key=key,
        status=STATUS_AFTER[our],
        event=our,
        provider_message_id=message_id,
        mail_id=(*message_ids(message_id), "")[0],
        recipient=_text(event, "email"),
        error=": ".join(filter(None, ["Brevo", kind, reason])) if our in _FAULTS else "",
        permanent=kind in _PERMANENT,
    )
