"""Files people sent, fetched from Twilio (https://www.twilio.com/docs/messaging/api/media-resource)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.message import Message as Headers
from urllib.parse import urljoin, urlsplit

from connectors.shared.media_names import media_name
from connectors.shared.retry_after import retry_after
from connectors.shared.twilio_settings import TwilioSettings
from hub.contract import Attachment, Http, HttpResponse, NoAnswer, NotSent, Refused, TryLater

MAX_MEDIA_BYTES = 20_000_000  # Twilio takes up to 16 MB (WhatsApp) and 5 MB (MMS)
_MEDIA_PATH = re.compile(r"/Media/[A-Za-z0-9]+$")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def fetch_media(settings: TwilioSettings, url: str, http: Http) -> Attachment:
    """Fetch a media file of up to 20 MB. Raises Refused (for a foreign host before any connection) or TryLater.

    Our credentials go only to Twilio's hosts (or the configured base_url) and there only to media: a forged webhook must not
    make us fetch, say, the account resource, which contains the auth token. Twilio redirects to a short-lived address at its
    CDN, which is followed once and without credentials.
    """
    if not _is_twilio_media(settings, url):
        raise Refused(f"Not fetched: {host(url)} is not a Twilio media address.")
    answer = await _get(url, http, {"authorization": settings.authorization})
    if answer.status in _REDIRECTS:
        target = _joined(url, answer.headers.get("location", ""))
        if not _is_media_store(settings, target):
            raise Refused(f"Not fetched: Twilio redirects to {host(target)}, which is not one of its media stores.")
        answer = await _get(target, http, {})
    if answer.status != 200:
        raise Refused(f"Not fetched: Twilio answered {answer.status} for this file; it may have been deleted there.")
    if len(answer.body) > MAX_MEDIA_BYTES:
        raise Refused(f"Not fetched: the file is larger than {MAX_MEDIA_BYTES // 1_000_000} MB.")
    content_type = answer.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    name = disposition_name(answer.headers.get("content-disposition", "")) or media_name(content_type, 1)
    return Attachment(name=name, content_type=content_type, data=answer.body, url=url)


def _is_twilio_media(settings: TwilioSettings, url: str) -> bool:
    if not is_plain(url):
        return False
    scheme, hostname, port = found = origin(url)
    ours = found == origin(settings.base_url)
    if ours and settings.sandbox:
        return True
    trusted = ours or (scheme == "https" and port == 443 and hostname.endswith(".twilio.com"))
    return trusted and bool(_MEDIA_PATH.search(urlsplit(url).path))


def _is_media_store(settings: TwilioSettings, url: str) -> bool:
    if not is_plain(url):
        return False
    scheme, hostname, port = found = origin(url)
    if found == origin(settings.base_url):
        return True
    return scheme == "https" and port == 443 and hostname.endswith((".twiliocdn.com", ".amazonaws.com"))


def is_plain(url: str) -> bool:
    """Whether every client reads this URL alike: no credentials, no spaces, backslashes or non-ASCII, a port that is a number."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and "@" not in parts.netloc and (parts.port or 1) > 0
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL that `is_plain`."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def host(url: str) -> str:
    """The host a URL names, for people to read."""
    return (urlsplit(url).hostname if is_plain(url) else "") or "the address"


def disposition_name(header: str) -> str:
    """The file name of a Content-Disposition header (RFC 6266), without any path or control character."""
    headers = Headers()
    headers["content-disposition"] = header
    try:
        name = headers.get_filename("") if header else ""
    except (LookupError, ValueError, UnicodeError):
        return ""
    return "".join(c for c in re.split(r"[/\\]", name)[-1] if c.isprintable()).strip(". ")[:120]


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


async def _get(url: str, http: Http, headers: Mapping[str, str]) -> HttpResponse:
    try:
        answer = await http.request("GET", url, headers=headers, timeout=30.0, max_bytes=MAX_MEDIA_BYTES)
    except (NotSent, NoAnswer) as error:
        raise TryLater(f"Twilio's media store could not be reached: {error}") from error
    if answer.status in (401, 403):
        raise Refused(f"Not fetched: Twilio answered {answer.status}. Check account_sid and auth_token in this channel's settings.")
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise TryLater(f"Twilio answered {answer.status} for a media file.", retry_after(answer.headers))
    return answer
