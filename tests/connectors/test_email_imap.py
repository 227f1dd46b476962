"""A mailbox read by IMAP, from Dovecot itself: nothing lost, nothing twice, in order, nothing deleted."""

import asyncio
import contextlib
import imaplib
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from connectors import CHANNELS, load
from connectors.email import imap
from connectors.email.imap import ImapEmail, Mark
from hub.contract import Answer, HttpResponse, InboundMessage, Listens, Place, Refused, Request, TryLater, Verdict

PLACE = Place(name="mailbox", inbound_url="https://hub.example/in/mailbox", key=b"k" * 32)
PASSWORD = "s3cret"
USERS = itertools.count(1)
SOON = 20.0  # seconds a test waits for what must come

CONFIG = """
base_dir = {run}
state_dir = {run}
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain xoauth2
first_valid_uid = 1
default_login_user = {login}
default_internal_user = {user}
default_internal_group = {group}
mail_location = maildir:{folder}/mail/%u
mail_max_userip_connections = 100
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/oauth2.conf
}}
passdb {{
  driver = static
  mechanisms = plain
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u
}}
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  chroot =
  process_min_avail = 1
  service_count = 0
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
auth_failure_delay = 0
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


class TokenInfo(BaseHTTPRequestHandler):
    """Tells Dovecot whose an access token is: `token-of-NAME` is NAME's, anything else nobody's."""

    def do_GET(self) -> None:
        token = parse_qs(urlsplit(self.path).query).get("access_token", [""])[0]
        whose = token.removeprefix("token-of-") if token.startswith("token-of-") else ""
        body = json.dumps({"email": whose} if whose else {"error": "invalid_token"}).encode()
        self.send_response(200 if whose else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def dovecot() -> Iterator[int]:
    """A real Dovecot with an empty mailbox for whoever logs in; yields its port."""
    program = shutil.which("dovecot") or shutil.which("dovecot", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("no Dovecot here (Debian: dovecot-imapd): the IMAP reader is not tried against a real server")
    folder = Path(tempfile.mkdtemp(prefix="imap"))  # short: the paths of its sockets may have 107 characters
    root = os.getuid() == 0
    owner = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.getuid())
    tokens = ThreadingHTTPServer(("127.0.0.1", 0), TokenInfo)
    threading.Thread(target=tokens.serve_forever, daemon=True).start()
    port = free_port()
    (folder / "oauth2.conf").write_text(
        f"tokeninfo_url = http://127.0.0.1:{tokens.server_port}/?access_token=\nusername_attribute = email\ntimeout_msecs = 5000\n"
    )
    told = {"run": folder / "run", "folder": folder, "port": port, "uid": owner.pw_uid, "gid": owner.pw_gid, "password": PASSWORD}
    own = owner.pw_name
    users = {"login": "dovenull", "user": "dovecot", "group": "dovecot"} if root else {"login": own, "user": own, "group": _group()}
    (folder / "dovecot.conf").write_text(CONFIG.format(**told, **users))
    for name in ("mail", "home"):
        (folder / name).mkdir()
        os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    folder.chmod(0o755)
    process = subprocess.Popen([program, "-F", "-c", str(folder / "dovecot.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError), imaplib.IMAP4("127.0.0.1", port, timeout=2) as client:
                client.login("nobody-yet", PASSWORD)
                break
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"Dovecot does not start here: {(folder / 'log').read_text()[-500:] if (folder / 'log').exists() else ''}")
            threading.Event().wait(0.02)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=15)
        tokens.shutdown()
        tokens.server_close()
        shutil.rmtree(folder, ignore_errors=True)


def _group() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name


@dataclass
class Mailbox:
    """The mailbox as another mail program sees it."""

    port: int
    user: str
    folder: str = "INBOX"

    def __post_init__(self) -> None:
        self.client = imaplib.IMAP4("127.0.0.1", self.port, timeout=10)
        self.client.login(self.user, PASSWORD)

    def put(self, *mails: bytes, when: float | None = None) -> None:
        for mail in mails:
            moment = imaplib.Time2Internaldate(when if when is not None else time.time())
            status, told = self.client.append(self.folder, None, moment, mail)
            assert status == "OK", told

    def flags(self) -> list[bytes]:
        self.client.select(self.folder, readonly=True)
        _, told = self.client.fetch("1:*", "(FLAGS)")
        return [line for line in told if isinstance(line, bytes)]

    def count(self) -> int:
        return int(self.client.select(self.folder, readonly=True)[1][0])

    def delete(self, number: int) -> None:
        self.client.select(self.folder)
        self.client.store(str(number), "+FLAGS", r"\Deleted")
        self.client.expunge()

    def anew(self) -> None:
        """The folder made again: its UIDs begin at 1 under another UIDVALIDITY."""
        self.client.select("INBOX")
        self.client.delete(self.folder)
        assert self.client.create(self.folder)[0] == "OK"


@pytest.fixture
def mailbox(dovecot: int) -> Iterator[Mailbox]:
    """A mailbox nobody has used yet."""
    made = Mailbox(dovecot, f"user{next(USERS)}")
    yield made
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        made.client.logout()


def mail(number: int, **extra: str) -> bytes:
    lines = {"From": f"Ana <ana{number}@shop.example>", "To": "support@hub.example", "Subject": f"Mail {number}"}
    lines |= {"Message-ID": f"<{number}@shop.example>", "Date": "Mon, 01 Jun 2026 10:00:00 +0000"} | extra
    return ("".join(f"{name}: {value}\r\n" for name, value in lines.items()) + f"\r\nWords {number}\r\n").encode()


def channel(mailbox: Mailbox, **extra: object) -> ImapEmail:
    server = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "username": mailbox.user, "password": PASSWORD}
    known = {"type": "imap", "address": "support@hub.example", "smtp": {"host": "127.0.0.1", "security": "none"}, "imap": server}
    return ImapEmail(ImapEmail.Settings(**(known | {"folder": mailbox.folder} | extra)), PLACE)


@dataclass
class Kept:
    """A bookmark in memory, with all it was."""

    value: str = ""
    saved: list[str] = field(default_factory=list)

    async def load(self) -> str:
        return self.value

    async def save(self, value: str) -> None:
        self.value = value
        self.saved.append(value)

    @property
    def mark(self) -> Mark:
        return Mark.read(self.value)


class Hub:
    """What the hub stores of what it is handed: each request verified and parsed, answered as told."""

    def __init__(self, connector: ImapEmail, answers: list[int] | None = None) -> None:
        self.connector = connector
        self.answers = answers or []
        self.requests: list[Request] = []
        self.stored: list[InboundMessage] = []
        self._come = asyncio.Condition()

    async def deliver(self, request: Request) -> Answer:
        status = self.answers.pop(0) if self.answers else 200
        self.requests.append(request)
        assert self.connector.verify(request, 0.0) is Verdict.GOOD
        if status == 200:
            self.stored += [said for said in self.connector.parse(request) if isinstance(said, InboundMessage)]
        async with self._come:
            self._come.notify_all()
        return Answer(status)

    async def has(self, stored: int) -> list[str]:
        """Wait for so many; their subjects in the order they came."""
        async with asyncio.timeout(SOON), self._come:
            await self._come.wait_for(lambda: len(self.stored) >= stored)
        return [said.subject for said in self.stored]


@contextlib.asynccontextmanager
async def listening(connector: ImapEmail, hub: Hub, kept: Kept, http: object = None):
    task = asyncio.create_task(connector.listen(hub.deliver, kept, http))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TryLater):
            await task


async def until(true, task: asyncio.Task | None = None) -> None:
    """Wait, while the threads work, until something is so."""
    async with asyncio.timeout(SOON):
        while not true():
            assert task is None or not task.done(), task.exception()
            await asyncio.sleep(0.01)


def test_it_is_a_channel_that_listens(mailbox):
    assert load(CHANNELS["imap"]) is ImapEmail
    assert isinstance(channel(mailbox), Listens)
    assert channel(mailbox).to_paste() == [("nothing to paste", "the hub reads INBOX at 127.0.0.1 by itself")]


async def test_what_lay_there_and_what_comes_is_read_once_in_order_and_left_as_it_was(mailbox):
    mailbox.put(mail(1), mail(2), mail(3))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept) as task:
        assert await hub.has(3) == ["Mail 1", "Mail 2", "Mail 3"]
        await until(lambda: kept.mark.uid == 3, task)
        await asyncio.to_thread(mailbox.put, mail(4), mail(5))
        assert await hub.has(5) == ["Mail 1", "Mail 2", "Mail 3", "Mail 4", "Mail 5"]
        await until(lambda: kept.mark.uid == 5, task)
    assert (mailbox.count(), [line for line in mailbox.flags() if b"Seen" in line]) == (5, [])
    assert hub.stored[0].claims[0].value == "ana1@shop.example"
    # Begun again, nothing comes twice, though one was deleted and another came.
    mailbox.delete(2)
    mailbox.put(mail(6))
    again = Hub(connector)
    async with listening(connector, again, kept):
        assert await again.has(1) == ["Mail 6"]


async def test_the_bookmark_never_runs_ahead_of_what_is_on_disk(mailbox):
    mailbox.put(mail(1), mail(2), mail(3))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector, answers=[200, 503])
    with pytest.raises(TryLater, match="stays in the mailbox"):
        await connector.listen(hub.deliver, kept, None)
    assert (kept.mark.uid, kept.mark.failed) == (1, {})
    async with listening(connector, hub, kept):
        assert await hub.has(3) == ["Mail 1", "Mail 2", "Mail 3"]
    assert len(hub.requests) == 4, "only the one that was not stored came again"


async def test_a_restart_in_the_middle_goes_on_where_it_was(mailbox):
    mailbox.put(*[mail(number) for number in range(1, 8)])
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)

    async def three_and_dead(request: Request) -> Answer:
        if len(hub.stored) == 3:
            raise asyncio.CancelledError
        return await hub.deliver(request)

    with pytest.raises(asyncio.CancelledError):
        await connector.listen(three_and_dead, kept, None)
    assert kept.mark.uid == 3
    mailbox.put(mail(8))  # and mail comes while nobody reads
    async with listening(connector, hub, kept):
        assert await hub.has(8) == [f"Mail {number}" for number in range(1, 9)]


async def test_the_same_mail_twice_bears_one_key(mailbox):
    mailbox.put(mail(1), mail(1))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept):
        await hub.has(2)
    assert len({said.provider_key for said in hub.stored}) == 1, "by which the hub stores it once"


async def test_a_mailbox_numbered_anew_is_read_again_for_its_last_day_only(mailbox):
    mailbox.folder = "Support"
    mailbox.client.create("Support")
    mailbox.put(mail(1), mail(2))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept):
        await hub.has(2)
        await until(lambda: kept.mark.uid == 2)
    before = kept.mark.validity
    mailbox.anew()
    mailbox.put(mail(7), when=time.time() - 5 * 86_400)
    mailbox.put(mail(2), mail(3))
    async with listening(connector, hub, kept) as task:
        assert (await hub.has(4))[2:] == ["Mail 2", "Mail 3"]
        await until(lambda: kept.mark.uid == 3 and not kept.mark.since, task)
    assert kept.mark.validity != before
    assert len({said.provider_key for said in hub.stored}) == 3, "what was read before is known by its key"


async def test_at_the_first_start_old_mail_is_left_alone(mailbox):
    mailbox.put(mail(1), when=time.time() - 400 * 86_400)
    mailbox.put(mail(2))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept) as task:
        assert await hub.has(1) == ["Mail 2"]
        await until(lambda: kept.mark.uid == 2 and not kept.mark.since, task)
        # What is moved in later is read, whatever its date: somebody put it there.
        await asyncio.to_thread(mailbox.put, mail(3), when=time.time() - 400 * 86_400)
        assert await hub.has(2) == ["Mail 2", "Mail 3"]


ODD = [
    b"\r\n",
    b"no header at all",
    b"From: \xff\xfe\r\n\r\n\x01\x02",
    b"From: a@b.example\nSubject: bare\n\nline feeds\n",
    mail(1)[:-20] + b"\xe4" * 2000,
]


async def test_an_odd_mail_stops_nobody_and_is_handed_over_as_it_is(mailbox):
    mailbox.put(*ODD, mail(9))
    connector, kept = channel(mailbox), Kept()
    requests: list[Request] = []

    async def quarantine(request: Request) -> Answer:
        requests.append(request)
        return Answer(200)

    task = asyncio.create_task(connector.listen(quarantine, kept, None))
    await until(lambda: kept.mark.uid == len(ODD) + 1, task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert requests[-1].body == mail(9)
    assert [request.body.replace(b"\r\n", b"\n") for request in requests[1:5]] == [odd.replace(b"\r\n", b"\n") for odd in ODD[1:]]


@pytest.mark.parametrize("fault", ["not handed out", "the hub fails"])
async def test_a_mail_that_cannot_be_had_is_tried_three_times_and_then_noted_while_the_others_go_on(mailbox, monkeypatch, fault, caplog):
    monkeypatch.setattr(imap, "FIRST_IDLE", 0.01)
    monkeypatch.setattr(imap, "IDLE", 0.02)
    mailbox.put(mail(1), mail(2), mail(3))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    tried: list[int] = []
    fetch = imap._fetch

    def broken(client, uid, most):
        if uid == 2 and fault == "not handed out":
            tried.append(uid)
            raise imap._Unfetchable("the server's file is broken")
        return fetch(client, uid, most)

    async def fails(request: Request) -> Answer:
        if b"Mail 2" in request.body and fault == "the hub fails":
            tried.append(2)
            raise ValueError("a fault of ours")
        return await hub.deliver(request)

    monkeypatch.setattr(imap, "_fetch", broken)
    task = asyncio.create_task(connector.listen(fails, kept, None))
    await until(lambda: bool(kept.mark.skipped), task)
    await asyncio.to_thread(mailbox.put, mail(4))
    assert await hub.has(3) == ["Mail 1", "Mail 3", "Mail 4"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(tried) == 3
    ((uid, why),) = kept.mark.skipped
    assert (uid, bool(why), kept.mark.failed) == (2, True, {})
    assert "was skipped" in caplog.text
    assert mailbox.count() == 4, "it is still there for people to read"


async def test_a_mail_the_connection_breaks_over_does_not_stop_the_others_for_ever(mailbox, monkeypatch):
    """Ten times, and not three: a line that breaks is no fault of the mail."""
    mailbox.put(mail(1), mail(2), mail(3))
    connector, kept = channel(mailbox), Kept()
    hub = Hub(connector)
    fetch = imap._fetch

    def breaks(client, uid, most):
        if uid == 2:
            client.socket().shutdown(socket.SHUT_RDWR)
        return fetch(client, uid, most)

    monkeypatch.setattr(imap, "_fetch", breaks)
    for lost in range(1, 10):
        with pytest.raises(TryLater):
            await connector.listen(hub.deliver, kept, None)
        assert (kept.mark.failed, kept.mark.skipped) == ({2: lost}, [])
    with pytest.raises(TryLater):
        await connector.listen(hub.deliver, kept, None)
    assert (kept.mark.failed, [uid for uid, _ in kept.mark.skipped]) == ({}, [2])
    async with listening(connector, hub, kept):
        assert await hub.has(2) == ["Mail 1", "Mail 3"]


async def test_a_mail_too_large_is_noted_and_left(mailbox):
    mailbox.put(mail(1) + b"x" * 5_000, mail(2))
    connector, kept = channel(mailbox, max_bytes=2_000), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept):
        assert await hub.has(1) == ["Mail 2"]
    assert kept.mark.skipped[0][0] == 1
    assert "max_bytes" in kept.mark.skipped[0][1]


async def test_read_mails_are_marked_where_that_is_wished(mailbox):
    mailbox.put(mail(1))
    connector, kept = channel(mailbox, mark_seen=True), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept) as task:
        await hub.has(1)
        await until(lambda: any(b"Seen" in line for line in mailbox.flags()), task)


async def test_a_server_without_idle_is_asked_now_and_then(mailbox, monkeypatch):
    monkeypatch.setattr(imap, "_knows_idle", lambda client: False)
    connector, kept = channel(mailbox, poll_seconds=1), Kept()
    hub = Hub(connector)
    async with listening(connector, hub, kept) as task:
        await until(lambda: kept.mark.validity > 0, task)
        await asyncio.to_thread(mailbox.put, mail(1))
        assert await hub.has(1) == ["Mail 1"]


async def test_a_wrong_password_ends_it_with_the_setting_to_mend(mailbox):
    server = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "username": "ana", "password": "wr0ng"}
    connector = channel(mailbox, imap=server)
    with pytest.raises(Refused, match=r"imap\.password") as raised:
        await connector.listen(Hub(connector).deliver, Kept(), None)
    assert "wr0ng" not in str(raised.value)


async def test_a_folder_that_is_not_there_is_named(mailbox):
    connector = channel(mailbox, folder="Nowhere")
    with pytest.raises(Refused, match="'Nowhere'"):
        await connector.listen(Hub(connector).deliver, Kept(), None)


async def test_a_server_that_is_gone_is_begun_again_later(mailbox):
    server = {"host": "127.0.0.1", "port": free_port(), "security": "none", "username": "ana", "password": "x"}
    connector = channel(mailbox, imap=server)
    with pytest.raises(TryLater, match="cannot be reached"):
        await connector.listen(Hub(connector).deliver, Kept(), None)


async def test_a_connection_that_breaks_while_it_waits_is_begun_again_later(mailbox):
    """Through a wire that is cut: the server's end of it is gone, and nothing was lost."""

    async def joined(reader, writer):
        inner = await asyncio.open_connection("127.0.0.1", mailbox.port)
        wires.append(writer)

        async def pump(source, sink):
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    wires: list[asyncio.StreamWriter] = []
    wire = await asyncio.start_server(joined, "127.0.0.1", 0)
    async with wire:
        server = {"host": "127.0.0.1", "port": wire.sockets[0].getsockname()[1], "security": "none"}
        connector = channel(mailbox, imap=server | {"username": mailbox.user, "password": PASSWORD})
        mailbox.put(mail(1))
        kept, hub = Kept(), Hub(connector)
        task = asyncio.create_task(connector.listen(hub.deliver, kept, None))
        await until(lambda: kept.mark.uid == 1, task)
        wires[0].close()
        with pytest.raises(TryLater):
            await asyncio.wait_for(task, SOON)
    assert len(hub.stored) == 1


