"""Whole mails posted by your own mail server: a `message/rfc822` body with basic auth (from a Postfix pipe, say):

curl --fail --user hub:SECRET --header 'Content-Type: message/rfc822' --data-binary @- https://hub.example/in/mail
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import SecretStr, field_validator

from connectors.email import basic_verdict
from connectors.shared.machine_mail import spam_verdict
from connectors.shared.mail_auth import judge_results, told, wrote
from connectors.shared.mail_channel import MailChannel
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import check_sender, from_address, read_mail, to_message
from hub.contract import (
    ChannelSettings,
    Checked,
    Inbound,
    InboundMessage,
    Lookup,
    Request,
    Unparseable,
    Verdict,
)


class RawEmailSettings(EmailSettings):
    """`username` and `password` are what your server sends; `authserv_id` is the name it writes into Authentication-Results."""

    username: str = "hub"
    password: SecretStr = SecretStr("")
    authserv_id: str = ""

    @field_validator("username")
    @classmethod
    def _no_colon(cls, value: str) -> str:
        if ":" in value:  # RFC 7617 section 2: everything after the first colon is the password
            raise ValueError("username: must not contain a colon")
        return value


class RawEmail(MailChannel):
    """A mailbox whose mails your own server posts whole."""

    Settings: ClassVar[type[ChannelSettings]] = RawEmailSettings
    settings: RawEmailSettings

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the basic credentials; without a configured password nothing is accepted."""
        password = self.settings.password.get_secret_value()
        if not password:
            return Verdict.NO_KEY
        return basic_verdict(request.headers.get("authorization", ""), f"{self.settings.username}:{password}")

    def parse(self, request: Request) -> Sequence[Inbound]:
        """One mail, whatever the content type says: `curl` alone would call it a form. Raises Unparseable."""
        headers, body = read_mail(request.body)
        if not headers:
            raise Unparseable("this is no mail: it has no headers")
        verdicts = headers.all("authentication-results")
        judgement = judge_results(from_address(headers).rpartition("@")[2], verdicts, self.settings.authserv_id)
        unjudged = not told(verdicts, self.settings.authserv_id)
        message = to_message(headers, body, judgement, mailbox=self.settings, unjudged=unjudged)
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
