"""What a WhatsApp Cloud API channel is configured with, and which hosts its access token may go to."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import ConfigDict, SecretStr, field_validator

from connectors.shared.loopback import is_loopback, is_loopback_url
from hub.contract import ChannelSettings

GRAPH = "https://graph.facebook.com"
# Versions live for two years: https://developers.facebook.com/docs/graph-api/changelog
VERSION = "v25.0"


class WhatsAppCloudSettings(ChannelSettings):
    """Where to find these: https://developers.facebook.com/apps, the app, WhatsApp, API Setup (the two ids and the token); App settings,
    Basic (the app secret). `verify_token` is a word of your own, typed there beside the webhook's address.

    `address` is the number as customers see it, for display. Without `phone_number_id` nothing can be sent, and what came to any number
    of the app is taken: that is for looking at recorded webhooks.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # a misspelt access_token must not be printed by its own error message

    phone_number_id: str = ""
    waba_id: str = ""  # the WhatsApp business account, for its templates
    access_token: SecretStr = SecretStr("")
    app_secret: SecretStr = SecretStr("")
    verify_token: SecretStr = SecretStr("")
    api_version: str = VERSION
    base_url: str = GRAPH  # a stand-in on loopback for the sandbox and the tests

    @field_validator("phone_number_id", "waba_id")
    @classmethod
    def check_id(cls, value: str) -> str:
        if value and not re.fullmatch(r"[0-9]{1,30}", value):
            raise ValueError("this is an id of Meta's, digits only, and not the phone number itself (WhatsApp, API Setup)")
        return value

    @field_validator("api_version")
    @classmethod
    def check_version(cls, value: str) -> str:
        if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]", value):
            raise ValueError(f"api_version looks like {VERSION}")
        return value

    @field_validator("base_url")
    @classmethod
    def check_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(
                f"base_url must be https:// (or http:// on loopback), since the access token is sent there; the default is {GRAPH}"
            )
        return value.rstrip("/")

    @property
    def sandbox(self) -> bool:
        """Whether it speaks to a stand-in on loopback."""
        return is_loopback_url(self.base_url)

    def url(self, path: str) -> str:
        """The address of something in the Graph API."""
        return f"{self.base_url}/{self.api_version}/{path}"
