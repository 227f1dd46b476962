"""A mail out: building its bytes and handing them to an SMTP server.

Header lines are written here, not by `email.message`: several CPython versions in use let a line break inside an encoded
word or an address become a header of its own (CVE-2024-6923, CVE-2026-1299). The MIME body below them is the library's.
"""

from __future__ import annotations

import asyncio
import html
import re
import unicodedata
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING

from connectors.shared.mail_headers import address_spec, ascii_domain, message_ids
from connectors.shared.mail_settings import FORBIDDEN, PORTS, EmailSettings
from connectors.shared.mime import media_type, safe_name
from hub.contract import OutboundMessage, Refused, Sent, TryLater, Unknown

if TYPE_CHECKING:
    from aiosmtplib import SMTP

TIMEOUT = 30.0  # seconds for a connection or one command
DATA_TIMEOUT = 120.0  # seconds a server may think about a whole mail (RFC 5321 section 4.5.3.2.6 allows it 600)
MAX_REFERENCES = 20
CRLF = "\r\n"

# No "=": what looks like an encoded word must be encoded, or it is decoded on arrival.
_PLAIN_WORDS = re.compile(r"[A-Za-z0-9 !#$%&'*+/^_`{|}~,;:@()\[\].?-]{0,70}")
_TOKEN = re.compile(r"[A-Za-z0-9._=-]{1,200}")
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
    text = _sendable(message.text)
    quoted = _sendable(message.quoted).strip("\n")
    plain, rich = text, f"<div>{_html_of(text)}</div>"
    if quoted:
        plain += "\n\n" + "".join(f"> {line}".rstrip() + "\n" for line in quoted.split("\n"))
        rich += f"\n<br>\n<blockquote>{_html_of(quoted)}</blockquote>"
    body = EmailMessage(policy=_POLICY)
    body.set_content(plain)
    body.add_alternative(rich, subtype="html")
    for attachment in message.attachments:
        maintype, _, subtype = media_type(attachment.content_type).partition("/")
        if maintype in ("multipart", "message"):  # would be read as part of this mail's own structure
            maintype, subtype = "application", "octet-stream"
        name = safe_name(_sendable(attachment.name)) or "attachment"
        body.add_attachment(attachment.read(), maintype=maintype, subtype=subtype, filename=name)
    return body


def _sendable(text: str) -> str:
    """Text without what no mail can carry: NUL, lone surrogates, and line breaks of other systems."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


async def send_mail(message: OutboundMessage, settings: EmailSettings) -> Sent:
    """Build the mail and hand it to the SMTP server. Raises Refused, TryLater, or Unknown when the answer to DATA was lost."""
    import aiosmtplib

    raw = await asyncio.to_thread(build, message, settings)
    smtp = settings.smtp
    if smtp is None:
        raise Refused("The mail was not sent: no mail server is set for this channel. Set `smtp` in config.yaml and send again.")
    client = aiosmtplib.SMTP(
        hostname=smtp.host,
        port=smtp.port or PORTS[smtp.security],
        username=smtp.username or None,
        password=smtp.password.get_secret_value() or None,
        use_tls=smtp.security == "tls",
        start_tls=smtp.security == "starttls",
        timeout=TIMEOUT,
        local_hostname=settings.address.rpartition("@")[2],  # else the library asks DNS who we are
    )
    data_begun = False
    try:
        await client.connect()
        options = [f"size={len(raw)}"] if client.supports_extension("size") else []
        await client.mail(settings.address, options=options)
        for address in (message.to, *message.cc):
            await client.rcpt(recipient(address))
        data_begun = True
        await client.data(raw, timeout=DATA_TIMEOUT)
    except aiosmtplib.SMTPConnectError as error:
        raise TryLater(f"The mail server {smtp.host} cannot be reached: {error}. The mail is kept and tried again.") from error
    except aiosmtplib.SMTPResponseException as error:
        raise _answered(
            error.code, error.message, authenticating=isinstance(error, aiosmtplib.SMTPAuthenticationError), data_begun=data_begun
        ) from error
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError) as error:
        if data_begun:
            raise Unknown(
                "The connection to the mail server was lost before it confirmed the mail: it may or may not have gone."
            ) from error
        raise TryLater(f"The connection to the mail server {smtp.host} was lost: {error}. The mail is kept and tried again.") from error
    except aiosmtplib.SMTPException as error:
        raise Refused(f"The mail was not sent: {error.message} Check smtp.security and smtp.username of this channel.") from error
    finally:
        await _leave(client)
    return Sent(provider_message_id=message.message_id)


def _answered(code: int, text: str, *, authenticating: bool, data_begun: bool) -> Exception:
    """What an SMTP answer other than success means: 4yz try again, 5yz never (RFC 5321 section 4.2.1)."""
    words = f"{code} {' '.join(text.split())[:300]}"
    if 500 <= code < 600:
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
