"""The hub's own SMTP port: spoken to by a real client, confirming nothing that is not stored and relaying nothing."""

import asyncio
import contextlib
import smtplib
import ssl

import aiosmtplib
import pytest
from pydantic import ValidationError

from connectors import CHANNELS, load
from connectors.email import listener
from connectors.email.listener import SmtpListener
from connectors.email.taken_in import request_of
from hub.contract import Advises, Answer, InboundMessage, Listens, Place, Proof, Refused, Request, TryLater, Verdict
from tests.connectors.test_email_smtp import certificate  # noqa: F401  (a fixture)

PLACE = Place(name="mx", inbound_url="https://hub.example/in/mx", key=b"k" * 32)
MAIL = (
    b"From: Ana <ana@shop.example>\r\nTo: support@hub.example\r\nSubject: Hello\r\nMessage-ID: <1@shop.example>\r\n"
    b"\r\n.dot\r\nWhere is it?\r\n"
)


def channel(**extra: object) -> SmtpListener:
    known = {"type": "smtp_listener", "address": "support@hub.example", "smtp": {"host": "127.0.0.1", "security": "none"}}
    return SmtpListener(SmtpListener.Settings(**(known | {"host": "127.0.0.1", "port": 0} | extra)), PLACE)


class Hub:
    """Stores what verifies and parses, or answers as told."""

    def __init__(self, connector: SmtpListener, *answers: int) -> None:
        self.connector = connector
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.fault: Exception | None = None
        self.before_storing = asyncio.Event()
        self.before_storing.set()

    async def deliver(self, request: Request) -> Answer:
        assert self.connector.verify(request, 0.0) is Verdict.GOOD
        await self.before_storing.wait()
        if self.fault is not None:
            raise self.fault
        self.requests.append(request)
        return Answer(self.answers.pop(0) if self.answers else 200)

    def said(self) -> list[InboundMessage]:
        return [said for request in self.requests for said in self.connector.parse(request) if isinstance(said, InboundMessage)]


@contextlib.asynccontextmanager
async def listening(*answers: int, **extra: object):
    connector = channel(**extra)
    hub = Hub(connector, *answers)
    task = asyncio.create_task(connector.listen(hub.deliver, None, None))
    try:
        async with asyncio.timeout(10):
            while not connector.port:
                assert not task.done(), task.exception()
                await asyncio.sleep(0)
        hub.task = task
        yield hub
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def client(hub: Hub, **options: object):
    made = aiosmtplib.SMTP(
        hostname="127.0.0.1", port=hub.connector.port, timeout=10, local_hostname="mx.shop.example", **({"start_tls": False} | options)
    )
    await made.connect()
    try:
        yield made
    finally:
        with contextlib.suppress(aiosmtplib.SMTPException):
            await made.quit()
        made.close()


async def hand_over(hub: Hub, mail: bytes = MAIL, sender: str = "ana@shop.example", to: str = "support@hub.example") -> str:
    async with client(hub) as own:
        await own.ehlo()
        await own.mail(sender)
        await own.rcpt(to)
        return (await own.data(mail)).message


def test_it_is_a_channel_that_listens():
    assert load(CHANNELS["smtp_listener"]) is SmtpListener
    assert isinstance(channel(), Listens)
    assert isinstance(channel(), Advises)
    assert channel(hostname="mx.hub.example", port=2525).to_paste() == [
        ("MX record", "hub.example. MX 10 mx.hub.example. (this machine, port 2525)")
    ]


async def test_a_mail_is_taken_in_byte_by_byte_with_its_envelope():
    async with listening() as hub:
        assert "stored" in await hand_over(hub, to="Support+Tok.7@HUB.example")
    (request,) = hub.requests
    assert request.body == MAIL
    assert (request.headers["x-envelope-from"], request.headers["x-envelope-to"]) == ("<ana@shop.example>", "Support+Tok.7@HUB.example")
    (said,) = hub.said()
    assert (said.claims[0].value, said.text, said.reply_token, said.automatic) == ("ana@shop.example", ".dot\nWhere is it?\n", "Tok.7", "")


