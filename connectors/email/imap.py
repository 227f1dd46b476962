"""A mailbox read by IMAP (RFC 9051, RFC 3501), for who has no more than that: each mail once, in order, none lost, none deleted.

What has been read is known by UIDVALIDITY and UID, noted after the hub has a mail on disk and not before; flags say nothing, since people
read the same mailbox. The library is IMAPClient (its calls block, so each runs in a thread).
https://imapclient.readthedocs.io/
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta
from email.utils import localtime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from connectors.email.taken_in import TakenInEmail, TakenInSettings, request_of
from connectors.shared.loopback import is_loopback
from connectors.shared.oauth import xoauth2
from hub.contract import Answer, Bookmark, ChannelSettings, Http, Refused, Request, TryLater

if TYPE_CHECKING:
    from imapclient import IMAPClient

log = logging.getLogger(__name__)

Deliver = Callable[[Request], Awaitable[Answer]]
Found = TypeVar("Found")

PORTS = {"tls": 993, "starttls": 143, "none": 143}
CONNECTING = 10.0  # seconds
READING = 60.0  # seconds without a byte
# A mail that comes while IDLE is entered may hide in the library's buffer, so the first one after news is a short one.
FIRST_IDLE = 2.0
IDLE = 300.0  # seconds; servers hang up after 30 minutes (RFC 2177 section 3), routers forget a silent connection sooner
TRIES = 3  # a mail the server does not hand out
TRIES_LOST = 10  # one the connection is lost over
SKIPPED_KEPT = 200
NOT_STORED = 503
# How servers say that there is no such folder; only newer ones do it by RFC 5530's code.
_MISSING = re.compile(r"NONEXISTENT|TRYCREATE|exist|unknown mailbox|not found|no such", re.IGNORECASE)


class ImapServer(BaseModel):
    """The mailbox's server. `security`: tls (993), starttls (143), none (on this machine only). Without a password the channel's
    `oauth` logs in; without a username the channel's address does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    username: str = ""
    password: SecretStr = SecretStr("")
    security: Literal["tls", "starttls", "none"] = "tls"

    @model_validator(mode="after")
    def _nothing_in_clear(self) -> ImapServer:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError("imap.security: none would send the password and every mail readable over the network; use tls or starttls")
        return self


class ImapSettings(TakenInSettings):
    """A mailbox that is read. Only `mark_seen` changes anything in it."""

    imap: ImapServer
    folder: str = Field(default="INBOX", min_length=1)
    mark_seen: bool = False
    poll_seconds: float = Field(default=60.0, ge=1.0, le=3_600.0)  # where the server does not know IDLE
    max_bytes: int = Field(default=35_000_000, ge=1_000, le=40_000_000)

    @model_validator(mode="after")
    def _can_log_in(self) -> ImapSettings:
        if not self.imap.password.get_secret_value() and self.oauth is None:
            raise ValueError("imap.password: is missing. Set it, or oauth for Google and Microsoft")
        return self


@dataclass(slots=True)
class Mark:
    """How far a mailbox has been read, as the hub keeps it.

    Up to `uid` everything is dealt with but for `failed` (UID -> tries so far). `skipped` (UID, why) was given up and is still in the
    mailbox. At the beginning, of the mails below `until` only those since the day `since` are read.
    """

    validity: int = 0
    uid: int = 0
    since: str = ""
    until: int = 0
    failed: dict[int, int] = field(default_factory=dict)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def read(cls, value: str) -> Mark:
        """The bookmark as it was written; a fresh one where it cannot be read."""
        try:
            told = json.loads(value or "{}")
            return cls(
                validity=int(told.get("validity", 0)),
                uid=int(told.get("uid", 0)),
                since=date.fromisoformat(told["since"]).isoformat() if told.get("since") else "",
                until=int(told.get("until", 0)),
                failed={int(uid): int(tries) for uid, tries in told.get("failed", {}).items()},
                skipped=[(int(uid), str(why)) for uid, why in told.get("skipped", [])],
            )
        except (ValueError, TypeError, AttributeError, KeyError):
            return cls()

    def written(self) -> str:
        """The bookmark to keep."""
        told = {"validity": self.validity, "uid": self.uid, "since": self.since, "until": self.until, "failed": self.failed}
        return json.dumps(told | {"skipped": self.skipped[-SKIPPED_KEPT:]})

    def done(self, uid: int) -> None:
        """This mail is on disk, or gone."""
        self.failed.pop(uid, None)
        self.uid = max(self.uid, uid)

    def fail(self, uid: int, why: str, tries: int) -> bool:
        """This mail could not be had; whether it is given up with that."""
        count = self.failed.pop(uid, 0) + 1
        self.uid = max(self.uid, uid)
        if count >= tries:
            self.skipped.append((uid, why[:200]))
            return True
        self.failed[uid] = count
        return False

    def caught_up(self) -> None:
        """Everything of the beginning has been looked at."""
        if self.since:
            self.uid, self.since = max(self.uid, self.until - 1), ""


