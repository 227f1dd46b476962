"""The providers' doorway over HTTP, with the whole hub behind it: what each provider is told in each case, and what is kept.

The cases are those of the table "our answer, cell by cell": good, duplicate, bad signature, no key, unparseable, busy,
draining, too big. Signatures are computed here as the vendors compute them.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest
import yaml
from sqlalchemy import func, select

from connectors.shared.signatures import twilio_signature
from hub.app import Running
from hub.config import Settings, load
from hub.contract import Attachment, Claim, InboundMessage, Proof
from hub.conversations import ingest as ingest_module
from hub.conversations.commands import Reply, Resolve
from hub.storage.postgres_writer import PostgresWriter
from hub.storage.sqlite_writer import SqliteWriter
from hub.storage.tables import metadata
from hub.web import webhooks
from tests.conftest import on_engine, sandbox_config
from tests.storage import ENGINES

ADA, BOB = "+12025550123", "+12025550124"
ACCOUNT = "AC00000000000000000000000000000001"
TOKEN = "sandbox-only-twilio-token"
LOGIN = ("sandbox", "sandbox-only-mail-password")
PARSE_LOGIN = ("parse", "parse-password")

T = metadata.tables
Told = tuple[int, str, dict[str, str]]  # status, body, headers in lower case


def twilio(address: str, **more: Any) -> dict[str, Any]:
    return {"type": "twilio_sms", "address": address, "account_sid": ACCOUNT, "base_url": "http://127.0.0.1:1", **more}


EXTRA = {
    "observed": twilio("+15550100003", auth_token=TOKEN, signature="observe"),
    "keyless": twilio("+15550100004"),
    "keyless-mail": {"type": "mime", "address": "a@shop.example", "smtp": {"host": "127.0.0.1", "port": 1, "security": "none"}},
    "keyless-parse": {"type": "sendgrid", "address": "b@shop.example", "smtp": {"host": "127.0.0.1", "port": 1, "security": "none"}},
    "parse": {
        "type": "sendgrid",
        "address": "support@shop.example",
        "basic_auth": ":".join(PARSE_LOGIN),
        "smtp": {"host": "127.0.0.1", "port": 1, "security": "none"},
    },
}


def write_config(tmp_path: Path, **changes: dict[str, Any]) -> Path:
    path = sandbox_config(tmp_path)
    config = yaml.safe_load(path.read_text())
    config["channels"] |= EXTRA
    for channel, entry in changes.items():
        config["channels"][channel] |= entry
    path.write_text(yaml.safe_dump(config, sort_keys=False))  # the sandbox shares the secrets of the first of a kind
    return path


# What stores in ways of its own is tried on both engines; the rest is answered before the database is asked.
ON_BOTH = {
    "test_good_is_answered_after_its_commit",
    "test_delivered_five_times_at_once_it_is_stored_once",
    "test_the_same_mail_again_is_stored_once_and_a_reused_message_id_is_no_duplicate",
    "test_after_the_token_is_mended_a_replay_stores_what_was_refused",
    "test_bad_signatures_cannot_fill_the_disk",
    "test_what_cannot_be_parsed_is_taken_kept_and_replayable",
    "test_a_busy_database_asks_to_come_back_within_two_seconds",
    "test_a_reply_token_comes_back_by_mail_to_its_ticket",
    "test_one_person_on_sms_and_whatsapp_is_one_conversation",
    "test_characters_no_database_holds_are_replaced_and_the_message_is_kept",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "settings" in metafunc.fixturenames:
        both = metafunc.function.__name__ in ON_BOTH
        metafunc.parametrize("settings", ENGINES if both else ENGINES[:1], indirect=True)


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """The sandbox's channels, one that observes, some without a key, and one of SendGrid's."""
    config = write_config(tmp_path)
    with on_engine(config, request.param):
        yield load(config, {})


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Desk:
    """The hub under test, and requests made by hand."""

    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self.running = running
        self.hub = running.hub
        self.session = session

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Told:
        body = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.session.post(f"http://127.0.0.1:{self.running.port}{path}", data=body, headers=headers) as answer:
            return answer.status, await answer.text(), {name.lower(): value for name, value in answer.headers.items()}

    def form(self, sid: str, from_: str = ADA, body: str = "Where is my parcel?", to: str = "+15550100002", **more: str) -> dict[str, str]:
        fields = {"MessageSid": sid, "SmsStatus": "received", "AccountSid": ACCOUNT, "From": from_, "To": to, "Body": body, "NumMedia": "0"}
        return fields | more

    async def sms(self, fields: dict[str, str], channel: str = "sms", *, token: str | None = TOKEN, query: str = "") -> Told:
        """A Twilio webhook signed with `token`, or not at all."""
        url = f"{self.running.settings.server.public_url}/in/{channel}{query}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if token is not None:
            headers["X-Twilio-Signature"] = twilio_signature(token.encode(), url, fields.items())
        return await self.post(f"/in/{channel}{query}", urlencode(fields).encode(), headers)

    async def mail(self, message: EmailMessage | bytes, login: tuple[str, str] | None = LOGIN) -> Told:
        body = message if isinstance(message, bytes) else message.as_bytes()
        headers = {"Content-Type": "message/rfc822"}
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        return await self.post("/in/email", body, headers)

    async def parse_post(self, message: EmailMessage, login: tuple[str, str] | None) -> Told:
        """SendGrid's Inbound Parse with "send raw"."""
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("email", message.as_string())
        form.add_field("envelope", json.dumps({"to": ["support@shop.example"], "from": str(message["From"])}))
        form.add_field("SPF", "pass")
        auth = {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()} if login else {}
        return await self.post("/in/parse", form, auth)

    async def count(self, table: str, *conditions: Any) -> int:
        return int(await self.hub.reader.value(select(func.count()).select_from(T[table]).where(*conditions)))

    async def rows(self, table: str) -> Any:
        columns = T[table].c
        return await self.hub.reader.all(select(T[table]).order_by(columns.id))

    async def quarantined(self, channel: str) -> list[Any]:
        q = T["quarantine"]
        return list(await self.hub.reader.all(select(q).where(q.c.channel_id == self.hub.channels[channel].rule.id).order_by(q.c.id)))


