"""Amazon SES: mails and news of mails come by SNS, answers leave by SES's own API (or by SMTP).

A receipt rule publishes mails to an SNS topic, whole (action SNS, up to 150 KB) or kept in S3 (action S3, up to 40 MB), and a topic
for bounces, complaints and deliveries may be the same one: https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications.html,
https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html. SNS tries only three times more, 20 seconds apart, unless the
subscription's delivery policy says otherwise (up to an hour): set one, and a dead-letter queue, or a restart can cost mails.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import ConfigDict, SecretStr, field_validator, model_validator

from connectors.shared.amazon_events import updates
from connectors.shared.amazon_sns import TOPIC, Certificates, confirm, is_certificate_url, notified, read_message
from connectors.shared.aws_signature import AwsKey, sign
from connectors.shared.delivery_mark import NAME
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.mail_auth import DMARC_FAIL, Judgement, aligned
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, read_mail, to_message
from connectors.shared.retry_after import retry_after
from connectors.shared.smtp import build, recipient
from hub.contract import (
    Answers,
    ChannelSettings,
    Checked,
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
    Unknown,
    Unparseable,
    Verdict,
)

MAX_NOTIFICATION = 2_000_000  # bytes; SNS carries 256 KB, which JSON within JSON can make several times as long
MAX_MAIL = 40_000_000  # bytes; what SES takes in for a rule with an S3 action
VIRUS = "Amazon found a virus in this mail. It is kept; do not open its attachments."
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2}")
_OWN_ID = re.compile(r"<([0-9a-f-]{10,100})@[a-z0-9-]{1,40}\.amazonses\.com>")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class AmazonSesSettings(EmailSettings):
    """`topics`: the ARNs of your SNS topics; no other topic's messages are taken. `access_key_id` and `secret_access_key`: a key that
    may `ses:SendEmail`, and `s3:GetObject` where mails lie in `s3_bucket`. Without `secret_access_key` answers leave by `smtp`.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    topics: tuple[str, ...]
    region: str = ""  # where SES sends, such as eu-central-1
    access_key_id: str = ""
    secret_access_key: SecretStr = SecretStr("")
    configuration_set: str = ""  # publishes the news of mails sent to one of your topics
    s3_bucket: str = ""
    s3_region: str = ""  # empty: the same as `region`
    base_url: str = ""  # a stand-in on loopback; empty: Amazon's own host in `region`

    by_api: ClassVar[str] = "secret_access_key"

    @field_validator("topics")
    @classmethod
    def _are_topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(not TOPIC.fullmatch(topic) for topic in value):
            raise ValueError("topics: name the SNS topics mails come by, such as arn:aws:sns:eu-central-1:123456789012:support-mail")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)))):
            raise ValueError("base_url: must be https:// (or http:// on loopback), since signed requests go there")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_what_its_key_needs(self) -> AmazonSesSettings:
        has_key = bool(self.secret_access_key.get_secret_value())
        if has_key != bool(self.access_key_id):
            raise ValueError("access_key_id and secret_access_key: set both or neither")
        if has_key and not _REGION.fullmatch(self.region):
            raise ValueError("region: name the region SES sends in, such as eu-central-1")
        if self.s3_region and not _REGION.fullmatch(self.s3_region):
            raise ValueError("s3_region: is not a region such as eu-central-1")
        if self.s3_bucket and not (_BUCKET.fullmatch(self.s3_bucket) and has_key):
            raise ValueError("s3_bucket: needs the bucket's plain name, and access_key_id with secret_access_key to read it")
        return self

    def is_stand_in(self) -> bool:
        """Whether answers leave by a stand-in on this machine."""
        return is_loopback_url(self.base_url) if self.secret_access_key.get_secret_value() else super().is_stand_in()

    def key(self, service: str, region: str) -> AwsKey:
        """The access key, for one service. Never to be logged."""
        return AwsKey(self.access_key_id, self.secret_access_key.get_secret_value(), region, service)

    @property
    def send_url(self) -> str:
        """Where mails are sent: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html."""
        home = self.base_url or f"https://email.{self.region}.{_domain(self.region)}"
        return f"{home}/v2/email/outbound-emails"

    def object_url(self, key: str) -> str:
        """Where a mail kept in our bucket is read."""
        region = self.s3_region or self.region
        path = quote(key, safe="/-_.~")
        if self.base_url:
            return f"{self.base_url}/{self.s3_bucket}/{path}"
        if "." in self.s3_bucket:  # Amazon's certificate does not cover a name with more dots
            return f"https://s3.{region}.{_domain(region)}/{self.s3_bucket}/{path}"
        return f"https://{self.s3_bucket}.s3.{region}.{_domain(region)}/{path}"


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


