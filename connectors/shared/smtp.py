"""A mail out: building its bytes and handing them to an SMTP server.

Header lines are written here, not by `email.message`: several CPython versions in use let a line break inside an encoded
word or an address become a header of its own (CVE-2024-6923, CVE-2026-1299). The MIME body below them is the library's.
"""

from __future__ import annotations

import asyncio
import html
import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING

from connectors.shared.mail_headers import address_spec, ascii_domain, message_ids
from connectors.shared.mail_settings import FORBIDDEN, PORTS, EmailSettings, SmtpSettings
from connectors.shared.mime import media_type, safe_name
from connectors.shared.oauth import AccessTokens
from hub.contract import Http, OutboundAttachment, OutboundMessage, Refused, Sent, TryLater, Unknown

if TYPE_CHECKING:
    from aiosmtplib import SMTP

TIMEOUT = 30.0  # seconds for a connection or one command
DATA_TIMEOUT = 120.0  # seconds a server may think about a whole mail (RFC 5321 section 4.5.3.2.6 allows it 600)
IDLE = 60.0  # seconds a connection is kept for the next mail
MOST = 4  # connections a channel has at a time
MAX_REFERENCES = 20
CRLF = "\r\n"

# No "=": what looks like an encoded word must be encoded, or it is decoded on arrival.
_PLAIN_WORDS = re.compile(r"[A-Za-z0-9 !#$%&'*+/^_`{|}~,;:@()\[\].?-]{0,70}")
_TOKEN = re.compile(r"[A-Za-z0-9._=-]{1,200}")
_CONTENT_ID = re.compile(r"[A-Za-z0-9._+@-]{1,200}")
_CLOSING = 421  # the server ends the connection (RFC 5321 section 3.8)
_POLICY = policy.SMTP.clone(cte_type="7bit")  # no server is asked for 8BITMIME


def _checked(what: str, value: str) -> str:
    """The value, if nothing in it could end or start a header line. Raises Refused."""
    if any(unicodedata.category(char) in FORBIDDEN for char in value):
        raise Refused(f"The mail was not sent: its {what} contains a line break or a control character. Remove it and send again.")
    return value


def _words(value: str, header: str) -> str:
    """Free text for a header: as it is when plain and short, else as encoded words, folded (RFC 2047)."""
    if _PLAIN_WORDS.fullmatch(value) and value == value.strip():
        return value
    return Header(value, charset="utf-8", header_name=header, maxlinelen=75).encode(linesep=CRLF)


def _mailbox(name: str, address: str) -> str:
    """`"Name" <address>`; the name as a quoted string, or as encoded words when it is long or not plain ASCII."""
    if not name:
        return address
    if name.isascii() and len(name) <= 60 and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{address}>'
    return f"{Header(name, charset='utf-8', header_name='From', maxlinelen=75).encode(linesep=CRLF)}{CRLF} <{address}>"


def recipient(address: str) -> str:
    """The address in the form SMTP carries without SMTPUTF8: an international domain in its ASCII form. Raises Refused."""
    spec = address_spec(address)
    local, _, domain = (spec or "").rpartition("@")
    encoded = ascii_domain(domain)
    if not local.isascii() or not local or not encoded:
        raise Refused(f"The mail was not sent: {address[:200]!r} is not an address a mail can be sent to. Correct it and send again.")
    return f"{local}@{encoded}"


def reply_address(address: str, token: str) -> str:
    """`local+TOKEN@domain`: where an answer to this mail finds its ticket. Raises Refused."""
    if not _TOKEN.fullmatch(token):
        raise Refused("The mail was not sent: its reply token is not one a mail address can carry. Please report this.")
    local, _, domain = address.rpartition("@")
    return f"{local}+{token}@{domain}"


def _html_of(text: str) -> str:
    return html.escape(text).replace("\r\n", "\n").replace("\n", "<br>\n")


