"""What every mail channel has in common, whichever provider hands its mails over: it answers by SMTP and fetches nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from connectors.shared.mail_settings import EmailSettings
from connectors.shared.oauth import AccessTokens
from connectors.shared.smtp import SmtpPool
from hub.contract import Answers, Attachment, ChannelSettings, Http, Inbound, OutboundMessage, Place, Refused, Request, Sent, Verdict


class MailChannel(ABC):
    """A mailbox. A provider's connector adds how its deliveries are verified and read, and, where it has one, its own way out."""

    Settings: ClassVar[type[ChannelSettings]] = EmailSettings
    label: ClassVar[str] = "E-mail"
    icon: ClassVar[str] = "mail"
    reaches: ClassVar[tuple[str, ...]] = ("email",)
    answers: ClassVar[Answers] = Answers(bad_signature=401)
    idempotent: ClassVar[bool] = False
    max_text: ClassVar[int] = 200_000
    live: ClassVar[bool] = True
    can: ClassVar[Mapping[str, str]] = {
        "files_in": "",
        "files_out": "",
        "delivered": "SMTP only says that a mail was taken; a bounce is understood",
        "read": "mail has no receipts that can be relied on",
        "quotes": "",
        "reactions": "mail has none",
        "edits": "a mail cannot be taken back",
        "templates": "mail needs no approval",
        "presence": "mail has none",
        "recovers": "the sending servers keep what they could not hand over, and try again",
        "finds": "a mail server cannot be asked",
    }

    def __init__(self, settings: EmailSettings, place: Place) -> None:
        self.settings = settings
        self.place = place
        self.tokens = AccessTokens(settings.oauth) if settings.oauth is not None else None
        self.smtp = SmtpPool(settings, self.tokens)

    @abstractmethod
    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the signature or credential of a delivery; `now` is unix seconds."""

    @abstractmethod
    def parse(self, request: Request) -> Sequence[Inbound]:
        """Translate an authentic delivery: mails, or news of mails sent. Raises Unparseable."""

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by SMTP. Raises Refused, TryLater or Unknown."""
        return await self.smtp.send(message, http)

    async def close(self) -> None:
        """Close the connections to the mail server that are kept open for the next mail."""
        await self.smtp.close()

    async def fetch(self, url: str, http: Http) -> Attachment:
        """A mail brings its attachments along, so there is nothing to fetch. Raises Refused."""
        raise Refused("A mail's attachments arrive with the mail; there is no address to fetch them from.")

    def is_sandbox(self) -> bool:
        """Whether answers leave by a stand-in on this machine."""
        return self.settings.is_stand_in()