class AmazonSesEmail(MailChannel):
    """A mailbox whose mails Amazon SES takes in."""

    Settings: ClassVar[type[ChannelSettings]] = AmazonSesSettings
    settings: AmazonSesSettings
    # SNS tries again after 5xx (and 429), never after another 4xx: a topic missing in `topics` must not lose its first mails.
    answers: ClassVar[Answers] = Answers(bad_signature=403, bad_signature_until_verified=503)
    can: ClassVar[Mapping[str, str]] = {**MailChannel.can, "delivered": ""}

    def __init__(self, settings: AmazonSesSettings, place: Place, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives unix seconds: a signed request to Amazon bears the time, and nothing else here asks for it."""
        super().__init__(settings, place)
        self._certificates = Certificates()
        self._clock = clock

    async def prepare(self, request: Request, http: Http) -> None:
        """Fetch the certificate a message of one of our topics names, once. Raises TryLater."""
        message = read_message(request.body) if len(request.body) <= MAX_NOTIFICATION else None
        if message is None or message.get("TopicArn") not in self.settings.topics:
            return
        url = message.get("SigningCertURL", "")
        if url not in self._certificates and is_certificate_url(url):
            await self._certificates.fetch(url, http)

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge SNS's signature, and whether the topic is ours. The age is not judged: the hub's permanent keys make a replay harmless."""
        message = read_message(request.body) if len(request.body) <= MAX_NOTIFICATION else None
        if message is None:
            return Verdict.UNSIGNED
        if message.get("TopicArn") not in self.settings.topics:
            return Verdict.BAD
        return self._certificates.judge(message)

    async def expand(self, request: Request, http: Http) -> Request:
        """Confirm a subscription, or fetch a mail kept in our bucket and put it into the notification. Raises TryLater or Unparseable."""
        message = read_message(request.body) or {}
        if message.get("Type") == "SubscriptionConfirmation":
            await confirm(message, http)
            return request
        told = notified(message)
        action = _part(_part(told or {}, "receipt"), "action")
        if told is None or told.get("notificationType") != "Received" or action.get("type") != "S3" or "content" in told:
            return request
        mail = await self._from_bucket(action, http)
        filled = told | {"content": base64.b64encode(mail).decode()}
        filled["receipt"] = {**_part(told, "receipt"), "action": {**action, "encoding": "BASE64"}}
        return replace(request, body=json.dumps(message | {"Message": json.dumps(filled)}).encode())

    async def _from_bucket(self, action: Mapping[str, Any], http: Http) -> bytes:
        bucket, key = str(action.get("bucketName", "")), str(action.get("objectKey", ""))
        if not self.settings.s3_bucket or bucket != self.settings.s3_bucket:
            raise Unparseable(
                f"The mail lies in the S3 bucket {bucket[:80]!r}, which is not this channel's s3_bucket. Set it, then replay."
            )
        if not key or any(piece in ("", ".", "..") for piece in key.split("/")):
            raise Unparseable(f"The mail's name in the S3 bucket cannot be used: {key[:200]!r}.")
        url = self.settings.object_url(key)
        signed = sign(self.settings.key("s3", self.settings.s3_region or self.settings.region), "GET", url, self._clock())
        try:
            answer = await http.request("GET", url, headers=signed, timeout=30.0, max_bytes=MAX_MAIL)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"The mail could not be fetched from S3: {error}") from error
        if answer.status == 200:
            return answer.body
        words = f"The mail could not be fetched from S3: Amazon answered {answer.status}"
        if answer.status == 404:
            raise Unparseable(f"{words}. It has been deleted there.")
        if answer.status in (400, 401, 403):  # a key without the right; it is there still when the key is mended
            raise TryLater(f"{words}. Check that the access key may s3:GetObject in {bucket}.")
        raise TryLater(f"{words}.", retry_after(answer.headers))

    def parse(self, request: Request) -> Sequence[Inbound]:
        """One mail, or the news of mails sent, one update for each recipient. Raises Unparseable."""
        message = read_message(request.body)
        if message is None:
            raise Unparseable('the body is not an SNS message; switch "raw message delivery" off in the subscription')
        key = f"sns:{message.get('MessageId', '')}"
        if message["Type"] != "Notification":
            return [Ignored(provider_key=key, reason=f"{message['Type']} of {message.get('TopicArn', '')}")]
        told = notified(message)
        if told is None:
            return [Ignored(provider_key=key, reason=f"SNS says: {message.get('Message', '')[:200]}")]
        if told.get("notificationType") == "Received":
            return [self._mail(told, key)]
        return updates(told, key)

    def _mail(self, told: Mapping[str, Any], key: str) -> Inbound:
        receipt, about = _part(told, "receipt"), _part(told, "mail")
        action = _part(receipt, "action")
        content = told.get("content")
        if not isinstance(content, str):
            if action.get("type") == "S3":
                raise Unparseable("the mail lies in S3 and was not fetched; replay it")
            return Ignored(
                provider_key=key,
                reason=f"a mail was handled by the receipt rule's action {str(action.get('type', ''))[:40]}, without its content",
            )
        original = _content(content, str(action.get("encoding", "")))
        headers, body = read_mail(original)
        source = about.get("source")
        envelope_from = source if isinstance(source, str) else ""
        verdicts = {
            name: str(_part(receipt, f"{name}Verdict").get("status", "")).upper() for name in ("spf", "dkim", "dmarc", "spam", "virus")
        }
        recipients = receipt.get("recipients")
        said = to_message(
            headers,
            body,
            judge(from_address(headers).rpartition("@")[2], verdicts, envelope_from),
            mailbox=self.settings,
            envelope_to=[found for found in recipients if isinstance(found, str)] if isinstance(recipients, list) else [],
            null_return_path=envelope_from == "<>" or source == "",
            original=original,
            # DKIM passed for a domain Amazon does not name: the mail's own signature can still tell.
            unjudged=verdicts["dkim"] != "FAIL" and verdicts["dmarc"] not in ("PASS", "FAIL"),
        )
        spam = {"flagged": verdicts["spam"] == "FAIL"} if verdicts["spam"] in ("PASS", "FAIL") else {}
        doubt = " ".join(filter(None, [said.doubt, VIRUS if verdicts["virus"] == "FAIL" else ""]))
        return replace(said, external_id=str(about.get("messageId", ""))[:200], quoted_id=_answered(said), spam=spam, doubt=doubt)

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        return "signed mails for which Amazon tells no DMARC verdict"

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mail's own DKIM signature. Raises Unparseable or TryLater."""
        return [
            await check_sender(said, said.original or b"", received, lookup)
            for said in await asyncio.to_thread(self.parse, request)
            if isinstance(said, InboundMessage)
        ]

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by SES's API where a key is set, else by SMTP. Raises Refused, TryLater or Unknown.

        SES gives the mail a Message-ID of its own (`<provider_message_id@….amazonses.com>`), whatever ours is.
        """
        if not self.settings.secret_access_key.get_secret_value():
            return await super().send(message, http)
        body = await asyncio.to_thread(self._request_body, message)
        url = self.settings.send_url
        headers = sign(
            self.settings.key("ses", self.settings.region), "POST", url, self._clock(), {"content-type": "application/json"}, body
        )
        try:
            answer = await http.request("POST", url, headers=headers, body=body, timeout=60.0)
        except NotSent as error:
            raise TryLater(f"Amazon SES could not be reached: {error}. The mail is kept and tried again.") from error
        except NoAnswer as error:
            raise Unknown(f"Amazon SES did not answer ({error}): the mail may or may not have gone.") from error
        return Sent(provider_message_id=_taken(answer))

    def _request_body(self, message: OutboundMessage) -> bytes:
        asked: dict[str, Any] = {
            "FromEmailAddress": self.settings.address,
            "Destination": {"ToAddresses": [recipient(message.to)], "CcAddresses": [recipient(address) for address in message.cc]},
            "Content": {"Raw": {"Data": base64.b64encode(build(message, self.settings)).decode()}},
            "EmailTags": [{"Name": NAME, "Value": str(message.delivery_id)}],
        }
        if self.settings.configuration_set:
            asked["ConfigurationSetName"] = self.settings.configuration_set
        return json.dumps(asked).encode()

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """What to enter in the SNS console."""
        return [("SNS subscription, protocol HTTPS, raw message delivery off: endpoint", self.place.inbound_url)]


def judge(from_domain: str, verdicts: Mapping[str, str], envelope_from: str) -> Judgement:
    """Judge by SES's verdicts (PASS, FAIL, GRAY: no policy or nothing to check, PROCESSING_FAILED), which SNS signed.

    DKIM's verdict does not say whose signature passed, so alone it proves nothing; SPF's is of the envelope sender, which must be
    aligned with From: https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications-contents.html.
    """
    if verdicts.get("dmarc") == "FAIL":
        return Judgement(Proof.CLAIMED, DMARC_FAIL)
    if verdicts.get("dmarc") == "PASS":
        return Judgement(Proof.DMARC)
    if verdicts.get("spf") == "PASS" and aligned(envelope_from.strip("<>").rpartition("@")[2], from_domain):
        return Judgement(Proof.DMARC)
    return Judgement()


def _answered(said: InboundMessage) -> str:
    """SES's id of the mail of ours that is answered: SES replaces our Message-ID by its own, so that is what an answer names."""
    found = (_OWN_ID.fullmatch(value) for value in (said.in_reply_to, *reversed(said.references)))
    return next((match[1] for match in found if match), "")


