"""Mail out: what a real SMTP server receives, what its answers mean, and that nobody's text becomes a header."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from ipaddress import ip_address

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.email.raw import RawEmail
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import read_mail, to_message
from connectors.shared.smtp import MOST, SmtpPool, build, recipient
from hub.contract import MessageStatus, OutboundAttachment, OutboundMessage, Place, Refused, TryLater, Unknown

PLACE = Place(name="mail", inbound_url="https://hub.example/in/mail", key=b"k" * 32)
SECRET = "s3cret"


def email_settings(**extra) -> EmailSettings:
    known = {"type": "email", "address": "support@hub.example", "sender_name": "Shop Support"}
    return RawEmail.Settings(**(known | {"smtp": {"host": "127.0.0.1", "security": "none"}} | extra))


def mailbox(address: str) -> EmailSettings:
    return email_settings(address=address)


def outbound(**extra) -> OutboundMessage:
    return OutboundMessage(
        **({"delivery_id": 7, "to": "ana@shop.example", "text": "Hello Ana,\nit is on its way.", "subject": "Re: Hello"} | extra)
    )


def attachment(name="bill.pdf", kind="application/pdf", data=b"%PDF\x00\xff") -> OutboundAttachment:
    return OutboundAttachment(name=name, content_type=kind, size=len(data), read=lambda: data, public_url="https://hub.example/f/1")


def lines(part) -> str:
    return part.get_content().replace("\r\n", "\n")


# --- The bytes -------------------------------------------------------------------------------------------------------


def test_an_answer_carries_text_html_quote_attachment_and_thread():
    raw = build(
        outbound(
            text="Grüße <b>\n> not a quote\n.dot",
            subject="Re: Café order",
            quoted="where is it?\n\nAna & co",
            attachments=(attachment(), attachment("rechnung €.txt", "text/plain", "ä".encode())),
            message_id="<7.hub@hub.example>",
            in_reply_to="<1@shop.example>",
            references=("<0@shop.example>", "<1@shop.example>"),
            reply_token="tok-1.AB_c",
        ),
        email_settings(),
    )
    found = message_from_bytes(raw, policy=policy.default)
    assert not found.defects
    assert {name: str(found[name]) for name in ("From", "To", "Subject", "Reply-To", "Message-ID", "In-Reply-To", "References")} == {
        "From": "Shop Support <support@hub.example>",
        "To": "ana@shop.example",
        "Subject": "Re: Café order",
        "Reply-To": "support+tok-1.AB_c@hub.example",
        "Message-ID": "<7.hub@hub.example>",
        "In-Reply-To": "<1@shop.example>",
        "References": "<0@shop.example> <1@shop.example>",
    }
    assert found["Date"].datetime is not None
    assert found["Auto-Submitted"] is None  # a person wrote it
    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert lines(plain) == "Grüße <b>\n> not a quote\n.dot\n\n> where is it?\n>\n> Ana & co\n"
    html = lines(rich)
    assert "Grüße &lt;b&gt;<br>" in html
    assert "<blockquote>where is it?<br>\n<br>\nAna &amp; co</blockquote>" in html
    assert [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in found.iter_attachments()] == [
        ("bill.pdf", "application/pdf", b"%PDF\x00\xff"),
        ("rechnung €.txt", "text/plain", "ä".encode()),
    ]
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998  # RFC 5322 section 2.1.1
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")


def test_what_we_send_our_own_reader_reads():
    headers, body = read_mail(
        build(outbound(message_id="<7@hub.example>", subject="Ünï =?utf-8?q?x?=", attachments=(attachment(),)), email_settings())
    )
    found = to_message(headers, body, Judgement(), mailbox=mailbox("ana@shop.example"))
    assert (found.claims[0].value, found.sender_name, found.subject) == ("support@hub.example", "Shop Support", "Ünï =?utf-8?q?x?=")
    assert (found.message_id, found.automatic) == ("<7@hub.example>", "")
    assert [item.data for item in found.attachments] == [b"%PDF\x00\xff"]


@pytest.mark.parametrize("name", ['Shop "S" \\\\ Co', "=?utf-8?q?eve?=", "Ünï", "a" * 100, "<eve@evil.example>", "a@b, c"])
def test_the_name_people_see_comes_back_the_same(name):
    headers, body = read_mail(build(outbound(), email_settings(sender_name=name)))
    found = to_message(headers, body, Judgement(), mailbox=mailbox("ana@shop.example"))
    assert (found.sender_name, found.claims[0].value, found.doubt) == (name, "support@hub.example", "")


def test_nothing_is_written_for_what_is_not_given():
    found = message_from_bytes(build(outbound(), email_settings(sender_name="")), policy=policy.default)
    assert sorted(found.keys()) == ["Content-Type", "Date", "From", "MIME-Version", "Subject", "To"]
    assert found["From"] == "support@hub.example"


def test_the_agents_name_signs_where_the_channel_has_none():
    raw = build(outbound(sender_name='Mia "M" Ö'), email_settings(sender_name=""))
    (mailbox,) = message_from_bytes(raw, policy=policy.default)["From"].addresses
    assert (mailbox.display_name, mailbox.addr_spec) == ('Mia "M" Ö', "support@hub.example")


def test_long_threads_keep_their_first_and_latest_references():
    ids = tuple(f"<{number}@shop.example>" for number in range(100))
    found = message_from_bytes(build(outbound(references=ids), email_settings()), policy=policy.default)
    assert found["References"].split() == [ids[0], *ids[-19:]]


@pytest.mark.parametrize("kind", ["message/rfc822", "multipart/mixed; boundary=x", "nonsense", "text/html\r\nX: y"])
def test_an_attachment_never_becomes_part_of_the_mails_structure(kind):
    found = message_from_bytes(build(outbound(attachments=(attachment("a\r\nX: y.bin", kind),)), email_settings()), policy=policy.default)
    (part,) = found.iter_attachments()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_filename() == "a X: y.bin"
    assert "X" not in part


BREAKS = ["a\r\nBcc: eve@evil.example", "a\nb", "a\rb", "a\x00b", "a\x0bb", "a\u2028b", "a\u2029b", "a\x85b", "a\ud800b"]


@pytest.mark.parametrize("text", BREAKS, ids=ascii)
@pytest.mark.parametrize("field", ["subject", "to", "message_id", "in_reply_to", "references", "reply_token"])
def test_a_line_break_or_control_character_in_a_header_refuses_the_mail(field, text):
    value = {"to": f"ana{text}@shop.example", "references": (f"<{text}@x>",)}.get(
        field, f"<{text}@x>" if field.endswith(("_id", "_to")) else text
    )
    with pytest.raises(Refused, match="was not sent"):
        build(outbound(**{field: value}), email_settings())


@pytest.mark.parametrize(
    "to",
    [
        "",
        "ana",
        "ana@",
        "@shop.example",
        "a@b, c@d",
        "Ana <ana@shop.example>",
        "ana@shop@evil.example",
        "ünï@shop.example",
        "ana@" + "ü" * 80 + ".example",
    ],
)
def test_only_one_plain_address_is_written_to(to):
    with pytest.raises(Refused):
        recipient(to)


def test_an_international_domain_goes_out_in_its_ascii_form():
    assert recipient("ana@Bücher.example") == "ana@xn--bcher-kva.example"
    assert recipient("ana@faß.de") == "ana@xn--fa-hia.de", "fass.de belongs to somebody else"


# Anything at all for bodies and file names; for headers, all that is not refused outright, encoded words included.
anything = st.text(alphabet=st.one_of(st.sampled_from(list("\r\n\x00\x0b\x85\u2028:=?<>@")), st.characters()), max_size=120)
one_line = st.lists(
    st.one_of(
        st.sampled_from(
            ["=?utf-8?q?=0D=0ABcc:_eve?=", "=?", "?=", '"', "\\", "<eve@evil.example>", ",", ";", ":", "(", ")", " ", "x" * 80, "é" * 50]
        ),
        st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=10),
    ),
    max_size=8,
).map("".join)


@given(subject=one_line, name=one_line, text=anything, quoted=anything, file=anything)
@settings(max_examples=400, deadline=None)
def test_no_text_of_anybody_adds_a_header(subject, name, text, quoted, file):
    """The outgoing bytes re-parsed by the standard library's two parsers: exactly the headers we meant, from whom we meant."""
    raw = build(outbound(subject=subject, text=text, quoted=quoted, attachments=(attachment(file),)), email_settings(sender_name=name))
    expected = ["Content-Type", "Date", "From", "MIME-Version", *(["Subject"] if subject else []), "To"]
    for parser in (BytesHeaderParser(policy=policy.compat32), BytesHeaderParser(policy=policy.default)):
        assert sorted(parser.parsebytes(raw).keys()) == expected
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    headers, body = read_mail(raw)
    found = to_message(headers, body, Judgement(), mailbox=mailbox("support@hub.example"))
    assert (found.claims[0].value, found.recipients, found.doubt) == ("support@hub.example", ("ana@shop.example",), "")
    assert [item.data for item in found.attachments] == [b"%PDF\x00\xff"]


