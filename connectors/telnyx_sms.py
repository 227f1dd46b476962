"""SMS and MMS by Telnyx (https://developers.telnyx.com/docs/messaging).

Webhooks: https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks. Sending:
https://developers.telnyx.com/api-reference/messages/send-a-message. There is an Idempotency-Key for those calls whose reference
declares it (https://developers.telnyx.com/docs/development/api-fundamentals/idempotency); sending a message is none of them, so a lost
answer ends as `Unknown`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ConfigDict, SecretStr, field_validator, model_validator

from connectors.shared import sms_sender, stop_words
from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.media_names import media_name
from connectors.shared.retry_after import LONGEST, retry_after
from connectors.shared.telnyx_deliveries import read_events
from connectors.shared.telnyx_words import EVENTS, NEVER, STATUSES, explain
from hub.contract import (
    Answer,
    Answers,
    Attachment,
    ChannelSettings,
    DeliveryUpdate,
    Http,
    HttpResponse,
    Ignored,
    Inbound,
    InboundMessage,
    MessageStatus,
    NoAnswer,
    NotSent,
    OutboundMessage,
    Pace,
    Place,
    Refused,
    Request,
    Sent,
    TryLater,
    Unknown,
    Unparseable,
    Verdict,
)

API = "https://api.telnyx.com"
TOLERANCE_SECONDS = 300  # what Telnyx's own libraries take, either way
MAX_MEDIA_BYTES = 20_000_000
# Where Telnyx keeps the files of messages. No credentials are asked for there and none are sent.
_MEDIA_HOSTS = (".telnyx.com", ".telnyxstorage.com", ".telnyxcloudstorage.com", ".amazonaws.com")
_AT_ONCE = 200  # recovered messages handed on together
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


class TelnyxSettings(ChannelSettings):
    """Where to find these: https://portal.telnyx.com, API Keys, and Keys & Credentials, Public Key.

    `address` is a number (`+15551230000`), a short code, or a sender's name (`ACME`), which wants `messaging_profile_id` beside it."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a misspelt api_key must not be printed by its own error message

    api_key: SecretStr = SecretStr("")
    public_key: str = ""  # of the account, in base64: what webhooks are verified with
    messaging_profile_id: str = ""  # with it and without an address, Telnyx chooses one of the profile's numbers
    base_url: str = API  # a stand-in on loopback for the tests

    @field_validator("address")
    @classmethod
    def check_address(cls, value: str) -> str:
        return sms_sender.check_sender(value)

    @field_validator("public_key")
    @classmethod
    def check_public_key(cls, value: str) -> str:
        try:
            known = not value or len(base64.b64decode(value, validate=True)) == 32
        except (binascii.Error, ValueError):
            known = False
        if not known:
            raise ValueError("public_key is not an Ed25519 key in base64; copy it from the Telnyx portal (Keys & Credentials, Public Key)")
        return value

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(f"base_url must be https:// (or http:// on loopback), since the API key is sent there; the default is {API}")
        return value.rstrip("/")

    @model_validator(mode="after")
    def check_sender(self) -> TelnyxSettings:
        if not self.messaging_profile_id and (not self.address or sms_sender.is_name(self.address)):
            raise ValueError("set address (the Telnyx number customers write to, like +15551230000); a name wants messaging_profile_id too")
        return self


