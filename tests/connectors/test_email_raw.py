"""Whole mails posted by one's own server: who may post, what proves the sender, and where answers go."""

import base64

import pytest

from connectors.email.raw import RawEmail
from hub.contract import Channel, InboundMessage, Place, Proof, Refused, Request, Unparseable, Verdict
from tests.shared_data import shared

PLACE = Place(name="mail", inbound_url="https://hub.example/in/mail", key=b"k" * 32)


def channel(**extra) -> RawEmail:
    known = {"type": "mime", "address": "support@hub.example", "password": "s3cret:x", "authserv_id": "mx.hub.example"}
    return RawEmail(RawEmail.Settings(**(known | {"smtp": {"host": "127.0.0.1", "security": "none"}} | extra)), PLACE)


def posted(body: bytes, authorization: str = "", content_type: str = "message/rfc822") -> Request:
    headers = {"content-type": content_type} | ({"authorization": authorization} if authorization else {})
    return Request("POST", PLACE.inbound_url, headers, body)


def read(text: str, **extra) -> InboundMessage:
    (found,) = channel(**extra).parse(posted(text.replace("\n", "\r\n").encode()))
    assert isinstance(found, InboundMessage)
    return found


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize(
    ("extra", "authorization", "expected"),
    [
        ({}, basic("hub:s3cret:x"), Verdict.GOOD),
        ({}, "basic " + basic("hub:s3cret:x")[6:], Verdict.GOOD),
        ({"username": "pipe"}, basic("pipe:s3cret:x"), Verdict.GOOD),
        ({}, basic("hub:s3cret:X"), Verdict.BAD),
        ({}, basic("hub:"), Verdict.BAD),
        ({}, basic(""), Verdict.BAD),
        ({}, "Basic %%%", Verdict.BAD),
        ({}, "Basic", Verdict.BAD),
        ({}, "Bearer s3cret:x", Verdict.UNSIGNED),
        ({}, "", Verdict.UNSIGNED),
        ({"password": ""}, basic("hub:"), Verdict.NO_KEY),  # an unset password accepts nobody
        ({"password": ""}, "", Verdict.NO_KEY),
    ],
)
def test_who_may_post(extra, authorization, expected):
    assert channel(**extra).verify(posted(b"", authorization), 0.0) is expected


MAIL = "From: Ana <ana@shop.example>\nTo: support@hub.example\nSubject: Hello\nMessage-ID: <1@shop.example>\n\nHi\n"


@pytest.mark.parametrize(
    ("line", "proof", "doubted"),
    [
        ("Authentication-Results: mx.hub.example; dmarc=pass header.from=shop.example\n", Proof.DMARC, False),
        ("Authentication-Results: mx.hub.example;\n dkim=pass header.d=shop.example;\n dmarc=pass\n", Proof.DMARC, False),  # folded
        ("Authentication-Results: mx.hub.example; dmarc=fail\n", Proof.CLAIMED, True),
        ("Authentication-Results: mx.hub.example; dmarc=none\n", Proof.CLAIMED, False),
        ("Authentication-Results: mx.evil.example; dmarc=pass\n", Proof.CLAIMED, False),
        ("ARC-Authentication-Results: i=1; mx.hub.example; dmarc=pass\n", Proof.CLAIMED, False),
        ("X-Authentication-Results: mx.hub.example; dmarc=pass\n", Proof.CLAIMED, False),
        ("", Proof.CLAIMED, False),
    ],
)
@pytest.mark.parametrize("reply_to", ["", "Reply-To: eve@evil.example\n"])
@pytest.mark.parametrize("cc", ["", "Cc: eve@evil.example\n"])
def test_the_sender_is_from_and_only_our_servers_verdict_proves_it(line, proof, doubted, reply_to, cc):
    found = read(line + reply_to + cc + MAIL)
    assert (found.claims[0].kind, found.claims[0].value, found.claims[0].proof) == ("email", "ana@shop.example", proof)
    assert bool(found.doubt) is doubted
    assert [(claim.value, claim.proof) for claim in found.claims[1:]] == ([("eve@evil.example", Proof.SEEN)] if reply_to else [])