@given(one_line)
@settings(max_examples=300, deadline=None)
def test_a_subject_that_goes_out_comes_back_the_same(text):
    found = BytesHeaderParser(policy=policy.compat32).parsebytes(build(outbound(subject=text), email_settings()))
    assert " ".join(str(make_header(decode_header(found["Subject"] or ""))).split()) == " ".join(text.split())


# --- The server ------------------------------------------------------------------------------------------------------


class Sink:
    """A handler for aiosmtpd that keeps what arrives and answers each step as told."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.open: set[object] = set()  # the sessions that said EHLO and have not left
        self.most = 0
        self.greeted = 0
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        self.greeted += 1
        self.open.add(server)
        self.most = max(self.most, len(self.open))
        return responses

    async def handle_QUIT(self, server, session, envelope):
        self.open.discard(server)
        return "221 Bye"

    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(self, server, session, envelope, address, options):
        if "RCPT" in self.answers:
            return self.answers["RCPT"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        if self.answers.get("DATA") == "drop":
            server.transport.abort()
        return self.answers.get("DATA", "250 Accepted")


@contextlib.asynccontextmanager
async def sink(handler: Sink, over: ssl.SSLContext | None = None, **options):
    """A real aiosmtpd on loopback; yields the channel that sends to it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="sink.example", loop=loop, **options), "127.0.0.1", 0, ssl=over)
    port = server.sockets[0].getsockname()[1]
    smtp = {"host": "127.0.0.1", "port": port, "security": "none"}
    made: list[RawEmail] = []

    def channel(**extra) -> RawEmail:
        made.append(RawEmail(email_settings(smtp=smtp | extra), PLACE))
        return made[-1]

    try:
        yield channel
    finally:
        for one in made:
            await one.close()
        server.close()
        await server.wait_closed()


