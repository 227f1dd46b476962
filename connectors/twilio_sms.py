"""SMS and MMS by Twilio (https://www.twilio.com/docs/messaging)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator

from connectors.shared import sms_sender, stop_words
from connectors.shared.twilio import TwilioMessaging
from connectors.shared.twilio_settings import TwilioSettings
from hub.contract import ChannelSettings, Claim


class TwilioSmsSettings(TwilioSettings):
    """`address` is a number (`+15551230000`), a short code, or a sender's name of up to 11 characters (`ACME`), which nobody can
    answer."""

    @field_validator("address")
    @classmethod
    def check_address(cls, value: str) -> str:
        return sms_sender.check_sender(value)


class TwilioSms(TwilioMessaging):
    """A Twilio phone number, short code or sender's name, or a Messaging Service."""

    Settings: ClassVar[type[ChannelSettings]] = TwilioSmsSettings
    counts_segments: ClassVar[bool] = True  # each part of a text is paid for
    label: ClassVar[str] = "SMS"
    icon: ClassVar[str] = "sms"
    reaches: ClassVar[tuple[str, ...]] = ("phone",)
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
        "finds": "",
    }
    prefix: ClassVar[str] = ""
    max_files: ClassVar[int] = 10  # https://www.twilio.com/docs/api/errors/21623
    max_file_bytes: ClassVar[int] = 5_000_000  # https://www.twilio.com/docs/messaging/api/media-resource

    def claims(self, address: str, form: Mapping[str, str]) -> tuple[Claim, ...]:
        """The sender's number; a short code or a word (`AMAZON`) names a company's system and is no one's phone."""
        return (sms_sender.claim(address),)

    def opts(self, form: Mapping[str, str]) -> Literal["", "out", "in"]:
        """As Twilio judged it (with Advanced Opt-Out the account's own words count, and only those), else by the words of
        `stop_words`: after those of its own list Twilio's network lets nothing through any more."""
        if form.get("OptOutType"):
            return super().opts(form)
        return stop_words.opts(form.get("Body", ""), yes_starts=True)

    def one_way(self) -> str:
        """A name instead of a number has nowhere to answer to; a Messaging Service has numbers beside it."""
        return "" if self.settings.messaging_service_sid else sms_sender.one_way(self.settings.address)
