"""Mails taken in on an SMTP port of the hub's own, for who runs their own MX: RFC 5321, by aiosmtpd.

It relays nothing: the only recipient it knows is the channel's own address, with any `+token` in it. A mail is confirmed when it is on
disk and not before, so a sending server keeps what the hub could not store.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from connectors.email.taken_in import TakenInEmail, TakenInSettings, request_of
from connectors.shared.mail_headers import address_spec
from hub.contract import Answer, Bookmark, ChannelSettings, Http, Refused, Request, TryLater

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

Deliver = Callable[[Request], Awaitable[Answer]]

IDLE = 300.0  # seconds between two commands (RFC 5321 section 4.5.3.2.7)
WHOLE_MAIL = 1_800.0  # seconds one mail may take to come in; the lines of a slow sender hold memory all that time
STORING = 120.0  # seconds until a mail that is not stored is given back; senders wait 600 (section 4.5.3.2.6)
LONGEST_LINE = 65_536  # 998 is the rule (RFC 5322 section 2.1.1); programs that break it write mails worth reading
MAX_RECIPIENTS = 100  # RFC 5321 section 4.5.3.1.8
MOST_RECEIVED = 50  # servers a mail may have gone through; more is a loop (section 6.3)
COMMANDS = 500  # of one kind over one connection

NOBODY = "<>"  # the null return path, as the library gives it
OK = "250 2.0.0 Accepted: it is stored"
LATER = "451 4.3.0 Not stored. Try again later"
NO_SUCH_USER = "550 5.1.1 There is no such mailbox here"
LOOP = f"554 5.4.6 Routing loop: the mail went through more than {MOST_RECEIVED} servers"
TOO_MANY = b"421 4.3.2 Too many connections. Try again later\r\n"
CLOSING = b"421 4.3.2 The service is stopping. Try again later\r\n"
_RECEIVED = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)


class ListenerSettings(TakenInSettings):
    """Where to listen, and how. `starttls` needs `certificate` and `key` (PEM files); required, mail in clear is refused."""

    host: str = "0.0.0.0"  # noqa: S104  (an MX faces the world)
    port: int = Field(default=25, ge=0, le=65535)  # 0: any free one
    hostname: str = ""  # how the server names itself; empty: the domain of `address`
    max_bytes: int = Field(default=30_000_000, ge=1_000, le=40_000_000)
    connections: int = Field(default=20, ge=1, le=1_000)
    starttls: str = Field(default="off", pattern="^(off|optional|required)$")
    certificate: str = ""
    key: str = ""

    @model_validator(mode="after")
    def _has_a_certificate(self) -> ListenerSettings:
        if self.starttls != "off" and not (self.certificate and self.key):
            raise ValueError(f"certificate and key: are missing. starttls: {self.starttls} needs both PEM files")
        return self


class SmtpListener(TakenInEmail):
    """A mailbox on an SMTP port of the hub's own."""

    Settings: ClassVar[type[ChannelSettings]] = ListenerSettings
    settings: ListenerSettings
    port: int = 0  # where it listens, once it does

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """What the domain's DNS must say for mails to come here."""
        domain = self.settings.address.rpartition("@")[2]
        return [("MX record", f"{domain}. MX 10 {self.settings.hostname or domain}. (this machine, port {self.settings.port})")]

    async def listen(self, deliver: Deliver, bookmark: Bookmark, http: Http) -> None:
        """Take mails until cancelled. Raises Refused where the certificate cannot be used, TryLater where the port is taken."""
        door = _Door(self, deliver, _context(self.settings))
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(door.enter, self.settings.host, self.settings.port, backlog=100)
        except PermissionError as error:
            raise Refused(
                f"The hub may not listen on port {self.settings.port}: {error}. Choose a port above 1023, or allow it."
            ) from error
        except OSError as error:
            raise TryLater(f"The hub cannot listen on {self.settings.host} port {self.settings.port}: {error}") from error
        self.port = server.sockets[0].getsockname()[1]
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            await door.close()
            self.port = 0

    def own(self, address: str) -> bool:
        """Whether a recipient is this channel's mailbox, with or without a `+token`."""
        local, _, domain = address.rpartition("@")
        own_local, _, own_domain = self.settings.address.lower().rpartition("@")
        return domain.lower() == own_domain and (local.lower() == own_local or local.lower().startswith(own_local + "+"))