class Tokens:
    """The provider's token address: hands out what it has, one after the other."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    async def request(self, method, url, *, headers=None, body=None, timeout=15.0, max_bytes=1_000_000):
        return HttpResponse(200, {}, json.dumps({"access_token": self.tokens.pop(0), "expires_in": 3600}).encode())


OAUTH = {"token_url": "https://tokens.example/token", "client_id": "app", "client_secret": "x", "refresh_token": "r"}


async def test_xoauth2_logs_in_and_a_token_that_was_ended_is_fetched_anew_once(mailbox):
    mailbox.put(mail(1))
    server = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "username": mailbox.user}
    connector, kept = channel(mailbox, imap=server, oauth=OAUTH), Kept()
    hub = Hub(connector)
    tokens = Tokens("stale", f"token-of-{mailbox.user}")
    async with listening(connector, hub, kept, tokens):
        assert await hub.has(1) == ["Mail 1"]
    assert tokens.tokens == []
    refused = channel(mailbox, imap=server, oauth=OAUTH)
    with pytest.raises(Refused, match="sign in again"):
        await refused.listen(hub.deliver, Kept(), Tokens("stale", "stale too", "never asked for"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"imap": {"host": "imap.shop.example", "security": "none", "password": "x"}},  # everything readable on the way
        {"imap": {"host": "imap.shop.example"}},  # nothing to log in with
        {"folder": ""},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    known = {"type": "imap", "address": "support@hub.example", "smtp": {"host": "127.0.0.1", "security": "none"}}
    with pytest.raises(ValidationError):
        ImapEmail.Settings(**(known | {"imap": {"host": "127.0.0.1", "password": "x"}} | wrong))


def test_a_request_of_anybody_else_does_not_verify(mailbox):
    connector = channel(mailbox)
    assert connector.verify(Request("POST", PLACE.inbound_url, {}, mail(1)), 0.0) is Verdict.UNSIGNED
    assert connector.verify(Request("POST", PLACE.inbound_url, {"x-hub-taken-in": "0" * 64}, mail(1)), 0.0) is Verdict.BAD


@pytest.mark.parametrize("value", ["", "{}", "nonsense", "[]", '{"uid": null}', '{"failed": [1]}', '{"since": "x"}'])
def test_a_bookmark_that_cannot_be_read_begins_anew(value):
    assert Mark.read(value).validity == 0


def test_a_bookmark_comes_back_as_it_was():
    mark = Mark(validity=7, uid=30, since="2026-06-01", until=40, failed={12: 2}, skipped=[(9, "broken")])
    assert Mark.read(mark.written()) == mark
