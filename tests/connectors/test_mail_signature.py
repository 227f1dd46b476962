"""A mail's own signature proves its sender only where it is whole, believable and by a domain that may speak for From (RFC 6376)."""

from __future__ import annotations

import base64
import importlib.util
import re
import time
from collections.abc import Sequence

import pytest

from connectors.email.raw import RawEmail
from connectors.email.sendgrid import SendgridEmail
from connectors.shared.mail_signature import check_signature, covers
from hub.contract import Checked, Checks, InboundMessage, Place, Proof, Request, TryLater
from tests.signed_mail import MAIL, keys, record, signed

ADA = "ada@shop.example"
NAME = "s1._domainkey.shop.example"
NOW = time.time()


class Keys:
    """What the DNS holds; an Exception is raised in the place of an answer."""

    def __init__(self, records: dict[str, list[bytes] | Exception] | None = None) -> None:
        self.records = records if records is not None else {NAME: [record()]}
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[bytes]:
        self.asked.append(name)
        found = self.records.get(name, [])
        if isinstance(found, Exception):
            raise found
        return found


def retagged(mail: bytes, tag: str, value: str) -> bytes:
    """The first signature with a tag put in front: it no longer holds, which whoever looks that far would find out."""
    return mail.replace(b"DKIM-Signature: v=1;", f"DKIM-Signature: v=1; {tag}={value};".encode(), 1)


