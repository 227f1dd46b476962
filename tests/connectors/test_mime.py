"""Reading mail: every input ends as a message or as Unparseable, nothing is lost on the way, and no input is slow."""

import base64
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.shared.calendar import summary
from connectors.shared.html_text import html_to_text, nesting
from connectors.shared.machine_mail import automatic_kind
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_headers import (
    Headers,
    Mailbox,
    address_spec,
    clean,
    decode_text,
    decode_words,
    mailboxes,
    message_ids,
    sent_at,
    token_behind_plus,
)
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import CUT, MAX_TEXT, PGP, SMIME, media_type, read_headers, read_mail, safe_name, to_message
from connectors.shared.tnef import SIGNATURE, files_inside
from hub.contract import InboundMessage, Proof, Unparseable
from tests.shared_data import shared

BASE = "From: Ana <ana@shop.example>\nSubject: Hello\nDate: Fri, 20 Nov 2026 10:00:00 +0100\nMessage-ID: <1@shop.example>\n"


def mailbox(address: str) -> EmailSettings:
    return EmailSettings.model_validate({"type": "mime", "address": address, "smtp": {"host": "127.0.0.1"}})


def mail(text: str, base: str = BASE) -> bytes:
    return (base + text).replace("\n", "\r\n").encode()


def message_of(raw: bytes) -> InboundMessage:
    headers, body = read_mail(raw)
    return to_message(headers, body, Judgement(), mailbox=mailbox("support@hub.example"))


# --- Conformance data ------------------------------------------------------------------------------------------------

# Whole mails: (folder, pattern, how many, which of them name no sender, so that the hub keeps them aside, and why).
# Licences: each folder's SOURCE.txt.
WHOLE_MAILS = [
    (
        "mail_cpython",
        "msg_*.txt",
        47,
        {
            "msg_05.txt": "From is the bare word foo",
            "msg_11.txt": "a mail within a mail; the outer one has no From",
            "msg_18.txt": "no From",
            "msg_19.txt": "no From",
            "msg_37.txt": "no From",
            "msg_38.txt": "no From",
            "msg_39.txt": "no From",
            "msg_40.txt": "no From",
        },
    ),
    ("mail_django_mailbox", "*.eml", 21, {}),
    ("mail_mailman", "*.eml", 13, {"bad_email.eml": "From is one encoded word without an address"}),
    ("mail_salmon", "[!S]*", 4, {}),
    (
        "mail_bounces_flufl",
        "*.txt",
        63,
        {},
    ),
    ("mail_talon", "standard_replies/*.eml", 12, {}),
]


def whole_mails(folder: str, pattern: str) -> list[Path]:
    return sorted(path for path in shared(folder).glob(pattern) if path.is_file() and path.name not in ("SOURCE.txt", "LICENSE"))


@pytest.mark.parametrize(("folder", "pattern", "count", "unreadable"), WHOLE_MAILS, ids=[row[0] for row in WHOLE_MAILS])
def test_every_published_mail_becomes_a_message_or_is_named_here_with_its_reason(folder, pattern, count, unreadable):
    paths = whole_mails(folder, pattern)
    assert len(paths) == count
    refused = set()
    for path in paths:
        try:
            found = message_of(path.read_bytes())
        except Unparseable:
            refused.add(path.name)
            continue
        if not found.claims:
            refused.add(path.name)
        assert message_of(path.read_bytes()) == found, path.name  # a pure function of the bytes
    assert refused == set(unreadable)