def _content(content: str, encoding: str) -> bytes:
    if encoding.upper() != "BASE64":
        return content.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unparseable("the mail's content is not base64, as the receipt rule says it is") from error


def _part(of: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


# https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html; the others are final.
_THROTTLED = frozenset({"TooManyRequestsException", "LimitExceededException", "Throttling", "ThrottlingException"})


def _taken(answer: HttpResponse) -> str:
    """The id SES gave the mail. Raises Refused, TryLater or Unknown for any other answer."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    found = found if isinstance(found, dict) else {}
    if answer.status == 200:
        if isinstance(found.get("MessageId"), str):
            return str(found["MessageId"])
        raise Unknown("Amazon SES took the request but named no message: the mail may or may not have gone.")
    kind = re.split(r"[:#]", answer.headers.get("x-amzn-errortype") or str(found.get("__type", "")))
    name = next((word for word in kind if word.isalpha()), "")
    words = f"{answer.status} {name} {str(found.get('message') or found.get('Message') or '')[:300]}".strip()
    if answer.status == 429 or name in _THROTTLED:
        raise TryLater(f"Amazon SES asks to try later ({words}).", retry_after(answer.headers))
    if answer.status in (401, 403):
        raise Refused(
            f"The mail was not sent: Amazon refused our key ({words}). Check access_key_id, its right to ses:SendEmail, and region."
        )
    if 400 <= answer.status < 500:
        raise Refused(f"The mail was not sent: Amazon SES refused it ({words}).")
    raise Unknown(f"Amazon SES failed ({words}): the mail may or may not have gone.")
