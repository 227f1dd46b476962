"""A mail server on loopback that takes every mail and shows it to the sandbox's people."""

from __future__ import annotations

import asyncio
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr
from typing import Any

from connectors.sandbox.state import Mail, MailFile, SandboxState

_IDS = re.compile(r"<[^<>\s]+>")
MAX_BYTES = 40_000_000


class MailStandIn:
    """An SMTP server in this process's own event loop: aiosmtpd's protocol, without the thread its Controller would start."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.BaseTransport] = set()

    async def start(self, port: int) -> int:
        """Listen on 127.0.0.1; returns the port. Raises OSError where it is taken."""
        from aiosmtpd.smtp import SMTP

        loop = asyncio.get_running_loop()
        opened = self._open

        class Session(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                opened.add(transport)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                opened.discard(self.transport)
                super().connection_lost(error)

        def session() -> asyncio.Protocol:
            made: asyncio.Protocol = Session(self, loop=loop, hostname="mx.shop.example", data_size_limit=MAX_BYTES)
            return made

        self._server = await loop.create_server(session, "127.0.0.1", port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for transport in list(self._open):
                transport.close()
            await self._server.wait_closed()
            self._server = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take one mail; the answer is the SMTP reply."""
        failure = self._state.take_failure("mail")
        if failure is not None and failure.status != "drop":
            enhanced = "4.3.0" if failure.status < 500 else "5.7.1"
            return f"{failure.status} {enhanced} The sandbox was told to refuse this mail"
        mail = read(bytes(envelope.content or b""))
        mail.order, mail.at = self._state.next_order(), self._state.clock()
        mail.envelope_from = envelope.mail_from or ""
        mail.recipients = tuple(address.lower() for address in envelope.rcpt_tos)
        self._state.mails.append(mail)
        self._state.changed()
        if failure is not None:
            server.transport.abort()
        return "250 2.0.0 Ok"


def read(raw: bytes) -> Mail:
    """A mail's bytes as a mail client shows them."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    name, address = parseaddr(str(message.get("From", "")))
    reply_to = [found for _, found in getaddresses([str(message.get("Reply-To", ""))]) if found]
    return Mail(
        order=0,
        at=0.0,
        envelope_from="",
        recipients=(),
        raw=raw,
        from_name=name,
        from_address=address.lower(),
        reply_to=reply_to[0] if reply_to else address,  # case kept: a reply token may need it
        subject=str(message.get("Subject", "")),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        message_id=str(message.get("Message-ID", "")).strip(),
        in_reply_to=str(message.get("In-Reply-To", "")).strip(),
        references=tuple(_IDS.findall(str(message.get("References", "")))),
        files=tuple(
            MailFile(name=part.get_filename("") or "file", content_type=part.get_content_type(), data=_bytes(part))
            for part in message.iter_attachments()
        ),
    )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    content = part.get_content()
    return content.rstrip("\r\n").replace("\r\n", "\n") if isinstance(content, str) else ""


def _bytes(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""
