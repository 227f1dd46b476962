"""WhatsApp by Meta's Cloud API, directly (https://developers.facebook.com/documentation/business-messaging/whatsapp)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import parse_qs

from connectors.whatsapp_cloud.api import Graph, sent_id
from connectors.whatsapp_cloud.incoming import read
from connectors.whatsapp_cloud.outgoing import LIMITS, MAX_FILES, MAX_TEXT, payload
from connectors.whatsapp_cloud.settings import WhatsAppCloudSettings
from connectors.whatsapp_cloud.templates import read_templates
from hub.contract import (
    Answer,
    Answers,
    Attachment,
    ChannelSettings,
    Http,
    Inbound,
    OutboundMessage,
    Pace,
    Place,
    Refused,
    Request,
    Sent,
    Template,
    TryLater,
    Unknown,
    Verdict,
)

__all__ = ["WhatsAppCloud"]

LONGEST_CHALLENGE = 200  # Meta's is a number of ten digits


class WhatsAppCloud:
    """One phone number of a WhatsApp business account at Meta."""

    Settings: ClassVar[type[ChannelSettings]] = WhatsAppCloudSettings
    label: ClassVar[str] = "WhatsApp"
    icon: ClassVar[str] = "whatsapp"
    reaches: ClassVar[tuple[str, ...]] = ("phone", "wa_user_id")
    # Meta tries again for up to 7 days after anything but a 200.
    answers: ClassVar[Answers] = Answers(bad_signature=401)
    idempotent: ClassVar[bool] = False
    live: ClassVar[bool] = True
    max_text: ClassVar[int] = MAX_TEXT
    max_files: ClassVar[int] = MAX_FILES
    max_file_bytes: ClassVar[int] = max(LIMITS.values())
    window_hours: ClassVar[float] = 24  # free text reaches them so long after they wrote: error 131047
    # Messages a second a number sends by default; to one customer ten a minute, with bursts (error 131056 says when it is too fast):
    # https://developers.facebook.com/documentation/business-messaging/whatsapp/throughput
    pace: ClassVar[Pace] = Pace(per_second=80, burst=20)
    can: ClassVar[Mapping[str, str]] = {
        "files_in": "",
        "files_out": "",
        "delivered": "",
        "read": "",
        "quotes": "",
        "reactions": "",
        "edits": "",  # where Meta hands them over: see `incoming`
        "templates": "",
        "presence": "",
        "recovers": "Meta keeps no list of what came in, and delivers what was missed for up to 7 days",
        "finds": "Meta keeps no list of what was sent; a status tells of it, if it went",
    }

    def __init__(self, settings: WhatsAppCloudSettings, place: Place) -> None:
        self.settings = settings
        self.place = place

    def is_sandbox(self) -> bool:
        return self.settings.sandbox

    # --- coming in ---

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge `X-Hub-Signature-256`, an HMAC-SHA256 of the body with the app secret; it carries no time, so `now` plays no part.

        https://developers.facebook.com/docs/graph-api/webhooks/getting-started#event-notifications
        """
        key = self.settings.app_secret.get_secret_value().encode()
        if not key:
            return Verdict.NO_KEY
        scheme, _, given = request.headers.get("x-hub-signature-256", "").strip().partition("=")
        if not given:
            return Verdict.UNSIGNED
        signed = hmac.new(key, request.body, hashlib.sha256).hexdigest().encode()
        good = hmac.compare_digest(given.lower().encode("utf-8", "surrogateescape"), signed)
        return Verdict.GOOD if good and scheme == "sha256" else Verdict.BAD

    def challenge(self, request: Request) -> Answer:
        """The answer to Meta's question, by GET, whether the webhook's address is ours: its challenge, for who knows our verify token.

        https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests
        """
        wanted = self.settings.verify_token.get_secret_value()
        try:
            asked = {name: values[0] for name, values in parse_qs(request.query, max_num_fields=20).items()}
        except ValueError:
            asked = {}
        if not wanted:
            return Answer(403, f"The channel {self.place.name} has no verify_token. Set it in config.yaml, and the same word at Meta.\n")
        given = asked.get("hub.verify_token", "")
        known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
        said = asked.get("hub.challenge", "")
        if request.method != "GET" or asked.get("hub.mode") != "subscribe" or not known or not said.isascii() or not said.isprintable():
            return Answer(403, "The verify token is not this channel's. Compare it with the channel's verify_token in config.yaml.\n")
        return Answer(200, said[:LONGEST_CHALLENGE])

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """What Meta's console asks for beside the address. The verify token is yours already."""
        return [
            ("Callback URL (WhatsApp, Configuration)", self.place.inbound_url),
            ("Webhook fields to subscribe to", "messages, user_preferences, user_id_update, message_template_status_update"),
        ]

    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate one webhook: all messages, statuses and notices in it, for this number. Raises Unparseable."""
        return read(request.body, self.settings.phone_number_id)

    async def fetch(self, url: str, http: Http) -> Attachment:
        """Fetch a customer's file by its `media:` reference. Raises Refused or TryLater."""
        return await Graph(self.settings, self.place.name, http).media(url)

    # --- going out ---

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Hand one message to the Cloud API. Raises Refused, TryLater or Unknown."""
        body = payload(message, sandbox=self.settings.sandbox)
        told = await Graph(self.settings, self.place.name, http).post(f"{self._number()}/messages", body)
        return Sent(sent_id(told))

    async def templates(self, http: Http) -> Sequence[Template]:
        """All templates of the WhatsApp business account, approved or not. Raises TryLater or Refused."""
        if not self.settings.waba_id:
            raise Refused(f"Channel {self.place.name} has no waba_id. Set it (Meta's app, WhatsApp, API Setup) to use templates.")
        return await read_templates(Graph(self.settings, self.place.name, http), self.settings.waba_id)

    async def seen(self, external_id: str, http: Http, *, typing: bool = False) -> None:
        """Show that this message and those before it were read, with `typing` also that an answer is being written, for up to 25
        seconds (.../whatsapp/typing-indicators). Raises TryLater or Refused."""
        if not external_id:
            raise Refused("Not shown: this message has no id at WhatsApp.")
        body: dict[str, object] = {"messaging_product": "whatsapp", "status": "read", "message_id": external_id}
        if typing:
            body["typing_indicator"] = {"type": "text"}
        try:
            await Graph(self.settings, self.place.name, http).post(f"{self._number()}/messages", body)
        except Unknown as error:
            raise TryLater(str(error)) from error  # told twice is told once

    def _number(self) -> str:
        if not self.settings.phone_number_id:
            raise Refused(f"Not sent: channel {self.place.name} has no phone_number_id. Set it (Meta's app, WhatsApp, API Setup).")
        return self.settings.phone_number_id
