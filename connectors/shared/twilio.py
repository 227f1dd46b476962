"""What Twilio's two messaging channels have in common: signature, webhooks, sending by the official SDK, asking afterwards.

Webhook fields: https://www.twilio.com/docs/messaging/guides/webhook-request (read in `twilio_webhook`).
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from connectors.shared import twilio_webhook as webhook
from connectors.shared.signatures import form_pairs, twilio_body_hash, twilio_signed
from connectors.shared.twilio_lists import MessageLists, Resource, as_webhook, files, iso, when
from connectors.shared.twilio_media import fetch_media
from connectors.shared.twilio_sdk import load_sdk
from connectors.shared.twilio_settings import TwilioSettings
from connectors.shared.twilio_words import STATUSES, explain
from hub.contract import (
    Answer,
    Answers,
    Attachment,
    ChannelSettings,
    Claim,
    DeliveryUpdate,
    Http,
    Ignored,
    Inbound,
    InboundMessage,
    MessageStatus,
    OutboundMessage,
    Place,
    Refused,
    Request,
    Sent,
    Unparseable,
    Verdict,
)

# Left to itself Twilio tries a webhook a second time only where it could not connect; this makes it five times, after any failure, all
# within the 15 s it allows in all (https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides: connect and read
# timeouts in ms). What stands behind the # is for Twilio: it does not reach us.
RETRIES = "#rc=5&rp=all&ct=2000&rt=5000"


_OPT_OUT_TYPES: dict[str, Literal["", "out", "in"]] = {"STOP": "out", "START": "in"}


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
        return self.settings.sandbox

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
            pairs = form_pairs(request.body) if webhook.is_form(request) else ()
        except ValueError:
            return Verdict.BAD
        if not webhook.is_form(request) and not twilio_body_hash(request.query, request.body):
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
        if not webhook.is_form(request):
            raise Unparseable(
                f"Twilio's messaging webhooks are forms; this body is {request.content_type!r}. Check which product posts here."
            )
        try:
            form = webhook.whole(dict(form_pairs(request.body)))
        except ValueError as error:
            raise Unparseable(str(error)) from error
        sid = form.get("MessageSid") or form.get("SmsMessageSid") or form.get("SmsSid") or ""
        if not sid:
            raise Unparseable("the body carries no MessageSid: neither a message nor a status of one" if form else "the body is empty")
        word = (form.get("MessageStatus") or form.get("SmsStatus") or "").lower()
        if word not in ("", "received", "receiving"):
            return [webhook.status(sid, word, form, request.query)]
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
            external_id=sid,
            text=webhook.text(form),
            sender_name=webhook.clean(form.get("ProfileName", "")),
            attachments=webhook.attachments(form),
            quoted_id=webhook.clean(form.get("OriginalRepliedMessageSid", "")),
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
        if message.template is not None:
            fields["content_sid"] = message.template.id
            if message.template.variables:
                fields["content_variables"] = json.dumps(dict(message.template.variables), ensure_ascii=False)
        elif message.text:
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
        if message.template is not None:
            self.check_template(message)
            return
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

    def check_template(self, message: OutboundMessage) -> None:
        """Raise Refused: a template is WhatsApp's affair, where the connector says otherwise."""
        raise Refused(f"Not sent: {self.label} by Twilio needs no template. Write the text itself.")

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
        them as they were; of a template, that the one's words stand within the other's), and the number of files; the time is that of
        creation. The list is not narrowed by
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
                    and _says(str(resource.get("body") or ""), message)
                    and files(resource) == len(message.attachments)
                    and (not service or resource.get("messaging_service_sid") == service)
                ):
                    found.append(webhook.found(resource))
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
        return MessageLists(self.settings.base_url, self.settings.account_sid, self.settings.authorization, http)

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch a media file of up to 20 MB, with our credentials only on Twilio's own hosts. Raises Refused or TryLater."""
        return await fetch_media(self.settings, url, http)


def _says(body: str, message: OutboundMessage) -> bool:
    """Whether a listed message has these words. Of a template Twilio lists what its body came to, without a header or footer."""
    listed, ours = " ".join(body.split()), " ".join(message.text.split())
    return listed == ours or (message.template is not None and bool(listed and ours) and (listed in ours or ours in listed))