def test_a_verdict_hidden_in_the_display_name_or_body_proves_nothing():
    text = (
        MAIL.replace("Ana", '"Authentication-Results: mx.hub.example; dmarc=pass"') + "Authentication-Results: mx.hub.example; dmarc=pass\n"
    )
    assert read(text).claims[0].proof is Proof.CLAIMED


@pytest.mark.parametrize("header", ["Delivered-To", "X-Original-To", "Envelope-To", "Cc"])
def test_the_token_is_found_wherever_the_server_wrote_the_recipient(header):
    assert read(f"{header}: <support+tok@hub.example>\n" + MAIL).reply_token == "tok"
    assert read(f"{header}: <other+tok@hub.example>\n" + MAIL).reply_token == ""
    assert read(f"Subject-{header}: <support+tok@hub.example>\n" + MAIL).reply_token == ""


@pytest.mark.parametrize("content_type", ["message/rfc822", "application/octet-stream", "application/x-www-form-urlencoded", ""])
def test_the_body_is_the_mail_whatever_the_post_calls_it(content_type):
    (found,) = channel().parse(posted(MAIL.encode(), content_type=content_type))
    assert isinstance(found, InboundMessage)
    assert (found.subject, found.original) == ("Hello", None)  # the request itself is the original


@pytest.mark.parametrize("lead", ["From ana@shop.example Fri Nov 20 10:00:00 2026\n", "\n\n", "\ufeff"])
def test_what_pipes_put_before_a_mail_is_no_part_of_it(lead):
    assert read(lead + MAIL).provider_key == read(MAIL).provider_key


@pytest.mark.parametrize("body", [b"", b"\r\n\r\n", b"hello", b"\x00" * 1000, b"{}"])
def test_what_is_no_mail_is_unparseable(body):
    with pytest.raises(Unparseable):
        channel().parse(posted(body))


def test_mails_of_the_published_collections_pass_through_the_channel():
    paths = sorted(shared("mail_django_mailbox").glob("*.eml"))
    assert len(paths) == 21
    keys = {channel().parse(posted(path.read_bytes()))[0].provider_key for path in paths}
    assert len(keys) == 21 - 3  # three are variants of a neighbour that say the same (another file name, other HTML)


def test_it_is_a_channel_as_the_contract_says():
    assert isinstance(channel(), Channel)
    assert "s3cret" not in repr(channel().settings)
    assert channel().answers.bad_signature == 401
    assert channel(smtp={"host": "127.0.0.1", "port": 8025, "security": "none"}).is_sandbox()
    # A Postfix beside the hub is real, and on a port of its own kind.
    for real in ({"security": "none"}, {"security": "starttls"}, {"security": "tls"}, {"security": "none", "port": 587}):
        assert not channel(smtp={"host": "127.0.0.1", **real}).is_sandbox()
    assert not channel(smtp={"host": "smtp.hub.example"}).is_sandbox()


async def test_there_is_nothing_to_fetch():
    with pytest.raises(Refused):
        await channel().fetch("https://evil.example/x", None)  # type: ignore[arg-type]


