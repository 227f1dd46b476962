"""WhatsApp by Twilio (https://www.twilio.com/docs/whatsapp)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from connectors.shared.twilio import TwilioMessaging
from hub.contract import Claim, OutboundMessage, Proof, Refused

_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})")


class TwilioWhatsApp(TwilioMessaging):
    """A WhatsApp sender at Twilio."""

    label: ClassVar[str] = "WhatsApp"
    icon: ClassVar[str] = "whatsapp"
    reaches: ClassVar[tuple[str, ...]] = ("phone", "wa_user_id")
    can: ClassVar[Mapping[str, str]] = {
        "files_in": "",
        "files_out": "",
        "delivered": "",
        "read": "",
        "quotes": "not built yet",
        "reactions": "Twilio does not hand them over",
        "edits": "Twilio does not hand them over",
        "templates": "not built yet",
        "presence": "not built yet",
        "recovers": "",
        "finds": "",
    }
    prefix: ClassVar[str] = "whatsapp:"
    window_hours: ClassVar[float] = 24  # free text reaches them so long after they wrote: https://www.twilio.com/docs/api/errors/63016
    max_files: ClassVar[int] = 1
    max_file_bytes: ClassVar[int] = 16_000_000  # https://www.twilio.com/docs/whatsapp/guidance-whatsapp-media-messages

    def claims(self, address: str, form: Mapping[str, str]) -> tuple[Claim, ...]:
        """The number as WhatsApp delivered it (always with its country code) and the business-scoped user id beside it.

        Somebody with a username may show no number: From then carries that id (`US.13491208655302741918`), as ExternalUserId always
        does (https://www.twilio.com/docs/whatsapp/key-concepts). Names can be changed at will and identify nobody.
        """
        found = [_claim(address)]
        for other in (form.get("ExternalUserId", "").removeprefix(self.prefix), form.get("WaId", "")):
            # WaId spells some numbers differently (Brazil); beside a number it tells nothing new.
            if other and all(claim.kind != _claim(other).kind for claim in found):
                found.append(_claim(other))
        return tuple(found)

    def check(self, message: OutboundMessage) -> None:
        """Also refuse text that would vanish: Twilio sends no caption with documents or sound (same page as the size limit)."""
        super().check(message)
        for file in message.attachments:
            if message.text and not file.content_type.startswith(("image/", "video/")):
                raise Refused(
                    f"Not sent: WhatsApp by Twilio drops text that accompanies a file like {file.name}. Send them one after the other."
                )
            if file.content_type.startswith("image/") and file.size > 5_000_000:
                raise Refused(f"Not sent: {file.name} is larger than the 5 MB WhatsApp by Twilio carries. Send a smaller picture.")


def _claim(address: str) -> Claim:
    number = _NUMBER.fullmatch(address)
    return Claim("phone", f"+{number[1]}", Proof.CHANNEL) if number else Claim("wa_user_id", address, Proof.CHANNEL)