class TelnyxSms:
    """A Telnyx number, short code or sender's name, or a messaging profile's numbers."""

    Settings: ClassVar[type[ChannelSettings]] = TelnyxSettings
    counts_segments: ClassVar[bool] = True  # each part of a text is paid for
    label: ClassVar[str] = "SMS"
    icon: ClassVar[str] = "sms"
    reaches: ClassVar[tuple[str, ...]] = ("phone",)
    answers: ClassVar[Answers] = Answers(ok=Answer(200, ""), bad_signature=401)
    idempotent: ClassVar[bool] = False
    live: ClassVar[bool] = True
    max_text: ClassVar[int] = 1_530  # ten parts of 153, https://support.telnyx.com/en/articles/6505121-telnyx-messaging-error-codes (40302)
    max_files: ClassVar[int] = 10  # the same page, 40317
    max_file_bytes: ClassVar[int] = 1_000_000
    # What an account may send at first: 50 SMS a second, 15 MMS. Beyond, Telnyx queues for four hours and then drops
    # (https://developers.telnyx.com/docs/messaging/messages/rate-limiting).
    pace: ClassVar[Pace] = Pace(per_second=15, burst=15)
    can: ClassVar[Mapping[str, str]] = {
        "files_in": "",
        "files_out": "",
        "delivered": "",
        "read": "SMS knows no receipts for reading",
        "quotes": "SMS has none",
        "reactions": "SMS has none",
        "edits": "SMS has none",
        "templates": "SMS needs no approval",
        "presence": "SMS has none",
        "recovers": "",
        "finds": "Telnyx keeps no list of messages; what it reports names the send it is about",
    }

    def __init__(self, settings: TelnyxSettings, place: Place) -> None:
        self.settings = settings
        self.place = place

    def is_sandbox(self) -> bool:
        return is_loopback_url(self.settings.base_url)

    def one_way(self) -> str:
        return sms_sender.one_way(self.settings.address)

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """Telnyx tries each address three times; as failover the same one is a second round."""
        url = self.place.inbound_url
        return [("Messaging profile, Inbound, Send a webhook to this URL", url), ("Failover URL", url)]

    # --- coming in ---

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge `telnyx-signature-ed25519` over `telnyx-timestamp|body`, five minutes old at most."""
        if not self.settings.public_key:
            return Verdict.NO_KEY
        signature, timestamp = request.headers.get("telnyx-signature-ed25519", ""), request.headers.get("telnyx-timestamp", "")
        if not signature:
            return Verdict.UNSIGNED
        if not _SECONDS.fullmatch(timestamp) or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
            return Verdict.BAD
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.settings.public_key))
        try:
            key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + b"|" + request.body)
        except (InvalidSignature, binascii.Error, ValueError):
            return Verdict.BAD
        return Verdict.GOOD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate one webhook: a message, or what became of one we sent. Raises Unparseable."""
        try:
            data = json.loads(request.body)["data"]
            event, payload = data["event_type"], data["payload"]
            sid = payload["id"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unparseable("the body is not one of Telnyx's messaging events (data.event_type, data.payload.id)") from error
        if not (isinstance(event, str) and isinstance(sid, str) and sid):
            raise Unparseable("the body is not one of Telnyx's messaging events (data.event_type, data.payload.id)")
        if event == "message.received":
            return [self._message(sid, payload)]
        if event in ("message.sent", "message.finalized"):
            return _statuses(sid, payload, request.query)
        return [Ignored(provider_key=f"event:{sid}:{event[:60]}", reason=f"an event of Telnyx's we have no use for: {event[:60]}")]

    def _message(self, sid: str, payload: Mapping[str, Any]) -> Inbound:
        sender = _word(_part(payload.get("from")).get("phone_number"))
        kind = _word(payload.get("type")).upper()
        if not sender:
            raise Unparseable("a message without from.phone_number")
        if kind not in ("", "SMS", "MMS"):
            raise Unparseable(
                f"this is no SMS but {kind[:20]}: let its webhook point at a channel of that kind. Kept; nothing was made of it"
            )
        if _word(payload.get("direction")) == "outbound" or sender == self.settings.address:
            return Ignored(provider_key=f"echo:{sid}", reason="an echo of a message sent from this account")
        text = _word(payload.get("text"))
        return InboundMessage(
            provider_key=f"in:{sid}",
            claims=(sms_sender.claim(sender),),
            external_id=sid,
            text=text,
            subject=_word(payload.get("subject")),
            attachments=_attachments(payload),
            sent_at=_microseconds(payload.get("received_at")),
            spam={"flagged": True} if payload.get("is_spam") is True else {},
            opts=_opts(_word(payload.get("autoresponse_type")), text),
        )

    # --- going out ---

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Hand one message to Telnyx. Raises Refused, TryLater or Unknown."""
        self.check(message)
        key = self.settings.api_key.get_secret_value()
        if not key:
            raise Refused(f"Not sent: channel {self.place.name} has no api_key. Set it (Telnyx portal, API Keys) and send again.")
        fields: dict[str, Any] = {"to": message.to}
        if self.settings.address:
            fields["from"] = self.settings.address
        if self.settings.messaging_profile_id:
            fields["messaging_profile_id"] = self.settings.messaging_profile_id
        if message.text:
            fields["text"] = message.text
        if message.attachments:
            fields["media_urls"] = [file.public_url for file in message.attachments]
            fields["type"] = "MMS"
        if message.callback_url:
            fields |= {"webhook_url": message.callback_url, "webhook_failover_url": message.callback_url}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}
        try:
            answer = await http.request(
                "POST", f"{self.settings.base_url}/v2/messages", headers=headers, body=json.dumps(fields, ensure_ascii=False).encode()
            )
        except NotSent as error:
            raise TryLater(f"Telnyx could not be reached: {error}") from error
        except NoAnswer as error:
            raise Unknown(f"Telnyx's answer was lost; the message may have gone: {error}") from error
        return _judge(answer)

    def check(self, message: OutboundMessage) -> None:
        """Raise Refused for what Telnyx would refuse, before anything leaves."""
        if message.template is not None:
            raise Refused("Not sent: SMS by Telnyx needs no template. Write the text itself.")
        if not message.text and not message.attachments:
            raise Refused("Not sent: the message is empty.")
        if len(message.text) > self.max_text:
            raise Refused(f"Not sent: {len(message.text)} characters; SMS by Telnyx carries {self.max_text}. Split the text.")
        if len(message.attachments) > self.max_files:
            raise Refused(f"Not sent: {len(message.attachments)} files; one MMS carries {self.max_files}. Send them one by one.")
        if message.attachments and sms_sender.is_name(self.settings.address):
            raise Refused("Not sent: a sender's name sends no files. Send a link instead.")
        if any(not file.public_url for file in message.attachments):
            raise Refused("Not sent: Telnyx fetches files by their address, and a file has none. Set the hub's public URL and send again.")
        if (size := sum(file.size for file in message.attachments)) > self.max_file_bytes:
            raise Refused(f"Not sent: {size / 1_000_000:.1f} MB of files; MMS by Telnyx carries 1 MB. Send a link instead.")

    # --- asking afterwards ---

    async def received(self, since: float, until: float, http: Http) -> AsyncIterator[Sequence[InboundMessage]]:
        """What customers wrote here between two times, from Telnyx's list of its webhooks: the same events. Raises TryLater or Refused."""
        key = self.settings.api_key.get_secret_value()
        if not key:
            raise Refused(f"Channel {self.place.name} has no api_key. Set it (Telnyx portal, API Keys).")
        found = []
        for event in await read_events(self.settings.base_url, f"Bearer {key}", since, until, http):
            if not self._is_to_us(event["payload"]):
                continue
            try:
                said = self._message(event["payload"]["id"], event["payload"])
            except Unparseable:
                continue  # of another kind: a number may take both SMS and WhatsApp
            if isinstance(said, InboundMessage):
                found.append(replace(said, original=json.dumps({"data": dict(event)}).encode()))
        for start in range(0, len(found), _AT_ONCE):
            yield found[start : start + _AT_ONCE]

    def _is_to_us(self, payload: Mapping[str, Any]) -> bool:
        profile = self.settings.messaging_profile_id
        if profile and payload.get("messaging_profile_id") == profile:
            return True
        receivers = payload.get("to")
        numbers = [_part(one).get("phone_number") for one in receivers] if isinstance(receivers, list) else []
        return bool(self.settings.address) and self.settings.address in numbers

    # --- files ---

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch a media file of up to 20 MB from Telnyx's store, without credentials. Raises Refused (for a foreign host before any
        connection) or TryLater."""
        if not self._is_media_store(url):
            raise Refused("Not fetched: this is not an address of Telnyx's media store.")
        try:
            answer = await http.request("GET", url, timeout=30.0, max_bytes=MAX_MEDIA_BYTES)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Telnyx's media store could not be reached: {error}") from error
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise TryLater(f"Telnyx answered {answer.status} for a media file.", retry_after(answer.headers))
        if answer.status != 200:
            raise Refused(f"Not fetched: Telnyx answered {answer.status} for this file; it keeps files for 30 days.")
        content_type = answer.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        return Attachment(name=media_name(content_type, 1), content_type=content_type, data=answer.body, url=url)

    def _is_media_store(self, url: str) -> bool:
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            return False
        try:
            parts, ours = urlsplit(url), urlsplit(self.settings.base_url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        if "@" in parts.netloc:
            return False
        if self.is_sandbox() and (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc):
            return True
        return parts.scheme == "https" and port in (None, 443) and host.endswith(_MEDIA_HOSTS)


def _statuses(sid: str, payload: Mapping[str, Any], query: str) -> Sequence[Inbound]:
    receivers = payload.get("to")
    [receiver, *others] = [_part(one) for one in receivers] if isinstance(receivers, list) and receivers else [{}]
    word = _word(receiver.get("status")).lower()
    key = f"status:{sid}:{word}"
    after = STATUSES.get(word)
    if after is None or others:
        return [
            Ignored(provider_key=key[:200], reason=f"a message status we have no word for: {word[:40]}" if not others else "a group MMS")
        ]
    errors = payload.get("errors")
    error = _part(errors[0]) if isinstance(errors, list) and errors else {}
    code = _word(error.get("code"))
    ours = parse_qs(query).get("delivery", [""])[0]
    failed = after is MessageStatus.FAILED
    return [
        DeliveryUpdate(
            provider_key=key,
            status=after,
            delivery_id=int(ours) if ours.isascii() and ours.isdigit() and len(ours) < 19 else None,
            provider_message_id=sid,
            error=explain(code, _word(error.get("detail")) or _word(error.get("title"))) if failed else "",
            event=EVENTS.get(word),
            recipient=_word(receiver.get("phone_number")),
            permanent=failed and code in NEVER,
        )
    ]


def _judge(answer: HttpResponse) -> Sent:
    """What Telnyx's answer to a message means. Raises Refused, TryLater or Unknown."""
    if answer.status in (429, 503):
        wait = retry_after(answer.headers)
        reset = answer.headers.get("x-ratelimit-reset", "").strip()  # seconds
        if wait is None and _SECONDS.fullmatch(reset) and int(reset) > 0:
            wait = min(float(reset), LONGEST)
        raise TryLater(f"Telnyx is busy (HTTP {answer.status}).", wait)
    if answer.status >= 500:
        raise Unknown(f"Telnyx failed (HTTP {answer.status}); the message may have gone.")
    try:
        read = _part(json.loads(answer.body))
    except (ValueError, RecursionError):
        read = {}
    if not 200 <= answer.status < 300:
        errors = read.get("errors")
        error = _part(errors[0]) if isinstance(errors, list) and errors else {}
        said = _word(error.get("detail")) or _word(error.get("title")) or f"Telnyx refused it (HTTP {answer.status})."
        raise Refused(explain(_word(error.get("code")), said))
    sid = _word(_part(read.get("data")).get("id"))
    if not sid:
        raise Unknown(f"Telnyx answered {answer.status} without naming a message; it may have gone.")
    return Sent(sid)