@dataclass(frozen=True, slots=True)
class Selected:
    """A folder as the server describes it: two alike mean that nothing has come."""

    validity: int
    next_uid: int  # 0 where the server does not say
    exists: int


class _Unfetchable(Exception):
    """The server does not hand out this one mail."""


class _TooBig(Exception):
    """A mail larger than is taken."""


class ImapEmail(TakenInEmail):
    """A mailbox read by IMAP."""

    Settings: ClassVar[type[ChannelSettings]] = ImapSettings
    settings: ImapSettings

    def to_paste(self) -> Sequence[tuple[str, str]]:
        """Nothing: the hub goes to the mailbox by itself."""
        return [("nothing to paste", f"the hub reads {self.settings.folder} at {self.settings.imap.host} by itself")]

    async def listen(self, deliver: Deliver, bookmark: Bookmark, http: Http) -> None:
        """Read what has come and wait for more, until cancelled. Raises Refused where the settings are wrong, TryLater otherwise."""
        mark = Mark.read(await bookmark.load())
        connection = await self._open(http)
        try:
            idles = await connection.run(_knows_idle)
            checked: Selected | None = None
            pause = FIRST_IDLE
            while True:
                # The folder is selected anew before each wait: a mail announced among the answers to a search would go unnoticed.
                selected = await self._select(connection)
                if selected.validity != mark.validity:
                    mark = await self._begin(connection, selected, mark)
                    await bookmark.save(mark.written())
                    checked = None
                if selected != checked:
                    await self._catch_up(connection, mark, deliver, bookmark)
                    checked, pause = selected, FIRST_IDLE
                    continue
                if idles:
                    news = await connection.run(_idle, pause)
                else:
                    await asyncio.sleep(self.settings.poll_seconds)
                    news = True
                if news or (mark.failed and pause == IDLE):
                    checked = None
                pause = FIRST_IDLE if news else IDLE
        finally:
            await connection.close()

    async def _open(self, http: Http) -> _Connection:
        server = self.settings.imap
        password = server.password.get_secret_value()
        tokens = self.tokens if not password else None
        username = server.username or self.settings.address
        for attempt in (1, 2):
            token = await tokens.token(http) if tokens is not None else ""
            connection = _Connection(server.host)
            try:
                await connection.begin(server)
                await connection.run(_log_in, username, password, token)
                return connection
            except _LoginRefused as error:
                await connection.close()
                if tokens is not None:
                    tokens.forget(token)
                    if attempt == 1:
                        continue  # the provider may have ended the token before its time
                what = "imap.username and oauth (sign in again)" if tokens is not None else "imap.username and imap.password"
                raise Refused(f"{server.host} refuses the login ({error}). Check {what}.") from error
            except BaseException:
                await connection.close()
                raise
        raise AssertionError("the second attempt returned or raised")

    async def _select(self, connection: _Connection) -> Selected:
        folder = self.settings.folder
        try:
            told = await connection.run(_select, folder, not self.settings.mark_seen)
        except _Said as error:
            if not _MISSING.search(str(error)):
                raise TryLater(f"{connection.host} does not open the folder {folder!r} now: {error}") from error
            raise Refused(f"{connection.host} does not open the folder {folder!r} ({error}). Correct `folder`.") from error
        validity, next_uid, exists = (told.get(name) or 0 for name in (b"UIDVALIDITY", b"UIDNEXT", b"EXISTS"))
        return Selected(int(validity) or 1, int(next_uid), int(exists))

    async def _begin(self, connection: _Connection, selected: Selected, before: Mark) -> Mark:
        """Where to begin in a mailbox not known yet, or numbered anew: a day back. What is on disk already is known to the hub."""
        if before.validity:
            log.warning("%s: the mailbox was numbered anew; its last day is read again", self.place.name)
        until = selected.next_uid
        if not until:
            until = max(await connection.run(_search, ["UID", "*"]), default=0) + 1
        day = localtime().astimezone(UTC).date() - timedelta(days=1)
        return Mark(validity=selected.validity, since=day.isoformat(), until=until, skipped=before.skipped)

    async def _catch_up(self, connection: _Connection, mark: Mark, deliver: Deliver, bookmark: Bookmark) -> None:
        """Hand over everything that has come, in its order. Raises TryLater where the connection is lost or nothing can be stored."""
        for uid in sorted({*mark.failed, *await connection.run(_new, mark)}):
            tries = TRIES
            try:
                mail = await connection.run(_fetch, uid, self.settings.max_bytes)
                why = await self._hand_over(mail, deliver) if mail is not None else ""
            except _Lost as error:
                self._failed(mark, uid, str(error), TRIES_LOST)
                await bookmark.save(mark.written())
                raise
            except _TooBig as error:
                why, tries = str(error), 1
            except (_Unfetchable, _Said) as error:
                why = str(error)
            if why:
                self._failed(mark, uid, why, tries)
            else:
                mark.done(uid)
            await bookmark.save(mark.written())
            if self.settings.mark_seen and not why:
                with contextlib.suppress(_Said):  # a folder that may only be read is read all the same
                    await connection.run(_mark_seen, uid)
        if mark.since:
            mark.caught_up()
            await bookmark.save(mark.written())

    async def _hand_over(self, mail: bytes, deliver: Deliver) -> str:
        """Why the hub did not take a mail, or empty. Raises TryLater where it cannot store anything now."""
        try:
            answer = await deliver(request_of(self.place, mail))
        except Exception as error:
            log.exception("%s: a mail was not taken", self.place.name)
            return f"the hub failed over it ({type(error).__name__})"
        if answer.status == NOT_STORED:
            raise TryLater("The mail could not be stored. It stays in the mailbox and is read again.")
        return "" if answer.status == 200 else f"the hub answered {answer.status}"

    def _failed(self, mark: Mark, uid: int, why: str, tries: int) -> None:
        if mark.fail(uid, why, tries):
            log.error("%s: mail %s was skipped, read it in the mailbox: %s", self.place.name, uid, why)
        else:
            log.warning("%s: mail %s was not read and is tried again: %s", self.place.name, uid, why)