async def test_a_mail_arrives_whole_at_a_real_server():
    handler = Sink()
    async with sink(handler) as channel:
        sent = await channel().send(outbound(message_id="<7@hub.example>", text="one\n.two\n..three", attachments=(attachment(),)), None)
    assert (sent.provider_message_id, sent.status) == ("<7@hub.example>", MessageStatus.SENT)
    ((sender, recipients, raw),) = handler.mails
    assert (sender, recipients) == ("support@hub.example", ["ana@shop.example"])
    found = message_from_bytes(raw, policy=policy.default)
    assert lines(found.get_body(("plain",))) == "one\n.two\n..three\n"  # dot-stuffing undone
    assert [part.get_payload(decode=True) for part in found.iter_attachments()] == [b"%PDF\x00\xff"]


async def test_copies_go_to_whom_they_name_and_everybody_sees_them():
    handler = Sink()
    async with sink(handler) as channel:
        await channel().send(outbound(cc=("bob@b.example", "eva@büro.example")), None)
    ((_, recipients, raw),) = handler.mails
    assert recipients == ["ana@shop.example", "bob@b.example", "eva@xn--bro-hoa.example"]
    assert message_from_bytes(raw, policy=policy.default)["Cc"] == "bob@b.example, eva@xn--bro-hoa.example"
    with pytest.raises(Refused, match="line break"):
        build(outbound(cc=("bob@b.example\r\nBcc: all@b.example",)), email_settings())


ANSWERS = [
    ("MAIL", "451 4.3.0 later", TryLater),
    ("MAIL", "550 5.7.1 sender refused", Refused),
    ("RCPT", "450 4.2.1 greylisted", TryLater),
    ("RCPT", "550 5.1.1 no such user", Refused),
    ("DATA", "452 4.2.2 full", TryLater),
    ("DATA", "554 5.7.1 spam", Refused),
    ("DATA", "299 whatever", Unknown),  # neither yes nor no
    ("DATA", "drop", Unknown),
]