async def test_it_is_confirmed_when_it_is_on_disk_and_not_before():
    async with listening() as hub:
        hub.before_storing.clear()
        handing = asyncio.create_task(hand_over(hub))
        done, _ = await asyncio.wait([handing], timeout=0.1)
        assert not done
        hub.before_storing.set()
        assert "stored" in await handing


@pytest.mark.parametrize("status", [503, 500, 401])
async def test_what_is_not_stored_stays_with_whoever_sent_it(status):
    async with listening(status) as hub:
        with pytest.raises(aiosmtplib.SMTPDataError) as raised:
            await hand_over(hub)
        assert raised.value.code == 451
        assert "stored" in await hand_over(hub)
    assert len(hub.requests) == 2


async def test_a_fault_of_ours_keeps_the_mail_with_its_sender():
    async with listening() as hub:
        hub.fault = ValueError("a fault with a s3cret in it")
        with pytest.raises(aiosmtplib.SMTPDataError) as raised:
            await hand_over(hub)
    assert (raised.value.code, "s3cret" in raised.value.message) == (451, False)


STRANGERS = [
    "ana@shop.example",
    "support@shop.example",
    "supporter@hub.example",
    "support@sub.hub.example",
    "support%shop.example@hub.example.evil",
    "@shop.example:support@elsewhere.example",
    "info@hub.example",
]


@pytest.mark.parametrize("to", STRANGERS)
async def test_it_relays_for_nobody(to):
    async with listening() as hub, client(hub) as own:
        await own.ehlo()
        await own.mail("ana@shop.example")
        code = (await own.execute_command(b"RCPT", f"TO:<{to}>".encode())).code
        assert 500 <= code < 600
        assert (await own.execute_command(b"DATA")).code == 503
    assert hub.requests == []


async def test_a_null_return_path_is_a_machines():
    async with listening() as hub:
        await hand_over(hub, sender="")
        await hand_over(hub)
    assert [(request.headers["x-envelope-from"], said.automatic) for request, said in zip(hub.requests, hub.said(), strict=True)] == [
        ("<>", "auto-reply"),
        ("<ana@shop.example>", ""),
    ]


async def test_a_mail_too_large_is_refused_when_it_is_announced_and_when_it_is_not():
    async with listening(max_bytes=2_000) as hub, client(hub) as own:
        assert (await own.ehlo()).code == 250
        assert own.esmtp_extensions["size"] == "2000"
        with pytest.raises(aiosmtplib.SMTPResponseException) as raised:
            await own.mail("ana@shop.example", options=["size=2001"])
        assert raised.value.code == 552
        await own.mail("ana@shop.example")
        await own.rcpt("support@hub.example")
        with pytest.raises(aiosmtplib.SMTPDataError) as raised:
            await own.data(MAIL + b"x\r\n" * 1_000)
        assert raised.value.code == 552
        await own.mail("ana@shop.example")
        await own.rcpt("support@hub.example")
        await own.data(MAIL)  # and the connection goes on
    assert len(hub.requests) == 1


async def test_long_lines_and_bytes_of_any_kind_are_taken():
    odd = MAIL + b"\xff\x00\xe4" + b"x" * 60_000 + b"\r\n"
    async with listening() as hub:
        await hand_over(hub, odd)
    assert hub.requests[0].body == odd


@pytest.mark.parametrize(("hops", "taken"), [(50, True), (51, False)])
async def test_a_mail_that_goes_in_circles_is_stopped(hops, taken):
    mail = b"Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0000\r\n" * hops + MAIL + b"Received: in a body counts for nothing\r\n"
    async with listening() as hub:
        if taken:
            await hand_over(hub, mail)
        else:
            with pytest.raises(aiosmtplib.SMTPDataError) as raised:
                await hand_over(hub, mail)
            assert raised.value.code == 554
    assert len(hub.requests) == int(taken)


