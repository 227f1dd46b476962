"""What Twilio's two messaging channels have in common: signature, webhook fields, sending by the official SDK, fetching media.

Webhook fields: https://www.twilio.com/docs/messaging/guides/webhook-request.
"""

from __future__ import annotations

import asyncio
import base64
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from email.message import Message as Headers
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from pydantic import ConfigDict, SecretStr, field_validator, model_validator

from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.retry_after import retry_after
from connectors.shared.signatures import form_pairs, twilio_body_hash, twilio_signed
from connectors.shared.twilio_lists import MessageLists, Resource, as_webhook, files, iso, when
from connectors.shared.twilio_sdk import API, load_sdk
from connectors.shared.twilio_words import STATUSES, explain, media_name
from hub.contract import (
    Answer,
    Answers,
    Attachment,
    ChannelSettings,
    Claim,
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
    Place,
    Refused,
    Request,
    Sent,
    TryLater,
    Unparseable,
    Verdict,
)

MAX_MEDIA_BYTES = 20_000_000  # Twilio takes up to 16 MB (WhatsApp) and 5 MB (MMS)
_MEDIA_PATH = re.compile(r"/Media/[A-Za-z0-9]+$")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Left to itself Twilio tries a webhook a second time only where it could not connect; this makes it five times, after any failure, all
# within the 15 s it allows in all (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides: connect and read
# timeouts in ms). What stands behind the # is for Twilio: it does not reach us.
RETRIES = "#rc=5&rp=all&ct=2000&rt=5000"