@pytest.mark.parametrize(("step", "answer", "outcome"), ANSWERS)
async def test_what_the_servers_answer_means(step, answer, outcome):
    handler = Sink(**{step: answer})
    async with sink(handler) as channel:
        with pytest.raises(outcome) as raised:
            await channel().send(outbound(), None)
    if answer != "drop":
        assert answer[:3] in str(raised.value)


async def test_a_refused_connection_is_tried_later():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take the port
        channel = RawEmail(email_settings(smtp={"host": "127.0.0.1", "port": free.getsockname()[1], "security": "none"}), PLACE)
        with pytest.raises(TryLater, match="cannot be reached"):
            await channel.send(outbound(), None)


@pytest.mark.parametrize(("greeting", "outcome"), [(b"", TryLater), (b"554 go away\r\n", TryLater), (b"nonsense\r\n", TryLater)])
async def test_a_server_that_leaves_before_the_mail_began_is_tried_later(greeting, outcome):
    async def leave(reader, writer):
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(leave, "127.0.0.1", 0)
    async with server:
        channel = RawEmail(
            email_settings(smtp={"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "security": "none"}), PLACE
        )
        with pytest.raises(outcome):
            await channel.send(outbound(), None)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
@pytest.mark.parametrize(("password", "accepted"), [(SECRET, True), ("wrong", False)])
async def test_it_logs_in_where_the_server_asks_for_it(password, accepted):
    def authenticate(server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == SECRET.encode(), handled=False)

    handler = Sink()
    async with sink(handler, authenticator=authenticate, auth_required=True, auth_require_tls=False) as channel:
        sending = channel(username="hub", password=password).send(outbound(), None)
        if accepted:
            await sending
        else:
            with pytest.raises(Refused, match=r"smtp\.password") as raised:
                await sending
            assert "wrong" not in str(raised.value)
    assert len(handler.mails) == int(accepted)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: the paths of its PEM and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink.example")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, start + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_mail_goes_encrypted_to_a_server_whose_certificate_is_trusted_and_to_no_other(security, trusted, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    options = {"tls_context": context, "require_starttls": True} if security == "starttls" else {}
    handler = Sink()
    async with sink(handler, over=context if security == "tls" else None, **options) as channel:
        sending = channel(security=security, username="", password="").send(outbound(), None)
        if trusted:
            await sending
        else:
            with pytest.raises(TryLater, match=r"(?i)certificate"):
                await sending
    assert len(handler.mails) == int(trusted)


async def test_without_starttls_at_the_server_nothing_is_sent_in_clear():
    handler = Sink()
    async with sink(handler) as channel:
        with pytest.raises(Refused, match=r"smtp\.security"):
            await channel(security="starttls").send(outbound(), None)
    assert handler.mails == []


async def test_a_mail_too_big_for_the_server_is_refused():
    handler = Sink()
    async with sink(handler, data_size_limit=10_000) as channel:
        with pytest.raises(Refused, match="552"):
            await channel().send(outbound(attachments=(attachment(data=b"x" * 20_000),)), None)
    assert handler.mails == []


# --- Connections kept for the next mail ------------------------------------------------------------------------------


async def test_one_connection_takes_mail_after_mail():
    handler = Sink()
    async with sink(handler) as channel:
        own = channel()
        for number in range(3):
            await own.send(outbound(message_id=f"<{number}@hub.example>", to=f"ana{number}@shop.example"), None)
        assert (handler.greeted, len(handler.open)) == (1, 1)
    assert [recipients for _, recipients, _ in handler.mails] == [[f"ana{number}@shop.example"] for number in range(3)]
    assert handler.open == set(), "closing says goodbye"


async def test_many_mails_at_once_go_over_four_connections_at_most():
    handler = Sink()
    async with sink(handler) as channel:
        own = channel()
        await asyncio.gather(*[own.send(outbound(message_id=f"<{number}@hub.example>"), None) for number in range(20)])
        assert len(handler.open) == handler.greeted <= MOST
    assert len(handler.mails) == 20
    assert len({raw for _, _, raw in handler.mails}) == 20


@pytest.mark.parametrize("how", ["hung up", "421 at the next mail"])
async def test_a_kept_connection_the_server_gave_up_costs_no_mail(how):
    handler = Sink()
    async with sink(handler) as channel:
        own = channel()
        await own.send(outbound(message_id="<1@hub.example>"), None)
        (kept,) = handler.open
        if how == "hung up":
            kept.transport.abort()
        else:
            kept.event_handler = Sink(MAIL="421 4.4.2 idle too long")
            kept._handle_hooks["MAIL"] = kept.event_handler.handle_MAIL
        await own.send(outbound(message_id="<2@hub.example>"), None)
    assert (len(handler.mails), handler.greeted) == (2, 2)


@pytest.mark.parametrize(
    ("step", "answer", "outcome"), [("RCPT", "550 5.1.1 no", Refused), ("DATA", "drop", Unknown), ("DATA", "452 full", TryLater)]
)
async def test_what_goes_wrong_on_a_kept_connection_is_told_as_on_a_new_one(step, answer, outcome):
    """After DATA began nothing is tried again by itself: it may have gone."""
    handler = Sink()
    async with sink(handler) as channel:
        own = channel()
        await own.send(outbound(), None)
        handler.answers[step] = answer
        with pytest.raises(outcome):
            await own.send(outbound(), None)
        del handler.answers[step]
        await own.send(outbound(), None)
    assert handler.greeted == 2, "a connection something went wrong on is not used again"
    assert len(handler.mails) == (3 if step == "DATA" else 2)


async def test_an_idle_connection_is_given_back_after_a_while():
    left = asyncio.Event()

    class Watched(Sink):
        async def handle_QUIT(self, server, session, envelope):
            left.set()
            return await super().handle_QUIT(server, session, envelope)

    handler = Watched()
    async with sink(handler) as channel:
        pool = SmtpPool(channel().settings, idle=0.01)
        await pool.send(outbound())
        await asyncio.wait_for(left.wait(), 10)
        await pool.send(outbound())
        await pool.close()
    assert (handler.greeted, len(handler.mails)) == (2, 2)


async def test_after_closing_a_mail_still_goes_and_nothing_is_kept():
    handler = Sink()
    async with sink(handler) as channel:
        own = channel()
        await own.close()
        await own.send(outbound(), None)
        await own.close()
        assert handler.open == set()
    assert len(handler.mails) == 1


# --- The shape of the mail -------------------------------------------------------------------------------------------


def test_given_html_goes_out_as_it_is_beside_the_text():
    found = message_from_bytes(build(outbound(html="<p>Grüße</p>", quoted="q"), email_settings()), policy=policy.default)
    assert [part.get_content_type() for part in found.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert found.get_body(("html",)).get_content().strip() == "<p>Grüße</p>"
    assert lines(found.get_body(("plain",))).endswith("> q\n")


def image(content_id: str, kind: str = "image/png") -> OutboundAttachment:
    return OutboundAttachment("lamp.png", kind, 3, lambda: b"png", "https://hub.example/f/2", content_id)


SHAPES = {
    "an image the HTML shows": (image("a@b"), '<img src="cid:a@b">', "inline"),
    "one it does not show": (image("a@b"), "<p>", "attachment"),
    "one it shows the beginning of": (image("a"), '<img src="cid:a@b">', "attachment"),
    "no image": (image("a@b", "text/html"), '<img src="cid:a@b">', "attachment"),
    "no HTML of its own": (image("a@b"), "", "attachment"),
}


@pytest.mark.parametrize(("file", "html", "disposition"), SHAPES.values(), ids=SHAPES)
def test_an_image_is_inline_where_the_html_shows_it_and_a_file_otherwise(file, html, disposition):
    found = message_from_bytes(build(outbound(html=html, attachments=(file,)), email_settings()), policy=policy.default)
    assert not found.defects
    (part,) = [part for part in found.walk() if part.get_filename() == "lamp.png"]
    assert part.get_content_disposition() == disposition
    assert (part["Content-ID"] is not None) == (disposition == "inline")
    assert found.get_content_type() == ("multipart/related" if disposition == "inline" else "multipart/mixed")
