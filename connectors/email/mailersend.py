"""MailerSend: mails by an inbound route, news of mails sent by its webhooks; answers leave by SMTP.

https://developers.mailersend.com/api/v1/inbound.html (a message brings the whole mail as `raw`),
https://developers.mailersend.com/api/v1/webhooks.html. Route and webhook have a signing secret each; both may point to the same address.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import ConfigDict, SecretStr

from connectors.shared.mail_auth import Judgement, judge_sendgrid
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import Headers
from connectors.shared.mail_posted import digest_of, inner, news, read_object, text
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, read_mail, to_message
from hub.contract import (
    Answers,
    ChannelSettings,
    Checked,
    DeliveryEvent,
    Inbound,
    InboundMessage,
    Lookup,
    Proof,
    Request,
    Unparseable,
    Verdict,
)

EVENTS: Mapping[str, DeliveryEvent] = {
    "sent": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "deferred": DeliveryEvent.DEFERRED,
    "soft_bounced": DeliveryEvent.BOUNCED,
    "hard_bounced": DeliveryEvent.BOUNCED,
    "on_hold": DeliveryEvent.REJECTED,
    "opened": DeliveryEvent.OPENED,
    "opened_unique": DeliveryEvent.OPENED,
    "clicked": DeliveryEvent.CLICKED,
    "clicked_unique": DeliveryEvent.CLICKED,
    "unsubscribed": DeliveryEvent.UNSUBSCRIBED,
    "spam_complaint": DeliveryEvent.COMPLAINED,
}


class MailerSendSettings(EmailSettings):
    """`inbound_secret`: of the inbound route. `signing_secret`: of the webhook. Either alone signs only its own kind of delivery."""

    model_config = ConfigDict(hide_input_in_errors=True)

    inbound_secret: SecretStr = SecretStr("")
    signing_secret: SecretStr = SecretStr("")


class MailerSendEmail(MailChannel):
    """A mailbox whose mails MailerSend posts."""

    Settings: ClassVar[type[ChannelSettings]] = MailerSendSettings
    settings: MailerSendSettings
    answers: ClassVar[Answers] = Answers(bad_signature=401, too_big=200)
    can: ClassVar[Mapping[str, str]] = {
        **MailChannel.can,
        "delivered": "",
    }

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge `Signature`: hexadecimal HMAC-SHA256 over the body, with the secret of its kind: a route's signs no event."""
        keys = [(secret.get_secret_value(), inbound) for secret, inbound in self._secrets()]
        if not any(key for key, _ in keys):
            return Verdict.NO_KEY
        signature = request.headers.get("signature", "").lower()
        if not signature:
            return Verdict.UNSIGNED
        inbound = _is_inbound(request.body)
        for key, of_route in keys:
            wanted = hmac.new(key.encode(), request.body, hashlib.sha256).hexdigest()
            if key and of_route == inbound and hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace")):
                return Verdict.GOOD
        return Verdict.BAD

    def _secrets(self) -> tuple[tuple[SecretStr, bool], ...]:
        return (self.settings.inbound_secret, True), (self.settings.signing_secret, False)

    def parse(self, request: Request) -> Sequence[Inbound]:
        """A mail, or news of one sent. Raises Unparseable."""
        found = read_object(request.body)
        told = inner(found, "data")
        if text(found, "type") == "inbound.message":
            return [self._mail(told)]
        if not told:
            raise Unparseable("the body has no data: it is neither a message nor an event of MailerSend")
        return [_news(told)]

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mail's own DKIM signature. Raises Unparseable or TryLater."""
        said = [one for one in await asyncio.to_thread(self.parse, request) if isinstance(one, InboundMessage)]
        return [await check_sender(one, one.original or b"", received, lookup) for one in said]

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return "signed mails whose sender MailerSend did not vouch for"

    def _mail(self, told: Mapping[str, Any]) -> InboundMessage:
        raw = told.get("raw")
        if not isinstance(raw, str) or not raw:
            raise Unparseable("the message has no `raw`: the whole mail is missing")
        original = raw.encode("utf-8", "surrogatepass")
        headers, body = read_mail(original)
        recipients = inner(told, "recipients").get("rcptTo")
        to = [text(one, "email") for one in recipients if isinstance(one, dict)] if isinstance(recipients, list) else []
        sender = inner(told, "sender")
        judged = _judged(told, from_address(headers).rpartition("@")[2], text(sender, "email"))
        said = to_message(
            headers,
            body,
            judged,
            mailbox=self.settings,
            envelope_to=to[:100],
            null_return_path="email" in sender and not text(sender, "email"),
            original=original,
            unjudged=judged.proof is not Proof.DMARC,
        )
        return replace(said, external_id=text(told, "id", 200))


def _judged(told: Mapping[str, Any], domain: str, envelope_from: str) -> Judgement:
    """MailerSend's own checks (`spf_check`: {"code": "+"}; `dkim_check`: true, of which domain it does not say): only an SPF pass of an
    aligned envelope sender tells who wrote the mail."""
    passed = text(inner(told, "spf_check"), "code") == "+"
    return judge_sendgrid(domain, Headers([]), spf="pass" if passed else "", dkim="", envelope_from=envelope_from)


def _is_inbound(body: bytes) -> bool:
    try:
        return text(read_object(body), "type") == "inbound.message"
    except Unparseable:
        return False


def _news(told: Mapping[str, Any]) -> Inbound:
    kind = text(told, "type", 40)
    our = EVENTS.get(kind, DeliveryEvent.OTHER)
    email, morph = inner(told, "email"), inner(told, "morph")
    reason = text(morph, "readable_reason") or text(morph, "reason")
    return news(
        our,
        text(told, "id", 200) or digest_of(told),
        recipient=text(inner(email, "recipient"), "email"),
        external_id=text(inner(email, "message"), "id", 200),
        error=f"MailerSend: {', '.join(filter(None, [kind, reason]))}",
        permanent=kind == "hard_bounced",
    )
