"""What an SMS comes from and is sent from: a number, a short code, or a name that nobody can answer. The same at every provider."""

from __future__ import annotations

import re

from hub.contract import Claim, Proof

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")  # ITU-T E.164: at most 15 digits
_SHORT_CODE = re.compile(r"[0-9]{3,8}")
# 3GPP TS 23.040 section 9.1.2.5 gives a name ten octets, eleven characters of the GSM alphabet; these are what Twilio
# (https://www.twilio.com/docs/glossary/what-alphanumeric-sender-id) and Telnyx take, one of them a letter.
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 +_&-]{1,11}")


def is_name(address: str) -> bool:
    """Whether an address is a sender's name and no number."""
    return bool(_NAME.fullmatch(address))


def check_sender(address: str) -> str:
    """The address a channel sends from, as it is. Raises ValueError for what no SMS can come from."""
    if address and not any(pattern.fullmatch(address) for pattern in (_E164, _SHORT_CODE, _NAME)):
        raise ValueError(
            f"address {address!r} is no SMS sender: a number with its country code (+15551230000), a short code (12345), "
            "or a name of up to 11 letters, digits and spaces with a letter in it (ACME)"
        )
    return address


def claim(address: str) -> Claim:
    """Who an SMS comes from, on the word of its provider; a short code or a name is a company's system and no one's phone."""
    return Claim("phone" if _E164.fullmatch(address) else "sender_word", address, Proof.CHANNEL)


def one_way(address: str) -> str:
    """Why customers cannot answer this sender, as a sentence for agents; empty where they can."""
    if not is_name(address):
        return ""
    return f"Customers cannot answer this sender: {address} is a name, not a number. Say in the text how they can reach you."
