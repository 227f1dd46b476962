"""Access to a mailbox without a password: OAuth 2.0 access tokens for XOAUTH2, by SMTP and IMAP alike.

Google (https://developers.google.com/identity/protocols/oauth2/web-server#offline) and Microsoft
(https://learn.microsoft.com/en-us/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth)
take no passwords of programs any more. What is kept in the configuration is a refresh token; an access token lives an hour and
is kept in memory only.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from connectors.shared.loopback import is_loopback
from hub.contract import Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

EARLY = 60.0  # seconds before its end in which a token is no longer used
LIFE = 3_600.0  # seconds a token is taken to live where the provider does not say (RFC 6749 section 5.1)
TIMEOUT = 15.0

# The addresses of the providers' own documents (see above); `{tenant}` is Microsoft's name of an organisation.
TOKEN_URLS = {
    "google": "https://oauth2.googleapis.com/token",
    "microsoft": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
}
SCOPES = {
    "google": "https://mail.google.com/",
    "microsoft": "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send offline_access",
}
APP_SCOPE = "https://outlook.office365.com/.default"  # of an application that acts as itself, without anybody's sign-in

# What the provider's `error` means (RFC 6749 section 5.2), and what to do.
_FINAL = {
    "invalid_grant": "the sign-in is no longer valid (withdrawn, expired, or the password was changed). Sign in again and put the new "
    "token into oauth.refresh_token",
    "invalid_client": "the application is not known there, or its secret is wrong or has expired. Correct oauth.client_id and "
    "oauth.client_secret",
    "unauthorized_client": "the application may not do this. Correct oauth.client_id, or allow it at the provider",
    "invalid_scope": "the permission asked for does not exist there. Correct oauth.scope, or leave it out",
    "unsupported_grant_type": "it gives no tokens this way. Correct oauth.token_url",
    "invalid_request": "it does not understand the request. Correct oauth.token_url and oauth.refresh_token",
}


class OAuthSettings(BaseModel):
    """How to get access tokens. `provider` fills in `token_url` and `scope`; `tenant` is Microsoft's alone. Without a `refresh_token`
    the application acts as itself (Microsoft's client credentials)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["google", "microsoft", ""] = ""
    tenant: str = Field(default="common", pattern=r"^[A-Za-z0-9.-]{1,100}$")
    token_url: str = ""
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")
    scope: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> OAuthSettings:
        if not self.token_url and not self.provider:
            raise ValueError("oauth.token_url: is missing. Set provider: google or microsoft, or the token_url of another one")
        parts = urlsplit(self.token_url or "https://x")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise ValueError("oauth.token_url: must begin with https://, or the secrets would go readable over the network")
        if not self.refresh_token.get_secret_value() and (self.provider == "google" or not self.client_secret.get_secret_value()):
            raise ValueError("oauth.refresh_token: is missing. Sign in once and put the token here (docs/email.md)")
        return self

    def endpoint(self) -> str:
        """Where tokens are asked for."""
        return self.token_url or TOKEN_URLS[self.provider].format(tenant=self.tenant)

    def form(self, refresh_token: str) -> dict[str, str]:
        """What is posted there (RFC 6749 sections 4.4.2 and 6)."""
        scope = self.scope or (SCOPES if refresh_token else {"microsoft": APP_SCOPE}).get(self.provider, "")
        fields = {
            "grant_type": "refresh_token" if refresh_token else "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret.get_secret_value(),
            "refresh_token": refresh_token,
            "scope": scope,
        }
        return {name: value for name, value in fields.items() if value}


class AccessTokens:
    """The access token of one mailbox, fetched when it is needed and kept in memory until a minute before it ends."""

    def __init__(self, settings: OAuthSettings) -> None:
        self._settings = settings
        self._refresh_token = settings.refresh_token  # some providers hand out a new one with each access token
        self._token = ""
        self._until = 0.0  # by the event loop's clock
        self._asking = asyncio.Lock()

    async def token(self, http: Http) -> str:
        """A token that is good for a minute at least. Raises TryLater, or Refused where somebody must sign in again."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if not self._token or now >= self._until:
                told = await self._ask(http)
                self._token = str(told["access_token"])
                self._until = now + max(_seconds(told.get("expires_in")) - EARLY, 0.0)
                if told.get("refresh_token"):
                    self._refresh_token = SecretStr(str(told["refresh_token"]))
            return self._token

    def forget(self, token: str) -> None:
        """A server turned this token down: the next one is fetched anew."""
        if token == self._token:
            self._token = ""

    async def _ask(self, http: Http) -> dict[str, Any]:
        url = self._settings.endpoint()
        host = urlsplit(url).hostname
        body = urlencode(self._settings.form(self._refresh_token.get_secret_value())).encode()
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            answer = await http.request("POST", url, headers=headers, body=body, timeout=TIMEOUT)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"{host} could not be asked for an access token ({error}). It is asked again.") from error
        return understood(answer, str(host))


def understood(answer: HttpResponse, host: str) -> dict[str, Any]:
    """The provider's answer with an `access_token` in it. Raises Refused or TryLater, in words, never with a secret in them."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    token = told.get("access_token")
    if answer.status == 200 and isinstance(token, str) and token.isascii() and token.isprintable() and token:
        return told
    code = str(told.get("error", ""))[:60]
    if code in _FINAL and 400 <= answer.status < 500:
        raise Refused(f"{host} gives no access token: {_FINAL[code]} ({code}{_detail(told)}).")
    if 400 <= answer.status < 500 and answer.status not in (408, 425, 429) and code not in ("temporarily_unavailable", "server_error"):
        raise Refused(f"{host} gives no access token (status {answer.status} {code}{_detail(told)}). Check oauth in config.yaml.")
    raise TryLater(f"{host} gives no access token now (status {answer.status} {code}). It is asked again.")


def _detail(told: dict[str, Any]) -> str:
    words = " ".join(str(told.get("error_description", "")).split())[:200]
    return f": {words}" if words else ""


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return LIFE
    return seconds if 0 <= seconds <= 30 * 86_400 else LIFE


def xoauth2(username: str, token: str) -> str:
    """What XOAUTH2 sends, before base64 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol)."""
    return f"user={username}\x01auth=Bearer {token}\x01\x01"