def test_no_byte_string_of_any_folder_raises_anything_but_unparseable():
    mails = [row[0] for row in WHOLE_MAILS] + ["mail_reply_trimmer", "mail_planer_html"]
    folders = [*mails, "webhooks_sendgrid_python", "webhooks_anymail"]
    assert sum(1 for folder in mails for path in shared(folder).rglob("*") if path.is_file()) == 317
    seen = 0
    for folder in folders:
        for path in sorted(path for path in shared(folder).rglob("*") if path.is_file()):
            data = path.read_bytes()
            for raw in (data, BASE.encode() + data, data[: len(data) // 2], data.replace(b"\r\n", b"\n").replace(b"\n", b"\r")):
                seen += 1
                try:
                    message_of(raw)
                except Unparseable:
                    pass
    assert seen > 1000


def test_an_unknown_charset_is_read_lossily_and_the_mail_is_kept():
    found = message_of(shared("mail_django_mailbox", "message_with_invalid_encoding.eml").read_bytes())
    assert found.text.strip()


def test_delivery_reports_of_the_bounce_collection_are_told_from_what_people_write():
    kinds = {path.name: message_of(path.read_bytes()).automatic for path in whole_mails("mail_bounces_flufl", "dsn_*.txt")}
    assert len(kinds) == 8
    assert {name for name, kind in kinds.items() if kind != "bounce"} == set()


# --- Hand-made mails -------------------------------------------------------------------------------------------------

ALTERNATIVE = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

{text}
--a
Content-Type: multipart/related; boundary=r

--r
Content-Type: text/html; charset=iso-8859-1

<p>caf=E9 <img src="cid:logo@x"></p>
--r
Content-Type: image/png; name="logo.png"
Content-ID: <logo@x>
Content-Transfer-Encoding: base64

iVBORw0K
--r--
--a--
--m
Content-Type: application/pdf
Content-Disposition: attachment; filename*=utf-8''..%2F..%2Frechnung%20%E2%82%AC.pdf
Content-Transfer-Encoding: base64

JVBERg==
--m
Content-Type: message/rfc822

From: Bob <bob@else.example>
Subject: forwarded

inner words
--m
Content-Type: text/plain

-- footer of the list
--m--
"""


def test_a_mail_of_every_kind_of_part_loses_none_of_them():
    encoded = base64.b64encode("Grüße\r\nAna".encode()).decode()
    found = message_of(mail(ALTERNATIVE.format(text=encoded)))
    assert found.text == "Grüße\nAna\n-- footer of the list"
    assert '<img src="cid:logo@x">' in found.html
    assert "-- footer of the list" in found.html
    logo, pdf, forwarded = found.attachments
    assert (logo.name, logo.content_type, logo.content_id, logo.inline) == ("logo.png", "image/png", "logo@x", True)
    assert (pdf.name, pdf.data, pdf.inline) == ("rechnung €.pdf", b"%PDF", False)
    assert (forwarded.name, forwarded.content_type) == ("attachment-3.eml", "message/rfc822")
    assert b"Subject: forwarded" in (forwarded.data or b"")
    assert b"inner words" in (forwarded.data or b"")
    assert "inner words" not in found.text


def test_the_words_about_a_mail_are_read():
    extra = (
        "In-Reply-To: Your mail <0@hub.example> of today\nReferences: <a@x> junk <b@x>\n <c@x> <a@x>\n"
        "To: Support <support+t0ken-XY@HUB.example>, x@y.example\nCc: z@y.example\nReply-To: other@evil.example\n"
    )
    found = message_of(mail(extra + "\nHi\n"))
    assert found.message_id == "<1@shop.example>"
    assert found.in_reply_to == "<0@hub.example>"
    assert found.references == ("<a@x>", "<b@x>", "<c@x>")
    assert found.reply_token == "t0ken-XY"
    assert found.recipients == ("support+t0ken-XY@hub.example", "x@y.example", "z@y.example")
    assert found.sent_at == 1_795_165_200_000_000
    assert [(claim.value, claim.proof) for claim in found.claims] == [
        ("ana@shop.example", Proof.CLAIMED),
        ("other@evil.example", Proof.SEEN),
    ]
    assert (found.sender_name, found.subject, found.text, found.automatic, found.doubt) == ("Ana", "Hello", "Hi\n", "", "")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (mail("\nHi\n"), b"Received: by another hop\r\n" + mail("\nHi\n"), True),  # delivered again by another way
        (mail("\nHi\n"), mail("X-Spam: no\n\nHi\n"), True),
        (mail("\nHi\n"), mail("\nHi, once more\n"), False),  # a carrier's gateway reuses its Message-ID
        (
            mail("\nHi\n", BASE.replace("Message-ID: <1@shop.example>\n", "")),
            mail("\nHo\n", BASE.replace("Message-ID: <1@shop.example>\n", "")),
            False,
        ),
        (mail("\nHi\n"), mail("\nHi\n", BASE.replace("10:00:00", "10:00:01")), False),
        (mail("\nHi\n"), mail("\nHi\n", BASE.replace("<1@", "<2@")), False),
        (mail(ALTERNATIVE.format(text="SGk=")), mail(ALTERNATIVE.format(text="SGk=").replace("JVBERg==", "JVBERw==")), False),  # other file
    ],
)
def test_the_key_joins_redeliveries_and_nothing_else(first, second, same):
    assert (message_of(first).provider_key == message_of(second).provider_key) is same


@pytest.mark.parametrize(
    "base",
    [
        "Subject: no From\n",
        "From:\n",
        "From: <>\n",
        "From: Ana\n",
        "From: ana@\n",
        "From: ana@shop@evil.example\n",
        "From: <@relay.example:ana@shop.example>\n",  # a source route
        "From: ana@[192.0.2.1]\n",
        "From: <ana@shop.example> <eve@evil.example>\n",
        "From: <ana@shop.example> eve\n",
    ],
)
def test_a_mail_without_one_usable_sender_is_nobodys_and_is_read_all_the_same(base):
    found = message_of(mail("\nHi\n", base))
    assert (found.claims, found.sender_name, found.text.strip()) == ((), "", "Hi")


@pytest.mark.parametrize(
    "base",
    [
        "From: a@x.example, b@y.example\n",
        "From: a@x.example\nFrom: b@y.example\n",
        "From: a@x.example, b@@y.example\n",
        "From: a@x.example\nFrom: a@x.example\n",
    ],
)
def test_a_mail_of_several_senders_proves_nothing_and_says_so(base):
    headers, body = read_mail(mail("\nHi\n", base))
    found = to_message(headers, body, Judgement(Proof.DMARC), mailbox=mailbox("s@hub.example"))
    assert found.claims[0].proof is Proof.CLAIMED
    assert "more than one sender" in found.doubt


ADDRESSES = [
    ("ana@shop.example", [("", "ana@shop.example")], 0),
    ("Ana <Ana@Shop.EXAMPLE>", [("Ana", "Ana@shop.example")], 0),  # the local part keeps its case
    ('"Doe, Ana \\"A\\"" <ana@x.example>', [('Doe, Ana "A"', "ana@x.example")], 0),
    ("Doe, Ana <ana@x.example>", [("Doe, Ana", "ana@x.example")], 0),  # unquoted comma
    ("ana@x.example (Ana (of sales))", [("Ana (of sales)", "ana@x.example")], 0),
    ('"victim@bank.example" <eve@evil.example>', [("victim@bank.example", "eve@evil.example")], 0),
    ("alice@example.org)bob@evil.example", [], 1),  # CVE-2023-27043
    ("=?utf-8?q?eve=40evil.example?=@x.example", [], 1),
    ("=?utf-8?b?PGV2ZUBldmlsLmV4YW1wbGU+?= <ana@x.example>", [("<eve@evil.example>", "ana@x.example")], 0),
    ("team: a@x.example, b@x.example;, c@x.example", [("", "a@x.example"), ("", "b@x.example"), ("", "c@x.example")], 0),
    ("undisclosed-recipients:;", [], 0),
    ('"a b"@x.example', [("", '"a b"@x.example')], 0),
    ("do..ko.@docomo.example", [("", "do..ko.@docomo.example")], 0),  # Japanese carriers hand these out
    ("ana@bücher.example", [("", "ana@bücher.example")], 0),
    ("ana@-x.example, ana@x_y.example, ana@x..example", [], 3),
    ('"unclosed <ana@x.example>', [], 1),
    ("(unclosed ana@x.example", [], 0),
    ("", [], 0),
]


@pytest.mark.parametrize(("value", "expected", "broken"), ADDRESSES, ids=[repr(row[0])[:40] for row in ADDRESSES])
def test_address_lists(value, expected, broken):
    assert mailboxes(value) == ([Mailbox(*box) for box in expected], broken)


@given(st.text(alphabet=st.sampled_from(list('<>"\\(),;:@.ab =?é\n')), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_address_list_yields_only_single_addresses(value):
    for box in mailboxes(value)[0]:
        assert address_spec(box.address) == box.address
        assert not any(char in box.name for char in "\r\n\x00")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("Re: =?iso-8859-1?Q?caf=E9?= now", "Re: café now"),
        ("=?utf-8?b?w?= =?utf-8?q?=C3=A9?=", "=?utf-8?b?w?= é"),  # not base64: left as it is
        ("=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),  # split inside a character
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        ("=?utf-8*en?q?a_b?=", "a b"),
        ("=?no-such?q?caf=E9?=", "café"),
        ("=?utf-8?q?a=0AInjected: b?=", "a\nInjected: b"),  # decoding alone does not clean
    ],
)
def test_encoded_words(value, expected):
    assert decode_words(value) == expected


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        (b"caf\xc3\xa9", "utf-8", "café"),
        (b"caf\xe9", "utf-8", "café"),  # declared and wrong
        (b"caf\xc3\xa9, cut: \xc3", "utf-8", "café, cut: \ufffd"),  # one spoilt character does not spoil the others
        (b"caf\xe9", "", "café"),
        (b"caf\xe9\x93x\x94", "iso-8859-1", "café“x”"),
        (b"caf\xc3\xa9", "no-such-charset", "café"),
        (b"caf\xc3\xa9", "us-ascii", "café"),
        ("привет".encode("koi8-r"), "KOI8-R", "привет"),
        (b"+AGEAYg-", "utf-7", "ab"),
        (b"eJw=", "zlib", "eJw="),  # a codec of bytes, not of text
        (b"a-b", "punycode", "a-b"),  # quadratic on purpose-made input
        (b"\\x41", "unicode_escape", "\\x41"),
        (b"x", "a\x00b", "x"),
        (b"x", "ü" * 99, "x"),
    ],
)
def test_bytes_are_decoded_as_declared_or_lossily_and_never_raise(data, charset, expected):
    assert decode_text(data, charset) == expected


@given(st.binary(max_size=40), st.text(max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_bytes_in_any_charset_decode(data, charset):
    assert isinstance(decode_text(data, charset), str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Fri, 20 Nov 2026 10:00:00 +0100", 1_795_165_200_000_000),
        ("20 Nov 2026 09:00:00 GMT", 1_795_165_200_000_000),
        ("Fri, 20 Nov 2026 09:00:00 -0000", 1_795_165_200_000_000),
        ("Thu, 1 Jan 1970 00:00:00 +0000", None),
        ("Fri, 20 Nov 2226 09:00:00 +0000", None),
        ("Fri, 99 Nov 2026 09:00:00 +0000", None),
        ("Fri, 20 Nov 2026 09:00:00 +9999999999", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(value, expected):
    assert sent_at(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<a@b>", ("<a@b>",)),
        ("a@b", ()),
        ("<a b@c>", ()),
        ("<a@b><c@d>", ("<a@b>", "<c@d>")),
        ("<<a@b>>", ("<a@b>",)),
        ("<>", ()),
        ("<" + "x" * 400 + ">", ()),
        ("<a\u00e9@b>", ()),
    ],
)
def test_message_ids_are_taken_in_angle_brackets_only(value, expected):
    assert message_ids(value) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\share\\a.txt", "a.txt"),
        ("path\\", ""),
        (".", ""),
        ("..", ""),
        ("a\r\nb\x00.txt", "a b .txt"),
        ("harmless\u202egpj.exe", "harmlessgpj.exe"),
        ("x" * 300 + ".pdf", "x" * 130 + ".pdf"),
    ],
)
def test_file_names_are_safe_to_show(name, expected):
    assert safe_name(name) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("IMAGE/PNG; x=1", "image/png"), ("text", "application/octet-stream"), ("a/b\r\nX: y", "application/octet-stream")],
)
def test_media_types(kind, expected):
    assert media_type(kind) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Hello&nbsp;<b>Ana</b></p><p>Bye &lt;3</p>", "Hello Ana\n\nBye <3"),
        ("a\nb <br>c", "a b\nc"),
        ("<style>p {}</style><script>x('</p>')</script>hi<!-- <p>no</p> -->", "hi"),
        ("<head><title>T</title></head><body>hi", "hi"),
        ("<STYLE>unclosed", ""),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("<?xml version='1'?><!DOCTYPE html>hi", "hi"),
        ("&lt;script&gt;", "<script>"),
        ("İİİİ<STYLE>x</Style >yes", "İİİİyes"),  # lower-casing İ makes it longer
        ("", ""),
    ],
)
def test_html_becomes_text(html, expected):
    assert html_to_text(html) == expected


AUTOMATIC = [
    ("", "ana@x.example", ""),
    ("X-Auto-Response-Suppress: All", "ana@x.example", ""),  # Exchange stamps it on people's mail
    ("Auto-Submitted: no", "ana@x.example", ""),
    ("Auto-Submitted: auto-replied", "ana@x.example", "auto-reply"),
    ("Auto-Submitted: Auto-Generated; x=1", "ana@x.example", "auto-reply"),
    ("Auto-Submitted: auto-replied (vacation)\nReturn-Path: <>", "ana@x.example", "auto-reply"),
    ("Content-Type: multipart/report; report-type=delivery-status; boundary=x\nAuto-Submitted: auto-replied", "p@x.example", "bounce"),
    ("Content-Type: multipart/report; report-type=disposition-notification; boundary=x", "ana@x.example", "auto-reply"),
    ("Content-Type: multipart/report; report-type=feedback-report; boundary=x", "fbl@isp.example", "complaint"),
    # Nobody to answer to: a machine that answers must use it as well (RFC 3834 section 3.3), and what returns mails says so besides.
    ("Return-Path: <>", "ana@x.example", "auto-reply"),
    ("Return-Path: < >", "ana@x.example", "auto-reply"),
    ("Return-Path: <>\nSubject: Undelivered Mail Returned to Sender", "postmaster@x.example", "bounce"),
    ("Subject: Undelivered Mail Returned to Sender", "postmaster@x.example", "bounce"),
    ("Subject: Our new server", "postmaster@x.example", ""),  # a person, in some shops
    ("Return-Path: <ana@x.example>", "ana@x.example", ""),
    ("Return-Path: <MAILER-DAEMON>", "p@x.example", "bounce"),
    ("", "MAILER-DAEMON@x.example", "bounce"),
    ("", "mdaemon@x.example", "bounce"),
    # Answering machines of other makes.
    ("X-Autoreply: yes", "ana@x.example", "auto-reply"),
    ("X-Autoreply: no", "ana@x.example", ""),
    ("X-Autorespond:", "ana@x.example", "auto-reply"),  # its value is a subject, and may be empty
    ("X-Autorespond: I am away", "ana@x.example", "auto-reply"),
    ("X-Auto-Reply: true", "ana@x.example", "auto-reply"),
    ("X-AutoReply-From: ana@x.example", "ana@x.example", "auto-reply"),
    ("X-Mail-Autoreply: b1gMail", "ana@x.example", "auto-reply"),
    ("X-Autogenerated: Reply", "ana@x.example", "auto-reply"),
    ("Precedence: auto_reply", "ana@x.example", "auto-reply"),
    ("Precedence: AUTO_REPLY\nList-Id: <l.x.example>", "ana@x.example", "auto-reply"),
    # Exchange and Outlook, where Auto-Submitted was lost on the way: its subject, in the language of who is away, and its header.
    ("X-Auto-Response-Suppress: All\nSubject: Automatic reply: Hello", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: Automatische Antwort: Hallo", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: =?utf-8?q?R=C3=A9ponse_automatique_:_Bonjour?=", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: =?utf-8?b?6Ieq5YuV5b+c562UOiDms6jmloc=?=", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: =?utf-8?b?0JDQstGC0L7QvtGC0LLQtdGCOiB4?=", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: Respuesta autom=?utf-8?q?=C3=A1tica=3A_x?=", "ana@x.example", "auto-reply"),
    ("X-Auto-Response-Suppress: All\nSubject: Re: Automatic reply: Hello", "ana@x.example", ""),  # a person answers the machine
    ("Subject: Automatic reply: does not work", "ana@x.example", ""),  # a person may begin like that
    # Lists (RFC 2919, RFC 2369) and bulk mail (RFC 8058).
    ("List-Id: <l.x.example>", "ana@x.example", "list"),
    ("List-Post: <mailto:l@x.example>", "ana@x.example", "list"),
    ("List-Unsubscribe-Post: List-Unsubscribe=One-Click\nList-Unsubscribe: <https://x.example>", "news@x.example", "list"),
    ("X-Mailing-List: l@x.example", "ana@x.example", "list"),
    ("X-BeenThere: l@x.example", "ana@x.example", "list"),
    ("Precedence: bulk", "ana@x.example", "list"),
    ("Precedence: list", "ana@x.example", "list"),
    ("Precedence: junk", "ana@x.example", "list"),
    ("Precedence: first-class", "ana@x.example", ""),
    ("Precedence: normal", "ana@x.example", ""),
    ("List-Unsubscribe: <mailto:x@y>", "ana@x.example", ""),  # a person's mail may pass a footer-adding gateway
    ("Feedback-ID: 1:2:3:x", "ana@x.example", ""),  # stamped by senders of every kind
    ("X-Auto-Response-Suppress: OOF, AutoReply", "ana@x.example", ""),
]


@pytest.mark.parametrize(("lines", "sender", "expected"), AUTOMATIC)
def test_what_machines_write_is_told_from_what_people_write(lines, sender, expected):
    headers = read_headers((lines + "\n\n").replace("\n", "\r\n").encode()) if lines else Headers([])
    assert automatic_kind(headers, sender) == expected


def test_a_null_envelope_sender_is_a_machines():
    assert automatic_kind(Headers([]), "ana@x.example", null_return_path=True) == "auto-reply"


@pytest.mark.parametrize(
    ("address", "candidates", "expected"),
    [
        ("support@hub.example", ["x@y.example", "Support+aB.c@Hub.example"], "aB.c"),
        ("support@hub.example", ["support@hub.example"], ""),
        ("support@hub.example", ["support+tok@evil.example", "xsupport+tok@hub.example"], ""),
        ("support+eu@hub.example", ["support+eu+tok@hub.example"], "tok"),
        ("", ["+tok@"], ""),
    ],
)
def test_the_reply_token_is_read_from_our_own_address_only(address, candidates, expected):
    assert token_behind_plus(address, candidates) == expected


# --- Purpose-made input ----------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    levels = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    return mail("MIME-Version: 1.0\n" + levels + "\nhi\n")


HOSTILE = {
    "a Content-Type of 40,000 parameters": mail("Content-Type: text/plain; " + "a=b; " * 40_000 + "\n\nhi\n"),
    "a Content-Type of open quotes": mail('Content-Type: text/plain; x="' + ';"' * 20_000 + "\n\nhi\n"),
    "a From of brackets": mail("\nhi", "From: " + "(" * 60_000 + "\n"),
    "a From of commas": mail("\nhi", "From: " + "a," * 30_000 + "\n"),
    "400 To of 60,000 characters": mail(("To: " + "a@b.example, " * 4_600 + "\n") * 400 + "\n\nhi\n"),
    "400 Reply-To of colons": mail(("Reply-To: " + "a:" * 30_000 + "\n") * 400 + "\n\nhi\n"),
    "400 From of commas": mail("\nhi", ("From: " + "a," * 30_000 + "\n") * 400),
    "400 long signatures": mail(("DKIM-Signature: " + "a=b;" * 15_000 + "\n") * 400 + "\n\nhi\n"),
    "a To of open angles": mail("To: " + "<" * 60_000 + "\n\nhi\n"),
    "a Subject of open encoded words": mail("Subject: " + "=?a?q?" * 10_000 + "\n\nhi\n"),
    "1,000 nested multiparts": nested(1000),
    "51 nested multiparts": nested(60),
    "20,000 parts": mail("Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 20_000),
    "50,000 header lines": mail("X: y\n" * 50_000 + "\nhi\n"),
    "a line of 10 MB": mail("\n" + "x" * 10_000_000),
    "HTML of open tags": mail("Content-Type: text/html\n\n" + "<b " * 80_000),
    "HTML of open comments": mail("Content-Type: text/html\n\n" + "<!--" * 60_000),
    "HTML of open styles": mail("Content-Type: text/html\n\n" + "<style>" * 40_000),
    "HTML nested 40,000 deep": mail("Content-Type: text/html\n\n" + "<div>" * 40_000 + "hi"),
    "HTML of ampersands": mail("Content-Type: text/html\n\n" + "&" * 250_000),
    "punycode": mail("Content-Type: text/plain; charset=punycode\n\n" + "a-" + "b" * 200_000),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_no_mail_keeps_us_busy(raw):
    started = time.process_time()
    try:
        message_of(raw)
    except Unparseable:
        pass
    assert time.process_time() - started < 3  # the library's structured headers take 18 s for the second of these


@pytest.mark.parametrize(("depth", "readable"), [(50, True), (51, False)])
def test_depth_is_capped_exactly(depth, readable):
    try:
        message_of(nested(depth))
        assert readable
    except Unparseable:
        assert not readable


def test_html_nested_beyond_reason_is_kept_as_words_only():
    found = message_of(HOSTILE["HTML nested 40,000 deep"])
    assert found.html == ""
    assert found.text.strip() == "hi"
    assert nesting("<p>a<p>b<br><i>c</i>") == 1


def test_a_long_text_is_cut_for_display_and_says_so():
    found = message_of(mail("\n" + "word " * 80_000))
    assert len(found.text) == MAX_TEXT + len(CUT)
    assert found.text.endswith(CUT)


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_cleaned_text_is_one_printable_line(text):
    assert not any(ord(char) < 32 or char in "\x7f\x85\u2028\u2029\u202e" for char in clean(text))


# --- What a mail without plain words shows ---------------------------------------------------------------------------


def of_type(kind: str, data: bytes | str, more: str = "") -> str:
    encoded = base64.encodebytes(data if isinstance(data, bytes) else data.encode()).decode()
    return f"Content-Type: {kind}\nContent-Transfer-Encoding: base64\n{more}\n{encoded}"


ICS = """BEGIN:VCALENDAR
METHOD:{method}
BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:STANDARD
DTSTART:19701025T030000
END:STANDARD
END:VTIMEZONE
BEGIN:VEVENT
SUMMARY:Parcel\\, again
{when}
LOCATION:Room 3\\; second
  floor
ORGANIZER;CN="Ana; of sales":mailto:ana@shop.example
ATTENDEE;PARTSTAT={answer};CN=Bob:MAILTO:bob@shop.example
DESCRIPTION:One\\nTwo
BEGIN:VALARM
SUMMARY:wake up
END:VALARM
END:VEVENT
END:VCALENDAR
"""
BERLIN = "DTSTART;TZID=Europe/Berlin:20261124T100000\nDTEND;TZID=Europe/Berlin:20261124T110000"
DAY = "Tuesday, 24 November 2026"
INVITATION = """Invitation: Parcel, again
When: Tuesday, 24 November 2026, 10:00 to 11:00 (Europe/Berlin)
Where: Room 3; second floor
Organiser: Ana; of sales <ana@shop.example>

One
Two"""


def invited(method: str = "REQUEST", when: str = BERLIN, answer: str = "NEEDS-ACTION") -> str:
    return ICS.format(method=method, when=when, answer=answer)


def test_an_invitation_is_shown_in_lines_and_kept_as_a_file():
    found = message_of(mail(of_type("text/calendar; method=REQUEST; charset=utf-8", invited())))
    assert found.text == INVITATION
    (file,) = found.attachments
    assert (file.name, file.content_type, file.data) == ("attachment-1.ics", "text/calendar", invited().encode())


def test_better_text_stands_before_the_invitations():
    parts = f"--b\n\nPlease come.\n--b\n{of_type('text/calendar', invited())}\n--b--\n"
    found = message_of(mail("Content-Type: multipart/alternative; boundary=b\n\n" + parts))
    assert (found.text.strip(), [file.content_type for file in found.attachments]) == ("Please come.", ["text/calendar"])
    blank = message_of(mail("Content-Type: multipart/alternative; boundary=b\n\n" + parts.replace("Please come.", " ")))
    assert blank.text == INVITATION


@pytest.mark.parametrize(
    ("ics", "lines"),
    [
        (invited("CANCEL"), ["Cancelled: Parcel, again"]),
        (invited("REQUEST").replace("SUMMARY:P", "STATUS:CANCELLED\nSUMMARY:P"), ["Cancelled: Parcel, again"]),
        (invited("REPLY", answer="ACCEPTED"), ["Answer to the invitation: Parcel, again", "Bob <bob@shop.example> accepts."]),
        (invited("REPLY", answer="DECLINED"), ["Bob <bob@shop.example> declines."]),
        (invited("PUBLISH"), ["Event: Parcel, again"]),
        (
            invited(when="DTSTART:20261124T100000Z\nDTEND:20261125T013000Z"),
            [f"When: {DAY}, 10:00 to Wednesday, 25 November 2026, 01:30 (UTC)"],
        ),
        (invited(when="DTSTART:20261124T100000"), [f"When: {DAY}, 10:00 (their local time)"]),
        (invited(when="DTSTART;VALUE=DATE:20261124\nDTEND;VALUE=DATE:20261125"), [f"When: {DAY}"]),
        (
            invited(when="DTSTART;VALUE=DATE:20261124\nDTEND;VALUE=DATE:20261127"),
            [f"When: {DAY} to Thursday, 26 November 2026"],
        ),
        (
            invited(when=BERLIN + "\nRRULE:FREQ=WEEKLY"),
            [f"When: {DAY}, 10:00 to 11:00 (Europe/Berlin), repeated every week"],
        ),
        (
            invited(when=BERLIN + "\nRRULE:FREQ=WEEKLY;INTERVAL=2"),
            [f"When: {DAY}, 10:00 to 11:00 (Europe/Berlin), repeated"],
        ),
        (invited(when="DTSTART:00010101\nDTEND:00010101"), ["When: Monday, 1 January 1"]),
        (invited(when="DTSTART:99999999"), ["Invitation: Parcel, again"]),
        (invited().replace("\n", "\r\n"), ["Where: Room 3; second floor"]),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\n", []),
        ("BEGIN:VEVENT\nSUMMARY:lone\nEND:VEVENT", ["Event: lone"]),
        ("SUMMARY:none", []),
        ("BEGIN:VCALENDAR\nEND:VEVENT\nEND:X\nEND\n", []),
        ("", []),
    ],
)
def test_invitations(ics, lines):
    said = summary(ics.encode()).split("\n")
    assert set(lines) <= set(said)
    assert lines or said == [""]


@given(st.text(alphabet=st.sampled_from(list('BEGIN:VT;=\n\r "\\ND0129TZ,é')), max_size=200), st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_calendar_or_winmail_raises(text, data):
    assert isinstance(summary(("BEGIN:VEVENT\n" + text).encode()), str)
    assert isinstance(files_inside(struct.pack("<IH", SIGNATURE, 1) + data), list)


SIGNED = """Content-Type: multipart/signed; protocol="{protocol}"; micalg=sha-256; boundary=s

--s
Content-Type: text/plain

signed words
--s
Content-Type: {protocol}{name}
Content-Transfer-Encoding: base64

QUJD
--s--
"""


@pytest.mark.parametrize(
    ("protocol", "name", "expected"),
    [
        ("application/pgp-signature", "; name=signature.asc", "signature.asc"),
        ("application/pgp-signature", "", "attachment-1.asc"),
        ("application/pkcs7-signature", "", "attachment-1.p7s"),
        ("application/x-pkcs7-signature", "; name=smime.p7s", "smime.p7s"),
    ],
)
def test_a_signed_mail_shows_its_words_and_keeps_its_signature(protocol, name, expected):
    found = message_of(mail(SIGNED.format(protocol=protocol, name=name)))
    assert found.text.strip() == "signed words"
    assert [(file.name, file.content_type, file.data) for file in found.attachments] == [(expected, protocol, b"ABC")]


def test_a_sealed_mail_says_what_it_is():
    found = message_of(mail(of_type("application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", b"\x30\x80")))
    assert found.text == SMIME.format(name="smime.p7m")
    assert [file.data for file in found.attachments] == [b"\x30\x80"]
    control = "\n--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n"
    parts = control + '--b\nContent-Type: application/octet-stream; name="encrypted.asc"\n\n-----BEGIN PGP MESSAGE-----\n--b--\n'
    found = message_of(mail('Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b\n' + parts))
    assert found.text == PGP.format(name="encrypted.asc")
    assert [file.name for file in found.attachments] == ["attachment-1.txt", "encrypted.asc"]


def record(level: int, name: int, data: bytes) -> bytes:
    return struct.pack("<BII", level, name, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


LONG = struct.pack("<HHII", 0x001F, 0x3707, 1, 26) + "Rechnung 7€.p\0".encode("utf-16-le")[:26]
WINMAIL = b"".join(
    [
        struct.pack("<IH", SIGNATURE, 1),
        record(1, 0x00089006, b"\x00\x00\x01\x00"),  # version
        record(1, 0x00069007, struct.pack("<II", 1252, 0)),  # code page
        record(2, 0x00069002, b"\x01" * 14),
        record(2, 0x00018010, "Grüße.txt\0".encode("cp1252")),
        record(2, 0x0006800F, b"first file"),
        record(2, 0x00069002, b"\x01" * 14),
        record(2, 0x00018010, b"RECHNU~1.PDF\0"),
        record(2, 0x0006800F, b"%PDF-second"),
        record(2, 0x00069005, LONG),
    ]
)


def test_a_winmail_is_named_and_the_files_in_it_are_taken_out():
    found = message_of(mail(of_type("application/ms-tnef", WINMAIL)))
    assert [(file.name, file.data) for file in found.attachments] == [
        ("winmail.dat", WINMAIL),
        ("Grüße.txt", b"first file"),
        ("Rechnung 7€.p", b"%PDF-second"),
    ]
    assert found.text == "[Outlook put this mail's contents into winmail.dat. It is kept, with the files in it: Grüße.txt, Rechnung 7€.p.]"
    torn = message_of(mail(of_type("application/octet-stream; name=winmail.dat", WINMAIL[:-40])))
    assert [file.name for file in torn.attachments] == ["winmail.dat", "Grüße.txt", "RECHNU~1.PDF"]
    assert [file.name for file in message_of(mail(of_type("application/ms-tnef", b"no such thing"))).attachments] == ["winmail.dat"]


@pytest.mark.parametrize(
    ("head", "data", "expected"),
    [
        ("text/html", b'<meta charset="iso-8859-2">\xb1\xe6', "ąć"),
        ("text/html", b'<META http-equiv=Content-Type content="text/html; charset=koi8-r">\xd0\xd2', "пр"),
        ("text/html; charset=utf-8", b'<meta charset="iso-8859-2">\xc4\x85', "ą"),  # the header stands before the page
        ("text/plain", "こんにちは".encode("iso-2022-jp"), "こんにちは"),
        ("text/plain", "hé".encode("utf-16"), "hé"),
        ("text/plain; charset=unicode-1-1-utf-8", "hé".encode(), "hé"),
        ("text/plain; charset=x-sjis", "日本".encode("shift_jis"), "日本"),
        ("text/plain; charset=unknown-8bit", b"h\xe9", "hé"),
        ("text/plain; charset=", b"h\xe9", "hé"),
        ("text/plain; charset*=us-ascii'en'utf-8", "hé".encode(), "hé"),
    ],
)
def test_any_charset_or_none(head, data, expected):
    assert message_of(mail(of_type(head, data))).text.strip().lstrip("\ufeff") == expected


# --- Memory ----------------------------------------------------------------------------------------------------------


def growth(raw: bytes) -> int:
    """Bytes held at the worst moment while a mail is read, beyond what it is itself."""
    tracemalloc.start()
    try:
        message_of(raw)
    except Unparseable:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


BOMBS = {
    "2 MB of delivery blocks": mail("Content-Type: message/delivery-status\n\n" + "a: b\n\n" * 300_000),
    "4 MB of parts": mail("Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nx\n" * 450_000),
    "1 MB of header lines": mail("X: y\n" * 200_000 + "\nhi\n"),
    "short lines": mail("\n" + "a\n" * 80_000),
    "20 MB of newlines": mail("\n" + "\n" * 10_000_000),
    "short lines below 1,000 multiparts": nested(1000) + b"a\r\n" * 500_000,
    "short lines below 45 multiparts": nested(45) + b"a\r\n" * 5_000,
    "one header line folded 100,000 times": mail("X-A: a\n" + " a\n" * 100_000 + "\nhi"),
    "quoted-printable of short lines": mail("Content-Transfer-Encoding: quoted-printable\n\n" + "=41=42=\n" * 100_000),
    "broken base64": mail("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + "A=B=\n" * 150_000),
}


@pytest.mark.parametrize("raw", BOMBS.values(), ids=BOMBS)
def test_no_small_mail_grows(raw):
    assert growth(raw) < 100_000_000


def test_a_mail_of_30_mb_is_held_a_few_times_over_and_no_more():
    block = (base64.b64encode(bytes(range(256)) * 3).decode() + "\n") * 102  # tracing costs per line
    raw = mail("Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\n" + block * 286)
    assert 29_000_000 < len(raw) < 32_000_000
    assert growth(raw) < 7 * len(raw)
    assert growth(mail("\n" + ("word " * 200 + "\n") * 8_000)) < 7 * 8_000_000
