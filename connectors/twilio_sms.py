"""SMS and MMS by Twilio (https://www.twilio.com/docs/messaging)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from connectors.shared.twilio import TwilioMessaging
from hub.contract import Claim, Proof

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")  # ITU-T E.164: at most 15 digits

# The words Twilio acts on by itself, as the whole message (https://help.twilio.com/articles/223134027); it says so in `OptOutType`
# only with Advanced Opt-Out.
_STOP = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
_START = frozenset({"START", "YES", "UNSTOP"})


class TwilioSms(TwilioMessaging):
    """A Twilio phone number, or a Messaging Service."""

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
        return (Claim("phone" if _E164.fullmatch(address) else "sender_word", address, Proof.CHANNEL),)

    def opts(self, form: Mapping[str, str]) -> Literal["", "out", "in"]:
        """As Twilio judged it, else by the words it acts on: then its own network lets nothing through any more."""
        word = form.get("Body", "").strip().upper()
        return super().opts(form) or ("out" if word in _STOP else "in" if word in _START else "")