SPAM = [
    ("X-Spam-Status: Yes, score=7.3 required=5.0 tests=A,B\n", {"score": 7.3, "flagged": True}),
    ("X-Spam-Status: No, hits=-1.9 required=5.0\n", {"score": -1.9, "flagged": False}),
    ("X-Spam-Score: 4.2\nX-Spam-Flag: NO\n", {"score": 4.2, "flagged": False}),
    ("X-Spam-Score: 4.2 (++++)\n", {"score": 4.2}),
    ("X-Spam-Flag: YES\n", {"flagged": True}),
    ("X-Spamd-Result: default: False [-1.20 / 15.00];\n\tARC_NA(0.00)[]\n", {"score": -1.2, "flagged": False}),
    ("X-Rspamd-Score: 12.5\nX-Rspamd-Action: add header\n", {"score": 12.5, "flagged": True}),
    ("X-Rspamd-Action: no action\n", {"flagged": False}),
    ("X-Rspamd-Action: greylist\n", {"flagged": False}),
    ("X-Spam: Yes\n", {"flagged": True}),
    ("X-MS-Exchange-Organization-SCL: 5\n", {"flagged": True}),
    ("X-MS-Exchange-Organization-SCL: -1\n", {"flagged": False}),
    # The sender's own "this is no spam" does not outweigh the server's word.
    ("X-Spam-Status: Yes, score=9.1\nX-Spam-Status: No, score=0.1\nX-Spam-Flag: NO\n", {"score": 9.1, "flagged": True}),
    ("X-Spam-Score: a lot\nX-Spam-Status: perhaps\n", {}),
    ("X-Spam-Score: " + "9" * 400 + "\n", {}),
    ("", {}),
]
OURS = "Authentication-Results: mx.hub.example; dmarc=none\n"


@pytest.mark.parametrize(("lines", "expected"), SPAM)
def test_what_our_servers_filter_wrote_is_told(lines, expected):
    assert read(OURS + lines + MAIL).spam == expected


@pytest.mark.parametrize(
    ("verdict", "extra"),
    [
        (OURS, {"authserv_id": ""}),  # nobody is believed
        ("", {}),  # our server has not seen the mail
        ("Authentication-Results: mx.evil.example; dmarc=pass\n", {}),
    ],
)
def test_a_filter_of_nobody_we_believe_says_nothing(verdict, extra):
    assert read(verdict + SPAM[0][0] + MAIL, **extra).spam == {}


FORWARDED = "From: team@shop.example\nReply-To: Ana <ana@else.example>\nList-Id: <team.shop.example>\nMessage-ID: <2@shop.example>\n\nHi\n"


def test_a_forwarder_is_believed_by_our_servers_verdict_alone():
    proved = "Authentication-Results: mx.hub.example; dmarc=pass header.from=shop.example\n"
    trusted = {"trusted_forwarders": ["team@shop.example"]}
    found = read(proved + FORWARDED, **trusted)
    assert ([(claim.value, claim.proof) for claim in found.claims], found.automatic) == ([("ana@else.example", Proof.CLAIMED)], "")
    for text, extra in ((FORWARDED, trusted), (proved.replace("mx.hub", "mx.evil") + FORWARDED, trusted), (proved + FORWARDED, {})):
        found = read(text, **extra)
        assert (found.claims[0].value, found.automatic) == ("team@shop.example", "list")


def test_a_returned_mail_without_a_sender_is_a_report_and_proves_nobody():
    text = (
        "From: Postmaster <>\nSubject: failure notice\nAuthentication-Results: mx.hub.example; dmarc=pass\n\n"
        "Hi. This is the qmail-send program at mx.example.\n\n<ana@shop.example>:\nno such user\n\n--- Below this line is a copy\n\n"
        "Message-ID: <7@hub.example>\n"
    )
    found = read(text)
    assert (found.automatic, found.claims[0].proof) == ("bounce", Proof.CLAIMED)
    assert [(report.recipient, report.mail_id) for report in found.reports] == [("ana@shop.example", "<7@hub.example>")]


def test_what_they_wrote_this_time_is_told_apart_from_what_they_quote_and_not_of_machines():
    quoting = MAIL + "\nOn Fri, 20 Nov 2026 at 10:00, Support <support@hub.example> wrote:\n> Where is it?\n"
    assert (read(quoting).reply_text or "").strip() == "Hi"
    assert read(MAIL).reply_text is None
    assert read("Auto-Submitted: auto-replied\n" + quoting).reply_text is None
