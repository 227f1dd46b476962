"""The settings of a mail channel: what customers write to, whom it believes, and the server answers leave by."""

from __future__ import annotations

import unicodedata
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.shared.loopback import is_loopback
from connectors.shared.mail_headers import address_spec
from connectors.shared.oauth import OAuthSettings
from hub.contract import ChannelSettings

PORTS = {"starttls": 587, "tls": 465, "none": 25}
FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # categories of characters no header has: controls, lone surrogates, line separators


class SmtpSettings(BaseModel):
    """The mail server answers leave by. `security`: starttls (587), tls (465), none (25, for a relay on your own network)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    username: str = ""
    password: SecretStr = SecretStr("")
    security: Literal["starttls", "tls", "none"] = "starttls"

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> SmtpSettings:
        if self.security == "none" and self.password.get_secret_value() and not self.is_loopback():
            raise ValueError("security: none would send the password readable over the network; use starttls or tls")
        return self

    def is_loopback(self) -> bool:
        """Whether the server is this machine."""
        return is_loopback(self.host)

    def is_stand_in(self) -> bool:
        """Whether the server is a sandbox's: on this machine, and not on a port where a real one listens (a Postfix beside the hub)."""
        return self.is_loopback() and (self.port or PORTS[self.security]) not in PORTS.values()


class EmailSettings(ChannelSettings):
    """What every mail channel needs: the mailbox customers write to, how it signs, whom it believes, and the server out.

    `trusted_forwarders`: own groups and lists (an address or a whole domain) that send customers' mails on under their own name; the
    sender is X-Original-From or Reply-To then, and the List-Id says nothing. `form_senders`: a contact form's mailer; each Reply-To is a
    customer of its own, asserted. Both count only where the mail itself is authenticated.
    """

    sender_name: str = ""
    footer: str = ""  # under every answer, after a line of two hyphens
    trusted_forwarders: tuple[str, ...] = ()
    form_senders: tuple[str, ...] = ()
    smtp: SmtpSettings | None = None
    oauth: OAuthSettings | None = None  # instead of a password, by SMTP and IMAP (XOAUTH2)

    by_api: ClassVar[str] = ""  # the setting with the key of the provider's own way out, which then needs no `smtp`

    @model_validator(mode="after")
    def _has_a_way_out(self) -> EmailSettings:
        if self.smtp is None and not (self.by_api and getattr(self, self.by_api).get_secret_value()):
            other = f" (or {self.by_api}, to answer by the provider's API)" if self.by_api else ""
            raise ValueError(f"smtp: is missing. Name the mail server answers leave by{other}")
        return self

    @model_validator(mode="after")
    def _no_token_in_clear(self) -> EmailSettings:
        if self.oauth is not None and self.smtp is not None and self.smtp.security == "none" and not self.smtp.is_loopback():
            raise ValueError("smtp.security: none would send the access token of oauth readable over the network; use starttls or tls")
        return self

    def is_stand_in(self) -> bool:
        """Whether answers leave by a sandbox's mail server."""
        return self.smtp is not None and self.smtp.is_stand_in()

    @field_validator("address")
    @classmethod
    def _is_mailbox(cls, value: str) -> str:
        if address_spec(value) is None or not value.isascii() or value.startswith('"'):
            raise ValueError(f"address: {value!r} is not a mailbox such as support@shop.example")
        return value

    @field_validator("sender_name")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        if any(unicodedata.category(char) in FORBIDDEN for char in value):
            raise ValueError("sender_name: must be one line without control characters")
        return value