async def test_one_connection_too_many_is_sent_away_and_room_is_made_again():
    async with listening(connections=2) as hub:
        async with client(hub), client(hub):
            with pytest.raises(aiosmtplib.SMTPException) as raised:
                await hand_over(hub)
            assert "421" in str(raised.value) or raised.value.code == 421
        assert "stored" in await hand_over(hub)


async def test_nothing_but_a_mail_is_taken_no_login_no_lists_of_names():
    async with listening() as hub, client(hub) as own:
        await own.ehlo()
        assert "auth" not in own.esmtp_extensions
        for command in (b"AUTH PLAIN AGEAYg==", b"EXPN all", b"ETRN x", b"HELP " + b"x" * 600, b"GET / HTTP/1.1"):
            assert (await own.execute_command(command)).code >= 500
        assert (await own.execute_command(b"VRFY", b"ana@shop.example")).code in (252, 502)


async def test_no_mail_is_smuggled_in_behind_the_end_of_another():
    """CVE-2023-51764 and its kin: only CRLF, a full stop, CRLF ends a mail."""
    async with listening() as hub:
        for end in (b"\n.\n", b"\n.\r\n", b"\r.\r"):
            smuggled = (
                MAIL + b"x" + end + b"MAIL FROM:<eve@evil.example>\r\nRCPT TO:<support@hub.example>\r\nDATA\r\nFrom: x@y.example\r\n\r\nx"
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.connector.port)
            await reader.readline()
            for line in (b"HELO x", b"MAIL FROM:<ana@shop.example>", b"RCPT TO:<support@hub.example>", b"DATA"):
                writer.write(line + b"\r\n")
                await reader.readline()
            writer.write(smuggled + b"\r\n.\r\n")
            assert (await reader.readline()).startswith(b"250")
            writer.write(b"QUIT\r\n")
            assert (await reader.readline()).startswith(b"221")
            writer.close()
            await writer.wait_closed()
    assert [request.headers["x-envelope-from"] for request in hub.requests] == ["<ana@shop.example>"] * 3


async def test_a_silent_connection_is_closed(monkeypatch):
    monkeypatch.setattr(listener, "IDLE", 0.05)
    async with listening() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.connector.port)
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"220 hub.example")
        writer.close()


async def test_a_mail_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(listener, "WHOLE_MAIL", 0.05)
    async with listening() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.connector.port)
        for line in (b"HELO x", b"MAIL FROM:<a@b.example>", b"RCPT TO:<support@hub.example>", b"DATA", b"Subject: slow"):
            writer.write(line + b"\r\n")
        async with asyncio.timeout(10):
            assert b"354" in await reader.read()
        writer.close()
    assert hub.requests == []


async def test_stopping_ends_every_connection_and_what_was_not_confirmed_comes_again():
    async with listening() as hub:
        hub.before_storing.clear()
        handing = asyncio.create_task(hand_over(hub))
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.connector.port)
        await reader.readline()
        await asyncio.sleep(0.05)
        hub.task.cancel()
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"421")
            with pytest.raises(aiosmtplib.SMTPException):
                await handing
        writer.close()
    assert hub.requests == []