# --- The connection ----------------------------------------------------------------------------------------------------


class _Said(Exception):
    """The server said NO or BAD."""


class _LoginRefused(Exception):
    """The server knows us not."""


class _Lost(TryLater):
    """The connection is gone."""


class _Connection:
    """One connection to the mailbox. Its calls block and run in a thread, one after the other; `close` ends the one under way."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._client: IMAPClient | None = None
        self._under_way: asyncio.Future[Any] | None = None

    async def begin(self, server: ImapServer) -> None:
        """Connect. Raises _Lost."""

        def connect() -> None:
            self._client = _connect(server)

        await self._in_thread(connect)

    async def run(self, work: Callable[..., Found], *arguments: Any) -> Found:
        """What the server answers to a piece of work, which is given the client and the arguments. Raises _Said, _LoginRefused or _Lost."""
        assert self._client is not None, "begun"
        return await self._in_thread(partial(work, self._client, *arguments))

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        from imapclient import exceptions

        future = self._under_way = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(future)
        except exceptions.IMAPClientAbortError as error:
            raise _Lost(f"The connection to {self.host} was lost: {_line(error)}") from error
        except exceptions.IMAPClientError as error:
            raise _Said(_line(error)) from error
        except OSError as error:
            raise _Lost(f"{self.host} cannot be reached: {_line(error)}") from error

    async def close(self) -> None:
        """End it at once; nothing is owed to the server."""
        if self._client is not None:
            _hang_up(self._client)
        if self._under_way is not None:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._under_way
        if self._client is not None:  # a call under way may have been the one that connects
            client, self._client = self._client, None
            _hang_up(client)
            with contextlib.suppress(Exception):
                client.shutdown()


def _hang_up(client: IMAPClient) -> None:
    with contextlib.suppress(OSError):
        client.socket().shutdown(socket.SHUT_RDWR)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# Below: what runs in the thread.


def _connect(server: ImapServer) -> IMAPClient:
    from imapclient import IMAPClient, SocketTimeout

    client = IMAPClient(
        server.host,
        port=server.port or PORTS[server.security],
        ssl=server.security == "tls",
        ssl_context=ssl.create_default_context(),
        timeout=SocketTimeout(connect=CONNECTING, read=READING),
    )
    if server.security == "starttls":
        try:
            client.starttls(ssl.create_default_context())
        except BaseException:
            client.shutdown()
            raise
    return client


def _log_in(client: IMAPClient, username: str, password: str, token: str) -> None:
    from imapclient import exceptions

    answers = iter([xoauth2(username, token).encode()])
    try:
        if token:  # to the reason why a token is refused, an empty line is the answer
            client.sasl_login("XOAUTH2", lambda challenge: next(answers, b""))
        else:
            client.login(username, password)
    except exceptions.LoginError as error:
        words = str(error).upper()
        if "[UNAVAILABLE]" in words or "TEMPORAR" in words or "TOO MANY" in words or "[LIMIT]" in words:
            raise ConnectionError(_line(error)) from error  # RFC 5530: it may know us in a moment
        raise _LoginRefused(_line(error)) from error


def _knows_idle(client: IMAPClient) -> bool:
    return bool(client.has_capability("IDLE"))


def _select(client: IMAPClient, folder: str, readonly: bool) -> dict[bytes, Any]:
    return dict(client.select_folder(folder, readonly=readonly))


def _mark_seen(client: IMAPClient, uid: int) -> None:
    client.add_flags([uid], [rb"\Seen"])


def _search(client: IMAPClient, criteria: Sequence[Any]) -> list[int]:
    return [int(uid) for uid in client.search(list(criteria))]


def _new(client: IMAPClient, mark: Mark) -> list[int]:
    """The UIDs not dealt with. A range up to `*` always holds the last mail, even where that is an old one (RFC 9051 section 6.4.4)."""
    found = _search(client, ["UID", f"{max(mark.uid + 1, mark.until if mark.since else 0)}:*"])
    if mark.since and mark.uid + 1 < mark.until:
        found = [uid for uid in found if uid >= mark.until]
        found += _search(client, ["UID", f"{mark.uid + 1}:{mark.until - 1}", "SINCE", date.fromisoformat(mark.since)])
    return [uid for uid in found if uid > mark.uid]


def _fetch(client: IMAPClient, uid: int, most: int) -> bytes | None:
    """A mail's bytes, without marking it read; None where it is gone. Raises _Unfetchable or _TooBig."""
    size = client.fetch([uid], ["RFC822.SIZE"]).get(uid, {}).get(b"RFC822.SIZE", 0)
    if size > most:
        raise _TooBig(f"it has {size} bytes, more than max_bytes ({most})")
    mail = client.fetch([uid], ["BODY.PEEK[]"]).get(uid, {}).get(b"BODY[]")
    if mail is None and uid in _search(client, ["UID", str(uid)]):
        raise _Unfetchable("the server lists it and does not hand it out")
    return mail if isinstance(mail, bytes) else None


def _idle(client: IMAPClient, seconds: float) -> bool:
    """Wait until the server tells of something; whether it did."""
    client.idle()
    told = client.idle_check(timeout=seconds)
    _, more = client.idle_done()
    return any(len(line) > 1 and line[1] in (b"EXISTS", b"RECENT") for line in (*told, *more) if isinstance(line, tuple))
