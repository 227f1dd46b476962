"""Whole mails posted by one's own server: who may post, what proves the sender, and where answers go."""

import base64

import pytest

from connectors.email.raw import RawEmail
from hub.contract import Channel, InboundMessage, Place, Proof, Refused, Request, Unparseable, Verdict
from tests.shared_data import shared

PLACE = Place(name="mail", inbound_url="https://hub.example/in/mail", key=b"k" * 32)


def channel(**extra) -> RawEmail:
    known = {"type": "email", "address": "support@hub.example", "password": "s3cret:x", "authserv_id": "mx.hub.example"}
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


@pytest.mark.parametrize("body", [b"", b"\r\n\r\n", b"hello", b"\x00" * 1000, b"{}", b"From: \xff\xff\r\n\r\n"])
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
    assert "s3cret" not in repr(channel()._settings)
    assert channel().answers.bad_signature == 401
    assert channel(smtp={"host": "127.0.0.1", "port": 8025, "security": "none"}).is_sandbox()
    # A Postfix beside the hub is real, and on a port of its own kind.
    for real in ({"security": "none"}, {"security": "starttls"}, {"security": "tls"}, {"security": "none", "port": 587}):
        assert not channel(smtp={"host": "127.0.0.1", **real}).is_sandbox()
    assert not channel(smtp={"host": "smtp.hub.example"}).is_sandbox()


async def test_there_is_nothing_to_fetch():
    with pytest.raises(Refused):
        await channel().fetch("https://evil.example/x", None)  # type: ignore[arg-type]
