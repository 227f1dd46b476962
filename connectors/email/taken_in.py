"""Mails the hub takes in by itself, from a mailbox or on a port of its own: how they pass the webhook's door.

Each is handed over as a request like those of `mime`, signed with the channel's own key: posted by anybody else, it does not verify.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from connectors.shared.machine_mail import spam_verdict
from connectors.shared.mail_auth import judge_results, told, wrote
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, read_mail, to_message
from hub.contract import ChannelSettings, Checked, Inbound, InboundMessage, Lookup, Place, Request, Verdict

SIGNATURE = "x-hub-taken-in"
FROM = "x-envelope-from"  # in angle brackets: `<>` is the null return path (RFC 5321 section 4.5.5)
TO = "x-envelope-to"  # with commas between


class TakenInSettings(EmailSettings):
    """`authserv_id` is the name a filter in front writes into Authentication-Results, having removed any that came with that name;
    without it a mail's own DKIM signature says who sent it."""

    authserv_id: str = ""


def request_of(place: Place, mail: bytes, *, envelope_from: str | None = None, envelope_to: Sequence[str] = ()) -> Request:
    """A mail as the request that hands it over. `envelope_from` is empty for a null return path, None where it is not known."""
    headers = {"content-type": "message/rfc822"}
    if envelope_from is not None:
        headers[FROM] = f"<{envelope_from}>"
    if envelope_to:
        headers[TO] = ",".join(envelope_to)
    return Request("POST", place.inbound_url, headers | {SIGNATURE: signature(place.key, headers, mail)}, mail)


def signature(key: bytes, headers: dict[str, str], mail: bytes) -> str:
    """What only the hub itself can write over a mail and its envelope."""
    said = [b"taken in", headers.get(FROM, "").encode(), headers.get(TO, "").encode(), hashlib.sha256(mail).digest()]
    return hmac.new(key, b"\0".join(said), hashlib.sha256).hexdigest()


class TakenInEmail(MailChannel):
    """A mailbox whose mails the hub fetches or receives itself."""

    Settings: ClassVar[type[ChannelSettings]] = TakenInSettings
    settings: TakenInSettings

    def verify(self, request: Request, now: float) -> Verdict:
        """Whether this process handed it over; what comes from outside never did."""
        given = request.headers.get(SIGNATURE, "")
        if not given:
            return Verdict.UNSIGNED
        expected = signature(self.place.key, dict(request.headers), request.body)
        return Verdict.GOOD if hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()) else Verdict.BAD

    def parse(self, request: Request) -> Sequence[Inbound]:
        """One mail with its envelope. Raises Unparseable."""
        headers, body = read_mail(request.body)
        verdicts = headers.all("authentication-results")
        judgement = judge_results(from_address(headers).rpartition("@")[2], verdicts, self.settings.authserv_id)
        message = to_message(
            headers,
            body,
            judgement,
            mailbox=self.settings,
            envelope_to=[address for address in request.headers.get(TO, "").split(",") if address],
            null_return_path=request.headers.get(FROM, "") == "<>",
            unjudged=not told(verdicts, self.settings.authserv_id),
        )
        # What a filter wrote is believed of the server that is believed, where it says that it saw the mail.
        return [replace(message, spam=spam_verdict(headers)) if wrote(verdicts, self.settings.authserv_id) else message]

    def what_is_checked(self) -> str:
        """Which mails are checked by their own signature, for the administrator."""
        if not self.settings.authserv_id:
            return "every signed mail: no authserv_id is set, so no server's verdict is believed"
        return f"signed mails without a verdict of {self.settings.authserv_id}"

    async def check(self, request: Request, received: float, lookup: Lookup) -> Sequence[Checked]:
        """Check the mail's own DKIM signature. Raises Unparseable or TryLater."""
        return [
            await check_sender(said, request.body, received, lookup)
            for said in await asyncio.to_thread(self.parse, request)
            if isinstance(said, InboundMessage)
        ]