@pytest.fixture
async def desk(running: Running, http: aiohttp.ClientSession) -> Desk:
    return Desk(running, http)


@asynccontextmanager
async def restarted(path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Desk]:
    running = Running(load(path, {}))
    await running.start()
    try:
        yield Desk(running, http)
    finally:
        await running.stop()


def mail(from_: str, subject: str = "Order 4711", to: str = "support@shop.example", dmarc: str = "pass", **headers: str) -> EmailMessage:
    message = EmailMessage()
    domain = from_.rpartition("@")[2]
    message["Authentication-Results"] = f"mx.shop.example; dmarc={dmarc} header.from={domain}"
    message["From"], message["To"], message["Subject"] = from_, to, subject
    message["Date"] = "Sun, 22 Nov 2026 12:00:00 +0000"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(f"A question about {subject} from {from_}.\n")
    return message


# --- good, and again ---


async def test_good_is_answered_after_its_commit(desk: Desk) -> None:
    status, body, headers = await desk.sms(desk.form("SM1"))
    assert (status, body, headers["content-type"]) == (200, "<Response/>", "text/xml; charset=utf-8")
    (raw,) = await desk.rows("raw_request")
    (said,) = await desk.rows("message")
    assert (raw.verdict, said.text, said.proof, said.raw_id) == ("good", "Where is my parcel?", "channel", raw.id)
    assert b"Where+is+my+parcel" in raw.body


async def test_delivered_five_times_at_once_it_is_stored_once(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.sms(desk.form("SM1")) for _ in range(5)))
    assert [answer[0] for answer in answers] == [200] * 5
    assert (await desk.sms(desk.form("SM1", Extra="a retry may carry more fields")))[0] == 200
    assert [await desk.count(table) for table in ("message", "raw_request", "ticket", "customer", "dedupe")] == [1] * 5


