"""Resend: mails by its `email.received` webhook, news of mails sent by the others; answers leave by its API.

https://resend.com/docs/dashboard/receiving/introduction, https://resend.com/docs/webhooks/introduction. A webhook only says that a mail
came: it is fetched (https://resend.com/docs/api-reference/emails/retrieve-received-email), the whole mail where it is offered
(`raw.download_url`). Signed by Svix, as Standard Webhooks: https://resend.com/docs/webhooks/verify-webhooks-requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, SecretStr, field_validator

from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.mail_auth import Judgement, judge_results
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_posted import headers_of, inner, news, read_object, text
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, make_body, media_type, read_mail, safe_name, to_message
from connectors.shared.retry_after import retry_after
from connectors.shared.smtp import MAX_REFERENCES, build, recipient, reply_address
from connectors.shared.webhook_signing import decode_secret, verify
from hub.contract import (
    Answers,
    ChannelSettings,
    Checked,
    DeliveryEvent,
    Http,
    HttpResponse,
    Ignored,
    Inbound,
    InboundMessage,
    Lookup,
    NoAnswer,
    NotSent,
    OutboundMessage,
    Place,
    Proof,
    Refused,
    Request,
    Sent,
    TryLater,
    Unparseable,
    Verdict,
)

API = "https://api.resend.com"
MAX_MAIL = 40_000_000  # bytes
OLD = 9 * 3_600  # seconds a signature may be old: Svix tries again for hours, and the hub's keys make a repeat harmless
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
# https://resend.com/docs/webhooks/event-types
EVENTS: Mapping[str, DeliveryEvent] = {
    "email.sent": DeliveryEvent.SENT,
    "email.scheduled": DeliveryEvent.SENT,
    "email.delivered": DeliveryEvent.DELIVERED,
    "email.delivery_delayed": DeliveryEvent.DEFERRED,
    "email.bounced": DeliveryEvent.BOUNCED,
    "email.failed": DeliveryEvent.REJECTED,
    "email.suppressed": DeliveryEvent.REJECTED,
    "email.complained": DeliveryEvent.COMPLAINED,
    "email.opened": DeliveryEvent.OPENED,
    "email.clicked": DeliveryEvent.CLICKED,
}


class ResendSettings(EmailSettings):
    """`webhook_secret`: `whsec_...` of the webhook. `api_key`: fetches received mails and sends answers; then no `smtp` is needed."""

    model_config = ConfigDict(hide_input_in_errors=True)
    by_api: ClassVar[str] = "api_key"

    webhook_secret: SecretStr = SecretStr("")
    api_key: SecretStr = SecretStr("")
    authserv_id: str = ""  # of your own server before Resend
    base_url: str = API  # a stand-in on loopback for the tests

    @field_validator("webhook_secret")
    @classmethod
    def _is_secret(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            try:
                decode_secret(value.get_secret_value())
            except ValueError as error:
                raise ValueError(f"webhook_secret: {error}; copy it from the webhook's page at Resend") from None
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


class ResendEmail(MailChannel):
    """A mailbox whose mails Resend tells of."""

    Settings: ClassVar[type[ChannelSettings]] = ResendSettings
    settings: ResendSettings
    answers: ClassVar[Answers] = Answers(bad_signature=401, too_big=200)
    # Its Idempotency-Key counts for 24 hours (https://resend.com/docs/dashboard/emails/idempotency-keys); by SMTP there is none.
    idempotent: ClassVar[bool] = True
    can: ClassVar[Mapping[str, str]] = {
        **MailChannel.can,
        "delivered": "",
        "finds": "a repeat with the same key sends nothing twice, so there is no doubt to settle",
    }

    def __init__(self, settings: ResendSettings, place: Place) -> None:
        super().__init__(settings, place)
        self.idempotent = bool(settings.api_key.get_secret_value())  # type: ignore[misc]  # the hub asks the mailbox, not its class

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge Svix's signature; its headers are those of Standard Webhooks under another name."""
        secret = self.settings.webhook_secret.get_secret_value()
        if not secret:
            return Verdict.NO_KEY
        names = ("id", "timestamp", "signature")
        given = {f"webhook-{name}": request.headers.get(f"svix-{name}", request.headers.get(f"webhook-{name}", "")) for name in names}
        if not given["webhook-signature"]:
            return Verdict.UNSIGNED
        return Verdict.GOOD if verify(decode_secret(secret), given, request.body, now, OLD) else Verdict.BAD

    async def prepare(self, request: Request, http: Http) -> None:
        """Nothing: the secret is in the configuration."""

    async def expand(self, request: Request, http: Http) -> Request:
        """Fetch the mail that an `email.received` only tells of. Raises TryLater, or Unparseable where it is gone."""
        found = read_object(request.body)
        if text(found, "type", 60) != "email.received" or "fetched" in found:
            return request
        number = text(inner(found, "data"), "email_id", 80)
        if not _ID.fullmatch(number):
            raise Unparseable("the webhook names no email_id")
        key = self.settings.api_key.get_secret_value()
        if not key:
            raise TryLater("channels: this channel has no api_key, so the mail's text cannot be fetched. Set it.")
        told = await self._get(
            f"{self.settings.base_url}/emails/receiving/{number}?html_format=cid", {"authorization": f"Bearer {key}"}, http
        )
        mail = read_object(told.body)
        raw_url = text(inner(mail, "raw"), "download_url", 4_000)
        if raw_url:  # signed by itself: our key is not for it
            whole = await self._get(raw_url, {}, http)
            mail["raw_mail"] = base64.b64encode(whole.body).decode()
        return replace(request, body=json.dumps({**found, "fetched": mail}).encode())

    async def _get(self, url: str, headers: Mapping[str, str], http: Http) -> HttpResponse:
        try:
            answer = await http.request("GET", url, headers=headers, timeout=12.0, max_bytes=MAX_MAIL)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"the mail could not be fetched: {error}") from error
        if answer.status == 200:
            return answer
        if answer.status in (401, 403):
            raise TryLater(f"Resend refused our key ({answer.status}). Check api_key; the mail is fetched when it is told of again")
        if answer.status in (404, 410):
            raise Unparseable(f"the mail is not at Resend any more ({answer.status})")
        raise TryLater(f"Resend answered {answer.status}", retry_after(answer.headers))

    def parse(self, request: Request) -> Sequence[Inbound]:
        """A mail that was fetched, or news of one sent. Raises Unparseable."""
        found = read_object(request.body)
        kind, data = text(found, "type", 60), inner(found, "data")
        if kind == "email.received":
            return [self._mail(data, inner(found, "fetched"))]
        if not kind.startswith("email."):
            return [
                Ignored(provider_key=f"event:{request.headers.get('svix-id', '')[:100] or kind}", reason=f"Resend says {kind or 'nothing'}")
            ]
        to = data.get("to")
        tags = data.get("tags")
        bounce = inner(data, "bounce") or inner(data, "failed") or inner(data, "suppressed")
        reason = [text(bounce, name) for name in ("type", "subType", "message", "reason")]
        mark = (
            inner(data, "tags").get(NAME)
            if isinstance(tags, dict)
            else next((t.get("value") for t in tags or [] if isinstance(t, dict) and t.get("name") == NAME), None)
            if isinstance(tags, list)
            else None
        )
        return [
            news(
                EVENTS.get(kind, DeliveryEvent.OTHER),
                request.headers.get("svix-id", "")[:100] or f"{kind}:{text(data, 'email_id', 80)}:{text(found, 'created_at', 60)}",
                recipient=str(to[0]) if isinstance(to, list) and to and isinstance(to[0], str) else "",
                external_id=text(data, "email_id", 80),
                mail_id=text(data, "message_id"),
                error=f"Resend: {', '.join(filter(None, [kind.removeprefix('email.'), *reason]))}",
                permanent=kind == "email.bounced" and text(bounce, "type") == "Permanent",
                delivery_id=delivery_of(mark),
            )
        ]

    def _mail(self, data: Mapping[str, Any], mail: Mapping[str, Any]) -> InboundMessage:
        if not mail:
            raise Unparseable("the webhook only tells that a mail came; it could not be fetched")
        raw = mail.get("raw_mail")
        try:
            original = base64.b64decode(raw) if isinstance(raw, str) and raw else None
        except ValueError as error:
            raise Unparseable("the mail that was fetched is not base64") from error
        if original is not None:
            headers, body = read_mail(original)
        else:
            if mail.get("attachments"):
                raise Unparseable("Resend names files but gave no whole mail to take them from. Its page of the mail has them")
            given = {name.lower(): value for name, value in inner(mail, "headers").items() if isinstance(value, str)}
            own = {"from": mail.get("from"), "to": mail.get("to"), "cc": mail.get("cc"), "reply-to": mail.get("reply_to")}
            own |= {"subject": mail.get("subject"), "message-id": mail.get("message_id"), "date": mail.get("created_at")}
            lines = {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in own.items() if value}
            headers = headers_of(list((lines | given).items()))
            plain, rich = (text(mail, name, 1_000_000).replace("\r\n", "\n").replace("\x00", "") for name in ("text", "html"))
            body = make_body([(plain if plain.strip() or not rich else None, rich or None)], [])
        domain = from_address(headers).rpartition("@")[2]
        authserv = self.settings.authserv_id
        judged = judge_results(domain, headers.all("authentication-results"), authserv) if authserv else Judgement()
        to = data.get("to")
        said = to_message(
            headers,
            body,
            judged,
            mailbox=self.settings,
            envelope_to=[one for one in to if isinstance(one, str)] if isinstance(to, list) else [],
            null_return_path=headers.first("return-path") == "<>",
            original=original,
            unjudged=original is not None and judged.proof is not Proof.DMARC,
        )
        return replace(said, external_id=text(data, "email_id", 80))

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mail's own DKIM signature. Raises Unparseable or TryLater."""
        said = [one for one in await asyncio.to_thread(self.parse, request) if isinstance(one, InboundMessage)]
        why = "Resend did not hand over the whole mail, so its signature cannot be checked."
        return [
            await check_sender(one, one.original, received, lookup) if one.original is not None else Checked(said=one, why=why)
            for one in said
        ]

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return "signed mails: Resend hands over no verdict about their senders"

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by the API, or by SMTP where no key is set. Raises Refused, or TryLater: the same key again sends nothing twice."""
        key = self.settings.api_key.get_secret_value()
        if not key:
            return await super().send(message, http)
        body = json.dumps(await asyncio.to_thread(self._request, message)).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        headers["idempotency-key"] = f"{self.place.name}-{message.delivery_id}-{message.message_id.strip('<>')}"[:256]
        try:
            answer = await http.request("POST", f"{self.settings.base_url}/emails", headers=headers, body=body, timeout=60.0)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Resend could not be reached: {error}. The mail is kept and tried again; it never goes twice.") from error
        try:
            told = read_object(answer.body)
        except Unparseable:
            told = {}
        if answer.status in (200, 201):
            return Sent(provider_message_id=text(told, "id", 80))
        words = " ".join(filter(None, [str(answer.status), text(told, "name"), text(told, "message")]))
        if answer.status in (401, 403):
            raise Refused(f"The mail was not sent: Resend refused it ({words}). Check api_key and the verified domain.")
        if answer.status in (409, 429) or answer.status >= 500:  # 409: the same key is being worked on
            raise TryLater(f"Resend asks to try later ({words}).", retry_after(answer.headers))
        raise Refused(f"The mail was not sent: Resend refused it ({words}).")

    def _request(self, message: OutboundMessage) -> dict[str, Any]:
        """The request's JSON. Its texts are those of the mail SMTP would send, which also checks every header. Raises Refused."""
        settings = self.settings
        mail = message_from_bytes(build(replace(message, attachments=()), settings), _class=EmailMessage, policy=policy.default)
        plain, rich = (mail.get_body((kind,)) for kind in ("plain", "html"))
        references = message.references
        if len(references) > MAX_REFERENCES:
            references = (references[0], *references[-(MAX_REFERENCES - 1) :])
        lines = {
            "Message-ID": message.message_id,
            "In-Reply-To": message.in_reply_to,
            "References": " ".join(references),
            "Auto-Submitted": "auto-generated" if message.automatic else "",
        }
        name = (settings.sender_name or message.sender_name).replace("\\", "").replace('"', "")
        asked: dict[str, Any] = {
            "from": f'"{name}" <{settings.address}>' if name else settings.address,
            "to": [recipient(message.to)],
            "subject": message.subject or "(no subject)",
            "text": str(plain.get_content()) if plain is not None else message.text,
            "html": message.html or (str(rich.get_content()) if rich is not None else ""),
            "headers": {header: value for header, value in lines.items() if value},
            "tags": [{"name": NAME, "value": str(message.delivery_id)}],
        }
        if message.cc:
            asked["cc"] = list(dict.fromkeys(map(recipient, message.cc)))
        if message.reply_token:
            asked["reply_to"] = reply_address(settings.address, message.reply_token)
        if message.attachments:
            asked["attachments"] = [
                {
                    "filename": safe_name(file.name) or "attachment",
                    "content": base64.b64encode(file.read()).decode(),
                    "content_type": media_type(file.content_type),
                    **({"content_id": file.content_id} if file.content_id else {}),
                }
                for file in message.attachments
            ]
        return asked
