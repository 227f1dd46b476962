"""SendGrid: mails by Inbound Parse, as a form either taken apart (default) or with the whole MIME in `email` ("send raw"); news of
mails sent by the Event Webhook (`sendgrid_events`), posted to the same address; answers leave by its API (`sendgrid_api`) or by SMTP.

https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/setting-up-the-inbound-parse-webhook
Prefer raw: only there can the hub keep the mail as it was written.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, SecretStr, field_validator

from connectors.email import basic_verdict
from connectors.email.sendgrid_api import API, mail_send, post
from connectors.email.sendgrid_events import is_events, read_events
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.mail_auth import Judgement, dkim_told, judge_results, judge_sendgrid, told
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_headers import Headers, clean, decode_text
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import (
    MAX_PARTS,
    Body,
    check_sender,
    from_address,
    make_body,
    media_type,
    named,
    read_headers,
    read_mail,
    safe_name,
    to_message,
)
from connectors.shared.multipart import Part, read_form
from hub.contract import (
    Answers,
    Attachment,
    ChannelSettings,
    Checked,
    Http,
    Ignored,
    Inbound,
    InboundMessage,
    Lookup,
    OutboundMessage,
    Place,
    Request,
    Sent,
    Unparseable,
    Verdict,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"


def public_key(text: str) -> EllipticCurvePublicKey:
    """SendGrid's verification key: base64 of a DER public key, as its API gives it, or the same as PEM. Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    bare = "".join(re.sub(r"-----[A-Z ]+-----", "", text).split())
    try:
        key = load_der_public_key(base64.b64decode(bare, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("verification_key: is not a public key; copy `public_key` of the parse security policy at SendGrid") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("verification_key: is not an ECDSA P-256 key, which is what SendGrid signs with")
    return key


class SendgridSettings(EmailSettings):
    """`verification_key`: of a parse security policy; `event_verification_key`: of the signed event webhook, where that has another.
    `basic_auth`: `user:password` put into the webhooks' URLs at SendGrid. `api_key` (permission Mail Send): answers leave by the API.

    With neither key nor credentials, deliveries are refused unless `allow_unsigned` says that anyone who learns the URL may write mails;
    they prove nothing.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    verification_key: str = ""
    event_verification_key: str = ""
    basic_auth: SecretStr = SecretStr("")
    authserv_id: str = ""
    allow_unsigned: bool = False
    api_key: SecretStr = SecretStr("")
    base_url: str = API  # https://api.eu.sendgrid.com for accounts in the EU; a stand-in on loopback for the tests

    by_api: ClassVar[str] = "api_key"

    @field_validator("base_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(f"base_url: must be https:// (or http:// on loopback), since the API key is sent there; the default is {API}")
        return value.rstrip("/")

    def is_stand_in(self) -> bool:
        """Whether answers leave by a stand-in on this machine."""
        return is_loopback_url(self.base_url) if self.api_key.get_secret_value() else super().is_stand_in()

    @field_validator("verification_key", "event_verification_key")
    @classmethod
    def _is_key(cls, value: str) -> str:
        if value:
            public_key(value)
        return value

    @field_validator("basic_auth")
    @classmethod
    def _is_pair(cls, value: SecretStr) -> SecretStr:
        user, colon, password = value.get_secret_value().partition(":")
        if value.get_secret_value() and not (user and colon and password):
            raise ValueError("basic_auth: must be user:password")
        return value


class SendgridEmail(MailChannel):
    """A mailbox whose mails SendGrid posts."""

    Settings: ClassVar[type[ChannelSettings]] = SendgridSettings
    settings: SendgridSettings
    # SendGrid drops a mail for good on any 4xx, without a bounce, and repeats for 72 hours on 5xx.
    answers: ClassVar[Answers] = Answers(bad_signature=403, bad_signature_until_verified=503, too_big=200)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def __init__(self, settings: SendgridSettings, place: Place) -> None:
        super().__init__(settings, place)
        self._key = public_key(settings.verification_key) if settings.verification_key else None
        self._event_key = public_key(settings.event_verification_key) if settings.event_verification_key else self._key

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the signature and the credentials, whichever are configured; where both are, both must hold.

        ECDSA P-256 with SHA-256 over the timestamp header and the raw body, as for SendGrid's event webhook
        (https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/securing-your-parse-webhooks). The timestamp's
        age is not judged: a retry may come 72 hours later, and the hub's permanent keys make a replay harmless.
        """
        verdicts = []
        key = self._event_key if is_events(request.content_type, request.body) else self._key
        if key is not None:
            verdicts.append(self._signature_verdict(key, request))
        expected = self.settings.basic_auth.get_secret_value()
        if expected:
            verdicts.append(basic_verdict(request.headers.get("authorization", ""), expected))
        if not verdicts:
            return Verdict.GOOD if self.settings.allow_unsigned else Verdict.NO_KEY
        return next((worst for worst in (Verdict.BAD, Verdict.UNSIGNED) if worst in verdicts), Verdict.GOOD)

    def _signature_verdict(self, key: EllipticCurvePublicKey, request: Request) -> Verdict:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        signature, timestamp = request.headers.get(SIGNATURE, ""), request.headers.get(TIMESTAMP, "")
        if not signature:
            return Verdict.UNSIGNED
        try:
            key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + request.body, ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            return Verdict.BAD
        return Verdict.GOOD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """One mail, from either form, or every event of a batch. Raises Unparseable."""
        if is_events(request.content_type, request.body):
            if self._believes_nobody(self._event_key):  # or anybody could have a customer's address marked as dead
                digest = hashlib.sha256(request.body).hexdigest()[:32]
                return [Ignored(provider_key=f"unsigned:{digest}", reason="events that nothing signs are not believed")]
            return read_events(request.body)
        form: dict[str, Part] = {}
        for part in read_form(request.body, request.content_type):
            form.setdefault(part.name, part)
        original = form["email"].data if "email" in form else None
        if original is not None:
            headers, body = read_mail(original)
        elif "headers" in form:
            headers, body = read_headers(form["headers"].data), _parsed_body(form)
        else:
            raise Unparseable("the form has neither `email` nor `headers`: it is not one of Inbound Parse")
        envelope = _json(form, "envelope")
        to = envelope.get("to")
        message = to_message(
            headers,
            body,
            self._judge(headers, form, envelope),
            mailbox=self.settings,
            envelope_to=[found for found in to if isinstance(found, str)] if isinstance(to, list) else [],
            null_return_path=envelope.get("from") == "",
            original=original,
            unjudged=original is not None and not self._told(headers, form),  # of a mail taken apart nothing can be checked
        )
        return [_with_spam(message, form)]

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by SendGrid's API where a key is set, else by SMTP. Raises Refused, TryLater or Unknown."""
        key = self.settings.api_key.get_secret_value()
        if not key:
            return await super().send(message, http)
        body = await asyncio.to_thread(mail_send, message, self.settings)
        return await post(body, self.settings.base_url, key, http)

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        if self._believes_nobody(self._key):
            return 'every signed mail, if SendGrid is set to "send raw": nothing signs the deliveries, so no verdict in them is believed'
        return 'signed mails without a verdict of SendGrid, if it is set to "send raw"'

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mail's own DKIM signature. Raises Unparseable or TryLater."""
        return [
            await check_sender(said, said.original, received, lookup)
            if said.original is not None
            else Checked(said=said, why='The mail was posted taken apart ("send raw" is off), so its signature cannot be checked.')
            for said in await asyncio.to_thread(self.parse, request)
            if isinstance(said, InboundMessage)
        ]

    def _believes_nobody(self, key: EllipticCurvePublicKey | None) -> bool:
        """Whoever posts to it wrote the verdicts too."""
        return self.settings.allow_unsigned and key is None and not self.settings.basic_auth.get_secret_value()

    def _told(self, headers: Headers, form: dict[str, Part]) -> bool:
        """Whether somebody we believe has judged who signed the mail."""
        if self._believes_nobody(self._key):
            return False
        verdicts = headers.all("authentication-results")
        return told(verdicts, self.settings.authserv_id) or dkim_told(_text(form, "dkim"), headers)

    def _judge(self, headers: Headers, form: dict[str, Part], envelope: dict[str, object]) -> Judgement:
        if self._believes_nobody(self._key):
            return Judgement()
        domain = from_address(headers).rpartition("@")[2]
        ours = judge_results(domain, headers.all("authentication-results"), self.settings.authserv_id)
        if ours != Judgement():
            return ours
        sender = envelope.get("from")
        return judge_sendgrid(
            domain, headers, spf=_text(form, "SPF"), dkim=_text(form, "dkim"), envelope_from=sender if isinstance(sender, str) else ""
        )


def _text(form: dict[str, Part], name: str, charset: str = "utf-8") -> str:
    part = form.get(name)
    return decode_text(part.data, charset) if part else ""


def _with_spam(message: InboundMessage, form: dict[str, Part]) -> InboundMessage:
    """The message with SpamAssassin's score, where "check incoming emails for spam" is on."""
    try:
        score = float(_text(form, "spam_score")[:20])
    except ValueError:
        return message
    return replace(message, spam={"score": score}) if math.isfinite(score) else message


def _json(form: dict[str, Part], name: str) -> dict[str, object]:
    """A field that holds a JSON object; anything else counts as empty, since a mail must not be lost for a field about it."""
    try:
        found = json.loads(_text(form, name) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _parsed_body(form: dict[str, Part]) -> Body:
    """The body of the default form: `text` and `html` in the charsets named beside them, and the attachments."""
    charsets = _json(form, "charsets")
    text, html = (
        _text(form, name, str(charsets.get(name, "utf-8"))).replace("\r\n", "\n").replace("\x00", "") for name in ("text", "html")
    )
    return make_body([(text if text.strip() or not html else None, html or None)], _attachments(form))


def _attachments(form: dict[str, Part]) -> list[Attachment]:
    """`attachment1`, `attachment2`, … with what `attachment-info` and `content-ids` say of them."""
    about = _json(form, "attachment-info")
    ids = {field: content_id for content_id, field in _json(form, "content-ids").items() if isinstance(field, str)}
    parts = [part for name, part in form.items() if name.startswith("attachment") and name[10:].isdecimal()]
    if len(parts) > MAX_PARTS:
        raise Unparseable(f"the mail has {len(parts)} attachments, more than {MAX_PARTS}")
    found: list[Attachment] = []
    for part in sorted(parts, key=lambda part: int(part.name[10:16])):
        info = about.get(part.name)
        info = info if isinstance(info, dict) else {}
        kind = media_type(str(info.get("type") or part.content_type))
        content_id = clean(ids.get(part.name) or str(info.get("content-id") or ""), 250).strip("<> ")
        name = safe_name(str(info.get("filename") or info.get("name") or part.filename or ""))
        found.append(named(name, kind, part.data, len(found) + 1, content_id, inline=bool(content_id)))
    return found