async def test_the_same_mail_again_is_stored_once_and_a_reused_message_id_is_no_duplicate(desk: Desk) -> None:
    first = mail("ada@example.com", Message_ID="<one@example.com>")
    for _ in range(3):
        assert (await desk.mail(first))[0] == 200
    assert (await desk.mail(mail("ada@example.com", "Another question", Message_ID="<one@example.com>")))[0] == 200
    assert await desk.count("message") == 2


async def test_credentials_are_never_kept_beside_a_good_request(desk: Desk) -> None:
    assert (await desk.mail(mail("ada@example.com")))[0] == 200
    (raw,) = await desk.rows("raw_request")
    assert "authorization" not in json.loads(raw.headers)
    assert LOGIN[1] not in raw.headers
    assert base64.b64encode(":".join(LOGIN).encode()).decode() not in raw.headers


async def test_a_large_body_lies_in_the_file_store(desk: Desk) -> None:
    large = mail("ada@example.com")
    large.add_attachment(b"x" * 300_000, maintype="image", subtype="png", filename="photo.png")
    assert (await desk.mail(large))[0] == 200
    (raw,) = await desk.rows("raw_request")
    assert raw.body is None
    assert desk.hub.blobs.get(raw.body_sha256) == large.as_bytes()
    (file,) = await desk.rows("attachment")
    assert desk.hub.blobs.get(file.sha256) == b"x" * 300_000


async def test_an_unknown_channel_is_not_there(desk: Desk) -> None:
    assert (await desk.post("/in/nowhere", b"x"))[0] == 404
    assert (await desk.post("/rooms/nowhere", b"x"))[0] == 404


# --- signatures ---


@pytest.mark.parametrize("token", ["a wrong token", None], ids=["wrong", "missing"])
async def test_a_bad_signature_is_refused_by_twilio_and_kept_in_red(token: str | None, desk: Desk) -> None:
    for _ in range(2):
        assert (await desk.sms(desk.form("SM1"), token=token))[0] == 403
    (row,) = await desk.quarantined("sms")
    assert (row.kind, row.state, row.reason) == ("signature", "waiting", f"The signature is {'wrong' if token else 'missing'}.")
    assert b"MessageSid=SM1" in row.body
    assert await desk.count("message") == await desk.count("dedupe") == 0