def build(message: OutboundMessage, settings: EmailSettings) -> bytes:
    """The whole mail as bytes with CRLF lines: text and the same text as simple HTML, the quoted question, attachments.

    Auto-Submitted only where a machine wrote it (RFC 3834 section 5). Raises Refused when a header cannot be written safely.
    """
    subject = _checked("subject", message.subject)
    name = _checked("sender name", settings.sender_name or message.sender_name)
    to = recipient(_checked("recipient", message.to))
    copies = [recipient(_checked("copy", address)) for address in message.cc]
    ids = {"Message-ID": (message.message_id,), "In-Reply-To": (message.in_reply_to,), "References": message.references}
    for header, values in ids.items():
        for value in filter(None, values):
            if message_ids(value) != (value,):
                raise Refused(f"The mail was not sent: {value[:80]!r} is not a message id ({header}). Please report this.")
    references = message.references
    if len(references) > MAX_REFERENCES:  # the first and the latest keep a thread together (RFC 5322 section 3.6.4)
        references = (references[0], *references[-(MAX_REFERENCES - 1) :])
    lines = [
        ("From", _mailbox(name, settings.address)),
        ("To", to),
        ("Cc", ",\r\n ".join(copies)),
        ("Subject", _words(subject, "Subject")),
        ("Date", formatdate()),
        ("Message-ID", message.message_id),
        ("Auto-Submitted", "auto-generated" if message.automatic else ""),
        ("Reply-To", reply_address(settings.address, message.reply_token) if message.reply_token else ""),
        ("In-Reply-To", message.in_reply_to),
        ("References", "\r\n ".join(references)),
    ]
    head = "".join(f"{header}: {value}\r\n" for header, value in lines if value)
    return head.encode("ascii") + _body(message).as_bytes(policy=_POLICY)


def _body(message: OutboundMessage) -> EmailMessage:
    """Text and HTML as alternatives, within `related` where images stand in the HTML, within `mixed` where files come along."""
    text = _sendable(message.text)
    quoted = _sendable(message.quoted).strip("\n")
    plain, rich = text, f"<div>{_html_of(text)}</div>"
    if quoted:
        plain += "\n\n" + "".join(f"> {line}".rstrip() + "\n" for line in quoted.split("\n"))
        rich += f"\n<br>\n<blockquote>{_html_of(quoted)}</blockquote>"
    if message.html:
        rich = _sendable(message.html)
    shown = [one for one in message.attachments if stands_within(one, message.html)]
    body = alternatives = EmailMessage(policy=_POLICY)
    alternatives.set_content(plain)
    alternatives.add_alternative(rich, subtype="html")
    if shown:
        del alternatives["MIME-Version"]  # the whole mail's, and it is a part of that now
        body = _related(alternatives, shown)
    for attachment in message.attachments:
        if attachment not in shown:
            maintype, subtype, name = _described(attachment)
            body.add_attachment(attachment.read(), maintype=maintype, subtype=subtype, filename=name)
    return body


def stands_within(attachment: OutboundAttachment, rich: str) -> bool:
    """Whether a file is an image that the HTML of its mail shows; any other is one to download."""
    known = attachment.content_type.lower().startswith("image/") and _CONTENT_ID.fullmatch(attachment.content_id)
    return bool(known) and re.search(rf"[\"']cid:{re.escape(attachment.content_id)}[\"']", rich) is not None


def _related(alternatives: EmailMessage, shown: Sequence[OutboundAttachment]) -> EmailMessage:
    body = EmailMessage(policy=_POLICY)
    body["MIME-Version"] = "1.0"
    body.make_related()
    body.set_param("type", "multipart/alternative")  # RFC 2387 section 3.1
    body.attach(alternatives)
    for image in shown:
        maintype, subtype, name = _described(image)
        cid = f"<{image.content_id}>"
        body.add_related(image.read(), maintype=maintype, subtype=subtype, filename=name, cid=cid, disposition="inline")
    return body