class TwilioSettings(ChannelSettings):
    """Where to find these: https://console.twilio.com, Account Info."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a misspelt auth_token must not be printed by its own error message

    account_sid: str
    auth_token: SecretStr = SecretStr("")
    messaging_service_sid: str = ""  # send through this Messaging Service instead of from `address`
    base_url: str = API  # a stand-in on loopback for the sandbox and the tests

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(
                f"base_url must be https:// (or http:// on loopback), since the auth token is sent there; the default is {API}"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def check_sender(self) -> TwilioSettings:
        if not (self.address or self.messaging_service_sid):
            raise ValueError("set address (the Twilio number customers write to, like +15551230000) or messaging_service_sid (MG...)")
        return self


class TwilioMessaging(ABC):
    """One Twilio number or Messaging Service; the two connectors say how addresses look on theirs."""

    Settings: ClassVar[type[ChannelSettings]] = TwilioSettings
    # Twilio takes a body for TwiML, instructions to carry out at once; this one says there are none.
    answers: ClassVar[Answers] = Answers(ok=Answer(200, "<Response/>", "text/xml"), bad_signature=403)
    idempotent: ClassVar[bool] = False
    live: ClassVar[bool] = True
    max_text: ClassVar[int] = 1_600  # https://www.twilio.com/docs/api/errors/21617
    label: ClassVar[str]
    icon: ClassVar[str]
    reaches: ClassVar[tuple[str, ...]]
    can: ClassVar[Mapping[str, str]]
    prefix: ClassVar[str]  # what stands before an address on this channel
    max_files: ClassVar[int]
    max_file_bytes: ClassVar[int]

    def __init__(self, settings: TwilioSettings, place: Place) -> None:
        self.settings = settings
        self.place = place

    def is_sandbox(self) -> bool:
        return is_loopback_url(self.settings.base_url)

    @abstractmethod
    def claims(self, address: str, form: Mapping[str, str]) -> tuple[Claim, ...]:
        """Who an inbound message proves to come from; `address` is From without its prefix."""

    # --- coming in ---

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge `X-Twilio-Signature` over the configured public URL; it carries no time, so `now` plays no part."""
        key = self.settings.auth_token.get_secret_value().encode()
        if not key:
            return Verdict.NO_KEY
        signature = request.headers.get("x-twilio-signature", "")
        if not signature:
            return Verdict.UNSIGNED
        try:
            pairs = form_pairs(request.body) if _is_form(request) else ()
        except ValueError:
            return Verdict.BAD
        if not _is_form(request) and not twilio_body_hash(request.query, request.body):
            return Verdict.BAD
        # The overrides we ask for are not part of the address that is called. Should they be part of what is signed, that is the same.
        if twilio_signed(key, request.url, pairs, signature) or twilio_signed(key, request.url + RETRIES, pairs, signature):
            return Verdict.GOOD
        return Verdict.BAD

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """The webhook with its retries. The fallback is the same address: a second round for what the first did not deliver."""
        url = self.place.inbound_url + RETRIES
        return [("incoming messages, POST", url), ("fallback, POST", url)]

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate one webhook: a message, or the status of one we sent, told apart by their fields. Raises Unparseable."""
        if not _is_form(request):
            raise Unparseable(
                f"Twilio's messaging webhooks are forms; this body is {request.content_type!r}. Check which product posts here."
            )
        try:
            form = dict(form_pairs(request.body))
        except ValueError as error:
            raise Unparseable(str(error)) from error
        sid = form.get("MessageSid") or form.get("SmsMessageSid") or form.get("SmsSid") or ""
        if not sid:
            raise Unparseable("the body carries no MessageSid: neither a message nor a status of one" if form else "the body is empty")
        word = (form.get("MessageStatus") or form.get("SmsStatus") or "").lower()
        if word not in ("", "received", "receiving"):
            return [_status(sid, word, form, request.query)]
        if form.get("Direction", "").startswith("outbound"):
            return [Ignored(provider_key=f"echo:{sid}", reason="an echo of a message sent from this account")]
        return [self._message(sid, form)]

    def _message(self, sid: str, form: Mapping[str, str]) -> Inbound:
        sender = form.get("From", "")
        scheme, colon, address = sender.rpartition(":")
        if not address or not ("Body" in form or "NumMedia" in form):
            raise Unparseable("a MessageSid without From and Body: neither a message nor a status of one")
        if scheme + colon != self.prefix:
            raise Unparseable(
                f"this is not {self.label}: From is {f'a {scheme}: address' if colon else 'a plain number'}. At Twilio, let each sender's "
                "webhook point at its own channel here (Messaging Service: 'Defer to sender's webhook'). Kept; nothing was made of it"
            )
        if address == self.settings.address.removeprefix(self.prefix):
            return Ignored(provider_key=f"echo:{sid}", reason="an echo of a message sent from this channel's own address")
        return InboundMessage(
            provider_key=f"in:{sid}",
            claims=self.claims(address, form),
            text=_text(form),
            sender_name=_clean(form.get("ProfileName", "")),
            attachments=_attachments(form),
            opts=self.opts(form),
        )

    def opts(self, form: Mapping[str, str]) -> Literal["", "out", "in"]:
        """Whether this is a word by which people stop (or take up again) what they are sent here, as Twilio itself judged it: its
        `OptOutType` with Advanced Opt-Out (https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out)."""
        return _OPT_OUT_TYPES.get(form.get("OptOutType", "").upper(), "")

    # --- going out ---

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Hand one message to Twilio's Messages API. Raises Refused, TryLater or Unknown."""
        self.check(message)
        token = self.settings.auth_token.get_secret_value()
        if not token:
            raise Refused(f"Not sent: channel {self.place.name} has no auth_token. Set it (Twilio console, Account Info) and send again.")
        # The SDK takes about 0.3 s to import: once, and away from the loop that answers everybody else.
        sdk = await asyncio.to_thread(load_sdk)
        client = sdk.Client(
            self.settings.account_sid,
            token,
            http_client=sdk.HttpClient(http, self.settings.base_url),
            environment={"TWILIO_EDGE": ""},  # the process's own environment must not redirect what the configuration says
        )
        fields: dict[str, Any] = {"to": self.prefix + message.to.removeprefix(self.prefix)}
        if self.settings.messaging_service_sid:
            fields["messaging_service_sid"] = self.settings.messaging_service_sid
        else:
            fields["from_"] = self._own_address
        if message.text:
            fields["body"] = message.text
        if message.attachments:
            fields["media_url"] = [file.public_url for file in message.attachments]
        if message.callback_url:
            fields["status_callback"] = message.callback_url + RETRIES
        try:
            created = await client.messages.create_async(**fields)
        except sdk.RestException as error:
            raise Refused(explain(str(error.code or error.status), (error.msg or "").removeprefix("Unable to create record: "))) from None
        except sdk.ServiceException as error:
            raise Refused(explain(str(error.code), error.detail or error.title)) from None
        if STATUSES.get(created.status or "") is MessageStatus.FAILED:
            raise Refused(explain(str(created.error_code or ""), created.error_message or ""))
        return Sent(created.sid)

    def check(self, message: OutboundMessage) -> None:
        """Raise Refused for what Twilio would refuse or cut, before anything leaves."""
        if not message.text and not message.attachments:
            raise Refused("Not sent: the message is empty.")
        if len(message.text) > self.max_text:
            raise Refused(f"Not sent: {len(message.text)} characters; {self.label} by Twilio carries {self.max_text}. Split the text.")
        if len(message.attachments) > self.max_files:
            raise Refused(
                f"Not sent: {len(message.attachments)} files; one {self.label} message carries {self.max_files}. Send them one by one."
            )
        if any(not file.public_url for file in message.attachments):
            raise Refused("Not sent: Twilio fetches files by their address, and a file has none. Set the hub's public URL and send again.")
        if (size := sum(file.size for file in message.attachments)) > self.max_file_bytes:
            limit = self.max_file_bytes // 1_000_000
            raise Refused(f"Not sent: {size / 1_000_000:.1f} MB of files; {self.label} by Twilio carries {limit} MB. Send a link instead.")

    # --- asking afterwards ---

    async def received(self, since: float, until: float, http: Http) -> AsyncIterator[Sequence[InboundMessage]]:
        """What customers wrote here between two times, from Twilio's own list. Raises TryLater or Refused.

        A listed message's DateSent is when its webhook was called (see `twilio_lists`); where Twilio has not come to that, it is when
        the message came."""
        lists = self._lists(http)
        # The end is not asked for: whether Twilio counts a time of day there or only the date is not documented.
        async for page in lists.oldest_first({**self._to_us(), "DateSent>": iso(since)}):
            found = []
            for resource in page:
                at = when(resource, "date_sent", "date_created")
                if at is not None and since <= at <= until and self._is_to_us(resource):
                    found.append(await self._listed(resource, at, lists))
            yield [one for one in found if one is not None]

    def _to_us(self) -> dict[str, str]:
        # A Messaging Service has several numbers, and the list no filter for it.
        return {} if self.settings.messaging_service_sid else {"To": self._own_address}

    def _is_to_us(self, resource: Resource) -> bool:
        if resource.get("direction") != "inbound":
            return False
        if self.settings.address and resource.get("to") == self._own_address:
            return True
        service = self.settings.messaging_service_sid
        return bool(service) and resource.get("messaging_service_sid") == service and str(resource.get("to")).startswith(self.prefix)

    async def _listed(self, resource: Resource, at: float, lists: MessageLists) -> InboundMessage | None:
        sid = str(resource["sid"])
        media: list[tuple[str, str]] = []
        if files(resource):
            media = [(lists.media_url(sid, str(one["sid"])), str(one.get("content_type") or "")) for one in await lists.media(sid)]
        form = as_webhook(resource, media)
        try:
            said = self._message(sid, form)
        except Unparseable:
            return None  # of another channel: a number may take both SMS and WhatsApp
        if not isinstance(said, InboundMessage):
            return None
        return replace(said, sent_at=int(at * 1_000_000), original=urlencode(form).encode())

    async def find(self, message: OutboundMessage, sent_after: float, sent_before: float, http: Http) -> Sequence[DeliveryUpdate]:
        """Messages in Twilio's list that say the same to the same number. Raises TryLater or Refused.

        Compared are the text, letter by letter (of spaces and line ends only that they are there: nobody promises that Twilio keeps
        them as they were), and the number of files; the time is that of creation. The list is not narrowed by
        DateSent, which a message still in Twilio's queue has not got: one customer's is short, and read only as far back as needed."""
        filters = {"To": self.prefix + message.to.removeprefix(self.prefix)}
        service = self.settings.messaging_service_sid
        if not service:
            filters["From"] = self._own_address
        found = []
        async for page in self._lists(http).newest_first(filters):
            for resource in page:
                at = when(resource, "date_created", "date_sent")
                if (
                    at is not None
                    and sent_after <= at <= sent_before
                    and str(resource.get("direction")).startswith("outbound")
                    and str(resource.get("body") or "").split() == message.text.split()
                    and files(resource) == len(message.attachments)
                    and (not service or resource.get("messaging_service_sid") == service)
                ):
                    found.append(_found(resource))
            oldest = when(page[-1], "date_created", "date_sent") if page else None
            if oldest is not None and oldest < sent_after:
                break
        return found

    @property
    def _own_address(self) -> str:
        return self.prefix + self.settings.address.removeprefix(self.prefix)

    def _lists(self, http: Http) -> MessageLists:
        if not self.settings.auth_token.get_secret_value():
            raise Refused(f"Channel {self.place.name} has no auth_token. Set it (Twilio console, Account Info).")
        return MessageLists(self.settings.base_url, self.settings.account_sid, self._authorization, http)

    @property
    def _authorization(self) -> str:
        login = f"{self.settings.account_sid}:{self.settings.auth_token.get_secret_value()}".encode()
        return f"Basic {base64.b64encode(login).decode()}"

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch a media file of up to 20 MB. Raises Refused (for a foreign host before any connection) or TryLater.

        Our credentials go only to Twilio's hosts (or the configured base_url) and there only to media: a forged webhook must not
        make us fetch, say, the account resource, which contains the auth token. Twilio redirects to a short-lived address at its
        CDN (https://www.twilio.com/docs/messaging/api/media-resource), which is followed once and without credentials.
        """
        if not self._is_twilio_media(url):
            raise Refused(f"Not fetched: {_host(url)} is not a Twilio media address.")
        answer = await _get(url, http, {"authorization": self._authorization})
        if answer.status in _REDIRECTS:
            target = _joined(url, answer.headers.get("location", ""))
            if not self._is_media_store(target):
                raise Refused(f"Not fetched: Twilio redirects to {_host(target)}, which is not one of its media stores.")
            answer = await _get(target, http, {})
        if answer.status != 200:
            raise Refused(f"Not fetched: Twilio answered {answer.status} for this file; it may have been deleted there.")
        if len(answer.body) > MAX_MEDIA_BYTES:
            raise Refused(f"Not fetched: the file is larger than {MAX_MEDIA_BYTES // 1_000_000} MB.")
        content_type = answer.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        name = _disposition_name(answer.headers.get("content-disposition", "")) or media_name(content_type, 1)
        return Attachment(name=name, content_type=content_type, data=answer.body, url=url)

    def _is_twilio_media(self, url: str) -> bool:
        if not _is_plain(url):
            return False
        scheme, host, port = origin = _origin(url)
        ours = origin == _origin(self.settings.base_url)
        if ours and self.is_sandbox():
            return True
        trusted = ours or (scheme == "https" and port == 443 and host.endswith(".twilio.com"))
        return trusted and bool(_MEDIA_PATH.search(urlsplit(url).path))

    def _is_media_store(self, url: str) -> bool:
        if not _is_plain(url):
            return False
        scheme, host, port = _origin(url)
        if (scheme, host, port) == _origin(self.settings.base_url):
            return True
        return scheme == "https" and port == 443 and host.endswith((".twiliocdn.com", ".amazonaws.com"))


# --- reading a webhook ---


def _is_form(request: Request) -> bool:
    content_type = request.content_type
    return not content_type or content_type.lower().startswith("application/x-www-form-urlencoded")


def _status(sid: str, word: str, form: Mapping[str, str], query: str) -> Inbound:
    key = f"status:{sid}:{word}"
    status = STATUSES.get(word)
    if status is None:
        return Ignored(provider_key=key, reason=f"a message status we have no word for: {word[:40]}")
    code = form.get("ErrorCode", "").strip()
    code = "" if code == "0" else code
    ours = parse_qs(query).get("delivery", [""])[0]
    return DeliveryUpdate(
        provider_key=key,
        status=status,
        delivery_id=int(ours) if ours.isascii() and ours.isdigit() and len(ours) < 19 else None,
        provider_message_id=sid,
        error=explain(code, _clean(form.get("ErrorMessage", ""))) if code or status is MessageStatus.FAILED else "",
    )


def _found(resource: Resource) -> DeliveryUpdate:
    # A word we do not know still tells that Twilio has it.
    status = STATUSES.get(str(resource.get("status") or "").lower(), MessageStatus.SENT)
    code = str(resource.get("error_code") or "")
    failed = status is MessageStatus.FAILED
    return DeliveryUpdate(
        provider_key=f"found:{resource['sid']}",
        status=status,
        provider_message_id=str(resource["sid"]),
        error=explain(code, _clean(str(resource.get("error_message") or ""))) if failed else "",
    )


_OPT_OUT_TYPES: dict[str, Literal["", "out", "in"]] = {"STOP": "out", "START": "in"}


def _text(form: Mapping[str, str]) -> str:
    said = form.get("Body") or form.get("ButtonText") or form.get("ListTitle") or form.get("ButtonPayload") or ""
    lines = [_clean(said)] if said else []
    if form.get("Latitude") and form.get("Longitude"):
        place = [form[name] for name in ("Latitude", "Longitude", "Label", "Address") if form.get(name)]
        lines.append(f"Location: {_clean(', '.join(place))}")
    return "\n".join(lines)


def _attachments(form: Mapping[str, str]) -> tuple[Attachment, ...]:
    found: list[Attachment] = []
    while url := form.get(f"MediaUrl{len(found)}"):
        content_type = form.get(f"MediaContentType{len(found)}", "application/octet-stream").partition(";")[0].strip().lower()
        found.append(Attachment(name=media_name(content_type, len(found) + 1), content_type=content_type, url=url))
    return tuple(found)


def _clean(text: str) -> str:
    return text.replace("\x00", "")  # which no text column takes


# --- the network ---


def _is_plain(url: str) -> bool:
    """Whether every client reads this URL alike: no credentials, no spaces, backslashes or non-ASCII, a port that is a number."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port or 1) > 0
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def _host(url: str) -> str:
    return (urlsplit(url).hostname if _is_plain(url) else "") or "the address"


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _disposition_name(header: str) -> str:
    """The file name of a Content-Disposition header (RFC 6266), without any path or control character."""
    headers = Headers()
    headers["content-disposition"] = header
    try:
        name = headers.get_filename("") if header else ""
    except (LookupError, ValueError, UnicodeError):
        return ""
    return "".join(c for c in re.split(r"[/\\]", name)[-1] if c.isprintable()).strip(". ")[:120]


async def _get(url: str, http: Http, headers: Mapping[str, str]) -> HttpResponse:
    try:
        answer = await http.request("GET", url, headers=headers, timeout=30.0, max_bytes=MAX_MEDIA_BYTES)
    except (NotSent, NoAnswer) as error:
        raise TryLater(f"Twilio's media store could not be reached: {error}") from error
    if answer.status in (401, 403):
        raise Refused(f"Not fetched: Twilio answered {answer.status}. Check account_sid and auth_token in this channel's settings.")
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise TryLater(f"Twilio answered {answer.status} for a media file.", retry_after(answer.headers))
    return answer