async def test_a_signature_over_another_address_or_body_is_bad(desk: Desk) -> None:
    fields = desk.form("SM1")
    url = f"{desk.running.settings.server.public_url}/in/sms"
    signed = twilio_signature(TOKEN.encode(), url, fields.items())
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signed}
    for path, body in (("/in/whatsapp", fields), ("/in/sms?x=1", fields), ("/in/sms", fields | {"Body": "Refund me"})):
        assert (await desk.post(path, urlencode(body).encode(), headers))[0] == 403
    forwarded = headers | {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Host": "evil.example"}
    assert (await desk.post("/in/sms", urlencode(fields).encode(), forwarded))[0] == 200, "only the configured address counts"
    assert await desk.count("message") == 1


async def test_after_the_token_is_mended_a_replay_stores_what_was_refused(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with restarted(write_config(tmp_path, sms={"auth_token": "mistyped"}), http) as desk:
        assert (await desk.sms(desk.form("SM1")))[0] == 403
        (row,) = await desk.quarantined("sms")
        assert "still wrong" in await webhooks.replay(desk.hub, row.id)
        assert await desk.count("message") == 0
        address = desk.running.settings.server.public_url
    path = write_config(tmp_path)
    path.write_text(path.read_text().replace(load(path, {}).server.public_url, address))
    async with restarted(path, http) as desk:
        assert await webhooks.replay(desk.hub, row.id) == "Replayed: the message is in its conversation."
        (said,) = await desk.rows("message")
        assert (said.text, said.proof) == ("Where is my parcel?", "channel")
        assert (await desk.quarantined("sms"))[0].state == "replayed"
        # Twilio sends it once more, and somebody replays it once more.
        assert (await desk.sms(desk.form("SM1")))[0] == 200
        assert await webhooks.replay(desk.hub, row.id) == "Replayed: it was known already, nothing is doubled."
        assert await desk.count("message") == 1
        assert await webhooks.replay(desk.hub, 404) == "There is no quarantined request 404."


async def test_raw_mail_with_wrong_credentials_is_401(desk: Desk) -> None:
    for login in (("sandbox", "wrong"), ("x", LOGIN[1]), None):
        assert (await desk.mail(mail("ada@example.com"), login))[0] == 401
    assert len(await desk.quarantined("email")) == 3
    assert await desk.count("message") == 0


async def test_sendgrid_is_asked_to_retry_until_one_delivery_verified_and_refused_after_that(desk: Desk) -> None:
    """403 loses a mail for good there, 503 is retried for 72 hours; a mistyped key looks just like a forgery."""
    for login in (("parse", "wrong"), None):
        assert (await desk.parse_post(mail("ada@example.com"), login))[0] == 503
    assert (await desk.parse_post(mail("ada@example.com"), PARSE_LOGIN))[0] == 200
    assert (await desk.parse_post(mail("ada@example.com", "Next"), ("parse", "wrong")))[0] == 403
    assert await desk.count("message") == 1
    assert [row.kind for row in await desk.quarantined("parse")] == ["signature"] * 3


async def test_new_credentials_have_verified_nothing_yet(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with restarted(write_config(tmp_path), http) as desk:
        assert (await desk.parse_post(mail("ada@example.com"), PARSE_LOGIN))[0] == 200
    async with restarted(write_config(tmp_path), http) as desk:
        assert (await desk.parse_post(mail("ada@example.com"), ("parse", "wrong")))[0] == 403, "remembered over a restart"
    async with restarted(write_config(tmp_path, parse={"basic_auth": "parse:changed"}), http) as desk:
        assert (await desk.parse_post(mail("ada@example.com"), PARSE_LOGIN))[0] == 503


async def test_slack_is_told_401(desk: Desk) -> None:
    assert (await desk.post("/rooms/slack", b"payload=%7B%7D", {"Content-Type": "application/x-www-form-urlencoded"}))[0] == 401
    stale = {"X-Slack-Request-Timestamp": "1", "X-Slack-Signature": "v0=00", "Content-Type": "application/x-www-form-urlencoded"}
    assert (await desk.post("/rooms/slack", b"payload=%7B%7D", stale))[0] == 401


@pytest.mark.parametrize("channel", ["keyless", "keyless-mail", "keyless-parse"])
async def test_without_a_key_nothing_is_accepted(channel: str, desk: Desk) -> None:
    status, body, _ = await desk.post(f"/in/{channel}", b"From=x", {"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 503
    assert channel in body
    assert "config.yaml" in body
    assert await desk.count("message") == await desk.count("quarantine") == 0


async def test_a_retry_that_a_proxy_stamped_anew_is_kept_once(desk: Desk) -> None:
    login = "Basic " + base64.b64encode(b"sandbox:a wrong password").decode()
    for trace in ("one", "two", "three"):
        headers = {
            "Content-Type": "message/rfc822",
            "Authorization": login,
            "X-Request-Id": trace,
            "X-Forwarded-For": f"10.0.0.{len(trace)}",
        }
        assert (await desk.post("/in/email", mail("ada@example.com").as_bytes(), headers))[0] == 401
    assert len(await desk.quarantined("email")) == 1
    other = {"Content-Type": "message/rfc822", "Authorization": "Basic " + base64.b64encode(b"sandbox:another").decode()}
    assert (await desk.post("/in/email", mail("ada@example.com").as_bytes(), other))[0] == 401
    assert len(await desk.quarantined("email")) == 2, "which of the two will verify one day nobody knows"


async def test_bad_signatures_cannot_fill_the_disk(desk: Desk) -> None:
    writer = desk.hub.writer
    assert isinstance(writer, SqliteWriter | PostgresWriter)
    writer.policy = replace(writer.policy, signatures_kept=3)
    await asyncio.gather(*(desk.sms(desk.form(f"SM{n}"), token="forged") for n in range(20)))
    assert len(await desk.quarantined("sms")) == 3
    assert (await desk.sms(desk.form("SM99", body="x" * 1_100_000), token="forged"))[0] == 403
    last = (await desk.quarantined("sms"))[-1]
    assert last.body is None
    assert "1.1 MB were not kept" in last.reason
    assert not [path for path in desk.running.settings.storage.files.rglob("*") if path.is_file()]
    assert "nothing to replay" in await webhooks.replay(desk.hub, last.id)


async def test_a_channel_that_observes_accepts_proves_nothing_and_enforces_once_one_verified(desk: Desk) -> None:
    assert (await desk.sms(desk.form("SM0")))[0] == 200  # Ada, proved, elsewhere
    assert (await desk.sms(desk.form("SM1", to="+15550100003"), "observed", token="mistyped"))[0] == 200
    assert (await desk.sms(desk.form("SM2", to="+15550100003"), "observed", token=None))[0] == 200
    said = await desk.rows("message")
    assert [row.proof for row in said] == ["channel", "claimed", "claimed"]
    assert [row.conversation_id for row in said] == [1, 2, 2], "an unproved Ada sees nothing of Ada's"
    assert [row.verdict for row in await desk.rows("raw_request")] == ["good", "bad", "unsigned"]
    # What cannot be read and does not verify gains no weight by it.
    assert (await desk.sms({"Foo": "bar"}, "observed", token="mistyped"))[0] == 200
    (row,) = await desk.quarantined("observed")
    assert row.kind == "signature"
    assert "still wrong" in await webhooks.replay(desk.hub, row.id)
    # It was answered 200, so all of it is here, however large.
    assert (await desk.sms({"Foo": "b" * 1_100_000}, "observed", token="mistyped"))[0] == 200
    large = (await desk.quarantined("observed"))[-1]
    assert len(desk.hub.blobs.get(large.body_sha256)) == len("Foo=") + 1_100_000
    # The first that verifies ends the observing.
    assert (await desk.sms(desk.form("SM3", to="+15550100003"), "observed"))[0] == 200
    assert (await desk.sms(desk.form("SM4", to="+15550100003"), "observed", token="mistyped"))[0] == 403
    assert (await desk.rows("message"))[-1].conversation_id == 1
    assert await desk.count("message") == 4


async def test_an_observed_status_changes_nothing(desk: Desk) -> None:
    assert (await desk.sms(desk.form("SM1")))[0] == 200
    sandbox = desk.running.sandbox
    assert sandbox is not None
    await desk.hub.writer.run(Reply(1, 1, "Tomorrow.", "draft"))
    await sandbox.state.wait_for(lambda: len(sandbox.state.callbacks) >= 2)
    before = await desk.hub.reader.value(select(T["message"].c.status).where(T["message"].c.direction == "out"))
    assert before == "delivered"
    forged = {"MessageSid": sandbox.state.twilio_messages[0].sid, "MessageStatus": "read", "To": ADA, "From": "+15550100003"}
    delivery = await desk.hub.reader.value(select(T["delivery"].c.id).where(T["delivery"].c.kind == "reply"))
    for token, status in (("mistyped", 200), (TOKEN, 200)):
        assert (await desk.sms(forged, "observed", token=token, query=f"?delivery={delivery}"))[0] == status
        assert await desk.hub.reader.value(select(T["message"].c.status).where(T["message"].c.direction == "out")) == before


# --- what cannot be understood ---


async def test_what_cannot_be_parsed_is_taken_kept_and_replayable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await desk.sms({"AccountSid": ACCOUNT, "Hello": "world"}))[0] == 200
    (row,) = await desk.quarantined("sms")
    assert (row.kind, row.state) == ("unparseable", "waiting")
    assert "MessageSid" in row.reason
    assert (await webhooks.replay(desk.hub, row.id)).startswith("Still not understood")
    assert (await desk.quarantined("sms"))[0].state == "waiting"
    # Our parser learns to read it.
    connector = desk.hub.channels["sms"].connector
    parse = type(connector).parse
    fields = desk.form("SM9", body="understood at last")

    def mended(self: Any, request: Any) -> Any:
        return parse(self, replace(request, body=urlencode(fields).encode()))

    monkeypatch.setattr(type(connector), "parse", mended)
    assert await webhooks.replay(desk.hub, row.id) == "Replayed: the message is in its conversation."
    assert (await desk.rows("message"))[0].text == "understood at last"
    assert (await desk.quarantined("sms"))[0].state == "replayed"


@pytest.mark.parametrize("where", ["parser", "decision"])
async def test_a_fault_of_our_own_is_no_crash_loop_and_loses_nothing(where: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("a bug")

    if where == "parser":
        monkeypatch.setattr(type(desk.hub.channels["sms"].connector), "parse", broken)
    else:
        monkeypatch.setattr(ingest_module, "preview", broken)
    assert (await desk.sms(desk.form("SM1")))[0] == 200
    assert await desk.count("message") == 0
    (row,) = await desk.quarantined("sms")
    assert row.kind == "unparseable"
    assert "KeyError" in row.reason
    assert (await webhooks.replay(desk.hub, row.id)).startswith("Still not understood")
    monkeypatch.undo()
    assert await webhooks.replay(desk.hub, row.id) == "Replayed: the message is in its conversation."
    assert await desk.count("message") == 1


async def test_a_sender_without_a_usable_address_is_kept_aside_not_dropped(desk: Desk) -> None:
    """Twilio spells a withheld number in digits that are no number: +266696687 is ANONYMOUS."""
    assert (await desk.sms(desk.form("SM1", "+266696687")))[0] == 200
    (row,) = await desk.quarantined("sms")
    assert row.kind == "unparseable"
    assert "sender's address" in row.reason
    assert await desk.count("message") == await desk.count("customer") == 0


async def test_mail_that_is_no_mail_is_kept_in_quarantine(desk: Desk) -> None:
    assert (await desk.mail(b"\x00\xff this is no mail"))[0] == 200
    assert (await desk.mail(b"Subject: nobody wrote this\r\n\r\nHello\r\n"))[0] == 200
    assert [row.kind for row in await desk.quarantined("email")] == ["unparseable"] * 2


# --- too big, busy, going away ---


@pytest.mark.parametrize(
    ("path", "declared", "status"),
    [("/in/sms", True, 413), ("/in/sms", False, 413), ("/in/parse", True, 200), ("/in/parse", False, 200), ("/rooms/slack", True, 413)],
)
async def test_too_big_is_refused_unread_and_leaves_a_stub(
    path: str, declared: bool, status: int, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "HARD_CAP", 100_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 1_000

    body = b"x" * 200_000 if declared else pieces()
    assert (await desk.post(path, body))[0] == status
    stubs = [row for channel in ("sms", "parse") for row in await desk.quarantined(channel)]
    assert [row.kind for row in stubs] == ([] if path.startswith("/rooms") else ["oversize"])
    for stub in stubs:
        assert stub.body is None
        assert "nothing to replay" in await webhooks.replay(desk.hub, stub.id)


async def hog(settings: Settings) -> Callable[[], Awaitable[None]]:
    """Keep everybody from writing until what this returns is called."""
    if settings.database_url is not None:
        other = await asyncpg.connect(settings.database_url.get_secret_value())
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")
        return other.close
    connection = sqlite3.connect(settings.storage.database, isolation_level=None, timeout=5)
    connection.execute("BEGIN IMMEDIATE")

    async def let_go() -> None:
        connection.execute("ROLLBACK")
        connection.close()

    return let_go


async def test_a_busy_database_asks_to_come_back_within_two_seconds(desk: Desk) -> None:
    let_go = await hog(desk.running.settings)
    began = time.monotonic()
    answers = await asyncio.gather(*(desk.sms(desk.form(f"SM{n}")) for n in range(3)))
    assert time.monotonic() - began < 4, "two seconds, and what a busy machine adds"
    assert [status for status, _, _ in answers] == [503] * 3
    assert {headers["retry-after"] for _, _, headers in answers} == {"2"}
    await let_go()
    # It comes back, and what may have been stored after all is not doubled.
    for number in range(3):
        assert (await desk.sms(desk.form(f"SM{number}")))[0] == 200
    assert await desk.count("message") == 3


async def test_a_large_mail_that_takes_long_to_read_is_kept_whole_and_not_asked_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to come back, it would take as long every time, and be lost when its sender gives up."""
    large = mail("ada@example.com")
    large.add_attachment(b"x" * 100_000, maintype="image", subtype="png", filename="photo.png")
    release = threading.Event()
    connector = type(desk.hub.channels["email"].connector)
    parse = connector.parse

    def slow(self: Any, request: Any) -> Any:
        release.wait(60)
        return parse(self, request)

    with monkeypatch.context() as patched:
        patched.setattr(connector, "parse", slow)
        patched.setattr(webhooks, "PATIENCE", 0.001)  # a small request's: a large one is not held to it
        patched.setattr(webhooks._understand, "__defaults__", (0.01,))
        assert (await desk.mail(large))[0] == 200
        release.set()
    (row,) = await desk.quarantined("email")
    assert (row.kind, row.state) == ("unparseable", "waiting")
    assert "longer than 0.01 s" in row.reason
    assert desk.hub.blobs.get(row.body_sha256) == large.as_bytes()
    assert await desk.count("message") == 0
    assert await webhooks.replay(desk.hub, row.id) == "Replayed: the message is in its conversation."
    assert await desk.count("message") == 1


async def test_a_full_file_store_is_busy_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes) -> str:
        raise OSError(28, "No space left on device")

    large = mail("ada@example.com")
    large.add_attachment(b"x" * 100_000, maintype="image", subtype="png", filename="photo.png")
    with monkeypatch.context() as patched:
        patched.setattr(desk.hub.blobs, "put", full)
        status, _, headers = await desk.mail(large)
    assert (status, headers["retry-after"]) == (503, "2")
    assert await desk.count("message") == 0
    assert (await desk.mail(large))[0] == 200
    assert await desk.count("message") == 1


async def test_a_hub_that_is_going_away_says_so(desk: Desk) -> None:
    await desk.hub.writer.close()
    status, _, headers = await desk.sms(desk.form("SM1"))
    assert (status, headers["retry-after"]) == (503, "2")


# --- mail: threads, tokens, doubt ---


async def to_answer(desk: Desk, address: str) -> str:
    """A mail from this address and our answer to it: the Reply-To of that answer."""
    sandbox = desk.running.sandbox
    assert sandbox is not None
    state, many = sandbox.state, len(sandbox.state.mails)
    assert (await desk.mail(mail(address, f"From {address}")))[0] == 200
    ticket = await desk.hub.reader.value(select(func.max(T["ticket"].c.id)))
    await desk.hub.writer.run(Reply(ticket, 1, "We look into it.", f"draft-{address}"))
    await state.wait_for(lambda: len(state.mails) > many)
    return state.mails[-1].reply_to


async def last_message(desk: Desk) -> Any:
    return (await desk.rows("message"))[-1]


async def test_a_reply_token_comes_back_by_mail_to_its_ticket(desk: Desk) -> None:
    reply_to = await to_answer(desk, "ada@example.com")
    assert reply_to.startswith("support+")
    # No In-Reply-To, another subject, upper case as some servers write it: the token alone leads home.
    assert (await desk.mail(mail("ada@example.com", "Completely different", to=reply_to.upper())))[0] == 200
    said = await last_message(desk)
    assert (said.ticket_id, said.conversation_id) == (1, 1)
    await desk.hub.writer.run(Resolve(1, 1))
    assert (await desk.mail(mail("ada@example.com", "Again", to=reply_to)))[0] == 200
    assert [row.status for row in await desk.rows("ticket")] == ["open"]


@pytest.mark.parametrize("dmarc", ["pass", "none", "fail"])
@pytest.mark.parametrize("how", ["token", "forged token", "message id", "references"])
async def test_somebody_elses_ticket_opens_nothing_whatever_is_quoted(how: str, dmarc: str, desk: Desk) -> None:
    reply_to = await to_answer(desk, "victim@example.com")
    await desk.hub.writer.run(Resolve(1, 1))
    ours = await desk.hub.reader.value(select(T["message"].c.mail_id).where(T["message"].c.direction == "out"))
    more = {
        "token": {"to": reply_to},
        "forged token": {"to": "support+1.1.aaaaaaaaaaaaaaaaaaaaaaaaaa@shop.example"},
        "message id": {"In_Reply_To": ours},
        "references": {"References": f"<x@y.example> {ours}"},
    }[how]
    assert (await desk.mail(mail("mallory@example.net", "Re: From victim", dmarc=dmarc, **more)))[0] == 200
    said = await last_message(desk)
    assert (said.ticket_id, said.conversation_id) == (2, 2)
    assert [row.status for row in await desk.rows("ticket")] == ["resolved", "open"]
    # Nor does the victim's name on a mail that fails to prove it. Where nobody can say, it threads by what only the victim was sent, and
    # still proves nothing.
    if dmarc != "pass":
        assert (await desk.mail(mail("victim@example.com", "Re: From victim", dmarc=dmarc, **more)))[0] == 200
        said = await last_message(desk)
        threads = dmarc == "none" and how != "forged token"
        assert (said.conversation_id, said.placed, said.proof) == (1 if threads else 3, threads, "claimed")
        assert (await desk.rows("ticket"))[0].status == ("open" if threads else "resolved")


async def test_mail_that_fails_dmarc_carries_its_doubt_and_an_asserted_customer_of_its_own(desk: Desk) -> None:
    sandbox = desk.running.sandbox
    assert sandbox is not None
    assert (await sandbox.mail("ada@example.com", "Ada", "Real", "It is me")).status == 200
    assert (await sandbox.mail("ada@example.com", "Ada", "Forged", "Send me the history", dmarc="fail")).status == 200
    genuine, forged = await desk.rows("message")
    assert (genuine.doubt, genuine.proof, genuine.conversation_id) == ("", "dmarc", 1)
    assert forged.doubt
    assert (forged.proof, forged.conversation_id) == ("claimed", 2)
    standings = {(row.value, row.standing, row.customer_id) for row in await desk.rows("identifier")}
    assert standings == {("ada@example.com", "proven", 1), ("ada@example.com", "asserted", 2)}


async def test_one_person_on_sms_and_whatsapp_is_one_conversation(desk: Desk) -> None:
    sandbox = desk.running.sandbox
    assert sandbox is not None
    assert (await sandbox.sms(ADA, "By SMS")).status == 200
    assert (await sandbox.whatsapp(ADA, "By WhatsApp", "Ada")).status == 200
    assert (await sandbox.sms(BOB, "Another person")).status == 200
    assert [row.conversation_id for row in await desk.rows("message")] == [1, 1, 2]


async def test_characters_no_database_holds_are_replaced_and_the_message_is_kept(desk: Desk) -> None:
    """PostgreSQL refuses NUL in a text: the customer must not hear of that, and no engine may hold another text than the other."""
    said = InboundMessage(
        provider_key="nul-\0",
        claims=(Claim("phone", ADA, Proof.CHANNEL),),
        text="before\0after \ud800",
        subject="a\0b",
        references=("<a\0@b>",),
        attachments=(Attachment("n\0.txt", "text/plain", b"data"),),
    )
    for _ in range(2):
        await webhooks.ingest(desk.hub, desk.hub.channels["sms"], [said], trusted=True, raw=None)
    assert [(row.text, row.subject) for row in await desk.rows("message")] == [("before\ufffdafter \ufffd", "a\ufffdb")]
    assert [row.name for row in await desk.rows("attachment")] == ["n\ufffd.txt"]