@pytest.mark.parametrize("starttls", ["optional", "required"])
async def test_starttls(starttls, certificate, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    keys = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    async with listening(starttls=starttls, **keys) as hub:
        async with client(hub, start_tls=True) as own:
            await own.mail("ana@shop.example")
            await own.rcpt("support@hub.example")
            await own.data(MAIL)
            assert "auth" not in own.esmtp_extensions
        if starttls == "optional":
            await hand_over(hub)
        else:
            with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
                await hand_over(hub)
    assert len(hub.requests) == (2 if starttls == "optional" else 1)


async def test_words_said_before_the_encryption_count_for_nothing(certificate):  # noqa: F811
    """CVE-2011-0411: a command slipped in behind STARTTLS must not run inside the encrypted session."""
    async with listening(starttls="optional", certificate=str(certificate[0]), key=str(certificate[1])) as hub:

        def attack() -> bytes:
            with smtplib.SMTP("127.0.0.1", hub.connector.port, timeout=10) as own:
                own.ehlo()
                own.sock.sendall(b"STARTTLS\r\nMAIL FROM:<eve@evil.example>\r\n")
                assert own.getreply()[0] == 220
                context = ssl.create_default_context(cafile=certificate[0])
                own.sock = context.wrap_socket(own.sock, server_hostname="127.0.0.1")
                own.file = None
                own.ehlo()
                code, words = own.docmd("RCPT", "TO:<support@hub.example>")
                return str(code).encode() + words

        assert (await asyncio.to_thread(attack)).startswith(b"503")


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(Refused, match="certificate"):
        await channel(starttls="required", certificate=str(tmp_path / "no.pem"), key=str(tmp_path / "no.key")).listen(None, None, None)


async def test_a_port_somebody_else_has_is_tried_again_later():
    async with listening() as hub:
        with pytest.raises(TryLater, match="cannot listen"):
            await channel(port=hub.connector.port).listen(hub.deliver, None, None)


@pytest.mark.parametrize(
    "wrong", [{"starttls": "required"}, {"starttls": "maybe"}, {"max_bytes": 10}, {"connections": 0}, {"port": 70_000}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValidationError):
        channel(**wrong)


# --- The request in between ------------------------------------------------------------------------------------------


def test_the_same_request_from_outside_does_not_verify():
    connector = channel()
    good = request_of(PLACE, MAIL, envelope_from="ana@shop.example", envelope_to=["support+tok@hub.example"])
    assert connector.verify(good, 0.0) is Verdict.GOOD
    without = {name: value for name, value in good.headers.items() if name != "x-hub-taken-in"}
    assert connector.verify(Request("POST", good.url, without, good.body), 0.0) is Verdict.UNSIGNED
    forged = [
        Request("POST", good.url, good.headers, good.body + b"x"),
        Request("POST", good.url, {**good.headers, "x-envelope-from": "<>"}, good.body),
        Request("POST", good.url, {**good.headers, "x-envelope-to": "support+other@hub.example"}, good.body),
        Request("POST", good.url, {**good.headers, "x-hub-taken-in": "ü"}, good.body),
        request_of(Place("mx", PLACE.inbound_url, b"another key"), MAIL, envelope_from="ana@shop.example"),
    ]
    assert [connector.verify(request, 0.0) for request in forged] == [Verdict.BAD] * len(forged)


VERDICT = b"Authentication-Results: filter.hub.example; dmarc=pass header.from=shop.example\r\n"


@pytest.mark.parametrize(
    ("authserv_id", "proof"), [("filter.hub.example", Proof.DMARC), ("", Proof.CLAIMED), ("other.example", Proof.CLAIMED)]
)
def test_a_verdict_counts_only_where_the_settings_name_the_filter_that_wrote_it(authserv_id, proof):
    connector = channel(authserv_id=authserv_id)
    (said,) = connector.parse(request_of(PLACE, VERDICT + MAIL))
    assert isinstance(said, InboundMessage)
    assert said.claims[0].proof is proof
    assert ("filter.hub.example" in connector.what_is_checked()) == (authserv_id == "filter.hub.example")


def test_without_a_verdict_a_signed_mail_waits_for_its_own_signature_to_be_checked():
    signed = b"DKIM-Signature: v=1; a=rsa-sha256; d=shop.example; s=k; h=from; bh=eA==; b=eA==\r\n" + MAIL
    (said,) = channel().parse(request_of(PLACE, signed))
    assert isinstance(said, InboundMessage)
    assert (said.unchecked, said.claims[0].proof) == (True, Proof.CLAIMED)
