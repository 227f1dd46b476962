"""Postmark: mails by its inbound stream, news of mails sent by its webhooks; answers leave by its API or by SMTP.

https://postmarkapp.com/developer/webhooks/inbound-webhook (switch on "Include raw email content": only then the hub keeps the mail as it
was written), https://postmarkapp.com/developer/webhooks/webhooks-overview, https://postmarkapp.com/developer/api/email-api. Postmark signs
nothing: who may post is told by a name and password in the webhook's address. It tries again for about ten hours; a 403 stops it for
good and is never answered.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, SecretStr, field_validator

from connectors.email import basic_verdict
from connectors.shared.delivery_mark import NAME, delivery_of
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.mail_auth import judge_results
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import clean
from connectors.shared.mail_posted import digest_of, headers_of, inner, news, number, read_object, text
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import (
    MAX_PARTS,
    Body,
    check_sender,
    from_address,
    make_body,
    media_type,
    named,
    read_mail,
    safe_name,
    to_message,
)
from connectors.shared.retry_after import retry_after
from connectors.shared.smtp import MAX_REFERENCES, build, recipient, reply_address
from hub.contract import (
    Answers,
    Attachment,
    ChannelSettings,
    Checked,
    DeliveryEvent,
    Http,
    Inbound,
    InboundMessage,
    Lookup,
    NoAnswer,
    NotSent,
    OutboundMessage,
    Proof,
    Refused,
    Request,
    Sent,
    TryLater,
    Unknown,
    Unparseable,
    Verdict,
)

API = "https://api.postmarkapp.com"
MAX_BYTES = 10_000_000  # of a mail with its attachments: https://postmarkapp.com/developer/user-guide/send-email-with-api
# https://postmarkapp.com/developer/api/bounce-api#bounce-types
BOUNCES: Mapping[str, DeliveryEvent] = {
    "HardBounce": DeliveryEvent.BOUNCED,
    "BadEmailAddress": DeliveryEvent.BOUNCED,
    "SoftBounce": DeliveryEvent.BOUNCED,
    "DnsError": DeliveryEvent.BOUNCED,
    "SMTPApiError": DeliveryEvent.BOUNCED,
    "Undeliverable": DeliveryEvent.BOUNCED,
    "Unknown": DeliveryEvent.BOUNCED,
    "ChallengeVerification": DeliveryEvent.BOUNCED,
    "Transient": DeliveryEvent.DEFERRED,
    "Blocked": DeliveryEvent.REJECTED,
    "SpamNotification": DeliveryEvent.REJECTED,
    "ManuallyDeactivated": DeliveryEvent.REJECTED,
    "VirusNotification": DeliveryEvent.REJECTED,
    "DMARCPolicy": DeliveryEvent.REJECTED,
    "TemplateRenderingFailed": DeliveryEvent.REJECTED,
    "SpamComplaint": DeliveryEvent.COMPLAINED,
    "Unsubscribe": DeliveryEvent.UNSUBSCRIBED,
    "AutoResponder": DeliveryEvent.OTHER,
    "AddressChange": DeliveryEvent.OTHER,
    "Subscribe": DeliveryEvent.OTHER,
}
_PERMANENT = frozenset({"HardBounce", "BadEmailAddress"})


class PostmarkSettings(EmailSettings):
    """`basic_auth`: `user:password` put into the webhooks' addresses at Postmark. `server_token`: of the server answers leave by, through
    its API; then no `smtp` is needed. `authserv_id`: of your own server before Postmark."""

    model_config = ConfigDict(hide_input_in_errors=True)
    by_api: ClassVar[str] = "server_token"

    basic_auth: SecretStr = SecretStr("")
    server_token: SecretStr = SecretStr("")
    message_stream: str = "outbound"
    authserv_id: str = ""
    base_url: str = API  # a stand-in on loopback for the tests

    @field_validator("basic_auth")
    @classmethod
    def _is_pair(cls, value: SecretStr) -> SecretStr:
        user, colon, password = value.get_secret_value().partition(":")
        if value.get_secret_value() and not (user and colon and password):
            raise ValueError("basic_auth: must be user:password")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(f"base_url: must be https:// (or http:// on loopback), since the token is sent there; the default is {API}")
        return value.rstrip("/")

    def is_stand_in(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return is_loopback_url(self.base_url) or super().is_stand_in()


class PostmarkEmail(MailChannel):
    """A mailbox whose mails Postmark posts."""

    Settings: ClassVar[type[ChannelSettings]] = PostmarkSettings
    settings: PostmarkSettings
    answers: ClassVar[Answers] = Answers(bad_signature=401, too_big=200)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the basic credentials; without configured ones nothing is accepted."""
        expected = self.settings.basic_auth.get_secret_value()
        return basic_verdict(request.headers.get("authorization", ""), expected) if expected else Verdict.NO_KEY

    def parse(self, request: Request) -> Sequence[Inbound]:
        """A mail, or news of one sent (told by `RecordType`). Raises Unparseable."""
        found = read_object(request.body)
        if "RecordType" in found:
            return [_news(found)]
        if "MessageID" not in found or not ("From" in found or "FromFull" in found or "RawEmail" in found):
            raise Unparseable("the body has neither RecordType nor a mail: it is not one of Postmark's")
        return [self._mail(found)]

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check a whole mail's own DKIM signature. Raises Unparseable or TryLater."""
        said = [one for one in await asyncio.to_thread(self.parse, request) if isinstance(one, InboundMessage)]
        why = 'The mail was posted taken apart, so its signature cannot be checked. Switch on "Include raw email content".'
        return [
            await check_sender(one, one.original, received, lookup) if one.original is not None else Checked(said=one, why=why)
            for one in said
        ]

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return 'signed mails, if "Include raw email content" is on: Postmark hands over no verdict about their senders'

    def _mail(self, found: Mapping[str, Any]) -> InboundMessage:
        raw = found.get("RawEmail")
        original = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) and raw else None
        listed = found.get("Headers")
        told = (
            [(text(one, "Name", 200), text(one, "Value", 64_000)) for one in listed if isinstance(one, dict)]
            if isinstance(listed, list)
            else []
        )
        if original is not None:
            headers, body = read_mail(original)
        else:
            own = [("From", _mailbox(found)), *((name, text(found, key, 64_000)) for name, key in _FIELDS)]
            headers = headers_of([*((name, value) for name, value in own if value), *(pair for pair in told if pair[0])])
            body = _body(found)
        domain = from_address(headers).rpartition("@")[2]
        judged = judge_results(domain, headers.all("authentication-results"), self.settings.authserv_id)
        said = to_message(
            headers,
            body,
            judged,
            mailbox=self.settings,
            envelope_to=[text(found, "OriginalRecipient")],
            null_return_path=headers.first("return-path") == "<>",
            original=original,
            unjudged=original is not None and judged.proof is not Proof.DMARC,
        )
        values = {name.lower(): value for name, value in told}
        score = number(values.get("x-spam-score"))
        spam: dict[str, Any] = {"score": score} if score is not None else {}
        if status := values.get("x-spam-status", ""):
            spam["flagged"] = status.lower().startswith("yes")
        return replace(said, external_id=text(found, "MessageID", 200), spam=spam)

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by the API, or by SMTP where no token is set. Raises Refused, TryLater or Unknown."""
        token = self.settings.server_token.get_secret_value()
        if not token:
            return await super().send(message, http)
        asked = await asyncio.to_thread(self._request, message)
        headers = {"x-postmark-server-token": token, "content-type": "application/json", "accept": "application/json"}
        try:
            answer = await http.request(
                "POST", f"{self.settings.base_url}/email", headers=headers, body=json.dumps(asked).encode(), timeout=60.0
            )
        except NotSent as error:
            raise TryLater(f"Postmark could not be reached: {error}. The mail is kept and tried again.") from error
        except NoAnswer as error:
            raise Unknown(f"Postmark did not answer ({error}): the mail may or may not have gone.") from error
        try:
            told = read_object(answer.body)
        except Unparseable:
            told = {}
        if answer.status == 200 and not told.get("ErrorCode"):
            return Sent(provider_message_id=text(told, "MessageID", 200))
        words = " ".join(str(part) for part in (answer.status, told.get("ErrorCode"), text(told, "Message")) if part)
        if answer.status == 401:
            raise Refused(f"The mail was not sent: Postmark refused our token ({words}). Check server_token.")
        if answer.status == 429:
            raise TryLater(f"Postmark asks to try later ({words}).", retry_after(answer.headers))
        if answer.status == 406 or told.get("ErrorCode") == 406:
            raise Refused(f"The mail was not sent: Postmark sends nothing to this address any more, since a mail came back ({words}).")
        if 400 <= answer.status < 500:
            raise Refused(f"The mail was not sent: Postmark refused it ({words}).")
        if answer.status == 503:  # "Service Unavailable": nothing was taken
            raise TryLater(f"Postmark is not available ({words}). The mail is kept and tried again.", retry_after(answer.headers))
        raise Unknown(f"Postmark failed ({words}): the mail may or may not have gone.")

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
            "X-PM-KeepID": "true" if message.message_id else "",  # else Postmark writes a Message-ID of its own
            "In-Reply-To": message.in_reply_to,
            "References": " ".join(references),
            "Auto-Submitted": "auto-generated" if message.automatic else "",
        }
        name = (settings.sender_name or message.sender_name).replace("\\", "").replace('"', "")
        asked: dict[str, Any] = {
            "From": f'"{name}" <{settings.address}>' if name else settings.address,
            "To": recipient(message.to),
            "Subject": message.subject,
            "TextBody": str(plain.get_content()) if plain is not None else message.text,
            "HtmlBody": message.html or (str(rich.get_content()) if rich is not None else ""),
            "Headers": [{"Name": header, "Value": value} for header, value in lines.items() if value],
            "MessageStream": settings.message_stream,
            "Metadata": {NAME: str(message.delivery_id)},
            "TrackOpens": False,
            "TrackLinks": "None",
        }
        if message.cc:
            asked["Cc"] = ", ".join(dict.fromkeys(map(recipient, message.cc)))
        if message.reply_token:
            asked["ReplyTo"] = reply_address(settings.address, message.reply_token)
        if message.attachments:
            if sum(file.size for file in message.attachments) > MAX_BYTES * 3 // 4:
                raise Refused("The mail was not sent: its attachments are larger than the 10 MB (encoded) that Postmark takes.")
            asked["Attachments"] = [
                {
                    "Name": safe_name(file.name) or "attachment",
                    "Content": base64.b64encode(file.read()).decode(),
                    "ContentType": media_type(file.content_type),
                    **({"ContentID": f"cid:{file.content_id}"} if file.content_id else {}),
                }
                for file in message.attachments
            ]
        return asked

    def is_sandbox(self) -> bool:
        """Whether it speaks to a stand-in on this machine."""
        return self.settings.is_stand_in()


_FIELDS = (("To", "To"), ("Cc", "Cc"), ("Reply-To", "ReplyTo"), ("Subject", "Subject"), ("Date", "Date"))


def _mailbox(found: Mapping[str, Any]) -> str:
    """From as a header has it; Postmark gives the bare address and the name apart."""
    full = inner(found, "FromFull")
    address, name = text(full, "Email") or text(found, "From"), text(full, "Name")
    quoted = name.replace("\\", "").replace('"', "")
    return f'"{quoted}" <{address}>' if quoted and address and "<" not in address else address


def _body(found: Mapping[str, Any]) -> Body:
    plain, rich = (text(found, name, 1_000_000).replace("\r\n", "\n").replace("\x00", "") for name in ("TextBody", "HtmlBody"))
    listed = found.get("Attachments") or []
    if not isinstance(listed, list) or len(listed) > MAX_PARTS:
        raise Unparseable(f"the mail has no list of at most {MAX_PARTS} attachments")
    files: list[Attachment] = []
    for one in listed:
        if not isinstance(one, dict):
            raise Unparseable("an attachment is no object")
        content = one.get("Content", one.get("Data", ""))
        try:
            data = base64.b64decode(content if isinstance(content, str) else "", validate=False)
        except (binascii.Error, ValueError) as error:
            raise Unparseable("an attachment's content is not base64") from error
        content_id = clean(text(one, "ContentID", 250), 250).removeprefix("cid:").strip("<> ")
        name, kind = safe_name(text(one, "Name")), text(one, "ContentType", 200)
        files.append(named(name, kind, data, len(files) + 1, content_id, inline=bool(content_id)))
    return make_body([(plain if plain.strip() or not rich else None, rich or None)], files)


def _news(found: Mapping[str, Any]) -> Inbound:
    record = text(found, "RecordType", 40)
    kind = text(found, "Type", 60)
    if record == "Bounce":
        our = BOUNCES.get(kind, DeliveryEvent.OTHER)
    elif record == "SubscriptionChange":
        our = DeliveryEvent.UNSUBSCRIBED if found.get("SuppressSending") is True else DeliveryEvent.OTHER
        if text(found, "SuppressionReason") == "HardBounce":  # told by the bounce itself
            our = DeliveryEvent.OTHER
    else:
        our = {
            "Delivery": DeliveryEvent.DELIVERED,
            "SpamComplaint": DeliveryEvent.COMPLAINED,
            "Open": DeliveryEvent.OPENED,
            "Click": DeliveryEvent.CLICKED,
        }.get(record, DeliveryEvent.OTHER)
    number_ = found.get("ID")
    said = [kind or record, text(found, "Description"), text(found, "Details")]
    return news(
        our,
        f"{record}:{number_}" if isinstance(number_, int) and not isinstance(number_, bool) else f"{record}:{digest_of(found)}",
        recipient=text(found, "Email") or text(found, "Recipient"),
        external_id=text(found, "MessageID", 200),
        error=f"Postmark: {', '.join(filter(None, said))}",
        permanent=kind in _PERMANENT,
        delivery_id=delivery_of(inner(found, "Metadata").get(NAME)),
    )
