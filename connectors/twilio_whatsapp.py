"""WhatsApp by Twilio (https://www.twilio.com/docs/whatsapp)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlencode

from connectors.shared.retry_after import retry_after
from connectors.shared.twilio import TwilioMessaging
from connectors.shared.twilio_content import CONTENT_SID, read_templates
from hub.contract import Claim, Http, NoAnswer, NotSent, OutboundMessage, Proof, Refused, Template, TryLater

_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})")
_MESSAGE_SID = re.compile(r"(?:SM|MM)[0-9a-fA-F]{32}")


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
        "quotes": "Twilio tells which message a customer answers, but cannot send such an answer",
        "reactions": "Twilio does not hand them over",
        "edits": "Twilio does not hand them over",
        "templates": "",
        "presence": "",
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

    def check_template(self, message: OutboundMessage) -> None:
        """Raise Refused for a template Twilio cannot know, and for what a template does not carry."""
        used = message.template
        if used is None or not CONTENT_SID.fullmatch(used.id):
            raise Refused("Not sent: this is not one of Twilio's templates (their ids begin with HX). Fetch the templates again.")
        if message.attachments:
            raise Refused("Not sent: a template at Twilio brings its own file and takes no other. Send the file later.")
        for name, value in used.variables.items():
            # https://www.twilio.com/docs/api/errors/21656
            if not value.strip() or "\n" in value or "\t" in value or "    " in value:
                raise Refused(
                    f"Not sent: variable {name} of the template is empty, or has a line break, a tab or four spaces in a row, "
                    "which WhatsApp does not take. Write it in one line."
                )

    async def templates(self, http: Http) -> Sequence[Template]:
        """All templates of the account, whatever WhatsApp thinks of them. Raises TryLater or Refused."""
        if not self.settings.auth_token.get_secret_value():
            raise Refused(f"Channel {self.place.name} has no auth_token. Set it (Twilio console, Account Info).")
        return await read_templates(self.settings, http)

    async def seen(self, external_id: str, http: Http, *, typing: bool = False) -> None:
        """Show that this message was read and that an answer is being written, for up to 25 seconds (public beta:
        https://www.twilio.com/docs/whatsapp/api/typing-indicators-resource). Raises TryLater or Refused.

        Twilio has only both at once. So without `typing` nothing is sent: it would promise an answer nobody is writing."""
        if not typing:
            return
        if not _MESSAGE_SID.fullmatch(external_id):
            raise Refused("Not shown: this is not the id of a message that came by Twilio.")
        if not self.settings.auth_token.get_secret_value():
            raise Refused(f"Channel {self.place.name} has no auth_token. Set it (Twilio console, Account Info).")
        headers = {"Authorization": self.settings.authorization, "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode({"messageId": external_id, "channel": "whatsapp"}).encode()
        try:
            answer = await http.request("POST", f"{self.settings.messaging_url}/v2/Indicators/Typing.json", headers=headers, body=body)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Twilio could not be reached: {error}") from error
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise TryLater(f"Twilio answered {answer.status} to a typing indicator.", retry_after(answer.headers))
        if answer.status >= 300:
            raise Refused(f"Twilio refused a typing indicator ({answer.status}): the message is not one of WhatsApp's, or too old.")


def _claim(address: str) -> Claim:
    number = _NUMBER.fullmatch(address)
    return Claim("phone", f"+{number[1]}", Proof.CHANNEL) if number else Claim("wa_user_id", address, Proof.CHANNEL)