_AUTORESPONSES: dict[str, Literal["", "out", "in"]] = {"STOP": "out", "START": "in"}


def _opts(judged: str, text: str) -> Literal["", "out", "in"]:
    """As Telnyx judged it (`autoresponse_type`, https://developers.telnyx.com/docs/messaging/messages/advanced-opt-in-out), else by the
    words of `stop_words`."""
    if judged:
        return _AUTORESPONSES.get(judged.upper(), "")
    return stop_words.opts(text)


def _attachments(payload: Mapping[str, Any]) -> tuple[Attachment, ...]:
    media = payload.get("media")
    found: list[Attachment] = []
    for one in media if isinstance(media, list) else ():
        if url := _word(_part(one).get("url")):
            content_type = (_word(_part(one).get("content_type")) or "application/octet-stream").partition(";")[0].strip().lower()
            found.append(Attachment(name=media_name(content_type, len(found) + 1), content_type=content_type, url=url))
    return tuple(found)


def _microseconds(said: Any) -> int | None:
    try:
        when = datetime.fromisoformat(_word(said))
    except ValueError:
        return None
    return int(when.timestamp() * 1_000_000) if when.tzinfo else None


def _part(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    """A text without what no text column takes: NUL, and the half characters JSON can spell."""
    return value.replace("\x00", "").encode(errors="replace").decode() if isinstance(value, str) else ""