def _described(attachment: OutboundAttachment) -> tuple[str, str, str]:
    """The media type and the name a file goes out under."""
    maintype, _, subtype = media_type(attachment.content_type).partition("/")
    if maintype in ("multipart", "message"):  # would be read as part of this mail's own structure
        maintype, subtype = "application", "octet-stream"
    return maintype, subtype, safe_name(_sendable(attachment.name)) or "attachment"


def _sendable(text: str) -> str:
    """Text without what no mail can carry: NUL, lone surrogates, and line breaks of other systems."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


async def send_mail(message: OutboundMessage, settings: EmailSettings) -> Sent:
    """Send one mail over a connection of its own. Raises Refused, TryLater or Unknown."""
    pool = SmtpPool(settings)
    try:
        return await pool.send(message)
    finally:
        await pool.close()


class _HungUp(Exception):
    """The server left a kept connection before the mail began: nothing went."""


class SmtpPool:
    """One channel's connections to its mail server, at most MOST, kept open after a mail for the next one."""

    def __init__(self, settings: EmailSettings, tokens: AccessTokens | None = None, *, idle: float = IDLE) -> None:
        self._settings = settings
        self._tokens = tokens
        self._idle_seconds = idle
        self._idle: dict[SMTP, asyncio.TimerHandle] = {}  # the one used last stands last
        self._leaving: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(MOST)
        self._closed = False

    async def send(self, message: OutboundMessage, http: Http | None = None) -> Sent:
        """Build the mail and hand it to the server. `http` is for access tokens, where the channel has `oauth`.

        Raises Refused, TryLater, or Unknown when the answer to DATA was lost.
        """
        smtp = self._settings.smtp
        if smtp is None:
            raise Refused("The mail was not sent: no mail server is set for this channel. Set `smtp` in config.yaml and send again.")
        raw = await asyncio.to_thread(build, message, self._settings)
        recipients = [recipient(address) for address in (message.to, *message.cc)]
        async with self._places:
            while (client := self._take()) is not None:
                try:
                    await self._hand_over(client, smtp, recipients, raw, kept=True)
                    break
                except _HungUp:
                    continue  # the next kept one may be as old; in the end a new one is made
            else:
                client = await self._connect(smtp, http)
                await self._hand_over(client, smtp, recipients, raw, kept=False)
        return Sent(provider_message_id=message.message_id)

    async def close(self) -> None:
        """Say goodbye on every kept connection; later mails get one of their own."""
        self._closed = True
        while (client := self._take()) is not None:
            self._dismiss(client)
        if self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)

    def _take(self) -> SMTP | None:
        while self._idle:
            client, timer = self._idle.popitem()
            timer.cancel()
            if client.is_connected:
                return client
            client.close()
        return None

    def _keep(self, client: SMTP) -> None:
        if self._closed or not client.is_connected:
            self._dismiss(client)
        else:
            self._idle[client] = asyncio.get_running_loop().call_later(self._idle_seconds, self._expire, client)

    def _expire(self, client: SMTP) -> None:
        if self._idle.pop(client, None) is not None:
            self._dismiss(client)

    def _dismiss(self, client: SMTP) -> None:
        task = asyncio.create_task(_leave(client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _connect(self, smtp: SmtpSettings, http: Http | None) -> SMTP:
        """A new connection, encrypted and logged in as the settings say."""
        import aiosmtplib

        password = smtp.password.get_secret_value()
        tokens = self._tokens if not password else None
        username = smtp.username or (self._settings.address if tokens is not None else "")
        for attempt in (1, 2):
            token = ""
            if tokens is not None:
                if http is None:
                    raise Refused("The mail was not sent: there is no way to ask for an access token. Please report this.")
                token = await tokens.token(http)
            client = aiosmtplib.SMTP(
                hostname=smtp.host,
                port=smtp.port or PORTS[smtp.security],
                username=username or None,
                password=password or None,
                oauth_token_generator=_given(token) if token else None,
                use_tls=smtp.security == "tls",
                start_tls=smtp.security == "starttls",
                timeout=TIMEOUT,
                local_hostname=self._settings.address.rpartition("@")[2],  # else the library asks DNS who we are
            )
            try:
                await client.connect()
            except BaseException as error:
                client.close()
                if tokens is not None and isinstance(error, aiosmtplib.SMTPAuthenticationError):
                    tokens.forget(token)
                    if attempt == 1:
                        continue  # the provider may have ended the token before its time
                failed = _failed(error, smtp, data_begun=False, by_token=tokens is not None)
                if failed is error:
                    raise
                raise failed from error
            return client
        raise AssertionError("the second attempt returned or raised")

    async def _hand_over(self, client: SMTP, smtp: SmtpSettings, recipients: Sequence[str], raw: bytes, *, kept: bool) -> None:
        """One mail over a connection, which is kept for the next one if all went well. Raises _HungUp only where it was `kept`."""
        import aiosmtplib

        data_begun = done = False
        try:
            options = [f"size={len(raw)}"] if client.supports_extension("size") else []
            await client.mail(self._settings.address, options=options)
            for address in recipients:
                await client.rcpt(address)
            data_begun = True
            await client.data(raw, timeout=DATA_TIMEOUT)
            done = True
        except Exception as error:
            left = isinstance(error, (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError))
            left = left or (isinstance(error, aiosmtplib.SMTPResponseException) and error.code == _CLOSING)
            if kept and left and not data_begun:
                raise _HungUp from error
            failed = _failed(error, smtp, data_begun=data_begun)
            if failed is error:
                raise
            raise failed from error
        finally:
            if done:
                self._keep(client)
            else:
                await _leave(client)


def _given(token: str) -> Callable[[], Awaitable[str]]:
    async def give() -> str:
        return token

    return give


def _failed(error: BaseException, smtp: SmtpSettings, *, data_begun: bool, by_token: bool = False) -> BaseException:
    """What a failure to connect or to hand a mail over means: Refused, TryLater or Unknown; anything unforeseen as it is."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPConnectError):
        return TryLater(f"The mail server {smtp.host} cannot be reached: {error}. The mail is kept and tried again.")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        authenticating = isinstance(error, aiosmtplib.SMTPAuthenticationError)
        return _answered(error.code, error.message, authenticating=authenticating, data_begun=data_begun, by_token=by_token)
    if isinstance(error, (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError)):
        if data_begun:
            return Unknown("The connection to the mail server was lost before it confirmed the mail: it may or may not have gone.")
        return TryLater(f"The connection to the mail server {smtp.host} was lost: {error}. The mail is kept and tried again.")
    if isinstance(error, aiosmtplib.SMTPException):
        return Refused(f"The mail was not sent: {error.message} Check smtp.security and smtp.username of this channel.")
    return error


def _answered(code: int, text: str, *, authenticating: bool, data_begun: bool, by_token: bool = False) -> Exception:
    """What an SMTP answer other than success means: 4yz try again, 5yz never (RFC 5321 section 4.2.1)."""
    words = f"{code} {' '.join(text.split())[:300]}"
    if 500 <= code < 600:
        if authenticating and by_token:
            return Refused(
                f"The mail was not sent: the mail server refused our access token ({words}). Check smtp.username, and sign in again with "
                "the permission to send for oauth.refresh_token."
            )
        if authenticating:
            return Refused(f"The mail was not sent: the mail server refused our login ({words}). Check smtp.username and smtp.password.")
        return Refused(f"The mail was not sent: the mail server refused it ({words}).")
    if 400 <= code < 500:
        return TryLater(f"The mail server asks to try later ({words}).")
    if data_begun:
        return Unknown(f"The mail server's answer to the mail cannot be understood ({words}): it may or may not have gone.")
    return TryLater(f"The mail server's answer cannot be understood ({words}). The mail is kept and tried again.")


async def _leave(client: SMTP) -> None:
    """Say goodbye; whatever comes of that changes nothing about the mail."""
    import aiosmtplib

    try:
        if client.is_connected:
            await client.quit(timeout=5)
    except (aiosmtplib.SMTPException, OSError):
        pass
    finally:
        client.close()
