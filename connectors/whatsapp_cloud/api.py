"""Meta's Graph API: calls with the channel's token, and what its answers mean.

https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes: decisions go by the code, never by the
title or the HTTP status, which Meta changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from connectors.shared.retry_after import retry_after
from connectors.whatsapp_cloud.content import MEDIA_ID, Fields, fields, items, word
from connectors.whatsapp_cloud.settings import WhatsAppCloudSettings
from connectors.whatsapp_cloud.words import clean, explain, file_name
from hub.contract import Attachment, Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater, Unknown

MAX_ANSWER = 8_000_000
MAX_MEDIA_BYTES = 100_000_000  # the largest document
SOME_SECONDS = 5.0  # until the account or the number is free again, where Meta names no time

# Meta took nothing, and may take it later. All of these hold for everybody this channel writes to …
_BUSY = frozenset({"4", "80007", "130429"})
# … and these for one customer, or while something at Meta is down.
_LATER = frozenset({"2", "131000", "131016", "131057", "133004", "134101", "135000"})
_LOGIN = frozenset({"0", "190"})

MEDIA_HOST = "lookaside.fbsbx.com"


class Graph:
    """The Graph API as one channel sees it. Its token goes to the configured host and to Meta's media store, and nowhere else."""

    def __init__(self, settings: WhatsAppCloudSettings, channel: str, http: Http) -> None:
        """Raises Refused without an access token."""
        token = settings.access_token.get_secret_value()
        if not token:
            raise Refused(f"Channel {channel} has no access_token. Set it (Meta's app, WhatsApp, API Setup), then try again.")
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {token}"}
        self._http = http

    async def post(self, path: str, body: Mapping[str, Any]) -> Fields:
        """Ask for something to be done. Raises Refused, TryLater, or Unknown where it may have been done."""
        headers = self._headers | {"Content-Type": "application/json"}
        data = json.dumps(body, ensure_ascii=False).encode()
        try:
            answer = await self._http.request("POST", self._settings.url(path), headers=headers, body=data, timeout=30.0)
        except NotSent as error:
            raise TryLater(f"Meta could not be reached: {error}") from error
        except NoAnswer as error:
            raise Unknown(f"Meta's answer was lost: {error}. It may have gone; its status will tell, if it did.") from error
        told = judge(answer)
        if not told:
            raise Unknown("Meta answered that it is done, and not what. It may have gone.")
        return told

    async def get(self, path: str, query: Mapping[str, str]) -> Fields:
        """Ask for something to be told. Raises Refused or TryLater."""
        url = f"{self._settings.url(path)}?{urlencode(query)}" if query else self._settings.url(path)
        try:
            answer = await self._http.request("GET", url, headers=self._headers, timeout=30.0, max_bytes=MAX_ANSWER)
            return judge(answer, "Not fetched")
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Meta could not be reached: {error}") from error
        except Unknown as error:
            raise TryLater(str(error)) from error

    async def media(self, reference: str) -> Attachment:
        """The file of a `media:` reference: its address is asked for, and fetched from Meta's own hosts only. Meta keeps a customer's
        file for 7 days, its address works for 5 minutes. Raises Refused or TryLater."""
        scheme, _, media_id = reference.partition(":")
        if scheme != "media" or not MEDIA_ID.fullmatch(media_id):
            raise Refused("Not fetched: this is not one of WhatsApp's files.")
        number = self._settings.phone_number_id
        told = await self.get(media_id, {"phone_number_id": number} if number else {})
        url = word(told.get("url"))
        if not self._is_media(url):
            raise Refused("Not fetched: Meta names an address for this file that is none of its own.")
        size = word(told.get("file_size"))
        if re.fullmatch(r"[0-9]{1,20}", size, re.ASCII) and int(size) > MAX_MEDIA_BYTES:
            raise Refused(f"Not fetched: the file is larger than {MAX_MEDIA_BYTES // 1_000_000} MB. Ask the customer for a link.")
        try:
            answer = await self._http.request("GET", url, headers=self._headers, timeout=60.0, max_bytes=MAX_MEDIA_BYTES)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Meta's media store could not be reached: {error}") from error
        # Its address may have run out in between: then it is asked for anew.
        if answer.status in (401, 403, 404, 408, 425, 429) or answer.status >= 500:
            raise TryLater(f"Meta's media store answered {answer.status}.", retry_after(answer.headers))
        if answer.status != 200:
            raise Refused(f"Not fetched: Meta's media store answered {answer.status}; the file may have been deleted there.")
        given = word(told.get("mime_type")) or answer.headers.get("content-type", "")
        content_type = given.partition(";")[0].strip().lower()[:100] or "application/octet-stream"
        kind = content_type.partition("/")[0]
        name = file_name(kind if kind in ("image", "audio", "video") else "document", content_type)
        return Attachment(name=name, content_type=content_type, data=answer.body, url=reference)

    def _is_media(self, url: str) -> bool:
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            return False
        try:
            parts, ours = urlsplit(url), urlsplit(self._settings.base_url)
            if "@" in parts.netloc or not parts.hostname:
                return False
            if (parts.scheme, parts.hostname, parts.port) == (ours.scheme, ours.hostname, ours.port):
                return True
            return parts.scheme == "https" and parts.hostname == MEDIA_HOST and parts.port in (None, 443)
        except ValueError:
            return False


def judge(answer: HttpResponse, undone: str = "Not sent") -> Fields:
    """What an answer tells; empty where it cannot be read. Raises Refused (which begins with what was `undone`), TryLater or Unknown.
    Pure."""
    try:
        told = fields(json.loads(answer.body))
    except (ValueError, RecursionError):
        told = {}
    error = fields(told.get("error"))
    if 200 <= answer.status < 300 and not error:
        return told
    code = word(error.get("code"))
    details = clean(fields(error.get("error_data")).get("details")) or clean(error.get("error_user_msg")) or clean(error.get("message"))
    words = explain(code, details) if code else f"Meta answered {answer.status}."
    asked = retry_after(answer.headers)
    if code == "131056":
        raise TryLater(words)  # about one customer: the others need not wait
    if code in _BUSY or answer.status == 429:
        raise TryLater(words, asked or SOME_SECONDS)
    if code in _LATER or (code and error.get("is_transient") is True):
        raise TryLater(words, asked)
    if code in _LOGIN or answer.status == 401:
        raise Refused(f"{undone}: {explain(code or '190')}")
    if answer.status == 408 or (answer.status >= 500 and code in ("", "1")):
        raise Unknown(f"{words} It may have gone; its status will tell, if it did.")
    raise Refused(f"{undone}: {words}")


def sent_id(told: Fields) -> str:
    """The id of the message Meta took. Raises Unknown where it names none."""
    found = next((word(one.get("id")) for one in items(told.get("messages"))), "")
    if not found:
        raise Unknown("Meta took the message and did not say as what. It may have gone; its status will tell, if it did.")
    return found
