"""What a Twilio channel is configured with, and which of Twilio's hosts its credentials may go to."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from pydantic import ConfigDict, SecretStr, field_validator, model_validator

from connectors.shared.loopback import is_loopback, is_loopback_url
from connectors.shared.twilio_sdk import API
from hub.contract import ChannelSettings

CONTENT_API = "https://content.twilio.com"
MESSAGING_API = "https://messaging.twilio.com"


class TwilioSettings(ChannelSettings):
    """Where to find these: https://console.twilio.com, Account Info."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a misspelt auth_token must not be printed by its own error message

    account_sid: str
    auth_token: SecretStr = SecretStr("")
    messaging_service_sid: str = ""  # send through this Messaging Service instead of from `address`
    base_url: str = API  # a stand-in on loopback for the sandbox and the tests
    content_base_url: str = ""  # templates; empty: Twilio's own host, or `base_url` where that is a stand-in
    messaging_base_url: str = ""  # typing indicators; the same

    @field_validator("base_url", "content_base_url", "messaging_base_url")
    @classmethod
    def check_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)))):
            raise ValueError(
                f"base_url must be https:// (or http:// on loopback), since the auth token is sent there; the default is {API}"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def check_sender(self) -> TwilioSettings:
        if not self.base_url:
            raise ValueError(f"base_url is empty; leave it out, or set it to {API}")
        if not (self.address or self.messaging_service_sid):
            raise ValueError("set address (the Twilio number customers write to, like +15551230000) or messaging_service_sid (MG...)")
        return self

    @property
    def sandbox(self) -> bool:
        """Whether it speaks to a stand-in on loopback."""
        return is_loopback_url(self.base_url)

    @property
    def content_url(self) -> str:
        """Where templates are asked for."""
        return self.content_base_url or (self.base_url if self.sandbox else CONTENT_API)

    @property
    def messaging_url(self) -> str:
        """Where typing indicators are sent."""
        return self.messaging_base_url or (self.base_url if self.sandbox else MESSAGING_API)

    @property
    def authorization(self) -> str:
        """The Authorization header of Twilio's APIs. Never to be logged."""
        login = f"{self.account_sid}:{self.auth_token.get_secret_value()}".encode()
        return f"Basic {base64.b64encode(login).decode()}"