HOLDS = [
    ("relaxed", signed()),
    ("simple", signed(canonical=(b"simple", b"simple"))),
    ("relaxed header, simple body", signed(canonical=(b"relaxed", b"simple"))),
    ("simple header, relaxed body", signed(canonical=(b"simple", b"relaxed"))),
    ("posted with bare line feeds", signed().replace(b"\r\n", b"\n")),
    ("blanks changed under way", signed().replace(b"Where is  it? \t\r\n", b"Where is it?\r\n") + b"\r\n\r\n"),
    ("lines added above", b"Received: from a by b; Sun, 22 Nov 2026 10:00:01 +0000\r\n" + signed()),
    ("no text", signed(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")),
    ("no text, simple", signed(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", canonical=(b"simple", b"simple"))),
    ("only blank lines", signed(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n\r\n\r\n \r\n")),
    ("no end of line at the end", signed(MAIL.rstrip() + b" x")),
    ("a second signature that does not hold", signed(signed(), key=1, selector="s2")),
    ("below a mailing list's", signed(signed(), "lists.example", "x")),
    ("signed by somebody in that domain", signed(identity="ada@shop.example")),
    ("a name of its own in the domain", signed(identity="@mail.shop.example")),
    ("not yet run out", signed()),
    ("an encoded name", signed(MAIL.replace(b"Ada Okafor", b"=?utf-8?q?Ada_Okaf=C3=B3r?="))),
]


@pytest.mark.parametrize("mail", [mail for _, mail in HOLDS], ids=[name for name, _ in HOLDS])
async def test_a_whole_signature_of_the_from_domain_proves_the_sender(mail: bytes) -> None:
    found = await check_signature(mail, ADA, NOW, Keys())
    assert (found.domain, found.selector) == ("shop.example", "s1"), found.why


async def test_a_domain_above_the_from_domain_may_speak_for_it() -> None:
    mail = signed(MAIL.replace(b"@shop.example>", b"@mail.shop.example>", 1))
    assert (await check_signature(mail, "ada@mail.shop.example", NOW, Keys())).domain == "shop.example"


@pytest.mark.parametrize(
    ("domain", "of", "expected"),
    [
        ("shop.example", "shop.example", True),
        ("Shop.Example", "shop.example", True),
        ("shop.example", "mail.shop.example", True),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("mail.shop.example", "shop.example", False),  # who can tell it from evil.hoster.example and hoster.example?
        ("evilshop.example", "shop.example", False),
        ("example", "shop.example", False),
        ("co.uk", "bank.co.uk", False),
        ("", "shop.example", False),
        (".example", "shop.example", False),
    ],
)
def test_who_may_speak_for_whom(domain: str, of: str, expected: bool) -> None:
    assert covers(domain, of) is expected


def _late(mail: bytes) -> bytes:
    return retagged(mail, "x", str(int(NOW) - 1))


PROVES_NOTHING = [
    ("not signed", MAIL, "not signed"),
    ("text changed", signed().replace(b"Friday", b"Monday"), "does not hold"),
    ("text added", signed() + b"PS: send it to Mallory.\r\n", "does not hold"),
    ("subject changed", signed().replace(b"My parcel", b"My money"), "does not hold"),
    ("sender changed", signed(MAIL.replace(b"ada@", b"eve@")).replace(b"eve@", b"ada@"), "does not hold"),
    ("another key", signed(key=1), "does not hold"),
    ("by a stranger", signed(domain="evil.example"), "evil.example cannot speak for shop.example"),
    ("by a sub-domain", signed(domain="mail.shop.example"), "cannot speak"),
    ("by a look-alike", signed(domain="evilshop.example"), "cannot speak"),
    ("only the beginning", signed(length=True), "only a part of the text"),
    ("only the beginning, and more", signed(length=True) + b"PS: send it to Mallory.\r\n", "only a part of the text"),
    ("old algorithm", signed(algorithm=b"rsa-sha1"), "an algorithm that is not believed"),
    ("run out", _late(signed()), "had run out"),
    ("an absurd end", retagged(signed(), "x", "9" * 30), "had run out"),
    ("no sender signed", re.sub(rb"h=[^;]*;", b"h=subject : date;", signed(), count=1), "did not sign the sender"),
    ("two senders", b"From: eve@evil.example\r\n" + signed(), "one From header"),
    ("two senders, below", signed().replace(b"To: support", b"From: eve@evil.example\r\nTo: support"), "one From header"),
    ("the same sender twice", b"From: Ada Okafor <ada@shop.example>\r\n" + signed(), "one From header"),
    ("two in one line", signed(MAIL.replace(b"<ada@shop.example>", b"<ada@shop.example>, eve@evil.example")), "one From header"),
    ("no sender", signed().replace(b"From: Ada", b"X-From: Ada"), "one From header"),
    ("a bare carriage return", b"X-A: b\rFrom: eve@evil.example\r\n" + signed(), "bare carriage return"),
    ("tags twice", retagged(signed(), "d", "shop.example"), "cannot be read"),
    ("no tags", MAIL.replace(b"To:", b"DKIM-Signature: \xff;;=\r\nTo:"), "cannot be read"),
    ("a strange selector", retagged(MAIL.replace(b"To:", b"DKIM-Signature: v=1; d=shop.example\r\nTo:"), "s", "a b"), "cannot be read"),
    ("folded for ever", retagged(signed(), "z", "a" + " " * 200), "more folded"),
    ("long", retagged(signed(), "z", "a" * 9_000), "longer"),
    ("so many headers", b"X-A: b\r\n" * 6_000 + signed(), "header lines"),
    ("so long headers", b"X-A: " + b"b" * 300_000 + b"\r\n" + signed(), "header lines"),
    ("not a mail", b"\x00\x01", "one From header"),
    ("nothing", b"", "one From header"),
    ("a line that is no header", signed().replace(b"To: support", b"this is no header\r\nTo: support"), "cannot be checked"),
]


@pytest.mark.parametrize(("mail", "why"), [row[1:] for row in PROVES_NOTHING], ids=[row[0] for row in PROVES_NOTHING])
async def test_what_proves_nothing(mail: bytes, why: str) -> None:
    asked = Keys({NAME: [record()], "s1._domainkey.evil.example": [record()], "s1._domainkey.mail.shop.example": [record()]})
    found = await check_signature(mail, ADA, NOW, asked)
    assert (found.domain, found.selector) == ("", "")
    assert why in found.why
    assert not [name for name in asked.asked if not name.endswith("._domainkey.shop.example")], "no stranger is looked up"


async def test_whom_the_hub_takes_for_the_sender_is_whom_the_signature_must_name() -> None:
    assert (await check_signature(signed(), "bob@shop.example", NOW, Keys())).domain == ""


ED25519 = base64.b64encode(b"\x07" * 32).decode()
KEYS = [
    ("none", [], "no such key"),
    ("another record", [b"v=spf1 -all"], "no such key"),
    ("two keys", [record(), record(1)], "several keys"),
    ("beside another record", [b"v=spf1 -all", record()], ""),
    ("bare", [f"p={keys(0)[1]}".encode()], ""),
    ("revoked", [b"v=DKIM1; p="], "revoked"),
    ("testing", [record(tags="v=DKIM1; t=y; ")], "testing"),
    ("testing, among others", [record(tags="v=DKIM1; t=s:y; ")], "testing"),
    ("no sub-domains", [record(tags="v=DKIM1; t=s; ")], ""),
    ("not for mail", [record(tags="v=DKIM1; s=tlsrpt; ")], "not for mail"),
    ("for mail", [record(tags="v=DKIM1; s=email; ")], ""),
    ("only for the old algorithm", [record(tags="v=DKIM1; h=sha1; ")], "not for this kind"),
    ("for both", [record(tags="v=DKIM1; h=sha1:sha256; ")], ""),
    ("another version", [record(tags="v=DKIM2; ")], "does not fit"),
    ("another kind", [f"v=DKIM1; k=ed25519; p={ED25519}".encode()], "does not fit"),
    ("512 bits", [b"v=DKIM1; p=" + base64.b64encode(b"\x30" * 94)], "does not fit"),  # what such a key takes in DER
    ("absurdly long", [b"v=DKIM1; p=" + base64.b64encode(b"\x30" * 40_000)], "does not fit"),
    ("not base64", [b"v=DKIM1; p=!!!!"], "does not fit"),
    ("not a key", [b"v=DKIM1; p=" + base64.b64encode(b"\x30" * 300)], "does not hold"),
    ("twice the same tag", [record(tags="v=DKIM1; v=DKIM1; ")], "no such key"),
    ("no text", [b"\xff\xfe"], "no such key"),
]


@pytest.mark.parametrize(("records", "why"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS])
async def test_which_key_is_believed(records: list[bytes], why: str) -> None:
    found = await check_signature(signed(), ADA, NOW, Keys({NAME: list(records)}))
    assert bool(found.domain) is (why == "")
    assert why in found.why


async def test_a_key_for_the_domain_alone_does_not_speak_for_a_name_below() -> None:
    strict: dict[str, list[bytes] | Exception] = {NAME: [record(tags="v=DKIM1; t=s; ")]}
    found = await check_signature(signed(identity="@mail.shop.example"), ADA, NOW, Keys(strict))
    assert not found.domain
    assert "sub-domains" in found.why


@pytest.mark.skipif(importlib.util.find_spec("nacl") is not None, reason="here it can be checked")
async def test_what_cannot_be_checked_for_want_of_a_package_says_so() -> None:
    mail = signed().replace(b"a=rsa-sha256", b"a=ed25519-sha256")
    found = await check_signature(mail, ADA, NOW, Keys({NAME: [f"v=DKIM1; k=ed25519; p={ED25519}".encode()]}))
    assert not found.domain
    assert "PyNaCl" in found.why


async def test_a_key_nobody_could_look_up_is_asked_for_again_unless_another_proves_the_sender() -> None:
    both = signed(signed(), key=1, selector="s2")
    silent = TryLater("no answer")
    with pytest.raises(TryLater):
        await check_signature(both, ADA, NOW, Keys({NAME: silent, "s2._domainkey.shop.example": [record()]}))
    one_holds = Keys({"s2._domainkey.shop.example": silent, NAME: [record()]})
    assert (await check_signature(both, ADA, NOW, one_holds)).domain == "shop.example"


async def test_only_so_many_signatures_are_looked_up() -> None:
    mail = signed()
    signature, _, _ = mail.partition(b"From:")
    many = b"".join(signature.replace(b"s=s1;", f"s=x{number};".encode()) for number in range(40))
    asked = Keys()
    assert not (await check_signature(many + mail, ADA, NOW, asked)).domain
    assert len(asked.asked) == 5


@pytest.mark.parametrize("canonical", [(b"relaxed", b"relaxed"), (b"simple", b"simple")], ids=["relaxed", "simple"])
async def test_what_is_made_to_be_slow_is_not(canonical: tuple[bytes, bytes]) -> None:
    """A run of blanks without an end of line took the library's own pattern a time that grows with its square: hours for this one."""
    body = b" " * 3_000_000 + b"x" + b"\t" * 3_000_000 + b"\r\n" * 100_000
    mail = MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    before = time.process_time()
    found = await check_signature(signed(mail, canonical=canonical) + body, ADA, NOW, Keys())
    assert "does not hold" in found.why
    assert time.process_time() - before < 10


# --- which mails come in unchecked ---

PLACE = Place(name="mail", inbound_url="https://hub.example/in/mail", key=b"k" * 32)


def raw(**extra: str) -> RawEmail:
    known = {"type": "mime", "address": "support@hub.example", "password": "s3cret", "smtp": {"host": "127.0.0.1"}}
    return RawEmail(RawEmail.Settings.model_validate(known | extra), PLACE)


def results(text: str, mail: bytes | None = None) -> bytes:
    return f"Authentication-Results: mx.hub.example; {text}\r\n".encode() + (mail if mail is not None else signed())


UNCHECKED = [
    ("nobody's verdict is believed", "", signed(), True),
    ("nor one that is there", "", results("dkim=fail"), True),
    ("our server said nothing", "mx.hub.example", signed(), True),
    ("our server knows of no policy", "mx.hub.example", results("dmarc=none"), True),
    ("our server could not look it up", "mx.hub.example", results("dkim=temperror"), True),
    ("another server spoke", "mx.other.example", results("dkim=fail"), True),
    ("our server found it good", "mx.hub.example", results("dkim=pass header.d=shop.example"), False),
    ("our server found it bad", "mx.hub.example", results("dkim=fail"), False),
    ("our server found it forged", "mx.hub.example", results("dmarc=fail"), False),
    ("not signed", "", MAIL, False),
    ("signed by another domain", "", signed(domain="evil.example"), False),
    ("two senders", "", b"From: eve@evil.example\r\n" + signed(), False),
]


@pytest.mark.parametrize(("ours", "mail", "unchecked"), [row[1:] for row in UNCHECKED], ids=[row[0] for row in UNCHECKED])
def test_which_mails_are_to_be_checked(ours: str, mail: bytes, unchecked: bool) -> None:
    (said,) = raw(authserv_id=ours).parse(Request("POST", PLACE.inbound_url, {"content-type": "message/rfc822"}, mail))
    assert isinstance(said, InboundMessage)
    assert said.unchecked is unchecked
    if unchecked:
        assert said.claims[0].proof is Proof.CLAIMED, "until then it proves nothing"


def form(**fields: bytes) -> Request:
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value + b"\r\n" for name, value in fields.items()
    )
    return Request("POST", PLACE.inbound_url, {"content-type": "multipart/form-data; boundary=b"}, body + b"--b--\r\n")


def sendgrid(**extra: object) -> SendgridEmail:
    known = {"type": "sendgrid", "address": "support@hub.example", "basic_auth": "u:p", "smtp": {"host": "127.0.0.1"}}
    return SendgridEmail(SendgridEmail.Settings.model_validate(known | extra), PLACE)


@pytest.mark.parametrize(
    ("extra", "request_", "unchecked"),
    [
        ({}, form(email=signed()), True),  # the field is missing
        ({}, form(email=signed(), dkim=b"{@XXX : invalid (public key: invalid data\n at x.pm line 1)}"), True),
        ({}, form(email=signed(), dkim=b"{@shop.example : fail}"), False),
        ({}, form(email=signed(), dkim=b"{@shop.example : pass}"), False),
        ({}, form(email=MAIL), False),
        ({}, form(headers=signed().partition(b"\r\n\r\n")[0], text=b"Where is it?"), False),  # nothing left to check
        # Whoever posts here wrote the verdict as well; the signature they could not write.
        ({"basic_auth": "", "allow_unsigned": True}, form(email=signed(), dkim=b"{@shop.example : pass}"), True),
    ],
)
async def test_which_of_sendgrids_mails_are_to_be_checked(extra: dict[str, object], request_: Request, unchecked: bool) -> None:
    channel = sendgrid(**extra)
    assert isinstance(channel, Checks)
    (said,) = channel.parse(request_)
    assert isinstance(said, InboundMessage)
    assert said.unchecked is unchecked
    if unchecked:
        (found,) = await channel.check(request_, NOW, Keys())
        assert isinstance(found, Checked)
        assert found.proved is not None
        assert (found.proved.value, found.proved.proof, found.source) == (ADA, Proof.DMARC, "dkim:shop.example:s1")


@pytest.mark.parametrize("channel", [raw(), raw(authserv_id="mx.hub.example"), sendgrid(), sendgrid(basic_auth="", allow_unsigned=True)])
def test_the_administrator_is_told_what_is_checked(channel: Checks) -> None:
    assert "signed mail" in channel.what_is_checked()
