"""Whole mails posted by your own mail server: a `message/rfc822` body with basic auth (from a Postfix pipe, say):

curl --fail --user hub:SECRET --header 'Content-Type: message/rfc822' --data-binary @- https://hub.example/in/mail
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import SecretStr, field_validator

from connectors.email import basic_verdict
from connectors.shared.mail_auth import judge_results
from connectors.shared.mime import read_mail, senders, to_message
from connectors.shared.smtp import EmailSettings, send_mail
from hub.contract import Answers, Attachment, Http, Inbound, OutboundMessage, Place, Refused, Request, Sent, Verdict


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


class RawEmail:
    """A mailbox whose mails your own server posts whole."""

    Settings = RawEmailSettings
    label: ClassVar[str] = "E-mail"
    icon: ClassVar[str] = "mail"
    reaches: ClassVar[tuple[str, ...]] = ("email",)
    answers: ClassVar[Answers] = Answers(bad_signature=401)
    idempotent: ClassVar[bool] = False
    max_text: ClassVar[int] = 200_000
    live: ClassVar[bool] = True

    def __init__(self, settings: RawEmailSettings, place: Place) -> None:
        self._settings = settings

    def verify(self, request: Request, now: float) -> Verdict:
        """Judge the basic credentials; without a configured password nothing is accepted."""
        password = self._settings.password.get_secret_value()
        if not password:
            return Verdict.NO_KEY
        return basic_verdict(request.headers.get("authorization", ""), f"{self._settings.username}:{password}")

    def parse(self, request: Request) -> Sequence[Inbound]:
        """One mail, whatever the content type says: `curl` alone would call it a form. Raises Unparseable."""
        headers, body = read_mail(request.body)
        sender, _ = senders(headers)
        judgement = judge_results(sender.domain, headers.all("authentication-results"), self._settings.authserv_id)
        return [to_message(headers, body, judgement, address=self._settings.address)]

    async def send(self, message: OutboundMessage, http: Http) -> Sent:
        """Send by SMTP. Raises Refused, TryLater or Unknown."""
        return await send_mail(message, self._settings)

    async def fetch(self, url: str, http: Http) -> Attachment:
        """A mail brings its attachments along, so there is nothing to fetch. Raises Refused."""
        raise Refused("A mail's attachments arrive with the mail; there is no address to fetch them from.")

    def is_sandbox(self) -> bool:
        """Whether answers leave by a stand-in on this machine."""
        return self._settings.smtp.is_stand_in()