def _context(settings: ListenerSettings) -> ssl.SSLContext | None:
    if settings.starttls == "off":
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(Path(settings.certificate), Path(settings.key))
    except (OSError, ssl.SSLError) as error:
        raise Refused(
            f"The certificate {settings.certificate} and its key cannot be used: {error}. Correct `certificate` and `key`."
        ) from error
    return context


class _Door:
    """One listener's open connections, and what is said at each step of a mail."""

    def __init__(self, channel: SmtpListener, deliver: Deliver, context: ssl.SSLContext | None) -> None:
        self._channel = channel
        self._deliver = deliver
        self._context = context
        self._open: set[Any] = set()
        self._session = _session_class()

    def enter(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection; one that sends it away where there are enough."""
        settings = self._channel.settings
        if len(self._open) >= settings.connections:
            return _Full()
        session: asyncio.BaseProtocol = self._session(
            self,
            data_size_limit=settings.max_bytes,
            hostname=settings.hostname or settings.address.rpartition("@")[2],
            ident="ESMTP",
            tls_context=self._context,
            require_starttls=settings.starttls == "required",
            timeout=IDLE,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
            command_call_limit=COMMANDS,
            loop=asyncio.get_running_loop(),
        )
        return session

    def opened(self, session: Any) -> None:
        self._open.add(session)

    def closed(self, session: Any) -> None:
        self._open.discard(session)

    async def close(self) -> None:
        """End every connection. What was not confirmed is sent again by whoever sent it."""
        working = [session.end(CLOSING) for session in list(self._open)]
        await asyncio.gather(*working, return_exceptions=True)

    # What aiosmtpd asks at each step (https://aiosmtpd.aio-libs.org/en/latest/handlers.html).

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:
        session.host_name = hostname
        return [line for line in responses if not line.upper().startswith("250-AUTH")]  # an MX knows no logins

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        envelope.mail_from = address or NOBODY  # the library wants something to stand there
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address_spec(address) is None or not self._channel.own(address):
            return NO_SUCH_USER
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = envelope.content if isinstance(envelope.content, bytes) else b""
        head = mail[: mail.find(b"\r\n\r\n")] if b"\r\n\r\n" in mail else mail
        if len(_RECEIVED.findall(head)) > MOST_RECEIVED:
            return LOOP
        request = request_of(self._channel.place, mail, envelope_from=_plain(envelope.mail_from or ""), envelope_to=envelope.rcpt_tos)
        try:
            async with asyncio.timeout(STORING):
                answer = await self._deliver(request)
        except TimeoutError:
            return LATER
        return OK if answer.status == 200 else LATER

    async def handle_exception(self, error: Exception) -> str:
        """Anything unforeseen: the sending server keeps the mail."""
        return LATER


def _plain(address: str) -> str:
    """An envelope sender that is an address, what stands for one that is none, or empty for the null return path."""
    if address in ("", NOBODY):
        return ""
    return address if address_spec(address) is not None else "unreadable@invalid"


class _Full(asyncio.Protocol):
    """Sends a connection away that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(TOO_MANY)
            transport.close()


def _session_class() -> Any:
    """aiosmtpd's session with a count of who is in, an end to each mail's time, and no line too long to take."""
    from aiosmtpd.smtp import SMTP

    class Session(SMTP):
        line_length_limit = LONGEST_LINE

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.event_handler.opened(self)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            self.event_handler.closed(self)
            super().connection_lost(error)

        async def smtp_DATA(self, arg: str) -> None:
            self._reset_timeout(WHOLE_MAIL)  # the library would count the pause since the command, and cut a long mail short
            await super().smtp_DATA(arg)
            if self.transport is not None:
                self._reset_timeout()

        def end(self, words: bytes) -> asyncio.Task[None]:
            task = self._handler_coroutine
            assert task is not None, "a connection that was made is handled"
            if isinstance(self.transport, asyncio.WriteTransport):
                with contextlib.suppress(Exception):  # an encrypted one may be half closed by its other side
                    self.transport.write(words)
                    self.transport.close()
            task.cancel()
            return task

    return Session
